//! Pipes: what programs, homes, lenders and connections say of them goes to the machine, and what it says is
//! done here.

use super::Daemon;
use crate::conn::{ConnId, Transport, UnixTransport};
use crate::context::Context;
use crate::pipes::{WorkerLine, ring, terminal};
use crate::sys;
use mutirao_tree::pipe::{Input, Output, Spot};
use mutirao_wire::frame::{FrameError, Header};
use mutirao_wire::kind::Kind;
use mutirao_wire::limits::{CONTROL_BODY_MAX, TEXT_BYTES_MAX};
use mutirao_wire::pipe::{
    ClosePipe, JoinPipe, OpenPipe, PipeBinding, PipeBound, PipeBroken, PipeEnd, PipeFailed, PipeMessage,
    PipeOpened, PipeOrder, PipePlace, PipeState, PipeUnbound, PipeWay, RingSide,
};
use mutirao_wire::worker::{BlobHere, KeepBlob, LineMessage, NeedBlob, TerminalMade};
use mutirao_wire::{AppId, BlobHash, Handle, LeaseId, NodeId};
use std::fs::File;
use std::os::fd::OwnedFd;

/// A worker that leaves so much unread on its line does not listen.
const LINE_MAX: usize = 64 * 1024;

impl Daemon {
    pub(super) fn tell_pipes(&mut self, input: Input<ConnId>) {
        self.pipes.tell(self.ctx.now, input);
    }

    /// A program speaks of a pipe.
    pub(super) fn program_pipe(&mut self, conn: ConnId, message: PipeMessage) -> Result<(), FrameError> {
        let Some(client) = self.clients.get(conn) else {
            return Err(FrameError::OutOfPlace { kind: message.kind() });
        };
        let (app, epoch) = (client.app, client.epoch);
        match message {
            PipeMessage::OpenPipe(OpenPipe { number, a, b }) => {
                match (self.spot(conn, a), self.spot(conn, b)) {
                    (Some(a), Some(b)) => self.tell_pipes(Input::Open { app, epoch, number, a, b }),
                    _ => {
                        let text = "a lease of it is not held, or has no worker".to_owned();
                        put(&mut self.ctx, conn, PipeFailed { number, text }, Vec::new());
                    }
                }
            }
            PipeMessage::ClosePipe(ClosePipe { number }) => self.tell_pipes(Input::Close { app, number }),
            other => return Err(FrameError::OutOfPlace { kind: other.kind() }),
        }
        Ok(())
    }

    fn spot(&self, conn: ConnId, end: PipeEnd) -> Option<Spot> {
        let me = &self.ctx.me;
        let PipeEnd::Lease(handle) = end else {
            return Some(Spot { node: me.clone(), place: PipePlace::Program });
        };
        let lease = self.clients.get(conn)?.held(handle)?.lease;
        let node = if lease.lender == me.id { me.clone() } else { self.streams.lender(lease)?.clone() };
        Some(Spot { node, place: PipePlace::Lease(lease.serial) })
    }

    /// A lease held by a program here is over.
    pub(super) fn lease_over(&mut self, conn: ConnId, lease: LeaseId) {
        if let Some(app) = self.clients.get(conn).map(|client| client.app) {
            self.tell_pipes(Input::LeaseOver { app, lender: lease.lender, serial: lease.serial });
        }
    }

    /// Another node speaks of a pipe, on the control connection.
    pub(super) fn pipe_order(&mut self, from: NodeId, message: PipeOrder) {
        match message {
            PipeOrder::JoinPipe(join) => {
                let here = join.node.id == self.ctx.me.id;
                let is_its = self.may_join(from, &join, join.mine)
                    && (!here || self.may_join(from, &join, join.other));
                self.tell_pipes(Input::Join { from, join, is_its });
            }
            PipeOrder::LeavePipe(leave) => self.tell_pipes(Input::Leave { from, leave }),
            PipeOrder::PipeNews(news) => self.tell_pipes(Input::News { from, news }),
        }
    }

    /// Whether that home may make this end here one of a pipe.
    fn may_join(&mut self, home: NodeId, join: &JoinPipe, end: PipePlace) -> bool {
        match end {
            PipePlace::Lease(serial) => self.is_lease_of(home, join, serial),
            PipePlace::Guest(guest) => {
                let name = self.links.as_ref().and_then(|links| links.node(home)).map(|node| &node.name);
                let conn = self.clients.by_app(guest);
                let attach = conn.and_then(|conn| self.clients.get_mut(conn)?.attach.as_mut());
                attach.zip(name).is_some_and(|(attach, name)| attach.is_this(name, join.app, join.number))
            }
            PipePlace::Program => false,
        }
    }

