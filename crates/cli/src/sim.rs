//! `mutirao sim`: tries a pool and a load in a simulation, before machines are asked.

use crate::args::{Cli, Output};
use crate::output::{put, remark};
use crate::sim_bags::{self, BagsArgs};
use crate::up::read_topology;
use anyhow::{Result, anyhow, ensure};
use clap::{Args, Subcommand};
use mutirao_sim::{Allocator, Plan, Random, Served, Traffic, Trial, allocate_once, run_faults};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Nodes started at once in a large pool.
const WAVE: usize = 1000;
/// Least memory of the machine, MiB, for each thousand nodes.
const MIB_A_THOUSAND: usize = 9;

/// Options of `sim`.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  mutirao sim --nodes 205                        how such a pool forms, and what allocating costs
  mutirao sim --topology rooms.txt --latency 200 the tree of a file, links of 200 microseconds
  mutirao sim --nodes 1000 --slots 4 --load 95   programs that keep 95 % of the slots busy, and how a
                                                 central server and random probes would serve them
  mutirao sim --nodes 40 --faults 100            100 runs with crashes, cuts and stalls
  mutirao sim bags --by task-size                how long bags of tasks would take, by scheduler"
)]
pub struct SimArgs {
    /// What else can be tried
    #[command(subcommand)]
    pub what: Option<What>,
    /// Nodes of the pool
    #[arg(long, value_name = "N", default_value_t = 205, conflicts_with = "topology",
          value_parser = clap::value_parser!(u32).range(1..=2_000_000))]
    pub nodes: u32,
    /// Children of a node
    #[arg(long, value_name = "N", default_value_t = 16, conflicts_with = "topology",
          value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub fan_out: u16,
    /// The tree of this file instead (see `mutirao topology`)
    #[arg(long, value_name = "FILE")]
    pub topology: Option<PathBuf>,
    /// Slots of a node
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub slots: u16,
    /// Time of a message between two nodes, microseconds
    #[arg(long, value_name = "US", default_value_t = 50)]
    pub latency: u64,
    /// Slots to allocate at once, several sizes; 0 for all
    #[arg(long, value_name = "N,N..", value_delimiter = ',', default_values_t = [1, 8, 64, 0])]
    pub alloc: Vec<u32>,
    /// How often each size is allocated, each time from another node
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
    /// Let programs come and go that keep so many per cent of the slots busy (several: 50,80,95)
    #[arg(long, value_name = "PERCENT", value_delimiter = ',',
          value_parser = clap::value_parser!(u32).range(1..=150))]
    pub load: Vec<u32>,
    /// Slots of each of these programs
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    pub each: u32,
    /// How long they hold them on average, milliseconds
    #[arg(long, value_name = "MS", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    pub hold: u64,
    /// How long they wait for them, milliseconds
    #[arg(long, value_name = "MS", default_value_t = 2000)]
    pub patience: u64,
    /// Programs that are counted
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..))]
    pub programs: u32,
    /// Runs of a pool of this size under faults: what must hold is checked after each step
    #[arg(long, value_name = "RUNS", default_value_t = 0)]
    pub faults: u64,
    /// From which all chance follows: the same seed, the same result
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
}

/// What `sim` tries besides pools.
#[derive(Debug, Subcommand)]
pub enum What {
    /// Try schedulers of bags of tasks on drawn grids
    Bags(BagsArgs),
}

/// Runs `mutirao sim`.
pub fn run(cli: &Cli, args: &SimArgs) -> Result<()> {
    if let Some(What::Bags(args)) = &args.what {
        return sim_bags::run(cli.output, args);
    }
    let trial = trial(args)?;
    if args.faults > 0 {
        return faults(cli.output, args, trial.parents.len());
    }
    if args.load.is_empty() { allocations(cli.output, args, &trial) } else { loads(cli.output, args, &trial) }
}

