//! The bytes of one pipe: a ring in shared memory, or a socket. Nothing here blocks.

use crate::pipe::{RingEnds, Way};
use mutirao_ring::{Bell, Consumer, Error as RingError, Producer};
use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::socket_domain;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, recv, sendmsg};
use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// Bytes read ahead of a socket.
const READ_BYTES: usize = 64 * 1024;
/// While no more than so many come at a time they are [peeked](Plain::peeks) at.
const PEEK_MAX: usize = 256;
/// From so many on they are read straight to where they belong.
const DIRECT_MIN: usize = 8 * 1024;
/// What is written to a socket gathers up to so many bytes, since each write costs as much as some thousands of them,
const GATHER_BYTES: usize = 16 * 1024;
/// but no more at a time than so many.
const GATHER_EACH_MAX: usize = 4 * 1024;

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
    /// Whether bytes may be fetched without being taken from the socket, and taken when something else is wanted of it.
    /// TCP acknowledges what is taken, at least each second segment, before the call returns: so it does that after the
    /// program has answered, not before. Only for a side that sends little, since a socket that is closed with bytes in
    /// it gives up what it has not sent.
    peeks: bool,
    /// What came last was little.
    is_trickling: bool,
    /// Fetched bytes that are still in the socket.
    peeked: usize,
    /// Written, and to be sent at the next flush.
    gathered: Vec<u8>,
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
                Conduit::Plain(Plain {
                    fd,
                    buffer: Vec::new(),
                    start: 0,
                    end: 0,
                    has_ended: false,
                    peeks: false,
                    is_trickling: false,
                    peeked: 0,
                    gathered: Vec::new(),
                })
            }
        })
    }

    /// Over this one messages come, and little but that they were taken goes back.
    pub(super) fn receives(mut self) -> Conduit {
        if let Conduit::Plain(plain) = &mut self {
            let domain = socket_domain(&plain.fd);
            plain.peeks = matches!(domain, Ok(AddressFamily::INET | AddressFamily::INET6));
        }
        self
    }

    /// Writes what fits of the two, one after the other; how many bytes that was. The other side may not see them
    /// before the next [`flush`](Self::flush).
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
            Conduit::Plain(plain) => plain.write(head, body),
        }
    }

    /// Shows the other side what was written; whether all of it could be.
    #[inline]
    pub(super) fn flush(&mut self) -> Result<bool, Gone> {
        match self {
            Conduit::Ring(ring) => ring.out.flush().map(|()| true).map_err(Gone::from),
            Conduit::Plain(plain) => {
                plain.send(&[], &[])?;
                Ok(plain.gathered.is_empty())
            }
        }
    }

    /// Whether there is something to flush, and a reason to do it late: each time costs a system call.
    pub(super) fn has_gathered(&self) -> bool {
        matches!(self, Conduit::Plain(plain) if !plain.gathered.is_empty())
    }

    /// Whether each flush takes a system call.
    #[inline]
    pub(super) fn is_socket(&self) -> bool {
        matches!(self, Conduit::Plain(_))
    }

    /// Reads what there is into `into`; 0 is nothing for now.
    #[inline]
    pub(super) fn read(&mut self, into: &mut [u8]) -> Result<usize, Gone> {
        match self {
            Conduit::Ring(ring) => Ok(ring.into.read(into)?),
            Conduit::Plain(plain) => {
                if plain.is_drained() {
                    if into.len() >= DIRECT_MIN {
                        plain.take_peeked()?;
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
                    // Room is made as it is filled: how much is to come is the other side's word.
                    if into.len() == into.capacity() {
                        into.reserve_exact(most.min(into.len()));
                    }
                    let spare = into.capacity() - into.len();
                    if most >= DIRECT_MIN && (1..=most).contains(&spare) {
                        plain.take_peeked()?;
                        return plain.receive(|fd| {
                            recv(fd, spare_capacity(into), RecvFlags::DONTWAIT).map(|(n, _)| n)
                        });
                    }
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
            Conduit::Plain(plain) => {
                plain.fill().is_err() || !plain.is_drained() || wants_room && plain.has_room()
            }
        }
    }

    /// Before sleeping: asks to be woken; true if there is something to do already.
    pub(super) fn arm(&mut self, wants_room: bool) -> bool {
        match self {
            Conduit::Ring(ring) => {
                ring.into.arm(1).unwrap_or(true) || wants_room && ring.out.arm_for_room(1).unwrap_or(true)
            }
            Conduit::Plain(plain) => !plain.is_drained() || plain.take_peeked().is_err(),
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

    fn write(&mut self, head: &[u8], body: &[u8]) -> Result<usize, Gone> {
        let count = head.len() + body.len();
        if count > GATHER_EACH_MAX || self.gathered.len() + count > GATHER_BYTES {
            return self.send(head, body);
        }
        self.gathered.extend_from_slice(head);
        self.gathered.extend_from_slice(body);
        Ok(count)
    }

    /// Sends what was gathered, then what fits of the two; how many bytes of these.
    fn send(&mut self, head: &[u8], body: &[u8]) -> Result<usize, Gone> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let sent = loop {
            let sent = if head.is_empty() && body.is_empty() {
                if self.gathered.is_empty() {
                    return Ok(0);
                }
                // Costs less than the other.
                rustix::net::send(&self.fd, &self.gathered, flags)
            } else {
                let parts = [&self.gathered, head, body].map(IoSlice::new);
                sendmsg(&self.fd, &parts, &mut Default::default(), flags)
            };
            match sent {
                Ok(count) => break count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break 0,
                Err(_) => return Err(Gone::Ended),
            }
        };
        let before = sent.min(self.gathered.len());
        self.gathered.drain(..before);
        Ok(sent - before)
    }

    /// Whether the kernel takes more; or fails, which whoever writes will hear.
    fn has_room(&self) -> bool {
        poll(&mut [PollFd::new(&self.fd, PollFlags::OUT)], Some(&Timespec::default())) != Ok(0)
    }

    /// Fetches what there is, if all before it was read.
    fn fill(&mut self) -> Result<(), Gone> {
        if !self.is_drained() {
            return Ok(());
        }
        self.take_peeked()?;
        let peeks = self.peeks && self.is_trickling;
        let flags = if peeks { RecvFlags::DONTWAIT | RecvFlags::PEEK } else { RecvFlags::DONTWAIT };
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(READ_BYTES, 0);
        let received = self.receive(|fd| recv(fd, &mut buffer[..], flags).map(|(n, _)| n));
        self.buffer = buffer;
        let count = received?;
        (self.start, self.end) = (0, count);
        if count > 0 {
            self.is_trickling = count <= PEEK_MAX;
            self.peeked = if peeks { count } else { 0 };
        }
        Ok(())
    }

    /// Takes from the socket what was fetched from it and read.
    fn take_peeked(&mut self) -> Result<(), Gone> {
        debug_assert!(self.peeked == 0 || self.is_drained(), "what is taken may be written over");
        while self.peeked > 0 {
            let mut buffer = std::mem::take(&mut self.buffer);
            let room = &mut buffer[..self.peeked];
            let taken = self
                .receive(|fd| recv(fd, &mut *room, RecvFlags::DONTWAIT | RecvFlags::TRUNC).map(|(n, _)| n));
            self.buffer = buffer;
            match taken? {
                // They were there.
                0 => return Err(Gone::Ended),
                count => self.peeked -= count,
            }
        }
        Ok(())
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

impl Drop for Plain {
    fn drop(&mut self) {
        // What was read is then no reason to reset the connection.
        self.start = self.end;
        let _ = self.take_peeked();
    }
}
