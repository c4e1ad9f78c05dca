//! Beside a command: has its state kept by the keeper of the bag, over a pipe, whenever the command has written it.
//!
//! The state is a file in the directory of the task. It was written when it was closed or moved to its name; what is
//! left half written by a command that was killed is none.

use crate::output::remark;
use mutirao::raw::{Line, LineEvent, PipeStream, SavingWay};
use mutirao_runner::Beside;
use mutirao_wire::checkpoint::{ASKS, Answer, KEPT};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat, open};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// State that nobody asks to be kept is kept at most so often.
const PAUSE: Duration = Duration::from_secs(1);
/// Processes that wait for an answer at once.
const CALLERS_MAX: usize = 64;
/// Longest name of a pipe for answers.
const NAME_BYTES_MAX: usize = 100;
/// Exit codes from here on stand for signals, as shells say them.
const SIGNAL_CODES: u8 = 128;

thread_local! {
    /// What the line brought while something else was heard there.
    static PUT_OFF: RefCell<VecDeque<LineEvent>> = const { RefCell::new(VecDeque::new()) };
}

/// To be heard with the next attempt that saves state.
pub fn put_off(event: LineEvent) {
    PUT_OFF.with_borrow_mut(|waiting| waiting.push_back(event));
}

/// One attempt.
pub struct Saving<'a> {
    way: &'a mut SavingWay,
    line: Option<Line>,
    call: u64,
    directory: PathBuf,
    name: String,
    bytes_max: usize,
    /// Tells what happens in the directory, if the system lets us know.
    watch: Option<OwnedFd>,
    asks: Option<File>,
    partial: Vec<u8>,
    /// A state was written that has not been read.
    changed: bool,
    /// It is being written.
    unfinished: bool,
    /// What is in the file is kept, unless it was written since.
    kept: bool,
    /// Who waits for what is being kept, and for what is to be kept next.
    served: Vec<File>,
    waiting: Vec<File>,
    not_before: Instant,
    /// What a command that failed has left, and is not known to be kept.
    left: Option<Vec<u8>>,
}

impl<'a> Saving<'a> {
    /// For the command of the call that runs, whose state has at most `bytes_max` bytes.
    pub fn new(way: &'a mut SavingWay, directory: PathBuf, name: String, bytes_max: usize) -> Self {
        Saving {
            way,
            line: mutirao::raw::line(),
            call: mutirao::raw::current_call(),
            directory,
            name,
            bytes_max,
            watch: None,
            asks: None,
            partial: Vec::new(),
            changed: false,
            unfinished: false,
            kept: false,
            served: Vec::new(),
            waiting: Vec::new(),
            not_before: Instant::now(),
            left: None,
        }
    }

    /// What the command has left, if it has failed: to go with the news of its end.
    pub fn into_left(self) -> Option<Vec<u8>> {
        self.left
    }

    fn go_on(&mut self) {
        self.hear_of_pipes();
        self.look(true);
        self.take_asks();
        self.offer();
        self.talk();
        // An answer may have come.
        self.offer();
        self.talk();
    }

    fn hear_of_pipes(&mut self) {
        while let Some(line) = &self.line {
            let next = match PUT_OFF.with_borrow_mut(VecDeque::pop_front) {
                Some(event) => Ok(Some(event)),
                None => line.next(Some(Duration::ZERO)),
            };
            match next {
                Ok(Some(event)) => self.way.take(event),
                Ok(None) => return,
                Err(error) => {
                    self.way.lost(error.to_string());
                    self.line = None;
                }
            }
        }
    }

