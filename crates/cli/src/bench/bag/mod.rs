//! Many small tasks: commands that do nothing, beside a loop that only starts them and waits, and beside the
//! programs that people use for it; operations that do nothing; both as bags.

mod kept;
mod others;

use super::pool::{Shape, TestPool};
use super::{Case, cpus, print, quantile};
use crate::args::Output;
use crate::commands::RUN_COMMAND;
use anyhow::{Context, Result, bail, ensure};
use mutirao::raw::{Call, CallOptions, Pool, Request, Slots};
use mutirao_runner::{Command as Task, Ended};
use serde_json::json;
use std::collections::VecDeque;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

/// What is started.
const NO_OP: &str = "true";
/// Bags that are submitted to see when their first task starts.
const ROUNDS: u32 = 20;

/// Names of the cases.
const COMMANDS: &str = "no-op commands";
const OPERATIONS: &str = "no-op operations";
const FIRST_TASK: &str = "from bag submit to the first task";
const LARGE: &str = "a large bag submitted";

/// Measures the cases whose names contain `only`: so many tasks of each kind, and the keeper of a bag of `large`.
pub fn bag(output: Output, tasks: u64, large: u64, only: &str) -> Result<()> {
    let is_wanted = |name: &str| name.contains(only);
    ensure!(
        [COMMANDS, OPERATIONS, FIRST_TASK, LARGE].into_iter().any(is_wanted),
        "no case has `{only}` in its name"
    );
    mutirao::raw::init(crate::operations())?;
    let slots = u16::try_from(cpus()).context("more processors than a node lends")?;
    let test = TestPool::start(&Shape { nodes: 1, slots, fan_out: 16, spin: true })?;
    let mut cases = Vec::new();
    if is_wanted(COMMANDS) {
        cases.extend(commands(&test, slots, tasks)?);
    }
    if is_wanted(OPERATIONS) {
        cases.extend(operations(&test, tasks)?);
    }
    if is_wanted(FIRST_TASK) {
        let times_us = kept::first_task(&test, ROUNDS)?;
        cases.push(Case {
            nodes: Some(1),
            n: Some(ROUNDS.into()),
            p50_us: Some(quantile(&times_us, 0.5)),
            p99_us: Some(quantile(&times_us, 0.99)),
            ..Case::new(FIRST_TASK)
        });
    }
    if large > 0 && is_wanted(LARGE) {
        cases.push(of_large(&test, large)?);
    }
    print(output, &cases)
}

/// The pool with all its slots taken by this program.
fn open(test: &TestPool) -> Result<Pool> {
    let slots = u32::try_from(cpus())?;
    let pool = test.open("n1", "bench bag", Slots::ByHand)?;
    pool.allocate(&Request { at_least: slots, ..Request::slots(slots) })?;
    Ok(pool)
}

/// Commands that do nothing: as calls, by other programs, as a bag.
fn commands(test: &TestPool, slots: u16, tasks: u64) -> Result<Vec<Case>> {
    let program = others::found(NO_OP).with_context(|| format!("there is no `{NO_OP}` here"))?;
    let task = Task::words([program.to_string_lossy().into_owned()]).encode();
    let pool = open(test)?;
    let run = pool.operation(RUN_COMMAND)?;
    rate(&pool, run, &task, u64::from(slots))?;
    // Half of the floor before and half after, so that a machine that warms up or slows down favours nobody.
    let before_s = floor(&program, tasks / 2)?;
    let per_s = rate(&pool, run, &task, tasks)?;
    let floor_per_s = tasks as f64 / (before_s + floor(&program, tasks - tasks / 2)?);
    pool.close();
    let case = |name: String, nodes: Option<u32>, per_s: f64| Case {
        nodes,
        n: Some(tasks),
        per_s: Some(per_s),
        floor_kind: Some("spawn and wait"),
        floor_per_s: Some(floor_per_s),
        ratio: Some(per_s / floor_per_s),
        extra: vec![("at_a_time", cpus().into())],
        ..Case::new(name)
    };
    let mut cases = vec![case(COMMANDS.into(), Some(1), per_s)];
    let seconds = kept::run_commands(test, tasks)?;
    cases.push(case(format!("{COMMANDS}, as a bag"), Some(1), tasks as f64 / seconds));
    for (name, seconds) in others::seconds(tasks)? {
        cases.push(case(format!("{COMMANDS}, by {name}"), None, tasks as f64 / seconds));
    }
    Ok(cases)
}

