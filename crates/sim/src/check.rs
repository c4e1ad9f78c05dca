//! What must hold: always, and once everything has settled.

use crate::world::World;
use mutirao_tree::Accept;
use mutirao_wire::RequestId;
use mutirao_wire::node::Layout;
use mutirao_wire::query::{Row, WaitingRow};
use std::collections::{BTreeMap, BTreeSet};

impl World {
    /// After each step, of the node that took it. Panics when something does not hold.
    pub(crate) fn check_step(&self, index: usize) {
        let node = &self.nodes[index];
        let Some(core) = &node.core else { return };
        let granted: u32 = core.granted().map(|record| u32::from(record.bundle.slots)).sum();
        let (free, total) = core.slots();
        assert_eq!(granted + u32::from(free), total.into(), "n{index}: a slot is lost or held twice");
        let working: u32 = node.workers.values().map(|slots| u32::from(*slots)).sum();
        assert!(working <= total.into(), "n{index}: more workers than slots");
        // What the core lets go of has no worker any more.
        if let Some((serial, _)) = node.workers.iter().find(|(s, _)| core.lease_record(**s).is_none()) {
            panic!("n{index}: lease {serial} is forgotten while its worker runs");
        }
        self.check_no_cycle(index);
    }

    fn check_no_cycle(&self, start: usize) {
        let mut at = start;
        for _ in 0..=self.nodes.len() {
            let Some(parent) = self.nodes[at].core.as_ref().and_then(|core| core.parent()) else { return };
            let next = self.number(parent.id);
            let same_life = self.nodes[next].me.incarnation == parent.incarnation;
            // A parent that died or was cut off unnoticed is no parent.
            if !same_life || self.nodes[next].core.is_none() || !self.net.stands(at, next) {
                return;
            }
            at = next;
        }
        panic!("n{start} is in or below a cycle");
    }

    /// Once everything has settled: one tree, whose edges both ends agree on, whose root knows what is
    /// free; no lease that only one end knows. Says what does not hold.
    pub fn check_quiet(&self) -> Result<(), String> {
        let up = self.up();
        let roots: Vec<usize> = up.iter().copied().filter(|n| self.parent(*n).is_none()).collect();
        let [root] = roots[..] else { return Err(format!("there are {} roots: {roots:?}", roots.len())) };
        self.check_edges(&up)?;
        let mut free = 0;
        for &index in &up {
            let core = self.nodes[index].core();
            free += u32::from(core.lending().free - core.kept());
        }
        let summary = self.nodes[root].core().summary();
        if summary.nodes as usize != up.len() {
            return Err(format!("the root counts {} nodes of {}", summary.nodes, up.len()));
        }
        if summary.slots_free != free {
            return Err(format!("the root believes {} slots to be free, but {free} are", summary.slots_free));
        }
        self.check_leases(&up)?;
        self.check_waiting(&up, root)
    }

    /// Who waits is known to the root, and the first of them cannot be served; nothing is kept for others.
    fn check_waiting(&self, up: &BTreeSet<usize>, root: usize) -> Result<(), String> {
        let homes: BTreeSet<RequestId> = up.iter().flat_map(|n| self.nodes[*n].core().waiting()).collect();
        let mut known = BTreeSet::new();
        for &index in up {
            for row in self.nodes[index].core().queue_rows() {
                let Row::Waiting(row) = row else { continue };
                if index != root {
                    return Err(format!("{:?} waits at n{index}, which is not the root", row.request));
                }
                if row.place == 1 && self.room(up, &row) >= row.need {
                    return Err(format!("{:?} waits, but could be served", row.request));
                }
                known.insert(row.request);
            }
        }
        if known != homes {
            return Err(format!("{homes:?} wait, but their arbiter knows {known:?}"));
        }
        let kept = up.iter().find(|n| self.nodes[**n].core().kept() > 0);
        match kept.filter(|_| known.is_empty()) {
            Some(index) => Err(format!("n{index} keeps slots for nobody")),
            None => Ok(()),
        }
    }

    /// How many of what is wanted is free where its asker gets it.
    fn room(&self, up: &BTreeSet<usize>, row: &WaitingRow) -> u32 {
        let (bundle, layout) = (&row.want.bundle, row.want.layout);
        let lends = up
            .iter()
            .map(|n| &self.nodes[*n])
            .filter(|n| n.policy.accept == Accept::All || n.me.name == row.home);
        lends
            .map(|node| {
                let (free, all) = node.core().slots();
                let room = match bundle.exclusive {
                    true => u32::from(free == all && bundle.slots <= all),
                    false => u32::from(free / bundle.slots),
                };
                if layout == Layout::Spread { room.min(1) } else { room }
            })
            .sum()
    }

    fn check_edges(&self, up: &BTreeSet<usize>) -> Result<(), String> {
        let mut below: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
        for &index in up {
            if let Some(parent) = self.parent(index) {
                below.entry(parent).or_default().insert(index);
            }
        }
        for &index in up {
            let listed: BTreeSet<usize> =
                self.nodes[index].core().children().map(|child| self.number(child.id)).collect();
            let real = below.remove(&index).unwrap_or_default();
            if listed != real {
                return Err(format!("n{index} lists the children {listed:?}, but they are {real:?}"));
            }
        }
        Ok(())
    }

    fn check_leases(&self, up: &BTreeSet<usize>) -> Result<(), String> {
        let mut held = BTreeSet::new();
        for &index in up {
            for app in self.nodes[index].apps.values() {
                let known: BTreeSet<_> = self.nodes[index].core().held(app.id).collect();
                let own: BTreeSet<_> = app.leases.keys().copied().collect();
                if known != own {
                    return Err(format!("n{index} and {:?} do not agree: {known:?}, {own:?}", app.id));
                }
                held.extend(own);
            }
        }
        for &index in up {
            let node = &self.nodes[index];
            for record in node.core().granted() {
                let lease = mutirao_wire::LeaseId {
                    lender: node.me.id,
                    incarnation: node.me.incarnation,
                    serial: record.serial,
                };
                if !held.remove(&lease) {
                    return Err(format!("n{index} lends {} to nobody", record.serial));
                }
            }
        }
        match held.first() {
            Some(lease) => Err(format!("{lease:?} is held, but nobody lends it")),
            None => Ok(()),
        }
    }
}
