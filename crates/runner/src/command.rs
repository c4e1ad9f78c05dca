//! What is to be run.

use crate::codec::{self, CodecError};
use crate::environment::Environment;
use crate::site::Site;
use serde::{Deserialize, Serialize};

/// Files that travel with one command, in either direction.
pub(crate) const FILES_MAX: usize = 4096;

/// A variable of the environment: its name and its value.
pub type Variable = (Vec<u8>, Vec<u8>);

/// A command, and all it needs to run on whatever machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Command {
    /// What is executed.
    pub program: Program,
    /// Variables beside those of the worker, or instead of them. Wherever it runs.
    pub environment: Vec<Variable>,
    /// What it finds on its standard input; nothing at the end of it.
    pub stdin: Vec<u8>,
    /// Where it belongs, for workers that may act there.
    pub home: Option<Home>,
    /// Where it works instead of in the playpen. A worker that does not see this site says so and runs nothing.
    pub site: Option<Site>,
    /// Files put into the playpen before it starts. Not where it runs at home: there they lie already.
    pub bring: Vec<File>,
    /// Files put there too that do not travel with it: whoever [runs](crate::Runner::run_with) it has them brought by
    /// their content.
    pub fetch: Vec<Fetched>,
    /// Files taken out of the playpen when it has ended, by name; those that are not there are left out.
    pub take: Vec<String>,
    /// Limits kept by the kernel.
    pub limits: Limits,
    /// It is ended when it has run for so long, milliseconds.
    pub time_limit_ms: Option<u64>,
}

/// What is executed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Program {
    /// A program and its arguments, the first of them its name.
    Words(Vec<Vec<u8>>),
    /// A text for a shell, which is started with `-c`.
    Shell {
        /// The shell, for example `/bin/sh`. Where there is none of that path, `/bin/sh` is taken.
        shell: Vec<u8>,
        /// What it is to execute.
        text: Vec<u8>,
    },
}

impl Default for Program {
    fn default() -> Program {
        Program::Words(Vec::new())
    }
}

/// Where a command belongs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Home {
    /// The directory its user was in.
    pub directory: Vec<u8>,
    /// Its user's whole environment, for workers that act as that user. Where only the directory is
    /// shared it is left out.
    pub environment: Environment,
    /// Its user's file mode creation mask.
    pub umask: Option<u32>,
}

/// A file by its name relative to the directory of the command.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct File {
    /// The name. It leads downwards only.
    pub name: String,
    /// Whether it can be executed.
    pub executable: bool,
    /// What is in it.
    pub bytes: Vec<u8>,
}

/// A file of a command that is fetched by its content.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetched {
    /// Its name relative to the directory of the command. It leads downwards only.
    pub name: String,
    /// Whether it can be executed.
    pub executable: bool,
    /// The hash of what is in it (BLAKE3).
    pub hash: [u8; 32],
}

/// Limits of one command, each for every process of it alone. `None`: that of the worker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Memory it may fill, MiB.
    pub memory_mib: Option<u32>,
    /// Processor time, seconds.
    pub cpu_s: Option<u32>,
}

impl Limits {
    pub(crate) fn is_none(&self) -> bool {
        *self == Limits::default()
    }
}

#[derive(Serialize, Deserialize)]
struct Head {
    program: Program,
    environment: Vec<Variable>,
    stdin_bytes: u64,
    home: Option<Home>,
    site: Option<Site>,
    bring: Vec<FileHead>,
    fetch: Vec<Fetched>,
    take: Vec<String>,
    limits: Limits,
    time_limit_ms: Option<u64>,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct FileHead {
    name: String,
    executable: bool,
    bytes: u64,
}

impl FileHead {
    pub(crate) fn of(file: &File) -> FileHead {
        FileHead { name: file.name.clone(), executable: file.executable, bytes: file.bytes.len() as u64 }
    }

    pub(crate) fn length(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn with(self, bytes: &[u8]) -> File {
        File { name: self.name, executable: self.executable, bytes: bytes.to_vec() }
    }
}

impl Command {
    /// A text for `/bin/sh`.
    pub fn shell(text: impl Into<Vec<u8>>) -> Command {
        let program = Program::Shell { shell: b"/bin/sh".to_vec(), text: text.into() };
        Command { program, ..Command::default() }
    }

    /// A program and its arguments.
    pub fn words<Word: Into<Vec<u8>>>(words: impl IntoIterator<Item = Word>) -> Command {
        let words = words.into_iter().map(Into::into).collect();
        Command { program: Program::Words(words), ..Command::default() }
    }

    /// Reads what [`encode`](Self::encode) wrote.
    pub fn decode(bytes: &[u8]) -> Result<Command, CodecError> {
        let lengths = |head: &Head| {
            std::iter::once(head.stdin_bytes).chain(head.bring.iter().map(FileHead::length)).collect()
        };
        let (head, mut parts) = codec::decode(bytes, lengths)?;
        let linked = head.site.as_ref().map_or(0, |site| site.links.len());
        let counts = [
            ("files to bring", head.bring.len() + head.fetch.len() + linked),
            ("files to take", head.take.len()),
        ];
        for (what, count) in counts {
            if count > FILES_MAX {
                return Err(CodecError::TooMany { what, count, most: FILES_MAX });
            }
        }
        Ok(Command {
            program: head.program,
            environment: head.environment,
            stdin: parts.next().unwrap_or_default().to_vec(),
            home: head.home,
            site: head.site,
            bring: head.bring.into_iter().zip(parts).map(|(file, bytes)| file.with(bytes)).collect(),
            fetch: head.fetch,
            take: head.take,
            limits: head.limits,
            time_limit_ms: head.time_limit_ms,
        })
    }

    /// As bytes, to be the argument of a call.
    pub fn encode(&self) -> Vec<u8> {
        let head = Head {
            program: self.program.clone(),
            environment: self.environment.clone(),
            stdin_bytes: self.stdin.len() as u64,
            home: self.home.clone(),
            site: self.site.clone(),
            bring: self.bring.iter().map(FileHead::of).collect(),
            fetch: self.fetch.clone(),
            take: self.take.clone(),
            limits: self.limits,
            time_limit_ms: self.time_limit_ms,
        };
        let files = self.bring.iter().map(|file| &file.bytes[..]);
        codec::encode(&head, std::iter::once(&self.stdin[..]).chain(files))
    }
}
