//! The ring between two ends of this machine.

use mutirao_ring::{Bell, Error, RingMemory, Ringer};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What each direction holds, bytes: small enough to stay in a processor's cache.
const CAPACITY: usize = 64 * 1024;

/// Descriptors for both ends, in the order of `mutirao_wire::pipe::PipeWay::Ring`: the caller's side first.
pub(crate) fn make() -> Result<[Vec<OwnedFd>; 2], Error> {
    let memory = RingMemory::create(CAPACITY)?;
    let (call_bell, call_ringer) = Bell::pair()?;
    let (reply_bell, reply_ringer) = Bell::pair()?;
    let copy = |fd: BorrowedFd<'_>| {
        let failed = |source| Error::System { what: "duplicate a descriptor", source };
        fd.try_clone_to_owned().map_err(failed)
    };
    let side = |memory: OwnedFd, bell: &Bell, ringer: &Ringer, far: &Bell| {
        Ok::<_, Error>(vec![memory, copy(bell.as_fd())?, copy(ringer.fds().0)?, copy(far.as_fd())?])
    };
    let theirs = copy(memory.as_fd())?;
    Ok([
        side(memory.into_fd(), &reply_bell, &call_ringer, &call_bell)?,
        side(theirs, &call_bell, &reply_ringer, &reply_bell)?,
    ])
}
