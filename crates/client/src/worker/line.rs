//! The line from this worker's node.

use crate::pipe::Line;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};

/// What this process has of it.
enum Slot {
    /// It is no worker.
    None,
    /// Nobody has asked yet.
    Socket(OwnedFd),
    Line(Line),
}

static SLOT: Mutex<Slot> = Mutex::new(Slot::None);

/// This worker has one.
pub(super) fn install(socket: OwnedFd) {
    *SLOT.lock().unwrap_or_else(PoisonError::into_inner) = Slot::Socket(socket);
}

/// In an operation: the line on which the node tells this worker of its pipes. `None` in a program that is not
/// a worker.
pub fn line() -> Option<Line> {
    let mut slot = SLOT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Slot::Socket(_) = *slot
        && let Slot::Socket(socket) = std::mem::replace(&mut *slot, Slot::None)
    {
        *slot = Slot::Line(Line::over(socket));
    }
    match &*slot {
        Slot::Line(line) => Some(line.clone()),
        _ => None,
    }
}
