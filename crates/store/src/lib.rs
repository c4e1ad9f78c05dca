//! Content-addressed blobs with a size limit, files written whole or not at all, and journals that survive a crash.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! use mutirao_store::BlobStore;
//! let store = BlobStore::open(directory.path(), 64 << 20)?;
//! let mut writer = store.writer(None)?;
//! writer.write(b"some bytes")?;
//! let hash = writer.commit()?;
//! let in_use = store.pin(hash)?; // not evicted while this lives
//! let file = store.verified_open(hash)?;
//! # drop((in_use, file));
//! # Ok(()) }
//! ```
#![forbid(unsafe_code)]

mod blobs;
mod error;
mod file;
mod journal;
mod lock;
mod table;
mod writer;

pub use blobs::{BlobStore, Pin, Usage};
pub use error::Error;
pub use file::{read_limited, write_atomic};
pub use journal::{Found, Journal, RECORD_BYTES_MAX, Records, read_journal};
pub use lock::lock_exclusively;
pub use mutirao_wire::id::BlobHash;
pub use writer::BlobWriter;
