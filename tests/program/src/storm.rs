//! Many threads that use one pool at random, and in the end an account of every call.

use mutirao::raw::{Call, CallErrorKind, CallOptions, CallResult, Deliver, Finished, Pool, Request};
use mutirao::{Error, LeaseKey, Options, Slots};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake};
use std::time::{Duration, Instant};

const THREADS: u64 = 8;
/// Calls that one thread has under way, at most.
const OPEN_MAX: usize = 40;
/// Calls of one run, at most.
const CALLS_MAX: usize = 1 << 20;
/// A call that takes longer than this hangs.
const PATIENCE: Duration = Duration::from_secs(30);

/// What all threads keep together.
struct Sky {
    pool: Pool,
    next: AtomicU64,
    /// How often each call of which a callback or the queue tells has ended.
    ends: Vec<AtomicU8>,
    /// Those of them that were submitted.
    told: AtomicU64,
    over: AtomicBool,
    account: Mutex<BTreeMap<String, u64>>,
}

/// A call in a thread's hands.
struct Open {
    call: Call,
    number: u64,
    /// Its result comes by the handle.
    mine: bool,
    cancelled: bool,
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as usize % limit
    }
}

/// Rages for so long. `by_hand`: threads also take and give back slots.
pub fn storm(span: Duration, by_hand: bool) -> Result<Value, Error> {
    let slots = if by_hand { Slots::ByHand } else { Slots::default() };
    let pool = Pool::open(Options { slots, ..Options::default() })?;
    if by_hand {
        // One is never given back, so that there is always something to run on.
        pool.allocate(&Request { at_least: 1, ..Request::slots(1) })?;
    }
    let ends = (0..CALLS_MAX).map(|_| AtomicU8::new(0)).collect();
    let (next, told) = (AtomicU64::new(0), AtomicU64::new(0));
    let (over, account) = (AtomicBool::new(false), Mutex::default());
    let sky = Arc::new(Sky { pool, next, ends, told, over, account });
    let until = Instant::now() + span;
    std::thread::scope(|scope| -> Result<(), Error> {
        let listener = scope.spawn(|| take_finished(&sky));
        let threads: Vec<_> = (0..THREADS)
            .map(|seed| {
                scope.spawn({
                    let sky = &sky;
                    move || rage(sky, seed, until, by_hand)
                })
            })
            .collect();
        let results: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
        let settled = until + PATIENCE;
        let ended = || sky.ends.iter().map(|ends| u64::from(ends.load(Ordering::SeqCst) > 0)).sum::<u64>();
        while ended() < sky.told.load(Ordering::SeqCst) && Instant::now() < settled {
            std::thread::sleep(Duration::from_millis(10));
        }
        sky.over.store(true, Ordering::SeqCst);
        listener.join().expect("no thread panics");
        results.into_iter().try_for_each(|result| result.expect("no thread panics"))
    })?;
    let counts = sky.pool.counts();
    sky.pool.close();
    let ends: u64 = sky.ends.iter().map(|ends| u64::from(ends.load(Ordering::SeqCst))).sum();
    let twice = sky.ends.iter().filter(|ends| ends.load(Ordering::SeqCst) > 1).count();
    let account = std::mem::take(&mut *sky.account.lock().expect("no thread panics"));
    Ok(json!({
        "submitted": counts.submitted, "done": counts.done, "to_be_told": sky.told.load(Ordering::SeqCst),
        "told": ends, "told_twice": twice, "outcomes": account,
    }))
}

