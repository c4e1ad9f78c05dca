//! What the master and a process's runner say to each other, over a pipe that may break.
//!
//! Each side numbers what it says and keeps it until the other has it; when the pipe opens again it is said again, and
//! what came before is passed over. So nothing is lost, doubled or out of order, as long as both sides live.
//!
//! A frame is its length in four bytes, lowest first, and a body in postcard.

use crate::master::End;
use mutirao_wire::prefixed;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Bytes of output or input in one saying, at most.
pub const PIECE_BYTES_MAX: usize = 32 * 1024;
/// What is kept for the other side, bytes; with more nothing further is taken from the process or for it.
pub const KEPT_BYTES_MAX: usize = 256 * 1024;
/// The longest body: a piece, and what is around it.
const BODY_BYTES_MAX: usize = PIECE_BYTES_MAX + 4 * 1024;
/// Bytes of input on their way to a process that has not taken them.
pub const INPUT_BYTES_MAX: u32 = 64 * 1024;
/// The longest text in a report, bytes.
pub const TEXT_BYTES_MAX: usize = 2 * 1024;

/// Which of its two streams a process has written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Error,
}

/// The size of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

/// How a process ended, and what it used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// How.
    pub end: End,
    /// Processor time, microseconds.
    pub cpu_us: u64,
    /// Most memory held at once, KiB.
    pub peak_kib: u64,
    /// How long it ran, microseconds.
    pub wall_us: u64,
    /// The last it wrote to its standard error.
    pub last_words: String,
}

/// What is said, in one direction or the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Saying {
    /// To the master: it runs, as this process of its machine.
    Runs {
        /// Its number there.
        pid: u32,
    },
    /// To the master: it wrote this.
    Wrote {
        /// Where.
        stream: Stream,
        /// What.
        bytes: Vec<u8>,
    },
    /// To the master: it wrote down this of what it does with its channels.
    Recorded(Vec<u8>),
    /// To the master: so many bytes of its input were taken; so many more may follow.
    Took(u32),
    /// To the master: it has ended, and has written nothing more.
    Ended(Report),
    /// To the process: its standard input goes on so.
    Input(Vec<u8>),
    /// To the process: its standard input ends.
    InputEnds,
    /// To the process: its terminal has this size.
    Size(Size),
    /// To the process: it is to end at once.
    End,
}

#[derive(Serialize, Deserialize)]
enum Frame {
    /// First on each pipe: all up to this number is here.
    Hello(u64),
    /// All up to this number is here now.
    Have(u64),
    Say(u64, Saying),
}

