//! Groups that run on real daemons: two processes on two nodes, and many on one.

use super::super::calls::pin_all;
use super::super::pin;
use super::super::pool::{Shape, TestPool};
use super::process::{Measured, STORED, SYNC, What, answer, measure};
use anyhow::{Context, Result, bail, ensure};
use mutirao::group::Group;
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::process::Stdio;
use std::time::Duration;

/// What the processes of a group are to do; their argument.
#[derive(Debug, Serialize, Deserialize)]
pub enum Task {
    /// Of two, each kept on a processor of its own, the first measures one after the other.
    Measure {
        /// Messages of which kind and size.
        cases: Vec<(What, usize)>,
        /// How long each.
        span: Duration,
    },
    /// Of many, each with an even number measures with the next, all at once.
    Pairs {
        /// Messages of which kind.
        what: What,
        /// Their bytes.
        size: usize,
        /// How long.
        span: Duration,
    },
}

/// How the link between two nodes is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// Its bytes are encrypted.
    Encrypted,
    /// The charter trusts it: processes get TCP connections of their own.
    Trusted,
}

/// Measures between two processes on two nodes, each of which shares a processor with its node.
pub fn two_nodes(link: Link, cases: Vec<(What, usize)>, span: Duration) -> Result<Vec<Measured>> {
    let pool = TestPool::start(&Shape { nodes: 2, slots: 1, fan_out: 16, spin: true })?;
    if link == Link::Trusted {
        trust(&pool)?;
    }
    pin_all(Some(pool.pid("n1")?), 0)?;
    pin_all(Some(pool.pid("n2")?), 1)?;
    pair(&pool, ["n1", "n2"], cases, span, &[])
}

/// Measures between two processes on one node, each on a processor of its own, while nothing is recorded, and while what
/// they receive is, on the disk that has the temporary files.
pub fn unrecorded_and_recorded(cases: &[(What, usize)], span: Duration) -> Result<[Vec<Measured>; 2]> {
    let pool = TestPool::start(&Shape { nodes: 1, slots: 2, fan_out: 16, spin: true })?;
    let records = pool.directory().join("records");
    let run = |more: &[&OsStr]| pair(&pool, ["n1", "n1"], cases.to_vec(), span, more);
    Ok([run(&[])?, run(&["--record".as_ref(), records.as_ref()])?])
}

/// Two processes of which the first measures; `more` goes to `group run`.
fn pair(
    pool: &TestPool,
    stations: [&str; 2],
    cases: Vec<(What, usize)>,
    span: Duration,
    more: &[&OsStr],
) -> Result<Vec<Measured>> {
    let count = cases.len();
    let task = Task::Measure { cases, span };
    let program = format!("instances = 2\nstations = {stations:?}\n");
    let measured = run(pool, &task, &program, &channels(2), more)?;
    ensure!(measured.len() == count, "the processes have measured {} of {count} cases", measured.len());
    Ok(measured)
}

/// The channels of so many processes, which are joined in pairs.
fn channels(processes: u16) -> String {
    let ends = (0..processes).flat_map(|from| [(from, SYNC), (from, STORED)]);
    ends.map(|(from, number)| {
        let to = from ^ 1;
        format!("[[channel]]\nfrom = \"bench.{from}:{number}\"\nto = \"bench.{to}:{number}\"\n")
    })
    .collect()
}

/// Messages or round trips a second, of all pairs together, of so many processes on one node.
pub fn pairs(processes: u16, what: What, size: usize, span: Duration) -> Result<Measured> {
    let pool = TestPool::start(&Shape { nodes: 1, slots: processes, fan_out: 16, spin: true })?;
    let program = format!("instances = {processes}\nstations = [\"n1\"]\n");
    let measured = run(&pool, &Task::Pairs { what, size, span }, &program, &channels(processes), &[])?;
    let pairs = usize::from(processes / 2);
    ensure!(measured.len() == pairs, "{} of {pairs} pairs have measured", measured.len());
    Ok(Measured::together(&measured))
}

/// Lets the charter trust the links of this machine.
fn trust(pool: &TestPool) -> Result<()> {
    let charter = pool.directory().join("charter.toml");
    std::fs::write(&charter, "[trusted]\nsubnets = [\"127.0.0.0/8\"]\n")?;
    let changed = pool.command("n1")?.args(["charter", "edit"]).arg(charter).output()?;
    let said = String::from_utf8_lossy(&changed.stderr);
    let is_in_force = changed.status.success() && said.contains("in force on all");
    ensure!(is_in_force, "the charter cannot be changed: {said}");
    Ok(())
}

/// Runs a group of this program, with more arguments; what its processes have measured.
fn run(
    pool: &TestPool,
    task: &Task,
    program: &str,
    channels: &str,
    more: &[&OsStr],
) -> Result<Vec<Measured>> {
    // Its own name is that of the program that starts it there.
    let executable = pool.directory().join("bench-process");
    std::fs::copy(std::env::current_exe()?, &executable).context("cannot copy this program")?;
    let arguments = ["floor-peer", "group", &serde_json::to_string(task)?, "-"];
    let text = format!(
        "[group]\nname = \"bench\"\ncollectives = true\n[program.bench]\nexecutable = {}\narguments = {}\n\
         {program}{channels}",
        serde_json::to_string(&executable)?,
        serde_json::to_string(&arguments)?,
    );
    let file = pool.directory().join("bench.toml");
    std::fs::write(&file, text)?;
    let mut command = pool.command("n1")?;
    command.args(["group", "run", "--quiet", "--no-labels"]).args(more).arg(&file).stderr(Stdio::piped());
    let ran = command.output().context("cannot run a group")?;
    if !ran.status.success() {
        bail!("the group has failed: {}", String::from_utf8_lossy(&ran.stderr).trim_end());
    }
    String::from_utf8_lossy(&ran.stdout).lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

/// One process of such a group; `task` as it was written. What it has measured is what it prints.
pub fn peer(task: &str) -> Result<()> {
    let task: Task = serde_json::from_str(task)?;
    let group = Group::open()?;
    match task {
        Task::Measure { cases, span } => {
            pin(None, group.rank() as usize)?;
            if group.rank() > 0 {
                answer(&group)?;
            } else {
                for (what, size) in cases {
                    println!("{}", serde_json::to_string(&measure(&group, what, size, span)?)?);
                }
            }
        }
        Task::Pairs { what, size, span } => {
            group.barrier()?;
            if group.rank() % 2 > 0 {
                answer(&group)?;
            } else {
                println!("{}", serde_json::to_string(&measure(&group, what, size, span)?)?);
            }
        }
    }
    Ok(group.close()?)
}
