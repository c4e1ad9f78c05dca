//! What runs a process of a group inside its worker: starts it, carries its streams over the console, hands its
//! pipes on to it, and reports its end.

use super::terminal;
use anyhow::{Context, Result};
use mutirao::raw::{Failure, Gone, Line, LineEvent, OperationEntry, PipeEvent, PipeStream, Terminal};
use mutirao_group::console::{Console, PIECE_BYTES_MAX, Report, Saying, Stream, TEXT_BYTES_MAX};
use mutirao_group::master::End;
use mutirao_group::plan::{GROUP_ENV, ProcessPlan, RECORD_ENV, SPIN_ENV};
use mutirao_runner::{Ended, How, Live};
use mutirao_wire::frame::HEADER_BYTES;
use mutirao_wire::kind::Kind;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, FdFlags, fcntl_setfd, ioctl_fionbio};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// The operation's name.
pub const NAME: &str = "group_process";
/// The code of its failure when the process could not be started.
pub const NOT_STARTED: u32 = 1;

/// What is to be run: the argument of the operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// The executable, by its name among the plugin's files.
    pub executable: String,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Variables added to its environment.
    pub environment: Vec<(String, String)>,
    /// Where it runs, if not in the worker's own directory.
    pub directory: Option<String>,
    /// Files of the plugin that it finds in the worker's directory.
    pub files: Vec<String>,
    /// Whether somebody will write to its standard input.
    pub stdin: bool,
    /// Whether its standard streams are a terminal.
    pub terminal: bool,
    /// The pipe to the master.
    pub console: u64,
    /// What it is told.
    pub plan: ProcessPlan,
}

/// The operation, which ends only with its worker: the master may want the last words for as long as it lives.
pub fn operation() -> OperationEntry {
    let run = Box::new(|argument: &[u8], _: &mut Vec<u8>| {
        let failed = |text: String| Failure { code: NOT_STARTED, text };
        let start: Start = postcard::from_bytes(argument).map_err(|_| {
            failed("what is to be run cannot be read; is the master of another version?".into())
        })?;
        let line = mutirao::raw::line().ok_or_else(|| failed("its node gives workers no pipes".into()))?;
        let mut running = Running::start(&start, line).map_err(|error| failed(format!("{error:#}")))?;
        running.run().map_err(|error| failed(format!("{error:#}")))
    });
    OperationEntry { name: NAME.into(), repeatable: false, run }
}

struct Running {
    /// From the node,
    line: Line,
    /// what came while something else was waited for,
    early: VecDeque<LineEvent>,
    /// and on to the process, as long as it listens.
    onward: Option<Line>,
    unsent: VecDeque<LineEvent>,
    console_number: u64,
    console: Console,
    pipe: Option<PipeStream>,
    live: Live,
    /// Its terminal, which lasts as long as this process: the kernel ends what uses one that goes.
    terminal: Option<OwnedFd>,
    stdin: Option<File>,
    stdout: Option<File>,
    stderr: Option<File>,
    /// What it writes down of what it does.
    record: Option<File>,
    input: VecDeque<u8>,
    input_ends: bool,
    ended: Option<Ended>,
    reported: bool,
    last_words: VecDeque<u8>,
}

