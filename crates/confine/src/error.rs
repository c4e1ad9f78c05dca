//! What can go wrong between a plan and the plugin's first instruction.

use crate::level::Level;
use std::io;
use std::path::PathBuf;

/// Why a plugin was not started. The process may already be confined in part and is of no further
/// use: print the error and exit with [`Error::exit_code`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The plan did not arrive whole.
    #[error("the node's plan did not arrive: {0}; is this process started by a node?")]
    PlanMissing(#[source] io::Error),
    /// The plan is not one, or was written by another version.
    #[error("the node's plan cannot be read ({0}); node and worker must be the same version")]
    PlanUnreadable(#[source] postcard::Error),
    /// The plan is longer than the limit.
    #[error("the node's plan has {bytes} bytes, more than the {limit} allowed; list fewer paths")]
    PlanTooLong {
        /// Its length.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The plan asks for something that confines nothing or cannot be done.
    #[error("the node's plan is refused: {what} ({value})")]
    PlanRefused {
        /// The rule it breaks.
        what: &'static str,
        /// The offending value.
        value: String,
    },
    /// The process that started this one is gone.
    #[error("the node that started this worker has ended")]
    NodeGone,
    /// A path that the plugin cannot do without.
    #[error("cannot use {path}: {source}", path = path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A system call of the confinement failed.
    #[error("cannot {step}: {source}")]
    Step {
        /// What it was about to do.
        step: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Landlock refused.
    #[error("cannot confine the file system: {0}")]
    Landlock(#[from] landlock::RulesetError),
    /// The system-call filter was refused.
    #[error("cannot filter system calls: {0}")]
    Filter(#[from] seccompiler::Error),
    /// This machine does not reach the level that the plan asks for.
    #[error(
        "this machine confines to level \"{reached}\" and \"{asked}\" is asked for ({why}); \
         lower the minimum in the node's policy or run a newer kernel"
    )]
    Level {
        /// The plan's minimum.
        asked: Level,
        /// What was reached.
        reached: Level,
        /// What is there and what is not.
        why: String,
    },
    /// All was confined, but the plugin could not be executed.
    #[error("cannot execute the plugin {path}: {source}", path = path.display())]
    Exec {
        /// The executable.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Error {
    /// Exit code of a worker whose plan was missing or refused, or whose node is gone.
    pub const EXIT_PLAN: i32 = 120;
    /// Exit code of a worker that did not reach the level asked for.
    pub const EXIT_LEVEL: i32 = 121;
    /// Exit code of a worker in which a step of the confinement failed.
    pub const EXIT_STEP: i32 = 122;
    /// Exit code of a confined worker whose plugin could not be executed.
    pub const EXIT_EXEC: i32 = 123;

    /// The exit code that tells the node which kind of error it was.
    pub fn exit_code(&self) -> i32 {
        match self {
            Error::PlanMissing(_)
            | Error::PlanUnreadable(_)
            | Error::PlanTooLong { .. }
            | Error::PlanRefused { .. }
            | Error::NodeGone => Self::EXIT_PLAN,
            Error::Level { .. } => Self::EXIT_LEVEL,
            Error::Path { .. } | Error::Step { .. } | Error::Landlock(_) | Error::Filter(_) => {
                Self::EXIT_STEP
            }
            Error::Exec { .. } => Self::EXIT_EXEC,
        }
    }
}

/// Names the step that a system error interrupted.
pub(crate) fn at<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> Error {
    move |source| Error::Step { step, source: source.into() }
}
