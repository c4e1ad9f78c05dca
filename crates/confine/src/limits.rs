//! Limits that the kernel keeps for one worker and its children.

use crate::error::{Error, at};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};

/// Limits of a worker. Each holds for every process of it alone, not for their sum, except
/// `processes`. `None` leaves what the node itself has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Heap, anonymous mappings and stacks of threads (`RLIMIT_DATA`): what a program fills, rather
    /// than what it reserves. Beyond it an allocation fails.
    pub memory_bytes: Option<u64>,
    /// The whole address space (`RLIMIT_AS`). Stops programs that reserve far more than they use, as
    /// many garbage-collected languages do.
    pub address_space_bytes: Option<u64>,
    /// The largest file it may write (`RLIMIT_FSIZE`); the signal is `SIGXFSZ`.
    pub file_bytes: Option<u64>,
    /// Open descriptors a process.
    pub open_files: Option<u64>,
    /// Processes and threads. Linux counts all those of the *user*, the node's and the owner's too,
    /// and counts none for root, so this only stops a fork bomb.
    pub processes: Option<u64>,
    /// Processor time; the signal is `SIGXCPU`, then `SIGKILL`.
    pub cpu_seconds: Option<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            memory_bytes: None,
            address_space_bytes: None,
            file_bytes: Some(4 << 30),
            open_files: Some(1024),
            processes: Some(4096),
            cpu_seconds: None,
        }
    }
}

impl Limits {
    /// Sets the limits for this process, for good: soft and hard alike, never above what it has.
    pub(crate) fn apply(&self) -> Result<(), Error> {
        let limits = [
            (Resource::Data, self.memory_bytes),
            (Resource::As, self.address_space_bytes),
            (Resource::Fsize, self.file_bytes),
            (Resource::Nofile, self.open_files),
            (Resource::Nproc, self.processes),
            (Resource::Cpu, self.cpu_seconds),
            // A core dump would carry the plugin's memory out of its directory.
            (Resource::Core, Some(0)),
            // Message queues are shared by name between all processes of the user.
            (Resource::Msgqueue, Some(0)),
            // No real-time scheduling and no priority above the node's.
            (Resource::Rtprio, Some(0)),
            (Resource::Nice, Some(0)),
        ];
        for (resource, asked) in limits {
            let Some(asked) = asked else { continue };
            let most = getrlimit(resource).maximum.map_or(asked, |maximum| maximum.min(asked));
            setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })
                .map_err(at("set a limit"))?;
        }
        Ok(())
    }
}
