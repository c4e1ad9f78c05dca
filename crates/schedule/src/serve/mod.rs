//! The calls of one lease at its lender.
//!
//! A call is answered exactly once: by its result, by a failure, in the list of those that did not start
//! when a worker ended, or as unknown after the stream was restored. It passes through
//!
//! 1. `partial`, while its parts arrive. What the ring takes of them is not kept: should the worker end meanwhile,
//!    the call counts, once it is whole, among those that did not start, and its home sends it again;
//! 2. `queue`, whole, until the ring has room. Its bytes go back as credit when it leaves. A call larger
//!    than the window gets its credit back while it arrives, one such call at a time, so at most
//!    [`LEASE_WINDOW_BYTES`] + [`CALL_BYTES_MAX`] of arguments are held;
//! 3. `inside`, in the ring or running: the worker takes calls in order and answers in order;
//! 4. `results`, until acknowledged. When more than [`RETAINED_MAX`] bytes of them wait, the ring is no
//!    longer read, so that the worker waits; one more result may then be on its way.

mod from_home;
mod from_worker;
mod types;

pub use types::*;

use crate::body::Body;
use crate::watch::Watch;
use mutirao_wire::frame::{HEADER_BYTES, Header, flags, put_frame};
use mutirao_wire::kind::Kind;
use mutirao_wire::limits::{DATA_BODY_MAX, LEASE_CALLS_MAX, LEASE_WINDOW_BYTES};
use mutirao_wire::stream::{self, CallExtent, failure};
use mutirao_wire::{CallId, Handle, Tick};
use std::collections::VecDeque;

#[cfg(doc)]
use mutirao_wire::limits::CALL_BYTES_MAX;

/// Bytes of results beyond which the worker is made to wait.
pub const RETAINED_MAX: u64 = 4 * LEASE_WINDOW_BYTES;
/// Results beyond which the worker is made to wait.
const RESULTS_MAX: usize = 2 * LEASE_CALLS_MAX as usize;
/// What a kept result costs besides its bytes.
const RESULT_BYTES: u64 = 64;
/// Largest body written into a ring, so that any ring takes it and both sides of it work at once.
const WORKER_BODY_MAX: usize = 32 * 1024;
/// Smallest piece of a larger result that is worth a frame.
const PIECE_MIN: usize = 16 * 1024;

/// The calls of one lease whose home is another node, between its stream and its worker.
#[derive(Debug, Default)]
pub struct Serve {
    stream: Stream,
    /// A stream has stood before.
    bound: bool,
    /// Bytes the home may still send.
    granted: u64,
    /// Bytes consumed that the home was not yet told of.
    owed: u64,
    /// Bytes that may still be sent to the home.
    window: u64,
    partial: Option<Queued>,
    queue: VecDeque<Queued>,
    queue_bytes: u64,
    /// The worker has a call in part that will not become whole, and is yet to be told.
    abort: Option<CallId>,
    /// A whole call in the queue had its bytes credited while it arrived.
    advanced: bool,
    inside: VecDeque<Inside>,
    watch: Option<Watch>,
    worker: Worker,
    /// A result whose parts arrive from the worker.
    gather: Option<(CallId, u64, Body)>,
    /// Calls in the worker's ring that the home would have back, and those that it has back already.
    withdrawal: Option<(Vec<CallId>, Vec<CallId>)>,
    results: VecDeque<Kept>,
    results_bytes: u64,
    /// The first result not yet sent whole, and how much of it was sent.
    next: usize,
    sent: usize,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Stream {
    #[default]
    Down,
    /// Restored; `Resume` comes first.
    Quiet(Handle),
    Open(Handle),
    /// The home broke the protocol.
    Closed,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Worker {
    #[default]
    Gone,
    Serving,
    /// It broke the protocol, and is to be killed.
    Condemned,
}

/// Whether the result of a call is awaited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Wanted,
    /// Its answer is `CANCELLED`, or that it did not start.
    Cancelled,
    /// The home does not know it any more, or has it back: should it have sent it again, another entry
    /// stands for that.
    Forgotten,
}

#[derive(Debug)]
struct Queued {
    call: CallId,
    operation: u32,
    extent: CallExtent,
    repeatable: bool,
    fate: Fate,
    /// Bytes of window to give back when it leaves the queue.
    charged: u64,
    /// It had credit given back while it arrived.
    advanced: bool,
    /// What has come of its argument and is not in the ring: all of it beyond `taken`.
    argument: Body,
    taken: usize,
    /// Bytes of its argument that are in the ring, or were lost with a worker. Only the queue's first call has any;
    /// with an empty queue, the call that arrives.
    passed: usize,
    /// The worker that had a part of it is gone.
    lost: bool,
}

impl Queued {
    /// What is still to be written into the ring.
    fn rest(&self) -> &[u8] {
        &self.argument.bytes()[self.taken..]
    }