impl Running {
    fn start(start: &Start, line: Line) -> Result<Running> {
        let program = std::env::current_exe().context("cannot find the files of the group")?;
        let files = program.parent().context("the files of the group have no directory")?;
        bring(files, &start.files)?;
        let (mine, its) = UnixStream::pair().context("cannot make the socket of the process")?;
        // Only this process runs here, and it starts nothing else.
        fcntl_setfd(&its, FdFlags::empty()).context("cannot hand a socket on")?;
        let mut command = Command::new(files.join(&start.executable));
        command
            .args(&start.arguments)
            .envs(start.environment.iter().map(|(name, value)| (name, value)))
            .envs(start.plan.variables())
            .env(GROUP_ENV, its.as_raw_fd().to_string());
        let seat = mutirao::raw::spin_seat();
        if let Some((board, number)) = &seat {
            fcntl_setfd(board, FdFlags::empty()).context("cannot hand the spin board on")?;
            command.env(SPIN_ENV, format!("{}:{number}", board.as_raw_fd()));
        }
        let record = start.plan.record.map(|_| UnixStream::pair()).transpose();
        let record = record.context("cannot make the socket of a record")?;
        if let Some((_, its)) = &record {
            fcntl_setfd(its, FdFlags::empty()).context("cannot hand a socket on")?;
            command.env(RECORD_ENV, its.as_raw_fd().to_string());
        }
        let mut early = VecDeque::new();
        let terminal = if start.terminal {
            let Terminal { driver, user } = terminal::take(&line, &mut early)?;
            command.stdin(user.try_clone()?).stdout(user.try_clone()?).stderr(user);
            Some(driver)
        } else {
            command.stdin(if start.stdin { Stdio::piped() } else { Stdio::null() });
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
            None
        };
        if let Some(directory) = &start.directory {
            command.current_dir(directory);
        }
        let mut live = Live::start(&mut command).with_context(|| match &start.directory {
            Some(directory) if !Path::new(directory).is_dir() => {
                format!("`{}` cannot run in `{directory}`, which is no directory there", start.executable)
            }
            _ => format!("`{}` cannot be executed", start.executable),
        })?;
        drop((its, seat));
        let record = record.map(|(mine, _)| OwnedFd::from(mine));
        // With it goes this process's own use of the terminal.
        drop(command);
        let (stdin, stdout, stderr) = match &terminal {
            Some(driver) => (Some(driver.try_clone()?), Some(driver.try_clone()?), None),
            None => (
                live.stdin.take().map(OwnedFd::from),
                live.stdout.take().map(OwnedFd::from),
                live.stderr.take().map(OwnedFd::from),
            ),
        };
        for stream in [&stdin, &stdout, &stderr, &record].into_iter().flatten() {
            ioctl_fionbio(stream, true).context("cannot talk to the process")?;
        }
        let [stdin, stdout, stderr, record] =
            [stdin, stdout, stderr, record].map(|stream| stream.map(File::from));
        let mut frame = Vec::new();
        start.plan.put(&mut frame);
        let plan = LineEvent::Message { kind: Kind::ProcessPlan as u16, body: frame.split_off(HEADER_BYTES) };
        let mut console = Console::default();
        console.say(Saying::Runs { pid: live.pid() });
        Ok(Running {
            line,
            early,
            onward: Some(Line::over(mine.into())),
            unsent: VecDeque::from([plan]),
            console_number: start.console,
            console,
            pipe: None,
            live,
            terminal,
            stdin,
            stdout,
            stderr,
            record,
            input: VecDeque::new(),
            input_ends: false,
            ended: None,
            reported: false,
            last_words: VecDeque::new(),
        })
    }

    /// Goes on until the node closes the line.
    fn run(&mut self) -> Result<()> {
        loop {
            if !self.hear_of_pipes()? {
                return Ok(());
            }
            self.talk();
            self.carry()?;
            self.sleep()?;
        }
    }

    /// Takes what the node says; false when it says nothing more.
    fn hear_of_pipes(&mut self) -> Result<bool> {
        loop {
            let next = match self.early.pop_front() {
                Some(event) => Ok(Some(event)),
                None => self.line.next(Some(Duration::ZERO)),
            };
            let event = match next {
                Ok(Some(event)) => event,
                Ok(None) => return Ok(true),
                Err(mutirao::Error::Closed) => return Ok(false),
                Err(error) => return Err(error.into()),
            };
            match event {
                LineEvent::Pipe(event) if event.number() != self.console_number => {
                    self.unsent.push_back(LineEvent::Pipe(event));
                }
                LineEvent::Pipe(PipeEvent::Opened { way, .. }) => {
                    self.pipe = Some(PipeStream::open(way)?);
                    self.console.opened();
                }
                LineEvent::Pipe(_) => self.hang_up(),
                LineEvent::Message { .. }
                | LineEvent::Terminal(_)
                | LineEvent::Blob { .. }
                | LineEvent::Kept(_) => {}
            }
        }
    }

    fn hang_up(&mut self) {
        self.pipe = None;
        self.console.broken();
    }

