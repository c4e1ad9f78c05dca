//! What all processes of a group do together.

use crate::convert::{self, reference};
use crate::error::{Error, outcome};
use crate::group::Group;
use std::ffi::c_void;

/// `mutirao_join`.
pub type Join = unsafe extern "C-unwind" fn(*mut c_void, *const c_void, usize, *mut c_void);

/// See mutirao.h.
///
/// # Safety
/// `group` is NULL or open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_group_barrier(group: *const Group) -> *mut Error {
    // SAFETY: the caller's promise.
    outcome(|| Ok(unsafe { reference(group, "group") }?.inner.barrier()?))
}

/// Fails unless a block has the size that this process gives all.
fn check_size(found: usize, size: usize) -> Result<(), Error> {
    if found == size {
        return Ok(());
    }
    let text = format!("the processes do not agree on a collective: {found} bytes came instead of {size}");
    Err(Error::argument(&text))
}

/// Copies blocks that came to where C wants them, one after the other.
fn lay_out(came: &[Vec<u8>], size: usize, into: &mut [u8]) -> Result<(), Error> {
    came.iter().try_for_each(|block| check_size(block.len(), size))?;
    for (block, place) in came.iter().zip(into.chunks_exact_mut(size.max(1))) {
        place.copy_from_slice(block);
    }
    Ok(())
}

/// The bytes of one block for each process.
fn all_blocks(group: &Group, size: usize) -> Result<usize, Error> {
    let all = size.checked_mul(group.inner.size() as usize);
    all.ok_or_else(|| Error::argument("`size` is larger than any memory"))
}

fn cut(blocks: &[u8], size: usize, count: u32) -> Vec<Vec<u8>> {
    (0..count as usize).map(|at| blocks[at * size..(at + 1) * size].to_vec()).collect()
}

/// See mutirao.h.
///
/// # Safety
/// `group` is NULL or open; `data` has so many bytes, which can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_group_broadcast(
    group: *const Group,
    root: u32,
    data: *mut c_void,
    size: usize,
) -> *mut Error {
    outcome(|| {
        // SAFETY: the caller's promise.
        let (group, data) = unsafe { (reference(group, "group")?, convert::room(data, size, "data")?) };
        let own = if group.inner.rank() == root { data.to_vec() } else { Vec::new() };
        lay_out(&[group.inner.broadcast_bytes(root, own)?], size, data)
    })
}

/// See mutirao.h.
///
/// # Safety
/// `group` is NULL or open; at the root `blocks` has a block for each process; `block` is room for one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_group_scatter(
    group: *const Group,
    root: u32,
    blocks: *const c_void,
    size: usize,
    block: *mut c_void,
) -> *mut Error {
    outcome(|| {
        // SAFETY: the caller's promise.
        let (group, into) = unsafe { (reference(group, "group")?, convert::room(block, size, "block")?) };
        let own = if group.inner.rank() == root {
            // SAFETY: the caller's promise.
            cut(
                unsafe { convert::bytes(blocks, all_blocks(group, size)?, "blocks") }?,
                size,
                group.inner.size(),
            )
        } else {
            Vec::new()
        };
        lay_out(&[group.inner.scatter_bytes(root, own)?], size, into)
    })
}

/// See mutirao.h.
///
/// # Safety
/// `group` is NULL or open; `block` has so many bytes; at the root `blocks` is room for a block of each process.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_group_gather(
    group: *const Group,
    root: u32,
    block: *const c_void,
    size: usize,
    blocks: *mut c_void,
) -> *mut Error {
    outcome(|| {
        // SAFETY: the caller's promise.
        let (group, own) = unsafe { (reference(group, "group")?, convert::bytes(block, size, "block")?) };
        let is_root = group.inner.rank() == root;
        let room = if is_root { all_blocks(group, size)? } else { 0 };
        // SAFETY: the caller's promise.
        let into = unsafe { convert::room(blocks, room, "blocks") }?;
        lay_out(&group.inner.gather_bytes(root, own.to_vec())?, size, into)
    })
}

/// See mutirao.h.
///
/// # Safety
/// `group` is NULL or open; `blocks` has a block for each process; `received` is room for as many.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_group_all_to_all(
    group: *const Group,
    blocks: *const c_void,
    size: usize,
    received: *mut c_void,
) -> *mut Error {
    outcome(|| {
        // SAFETY: the caller's promise.
        let group = unsafe { reference(group, "group") }?;
        let all = all_blocks(group, size)?;
        // SAFETY: the caller's promise.
        let (own, into) =
            unsafe { (convert::bytes(blocks, all, "blocks")?, convert::room(received, all, "received")?) };
        lay_out(&group.inner.all_to_all_bytes(cut(own, size, group.inner.size()))?, size, into)
    })
}

/// Joins what all processes have; what came of it, at the root.
///
/// # Safety
/// `join` may be called as the header says.
unsafe fn reduce(
    group: &Group,
    root: u32,
    data: &[u8],
    join: Join,
    context: *mut c_void,
) -> Result<Option<Vec<u8>>, Error> {
    let mut agree = Ok(());
    let joined = group.inner.reduce_bytes(root, data.to_vec(), |into, from| {
        let size = check_size(from.len(), into.len());
        if size.is_ok() && agree.is_ok() {
            // SAFETY: both have so many bytes, in memory of their own, which is aligned for any type; the rest is the caller's promise.
            unsafe { join(into.as_mut_ptr().cast(), from.as_ptr().cast(), into.len(), context) };
        }
        agree = std::mem::replace(&mut agree, Ok(())).and(size);
    })?;
    agree?;
    Ok(joined)
}

/// See mutirao.h.
///
/// # Safety
/// `group` is NULL or open; `data` has so many bytes, which can be written; `join` as the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_group_reduce(
    group: *const Group,
    root: u32,
    data: *mut c_void,
    size: usize,
    join: Option<Join>,
    context: *mut c_void,
) -> *mut Error {
    outcome(|| {
        // SAFETY: the caller's promise.
        let (group, data) = unsafe { (reference(group, "group")?, convert::room(data, size, "data")?) };
        let join = join.ok_or_else(|| Error::null("join"))?;
        // SAFETY: the caller's promise.
        if let Some(joined) = unsafe { reduce(group, root, data, join, context) }? {
            data.copy_from_slice(&joined);
        }
        Ok(())
    })
}

/// See mutirao.h.
///
/// # Safety
/// As for [`mutirao_group_reduce`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mutirao_group_reduce_all(
    group: *const Group,
    data: *mut c_void,
    size: usize,
    join: Option<Join>,
    context: *mut c_void,
) -> *mut Error {
    outcome(|| {
        // SAFETY: the caller's promise.
        let (group, data) = unsafe { (reference(group, "group")?, convert::room(data, size, "data")?) };
        let join = join.ok_or_else(|| Error::null("join"))?;
        // SAFETY: the caller's promise.
        let joined = unsafe { reduce(group, 0, data, join, context) }?;
        lay_out(&[group.inner.broadcast_bytes(0, joined.unwrap_or_default())?], size, data)
    })
}
