//! A bag of tasks whose keeper is another process: everything as bytes.

use super::Options;
use crate::pool::{mutirao_program, own_library};
use crate::sys::without_signals;
use crate::{CallError, CallErrorKind, Error, operation};
use mutirao_wire::session::{ARGUMENT_BYTES_MAX, FromKeeper, TaskEnd, ToKeeper, decode, encode, length};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::ffi::OsString;
use std::io::{BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

/// A bag that is open in this program.
#[derive(Debug)]
pub struct Bag {
    stream: BufReader<UnixStream>,
    starter: Option<Child>,
    number: u32,
    /// Tasks in all: those pushed are numbered on.
    tasks: u64,
    ended: Told,
}

/// Which tasks were told to have ended: one that is tried again by `mutirao bag retry` ends twice.
#[derive(Debug, Default)]
struct Told {
    /// A bit for each task.
    tasks: Vec<u64>,
    count: u64,
}

impl Told {
    /// A task has ended; whether that is news.
    fn tell(&mut self, task: u64) -> bool {
        let (place, bit) = ((task / 64) as usize, 1 << (task % 64));
        if place >= self.tasks.len() {
            self.tasks.resize(place + 1, 0);
        }
        let is_news = self.tasks[place] & bit == 0;
        self.tasks[place] |= bit;
        self.count += u64::from(is_news);
        is_news
    }
}

/// A task of a bag that has come to its end.
#[derive(Debug)]
pub struct Ended {
    /// Its number: tasks are numbered from 0 in the order in which they were pushed.
    pub task: u64,
    /// Its result, or why there is none.
    pub result: Result<Vec<u8>, CallError>,
}

impl Bag {
    /// Makes a bag of this program's operations, and starts its keeper.
    ///
    /// Fails where the program has no operations, no `mutirao` program is found or the keeper cannot start; nothing
    /// is left of the bag then.
    pub fn open(options: &Options) -> Result<Bag, Error> {
        if operation::table().is_none() {
            return Err(Error::NotInitialised);
        }
        let program = std::env::current_exe()
            .map_err(|source| Error::System { what: "find the file of this program", source })?;
        let mut arguments: Vec<OsString> = vec!["--program".into(), program.into()];
        for operation in operation::table().unwrap_or_default() {
            arguments.push(format!("--operation={}", operation.name).into());
        }
        for library in own_library().iter().chain(&options.libraries) {
            arguments.extend(["--library".into(), library.into()]);
        }
        let mut say = |name: &str, value: String| arguments.extend([name.into(), value.into()]);
        if let Some(name) = &options.name {
            say("--name", name.clone());
        }
        if let Some(most) = options.slots_max {
            say("--slots-max", most.to_string());
        }
        if let Some(limit) = options.limit {
            say("--limit-ms", limit.as_millis().max(1).to_string());
        }
        say("--retries", options.retries.to_string());
        if options.saves_state {
            arguments.push("--saves-state".into());
        }
        if options.lives_on {
            arguments.push("--lives-on".into());
        }
        Bag::start(&arguments)
    }

    /// Opens a bag that lives on, on the machine where it was made. All its tasks that have ended are told again, and more can be pushed.
    pub fn attach(number: u32) -> Result<Bag, Error> {
        Bag::start(&["--attach".into(), number.to_string().into()])
    }

    fn start(arguments: &[OsString]) -> Result<Bag, Error> {
        let Some(program) = mutirao_program() else {
            return Err(Error::Bag(
                "no `mutirao` program was found to keep it; name it in MUTIRAO_BIN".into(),
            ));
        };
        let (mine, its) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .map_err(Error::system("make a socket pair"))?;
        let mut command = Command::new(&program);
        // A group of its own keeps it alive while this program handles an interrupt from the terminal.
        command.arg("session").args(arguments).stdin(its).stdout(Stdio::null()).process_group(0);
        let starter = command.spawn().map_err(|source| Error::Embedded { program, source })?;
        // The other end is that process's alone.
        drop(command);
        let mut bag = Bag {
            stream: BufReader::new(UnixStream::from(mine)),
            starter: Some(starter),
            number: 0,
            tasks: 0,
            ended: Told::default(),
        };
        match bag.read()? {
            FromKeeper::Begun { bag: number, tasks } => {
                (bag.number, bag.tasks) = (number, tasks);
                Ok(bag)
            }
            FromKeeper::Failed(why) => Err(Error::Bag(why)),
            FromKeeper::Ended { .. } => Err(Error::Bag("its keeper did not say which bag it is".into())),
        }
    }

    /// The bag's number, by which `mutirao bag` knows it.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Tasks that have not been told to have ended.
    pub fn open_tasks(&self) -> u64 {
        self.tasks - self.ended.count
    }

    /// Pushes a task: a call of the operation. Its number. Waits while the keeper has enough to do.
    ///
    /// Fails for an argument that is too long, which changes nothing, and when the keeper has gone.
    pub fn push(&mut self, operation: &str, argument: &[u8]) -> Result<u64, Error> {
        let known = operation::table().unwrap_or_default().iter().any(|entry| entry.name == operation);
        if !known {
            return Err(Error::UnknownOperation(operation.to_owned()));
        }
        let bytes = argument.len() + argument.iter().filter(|byte| **byte > 127).count();
        if bytes > ARGUMENT_BYTES_MAX {
            return Err(Error::Bag(format!(
                "an argument of {} bytes is too long for a task, which can have {ARGUMENT_BYTES_MAX} (a byte beyond \
                 127 counts twice): pass the name of a file",
                argument.len()
            )));
        }
        self.say(&ToKeeper::Push { operation: operation.to_owned(), argument: argument.to_vec() })?;
        self.tasks += 1;
        Ok(self.tasks - 1)
    }

    /// Lets what has not ended not be done: it ends as cancelled.
    pub fn cancel(&mut self) -> Result<(), Error> {
        self.say(&ToKeeper::Cancel)
    }

    /// Waits for the next end; nothing when all that was pushed has ended.
    ///
    /// Ends are read as they are asked for: what is not asked for stays with the keeper, on its disk.
    pub fn next_end(&mut self) -> Result<Option<Ended>, Error> {
        let (task, end) = loop {
            if self.open_tasks() == 0 {
                return Ok(None);
            }
            match self.read()? {
                FromKeeper::Ended { task, .. } if task >= self.tasks => {
                    return Err(Error::Bag(format!(
                        "its keeper told the end of task {task}, which there is not"
                    )));
                }
                FromKeeper::Ended { task, end } if self.ended.tell(task) => break (task, end),
                FromKeeper::Ended { .. } => {}
                FromKeeper::Failed(why) => return Err(Error::Bag(why)),
                FromKeeper::Begun { .. } => return Err(Error::Bag("its keeper began twice".into())),
            }
        };
        let result = match end {
            TaskEnd::Done(bytes) => Ok(bytes),
            TaskEnd::Failed { kind, code, text, node } => {
                let node = (!node.is_empty()).then_some(node);
                Err(CallError { kind: kind_of(&kind, code), text, node })
            }
        };
        Ok(Some(Ended { task, result }))
    }

    fn say(&mut self, message: &ToKeeper) -> Result<(), Error> {
        let sent = self.stream.get_mut().write_all(&encode(message));
        sent.map_err(|error| self.lost(&error))
    }

    fn read(&mut self) -> Result<FromKeeper, Error> {
        let mut head = [0; 4];
        let read = self.stream.read_exact(&mut head);
        read.map_err(|error| self.lost(&error))?;
        let nonsense =
            |error: mutirao_wire::session::MessageError| Error::Bag(format!("its keeper sent {error}"));
        let mut body = vec![0; length(head).map_err(nonsense)?];
        let read = self.stream.read_exact(&mut body);
        read.map_err(|error| self.lost(&error))?;
        decode(&body).map_err(nonsense)
    }

    fn lost(&self, error: &std::io::Error) -> Error {
        let number = self.number;
        match number {
            0 => Error::Bag(format!("its keeper did not begin ({error})")),
            _ => Error::Bag(format!(
                "the keeper of bag {number} has ended ({error}); `mutirao bag ls` shows whether the bag is still there"
            )),
        }
    }
}

impl Drop for Bag {
    fn drop(&mut self) {
        let _ = self.stream.get_ref().shutdown(std::net::Shutdown::Both);
        // Its end is to be collected, which nobody needs to wait for.
        if let Some(mut child) = self.starter.take() {
            let thread = std::thread::Builder::new().name("mutirao-end".into());
            let _ = without_signals(|| thread.spawn(move || child.wait()));
        }
    }
}

/// The kind of a failure by the word that the keeper has for it.
fn kind_of(word: &str, code: u32) -> CallErrorKind {
    match word {
        "time-limit" => CallErrorKind::TimeLimit,
        "out-of-memory" => CallErrorKind::OutOfMemory,
        "worker-ended" | "set-aside" => CallErrorKind::WorkerEnded,
        "node-lost" => CallErrorKind::OutcomeUnknown,
        "cancelled" | "killed" => CallErrorKind::Cancelled,
        "not-started" => CallErrorKind::NoSlots,
        _ => CallErrorKind::Operation(code),
    }
}
