//! Bags of tasks.

use crate::common::Bytes;
use crate::convert::{self, Sized};
use crate::error::{Error, outcome, value};
use mutirao::bag::{Options, RawBag, RawEnded};
use std::ffi::{c_char, c_int, c_void};
use std::ptr::{null, null_mut};
use std::time::Duration;

/// `mutirao_bag`.
#[derive(Debug)]
pub struct Bag {
    library: RawBag,
}

/// `mutirao_bag_options`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct BagOptions {
    pub size: usize,
    pub name: *const c_char,
    pub slots_max: u32,
    pub retries: u32,
    pub limit_ms: u32,
    pub lives_on: c_int,
    pub libraries: *const *const c_char,
    pub library_count: usize,
    pub saves_state: c_int,
}

// SAFETY: as the trait demands.
unsafe impl Sized for BagOptions {
    const INIT: BagOptions = BagOptions {
        size: size_of::<BagOptions>(),
        name: null(),
        slots_max: 0,
        retries: 0,
        limit_ms: 0,
        lives_on: 0,
        libraries: null(),
        library_count: 0,
        saves_state: 0,
    };
}

/// `mutirao_bag_end`.
#[repr(C)]
#[derive(Debug)]
pub struct BagEnd {
    pub task: u64,
    pub result: Bytes,
    pub error: *mut Error,
}

/// Hands a bag out.
///
/// # Safety
/// `place` is not NULL, and one may write there.
unsafe fn hand_out(library: RawBag, place: *mut *mut Bag) {
    // SAFETY: the caller's promise.
    unsafe { place.write(Box::into_raw(Box::new(Bag { library }))) };
}

/// A bag that the program holds.
///
/// # Safety
/// `bag` is NULL or from [`hand_out`], and no other thread uses it meanwhile.
unsafe fn held<'a>(bag: *mut Bag) -> Result<&'a mut Bag, Error> {
    // SAFETY: the caller's promise.
    unsafe { bag.as_mut() }.ok_or_else(|| Error::null("bag"))
}

/// See mutirao.h.
///
/// # Safety
/// The pointers are as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_bag_open(options: *const BagOptions, bag: *mut *mut Bag) -> *mut Error {
    outcome(|| {
        // SAFETY: the caller's promise.
        let given = unsafe { convert::sized(options, "options") }?;
        // SAFETY: the caller's promise.
        let name = unsafe { convert::optional_text(given.name, "options->name") }?;
        // SAFETY: the caller's promise.
        let libraries =
            unsafe { convert::slice(given.libraries, given.library_count, "options->libraries") }?;
        // SAFETY: the caller's promise.
        let libraries =
            libraries.iter().map(|path| unsafe { convert::path(*path, "member of options->libraries") });
        let place = convert::output(bag, "bag")?;
        let options = Options {
            name: name.map(str::to_owned),
            lives_on: given.lives_on != 0,
            slots_max: (given.slots_max > 0).then_some(given.slots_max),
            retries: given.retries,
            saves_state: given.saves_state != 0,
            libraries: libraries.collect::<Result<_, _>>()?,
            limit: (given.limit_ms > 0).then(|| Duration::from_millis(given.limit_ms.into())),
        };
        // SAFETY: not NULL; the rest is the caller's promise.
        unsafe { hand_out(RawBag::open(&options)?, place) };
        Ok(())
    })
}

/// See mutirao.h.
///
/// # Safety
/// The pointers are as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_bag_attach(number: u32, bag: *mut *mut Bag) -> *mut Error {
    outcome(|| {
        let place = convert::output(bag, "bag")?;
        // SAFETY: not NULL; the rest is the caller's promise.
        unsafe { hand_out(RawBag::attach(number)?, place) };
        Ok(())
    })
}

/// See mutirao.h.
///
/// # Safety
/// The pointers are as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_bag_number(bag: *const Bag) -> u32 {
    // SAFETY: the caller's promise.
    value(0, || unsafe { bag.as_ref() }.map_or(0, |bag| bag.library.number()))
}

/// See mutirao.h.
///
/// # Safety
/// The pointers are as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_bag_push(
    bag: *mut Bag,
    operation: *const c_char,
    arg: *const c_void,
    arg_size: usize,
    task: *mut u64,
) -> *mut Error {
    outcome(|| {
        // SAFETY: the caller's promise.
        let bag = unsafe { held(bag) }?;
        // SAFETY: the caller's promise.
        let operation = unsafe { convert::text(operation, "operation") }?;
        // SAFETY: the caller's promise.
        let argument = unsafe { convert::bytes(arg, arg_size, "arg") }?;
        let number = bag.library.push(operation, argument)?;
        if !task.is_null() {
            // SAFETY: not NULL; the rest is the caller's promise.
            unsafe { task.write(number) };
        }
        Ok(())
    })
}

/// See mutirao.h.
///
/// # Safety
/// The pointers are as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_bag_next(bag: *mut Bag, end: *mut BagEnd, more: *mut c_int) -> *mut Error {
    outcome(|| {
        // SAFETY: the caller's promise.
        let bag = unsafe { held(bag) }?;
        let (end, more) = (convert::output(end, "end")?, convert::output(more, "more")?);
        let next = bag.library.next_end()?;
        // SAFETY: not NULL; the rest is the caller's promise.
        unsafe { more.write(c_int::from(next.is_some())) };
        let Some(RawEnded { task, result }) = next else { return Ok(()) };
        let (result, error) = match result {
            Ok(bytes) => (Bytes::hand_out(bytes), null_mut()),
            Err(error) => (Bytes { data: null_mut(), size: 0 }, Box::into_raw(Box::new(Error::from(error)))),
        };
        // SAFETY: not NULL; the rest is the caller's promise.
        unsafe { end.write(BagEnd { task, result, error }) };
        Ok(())
    })
}

/// See mutirao.h.
///
/// # Safety
/// The pointers are as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_bag_cancel(bag: *mut Bag) -> *mut Error {
    // SAFETY: the caller's promise.
    outcome(|| Ok(unsafe { held(bag) }?.library.cancel()?))
}

/// See mutirao.h.
///
/// # Safety
/// `bag` is NULL or a bag that was not closed and is not used any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_bag_close(bag: *mut Bag) {
    if !bag.is_null() {
        // SAFETY: not NULL, so `hand_out` has made it of a box; the rest is the caller's promise.
        value((), || drop(unsafe { Box::from_raw(bag) }));
    }
}

/// See mutirao.h.
///
/// # Safety
/// The pointers are as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_checkpoint_save(state: *const c_void, size: usize) -> *mut Error {
    outcome(|| {
        // SAFETY: the caller's promise.
        let state = unsafe { convert::bytes(state, size, "state") }?;
        Ok(mutirao::checkpoint::save(state)?)
    })
}

/// See mutirao.h.
///
/// # Safety
/// The pointers are as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_checkpoint_saved(state: *mut Bytes, there: *mut c_int) -> *mut Error {
    outcome(|| {
        let (state, there) = (convert::output(state, "state")?, convert::output(there, "there")?);
        let saved = mutirao::checkpoint::saved()?;
        // SAFETY: not NULL; the rest is the caller's promise.
        unsafe { there.write(c_int::from(saved.is_some())) };
        if let Some(saved) = saved {
            // SAFETY: not NULL; the rest is the caller's promise.
            unsafe { state.write(Bytes::hand_out(saved)) };
        }
        Ok(())
    })
}
