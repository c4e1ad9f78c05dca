//! The tree of nodes and the leases of one node, as pure state machines.
//!
//! [`Core`] is all of it: how nodes come under a parent, what they know of what is free, how slots
//! are searched for and granted, how leases live and end. It is told one [`Input`] at a time and
//! appends what follows to the caller's vector of [`Output`]s. It does no I/O, reads no clock and
//! draws no random numbers.
#![forbid(unsafe_code)]

mod above;
mod again;
mod ask;
mod attach;
mod balance;
mod charter;
mod core;
mod fit;
mod hint;
mod home;
mod hours;
mod io;
mod keep;
mod lend;
mod links;
#[cfg(test)]
mod model;
pub mod pipe;
mod policy;
mod queue;
mod rank;
mod reclaim;
mod rules;
mod search;
mod settings;
mod stand;
mod summary;
mod wait;

pub use self::core::Core;
pub use hours::{Facts, Hours, HoursError, Rules, Watch};
pub use io::{Capacity, Input, LeaseRecord, NodeMessage, Output, Table};
pub use policy::{Accept, Held, Judgement, Policy, Verified, Verifier, user_of};
pub use reclaim::{Lending, Reclaim};
pub use rules::{Admission, DENY_DIGITS_MIN, Deny, Right, at_ceiling, not_admitted};
pub use settings::Settings;
