//! The bytes of one pipe: a ring in shared memory, or a socket. Nothing here blocks.

use crate::pipe::{RingEnds, Way};
use mutirao_ring::{Bell, Consumer, Error as RingError, Producer};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, sendmsg};
use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// Bytes read ahead of a socket.
const READ_BYTES: usize = 64 * 1024;
/// From so many on they are read straight to where they belong.
const DIRECT_MIN: usize = 8 * 1024;

/// The pipe is of no further use.
#[derive(Debug)]
pub(super) enum Gone {
    /// It has ended.
    Ended,
    /// What is on the other side has written what cannot be.
    Corrupt(String),
    /// What is to be written cannot be had.
    Unreadable(String),
}

impl From<RingError> for Gone {
    fn from(error: RingError) -> Gone {
        match error {
            // Nobody is left to be woken.
            RingError::System { .. } => Gone::Ended,
            other => Gone::Corrupt(other.to_string()),
        }
    }
}

/// What to wait on while asleep.
#[derive(Debug, Clone)]
pub(super) enum Handle {
    Bell(Arc<Bell>),
    Socket(Arc<OwnedFd>),
}

impl AsFd for Handle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Handle::Bell(bell) => bell.as_fd(),
            Handle::Socket(fd) => fd.as_fd(),
        }
    }
}

#[derive(Debug)]
pub(super) struct Ring {
    out: Producer,
    into: Consumer,
    bell: Arc<Bell>,
}

#[derive(Debug)]
pub(super) struct Plain {
    fd: Arc<OwnedFd>,
    /// Room for what is read ahead, made when it is needed first.
    buffer: Vec<u8>,
    /// Where in it the bytes are that were fetched and not read.
    start: usize,
    end: usize,
    has_ended: bool,
}

#[derive(Debug)]
pub(super) enum Conduit {
    Ring(Box<Ring>),
    Plain(Plain),
}

impl Conduit {
    /// Takes over a pipe that was opened.
    pub(super) fn open(way: Way) -> Result<Conduit, crate::Error> {
        Ok(match way {
            Way::Ring(ring) => {
                let RingEnds { reader, writer, bell } = ring.map()?;
                Conduit::Ring(Box::new(Ring { out: writer, into: reader, bell: Arc::new(bell) }))
            }
            Way::Socket { fd, .. } => {
                let fd = Arc::new(fd);
                Conduit::Plain(Plain { fd, buffer: Vec::new(), start: 0, end: 0, has_ended: false })
            }
        })
    }

    /// Writes what fits of the two, one after the other; how many bytes that was.
    #[inline]
    pub(super) fn write(&mut self, head: &[u8], body: &[u8]) -> Result<usize, Gone> {
        match self {
            Conduit::Ring(ring) => {
                let written = ring.out.write(head)?;
                if written < head.len() || body.is_empty() {
                    return Ok(written);
                }
                Ok(written + ring.out.write(body)?)
            }
            Conduit::Plain(plain) => loop {
                let parts = [IoSlice::new(head), IoSlice::new(body)];
                let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
                match sendmsg(&plain.fd, &parts, &mut Default::default(), flags) {
                    Ok(count) => return Ok(count),
                    Err(Errno::INTR) => {}
                    Err(Errno::AGAIN) => return Ok(0),
                    Err(_) => return Err(Gone::Ended),
                }
            },
        }
    }

    /// Shows the other side what was written.
    #[inline]
    pub(super) fn flush(&mut self) -> Result<(), Gone> {
        match self {
            Conduit::Ring(ring) => Ok(ring.out.flush()?),
            Conduit::Plain(_) => Ok(()),
        }
    }

