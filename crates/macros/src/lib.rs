//! The operation attribute of the Rust interface.
