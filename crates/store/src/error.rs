//! What can go wrong with blobs and files.

use mutirao_wire::id::BlobHash;
use std::io;
use std::path::{Path, PathBuf};

/// Why a store or a file could not do what was asked. Unless it says otherwise, nothing changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refused.
    #[error("cannot {action} {path}: {source}", path = path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process has the store or the journal open.
    #[error("{path} is in use by another process; give each its own", path = .0.display())]
    InUse(PathBuf),
    /// The file is something else. It was not touched.
    #[error("{path} is no journal of this program; it was left as it is", path = .0.display())]
    NoJournal(PathBuf),
    /// The limit leaves no room, even with everything evicted that may be. Nothing was evicted.
    #[error(
        "no room in the store: {needed} bytes are needed, the limit is {limit} and {pinned} are in use; \
         raise the cache limit of this node"
    )]
    Full {
        /// Bytes asked for.
        needed: u64,
        /// The store's limit.
        limit: u64,
        /// Bytes of pinned blobs and of unfinished writers.
        pinned: u64,
    },
    /// The disk has no room. Blobs not in use may have been evicted in the attempt.
    #[error("the disk under {path} is full; free some space or move the cache", path = .0.display())]
    DiskFull(PathBuf),
    /// What was written is not what was announced. It was thrown away.
    #[error("the content has hash {got}, announced was {expected}; it was thrown away")]
    WrongContent {
        /// The hash announced.
        expected: BlobHash,
        /// The hash of what came.
        got: BlobHash,
    },
    /// The blob on the disk is not what was stored. It was removed; fetch it again.
    #[error("blob {0} is damaged on the disk and was removed; it must be fetched again")]
    Corrupt(BlobHash),
    /// There is no such blob.
    #[error("blob {0} is not here")]
    Missing(BlobHash),
    /// The blob is in use.
    #[error("blob {0} is in use and cannot be removed")]
    Pinned(BlobHash),
    /// The file is longer than what is read of its kind.
    #[error("{path} is longer than {max_bytes} bytes, which no valid file of its kind is", path = path.display())]
    TooLong {
        /// Which file.
        path: PathBuf,
        /// The limit.
        max_bytes: u64,
    },
}

impl Error {
    /// Whether the file or the blob simply is not there.
    pub fn is_missing(&self) -> bool {
        match self {
            Error::Missing(_) => true,
            Error::Io { source, .. } => source.kind() == io::ErrorKind::NotFound,
            _ => false,
        }
    }
}

/// Whether the file system has no room, for everybody or for this user.
pub(crate) fn is_disk_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Names what was being done when the system refused.
pub(crate) fn at<E: Into<io::Error>>(action: &'static str, path: &Path) -> impl FnOnce(E) -> Error {
    move |source| {
        let source = source.into();
        match is_disk_full(&source) {
            true => Error::DiskFull(path.to_owned()),
            false => Error::Io { action, path: path.to_owned(), source },
        }
    }
}
