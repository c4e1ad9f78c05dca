//! A stream socket that carries frames, descriptors beside them, and large bodies in a lane.

use mutirao_ring::{Bell, Error as RingError, Producer, lane_writer};
use mutirao_wire::frame::{Decoder, FrameError, Header};
use mutirao_wire::limits::DATA_BODY_MAX;
use mutirao_wire::stream::put_aside;
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use std::collections::VecDeque;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// Descriptors that may wait to be taken; more is an error of the other side.
const FDS_MAX: usize = 4096;
/// Descriptors one message may carry.
pub(crate) const FDS_A_MESSAGE: usize = 64;
/// Bytes read at once.
const READ_BYTES: usize = 64 * 1024;
/// Pieces sent at once.
const PIECES_AT_ONCE: usize = 32;

/// What a look at the socket brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Received {
    /// Bytes.
    Some,
    /// Nothing for now.
    Nothing,
    /// The other side is gone.
    Closed,
}

/// Bytes that are sent from where they lie, before the byte at this place of `out`.
#[derive(Debug)]
struct Piece {
    at: usize,
    bytes: Arc<Vec<u8>>,
    rest: Range<usize>,
}

/// Memory that the node maps too, for the bodies of large parts.
#[derive(Debug)]
struct Lane {
    writer: Producer,
    /// Rings when a full lane has room again.
    bell: Arc<Bell>,
    /// Bodies it had no room for: each is to be in it before the byte at its place of `out` is sent.
    waiting: VecDeque<Piece>,
    waiting_bytes: usize,
}

impl Lane {
    /// Writes a body if it has room and is next.
    fn write(&mut self, body: &[u8]) -> bool {
        // What is wrong with a lane shows when it is filled.
        self.waiting.is_empty() && self.writer.write_parts(&[body]).unwrap_or(false)
    }

    /// Writes what waits, as far as there is room, and shows it to the node.
    fn fill(&mut self) -> Result<(), RingError> {
        self.writer.disarm();
        while let Some(first) = self.waiting.front() {
            let body = &first.bytes[first.rest.clone()];
            if !self.writer.write_parts(&[body])? {
                break;
            }
            self.waiting_bytes -= body.len();
            self.waiting.pop_front();
        }
        self.writer.flush()
    }

    /// Asks for the bell when half of it has room, and so for what is next; whether it has already. Less would have
    /// program and node take turns for each part, where they share a processor.
    fn arm(&mut self) -> Result<bool, RingError> {
        let needed = self.waiting.front().map_or(0, |first| first.rest.len());
        self.writer.arm_for_room(needed.max(self.writer.capacity() / 2))
    }
}

/// One end of the connection. Nothing here blocks.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: Arc<OwnedFd>,
    decoder: Decoder,
    scratch: Box<[u8]>,
    /// The last read took all there was.
    drained: bool,
    fds: VecDeque<OwnedFd>,
    out: Vec<u8>,
    /// Bytes at the front of `out` that are sent.
    sent: usize,
    /// Not sent yet, in order; and how many bytes that is.
    pieces: VecDeque<Piece>,
    pieces_bytes: usize,
    lane: Option<Lane>,
    /// Descriptors that go with the byte at this place of `out`.
    out_fds: VecDeque<(usize, Vec<OwnedFd>)>,
}

impl Socket {
    /// Takes over a connected stream socket.
    pub(crate) fn new(fd: OwnedFd) -> Socket {
        Socket::with_bodies(fd, DATA_BODY_MAX)
    }

    /// The same, for frames whose bodies have at most `body_max` bytes.
    pub(crate) fn with_bodies(fd: OwnedFd, body_max: usize) -> Socket {
        Socket {
            fd: Arc::new(fd),
            decoder: Decoder::new(body_max),
            scratch: vec![0; READ_BYTES].into(),
            drained: false,
            fds: VecDeque::new(),
            out: Vec::new(),
            sent: 0,
            pieces: VecDeque::new(),
            pieces_bytes: 0,
            lane: None,
            out_fds: VecDeque::new(),
        }
    }

    /// The descriptor, to be polled while this object is in use elsewhere.
    pub(crate) fn shared_fd(&self) -> Arc<OwnedFd> {
        self.fd.clone()
    }

