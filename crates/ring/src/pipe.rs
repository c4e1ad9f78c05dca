use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, Release, SeqCst};

use crate::memory::PipeWords;
use crate::shm::Shared;
use crate::{Error, Ringer, Wakeable};

// Positions count bytes since the ring was made. They never wrap: 2^64 bytes take centuries.
//
// No wake-up is lost: the side that goes to sleep stores its waiting flag and then loads the other's index; the
// other stores its index and then loads the flag. All four are sequentially consistent, so at least one of the
// two sees what the other has stored.

/// What both ends know of a pipe.
#[derive(Debug)]
pub(crate) struct Pipe {
    pub(crate) name: &'static str,
    pub(crate) words: PipeWords,
    /// Where its bytes begin in the shared memory.
    pub(crate) data: usize,
    /// A power of two.
    pub(crate) capacity: usize,
    pub(crate) shared: Arc<Shared>,
    /// Wakes the other side; `None` where that one never sleeps on this pipe.
    pub(crate) peer: Option<Arc<Ringer>>,
}

impl Pipe {
    /// After so many bytes an index is published without being asked, so that both sides work at once.
    fn step(&self) -> usize {
        self.capacity / 8
    }

    /// Where position `index` lies in the shared memory, and how many bytes from there to the wrap.
    #[inline]
    fn place(&self, index: u64) -> (usize, usize) {
        let at = index as usize & (self.capacity - 1);
        (self.data + at, self.capacity - at)
    }

    /// The bytes in the pipe, if that is possible at all.
    #[inline]
    fn filled(&self, head: u64, tail: u64) -> Option<usize> {
        tail.checked_sub(head)
            .and_then(|bytes| usize::try_from(bytes).ok())
            .filter(|&bytes| bytes <= self.capacity)
    }

    #[cold]
    fn corrupt(&self, ours: u64, theirs: u64) -> Error {
        Error::Corrupt { pipe: self.name, theirs, ours, capacity: self.capacity as u64 }
    }

    /// Takes back a waiting flag, without dirtying the other side's line when it is down already.
    fn lower(&self, flag: usize) {
        let flag = self.shared.word(flag);
        if flag.load(Relaxed) != 0 {
            flag.store(0, Relaxed);
        }
    }

    /// Rings for a sleeper unless somebody has done so already.
    #[cold]
    fn wake(&self, flag: usize) -> Result<(), Error> {
        match &self.peer {
            Some(peer) if self.shared.word(flag).swap(0, SeqCst) != 0 => peer.ring(),
            _ => Ok(()),
        }
    }
}

/// The writing end of a pipe.
///
/// Written bytes reach the other side at the next [`flush`](Self::flush) or when a write did not fit. Before that it can
/// see them once an eighth of the capacity has gathered, and is woken for half of it: one that sleeps is to find enough.
#[derive(Debug)]
pub struct Producer {
    pipe: Pipe,
    /// Own position: bytes ever written.
    tail: u64,
    /// What the other side can see of it,
    published: u64,
    /// and for how much it was woken if it slept.
    flushed: u64,
    /// The other side's position as last seen; never beyond `tail`, never more than the capacity behind, and it only
    /// grows.
    head: u64,
    /// The impossible position that ended this pipe.
    dead: Option<u64>,
}

impl Producer {
    pub(crate) fn new(pipe: Pipe) -> Self {
        Self { pipe, tail: 0, published: 0, flushed: 0, head: 0, dead: None }
    }

    /// Bytes that the pipe can hold.
    pub fn capacity(&self) -> usize {
        self.pipe.capacity
    }

    /// Bytes that can be written now.
    pub fn room(&mut self) -> Result<usize, Error> {
        self.load_head()?;
        Ok(self.room_seen())
    }

    /// Writes as many bytes as fit and returns how many; 0 when the pipe is full.
    pub fn write(&mut self, bytes: &[u8]) -> Result<usize, Error> {
        let mut left = bytes;
        while !left.is_empty() {
            let count = self.room_for(left.len())?.min(left.len()).min(self.pipe.step());
            if count == 0 {
                self.flush()?;
                break;
            }
            self.put(&left[..count]);
            self.flush_if_much()?;
            left = &left[count..];
        }
        Ok(bytes.len() - left.len())
    }

