//! The state machine of one bag.

mod add;
mod adopt;
mod ahead;
mod apply;
mod brought;
mod check;
mod depend;
mod draft;
mod run;
mod save;
mod shrink;
mod state;
#[cfg(test)]
mod tests;
mod view;
mod weighing;

pub use adopt::Left;
pub use check::{NodeStanding, Trust};
pub use draft::Draft;
pub use save::Taking;
pub use state::{Closed, Standing};
pub use view::{Counts, TaskView, Verdict};

use crate::end::{Cost, End};
use crate::error::Error;
use crate::record::{Lent, NewTask, Record, Saved, Span, Vote};
use crate::report::Report;
use crate::template::{Settings, Template};
use adopt::Begun;
use mutirao_schedule::bag::check::Judge;
use mutirao_schedule::bag::{Counts as RunCounts, Needs, Order, Scheduler, by_name};
use mutirao_wire::{BlobHash, NodeId, Tick};
use state::{Attempt, Family, Task, Worker};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// A worker that has had nothing to do for so long is given back.
const IDLE: Duration = Duration::from_secs(1);

/// What happened.
#[derive(Debug, Clone)]
pub enum Input {
    /// A lease is ready to run tasks.
    WorkerUp {
        /// The keeper's number for it.
        worker: u64,
        /// Its node.
        id: NodeId,
        /// The node's name.
        node: String,
        /// What it holds.
        offers: Needs,
    },
    /// What another keeper has to know of a worker, so that it can go on with what runs there. Told before it is up.
    Lent {
        /// The keeper's number for it.
        worker: u64,
        /// What.
        lent: Lent,
    },
    /// An attempt went to its worker.
    Sent {
        /// Which.
        attempt: u64,
        /// The number of its call there.
        call: u64,
    },
    /// It takes nothing new: its owner wants it back.
    WorkerLeaves(u64),
    /// It is no more. The ends of its attempts are told all the same, before or after.
    WorkerDown(u64),
    /// An attempt is over.
    Ended {
        /// Which.
        attempt: u64,
        /// How.
        end: End,
        /// What it has taken.
        cost: Cost,
        /// What it wrote last to its standard error.
        last_words: String,
        /// Where its whole standard output was put, and its standard error.
        outputs: (Span, Span),
        /// What its result is compared by, where results are checked.
        result: Option<BlobHash>,
        /// What it has said.
        report: Report,
    },
    /// An attempt that runs has saved state, which was put there; see [`Bag::takes_state`].
    Saved {
        /// Which.
        attempt: u64,
        /// The state, in the bag's file of outputs.
        content: Span,
    },
    /// So many of the records that were to be appended are on the disk.
    Journaled(u64),
    /// Tasks are to be added, as [`Bag::resolve`] made them.
    Add {
        /// Templates they need.
        templates: Vec<Template>,
        /// The tasks.
        tasks: Vec<NewTask>,
    },
    /// A task need not be done.
    Cancel(u32),
    /// A task that was closed is to be tried again.
    Again(u32),
    /// A task that was closed is to be tried again, from the beginning.
    Afresh(u32),
    /// No worker can be started anywhere; why. What is to run now fails by that.
    Nowhere(String),
    /// [`Bag::deadline`] has come.
    Time,
}

/// What the keeper has to do, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Append a record to the journal, and say [`Input::Journaled`] when it is on the disk.
    Append(Box<Record>),
    /// Start an attempt.
    Start {
        /// Its number.
        attempt: u64,
        /// Of this task.
        task: u32,
        /// On this worker.
        worker: u64,
    },
    /// End an attempt, and say how it ended when it has.
    Kill {
        /// Its number.
        attempt: u64,
    },
    /// The result of a task is committed: put its files where they belong.
    Settle {
        /// Which task.
        task: u32,
        /// Whose result it is.
        attempt: u64,
    },
    /// Nobody wants what this attempt has left.
    Drop {
        /// Of this task.
        task: u32,
        /// Its number.
        attempt: u64,
    },
    /// Nobody reads these bytes of the file of outputs any more.
    Free(Span),
    /// Give a worker back: there is nothing for it to do.
    GiveBack(u64),
    /// This was learnt of a node, beside what is known of it.
    Learnt {
        /// Which.
        node: NodeId,
        /// Its name.
        name: String,
        /// What.
        standing: NodeStanding,
    },
    /// Nothing is left to do, and that is on the disk.
    Over,
}

