//! State that attempts save, so that the next one of the task need not begin anew.
//!
//! A task has one state at most. Of several attempts at once, that one's is kept for which the task has run longest.

use super::state::State;
use super::{Bag, Output};
use crate::error::Error;
use crate::record::{Record, Saved, Span};
use mutirao_wire::Tick;

/// What becomes of state that an attempt saves now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taking {
    /// It is kept.
    Keeps,
    /// It need not be kept: there is state for which the task has run longer.
    HasBetter,
    /// It is not kept; why, for people.
    Refuses(&'static str),
}

impl Bag {
    /// Whether state is kept: not where results are compared, for then a result would rest on the word of a further
    /// node, and each attempt begins afresh.
    pub fn keeps_state(&self) -> bool {
        !self.compares()
    }

    /// The state with which the next attempt of a task begins.
    pub fn saved(&self, task: u32) -> Option<&Saved> {
        self.states.get(&task)
    }

    /// What becomes of state that this attempt saves now.
    pub fn takes_state(&self, now: Tick, attempt: u64) -> Taking {
        if !self.keeps_state() {
            return Taking::Refuses("the results of this bag are checked, so each attempt begins afresh");
        }
        let running = self.attempts.get(&attempt).filter(|running| !running.killed);
        let Some(running) = running.filter(|running| self.tasks[running.task as usize].state == State::Open)
        else {
            return Taking::Refuses("the attempt is no longer wanted");
        };
        let worked_ms = running.worked_ms + ms(now, running.since);
        match self.states.get(&running.task) {
            Some(other) if other.attempt != attempt && other.worked_ms > worked_ms => Taking::HasBetter,
            _ => Taking::Keeps,
        }
    }

    pub(super) fn save(&mut self, now: Tick, at_ms: u64, attempt: u64, content: Span, out: &mut Vec<Output>) {
        let taken = self.takes_state(now, attempt) == Taking::Keeps;
        let Some(running) = self.attempts.get(&attempt).filter(|_| taken) else {
            return self.freed.push(content);
        };
        let (task, worked_ms) = (running.task, running.worked_ms + ms(now, running.since));
        let saved = Saved { attempt, content, at_ms, worked_ms };
        self.replace_state(Record::Saved { task, saved }, out);
    }

    /// The next attempt of a task begins anew.
    pub(super) fn afresh(&mut self, task: u32, out: &mut Vec<Output>) {
        if self.states.contains_key(&task) {
            self.replace_state(Record::Afresh { task }, out);
        }
    }

    /// Until this is on the disk, the state before is the truth.
    fn replace_state(&mut self, record: Record, out: &mut Vec<Output>) {
        let replaced = self.freed.len();
        self.enter_and_append(record, out);
        let record = self.appended;
        self.freeing.extend(self.freed.drain(replaced..).map(|span| (record, span)));
    }

    pub(super) fn apply_saved(&mut self, task: u32, saved: Saved) -> Result<(), Error> {
        self.known_mut(task)?;
        self.next_attempt = self.next_attempt.max(saved.attempt + 1);
        let before = self.states.insert(task, saved);
        self.freed.extend(before.map(|before| before.content));
        Ok(())
    }

    /// Nobody goes on from there any more.
    pub(super) fn forget_state(&mut self, task: u32) {
        let state = self.states.remove(&task);
        self.freed.extend(state.map(|state| state.content));
    }

    /// How long a task has run for the state that its next attempt begins with.
    pub(super) fn worked_ms(&self, task: u32) -> u64 {
        self.states.get(&task).map_or(0, |state| state.worked_ms)
    }

    /// Bytes of the file of outputs that nobody reads any more, as the records that were read say.
    pub fn take_freed(&mut self) -> Vec<Span> {
        std::mem::take(&mut self.freed)
    }
}

fn ms(now: Tick, since: Tick) -> u64 {
    now.0.saturating_sub(since.0) / 1000
}
