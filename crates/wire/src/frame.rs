//! Frames: a 32-byte header, then a body whose length the header gives.
//!
//! The length is checked against a cap before any memory is set aside for the body.

use crate::kind::Kind;
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of a header.
pub const HEADER_BYTES: usize = 32;

/// The head of every frame. Its bytes are frozen.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct Header {
    /// Bytes of the body.
    pub length: U32,
    /// What the frame is; see [`Kind`].
    pub kind: U16,
    /// See [`flags`].
    pub flags: U16,
    /// The lease the frame belongs to, as this connection names it; 0 for none.
    pub handle: U32,
    /// A small number whose meaning is the kind's.
    pub aux: U32,
    /// The call or the question the frame belongs to.
    pub sequence: U64,
    /// A large number whose meaning is the kind's.
    pub extent: U64,
}

/// Bits of [`Header::flags`].
pub mod flags {
    /// A receiver that does not know the kind skips the frame instead of closing.
    pub const OPTIONAL: u16 = 1;
    /// More frames of the same call and direction follow.
    pub const MORE: u16 = 2;
    /// The result is a failure: `aux` is its code, the body its text or its description.
    pub const FAILED: u16 = 4;
    /// The call may run more than once.
    pub const REPEATABLE: u16 = 8;
    /// The call carries a time limit, in milliseconds, in the upper half of `aux`'s meaning.
    pub const LIMITED: u16 = 16;
    /// The bytes meant lie in the lane, as many as the body says: see [`stream`](crate::stream).
    pub const ASIDE: u16 = 32;
}

impl Header {
    /// A header for `kind` with a body of `length` bytes, all else zero.
    pub fn new(kind: Kind, length: usize) -> Header {
        debug_assert!(length <= u32::MAX as usize);
        Header { length: U32::new(length as u32), kind: U16::new(kind as u16), ..Header::default() }
    }

    /// The length of the body.
    pub fn body_len(&self) -> usize {
        self.length.get() as usize
    }

    /// Whether `bit`, of [`flags`], is set.
    pub fn has(&self, bit: u16) -> bool {
        self.flags.get() & bit != 0
    }

    /// The header's bytes.
    pub fn bytes(&self) -> &[u8; HEADER_BYTES] {
        zerocopy::transmute_ref!(self)
    }

    /// Reads a header. Does not judge it: see [`Header::check`].
    pub fn from_bytes(bytes: &[u8; HEADER_BYTES]) -> Header {
        zerocopy::transmute!(*bytes)
    }

    /// Refuses a body longer than `body_max` bytes.
    pub fn check(&self, body_max: usize) -> Result<(), FrameError> {
        if self.body_len() > body_max {
            return Err(FrameError::TooLong {
                kind: self.kind.get(),
                length: self.body_len(),
                max: body_max,
            });
        }
        Ok(())
    }
}

/// Why bytes are not a frame. The connection they came from cannot be used further.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The body is longer than this connection allows.
    #[error("a frame of kind {kind:#06x} announces {length} bytes, but at most {max} are allowed here")]
    TooLong {
        /// The frame's kind, as a number.
        kind: u16,
        /// The length announced.
        length: usize,
        /// The length allowed.
        max: usize,
    },
    /// A kind this build does not know, not marked as one that may be skipped.
    #[error("frames of kind {kind:#06x} are not known here; the other side may be a newer version")]
    UnknownKind {
        /// The frame's kind, as a number.
        kind: u16,
    },
    /// The body does not hold what its kind demands.
    #[error("the body of a {kind:?} frame is malformed")]
    Malformed {
        /// The frame's kind.
        kind: Kind,
    },
    /// A kind that has no place on this connection.
    #[error("a {kind:?} frame is out of place here")]
    OutOfPlace {
        /// The frame's kind.
        kind: Kind,
    },
}

/// Takes frames out of a stream of bytes that arrive in pieces of any size.
#[derive(Debug)]
pub struct Decoder {
    body_max: usize,
    buffer: Vec<u8>,
    start: usize,
}

impl Decoder {
    /// A decoder for a connection whose bodies have at most `body_max` bytes.
    pub fn new(body_max: usize) -> Decoder {
        Decoder { body_max, buffer: Vec::new(), start: 0 }
    }

