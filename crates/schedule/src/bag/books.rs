//! How the floor is kept.

use super::floor::{Floor, Known, Live, Place};
use super::worker::Worker;
use super::{Needs, Task};
use mutirao_wire::BlobHash;

impl Floor {
    /// Enters a task; false if it is there already.
    pub(super) fn add_task(&mut self, task: Task) -> bool {
        let Task { task, needs, priority, votes, inputs } = task;
        if self.tasks.contains_key(&task) {
            return false;
        }
        let (kind, is_new) = self.kinds.enter(needs.normal());
        if is_new {
            let kind = self.kinds.get_mut(kind);
            for (&number, worker) in &self.workers {
                kind.enter(number, worker, self.crowds.get(&worker.site).copied().unwrap_or(0));
            }
        }
        self.tasks.insert(task, Known { kind, priority, votes: votes.max(1), inputs });
        self.file(task);
        true
    }

    /// Strikes a task out; what runs of it is returned.
    pub(super) fn remove_task(&mut self, task: u64) -> Vec<(u64, u64)> {
        self.unfile(task);
        if let Some(known) = self.tasks.remove(&task) {
            self.kinds.drop(known.kind);
        }
        self.live.remove(&task).map(|live| live.attempts).unwrap_or_default()
    }

    pub(super) fn set_votes(&mut self, task: u64, votes: u8) {
        self.unfile(task);
        if let Some(known) = self.tasks.get_mut(&task) {
            known.votes = votes.max(1);
        }
        self.file(task);
    }

    pub(super) fn add_attempt(&mut self, task: u64, attempt: u64, worker: u64) {
        self.change_live(task, |live| live.attempts.push((attempt, worker)));
    }

    /// Strikes an attempt out; with the site of a result that counts.
    pub(super) fn remove_attempt(&mut self, task: u64, attempt: u64, counts_at: Option<u32>) {
        self.change_live(task, |live| {
            live.attempts.retain(|(one, _)| *one != attempt);
            live.counted.extend(counts_at);
        });
    }

    pub(super) fn add_counted(&mut self, task: u64, site: u32) {
        self.change_live(task, |live| {
            if !live.counted.contains(&site) {
                live.counted.push(site);
            }
        });
    }

    fn change_live(&mut self, task: u64, change: impl FnOnce(&mut Live)) {
        if !self.tasks.contains_key(&task) {
            return;
        }
        self.unfile(task);
        let live = self.live.entry(task).or_default();
        change(live);
        if live.attempts.is_empty() && live.counted.is_empty() {
            self.live.remove(&task);
        }
        self.file(task);
    }

    /// Enters a worker where nothing runs.
    pub(super) fn add_worker(&mut self, number: u64, worker: Worker) {
        self.workers.insert(number, worker);
        self.fit(number);
    }

    pub(super) fn remove_worker(&mut self, number: u64) -> Option<Worker> {
        self.unfit(number);
        let worker = self.workers.remove(&number)?;
        self.crowd_changed(worker.site, worker.crowd(), 0);
        Some(worker)
    }

    /// Changes a worker, if it is there.
    pub(super) fn change_worker(&mut self, number: u64, change: impl FnOnce(&mut Worker)) {
        self.unfit(number);
        if let Some(worker) = self.workers.get_mut(&number) {
            let (site, before) = (worker.site, worker.crowd());
            change(worker);
            let after = worker.crowd();
            self.crowd_changed(site, before, after);
        }
        self.fit(number);
    }

    /// How many attempts are at a site.
    fn crowd(&self, site: u32) -> usize {
        self.crowds.get(&site).copied().unwrap_or(0)
    }

    /// There were `before` attempts on one of the site's workers, and are `after`.
    fn crowd_changed(&mut self, site: u32, before: usize, after: usize) {
        let from = self.crowd(site);
        let to = from + after - before;
        if from == to {
            return;
        }
        match to {
            0 => drop(self.crowds.remove(&site)),
            _ => drop(self.crowds.insert(site, to)),
        }
        for kind in self.kinds.iter_mut() {
            kind.fit.move_site(site, from, to);
        }
    }

    fn fit(&mut self, number: u64) {
        let Some(worker) = self.workers.get(&number) else { return };
        let crowd = self.crowd(worker.site);
        for kind in self.kinds.iter_mut() {
            kind.enter(number, worker, crowd);
        }
    }

    fn unfit(&mut self, number: u64) {
        let Some(worker) = self.workers.get(&number) else { return };
        let crowd = self.crowd(worker.site);
        for kind in self.kinds.iter_mut() {
            kind.leave(number, worker, crowd);
        }
    }

    fn file(&mut self, task: u64) {
        let Some(known) = self.tasks.get(&task) else { return };
        let (place, kind) = (self.place(task, known), known.kind);
        let kind = self.kinds.get_mut(kind);
        match place {
            Place::Fresh(turn) => drop(kind.fresh.insert(turn)),
            Place::Begun(turn) => drop(kind.begun.insert(turn)),
            Place::Running(order) => drop(kind.running.insert(order)),
            Place::Nowhere => {}
        }
    }

    fn unfile(&mut self, task: u64) {
        let Some(known) = self.tasks.get(&task) else { return };
        let (place, kind) = (self.place(task, known), known.kind);
        let kind = self.kinds.get_mut(kind);
        match place {
            Place::Fresh(turn) => drop(kind.fresh.remove(&turn)),
            Place::Begun(turn) => drop(kind.begun.remove(&turn)),
            Place::Running(order) => drop(kind.running.remove(&order)),
            Place::Nowhere => {}
        }
    }

    pub(super) fn remove_blob(&mut self, site: u32, blob: &BlobHash) {
        let Some(sites) = self.blobs.get_mut(blob) else { return };
        sites.remove(&site);
        if sites.is_empty() {
            self.blobs.remove(blob);
        }
    }

    pub(super) fn demand(&self) -> impl Iterator<Item = (&Needs, usize)> {
        let waiting = |kind: &super::kinds::Kind| kind.fresh.len() + kind.begun.len();
        self.kinds.iter().map(move |kind| (&*kind.needs, waiting(kind))).filter(|(_, tasks)| *tasks > 0)
    }
}
