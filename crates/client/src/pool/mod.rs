//! The pool side: leases, calls and questions, as bytes.

mod call;
mod options;

pub use call::{Call, CallError, CallErrorKind, CallOptions, CallResult, Deliver, Finished};
pub use options::{Allocation, Lease, LeaseKey, LeaseState, Options, Request, Slots, note_text};

use crate::Error;
use mutirao_wire::node::{NodeRef, Note};
use mutirao_wire::query::{NodeRow, Row, Topic};
use mutirao_wire::{AppId, CallId, PoolId};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A pool that is open: a connection to this machine's node. Clones are the same pool; it closes with the
/// last of them and of its calls.
#[derive(Debug, Clone)]
pub struct Pool {
    shared: Arc<Shared>,
}

/// What came of a question to the pool.
#[derive(Debug, Clone, Default)]
pub struct Answers {
    /// The answers, one or more a node.
    pub rows: Vec<Row>,
    /// Nodes that did not answer in time.
    pub missing: u32,
}

/// How calls stand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Submitted so far.
    pub submitted: u64,
    /// Done so far, well or badly.
    pub done: u64,
}

#[derive(Debug)]
pub(crate) struct Shared;
impl Shared {
    fn wait_calls(&self, _: &[CallId], _: Option<Instant>) { unimplemented!() }
    fn take_result(&self, _: CallId) -> Option<(CallResult, Option<Arc<str>>)> { unimplemented!() }
    fn is_done(&self, _: CallId) -> bool { unimplemented!() }
    fn cancel(&self, _: CallId) { unimplemented!() }
    fn forget(&self, _: CallId) { unimplemented!() }
    fn poll_result(&self, _: CallId, _: &std::task::Waker) -> std::task::Poll<CallResult> { unimplemented!() }
}

impl Pool {
    /// Connects to this machine's node, or starts a private one, and offers this program as a plugin.
    pub fn open(_options: Options) -> Result<Pool, Error> { unimplemented!() }

    /// Gives back every lease and disconnects. Calls under way end with [`CallErrorKind::PoolClosed`].
    pub fn close(&self) { unimplemented!() }

    /// Asks for slots by hand, and waits for what the pool answers (about 2 s at most).
    /// From now on the library asks for none by itself.
    pub fn allocate(&self, _request: &Request) -> Result<Allocation, Error> { unimplemented!() }

    /// Gives leases back. Calls on them that may be repeated or have not begun go elsewhere, the others end with
    /// [`CallErrorKind::OutcomeUnknown`]. Keys of leases that are no more are skipped.
    pub fn release(&self, _leases: &[LeaseKey]) -> Result<(), Error> { unimplemented!() }

    /// The leases held now.
    pub fn leases(&self) -> Vec<Lease> { unimplemented!() }

    /// What stood in the way of the last request elsewhere; see [`note_text`].
    pub fn notes(&self) -> Vec<Note> { unimplemented!() }

    /// The nodes of the pool.
    pub fn nodes(&self) -> Result<Vec<NodeRow>, Error> { unimplemented!() }

    /// Asks every node, or the one whose name or id begins with `to`, about `topic`. `order` is a signed order
    /// where the topic needs a role, else empty.
    pub fn query(&self, _topic: Topic, _to: Option<String>, _order: Vec<u8>, _timeout: Duration) -> Result<Answers, Error> { unimplemented!() }

    /// Submits a call of the operation with this index in the table given to [`init`](crate::raw::init).
    pub fn submit(&self, _operation: u32, _argument: Vec<u8>, _options: CallOptions) -> Result<Call, Error> { unimplemented!() }

    /// The index of an operation by its name.
    pub fn operation(&self, _name: &str) -> Result<u32, Error> { unimplemented!() }

    /// Waits until one of the calls is done; its place in `calls`, or `None` when the time is up first (or
    /// `calls` is empty).
    pub fn wait_any(&self, _calls: &[&Call], _timeout: Option<Duration>) -> Option<usize> { unimplemented!() }

    /// Waits until all of the calls are done; whether they are when the time is up.
    pub fn wait_all(&self, _calls: &[&Call], _timeout: Option<Duration>) -> bool { unimplemented!() }

    /// A descriptor that is readable while [`next_finished`](Self::next_finished) has something.
    /// Do not read from it; poll it.
    pub fn event_fd(&self) -> BorrowedFd<'_> { unimplemented!() }

    /// The next finished call of those submitted with [`Deliver::Queue`]; `None` if there is none now.
    pub fn next_finished(&self) -> Option<Finished> { unimplemented!() }

    /// How calls stand.
    pub fn counts(&self) -> Counts { unimplemented!() }

    /// This machine's node.
    pub fn node(&self) -> NodeRef { unimplemented!() }

    /// The pool's identity; `None` for a private node.
    pub fn id(&self) -> Option<PoolId> { unimplemented!() }

    /// The user as the pool knows it.
    pub fn user(&self) -> String { unimplemented!() }

    /// This application's identity.
    pub fn app(&self) -> AppId { unimplemented!() }
}
