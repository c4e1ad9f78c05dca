//! Placement and the call tables at both ends of a lease, as pure state machines.
