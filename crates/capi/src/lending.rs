//! What a program and its user say about how much is held and how much is lent: growing and shrinking,
//! draining nodes, taking slots back.

use crate::administration::order;
use crate::convert;
use crate::error::{Error, outcome};
use crate::pool::Pool;
use mutirao::raw::wire::query::Topic;
use mutirao::raw::{LeaseKey, Leave, Resize, Size};
use std::ffi::{c_char, c_int, c_void};

/// `mutirao_resize_order`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct ResizeOrder {
    pub size: c_int,
    pub slots: u32,
    pub leave: c_int,
    pub reserved: u32,
}

impl ResizeOrder {
    fn translate(&self) -> Result<Resize, Error> {
        let size = match self.size {
            0 => Size::More(self.slots),
            1 => Size::Fewer(self.slots),
            2 => Size::Exactly(self.slots),
            3 => Size::Own,
            other => return Err(Error::argument(&format!("order->size is {other}, which is no size"))),
        };
        Ok(Resize { size, leave: leave(self.leave)? })
    }
}

impl From<Resize> for ResizeOrder {
    fn from(order: Resize) -> ResizeOrder {
        let (size, slots) = match order.size {
            Size::More(slots) => (0, slots),
            Size::Fewer(slots) => (1, slots),
            Size::Exactly(slots) => (2, slots),
            Size::Own => (3, 0),
        };
        let leave = match order.leave {
            Leave::Finish => 0,
            Leave::Rerun => 1,
            Leave::Abandon => 2,
        };
        ResizeOrder { size, slots, leave, reserved: 0 }
    }
}

fn leave(number: c_int) -> Result<Leave, Error> {
    match number {
        0 => Ok(Leave::Finish),
        1 => Ok(Leave::Rerun),
        2 => Ok(Leave::Abandon),
        other => Err(Error::argument(&format!("leave is {other}, which is none of mutirao_leave"))),
    }
}

/// See mutirao.h.
///
/// # Safety
/// The pointers are as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_resize(pool: *mut Pool, order: *const ResizeOrder) -> *mut Error {
    outcome(|| {
        // SAFETY: the caller's promise.
        let pool = unsafe { convert::reference(pool, "pool") }?;
        // SAFETY: the caller's promise.
        let order = unsafe { convert::reference(order, "order") }?;
        Ok(pool.library.resize(order.translate()?)?)
    })
}

/// See mutirao.h.
///
/// # Safety
/// The pointers are as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_retire(
    pool: *mut Pool,
    ids: *const u64,
    count: usize,
    how: c_int,
) -> *mut Error {
    outcome(|| {
        // SAFETY: the caller's promise.
        let pool = unsafe { convert::reference(pool, "pool") }?;
        // SAFETY: the caller's promise.
        let ids = unsafe { convert::slice(ids, count, "ids") }?;
        let keys: Vec<LeaseKey> = ids.iter().filter_map(|id| u32::try_from(*id).ok()).map(LeaseKey).collect();
        Ok(pool.library.retire(&keys, leave(how)?)?)
    })
}

/// What a program gives to be told of orders.
type Handler = unsafe extern "C" fn(*const ResizeOrder, *mut c_void);

/// A program's function with its context, to be called from any thread.
struct Told {
    function: Handler,
    context: *mut c_void,
}

// SAFETY: the caller of `mutirao_on_resize` promises that any thread may call the function with its context.
unsafe impl Send for Told {}
// SAFETY: as above; the header says that calls do not overlap.
unsafe impl Sync for Told {}

/// See mutirao.h.
///
/// # Safety
/// The pointers are as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_on_resize(
    pool: *mut Pool,
    function: Option<Handler>,
    context: *mut c_void,
) -> *mut Error {
    outcome(|| {
        // SAFETY: the caller's promise.
        let pool = unsafe { convert::reference(pool, "pool") }?;
        let Some(function) = function else { return Err(Error::argument("function is NULL")) };
        let told = Told { function, context };
        pool.library.on_resize(move |order| {
            let told = &told;
            let order = ResizeOrder::from(order);
            // SAFETY: the caller's promise; `order` lives during the call.
            unsafe { (told.function)(&order, told.context) }
        });
        Ok(())
    })
}

/// See mutirao.h.
///
/// # Safety
/// The pointers are as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_drain(pool: *mut Pool, node: *const c_char, grace_ms: c_int) -> *mut Error {
    let grace_ms = u32::try_from(grace_ms).ok();
    // SAFETY: the caller's promise.
    outcome(|| unsafe { tell_node(pool, node, Topic::Drain { grace_ms }) })
}

/// See mutirao.h.
///
/// # Safety
/// The pointers are as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_resume(pool: *mut Pool, node: *const c_char) -> *mut Error {
    // SAFETY: the caller's promise.
    outcome(|| unsafe { tell_node(pool, node, Topic::Resume) })
}

/// See mutirao.h.
///
/// # Safety
/// The pointers are as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_reclaim(
    pool: *mut Pool,
    node: *const c_char,
    slots: u32,
    grace_ms: u32,
    for_s: u32,
) -> *mut Error {
    outcome(|| {
        let slots = match slots {
            0 => None,
            some => Some(u16::try_from(some).unwrap_or(u16::MAX)),
        };
        let topic = Topic::Reclaim { slots, grace_ms, for_s: (for_s > 0).then_some(for_s) };
        // SAFETY: the caller's promise.
        unsafe { tell_node(pool, node, topic) }
    })
}

/// See mutirao.h.
///
/// # Safety
/// The pointers are as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_app_resize(
    pool: *mut Pool,
    app: *const c_char,
    order_: *const ResizeOrder,
) -> *mut Error {
    outcome(|| {
        // SAFETY: the caller's promise.
        let pool = unsafe { convert::reference(pool, "pool") }?;
        // SAFETY: the caller's promise.
        let app = unsafe { convert::text(app, "app") }?;
        // SAFETY: the caller's promise.
        let resize = unsafe { convert::reference(order_, "order") }?.translate()?;
        order(pool, None, app, Topic::Resize { app: app.to_owned(), order: resize })
    })
}

/// # Safety
/// The pointers are as the header says.
unsafe fn tell_node(pool: *mut Pool, node: *const c_char, topic: Topic) -> Result<(), Error> {
    // SAFETY: the caller's promise.
    let pool = unsafe { convert::reference(pool, "pool") }?;
    // SAFETY: the caller's promise.
    let named = unsafe { convert::optional_text(node, "node") }?;
    let own = pool.library.node().name;
    let node = named.unwrap_or(&own);
    order(pool, Some(node), node, topic)
}
