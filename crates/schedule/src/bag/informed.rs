//! Policies that are told what no scheduler of a real bag can know. They show in simulations how much a
//! policy without such knowledge gives away.

use super::{Choice, Floor, Policy};
use mutirao_wire::Tick;
use std::cmp::Reverse;

/// Knows the future.
pub trait Oracle {
    /// How large a task is, in any unit.
    fn work(&self, task: u64) -> f64;

    /// Seconds until what runs on a worker is done; 0 if nothing does.
    fn free_s(&self, now: Tick, worker: u64) -> f64;

    /// Seconds from now until a task would be done that begins on a worker in `begin_s` seconds; with what
    /// has to be brought there first, if `with_inputs`.
    fn done_s(
        &self,
        now: Tick,
        floor: &Floor,
        task: u64,
        worker: u64,
        begin_s: f64,
        with_inputs: bool,
    ) -> f64;
}

/// What workers have to do until when, as planned.
struct Plan {
    /// (worker, site, free in seconds, free now).
    workers: Vec<(u64, u32, f64, bool)>,
}

impl Plan {
    /// None if nothing can be started now.
    fn new(now: Tick, floor: &Floor, oracle: &impl Oracle) -> Option<Plan> {
        let workers: Vec<_> = floor
            .workers()
            .map(|(worker, site)| (worker, site, oracle.free_s(now, worker), floor.is_idle(worker)))
            .collect();
        workers.iter().any(|(_, _, _, idle)| *idle).then_some(Plan { workers })
    }
}

/// Dynamic FPLTF: the largest task first, to the worker that would be done with it first, be it busy now or
/// not; planned anew whenever one is free.
#[derive(Debug)]
pub struct Fpltf<O> {
    oracle: O,
}

impl<O: Oracle> Fpltf<O> {
    /// With what it is told.
    pub fn new(oracle: O) -> Fpltf<O> {
        Fpltf { oracle }
    }
}

impl<O: Oracle> Policy for Fpltf<O> {
    fn name(&self) -> &'static str {
        "fpltf"
    }

    fn next(&mut self, now: Tick, floor: &Floor) -> Option<Choice> {
        let mut plan = Plan::new(now, floor, &self.oracle)?;
        let mut tasks: Vec<u64> = floor.waiting().collect();
        tasks.sort_by(|a, b| self.oracle.work(*b).total_cmp(&self.oracle.work(*a)));
        for task in tasks {
            let done = |&(worker, _, free_s, _): &(u64, u32, f64, bool)| {
                self.oracle.done_s(now, floor, task, worker, free_s, false)
            };
            let best = plan.workers.iter_mut().map(|worker| (done(worker), worker));
            let (done_s, best) = best.min_by(|a, b| a.0.total_cmp(&b.0))?;
            if best.3 {
                return Some(Choice { task, worker: best.0 });
            }
            best.2 = done_s;
        }
        None
    }
}

/// Sufferage: the task first that would lose most if it did not get its best worker. XSufferage looks at
/// best sites instead and counts what has to be brought there.
#[derive(Debug)]
pub struct Sufferage<O> {
    oracle: O,
    by_site: bool,
}

impl<O: Oracle> Sufferage<O> {
    /// Sufferage.
    pub fn new(oracle: O) -> Sufferage<O> {
        Sufferage { oracle, by_site: false }
    }

    /// XSufferage.
    pub fn by_site(oracle: O) -> Sufferage<O> {
        Sufferage { oracle, by_site: true }
    }

    /// Where a task would be done first, and when there and at the best other place.
    fn options(&self, now: Tick, floor: &Floor, plan: &Plan, task: u64) -> Options {
        let mut found = Options { best: 0, other: 0, best_s: f64::INFINITY, other_s: f64::INFINITY };
        let place = |at: usize| match self.by_site {
            true => u64::from(plan.workers[at].1),
            false => plan.workers[at].0,
        };
        for (at, &(worker, _, free_s, _)) in plan.workers.iter().enumerate() {
            let done_s = self.oracle.done_s(now, floor, task, worker, free_s, self.by_site);
            if done_s < found.best_s {
                if found.best_s.is_finite() && place(at) != place(found.best) {
                    (found.other, found.other_s) = (found.best, found.best_s);
                }
                (found.best, found.best_s) = (at, done_s);
            } else if done_s < found.other_s && place(at) != place(found.best) {
                (found.other, found.other_s) = (at, done_s);
            }
        }
        found
    }
}

/// Indices of workers in the plan, and when they would be done with a task.
#[derive(Clone, Copy)]
struct Options {
    best: usize,
    other: usize,
    best_s: f64,
    other_s: f64,
}

impl<O: Oracle> Policy for Sufferage<O> {
    fn name(&self) -> &'static str {
        if self.by_site { "xsufferage" } else { "sufferage" }
    }

    fn next(&mut self, now: Tick, floor: &Floor) -> Option<Choice> {
        let mut plan = Plan::new(now, floor, &self.oracle)?;
        let options = |plan: &Plan, task| self.options(now, floor, plan, task);
        let mut tasks: Vec<(u64, Options)> =
            floor.waiting().map(|task| (task, options(&plan, task))).collect();
        while !tasks.is_empty() {
            let suffers = |options: &Options| options.other_s - options.best_s;
            let most = (0..tasks.len())
                .max_by(|&a, &b| {
                    suffers(&tasks[a].1).total_cmp(&suffers(&tasks[b].1)).then(Reverse(a).cmp(&Reverse(b)))
                })
                .unwrap_or(0);
            let (task, Options { best, best_s, .. }) = tasks.swap_remove(most);
            let worker = &mut plan.workers[best];
            if worker.3 {
                return Some(Choice { task, worker: worker.0 });
            }
            // A worker only ever becomes free later: whoever had not thought of it need not think again.
            worker.2 = best_s;
            for (task, old) in &mut tasks {
                if old.best == best || old.other == best {
                    *old = options(&plan, *task);
                }
            }
        }
        None
    }
}
