//! What nodes must have, as `alloc` and `nodes` are told, and what they lend, as `up` is told.

use crate::units;
use clap::Args;
use mutirao_wire::node::{Arch, Bundle, Resource, Want};
use serde::{Deserialize, Serialize};

/// What nodes must have.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "What nodes must have")]
pub struct WantArgs {
    /// Cores (slots) of one node
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub cores: Option<u16>,
    /// Memory, such as 4GiB
    #[arg(long, value_name = "SIZE", value_parser = units::memory_mib)]
    pub memory: Option<u32>,
    /// A named resource, such as gpu=1; repeat for more
    #[arg(long, value_name = "NAME=N", value_parser = units::resource)]
    pub resource: Vec<Resource>,
    /// An architecture, such as x86_64
    #[arg(long, value_name = "ARCH", value_parser = units::arch)]
    pub arch: Option<Arch>,
    /// A label its owner gave it; repeat for more
    #[arg(long, value_name = "LABEL", value_parser = units::label)]
    pub label: Vec<String>,
    /// A label it must not have; repeat for more
    #[arg(long, value_name = "LABEL", value_parser = units::label)]
    pub without: Vec<String>,
    /// A place in the tree: this node or below it
    #[arg(long, value_name = "NODE")]
    pub below: Option<String>,
    /// A place near: at most H edges of the tree away
    #[arg(long, value_name = "H")]
    pub hops: Option<u8>,
}

impl WantArgs {
    /// Whether anything is asked for.
    pub fn is_empty(&self) -> bool {
        self.want() == Want::default()
    }

    /// One bundle of it.
    pub fn want(&self) -> Want {
        Want {
            bundle: Bundle {
                slots: self.cores.unwrap_or(1),
                memory_mib: self.memory.unwrap_or(0),
                resources: self.resource.clone(),
                ..Bundle::default()
            },
            arch: self.arch,
            labels: self.label.clone(),
            without: self.without.clone(),
            below: self.below.clone(),
            hops: self.hops,
            ..Want::default()
        }
    }
}

/// What a node lends beside slots.
#[derive(Debug, Clone, Default, Args, Serialize, Deserialize)]
pub struct LendArgs {
    /// Memory to lend, such as 8GiB; three quarters of the machine's unless said
    #[arg(long, value_name = "SIZE", value_parser = units::memory_mib)]
    pub memory: Option<u32>,
    /// A named resource to lend, such as gpu=2; repeat for more
    #[arg(long, value_name = "NAME=N", value_parser = units::resource)]
    pub resource: Vec<Resource>,
    /// A label that requests can ask for, such as ssd or rack=2; repeat for more
    #[arg(long, value_name = "LABEL", value_parser = units::label)]
    pub label: Vec<String>,
}

impl LendArgs {
    /// The same as words of a command line.
    pub fn words(&self) -> Vec<String> {
        let memory = self.memory.map(|mib| format!("--memory={mib}MiB"));
        let resource = |resource: &Resource| format!("--resource={}={}", resource.name, resource.amount);
        let resources = self.resource.iter().map(resource);
        let labels = self.label.iter().map(|label| format!("--label={label}"));
        memory.into_iter().chain(resources).chain(labels).collect()
    }
}
