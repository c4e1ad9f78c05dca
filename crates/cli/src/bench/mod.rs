//! `mutirao bench`: figures of this machine, each beside a floor taken in the same run.

mod alloc;
mod bag;
mod calls;
mod channel;
mod floor;
mod floor_tree;
mod grow;
mod heal;
mod idle;
mod pool;

pub use alloc::alloc;
pub use bag::bag;
pub use calls::{call, operations};
pub use channel::channel;
pub use floor::peer as floor_peer;
pub use grow::grow;
pub use heal::heal;
pub use idle::idle;

use crate::args::Output;
use crate::output::{put, table};
use anyhow::Result;
use serde_json::{Value, json};
use std::sync::OnceLock;

/// One figure. What does not apply is `None`.
#[derive(Debug, Default)]
pub struct Case {
    name: String,
    /// Nodes that took part.
    nodes: Option<u32>,
    size_bytes: Option<u64>,
    /// Measurements.
    n: Option<u64>,
    p50_us: Option<f64>,
    p99_us: Option<f64>,
    per_s: Option<f64>,
    mib_per_s: Option<f64>,
    floor_kind: Option<&'static str>,
    floor_p50_us: Option<f64>,
    /// Operations a second of the floor; where the case is a bandwidth, its MiB/s.
    floor_per_s: Option<f64>,
    /// Ours over the floor: of times where a time is given, else of rates.
    ratio: Option<f64>,
    /// Processors of this machine.
    cpus: usize,
    /// Where the processes were kept, for example `0|1`.
    pinned: Option<&'static str>,
    tls: Option<bool>,
    /// Further members of the JSON object.
    extra: Vec<(&'static str, Value)>,
}

impl Case {
    fn new(name: impl Into<String>) -> Case {
        Case { name: name.into(), cpus: cpus(), ..Case::default() }
    }

    fn json(&self) -> Value {
        let mut value = json!({
            "name": self.name, "nodes": self.nodes, "size_bytes": self.size_bytes, "n": self.n,
            "p50_us": self.p50_us, "p99_us": self.p99_us, "per_s": self.per_s, "mib_per_s": self.mib_per_s,
            "floor_kind": self.floor_kind, "floor_p50_us": self.floor_p50_us, "floor_per_s": self.floor_per_s,
            "ratio": self.ratio, "cpus": self.cpus, "pinned": self.pinned, "tls": self.tls,
        });
        for (key, extra) in &self.extra {
            value[*key] = extra.clone();
        }
        value
    }

    fn row(&self) -> [String; 10] {
        let number = |value: Option<f64>| match value {
            None => "-".into(),
            Some(value) if value >= 1000.0 => format!("{value:.0}"),
            Some(value) if value >= 10.0 => format!("{value:.1}"),
            Some(value) => format!("{value:.2}"),
        };
        [
            self.name.clone(),
            self.n.map_or_else(|| "-".into(), |n| n.to_string()),
            number(self.p50_us),
            number(self.p99_us),
            number(self.per_s),
            number(self.mib_per_s),
            self.floor_kind.unwrap_or("-").into(),
            number(self.floor_p50_us.or(self.floor_per_s)),
            number(self.ratio),
            self.pinned.unwrap_or("-").into(),
        ]
    }
}

/// Processors that this program may use, as it was before anything was pinned: those of a pinned thread are
/// only the one it is kept on.
fn cpus() -> usize {
    static CPUS: OnceLock<usize> = OnceLock::new();
    *CPUS.get_or_init(|| std::thread::available_parallelism().map_or(1, Into::into))
}

/// Prints the cases: a table, or a JSON object a line.
fn print(output: Output, cases: &[Case]) -> Result<()> {
    if output == Output::Json {
        let lines: String = cases.iter().map(|case| format!("{}\n", case.json())).collect();
        return put(&lines);
    }
    let rows: Vec<[String; 10]> = cases.iter().map(Case::row).collect();
    let head = ["CASE", "N", "P50 us", "P99 us", "PER s", "MiB/s", "FLOOR", "FLOOR IS", "RATIO", "PINNED"];
    put(&table(head, [false, true, true, true, true, true, false, true, true, false], &rows))
}

/// The `q`-quantile of sorted values, by the nearest rank; 0 of none.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or(0.0)
}

/// Keeps a process on one processor; without effect where there is only one.
fn pin(process: Option<rustix::process::Pid>, cpu: usize) -> Result<()> {
    if cpus() > cpu {
        let mut set = rustix::thread::CpuSet::new();
        set.set(cpu);
        rustix::thread::sched_setaffinity(process, &set)?;
    }
    Ok(())
}

/// Lets a process use every processor again.
fn unpin(process: Option<rustix::process::Pid>) -> Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    (0..cpus()).for_each(|cpu| set.set(cpu));
    Ok(rustix::thread::sched_setaffinity(process, &set)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_by_rank() {
        let values: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(quantile(&values, 0.5), 50.0);
        assert_eq!(quantile(&values, 0.99), 99.0);
        assert_eq!(quantile(&[7.0], 0.99), 7.0);
        assert_eq!(quantile(&[], 0.5), 0.0);
    }

    #[test]
    fn a_case_has_every_member_that_scripts_rely_on() {
        let value = Case::new("x").json();
        let members = [
            "name",
            "nodes",
            "size_bytes",
            "n",
            "p50_us",
            "p99_us",
            "per_s",
            "mib_per_s",
            "floor_kind",
            "floor_p50_us",
            "floor_per_s",
            "ratio",
            "cpus",
            "pinned",
            "tls",
        ];
        for member in members {
            assert!(value.get(member).is_some(), "{member}");
        }
    }
}
