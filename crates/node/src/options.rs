//! What a daemon is told when it starts.

use std::path::PathBuf;

/// Where the files of a node lie.
#[derive(Debug, Clone)]
pub struct Paths {
    /// Its state directory: identity, configuration, incarnation, approvals.
    pub state: PathBuf,
    /// Its cache: blobs of plugins. Below the state directory unless configured otherwise.
    pub cache: PathBuf,
    /// Its spool: large results and working directories of workers. Emptied at each start.
    pub spool: PathBuf,
    /// The runtime directory of this pool: sockets and descriptions of the nodes of this user.
    pub runtime: PathBuf,
}
