//! The `mutirao` command: daemon, worker host and client in one binary.
#![forbid(unsafe_code)]

mod admin;
mod alloc;
mod args;
mod bag;
mod bench;
mod call;
mod charter;
mod commands;
mod diff;
mod doctor;
mod group;
mod hosts;
mod known;
mod lending;
mod list;
mod map;
mod membership;
mod orders;
mod output;
mod queue;
mod reading;
mod service;
mod sim;
mod sim_bags;
mod sorted;
mod threads;
mod topology;
mod units;
mod up;
mod wanting;

use crate::output::remark;
use anyhow::Result;
use args::{BenchCommand, Cli, Command, PluginCommand};
use clap::error::ContextKind;
use clap::{CommandFactory, Parser};
use list::Which;
use mutirao::raw::{Options, Pool, Private, Slots};
use mutirao_wire::query::Topic;
use std::process::ExitCode;

fn main() -> ExitCode {
    // Shipped to a node by a benchmark or a group, this program is a worker, and stays in there.
    if std::env::var_os(mutirao_wire::worker::WORKER_ENV).is_some()
        && let Err(error) = mutirao::raw::init(operations())
    {
        remark!("mutirao: {error}");
        return ExitCode::from(1);
    }
    let cli = Cli::try_parse().unwrap_or_else(|error| refuse(error));
    match run(&cli) {
        Ok(code) => ExitCode::from(code),
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            remark!("mutirao: {}", output::words(&error));
            ExitCode::from(1)
        }
    }
}

/// What this program offers when it makes itself a plugin; a worker has the same.
pub(crate) fn operations() -> Vec<mutirao::raw::OperationEntry> {
    let commands = [group::operation(), commands::operation()];
    bench::operations().into_iter().chain(commands).chain(bag::operations()).collect()
}

/// Says what is wrong with the command line, or what was asked of it, and ends.
fn refuse(mut error: clap::Error) -> ! {
    let unknown = error.get(ContextKind::InvalidArg).map(ToString::to_string);
    let is_map = std::env::args_os().any(|word| word == "map");
    let instead = unknown.filter(|_| is_map).and_then(|option| map::instead(&option));
    if instead.is_some() {
        // Those that sound alike do something else.
        for tip in [ContextKind::Suggested, ContextKind::SuggestedArg, ContextKind::SuggestedValue] {
            error.remove(tip);
        }
    }
    // Without a terminal nobody reads it.
    let _ = error.print();
    if let Some(instead) = instead {
        remark!("\nmutirao map: {instead}");
    }
    std::process::exit(error.exit_code())
}

/// Whoever read our output has seen enough.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let kind = |error: &std::io::Error| error.kind() == std::io::ErrorKind::BrokenPipe;
    error.downcast_ref::<std::io::Error>().is_some_and(kind)
}

/// A node that is about to be has another option for its name.
fn refuse_node(cli: &Cli) -> Result<()> {
    let instead = match &cli.command {
        Command::Init(_) => "--node-name",
        Command::Join(_) | Command::Up(_) => "--name",
        _ => return Ok(()),
    };
    // From the environment it is meant for other commands.
    if cli.node.is_some() && std::env::var_os("MUTIRAO_NODE").is_none() {
        anyhow::bail!("--node says which running node to talk to; here the name of the node is {instead}");
    }
    Ok(())
}

fn run(cli: &Cli) -> Result<u8> {
    let output = cli.output;
    refuse_node(cli)?;
    match &cli.command {
        Command::Init(args) => membership::init(args)?,
        Command::Join(args) => membership::join(args)?,
        Command::Invite(args) => membership::invite(args)?,
        Command::Up(args) => match &args.remote.hosts {
            Some(file) => return hosts::up(args, file, output),
            None => up::up(args, output)?,
        },
        Command::Down(args) => match &args.remote.hosts {
            Some(file) => return hosts::down(args, file, output),
            None => up::down(args, cli.node.as_deref())?,
        },
        Command::Sim(args) => sim::run(cli, args)?,
        Command::Topology(command) => topology::run(cli, command)?,
        Command::Service(command) => return service::run(command, output),
        Command::Nodes(args) => list::nodes(&open(cli)?, output, args)?,
        Command::Tree(args) => match &args.change {
            None => list::tree(&open(cli)?, output)?,
            Some(change) => orders::change_tree(&open(cli)?, change)?,
        },
        Command::Apps => list::apps(&open(cli)?, output)?,
        Command::Ps => list::workers(&open(cli)?, output)?,
        Command::Logs { worker } => orders::logs(&open(cli)?, worker)?,
        Command::Kill(args) => order(cli, Topic::Kill { what: args.what.clone() }, None)?,
        Command::Grow(args) => lending::grow(&open(cli)?, args)?,
        Command::Shrink(args) => lending::shrink(&open(cli)?, args)?,
        Command::Reclaim(args) => lending::reclaim(&open(cli)?, args)?,
        Command::Drain(args) => lending::drain(&open(cli)?, args)?,
        Command::Resume { lender } => lending::resume(&open(cli)?, lender.as_deref())?,
        Command::Alloc(args) => return alloc::run(&open(cli)?, args),
        Command::Queue => queue::list(&open(cli)?, output)?,
        Command::Explain { request } => queue::explain(&open(cli)?, request, output)?,
        Command::Plugin(command) => plugin(cli, command)?,
        Command::Charter(command) => charter::run(&open(cli)?, command, output)?,
        Command::Admin(command) => admin::run(&open(cli)?, command, output)?,
        Command::Map(args) => return map::run(cli, args),
        Command::Call(args) => return call::run(cli, args),
        Command::Group(command) => return group::run(cli, command),
        Command::Bag(command) => return bag::run(cli, command),
        Command::Keeper { bag, tells_ready, session, owned } => {
            let session = session.then_some(*owned);
            return bag::keeper(bag, cli.node.clone(), *tells_ready, session);
        }
        Command::Visited { bag, visit, home } => {
            return bag::visited(bag, visit, home, cli.node.as_deref().unwrap_or_default());
        }
        Command::Session(args) => return bag::session(cli, args),
        Command::Bench(command) => bench(cli, command)?,
        Command::Doctor => return doctor::run(output),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "mutirao", &mut script);
            output::put_bytes(&script)?;
        }
        Command::Man => man()?,
        Command::Worker => mutirao_confine::worker_main(),
        Command::Remote => hosts::agent::obey()?,
        Command::Embedded { slots } => up::embedded(*slots)?,
        Command::FloorPeer { carrier, place, home } => bench::floor_peer(carrier, place, home)?,
    }
    Ok(0)
}

