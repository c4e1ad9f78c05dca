use super::{Change, Choice, Floor, Input, Policy, Stage};
use mutirao_wire::{BlobHash, Tick};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// So many waiting tasks are weighed against what lies where; the others have their turn when these are
/// fewer. It bounds what a blob that many tasks read costs when it comes to a site.
const WINDOW: usize = 4096;

/// Tasks go where most of what they read is already; when none waits, copies of those that run are made
/// where something they read is: first of those with the fewest attempts, then where most of it is
/// (Santos-Neto, Cirne, Brasileiro, Lima 2004).
///
/// A task that reads something which is at a site, but not at that of a free worker, waits for its site as
/// long as no more such tasks wait than workers there could run it: bringing everything elsewhere would hardly be
/// faster. Beyond that, the task that has least there goes elsewhere.
#[derive(Debug)]
pub struct StorageAffinity {
    /// Attempts of a task at once.
    at_once: usize,
    /// What is weighed now.
    weighed: BTreeMap<u64, Weighed>,
    /// How many of these wait.
    waiting: usize,
    /// Waiting tasks beyond the window, in order.
    later: BTreeSet<(Reverse<i32>, u64)>,
    sites: BTreeMap<u32, Site>,
    /// Who reads a blob, of those that are weighed.
    readers: BTreeMap<BlobHash, BTreeSet<u64>>,
    /// Waiting tasks of which nothing is anywhere.
    homeless: BTreeSet<Loss>,
}

/// (priority, bytes of its inputs where most are, number).
type Loss = (Reverse<i32>, u64, u64);

/// A task, and its affinity with each site where that is positive.
#[derive(Debug)]
struct Weighed {
    priority: i32,
    stage: Stage,
    inputs: Option<Arc<[Input]>>,
    /// Bytes of its inputs at a site.
    affinities: BTreeMap<u32, u64>,
}

/// Tasks with affinity to a site.
#[derive(Debug, Default)]
struct Site {
    waiting: BTreeSet<(Reverse<i32>, Reverse<u64>, u64)>,
    running: BTreeSet<(usize, Reverse<u64>, u64)>,
    /// Waiting tasks of whose inputs most is here.
    homed: BTreeSet<Loss>,
}

impl StorageAffinity {
    /// At most so many attempts of a task at once, the first one counted.
    pub fn with_copies(at_once: u32) -> StorageAffinity {
        StorageAffinity {
            at_once: at_once.max(1) as usize,
            weighed: BTreeMap::new(),
            waiting: 0,
            later: BTreeSet::new(),
            sites: BTreeMap::new(),
            readers: BTreeMap::new(),
            homeless: BTreeSet::new(),
        }
    }

    /// Of all waiting tasks and sites with a free worker, the pair with the greatest affinity; if there is
    /// none, or something else is more urgent, the task that has least elsewhere.
    fn first_phase(&self, floor: &Floor, level: u16, free: &[u32]) -> Option<Choice> {
        let near = free.iter().filter_map(|&number| {
            let mut waiting = self.sites.get(&number)?.waiting.iter();
            waiting.find_map(|&order| Some((order, floor.worker_at(number, order.2, level)?)))
        });
        let near = near.min_by_key(|(order, _)| *order);
        let near = near.map(|((priority, _, task), worker)| (priority, Choice { task, worker }));
        let away = |&(priority, bytes, task): &Loss| {
            let worker = free.iter().find_map(|&site| floor.worker_at(site, task, level))?;
            Some(((priority, bytes), Choice { task, worker }))
        };
        let crowded = self.sites.iter().filter_map(|(&number, site)| {
            let too_many = |loss: &&Loss| site.homed.len() > floor.workers_for(loss.2, number);
            site.homed.iter().filter(too_many).find_map(away)
        });
        let far = crowded.chain(self.homeless.iter().find_map(away));
        let far = far.min_by_key(|(loss, _)| *loss).map(|((priority, _), choice)| (priority, choice));
        let best = near.into_iter().chain(far).min_by_key(|(priority, _)| *priority);
        best.map(|(_, choice)| choice)
    }

    /// Of all running tasks and sites with a spare worker where something they read is, the one with the
    /// fewest attempts, then the greatest affinity.
    fn second_phase(&self, floor: &Floor, free: &[u32]) -> Option<Choice> {
        let best = free.iter().filter_map(|&number| {
            let running = self.sites.get(&number)?.running.iter();
            let mut few = running.take_while(|(copies, _, _)| *copies < self.at_once);
            few.find_map(|&order| {
                let worker = floor.worker_at(number, order.2, 0).filter(|&worker| floor.is_spare(worker))?;
                Some((order, Choice { task: order.2, worker }))
            })
        });
        best.min_by_key(|(order, _)| *order).map(|(_, choice)| choice)
    }

