//! Calls: latency, rate and bandwidth, to a worker on the same node and to one on another.
//!
//! The program is pinned to processor 0 with the node it talks to, the worker to processor 1 with its
//! own node: one core a pretended machine. The floors are pinned alike.

use super::floor::{self, Carrier, Floor};
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

/// What a case measures.
#[derive(Clone, Copy)]
enum Measure {
    Latency,
    Rate,
    /// Of arguments of so many bytes.
    Bandwidth(usize),
}

/// A case: its name, what is measured, and what carries its floor.
type Plan = (String, Measure, Carrier);

/// Measures the cases whose names contain `only`, for about so many seconds each.
pub fn call(output: Output, seconds: f64, only: &str) -> Result<()> {
    mutirao::raw::init(crate::operations())?;
    let span = Duration::try_from_secs_f64(seconds).context("--seconds cannot be waited for")?;
    let sizes = |place: &'static str, carrier| {
        LARGE.map(|size| {
            let name = format!("{} argument, {place}", crate::output::bytes(size as u64));
            (name, Measure::Bandwidth(size), carrier)
        })
    };
    let unix = |name: &str, measure| (name.to_owned(), measure, Carrier::Unix);
    let tcp = |name: &str, measure| (name.to_owned(), measure, Carrier::Tcp);
    let asleep = vec![unix("no-op, same node, asleep", Measure::Latency)];
    let mut spinning =
        vec![unix("no-op, same node, spinning", Measure::Latency), unix("no-ops, same node", Measure::Rate)];
    spinning.extend(sizes("same node", Carrier::Unix));
    let mut remote =
        vec![tcp("no-op, other node", Measure::Latency), tcp("no-ops, other node", Measure::Rate)];
    remote.extend(sizes("other node", Carrier::Tls));

    let mut setups = [(false, false, asleep), (false, true, spinning), (true, true, remote)];
    for (.., plans) in &mut setups {
        plans.retain(|(name, ..)| name.contains(only));
    }
    let count: usize = setups.iter().map(|(.., plans)| plans.len()).sum();
    ensure!(count > 0, "no case has `{only}` in its name");
    let bar = match output {
        Output::Json => indicatif::ProgressBar::hidden(),
        Output::Text => indicatif::ProgressBar::new(count as u64),
    };
    let mut cases = Vec::new();
    for (remote, spin, plans) in setups {
        if !plans.is_empty() {
            measure(Setup::start(remote, spin)?, plans, span, &bar, &mut cases)?;
        }
    }
    bar.finish_and_clear();
    print(output, &cases)
}

/// Measures the cases of one pool, each beside its floor.
fn measure(
    setup: Setup,
    plans: Vec<Plan>,
    span: Duration,
    bar: &indicatif::ProgressBar,
    cases: &mut Vec<Case>,
) -> Result<()> {
    let mut floor: Option<(Carrier, Floor)> = None;
    for (name, measure, carrier) in plans {
        let mut bare = match floor.take() {
            Some((there, floor)) if there == carrier => floor,
            _ => Floor::start(carrier, setup.test.directory())?,
        };
        cases.push(match measure {
            Measure::Latency => latency(&setup, &mut bare, name, span)?,
            Measure::Rate => rate(&setup, &mut bare, name, span)?,
            Measure::Bandwidth(size) => bandwidth(&setup, &mut bare, name, size, span)?,
        });
        floor = Some((carrier, bare));
        bar.inc(1);
    }
    Ok(())
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
        for row in ask(&self.pool, Topic::Workers { app: None }, None)? {
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
pub(super) fn pin_all(process: Option<Pid>, cpu: usize) -> Result<()> {
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

fn rate(setup: &Setup, floor: &mut Floor, name: String, span: Duration) -> Result<Case> {
    /// Calls that are unfinished at a time.
    const DEPTH: usize = 8192;
    let bare = floor.stream(SMALL, floor::WINDOW, span)?;
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

fn bandwidth(setup: &Setup, bare: &mut Floor, name: String, size: usize, span: Duration) -> Result<Case> {
    /// Bytes of arguments under way at most. More would measure memory: those of the floor stay in the caches.
    const MEMORY: usize = 32 << 20;
    // As many calls are unfinished as messages of the floor.
    let depth = floor::WINDOW.min(MEMORY / size);
    let mib = size as f64 / f64::from(1 << 20);
    let bare = bare.stream(size, floor::WINDOW, span)?;
    let begin = Instant::now();
    let mut calls = 0u64;
    let mut open: VecDeque<Call> = VecDeque::new();
    while begin.elapsed() < span || calls < 10 || !open.is_empty() {
        while open.len() < depth && (begin.elapsed() < span || calls < 10) {
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
        ..Case::new(name)
    })
}
