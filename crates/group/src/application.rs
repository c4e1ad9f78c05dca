//! An application that can be run: its processes and what joins them.

use crate::draft::{Draft, Settings};
use crate::limits::FILE_BYTES_MAX;
use crate::plan::{Mode, Shape};
use crate::problem::{At, Mistake, Problem};
use crate::{check, classic, document};
use core::fmt;

/// An application, checked: every number in it leads somewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Application {
    /// What holds for the whole group.
    pub settings: Settings,
    /// The machines to be used, if the file names any.
    pub stations: Vec<String>,
    /// Its processes; the index is the rank.
    pub processes: Vec<Process>,
    /// What joins them.
    pub channels: Vec<Channel>,
}

/// A process to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// The program it is an instance of.
    pub program: String,
    /// Which one, from 0.
    pub instance: u32,
    /// Its executable, as the file has it: relative to the file's directory unless absolute.
    pub executable: String,
    /// What it is given on its command line.
    pub arguments: Vec<String>,
    /// Variables added to its environment.
    pub environment: Vec<(String, String)>,
    /// Where it runs, if not in an empty directory of its own.
    pub directory: Option<String>,
    /// Files that are there in its directory when it starts, as the file names them here.
    pub files: Vec<String>,
    /// The machine it runs on, if that was said.
    pub station: Option<String>,
    /// Slots it holds.
    pub slots: u16,
    /// Memory set aside for it, MiB; 0: none.
    pub memory_mib: u32,
    /// Whether its standard streams are a terminal, to which somebody may attach.
    pub terminal: bool,
    /// Its input channels.
    pub inputs: u32,
    /// Its output channels.
    pub outputs: u32,
}

/// A channel, by the ends it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Channel {
    /// Where its messages arrive; one, if there are several outputs.
    pub inputs: Vec<End>,
    /// Where they are sent from; one, if there are several inputs.
    pub outputs: Vec<End>,
    /// Its mode, if the file says so.
    pub mode: Option<Mode>,
}

/// An end of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct End {
    /// The rank of the process.
    pub rank: u32,
    /// The channel's number there.
    pub port: u32,
}

impl Application {
    /// Reads a file's text, of either form. `look` says of a path in the file what is wrong with what is there, if
    /// something is; `true` asks for an executable. All that is wrong is told, in the order of the file.
    pub fn read(
        text: &str,
        look: impl Fn(&str, bool) -> Option<String>,
    ) -> Result<Application, Vec<Problem>> {
        let start = At { line: 1, column: 1 };
        if text.len() > FILE_BYTES_MAX {
            return Err(vec![Mistake::TooMany { what: "bytes" }.at(start)]);
        }
        let draft: Draft = if document::is_one(text) { document::read(text) } else { classic::read(text) };
        check::check(draft, look)
    }

    /// The rank of the process that people call `name`, such as `gmandel.1`.
    pub fn rank(&self, name: &str) -> Option<u32> {
        let rank = self.processes.iter().position(|process| process.to_string() == name)?;
        u32::try_from(rank).ok()
    }
}

impl Channel {
    /// How many ends it has on either side.
    pub fn shape(&self) -> Shape {
        match (self.outputs.len(), self.inputs.len()) {
            (1, 1) => Shape::OneToOne,
            (1, _) => Shape::OneToMany,
            _ => Shape::ManyToOne,
        }
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.program, self.instance)
    }
}
