//! Links to other nodes: dialling, accepting, handshakes, beats, and which of two survives.
//!
//! Between two nodes there is one control connection, and up to one data connection dialled by
//! each: a node uses the one it dialled for what it asks of the other (streams of leases it is home
//! of, files it fetches), and answers on the one the other dialled.

use crate::conn::{ConnId, TlsTransport, Transport};
use crate::context::Context;
use mio::net::TcpStream;
use mutirao_tree::Deny;
use mutirao_trust::{Admit, Identity, Role, peer_identity, server_name};
use mutirao_wire::frame::Header;
use mutirao_wire::limits::{ADDRESSES_MAX, CONNECT, CONTROL_BODY_MAX, DATA_BODY_MAX};
use mutirao_wire::link::{Hello, Input, Link, LinkEnd, Me, Output, Pace, Purpose, RefuseReason};
use mutirao_wire::{NodeId, NodeRef, Tick};
use rustls::{ClientConnection, ServerConfig, ServerConnection};
use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// An established link with which something was exchanged less than this ago is not given up for a
/// second one: the two sides dialled each other.
const FRESH: Duration = Duration::from_secs(1);
/// An idle connection is tried after this long, and then each time as long again.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// Connections that have not introduced themselves yet.
const STRANGERS_MAX: usize = 256;

/// Dials in vain whose logging is remembered.
const COMPLAINTS_MAX: usize = 1024;

/// What became of links.
#[derive(Debug)]
pub(crate) enum LinkEvent {
    /// The control link to this node stands.
    Up(NodeRef),
    /// It is lost.
    Down(NodeRef),
    /// The control link asked for could not be had.
    DialFailed(NodeId),
    /// The node at a place is linked.
    PlaceUp { place: String, node: NodeRef },
    /// Nobody answers at a place.
    PlaceFailed { place: String, why: String },
    /// A data connection stands.
    DataUp { peer: NodeId, conn: ConnId, dialled: bool },
    /// A data connection is lost.
    DataDown { peer: NodeId, conn: ConnId, dialled: bool },
    /// The data connection asked for could not be had.
    DataFailed(NodeId),
    /// Another node does not let this one in: its charter denies it.
    Denied { by: String, why: String },
}

/// Whom a dial is to reach.
#[derive(Debug, Clone)]
enum Target {
    Node(NodeRef),
    Place(String),
}

struct Attempt {
    target: Target,
    purpose: Purpose,
    conns: Vec<ConnId>,
    last_error: String,
}

struct LinkConn {
    link: Link,
    /// The dial this belongs to; `None` for an accepted connection.
    attempt: Option<u64>,
    dialled: bool,
    /// Until when a machine has to answer; told apart from the handshake, since that one may be busy.
    answer_by: Option<Tick>,
    address: Option<SocketAddr>,
    /// Who the certificate says it is.
    peer: Option<NodeId>,
    /// And the name in it; set with `peer`.
    name: String,
    heard: Tick,
}

struct Known {
    node: NodeRef,
    machine: [u8; 16],
    address: Option<SocketAddr>,
    /// Since when nobody here needs the link.
    idle_since: Option<Tick>,
}

impl LinkConn {
    fn new(link: Link, attempt: Option<u64>, address: SocketAddr, now: Tick) -> LinkConn {
        let (dialled, address) = (attempt.is_some(), Some(address));
        let answer_by = (dialled && link.purpose() == Purpose::Control).then(|| now + CONNECT);
        LinkConn { link, attempt, dialled, answer_by, address, peer: None, name: String::new(), heard: now }
    }
}

/// All links of this node.
pub(crate) struct Links {
    identity: Arc<Identity>,
    server: Arc<ServerConfig>,
    me: Me,
    max_links: usize,
    /// Most data connections that this node dials.
    max_data: usize,
    conns: HashMap<ConnId, LinkConn>,
    known: HashMap<NodeId, Known>,
    attempts: HashMap<u64, Attempt>,
    next_attempt: u64,
    strangers: usize,
    /// Dials in vain, by name or place, that were logged since the last success.
    complained: HashSet<String>,
    beaten: Tick,
    /// No control link was last heard before this, once it is known: not each turn looks at all of them.
    heard_first: Cell<Option<Tick>>,
    deny: Deny,
    pub(crate) events: Vec<LinkEvent>,
}

