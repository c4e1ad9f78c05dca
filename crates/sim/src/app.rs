//! A program that asks for slots.

use crate::calls::Program;
use mutirao_wire::local::LeaseChange;
use mutirao_wire::node::{Grant, Note};
use mutirao_wire::{AppId, Epoch, Handle, LeaseId, NodeId, NodeRef, PluginId, RequestId, Tick};
use std::collections::BTreeMap;

/// A program, at home on one node.
#[derive(Debug)]
pub struct App {
    /// Its id.
    pub id: AppId,
    /// In which of its lives as seen by nodes it is.
    pub epoch: Epoch,
    /// Nodes at which it may go on; none if it is at home on one only.
    pub homes: Vec<NodeId>,
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
    /// Its calls, if it has any; taken out while it is busy with them.
    pub(crate) program: Option<Box<Program>>,
    /// By what names its node and it know its leases, if it has calls.
    pub(crate) handles: BTreeMap<LeaseId, Handle>,
    last_handle: u32,
    /// When what its node told it last arrives.
    pub(crate) spoken: Tick,
}

impl App {
    /// A program that holds nothing.
    pub fn new(id: AppId) -> App {
        App {
            id,
            epoch: Epoch(1),
            homes: Vec::new(),
            leases: BTreeMap::new(),
            open: BTreeMap::new(),
            found: BTreeMap::new(),
            news: Vec::new(),
            approved: Vec::new(),
            program: None,
            handles: BTreeMap::new(),
            last_handle: 0,
            spoken: Tick(0),
        }
    }

    /// Whether it has calls.
    pub(crate) fn has_calls(&self) -> bool {
        self.program.is_some()
    }

    /// A handle never used before.
    pub(crate) fn handle(&mut self) -> Handle {
        self.last_handle += 1;
        Handle(self.last_handle)
    }

    /// What it was told of one lease.
    pub fn news_of(&self, lease: LeaseId) -> Vec<LeaseChange> {
        self.news.iter().filter(|(_, l, _)| *l == lease).map(|(_, _, change)| change.clone()).collect()
    }
}
