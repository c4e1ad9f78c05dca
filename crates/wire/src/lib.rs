//! Identities, frames, messages and the link machine: what travels between the parts of a pool.
