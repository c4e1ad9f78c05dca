//! Input files of tasks. Small ones travel with the call of an attempt. The others are offered to this machine's node,
//! and the nodes of the workers fetch them by their content, each once, from whichever node has them.

use super::DISK_RETRY;
use super::keeper::Event;
use super::outputs;
use super::shared::is_full;
use crate::output::remark;
use crate::threads;
use anyhow::{Context, Result, bail};
use mutirao::raw::Pool;
use mutirao_bag::Span;
use mutirao_runner::{Command, Fetched};
use mutirao_wire::BlobHash;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

/// Files up to this size travel with the call: to ask for them would take longer.
pub const INLINE_BYTES_MAX: u64 = 64 * 1024;

/// Where an input file is.
#[derive(Debug, Clone)]
pub struct InputFile {
    /// Its path, as the task names it.
    pub path: PathBuf,
    pub bytes: u64,
    pub executable: bool,
    /// When it was last changed, seconds since 1970; 0 where it lies in the file of outputs.
    pub modified_s: i64,
    /// With three members: where in the file of outputs it lies. Else it lies under its path.
    pub kept: Option<(Arc<File>, Span)>,
}

/// An input that is fetched by its content, and its name in the directory of the task.
#[derive(Debug)]
pub struct Large {
    pub found: InputFile,
    pub there: String,
}

impl InputFile {
    /// A file of this machine.
    pub fn here(path: &Path) -> Result<InputFile> {
        let facts = fs::metadata(path).with_context(|| format!("input {}", path.display()))?;
        let executable = facts.permissions().mode() & 0o100 != 0;
        let (bytes, modified_s) = (facts.len(), facts.mtime());
        Ok(InputFile { path: path.to_owned(), bytes, executable, modified_s, kept: None })
    }

    /// A file that lies there as it is known to, for those who do not see it there.
    pub fn seen(self) -> Result<InputFile> {
        let here = InputFile::here(&self.path)?;
        if (here.bytes, here.modified_s) != (self.bytes, self.modified_s) {
            bail!("input {} was changed since it was made or the bag was submitted", self.path.display());
        }
        Ok(here)
    }

    /// What is in it.
    pub fn read(&self) -> Result<Vec<u8>> {
        let read = match &self.kept {
            None => fs::read(&self.path),
            Some((file, span)) => {
                let mut bytes = vec![0; span.bytes as usize];
                file.read_exact_at(&mut bytes, span.offset).map(|()| bytes)
            }
        };
        read.with_context(|| format!("input {}", self.path.display()))
    }
}

/// A command whose inputs are offered.
pub struct Ready {
    /// To be sent there.
    pub worker: u64,
    /// The argument of its call.
    pub argument: Vec<u8>,
    /// What is offered for it.
    pub blobs: Vec<BlobHash>,
    /// How long these are in all.
    pub bytes: u64,
}

struct Job {
    attempt: u64,
    worker: u64,
    command: Command,
    large: Vec<Large>,
}

/// The inputs that are offered for attempts.
pub struct Inputs {
    pool: Pool,
    /// Of the bag.
    directory: PathBuf,
    events: Sender<Event>,
    /// Files are read on a thread of its own, from the first large one on.
    jobs: Option<Sender<Job>>,
    /// Attempts whose inputs are being offered.
    preparing: BTreeSet<u64>,
    /// What is offered for attempts under way.
    offered: BTreeMap<u64, Vec<BlobHash>>,
}

impl Inputs {
    pub fn new(pool: &Pool, directory: &Path, events: &Sender<Event>) -> Inputs {
        Inputs {
            pool: pool.clone(),
            directory: directory.to_owned(),
            events: events.clone(),
            jobs: None,
            preparing: BTreeSet::new(),
            offered: BTreeMap::new(),
        }
    }

    /// Offers what an attempt needs; `Event::Inputs` follows.
    pub fn offer(&mut self, attempt: u64, worker: u64, command: Command, large: Vec<Large>) -> Result<()> {
        let jobs = match &self.jobs {
            Some(jobs) => jobs,
            None => {
                let (jobs, waiting) = channel();
                let (pool, directory, events) =
                    (self.pool.clone(), self.directory.clone(), self.events.clone());
                let work = move || Offerer::new(pool, directory).work(&waiting, &events);
                threads::start("inputs", work)?;
                self.jobs.insert(jobs)
            }
        };
        jobs.send(Job { attempt, worker, command, large })
            .ok()
            .context("the thread that reads inputs is gone")?;
        self.preparing.insert(attempt);
        Ok(())
    }

