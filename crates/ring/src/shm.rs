//! The only unsafe code of this crate: access to memory that another process may write at any time.
//!
//! No reference to the shared bytes is ever made, except to atomics. Plain bytes are only copied in and out.
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering, compiler_fence};

use memmap2::{MmapOptions, MmapRaw};

use crate::Error;

/// A shared mapping of a whole memory file.
#[derive(Debug)]
pub(crate) struct Shared {
    map: MmapRaw,
}

impl Shared {
    /// Maps `len` bytes. The caller has made sure that the file has that size and is sealed against shrinking.
    pub(crate) fn map(file: impl AsFd, len: usize) -> Result<Self, Error> {
        let map = MmapOptions::new()
            .len(len)
            .map_raw(file.as_fd().as_raw_fd())
            .map_err(|source| Error::System { what: "map a memory file", source })?;
        Ok(Self { map })
    }

    /// The word at `offset` bytes, which must be aligned and inside.
    #[inline]
    pub(crate) fn word(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8) && offset < self.map.len() && self.map.len() - offset >= 8);
        // SAFETY: inside the mapping (checked), which lives as long as `self`; aligned, since the mapping is by
        // page and the offset by 8. Plain bytes and words never overlap, so all access to it is atomic.
        unsafe { AtomicU64::from_ptr(self.map.as_mut_ptr().add(offset).cast()) }
    }

    /// Copies `bytes` to `offset`.
    #[inline]
    pub(crate) fn copy_in(&self, offset: usize, bytes: &[u8]) {
        self.check(offset, bytes.len());
        // SAFETY: the target is inside the mapping (checked) and writable; the source is private memory, so they
        // do not overlap. A correct peer does not touch these bytes until they are published; what another one
        // does there happens outside this program and changes only the bytes it will be given.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.map.as_mut_ptr().add(offset), bytes.len());
        }
    }

    /// Copies out of `offset` until `out` is full.
    #[inline]
    pub(crate) fn copy_out(&self, offset: usize, out: &mut [u8]) {
        self.check(offset, out.len());
        // SAFETY: as for `raw_out`, with room for `out.len()` bytes in `out`.
        unsafe { self.raw_out(offset, out.as_mut_ptr(), out.len()) }
    }

    /// Copies `len` bytes out of `offset` to the end of `out`.
    #[inline]
    pub(crate) fn append_out(&self, offset: usize, len: usize, out: &mut Vec<u8>) {
        self.check(offset, len);
        out.reserve(len);
        // SAFETY: as for `raw_out`, with room for `len` bytes just reserved, which the copy initialises.
        unsafe {
            self.raw_out(offset, out.as_mut_ptr().add(out.len()), len);
            out.set_len(out.len() + len);
        }
    }

    #[inline]
    fn check(&self, offset: usize, len: usize) {
        assert!(offset <= self.map.len() && self.map.len() - offset >= len);
    }

    /// # Safety
    /// `offset..offset + len` is inside the mapping, and `out` is private memory with room for `len` bytes.
    #[inline]
    unsafe fn raw_out(&self, offset: usize, out: *mut u8, len: usize) {
        // SAFETY: given by the caller. A hostile peer may write meanwhile, outside this program: then the copy
        // has some mixture of bytes, each of which is a valid `u8`.
        unsafe { std::ptr::copy_nonoverlapping(self.map.as_mut_ptr().add(offset), out, len) };
        // The compiler must not read the shared bytes again in place of the copy that is about to be checked.
        compiler_fence(Ordering::SeqCst);
    }
}
