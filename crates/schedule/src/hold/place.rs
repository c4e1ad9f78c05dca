use super::Hold;
use super::calls::Known;
use super::lease::{Lease, Sent};
use super::speed::Fit;
use super::types::{Output, Part};
use core::cmp::Reverse;
use core::time::Duration;
use mutirao_wire::frame::HEADER_BYTES;
use mutirao_wire::limits::{DATA_BODY_MAX, LEASE_CALLS_MAX};
use mutirao_wire::stream::CallExtent;
use mutirao_wire::{CallId, Tick};
use std::collections::BinaryHeap;

/// Work that is given to one lease before the next is looked at, microseconds and calls: what makes up a
/// batch that is written at once.
const BATCH_US: f64 = 100.0;
const BATCH_CALLS: usize = 64;
/// A call is a straggler when it takes so many times longer than usual, and this long at least.
const STRAGGLER_TIMES: f64 = 3.0;
const STRAGGLER_MIN: Duration = Duration::from_millis(10);
/// Calls of one lease looked at in the search for stragglers, oldest first.
const STRAGGLERS_A_LEASE: usize = 64;

/// Leases that could take a call: those where nothing longer is before it first, then by when they would
/// be done with it.
pub(super) type Candidates = BinaryHeap<Reverse<(bool, u64, u32)>>;

impl Hold {
    /// Sends what can be sent. To be called after each batch of inputs, results and submissions: the larger
    /// the batch, the better calls are grouped by lease.
    pub fn place(&mut self, now: Tick, out: &mut Vec<Output>) {
        if self.pending {
            self.pending = false;
            for n in 0..self.leases.len() {
                self.go_on(now, self.leases.nth(n), out);
            }
        }
        if self.waiting_count > 0 {
            self.place_waiting(now, out);
        }
        if self.waiting_count > 0 || !self.options.copies {
            self.copies_at = None;
            return;
        }
        if core::mem::take(&mut self.copies_changed) && self.copies_at.is_none() {
            self.copies_at = Some(self.copies_after);
        }
        if self.copies_at.is_some_and(|at| at <= now) {
            self.copy_stragglers(now, out);
        }
    }

    /// What is pending at one lease: parts, calls bound to it, its retirement.
    fn go_on(&mut self, now: Tick, place: u32, out: &mut Vec<Output>) {
        let Some(lease) = self.leases.get_mut(place) else { return };
        if let Some((call, offset)) = lease.sending
            && let Some(known) = self.calls.get(call)
        {
            send_parts(lease, call, offset, known, out);
        }
        while self.send_bound(now, place, out) {}
        let Some(lease) = self.leases.get_mut(place) else { return };
        if lease.retiring == Some(false) && lease.sent.is_empty() {
            lease.retiring = Some(true);
            out.push(Output::Retired(lease.handle));
        }
        self.pending |= lease.sending.is_some() || !lease.bound.is_empty() || lease.retiring == Some(false);
    }

    /// Sends one of the calls bound to a lease; false when there is none or no room.
    fn send_bound(&mut self, now: Tick, place: u32, out: &mut Vec<Output>) -> bool {
        let Some(lease) = self.leases.get(place) else { return false };
        let Some(call) = lease.bound.front().copied() else { return false };
        let Some(known) = self.calls.get(call) else { return false };
        if self.fit(now, lease, known.call.operation) == Fit::No {
            return false;
        }
        if let Some(lease) = self.leases.get_mut(place) {
            lease.bound.pop_front();
        }
        self.send(now, place, call, out);
        true
    }

    /// Whether the lease can begin another call, of this operation.
    fn fit(&self, now: Tick, lease: &Lease, operation: u32) -> Fit {
        let outstanding = lease.sent.len() as u32;
        if !lease.can_begin() || outstanding >= LEASE_CALLS_MAX {
            return Fit::No;
        }
        lease.speed.fit(now, self.usual.time_us(operation), outstanding, lease.local)
    }

    fn place_waiting(&mut self, now: Tick, out: &mut Vec<Output>) {
        let Some((_, operation)) = self.next_waiting() else { return };
        let mut candidates = core::mem::take(&mut self.candidates);
        for (place, lease) in self.leases.iter() {
            candidates.extend(self.candidate(place, self.fit(now, lease, operation)));
        }
        let batch = (self.waiting_count / (2 * candidates.len()).max(1)).clamp(1, BATCH_CALLS);
        while let Some(Reverse((_, _, place))) = candidates.pop() {
            let fit = self.send_batch(now, place, batch, out);
            if self.waiting_count == 0 {
                break;
            }
            candidates.extend(self.candidate(place, fit));
        }
        candidates.clear();
        self.candidates = candidates;
    }

    fn candidate(&self, place: u32, fit: Fit) -> Option<Reverse<(bool, u64, u32)>> {
        match fit {
            // The bits of positive numbers are ordered as they are.
            Fit::Now(done_us) => Some(Reverse((false, done_us.to_bits(), place))),
            // Towards the end of the work a reserve would only wait while others become idle.
            Fit::Reserve(done_us) if self.waiting_count > self.leases.len() => {
                Some(Reverse((true, done_us.to_bits(), place)))
            }
            _ => None,
        }
    }

