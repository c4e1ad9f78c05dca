//! What became of a command.

use crate::codec::{self, CodecError};
use crate::command::{FILES_MAX, File, FileHead};
use crate::site::{Placed, Unseen};
use serde::{Deserialize, Serialize};
use std::fmt;

/// How a command ended, and what it left.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ended {
    /// How.
    pub how: How,
    /// What it wrote to its standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to its standard error.
    pub stderr: Vec<u8>,
    /// Bytes of output and files that were too many to be taken along.
    pub lost_bytes: u64,
    /// Why a file is among them that might have been kept; or nothing.
    pub lost_why: String,
    /// Files taken back.
    pub files: Vec<File>,
    /// Large files that are kept where it ran.
    pub kept: Vec<Kept>,
    /// Files that lie in their places at its site.
    pub placed: Vec<Placed>,
    /// Set where it did not start because its site is not what it should be.
    pub unseen: Option<Unseen>,
    /// Processor time of it and of those of its children that it waited for, microseconds.
    pub cpu_us: u64,
    /// Most memory that any one process of it held, KiB. It begins with what the worker holds.
    pub peak_kib: u64,
    /// How long it ran, microseconds.
    pub wall_us: u64,
    /// When it started, microseconds since 1970 by the clock of its machine.
    pub started_us: u64,
    /// Whether processes of it may still run that only the end of the worker ends. The worker must not run
    /// another command.
    pub left_behind: bool,
}

/// A file that is kept where a command ran, to be fetched from there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Its name relative to the directory of the command.
    pub name: String,
    /// Whether it can be executed.
    pub executable: bool,
    /// What is in it.
    pub content: Content,
}

/// What is in a file that is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// Its hash (BLAKE3).
    pub hash: [u8; 32],
    /// Its length.
    pub bytes: u64,
    /// The right to fetch it.
    pub word: [u8; 16],
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum How {
    /// With this exit code.
    Code(u8),
    /// By this signal.
    Signal(u8),
    /// It ran too long and was ended.
    TimeLimit,
    /// The system was out of memory and killed it.
    OutOfMemory,
    /// It did not start: for people, why.
    NotStarted(String),
}

impl Default for How {
    fn default() -> How {
        How::Code(0)
    }
}

impl How {
    /// Whether it is the end of a command that succeeded.
    pub fn is_success(&self) -> bool {
        *self == How::Code(0)
    }

    /// Exit code and signal as a shell or `make` would see them; at most one of them is not 0.
    pub fn code_and_signal(&self) -> (i32, i32) {
        match self {
            How::Code(code) => ((*code).into(), 0),
            How::Signal(signal) => (0, (*signal).into()),
            How::TimeLimit => (0, libc::SIGTERM),
            How::OutOfMemory => (0, libc::SIGKILL),
            How::NotStarted(_) => (127, 0),
        }
    }
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            How::Code(code) => write!(f, "exit code {code}"),
            How::Signal(signal) => write!(f, "signal {signal}"),
            How::TimeLimit => f.write_str("its time limit passed"),
            How::OutOfMemory => f.write_str("out of memory"),
            How::NotStarted(why) => write!(f, "it could not be started: {why}"),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Head {
    how: How,
    stdout_bytes: u64,
    stderr_bytes: u64,
    lost_bytes: u64,
    lost_why: String,
    files: Vec<FileHead>,
    kept: Vec<Kept>,
    placed: Vec<Placed>,
    unseen: Option<Unseen>,
    cpu_us: u64,
    peak_kib: u64,
    wall_us: u64,
    started_us: u64,
    left_behind: bool,
}

impl Ended {
    /// A command that did not start, and why.
    pub fn not_started(why: impl Into<String>) -> Ended {
        Ended { how: How::NotStarted(why.into()), ..Ended::default() }
    }

    /// Reads what [`encode`](Self::encode) wrote.
    pub fn decode(bytes: &[u8]) -> Result<Ended, CodecError> {
        let lengths = |head: &Head| {
            let outputs = [head.stdout_bytes, head.stderr_bytes];
            outputs.into_iter().chain(head.files.iter().map(FileHead::length)).collect()
        };
        let (head, mut parts) = codec::decode(bytes, lengths)?;
        let count = head.files.len() + head.kept.len() + head.placed.len();
        if count > FILES_MAX {
            return Err(CodecError::TooMany { what: "files taken back", count, most: FILES_MAX });
        }
        Ok(Ended {
            how: head.how,
            stdout: parts.next().unwrap_or_default().to_vec(),
            stderr: parts.next().unwrap_or_default().to_vec(),
            lost_bytes: head.lost_bytes,
            lost_why: head.lost_why,
            kept: head.kept,
            placed: head.placed,
            unseen: head.unseen,
            files: head.files.into_iter().zip(parts).map(|(file, bytes)| file.with(bytes)).collect(),
            cpu_us: head.cpu_us,
            peak_kib: head.peak_kib,
            wall_us: head.wall_us,
            started_us: head.started_us,
            left_behind: head.left_behind,
        })
    }

    /// As bytes, to be the result of a call.
    pub fn encode(&self) -> Vec<u8> {
        let head = Head {
            how: self.how.clone(),
            stdout_bytes: self.stdout.len() as u64,
            stderr_bytes: self.stderr.len() as u64,
            lost_bytes: self.lost_bytes,
            lost_why: self.lost_why.clone(),
            kept: self.kept.clone(),
            placed: self.placed.clone(),
            unseen: self.unseen,
            files: self.files.iter().map(FileHead::of).collect(),
            cpu_us: self.cpu_us,
            peak_kib: self.peak_kib,
            wall_us: self.wall_us,
            started_us: self.started_us,
            left_behind: self.left_behind,
        };
        let outputs = [&self.stdout[..], &self.stderr[..]].into_iter();
        codec::encode(&head, outputs.chain(self.files.iter().map(|file| &file.bytes[..])))
    }
}
