//! Writes down what this process does with its channels, for whoever started it.
//!
//! Each entry leaves with one write, so that whatever ends the process, all that it did before is told. A write waits
//! for whoever reads: a record slows a process down, and takes no memory.

use super::Error;
use super::error::mode;
use mutirao_group::record::{Call, Depth, Entry, Failure, Message, Outcome};
use mutirao_wire::prefixed::LENGTH_BYTES;
use rustix::io::Errno;
use rustix::net::{SendFlags, sendmsg};
use std::collections::HashMap;
use std::io::IoSlice;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Entries that tell of nothing are gathered: after so many of one call, the next tells of as many more.
const GATHERED_MAX: u64 = 1 << 20;

/// The record of this process.
#[derive(Debug)]
pub(super) struct Recorder {
    depth: Depth,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Gone when nobody reads.
    socket: Option<OwnedFd>,
    /// Calls that have come to nothing since they came to something: as was told, and since then.
    empty: HashMap<Call, (u64, u64)>,
}

/// When a call began.
#[derive(Debug, Clone, Copy)]
pub(super) struct Began {
    at_ns: u64,
    at: Instant,
}

impl Began {
    pub(super) fn now() -> Began {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Began { at_ns: since_1970.as_nanos() as u64, at: Instant::now() }
    }
}

/// A message without its bytes.
pub(super) fn message(bytes: &[u8]) -> Message {
    let hash = *blake3::hash(bytes).as_bytes();
    let first = hash.first_chunk().copied().unwrap_or_default();
    Message { length: bytes.len() as u64, hash: u64::from_le_bytes(first) }
}

/// This thread's number among those that use channels.
fn thread() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    std::thread_local!(static NUMBER: u32 = NEXT.fetch_add(1, Ordering::Relaxed));
    NUMBER.with(|number| *number)
}

impl Recorder {
    /// Writes to this stream socket.
    pub(super) fn new(socket: OwnedFd, depth: Depth) -> Recorder {
        Recorder { depth, state: Mutex::new(State { socket: Some(socket), empty: HashMap::new() }) }
    }

    /// Writes down a call that has returned, with the bytes it has received.
    pub(super) fn note(
        &self,
        began: Began,
        call: Call,
        outcome: Outcome,
        sent: Option<Message>,
        received: Option<&[u8]>,
    ) {
        let body = received.filter(|_| self.depth == Depth::Messages).unwrap_or_default();
        let entry = Entry {
            at_ns: began.at_ns,
            took_ns: began.at.elapsed().as_nanos() as u64,
            thread: thread(),
            call,
            outcome,
            message: sent.or_else(|| received.map(message)),
            body_bytes: body.len() as u64,
        };
        self.state.lock().unwrap_or_else(PoisonError::into_inner).note(entry, body);
    }
}

impl State {
    fn note(&mut self, entry: Entry, body: &[u8]) {
        if entry.outcome == Outcome::Nothing(1) {
            let (told, since) = self.empty.entry(entry.call).or_default();
            *since += 1;
            if *since < (*told).min(GATHERED_MAX) {
                return;
            }
            let times = std::mem::take(since);
            *told += times;
            return self.write(&Entry { outcome: Outcome::Nothing(times), ..entry }, &[]);
        }
        let is_last = entry.call == Call::Close;
        let untold: Vec<(Call, (u64, u64))> =
            self.empty.extract_if(|call, _| is_last || *call == entry.call).collect();
        for (call, (_, since)) in untold.into_iter().filter(|(_, (_, since))| *since > 0) {
            let outcome = Outcome::Nothing(since);
            self.write(
                &Entry { call, outcome, took_ns: 0, message: None, body_bytes: 0, ..entry.clone() },
                &[],
            );
        }
        self.write(&entry, body);
    }

    fn write(&mut self, entry: &Entry, body: &[u8]) {
        let mut head = Vec::with_capacity(LENGTH_BYTES + 64);
        entry.put(&mut head);
        let (mut head, mut body) = (&head[..], body);
        while let Some(socket) = self.socket.as_ref().filter(|_| !head.is_empty() || !body.is_empty()) {
            let parts = [IoSlice::new(head), IoSlice::new(body)];
            match sendmsg(socket, &parts, &mut Default::default(), SendFlags::NOSIGNAL) {
                Ok(count) => {
                    let of_head = count.min(head.len());
                    (head, body) = (&head[of_head..], &body[count - of_head..]);
                }
                Err(Errno::INTR) => {}
                // Whoever started this process is gone, and it will soon follow.
                Err(_) => self.socket = None,
            }
        }
    }
}

/// A failure, as it is written down.
pub(super) fn failure(error: &Error) -> Failure {
    match error {
        Error::Ended { .. } => Failure::Ended,
        Error::PeerLost { peer, text, .. } => Failure::PeerLost { peer: peer.clone(), text: text.clone() },
        Error::Damaged { peer, text, .. } => Failure::Damaged { peer: peer.clone(), text: text.clone() },
        Error::Nonsense { peer, why, .. } => Failure::Damaged { peer: peer.clone(), text: why.to_string() },
        Error::TooLong { length, .. } => Failure::TooLong(*length),
        Error::Mixed { here, peer, .. } => Failure::Mixed { here: mode(here), peer: peer.clone() },
        Error::MixedHere { here, .. } => Failure::MixedHere(mode(here)),
        Error::GroupLost { .. } => Failure::GroupLost,
        other => Failure::Other(other.to_string()),
    }
}
