//! Runs a command inside a worker and says how it ended.
//!
//! A [`Command`] travels as the argument of a call, [`Ended`] as its result. In the worker a [`Runner`] starts
//! one command after the other: it was confined with the worker, long before, so that a command costs the
//! `posix_spawn` of a small process and hardly more. Standard output and standard error go to files without a
//! name that are made once and emptied after each command: nothing can block on a full pipe, and what is long
//! does not fill the memory while the command runs.
//!
//! ```
//! # use mutirao_runner::{Command, How, Leaving, Place, Runner};
//! # let directory = tempfile::tempdir()?;
//! let mut runner = Runner::new(directory.path(), Place::Playpen, Leaving::Kills)?;
//! let ended = runner.run(&Command::shell("echo $((6 * 7))"));
//! assert_eq!((ended.how, ended.stdout), (How::Code(0), b"42\n".to_vec()));
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! Where a command runs is said by the worker's [`Place`]: in the directory and with the environment of its user,
//! in the same directory of a shared file system, or in a playpen: the empty directory of the worker, into
//! which named files are brought and out of which named files are taken back; or, if it is given a [`Site`] that its worker
//! reaches, in a directory made there.
//!
//! [`Live`] is a process that whoever started it talks to while it runs.
#![deny(unsafe_code)]

mod codec;
mod command;
mod ended;
mod environment;
mod live;
mod place;
mod run;
mod search;
mod site;
mod sys;
#[cfg(test)]
mod tests;

pub use codec::CodecError;
pub use command::{Command, Fetched, File, Home, Limits, Program, Variable};
pub use ended::{Content, Ended, How, Kept};
pub use environment::Environment;
pub use live::Live;
pub use place::Place;
pub use run::{Around, Beside, KEPT_BYTES_MIN, Keep, Leaving, OUTPUT_BYTES_MAX, Runner};
pub use site::{Lying, Placed, Site, Unseen, look, move_on};