impl Links {
    pub(crate) fn new(
        identity: Arc<Identity>,
        me: Me,
        max_links: usize,
        max_data: usize,
    ) -> Result<Links, mutirao_trust::Refusal> {
        let server = identity.server_config(&[Role::Node], Admit::all())?;
        Ok(Links {
            identity,
            server,
            me,
            max_links,
            max_data,
            conns: HashMap::new(),
            known: HashMap::new(),
            attempts: HashMap::new(),
            next_attempt: 0,
            strangers: 0,
            complained: HashSet::new(),
            beaten: Tick(0),
            heard_first: Cell::new(None),
            deny: Deny::default(),
            events: Vec::new(),
        })
    }

    /// How links keep time and whom the pool denies, from now on. Links to those are closed, once what
    /// was said to them is written.
    pub(crate) fn rule(&mut self, ctx: &mut Context, pace: Pace, deny: Deny) {
        self.me.pace = pace;
        self.deny = deny;
        let denied: Vec<(ConnId, String)> = (self.conns.iter())
            .filter_map(|(conn, entry)| Some((*conn, self.deny.node(entry.peer?, &entry.name)?)))
            .collect();
        for (conn, why) in denied {
            ctx.conns.close_after_flush(conn);
            if let Some(entry) = self.conns.remove(&conn) {
                self.ended(ctx, conn, entry, &why);
            }
        }
    }

    /// Who `peer` is, while it is linked.
    pub(crate) fn node(&self, peer: NodeId) -> Option<&NodeRef> {
        self.known.get(&peer).map(|known| &known.node)
    }

    /// A control link to `node` is needed.
    pub(crate) fn dial(&mut self, ctx: &mut Context, node: &NodeRef) {
        if self.deny.node(node.id, &node.name).is_some() {
            return self.events.push(LinkEvent::DialFailed(node.id));
        }
        if let Some(known) = self.known.get_mut(&node.id) {
            known.idle_since = None;
            return;
        }
        self.attempt(ctx, Target::Node(node.clone()), Purpose::Control, &node.addresses);
    }

    /// A data connection to `node` is needed.
    pub(crate) fn dial_data(&mut self, ctx: &mut Context, node: &NodeRef) {
        if self.deny.node(node.id, &node.name).is_some() {
            return self.events.push(LinkEvent::DataFailed(node.id));
        }
        if let Some(conn) = ctx.peers.get(&node.id).and_then(|peer| peer.data) {
            self.events.push(LinkEvent::DataUp { peer: node.id, conn, dialled: true });
            return;
        }
        self.attempt(ctx, Target::Node(node.clone()), Purpose::Data, &node.addresses);
    }

    /// Whether there are as many data connections as there may be, and none to `peer`.
    pub(crate) fn has_most_data(&self, ctx: &Context, peer: NodeId) -> bool {
        let has_data = |peer: NodeId| ctx.peers.get(&peer).is_some_and(|peer| peer.data.is_some());
        let is_dialled = |attempt: &&Attempt| {
            let to_another = matches!(&attempt.target, Target::Node(node) if node.id != peer);
            attempt.purpose == Purpose::Data && to_another
        };
        let open = ctx.peers.values().filter(|peer| peer.data.is_some()).count();
        !has_data(peer) && open + self.attempts.values().filter(is_dialled).count() >= self.max_data
    }

    /// Closes the data connection that was longest not used, out of those to `unused`; whether there is one.
    pub(crate) fn close_data(&mut self, ctx: &mut Context, unused: &[NodeId]) -> bool {
        let data = unused.iter().filter_map(|peer| ctx.peers.get(peer)?.data);
        let oldest = data.min_by_key(|conn| self.conns.get(conn).map(|entry| entry.heard));
        let Some(conn) = oldest else { return false };
        self.lost(ctx, conn, "not used, and another is needed");
        true
    }

