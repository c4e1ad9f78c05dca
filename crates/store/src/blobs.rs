//! The store: one directory, one process, files named by their content.
//!
//! ```text
//! DIRECTORY/lock       held while the store is open
//! DIRECTORY/tmp/N      being written; what is left of them at the next start is removed
//! DIRECTORY/ab/abcd…   a blob: 64 digits, read-only, its change time is that of its last use
//! ```
//! Files are the truth: the accounts are made anew from them at each start. The rename out of `tmp` is
//! the moment a blob comes to be, so a process killed at any time leaves whole blobs only. Nothing is
//! forced to the disk: after a loss of power a blob may be damaged, which [`BlobStore::verified_open`]
//! finds.

use crate::error::{Error, at};
use crate::lock::lock_exclusively;
use crate::table::{Room, Table, charge};
use crate::writer::BlobWriter;
use mutirao_wire::id::BlobHash;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Seek};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// A directory of blobs, shared by the threads of one process. Clones are the same store.
#[derive(Debug, Clone)]
pub struct BlobStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    directory: PathBuf,
    table: Mutex<Table>,
    serial: AtomicU64,
    /// Held for its lock.
    _lock: File,
}

/// How full a store is. Blobs count in whole blocks of 4 KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Number of blobs.
    pub blobs: usize,
    /// Bytes they take.
    pub bytes: u64,
    /// Bytes that cannot be evicted now: pinned, or being written.
    pub held_bytes: u64,
    /// The limit.
    pub limit_bytes: u64,
}

/// Keeps one blob from being evicted or removed, as long as it lives.
#[derive(Debug)]
#[must_use = "the blob is free again when this is dropped"]
pub struct Pin {
    store: BlobStore,
    hash: BlobHash,
    /// Which of the blob's lives here: found damaged, it may go and come back.
    born: u64,
}

impl Pin {
    /// Which blob.
    pub fn hash(&self) -> BlobHash {
        self.hash
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.store.table().unpin(&self.hash, self.born);
    }
}