fn trial(args: &SimArgs) -> Result<Trial> {
    let mut trial = match &args.topology {
        None => Trial::regular(args.nodes as usize, args.fan_out.into()),
        Some(path) => {
            let topology = read_topology(path)?;
            // Parents before their children.
            let mut order = vec![topology.root().to_owned()];
            let mut at = 0;
            while at < order.len() {
                order.extend(topology.children(&order[at]).iter().cloned());
                at += 1;
            }
            let number: HashMap<&str, usize> = order.iter().map(String::as_str).zip(0..).collect();
            let parent = |node: &String| topology.parent(node).map(|parent| number[parent]);
            let parents = order.iter().map(parent).collect();
            Trial { parents, ..Trial::regular(0, 1) }
        }
    };
    let link = Duration::from_micros(args.latency);
    trial.latency = (link, link);
    trial.slots = args.slots;
    trial.seed = args.seed;
    trial.wave = if trial.parents.len() > WAVE { WAVE } else { 0 };
    let needed_mib = trial.parents.len() / 1000 * MIB_A_THOUSAND;
    ensure!(
        needed_mib < available_mib(),
        "{} nodes need about {needed_mib} MiB of memory; {} MiB are free",
        trial.parents.len(),
        available_mib()
    );
    Ok(trial)
}

fn allocations(output: Output, args: &SimArgs, trial: &Trial) -> Result<()> {
    let count = trial.parents.len();
    let fan_out = args.topology.is_none().then_some(args.fan_out);
    remark!("forming a pool of {count} nodes...");
    let start = Instant::now();
    let (mut world, formed) = trial.form().map_err(|why| anyhow!(why))?;
    let formation = json!({
        "name": "formation", "nodes": count, "fan_out": fan_out, "depth": formed.depth,
        "ms": formed.time.as_secs_f64() * 1e3, "messages": formed.messages,
        "bytes_per_node": formed.bytes / count as u64,
        "resident_bytes_per_node": resident_bytes() / count as u64,
        "wall_s": start.elapsed().as_secs_f64(),
    });
    print(output, &formation, || {
        format!(
            "{count} nodes, {} deep, formed in {:.1} ms: {} messages, {} bytes a node\n\
             the simulation took {:.1} s and {} bytes of memory a node\n\n{:>9} {:>9} {:>11} {:>11} {:>10} {:>10} {:>8}",
            formed.depth,
            formed.time.as_secs_f64() * 1e3,
            formed.messages,
            formed.bytes / count as u64,
            start.elapsed().as_secs_f64(),
            resident_bytes() / count as u64,
            "slots",
            "found",
            "median us",
            "p99 us",
            "messages",
            "bytes",
            "wall s"
        )
    })?;
    let all = count as u32 * u32::from(args.slots);
    let mut random = Random::new(args.seed);
    for &size in &args.alloc {
        let size = if size == 0 { all } else { size.min(all) };
        let start = Instant::now();
        let mut runs: Vec<_> =
            (0..args.rounds).map(|_| allocate_once(&mut world, random.below(count), size)).collect();
        let wall_s = start.elapsed().as_secs_f64();
        runs.sort_by_key(|run| run.time);
        let at = |part: f64| runs[((runs.len() - 1) as f64 * part).round() as usize];
        let (median, p99) = (at(0.5), at(0.99));
        let found = runs.iter().map(|run| run.found).min().unwrap_or_default();
        let us = |time: Duration| time.as_secs_f64() * 1e6;
        let mean =
            |of: fn(&mutirao_sim::Allocated) -> u64| runs.iter().map(of).sum::<u64>() / runs.len() as u64;
        let (messages, bytes) = (mean(|run| run.messages), mean(|run| run.bytes));
        let row = json!({
            "name": "allocate", "nodes": count, "fan_out": fan_out, "depth": formed.depth, "slots": size, "found": found,
            "p50_us": us(median.time), "p99_us": us(p99.time), "n": args.rounds,
            "messages": messages, "bytes": bytes, "wall_s": wall_s,
        });
        print(output, &row, || {
            format!(
                "{size:>9} {found:>9} {:>11.0} {:>11.0} {messages:>10} {bytes:>10} {wall_s:>8.2}",
                us(median.time),
                us(p99.time)
            )
        })?;
    }
    Ok(())
}

