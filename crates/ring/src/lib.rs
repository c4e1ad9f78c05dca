//! Shared-memory rings between a worker and the process that calls it.
//!
//! A *ring* is one sealed memory file with two byte pipes, one for calls and one for replies. The node creates
//! it ([`RingMemory`]) and hands it to the caller ([`CallerEnd`]) and to the worker ([`WorkerEnd`]); from then on
//! the two exchange bytes without the kernel, and wake each other through a [`Bell`] only when the other side
//! has said that it sleeps.
//!
//! ```
//! use mutirao_ring::{Bell, CallerEnd, RingMemory, Spinner, Wake, WorkerEnd, wait};
//!
//! # fn main() -> Result<(), mutirao_ring::Error> {
//! let memory = RingMemory::create(64 * 1024)?;
//! let (call_bell, call_ringer) = Bell::pair()?; // the caller wakes the worker
//! let (reply_bell, reply_ringer) = Bell::pair()?; // the worker wakes the caller
//! let mut caller = CallerEnd::map(&memory, call_ringer)?;
//! let mut worker = WorkerEnd::map(&memory, reply_ringer)?;
//!
//! caller.calls.write_parts(&[b"header", b"body"])?;
//! caller.calls.flush()?;
//!
//! let woken = wait(&mut worker.calls, &mut Spinner::asleep(), &call_bell, &[], None)?;
//! assert_eq!(woken, Wake::Ready);
//! let mut bytes = Vec::new();
//! worker.calls.read_to(&mut bytes, 1024)?;
//! assert_eq!(bytes, b"headerbody");
//! # drop(reply_bell);
//! # Ok(())
//! # }
//! ```
//!
//! # What a hostile other side can do
//! The worker runs foreign code and may write anything anywhere in the memory file at any time.
//! - An index it publishes is checked whenever it is loaded; one out of range ends the pipe with
//!   [`Error::Corrupt`], for good. One's own indices are kept in private memory.
//! - Bytes are copied out before anybody looks at them, so what was checked stays what is used. They are
//!   whatever the other side wrote, as with a socket.
//! - The file is sealed, so it cannot be cut short under a reader.
//! - Each side of a bell has an open file of its own, so the worker can neither make the caller block on it nor
//!   swallow a wake-up. It can ring for nothing, which costs the other side a look.
//! - It can stop reading or writing, as any peer can: deadlines are the caller's.
#![deny(unsafe_code)]

mod bell;
mod ends;
mod error;
mod lane;
mod memory;
mod pipe;
#[allow(unsafe_code)]
mod shm;
mod spin;
mod wait;

pub use bell::{Bell, Ringer, SoleBell};
pub use ends::{CallerEnd, Progress, ProgressReport, WorkerEnd};
pub use error::Error;
pub use lane::{lane_reader, lane_writer};
pub use memory::{CAPACITY_DEFAULT, CAPACITY_MAX, CAPACITY_MIN, RingMemory};
pub use pipe::{Consumer, Producer, Room};
pub use spin::{SEATS, Seat, SpinBoard, Spinner};
pub use wait::{Wake, Wakeable, wait, wait_solely};

#[cfg(test)]
mod tests;
