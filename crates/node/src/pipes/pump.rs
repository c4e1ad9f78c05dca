//! Bytes between the socket of an end here and a data connection.
//!
//! Each direction has its credit: what a process does not read stays with the sender, and no pipe waits for
//! another. Bytes that arrive go straight to the process, or wait here, at most a window of them.

use super::{KIND_SHIFT, PUMP};
use crate::conn::ConnId;
use crate::context::{Context, Owner, Readiness, token};
use mio::net::UnixStream;
use mio::{Interest, Registry};
use mutirao_wire::limits::DATA_BODY_MAX;
use mutirao_wire::pipe::{PIPE_WINDOW_BYTES, pipe_credit_header, pipe_header};
use mutirao_wire::{AppId, Handle};
use rustix::io::Errno;
use rustix::net::{SendFlags, Shutdown, send, shutdown};
use std::collections::{BTreeSet, HashMap};
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, OwnedFd};

/// Bytes taken from one process in one turn; the others wait meanwhile.
const TURN_BYTES: usize = 256 * 1024;
/// Credit is given back when so much has gathered.
const CREDIT_STEP: u64 = PIPE_WINDOW_BYTES / 4;
/// Pipes that are over, with bytes their process has yet to take.
const LINGER_MAX: usize = 1024;

/// Names a pipe.
pub(crate) type PipeKey = (AppId, u64);
/// Where a pipe is bound.
pub(crate) type Wire = (ConnId, Handle);

/// One end of a pipe that leads elsewhere.
struct Pump {
    pipe: PipeKey,
    /// None: it is over, and only what waits for the process is still to be written.
    wire: Option<Wire>,
    stream: UnixStream,
    /// Bytes that the other side takes.
    credit: u64,
    readable: bool,
    /// The process writes no more.
    read_ended: bool,
    /// What waits for the process, from `start` on.
    out: Vec<u8>,
    start: usize,
    /// The other side writes no more.
    out_ended: bool,
    /// The process reads no more.
    deaf: bool,
    /// It is reported when there is room to write.
    awaits_room: bool,
    /// Credit that the other side has not been given back.
    owed: u64,
}

/// All of them.
#[derive(Default)]
pub(crate) struct Pumps {
    pumps: HashMap<u64, Pump>,
    by_wire: HashMap<Wire, u64>,
    by_pipe: HashMap<PipeKey, u64>,
    /// Those that could go on, had they not had their turn.
    again: Vec<u64>,
    /// Those that wait for room on a connection.
    stalled: BTreeSet<(ConnId, u64)>,
    lingering: usize,
    next: u64,
    scratch: Vec<u8>,
}

impl Pumps {
    /// A pipe is bound: makes the socket of its end, and returns what the end is to be given.
    pub(crate) fn make(&mut self, ctx: &mut Context, pipe: PipeKey, wire: Wire) -> io::Result<OwnedFd> {
        let (mut stream, theirs) = UnixStream::pair()?;
        self.next += 1;
        let number = self.next;
        ctx.registry.register(&mut stream, token_of(number), Interest::READABLE)?;
        let pump = Pump {
            pipe,
            wire: Some(wire),
            stream,
            credit: PIPE_WINDOW_BYTES,
            readable: false,
            read_ended: false,
            out: Vec::new(),
            start: 0,
            out_ended: false,
            deaf: false,
            awaits_room: false,
            owed: 0,
        };
        self.pumps.insert(number, pump);
        self.by_wire.insert(wire, number);
        self.by_pipe.insert(pipe, number);
        *ctx.piped.entry(wire.0).or_default() += 1;
        // It may be left unread because of a program that was alone on it until now.
        ctx.conns.unpause(wire.0);
        Ok(theirs.into())
    }

    /// Bytes came for an end here. False: more than it may be sent.
    pub(crate) fn bytes(&mut self, ctx: &mut Context, wire: Wire, body: &[u8]) -> bool {
        // Otherwise of a binding that was given up.
        let Some(&number) = self.by_wire.get(&wire) else { return true };
        let Some(pump) = self.pumps.get_mut(&number) else { return true };
        if pump.out_ended || pump.waiting() + body.len() > PIPE_WINDOW_BYTES as usize {
            return false;
        }
        if body.is_empty() {
            pump.out_ended = true;
        }
        pump.take(body);
        pump.after_writing(ctx, number);
        true
    }

    /// The other side takes more.
    pub(crate) fn credit(&mut self, ctx: &mut Context, wire: Wire, bytes: u64) {
        let Some(&number) = self.by_wire.get(&wire) else { return };
        if let Some(pump) = self.pumps.get_mut(&number) {
            pump.credit = pump.credit.saturating_add(bytes).min(PIPE_WINDOW_BYTES);
            self.read(ctx, number);
        }
    }

    /// The process has written, read, or ended.
    pub(crate) fn ready(&mut self, ctx: &mut Context, number: u64, readiness: Readiness) {
        let Some(pump) = self.pumps.get_mut(&number) else { return };
        if readiness.writable {
            pump.write();
            pump.after_writing(ctx, number);
        }
        if pump.wire.is_none() {
            return self.linger(number);
        }
        if readiness.readable {
            pump.readable = true;
            self.read(ctx, number);
        }
    }

    /// There is room again on a connection.
    pub(crate) fn drained(&mut self, ctx: &mut Context, conn: ConnId) {
        let stalled: Vec<(ConnId, u64)> = self.stalled.range((conn, 0)..=(conn, u64::MAX)).copied().collect();
        for entry in stalled {
            self.stalled.remove(&entry);
            self.read(ctx, entry.1);
        }
    }

    /// Whether one has more to move.
    pub(crate) fn has_more(&self) -> bool {
        !self.again.is_empty()
    }

