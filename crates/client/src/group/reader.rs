//! Reads records.

use super::Error;
use mutirao_group::record::{ENTRY_BYTES_MAX, Entry, Malformed, PREAMBLE_BYTES_MAX, Preamble};
use mutirao_wire::prefixed::{self, LENGTH_BYTES};
use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};

/// A record, read from its beginning.
#[derive(Debug)]
pub struct RecordReader {
    path: PathBuf,
    reader: BufReader<File>,
    /// Where the next entry begins, bytes from the beginning,
    at: u64,
    /// and where the record ends.
    all: u64,
}

impl RecordReader {
    /// Opens a record and reads what it begins with.
    pub fn open(path: &Path) -> Result<(RecordReader, Preamble), Error> {
        let failed = |reason: String| Error::Record { record: path.display().to_string(), reason };
        let file = File::open(path).map_err(|error| failed(error.to_string()))?;
        let all = file.metadata().map_err(|error| failed(error.to_string()))?.len();
        let mut reader = RecordReader { path: path.to_owned(), reader: BufReader::new(file), at: 0, all };
        let body = reader.part(PREAMBLE_BYTES_MAX)?.ok_or_else(|| failed(Malformed::NoRecord.to_string()))?;
        let preamble = Preamble::read(&body).map_err(|error| failed(error.to_string()))?;
        Ok((reader, preamble))
    }

    /// The next entry, and where it begins. `None` where the record ends: the last may have been cut off with its process.
    pub fn next_entry(&mut self) -> Result<Option<(u64, Entry)>, Error> {
        let at = self.at;
        let Some(body) = self.part(ENTRY_BYTES_MAX)? else { return Ok(None) };
        let entry = Entry::read(&body).map_err(|error| self.failed(&error))?;
        let Some(next) = self.at.checked_add(entry.body_bytes).filter(|next| *next <= self.all) else {
            return Ok(None);
        };
        // A file has no more bytes than this number can say.
        let skipped = self.reader.seek_relative(entry.body_bytes.cast_signed());
        skipped.map_err(|error| self.failed(&error))?;
        self.at = next;
        Ok(Some((at, entry)))
    }

    /// The body of the next part.
    fn part(&mut self, bytes_max: usize) -> Result<Option<Vec<u8>>, Error> {
        let mut head = [0; LENGTH_BYTES];
        if !self.fill(&mut head)? {
            return Ok(None);
        }
        let size = prefixed::length(head, bytes_max).map_err(|error| self.failed(&error))?;
        let mut body = vec![0; size];
        if !self.fill(&mut body)? {
            return Ok(None);
        }
        self.at += (LENGTH_BYTES + size) as u64;
        Ok(Some(body))
    }

    fn fill(&mut self, room: &mut [u8]) -> Result<bool, Error> {
        match self.reader.read_exact(room) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(self.failed(&error)),
        }
    }

    fn failed(&self, error: &dyn std::fmt::Display) -> Error {
        Error::Record { record: self.path.display().to_string(), reason: error.to_string() }
    }

    /// The file, to be read elsewhere.
    pub(super) fn into_file(self) -> File {
        self.reader.into_inner()
    }
}

/// The entry that begins at a place of a record, and where its bytes are.
pub(super) fn entry_at(file: &File, at: u64) -> io::Result<(Entry, u64)> {
    use std::os::unix::fs::FileExt;
    let mut head = [0; LENGTH_BYTES];
    file.read_exact_at(&mut head, at)?;
    let size = prefixed::length(head, ENTRY_BYTES_MAX).map_err(io::Error::other)?;
    let mut body = vec![0; size];
    file.read_exact_at(&mut body, at + LENGTH_BYTES as u64)?;
    let entry = Entry::read(&body).map_err(io::Error::other)?;
    Ok((entry, at + (LENGTH_BYTES + size) as u64))
}