    /// Moves what the console has to say and to hear.
    fn talk(&mut self) {
        let mut heard = Vec::new();
        if let Some(pipe) = &mut self.pipe {
            let mut bytes = Vec::new();
            let read = pipe.read(&mut bytes);
            let made_sense = self.console.hear(&bytes, &mut heard).is_ok();
            let written = write_all(&mut self.console, pipe);
            if read.is_err() || written.is_err() || !made_sense {
                self.hang_up();
            }
        }
        for saying in heard {
            match saying {
                Saying::Input(bytes) => self.input.extend(bytes),
                Saying::InputEnds => self.input_ends = true,
                Saying::Size(size) => {
                    self.terminal.iter().for_each(|terminal| terminal::resize(terminal, size))
                }
                // Where the system does not let us, the master ends the worker.
                Saying::End if self.ended.is_none() => drop(self.live.kill()),
                Saying::Runs { .. }
                | Saying::Wrote { .. }
                | Saying::Recorded(_)
                | Saying::Took(_)
                | Saying::Ended(_)
                | Saying::End => {}
            }
        }
    }

    /// Moves what the process reads and writes.
    fn carry(&mut self) -> Result<()> {
        let is_over = self.ended.is_some();
        let has_terminal = self.terminal.is_some();
        let out = |bytes| Saying::Wrote { stream: Stream::Out, bytes };
        let error = |bytes| Saying::Wrote { stream: Stream::Error, bytes };
        let mut quiet = true;
        if let Some(stdout) = &mut self.stdout {
            match take(stdout, (out, has_terminal), &mut self.console, &mut self.last_words, is_over) {
                Taken::All => self.stdout = None,
                taken => quiet &= taken == Taken::Nothing,
            }
        }
        if let Some(stderr) = &mut self.stderr {
            match take(stderr, (error, true), &mut self.console, &mut self.last_words, is_over) {
                Taken::All => self.stderr = None,
                taken => quiet &= taken == Taken::Nothing,
            }
        }
        if let Some(record) = &mut self.record {
            let say = (Saying::Recorded as Say, false);
            match take(record, say, &mut self.console, &mut self.last_words, is_over) {
                Taken::All => self.record = None,
                taken => quiet &= taken == Taken::Nothing,
            }
        }
        self.feed();
        self.send_on()?;
        match &self.ended {
            None => {
                let ended = self.live.ended();
                let mut fds = [PollFd::new(&ended, PollFlags::IN)];
                let has_ended = poll(&mut fds, Some(&Default::default())).is_ok_and(|count| count > 0);
                if has_ended {
                    self.ended = Some(self.live.wait());
                    mutirao::raw::clear_spin_seat();
                    // Once more: what it wrote at the end.
                    self.carry()?;
                }
            }
            Some(ended) if quiet && !self.reported && self.is_read() => {
                self.reported = true;
                self.onward = None;
                let report = report(ended, &self.last_words);
                self.console.say(Saying::Ended(report));
                self.talk();
            }
            Some(_) => {}
        }
        Ok(())
    }

    /// Whether nothing more comes of the process.
    fn is_read(&self) -> bool {
        self.stdout.is_none() && self.stderr.is_none() && self.record.is_none()
    }