    pub(crate) fn go_on(&mut self, ctx: &mut Context) {
        for number in core::mem::take(&mut self.again) {
            self.read(ctx, number);
        }
    }

    /// Moves what the process has written, as far as it is taken.
    fn read(&mut self, ctx: &mut Context, number: u64) {
        let Some(pump) = self.pumps.get_mut(&number) else { return };
        let Some((conn, handle)) = pump.wire else { return };
        if self.scratch.is_empty() {
            self.scratch = vec![0; DATA_BODY_MAX];
        }
        let mut moved = 0;
        while pump.readable && !pump.read_ended && pump.credit > 0 {
            let room = ctx.conns.room(conn);
            if room == 0 {
                self.stalled.insert((conn, number));
                return;
            }
            if moved >= TURN_BYTES {
                self.again.push(number);
                return;
            }
            let most = room.min(DATA_BODY_MAX).min(usize::try_from(pump.credit).unwrap_or(usize::MAX));
            let count = match pump.stream.read(&mut self.scratch[..most]) {
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    pump.readable = false;
                    return;
                }
                // It has gone.
                Err(_) => 0,
            };
            pump.read_ended = count == 0;
            pump.credit -= count as u64;
            moved += count;
            ctx.conns.put(conn, pipe_header(handle, count), &self.scratch[..count]);
        }
    }

    /// The binding is over.
    pub(crate) fn end_wire(&mut self, ctx: &mut Context, wire: Wire) {
        if let Some(&number) = self.by_wire.get(&wire) {
            self.end(ctx, number);
        }
    }

    /// What an end here was given is over.
    pub(crate) fn end_pipe(&mut self, ctx: &mut Context, pipe: PipeKey) {
        if let Some(&number) = self.by_pipe.get(&pipe) {
            self.end(ctx, number);
        }
    }

    /// The process gets what has arrived, then the end.
    fn end(&mut self, ctx: &mut Context, number: u64) {
        let Some(pump) = self.pumps.get_mut(&number) else { return };
        let Some(wire) = pump.wire.take() else { return };
        pump.out_ended = true;
        self.by_wire.remove(&wire);
        self.by_pipe.remove(&pump.pipe);
        self.stalled.remove(&(wire.0, number));
        if let Some(count) = ctx.piped.get_mut(&wire.0) {
            *count -= 1;
            if *count == 0 {
                ctx.piped.remove(&wire.0);
            }
        }
        self.lingering += 1;
        if self.lingering > LINGER_MAX {
            pump.deaf = true;
        }
        self.linger(number);
    }

    /// Drops one that is over, once nothing waits for its process.
    fn linger(&mut self, number: u64) {
        if self.pumps.get(&number).is_some_and(|pump| pump.deaf || pump.waiting() == 0) {
            self.pumps.remove(&number); // closing the descriptor ends its registration
            self.lingering -= 1;
        }
    }
}

impl Pump {
    fn waiting(&self) -> usize {
        self.out.len() - self.start
    }

    /// Takes bytes for the process: straight to it, where nothing is before them.
    fn take(&mut self, mut body: &[u8]) {
        while self.waiting() == 0 && !body.is_empty() && !self.awaits_room {
            match self.send(body) {
                Some(count) => body = &body[count..],
                None => break,
            }
        }
        if self.deaf {
            self.owed += body.len() as u64;
        } else {
            self.out.extend_from_slice(body);
        }
    }

    /// Writes what waits.
    fn write(&mut self) {
        while self.waiting() > 0 {
            let bytes = core::mem::take(&mut self.out);
            let sent = self.send(&bytes[self.start..]);
            self.out = bytes;
            match sent {
                Some(count) => self.start += count,
                None => break,
            }
        }
        if self.deaf {
            self.owed += self.waiting() as u64;
            self.start = self.out.len();
        }
        if self.waiting() == 0 {
            self.out.clear();
            self.start = 0;
            self.out.shrink_to(DATA_BODY_MAX);
        } else if self.start >= DATA_BODY_MAX {
            self.out.drain(..self.start);
            self.start = 0;
        }
    }

    /// Writes once; `None` if the process takes no more now, or ever.
    fn send(&mut self, bytes: &[u8]) -> Option<usize> {
        loop {
            match send(&self.stream, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(count) => {
                    self.owed += count as u64;
                    return Some(count);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return None,
                Err(_) => {
                    self.deaf = true;
                    return None;
                }
            }
        }
    }

    /// Gives credit back, passes the end on, and has room reported while it is needed.
    fn after_writing(&mut self, ctx: &mut Context, number: u64) {
        if let Some((conn, handle)) = self.wire
            && self.owed >= CREDIT_STEP
            && !self.out_ended
        {
            let header = pipe_credit_header(handle, core::mem::take(&mut self.owed));
            ctx.conns.put(conn, header, &[]);
        }
        let waits = self.waiting() > 0;
        if !waits && self.out_ended && !self.deaf && self.wire.is_some() {
            // It fails only when the process is gone.
            let _ = shutdown(self.stream.as_fd(), Shutdown::Write);
        }
        if let Err(error) = self.await_room(&ctx.registry, number, waits) {
            tracing::warn!("a pipe cannot be watched: {error}");
            self.deaf = true;
        }
    }

    /// Not while nothing waits to be written, for the process's every read makes room.
    fn await_room(&mut self, registry: &Registry, number: u64, wanted: bool) -> io::Result<()> {
        if wanted != core::mem::replace(&mut self.awaits_room, wanted) {
            let interest = if wanted { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
            registry.reregister(&mut self.stream, token_of(number), interest)?;
        }
        Ok(())
    }
}

fn token_of(number: u64) -> mio::Token {
    token(Owner::Pipes, PUMP << KIND_SHIFT | number)
}
