use std::io;

/// Why a ring could not be made, mapped or used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The other side published an index that no correct peer can publish. The pipe is dead: every later
    /// operation on it ends with this error. End the worker and make a new ring.
    #[error(
        "the {pipe} pipe is corrupt: the other side published position {theirs} where ours is {ours} and the \
         capacity is {capacity} bytes; end that process and make a new ring"
    )]
    Corrupt {
        /// Which pipe of the ring: "call" or "reply".
        pipe: &'static str,
        /// The position that was read, in bytes since the ring was made.
        theirs: u64,
        /// This side's own position.
        ours: u64,
        /// The capacity of the pipe, in bytes.
        capacity: u64,
    },
    /// A write that must go in as a whole is larger than the pipe. Nothing was written.
    #[error("{bytes} bytes cannot go whole into a pipe of {capacity} bytes; write them in pieces")]
    TooLarge {
        /// Size of what was to be written.
        bytes: usize,
        /// The capacity of the pipe, in bytes.
        capacity: usize,
    },
    /// A capacity that is no power of two or out of range. Nothing was created.
    #[error(
        "a ring cannot have pipes of {bytes} bytes; choose a power of two from {} to {}",
        crate::CAPACITY_MIN,
        crate::CAPACITY_MAX
    )]
    Capacity {
        /// The capacity asked for.
        bytes: usize,
    },
    /// The file handed over could be shortened while it is mapped, or is no memory file. It was not mapped.
    #[error("the {what} is not a sealed memory file; accept it only from the node")]
    NotSealed {
        /// What the file was to be.
        what: &'static str,
    },
    /// The file handed over has a size that cannot be right. It was not mapped.
    #[error("the {what} has an impossible size of {bytes} bytes; accept it only from the node")]
    Size {
        /// What the file was to be.
        what: &'static str,
        /// Its size.
        bytes: u64,
    },
    /// The file handed over does not begin as this version makes it. It is no longer mapped.
    #[error(
        "the {what} begins with {found:#018x} instead of {expected:#018x}; node and program must speak the same \
         version of the ring"
    )]
    Format {
        /// What the file was to be.
        what: &'static str,
        /// The first eight bytes, as a little-endian number.
        found: u64,
        /// What they must be.
        expected: u64,
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

impl Error {
    pub(crate) fn system(what: &'static str) -> impl FnOnce(rustix::io::Errno) -> Error {
        move |errno| Error::System { what, source: errno.into() }
    }
}