    /// A data connection to `node` is needed that cannot be had.
    pub(crate) fn refuse_data(&mut self, node: &NodeRef) {
        tracing::warn!(
            node = node.name,
            "no data connection: {} are in use, which is `max_data_connections` of the configuration",
            self.max_data
        );
        self.events.push(LinkEvent::DataFailed(node.id));
    }

    /// Somebody to join may be at `place`, known under `addresses`.
    pub(crate) fn dial_place(&mut self, ctx: &mut Context, place: &str, addresses: &[SocketAddr]) {
        let linked = self.known.values().find(|known| {
            known.node.addresses.iter().chain(known.address.iter()).any(|address| addresses.contains(address))
        });
        if let Some(known) = linked {
            let node = known.node.clone();
            self.events.push(LinkEvent::PlaceUp { place: place.into(), node });
            return;
        }
        self.attempt(ctx, Target::Place(place.into()), Purpose::Control, addresses);
    }

    fn attempt(&mut self, ctx: &mut Context, target: Target, purpose: Purpose, addresses: &[SocketAddr]) {
        let same = |attempt: &&Attempt| match (&attempt.target, &target) {
            (Target::Node(a), Target::Node(b)) => a.id == b.id && attempt.purpose == purpose,
            (Target::Place(a), Target::Place(b)) => a == b,
            _ => false,
        };
        if self.attempts.values().find(same).is_some() {
            return;
        }
        let number = self.next_attempt;
        self.next_attempt += 1;
        let mut attempt = Attempt {
            target: target.clone(),
            purpose,
            conns: Vec::new(),
            last_error: "it has no address".into(),
        };
        for &address in addresses.iter().take(ADDRESSES_MAX) {
            match self.connect(ctx, &target, purpose, address, number) {
                Ok(conn) => attempt.conns.push(conn),
                Err(error) => attempt.last_error = error,
            }
        }
        if attempt.conns.is_empty() {
            self.give_up(attempt);
        } else {
            self.attempts.insert(number, attempt);
        }
    }

    fn connect(
        &mut self,
        ctx: &mut Context,
        target: &Target,
        purpose: Purpose,
        address: SocketAddr,
        number: u64,
    ) -> Result<ConnId, String> {
        let expected = match target {
            Target::Node(node) => Some(node.id),
            Target::Place(_) => None,
        };
        let pool = self.me.pool;
        let config = self.identity.client_config(expected, Admit::all()).map_err(|e| e.to_string())?;
        let tls = ClientConnection::new(config, server_name(pool)).map_err(|e| e.to_string())?;
        let stream = TcpStream::connect(address).map_err(|e| e.to_string())?;
        notice_death(&stream);
        let transport = Transport::Tls(Box::new(TlsTransport::new(stream, tls.into(), pool, true)));
        let conn =
            ctx.conns.insert(&ctx.registry, transport, body_max(purpose)).map_err(|e| e.to_string())?;
        let link = Link::new(ctx.now, true, purpose);
        self.conns.insert(conn, LinkConn::new(link, Some(number), address, ctx.now));
        Ok(conn)
    }

    /// Somebody dialled.
    pub(crate) fn accept(&mut self, ctx: &mut Context, stream: TcpStream, address: SocketAddr) {
        if self.strangers >= STRANGERS_MAX {
            tracing::warn!(%address, "turned away: too many connections that do not introduce themselves");
            return;
        }
        notice_death(&stream);
        let accepted = stream.set_nodelay(true).map_err(|e| e.to_string()).and_then(|()| {
            let tls = ServerConnection::new(self.server.clone()).map_err(|e| e.to_string())?;
            let tls = TlsTransport::new(stream, tls.into(), self.me.pool, false);
            // The purpose is not known yet: what is too long for control is refused frame by frame.
            ctx.conns
                .insert(&ctx.registry, Transport::Tls(Box::new(tls)), DATA_BODY_MAX)
                .map_err(|e| e.to_string())
        });
        match accepted {
            Ok(conn) => {
                self.strangers += 1;
                let link = Link::new(ctx.now, false, Purpose::Control);
                self.conns.insert(conn, LinkConn::new(link, None, address, ctx.now));
            }
            Err(error) => tracing::warn!(%address, "a connection could not be accepted: {error}"),
        }
    }

