//! A ring and the worker behind it.

use super::ledger::{self, operation};
use crate::random::Random;
use core::time::Duration;
use mutirao_wire::frame::{HEADER_BYTES, Header, flags};
use mutirao_wire::kind::Kind;
use mutirao_wire::limits::DATA_BODY_MAX;
use mutirao_wire::stream::{failure, failure_header, result_header};
use mutirao_wire::{AppId, CallId, Handle};
use std::collections::VecDeque;

/// Bytes of calls that a ring takes.
const RING_BYTES: usize = 64 * 1024;

pub(super) type Frame = (Header, Vec<u8>);

/// Memory that a worker and its caller share: the library, or the lender for a home elsewhere.
pub(super) struct Ring {
    /// Whose calls it carries.
    pub(super) app: AppId,
    /// The lender, and its lease.
    pub(super) node: usize,
    pub(super) serial: u64,
    /// Whether the caller is the program itself.
    pub(super) local: bool,
    /// The worker lives.
    pub(super) alive: bool,
    /// The caller has let go of it.
    pub(super) parted: bool,
    /// The worker has something to do, and is about to do it.
    pub(super) busy: bool,
    /// The caller will hear that something has changed.
    pub(super) rung: bool,
    pub(super) replies: VecDeque<Frame>,
    calls: VecDeque<Written>,
    bytes: usize,
    partial: Option<Frame>,
    running: Option<Frame>,
}

struct Written {
    frame: Frame,
    /// The caller has taken the call back.
    withdrawn: bool,
}

/// What a worker does next.
pub(super) enum Step {
    /// It has begun a call, which takes so long.
    Runs(CallId, Duration),
    /// It ends with the call it has begun.
    Crashes(CallId),
    /// It waits for calls.
    Rests,
}

fn call_of(header: &Header) -> CallId {
    CallId(header.sequence.get())
}

fn is_whole(frame: &Frame) -> bool {
    !frame.0.has(flags::MORE)
}

impl Ring {
    pub(super) fn new(app: AppId, node: usize, serial: u64, local: bool) -> Ring {
        Ring {
            app,
            node,
            serial,
            local,
            alive: true,
            parted: false,
            busy: false,
            rung: false,
            replies: VecDeque::new(),
            calls: VecDeque::new(),
            bytes: 0,
            partial: None,
            running: None,
        }
    }

    /// Bytes free.
    pub(super) fn room(&self) -> u64 {
        (RING_BYTES - self.bytes) as u64
    }

    /// Writes a frame, if it fits.
    pub(super) fn put(&mut self, header: Header, body: &[u8]) -> bool {
        let cost = HEADER_BYTES + body.len();
        let fits = self.bytes + cost <= RING_BYTES;
        if fits {
            self.bytes += cost;
            self.calls.push_back(Written { frame: (header, body.to_vec()), withdrawn: false });
        }
        fits
    }

    /// Something is there for the worker.
    pub(super) fn has_calls(&self) -> bool {
        !self.calls.is_empty()
    }

    /// The call that runs.
    pub(super) fn running(&self) -> Option<CallId> {
        self.running.as_ref().map(|(header, _)| call_of(header))
    }

    /// Takes back those of the calls that are there whole and have not begun.
    pub(super) fn withdraw(&mut self, calls: impl Fn(CallId) -> bool) -> Vec<CallId> {
        let mut back = Vec::new();
        for written in &mut self.calls {
            let call = call_of(&written.frame.0);
            let is_call = written.frame.0.kind.get() == Kind::Call as u16;
            if is_call && is_whole(&written.frame) && !written.withdrawn && calls(call) {
                written.withdrawn = true;
                back.push(call);
            }
        }
        back
    }

    /// Takes back the call at this place among those written whole and not answered, if it has not begun.
    pub(super) fn claim(&mut self, place: usize) -> bool {
        let answered = self.replies.iter().filter(|reply| is_whole(reply)).count();
        let Some(place) = place.checked_sub(answered + usize::from(self.running.is_some())) else {
            return false;
        };
        let whole = self.calls.iter_mut().filter(|written| is_whole(&written.frame));
        let mut calls = whole.filter(|written| written.frame.0.kind.get() == Kind::Call as u16);
        calls.nth(place).is_some_and(|written| !core::mem::replace(&mut written.withdrawn, true))
    }

    /// The worker finishes what it runs, if anything, and goes on.
    pub(super) fn step(&mut self, random: &mut Random) -> Step {
        if let Some((header, argument)) = self.running.take() {
            self.reply(&header, ledger::answer(header.aux.get(), &argument));
        }
        while let Some(Written { frame: (header, body), withdrawn }) = self.calls.pop_front() {
            self.bytes -= HEADER_BYTES + body.len();
            let begun = self.partial.take();
            if header.kind.get() == Kind::Cancel as u16 {
                let (begun, _) = begun.expect("a cancelled call was sent in part");
                assert_eq!(begun.sequence, header.sequence, "another call was cancelled");
                self.reply(&begun, Err(failure::CANCELLED));
                continue;
            }
            let mut whole = begun.map(|(_, bytes)| bytes).unwrap_or_default();
            whole.extend(body);
            if header.has(flags::MORE) {
                self.partial = Some((header, whole));
            } else if withdrawn {
                self.reply(&header, Err(failure::CANCELLED));
            } else {
                let call = call_of(&header);
                assert_eq!(
                    whole,
                    ledger::argument(call, whole.len()),
                    "the argument of {call:?} was changed"
                );
                let operation = header.aux.get();
                self.running = Some((header, whole));
                if operation == operation::CRASH {
                    return Step::Crashes(call);
                }
                return Step::Runs(call, operation::time(operation, random));
            }
        }
        Step::Rests
    }

    fn reply(&mut self, call: &Header, answer: Result<Vec<u8>, u32>) {
        let id = call_of(call);
        match answer {
            Err(code) => self.replies.push_back((failure_header(Handle(0), id, code, 0), Vec::new())),
            Ok(bytes) => {
                let total = bytes.len() as u64;
                let parts: Vec<&[u8]> =
                    if bytes.is_empty() { vec![&[]] } else { bytes.chunks(DATA_BODY_MAX).collect() };
                let last = parts.len() - 1;
                for (n, part) in parts.into_iter().enumerate() {
                    let header = result_header(Handle(0), id, total, part.len(), n < last);
                    self.replies.push_back((header, part.to_vec()));
                }
            }
        }
    }
}
