use super::Needs;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// One lease: what runs there and what waits behind.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) site: u32,
    offers: Needs,
    room: Needs,
    ahead: u16,
    leaves: bool,
    /// All attempts there with what they take, running or not.
    attempts: BTreeMap<u64, Arc<Needs>>,
    /// Those that wait for room, in order.
    behind: VecDeque<u64>,
}

impl Worker {
    pub(super) fn new(site: u32, offers: Needs, ahead: u16) -> Worker {
        let (attempts, behind) = (BTreeMap::new(), VecDeque::new());
        Worker { site, room: offers.clone(), offers, ahead, leaves: false, attempts, behind }
    }

    /// How many attempts a task with `needs` would wait behind there: 0 if it would run at once. `None` if
    /// it cannot be started there now.
    pub(super) fn level(&self, needs: &Needs) -> Option<u16> {
        if self.leaves {
            return None;
        }
        let behind = self.behind.len() as u16;
        if behind == 0 && self.room.cover(needs) {
            return Some(0);
        }
        (behind < self.ahead && self.offers.cover(needs)).then_some(behind + 1)
    }

    /// Whether a task with `needs` could run there, were nothing else there.
    pub(super) fn could(&self, needs: &Needs) -> bool {
        !self.leaves && self.offers.cover(needs)
    }

    /// Takes an attempt; true if it runs at once.
    pub(super) fn start(&mut self, attempt: u64, needs: Arc<Needs>) -> bool {
        let runs = self.behind.is_empty() && self.room.cover(&needs);
        if runs {
            self.room.take(&needs);
        } else {
            self.behind.push_back(attempt);
        }
        self.attempts.insert(attempt, needs);
        runs
    }

    /// Forgets an attempt and appends those that run now because of that.
    pub(super) fn end(&mut self, attempt: u64, began: &mut Vec<u64>) {
        let Some(needs) = self.attempts.remove(&attempt) else { return };
        match self.behind.iter().position(|&one| one == attempt) {
            Some(at) => drop(self.behind.remove(at)),
            None => self.room.give(&needs),
        }
        while let Some(first) = self.behind.front() {
            let Some(needs) = self.attempts.get(first).filter(|needs| self.room.cover(needs)) else { break };
            self.room.take(needs);
            began.extend(self.behind.pop_front());
        }
    }

    /// Whether nothing is there and something may be.
    pub(super) fn is_idle(&self) -> bool {
        !self.leaves && self.attempts.is_empty()
    }

    /// Attempts there, running or not.
    pub(super) fn crowd(&self) -> usize {
        self.attempts.len()
    }

    pub(super) fn set_ahead(&mut self, ahead: u16) {
        self.ahead = ahead;
    }

    pub(super) fn leave(&mut self) {
        self.leaves = true;
    }

    pub(super) fn attempts(&self) -> impl Iterator<Item = u64> {
        self.attempts.keys().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(slots: u16) -> Needs {
        Needs { slots, ..Needs::default() }
    }

    #[test]
    fn attempts_wait_in_order_for_room() {
        let mut worker = Worker::new(1, slots(4), 2);
        assert!(worker.start(1, slots(3).into()));
        assert_eq!(worker.level(&slots(1)), Some(0));
        assert_eq!(worker.level(&slots(2)), Some(1));
        assert!(!worker.start(2, slots(2).into()));
        assert_eq!(worker.level(&slots(1)), Some(2), "nobody overtakes");
        assert!(!worker.start(3, slots(1).into()));
        assert_eq!(worker.level(&slots(1)), None);
        let mut began = Vec::new();
        worker.end(1, &mut began);
        assert_eq!(began, [2, 3]);
        worker.end(3, &mut began);
        worker.leave();
        assert_eq!(worker.level(&slots(1)), None);
        assert!(!worker.could(&slots(1)));
    }

    #[test]
    fn one_that_waited_takes_no_room_when_it_ends() {
        let mut worker = Worker::new(1, slots(1), 1);
        worker.start(1, slots(1).into());
        worker.start(2, slots(1).into());
        let mut began = Vec::new();
        worker.end(2, &mut began);
        assert_eq!(worker.level(&slots(1)), Some(1));
        worker.end(1, &mut began);
        assert_eq!(worker.level(&slots(1)), Some(0));
        assert!(began.is_empty());
    }
}
