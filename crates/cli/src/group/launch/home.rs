//! What the home of the group is told, which shows it to the pool.

use super::Launch;
use crate::group::row::{end_of, state_word, use_of};
use crate::list::ask;
use anyhow::Result;
use mutirao_group::master::State;
use mutirao_wire::local::{GroupNews, ProcessNews};
use mutirao_wire::query::{ProcessRow, Topic};

impl Launch<'_> {
    /// That there is a group, and which processes it has.
    pub(super) fn tell_name(&mut self) -> Result<()> {
        self.pool.tell_group(GroupNews { name: self.name.to_owned(), outcome: None })?;
        self.unsaid.extend(0..self.seats.len() as u32);
        Ok(())
    }

    /// How those processes stand of which it has not heard.
    pub(super) fn tell_home(&mut self) -> Result<()> {
        for rank in std::mem::take(&mut self.unsaid) {
            let row = self.row(rank);
            // Of one that runs its lender is asked.
            let has_ended = row.end.is_some();
            let last_lines = self.seats[rank as usize].last_words().filter(|_| has_ended).unwrap_or_default();
            self.pool.tell_process(ProcessNews { row, last_lines })?;
        }
        Ok(())
    }

    /// How the group ended.
    pub fn tell_outcome(&mut self, text: String) -> Result<()> {
        self.unsaid.extend(0..self.seats.len() as u32);
        self.tell_home()?;
        self.pool.tell_group(GroupNews { name: self.name.to_owned(), outcome: Some(text) })?;
        // Once it has answered it has read all that was said before.
        ask(self.pool, Topic::Groups, Some(self.pool.node().name)).map(drop)
    }

    /// A process as it stands.
    pub(super) fn row(&self, rank: u32) -> ProcessRow {
        let (seat, known) = (&self.seats[rank as usize], &self.master.processes()[rank as usize]);
        let report = seat.report.as_ref();
        let end = if let State::Ended(end) = &known.state { Some(end_of(end, report)) } else { None };
        ProcessRow {
            rank,
            process: self.application.processes[rank as usize].to_string(),
            node: seat.node.clone(),
            serial: seat.serial,
            starts: known.life,
            state: state_word(&known.state).into(),
            end,
            used: report.map(use_of),
        }
    }
}