    /// Learns what has happened to the file; whether it was written where it is. Once the command is dead, it need not
    /// be the command that has closed it.
    fn look(&mut self, is_alive: bool) -> bool {
        let Some(watch) = &self.watch else { return false };
        let mut written = false;
        let mut buffer = [MaybeUninit::<u8>::uninit(); 4096];
        let mut events = inotify::Reader::new(watch, &mut buffer);
        loop {
            match events.next() {
                Ok(event) if event.events().contains(ReadFlags::QUEUE_OVERFLOW) => self.changed = true,
                Ok(event) => {
                    if event.file_name().is_none_or(|name| name.to_bytes() != self.name.as_bytes()) {
                        continue;
                    }
                    if event.events().contains(ReadFlags::MOVED_TO) {
                        (self.changed, self.unfinished) = (true, false);
                        continue;
                    }
                    let closed = event.events().contains(ReadFlags::CLOSE_WRITE);
                    self.unfinished = if closed { self.unfinished && !is_alive } else { true };
                    self.changed |= closed;
                    written = true;
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return written,
            }
        }
    }

    /// Takes the names of those who want to know when the state is kept.
    fn take_asks(&mut self) {
        let Some(asks) = &mut self.asks else { return };
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = asks.read(&mut bytes) {
            self.partial.extend(&bytes[..count]);
        }
        let Some(end) = self.partial.iter().rposition(|byte| *byte == b'\n') else {
            self.partial.truncate(NAME_BYTES_MAX + 1);
            return;
        };
        let rest = self.partial.split_off(end + 1);
        let lines = std::mem::replace(&mut self.partial, rest);
        for name in String::from_utf8_lossy(&lines).lines() {
            // Only a file beside the state: a command names nothing else.
            if name.len() > NAME_BYTES_MAX || name.contains('/') || name.starts_with("..") {
                continue;
            }
            let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            // Who does not wait any more is not answered.
            let Ok(answer) = open(self.directory.join(name), flags, Mode::empty()) else { continue };
            self.asked(answer.into());
        }
    }

    fn asked(&mut self, mut caller: File) {
        let is_same = self.watch.is_some() && !self.changed && !self.unfinished;
        if is_same && self.kept && self.directory.join(&self.name).exists() {
            return tell(&mut caller, KEPT);
        }
        if self.served.len() + self.waiting.len() >= CALLERS_MAX {
            return tell(&mut caller, "too many wait for the same already");
        }
        match is_same && !self.way.saver.is_idle() {
            true => self.served.push(caller),
            false => self.waiting.push(caller),
        }
    }

    /// Reads the state and hands it on, if that is to be done now.
    fn offer(&mut self) {
        if let Some(why) = self.way.cut_off() {
            let why = format!("it cannot be sent from here: {why}");
            for mut caller in self.waiting.drain(..).chain(self.served.drain(..)) {
                tell(&mut caller, &why);
            }
            return;
        }
        let is_due = self.changed && !self.unfinished && self.not_before <= Instant::now();
        if !self.way.saver.is_idle() || self.waiting.is_empty() && !is_due {
            return;
        }
        (self.changed, self.kept) = (false, false);
        match self.read() {
            Ok(state) => {
                // It may have been written meanwhile: then what was read is neither the one nor the other.
                if self.look(true) && self.waiting.is_empty() {
                    return;
                }
                self.served.append(&mut self.waiting);
                self.not_before = Instant::now() + PAUSE;
                self.way.saver.save(self.call, state);
            }
            Err(why) => {
                if self.waiting.is_empty() {
                    remark!("mutirao: the state `{}` is not kept: {why}", self.name);
                }
                self.waiting.drain(..).for_each(|mut caller| tell(&mut caller, &why));
            }
        }
    }

    fn read(&self) -> Result<Vec<u8>, String> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let failed = |error: io::Error| format!("`{}` cannot be read: {error}", self.name);
        let opened = open(self.directory.join(&self.name), flags, Mode::empty());
        let file = opened.map(File::from).map_err(|errno| failed(errno.into()))?;
        let facts = file.metadata().map_err(failed)?;
        if !facts.is_file() {
            return Err(format!("`{}` is no file", self.name));
        }
        let mut state = Vec::new();
        // It may grow meanwhile.
        file.take(self.bytes_max as u64 + 1).read_to_end(&mut state).map_err(failed)?;
        if state.len() > self.bytes_max {
            let bytes = facts.len().max(state.len() as u64);
            return Err(format!(
                "it has {bytes} bytes, and at most {} are possible, with the small input files of the task",
                self.bytes_max
            ));
        }
        Ok(state)
    }

