//! An application's calls and where they go.
//!
//! The library keeps arguments and results; `Hold` sees sizes. An argument must be kept until its call is
//! over, since it may have to be sent again. A call is over exactly once: when [`Hold::result`] returns
//! true for it, or with [`Output::Finished`].
//!
//! A worker takes the calls of its lease in order and answers them in order, whether it is reached through
//! a ring or a stream. So the first unanswered call of a lease is the one that runs, if any does.
//!
//! A time limit counts from when a call becomes the first of its worker's queue: it may run a little longer
//! than its limit, never shorter. For local workers `Hold` keeps it, for others `Serve` does.

mod calls;
mod end;
mod lease;
mod place;
mod retire;
mod speed;
mod types;
mod waiting;

#[cfg(test)]
mod tests;

pub use types::*;

use crate::watch::Watch;
use calls::Calls;
use core::time::Duration;
use lease::{Leases, Sent, Way};
use mutirao_wire::limits::{CALL_BYTES_MAX, LEASE_WINDOW_BYTES};
use mutirao_wire::stream::failure;
use mutirao_wire::{CallId, Handle, Tick};
use place::Candidates;
use speed::Usual;
use waiting::Waiting;

/// The calls and leases of one application.
#[derive(Debug)]
pub struct Hold {
    options: Options,
    calls: Calls,
    leases: Leases,
    usual: Usual,
    waiting: Waiting,
    /// Leases not looked at any more might take calls shorter than this, microseconds,
    closed_for_us: f64,
    /// or a reserve, were more calls waiting.
    closed_for_few: bool,
    /// No watch of a local lease is due before.
    watch_at: Option<Tick>,
    /// When to look for stragglers next.
    copies_at: Option<Tick>,
    /// Not before this, and only if there may be any that were not seen at the last look.
    copies_after: Tick,
    copies_changed: bool,
    candidates: Candidates,
}

impl Hold {
    /// Without leases or calls.
    pub fn new(options: Options) -> Hold {
        Hold {
            options: Options { calls_max: options.calls_max.min(CALLS_MAX), ..options },
            calls: Calls::new(options.epoch),
            leases: Leases::default(),
            usual: Usual::default(),
            waiting: Waiting::default(),
            closed_for_us: 0.0,
            closed_for_few: false,
            watch_at: None,
            copies_at: None,
            copies_after: Tick(0),
            copies_changed: false,
            candidates: Candidates::default(),
        }
    }

    /// Takes a call, to be sent by a later [`place`](Hold::place), and gives it its name.
    pub fn submit(&mut self, call: Call) -> Result<CallId, Refused> {
        if self.calls.len() >= self.options.calls_max {
            return Err(Refused::Full(self.options.calls_max));
        }
        if u64::from(call.bytes) > CALL_BYTES_MAX {
            return Err(Refused::ArgumentTooLarge(call.bytes));
        }
        let Some(handle) = call.only else {
            let operation = call.operation;
            let id = self.calls.insert(call);
            self.waiting.push_back(operation, id);
            return Ok(id);
        };
        let no_such = Refused::NoSuchLease(handle);
        let place = self.leases.place(handle).ok_or(no_such)?;
        let lease = self.leases.get_mut(place).filter(|lease| lease.retiring.is_none()).ok_or(no_such)?;
        let id = self.calls.insert(call);
        lease.bound.push_back(id);
        self.leases.pend(place);
        Ok(id)
    }

    /// Takes over a call that another home of the application has sent to its [`only`](Call::only) lease, which is known
    /// here and not ready: it is among those that the lender is asked for once the way is open. Should that not have
    /// it, it ends with [`Outcome::LeaseEnded`]. False if there is no such lease, or another call of that name.
    pub fn adopt(&mut self, now: Tick, id: CallId, call: Call) -> bool {
        let place = call.only.and_then(|handle| self.leases.place(handle));
        let (Some(place), operation) = (place, call.operation) else { return false };
        if call_index(id) >= self.options.calls_max || !self.calls.adopt(now, id, call, place) {
            return false;
        }
        if let Some(lease) = self.leases.get_mut(place) {
            lease.sent.push_back(Sent { call: id, operation, work_us: None });
            lease.speed.added(None);
        }
        true
    }

