//! The stream of a lease: calls one way, results the other, from the library through home and
//! lender to the worker. The same frames travel over the local socket, the data connection between
//! nodes, and the ring of a worker; a node in between changes nothing but the handle.
//!
//! Most of these frames have no struct: their body is raw bytes and the header says the rest.
//!
//! | kind | direction | header | body |
//! | --- | --- | --- | --- |
//! | `Call` | to worker | `sequence` call, `aux` operation, `extent` see [`CallExtent`], `REPEATABLE`, `MORE` | argument, first part |
//! | `Call` again | to worker | same `sequence`, `MORE` but for the last | argument, next part |
//! | `Result` | from worker | `sequence` call, `extent` total bytes, `MORE` | result, in parts |
//! | `Result` + `FAILED` | from worker or a node | `sequence` call, `aux` see [`failure`] | text for people |
//! | `Credit` | both | `extent` further bytes the other side may send; `aux` number of calls acknowledged | their ids, 8 bytes each, little endian |
//! | `Cancel` | to worker | `sequence` call | |
//! | `WithdrawCalls` | to lender | `aux` number of calls that need not run here | their ids, as for `Credit` |
//! | `CallsWithdrawn` | from lender | `aux` number of those that have not begun and are forgotten; all others go on | their ids |
//! | `Bind`, `Resume`, `Resumed`, `WorkerEnded`, `Unbound` | | `handle` | the struct below |
//!
//! From a program to its node, the body of a `Call` may lie in their lane: the frame then has `ASIDE` and says in
//! its own body, 4 bytes little endian, how many bytes of the lane are meant. The node sends it on with them.
//!
//! Parts of one call are contiguous among the frames of its lease and direction. Bodies have at
//! most [`DATA_BODY_MAX`] bytes. Bytes count against the window with
//! their header.

use crate::frame::{Header, flags, put_frame};
use crate::id::{AppId, CallId, Epoch, Handle};
use crate::kind::{Kind, messages};
use crate::limits::DATA_BODY_MAX;
use serde::{Deserialize, Serialize};
use zerocopy::byteorder::little_endian::{U16, U32, U64};

/// Codes of a failed result. Those from [`OPERATION`](failure::OPERATION) on are the operation's own.
pub mod failure {
    /// The program has no such operation.
    pub const NO_SUCH_OPERATION: u32 = 1;
    /// The operation panicked; its worker goes on.
    pub const PANICKED: u32 = 2;
    /// The argument could not be decoded by the operation's typed wrapper.
    pub const BAD_ARGUMENT: u32 = 3;
    /// The result has more bytes than a call may return.
    pub const RESULT_TOO_LARGE: u32 = 4;
    /// The worker ended by itself or by a signal while it ran the call.
    pub const WORKER_ENDED: u32 = 5;
    /// The worker was killed for want of memory.
    pub const OUT_OF_MEMORY: u32 = 6;
    /// The call's time limit passed.
    pub const TIME_LIMIT: u32 = 7;
    /// The caller cancelled it.
    pub const CANCELLED: u32 = 8;
    /// The first code that belongs to the operation itself: code − OPERATION is what it returned.
    pub const OPERATION: u32 = 0x8000_0000;
}

/// `extent` of a call: the argument's bytes in the lower half, the time limit in milliseconds in
/// the upper (0 for none).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallExtent {
    /// Bytes of the whole argument.
    pub bytes: u32,
    /// Longest run time, milliseconds; 0 for none.
    pub limit_ms: u32,
}

impl CallExtent {
    /// As it stands in the header.
    pub fn pack(self) -> u64 {
        u64::from(self.limit_ms) << 32 | u64::from(self.bytes)
    }

    /// Out of a header.
    pub fn unpack(extent: u64) -> CallExtent {
        CallExtent { bytes: extent as u32, limit_ms: (extent >> 32) as u32 }
    }
}

/// The header of a part of a call.
pub fn call_header(
    handle: Handle,
    call: CallId,
    operation: u32,
    extent: CallExtent,
    repeatable: bool,
    part: usize,
    more: bool,
) -> Header {
    let bits = if repeatable { flags::REPEATABLE } else { 0 } | if more { flags::MORE } else { 0 };
    Header {
        length: U32::new(part as u32),
        kind: U16::new(Kind::Call as u16),
        flags: U16::new(bits),
        handle: U32::new(handle.0),
        aux: U32::new(operation),
        sequence: U64::new(call.0),
        extent: U64::new(extent.pack()),
    }
}

/// Appends a part of a call whose body lies in the lane.
pub fn put_aside(out: &mut Vec<u8>, mut header: Header) {
    let part = header.length.get().to_le_bytes();
    header.flags = U16::new(header.flags.get() | flags::ASIDE);
    header.length = U32::new(part.len() as u32);
    put_frame(out, header, &part);
}

