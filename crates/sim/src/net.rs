//! Links: at most one a pair of nodes, in order, broken by crashes and cuts.

use mutirao_wire::Tick;
use std::collections::{BTreeMap, BTreeSet};

/// The network between the nodes, which are known by their numbers.
#[derive(Default)]
pub(crate) struct Net {
    /// What each end believes: the link it has to the other.
    ends: BTreeMap<(usize, usize), u64>,
    /// When the last message each way arrives: the next cannot overtake it.
    order: BTreeMap<(usize, usize), Tick>,
    /// Links that carry nothing any more although an end may still believe in them.
    dead: BTreeSet<u64>,
    /// Until when nothing passes between two nodes.
    cuts: BTreeMap<(usize, usize), Tick>,
    /// Dials under way.
    pub(crate) dials: BTreeSet<(usize, usize)>,
    last: u64,
}

fn pair(a: usize, b: usize) -> (usize, usize) {
    (a.min(b), a.max(b))
}

impl Net {
    /// Makes a link; both ends know it at once. Returns its number.
    pub(crate) fn connect(&mut self, a: usize, b: usize) -> u64 {
        self.last += 1;
        for ends in [(a, b), (b, a)] {
            if let Some(old) = self.ends.insert(ends, self.last) {
                self.dead.insert(old);
            }
        }
        self.last
    }

    /// The link `at` believes to have to `to`.
    pub(crate) fn link(&self, at: usize, to: usize) -> Option<u64> {
        self.ends.get(&(at, to)).copied()
    }

    /// Whether both ends believe in a link that works.
    pub(crate) fn stands(&self, a: usize, b: usize) -> bool {
        self.link(a, b).is_some_and(|link| !self.dead.contains(&link) && self.link(b, a) == Some(link))
    }

    /// The end `at` gives the link up, if it is still this one.
    pub(crate) fn forget(&mut self, at: usize, to: usize, link: u64) -> bool {
        let known = self.link(at, to) == Some(link);
        if known {
            self.ends.remove(&(at, to));
        }
        known
    }

    /// The links `at` believes in.
    pub(crate) fn links_of(&self, at: usize) -> Vec<(usize, u64)> {
        self.ends.range((at, 0)..(at + 1, 0)).map(|((_, to), link)| (*to, *link)).collect()
    }

    pub(crate) fn kill(&mut self, link: u64) {
        self.dead.insert(link);
    }

    pub(crate) fn is_dead(&self, link: u64) -> bool {
        self.dead.contains(&link)
    }

    /// When a message that takes `at` may arrive, no earlier than those before it.
    pub(crate) fn in_order(&mut self, from: usize, to: usize, at: Tick) -> Tick {
        let last = self.order.entry((from, to)).or_default();
        *last = at.max(*last);
        *last
    }

    pub(crate) fn cut(&mut self, a: usize, b: usize, until: Tick) {
        let cut = self.cuts.entry(pair(a, b)).or_default();
        *cut = until.max(*cut);
    }

    /// Until when nothing passes between the two, if so at `now`.
    pub(crate) fn is_cut(&self, a: usize, b: usize, now: Tick) -> Option<Tick> {
        self.cuts.get(&pair(a, b)).copied().filter(|until| *until > now)
    }
}
