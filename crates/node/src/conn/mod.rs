//! Framed connections: frames in, frames out, over TLS or a local socket.
//!
//! Output is collected during a turn and written at its end, so that many small frames become one
//! write (and few TLS records). Whoever writes asks for [`Conns::room`] first where he can wait; a
//! connection whose other side does not read at all is closed.

mod tls;
mod unix;

use crate::context::{Owner, Readiness, token};
use mio::{Interest, Registry};
use mutirao_wire::frame::{Decoder, Header, put_frame};
use mutirao_wire::limits::DATA_BODY_MAX;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
pub(crate) use tls::TlsTransport;
pub(crate) use unix::UnixTransport;

/// Output above this has no room.
const OUT_HIGH: usize = 1024 * 1024;
/// Output below this has room again.
const OUT_LOW: usize = 256 * 1024;
/// Output above this means that the other side does not read for now.
const OUT_CLOGGED: usize = 4 * 1024 * 1024;
/// Output above this closes the connection: the other side does not read.
const OUT_MAX: usize = 64 * 1024 * 1024;
/// Bodies from this size on are encrypted where they lie.
const SEAL_MIN: usize = 8 * 1024;
/// So much encrypted is written before the end of the turn.
const WRITE_AT: usize = 128 * 1024;
/// Bytes read at once.
const SCRATCH: usize = 64 * 1024;
/// Descriptors that came and no frame has spoken of yet.
const FDS_MAX: usize = 256;

/// Names a connection; its slot may serve another one later, under another generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId {
    slot: u32,
    generation: u32,
}

impl ConnId {
    /// A key for [`Owner::Conn`]: the generation's lower 24 bits above the slot.
    fn key(self) -> u64 {
        u64::from(self.generation & 0xff_ffff) << 32 | u64::from(self.slot)
    }
}

pub(crate) enum Transport {
    Tls(Box<TlsTransport>),
    Unix(UnixTransport),
}

struct Conn {
    transport: Transport,
    decoder: Decoder,
    out: Vec<u8>,
    out_start: usize,
    /// Descriptors that travel with the byte at this distance from the start of all output.
    out_fds: VecDeque<(u64, Vec<OwnedFd>)>,
    written: u64,
    in_fds: VecDeque<OwnedFd>,
    /// Readiness was reported and not yet used up.
    readable: bool,
    /// The end is near: it is read up to it.
    ending: bool,
    paused: bool,
    full: bool,
    dirty: bool,
    closing: bool,
    /// Connections that are not read until this one has room.
    waiting: Vec<ConnId>,
}

impl Conn {
    /// Bytes that wait to be written.
    fn queued(&self) -> usize {
        let sealed = match &self.transport {
            Transport::Tls(tls) => tls.sealed(),
            Transport::Unix(_) => 0,
        };
        self.unsealed() + sealed
    }

    /// Those of them that are in `out`.
    fn unsealed(&self) -> usize {
        self.out.len() - self.out_start
    }

    /// Encrypts a large frame at once instead of keeping it in `out`, where that is possible.
    fn seal(&mut self, header: &Header, body: &[u8]) -> io::Result<bool> {
        match &mut self.transport {
            Transport::Tls(tls) if body.len() >= SEAL_MIN && tls.can_seal() => {
                tls.seal([&self.out[self.out_start..], header.bytes(), body])?;
                self.out.clear();
                self.out_start = 0;
                // The other side has something to do while the rest comes.
                if tls.sealed() >= WRITE_AT {
                    tls.write_sealed()?;
                }
                Ok(true)
            }
            _ => Ok(false),
        }
    }
}

#[derive(Default)]
struct Slot {
    generation: u32,
    conn: Option<Conn>,
}

/// What came of a read.
#[derive(Debug)]
pub(crate) enum Read {
    /// Bytes came; there may be more.
    Some,
    /// Nothing more for now, or reading is paused.
    Nothing,
    /// The connection is at its end; the text says why.
    Closed(String),
}

/// All framed connections of the daemon.
pub struct Conns {
    slots: Vec<Slot>,
    free: Vec<u32>,
    dirty: Vec<ConnId>,
    drained: Vec<ConnId>,
    broken: Vec<(ConnId, String)>,
    resumed: Vec<ConnId>,
    scratch: Vec<u8>,
}

