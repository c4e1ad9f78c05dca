//! One simulated machine: its node, the node's workers, the programs at home there.

use crate::app::App;
use crate::world::Event;
use mutirao_tree::{Capacity, Core, Policy, Settings};
use mutirao_wire::node::{Arch, NodeRef};
use mutirao_wire::query::Row;
use mutirao_wire::{AppId, Incarnation, NodeId, Tick};
use std::collections::BTreeMap;

/// One simulated machine.
pub struct Node {
    /// Its node in its present or, while it is down, next life.
    pub me: NodeRef,
    /// The machine under test; `None` while the node is down.
    pub core: Option<Core>,
    /// What it starts with.
    pub settings: Settings,
    /// What it has.
    pub capacity: Capacity,
    /// Whom it lends to.
    pub policy: Policy,
    /// What it is told to join at each start.
    pub join: Option<(Vec<NodeRef>, bool)>,
    /// Programs at home here.
    pub apps: BTreeMap<AppId, App>,
    /// Slots of the leases that have begun and whose workers are not gone.
    pub workers: BTreeMap<u64, u16>,
    /// Answers to questions asked here: rows, and how many did not answer once it is known.
    pub rows: BTreeMap<u64, (Vec<Row>, Option<u32>)>,
    /// Nodes that refused this one for good.
    pub refusals: Vec<(NodeId, mutirao_wire::tree::Refusal)>,
    /// Askers that wait for the owner here.
    pub awaits: Vec<String>,
    /// It has left.
    pub left: bool,
    /// It does nothing before this time.
    pub stalled: Tick,
    /// What waits until it goes on.
    pub(crate) inbox: Vec<Event>,
    /// When it is to be told the time next.
    pub(crate) woken_for: Option<Tick>,
}

/// The id of the node with number `index`.
pub(crate) fn id_of(index: usize) -> NodeId {
    let mut x = index as u64 + 1;
    let mut bytes = [0; 32];
    for chunk in bytes.chunks_mut(8) {
        x = x.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (x >> 29);
        chunk.copy_from_slice(&x.to_le_bytes());
    }
    NodeId(bytes)
}

impl Node {
    pub(crate) fn new(index: usize, slots: u16, settings: Settings) -> Node {
        let name = format!("n{index}");
        let address = format!("10.{}.{}.{}:7000", index >> 16, (index >> 8) & 255, index & 255);
        let me = NodeRef {
            id: id_of(index),
            incarnation: Incarnation(1),
            name: name.clone(),
            addresses: address.parse().into_iter().collect(),
        };
        let policy = Policy {
            accept: mutirao_tree::Accept::All,
            owner: format!("owner@{name}"),
            local_user: format!("user@{name}"),
            ..Policy::default()
        };
        let capacity = Capacity {
            slots,
            memory_mib: 1024 * u32::from(slots),
            resources: Vec::new(),
            arch: Arch::X86_64,
            libc: Some((2, 34)),
            labels: Vec::new(),
        };
        Node {
            me,
            core: None,
            settings,
            capacity,
            policy,
            join: None,
            apps: BTreeMap::new(),
            workers: BTreeMap::new(),
            rows: BTreeMap::new(),
            refusals: Vec::new(),
            awaits: Vec::new(),
            left: false,
            stalled: Tick(0),
            inbox: Vec::new(),
            woken_for: None,
        }
    }

    /// The machine under test.
    ///
    /// # Panics
    /// If the node is down.
    pub fn core(&self) -> &Core {
        self.core.as_ref().unwrap_or_else(|| panic!("{} is down", self.me.name))
    }
}
