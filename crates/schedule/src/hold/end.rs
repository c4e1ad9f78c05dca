use super::types::{Outcome, Output};
use super::{Hold, is_worker_end};
use crate::watch::Watch;
use mutirao_wire::{CallId, Tick};

/// A repeatable call that was lost so often with the lender that ran it is not tried again: it may be the cause.
const LOSSES_MAX: u8 = 3;

impl Hold {
    pub(super) fn local_worker_ended(
        &mut self,
        now: Tick,
        place: u32,
        running: Option<CallId>,
        code: u32,
        out: &mut Vec<Output>,
    ) {
        let Some(lease) = self.leases.get_mut(place) else { return };
        lease.ready = false;
        let retiring = lease.retiring.is_some();
        let started = lease.started(running);
        let watch = lease.watch;
        let mut ran = lease.take_all();
        let not_started = ran.split_off(started);
        for call in ran {
            let code = Watch::reason(watch, call, code);
            let Some(known) = self.calls.get_mut(call) else { continue };
            known.forget_copy(place);
            // Another copy may fare better.
            if known.is_waiting() || !is_worker_end(code) {
                let others = known.copies;
                self.finish(call, Outcome::Failed(code), out);
                for other in others.into_iter().flatten() {
                    self.cancel_at(now, other, call, out);
                }
            }
        }
        if retiring {
            self.leases.pend(place);
        }
        self.not_started(now, place, not_started, out);
    }

    pub(super) fn lease_ended(
        &mut self,
        now: Tick,
        place: u32,
        running: Option<CallId>,
        lost: bool,
        out: &mut Vec<Output>,
    ) {
        let Some(mut lease) = self.leases.remove(place) else { return };
        // A call sent in part cannot have started; that a local one did, the ring would say. Of a remote
        // lender nothing is known.
        let in_part = lease.sending.map(|(call, _)| call);
        let started = if lease.local {
            lease.started(running)
        } else {
            lease.sent.len() - usize::from(in_part.is_some())
        };
        // The worker takes calls in order: which it was at the ring says, or it was the first, as far as is known.
        let at_work = if lease.local {
            running
        } else {
            lease.sent.iter().map(|sent| sent.call).find(|call| self.calls.get(*call).is_some())
        };
        let mut may_have_run = lease.take_all();
        let not_started = may_have_run.split_off(started);
        for call in core::mem::take(&mut lease.bound) {
            self.finish(call, Outcome::LeaseEnded, out);
        }
        self.not_started(now, place, not_started, out);
        for call in may_have_run.into_iter().rev() {
            self.lost(now, place, call, lost && at_work == Some(call), out);
        }
    }

    /// These calls, in the order they were sent to the lease, did not start there: they wait again, before
    /// all others of their operations.
    pub(super) fn not_started(&mut self, now: Tick, place: u32, calls: Vec<CallId>, out: &mut Vec<Output>) {
        for call in calls.into_iter().rev() {
            let Some(known) = self.calls.get_mut(call) else { continue };
            known.forget_copy(place);
            if known.is_waiting() {
                self.wait_again(now, call, out);
            }
        }
    }

    /// The call was sent to a lease that is no more; `suspect`: it may be why.
    pub(super) fn lost(&mut self, now: Tick, place: u32, call: CallId, suspect: bool, out: &mut Vec<Output>) {
        let Some(known) = self.calls.get_mut(call) else { return };
        known.forget_copy(place);
        if !known.is_waiting() {
            return;
        }
        known.losses += u8::from(suspect);
        if known.call.repeatable && known.call.only.is_none() && known.losses < LOSSES_MAX {
            self.wait_again(now, call, out);
        } else {
            self.finish(call, Outcome::Unknown, out);
        }
    }

    fn wait_again(&mut self, now: Tick, call: CallId, out: &mut Vec<Output>) {
        let Some(known) = self.calls.get(call) else { return };
        if known.adopted {
            return self.finish(call, Outcome::LeaseEnded, out);
        }
        let Some(handle) = known.call.only else {
            self.waiting.push_front(now, known.call.operation, call);
            return;
        };
        let place = self.leases.place(handle);
        let lease = place.and_then(|place| self.leases.get_mut(place));
        match (place, lease.filter(|lease| lease.retiring.is_none())) {
            (Some(place), Some(lease)) => {
                lease.bound.push_front(call);
                self.leases.pend(place);
            }
            _ => self.finish(call, Outcome::LeaseEnded, out),
        }
    }
}
