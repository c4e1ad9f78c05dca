//! State that a task of a bag saves, so that its next attempt need not begin anew.
//!
//! For a program that a bag runs as a command of a task with a `checkpoint`:
//!
//! ```no_run
//! # fn main() -> Result<(), mutirao::Error> {
//! let mut sum: u64 = match mutirao::checkpoint::saved()? {
//!     Some(state) => String::from_utf8_lossy(&state).parse().expect("it is what was saved below"),
//!     None => 0, // the first attempt
//! };
//! while sum < 1_000_000 {
//!     sum += 1;
//!     if sum % 1000 == 0 {
//!         mutirao::checkpoint::save(sum.to_string().as_bytes())?;
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! The state is the content of a file, named by `MUTIRAO_CHECKPOINT`, that a program can also read and write itself.
//!
//! For operations, too, in bags [whose tasks save state](crate::bag::Options::saves_state): there is no file, then.

use crate::Error;
use crate::worker::state;
use mutirao_wire::checkpoint::{ASKS, CHECKPOINT_ENV, KEPT, STATE_BYTES_MAX};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat, open};
use rustix::io::Errno;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// What this task has saved in an earlier attempt, or in this one; `None` if nothing was.
pub fn saved() -> Result<Option<Vec<u8>>, Error> {
    if is_operation() {
        return state::saved().map_err(Error::Checkpoint);
    }
    match fs::read(path()?) {
        Ok(state) => Ok(Some(state)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::Checkpoint(format!("the state cannot be read: {error}"))),
    }
}

/// Saves state. When this returns, it is kept: it outlives this process, and the machine, and the next attempt of the
/// task begins with it, or with that of an attempt for which the task has run longer. On an error the task may go on.
pub fn save(state: &[u8]) -> Result<(), Error> {
    if state.len() > STATE_BYTES_MAX {
        let (bytes, most) = (state.len(), STATE_BYTES_MAX >> 20);
        return Err(Error::Checkpoint(format!("it has {bytes} bytes, and at most {most} MiB are possible")));
    }
    if is_operation() {
        return state::save(state).map_err(Error::Checkpoint);
    }
    let path = path()?;
    let unfinished = beside(&path, "state");
    let written = fs::write(&unfinished, state).and_then(|()| fs::rename(&unfinished, &path));
    written.map_err(|error| {
        // The error to tell is the first one.
        let _ = fs::remove_file(&unfinished);
        Error::Checkpoint(format!("it cannot be written: {error}"))
    })?;
    keep()
}

/// For commands: has the file kept that holds the state, as it is now; see [`save`].
pub fn keep() -> Result<(), Error> {
    let path = path()?;
    let answer = beside(&path, "answer");
    let asked = ask(&path, &answer);
    // It lies in a directory that goes with the attempt.
    let _ = fs::remove_file(&answer);
    let answer = asked.map_err(|error| Error::Checkpoint(error.to_string()))?;
    match answer.as_str() {
        KEPT => Ok(()),
        "" => Err(Error::Checkpoint("the attempt is over".into())),
        why => Err(Error::Checkpoint(why.trim_end().to_owned())),
    }
}

/// Asks whoever runs this command, and waits for the answer.
fn ask(path: &Path, answer: &Path) -> std::io::Result<String> {
    mknodat(CWD, answer, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
    // Before it is known: who answers does not wait.
    let opened = open(answer, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?;
    let asks =
        open(path.with_file_name(ASKS), OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?;
    let mut line = answer.file_name().unwrap_or_default().as_encoded_bytes().to_vec();
    line.push(b'\n');
    // Written at once or not at all.
    fs::File::from(asks).write_all(&line)?;
    let mut answer = fs::File::from(opened);
    while let Err(errno) = poll(&mut [PollFd::new(&answer, PollFlags::IN)], None) {
        if errno != Errno::INTR {
            return Err(errno.into());
        }
    }
    rustix::io::ioctl_fionbio(&answer, false)?;
    let mut text = String::new();
    answer.read_to_string(&mut text)?;
    Ok(text)
}

fn is_operation() -> bool {
    std::env::var_os(CHECKPOINT_ENV).is_none() && state::is_worker()
}

fn path() -> Result<PathBuf, Error> {
    let path = std::env::var_os(CHECKPOINT_ENV).map(PathBuf::from);
    path.ok_or_else(|| {
        Error::Checkpoint(format!(
            "{CHECKPOINT_ENV} is not set; is this a task of a bag, with a `checkpoint` in its file?"
        ))
    })
}

/// A name of its own beside the state.
fn beside(path: &Path, what: &str) -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    path.with_file_name(format!(".mutirao-{what}-{}-{number}", std::process::id()))
}
