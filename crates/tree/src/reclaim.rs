//! Slots that the owner takes back, and a node that lends no more.
//!
//! Slots kept for the owner bound what *others* may have: leases of the owner's programs at this very node
//! count against them, and their requests may use them. A lease that is wanted back is first asked for: its home places nothing
//! new there, moves what has not begun, and gives it back once it is idle. When the grace is over it ends.

use crate::core::{Core, Timer};
use crate::io::Output;
use crate::lend::{Lend, State};
use core::time::Duration;
use mutirao_wire::lease::{LeaseEnd, Reclaiming};
use mutirao_wire::node::Bundle;
use mutirao_wire::{NodeId, Tick};
use std::collections::BTreeMap;

/// What was taken back for a request of the owner is kept so much longer than it takes to come back.
const OWNER_HOLD: Duration = Duration::from_secs(5);
/// What a worker takes to end, at most, once it is told to.
const WORKER_ENDS: Duration = Duration::from_millis(200);
/// Serials in one message.
const SERIALS_A_MESSAGE: usize = 1024;

/// An order to take slots back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reclaim {
    /// So many of the node's slots are kept for the owner; `None`: all.
    pub slots: Option<u16>,
    /// How long what runs there may go on.
    pub grace: Duration,
    /// They are lent again after so long; `None`: when the node is told to resume.
    pub span: Option<Duration>,
}

/// How a node lends at present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lending {
    /// Slots that others than the owner can have now.
    pub free: u16,
    /// Slots kept for the owner.
    pub reclaimed: u16,
    /// Those among them that were taken back by order, and until when.
    pub ordered: (u16, Option<Tick>),
    /// It lends no more.
    pub draining: bool,
    /// Nothing is lent.
    pub empty: bool,
}

/// Slots kept for the owner, for each reason there may be.
#[derive(Default)]
pub(crate) struct Withheld {
    /// By order, and until when.
    ordered: u16,
    until: Option<Tick>,
    /// All, by the owner's rules.
    closed: bool,
    /// For a request of the owner that is about to be repeated.
    wanted: u16,
    wanted_until: Tick,
}

impl Lend {
    /// Slots that others may not have.
    pub(crate) fn withheld(&self) -> u16 {
        let all = self.capacity.slots;
        let kept = if self.withheld.closed { all } else { self.withheld.ordered.max(self.withheld.wanted) };
        kept.min(all)
    }

    pub(crate) fn lending(&self) -> Lending {
        Lending {
            free: if self.draining { 0 } else { self.free() },
            reclaimed: self.withheld(),
            ordered: (self.withheld.ordered, self.withheld.until),
            draining: self.draining,
            empty: self.is_empty(),
        }
    }

    /// The leases of others that have to end so that they keep to what they may have: the youngest first,
    /// which have least to lose. Those on their way back count as if they had ended.
    fn too_many(&self) -> Vec<u64> {
        let may = u32::from(self.capacity.slots - self.withheld());
        let on_its_way = |lease: &&crate::lend::Lease| {
            lease.state == State::Ending || matches!(lease.wanted_back, Some(Some(_)))
        };
        let others = self.leases.values().filter(|lease| !lease.own);
        let leaving: u32 = others.filter(on_its_way).map(|lease| u32::from(lease.record.bundle.slots)).sum();
        let mut excess = (self.others - leaving).saturating_sub(may);
        let mut chosen = Vec::new();
        for (serial, lease) in self.leases.iter().rev() {
            if excess == 0 {
                break;
            }
            if !lease.own && lease.record.bundle.reclaimable && !on_its_way(&lease) {
                excess = excess.saturating_sub(lease.record.bundle.slots.into());
                chosen.push(*serial);
            }
        }
        chosen
    }
}

impl Core {
    pub(crate) fn reclaim(&mut self, order: Reclaim, out: &mut Vec<Output>) {
        let all = self.lend.capacity.slots;
        let withheld = &mut self.lend.withheld;
        withheld.ordered = order.slots.unwrap_or(all).min(all);
        withheld.until = order.span.map(|span| self.now + span);
        if let Some(until) = withheld.until {
            self.arm(until, Timer::Lending);
        }
        self.take_back_too_many(order.grace, out);
        self.judge_keeps(out);
    }

    pub(crate) fn drain(&mut self, grace: Option<Duration>, out: &mut Vec<Output>) {
        self.lend.draining = true;
        self.upward.touched = true;
        let all: Vec<u64> = self.lend.leases.keys().copied().collect();
        self.ask_back(all, grace, out);
        self.judge_keeps(out);
    }

