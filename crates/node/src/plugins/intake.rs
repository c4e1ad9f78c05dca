//! What a fetch stores: the chunks of one file after the other, written and hashed on helper threads.

use super::Job;
use crate::context::Context;
use mutirao_store::{BlobStore, BlobWriter, Error as StoreError, Pin};
use mutirao_wire::BlobHash;
use mutirao_wire::plugin::Item;

/// A source is asked for so many bytes at a time, and for the next when no more than that wait to be written: it may be
/// faster than this disk.
pub const PART_BYTES: u64 = 32 * 1024 * 1024;

/// The files of one plugin, or one blob, on their way to the store.
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
    /// Where what was asked for ends.
    part_end: u64,
    waiting: Vec<u8>,
    whole: bool,
    /// `None` before the first write and while a helper thread writes.
    writer: Option<Box<BlobWriter>>,
    writing: bool,
}

/// What a helper thread did with the bytes it was given.
#[derive(Debug)]
pub struct Stored {
    /// For what.
    pub item: Item,
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
    /// More is to be asked for, from here on.
    Next(u64),
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
            part_end: PART_BYTES.min(bytes_expected),
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
        item: Item,
        bytes: &[u8],
        last: bool,
    ) -> Outcome {
        let Some(current) = &mut self.current else { return Outcome::GoesOn };
        current.bytes_come += bytes.len() as u64;
        let fits = match last {
            true => current.bytes_come == current.part_end,
            false => current.bytes_come < current.part_end && !bytes.is_empty(),
        };
        if !fits || current.whole {
            return Outcome::WrongContent;
        }
        current.waiting.extend_from_slice(bytes);
        current.whole = last && current.bytes_come == current.bytes_expected;
        current.write(ctx, store, item);
        current.next()
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
                current.write(ctx, store, stored.item);
                current.next()
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
    /// Asks for the next part if this one has come, and not too much of it waits.
    fn next(&mut self) -> Outcome {
        let has_come = self.bytes_come == self.part_end && self.part_end < self.bytes_expected;
        if !has_come || self.waiting.len() as u64 > PART_BYTES {
            return Outcome::GoesOn;
        }
        let offset = self.part_end;
        self.part_end = (offset + PART_BYTES).min(self.bytes_expected);
        Outcome::Next(offset)
    }

    fn write(&mut self, ctx: &mut Context, store: &BlobStore, item: Item) {
        if self.writing || (self.waiting.is_empty() && !self.whole) {
            return;
        }
        self.writing = true;
        let (transfer, hash, whole) = (self.transfer, self.hash, self.whole);
        let bytes = core::mem::take(&mut self.waiting);
        let (store, writer) = (store.clone(), self.writer.take());
        ctx.jobs.run(move || {
            let result = write(&store, writer, hash, &bytes, whole);
            Job::Stored(Stored { item, transfer, result }).into()
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
