//! The loop: read, decide, write.

mod administration;
mod answers;
mod charter;
mod joining;
mod lending;
mod measuring;
mod members;
mod nodes;
mod outputs;
mod pipes;
mod placing;
mod programs;
mod seeking;
mod start;

use crate::authority::Rights;
use crate::clients::{self, Clients};
use crate::conn::{ConnId, Read, Transport, UnixTransport};
use crate::context::{Action, Context, Done, Owner, Readiness, owner_and_key};
use crate::error::Error;
use crate::groups::Groups;
use crate::lender::Lender;
use crate::links::Links;
use crate::members::Members;
use crate::options::Ready;
use crate::pipes::Pipes;
use crate::plugins::Plugins;
use crate::presence::Presence;
use crate::runtime::Place;
use crate::streams::Streams;
use crate::sys;
use crate::visits::Visits;
use joining::Joining;
use mio::net::{TcpListener, UnixListener};
use mio::{Events, Poll, Waker};
use mutirao_tree::{Core, Input, Output, pipe};
use mutirao_trust::Identity;
use mutirao_wire::frame::{FrameError, flags};
use mutirao_wire::lease::WorkerState;
use mutirao_wire::limits::{CONTROL_BODY_MAX, DATA_BODY_MAX, HANDSHAKE};
use mutirao_wire::link::{Link, Purpose};
use mutirao_wire::local::BlobOffered;
use mutirao_wire::worker::{BlobKept, LineMessage};
use mutirao_wire::{NodeId, NodeRef, Tick};
use placing::Placing;
use seeking::Seeking;
use std::collections::HashSet;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Reads of one connection in one turn; the others wait meanwhile.
const READS_A_TURN: usize = 8;
/// Rounds of writing and telling of new room in one turn.
const ROUNDS_A_TURN: usize = 4;
/// Room kept from turn to turn for what the core wants done.
const OUTPUTS_KEPT: usize = 64;
/// How long a node that goes down waits for its workers to end.
const LEAVING: Duration = Duration::from_secs(1);
/// When letting somebody in failed, it is tried again after so long.
const ACCEPT_AGAIN: Duration = Duration::from_millis(200);
/// How often links and data connections that nobody uses are looked for.
const TIDY: Duration = Duration::from_secs(15);

/// Keys of [`Owner::Daemon`].
mod key {
    pub const WAKER: u64 = 0;
    pub const LOCAL: u64 = 1;
    pub const SIGNALS: u64 = 2;
    /// And the following.
    pub const LISTENERS: u64 = 16;
}

/// A node of this machine, ready to run.
pub struct Node {
    poll: Poll,
    daemon: Daemon,
}

/// Makes a running node leave the pool and end. Can be sent to other threads and copied.
#[derive(Clone)]
pub struct Stop {
    wanted: Arc<AtomicBool>,
    waker: Arc<Waker>,
}

impl Stop {
    /// The node leaves: its leases end, its children look for another parent, its files in the
    /// runtime directory go. [`Node::run`] returns within about a second.
    pub fn stop(&self) {
        self.wanted.store(true, Ordering::Relaxed);
        if let Err(error) = self.waker.wake() {
            tracing::error!("the node cannot be told to stop: {error}");
        }
    }
}

type TellReady = Box<dyn FnOnce(Ready) + Send>;

struct Daemon {
    ctx: Context,
    core: Core,
    outputs: Vec<Output>,
    /// Not there in an embedded node.
    links: Option<Links>,
    clients: Clients,
    groups: Groups,
    streams: Streams,
    pipes: Pipes,
    members: Members,
    visits: Visits,
    /// Memory for what comes by lanes.
    aside: Vec<u8>,
    lender: Lender,
    plugins: Plugins,
    rights: Rights,
    rules: charter::Rules,
    presence: Presence,
    /// The user of the pool who runs this daemon, where known.
    user: Option<Identity>,
    /// The user who runs this daemon, by number.
    uid: u32,
    pool: Option<mutirao_wire::PoolId>,
    joining: Joining,
    placing: Placing,
    seeking: Seeking,
    administration: administration::Administration,
    measuring: measuring::Measuring,
    /// The last pipe of a guest that was ordered; no number of an earlier life comes again.
    guest_pipes: u64,
    started: Tick,
    listeners: Vec<TcpListener>,
    local: Option<UnixListener>,
    place: Option<Place>,
    /// The one program of an embedded node.
    only: Option<ConnId>,
    /// Kept open: it becomes readable when the process is told to end.
    _signals: Option<OwnedFd>,
    stop: Stop,
    leaving: Option<Tick>,
    left: bool,
    tidied: Tick,
    /// When to try again to let in those who wait.
    accept_again: Option<Tick>,
    /// Nodes whose data connection nobody used when it was last looked for.
    unused: HashSet<NodeId>,
    ready: Option<(Tick, TellReady)>,
    /// Held as long as the identity is in use.
    _identity_lock: Option<OwnedFd>,
}

