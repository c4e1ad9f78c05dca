mod claims;
mod hostile;
mod model;
mod spinning;
mod stress;

use crate::{Bell, CallerEnd, RingMemory, WorkerEnd};

/// Both ends of a ring in one process, mapped separately as in two.
struct Pair {
    memory: RingMemory,
    caller: CallerEnd,
    worker: WorkerEnd,
    /// Hears for the worker.
    call_bell: Bell,
    /// Hears for the caller.
    reply_bell: Bell,
}

fn pair(capacity_bytes: usize) -> Pair {
    let memory = RingMemory::create(capacity_bytes).unwrap();
    let (call_bell, call_ringer) = Bell::pair().unwrap();
    let (reply_bell, reply_ringer) = Bell::pair().unwrap();
    let caller = CallerEnd::map(&memory, call_ringer).unwrap();
    let worker = WorkerEnd::map(&memory, reply_ringer).unwrap();
    Pair { memory, caller, worker, call_bell, reply_bell }
}

/// A cheap generator with a seed, so that a failure can be repeated.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}
