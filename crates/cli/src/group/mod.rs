//! `mutirao group`: groups of processes joined by channels.

mod attach;
mod bring;
mod check;
mod file;
mod guests;
mod launch;
mod list;
mod needs;
mod places;
mod print;
mod process;
mod record;
mod replay;
mod report;
mod row;
mod run;
mod signals;
mod stdin;
mod terminal;
mod trace;

use crate::args::Cli;
use anyhow::Result;
use clap::Subcommand;

pub use process::operation;

/// What to do with groups.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
An application file says which programs run, how often, where, and what joins them:
  P rubi                                    a machine: the name of a node
  T xmandel 1 1 1                           a program: instances, input and output channels
  T gmandel 2 1 1
  L xmandel 0 aplic/mandel/ rubi -2.5 0.5   an instance: directory, machine, arguments
  L gmandel 0 aplic/mandel/ rubi
  L gmandel 1 aplic/mandel/ rubi
  C xmandel 0 0 = gmandel 0 0, gmandel 1 0  a channel: input ends = output ends
  C gmandel 0 0, gmandel 1 0 = xmandel 0 0
or the same in TOML, without machines:
  [program.xmandel]
  executable = \"aplic/mandel/xmandel\"
  [program.gmandel]
  executable = \"aplic/mandel/gmandel\"
  instances = 2
  [[channel]]
  from = \"gmandel.*:0\"
  to = \"xmandel.0:0\"
  [[channel]]
  from = \"xmandel.0:0\"
  to = \"gmandel.*:0\"")]
pub enum GroupCommand {
    /// Say what is wrong with an application file, and where; draw its wiring
    Check(check::CheckArgs),
    /// Run a group, and show what its processes write
    Run(run::RunArgs),
    /// Run one process of a recorded group again, alone
    Replay(replay::ReplayArgs),
    /// List the groups that run in the pool
    Ls(list::ListArgs),
    /// List the processes of a group, also of one that is over
    Show(list::ShowArgs),
    /// Print the last lines that the processes of a group have written to their standard errors
    Logs(list::LogsArgs),
    /// Make this terminal that of a process of a group
    Attach(attach::AttachArgs),
    /// End a group
    Kill(list::GroupName),
}

/// Does it; the exit code.
pub fn run(cli: &Cli, command: &GroupCommand) -> Result<u8> {
    match command {
        GroupCommand::Check(args) => return check::run(args, cli.output),
        GroupCommand::Run(args) => return run::run(cli, args),
        GroupCommand::Replay(args) => return replay::run(args),
        GroupCommand::Attach(args) => return attach::run(&crate::open(cli)?, args),
        GroupCommand::Ls(args) => list::list(&crate::open(cli)?, args, cli.output)?,
        GroupCommand::Show(args) => list::show(&crate::open(cli)?, args, cli.output)?,
        GroupCommand::Logs(args) => list::logs(&crate::open(cli)?, args, cli.output)?,
        GroupCommand::Kill(args) => list::kill(&crate::open(cli)?, args)?,
    }
    Ok(0)
}
