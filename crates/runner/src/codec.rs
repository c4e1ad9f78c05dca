//! A head in postcard, then the long byte strings as they are: their lengths are in the head.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes that are no command, or not how one ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The head cannot be read.
    #[error("it cannot be read ({0}); both ends must be of the same version")]
    Head(postcard::Error),
    /// The byte strings are shorter or longer than the head says.
    #[error("it says to be followed by {said} bytes, but {there} follow")]
    Length {
        /// What the head says.
        said: u64,
        /// What is there.
        there: u64,
    },
    /// It has more of something than is read.
    #[error("it has {count} {what}, but {most} are the most")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        count: usize,
        /// How many are read.
        most: usize,
    },
}

pub(crate) fn encode<'a>(head: &impl Serialize, parts: impl Iterator<Item = &'a [u8]> + Clone) -> Vec<u8> {
    let body_bytes: usize = parts.clone().map(<[u8]>::len).sum();
    let mut bytes = Vec::with_capacity(body_bytes + 512);
    // Writing plain data to memory cannot fail: there is no sequence of unknown length in it.
    bytes = postcard::to_extend(head, bytes).expect("plain data is encoded");
    parts.for_each(|part| bytes.extend_from_slice(part));
    bytes
}

/// The head, and a reader of the byte strings whose lengths `lengths` finds in it.
pub(crate) fn decode<Head: DeserializeOwned>(
    bytes: &[u8],
    lengths: impl FnOnce(&Head) -> Vec<u64>,
) -> Result<(Head, std::vec::IntoIter<&[u8]>), CodecError> {
    let (head, mut rest) = postcard::take_from_bytes::<Head>(bytes).map_err(CodecError::Head)?;
    let lengths = lengths(&head);
    let said = lengths.iter().fold(0u64, |sum, &length| sum.saturating_add(length));
    let there = rest.len() as u64;
    if said != there {
        return Err(CodecError::Length { said, there });
    }
    let mut parts = Vec::with_capacity(lengths.len());
    for length in lengths {
        // In range, since the sum is the length of what is there.
        let (part, after) = rest.split_at(length as usize);
        parts.push(part);
        rest = after;
    }
    Ok((head, parts.into_iter()))
}
