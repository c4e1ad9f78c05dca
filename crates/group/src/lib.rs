//! Groups of processes that exchange messages over channels only.
//!
//! Nothing here does I/O. An [`Application`] is read from a file that says which programs run, how often, where, and
//! what joins them; [`wiring::plan`] makes of it what each process is told ([`plan::ProcessPlan`]); [`draw`] shows it. Running, a group has
//! a [`master::Master`], which decides what follows when a process ends, and talks to each over a [`console::Console`]; who attaches to the terminal of a process speaks to it as [`attach`] has it. What a
//! process does can be written down as a [`record`].
#![forbid(unsafe_code)]

pub mod application;
pub mod attach;
pub mod channel;
mod check;
mod classic;
pub mod console;
mod document;
mod draft;
pub mod draw;
pub mod limits;
pub mod master;
pub mod plan;
mod problem;
pub mod record;
mod svg;
pub mod wiring;

#[cfg(test)]
mod tests;

pub use application::Application;
pub use draft::{Restart, Settings, Strategy};
pub use problem::{At, Mistake, Problem, Side};