    fn enter(&mut self, floor: &Floor, task: u64) {
        let (Some(stage), Some(priority)) = (floor.stage(task), floor.priority(task)) else { return };
        if stage == Stage::Waiting && self.waiting >= WINDOW {
            match self.least_urgent() {
                Some((lowest, _, other)) if lowest > Reverse(priority) => {
                    self.leave(other);
                    self.later.insert((lowest, other));
                }
                _ => {
                    self.later.insert((Reverse(priority), task));
                    return;
                }
            }
        }
        self.waiting += usize::from(stage == Stage::Waiting);
        let inputs = floor.shared_inputs(task);
        let mut affinities = BTreeMap::new();
        for input in inputs.iter().flat_map(|inputs| inputs.iter()) {
            self.readers.entry(input.blob).or_default().insert(task);
            for site in floor.sites_with(&input.blob) {
                *affinities.entry(site).or_insert(0) += input.bytes;
            }
        }
        let weighed = Weighed { priority, stage, inputs, affinities };
        self.index(task, &weighed);
        self.weighed.insert(task, weighed);
    }

    fn leave(&mut self, task: u64) {
        let Some(weighed) = self.weighed.remove(&task) else { return };
        self.unindex(task, &weighed);
        self.waiting -= usize::from(weighed.stage == Stage::Waiting);
        for input in weighed.inputs.iter().flat_map(|inputs| inputs.iter()) {
            if let Some(readers) = self.readers.get_mut(&input.blob) {
                readers.remove(&task);
                if readers.is_empty() {
                    self.readers.remove(&input.blob);
                }
            }
        }
    }

    /// Lets those that wait beyond the window move up.
    fn refill(&mut self, floor: &Floor) {
        while self.waiting < WINDOW {
            let Some((_, task)) = self.later.pop_first() else { return };
            // What is over or was started meanwhile is no longer of interest.
            if floor.stage(task) == Some(Stage::Waiting) && !self.weighed.contains_key(&task) {
                self.enter(floor, task);
            }
        }
    }

    fn least_urgent(&self) -> Option<Loss> {
        let losses = self.sites.values().map(|site| &site.homed).chain([&self.homeless]);
        losses.filter_map(|losses| losses.last().copied()).max()
    }

    fn index(&mut self, task: u64, weighed: &Weighed) {
        let priority = Reverse(weighed.priority);
        for (&number, &bytes) in &weighed.affinities {
            let site = self.sites.entry(number).or_default();
            match weighed.stage {
                Stage::Waiting => drop(site.waiting.insert((priority, Reverse(bytes), task))),
                Stage::Running { copies } => drop(site.running.insert((copies, Reverse(bytes), task))),
                Stage::Settled => {}
            }
        }
        if weighed.stage == Stage::Waiting {
            let (home, bytes) = weighed.home();
            let site = home.and_then(|home| self.sites.get_mut(&home));
            site.map_or(&mut self.homeless, |site| &mut site.homed).insert((priority, bytes, task));
        }
    }

    fn unindex(&mut self, task: u64, weighed: &Weighed) {
        let priority = Reverse(weighed.priority);
        if weighed.stage == Stage::Waiting {
            let (home, bytes) = weighed.home();
            let site = home.and_then(|home| self.sites.get_mut(&home));
            site.map_or(&mut self.homeless, |site| &mut site.homed).remove(&(priority, bytes, task));
        }
        for (&number, &bytes) in &weighed.affinities {
            let Some(site) = self.sites.get_mut(&number) else { continue };
            match weighed.stage {
                Stage::Waiting => drop(site.waiting.remove(&(priority, Reverse(bytes), task))),
                Stage::Running { copies } => drop(site.running.remove(&(copies, Reverse(bytes), task))),
                Stage::Settled => {}
            }
            if site.waiting.is_empty() && site.running.is_empty() {
                self.sites.remove(&number);
            }
        }
    }
}

impl Weighed {
    /// The site where most of its inputs are, and how many bytes.
    fn home(&self) -> (Option<u32>, u64) {
        let most = self.affinities.iter().max_by_key(|(site, bytes)| (**bytes, Reverse(**site)));
        most.map_or((None, 0), |(site, bytes)| (Some(*site), *bytes))
    }
}

impl Policy for StorageAffinity {
    fn name(&self) -> &'static str {
        "storage-affinity"
    }

    fn next(&mut self, _now: Tick, floor: &Floor) -> Option<Choice> {
        let (level, free) = floor.free_sites()?;
        self.first_phase(floor, level, &free).or_else(|| self.second_phase(floor, &free))
    }

    fn changed(&mut self, floor: &Floor, change: Change) {
        match change {
            Change::Task(task) => {
                self.leave(task);
                self.enter(floor, task);
                self.refill(floor);
            }
            Change::Blob { site, blob } => {
                let readers: Vec<u64> = self.readers.get(&blob).into_iter().flatten().copied().collect();
                for task in readers {
                    let Some(mut weighed) = self.weighed.remove(&task) else { continue };
                    self.unindex(task, &weighed);
                    match floor.affinity_bytes(task, site) {
                        0 => weighed.affinities.remove(&site),
                        bytes => weighed.affinities.insert(site, bytes),
                    };
                    self.index(task, &weighed);
                    self.weighed.insert(task, weighed);
                }
            }
        }
    }
}
