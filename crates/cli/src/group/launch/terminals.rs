//! Processes that have terminals, and those who attach to them.

use super::Launch;
use crate::group::guests::Wish;
use anyhow::Result;
use mutirao::raw::{PipeEvent, PipeStream};
use mutirao_group::console::{Saying, Stream, TEXT_BYTES_MAX};
use mutirao_group::master::State;

/// What a terminal showed last is shown again to who attaches, bytes.
const LAST_SHOWN_BYTES: usize = 8 * 1024;

impl Launch<'_> {
    /// Shows what a process wrote where that is to be seen.
    pub(super) fn show(&mut self, rank: u32, name: &str, stream: Stream, bytes: &[u8]) -> Result<()> {
        let seat = &mut self.seats[rank as usize];
        let has_terminal = self.application.processes[rank as usize].terminal;
        if has_terminal || stream == Stream::Error {
            seat.last_words.extend(bytes);
            seat.last_words.drain(..seat.last_words.len().saturating_sub(TEXT_BYTES_MAX));
        }
        if has_terminal {
            seat.last_shown.extend(bytes);
            seat.last_shown.drain(..seat.last_shown.len().saturating_sub(LAST_SHOWN_BYTES));
        }
        if self.guests.show(rank, bytes) {
            return Ok(());
        }
        self.printer.show(name, &mut seat.begun, stream, bytes)
    }

    /// Somebody who wants to attach comes, or goes.
    pub(super) fn guest_pipe(&mut self, event: PipeEvent) -> Result<()> {
        let number = event.number();
        self.guests.went(number);
        match event {
            PipeEvent::Opened { way, .. } => {
                if !self.guests.come(number, PipeStream::open(way)?) {
                    self.pool.close_pipe(number)?;
                }
            }
            PipeEvent::Broken { .. } => self.pool.close_pipe(number)?,
            PipeEvent::Failed { .. } => {}
        }
        Ok(())
    }

    /// Does what those want who attach to processes, or are.
    pub(super) fn receive_guests(&mut self) -> Result<()> {
        for number in self.guests.sweep() {
            self.pool.close_pipe(number)?;
        }
        let seats = &self.seats;
        for wish in self.guests.hear(|rank, bytes| seats[rank as usize].may_type(bytes)) {
            match wish {
                Wish::Attach { guest, process, size } => match self.admit(&process) {
                    Ok(rank) => {
                        let last = self.seats[rank as usize].last_shown.iter().copied().collect();
                        self.guests.attach(guest, rank, last);
                        self.say(rank, Saying::Size(size))?;
                    }
                    Err(why) => self.guests.refuse(guest, why),
                },
                Wish::Resize { rank, size } => self.say(rank, Saying::Size(size))?,
                Wish::Type { rank, bytes } => {
                    let credit = &mut self.seats[rank as usize].credit_bytes;
                    *credit = credit.saturating_sub(bytes.len() as u32);
                    self.say(rank, Saying::Input(bytes))?;
                }
            }
        }
        Ok(())
    }

    /// The process somebody may attach to, or why not.
    fn admit(&self, process: &str) -> Result<u32, String> {
        let rank = self.application.rank(process).ok_or("there is no process of that name")?;
        if !self.application.processes[rank as usize].terminal {
            return Err(format!(
                "it has no terminal: `terminal = true` in the file, or `group run --terminal {process}`, gives it one"
            ));
        }
        if let State::Ended(end) = &self.master.processes()[rank as usize].state {
            return Err(format!("it has ended: {end}"));
        }
        match self.guests.at(rank) {
            Some(from) => Err(format!("it is attached already, to {from}")),
            None => Ok(rank),
        }
    }

    fn say(&mut self, rank: u32, saying: Saying) -> Result<()> {
        self.seats[rank as usize].console.say(saying);
        self.talk(rank)
    }
}
