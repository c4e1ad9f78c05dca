//! Questions to a whole pool or to one node by name, and the rows that answer them.

use crate::bag::Keep;
use crate::charter::{CharterChange, CharterRow, CharterVersion};
use crate::id::{AppId, BagId, BlobHash, PluginId, RequestId, VisitId};
use crate::local::Resize;
use crate::node::{Arch, NodeRef, Want};
use serde::{Deserialize, Serialize};

/// What is asked or ordered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// The only node that is meant, by name or by the beginning of its id; `None`: every node.
    pub to: Option<String>,
    /// Who asks, as the node it was asked at knows the user: `name@node`.
    pub user: String,
    /// A signed order (see `mutirao-trust`) where the question needs a role; empty for none.
    pub order: Vec<u8>,
    /// What it is.
    pub topic: Topic,
}

/// What a question is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Topic {
    /// Each node's [`Row::Node`].
    Nodes,
    /// Each application's [`Row::App`], from its home.
    Apps,
    /// Each worker's [`Row::Worker`], from its lender.
    Workers {
        /// Of this application only.
        app: Option<AppId>,
    },
    /// Each plugin kept or waiting for approval, a [`Row::Plugin`] each.
    Plugins,
    /// Approve (or, `false`, deny) the plugins whose id begins like this or that are so named.
    Approve {
        /// Beginning of the id in hexadecimal, or the name.
        plugin: String,
        /// Approve or deny.
        approve: bool,
    },
    /// Forget a plugin that is not in use, and its files.
    RemovePlugin {
        /// Beginning of the id in hexadecimal, or the name.
        plugin: String,
    },
    /// The last lines that a worker has written to its standard error, in a [`Row::Done`].
    Stderr {
        /// `NODE/WORKER`.
        worker: String,
    },
    /// Each waiting request's [`Row::Waiting`], from its arbiter.
    Queue,
    /// About one waiting request: its [`Row::Waiting`], and a [`Row::Stand`] of each node concerned.
    Explain {
        /// The request's name: see [`request_name`].
        request: String,
    },
    /// The [`Row::Node`] of each node that has what is wanted, found without asking where it cannot be.
    Find {
        /// What each is to have; how many leases and how they lie do not matter.
        want: Box<Want>,
        /// Only where one bundle of it is free.
        free: bool,
    },
    /// Come under this parent, with all that is below. An administrator's order, to one node; answered
    /// when it is done or refused. The node stays told so for this life.
    Move {
        /// The parent.
        to: NodeRef,
    },
    /// Ask the node that listens at this place to come under the node that is meant. An administrator's
    /// order, to one node.
    Adopt {
        /// `host:port`.
        place: String,
    },
    /// Leave the pool and end; the children go to the parent. An administrator's order, to one node.
    Remove {
        /// Lend no more and wait until what is lent has come back. Otherwise it ends at once, and its
        /// holders run it elsewhere.
        drain: bool,
    },
    /// Take slots of the node back from those they are lent to; they are not lent to others again.
    Reclaim {
        /// So many of them; `None`: all.
        slots: Option<u16>,
        /// What runs there has so long to finish, milliseconds.
        grace_ms: u32,
        /// They are lent again after so long, seconds; `None`: when [`Topic::Resume`] says so.
        for_s: Option<u32>,
    },
    /// Lend no more. What is lent is asked back, and ends when it is idle.
    Drain {
        /// After so many milliseconds in any case.
        grace_ms: Option<u32>,
    },
    /// Lend again, after [`Topic::Drain`] or [`Topic::Reclaim`].
    Resume,
    /// Tell an application to hold more or fewer slots.
    Resize {
        /// Beginning of its id.
        app: String,
        /// What it is told.
        order: Resize,
    },
    /// End what is named: an application or one worker.
    Kill {
        /// Beginning of the application's id, or `NODE/WORKER`.
        what: String,
    },
    /// Which charter each node has: a [`Row::Charter`] each, without text.
    CharterVersions,
    /// The versions of the charter that this node keeps, newest first, a [`Row::Charter`] each.
    /// Answered by the node that is asked itself, as are the next two.
    CharterHistory,
    /// Make this text the next version of the charter, signed by the administrator who runs the node.
    EditCharter {
        /// The whole text.
        text: String,
        /// The version that was edited. Refused if there is another by now.
        base: CharterVersion,
    },
    /// Make these changes to the charter, all or none, signed in the same way.
    ChangeCharter(Vec<CharterChange>),
    /// Keep a bag, as its only member or as one of several: to one node, which takes it from whoever is as good as
    /// its owner there. It starts the member, and starts it again whenever the node starts.
    Keep {
        /// Which bag, and who else.
        keep: Box<Keep>,
        /// What exactly.
        how: KeepHow,
    },
    /// The [`Row::Bag`] of each bag of whoever asks, from each node that keeps it or helps to.
    Bags,
    /// Start a process that answers for a bag, to one node that keeps it or helps to, by whoever submitted it. What
    /// is asked goes the direct way, as [`VisitBytes`](crate::bag::VisitBytes).
    Visit {
        /// Which bag.
        bag: BagId,
        /// Names the visit; it is made once.
        visit: VisitId,
        /// The node of who visits.
        home: NodeRef,
    },
    /// The [`Row::Group`] of each group of processes, from its home: of those that are over too, as long as it
    /// remembers them.
    Groups,
    /// The [`Row::Process`] of each process of a group, from its home.
    Processes {
        /// Which group.
        group: AppId,
    },
    /// What each process of a group that has ended wrote last: a [`Row::LastLines`] each, from its home.
    LastLines {
        /// Which group.
        group: AppId,
    },
    /// To the home of a group: join a program to its launcher by a pipe. Its user's order, and nobody else's.
    Attach {
        /// Which group.
        group: AppId,
        /// The program: the one that asks.
        guest: AppId,
        /// Its node, where it asks.
        node: NodeRef,
    },
}