/// The header of a part of a call whose body lies in the lane, as it is sent on with that body; `None` if the frame
/// is no such part.
pub fn read_aside(header: &Header, body: &[u8]) -> Option<Header> {
    let part = u32::from_le_bytes(body.try_into().ok()?);
    let is_one = header.kind.get() == Kind::Call as u16 && header.has(flags::ASIDE);
    let bits = U16::new(header.flags.get() & !flags::ASIDE);
    let sent_on = Header { length: U32::new(part), flags: bits, ..*header };
    (is_one && sent_on.check(DATA_BODY_MAX).is_ok()).then_some(sent_on)
}

/// The header of a part of a result of `total` bytes.
pub fn result_header(handle: Handle, call: CallId, total: u64, part: usize, more: bool) -> Header {
    Header {
        length: U32::new(part as u32),
        kind: U16::new(Kind::Result as u16),
        flags: U16::new(if more { flags::MORE } else { 0 }),
        handle: U32::new(handle.0),
        aux: U32::new(0),
        sequence: U64::new(call.0),
        extent: U64::new(total),
    }
}

/// The header of a failure whose text has `text` bytes.
pub fn failure_header(handle: Handle, call: CallId, code: u32, text: usize) -> Header {
    let mut header = result_header(handle, call, text as u64, text, false);
    header.flags = U16::new(flags::FAILED);
    header.aux = U32::new(code);
    header
}

/// The header of a credit: `bytes` more may be sent; `acknowledged` calls are listed in the body.
pub fn credit_header(handle: Handle, bytes: u64, acknowledged: usize) -> Header {
    let mut header = Header::new(Kind::Credit, acknowledged * 8);
    header.handle = U32::new(handle.0);
    header.aux = U32::new(acknowledged as u32);
    header.extent = U64::new(bytes);
    header
}

/// The header of a `WithdrawCalls` or, with that kind, of a `CallsWithdrawn`; `calls` are listed in the body.
pub fn withdraw_header(kind: Kind, handle: Handle, calls: usize) -> Header {
    let mut header = Header::new(kind, calls * 8);
    header.handle = U32::new(handle.0);
    header.aux = U32::new(calls as u32);
    header
}

/// Appends the ids of calls as the bodies of `Credit`, `WithdrawCalls` and `CallsWithdrawn` have them.
pub fn put_ids(calls: impl IntoIterator<Item = CallId>, out: &mut Vec<u8>) {
    calls.into_iter().for_each(|call| out.extend_from_slice(&call.0.to_le_bytes()));
}

/// The ids in the body of a frame with this header; `None` if it has not as many as it says.
pub fn read_ids(header: &Header, body: &[u8]) -> Option<Vec<CallId>> {
    let (ids, rest) = body.as_chunks::<8>();
    let counted = rest.is_empty() && ids.len() == header.aux.get() as usize;
    counted.then(|| ids.iter().map(|id| CallId(u64::from_le_bytes(*id))).collect())
}

/// The header of a cancel.
pub fn cancel_header(handle: Handle, call: CallId) -> Header {
    let mut header = Header::new(Kind::Cancel, 0);
    header.handle = U32::new(handle.0);
    header.sequence = U64::new(call.0);
    header
}

/// Home to lender, first on a data connection for each lease: frames with this header's handle
/// belong to that lease. Starts with full windows in both directions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    /// The handle on this connection, chosen by the home.
    pub handle: Handle,
    /// The lender's serial of the lease.
    pub serial: u64,
    /// Whose it is.
    pub app: AppId,
    /// The home's epoch.
    pub epoch: Epoch,
}

/// Library to lender, after the stream was broken: these calls await their results.
/// Windows are full again on both sides; a call that was sent in part only is unknown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    /// The lease, as the connection names it.
    pub handle: Handle,
    /// Calls sent and not answered.
    pub outstanding: Vec<CallId>,
}

/// Lender to library: of the outstanding calls I have never had these whole. Every other one is
/// queued, runs, or its result follows. Results of calls that were not listed are forgotten.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resumed {
    /// The lease, as the connection names it.
    pub handle: Handle,
    /// Calls the lender never had: they did not run.
    pub unknown: Vec<CallId>,
}

/// Lender to library: the worker is gone, and will be replaced. `running` has had its failure sent
/// as its result; the other calls listed did not start and are forgotten here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerEnded {
    /// The lease, as the connection names it.
    pub handle: Handle,
    /// Calls that did not start.
    pub not_started: Vec<CallId>,
    /// What happened, for people: signal or exit code, and the last lines it wrote.
    pub cause: String,
}

/// Either node to the other: this handle names no lease any more, or the lease is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unbound {
    /// The lease, as the connection named it.
    pub handle: Handle,
}

messages! {
    /// The messages of a stream that have a struct.
    StreamMessage { Bind, Resume, Resumed, WorkerEnded, Unbound }
}
