use super::speed::{Room, Speed};
use crate::watch::Watch;
use core::hash::{BuildHasherDefault, Hasher};
use core::time::Duration;
use mutirao_wire::limits::{LEASE_CALLS_MAX, LEASE_WINDOW_BYTES};
use mutirao_wire::local::Leave;
use mutirao_wire::{CallId, Handle, Tick};
use std::collections::{HashMap, VecDeque};

/// Smallest piece of a larger argument that is worth a frame.
const PIECE_MIN: u64 = 16 * 1024;

/// A lease and what was sent to it.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) handle: Handle,
    pub(super) local: bool,
    /// Its worker serves.
    pub(super) ready: bool,
    pub(super) way: Way,
    /// Nothing more is to be placed on it.
    pub(super) retiring: Option<Leave>,
    pub(super) withdrawal: Withdrawal,
    /// Sent and not answered, in order; those among them that are finished are nobody's any more.
    pub(super) sent: VecDeque<Sent>,
    /// The last one sent, if parts of it are still to be sent, and how many bytes have been.
    pub(super) sending: Option<(CallId, u32)>,
    /// Bytes that can be sent now, and at best.
    pub(super) window: u64,
    pub(super) capacity: u64,
    /// Calls that may run nowhere else.
    pub(super) bound: VecDeque<CallId>,
    /// For a local worker: when the call at its head must be over. For others `Serve` knows.
    pub(super) watch: Option<Watch>,
    pub(super) speed: Speed,
    /// It is in the list of those that may take a call.
    open: bool,
    /// It is in the list of those that have something pending.
    pending: bool,
}

/// How far the withdrawal of calls from a lease is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Withdrawal {
    None,
    /// As soon as it can be asked for.
    Due,
    /// Asked for and not answered.
    Asked,
    /// So, but of some calls only.
    AskedForSome,
}

/// Whether the lender can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Open,
    Broken,
    /// A new stream stands; the lender has not yet said what it knows.
    Resuming,
}

/// A call at a lease.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    pub(super) call: CallId,
    pub(super) operation: u32,
    /// How long it was expected to run where leases are of usual speed, microseconds; `None`: nobody knew.
    pub(super) work_us: Option<f64>,
}

impl Lease {
    fn new(handle: Handle, local: bool) -> Lease {
        let capacity = if local { 0 } else { LEASE_WINDOW_BYTES };
        Lease {
            handle,
            local,
            ready: false,
            way: Way::Open,
            retiring: None,
            withdrawal: Withdrawal::None,
            sent: VecDeque::new(),
            sending: None,
            window: capacity,
            capacity,
            bound: VecDeque::new(),
            watch: None,
            speed: Speed::default(),
            open: false,
            pending: false,
        }
    }

    /// Whether parts of calls can go out.
    pub(super) fn can_write(&self) -> bool {
        self.ready && self.way == Way::Open
    }

    /// Whether a further call may begin to be sent, as far as the way is concerned.
    pub(super) fn can_begin(&self) -> bool {
        self.can_write()
            && self.retiring.is_none()
            && self.sending.is_none()
            && self.window > self.window_min()
    }

    /// What more the lease can take. Only something that happens to the lease makes it more.
    pub(super) fn room(&self, now: Tick) -> Room {
        let outstanding = self.sent.len() as u32;
        if !self.can_begin() || outstanding >= LEASE_CALLS_MAX {
            return Room::NONE;
        }
        let head_us = self.sent.front().and_then(|head| head.work_us).unwrap_or(0.0);
        self.speed.room(now, outstanding, head_us, self.local)
    }

    /// Whether one more call of those bound to the lease may be sent, up to so much work.
    pub(super) fn takes_bound(&self, usual_us: Option<f64>, work: Duration) -> bool {
        let has_room = self.can_begin() && (self.sent.len() as u32) < LEASE_CALLS_MAX;
        has_room && usual_us.is_some_and(|usual_us| self.speed.with(usual_us) <= work.as_micros() as f64)
    }

    /// The lender cannot be reached: what it was asked last it may not have heard.
    pub(super) fn is_cut_off(&mut self) {
        self.way = Way::Broken;
        self.withdrawal = if self.retiring.is_some() { Withdrawal::Due } else { Withdrawal::None };
    }

    /// With less than this nothing new is begun.
    pub(super) fn window_min(&self) -> u64 {
        PIECE_MIN.min(self.capacity / 4)
    }

    /// The calls sent whole, if a withdrawal is due and can be asked for.
    pub(super) fn begin_withdrawal(&mut self) -> Option<Vec<CallId>> {
        let can = self.withdrawal == Withdrawal::Due && self.can_write() && self.sending.is_none();
        if !can || self.sent.is_empty() {
            return None;
        }
        self.withdrawal = Withdrawal::Asked;
        Some(self.sent.iter().map(|sent| sent.call).collect())
    }

    /// Takes out the calls that are in `listed`, in their order.
    pub(super) fn take_listed(&mut self, mut listed: Vec<CallId>) -> Vec<CallId> {
        listed.sort_unstable();
        let mut taken = Vec::new();
        let speed = &mut self.speed;
        self.sent.retain(|sent| {
            let is_listed = listed.binary_search(&sent.call).is_ok();
            if is_listed {
                taken.push(sent.call);
                speed.removed(sent.work_us);
            }
            !is_listed
        });
        if self.sending.is_some_and(|(call, _)| taken.contains(&call)) {
            self.sending = None;
        }
        taken
    }

