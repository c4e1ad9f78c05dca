//! Bags that nodes keep: which nodes, and what the processes that keep one say to each other through them.
//!
//! A bag that was submitted has one member or three: processes, one on each of these nodes, that keep its journal
//! together. A node starts its member, and carries what members say to one another without understanding it.
//!
//! Who is on a node that is no member *visits* one: it starts a process for that ([`Topic::Visit`]), and both nodes
//! carry what the two say.
//!
//! [`Topic::Visit`]: crate::query::Topic::Visit

use crate::id::{BagId, NodeId, VisitId};
use crate::kind::messages;
use crate::node::NodeRef;
use serde::{Deserialize, Serialize};

/// Members of a bag that moves on when its keeper is lost.
pub const MEMBERS: usize = 3;
/// Bags that one node keeps, or is a member of, at a time.
pub const BAGS_A_NODE_MAX: usize = 256;
/// Visits that one node carries at a time, to its bags and to those of others.
pub const VISITS_A_NODE_MAX: usize = 64;
/// Longest message of one member to another, or of a visit, bytes: it fits a frame of a control link.
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
    /// Its name.
    pub name: String,
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

/// Who visits a bag, or the process that is visited, to its node, first of all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VisitHello {
    /// Versions it speaks, oldest and newest.
    pub protocol: (u16, u16),
    /// Which visit.
    pub visit: VisitId,
    /// The node of the other.
    pub with: NodeRef,
}

/// What one says to the other in a visit. Nothing is lost as long as it lasts; who says much waits for the other to
/// take it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VisitBytes {
    /// Which visit.
    pub visit: VisitId,
    /// At most [`MEMBER_BYTES_MAX`]; none: the visit is at its end.
    pub bytes: Vec<u8>,
}

messages! {
    /// Every message of members and visits, to their node and on control connections.
    MemberMessage { MemberHello, MemberBytes, VisitHello, VisitBytes }
}