    /// Reads once.
    pub(crate) fn receive(&mut self) -> Result<Received, Errno> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_A_MESSAGE))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let result = loop {
            let mut into = [IoSliceMut::new(&mut self.scratch)];
            match recvmsg(&self.fd, &mut into, &mut ancillary, RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT)
            {
                Err(Errno::INTR) => {}
                other => break other,
            }
        };
        let mut has_fds = false;
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                self.fds.extend(fds);
                has_fds = true;
            }
        }
        if self.fds.len() > FDS_MAX {
            return Err(Errno::TOOMANYREFS);
        }
        match result {
            Ok(message) if message.bytes == 0 => Ok(Received::Closed),
            Ok(message) => {
                self.decoder.push(&self.scratch[..message.bytes]);
                // Less than was asked for is all there was, except that descriptors end a read early.
                self.drained = message.bytes < self.scratch.len() && !has_fds;
                Ok(Received::Some)
            }
            Err(Errno::AGAIN) => Ok(Received::Nothing),
            Err(Errno::CONNRESET | Errno::PIPE) => Ok(Received::Closed),
            Err(errno) => Err(errno),
        }
    }

    /// Whether the last [`receive`](Self::receive) took all there was to take: another would bring nothing.
    pub(crate) fn is_drained(&self) -> bool {
        self.drained
    }

    /// The next whole frame of what was received.
    pub(crate) fn next_frame(&mut self) -> Result<Option<(Header, &[u8])>, FrameError> {
        self.decoder.next_frame()
    }

    /// The next `count` descriptors that came beside frames; `None` if there are fewer.
    pub(crate) fn take_fds(&mut self, count: usize) -> Option<Vec<OwnedFd>> {
        (self.fds.len() >= count).then(|| self.fds.drain(..count).collect())
    }

    /// Where to append frames that are to be sent.
    pub(crate) fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// Appends a range of `bytes`, which are not copied before they are sent.
    ///
    /// # Panics
    /// If they have no such range.
    pub(crate) fn append(&mut self, bytes: Arc<Vec<u8>>, range: Range<usize>) {
        assert!(range.start <= range.end && range.end <= bytes.len(), "there are no such bytes");
        self.pieces_bytes += range.len();
        self.pieces.push_back(Piece { at: self.out.len(), bytes, rest: range });
    }

    /// Large parts go by the lane from now on, whose `memory` and bell the node handed over.
    pub(crate) fn open_lane(&mut self, memory: OwnedFd, bell: OwnedFd) -> Result<(), RingError> {
        let writer = lane_writer(&memory)?;
        let bell = Arc::new(Bell::from(bell));
        self.lane = Some(Lane { writer, bell, waiting: VecDeque::new(), waiting_bytes: 0 });
        Ok(())
    }

    /// The bell to hear while something waits for room in the lane.
    pub(crate) fn lane_bell(&self) -> Option<Arc<Bell>> {
        self.lane.as_ref().map(|lane| lane.bell.clone())
    }

    pub(crate) fn has_lane(&self) -> bool {
        self.lane.is_some()
    }

    /// Appends a part of a call, its body by the lane; false, and nothing was done, if that has no room for it.
    pub(crate) fn put_aside(&mut self, header: Header, body: &[u8]) -> bool {
        let written = self.lane.as_mut().is_some_and(|lane| lane.write(body));
        if written {
            put_aside(&mut self.out, header);
        }
        written
    }

    /// Appends a part of a call, whose body, a range of `bytes`, goes by the lane once that has room.
    ///
    /// # Panics
    /// If they have no such range.
    pub(crate) fn append_aside(&mut self, header: Header, bytes: Arc<Vec<u8>>, range: Range<usize>) {
        assert!(range.start <= range.end && range.end <= bytes.len(), "there are no such bytes");
        let Some(lane) = &mut self.lane else {
            self.out.extend_from_slice(header.bytes());
            return self.append(bytes, range);
        };
        lane.waiting_bytes += range.len();
        lane.waiting.push_back(Piece { at: self.out.len(), bytes, rest: range });
        put_aside(&mut self.out, header);
    }

    /// Sends `fds` with the frame that is appended next. At most [`FDS_A_MESSAGE`].
    pub(crate) fn attach(&mut self, fds: Vec<OwnedFd>) {
        debug_assert!(fds.len() <= FDS_A_MESSAGE);
        self.out_fds.push_back((self.out.len(), fds));
    }

    /// Bytes waiting to be sent.
    pub(crate) fn unsent(&self) -> usize {
        let aside = self.lane.as_ref().map_or(0, |lane| lane.waiting_bytes);
        self.out.len() - self.sent + self.pieces_bytes + aside
    }

    /// Whether something could be sent if the other side read: not while all waits for room in the lane.
    pub(crate) fn awaits_reader(&self) -> bool {
        self.is_sendable(self.sendable_end())
    }

    /// Sends what it can; whether all is sent. What waits for the lane then makes its bell ring in time.
    pub(crate) fn flush(&mut self) -> Result<bool, Errno> {
        loop {
            if let Some(lane) = &mut self.lane {
                lane.fill().map_err(|_| Errno::PROTO)?;
            }
            if !self.send_to(self.sendable_end())? {
                return Ok(false);
            }
            match &mut self.lane {
                Some(lane) if !lane.waiting.is_empty() => {
                    if !lane.arm().map_err(|_| Errno::PROTO)? {
                        return Ok(false);
                    }
                }
                _ => break,
            }
        }
        self.out.clear();
        self.sent = 0;
        Ok(true)
    }

    /// Up to which byte of `out` all may be sent.
    fn sendable_end(&self) -> usize {
        let first = self.lane.as_ref().and_then(|lane| lane.waiting.front());
        first.map_or(self.out.len(), |first| first.at)
    }

    fn is_sendable(&self, end: usize) -> bool {
        self.sent < end || self.pieces.front().is_some_and(|piece| piece.at <= end)
    }

    /// Sends what it can of what comes before the byte at `sendable` of `out`; whether that is all.
    fn send_to(&mut self, sendable: usize) -> Result<bool, Errno> {
        while self.is_sendable(sendable) {
            let is_next =
                |at: usize| at == self.sent && self.pieces.front().is_none_or(|piece| piece.at > at);
            // Descriptors travel with the first byte of a message, and no message may run into the next such byte.
            let with = self.out_fds.front().is_some_and(|(at, _)| is_next(*at));
            let next = self.out_fds.get(usize::from(with)).map_or(sendable, |(at, _)| *at);
            let fds: &[OwnedFd] = if with { &self.out_fds[0].1 } else { &[] };
            let borrowed: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_A_MESSAGE))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            if with && !ancillary.push(SendAncillaryMessage::ScmRights(&borrowed)) {
                return Err(Errno::TOOMANYREFS);
            }
            let bytes = self.gather(next.min(sendable));
            match sendmsg(&self.fd, &bytes, &mut ancillary, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(count) => {
                    self.forget(count);
                    if with {
                        self.out_fds.pop_front();
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(false),
                Err(errno) => return Err(errno),
            }
        }
        Ok(true)
    }

    /// What comes next, up to the byte at `end` of `out`.
    fn gather(&self, end: usize) -> Vec<IoSlice<'_>> {
        let mut gathered = Vec::new();
        let mut from = self.sent;
        for piece in self.pieces.iter().take_while(|piece| piece.at <= end) {
            gathered.push(IoSlice::new(&self.out[from..piece.at]));
            gathered.push(IoSlice::new(&piece.bytes[piece.rest.clone()]));
            from = piece.at;
            if gathered.len() >= PIECES_AT_ONCE {
                return gathered;
            }
        }
        gathered.push(IoSlice::new(&self.out[from..end]));
        gathered
    }

    /// `count` bytes were sent.
    fn forget(&mut self, mut count: usize) {
        while count > 0 {
            let Some(piece) = self.pieces.front_mut() else {
                self.sent += count;
                return;
            };
            let before = (piece.at - self.sent).min(count);
            self.sent += before;
            count -= before;
            let of_it = piece.rest.len().min(count);
            piece.rest.start += of_it;
            self.pieces_bytes -= of_it;
            count -= of_it;
            if piece.rest.is_empty() && self.sent == piece.at {
                self.pieces.pop_front();
            }
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
