//! A process that whoever started it talks to while it runs.

use crate::ended::{Ended, How};
use crate::run::memory_kills;
use crate::sys;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{ChildStderr, ChildStdin, ChildStdout, Command};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// A process that runs, with the ends of those of its standard streams that were asked for.
#[derive(Debug)]
pub struct Live {
    pid: u32,
    ended: OwnedFd,
    began: Instant,
    started_us: u64,
    /// Times the system had killed for want of memory when it began.
    memory_kills: Option<u64>,
    /// Writes to its standard input.
    pub stdin: Option<ChildStdin>,
    /// Reads its standard output.
    pub stdout: Option<ChildStdout>,
    /// Reads its standard error.
    pub stderr: Option<ChildStderr>,
}

impl Live {
    /// Starts a process.
    pub fn start(command: &mut Command) -> io::Result<Live> {
        let memory_kills = memory_kills();
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let began = Instant::now();
        // Waited for by its number: `Child` could not say what was used.
        let mut child = command.spawn()?;
        let pid = child.id();
        let handle = Pid::from_raw(pid.cast_signed()).ok_or(Errno::SRCH);
        Ok(Live {
            pid,
            ended: handle.and_then(|handle| pidfd_open(handle, PidfdFlags::empty()))?,
            began,
            started_us: since_1970.as_micros() as u64,
            memory_kills,
            stdin: child.stdin.take(),
            stdout: child.stdout.take(),
            stderr: child.stderr.take(),
        })
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Readable when it has ended.
    pub fn ended(&self) -> BorrowedFd<'_> {
        self.ended.as_fd()
    }

    /// Kills it, before anybody has waited for it: its number is then its own. Whether the system let us.
    pub fn kill(&self) -> bool {
        let pid = Pid::from_raw(self.pid.cast_signed());
        pid.is_some_and(|pid| kill_process(pid, Signal::KILL).is_ok())
    }

    /// Waits for its end, and says how that was. Its output is left to whoever reads it.
    pub fn wait(&mut self) -> Ended {
        let collected = sys::wait(Some(self.pid));
        let mut ended = Ended {
            wall_us: self.began.elapsed().as_micros() as u64,
            started_us: self.started_us,
            ..Ended::default()
        };
        match collected {
            Ok(Some(collected)) => {
                (ended.cpu_us, ended.peak_kib) = (collected.cpu_us, collected.peak_kib);
                let memory_ran_out = || matches!((self.memory_kills, memory_kills()), (Some(before), Some(now)) if now > before);
                ended.how = match (collected.status.code(), collected.status.signal()) {
                    (Some(code), _) => How::Code(code as u8),
                    (None, Some(libc::SIGKILL)) if memory_ran_out() => How::OutOfMemory,
                    (None, signal) => How::Signal(signal.unwrap_or_default() as u8),
                };
            }
            Ok(None) => ended.how = How::NotStarted("its end cannot be learnt".into()),
            Err(errno) => ended.how = How::NotStarted(format!("its end cannot be learnt: {errno}")),
        }
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, poll};
    use std::io::{Read, Write};
    use std::process::Stdio;

    #[test]
    fn a_process_is_talked_to_and_its_end_is_told() {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "read word; echo \"got $word\"; kill -TERM $$"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut live = Live::start(&mut command).unwrap();
        live.stdin.take().unwrap().write_all(b"it\n").unwrap();
        let mut said = String::new();
        live.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(said, "got it\n");
        poll(&mut [PollFd::new(&live.ended(), PollFlags::IN)], None).unwrap();
        let ended = live.wait();
        assert_eq!(ended.how, How::Signal(15));
        assert!(ended.peak_kib > 0 && ended.started_us > 0);
        assert!(Live::start(&mut Command::new("/nowhere/at-all")).is_err());
    }

    #[test]
    fn one_that_is_killed_says_what_it_used() {
        let mut live = Live::start(Command::new("/bin/sleep").arg("600")).unwrap();
        assert!(live.kill());
        let ended = live.wait();
        assert_eq!(ended.how, How::Signal(9));
        assert!(ended.peak_kib > 0);
    }
}
