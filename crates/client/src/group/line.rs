//! The socket to what started this process: it brings the plan, and then the pipes.

use super::Error;
use super::conduit::Conduit;
use crate::socket::{Received, Socket};
use mutirao_group::plan::{PLAN_BYTES_MAX, ProcessPlan};
use mutirao_wire::pipe::PipeMessage;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The plan is there long before; whoever lets this pass has not started a process of a group.
const PLAN_PATIENCE: Duration = Duration::from_secs(30);

/// What happened to a pipe.
#[derive(Debug)]
pub(super) enum LineEvent {
    Opened {
        pipe: u64,
        conduit: Result<Conduit, String>,
    },
    Broken {
        pipe: u64,
    },
    Failed {
        pipe: u64,
        text: String,
    },
    /// Whoever started this process is gone.
    Lost,
}

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

    /// What there is to hear.
    pub(super) fn hear(&mut self) -> Result<Vec<LineEvent>, Error> {
        let mut events = Vec::new();
        self.take_frames(&mut events)?;
        while !self.is_lost {
            match self.socket.receive().map_err(Error::system("hear of pipes"))? {
                Received::Some => self.take_frames(&mut events)?,
                Received::Nothing => break,
                Received::Closed => {
                    self.is_lost = true;
                    events.push(LineEvent::Lost);
                }
            }
        }
        Ok(events)
    }

    fn take_frames(&mut self, events: &mut Vec<LineEvent>) -> Result<(), Error> {
        let wrong = |error: mutirao_wire::frame::FrameError| Error::Protocol(error.to_string());
        loop {
            let message = match self.socket.next_frame().map_err(wrong)? {
                Some((header, body)) => PipeMessage::read(&header, body).map_err(wrong)?,
                None => return Ok(()),
            };
            events.push(match message {
                PipeMessage::PipeOpened(opened) => {
                    let fds = self.socket.take_fds(opened.way.descriptors());
                    let fds = fds.ok_or_else(|| Error::Protocol("a pipe without its descriptors".into()))?;
                    LineEvent::Opened { pipe: opened.number, conduit: Conduit::open(opened.way, fds) }
                }
                PipeMessage::PipeBroken(broken) => LineEvent::Broken { pipe: broken.number },
                PipeMessage::PipeFailed(failed) => {
                    LineEvent::Failed { pipe: failed.number, text: failed.text }
                }
                other => return Err(Error::Protocol(format!("a {:?} frame", other.kind()))),
            });
        }
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
