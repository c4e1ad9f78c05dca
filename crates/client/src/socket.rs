//! A stream socket that carries frames, and descriptors beside them.

use mutirao_wire::frame::{Decoder, FrameError, Header};
use mutirao_wire::limits::DATA_BODY_MAX;
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

    /// Sends `fds` with the frame that is appended next. At most [`FDS_A_MESSAGE`].
    pub(crate) fn attach(&mut self, fds: Vec<OwnedFd>) {
        debug_assert!(fds.len() <= FDS_A_MESSAGE);
        self.out_fds.push_back((self.out.len(), fds));
    }

    /// Bytes waiting to be sent.
    pub(crate) fn unsent(&self) -> usize {
        self.out.len() - self.sent + self.pieces_bytes
    }

    /// Sends what it can; whether all is sent.
    pub(crate) fn flush(&mut self) -> Result<bool, Errno> {
        while self.unsent() > 0 {
            let is_next =
                |at: usize| at == self.sent && self.pieces.front().is_none_or(|piece| piece.at > at);
            // Descriptors travel with the first byte of a message, and no message may run into the next such byte.
            let with = self.out_fds.front().is_some_and(|(at, _)| is_next(*at));
            let end = self.out_fds.get(usize::from(with)).map_or(self.out.len(), |(at, _)| *at);
            let fds: &[OwnedFd] = if with { &self.out_fds[0].1 } else { &[] };
            let borrowed: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_A_MESSAGE))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            if with && !ancillary.push(SendAncillaryMessage::ScmRights(&borrowed)) {
                return Err(Errno::TOOMANYREFS);
            }
            let bytes = self.gather(end);
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
        self.out.clear();
        self.sent = 0;
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
