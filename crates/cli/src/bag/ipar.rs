//! `mutirao bag ipar`: applications of the ipar framework, and how they report.

use super::java;
use super::place::Place;
use super::work::{REPORT, REPORT_ENV};
use crate::args::Cli;
use crate::reading::{self, LIST_BYTES_MAX};
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use mutirao_bag::Settings;
use mutirao_bag::report::Said;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Options of `bag ipar`.
#[derive(Debug, Args)]
#[command(after_help = "\
The application is run with four arguments: how to reach the manager, the method (inicia, executa, finaliza),
the number of the task, the task. It reports once each time, with `mutirao bag report` or the calls of ipar.h,
and exits. `inicia` runs first and lists the tasks; `finaliza` runs when all are done.
A .class or .jar is run by Java, and reports to the object `InterfaceGerente` that it looks up.

Example: mutirao bag ipar --app ./soma --nodes nodes.txt")]
pub struct IparArgs {
    /// The application
    #[arg(long, value_name = "PROGRAM")]
    pub app: PathBuf,
    /// Arguments of its own, before the four
    #[arg(long = "arg", value_name = "ARGUMENT", allow_hyphen_values = true)]
    pub arguments: Vec<String>,
    /// File with the names of the nodes to run on, one a line; all unless given
    #[arg(long, value_name = "FILE")]
    pub nodes: Option<PathBuf>,
    /// Where the list of tasks is written from time to time; beside the application unless given
    #[arg(long, value_name = "FILE")]
    pub list: Option<PathBuf>,
    /// How often a task is tried again that failed or did not report
    #[arg(long, default_value_t = 2)]
    pub retries: u32,
    /// Runs save state for their next attempt: MUTIRAO_CHECKPOINT names the file, `mutirao bag checkpoint` keeps it
    #[arg(long)]
    pub saves_state: bool,
    /// In the background
    #[arg(long)]
    pub detach: bool,
}

/// Options of `bag report`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples, in a script of the application:
  mutirao bag report \"$1\" lista 'first task' 'second task'
  mutirao bag report \"$1\" tarefa \"$3\" ok
  mutirao bag report \"$1\" finaliza ok")]
pub struct ReportArgs {
    /// How to reach the manager: the first argument of the application
    pub manager: PathBuf,
    /// What is reported
    #[command(subcommand)]
    pub what: ReportCommand,
}

/// A report.
#[derive(Debug, Subcommand)]
pub enum ReportCommand {
    /// These are the tasks (from inicia), or what this task was split into (from executa)
    #[command(after_help = "Example: mutirao bag report \"$1\" lista a b c")]
    Lista {
        /// The tasks; with none, they are read from standard input, one a line
        tasks: Vec<String>,
    },
    /// A task was done, or could not be
    #[command(after_help = "Example: mutirao bag report \"$1\" tarefa \"$3\" ok")]
    Tarefa {
        /// Its number
        id: i64,
        /// How it went
        how: How,
    },
    /// All is joined, or could not be
    #[command(after_help = "Example: mutirao bag report \"$1\" finaliza ok")]
    Finaliza {
        /// How it went
        how: How,
    },
}

/// How it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum How {
    /// Well
    Ok,
    /// Badly
    Failed,
}

/// Runs an application.
pub fn run(cli: &Cli, args: &IparArgs) -> Result<u8> {
    let app = std::path::absolute(&args.app).context("the application has no path")?;
    if !app.is_file() {
        bail!("there is no application {}", app.display());
    }
    let name = app.file_name().map_or_else(|| "ipar".into(), |name| name.to_string_lossy().into_owned());
    let list = args.list.clone().unwrap_or_else(|| PathBuf::from(format!("{name}.tasks")));
    let list = std::path::absolute(list).context("the list has no path")?;
    let nodes = match &args.nodes {
        None => Vec::new(),
        Some(file) => nodes(file)?,
    };
    // The application works beside its own files, and is brought along to where those cannot be reached.
    let (Some(directory), Some(file)) = (app.parent(), app.file_name()) else {
        bail!("{} is no application", app.display());
    };
    let file = format!("./{}", text(file)?);
    let (mut program, files) = match java::runs(&app) {
        true => java::command(directory, &file)?,
        false => (vec![file.clone()], vec![file]),
    };
    let directory = text(directory.as_os_str())?;
    let settings = Settings { list: Some(text(list.as_os_str())?), nodes, directory, ..super::here(name)? };
    program.extend(args.arguments.iter().cloned());
    let draft = mutirao_bag::ipar::bag(settings, program, files, args.retries, args.saves_state);
    match args.detach {
        true => super::submit(cli, draft, cli.output),
        false => super::run_here(Place::submit(draft)?, cli.node.clone()),
    }
}

/// A name as text.
pub fn text(name: &std::ffi::OsStr) -> Result<String> {
    name.to_str().map(str::to_owned).with_context(|| format!("{} is no text", name.display()))
}

/// The nodes of a file: the first word of each line.
fn nodes(file: &Path) -> Result<Vec<String>> {
    let text = reading::text(file, LIST_BYTES_MAX)?;
    let names = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    let names: Vec<String> =
        names.filter_map(|line| line.split_whitespace().next().map(str::to_owned)).collect();
    if names.is_empty() {
        bail!("{} names no node; write one name a line", file.display());
    }
    Ok(names)
}

/// Reports to the manager.
pub fn report(args: &ReportArgs) -> Result<u8> {
    if args.manager.file_name() != Some(REPORT.as_ref()) {
        bail!(
            "{} is no place to report to: it is the first argument that `mutirao bag ipar` gives to an application",
            args.manager.display()
        );
    }
    let ok = |how: &How| *how == How::Ok;
    let said = match &args.what {
        ReportCommand::Lista { tasks } if tasks.is_empty() => {
            let text = reading::text(Path::new("-"), LIST_BYTES_MAX).context("the list of tasks")?;
            Said::Tasks(text.lines().map(str::to_owned).collect())
        }
        ReportCommand::Lista { tasks } => Said::Tasks(tasks.clone()),
        ReportCommand::Tarefa { id, how } => Said::Task { id: *id, ok: ok(how) },
        ReportCommand::Finaliza { how } => Said::End(ok(how)),
    };
    write(&args.manager, &said.line())?;
    Ok(0)
}

/// Writes a line into the report of the task that this runs in.
pub fn write(report: &Path, line: &str) -> Result<()> {
    let failed = || {
        format!(
            "the report cannot be written to {}; is this a task of a bag (${REPORT_ENV})?",
            report.display()
        )
    };
    let opened = OpenOptions::new().create(true).append(true).open(report).with_context(failed)?;
    // At once, so that lines of several processes do not mix.
    (&opened).write_all(line.as_bytes()).with_context(failed)
}
