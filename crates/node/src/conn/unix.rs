//! A local socket, with descriptors beside the bytes.

use mio::net::UnixStream;
use mio::{Interest, Registry, Token};
use mutirao_wire::frame::{Decoder, HEADER_BYTES};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

/// Descriptors beside one write; the kernel's own limit is 253.
const FDS_AT_ONCE: usize = 64;

/// What a frame of at least so many bytes lacks is read straight to its place.
const DIRECT_MIN: usize = 4 * 1024;

/// One end of a local socket.
pub(crate) struct UnixTransport {
    stream: UnixStream,
    /// Whether it is reported when there is room to write.
    awaits_room: bool,
    /// The process at the other end, as the kernel says.
    pub(crate) peer_pid: u32,
    /// Its user.
    pub(crate) peer_uid: u32,
}

impl UnixTransport {
    /// Asks the kernel who is at the other end.
    pub(crate) fn new(stream: UnixStream) -> io::Result<UnixTransport> {
        let peer = rustix::net::sockopt::socket_peercred(&stream)?;
        Ok(UnixTransport {
            stream,
            awaits_room: false,
            peer_pid: peer.pid.as_raw_nonzero().get() as u32,
            peer_uid: peer.uid.as_raw(),
        })
    }

    pub(crate) fn stream_mut(&mut self) -> &mut UnixStream {
        &mut self.stream
    }

    /// Has it reported, or not, when there is room to write: not while nothing waits to be written, for the
    /// other side's every read makes room.
    pub(crate) fn await_room(&mut self, registry: &Registry, token: Token, wanted: bool) -> io::Result<()> {
        if wanted != core::mem::replace(&mut self.awaits_room, wanted) {
            let interest = Interest::READABLE;
            let interest = if wanted { interest | Interest::WRITABLE } else { interest };
            registry.reregister(&mut self.stream, token, interest)?;
        }
        Ok(())
    }

    /// Reads once; bytes go to `decoder`, descriptors to `fds`. 0 is the end. Says also whether that was all
    /// there is for now.
    pub(crate) fn read(
        &mut self,
        scratch: &mut [u8],
        decoder: &mut Decoder,
        fds: &mut VecDeque<OwnedFd>,
    ) -> io::Result<(usize, bool)> {
        let missing = decoder.missing();
        if missing == 0 || decoder.pending() + missing < DIRECT_MIN {
            let (count, more_fds) = self.receive(scratch, fds)?;
            decoder.push(&scratch[..count]);
            return Ok((count, count < scratch.len() && !more_fds));
        }
        // The rest of a large frame, and the next header, go to their place without a copy.
        let wanted = missing + HEADER_BYTES;
        decoder.fill_with(|buffer| {
            let have = buffer.len();
            buffer.resize(have + wanted, 0);
            let received = self.receive(&mut buffer[have..], fds);
            buffer.truncate(have + received.as_ref().map_or(0, |(count, _)| *count));
            received.map(|(count, more_fds)| (count, count < wanted && !more_fds))
        })
    }

    /// Bytes received into `into`, and whether descriptors came with them.
    fn receive(&mut self, into: &mut [u8], fds: &mut VecDeque<OwnedFd>) -> io::Result<(usize, bool)> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_AT_ONCE))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = recvmsg(
            self.stream.as_fd(),
            &mut [IoSliceMut::new(into)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT,
        )?;
        let before = fds.len();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        Ok((received.bytes, fds.len() > before))
    }

    /// Writes from `out[*start..]` until all is written (`true`) or the other side takes no more.
    /// `written` bytes went before; `fds` says at which byte descriptors go along.
    pub(crate) fn write(
        &mut self,
        out: &[u8],
        start: &mut usize,
        written: u64,
        fds: &mut VecDeque<(u64, Vec<OwnedFd>)>,
    ) -> io::Result<bool> {
        let begin = *start;
        while *start < out.len() {
            let at = written + (*start - begin) as u64;
            let beside = fds.front().filter(|(when, _)| *when == at).map(|(_, fds)| fds.as_slice());
            let next = fds.iter().map(|(when, _)| *when).find(|when| *when > at);
            let end = next.map_or(out.len(), |when| *start + (when - at) as usize).min(out.len());
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_AT_ONCE))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            let borrowed: Vec<_> = beside.unwrap_or_default().iter().map(AsFd::as_fd).collect();
            if !borrowed.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(&borrowed)) {
                return Err(io::Error::other("too many descriptors beside one message"));
            }
            let sent = sendmsg(
                self.stream.as_fd(),
                &[IoSlice::new(&out[*start..end])],
                &mut ancillary,
                SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
            );
            match sent {
                Ok(count) => {
                    *start += count;
                    if beside.is_some() {
                        fds.pop_front();
                    }
                }
                Err(rustix::io::Errno::AGAIN) => return Ok(false),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }
}
