//! Connections between nodes: dialling, handshakes, beats, frames on their way, the end.
//!
//! Which of two crossing connections survives is decided as the daemon decides it.

use crate::event::Event;
use crate::world::World;
use core::time::Duration;
use mutirao_tree::{Input, NodeMessage};
use mutirao_wire::Tick;
use mutirao_wire::frame::{HEADER_BYTES, Header, flags};
use mutirao_wire::lease::LeaseMessage;
use mutirao_wire::limits::{CONNECT, CONTROL_BODY_MAX};
use mutirao_wire::link::{self, Hello, Link, Purpose, RefuseReason};
use mutirao_wire::node::NodeRef;
use mutirao_wire::tree::TreeMessage;

/// After which time without an answer the transport sends again.
const RETRANSMISSION: Duration = Duration::from_millis(200);
/// A link on which something was heard less than this ago is kept when the other side dials too.
const FRESH: Duration = Duration::from_secs(1);
/// How long a link that nobody needs is kept.
const IDLE: Duration = Duration::from_millis(500);

impl World {
    /// The time of one message between the two, without what may delay it.
    pub(crate) fn latency(&mut self, a: usize, b: usize) -> Duration {
        let (least, most) = self.options.latency;
        let one = if least == most { least } else { self.random.between(least, most) };
        let (mut levels, mut a, mut b) = (1, a, b);
        while self.options.rack > 1 && a / self.options.rack != b / self.options.rack {
            (a, b) = (a / self.options.rack, b / self.options.rack);
            levels += 1;
        }
        one * levels
    }

    pub(crate) fn send(&mut self, from: usize, to: usize, message: &NodeMessage) {
        let kind = match message {
            NodeMessage::Tree(message) => message.kind(),
            NodeMessage::Lease(message) => message.kind(),
        };
        let link = self.net.link(from, to).expect("a node sends over links that it has only");
        let mut bytes = core::mem::take(&mut self.buffer);
        bytes.clear();
        message.put(&mut bytes);
        self.sent.count(kind, bytes.len());
        self.digest.bytes(&bytes);
        self.transmit(link, from, to, &bytes);
        self.buffer = bytes;
        if self.options.beats {
            let side = self.net.conns.get(&link).map(|conn| conn.side(from as u32));
            if let Some(side) = side {
                self.tell_link(link, side, link::Input::Sent);
            }
        }
    }

    fn transmit(&mut self, link: u64, from: usize, to: usize, bytes: &[u8]) {
        let at = self.arrival(from, to);
        let at = self.net.in_order(link, from, to, at);
        let (from, to) = (from as u32, to as u32);
        self.at(at - self.now, Event::Deliver { link, from, to, bytes: bytes.into() });
    }

    /// When something sent now arrives, if nothing sent before holds it up.
    pub(crate) fn arrival(&mut self, from: usize, to: usize) -> Tick {
        let mut at = self.now + self.latency(from, to) + self.nodes[to].lag;
        if let Some(until) = self.net.is_cut(from, to, self.now) {
            at = at.max(until + self.random.between(Duration::ZERO, RETRANSMISSION));
        }
        if self.options.loss_permille > 0 {
            let mut pause = RETRANSMISSION;
            while self.random.below(1000) < self.options.loss_permille {
                at = at + pause;
                pause *= 2;
            }
        }
        at
    }

