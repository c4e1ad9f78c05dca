//! A lease as the core keeps it, and the ring of a local one.

use super::options::LeaseState;
use mutirao_ring::{Bell, CallerEnd, Error as RingError, Ringer};
use mutirao_schedule::Receipts;
use mutirao_wire::frame::{Decoder, Header, flags};
use mutirao_wire::limits::{CALL_BYTES_MAX, DATA_BODY_MAX};
use mutirao_wire::local::LeaseInfo;
use mutirao_wire::{CallId, Tick};
use rustix::fs::{Mode, OFlags};
use std::collections::VecDeque;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

/// A lease held.
#[derive(Debug)]
pub(super) struct LeaseEntry {
    pub(super) info: LeaseInfo,
    pub(super) state: LeaseState,
    /// Its worker has served.
    pub(super) began: bool,
    /// The lender's name, for results and errors.
    pub(super) node: Arc<str>,
    /// Whether `Hold` knows it: it serves calls.
    pub(super) works: bool,
    pub(super) ring: Option<Ring>,
    /// What a remote lender is owed.
    pub(super) receipts: Receipts,
    pub(super) partial: Partial,
    /// Calls finished there.
    pub(super) finished: u64,
    /// When it was last of use.
    pub(super) used: Tick,
    /// It takes nothing new, and is about to be given back.
    pub(super) leaving: bool,
}

impl LeaseEntry {
    /// A lease just granted.
    pub(super) fn new(now: Tick, info: LeaseInfo, works: bool) -> LeaseEntry {
        LeaseEntry {
            state: LeaseState::Granted,
            began: false,
            node: info.lender.name.as_str().into(),
            works,
            ring: None,
            receipts: Receipts::default(),
            partial: Partial::default(),
            finished: 0,
            used: now,
            leaving: false,
            info,
        }
    }

    /// Whether its first worker is not there yet.
    pub(super) fn is_starting(&self) -> bool {
        !self.began && matches!(self.state, LeaseState::Granted | LeaseState::Fetching)
    }
}

/// A result that arrives in parts.
#[derive(Debug, Default)]
pub(super) struct Partial {
    call: Option<CallId>,
    bytes: Vec<u8>,
}

/// A whole result: its call, its failure code if it is one, its bytes.
pub(super) struct Whole {
    pub(super) call: CallId,
    pub(super) failed: Option<u32>,
    pub(super) bytes: Vec<u8>,
}

impl Partial {
    /// Takes a frame of a result; the whole result with its last part. `Err` says what is wrong with it.
    pub(super) fn take(&mut self, header: &Header, body: &[u8]) -> Result<Option<Whole>, &'static str> {
        let call = CallId(header.sequence.get());
        let total = header.extent.get();
        if total > CALL_BYTES_MAX {
            return Err("a result is longer than a call may return");
        }
        if *self.call.get_or_insert(call) != call {
            return Err("parts of two results are mixed");
        }
        if self.bytes.capacity() == 0 {
            // What is announced is not what will come: memory grows with what comes.
            self.bytes.reserve_exact((total as usize).min(4 * DATA_BODY_MAX));
        }
        self.bytes.extend_from_slice(body);
        let have = self.bytes.len() as u64;
        let more = header.has(flags::MORE);
        if have > total || (!more && have != total) || (more && body.is_empty()) {
            return Err("the parts of a result do not add up");
        }
        if more {
            return Ok(None);
        }
        let failed = header.has(flags::FAILED).then(|| header.aux.get());
        let Partial { bytes, .. } = std::mem::take(self);
        Ok(Some(Whole { call, failed, bytes }))
    }
}

/// Stands for a call that was withdrawn: no call is called so.
pub(super) const WITHDRAWN: CallId = CallId(0);

/// The caller's end of a local worker's ring.
#[derive(Debug)]
pub(super) struct Ring {
    pub(super) end: CallerEnd,
    pub(super) bell: Arc<Bell>,
    pub(super) decoder: Decoder,
    /// Calls written wholly or in part and not answered, oldest first: a worker answers in order. Those that
    /// were withdrawn are [`WITHDRAWN`]; their answers say nothing.
    pub(super) sent: VecDeque<CallId>,
    /// Calls answered.
    pub(super) answered: u64,
    /// Something was written and not yet shown to the worker.
    pub(super) dirty: bool,
    /// The call that the node was asked last to end the worker for.
    pub(super) killed_for: Option<CallId>,
}

impl Ring {
    /// Maps a ring that the node handed over: its memory, the worker's bell to ring, the reply bell to hear.
    /// `bells` are those in use: leases that share one share its object.
    pub(super) fn new(
        memory: OwnedFd,
        call_bell: OwnedFd,
        reply_bell: OwnedFd,
        bells: &[Arc<Bell>],
    ) -> Result<Ring, RingError> {
        let keeper = keeper(&call_bell);
        let end = CallerEnd::map(&memory, Ringer::from_fds(call_bell, keeper))?;
        let same = |bell: &&Arc<Bell>| same_file(&***bell, &reply_bell);
        let bell = bells.iter().find(same).cloned();
        Ok(Ring {
            end,
            bell: bell.unwrap_or_else(|| Arc::new(Bell::from(reply_bell))),
            decoder: Decoder::new(DATA_BODY_MAX),
            sent: VecDeque::new(),
            answered: 0,
            dirty: false,
            killed_for: None,
        })
    }