    /// Sends some of the waiting calls to the best lease; says how it then stands for another.
    fn send_batch(&mut self, now: Tick, place: u32, batch: usize, out: &mut Vec<Output>) -> Fit {
        let mut work_us = 0.0;
        let mut count = 0;
        while let Some((call, operation)) = self.next_waiting() {
            let Some(lease) = self.leases.get(place) else { return Fit::No };
            let fit = self.fit(now, lease, operation);
            if fit == Fit::No || count == batch || work_us > BATCH_US {
                // One that did not fit at all would not fit again.
                return if count == 0 { Fit::No } else { fit };
            }
            work_us += self.usual.time_us(operation).unwrap_or(BATCH_US) * lease.speed.slowness();
            count += 1;
            self.waiting.pop_front();
            self.waiting_count -= 1;
            self.send(now, place, call, out);
            if matches!(fit, Fit::Reserve(_)) {
                return Fit::No;
            }
        }
        Fit::No
    }

    /// The first of the waiting calls that is not over, and its operation.
    fn next_waiting(&mut self) -> Option<(CallId, u32)> {
        loop {
            let call = *self.waiting.front()?;
            if let Some(known) = self.calls.get(call) {
                return Some((call, known.call.operation));
            }
            self.waiting.pop_front();
        }
    }

    fn send(&mut self, now: Tick, place: u32, call: CallId, out: &mut Vec<Output>) {
        let (Some(lease), Some(known)) = (self.leases.get_mut(place), self.calls.get_mut(call)) else {
            return;
        };
        if known.is_waiting() {
            known.sent_at = now;
        }
        if let Some(free) = known.copies.iter_mut().find(|copy| copy.is_none()) {
            *free = Some(place);
        }
        let operation = known.call.operation;
        let work_us = self.usual.time_us(operation).unwrap_or(0.0);
        lease.sent.push_back(Sent { call, operation, work_us });
        lease.speed.added(work_us);
        send_parts(lease, call, 0, known, out);
        self.pending |= lease.sending.is_some();
        self.copies_changed |= known.call.repeatable;
        if lease.sent.len() == 1 {
            self.new_head(now, place);
        }
    }

    /// Sends repeatable calls that take suspiciously long to idle leases as well, and finds out when to look
    /// again.
    fn copy_stragglers(&mut self, now: Tick, out: &mut Vec<Output>) {
        self.copies_at = None;
        // Not more often than needed: each look costs the calls outstanding.
        self.copies_after = now + STRAGGLER_MIN;
        let idle = |lease: &Lease| lease.can_begin() && lease.sent.is_empty();
        let mut idle: Vec<(u32, f64)> = self
            .leases
            .iter()
            .filter(|(_, lease)| idle(lease))
            .map(|(place, lease)| (place, lease.speed.slowness()))
            .collect();
        if idle.is_empty() {
            return;
        }
        idle.sort_by(|a, b| b.1.total_cmp(&a.1));
        let mut stragglers = Vec::new();
        let mut next: Option<Tick> = None;
        for (_, lease) in self.leases.iter() {
            for sent in lease.sent.iter().take(STRAGGLERS_A_LEASE) {
                let Some(at) = self.straggles_at(sent) else { continue };
                if at <= now {
                    stragglers.push((at, sent.call));
                } else {
                    next = Some(next.map_or(at, |next| next.min(at)));
                }
            }
        }
        stragglers.sort_unstable();
        for (_, call) in stragglers {
            let Some((place, _)) = idle.pop() else { return };
            self.send(now, place, call, out);
        }
        self.copies_at = next.map(|next| next.max(self.copies_after));
    }

    /// When a call sent should have a second copy; `None` if never.
    fn straggles_at(&self, sent: &Sent) -> Option<Tick> {
        let known = self.calls.get(sent.call)?;
        let single = known.copies.iter().flatten().count() == 1;
        if !single || !known.call.repeatable || known.call.only.is_some() {
            return None;
        }
        let usual_us = self.usual.time_us(sent.operation)?;
        let patience = Duration::from_micros((usual_us * STRAGGLER_TIMES) as u64);
        Some(known.sent_at + patience.max(STRAGGLER_MIN))
    }
}

/// Sends of a call, from `offset` on, as much as the window takes.
fn send_parts(lease: &mut Lease, call: CallId, mut offset: u32, known: &Known, out: &mut Vec<Output>) {
    const HEADER: u64 = HEADER_BYTES as u64;
    lease.sending = Some((call, offset));
    if !lease.can_write() {
        return;
    }
    let bytes = known.call.bytes;
    let piece_min = lease.window_min();
    while lease.window >= HEADER {
        let rest = u64::from(bytes - offset);
        let more = rest > (lease.window - HEADER).min(DATA_BODY_MAX as u64);
        // Room for a `Cancel` is left in a ring.
        let room = lease.window.saturating_sub(2 * HEADER);
        let piece = if more { rest.min(room).min(DATA_BODY_MAX as u64) } else { rest };
        if more && piece < piece_min.min(rest) {
            return;
        }
        out.push(Output::Send(Part {
            handle: lease.handle,
            operation: known.call.operation,
            call,
            extent: CallExtent { bytes, limit_ms: known.call.limit_ms },
            offset,
            bytes: piece as u32,
            repeatable: known.call.repeatable,
            more,
        }));
        lease.window -= HEADER + piece;
        offset += piece as u32;
        if !more {
            lease.sending = None;
            return;
        }
        lease.sending = Some((call, offset));
    }
}
