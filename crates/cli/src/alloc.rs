//! `mutirao alloc`: slots held while a command runs.

use crate::args::AllocArgs;
use crate::output::{counted, remark};
use anyhow::{Context, Result};
use mutirao::raw::{Lease, LeaseKey, Pool, Request, note_text};
use mutirao_wire::node::{Bundle, Layout};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{DirBuilder, File};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A command whose time or slots are gone is killed so long after it was told to end.
const GRACE: Duration = Duration::from_secs(5);

/// What a shell ends with when there is no such command, and when there is one that cannot be run.
const NOT_FOUND: u8 = 127;
const NOT_RUN: u8 = 126;

/// Runs the command while the slots are held; its exit code.
pub fn run(pool: &Pool, args: &AllocArgs) -> Result<u8> {
    let want = args.want.want();
    let request = Request {
        count: args.count,
        at_least: args.at_least.unwrap_or(args.count),
        bundle: Bundle { exclusive: args.exclusive, limit_s: args.waiting.limit_s(), ..want.bundle },
        layout: if args.spread { Layout::Spread } else { Layout::Near },
        arch: want.arch,
        labels: want.labels,
        without: want.without,
        among: want.among,
        avoid: want.avoid,
        below: want.below,
        hops: want.hops,
        workers: false,
        wait: args.waiting.wait(),
    };
    let allocation = pool.allocate(&request)?;
    allocation.notes.iter().for_each(|note| remark!("mutirao: {}", note_text(note)));
    let leases: Vec<Lease> =
        pool.leases().into_iter().filter(|lease| allocation.leases.contains(&lease.key)).collect();
    let hosts = HostFile::write(&leases)?;

    let (program, rest) = args.command.split_first().context("no command is given")?;
    let mut command = Command::new(program);
    command
        .args(rest)
        .env("MUTIRAO_NODES", hosts.names.join(","))
        .env("MUTIRAO_HOSTFILE", hosts.file.as_os_str())
        .env("MUTIRAO_SLOTS", leases.iter().map(|lease| u32::from(lease.slots)).sum::<u32>().to_string())
        .env("MUTIRAO_APP", pool.app().to_string());
    let (watched, held) = (pool.clone(), allocation.leases);
    let status = wait_for(command, args.waiting.time_limit, move || until_lost(&watched, &held));
    pool.close();
    match status {
        Ok((status, told)) => Ok(exit_code(status).max(u8::from(told))),
        Err(error) => {
            remark!("mutirao: cannot run `{}`: {error}", program.to_string_lossy());
            Ok(if error.kind() == ErrorKind::NotFound { NOT_FOUND } else { NOT_RUN })
        }
    }
}

/// As a shell reports it: the exit code, or 128 and the signal.
fn exit_code(status: ExitStatus) -> u8 {
    match (status.code(), status.signal()) {
        (Some(code), _) => code as u8,
        (None, Some(signal)) => (128 + signal) as u8,
        (None, None) => 1,
    }
}

/// The nodes granted, in a file with a line for each; removed when dropped.
struct HostFile {
    file: tempfile::TempPath,
    names: Vec<String>,
}

impl HostFile {
    fn write(leases: &[Lease]) -> Result<HostFile> {
        let mut slots: BTreeMap<&str, u32> = BTreeMap::new();
        for lease in leases {
            *slots.entry(&lease.lender.name).or_default() += u32::from(lease.slots);
        }
        let mut text = String::new();
        for (name, slots) in &slots {
            writeln!(text, "{name} slots={slots}")?;
        }
        let directory = crate::up::runtime();
        let failed = || format!("cannot write the host file into {}", directory.display());
        DirBuilder::new().recursive(true).mode(0o700).create(&directory).with_context(failed)?;
        let mut file =
            tempfile::Builder::new().prefix("hosts-").tempfile_in(&directory).with_context(failed)?;
        file.write_all(text.as_bytes()).context("cannot write the host file")?;
        Ok(HostFile { file: file.into_temp_path(), names: slots.into_keys().map(str::to_owned).collect() })
    }
}

/// Waits until none of these leases is held any more; why, or nothing where this program has given them back.
fn until_lost(pool: &Pool, leases: &[LeaseKey]) -> Option<String> {
    let (mut seen, mut before) = (0, leases.len());
    loop {
        seen = match pool.wait_leases(seen, None) {
            Ok(seen) => seen,
            Err(mutirao::Error::Closed) => return None,
            Err(error) => return Some(error.to_string()),
        };
        let left = pool.leases().iter().filter(|lease| leases.contains(&lease.key)).count();
        if left == 0 {
            return Some("its slots were taken back, or their nodes are lost".into());
        }
        if left < before {
            remark!(
                "mutirao: {} lost; the command goes on with {left}",
                counted((before - left) as u64, "lease")
            );
        }
        before = left;
    }
}

/// Runs `command` to its end, which comes with `limit` at the latest, and soon after `lost` says that there is
/// nothing left to run on; whether it was told to end for one of these. Signals that would end this process are
/// passed to it instead, so that the slots are held exactly as long as it lives.
fn wait_for(
    mut command: Command,
    limit: Option<Duration>,
    lost: impl FnOnce() -> Option<String> + Send + 'static,
) -> std::io::Result<(ExitStatus, bool)> {
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGQUIT, SIGTERM])?;
    let handle = signals.handle();
    // Where there is a terminal, it serves one group at a time: there the command stays in the group of this process.
    let has_group = File::open("/dev/tty").is_err();
    if has_group {
        command.process_group(0);
    }
    let mut child = command.spawn()?;
    let pid = Pid::from_child(&child);
    // It may just have ended, which is what the signal wants.
    let tell = move |signal| {
        let _ = if has_group { kill_process_group(pid, signal) } else { kill_process(pid, signal) };
    };
    let told = Arc::new(AtomicBool::new(false));
    let end = {
        let told = told.clone();
        move |why: &str| {
            remark!("mutirao: the command is told to end: {why}");
            told.store(true, Ordering::Relaxed);
            tell(Signal::TERM);
            std::thread::sleep(GRACE);
            tell(Signal::KILL);
        }
    };
    // These threads end with this program, which does not outlive the child for long.
    if let Some(limit) = limit {
        let end = end.clone();
        std::thread::spawn(move || {
            std::thread::sleep(limit);
            end("its time is over");
        });
    }
    std::thread::spawn(move || lost().iter().for_each(|why| end(why)));
    let forward = std::thread::spawn(move || {
        for signal in &mut signals {
            Signal::from_named_raw(signal).into_iter().for_each(tell);
        }
    });
    let status = child.wait();
    handle.close();
    let _ = forward.join();
    Ok((status?, told.load(Ordering::Relaxed)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_those_of_a_shell() {
        let run = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            let (status, told) = wait_for(command, Some(Duration::from_secs(1)), || None).unwrap();
            (exit_code(status), told)
        };
        assert_eq!(run("exit 7"), (7, false));
        assert_eq!(run("kill -9 $$"), (137, false));
        assert_eq!(run("exec sleep 60"), (143, true), "its time is over");
    }
}
