//! How an attempt ended: each failure named as what it is.

use serde::{Deserialize, Serialize};
use std::fmt;

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum End {
    /// As it should.
    Done,
    /// With this exit code.
    Code(u8),
    /// By this signal.
    Signal(u8),
    /// It ran too long and was ended.
    TimeLimit,
    /// There was not enough memory, and the system ended it.
    OutOfMemory,
    /// Its command could not be started: why.
    NotStarted(String),
    /// It left no file of this name, which it was to bring.
    NoOutput(String),
    /// It was to report to the manager before it ended, and did not, or not in a way that can be understood.
    NoReport(String),
    /// It reported that it failed.
    ReportedFailure,
    /// The operation failed, with this code of its own.
    Operation(u32, String),
    /// Its worker ended while it ran: why.
    WorkerEnded(String),
    /// Its node was lost while it ran: why.
    NodeLost(String),
    /// It did not begin: why.
    NotBegun(String),
    /// It was no longer wanted.
    Killed,
    /// The results of the task, from as many nodes as may be asked, differ.
    NoAgreement,
}

/// What the end of an attempt counts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// There is a result.
    Success,
    /// The task failed by itself: one retry less.
    Failure,
    /// What it ran on went with it: it may be the task's doing, and counts towards its crash limit.
    Crash,
    /// Nothing that is the task's doing.
    Nothing,
}

impl End {
    /// What it counts as.
    pub fn class(&self) -> Class {
        match self {
            End::Done => Class::Success,
            End::WorkerEnded(_) | End::NodeLost(_) => Class::Crash,
            End::NotBegun(_) | End::Killed => Class::Nothing,
            _ => Class::Failure,
        }
    }

    /// One word for programs.
    pub fn word(&self) -> &'static str {
        match self {
            End::Done => "done",
            End::Code(_) => "exit-code",
            End::Signal(_) => "signal",
            End::TimeLimit => "time-limit",
            End::OutOfMemory => "out-of-memory",
            End::NotStarted(_) => "not-started",
            End::NoOutput(_) => "no-output",
            End::NoReport(_) => "no-report",
            End::ReportedFailure => "reported-failure",
            End::Operation(..) => "operation-failed",
            End::WorkerEnded(_) => "worker-ended",
            End::NodeLost(_) => "node-lost",
            End::NotBegun(_) => "not-begun",
            End::Killed => "killed",
            End::NoAgreement => "no-agreement",
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Done => f.write_str("done"),
            End::Code(code) => write!(f, "exit code {code}"),
            End::Signal(signal) => write!(f, "ended by signal {signal}"),
            End::TimeLimit => f.write_str("its time limit passed"),
            End::OutOfMemory => f.write_str("out of memory"),
            End::NotStarted(why) => write!(f, "it could not be started: {why}"),
            End::NoOutput(name) => write!(f, "it left no `{name}`, which it was to bring"),
            End::NoReport(why) => write!(f, "it did not report to the manager: {why}"),
            End::ReportedFailure => f.write_str("it reported that it failed"),
            End::Operation(code, text) => write!(f, "the operation failed with code {code}: {text}"),
            End::WorkerEnded(why) => write!(f, "its worker ended: {why}"),
            End::NodeLost(why) => write!(f, "its node was lost: {why}"),
            End::NotBegun(why) => write!(f, "it did not begin: {why}"),
            End::Killed => f.write_str("no longer wanted"),
            End::NoAgreement => f.write_str("the results of as many nodes as may be asked differ too much"),
        }
    }
}

/// What an attempt has taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// How long it ran, ms.
    pub wall_ms: u64,
    /// Processor time, ms.
    pub cpu_ms: u64,
    /// Most memory that any one process of it held, MiB.
    pub peak_mib: u32,
}

/// How a task came to where it is: its last attempt that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// The attempt.
    pub attempt: u64,
    /// Where it ran.
    pub node: String,
    /// How it ended.
    pub end: End,
    /// What it has taken.
    pub cost: Cost,
    /// What it wrote last to its standard error.
    pub last_words: String,
}
