//! Plain data behind its length: four bytes, lowest first, and a body in postcard. What travels or is kept besides the
//! frames between nodes has this form.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes of the length.
pub const LENGTH_BYTES: usize = 4;

/// Bytes that are not of this form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The length is beyond any that there is.
    #[error("a part of it is too long")]
    TooLong,
    /// The body cannot be read, or does not fill its length.
    #[error("a part of it cannot be read")]
    Unreadable,
}

impl Malformed {
    /// Why what came in frames of this form makes no sense.
    pub fn of_a_frame(self) -> &'static str {
        match self {
            Malformed::TooLong => "a frame is too long",
            Malformed::Unreadable => "a frame cannot be read",
        }
    }
}

/// Appends a part.
pub fn put<T: Serialize>(part: &T, into: &mut Vec<u8>) {
    let at = into.len();
    into.extend([0; LENGTH_BYTES]);
    // Serialising into a growing vector fails only for types postcard cannot express, and no part has one.
    *into = postcard::to_extend(part, std::mem::take(into)).expect("plain data can always be written");
    let length = (into.len() - at - LENGTH_BYTES) as u32;
    into[at..at + LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
}

/// A part by itself.
pub fn encode<T: Serialize>(part: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    put(part, &mut bytes);
    bytes
}

/// The length of the body that follows, of at most so many bytes.
pub fn length(head: [u8; LENGTH_BYTES], bytes_max: usize) -> Result<usize, Malformed> {
    let length = u32::from_le_bytes(head) as usize;
    if length > bytes_max { Err(Malformed::TooLong) } else { Ok(length) }
}

/// Reads a body, without its length.
pub fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Malformed> {
    match postcard::take_from_bytes(body) {
        Ok((part, [])) => Ok(part),
        _ => Err(Malformed::Unreadable),
    }
}

/// The first part, whose body has at most so many bytes, and what is behind it; `None` as long as it is not whole.
pub fn take<T: DeserializeOwned>(bytes: &[u8], bytes_max: usize) -> Result<Option<(T, &[u8])>, Malformed> {
    let Some((head, behind)) = bytes.split_first_chunk() else { return Ok(None) };
    match behind.split_at_checked(length(*head, bytes_max)?) {
        Some((body, behind)) => Ok(Some((read(body)?, behind))),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parts_come_whole_or_not_at_all() {
        let mut bytes = Vec::new();
        put(&(7_u32, "seven".to_owned()), &mut bytes);
        put(&(8_u32, String::new()), &mut bytes);
        let (first, behind) = take::<(u32, String)>(&bytes, 100).unwrap().unwrap();
        assert_eq!(first, (7, "seven".into()));
        assert_eq!(take::<(u32, String)>(behind, 100), Ok(Some(((8, String::new()), &[][..]))));
        for cut in 0..behind.len() {
            assert_eq!(take::<(u32, String)>(&behind[..cut], 100), Ok(None));
        }
        assert_eq!(take::<(u32, String)>(&bytes, 3), Err(Malformed::TooLong));
    }

    #[test]
    fn a_body_that_does_not_fill_its_length_cannot_be_read() {
        let mut bytes = encode(&1_u8);
        bytes[0] += 1;
        bytes.push(0);
        assert_eq!(take::<u8>(&bytes, 100), Err(Malformed::Unreadable));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(Some((part, behind))) = take::<(Option<u16>, Vec<u8>)>(&bytes, 100) {
                prop_assert!(behind.len() <= bytes.len() - LENGTH_BYTES - 2);
                let again = encode(&part);
                prop_assert_eq!(take(&again, 100), Ok(Some((part, &[][..]))));
            }
        }
    }
}
