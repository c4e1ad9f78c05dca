//! `spd.h`: the six routines of the SPD kernel.

use crate::convert::c_text;
use mutirao::group::{Error, Group, Mode};
use std::cell::RefCell;
use std::ffi::{CString, c_char, c_int, c_ushort};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

/// `msg_type`.
#[repr(C)]
#[derive(Debug)]
pub struct Message {
    pub len: c_ushort,
    pub data: *mut c_char,
}

pub const EMPTY: c_int = -1;
pub const ENOTOPEN: c_int = -2;
pub const ENOGROUP: c_int = -3;
pub const ECHANNEL: c_int = -4;
pub const EMODE: c_int = -5;
pub const ETOOLONG: c_int = -6;
pub const EENDED: c_int = -7;
pub const ELOST: c_int = -8;
pub const EARGUMENT: c_int = -9;
pub const ESYSTEM: c_int = -10;

static GROUP: RwLock<Option<Group>> = RwLock::new(None);

thread_local! {
    static LAST: RefCell<CString> = RefCell::new(CString::default());
}

/// A number, and a text that says more.
type Refusal = (c_int, String);

fn code(error: &Error) -> c_int {
    match error {
        Error::NoGroup | Error::OpenedTwice | Error::Protocol(_) => ENOGROUP,
        Error::NoChannel { .. } => ECHANNEL,
        Error::Mixed { .. } | Error::MixedHere { .. } => EMODE,
        Error::TooLong { .. } => ETOOLONG,
        Error::Ended { .. } => EENDED,
        Error::System { .. } => ESYSTEM,
        _ => ELOST,
    }
}

fn refusal(error: Error) -> Refusal {
    (code(&error), error.to_string())
}

/// What a routine gives back to C. No panic leaves it.
fn outcome(body: impl FnOnce() -> Result<c_int, Refusal>) -> c_int {
    let result = catch_unwind(AssertUnwindSafe(body))
        .unwrap_or_else(|_| Err((ESYSTEM, "a fault of the library, please report it".into())));
    result.unwrap_or_else(|(code, text)| {
        LAST.with(|last| *last.borrow_mut() = c_text(&text));
        code
    })
}

fn group() -> Result<Group, Refusal> {
    let group = GROUP.read().unwrap_or_else(PoisonError::into_inner).clone();
    group.ok_or_else(|| (ENOTOPEN, "the group is not open: call open_spd() first".into()))
}

fn number(channel: c_int) -> Result<u32, Refusal> {
    u32::try_from(channel).map_err(|_| (ECHANNEL, format!("{channel} names no channel")))
}

/// The bytes to be sent.
///
/// # Safety
/// `m` is NULL or as `spd.h` says.
unsafe fn bytes<'a>(m: *const Message) -> Result<&'a [u8], Refusal> {
    // SAFETY: the caller's promise.
    let Some(m) = (unsafe { m.as_ref() }) else { return Err((EARGUMENT, "the message is NULL".into())) };
    match (m.len, m.data.is_null()) {
        (0, _) => Ok(&[]),
        (_, true) => Err((EARGUMENT, "the message has a length, but its data is NULL".into())),
        // SAFETY: not NULL; that there are so many bytes is the caller's promise.
        (len, false) => Ok(unsafe { std::slice::from_raw_parts(m.data.cast::<u8>(), len.into()) }),
    }
}

/// Receives into a message.
///
/// # Safety
/// `m` is NULL or as `spd.h` says.
unsafe fn receive(channel: c_int, m: *mut Message, mode: Mode) -> Result<c_int, Refusal> {
    // SAFETY: the caller's promise.
    let Some(m) = (unsafe { m.as_mut() }) else { return Err((EARGUMENT, "the message is NULL".into())) };
    let input = group()?.input(number(channel)?).map_err(refusal)?;
    let timeout = (mode == Mode::Async).then_some(Duration::ZERO);
    let mut found = Vec::new();
    let room: &mut [u8] = if m.data.is_null() {
        found.resize(c_ushort::MAX.into(), 0);
        &mut found
    } else {
        // SAFETY: not NULL; that there is so much room is the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(m.data.cast::<u8>(), m.len.into()) }
    };
    let Some(length) = input.receive_into_as(room, Some(mode), timeout).map_err(refusal)? else {
        return Err((EMPTY, format!("no message is there on input channel {channel}")));
    };
    if m.data.is_null() {
        // SAFETY: no preconditions; at least one byte, so that NULL means that there is no memory.
        let data = unsafe { libc::malloc(length.max(1)) };
        if data.is_null() {
            return Err((ESYSTEM, format!("there is no memory for the {length} bytes that were received")));
        }
        // SAFETY: both have so many bytes, and cannot overlap, for one is fresh.
        unsafe { std::ptr::copy_nonoverlapping(found.as_ptr(), data.cast::<u8>(), length) };
        m.data = data.cast();
    }
    m.len = length as c_ushort;
    Ok(0)
}

/// See spd.h.
#[unsafe(no_mangle)]
pub extern "C" fn open_spd() -> c_int {
    outcome(|| {
        let mut place = GROUP.write().unwrap_or_else(PoisonError::into_inner);
        *place = Some(Group::open().map_err(refusal)?);
        Ok(0)
    })
}

/// See spd.h.
#[unsafe(no_mangle)]
pub extern "C" fn close_spd() -> c_int {
    outcome(|| {
        let group = group()?;
        let result = group.close().map_err(refusal);
        *GROUP.write().unwrap_or_else(PoisonError::into_inner) = None;
        result.map(|()| 0)
    })
}

/// See spd.h.
///
/// # Safety
/// `m` is as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sendc(channel: c_int, m: *mut Message) -> c_int {
    outcome(|| {
        // SAFETY: the caller's promise.
        let bytes = unsafe { bytes(m) }?;
        group()?.output(number(channel)?).and_then(|output| output.send(bytes)).map_err(refusal)?;
        Ok(0)
    })
}

/// See spd.h.
///
/// # Safety
/// `m` is as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn receivec(channel: c_int, m: *mut Message) -> c_int {
    // SAFETY: the caller's promise.
    outcome(|| unsafe { receive(channel, m, Mode::Sync) })
}

/// See spd.h.
///
/// # Safety
/// `m` is as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn a_sendc(channel: c_int, m: *mut Message) -> c_int {
    outcome(|| {
        // SAFETY: the caller's promise.
        let bytes = unsafe { bytes(m) }?;
        group()?.output(number(channel)?).and_then(|output| output.post(bytes)).map_err(refusal)?;
        Ok(0)
    })
}

/// See spd.h.
///
/// # Safety
/// `m` is as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn a_receivec(channel: c_int, m: *mut Message) -> c_int {
    // SAFETY: the caller's promise.
    outcome(|| unsafe { receive(channel, m, Mode::Async) })
}

/// See spd.h.
#[unsafe(no_mangle)]
pub extern "C" fn spd_error() -> *const c_char {
    LAST.with(|last| last.borrow().as_ptr())
}
