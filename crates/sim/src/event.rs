//! What is to happen, in order of time.

use crate::calls::Happening;
use mutirao_tree::Input;
use mutirao_wire::{Incarnation, Tick};
use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// Something that is to happen. Nodes are known by their numbers, connections by theirs.
pub(crate) enum Event {
    /// A node, if still in that life, is told something.
    Input(u32, Incarnation, Box<Input>),
    /// A frame arrives.
    Deliver { link: u64, from: u32, to: u32, bytes: Box<[u8]> },
    /// A dial gets through.
    Connect { from: u32, to: u32 },
    /// A dial does not.
    DialFailed { from: u32, to: u32 },
    /// The end `at` learns that the connection to `to` is no more.
    Closed { link: u64, at: u32, to: u32 },
    /// A deadline of a node.
    Wake(u32, Incarnation, Tick),
    /// A deadline of one end of a connection.
    LinkTime { link: u64, side: usize, due: Tick },
    /// A node that is down starts.
    Start(u32),
    /// A node that stalled goes on.
    Resume(u32),
    /// The end `at` closes the connection if nobody needs it.
    Idle { at: u32, to: u32, link: u64 },
    /// Something happens to calls.
    Call(Box<Happening>),
}

/// Events by time; of the same time, in the order in which they were added.
#[derive(Default)]
pub(crate) struct Queue {
    heap: BinaryHeap<Reverse<Entry>>,
    added: u64,
}

struct Entry {
    at: Tick,
    order: u64,
    event: Event,
}

impl Queue {
    pub(crate) fn add(&mut self, at: Tick, event: Event) {
        self.added += 1;
        self.heap.push(Reverse(Entry { at, order: self.added, event }));
    }

    /// When the next event happens.
    pub(crate) fn next_at(&self) -> Option<Tick> {
        self.heap.peek().map(|Reverse(entry)| entry.at)
    }

    pub(crate) fn pop(&mut self) -> Option<(Tick, Event)> {
        self.heap.pop().map(|Reverse(entry)| (entry.at, entry.event))
    }
}

impl Entry {
    fn key(&self) -> (Tick, u64) {
        (self.at, self.order)
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Entry) -> Ordering {
        self.key().cmp(&other.key())
    }
}