    /// Writes all parts, one after the other, or nothing; returns which. The other side sees them all at once.
    ///
    /// [`Error::TooLarge`] when they could not fit into an empty pipe.
    pub fn write_parts(&mut self, parts: &[&[u8]]) -> Result<bool, Error> {
        let bytes = parts.iter().fold(0usize, |sum, part| sum.saturating_add(part.len()));
        if bytes > self.pipe.capacity {
            return Err(Error::TooLarge { bytes, capacity: self.pipe.capacity });
        }
        if self.room_for(bytes)? < bytes {
            self.flush()?;
            return Ok(false);
        }
        for part in parts {
            self.put(part);
        }
        self.flush_if_much()?;
        Ok(true)
    }

    /// Shows what was written to the other side and wakes it if it sleeps.
    ///
    /// [`Error::System`] when it could not be woken; the bytes are there all the same.
    pub fn flush(&mut self) -> Result<(), Error> {
        if self.flushed == self.tail {
            return Ok(());
        }
        (self.published, self.flushed) = (self.tail, self.tail);
        let words = self.pipe.words;
        self.pipe.shared.word(words.tail).store(self.tail, SeqCst);
        if self.pipe.shared.word(words.consumer_waiting()).load(SeqCst) != 0 {
            return self.pipe.wake(words.consumer_waiting());
        }
        Ok(())
    }

    /// Lets the other side see what was written without waking it, so that it is not lost if this process ends
    /// before the [`flush`](Self::flush) that is still due.
    pub fn publish(&mut self) {
        self.published = self.tail;
        self.pipe.shared.word(self.pipe.words.tail).store(self.tail, Release);
    }

    /// Before sleeping: flushes, and asks to be woken when there is room. Returns true, and asks for nothing, if
    /// `min_bytes` (cut to the capacity) can be written now: do not sleep. The other side rings when `min_bytes`
    /// and at least a quarter of the capacity are free.
    pub fn arm_for_room(&mut self, min_bytes: usize) -> Result<bool, Error> {
        self.flush()?;
        let capacity = self.pipe.capacity;
        let needed = min_bytes.min(capacity);
        if self.room_for(needed)? >= needed {
            return Ok(true);
        }
        let flag = self.pipe.words.producer_waiting();
        self.pipe.shared.word(flag).store(needed.max(capacity / 4) as u64, SeqCst);
        let has_room = self.room()? >= needed;
        if has_room {
            self.disarm();
        }
        Ok(has_room)
    }

    /// After sleeping: no longer asks to be woken. A ring may be on its way all the same.
    pub fn disarm(&mut self) {
        self.pipe.lower(self.pipe.words.producer_waiting());
    }

    /// What to [`wait`](crate::wait) on for `min_bytes` of room.
    pub fn until_room(&mut self, min_bytes: usize) -> Room<'_> {
        Room { producer: self, min_bytes }
    }

    #[inline]
    fn room_seen(&self) -> usize {
        self.pipe.capacity - (self.tail - self.head) as usize
    }

    /// The room, looking at the other side's position only when the last one seen is not enough.
    #[inline]
    fn room_for(&mut self, bytes: usize) -> Result<usize, Error> {
        if self.room_seen() < bytes || self.dead.is_some() {
            self.load_head()?;
        }
        Ok(self.room_seen())
    }

    #[inline]
    fn load_head(&mut self) -> Result<(), Error> {
        let head = self.dead.unwrap_or_else(|| self.pipe.shared.word(self.pipe.words.head).load(SeqCst));
        // One that goes back would take away room that was counted on.
        if self.dead.is_some() || head < self.head || self.pipe.filled(head, self.tail).is_none() {
            self.dead = Some(head);
            return Err(self.pipe.corrupt(self.tail, head));
        }
        self.head = head;
        Ok(())
    }

    /// Copies bytes for which there is room.
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        let (place, to_wrap) = self.pipe.place(self.tail);
        if bytes.len() <= to_wrap {
            self.pipe.shared.copy_in(place, bytes);
        } else {
            let (first, second) = bytes.split_at(to_wrap);
            self.pipe.shared.copy_in(place, first);
            self.pipe.shared.copy_in(self.pipe.data, second);
        }
        self.tail += bytes.len() as u64;
    }

    #[inline]
    fn flush_if_much(&mut self) -> Result<(), Error> {
        if self.tail - self.flushed >= self.pipe.capacity as u64 / 2 {
            return self.flush();
        }
        if self.tail - self.published >= self.pipe.step() as u64 {
            self.publish();
        }
        Ok(())
    }
}

