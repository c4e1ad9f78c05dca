//! Placement and the call tables at both ends of a lease, as pure state machines.
//!
//! [`hold::Hold`] lives in the library: it knows an application's calls and leases and decides which call
//! goes where. [`serve::Serve`] lives in the daemon, one for each lease whose home is another node: it
//! stands between the stream and the worker. [`relay::Relay`] lives in the home's daemon, one for each such
//! lease: it knows whether the way between the two is open. When the worker is on the caller's machine there
//! is neither: library and worker share the ring.
//!
//! [`bag::Scheduler`] decides which task of a bag runs where.
//!
//! Nothing here does I/O, reads a clock or draws a random number.
#![forbid(unsafe_code)]

pub mod bag;
mod body;
pub mod hold;
mod mean;
mod receipts;
pub mod relay;
pub mod serve;
mod watch;

pub use mean::Mean;
pub use receipts::Receipts;
