//! A member whose disk has lost something that counted. It may have promised what it knows nothing of any more: a vote,
//! a term, entries. So it promises nothing until it cannot break anything.
//!
//! 1. It asks all others for their terms, and takes in nothing meanwhile. Whomever it promised anything had the term of
//!    that promise on its disk before, so the latest of their terms is as late as any promise. In that term it counts
//!    as having voted.
//! 2. From then on it takes entries, whose leader is as late as any it has followed, and votes for nobody. Whoever is
//!    elected meanwhile has the votes of all others, and so all that counts.
//! 3. Once all entries count here that such a leader had when it was asked, the member is what it was before.

use crate::sound::Refused;
use raft::eraftpb::MessageType;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What is said about this begins with this byte, where other messages have their kind.
const KIND: u8 = 64;
/// The others are asked again after so many ticks.
const AGAIN: u32 = 10;

/// What members say about it. Frozen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Note {
    /// The sender has lost something, and asks how the receiver stands.
    Mends {
        /// Names this question.
        nonce: u64,
        /// The last entry that the sender has.
        last: u64,
    },
    /// How the sender stands.
    Stands {
        /// That of the question.
        nonce: u64,
        /// The latest leadership it knows of.
        term: u64,
        /// Its last entry, if it leads.
        leads: Option<u64>,
    },
}

impl Note {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![KIND];
        bytes.extend(postcard::to_stdvec(self).expect("plain data, which can always be written"));
        bytes
    }

    /// `None` for a message of another kind.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Result<Note, Refused>> {
        let (kind, bytes) = bytes.split_first()?;
        (*kind == KIND).then(|| postcard::from_bytes(bytes).map_err(|_| Refused::Unreadable))
    }
}

/// Whether somebody asks who has lost something, and needs others that take part.
pub(crate) fn is_question(bytes: &[u8]) -> bool {
    matches!(Note::decode(bytes), Some(Ok(Note::Mends { .. })))
}

/// How far it has come.
#[derive(Debug)]
pub(crate) struct Mending {
    nonce: u64,
    /// What the others have said.
    terms: BTreeMap<u64, u64>,
    others: usize,
    /// A leader's term, and its last entry.
    goal: Option<(u64, u64)>,
    ticks: u32,
}

impl Mending {
    pub(crate) fn new(nonce: u64, members: u64) -> Mending {
        let others = members as usize - 1;
        Mending { nonce, terms: BTreeMap::new(), others, goal: None, ticks: 0 }
    }

    /// What to ask the others, if it is time to.
    pub(crate) fn tick(&mut self, last: u64) -> Option<Note> {
        let is_due = self.ticks.is_multiple_of(AGAIN);
        self.ticks = self.ticks.wrapping_add(1);
        is_due.then_some(Note::Mends { nonce: self.nonce, last })
    }

    /// Whether it takes in a message.
    pub(crate) fn admits(&self, kind: MessageType) -> bool {
        let entries = [MessageType::MsgAppend, MessageType::MsgHeartbeat, MessageType::MsgSnapshot];
        self.terms.len() == self.others && entries.contains(&kind)
    }

    /// Another says how it stands: the term to begin with, once all have.
    pub(crate) fn hear(&mut self, from: u64, nonce: u64, term: u64, leads: Option<u64>) -> Option<u64> {
        if nonce != self.nonce {
            return None;
        }
        if let Some(last) = leads {
            self.goal = Some((term, last));
        }
        if self.terms.len() == self.others {
            return None;
        }
        self.terms.insert(from, term);
        (self.terms.len() == self.others).then(|| self.terms.values().copied().max().unwrap_or(0))
    }

    /// Whether nothing is missing any more, with all entries up to `commit` counting in the term of their leader.
    pub(crate) fn is_over(&self, term: u64, commit: u64) -> bool {
        let has_all = |(of, last): (u64, u64)| of == term && commit >= last;
        self.terms.len() == self.others && self.goal.is_some_and(has_all)
    }
}
