//! Runs one command after the other.

use crate::command::{Command, File, Home, Program, Variable};
use crate::ended::{Content, Ended, How, Kept};
use crate::place::Place;
use crate::search::Search;
use crate::site::{Placed, put_in_place};
use crate::sys;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal};
use std::ffi::{OsStr, OsString};
use std::fs::{self, OpenOptions};
use std::io::{self, PipeReader, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Component, Path, PathBuf};
use std::process::{self, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Output and files of one command that are taken along, bytes: what a call can return, less room for the head.
pub const OUTPUT_BYTES_MAX: u64 = 63 * 1024 * 1024;
/// Between the polite signal and the other, and for what a command left running to end by itself.
const GRACE: Duration = Duration::from_millis(300);
/// Files from this size on may be kept instead of travelling with the result.
pub const KEPT_BYTES_MIN: u64 = 1024 * 1024;
/// Bytes of a file that the kernel copies at once.
const COPY_BYTES: usize = 16 << 20;
/// The shell that every system has.
const SHELL: &str = "/bin/sh";
/// Variables of the worker that a command finds beside its user's own.
const KEPT_PREFIX: &[u8] = b"MUTIRAO_";

/// What becomes of processes that a command leaves running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaving {
    /// Each command has a process group, which is killed with it.
    Kills,
    /// Commands stay in the process group of the worker, whose end is the end of them all: whatever ends the
    /// worker, nothing is left. [`Ended::left_behind`] tells that the worker has to end. For a worker's only
    /// thread, with no children of its own.
    Tells,
}

/// What goes on beside a command while it runs.
pub trait Beside {
    /// The command is about to start; its files are in the playpen.
    fn begins(&mut self) -> io::Result<()>;

    /// Waits until `ended` can be read, but no longer than `patience`; whether it can.
    fn wait(&mut self, ended: BorrowedFd<'_>, patience: Duration) -> bool;

    /// The command has ended, with this exit code or by a signal; its files are still in the playpen.
    fn ends(&mut self, code: Option<u8>);
}

/// Keeps a file elsewhere, and says what its content is called there; or for people, why it cannot.
pub type Keep<'a> = dyn Fn(fs::File) -> Result<Content, String> + 'a;

/// What belongs to a command while it runs.
#[derive(Default)]
pub struct Around<'a> {
    /// The files that were to be fetched, opened, in their order. What the command does to its copies changes nothing
    /// for others. Where it is at home, none are needed.
    pub fetched: &'a [fs::File],
    /// What goes on beside it.
    pub beside: Option<&'a mut dyn Beside>,
    /// Keeps files of [`KEPT_BYTES_MIN`] or more that are to be taken out, if the command lets it.
    pub keep: Option<&'a Keep<'a>>,
}

/// Runs commands, one at a time.
#[derive(Debug)]
pub struct Runner {
    /// The playpen.
    directory: PathBuf,
    place: Place,
    leaving: Leaving,
    stdout: Output,
    stderr: Output,
    null: OwnedFd,
    search: Search,
    kept: Vec<(OsString, OsString)>,
    /// Times the system has killed for want of memory, as known.
    memory_kills: Option<u64>,
    /// Readable when a child has ended; only where commands share a group.
    child_ended: Option<PipeReader>,
}

/// Why a program could not be executed, in words.
fn why_not_started(program: &Path, error: &io::Error) -> String {
    let name = program.display();
    if error.kind() != io::ErrorKind::NotFound || !program.is_file() {
        return format!("{name}: {error}");
    }
    // The system says "not found" of the interpreter.
    let mut head = [0; 256];
    let read = fs::File::open(program).and_then(|mut file| file.read(&mut head)).unwrap_or(0);
    let line = head[..read].split(|byte| *byte == b'\n').next().unwrap_or_default();
    match line.strip_prefix(b"#!") {
        Some(interpreter) => {
            let interpreter = String::from_utf8_lossy(interpreter.trim_ascii()).into_owned();
            format!("{name}: its first line wants `{interpreter}`, which is not there")
        }
        None => format!("{name}: what is to load it is not there; it is built for another system"),
    }
}

