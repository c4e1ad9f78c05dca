//! Groups of processes that exchange messages over channels only.
//!
//! Nothing here does I/O. A [`plan::ProcessPlan`] is what one process is told about its place in the group.
#![forbid(unsafe_code)]

pub mod plan;
