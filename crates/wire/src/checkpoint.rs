//! What a worker and the keeper of its bag say to each other about state that a call saves, over a pipe that may
//! break.
//!
//! A worker says one thing at a time, and says it again when the pipe opens anew, until it is answered; so the keeper
//! may hear it twice, and never half. State travels in parts: what is no longer wanted ends between two of them.
//!
//! A frame is its length in four bytes, lowest first, and a body in postcard.

use crate::prefixed;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::sync::Arc;

/// Tells a command the file whose content is its state.
pub const CHECKPOINT_ENV: &str = "MUTIRAO_CHECKPOINT";
/// Beside that file: a named pipe that takes names of further ones, a line each, over which it is told what has become
/// of the state.
pub const ASKS: &str = ".mutirao-asks";
/// What is told when it is kept; all else is the reason why not.
pub const KEPT: &str = "kept\n";
/// Most of one state, with the input files of its task that travel with the call, bytes.
pub const STATE_BYTES_MAX: usize = 60 << 20;
/// Bytes of state in one frame.
pub const PART_BYTES_MAX: usize = 64 * 1024;
/// The longest body: a part or a text, and what is around it.
const BODY_BYTES_MAX: usize = PART_BYTES_MAX + 64;
/// The longest text of a refusal, bytes.
pub const TEXT_BYTES_MAX: usize = 2 * 1024;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Head {
    /// To the keeper: the call saves the state that follows.
    Save,
    /// To the keeper: with what state does it begin?
    Want,
    /// To the worker: it is kept, or why not.
    Answer { refused: Option<String> },
    /// To the worker: with the state that follows.
    State,
    /// To the worker: with none.
    NoState,
}

#[derive(Serialize, Deserialize)]
enum Frame {
    /// About what the worker has said under this number, in this call; so many bytes of state follow.
    Head { number: u64, call: u64, head: Head, bytes: u32 },
    /// These of them.
    Part(Vec<u8>),
}

/// What came cannot be what the other side says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("what came about saved state makes no sense: {0}")]
pub struct Nonsense(&'static str);

impl From<prefixed::Malformed> for Nonsense {
    fn from(malformed: prefixed::Malformed) -> Nonsense {
        Nonsense(malformed.of_a_frame())
    }
}

/// A head, and the state that follows.
#[derive(Debug, Clone)]
struct Saying {
    number: u64,
    call: u64,
    head: Head,
    state: Arc<[u8]>,
}

/// Frames out of what is said, and what was said out of frames.
#[derive(Debug, Default)]
struct Talk {
    is_open: bool,
    /// To be said; of the first so many bytes of state went into frames already, if its head did.
    sayings: VecDeque<Saying>,
    passed: Option<usize>,
    /// Frames, and how much of them was written.
    frames: Vec<u8>,
    written: usize,
    /// Came, and is no whole frame yet.
    partial: Vec<u8>,
    /// Has come so far of what was announced.
    coming: Option<(Saying, Vec<u8>, usize)>,
}

impl Talk {
    fn opened(&mut self) {
        self.broken();
        self.is_open = true;
    }

    fn broken(&mut self) {
        *self = Talk::default();
    }

    fn say(&mut self, number: u64, call: u64, head: Head, state: Arc<[u8]>) {
        if self.is_open {
            self.sayings.push_back(Saying { number, call, head, state });
        }
    }

    /// What is said last is not wanted any more, as far as it was not said.
    fn withdraw(&mut self) {
        if self.sayings.pop_back().is_some() && self.sayings.is_empty() {
            self.passed = None;
        }
    }

    fn unwritten(&mut self) -> &[u8] {
        if self.written == self.frames.len() {
            self.frames.clear();
            self.written = 0;
            self.next_frame();
        }
        &self.frames[self.written..]
    }

    fn next_frame(&mut self) {
        let Some(saying) = self.sayings.front() else { return };
        let at = match self.passed {
            Some(at) => {
                let part = &saying.state[at..saying.state.len().min(at + PART_BYTES_MAX)];
                prefixed::put(&Frame::Part(part.to_vec()), &mut self.frames);
                at + part.len()
            }
            None => {
                let Saying { number, call, head, state } = saying;
                let (number, call, head, bytes) = (*number, *call, head.clone(), state.len() as u32);
                prefixed::put(&Frame::Head { number, call, head, bytes }, &mut self.frames);
                0
            }
        };
        self.passed = Some(at);
        if at == saying.state.len() {
            (self.passed, _) = (None, self.sayings.pop_front());
        }
    }

    fn wrote(&mut self, bytes: usize) {
        self.written += bytes;
    }

    fn hear(&mut self, bytes: &[u8], heard: &mut Vec<(Saying, Vec<u8>)>) -> Result<(), Nonsense> {
        self.partial.extend_from_slice(bytes);
        let partial = std::mem::take(&mut self.partial);
        let mut rest = &partial[..];
        while let Some((frame, behind)) = prefixed::take(rest, BODY_BYTES_MAX)? {
            self.take(frame, heard)?;
            rest = behind;
        }
        self.partial = rest.to_vec();
        Ok(())
    }

    fn take(&mut self, frame: Frame, heard: &mut Vec<(Saying, Vec<u8>)>) -> Result<(), Nonsense> {
        match frame {
            // What was announced before is not wanted any more.
            Frame::Head { number, call, head, bytes } => {
                let bytes = bytes as usize;
                if bytes > STATE_BYTES_MAX {
                    return Err(Nonsense("more state is announced than there may be"));
                }
                if bytes > 0 && !matches!(head, Head::Save | Head::State) {
                    return Err(Nonsense("state follows what has none"));
                }
                let saying = Saying { number, call, head, state: Arc::from([]) };
                self.coming = Some((saying, Vec::new(), bytes));
            }
            Frame::Part(part) => {
                // Of what is not wanted any more here.
                let Some((_, come, bytes)) = &mut self.coming else { return Ok(()) };
                if part.is_empty() || come.len() + part.len() > *bytes {
                    return Err(Nonsense("a part does not fit what was announced"));
                }
                come.extend_from_slice(&part);
            }
        }
        if let Some((saying, come, _)) = self.coming.take_if(|(_, come, bytes)| come.len() == *bytes) {
            heard.push((saying, come));
        }
        Ok(())
    }
}

/// What the keeper answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The state is kept: it would outlive this node.
    Kept,
    /// It is not; why.
    Refused(String),
    /// What the call begins with; `None`: it is the first, or none before it has saved anything.
    State(Option<Vec<u8>>),
}

