//! Large output files of tasks, which the nodes of the workers keep until they are fetched, on a thread of its own, and
//! put on the disk under the attempt's name.

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
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

/// Files of one attempt to be fetched, and where they are put.
struct Job {
    attempt: u64,
    lease: LeaseKey,
    files: Vec<(Kept, PathBuf)>,
}

/// Attempts whose files are on their way.
pub struct KeptFiles {
    pool: Pool,
    events: Sender<Event>,
    /// There from the first file on.
    jobs: Option<Sender<Job>>,
    awaited: BTreeMap<u64, Outcome>,
}

impl KeptFiles {
    pub fn new(pool: &Pool, events: &Sender<Event>) -> KeptFiles {
        KeptFiles { pool: pool.clone(), events: events.clone(), jobs: None, awaited: BTreeMap::new() }
    }

    /// Has the files of an attempt fetched; `Event::Fetched` follows.
    pub fn fetch(
        &mut self,
        attempt: u64,
        lease: LeaseKey,
        outcome: Outcome,
        files: Vec<(Kept, PathBuf)>,
    ) -> Result<()> {
        let jobs = match &self.jobs {
            Some(jobs) => jobs,
            None => {
                let (jobs, waiting) = channel();
                let (pool, events) = (self.pool.clone(), self.events.clone());
                threads::start("outputs", move || work(&pool, &waiting, &events))?;
                self.jobs.insert(jobs)
            }
        };
        jobs.send(Job { attempt, lease, files }).ok().context("the thread that fetches outputs is gone")?;
        self.awaited.insert(attempt, outcome);
        Ok(())
    }

    /// The attempt that waited for this. `None` if it was called off meanwhile.
    pub fn came(&mut self, attempt: u64) -> Option<Outcome> {
        self.awaited.remove(&attempt)
    }

    /// Nobody wants what is kept for an attempt.
    pub fn forget(&self, lease: LeaseKey, kept: &[Kept]) {
        for kept in kept {
            // A pool that is closed keeps nothing anywhere.
            let _ = self.pool.drop_blob(lease, BlobHash(kept.content.hash));
        }
    }
}

fn work(pool: &Pool, jobs: &Receiver<Job>, out: &Sender<Event>) {
    for Job { attempt, lease, files } in jobs {
        let mut put = Vec::new();
        let result = files.iter().try_for_each(|(kept, path)| {
            put.push(path.clone());
            bring(pool, lease, kept, path, out)
        });
        if out.send(Event::Fetched { attempt, result, put }).is_err() {
            return;
        }
    }
}

/// Brings one file; waits for room, if there is none.
fn bring(
    pool: &Pool,
    lease: LeaseKey,
    kept: &Kept,
    path: &Path,
    out: &Sender<Event>,
) -> Result<(), NotBrought> {
    let ticket = Ticket { word: kept.content.word, bytes: kept.content.bytes };
    let blob = KeptBlob { hash: BlobHash(kept.content.hash), ticket };
    let fetched = pool.fetch_blob(lease, blob);
    let mut file = fetched.map_err(|error| NotBrought::Lost(format!("`{}`: {error}", kept.name)))?;
    loop {
        let full = match outputs::copy(&mut file, path, kept.executable) {
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