    /// The last frame of a result came on `handle`: of success, or of failure with a code. True when it is
    /// the call's outcome, to be delivered; false when nobody waits for it (any more): drop it. Either
    /// way a remote lender is owed the acknowledgement.
    #[must_use]
    pub fn result(
        &mut self,
        now: Tick,
        handle: Handle,
        call: CallId,
        failed: Option<u32>,
        out: &mut Vec<Output>,
    ) -> bool {
        let Some(place) = self.leases.place(handle) else { return false };
        let Some(lease) = self.leases.get_mut(place) else { return false };
        let Some(at) = lease.sent.iter().position(|sent| sent.call == call) else { return false };
        let Some(sent) = lease.sent.remove(at) else { return false };
        lease.speed.removed(sent.work_us);
        if lease.sending.is_some_and(|(sending, _)| sending == call) {
            lease.sending = None;
        }
        let retiring = lease.retiring.is_some();
        self.copies_changed |= lease.sent.is_empty();
        if at == 0 {
            if failed.is_none_or(ran_to_its_end) {
                lease.speed.answered(now, sent.operation, &mut self.usual);
            }
            self.new_head(now, place);
        }
        self.leases.reopen(place);
        if retiring {
            self.leases.pend(place);
        }
        let Some(known) = self.calls.get_mut(call) else { return false };
        known.forget_copy(place);
        if !known.is_waiting() && failed.is_some_and(is_worker_end) {
            // The other copy may fare better.
            return false;
        }
        let others = known.copies;
        self.calls.remove(call);
        for other in others.into_iter().flatten() {
            self.cancel_at(now, other, call, out);
        }
        true
    }

    /// Takes in what happened.
    pub fn handle(&mut self, now: Tick, input: Input, out: &mut Vec<Output>) {
        match input {
            Input::LeaseAdded { handle, local } => self.lease_added(handle, local, out),
            Input::Cancel(call) => self.cancel(now, call, out),
            Input::NoMoreLeases => self.no_more_leases(out),
            Input::Time => self.time(now, out),
            Input::LeaseReady { handle, .. }
            | Input::LeaseBroken(handle)
            | Input::LeaseRestored(handle)
            | Input::Resumed { handle, .. }
            | Input::WorkerEnded { handle, .. }
            | Input::LocalWorkerEnded { handle, .. }
            | Input::LeaseEnded { handle, .. }
            | Input::Retire { handle, .. }
            | Input::Withdrawn { handle, .. }
            | Input::Credit { handle, .. }
            | Input::Room { handle, .. } => {
                // News of a lease that has ended meanwhile is of no interest.
                if let Some(place) = self.leases.place(handle) {
                    self.of_lease(now, place, input, out);
                }
            }
        }
    }

    /// When to say [`Input::Time`] (and then `place`), if nothing else happens.
    pub fn deadline(&self) -> Option<Tick> {
        self.watch_at.into_iter().chain(self.copies_at).min()
    }

    /// Whether `submit` takes a call.
    pub fn can_submit(&self) -> bool {
        self.calls.len() < self.options.calls_max
    }

    /// Whether the call is unfinished: the library may drop parts of a result that nobody wants.
    pub fn wants(&self, call: CallId) -> bool {
        self.calls.get(call).is_some()
    }

    /// Whether something stands ready to be sent to this local lease as soon as its ring has more room.
    pub fn waits_for_room(&self, handle: Handle) -> bool {
        let lease = self.leases.place(handle).and_then(|place| self.leases.get(place));
        lease.is_some_and(|lease| {
            let wanted = self.waiting.count() > 0 || !lease.bound.is_empty();
            lease.local
                && lease.can_write()
                && (lease.sending.is_some() || (wanted && lease.window <= lease.window_min()))
        })
    }

