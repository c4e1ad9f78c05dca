use core::time::Duration;
use mutirao_wire::local::Leave;
#[cfg(doc)]
use mutirao_wire::stream::failure;
use mutirao_wire::stream::{self, CallExtent};
use mutirao_wire::{CallId, Epoch, Handle, Tick};

/// Calls an application may have at once, waiting or sent.
pub const CALLS_MAX: usize = 1 << CALL_INDEX_BITS;
/// Leases an application may have at once.
pub const LEASES_MAX: usize = 1 << 16;
/// Bits of a [`CallId`] that are its place in the table of calls.
pub(super) const CALL_INDEX_BITS: u32 = 20;

/// The place of `call` among the calls known: below [`CALLS_MAX`], unique among unfinished calls, and
/// small while few are known, so that what belongs to a call can be kept in a plain vector.
pub fn call_index(call: CallId) -> usize {
    (call.0 & ((1 << CALL_INDEX_BITS) - 1)) as usize
}

/// What may be chosen once for an application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Calls known at once, waiting or sent; at most [`CALLS_MAX`].
    pub calls_max: usize,
    /// Whether a repeatable call that takes suspiciously long is also started elsewhere when nothing waits.
    pub copies: bool,
    /// In which order of the application's homes this is.
    pub epoch: Epoch,
    /// So much work may be sent to a lease of the calls [bound](Call::only) to it, which cannot go elsewhere.
    pub bound_work: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options { calls_max: CALLS_MAX, copies: true, epoch: Epoch(0), bound_work: Duration::ZERO }
    }
}

/// A call, without its argument, which stays with the library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The operation's index in the plugin.
    pub operation: u32,
    /// Bytes of the argument; at most [`CALL_BYTES_MAX`](mutirao_wire::limits::CALL_BYTES_MAX).
    pub bytes: u32,
    /// Whether it may run more than once.
    pub repeatable: bool,
    /// Longest run time, milliseconds; 0 for none.
    pub limit_ms: u32,
    /// The only lease it may run on, if it matters.
    pub only: Option<Handle>,
}

/// Why a call was not taken. Nothing has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// [`Options::calls_max`] calls are unfinished.
    #[error("{0} calls are unfinished, which is as many as an application may have; wait for some first")]
    Full(usize),
    /// The argument is too large.
    #[error("the argument has {0} bytes, but a call may carry at most {max}", max = mutirao_wire::limits::CALL_BYTES_MAX)]
    ArgumentTooLarge(u32),
    /// [`Call::only`] names no lease.
    #[error("lease {} is unknown or has ended", (.0).0)]
    NoSuchLease(Handle),
}

/// What happened to a lease or a call, in the order it happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A lease was granted. Nothing is sent before it is ready.
    LeaseAdded {
        /// Its handle.
        handle: Handle,
        /// Whether its worker is reached through a ring in shared memory.
        local: bool,
    },
    /// Its worker serves calls. For a local lease: through a new ring in which `room` bytes are free; also
    /// after its worker was replaced. For a remote lease `room` is ignored, as is any but the first one.
    LeaseReady {
        /// Which lease.
        handle: Handle,
        /// Bytes free in the ring.
        room: u64,
    },
    /// The way to the lender is broken.
    LeaseBroken(Handle),
    /// The way is open again, over a new stream. Must be told of each stream but the lease's first, also
    /// before it is ready: the lender waits for the [`Output::Resume`] that follows.
    LeaseRestored(Handle),
    /// The lender's answer to `Resume`: these of the calls listed there it never had whole.
    Resumed {
        /// Which lease.
        handle: Handle,
        /// Calls that did not run.
        unknown: Vec<CallId>,
    },
    /// A remote lease's worker was replaced; the failure of the call it ran came as its result.
    WorkerEnded {
        /// Which lease.
        handle: Handle,
        /// Calls that did not start.
        not_started: Vec<CallId>,
    },
    /// A local lease's worker is gone. The library must have taken all replies out of the ring before.
    /// The call that ran fails with `code` (or with the code of the kill that ended it), no other started.
    LocalWorkerEnded {
        /// Which lease.
        handle: Handle,
        /// What the ring names as running.
        running: Option<CallId>,
        /// See [`failure`].
        code: u32,
    },
    /// It is no more. Its results must have been told before.
    LeaseEnded {
        /// Which lease.
        handle: Handle,
        /// For a local lease, what the ring names as running; then all others did not start.
        running: Option<CallId>,
        /// Whether the lender or the way to it was lost, not merely the lease ended. A repeatable call runs again
        /// after either, but only so often if it was at work when its lender was lost: it may be the cause.
        lost: bool,
    },
    /// Place nothing more on this lease; [`Output::Retired`] tells when it may be given back. Said again, the
    /// more impatient counts.
    Retire {
        /// Which lease.
        handle: Handle,
        /// What becomes of what runs there.
        leave: Leave,
    },
    /// The answer to [`Output::Withdraw`]: these of the calls listed there have not begun and will not.
    Withdrawn {
        /// Which lease.
        handle: Handle,
        /// Calls that did not run.
        calls: Vec<CallId>,
    },
    /// A remote lender has room for so many further bytes.
    Credit {
        /// Which lease.
        handle: Handle,
        /// How many.
        bytes: u64,
    },
    /// So many bytes are free in a local lease's ring now, with everything sent so far written into it.
    /// To be told after replies were taken out of it, and when [`Hold::waits_for_room`](super::Hold::waits_for_room)
    /// and the ring says that there is room.
    Room {
        /// Which lease.
        handle: Handle,
        /// How many.
        bytes: u64,
    },
    /// The caller no longer wants the call.
    Cancel(CallId),
    /// There is no lease and none will come: what waits fails with [`Outcome::NoSlots`].
    NoMoreLeases,
    /// [`Hold::deadline`](super::Hold::deadline) has come. Whatever has arrived must be told first.
    Time,
}

