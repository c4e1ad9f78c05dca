use super::link::Link;
use super::oracle::{Doing, World, seconds};
use mutirao_schedule::bag::{Counts, Event, Needs, Order, Outcome, Policy, Scheduler, Task};
use mutirao_wire::{BlobHash, Tick};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

/// One run of a bag.
pub(super) struct Run<P: Policy + ?Sized> {
    world: World,
    scheduler: Scheduler<P>,
    now: Tick,
    links: Vec<Link>,
    attempts: BTreeMap<u64, Attempt>,
    queue: BinaryHeap<Reverse<(Tick, u64, Next)>>,
    /// Numbers what is in the queue, so that equal times keep an order.
    serial: u64,
    /// The serial of the newest look at a link; older ones are void.
    looks: Vec<u64>,
    orders: Vec<Order>,
    done: BTreeSet<u64>,
    useful_work: f64,
    wasted_work: f64,
}

#[derive(Debug)]
struct Attempt {
    task: u64,
    machine: usize,
    /// Inputs on their way.
    missing: usize,
    brought_bytes: u64,
    /// When it began to compute.
    began_s: Option<f64>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Next {
    Computed(u64),
    Arrived(u32),
}

/// What a run came to.
pub(super) struct Outcomes {
    pub(super) makespan_s: f64,
    pub(super) counts: Counts,
    pub(super) useful_work: f64,
    pub(super) wasted_work: f64,
    /// What lies where afterwards.
    pub(super) blobs: BTreeSet<(u32, BlobHash)>,
}

impl<P: Policy + ?Sized> Run<P> {
    /// Begins at `now` with `blobs` at the sites.
    pub(super) fn new(world: World, policy: Box<P>, now: Tick, blobs: &BTreeSet<(u32, BlobHash)>) -> Run<P> {
        let links: Vec<Link> = world.grid.links.iter().map(|bytes_s| Link::new(*bytes_s)).collect();
        let mut run = Run {
            scheduler: Scheduler::new(policy, 0),
            now,
            looks: vec![0; links.len()],
            links,
            attempts: BTreeMap::new(),
            queue: BinaryHeap::new(),
            serial: 0,
            orders: Vec::new(),
            done: BTreeSet::new(),
            useful_work: 0.0,
            wasted_work: 0.0,
            world,
        };
        for (worker, machine) in run.world.grid.machines.iter().enumerate() {
            let up = Event::WorkerUp {
                worker: worker as u64,
                site: machine.site,
                offers: Needs::default(),
                ahead: 0,
            };
            run.scheduler.handle(now, up, &mut run.orders);
        }
        for &(site, blob) in blobs {
            run.scheduler.handle(now, Event::BlobAt { site, blob }, &mut run.orders);
        }
        for (task, work) in run.world.tasks.iter().enumerate() {
            let inputs = (!work.inputs.is_empty()).then(|| work.inputs.clone());
            let task = Task { inputs, ..Task::new(task as u64) };
            run.scheduler.handle(now, Event::TaskReady(task), &mut run.orders);
        }
        run
    }

    /// Runs until all tasks are done; `Err` says what should not have happened.
    pub(super) fn finish(mut self, mut blobs: BTreeSet<(u32, BlobHash)>) -> Result<Outcomes, String> {
        let begin_s = seconds(self.now);
        self.place();
        while self.done.len() < self.world.tasks.len() {
            let Some(Reverse((at, serial, next))) = self.queue.pop() else {
                return Err(format!("{} tasks were never run", self.world.tasks.len() - self.done.len()));
            };
            self.now = at;
            match next {
                Next::Computed(attempt) => self.computed(attempt)?,
                Next::Arrived(site) if self.looks[site as usize] == serial => self.arrived(site, &mut blobs),
                Next::Arrived(_) => continue,
            }
            self.place();
        }
        let (makespan_s, counts) = (seconds(self.now) - begin_s, self.scheduler.counts());
        let Run { useful_work, wasted_work, .. } = self;
        Ok(Outcomes { makespan_s, counts, useful_work, wasted_work, blobs })
    }

    fn place(&mut self) {
        self.scheduler.place(self.now, &mut self.orders);
        let mut at = 0;
        while let Some(&order) = self.orders.get(at) {
            match order {
                Order::Start { task, attempt, worker } => self.start(task, attempt, worker as usize),
                Order::Kill { attempt } => {
                    self.kill(attempt);
                    self.scheduler.place(self.now, &mut self.orders);
                }
            }
            at += 1;
        }
        self.orders.clear();
    }

