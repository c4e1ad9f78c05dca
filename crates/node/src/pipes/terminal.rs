//! Terminals for workers, whose confinement keeps the devices from them.

use rustix::io::Errno;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use std::os::fd::OwnedFd;

/// The side from which a terminal is driven, and the side that programs use; and the number of the latter's device.
pub(crate) fn make() -> Result<([OwnedFd; 2], u64), Errno> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let driver = openpt(flags)?;
    unlockpt(&driver)?;
    // Not by its path, which may mean another one in another file system.
    let user = ioctl_tiocgptpeer(&driver, flags)?;
    let device = rustix::fs::fstat(&user)?.st_rdev;
    Ok(([driver, user], device))
}
