//! What can go wrong.

use crate::pool::CallError;
use mutirao_wire::limits::{CALL_BYTES_MAX, NAME_BYTES_MAX, OPERATIONS_MAX, PLUGIN_FILES_MAX};
use std::io;
use std::path::PathBuf;

/// Why the library could not do what was asked. Unless a variant says otherwise nothing has changed.
#[derive(thiserror::Error)]
pub enum Error {
    /// Neither a node nor the program that could be a private one was found.
    #[error(
        "no node of this machine is running ({looked}) and no `mutirao` program was found to start a private one; \
         run `mutirao up`, or name the program in MUTIRAO_BIN"
    )]
    NoNode {
        /// Where a node's socket was looked for.
        looked: String,
    },
    /// A bag cannot be made, or its keeper has ended; the text says why.
    #[error("the bag: {0}")]
    Bag(String),
    /// State that a task was to save is not kept; the text says why. The task may go on.
    #[error("the state is not kept: {0}")]
    Checkpoint(String),
    /// No node runs here, and a private one was not to take its place.
    #[error("no node of this machine is running ({looked}); start one by `mutirao up`")]
    NoneRuns {
        /// Where a node's socket was looked for.
        looked: String,
    },
    /// The node or pool that was named does not run here. No private node takes its place.
    #[error(
        "the node that is meant does not run on this machine ({looked}); start it by `mutirao up`, or name none \
         in MUTIRAO_NODE and MUTIRAO_POOL"
    )]
    NotRunning {
        /// Where its socket was looked for.
        looked: String,
    },
    /// Several nodes run here and nothing says which is meant.
    #[error("several nodes run on this machine: {}; choose one by MUTIRAO_NODE or MUTIRAO_POOL", .nodes.join(", "))]
    SeveralNodes {
        /// Each as `POOL/NODE`.
        nodes: Vec<String>,
    },
    /// The node's socket could not be used.
    #[error("cannot talk to the node at {}: {source}; is it running? see `mutirao doctor`", .path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The process behind the socket belongs to somebody else.
    #[error("the process behind {} belongs to user {uid}, not to you or root; it was not trusted", .path.display())]
    Impostor {
        /// The socket.
        path: PathBuf,
        /// Whose process it is.
        uid: u32,
    },
    /// The program that was to become a private node did not start.
    #[error("cannot start {} as a private node: {source}; name another program in MUTIRAO_BIN", .program.display())]
    Embedded {
        /// The program.
        program: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The program that was started as a private node did not become one.
    #[error(
        "{} was started as a private node and is none: {reason}; name a `mutirao` program in MUTIRAO_BIN", .program.display()
    )]
    NoPrivateNode {
        /// The program.
        program: PathBuf,
        /// What was seen of it.
        reason: String,
    },
    /// The node refused this program.
    #[error("this machine's node turns this program away: {0}")]
    Refused(String),
    /// The node does not take this program as a plugin. The pool was not opened.
    #[error("the node does not accept this program as a plugin: {0}")]
    PluginRefused(String),
    /// A file that was offered to workers is not taken; the text says why.
    #[error("the node does not take it: {0}")]
    BlobRefused(String),
    /// A file of the plugin cannot be read.
    #[error("cannot read {} to offer it as part of the plugin: {source}", .path.display())]
    PluginFile {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Too many files for one plugin.
    #[error(
        "the plugin would have {0} files, but at most {PLUGIN_FILES_MAX} are allowed; declare fewer libraries"
    )]
    PluginFiles(usize),
    /// Messages that make no sense came over the socket. The pool is closed.
    #[error("the node sent what this library does not understand: {0}; are both of the same version?")]
    Protocol(String),
    /// The node went away and did not come back in time. The pool is closed; calls under way have failed.
    #[error("the node of this machine went away and did not come back in {waited_s} s: {reason}")]
    NodeLost {
        /// How long it was waited for, seconds.
        waited_s: u64,
        /// What was last seen of it.
        reason: String,
    },
    /// The pool was closed by this program.
    #[error("this pool is closed; open it again")]
    Closed,
    /// `init` was not called, or after `open`.
    #[error("the operations are not known: call `mutirao::init` as the first statement of `main`")]
    NotInitialised,
    /// `init` was called twice.
    #[error("`mutirao::init` was called twice; call it once, as the first statement of `main`")]
    InitialisedTwice,
    /// A name of an operation that cannot be one.
    #[error(
        "`{name}` cannot name an operation: {why}; names have 1 to {NAME_BYTES_MAX} bytes, no `/` and no control \
         characters, and each is used once"
    )]
    OperationName {
        /// The name.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Too many operations.
    #[error("the program has {0} operations, but at most {OPERATIONS_MAX} are allowed")]
    TooManyOperations(usize),
    /// A call names an operation that is not registered.
    #[error(
        "`{0}` is not an operation of this program; put #[mutirao::operation] above the function (or list it in \
         the table given to mutirao_init)"
    )]
    UnknownOperation(String),
    /// The argument is too long. Nothing was sent.
    #[error("the argument has {bytes} bytes, but a call carries at most {CALL_BYTES_MAX}; split the work")]
    ArgumentTooLarge {
        /// Its length.
        bytes: u64,
    },
    /// The argument cannot be encoded. Nothing was sent.
    #[error("the argument of `{operation}` cannot be encoded: {reason}")]
    ArgumentEncoding {
        /// The operation.
        operation: String,
        /// What the encoder says.
        reason: String,
    },
    /// Fewer slots than were wanted at least. None are held.
    #[error("only {granted} of at least {at_least} leases can be had{notes_text}")]
    NotEnough {
        /// How many there would be.
        granted: u32,
        /// How many were needed.
        at_least: u32,
        /// What stands in the way, for people; begins with `: ` or `; `.
        notes_text: String,
    },
    /// A request that was to wait ended without slots; none are held.
    #[error("no slots were granted: {0}")]
    WaitedInVain(String),
    /// A node was to come under one that is below it. Nothing was changed.
    #[error("`{node}` cannot come under `{parent}`: `{parent}` is `{node}` itself or below it")]
    TreeCycle {
        /// Which was to be moved.
        node: String,
        /// Under whom.
        parent: String,
    },
    /// No node of the pool goes by this name.
    #[error("node `{0}` is not in the pool; see `mutirao nodes`")]
    UnknownNode(String),
    /// An answer did not come in time.
    #[error("{what} took longer than {waited_ms} ms")]
    TimedOut {
        /// What was waited for.
        what: &'static str,
        /// How long, milliseconds.
        waited_ms: u64,
    },
    /// A single call failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// Too many calls wait. Nothing was submitted.
    #[error("{0} calls wait already; take results before you submit more")]
    TooManyCalls(usize),
    /// A call is to run on a lease that is not held. Nothing was submitted.
    #[error("the lease that the call is to run on is not held, or has ended; allocate another")]
    NoSuchLease,
    /// A pipe could not be ordered. Nothing was changed.
    #[error("pipe {0} is open already, or there are too many; choose another number, or close one first")]
    PipeNumber(u64),
    /// A node refused an order. Nothing was changed.
    #[error("{node}: {text}")]
    OrderRefused {
        /// Its name.
        node: String,
        /// Why, for people.
        text: String,
    },
    /// A variable of the environment has a value that it cannot have. The pool was not opened.
    #[error("{name} is `{value}`, but {wanted} is wanted; correct or unset it")]
    Setting {
        /// The variable.
        name: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        wanted: &'static str,
    },
    /// A system call failed.
    #[error("could not {what}: {source}")]
    System {
        /// What was being done.
        what: &'static str,
        /// The system's reason.
        source: io::Error,
    },
}

