//! What a member writes to its disk, and what it knows from there.

use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// One record of a member's journal. Later versions append kinds; they change none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Line {
    /// An entry of the log, which replaces all that is there from its place on.
    Entry {
        /// Its place, counted from 1.
        index: u64,
        /// Of which leadership it is.
        term: u64,
        /// What it says.
        data: Vec<u8>,
    },
    /// What the member has promised, and up to which entry it knows them to count.
    State {
        /// The latest leadership it has heard of.
        term: u64,
        /// For whom it has voted in that; 0 for nobody.
        vote: u64,
        /// Entries up to this one count.
        commit: u64,
    },
    /// Something of the owner's, which the log knows nothing of.
    Own(Vec<u8>),
}

/// An entry as it is known in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) term: u64,
    /// Where its line lies on the disk; a number of the owner's.
    pub(crate) at: u64,
    /// What it says, unless that is to be read there.
    pub(crate) data: Option<Vec<u8>>,
}

/// What a member knows from its disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kept {
    pub(crate) entries: VecDeque<Known>,
    pub(crate) term: u64,
    pub(crate) vote: u64,
    pub(crate) commit: u64,
}

impl Kept {
    /// Takes the next line of the journal; `at` is where it lies. False if it makes no sense behind those before it.
    pub fn read(&mut self, line: &Line, at: u64) -> bool {
        match line {
            Line::Entry { index, term, .. } => {
                // What counts is never replaced.
                if *index <= self.commit() || *index > self.last() + 1 {
                    return false;
                }
                self.entries.truncate((index - 1) as usize);
                self.entries.push_back(Known { term: *term, at, data: None });
            }
            Line::State { term, vote, commit } => {
                if *term < self.term || *commit < self.commit {
                    return false;
                }
                (self.term, self.vote, self.commit) = (*term, *vote, *commit);
            }
            Line::Own(_) => {}
        }
        true
    }

    /// The last entry there is.
    pub fn last(&self) -> u64 {
        self.entries.len() as u64
    }

    /// Up to which entry they are known to count.
    pub fn commit(&self) -> u64 {
        self.commit.min(self.last())
    }
}
