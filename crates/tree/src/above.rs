//! Who is above a node, kept small: in a large pool it is most of what a node knows, and seldom looked at.

use mutirao_wire::tree::Lineage;

/// A lineage as it is on the wire, a fifth of its size in memory.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Above {
    levels: u8,
    bytes: Box<[u8]>,
}

impl Above {
    pub(crate) fn of(lineage: &Lineage) -> Above {
        Above { levels: lineage.ancestors.len().min(usize::from(u8::MAX)) as u8, bytes: lineage.to_bytes() }
    }

    /// Ancestors.
    pub(crate) fn levels(&self) -> u32 {
        self.levels.into()
    }

    pub(crate) fn lineage(&self) -> Lineage {
        Lineage::from_bytes(&self.bytes).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mutirao_wire::{Incarnation, NodeId, NodeRef};

    #[test]
    fn a_lineage_is_what_it_was() {
        let node = |n: u8| NodeRef {
            id: NodeId([n; 32]),
            incarnation: Incarnation(u64::from(n) << 50),
            name: format!("n{n}"),
            addresses: vec!["10.0.0.1:7000".parse().unwrap(), "[::1]:7000".parse().unwrap()],
        };
        let lineage = Lineage {
            ancestors: vec![node(1), node(2)],
            successors: vec![node(3)],
            sought: vec![node(4), node(5)],
        };
        let above = Above::of(&lineage);
        assert_eq!((above.lineage(), above.levels()), (lineage, 2));
        assert_eq!(Above::default().lineage(), Lineage::default());
    }
}