    /// Bytes of its argument that have come.
    fn come(&self) -> usize {
        self.passed + self.rest().len()
    }

    /// Keeps a part that came.
    fn keep(&mut self, part: &[u8]) {
        if self.taken == self.argument.len() {
            self.taken = 0;
            self.argument.clear();
        }
        self.argument.append(part);
    }

    /// The worker that had a part of it is gone: what has come is of no more use, nor what will.
    fn lose(&mut self) {
        self.passed = self.come();
        self.argument = Body::from(&[][..]);
        (self.taken, self.lost) = (0, true);
    }

    /// So much of the rest is in the ring.
    fn pass(&mut self, bytes: usize) {
        self.taken += bytes;
        self.passed += bytes;
    }

    /// The header of one of its parts, for the ring.
    fn header(&self, part: usize, more: bool) -> Header {
        stream::call_header(Handle(0), self.call, self.operation, self.extent, self.repeatable, part, more)
    }
}

#[derive(Debug, Clone, Copy)]
struct Inside {
    call: CallId,
    limit_ms: u32,
    repeatable: bool,
    fate: Fate,
    /// It went in only in part, and never runs. The same call may be there again, whole.
    aborted: bool,
}

impl Inside {
    /// Whether it may run, and the home knows it.
    fn is_live(&self) -> bool {
        !self.aborted && self.fate != Fate::Forgotten
    }
}

#[derive(Debug)]
struct Kept {
    call: CallId,
    failed: Option<u32>,
    body: Body,
}

impl Kept {
    fn cost(&self) -> u64 {
        RESULT_BYTES + self.body.len() as u64
    }
}

impl Serve {
    /// Without stream, worker or calls.
    pub fn new() -> Serve {
        Serve::default()
    }

    /// Takes in what happened; appends frames for the home to `home` (never more than it gave credit for).
    pub fn handle(&mut self, now: Tick, input: Input<'_>, home: &mut Vec<u8>, out: &mut Vec<Output>) {
        match input {
            Input::FromHome { header, body } => {
                return self.pass_on(now, header, body, |_, _| false, home, out);
            }
            Input::FromWorker { header, body } => self.hear_worker(now, header, body, out),
            Input::StreamUp(handle) => self.stream_up(handle),
            Input::StreamDown => self.stream_down(),
            Input::WorkerReady => self.worker = Worker::Serving,
            Input::WorkerGone { running, code, cause } => self.worker_gone(running, code, cause, home),
            Input::LeaseEnds { running, cause } => self.lease_ends(running, cause, home),
            Input::Time => self.kill_if_due(now, out),
        }
        self.send_results(home);
        self.send_credit(home);
    }

    /// As [`handle`](Serve::handle) of [`Input::FromHome`], with the worker's ring at hand: a call that is whole
    /// and has none before it goes in without being kept. `write` is as for [`write_worker`](Serve::write_worker).
    pub fn pass_on(
        &mut self,
        now: Tick,
        header: &Header,
        body: &[u8],
        mut write: impl FnMut(&[u8], &[u8]) -> bool,
        home: &mut Vec<u8>,
        out: &mut Vec<Output>,
    ) {
        if let Err(violation) = self.hear_home(now, header, body, &mut write, home, out) {
            self.stream = Stream::Closed;
            out.push(Output::Violation(violation));
        }
        self.send_results(home);
        self.send_credit(home);
    }