/// A file without a name that commands write to.
#[derive(Debug)]
struct Output(fs::File);

/// A command that has been started.
struct Started {
    pid: u32,
    began: Instant,
}

impl Runner {
    /// Makes ready. `directory` is the playpen: empty, and kept so between commands.
    pub fn new(directory: impl Into<PathBuf>, place: Place, leaving: Leaving) -> io::Result<Runner> {
        let directory = directory.into();
        let child_ended = match leaving {
            Leaving::Kills => None,
            Leaving::Tells => {
                // What a command leaves behind becomes a child of this process.
                rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
                // The polite signal goes to the whole group, this process too. Unlike one that is ignored, one
                // that is handled is back to normal in a program that is executed.
                signal_hook::flag::register(libc::SIGTERM, Arc::new(AtomicBool::new(false)))?;
                let (reader, writer) = io::pipe()?;
                rustix::io::ioctl_fionbio(&reader, true)?;
                signal_hook::low_level::pipe::register(libc::SIGCHLD, OwnedFd::from(writer))?;
                Some(reader)
            }
        };
        let null = OpenOptions::new().read(true).open("/dev/null")?.into();
        let kept = std::env::vars_os().filter(|(name, _)| name.as_bytes().starts_with(KEPT_PREFIX)).collect();
        let (stdout, stderr) = (Output::make(&directory)?, Output::make(&directory)?);
        let memory_kills = memory_kills();
        Ok(Runner {
            directory,
            place,
            leaving,
            stdout,
            stderr,
            null,
            search: Search::default(),
            kept,
            memory_kills,
            child_ended,
        })
    }

    /// Runs a command to its end.
    pub fn run(&mut self, command: &Command) -> Ended {
        self.run_with(command, Around::default())
    }

    /// Whether a command runs in its directory of this machine, where its files lie already, and not in the playpen.
    pub fn is_at_home(&self, command: &Command) -> bool {
        command.home.as_ref().is_some_and(|home| self.place.reaches(path_of(&home.directory)))
    }

    /// Runs a command to its end, with what belongs to it.
    pub fn run_with(&mut self, command: &Command, around: Around<'_>) -> Ended {
        let Some(site) = &command.site else { return self.run_here(command, around) };
        // What lies in a shared directory is for whom its user wants.
        let umask = site.umask.map(|umask| rustix::process::umask(Mode::from_raw_mode(umask)));
        let ended = match site.enter(&self.place) {
            Ok(room) => {
                let playpen = std::mem::replace(&mut self.directory, room);
                let mut ended = self.run_here(command, around);
                let room = std::mem::replace(&mut self.directory, playpen);
                ended.left_behind |= fs::remove_dir_all(room).is_err();
                ended
            }
            Err((unseen, why)) => Ended { unseen: Some(unseen), ..Ended::not_started(why) },
        };
        umask.map(rustix::process::umask);
        ended
    }

    fn run_here(&mut self, command: &Command, around: Around<'_>) -> Ended {
        let Around { fetched, mut beside, keep } = around;
        let home = command.home.as_ref().filter(|home| self.place.reaches(path_of(&home.directory)));
        let started_us = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros() as u64;
        let prepared = self.prepare(command, fetched, home).and_then(|()| match &mut beside {
            Some(beside) => beside.begins().map_err(|error| format!("nothing can go on beside it: {error}")),
            None => Ok(()),
        });
        let mut ended = match prepared.and_then(|()| self.start(command, home)) {
            Ok(started) => self.finish(command, &started, &mut beside),
            Err(why) => Ended::not_started(why),
        };
        ended.started_us = started_us;
        let mut room = OUTPUT_BYTES_MAX;
        let outputs = [(&mut self.stdout, &mut ended.stdout), (&mut self.stderr, &mut ended.stderr)];
        for (output, bytes) in outputs {
            match output.take(&mut room) {
                Ok((taken, lost_bytes)) => {
                    *bytes = taken;
                    ended.lost_bytes += lost_bytes;
                }
                Err(error) => ended.how = How::NotStarted(format!("its output cannot be read: {error}")),
            }
        }
        if home.is_none() {
            self.take_files(command, &mut room, keep, &mut ended);
            // Nothing of one command is found by the next.
            ended.left_behind |= empty(&self.directory).is_err();
        }
        ended
    }

