//! Bags of tasks on drawn grids: how schedulers compare.
//!
//! A [`Scenario`] draws a [`Grid`] of sites, machines and their load, and the tasks of a bag. A
//! [`Contender`] runs the bag on it: the very [`Scheduler`](mutirao_schedule::bag::Scheduler) of a real
//! bag, with a policy. Machines are simulated without the tree and its messages, since tasks are long
//! against those.

mod contender;
mod grid;
mod link;
mod load;
mod oracle;
mod run;
mod scenario;

pub use contender::{Contender, Ran, UnknownContender, run_bag};
pub use grid::{Grid, Machine, Work};
pub use load::Load;
pub use scenario::{Scenario, Study};
