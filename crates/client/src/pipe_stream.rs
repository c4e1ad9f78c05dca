//! The bytes of a pipe: a ring in shared memory, or a socket. Nothing here blocks.

use crate::Error;
use crate::pipe::{RingEnds, Way};
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Bytes read at once, at most.
const READ_BYTES: usize = 64 * 1024;

/// One end of a pipe that is open.
#[derive(Debug)]
pub enum PipeStream {
    /// The other end is on this machine.
    Ring(Box<RingEnds>),
    /// The other end is elsewhere.
    Socket(OwnedFd),
}

/// The pipe is of no further use; whether there will be another, the node tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone;

impl PipeStream {
    /// Takes over what the node has made.
    pub fn open(way: Way) -> Result<PipeStream, Error> {
        Ok(match way {
            Way::Ring(ring) => PipeStream::Ring(Box::new(ring.map()?)),
            Way::Socket { fd, .. } => PipeStream::Socket(fd),
        })
    }

    /// Appends what is there, up to a limit.
    pub fn read(&mut self, into: &mut Vec<u8>) -> Result<(), Gone> {
        self.read_up_to(into, READ_BYTES)
    }

    /// The same, with another limit.
    pub fn read_up_to(&mut self, into: &mut Vec<u8>, most: usize) -> Result<(), Gone> {
        match self {
            PipeStream::Ring(ends) => {
                // Before it is looked at: what rings later is then not missed.
                let rings = ends.bell.drain().map_err(|_| Gone)?;
                let count = ends.reader.read_to(into, most).map_err(|_| Gone)?;
                if rings || count > 0 { Ok(()) } else { Err(Gone) }
            }
            PipeStream::Socket(fd) => {
                let start = into.len();
                into.resize(start + most, 0);
                let received = loop {
                    match recv(&*fd, &mut into[start..], RecvFlags::DONTWAIT) {
                        Err(Errno::INTR) => {}
                        other => break other,
                    }
                };
                let (count, outcome) = match received {
                    Ok((count, _)) if count > 0 => (count, Ok(())),
                    Err(Errno::AGAIN) => (0, Ok(())),
                    Ok(_) | Err(_) => (0, Err(Gone)),
                };
                into.truncate(start + count);
                outcome
            }
        }
    }

    /// Writes what fits; how much that was.
    pub fn write(&mut self, bytes: &[u8]) -> Result<usize, Gone> {
        match self {
            PipeStream::Ring(ends) => {
                let written = ends.writer.write(bytes).map_err(|_| Gone)?;
                ends.writer.flush().map_err(|_| Gone)?;
                Ok(written)
            }
            PipeStream::Socket(fd) => loop {
                match send(&*fd, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                    Ok(written) => return Ok(written),
                    Err(Errno::INTR) => {}
                    Err(Errno::AGAIN) => return Ok(0),
                    Err(_) => return Err(Gone),
                }
            },
        }
    }

    /// Before sleeping: asks to be woken by bytes that come, or by room for more; true if there is something to do
    /// already.
    pub fn arm(&mut self, wants_bytes: bool, wants_room: bool) -> bool {
        match self {
            PipeStream::Ring(ends) => {
                let rings = ends.bell.drain().unwrap_or(false);
                wants_bytes && (!rings || ends.reader.arm(1).unwrap_or(true))
                    || wants_room && ends.writer.arm_for_room(1).unwrap_or(true)
            }
            PipeStream::Socket(_) => false,
        }
    }

    /// After sleeping.
    pub fn disarm(&mut self) {
        if let PipeStream::Ring(ends) = self {
            ends.reader.disarm();
            ends.writer.disarm();
        }
    }

    /// What to wait for, on its descriptor.
    pub fn interest(&self, wants_bytes: bool, wants_room: bool) -> PollFlags {
        let mut flags = PollFlags::empty();
        // The bell rings for both.
        flags.set(PollFlags::IN, wants_bytes || matches!(self, PipeStream::Ring(_)));
        flags.set(PollFlags::OUT, wants_room && matches!(self, PipeStream::Socket(_)));
        flags
    }
}

impl AsFd for PipeStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            PipeStream::Ring(ends) => ends.bell.as_fd(),
            PipeStream::Socket(fd) => fd.as_fd(),
        }
    }
}
