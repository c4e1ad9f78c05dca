//! What is wrong with an application file, and where.

use crate::limits::{ENDS_MAX, FILE_BYTES_MAX, PORTS_MAX, PROCESSES_MAX};
use core::fmt;
pub use mutirao_text::At;

/// A mistake with its place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[error("{at}: {mistake}")]
pub struct Problem {
    /// Where.
    pub at: At,
    /// What.
    pub mistake: Mistake,
}

/// Which side of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// Where messages arrive.
    Input,
    /// Where they are sent.
    Output,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Side::Input => "input",
            Side::Output => "output",
        })
    }
}

/// What can be wrong in an application file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Mistake {
    /// A line that begins with no known letter.
    #[error("`{word}` is no command: a line begins with P (station), T (program), L (place) or C (channel)")]
    Command {
        /// The word.
        word: String,
    },
    /// A line that ends too soon, or goes on too long.
    #[error("{what}; the form is `{form}`")]
    Form {
        /// What is missing or too much.
        what: String,
        /// How such a line is written.
        form: &'static str,
    },
    /// Something that should be a number.
    #[error("`{word}` is not a number for {what}: digits only, at most {most}")]
    Number {
        /// The word.
        word: String,
        /// What it stands for.
        what: &'static str,
        /// The largest that is allowed.
        most: u32,
    },
    /// A name with characters that a name cannot have.
    #[error("`{word}` cannot be the name of a {what}: letters, digits, `-`, `_`, `+` and `.`, not first")]
    Name {
        /// The word.
        word: String,
        /// What it was to name.
        what: &'static str,
    },
    /// The text is not of the TOML form.
    #[error("{reason}")]
    Document {
        /// In the words of the reader of TOML.
        reason: String,
    },
    /// A channel's end in the TOML form.
    #[error(
        "`{word}` is no end of a channel: write `program.instance:channel`, or `program.*:channel` for all instances"
    )]
    End {
        /// The word.
        word: String,
    },
    /// A station or program named twice.
    #[error("the {what} `{name}` was declared before, on line {}; leave one out", .first.line)]
    Twice {
        /// Station or program.
        what: &'static str,
        /// Its name.
        name: String,
        /// The first time.
        first: At,
    },
    /// An instance with two places.
    #[error("`{process}` has a place already, on line {}; leave one out", .first.line)]
    PlacedTwice {
        /// The process.
        process: String,
        /// The first time.
        first: At,
    },
    /// A station nobody declared.
    #[error("the station `{name}` is unknown: add `P {name}`, or use one that a P line names{}", maybe(.meant))]
    UnknownStation {
        /// Its name.
        name: String,
        /// A declared one that looks alike.
        meant: Option<String>,
    },
    /// A program nobody declared.
    #[error("the program `{name}` is unknown: declare it, or use one that is declared{}", maybe(.meant))]
    UnknownProgram {
        /// Its name.
        name: String,
        /// A declared one that looks alike.
        meant: Option<String>,
    },
    /// An instance beyond those there are.
    #[error("there is no `{program}.{instance}`: `{program}` has {} (line {})", instances(*.count), .declared.line)]
    NoInstance {
        /// The program.
        program: String,
        /// The instance.
        instance: u32,
        /// How many there are.
        count: u32,
        /// Where that is said.
        declared: At,
    },
    /// An instance without a place.
    #[error("`{process}` has no place: add `L {} <directory> <station>`, or declare fewer instances", .process.replacen('.', " ", 1))]
    Unplaced {
        /// The process.
        process: String,
    },
    /// A program of which nothing runs.
    #[error("`{program}` has no instances: declare one at least, or leave the program out")]
    NoInstances {
        /// The program.
        program: String,
    },
    /// A channel number beyond those declared.
    #[error("`{process}` has no {side} channel {port}: line {} declares {count} of them, numbered from 0", .declared.line)]
    NoPort {
        /// The process.
        process: String,
        /// Input or output.
        side: Side,
        /// The number.
        port: u32,
        /// How many were declared.
        count: u32,
        /// Where.
        declared: At,
    },
    /// A channel end in two channels, or twice in one.
    #[error("{side} channel {port} of `{process}` is wired already, on line {}; an end belongs to one channel", .first.line)]
    WiredTwice {
        /// The process.
        process: String,
        /// Input or output.
        side: Side,
        /// The number.
        port: u32,
        /// The first time.
        first: At,
    },
    /// A declared channel end that leads nowhere.
    #[error(
        "{side} channel {port} of `{process}` leads nowhere: join it to another end, or declare fewer channels"
    )]
    Unwired {
        /// The process.
        process: String,
        /// Input or output.
        side: Side,
        /// The number.
        port: u32,
    },
    /// Several ends on both sides.
    #[error(
        "there are lists on both sides; a channel has one input and several outputs, or one output and several inputs"
    )]
    BothSides,
    /// A channel from a process to itself.
    #[error("`{process}` would be joined with itself; messages go to other processes only")]
    Itself {
        /// The process.
        process: String,
    },
    /// A file that cannot be used.
    #[error("`{path}` {why}")]
    Unusable {
        /// As the application file has it.
        path: String,
        /// What is wrong with it and what to do.
        why: String,
    },
    /// Stations for some instances only.
    #[error("{stations} stations for {} of `{program}`: name one for all, or one for each", instances(*.count))]
    Stations {
        /// The program.
        program: String,
        /// Stations named.
        stations: usize,
        /// Instances there are.
        count: u32,
    },
    /// A file that describes nothing.
    #[error("no program is declared; an application has one at least")]
    Empty,
    /// More than can be.
    #[error(
        "too many {what}: an application has at most {PROCESSES_MAX} processes, {ENDS_MAX} joined pairs of channel ends \
         and {FILE_BYTES_MAX} bytes of file, a process at most {PORTS_MAX} channels on a side"
    )]
    TooMany {
        /// What there are too many of.
        what: &'static str,
    },
}

impl Mistake {
    pub(crate) fn at(self, at: At) -> Problem {
        Problem { at, mistake: self }
    }
}

fn maybe(meant: &Option<String>) -> String {
    meant.as_ref().map(|meant| format!("; did you mean `{meant}`?")).unwrap_or_default()
}

fn instances(count: u32) -> String {
    match count {
        1 => "1 instance".into(),
        count => format!("{count} instances"),
    }
}

/// A word of a file, short enough to be shown in a message and without what would disturb a terminal.
pub(crate) fn shown(word: &str) -> String {
    word.chars().take(80).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
