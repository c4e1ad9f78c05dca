//! Idle daemons: memory held and processor time used.

use super::pool::{Shape, TestPool};
use super::{Case, print};
use crate::args::Output;
use anyhow::{Context, Result};
use rustix::process::Pid;
use serde_json::json;
use std::time::{Duration, Instant};

/// Children of the inner node.
const CHILDREN: u16 = 16;

/// Watches a leaf and an inner node of sixteen children for so many seconds.
pub fn idle(output: Output, seconds: f64) -> Result<()> {
    let test = TestPool::start(&Shape { nodes: CHILDREN + 1, slots: 1, fan_out: CHILDREN, spin: true })?;
    // Links that were needed for starting close first.
    std::thread::sleep(Duration::from_secs(2));
    let watched = [("idle inner node of 16 children", test.pid("n1")?), ("idle leaf", test.pid("n2")?)];
    let before = [cpu(watched[0].1)?, cpu(watched[1].1)?];
    let start = Instant::now();
    std::thread::sleep(Duration::try_from_secs_f64(seconds).context("--seconds cannot be waited for")?);
    let passed_s = start.elapsed().as_secs_f64();
    let mut cases = Vec::new();
    for ((name, pid), before) in watched.into_iter().zip(before) {
        let used_s = (cpu(pid)?.saturating_sub(before)).as_secs_f64();
        cases.push(Case {
            nodes: Some(u32::from(CHILDREN) + 1),
            tls: Some(true),
            extra: vec![
                ("resident_kib", json!(status_kib(pid, "VmRSS:")?)),
                ("proportional_kib", json!(proportional_kib(pid)?)),
                ("cpu_percent", json!(100.0 * used_s / passed_s)),
                ("seconds", json!(passed_s)),
            ],
            ..Case::new(name)
        });
    }
    if output == Output::Json {
        return print(output, &cases);
    }
    let mut text = String::new();
    for case in &cases {
        let extra = |key: &str| case.extra.iter().find(|(k, _)| *k == key).and_then(|(_, v)| v.as_f64());
        text += &format!(
            "{:<32} {:>8.0} KiB resident  {:>8.0} KiB proportional  {:.3} % of a core\n",
            case.name,
            extra("resident_kib").unwrap_or_default(),
            extra("proportional_kib").unwrap_or_default(),
            extra("cpu_percent").unwrap_or_default(),
        );
    }
    crate::output::put(&text)
}

/// Processor time of all threads, to the nanosecond.
fn cpu(pid: Pid) -> Result<Duration> {
    let mut total = Duration::ZERO;
    let tasks = format!("/proc/{}/task", pid.as_raw_nonzero());
    for task in std::fs::read_dir(&tasks).with_context(|| format!("cannot read {tasks}"))? {
        let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
        let on_cpu_ns = text.split(' ').next().unwrap_or_default().parse()?;
        total += Duration::from_nanos(on_cpu_ns);
    }
    Ok(total)
}

/// A figure of a process.
pub fn status_kib(pid: Pid, key: &str) -> Result<u64> {
    kib(&format!("/proc/{}/status", pid.as_raw_nonzero()), key)
}

fn proportional_kib(pid: Pid) -> Result<u64> {
    kib(&format!("/proc/{}/smaps_rollup", pid.as_raw_nonzero()), "Pss:")
}

/// The number after `key` in a file of `/proc`.
fn kib(path: &str, key: &str) -> Result<u64> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    let line =
        text.lines().find(|line| line.starts_with(key)).with_context(|| format!("{path} has no {key}"))?;
    Ok(line.split_whitespace().nth(1).unwrap_or_default().parse()?)
}