    /// The node at the other end and the purpose, once the link is up.
    pub(crate) fn up(&self, conn: ConnId) -> Option<(NodeId, Purpose, bool)> {
        let link = self.conns.get(&conn).filter(|link| link.link.is_up())?;
        Some((link.peer?, link.link.purpose(), link.dialled))
    }

    /// The name that the other end is certified for.
    pub(crate) fn name(&self, conn: ConnId) -> Option<&str> {
        self.conns.get(&conn).filter(|link| link.link.is_up()).map(|link| link.name.as_str())
    }

    /// Bytes were read from `conn`. Tells the link when encryption stands.
    pub(crate) fn heard(&mut self, ctx: &mut Context, conn: ConnId) {
        let Some(entry) = self.conns.get_mut(&conn) else { return };
        entry.heard = ctx.now;
        if entry.peer.is_some() {
            self.tell(ctx, conn, Input::Heard);
            return;
        }
        let Some(Transport::Tls(tls)) = ctx.conns.transport(conn) else { return };
        let Some(established) = tls.established() else { return };
        match peer_identity(established) {
            Ok(peer) => {
                entry.peer = Some(peer.node);
                entry.name = peer.name.as_str().to_owned();
                // Whoever dials is told why; whoever is dialled finds out when it dials.
                if let Some(why) = self.deny.node(peer.node, peer.name.as_str()).filter(|_| entry.dialled) {
                    return self.lost(ctx, conn, &why);
                }
                if let Some(attempt) = entry.attempt {
                    if self.is_known_place(ctx, attempt, conn, peer.node) {
                        return;
                    }
                    self.first_of_attempt(ctx, attempt, conn);
                }
                self.tell(ctx, conn, Input::Opened { peer: peer.node });
            }
            Err(refusal) => self.lost(ctx, conn, &refusal.to_string()),
        }
    }

    /// A place may turn out to be a node that is linked already.
    fn is_known_place(&mut self, ctx: &mut Context, attempt: u64, conn: ConnId, peer: NodeId) -> bool {
        let Some(Target::Place(place)) = self.attempts.get(&attempt).map(|a| a.target.clone()) else {
            return false;
        };
        let Some(known) = self.known.get(&peer) else { return false };
        self.events.push(LinkEvent::PlaceUp { place, node: known.node.clone() });
        self.first_of_attempt(ctx, attempt, conn);
        self.attempts.remove(&attempt);
        self.drop_quietly(ctx, conn);
        true
    }

    /// Of several addresses dialled at once the first to answer is taken.
    fn first_of_attempt(&mut self, ctx: &mut Context, attempt: u64, conn: ConnId) {
        let Some(attempt) = self.attempts.get_mut(&attempt) else { return };
        for other in attempt.conns.extract_if(.., |other| *other != conn) {
            self.conns.remove(&other);
            ctx.conns.close(other);
        }
    }

    /// A frame of the link's own came.
    pub(crate) fn frame(&mut self, ctx: &mut Context, conn: ConnId, header: &Header, body: &[u8]) {
        self.tell(ctx, conn, Input::Frame(header, body));
    }

    fn tell(&mut self, ctx: &mut Context, conn: ConnId, input: Input<'_>) {
        let mut out = Vec::new();
        let Some(entry) = self.conns.get_mut(&conn) else { return };
        entry.link.handle(ctx.now, &self.me, input, &mut out);
        for output in out {
            match output {
                Output::Send(message) => {
                    ctx.conns.put_with(conn, |bytes| message.put(bytes));
                }
                Output::Greeted(hello) => self.decide(ctx, conn, hello),
                Output::Up { peer, machine } => self.link_up(ctx, conn, peer, machine),
                Output::Down(end) => self.link_down(ctx, conn, end),
            }
        }
    }

