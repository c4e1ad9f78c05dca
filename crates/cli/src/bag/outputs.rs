//! What tasks have written: one file that grows only, and files that are put where they belong.

use super::work::output_paths;
use anyhow::{Context, Result};
use mutirao_bag::{Bag, Span, TaskView};
use mutirao_runner::File as TaskFile;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The file of outputs.
#[derive(Debug)]
pub struct Outputs {
    file: File,
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
        Ok(Outputs { file, end, dirty: false })
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

/// Writes the files of an attempt under its own name, beside where they belong.
pub fn keep(
    bag: u32,
    owner: &Bag,
    task: &TaskView<'_>,
    attempt: u64,
    files: &[TaskFile],
) -> Result<(), NotKept> {
    for (there, path, waiting) in output_paths(bag, owner.settings(), task, attempt) {
        let Some(file) = files.iter().find(|file| file.name == there) else {
            return Err(NotKept::Missing(there));
        };
        write(&waiting, &file.bytes, file.executable).map_err(|error| match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => NotKept::Full(path),
            _ => NotKept::Refused(path, error),
        })?;
    }
    Ok(())
}

/// Writes a file to the disk.
pub fn write(path: &Path, bytes: &[u8], executable: bool) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let mut open = OpenOptions::new();
    let opened = open.write(true).create(true).truncate(true).open(path)?;
    let written = opened.write_all_at(bytes, 0).and_then(|()| opened.sync_data());
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
    for (_, path, waiting) in output_paths(bag, owner.settings(), task, attempt) {
        match fs::rename(&waiting, &path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot put {} in its place", path.display()));
            }
            // It was done before.
            _ => {}
        }
    }
    Ok(())
}

/// Removes what an attempt has left that nobody wants.
pub fn drop_files(bag: u32, owner: &Bag, task: &TaskView<'_>, attempt: u64) {
    for (_, _, waiting) in output_paths(bag, owner.settings(), task, attempt) {
        // It may never have been there.
        let _ = fs::remove_file(waiting);
    }
}
