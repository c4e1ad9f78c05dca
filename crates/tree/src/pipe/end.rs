//! The ends of pipes on this node.

use super::home::{Joining, Key, Said, Word};
use super::io::Output;
use core::time::Duration;
use mutirao_wire::node::NodeRef;
use mutirao_wire::pipe::{
    BindPipe, LeavePipe, PIPES_A_LEASE_MAX, PIPES_A_NODE_MAX, PipeBound, PipeNews, PipePlace, PipeState,
    PipeUnbound,
};
use mutirao_wire::{AppId, Epoch, Handle, NodeId, Tick};
use std::collections::{BTreeMap, BTreeSet};

/// A binding that came before its pipe was announced is held so long.
const EARLY: Duration = Duration::from_secs(2);
/// Bindings held.
const EARLY_MAX: usize = 4096;
/// What could not be had is asked for again after so long.
const AGAIN: Duration = Duration::from_millis(500);
/// A binding that was given up by the other side is made again after so long.
const SOON: Duration = Duration::from_millis(20);

/// A pipe with an end here.
#[derive(Debug)]
struct Pipe<C> {
    home: NodeId,
    epoch: Epoch,
    mine: PipePlace,
    /// The node of the other end; this one, if that is here too.
    node: NodeRef,
    other: PipePlace,
    state: State<C>,
    /// A plain socket was tried in vain.
    plain_failed: bool,
    /// Not bound before then.
    not_before: Tick,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State<C> {
    /// Nothing is there.
    Apart,
    /// Binder: said so. Acceptor: the binder has, and the end here is not ready.
    Asked { wire: (C, Handle), plain: bool },
    /// A plain socket is on its way.
    Plain { wire: (C, Handle) },
    /// The ends have it. Without a wire both are here.
    Open { wire: Option<(C, Handle)>, plain: bool },
}

impl<C: Copy> State<C> {
    fn wire(&self) -> Option<(C, Handle)> {
        match self {
            State::Apart => None,
            State::Asked { wire, .. } | State::Plain { wire } => Some(*wire),
            State::Open { wire, .. } => *wire,
        }
    }
}

/// A binding that came early.
#[derive(Debug)]
struct Early<C> {
    until: Tick,
    peer: NodeId,
    conn: C,
    bind: BindPipe,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Ends<C> {
    me: NodeId,
    pipes: BTreeMap<Key, Pipe<C>>,
    of_lease: BTreeMap<u64, BTreeSet<Key>>,
    of_wire: BTreeMap<(C, Handle), Key>,
    /// How many pipes go to each node.
    peers: BTreeMap<NodeId, usize>,
    /// Leases whose workers serve.
    ready: BTreeSet<u64>,
    /// Data connections dialled by this node, and the last handle given there.
    data: BTreeMap<NodeId, (C, u32)>,
    early: Vec<Early<C>>,
    /// When pipes that are apart may be bound.
    due: BTreeSet<(Tick, Key)>,
}

impl<C: Copy + Ord> Ends<C> {
    pub(super) fn new(me: NodeId) -> Ends<C> {
        Ends {
            me,
            pipes: BTreeMap::new(),
            of_lease: BTreeMap::new(),
            of_wire: BTreeMap::new(),
            peers: BTreeMap::new(),
            ready: BTreeSet::new(),
            data: BTreeMap::new(),
            early: Vec::new(),
            due: BTreeSet::new(),
        }
    }

    pub(super) fn uses(&self, peer: NodeId) -> bool {
        self.peers.contains_key(&peer)
    }

    pub(super) fn count(&self) -> usize {
        self.pipes.len()
    }

    pub(super) fn deadline(&self) -> Option<Tick> {
        let early = self.early.iter().map(|early| early.until).min();
        early.into_iter().chain(self.due.first().map(|(at, _)| *at)).min()
    }

    // ---- what homes say ----

