//! Bags that nodes keep: which nodes, and what the processes that keep one say to each other through them.
//!
//! A bag that was submitted has one member or three: processes, one on each of these nodes, that keep its journal
//! together. A node starts its member, and carries what members say to one another without understanding it.

use crate::id::{BagId, NodeId};
use crate::kind::messages;
use crate::node::NodeRef;
use serde::{Deserialize, Serialize};

/// Members of a bag that moves on when its keeper is lost.
pub const MEMBERS: usize = 3;
/// Bags that one node keeps, or is a member of, at a time.
pub const BAGS_A_NODE_MAX: usize = 256;
/// Longest message of one member to another, bytes: it fits a frame of a control link.
pub const MEMBER_BYTES_MAX: usize = 15 * 1024;

/// The exit code of a member in whose place another keeps the bag: its node starts it anew at once.
pub const LEADS_NO_MORE: u8 = 4;

/// Who keeps a bag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keep {
    /// Which bag.
    pub bag: BagId,
    /// Its number where it was submitted: on the first of the members.
    pub number: u32,
    /// The nodes: one, or [`MEMBERS`].
    pub members: Vec<NodeRef>,
}

/// A member, to its node, first of all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberHello {
    /// Versions the member speaks, oldest and newest.
    pub protocol: (u16, u16),
    /// Of which bag.
    pub bag: BagId,
}

/// A message of one member to another. It may be lost, never changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberBytes {
    /// Of which bag.
    pub bag: BagId,
    /// The node of the other member: from a member the one meant, to a member the one it comes from; between
    /// nodes the one meant.
    pub member: NodeId,
    /// The message, at most [`MEMBER_BYTES_MAX`] bytes.
    pub bytes: Vec<u8>,
}

messages! {
    /// Every message of members, to their node and on control connections.
    MemberMessage { MemberHello, MemberBytes }
}
