//! Messages between neighbours in the tree, and between a joiner and its candidate parent.

use crate::charter::{CharterDocument, CharterVersion};
use crate::id::{NodeId, RequestId};
use crate::kind::messages;
use crate::node::{Arch, Asker, Grant, NodeRef, Note, Want};
use crate::query::{Question, Row};
use crate::wait::{Gathered, Present, Reserve, Turned, Unreserve, Withdraw};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Joiner to candidate: take me, the root of a tree of `size` nodes, as your child.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attach {
    /// Names this attempt.
    pub nonce: u64,
    /// Nodes in the joiner's tree.
    pub size: u32,
    /// The joiner was told to have exactly this parent: do not pass it down.
    pub here: bool,
}

/// Candidate to joiner: I have enough children; ask one of these.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redirect {
    /// The attempt.
    pub nonce: u64,
    /// Whom to ask, best first.
    pub to: Vec<NodeRef>,
}

/// Why an attach was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Refusal {
    /// The candidate is below the joiner: it would close a cycle.
    Cycle,
    /// The candidate's root is itself joining another tree. Try again.
    Busy,
    /// The candidate cannot have more children.
    Full,
    /// The tree would be deeper than allowed.
    Deep,
}

/// Candidate to joiner: no.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachRefused {
    /// The attempt.
    pub nonce: u64,
    /// Why.
    pub refusal: Refusal,
}

/// Child to parent, up to the root: may `joiner` come under `acceptor`? Only the root answers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Climb {
    /// Who wants to join.
    pub joiner: NodeId,
    /// Its attempt.
    pub nonce: u64,
    /// Nodes in its tree.
    pub size: u32,
    /// Who would be its parent.
    pub acceptor: NodeId,
    /// Edges climbed so far.
    pub height: u8,
}

/// Parent to child, back along the climb: the root's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Who wants to join.
    pub joiner: NodeId,
    /// Its attempt.
    pub nonce: u64,
    /// Who would be its parent.
    pub acceptor: NodeId,
    /// `None`: committed.
    pub refusal: Option<Refusal>,
}

/// New parent to joiner: you are my child.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// The attempt.
    pub nonce: u64,
    /// Where the new child now is.
    pub lineage: Lineage,
}

/// Either neighbour to the other: this edge is no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detach {}

/// Parent to child: the tree would be better balanced if a node of yours went below `to`. May be ignored.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Shift {
    /// The new parent, which may pass it down.
    pub to: NodeRef,
    /// How far below the receiver the node is that is to go; 0: the receiver.
    pub levels: u8,
    /// Which of those, for the attempts before were in vain.
    pub turn: u32,
}

/// Child to parent, and on to the root: a node of yours has gone below another root, which you are to seek, so that two
/// trees become one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Seek {
    /// The other root.
    pub root: NodeRef,
}

/// Parent to child: who is above, and who takes over should the root be lost.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Lineage {
    /// The parent first, the root last.
    pub ancestors: Vec<NodeRef>,
    /// The root's successors, first to take over first.
    pub successors: Vec<NodeRef>,
    /// Nodes the root seeks because it was cut off from them: who takes over seeks them too.
    pub sought: Vec<NodeRef>,
}

impl Lineage {
    /// As it is in a message, to be kept.
    pub fn to_bytes(&self) -> Box<[u8]> {
        let mut bytes = Vec::new();
        crate::kind::append(self, &mut bytes);
        bytes.into()
    }

    /// Reads what [`to_bytes`](Lineage::to_bytes) made.
    pub fn from_bytes(bytes: &[u8]) -> Option<Lineage> {
        postcard::from_bytes(bytes).ok()
    }
}

