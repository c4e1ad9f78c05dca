use std::os::fd::BorrowedFd;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags};

use crate::bell::poll_for;
use crate::{Bell, Error, SoleBell, Spinner};

/// What one can wait for with a bell: bytes in a [`Consumer`](crate::Consumer), room in a
/// [`Producer`](crate::Producer), or any of several things that ring the same bell.
pub trait Wakeable {
    /// Whether there is something to do. Called very often while spinning.
    fn is_ready(&mut self) -> Result<bool, Error>;
    /// Asks to be woken; true when there is something to do already.
    fn arm(&mut self) -> Result<bool, Error>;
    /// No longer asks to be woken.
    fn disarm(&mut self);
}

/// Why [`wait`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Wake {
    /// There is something to do.
    Ready,
    /// One of the other descriptors has something to say.
    Other,
    /// The deadline has passed.
    TimedOut,
    /// Nobody can ring this bell any more: the other side is gone, and has left nothing.
    Gone,
}

/// Waits until `on` is ready, first spinning if that pays, then asleep on `bell`, which is drained.
///
/// While asleep, `others` (a socket to the node, say) are watched for reading too; they are not looked at when
/// `on` is ready, nor while spinning, so look at them now and then. The deadline may be passed by the time of a
/// spin (at most 50 microseconds). After an error `on` may still ask to be woken, which does no harm.
pub fn wait(
    on: &mut impl Wakeable,
    spinner: &mut Spinner,
    bell: &Bell,
    others: &[BorrowedFd<'_>],
    deadline: Option<Instant>,
) -> Result<Wake, Error> {
    if on.is_ready()? {
        return Ok(Wake::Ready);
    }
    if spinner.spin(|| on.is_ready())? {
        return Ok(Wake::Ready);
    }
    let began = Instant::now();
    spinner.dozes();
    let wake = sleep(on, bell, others, deadline);
    spinner.wakes(began.elapsed());
    let wake = wake?;
    on.disarm();
    Ok(wake)
}

/// As [`wait`], for a process that waits for nothing else.
pub fn wait_solely(on: &mut impl Wakeable, spinner: &mut Spinner, bell: &SoleBell) -> Result<Wake, Error> {
    if on.is_ready()? {
        return Ok(Wake::Ready);
    }
    if spinner.spin(|| on.is_ready())? {
        return Ok(Wake::Ready);
    }
    let began = Instant::now();
    let wake = loop {
        if on.arm()? {
            break Wake::Ready;
        }
        let rang = bell.hear()?;
        if on.is_ready()? {
            break Wake::Ready;
        }
        if !rang {
            break Wake::Gone;
        }
    };
    on.disarm();
    spinner.note(began.elapsed());
    Ok(wake)
}

fn sleep(
    on: &mut impl Wakeable,
    bell: &Bell,
    others: &[BorrowedFd<'_>],
    deadline: Option<Instant>,
) -> Result<Wake, Error> {
    if others.is_empty() {
        return sleep_on(on, bell, &mut [PollFd::new(bell, PollFlags::IN)], deadline);
    }
    let others = others.iter().map(|other| PollFd::from_borrowed_fd(*other, PollFlags::IN));
    let mut fds: Vec<_> = std::iter::once(PollFd::new(bell, PollFlags::IN)).chain(others).collect();
    sleep_on(on, bell, &mut fds, deadline)
}

/// Sleeps on `fds`, the first of which is the bell.
fn sleep_on(
    on: &mut impl Wakeable,
    bell: &Bell,
    fds: &mut [PollFd<'_>],
    deadline: Option<Instant>,
) -> Result<Wake, Error> {
    loop {
        if on.arm()? {
            return Ok(Wake::Ready);
        }
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if !poll_for(fds, left)? {
            return Ok(if on.is_ready()? { Wake::Ready } else { Wake::TimedOut });
        }
        let is_rung = !fds[0].revents().is_empty();
        let is_gone = is_rung && !bell.drain()?;
        if on.is_ready()? {
            return Ok(Wake::Ready);
        }
        if fds[1..].iter().any(|fd| !fd.revents().is_empty()) {
            return Ok(Wake::Other);
        }
        if is_gone {
            return Ok(Wake::Gone);
        }
    }
}
