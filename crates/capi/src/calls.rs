//! Application routines about calls. A call is counted: the program holds one count by its pointer, until it deletes
//! it, and whoever is about to deliver its result another.

use crate::board::{Call, Done};
use crate::common::Bytes;
use crate::convert::{self, Sized};
use crate::error::{Code, Error, outcome, value};
use crate::pool::Pool;
use mutirao::raw::wire::limits::CALL_BYTES_MAX;
use mutirao::raw::{self, CallOptions as LibraryOptions, Error as LibraryError};
use std::ffi::{c_char, c_int, c_void};
use std::ptr::{null, null_mut};
use std::sync::Arc;
use std::time::Duration;

/// `mutirao_call_options`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct CallOptions {
    pub size: usize,
    pub limit_ms: u32,
    pub reserved: u32,
    pub done: Option<Done>,
    pub context: *mut c_void,
}

// SAFETY: as the trait demands. Bytes that are no function are the caller's own fault, as with any pointer.
unsafe impl Sized for CallOptions {
    const INIT: CallOptions = CallOptions {
        size: size_of::<CallOptions>(),
        limit_ms: 0,
        reserved: 0,
        done: None,
        context: null_mut(),
    };
}

impl CallOptions {
    fn limit(&self) -> Option<Duration> {
        (self.limit_ms > 0).then(|| Duration::from_millis(self.limit_ms.into()))
    }
}

/// Runs what the program wants to have run when its call has finished.
fn run_done(call: Arc<Call>) {
    if let Some(done) = call.done() {
        // SAFETY: the program's promise is that it may be called so. The call is alive: it is counted here, even if
        // it is deleted meanwhile.
        unsafe { done(Arc::as_ptr(&call), call.context()) };
    }
}

/// Starts a call; the program's count of it.
fn start(pool: &Pool, operation: u32, argument: &[u8], options: &CallOptions) -> Result<*const Call, Error> {
    let call = Call::new(pool.board.clone(), options.context, options.done);
    // Counted before it can finish, since whoever is told of that may delete it at once.
    let held = Arc::into_raw(call.clone());
    let started =
        pool.start(&call, operation, argument, options.limit(), options.done.map(|_| run_done as _));
    if let Err(error) = started {
        // SAFETY: counted just above; nobody was told of it.
        drop(unsafe { Arc::from_raw(held) });
        return Err(error);
    }
    Ok(held)
}

/// Gives up the program's count of a call.
///
/// # Safety
/// `call` is from [`start`], and this is done once.
unsafe fn delete(call: *const Call) {
    // SAFETY: the caller's promise.
    let call = unsafe { Arc::from_raw(call) };
    call.delete();
}

/// See mutirao.h.
///
/// # Safety
/// The pointers are as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_call_wait(
    pool: *mut Pool,
    operation: *const c_char,
    arg: *const c_void,
    arg_size: usize,
    result: *mut Bytes,
) -> *mut Error {
    outcome(|| {
        // SAFETY: the caller's promise.
        let pool = unsafe { convert::reference(pool, "pool") }?;
        // SAFETY: the caller's promise.
        let operation = pool.library.operation(unsafe { convert::text(operation, "operation") }?)?;
        // SAFETY: the caller's promise.
        let argument = unsafe { argument(arg, arg_size) }?;
        let result = convert::output(result, "result")?;
        let mut call = pool.library.submit(operation, argument.to_vec(), LibraryOptions::default())?;
        let bytes = Bytes::hand_out(call.wait()?);
        // SAFETY: not NULL; the rest is the caller's promise.
        unsafe { result.write(bytes) };
        Ok(())
    })
}

/// See mutirao.h.
///
/// # Safety
/// The pointers are as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_call_start(
    pool: *mut Pool,
    operation: *const c_char,
    arg: *const c_void,
    arg_size: usize,
    options: *const CallOptions,
    call: *mut *const Call,
) -> *mut Error {
    let arg = Bytes { data: arg.cast_mut(), size: arg_size };
    // SAFETY: the caller's promise; one argument and one call are as good as a row of them.
    unsafe { mutirao_call_start_many(pool, operation, &arg, 1, options, call) }
}

