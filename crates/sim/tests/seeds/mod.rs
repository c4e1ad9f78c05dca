//! Runs simulations of many seeds on all cores.

use std::panic::{UnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Runs `run`; a panic is what did not hold.
pub fn caught<T>(run: impl FnOnce() -> Result<T, String> + UnwindSafe) -> Result<T, String> {
    catch_unwind(run).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        Err(text.or(panic.downcast_ref::<&str>().map(|s| s.to_string())).unwrap_or_default())
    })
}

/// Runs each seed and returns what came of all: so many from 0, or MUTIRAO_SEEDS, or the one that MUTIRAO_SEED names.
///
/// # Panics
///
/// With the seeds that failed.
pub fn all<T: Send>(count: u64, run: impl Fn(u64) -> Result<T, String> + Sync) -> Vec<T> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (first, count) = match number("MUTIRAO_SEED") {
        Some(seed) => (seed, 1),
        None => (0, number("MUTIRAO_SEEDS").unwrap_or(count)),
    };
    let next = AtomicU64::new(first);
    let (done, failed) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, |n| n.get()) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count {
                        return;
                    }
                    match run(seed) {
                        Ok(what) => done.lock().expect("nobody panics with it").push(what),
                        Err(_) => failed.lock().expect("nobody panics with it").push(seed),
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect("nobody panics with it");
    assert!(
        failed.is_empty(),
        "{} seeds failed: {failed:?}; each is replayed as printed above",
        failed.len()
    );
    done.into_inner().expect("nobody panics with it")
}
