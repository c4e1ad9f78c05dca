//! What whoever attaches to the terminal of a process and the launcher of its group say to each other.
//!
//! A frame is its length in four bytes, lowest first, and a body in postcard.

use crate::console::{PIECE_BYTES_MAX, Size};
use mutirao_wire::prefixed;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Bytes that are typed in one [`Ask`], at most.
pub const TYPED_BYTES_MAX: usize = 4 * 1024;
/// The longest text that says who attaches.
pub const FROM_BYTES_MAX: usize = 256;
/// The longest body: a piece of output, and what is around it.
const BODY_BYTES_MAX: usize = PIECE_BYTES_MAX + 64;

/// To the launcher.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask {
    /// First: attach to this process.
    Attach {
        /// Its name, such as `gmandel.1`.
        process: String,
        /// The size of the terminal here.
        size: Size,
        /// Who attaches, for whoever wants to as well: of [`FROM_BYTES_MAX`] bytes at most.
        from: String,
    },
    /// The terminal has another size now.
    Resize(Size),
    /// This was typed.
    Typed(Vec<u8>),
    /// Last: whoever is attached leaves, and waits for [`Answer::Left`], so that what was typed before has come.
    Leave,
}

/// From the launcher.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// From now on the terminal of the process is this one. What it showed last follows.
    Attached,
    /// It is not, and this is why, for people. Nothing follows.
    Refused(String),
    /// The process wrote this.
    Shown(Vec<u8>),
    /// All that was typed before [`Ask::Leave`] has come. Nothing follows.
    Left,
    /// The process has ended. Nothing follows.
    Ended {
        /// How, for people.
        text: String,
        /// As a shell would see it.
        code: u8,
    },
}

/// What came is no frame of the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("what came makes no sense; are both sides of the same version?")]
pub struct Nonsense;

pub use prefixed::encode as frame;

/// Makes messages of bytes as they come.
#[derive(Debug, Default)]
pub struct Reader {
    partial: Vec<u8>,
}

impl Reader {
    /// Takes what came, and appends the messages that are whole to `heard`.
    pub fn hear<T: DeserializeOwned>(&mut self, bytes: &[u8], heard: &mut Vec<T>) -> Result<(), Nonsense> {
        self.partial.extend_from_slice(bytes);
        let mut rest = &self.partial[..];
        while let Some((message, behind)) = prefixed::take(rest, BODY_BYTES_MAX).map_err(|_| Nonsense)? {
            heard.push(message);
            rest = behind;
        }
        let taken = self.partial.len() - rest.len();
        self.partial.drain(..taken);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};

    proptest! {
        #[test]
        fn messages_arrive_whole_however_they_are_cut(
            typed in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..TYPED_BYTES_MAX), 1..8),
            cut in 1_usize..500,
        ) {
            let size = Size { rows: 24, columns: 80 };
            let from = "process 7 of node n1".into();
            let mut asks = vec![Ask::Attach { process: "a.0".into(), size, from }, Ask::Resize(size)];
            asks.extend(typed.into_iter().map(Ask::Typed));
            let bytes: Vec<u8> = asks.iter().flat_map(frame).collect();
            let (mut reader, mut heard) = (Reader::default(), Vec::<Ask>::new());
            for piece in bytes.chunks(cut) {
                prop_assert_eq!(reader.hear(piece, &mut heard), Ok(()));
            }
            prop_assert_eq!(heard, asks);
            prop_assert!(reader.partial.is_empty());
        }

        #[test]
        fn any_bytes_are_taken_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Reader::default().hear::<Ask>(&bytes, &mut Vec::new());
            let _ = Reader::default().hear::<Answer>(&bytes, &mut Vec::new());
        }
    }
}
