//! The slots of this node, and the leases it granted on them.
//!
//! Slots count as taken from the grant until the worker is gone, so that none is ever held twice.

use crate::core::{Core, Timer};
use crate::fit::{self, Taken};
use crate::io::{Capacity, LeaseRecord, Output};
use crate::policy::{Judgement, Policy, Verified, Verifier, user_of};
use crate::reclaim::Withheld;
use crate::rules::{Admission, at_ceiling, not_admitted};
use core::time::Duration;
use mutirao_wire::lease::{
    Confirm, Confirmed, LeaseEnd, PluginApproved, Reclaiming, Release, Revoked, WorkerNews, WorkerState,
};
use mutirao_wire::limits::{HOMES_MAX, LABELS_MAX, RESOURCE_AMOUNT_MAX, RESOURCES_MAX};
use mutirao_wire::node::{Asker, Bundle, Grant, Hindrance, Layout, Note, Want};
use mutirao_wire::tree::{LabelSum, MemorySum, ResourceSum, Summary, name_hash};
use mutirao_wire::{AppId, Epoch, NodeId, NodeRef, PluginId, RequestId, Tick};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Requests remembered that wait for the owner's approval.
const WAITING_MAX: usize = 256;

/// The lending half of a node.
pub(crate) struct Lend {
    pub(crate) capacity: Capacity,
    pub(crate) draining: bool,
    pub(crate) policy: Policy,
    verify: Verifier,
    pub(crate) leases: BTreeMap<u64, Lease>,
    serial: u64,
    pub(crate) taken: Taken,
    waiting: VecDeque<Waiting>,
    /// Homes to be told of approvals as soon as they are linked.
    approvals: BTreeMap<NodeId, Vec<PluginId>>,
    /// Slots of leases that are not the owner's.
    pub(crate) others: u32,
    pub(crate) withheld: Withheld,
}

pub(crate) struct Lease {
    pub(crate) record: LeaseRecord,
    pub(crate) state: State,
    /// It is the owner's, and at home here.
    pub(crate) own: bool,
    /// Its home was asked to give it back; when it ends in any case.
    pub(crate) wanted_back: Option<Option<Tick>>,
    /// How its worker did last.
    worker: Option<WorkerState>,
}

#[derive(PartialEq, Eq)]
pub(crate) enum State {
    /// Not confirmed yet; no worker.
    Granted { until: Tick },
    /// Its home is linked and confirmed it, or is this node.
    Live,
    /// Its home is out of reach.
    Broken { until: Tick },
    /// Its worker is being ended.
    Ending,
}

struct Waiting {
    plugin: PluginId,
    home: NodeRef,
    user: String,
}

impl Lend {
    pub(crate) fn new(capacity: Capacity, policy: Policy, verify: Verifier) -> Lend {
        Lend {
            capacity,
            draining: false,
            policy,
            verify,
            leases: BTreeMap::new(),
            serial: 0,
            taken: Taken::default(),
            waiting: VecDeque::new(),
            approvals: BTreeMap::new(),
            others: 0,
            withheld: Withheld::default(),
        }
    }

