//! Calls that are withdrawn while the worker takes them.
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Dice, pair};

const CALLS: u64 = 60_000;

#[test]
fn a_call_is_begun_or_withdrawn_and_never_both() {
    let pair = pair(4096);
    let (mut progress, report) = (pair.worker.progress, pair.caller.progress);
    let shown = AtomicU64::new(0);
    let (begun, withdrawn) = std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            let mut begun = Vec::new();
            for call in 0..CALLS {
                while shown.load(Ordering::Acquire) <= call {
                    std::thread::yield_now();
                }
                if progress.claim() {
                    progress.begin(call + 1, 0);
                    begun.push(call);
                }
                progress.end();
            }
            begun
        });
        let mut dice = Dice(7);
        let (mut written, mut withdrawn) = (0, Vec::new());
        while report.finished() < CALLS {
            if written - report.finished() < 4_000 {
                written = (written + dice.roll(300)).min(CALLS);
                shown.store(written, Ordering::Release);
            }
            for _ in 0..8 {
                let call = report.finished() + dice.roll(200);
                if report.withdraw(call, written) {
                    withdrawn.push(call);
                }
            }
        }
        (worker.join().unwrap(), withdrawn)
    });
    assert!(!withdrawn.is_empty() && !begun.is_empty());
    let mut all: Vec<u64> = begun.into_iter().chain(withdrawn).collect();
    all.sort_unstable();
    assert!(all.iter().copied().eq(0..CALLS), "{} of {CALLS} calls", all.len());
}

#[test]
fn what_is_not_in_the_ring_or_too_far_ahead_is_not_withdrawn() {
    let pair = pair(4096);
    let report = pair.caller.progress;
    assert!(!report.withdraw(3, 3), "it was not written");
    assert!(report.withdraw(2, 3));
    assert!(!report.withdraw(2, 3), "only once");
    assert!(!report.withdraw(2, 10_000), "too many calls are in the ring");
}