/// `main` may end with an error, which Rust then prints by `Debug`: these say there, too, what is wrong in words.
macro_rules! debug_in_words {
    ($error:ty) => {
        impl std::fmt::Debug for $error {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Display::fmt(self, f)
            }
        }
    };
}
pub(crate) use debug_in_words;

debug_in_words!(Error);

impl Error {
    /// A number that keeps its meaning in later versions, for bindings to other languages. That of a failed call
    /// is the code of its [kind](crate::CallErrorKind::code).
    pub fn code(&self) -> u32 {
        match self {
            Error::NoNode { .. } | Error::NoneRuns { .. } | Error::NotRunning { .. } => 201,
            Error::SeveralNodes { .. } => 202,
            Error::Connect { .. } => 203,
            Error::Impostor { .. } => 204,
            Error::Embedded { .. } | Error::NoPrivateNode { .. } => 205,
            Error::Refused(_) => 206,
            Error::PluginRefused(_) => 207,
            Error::PluginFile { .. } => 208,
            Error::PluginFiles(_) => 209,
            Error::Protocol(_) => 210,
            Error::NodeLost { .. } => 211,
            Error::Closed => 212,
            Error::NotInitialised => 213,
            Error::InitialisedTwice => 214,
            Error::OperationName { .. } => 215,
            Error::TooManyOperations(_) => 216,
            Error::UnknownOperation(_) => 217,
            Error::ArgumentTooLarge { .. } => 218,
            Error::ArgumentEncoding { .. } => 219,
            Error::NotEnough { .. } | Error::WaitedInVain(_) => 220,
            Error::TimedOut { .. } => 221,
            Error::TooManyCalls(_) => 222,
            Error::System { .. } => 223,
            Error::OrderRefused { .. } => 226,
            Error::TreeCycle { .. } => 230,
            Error::UnknownNode(_) => 231,
            Error::Setting { .. } => 232,
            Error::PipeNumber(_) => 240,
            Error::NoSuchLease => 241,
            Error::BlobRefused(_) => 242,
            Error::Bag(_) => 250,
            Error::Checkpoint(_) => 251,
            Error::Call(error) => error.kind.code(),
        }
    }

    pub(crate) fn system(what: &'static str) -> impl FnOnce(rustix::io::Errno) -> Error {
        move |errno| Error::System { what, source: errno.into() }
    }
}
