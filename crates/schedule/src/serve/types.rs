use mutirao_wire::frame::Header;
use mutirao_wire::{CallId, Handle};

/// What happened to the stream or the worker of a lease.
#[derive(Debug, Clone, Copy)]
pub enum Input<'a> {
    /// A data connection stands on which `handle` is bound to this lease. Windows are full.
    StreamUp(Handle),
    /// It is broken, or the home bound the lease on another one. What is not whole is dropped.
    StreamDown,
    /// A frame from the home. `Bind` and `Unbound` are the node's, all others belong here.
    FromHome {
        /// Its header.
        header: &'a Header,
        /// Its body.
        body: &'a [u8],
    },
    /// A worker serves, through a new, empty ring.
    WorkerReady,
    /// A frame out of the ring.
    FromWorker {
        /// Its header.
        header: &'a Header,
        /// Its body.
        body: &'a [u8],
    },
    /// The worker is gone and will be replaced. The node must have given over all whole frames of the ring.
    WorkerGone {
        /// What the ring names as running.
        running: Option<CallId>,
        /// Why, unless `Serve` itself had it killed; see [`failure`](mutirao_wire::stream::failure).
        code: u32,
        /// For people: signal or exit code, last lines of its standard error.
        cause: &'a str,
    },
    /// The lease ends and its worker is gone; as for `WorkerGone` the ring is drained. Tells the home which
    /// calls did not start. The one that ran stays unanswered, so that it counts as lost with the lease,
    /// not as failed by itself.
    LeaseEnds {
        /// What the ring names as running.
        running: Option<CallId>,
        /// For people.
        cause: &'a str,
    },
    /// [`Serve::deadline`](super::Serve::deadline) has come. The ring must have been read first.
    Time,
}

/// What the node has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// End the worker, provided the ring names `call` as running; then, as for any other end of a worker,
    /// drain its ring and say `WorkerGone`. Repeated until the worker is gone or the call is answered.
    /// Without a call: end it in any case, it does not keep to the protocol.
    KillWorker {
        /// The call that must not go on.
        call: Option<CallId>,
        /// Why; see [`failure`](mutirao_wire::stream::failure).
        code: u32,
    },
    /// The home does not keep to the protocol: close the stream. Until `StreamDown` nothing is read from it
    /// or written to it.
    Violation(Violation),
}

/// What a home must not do. The stream is of no further use; calls and results are kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// It sent more than it had credit for.
    #[error("the home sent {excess} bytes more than it was granted")]
    Window {
        /// Bytes too many.
        excess: u64,
    },
    /// It has too many calls here.
    #[error("the home has more than {max} calls on one lease", max = mutirao_wire::limits::LEASE_CALLS_MAX)]
    TooManyCalls,
    /// An argument larger than allowed, or not as large as announced.
    #[error("call {} announces {announced} bytes and carries others, or more than a call may", .call.0)]
    ArgumentSize {
        /// Which call.
        call: CallId,
        /// Bytes announced.
        announced: u32,
    },
    /// Parts of another call before the last one was whole.
    #[error("call {} began before the one before it was whole", .0.0)]
    Interleaved(CallId),
    /// An acknowledgement of what was not sent.
    #[error("the home acknowledged call {}, which has no result here", .0.0)]
    NothingToAcknowledge(CallId),
    /// More credit than a window holds.
    #[error("the home granted more credit than a window holds")]
    Credit,
    /// A frame that does not belong here, or a body that is not what its kind demands.
    #[error("a frame of kind {kind:#06x} is malformed or out of place on a lease's stream")]
    Frame {
        /// The frame's kind.
        kind: u16,
    },
}
