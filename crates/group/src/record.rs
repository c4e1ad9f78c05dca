//! Records: what a process of a group did with its channels, written down while it runs.
//!
//! A record is a [`Preamble`], which its launcher writes, and then an [`Entry`] for each call that returned, which the
//! process writes. Both are a length in four bytes, lowest first, and a body in postcard; after an entry come the bytes
//! of the message that was received, as many as it says. A record may end anywhere: with its process.

use crate::plan::{Mode, ProcessPlan};
use mutirao_wire::prefixed::{self, put, read};
use serde::{Deserialize, Serialize};

/// The longest body of an entry.
pub const ENTRY_BYTES_MAX: usize = 16 * 1024;
/// The longest body of a preamble: a plan names every peer.
pub const PREAMBLE_BYTES_MAX: usize = crate::plan::PLAN_BYTES_MAX + 1024 * 1024;
/// The first bytes of a preamble: another form of records has others.
const FORM: [u8; 8] = *b"mtrrec01";
/// The longest text in an entry, bytes.
const TEXT_BYTES_MAX: usize = 4 * 1024;

/// Whether a process writes down what it does, and how much of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Depth {
    /// When and with whom: enough for a timeline.
    Times,
    /// The messages it received, too: enough to run it again.
    Messages,
}

/// First in a record: which process it is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preamble {
    form: [u8; 8],
    /// What the process was told.
    pub plan: ProcessPlan,
    /// Whose life it was.
    pub origin: Origin,
}

/// Whose record it is, beside its plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Which of its lives, from 1.
    pub life: u32,
    /// The node it ran on.
    pub node: String,
    /// Its executable, where the group was launched.
    pub executable: String,
    /// The hash of that file, in hexadecimal.
    pub hash: String,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Variables added to its environment.
    pub environment: Vec<(String, String)>,
    /// Where it ran, if not in an empty directory.
    pub directory: Option<String>,
    /// Files it found in its directory, where the group was launched.
    pub files: Vec<String>,
}

/// A call that returned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When it began, nanoseconds since 1970 by the clock of its machine.
    pub at_ns: u64,
    /// How long it took, nanoseconds.
    pub took_ns: u64,
    /// Which of the process's threads made it, as they first came, from 1.
    pub thread: u32,
    /// What was called.
    pub call: Call,
    /// What came of it.
    pub outcome: Outcome,
    /// The message that was sent or received.
    pub message: Option<Message>,
    /// Bytes of the message that follow.
    pub body_bytes: u64,
}

/// What a process can call. Channels are numbered as in its plan, those of the collectives after them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Call {
    /// Send, and wait until it is received.
    Send(u32),
    /// Store until it is received.
    Post(u32),
    /// How much is stored.
    Stored(u32),
    /// Receive, in whatever way.
    Receive(u32),
    /// Wait for one of several.
    Select,
    /// Whether an event loop may wait.
    Arm,
    /// Leave the group.
    Close,
    /// A collective, of which the single messages are told too.
    Collective(Collective),
}

/// What all processes do together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[allow(missing_docs)] // Their names are those of the calls.
pub enum Collective {
    Barrier,
    Broadcast,
    Scatter,
    Gather,
    Reduce,
    AllToAll,
}

impl Collective {
    /// Its name.
    pub fn word(self) -> &'static str {
        match self {
            Collective::Barrier => "barrier",
            Collective::Broadcast => "broadcast",
            Collective::Scatter => "scatter",
            Collective::Gather => "gather",
            Collective::Reduce => "reduce",
            Collective::AllToAll => "all to all",
        }
    }
}

/// What came of a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It was done: for [`Call::Arm`], there is something.
    Done,
    /// A message came over this lane: the place of its sender among the peers of the channel.
    Received(u32),
    /// This place among those given has a message.
    Chosen(u32),
    /// So many messages and bytes are stored.
    Stored(u64, u64),
    /// There was nothing in the time given, or no room, so many times in a row.
    Nothing(u64),
    /// The message was not received in the time given; it is on its way all the same.
    Late,
    /// It failed.
    Failed(Failure),
}

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Failure {
    /// Nobody is left at the other end.
    #[error("nobody is left at the other end")]
    Ended,
    /// A pipe is gone for good.
    #[error("{peer} is lost: {text}")]
    PeerLost {
        /// Whose.
        peer: String,
        /// Why.
        text: String,
    },
    /// What came makes no sense.
    #[error("what came from {peer} makes no sense: {text}")]
    Damaged {
        /// From whom.
        peer: String,
        /// What is wrong.
        text: String,
    },
    /// The message does not fit, and stays.
    #[error("there is no room for {0} bytes")]
    TooLong(u64),
    /// The other end is used in the other mode.
    #[error("{peer} uses the other mode")]
    Mixed {
        /// The mode here.
        here: Mode,
        /// Whose end.
        peer: String,
    },
    /// This end was used in the other mode.
    #[error("the channel was used in the other mode before")]
    MixedHere(Mode),
    /// The group has ended.
    #[error("the group has ended")]
    GroupLost,
    /// Something else, in words.
    #[error("{0}")]
    Other(String),
}