/// Child to parent: what is in my subtree, myself included. A hint, never a promise.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Summary {
    /// Nodes.
    pub nodes: u32,
    /// Edges from here down to the deepest node.
    pub depth: u8,
    /// Slots in all.
    pub slots_total: u32,
    /// Slots free.
    pub slots_free: u32,
    /// Slots of the node that has most.
    pub largest: u16,
    /// Free slots of the node that has most.
    pub largest_free: u16,
    /// Nodes with nobody on them.
    pub idle_nodes: u32,
    /// Architectures to be found, sorted.
    pub archs: Vec<Arch>,
    /// Memory.
    pub memory: MemorySum,
    /// Named resources to be found, sorted by name; a bounded selection.
    pub resources: Vec<ResourceSum>,
    /// There are resources that are not listed.
    pub other_resources: bool,
    /// Labels to be found, sorted; a bounded selection.
    pub labels: Vec<LabelSum>,
    /// There are labels that are not listed.
    pub other_labels: bool,
    /// [`name_hash`] of the names of nodes, near ones before far ones; a bounded selection.
    pub names: Vec<u32>,
    /// There are nodes whose names are not listed.
    pub other_names: bool,
}

/// The memory in a subtree, MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct MemorySum {
    /// Not set aside for anybody, on all nodes together.
    pub free_mib: u64,
    /// Of the node that has most.
    pub largest_mib: u32,
    /// Not set aside, of the node that has most of it.
    pub largest_free_mib: u32,
}

/// One named resource in a subtree.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct ResourceSum {
    /// Its name.
    pub name: String,
    /// On all nodes together.
    pub total: u32,
    /// Free on all nodes together.
    pub free: u32,
    /// Of the node that has most.
    pub largest: u32,
    /// Free on the node that has most free.
    pub largest_free: u32,
}

/// One label in a subtree.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct LabelSum {
    /// The label.
    pub label: String,
    /// Slots of the nodes that have it.
    pub total: u32,
    /// Those of them that are free.
    pub free: u32,
}

/// What stands for a node's name in a [`Summary`]: equal names have equal ones, and others rarely.
pub fn name_hash(name: &str) -> u32 {
    // FNV-1a.
    name.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// A search for slots, going down to children or up to the parent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Search {
    /// Which request.
    pub request: RequestId,
    /// What is still missing.
    pub want: Want,
    /// Who asks. The same on every edge, so that it is not copied for each.
    pub asker: Arc<Asker>,
    /// How long the asker waits for the reply, milliseconds.
    pub budget_ms: u32,
    /// Which of the asker's rounds this is, from 0. A repeated round gets the same answer.
    pub round: u8,
}

/// What a search found on the other side of an edge, merged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SearchReply {
    /// Which request.
    pub request: RequestId,
    /// Which round of it.
    pub round: u8,
    /// What was granted.
    pub grants: Vec<Grant>,
    /// What stood in the way elsewhere; a bounded selection.
    pub notes: Vec<Note>,
    /// Further replies to this round follow.
    pub more: bool,
}

/// Follows a search: hand back what was granted under it and is not confirmed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SearchCancel {
    /// Which request.
    pub request: RequestId,
}

/// Names one question to the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AskId {
    /// Where it was asked.
    pub origin: NodeId,
    /// The origin's number for it.
    pub number: u64,
}

/// A question to every node on the other side of an edge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ask {
    /// Which question.
    pub id: AskId,
    /// What is asked.
    pub question: Question,
    /// How long the asker waits, milliseconds.
    pub budget_ms: u32,
}

/// Answers from the other side of an edge, in as many messages as they need.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// Which question.
    pub id: AskId,
    /// The answers, one or more a node.
    pub rows: Vec<Row>,
    /// Further answers follow.
    pub more: bool,
    /// Nodes that did not answer in time, so far as is known here.
    pub missing: u32,
}

messages! {
    /// Every message of the tree.
    TreeMessage {
        Attach, Redirect, AttachRefused, Climb, Verdict, Attached, Detach, Shift, Seek, Lineage, Summary,
        Search, SearchReply, SearchCancel, Ask, Answer,
        Present, Turned, Withdraw, Reserve, Unreserve, Gathered,
        CharterVersion, CharterDocument,
    }
}