/// The worker's end.
#[derive(Debug, Default)]
pub struct Saver {
    talk: Talk,
    last: u64,
    /// What was said and is not answered.
    open: Option<Saying>,
}

impl Saver {
    /// A pipe has opened, for the first time or anew.
    pub fn opened(&mut self) {
        self.talk.opened();
        if let Some(open) = self.open.clone() {
            self.talk.say(open.number, open.call, open.head, open.state);
        }
    }

    /// The pipe is of no further use.
    pub fn broken(&mut self) {
        self.talk.broken();
    }

    /// Whether all was answered, so that something may be said.
    pub fn is_idle(&self) -> bool {
        self.open.is_none()
    }

    /// Has state kept, at most [`STATE_BYTES_MAX`]. Only while [idle](Saver::is_idle): what else is open is given up.
    pub fn save(&mut self, call: u64, state: impl Into<Arc<[u8]>>) {
        self.say(call, Head::Save, state.into());
    }

    /// Asks for the state with which a call begins. Only while [idle](Saver::is_idle), as for
    /// [`save`](Saver::save).
    pub fn want(&mut self, call: u64) {
        self.say(call, Head::Want, Arc::from([]));
    }

    fn say(&mut self, call: u64, head: Head, state: Arc<[u8]>) {
        self.give_up();
        self.last += 1;
        let saying = Saying { number: self.last, call, head: head.clone(), state: state.clone() };
        self.open = Some(saying);
        self.talk.say(self.last, call, head, state);
    }

    /// What is open is of no interest any more; what was not said of it is not said. State that was to be kept comes
    /// back.
    pub fn give_up(&mut self) -> Option<Arc<[u8]>> {
        let open = self.open.take()?;
        self.talk.withdraw();
        (open.head == Head::Save).then_some(open.state)
    }

    /// Takes what came; the answer to what is open, if that is among it.
    pub fn hear(&mut self, bytes: &[u8]) -> Result<Option<Answer>, Nonsense> {
        let (mut heard, mut answer) = (Vec::new(), None);
        self.talk.hear(bytes, &mut heard)?;
        for (saying, state) in heard {
            let Some(open) = self.open.as_ref().filter(|open| open.number == saying.number) else { continue };
            answer = Some(match (saying.head, &open.head) {
                (Head::Answer { refused: None }, Head::Save) => Answer::Kept,
                (Head::Answer { refused: Some(why) }, _) => Answer::Refused(why),
                (Head::State, Head::Want) => Answer::State(Some(state)),
                (Head::NoState, Head::Want) => Answer::State(None),
                _ => return Err(Nonsense("an answer does not fit what was said")),
            });
            self.open = None;
        }
        Ok(answer)
    }

    /// A part of what is to be written to the pipe.
    pub fn unwritten(&mut self) -> &[u8] {
        self.talk.unwritten()
    }

    /// So much of it was written.
    pub fn written(&mut self, bytes: usize) {
        self.talk.wrote(bytes);
    }
}

