//! A call from the caller's side: how it ended, and the handle to wait for it.

use super::{Handle, LeaseKey};
use mutirao_wire::CallId;
use mutirao_wire::stream::failure;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// Why a call has no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CallErrorKind {
    /// The program there has no such operation.
    NoSuchOperation,
    /// The operation panicked.
    Panicked,
    /// The operation could not read its argument.
    BadArgument,
    /// The result is too long.
    ResultTooLarge,
    /// The worker ended by itself or by a signal while it ran the call; or, rarely, it was ended for the call
    /// before, which was cancelled or took too long but was over in just that moment.
    WorkerEnded,
    /// The worker was killed for want of memory.
    OutOfMemory,
    /// The call's time limit passed.
    TimeLimit,
    /// The call was cancelled.
    Cancelled,
    /// The operation failed with this code of its own.
    Operation(u32),
    /// The lender was lost while the call may have been running, and it must not run twice.
    OutcomeUnknown,
    /// The pool was closed, or its node lost, before the call was done.
    PoolClosed,
    /// The result cannot be decoded.
    BadResult,
    /// The result was already taken.
    Taken,
    /// There is nothing to run it on, and nothing is to be expected: no node lends, or the program asks for slots
    /// by hand and holds none. It did not run.
    NoSlots,
    /// A code this build does not know.
    Other(u32),
}

impl CallErrorKind {
    /// The kind that a code of a failed result stands for.
    pub fn from_code(code: u32) -> CallErrorKind {
        match code {
            failure::NO_SUCH_OPERATION => CallErrorKind::NoSuchOperation,
            failure::PANICKED => CallErrorKind::Panicked,
            failure::BAD_ARGUMENT => CallErrorKind::BadArgument,
            failure::RESULT_TOO_LARGE => CallErrorKind::ResultTooLarge,
            failure::WORKER_ENDED => CallErrorKind::WorkerEnded,
            failure::OUT_OF_MEMORY => CallErrorKind::OutOfMemory,
            failure::TIME_LIMIT => CallErrorKind::TimeLimit,
            failure::CANCELLED => CallErrorKind::Cancelled,
            100 => CallErrorKind::OutcomeUnknown,
            101 => CallErrorKind::PoolClosed,
            102 => CallErrorKind::BadResult,
            103 => CallErrorKind::Taken,
            104 => CallErrorKind::NoSlots,
            code if code >= failure::OPERATION => CallErrorKind::Operation(code - failure::OPERATION),
            code => CallErrorKind::Other(code),
        }
    }

    /// A number that keeps its meaning in later versions; an operation's own code has the highest bit set.
    pub fn code(self) -> u32 {
        match self {
            CallErrorKind::NoSuchOperation => failure::NO_SUCH_OPERATION,
            CallErrorKind::Panicked => failure::PANICKED,
            CallErrorKind::BadArgument => failure::BAD_ARGUMENT,
            CallErrorKind::ResultTooLarge => failure::RESULT_TOO_LARGE,
            CallErrorKind::WorkerEnded => failure::WORKER_ENDED,
            CallErrorKind::OutOfMemory => failure::OUT_OF_MEMORY,
            CallErrorKind::TimeLimit => failure::TIME_LIMIT,
            CallErrorKind::Cancelled => failure::CANCELLED,
            CallErrorKind::OutcomeUnknown => 100,
            CallErrorKind::PoolClosed => 101,
            CallErrorKind::BadResult => 102,
            CallErrorKind::Taken => 103,
            CallErrorKind::NoSlots => 104,
            CallErrorKind::Operation(code) => failure::OPERATION | code,
            CallErrorKind::Other(code) => code,
        }
    }
}

/// A call that has no result.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("the call failed{}: {text}", .node.as_ref().map(|node| format!(" on node {node}")).unwrap_or_default())]
pub struct CallError {
    /// What kind of failure.
    pub kind: CallErrorKind,
    /// For people.
    pub text: String,
    /// The node where it happened, where that is known.
    pub node: Option<String>,
}

crate::error::debug_in_words!(CallError);

impl CallError {
    pub(crate) fn new(kind: CallErrorKind, text: impl Into<String>) -> CallError {
        CallError { kind, text: text.into(), node: None }
    }
}

/// What a call gave: bytes, or why there are none.
pub type CallResult = Result<Vec<u8>, CallError>;

/// A finished call, as a callback or the queue of finished calls gets it.
#[derive(Debug)]
pub struct Finished {
    /// Which call.
    pub id: CallId,
    /// The number it was submitted with.
    pub tag: u64,
    /// What it gave.
    pub result: CallResult,
    /// The node that ran it, where that is known.
    pub node: Option<Arc<str>>,
}

