//! What the tasks of a bag have in common.

use crate::checks::Checks;
use crate::end::Class;
use crate::words::Words;
use mutirao_schedule::bag::Needs;
use mutirao_wire::BlobHash;
use mutirao_wire::node::Resource;
use serde::{Deserialize, Serialize};

/// What holds for the whole bag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// The bag's name, for people.
    pub name: String,
    /// The scheduler, by its name.
    pub scheduler: String,
    /// Attempts of one task at once, where the scheduler makes copies.
    pub replicas: u32,
    /// Most slots held at once.
    pub slots_max: u32,
    /// The only nodes to run on, by name; any, if there is none.
    pub nodes: Vec<String>,
    /// Labels that every node must have.
    pub labels: Vec<String>,
    /// The nodes that are to keep it where it is submitted, by name: one or three; chosen then, if there is none.
    pub members: Vec<String>,
    /// Where it was submitted: what names of files are relative to.
    pub directory: String,
    /// Environment in which commands find themselves, where they run as the user who submitted them.
    pub environment: Vec<(String, String)>,
    /// Where the list of tasks is written regularly for people, if anywhere.
    pub list: Option<String>,
    /// How results are checked.
    pub checks: Checks,
    /// The program whose operations the tasks are, if they are no commands.
    pub program: Option<Program>,
}

/// A program whose operations tasks call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Its file.
    pub path: String,
    /// Its operations, in its order.
    pub operations: Vec<String>,
    /// Shared objects it needs that other machines may lack, by paths that end in the names it looks for.
    pub libraries: Vec<String>,
    /// How often a task that is pushed, and failed, is tried again.
    pub retries: u32,
    /// Longest run of an attempt of a task that is pushed, ms.
    pub limit_ms: Option<u64>,
    /// Tasks that are pushed may save state for their next attempt.
    pub saves_state: bool,
}

impl Program {
    /// A program of which no more than its file is known.
    pub fn new(path: impl Into<String>) -> Program {
        let (operations, libraries) = (Vec::new(), Vec::new());
        Program { path: path.into(), operations, libraries, retries: 0, limit_ms: None, saves_state: false }
    }
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            name: "bag".into(),
            scheduler: "wqr".into(),
            replicas: 2,
            slots_max: 1024,
            nodes: Vec::new(),
            labels: Vec::new(),
            members: Vec::new(),
            directory: ".".into(),
            environment: Vec::new(),
            list: None,
            checks: Checks::default(),
            program: None,
        }
    }
}

/// What a task does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Work {
    /// A text for the shell.
    Shell(Words),
    /// A program and its arguments.
    Program(Vec<Words>),
    /// A method of an ipar application.
    Ipar {
        /// The application.
        program: Vec<String>,
        /// Files that go with it to where those of the bag's directory cannot be reached.
        files: Vec<String>,
        /// Which method.
        method: crate::ipar::Method,
    },
    /// An operation of the bag's program.
    Operation {
        /// Its name.
        name: String,
        /// Its argument.
        argument: Words,
        /// Each letter of the argument is a byte, not a letter of UTF-8.
        as_bytes: bool,
    },
}

/// A file that is brought to a task or back from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileName {
    /// Its name where the bag was submitted.
    pub here: Words,
    /// Its name in the directory of the task.
    pub there: Words,
}

/// What a file is called in the directory of a task that says no more of it: the same, unless that leads elsewhere.
pub(crate) fn name_there(here: &str) -> &str {
    match here.starts_with('/') || here.split('/').any(|part| part == "..") {
        true => here.rsplit('/').next().unwrap_or_default(),
        false => here,
    }
}

/// Values for which the result is known: with them a node can be checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// A value for each parameter of the template.
    pub values: Vec<Box<str>>,
    /// The right result, as [`content_hash`](crate::content_hash) has it.
    pub result: BlobHash,
}

/// What tasks made in one way have in common.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Template {
    /// Its name in the bag file.
    pub name: String,
    /// What is done.
    pub work: Work,
    /// Names of the parameters of which each task has its own values.
    pub parameters: Vec<String>,
    /// Variables of the environment.
    pub environment: Vec<(String, Words)>,
    /// What the task finds on its standard input.
    pub stdin: Words,
    /// Files to bring.
    pub inputs: Vec<FileName>,
    /// Templates, of those that must be done before, whose outputs are brought too.
    pub gathers: Vec<u32>,
    /// Files to bring back.
    pub outputs: Vec<FileName>,
    /// Slots of each task.
    pub slots: u16,
    /// Memory of each task, MiB.
    pub memory_mib: u32,
    /// Named resources of each task.
    pub resources: Vec<Resource>,
    /// Longest run of an attempt, ms.
    pub limit_ms: Option<u64>,
    /// The greatest runs first.
    pub priority: i32,
    /// How often a task that failed is tried again.
    pub retries: u32,
    /// After so many attempts that took their worker with them, a task is set aside.
    pub crash_limit: u32,
    /// Templates all of whose tasks must be done before.
    pub after: Vec<u32>,
    /// Templates whose task at the same place must be done before.
    pub after_each: Vec<u32>,
    /// Values for which the result is known.
    pub known: Vec<Known>,
    /// The file in the directory of the task in which it saves state for its next attempt, if it does. Of an operation,
    /// which has none, an empty name.
    pub checkpoint: Option<String>,
    /// Its directory is made beside the files of the bag where a node sees these: they do not travel.
    pub in_place: bool,
}

impl Template {
    /// A template that does this and has nothing else to it.
    pub fn new(name: impl Into<String>, work: Work) -> Template {
        Template {
            name: name.into(),
            work,
            parameters: Vec::new(),
            environment: Vec::new(),
            stdin: Words::default(),
            inputs: Vec::new(),
            gathers: Vec::new(),
            outputs: Vec::new(),
            slots: 1,
            memory_mib: 0,
            resources: Vec::new(),
            limit_ms: None,
            priority: 0,
            retries: 0,
            crash_limit: 3,
            after: Vec::new(),
            after_each: Vec::new(),
            known: Vec::new(),
            checkpoint: None,
            in_place: false,
        }
    }

    /// What each of its tasks takes while it runs.
    pub fn needs(&self) -> Needs {
        let resources = self.resources.clone();
        Needs { slots: self.slots, memory_mib: self.memory_mib, resources }.normal()
    }

    /// Whether its tasks have a directory of their own, into which files are brought and out of which they are
    /// taken, instead of running where the bag was submitted. An ipar application runs beside its own files, and has
    /// its state elsewhere.
    pub fn has_playpen(&self) -> bool {
        self.brings_files() || (self.checkpoint.is_some() && !matches!(self.work, Work::Ipar { .. }))
    }

    /// Whether files are brought to its tasks or taken from them.
    pub fn brings_files(&self) -> bool {
        !self.inputs.is_empty() || !self.gathers.is_empty() || !self.outputs.is_empty()
    }

    /// Whether a task that came to its end so often is given up.
    pub fn gives_up(&self, class: Class, failures: u32, crashes: u32) -> bool {
        match class {
            Class::Failure => failures > self.retries,
            Class::Crash => crashes >= self.crash_limit.max(1),
            Class::Success | Class::Nothing => false,
        }
    }
}
