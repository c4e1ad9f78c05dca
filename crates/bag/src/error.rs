//! What can be wrong with a bag.

use mutirao_text::At;

/// Why a bag, or a part of one, cannot be. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A bag file says something that cannot be.
    #[error("{at}: {reason}")]
    File {
        /// Where.
        at: At,
        /// What is wrong and what to do.
        reason: String,
    },
    /// A task that is to be added cannot be.
    #[error("the task cannot be added: {0}")]
    Task(String),
    /// There are too many of something.
    #[error("a bag has at most {most} {what}; make several bags of it")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The limit.
        most: usize,
    },
    /// A record of the journal makes no sense to this version.
    #[error("record {number} of the journal cannot be read ({reason}); `mutirao bag check` says more")]
    Record {
        /// Which, counted from 1.
        number: u64,
        /// Why.
        reason: String,
    },
    /// There is no such task.
    #[error("there is no task `{0}` in the bag")]
    NoTask(String),
    /// A report of a task cannot be understood.
    #[error("line {line} of the task's report: {reason}")]
    Report {
        /// Which, counted from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
}
