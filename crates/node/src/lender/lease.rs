//! A lease of this node, as far as its worker is concerned.

use super::served::Served;
use super::template::Key;
use crate::context::Assignment;
use crate::plugins::Program;
use core::time::Duration;
use mutirao_wire::Tick;
use mutirao_wire::worker::{SLOTS_ENV, resource_variable};
use std::collections::VecDeque;

/// Workers in a row that ended before they began a call, within [`STRIKES_WITHIN`]: the lease is given up.
const STRIKES_MAX: usize = 5;
/// See [`STRIKES_MAX`].
const STRIKES_WITHIN: Duration = Duration::from_secs(10);

/// A lease of this node.
#[derive(Debug)]
pub struct Lease {
    /// What the core said of it.
    pub given: Assignment,
    /// When it began.
    pub begun: Tick,
    /// What its worker executes, once that is here.
    pub program: Option<Program>,
    /// Its worker.
    pub worker: Option<u64>,
    /// Its calls, when its home is another node.
    pub served: Option<Served>,
    /// It is over, and why: only its worker is still to go.
    pub ending: Option<String>,
    /// It was given up; its end is on its way.
    pub given_up: bool,
    strikes: VecDeque<Tick>,
}

impl Lease {
    /// A lease that begins now.
    pub fn new(now: Tick, given: Assignment) -> Lease {
        let served = (given.plugin.is_some() && !given.local).then(Served::new);
        Lease {
            given,
            begun: now,
            program: None,
            worker: None,
            served,
            ending: None,
            given_up: false,
            strikes: VecDeque::new(),
        }
    }

    /// The template that its workers come from; `None` for bare slots.
    pub fn key(&self) -> Option<Key> {
        let plugin = self.given.plugin.as_ref()?.id;
        Some(Key {
            plugin,
            app: self.given.app,
            memory_mib: self.given.bundle.memory_mib,
            as_user: self.given.as_user,
        })
    }

    /// What tells its worker, in the environment, what it holds.
    pub fn environment(&self) -> Vec<(String, String)> {
        let slots = (SLOTS_ENV.to_owned(), self.given.slots.to_string());
        let instances = self.given.instances.iter().map(|instances| {
            let numbers: Vec<String> = instances.numbers.iter().map(u32::to_string).collect();
            (resource_variable(&instances.name), numbers.join(","))
        });
        std::iter::once(slots).chain(instances).collect()
    }

    /// Whether a worker is wanted and none is there or on its way.
    pub fn lacks_worker(&self) -> bool {
        self.worker.is_none() && self.program.is_some() && self.ending.is_none() && !self.given_up
    }

    /// A worker ended before it began a call. Whether it is of no use to start another.
    pub fn strike(&mut self, now: Tick) -> bool {
        self.strikes.push_back(now);
        self.strikes.retain(|&when| now - when <= STRIKES_WITHIN);
        self.strikes.len() >= STRIKES_MAX
    }

    /// A worker began a call: they work.
    pub fn forgive(&mut self) {
        self.strikes.clear();
    }

    /// The name of an operation of its plugin.
    pub fn operation_name(&self, operation: u32) -> Option<&str> {
        let operations = &self.program.as_ref()?.manifest.operations;
        operations.get(usize::try_from(operation).ok()?).map(|operation| operation.name.as_str())
    }
}
