//! What the journal of a bag says.

use crate::bag::{Closed, Standing};
use crate::end::{Cost, Evidence};
use crate::error::Error;
use crate::template::{Settings, Template};
use mutirao_schedule::bag::Needs;
use mutirao_wire::node::{NodeRef, Resource};
use mutirao_wire::{BlobHash, LeaseId, NodeId};
use serde::{Deserialize, Serialize};

/// Bytes of a file that grows only.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// Where they begin.
    pub offset: u64,
    /// How many they are.
    pub bytes: u32,
}

/// A task that is to be added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewTask {
    /// Its template, by its place in the bag.
    pub template: u32,
    /// Its values, in the order of the template's parameters.
    pub values: Vec<Box<str>>,
}

/// A result that is compared with others of its task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vote {
    /// The attempt that brought it.
    pub attempt: u64,
    /// Where it ran.
    pub node: NodeId,
    /// That node's name.
    pub name: Box<str>,
    /// What it has taken.
    pub cost: Cost,
    /// What it wrote to its standard output, in the bag's file of outputs.
    pub stdout: Span,
    /// What it wrote to its standard error, there.
    pub stderr: Span,
    /// What it is compared by.
    pub result: BlobHash,
    /// What it has said, as it was written.
    pub said: Box<str>,
}

/// State that an attempt has saved for the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// The attempt.
    pub attempt: u64,
    /// What it has saved, in the bag's file of outputs.
    pub content: Span,
    /// When, ms since 1970.
    pub at_ms: u64,
    /// How long the task had run for it, ms: in that attempt, and in those whose state that one began with.
    pub worked_ms: u64,
}

/// A lease, as another keeper can go on with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lent {
    /// Its name in the pool.
    pub lease: LeaseId,
    /// The node that lends.
    pub lender: NodeRef,
    /// Slots it holds.
    pub slots: u16,
    /// Memory set aside for it, MiB.
    pub memory_mib: u32,
    /// Named resources it holds.
    pub resources: Vec<Resource>,
}

impl Lent {
    /// What there is for tasks.
    pub fn offers(&self) -> Needs {
        Needs { slots: self.slots, memory_mib: self.memory_mib, resources: self.resources.clone() }
    }
}

/// One record. Later versions append kinds; they change none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// The first: what the bag is.
    Bag {
        /// What holds for the whole of it.
        settings: Settings,
        /// When it was submitted, ms since 1970.
        at_ms: u64,
    },
    /// The next template.
    Template(Template),
    /// The next tasks.
    Tasks(Vec<NewTask>),
    /// Nothing is missing: the bag may run.
    Complete,
    /// A keeper begins or goes on.
    Life {
        /// When, ms since 1970.
        at_ms: u64,
    },
    /// An attempt was started.
    Started {
        /// Of this task.
        task: u32,
        /// Its number.
        attempt: u64,
        /// On this node.
        node: String,
    },
    /// An attempt ended without a result.
    Failed {
        /// Of this task.
        task: u32,
        /// All about it.
        evidence: Evidence,
    },
    /// A task has its result, whatever else runs of it.
    Committed {
        /// Which.
        task: u32,
        /// The attempt whose result it is.
        attempt: u64,
        /// Where it ran.
        node: String,
        /// What it has taken.
        cost: Cost,
        /// What it wrote to its standard output, in the bag's file of outputs.
        stdout: Span,
        /// What it wrote to its standard error, there.
        stderr: Span,
        /// Templates that it has added.
        templates: Vec<Template>,
        /// Tasks that it has added.
        added: Vec<NewTask>,
    },
    /// A task will not be done.
    Closed {
        /// Which.
        task: u32,
        /// Why.
        closed: Closed,
    },
    /// A task that was closed is to be tried again.
    Again {
        /// Which.
        task: u32,
    },
    /// The bag is over: nothing is left to do.
    Over {
        /// When, ms since 1970.
        at_ms: u64,
    },
    /// How tasks stand, instead of the records that made it so.
    Standings {
        /// The first of them; the others follow.
        first: u32,
        /// Each.
        standings: Vec<Standing>,
    },
    /// How attempts are numbered on, instead of the records that used the others.
    NextAttempt(u64),
    /// An attempt brought a result that is compared with others.
    Voted {
        /// Of this task.
        task: u32,
        /// The result.
        vote: Vote,
    },
    /// The result of an attempt that voted is accepted.
    Accepted {
        /// Of this task.
        task: u32,
        /// The attempt.
        attempt: u64,
        /// Templates that it has added.
        templates: Vec<Template>,
        /// Tasks that it has added.
        added: Vec<NewTask>,
    },
    /// A node gave a wrong answer to a question whose answer is known: nothing it said counts.
    Caught {
        /// Which.
        node: NodeId,
        /// Its name.
        name: String,
    },
    /// The result of a task counts no longer, nor what rests on it.
    Undone {
        /// Which.
        task: u32,
    },
    /// An attempt saved state with which the next begins.
    Saved {
        /// Of this task.
        task: u32,
        /// What it saved.
        saved: Saved,
    },
    /// A lease serves as this worker, as long as the keeper lives.
    Lent {
        /// The keeper's number for it.
        worker: u64,
        /// What another keeper has to know of it.
        lent: Lent,
    },
    /// It does no longer.
    Returned {
        /// The worker.
        worker: u64,
    },
    /// An attempt went to its worker.
    Sent {
        /// Its number.
        attempt: u64,
        /// The worker.
        worker: u64,
        /// The number of its call there.
        call: u64,
    },
    /// The next attempt begins anew, whatever was saved.
    Afresh {
        /// Of this task.
        task: u32,
    },
}

impl Record {
    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_stdvec(self).expect("a record is plain data, which can always be written")
    }

    /// Whether it is to outlive a loss of power: that an attempt began need not.
    pub fn is_to_be_synced(&self) -> bool {
        !matches!(
            self,
            Record::Started { .. }
                | Record::Life { .. }
                | Record::Lent { .. }
                | Record::Returned { .. }
                | Record::Sent { .. }
        )
    }

    /// The task whose result counts with this record, and the attempt that brought it.
    pub fn counts(&self) -> Option<(u32, u64)> {
        match self {
            Record::Committed { task, attempt, .. } | Record::Accepted { task, attempt, .. } => {
                Some((*task, *attempt))
            }
            _ => None,
        }
    }

    /// Reads record `number`, counted from 1.
    pub fn decode(bytes: &[u8], number: u64) -> Result<Record, Error> {
        postcard::from_bytes(bytes).map_err(|error| Error::Record { number, reason: error.to_string() })
    }
}
