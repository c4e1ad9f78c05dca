//! What tasks have written: one file that grows only, and files that are put where they belong.

use super::work::{Outcome, of_attempts, output_paths};
use anyhow::{Context, Result};
use mutirao_bag::{Bag, Span, TaskView};
use mutirao_runner::{look, move_on};
use rustix::fs::{FallocateFlags, SeekFrom};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Copied at once.
const COPY_BYTES: usize = 256 * 1024;

/// The file of outputs.
#[derive(Debug)]
pub struct Outputs {
    file: Arc<File>,
    end: u64,
    dirty: bool,
}

impl Outputs {
    pub fn open(path: &Path) -> Result<Outputs> {
        let failed = || format!("cannot open {}", path.display());
        let opened =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
        let file = opened.with_context(failed)?;
        let end = file.metadata().with_context(failed)?.len();
        Ok(Outputs { file: Arc::new(file), end, dirty: false })
    }

    /// What is appended next replaces what is there, from so many bytes on.
    pub fn go_on_at(&mut self, end: u64) {
        self.end = end;
    }

    /// Writes what is known to belong there; appending goes on where it was.
    pub fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.dirty = true;
        self.file.write_all_at(bytes, offset)
    }

    /// Appends; it is on the disk after [`sync`](Outputs::sync).
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<Span> {
        let span = Span { offset: self.end, bytes: bytes.len() as u32 };
        if !bytes.is_empty() {
            self.file.write_all_at(bytes, self.end)?;
            self.end += bytes.len() as u64;
            self.dirty = true;
        }
        Ok(span)
    }

    pub fn sync(&mut self) -> io::Result<()> {
        if self.dirty {
            self.file.sync_data()?;
            self.dirty = false;
        }
        Ok(())
    }

    /// Gives the room back of what nobody reads any more, where the file system can.
    pub fn free(&self, offset: u64, bytes: u64) {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        if bytes > 0 {
            let _ = rustix::fs::fallocate(&self.file, flags, offset, bytes);
        }
    }

    /// The file, to be read elsewhere.
    pub fn file(&self) -> Arc<File> {
        self.file.clone()
    }

    /// How many bytes from there on, up to `end`, nobody reads any more.
    pub fn hole(&self, offset: u64, end: u64) -> u64 {
        let data = match rustix::fs::seek(&self.file, SeekFrom::Data(offset)) {
            Ok(data) => data,
            // Nothing but a hole follows.
            Err(Errno::NXIO) => end,
            Err(_) => offset,
        };
        data.min(end).saturating_sub(offset)
    }

    pub fn read(&self, span: Span) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; span.bytes as usize];
        self.file.read_exact_at(&mut bytes, span.offset)?;
        Ok(bytes)
    }
}

/// Why the files of an attempt are not there.
pub enum NotKept {
    /// The task left no file of this name.
    Missing(String),
    /// There is no room, which may pass.
    Full(PathBuf),
    /// They cannot be written, whatever is tried.
    Refused(PathBuf, io::Error),
}

impl NotKept {
    /// Of a file that could not be written.
    pub fn of(path: PathBuf, error: io::Error) -> NotKept {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => NotKept::Full(path),
            _ => NotKept::Refused(path, error),
        }
    }
}

/// Writes the files of an attempt under its own name, beside where they belong.
pub fn keep(
    bag: u32,
    owner: &Bag,
    task: &TaskView<'_>,
    attempt: u64,
    Outcome { files, fetched, placed, .. }: &Outcome,
) -> Result<(), NotKept> {
    for (there, path, waiting) in output_paths(bag, owner.settings(), task, (attempt, 0)) {
        if placed.iter().any(|placed| placed.name == there) {
            match look(&waiting).is_ok_and(|facts| facts.is_file()) {
                true => continue,
                false => return Err(NotKept::Missing(there)),
            }
        }
        if fetched.iter().any(|kept| kept.name == there) {
            continue;
        }
        let Some(file) = files.iter().find(|file| file.name == there) else {
            return Err(NotKept::Missing(there));
        };
        write(&waiting, &file.bytes, file.executable).map_err(|error| NotKept::of(path, error))?;
    }
    Ok(())
}