    pub(crate) fn deliver(&mut self, number: u64, from: usize, to: usize, bytes: &[u8]) {
        let (head, body) = bytes.split_first_chunk::<HEADER_BYTES>().expect("a frame has a header");
        let header = Header::from_bytes(head);
        header.check(CONTROL_BODY_MAX).expect("a frame that fits a control connection");
        assert_eq!(header.body_len(), body.len(), "a whole frame, and no more");
        let kind = header.kind.get();
        if self.options.beats {
            let now = self.now;
            let Some(conn) = self.net.conns.get_mut(&number) else { return };
            let side = conn.side(to as u32);
            conn.heard[side] = now;
            if Link::owns(kind) {
                return self.tell_link(number, side, link::Input::Frame(&header, body));
            }
            self.tell_link(number, side, link::Input::Heard);
        }
        if self.net.link(to, from) != Some(number) || self.net.is_dead(number) {
            return;
        }
        if self.nodes[to].older && header.has(flags::OPTIONAL) {
            return;
        }
        let id = self.nodes[from].me.id;
        let input = if TreeMessage::has_kind(kind) {
            Input::Tree { from: id, message: TreeMessage::read(&header, body).expect("a tree message") }
        } else {
            Input::Lease { from: id, message: LeaseMessage::read(&header, body).expect("a lease message") }
        };
        self.input(to, input);
    }

    pub(crate) fn dial(&mut self, from: usize, node: NodeRef) {
        let Some(to) = self.find(node.id) else { return };
        if self.net.stands(from, to) || !self.net.dials.insert((from as u32, to as u32)) {
            return;
        }
        let (a, b) = (from as u32, to as u32);
        if self.net.is_cut(from, to, self.now).is_some() {
            return self.at(CONNECT, Event::DialFailed { from: a, to: b });
        }
        // Of TCP and TLS; the link's own handshake, if it is simulated, comes on top.
        let delay = self.latency(from, to) * if self.options.beats { 2 } else { 3 };
        self.at(delay, Event::Connect { from: a, to: b });
    }

    pub(crate) fn connect(&mut self, from: usize, to: usize) {
        if !self.net.dials.contains(&(from as u32, to as u32)) {
            return;
        }
        if self.net.is_cut(from, to, self.now).is_some() {
            return self.at(CONNECT, Event::DialFailed { from: from as u32, to: to as u32 });
        }
        if self.options.beats && self.nodes[from].core.is_some() && self.nodes[to].core.is_some() {
            return self.open_conn(from, to);
        }
        self.net.dials.remove(&(from as u32, to as u32));
        if self.nodes[from].core.is_none() || self.net.stands(from, to) {
            return;
        }
        if self.nodes[to].core.is_none() {
            return self.tell(from, Input::DialFailed(self.nodes[to].me.id));
        }
        self.note(|| format!("link n{from} n{to}"));
        let (a, b) = (self.nodes[from].me.clone(), self.nodes[to].me.clone());
        self.net.connect(from, to, [a.incarnation, b.incarnation]);
        self.tell(to, Input::LinkUp(a));
        self.tell(from, Input::LinkUp(b));
    }

    /// The other end is gone.
    pub(crate) fn closed(&mut self, number: u64, at: usize, to: usize) {
        if self.options.beats {
            let side = self.net.conns.get(&number).map(|conn| conn.side(at as u32));
            if let Some(side) = side {
                self.tell_link(number, side, link::Input::Closed);
            }
        } else {
            self.lose_link(number, at, to);
        }
    }

    /// The node at this end is told that the link is lost, if it believes in it.
    fn lose_link(&mut self, number: u64, at: usize, to: usize) {
        if self.net.forget(at, to, number) {
            self.note(|| format!("down n{at} to n{to}"));
            self.close_data_between(at, to);
            self.input(at, Input::LinkDown(self.nodes[to].me.id));
        }
    }

    /// The node said that it no longer needs the link to another.
    pub(crate) fn idle(&mut self, at: usize, to: usize) {
        if let Some(link) = self.net.link(at, to) {
            self.at(IDLE, Event::Idle { at: at as u32, to: to as u32, link });
        }
    }

    pub(crate) fn close_idle(&mut self, at: usize, to: usize, number: u64) {
        let needed = self.nodes[at].core.as_ref().is_some_and(|core| core.needs(self.nodes[to].me.id));
        if needed || self.net.link(at, to) != Some(number) {
            return;
        }
        self.note(|| format!("idle n{at} n{to}"));
        if self.options.beats {
            let side = self.net.conns.get(&number).map(|conn| conn.side(at as u32));
            return self.end_closed(number, side.unwrap_or_default());
        }
        self.net.kill(at, to, number);
        let delay = self.latency(at, to);
        self.at(delay, Event::Closed { link: number, at: to as u32, to: at as u32 });
        self.lose_link(number, at, to);
    }

