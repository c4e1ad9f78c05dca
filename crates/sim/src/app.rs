//! A program that asks for slots.

use mutirao_wire::local::LeaseChange;
use mutirao_wire::node::{Grant, Note};
use mutirao_wire::{AppId, Epoch, LeaseId, NodeRef, PluginId, RequestId, Tick};
use std::collections::BTreeMap;

/// A program, at home on one node.
#[derive(Debug, Clone)]
pub struct App {
    /// Its id.
    pub id: AppId,
    /// In which of its lives as seen by nodes it is.
    pub epoch: Epoch,
    /// The leases it holds, and their lenders.
    pub leases: BTreeMap<LeaseId, NodeRef>,
    /// How many answers to each request are due at most.
    pub(crate) open: BTreeMap<RequestId, u32>,
    /// What came of each request, and when.
    pub found: BTreeMap<RequestId, (Tick, Vec<Grant>, Vec<Note>)>,
    /// What it was told of its leases, in order.
    pub news: Vec<(Tick, LeaseId, LeaseChange)>,
    /// Plugins approved somewhere for it.
    pub approved: Vec<PluginId>,
}

impl App {
    /// A program that holds nothing.
    pub fn new(id: AppId) -> App {
        App {
            id,
            epoch: Epoch(1),
            leases: BTreeMap::new(),
            open: BTreeMap::new(),
            found: BTreeMap::new(),
            news: Vec::new(),
            approved: Vec::new(),
        }
    }

    /// What it was told of one lease.
    pub fn news_of(&self, lease: LeaseId) -> Vec<LeaseChange> {
        self.news.iter().filter(|(_, l, _)| *l == lease).map(|(_, _, change)| change.clone()).collect()
    }
}
