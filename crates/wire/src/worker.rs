//! Messages between a node and the processes of a plugin.
//!
//! The node starts one confined *template* for each plugin with a stream socket as descriptor
//! [`TEMPLATE_FD`]. The library, entered as the first statement of `main`, sends [`WorkerHello`] and
//! waits for [`Fork`]s; each makes a child that serves one lease through a ring and never returns.

use crate::id::BlobHash;
use crate::kind::messages;
use crate::plugin::Ticket;
use serde::{Deserialize, Serialize};

/// The descriptor on which a template finds its node.
pub const TEMPLATE_FD: i32 = 3;
/// The environment variable that makes a program a template; its value is the descriptor.
pub const WORKER_ENV: &str = "MUTIRAO_WORKER_FD";

/// The environment variable that tells a worker how many threads it may keep busy.
pub const SLOTS_ENV: &str = "MUTIRAO_SLOTS";

/// The environment variable that tells a worker what of its machine's files it may touch: `own`, all that its
/// user may; `shared=`, with directories between colons, what lies below these; `playpen`, its own directory.
pub const PLACE_ENV: &str = "MUTIRAO_PLACE";

/// The value of [`PLACE_ENV`] for a worker that acts as its user.
pub const PLACE_OWN: &str = "own";

/// The environment variable that tells a worker which instances of a named resource are its own:
/// `MUTIRAO_RESOURCE_GPU` for `gpu`. What is no letter or digit becomes `_`.
pub fn resource_variable(resource: &str) -> String {
    let letter = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    format!("MUTIRAO_RESOURCE_{}", resource.chars().map(letter).collect::<String>())
}

/// Template to node: I am up. Not sent in ten seconds: the program does not enter the library first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerHello {
    /// Versions the library speaks, oldest and newest.
    pub protocol: (u16, u16),
    /// Names of its operations, in order; must equal the manifest's.
    pub operations: Vec<String>,
}

/// Node to template: make a worker. Beside it travel, in order: the ring's memory, the call bell,
/// the reply bell, the spin board, the worker's standard error, and the worker's line: a stream socket on
/// which the two speak of pipes, see [`pipe`](crate::pipe), and of what else the worker needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fork {
    /// Names the worker between the two.
    pub worker: u64,
    /// The worker's place on the spin board.
    pub spinner: u32,
    /// Slots of its lease: threads it may keep busy.
    pub slots: u16,
    /// The worker's own empty directory.
    pub directory: String,
    /// Variables added to its environment, which tell what its lease holds: [`SLOTS_ENV`], and for each
    /// named resource that of [`resource_variable`] with the numbers of the instances, such as `0,1`.
    pub environment: Vec<(String, String)>,
}

/// Template to node: it is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forked {
    /// Which worker.
    pub worker: u64,
    /// Its process, or the error number of the fork.
    pub pid: Result<u32, i32>,
}

/// Template to node: it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exited {
    /// Which worker.
    pub worker: u64,
    /// As `waitpid` gives it.
    pub wait_status: i32,
    /// Most memory it held, KiB.
    pub max_resident_kib: u64,
}

/// Worker to node, on its line: make a terminal, which a confined worker cannot. Once in a worker's life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NeedTerminal {}

/// Node to worker: the answer. Beside it travel, where the terminal could be made, the side from which it is driven,
/// and then the side that programs use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalMade {
    /// For people: why there is none; `None`: it is there.
    pub refused: Option<String>,
}

/// Worker to node, on its line: bring a blob that the application offers. At most [`LINE_BLOBS_MAX`] are awaited at a
/// time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NeedBlob {
    /// Its content.
    pub hash: BlobHash,
}

/// Blobs that one worker may await at a time.
pub const LINE_BLOBS_MAX: usize = 64;

/// Node to worker: the answer. Beside it travels the blob, opened for reading, unless it is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobHere {
    /// Which.
    pub hash: BlobHash,
    /// For people: why it is not to be had; `None`: it is here.
    pub refused: Option<String>,
}

/// Worker to node, on its line: keep this file until my program has fetched it. Beside it travels the file, opened for
/// reading.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeepBlob {
    /// Names the file on this line.
    pub number: u32,
}

/// Node to worker: the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobKept {
    /// Which.
    pub number: u32,
    /// Its content, and what its program needs to fetch it; or for people, why it is not kept.
    pub blob: Result<(BlobHash, Ticket), String>,
}

messages! {
    /// Every message on a worker's line that is not about pipes.
    LineMessage { NeedTerminal, TerminalMade, NeedBlob, BlobHere, KeepBlob, BlobKept }
}

messages! {
    /// Every message between a node and a template.
    WorkerMessage { WorkerHello, Fork, Forked, Exited }
}
