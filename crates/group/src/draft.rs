//! What an application file says, each item with its place, before it is checked.

use crate::limits::{RESTARTS, RESTARTS_WITHIN_S, STORED_BYTES};
use crate::plan::Mode;
use crate::problem::{At, Mistake, Problem, shown};

/// A name with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) at: At,
    pub(crate) name: String,
}

/// A program: how many instances run, with how many channels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Program {
    pub(crate) at: At,
    pub(crate) name: String,
    pub(crate) instances: u32,
    pub(crate) inputs: u32,
    pub(crate) outputs: u32,
}

/// Where an instance runs, and with what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) at: At,
    pub(crate) program: String,
    pub(crate) instance: u32,
    pub(crate) executable: Named,
    pub(crate) station: Option<Named>,
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) directory: Option<String>,
    pub(crate) files: Vec<Named>,
    pub(crate) slots: u16,
    pub(crate) memory_mib: u32,
    pub(crate) terminal: bool,
}

/// An end of a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) at: At,
    pub(crate) program: String,
    pub(crate) instance: u32,
    pub(crate) port: u32,
}

/// A channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wire {
    pub(crate) at: At,
    pub(crate) inputs: Vec<End>,
    pub(crate) outputs: Vec<End>,
    pub(crate) mode: Option<Mode>,
}

/// What holds for the whole group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Its name, if the file gives one.
    pub name: Option<String>,
    /// Whether processes are joined for collectives.
    pub collectives: bool,
    /// Bytes of messages that a channel end stores at most.
    pub stored_bytes_max: u64,
    /// Whether what goes beyond that is written to disk instead of making the sender wait.
    pub spill: bool,
    /// What follows the unexpected end of a process.
    pub restart: Restart,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            name: None,
            collectives: false,
            stored_bytes_max: STORED_BYTES,
            spill: false,
            restart: Restart { strategy: Strategy::None, most: RESTARTS, within_s: RESTARTS_WITHIN_S },
        }
    }
}

/// What follows the unexpected end of a process, and how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restart {
    /// What follows.
    pub strategy: Strategy,
    /// After more restarts than this
    pub most: u32,
    /// in so many seconds the group ends.
    pub within_s: u32,
}

/// What follows the unexpected end of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// The end of the group.
    None,
    /// That process is started again.
    OneForOne,
    /// All processes are started again.
    OneForAll,
}

/// All that a file says, with what could not be read.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    pub(crate) settings: Settings,
    pub(crate) stations: Vec<Named>,
    pub(crate) programs: Vec<Program>,
    pub(crate) places: Vec<Place>,
    pub(crate) wires: Vec<Wire>,
    pub(crate) problems: Vec<Problem>,
}

impl Draft {
    pub(crate) fn wrong(&mut self, at: At, mistake: Mistake) {
        self.problems.push(mistake.at(at));
    }

    /// Notes a name that cannot be one; whether it can.
    pub(crate) fn name(&mut self, at: At, what: &'static str, word: &str) -> bool {
        let fits = is_name(word);
        if !fits {
            self.wrong(at, Mistake::Name { word: shown(word), what });
        }
        fits
    }
}

/// Whether a word can name a program or a station. A program's name is also that of a file.
fn is_name(word: &str) -> bool {
    let letter = |c: char| c.is_alphanumeric() || "-_+.".contains(c);
    word.len() <= 255
        && word.starts_with(|c: char| letter(c) && !"-.".contains(c))
        && word.chars().all(letter)
}
