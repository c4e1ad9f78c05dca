//! Room on the disk of a member: without it what is to be written waits, and nothing is lost.

use crate::bag::DISK_RETRY;
use crate::output::remark;
use std::time::{Duration, Instant};

/// A member that leads and cannot write for so long leads no more: others, who do not hear it, elect another.
const LEADS_ON: Duration = Duration::from_secs(3);

/// Whether there is room, as far as that was tried.
#[derive(Debug, Default)]
pub struct Room {
    /// Since when there has been none, and when it is tried again.
    lack: Option<(Instant, Instant)>,
}

impl Room {
    /// Whether it was told that there is none, and it is not time to try again.
    pub fn waits(&self) -> bool {
        self.lack.is_some_and(|(_, again)| again > Instant::now())
    }

    /// Whether there was none when it was tried last.
    pub fn lacks(&self) -> bool {
        self.lack.is_some()
    }

    /// Whether there has been none for longer than a leader may be silent.
    pub fn is_long(&self) -> bool {
        self.lack.is_some_and(|(since, _)| since.elapsed() > LEADS_ON)
    }

    /// There is none for this. That is said once.
    pub fn is_missing(&mut self, error: &anyhow::Error) {
        let now = Instant::now();
        if self.lack.is_none() {
            remark!("mutirao: {error:#}; nothing is lost, and this member goes on when there is room");
        }
        self.lack = Some((self.lack.map_or(now, |(since, _)| since), now + DISK_RETRY));
    }

    /// There is some.
    pub fn is_there(&mut self) {
        if self.lack.take().is_some() {
            remark!("mutirao: there is room again");
        }
    }
}

/// Whether something failed for want of room, which may pass.
pub fn is_full(error: &anyhow::Error) -> bool {
    let is_full = |cause: &(dyn std::error::Error + 'static)| {
        let kind = cause.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        matches!(kind, Some(std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded))
            || matches!(cause.downcast_ref(), Some(mutirao_store::Error::DiskFull(_)))
    };
    error.chain().any(is_full)
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn a_full_disk_is_known_behind_whatever_is_said_of_it() {
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        assert!(is_full(&Err::<(), _>(full).context("cannot write").context("a result").unwrap_err()));
        assert!(is_full(&mutirao_store::Error::DiskFull("/x".into()).into()));
        assert!(!is_full(&std::io::Error::from(std::io::ErrorKind::PermissionDenied).into()));
        let mut room = Room::default();
        assert!(!room.lacks() && !room.waits());
        room.is_missing(&anyhow::anyhow!("full"));
        assert!(room.lacks() && room.waits() && !room.is_long());
        room.is_there();
        assert!(!room.lacks());
    }
}