    /// Puts the command's files into the playpen.
    fn prepare(&self, command: &Command, fetched: &[fs::File], home: Option<&Home>) -> Result<(), String> {
        if home.is_some() {
            return Ok(());
        }
        for file in &command.bring {
            self.put(&file.name, file.executable, |mut made| made.write_all(&file.bytes))?;
        }
        if fetched.len() < command.fetch.len() {
            return Err("its files were not fetched".into());
        }
        for (file, from) in command.fetch.iter().zip(fetched) {
            self.put(&file.name, file.executable, |made| copy(from, &made))?;
        }
        let links = command.site.iter().flat_map(|site| &site.links);
        links.clone().try_for_each(|file| self.link(&file.name, path_of(&file.path)))
    }

    /// Makes a link in the playpen.
    fn link(&self, name: &str, path: &Path) -> Result<(), String> {
        let failed = |error: io::Error| format!("`{name}` cannot be linked to in its directory: {error}");
        let link = self.inside(name).map_err(failed)?;
        if let Some(above) = link.parent() {
            fs::create_dir_all(above).map_err(failed)?;
        }
        std::os::unix::fs::symlink(path, link).map_err(failed)
    }

    /// Makes a file in the playpen.
    fn put(
        &self,
        name: &str,
        executable: bool,
        fill: impl FnOnce(fs::File) -> io::Result<()>,
    ) -> Result<(), String> {
        let failed = |error: io::Error| format!("`{name}` cannot be put into its directory: {error}");
        let path = self.inside(name).map_err(failed)?;
        if let Some(above) = path.parent() {
            fs::create_dir_all(above).map_err(failed)?;
        }
        let mode = if executable { 0o700 } else { 0o600 };
        let open = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&path);
        open.and_then(fill).map_err(failed)
    }

    fn start(&mut self, command: &Command, home: Option<&Home>) -> Result<Started, String> {
        let directory = home.map_or(self.directory.as_path(), |home| path_of(&home.directory)).to_owned();
        let directory = directory.as_path();
        let system = |error: io::Error| format!("no process can be started: {error}");
        let stdin = self.stdin(&command.stdin).map_err(system)?;
        let mut process = self.executed(command, home, directory)?;
        let own = home.filter(|_| self.place == Place::Own);
        if let Some(home) = own {
            process.env_clear();
            process.envs(home.environment.iter());
            process.envs(self.kept.iter().map(|(name, value)| (name, value)));
        }
        process.envs(command.environment.iter().map(variable));
        process.current_dir(directory).stdin(stdin);
        process.stdout(self.stdout.stdio().map_err(system)?).stderr(self.stderr.stdio().map_err(system)?);
        if self.leaving == Leaving::Kills {
            process.process_group(0);
        }
        if !command.limits.is_none() {
            sys::limit(&mut process, command.limits);
        }
        let umask = home.and_then(|home| home.umask).map(Mode::from_raw_mode);
        let began = Instant::now();
        let before = umask.map(rustix::process::umask);
        let spawned = process.spawn();
        before.map(rustix::process::umask);
        match spawned {
            // It is waited for by its number: `Child` could not say what was used.
            Ok(child) => Ok(Started { pid: child.id(), began }),
            Err(error) if !directory.is_dir() => {
                Err(format!("its directory {} cannot be entered: {error}", directory.display()))
            }
            Err(error) => {
                self.search = Search::default();
                Err(why_not_started(Path::new(process.get_program()), &error))
            }
        }
    }

    fn executed(
        &mut self,
        command: &Command,
        home: Option<&Home>,
        directory: &Path,
    ) -> Result<process::Command, String> {
        match &command.program {
            Program::Shell { shell, text } => {
                let shell = path_of(shell);
                let shell = if shell.is_file() { shell } else { Path::new(SHELL) };
                let mut process = process::Command::new(shell);
                process.arg("-c").arg(OsStr::from_bytes(text));
                Ok(process)
            }
            Program::Words(words) => {
                let Some((name, arguments)) = words.split_first() else {
                    return Err("it has no words".into());
                };
                // Looked for here, since the standard library gives up its quickest way of starting a process
                // where it would have to look itself.
                let found = match name.contains(&b'/') {
                    true => directory.join(path_of(name)),
                    false => self.find(command, home, name)?,
                };
                let mut process = process::Command::new(found);
                process.arg0(OsStr::from_bytes(name));
                process.args(arguments.iter().map(|word| OsStr::from_bytes(word)));
                Ok(process)
            }
        }
    }

    /// The program `name` in the command's `PATH`.
    fn find(&mut self, command: &Command, home: Option<&Home>, name: &[u8]) -> Result<PathBuf, String> {
        let own =
            home.filter(|_| self.place == Place::Own).into_iter().flat_map(|home| home.environment.iter());
        let mut given = command.environment.iter().map(variable).chain(own);
        let path = given.find(|(name, _)| *name == "PATH").map(|(_, value)| value.to_owned());
        let path = path.or_else(|| std::env::var_os("PATH")).unwrap_or_default();
        self.search
            .find(&path, OsStr::from_bytes(name))
            .ok_or_else(|| format!("{}: no such program", String::from_utf8_lossy(name)))
    }

    fn stdin(&self, bytes: &[u8]) -> io::Result<Stdio> {
        if bytes.is_empty() {
            return Ok(self.null.try_clone()?.into());
        }
        let mut file = fs::File::from(rustix::fs::memfd_create("stdin", MemfdFlags::CLOEXEC)?);
        file.write_all(bytes)?;
        file.rewind()?;
        Ok(file.into())
    }

    /// Waits for the end of a command, or brings it about.
    fn finish(
        &mut self,
        command: &Command,
        started: &Started,
        beside: &mut Option<&mut dyn Beside>,
    ) -> Ended {
        let limit = command.time_limit_ms.map(Duration::from_millis);
        let limit = limit.or(beside.is_some().then_some(Duration::MAX));
        let in_time = limit.is_none_or(|limit| wait_for(started, limit, beside));
        if !in_time {
            self.signal(started.pid, Signal::TERM);
            if !wait_for(started, GRACE, beside) {
                self.signal(started.pid, Signal::KILL);
            }
        }
        let collected = match in_time || wait_for(started, GRACE, beside) {
            true => sys::wait(Some(started.pid)),
            // Where the kernel's filter lets a worker signal its group only, the end of the worker is left.
            false => Ok(None),
        };
        let wall_us = started.began.elapsed().as_micros() as u64;
        let left_behind = match self.leaving {
            Leaving::Kills => {
                self.signal(started.pid, Signal::KILL);
                false
            }
            Leaving::Tells => self.others_live(),
        };
        let mut ended = Ended { wall_us, left_behind, ..Ended::default() };
        match collected {
            Ok(Some(collected)) => {
                (ended.cpu_us, ended.peak_kib) = (collected.cpu_us, collected.peak_kib);
                if let Some(beside) = beside {
                    beside.ends(collected.status.code().map(|code| code as u8));
                }
                ended.how = self.judge(collected.status, in_time);
            }
            Ok(None) => {
                ended.how = How::TimeLimit;
                if let Some(beside) = beside {
                    beside.ends(None);
                }
            }
            Err(errno) => ended.how = How::NotStarted(format!("its end cannot be learnt: {errno}")),
        }
        ended
    }

    fn signal(&self, pid: u32, signal: Signal) {
        let Some(pid) = Pid::from_raw(pid.cast_signed()) else { return };
        // Without effect where there is nobody any more, or where the kernel does not let us.
        let _ = match (self.leaving, signal) {
            (Leaving::Kills, _) => rustix::process::kill_process_group(pid, signal),
            (Leaving::Tells, Signal::TERM) => rustix::process::kill_current_process_group(signal),
            (Leaving::Tells, _) => rustix::process::kill_process(pid, signal),
        };
    }

    /// Whether processes that the command left behind go on for longer than a moment.
    fn others_live(&self) -> bool {
        let until = Instant::now() + GRACE;
        loop {
            if let Some(mut child_ended) = self.child_ended.as_ref() {
                let _ = child_ended.read(&mut [0; 64]);
            }
            match sys::wait(None) {
                Ok(Some(_)) => continue,
                Err(_) => return false,
                Ok(None) => {}
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || !self.child_ended.as_ref().is_some_and(|fd| readable_within(fd, left)) {
                return true;
            }
        }
    }

    fn judge(&mut self, status: process::ExitStatus, in_time: bool) -> How {
        if !in_time {
            return How::TimeLimit;
        }
        match (status.code(), status.signal()) {
            (Some(code), _) => How::Code(code as u8),
            (None, Some(libc::SIGKILL)) if self.memory_ran_out() => How::OutOfMemory,
            (None, signal) => How::Signal(signal.unwrap_or_default() as u8),
        }
    }

    /// Whether the system has killed for want of memory since this was asked last.
    fn memory_ran_out(&mut self) -> bool {
        let before = std::mem::replace(&mut self.memory_kills, memory_kills());
        matches!((before, self.memory_kills), (Some(before), Some(now)) if now > before)
    }

    fn take_files(&self, command: &Command, room: &mut u64, keep: Option<&Keep<'_>>, ended: &mut Ended) {
        let keep = keep.filter(|_| ended.how.is_success());
        for name in &command.take {
            let Ok(path) = self.inside(name) else { continue };
            // A link would lead to what is no file of the command.
            let Ok(facts) = fs::symlink_metadata(&path) else { continue };
            if !facts.is_file() {
                continue;
            }
            if let Some((site, place)) =
                command.site.as_ref().and_then(|site| Some((site, site.place_of(name)?)))
            {
                if !ended.how.is_success() {
                    continue;
                }
                // Where it cannot be put from here, it travels.
                if let Ok(facts) = put_in_place(&path, place) {
                    let (bytes, modified_s) = (facts.len(), facts.mtime());
                    ended.placed.push(Placed { name: name.clone(), sender: site.sender, bytes, modified_s });
                    continue;
                }
            }
            let executable = facts.permissions().mode() & 0o100 != 0;
            if let Some(keep) = keep.filter(|_| facts.len() >= KEPT_BYTES_MIN) {
                let kept = fs::File::open(&path).map_err(|error| error.to_string()).and_then(keep);
                match kept {
                    Ok(content) => {
                        ended.kept.push(Kept { name: name.clone(), executable, content });
                        continue;
                    }
                    Err(why) => ended.lost_why = format!("`{name}`: {why}"),
                }
            }
            if facts.len() > *room {
                ended.lost_bytes += facts.len();
                continue;
            }
            let Ok(bytes) = fs::read(&path) else { continue };
            *room -= (bytes.len() as u64).min(*room);
            ended.files.push(File { name: name.clone(), executable, bytes });
        }
    }

    /// Where in the playpen a file of this name lies.
    fn inside(&self, name: &str) -> io::Result<PathBuf> {
        let down = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
        let path = Path::new(name);
        if path.file_name().is_none() || !path.components().all(down) {
            return Err(io::Error::other("only names that lead downwards from there are possible"));
        }
        Ok(self.directory.join(path))
    }
}

