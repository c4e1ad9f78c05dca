//! Connections: at most one link a pair of nodes is in use, in order, broken by crashes and cuts.

use mutirao_wire::link::Link;
use mutirao_wire::{Incarnation, Tick};
use std::collections::{BTreeMap, BTreeSet};

/// What one end believes: the link it has to another node.
#[derive(Clone, Copy)]
struct End {
    link: u64,
    /// The life of the other side it was made with.
    life: Incarnation,
    /// When the last message this way arrives: the next cannot overtake it.
    order: Tick,
}

/// A connection whose two ends run the link machine.
pub(crate) struct Conn {
    /// Dialler and listener.
    pub(crate) nodes: [u32; 2],
    /// Their machines; `None` once an end is closed.
    pub(crate) links: [Option<Link>; 2],
    /// When each is to be told the time next.
    pub(crate) due: [Option<Tick>; 2],
    /// When each last heard something.
    pub(crate) heard: [Tick; 2],
    order: [Tick; 2],
}

impl Conn {
    /// Which end is that of `node`.
    pub(crate) fn side(&self, node: u32) -> usize {
        usize::from(self.nodes[0] != node)
    }
}

/// The network between the nodes, which are known by their numbers.
#[derive(Default)]
pub(crate) struct Net {
    ends: Vec<BTreeMap<u32, End>>,
    /// Links that carry nothing any more although an end still believes in them.
    dead: BTreeSet<u64>,
    /// Until when nothing passes between two nodes.
    cuts: BTreeMap<(usize, usize), Tick>,
    /// Dials under way.
    pub(crate) dials: BTreeSet<(u32, u32)>,
    /// Connections, if their ends run the link machine.
    pub(crate) conns: BTreeMap<u64, Conn>,
    last: u64,
}

fn pair(a: usize, b: usize) -> (usize, usize) {
    (a.min(b), a.max(b))
}

impl Net {
    pub(crate) fn add_node(&mut self) {
        self.ends.push(BTreeMap::new());
    }

    /// Makes a link that both ends know at once. Returns its number.
    pub(crate) fn connect(&mut self, a: usize, b: usize, lives: [Incarnation; 2]) -> u64 {
        self.last += 1;
        let link = self.last;
        self.begin(a, b, link, lives[1]);
        self.begin(b, a, link, lives[0]);
        link
    }

    /// The end `at` has this link to `to` from now on.
    pub(crate) fn begin(&mut self, at: usize, to: usize, link: u64, life: Incarnation) {
        let end = End { link, life, order: Tick(0) };
        if let Some(old) = self.ends[at].insert(to as u32, end) {
            if self.link(to, at) == Some(old.link) {
                self.dead.insert(old.link);
            } else {
                self.dead.remove(&old.link);
            }
        }
    }

    /// Opens a connection whose ends will run the link machine.
    pub(crate) fn open(&mut self, from: u32, to: u32, links: [Option<Link>; 2], now: Tick) -> u64 {
        self.last += 1;
        let order = [Tick(0); 2];
        self.conns
            .insert(self.last, Conn { nodes: [from, to], links, due: [None; 2], heard: [now; 2], order });
        self.last
    }

    /// The link `at` believes to have to `to`.
    pub(crate) fn link(&self, at: usize, to: usize) -> Option<u64> {
        self.ends[at].get(&(to as u32)).map(|end| end.link)
    }

    /// With which life of `to` the link of `at` was made.
    pub(crate) fn life(&self, at: usize, to: usize) -> Option<Incarnation> {
        self.ends[at].get(&(to as u32)).map(|end| end.life)
    }

    /// Whether both ends believe in a link that works.
    pub(crate) fn stands(&self, a: usize, b: usize) -> bool {
        self.link(a, b).is_some_and(|link| !self.dead.contains(&link) && self.link(b, a) == Some(link))
    }

    /// The end `at` gives the link up, if it is still this one.
    pub(crate) fn forget(&mut self, at: usize, to: usize, link: u64) -> bool {
        let known = self.link(at, to) == Some(link);
        if known {
            self.ends[at].remove(&(to as u32));
            if self.link(to, at) != Some(link) {
                self.dead.remove(&link);
            }
        }
        known
    }

    /// The links `at` believes in.
    pub(crate) fn links_of(&self, at: usize) -> Vec<(usize, u64)> {
        self.ends[at].iter().map(|(to, end)| (*to as usize, end.link)).collect()
    }

    /// The link carries nothing any more.
    pub(crate) fn kill(&mut self, a: usize, b: usize, link: u64) {
        if self.link(a, b) == Some(link) || self.link(b, a) == Some(link) {
            self.dead.insert(link);
        }
    }

    pub(crate) fn is_dead(&self, link: u64) -> bool {
        self.dead.contains(&link)
    }

    /// When a message over `link` that takes until `at` may arrive, no earlier than those before it.
    pub(crate) fn in_order(&mut self, link: u64, from: usize, to: usize, at: Tick) -> Tick {
        let last = if let Some(conn) = self.conns.get_mut(&link) {
            &mut conn.order[usize::from(conn.nodes[0] != from as u32)]
        } else if let Some(end) = self.ends[from].get_mut(&(to as u32)) {
            &mut end.order
        } else {
            return at;
        };
        *last = at.max(*last);
        *last
    }

    pub(crate) fn cut(&mut self, a: usize, b: usize, until: Tick) {
        let cut = self.cuts.entry(pair(a, b)).or_default();
        *cut = until.max(*cut);
    }

    /// Until when nothing passes between the two, if so at `now`.
    pub(crate) fn is_cut(&self, a: usize, b: usize, now: Tick) -> Option<Tick> {
        if self.cuts.is_empty() {
            return None;
        }
        self.cuts.get(&pair(a, b)).copied().filter(|until| *until > now)
    }

    /// Everything passes again.
    pub(crate) fn mend(&mut self) {
        self.cuts.clear();
    }
}