impl Topic {
    /// Whether not everybody may ask this: where it comes from another node it has to be a signed order.
    pub fn needs_order(&self) -> bool {
        !matches!(
            self,
            Topic::Nodes
                | Topic::Apps
                | Topic::Workers { .. }
                | Topic::Plugins
                | Topic::Queue
                | Topic::Find { .. }
                | Topic::Explain { .. }
                | Topic::CharterVersions
                | Topic::Groups
                | Topic::Processes { .. }
        ) && !self.is_local()
    }

    /// Whether only the node that a program talks to answers it; it never travels.
    pub fn is_local(&self) -> bool {
        matches!(self, Topic::CharterHistory | Topic::EditCharter { .. } | Topic::ChangeCharter(_))
    }
}

/// What is wanted of a node that is to keep a bag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeepHow {
    /// To say whether it would; nothing is changed.
    Would,
    /// To begin with nothing: the bag is new.
    Begin,
    /// To go on. It must have been a member before: one that forgot what it has agreed to could agree to something
    /// else.
    GoOn,
    /// To forget the bag, which was removed where it was submitted, with all that is kept of it.
    Forget,
}

/// What an administrator signs to give an order. Good for [`ORDER_LIFE_MS`] around its time; every order
/// may be carried out twice without harm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// What is ordered.
    pub topic: Topic,
    /// The only node that is meant; `None`: every node.
    pub to: Option<String>,
    /// When it was signed, milliseconds since 1970.
    pub signed_unix_ms: u64,
}

/// How far the clocks of who signs an order and who carries it out may be apart, milliseconds.
pub const ORDER_LIFE_MS: u64 = 5 * 60 * 1000;

impl Order {
    /// The bytes that are signed.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        crate::kind::append(self, &mut bytes);
        bytes
    }

    /// Whether `body`, whose signature was found in order, is this `question` asked about now.
    pub fn matches(body: &[u8], question: &Question, now_unix_ms: u64) -> bool {
        matches!(postcard::take_from_bytes::<Order>(body), Ok((order, []))
            if order.topic == question.topic
                && order.to == question.to
                && order.signed_unix_ms.abs_diff(now_unix_ms) <= ORDER_LIFE_MS)
    }
}

/// The state a node is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeState {
    /// Lends.
    Up,
    /// Lends no more; some of its leases have not ended.
    Draining,
    /// Lends no more, and nothing is lent.
    Drained,
    /// Goes down.
    Leaving,
}

/// How strongly a node can confine workers, in words a person can read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// One word: `full`, `files`, `basic` or `none`.
    pub level: String,
    /// What is and is not enforced.
    pub detail: String,
}