    /// Adds bytes that arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.compact();
        self.buffer.extend_from_slice(bytes);
    }

    /// Lets `fill` append bytes to the buffer directly, for a copy less.
    pub fn fill_with<R>(&mut self, fill: impl FnOnce(&mut Vec<u8>) -> R) -> R {
        self.compact();
        fill(&mut self.buffer)
    }

    /// The next whole frame, or `None` until more bytes arrive.
    /// After an error the decoder is of no further use.
    pub fn next_frame(&mut self) -> Result<Option<(Header, &[u8])>, FrameError> {
        let rest = &self.buffer[self.start..];
        let Some((head, rest)) = rest.split_first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let header = Header::from_bytes(head);
        header.check(self.body_max)?;
        let length = header.body_len();
        if rest.len() < length {
            return Ok(None);
        }
        let body = self.start + HEADER_BYTES;
        self.start = body + length;
        Ok(Some((header, &self.buffer[body..body + length])))
    }

    /// Bytes that the frame at hand still lacks, once its header is there; 0 if there is none or it is refused.
    pub fn missing(&self) -> usize {
        let rest = &self.buffer[self.start..];
        let Some((head, body)) = rest.split_first_chunk::<HEADER_BYTES>() else { return 0 };
        let length = Header::from_bytes(head).body_len();
        if length > self.body_max { 0 } else { length.saturating_sub(body.len()) }
    }

    /// Bytes that are held but not yet taken as frames.
    pub fn pending(&self) -> usize {
        self.buffer.len() - self.start
    }

    fn compact(&mut self) {
        if self.start == self.buffer.len() {
            self.buffer.clear();
        } else if self.start >= 64 * 1024 && self.pending() <= self.start / 4 {
            // Little is moved for what is gained.
            self.buffer.drain(..self.start);
        } else {
            return;
        }
        self.start = 0;
        if self.buffer.capacity() > 8 * (self.body_max + HEADER_BYTES) {
            self.buffer.shrink_to(self.body_max + HEADER_BYTES);
        }
    }
}

/// Appends a frame to `out`.
pub fn put_frame(out: &mut Vec<u8>, header: Header, body: &[u8]) {
    debug_assert_eq!(header.body_len(), body.len());
    out.extend_from_slice(header.bytes());
    out.extend_from_slice(body);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_header_is_frozen() {
        let header = Header {
            length: U32::new(0x0403_0201),
            kind: U16::new(0x0605),
            flags: U16::new(0x0807),
            handle: U32::new(0x0c0b_0a09),
            aux: U32::new(0x100f_0e0d),
            sequence: U64::new(0x1817_1615_1413_1211),
            extent: U64::new(0x201f_1e1d_1c1b_1a19),
        };
        let golden: [u8; HEADER_BYTES] = core::array::from_fn(|i| i as u8 + 1);
        assert_eq!(header.bytes(), &golden);
        assert_eq!(Header::from_bytes(&golden), header);
    }

    #[test]
    fn an_oversized_frame_is_refused_before_its_body_arrives() {
        let mut decoder = Decoder::new(100);
        decoder.push(Header::new(Kind::Beat, 101).bytes());
        assert!(matches!(decoder.next_frame(), Err(FrameError::TooLong { length: 101, max: 100, .. })));
    }

    #[test]
    fn a_frame_says_what_it_lacks() {
        let mut decoder = Decoder::new(100);
        let mut frame = Vec::new();
        put_frame(&mut frame, Header::new(Kind::Call, 60), &[7; 60]);
        decoder.push(&frame[..HEADER_BYTES - 1]);
        assert_eq!(decoder.missing(), 0);
        decoder.push(&frame[HEADER_BYTES - 1..HEADER_BYTES + 20]);
        assert_eq!(decoder.missing(), 40);
        decoder.push(&frame[HEADER_BYTES + 20..]);
        assert_eq!(decoder.missing(), 0);
        assert!(decoder.next_frame().unwrap().is_some());
        decoder.push(Header::new(Kind::Call, 101).bytes());
        assert_eq!(decoder.missing(), 0);
    }

    proptest! {
        #[test]
        fn frames_survive_any_cutting(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..20),
            piece in 1usize..97,
        ) {
            let mut stream = Vec::new();
            for (i, body) in bodies.iter().enumerate() {
                let mut header = Header::new(Kind::Call, body.len());
                header.sequence = U64::new(i as u64);
                put_frame(&mut stream, header, body);
            }
            let mut decoder = Decoder::new(300);
            let mut seen = Vec::new();
            for bytes in stream.chunks(piece) {
                decoder.push(bytes);
                while let Some((header, body)) = decoder.next_frame().unwrap() {
                    prop_assert_eq!(header.sequence.get(), seen.len() as u64);
                    seen.push(body.to_vec());
                }
            }
            prop_assert_eq!(seen, bodies);
            prop_assert_eq!(decoder.pending(), 0);
        }

        #[test]
        fn any_bytes_are_a_frame_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let mut decoder = Decoder::new(64);
            decoder.push(&bytes);
            while let Ok(Some((header, body))) = decoder.next_frame() {
                prop_assert_eq!(header.body_len(), body.len());
            }
        }
    }
}