/// A bag: its tasks, and how they stand.
pub struct Bag {
    settings: Settings,
    submitted_ms: u64,
    complete: bool,
    over: bool,
    lives: u64,
    records: u64,
    templates: Vec<Template>,
    /// What belongs together with each template.
    families: Vec<Family>,
    tasks: Vec<Task>,
    /// Tasks that may run now, of which the scheduler does not know yet.
    opened: Vec<u32>,
    counts: Counts,
    /// Tasks that came to an end, in that order; one that was tried again twice.
    finished: Vec<u32>,
    next_attempt: u64,
    /// Results of tasks that are not accepted yet.
    votes: BTreeMap<u32, Vec<Vote>>,
    /// Nodes that gave wrong answers, by name.
    caught: BTreeMap<NodeId, String>,
    /// State with which the next attempts of tasks begin.
    states: BTreeMap<u32, Saved>,
    /// Bytes of the file of outputs that nobody reads any more.
    freed: Vec<Span>,
    /// Attempts that were begun in this life of a keeper, or the one before it, and have no end yet.
    begun: BTreeMap<u64, Begun>,
    /// What another keeper has to know of leases, by this one's numbers for them.
    lent: BTreeMap<u64, Lent>,

    // What follows is of this life of the keeper only.
    scheduler: Option<Scheduler>,
    orders: Vec<Order>,
    /// Where results are checked.
    judge: Option<Judge>,
    /// Nodes, each with the scheduler's number and its name.
    sites: BTreeMap<NodeId, (u32, String)>,
    weighing: weighing::Weighing,
    /// The next known answer of each template.
    next_known: BTreeMap<u32, u32>,
    /// Tasks closed by an order or a verdict, of which the scheduler does not know yet.
    gone: Vec<u32>,
    /// Attempts, each with its task, whose files nobody wants any more.
    dropped: Vec<(u32, u64)>,
    /// Workers of no use that are to be given back.
    turned_away: Vec<u64>,
    /// Workers that are no more, of which the journal does not say so yet.
    returned: Vec<u64>,
    attempts: BTreeMap<u64, Attempt>,
    workers: BTreeMap<u64, Worker>,
    /// Workers with nothing to do, by since when.
    idle: BTreeSet<(Tick, u64)>,
    /// Workers where attempts wait behind another, by when they have waited too long.
    impatient: BTreeSet<(Tick, u64)>,
    appended: u64,
    /// Tasks whose result, of that attempt, counts when so many records are on the disk.
    committing: VecDeque<(u64, u32, u64)>,
    /// Bytes of the file of outputs that nobody reads any more when so many records are on the disk.
    freeing: VecDeque<(u64, Span)>,
    over_at: Option<u64>,
    /// More tasks may come, although none is left.
    held: bool,
}

impl std::fmt::Debug for Bag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bag")
            .field("settings", &self.settings)
            .field("counts", &self.counts)
            .finish_non_exhaustive()
    }
}

impl Default for Bag {
    fn default() -> Self {
        Bag::new()
    }
}

impl Bag {
    /// A bag of which nothing is known yet: its records follow.
    pub fn new() -> Bag {
        Bag {
            settings: Settings::default(),
            submitted_ms: 0,
            complete: false,
            over: false,
            lives: 0,
            records: 0,
            templates: Vec::new(),
            families: Vec::new(),
            tasks: Vec::new(),
            opened: Vec::new(),
            counts: Counts::default(),
            finished: Vec::new(),
            next_attempt: 1,
            votes: BTreeMap::new(),
            caught: BTreeMap::new(),
            states: BTreeMap::new(),
            freed: Vec::new(),
            begun: BTreeMap::new(),
            lent: BTreeMap::new(),
            scheduler: None,
            orders: Vec::new(),
            judge: None,
            sites: BTreeMap::new(),
            weighing: weighing::Weighing::default(),
            next_known: BTreeMap::new(),
            gone: Vec::new(),
            dropped: Vec::new(),
            turned_away: Vec::new(),
            returned: Vec::new(),
            attempts: BTreeMap::new(),
            workers: BTreeMap::new(),
            idle: BTreeSet::new(),
            impatient: BTreeSet::new(),
            appended: 0,
            committing: VecDeque::new(),
            freeing: VecDeque::new(),
            over_at: None,
            held: false,
        }
    }

    /// Takes the next record of the journal, in which it stands what has happened so far.
    pub fn replay(&mut self, record: Record) -> Result<(), Error> {
        self.records += 1;
        let counts = record.counts();
        self.apply(record)?;
        // It was on the disk.
        if let Some((task, _)) = counts {
            self.settle(task);
        }
        Ok(())
    }

    /// A keeper begins to run the bag, and knows nodes from earlier bags. `at_ms` is the time, ms since 1970.
    pub fn begin(&mut self, now: Tick, at_ms: u64, trust: Trust, out: &mut Vec<Output>) -> Result<(), Error> {
        self.go_on(now, at_ms, trust, Vec::new(), out)
    }

