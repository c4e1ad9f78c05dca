//! Confines a process before foreign code runs in it.
//!
//! A node never runs a plugin in a process of its own. It starts the `mutirao` binary once more, as
//! `mutirao worker`, which reads a [`Plan`] from the node, takes away from itself all that a plugin
//! has no need of, and then executes the plugin: what is taken away stays away across `execve`.
//!
//! ```no_run
//! # use mutirao_confine::{Level, Plan};
//! # use std::{os::{fd::OwnedFd, unix::net::UnixStream}, process::Command};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut plan = Plan::new("/cache/ab/plugin", "/cache/ab", "/run/mutirao/work/1");
//! plan.minimum = Level::Files;
//! let (mut mine, its) = UnixStream::pair()?;
//! let child = Command::new("mutirao").arg("worker").stdin(OwnedFd::from(its)).spawn()?;
//! plan.send(&mut mine)?; // from here on `mine` talks to the plugin's descriptor 3
//! # Ok(()) }
//! ```
//!
//! What holds a plugin, from the outside in:
//!
//! | layer | what it does | needs |
//! | --- | --- | --- |
//! | no new privileges, no capabilities | set-uid programs give nothing, root is root in name only | any Linux |
//! | system-call filter | no tracing, foreign memory, sockets, mounts, namespaces, key rings, `io_uring` | seccomp |
//! | Landlock | only the listed paths exist for opening and changing | Linux 5.13 |
//! | Landlock scopes | signals and abstract sockets end at the worker | Linux 6.12 |
//! | limits | files, processes, file size, memory, no core dumps | any Linux |
//!
//! [`Level`] names how far a machine gets; [`probe`] finds out, and [`apply_and_exec`] refuses to
//! go on below the level that the plan asks for.
//!
//! What is *not* held: the existence, size and times of any file can be asked for (`stat` is not
//! confined by Landlock); below Linux 6.12 other processes of the same user can be signalled, though
//! never the node; the total size of the working directory has no quota.

mod apply;
mod error;
mod filter;
mod landlocked;
mod level;
mod limits;
mod plan;
mod raw;

pub use apply::{apply_and_exec, lock_group, worker_main};
pub use error::Error;
pub use level::{Level, Report, probe};
pub use limits::Limits;
pub use plan::{CHANNEL_FD, PLAN_BYTES_MAX, Plan, default_readable};