/// See mutirao.h.
///
/// # Safety
/// The pointers are as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_call_start_many(
    pool: *mut Pool,
    operation: *const c_char,
    args: *const Bytes,
    count: usize,
    options: *const CallOptions,
    calls: *mut *const Call,
) -> *mut Error {
    outcome(|| {
        // SAFETY: the caller's promise.
        let pool = unsafe { convert::reference(pool, "pool") }?;
        // SAFETY: the caller's promise.
        let operation = pool.library.operation(unsafe { convert::text(operation, "operation") }?)?;
        // SAFETY: the caller's promise.
        let args = unsafe { convert::slice(args, count, "args") }?;
        // SAFETY: the caller's promise, for each.
        let args = args.iter().map(|arg| unsafe { argument(arg.data, arg.size) });
        let args = args.collect::<Result<Vec<_>, _>>()?;
        // SAFETY: the caller's promise.
        let options = unsafe { convert::sized(options, "options") }?;
        if calls.is_null() && options.done.is_none() {
            return Err(Error::argument("the place for the call is NULL, and no `done` is given either"));
        }
        let mut started = Vec::with_capacity(args.len());
        for argument in args {
            match start(pool, operation, argument, &options) {
                Ok(call) => started.push(call),
                Err(error) => {
                    // SAFETY: started just above, and the program was not told of them.
                    started.into_iter().for_each(|call| unsafe { delete(call) });
                    return Err(error);
                }
            }
        }
        if !calls.is_null() {
            // SAFETY: the caller's promise is that there is room for so many.
            unsafe { std::ptr::copy_nonoverlapping(started.as_ptr(), calls, started.len()) };
        }
        Ok(())
    })
}

/// An argument that may be sent.
///
/// # Safety
/// As for [`convert::bytes`].
unsafe fn argument<'a>(data: *const c_void, size: usize) -> Result<&'a [u8], Error> {
    if size as u64 > CALL_BYTES_MAX {
        return Err(LibraryError::ArgumentTooLarge { bytes: size as u64 }.into());
    }
    // SAFETY: the caller's promise.
    unsafe { convert::bytes(data, size, "arg") }
}

/// See mutirao.h.
///
/// # Safety
/// `call` is NULL or was not deleted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_call_finished(call: *const Call) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { call.as_ref() }.is_some_and(Call::is_finished).into()
}

/// See mutirao.h.
///
/// # Safety
/// `call` is NULL or was not deleted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_call_context(call: *const Call) -> *mut c_void {
    // SAFETY: the caller's promise.
    unsafe { call.as_ref() }.map_or(null_mut(), Call::context)
}

/// See mutirao.h.
///
/// # Safety
/// `call` is NULL or was not deleted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_call_node(call: *const Call) -> *const c_char {
    // SAFETY: the caller's promise.
    unsafe { call.as_ref() }.map_or(c"".as_ptr(), |call| call.node().as_ptr())
}

/// See mutirao.h.
///
/// # Safety
/// The pointers are as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_wait(pool: *mut Pool, call: *const Call, timeout_ms: c_int) -> *mut Error {
    if call.is_null() {
        return outcome(|| Err(Error::null("call")));
    }
    // SAFETY: the caller's promise; one call is as good as a row of them.
    unsafe { mutirao_wait_all(pool, &call, 1, timeout_ms) }
}

/// See mutirao.h.
///
/// # Safety
/// The pointers are as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_wait_any(
    pool: *mut Pool,
    calls: *const *const Call,
    count: usize,
    timeout_ms: c_int,
    index: *mut usize,
) -> *mut Error {
    outcome(|| {
        // SAFETY: the caller's promise.
        let pool = unsafe { convert::reference(pool, "pool") }?;
        let index = convert::output(index, "index")?;
        // SAFETY: the caller's promise.
        let calls = unsafe { members(pool, calls, count) }?;
        if calls.is_empty() {
            return Err(Error::argument(
                "there is no call to wait for: `calls` has no members, or only NULL",
            ));
        }
        let (place, call) = match calls.iter().find(|(_, call)| call.is_finished()) {
            Some(finished) => finished,
            None => {
                let (places, unfinished): (Vec<usize>, Vec<&raw::Call>) = calls
                    .iter()
                    .enumerate()
                    .filter_map(|(place, (_, call))| Some((place, call.unfinished()?)))
                    .unzip();
                let found = pool.library.wait_any(&unfinished, convert::timeout(timeout_ms));
                &calls[places[found.ok_or_else(|| timed_out(timeout_ms))?]]
            }
        };
        call.wait_for_note();
        // SAFETY: not NULL; the rest is the caller's promise.
        unsafe { index.write(*place) };
        Ok(())
    })
}