/// Who is at the other end of a connection.
#[derive(Clone, Copy)]
enum End {
    Program,
    Stranger,
    Control(NodeId),
    Data {
        peer: NodeId,
        dialled: bool,
    },
    /// The worker of a lease lent here.
    Line(u64),
}

impl Node {
    /// What makes the node end.
    pub fn stopper(&self) -> Stop {
        self.daemon.stop.clone()
    }

    /// The node, with the addresses it listens on.
    pub fn node(&self) -> &NodeRef {
        &self.daemon.ctx.me
    }

    /// Runs until stopped. Errors are those of waiting for readiness; all others concern one
    /// connection and end it.
    pub fn run(mut self) -> Result<(), Error> {
        let mut events = Events::with_capacity(256);
        let daemon = &mut self.daemon;
        daemon.ctx.now = sys::now();
        daemon.begin();
        daemon.settle();
        loop {
            let timeout = daemon.timeout();
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                    return Err(Error::Kernel { what: "waiting for connections", source: error });
                }
                _ => {}
            }
            daemon.ctx.now = sys::now().max(daemon.ctx.now);
            for event in events.iter() {
                let closed = event.is_read_closed() || event.is_error();
                let readiness = Readiness {
                    readable: event.is_readable() || closed,
                    writable: event.is_writable() || event.is_error(),
                    closed,
                };
                if let Some((owner, key)) = owner_and_key(event.token()) {
                    daemon.ready(owner, key, readiness);
                }
            }
            daemon.resume();
            // What came in during a pause counts before time that passed in it.
            daemon.time();
            daemon.settle();
            if daemon.is_over() {
                daemon.end();
                return Ok(());
            }
        }
    }
}

impl Daemon {
    fn timeout(&self) -> Option<Duration> {
        if !self.ctx.conns.is_quiet() {
            return Some(Duration::ZERO);
        }
        let deadlines = [
            self.core.deadline(),
            self.links.as_ref().and_then(Links::deadline),
            self.streams.deadline(),
            self.pipes.deadline(),
            self.members.deadline().filter(|_| self.leaving.is_none()),
            self.lender.deadline(),
            self.plugins.deadline(),
            self.joining.deadline(),
            self.placing.deadline(),
            self.rules.due,
            self.presence.deadline(),
            self.groups.deadline(),
            self.clients.oldest_stranger().map(|since| since + HANDSHAKE),
            self.leaving.map(|since| since + LEAVING),
            self.ready.as_ref().map(|(until, _)| *until),
            self.accept_again,
            self.links.as_ref().filter(|links| links.count() > 0).map(|_| self.tidied + TIDY),
        ];
        let next = deadlines.into_iter().flatten().min()?;
        // Whole milliseconds are what the kernel waits; rounding down would make it wait in steps.
        let wait = next - sys::now();
        Some(if wait.is_zero() { wait } else { wait + Duration::from_micros(999) })
    }

    fn ready(&mut self, owner: Owner, key: u64, readiness: Readiness) {
        match owner {
            Owner::Conn => {
                if let Some(conn) = self.ctx.conns.note(key, readiness)
                    && readiness.readable
                {
                    self.read(conn);
                }
            }
            Owner::Lender => self.lender.ready(&mut self.ctx, &mut self.plugins, key, readiness),
            Owner::Plugins => self.plugins.ready(&mut self.ctx, key, readiness),
            Owner::Pipes => self.pipes.ready(&mut self.ctx, key, readiness),
            Owner::Daemon => match key {
                key::WAKER => self.woken(),
                key::LOCAL => self.accept_programs(),
                key::SIGNALS => self.leave("a signal to end came"),
                listener => self.accept_nodes((listener - key::LISTENERS) as usize),
            },
        }
    }

