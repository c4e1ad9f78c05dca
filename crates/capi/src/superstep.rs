//! Programs of a group that go in steps, and where their time goes.

use crate::convert::{output, reference};
use crate::error::{Error, outcome, value};
use crate::group::Group;
use std::time::Instant;

/// `mutirao_superstep`.
#[derive(Debug)]
pub struct Superstep {
    group: mutirao::group::Group,
    times: Times,
    exchanges: bool,
    since: Instant,
}

/// `mutirao_times`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct Times {
    pub computing_ns: u64,
    pub exchanging_ns: u64,
    pub waiting_ns: u64,
    pub steps: u32,
    pub reserved: u32,
}

impl Superstep {
    /// Adds the time since something changed to where it belongs.
    fn turn(&mut self, exchanges: bool) {
        let now = Instant::now();
        let spent = now.duration_since(self.since).as_nanos() as u64;
        let place = if self.exchanges { &mut self.times.exchanging_ns } else { &mut self.times.computing_ns };
        *place += spent;
        (self.since, self.exchanges) = (now, exchanges);
    }
}

/// See mutirao.h.
///
/// # Safety
/// `group` is NULL or open; `superstep` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_superstep_begin(
    group: *const Group,
    superstep: *mut *mut Superstep,
) -> *mut Error {
    outcome(|| {
        // SAFETY: the caller's promise.
        let group = unsafe { reference(group, "group") }?.inner.clone();
        let into = output(superstep, "superstep")?;
        let begun = Superstep { group, times: Times::default(), exchanges: false, since: Instant::now() };
        // SAFETY: not NULL; that it can be written is the caller's promise.
        unsafe { into.write(Box::into_raw(Box::new(begun))) };
        Ok(())
    })
}

/// See mutirao.h.
///
/// # Safety
/// `superstep` is NULL or was not deleted, and no other thread uses it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_superstep_exchange(superstep: *mut Superstep) {
    value((), || {
        // SAFETY: the caller's promise.
        if let Some(step) = unsafe { superstep.as_mut() } {
            step.turn(true);
        }
    });
}

/// See mutirao.h.
///
/// # Safety
/// `superstep` is NULL or was not deleted, and no other thread uses it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_superstep_meet(superstep: *mut Superstep) -> *mut Error {
    outcome(|| {
        // SAFETY: the caller's promise.
        let step = unsafe { superstep.as_mut() }.ok_or_else(|| Error::null("superstep"))?;
        step.turn(false);
        let met = step.group.barrier();
        let now = Instant::now();
        step.times.waiting_ns += now.duration_since(step.since).as_nanos() as u64;
        step.since = now;
        met?;
        step.times.steps += 1;
        Ok(())
    })
}

/// See mutirao.h.
///
/// # Safety
/// `superstep` is NULL or was not deleted; `times` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_superstep_times(
    superstep: *const Superstep,
    times: *mut Times,
) -> *mut Error {
    outcome(|| {
        // SAFETY: the caller's promise.
        let step = unsafe { reference(superstep, "superstep") }?;
        // SAFETY: not NULL; that it can be written is the caller's promise.
        unsafe { output(times, "times")?.write(step.times) };
        Ok(())
    })
}

/// See mutirao.h.
///
/// # Safety
/// `superstep` is NULL or was not deleted and is not used any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_superstep_delete(superstep: *mut Superstep) {
    if !superstep.is_null() {
        // SAFETY: not NULL, so `mutirao_superstep_begin` has made it of a box; the rest is the caller's promise.
        value((), || drop(unsafe { Box::from_raw(superstep) }));
    }
}