    /// Whether a dialler is let in.
    fn decide(&mut self, ctx: &mut Context, conn: ConnId, hello: Hello) {
        let peer = hello.node.id;
        if !self.is_its_name(conn, &hello.node) {
            return self.tell(ctx, conn, Input::Refuse(RefuseReason::NotItself));
        }
        if let Some(why) = self.deny.node(peer, &hello.node.name) {
            return self.tell(ctx, conn, Input::Refuse(RefuseReason::Denied { why }));
        }
        if let Some(known) = self.known.get(&peer) {
            let same_life = hello.node.incarnation == known.node.incarnation;
            if hello.machine != known.machine {
                let name = hello.node.name.clone();
                let (one, other) = (known.address, self.conns.get(&conn).and_then(|c| c.address));
                tracing::error!(
                    node = name,
                    "two machines use one identity: {} and {}; give one of them an identity of its own",
                    text(one),
                    text(other)
                );
                return self.tell(ctx, conn, Input::Refuse(RefuseReason::SameIdentity { name }));
            }
            if hello.node.incarnation < known.node.incarnation {
                return self.tell(ctx, conn, Input::Refuse(RefuseReason::Outdated));
            }
            if hello.purpose == Purpose::Control {
                let control = ctx.peers.get(&peer).and_then(|peer| peer.control);
                let fresh = control
                    .and_then(|control| self.conns.get(&control))
                    .is_some_and(|control| ctx.now - control.heard < FRESH);
                // Both dialled at once. Had the other side lost the first link, its end would have
                // been seen before this introduction.
                if same_life && fresh {
                    return self.drop_quietly(ctx, conn);
                }
                if let Some(control) = control {
                    self.lost(ctx, control, "replaced by a newer link");
                }
            }
        } else if hello.purpose == Purpose::Control {
            if self.me.node.id < peer && self.own_dial_stands(peer) {
                return self.drop_quietly(ctx, conn);
            }
            if self.known.len() >= self.max_links && !self.close_idle(ctx) {
                return self.tell(ctx, conn, Input::Refuse(RefuseReason::Full));
            }
        }
        self.tell(ctx, conn, Input::Accept);
    }

    /// Whether this node's own dial to `peer` is past encryption.
    fn own_dial_stands(&self, peer: NodeId) -> bool {
        self.conns.values().any(|c| c.dialled && c.peer == Some(peer) && c.link.purpose() == Purpose::Control)
    }

    /// Whether a node goes by the name it is certified for: users `name@node` are believed of it.
    fn is_its_name(&self, conn: ConnId, node: &NodeRef) -> bool {
        self.conns.get(&conn).is_some_and(|entry| entry.name == node.name)
    }

    fn link_up(&mut self, ctx: &mut Context, conn: ConnId, peer: NodeRef, machine: [u8; 16]) {
        if !self.is_its_name(conn, &peer) {
            let why = format!("it says it is `{}`, but is certified for another name", peer.name);
            return self.lost(ctx, conn, &why);
        }
        let Some(entry) = self.conns.get_mut(&conn) else { return };
        let (dialled, address, purpose) = (entry.dialled, entry.address, entry.link.purpose());
        let attempt = entry.attempt.take();
        let place = match attempt.and_then(|number| self.attempts.remove(&number)).map(|a| a.target) {
            Some(Target::Place(place)) => Some(place),
            _ => None,
        };
        if !dialled {
            self.strangers -= 1;
        }
        let id = peer.id;
        if purpose == Purpose::Data {
            let slot = ctx.peers.get(&id).copied().unwrap_or_default();
            if let Some(old) = if dialled { slot.data } else { slot.data_in } {
                self.lost(ctx, old, "replaced by a newer connection");
            }
            let slot = ctx.peers.entry(id).or_default();
            if dialled {
                (slot.data, slot.data_life) = (Some(conn), Some(peer.incarnation));
            } else {
                slot.data_in = Some(conn);
            }
            self.events.push(LinkEvent::DataUp { peer: id, conn, dialled });
            return;
        }
        if let Some(old) = ctx.peers.get(&id).and_then(|peer| peer.control).filter(|old| *old != conn) {
            // A place that turned out to be a node already linked: the new connection is one too many.
            if dialled {
                self.drop_quietly(ctx, conn);
                if let Some(place) = place {
                    self.events.push(LinkEvent::PlaceUp { place, node: peer });
                }
                return;
            }
            self.lost(ctx, old, "replaced by a newer link");
        }
        self.cancel_attempts(ctx, id);
        ctx.peers.entry(id).or_default().control = Some(conn);
        tracing::info!(node = peer.name, id = %peer.id.short(), address = text(address), "linked");
        self.complained.remove(&peer.name);
        self.known.insert(id, Known { node: peer.clone(), machine, address, idle_since: None });
        self.events.push(LinkEvent::Up(peer.clone()));
        if let Some(place) = place {
            self.complained.remove(&place);
            self.events.push(LinkEvent::PlaceUp { place, node: peer });
        }
    }

