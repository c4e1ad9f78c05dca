//! Groups: processes that exchange messages over channels only.
//!
//! `mutirao group run FILE` starts the processes that a file names, on slots of the pool, and joins their channels
//! as the file says. A process takes its place with [`Group::open`]; its channels are those of the file, numbered
//! apart for input and output.
//!
//! - [`Sender::send`] waits until its message is received; [`Sender::post`] stores it until then. A channel is
//!   used in one of the two ways only.
//! - However many processes a channel joins, exactly one receives each message. What one process sends over a
//!   channel is received in that order.
//! - A process at the other end that has left the group is [`Error::Ended`].

mod calls;
mod collective;
mod conduit;
mod direct;
mod ends;
mod error;
mod line;
mod port;
mod process;
mod reader;
mod recorder;
mod replay;
mod shared;
mod spill;
mod superstep;
#[cfg(test)]
mod tests;
mod typed;

#[doc(hidden)]
pub use direct::{Direct, Over};
pub use error::Error;
#[doc(hidden)]
pub use mutirao_group::plan;
pub use mutirao_group::plan::Mode;
pub use process::{Group, Input, Output};
#[doc(hidden)]
pub use reader::RecordReader;
pub use superstep::{Superstep, Times};
pub use typed::{Receiver, Sender};
