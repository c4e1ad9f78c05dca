//! The system calls that no safe wrapper offers; the only `unsafe` of this crate.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// The highest Landlock version this kernel speaks; 0 without Landlock.
pub(crate) fn landlock_abi() -> u8 {
    const LANDLOCK_CREATE_RULESET_VERSION: libc::c_uint = 1;
    // SAFETY: with this flag the kernel takes a null attribute of size zero and only returns a number.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<libc::c_void>(),
            0usize,
            LANDLOCK_CREATE_RULESET_VERSION,
        )
    };
    u8::try_from(version.max(0)).unwrap_or(u8::MAX)
}

/// Whether the kernel can answer a filtered call with an error.
pub(crate) fn seccomp_errno_available() -> bool {
    const SECCOMP_GET_ACTION_AVAIL: libc::c_uint = 2;
    let action: u32 = libc::SECCOMP_RET_ERRNO;
    // SAFETY: `action` outlives the call, which reads four bytes from it.
    unsafe { libc::syscall(libc::SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &raw const action) == 0 }
}

/// Whether a system-call filter holds this thread.
pub(crate) fn seccomp_filtering() -> bool {
    // SAFETY: PR_GET_SECCOMP takes no pointers. It returns 2 in filter mode.
    unsafe { libc::prctl(libc::PR_GET_SECCOMP, 0, 0, 0, 0) == 2 }
}

/// Makes `number` name the file of `file`, kept across `execve`.
///
/// Whatever else had that number in this process is replaced, so this is for a process that is about
/// to execute another program and for a number that nothing in it owns.
pub(crate) fn keep_as(file: OwnedFd, number: i32) -> io::Result<()> {
    if file.as_raw_fd() == number {
        // SAFETY: forgetting the owner leaves the descriptor open for the rest of the process.
        let same = unsafe { BorrowedFd::borrow_raw(std::os::fd::IntoRawFd::into_raw_fd(file)) };
        rustix::io::fcntl_setfd(same, rustix::io::FdFlags::empty())?;
        return Ok(());
    }
    // SAFETY: both are numbers; the callers own `file` and give up `number`.
    match unsafe { libc::dup2(file.as_raw_fd(), number) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Marks each descriptor from `first` on to be closed by `execve`.
///
/// Marked and not closed: this process still owns some of them.
pub(crate) fn close_on_exec_from(first: i32) -> io::Result<()> {
    // SAFETY: the call only sets a flag on descriptors; none becomes invalid.
    let done =
        unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if done == 0 {
        return Ok(());
    }
    // Linux before 5.11 does not know the flag, before 5.9 not the call.
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let Some(number) = entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        if number >= first {
            // SAFETY: the number was open a moment ago in this single-threaded step; if it is the
            // listing's own descriptor, that is open still.
            let fd = unsafe { BorrowedFd::borrow_raw(number) };
            rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::CLOEXEC)?;
        }
    }
    Ok(())
}