    /// Calls whose results the worker had ready but had not shown when it ended: they ran.
    pub(super) fn ended_unseen(&self) -> impl Iterator<Item = CallId> + use<> {
        let unseen = self.end.progress.finished().saturating_sub(self.answered);
        let calls: Vec<CallId> = self.sent.iter().copied().take(unseen as usize).collect();
        calls.into_iter().filter(|call| *call != WITHDRAWN)
    }

    /// Withdraws those of the calls that have not begun, and says which.
    pub(super) fn withdraw(&mut self, calls: &[CallId]) -> Vec<CallId> {
        let written = self.answered + self.sent.len() as u64;
        let mut withdrawn = Vec::new();
        for (place, sent) in self.sent.iter_mut().enumerate() {
            if calls.contains(sent) && self.end.progress.withdraw(self.answered + place as u64, written) {
                withdrawn.push(core::mem::replace(sent, WITHDRAWN));
            }
        }
        withdrawn
    }

    /// Withdraws all that has not begun, and says which call began last, if it has no result yet. Its worker may
    /// be alive: the lease may be given back, or the node that would end the worker be gone.
    pub(super) fn close(&mut self) -> Option<CallId> {
        let written = self.answered + self.sent.len() as u64;
        let mut has_withdrawn = false;
        for (place, sent) in self.sent.iter_mut().enumerate() {
            if self.end.progress.withdraw(self.answered + place as u64, written) {
                *sent = WITHDRAWN;
                has_withdrawn = true;
            }
        }
        let unseen = self.end.progress.finished().saturating_sub(self.answered);
        let begun = self.sent.iter().skip(unseen as usize).rfind(|call| **call != WITHDRAWN);
        // Otherwise there was nothing to be withdrawn, or too much: then the ring says what runs.
        begun.copied().filter(|_| has_withdrawn).or_else(|| self.running())
    }

    /// A worker has answered; whether somebody waits for that.
    pub(super) fn is_awaited(&mut self, call: CallId) -> bool {
        self.answered += 1;
        if self.sent.front() == Some(&WITHDRAWN) {
            self.sent.pop_front();
            return false;
        }
        if let Some(place) = self.sent.iter().position(|sent| *sent == call) {
            self.sent.remove(place);
        }
        true
    }

    pub(super) fn running(&self) -> Option<CallId> {
        self.end.progress.running().map(CallId)
    }
}

/// A reader of the worker's bell held by the caller: ringing for a worker that has ended then raises no signal,
/// which a program that does not ignore broken pipes would die of.
fn keeper(bell: &OwnedFd) -> Option<OwnedFd> {
    let path = format!("/proc/self/fd/{}", bell.as_raw_fd());
    rustix::fs::open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty()).ok()
}

fn same_file(a: impl std::os::fd::AsFd, b: impl std::os::fd::AsFd) -> bool {
    match (rustix::fs::fstat(a), rustix::fs::fstat(b)) {
        (Ok(a), Ok(b)) => (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mutirao_wire::Handle;
    use mutirao_wire::stream::result_header;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_result_cut_anywhere_is_put_together(
            bytes in prop::collection::vec(any::<u8>(), 0..3000),
            part in 1usize..700,
        ) {
            let mut partial = Partial::default();
            let mut chunks = bytes.chunks(part).peekable();
            let mut whole = None;
            let first = chunks.next().unwrap_or_default();
            let mut next = Some(first);
            while let Some(chunk) = next {
                prop_assert!(whole.is_none());
                let more = chunks.peek().is_some();
                let header = result_header(Handle(1), CallId(7), bytes.len() as u64, chunk.len(), more);
                whole = partial.take(&header, chunk).unwrap();
                next = chunks.next();
            }
            let whole = whole.unwrap();
            prop_assert_eq!((whole.call, whole.failed), (CallId(7), None));
            prop_assert_eq!(whole.bytes, bytes);
        }

        #[test]
        fn no_frames_make_it_hold_more_than_was_announced(
            frames in prop::collection::vec((0u64..3, 0u64..200, 0usize..100, any::<bool>()), 1..30),
        ) {
            let mut partial = Partial::default();
            for (call, total, length, more) in frames {
                let header = result_header(Handle(1), CallId(call), total, length, more);
                match partial.take(&header, &vec![0; length]) {
                    Ok(Some(whole)) => prop_assert_eq!(whole.bytes.len() as u64, total),
                    Ok(None) => prop_assert!(more && partial.bytes.len() as u64 <= total),
                    // Whoever sent this is not listened to any more.
                    Err(_) => return Ok(()),
                }
            }
        }
    }
}