/// Room for some bytes in a pipe, as something to [`wait`](crate::wait) on.
#[derive(Debug)]
pub struct Room<'a> {
    producer: &'a mut Producer,
    min_bytes: usize,
}

impl Wakeable for Room<'_> {
    fn is_ready(&mut self) -> Result<bool, Error> {
        self.producer.flush()?;
        let needed = self.min_bytes.min(self.producer.pipe.capacity);
        Ok(self.producer.room_for(needed)? >= needed)
    }
    fn arm(&mut self) -> Result<bool, Error> {
        self.producer.arm_for_room(self.min_bytes)
    }
    fn disarm(&mut self) {
        self.producer.disarm();
    }
}

/// The reading end of a pipe. It only ever copies out, so what has been read can no longer change.
#[derive(Debug)]
pub struct Consumer {
    pipe: Pipe,
    /// Own position: bytes ever read.
    head: u64,
    /// Own position when the producer was last looked after.
    looked_after: u64,
    /// The other side's position as last seen; never behind `head`, never more than the capacity beyond, and it only
    /// grows.
    tail: u64,
    /// The impossible position that ended this pipe.
    dead: Option<u64>,
}

impl Consumer {
    pub(crate) fn new(pipe: Pipe) -> Self {
        Self { pipe, head: 0, looked_after: 0, tail: 0, dead: None }
    }

    /// Bytes that the pipe can hold.
    pub fn capacity(&self) -> usize {
        self.pipe.capacity
    }

    /// Bytes that can be read now.
    pub fn available(&mut self) -> Result<usize, Error> {
        self.load_tail()?;
        Ok(self.seen())
    }

    /// Reads at most `out.len()` bytes and returns how many; 0 when the pipe is empty. The writer gets room back as
    /// they are copied, so that both sides work at once.
    #[inline]
    pub fn read(&mut self, out: &mut [u8]) -> Result<usize, Error> {
        let count = self.seen_for(out.len())?.min(out.len());
        for piece in out[..count].chunks_mut(self.pipe.step()) {
            self.copy(piece);
            self.advance(piece.len())?;
        }
        Ok(count)
    }

    /// Reads at most `max_bytes` to the end of `out` and returns how many; 0 when the pipe is empty.
    pub fn read_to(&mut self, out: &mut Vec<u8>, max_bytes: usize) -> Result<usize, Error> {
        let count = self.seen_for(max_bytes)?.min(max_bytes);
        let mut left = count;
        while left > 0 {
            let (place, to_wrap) = self.pipe.place(self.head);
            let piece = left.min(to_wrap).min(self.pipe.step());
            self.pipe.shared.append_out(place, piece, out);
            self.advance(piece)?;
            left -= piece;
        }
        Ok(count)
    }

    /// Copies the next bytes, at most `out.len()`, without taking them, and returns how many. A second look may
    /// find other bytes there: use what was copied.
    pub fn peek(&mut self, out: &mut [u8]) -> Result<usize, Error> {
        let count = self.seen_for(out.len())?.min(out.len());
        self.copy(&mut out[..count]);
        Ok(count)
    }

    /// Copies bytes that were seen to be there.
    #[inline]
    fn copy(&self, out: &mut [u8]) {
        let (place, to_wrap) = self.pipe.place(self.head);
        if out.len() <= to_wrap {
            self.pipe.shared.copy_out(place, out);
        } else {
            let (first, second) = out.split_at_mut(to_wrap);
            self.pipe.shared.copy_out(place, first);
            self.pipe.shared.copy_out(self.pipe.data, second);
        }
    }

