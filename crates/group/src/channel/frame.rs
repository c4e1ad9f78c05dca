//! Frames over the pipe of a lane: 16 bytes of head; a greeting has 32 more, a message its own bytes.

use crate::plan::{GroupId, Mode};

/// Bytes of a head.
pub const HEAD_BYTES: usize = 16;
/// Bytes of a greeting.
pub const GREETING_BYTES: usize = HEAD_BYTES + 32;
/// Longest message, bytes.
pub const MESSAGE_BYTES_MAX: u64 = 1 << 40;
/// Numbers have 48 bits.
const NUMBER_MAX: u64 = (1 << 48) - 1;

const SYNC: u8 = 1;
const ASYNC: u8 = 2;
const NOW: u8 = 4;
const FRESH: u8 = 8;

/// Bytes that are no frame, or one that cannot come where it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Nonsense(pub(super) &'static str);

/// Which pipe it is. Both ends say it to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PipeId {
    /// The group.
    pub group: GroupId,
    /// The pipe's number.
    pub number: u64,
}

/// What both ends say first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Greeting {
    pub(super) pipe: PipeId,
    /// Messages are taken up to this one, as far as this side knows.
    pub(super) taken: u64,
    /// The outlet has given this lane messages up to this one.
    pub(super) given: u64,
    /// This side has never met the other: a process at its beginning.
    pub(super) fresh: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    Greeting(Greeting),
    Message { sequence: u64, mode: Mode, length: u64 },
    Taken(u64),
    Ask { number: u64, now: bool, mode: Option<Mode> },
    Empty(u64),
    Refused,
    Closed,
}

fn mode_flag(mode: Option<Mode>) -> u8 {
    match mode {
        Some(Mode::Sync) => SYNC,
        Some(Mode::Async) => ASYNC,
        None => 0,
    }
}

fn mode_of(flags: u8) -> Result<Option<Mode>, Nonsense> {
    match flags & (SYNC | ASYNC) {
        SYNC => Ok(Some(Mode::Sync)),
        ASYNC => Ok(Some(Mode::Async)),
        0 => Ok(None),
        _ => Err(Nonsense("a frame has two modes")),
    }
}

impl Frame {
    /// Its bytes without those of a message, and how many they are.
    #[inline]
    pub(super) fn bytes(self) -> ([u8; GREETING_BYTES], usize) {
        let (kind, flags, number, length) = match self {
            Frame::Greeting(greeting) => {
                let fresh = if greeting.fresh { FRESH } else { 0 };
                (1, fresh, greeting.taken, (GREETING_BYTES - HEAD_BYTES) as u64)
            }
            Frame::Message { sequence, mode, length } => (2, mode_flag(Some(mode)), sequence, length),
            Frame::Taken(sequence) => (3, 0, sequence, 0),
            Frame::Ask { number, now, mode } => (4, mode_flag(mode) | if now { NOW } else { 0 }, number, 0),
            Frame::Empty(number) => (5, 0, number, 0),
            Frame::Refused => (6, 0, 0, 0),
            Frame::Closed => (7, 0, 0, 0),
        };
        let mut bytes = [0; GREETING_BYTES];
        let first = number << 16 | u64::from(flags) << 8 | kind;
        bytes[..8].copy_from_slice(&first.to_le_bytes());
        bytes[8..16].copy_from_slice(&length.to_le_bytes());
        let Frame::Greeting(greeting) = self else { return (bytes, HEAD_BYTES) };
        bytes[16..32].copy_from_slice(&greeting.pipe.group.0.to_le_bytes());
        bytes[32..40].copy_from_slice(&greeting.pipe.number.to_le_bytes());
        bytes[40..48].copy_from_slice(&greeting.given.to_le_bytes());
        (bytes, GREETING_BYTES)
    }

    #[inline]
    fn read(bytes: &[u8; GREETING_BYTES]) -> Result<Frame, Nonsense> {
        let word =
            |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes of forty-eight"));
        let (first, length) = (word(0), word(8));
        let (kind, flags, number) = (first as u8, (first >> 8) as u8, first >> 16);
        let (frame, flags_known) = match kind {
            1 => {
                let group = u128::from(word(16)) | u128::from(word(24)) << 64;
                let pipe = PipeId { group: GroupId(group), number: word(32) };
                let fresh = flags & FRESH != 0;
                (Frame::Greeting(Greeting { pipe, taken: number, given: word(40), fresh }), FRESH)
            }
            2 => {
                let mode = mode_of(flags)?.ok_or(Nonsense("a message has no mode"))?;
                if length > MESSAGE_BYTES_MAX {
                    return Err(Nonsense("a message is longer than any may be"));
                }
                return Ok(Frame::Message { sequence: number, mode, length });
            }
            3 => (Frame::Taken(number), 0),
            4 => (Frame::Ask { number, now: flags & NOW != 0, mode: mode_of(flags)? }, SYNC | ASYNC | NOW),
            5 => (Frame::Empty(number), 0),
            6 => (Frame::Refused, 0),
            7 => (Frame::Closed, 0),
            _ => return Err(Nonsense("a frame is of no known kind")),
        };
        let is_greeting = matches!(frame, Frame::Greeting(_));
        if length != if is_greeting { (GREETING_BYTES - HEAD_BYTES) as u64 } else { 0 } {
            return Err(Nonsense("a frame has a length that its kind cannot have"));
        }
        if flags & !flags_known != 0 {
            return Err(Nonsense("a frame has flags that its kind cannot have"));
        }
        Ok(frame)
    }
}