    /// As [`begin`](Bag::begin), and goes on with what runs of attempts of the keeper before: of what was
    /// [left](Bag::left) so much as it has, under its own numbers of workers.
    pub fn go_on(
        &mut self,
        now: Tick,
        at_ms: u64,
        trust: Trust,
        adopted: Vec<Left>,
        out: &mut Vec<Output>,
    ) -> Result<(), Error> {
        let unknown = |error: mutirao_schedule::bag::UnknownScheduler| Error::Task(error.to_string());
        let policy = by_name(&self.settings.scheduler, self.settings.replicas).map_err(unknown)?;
        self.scheduler = Some(Scheduler::new(policy, self.next_attempt));
        self.begin_checks(trust)?;
        // What else the keeper before had going ended with it.
        let begun = self.begun.clone();
        let goes_on =
            |attempt: u64| adopted.iter().flat_map(|left| &left.attempts).any(|(one, _)| *one == attempt);
        let ended = begun.iter().filter(|(attempt, _)| !goes_on(**attempt));
        out.extend(ended.map(|(&attempt, begun)| Output::Drop { task: begun.task, attempt }));
        self.enter_and_append(Record::Life { at_ms }, out);
        self.take_restored(out);
        self.offer_opened(now);
        for left in adopted {
            self.adopt(now, left, |attempt| begun.get(&attempt).map(|begun| begun.task), out);
        }
        self.follow(now, at_ms, out);
        Ok(())
    }

    /// Takes one input and appends what follows. `at_ms` is the time for people, ms since 1970.
    pub fn handle(&mut self, now: Tick, at_ms: u64, input: Input, out: &mut Vec<Output>) {
        match input {
            Input::WorkerUp { worker, id, node, offers } => self.worker_up(now, worker, id, node, offers),
            Input::Lent { worker, lent } => self.enter_and_append(Record::Lent { worker, lent }, out),
            Input::Sent { attempt, call } => self.sent(attempt, call, out),
            Input::WorkerLeaves(worker) => self.worker_leaves(now, worker, false),
            Input::WorkerDown(worker) => self.worker_leaves(now, worker, true),
            Input::Ended { attempt, end, cost, last_words, outputs, result, report } => {
                let ending = run::Ending { end, cost, last_words, outputs, result, report };
                self.ended(now, attempt, ending, out);
            }
            Input::Saved { attempt, content } => self.save(now, at_ms, attempt, content, out),
            Input::Journaled(records) => self.journaled(now, records, out),
            Input::Add { templates, tasks } => self.add(now, templates, tasks, out),
            Input::Cancel(task) => self.cancel(now, task, out),
            Input::Again(task) => self.again(now, task, out),
            Input::Afresh(task) => {
                self.afresh(task, out);
                self.again(now, task, out);
            }
            Input::Nowhere(why) => self.nowhere(&why, out),
            Input::Time => {
                self.hurry(now, out);
                self.give_back_idle(now, out);
            }
        }
        self.follow(now, at_ms, out);
    }

    /// When [`Input::Time`] is to be told.
    pub fn deadline(&self) -> Option<Tick> {
        let idle = self.idle.first().map(|(since, _)| *since + IDLE);
        let impatient = self.impatient.first().map(|(due, _)| *due);
        idle.into_iter().chain(impatient).min()
    }

    /// Leases worth having beside those there are, by what each holds.
    pub fn wanted(&self) -> Vec<(Needs, u32)> {
        let Some(scheduler) = &self.scheduler else { return Vec::new() };
        let held: u32 = self.workers.values().map(|worker| u32::from(worker.slots)).sum();
        let mut left = self.settings.slots_max.saturating_sub(held);
        let mut wanted = Vec::new();
        for (needs, tasks) in scheduler.demand() {
            let each = u32::from(needs.slots.max(1));
            let count = (left / each).min(u32::try_from(tasks).unwrap_or(u32::MAX));
            if count > 0 {
                left -= count * each;
                wanted.push((needs.clone(), count));
            }
        }
        wanted
    }

    /// Whether the bag is open for more tasks: then it is not over when nothing is left to do.
    pub fn hold(&mut self, held: bool) {
        self.held = held;
    }

    /// What the running has taken in this life of the keeper.
    pub fn run_counts(&self) -> RunCounts {
        self.scheduler.as_ref().map(Scheduler::counts).unwrap_or_default()
    }

    fn append(&mut self, record: Record, out: &mut Vec<Output>) {
        self.appended += 1;
        self.records += 1;
        out.push(Output::Append(Box::new(record)));
    }
}