impl Conns {
    pub(crate) fn new() -> Conns {
        Conns {
            slots: Vec::new(),
            free: Vec::new(),
            dirty: Vec::new(),
            drained: Vec::new(),
            broken: Vec::new(),
            resumed: Vec::new(),
            scratch: vec![0; SCRATCH],
        }
    }

    /// Takes a connection in and watches it.
    pub(crate) fn insert(
        &mut self,
        registry: &Registry,
        mut transport: Transport,
        body_max: usize,
    ) -> io::Result<ConnId> {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() as u32 - 1
        });
        let entry = &mut self.slots[slot as usize];
        let id = ConnId { slot, generation: entry.generation };
        let token = token(Owner::Conn, id.key());
        let registered = match &mut transport {
            Transport::Tls(tls) => {
                registry.register(tls.stream_mut(), token, Interest::READABLE | Interest::WRITABLE)
            }
            // A local socket would report each of our messages that is read.
            Transport::Unix(unix) => registry.register(unix.stream_mut(), token, Interest::READABLE),
        };
        if let Err(error) = registered {
            self.free.push(slot);
            return Err(error);
        }
        entry.conn = Some(Conn {
            transport,
            decoder: Decoder::new(body_max),
            out: Vec::new(),
            out_start: 0,
            out_fds: VecDeque::new(),
            written: 0,
            in_fds: VecDeque::new(),
            readable: true,
            ending: false,
            paused: false,
            full: false,
            dirty: true,
            closing: false,
            waiting: Vec::new(),
        });
        self.dirty.push(id); // a TLS dialler has something to say first
        Ok(id)
    }

    /// Whether the connection is there.
    pub fn exists(&self, id: ConnId) -> bool {
        self.conn(id).is_some()
    }

    /// Bytes that are welcome now; 0 when the other side is slow, or gone.
    pub fn room(&self, id: ConnId) -> usize {
        match self.conn(id) {
            Some(conn) if !conn.full => OUT_HIGH.saturating_sub(conn.queued()),
            _ => 0,
        }
    }

    /// Whether far more waits to be written than a reading other side leaves unread. It is among
    /// `take_drained` once it has read.
    pub(crate) fn is_clogged(&self, id: ConnId) -> bool {
        self.conn(id).is_some_and(|conn| conn.queued() >= OUT_CLOGGED)
    }

    /// Writes a frame, room or not; `false` if the connection is gone or going.
    pub fn put(&mut self, id: ConnId, header: Header, body: &[u8]) -> bool {
        debug_assert!(body.len() <= DATA_BODY_MAX);
        self.put_by(id, |conn| {
            if !conn.seal(&header, body)? {
                put_frame(&mut conn.out, header, body);
            }
            Ok(())
        })
    }

    /// As [`put`](Conns::put), with frames that `write` appends.
    pub fn put_with(&mut self, id: ConnId, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        self.put_by(id, |conn| {
            write(&mut conn.out);
            Ok(())
        })
    }

    fn put_by(&mut self, id: ConnId, put: impl FnOnce(&mut Conn) -> io::Result<()>) -> bool {
        let Some(conn) = self.conn_mut(id).filter(|conn| !conn.closing) else { return false };
        if let Err(error) = put(conn) {
            conn.closing = true;
            self.broken.push((id, error.to_string()));
            return true;
        }
        let queued = conn.queued();
        conn.full |= queued >= OUT_HIGH;
        let first = !core::mem::replace(&mut conn.dirty, true);
        if queued > OUT_MAX {
            conn.closing = true;
            self.broken.push((id, "the other side does not read".into()));
        } else if first {
            self.dirty.push(id);
        }
        true
    }

    /// As [`put_with`](Conns::put_with), with descriptors beside the frame. Local sockets only.
    pub(crate) fn put_with_fds(
        &mut self,
        id: ConnId,
        fds: Vec<OwnedFd>,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> bool {
        let Some(conn) = self.conn_mut(id) else { return false };
        if !fds.is_empty() {
            let at = conn.written + conn.unsealed() as u64;
            conn.out_fds.push_back((at, fds));
        }
        self.put_with(id, write)
    }

    /// Takes `count` descriptors that came beside the frame at hand; `None` if fewer came.
    pub(crate) fn take_fds(&mut self, id: ConnId, count: usize) -> Option<Vec<OwnedFd>> {
        let fds = &mut self.conn_mut(id)?.in_fds;
        (fds.len() >= count).then(|| fds.drain(..count).collect())
    }

    /// Stops reading `source` until `congested` has room.
    pub(crate) fn pause(&mut self, source: ConnId, congested: ConnId) {
        if source == congested || !self.exists(congested) {
            return;
        }
        let Some(conn) = self.conn_mut(source) else { return };
        if core::mem::replace(&mut conn.paused, true) {
            return;
        }
        if let Some(conn) = self.conn_mut(congested) {
            conn.waiting.push(source);
        }
    }

    /// Reads on, whatever it was paused for.
    pub(crate) fn unpause(&mut self, id: ConnId) {
        if let Some(conn) = self.conn_mut(id)
            && core::mem::take(&mut conn.paused)
        {
            self.resumed.push(id);
        }
    }

    /// Reads once; bytes land in the decoder.
    pub(crate) fn read(&mut self, id: ConnId) -> Read {
        let Some(conn) = self.slots.get_mut(id.slot as usize).filter(|slot| slot.generation == id.generation)
        else {
            return Read::Nothing;
        };
        let Some(conn) = conn.conn.as_mut().filter(|conn| conn.readable && !conn.paused && !conn.closing)
        else {
            return Read::Nothing;
        };
        let read = match &mut conn.transport {
            Transport::Tls(tls) => {
                let read = tls.read(&mut self.scratch, &mut conn.decoder);
                if tls.wants_write() && !core::mem::replace(&mut conn.dirty, true) {
                    self.dirty.push(id);
                }
                read
            }
            Transport::Unix(unix) => unix.read(&mut self.scratch, &mut conn.decoder, &mut conn.in_fds),
        };
        match read {
            Ok((0, _)) => Read::Closed("the connection closed".into()),
            Ok(_) if conn.in_fds.len() > FDS_MAX => Read::Closed("too many descriptors".into()),
            Ok((_, all)) => {
                // Less than was asked for is all there was: what comes later is reported anew. The end itself,
                // though, was reported with what came before it.
                conn.readable = !all || conn.ending;
                Read::Some
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                conn.readable = false;
                Read::Nothing
            }
            Err(error) => Read::Closed(error.to_string()),
        }
    }

    /// Whether bytes came that were not acted upon yet.
    pub(crate) fn has_unread(&self, id: ConnId) -> bool {
        self.conn(id).is_some_and(|conn| conn.decoder.pending() > 0)
    }

    /// Lends out the decoder, so that its frames can be acted upon; to be put back.
    pub(crate) fn take_decoder(&mut self, id: ConnId) -> Option<Decoder> {
        let conn = self.conn_mut(id)?;
        Some(core::mem::replace(&mut conn.decoder, Decoder::new(0)))
    }

    pub(crate) fn put_decoder(&mut self, id: ConnId, decoder: Decoder) {
        if let Some(conn) = self.conn_mut(id) {
            conn.decoder = decoder;
        }
    }

    /// Whether nothing that came is to be acted upon now: paused, closing, or gone.
    pub(crate) fn is_paused(&self, id: ConnId) -> bool {
        self.conn(id).is_none_or(|conn| conn.paused || conn.closing)
    }

    /// This side's address of a connection to another node, and the other's.
    pub(crate) fn addresses(&self, id: ConnId) -> Option<(SocketAddr, SocketAddr)> {
        match &self.conn(id)?.transport {
            Transport::Tls(tls) => tls.addresses(),
            Transport::Unix(_) => None,
        }
    }

    /// Bytes that wait to be written.
    pub(crate) fn queued(&self, id: ConnId) -> usize {
        self.conn(id).map_or(0, Conn::queued)
    }

    /// The transport, to look at certificates and credentials.
    pub(crate) fn transport(&self, id: ConnId) -> Option<&Transport> {
        Some(&self.conn(id)?.transport)
    }

    /// Notes readiness; returns the connection if there is still one under `key`.
    pub(crate) fn note(&mut self, key: u64, readiness: Readiness) -> Option<ConnId> {
        let slot = self.slots.get_mut((key & 0xffff_ffff) as usize)?;
        let id = ConnId { slot: key as u32, generation: slot.generation };
        let conn = slot.conn.as_mut().filter(|_| id.key() == key)?;
        conn.readable |= readiness.readable;
        conn.ending |= readiness.closed;
        if readiness.writable && !core::mem::replace(&mut conn.dirty, true) {
            self.dirty.push(id);
        }
        Some(id)
    }

    /// Writes what is queued, as far as the other sides take it.
    pub(crate) fn flush(&mut self, registry: &Registry) {
        for id in core::mem::take(&mut self.dirty) {
            self.flush_one(registry, id);
        }
    }

    fn flush_one(&mut self, registry: &Registry, id: ConnId) {
        let Some(conn) = self.conn_mut(id) else { return };
        conn.dirty = false;
        let before = conn.unsealed();
        let result = match &mut conn.transport {
            Transport::Tls(tls) => tls.write(&conn.out, &mut conn.out_start),
            Transport::Unix(unix) => {
                let written = unix.write(&conn.out, &mut conn.out_start, conn.written, &mut conn.out_fds);
                written.and_then(|all| {
                    unix.await_room(registry, token(Owner::Conn, id.key()), !all)?;
                    Ok(all)
                })
            }
        };
        conn.written += (before - conn.unsealed()) as u64;
        if conn.unsealed() == 0 {
            conn.out.clear();
            conn.out_start = 0;
            if conn.out.capacity() > OUT_LOW {
                conn.out.shrink_to(OUT_LOW);
            }
        } else if conn.out_start >= OUT_LOW {
            conn.out.drain(..conn.out_start);
            conn.out_start = 0;
        }
        let (queued, closing) = (conn.queued(), conn.closing);
        let drained = conn.full && queued <= OUT_LOW;
        if drained {
            conn.full = false;
        }
        match result {
            // What its other side does not take at once it never gets: it is not waited for.
            Ok(_) if closing => self.broken.push((id, "closed by this node".into())),
            Ok(_) if drained => {
                self.release_waiting(id);
                self.drained.push(id);
            }
            Ok(_) => {}
            Err(error) => self.broken.push((id, error.to_string())),
        }
    }

    fn release_waiting(&mut self, id: ConnId) {
        let waiting = self.conn_mut(id).map(|conn| core::mem::take(&mut conn.waiting)).unwrap_or_default();
        for source in waiting {
            if let Some(conn) = self.conn_mut(source) {
                conn.paused = false;
                self.resumed.push(source);
            }
        }
    }

    /// Connections that may be read again although no readiness will be reported.
    pub(crate) fn take_resumed(&mut self) -> Vec<ConnId> {
        core::mem::take(&mut self.resumed)
    }

    /// The connection could have been read further: it is among the next `take_resumed`.
    pub(crate) fn read_again(&mut self, id: ConnId) {
        self.resumed.push(id);
    }

    /// Connections that had no room and have some again.
    pub(crate) fn take_drained(&mut self) -> Vec<ConnId> {
        core::mem::take(&mut self.drained)
    }

    /// Connections that failed while being written, and why. They are still to be closed.
    pub(crate) fn take_broken(&mut self) -> Vec<(ConnId, String)> {
        core::mem::take(&mut self.broken)
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.dirty.is_empty() && self.resumed.is_empty() && self.drained.is_empty() && self.broken.is_empty()
    }

    /// Closes at once.
    pub fn close(&mut self, id: ConnId) {
        if !self.exists(id) {
            return;
        }
        self.release_waiting(id);
        let slot = &mut self.slots[id.slot as usize];
        slot.generation = slot.generation.wrapping_add(1);
        slot.conn = None; // closing the descriptor ends its registration
        self.free.push(id.slot);
    }

    /// Closes when what is queued has been written. Nothing more is read or accepted for writing.
    pub(crate) fn close_after_flush(&mut self, id: ConnId) {
        if let Some(conn) = self.conn_mut(id) {
            conn.closing = true;
            if !core::mem::replace(&mut conn.dirty, true) {
                self.dirty.push(id);
            }
        }
    }

    fn conn(&self, id: ConnId) -> Option<&Conn> {
        self.slots.get(id.slot as usize).filter(|slot| slot.generation == id.generation)?.conn.as_ref()
    }

    fn conn_mut(&mut self, id: ConnId) -> Option<&mut Conn> {
        self.slots.get_mut(id.slot as usize).filter(|slot| slot.generation == id.generation)?.conn.as_mut()
    }
}