/// Operations that do nothing: as calls, as a bag, as a bag that lies in memory.
fn operations(test: &TestPool, tasks: u64) -> Result<Vec<Case>> {
    let pool = open(test)?;
    let calls_per_s = rate(&pool, pool.operation("sink")?, &[], tasks)?;
    pool.close();
    let in_memory_per_s = kept::push_operations_in_memory(test, tasks)?;
    let per_s = kept::push_operations(test, tasks)?;
    let us = |per_s: f64| 1e6 / per_s;
    let journal_us = in_memory_per_s.map(|in_memory| us(per_s) - us(in_memory));
    Ok(vec![
        Case {
            nodes: Some(1),
            n: Some(tasks),
            per_s: Some(calls_per_s),
            extra: vec![("overhead_us", us(calls_per_s).into())],
            ..Case::new(OPERATIONS)
        },
        Case {
            nodes: Some(1),
            n: Some(tasks),
            per_s: Some(per_s),
            floor_kind: Some("as calls"),
            floor_per_s: Some(calls_per_s),
            ratio: Some(per_s / calls_per_s),
            extra: vec![
                ("overhead_us", us(per_s).into()),
                ("in_memory_per_s", json!(in_memory_per_s)),
                ("journal_us", json!(journal_us)),
                ("journal_share", json!(journal_us.map(|journal_us| journal_us / us(per_s)))),
                ("on_disk", kept::is_on_disk(test)?.into()),
            ],
            ..Case::new(format!("{OPERATIONS}, as a bag"))
        },
    ])
}

/// What the keeper of a bag of so many tasks takes.
fn of_large(test: &TestPool, tasks: u64) -> Result<Case> {
    let one = kept::large(test, 1)?;
    let all = kept::large(test, tasks)?;
    let bytes = all.resident_kib.saturating_sub(one.resident_kib) * 1024;
    Ok(Case {
        nodes: Some(1),
        n: Some(tasks),
        per_s: Some(tasks as f64 / all.seconds),
        extra: vec![
            ("seconds", all.seconds.into()),
            ("resident_kib", all.resident_kib.into()),
            ("bytes_a_task", (bytes as f64 / tasks as f64).into()),
        ],
        ..Case::new(LARGE)
    })
}

/// Tasks a second.
fn rate(pool: &Pool, operation: u32, argument: &[u8], tasks: u64) -> Result<f64> {
    let window = cpus() * 4 + 16;
    let mut open: VecDeque<Call> = VecDeque::with_capacity(window);
    let begin = Instant::now();
    let mut left = tasks;
    while left > 0 || !open.is_empty() {
        while left > 0 && open.len() < window {
            open.push_back(pool.submit(operation, argument.to_vec(), CallOptions::default())?);
            left -= 1;
        }
        let Some(mut call) = open.pop_front() else { continue };
        let result = call.wait()?;
        if !argument.is_empty() {
            let how = Ended::decode(&result).context("a result is none")?.how;
            ensure!(how.is_success(), "a command that does nothing ended otherwise: {how}");
        }
    }
    Ok(tasks as f64 / begin.elapsed().as_secs_f64())
}

/// Starts and waits for so many, a thread for each processor; seconds.
fn floor(program: &Path, tasks: u64) -> Result<f64> {
    let threads = cpus() as u64;
    let begin = Instant::now();
    std::thread::scope(|scope| -> Result<()> {
        let share = |thread: u64| tasks / threads + u64::from(thread < tasks % threads);
        let started: Vec<_> = (0..threads)
            .map(|thread| {
                scope.spawn(move || -> std::io::Result<()> {
                    for _ in 0..share(thread) {
                        Command::new(program).stdin(Stdio::null()).stdout(Stdio::null()).spawn()?.wait()?;
                    }
                    Ok(())
                })
            })
            .collect();
        for thread in started {
            match thread.join() {
                Ok(result) => result?,
                Err(_) => bail!("a thread that starts commands failed"),
            }
        }
        Ok(())
    })?;
    Ok(begin.elapsed().as_secs_f64())
}