impl Output {
    fn make(directory: &Path) -> io::Result<Output> {
        // Appended to: what several processes write does not overwrite each other.
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::APPEND | OFlags::CLOEXEC;
        let made = rustix::fs::open(directory, flags, Mode::RUSR | Mode::WUSR);
        Ok(Output(match made {
            Ok(fd) => fd.into(),
            // Not every file system has files without names.
            Err(_) => rustix::fs::memfd_create("output", MemfdFlags::CLOEXEC)?.into(),
        }))
    }

    fn stdio(&self) -> io::Result<Stdio> {
        Ok(self.0.try_clone()?.into())
    }

    /// What was written, up to `room`, and how many bytes were more; then it is empty again.
    fn take(&mut self, room: &mut u64) -> io::Result<(Vec<u8>, u64)> {
        let there = self.0.metadata()?.len();
        if there == 0 {
            return Ok((Vec::new(), 0));
        }
        let taken = there.min(*room);
        let mut bytes = vec![0; taken as usize];
        self.0.read_exact_at(&mut bytes, 0)?;
        self.0.set_len(0)?;
        self.0.rewind()?;
        *room -= taken;
        Ok((bytes, there - taken))
    }
}

/// Whether the command ends within `patience`. Does not collect it.
fn wait_for(started: &Started, patience: Duration, beside: &mut Option<&mut dyn Beside>) -> bool {
    let pid = Pid::from_raw(started.pid.cast_signed()).ok_or(Errno::SRCH);
    let Ok(handle) = pid.and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty())) else {
        return true;
    };
    match beside {
        Some(beside) => beside.wait(handle.as_fd(), patience),
        None => readable_within(&handle, patience),
    }
}

