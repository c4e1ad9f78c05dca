//! What no channel can beat: a cache line that goes from one processor to another and back.
//!
//! A virtual machine's processors are nearer to each other at one time than at another, which changes this, and with it
//! what a ring takes, several times over.

use super::super::pin;
use anyhow::{Context, Result};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::time::{Duration, Instant};

/// Round trips that are timed together: one alone is shorter than a look at the clock.
const TIMED: u64 = 1000;
/// Says that there are no more.
const LAST: u64 = u64::MAX;

/// A word that shares its cache line, and the neighbour that is fetched with it, with nothing.
#[repr(align(128))]
#[derive(Default)]
struct Line(AtomicU64);

impl Line {
    fn until_not(&self, old: u64) -> u64 {
        loop {
            let now = self.0.load(Acquire);
            if now != old {
                return now;
            }
            std::hint::spin_loop();
        }
    }
}

/// Microseconds of round trips between processors 0 and 1, sorted.
pub fn round_trips_us(span: Duration) -> Result<Vec<f64>> {
    let (there, back) = (Line::default(), Line::default());
    std::thread::scope(|scope| {
        let echo = scope.spawn(|| {
            let pinned = pin(None, 1);
            let mut seen = 0;
            while seen != LAST {
                seen = there.until_not(seen);
                back.0.store(seen, Release);
            }
            pinned
        });
        let measure = scope.spawn(|| {
            let pinned = pin(None, 0);
            let (begin, mut turn, mut times_us) = (Instant::now(), 0, Vec::new());
            while begin.elapsed() < span {
                let start = Instant::now();
                for _ in 0..TIMED {
                    turn += 1;
                    there.0.store(turn, Release);
                    back.until_not(turn - 1);
                }
                times_us.push(start.elapsed().as_secs_f64() * 1e6 / TIMED as f64);
            }
            there.0.store(LAST, Release);
            pinned.map(|()| times_us)
        });
        let (pinned, measured) = (echo.join(), measure.join());
        pinned.ok().context("a thread that measures has panicked")??;
        let mut times_us = measured.ok().context("a thread that measures has panicked")??;
        times_us.sort_by(f64::total_cmp);
        Ok(times_us)
    })
}