/// Takes frames, without the bytes of messages, out of what is read piece by piece.
#[derive(Debug)]
pub(super) struct Heads {
    bytes: [u8; GREETING_BYTES],
    have: usize,
}

impl Heads {
    pub(super) fn new() -> Heads {
        Heads { bytes: [0; GREETING_BYTES], have: 0 }
    }

    pub(super) fn clear(&mut self) {
        self.have = 0;
    }

    /// What is still missing of the frame at hand.
    #[inline]
    pub(super) fn room(&mut self) -> &mut [u8] {
        let whole = if self.have < HEAD_BYTES { HEAD_BYTES } else { GREETING_BYTES };
        &mut self.bytes[self.have..whole]
    }

    /// So many bytes were put there; the frame, if it is whole now.
    #[inline]
    pub(super) fn filled(&mut self, count: usize) -> Result<Option<Frame>, Nonsense> {
        self.have += count;
        debug_assert!(self.have <= GREETING_BYTES);
        let is_greeting = self.bytes[0] == 1;
        if self.have < HEAD_BYTES || is_greeting && self.have < GREETING_BYTES {
            return Ok(None);
        }
        self.have = 0;
        Frame::read(&self.bytes).map(Some)
    }
}

/// A frame on its way out.
#[derive(Debug)]
pub(super) struct Writing {
    bytes: [u8; GREETING_BYTES],
    length: usize,
    /// Bytes of the message that follow.
    body: u64,
    done: u64,
}

impl Writing {
    #[inline]
    pub(super) fn new(frame: Frame) -> Writing {
        let (bytes, length) = frame.bytes();
        let body = if let Frame::Message { length, .. } = frame { length } else { 0 };
        Writing { bytes, length, body, done: 0 }
    }

    pub(super) fn is_message(&self) -> bool {
        self.bytes[0] == 2
    }

    pub(super) fn has_begun(&self) -> bool {
        self.done > 0
    }

    /// What is left of the head.
    #[inline]
    pub(super) fn head(&self) -> &[u8] {
        &self.bytes[(self.done as usize).min(self.length)..self.length]
    }

    /// Where in the body to go on.
    #[inline]
    pub(super) fn body_from(&self) -> u64 {
        self.done.saturating_sub(self.length as u64)
    }

    /// So many bytes were written; whether that was all.
    #[inline]
    pub(super) fn wrote(&mut self, bytes: u64) -> bool {
        self.done += bytes;
        debug_assert!(self.done <= self.length as u64 + self.body, "more was written than there is");
        self.done >= self.length as u64 + self.body
    }
}

const _: () = assert!(MESSAGE_BYTES_MAX < u64::MAX / 2 && NUMBER_MAX < u64::MAX / 2);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frames() -> impl Strategy<Value = Frame> {
        let number = 0..=NUMBER_MAX;
        let mode = prop_oneof![Just(Mode::Sync), Just(Mode::Async)];
        let greeting = (any::<u128>(), any::<u64>(), number.clone(), any::<u64>(), any::<bool>());
        prop_oneof![
            greeting.prop_map(|(group, pipe, taken, given, fresh)| {
                let pipe = PipeId { group: GroupId(group), number: pipe };
                Frame::Greeting(Greeting { pipe, taken, given, fresh })
            }),
            (number.clone(), mode.clone(), 0..=MESSAGE_BYTES_MAX)
                .prop_map(|(sequence, mode, length)| Frame::Message { sequence, mode, length }),
            number.clone().prop_map(Frame::Taken),
            (number.clone(), any::<bool>(), prop::option::of(mode))
                .prop_map(|(number, now, mode)| Frame::Ask { number, now, mode }),
            number.prop_map(Frame::Empty),
            Just(Frame::Refused),
            Just(Frame::Closed),
        ]
    }

    proptest! {
        #[test]
        fn frames_survive_any_cutting(sent in prop::collection::vec(frames(), 1..20), piece in 1usize..60) {
            let stream: Vec<u8> = sent
                .iter()
                .flat_map(|frame| {
                    let (bytes, length) = frame.bytes();
                    bytes[..length].to_vec()
                })
                .collect();
            let mut heads = Heads::new();
            let mut seen = Vec::new();
            let mut rest = &stream[..];
            while !rest.is_empty() {
                let room = heads.room();
                let count = room.len().min(piece).min(rest.len());
                room[..count].copy_from_slice(&rest[..count]);
                rest = &rest[count..];
                seen.extend(heads.filled(count).unwrap());
            }
            prop_assert_eq!(seen, sent);
        }

        #[test]
        fn any_bytes_are_a_frame_or_an_error(bytes in prop::collection::vec(any::<u8>(), GREETING_BYTES)) {
            let bytes: [u8; GREETING_BYTES] = bytes.try_into().unwrap();
            if let Ok(frame) = Frame::read(&bytes) {
                let (again, length) = frame.bytes();
                prop_assert_eq!(&again[..length.min(2)], &bytes[..length.min(2)]);
            }
        }
    }

    #[test]
    fn heads_are_frozen() {
        let message = Frame::Message { sequence: 0x0605_0403_0201, mode: Mode::Sync, length: 9 };
        assert_eq!(message.bytes().0[..16], [2, 1, 1, 2, 3, 4, 5, 6, 9, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Frame::Ask { number: 1, now: true, mode: None }.bytes().0[..3], [4, 4, 1]);
    }
}
