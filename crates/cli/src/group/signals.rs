//! Signals that end a group instead of the launcher.

use anyhow::{Context, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGWINCH};
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Those that came.
#[derive(Debug)]
pub struct Signals {
    wake: UnixStream,
    last: Arc<AtomicUsize>,
    first: Option<i32>,
    count: usize,
}

impl Signals {
    /// From now on they end nothing by themselves.
    pub fn listen() -> Result<Signals> {
        Signals::of(&[SIGHUP, SIGINT, SIGQUIT, SIGTERM])
    }

    /// The same, and of changes of the terminal's size.
    pub fn listen_for_size() -> Result<Signals> {
        Signals::of(&[SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGWINCH])
    }

    fn of(signals: &[i32]) -> Result<Signals> {
        let failed = "cannot listen for signals";
        let (wake, ring) = UnixStream::pair().context(failed)?;
        wake.set_nonblocking(true).context(failed)?;
        let last = Arc::new(AtomicUsize::new(0));
        for &signal in signals {
            // In this order: whoever is woken finds which it was.
            signal_hook::flag::register_usize(signal, last.clone(), signal as usize).context(failed)?;
            let ring = ring.try_clone().context(failed)?;
            signal_hook::low_level::pipe::register(signal, ring).context(failed)?;
        }
        Ok(Signals { wake, last, first: None, count: 0 })
    }

    /// One that came since this was asked last.
    pub fn take(&mut self) -> Option<i32> {
        let mut rings = [0; 64];
        let came = self.wake.read(&mut rings).unwrap_or(0);
        if came == 0 {
            return None;
        }
        self.count += came;
        let signal = self.last.load(Ordering::SeqCst) as i32;
        self.first.get_or_insert(signal);
        Some(signal)
    }

    /// Whether somebody insists.
    pub fn are_repeated(&self) -> bool {
        self.count > 1
    }

    /// The first that came.
    pub fn first(&self) -> Option<i32> {
        self.first
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}
