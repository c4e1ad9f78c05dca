//! Where a node is that does not answer where it was known to be: it may have been started anew, at another address.
//! The tree is asked.

use super::Daemon;
use mutirao_tree::Input;
use mutirao_wire::query::{Question, Row, Topic};
use mutirao_wire::{NodeId, Tick};
use std::collections::HashMap;
use std::time::Duration;

/// It is asked for again after so long at first, doubling up to the second: the question goes to all nodes.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// How long the answer may take.
const BUDGET: Duration = Duration::from_secs(2);
/// Nodes that are sought at a time. Others are not asked for until some of these are found.
const SOUGHT_MAX: usize = 1024;

/// The nodes that are sought.
#[derive(Default)]
pub(super) struct Seeking {
    sought: HashMap<NodeId, Sought>,
    /// Questions under way.
    asked: HashMap<u64, NodeId>,
}

struct Sought {
    failures: u32,
    /// When it may be asked for again.
    again: Tick,
}

impl Seeking {
    /// A node does not answer where it was; whether it is to be asked for now.
    fn is_due(&mut self, now: Tick, node: NodeId) -> bool {
        if self.sought.len() >= SOUGHT_MAX {
            self.sought.retain(|_, sought| sought.again > now);
        }
        if self.sought.len() >= SOUGHT_MAX && !self.sought.contains_key(&node) {
            return false;
        }
        let sought = self.sought.entry(node).or_insert(Sought { failures: 0, again: now });
        if sought.again > now {
            return false;
        }
        sought.again = now + AGAIN.0.saturating_mul(1 << sought.failures.min(16)).min(AGAIN.1);
        sought.failures = sought.failures.saturating_add(1);
        true
    }

    /// It was met.
    pub(super) fn found(&mut self, node: NodeId) {
        self.sought.remove(&node);
    }
}

impl Daemon {
    /// A node cannot be reached where it was. If somebody here has something to say to it, it is asked for.
    pub(super) fn seek(&mut self, peer: NodeId) {
        if !(self.members.misses(peer) || self.visits.uses(peer)) {
            return;
        }
        if self.seeking.is_due(self.ctx.now, peer) {
            let number = self.clients.own_question();
            self.seeking.asked.insert(number, peer);
            let to = Some(peer.to_string());
            let question = Question { to, user: String::new(), order: Vec::new(), topic: Topic::Nodes };
            self.tell_core(Input::Ask { number, question, budget: BUDGET });
        }
    }

    /// Takes an answer to the question where a node is; whether it was one. Who answers there proves to be the node,
    /// so what is said of its addresses need not be believed.
    pub(super) fn sought_found(&mut self, number: u64, rows: &[Row], more: bool) -> bool {
        let Some(sought) = self.seeking.asked.get(&number).copied() else { return false };
        if !more {
            self.seeking.asked.remove(&number);
        }
        let node = rows.iter().find_map(|row| match row {
            Row::Node(row) if row.node.id == sought => Some(&row.node),
            _ => None,
        });
        if let (Some(node), Some(links)) = (node, &mut self.links) {
            links.dial(&mut self.ctx, node);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_is_not_found_is_asked_for_more_and_more_rarely() {
        let (mut seeking, node) = (Seeking::default(), NodeId([1; 32]));
        let mut now = Tick(1);
        let mut asked = Vec::new();
        for _ in 0..1000 {
            if seeking.is_due(now, node) {
                asked.push(now);
            }
            now = now + Duration::from_millis(500);
        }
        let pauses: Vec<u64> = asked.windows(2).map(|two| (two[1] - two[0]).as_secs()).collect();
        assert_eq!(pauses[..6], [1, 2, 4, 8, 16, 30]);
        assert!(pauses[6..].iter().all(|pause| *pause == 30) && pauses.len() > 15, "{pauses:?}");
        seeking.found(node);
        assert!(seeking.is_due(now, node));
    }

    #[test]
    fn many_nodes_that_are_not_found_take_no_more_room() {
        let mut seeking = Seeking::default();
        let node = |i: usize| {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&i.to_le_bytes());
            NodeId(id)
        };
        let asked = (0..2 * SOUGHT_MAX).filter(|i| seeking.is_due(Tick(1), node(*i))).count();
        assert_eq!((asked, seeking.sought.len()), (SOUGHT_MAX, SOUGHT_MAX));
        assert!(
            seeking.is_due(Tick(1) + AGAIN.1, node(2 * SOUGHT_MAX)),
            "what was not sought again makes room"
        );
    }
}
