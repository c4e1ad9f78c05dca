use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;

use rustix::fs::{MemfdFlags, SealFlags};

use crate::Error;
use crate::shm::Shared;

/// Capacity of each pipe unless asked for otherwise, in bytes.
pub const CAPACITY_DEFAULT: usize = 256 * 1024;
/// The smallest capacity of a pipe, in bytes.
pub const CAPACITY_MIN: usize = 4 * 1024;
/// The largest capacity of a pipe, in bytes.
pub const CAPACITY_MAX: usize = 16 * 1024 * 1024;

/// "mutirao", then the version of the layout.
const MAGIC: u64 = u64::from_le_bytes(*b"mutirao\x02");

// The first page. What one side writes often has a cache line (with its prefetched neighbour) of its own; a
// waiting flag lies beside the index of the side that reads the flag after each store of that index.
pub(crate) const CALL_WORDS: PipeWords = PipeWords { tail: 0x100, head: 0x180 };
pub(crate) const REPLY_WORDS: PipeWords = PipeWords { tail: 0x200, head: 0x280 };
pub(crate) const RUNNING: usize = 0x300;
pub(crate) const FINISHED: usize = 0x308;
pub(crate) const OPERATION: usize = 0x310;
/// A bit for each of so many calls in a row, in words from here on: set by whoever gets hold of the call first.
pub(crate) const CLAIMS: usize = 0x400;
pub(crate) const CLAIMS_COUNT: u64 = 16 * 1024;
pub(crate) const HEADER_BYTES: usize = 4096;
const _: () = assert!(CLAIMS + CLAIMS_COUNT as usize / 8 <= HEADER_BYTES);

/// Where the words of one pipe are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PipeWords {
    /// Bytes ever written; the producer's line.
    pub(crate) tail: usize,
    /// Bytes ever read; the consumer's line.
    pub(crate) head: usize,
}

impl PipeWords {
    /// Not zero: the consumer is about to sleep and wants to be woken by the next bytes.
    pub(crate) const fn consumer_waiting(self) -> usize {
        self.tail + 8
    }
    /// Not zero: the producer is about to sleep and wants to be woken when so many bytes are free.
    pub(crate) const fn producer_waiting(self) -> usize {
        self.head + 8
    }
}

/// The memory file of a ring. The node makes one for each lease and hands it to caller and worker.
#[derive(Debug)]
pub struct RingMemory {
    file: OwnedFd,
}

impl RingMemory {
    /// Makes a sealed memory file whose two pipes hold `capacity_bytes` each: a power of two from
    /// [`CAPACITY_MIN`] to [`CAPACITY_MAX`]. Memory is taken only as it is used.
    pub fn create(capacity_bytes: usize) -> Result<Self, Error> {
        if !capacity_is_valid(capacity_bytes) {
            return Err(Error::Capacity { bytes: capacity_bytes });
        }
        let len = HEADER_BYTES + 2 * capacity_bytes;
        let file = create_sealed("mutirao-ring", len)?;
        Shared::map(&file, len)?.word(0).store(MAGIC, Ordering::Release);
        Ok(Self { file })
    }

    /// The file, to be handed to the other processes.
    pub fn into_fd(self) -> OwnedFd {
        self.file
    }
}

impl AsFd for RingMemory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn capacity_is_valid(bytes: usize) -> bool {
    bytes.is_power_of_two() && (CAPACITY_MIN..=CAPACITY_MAX).contains(&bytes)
}

/// Checks that `file` is a ring and maps it; returns the capacity of each pipe too.
pub(crate) fn map_ring(file: impl AsFd) -> Result<(Shared, usize), Error> {
    const WHAT: &str = "ring memory";
    let bytes = sealed_size(&file, WHAT)?;
    let size_error = Error::Size { what: WHAT, bytes };
    let Ok(len) = usize::try_from(bytes) else { return Err(size_error) };
    let capacity = len.saturating_sub(HEADER_BYTES) / 2;
    if !capacity_is_valid(capacity) || len != HEADER_BYTES + 2 * capacity {
        return Err(size_error);
    }
    let shared = Shared::map(file, len)?;
    check_magic(&shared, WHAT, MAGIC)?;
    Ok((shared, capacity))
}

pub(crate) fn check_magic(shared: &Shared, what: &'static str, expected: u64) -> Result<(), Error> {
    let found = shared.word(0).load(Ordering::Acquire);
    if found == expected { Ok(()) } else { Err(Error::Format { what, found, expected }) }
}

/// A memory file of `len` zero bytes whose size nobody can change any more.
pub(crate) fn create_sealed(name: &str, len: usize) -> Result<OwnedFd, Error> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Kernels before 6.3 do not know NOEXEC_SEAL.
    let file = rustix::fs::memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL)
        .or_else(|_| rustix::fs::memfd_create(name, flags))
        .map_err(Error::system("create a memory file"))?;
    rustix::fs::ftruncate(&file, len as u64).map_err(Error::system("size a memory file"))?;
    rustix::fs::fcntl_add_seals(&file, SIZE_SEALS | SealFlags::SEAL)
        .map_err(Error::system("seal a memory file"))?;
    Ok(file)
}

const SIZE_SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW);

/// The size of `file`, which can no longer change: a page beyond the end of a mapped file is a deadly signal.
pub(crate) fn sealed_size(file: impl AsFd, what: &'static str) -> Result<u64, Error> {
    // Files that cannot be sealed at all answer with an error.
    match rustix::fs::fcntl_get_seals(&file) {
        Ok(seals) if seals.contains(SIZE_SEALS) => {}
        _ => return Err(Error::NotSealed { what }),
    }
    let stat = rustix::fs::fstat(&file).map_err(Error::system("look at a memory file"))?;
    Ok(u64::try_from(stat.st_size).unwrap_or(0))
}
