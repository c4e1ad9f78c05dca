//! The two things that need `unsafe`: waiting with an account of what was used, and limits of a child alone.
#![allow(unsafe_code)]

use crate::command::Limits;
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus};

/// A child that has ended.
pub(crate) struct Collected {
    pub(crate) status: ExitStatus,
    pub(crate) cpu_us: u64,
    pub(crate) peak_kib: u64,
}

/// Waits for the child `pid`, or with `None` collects any child that has ended. `Ok(None)`: there are children,
/// but none has ended.
pub(crate) fn wait(pid: Option<u32>) -> Result<Option<Collected>, Errno> {
    use std::os::unix::process::ExitStatusExt;
    let (pid, options) = match pid {
        Some(pid) => (pid.cast_signed(), 0),
        None => (-1, libc::WNOHANG),
    };
    let mut status = 0;
    // SAFETY: `rusage` is plain numbers, for which all zeroes is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: both pointers are to live variables of the right types, which the call only writes.
        let result = unsafe { libc::wait4(pid, &mut status, options, &mut usage) };
        match result {
            -1 => match Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO) {
                Errno::INTR => {}
                errno => return Err(errno),
            },
            0 => return Ok(None),
            _ => break,
        }
    }
    let us = |time: libc::timeval| time.tv_sec.unsigned_abs() * 1_000_000 + time.tv_usec.unsigned_abs();
    Ok(Some(Collected {
        status: ExitStatus::from_raw(status),
        cpu_us: us(usage.ru_utime) + us(usage.ru_stime),
        peak_kib: usage.ru_maxrss.unsigned_abs(),
    }))
}

/// Has the child set its own limits before it executes.
pub(crate) fn limit(command: &mut Command, limits: Limits) {
    let set = move || -> io::Result<()> {
        let limits = [
            (Resource::Data, limits.memory_mib.map(|mib| u64::from(mib) << 20)),
            (Resource::Cpu, limits.cpu_s.map(u64::from)),
        ];
        for (resource, asked) in limits {
            let Some(asked) = asked else { continue };
            let most = getrlimit(resource).maximum.map_or(asked, |maximum| maximum.min(asked));
            setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec it makes two system calls and nothing else: no memory is asked for and no
    // lock taken.
    unsafe { command.pre_exec(set) };
}
