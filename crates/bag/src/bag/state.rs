//! What a bag knows of each task, and of what runs.

use super::ahead::Pace;
use crate::end::{Cost, Evidence};
use crate::record::{Span, Vote};
use mutirao_wire::{NodeId, Tick};
use serde::{Deserialize, Serialize};

/// Why a task will not be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Closed {
    /// It failed, and was tried as often as it may.
    Failed,
    /// It took its worker with it, again and again.
    SetAside,
    /// Somebody said so.
    Cancelled,
    /// The result that had added it counts no longer.
    Withdrawn,
}

/// The result of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// The attempt whose it is.
    pub(crate) attempt: u64,
    /// Where it ran.
    pub(crate) node: Box<str>,
    pub(crate) cost: Cost,
    pub(crate) stdout: Span,
    pub(crate) stderr: Span,
    /// The first of the tasks that it has added, and how many.
    pub(crate) added: (u32, u32),
    /// The nodes whose word it is, where results are checked.
    pub(crate) voters: Box<[NodeId]>,
}

/// Where a task is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// Others must be done before.
    Waiting,
    /// It may run, or does.
    Open,
    /// It has its result, which is not on the disk yet.
    Committing(Box<Done>),
    Done(Box<Done>),
    Closed(Closed),
    /// A task that must be done before will not be.
    Barred,
}

/// A task. A million of them may be there: it is kept small.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) template: u32,
    /// Which one of its template.
    pub(super) place: u32,
    pub(super) failures: u16,
    pub(super) crashes: u16,
    /// Attempts that run.
    pub(super) running: u16,
    pub(super) values: Box<[Box<str>]>,
    pub(super) state: State,
    /// Its last attempt that failed.
    pub(super) evidence: Option<Box<Evidence>>,
}

impl Task {
    /// Whether nothing more happens to it by itself.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.state, State::Done(_) | State::Closed(_) | State::Barred)
    }
}

/// How a task stands, for a journal that is written anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    pub(super) failures: u16,
    pub(super) crashes: u16,
    pub(super) result: Ending,
    pub(super) evidence: Option<Box<Evidence>>,
    pub(super) votes: Vec<Vote>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Ending {
    None,
    Done(Box<Done>),
    Closed(Closed),
}

/// The tasks of one template.
#[derive(Debug, Default)]
pub(super) struct Family {
    pub(super) tasks: Vec<u32>,
    /// Of these, not over.
    pub(super) open: u32,
    /// Of these, over without a result.
    pub(super) bad: u32,
    /// Templates that wait for all of them,
    pub(super) before: Vec<u32>,
    /// and those whose tasks wait for the one at the same place.
    pub(super) before_each: Vec<u32>,
}

/// An attempt that runs.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) task: u32,
    pub(super) worker: u64,
    pub(super) node: String,
    pub(super) since: Tick,
    /// How long the task had run before, for the state with which it began, ms.
    pub(super) worked_ms: u64,
    /// Nobody waits for it.
    pub(super) killed: bool,
    /// It checks its node, by that of the template's known answers.
    pub(super) check: Option<u32>,
}

/// A lease.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) id: NodeId,
    pub(super) node: String,
    pub(super) slots: u16,
    pub(super) running: u32,
    pub(super) idle_since: Option<Tick>,
    pub(super) leaves: bool,
    /// It is given back when nothing runs there any more.
    pub(super) unwanted: bool,
    /// It is no more, and forgotten with its last attempt.
    pub(super) down: bool,
    pub(super) pace: Pace,
}
