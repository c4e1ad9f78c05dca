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
    /// The configuration is not understood.
    #[error("the configuration {path} is not understood: {reason}", path = path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and where.
        reason: String,
    },
    /// What the node is told to lend makes no sense.
    #[error("this node cannot lend that: {reason}; see `--resource` and `--label`, or node.toml")]
    Capacity {
        /// What is wrong.
        reason: String,
    },
    /// The node's identity cannot be had.
    #[error(transparent)]
    Trust(#[from] mutirao_trust::Error),
    /// The node's identity cannot be used.
    #[error("the identity of node `{name}` cannot be used: {refusal}")]
    Identity {
        /// The node.
        name: String,
        /// Why.
        refusal: mutirao_trust::Refusal,
    },
    /// A name that no node can have.
    #[error(transparent)]
    Name(#[from] mutirao_trust::BadName),
    /// The node runs already.
    #[error(
        "node `{name}` runs already{by}; stop it with `mutirao --node {name} down`, or choose another name"
    )]
    Running {
        /// The node.
        name: String,
        /// By which process, where known.
        by: String,
    },
    /// The runtime directory is open to others, or belongs to somebody else.
    #[error(
        "`{path}` must be a directory of this user that nobody else can enter (mode 0700); remove it or set MUTIRAO_RUNTIME_DIR to a directory that is",
        path = path.display()
    )]
    Runtime {
        /// The directory.
        path: PathBuf,
    },
    /// The name is too long for a socket's path.
    #[error("`{path}` is too long for a socket (107 bytes); set MUTIRAO_RUNTIME_DIR to a shorter directory", path = path.display())]
    SocketPath {
        /// The path.
        path: PathBuf,
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