    // --- With the link machine at both ends.

    fn open_conn(&mut self, from: usize, to: usize) {
        let dialler = Link::new(self.local(from), true, Purpose::Control);
        let listener = Link::new(self.local(to), false, Purpose::Control);
        let links = [Some(dialler), Some(listener)];
        let number = self.net.open(from as u32, to as u32, links, self.now);
        let (a, b) = (self.nodes[from].me.id, self.nodes[to].me.id);
        self.tell_link(number, 1, link::Input::Opened { peer: a });
        self.tell_link(number, 0, link::Input::Opened { peer: b });
    }

    fn tell_link(&mut self, number: u64, side: usize, input: link::Input<'_>) {
        let Some(conn) = self.net.conns.get_mut(&number) else { return };
        let (at, to) = (conn.nodes[side] as usize, conn.nodes[1 - side] as usize);
        let Some(machine) = conn.links[side].as_mut() else { return };
        let Some(me) = self.nodes[at].identity.clone() else { return };
        let now = self.nodes[at].clock.read(self.now);
        let mut out = Vec::new();
        machine.handle(now, &me, input, &mut out);
        for output in out {
            match output {
                link::Output::Send(message) => {
                    let mut bytes = Vec::new();
                    message.put(&mut bytes);
                    self.transmit(number, at, to, &bytes);
                }
                link::Output::Greeted(hello) => self.decide(number, at, to, hello),
                link::Output::Up { peer, .. } => self.link_up(number, side, peer),
                link::Output::Down(end) => {
                    self.note(|| format!("n{at} to n{to}: {end}"));
                    self.end_closed(number, side);
                }
            }
        }
        self.arm_link(number, side);
    }

    /// Whether a dialler is let in.
    fn decide(&mut self, number: u64, at: usize, from: usize, hello: Hello) {
        let refuse = |reason| link::Input::Refuse(reason);
        if let (Some(known), Some(life)) = (self.net.link(at, from), self.net.life(at, from)) {
            if hello.node.incarnation < life {
                return self.tell_link(number, 1, refuse(RefuseReason::Outdated));
            }
            let heard = self.net.conns.get(&known).map(|conn| conn.heard[conn.side(at as u32)]);
            let fresh = heard.is_some_and(|heard| self.now - heard < FRESH);
            if hello.node.incarnation == life && fresh {
                return self.end_closed(number, 1);
            }
            let side = self.net.conns.get(&known).map(|conn| conn.side(at as u32));
            self.end_closed(known, side.unwrap_or_default());
        } else if self.nodes[at].me.id < hello.node.id {
            let own =
                |conn: &crate::net::Conn| conn.nodes == [at as u32, from as u32] && conn.links[0].is_some();
            if self.net.conns.values().any(own) {
                return self.end_closed(number, 1);
            }
        }
        self.tell_link(number, 1, link::Input::Accept);
    }

    fn link_up(&mut self, number: u64, side: usize, peer: NodeRef) {
        let Some(conn) = self.net.conns.get(&number) else { return };
        let (at, to) = (conn.nodes[side] as usize, conn.nodes[1 - side] as usize);
        if let Some(old) = self.net.link(at, to) {
            if side == 0 {
                return self.end_closed(number, side);
            }
            let old_side = self.net.conns.get(&old).map(|conn| conn.side(at as u32));
            self.end_closed(old, old_side.unwrap_or_default());
        }
        self.note(|| format!("link n{at} n{to}"));
        self.net.dials.remove(&(at as u32, to as u32));
        self.net.begin(at, to, number, peer.incarnation);
        self.input(at, Input::LinkUp(peer));
    }

