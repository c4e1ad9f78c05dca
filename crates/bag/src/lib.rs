//! Bags of tasks: what is to be done, what has been, and what follows from each event.
//!
//! [`read`] makes a [`Draft`] of a bag file. A [`Bag`] is the state machine that a keeper drives: it is told what
//! happens to tasks, workers and journal, and answers with what is to be journaled, started, killed and given back.
//! The journal's [`Record`]s are the truth: a bag is always what follows from them, so that a keeper which was
//! killed goes on where it was.
//!
//! A task *runs* once or more; its result is *committed* once: when the record of it is on the disk.
//!
//! Nothing here does I/O, reads a clock or draws a random number.
#![forbid(unsafe_code)]

mod bag;
mod checks;
mod end;
mod error;
mod file;
pub mod ipar;
mod limits;
mod record;
pub mod report;
mod template;
mod words;

pub use bag::{
    Bag, Closed, Counts, Draft, Input, Left, NodeStanding, Output, Standing, Taking, TaskView, Trust, Verdict,
};
pub use checks::{Accept, Checks, content_hash, millionths};
pub use end::{Class, Cost, End, Evidence};
pub use error::Error;
pub use file::{check_members, read};
pub use limits::{BAG_NAME_BYTES_MAX, REPORT_BYTES_MAX, TASKS_MAX, VALUE_BYTES_MAX};
pub use record::{Lent, NewTask, Record, Saved, Span};
pub use report::{Added, AddedCommand, Report};
pub use template::{FileName, Known, Program, Settings, Template, Work};
pub use words::{Named, Words};
