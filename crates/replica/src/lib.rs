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
//! After a restart, [`Kept::read`] puts together from the lines what the member knew. What was said to others was on
//! the disk before, so a member that ends at any moment has promised nothing that it does not remember.
#![forbid(unsafe_code)]

mod line;
mod member;
mod message;
mod store;
#[cfg(test)]
mod tests;

pub use line::{Kept, Line};
pub use member::{Entry, Member, NotLeading, Role, Timing, Work, Written};
pub use message::{Unreadable, asks_for_votes};
pub use store::Cold;
