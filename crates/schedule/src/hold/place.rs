use super::Hold;
use super::calls::Known;
use super::lease::{Lease, Sent, Withdrawal};
use super::speed::{Depth, Fit};
use super::types::{Output, Part};
use core::cmp::Reverse;
use core::time::Duration;
use mutirao_wire::frame::HEADER_BYTES;
use mutirao_wire::limits::DATA_BODY_MAX;
use mutirao_wire::stream::CallExtent;
use mutirao_wire::{CallId, Tick};
use std::collections::{BinaryHeap, VecDeque};

/// Work that is given to one lease before the next is looked at, microseconds and calls: what makes up a
/// batch that is written at once.
const BATCH_US: f64 = 100.0;
const BATCH_CALLS: usize = 64;
/// Leases among which the best is looked for: so many for each call that waits, and so many in any case.
const CHOICE: usize = 4;
const CHOICE_MIN: usize = 64;
/// Short calls that may go before an older one of another operation, so that they go in batches.
const AHEAD_CALLS: usize = 64;
/// Leases that were too busy for the shortest of the waiting calls are looked at again when there are shorter
/// ones: when they take less than so much of the time.
const SHORTER: f64 = 0.75;
/// Operations that may wait for a lease while younger calls of others go to other leases.
const STUCK_MAX: usize = 8;
/// A call is a straggler when it takes so many times longer than usual, and this long at least.
const STRAGGLER_TIMES: f64 = 3.0;
const STRAGGLER_MIN: Duration = Duration::from_millis(10);
/// Calls of one lease that are found to be stragglers at once, oldest first.
const STRAGGLERS_A_LEASE: usize = 64;

/// Leases that could take a call: those where nothing longer is before it first, then by when they would
/// be done with it.
pub(super) type Candidates = BinaryHeap<Reverse<(bool, u64, u32)>>;

/// One operation's calls are placed, until it is another one's turn.
struct Turn {
    queue: usize,
    /// The oldest call of the other operations, if any wait.
    next: Option<u64>,
    /// Short calls that may still go before that one.
    ahead: usize,
    usual_us: Option<f64>,
}

