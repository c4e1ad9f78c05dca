//! Growing: from asking for a slot to the first result that it computes, where the plugin already is.

use super::pool::{Shape, TestPool};
use super::{Case, print, quantile};
use crate::args::Output;
use anyhow::{Result, ensure};
use mutirao::raw::{CallOptions, Pool, Request, Slots};
use serde_json::json;
use std::time::{Duration, Instant};

/// Gives nothing back.
const SINK: u32 = 1;
/// Slots become free again in this time.
const PATIENCE: Duration = Duration::from_secs(10);

/// Measures so many times: on this node and on another, with a template of the program at hand (it had a
/// slot there before) and without (an application that comes for the first time).
pub fn grow(output: Output, rounds: u32) -> Result<()> {
    mutirao::raw::init(crate::operations())?;
    let mut cases = Vec::new();
    for remote in [false, true] {
        let test = TestPool::start(&Shape { nodes: 2, slots: 1, fan_out: 16, spin: true })?;
        // The other node's slots come second: this one's is taken, or is not.
        let holder = test.open("n1", "holder", Slots::ByHand)?;
        if remote {
            holder.allocate(&Request { at_least: 1, workers: false, ..Request::slots(1) })?;
        }
        let place = if remote { "other node" } else { "same node" };
        for warm in [true, false] {
            let template = if warm { "warm" } else { "new" };
            let name = format!("first result, {place}, {template} template");
            cases.push(measure(&test, rounds, warm, if remote { 1 } else { 2 }, name)?);
        }
    }
    print(output, &cases)
}

/// `free`: slots that are free between two rounds.
fn measure(test: &TestPool, rounds: u32, warm: bool, free: u32, name: String) -> Result<Case> {
    let usual = test.open("n1", "bench grow", Slots::ByHand)?;
    let (mut times_us, mut since_grant_us) = (Vec::new(), Vec::new());
    let warm_up = 3;
    for round in 0..rounds + warm_up {
        let fresh = if warm { None } else { Some(test.open("n1", "bench grow", Slots::ByHand)?) };
        let pool = fresh.as_ref().unwrap_or(&usual);
        let (asked, granted) = one(pool)?;
        if round >= warm_up {
            times_us.push(asked);
            since_grant_us.push(granted);
        }
        let leases: Vec<_> = pool.leases().into_iter().map(|lease| lease.key).collect();
        pool.release(&leases)?;
        drop(fresh);
        free_again(&usual, free)?;
    }
    times_us.sort_by(f64::total_cmp);
    since_grant_us.sort_by(f64::total_cmp);
    Ok(Case {
        nodes: Some(2),
        n: Some(rounds.into()),
        p50_us: Some(quantile(&times_us, 0.5)),
        p99_us: Some(quantile(&times_us, 0.99)),
        pinned: Some("no"),
        tls: Some(true),
        extra: vec![
            ("grant_p50_us", json!(quantile(&since_grant_us, 0.5))),
            ("grant_p99_us", json!(quantile(&since_grant_us, 0.99))),
        ],
        ..Case::new(name)
    })
}

/// Takes a slot and has one call computed on it; microseconds since the slot was asked for, and since it was
/// granted.
fn one(pool: &Pool) -> Result<(f64, f64)> {
    let asked = Instant::now();
    pool.allocate(&Request { at_least: 1, ..Request::slots(1) })?;
    let granted = Instant::now();
    pool.submit(SINK, vec![1; 8], CallOptions::default())?.wait()?;
    let us = |since: Instant| since.elapsed().as_secs_f64() * 1e6;
    Ok((us(asked), us(granted)))
}

/// Waits until the slot that was given back is free again.
fn free_again(pool: &Pool, wanted: u32) -> Result<()> {
    let before = Instant::now();
    while pool.nodes()?.iter().map(|row| u32::from(row.slots_free)).sum::<u32>() < wanted {
        ensure!(before.elapsed() < PATIENCE, "the slot did not become free again");
    }
    Ok(())
}
