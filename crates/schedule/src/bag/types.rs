use super::Needs;
use mutirao_wire::BlobHash;
use std::sync::Arc;

/// A blob that a task reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Input {
    /// Its name.
    pub blob: BlobHash,
    /// Its size.
    pub bytes: u64,
}

/// A task that may run.
#[derive(Debug, Clone)]
pub struct Task {
    /// Its number in the bag; of equally urgent tasks the lowest runs first.
    pub task: u64,
    /// What it takes while it runs.
    pub needs: Needs,
    /// The greatest runs first.
    pub priority: i32,
    /// How many results are wanted, each from another site; one, unless they are to be compared.
    pub votes: u8,
    /// What it reads, each blob once; shared by tasks that read the same.
    pub inputs: Option<Arc<[Input]>>,
}

impl Task {
    /// A task of one slot whose first result will do.
    pub fn new(task: u64) -> Task {
        Task { task, needs: Needs::default(), priority: 0, votes: 1, inputs: None }
    }
}

/// What a scheduler is told.
#[derive(Debug, Clone)]
pub enum Event {
    /// Nothing stands in this task's way any more. Passed over if it is known already.
    TaskReady(Task),
    /// It need not run (any more): cancelled, set aside, or to be tried later. What runs of it is killed.
    TaskGone(u64),
    /// So many results of a task are wanted now: those there are did not agree.
    Votes {
        /// The task.
        task: u64,
        /// How many, those it had counted too.
        votes: u8,
    },
    /// A result of a task counts that came from this site in an earlier life of the engine: none more is wanted
    /// from there.
    Counted {
        /// The task, which is ready.
        task: u64,
        /// The site.
        site: u32,
    },
    /// A lease is ready to run tasks, none of which it knows yet.
    WorkerUp {
        /// The engine's number for it.
        worker: u64,
        /// The engine's number for its node.
        site: u32,
        /// What it has room for.
        offers: Needs,
        /// So many attempts may wait there behind those that run, so that short ones follow one another
        /// without a message between. 0 for tasks that take longer than a message.
        ahead: u16,
    },
    /// `ahead` of this worker is another now.
    WorkerAhead {
        /// The lease.
        worker: u64,
        /// Attempts that may wait there from now on.
        ahead: u16,
    },
    /// It will be given back: nothing more is started there, what runs may finish.
    WorkerLeaves(u64),
    /// It is no more, and what ran there with it. A task that must not run again for that has to be
    /// [`TaskGone`](Event::TaskGone) before.
    WorkerDown(u64),
    /// An attempt that runs already, from an earlier life of the engine; its worker is up.
    Adopted {
        /// Of this task, which is ready.
        task: u64,
        /// Its number.
        attempt: u64,
        /// Where it runs.
        worker: u64,
    },
    /// An attempt is over, also one that was to be killed: its room is free.
    Ended {
        /// Its number.
        attempt: u64,
        /// What the engine makes of it; of no matter after [`Order::Kill`].
        outcome: Outcome,
        /// What had to be brought to its site for it.
        brought_bytes: u64,
    },
    /// A blob is at a site.
    BlobAt {
        /// The site.
        site: u32,
        /// The blob.
        blob: BlobHash,
    },
    /// It was removed there.
    BlobGone {
        /// The site.
        site: u32,
        /// The blob.
        blob: BlobHash,
    },
}

/// What an attempt brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The task is over. Whatever else runs of it is killed.
    Done,
    /// A result that counts, but more are wanted.
    Counted,
    /// Nothing: if nothing else runs of the task, it waits again. For a task that is not to run again, or
    /// not yet, say [`Event::TaskGone`] before.
    Again,
}

/// What the engine has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Start an attempt.
    Start {
        /// Of this task.
        task: u64,
        /// Its number.
        attempt: u64,
        /// There.
        worker: u64,
    },
    /// End an attempt, and say [`Event::Ended`] when it has.
    Kill {
        /// Its number.
        attempt: u64,
    },
}

/// What running the bag has taken so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Attempts started.
    pub attempts: u64,
    /// Of these, copies of tasks that ran already.
    pub copies: u64,
    /// Slot-microseconds of attempts whose result was taken.
    pub useful_slot_us: u64,
    /// Slot-microseconds of attempts that another one of their task made needless.
    pub copies_slot_us: u64,
    /// Slot-microseconds of attempts that failed, were cancelled, or went with their worker.
    pub lost_slot_us: u64,
    /// Bytes brought for attempts.
    pub brought_bytes: u64,
    /// Of these, for attempts that another one of their task made needless.
    pub copies_bytes: u64,
}

impl Counts {
    /// Processor time of needless copies, as a part of the time that brought results.
    pub fn wasted_time(&self) -> f64 {
        self.copies_slot_us as f64 / (self.useful_slot_us as f64).max(1.0)
    }

    /// Bytes brought for needless copies, as a part of all that were brought.
    pub fn wasted_bytes(&self) -> f64 {
        self.copies_bytes as f64 / (self.brought_bytes as f64).max(1.0)
    }
}