/// A node, about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRow {
    /// Who and where.
    pub node: NodeRef,
    /// Its parent's name; `None` for a root.
    pub parent: Option<String>,
    /// Slots in all.
    pub slots_total: u16,
    /// Slots free, to be lent to others than its owner.
    pub slots_free: u16,
    /// Slots kept for its owner: taken back by order or by the owner's rules.
    pub slots_reclaimed: u16,
    /// Its state.
    pub state: NodeState,
    /// Load average over one minute, hundredths.
    pub load_centi: u32,
    /// Seconds since it started.
    pub up_s: u64,
    /// Its architecture.
    pub arch: Arch,
    /// Memory it lends, MiB.
    pub memory_mib: u32,
    /// Of that what nobody has set aside, MiB.
    pub memory_free_mib: u32,
    /// Its named resources.
    pub resources: Vec<ResourceRow>,
    /// Its labels.
    pub labels: Vec<String>,
    /// How workers are confined there.
    pub confinement: Confinement,
    /// The version of its binary.
    pub version: String,
    /// Memory it holds resident, KiB.
    pub resident_kib: u64,
}

/// A named resource of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceRow {
    /// Its name.
    pub name: String,
    /// How many there are.
    pub total: u32,
    /// How many nobody holds.
    pub free: u32,
}

/// An application, from its home.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppRow {
    /// Its id.
    pub app: AppId,
    /// Its name.
    pub name: String,
    /// Whose it is.
    pub user: String,
    /// Its home's name.
    pub home: String,
    /// The process, at its home.
    pub pid: u32,
    /// Leases it holds.
    pub leases: u32,
    /// Slots in them.
    pub slots: u32,
    /// Seconds since it came.
    pub up_s: u64,
}

/// A worker, from its lender.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerRow {
    /// The lender's name.
    pub node: String,
    /// The lease's serial there.
    pub serial: u64,
    /// Whose.
    pub app: AppId,
    /// The application's name.
    pub app_name: String,
    /// The user.
    pub user: String,
    /// The process; 0 while none is there.
    pub pid: u32,
    /// Slots of the lease.
    pub slots: u16,
    /// The operation that runs now; `None` when it waits for calls or is not known.
    pub operation: Option<String>,
    /// Milliseconds since the lease was granted.
    pub held_ms: u64,
    /// `waiting for plugin`, `starting`, `idle`, `running`, `slots only`.
    pub state: String,
    /// What it uses, where a process is there and the lender can see it.
    pub used: Option<WorkerUse>,
}

/// What a worker uses, with all it has started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerUse {
    /// Processor time since it began, microseconds.
    pub cpu_us: u64,
    /// Memory held now, KiB; what several processes share counts for each.
    pub resident_kib: u64,
    /// Of the processes it has started and that run: since when the oldest does, their processor time, and the most
    /// memory that one of them has held.
    pub started: Option<ProcessUse>,
}

/// A bag, from a node that keeps it or helps to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BagRow {
    /// Which, and who keeps it.
    pub keep: Keep,
    /// The name of the node whose row this is.
    pub from: String,
    /// Whether it is over, as far as that node knows.
    pub over: bool,
}

/// A group of processes, from its home.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupRow {
    /// The application it is to the pool.
    pub app: AppId,
    /// Its name.
    pub name: String,
    /// Whose it is.
    pub user: String,
    /// Its home's name.
    pub home: String,
    /// Its launcher, a process at its home.
    pub pid: u32,
    /// Processes it has.
    pub processes: u32,
    /// Seconds since it began.
    pub up_s: u64,
    /// Where it is over: since how many seconds, and how it ended, for people.
    pub ended: Option<(u64, String)>,
}

/// A process of a group, as its launcher told its home.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessRow {
    /// Its number in its group.
    pub rank: u32,
    /// Its name: program and instance.
    pub process: String,
    /// The node it runs on, or ran on last.
    pub node: String,
    /// Its worker's serial there.
    pub serial: u64,
    /// How often it was started.
    pub starts: u32,
    /// `starting`, `running`, `ending`, `waiting for a slot`, `ended`.
    pub state: String,
    /// How it ended, if it has.
    pub end: Option<ProcessEnd>,
    /// What it used, where that could be learnt when it ended. What one that runs has used, its lender knows:
    /// [`WorkerUse::started`].
    pub used: Option<ProcessUse>,
}

/// How a process of a group ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessEnd {
    /// `exited`, `killed`, `out of memory`, `ended with its group`, `lost`, `not started`.
    pub how: String,
    /// The exit code, of one that exited.
    pub code: Option<u8>,
    /// The signal, of one that was killed.
    pub signal: Option<u8>,
    /// For people.
    pub text: String,
}

/// What a process used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessUse {
    /// How long it ran, microseconds.
    pub wall_us: u64,
    /// Processor time, microseconds.
    pub cpu_us: u64,
    /// Most memory held at once, KiB.
    pub peak_kib: u64,
}

