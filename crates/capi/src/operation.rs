//! From the worker of the library to a function in C, and back.

use crate::convert;
use crate::error::{Error, value};
use mutirao::raw::wire::limits::CALL_BYTES_MAX;
use mutirao::raw::wire::stream::failure;
use mutirao::raw::{Failure, OperationEntry};
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::ptr::null_mut;

/// `MUTIRAO_REPEATABLE`.
const REPEATABLE: c_uint = 1;
/// What `mutirao_result_...` functions return when there is no result.
const FAILED: c_int = -1;
/// Codes of operations have 31 bits.
const OWN_CODE_BITS: u32 = 0x7fff_ffff;

/// `mutirao_function`. An exception of C++ that leaves it ends the process, as the Rust runtime has it.
pub type Function = unsafe extern "C-unwind" fn(*const c_void, usize, *mut ResultSlot) -> c_int;

/// `mutirao_operation`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Operation {
    pub name: *const c_char,
    pub function: Option<Function>,
    pub flags: c_uint,
}

impl Operation {
    /// Checks a member of the table.
    ///
    /// # Safety
    /// `name` is NULL or a zero-terminated text; `function` may be called as the header says.
    pub unsafe fn entry(&self) -> Result<OperationEntry, Error> {
        // SAFETY: the caller's promise.
        let name = unsafe { convert::text(self.name, "name of an operation") }?.to_owned();
        let Some(function) = self.function else {
            return Err(Error::argument(&format!("the operation `{name}` has no function")));
        };
        if self.flags & !REPEATABLE != 0 {
            return Err(Error::argument(&format!(
                "the operation `{name}` has flags that this version does not know: {:#x}",
                self.flags
            )));
        }
        let run = move |argument: &[u8], result: &mut Vec<u8>| run(function, argument, result);
        Ok(OperationEntry { name, repeatable: self.flags & REPEATABLE != 0, run: Box::new(run) })
    }
}

/// `mutirao_result`: a result in the making.
#[derive(Debug, Default)]
pub struct ResultSlot {
    bytes: Vec<u8>,
    /// The operation's own word.
    failure: Option<Failure>,
    /// Bytes of a result that was refused and that no other has followed.
    too_large: Option<usize>,
}

fn run(function: Function, argument: &[u8], result: &mut Vec<u8>) -> Result<(), Failure> {
    let copy = aligned_copy(argument);
    let start = match &copy {
        Some(blocks) => blocks.as_ptr().cast(),
        None => argument.as_ptr(),
    };
    // The vector is empty; taking it along keeps its memory in use.
    let mut slot = ResultSlot { bytes: std::mem::take(result), ..ResultSlot::default() };
    // SAFETY: the table's promise is that the function may be called with so many bytes and a result that lives
    // until it returns, which both do.
    let returned = unsafe { function(start.cast(), argument.len(), &mut slot) };
    *result = slot.bytes;
    match (slot.failure, slot.too_large) {
        (Some(failure), _) => Err(failure),
        (None, Some(bytes)) => Err(Failure {
            code: failure::RESULT_TOO_LARGE,
            text: format!(
                "the result would have {bytes} bytes, but a call returns at most {CALL_BYTES_MAX}; split the work"
            ),
        }),
        (None, None) if returned == 0 => Ok(()),
        (None, None) => Err(Failure::own(
            own_code(returned),
            format!("the operation returned {returned} and gave no reason by mutirao_result_fail()"),
        )),
    }
}

fn own_code(code: c_int) -> u32 {
    code.unsigned_abs() & OWN_CODE_BITS
}

/// Memory aligned for any type of C.
#[derive(Clone, Copy)]
#[repr(align(16))]
struct Block([u8; 16]);

/// A copy of the argument, unless it is aligned as it is.
fn aligned_copy(argument: &[u8]) -> Option<Vec<Block>> {
    if !argument.is_empty() && argument.as_ptr().addr().is_multiple_of(align_of::<Block>()) {
        return None;
    }
    let (whole, rest) = argument.as_chunks::<16>();
    let mut blocks = Vec::with_capacity(whole.len() + 1);
    blocks.extend(whole.iter().map(|bytes| Block(*bytes)));
    // Even no bytes have an address.
    let mut last = Block([0; 16]);
    last.0[..rest.len()].copy_from_slice(rest);
    blocks.push(last);
    Some(blocks)
}

impl ResultSlot {
    fn fits(&mut self, size: usize) -> bool {
        let fits = size as u64 <= CALL_BYTES_MAX;
        self.too_large = (!fits).then_some(size);
        fits
    }

    fn fail(&mut self, code: c_int, text: String) {
        self.failure.get_or_insert_with(|| Failure::own(own_code(code), text));
    }
}

/// See mutirao.h.
///
/// # Safety
/// `result` is what the operation was given; `data` points to `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_result_set(
    result: *mut ResultSlot,
    data: *const c_void,
    size: usize,
) -> c_int {
    value(FAILED, || {
        // SAFETY: the caller's promise.
        let Some(slot) = (unsafe { result.as_mut() }) else { return FAILED };
        if !slot.fits(size) {
            return FAILED;
        }
        // SAFETY: the caller's promise.
        match unsafe { convert::bytes(data, size, "data") } {
            Ok(data) => {
                slot.bytes.clear();
                slot.bytes.extend_from_slice(data);
                0
            }
            Err(error) => {
                slot.fail(1, format!("mutirao_result_set(): {}", error.text.to_string_lossy()));
                FAILED
            }
        }
    })
}

/// See mutirao.h.
///
/// # Safety
/// `result` is what the operation was given.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_result_reserve(result: *mut ResultSlot, size: usize) -> *mut c_void {
    value(null_mut(), || {
        // SAFETY: the caller's promise.
        let Some(slot) = (unsafe { result.as_mut() }) else { return null_mut() };
        if !slot.fits(size) {
            return null_mut();
        }
        slot.bytes.clear();
        // One more, so that there is an address even for no bytes. It comes from malloc, hence is aligned for any
        // type.
        slot.bytes.reserve(size + 1);
        slot.bytes.resize(size, 0);
        slot.bytes.as_mut_ptr().cast()
    })
}

/// See mutirao.h.
///
/// # Safety
/// `result` is what the operation was given; `text` is NULL or a zero-terminated text.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_result_fail(
    result: *mut ResultSlot,
    code: c_int,
    text: *const c_char,
) -> c_int {
    value(FAILED, || {
        // SAFETY: the caller's promise.
        let Some(slot) = (unsafe { result.as_mut() }) else { return FAILED };
        let text = match text.is_null() {
            true => "the operation failed".into(),
            // SAFETY: not NULL; the rest is the caller's promise.
            false => unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned(),
        };
        slot.fail(code, text);
        FAILED
    })
}
