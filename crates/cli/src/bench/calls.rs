//! Calls: latency, rate and bandwidth, to a worker on the same node and to one on another.
//!
//! The program is pinned to processor 0 with the node it talks to, the worker to processor 1 with its
//! own node: one core a pretended machine. The floors are pinned alike.

use super::floor::{Carrier, Floor};
use super::pool::{Shape, TestPool};
use super::{Case, pin, print, quantile, unpin};
use crate::args::Output;
use crate::list::ask;
use anyhow::{Context, Result, ensure};
use mutirao::raw::{Call, CallOptions, LeaseState, OperationEntry, Pool, Request, Slots};
use mutirao_wire::node::Layout;
use mutirao_wire::query::{Row, Topic};
use rustix::process::Pid;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Gives its argument back.
const ECHO: u32 = 0;
/// Gives nothing back.
const SINK: u32 = 1;

/// Bytes of a no-op's argument and result.
const SMALL: usize = 8;
/// Sizes of the larger arguments.
const LARGE: [usize; 3] = [64 << 10, 1 << 20, 16 << 20];
/// Where the two sides are kept.
const PINNED: &str = "0|1";

/// What this program offers when a benchmark makes it a plugin.
pub fn operations() -> Vec<OperationEntry> {
    let entry = |name: &str, echo: bool| OperationEntry {
        name: name.into(),
        repeatable: true,
        run: Box::new(move |argument, result| {
            if echo {
                result.extend_from_slice(argument);
            }
            Ok(())
        }),
    };
    vec![entry("echo", true), entry("sink", false)]
}

/// Measures every case, for about so many seconds each.
pub fn call(output: Output, seconds: f64) -> Result<()> {
    mutirao::raw::init(operations())?;
    let span = Duration::try_from_secs_f64(seconds).context("--seconds cannot be waited for")?;
    let bar = match output {
        Output::Json => indicatif::ProgressBar::hidden(),
        Output::Text => indicatif::ProgressBar::new(13),
    };
    let mut cases = Vec::new();
    for (spin, word) in [(false, "asleep"), (true, "spinning")] {
        let setup = Setup::start(false, spin)?;
        let mut floor = Floor::start(Carrier::Unix, setup.test.directory())?;
        cases.push(latency(&setup, &mut floor, format!("no-op, same node, {word}"), span)?);
        bar.inc(1);
        if spin {
            cases.push(rate(&setup, &mut floor, "no-ops, same node", span)?);
            bar.inc(1);
            for size in LARGE {
                cases.push(bandwidth(&setup, &mut floor, size, "same node", span)?);
                bar.inc(1);
            }
        }
    }
    let setup = Setup::start(true, true)?;
    let mut floor = Floor::start(Carrier::Tcp, setup.test.directory())?;
    cases.push(latency(&setup, &mut floor, "no-op, other node".into(), span)?);
    bar.inc(1);
    cases.push(rate(&setup, &mut floor, "no-ops, other node", span)?);
    bar.inc(1);
    let mut floor = Floor::start(Carrier::Tls, setup.test.directory())?;
    for size in LARGE {
        cases.push(bandwidth(&setup, &mut floor, size, "other node", span)?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    print(output, &cases)
}

/// A pool of one or two nodes with one worker, everything pinned.
struct Setup {
    test: TestPool,
    pool: Pool,
    remote: bool,
}

impl Setup {
    fn start(remote: bool, spin: bool) -> Result<Setup> {
        unpin(None)?;
        let nodes = if remote { 2 } else { 1 };
        let test = TestPool::start(&Shape { nodes, slots: 1, fan_out: 16, spin })?;
        let pool = test.open("n1", "bench call", Slots::ByHand)?;
        let request =
            Request { at_least: nodes.into(), layout: Layout::Spread, ..Request::slots(nodes.into()) };
        let allocation = pool.allocate(&request)?;
        if remote {
            let local = pool.leases().into_iter().filter(|lease| lease.local).map(|lease| lease.key);
            pool.release(&local.collect::<Vec<_>>())?;
        }
        ensure!(!allocation.leases.is_empty(), "no slot was granted");
        // The first call waits until the worker serves.
        pool.submit(ECHO, vec![1; SMALL], CallOptions::default())?.wait()?;
        ensure!(
            pool.leases().iter().all(|lease| lease.state == LeaseState::Ready),
            "the worker is not ready"
        );
        let setup = Setup { test, pool, remote };
        setup.pin()?;
        Ok(setup)
    }

    fn pin(&self) -> Result<()> {
        pin_all(Some(self.test.pid("n1")?), 0)?;
        if self.remote {
            pin_all(Some(self.test.pid("n2")?), 1)?;
        }
        for row in ask(&self.pool, Topic::Workers, None)? {
            if let Row::Worker(row) = row
                && let Some(pid) = Pid::from_raw(row.pid.cast_signed())
            {
                pin_all(Some(pid), 1)?;
            }
        }
        pin_all(None, 0)
    }

    fn nodes(&self) -> Option<u32> {
        Some(if self.remote { 2 } else { 1 })
    }
}

/// Pins every thread of a process.
fn pin_all(process: Option<Pid>, cpu: usize) -> Result<()> {
    let pid = process.unwrap_or_else(rustix::process::getpid);
    for task in std::fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero()))? {
        if let Ok(thread) = task?.file_name().to_string_lossy().parse::<i32>() {
            pin(Pid::from_raw(thread), cpu)?;
        }
    }
    Ok(())
}

