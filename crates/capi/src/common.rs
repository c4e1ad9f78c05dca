//! Common routines: versions, errors, data, the table of operations.

use crate::convert::{self, output};
use crate::error::{Code, Error, outcome, value};
use crate::operation::Operation;
use std::ffi::{c_char, c_int, c_void};
use std::ptr::null_mut;

const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");

/// `mutirao_bytes`. Made here, it holds one byte more than `size` says, a zero.
#[repr(C)]
#[derive(Debug)]
pub struct Bytes {
    pub data: *mut c_void,
    pub size: usize,
}

impl Bytes {
    /// Gives the bytes to C.
    pub fn hand_out(mut bytes: Vec<u8>) -> Bytes {
        let size = bytes.len();
        bytes.reserve_exact(1);
        bytes.push(0);
        Bytes { data: Box::into_raw(bytes.into_boxed_slice()).cast(), size }
    }

    /// Takes bytes back from C, which has none then.
    ///
    /// # Safety
    /// They are all zero or as this library handed them out.
    pub unsafe fn take_back(&mut self) -> Vec<u8> {
        let Bytes { data, size } = std::mem::replace(self, Bytes { data: null_mut(), size: 0 });
        if data.is_null() {
            return Vec::new();
        }
        let whole = std::ptr::slice_from_raw_parts_mut(data.cast::<u8>(), size + 1);
        // SAFETY: `hand_out` has made it of a box with one byte more than `size`.
        let mut bytes = unsafe { Box::from_raw(whole) }.into_vec();
        bytes.truncate(size);
        bytes
    }
}

/// See mutirao.h.
#[unsafe(no_mangle)]
pub extern "C" fn mutirao_version() -> *const c_char {
    VERSION.as_ptr().cast()
}

/// See mutirao.h.
///
/// # Safety
/// `error` is NULL or an error that was not deleted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_error_code(error: *const Error) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { error.as_ref() }.map_or(0, |error| error.code as c_int)
}

/// See mutirao.h.
///
/// # Safety
/// `error` is NULL or an error that was not deleted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_error_operation_code(error: *const Error) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { error.as_ref() }.map_or(0, |error| error.operation_code)
}

/// See mutirao.h.
///
/// # Safety
/// `error` is NULL or an error that was not deleted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_error_text(error: *const Error) -> *const c_char {
    // SAFETY: the caller's promise.
    unsafe { error.as_ref() }.map_or(c"".as_ptr(), |error| error.text.as_ptr())
}

/// See mutirao.h.
///
/// # Safety
/// `error` is NULL or an error that was not deleted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_error_node(error: *const Error) -> *const c_char {
    // SAFETY: the caller's promise.
    unsafe { error.as_ref() }.map_or(c"".as_ptr(), |error| error.node.as_ptr())
}

/// See mutirao.h.
///
/// # Safety
/// `error` is NULL or an error that was not deleted and is not used any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_error_delete(error: *mut Error) {
    if !error.is_null() {
        // SAFETY: not NULL, so it is one that `outcome` has made of a box; the rest is the caller's promise.
        value((), || drop(unsafe { Box::from_raw(error) }));
    }
}

/// See mutirao.h.
///
/// # Safety
/// `bytes` is NULL or points to bytes that are all zero or as this library handed them out.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_bytes_delete(bytes: *mut Bytes) {
    // SAFETY: the caller's promise.
    let Some(bytes) = (unsafe { bytes.as_mut() }) else { return };
    // SAFETY: the caller's promise.
    value((), || drop(unsafe { bytes.take_back() }));
}

/// See mutirao.h.
///
/// # Safety
/// `bytes` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_bytes_new(size: usize, bytes: *mut Bytes) -> *mut Error {
    outcome(|| {
        let into = output(bytes, "bytes")?;
        let mut room = Vec::new();
        let length = size.checked_add(1).filter(|length| room.try_reserve_exact(*length).is_ok());
        if length.is_none() {
            return Err(Error::new(Code::System, &format!("there is no memory for {size} bytes")));
        }
        room.resize(size, 0);
        // SAFETY: not NULL; that it can be written is the caller's promise.
        unsafe { into.write(Bytes::hand_out(room)) };
        Ok(())
    })
}

/// See mutirao.h.
///
/// # Safety
/// `operations` points to `count` members as the header says. No thread was started yet.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_init(
    _argc: *mut c_int,
    _argv: *mut *mut *mut c_char,
    operations: *const Operation,
    count: usize,
) -> *mut Error {
    outcome(|| {
        // SAFETY: the caller's promise.
        let operations = unsafe { convert::slice(operations, count, "operations") }?;
        // SAFETY: the caller's promise, for each.
        let table = operations.iter().map(|operation| unsafe { operation.entry() });
        Ok(mutirao::raw::init(table.collect::<Result<_, _>>()?)?)
    })
}
