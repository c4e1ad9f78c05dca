//! The records of a group's processes, as their launcher keeps them: a file each, in one directory.

use super::bring::{Luggage, name_of};
use crate::output::remark;
use anyhow::{Context, Result, ensure};
use mutirao_group::plan::ProcessPlan;
use mutirao_group::record::{Depth, Origin, Preamble};
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// What the names of records end with,
const RECORD: &str = ".record";
/// and those of what went to standard inputs.
const INPUT: &str = ".input";

/// Where the record of a process is, of one of its lives.
pub fn record_name(process: &str, life: u32) -> String {
    format!("{}{RECORD}", stem(process, life))
}

/// Where its standard input is, if somebody wrote to it.
pub fn input_name(process: &str, life: u32) -> String {
    format!("{}{INPUT}", stem(process, life))
}

/// The beginning of the names of its files.
pub fn stem(process: &str, life: u32) -> String {
    // Of a name that has them only what is no way out of the directory.
    let process = process.replace('/', "_");
    if life == 1 { process } else { format!("{process}.life-{life}") }
}

/// All records in a directory, by name.
pub fn records_in(directory: &Path) -> Result<Vec<PathBuf>> {
    let failed = || format!("cannot read the directory `{}`", directory.display());
    let mut records = Vec::new();
    for entry in fs::read_dir(directory).with_context(failed)? {
        let path = entry.with_context(failed)?.path();
        if path.to_string_lossy().ends_with(RECORD) {
            records.push(path);
        }
    }
    records.sort();
    Ok(records)
}

/// Writes records.
#[derive(Debug)]
pub struct Records {
    directory: PathBuf,
    depth: Depth,
    /// By rank; none where it could not be written any more.
    files: HashMap<u32, Files>,
    /// The group's files, by the names under which they travel.
    places: BTreeMap<String, PathBuf>,
    hashes: HashMap<PathBuf, String>,
    /// Goes with this.
    _temporary: Option<TempDir>,
}

#[derive(Debug)]
struct Files {
    process: String,
    life: u32,
    record: Option<File>,
    input: Option<File>,
}

impl Records {
    /// With messages, in this directory, which has no others.
    pub fn in_directory(directory: &Path, luggage: &Luggage) -> Result<Records> {
        let failed = || format!("cannot make the directory `{}`", directory.display());
        fs::create_dir_all(directory).with_context(failed)?;
        ensure!(
            records_in(directory)?.is_empty(),
            "`{}` holds the records of another run: name another directory, or remove it",
            directory.display()
        );
        let directory = fs::canonicalize(directory).with_context(failed)?;
        Ok(Records::new(directory, Depth::Messages, luggage, None))
    }

    /// Without messages, for as long as this is there.
    pub fn for_timeline(luggage: &Luggage) -> Result<Records> {
        let temporary = TempDir::new().context("cannot make a directory for the timeline")?;
        Ok(Records::new(temporary.path().to_owned(), Depth::Times, luggage, Some(temporary)))
    }

    fn new(directory: PathBuf, depth: Depth, luggage: &Luggage, temporary: Option<TempDir>) -> Records {
        Records {
            directory,
            depth,
            files: HashMap::new(),
            places: luggage.files().clone(),
            hashes: HashMap::new(),
            _temporary: temporary,
        }
    }

    /// How much is written down.
    pub fn depth(&self) -> Depth {
        self.depth
    }

    /// Where they are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A process begins one of its lives.
    pub fn begin(&mut self, plan: &ProcessPlan, mut origin: Origin) {
        let process = plan.process();
        for file in std::iter::once(&mut origin.executable).chain(&mut origin.files) {
            if let Some(place) = self.places.get(&name_of(file.as_ref())) {
                *file = place.to_string_lossy().into_owned();
            }
        }
        origin.hash = self.hash(Path::new(&origin.executable));
        let life = origin.life;
        let mut bytes = Vec::new();
        Preamble::new(plan.clone(), origin).put(&mut bytes);
        let path = self.directory.join(record_name(&process, life));
        let begun = File::create_new(path).and_then(|mut file| file.write_all(&bytes).map(|()| file));
        let record = begun.map_err(|error| tell(&process, &error)).ok();
        self.files.insert(plan.rank, Files { process, life, record, input: None });
    }

    /// A process has written down more.
    pub fn take(&mut self, rank: u32, bytes: &[u8]) {
        let Some(files) = self.files.get_mut(&rank) else { return };
        if let Some(Err(error)) = files.record.as_mut().map(|file| file.write_all(bytes)) {
            tell(&files.process, &error);
            files.record = None;
        }
    }

    /// This goes to its standard input.
    pub fn input(&mut self, rank: u32, bytes: &[u8]) {
        let Some(files) = self.files.get_mut(&rank).filter(|_| self.depth == Depth::Messages) else { return };
        let path = self.directory.join(input_name(&files.process, files.life));
        let file = match files.input.take() {
            Some(file) => Ok(file),
            None => File::options().create(true).append(true).open(path),
        };
        match file.and_then(|mut file| file.write_all(bytes).map(|()| file)) {
            Ok(file) => files.input = Some(file),
            Err(error) => tell(&files.process, &error),
        }
    }

    fn hash(&mut self, path: &Path) -> String {
        if let Some(hash) = self.hashes.get(path) {
            return hash.clone();
        }
        let hash = hash_of(path).unwrap_or_default();
        self.hashes.insert(path.to_owned(), hash.clone());
        hash
    }
}

/// The hash of a file, in hexadecimal.
pub fn hash_of(path: &Path) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path)?)?;
    Ok(hasher.finalize().to_hex().to_string())
}

fn tell(process: &str, error: &std::io::Error) {
    remark!("mutirao: the record of `{process}` ends here, and cannot be replayed any further: {error}");
}