    /// This end is closed; the other will hear of it.
    fn end_closed(&mut self, number: u64, side: usize) {
        let Some(conn) = self.net.conns.get_mut(&number) else { return };
        let (at, to) = (conn.nodes[side] as usize, conn.nodes[1 - side] as usize);
        if conn.links[side].take().is_none() {
            return;
        }
        self.hang_up(number, at, to);
        self.lose_link(number, at, to);
        if side == 0 && self.net.dials.remove(&(at as u32, to as u32)) && self.net.link(at, to).is_none() {
            self.input(at, Input::DialFailed(self.nodes[to].me.id));
        }
    }

    /// Tells the other end, if it is still open, that this one is closed.
    pub(crate) fn hang_up(&mut self, number: u64, at: usize, to: usize) {
        let Some(conn) = self.net.conns.get(&number) else { return };
        if conn.links.iter().all(Option::is_none) {
            self.net.conns.remove(&number);
            return;
        }
        let mut when = self.now + self.latency(at, to);
        if let Some(until) = self.net.is_cut(at, to, self.now) {
            when = when.max(until);
        }
        let when = self.net.in_order(number, at, to, when);
        self.at(when - self.now, Event::Closed { link: number, at: to as u32, to: at as u32 });
    }

    /// Closes all ends at a node without a word; those that are open on the other side are returned.
    pub(crate) fn drop_ends_of(&mut self, index: usize) -> Vec<(u64, usize)> {
        let at = index as u32;
        let mut open = Vec::new();
        self.net.conns.retain(|number, conn| {
            if !conn.nodes.contains(&at) {
                return true;
            }
            let side = conn.side(at);
            conn.links[side] = None;
            if conn.links[1 - side].is_some() {
                open.push((*number, conn.nodes[1 - side] as usize));
            }
            conn.links[1 - side].is_some()
        });
        open
    }

    /// Connections whose end at the node is closed while the other is open.
    pub(crate) fn open_to(&self, index: usize) -> Vec<(u64, usize)> {
        let at = index as u32;
        let conns = self.net.conns.iter().filter(|(_, conn)| conn.nodes.contains(&at));
        conns
            .filter(|(_, conn)| conn.links[conn.side(at)].is_none())
            .map(|(number, conn)| (*number, conn.nodes[1 - conn.side(at)] as usize))
            .collect()
    }

    fn arm_link(&mut self, number: u64, side: usize) {
        let Some(conn) = self.net.conns.get_mut(&number) else { return };
        let at = conn.nodes[side] as usize;
        let Some(due) = conn.links[side].as_ref().and_then(|end| end.deadline(&link::Pace::default())) else {
            return;
        };
        let due = self.nodes[at].clock.when(due).max(self.now);
        if conn.due[side].is_none_or(|planned| planned > due) {
            conn.due[side] = Some(due);
            self.at(due - self.now, Event::LinkTime { link: number, side, due });
        }
    }

    pub(crate) fn arm_links_of(&mut self, index: usize) {
        let at = index as u32;
        let theirs = self.net.conns.iter().filter(|(_, conn)| conn.nodes.contains(&at));
        let theirs: Vec<(u64, usize)> = theirs.map(|(number, conn)| (*number, conn.side(at))).collect();
        for (number, side) in theirs {
            self.arm_link(number, side);
        }
    }

    pub(crate) fn link_time(&mut self, number: u64, side: usize, due: Tick) {
        let Some(conn) = self.net.conns.get(&number).filter(|conn| conn.due[side] == Some(due)) else {
            return;
        };
        let at = conn.nodes[side] as usize;
        if self.stalled(at) {
            let delay = (self.nodes[at].stalled - self.now) + Duration::from_micros(1);
            return self.at(delay, Event::LinkTime { link: number, side, due });
        }
        if let Some(conn) = self.net.conns.get_mut(&number) {
            conn.due[side] = None;
        }
        self.tell_link(number, side, link::Input::Time);
    }
}