    /// The link to `peer` stands otherwise: dials to it are moot.
    fn cancel_attempts(&mut self, ctx: &mut Context, peer: NodeId) {
        let moot = |attempt: &Attempt| {
            attempt.purpose == Purpose::Control
                && matches!(&attempt.target, Target::Node(node) if node.id == peer)
        };
        let cancelled: Vec<Attempt> =
            self.attempts.extract_if(|_, attempt| moot(attempt)).map(|(_, attempt)| attempt).collect();
        for conn in cancelled.into_iter().flat_map(|attempt| attempt.conns) {
            self.conns.remove(&conn);
            ctx.conns.close(conn);
        }
    }

    fn link_down(&mut self, ctx: &mut Context, conn: ConnId, end: LinkEnd) {
        let Some(entry) = self.conns.remove(&conn) else { return };
        let why = end.to_string();
        if let LinkEnd::RefusedByPeer(RefuseReason::Denied { why }) = end {
            self.events.push(LinkEvent::Denied { by: entry.name.clone(), why });
        }
        // A refusal is still to be sent.
        ctx.conns.close_after_flush(conn);
        self.ended(ctx, conn, entry, &why);
    }

    /// The connection failed or is given up.
    pub(crate) fn lost(&mut self, ctx: &mut Context, conn: ConnId, why: &str) {
        ctx.conns.close(conn);
        let Some(entry) = self.conns.remove(&conn) else { return };
        self.ended(ctx, conn, entry, why);
    }

    fn drop_quietly(&mut self, ctx: &mut Context, conn: ConnId) {
        ctx.conns.close(conn);
        if self.conns.remove(&conn).is_some_and(|entry| !entry.dialled && !entry.link.is_up()) {
            self.strangers -= 1;
        }
    }

    fn ended(&mut self, ctx: &mut Context, conn: ConnId, entry: LinkConn, why: &str) {
        let address = text(entry.address);
        if let Some(number) = entry.attempt {
            let Some(attempt) = self.attempts.get_mut(&number) else { return };
            attempt.conns.retain(|other| *other != conn);
            attempt.last_error = format!("{address}: {why}");
            if attempt.conns.is_empty()
                && let Some(attempt) = self.attempts.remove(&number)
            {
                self.give_up(attempt);
            }
            return;
        }
        let Some(peer) = entry.peer else {
            self.strangers -= 1;
            tracing::warn!(address, "turned away: {why}");
            return;
        };
        let Some(slot) = ctx.peers.get_mut(&peer) else {
            if !entry.dialled {
                self.strangers -= 1;
                tracing::warn!(address, id = %peer.short(), "turned away: {why}");
            }
            return;
        };
        let dialled = entry.dialled;
        if slot.control == Some(conn) {
            slot.control = None;
            if let Some(known) = self.known.remove(&peer) {
                tracing::info!(node = known.node.name, id = %peer.short(), "link lost: {why}");
                self.events.push(LinkEvent::Down(known.node));
            }
            // Without beats nobody vouches for the data connections.
            for data in [slot.data, slot.data_in].into_iter().flatten() {
                self.lost(ctx, data, "the control link is lost");
            }
        } else if slot.data == Some(conn) || slot.data_in == Some(conn) {
            *(if dialled { &mut slot.data } else { &mut slot.data_in }) = None;
            self.events.push(LinkEvent::DataDown { peer, conn, dialled });
        } else if !dialled {
            self.strangers -= 1;
            tracing::warn!(address, id = %peer.short(), "turned away: {why}");
        }
        if ctx.peers.get(&peer).is_some_and(|slot| slot.is_empty()) {
            ctx.peers.remove(&peer);
        }
    }