fn rage(sky: &Arc<Sky>, seed: u64, until: Instant, by_hand: bool) -> Result<(), Error> {
    let mut random = Random((seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut open: Vec<Open> = Vec::new();
    let mut leases: Vec<LeaseKey> = Vec::new();
    while Instant::now() < until {
        match random.below(16) {
            0..=6 if open.len() < OPEN_MAX => open.extend(sky.submit(&mut random)?),
            7 | 8 if !open.is_empty() => {
                let at = random.below(open.len());
                open[at].cancelled = true;
                open[at].call.cancel();
            }
            9 if !open.is_empty() => drop(open.swap_remove(random.below(open.len()))),
            10 if !open.is_empty() => {
                let some: Vec<&Call> = open.iter().map(|open| &open.call).take(5).collect();
                let timeout = Some(Duration::from_micros(random.below(3000) as u64));
                sky.pool.wait_any(&some, timeout);
                sky.pool.wait_all(&some, timeout);
            }
            11 if by_hand && leases.len() < 2 => {
                leases.extend(sky.pool.allocate(&Request::slots(1 + random.below(2) as u32))?.leases);
            }
            12 if !leases.is_empty() => {
                let lease = leases.swap_remove(random.below(leases.len()));
                sky.pool.release(&[lease])?;
            }
            13 if !open.is_empty() => {
                // Whatever is woken, asking must do no harm.
                let at = random.below(open.len());
                let waker = Arc::new(Nobody).into();
                if open[at].mine
                    && let Poll::Ready(result) = open[at].call.poll_result(&mut Context::from_waker(&waker))
                {
                    sky.note(open.swap_remove(at), result);
                }
            }
            _ if !open.is_empty() => {
                let at = random.below(open.len());
                let timeout = Duration::from_micros(random.below(5000) as u64);
                if open[at].mine
                    && let Some(result) = open[at].call.wait_timeout(timeout)
                {
                    sky.note(open.swap_remove(at), result);
                }
            }
            _ => {}
        }
    }
    for mut open in open {
        if !sky.pool.wait_all(&[&open.call], Some(PATIENCE)) {
            sky.count("hung");
        } else if open.mine {
            let result = open.call.wait();
            sky.note(open, result);
        }
    }
    Ok(())
}

impl Sky {
    fn submit(self: &Arc<Self>, random: &mut Random) -> Result<Option<Open>, Error> {
        let number = self.next.fetch_add(1, Ordering::SeqCst);
        if number >= CALLS_MAX as u64 {
            return Ok(None);
        }
        let small = (number & 0x7f) as u8;
        let (operation, argument) = match random.below(8) {
            0 => ("sleep", vec![small, random.below(10) as u8]),
            1 => ("sleep_once", vec![small, random.below(10) as u8]),
            2 => ("spin", vec![small, random.below(100) as u8]),
            _ => ("echo", vec![1, small]),
        };
        let sky = self.clone();
        let (deliver, mine) = match random.below(3) {
            0 => (Deliver::Handle, true),
            1 => (Deliver::Queue, false),
            _ => (Deliver::Callback(Box::new(move |finished| sky.told(&finished))), false),
        };
        if !mine {
            self.told.fetch_add(1, Ordering::SeqCst);
        }
        let options = CallOptions { deliver, tag: number, ..CallOptions::default() };
        let call = self.pool.submit(self.pool.operation(operation)?, argument, options)?;
        Ok(Some(Open { call, number, mine, cancelled: false }))
    }

    fn told(&self, finished: &Finished) {
        self.ends[finished.tag as usize].fetch_add(1, Ordering::SeqCst);
        self.check(finished.tag, &finished.result, true);
    }

    /// A result that a handle gave. It gives it once.
    fn note(&self, mut open: Open, result: CallResult) {
        self.check(open.number, &result, open.cancelled);
        match open.call.try_result() {
            Some(Err(error)) if error.kind == CallErrorKind::Taken => {}
            _ => self.count("given twice"),
        }
    }

    fn check(&self, number: u64, result: &CallResult, may_be_cancelled: bool) {
        let small = (number & 0x7f) as u8;
        match result {
            // Either what was sent or, where the worker tells of itself, first the number.
            Ok(bytes) if bytes[..] == [1, small] || (bytes.len() > 2 && bytes[0] == small) => {
                self.count("right")
            }
            Ok(_) => self.count("wrong"),
            Err(error) if error.kind == CallErrorKind::Cancelled && !may_be_cancelled => {
                self.count("cancelled by nobody");
            }
            Err(error) => self.count(&format!("{:?}", error.kind)),
        }
    }

    fn count(&self, what: &str) {
        *self.account.lock().expect("no thread panics").entry(what.to_owned()).or_default() += 1;
    }
}

/// Takes what comes by the queue.
fn take_finished(sky: &Sky) {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    while !sky.over.load(Ordering::SeqCst) {
        let event = sky.pool.event_fd();
        let timeout = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
        // An interrupted wait is a short one.
        let _ = poll(&mut [PollFd::new(&event, PollFlags::IN)], Some(&timeout));
        while let Some(finished) = sky.pool.next_finished() {
            sky.told(&finished);
        }
    }
}

struct Nobody;

impl Wake for Nobody {
    fn wake(self: Arc<Self>) {}
}