impl BlobStore {
    /// Opens the store in `directory`, made if need be for this user alone, and brings it in order:
    /// unfinished files go, empty files that a loss of power left go, and so do the least recently used
    /// blobs while there is more than `limit_bytes`.
    pub fn open(directory: &Path, limit_bytes: u64) -> Result<BlobStore, Error> {
        let tmp = directory.join("tmp");
        DirBuilder::new().recursive(true).mode(0o700).create(&tmp).map_err(at("create", &tmp))?;
        let lock_path = directory.join("lock");
        let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&lock_path);
        let lock = lock.map_err(at("open", &lock_path))?;
        if !lock_exclusively(&lock).map_err(at("lock", &lock_path))? {
            return Err(Error::InUse(directory.to_owned()));
        }
        for entry in fs::read_dir(&tmp).map_err(at("list", &tmp))? {
            let path = entry.map_err(at("list", &tmp))?.path();
            fs::remove_file(&path).map_err(at("remove", &path))?;
        }
        let mut table = Table::new(limit_bytes);
        for (_, hash, bytes) in scan(directory)? {
            table.insert(hash, charge(bytes));
        }
        let inner = Inner {
            directory: directory.to_owned(),
            table: Mutex::new(table),
            serial: AtomicU64::new(0),
            _lock: lock,
        };
        let store = BlobStore { inner: Arc::new(inner) };
        let mut table = store.table();
        while table.is_over() {
            let Some(oldest) = table.oldest() else { break };
            store.erase(&mut table, &oldest)?;
        }
        drop(table);
        Ok(store)
    }

    /// Starts a blob. With `expected`, [`BlobWriter::commit`] accepts that content only.
    pub fn writer(&self, expected: Option<BlobHash>) -> Result<BlobWriter, Error> {
        let serial = self.inner.serial.fetch_add(1, Ordering::Relaxed);
        let path = self.inner.directory.join("tmp").join(serial.to_string());
        BlobWriter::create(self.clone(), path, expected)
    }

    /// Stores the content of `source` from its start, sharing its blocks where the file system can.
    ///
    /// What is stored is what was hashed, also if the file is changed meanwhile.
    pub fn import_file(&self, source: &File, executable: bool) -> Result<BlobHash, Error> {
        let mut writer = self.writer(None)?;
        writer.set_executable(executable);
        writer.fill(source)?;
        writer.commit()
    }

    /// The blob for reading. It stays readable through this file, whatever happens to the store.
    pub fn open_blob(&self, hash: BlobHash) -> Result<File, Error> {
        let mut table = self.table();
        if !table.touch(&hash) {
            return Err(Error::Missing(hash));
        }
        let path = self.path(&hash);
        let file = match File::open(&path) {
            // Somebody tidied up behind the store's back.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                table.remove(&hash);
                return Err(Error::Missing(hash));
            }
            other => other.map_err(at("open", &path))?,
        };
        // Keeps the order for the next start; no reason to fail.
        let _ = file.set_modified(SystemTime::now());
        Ok(file)
    }

    /// As [`BlobStore::open_blob`], after reading it all and comparing the hash. A blob that is damaged
    /// is removed, pinned or not, and [`Error::Corrupt`] returned.
    pub fn verified_open(&self, hash: BlobHash) -> Result<File, Error> {
        let path = self.path(&hash);
        let mut file = self.open_blob(hash)?;
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(file.by_ref()).map_err(at("read", &path))?;
        if BlobHash(*hasher.finalize().as_bytes()) == hash {
            file.rewind().map_err(at("read", &path))?;
            return Ok(file);
        }
        self.erase(&mut self.table(), &hash)?;
        Err(Error::Corrupt(hash))
    }

    /// Gives the blob the name `path` besides its own, without copying where the file system can. Pin
    /// it meanwhile, or its space is freed only when `path` is removed too.
    pub fn place(&self, hash: BlobHash, path: &Path) -> Result<(), Error> {
        let mut file = self.open_blob(hash)?;
        if fs::hard_link(self.path(&hash), path).is_ok() {
            return Ok(());
        }
        let mode = file.metadata().map_err(at("read", path))?.permissions().mode();
        let mut copy = || -> io::Result<()> {
            let mut copy = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
            io::copy(&mut file, &mut copy)?;
            copy.set_permissions(Permissions::from_mode(mode))
        };
        copy().map_err(at("copy a blob to", path))
    }

    /// Keeps the blob until the pin is dropped.
    pub fn pin(&self, hash: BlobHash) -> Result<Pin, Error> {
        match self.table().pin(&hash) {
            Some(born) => Ok(Pin { store: self.clone(), hash, born }),
            None => Err(Error::Missing(hash)),
        }
    }

    /// Removes a blob that is not in use.
    pub fn remove(&self, hash: BlobHash) -> Result<(), Error> {
        let mut table = self.table();
        if !table.contains(&hash) {
            return Err(Error::Missing(hash));
        }
        if table.is_pinned(&hash) {
            return Err(Error::Pinned(hash));
        }
        self.erase(&mut table, &hash)
    }

    /// Whether the blob is here. It may be evicted the next moment: pin what must stay.
    pub fn contains(&self, hash: BlobHash) -> bool {
        self.table().contains(&hash)
    }

    /// How full it is.
    pub fn usage(&self) -> Usage {
        let table = self.table();
        Usage {
            blobs: table.len(),
            bytes: table.stored(),
            held_bytes: table.held(),
            limit_bytes: table.limit(),
        }
    }

    /// Reserves `bytes` for a writer, evicting as needed.
    pub(crate) fn reserve(&self, bytes: u64) -> Result<(), Error> {
        let mut table = self.table();
        loop {
            match table.reserve(bytes) {
                Room::Made => return Ok(()),
                Room::Evict(oldest) => self.erase(&mut table, &oldest)?,
                Room::Never => {
                    return Err(Error::Full { needed: bytes, limit: table.limit(), pinned: table.held() });
                }
            }
        }
    }

    pub(crate) fn release(&self, bytes: u64) {
        self.table().release(bytes);
    }

    /// Frees disk space by one blob; false if none may go.
    pub(crate) fn evict_one(&self) -> Result<bool, Error> {
        let mut table = self.table();
        let Some(oldest) = table.oldest() else { return Ok(false) };
        self.erase(&mut table, &oldest).map(|()| true)
    }

    /// Makes the finished file at `from` the blob `hash`, with `reserved` for its charge. False if the
    /// blob is here already: file and reservation are still the caller's.
    pub(crate) fn adopt(
        &self,
        from: &Path,
        hash: BlobHash,
        executable: bool,
        reserved: u64,
    ) -> Result<bool, Error> {
        let path = self.path(&hash);
        let mut table = self.table();
        if table.touch(&hash) {
            if executable {
                fs::set_permissions(&path, Permissions::from_mode(0o555)).map_err(at("change", &path))?;
            }
            return Ok(false);
        }
        let shard = self.shard(&hash);
        match DirBuilder::new().mode(0o700).create(&shard) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(at("create", &shard)(error));
            }
            _ => {}
        }
        fs::rename(from, &path).map_err(at("store", &path))?;
        table.release(reserved);
        table.insert(hash, reserved);
        Ok(true)
    }

    fn erase(&self, table: &mut Table, hash: &BlobHash) -> Result<(), Error> {
        let path = self.path(hash);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at("remove", &path)(error)),
            _ => {
                table.remove(hash);
                Ok(())
            }
        }
    }

    fn shard(&self, hash: &BlobHash) -> PathBuf {
        self.inner.directory.join(format!("{:02x}", hash.0[0]))
    }

    fn path(&self, hash: &BlobHash) -> PathBuf {
        self.shard(hash).join(hash.to_string())
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // The table is whole between its own calls, also if a thread died in between.
        self.inner.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The blobs of a directory, least recently used first. Files with other names are left alone.
fn scan(directory: &Path) -> Result<Vec<(SystemTime, BlobHash, u64)>, Error> {
    let empty = BlobHash(*blake3::hash(b"").as_bytes());
    let mut found = Vec::new();
    for shard in (0..=u8::MAX).map(|first| directory.join(format!("{first:02x}"))) {
        let entries = match fs::read_dir(&shard) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other.map_err(at("list", &shard))?,
        };
        for entry in entries {
            let entry = entry.map_err(at("list", &shard))?;
            let Some(hash) = entry.file_name().to_str().and_then(|name| name.parse::<BlobHash>().ok()) else {
                continue;
            };
            let path = entry.path();
            let metadata = entry.metadata().map_err(at("read", &path))?;
            let named_right =
                shard.join(hash.to_string()) == path && shard.ends_with(format!("{:02x}", hash.0[0]));
            if !metadata.is_file() || !named_right {
                continue;
            }
            if metadata.len() == 0 && hash != empty {
                fs::remove_file(&path).map_err(at("remove", &path))?;
                continue;
            }
            found.push((metadata.modified().map_err(at("read", &path))?, hash, metadata.len()));
        }
    }
    found.sort();
    Ok(found)
}
