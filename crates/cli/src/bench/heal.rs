//! Healing: the root is lost, and the survivors become one tree again.

use super::pool::{Shape, TestPool};
use super::{Case, print, quantile};
use crate::args::Output;
use crate::output::remark;
use anyhow::{Context, Result, ensure};
use mutirao::raw::{Pool, Slots};
use mutirao_wire::query::{NodeRow, Row, Topic};
use rustix::process::{Signal, kill_process};
use serde_json::json;
use std::time::{Duration, Instant};

/// How a root is lost.
#[derive(Clone, Copy, PartialEq)]
enum Loss {
    /// Its process ends: the kernel closes its connections.
    Killed,
    /// It stands still: its connections stay, and are silent.
    Stopped,
}

/// Longer than any healing.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long one look at the pool may take.
const LOOK: Duration = Duration::from_millis(150);

/// Starts `nodes` daemons and loses the root, `rounds` times in each of two ways.
pub fn heal(output: Output, nodes: u16, rounds: u32, fan_out: u16) -> Result<()> {
    remark!("starting {nodes} daemons...");
    let mut test = TestPool::start(&Shape { nodes, slots: 1, fan_out, spin: false })?;
    let mut cases = Vec::new();
    for (loss, name) in [(Loss::Killed, "root killed"), (Loss::Stopped, "root stands still")] {
        let mut healed_us = Vec::new();
        let mut whole_us = Vec::new();
        for round in 0..rounds {
            let (healed, whole) =
                lose_root(&mut test, nodes, loss).with_context(|| format!("{name}, round {round}"))?;
            healed_us.push(healed.as_secs_f64() * 1e6);
            whole_us.push(whole.as_secs_f64() * 1e6);
            remark!("{name}: {:.0} ms", healed.as_secs_f64() * 1e3);
        }
        healed_us.sort_by(f64::total_cmp);
        whole_us.sort_by(f64::total_cmp);
        cases.push(Case {
            nodes: Some(nodes.into()),
            n: Some(rounds.into()),
            p50_us: Some(quantile(&healed_us, 0.5)),
            p99_us: Some(quantile(&healed_us, 0.99)),
            pinned: Some("no"),
            tls: Some(true),
            extra: vec![
                ("max_us", json!(healed_us.last())),
                ("return_p50_us", json!(quantile(&whole_us, 0.5))),
                ("return_max_us", json!(whole_us.last())),
                ("fan_out", json!(fan_out)),
            ],
            ..Case::new(name)
        });
    }
    print(output, &cases)
}

/// The time from the loss of the root until the others are one tree, and from its return until all are.
fn lose_root(test: &mut TestPool, nodes: u16, loss: Loss) -> Result<(Duration, Duration)> {
    let all = usize::from(nodes);
    let pool = test.open("n1", "bench heal", Slots::ByHand)?;
    let rows = one_tree(&pool, all)?;
    let name =
        |root: bool| rows.iter().find(|row| row.parent.is_none() == root).map(|row| row.node.name.clone());
    let root = name(true).context("there is no root")?;
    // Seen from elsewhere, since a program of the root's is lost with it.
    let watch = name(false).context("the root is alone")?;
    let pool = test.open(&watch, "bench heal", Slots::ByHand)?;
    let pid = test.pid(&root)?;
    let start = Instant::now();
    kill_process(pid, if loss == Loss::Killed { Signal::KILL } else { Signal::STOP })?;
    one_tree(&pool, all - 1)?;
    let healed = start.elapsed();
    let start = Instant::now();
    match loss {
        Loss::Killed => test.restart(&root, &watch)?,
        Loss::Stopped => kill_process(pid, Signal::CONT)?,
    }
    one_tree(&pool, all)?;
    Ok((healed, start.elapsed()))
}

/// Waits until so many nodes answer, of which one is the root and the others are below one another.
fn one_tree(pool: &Pool, count: usize) -> Result<Vec<NodeRow>> {
    let start = Instant::now();
    loop {
        let answers = match pool.query(Topic::Nodes, None, Vec::new(), LOOK) {
            Err(mutirao::raw::Error::TimedOut { .. }) if start.elapsed() < PATIENCE => continue,
            answers => answers?,
        };
        let rows: Vec<NodeRow> = (answers.rows.into_iter())
            .filter_map(|row| if let Row::Node(row) = row { Some(row) } else { None })
            .collect();
        let known = |name: &String| rows.iter().any(|row| row.node.name == *name);
        let roots = rows.iter().filter(|row| row.parent.is_none()).count();
        if rows.len() == count && roots == 1 && rows.iter().filter_map(|row| row.parent.as_ref()).all(known) {
            return Ok(rows);
        }
        ensure!(
            start.elapsed() < PATIENCE,
            "{} of {count} nodes answer, {roots} of them without a parent",
            rows.len()
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}
