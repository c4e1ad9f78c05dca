//! A log of records that survives a crash at any byte.
//!
//! ```text
//! head     16 bytes, which name the format
//! record   length u32 | crc32c of length and content u32 | content      (little endian, content never empty)
//! ```
//!
//! A record counts once [`Journal::commit`] has returned. Whatever does not check ends the log: it is cut off
//! when the journal is opened, and kept beside it unless it is merely a record that was being written, which no other
//! follows.

use crate::error::{Error, at};
use crate::file::sync_directory;
use crate::lock::lock_exclusively;
use std::fs::{self, File, OpenOptions};
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Names the format.
const HEAD: [u8; 16] = *b"mutirao log 1\n\0\0";
/// Length and checksum.
const RECORD_HEAD_BYTES: usize = 8;
/// Largest content of a record, bytes. What is announced beyond it is damage.
pub const RECORD_BYTES_MAX: usize = 64 << 20;
/// Bytes behind damage in which a record is looked for, and bytes that are checksummed for it.
const SEARCHED_BYTES_MAX: u64 = 4 << 20;
const CHECKED_BYTES_MAX: u64 = 256 << 20;

/// A journal that is open for appending, by this process only.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    /// Where the next record goes: behind all that count.
    end: u64,
    /// Records appended and not committed, as they will lie in the file.
    unwritten: Vec<u8>,
    records: u64,
}

/// Reads single records of a journal.
#[derive(Debug)]
pub struct Records {
    file: File,
    path: PathBuf,
}

impl Records {
    /// Where the first record of every journal lies.
    pub const FIRST: u64 = HEAD.len() as u64;

    /// Where the record lies that follows one at `at` with so many bytes of content.
    pub fn after(at: u64, bytes: usize) -> u64 {
        at + (RECORD_HEAD_BYTES + bytes) as u64
    }

    /// The content of the record that lies there and is written.
    pub fn read(&self, at: u64) -> Result<Vec<u8>, Error> {
        let failed = crate::error::at("read", &self.path);
        let read = || {
            let mut head = [0; RECORD_HEAD_BYTES];
            self.file.read_exact_at(&mut head, at)?;
            let (size, sum) = head.split_at(4);
            let bytes = u32::from_le_bytes(size.try_into().expect("four of eight bytes")) as usize;
            let no_record = || std::io::Error::other("there is no record");
            if bytes > RECORD_BYTES_MAX {
                return Err(no_record());
            }
            let mut content = vec![0; bytes];
            self.file.read_exact_at(&mut content, at + RECORD_HEAD_BYTES as u64)?;
            if sum == checksum(size, &content).to_le_bytes() { Ok(content) } else { Err(no_record()) }
        };
        read().map_err(failed)
    }
}

/// What was found in a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Found {
    /// Records that count.
    pub records: u64,
    /// Bytes of the log up to the last of them.
    pub bytes: u64,
    /// Bytes behind it that are no records.
    pub damaged_bytes: u64,
    /// Whether those are merely a record that was being written when the writer ended.
    pub torn: bool,
}