/// What an owner has decided about a plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Approval {
    /// Nothing: the policy alone decides.
    None,
    /// Asked for, and waiting for the owner.
    Pending,
    /// Approved by hand.
    Approved,
    /// Denied by hand.
    Denied,
}

/// A plugin a node keeps, or was asked to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginRow {
    /// The node's name.
    pub node: String,
    /// Which plugin.
    pub plugin: PluginId,
    /// Its name.
    pub name: String,
    /// Who asked for it last.
    pub user: String,
    /// Bytes of all its files.
    pub bytes: u64,
    /// The program's content, when its files are kept here.
    pub program: Option<BlobHash>,
    /// Operations, when its manifest is kept here.
    pub operations: Vec<String>,
    /// Whether its files are kept here.
    pub kept: bool,
    /// The owner's decision.
    pub approval: Approval,
    /// Leases it serves now.
    pub leases: u32,
}

/// How people call a request: the first digits of its application's id, and its number there.
pub fn request_name(request: RequestId) -> String {
    format!("{}.{}", &request.app.to_string()[..8], request.sequence)
}

/// A request that waits, from its arbiter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingRow {
    /// Its name in the pool.
    pub request: RequestId,
    /// The application's name.
    pub app_name: String,
    /// Whose it is.
    pub user: String,
    /// Its home's name.
    pub home: String,
    /// What it wants.
    pub want: Want,
    /// Leases it needs, all at once.
    pub need: u32,
    /// Its priority.
    pub priority: i8,
    /// What its user was granted lately, on the scale of [`Rank`](crate::wait::Rank).
    pub share: u16,
    /// Milliseconds since it was made.
    pub waited_ms: u64,
    /// Its place in the arbiter's queue, from 1.
    pub place: u32,
    /// Those just before it in that queue, nearest first; at most three.
    pub before: Vec<RequestId>,
    /// The node that decides when it is served.
    pub arbiter: String,
    /// Leases kept for it.
    pub held: u32,
    /// Leases that could be granted to it if nothing were lent, as far as the arbiter knows.
    pub able: u32,
    /// Milliseconds until it is served at the latest, as far as time limits tell.
    pub start_ms: Option<u64>,
}

/// Slots lent, as a waiting request sees them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// To whom.
    pub user: String,
    /// How many.
    pub slots: u32,
    /// Milliseconds until they come back, where a limit says so.
    pub for_ms: Option<u64>,
}

/// One node's word on a waiting request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandRow {
    /// The node's name.
    pub node: String,
    /// Which request.
    pub request: RequestId,
    /// Leases it could have here now.
    pub held: u32,
    /// Leases it could have here if nothing were lent.
    pub able: u32,
    /// Slots that are not lent.
    pub slots_free: u16,
    /// Of these, slots kept for requests before it.
    pub slots_kept: u16,
    /// Why it gets nothing here, ever.
    pub hindrance: Option<String>,
    /// What is lent here; a bounded selection.
    pub taken: Vec<Taken>,
}

/// One answer of one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Row {
    /// To [`Topic::Nodes`].
    Node(NodeRow),
    /// To [`Topic::Apps`].
    App(AppRow),
    /// To [`Topic::Workers`].
    Worker(WorkerRow),
    /// To [`Topic::Plugins`].
    Plugin(PluginRow),
    /// To [`Topic::Queue`] and [`Topic::Explain`].
    Waiting(WaitingRow),
    /// To [`Topic::Explain`].
    Stand(StandRow),
    /// To [`Topic::CharterVersions`] and [`Topic::CharterHistory`].
    Charter(CharterRow),
    /// An order was carried out; the text says what was done.
    Done {
        /// The node's name.
        node: String,
        /// What was done.
        text: String,
    },
    /// An order was refused or failed; the text says why.
    Failed {
        /// The node's name.
        node: String,
        /// Why.
        text: String,
    },
    /// To [`Topic::Groups`].
    Group(GroupRow),
    /// To [`Topic::Processes`].
    Process(ProcessRow),
    /// To [`Topic::Bags`].
    Bag(BagRow),
    /// To [`Topic::LastLines`].
    LastLines {
        /// Which process.
        rank: u32,
        /// The last it wrote to its standard error.
        text: String,
    },
}

/// A node to one that an administrator wants below it: here is the order. Whoever gets it checks the
/// signature, and that the order is to the sender.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summon {
    /// The signed [`Topic::Adopt`].
    pub question: Question,
}

crate::kind::messages! {
    /// Administration between two nodes.
    AdminMessage { Summon }
}