    fn woken(&mut self) {
        while let Some(done) = self.ctx.jobs.next_done() {
            match done {
                Done::Lender(done) => self.lender.done(&mut self.ctx, &mut self.plugins, done),
                Done::Plugins(done) => self.plugins.done(&mut self.ctx, done),
                Done::CharterKept(Ok(())) => {}
                Done::CharterKept(Err(why)) => {
                    tracing::error!("the charter in force cannot be kept over a restart: {why}");
                }
                Done::Measured(uses) => self.measured(&uses),
                Done::MemberEnded { bag, how } => self.members.ended(&self.ctx, bag, how),
                Done::VisitEnded { visit } => self.visits.went(&mut self.ctx, visit, None),
                Done::BagRemoved(Ok(())) => {}
                Done::BagRemoved(Err(why)) => tracing::warn!("what is left of a bag stays: {why}"),
                Done::Resolved { place, addresses } => self.resolved(place, addresses),
            }
        }
        if self.stop.wanted.load(Ordering::Relaxed) {
            self.leave("told to stop");
        }
    }

    fn accept_nodes(&mut self, listener: usize) {
        let Some(links) = &mut self.links else { return };
        let Some(listener) = self.listeners.get(listener) else { return };
        loop {
            match listener.accept() {
                Ok((stream, address)) => links.accept(&mut self.ctx, stream, address),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.accept_again = Some(self.ctx.now + ACCEPT_AGAIN);
                    return tracing::warn!("a connection could not be accepted: {error}");
                }
            }
        }
    }

    /// Whoever could not be let in, for want of descriptors mostly, still waits and is not told of again.
    fn accept_those_who_wait(&mut self) {
        self.accept_again = None;
        self.accept_programs();
        for listener in 0..self.listeners.len() {
            self.accept_nodes(listener);
        }
    }

    fn accept_programs(&mut self) {
        loop {
            let Some(local) = &self.local else { return };
            match local.accept() {
                Ok((stream, _)) => {
                    if let Err(error) = self.take_program(stream) {
                        tracing::warn!("a program could not be let in: {error}");
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.accept_again = Some(self.ctx.now + ACCEPT_AGAIN);
                    return tracing::warn!("a program could not be let in: {error}");
                }
            }
        }
    }

    /// Lets a program of this user, or of the superuser, begin to talk.
    fn take_program(&mut self, stream: mio::net::UnixStream) -> io::Result<Option<ConnId>> {
        let unix = UnixTransport::new(stream)?;
        if unix.peer_uid != self.uid && unix.peer_uid != 0 {
            tracing::warn!(uid = unix.peer_uid, "a program of another user was turned away");
            return Ok(None);
        }
        if self.clients.is_full() {
            tracing::warn!(pid = unix.peer_pid, "a program was turned away: too many are connected");
            return Ok(None);
        }
        let conn = self.ctx.conns.insert(&self.ctx.registry, Transport::Unix(unix), DATA_BODY_MAX)?;
        self.clients.stranger(self.ctx.now, conn);
        Ok(Some(conn))
    }

    /// Connections that can be read although nothing reports so: paused, or cut short for fairness.
    fn resume(&mut self) {
        for conn in self.ctx.conns.take_resumed() {
            self.read(conn);
        }
    }

    fn read(&mut self, conn: ConnId) {
        if self.ctx.conns.has_unread(conn) {
            self.frames(conn);
        }
        for _ in 0..READS_A_TURN {
            if self.does_not_read(conn) {
                return;
            }
            match self.ctx.conns.read(conn) {
                Read::Some => {
                    if let Some(links) = &mut self.links {
                        links.heard(&mut self.ctx, conn);
                    }
                    self.frames(conn);
                }
                Read::Nothing => return,
                Read::Closed(why) => {
                    self.frames(conn);
                    return self.closed(conn, &why);
                }
            }
        }
        self.ctx.conns.read_again(conn);
    }

    fn end_of(&self, conn: ConnId) -> End {
        if self.clients.has(conn) {
            return End::Program;
        }
        match self.links.as_ref().and_then(|links| links.up(conn)) {
            None => self.pipes.line_of(conn).map_or(End::Stranger, End::Line),
            Some((peer, Purpose::Control, _)) => End::Control(peer),
            Some((peer, Purpose::Data, dialled)) => End::Data { peer, dialled },
        }
    }

    /// A program that leaves its answers unread is not heard until it has read them.
    fn does_not_read(&self, conn: ConnId) -> bool {
        self.ctx.conns.is_clogged(conn) && self.clients.has(conn)
    }

    /// Acts on all whole frames that came on `conn`.
    fn frames(&mut self, conn: ConnId) {
        let Some(mut decoder) = self.ctx.conns.take_decoder(conn) else { return };
        let mut end = self.end_of(conn);
        let result = loop {
            if self.ctx.conns.is_paused(conn) || self.does_not_read(conn) {
                break Ok(());
            }
            let (header, body) = match decoder.next_frame() {
                Ok(Some(frame)) => frame,
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            };
            let kind = header.kind.get();
            let result = match end {
                End::Program => self.program_frame(conn, &header, body),
                End::Control(_) if header.body_len() > CONTROL_BODY_MAX => header.check(CONTROL_BODY_MAX),
                _ if Link::owns(kind) => {
                    if let Some(links) = &mut self.links {
                        links.frame(&mut self.ctx, conn, &header, body);
                    }
                    end = self.end_of(conn);
                    // The core hears of a link before it hears from it.
                    self.link_events();
                    Ok(())
                }
                End::Control(peer) => self.control_frame(peer, &header, body),
                End::Data { peer, dialled } => self.data_frame(conn, peer, dialled, &header, body),
                End::Line(serial) => self.line_frame(conn, serial, &header, body),
                End::Stranger => Err(FrameError::UnknownKind { kind }),
            };
            match result {
                Err(FrameError::UnknownKind { .. }) if header.has(flags::OPTIONAL) => {}
                Err(error) => break Err(error),
                Ok(()) => {}
            }
        };
        self.ctx.conns.put_decoder(conn, decoder);
        match result {
            Ok(()) => {}
            // A program, unlike a stranger, is told what was wrong.
            Err(error) if self.clients.has(conn) => {
                clients::refuse(&mut self.ctx, conn, format!("{error}; the connection is closed"));
            }
            Err(error) => match end {
                End::Line(serial) => {
                    self.line_fails(conn, serial, &format!("has said what it may not: {error}"))
                }
                _ => self.closed(conn, &error.to_string()),
            },
        }
    }

    /// The connection is at its end, for whatever reason.
    fn closed(&mut self, conn: ConnId, why: &str) {
        if self.clients.has(conn) {
            self.program_gone(conn, why);
        } else if let Some(links) = &mut self.links {
            links.lost(&mut self.ctx, conn, why);
        }
        self.ctx.conns.close(conn);
    }

    fn time(&mut self) {
        let now = self.ctx.now;
        let due = |deadline: Option<Tick>| deadline.is_some_and(|at| at <= now);
        if let Some(links) = &mut self.links
            && due(links.deadline())
        {
            links.time(&mut self.ctx);
            self.link_events();
        }
        if due(self.core.deadline()) {
            self.core.handle(now, Input::Time, &mut self.outputs);
        }
        if due(self.streams.deadline()) {
            self.streams.time(&mut self.ctx);
        }
        if due(self.pipes.deadline()) {
            self.pipes.time(&mut self.ctx);
        }
        if due(self.members.deadline()) && self.leaving.is_none() {
            self.members.time(&mut self.ctx);
        }
        if due(self.lender.deadline()) {
            self.lender.time(&mut self.ctx, &mut self.plugins);
        }
        if due(self.plugins.deadline()) {
            self.plugins.time(&mut self.ctx);
        }
        if due(self.presence.deadline()) {
            self.mind_presence();
        }
        if due(self.groups.deadline()) {
            self.end_groups();
        }
        if due(self.rules.due) {
            self.admission_changed();
        }
        if due(self.joining.deadline()) {
            self.join_again();
        }
        if due(self.placing.deadline()) {
            self.look_for_parent();
        }
        self.leave_if_removed();
        for conn in self.clients.silent_since(Tick(now.0.saturating_sub(HANDSHAKE.as_micros() as u64))) {
            self.closed(conn, "it did not introduce itself");
        }
        if due(self.accept_again) {
            self.accept_those_who_wait();
        }
        if self.ready.as_ref().is_some_and(|(until, _)| *until <= now) {
            self.say_ready(true);
        }
        if now - self.tidied >= TIDY {
            self.tidied = now;
            self.tidy();
        }
    }

    /// Carries out what the parts want of one another, and writes, until nothing is left.
    fn settle(&mut self) {
        for _ in 0..ROUNDS_A_TURN {
            self.carry_out();
            self.ctx.conns.flush(&self.ctx.registry);
            for (conn, why) in self.ctx.conns.take_broken() {
                self.closed(conn, &why);
            }
            for conn in self.ctx.conns.take_drained() {
                self.drained(conn);
            }
            if self.ctx.conns.is_quiet() && !self.has_more() {
                return;
            }
        }
        // The rest comes in the next turn, at once, so that reading is not starved.
        self.carry_out();
    }

    fn has_more(&self) -> bool {
        !self.outputs.is_empty()
            || !self.ctx.actions.is_empty()
            || !self.pipes.outputs.is_empty()
            || !self.streams.wanted.is_empty()
            || !self.streams.over.is_empty()
            || self.links.as_ref().is_some_and(|links| !links.events.is_empty())
    }

    fn carry_out(&mut self) {
        loop {
            self.carry_out_all();
            if !core::mem::take(&mut self.rules.links_due) {
                return;
            }
            self.rule_links();
        }
    }

    fn carry_out_all(&mut self) {
        while self.has_more() {
            self.link_events();
            // Each turn has some: their memory, if it is little, serves the next.
            let mut outputs = core::mem::take(&mut self.outputs);
            for output in outputs.drain(..) {
                self.act(output);
            }
            if self.outputs.is_empty() && outputs.capacity() <= OUTPUTS_KEPT {
                self.outputs = outputs;
            }
            for action in core::mem::take(&mut self.ctx.actions) {
                self.action(action);
            }
            for output in core::mem::take(&mut self.pipes.outputs) {
                self.pipe_output(output);
            }
            for node in core::mem::take(&mut self.streams.wanted) {
                self.want_data(&node);
            }
            for lease in core::mem::take(&mut self.streams.over) {
                if let Some((conn, handle)) = self.clients.holder(lease) {
                    self.clients.drop_lease(conn, handle);
                    self.lease_over(conn, lease);
                }
            }
        }
    }

    fn action(&mut self, action: Action) {
        match action {
            Action::Worker { serial, state } => {
                if state == WorkerState::Ready {
                    // It may ask for blobs from its first call on.
                    self.line(serial);
                    self.tell_pipes(pipe::Input::Ready { serial });
                }
                self.tell_core(Input::WorkerNews { serial, state });
            }
            Action::WorkerGone { serial } => self.worker_gone(serial),
            Action::WorkerEnded { serial, code, cause } => self.local_worker_ended(serial, code, cause),
            Action::End { serial, end } => self.tell_core(Input::End { serial, end }),
            Action::Gone { serial } => {
                self.streams.finish_lent(&mut self.ctx, serial);
                self.plugins.lease_gone(&mut self.ctx, serial);
                self.tell_pipes(pipe::Input::LeaseGone { serial });
                self.tell_core(Input::Gone { serial });
            }
            Action::PluginHere { plugin, result } => {
                self.lender.plugin_here(&mut self.ctx, &mut self.plugins, plugin, result);
            }
            Action::PluginOffered { client, plugin } => self.plugin_offered(client, plugin),
            Action::BlobOffered { client, number, blob } => {
                clients::put(&mut self.ctx, client, BlobOffered { number, blob });
            }
            Action::BlobKept { line, number, blob } => {
                let answer = LineMessage::from(BlobKept { number, blob });
                self.ctx.conns.put_with(line, |out| answer.put(out));
            }
            Action::BlobFetched { client, number, result } => self.blob_fetched(client, number, result),
            Action::BlobHere { line, hash, result } => self.blob_here(line, hash, result),
            Action::PolicyChanged => {
                let policy = self.policy();
                self.tell_core(Input::Policy(policy));
            }
            Action::OpenData(node) => self.want_data(&node),
        }
    }

    fn tell_core(&mut self, input: Input) {
        self.core.handle(self.ctx.now, input, &mut self.outputs);
    }

    /// There is room again on a connection.
    fn drained(&mut self, conn: ConnId) {
        if self.clients.has(conn) {
            self.ctx.conns.read_again(conn);
            for serial in self.streams.lent_on(conn) {
                self.lender.stream_writable(&mut self.ctx, serial);
            }
        } else if let End::Data { .. } = self.end_of(conn) {
            for serial in self.streams.lent_on(conn) {
                self.lender.stream_writable(&mut self.ctx, serial);
            }
            self.pipes.pumps.drained(&mut self.ctx, conn);
            self.plugins.data_writable(&mut self.ctx, conn);
        }
    }

    fn leave(&mut self, why: &str) {
        if self.leaving.is_some() {
            return;
        }
        tracing::info!("leaving: {why}");
        self.leaving = Some(self.ctx.now);
        self.listeners.clear();
        self.local = None;
        self.place = None;
        self.tell_core(Input::Leave);
    }

    fn is_over(&self) -> bool {
        self.leaving
            .is_some_and(|since| (self.left && self.ctx.conns.is_quiet()) || self.ctx.now - since >= LEAVING)
    }

    fn end(&mut self) {
        self.lender.leave(&mut self.ctx);
        self.carry_out();
        self.ctx.conns.flush(&self.ctx.registry);
        if self.only.is_some()
            && let Err(error) = std::fs::remove_dir_all(&self.ctx.paths.state)
        {
            tracing::debug!("the state of a private node stays behind: {error}");
        }
    }
}
