//! Processes that are not this one's children: told apart by descriptor, ended for certain.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal};
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A process, named by a descriptor that never comes to mean another. Readable once it has ended.
#[derive(Debug)]
pub struct Process {
    pid: u32,
    fd: OwnedFd,
}

/// What became of the claim that a process is one's child.
#[derive(Debug)]
pub enum Claim {
    /// It is.
    True(Process),
    /// It has ended already, so nothing can be told and nothing needs to be ended.
    Ended,
    /// It is somebody else.
    False,
}

impl Process {
    /// The process `pid`, of which `parent` says that it is its child.
    pub fn claimed_by(parent: u32, pid: u32) -> Claim {
        let Some(process) = Process::open(pid) else { return Claim::Ended };
        // The descriptor was opened first: if the process still runs after, then the facts read
        // between are its own and not those of a later process of the same number.
        match Facts::read(pid) {
            _ if process.has_ended() => Claim::Ended,
            Some(facts) if facts.parent == parent => Claim::True(process),
            _ => Claim::False,
        }
    }

    /// The process `pid`; `None` if there is none.
    pub fn open(pid: u32) -> Option<Process> {
        let number = number(pid)?;
        let fd = rustix::process::pidfd_open(number, PidfdFlags::empty()).ok()?;
        Some(Process { pid, fd })
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    }

    /// Ends it at once, with its process group if it leads one.
    pub fn kill(&self) {
        // While the leader runs, the group's number means this group.
        if let Some(number) = number(self.pid)
            && rustix::process::getpgid(Some(number)) == Ok(number)
            && !self.has_ended()
        {
            let _ = rustix::process::kill_process_group(number, Signal::KILL);
        }
        match rustix::process::pidfd_send_signal(&self.fd, Signal::KILL) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(error) => tracing::warn!("process {} cannot be ended: {error}", self.pid),
        }
    }
}

fn number(pid: u32) -> Option<Pid> {
    // 1 and below would mean the system's first process, or groups.
    i32::try_from(pid).ok().filter(|&pid| pid > 1).and_then(Pid::from_raw)
}

/// Whether a process group of this number exists.
pub fn group_exists(group: u32) -> bool {
    number(group).is_some_and(|group| rustix::process::test_kill_process_group(group).is_ok())
}

impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// What `/proc` says about a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Facts {
    parent: u32,
    pub(super) session: u32,
    /// Processor time, with that of whoever it has waited for, in the system's ticks.
    pub(super) cpu_ticks: u64,
    /// When it began, in ticks after the system did.
    pub(super) began_ticks: u64,
}

impl Facts {
    pub(super) fn read(pid: u32) -> Option<Facts> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name, in brackets, may contain anything.
        let (_, rest) = stat.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split(' ').collect();
        // Numbered from 3 on in proc_pid_stat(5).
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        Some(Facts {
            parent: number(4)? as u32,
            session: number(6)? as u32,
            cpu_ticks: number(14)? + number(15)? + number(16)? + number(17)?,
            began_ticks: number(22)?,
        })
    }
}

/// Every process of the machine.
pub(super) fn everybody() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
}

/// Ends every process of a session; returns how many. Looks at all processes of the machine, so it is for a helper
/// thread.
///
/// The session is that of a template or a worker, which leads it: a process cannot enter a session from outside,
/// and the number stays taken as long as anybody is in it.
pub fn kill_session(session: u32) -> usize {
    let mut ended = 0;
    for pid in everybody() {
        let belongs = |facts: Facts| facts.session == session;
        if !Facts::read(pid).is_some_and(belongs) {
            continue;
        }
        let Some(process) = Process::open(pid) else { continue };
        // Looked at again now that it cannot come to mean another.
        if Facts::read(pid).is_some_and(belongs) {
            process.kill();
            ended += 1;
        }
    }
    ended
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::process::{Child, ChildStdout, Command, Stdio};

    /// A session of its own: a shell and what `script` starts.
    fn session(script: &str) -> (Child, BufReader<ChildStdout>) {
        let mut command = Command::new("setsid");
        let mut child = command.args(["sh", "-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        (child, out)
    }

    fn pid_from(out: &mut BufReader<ChildStdout>) -> u32 {
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        line.trim().parse().unwrap()
    }

    fn wait_for_end(pid: u32) {
        let Some(process) = Process::open(pid) else { return };
        let mut fds = [PollFd::new(&process, PollFlags::IN)];
        let ready = poll(&mut fds, Some(&Timespec { tv_sec: 10, tv_nsec: 0 }));
        assert_eq!(ready, Ok(1), "process {pid} goes on");
    }

    #[test]
    fn only_a_child_of_the_parent_named_is_taken() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        assert!(matches!(Process::claimed_by(1, child.id()), Claim::False));
        assert!(matches!(Process::claimed_by(std::process::id(), 1), Claim::Ended));
        let Claim::True(process) = Process::claimed_by(std::process::id(), child.id()) else {
            panic!("it is my child")
        };
        process.kill();
        child.wait().unwrap();
        assert!(process.has_ended());
        process.kill();
    }

    #[test]
    fn whoever_was_left_behind_in_a_session_is_ended_and_nobody_else() {
        let (mut bystander, mut out) = session("sleep 60 >/dev/null & echo $!");
        let other = pid_from(&mut out);
        let (mut shell, mut out) = session("sleep 60 >/dev/null & echo $!");
        let left = pid_from(&mut out);
        shell.wait().unwrap();
        bystander.wait().unwrap();
        assert!(group_exists(shell.id()));
        assert_eq!(kill_session(shell.id()), 1);
        wait_for_end(left);
        let other = Process::open(other).unwrap();
        assert!(!other.has_ended());
        other.kill();
    }
}
