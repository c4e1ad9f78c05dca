use super::types::{CALL_INDEX_BITS, Call, call_index};
use mutirao_wire::{CallId, Epoch, Tick};

/// Bits of a name that tell how often its place was taken before within one epoch; of more nobody is alive who could
/// mistake them.
const REUSE_BITS: u32 = 64 - CALL_INDEX_BITS - 32;

/// The table of unfinished calls. A call's name is its place here and how often the place was taken
/// before, so that finding it costs nothing and a name is never used again.
#[derive(Debug, Default)]
pub(super) struct Calls {
    entries: Vec<Entry>,
    free: Vec<u32>,
    count: usize,
    next_number: u64,
    /// What the names of the first calls in each place begin with.
    first: u64,
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
    /// It was sent by another home of the application: its argument is not here.
    pub(super) adopted: bool,
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
    /// An empty table, for an application that speaks with this epoch: calls of an earlier one, which lenders may
    /// still know, have other names.
    pub(super) fn new(epoch: Epoch) -> Calls {
        // Counted from 1: rings and frames use 0 for no call.
        let first = (u64::from(epoch.0) << REUSE_BITS | 1) << CALL_INDEX_BITS;
        Calls { first, ..Calls::default() }
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Adds a call; the caller has checked that there is room below the limit.
    pub(super) fn insert(&mut self, call: Call) -> CallId {
        self.count += 1;
        let number = self.next_number;
        self.next_number += 1;
        let copies = [None, None];
        let known = Known { call, number, copies, sent_at: Tick(0), losses: 0, adopted: false };
        if let Some(index) = self.free.pop() {
            let entry = &mut self.entries[index as usize];
            entry.id.0 += 1 << CALL_INDEX_BITS;
            entry.call = Some(known);
            return entry.id;
        }
        let id = CallId(self.first | self.entries.len() as u64);
        self.entries.push(Entry { id, call: Some(known) });
        id
    }

    /// Adds a call that another home has sent to the lease at this place; false if its own place is taken.
    pub(super) fn adopt(&mut self, now: Tick, id: CallId, call: Call, lease: u32) -> bool {
        let index = call_index(id);
        while self.entries.len() <= index {
            let vacant = self.entries.len() as u32;
            // The next call there is the first that this home names.
            let before = self.first.wrapping_sub(1 << CALL_INDEX_BITS) | u64::from(vacant);
            self.entries.push(Entry { id: CallId(before), call: None });
            self.free.push(vacant);
        }
        let Some(place) = self.free.iter().position(|free| *free as usize == index) else { return false };
        self.free.swap_remove(place);
        let number = self.next_number;
        self.next_number += 1;
        self.count += 1;
        let copies = [Some(lease), None];
        let known = Known { call, number, copies, sent_at: now, losses: 0, adopted: true };
        self.entries[index] = Entry { id, call: Some(known) };
        true
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
        // What this home names next there must not be named as an earlier one has.
        let entry = &mut self.entries[index];
        entry.id.0 = entry.id.0.max(self.first.wrapping_sub(1 << CALL_INDEX_BITS) | index as u64);
        self.free.push(index as u32);
        self.count -= 1;
        Some(call)
    }
}
