//! `mutirao sim bags`: tries schedulers of bags on drawn grids.

use crate::args::Output;
use crate::sim::print;
use crate::sorted::sort;
use anyhow::{Result, anyhow};
use clap::{Args, ValueEnum};
use mutirao_sim::bags::{Contender, Ran, Scenario, Study};
use serde_json::{Value, json};

/// Options of `sim bags`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mutirao sim bags                               tasks that compute, on 100 drawn grids
  mutirao sim bags --by task-spread --schedulers workqueue,wqr:2,wqr:3
                                                 the same, apart by how unlike the tasks are
  mutirao sim bags --study data                  tasks that read much, in a bag run five times
  mutirao sim bags --machines 12 --machine-spread 3 --task-size 600 --scenarios 20
                                                 a bag like yours: tasks of a minute on machines of speed 10")]
pub struct BagsArgs {
    /// What the tasks are like
    #[arg(long, value_enum, default_value = "compute")]
    pub study: Tasks,
    /// Grids and bags to draw
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    pub scenarios: u64,
    /// Who runs them: names as in a bag file, with the attempts of a task at once after a colon; and
    /// fpltf, sufferage, xsufferage, which are told all sizes, speeds and load: the future too, or with
    /// ":now" only how it is
    #[arg(long, value_name = "NAME,NAME..", value_delimiter = ',')]
    pub schedulers: Vec<Contender>,
    /// Show results apart by this
    #[arg(long, value_enum, value_name = "WHAT")]
    pub by: Option<By>,
    /// Machines of average speed 10; drawn ones are as many as are as fast together
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub machines: u32,
    /// How many times faster the fastest machine may be than the slowest, instead of a drawn number
    #[arg(long, value_name = "TIMES", value_parser = at_least_one)]
    pub machine_spread: Option<f64>,
    /// Size of the average task, instead of a drawn one: seconds on a machine of speed 1; of tasks that
    /// read much, MB
    #[arg(long, value_name = "SIZE", value_parser = at_least_one)]
    pub task_size: Option<f64>,
    /// How far the sizes of tasks lie apart, as a part of the average, instead of a drawn number
    #[arg(long, value_name = "0..1", value_parser = part)]
    pub task_spread: Option<f64>,
    /// The machines have nothing else to do
    #[arg(long)]
    pub idle: bool,
    /// From which all chance follows: the same seed, the same result
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
}

/// Kinds of tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Tasks {
    /// They read nothing
    Compute,
    /// They read much
    Data,
}

/// What results can be shown apart by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum By {
    /// How unlike the machines are
    MachineSpread,
    /// How large the average task is
    TaskSize,
    /// How unlike the tasks are
    TaskSpread,
}

impl By {
    fn of(self, scenario: &Scenario) -> f64 {
        match self {
            By::MachineSpread => scenario.machine_spread,
            By::TaskSize => scenario.task_size,
            By::TaskSpread => scenario.task_spread,
        }
    }

    fn name(self) -> &'static str {
        match self {
            By::MachineSpread => "machine spread",
            By::TaskSize => "task size",
            By::TaskSpread => "task spread",
        }
    }
}

fn at_least_one(text: &str) -> Result<f64, String> {
    let sound = text.parse().ok().filter(|value: &f64| value.is_finite() && *value >= 1.0);
    sound.ok_or_else(|| "say a number of 1 or more".into())
}

fn part(text: &str) -> Result<f64, String> {
    let sound = text.parse().ok().filter(|value| (0.0..=1.0).contains(value));
    sound.ok_or_else(|| "say a number from 0 to 1".into())
}

/// What one scheduler made of the scenarios of one group.
#[derive(Debug, Default, Clone)]
struct Sum {
    scenarios: u32,
    makespan_s: f64,
    against_best: f64,
    wasted_work: f64,
    wasted_work_most: f64,
    wasted_time: f64,
    wasted_bytes: f64,
    brought_mb: f64,
}

impl Sum {
    fn add(&mut self, ran: &Ran, best_s: f64) {
        self.scenarios += 1;
        self.makespan_s += ran.makespan_s;
        self.against_best += ran.makespan_s / best_s;
        self.wasted_work += ran.wasted_work;
        self.wasted_work_most = self.wasted_work_most.max(ran.wasted_work);
        self.wasted_time += ran.wasted_time;
        self.wasted_bytes += ran.wasted_bytes;
        self.brought_mb += ran.brought_bytes as f64 / 1e6;
    }
}

