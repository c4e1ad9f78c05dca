//! Files written as a whole or not at all, and private ones kept private.

use crate::error::Error;
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Files of this crate have at most a few hundred bytes; longer ones are not read.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// For the private key of anybody.
pub(crate) const SECRET: u32 = 0o600;
/// For what everybody may see. The directories around it are private nevertheless.
pub(crate) const PUBLIC: u32 = 0o644;
const DIRECTORY: u32 = 0o700;

/// What to do if the file is there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Present {
    Replace,
    Refuse,
}

pub(crate) fn io_error(action: &'static str, path: &Path, source: io::Error) -> Error {
    Error::Io { action, path: path.into(), source }
}

/// Makes `path` and what is missing above it, for the user alone.
pub(crate) fn create_directory(path: &Path) -> Result<(), Error> {
    let made = DirBuilder::new().recursive(true).mode(DIRECTORY).create(path);
    made.map_err(|e| io_error("create", path, e))
}

/// Fails if others could replace what is in the directory.
pub(crate) fn check_directory(path: &Path) -> Result<(), Error> {
    let metadata = std::fs::metadata(path).map_err(|e| io_error("read", path, e))?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o022 == 0 {
        Ok(())
    } else {
        Err(Error::Exposed { path: path.into(), mode, wanted: DIRECTORY })
    }
}

/// Writes `content` so that a reader, and a machine that stops at any moment, sees all of it or what was before.
pub(crate) fn write(path: &Path, content: &[u8], mode: u32, present: Present) -> Result<(), Error> {
    let temporary = Temporary::create(path, mode)?;
    temporary.fill(content, mode)?;
    let placed = match present {
        Present::Replace => std::fs::rename(&temporary.path, path),
        // Unlike a rename, a link fails if the name is taken, on network file systems too.
        Present::Refuse => std::fs::hard_link(&temporary.path, path),
    };
    match placed {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            return Err(Error::Exists { path: path.into() });
        }
        other => other.map_err(|e| io_error("write", path, e))?,
    }
    let directory = parent(path);
    let synced = File::open(directory).and_then(|d| d.sync_all());
    synced.map_err(|e| io_error("write", directory, e))
}

/// The text of a file that is not secret.
pub(crate) fn read(path: &Path) -> Result<String, Error> {
    let file = File::open(path).map_err(|e| io_error("read", path, e))?;
    read_open(path, file)
}

/// The text of a secret file, provided that only its owner can read it.
pub(crate) fn read_secret(path: &Path) -> Result<Zeroizing<String>, Error> {
    let file = File::open(path).map_err(|e| io_error("read", path, e))?;
    let mode = file.metadata().map_err(|e| io_error("read", path, e))?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(Error::Exposed { path: path.into(), mode, wanted: SECRET });
    }
    read_open(path, file).map(Zeroizing::new)
}

fn read_open(path: &Path, file: File) -> Result<String, Error> {
    // All the room at once, so that no copy of a secret is left behind by a buffer that grew.
    let mut bytes = Zeroizing::new(Vec::with_capacity(FILE_BYTES_MAX as usize + 1));
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|e| io_error("read", path, e))?;
    let damaged = |reason: &str| Error::Damaged { path: path.into(), reason: reason.into() };
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(damaged("it is far too long"));
    }
    core::str::from_utf8(&bytes).map(str::to_owned).map_err(|_| damaged("it is not text"))
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A file beside its final place; removed unless renamed.
struct Temporary {
    path: PathBuf,
    file: File,
}

impl Temporary {
    fn create(beside: &Path, mode: u32) -> Result<Temporary, Error> {
        let suffix = u64::from_le_bytes(crate::key::random()?);
        let path = parent(beside).join(format!(".{suffix:016x}.tmp"));
        let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&path);
        let file = file.map_err(|e| io_error("write", &path, e))?;
        Ok(Temporary { path, file })
    }

    fn fill(&self, content: &[u8], mode: u32) -> Result<(), Error> {
        let filled = (&self.file)
            .write_all(content)
            .and_then(|()| self.file.set_permissions(Permissions::from_mode(mode)))
            .and_then(|()| self.file.sync_all());
        filled.map_err(|e| io_error("write", &self.path, e))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Gone already after a rename; else nothing more can be done about it.
        let _ = std::fs::remove_file(&self.path);
    }
}