    fn feed(&mut self) {
        let before = self.input.len();
        while let (Some(stdin), false) = (&mut self.stdin, self.input.is_empty()) {
            match stdin.write(self.input.as_slices().0) {
                Ok(count) => drop(self.input.drain(..count)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // It reads no more.
                Err(_) => self.stdin = None,
            }
        }
        if self.stdin.is_none() {
            self.input.clear();
        } else if self.input_ends && self.input.is_empty() {
            self.stdin = None;
        }
        let taken = before - self.input.len();
        if taken > 0 {
            self.console.say(Saying::Took(taken as u32));
        }
    }

    /// Tells the process of its pipes, as far as it listens.
    fn send_on(&mut self) -> Result<()> {
        while let (Some(onward), false) = (&self.onward, self.unsent.is_empty()) {
            let fd = onward.fd();
            let mut fds = [PollFd::new(&fd, PollFlags::OUT)];
            if !poll(&mut fds, Some(&Default::default())).is_ok_and(|count| count > 0) {
                return Ok(());
            }
            let Some(event) = self.unsent.pop_front() else { break };
            match onward.pass_on(event) {
                Ok(()) => {}
                // It is no program with channels, or is about to end.
                Err(mutirao::Error::Closed) => self.onward = None,
                Err(error) => return Err(error).context("cannot tell the process of its pipes"),
            }
        }
        if self.onward.is_none() {
            self.unsent.clear();
        }
        Ok(())
    }

    /// Waits until there is something to do.
    fn sleep(&mut self) -> Result<()> {
        let has_news = !self.console.unwritten().is_empty();
        if self.pipe.as_mut().is_some_and(|pipe| pipe.arm(true, has_news)) {
            self.disarm();
            return Ok(());
        }
        let line = self.line.fd();
        let ended = self.live.ended();
        let onward = self.onward.as_ref().filter(|_| !self.unsent.is_empty()).map(Line::fd);
        let has_room = self.console.has_room();
        let mut fds = vec![PollFd::new(&line, PollFlags::IN)];
        fds.extend(self.pipe.iter().map(|pipe| PollFd::new(pipe, pipe.interest(true, has_news))));
        if self.ended.is_none() {
            fds.push(PollFd::new(&ended, PollFlags::IN));
        }
        if has_room {
            fds.extend(self.stdout.iter().map(|fd| PollFd::new(fd, PollFlags::IN)));
            fds.extend(self.stderr.iter().map(|fd| PollFd::new(fd, PollFlags::IN)));
            fds.extend(self.record.iter().map(|fd| PollFd::new(fd, PollFlags::IN)));
        }
        if !self.input.is_empty() {
            fds.extend(self.stdin.iter().map(|fd| PollFd::new(fd, PollFlags::OUT)));
        }
        fds.extend(onward.iter().map(|fd| PollFd::new(fd, PollFlags::OUT)));
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno).context("cannot wait for the process"),
        }
        drop(fds);
        self.disarm();
        Ok(())
    }

    fn disarm(&mut self) {
        self.pipe.iter_mut().for_each(PipeStream::disarm);
    }
}

/// Writes what the console has to say, as far as the pipe takes it.
pub fn write_all(console: &mut Console, pipe: &mut PipeStream) -> Result<(), Gone> {
    while !console.unwritten().is_empty() {
        let written = pipe.write(console.unwritten())?;
        if written == 0 {
            return Ok(());
        }
        console.written(written);
    }
    Ok(())
}

/// Says what came over a stream.
type Say = fn(Vec<u8>) -> Saying;

/// What came of looking at a stream.
#[derive(PartialEq, Eq)]
enum Taken {
    /// Something; there may be more.
    Some,
    /// There is nothing at the moment.
    Nothing,
    /// Nothing can come any more.
    All,
}

/// Says what a process has written, as far as there is room; some streams are kept as its last words too. Once the
/// process `is_over`, what others that it started may still write is not waited for.
fn take(
    from: &mut impl Read,
    (say, is_kept): (Say, bool),
    console: &mut Console,
    last_words: &mut VecDeque<u8>,
    is_over: bool,
) -> Taken {
    while console.has_room() {
        let mut bytes = vec![0; PIECE_BYTES_MAX];
        match from.read(&mut bytes) {
            Ok(count) if count > 0 => {
                bytes.truncate(count);
                if is_kept {
                    // Its node keeps the last lines, for `mutirao logs`.
                    let _ = std::io::stderr().write_all(&bytes);
                    last_words.extend(&bytes);
                    last_words.drain(..last_words.len().saturating_sub(TEXT_BYTES_MAX));
                }
                console.say(say(bytes));
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock && !is_over => return Taken::Nothing,
            Ok(_) | Err(_) => return Taken::All,
        }
    }
    Taken::Some
}

fn report(ended: &Ended, last_words: &VecDeque<u8>) -> Report {
    let bytes: Vec<u8> = last_words.iter().copied().collect();
    let end = match &ended.how {
        How::Code(code) => End::Code(*code),
        How::Signal(signal) => End::Signal(*signal),
        How::OutOfMemory => End::OutOfMemory,
        How::TimeLimit => End::Ordered,
        How::NotStarted(why) => End::NotStarted(why.clone()),
    };
    Report {
        end,
        cpu_us: ended.cpu_us,
        peak_kib: ended.peak_kib,
        wall_us: ended.wall_us,
        last_words: String::from_utf8_lossy(&bytes).trim_end().to_owned(),
    }
}

/// Puts files of the plugin where the process looks for them.
fn bring(files: &Path, names: &[String]) -> Result<()> {
    for name in names {
        let failed = || format!("cannot bring `{name}` along");
        match std::os::unix::fs::symlink(files.join(name), name) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            made => made.with_context(failed)?,
        }
    }
    Ok(())
}
