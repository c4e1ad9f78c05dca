//! What a fetch stores: the chunks of one file after the other, written and hashed on helper threads.

use super::Job;
use crate::context::Context;
use mutirao_store::{BlobStore, BlobWriter, Error as StoreError, Pin};
use mutirao_wire::{BlobHash, PluginId};

/// Bytes that may wait to be written before the source counts as too fast for this disk.
const WAITING_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The files of one plugin on their way to the store.
#[derive(Debug, Default)]
pub struct Intake {
    /// Contents that are here.
    pins: Vec<Pin>,
    current: Option<Current>,
}

#[derive(Debug)]
struct Current {
    transfer: u32,
    hash: BlobHash,
    bytes_expected: u64,
    bytes_come: u64,
    waiting: Vec<u8>,
    whole: bool,
    /// `None` before the first write and while a helper thread writes.
    writer: Option<Box<BlobWriter>>,
    writing: bool,
}

/// What a helper thread did with the bytes it was given.
#[derive(Debug)]
pub struct Stored {
    /// For which plugin.
    pub plugin: PluginId,
    /// In which transfer.
    pub transfer: u32,
    result: Result<Progress, StoreError>,
}

#[derive(Debug)]
enum Progress {
    Written(Box<BlobWriter>),
    Whole(Pin),
}

/// How the current file is doing.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// More is to come.
    GoesOn,
    /// It is in the store.
    Whole,
    /// The source sent something else than it should.
    WrongContent,
    /// It cannot be stored; the text says why.
    CannotStore(String),
}

impl Intake {
    /// Keeps contents that are here already; returns which of `wanted` are not, each once.
    pub fn pin_known(&mut self, store: &BlobStore, wanted: impl Iterator<Item = BlobHash>) -> Vec<BlobHash> {
        let mut missing = Vec::new();
        for hash in wanted {
            match store.pin(hash) {
                Ok(pin) => self.pins.push(pin),
                Err(_) if missing.contains(&hash) => {}
                Err(_) => missing.push(hash),
            }
        }
        missing
    }

    /// From now on chunks of this file come.
    pub fn begin(&mut self, transfer: u32, hash: BlobHash, bytes_expected: u64) {
        self.current = Some(Current {
            transfer,
            hash,
            bytes_expected,
            bytes_come: 0,
            waiting: Vec::new(),
            whole: false,
            writer: None,
            writing: false,
        });
    }

    /// The transfer whose chunks are wanted.
    pub fn transfer(&self) -> Option<u32> {
        self.current.as_ref().map(|current| current.transfer)
    }

    /// Throws away what came of the current file.
    pub fn drop_current(&mut self) {
        self.current = None;
    }

    /// A chunk of the current file.
    pub fn chunk(
        &mut self,
        ctx: &mut Context,
        store: &BlobStore,
        plugin: PluginId,
        bytes: &[u8],
        last: bool,
    ) -> Outcome {
        let Some(current) = &mut self.current else { return Outcome::GoesOn };
        current.bytes_come += bytes.len() as u64;
        let fits = match last {
            true => current.bytes_come == current.bytes_expected,
            false => current.bytes_come < current.bytes_expected && !bytes.is_empty(),
        };
        if !fits || current.whole {
            return Outcome::WrongContent;
        }
        if current.waiting.len() + bytes.len() > WAITING_BYTES_MAX {
            return Outcome::CannotStore("it comes faster than this machine's disk takes it".into());
        }
        current.waiting.extend_from_slice(bytes);
        current.whole = last;
        current.write(ctx, store, plugin);
        Outcome::GoesOn
    }

    /// A helper thread is done.
    pub fn stored(&mut self, ctx: &mut Context, store: &BlobStore, stored: Stored) -> Outcome {
        let Some(current) = self.current.as_mut().filter(|current| current.transfer == stored.transfer)
        else {
            return Outcome::GoesOn;
        };
        current.writing = false;
        match stored.result {
            Ok(Progress::Written(writer)) => {
                current.writer = Some(writer);
                current.write(ctx, store, stored.plugin);
                Outcome::GoesOn
            }
            Ok(Progress::Whole(pin)) => {
                self.pins.push(pin);
                self.current = None;
                Outcome::Whole
            }
            Err(StoreError::WrongContent { .. }) => Outcome::WrongContent,
            Err(error) => Outcome::CannotStore(error.to_string()),
        }
    }
}

impl Current {
    fn write(&mut self, ctx: &mut Context, store: &BlobStore, plugin: PluginId) {
        if self.writing || (self.waiting.is_empty() && !self.whole) {
            return;
        }
        self.writing = true;
        let (transfer, hash, whole) = (self.transfer, self.hash, self.whole);
        let bytes = core::mem::take(&mut self.waiting);
        let (store, writer) = (store.clone(), self.writer.take());
        ctx.jobs.run(move || {
            let result = write(&store, writer, hash, &bytes, whole);
            Job::Stored(Stored { plugin, transfer, result }).into()
        });
    }
}

fn write(
    store: &BlobStore,
    writer: Option<Box<BlobWriter>>,
    hash: BlobHash,
    bytes: &[u8],
    whole: bool,
) -> Result<Progress, StoreError> {
    let mut writer = match writer {
        Some(writer) => writer,
        None => {
            let mut writer = store.writer(Some(hash))?;
            writer.set_executable(true);
            Box::new(writer)
        }
    };
    writer.write(bytes)?;
    if !whole {
        return Ok(Progress::Written(writer));
    }
    writer.commit()?;
    Ok(Progress::Whole(store.pin(hash)?))
}
