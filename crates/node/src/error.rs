//! Why a daemon cannot start or go on.

use std::io;
use std::path::PathBuf;

/// Why a daemon cannot start or go on. Nothing is left behind but log lines and, where it got so
/// far, its state directory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or directory could not be used.
    #[error("{what} `{path}`: {source}", path = path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The kernel refused something the daemon cannot be without.
    #[error("the kernel refuses {what}: {source}")]
    Kernel {
        /// What.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// An address could not be listened on.
    #[error(
        "cannot listen on {address}: {source}; if another program holds the port, choose another, or port 0 for a free one"
    )]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// Why.
        source: io::Error,
    },
}

impl Error {
    /// For `map_err` on file operations.
    pub(crate) fn file(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Error {
        let path = path.into();
        move |source| Error::File { what, path, source }
    }

    /// For `map_err` on system calls.
    pub(crate) fn kernel<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> Error {
        move |source| Error::Kernel { what, source: source.into() }
    }
}
