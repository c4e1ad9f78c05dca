use super::kinds::{Kind, Kinds, Turn};
use super::worker::Worker;
use super::{Choice, Input, Needs};
use mutirao_wire::BlobHash;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// So many tasks that may not run on a free worker are looked past, for others to have their turn.
const LOOK: usize = 1024;

/// What waits, what runs, what is free and what lies where: the books of a scheduler, as policies see them.
#[derive(Debug, Default)]
pub struct Floor {
    pub(super) kinds: Kinds,
    pub(super) tasks: BTreeMap<u64, Known>,
    /// Only tasks with an attempt or a vote.
    pub(super) live: BTreeMap<u64, Live>,
    pub(super) workers: BTreeMap<u64, Worker>,
    /// Attempts at a site, of those where there are any.
    pub(super) crowds: BTreeMap<u32, usize>,
    /// At which sites a blob is.
    pub(super) blobs: BTreeMap<BlobHash, BTreeSet<u32>>,
}

/// A task that is not over. A million of them may wait: it is kept small.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) kind: u32,
    pub(super) priority: i32,
    pub(super) votes: u8,
    pub(super) inputs: Option<Arc<[Input]>>,
}

#[derive(Debug, Default)]
pub(super) struct Live {
    /// (attempt, worker), oldest first; none that is to be killed.
    pub(super) attempts: Vec<(u64, u64)>,
    /// Sites of results that count.
    pub(super) counted: Vec<u32>,
}

/// Where a task is in the books.
pub(super) enum Place {
    Fresh(Turn),
    Begun(Turn),
    Running((usize, u64, u64)),
    /// Its votes are in; the engine decides.
    Nowhere,
}

/// How far a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// It waits: fewer attempts run, or have brought results that count, than it wants results.
    Waiting,
    /// Enough attempts run.
    Running {
        /// Attempts at once, those not counted that are there for further votes.
        copies: usize,
    },
    /// Its votes are in; the engine decides.
    Settled,
}

impl Floor {
    /// Whether `task` may be started on `worker`: it is not over, there is room, and no attempt of it runs
    /// there, nor (if several votes are wanted) did or does one run at that site.
    pub fn may(&self, task: u64, worker: u64) -> bool {
        let (Some(known), Some(at)) = (self.tasks.get(&task), self.workers.get(&worker)) else {
            return false;
        };
        at.level(&self.kinds.get(known.kind).needs).is_some() && !self.bars(task, worker, at.site)
    }

    /// The first waiting task, by priority and number, for which a worker has room. Workers where it would
    /// run at once come before those where it would wait.
    pub fn first_in_turn(&self) -> Option<Choice> {
        let first = self.kinds.iter().filter_map(|kind| self.first_of(kind)).min_by_key(|(order, _)| *order);
        first.map(|(_, choice)| choice)
    }

    fn first_of(&self, kind: &Kind) -> Option<((u16, Turn), Choice)> {
        kind.fit.level()?;
        let mut turns = kind.begun.iter().take(LOOK).chain(&kind.fresh);
        turns.find_map(|&turn| {
            let task = turn.1;
            let (level, _, worker) =
                kind.fit.iter().find(|(_, site, worker)| !self.bars(task, *worker, *site))?;
            Some(((level, turn), Choice { task, worker }))
        })
    }

    /// Of the tasks with fewer than `at_once` attempts, the one with the fewest, then the one that has run
    /// longest, for which a worker is free that no waiting task could use.
    pub fn least_copied(&self, at_once: usize) -> Option<Choice> {
        let of_kind = |kind: &Kind| {
            kind.fit.level()?;
            let few = kind.running.iter().take_while(|(copies, _, _)| *copies < at_once);
            few.take(LOOK).find_map(|&order| {
                let task = order.2;
                Some((order, Choice { task, worker: self.spare_for(kind, task)? }))
            })
        };
        self.kinds.iter().filter_map(of_kind).min_by_key(|(order, _)| *order).map(|(_, choice)| choice)
    }

    fn spare_for(&self, kind: &Kind, task: u64) -> Option<u64> {
        let mut free = kind.fit.iter().take_while(|(level, _, _)| *level == 0);
        let spare = free.find(|(_, site, worker)| !self.bars(task, *worker, *site) && self.is_spare(*worker));
        spare.map(|(_, _, worker)| worker)
    }

    /// Whether no waiting task could ever use this worker.
    pub fn is_spare(&self, worker: u64) -> bool {
        let Some(at) = self.workers.get(&worker) else { return false };
        !self.kinds.iter().any(|kind| !kind.fresh.is_empty() && at.could(&kind.needs))
    }

    /// Whether a worker could run a task that needs so much, were nothing else there.
    pub fn is_served(&self, needs: &Needs) -> bool {
        self.kinds.find(needs).is_some_and(|kind| !kind.could.is_empty())
    }

    /// Sites at which none of the waiting tasks that need so much may be started, whatever is free there: each of them
    /// has run there, or runs.
    pub fn barred_sites(&self, needs: &Needs) -> Vec<u32> {
        let Some(kind) = self.kinds.find(needs).filter(|kind| kind.fresh.is_empty()) else {
            return Vec::new();
        };
        let mut begun = kind.begun.iter().map(|turn| turn.1);
        let Some(first) = begun.next() else { return Vec::new() };
        let mut sites = self.sites_of(first);
        while let Some(task) = begun.next().filter(|_| !sites.is_empty()) {
            let theirs = self.sites_of(task);
            sites.retain(|site| theirs.contains(site));
        }
        sites.into_iter().collect()
    }