/// The pool through this machine's node, for questions and slots: this program has no operations.
pub(crate) fn open(cli: &Cli) -> Result<Pool> {
    let options = Options {
        name: Some(application_name(&cli.command)),
        node: cli.node.clone(),
        slots: Slots::ByHand,
        private: Private::Never,
        ..Options::default()
    };
    Ok(Pool::open(options)?)
}

/// Under which name others see this program: that of the command it runs, if any.
fn application_name(command: &Command) -> String {
    let runs = match command {
        Command::Alloc(args) => args.command.first(),
        _ => None,
    };
    let base = |word| std::path::Path::new(word).file_name().map(|name| name.to_string_lossy().into_owned());
    runs.and_then(base).unwrap_or_else(|| "mutirao".into())
}

fn order(cli: &Cli, topic: Topic, to: Option<String>) -> Result<()> {
    orders::give(&open(cli)?, topic, to)
}

fn plugin(cli: &Cli, command: &PluginCommand) -> Result<()> {
    let list = |which: Which<'_>| list::plugins(&open(cli)?, cli.output, which);
    let approve = |approve: bool, plugin: &str| Topic::Approve { plugin: plugin.to_owned(), approve };
    match command {
        PluginCommand::Ls => list(Which::Kept),
        PluginCommand::Pending => list(Which::Pending),
        PluginCommand::Show(args) => list(Which::One(&args.plugin)),
        PluginCommand::Approve(args) => order(cli, approve(true, &args.plugin), args.on.clone()),
        PluginCommand::Deny(args) => order(cli, approve(false, &args.plugin), args.on.clone()),
        PluginCommand::Rm(args) => {
            order(cli, Topic::RemovePlugin { plugin: args.plugin.clone() }, args.on.clone())
        }
    }
}

fn bench(cli: &Cli, command: &BenchCommand) -> Result<()> {
    match command {
        BenchCommand::Call { seconds, only } => bench::call(cli.output, *seconds, only),
        BenchCommand::Channel { seconds, only } => bench::channel(cli.output, *seconds, only),
        BenchCommand::Alloc { nodes, rounds, fan_out, full } => {
            bench::alloc(cli.output, *nodes, *rounds, *fan_out, *full)
        }
        BenchCommand::Bag { tasks, large, only } => bench::bag(cli.output, *tasks, *large, only),
        BenchCommand::Grow { rounds } => bench::grow(cli.output, *rounds),
        BenchCommand::Idle { seconds } => bench::idle(cli.output, *seconds),
        BenchCommand::Heal { nodes, rounds, fan_out } => bench::heal(cli.output, *nodes, *rounds, *fan_out),
    }
}

fn man() -> Result<()> {
    let command = Cli::command();
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut page)?;
    man_of(&command, "mutirao", &mut page)?;
    output::put_bytes(&page)
}

/// The sections of a command's subcommands, and of theirs.
fn man_of(command: &clap::Command, name: &str, page: &mut Vec<u8>) -> Result<()> {
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        let name = format!("{name} {}", sub.get_name());
        let man = clap_mangen::Man::new(sub.clone().bin_name(&name));
        man.render_synopsis_section(page)?;
        man.render_description_section(page)?;
        man.render_options_section(page)?;
        man.render_extra_section(page)?;
        man_of(sub, &name, page)?;
    }
    Ok(())
}
