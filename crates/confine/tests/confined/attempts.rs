//! The plugin's part: one attempt a process, reported on descriptor 3.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::FromRawFd;
use std::process::Command;

/// Attempts what `words` say, reports "done" or "refused: why" on descriptor `channel`, and exits.
pub fn run(words: &[String], channel: i32) -> ! {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    // SAFETY: the channel was passed to this process, and nothing else here owns it.
    let mut channel = unsafe { File::from_raw_fd(channel) };
    let report = match attempt(&words) {
        Ok(()) => "done".to_owned(),
        Err(error) => format!("refused: {error}"),
    };
    channel.write_all(report.as_bytes()).expect("the node listens");
    std::process::exit(0)
}

fn attempt(words: &[&str]) -> io::Result<()> {
    let parent = std::os::unix::process::parent_id() as libc::pid_t;
    match words {
        ["read", path] => fs::read(path).map(drop),
        ["list", path] => fs::read_dir(path).map(drop),
        ["write", path] => OpenOptions::new().append(true).open(path).map(drop),
        ["create", path] => File::create_new(path).map(drop),
        ["truncate", path] => truncate(path),
        ["truncate-open", path] => {
            call(libc::SYS_openat, &[at_cwd(), text(path), long(libc::O_TRUNC | libc::O_RDONLY)])
        }
        ["chmod", path] => fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o777)),
        ["fchmod", path] => {
            File::open(path)?.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777))
        }
        ["rename", from, to] => fs::rename(from, to),
        ["link", from, to] => fs::hard_link(from, to),
        ["execute", path] => Command::new(path).status().map(drop),
        ["parent-file", name] => fs::read(format!("/proc/{parent}/{name}")).map(drop),
        ["signal-parent", number] => signal(libc::SYS_kill, parent, number),
        ["signal-parent-thread", number] => {
            call(libc::SYS_tgkill, &[parent.into(), parent.into(), number.parse().expect("a number")])
        }
        ["signal-parent-tkill", number] => signal(libc::SYS_tkill, parent, number),
        ["signal-all", number] => signal(libc::SYS_kill, -1, number),
        ["signal-parent-queue", number] => queue(parent, number.parse().expect("a number")),
        ["signal-parent-pidfd", number] => {
            let pidfd = result(libc::SYS_pidfd_open, &[parent.into(), 0])?;
            call(libc::SYS_pidfd_send_signal, &[pidfd, number.parse().expect("a number"), 0, 0])
        }
        ["own-parent-descriptor"] => own_descriptor(parent),
        ["ptrace-parent"] => call(libc::SYS_ptrace, &[i64::from(libc::PTRACE_SEIZE), parent.into(), 0, 0]),
        ["read-parent-memory"] => read_memory(parent),
        ["limit-parent"] => {
            let limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
            call(
                libc::SYS_prlimit64,
                &[parent.into(), i64::from(libc::RLIMIT_CORE), &raw const limit as i64, 0],
            )
        }
        ["renice-parent"] => call(libc::SYS_setpriority, &[i64::from(libc::PRIO_PROCESS), parent.into(), 19]),
        ["schedule-parent"] => {
            let none = libc::sched_param { sched_priority: 0 };
            call(
                libc::SYS_sched_setscheduler,
                &[parent.into(), libc::SCHED_BATCH.into(), &raw const none as i64],
            )
        }
        ["socket", family] => {
            call(libc::SYS_socket, &[family.parse().expect("a number"), libc::SOCK_STREAM.into(), 0])
        }
        ["socketpair", kind] => {
            let mut pair = [0i32; 2];
            call(
                libc::SYS_socketpair,
                &[libc::AF_UNIX.into(), kind.parse().expect("a number"), 0, pair.as_mut_ptr() as i64],
            )
        }
        ["mount"] => {
            call(libc::SYS_mount, &[text("none"), text("."), text("tmpfs"), 0, 0])?;
            call(libc::SYS_umount2, &[text("../own"), 0])
        }
        ["unshare", flags] => call(libc::SYS_unshare, &[flags.parse().expect("a number")]),
        ["clone-user-namespace"] => clone_with(libc::CLONE_NEWUSER | libc::SIGCHLD),
        ["clone-parent"] => clone_with(libc::CLONE_PARENT | libc::SIGCHLD),
        ["io-uring"] => {
            let parameters = [0u8; 256];
            call(libc::SYS_io_uring_setup, &[1, parameters.as_ptr() as i64])
        }
        ["key-ring"] => call(libc::SYS_keyctl, &[0, -4, 0]),
        ["shared-memory"] => {
            let id = result(libc::SYS_shmget, &[i64::from(libc::IPC_PRIVATE), 4096, 0o1600])?;
            call(libc::SYS_shmctl, &[id, libc::IPC_RMID.into(), 0])
        }
        ["outlive"] => call(libc::SYS_prctl, &[libc::PR_SET_PDEATHSIG.into(), 0, 0, 0, 0]),
        ["die-with-parent"] => {
            call(libc::SYS_prctl, &[libc::PR_SET_PDEATHSIG.into(), libc::SIGKILL.into(), 0, 0, 0])
        }
        ["new-session"] => fork_and(|| call(libc::SYS_setsid, &[])),
        ["new-group"] => fork_and(|| call(libc::SYS_setpgid, &[0, 0])),
        ["lock-group-then-new-group"] => fork_and(|| {
            call(libc::SYS_setpgid, &[0, 0])?;
            mutirao_confine::lock_group().map_err(io::Error::other)?;
            match call(libc::SYS_setpgid, &[0, 0]) {
                Err(error) => Err(error),
                Ok(()) => Err(io::Error::other("left its group, locked as it was")),
            }
        }),
        ["x32-getpid"] => call(0x4000_0000 + libc::SYS_getpid, &[]),
        ["call", number] => call(number.parse().expect("a number"), &[0, 0, 0, 0, 0, 0]),
        ["no-privileges"] => no_privileges(),
        ["no-descriptors"] => no_descriptors(),
        ["be-user", user] => match rustix::process::geteuid().as_raw() {
            now if now.to_string() == *user => Ok(()),
            now => Err(io::Error::other(format!("still user {now}"))),
        },
        ["environment"] => environment(),
        ["compute"] => compute(),
        ["abort"] => std::process::abort(),
        ["abort-in-fork"] => abort_in_fork(),
        ["shell", script] => match Command::new("/bin/sh").args(["-c", script]).output()? {
            output if output.status.success() => Ok(()),
            output => Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned())),
        },
        _ => panic!("no attempt is called {words:?}"),
    }
}