fn loads(output: Output, args: &SimArgs, trial: &Trial) -> Result<()> {
    let ms = Duration::from_millis;
    let servers = [
        ("tree", Allocator::Tree),
        ("central, 2 ms a request", Allocator::Central(ms(2))),
        ("central, 0.1 ms a request", Allocator::Central(Duration::from_micros(100))),
        ("two random probes a slot", Allocator::Probing(2)),
    ];
    let title = format!(
        "{:>5}  {:<26} {:>8} {:>10} {:>10} {:>10}",
        "load", "served by", "success", "median ms", "p99 ms", "messages"
    );
    print(output, &Value::Null, || title)?;
    for &load_percent in &args.load {
        let traffic = Traffic {
            load_percent,
            each: args.each,
            hold: ms(args.hold),
            patience: ms(args.patience),
            requests: args.programs as usize,
        };
        for (name, allocator) in servers {
            let served: Served = traffic.serve(trial, allocator).map_err(|why| anyhow!(why))?;
            let at = |part| served.quantile(part).map(|time| time.as_secs_f64() * 1e3);
            let row = json!({
                "name": "load", "nodes": trial.parents.len(), "slots": args.slots, "load_percent": load_percent,
                "each": args.each, "hold_ms": args.hold, "served_by": name, "n": served.asked,
                "success": served.success(), "p50_ms": at(0.5), "p99_ms": at(0.99),
                "messages": served.messages,
            });
            let shown = |time: Option<f64>| time.map_or("-".into(), |ms| format!("{ms:.2}"));
            print(output, &row, || {
                format!(
                    "{load_percent:>4}%  {name:<26} {:>7.1}% {:>10} {:>10} {:>10.1}",
                    served.success() * 100.0,
                    shown(at(0.5)),
                    shown(at(0.99)),
                    served.messages
                )
            })?;
        }
    }
    Ok(())
}

fn faults(output: Output, args: &SimArgs, nodes: usize) -> Result<()> {
    let mut failed = 0;
    for seed in args.seed..args.seed.saturating_add(args.faults) {
        let plan = Plan { nodes, ..Plan::new(seed) };
        let ran = std::panic::catch_unwind(|| run_faults(&plan).map(|world| world.messages()));
        let why = match ran {
            Ok(Ok(messages)) => {
                let row = json!({ "name": "faults", "seed": seed, "holds": true, "messages": messages });
                print(output, &row, || format!("seed {seed}: {messages} messages; all that must hold held"))?;
                continue;
            }
            Ok(Err(why)) => why,
            Err(_) => "see above".into(),
        };
        failed += 1;
        let row = json!({ "name": "faults", "seed": seed, "holds": false, "why": why });
        print(output, &row, || format!("seed {seed}: {why}"))?;
    }
    ensure!(failed == 0, "{failed} of {} runs failed; please report the seeds", args.faults);
    Ok(())
}

/// One row: an object a line, or text.
pub(crate) fn print(output: Output, row: &Value, text: impl FnOnce() -> String) -> Result<()> {
    match output {
        Output::Json if row.is_null() => Ok(()),
        Output::Json => put(&format!("{row}\n")),
        Output::Text => put(&format!("{}\n", text())),
    }
}

/// A figure of a file in `/proc` whose lines are `Name: N kB`, in KiB; 0 if it is not there.
fn proc_kib(file: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}

fn resident_bytes() -> u64 {
    proc_kib("/proc/self/status", "VmRSS") * 1024
}

fn available_mib() -> usize {
    match proc_kib("/proc/meminfo", "MemAvailable") {
        0 => usize::MAX,
        kib => (kib / 1024) as usize,
    }
}