/// A message, without its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Message {
    /// Bytes.
    pub length: u64,
    /// The beginning of the hash of its content.
    pub hash: u64,
}

/// Bytes that are no part of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A part of it.
    #[error(transparent)]
    Part(#[from] prefixed::Malformed),
    /// It begins otherwise.
    #[error("it does not begin as a record of this version does")]
    NoRecord,
}

impl Preamble {
    /// The preamble of a record.
    pub fn new(plan: ProcessPlan, origin: Origin) -> Preamble {
        Preamble { form: FORM, plan, origin }
    }

    /// Appends it with its length.
    pub fn put(&self, out: &mut Vec<u8>) {
        put(self, out);
    }

    /// Reads one out of a body.
    pub fn read(body: &[u8]) -> Result<Preamble, Malformed> {
        if !body.starts_with(&FORM) {
            return Err(Malformed::NoRecord);
        }
        Ok(read(body)?)
    }
}

impl Entry {
    /// Appends it with its length. Long texts are cut.
    pub fn put(&self, out: &mut Vec<u8>) {
        match &self.outcome {
            Outcome::Failed(failure) if failure.text_bytes() > TEXT_BYTES_MAX => {
                let outcome = Outcome::Failed(failure.clone().shortened());
                put(&Entry { outcome, ..self.clone() }, out);
            }
            _ => put(self, out),
        }
    }

    /// Reads one out of a body.
    pub fn read(body: &[u8]) -> Result<Entry, Malformed> {
        let entry: Entry = read(body)?;
        let length = entry.message.map_or(0, |message| message.length);
        if entry.body_bytes > length { Err(prefixed::Malformed::Unreadable.into()) } else { Ok(entry) }
    }
}

impl Failure {
    fn text_bytes(&self) -> usize {
        match self {
            Failure::PeerLost { peer, text } | Failure::Damaged { peer, text } => peer.len() + text.len(),
            Failure::Mixed { peer, .. } => peer.len(),
            Failure::Other(text) => text.len(),
            Failure::Ended | Failure::TooLong(_) | Failure::MixedHere(_) | Failure::GroupLost => 0,
        }
    }

    fn shortened(mut self) -> Failure {
        let cut = |text: &mut String| text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
        match &mut self {
            Failure::PeerLost { peer, text } | Failure::Damaged { peer, text } => {
                cut(peer);
                cut(text);
            }
            Failure::Mixed { peer, .. } => cut(peer),
            Failure::Other(text) => cut(text),
            Failure::Ended | Failure::TooLong(_) | Failure::MixedHere(_) | Failure::GroupLost => {}
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, prop, prop_assert_eq, proptest};

    fn entry(outcome: Outcome) -> Entry {
        let message = Some(Message { length: 9, hash: 7 });
        Entry { at_ns: 1, took_ns: 2, thread: 3, call: Call::Receive(4), outcome, message, body_bytes: 9 }
    }

    fn body(bytes: &[u8], bytes_max: usize) -> &[u8] {
        let (head, body) = bytes.split_first_chunk().unwrap();
        assert_eq!(prefixed::length(*head, bytes_max), Ok(body.len()));
        body
    }

    #[test]
    fn entries_are_read_as_they_were_written_and_long_texts_are_cut() {
        let mut bytes = Vec::new();
        entry(Outcome::Received(1)).put(&mut bytes);
        assert_eq!(Entry::read(body(&bytes, ENTRY_BYTES_MAX)), Ok(entry(Outcome::Received(1))));
        let text = "ü".repeat(ENTRY_BYTES_MAX);
        let failure = Failure::PeerLost { peer: text.clone(), text };
        bytes.clear();
        entry(Outcome::Failed(failure)).put(&mut bytes);
        let read = Entry::read(body(&bytes, ENTRY_BYTES_MAX)).unwrap();
        let Outcome::Failed(Failure::PeerLost { text, .. }) = read.outcome else { panic!("{read:?}") };
        assert_eq!(text.len(), TEXT_BYTES_MAX);
        let more = Entry { body_bytes: 10, ..entry(Outcome::Received(1)) };
        bytes.clear();
        more.put(&mut bytes);
        assert_eq!(Entry::read(body(&bytes, ENTRY_BYTES_MAX)), Err(prefixed::Malformed::Unreadable.into()));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_part_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Preamble::read(&bytes);
            let _ = Preamble::read(&[&FORM[..], &bytes].concat());
            if let Ok(entry) = Entry::read(&bytes) {
                let mut again = Vec::new();
                entry.put(&mut again);
                prop_assert_eq!(Entry::read(&again[prefixed::LENGTH_BYTES..]), Ok(entry));
            }
        }
    }
}