    /// Whether nothing is to be done on this lease, or it is unknown.
    pub fn is_idle(&self, handle: Handle) -> bool {
        let lease = self.leases.place(handle).and_then(|place| self.leases.get(place));
        lease.is_none_or(|lease| lease.sent.is_empty() && lease.bound.is_empty())
    }

    /// How long what was sent to this lease keeps its worker busy, as far as can be told: not at all, if nobody knows.
    pub fn busy_for(&self, now: Tick, handle: Handle) -> Duration {
        let lease = self.leases.place(handle).and_then(|place| self.leases.get(place));
        lease.map_or(Duration::ZERO, |lease| Duration::from_micros(lease.speed.left_us(now) as u64))
    }

    /// How much there is to do.
    pub fn backlog(&self) -> Backlog {
        let bound = self.leases.bound();
        Backlog {
            waiting: self.waiting.count() + bound,
            bound,
            waiting_us: self.waiting.work_us(&self.usual) as u64,
            waiting_since: self.waiting.since(&self.calls),
            leases: self.leases.len(),
        }
    }

    fn lease_added(&mut self, handle: Handle, local: bool, out: &mut Vec<Output>) {
        if self.leases.place(handle).is_some() {
            return;
        }
        if self.leases.len() >= LEASES_MAX {
            out.push(Output::TooManyLeases(handle));
        } else {
            self.leases.insert(handle, local);
        }
    }

    fn of_lease(&mut self, now: Tick, place: u32, input: Input, out: &mut Vec<Output>) {
        self.leases.reopen(place);
        let Some(lease) = self.leases.get_mut(place) else { return };
        match input {
            Input::LeaseReady { room, .. } => {
                lease.ready = true;
                self.copies_changed = true;
                if lease.local {
                    (lease.window, lease.capacity) = (room, room);
                }
            }
            Input::LeaseBroken(_) => lease.is_cut_off(),
            Input::LeaseRestored(_) if lease.local => lease.way = Way::Open,
            Input::LeaseRestored(handle) => {
                lease.way = Way::Resuming;
                lease.window = LEASE_WINDOW_BYTES;
                lease.sending = None;
                let outstanding = lease.sent.iter().map(|sent| sent.call).collect();
                out.push(Output::Resume { handle, outstanding });
            }
            Input::Resumed { unknown, .. } => self.resumed(now, place, unknown, out),
            Input::WorkerEnded { not_started, .. } => {
                lease.new_head(now);
                let not_started = lease.take_listed(not_started);
                if lease.retiring.is_some() {
                    self.leases.pend(place);
                }
                self.not_started(now, place, not_started, out);
            }
            Input::LocalWorkerEnded { running, code, .. } => {
                self.local_worker_ended(now, place, running, code, out);
            }
            Input::LeaseEnded { running, lost, .. } => self.lease_ended(now, place, running, lost, out),
            Input::Retire { leave, .. } => self.retire(now, place, leave, out),
            Input::Withdrawn { calls, .. } => self.withdrawn(now, place, calls, out),
            Input::Credit { bytes, .. } if !lease.local => {
                lease.window = lease.window.saturating_add(bytes).min(LEASE_WINDOW_BYTES);
            }
            Input::Room { bytes, .. } if lease.local => lease.window = bytes,
            _ => {}
        }
    }

    fn resumed(&mut self, now: Tick, place: u32, unknown: Vec<CallId>, out: &mut Vec<Output>) {
        let Some(lease) = self.leases.get_mut(place) else { return };
        if lease.way != Way::Resuming {
            return;
        }
        lease.way = Way::Open;
        if lease.retiring.is_some() {
            self.leases.pend(place);
        }
        let Some(lease) = self.leases.get_mut(place) else { return };
        lease.new_head(now);
        let unknown = lease.take_listed(unknown);
        // The lender may not have heard of cancellations.
        for sent in &lease.sent {
            if self.calls.get(sent.call).is_none() {
                out.push(Output::Cancel { handle: lease.handle, call: sent.call });
            }
        }
        self.not_started(now, place, unknown, out);
    }

