//! This worker's seat on its machine's spin board.

use mutirao_ring::SpinBoard;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, OnceLock};

static SEAT: OnceLock<(Arc<SpinBoard>, u16)> = OnceLock::new();

/// This worker has one.
pub(super) fn install(board: Arc<SpinBoard>, number: u16) {
    // A process becomes a worker once.
    let _ = SEAT.set((board, number));
}

/// In an operation: the machine's spin board and this worker's seat on it, for a process that it starts and that
/// waits in its place. `None` where nobody is to spin.
pub fn spin_seat() -> Option<(OwnedFd, u16)> {
    let (board, number) = SEAT.get()?;
    Some((board.as_fd().try_clone_to_owned().ok()?, *number))
}

/// After such a process has ended: what it said on the board is void.
pub fn clear_spin_seat() {
    if let Some((board, number)) = SEAT.get() {
        board.clear(*number);
    }
}