/// Takes a finished call.
pub(crate) type Callback = Box<dyn FnOnce(Finished) + Send>;

/// Where the result of a call goes.
#[derive(Default)]
pub enum Deliver {
    /// To the [`Call`], to be waited for.
    #[default]
    Handle,
    /// To a function, called once, on whatever thread found the call done: one that waits, cancels, releases or
    /// closes, or one of the library's. Keep it short, for other results wait meanwhile; it may submit calls.
    /// When [`close`](super::Pool::close) returns it has been called.
    Callback(Box<dyn FnOnce(Finished) + Send>),
    /// To the queue behind [`event_fd`](super::Pool::event_fd) and [`next_finished`](super::Pool::next_finished).
    Queue,
}

impl std::fmt::Debug for Deliver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Deliver::Handle => "Handle",
            Deliver::Callback(_) => "Callback",
            Deliver::Queue => "Queue",
        })
    }
}

/// How a call is to be treated.
#[derive(Debug, Default)]
pub struct CallOptions {
    /// It may run more than once without harm. Operations declared repeatable need not say so again.
    pub repeatable: bool,
    /// Longest run time; whole milliseconds, rounded up.
    pub limit: Option<Duration>,
    /// Where its result goes.
    pub deliver: Deliver,
    /// A number of the caller's own, handed back in [`Finished`].
    pub tag: u64,
    /// The only lease it may run on; any unless given. Should that end before the call has begun, the call ends
    /// with [`CallErrorKind::NoSlots`].
    pub only: Option<LeaseKey>,
}

/// A call under way. Dropping it does not cancel the call; its result is then thrown away.
#[derive(Debug)]
pub struct Call {
    pub(crate) shared: Arc<Handle>,
    pub(crate) id: CallId,
}

impl Call {
    /// The call's number in its pool.
    pub fn id(&self) -> CallId {
        self.id
    }

    /// Waits for the result. Meanwhile this thread does the pool's work.
    pub fn wait(&mut self) -> CallResult {
        self.shared.wait_calls(&[self.id], None);
        self.try_result().unwrap_or_else(|| Err(taken()))
    }

    /// Waits for the result for at most `timeout`; `None` if it is not there yet, and may be waited for again.
    pub fn wait_timeout(&mut self, timeout: Duration) -> Option<CallResult> {
        self.shared.wait_calls(&[self.id], Instant::now().checked_add(timeout));
        self.try_result()
    }

    /// The result if it is there. Once it was taken, every further question is answered with
    /// [`CallErrorKind::Taken`].
    pub fn try_result(&mut self) -> Option<CallResult> {
        self.shared.take_result(self.id).map(|(result, _)| result)
    }

    /// Like [`try_result`](Self::try_result), with the name of the node that ran the call, where known.
    pub fn try_finished(&mut self) -> Option<(CallResult, Option<Arc<str>>)> {
        self.shared.take_result(self.id)
    }

    /// Whether the result is there or was taken.
    pub fn is_done(&self) -> bool {
        self.shared.is_done(self.id)
    }

    /// Gives the call up: it ends with [`CallErrorKind::Cancelled`], and its worker is ended if it has begun.
    /// Without effect on a call that is done. A callback may be run before this returns.
    pub fn cancel(&self) {
        self.shared.cancel(self.id);
    }

    /// For futures: the result, or `Pending` after `waker` was noted.
    pub fn poll_result(&mut self, context: &mut Context<'_>) -> Poll<CallResult> {
        self.shared.poll_result(self.id, context.waker())
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.shared.forget(self.id);
    }
}

pub(crate) fn taken() -> CallError {
    CallError::new(CallErrorKind::Taken, "its result was taken before")
}

/// Wakes this thread. Always the same for one thread, so that waiting again and again leaves no more than one.
pub(crate) fn thread_waker() -> Waker {
    thread_local!(static WAKER: Waker = new_thread_waker());
    WAKER.try_with(Waker::clone).unwrap_or_else(|_| new_thread_waker())
}

fn new_thread_waker() -> Waker {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
        fn wake_by_ref(self: &Arc<Self>) {
            self.0.unpark();
        }
    }
    Waker::from(Arc::new(Unpark(std::thread::current())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_kinds_agree() {
        for code in (1..=8).chain(100..=104).chain([50, failure::OPERATION, failure::OPERATION + 7, u32::MAX])
        {
            assert_eq!(CallErrorKind::from_code(code).code(), code);
        }
    }
}