impl Hold {
    /// Sends what can be sent. To be called after each batch of inputs, results and submissions: the larger
    /// the batch, the better calls are grouped by lease.
    pub fn place(&mut self, now: Tick, out: &mut Vec<Output>) {
        for place in self.leases.take_pending() {
            self.go_on(now, place, out);
        }
        if self.waiting.count() > 0 {
            self.place_waiting(now, out);
        }
        // A second copy takes a second lease.
        if self.waiting.count() > 0 || self.leases.len() < 2 {
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
        self.leases.reopen(place);
        while self.send_bound(now, place, out) {}
        self.go_on_retiring(now, place, out);
        let Some(lease) = self.leases.get_mut(place) else { return };
        // One that retires is looked at again when something happens to it.
        if lease.sending.is_some() || !lease.bound.is_empty() {
            self.leases.pend(place);
        }
    }

    /// Sends one of the calls bound to a lease; false when there is none or no room.
    fn send_bound(&mut self, now: Tick, place: u32, out: &mut Vec<Output>) -> bool {
        let Some(lease) = self.leases.get(place) else { return false };
        let Some(call) = lease.bound.front().copied() else { return false };
        let Some(known) = self.calls.get(call) else { return false };
        let usual_us = self.usual.time_us(known.call.operation);
        if lease.room(now).fit(usual_us) == Fit::No && !lease.takes_bound(usual_us, self.options.bound_work) {
            return false;
        }
        if let Some(lease) = self.leases.get_mut(place) {
            lease.bound.pop_front();
        }
        self.send(now, place, call, out);
        true
    }

    /// The oldest calls first. An operation whose calls have to wait for a lease does not hold back others:
    /// it has one lease spared for it, which runs empty, while theirs go to the rest.
    fn place_waiting(&mut self, now: Tick, out: &mut Vec<Output>) {
        let shortest_us = self.waiting.shortest_us(&self.usual);
        let has_shorter = shortest_us < self.closed_for_us * SHORTER;
        if has_shorter || (self.closed_for_few && self.is_much_waiting()) {
            (self.closed_for_us, self.closed_for_few) = (0.0, false);
            self.leases.reopen_all();
        }
        let (mut stuck, mut spared) = (Vec::new(), Vec::new());
        while let Some((queue, next)) = self.waiting.oldest(&self.calls, &stuck) {
            if self.take_turn(now, (queue, next), shortest_us, &spared, out) {
                continue;
            }
            if next.is_none() || stuck.len() == STUCK_MAX {
                break;
            }
            stuck.push(queue);
            spared.extend(self.first_to_be_idle(now, &spared));
        }
        self.waiting.stamp(now);
    }

    /// Whether so many calls wait that some may wait behind others on a lease. Towards the end of the work a
    /// reserve would only wait while others become idle.
    fn is_much_waiting(&self) -> bool {
        self.waiting.count() > self.leases.len()
    }

    /// Places calls of one operation, until those of the next are older. False when no lease takes them.
    fn take_turn(
        &mut self,
        now: Tick,
        (queue, next): (usize, Option<u64>),
        shortest_us: f64,
        spared: &[u32],
        out: &mut Vec<Output>,
    ) -> bool {
        let usual_us = self.usual.time_us(queue as u32);
        let is_short = usual_us.is_some_and(|usual_us| usual_us <= BATCH_US);
        let mut turn = Turn { queue, next, ahead: if is_short { AHEAD_CALLS } else { 0 }, usual_us };
        let mut candidates = core::mem::take(&mut self.candidates);
        let mut is_over = false;
        while !is_over {
            self.choose(now, &turn, shortest_us, spared, &mut candidates);
            if candidates.is_empty() {
                break;
            }
            let batch = (self.waiting.count_of(queue) / (2 * candidates.len())).clamp(1, BATCH_CALLS);
            while let Some(Reverse((_, _, place))) = candidates.pop() {
                let fit = self.send_batch(now, &mut turn, place, batch, out);
                is_over = self.next_of(&turn).is_none();
                if is_over {
                    break;
                }
                candidates.extend(self.candidate(place, fit));
            }
            candidates.clear();
        }
        self.candidates = candidates;
        is_over
    }

    /// The next call to be placed in this turn, and whether it goes before an older one.
    fn next_of(&mut self, turn: &Turn) -> Option<(CallId, bool)> {
        let (call, number) = self.waiting.first(turn.queue, &self.calls)?;
        let is_ahead = turn.next.is_some_and(|next| number > next);
        (!is_ahead || turn.ahead > 0).then_some((call, is_ahead))
    }

    /// Finds leases that take a call now, each time others if there are many. Those that would not even take
    /// the shortest are not looked at again until something happens to them.
    fn choose(
        &mut self,
        now: Tick,
        turn: &Turn,
        shortest_us: f64,
        spared: &[u32],
        candidates: &mut Candidates,
    ) {
        // Which calls of this operation are older than others' is not known: it may be one only.
        let calls = if turn.next.is_some() { AHEAD_CALLS } else { self.waiting.count_of(turn.queue) };
        let enough = CHOICE_MIN + CHOICE * calls;
        for _ in 0..self.leases.open_count() {
            if candidates.len() == enough {
                break;
            }
            let Some(place) = self.leases.pop_open() else { break };
            let Some(lease) = self.leases.get(place) else { continue };
            let room = lease.room(now);
            if room.depth == Depth::Full {
                continue;
            }
            let fit = room.fit(shortest_us.is_finite().then_some(shortest_us));
            if self.candidate(place, fit).is_none() {
                self.closed_for_us = self.closed_for_us.max(shortest_us);
                self.closed_for_few |= matches!(fit, Fit::Reserve(_));
                continue;
            }
            self.leases.reopen(place);
            if !spared.contains(&place) {
                candidates.extend(self.candidate(place, room.fit(turn.usual_us)));
            }
        }
    }

    fn candidate(&self, place: u32, fit: Fit) -> Option<Reverse<(bool, u64, u32)>> {
        match fit {
            // The bits of positive numbers are ordered as they are.
            Fit::Now(done_us) => Some(Reverse((false, done_us.to_bits(), place))),
            Fit::Reserve(done_us) if self.is_much_waiting() => {
                Some(Reverse((true, done_us.to_bits(), place)))
            }
            _ => None,
        }
    }

    /// The lease that is expected to be idle soonest, among those that others' calls would keep busy.
    fn first_to_be_idle(&self, now: Tick, spared: &[u32]) -> Option<u32> {
        let open = self.leases.open().filter(|place| !spared.contains(place));
        let ahead_us =
            |place| Some(self.leases.get(place)?.room(now)).filter(|room| room.depth != Depth::Full);
        let busy = open.filter_map(|place| Some((ahead_us(place)?.ahead_us.to_bits(), place)));
        busy.min().map(|(_, place)| place)
    }

    /// Sends some of the operation's calls to the best lease; says how it then stands for another.
    fn send_batch(
        &mut self,
        now: Tick,
        turn: &mut Turn,
        place: u32,
        batch: usize,
        out: &mut Vec<Output>,
    ) -> Fit {
        let mut work_us = 0.0;
        let mut count = 0;
        while let Some((call, is_ahead)) = self.next_of(turn) {
            let Some(lease) = self.leases.get(place) else { return Fit::No };
            let fit = lease.room(now).fit(turn.usual_us);
            if fit == Fit::No || count == batch || work_us > BATCH_US {
                // One that did not fit at all would not fit again.
                return if count == 0 { Fit::No } else { fit };
            }
            work_us += turn.usual_us.unwrap_or(BATCH_US) * lease.speed.slowness();
            count += 1;
            turn.ahead -= usize::from(is_ahead);
            self.waiting.pop(turn.queue);
            self.send(now, place, call, out);
            if matches!(fit, Fit::Reserve(_)) {
                return Fit::No;
            }
        }
        Fit::No
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
        let work_us = self.usual.time_us(operation);
        lease.sent.push_back(Sent { call, operation, work_us });
        lease.speed.added(work_us);
        send_parts(lease, call, 0, known, out);
        let (in_part, is_head) = (lease.sending.is_some(), lease.sent.len() == 1);
        self.copies_changed |= known.call.repeatable || !is_head;
        if in_part {
            self.leases.pend(place);
        }
        if is_head {
            self.new_head(now, place);
        }
    }

    /// Sends repeatable calls that take suspiciously long to idle leases as well, gets others back that have
    /// not begun, and finds out when to look again.
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
        idle.sort_by(|a, b| a.1.total_cmp(&b.1));
        let mut idle: VecDeque<u32> = idle.into_iter().map(|(place, _)| place).collect();
        let mut stragglers = Vec::new();
        let mut stuck: Vec<(u32, CallId)> = Vec::new();
        let mut next: Option<Tick> = None;
        for (place, lease) in self.leases.iter() {
            let single = lease.sent.iter().enumerate();
            let single = single.filter_map(|(at, sent)| Some((self.straggles_at(sent, at > 0)?, at, sent)));
            for ((at, is_repeatable), position, sent) in single.take(STRAGGLERS_A_LEASE) {
                if at > now {
                    next = Some(next.map_or(at, |next| next.min(at)));
                } else if is_repeatable {
                    stragglers.push((at, sent.call, sent.operation));
                } else if position > 0 && lease.withdrawal == Withdrawal::None && lease.can_begin() {
                    stuck.push((place, sent.call));
                }
            }
        }
        self.get_back(&stuck, out);
        stragglers.sort_unstable();
        for (_, call, operation) in stragglers {
            let Some(place) = idle.pop_front() else { return };
            self.send(now, place, call, out);
            // Short ones, stuck behind another perhaps, get theirs several at a time.
            let usual_us = self.usual.time_us(operation);
            let fits = |lease: &Lease| matches!(lease.room(now).fit(usual_us), Fit::Now(_));
            if self.leases.get(place).is_some_and(fits) {
                idle.push_back(place);
            }
        }
        self.copies_at = next.map(|next| next.max(self.copies_after));
    }

    /// When a call sent should have a second copy or, if it is not repeatable but `waits` behind another, be
    /// had back, and whether it is repeatable; `None` if never.
    fn straggles_at(&self, sent: &Sent, waits: bool) -> Option<(Tick, bool)> {
        let known = self.calls.get(sent.call)?;
        let single = known.copies.iter().flatten().count() == 1;
        let repeatable = known.call.repeatable;
        let movable = if repeatable { self.options.copies } else { waits };
        if !single || !movable || known.call.only.is_some() {
            return None;
        }
        let usual_us = self.usual.time_us(sent.operation)?;
        let patience = Duration::from_micros((usual_us * STRAGGLER_TIMES) as u64);
        Some((known.sent_at + patience.max(STRAGGLER_MIN), repeatable))
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