/// What the library has to do, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Write one `Call` frame: [`Part::header`] and that piece of the argument. It fits into the window or
    /// the ring. Parts of one call are contiguous on their lease.
    Send(Part),
    /// Write a `Cancel` frame: to a remote lease, or into a local lease's ring when the call was sent in part
    /// only; the worker then drops it and answers `CANCELLED`. There is room for it.
    Cancel {
        /// Which lease.
        handle: Handle,
        /// Which call.
        call: CallId,
    },
    /// Get these calls back, if they have not begun: write a `WithdrawCalls` frame to a remote lease; withdraw
    /// them from the ring of a local one. [`Input::Withdrawn`] is the answer, from a local lease at once.
    Withdraw {
        /// Which lease.
        handle: Handle,
        /// Calls sent whole, in order.
        calls: Vec<CallId>,
    },
    /// Ask the node to end the worker of a local lease, provided the ring names `call` as running (otherwise
    /// do nothing). Repeated until the worker is gone or the call is answered.
    KillWorker {
        /// Which lease.
        handle: Handle,
        /// Which call is meant.
        call: CallId,
        /// Why; see [`failure`].
        code: u32,
    },
    /// Write a `Resume` frame. What the library holds of an incomplete result of this lease, and its
    /// [`Receipts`](crate::Receipts), are void.
    Resume {
        /// Which lease.
        handle: Handle,
        /// Calls sent and not answered, at most [`LEASE_CALLS_MAX`](mutirao_wire::limits::LEASE_CALLS_MAX).
        outstanding: Vec<CallId>,
    },
    /// The call is over without a result, or with one that did not come as a frame.
    Finished {
        /// Which call.
        call: CallId,
        /// How it ended.
        outcome: Outcome,
    },
    /// A lease that was to be retired has nothing left to do, or nothing that counts: give it back. It is
    /// forgotten here.
    Retired(Handle),
    /// There are [`LEASES_MAX`] leases: this one is not used, and should be given back.
    TooManyLeases(Handle),
}

/// How a call ended that was not answered by a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It failed: [`failure::CANCELLED`], or the end of a local worker that ran it.
    Failed(u32),
    /// What became of it cannot be known: it may have run, wholly or in part, and may not run twice.
    Unknown,
    /// The lease it was bound to is no more; it did not run.
    LeaseEnded,
    /// There is nothing to run it on; it did not run.
    NoSlots,
}

/// A frame's worth of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Where it goes.
    pub handle: Handle,
    /// The operation's index.
    pub operation: u32,
    /// Which call.
    pub call: CallId,
    /// Bytes of the whole argument, and the call's time limit.
    pub extent: CallExtent,
    /// Where in the argument the part begins.
    pub offset: u32,
    /// Bytes of the part.
    pub bytes: u32,
    /// Whether it may run more than once.
    pub repeatable: bool,
    /// Whether further parts follow.
    pub more: bool,
}

impl Part {
    /// The frame's header.
    pub fn header(&self) -> mutirao_wire::frame::Header {
        stream::call_header(
            self.handle,
            self.call,
            self.operation,
            self.extent,
            self.repeatable,
            self.bytes as usize,
            self.more,
        )
    }

    /// The piece of the whole argument that is the frame's body.
    pub fn range(&self) -> core::ops::Range<usize> {
        self.offset as usize..self.offset as usize + self.bytes as usize
    }
}

/// How much there is to do, for whoever decides whether to ask for more leases or to give some back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Backlog {
    /// Calls not yet sent anywhere.
    pub waiting: usize,
    /// Those among them that may run on one lease only, so that no other would help.
    pub bound: usize,
    /// How long one lease would be busy with the others, microseconds. Operations of which no call has
    /// finished are left out: nobody knows.
    pub waiting_us: u64,
    /// Since when the oldest of the others waits, counted from the first [`place`](super::Hold::place) that
    /// left it waiting.
    pub waiting_since: Option<Tick>,
    /// Leases known.
    pub leases: usize,
}