    /// Reads what there is into `into`; 0 is nothing for now.
    #[inline]
    pub(super) fn read(&mut self, into: &mut [u8]) -> Result<usize, Gone> {
        match self {
            Conduit::Ring(ring) => Ok(ring.into.read(into)?),
            Conduit::Plain(plain) => {
                if plain.is_drained() {
                    if into.len() >= DIRECT_MIN {
                        return plain.receive(|fd| recv(fd, &mut *into, RecvFlags::DONTWAIT).map(|(n, _)| n));
                    }
                    plain.fill()?;
                }
                let there = &plain.buffer[plain.start..plain.end];
                let count = there.len().min(into.len());
                into[..count].copy_from_slice(&there[..count]);
                plain.start += count;
                Ok(count)
            }
        }
    }

    /// Appends at most `most` of the bytes there are to `into`; 0 is nothing for now.
    pub(super) fn read_to(&mut self, into: &mut Vec<u8>, most: usize) -> Result<usize, Gone> {
        match self {
            Conduit::Ring(ring) => Ok(ring.into.read_to(into, most)?),
            Conduit::Plain(plain) => {
                if plain.is_drained() {
                    plain.fill()?;
                }
                let there = &plain.buffer[plain.start..plain.end];
                let count = there.len().min(most);
                into.extend_from_slice(&there[..count]);
                plain.start += count;
                Ok(count)
            }
        }
    }

    /// Whether something can be read that was fetched or lies in the ring; looks no further.
    #[inline]
    pub(super) fn is_drained(&mut self) -> bool {
        match self {
            Conduit::Ring(ring) => ring.into.available().is_ok_and(|bytes| bytes == 0),
            Conduit::Plain(plain) => plain.is_drained(),
        }
    }

    /// Whether looking at it again is worth while: something came, room is there that `wants_room`, or it is over.
    #[inline]
    pub(super) fn is_ready(&mut self, wants_room: bool) -> bool {
        match self {
            Conduit::Ring(ring) => {
                let has_bytes = ring.into.available().map_or(true, |bytes| bytes > 0);
                has_bytes || wants_room && ring.out.room().map_or(true, |bytes| bytes > 0)
            }
            Conduit::Plain(plain) => plain.fill().is_err() || !plain.is_drained(),
        }
    }

    /// Before sleeping: asks to be woken; true if there is something to do already.
    pub(super) fn arm(&mut self, wants_room: bool) -> bool {
        match self {
            Conduit::Ring(ring) => {
                ring.into.arm(1).unwrap_or(true) || wants_room && ring.out.arm_for_room(1).unwrap_or(true)
            }
            Conduit::Plain(plain) => !plain.is_drained(),
        }
    }

    /// After sleeping.
    pub(super) fn disarm(&mut self) {
        if let Conduit::Ring(ring) = self {
            ring.into.disarm();
            ring.out.disarm();
        }
    }

    /// What to wait on.
    pub(super) fn handle(&self) -> Handle {
        match self {
            Conduit::Ring(ring) => Handle::Bell(ring.bell.clone()),
            Conduit::Plain(plain) => Handle::Socket(plain.fd.clone()),
        }
    }
}

impl Plain {
    #[inline]
    fn is_drained(&self) -> bool {
        self.start == self.end
    }

    /// Fetches what there is, if all before it was read.
    fn fill(&mut self) -> Result<(), Gone> {
        if !self.is_drained() {
            return Ok(());
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(READ_BYTES, 0);
        let received = self.receive(|fd| recv(fd, &mut buffer[..], RecvFlags::DONTWAIT).map(|(n, _)| n));
        self.buffer = buffer;
        (self.start, self.end) = (0, *received.as_ref().unwrap_or(&0));
        received.map(drop)
    }

    fn receive(&mut self, mut from: impl FnMut(&OwnedFd) -> Result<usize, Errno>) -> Result<usize, Gone> {
        if self.has_ended {
            return Err(Gone::Ended);
        }
        loop {
            match from(&self.fd) {
                Ok(count) if count > 0 => return Ok(count),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(0),
                Ok(_) | Err(_) => {
                    self.has_ended = true;
                    return Err(Gone::Ended);
                }
            }
        }
    }
}
