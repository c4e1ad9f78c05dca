//! The tree of nodes and the leases of one node, as pure state machines.