    /// An end here is to be joined to another. `is_its`: the leases named here are those of that home.
    pub(super) fn join(
        &mut self,
        now: Tick,
        home: NodeId,
        joining: Joining,
        is_its: bool,
        said: &mut Said,
        out: &mut Vec<Output<C>>,
    ) {
        let Joining { key, epoch, mine, node, other } = joining;
        let here = node.id == self.me;
        if let Some(pipe) = self.pipes.get_mut(&key)
            && is_its
        {
            let same = (pipe.mine, pipe.node.id, pipe.other) == (mine, node.id, other);
            if same && epoch >= pipe.epoch {
                (pipe.home, pipe.epoch, pipe.node) = (home, epoch, node);
            }
            return;
        }
        let places = [Some(mine), here.then_some(other)];
        let leases = places.into_iter().flatten().filter_map(lease_of);
        let is_full =
            |serial: u64| self.of_lease.get(&serial).is_some_and(|pipes| pipes.len() >= PIPES_A_LEASE_MAX);
        let why = if !is_its {
            "the node of one of its ends knows nothing of that end"
        } else if here && mine == other {
            "its two ends are the same"
        } else if self.pipes.len() >= PIPES_A_NODE_MAX {
            "a node has as many pipes as it may have"
        } else if leases.clone().any(is_full) {
            "a lease has as many pipes as it may have"
        } else {
            for serial in leases {
                self.of_lease.entry(serial).or_default().insert(key);
            }
            if !here {
                *self.peers.entry(node.id).or_default() += 1;
            }
            let state = State::Apart;
            let pipe =
                Pipe { home, epoch, mine, node, other, state, plain_failed: false, not_before: Tick(0) };
            self.pipes.insert(key, pipe);
            let fits = |early: &mut Early<C>| (early.bind.app, early.bind.number) == key;
            let early: Vec<Early<C>> = self.early.extract_if(.., fits).collect();
            for Early { peer, conn, bind, .. } in early {
                self.bind(now, peer, conn, bind, said, out);
            }
            return self.advance(now, key, said, out);
        };
        said.push((home, news(key, PipeState::Failed(why.into()))));
    }

    /// A pipe is no more.
    pub(super) fn leave(&mut self, home: NodeId, leave: &LeavePipe, out: &mut Vec<Output<C>>) {
        let key = (leave.app, leave.number);
        if self.pipes.get(&key).is_some_and(|pipe| pipe.home == home) {
            self.end(key, &leave.text, out);
        }
    }

    /// A program here is gone, and with it the pipes it has an end of.
    pub(super) fn app_gone(&mut self, app: AppId, said: &mut Said, out: &mut Vec<Output<C>>) {
        let guest = PipePlace::Guest(app);
        let is_its = |pipe: &Pipe<C>| pipe.mine == guest || pipe.node.id == self.me && pipe.other == guest;
        let its: Vec<Key> = self.pipes.iter().filter(|(_, pipe)| is_its(pipe)).map(|(key, _)| *key).collect();
        for key in its {
            let text = "the guest is gone";
            said.extend(
                self.pipes.get(&key).map(|pipe| (pipe.home, news(key, PipeState::Failed(text.into())))),
            );
            self.end(key, text, out);
        }
        let its = self.pipes.range((app, 0)..=(app, u64::MAX)).filter(|(_, pipe)| pipe.home == self.me);
        for key in its.map(|(key, _)| *key).collect::<Vec<_>>() {
            self.end(key, "the program is gone", out);
        }
    }

    fn end(&mut self, key: Key, text: &str, out: &mut Vec<Output<C>>) {
        self.let_go(key, out);
        let Some(pipe) = self.pipes.remove(&key) else { return };
        self.due.remove(&(pipe.not_before, key));
        let here = pipe.node.id == self.me;
        for at in [Some(pipe.mine), here.then_some(pipe.other)].into_iter().flatten() {
            if let Some(serial) = lease_of(at)
                && let Some(pipes) = self.of_lease.get_mut(&serial)
            {
                pipes.remove(&key);
                if pipes.is_empty() {
                    self.of_lease.remove(&serial);
                }
            }
            out.push(Output::Fail { app: key.0, number: key.1, at, text: text.into() });
        }
        if let Some(count) = self.peers.get_mut(&pipe.node.id) {
            *count -= 1;
            if *count == 0 {
                self.peers.remove(&pipe.node.id);
            }
        }
    }

    // ---- workers ----

    pub(super) fn ready(&mut self, now: Tick, serial: u64, said: &mut Said, out: &mut Vec<Output<C>>) {
        self.ready.insert(serial);
        for key in self.of_lease(serial) {
            self.advance(now, key, said, out);
        }
    }

    pub(super) fn worker_gone(&mut self, now: Tick, serial: u64, said: &mut Said, out: &mut Vec<Output<C>>) {
        if !self.ready.remove(&serial) {
            return;
        }
        for key in self.of_lease(serial) {
            self.part(now, key, SOON, said, out);
            self.advance(now, key, said, out);
        }
    }

