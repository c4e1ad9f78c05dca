//! `mutirao map`: a command for each of many arguments, on this machine or over the pool.

mod args;
mod halt;
mod job;
mod joblog;
mod parallel;
mod print;
mod run;
mod source;
mod template;

pub use args::MapArgs;
pub use parallel::instead;

use crate::args::Cli;
use crate::output::{put_bytes, remark, words};
use anyhow::{Result, bail};
use job::{Job, Maker};
use mutirao::raw::{Options, Pool, Private, Slots};
use run::Run;
use source::{Reading, Values, Words};
use std::time::Duration;

/// The exit code when the jobs could not be tried.
const NOT_TRIED: u8 = 255;
/// Leases held at most, where nothing else is said.
const SLOTS_MAX: u32 = 1024;
/// Jobs at a time on one machine alone, where there is to be no limit.
const ALONE_MAX: u32 = 128;
/// How long a slot is kept that has nothing to do: jobs that end at different times, or arguments that come
/// slowly, are no reason to give it back.
const IDLE: Duration = Duration::from_secs(3);

/// Runs the jobs; the exit code says how many failed.
pub fn run(cli: &Cli, args: &MapArgs) -> Result<u8> {
    match tried(cli, args) {
        Err(error) if !crate::is_closed_pipe(&error) => {
            remark!("mutirao: {}", words(&error));
            Ok(NOT_TRIED)
        }
        result => result,
    }
}

fn tried(cli: &Cli, args: &MapArgs) -> Result<u8> {
    let words = Words::parse(&args.words, &args.arg_file);
    if words.stdin_sources() > 1 {
        bail!("only one source of arguments can be standard input");
    }
    let end = if args.null { b'\0' } else { b'\n' };
    let reading = Reading { end, separator: args.colsep.clone(), skip_empty: args.no_run_if_empty };
    let mut values = match args.pipe {
        true => source::parts(&words, &reading, args.block, args.max_args)?,
        false => source::chunks(source::combine(&words.groups, &reading)?, args.max_args),
    };
    let mut total = None;
    if args.eta || args.halt.needs_total() {
        let kept = source::keep(values)?;
        total = Some(kept.len() as u64);
        values = Box::new(kept.into_iter().map(Ok));
    }
    if args.dry_run {
        return dry_run(&Maker::new(args, &words.command, true)?, values);
    }
    mutirao::raw::init(crate::operations())?;
    let opened = open(cli, args, &words)?;
    let maker = Maker::new(args, &words.command, opened.pool.id().is_none())?;
    // Short jobs wait where they will run. Where the command is told its place, or has to wait its time or for how
    // others end, as many are under way as run.
    let jobs = opened.jobs.min(opened.slots).max(1) as usize;
    let as_they_run = maker.names_place() || args.delay.is_some() || args.halt.may_stop();
    let window = if as_they_run { jobs } else { jobs * 4 + 16 };
    Run::new(args, maker, opened.pool, window, values, total)?.run()
}

fn dry_run(maker: &Maker, values: Values) -> Result<u8> {
    for (sequence, arguments) in (1..).zip(values) {
        let mut line = maker.line(&Job { place: 1, ..maker.job(sequence, arguments?) });
        line.push(b'\n');
        put_bytes(&line)?;
    }
    Ok(0)
}

/// What jobs run on.
struct Opened {
    pool: Pool,
    /// Slots there are.
    slots: u32,
    /// Jobs at a time.
    jobs: u32,
}

fn open(cli: &Cli, args: &MapArgs, words: &Words) -> Result<Opened> {
    let name = words.command.split(|&byte| byte == b' ').next().unwrap_or_default();
    let name =
        String::from_utf8_lossy(name.rsplit(|&byte| byte == b'/').next().unwrap_or_default()).into_owned();
    let name = Some(name).filter(|name| !name.is_empty() && name.len() < 64).unwrap_or_else(|| "map".into());
    let own = std::thread::available_parallelism().map_or(1, |cpus| cpus.get() as u32);
    let alone = || {
        let jobs = args.jobs.map_or(Some(own), |jobs| jobs.of(own)).unwrap_or(ALONE_MAX).min(u16::MAX.into());
        let options = Options {
            name: Some(name.clone()),
            private: Private::Always,
            private_slots: Some(jobs as u16),
            as_user: true,
            slots: Slots::Auto { min: 0, max: jobs, idle: IDLE },
            ..Options::default()
        };
        Ok(Opened { pool: Pool::open(options)?, slots: jobs, jobs })
    };
    if args.local {
        return alone();
    }
    // How many slots there are has to be known before it is said how many are wanted.
    let asks = Options {
        name: Some("mutirao".into()),
        node: cli.node.clone(),
        private: Private::Never,
        slots: Slots::ByHand,
        ..Options::default()
    };
    let slots = match Pool::open(asks) {
        Ok(pool) => pool.nodes()?.iter().map(|node| u32::from(node.slots_total)).fold(0, u32::saturating_add),
        Err(mutirao::Error::NoneRuns { .. } | mutirao::Error::NotRunning { .. }) if cli.node.is_none() => {
            return alone();
        }
        Err(error) => return Err(error.into()),
    };
    let jobs = args.jobs.and_then(|jobs| jobs.of(slots)).unwrap_or(SLOTS_MAX);
    let options = Options {
        name: Some(name),
        node: cli.node.clone(),
        private: Private::Never,
        as_user: true,
        slots: Slots::Auto { min: 0, max: jobs, idle: IDLE },
        ..Options::default()
    };
    Ok(Opened { pool: Pool::open(options)?, slots, jobs })
}
