use mutirao_group::channel::Nonsense;
use mutirao_group::plan::Mode;
use std::io;

/// Why a process of a group could not do what was asked. Unless a variant says otherwise nothing has changed.
#[derive(thiserror::Error)]
pub enum Error {
    /// The program was started by hand.
    #[error(
        "this process belongs to no group ({} is not set); start it with `mutirao group run FILE`",
        mutirao_group::plan::GROUP_ENV
    )]
    NoGroup,
    /// The group was opened before.
    #[error("this process has opened its group already; open it once, and close it once at the end")]
    OpenedTwice,
    /// What started this process speaks another language.
    #[error(
        "what started this process sent what this library does not understand: {0}; are both of the same version?"
    )]
    Protocol(String),
    /// What started this process is gone: its group is at its end.
    #[error("the node no longer holds this process's place in the group {group}; the group has ended")]
    GroupLost {
        /// The group's name.
        group: String,
    },
    /// The application file gives the program no such channel.
    #[error("{process} has no {direction} channel {number}: the application file gives it {count}")]
    NoChannel {
        /// This process.
        process: String,
        /// "input" or "output".
        direction: &'static str,
        /// The number asked for.
        number: u32,
        /// How many there are.
        count: usize,
    },
    /// One end of a channel is synchronous, the other is not. The channel is of no further use.
    #[error(
        "{channel} is used in both modes: {here} here, {there} by {peer}; a channel is synchronous at both ends \
         or asynchronous at both"
    )]
    Mixed {
        /// The channel.
        channel: String,
        /// The mode here.
        here: &'static str,
        /// The mode there.
        there: &'static str,
        /// The other process.
        peer: String,
    },
    /// This program has used the channel in the other mode, in which it goes on.
    #[error(
        "{channel} is {here} since it was first used, or by the application file; it cannot be used in both modes"
    )]
    MixedHere {
        /// The channel.
        channel: String,
        /// Its mode.
        here: &'static str,
    },
    /// The message is longer than the room for it. It stays.
    #[error(
        "the next message of {channel} has {length} bytes, but there is room for {room}; it stays until it is received"
    )]
    TooLong {
        /// The channel.
        channel: String,
        /// Its length.
        length: u64,
        /// The room given.
        room: u64,
    },
    /// The message is longer than any may be.
    #[error(
        "a message of {length} bytes cannot be sent: at most {}",
        mutirao_group::channel::MESSAGE_BYTES_MAX
    )]
    Huge {
        /// Its length.
        length: u64,
    },
    /// All processes at the other end have closed it.
    #[error("{channel} has ended: nobody is left at its other end")]
    Ended {
        /// The channel.
        channel: String,
    },
    /// A pipe of the channel is gone for good.
    #[error("{channel} has lost {peer}: {text}")]
    PeerLost {
        /// The channel.
        channel: String,
        /// The other process.
        peer: String,
        /// Why, in the node's words.
        text: String,
    },
    /// What came over a channel makes no sense. The channel is of no further use.
    #[error("{peer} sent what is no message over {channel}: {why}")]
    Nonsense {
        /// The channel.
        channel: String,
        /// Who sent it.
        peer: String,
        /// What is wrong with it.
        why: Nonsense,
    },
    /// What came over a ring makes no sense. The channel is of no further use.
    #[error("{peer} has damaged the memory it shares with {channel}: {text}")]
    Damaged {
        /// The channel.
        channel: String,
        /// Who did.
        peer: String,
        /// What is wrong.
        text: String,
    },
    /// The time given is over. A message that was to be sent is on its way all the same.
    #[error("{channel}: nothing happened in the time given")]
    TimedOut {
        /// The channel.
        channel: String,
    },
    /// As much is stored as may be.
    #[error(
        "{channel} stores {messages} messages with {bytes} bytes, and no more; wait until some are received"
    )]
    Full {
        /// The channel.
        channel: String,
        /// Messages stored.
        messages: usize,
        /// What they take, bytes.
        bytes: u64,
    },
    /// A value that cannot be encoded, or bytes that are no such value. Those bytes were received.
    #[error("{channel} carries no such value: {reason}")]
    Encoding {
        /// The channel.
        channel: String,
        /// What the codec says.
        reason: String,
    },
    /// A process that runs alone, with what it received before, has come to where its record ends.
    #[error(
        "the record of {process} tells nothing more of {channel}: when it was made, this call did not return, or was \
         not made"
    )]
    Unrecorded {
        /// The process.
        process: String,
        /// What was called.
        channel: String,
    },
    /// The record with which a process is to run alone cannot be used.
    #[error("the record `{record}` cannot be used: {reason}")]
    Record {
        /// Whose, or its file.
        record: String,
        /// What is wrong.
        reason: String,
    },
    /// A process that runs alone meets the error of when it was recorded.
    #[error("as when it was recorded: {text}")]
    Recorded {
        /// The error then.
        text: String,
    },
    /// The group's file did not ask for collectives.
    #[error("this group has no collectives: set `collectives = true` in its file")]
    NoCollectives,
    /// The parts of a collective do not fit together.
    #[error("the processes do not agree on a collective: {0}")]
    Collective(String),
    /// The system refuses something.
    #[error("could not {what}: {source}")]
    System {
        /// What was being done.
        what: &'static str,
        /// The system's reason.
        source: io::Error,
    },
}

crate::error::debug_in_words!(Error);

impl Error {
    pub(super) fn system(what: &'static str) -> impl Fn(rustix::io::Errno) -> Error {
        move |errno| Error::System { what, source: errno.into() }
    }
}

/// A mode in words.
pub(super) fn word(mode: Mode) -> &'static str {
    match mode {
        Mode::Sync => "synchronous",
        Mode::Async => "asynchronous",
    }
}

/// The other mode in words.
pub(super) fn other_word(mode: Mode) -> &'static str {
    word(match mode {
        Mode::Sync => Mode::Async,
        Mode::Async => Mode::Sync,
    })
}

/// The mode of such a word.
pub(super) fn mode(word: &str) -> Mode {
    if word == self::word(Mode::Sync) { Mode::Sync } else { Mode::Async }
}
