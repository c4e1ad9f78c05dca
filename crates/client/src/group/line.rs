//! The socket to what started this process: it brings the plan, and then the pipes.

use super::Error;
use crate::pipe::PipeEvent;
use crate::socket::{Received, Socket};
use mutirao_group::plan::{PLAN_BYTES_MAX, ProcessPlan};
use mutirao_wire::pipe::PipeMessage;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The plan is there long before; whoever lets this pass has not started a process of a group.
const PLAN_PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct Line {
    socket: Socket,
    is_lost: bool,
}

impl Line {
    /// Takes over the socket and waits for the plan.
    pub(super) fn begin(fd: OwnedFd) -> Result<(Line, ProcessPlan), Error> {
        let mut socket = Socket::with_bodies(fd, PLAN_BYTES_MAX);
        let until = Instant::now() + PLAN_PATIENCE;
        loop {
            let frame = socket.next_frame().map_err(|error| Error::Protocol(error.to_string()))?;
            if let Some((header, body)) = frame {
                let plan =
                    ProcessPlan::read(&header, body).map_err(|error| Error::Protocol(error.to_string()))?;
                return Ok((Line { socket, is_lost: false }, plan));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::Protocol(format!("no plan in {} s", PLAN_PATIENCE.as_secs())));
            }
            let timeout = Timespec::try_from(left).ok();
            match poll(&mut [PollFd::new(&socket, PollFlags::IN)], timeout.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(Error::system("wait for the plan of this process")(errno)),
            }
            match socket.receive().map_err(Error::system("read the plan of this process"))? {
                Received::Some | Received::Nothing => {}
                Received::Closed => {
                    return Err(Error::Protocol("its end, instead of the plan of this process".into()));
                }
            }
        }
    }

    /// What has happened to pipes. The line may be lost after that.
    pub(super) fn hear(&mut self) -> Result<Vec<PipeEvent>, Error> {
        let mut events = Vec::new();
        self.take_frames(&mut events)?;
        while !self.is_lost {
            match self.socket.receive().map_err(Error::system("hear of pipes"))? {
                Received::Some => self.take_frames(&mut events)?,
                Received::Nothing => break,
                Received::Closed => self.is_lost = true,
            }
        }
        Ok(events)
    }

    fn take_frames(&mut self, events: &mut Vec<PipeEvent>) -> Result<(), Error> {
        let wrong = |error: mutirao_wire::frame::FrameError| Error::Protocol(error.to_string());
        while let Some((header, body)) = self.socket.next_frame().map_err(wrong)? {
            let message = PipeMessage::read(&header, body).map_err(wrong)?;
            events.push(PipeEvent::take(message, &mut self.socket).map_err(Error::Protocol)?);
        }
        Ok(())
    }

    pub(super) fn is_lost(&self) -> bool {
        self.is_lost
    }

    /// To be waited on while asleep.
    pub(super) fn shared_fd(&self) -> Arc<OwnedFd> {
        self.socket.shared_fd()
    }
}

impl AsFd for Line {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
