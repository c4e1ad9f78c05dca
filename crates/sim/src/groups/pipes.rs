//! What the machines of pipes say is done here: data connections, and the bytes in the pipes.

use super::launcher::ToLauncher;
use super::lender::ToWorker;
use super::net::{Frame, Next, Way};
use super::world::{APP, HOME, World};
use core::time::Duration;
use mutirao_tree::pipe::{Input, Output};
use mutirao_wire::pipe::{PipeBinding, PipeBound, PipePlace};
use mutirao_wire::{Handle, NodeId};
use std::collections::VecDeque;

/// A data connection: who dialled, whom, the so manieth.
pub(super) type Conn = (usize, usize, u64);
/// Names what an end of a pipe was given, once.
pub(super) type EndId = u64;

/// A data connection that stands, or stood.
#[derive(Debug, Default)]
pub(super) struct Data {
    /// What is under way is lost.
    cut: bool,
    /// The nodes that have noticed.
    down: Vec<usize>,
}

impl Data {
    pub(super) fn is_down(&self, at: usize) -> bool {
        self.cut || self.down.contains(&at)
    }
}

/// What an end of a pipe was given.
#[derive(Debug)]
pub(super) struct End {
    at: usize,
    other: Other,
    came: VecDeque<u8>,
    /// Bytes that may be written.
    room: usize,
    /// Nothing more comes.
    has_ended: bool,
    /// Nothing more goes.
    is_deaf: bool,
    whose: PipePlace,
    worker: u64,
}

#[derive(Debug, Clone, Copy)]
enum Other {
    Wire(Conn, Handle),
    Ring(EndId),
}

/// The pipe is of no further use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gone;

impl World {
    pub(super) fn tell_pipes(&mut self, at: usize, input: Input<Conn>) {
        if !self.nodes[at].alive {
            return;
        }
        let mut out = Vec::new();
        self.nodes[at].pipes.handle(self.now, input, &mut out);
        for output in out {
            self.pipe_output(at, output);
        }
        if let Some(due) = self.nodes[at].pipes.deadline() {
            let life = self.nodes[at].life;
            self.at(due.max(self.now), Next::PipesTime { at, life });
        }
    }

    fn pipe_output(&mut self, at: usize, output: Output<Conn>) {
        match output {
            Output::Send { to, message } => self.send_order(at, self.index(to), message),
            Output::Want(node) => {
                let to = self.index(node.id);
                if self.linked(at, to) {
                    let delay = self.random.between(self.plan.latency.0, self.plan.latency.1) * 3;
                    let cut = self.cuts_of(at, to);
                    self.at(self.now + delay, Next::Dialled { from: at, to, cut });
                } else {
                    self.tell_pipes(at, Input::DataFailed(node.id));
                }
            }
            Output::Bind { conn, mut bind } => {
                bind.plain = false;
                self.send_frame(at, conn, Frame::Binding(bind.into()));
            }
            Output::Bound { conn, handle } => {
                self.send_frame(at, conn, Frame::Binding(PipeBound { handle, plain: None }.into()));
            }
            Output::Offer { .. } | Output::Connect { .. } => unreachable!("no link is trusted"),
            Output::Unbind { conn, unbound } => self.send_frame(at, conn, Frame::Binding(unbound.into())),
            Output::Ring { number, a, b, .. } => {
                let (one, other) = (self.last_end + 1, self.last_end + 2);
                self.last_end = other;
                self.give(at, number, a, one, Other::Ring(other));
                self.give(at, number, b, other, Other::Ring(one));
            }
            Output::Socket { number, at: place, conn, handle, .. } => {
                self.last_end += 1;
                let end = self.last_end;
                self.wires.insert((conn, handle, at), end);
                self.give(at, number, place, end, Other::Wire(conn, handle));
            }
            Output::Break { number, at: place, .. } => {
                self.take_back(at, number, place);
                self.tell_end(at, place, ToLauncher::Broken { number }, ToWorker::Broken { number });
            }
            Output::Fail { number, at: place, .. } => {
                self.take_back(at, number, place);
                if place != PipePlace::Program {
                    self.tell_end(at, place, ToLauncher::Broken { number }, ToWorker::Broken { number });
                }
            }
            Output::Tell { number, .. } => {
                self.along(Way::Launcher, Next::ToLauncher(ToLauncher::Broken { number }));
            }
        }
    }

