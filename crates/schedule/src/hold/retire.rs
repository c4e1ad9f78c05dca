use super::Hold;
use super::lease::Withdrawal;
use super::types::{Call, Outcome, Output};
use mutirao_wire::local::Leave;
use mutirao_wire::{CallId, Tick};

impl Hold {
    /// Nothing more is to be placed on a lease. Calls that have not begun there are had back, to go elsewhere.
    pub(super) fn retire(&mut self, now: Tick, place: u32, leave: Leave, out: &mut Vec<Output>) {
        let Some(lease) = self.leases.get_mut(place) else { return };
        let before = lease.retiring.replace(leave);
        lease.retiring = lease.retiring.max(before);
        if before.is_none() && lease.withdrawal == Withdrawal::None {
            lease.withdrawal = Withdrawal::Due;
        }
        let bound = core::mem::take(&mut lease.bound);
        // Not a byte of it was sent: nobody there knows it.
        let unsent: Vec<CallId> = lease
            .sending
            .take_if(|(_, sent)| *sent == 0)
            .map(|(call, _)| lease.take_listed(vec![call]))
            .unwrap_or_default();
        self.leases.pend(place);
        bound.into_iter().for_each(|call| self.finish(call, Outcome::LeaseEnded, out));
        self.not_started(now, place, unsent, out);
    }

    /// What a lease that retires still has to do: calls are had back, then it waits for those that run, or
    /// does not.
    pub(super) fn go_on_retiring(&mut self, now: Tick, place: u32, out: &mut Vec<Output>) {
        let Some(lease) = self.leases.get_mut(place) else { return };
        let Some(leave) = lease.retiring else { return };
        if let Some(mut calls) = lease.begin_withdrawal() {
            // Those bound to it could go nowhere else.
            calls.retain(|call| self.calls.get(*call).is_some_and(|known| known.call.only.is_none()));
            if calls.is_empty() {
                lease.withdrawal = Withdrawal::None;
            } else {
                let handle = lease.handle;
                return out.push(Output::Withdraw { handle, calls });
            }
        }
        // Who has not begun is known once the lender has answered, or cannot be asked.
        let asked = matches!(lease.withdrawal, Withdrawal::Asked | Withdrawal::AskedForSome);
        let settled = !asked && lease.sending.is_none();
        let runs_again = |call: &Call| call.repeatable && call.only.is_none();
        let counts = |call: &CallId| self.calls.get(*call).is_some_and(|known| !runs_again(&known.call));
        let waits = match leave {
            Leave::Finish => !lease.sent.is_empty(),
            Leave::Rerun => !settled || lease.sent.iter().any(|sent| counts(&sent.call)),
            Leave::Abandon => !settled,
        };
        if waits {
            return;
        }
        let Some(mut lease) = self.leases.remove(place) else { return };
        let handle = lease.handle;
        let left = lease.take_all();
        for call in left.into_iter().rev() {
            self.lost(now, place, call, false, out);
        }
        out.push(Output::Retired(handle));
    }

    /// Asks for calls back that wait behind others, each with the place of its lease, in order of places.
    pub(super) fn get_back(&mut self, stuck: &[(u32, CallId)], out: &mut Vec<Output>) {
        for of_one in stuck.chunk_by(|a, b| a.0 == b.0) {
            let Some(lease) = of_one.first().and_then(|(place, _)| self.leases.get_mut(*place)) else {
                continue;
            };
            lease.withdrawal = Withdrawal::AskedForSome;
            let calls = of_one.iter().map(|(_, call)| *call).collect();
            out.push(Output::Withdraw { handle: lease.handle, calls });
        }
    }

    /// The lender's answer.
    pub(super) fn withdrawn(&mut self, now: Tick, place: u32, calls: Vec<CallId>, out: &mut Vec<Output>) {
        let Some(lease) = self.leases.get_mut(place) else { return };
        lease.withdrawal = match lease.withdrawal {
            Withdrawal::AskedForSome if lease.retiring.is_some() => Withdrawal::Due,
            Withdrawal::Asked | Withdrawal::AskedForSome => Withdrawal::None,
            // The answer to what was asked before a break, of which `Resumed` tells all.
            _ => return,
        };
        let head = lease.sent.front().map(|sent| sent.call);
        let back = lease.take_listed(calls);
        let new_head = lease.sent.front().map(|sent| sent.call) != head;
        if lease.retiring.is_some() {
            self.leases.pend(place);
        }
        if new_head {
            self.new_head(now, place);
        }
        self.copies_changed = true;
        self.not_started(now, place, back, out);
    }
}
