//! Straightens a tree that has grown crooked: gently, one move at a time, each node by what it sees of
//! its own children.
//!
//! The measure: first, how many children there are beyond fan-outs; second, the depths of all nodes
//! added up. Each move makes the first less, or the second and not the first. So there is no way back,
//! and an end. Three moves do:
//! - a node with more children than its fan-out sends one below another;
//! - one with room takes up a child of a child;
//! - a full one that has a subtree two levels deeper than another sends a node that is deeper than the
//!   shallow one ends to there.
//!
//! Once none is possible, the subtrees of each full node differ by one level at most, and who is not full
//! has only leaves below it: the depth grows with the logarithm of the pool.
//!
//! A move is a wish: whoever is asked tries the one attach rule once, and stays if it is refused. It
//! keeps its parent until then. Nodes that were told to have a certain parent stay there.

use crate::core::{Core, Timer};
use crate::io::Output;
use crate::summary::Child;
use core::cmp::Reverse;
use core::time::Duration;
use mutirao_wire::tree::Shift;
use mutirao_wire::{NodeId, Tick};

/// Attempts in a row that may change nothing; then the node waits until something has changed below it.
const VAIN_MAX: u32 = 16;
/// The pause doubles with each attempt in vain, so many times at most.
const DOUBLINGS_MAX: u32 = 4;

/// What this node does about the shape of its subtree.
#[derive(Clone, Default, Hash)]
pub(crate) struct Balance {
    /// When a child last came or went, or its subtree last became deeper or less deep.
    changed: Tick,
    /// When the next move is looked for.
    due: Option<Tick>,
    /// Attempts since something last changed.
    vain: u32,
}

impl Core {
    /// Children, their depths or sizes have changed. `shape`: more than sizes.
    pub(crate) fn balance_changed(&mut self, shape: bool) {
        if shape {
            self.balance.changed = self.now;
        }
        self.balance.vain = 0;
        if let Some(pause) = self.settings.rebalance
            && self.balance.due.is_none()
            && self.next_shift().is_some()
        {
            self.balance_after(pause);
        }
    }

    /// Looks again after `pause` and up to half as long again, differing from node to node.
    fn balance_after(&mut self, pause: Duration) {
        let spread = self.me.id.0.iter().fold(0u8, |sum, byte| sum.wrapping_mul(167).wrapping_add(*byte));
        let due = self.now + pause + pause * u32::from(spread) / 512;
        self.balance.due = Some(due);
        self.arm(due, Timer::Balance);
    }

    pub(crate) fn balance_time(&mut self, out: &mut Vec<Output>) {
        if self.balance.due.take_if(|due| *due <= self.now).is_none() || self.leaving {
            return;
        }
        let Some(pause) = self.settings.rebalance else { return };
        let Some((child, shift)) = self.next_shift().filter(|_| self.balance.vain < VAIN_MAX) else { return };
        if self.place.is_changing() || self.now - self.balance.changed < pause {
            return self.balance_after(pause);
        }
        self.send_tree(child, shift, out);
        self.balance_after(pause * (1 << self.balance.vain.min(DOUBLINGS_MAX)));
        self.balance.vain += 1;
    }

    /// The next move to make, and the child that is asked to see to it.
    fn next_shift(&self) -> Option<(NodeId, Shift)> {
        let children = || self.place.children.values();
        let turn = self.balance.vain;
        let taken = self.place.taken();
        if taken > self.settings.fan_out {
            let to = children().min_by_key(|child| (child.weight(), child.since))?;
            let others = children().filter(|child| child.since != to.since);
            let (child, turn) = nth(others, turn, |child| (child.nodes(), Reverse(child.since)))?;
            return Some((child.node.id, Shift { to: (*to.node).clone(), levels: 0, turn }));
        }
        let (to, reach) = if taken < self.settings.fan_out {
            (&self.me, 0)
        } else {
            let shallow = children().min_by_key(|child| (child.depth(), child.weight(), child.since))?;
            (&*shallow.node, shallow.depth().saturating_add(1))
        };
        let (child, levels, turn) = self.deep_child(reach.saturating_add(1), turn)?;
        Some((child, Shift { to: to.clone(), levels, turn }))
    }

    /// The child to which a request for a node `levels` below it is passed: the `turn`th that is as deep,
    /// largest first.
    fn deep_child(&self, levels: u8, turn: u32) -> Option<(NodeId, u8, u32)> {
        let deep = self.place.children.values().filter(|child| child.depth() >= levels);
        let (child, turn) = nth(deep, turn, |child| (Reverse(child.nodes()), child.since))?;
        Some((child.node.id, levels, turn))
    }

    pub(crate) fn on_shift(&mut self, from: NodeId, m: Shift, out: &mut Vec<Output>) {
        if !self.place.is_parent(from) || self.settings.rebalance.is_none() {
            return;
        }
        let Some(levels) = m.levels.checked_sub(1) else { return self.shift(m.to, out) };
        if let Some((child, levels, turn)) = self.deep_child(levels, m.turn) {
            self.send_tree(child, Shift { to: m.to, levels, turn }, out);
        }
    }
}

/// The `turn`th child in this order, beginning anew after the last, and the turn for those below it: so
/// attempts in vain come by everybody.
fn nth<'a, K: Ord>(
    children: impl Iterator<Item = &'a Child>,
    turn: u32,
    key: impl Fn(&Child) -> K,
) -> Option<(&'a Child, u32)> {
    let mut children: Vec<&Child> = children.collect();
    children.sort_unstable_by_key(|child| key(child));
    let count = u32::try_from(children.len()).ok().filter(|count| *count > 0)?;
    Some((children[(turn % count) as usize], turn / count))
}
