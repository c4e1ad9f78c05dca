//! What a program and the keeper of its bag say to each other, over a stream of their own.

use crate::prefixed::{self, LENGTH_BYTES};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Longest message: a task's result, and what is told with it, bytes.
pub const MESSAGE_BYTES_MAX: usize = (64 << 20) + (64 << 10);
/// Longest argument of a task that is pushed, bytes; one beyond 127 counts twice.
pub const ARGUMENT_BYTES_MAX: usize = 64 * 1024;

/// What the program says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToKeeper {
    /// One more task: a call of an operation.
    Push {
        /// The operation.
        operation: String,
        /// Its argument.
        argument: Vec<u8>,
    },
    /// What is not over need not be done.
    Cancel,
}

/// What the keeper says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromKeeper {
    /// First: the bag's number.
    Begun {
        /// It.
        bag: u32,
        /// Tasks it has already: those that are pushed are numbered on from here.
        tasks: u64,
    },
    /// A task has come to its end.
    Ended {
        /// Its number: tasks are numbered in the order in which they were pushed.
        task: u64,
        /// Its result.
        end: TaskEnd,
    },
    /// Nothing more comes; why.
    Failed(String),
}

/// How a task came to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TaskEnd {
    /// With this result.
    Done(Vec<u8>),
    /// Without one.
    Failed {
        /// How, in one word.
        kind: String,
        /// The operation's own code, if it failed by itself.
        code: u32,
        /// In words.
        text: String,
        /// The node of its last attempt; may be empty.
        node: String,
    },
}

/// A message that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// It is too long.
    #[error("a message of {0} bytes; at most {MESSAGE_BYTES_MAX} are possible")]
    TooLong(u32),
    /// It makes no sense.
    #[error("a message that makes no sense; are library and `mutirao` of the same version?")]
    Nonsense,
}

pub use crate::prefixed::encode;

/// How long the message is that begins with these four bytes.
pub fn length(head: [u8; LENGTH_BYTES]) -> Result<usize, MessageError> {
    prefixed::length(head, MESSAGE_BYTES_MAX).map_err(|_| MessageError::TooLong(u32::from_le_bytes(head)))
}

/// Reads a message, without its length.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, MessageError> {
    prefixed::read(bytes).map_err(|_| MessageError::Nonsense)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn messages_read_back() {
        let push = ToKeeper::Push { operation: "square".into(), argument: vec![0, 255] };
        let bytes = encode(&push);
        let head = [bytes[0], bytes[1], bytes[2], bytes[3]];
        assert_eq!(length(head), Ok(bytes.len() - 4));
        assert_eq!(decode(&bytes[4..]), Ok(push));
        assert!(length([0xff; 4]).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode::<ToKeeper>(&bytes);
            let _ = decode::<FromKeeper>(&bytes);
        }
    }
}
