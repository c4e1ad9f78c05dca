//! A journal that several members keep together, by Raft's rules: an entry counts when most of them have it on their
//! disks, and at most one of them at a time has entries counted.
//!
//! [`Member`] is one of them: a machine around the `raft` crate, without I/O and without a clock. Its owner
//!
//! 1. tells it what happens: [`tick`](Member::tick), [`hear`](Member::hear), [`propose`](Member::propose);
//! 2. asks [`work`](Member::work) what there is to do: send some messages, and append [`Line`]s to the disk;
//! 3. when these are there, says so with [`written`](Member::written), which hands out further messages and the
//!    entries that count now.
//!
//! So that the journal does not grow for ever, its owner may at any time put [`Line::Part`]s in the place of entries,
//! which say what those have come to ([`compact`](Member::compact)). A member that lacks entries which no other has any
//! more hears of an [`Offer`] of such parts; its owner gets them in its own way and then [takes](Member::take) it.
//!
//! After a restart, [`Kept::read`] puts together from the lines what the member knew. What was said to others was on
//! the disk before, so a member that ends at any moment has promised nothing that it does not remember. One whose disk
//! has lost something [mends](Member::mend) first.
#![forbid(unsafe_code)]

#[cfg(test)]
mod hostile;
mod line;
mod member;
mod mend;
mod message;
mod sound;
mod store;
#[cfg(test)]
mod tests;

pub use line::{Kept, Line, Point};
pub use member::{Compact, Entry, Member, NotLeading, Offer, Role, Timing, Work, Written};
pub use message::needs_others;
pub use sound::Refused;
pub use store::Cold;