    fn start(&mut self, task: u64, number: u64, machine: usize) {
        let site = self.world.grid.machines[machine].site;
        let floor = self.scheduler.floor();
        let inputs = self.world.tasks[task as usize].inputs.clone();
        let missing: Vec<_> = inputs.iter().filter(|input| !floor.has_blob(site, &input.blob)).collect();
        let attempt = Attempt { task, machine, missing: missing.len(), brought_bytes: 0, began_s: None };
        self.attempts.insert(number, attempt);
        let now_s = seconds(self.now);
        for input in &missing {
            self.links[site as usize].bring(now_s, input.blob, input.bytes, number);
        }
        if missing.is_empty() {
            self.compute(number);
            return;
        }
        self.look(site);
        // Until it computes, the best guess.
        let bytes: u64 = missing.iter().map(|input| input.bytes).sum();
        let begin_s = now_s + bytes as f64 / self.world.grid.links[site as usize];
        self.expect(task, machine, begin_s);
    }

    /// Says what a machine does now and when it will be done.
    fn expect(&mut self, task: u64, machine: usize, begin_s: f64) -> f64 {
        let work = self.world.tasks[task as usize].size;
        let done_s = self.world.grid.machines[machine].done_s(begin_s, work);
        self.world.doing.borrow_mut()[machine] = Some(Doing { work, begin_s, done_s });
        done_s
    }

    fn compute(&mut self, number: u64) {
        let now_s = seconds(self.now);
        let Some(attempt) = self.attempts.get_mut(&number) else { return };
        attempt.began_s = Some(now_s);
        let (task, machine) = (attempt.task, attempt.machine);
        let done_s = self.expect(task, machine, now_s);
        self.enqueue(done_s, Next::Computed(number));
    }

    fn computed(&mut self, number: u64) -> Result<(), String> {
        // One that was killed is not there any more.
        let Some(attempt) = self.attempts.remove(&number) else { return Ok(()) };
        if !self.done.insert(attempt.task) {
            return Err(format!("task {} was committed twice", attempt.task));
        }
        self.useful_work += self.world.tasks[attempt.task as usize].size;
        self.world.doing.borrow_mut()[attempt.machine] = None;
        self.ended(number, Outcome::Done, attempt.brought_bytes);
        Ok(())
    }

    fn kill(&mut self, number: u64) {
        let Some(attempt) = self.attempts.remove(&number) else { return };
        let now_s = seconds(self.now);
        let machine = &self.world.grid.machines[attempt.machine];
        let mut brought_bytes = attempt.brought_bytes;
        match attempt.began_s {
            Some(began_s) => self.wasted_work += machine.work_between(began_s, now_s),
            None => {
                brought_bytes += self.links[machine.site as usize].forget(now_s, number);
                self.look(machine.site);
            }
        }
        self.world.doing.borrow_mut()[attempt.machine] = None;
        self.ended(number, Outcome::Again, brought_bytes);
    }

    fn ended(&mut self, attempt: u64, outcome: Outcome, brought_bytes: u64) {
        let ended = Event::Ended { attempt, outcome, brought_bytes };
        self.scheduler.handle(self.now, ended, &mut self.orders);
    }

    fn arrived(&mut self, site: u32, blobs: &mut BTreeSet<(u32, BlobHash)>) {
        for transfer in self.links[site as usize].arrived(seconds(self.now)) {
            blobs.insert((site, transfer.blob));
            let there = Event::BlobAt { site, blob: transfer.blob };
            self.scheduler.handle(self.now, there, &mut self.orders);
            for (place, number) in transfer.attempts.iter().enumerate() {
                let Some(attempt) = self.attempts.get_mut(number) else { continue };
                attempt.brought_bytes += if place == 0 { transfer.brought() } else { 0 };
                attempt.missing -= 1;
                if attempt.missing == 0 {
                    self.compute(*number);
                }
            }
        }
        self.look(site);
    }

    /// Comes back to a link when its next blob has come.
    fn look(&mut self, site: u32) {
        if let Some(next_s) = self.links[site as usize].next_s() {
            self.enqueue(next_s, Next::Arrived(site));
            self.looks[site as usize] = self.serial;
        }
    }

    fn enqueue(&mut self, at_s: f64, next: Next) {
        self.serial += 1;
        let at = Tick((at_s * 1e6).ceil() as u64).max(self.now);
        self.queue.push(Reverse((at, self.serial, next)));
    }
}