/// What a worker says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// State is to be kept.
    Save {
        /// For the answer.
        number: u64,
        /// By this call.
        call: u64,
        /// The state.
        state: Vec<u8>,
    },
    /// The state with which a call begins is wanted.
    Want {
        /// For the answer.
        number: u64,
        /// The call.
        call: u64,
    },
}

/// The keeper's end of one pipe.
#[derive(Debug, Default)]
pub struct Taker {
    talk: Talk,
}

impl Taker {
    /// A pipe has opened, for the first time or anew.
    pub fn opened(&mut self) {
        self.talk.opened();
    }

    /// The pipe is of no further use.
    pub fn broken(&mut self) {
        self.talk.broken();
    }

    /// Takes what came, and appends what was said.
    pub fn hear(&mut self, bytes: &[u8], asked: &mut Vec<Asked>) -> Result<(), Nonsense> {
        let mut heard = Vec::new();
        self.talk.hear(bytes, &mut heard)?;
        for (Saying { number, call, head, .. }, state) in heard {
            asked.push(match head {
                Head::Save => Asked::Save { number, call, state },
                Head::Want => Asked::Want { number, call },
                _ => return Err(Nonsense("a worker answers")),
            });
        }
        Ok(())
    }

    /// Bytes of state that are announced and not all here.
    pub fn coming(&self) -> usize {
        self.talk.coming.as_ref().map_or(0, |(_, _, bytes)| *bytes)
    }

    /// What is coming of this call is not wanted any more.
    pub fn forget(&mut self, call: u64) {
        self.talk.coming.take_if(|(saying, ..)| saying.call == call);
    }

    /// Answers; over a pipe that broke meanwhile nothing is said, since the worker says all again.
    pub fn answer(&mut self, number: u64, call: u64, answer: Answer) {
        let (head, state) = match answer {
            Answer::Kept => (Head::Answer { refused: None }, Arc::from([])),
            Answer::Refused(mut why) => {
                why.truncate(why.floor_char_boundary(TEXT_BYTES_MAX));
                (Head::Answer { refused: Some(why) }, Arc::from([]))
            }
            Answer::State(Some(state)) => (Head::State, Arc::from(state)),
            Answer::State(None) => (Head::NoState, Arc::from([])),
        };
        self.talk.say(number, call, head, state);
    }

    /// A part of what is to be written to the pipe.
    pub fn unwritten(&mut self) -> &[u8] {
        self.talk.unwritten()
    }

