//! Run functions of your program on every machine of a pool.

mod error;
mod operation;
mod pool;
pub mod raw;
mod socket;
mod sys;
mod worker;

pub use error::Error;
pub use pool::{CallError, CallErrorKind};
