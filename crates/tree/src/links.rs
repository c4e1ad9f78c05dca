//! The nodes that a node has a link to.

use mutirao_wire::{NodeId, NodeRef};
use std::sync::Arc;

/// By id. Most nodes of a large pool have one link or few, so they lie in a row.
#[derive(Clone, Hash, Default)]
pub(crate) struct Links(Vec<Arc<NodeRef>>);

impl Links {
    fn place(&self, id: NodeId) -> Result<usize, usize> {
        self.0.binary_search_by_key(&id, |node| node.id)
    }

    pub(crate) fn contains(&self, id: NodeId) -> bool {
        self.place(id).is_ok()
    }

    pub(crate) fn get(&self, id: NodeId) -> Option<&Arc<NodeRef>> {
        self.place(id).ok().map(|at| &self.0[at])
    }

    /// In place of an earlier life of the node, if there was a link to that.
    pub(crate) fn insert(&mut self, node: Arc<NodeRef>) {
        match self.place(node.id) {
            Ok(at) => self.0[at] = node,
            Err(at) => {
                if self.0.is_empty() {
                    self.0.reserve_exact(1);
                }
                self.0.insert(at, node);
            }
        }
    }

    /// The node, as it is known here if this very life of it is linked.
    pub(crate) fn shared(&self, node: NodeRef) -> Arc<NodeRef> {
        self.get(node.id).filter(|known| ***known == node).cloned().unwrap_or_else(|| Arc::new(node))
    }

    /// Whether there was one.
    pub(crate) fn remove(&mut self, id: NodeId) -> bool {
        let at = self.place(id);
        at.is_ok_and(|at| {
            self.0.remove(at);
            true
        })
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = NodeId> {
        self.0.iter().map(|node| node.id)
    }
}
