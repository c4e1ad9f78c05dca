//! Pools under faults, thousands of seeds. A seed that fails is replayed with
//! `MUTIRAO_SEED=<seed> cargo test -p mutirao-sim --test faults`.

use mutirao_sim::{Plan, run_faults};
use std::sync::atomic::{AtomicU64, Ordering};

const SEEDS: u64 = 2000;

/// Runs one seed; what did not hold, if anything.
fn failure(seed: u64) -> Option<String> {
    let plan = Plan::new(seed);
    let ran = std::panic::catch_unwind(|| run_faults(&plan).map(|_| ()));
    let why = match ran {
        Ok(Ok(())) => return None,
        Ok(Err(why)) => why,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            text.or(panic.downcast_ref::<&str>().map(|s| s.to_string())).unwrap_or_default()
        }
    };
    println!("{}   # {why}", plan.replay());
    Some(why)
}

#[test]
fn after_faults_a_pool_is_whole_again() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (first, count) = match number("MUTIRAO_SEED") {
        Some(seed) => (seed, 1),
        None => (0, number("MUTIRAO_SEEDS").unwrap_or(SEEDS)),
    };
    let next = AtomicU64::new(first);
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let failed: Vec<u64> = std::thread::scope(|scope| {
        let work = || {
            let mut failed = Vec::new();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= first + count {
                    return failed;
                }
                failed.extend(failure(seed).map(|_| seed));
            }
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("failures are caught")).collect()
    });
    assert!(
        failed.is_empty(),
        "{} seeds failed: {failed:?}; each is replayed as printed above",
        failed.len()
    );
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 0..12 {
        let mut plan = Plan::new(seed);
        plan.options.keep_trace = true;
        let (a, b) = (run_faults(&plan).unwrap(), run_faults(&plan).unwrap());
        assert_eq!(a.trace, b.trace, "seed {seed}");
        assert_eq!(a.fingerprint(), b.fingerprint());
        // Watching changes nothing.
        plan.options.keep_trace = false;
        assert_eq!(run_faults(&plan).unwrap().fingerprint(), a.fingerprint());
        let other = run_faults(&Plan::new(seed + 1000)).unwrap();
        assert_ne!(a.fingerprint(), other.fingerprint());
    }
}
