//! What a [`Core`](crate::Core) is told and what it says.

use crate::policy::Policy;
use crate::reclaim::Reclaim;
use crate::settings::Settings;
use core::time::Duration;
use mutirao_wire::charter::CharterDocument;
use mutirao_wire::lease::{LeaseEnd, LeaseMessage, WorkerState};
use mutirao_wire::local::LeaseChange;
use mutirao_wire::node::{Arch, Asker, Bundle, Grant, Instances, Note, Resource, Want};
use mutirao_wire::query::{Question, Row};
use mutirao_wire::tree::{AskId, TreeMessage};
use mutirao_wire::wait::{Wait, WaitEnd};
use mutirao_wire::{AppId, Epoch, LeaseId, NodeId, NodeRef, PluginId, RequestId};
use std::sync::Arc;

/// What happens to a node, one thing at a time.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// A control link stands. At most one a node: a second one, or one to a later life of that
    /// node, counts as the loss of the first.
    LinkUp(NodeRef),
    /// The control link to that node is lost.
    LinkDown(NodeId),
    /// A link asked for by [`Output::Dial`] could not be had. The daemon does not try again by itself.
    DialFailed(NodeId),
    /// A message of the tree arrived.
    Tree {
        /// From whom, as its certificate says.
        from: NodeId,
        /// What.
        message: TreeMessage,
    },
    /// A message about leases arrived.
    Lease {
        /// From whom, as its certificate says.
        from: NodeId,
        /// What.
        message: LeaseMessage,
    },
    /// These may be the parent, best first; replaces what was said before. A node that has a parent
    /// leaves it if `here` is set and that parent is not among them. Addresses without a known id
    /// are dialled by the daemon, which then joins with what the handshake told.
    Join {
        /// The candidates.
        to: Vec<NodeRef>,
        /// Exactly one of these, never one of their children instead.
        here: bool,
    },
    /// A local application wants slots. Answered by one [`Output::Found`], at once or, if it may wait,
    /// when it was served or its wait is over; the same request again by the same answer.
    Request {
        /// Names the request; its application need not be known before.
        request: RequestId,
        /// What is wanted.
        want: Want,
        /// Fewer than this many leases are of no use: then none is kept.
        at_least: u32,
        /// Who asks. Its home must be this node.
        asker: Asker,
        /// How long one search may take.
        budget: Duration,
        /// How it waits when it is not served at once, and when it was made, milliseconds since 1970.
        wait: Option<(Wait, u64)>,
    },
    /// The local application no longer waits for the answer: whatever was found is handed back.
    CancelRequest(RequestId),
    /// A local application came back, or came here from another of its homes, and says it holds these leases.
    /// Each is answered by `Restored` or `Ended` news; others that it held here are released.
    Held {
        /// The application.
        app: AppId,
        /// Higher than before its return.
        epoch: Epoch,
        /// Nodes at which it may go on, this one among them; none if that is this one only.
        homes: Vec<NodeId>,
        /// It shares memory with its workers on this node, which end with it wherever it may go on.
        rings: bool,
        /// The plugin its workers serve, if any.
        plugin: Option<PluginId>,
        /// The leases: serial and lender.
        leases: Vec<(u64, NodeRef)>,
    },
    /// A local application no longer needs these leases.
    GiveBack {
        /// The application.
        app: AppId,
        /// Those it does not hold are skipped.
        leases: Vec<LeaseId>,
    },
    /// A local application is gone: its requests are cancelled, its leases released. Those that another of its homes
    /// may take over are kept as long as if this node were out of reach.
    AppGone(AppId),
    /// The worker of an ending lease is no more (or there never was one): its slots are free.
    Gone {
        /// The lease.
        serial: u64,
    },
    /// How the worker of a lease granted here is doing.
    WorkerNews {
        /// The lease.
        serial: u64,
        /// How.
        state: WorkerState,
    },
    /// End a lease granted here, for [`LeaseEnd::Reclaimed`], [`LeaseEnd::Killed`] or
    /// [`LeaseEnd::CannotRun`]. A lease that is not reclaimable is not reclaimed.
    End {
        /// The lease.
        serial: u64,
        /// Why.
        end: LeaseEnd,
    },
    /// A local user asks the pool. Answered by [`Output::Rows`], the last with `more` unset.
    Ask {
        /// Names the question; never used again by this life of the node.
        number: u64,
        /// What.
        question: Question,
        /// How long the answers may take.
        budget: Duration,
    },
    /// This node's own rows for an [`Output::Answer`]; none if the question was not for it.
    Answered {
        /// The question.
        id: AskId,
        /// The rows, each below 12 KiB when encoded.
        rows: Vec<Row>,
    },
    /// Whom to lend to, from now on. Leases already granted stay, but for those of whom the new
    /// policy denies, and of whom the last one admitted and this one does not.
    Policy(Policy),
    /// Timings and limits, from now on. What is under way ends by those it began with.
    Settings(Arc<Settings>),
    /// A version of the charter whose signature was found in order is in force here. Ignored unless it
    /// is newer than the one before.
    Charter(CharterDocument),
    /// What this node has, from now on. Leases already granted stay.
    Capacity(Capacity),
    /// Lend no more. Grants nobody has confirmed are taken back; the homes of all other leases are asked to
    /// give them back when they are idle.
    Drain {
        /// Those that may be taken back end after so long in any case.
        grace: Option<Duration>,
    },
    /// Take slots back from those they are lent to, the owner's own leases excepted, and keep them for the
    /// owner.
    Reclaim(Reclaim),
    /// Lend again, after `Drain` or `Reclaim`. What is on its way back comes back, but is not forced to.
    Resume,
    /// Whether the owner's rules let the node lend now. As long as not, all slots are kept for the owner.
    MayLend {
        /// Whether they do.
        may: bool,
        /// How long what runs there may go on if not.
        grace: Duration,
    },
    /// Go down: end all leases, leave the tree. [`Output::Left`] follows when all workers are gone.
    Leave,
    /// Nothing but time has passed; due at [`Core::deadline`](crate::Core::deadline).
    Time,
}

