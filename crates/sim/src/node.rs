//! One simulated machine: its node, the node's workers, the programs at home there.

use crate::app::App;
use crate::calls::Streams;
use crate::clock::Clock;
use crate::event::Event;
use core::time::Duration;
use mutirao_tree::{Capacity, Core, Policy, Settings};
use mutirao_wire::charter::CharterDocument;
use mutirao_wire::link::Me;
use mutirao_wire::node::{Arch, NodeRef};
use mutirao_wire::query::Row;
use mutirao_wire::{AppId, Incarnation, NodeId, Tick};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

/// One simulated machine.
pub struct Node {
    /// Its node in its present or, while it is down, next life.
    pub me: NodeRef,
    /// The machine under test; `None` while the node is down.
    pub core: Option<Core>,
    /// What it starts with.
    pub settings: Arc<Settings>,
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
    /// The charter in its state directory.
    pub charter: Option<CharterDocument>,
    /// Charters that came and were not in order.
    pub bad_charters: u32,
    /// What it knows of calls.
    pub(crate) streams: Streams,
    /// It has left.
    pub left: bool,
    /// How its clock goes.
    pub clock: Clock,
    /// How much longer than on others what is sent to it takes: it is slow.
    pub lag: Duration,
    /// It runs an older version, and skips what is marked as optional.
    pub older: bool,
    /// After a restart the programs at home here come back.
    pub returning: bool,
    /// It does nothing before this time.
    pub stalled: Tick,
    /// What waits until it goes on.
    pub(crate) inbox: Vec<Event>,
    /// As whom it introduces itself, if connections are simulated that far.
    pub(crate) identity: Option<Rc<Me>>,
    /// When it is to be told the time next.
    pub(crate) woken_for: Option<Tick>,
}

/// Spreads numbers over all ids; odd, so that it can be undone.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
/// Undoes it.
const GATHER: u64 = inverse(SPREAD);

/// The number whose product with `odd` is 1.
const fn inverse(odd: u64) -> u64 {
    let mut x = odd;
    let mut step = 0;
    // Each step doubles the bits that are right; the first three are from the start.
    while step < 5 {
        x = x.wrapping_mul(2u64.wrapping_sub(odd.wrapping_mul(x)));
        step += 1;
    }
    x
}

/// The id of the node with number `index`.
pub(crate) fn id_of(index: usize) -> NodeId {
    let mut x = index as u64 + 1;
    let mut bytes = [0; 32];
    for chunk in bytes.chunks_mut(8) {
        x = x.wrapping_mul(SPREAD) ^ (x >> 29);
        chunk.copy_from_slice(&x.to_le_bytes());
    }
    NodeId(bytes)
}

/// The number of the node with this id, if there can be one.
pub(crate) fn index_of(id: NodeId) -> Option<usize> {
    let first = u64::from_le_bytes(*id.0.first_chunk()?);
    let index = first.wrapping_mul(GATHER).checked_sub(1)? as usize;
    (id_of(index) == id).then_some(index)
}

impl Node {
    pub(crate) fn new(index: usize, slots: u16, settings: Arc<Settings>) -> Node {
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
            charter: None,
            bad_charters: 0,
            streams: Streams::default(),
            left: false,
            clock: Clock::default(),
            lag: Duration::ZERO,
            older: false,
            returning: false,
            stalled: Tick(0),
            inbox: Vec::new(),
            identity: None,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_ids_belong_together() {
        for index in (0..1000).chain([1 << 20, 10_000_000]) {
            assert_eq!(index_of(id_of(index)), Some(index));
        }
        assert_eq!(index_of(NodeId([3; 32])), None);
    }
}