    /// The inputs of an attempt are offered. `None` if it was called off meanwhile.
    pub fn offered(&mut self, attempt: u64, ready: Result<Ready>) -> Option<Result<Ready>> {
        let blobs = ready.as_ref().map(|ready| ready.blobs.clone()).unwrap_or_default();
        self.offered.insert(attempt, blobs);
        if self.preparing.remove(&attempt) {
            return Some(ready);
        }
        self.over(attempt);
        None
    }

    /// Calls an attempt off whose inputs are not offered yet; whether there was one.
    pub fn call_off(&mut self, attempt: u64) -> bool {
        self.preparing.remove(&attempt)
    }

    /// An attempt is over.
    pub fn over(&mut self, attempt: u64) {
        for hash in self.offered.remove(&attempt).unwrap_or_default() {
            // A pool that is closed offers nothing any more.
            let _ = self.pool.withdraw_blob(hash);
        }
    }
}

/// Reads files and offers them.
struct Offerer {
    pool: Pool,
    directory: PathBuf,
    /// What was in each file last.
    contents: HashMap<PathBuf, BlobHash>,
    /// Files out of the file of outputs, by their places there.
    unpacked: HashMap<u64, PathBuf>,
}

impl Offerer {
    fn new(pool: Pool, directory: PathBuf) -> Offerer {
        Offerer { pool, directory, contents: HashMap::new(), unpacked: HashMap::new() }
    }

    fn work(&mut self, jobs: &Receiver<Job>, out: &Sender<Event>) {
        for Job { attempt, worker, command, large } in jobs {
            let ready = loop {
                match self.offer_all(worker, command.clone(), &large) {
                    Err(error) if is_full(&error) => {
                        if out.send(Event::NoRoom(self.directory.clone())).is_err() {
                            return;
                        }
                        thread::sleep(DISK_RETRY);
                    }
                    ready => break ready,
                }
            };
            if out.send(Event::Inputs { attempt, ready }).is_err() {
                return;
            }
        }
    }

    fn offer_all(&mut self, worker: u64, mut command: Command, large: &[Large]) -> Result<Ready> {
        let (mut blobs, mut bytes) = (Vec::new(), 0);
        for Large { found, there } in large {
            match self.offer(found) {
                Ok(blob) => {
                    blobs.push(blob.hash);
                    bytes += blob.bytes;
                    let (name, executable) = (there.clone(), found.executable);
                    command.fetch.push(Fetched { name, executable, hash: blob.hash.0 });
                }
                Err(error) => {
                    for hash in blobs {
                        let _ = self.pool.withdraw_blob(hash);
                    }
                    return Err(error);
                }
            }
        }
        Ok(Ready { worker, argument: command.encode(), blobs, bytes })
    }

    fn offer(&mut self, found: &InputFile) -> Result<mutirao::raw::OfferedBlob> {
        let failed = || format!("input {}", found.path.display());
        let path = match &found.kept {
            None => found.path.clone(),
            Some((file, span)) => self.unpack(file, *span).with_context(failed)?,
        };
        let blob = self.pool.offer_blob(File::open(&path).with_context(failed)?).with_context(failed)?;
        let before = self.contents.insert(found.path.clone(), blob.hash);
        if found.kept.is_none() && before.is_some_and(|before| before != blob.hash) {
            remark!(
                "mutirao: input {} was changed meanwhile; tasks from now on get what is in it now",
                found.path.display()
            );
        }
        Ok(blob)
    }

    /// A file of its own with what lies there in the file of outputs; once in the life of a keeper.
    fn unpack(&mut self, from: &File, span: Span) -> io::Result<PathBuf> {
        if let Some(path) = self.unpacked.get(&span.offset) {
            return Ok(path.clone());
        }
        let directory = self.directory.join("came");
        fs::create_dir_all(&directory)?;
        let path = directory.join(format!("input-{}", span.offset));
        let unpacked = File::create(&path)?;
        if let Err(error) = outputs::copy_span(from, span, &unpacked) {
            // It takes room that others may need.
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        self.unpacked.insert(span.offset, path.clone());
        Ok(path)
    }
}