fn latency(setup: &Setup, floor: &mut Floor, name: String, span: Duration) -> Result<Case> {
    let bare = floor.ping(SMALL, span)?;
    let mut times_us = Vec::new();
    let begin = Instant::now();
    while begin.elapsed() < span {
        let start = Instant::now();
        setup.pool.submit(ECHO, vec![1; SMALL], CallOptions::default())?.wait()?;
        times_us.push(start.elapsed().as_secs_f64() * 1e6);
    }
    let per_s = times_us.len() as f64 / begin.elapsed().as_secs_f64();
    times_us.sort_by(f64::total_cmp);
    let p50_us = quantile(&times_us, 0.5);
    Ok(Case {
        nodes: setup.nodes(),
        size_bytes: Some(SMALL as u64),
        n: Some(times_us.len() as u64),
        p50_us: Some(p50_us),
        p99_us: Some(quantile(&times_us, 0.99)),
        per_s: Some(per_s),
        floor_kind: Some(if setup.remote { "tcp ping" } else { "unix ping" }),
        floor_p50_us: Some(bare.p50_us),
        floor_per_s: Some(bare.per_s),
        ratio: Some(p50_us / bare.p50_us),
        pinned: Some(PINNED),
        tls: Some(setup.remote),
        ..Case::new(name)
    })
}

fn rate(setup: &Setup, floor: &mut Floor, name: &str, span: Duration) -> Result<Case> {
    /// Calls that are unfinished at a time.
    const DEPTH: usize = 8192;
    let bare = floor.stream(SMALL, span)?;
    let begin = Instant::now();
    let mut calls = 0u64;
    let mut open: VecDeque<Call> = VecDeque::with_capacity(DEPTH);
    while begin.elapsed() < span || !open.is_empty() {
        while open.len() < DEPTH && begin.elapsed() < span {
            open.push_back(setup.pool.submit(ECHO, vec![1; SMALL], CallOptions::default())?);
        }
        if let Some(mut call) = open.pop_front() {
            call.wait()?;
            calls += 1;
        }
    }
    let per_s = calls as f64 / begin.elapsed().as_secs_f64();
    Ok(Case {
        nodes: setup.nodes(),
        size_bytes: Some(SMALL as u64),
        n: Some(calls),
        per_s: Some(per_s),
        floor_kind: Some(if setup.remote { "tcp stream" } else { "unix stream" }),
        floor_per_s: Some(bare.per_s),
        ratio: Some(per_s / bare.per_s),
        pinned: Some(PINNED),
        tls: Some(setup.remote),
        ..Case::new(name)
    })
}

fn bandwidth(setup: &Setup, floor: &mut Floor, size: usize, place: &str, span: Duration) -> Result<Case> {
    /// Calls that are unfinished at a time: the next argument travels while one is taken in.
    const DEPTH: usize = 4;
    let mib = size as f64 / f64::from(1 << 20);
    let bare = floor.stream(size, span)?;
    let begin = Instant::now();
    let mut calls = 0u64;
    let mut open: VecDeque<Call> = VecDeque::new();
    while begin.elapsed() < span || calls < 10 || !open.is_empty() {
        while open.len() < DEPTH && (begin.elapsed() < span || calls < 10) {
            open.push_back(setup.pool.submit(SINK, vec![1; size], CallOptions::default())?);
        }
        if let Some(mut call) = open.pop_front() {
            call.wait()?;
            calls += 1;
        }
    }
    let per_s = calls as f64 / begin.elapsed().as_secs_f64();
    Ok(Case {
        nodes: setup.nodes(),
        size_bytes: Some(size as u64),
        n: Some(calls),
        per_s: Some(per_s),
        mib_per_s: Some(per_s * mib),
        floor_kind: Some(if setup.remote { "tls stream" } else { "unix stream" }),
        floor_per_s: Some(bare.per_s * mib),
        ratio: Some(per_s / bare.per_s),
        pinned: Some(PINNED),
        tls: Some(setup.remote),
        ..Case::new(format!("{} argument, {place}", crate::output::bytes(size as u64)))
    })
}