impl Journal {
    /// Opens or begins the journal at `path`, hands each record to `each` in order, and cuts off what is no record.
    ///
    /// An error of `each` ends this, and nothing is changed.
    pub fn open<E: From<Error>>(
        path: &Path,
        each: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(Journal, Found), E> {
        let opened =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
        let file = opened.map_err(at("open", path))?;
        if !lock_exclusively(&file).map_err(at("lock", path))? {
            return Err(Error::InUse(path.to_owned()).into());
        }
        let length = file.metadata().map_err(at("read", path))?.len();
        let found = match length < HEAD.len() as u64 {
            true => begin(&file, path)?,
            false => scan(&file, path, each)?,
        };
        let mut journal = Journal {
            path: path.to_owned(),
            file,
            end: found.bytes,
            unwritten: Vec::new(),
            records: found.records,
        };
        if found.damaged_bytes > 0 {
            journal.cut(&found)?;
        }
        Ok((journal, found))
    }

    /// Appends a record, which counts once it is [committed](Journal::commit). Returns where it lies, for
    /// [`Records`], until the journal is [rewritten](Journal::rewrite).
    pub fn append(&mut self, content: &[u8]) -> u64 {
        assert!(
            !content.is_empty() && content.len() <= RECORD_BYTES_MAX,
            "a record of {} bytes",
            content.len()
        );
        let at = self.end + self.unwritten.len() as u64;
        put_record(&mut self.unwritten, content);
        self.records += 1;
        at
    }

    /// What reads records by where they lie.
    pub fn records_by_place(&self) -> Result<Records, Error> {
        let file = self.file.try_clone().map_err(at("open", &self.path))?;
        Ok(Records { file, path: self.path.clone() })
    }

    /// Writes what was appended, to the disk itself. After an error it is still to be written: try again.
    pub fn commit(&mut self) -> Result<(), Error> {
        self.write(true)
    }

    /// Writes what was appended without waiting for the disk: it outlives this process, not a loss of power.
    pub fn flush(&mut self) -> Result<(), Error> {
        self.write(false)
    }

    fn write(&mut self, sync: bool) -> Result<(), Error> {
        // Where the file ends may be beyond what counts, after a write that failed half-way: it is overwritten.
        self.file.write_all_at(&self.unwritten, self.end).map_err(at("write", &self.path))?;
        if sync {
            self.file.sync_data().map_err(at("write", &self.path))?;
        }
        self.end += self.unwritten.len() as u64;
        self.unwritten.clear();
        Ok(())
    }

    /// Replaces all records by these, which say the same in fewer words. Whoever crashes here finds the old ones
    /// or the new ones. Nothing may be appended and not committed.
    pub fn rewrite<R: AsRef<[u8]>>(&mut self, records: impl IntoIterator<Item = R>) -> Result<(), Error> {
        assert!(self.unwritten.is_empty(), "committed before it is rewritten");
        let path = beside(&self.path, "new");
        let written = self.write_new(&path, records);
        if written.is_err() {
            // The error to tell is the first one.
            let _ = fs::remove_file(&path);
        }
        let (file, end, records) = written?;
        if let Some(directory) = self.path.parent() {
            sync_directory(directory)?;
        }
        (self.file, self.end, self.records) = (file, end, records);
        Ok(())
    }

    /// Writes another log in the place of this one.
    fn write_new<R: AsRef<[u8]>>(
        &self,
        path: &Path,
        records: impl IntoIterator<Item = R>,
    ) -> Result<(File, u64, u64), Error> {
        let opened =
            OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(path);
        let file = opened.map_err(at("write", path))?;
        // Held before it has the name by which others look for it.
        if !lock_exclusively(&file).map_err(at("lock", path))? {
            return Err(Error::InUse(path.to_owned()));
        }
        let mut out = BufWriter::with_capacity(1 << 20, &file);
        let (mut end, mut count) = (HEAD.len() as u64, 0);
        out.write_all(&HEAD).map_err(at("write", path))?;
        let mut record = Vec::new();
        for content in records {
            record.clear();
            put_record(&mut record, content.as_ref());
            out.write_all(&record).map_err(at("write", path))?;
            end += record.len() as u64;
            count += 1;
        }
        out.flush().map_err(at("write", path))?;
        drop(out);
        file.sync_all().map_err(at("write", path))?;
        fs::rename(path, &self.path).map_err(at("replace", &self.path))?;
        Ok((file, end, count))
    }

    /// Records that were appended or found so far.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Bytes of the log, without what is not committed.
    pub fn bytes(&self) -> u64 {
        self.end
    }

    /// Cuts off what is no record.
    fn cut(&mut self, found: &Found) -> Result<(), Error> {
        if !found.torn {
            let path = beside(&self.path, "damaged");
            let mut copy = File::create(&path).map_err(at("write", &path))?;
            self.file.seek(SeekFrom::Start(found.bytes)).map_err(at("read", &self.path))?;
            std::io::copy(&mut self.file, &mut copy).map_err(at("write", &path))?;
            copy.sync_all().map_err(at("write", &path))?;
            if let Some(directory) = self.path.parent() {
                sync_directory(directory)?;
            }
        }
        self.file.set_len(found.bytes).map_err(at("cut", &self.path))?;
        self.file.sync_data().map_err(at("write", &self.path))
    }
}

/// Reads a journal that another process may be writing, and changes nothing.
pub fn read_journal<E: From<Error>>(
    path: &Path,
    each: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<Found, E> {
    let file = File::open(path).map_err(at("open", path))?;
    let length = file.metadata().map_err(at("read", path))?.len();
    if length < HEAD.len() as u64 {
        return Ok(Found { damaged_bytes: length, torn: true, ..Found::default() });
    }
    scan(&file, path, each)
}

/// Makes an empty journal of a file that was never one, or whose very head is torn.
fn begin(file: &File, path: &Path) -> Result<Found, Error> {
    file.set_len(0).map_err(at("cut", path))?;
    file.write_all_at(&HEAD, 0).map_err(at("write", path))?;
    file.sync_all().map_err(at("write", path))?;
    if let Some(directory) = path.parent() {
        sync_directory(directory)?;
    }
    Ok(Found { bytes: HEAD.len() as u64, ..Found::default() })
}

/// Hands out all records up to the first that does not check.
fn scan<E: From<Error>>(
    file: &File,
    path: &Path,
    mut each: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<Found, E> {
    let length = file.metadata().map_err(at("read", path))?.len();
    let mut input = BufReader::with_capacity(1 << 20, file);
    let mut head = HEAD;
    input.read_exact(&mut head).map_err(at("read", path))?;
    if head != HEAD {
        return Err(Error::NoJournal(path.to_owned()).into());
    }
    let mut found = Found { bytes: HEAD.len() as u64, ..Found::default() };
    let mut content = Vec::new();
    loop {
        let rest = length.saturating_sub(found.bytes);
        if rest == 0 {
            return Ok(found);
        }
        found.damaged_bytes = rest;
        let mut head = [0; RECORD_HEAD_BYTES];
        if rest < head.len() as u64 {
            found.torn = true;
            return Ok(found);
        }
        input.read_exact(&mut head).map_err(at("read", path))?;
        let (size, sum) = head.split_at(4);
        let bytes = u32::from_le_bytes(size.try_into().expect("four of eight bytes")) as usize;
        let whole = (RECORD_HEAD_BYTES + bytes) as u64;
        if bytes == 0 || bytes > RECORD_BYTES_MAX || whole > rest {
            // A length beyond the end is what a write leaves that did not come to its end, and nothing follows it.
            found.torn = bytes != 0
                && bytes <= RECORD_BYTES_MAX
                && !has_record(file, found.bytes, length).map_err(at("read", path))?;
            return Ok(found);
        }
        content.resize(bytes, 0);
        input.read_exact(&mut content).map_err(at("read", path))?;
        if sum != checksum(size, &content).to_le_bytes() {
            found.torn = whole == rest && !has_record(file, found.bytes, length).map_err(at("read", path))?;
            return Ok(found);
        }
        each(&content)?;
        found.records += 1;
        found.bytes += whole;
        found.damaged_bytes = 0;
    }
}

/// Whether there is a whole record anywhere behind `begin`. No more is looked at than costs little.
fn has_record(file: &File, begin: u64, end: u64) -> std::io::Result<bool> {
    let mut bytes = vec![0; (end - begin).min(SEARCHED_BYTES_MAX) as usize];
    file.read_exact_at(&mut bytes, begin)?;
    let mut checked = 0;
    for place in 1..bytes.len().saturating_sub(RECORD_HEAD_BYTES) {
        let (head, rest) = bytes[place..].split_at(RECORD_HEAD_BYTES);
        let (size, sum) = head.split_at(4);
        let length = u32::from_le_bytes(size.try_into().expect("four of eight bytes")) as usize;
        if length == 0 || length > rest.len() {
            continue;
        }
        checked += length as u64;
        if checked > CHECKED_BYTES_MAX {
            return Ok(false);
        }
        if sum == checksum(size, &rest[..length]).to_le_bytes() {
            return Ok(true);
        }
    }
    Ok(false)
}

fn put_record(out: &mut Vec<u8>, content: &[u8]) {
    let size = (content.len() as u32).to_le_bytes();
    out.extend_from_slice(&size);
    out.extend_from_slice(&checksum(&size, content).to_le_bytes());
    out.extend_from_slice(content);
}

fn checksum(size: &[u8], content: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(size), content)
}

fn beside(path: &Path, what: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(what);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn open(path: &Path) -> (Journal, Vec<Vec<u8>>, Found) {
        let mut records = Vec::new();
        let (journal, found) = Journal::open(path, |record| {
            records.push(record.to_vec());
            Ok::<(), Error>(())
        })
        .expect("opened");
        (journal, records, found)
    }

    fn sample() -> Vec<Vec<u8>> {
        vec![b"first".to_vec(), vec![0; 40], b"x".to_vec(), (0..=255).collect()]
    }

    fn written(path: &Path, records: &[Vec<u8>]) {
        let (mut journal, ..) = open(path);
        for record in records {
            journal.append(record);
        }
        journal.commit().expect("committed");
    }

    #[test]
    fn cut_at_every_byte_it_starts_again_with_all_records_before_the_cut() {
        let place = tempfile::tempdir().expect("a directory");
        let whole = place.path().join("whole");
        written(&whole, &sample());
        let bytes = fs::read(&whole).expect("read");
        let ends: Vec<usize> = sample()
            .iter()
            .scan(HEAD.len(), |end, record| {
                *end += RECORD_HEAD_BYTES + record.len();
                Some(*end)
            })
            .collect();
        for length in 0..=bytes.len() {
            let path = place.path().join("cut");
            fs::write(&path, &bytes[..length]).expect("written");
            let complete = ends.iter().filter(|end| **end <= length).count();
            let (mut journal, records, found) = open(&path);
            assert_eq!(records, sample()[..complete], "cut at {length}");
            assert!(found.damaged_bytes == 0 || found.torn, "cut at {length}: {found:?}");
            journal.append(b"and on");
            journal.commit().expect("committed");
            drop(journal);
            let (_, records, found) = open(&path);
            assert_eq!((records.len(), found.damaged_bytes), (complete + 1, 0), "cut at {length}");
            assert!(!beside(&path, "damaged").exists(), "a torn record is worth nothing");
        }
    }

    #[test]
    fn a_flipped_bit_ends_the_log_and_what_followed_is_kept_beside() {
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("log");
        written(&path, &sample());
        let mut bytes = fs::read(&path).expect("read");
        let second = HEAD.len() + RECORD_HEAD_BYTES + 5 + RECORD_HEAD_BYTES + 3;
        bytes[second] ^= 1;
        fs::write(&path, &bytes).expect("written");
        let (_, records, found) = open(&path);
        assert_eq!((records.len(), found.torn), (1, false));
        let kept = fs::read(beside(&path, "damaged")).expect("kept");
        assert_eq!(kept.len() as u64, found.damaged_bytes);
    }

    #[test]
    fn a_length_that_is_damaged_is_not_taken_for_a_record_that_was_being_written() {
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("log");
        for (bits, at) in [(0x01, 2), (0xff, 0), (0x10, 1)] {
            let _ = fs::remove_file(&path);
            written(&path, &sample());
            let mut bytes = fs::read(&path).expect("read");
            bytes[HEAD.len() + RECORD_HEAD_BYTES + 5 + at] ^= bits;
            fs::write(&path, &bytes).expect("written");
            let (_, records, found) = open(&path);
            assert_eq!((records.len(), found.torn), (1, false), "{bits} at {at}");
            assert_eq!(fs::read(beside(&path, "damaged")).expect("kept").len() as u64, found.damaged_bytes);
        }
    }

    #[test]
    fn a_log_has_one_writer_and_any_number_of_readers() {
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("log");
        let (mut journal, ..) = open(&path);
        journal.append(b"one");
        journal.commit().expect("committed");
        let second = Journal::open(&path, |_| Ok::<(), Error>(()));
        assert!(matches!(second, Err(Error::InUse(_))));
        let found = read_journal(&path, |_| Ok::<(), Error>(())).expect("read");
        assert_eq!((found.records, found.damaged_bytes), (1, 0));
        journal.rewrite([b"short"]).expect("rewritten");
        let second = Journal::open(&path, |_| Ok::<(), Error>(()));
        assert!(matches!(second, Err(Error::InUse(_))), "the new file is locked as well");
    }

    #[test]
    fn rewriting_replaces_all_and_appending_goes_on() {
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("log");
        written(&path, &sample());
        let (mut journal, ..) = open(&path);
        journal.rewrite(["all", "in all"]).expect("rewritten");
        journal.append(b"more");
        journal.commit().expect("committed");
        drop(journal);
        let (journal, records, _) = open(&path);
        assert_eq!(records, [b"all".to_vec(), b"in all".to_vec(), b"more".to_vec()]);
        assert_eq!(journal.records(), 3);
        assert_eq!(fs::read_dir(place.path()).expect("listed").count(), 1);
    }

    #[test]
    fn what_is_no_journal_is_left_as_it_is() {
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("letter");
        fs::write(&path, "Dear all, this is no journal.").expect("written");
        let opened = Journal::open(&path, |_| Ok::<(), Error>(()));
        assert!(matches!(opened, Err(Error::NoJournal(_))));
        assert_eq!(fs::read(&path).expect("read"), b"Dear all, this is no journal.");
    }

    #[test]
    fn a_full_disk_is_told_and_nothing_is_lost() {
        // Every write to it fails so.
        let full = OpenOptions::new().read(true).write(true).open("/dev/full").expect("opened");
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("log");
        let (mut journal, ..) = open(&path);
        journal.append(b"kept");
        let good = std::mem::replace(&mut journal.file, full);
        assert!(matches!(journal.commit(), Err(Error::DiskFull(_))));
        assert!(matches!(journal.commit(), Err(Error::DiskFull(_))));
        journal.file = good;
        journal.commit().expect("there is room again");
        drop(journal);
        assert_eq!(open(&path).1, [b"kept".to_vec()]);
    }

    #[test]
    fn records_are_read_by_where_they_lie() {
        let place = tempfile::tempdir().expect("a directory");
        let (mut journal, ..) = open(&place.path().join("log"));
        let mut next = Records::FIRST;
        let records = journal.records_by_place().expect("opened");
        for content in sample() {
            assert_eq!(journal.append(&content), next);
            journal.flush().expect("written");
            assert_eq!(records.read(next).expect("read"), content);
            next = Records::after(next, content.len());
        }
        assert!(records.read(Records::FIRST + 1).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_fail_or_hand_out_what_was_not_written(
            records in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..60), 0..8),
            place in any::<prop::sample::Index>(),
            bits in 1u8..,
        ) {
            let directory = tempfile::tempdir().expect("a directory");
            let path = directory.path().join("log");
            written(&path, &records);
            let mut bytes = fs::read(&path).expect("read");
            let place = place.index(bytes.len());
            bytes[place] ^= bits;
            fs::write(&path, &bytes).expect("written");
            let mut read = Vec::new();
            let found = Journal::open(&path, |record| {
                read.push(record.to_vec());
                Ok::<(), Error>(())
            });
            prop_assert!(found.is_ok() || place < HEAD.len());
            prop_assert!(records.starts_with(&read));
        }
    }
}
