//! What one says when a pool is opened or slots are asked for, and what one hears about leases.

use crate::Error;
use mutirao_wire::node::{Arch, Bundle, Layout, NodeRef, Note, Resource, Want};
use mutirao_wire::plugin::Operation;
use mutirao_wire::wait::{Wait, WaitEnd};
use mutirao_wire::{Handle, LeaseId, NodeId};
use std::path::PathBuf;
use std::time::Duration;

/// How a pool is opened. The default suits most programs.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The application's name, for people; by default that of the program's file.
    pub name: Option<String>,
    /// The program's version, for people; may be empty.
    pub version: String,
    /// The socket of the node to use; by default it is looked for.
    pub socket: Option<PathBuf>,
    /// Which node of this machine to use, if several run; by default what MUTIRAO_NODE says.
    pub node: Option<String>,
    /// When to start a private node.
    pub private: Private,
    /// Offer another program as the plugin, with these operations, instead of this one with its own.
    pub foreign: Option<ForeignProgram>,
    /// Libraries the program loads that other machines may lack: they travel with it.
    pub libraries: Vec<PathBuf>,
    /// Who asks for slots.
    pub slots: Slots,
    /// Slots of a private node, should one be started; by default one a core.
    pub private_slots: Option<u16>,
    /// Let workers on this very machine act as the user who runs this program: they are not confined, and touch
    /// whatever files the user may. The owner of the node can forbid it; workers elsewhere are never so.
    pub as_user: bool,
    /// Results of a worker on this machine may wait for others to come with, at most so long and half of what the worker
    /// still has to do: whoever handles results in bunches is woken less often. Calls wait likewise, until
    /// [`Pool::flush`](crate::raw::Pool::flush). By default neither waits.
    pub gather: Duration,
}

/// When a private node is started, which uses this machine's cores and ends with the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Private {
    /// When no node of this machine runs.
    #[default]
    IfNeeded,
    /// In any case.
    Always,
    /// Not at all: without a node, opening fails.
    Never,
}

/// A program other than this one, to be run as the plugin.
#[derive(Debug, Clone)]
pub struct ForeignProgram {
    /// Its file.
    pub path: PathBuf,
    /// Its operations, in the order of its own table.
    pub operations: Vec<Operation>,
}

/// Who asks the pool for slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slots {
    /// The library, when calls wait; it gives slots back that were idle for a while. Limits in the
    /// environment (`MUTIRAO_SLOTS_MIN`, `MUTIRAO_SLOTS_MAX`, `MUTIRAO_IDLE_MS`) count before these: they are
    /// the user's. The program's first own request switches all this off.
    Auto {
        /// Slots held in any case, where they are to be had.
        min: u32,
        /// Most slots held at once.
        max: u32,
        /// How long a slot may be idle before it is given back.
        idle: Duration,
    },
    /// The program, by [`Pool::allocate`](crate::raw::Pool::allocate), before it calls: while no slots are held
    /// calls end with [`CallErrorKind::NoSlots`](crate::CallErrorKind::NoSlots).
    ByHand,
}

impl Default for Slots {
    fn default() -> Self {
        Slots::Auto { min: 0, max: 1024, idle: Duration::from_secs(3) }
    }
}

impl Slots {
    /// With the limits that the user has set in the environment, which `variable` reads.
    pub(super) fn limited_by(self, variable: impl Fn(&str) -> Option<String>) -> Result<Slots, Error> {
        let Slots::Auto { mut min, mut max, mut idle } = self else { return Ok(self) };
        let number = |name: &'static str| {
            let Some(text) = variable(name).filter(|text| !text.is_empty()) else { return Ok(None) };
            let number = text.parse::<u32>().map(Some);
            number.map_err(|_| Error::Setting { name, value: text, wanted: "a number without sign" })
        };
        let (least, most) = (number("MUTIRAO_SLOTS_MIN")?, number("MUTIRAO_SLOTS_MAX")?);
        if let Some(ms) = number("MUTIRAO_IDLE_MS")? {
            idle = Duration::from_millis(ms.into());
        }
        max = most.unwrap_or(max);
        min = least.unwrap_or(min);
        // What was said last by the user decides where the two cross.
        match least {
            Some(_) if most.is_none() => max = max.max(min),
            _ => min = min.min(max),
        }
        Ok(Slots::Auto { min, max, idle })
    }
}

/// A request for slots.
#[derive(Debug, Clone)]
pub struct Request {
    /// Leases wanted.
    pub count: u32,
    /// Fewer than this many are of no use.
    pub at_least: u32,
    /// What each lease holds.
    pub bundle: Bundle,
    /// How they lie on the nodes.
    pub layout: Layout,
    /// The only architecture that will do, if one.
    pub arch: Option<Arch>,
    /// Labels that every lender must have.
    pub labels: Vec<String>,
    /// Labels that no lender may have.
    pub without: Vec<String>,
    /// Names of nodes: only these will do, if there are any.
    pub among: Vec<String>,
    /// Nodes that will not do.
    pub avoid: Vec<NodeId>,
    /// Name of a node: only it, and the nodes below it in the tree, will do.
    pub below: Option<String>,
    /// How many edges of the tree the search may go from this machine's node.
    pub hops: Option<u8>,
    /// Whether this program's operations are to run on them; otherwise they are slots only.
    pub workers: bool,
    /// How it waits in the pool's queue when it cannot be served at once; `None`: not at all.
    pub wait: Option<Wait>,
}

