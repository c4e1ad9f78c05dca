//! Programs that come and go at random, and how three allocators serve them: this project's nodes, one
//! server that knows everything, and probes of random nodes. All see the same requests at the same times.

mod central;
mod probing;

use crate::programs::want;
use crate::random::Random;
use crate::trial::Trial;
use crate::world::World;
use core::time::Duration;
use mutirao_tree::Input;
use mutirao_wire::node::Want;
use mutirao_wire::wait::Wait;
use mutirao_wire::{AppId, RequestId, Tick};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

/// How closely answers of nodes are looked for; their times are exact.
const LOOK: Duration = Duration::from_millis(1);

/// How many times as long as slots are held on average a pool fills before requests count.
const FILLING: u32 = 4;

/// The requests to a pool.
#[derive(Debug, Clone)]
pub struct Traffic {
    /// Slots in use on average, per cent of all, if every request is served.
    pub load_percent: u32,
    /// Slots of each request: all or none.
    pub each: u32,
    /// How long they are held on average; drawn exponentially.
    pub hold: Duration,
    /// How long a request waits at most.
    pub patience: Duration,
    /// Requests that count. Those before, while the pool fills for four times `hold`, do not.
    pub requests: usize,
}

/// Who serves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Allocator {
    /// The nodes of this project.
    Tree,
    /// One server with a queue, first come first served, that takes this long for each request.
    Central(Duration),
    /// So many probes a slot to random nodes, which queue them; a node that has a slot free asks the
    /// program whether it is still wanted (late binding).
    Probing(u32),
}

/// How requests fared.
#[derive(Debug, Clone)]
pub struct Served {
    /// Requests that count.
    pub asked: usize,
    /// How long those took that were served, sorted.
    pub times: Vec<Duration>,
    /// Messages for each request, those that give slots back included.
    pub messages: f64,
}

impl Served {
    /// The time that `part` (0 to 1) of those served did not exceed.
    pub fn quantile(&self, part: f64) -> Option<Duration> {
        let last = self.times.len().checked_sub(1)?;
        self.times.get((last as f64 * part).round() as usize).copied()
    }

    /// The part of the requests that were served within their patience.
    pub fn success(&self) -> f64 {
        self.times.len() as f64 / self.asked.max(1) as f64
    }
}

/// One request.
#[derive(Debug, Clone, Copy)]
struct Arrival {
    at: Duration,
    home: usize,
    hold: Duration,
}

/// What is common to the simulated allocators that are not ours.
struct Setting<'a> {
    nodes: usize,
    slots: u16,
    latency: (Duration, Duration),
    seed: u64,
    traffic: &'a Traffic,
    arrivals: &'a [Arrival],
}

impl Setting<'_> {
    fn latency(&self, random: &mut Random) -> Duration {
        random.between(self.latency.0, self.latency.1)
    }

    /// Whether a request counts.
    fn counts(&self, request: usize) -> bool {
        self.arrivals[request].at >= self.traffic.hold * FILLING
    }
}

impl Traffic {
    fn arrivals(&self, trial: &Trial) -> Vec<Arrival> {
        let mut random = Random::new(trial.seed ^ 0x7af1c);
        let slots = trial.parents.len() as f64 * f64::from(trial.slots);
        let in_use = slots * f64::from(self.load_percent) / 100.0;
        let pause = self.hold.mul_f64(f64::from(self.each) / in_use.max(f64::MIN_POSITIVE));
        let mut at = Duration::ZERO;
        let mut draw = |mean: Duration| {
            let part = (random.draw() >> 11) as f64 / (1u64 << 53) as f64;
            mean.mul_f64(-(1.0 - part).ln())
        };
        let mut times = Vec::new();
        let mut counted = 0;
        while counted < self.requests {
            at += draw(pause);
            times.push((at, draw(self.hold)));
            counted += usize::from(at >= self.hold * FILLING);
        }
        times
            .into_iter()
            .map(|(at, hold)| Arrival { at, home: random.below(trial.parents.len()), hold })
            .collect()
    }

    /// Lets an allocator serve the requests in a pool like `trial`.
    ///
    /// # Errors
    /// If the pool does not form.
    pub fn serve(&self, trial: &Trial, allocator: Allocator) -> Result<Served, String> {
        let arrivals = self.arrivals(trial);
        let setting = Setting {
            nodes: trial.parents.len(),
            slots: trial.slots,
            latency: trial.latency,
            seed: trial.seed,
            traffic: self,
            arrivals: &arrivals,
        };
        let (mut times, messages) = match allocator {
            Allocator::Tree => self.serve_by_tree(trial, &setting)?,
            Allocator::Central(service) => central::serve(&setting, service),
            Allocator::Probing(probes) => probing::serve(&setting, probes),
        };
        times.sort_unstable();
        let messages = messages as f64 / arrivals.len().max(1) as f64;
        Ok(Served { asked: self.requests, times, messages })
    }

    fn serve_by_tree(&self, trial: &Trial, setting: &Setting<'_>) -> Result<(Vec<Duration>, u64), String> {
        let (mut world, _) = trial.form()?;
        world.sent.clear();
        let began = world.now();
        let mut coming: VecDeque<(usize, Arrival)> = setting.arrivals.iter().copied().enumerate().collect();
        let mut open: Vec<(usize, Arrival, RequestId, Tick)> = Vec::new();
        let mut held: BinaryHeap<Reverse<(Tick, usize, AppId)>> = BinaryHeap::new();
        let mut times = Vec::new();
        while !coming.is_empty() || !open.is_empty() {
            let mut next = world.now() + LOOK;
            next = coming.front().map_or(next, |(_, arrival)| next.min(began + arrival.at));
            next = held.peek().map_or(next, |Reverse((at, _, _))| next.min(*at));
            world.run(next - world.now());
            while coming.front().is_some_and(|(_, arrival)| began + arrival.at <= world.now()) {
                let Some((number, arrival)) = coming.pop_front() else { break };
                let request = self.ask(&mut world, arrival.home);
                open.push((number, arrival, request, world.now()));
            }
            open.retain(|(number, arrival, request, asked)| {
                let app = &world.nodes[arrival.home].apps[&request.app];
                let Some((at, grants, _)) = app.found.get(request) else { return true };
                let served = grants.len() as u32 >= self.each;
                if served && setting.counts(*number) {
                    times.push(*at - *asked);
                }
                let until = if served { *at + arrival.hold } else { *at };
                held.push(Reverse((until, arrival.home, request.app)));
                false
            });
            while held.peek().is_some_and(|Reverse((at, _, _))| *at <= world.now()) {
                let Some(Reverse((_, home, app))) = held.pop() else { break };
                world.close(home, app);
            }
        }
        while let Some(Reverse((_, home, app))) = held.pop() {
            world.close(home, app);
        }
        world.run(Duration::from_millis(100));
        Ok((times, world.sent.messages()))
    }

    fn ask(&self, world: &mut World, home: usize) -> RequestId {
        let app = world.open(home);
        let asker = world.asker(home, app, None);
        let request = RequestId { app, sequence: 1, attempt: 0 };
        let wait = Wait { priority: 0, patience_ms: Some(self.patience.as_millis() as u64) };
        world.input(
            home,
            Input::Request {
                request,
                want: Want { count: self.each, ..want() },
                at_least: self.each,
                asker,
                budget: mutirao_wire::limits::SEARCH,
                wait: Some((wait, world.now().0 / 1000)),
            },
        );
        request
    }
}
