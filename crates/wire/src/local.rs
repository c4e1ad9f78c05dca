//! Messages between a program and the node of its machine, on the local socket. Descriptors travel
//! beside the frame that speaks of them.

use crate::id::{AppId, BlobHash, CallId, Epoch, Handle, LeaseId, NodeId, PluginId, PoolId};
use crate::kind::messages;
use crate::lease::LeaseEnd;
use crate::node::{Arch, NodeRef, Note, Want};
use crate::plugin::{Operation, Ticket};
use crate::query::{ProcessRow, Question, Row};
use crate::wait::{Wait, WaitEnd};
use serde::{Deserialize, Serialize};

/// Program to node, first of all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientHello {
    /// Versions the library speaks, oldest and newest.
    pub protocol: (u16, u16),
    /// The application; the same again when the program comes back after the node restarted.
    pub app: AppId,
    /// Its name, for people.
    pub name: String,
    /// Grows each time the program comes back, here or at another of its homes.
    pub epoch: Epoch,
    /// Nodes at which the application may go on, this one among them: its leases elsewhere outlive the program by a
    /// lapse. None for a program that is at home here only.
    pub homes: Vec<NodeId>,
    /// Leases it held before; the node confirms them anew with their lenders.
    pub leases: Vec<HeldLease>,
    /// Whether the program will run operations: it then offers its plugin next.
    pub plugin: Option<PluginId>,
    /// Whether its workers on this very machine are to act as its user, with nothing kept from them. Only the
    /// node's own user gets that, and only where the owner's configuration lets it.
    pub as_user: bool,
}

/// A lease a returning program says it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldLease {
    /// Its handle on this connection; the program chooses it again.
    pub handle: Handle,
    /// Its serial at the lender.
    pub serial: u64,
    /// The lender.
    pub lender: NodeRef,
    /// Slots it holds.
    pub slots: u16,
    /// Whether a worker serves calls on it.
    pub works: bool,
}

/// Node to program: welcome. Beside it travels the spin board's descriptor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientWelcome {
    /// The version both speak.
    pub protocol: u16,
    /// The node.
    pub node: NodeRef,
    /// Its pool; `None` for a private node.
    pub pool: Option<PoolId>,
    /// The user, as the pool knows it.
    pub user: String,
    /// The program's place on the spin board.
    pub spinner: u32,
}

/// Node to program, instead: why not. The node closes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientRefused {
    /// For people: what is wrong and what to do.
    pub text: String,
}

/// Program to node: here is my plugin. Beside it travel its files, opened for reading, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfferPlugin {
    /// The program's name.
    pub name: String,
    /// The program's version; may be empty.
    pub version: String,
    /// Its operations.
    pub operations: Vec<Operation>,
    /// Names of the files, the program first.
    pub files: Vec<String>,
}

/// Node to program: the plugin's identity, or why it is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginOffered {
    /// The identity, or for people what is wrong.
    pub plugin: Result<PluginId, String>,
}

/// Program to node: I want slots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allocate {
    /// Names the request; `RequestId` with the application.
    pub sequence: u32,
    /// What.
    pub want: Want,
    /// Fewer than this many leases are of no use: then none is kept.
    pub at_least: u32,
    /// Whether workers are to serve the plugin on them; otherwise they are slots only.
    pub workers: bool,
    /// How it waits when it cannot be served at once; `None`: not at all.
    pub wait: Option<Wait>,
}

/// A lease as the program knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseInfo {
    /// Its handle on this connection, chosen by the node.
    pub handle: Handle,
    /// Its name in the pool.
    pub lease: LeaseId,
    /// The lender.
    pub lender: NodeRef,
    /// Slots it holds.
    pub slots: u16,
    /// Whether the lender is this node: its worker is reached through a ring.
    pub local: bool,
    /// The lender's architecture, where known.
    pub arch: Arch,
}

/// Node to program: what came of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allocated {
    /// The request.
    pub sequence: u32,
    /// What was granted.
    pub leases: Vec<LeaseInfo>,
    /// What stood in the way elsewhere.
    pub notes: Vec<Note>,
    /// Further messages about this request follow.
    pub more: bool,
    /// Leases that were found in all; if that was fewer than needed at least, none of them is granted.
    pub found: u32,
    /// Slots free in the pool when the search ended, as far as known here.
    pub free_hint: u32,
    /// Of a request that may wait: why it ended without slots.
    pub waited: Option<WaitEnd>,
}

/// Program to node: these leases are no longer needed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GiveBack {
    /// Their handles.
    pub handles: Vec<Handle>,
}

