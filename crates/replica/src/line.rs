//! What a member writes to its disk, and what it knows from there.

use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Largest number of an entry or a leadership that is read: counting on from there does not overflow.
pub(crate) const NUMBER_MAX: u64 = 1 << 63;

/// A place in the log: an entry, and of which leadership it is. Zero is the place before the first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Point {
    /// The entry's place, counted from 1.
    pub index: u64,
    /// Of which leadership it is.
    pub term: u64,
}

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
    /// A part of what entries have come to that are not kept themselves; the owner's. Parts are the first lines.
    Part(Vec<u8>),
    /// The parts before this line are all.
    Base {
        /// They say what all entries up to this one have come to.
        base: Point,
        /// The log goes on behind this one: some entries before the base are kept for members that lag a little.
        before: Point,
    },
}

/// An entry as it is known in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) term: u64,
    /// Where its line lies on the disk; a number of the owner's.
    pub(crate) at: u64,
    /// How long what it says is.
    pub(crate) bytes: u32,
    /// What it says, unless that is to be read there.
    pub(crate) data: Option<Vec<u8>>,
}

/// What a member knows from its disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kept {
    /// The parts say what all entries up to it have come to.
    pub(crate) base: Point,
    /// The first entry that is kept follows it.
    pub(crate) before: Point,
    pub(crate) entries: VecDeque<Known>,
    pub(crate) term: u64,
    pub(crate) vote: u64,
    pub(crate) commit: u64,
    parts: bool,
}

impl Kept {
    /// Takes the next line of the journal; `at` is where it lies. False if it makes no sense behind those before it.
    pub fn read(&mut self, line: &Line, at: u64) -> bool {
        match line {
            Line::Entry { index, term, data } => {
                // What counts is never replaced.
                let follows = *index > self.commit() && *index <= self.last() + 1;
                if !follows || *term > NUMBER_MAX || self.last() >= NUMBER_MAX {
                    return false;
                }
                self.entries.truncate((index - 1 - self.before.index) as usize);
                let before = self.entries.back().map_or(self.before.term, |known| known.term);
                if *term < before {
                    return false;
                }
                self.entries.push_back(Known { term: *term, at, bytes: data.len() as u32, data: None });
                self.hear(*term);
            }
            Line::State { term, vote, commit } => {
                if *term < self.term || *commit < self.commit || *term > NUMBER_MAX {
                    return false;
                }
                (self.term, self.vote, self.commit) = (*term, *vote, *commit);
            }
            Line::Own(_) => {}
            Line::Part(_) => {
                self.parts = true;
                return self.is_fresh();
            }
            Line::Base { base, before } => {
                let sound = before <= base && base.index > 0 && base.index.max(base.term) <= NUMBER_MAX;
                if !sound || !self.parts || !self.is_fresh() {
                    return false;
                }
                (self.base, self.before) = (*base, *before);
                self.hear(base.term);
            }
        }
        true
    }

    /// There was this leadership, though the line that says so did not come to the disk.
    fn hear(&mut self, term: u64) {
        if term > self.term {
            (self.term, self.vote) = (term, 0);
        }
    }

    fn is_fresh(&self) -> bool {
        self.base == Point::default() && self.entries.is_empty() && self.term == 0
    }

    /// Whether nothing is missing, once all lines are read: a journal of which the end was lost may lack some.
    pub fn is_whole(&self, members: u64) -> bool {
        let place = (self.base.index - self.before.index) as usize;
        let base = place.checked_sub(1).map(|place| self.entries.get(place).map(|known| known.term));
        self.parts == (self.base.index > 0)
            && base.is_none_or(|term| term == Some(self.base.term))
            && self.commit <= self.last()
            && self.vote <= members
    }

    /// The last entry there is.
    pub fn last(&self) -> u64 {
        self.before.index + self.entries.len() as u64
    }

    /// Up to which entry they are known to count.
    pub fn commit(&self) -> u64 {
        self.commit.max(self.base.index).min(self.last())
    }

    /// Up to which entry the parts say what they have come to.
    pub fn base(&self) -> u64 {
        self.base.index
    }
}
