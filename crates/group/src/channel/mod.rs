//! Channels: what the two ends of one say to each other, and when a message counts as received.
//!
//! An output channel is an [`Outlet`], an input channel an [`Inlet`]. Each has a *lane* for every process on the
//! other side: the pipe that joins the two, numbered as the peers of the plan are. Both are pure: bytes come and
//! go through whoever holds the pipes. For each lane the holder
//!
//! - says [`opened`](Outlet::opened) and [`broken`](Outlet::broken), as often as that happens;
//! - fills [`head_room`](Outlet::head_room) with what it reads, and for an inlet the bodies of messages, which it
//!   may put where it likes;
//! - writes what [`next`](Outlet::next) gives, and says how much of it went.
//!
//! ```text
//! outlet                                            inlet
//!   Greeting{taken, given}            ──▶ ◀──         Greeting{taken}     each time the pipe opens, then:
//!   Message{sequence, sync} bytes         ──▶
//!                                         ◀──         Taken{sequence}     received by the program, up to this one
//!                                         ◀──         Ask{number, now}    1:n only: the next one, please
//!   Empty{number}                         ──▶                             nothing is there (only to "now")
//!   Refused                           ──▶ ◀──         Refused             one side is synchronous, the other not
//!   Closed                            ──▶ ◀──         Closed              no more from this side; answered alike
//! ```
//!
//! **Where messages wait.** With one receiver (1:1, n:1) messages are pushed as far as the pipe takes them, and are
//! kept by the sender too until they are taken. With several (1:n) they wait at the sender, and each is given to
//! one receiver that has asked. The order of each sender is kept, since a lane is a stream and its messages are
//! numbered.
//!
//! **Breaks.** A message is kept until `Taken` covers it. When a pipe opens again, the inlet says how far the
//! program has got, and the outlet goes on from there: nothing is lost, doubled or reordered. Asks are void with
//! the pipe they came over.
//!
//! **The end.** Each side answers `Closed` with its own, the inlet after it has told what was taken. Whoever closes and
//! waits for the answer can leave: the other side knows all it must know, whatever happens to the pipe.
//!
//! **Back-pressure** is the pipe's: it carries nothing but this lane, so whoever does not read stops only it.

mod frame;
mod inlet;
mod lane;
mod outlet;

pub use frame::{GREETING_BYTES, HEAD_BYTES, MESSAGE_BYTES_MAX, Nonsense, PipeId};
pub use inlet::{Inlet, Reading, Want};
pub use outlet::{Body, Out, Outlet};

use crate::plan::Mode;

/// Why a channel can no longer be used. It stays so; `lane` is the peer's place in the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The other side uses it in the other mode.
    Mixed {
        /// Who.
        lane: usize,
        /// The mode of this side.
        here: Mode,
    },
    /// This side has used it in the other mode. Nothing else has changed: the channel goes on in that mode.
    MixedHere {
        /// The mode it has.
        here: Mode,
    },
    /// What came is no frame, or not one that can come now.
    Nonsense {
        /// Who sent it.
        lane: usize,
        /// What is wrong.
        why: Nonsense,
    },
    /// Everybody on the other side has closed it.
    Ended,
    /// A pipe is no more.
    Failed {
        /// Whose.
        lane: usize,
        /// For people: why.
        text: String,
    },
}