    /// Its home says to the other end what that means.
    pub(super) fn lease_gone(&mut self, serial: u64, out: &mut Vec<Output<C>>) {
        self.ready.remove(&serial);
        for key in self.of_lease(serial) {
            self.end(key, "the lease of one of its ends is over", out);
        }
    }

    fn of_lease(&self, serial: u64) -> Vec<Key> {
        self.of_lease.get(&serial).into_iter().flatten().copied().collect()
    }

    fn is_ready(&self, place: PipePlace) -> bool {
        lease_of(place).is_none_or(|serial| self.ready.contains(&serial))
    }

    // ---- connections ----

    pub(super) fn link_up(&mut self, now: Tick, peer: NodeId, said: &mut Said, out: &mut Vec<Output<C>>) {
        self.hurry(now, peer, said, out);
    }

    pub(super) fn data_up(
        &mut self,
        now: Tick,
        peer: NodeId,
        conn: C,
        said: &mut Said,
        out: &mut Vec<Output<C>>,
    ) {
        if self.data.get(&peer).is_none_or(|(known, _)| *known != conn) {
            self.data.insert(peer, (conn, 0));
            self.hurry(now, peer, said, out);
        }
    }

    /// What waits for a connection to `peer` need not wait longer.
    fn hurry(&mut self, now: Tick, peer: NodeId, said: &mut Said, out: &mut Vec<Output<C>>) {
        if !self.uses(peer) {
            return;
        }
        let waits = |pipe: &Pipe<C>| pipe.node.id == peer && pipe.state == State::Apart;
        let waiting: Vec<Key> =
            self.pipes.iter().filter(|(_, pipe)| waits(pipe)).map(|(key, _)| *key).collect();
        for key in waiting {
            self.not_before(key, now);
            self.advance(now, key, said, out);
        }
    }

    pub(super) fn data_down(&mut self, now: Tick, conn: C, said: &mut Said, out: &mut Vec<Output<C>>) {
        self.data.retain(|_, (known, _)| *known != conn);
        self.early.retain(|early| early.conn != conn);
        let range = (conn, Handle(0))..=(conn, Handle(u32::MAX));
        let bound: Vec<Key> = self.of_wire.range(range).map(|(_, key)| *key).collect();
        for key in bound {
            self.part(now, key, Duration::ZERO, said, out);
            self.advance(now, key, said, out);
        }
    }

    pub(super) fn data_failed(&mut self, now: Tick, peer: NodeId) {
        let waits = |pipe: &Pipe<C>| pipe.node.id == peer && pipe.state == State::Apart;
        let waiting: Vec<Key> =
            self.pipes.iter().filter(|(_, pipe)| waits(pipe)).map(|(key, _)| *key).collect();
        for key in waiting {
            self.wait(key, now + AGAIN);
        }
    }

    // ---- bindings ----

    /// A binder speaks.
    pub(super) fn bind(
        &mut self,
        now: Tick,
        peer: NodeId,
        conn: C,
        bind: BindPipe,
        said: &mut Said,
        out: &mut Vec<Output<C>>,
    ) {
        let key = (bind.app, bind.number);
        let wire = (conn, bind.handle);
        let unknown = |out: &mut Vec<Output<C>>| {
            out.push(Output::Unbind { conn, unbound: PipeUnbound { handle: bind.handle, unknown: true } });
        };
        let Some(pipe) = self.pipes.get(&key) else {
            if self.early.len() < EARLY_MAX {
                self.early.push(Early { until: now + EARLY, peer, conn, bind });
            } else {
                unknown(out);
            }
            return;
        };
        let announced = pipe.node.id == peer && pipe.mine == bind.to && pipe.other == bind.from;
        if !announced || !self.accepts(peer) || self.of_wire.contains_key(&wire) {
            return unknown(out);
        }
        // It knows best what became of an earlier binding.
        self.part(now, key, Duration::ZERO, said, out);
        let Some(pipe) = self.pipes.get_mut(&key) else { return };
        pipe.state = State::Asked { wire, plain: bind.plain };
        self.of_wire.insert(wire, key);
        self.advance(now, key, said, out);
    }

    /// Whether the other node binds.
    fn accepts(&self, peer: NodeId) -> bool {
        peer < self.me
    }

