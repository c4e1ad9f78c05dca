use super::worker::Worker;
use super::{Change, Counts, Event, Floor, Needs, Order, Outcome, Policy, Task};
use mutirao_wire::Tick;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Keeps a bag's workers busy.
///
/// It holds nothing but the tasks, workers and attempts it was told of, so its tables are as large as the
/// engine lets them be. An event costs about the logarithm of their sizes, times the number of different
/// [`Needs`] among the tasks.
pub struct Scheduler<P: Policy + ?Sized = dyn Policy + Send> {
    policy: Box<P>,
    floor: Floor,
    attempts: BTreeMap<u64, Attempt>,
    next_attempt: u64,
    counts: Counts,
}

#[derive(Debug)]
struct Attempt {
    task: u64,
    worker: u64,
    kind: u32,
    /// None while it waits behind another one.
    since: Option<Tick>,
    fate: Fate,
}

/// What an attempt is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Its result.
    Wanted,
    /// Nothing: another attempt was first. It is being killed.
    Needless,
    /// Nothing: its task was taken away. It is being killed.
    Lost,
}

impl<P: Policy + ?Sized> Scheduler<P> {
    /// Without tasks or workers. Attempts are numbered from `first_attempt`; a number must not be used
    /// twice in the life of a bag.
    pub fn new(policy: Box<P>, first_attempt: u64) -> Scheduler<P> {
        let (floor, attempts) = (Floor::default(), BTreeMap::new());
        Scheduler { policy, floor, attempts, next_attempt: first_attempt, counts: Counts::default() }
    }

    /// Takes one event and appends what is to be killed because of it; [`place`](Scheduler::place) starts.
    /// What names a task, worker or attempt that is not (or no longer) there is passed over.
    pub fn handle(&mut self, now: Tick, event: Event, out: &mut Vec<Order>) {
        match event {
            Event::TaskReady(task) => self.task_ready(task),
            Event::TaskGone(task) => self.task_over(task, Fate::Lost, out),
            Event::Votes { task, votes } => {
                self.floor.set_votes(task, votes);
                self.policy.changed(&self.floor, Change::Task(task));
            }
            Event::Counted { task, site } => {
                self.floor.add_counted(task, site);
                self.policy.changed(&self.floor, Change::Task(task));
            }
            Event::WorkerUp { worker, site, offers, ahead } => {
                if self.floor.site(worker).is_none() {
                    self.floor.add_worker(worker, Worker::new(site, offers.normal(), ahead));
                }
            }
            Event::WorkerAhead { worker, ahead } => {
                self.floor.change_worker(worker, |at| at.set_ahead(ahead))
            }
            Event::WorkerLeaves(worker) => self.floor.change_worker(worker, Worker::leave),
            Event::WorkerDown(worker) => self.worker_down(now, worker),
            Event::Adopted { task, attempt, worker } => {
                self.next_attempt = self.next_attempt.max(attempt + 1);
                if !self.attempts.contains_key(&attempt) {
                    self.begin(now, task, attempt, worker);
                }
            }
            Event::Ended { attempt, outcome, brought_bytes } => {
                self.ended(now, attempt, outcome, brought_bytes, out);
            }
            Event::BlobAt { site, blob } => {
                self.floor.blobs.entry(blob).or_default().insert(site);
                self.policy.changed(&self.floor, Change::Blob { site, blob });
            }
            Event::BlobGone { site, blob } => {
                self.floor.remove_blob(site, &blob);
                self.policy.changed(&self.floor, Change::Blob { site, blob });
            }
        }
    }

    /// Starts all that can be started now. Called when all that has happened so far was told, so that a
    /// burst of events costs one look, and what runs already is known before anything starts.
    pub fn place(&mut self, now: Tick, out: &mut Vec<Order>) {
        while let Some(choice) = self.policy.next(now, &self.floor) {
            let (task, worker) = (choice.task, choice.worker);
            if !self.floor.may(task, worker) {
                debug_assert!(false, "{} chose {choice:?}, which may not be", self.policy.name());
                return;
            }
            let attempt = self.next_attempt;
            self.next_attempt += 1;
            self.counts.attempts += 1;
            self.counts.copies += u64::from(self.floor.has_enough(task));
            self.begin(now, task, attempt, worker);
            out.push(Order::Start { task, attempt, worker });
        }
    }

