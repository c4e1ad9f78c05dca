//! The launcher's standard input, for one process.

use anyhow::{Context, Result};
use mutirao_group::console::{Console, INPUT_BYTES_MAX, PIECE_BYTES_MAX, Saying};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

/// Hands standard input on, no faster than the process takes it.
#[derive(Debug)]
pub struct Feed {
    rank: u32,
    credit_bytes: u32,
    has_ended: bool,
    /// The process runs, and its input has not ended.
    is_open: bool,
}

impl Feed {
    /// For the process of this rank.
    pub fn new(rank: u32) -> Feed {
        Feed { rank, credit_bytes: 0, has_ended: false, is_open: false }
    }

    /// Whose it is.
    pub fn rank(&self) -> u32 {
        self.rank
    }

    /// The process begins. What one before has taken is gone.
    pub fn begin(&mut self) {
        self.credit_bytes = INPUT_BYTES_MAX;
        self.is_open = true;
    }

    /// The process has taken so much.
    pub fn took(&mut self, bytes: u32) {
        self.credit_bytes = self.credit_bytes.saturating_add(bytes).min(INPUT_BYTES_MAX);
    }

    /// Whether there is use for more.
    pub fn wants(&self, console: &Console) -> bool {
        self.is_open && (self.has_ended || self.credit_bytes > 0 && console.has_room())
    }

    /// What is to be said of it now.
    pub fn next(&mut self, console: &Console) -> Result<Option<Saying>> {
        if !self.wants(console) {
            return Ok(None);
        }
        let stdin = std::io::stdin();
        if !self.has_ended {
            let mut fds = [PollFd::new(&stdin, PollFlags::IN)];
            if !poll(&mut fds, Some(&Default::default())).is_ok_and(|count| count > 0) {
                return Ok(None);
            }
            let mut bytes = vec![0; PIECE_BYTES_MAX.min(self.credit_bytes as usize)];
            match rustix::io::read(&stdin, &mut bytes) {
                Ok(0) => self.has_ended = true,
                Ok(count) => {
                    bytes.truncate(count);
                    self.credit_bytes -= count as u32;
                    return Ok(Some(Saying::Input(bytes)));
                }
                Err(Errno::INTR | Errno::AGAIN) => return Ok(None),
                Err(errno) => return Err(errno).context("cannot read standard input"),
            }
        }
        self.is_open = false;
        Ok(Some(Saying::InputEnds))
    }
}
