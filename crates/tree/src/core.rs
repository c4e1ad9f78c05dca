//! The machine the daemon and the simulator talk to.

use crate::io::{Capacity, Input, LeaseRecord, Output};
use crate::policy::{Policy, Verifier};
use crate::settings::Settings;
use mutirao_wire::{NodeId, NodeRef, Tick};
use std::collections::BTreeMap;

/// All that one node decides about the tree and about leases.
pub struct Core {
    me: NodeRef,
    settings: Settings,
    capacity: Capacity,
    policy: Policy,
    verify: Verifier,
    links: BTreeMap<NodeId, NodeRef>,
}

impl Core {
    /// A node without a parent. Its `me.incarnation` must be higher than in each earlier life.
    pub fn new(
        me: NodeRef,
        settings: Settings,
        capacity: Capacity,
        policy: Policy,
        verify: Verifier,
    ) -> Core {
        Core { me, settings, capacity, policy, verify, links: BTreeMap::new() }
    }

    /// Takes one input and appends what follows from it. `now` never goes back.
    pub fn handle(&mut self, now: Tick, input: Input, out: &mut Vec<Output>) {
        let _ = (now, input, out, &self.settings, &self.policy, &self.verify);
    }

    /// When [`Input::Time`] is due, if ever.
    pub fn deadline(&self) -> Option<Tick> {
        None
    }

    /// Whether the control link to `node` serves a purpose here.
    pub fn needs(&self, node: NodeId) -> bool {
        self.links.contains_key(&node)
    }

    /// This node.
    pub fn me(&self) -> &NodeRef {
        &self.me
    }

    /// The parent; `None` for a root.
    pub fn parent(&self) -> Option<&NodeRef> {
        None
    }

    /// The children, by id.
    pub fn children(&self) -> impl Iterator<Item = &NodeRef> {
        self.links.values()
    }

    /// Slots free here, and in all.
    pub fn slots(&self) -> (u16, u16) {
        (self.capacity.slots, self.capacity.slots)
    }

    /// The leases granted here and confirmed, until their workers are gone.
    pub fn leases(&self) -> impl Iterator<Item = &LeaseRecord> {
        core::iter::empty()
    }
}
