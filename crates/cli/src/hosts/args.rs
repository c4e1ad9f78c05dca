//! Options of all that is done on other machines.

use clap::{Args, ValueEnum};
use mutirao_topology::hosts::NameFrom;
use std::path::PathBuf;

/// On which machines.
#[derive(Debug, Args)]
pub struct HostsArgs {
    /// Do it on the machines of this file, over ssh: `user@host` a line, with labels such as slots=4
    #[arg(long, value_name = "FILE")]
    pub hosts: Option<PathBuf>,
    /// How they are reached.
    #[command(flatten)]
    pub ssh: SshArgs,
}

/// How machines are reached.
#[derive(Debug, Args)]
pub struct SshArgs {
    /// The ssh to use, with its options
    #[arg(long, value_name = "COMMAND", default_value = "ssh", env = "MUTIRAO_SSH")]
    pub ssh: String,
    /// Machines to work on at the same time
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub parallel: u16,
    /// Where names of nodes come from that the file does not give
    #[arg(long, value_enum, value_name = "SOURCE", default_value_t = NameSource::Host)]
    pub name_from: NameSource,
}

/// Where names come from that no label gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum NameSource {
    /// The host up to the first dot
    Host,
    /// The whole host
    Full,
    /// n1, n2, ... in the order of the file
    Number,
}

impl From<NameSource> for NameFrom {
    fn from(source: NameSource) -> NameFrom {
        match source {
            NameSource::Host => NameFrom::Host,
            NameSource::Full => NameFrom::Full,
            NameSource::Number => NameFrom::Number,
        }
    }
}
