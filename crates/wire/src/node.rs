//! What is said about nodes, resources and requests, in more than one family of messages.

use crate::id::{AppId, Incarnation, LeaseId, NodeId, PluginId};
use crate::limits::{CONSTRAINTS_MAX, NAME_BYTES_MAX, NODES_NAMED_MAX};
use core::fmt;
use core::net::SocketAddr;
use serde::{Deserialize, Serialize};

/// A node one may dial: who it is, in which life, called what, listening where.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NodeRef {
    /// Its identity.
    pub id: NodeId,
    /// Its life.
    pub incarnation: Incarnation,
    /// Its name, for people.
    pub name: String,
    /// Where it listens, most likely first.
    pub addresses: Vec<SocketAddr>,
}

/// A processor architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Arch {
    /// x86, 64 bits.
    X86_64,
    /// ARM, 64 bits.
    Aarch64,
    /// RISC-V, 64 bits.
    Riscv64,
    /// POWER, 64 bits, little endian.
    Powerpc64le,
    /// Something else.
    Other,
}

impl Arch {
    /// The architecture of this build.
    pub const HERE: Arch = if cfg!(target_arch = "x86_64") {
        Arch::X86_64
    } else if cfg!(target_arch = "aarch64") {
        Arch::Aarch64
    } else if cfg!(target_arch = "riscv64") {
        Arch::Riscv64
    } else if cfg!(all(target_arch = "powerpc64", target_endian = "little")) {
        Arch::Powerpc64le
    } else {
        Arch::Other
    };
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Arch::X86_64 => "x86_64",
            Arch::Aarch64 => "aarch64",
            Arch::Riscv64 => "riscv64",
            Arch::Powerpc64le => "powerpc64le",
            Arch::Other => "other",
        })
    }
}

/// So much of a resource the owner has named, such as `gpu`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Resource {
    /// The owner's name for it.
    pub name: String,
    /// How many.
    pub amount: u32,
}

/// What one lease holds, all of it on one node.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Bundle {
    /// Slots; at least one.
    pub slots: u16,
    /// Memory set aside, MiB; 0 asks for none in particular.
    pub memory_mib: u32,
    /// Named resources.
    pub resources: Vec<Resource>,
    /// The whole node, with nobody else on it.
    pub exclusive: bool,
    /// Whether the owner may take it back early.
    pub reclaimable: bool,
    /// Longest life of the lease, seconds.
    pub limit_s: Option<u32>,
}

impl Default for Bundle {
    fn default() -> Self {
        Bundle {
            slots: 1,
            memory_mib: 0,
            resources: Vec::new(),
            exclusive: false,
            reclaimable: true,
            limit_s: None,
        }
    }
}

/// How bundles lie on the nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Layout {
    /// As near to the asker as they are found, many on one node.
    #[default]
    Near,
    /// At most one bundle a node.
    Spread,
}

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Want {
    /// What each lease is to hold.
    pub bundle: Bundle,
    /// Leases wanted.
    pub count: u32,
    /// How they lie.
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
    /// How many edges of the tree the search may go from where it starts; `None`: as far as need be.
    pub hops: Option<u8>,
}

impl Default for Want {
    /// One bundle of one slot, as near as there is one.
    fn default() -> Self {
        Want {
            bundle: Bundle::default(),
            count: 1,
            layout: Layout::Near,
            arch: None,
            labels: Vec::new(),
            without: Vec::new(),
            among: Vec::new(),
            avoid: Vec::new(),
            below: None,
            hops: None,
        }
    }
}

impl Want {
    /// Whether it keeps to the limits of a request; if not, what is wrong, in words.
    pub fn check(&self) -> Result<(), String> {
        let lists = [
            ("labels", self.labels.len(), CONSTRAINTS_MAX),
            ("excluded labels", self.without.len(), CONSTRAINTS_MAX),
            ("resources", self.bundle.resources.len(), CONSTRAINTS_MAX),
            ("nodes", self.among.len(), NODES_NAMED_MAX),
            ("excluded nodes", self.avoid.len(), NODES_NAMED_MAX),
        ];
        if let Some((what, _, most)) = lists.iter().find(|(_, count, most)| count > most) {
            return Err(format!("a request may name {most} {what} at most"));
        }
        let resources = self.bundle.resources.iter().map(|resource| &resource.name);
        let mut names =
            self.labels.iter().chain(&self.without).chain(&self.among).chain(&self.below).chain(resources);
        match names.find(|name| name.is_empty() || name.len() > NAME_BYTES_MAX) {
            Some(name) => Err(format!("`{name}` is no name: a name has 1 to {NAME_BYTES_MAX} bytes")),
            None => Ok(()),
        }
    }
}

/// Which instances of a named resource a lease holds, such as graphics cards 0 and 3.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Instances {
    /// The owner's name for the resource.
    pub name: String,
    /// The instances, counted from 0, in order.
    pub numbers: Vec<u32>,
}

/// The plugin a request is for, as far as a lender needs it to judge.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PluginRef {
    /// Which one.
    pub id: PluginId,
    /// Its name, for people.
    pub name: String,
    /// Bytes of all its files.
    pub bytes: u64,
    /// What it is built for.
    pub arch: Arch,
    /// The newest libc symbol version it needs, such as (2, 34); `None` if it needs none.
    pub libc: Option<(u16, u16)>,
}

/// Who asks for something. Judged by the node that is to give it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Asker {
    /// The application.
    pub app: AppId,
    /// Its name, for people.
    pub app_name: String,
    /// The user as the home knows it: `name@node`.
    pub local_user: String,
    /// A signed token (see `mutirao-trust`) of a user the whole pool knows; empty for none.
    pub token: Vec<u8>,
    /// The home of the leases granted.
    pub home: NodeRef,
    /// The plugin that is to run; `None` when only the slots are wanted.
    pub plugin: Option<PluginRef>,
}

/// A lease granted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The lender's serial of it. With the lender's reference, its name.
    pub serial: u64,
    /// Who lends.
    pub lender: NodeRef,
    /// Slots it holds. For an exclusive bundle, those of the whole node.
    pub slots: u16,
}

impl Grant {
    /// The lease's name.
    pub fn lease(&self) -> LeaseId {
        LeaseId { lender: self.lender.id, incarnation: self.lender.incarnation, serial: self.serial }
    }
}

/// Why a node that might have granted did not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Hindrance {
    /// The owner has not yet approved the plugin.
    AwaitsApproval,
    /// The owner's policy refuses; the text says why.
    Refused(String),
    /// The plugin cannot run there; the text says why.
    Unfit(String),
    /// Said by the node where a search went no further, for all that it knows of: no node there has what
    /// is wanted, lent or not. The text says what there is at best.
    Lacking(String),
    /// Said likewise: nodes there have what is wanted, but not free. The text says what is free at best.
    Busy(String),
    /// The asker owns the node, which takes slots back for it: asked again after so long, it has them.
    ComesBack {
        /// Milliseconds.
        after_ms: u32,
    },
}

/// What one node has to say about a request it did not serve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// The node's name.
    pub node: String,
    /// What stood in the way.
    pub hindrance: Hindrance,
}