/// What came cannot be what the other side says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("what came over the console of a process makes no sense: {0}")]
pub struct Nonsense(&'static str);

impl From<prefixed::Malformed> for Nonsense {
    fn from(malformed: prefixed::Malformed) -> Nonsense {
        Nonsense(malformed.of_a_frame())
    }
}

/// One end of a console.
#[derive(Debug, Default)]
pub struct Console {
    /// Said and not known to have come, with its number and its frame.
    kept: VecDeque<(u64, Vec<u8>)>,
    kept_bytes: usize,
    /// The number of the last that was said,
    said: u64,
    /// and of the last that came.
    heard: u64,
    is_open: bool,
    /// Came, and is no whole frame yet.
    partial: Vec<u8>,
    unwritten: VecDeque<u8>,
}

impl Console {
    /// A pipe has opened, for the first time or anew.
    pub fn opened(&mut self) {
        self.is_open = true;
        self.partial.clear();
        self.unwritten.clear();
        let hello = prefixed::encode(&Frame::Hello(self.heard));
        self.unwritten.extend(hello);
        for (_, frame) in &self.kept {
            self.unwritten.extend(frame);
        }
    }

    /// The pipe is of no further use.
    pub fn broken(&mut self) {
        self.is_open = false;
        self.partial.clear();
        self.unwritten.clear();
    }

    /// Says something to the other side. Bytes come in pieces of [`PIECE_BYTES_MAX`].
    pub fn say(&mut self, saying: Saying) {
        self.said += 1;
        let frame = prefixed::encode(&Frame::Say(self.said, saying));
        if self.is_open {
            self.unwritten.extend(&frame);
        }
        self.kept_bytes += frame.len();
        self.kept.push_back((self.said, frame));
    }

    /// Takes what came, and appends what was said to `heard`.
    pub fn hear(&mut self, bytes: &[u8], heard: &mut Vec<Saying>) -> Result<(), Nonsense> {
        self.partial.extend_from_slice(bytes);
        let before = self.heard;
        let mut rest = &self.partial[..];
        while let Some((frame, behind)) = prefixed::take(rest, BODY_BYTES_MAX)? {
            rest = behind;
            match frame {
                Frame::Hello(number) | Frame::Have(number) => {
                    if number > self.said {
                        return Err(Nonsense("something came that was never said"));
                    }
                    while let Some((_, frame)) = self.kept.pop_front_if(|(kept, _)| *kept <= number) {
                        self.kept_bytes -= frame.len();
                    }
                }
                Frame::Say(number, saying) => match number.checked_sub(self.heard) {
                    Some(1) => {
                        self.heard = number;
                        heard.push(saying);
                    }
                    // Said again, since the other side could not know.
                    Some(0) | None => {}
                    Some(_) => return Err(Nonsense("something is missing")),
                },
            }
        }
        let taken = self.partial.len() - rest.len();
        self.partial.drain(..taken);
        if self.heard != before {
            self.unwritten.extend(prefixed::encode(&Frame::Have(self.heard)));
        }
        Ok(())
    }

    /// A part of what is to be written to the pipe.
    pub fn unwritten(&self) -> &[u8] {
        self.unwritten.as_slices().0
    }

    /// So much of it was written.
    pub fn written(&mut self, bytes: usize) {
        self.unwritten.drain(..bytes);
    }

    /// Whether a further piece may be said.
    pub fn has_room(&self) -> bool {
        self.kept_bytes < KEPT_BYTES_MAX
    }

    /// Whether the other side has all that was said.
    pub fn is_settled(&self) -> bool {
        self.kept.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};

    /// Carries at most so many bytes.
    fn carry(from: &mut Console, to: &mut Console, most: usize, heard: &mut Vec<Saying>) {
        let bytes: Vec<u8> = from.unwritten().iter().copied().take(most).collect();
        from.written(bytes.len());
        to.hear(&bytes, heard).unwrap();
    }

    #[test]
    fn nonsense_is_told() {
        let mut console = Console::default();
        console.opened();
        assert_eq!(console.hear(&[255; 8], &mut Vec::new()), Err(Nonsense("a frame is too long")));
        let mut console = Console::default();
        let gap = prefixed::encode(&Frame::Say(2, Saying::InputEnds));
        assert_eq!(console.hear(&gap, &mut Vec::new()), Err(Nonsense("something is missing")));
        let mut console = Console::default();
        let early = prefixed::encode(&Frame::Have(1));
        assert_eq!(
            console.hear(&early, &mut Vec::new()),
            Err(Nonsense("something came that was never said"))
        );
    }

    proptest! {
        /// Whatever breaks where: each side hears what the other said, once and in order.
        #[test]
        fn nothing_is_lost_doubled_or_out_of_order(
            steps in prop::collection::vec((0_u8..6, 1_usize..200), 1..200),
        ) {
            let mut ends = [Console::default(), Console::default()];
            let mut said: [Vec<Saying>; 2] = Default::default();
            let mut heard: [Vec<Saying>; 2] = Default::default();
            let piece = |n: usize| Saying::Wrote { stream: Stream::Out, bytes: vec![n as u8; n] };
            let last = [(2, 1), (3, 1)];
            let settle = (0..4000).map(|step| (4 + (step % 2) as u8, 4096));
            for (what, n) in steps.into_iter().chain(last).chain(settle) {
                let [a, b] = &mut ends;
                match what {
                    0 | 1 => {
                        ends[what as usize].say(piece(n));
                        said[what as usize].push(piece(n));
                    }
                    2 => { a.broken(); b.broken(); }
                    3 => { a.opened(); b.opened(); }
                    4 => carry(a, b, n, &mut heard[1]),
                    _ => carry(b, a, n, &mut heard[0]),
                }
            }
            let [a, b] = ends;
            prop_assert!(a.is_settled() && b.is_settled());
            prop_assert_eq!(&heard[1], &said[0]);
            prop_assert_eq!(&heard[0], &said[1]);
        }

        #[test]
        fn any_bytes_are_taken_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut console = Console::default();
            console.opened();
            let _ = console.hear(&bytes, &mut Vec::new());
        }
    }
}
