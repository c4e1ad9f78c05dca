//! Between what C has and what Rust has.

use crate::error::Error;
use std::ffi::{CStr, CString, OsStr, c_char, c_void};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

/// A text for C. Zero bytes, which it cannot have inside, become replacement characters.
pub fn c_text(text: &str) -> CString {
    CString::new(text).unwrap_or_else(|_| {
        CString::new(text.replace('\0', "\u{fffd}")).expect("every zero byte was just replaced")
    })
}

/// What `pointer` points to, unless it is NULL.
///
/// # Safety
/// `pointer` is NULL or points to a live `T` that nothing changes while `'a` lasts.
pub unsafe fn reference<'a, T>(pointer: *const T, name: &str) -> Result<&'a T, Error> {
    // SAFETY: the caller's promise.
    unsafe { pointer.as_ref() }.ok_or_else(|| Error::null(name))
}

/// An output pointer, unless it is NULL.
pub fn output<T>(pointer: *mut T, name: &str) -> Result<*mut T, Error> {
    if pointer.is_null() { Err(Error::null(name)) } else { Ok(pointer) }
}

/// A text from C.
///
/// # Safety
/// `pointer` is NULL or points to a zero-terminated text that nothing changes while `'a` lasts.
pub unsafe fn text<'a>(pointer: *const c_char, name: &str) -> Result<&'a str, Error> {
    if pointer.is_null() {
        return Err(Error::null(name));
    }
    // SAFETY: not NULL; the rest is the caller's promise.
    let text = unsafe { CStr::from_ptr(pointer) };
    text.to_str().map_err(|_| Error::argument(&format!("`{name}` is not UTF-8")))
}

/// A text from C, or NULL for none.
///
/// # Safety
/// As for [`text`].
pub unsafe fn optional_text<'a>(pointer: *const c_char, name: &str) -> Result<Option<&'a str>, Error> {
    if pointer.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller's promise.
    unsafe { text(pointer, name) }.map(Some)
}

/// A path from C, which need not be UTF-8.
///
/// # Safety
/// As for [`text`].
pub unsafe fn path(pointer: *const c_char, name: &str) -> Result<PathBuf, Error> {
    if pointer.is_null() {
        return Err(Error::null(name));
    }
    // SAFETY: not NULL; the rest is the caller's promise.
    let text = unsafe { CStr::from_ptr(pointer) };
    Ok(PathBuf::from(OsStr::from_bytes(text.to_bytes())))
}

/// `count` things in a row from C; NULL is allowed for none.
///
/// # Safety
/// `pointer` is NULL or points to `count` live `T` that nothing changes while `'a` lasts.
pub unsafe fn slice<'a, T>(pointer: *const T, count: usize, name: &str) -> Result<&'a [T], Error> {
    if count == 0 {
        return Ok(&[]);
    }
    if pointer.is_null() {
        return Err(Error::null(name));
    }
    if count > isize::MAX as usize / size_of::<T>() {
        return Err(Error::argument(&format!("`{name}` cannot have {count} members")));
    }
    // SAFETY: not NULL, not longer than memory; the rest is the caller's promise.
    Ok(unsafe { std::slice::from_raw_parts(pointer, count) })
}

/// `count` texts in a row from C; NULL is allowed for none.
///
/// # Safety
/// As for [`slice`], and each member as for [`text`].
pub unsafe fn texts(pointer: *const *const c_char, count: usize, name: &str) -> Result<Vec<String>, Error> {
    // SAFETY: the caller's promise.
    let members = unsafe { slice(pointer, count, name) }?;
    // SAFETY: the caller's promise, for each.
    members.iter().map(|member| unsafe { text(*member, name) }.map(str::to_owned)).collect()
}

/// Bytes from C; NULL is allowed for none.
///
/// # Safety
/// As for [`slice`].
pub unsafe fn bytes<'a>(pointer: *const c_void, size: usize, name: &str) -> Result<&'a [u8], Error> {
    // SAFETY: the caller's promise.
    unsafe { slice(pointer.cast::<u8>(), size, name) }
}

/// Room for bytes from C; NULL is allowed for none.
///
/// # Safety
/// `pointer` is NULL or points to `size` bytes that nothing else looks at while `'a` lasts.
pub unsafe fn room<'a>(pointer: *mut c_void, size: usize, name: &str) -> Result<&'a mut [u8], Error> {
    if size == 0 {
        return Ok(&mut []);
    }
    if pointer.is_null() {
        return Err(Error::null(name));
    }
    if size > isize::MAX as usize {
        return Err(Error::argument(&format!("`{name}` cannot have {size} bytes")));
    }
    // SAFETY: not NULL, not longer than memory; the rest is the caller's promise.
    Ok(unsafe { std::slice::from_raw_parts_mut(pointer.cast::<u8>(), size) })
}

/// A structure that the caller fills and that may grow in later versions.
///
/// # Safety
/// It is `repr(C)`, begins with `size: usize`, and consists of numbers and pointers only, so that it may be
/// copied byte by byte, and any bytes are a value.
pub unsafe trait Sized: Copy {
    /// All members as the `..._INIT` macro sets them.
    const INIT: Self;
}

/// Reads such a structure, or gives its defaults for NULL. Members the caller does not know keep theirs.
///
/// # Safety
/// `pointer` is NULL or points to a `usize` and, with it, to as many live bytes as that says.
pub unsafe fn sized<T: Sized>(pointer: *const T, name: &str) -> Result<T, Error> {
    if pointer.is_null() {
        return Ok(T::INIT);
    }
    // SAFETY: the caller's promise; `T` begins with its size.
    let size = unsafe { pointer.cast::<usize>().read() };
    if size < size_of::<usize>() {
        return Err(Error::argument(&format!(
            "`{name}->size` is not set; initialise it with the ..._INIT macro"
        )));
    }
    let mut copy = MaybeUninit::new(T::INIT);
    // SAFETY: both are at least so long, and cannot overlap, for one is fresh.
    unsafe {
        std::ptr::copy_nonoverlapping(
            pointer.cast::<u8>(),
            copy.as_mut_ptr().cast::<u8>(),
            size.min(size_of::<T>()),
        );
    }
    // SAFETY: it was initialised, and what was copied over it is a value, as `Sized` promises.
    Ok(unsafe { copy.assume_init() })
}

/// Milliseconds from C; less than zero is without limit.
pub fn timeout(timeout_ms: std::ffi::c_int) -> Option<Duration> {
    u64::try_from(timeout_ms).ok().map(Duration::from_millis)
}
