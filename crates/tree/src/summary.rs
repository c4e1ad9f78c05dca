//! What is free in a subtree: gathered from below, told upwards.

use crate::core::{Core, Timer};
use crate::io::Output;
use mutirao_wire::node::{Bundle, Grant, Layout, Want};
use mutirao_wire::tree::Summary;
use mutirao_wire::{NodeId, NodeRef, Tick};
use std::collections::BTreeSet;

/// Labels named in a summary.
const LABELS_MAX: usize = 32;

/// A child, and what it said about its subtree.
pub(crate) struct Child {
    pub(crate) node: NodeRef,
    /// Which child of this node it was, in order of arrival.
    pub(crate) since: u64,
    /// Nodes passed down to it that its summary does not count yet.
    pub(crate) expected: u32,
    summary: Summary,
    summary_at: Tick,
    /// Slots asked of it and not answered for yet.
    asked: u32,
    /// Slots, and whole nodes, granted below it since its last summary.
    granted: u32,
    granted_nodes: u32,
}

impl Child {
    pub(crate) fn new(node: NodeRef, since: u64, now: Tick) -> Child {
        Child {
            node,
            since,
            expected: 0,
            summary: Summary { nodes: 1, ..Summary::default() },
            summary_at: now,
            asked: 0,
            granted: 0,
            granted_nodes: 0,
        }
    }

    /// Nodes below it, itself included, those on their way too.
    pub(crate) fn weight(&self) -> u32 {
        self.summary.nodes.saturating_add(self.expected)
    }

    /// Nodes below it, itself included.
    pub(crate) fn nodes(&self) -> u32 {
        self.summary.nodes
    }

    fn free(&self) -> u32 {
        self.summary.slots_free.saturating_sub(self.asked).saturating_sub(self.granted)
    }

    fn idle(&self) -> u32 {
        self.summary.idle_nodes.saturating_sub(self.granted_nodes).min(self.free())
    }

    /// Bundles that are probably free there.
    pub(crate) fn estimate(&self, want: &Want) -> u32 {
        if !self.may_fit(want) {
            return 0;
        }
        let bundles = if want.bundle.exclusive {
            self.idle()
        } else if want.bundle.slots > self.summary.largest_free {
            0
        } else {
            self.free() / u32::from(want.bundle.slots.max(1))
        };
        self.spread(want, bundles)
    }

    /// Bundles that could be there if all that is lent came back. Only while the last summary is
    /// young: what just came free is not known yet.
    pub(crate) fn possible(&self, want: &Want, now: Tick, settle: core::time::Duration) -> u32 {
        let unsettled = now - self.summary_at < settle || self.granted > 0;
        if !unsettled || !self.may_fit(want) {
            return 0;
        }
        let bundles = if want.bundle.exclusive {
            self.summary.nodes
        } else {
            self.summary.slots_total / u32::from(want.bundle.slots.max(1))
        };
        self.spread(want, bundles)
    }

    fn may_fit(&self, want: &Want) -> bool {
        want.arch.is_none_or(|arch| self.summary.archs.is_empty() || self.summary.archs.contains(&arch))
    }

    fn spread(&self, want: &Want, bundles: u32) -> u32 {
        if want.layout == Layout::Spread { bundles.min(self.summary.nodes) } else { bundles }
    }

    /// Sets aside what is asked for.
    pub(crate) fn debit(&mut self, bundle: &Bundle, count: u32) {
        self.asked = self.asked.saturating_add(slots_of(bundle, count));
    }

    /// What was asked for is answered, by these grants.
    pub(crate) fn settle(&mut self, bundle: &Bundle, count: u32, grants: &[Grant]) {
        self.asked = self.asked.saturating_sub(slots_of(bundle, count));
        let slots = grants.iter().map(|grant| u32::from(grant.slots)).fold(0, u32::saturating_add);
        self.granted = self.granted.saturating_add(slots);
        if bundle.exclusive {
            self.granted_nodes = self.granted_nodes.saturating_add(grants.len() as u32);
        }
    }
}

fn slots_of(bundle: &Bundle, count: u32) -> u32 {
    count.saturating_mul(u32::from(bundle.slots.max(1)))
}

/// What the parent was told.
#[derive(Default)]
pub(crate) struct Upward {
    /// Something may have changed.
    pub(crate) touched: bool,
    /// The parent has debited what was granted to it and waits for a summary that says the same.
    pub(crate) owed: bool,
    told: Option<Summary>,
    due: Option<Tick>,
}

impl Upward {
    /// A new parent knows nothing yet.
    pub(crate) fn begin(&mut self) {
        *self = Upward { touched: true, ..Upward::default() };
    }
}

impl Core {
    /// What is in this node's subtree.
    pub(crate) fn summarise(&self) -> Summary {
        let mut sum = self.lend.summary();
        let mut archs: BTreeSet<_> = sum.archs.iter().copied().collect();
        let mut labels: BTreeSet<String> = sum.labels.drain(..).collect();
        for child in self.place.children.values() {
            let below = &child.summary;
            sum.nodes = sum.nodes.saturating_add(below.nodes);
            sum.depth = sum.depth.max(below.depth.saturating_add(1));
            sum.slots_total = sum.slots_total.saturating_add(below.slots_total);
            sum.slots_free = sum.slots_free.saturating_add(child.free());
            sum.largest_free =
                sum.largest_free.max(below.largest_free.min(child.free().min(u16::MAX.into()) as u16));
            sum.idle_nodes = sum.idle_nodes.saturating_add(child.idle());
            sum.other_labels |= below.other_labels;
            archs.extend(below.archs.iter().copied());
            labels.extend(below.labels.iter().cloned());
        }
        sum.other_labels |= labels.len() > LABELS_MAX;
        sum.archs = archs.into_iter().collect();
        sum.labels = labels.into_iter().take(LABELS_MAX).collect();
        sum
    }

    pub(crate) fn on_summary(&mut self, from: NodeId, mut summary: Summary, out: &mut Vec<Output>) {
        let now = self.now;
        let Some(child) = self.place.children.get_mut(&from) else {
            return self.not_my_neighbour(from, out);
        };
        summary.other_labels |= summary.labels.len() > LABELS_MAX;
        summary.labels.truncate(LABELS_MAX);
        summary.archs.truncate(8);
        child.expected = child.expected.saturating_sub(summary.nodes.saturating_sub(child.summary.nodes));
        child.summary = summary;
        child.summary_at = now;
        child.granted = 0;
        child.granted_nodes = 0;
        self.upward.touched = true;
    }

    /// Tells the parent, at once if it believed that nothing was free.
    pub(crate) fn tell_summary(&mut self, out: &mut Vec<Output>) {
        if !core::mem::take(&mut self.upward.touched) {
            return;
        }
        let Some(parent) = self.place.parent.as_ref().map(|parent| parent.id) else { return };
        let summary = self.summarise();
        let told = self.upward.told.as_ref();
        if told == Some(&summary) && !self.upward.owed {
            self.upward.due = None;
            return;
        }
        let at_once = told.is_none_or(|told| told.slots_free == 0 && summary.slots_free > 0);
        let due = *self.upward.due.get_or_insert(self.now + self.settings.coalesce);
        if at_once || due <= self.now {
            self.upward = Upward { touched: false, owed: false, told: Some(summary.clone()), due: None };
            self.send_tree(parent, summary, out);
        } else {
            self.arm(due, Timer::Summary);
        }
    }
}
