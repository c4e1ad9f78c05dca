use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

use crate::Error;

/// The end of a bell that hears: it becomes readable when somebody rings.
///
/// A bell is a kernel pipe rather than an event counter because a pipe's two ends are separate open files: the
/// process at the other end cannot switch this one to blocking, fill it so that a write blocks, or take a
/// wake-up away. (What it must be denied by its confinement is `userfaultfd`, with which a process can make the
/// kernel hold a pipe for as long as it likes.) Several rings may share one bell; each then holds a clone of its [`Ringer`].
#[derive(Debug)]
pub struct Bell {
    hear: OwnedFd,
}

/// The end of a bell that rings.
#[derive(Debug)]
pub struct Ringer {
    ring: OwnedFd,
    /// Held so that ringing for a process that has died is no broken pipe, whose signal would end this one.
    _keeper: Option<OwnedFd>,
}

impl Bell {
    /// Makes a bell. The ringer carries a keeper (see [`Ringer::fds`]).
    pub fn pair() -> Result<(Bell, Ringer), Error> {
        let (hear, ring) =
            pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).map_err(Error::system("make a bell"))?;
        // The smallest pipe holds thousands of rings, and the kernel limits what a user has in pipes. Where
        // even that is refused the larger one does as well.
        let _ = fcntl_setpipe_size(&ring, 4096);
        let keeper = rustix::io::fcntl_dupfd_cloexec(&hear, 0).map_err(Error::system("duplicate a bell"))?;
        Ok((Bell { hear }, Ringer { ring, _keeper: Some(keeper) }))
    }

    /// Takes the rings heard so far. Look at the pipes *after* this, never before. Returns false when the bell
    /// can never ring again because no process holds a ringer.
    pub fn drain(&self) -> Result<bool, Error> {
        let mut rings = [0; 256];
        loop {
            match rustix::io::read(&self.hear, &mut rings) {
                Ok(0) => return Ok(false),
                // What is left makes the bell readable again, so one read is enough.
                Ok(_) | Err(Errno::AGAIN) => return Ok(true),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(Error::system("hear a bell")(errno)),
            }
        }
    }

    /// Sleeps until the bell rings (or can never ring again), at most for `timeout`. Returns whether it did;
    /// the rings stay until [`drain`](Self::drain).
    pub fn wait(&self, timeout: Option<Duration>) -> Result<bool, Error> {
        let mut fds = [PollFd::new(&self.hear, PollFlags::IN)];
        poll_for(&mut fds, timeout)
    }

    /// Makes hearing block, for the process that waits for nothing else: sleeping then takes one system call
    /// instead of two. All holders of this end share it; a keeper never hears, so it does not matter there.
    pub fn into_sole(self) -> Result<SoleBell, Error> {
        let failed = Error::system("make a bell block");
        let flags = rustix::fs::fcntl_getfl(&self.hear).map_err(failed)?;
        let failed = Error::system("make a bell block");
        rustix::fs::fcntl_setfl(&self.hear, flags - OFlags::NONBLOCK).map_err(failed)?;
        Ok(SoleBell { hear: self.hear })
    }

    /// The descriptor, to be handed to the process that is to hear.
    pub fn into_fd(self) -> OwnedFd {
        self.hear
    }
}

/// A bell of a process that waits for nothing but it.
#[derive(Debug)]
pub struct SoleBell {
    hear: OwnedFd,
}

impl SoleBell {
    /// Sleeps until the bell rings and takes the rings. False when it can never ring again.
    pub(crate) fn hear(&self) -> Result<bool, Error> {
        let mut rings = [0; 256];
        loop {
            match rustix::io::read(&self.hear, &mut rings) {
                Ok(count) => return Ok(count > 0),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(Error::system("hear a bell")(errno)),
            }
        }
    }
}

impl Ringer {
    /// Rings. Never blocks; ringing a bell that rings already is no error.
    pub fn ring(&self) -> Result<(), Error> {
        loop {
            match rustix::io::write(&self.ring, &[1]) {
                Ok(_) | Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(Error::system("ring a bell")(errno)),
            }
        }
    }

    /// Another ringer of the same bell.
    pub fn try_clone(&self) -> Result<Ringer, Error> {
        let duplicate =
            |fd: &OwnedFd| rustix::io::fcntl_dupfd_cloexec(fd, 0).map_err(Error::system("duplicate a bell"));
        let keeper = self._keeper.as_ref().map(duplicate).transpose()?;
        Ok(Ringer { ring: duplicate(&self.ring)?, _keeper: keeper })
    }

    /// The descriptor that rings, and the keeper if there is one: hand both to a caller, only the first to a
    /// worker (a keeper would let it swallow wake-ups of the caller).
    pub fn fds(&self) -> (BorrowedFd<'_>, Option<BorrowedFd<'_>>) {
        (self.ring.as_fd(), self._keeper.as_ref().map(AsFd::as_fd))
    }

    /// A ringer from descriptors that were handed over. Without the keeper, ringing when nobody can hear any
    /// more is [`Error::System`] (broken pipe) and raises `SIGPIPE`, which ends a process that does not ignore
    /// it: right for a worker, which has nothing left to do, not for a caller.
    pub fn from_fds(ring: OwnedFd, keeper: Option<OwnedFd>) -> Ringer {
        Ringer { ring, _keeper: keeper }
    }
}

impl From<OwnedFd> for Bell {
    /// A bell from the descriptor that was handed over.
    fn from(hear: OwnedFd) -> Self {
        Bell { hear }
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.hear.as_fd()
    }
}

/// Polls until something is there or the time is up, whatever signals come; returns whether something is there.
pub(crate) fn poll_for(fds: &mut [PollFd<'_>], timeout: Option<Duration>) -> Result<bool, Error> {
    let deadline = timeout.map(|timeout| std::time::Instant::now() + timeout);
    let mut left = timeout;
    loop {
        // A time too long for the kernel's clock is as good as none.
        let timespec = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(fds, timespec.as_ref()) {
            Ok(count) => return Ok(count > 0),
            Err(Errno::INTR) => {
                left = deadline.map(|deadline| deadline.saturating_duration_since(std::time::Instant::now()));
            }
            Err(errno) => return Err(Error::system("wait for a bell")(errno)),
        }
    }
}