    fn give(&mut self, at: usize, number: u64, place: PipePlace, end: EndId, other: Other) {
        let worker = self.worker_at(at, place).unwrap_or(0);
        let room = self.plan.window_bytes;
        let given = End {
            at,
            other,
            came: VecDeque::new(),
            room,
            has_ended: false,
            is_deaf: false,
            whose: place,
            worker,
        };
        self.ends.insert(end, given);
        self.given.insert((at, number, place), end);
        self.tell_end(at, place, ToLauncher::Opened { number, end }, ToWorker::Opened { number, end });
    }

    fn take_back(&mut self, at: usize, number: u64, place: PipePlace) {
        if let Some(end) = self.given.remove(&(at, number, place)) {
            self.close(end);
        }
    }

    /// The node closes its side: what has come can still be read.
    fn close(&mut self, end: EndId) {
        let Some(End { has_ended, is_deaf, other, at, .. }) = self.ends.get_mut(&end) else { return };
        (*has_ended, *is_deaf) = (true, true);
        if let Other::Wire(conn, handle) = *other {
            let at = *at;
            self.wires.remove(&(conn, handle, at));
        }
        self.wake(end);
    }

    fn worker_at(&self, at: usize, place: PipePlace) -> Option<u64> {
        match place {
            PipePlace::Lease(serial) => self.nodes[at].lent.get(&serial)?.worker,
            _ => None,
        }
    }

    fn tell_end(&mut self, at: usize, place: PipePlace, launcher: ToLauncher, told: ToWorker) {
        match place {
            PipePlace::Program if at == HOME => self.along(Way::Launcher, Next::ToLauncher(launcher)),
            _ => {
                if let Some(worker) = self.worker_at(at, place) {
                    self.along(Way::Worker(worker), Next::ToWorker { worker, told });
                }
            }
        }
    }

    /// Whoever has this end looks at it.
    fn wake(&mut self, end: EndId) {
        let Some(End { whose, worker, .. }) = self.ends.get(&end) else { return };
        let next = if *whose == PipePlace::Program { Next::Launcher } else { Next::Worker(*worker) };
        let delay = self.random.between(Duration::from_micros(1), Duration::from_micros(50));
        self.at(self.now + delay, next);
    }

    // ---- connections ----

    pub(super) fn dialled(&mut self, from: usize, to: usize, cut: u64) {
        let peer = self.nodes[to].me.id;
        if !self.linked(from, to) || self.cuts_of(from, to) != cut {
            return self.tell_pipes(from, Input::DataFailed(peer));
        }
        let standing = |(conn, data): (&Conn, &Data)| {
            ((conn.0, conn.1) == (from, to) && !data.is_down(from) && !data.is_down(to)).then_some(*conn)
        };
        let conn = self.data.iter().find_map(standing).unwrap_or_else(|| {
            self.last_conn += 1;
            (from, to, self.last_conn)
        });
        self.data.entry(conn).or_default();
        self.tell_pipes(from, Input::DataUp { peer, conn });
    }

    /// Connections between two nodes are lost, or one of them; each notices in its own time.
    pub(super) fn cut_data(&mut self, a: usize, b: usize) {
        let between = |conn: &Conn| (conn.0, conn.1) == (a, b) || (conn.0, conn.1) == (b, a);
        let lost: Vec<Conn> = self
            .data
            .iter()
            .filter(|(conn, data)| between(conn) && !data.cut)
            .map(|(conn, _)| *conn)
            .collect();
        for conn in lost {
            self.data.entry(conn).or_default().cut = true;
            for at in [a, b] {
                let delay = self.random.between(Duration::from_micros(10), Duration::from_millis(1500));
                self.at(self.now + delay, Next::DataDown { conn, at });
            }
        }
    }

    pub(super) fn data_down(&mut self, conn: Conn, at: usize) {
        self.data.entry(conn).or_default().down.push(at);
        self.tell_pipes(at, Input::DataDown { conn });
    }

