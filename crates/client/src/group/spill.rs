//! Messages beyond what may be stored in memory, in a file that has no name and ends with the process.

use super::Error;
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// The file of one channel.
#[derive(Debug, Default)]
pub(super) struct Spill {
    file: Option<Arc<File>>,
    end: u64,
}

/// A message in it.
#[derive(Debug)]
pub(super) struct Spilled {
    file: Arc<File>,
    offset: u64,
    pub(super) length: u64,
}

impl Spill {
    /// Appends a message. When none is left in the file it begins anew.
    pub(super) fn put(&mut self, bytes: &[u8]) -> Result<Spilled, Error> {
        let failed = |source: io::Error| Error::System { what: "store a message on disk", source };
        let file = match &self.file {
            Some(file) => file.clone(),
            None => {
                let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
                let file = rustix::fs::open(".", flags, Mode::RUSR | Mode::WUSR)
                    .map_err(Error::system("make a file for stored messages in the working directory"))?;
                self.file.insert(Arc::new(File::from(file))).clone()
            }
        };
        // This one and that of the channel itself.
        if Arc::strong_count(&file) == 2 {
            file.set_len(0).map_err(failed)?;
            self.end = 0;
        }
        file.write_all_at(bytes, self.end).map_err(failed)?;
        let (offset, length) = (self.end, bytes.len() as u64);
        self.end += length;
        Ok(Spilled { file, offset, length })
    }
}

impl Spilled {
    /// Reads on from a place in the message; as much as there is room for.
    pub(super) fn read(&self, from: u64, into: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.length - from).unwrap_or(usize::MAX);
        let count = left.min(into.len());
        self.file.read_exact_at(&mut into[..count], self.offset + from)?;
        Ok(count)
    }
}
