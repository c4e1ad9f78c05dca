//! What runs when a keeper is lost, and how the next one goes on with it.

use super::state::{Attempt, State};
use super::{Bag, Output};
use crate::record::{Lent, Record};
use mutirao_schedule::bag::Event;
use mutirao_wire::Tick;

/// A lease of an earlier keeper, with what runs there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// The keeper's number for it.
    pub worker: u64,
    /// What another keeper has to know of it.
    pub lent: Lent,
    /// Attempts of tasks that may run, each with the number of its call there.
    pub attempts: Vec<(u64, u64)>,
}

/// An attempt that was begun and has no end yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Begun {
    pub(super) task: u32,
    /// The worker and the number of the call there, once it was sent.
    pub(super) sent: Option<(u64, u64)>,
}

impl Bag {
    /// The last keeper's leases and what runs there, as far as is known: what the next one can go on with. Those where
    /// most runs come first.
    pub fn left(&self) -> Vec<Left> {
        let left = self.lent.iter().map(|(&worker, lent)| {
            let open = |begun: &Begun| self.tasks[begun.task as usize].state == State::Open;
            let there = |(&attempt, begun): (&u64, &Begun)| {
                let (at, call) = begun.sent?;
                (at == worker && open(begun)).then_some((attempt, call))
            };
            Left { worker, lent: lent.clone(), attempts: self.begun.iter().filter_map(there).collect() }
        });
        let mut left: Vec<Left> = left.collect();
        left.sort_by_key(|left| std::cmp::Reverse(left.attempts.len()));
        left
    }

    /// An attempt went to its worker. One that checks its node is of no use to another keeper, who would not know.
    pub(super) fn sent(&mut self, attempt: u64, call: u64, out: &mut Vec<Output>) {
        let Some(running) = self.attempts.get(&attempt).filter(|attempt| attempt.check.is_none()) else {
            return;
        };
        let worker = running.worker;
        if self.lent.contains_key(&worker) && self.begun.contains_key(&attempt) {
            self.enter_and_append(Record::Sent { attempt, worker, call }, out);
        }
    }

    /// Goes on with attempts that run, of tasks that may, on a worker of this keeper's.
    pub(super) fn adopt(
        &mut self,
        now: Tick,
        left: Left,
        tasks: impl Fn(u64) -> Option<u32>,
        out: &mut Vec<Output>,
    ) {
        let Left { worker, lent, attempts } = left;
        let node = lent.lender.name.clone();
        self.worker_up(now, worker, lent.lender.id, node.clone(), lent.offers());
        self.enter_and_append(Record::Lent { worker, lent }, out);
        for (attempt, call) in attempts {
            let task = tasks(attempt).filter(|task| self.tasks[*task as usize].state == State::Open);
            let (Some(task), Some(entry)) = (task, self.workers.get_mut(&worker)) else { continue };
            entry.running += 1;
            if let Some(since) = entry.idle_since.take() {
                self.idle.remove(&(since, worker));
            }
            self.tasks[task as usize].running += 1;
            let (node, killed, check, worked_ms) = (node.clone(), false, None, self.worked_ms(task));
            self.attempts.insert(
                attempt,
                Attempt { task, worker, node: node.clone(), since: now, worked_ms, killed, check },
            );
            self.pace_began(now, worker, attempt);
            self.enter_and_append(Record::Started { task, attempt, node }, out);
            self.enter_and_append(Record::Sent { attempt, worker, call }, out);
            self.tell(now, Event::Adopted { task: task.into(), attempt, worker });
        }
    }
}