    /// Whether a lease lent here is that home's, for that application.
    fn is_lease_of(&self, home: NodeId, join: &JoinPipe, serial: u64) -> bool {
        self.core.leases().find(|record| record.serial == serial).is_some_and(|record| {
            record.home().id == home && record.asker.app == join.app && join.epoch >= record.epoch
        })
    }

    /// Whether frames of `kind` on a data connection are about pipes.
    pub(super) fn is_pipe_frame(kind: u16) -> bool {
        kind == Kind::PipeBytes as u16 || kind == Kind::PipeCredit as u16 || PipeBinding::has_kind(kind)
    }

    /// Such a frame came.
    pub(super) fn pipe_frame(
        &mut self,
        conn: ConnId,
        peer: NodeId,
        dialled: bool,
        header: &Header,
        body: &[u8],
    ) -> Result<(), FrameError> {
        let handle = Handle(header.handle.get());
        if header.kind.get() == Kind::PipeBytes as u16 {
            if !self.pipes.pumps.bytes(&mut self.ctx, (conn, handle), body) {
                tracing::warn!(peer = %peer.short(), "a pipe is ended: more came than was asked for");
                self.unbind(conn, PipeUnbound { handle, unknown: false });
                self.tell_pipes(Input::Unbound { conn, unbound: PipeUnbound { handle, unknown: true } });
            }
            return Ok(());
        }
        if header.kind.get() == Kind::PipeCredit as u16 {
            self.pipes.pumps.credit(&mut self.ctx, (conn, handle), header.extent.get());
            return Ok(());
        }
        match PipeBinding::read(header, body)? {
            PipeBinding::BindPipe(mut bind) if !dialled => {
                bind.plain &= self.trusts(peer, conn);
                self.tell_pipes(Input::Bind { peer, conn, bind });
            }
            PipeBinding::PipeBound(bound) if dialled => self.tell_pipes(Input::Bound { conn, bound }),
            PipeBinding::PipeUnbound(unbound) => {
                let wire = (conn, unbound.handle);
                self.pipes.pumps.end_wire(&mut self.ctx, wire);
                self.pipes.plains.end(wire);
                self.tell_pipes(Input::Unbound { conn, unbound });
            }
            other => return Err(FrameError::OutOfPlace { kind: other.kind() }),
        }
        self.carry_out();
        Ok(())
    }

    /// Whether the charter lets encryption be left out between this node and `peer`.
    fn trusts(&self, peer: NodeId, conn: ConnId) -> bool {
        let trusted = self.rules.charter().trusted;
        let Some(name) = self.links.as_ref().and_then(|links| links.name(conn)) else { return false };
        let Some((here, there)) = self.ctx.conns.addresses(conn) else { return false };
        peer != self.ctx.me.id && trusted.covers([&self.ctx.me.name, name], [here.ip(), there.ip()])
    }

    /// The charter has changed: pipes on links that are no longer trusted are bound anew.
    pub(super) fn distrust(&mut self) {
        let peers = self.ctx.peers.iter();
        let data = peers
            .flat_map(|(peer, conns)| conns.data.into_iter().chain(conns.data_in).map(|conn| (*peer, conn)));
        let doubtful: Vec<NodeId> =
            data.filter(|(peer, conn)| !self.trusts(*peer, *conn)).map(|(peer, _)| peer).collect();
        for peer in doubtful {
            self.tell_pipes(Input::Distrust(peer));
        }
    }

    /// The worker of a lease lent here is no more.
    pub(super) fn worker_gone(&mut self, serial: u64) {
        if let Some(line) = self.pipes.lines.remove(&serial) {
            self.plugins.line_gone(line.conn);
            self.ctx.conns.close(line.conn);
        }
        self.tell_pipes(Input::WorkerGone { serial });
    }

    /// A data connection is lost.
    pub(super) fn pipes_cut(&mut self, conn: ConnId) {
        self.pipes.plains.end_all(conn);
        self.tell_pipes(Input::DataDown { conn });
    }

