//! Attempts that need files which are not here: they lie in the directory of the bag, which neither this keeper nor the
//! attempt's node sees. The member where the bag was submitted can send them.

use super::{Keeper, Log};
use crate::output::remark;
use anyhow::Result;
use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// After so long it is tried again to send them.
const AGAIN: Duration = Duration::from_secs(2);

/// The lead is given away so often at most: while that is tried nothing comes to count.
const HAND_AGAIN: Duration = Duration::from_secs(10);

/// A file lies in a directory that is not seen from here.
#[derive(Debug)]
pub(super) struct LiesElsewhere(pub PathBuf);

impl fmt::Display for LiesElsewhere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is not seen by the node that keeps the bag", self.0.display())
    }
}

impl std::error::Error for LiesElsewhere {}

/// These attempts, each with its worker.
#[derive(Debug, Default)]
pub(super) struct Lacking {
    attempts: Vec<(u64, u64)>,
    due: Option<Instant>,
    /// When the lead was given away last, which may have come to nothing.
    handed: Option<Instant>,
    /// It was said that attempts wait.
    said: bool,
}

impl Lacking {
    pub fn push(&mut self, attempt: u64, worker: u64, error: &anyhow::Error) {
        if !std::mem::replace(&mut self.said, true) {
            remark!(
                "mutirao: {error:#}; what needs a copy of it waits for the node where the bag was submitted"
            );
        }
        self.attempts.push((attempt, worker));
        // By then it has shown who hears this keeper.
        self.due.get_or_insert_with(|| Instant::now() + AGAIN);
    }

    /// Calls an attempt off; whether it was one of them.
    pub fn call_off(&mut self, attempt: u64) -> bool {
        let before = self.attempts.len();
        self.attempts.retain(|(known, _)| *known != attempt);
        self.attempts.len() < before
    }

    /// When it is to be tried again to send them.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }
}

impl Keeper {
    /// Gives the bag to the member where it was submitted, if that can keep it; else tries once more to send what lacks
    /// files.
    pub(super) fn send_lacking(&mut self) -> Result<()> {
        self.lacking.due = None;
        let attempts = std::mem::take(&mut self.lacking.attempts);
        attempts.into_iter().for_each(|(attempt, worker)| self.start(attempt, worker));
        self.note_calls()?;
        let can_hand = self.lacking.handed.is_none_or(|handed| handed.elapsed() > HAND_AGAIN);
        if let Log::Shared(shared) = &mut self.log
            && !self.lacking.attempts.is_empty()
            && can_hand
            && shared.origin_can_lead()
        {
            self.lacking.handed = Some(Instant::now());
            shared.hand_to_origin();
        }
        Ok(())
    }
}