    /// So much of it was written.
    pub fn written(&mut self, bytes: usize) {
        self.talk.wrote(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};

    /// Both ends, and a pipe between them that carries some bytes at a time.
    #[derive(Default)]
    struct Pair {
        saver: Saver,
        taker: Taker,
        asked: Vec<Asked>,
        answers: Vec<Answer>,
    }

    impl Pair {
        fn up(&mut self, most: usize) {
            let bytes: Vec<u8> = self.saver.unwritten().iter().copied().take(most).collect();
            self.saver.written(bytes.len());
            self.taker.hear(&bytes, &mut self.asked).unwrap();
        }

        fn down(&mut self, most: usize) {
            let bytes: Vec<u8> = self.taker.unwritten().iter().copied().take(most).collect();
            self.taker.written(bytes.len());
            self.answers.extend(self.saver.hear(&bytes).unwrap());
        }

        fn breaks(&mut self) {
            self.saver.broken();
            self.taker.broken();
            self.saver.opened();
            self.taker.opened();
        }

        fn settle(&mut self) {
            for _ in 0..200 {
                self.up(usize::MAX);
                self.down(usize::MAX);
            }
        }
    }

    fn pair() -> Pair {
        let mut pair = Pair::default();
        pair.breaks();
        pair
    }

    #[test]
    fn state_is_kept_refused_and_fetched() {
        let mut pair = pair();
        let state = vec![7; 3 * PART_BYTES_MAX + 1];
        pair.saver.save(4, state.clone());
        pair.settle();
        assert_eq!(pair.asked, [Asked::Save { number: 1, call: 4, state: state.clone() }]);
        assert!(!pair.saver.is_idle());
        pair.taker.answer(1, 4, Answer::Kept);
        pair.settle();
        assert!(pair.saver.is_idle());
        pair.saver.save(4, Vec::new());
        pair.settle();
        pair.taker.answer(2, 4, Answer::Refused("full".repeat(1000)));
        pair.settle();
        for answer in [None, Some(Vec::new()), Some(state)] {
            pair.saver.want(5);
            pair.settle();
            let Some(Asked::Want { number, call: 5 }) = pair.asked.pop() else { panic!("it asked") };
            pair.taker.answer(number, 5, Answer::State(answer.clone()));
            pair.settle();
            assert_eq!(pair.answers.pop(), Some(Answer::State(answer)));
        }
        let Some(Answer::Refused(why)) = pair.answers.pop() else { panic!("it was refused") };
        assert_eq!((why.len(), pair.answers), (TEXT_BYTES_MAX, vec![Answer::Kept]));
    }

    #[test]
    fn what_is_given_up_ends_between_two_parts_and_its_answer_is_passed_over() {
        let mut pair = pair();
        pair.saver.save(1, vec![1; 9 * PART_BYTES_MAX]);
        for _ in 0..3 {
            pair.up(PART_BYTES_MAX / 2);
        }
        assert_eq!(pair.taker.coming(), 9 * PART_BYTES_MAX);
        pair.saver.save(2, vec![2; 10]);
        pair.settle();
        assert_eq!(pair.asked, [Asked::Save { number: 2, call: 2, state: vec![2; 10] }]);
        assert_eq!(pair.taker.coming(), 0);
        pair.taker.answer(1, 1, Answer::Kept);
        pair.settle();
        assert!(pair.answers.is_empty() && !pair.saver.is_idle());
        pair.taker.answer(2, 2, Answer::Kept);
        pair.settle();
        assert_eq!(pair.answers, [Answer::Kept]);
    }

    #[test]
    fn the_keeper_may_want_no_more_of_what_comes() {
        let mut pair = pair();
        pair.saver.save(1, vec![1; 3 * PART_BYTES_MAX]);
        pair.up(usize::MAX);
        pair.taker.forget(2);
        assert!(pair.taker.coming() > 0);
        pair.taker.forget(1);
        pair.settle();
        assert!(pair.asked.is_empty());
        pair.saver.save(2, vec![2; 10]);
        pair.settle();
        assert_eq!(pair.asked, [Asked::Save { number: 2, call: 2, state: vec![2; 10] }]);
    }

    #[test]
    fn nonsense_is_told() {
        let head = |head, bytes| {
            let mut frame = Vec::new();
            prefixed::put(&Frame::Head { number: 1, call: 1, head, bytes }, &mut frame);
            frame
        };
        let mut part = Vec::new();
        prefixed::put(&Frame::Part(vec![1, 2]), &mut part);
        let cases: [&[Vec<u8>]; 5] = [
            &[vec![255; 8]],
            &[head(Head::Save, STATE_BYTES_MAX as u32 + 1)],
            &[head(Head::Want, 1)],
            &[head(Head::Save, 1), part.clone()],
            &[head(Head::NoState, 0)],
        ];
        for frames in cases {
            let mut pair = pair();
            assert!(pair.taker.hear(&frames.concat(), &mut pair.asked).is_err(), "{frames:?}");
        }
        let mut pair = pair();
        pair.saver.want(1);
        assert!(pair.saver.hear(&head(Head::Answer { refused: None }, 0)).is_err());
    }

    proptest! {
        /// Whatever breaks where: what comes is what was said, and what is said last is answered in the end.
        #[test]
        fn state_comes_whole_or_not_at_all_and_in_the_order_in_which_it_was_saved(
            steps in prop::collection::vec((0_u8..6, 1_usize..3 * PART_BYTES_MAX), 1..60),
        ) {
            let mut pair = pair();
            let mut said = 0_u64;
            let state = |number: u64, size: usize| vec![number as u8; size];
            let mut sizes = vec![0];
            let settle = (0..100).map(|step| (3 + (step % 3) as u8, usize::MAX));
            for (what, n) in steps.into_iter().chain([(0, 1), (0, 70_000)]).chain(settle) {
                match what {
                    0 | 1 if what == 0 || pair.saver.is_idle() => {
                        said += 1;
                        sizes.push(n);
                        pair.saver.save(said, state(said, n));
                    }
                    0 | 1 => {}
                    2 => pair.breaks(),
                    3 => pair.up(n),
                    4 => pair.down(n),
                    _ => for asked in pair.asked.split_off(0) {
                        let Asked::Save { number, call, state: came } = asked else { panic!("{asked:?}") };
                        prop_assert_eq!(number, call);
                        prop_assert_eq!(came, state(number, sizes[number as usize]));
                        pair.taker.answer(number, call, Answer::Refused(number.to_string()));
                    },
                }
                let answered = |answer: &Answer| matches!(answer, Answer::Refused(number) if *number == said.to_string());
                prop_assert!(pair.answers.split_off(0).iter().all(answered), "an answer to what was given up");
            }
            prop_assert!(pair.saver.is_idle());
        }

        #[test]
        fn any_bytes_are_taken_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut pair = pair();
            let _ = pair.taker.hear(&bytes, &mut pair.asked);
            pair.saver.want(1);
            let _ = pair.saver.hear(&bytes);
        }
    }
}