    pub(crate) fn resume_lending(&mut self, out: &mut Vec<Output>) {
        self.lend.draining = self.leaving;
        (self.lend.withheld.ordered, self.lend.withheld.until) = (0, None);
        // Their homes have turned away from them and give them back; nothing more is needed.
        for lease in self.lend.leases.values_mut().filter(|lease| lease.wanted_back.is_some()) {
            lease.wanted_back = Some(None);
        }
        self.upward.touched = true;
        self.judge_keeps(out);
    }

    pub(crate) fn may_lend(&mut self, may: bool, grace: Duration, out: &mut Vec<Output>) {
        if self.lend.withheld.closed == may {
            self.lend.withheld.closed = !may;
            self.take_back_too_many(grace, out);
            self.judge_keeps(out);
        }
    }

    /// A request of the owner wants `count` bundles and finds fewer: takes back what others have of them.
    /// After how many milliseconds it should ask again; `None` if that would be of no use.
    pub(crate) fn take_for_owner(
        &mut self,
        bundle: &Bundle,
        count: u32,
        grace: Duration,
        out: &mut Vec<Output>,
    ) -> Option<u32> {
        let all = u32::from(self.lend.capacity.slots);
        let each = if bundle.exclusive { all } else { bundle.slots.max(1).into() };
        let own = self.lend.taken_slots() - self.lend.others;
        let wanted = own.saturating_add(each.saturating_mul(count)).min(all) as u16;
        let before = self.lend.others;
        let after = grace + WORKER_ENDS;
        let withheld = &mut self.lend.withheld;
        withheld.wanted = withheld.wanted.max(wanted);
        withheld.wanted_until = self.now + after + OWNER_HOLD;
        let until = withheld.wanted_until;
        self.arm(until, Timer::Lending);
        self.take_back_too_many(grace, out);
        let leaving = self.lend.leases.values().any(|lease| {
            !lease.own && (lease.state == State::Ending || matches!(lease.wanted_back, Some(Some(_))))
        });
        (leaving || self.lend.others < before).then_some(after.as_millis() as u32)
    }

    fn take_back_too_many(&mut self, grace: Duration, out: &mut Vec<Output>) {
        let serials = self.lend.too_many();
        self.ask_back(serials, Some(grace), out);
        self.upward.touched = true;
    }

    /// Asks the homes of these leases to give them back. With a grace, those that may be taken back end when
    /// it is over; without one, or where an earlier end is set already, nothing is changed about that.
    fn ask_back(&mut self, serials: Vec<u64>, grace: Option<Duration>, out: &mut Vec<Output>) {
        let mut by_home: BTreeMap<(NodeId, bool), Vec<u64>> = BTreeMap::new();
        let mut now = Vec::new();
        let until = grace.map(|grace| self.now + grace);
        for serial in serials {
            let Some(lease) = self.lend.leases.get_mut(&serial) else { continue };
            let forced = until.filter(|_| lease.record.bundle.reclaimable);
            match lease.state {
                State::Ending => continue,
                State::Granted { .. } => {
                    now.push(serial);
                    continue;
                }
                State::Live | State::Broken { .. } => {}
            }
            let earlier = match (lease.wanted_back.flatten(), forced) {
                (Some(before), Some(forced)) => before <= forced,
                (Some(_), None) => true,
                (None, Some(_)) => false,
                (None, None) => lease.wanted_back.is_some(),
            };
            if earlier {
                continue;
            }
            lease.wanted_back = Some(forced);
            match forced {
                Some(until) if until <= self.now => now.push(serial),
                _ => by_home.entry((lease.record.home().id, forced.is_some())).or_default().push(serial),
            }
            if let Some(until) = forced {
                self.arm(until, Timer::Lease(serial));
            }
        }
        self.revoke(now, &LeaseEnd::Reclaimed, out);
        let grace_ms = grace.map(|grace| grace.as_millis().min(u32::MAX.into()) as u32);
        for ((home, forced), serials) in by_home {
            let grace_ms = grace_ms.filter(|_| forced);
            if home == self.me.id {
                self.reclaiming(home, self.me.incarnation, &serials, grace_ms, out);
                continue;
            }
            for serials in serials.chunks(SERIALS_A_MESSAGE) {
                self.send_lease(home, Reclaiming { serials: serials.to_vec(), grace_ms }, out);
            }
        }
    }

    pub(crate) fn lending_time(&mut self, out: &mut Vec<Output>) {
        let withheld = &mut self.lend.withheld;
        if withheld.until.is_some_and(|until| until <= self.now) {
            (withheld.ordered, withheld.until) = (0, None);
            self.upward.touched = true;
        }
        if withheld.wanted > 0 && withheld.wanted_until <= self.now {
            withheld.wanted = 0;
            self.upward.touched = true;
        }
        self.judge_keeps(out);
    }
}