    /// Writes queued calls into the worker's ring: `write` takes a frame's header and body, both or nothing,
    /// and says whether it had room. To be called after each batch of frames from the home and when the
    /// ring has room again; without a worker it does nothing.
    pub fn write_worker(
        &mut self,
        now: Tick,
        mut write: impl FnMut(&[u8], &[u8]) -> bool,
        home: &mut Vec<u8>,
    ) {
        if self.worker != Worker::Serving {
            return;
        }
        if let Some(call) = self.abort {
            if !write(stream::cancel_header(Handle(0), call).bytes(), &[]) {
                return;
            }
            self.abort = None;
        }
        // Of a large call the worker reads while it arrives.
        while let Some(call) = self.queue.front_mut().or(self.partial.as_mut()) {
            let (rest, passed) = (call.rest(), call.passed);
            // Only a whole call may have an empty part: the only one of an empty argument.
            if rest.is_empty() && passed < call.extent.bytes as usize {
                break;
            }
            let part = &rest[..rest.len().min(WORKER_BODY_MAX)];
            let part_bytes = part.len();
            let more = passed + part_bytes < call.extent.bytes as usize;
            if !write(call.header(part_bytes, more).bytes(), part) {
                break;
            }
            call.pass(part_bytes);
            if !self.queue.is_empty() {
                self.queue_bytes -= part_bytes as u64;
            }
            if !more && let Some(call) = self.queue.pop_front() {
                self.left_queue(&call);
                self.went_in(now, &call);
            }
        }
        self.send_credit(home);
    }

    /// Whether the home waits to have calls back: [`withdraw`](Serve::withdraw) answers it.
    pub fn has_withdrawal(&self) -> bool {
        self.withdrawal.is_some()
    }

    /// Gives the home back those calls that it would have back and that have not begun. `claim` gets hold of
    /// the call at this place among those written into the ring and not answered, and says whether that
    /// came before its beginning; without a ring it says false.
    pub fn withdraw(&mut self, mut claim: impl FnMut(usize) -> bool, home: &mut Vec<u8>) {
        let Some((mut wanted, mut back)) = self.withdrawal.take() else { return };
        wanted.sort_unstable();
        for (place, inside) in self.inside.iter_mut().enumerate() {
            if inside.is_live() && wanted.binary_search(&inside.call).is_ok() && claim(place) {
                inside.fate = Fate::Forgotten;
                back.push(inside.call);
            }
        }
        if let Stream::Open(handle) = self.stream {
            let header = stream::withdraw_header(Kind::CallsWithdrawn, handle, back.len());
            let mut ids = Vec::with_capacity(8 * back.len());
            stream::put_ids(back, &mut ids);
            put_frame(home, header, &ids);
        }
    }

    /// Whether something stands ready for the ring.
    pub fn has_worker_output(&self) -> bool {
        let arrives = || self.partial.as_ref().is_some_and(|call| !call.rest().is_empty());
        self.worker == Worker::Serving && (!self.queue.is_empty() || self.abort.is_some() || arrives())
    }

    /// Whether frames may be taken out of the ring. When false, too many results await acknowledgement:
    /// leave them in the ring, so that the worker waits.
    pub fn wants_worker_input(&self) -> bool {
        self.gather.is_some() || (self.results_bytes < RETAINED_MAX && self.results.len() < RESULTS_MAX)
    }

    /// When to say [`Input::Time`], if nothing else happens.
    pub fn deadline(&self) -> Option<Tick> {
        self.watch.map(|watch| watch.at())
    }

    /// Bytes of arguments and results held, with what it costs to keep a result.
    pub fn held_bytes(&self) -> u64 {
        let partial = self.partial.as_ref().map_or(0, |call| call.rest().len());
        let gather = self.gather.as_ref().map_or(0, |(_, _, body)| body.len());
        self.queue_bytes + self.results_bytes + (partial + gather) as u64
    }

    /// Calls that are here and not answered.
    pub fn calls(&self) -> usize {
        self.places_taken() - self.inside.iter().filter(|inside| inside.fate == Fate::Forgotten).count()
    }

    /// The same, with those that the home does not count any more.
    fn places_taken(&self) -> usize {
        self.queue.len() + self.inside.len() + usize::from(self.partial.is_some())
    }

    fn stream_up(&mut self, handle: Handle) {
        self.stream_down();
        self.stream = if self.bound { Stream::Quiet(handle) } else { Stream::Open(handle) };
        self.bound = true;
        self.full_windows();
    }

    fn stream_down(&mut self) {
        self.stream = Stream::Down;
        self.withdrawal = None;
        self.drop_partial(Fate::Forgotten);
    }

