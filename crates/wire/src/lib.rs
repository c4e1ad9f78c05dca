//! Identities, frames, messages and the link machine: what travels between the parts of a pool.
//!
//! Nothing here does I/O, reads a clock or draws a random number.
#![forbid(unsafe_code)]

pub mod bag;
pub mod charter;
pub mod checkpoint;
pub mod frame;
pub mod id;
pub mod kind;
pub mod lease;
pub mod limits;
pub mod link;
pub mod local;
pub mod node;
pub mod pipe;
pub mod plugin;
pub mod prefixed;
pub mod query;
pub mod session;
pub mod stream;
pub mod tick;
pub mod tree;
pub mod wait;
pub mod worker;

pub use id::{
    AppId, BagId, BlobHash, CallId, Epoch, Handle, Incarnation, LeaseId, NodeId, PluginId, PoolId, RequestId,
    VisitId,
};
pub use node::NodeRef;
pub use tick::Tick;