    /// What it has taken so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The books.
    pub fn floor(&self) -> &Floor {
        &self.floor
    }

    /// Tasks that wait, by what they need: what the engine may ask leases for.
    pub fn demand(&self) -> impl Iterator<Item = (&Needs, usize)> {
        self.floor.demand()
    }

    /// Attempts that have not ended, those to be killed among them.
    pub fn unfinished(&self) -> usize {
        self.attempts.len()
    }

    fn task_ready(&mut self, task: Task) {
        let number = task.task;
        if self.floor.add_task(task) {
            self.policy.changed(&self.floor, Change::Task(number));
        }
    }

    fn task_over(&mut self, task: u64, fate: Fate, out: &mut Vec<Order>) {
        for (attempt, _) in self.floor.remove_task(task) {
            if let Some(attempt) = self.attempts.get_mut(&attempt) {
                attempt.fate = fate;
            }
            out.push(Order::Kill { attempt });
        }
        self.policy.changed(&self.floor, Change::Task(task));
    }

    fn worker_down(&mut self, now: Tick, worker: u64) {
        let Some(gone) = self.floor.remove_worker(worker) else { return };
        for number in gone.attempts() {
            if let Some(attempt) = self.attempts.remove(&number) {
                self.attempt_over(now, number, &attempt, Outcome::Again, 0);
            }
        }
    }

    fn ended(&mut self, now: Tick, number: u64, outcome: Outcome, brought_bytes: u64, out: &mut Vec<Order>) {
        let Some(attempt) = self.attempts.remove(&number) else { return };
        let mut began = Vec::new();
        self.floor.change_worker(attempt.worker, |at| at.end(number, &mut began));
        for one in began {
            if let Some(attempt) = self.attempts.get_mut(&one) {
                attempt.since = Some(now);
            }
        }
        self.attempt_over(now, number, &attempt, outcome, brought_bytes);
        if outcome == Outcome::Done && attempt.fate == Fate::Wanted {
            self.task_over(attempt.task, Fate::Needless, out);
        }
    }

    /// Strikes an attempt out of the books and counts what it took.
    fn attempt_over(&mut self, now: Tick, number: u64, attempt: &Attempt, outcome: Outcome, bytes: u64) {
        let slots = u64::from(self.floor.kinds.get(attempt.kind).needs.slots);
        let slot_us = attempt.since.map_or(0, |since| now.0.saturating_sub(since.0)) * slots;
        self.counts.brought_bytes += bytes;
        match (attempt.fate, outcome) {
            (Fate::Needless, _) => {
                self.counts.copies_slot_us += slot_us;
                self.counts.copies_bytes += bytes;
            }
            (Fate::Wanted, Outcome::Done | Outcome::Counted) => self.counts.useful_slot_us += slot_us,
            (Fate::Wanted, Outcome::Again) | (Fate::Lost, _) => self.counts.lost_slot_us += slot_us,
        }
        self.floor.kinds.drop(attempt.kind);
        if attempt.fate == Fate::Wanted {
            let counts_at = (outcome == Outcome::Counted).then(|| self.floor.site(attempt.worker)).flatten();
            self.floor.remove_attempt(attempt.task, number, counts_at);
            self.policy.changed(&self.floor, Change::Task(attempt.task));
        }
    }

    fn begin(&mut self, now: Tick, task: u64, attempt: u64, worker: u64) {
        let (Some(kind), Some(_)) = (self.floor.kind_of(task), self.floor.site(worker)) else { return };
        self.floor.kinds.keep(kind);
        let needs = Arc::clone(&self.floor.kinds.get(kind).needs);
        let mut runs = false;
        self.floor.change_worker(worker, |at| runs = at.start(attempt, needs));
        let since = runs.then_some(now);
        self.attempts.insert(attempt, Attempt { task, worker, kind, since, fate: Fate::Wanted });
        self.floor.add_attempt(task, attempt, worker);
        self.policy.changed(&self.floor, Change::Task(task));
    }
}
