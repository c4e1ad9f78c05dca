use super::Floor;
use mutirao_wire::{BlobHash, Tick};

/// Decides what is started next.
pub trait Policy {
    /// What a bag file calls it.
    fn name(&self) -> &'static str;

    /// What to start now, if anything; asked again until there is nothing. What [`Floor::may`] forbids is
    /// not started.
    fn next(&mut self, now: Tick, floor: &Floor) -> Option<Choice>;

    /// Something changed. A policy with an order of its own keeps it up to date here.
    fn changed(&mut self, floor: &Floor, change: Change) {
        let _ = (floor, change);
    }
}

/// A task for a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// The task.
    pub task: u64,
    /// The worker.
    pub worker: u64,
}

/// What has changed on the [`Floor`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// This task: it waits now, or has an attempt more or less, or is over.
    Task(u64),
    /// This blob is at the site now, or no longer.
    Blob {
        /// The site.
        site: u32,
        /// The blob.
        blob: BlobHash,
    },
}