    /// Takes out all calls, in their order.
    pub(super) fn take_all(&mut self) -> Vec<CallId> {
        self.sending = None;
        self.watch = None;
        self.speed.emptied();
        self.sent.drain(..).map(|sent| sent.call).collect()
    }

    /// How many of the calls sent have started, if the ring names `running`: the worker takes them in order.
    pub(super) fn started(&self, running: Option<CallId>) -> usize {
        let place = |running| self.sent.iter().position(|sent| sent.call == running);
        running.and_then(place).map_or(0, |place| place + 1)
    }

    /// The time since which the head has been running, as far as can be told, begins anew.
    pub(super) fn new_head(&mut self, now: Tick) {
        self.speed.mark = now;
    }
}

/// The leases, each at a place of its own.
#[derive(Debug, Default)]
pub(super) struct Leases {
    entries: Vec<Option<Lease>>,
    free: Vec<u32>,
    places: HashMap<u32, u32, BuildHasherDefault<Spread>>,
    /// Places in use.
    used: Vec<u32>,
    /// Those that may take a call: all others are known not to, until something happens to them.
    open: VecDeque<u32>,
    /// Those with parts, bound calls or their retirement pending.
    pending: Vec<u32>,
}

impl Leases {
    pub(super) fn len(&self) -> usize {
        self.used.len()
    }

    /// Adds a lease; the caller has checked that the handle is new.
    pub(super) fn insert(&mut self, handle: Handle, local: bool) {
        let lease = Some(Lease::new(handle, local));
        let place = match self.free.pop() {
            Some(place) => {
                self.entries[place as usize] = lease;
                place
            }
            None => {
                self.entries.push(lease);
                self.entries.len() as u32 - 1
            }
        };
        self.places.insert(handle.0, place);
        self.used.push(place);
    }

    pub(super) fn remove(&mut self, place: u32) -> Option<Lease> {
        let lease = self.entries.get_mut(place as usize)?.take()?;
        self.places.remove(&lease.handle.0);
        self.used.retain(|used| *used != place);
        if lease.open {
            self.open.retain(|open| *open != place);
        }
        if lease.pending {
            self.pending.retain(|pending| *pending != place);
        }
        self.free.push(place);
        Some(lease)
    }

    pub(super) fn place(&self, handle: Handle) -> Option<u32> {
        self.places.get(&handle.0).copied()
    }

    pub(super) fn get(&self, place: u32) -> Option<&Lease> {
        self.entries.get(place as usize)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, place: u32) -> Option<&mut Lease> {
        self.entries.get_mut(place as usize)?.as_mut()
    }

    /// Something has happened to the lease: perhaps it can take a call now.
    pub(super) fn reopen(&mut self, place: u32) {
        if let Some(lease) = self.entries.get_mut(place as usize).and_then(Option::as_mut)
            && !core::mem::replace(&mut lease.open, true)
        {
            self.open.push_back(place);
        }
    }

    pub(super) fn reopen_all(&mut self) {
        for n in 0..self.used.len() {
            self.reopen(self.used[n]);
        }
    }

    /// Takes a place from the front of those open, to be put back by [`reopen`](Leases::reopen).
    pub(super) fn pop_open(&mut self) -> Option<u32> {
        let place = self.open.pop_front()?;
        if let Some(lease) = self.get_mut(place) {
            lease.open = false;
        }
        Some(place)
    }

    pub(super) fn open(&self) -> impl Iterator<Item = u32> {
        self.open.iter().copied()
    }

    pub(super) fn open_count(&self) -> usize {
        self.open.len()
    }

    /// The lease has something pending.
    pub(super) fn pend(&mut self, place: u32) {
        if let Some(lease) = self.entries.get_mut(place as usize).and_then(Option::as_mut)
            && !core::mem::replace(&mut lease.pending, true)
        {
            self.pending.push(place);
        }
    }

    /// Takes out those that have something pending.
    pub(super) fn take_pending(&mut self) -> Vec<u32> {
        let places = core::mem::take(&mut self.pending);
        for place in &places {
            if let Some(lease) = self.get_mut(*place) {
                lease.pending = false;
            }
        }
        places
    }

    /// Calls that may run on one lease only and were not sent.
    pub(super) fn bound(&self) -> usize {
        let bound = |place: &u32| self.get(*place).map_or(0, |lease| lease.bound.len());
        self.pending.iter().map(bound).sum()
    }

    /// The places in use, by number from 0: leases do not come or go while this is walked through.
    pub(super) fn nth(&self, n: usize) -> u32 {
        self.used[n]
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Lease)> {
        self.used.iter().filter_map(|place| Some((*place, self.get(*place)?)))
    }
}

/// Spreads handles, which the node chooses, one after the other.
#[derive(Debug, Default)]
pub(super) struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    fn write_u32(&mut self, number: u32) {
        self.0 = (self.0 ^ u64::from(number)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }
}