    /// See [`Core::rest`].
    pub(crate) fn rest(&mut self) {
        if self.leases.is_empty() {
            self.leases = BTreeMap::new();
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.leases.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.leases.len()
    }

    /// What is taken, for the owner or for others, who cannot have what is withheld for the owner; and whether
    /// nothing is.
    pub(crate) fn taken(&self, own: bool) -> (Taken, bool) {
        let mut taken = self.taken.clone();
        if !own {
            taken.withhold(self.unlent() - self.free());
        }
        (taken, self.is_empty() && (own || self.withheld() == 0))
    }

    /// What others than the owner cannot have, even if nothing is lent; and whether that is nothing.
    pub(crate) fn never_lent(&self) -> (Taken, bool) {
        let mut taken = Taken::default();
        taken.withhold(self.withheld());
        (taken, self.withheld() == 0)
    }

    /// What the asker's token proves.
    pub(crate) fn verified(&self, asker: &Asker) -> Verified {
        (self.verify)(asker)
    }

    /// Slots in all leases.
    pub(crate) fn taken_slots(&self) -> u32 {
        self.taken.slots()
    }

    /// When the leases end that have a limit, in no order.
    pub(crate) fn ends(&self) -> impl Iterator<Item = (Tick, u64)> {
        self.leases.values().filter_map(|Lease { record, .. }| {
            let limit = Duration::from_secs(record.bundle.limit_s?.into());
            Some((record.granted + limit, record.serial))
        })
    }

    /// Slots that are not lent.
    pub(crate) fn unlent(&self) -> u16 {
        self.taken.slots_free(&self.capacity)
    }

    /// Slots that can be lent to others than the owner.
    pub(crate) fn free(&self) -> u16 {
        let lendable = u32::from(self.capacity.slots).saturating_sub(u32::from(self.withheld()));
        self.unlent().min(lendable.saturating_sub(self.others) as u16)
    }

    pub(crate) fn record(&self, serial: u64) -> Option<&LeaseRecord> {
        self.leases.get(&serial).map(|lease| &lease.record)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &LeaseRecord> {
        self.leases.values().map(|lease| &lease.record)
    }

    pub(crate) fn begun(&self) -> impl Iterator<Item = &LeaseRecord> {
        let begun = self.leases.values().filter(|lease| !matches!(lease.state, State::Granted { .. }));
        begun.map(|lease| &lease.record)
    }

    pub(crate) fn needs(&self, id: NodeId) -> bool {
        self.approvals.contains_key(&id)
            || (self.leases.values()).any(|lease| lease.state == State::Live && lease.record.home().id == id)
    }

    /// A home that cannot be reached is not told of approvals.
    pub(crate) fn unreachable(&mut self, id: NodeId) {
        self.approvals.remove(&id);
    }

    /// This node alone, as its parent is told. Free slots that are kept for somebody are not free for all.
    pub(crate) fn summary(&self, name: &str, kept: u16) -> Summary {
        let (here, lends) = (&self.capacity, !self.draining);
        let free = if lends { self.free().saturating_sub(kept) } else { 0 };
        let memory = if lends { self.taken.memory_free_mib(here) } else { 0 };
        let resources = here.resources.iter().take(RESOURCES_MAX).map(|resource| {
            let total = resource.amount.min(RESOURCE_AMOUNT_MAX);
            let free = if lends { self.taken.resource_free(here, &resource.name) } else { 0 };
            ResourceSum { name: resource.name.clone(), total, free, largest: total, largest_free: free }
        });
        let labels = here.labels.iter().take(LABELS_MAX).map(|label| LabelSum {
            label: label.clone(),
            total: here.slots.into(),
            free: free.into(),
        });
        Summary {
            nodes: 1,
            depth: 0,
            slots_total: here.slots.into(),
            slots_free: free.into(),
            largest: here.slots,
            largest_free: free,
            idle_nodes: (self.leases.is_empty() && kept == 0 && free == here.slots && free > 0).into(),
            archs: vec![here.arch],
            memory: MemorySum {
                free_mib: memory.into(),
                largest_mib: here.memory_mib,
                largest_free_mib: memory,
            },
            resources: resources.collect(),
            other_resources: here.resources.len() > RESOURCES_MAX,
            labels: labels.collect(),
            other_labels: here.labels.len() > LABELS_MAX,
            names: vec![name_hash(name)],
            other_names: false,
        }
    }

    /// How many more of `bundle` fit, for the owner or for others, and the slots of one.
    pub(crate) fn room(&self, bundle: &Bundle, own: bool) -> (u32, u16) {
        let (taken, idle) = self.taken(own);
        taken.room(&self.capacity, bundle, idle)
    }

    pub(crate) fn could_serve(&self, want: &Want, free: bool) -> bool {
        let room = if free && !self.draining {
            self.room(&want.bundle, false).0
        } else if free {
            0
        } else {
            Taken::default().room(&self.capacity, &want.bundle, true).0
        };
        room > 0 && fit::admits(&self.capacity, want)
    }

    fn remove(&mut self, serial: u64) {
        if let Some(Lease { record, own, .. }) = self.leases.remove(&serial) {
            self.taken.give_back(&record.bundle, &record.instances);
            if !own {
                self.others -= u32::from(record.bundle.slots);
            }
        }
    }

    fn serials_of(&self, home: NodeId, state: impl Fn(&State) -> bool) -> Vec<u64> {
        (self.leases.iter())
            .filter(|(_, lease)| lease.record.home().id == home && state(&lease.state))
            .map(|(serial, _)| *serial)
            .collect()
    }
}

impl Core {
    /// Grants up to `count` bundles here, of which this request has `already` some.
    pub(crate) fn grant(
        &mut self,
        request: RequestId,
        asker: &Arc<Asker>,
        want: &Want,
        count: u32,
        already: u32,
        out: &mut Vec<Output>,
    ) -> (Vec<Grant>, Option<Note>) {
        let name = self.me.name.clone();
        let note = |hindrance| Some(Note { node: name.clone(), hindrance });
        let lend = &self.lend;
        let count =
            if want.layout == Layout::Spread { count.min(1u32.saturating_sub(already)) } else { count };
        if count == 0 || lend.draining || !self.is_named(want) || !fit::admits(&lend.capacity, want) {
            return (Vec::new(), None);
        }
        if let Some(hindrance) = fit::unfit(&lend.capacity, asker) {
            return (Vec::new(), note(hindrance));
        }
        // The owner may have what others may not; who asks is found out only where there is something to have.
        let local = asker.home.id == self.me.id;
        let takes_back = local && lend.policy.own_first.is_some();
        if self.room_for(request, asker, want, local).0 == 0 && !takes_back {
            return (Vec::new(), None);
        }
        let user = match self.judge(asker, out) {
            Ok(user) => user,
            Err(hindrance) => {
                return (Vec::new(), note(hindrance));
            }
        };
        let own = local && self.lend.policy.is_owner(&user, local);
        if !own && let Some(why) = self.lend.policy.refuses_to_keep(&want.bundle) {
            return (Vec::new(), note(Hindrance::Refused(why)));
        }
        let (room, slots) = self.room_for(request, asker, want, own);
        let (room, count) = match self.below_ceiling(asker, &user, slots) {
            Ok(below) => (room.min(below), count.min(below)),
            Err(why) => return (Vec::new(), note(Hindrance::Refused(why))),
        };
        let note = match self.lend.policy.own_first {
            Some(grace) if own && room < count => {
                let after = self.take_for_owner(&want.bundle, count, grace, out);
                after.and_then(|after_ms| note(Hindrance::ComesBack { after_ms }))
            }
            _ => None,
        };
        let until = self.now + self.settings.first_life;
        let mut grants = Vec::new();
        for _ in 0..count.min(room) {
            self.lend.serial += 1;
            let serial = self.lend.serial;
            let bundle = Bundle { slots, ..want.bundle.clone() };
            let instances = self.lend.taken.take(&self.lend.capacity, &bundle);
            let record = LeaseRecord {
                serial,
                request,
                asker: asker.clone(),
                user: user.clone(),
                bundle,
                instances,
                epoch: Epoch(0),
                homes: Vec::new(),
                taken_by: None,
                granted: self.now,
            };
            if !own {
                self.lend.others += u32::from(slots);
            }
            let lease =
                Lease { record, state: State::Granted { until }, own, wanted_back: None, worker: None };
            self.lend.leases.insert(serial, lease);
            self.arm(until, Timer::Lease(serial));
            if let Some(limit_s) = want.bundle.limit_s {
                let limit = Duration::from_secs(limit_s.into());
                self.arm(self.now + limit, Timer::Lease(serial));
            }
            grants.push(Grant { serial, lender: self.me.clone(), slots });
        }
        self.upward.touched = true;
        (grants, note)
    }

    /// Whether the owner lends to this asker: the user it is, or what is in the way.
    pub(crate) fn judge(&mut self, asker: &Asker, out: &mut Vec<Output>) -> Result<String, Hindrance> {
        let user = user_of(asker, self.lend.verified(asker)).map_err(Hindrance::Refused)?;
        self.entitled(asker, &user).map_err(Hindrance::Refused)?;
        let local = asker.home.id == self.me.id;
        let plugin = asker.plugin.as_ref().map(|plugin| plugin.id);
        match self.lend.policy.judge(&user, local, plugin) {
            Judgement::Accept => Ok(user),
            Judgement::Refuse(why) => Err(Hindrance::Refused(why)),
            Judgement::Wait => {
                self.remember_waiting(asker, user, out);
                Err(Hindrance::AwaitsApproval)
            }
        }
    }

    fn remember_waiting(&mut self, asker: &Asker, user: String, out: &mut Vec<Output>) {
        let Some(plugin) = asker.plugin.as_ref().map(|plugin| plugin.id) else { return };
        let waiting = &mut self.lend.waiting;
        waiting.retain(|w| w.plugin != plugin || w.home.id != asker.home.id || w.user != user);
        if waiting.len() >= WAITING_MAX {
            waiting.pop_front();
        }
        waiting.push_back(Waiting { plugin, home: asker.home.clone(), user: user.clone() });
        out.push(Output::Awaits { asker: asker.clone(), user });
    }

    /// Why leases are not for applications at home at that node. What a denied node does with its own
    /// slots is its owner's business.
    fn denies_home(&self, home: &NodeRef) -> Option<String> {
        self.lend.policy.deny.node(home.id, &home.name).filter(|_| home.id != self.me.id)
    }

    /// Whether the pool's charter lets this asker allocate at all.
    fn entitled(&self, asker: &Asker, user: &str) -> Result<(), String> {
        let policy = &self.lend.policy;
        if let Some(why) = self.denies_home(&asker.home) {
            return Err(why);
        }
        match &policy.admission {
            Some(admission) if admission.right(asker.app, user).is_none() => {
                Err(not_admitted(asker.app, &asker.app_name, user))
            }
            _ => Ok(()),
        }
    }

    /// How many bundles of so many slots the asker's right leaves room for here; why none, if so.
    fn below_ceiling(&self, asker: &Asker, user: &str, slots: u16) -> Result<u32, String> {
        let Some(admission) = &self.lend.policy.admission else { return Ok(u32::MAX) };
        let (app, name) = (asker.app, &asker.app_name);
        let right = admission.right(app, user).ok_or_else(|| not_admitted(app, name, user))?;
        let counted =
            |record: &&LeaseRecord| admission.counts(right, (app, user), (record.asker.app, &record.user));
        let held: u32 = self.lend.all().filter(counted).map(|record| u32::from(record.bundle.slots)).sum();
        match right.ceiling().saturating_sub(held) / u32::from(slots.max(1)) {
            0 => Err(at_ceiling(name, right.ceiling())),
            room => Ok(room),
        }
    }

    /// Ends the leases that the new policy no longer stands, and those held at nodes it denies.
    fn enforce(&mut self, admission: Option<Admission>, out: &mut Vec<Output>) {
        let policy = &self.lend.policy;
        let removed = |record: &LeaseRecord| {
            let has = |admission: &Admission| admission.right(record.asker.app, &record.user).is_some();
            admission.as_ref().is_some_and(has) && policy.admission.as_ref().is_some_and(|now| !has(now))
        };
        let mut ends: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for record in self.lend.all() {
            let asker = &record.asker;
            let mut why = self.denies_home(&asker.home).or_else(|| self.denies_home(record.home()));
            if let Verified::Denied(text) = (self.lend.verify)(asker) {
                why = Some(text);
            }
            if why.is_none() && removed(record) {
                why = Some(format!("an administrator took the right of `{}` to allocate away", record.user));
            }
            if let Some(why) = why {
                ends.entry(why).or_default().push(record.serial);
            }
        }
        for (why, serials) in ends {
            self.revoke(serials, &LeaseEnd::Killed(why), out);
        }
        let deny = self.lend.policy.deny.clone();
        self.home_denies(&deny, out);
    }

    pub(crate) fn set_policy(&mut self, policy: Policy, out: &mut Vec<Output>) {
        let before = core::mem::replace(&mut self.lend.policy, policy);
        self.enforce(before.admission, out);
        for waiting in core::mem::take(&mut self.lend.waiting) {
            let home = waiting.home.id;
            let local = home == self.me.id;
            match self.lend.policy.judge(&waiting.user, local, Some(waiting.plugin)) {
                Judgement::Wait => self.lend.waiting.push_back(waiting),
                Judgement::Refuse(_) => {}
                Judgement::Accept if local => self.on_approved(waiting.plugin, out),
                Judgement::Accept => {
                    let due = self.lend.approvals.entry(home).or_default();
                    if !due.contains(&waiting.plugin) {
                        due.push(waiting.plugin);
                    }
                    if !self.is_linked(home) {
                        out.push(Output::Dial(waiting.home));
                    }
                }
            }
        }
        let linked: Vec<NodeId> = self.lend.approvals.keys().copied().collect();
        for home in linked {
            self.lend_linked(home, out);
        }
    }

    /// The lease is confirmed, or over: its first life does not end it.
    fn not_awaited(&mut self, serial: u64) {
        if let Some(&State::Granted { until }) = self.lend.leases.get(&serial).map(|lease| &lease.state) {
            self.disarm(until, Timer::Lease(serial));
        }
    }

    /// A lease for an application of this node starts at once; `false` if it was taken back while the search
    /// for others went on.
    pub(crate) fn begin_local(
        &mut self,
        serial: u64,
        epoch: Epoch,
        homes: &[NodeId],
        out: &mut Vec<Output>,
    ) -> bool {
        self.not_awaited(serial);
        let Some(lease) = self.lend.leases.get_mut(&serial) else { return false };
        lease.state = State::Live;
        lease.record.epoch = epoch;
        lease.record.homes = homes.to_vec();
        out.push(Output::Begin(lease.record.clone()));
        true
    }

    pub(crate) fn on_confirm(&mut self, from: NodeId, m: Confirm, out: &mut Vec<Output>) {
        let Some(home) = self.links.get(from).cloned() else { return };
        let denied = self.denies_home(&home).is_some();
        let (mut refused, mut known) = (Vec::new(), Vec::new());
        let mut taken: BTreeMap<NodeId, Vec<u64>> = BTreeMap::new();
        for serial in m.serials {
            let lease = self.lend.leases.get_mut(&serial).filter(|lease| {
                lease.record.asker.app == m.app && lease.state != State::Ending && {
                    // The home spoke for a user of its own name, which the link now proves.
                    let same = lease.record.home().id == from && lease.record.home().name == home.name;
                    let may = !denied && lease.record.homes.contains(&from);
                    same && m.epoch >= lease.record.epoch || may && m.epoch > lease.record.epoch
                }
            });
            match lease {
                None => refused.push(serial),
                Some(lease) => {
                    let before = core::mem::replace(&mut lease.state, State::Live);
                    lease.record.epoch = m.epoch;
                    lease.record.homes = m.homes.iter().copied().take(HOMES_MAX).collect();
                    if lease.record.home().id != from {
                        taken.entry(lease.record.home().id).or_default().push(serial);
                        lease.record.taken_by = Some(NodeRef::clone(&home));
                    }
                    if let State::Granted { until } = before {
                        self.timers.remove(&(until, Timer::Lease(serial)));
                        out.push(Output::Begin(lease.record.clone()));
                    } else {
                        known.push(serial);
                    }
                }
            }
        }
        self.send_lease(from, Confirmed { app: m.app, refused }, out);
        known.into_iter().for_each(|serial| self.tell_again(from, serial, out));
        for (before, serials) in taken {
            self.taken_over(before, serials, out);
        }
    }

    /// A home that lives on is told that another has these leases now.
    fn taken_over(&mut self, before: NodeId, serials: Vec<u64>, out: &mut Vec<Output>) {
        let end = LeaseEnd::TakenOver;
        if before == self.me.id {
            return self.revoked(before, self.me.incarnation, &serials, &end, out);
        }
        self.touched.insert(before);
        self.send_lease(before, Revoked { serials, end }, out);
    }

    /// Whether a local application may go on holding this lease of this node, which it held here before or
    /// through another of its homes.
    pub(crate) fn hold_here(&mut self, serial: u64, app: AppId, epoch: Epoch, out: &mut Vec<Output>) -> bool {
        let Some(lease) = self.lend.leases.get_mut(&serial) else { return false };
        let record = &mut lease.record;
        let before = record.home().id;
        let same = before == self.me.id && epoch >= record.epoch;
        let may = record.homes.contains(&self.me.id) && epoch > record.epoch;
        let lives = matches!(lease.state, State::Live | State::Broken { .. });
        if record.asker.app != app || !lives || !(same || may) {
            return false;
        }
        lease.state = State::Live;
        record.epoch = epoch;
        if before != self.me.id {
            record.taken_by = Some(self.me.clone());
            self.taken_over(before, vec![serial], out);
        }
        true
    }

    /// Whether another node may go on with a lease that is held here, of this very node.
    pub(crate) fn may_be_taken(&self, serial: u64) -> bool {
        self.lend.leases.get(&serial).is_some_and(|lease| !lease.record.homes.is_empty())
    }

    /// What was said of a lease while its home was out of reach was not heard.
    fn tell_again(&self, home: NodeId, serial: u64, out: &mut Vec<Output>) {
        let Some(lease) = self.lend.leases.get(&serial) else { return };
        if let Some(state) = lease.worker.clone() {
            self.send_lease(home, WorkerNews { serial, state }, out);
        }
        if let Some(until) = lease.wanted_back {
            let grace_ms = until.map(|until| (until - self.now).as_millis().min(u32::MAX.into()) as u32);
            self.send_lease(home, Reclaiming { serials: vec![serial], grace_ms }, out);
        }
    }

    pub(crate) fn on_release(&mut self, from: NodeId, m: Release, out: &mut Vec<Output>) {
        for serial in m.serials {
            let theirs = |lease: &Lease| lease.record.home().id == from;
            if self.lend.leases.get(&serial).is_some_and(theirs) {
                self.finish_lease(serial, LeaseEnd::Released, out);
            }
        }
    }

    /// Ends a lease. Its home is not told: see [`Core::revoke`].
    pub(crate) fn finish_lease(&mut self, serial: u64, end: LeaseEnd, out: &mut Vec<Output>) {
        self.not_awaited(serial);
        let Some(lease) = self.lend.leases.get_mut(&serial) else { return };
        self.touched.insert(lease.record.home().id);
        match lease.state {
            State::Ending => {}
            State::Granted { .. } => {
                self.lend.remove(serial);
                self.upward.touched = true;
            }
            State::Live | State::Broken { .. } => {
                lease.state = State::Ending;
                out.push(Output::Finish { serial, end });
            }
        }
    }

    /// Ends leases against the will of their home, and tells it.
    pub(crate) fn revoke(&mut self, serials: Vec<u64>, end: &LeaseEnd, out: &mut Vec<Output>) {
        let mut by_home: BTreeMap<NodeId, Vec<u64>> = BTreeMap::new();
        for serial in serials {
            let Some(lease) = self.lend.leases.get(&serial) else { continue };
            if lease.state != State::Ending {
                by_home.entry(lease.record.home().id).or_default().push(serial);
                self.finish_lease(serial, end.clone(), out);
            }
        }
        for (home, serials) in by_home {
            if home == self.me.id {
                self.revoked(self.me.id, self.me.incarnation, &serials, end, out);
            } else {
                for serials in serials.chunks(1024) {
                    self.send_lease(home, Revoked { serials: serials.to_vec(), end: end.clone() }, out);
                }
            }
        }
    }

    pub(crate) fn end_lease(&mut self, serial: u64, end: LeaseEnd, out: &mut Vec<Output>) {
        let Some(record) = self.lend.record(serial) else { return };
        if end != LeaseEnd::Reclaimed || record.bundle.reclaimable {
            self.revoke(vec![serial], &end, out);
        }
    }

    /// Takes back what was granted for `request` and nobody confirmed.
    pub(crate) fn take_back(&mut self, request: RequestId, out: &mut Vec<Output>) {
        let serials: Vec<u64> = (self.lend.leases.iter())
            .filter(|(_, lease)| {
                lease.record.request == request && matches!(lease.state, State::Granted { .. })
            })
            .map(|(serial, _)| *serial)
            .collect();
        for serial in serials {
            self.finish_lease(serial, LeaseEnd::Unconfirmed, out);
        }
    }

    pub(crate) fn worker_gone(&mut self, serial: u64) {
        if self.lend.leases.get(&serial).is_some_and(|lease| lease.state == State::Ending) {
            self.lend.remove(serial);
            self.upward.touched = true;
        }
    }

    pub(crate) fn worker_news(&mut self, serial: u64, state: WorkerState, out: &mut Vec<Output>) {
        let Some(lease) = self.lend.leases.get_mut(&serial) else { return };
        let home = lease.record.home().id;
        if lease.state == State::Ending {
            return;
        }
        lease.worker = Some(state.clone());
        if home == self.me.id {
            self.home_worker_news(self.me.id, self.me.incarnation, serial, state, out);
        } else {
            self.send_lease(home, WorkerNews { serial, state }, out);
        }
    }

    pub(crate) fn lease_time(&mut self, serial: u64, out: &mut Vec<Output>) {
        let Some(lease) = self.lend.leases.get(&serial) else { return };
        let end = match lease.state {
            State::Granted { until } if until <= self.now => LeaseEnd::Unconfirmed,
            State::Broken { until } if until <= self.now => LeaseEnd::Lapsed,
            State::Ending => return,
            _ if matches!(lease.wanted_back, Some(Some(until)) if until <= self.now) => LeaseEnd::Reclaimed,
            _ => {
                let limit = lease.record.bundle.limit_s;
                let over = |s: u32| self.now - lease.record.granted >= Duration::from_secs(s.into());
                if !limit.is_some_and(over) {
                    return;
                }
                LeaseEnd::LimitReached
            }
        };
        self.revoke(vec![serial], &end, out);
    }

    pub(crate) fn lend_linked(&mut self, id: NodeId, out: &mut Vec<Output>) {
        if !self.is_linked(id) {
            return;
        }
        for plugin in self.lend.approvals.remove(&id).into_iter().flatten() {
            self.send_lease(id, PluginApproved { plugin }, out);
            self.touched.insert(id);
        }
    }

    pub(crate) fn lend_lost(&mut self, id: NodeId) {
        let until = self.now + self.settings.lapse;
        for serial in self.lend.serials_of(id, |state| *state == State::Live) {
            if let Some(lease) = self.lend.leases.get_mut(&serial) {
                lease.state = State::Broken { until };
            }
            self.arm(until, Timer::Lease(serial));
        }
    }

    pub(crate) fn lend_leaves(&mut self, out: &mut Vec<Output>) {
        let serials: Vec<u64> = self.lend.leases.keys().copied().collect();
        self.revoke(serials, &LeaseEnd::Leaving, out);
    }
}