    /// Drops at most `bytes` unread and returns how many; what to do with an answer nobody wants any more.
    pub fn skip(&mut self, bytes: usize) -> Result<usize, Error> {
        let count = self.seen_for(bytes)?.min(bytes);
        self.advance(count)?;
        Ok(count)
    }

    /// Before sleeping: asks to be woken by the next flush. Returns true, and asks for nothing, if `min_bytes`
    /// (at least 1, cut to the capacity) are there now: do not sleep.
    pub fn arm(&mut self, min_bytes: usize) -> Result<bool, Error> {
        let needed = min_bytes.clamp(1, self.pipe.capacity);
        if self.seen_for(needed)? >= needed {
            return Ok(true);
        }
        if self.looked_after != self.head {
            self.look_after_producer()?;
        }
        let flag = self.pipe.shared.word(self.pipe.words.consumer_waiting());
        // Still up from an earlier sleep: whoever publishes from now on sees it.
        if flag.load(SeqCst) == 0 {
            flag.store(1, SeqCst);
        }
        let is_there = self.available()? >= needed;
        if is_there {
            self.disarm();
        }
        Ok(is_there)
    }

    /// After sleeping: no longer asks to be woken. A ring may be on its way all the same.
    pub fn disarm(&mut self) {
        self.pipe.lower(self.pipe.words.consumer_waiting());
    }

    #[inline]
    fn seen(&self) -> usize {
        (self.tail - self.head) as usize
    }

    /// The bytes there, looking at the other side's position only when the last one seen is not enough.
    #[inline]
    fn seen_for(&mut self, bytes: usize) -> Result<usize, Error> {
        if self.seen() < bytes || self.dead.is_some() {
            self.load_tail()?;
        }
        Ok(self.seen())
    }

    #[inline]
    fn load_tail(&mut self) -> Result<(), Error> {
        let tail = self.dead.unwrap_or_else(|| self.pipe.shared.word(self.pipe.words.tail).load(SeqCst));
        // One that goes back would take away bytes that are being read.
        if self.dead.is_some() || tail < self.tail || self.pipe.filled(self.head, tail).is_none() {
            self.dead = Some(tail);
            return Err(self.pipe.corrupt(self.head, tail));
        }
        self.tail = tail;
        Ok(())
    }

    /// Gives `count` bytes back to the producer. It is looked after only now and then, which is dearer, but
    /// always when nothing is left, since it may wait for any room up to the capacity.
    #[inline]
    fn advance(&mut self, count: usize) -> Result<(), Error> {
        if count == 0 {
            return Ok(());
        }
        self.head += count as u64;
        if self.head == self.tail || self.head - self.looked_after >= self.pipe.step() as u64 {
            self.look_after_producer()
        } else {
            self.pipe.shared.word(self.pipe.words.head).store(self.head, Release);
            Ok(())
        }
    }

    /// Publishes the own position and wakes the producer if it waits for room that is there now.
    fn look_after_producer(&mut self) -> Result<(), Error> {
        self.looked_after = self.head;
        let words = self.pipe.words;
        self.pipe.shared.word(words.head).store(self.head, SeqCst);
        let wanted = self.pipe.shared.word(words.producer_waiting()).load(SeqCst);
        if wanted == 0 {
            return Ok(());
        }
        // What it wants is its own word; more than the pipe holds cannot be meant.
        let wanted = wanted.min(self.pipe.capacity as u64);
        let free = self.pipe.capacity - self.available()?;
        if free as u64 >= wanted { self.pipe.wake(words.producer_waiting()) } else { Ok(()) }
    }
}

impl Wakeable for Consumer {
    fn is_ready(&mut self) -> Result<bool, Error> {
        Ok(self.seen_for(1)? > 0)
    }
    fn arm(&mut self) -> Result<bool, Error> {
        Consumer::arm(self, 1)
    }
    fn disarm(&mut self) {
        Consumer::disarm(self);
    }
}
