//! What is free in a subtree: gathered from below, told upwards.

use crate::core::{Core, Timer};
use crate::hint;
use crate::io::Output;
use crate::settings::Settings;
use mutirao_wire::node::{Bundle, Grant, Layout, Want};
use mutirao_wire::tree::{LabelSum, ResourceSum, Summary, name_hash};
use mutirao_wire::{NodeId, NodeRef, Tick};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Labels named in a summary.
const LABELS_MAX: usize = 32;
/// Resources named in a summary.
const RESOURCES_MAX: usize = 16;
/// Names of nodes in a summary.
const NAMES_MAX: usize = 64;

/// A child, and what it said about its subtree.
#[derive(Clone, Hash)]
pub(crate) struct Child {
    pub(crate) node: Arc<NodeRef>,
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
    pub(crate) fn new(node: Arc<NodeRef>, since: u64, now: Tick) -> Child {
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

    /// Edges from it down to the deepest node below it.
    pub(crate) fn depth(&self) -> u8 {
        self.summary.depth
    }

    /// What it said of its subtree.
    pub(crate) fn summary(&self) -> &Summary {
        &self.summary
    }

    fn free(&self) -> u32 {
        self.summary.slots_free.saturating_sub(self.asked).saturating_sub(self.granted)
    }

    fn idle(&self) -> u32 {
        self.summary.idle_nodes.saturating_sub(self.granted_nodes).min(self.free())
    }

    /// Bundles that are probably free there.
    pub(crate) fn estimate(&self, want: &Want) -> u32 {
        self.spread(want, hint::free(&self.summary, want, self.free(), self.idle()))
    }

    /// Bundles that could be there if all that is lent came back. Only while the last summary is
    /// young: what just came free is not known yet, the less so the deeper it lies.
    pub(crate) fn possible(&self, want: &Want, now: Tick, settings: &Settings) -> u32 {
        let settle = settings.settle + settings.coalesce * 2 * u32::from(self.summary.depth);
        let unsettled = now - self.summary_at < settle || self.granted > 0;
        if unsettled { self.spread(want, hint::in_all(&self.summary, want)) } else { 0 }
    }

    /// Bundles that could be there if all that is lent came back.
    pub(crate) fn in_all(&self, want: &Want) -> u32 {
        self.spread(want, hint::in_all(&self.summary, want))
    }

    /// Whether one bundle is probably there, or would be if nothing were lent.
    pub(crate) fn has(&self, want: &Want, free: bool) -> bool {
        if free {
            hint::free(&self.summary, want, self.summary.slots_free, self.summary.idle_nodes) > 0
        } else {
            hint::in_all(&self.summary, want) > 0
        }
    }

    /// Whether a node of this name is there: certainly, perhaps (and then `None`), or not.
    pub(crate) fn knows(&self, name: &str) -> Option<bool> {
        if self.node.name == name || self.summary.names.contains(&name_hash(name)) {
            return Some(true);
        }
        if self.summary.other_names { None } else { Some(false) }
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

fn add_resource<'a>(sums: &mut BTreeMap<&'a str, ResourceSum>, more: &'a ResourceSum) {
    let empty = || ResourceSum { name: more.name.clone(), ..ResourceSum::default() };
    let sum = sums.entry(&more.name).or_insert_with(empty);
    sum.total = sum.total.saturating_add(more.total);
    sum.free = sum.free.saturating_add(more.free);
    sum.largest = sum.largest.max(more.largest);
    sum.largest_free = sum.largest_free.max(more.largest_free);
}

fn add_label<'a>(sums: &mut BTreeMap<&'a str, LabelSum>, more: &'a LabelSum) {
    let empty = || LabelSum { label: more.label.clone(), ..LabelSum::default() };
    let sum = sums.entry(&more.label).or_insert_with(empty);
    sum.total = sum.total.saturating_add(more.total);
    sum.free = sum.free.saturating_add(more.free);
}

/// What the parent was told.
#[derive(Clone, Hash, Default)]
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
        let mut sum = self.lend.summary(&self.me.name, self.kept());
        let own = (core::mem::take(&mut sum.resources), core::mem::take(&mut sum.labels));
        let mut archs: BTreeSet<_> = sum.archs.iter().copied().collect();
        let mut resources: BTreeMap<&str, ResourceSum> = BTreeMap::new();
        let mut labels: BTreeMap<&str, LabelSum> = BTreeMap::new();
        own.0.iter().for_each(|resource| add_resource(&mut resources, resource));
        own.1.iter().for_each(|label| add_label(&mut labels, label));
        for child in self.place.children.values() {
            let below = &child.summary;
            sum.nodes = sum.nodes.saturating_add(below.nodes);
            sum.depth = sum.depth.max(below.depth.saturating_add(1));
            sum.slots_total = sum.slots_total.saturating_add(below.slots_total);
            sum.slots_free = sum.slots_free.saturating_add(child.free());
            sum.largest = sum.largest.max(below.largest);
            sum.largest_free =
                sum.largest_free.max(below.largest_free.min(child.free().min(u16::MAX.into()) as u16));
            sum.idle_nodes = sum.idle_nodes.saturating_add(child.idle());
            sum.memory.free_mib = sum.memory.free_mib.saturating_add(below.memory.free_mib);
            sum.memory.largest_mib = sum.memory.largest_mib.max(below.memory.largest_mib);
            sum.memory.largest_free_mib = sum.memory.largest_free_mib.max(below.memory.largest_free_mib);
            sum.other_resources |= below.other_resources;
            sum.other_labels |= below.other_labels;
            archs.extend(below.archs.iter().copied());
            below.resources.iter().for_each(|resource| add_resource(&mut resources, resource));
            below.labels.iter().for_each(|label| add_label(&mut labels, label));
        }
        sum.other_resources |= resources.len() > RESOURCES_MAX;
        sum.other_labels |= labels.len() > LABELS_MAX;
        sum.archs = archs.into_iter().collect();
        sum.resources = resources.into_values().take(RESOURCES_MAX).collect();
        sum.labels = labels.into_values().take(LABELS_MAX).collect();
        self.add_names(&mut sum);
        sum
    }

    /// The names below: of all children their first, which is their own, then of all their second.
    fn add_names(&self, sum: &mut Summary) {
        let below = || self.place.children.values().map(|child| &child.summary);
        let longest = below().map(|summary| summary.names.len()).max().unwrap_or(0);
        let in_turn = (0..longest).flat_map(|at| below().filter_map(move |summary| summary.names.get(at)));
        let room = NAMES_MAX.saturating_sub(sum.names.len());
        sum.names.extend(in_turn.take(room));
        let all: usize = 1 + below().map(|summary| summary.names.len()).sum::<usize>();
        sum.other_names = all > NAMES_MAX || below().any(|summary| summary.other_names);
    }

    pub(crate) fn on_summary(&mut self, from: NodeId, mut summary: Summary, out: &mut Vec<Output>) {
        let now = self.now;
        let Some(child) = self.place.children.get_mut(&from) else {
            return self.not_my_neighbour(from, out);
        };
        summary.other_labels |= summary.labels.len() > LABELS_MAX;
        summary.labels.truncate(LABELS_MAX);
        summary.archs.truncate(8);
        summary.other_resources |= summary.resources.len() > RESOURCES_MAX;
        summary.resources.truncate(RESOURCES_MAX);
        summary.other_names |= summary.names.len() > NAMES_MAX;
        summary.names.truncate(NAMES_MAX);
        child.expected = child.expected.saturating_sub(summary.nodes.saturating_sub(child.summary.nodes));
        let (sized, shaped) = (child.summary.nodes != summary.nodes, child.summary.depth != summary.depth);
        child.summary = summary;
        child.summary_at = now;
        child.granted = 0;
        child.granted_nodes = 0;
        self.upward.touched = true;
        if sized || shaped {
            self.balance_changed(shaped);
        }
    }

    /// Tells the parent: `now`, or soon; at once if it believed that nothing was free.
    pub(crate) fn tell_summary(&mut self, now: bool, out: &mut Vec<Output>) {
        let touched = core::mem::take(&mut self.upward.touched);
        if !touched && (!now || self.upward.due.is_none()) {
            return;
        }
        let Some(parent) = self.place.parent.as_ref().map(|parent| parent.id) else { return };
        let told = self.upward.told.as_ref();
        // Adding it all up is worth it only once it may be told.
        if !now && told.is_some_and(|told| told.slots_free > 0) && !self.summary_due() {
            return;
        }
        let summary = self.summarise();
        let told = self.upward.told.as_ref();
        if told == Some(&summary) && !self.upward.owed {
            self.summary_not_due();
            return;
        }
        let at_once = now || told.is_none_or(|told| told.slots_free == 0 && summary.slots_free > 0);
        if at_once || self.summary_due() {
            self.summary_not_due();
            self.upward = Upward { touched: false, owed: false, told: Some(summary.clone()), due: None };
            self.send_tree(parent, summary, out);
        }
    }

    /// Whether what has changed was gathered for long enough; if not, it will be in a while.
    fn summary_due(&mut self) -> bool {
        let due = *self.upward.due.get_or_insert(self.now + self.settings.coalesce);
        if due > self.now {
            self.arm(due, Timer::Summary);
        }
        due <= self.now
    }

    fn summary_not_due(&mut self) {
        if let Some(due) = self.upward.due.take() {
            self.disarm(due, Timer::Summary);
        }
    }
}