    pub(super) fn frame(&mut self, conn: Conn, to: usize, frame: Frame) {
        if self.data.get(&conn).is_none_or(|data| data.is_down(to)) || !self.nodes[to].alive {
            return;
        }
        let peer: NodeId = self.nodes[if conn.0 == to { conn.1 } else { conn.0 }].me.id;
        match frame {
            Frame::Binding(PipeBinding::BindPipe(bind)) => {
                self.tell_pipes(to, Input::Bind { peer, conn, bind })
            }
            Frame::Binding(PipeBinding::PipeBound(bound)) => {
                self.tell_pipes(to, Input::Bound { conn, bound })
            }
            Frame::Binding(PipeBinding::PipeUnbound(unbound)) => {
                if let Some(end) = self.wires.get(&(conn, unbound.handle, to)).copied() {
                    self.close(end);
                }
                self.tell_pipes(to, Input::Unbound { conn, unbound });
            }
            Frame::Bytes(handle, bytes) => {
                if let Some(end) = self.wires.get(&(conn, handle, to)).copied() {
                    self.bytes_come(end, bytes);
                }
            }
            Frame::Room(handle, bytes) => {
                if let Some(end) = self.wires.get(&(conn, handle, to)).copied() {
                    self.room_comes(end, bytes);
                }
            }
        }
    }

    // ---- bytes ----

    pub(super) fn bytes_come(&mut self, end: EndId, bytes: Vec<u8>) {
        if let Some(end) = self.ends.get_mut(&end) {
            end.has_ended |= bytes.is_empty();
            end.came.extend(bytes);
        }
        self.wake(end);
    }

    pub(super) fn room_comes(&mut self, end: EndId, bytes: usize) {
        if let Some(end) = self.ends.get_mut(&end) {
            end.room += bytes;
        }
        self.wake(end);
    }

    /// Takes what is there, up to a limit.
    pub(super) fn read(&mut self, id: EndId, most: usize) -> Result<Vec<u8>, Gone> {
        let end = self.ends.get_mut(&id).ok_or(Gone)?;
        if end.came.is_empty() && end.has_ended {
            return Err(Gone);
        }
        let bytes: Vec<u8> = end.came.drain(..most.min(end.came.len())).collect();
        let (at, other, more) = (end.at, end.other, !end.came.is_empty() || end.has_ended);
        if !bytes.is_empty() {
            match other {
                Other::Wire(conn, handle) => self.send_frame(at, conn, Frame::Room(handle, bytes.len())),
                Other::Ring(end) => self.along(Way::Ring(end), Next::RingRoom { end, bytes: bytes.len() }),
            }
        }
        if more {
            self.wake(id);
        }
        Ok(bytes)
    }

    /// Writes what fits; how much that was.
    pub(super) fn write(&mut self, id: EndId, bytes: &[u8]) -> Result<usize, Gone> {
        let count = {
            let end = self.ends.get_mut(&id).ok_or(Gone)?;
            if end.is_deaf {
                return Err(Gone);
            }
            let count = bytes.len().min(end.room);
            end.room -= count;
            count
        };
        let mut rest = &bytes[..count];
        while !rest.is_empty() {
            let whole = self.random.chance(70);
            let (piece, after) =
                rest.split_at(if whole { rest.len() } else { 1 + self.random.below(rest.len()) });
            self.put(id, piece.to_vec());
            rest = after;
        }
        Ok(count)
    }

    fn put(&mut self, id: EndId, bytes: Vec<u8>) {
        let Some(End { at, other, .. }) = self.ends.get(&id) else { return };
        match (*at, *other) {
            (at, Other::Wire(conn, handle)) => self.send_frame(at, conn, Frame::Bytes(handle, bytes)),
            (_, Other::Ring(end)) => self.along(Way::Ring(end), Next::RingBytes { end, bytes }),
        }
    }

    /// Whoever has this end wants no more of it.
    pub(super) fn hang_up(&mut self, id: EndId) {
        self.put(id, Vec::new());
        if let Some(End { other: Other::Ring(other), .. }) = self.ends.remove(&id)
            && let Some(other) = self.ends.get_mut(&other)
        {
            other.is_deaf = true;
        }
    }

    /// The ends that a worker has had go with it.
    pub(super) fn hang_up_all(&mut self, worker: u64) {
        let its: Vec<EndId> = (self.ends.iter())
            .filter(|(_, end)| matches!(end.whose, PipePlace::Lease(_)) && end.worker == worker)
            .map(|(id, _)| *id)
            .collect();
        its.into_iter().for_each(|end| self.hang_up(end));
    }

    /// Tells the home's machine what a program of this name does.
    pub(super) fn app_gone(&mut self) {
        self.tell_pipes(HOME, Input::AppGone(APP));
    }
}
