//! `mutirao alloc`: slots held while a command runs.

use crate::args::AllocArgs;
use crate::output::remark;
use anyhow::{Context, Result};
use mutirao::raw::{Lease, Pool, Request, note_text};
use mutirao_wire::node::{Bundle, Layout};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::DirBuilder;
use std::io::{ErrorKind, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};
use std::time::Duration;

/// A command whose time is over is killed so long after it was told to end.
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
    let status = wait_for(command, args.waiting.time_limit);
    pool.close();
    match status {
        Ok(status) => Ok(exit_code(status)),
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

/// Runs `command` to its end, which comes with `limit` at the latest. Signals that would end this process are
/// passed to it instead, so that the slots are held exactly as long as it lives.
fn wait_for(mut command: Command, limit: Option<Duration>) -> std::io::Result<ExitStatus> {
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGQUIT, SIGTERM])?;
    let handle = signals.handle();
    let mut child = command.spawn()?;
    let pid = child.id().cast_signed();
    if let (Some(limit), Some(pid)) = (limit, Pid::from_raw(pid)) {
        let process = pidfd_open(pid, PidfdFlags::empty())?;
        // It ends with this program, which does not outlive the child for long.
        std::thread::spawn(move || end_after(&process, limit));
    }
    let forward = std::thread::spawn(move || {
        for signal in &mut signals {
            if let (Some(pid), Some(signal)) = (Pid::from_raw(pid), Signal::from_named_raw(signal)) {
                // It may just have ended, which is what the signal wants.
                let _ = rustix::process::kill_process(pid, signal);
            }
        }
    });
    let status = child.wait();
    handle.close();
    let _ = forward.join();
    status
}

/// The slots are given back by then: so the process, too, is told to end, and then made to.
fn end_after(process: &OwnedFd, limit: Duration) {
    std::thread::sleep(limit);
    remark!("mutirao: the time of the command is over");
    for (signal, then) in [(Signal::TERM, GRACE), (Signal::KILL, Duration::ZERO)] {
        // It may just have ended, which is what the signal wants.
        let _ = pidfd_send_signal(process, signal);
        std::thread::sleep(then);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_those_of_a_shell() {
        let run = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            exit_code(wait_for(command, Some(Duration::from_secs(1))).unwrap())
        };
        assert_eq!(run("exit 7"), 7);
        assert_eq!(run("kill -9 $$"), 137);
        assert_eq!(run("exec sleep 60"), 143, "its time is over");
    }
}
