//! The few things that need `unsafe`: what the safe system-call crate lacks.
#![allow(unsafe_code)]

use rustix::io::Errno;
use std::ffi::CStr;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// Which side of a fork this is.
pub(crate) enum Side {
    /// The new process.
    Child,
    /// The old one, with the new one's number.
    Parent(u32),
}

/// Forks. Only for the template process, before any thread was started there.
pub(crate) fn fork_single_threaded() -> Result<Side, Errno> {
    debug_assert_eq!(threads(), Some(1), "a fork beside other threads may copy locks they hold");
    // SAFETY: `fork` itself has no preconditions; the danger is locks held by other threads at that moment, and
    // the caller has none: a template waits in `init`, the first statement of `main`.
    match unsafe { libc::fork() } {
        -1 => Err(last_error()),
        0 => Ok(Side::Child),
        pid => Ok(Side::Parent(pid.unsigned_abs())),
    }
}

fn threads() -> Option<usize> {
    std::fs::read_dir("/proc/self/task").ok().map(Iterator::count)
}

/// What `wait4` says of a child that ended.
pub(crate) struct Ended {
    /// As the system gives it.
    pub(crate) wait_status: i32,
    /// Most memory it held, KiB.
    pub(crate) max_resident_kib: u64,
}

/// Collects a child of this process if it has ended.
pub(crate) fn collect(pid: u32) -> Result<Option<Ended>, Errno> {
    let mut wait_status = 0;
    // SAFETY: `rusage` is plain numbers, for which all zeroes is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live variables of the right types, which the call only writes.
    match unsafe { libc::wait4(pid.cast_signed(), &mut wait_status, libc::WNOHANG, &mut usage) } {
        -1 => Err(last_error()),
        0 => Ok(None),
        _ => Ok(Some(Ended { wait_status, max_resident_kib: u64::try_from(usage.ru_maxrss).unwrap_or(0) })),
    }
}

/// Has this called when the process ends by `exit` or by returning from `main`; whether it will be.
pub(crate) fn at_exit(call: extern "C" fn()) -> bool {
    // SAFETY: no preconditions; the function is there as long as the library.
    unsafe { libc::atexit(call) == 0 }
}

/// Ends this process at once, without running what the program wants run at its end: a worker is a copy of a
/// program that never got past its first statement.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: no preconditions; it does not return.
    unsafe { libc::_exit(code) }
}

/// Removes a variable from the environment. Only while the process has one thread.
pub(crate) fn remove_variable(name: &str) {
    debug_assert_eq!(threads(), Some(1));
    // SAFETY: nobody reads the environment meanwhile, since `init` is the first statement of `main` and this
    // process was started by a node to be a template: no other thread exists.
    unsafe { std::env::remove_var(name) }
}

/// Sets a variable of the environment. Only while the process has one thread.
pub(crate) fn set_variable(name: &str, value: &str) -> Result<(), String> {
    // A confined worker cannot look.
    debug_assert!(threads().is_none_or(|count| count == 1));
    if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
        return Err(format!("`{name}` cannot be set in the environment"));
    }
    // SAFETY: nobody reads the environment meanwhile: this is the only thread of a worker just forked.
    unsafe { std::env::set_var(name, value) };
    Ok(())
}

/// Takes over a descriptor that whoever started this process left open for it.
pub(crate) fn inherited(fd: RawFd) -> Result<OwnedFd, Errno> {
    // SAFETY: asks only about the number.
    if fd < 3 || unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } == -1 {
        return Err(Errno::BADF);
    }
    // SAFETY: it is open (just checked), was left by the parent for this library alone, and is taken once, since
    // the variable that names it is removed.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Blocks all signals of this thread meanwhile: a thread started by `start` has them blocked for good, so that
/// the program's own threads handle them.
pub(crate) fn without_signals<R>(start: impl FnOnce() -> R) -> R {
    // SAFETY: a `sigset_t` is plain numbers, for which all zeroes is a value.
    let (mut all, mut before): (libc::sigset_t, libc::sigset_t) = unsafe { std::mem::zeroed() };
    // SAFETY: both sets are live variables of the right type, and `how` is valid: the calls cannot fail.
    unsafe {
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
    }
    let result = start();
    // SAFETY: `before` was filled in by the system.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &before, std::ptr::null_mut()) };
    result
}

/// The file this library's code was loaded from.
pub(crate) fn own_object() -> Option<PathBuf> {
    let here = own_object as fn() -> Option<PathBuf> as *const libc::c_void;
    // SAFETY: `Dl_info` is pointers and numbers, for which all zeroes is a value.
    let mut info: libc::Dl_info = unsafe { std::mem::zeroed() };
    // SAFETY: `here` is an address inside this object, `info` a live variable that the call only writes.
    if unsafe { libc::dladdr(here, &mut info) } == 0 || info.dli_fname.is_null() {
        return None;
    }
    // SAFETY: after success it is a string of the dynamic linker's that lives as long as the object is loaded,
    // which it is, since this code runs.
    let name = unsafe { CStr::from_ptr(info.dli_fname) };
    Some(PathBuf::from(std::ffi::OsStr::from_bytes(name.to_bytes())))
}

fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}
