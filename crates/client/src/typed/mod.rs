//! The typed Rust interface, on top of `raw`.

mod function;
mod map;
mod pool;
#[cfg(doctest)]
mod refused;
mod registry;

pub use function::Function;
pub use map::{InOrder, Map};
pub use pool::{Call, Pool};
pub(crate) use pool::{decode as decode_result, encode as encode_argument};
pub(crate) use registry::index_of;
pub use registry::init;

/// For the code that the attribute writes. Not an interface.
#[doc(hidden)]
pub mod private {
    pub use super::function::{run_0, run_1, run_2, run_3, run_4, run_5, run_6, run_7, run_8};
    pub use super::registry::{OPERATIONS, Registered, key_of};
    pub use linkme;
}
