use super::types::{CALL_INDEX_BITS, Call, call_index};
use mutirao_wire::{CallId, Tick};

/// The table of unfinished calls. A call's name is its place here and how often the place was taken
/// before, so that finding it costs nothing and a name is never used again.
#[derive(Debug, Default)]
pub(super) struct Calls {
    entries: Vec<Entry>,
    free: Vec<u32>,
    count: usize,
    next_number: u64,
}

#[derive(Debug)]
struct Entry {
    id: CallId,
    call: Option<Known>,
}

/// An unfinished call.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) call: Call,
    /// Lower for older calls.
    pub(super) number: u64,
    /// Leases it was sent to, by their places in the table of leases; none: it waits.
    pub(super) copies: [Option<u32>; 2],
    /// When it was sent first.
    pub(super) sent_at: Tick,
    /// How often it was lost with its lender.
    pub(super) losses: u8,
}

impl Known {
    pub(super) fn is_waiting(&self) -> bool {
        self.copies == [None, None]
    }

    pub(super) fn forget_copy(&mut self, lease: u32) {
        for copy in &mut self.copies {
            if *copy == Some(lease) {
                *copy = None;
            }
        }
    }
}

impl Calls {
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Adds a call; the caller has checked that there is room below the limit.
    pub(super) fn insert(&mut self, call: Call) -> CallId {
        self.count += 1;
        let number = self.next_number;
        self.next_number += 1;
        let known = Known { call, number, copies: [None, None], sent_at: Tick(0), losses: 0 };
        if let Some(index) = self.free.pop() {
            let entry = &mut self.entries[index as usize];
            entry.id.0 += 1 << CALL_INDEX_BITS;
            entry.call = Some(known);
            return entry.id;
        }
        // Counted from 1: rings and frames use 0 for no call.
        let id = CallId(1 << CALL_INDEX_BITS | self.entries.len() as u64);
        self.entries.push(Entry { id, call: Some(known) });
        id
    }

    pub(super) fn get(&self, id: CallId) -> Option<&Known> {
        self.entries.get(call_index(id)).filter(|entry| entry.id == id)?.call.as_ref()
    }

    pub(super) fn get_mut(&mut self, id: CallId) -> Option<&mut Known> {
        self.entries.get_mut(call_index(id)).filter(|entry| entry.id == id)?.call.as_mut()
    }

    pub(super) fn remove(&mut self, id: CallId) -> Option<Known> {
        let index = call_index(id);
        let call = self.entries.get_mut(index).filter(|entry| entry.id == id)?.call.take()?;
        self.free.push(index as u32);
        self.count -= 1;
        Some(call)
    }
}
