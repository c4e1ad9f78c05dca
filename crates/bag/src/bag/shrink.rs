//! A journal that says the same in fewer records.

use super::Bag;
use super::adopt::Begun;
use super::state::{Ending, Standing, State, Task};
use crate::limits::TASKS_A_RECORD;
use crate::record::{NewTask, Record, Saved};
use std::collections::BTreeSet;

/// A journal with fewer records is left as it is.
const RECORDS_SPARE: u64 = 10_000;

impl Bag {
    /// Whether the journal has become much longer than what it says. Asked only while nothing waits for the disk.
    ///
    /// Writing it anew takes a moment for each task there is, so that goes with a record for each at least.
    pub fn is_long(&self) -> bool {
        let least = 4 * self.least_records() as u64;
        self.records > RECORDS_SPARE.max(least).max(self.tasks.len() as u64)
    }

    /// Attempts whose results do not count and may come to.
    pub fn unsettled(&self) -> BTreeSet<u64> {
        let voted = self.votes.values().flatten().map(|vote| vote.attempt);
        self.begun.keys().copied().chain(voted).collect()
    }

    fn least_records(&self) -> usize {
        4 + 2 * self.begun.len()
            + self.lent.len()
            + self.caught.len()
            + self.states.len()
            + self.templates.len()
            + 2 * self.tasks.len().div_ceil(TASKS_A_RECORD)
    }

    /// Records that lead to this very bag. They count as its records once they are written.
    pub fn shrink(&mut self) -> impl Iterator<Item = Record> + use<'_> {
        self.records = self.least_records() as u64;
        let head = Record::Bag { settings: self.settings.clone(), at_ms: self.submitted_ms };
        let templates = self.templates.iter().cloned().map(Record::Template);
        let new = |task: &Task| NewTask { template: task.template, values: task.values.to_vec() };
        let chunks = self.tasks.chunks(TASKS_A_RECORD);
        let tasks = chunks.map(move |some| Record::Tasks(some.iter().map(new).collect()));
        let caught = self.caught.iter();
        let caught = caught.map(|(node, name)| Record::Caught { node: *node, name: name.clone() });
        let standing = |(task, number): (&Task, u32)| Standing {
            votes: self.votes.get(&number).cloned().unwrap_or_default(),
            ..standing(task)
        };
        let standings = self.tasks.chunks(TASKS_A_RECORD).enumerate().map(move |(index, some)| {
            let first = (index * TASKS_A_RECORD) as u32;
            Record::Standings { first, standings: some.iter().zip(first..).map(standing).collect() }
        });

        let state = |(&task, &saved): (&u32, &Saved)| Record::Saved { task, saved };
        let states = self.states.iter().map(state);
        // Their leftovers are to be found.
        let started = |(&attempt, begun): (&u64, &Begun)| {
            let started = Record::Started { task: begun.task, attempt, node: String::new() };
            let sent = begun.sent.map(|(worker, call)| Record::Sent { attempt, worker, call });
            std::iter::once(started).chain(sent)
        };
        let begun = self.begun.iter().flat_map(started);
        let lent = self.lent.iter().map(|(&worker, lent)| Record::Lent { worker, lent: lent.clone() });
        let complete = self.complete.then_some(Record::Complete);
        let over = self.over.then_some(Record::Over { at_ms: self.submitted_ms });
        std::iter::once(head)
            .chain(templates)
            .chain(tasks)
            .chain(caught)
            .chain(standings)
            .chain(states)
            .chain([Record::NextAttempt(self.next_attempt)])
            .chain(lent)
            .chain(begun)
            .chain(complete)
            .chain(over)
    }
}

fn standing(task: &Task) -> Standing {
    let result = match &task.state {
        State::Done(done) | State::Committing(done) => Ending::Done(done.clone()),
        State::Closed(closed) => Ending::Closed(*closed),
        // What follows from others is not said.
        State::Waiting | State::Open | State::Barred => Ending::None,
    };
    Standing {
        failures: task.failures,
        crashes: task.crashes,
        result,
        evidence: task.evidence.clone(),
        votes: Vec::new(),
    }
}