/// What is to be done, in this order.
#[allow(clippy::large_enum_variant)] // The largest, a message, is also the most frequent.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Send over the control link, which stands.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        message: NodeMessage,
    },
    /// A control link to this node is needed. Said again while it is; dialling already is enough.
    Dial(NodeRef),
    /// The link is no longer needed here. The daemon closes it after a while if
    /// [`Core::needs`](crate::Core::needs) still denies it and nothing else uses it.
    Idle(NodeId),
    /// To a local application: what came of its request.
    Found {
        /// The request.
        request: RequestId,
        /// The leases it now holds.
        grants: Vec<Grant>,
        /// What stood in the way elsewhere.
        notes: Vec<Note>,
        /// Leases that were found; if that was fewer than enough, none of them is held.
        found: u32,
        /// Slots free in the pool, as far as known here.
        free_hint: u32,
        /// Of a request that may wait: why it ended without slots.
        waited: Option<WaitEnd>,
    },
    /// To a local application: what happened to one of its leases.
    News {
        /// The application.
        app: AppId,
        /// The lease.
        lease: LeaseId,
        /// What happened. Never `WorkerEnded` or `Approved`.
        change: LeaseChange,
    },
    /// To a local application: a node that had to be asked approved its plugin.
    Approved {
        /// The application.
        app: AppId,
        /// The plugin.
        plugin: PluginId,
    },
    /// A lease granted here is confirmed: make it a worker.
    Begin(LeaseRecord),
    /// A lease granted here ended: kill its worker, then say [`Input::Gone`]. Follows `Begin` once.
    Finish {
        /// The lease.
        serial: u64,
        /// Why.
        end: LeaseEnd,
    },
    /// A question arrived: give this node's own rows by [`Input::Answered`], also if there are none.
    Answer {
        /// The question.
        id: AskId,
        /// What is asked.
        question: Question,
    },
    /// To a local user: answers to a question.
    Rows {
        /// The question.
        number: u64,
        /// Answers.
        rows: Vec<Row>,
        /// Further answers follow.
        more: bool,
        /// Nodes that did not answer in time, so far as is known here; 0 while `more` is set.
        missing: u32,
    },
    /// A request waits for the owner's approval of its plugin.
    Awaits {
        /// Who asks, for which plugin.
        asker: Asker,
        /// The user, as the policy knows it.
        user: String,
    },
    /// This node has this parent now.
    Joined(NodeRef),
    /// This node has no parent (any more).
    Root,
    /// A candidate refused for good (a cycle, or no room): tell the owner.
    JoinRefused {
        /// Who refused.
        by: NodeRef,
        /// Why.
        refusal: mutirao_wire::tree::Refusal,
    },
    /// A newer charter came. If its signature is in order, answer with [`Input::Charter`].
    Charter {
        /// From whom.
        from: NodeId,
        /// What.
        charter: CharterDocument,
    },
    /// All leases ended and the tree is left: the node may stop.
    Left,
    /// A table is full; what did not fit was refused.
    Full(Table),
}

/// Tables with a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// Children of this node.
    Children,
    /// Joins that pass through this node.
    Joins,
    /// Searches remembered.
    Searches,
    /// Questions under way.
    Questions,
    /// Applications at home here.
    Apps,
    /// Leases held through this node.
    Held,
    /// Requests that wait, here or decided about here.
    Queue,
    /// Reservations for requests that wait.
    Keeps,
}

/// A message to another node.
#[derive(Debug, Clone, PartialEq)]
#[allow(clippy::large_enum_variant)] // It is sent, not kept.
pub enum NodeMessage {
    /// Of the tree.
    Tree(TreeMessage),
    /// About leases.
    Lease(LeaseMessage),
}

impl NodeMessage {
    /// Appends the message as a whole frame.
    pub fn put(&self, out: &mut Vec<u8>) {
        match self {
            NodeMessage::Tree(message) => message.put(out),
            NodeMessage::Lease(message) => message.put(out),
        }
    }
}

/// What a node has to lend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capacity {
    /// Slots.
    pub slots: u16,
    /// Memory, MiB.
    pub memory_mib: u32,
    /// Named resources.
    pub resources: Vec<Resource>,
    /// Its architecture.
    pub arch: Arch,
    /// The version of its libc; `None` when it has none that programs could share.
    pub libc: Option<(u16, u16)>,
    /// Labels the owner gave it.
    pub labels: Vec<String>,
}

/// A lease granted by this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseRecord {
    /// Its serial, never used again in this life of the node.
    pub serial: u64,
    /// The request it was granted for.
    pub request: RequestId,
    /// Whose it is.
    pub asker: Arc<Asker>,
    /// The user, as the policy knows it.
    pub user: String,
    /// What it holds; for an exclusive bundle, `slots` are those of the whole node.
    pub bundle: Bundle,
    /// Which instances of the named resources it holds.
    pub instances: Vec<Instances>,
    /// In which order of homes.
    pub epoch: Epoch,
    /// Nodes that may take it over, with a higher epoch.
    pub homes: Vec<NodeId>,
    /// The home that has, if one has.
    pub taken_by: Option<NodeRef>,
    /// When it was granted.
    pub granted: mutirao_wire::Tick,
}

impl LeaseRecord {
    /// The home it is held through.
    pub fn home(&self) -> &NodeRef {
        self.taken_by.as_ref().unwrap_or(&self.asker.home)
    }
}