    /// Does what the machine says.
    pub(super) fn pipe_output(&mut self, output: Output<ConnId>) {
        match output {
            Output::Send { to, message } => {
                self.ctx.send_control(to, message);
            }
            // The control link, which vouches for the connection, comes first: the machine hears of it.
            Output::Want(node) => match &mut self.links {
                Some(links) if links.node(node.id).is_none() => links.dial(&mut self.ctx, &node),
                Some(_) => self.want_data(&node),
                None => self.tell_pipes(Input::DataFailed(node.id)),
            },
            Output::Bind { conn, mut bind } => {
                let peer = self.links.as_ref().and_then(|links| links.up(conn)).map(|(peer, ..)| peer);
                bind.plain &= peer.is_some_and(|peer| self.trusts(peer, conn));
                put_binding(&mut self.ctx, conn, bind);
            }
            Output::Bound { conn, handle } => {
                put_binding(&mut self.ctx, conn, PipeBound { handle, plain: None });
            }
            Output::Offer { conn, handle } => match self.pipes.plains.offer(&self.ctx, (conn, handle)) {
                Ok(plain) => put_binding(&mut self.ctx, conn, PipeBound { handle, plain: Some(plain) }),
                Err(error) => self.no_plain(conn, handle, &error),
            },
            Output::Connect { conn, handle, plain } => {
                if let Err(error) = self.pipes.plains.connect(&self.ctx, (conn, handle), &plain) {
                    self.no_plain(conn, handle, &error);
                }
            }
            Output::Unbind { conn, unbound } => self.unbind(conn, unbound),
            Output::Ring { app, number, a, b } => self.pipe_ring(app, number, a, b),
            Output::Socket { app, number, at, conn, handle, plain } => {
                let wire = (conn, handle);
                let made = if plain {
                    self.pipes.plains.hand_out(wire)
                } else {
                    self.pipes.pumps.make(&mut self.ctx, (app, number), wire)
                };
                match made {
                    Ok(socket) => {
                        let way = PipeWay::Socket { trusted: plain };
                        self.say_to(app, at, PipeOpened { number, way }, vec![socket]);
                    }
                    Err(error) => {
                        tracing::warn!("a pipe cannot be made: {error}");
                        self.tell_pipes(Input::Undone { app, number });
                    }
                }
            }
            Output::Break { app, number, at } => {
                self.pipes.pumps.end_pipe(&mut self.ctx, (app, number));
                self.say_to(app, at, PipeBroken { number }, Vec::new());
            }
            Output::Fail { app, number, at, text } => {
                self.pipes.pumps.end_pipe(&mut self.ctx, (app, number));
                if at != PipePlace::Program {
                    self.say_to(app, at, PipeFailed { number, text }, Vec::new());
                }
            }
            Output::Tell { app, number, state } => {
                let message: PipeMessage = match state {
                    PipeState::Failed(text) => PipeFailed { number, text }.into(),
                    _ => PipeBroken { number }.into(),
                };
                self.say_to(app, PipePlace::Program, message, Vec::new());
            }
        }
    }

    fn no_plain(&mut self, conn: ConnId, handle: Handle, error: &std::io::Error) {
        tracing::info!("a trusted link is not used, since no socket can be had: {error}");
        self.tell_pipes(Input::Plain { conn, handle, stands: false });
    }

    fn unbind(&mut self, conn: ConnId, unbound: PipeUnbound) {
        let wire = (conn, unbound.handle);
        self.pipes.pumps.end_wire(&mut self.ctx, wire);
        self.pipes.plains.end(wire);
        put_binding(&mut self.ctx, conn, unbound);
    }

    fn pipe_ring(&mut self, app: AppId, number: u64, a: PipePlace, b: PipePlace) {
        match ring::make() {
            Ok([caller, worker]) => {
                for (at, side, fds) in [(a, RingSide::Caller, caller), (b, RingSide::Worker, worker)] {
                    self.say_to(app, at, PipeOpened { number, way: PipeWay::Ring(side) }, fds);
                }
            }
            Err(error) => {
                tracing::warn!("a pipe cannot be made: {error}");
                self.tell_pipes(Input::Undone { app, number });
            }
        }
    }

    /// Says something to an end here, if it is there.
    fn say_to(&mut self, app: AppId, at: PipePlace, message: impl Into<PipeMessage>, fds: Vec<OwnedFd>) {
        let conn = match at {
            PipePlace::Program => self.clients.by_app(app),
            PipePlace::Guest(guest) => self.clients.by_app(guest),
            PipePlace::Lease(serial) => self.line(serial),
        };
        let Some(conn) = conn else { return };
        if !put(&mut self.ctx, conn, message, fds) {
            tracing::warn!(app = %app, "an end of a pipe cannot be told of it: its connection is closed");
        }
        if let PipePlace::Lease(serial) = at
            && self.ctx.conns.queued(conn) > LINE_MAX
        {
            self.line_fails(conn, serial, "does not listen to its node");
        }
    }