    /// Moves what is said and answered.
    fn talk(&mut self) {
        let answer = match self.way.talk() {
            Some(Answer::Kept) => {
                self.kept = true;
                KEPT.to_owned()
            }
            Some(Answer::Refused(why)) => why,
            _ => return,
        };
        self.served.drain(..).for_each(|mut caller| tell(&mut caller, &answer));
    }

    /// Sleeps until there is something to do, `ended` can be read, or the time is up; whether `ended` can be read.
    fn sleep(&mut self, ended: BorrowedFd<'_>, until: Option<Instant>) -> bool {
        let has_news = !self.way.saver.unwritten().is_empty();
        if self.way.pipe.as_mut().is_some_and(|pipe| pipe.arm(true, has_news)) {
            self.way.pipe.iter_mut().for_each(PipeStream::disarm);
            return false;
        }
        let can_save = self.way.saver.is_idle() && self.way.cut_off().is_none();
        let is_due = self.changed && !self.unfinished && can_save;
        let due = is_due.then_some(self.not_before);
        let until = [until, due].into_iter().flatten().min();
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        let line = self.line.as_ref().map(Line::fd);
        let mut fds = vec![PollFd::new(&ended, PollFlags::IN)];
        fds.extend(line.iter().map(|fd| PollFd::new(fd, PollFlags::IN)));
        fds.extend(self.watch.iter().map(|fd| PollFd::new(fd, PollFlags::IN)));
        fds.extend(self.asks.iter().map(|fd| PollFd::new(fd, PollFlags::IN)));
        fds.extend(self.way.pipe.iter().map(|pipe| PollFd::new(pipe, pipe.interest(true, has_news))));
        // A failure shows as such when it is looked.
        let woken = poll(&mut fds, left.as_ref()).is_ok_and(|count| count > 0);
        let has_ended = woken && !fds[0].revents().is_empty();
        drop(fds);
        self.way.pipe.iter_mut().for_each(PipeStream::disarm);
        has_ended
    }

    fn make_asks(&self) -> io::Result<File> {
        let path = self.directory.join(ASKS);
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
        // For writing too, so that it has no end when a writer goes.
        Ok(open(path, OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?.into())
    }

    fn make_watch(&self) -> io::Result<OwnedFd> {
        let watch = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        let flags = WatchFlags::MODIFY | WatchFlags::CLOSE_WRITE | WatchFlags::MOVED_TO;
        inotify::add_watch(&watch, &self.directory, flags)?;
        Ok(watch)
    }
}

impl Beside for Saving<'_> {
    fn begins(&mut self) -> io::Result<()> {
        self.asks = Some(self.make_asks()?);
        // What was brought is what is kept.
        self.kept = self.directory.join(&self.name).exists();
        self.watch = match self.make_watch() {
            Ok(watch) => Some(watch),
            Err(error) => {
                remark!(
                    "mutirao: state is kept only when that is asked for: no file can be watched: {error}"
                );
                None
            }
        };
        Ok(())
    }

    fn wait(&mut self, ended: BorrowedFd<'_>, patience: Duration) -> bool {
        let until = Instant::now().checked_add(patience);
        loop {
            self.go_on();
            if self.sleep(ended, until) {
                return true;
            }
            if until.is_some_and(|until| until <= Instant::now()) {
                return false;
            }
        }
    }

    fn ends(&mut self, code: Option<u8>) {
        let closed_itself = code.is_some_and(|code| code < SIGNAL_CODES);
        self.look(closed_itself);
        self.hear_of_pipes();
        self.talk();
        let unknown = self.way.saver.give_up();
        let is_known = self.kept && self.watch.is_some() && !self.changed && !self.unfinished;
        self.left = match code {
            Some(0) => None,
            _ if !is_known && (!self.unfinished || closed_itself) => {
                self.read().ok().or_else(|| unknown.map(|state| state.to_vec()))
            }
            _ => unknown.map(|state| state.to_vec()),
        };
    }
}

/// Who asked may be gone.
fn tell(caller: &mut File, what: &str) {
    let _ = caller.write_all(what.as_bytes());
}