impl Request {
    /// `count` leases of one slot each, near, fewer if there are no more.
    pub fn slots(count: u32) -> Request {
        Request {
            count,
            at_least: 0,
            bundle: Bundle::default(),
            layout: Layout::Near,
            arch: None,
            labels: Vec::new(),
            without: Vec::new(),
            among: Vec::new(),
            avoid: Vec::new(),
            below: None,
            hops: None,
            workers: true,
            wait: None,
        }
    }

    /// So many slots (cores) in each lease, all on one node.
    pub fn cores(mut self, slots: u16) -> Request {
        self.bundle.slots = slots;
        self
    }

    /// So much memory set aside for each lease, MiB; its worker can fill no more.
    pub fn memory_mib(mut self, mib: u32) -> Request {
        self.bundle.memory_mib = mib;
        self
    }

    /// So many of a resource the owner has named, such as `gpu`, in each lease. The worker finds which ones they
    /// are in its environment: `MUTIRAO_RESOURCE_GPU` is `0,3`.
    pub fn resource(mut self, name: impl Into<String>, amount: u32) -> Request {
        self.bundle.resources.push(Resource { name: name.into(), amount });
        self
    }

    /// Whole nodes, with nobody else on them.
    pub fn exclusive(mut self) -> Request {
        self.bundle.exclusive = true;
        self
    }

    /// Only nodes of this architecture.
    pub fn arch(mut self, arch: Arch) -> Request {
        self.arch = Some(arch);
        self
    }

    /// Only nodes with this label.
    pub fn label(mut self, label: impl Into<String>) -> Request {
        self.labels.push(label.into());
        self
    }

    /// Only nodes without this label.
    pub fn without(mut self, label: impl Into<String>) -> Request {
        self.without.push(label.into());
        self
    }

    /// Only the node of this name and those below it in the tree.
    pub fn below(mut self, node: impl Into<String>) -> Request {
        self.below = Some(node.into());
        self
    }

    /// Only nodes at most so many edges of the tree away from this machine's; 0 is this machine's alone.
    pub fn within_hops(mut self, hops: u8) -> Request {
        self.hops = Some(hops);
        self
    }

    /// At most one lease a node.
    pub fn spread(mut self) -> Request {
        self.layout = Layout::Spread;
        self
    }

    /// All leases, or none.
    pub fn all_or_none(mut self) -> Request {
        self.at_least = self.count;
        self
    }

    pub(crate) fn want(&self) -> Want {
        Want {
            bundle: self.bundle.clone(),
            count: self.count,
            layout: self.layout,
            arch: self.arch,
            labels: self.labels.clone(),
            without: self.without.clone(),
            among: self.among.clone(),
            avoid: self.avoid.clone(),
            below: self.below.clone(),
            hops: self.hops,
        }
    }
}

/// Names a lease of a pool that is open. Never used again for another lease of the same pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseKey(pub u32);

impl LeaseKey {
    pub(crate) fn handle(self) -> Handle {
        Handle(self.0)
    }
}

/// How far a lease is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseState {
    /// Granted; its worker is being started, or none was wanted.
    Granted,
    /// The program is on its way to the lender.
    Fetching,
    /// Its worker takes calls.
    Ready,
    /// The lender is out of reach at the moment.
    Broken,
    /// It takes nothing new, and is given back as soon as nothing runs on it.
    Leaving,
}

/// A lease held.
#[derive(Debug, Clone)]
pub struct Lease {
    /// Names it here.
    pub key: LeaseKey,
    /// Names it in the pool.
    pub id: LeaseId,
    /// The node that lends.
    pub lender: NodeRef,
    /// Slots it holds.
    pub slots: u16,
    /// Whether the lender is this machine's node.
    pub local: bool,
    /// The lender's architecture.
    pub arch: Arch,
    /// How far it is.
    pub state: LeaseState,
    /// Calls its worker has finished.
    pub finished: u64,
}

/// What came of a request.
#[derive(Debug, Clone)]
pub struct Allocation {
    /// The leases granted.
    pub leases: Vec<LeaseKey>,
    /// What stood in the way elsewhere.
    pub notes: Vec<Note>,
    /// Slots free in the pool when the search ended, as far as known.
    pub free_hint: u32,
}

/// Why a request that waited ended without slots, for people.
pub(crate) fn wait_end_text(end: &WaitEnd) -> String {
    match end {
        WaitEnd::Never { needs, has } => format!(
            "the pool as it is can never serve it: it needs {needs} leases at once, and {has} could be had if \
             nothing were lent; ask for fewer, or for less each"
        ),
        WaitEnd::Patience => {
            "not enough came free for as long as it was to wait; `mutirao explain` says of a \
             request that still waits what stands in the way"
                .into()
        }
        WaitEnd::Full(node) => {
            format!("node {node} has as many requests waiting as it remembers; ask again later")
        }
    }
}

/// What a note says, as one line for people.
pub fn note_text(note: &Note) -> String {
    use mutirao_wire::node::Hindrance;
    match &note.hindrance {
        Hindrance::AwaitsApproval => format!(
            "node {} awaits its owner's approval of this program (`mutirao plugin approve` there)",
            note.node
        ),
        Hindrance::Refused(why) => format!("node {} refuses: {why}", note.node),
        Hindrance::Unfit(why) => format!("node {} cannot run this program: {why}", note.node),
        Hindrance::Lacking(why) | Hindrance::Busy(why) => why.clone(),
        Hindrance::ComesBack { after_ms } => {
            format!("node {} is yours and takes slots back within {after_ms} ms; ask again then", note.node)
        }
    }
}
