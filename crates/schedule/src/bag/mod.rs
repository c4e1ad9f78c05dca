//! Which task of a bag runs where.
//!
//! The bag's engine owns tasks, journal and leases. It tells a [`Scheduler`] what happens and carries out
//! the [`Order`]s that follow. The scheduler keeps the books of what waits, what runs and what is free, so
//! that no [`Policy`] can start a task where it does not fit, twice on one worker, or when it is over; the
//! policy chooses only what is started next.
//!
//! A *site* is a node: what is brought there for one task is there for all. A *worker* is a lease on it.
//! An *attempt* is one run of a task; its number is never used again in the bag. A *copy* is an attempt
//! while another of the same task runs.

mod affinity;
mod books;
pub mod check;
mod fit;
mod floor;
mod informed;
mod kinds;
mod needs;
mod policy;
mod registry;
mod scheduler;
mod types;
mod worker;
mod workqueue;

#[cfg(test)]
mod tests;

pub use affinity::StorageAffinity;
pub use floor::{Floor, Stage};
pub use informed::{Fpltf, Oracle, Sufferage};
pub use needs::Needs;
pub use policy::{Change, Choice, Policy};
pub use registry::{NAMES, UnknownScheduler, by_name};
pub use scheduler::Scheduler;
pub use types::{Counts, Event, Input, Order, Outcome, Task};
pub use workqueue::Workqueue;