    /// Where a task may not be started again.
    fn sites_of(&self, task: u64) -> BTreeSet<u32> {
        let Some(live) = self.live.get(&task) else { return BTreeSet::new() };
        let apart = self.tasks.get(&task).is_some_and(|known| known.votes > 1);
        let runs = live.attempts.iter().filter(|_| apart).filter_map(|(_, worker)| self.site(*worker));
        live.counted.iter().copied().chain(runs).collect()
    }

    /// Whether what ran or runs of a task stands against another attempt there.
    fn bars(&self, task: u64, worker: u64, site: u32) -> bool {
        let Some(live) = self.live.get(&task) else { return false };
        let apart = self.tasks.get(&task).is_some_and(|known| known.votes > 1);
        live.counted.contains(&site)
            || live.attempts.iter().any(|&(_, at)| at == worker || apart && self.site(at) == Some(site))
    }

    /// What a task reads.
    pub fn inputs(&self, task: u64) -> &[Input] {
        self.tasks.get(&task).and_then(|known| known.inputs.as_deref()).unwrap_or_default()
    }

    /// Whether a blob is at a site.
    pub fn has_blob(&self, site: u32, blob: &BlobHash) -> bool {
        self.blobs.get(blob).is_some_and(|sites| sites.contains(&site))
    }

    /// The sites where a blob is.
    pub fn sites_with(&self, blob: &BlobHash) -> impl Iterator<Item = u32> {
        self.blobs.get(blob).into_iter().flatten().copied()
    }

    /// The affinity of a task with a site: bytes of its inputs that are there.
    pub fn affinity_bytes(&self, task: u64, site: u32) -> u64 {
        let there = self.inputs(task).iter().filter(|input| self.has_blob(site, &input.blob));
        there.map(|input| input.bytes).sum()
    }

    /// How far a task is; `None` if it is over.
    pub fn stage(&self, task: u64) -> Option<Stage> {
        Some(match self.place(task, self.tasks.get(&task)?) {
            Place::Fresh(_) | Place::Begun(_) => Stage::Waiting,
            Place::Running((copies, _, _)) => Stage::Running { copies },
            Place::Nowhere => Stage::Settled,
        })
    }

    /// How urgent a task is.
    pub fn priority(&self, task: u64) -> Option<i32> {
        self.tasks.get(&task).map(|known| known.priority)
    }

    /// All tasks that wait.
    pub fn waiting(&self) -> impl Iterator<Item = u64> {
        self.kinds.iter().flat_map(|kind| kind.begun.iter().chain(&kind.fresh).map(|turn| turn.1))
    }

    /// How many workers at a site could run a task of which nothing has run yet, were nothing else there.
    pub fn workers_for(&self, task: u64, site: u32) -> usize {
        let kind = self.kind_of(task).filter(|_| !self.live.contains_key(&task));
        kind.and_then(|kind| self.kinds.get(kind).could.get(&site).copied()).unwrap_or(0)
    }

    /// All workers and their sites.
    pub fn workers(&self) -> impl Iterator<Item = (u64, u32)> {
        self.workers.iter().map(|(number, worker)| (*number, worker.site))
    }

    /// Whether nothing runs on a worker that something may be started on.
    pub fn is_idle(&self, worker: u64) -> bool {
        self.workers.get(&worker).is_some_and(Worker::is_idle)
    }

    /// Sites where something could be started, those with the fewest attempts first, and how many attempts
    /// it would wait behind: the fewest anywhere.
    pub fn free_sites(&self) -> Option<(u16, Vec<u32>)> {
        let level = self.kinds.iter().filter_map(|kind| kind.fit.level()).min()?;
        let sites: BTreeSet<_> = self.kinds.iter().flat_map(|kind| kind.fit.sites(level)).collect();
        Some((level, sites.into_iter().map(|(_, site)| site).collect()))
    }

    /// A worker at a site where `task` may be started behind so many attempts.
    pub fn worker_at(&self, site: u32, task: u64, level: u16) -> Option<u64> {
        let fit = &self.kinds.get(self.kind_of(task)?).fit;
        fit.at(level, site).find(|worker| !self.bars(task, *worker, site))
    }

    pub(super) fn shared_inputs(&self, task: u64) -> Option<Arc<[Input]>> {
        self.tasks.get(&task).and_then(|known| known.inputs.clone())
    }

    pub(super) fn kind_of(&self, task: u64) -> Option<u32> {
        self.tasks.get(&task).map(|known| known.kind)
    }

    /// Whether as many attempts of a task run as it wants results: another one would be a copy.
    pub(super) fn has_enough(&self, task: u64) -> bool {
        matches!(self.stage(task), Some(Stage::Running { .. }))
    }

    /// Where a worker is.
    pub fn site(&self, worker: u64) -> Option<u32> {
        self.workers.get(&worker).map(|worker| worker.site)
    }

    pub(super) fn place(&self, task: u64, known: &Known) -> Place {
        let turn = (Reverse(known.priority), task);
        let Some(live) = self.live.get(&task) else { return Place::Fresh(turn) };
        let wanted = usize::from(known.votes).saturating_sub(live.counted.len());
        match live.attempts.first() {
            _ if live.attempts.len() < wanted => Place::Begun(turn),
            Some(&(oldest, _)) => Place::Running((live.attempts.len() - wanted.max(1) + 1, oldest, task)),
            None => Place::Nowhere,
        }
    }
}
