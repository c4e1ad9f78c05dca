use super::Needs;
use super::fit::Fit;
use super::worker::Worker;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Orders waiting tasks: the most urgent first, then by number.
pub(super) type Turn = (Reverse<i32>, u64);

/// Tasks that need the same, and the workers that could take one of them now.
#[derive(Debug)]
pub(super) struct Kind {
    pub(super) needs: Arc<Needs>,
    /// Tasks and attempts of this kind.
    uses: u64,
    /// Tasks of which nothing was started, or nothing is left.
    pub(super) fresh: BTreeSet<Turn>,
    /// Tasks that have fewer attempts and votes than they want.
    pub(super) begun: BTreeSet<Turn>,
    /// Tasks of which enough runs: (attempts beyond the wanted, oldest attempt, task).
    pub(super) running: BTreeSet<(usize, u64, u64)>,
    pub(super) fit: Fit,
    /// How many workers at a site could take one if nothing else were there.
    pub(super) could: BTreeMap<u32, usize>,
}

impl Kind {
    /// Takes note of a worker, at whose site so many attempts are.
    pub(super) fn enter(&mut self, number: u64, worker: &Worker, crowd: usize) {
        if let Some(level) = worker.level(&self.needs) {
            self.fit.insert(level, crowd, worker.site, number);
        }
        if worker.could(&self.needs) {
            *self.could.entry(worker.site).or_default() += 1;
        }
    }

    /// Forgets a worker that has not changed since it was entered.
    pub(super) fn leave(&mut self, number: u64, worker: &Worker, crowd: usize) {
        if let Some(level) = worker.level(&self.needs) {
            self.fit.remove(level, crowd, worker.site, number);
        }
        if worker.could(&self.needs) {
            match self.could.get_mut(&worker.site) {
                Some(others) if *others > 1 => *others -= 1,
                _ => drop(self.could.remove(&worker.site)),
            }
        }
    }
}

/// All kinds of tasks there are. There are few in a sound bag: what happens to a worker costs a step for
/// each.
#[derive(Debug, Default)]
pub(super) struct Kinds {
    numbers: BTreeMap<Arc<Needs>, u32>,
    kinds: Vec<Option<Kind>>,
    unused: Vec<u32>,
}

impl Kinds {
    /// The kind of these needs, if any task has them.
    pub(super) fn find(&self, needs: &Needs) -> Option<&Kind> {
        self.kinds.get(*self.numbers.get(needs)? as usize)?.as_ref()
    }

    /// The kind of these needs, used once more. True if it is new.
    pub(super) fn enter(&mut self, needs: Needs) -> (u32, bool) {
        if let Some(&number) = self.numbers.get(&needs) {
            self.keep(number);
            return (number, false);
        }
        let needs = Arc::new(needs);
        let kind = Kind {
            needs: Arc::clone(&needs),
            uses: 1,
            fresh: BTreeSet::new(),
            begun: BTreeSet::new(),
            running: BTreeSet::new(),
            fit: Fit::default(),
            could: BTreeMap::new(),
        };
        let number = self.unused.pop().unwrap_or(self.kinds.len() as u32);
        if number as usize == self.kinds.len() {
            self.kinds.push(None);
        }
        self.kinds[number as usize] = Some(kind);
        self.numbers.insert(needs, number);
        (number, true)
    }

    /// One use more.
    pub(super) fn keep(&mut self, number: u32) {
        self.get_mut(number).uses += 1;
    }

    /// One use less; with the last one the kind is forgotten.
    pub(super) fn drop(&mut self, number: u32) {
        let kind = self.get_mut(number);
        kind.uses -= 1;
        if kind.uses == 0 {
            let needs = Arc::clone(&kind.needs);
            self.numbers.remove(&needs);
            self.kinds[number as usize] = None;
            self.unused.push(number);
        }
    }

    pub(super) fn get(&self, number: u32) -> &Kind {
        self.kinds[number as usize].as_ref().expect("a kind lasts as long as it is used")
    }

    pub(super) fn get_mut(&mut self, number: u32) -> &mut Kind {
        self.kinds[number as usize].as_mut().expect("a kind lasts as long as it is used")
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Kind> {
        self.kinds.iter().flatten()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Kind> {
        self.kinds.iter_mut().flatten()
    }
}
