use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::memory::{
    CALL_WORDS, CLAIMS, CLAIMS_COUNT, FINISHED, HEADER_BYTES, OPERATION, REPLY_WORDS, RUNNING, map_ring,
};
use crate::pipe::{Consumer, Pipe, Producer};
use crate::shm::Shared;
use crate::{Error, Ringer};

/// The end of a ring held by the process that calls: the client library, or the node for a remote caller.
///
/// The parts may be taken apart and used by different threads.
#[derive(Debug)]
pub struct CallerEnd {
    /// Takes calls to the worker.
    pub calls: Producer,
    /// Brings replies from the worker.
    pub replies: Consumer,
    /// What the worker says it is doing.
    pub progress: ProgressReport,
}

/// The end of a ring held by the worker.
///
/// The parts may be taken apart and used by different threads.
#[derive(Debug)]
pub struct WorkerEnd {
    /// Brings calls from the caller.
    pub calls: Consumer,
    /// Takes replies to the caller.
    pub replies: Producer,
    /// Where this worker says what it is doing.
    pub progress: Progress,
}

impl CallerEnd {
    /// Checks and maps a ring. `worker` rings the worker's bell. Each end is mapped once in the life of a ring:
    /// a broken ring is replaced, not resumed.
    pub fn map(memory: impl AsFd, worker: Ringer) -> Result<Self, Error> {
        let (call, reply, shared) = pipes(memory, worker)?;
        Ok(Self {
            calls: Producer::new(call),
            replies: Consumer::new(reply),
            progress: ProgressReport { shared },
        })
    }
}

impl WorkerEnd {
    /// Checks and maps a ring. `caller` rings the caller's bell. Each end is mapped once in the life of a ring.
    pub fn map(memory: impl AsFd, caller: Ringer) -> Result<Self, Error> {
        let (call, reply, shared) = pipes(memory, caller)?;
        Ok(Self {
            calls: Consumer::new(call),
            replies: Producer::new(reply),
            progress: Progress { shared, finished: 0 },
        })
    }
}

fn pipes(memory: impl AsFd, peer: Ringer) -> Result<(Pipe, Pipe, Arc<Shared>), Error> {
    let (shared, capacity) = map_ring(memory)?;
    let (shared, peer) = (Arc::new(shared), Arc::new(peer));
    let pipe = |name, words, data| {
        let (shared, peer) = (shared.clone(), Some(peer.clone()));
        Pipe { name, words, data, capacity, shared, peer }
    };
    let call = pipe("call", CALL_WORDS, HEADER_BYTES);
    let reply = pipe("reply", REPLY_WORDS, HEADER_BYTES + capacity);
    Ok((call, reply, shared))
}

/// Says in the shared memory which call runs, so that it can still be read after a crash.
#[derive(Debug)]
pub struct Progress {
    shared: Arc<Shared>,
    finished: u64,
}

/// So many calls may be in a ring for one of them to be withdrawn.
const WITHDRAW_MAX: u64 = CLAIMS_COUNT / 2 - 64;

/// The word and the bit of the call that is the so manieth of its ring.
fn claim_of(index: u64) -> (usize, u64) {
    let place = index % CLAIMS_COUNT;
    (CLAIMS + (place / 64 * 8) as usize, 1 << (place % 64))
}

impl Progress {
    /// Gets hold of the next call of the ring; false if the caller has withdrawn it: it must not run, and is
    /// answered with anything. To be called once for each call, just before [`begin`](Progress::begin).
    pub fn claim(&mut self) -> bool {
        let index = self.finished;
        if index.is_multiple_of(64) {
            // Bits are used again; the caller does not look so far ahead.
            self.shared.word(claim_of(index + CLAIMS_COUNT / 2).0).store(0, Ordering::Relaxed);
        }
        let (word, bit) = claim_of(index);
        self.shared.word(word).fetch_or(bit, Ordering::AcqRel) & bit == 0
    }

    /// Call `id` (not 0) of `operation` begins.
    pub fn begin(&mut self, id: u64, operation: u32) {
        self.shared.word(OPERATION).store(operation.into(), Ordering::Relaxed);
        self.shared.word(RUNNING).store(id, Ordering::Release);
    }

    /// The running call has ended.
    pub fn end(&mut self) {
        self.finished += 1;
        self.shared.word(FINISHED).store(self.finished, Ordering::Release);
        self.shared.word(RUNNING).store(0, Ordering::Release);
    }
}

/// Reads what the worker says in the shared memory. A hint, which only the worker itself suffers from if wrong.
#[derive(Debug)]
pub struct ProgressReport {
    shared: Arc<Shared>,
}

impl ProgressReport {
    /// The call that runs, or ran when the worker ended.
    pub fn running(&self) -> Option<u64> {
        Some(self.shared.word(RUNNING).load(Ordering::Acquire)).filter(|&id| id != 0)
    }

    /// The operation of the call that runs, or ran when the worker ended, as the caller numbers it.
    pub fn operation(&self) -> Option<u32> {
        self.running()?;
        u32::try_from(self.shared.word(OPERATION).load(Ordering::Relaxed)).ok()
    }

    /// Withdraws a call, the `index`th of the `written` ever begun to be written into this ring, from 0. True:
    /// the worker has not begun it and will not. False: it has, or may have. The caller writes nothing
    /// meanwhile.
    pub fn withdraw(&self, index: u64, written: u64) -> bool {
        let finished = self.finished();
        if index < finished || index >= written || written - finished > WITHDRAW_MAX {
            return false;
        }
        let (word, bit) = claim_of(index);
        self.shared.word(word).fetch_or(bit, Ordering::AcqRel) & bit == 0
    }

    /// How many calls have ended.
    pub fn finished(&self) -> u64 {
        self.shared.word(FINISHED).load(Ordering::Acquire)
    }
}