    /// The acceptor has its end.
    pub(super) fn bound(&mut self, conn: C, bound: PipeBound, said: &mut Said, out: &mut Vec<Output<C>>) {
        let wire = (conn, bound.handle);
        let Some(&key) = self.of_wire.get(&wire) else { return };
        let Some(pipe) = self.pipes.get_mut(&key) else { return };
        if !matches!(pipe.state, State::Asked { .. }) || pipe.node.id < self.me {
            return;
        }
        match bound.plain {
            Some(plain) => {
                pipe.state = State::Plain { wire };
                out.push(Output::Connect { conn, handle: bound.handle, plain });
            }
            None => self.open(key, wire, false, said, out),
        }
    }

    /// The other side gives a binding up.
    pub(super) fn unbound(
        &mut self,
        now: Tick,
        conn: C,
        unbound: PipeUnbound,
        said: &mut Said,
        out: &mut Vec<Output<C>>,
    ) {
        let wire = (conn, unbound.handle);
        self.early.retain(|early| (early.conn, early.bind.handle) != wire);
        let Some(key) = self.of_wire.remove(&wire) else { return };
        let Some(pipe) = self.pipes.get_mut(&key) else { return };
        pipe.plain_failed |= matches!(pipe.state, State::Plain { .. });
        let pause = if unbound.unknown { AGAIN } else { SOON };
        self.part(now, key, pause, said, out);
        self.advance(now, key, said, out);
    }

    /// What became of a plain socket.
    pub(super) fn plain(
        &mut self,
        now: Tick,
        conn: C,
        handle: Handle,
        stands: bool,
        said: &mut Said,
        out: &mut Vec<Output<C>>,
    ) {
        let wire = (conn, handle);
        let Some(&key) = self.of_wire.get(&wire) else { return };
        let Some(pipe) = self.pipes.get_mut(&key) else { return };
        if pipe.state != (State::Plain { wire }) {
            return;
        }
        if stands {
            return self.open(key, wire, true, said, out);
        }
        pipe.plain_failed = true;
        self.part(now, key, Duration::ZERO, said, out);
        self.advance(now, key, said, out);
    }

    /// What the ends were to be given could not be made.
    pub(super) fn undone(&mut self, now: Tick, key: Key, said: &mut Said, out: &mut Vec<Output<C>>) {
        if self.pipes.contains_key(&key) {
            self.part(now, key, AGAIN, said, out);
            self.advance(now, key, said, out);
        }
    }

    /// The link to a node is trusted no longer: what is plain is bound anew.
    pub(super) fn distrust(&mut self, now: Tick, peer: NodeId, said: &mut Said, out: &mut Vec<Output<C>>) {
        let plain = |pipe: &Pipe<C>| {
            pipe.node.id == peer
                && matches!(pipe.state, State::Plain { .. } | State::Open { plain: true, .. })
        };
        let plain: Vec<Key> =
            self.pipes.iter().filter(|(_, pipe)| plain(pipe)).map(|(key, _)| *key).collect();
        for key in plain {
            self.part(now, key, SOON, said, out);
            self.advance(now, key, said, out);
        }
    }

    pub(super) fn time(&mut self, now: Tick, said: &mut Said, out: &mut Vec<Output<C>>) {
        for Early { conn, bind, .. } in self.early.extract_if(.., |early| early.until <= now) {
            out.push(Output::Unbind { conn, unbound: PipeUnbound { handle: bind.handle, unknown: true } });
        }
        while let Some(&(at, key)) = self.due.first()
            && at <= now
        {
            self.due.pop_first();
            self.advance(now, key, said, out);
        }
    }

    // ---- one pipe ----

