//! Run functions of your program on every machine of a pool.
//!
//! ```standalone_crate
//! #[mutirao::operation(repeatable)]
//! fn digits(n: u32) -> String {
//!     n.to_string()
//! }
//!
//! fn main() -> Result<(), mutirao::Error> {
//!     mutirao::init(); // first: on other machines this program is started to run `digits`, and stays here
//!     let pool = mutirao::Pool::open()?;
//!     let one = pool.call(digits, 7); // a future; or wait for it:
//!     assert_eq!(one.wait()?, "7");
//!     for text in pool.map(digits, 0..1000) {
//!         assert!(text?.len() <= 3);
//!     }
//!     Ok(())
//! }
//! ```
//!
//! The program talks to the node of its machine (`mutirao up`); where none runs, a private one is started that
//! uses this machine's cores and ends with the program. Slots are asked for when calls wait and given back when
//! idle, or by hand with [`Pool::allocate`].
//!
//! # Threads, signals, forks
//! A pool can be used by many threads at once. A thread that waits does the pool's work meanwhile; when none waits,
//! a thread of the library does. That one blocks all signals, so handlers run in the program's own threads.
//!
//! A pool belongs to the process that opened it. A child that the program forks must not use it, except to drop it,
//! which then does nothing; it may open a pool of its own if it executes another program (or this one) first.
//! As long as such a child lives without executing a program, it keeps the connection open: if its parent dies
//! without closing the pool, the node keeps the parent's slots until the child ends too.
//!
//! [`raw`] is the same as bytes, for bindings to other languages.
#![deny(unsafe_code)]

// Lets the attribute name this crate in its own tests.
extern crate self as mutirao;

pub mod bag;
pub mod checkpoint;
mod error;
pub mod group;
mod operation;
mod pipe;
mod pipe_stream;
mod pool;
pub mod raw;
mod saving;
mod socket;
#[cfg(test)]
mod socket_tests;
mod sys;
mod typed;
mod worker;

pub use error::Error;
pub use mutirao_macros::operation;
pub use pool::{
    Allocation, CallError, CallErrorKind, CallOptions, Lease, LeaseKey, LeaseState, Options, Private,
    Request, Slots,
};
#[doc(hidden)]
pub use typed::private as __private;
pub use typed::{Call, Function, InOrder, Map, Pool, init};
