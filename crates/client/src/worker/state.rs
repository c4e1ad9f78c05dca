//! State that an operation saves, or begins with, over a pipe from the keeper of its bag.

use super::line;
use crate::pipe::Line;
use crate::pipe_stream::PipeStream;
use crate::saving::SavingWay;
use mutirao_wire::checkpoint::{Answer, Saver};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A keeper makes the pipe before it sends the call; whoever lets this pass is none that keeps state.
const PATIENCE: Duration = Duration::from_secs(10);

/// The call that runs.
static CURRENT: AtomicU64 = AtomicU64::new(0);
static WAY: LazyLock<Mutex<Way>> = LazyLock::new(Mutex::default);

/// A call begins.
pub(super) fn begins(call: u64) {
    CURRENT.store(call, Ordering::Relaxed);
}

/// In an operation: the number of the call that runs, in the pool of its caller.
pub fn current_call() -> u64 {
    CURRENT.load(Ordering::Relaxed)
}

/// Whether this is a worker.
pub(crate) fn is_worker() -> bool {
    line().is_some()
}

/// Has state kept.
pub(crate) fn save(state: &[u8]) -> Result<(), String> {
    match ask(|saver| saver.save(current_call(), state.to_vec()))? {
        Answer::Kept => Ok(()),
        Answer::Refused(why) => Err(why),
        Answer::State(_) => Err("its keeper answers something else".into()),
    }
}

/// What the call begins with.
pub(crate) fn saved() -> Result<Option<Vec<u8>>, String> {
    match ask(|saver| saver.want(current_call()))? {
        Answer::State(state) => Ok(state),
        Answer::Refused(why) => Err(why),
        Answer::Kept => Err("its keeper answers something else".into()),
    }
}

fn ask(say: impl FnOnce(&mut Saver)) -> Result<Answer, String> {
    // One after the other, whatever threads an operation has.
    let mut way = WAY.lock().unwrap_or_else(PoisonError::into_inner);
    let way = &mut *way;
    if way.line.is_none() {
        way.line = line();
    }
    say(&mut way.to_keeper.saver);
    let until = Instant::now() + PATIENCE;
    let mut was_open = false;
    loop {
        way.hear_of_pipes();
        was_open |= way.to_keeper.pipe.is_some();
        if let Some(answer) = way.to_keeper.talk() {
            return Ok(answer);
        }
        let why = match way.to_keeper.cut_off() {
            Some(why) => why.to_owned(),
            _ if !was_open && until <= Instant::now() => {
                "nobody takes it: is this a call of a bag whose tasks save state?".into()
            }
            _ => {
                way.sleep((!was_open).then_some(until));
                continue;
            }
        };
        way.to_keeper.saver.give_up();
        return Err(why);
    }
}

/// The way to the keeper, and the line on which the node tells of its pipe.
#[derive(Default)]
struct Way {
    line: Option<Line>,
    to_keeper: SavingWay,
}

impl Way {
    fn hear_of_pipes(&mut self) {
        while let Some(line) = &self.line {
            match line.next(Some(Duration::ZERO)) {
                Ok(Some(event)) => self.to_keeper.take(event),
                Ok(None) => return,
                Err(error) => {
                    self.to_keeper.lost(error.to_string());
                    self.line = None;
                }
            }
        }
    }

    /// Sleeps until there is something to do, or the time is up.
    fn sleep(&mut self, until: Option<Instant>) {
        let has_news = !self.to_keeper.saver.unwritten().is_empty();
        if !self.to_keeper.pipe.as_mut().is_some_and(|pipe| pipe.arm(true, has_news)) {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            let left = left.and_then(|left| Timespec::try_from(left).ok());
            let line = self.line.as_ref().map(Line::fd);
            let mut fds: Vec<PollFd<'_>> = line.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
            fds.extend(
                self.to_keeper.pipe.iter().map(|pipe| PollFd::new(pipe, pipe.interest(true, has_news))),
            );
            // A failure shows as such when it is looked.
            let _ = poll(&mut fds, left.as_ref());
        }
        self.to_keeper.pipe.iter_mut().for_each(PipeStream::disarm);
    }
}