    /// The call that arrives will not become whole. Returns it unless the worker has a part of it: then it is
    /// told, and its answer is that of the call.
    fn drop_partial(&mut self, fate: Fate) -> Option<Queued> {
        let partial = self.partial.take()?;
        self.owed += partial.charged;
        if partial.passed == 0 || partial.lost {
            return Some(partial);
        }
        self.abort = Some(partial.call);
        self.inside.push_back(Inside {
            call: partial.call,
            limit_ms: 0,
            repeatable: false,
            fate,
            aborted: true,
        });
        None
    }

    fn full_windows(&mut self) {
        (self.granted, self.owed, self.window) = (LEASE_WINDOW_BYTES, 0, LEASE_WINDOW_BYTES);
        (self.next, self.sent) = (0, 0);
    }

    /// The worker has the whole call.
    fn went_in(&mut self, now: Tick, call: &Queued) {
        self.inside.push_back(Inside {
            call: call.call,
            limit_ms: call.extent.limit_ms,
            repeatable: call.repeatable,
            fate: call.fate,
            aborted: false,
        });
        if self.inside.len() == 1 {
            self.new_head(now);
        }
    }

    /// Gives back what a call that left the queue has cost.
    fn left_queue(&mut self, call: &Queued) {
        self.queue_bytes -= call.rest().len() as u64;
        self.owed += call.charged;
        if call.advanced {
            self.advanced = false;
            // The next large call may now have its turn.
            if let Some(partial) = &mut self.partial {
                self.owed += core::mem::take(&mut partial.charged);
                partial.advanced = true;
            }
        }
    }

    /// Another call is at the head of the worker's queue, or none.
    fn new_head(&mut self, now: Tick) {
        self.watch = self
            .inside
            .front()
            .filter(|head| !head.aborted)
            .and_then(|head| Watch::over(head.call, head.limit_ms, head.fate != Fate::Wanted, now));
    }

    fn kill_if_due(&mut self, now: Tick, out: &mut Vec<Output>) {
        if let Some((call, code)) = self.watch.as_mut().and_then(|watch| watch.due(now)) {
            out.push(Output::KillWorker { call: Some(call), code });
        }
    }

    /// Keeps the answer to a call until it is acknowledged.
    fn answer(&mut self, call: CallId, fate: Fate, failed: Option<u32>, body: Body) {
        let kept = match fate {
            Fate::Wanted => Kept { call, failed, body },
            Fate::Cancelled => Kept { call, failed: Some(failure::CANCELLED), body: Body::from(&[][..]) },
            Fate::Forgotten => return,
        };
        self.results_bytes += kept.cost();
        self.results.push_back(kept);
    }

    fn send_results(&mut self, home: &mut Vec<u8>) {
        let Stream::Open(handle) = self.stream else { return };
        while let Some(kept) = self.results.get(self.next) {
            let whole = kept.body.bytes();
            let rest = &whole[self.sent..];
            let room = self.window.saturating_sub(HEADER_BYTES as u64).min(DATA_BODY_MAX as u64) as usize;
            let piece = rest.len().min(room);
            let fits = self.window >= HEADER_BYTES as u64
                && (piece == rest.len() || (piece >= PIECE_MIN && kept.failed.is_none()));
            if !fits {
                break;
            }
            let more = piece < rest.len();
            let header = match kept.failed {
                Some(code) => stream::failure_header(handle, kept.call, code, piece),
                None => stream::result_header(handle, kept.call, whole.len() as u64, piece, more),
            };
            put_frame(home, header, &rest[..piece]);
            self.window -= (HEADER_BYTES + piece) as u64;
            if more {
                self.sent += piece;
            } else {
                (self.next, self.sent) = (self.next + 1, 0);
            }
        }
    }

    fn send_credit(&mut self, home: &mut Vec<u8>) {
        if let Stream::Open(handle) = self.stream
            && self.owed >= LEASE_WINDOW_BYTES / 4
        {
            put_frame(home, stream::credit_header(handle, self.owed, 0), &[]);
            self.granted += core::mem::take(&mut self.owed);
        }
    }
}

/// Whether parts follow.
fn has_more(header: &Header) -> bool {
    header.has(flags::MORE)
}