/// Writes a file to the disk.
pub fn write(path: &Path, bytes: &[u8], executable: bool) -> io::Result<()> {
    put(path, executable, |opened| opened.write_all_at(bytes, 0))
}

/// Copies a file to the disk.
pub fn copy(from: &mut File, path: &Path, executable: bool) -> io::Result<()> {
    put(path, executable, |mut opened| {
        if rustix::fs::ioctl_ficlone(opened, &*from).is_ok() {
            return Ok(());
        }
        from.rewind()?;
        io::copy(from, &mut opened).map(drop)
    })
}

/// Copies what lies there in the file of outputs to the disk.
pub fn write_span(outputs: &File, span: Span, path: &Path, executable: bool) -> io::Result<()> {
    put(path, executable, |opened| copy_span(outputs, span, opened))
}

/// Copies what lies there in the file of outputs.
pub fn copy_span(outputs: &File, span: Span, to: &File) -> io::Result<()> {
    let (mut buffer, mut done) = (vec![0; COPY_BYTES.min(span.bytes as usize)], 0);
    while done < u64::from(span.bytes) {
        let part = (u64::from(span.bytes) - done).min(COPY_BYTES as u64) as usize;
        outputs.read_exact_at(&mut buffer[..part], span.offset + done)?;
        to.write_all_at(&buffer[..part], done)?;
        done += part as u64;
    }
    Ok(())
}

/// Makes a file, or leaves none.
fn put(path: &Path, executable: bool, fill: impl FnOnce(&File) -> io::Result<()>) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let mut open = OpenOptions::new();
    let opened = open.write(true).create(true).truncate(true).open(path)?;
    let written = fill(&opened).and_then(|()| opened.sync_data());
    if written.is_err() {
        // It takes room that others may need.
        let _ = fs::remove_file(path);
    } else if executable {
        let mode = opened.metadata()?.permissions().mode();
        opened.set_permissions(fs::Permissions::from_mode(mode | 0o111 & mode >> 2))?;
    }
    written
}

/// Puts the files of a result that counts where they belong. May be done again.
pub fn settle(bag: u32, owner: &Bag, task: &TaskView<'_>, attempt: u64) -> Result<()> {
    for (_, path, waiting) in output_paths(bag, owner.settings(), task, (attempt, 0)) {
        move_there(&waiting, &path)?;
    }
    Ok(())
}

/// Puts a file where it belongs, if that was not done before.
pub fn move_there(waiting: &Path, path: &Path) -> Result<()> {
    move_on(waiting, path).with_context(|| format!("cannot put {} in its place", path.display()))
}

/// Removes what an attempt has left that nobody wants.
pub fn drop_files(bag: u32, owner: &Bag, task: &TaskView<'_>, (attempt, sender): (u64, u64)) {
    for (_, _, waiting) in output_paths(bag, owner.settings(), task, (attempt, sender)) {
        // It may never have been there.
        let _ = fs::remove_file(waiting);
    }
}

/// Removes what attempts that worked in place have left when the bag is over, whoever sent them.
pub fn sweep(bag: u32, owner: &Bag) {
    let mut names: BTreeMap<PathBuf, BTreeSet<String>> = BTreeMap::new();
    for task in owner.tasks().filter(|task| task.template.in_place) {
        for (_, path, _) in output_paths(bag, owner.settings(), &task, (0, 0)) {
            let (Some(above), Some(name)) = (path.parent(), path.file_name()) else { continue };
            names.entry(above.to_owned()).or_default().insert(name.to_string_lossy().into_owned());
        }
    }
    let waiting = format!(".{}", of_attempts(bag));
    for (directory, names) in names {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let of = name.to_str().and_then(|name| Some(name.strip_prefix('.')?.rsplit_once(&waiting)?.0));
            if of.is_some_and(|of| names.contains(of)) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}
