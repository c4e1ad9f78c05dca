//! Locks that say who may use a directory or a name.

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// How long whoever has let go of a lock may seem to hold it.
const LETTING_GO: Duration = Duration::from_millis(400);

/// Takes the exclusive lock of an open file, which is held for as long as the file is open; false if somebody
/// else holds it. Waits a little first: a process that was just killed, or one that is about to execute
/// another program, lets go within moments.
pub fn lock_exclusively(file: impl AsFd) -> io::Result<bool> {
    let patience = Instant::now() + LETTING_GO;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(true),
            Err(Errno::WOULDBLOCK) if Instant::now() < patience => std::thread::sleep(LETTING_GO / 20),
            Err(Errno::WOULDBLOCK) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
    }
}
