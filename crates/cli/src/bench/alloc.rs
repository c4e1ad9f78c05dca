//! Allocation: one slot on each of many daemons.

use super::floor_tree::FloorTree;
use super::pool::{Shape, TestPool};
use super::{Case, print, quantile};
use crate::args::Output;
use crate::output::remark;
use anyhow::{Result, ensure};
use mutirao::raw::{Request, Slots};
use mutirao_wire::node::Layout;
use serde_json::json;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// What the source measured: 205 nodes in 15.662 ms, on as many machines.
const PUBLISHED_MS: f64 = 15.662;

/// Starts `nodes` daemons, allocates a slot on each and gives them back, `rounds` times. Of the nodes,
/// `full_percent` are lent to somebody else all the while, and only the others are allocated.
pub fn alloc(output: Output, nodes: u16, rounds: u32, fan_out: u16, full_percent: u8) -> Result<()> {
    let busy = (u32::from(nodes) * u32::from(full_percent) / 100) as u16;
    let wanted = nodes - busy;
    ensure!(wanted > 0, "of a pool that is full nothing can be allocated; give --full less");
    remark!("starting {nodes} daemons...");
    let start = Instant::now();
    let test = TestPool::start(&Shape { nodes, slots: 1, fan_out, spin: true })?;
    let formation_s = start.elapsed().as_secs_f64();
    let pool = test.open("n1", "bench alloc", Slots::ByHand)?;
    let somebody_else = test.open("n1", "bench alloc, the others", Slots::ByHand)?;
    if busy > 0 {
        somebody_else.allocate(&request(busy))?;
    }
    let request = request(wanted);
    let bar = progress(rounds, output);
    let mut times_us = Vec::new();
    let warm_up = rounds.min(3);
    for round in 0..rounds + warm_up {
        let start = Instant::now();
        let allocation = pool.allocate(&request)?;
        let took_us = start.elapsed().as_secs_f64() * 1e6;
        let held: BTreeSet<_> = pool.leases().into_iter().map(|lease| lease.lender.id).collect();
        ensure!(held.len() == usize::from(wanted), "{} of {wanted} nodes were allocated", held.len());
        pool.release(&allocation.leases)?;
        free_again(&pool, wanted)?;
        if round >= warm_up {
            times_us.push(took_us);
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    drop((pool, somebody_else, test));
    let floor_us = FloorTree::start(nodes.into(), fan_out.into())?.measure(times_us.len())?;
    times_us.sort_by(f64::total_cmp);
    let p50_us = quantile(&times_us, 0.5);
    let case = Case {
        nodes: Some(nodes.into()),
        n: Some(rounds.into()),
        p50_us: Some(p50_us),
        p99_us: Some(quantile(&times_us, 0.99)),
        per_s: Some(f64::from(wanted) / p50_us * 1e6),
        floor_kind: Some("tcp tree"),
        floor_p50_us: Some(floor_us),
        ratio: Some(p50_us / floor_us),
        pinned: Some("no"),
        tls: Some(true),
        extra: vec![
            ("us_per_node", json!(p50_us / f64::from(wanted))),
            ("full_percent", json!(full_percent)),
            ("min_us", json!(times_us.first())),
            ("fan_out", json!(fan_out)),
            ("formation_s", json!(formation_s)),
            ("published_ms", json!(PUBLISHED_MS)),
        ],
        ..Case::new(match busy {
            0 => "allocate one slot on each node",
            _ => "allocate one slot on each free node",
        })
    };
    print(output, &[case])
}

/// One slot on each of `count` nodes, or nothing.
fn request(count: u16) -> Request {
    Request {
        count: count.into(),
        at_least: count.into(),
        layout: Layout::Spread,
        workers: false,
        ..Request::slots(count.into())
    }
}

/// Waits until every slot that was had is free again.
fn free_again(pool: &mutirao::raw::Pool, slots: u16) -> Result<()> {
    let patience = Instant::now() + Duration::from_secs(10);
    loop {
        let rows = pool.nodes()?;
        let free: u32 = rows.iter().map(|row| u32::from(row.slots_free)).sum();
        if free == u32::from(slots) {
            return Ok(());
        }
        ensure!(
            Instant::now() < patience,
            "only {free} of {slots} slots became free again; {} nodes answered",
            rows.len()
        );
    }
}

fn progress(rounds: u32, output: Output) -> indicatif::ProgressBar {
    match output {
        Output::Json => indicatif::ProgressBar::hidden(),
        Output::Text => indicatif::ProgressBar::new(rounds.into()),
    }
}
