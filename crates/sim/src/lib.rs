//! Runs the state machines of many nodes on a virtual network.