    fn give_up(&mut self, attempt: Attempt) {
        match (attempt.target, attempt.purpose) {
            (Target::Place(place), _) => {
                if self.is_new_complaint(&place) {
                    tracing::warn!("nobody answers at {place}: {}; said once", attempt.last_error);
                }
                self.events.push(LinkEvent::PlaceFailed { place, why: attempt.last_error });
            }
            (Target::Node(node), Purpose::Control) if self.known.contains_key(&node.id) => {}
            (Target::Node(node), purpose) => {
                if self.is_new_complaint(&node.name) {
                    tracing::info!(node = node.name, "cannot be dialled: {}; said once", attempt.last_error);
                }
                self.events.push(match purpose {
                    Purpose::Control => LinkEvent::DialFailed(node.id),
                    Purpose::Data => LinkEvent::DataFailed(node.id),
                });
            }
        }
    }

    /// Whether a dial in vain is worth a line in the log: what is sought is dialled every second.
    fn is_new_complaint(&mut self, about: &str) -> bool {
        if self.complained.len() >= COMPLAINTS_MAX {
            self.complained.clear();
        }
        self.complained.insert(about.to_owned())
    }

    /// The core no longer needs the link to `peer`.
    pub(crate) fn idle(&mut self, now: Tick, peer: NodeId) {
        if let Some(known) = self.known.get_mut(&peer) {
            known.idle_since.get_or_insert(now);
        }
    }

    /// Links that nobody has needed for `span`, longest unneeded first.
    pub(crate) fn idle_for(&self, now: Tick, span: Duration) -> Vec<NodeId> {
        let mut idle: Vec<_> = self
            .known
            .iter()
            .filter_map(|(id, known)| known.idle_since.map(|since| (since, *id)))
            .filter(|(since, _)| now - *since >= span)
            .collect();
        idle.sort();
        idle.into_iter().map(|(_, id)| id).collect()
    }

    /// The link is needed after all.
    pub(crate) fn needed(&mut self, peer: NodeId) {
        if let Some(known) = self.known.get_mut(&peer) {
            known.idle_since = None;
        }
    }

    pub(crate) fn close_link(&mut self, ctx: &mut Context, peer: NodeId) {
        if let Some(control) = ctx.peers.get(&peer).and_then(|peer| peer.control) {
            self.lost(ctx, control, "no longer needed");
        }
    }

    fn close_idle(&mut self, ctx: &mut Context) -> bool {
        let Some(peer) = self.idle_for(ctx.now, Duration::ZERO).into_iter().next() else { return false };
        self.close_link(ctx, peer);
        true
    }

    /// When [`time`](Links::time) is due: at the next beat, which all links share, or when one has
    /// been silent for too long.
    pub(crate) fn deadline(&self) -> Option<Tick> {
        let pace = self.me.pace;
        let (mut handshake, mut answer) = (None, None);
        if self.strangers > 0 || !self.attempts.is_empty() {
            let begun = self.conns.values().filter(|entry| !entry.link.is_up());
            handshake = begun.filter_map(|entry| entry.link.deadline(&pace)).min();
            answer = self.conns.values().filter_map(|entry| entry.answer_by).min();
        }
        if self.heard_first.get().is_none() {
            let up = self.conns.values().filter(|c| c.link.is_up() && c.link.purpose() == Purpose::Control);
            self.heard_first.set(up.map(|entry| entry.heard).min());
        }
        let silent = self.heard_first.get().map(|heard| heard + pace.silence);
        let beat = silent.is_some().then(|| self.beaten + pace.beat);
        [handshake, answer, silent, beat].into_iter().flatten().min()
    }