fn path_of(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

fn variable((name, value): &Variable) -> (&OsStr, &OsStr) {
    (OsStr::from_bytes(name), OsStr::from_bytes(value))
}

fn readable_within(fd: &impl AsFd, patience: Duration) -> bool {
    let until = Instant::now().checked_add(patience);
    loop {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(&mut [PollFd::new(fd, PollFlags::IN)], left.as_ref()) {
            Err(Errno::INTR) => {}
            result => return result.is_ok_and(|ready| ready > 0),
        }
    }
}

/// Copies a whole file: by sharing its blocks where the file system can, else within the kernel.
fn copy(from: &fs::File, to: &fs::File) -> io::Result<()> {
    if rustix::fs::ioctl_ficlone(to, from).is_ok() {
        return Ok(());
    }
    // Not from where it stands: others may have read from the same open file.
    let mut offset = 0;
    loop {
        match rustix::fs::copy_file_range(from, Some(&mut offset), to, None, COPY_BYTES) {
            Ok(0) => return Ok(()),
            Ok(_) | Err(Errno::INTR) => {}
            // Between these two file systems the kernel cannot.
            Err(Errno::XDEV | Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL) if offset == 0 => break,
            Err(errno) => return Err(errno.into()),
        }
    }
    let mut from = from.try_clone()?;
    from.rewind()?;
    io::copy(&mut from, &mut { to }).map(drop)
}

/// Removes what is in a directory.
fn empty(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => fs::remove_dir_all(entry.path())?,
            false => fs::remove_file(entry.path())?,
        }
    }
    Ok(())
}

/// How often the system has killed a process for want of memory since it started, where it tells.
pub(crate) fn memory_kills() -> Option<u64> {
    let facts = fs::read_to_string("/proc/vmstat").ok()?;
    facts.lines().find_map(|line| line.strip_prefix("oom_kill "))?.trim().parse().ok()
}