    /// Does what can be done for a pipe now.
    fn advance(&mut self, now: Tick, key: Key, said: &mut Said, out: &mut Vec<Output<C>>) {
        let Some(pipe) = self.pipes.get(&key) else { return };
        if !self.is_ready(pipe.mine) {
            return;
        }
        let (app, number) = key;
        match pipe.state {
            State::Apart if self.accepts(pipe.node.id) => {}
            State::Apart if pipe.not_before > now => {
                self.due.insert((pipe.not_before, key));
            }
            State::Apart if pipe.node.id == self.me => {
                if self.is_ready(pipe.other) {
                    out.push(Output::Ring { app, number, a: pipe.mine, b: pipe.other });
                    self.opened(key, None, false, said);
                }
            }
            State::Apart => match self.data.get_mut(&pipe.node.id) {
                Some((conn, last)) => {
                    *last += 1;
                    let (conn, handle) = (*conn, Handle(*last));
                    let (from, to, plain) = (pipe.mine, pipe.other, !pipe.plain_failed);
                    let bind = BindPipe { handle, app, number, from, to, plain };
                    out.push(Output::Bind { conn, bind });
                    self.of_wire.insert((conn, handle), key);
                    self.set(key, State::Asked { wire: (conn, handle), plain });
                }
                None => {
                    out.push(Output::Want(pipe.node.clone()));
                    self.wait(key, now + AGAIN);
                }
            },
            State::Asked { wire, plain } if self.accepts(pipe.node.id) => {
                if plain && !pipe.plain_failed {
                    out.push(Output::Offer { conn: wire.0, handle: wire.1 });
                    self.set(key, State::Plain { wire });
                } else {
                    out.push(Output::Bound { conn: wire.0, handle: wire.1 });
                    self.open(key, wire, false, said, out);
                }
            }
            State::Asked { .. } | State::Plain { .. } | State::Open { .. } => {}
        }
    }

    fn set(&mut self, key: Key, state: State<C>) {
        if let Some(pipe) = self.pipes.get_mut(&key) {
            pipe.state = state;
        }
    }

    /// Not to be bound before then,
    fn not_before(&mut self, key: Key, at: Tick) {
        let Some(pipe) = self.pipes.get_mut(&key) else { return };
        self.due.remove(&(pipe.not_before, key));
        pipe.not_before = at;
    }

    /// but then.
    fn wait(&mut self, key: Key, until: Tick) {
        self.not_before(key, until);
        self.due.insert((until, key));
    }

    fn open(&mut self, key: Key, wire: (C, Handle), plain: bool, said: &mut Said, out: &mut Vec<Output<C>>) {
        let Some(pipe) = self.pipes.get(&key) else { return };
        let (app, number) = key;
        out.push(Output::Socket { app, number, at: pipe.mine, conn: wire.0, handle: wire.1, plain });
        self.opened(key, Some(wire), plain, said);
    }

    fn opened(&mut self, key: Key, wire: Option<(C, Handle)>, plain: bool, said: &mut Said) {
        self.set(key, State::Open { wire, plain });
        self.report(key, PipeState::Open, said);
    }

    /// Of two nodes the binder tells the home.
    fn report(&self, key: Key, state: PipeState, said: &mut Said) {
        let Some(pipe) = self.pipes.get(&key) else { return };
        if !self.accepts(pipe.node.id) {
            said.push((pipe.home, news(key, state)));
        }
    }

    /// What there is of a pipe is over; it stays announced, and is not bound anew before `pause` has passed.
    fn part(&mut self, now: Tick, key: Key, pause: Duration, said: &mut Said, out: &mut Vec<Output<C>>) {
        if self.let_go(key, out) {
            self.report(key, PipeState::Broken, said);
        }
        self.not_before(key, now + pause);
    }

    /// Whether the ends had it.
    fn let_go(&mut self, key: Key, out: &mut Vec<Output<C>>) -> bool {
        let Some(pipe) = self.pipes.get_mut(&key) else { return false };
        let (app, number) = key;
        let state = core::mem::replace(&mut pipe.state, State::Apart);
        // Not when the other side has given it up, or the connection is lost: then it is forgotten already.
        if let Some(wire) = state.wire()
            && self.of_wire.remove(&wire).is_some()
        {
            let unbound = PipeUnbound { handle: wire.1, unknown: false };
            out.push(Output::Unbind { conn: wire.0, unbound });
        }
        let was_open = matches!(state, State::Open { .. });
        if was_open {
            let here = pipe.node.id == self.me;
            for at in [Some(pipe.mine), here.then_some(pipe.other)].into_iter().flatten() {
                out.push(Output::Break { app, number, at });
            }
        }
        was_open
    }
}

fn lease_of(place: PipePlace) -> Option<u64> {
    match place {
        PipePlace::Program | PipePlace::Guest(_) => None,
        PipePlace::Lease(serial) => Some(serial),
    }
}

fn news((app, number): Key, state: PipeState) -> Word {
    Word::News(PipeNews { app, number, state })
}
