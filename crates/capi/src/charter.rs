//! Administration routines: whom the pool lets in, and whom it lets allocate.

use crate::convert;
use crate::error::{Error, outcome};
use crate::pool::Pool;
use mutirao::raw;
use std::ffi::c_char;
use std::time::Duration;

/// Does something to the charter about whom `who` names.
///
/// # Safety
/// The pointers are as the header says.
unsafe fn change(
    pool: *mut Pool,
    who: *const c_char,
    make: impl FnOnce(&raw::Pool, &str) -> Result<u64, raw::Error>,
) -> *mut Error {
    outcome(|| {
        // SAFETY: the caller's promise.
        let pool = unsafe { convert::reference(pool, "pool") }?;
        // SAFETY: the caller's promise.
        let who = unsafe { convert::text(who, "who") }?;
        make(&pool.library, who)?;
        Ok(())
    })
}

/// See mutirao.h.
///
/// # Safety
/// The pointers are as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_admin_grant(
    pool: *mut Pool,
    who: *const c_char,
    slots: u32,
    seconds: u32,
) -> *mut Error {
    let time = Duration::from_secs(seconds.into());
    // SAFETY: the caller's promise.
    unsafe { change(pool, who, |pool, who| pool.grant(who, slots, time)) }
}

/// See mutirao.h.
///
/// # Safety
/// The pointers are as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_admin_insert(pool: *mut Pool, who: *const c_char, slots: u32) -> *mut Error {
    // SAFETY: the caller's promise.
    unsafe { change(pool, who, |pool, who| pool.insert(who, slots)) }
}

/// See mutirao.h.
///
/// # Safety
/// The pointers are as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_admin_remove(pool: *mut Pool, who: *const c_char) -> *mut Error {
    // SAFETY: the caller's promise.
    unsafe { change(pool, who, raw::Pool::remove) }
}

/// See mutirao.h.
///
/// # Safety
/// The pointers are as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_charter_revoke(
    pool: *mut Pool,
    who: *const c_char,
    reason: *const c_char,
) -> *mut Error {
    outcome(|| {
        // SAFETY: the caller's promise.
        let pool = unsafe { convert::reference(pool, "pool") }?;
        // SAFETY: the caller's promise.
        let who = unsafe { convert::text(who, "who") }?;
        // SAFETY: the caller's promise.
        let reason = unsafe { convert::optional_text(reason, "reason") }?;
        pool.library.revoke(who, reason.unwrap_or_default())?;
        Ok(())
    })
}

/// See mutirao.h.
///
/// # Safety
/// The pointers are as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_charter_restore(pool: *mut Pool, who: *const c_char) -> *mut Error {
    // SAFETY: the caller's promise.
    unsafe { change(pool, who, raw::Pool::restore) }
}
