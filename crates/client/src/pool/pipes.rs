//! Pipes between the program and its workers, and between workers.

use super::core::{Core, now};
use super::{LeaseKey, Pool, drive};
use crate::Error;
use crate::pipe::PipeEvent;
use mutirao_wire::frame::Header;
use mutirao_wire::pipe::{
    ClosePipe, GUEST_PIPES, OpenPipe, PIPES_A_PROGRAM_MAX, PipeEnd as End, PipeMessage,
};
use std::collections::{BTreeMap, VecDeque};
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

/// An end of a pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PipeEnd {
    /// This program.
    Program,
    /// The worker of a lease.
    Worker(LeaseKey),
}

/// The pipes of a program.
#[derive(Debug, Default)]
pub(super) struct Pipes {
    /// As they were ordered, for a node that comes back.
    open: BTreeMap<u64, OpenPipe>,
    events: BTreeMap<u64, PipeEvent>,
    order: VecDeque<u64>,
}

impl Pipes {
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty() && self.order.is_empty()
    }

    pub(super) fn has_news(&self) -> bool {
        !self.order.is_empty()
    }

    fn push(&mut self, event: PipeEvent) {
        let number = event.number();
        if self.events.insert(number, event).is_none() {
            self.order.push_back(number);
        }
    }

    fn pop(&mut self) -> Option<PipeEvent> {
        self.events.remove(&self.order.pop_front()?)
    }

    /// What was said of it is of no interest any more.
    fn forget(&mut self, number: u64) {
        if self.events.remove(&number).is_some() {
            self.order.retain(|one| *one != number);
        }
    }

    /// The node is gone, and with it whatever passed through it.
    pub(super) fn node_lost(&mut self) {
        let ends_here = |pipe: &&OpenPipe| pipe.a == End::Program || pipe.b == End::Program;
        let broken: Vec<u64> = self.open.values().filter(ends_here).map(|pipe| pipe.number).collect();
        for number in broken {
            self.push(PipeEvent::Broken { number });
        }
    }

    /// Orders all of them again.
    pub(super) fn order_again(&self, out: &mut Vec<u8>) {
        for pipe in self.open.values() {
            PipeMessage::from(pipe.clone()).put(out);
        }
    }
}

impl Core {
    /// The node speaks of a pipe.
    pub(super) fn pipe_frame(&mut self, header: &Header, body: &[u8]) -> Result<(), String> {
        let message = PipeMessage::read(header, body).map_err(|error| error.to_string())?;
        let event = PipeEvent::take(message, &mut self.link.socket)?;
        let number = event.number();
        let is_over = matches!(event, PipeEvent::Failed { .. });
        let known = self.pipes.open.contains_key(&number);
        if is_over {
            self.pipes.open.remove(&number);
        }
        // Of one that the program has closed meanwhile it wants to hear nothing. Those of guests come unasked.
        if known || number >= GUEST_PIPES {
            self.pipes.push(event);
        }
        Ok(())
    }

    fn say_pipe(&mut self, message: impl Into<PipeMessage>) {
        if self.link.is_up() {
            message.into().put(self.link.socket.out());
        }
    }
}

impl Pool {
    /// Makes a pipe, a two-way stream of bytes, between two ends. The nodes keep it: after a break it is opened
    /// anew by itself, until it is closed or the lease of an end is over. `number` is the program's choice, below
    /// [`GUEST_PIPES`]: those from there on are made by the node, for programs that want to be joined to this one.
    /// A worker hears of its pipes on its [`line`](crate::raw::line), the program by
    /// [`next_pipe_event`](Self::next_pipe_event).
    pub fn open_pipe(&self, number: u64, a: PipeEnd, b: PipeEnd) -> Result<(), Error> {
        let end = |end| match end {
            PipeEnd::Program => End::Program,
            PipeEnd::Worker(lease) => End::Lease(lease.handle()),
        };
        let mut core = self.alive()?;
        if number >= GUEST_PIPES
            || core.pipes.open.contains_key(&number)
            || core.pipes.open.len() >= PIPES_A_PROGRAM_MAX
        {
            return Err(Error::PipeNumber(number));
        }
        core.pipes.forget(number);
        let pipe = OpenPipe { number, a: end(a), b: end(b) };
        core.pipes.open.insert(number, pipe.clone());
        core.say_pipe(pipe);
        core.send(now());
        self.handle.shared.submitted(&mut core, true);
        drop(self.handle.shared.settle(core));
        Ok(())
    }

    /// Ends a pipe: its ends meet the end of what was written. A number that is not open is passed over.
    pub fn close_pipe(&self, number: u64) -> Result<(), Error> {
        let mut core = self.alive()?;
        core.pipes.forget(number);
        if core.pipes.open.remove(&number).is_some() || number >= GUEST_PIPES {
            core.say_pipe(ClosePipe { number });
            core.send(now());
            self.handle.shared.submitted(&mut core, true);
        }
        drop(self.handle.shared.settle(core));
        Ok(())
    }

    /// What happened to pipes, in turn; `None` when the time is up first. Of several events that nobody has taken
    /// yet only the last is kept for each pipe.
    pub fn next_pipe_event(&self, timeout: Option<Duration>) -> Result<Option<PipeEvent>, Error> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        self.handle.shared.wait_control(deadline, |core| core.pipes.has_news());
        let mut core = self.alive()?;
        let event = core.pipes.pop();
        if !core.has_pipe_news() {
            drive::clear(self.handle.shared.pipe_event());
        }
        Ok(event)
    }

    /// A descriptor that is readable while [`next_pipe_event`](Self::next_pipe_event) has something, or
    /// [`take_group_end`](Self::take_group_end).
    /// Do not read from it; poll it.
    pub fn pipe_event_fd(&self) -> BorrowedFd<'_> {
        self.handle.shared.pipe_event()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_one_pipe_only_the_last_event_is_kept_and_each_has_its_turn() {
        let mut pipes = Pipes::default();
        pipes.push(PipeEvent::Broken { number: 2 });
        pipes.push(PipeEvent::Broken { number: 1 });
        pipes.push(PipeEvent::Failed { number: 2, text: "over".into() });
        assert!(matches!(pipes.pop(), Some(PipeEvent::Failed { number: 2, .. })));
        pipes.push(PipeEvent::Broken { number: 3 });
        pipes.forget(3);
        assert!(matches!(pipes.pop(), Some(PipeEvent::Broken { number: 1 })));
        assert!(pipes.pop().is_none() && !pipes.has_news());
    }
}