/// What happened to a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LeaseChange {
    /// The plugin is on its way to the lender.
    Fetching,
    /// Its worker serves calls: send. For a local lease the ring's memory, its call bell and its
    /// reply bell travel beside the message. Also sent after a worker was replaced.
    Ready,
    /// The way to the lender is broken; send nothing until `Restored` or `Ended`.
    Broken,
    /// The way is open again: send `Resume`.
    Restored,
    /// For a local lease: the worker is gone and will be replaced; the text says what happened.
    WorkerEnded {
        /// The failure code; see [`failure`](crate::stream::failure).
        code: u32,
        /// For people.
        cause: String,
    },
    /// It is no more.
    Ended(LeaseEnd),
    /// Its lender wants it back: send nothing new, and give it back as soon as nothing runs on it.
    Reclaiming {
        /// It ends after so many milliseconds in any case; `None`: not before it is given back.
        grace_ms: Option<u32>,
    },
    /// A node that had to be asked approved the plugin: another request may get more. The handle is 0.
    Approved,
}

/// Node to program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseNews {
    /// Which lease.
    pub handle: Handle,
    /// What happened.
    pub change: LeaseChange,
}

/// Program to node: end the worker of a local lease, because a call on it was cancelled or ran too
/// long. The node answers with `WorkerEnded`, or not at all when another call runs by then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KillWorker {
    /// Which lease.
    pub handle: Handle,
    /// Only while this call runs; `None`: whatever runs.
    pub call: Option<CallId>,
    /// Why; see [`failure`](crate::stream::failure).
    pub code: u32,
}

/// Program to node: ask the pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Query {
    /// Names the question on this connection.
    pub number: u32,
    /// What; the node fills in the user.
    pub question: Question,
}

/// Node to program: answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rows {
    /// Which question.
    pub number: u32,
    /// Answers.
    pub rows: Vec<Row>,
    /// Further answers follow.
    pub more: bool,
    /// Nodes that did not answer in time.
    pub missing: u32,
}

/// How many slots an application is to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Size {
    /// So many more than it holds.
    More(u32),
    /// So many fewer.
    Fewer(u32),
    /// So many.
    Exactly(u32),
    /// As many as it wants: earlier orders count no more.
    Own,
}

/// What becomes of the calls that run on leases which are given back. Those that have not begun go elsewhere
/// in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub enum Leave {
    /// They finish first.
    #[default]
    Finish,
    /// Repeatable ones run again elsewhere; the others finish first.
    Rerun,
    /// Repeatable ones run again elsewhere; what became of the others is not known.
    Abandon,
}

/// Node to program: somebody who may order it wants the application to grow or to shrink.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resize {
    /// To how many slots.
    pub size: Size,
    /// For those that are given back.
    pub leave: Leave,
}

/// Program to node: give me a lane, memory that both of us map, for the bytes of large arguments. May be ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenLane {}

/// Node to program: here it is. Beside it travel its memory and the bell that rings when it has room again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneOpened {}

/// Program to node: this application is a group of processes, which its home is to show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupNews {
    /// Its name, for people.
    pub name: String,
    /// How it ended, for people, if it has.
    pub outcome: Option<String>,
}

/// Program to node: how one of the group's processes stands. The last word on each counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessNews {
    /// The process.
    pub row: ProcessRow,
    /// The last it wrote to its standard error, if it has ended.
    pub last_lines: String,
}

/// Node to program: somebody who may order it wants the group to end. One that does not end soon is ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndGroup {
    /// Who.
    pub by: String,
}

/// Program to node: the workers of my leases may ask for this file by its content. Beside it travels the file, opened
/// for reading. The node keeps a copy until the program withdraws it or is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfferBlob {
    /// Names the offer on this connection.
    pub number: u32,
}

/// Node to program: the blob, or why it is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobOffered {
    /// Which offer.
    pub number: u32,
    /// Its content and its length, or for people what is wrong.
    pub blob: Result<(BlobHash, u64), String>,
}

/// Program to node: a blob is no longer needed, once for each time it was offered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WithdrawBlob {
    /// Which.
    pub hash: BlobHash,
}

/// Program to node: bring what the worker of a lease had its node keep.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchBlob {
    /// Names the question on this connection.
    pub number: u32,
    /// The lease.
    pub handle: Handle,
    /// Which.
    pub hash: BlobHash,
    /// As the worker was told.
    pub ticket: Ticket,
}

/// Node to program: the answer. Beside it travels the blob, opened for reading, unless it is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobFetched {
    /// Which question.
    pub number: u32,
    /// For people: why it is not to be had; `None`: it is here.
    pub refused: Option<String>,
}

/// Program to node: nobody wants what the worker of a lease had its node keep.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropBlob {
    /// The lease.
    pub handle: Handle,
    /// Which.
    pub hash: BlobHash,
}

messages! {
    /// Every message between a program and its node that has a struct.
    LocalMessage {
        ClientHello, ClientWelcome, ClientRefused, OfferPlugin, PluginOffered, Allocate, Allocated,
        GiveBack, LeaseNews, KillWorker, Query, Rows, Resize,
        OpenLane, LaneOpened, GroupNews, ProcessNews, EndGroup, OfferBlob, BlobOffered, WithdrawBlob,
        FetchBlob, BlobFetched, DropBlob,
    }
}