    /// Gives up what no machine answers.
    fn mind_answers(&mut self, ctx: &mut Context) {
        let mut silent = Vec::new();
        for (conn, entry) in &mut self.conns {
            if entry.answer_by.take_if(|by| *by <= ctx.now).is_some()
                && let Some(Transport::Tls(tls)) = ctx.conns.transport(*conn)
                && tls.is_connecting()
            {
                silent.push(*conn);
            }
        }
        for conn in silent {
            self.lost(ctx, conn, &format!("no machine answers within {CONNECT:?}"));
        }
    }

    pub(crate) fn time(&mut self, ctx: &mut Context) {
        self.mind_answers(ctx);
        // Beats are due on a grid, so that a node with many links wakes once for all of them. The
        // links are told the time of the grid: what was sent at the last point is then exactly one
        // beat old, however late this turn came.
        let pace = self.me.pace;
        let beat = pace.beat.as_micros() as u64;
        let grid = Tick(ctx.now.0 - ctx.now.0 % beat);
        let on_grid = grid > self.beaten;
        if on_grid {
            self.beaten = grid;
        }
        let due: Vec<(ConnId, Tick)> = self
            .conns
            .iter()
            .filter_map(|(id, entry)| {
                let control = entry.link.is_up() && entry.link.purpose() == Purpose::Control;
                let silent = control && ctx.now - entry.heard >= pace.silence;
                let handshake =
                    !entry.link.is_up() && entry.link.deadline(&pace).is_some_and(|at| at <= ctx.now);
                if silent || handshake {
                    Some((*id, ctx.now))
                } else {
                    (control && on_grid).then_some((*id, grid))
                }
            })
            .collect();
        let now = ctx.now;
        for (conn, at) in due {
            ctx.now = at;
            self.tell(ctx, conn, Input::Time);
            ctx.now = now;
        }
        self.heard_first.set(None);
    }

    pub(crate) fn count(&self) -> usize {
        self.known.len()
    }
}

/// Makes the kernel find out that the other machine is gone. Control connections have beats for
/// that; a data connection may stand without one.
pub(crate) fn notice_death(stream: &TcpStream) {
    use rustix::net::sockopt::{
        set_socket_keepalive, set_tcp_keepcnt, set_tcp_keepidle, set_tcp_keepintvl, set_tcp_user_timeout,
    };
    let set = set_socket_keepalive(stream, true)
        .and_then(|()| set_tcp_keepidle(stream, KEEPALIVE))
        .and_then(|()| set_tcp_keepintvl(stream, KEEPALIVE))
        .and_then(|()| set_tcp_keepcnt(stream, 3))
        .and_then(|()| set_tcp_user_timeout(stream, 4 * KEEPALIVE.as_millis() as u32));
    if let Err(error) = set {
        tracing::debug!("the kernel will not look after a connection: {error}");
    }
}

fn body_max(purpose: Purpose) -> usize {
    match purpose {
        Purpose::Control => CONTROL_BODY_MAX,
        Purpose::Data => DATA_BODY_MAX,
    }
}

fn text(address: Option<SocketAddr>) -> String {
    address.map_or_else(|| "an unknown address".into(), |address| address.to_string())
}

/// A hash of this machine's id, to tell a cloned disk from the original.
pub(crate) fn machine() -> [u8; 16] {
    let id = std::fs::read("/etc/machine-id").unwrap_or_default();
    // A cloned disk clones the id too; the network card's address differs.
    let mut hash = blake3::Hasher::new();
    hash.update(b"mutirao machine 1").update(&id);
    let mut cards: Vec<_> = std::fs::read_dir("/sys/class/net")
        .into_iter()
        .flatten()
        .flatten()
        .filter(|card| card.path().join("device").exists())
        .filter_map(|card| std::fs::read(card.path().join("address")).ok())
        .collect();
    cards.sort();
    cards.iter().for_each(|card| {
        hash.update(card);
    });
    let mut machine = [0; 16];
    machine.copy_from_slice(&hash.finalize().as_bytes()[..16]);
    machine
}