    /// A worker cannot be talked to: its lease ends, so that whoever holds it hears why.
    pub(super) fn line_fails(&mut self, conn: ConnId, serial: u64, what: &str) {
        self.ctx.conns.close(conn);
        self.kill_lease(serial, format!("its worker {what}"));
    }

    /// Hands a blob to the worker that asked for it.
    pub(super) fn blob_here(&mut self, line: ConnId, hash: BlobHash, result: Result<File, String>) {
        let (refused, fds) = match result {
            Ok(file) => (None, vec![file.into()]),
            Err(why) => (Some(sys::shortened(why, TEXT_BYTES_MAX)), Vec::new()),
        };
        let answer = LineMessage::from(BlobHere { hash, refused });
        self.ctx.conns.put_with_fds(line, fds, |out| answer.put(out));
    }

    /// A worker here speaks on its line.
    pub(super) fn line_frame(
        &mut self,
        conn: ConnId,
        serial: u64,
        header: &Header,
        body: &[u8],
    ) -> Result<(), FrameError> {
        match LineMessage::read(header, body)? {
            LineMessage::NeedTerminal(_) => {}
            LineMessage::NeedBlob(NeedBlob { hash }) => {
                let Some(record) = self.core.leases().find(|record| record.serial == serial) else {
                    return Ok(());
                };
                let lease = (serial, record.asker.app, &record.home().clone());
                if !self.plugins.need_blob(&mut self.ctx, conn, lease, hash) {
                    return Err(FrameError::OutOfPlace { kind: Kind::NeedBlob });
                }
                self.carry_out();
                return Ok(());
            }
            LineMessage::KeepBlob(KeepBlob { number }) => {
                let file = self.ctx.conns.take_fds(conn, 1).and_then(|mut files| files.pop());
                let file = file.ok_or(FrameError::Malformed { kind: Kind::KeepBlob })?;
                let Some(record) = self.core.leases().find(|record| record.serial == serial) else {
                    return Ok(());
                };
                let lease = (serial, record.asker.app);
                self.plugins.keep_blob(&mut self.ctx, conn, lease, number, file);
                self.carry_out();
                return Ok(());
            }
            other => return Err(FrameError::OutOfPlace { kind: other.kind() }),
        }
        let Some(line) = self.pipes.lines.get_mut(&serial).filter(|line| line.terminal.is_none()) else {
            return Err(FrameError::OutOfPlace { kind: Kind::NeedTerminal });
        };
        let (refused, fds) = match terminal::make() {
            Ok((sides, device)) => {
                line.terminal = Some(device);
                (None, sides.into())
            }
            Err(errno) => (Some(format!("its node can make no terminal: {errno}")), Vec::new()),
        };
        let answer = LineMessage::from(TerminalMade { refused });
        self.ctx.conns.put_with_fds(conn, fds, |out| answer.put(out));
        Ok(())
    }

    /// The line to the worker of a lease.
    pub(super) fn line(&mut self, serial: u64) -> Option<ConnId> {
        if let Some(line) = self.pipes.lines.get(&serial) {
            return Some(line.conn);
        }
        let stream = self.lender.take_line(serial)?;
        let opened = UnixTransport::new(mio::net::UnixStream::from_std(stream)).and_then(|unix| {
            self.ctx.conns.insert(&self.ctx.registry, Transport::Unix(unix), CONTROL_BODY_MAX)
        });
        match opened {
            Ok(line) => {
                self.pipes.lines.insert(serial, WorkerLine { conn: line, terminal: None });
                Some(line)
            }
            Err(error) => {
                tracing::warn!("the line to a worker cannot be used: {error}");
                None
            }
        }
    }
}

/// False if the connection is closed.
fn put(ctx: &mut Context, conn: ConnId, message: impl Into<PipeMessage>, fds: Vec<OwnedFd>) -> bool {
    let message = message.into();
    ctx.conns.put_with_fds(conn, fds, |out| message.put(out))
}

fn put_binding(ctx: &mut Context, conn: ConnId, message: impl Into<PipeBinding>) {
    let message = message.into();
    ctx.conns.put_with(conn, |out| message.put(out));
}
