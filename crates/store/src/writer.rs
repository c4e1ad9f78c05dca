//! A blob on its way in.

use crate::blobs::BlobStore;
use crate::error::{Error, at, is_disk_full};
use crate::table::charge;
use mutirao_wire::id::BlobHash;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Seek, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;

/// Files are copied in pieces of this size where they cannot share blocks.
const COPY_BYTES: usize = 256 * 1024;

/// Writes a blob piece by piece. Dropped before [`BlobWriter::commit`], it leaves nothing behind.
#[derive(Debug)]
pub struct BlobWriter {
    store: BlobStore,
    path: PathBuf,
    file: File,
    hasher: blake3::Hasher,
    expected: Option<BlobHash>,
    written: u64,
    /// What the store keeps free for it.
    reserved: u64,
    executable: bool,
    /// The file is the store's now.
    adopted: bool,
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        if !self.adopted {
            // The next start removes what cannot be removed now.
            let _ = fs::remove_file(&self.path);
            self.store.release(self.reserved);
        }
    }
}

impl BlobWriter {
    pub(crate) fn create(
        store: BlobStore,
        path: PathBuf,
        expected: Option<BlobHash>,
    ) -> Result<BlobWriter, Error> {
        store.reserve(charge(0))?;
        let opened = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path);
        let file = match opened {
            Ok(file) => file,
            Err(error) => {
                store.release(charge(0));
                return Err(at("create", &path)(error));
            }
        };
        Ok(BlobWriter {
            store,
            path,
            file,
            hasher: blake3::Hasher::new(),
            expected,
            written: 0,
            reserved: charge(0),
            executable: false,
            adopted: false,
        })
    }

    /// Whether the blob is a program.
    pub fn set_executable(&mut self, executable: bool) {
        self.executable = executable;
    }

    /// Appends `bytes`, evicting blobs not in use to make room for them.
    ///
    /// After an error the writer is of no further use.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.reserve(self.written + bytes.len() as u64)?;
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.file.write(rest) {
                Ok(0) => return Err(at("write", &self.path)(io::Error::from(io::ErrorKind::WriteZero))),
                Ok(count) => rest = &rest[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The disk may hold less than the limit says: what is cached gives way here too.
                Err(error) if is_disk_full(&error) && self.store.evict_one()? => {}
                Err(error) => return Err(at("write", &self.path)(error)),
            }
        }
        self.hasher.update(bytes);
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Bytes written so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Ends the blob and makes it part of the store, at once and whole. Of two writers of the same
    /// content the second changes nothing.
    pub fn commit(mut self) -> Result<BlobHash, Error> {
        let got = BlobHash(*self.hasher.finalize().as_bytes());
        if let Some(expected) = self.expected.filter(|expected| *expected != got) {
            return Err(Error::WrongContent { expected, got });
        }
        let mode = if self.executable { 0o555 } else { 0o444 };
        self.file.set_permissions(Permissions::from_mode(mode)).map_err(at("change", &self.path))?;
        if self.store.adopt(&self.path, got, self.executable, self.reserved)? {
            (self.reserved, self.adopted) = (0, true);
        }
        Ok(got)
    }

    /// Appends the whole of `source`, whose own position stays where it is.
    pub(crate) fn fill(&mut self, source: &File) -> Result<(), Error> {
        let bytes = source.metadata().map_err(at("read the file for", &self.path))?.len();
        self.reserve(bytes)?;
        if self.written == 0 && rustix::fs::ioctl_ficlone(&self.file, source).is_ok() {
            return self.hash_clone();
        }
        let mut buffer = vec![0; COPY_BYTES];
        let mut offset = 0;
        loop {
            match source.read_at(&mut buffer, offset) {
                Ok(0) => return Ok(()),
                Ok(count) => {
                    self.write(&buffer[..count])?;
                    offset += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(at("read the file for", &self.path)(error)),
            }
        }
    }

    /// Hashes what shares its blocks with the source: the clone, which nobody changes any more.
    fn hash_clone(&mut self) -> Result<(), Error> {
        self.written = self.file.metadata().map_err(at("read", &self.path))?.len();
        self.reserve(self.written)?;
        self.file.rewind().map_err(at("read", &self.path))?;
        self.hasher.update_reader(&self.file).map_err(at("read", &self.path))?;
        Ok(())
    }

    /// Keeps room for `bytes` in all.
    fn reserve(&mut self, bytes: u64) -> Result<(), Error> {
        let more = charge(bytes).saturating_sub(self.reserved);
        if more > 0 {
            self.store.reserve(more)?;
            self.reserved += more;
        }
        Ok(())
    }
}
