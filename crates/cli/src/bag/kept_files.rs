//! Large output files of tasks, which the nodes of the workers keep until their results count. They are fetched on a
//! thread of its own, and put on the disk under the attempt's name, or, where members are to have them, into a file that
//! has no name.

use super::DISK_RETRY;
use super::keeper::Event;
use super::outputs::{self, NotKept};
use super::work::Outcome;
use crate::threads;
use anyhow::{Context, Result};
use mutirao::raw::{KeptBlob, LeaseKey, Pool};
use mutirao_runner::Kept;
use mutirao_wire::BlobHash;
use mutirao_wire::plugin::Ticket;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

/// Where the files of an attempt go.
pub enum Goal {
    /// Each there.
    Places(Vec<(Kept, PathBuf)>),
    /// One behind the other into a file, which has this name at first only.
    Together(Vec<Kept>, PathBuf),
}

/// Files of one attempt to be fetched, and where they are put.
struct Job {
    attempt: u64,
    lease: LeaseKey,
    goal: Goal,
}

/// Attempts whose files are on their way.
pub struct KeptFiles {
    pool: Pool,
    events: Sender<Event>,
    /// There from the first file on.
    jobs: Option<Sender<Job>>,
    awaited: BTreeMap<u64, Outcome>,
    /// Of those that were called off meanwhile: what is kept for them, and where.
    unwanted: BTreeMap<u64, (LeaseKey, Vec<BlobHash>)>,
}

impl KeptFiles {
    pub fn new(pool: &Pool, events: &Sender<Event>) -> KeptFiles {
        KeptFiles {
            pool: pool.clone(),
            events: events.clone(),
            jobs: None,
            awaited: BTreeMap::new(),
            unwanted: BTreeMap::new(),
        }
    }

    /// Has the files of an attempt fetched; `Event::Fetched` follows.
    pub fn fetch(&mut self, attempt: u64, lease: LeaseKey, outcome: Outcome, goal: Goal) -> Result<()> {
        let jobs = match &self.jobs {
            Some(jobs) => jobs,
            None => {
                let (jobs, waiting) = channel();
                let (pool, events) = (self.pool.clone(), self.events.clone());
                threads::start("outputs", move || work(&pool, &waiting, &events))?;
                self.jobs.insert(jobs)
            }
        };
        jobs.send(Job { attempt, lease, goal }).ok().context("the thread that fetches outputs is gone")?;
        self.awaited.insert(attempt, outcome);
        Ok(())
    }

    /// The attempt that waited for this. `None` if it was called off meanwhile.
    pub fn came(&mut self, attempt: u64) -> Option<Outcome> {
        if let Some((lease, kept)) = self.unwanted.remove(&attempt) {
            self.forget(lease, kept);
            return None;
        }
        self.awaited.remove(&attempt)
    }

    /// An attempt, of this lease, is called off; whether it waited for files.
    pub fn call_off(&mut self, attempt: u64, lease: Option<&LeaseKey>) -> bool {
        let Some(outcome) = self.awaited.remove(&attempt) else { return false };
        if let Some(lease) = lease {
            // What is on its way just now is not taken from under it.
            self.unwanted.insert(attempt, (*lease, outcome.kept_hashes()));
        }
        true
    }

    /// Nobody needs any more what is kept for an attempt.
    pub fn forget(&self, lease: LeaseKey, kept: impl IntoIterator<Item = BlobHash>) {
        for hash in kept {
            // A pool that is closed keeps nothing anywhere.
            let _ = self.pool.drop_blob(lease, hash);
        }
    }
}

fn work(pool: &Pool, jobs: &Receiver<Job>, out: &Sender<Event>) {
    for Job { attempt, lease, goal } in jobs {
        let mut put = Vec::new();
        let result = match &goal {
            Goal::Places(files) => {
                let mut each = files.iter();
                let brought = each.try_for_each(|(kept, path)| {
                    put.push(path.clone());
                    let copy = |from: &mut File| outputs::copy(from, path, kept.executable);
                    bring(pool, lease, kept, path, copy, out)
                });
                brought.map(|()| None)
            }
            Goal::Together(files, path) => bring_together(pool, lease, files, path, out).map(Some),
        };
        if out.send(Event::Fetched { attempt, result, put }).is_err() {
            return;
        }
    }
}

/// Brings files one behind the other into one, of which nothing stays once it is closed.
fn bring_together(
    pool: &Pool,
    lease: LeaseKey,
    files: &[Kept],
    path: &Path,
    out: &Sender<Event>,
) -> Result<File, NotBrought> {
    let open = || {
        fs::create_dir_all(path.parent().unwrap_or(path))?;
        let file = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
        fs::remove_file(path).map(|()| file)
    };
    let mut together = open().map_err(|error| NotBrought::Lost(format!("{}: {error}", path.display())))?;
    let mut end = 0;
    for kept in files {
        let copy = |from: &mut File| {
            from.rewind()?;
            together.seek(SeekFrom::Start(end))?;
            io::copy(from, &mut together).map(drop)
        };
        bring(pool, lease, kept, path, copy, out)?;
        end += kept.content.bytes;
    }
    Ok(together)
}

/// Brings one file; waits for room, if there is none.
fn bring(
    pool: &Pool,
    lease: LeaseKey,
    kept: &Kept,
    path: &Path,
    mut copy: impl FnMut(&mut File) -> io::Result<()>,
    out: &Sender<Event>,
) -> Result<(), NotBrought> {
    let ticket = Ticket { word: kept.content.word, bytes: kept.content.bytes };
    let blob = KeptBlob { hash: BlobHash(kept.content.hash), ticket };
    let fetched = pool.fetch_blob(lease, blob);
    let mut file = fetched.map_err(|error| NotBrought::Lost(format!("`{}`: {error}", kept.name)))?;
    loop {
        let full = match copy(&mut file) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        match NotKept::of(path.to_owned(), full) {
            NotKept::Refused(path, error) => return Err(NotBrought::Refused(path, error)),
            NotKept::Missing(why) => return Err(NotBrought::Lost(why)),
            NotKept::Full(path) => {
                if out.send(Event::NoRoom(path)).is_err() {
                    return Err(NotBrought::Lost("the keeper is gone".into()));
                }
                thread::sleep(DISK_RETRY);
            }
        }
    }
}

/// Why a file that a node keeps is not here.
pub enum NotBrought {
    /// It did not come.
    Lost(String),
    /// It cannot be written, whatever is tried.
    Refused(PathBuf, io::Error),
}
