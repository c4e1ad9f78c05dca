//! Short tasks wait at their worker for the one before: many share the way there and back, and the wait for the disk.
//! Where one turns out to be long, those behind it go elsewhere.

use super::{Bag, Output};
use mutirao_schedule::Mean;
use mutirao_schedule::bag::Event;
use mutirao_wire::Tick;
use std::collections::VecDeque;
use std::time::Duration;

/// For so long a worker has enough to do with the tasks that wait there.
const BUSY_US: f64 = 20_000.0;
/// Most tasks that wait at a worker.
const AHEAD_MAX: f64 = 256.0;
/// How much of what was measured stays when the next bunch comes.
const MEMORY: f64 = 7.0 / 8.0;
/// Behind a task that runs longer, none waits.
const PATIENCE: Duration = Duration::from_millis(50);

/// How fast a worker gets on.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Attempts there, in the order in which they run.
    queue: VecDeque<u64>,
    /// Since when the first of them has run, as far as can be told.
    since: Tick,
    /// What a task takes, the latest counting most.
    mean: Mean,
    ahead: u16,
}

impl Pace {
    fn began(&mut self, now: Tick, attempt: u64) {
        if self.queue.is_empty() {
            self.since = now;
        }
        self.queue.push_back(attempt);
    }

    /// An attempt is over; one that is `done` tells how long a task takes.
    fn ended(&mut self, now: Tick, attempt: u64, done: bool) {
        let Some(at) = self.queue.iter().position(|one| *one == attempt) else { return };
        self.queue.remove(at);
        let took_us = now.0.saturating_sub(self.since.0);
        if at == 0 {
            self.since = now;
        }
        if done {
            self.mean.note(took_us as f64, 1.0, MEMORY);
        }
    }

    /// When it is looked whether those behind wait for too long.
    fn patience_ends(&self) -> Option<Tick> {
        (self.queue.len() > 1).then(|| self.since + PATIENCE)
    }

    /// Those behind the first, which runs for longer than was thought.
    fn give_up(&mut self) -> Vec<u64> {
        self.mean = Mean::default();
        self.queue.drain(1..).collect()
    }

    /// How many tasks may wait there.
    fn ahead(&self) -> u16 {
        let Some(mean_us) = self.mean.time_us() else { return 0 };
        // One that just fits would be sent in time all the same.
        let ahead = (BUSY_US / mean_us).min(AHEAD_MAX) as u16;
        if ahead < 2 { 0 } else { ahead }
    }
}

impl Bag {
    /// An attempt began at a worker.
    pub(super) fn pace_began(&mut self, now: Tick, worker: u64, attempt: u64) {
        self.pace(worker, |pace| pace.began(now, attempt));
    }

    /// An attempt is over there.
    pub(super) fn pace_ended(&mut self, now: Tick, worker: u64, attempt: u64, done: bool) {
        self.pace(worker, |pace| pace.ended(now, attempt, done));
        self.set_ahead(now, worker);
    }

    /// Ends those attempts, which have not begun, that wait too long behind another; their tasks run elsewhere.
    pub(super) fn hurry(&mut self, now: Tick, out: &mut Vec<Output>) {
        while let Some((_, worker)) = self.impatient.first().copied().filter(|(due, _)| *due <= now) {
            let mut behind = Vec::new();
            self.pace(worker, |pace| behind = pace.give_up());
            self.set_ahead(now, worker);
            out.extend(behind.into_iter().map(|attempt| Output::Kill { attempt }));
        }
    }

    fn pace(&mut self, worker: u64, change: impl FnOnce(&mut Pace)) {
        let Some(entry) = self.workers.get_mut(&worker) else { return };
        let before = entry.pace.patience_ends();
        change(&mut entry.pace);
        let after = entry.pace.patience_ends();
        if before != after {
            before.map(|due| self.impatient.remove(&(due, worker)));
            after.map(|due| self.impatient.insert((due, worker)));
        }
    }

    fn set_ahead(&mut self, now: Tick, worker: u64) {
        // Results that are compared come from several nodes: none is to take many tasks for itself.
        if self.judge.is_some() {
            return;
        }
        let Some(entry) = self.workers.get_mut(&worker) else { return };
        let ahead = entry.pace.ahead();
        if std::mem::replace(&mut entry.pace.ahead, ahead) != ahead {
            self.tell(now, Event::WorkerAhead { worker, ahead });
        }
    }
}
