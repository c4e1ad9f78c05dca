//! Many small tasks: commands that do nothing, beside a loop that only starts them and waits, and beside the
//! programs that people use for it; operations that do nothing.

use super::pool::{Shape, TestPool};
use super::{Case, cpus, print};
use crate::args::Output;
use crate::commands::RUN_COMMAND;
use anyhow::{Context, Result, bail, ensure};
use mutirao::raw::{Call, CallOptions, Pool, Request, Slots};
use mutirao_runner::{Command as Task, Ended};
use std::collections::VecDeque;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// What is started.
const NO_OP: &str = "true";
/// Other programs that start commands, with what makes them start `CPUS` at a time, an argument each.
const OTHERS: [(&str, &[&str]); 2] =
    [("xargs", &["xargs", "-P", "CPUS", "-n", "1", NO_OP]), ("parallel", &["parallel", "-j", "CPUS", NO_OP])];

/// Measures so many tasks of each kind.
pub fn bag(output: Output, tasks: u64) -> Result<()> {
    mutirao::raw::init(crate::operations())?;
    let slots = u16::try_from(cpus()).context("more processors than a node lends")?;
    let test = TestPool::start(&Shape { nodes: 1, slots, fan_out: 16, spin: true })?;
    let pool = test.open("n1", "bench bag", Slots::ByHand)?;
    pool.allocate(&Request { at_least: slots.into(), ..Request::slots(slots.into()) })?;

    let program = found(NO_OP).with_context(|| format!("there is no `{NO_OP}` here"))?;
    let task = Task::words([program.to_string_lossy().into_owned()]).encode();
    let run = pool.operation(RUN_COMMAND)?;
    rate(&pool, run, &task, u64::from(slots))?;
    // Half of the floor before and half after, so that a machine that warms up or slows down favours nobody.
    let before_s = floor(&program, tasks / 2)?;
    let per_s = rate(&pool, run, &task, tasks)?;
    let floor_per_s = tasks as f64 / (before_s + floor(&program, tasks - tasks / 2)?);
    let mut cases = vec![Case {
        nodes: Some(1),
        n: Some(tasks),
        per_s: Some(per_s),
        floor_kind: Some("spawn and wait"),
        floor_per_s: Some(floor_per_s),
        ratio: Some(per_s / floor_per_s),
        extra: vec![("at_a_time", cpus().into())],
        ..Case::new("no-op commands")
    }];
    for (name, words) in OTHERS {
        let Some(seconds) = other(words, tasks)? else { continue };
        let per_s = tasks as f64 / seconds;
        cases.push(Case {
            n: Some(tasks),
            per_s: Some(per_s),
            floor_kind: Some("spawn and wait"),
            floor_per_s: Some(floor_per_s),
            ratio: Some(per_s / floor_per_s),
            ..Case::new(format!("no-op commands, by {name}"))
        });
    }
    let per_s = rate(&pool, pool.operation("echo")?, &[], tasks)?;
    cases.push(Case {
        nodes: Some(1),
        n: Some(tasks),
        per_s: Some(per_s),
        extra: vec![("overhead_us", (1e6 / per_s).into())],
        ..Case::new("no-op operations")
    });
    print(output, &cases)
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

/// Seconds that another program takes, if it is there.
fn other(words: &[&str], tasks: u64) -> Result<Option<f64>> {
    let Some(program) = found(words[0]) else { return Ok(None) };
    let count = cpus().to_string();
    let begin = Instant::now();
    let mut command = Command::new(program);
    command.args(words[1..].iter().map(|word| if *word == "CPUS" { &count } else { *word }));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let mut stdin = child.stdin.take().context("no pipe")?;
    let lines: String = (0..tasks).map(|task| format!("{task}\n")).collect();
    // One that ends early is told by its exit code.
    let _ = stdin.write_all(lines.as_bytes());
    drop(stdin);
    let well = child.wait()?.success();
    Ok(well.then(|| begin.elapsed().as_secs_f64()))
}

fn found(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(program)).find(|file| file.is_file())
}