fn long(value: i32) -> i64 {
    value.into()
}

fn at_cwd() -> i64 {
    long(libc::AT_FDCWD)
}

/// A string for a system call; it lives as long as the attempt's process.
fn text(value: &str) -> i64 {
    CString::new(value).expect("no nul").into_raw() as i64
}

fn result(number: i64, arguments: &[i64]) -> io::Result<i64> {
    let at = |index: usize| arguments.get(index).copied().unwrap_or(0);
    // SAFETY: the callers pass pointers to live memory of the right size, or null.
    match unsafe { libc::syscall(number, at(0), at(1), at(2), at(3), at(4), at(5)) } {
        -1 => Err(io::Error::last_os_error()),
        value => Ok(value),
    }
}

fn call(number: i64, arguments: &[i64]) -> io::Result<()> {
    result(number, arguments).map(drop)
}

fn signal(number: i64, process: libc::pid_t, signal: &str) -> io::Result<()> {
    call(number, &[process.into(), signal.parse().expect("a number")])
}

fn queue(process: libc::pid_t, number: i64) -> io::Result<()> {
    let mut information = [0i32; 32];
    information[2] = libc::SI_QUEUE;
    call(libc::SYS_rt_sigqueueinfo, &[process.into(), number, information.as_ptr() as i64])
}

fn truncate(path: &str) -> io::Result<()> {
    call(libc::SYS_truncate, &[text(path), 0])
}

fn read_memory(process: libc::pid_t) -> io::Result<()> {
    // Any address that surely exists in a copy of this very program: the stack of the caller, on
    // systems without random layout, is not sure, so the refusal must come before the address counts.
    let mut buffer = [0u8; 8];
    let local = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: 8 };
    let remote = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: 8 };
    let arguments = [process.into(), &raw const local as i64, 1, &raw const remote as i64, 1, 0];
    match call(libc::SYS_process_vm_readv, &arguments) {
        Err(error) if error.raw_os_error() == Some(libc::EFAULT) => Ok(()),
        other => other,
    }
}

/// Has the kernel signal `process` when a pipe becomes ready; the file's owner may do so otherwise.
fn own_descriptor(process: libc::pid_t) -> io::Result<()> {
    let mut pipe = [0i32; 2];
    call(libc::SYS_pipe2, &[pipe.as_mut_ptr() as i64, 0])?;
    call(libc::SYS_fcntl, &[pipe[0].into(), libc::F_SETOWN.into(), process.into()])?;
    call(libc::SYS_fcntl, &[pipe[0].into(), 10, libc::SIGKILL.into()])?;
    call(libc::SYS_fcntl, &[pipe[0].into(), libc::F_SETFL.into(), libc::O_ASYNC.into()])?;
    call(libc::SYS_write, &[pipe[1].into(), pipe.as_ptr() as i64, 1])
}

fn clone_with(flags: i32) -> io::Result<()> {
    match result(libc::SYS_clone, &[flags.into(), 0, 0, 0, 0])? {
        0 => std::process::exit(0),
        _ => Ok(()),
    }
}

