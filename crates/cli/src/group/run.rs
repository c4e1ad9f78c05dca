//! `mutirao group run`

use super::bring::Luggage;
use super::file::File;
use super::launch::Launch;
use super::places::{self, Terms};
use super::print::Printer;
use super::record::Records;
use super::report::Ending;
use super::stdin::Feed;
use super::trace;
use crate::args::{Cli, Output};
use crate::output::remark;
use crate::queue::WaitArgs;
use anyhow::{Context, Result, ensure};
use clap::Args;
use mutirao::raw::{Options, Pool, Private, Slots};
use mutirao_group::Application;
use mutirao_wire::limits::NAME_BYTES_MAX;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

/// What the names of applications begin with that are groups.
pub const APP_PREFIX: &str = "group:";

/// Options of `group run`.
#[derive(Debug, Args)]
#[command(after_help = "\
What the processes write comes out here, a line at a time, with whose it is. When one of them ends with
another exit code than 0, by a signal, or with its machine, the others are ended too, unless the file
asks for restarts; its exit code is passed on. Ctrl-C ends the group, a second one does not wait for that.

With --output json, standard output has one JSON document, when the group has ended; what processes
write goes to standard error.

Examples:
  mutirao group run mandel.app
  mutirao group run mandel.app --stdin xmandel.0 < points
  mutirao group run lab.toml --terminal shell.0 & mutirao group attach lab shell.0
  mutirao group run mandel.toml --wait=2h        when there is room for all processes
  mutirao group run mandel.app --record run1     for `mutirao group replay run1 --process gmandel.1`
  mutirao group run mandel.app --trace run.json  a timeline: open it in ui.perfetto.dev or chrome://tracing
  mutirao group run sums.toml -- 1000000         further arguments for the first program")]
pub struct RunArgs {
    /// The application file
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Name of the group; that in the file, or of the file, unless given
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// The process that reads this program's standard input
    #[arg(long, value_name = "PROCESS")]
    pub stdin: Option<String>,
    /// Give this process a terminal, for `group attach`; may be repeated
    #[arg(long, value_name = "PROCESS")]
    pub terminal: Vec<String>,
    /// Show what processes write as it comes, without saying whose it is
    #[arg(long)]
    pub no_labels: bool,
    /// Keep what each process receives in this directory, for `group replay`
    #[arg(long, value_name = "DIR")]
    pub record: Option<PathBuf>,
    /// Write a timeline of what each process does with its channels to this file, in Chrome's trace format
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Leave out the table of how each process ended
    #[arg(long, short)]
    pub quiet: bool,
    /// How it waits
    #[command(flatten)]
    pub waiting: WaitArgs,
    /// Further arguments for the instances of the first program of the file
    #[arg(last = true, value_name = "ARGUMENTS")]
    pub arguments: Vec<String>,
}

/// Runs a group to its end; the exit code.
pub fn run(cli: &Cli, args: &RunArgs) -> Result<u8> {
    let file = File::open(&args.file)?;
    let mut application = match file.application() {
        Ok(application) => application,
        Err(problems) => {
            problems.iter().for_each(|problem| remark!("{}", file.line(problem)));
            return Ok(1);
        }
    };
    add_arguments(&mut application, &args.arguments);
    for process in &args.terminal {
        let rank = rank_of(&application, process, "have a terminal")?;
        application.processes[rank as usize].terminal = true;
    }
    let feed = args.stdin.as_ref().map(|process| reader(&application, process)).transpose()?;
    let luggage = Luggage::of(&file, &application)?;
    let name = args.name.clone().or(application.settings.name.clone()).unwrap_or_else(|| file.name());
    let records = match (&args.record, &args.trace) {
        (Some(directory), _) => Some(Records::in_directory(directory, &luggage)?),
        (None, Some(_)) => Some(Records::for_timeline(&luggage)?),
        (None, None) => None,
    };
    let timeline = args.trace.as_deref().map(create).transpose()?;
    mutirao::raw::init(crate::operations())?;
    let pool = Pool::open(Options {
        name: Some(app_name(&name)),
        node: cli.node.clone(),
        slots: Slots::ByHand,
        private: if application.stations.is_empty() { Private::IfNeeded } else { Private::Never },
        libraries: luggage.paths(),
        ..Options::default()
    })?;
    places::reach(&pool, &application)?;
    let terms = Terms { wait: args.waiting.wait(), limit_s: args.waiting.limit_s() };
    let leases = places::lease_all(&pool, &application, terms)?;
    let printer = Printer { labels: !args.no_labels, aside: cli.output == Output::Json };
    let mut launch = Launch::new(&pool, &application, &name, leases, terms, printer, feed)?;
    records.into_iter().for_each(|records| launch.record(records));
    let outcome = launch.run().with_context(|| format!("the group `{name}` has ended"))?;
    let ((wall, signal), rows) = (launch.spent(), launch.rows());
    let ending = Ending { group: name.clone(), outcome, signal, wall, rows };
    launch.tell_outcome(ending.text())?;
    let records = launch.take_records();
    drop(launch);
    // The slots are free when the outcome is told.
    pool.close();
    if let (Some(file), Some(records)) = (timeline, records) {
        let left_out = trace::write(records.directory(), &mut BufWriter::new(file))?;
        if left_out > 0 {
            remark!("mutirao: the timeline has no arrows for {left_out} of the messages: they are too many");
        }
    }
    ending.tell(cli.output, args.quiet)?;
    Ok(ending.code())
}

/// A file for the timeline: better refused now than when all has run.
fn create(path: &Path) -> Result<std::fs::File> {
    std::fs::File::create(path).with_context(|| format!("cannot write `{}`", path.display()))
}

/// Under which name others see a group.
fn app_name(group: &str) -> String {
    let mut name = format!("{APP_PREFIX}{group}");
    name.truncate(name.floor_char_boundary(NAME_BYTES_MAX));
    name
}

fn add_arguments(application: &mut Application, arguments: &[String]) {
    let Some(first) = application.processes.first().map(|process| process.program.clone()) else { return };
    for process in application.processes.iter_mut().filter(|process| process.program == first) {
        process.arguments.extend_from_slice(arguments);
    }
}

fn reader(application: &Application, process: &str) -> Result<Feed> {
    let rank = rank_of(application, process, "read the input")?;
    ensure!(
        !application.processes[rank as usize].terminal,
        "`{process}` has a terminal, which is where its input is typed: leave out --stdin"
    );
    Ok(Feed::new(rank))
}

fn rank_of(application: &Application, process: &str, purpose: &str) -> Result<u32> {
    let known: Vec<String> = application.processes.iter().take(8).map(|one| format!("`{one}`")).collect();
    let unknown = || format!("there is no process `{process}` to {purpose}; there are {}", known.join(", "));
    application.rank(process).with_context(unknown)
}