    fn cancel(&mut self, now: Tick, call: CallId, out: &mut Vec<Output>) {
        let Some(known) = self.calls.remove(call) else { return };
        if known.is_waiting() {
            match known.call.only.and_then(|handle| self.leases.place(handle)) {
                Some(place) => {
                    if let Some(lease) = self.leases.get_mut(place) {
                        lease.bound.retain(|bound| *bound != call);
                    }
                }
                None => self.waiting.over(known.call.operation, &self.calls),
            }
        }
        for place in known.copies.into_iter().flatten() {
            self.cancel_at(now, place, call, out);
        }
        out.push(Output::Finished { call, outcome: Outcome::Failed(failure::CANCELLED) });
    }

    /// A call that is over is still at a lease, which should stop it.
    fn cancel_at(&mut self, now: Tick, place: u32, call: CallId, out: &mut Vec<Output>) {
        let Some(lease) = self.leases.get_mut(place) else { return };
        let handle = lease.handle;
        let in_part = match lease.sending.take_if(|(sending, _)| *sending == call) {
            Some((_, 0)) => {
                // Not a byte of it was sent: nobody there knows it.
                lease.take_listed(vec![call]);
                self.leases.reopen(place);
                return;
            }
            in_part => in_part.is_some(),
        };
        if !lease.local || in_part {
            if lease.can_write() {
                out.push(Output::Cancel { handle, call });
            }
        } else if lease.sent.front().is_some_and(|head| head.call == call) {
            let mut watch = Watch::cancelled(call, now);
            if let Some((call, code)) = watch.due(now) {
                out.push(Output::KillWorker { handle, call, code });
            }
            lease.watch = Some(watch);
            self.watch_until(watch);
        }
    }

    fn no_more_leases(&mut self, out: &mut Vec<Output>) {
        for call in self.waiting.drain(&self.calls) {
            self.finish(call, Outcome::NoSlots, out);
        }
    }

    /// Another call is at the head of a local worker's queue, or none.
    fn new_head(&mut self, now: Tick, place: u32) {
        let Some(lease) = self.leases.get_mut(place) else { return };
        lease.new_head(now);
        if !lease.local {
            return;
        }
        lease.watch = lease.sent.front().and_then(|head| match self.calls.get(head.call) {
            Some(known) => Watch::over(head.call, known.call.limit_ms, false, now),
            None => Watch::over(head.call, 0, true, now),
        });
        if let Some(watch) = lease.watch {
            self.watch_until(watch);
        }
    }

    fn watch_until(&mut self, watch: Watch) {
        self.watch_at = Some(self.watch_at.map_or(watch.at(), |at| at.min(watch.at())));
    }

    fn time(&mut self, now: Tick, out: &mut Vec<Output>) {
        if self.watch_at.is_none_or(|at| at > now) {
            return;
        }
        self.watch_at = None;
        for n in 0..self.leases.len() {
            let Some(lease) = self.leases.get_mut(self.leases.nth(n)) else { continue };
            let Some(watch) = &mut lease.watch else { continue };
            if let Some((call, code)) = watch.due(now) {
                out.push(Output::KillWorker { handle: lease.handle, call, code });
            }
            let watch = *watch;
            self.watch_until(watch);
        }
    }

    /// The call is over, unless it is already.
    fn finish(&mut self, call: CallId, outcome: Outcome, out: &mut Vec<Output>) {
        if self.calls.remove(call).is_some() {
            out.push(Output::Finished { call, outcome });
        }
    }
}

/// Whether a failure means that the worker is gone, by no deed of the caller's.
fn is_worker_end(code: u32) -> bool {
    matches!(code, failure::WORKER_ENDED | failure::OUT_OF_MEMORY)
}

/// Whether a failed call ran as long as it wanted: only then its time says something.
fn ran_to_its_end(code: u32) -> bool {
    !is_worker_end(code) && !matches!(code, failure::CANCELLED | failure::TIME_LIMIT)
}
