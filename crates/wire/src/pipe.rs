//! Pipes: two-way streams of bytes between two ends of one application, made by the nodes.
//!
//! An end is the program that holds the leases, or the worker of one of its leases. The program orders a pipe
//! of its home ([`OpenPipe`]); the home tells the lenders of both ends ([`JoinPipe`]); these make it, and hand
//! its descriptors to the ends ([`PipeOpened`]). The home itself orders pipes between its program and *guests*,
//! programs of the same user on any node, which have asked for that (`Topic::Attach`). Between two nodes it is bound to their data connection by the
//! node with the smaller id ([`BindPipe`]), and its bytes are frames without a struct:
//!
//! | kind | header | body |
//! | --- | --- | --- |
//! | `PipeBytes` | `handle` | bytes of the stream; none: this side writes no more |
//! | `PipeCredit` | `handle`; `extent` further bytes the other side may send | |
//!
//! Each direction begins with a credit of [`PIPE_WINDOW_BYTES`], bodies only. A handle is a number that the
//! binder of the connection gives, apart from those of leases.

use crate::frame::Header;
use crate::id::{AppId, Epoch, Handle};
use crate::kind::{Kind, messages};
use crate::node::NodeRef;
use core::net::SocketAddr;
use serde::{Deserialize, Serialize};
use zerocopy::byteorder::little_endian::{U32, U64};

/// Bytes under way in each direction of one pipe between two nodes before the receiver has to grant more.
pub const PIPE_WINDOW_BYTES: u64 = 512 * 1024;
/// Pipes of one lease.
pub const PIPES_A_LEASE_MAX: usize = 1024;
/// Pipes of one program.
pub const PIPES_A_PROGRAM_MAX: usize = 65_536;
/// Pipes that have an end on one node.
pub const PIPES_A_NODE_MAX: usize = 16_384;
/// The first number of those that homes give, to pipes of guests. The program closes them as it does its own.
pub const GUEST_PIPES: u64 = 1 << 63;
/// Bytes of the word that opens a plain socket.
pub const TOKEN_BYTES: usize = 32;

/// An end of a pipe, as the program names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PipeEnd {
    /// The program itself.
    Program,
    /// The worker of a lease.
    Lease(Handle),
}

/// An end of a pipe, as its node names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PipePlace {
    /// The program, at its home.
    Program,
    /// The worker of the lease with this serial.
    Lease(u64),
    /// Another program, which has asked for it at its node.
    Guest(AppId),
}

/// Program to node: make a pipe. Said again when the node comes back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenPipe {
    /// Its number, chosen by the program.
    pub number: u64,
    /// One end.
    pub a: PipeEnd,
    /// The other.
    pub b: PipeEnd,
}

/// Program to node: a pipe is no longer needed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClosePipe {
    /// Its number.
    pub number: u64,
}

/// Which side of a ring an end has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RingSide {
    /// It writes what the ring calls calls.
    Caller,
    /// It writes what the ring calls replies.
    Worker,
}

/// What an end is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PipeWay {
    /// The other end is on the same machine. Beside the message travel the memory of a ring, the bell to
    /// hear, the descriptor that rings for the other end, and the other end's bell, to be kept open.
    Ring(RingSide),
    /// The other end is elsewhere. Beside the message travels a stream socket: to this machine's node, or, on
    /// a link the pool trusts, straight to the other end.
    Socket {
        /// It is straight, and not encrypted.
        trusted: bool,
    },
}

impl PipeWay {
    /// How many descriptors travel beside the message.
    pub fn descriptors(self) -> usize {
        match self {
            PipeWay::Ring(_) => 4,
            PipeWay::Socket { .. } => 1,
        }
    }
}

/// Node to an end: the pipe is there, for the first time or anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PipeOpened {
    /// Its number.
    pub number: u64,
    /// How it is reached.
    pub way: PipeWay,
}

/// Node to an end, and to the program: the pipe is broken. What was opened last is of no further use; the pipe
/// is opened anew when that can be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PipeBroken {
    /// Its number.
    pub number: u64,
}

/// Node to an end, and to the program: the pipe is no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PipeFailed {
    /// Its number.
    pub number: u64,
    /// For people: why.
    pub text: String,
}

messages! {
    /// Every message about pipes between a node and the ends on its machine.
    PipeMessage { OpenPipe, ClosePipe, PipeOpened, PipeBroken, PipeFailed }
}

/// Home to the node of an end: this is one of a pipe. Said again after each break of the link, and
/// then changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinPipe {
    /// Whose it is.
    pub app: AppId,
    /// In which order of homes.
    pub epoch: Epoch,
    /// The pipe's number.
    pub number: u64,
    /// The end at the node that is told: a lease's or a guest's.
    pub mine: PipePlace,
    /// The node of the other end,
    pub node: NodeRef,
    /// and the end there.
    pub other: PipePlace,
}

/// Home to the node of an end: the pipe is no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeavePipe {
    /// Whose it is.
    pub app: AppId,
    /// The pipe's number.
    pub number: u64,
    /// For people: why.
    pub text: String,
}

/// How a pipe is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PipeState {
    /// Its ends have it.
    Open,
    /// It broke.
    Broken,
    /// It cannot be; the text says why.
    Failed(String),
}

/// Node of an end to home: how a pipe is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PipeNews {
    /// Whose it is.
    pub app: AppId,
    /// The pipe's number.
    pub number: u64,
    /// How it is doing.
    pub state: PipeState,
}

messages! {
    /// Every message about pipes on a control connection.
    PipeOrder { JoinPipe, LeavePipe, PipeNews }
}

/// Binder to acceptor, on the data connection the binder dialled: this handle is that pipe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindPipe {
    /// Its handle from now on.
    pub handle: Handle,
    /// Whose it is.
    pub app: AppId,
    /// The pipe's number.
    pub number: u64,
    /// The binder's end.
    pub from: PipePlace,
    /// The acceptor's end.
    pub to: PipePlace,
    /// Whether a plain socket will do: the binder's charter trusts the link.
    pub plain: bool,
}

/// Where a plain socket is awaited, once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlainSocket {
    /// The port, at the address of the data connection.
    pub port: u16,
    /// What to send first.
    pub token: [u8; TOKEN_BYTES],
}

/// Acceptor to binder: both ends are there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PipeBound {
    /// Which.
    pub handle: Handle,
    /// Where to bring a plain socket; without it the bytes take this connection.
    pub plain: Option<PlainSocket>,
}

/// Either to the other: this handle means nothing any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PipeUnbound {
    /// Which.
    pub handle: Handle,
    /// The other side knows of no such pipe: to be asked again later, if at all.
    pub unknown: bool,
}

messages! {
    /// Every message about pipes on a data connection.
    PipeBinding { BindPipe, PipeBound, PipeUnbound }
}

/// Where plain sockets are awaited, as the binder sees it.
pub fn plain_address(connection: SocketAddr, plain: &PlainSocket) -> SocketAddr {
    SocketAddr::new(connection.ip(), plain.port)
}

/// The header of bytes of a pipe; none: this side writes no more.
pub fn pipe_header(handle: Handle, bytes: usize) -> Header {
    let mut header = Header::new(Kind::PipeBytes, bytes);
    header.handle = U32::new(handle.0);
    header
}

/// The header of a credit for a pipe.
pub fn pipe_credit_header(handle: Handle, bytes: u64) -> Header {
    let mut header = Header::new(Kind::PipeCredit, 0);
    header.handle = U32::new(handle.0);
    header.extent = U64::new(bytes);
    header
}