/// Runs `inside` in a child, which leads no group, and hands back its outcome.
fn fork_and(inside: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    // SAFETY: this process has one thread, so the child may do anything.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let code = inside().map_or_else(|error| error.raw_os_error().unwrap_or(255), |()| 0);
            // SAFETY: ends the child without running what belongs to the parent.
            unsafe { libc::_exit(code) }
        }
        child => match wait(child)? {
            status if libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0 => Ok(()),
            status if libc::WIFEXITED(status) => Err(io::Error::from_raw_os_error(libc::WEXITSTATUS(status))),
            status => Err(io::Error::other(format!("the child ended with wait status {status:#x}"))),
        },
    }
}

fn wait(child: libc::pid_t) -> io::Result<i32> {
    let mut status = 0;
    // SAFETY: `status` outlives the call.
    match unsafe { libc::waitpid(child, &raw mut status, 0) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(status),
    }
}

fn abort_in_fork() -> io::Result<()> {
    // SAFETY: this process has one thread, so the child may do anything.
    let child = unsafe { libc::fork() };
    if child == 0 {
        std::process::abort();
    }
    let status = wait(child)?;
    if libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGABRT {
        return Ok(());
    }
    Err(io::Error::other(format!("abort ended with wait status {status:#x}")))
}

fn expect(holds: bool, what: &str) -> io::Result<()> {
    if holds { Ok(()) } else { Err(io::Error::other(what.to_owned())) }
}

fn no_privileges() -> io::Result<()> {
    let status = fs::read_to_string("/proc/self/status")?;
    let field = |name: &str| {
        status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim).unwrap_or("missing")
    };
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
        expect(field(set) == "0000000000000000", set)?;
    }
    if rustix::process::getuid().is_root() {
        expect(field("CapBnd:") == "0000000000000000", "CapBnd")?;
    }
    expect(field("NoNewPrivs:") == "1", "NoNewPrivs")?;
    expect(field("Seccomp:") == "2", "Seccomp")?;
    expect(
        rustix::process::getrlimit(rustix::process::Resource::Core).maximum == Some(0),
        "a core may be dumped",
    )
}

fn no_descriptors() -> io::Result<()> {
    let mut open: Vec<i32> =
        (0..256).filter(|&fd| call(libc::SYS_fcntl, &[fd.into(), libc::F_GETFD.into()]).is_ok()).collect();
    open.sort_unstable();
    expect(open == [0, 1, 2, 3], &format!("open descriptors: {open:?}"))?;
    for fd in [0, 1] {
        expect(
            fs::read_link(format!("/proc/self/fd/{fd}"))?.as_os_str() == "/dev/null",
            "standard input or output",
        )?;
    }
    Ok(())
}

fn environment() -> io::Result<()> {
    let mut names: Vec<String> = std::env::vars().map(|(name, _)| name).collect();
    names.sort();
    expect(
        names == ["HOME", "LANG", "MUTIRAO_WORKER_FD", "PATH", "TMPDIR"],
        &format!("variables: {names:?}"),
    )?;
    expect(
        std::env::current_dir()? == std::path::Path::new(&std::env::var("HOME").expect("listed")),
        "current directory",
    )?;
    expect(std::env::var("MUTIRAO_WORKER_FD").as_deref() == Ok("3"), "descriptor")
}

/// What any computation does: threads, memory, files of its own, processes, randomness, time.
fn compute() -> io::Result<()> {
    let sum: u64 = (0..4)
        .map(|part| std::thread::spawn(move || (0..1000u64).map(|n| n * part).sum::<u64>()))
        .map(|thread| thread.join().expect("joined"))
        .sum();
    expect(sum == 6 * 499_500, "threads")?;
    let mut memory = vec![0u8; 64 << 20];
    memory.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
    fs::create_dir("inner")?;
    fs::write("inner/a", "text")?;
    fs::rename("inner/a", "inner/b")?;
    fs::write("inner/b", "shorter, then longer")?;
    fs::hard_link("inner/b", "inner/c")?;
    fs::remove_file("inner/c")?;
    fs::write(std::env::temp_dir().join("temporary"), "text")?;
    fs::remove_file("inner/b")?;
    fs::remove_dir("inner")?;
    File::open("/dev/urandom")?.read_exact(&mut [0; 16])?;
    OpenOptions::new().write(true).open("/dev/null")?.write_all(b"gone")?;
    fs::read_dir("/usr/share").map(drop)?;
    expect(std::time::SystemTime::now() > std::time::UNIX_EPOCH, "time")?;
    fork_and(|| Ok(()))?;
    expect(Command::new("/bin/ls").arg("-l").output()?.status.success(), "ls in a child")
}