/// See mutirao.h.
///
/// # Safety
/// The pointers are as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_wait_all(
    pool: *mut Pool,
    calls: *const *const Call,
    count: usize,
    timeout_ms: c_int,
) -> *mut Error {
    outcome(|| {
        // SAFETY: the caller's promise.
        let pool = unsafe { convert::reference(pool, "pool") }?;
        // SAFETY: the caller's promise.
        let calls = unsafe { members(pool, calls, count) }?;
        let unfinished: Vec<&raw::Call> = calls.iter().filter_map(|(_, call)| call.unfinished()).collect();
        if !pool.library.wait_all(&unfinished, convert::timeout(timeout_ms)) {
            return Err(timed_out(timeout_ms));
        }
        calls.iter().for_each(|(_, call)| call.wait_for_note());
        Ok(())
    })
}

fn timed_out(timeout_ms: c_int) -> Error {
    Error::new(Code::Timeout, &format!("not finished within {timeout_ms} ms; the calls go on"))
}

/// The calls in a row, with their places in it.
///
/// # Safety
/// `calls` points to `count` members, each NULL or a call that is not deleted while `'a` lasts.
unsafe fn members<'a>(
    pool: &Pool,
    calls: *const *const Call,
    count: usize,
) -> Result<Vec<(usize, &'a Call)>, Error> {
    // SAFETY: the caller's promise.
    let calls = unsafe { convert::slice(calls, count, "calls") }?;
    // SAFETY: the caller's promise, for each.
    let calls = calls.iter().map(|call| unsafe { call.as_ref() }).enumerate();
    let calls: Vec<_> = calls.filter_map(|(place, call)| Some((place, call?))).collect();
    if calls.iter().any(|(_, call)| !Arc::ptr_eq(call.board(), &pool.board)) {
        return Err(Error::argument("a call of another pool cannot be waited for here"));
    }
    Ok(calls)
}

/// See mutirao.h.
///
/// # Safety
/// The pointers are as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_call_result(call: *const Call, result: *mut Bytes) -> *mut Error {
    outcome(|| {
        // SAFETY: the caller's promise.
        let call = unsafe { convert::reference(call, "call") }?;
        let result = convert::output(result, "result")?;
        let bytes = Bytes::hand_out(call.take()?);
        // SAFETY: not NULL; the rest is the caller's promise.
        unsafe { result.write(bytes) };
        Ok(())
    })
}

/// See mutirao.h.
///
/// # Safety
/// `call` is NULL or was not deleted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_call_cancel(call: *const Call) {
    // SAFETY: the caller's promise.
    if let Some(call) = unsafe { call.as_ref() } {
        value((), || call.cancel());
    }
}

/// See mutirao.h.
///
/// # Safety
/// `call` is NULL or was not deleted, and is not used any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_call_delete(call: *const Call) {
    if !call.is_null() {
        // SAFETY: not NULL, so it is from `start`; the rest is the caller's promise.
        value((), || unsafe { delete(call) });
    }
}

/// See mutirao.h.
///
/// # Safety
/// `pool` is NULL or open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_event_fd(pool: *mut Pool) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { pool.as_ref() }.map_or(-1, |pool| pool.board.event())
}

/// See mutirao.h.
///
/// # Safety
/// `pool` is NULL or open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_next(pool: *mut Pool) -> *const Call {
    value(null(), || {
        // SAFETY: the caller's promise.
        let call = unsafe { pool.as_ref() }.and_then(|pool| pool.board.next());
        // The program holds its count already: this is only the address.
        call.map_or(null(), |call| Arc::as_ptr(&call))
    })
}
