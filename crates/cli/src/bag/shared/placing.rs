//! Result files that are still to be put in their places, where the bag was submitted.

use crate::bag::control::Unplaced;
use crate::output::remark;
use anyhow::Result;
use std::collections::VecDeque;

/// Results whose files wait to be put in their places.
#[derive(Debug, Default)]
pub struct Placing {
    /// Task and attempt.
    waiting: VecDeque<(u32, u64)>,
    /// Tried in vain since the last round, and whether one of them for want of room only.
    failed: usize,
    lacks_room: bool,
    /// Why the first of these could not be placed, which was told.
    why: Option<String>,
    /// Entries up to this one are settled when nothing waits.
    up_to: u64,
    /// Files of the next are being copied, or were, or why not.
    copies: bool,
    copied: Option<(u64, Result<()>)>,
}

impl Placing {
    /// The files of this result are to be put in their places.
    pub fn push(&mut self, task: u32, attempt: u64) {
        self.waiting.push_back((task, attempt));
    }

    /// All that is to be placed of entries up to this one waits here.
    pub fn counts_up_to(&mut self, index: u64) {
        self.up_to = self.up_to.max(index);
    }

    /// The next to try, unless all that wait were tried in vain.
    pub fn next(&self) -> Option<(u32, u64)> {
        self.waiting.front().copied().filter(|_| self.failed < self.waiting.len() && !self.copies)
    }

    /// Files of the next are being copied.
    pub fn copies(&mut self) {
        self.copies = true;
    }

    pub fn is_copying(&self) -> bool {
        self.copies
    }

    /// Files of this result are copied, or why not.
    pub fn is_copied(&mut self, attempt: u64, result: Result<()>) {
        (self.copies, self.copied) = (false, Some((attempt, result)));
    }

    /// Whether files of this result were copied just now.
    pub fn take_copied(&mut self, attempt: u64) -> Option<Result<()>> {
        self.copied.take().filter(|(of, _)| *of == attempt).map(|(_, result)| result)
    }

    /// The next is placed, or nobody wants it any more.
    pub fn is_placed(&mut self) {
        self.waiting.pop_front();
        if self.waiting.is_empty() {
            *self = Placing { up_to: self.up_to, ..Placing::default() };
        }
    }

    /// The next cannot be placed now. That is said once.
    pub fn fails(&mut self, error: &anyhow::Error, is_full: bool) {
        if let Some(first) = self.waiting.pop_front() {
            self.waiting.push_back(first);
        }
        self.why.get_or_insert_with(|| {
            remark!("mutirao: {error:#}; nothing is lost, and it is tried again");
            format!("{error:#}")
        });
        self.lacks_room |= is_full;
        // Without room none can be placed.
        self.failed = if is_full { self.waiting.len() } else { self.failed + 1 };
    }

    /// All that wait are tried again.
    pub fn again(&mut self) {
        (self.failed, self.lacks_room) = (0, false);
    }

    /// How many were tried in vain, and why; also while they are tried again.
    pub fn unplaced(&self) -> Unplaced<'_> {
        self.why.as_deref().map(|why| (self.waiting.len(), why))
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether some wait for nothing but room.
    pub fn waits_for_room(&self) -> bool {
        self.lacks_room && !self.waiting.is_empty()
    }

    /// Entries up to this one are settled.
    pub fn settled(&self) -> Option<u64> {
        self.waiting.is_empty().then_some(self.up_to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_placed_holds_up_no_other_unless_there_is_no_room() {
        let mut placing = Placing::default();
        (0..3).for_each(|task| placing.push(task, 10));
        placing.counts_up_to(7);
        assert_eq!((placing.next(), placing.settled()), (Some((0, 10)), None));
        placing.fails(&anyhow::anyhow!("a directory is there"), false);
        placing.is_placed();
        placing.is_placed();
        assert_eq!((placing.next(), placing.waits_for_room()), (None, false), "tried in vain");
        assert_eq!(placing.unplaced(), Some((1, "a directory is there")));
        placing.again();
        assert_eq!(placing.next(), Some((0, 10)));
        placing.push(3, 11);
        placing.fails(&anyhow::anyhow!("full"), true);
        assert_eq!((placing.next(), placing.waits_for_room()), (None, true));
        placing.again();
        placing.is_placed();
        placing.is_placed();
        assert_eq!((placing.next(), placing.settled()), (None, Some(7)));
        assert_eq!(placing.unplaced(), None);
    }
}