/// Runs `mutirao sim bags`.
pub fn run(output: Output, args: &BagsArgs) -> Result<()> {
    let (study, usual): (_, &[&str]) = match args.study {
        Tasks::Compute => (Study::Compute, &["workqueue", "wqr:2", "wqr:4", "fpltf:now", "fpltf"]),
        Tasks::Data => (
            Study::Data,
            &["wqr:2", "storage-affinity:2", "storage-affinity:4", "xsufferage:now", "xsufferage"],
        ),
    };
    let usual = || usual.iter().map(|name| name.parse().expect("these names are known"));
    let contenders: Vec<Contender> =
        if args.schedulers.is_empty() { usual().collect() } else { args.schedulers.clone() };
    // A handful of groups, in the order of what they are apart by.
    let mut groups: Vec<(f64, Vec<Sum>)> = Vec::new();
    for seed in args.seed..args.seed.saturating_add(args.scenarios) {
        let scenario = draw(args, study, seed);
        let all = scenario.run(&contenders).map_err(|why| anyhow!("seed {seed}: {why}; please report it"))?;
        let best_s = all.iter().map(|ran| ran.makespan_s).fold(f64::INFINITY, f64::min);
        let group = args.by.map_or(0.0, |by| by.of(&scenario));
        let at = groups.iter().position(|(of, _)| *of == group).unwrap_or_else(|| {
            groups.push((group, vec![Sum::default(); contenders.len()]));
            groups.len() - 1
        });
        for (sum, ran) in groups[at].1.iter_mut().zip(&all) {
            sum.add(ran, best_s);
        }
    }
    sort(&mut groups, |a, b| a.0.total_cmp(&b.0));
    print(output, &Value::Null, || {
        format!(
            "{:<14} {:<20} {:>9} {:>11} {:>9} {:>11} {:>11} {:>11} {:>12} {:>11}",
            args.by.map_or("", By::name),
            "scheduler",
            "scenarios",
            "makespan s",
            "to best",
            "wasted work",
            "at most",
            "wasted time",
            "wasted bytes",
            "brought MB"
        )
    })?;
    for (group, sums) in &groups {
        for (contender, sum) in contenders.iter().zip(sums) {
            show(output, args, *group, contender, sum)?;
        }
    }
    Ok(())
}

fn draw(args: &BagsArgs, study: Study, seed: u64) -> Scenario {
    let drawn = Scenario::new(study, seed);
    Scenario {
        machines: args.machines,
        machine_spread: args.machine_spread.unwrap_or(drawn.machine_spread),
        task_size: args.task_size.unwrap_or(drawn.task_size),
        task_spread: args.task_spread.unwrap_or(drawn.task_spread),
        loaded: !args.idle,
        ..drawn
    }
}

fn show(output: Output, args: &BagsArgs, group: f64, contender: &Contender, sum: &Sum) -> Result<()> {
    let n = f64::from(sum.scenarios);
    let (makespan_s, against_best) = (sum.makespan_s / n, sum.against_best / n);
    let (wasted_work, wasted_time) = (sum.wasted_work / n, sum.wasted_time / n);
    let (wasted_bytes, brought_mb) = (sum.wasted_bytes / n, sum.brought_mb / n);
    let study = match args.study {
        Tasks::Compute => "compute",
        Tasks::Data => "data",
    };
    let row = json!({
        "name": "bags", "study": study, "by": args.by.map(By::name), "group": args.by.map(|_| group),
        "scheduler": contender.to_string(), "scenarios": sum.scenarios, "makespan_s": makespan_s,
        "to_best": against_best, "wasted_work": wasted_work, "wasted_work_max": sum.wasted_work_most,
        "wasted_time": wasted_time,
        "wasted_bytes": wasted_bytes, "brought_mb": brought_mb,
    });
    print(output, &row, || {
        let group = args.by.map(|_| group.to_string()).unwrap_or_default();
        format!(
            "{group:<14} {:<20} {:>9} {makespan_s:>11.0} {against_best:>9.2} {:>10.1}% {:>10.1}% {:>10.1}% {:>11.1}% {brought_mb:>11.0}",
            contender.to_string(),
            sum.scenarios,
            wasted_work * 100.0,
            sum.wasted_work_most * 100.0,
            wasted_time * 100.0,
            wasted_bytes * 100.0,
        )
    })
}
