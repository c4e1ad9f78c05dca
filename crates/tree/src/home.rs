//! The leases that local applications hold, here or elsewhere.

use crate::core::{Core, Timer};
use crate::io::{Output, Table};
use crate::rules::Deny;
use mutirao_wire::lease::{
    Confirm, Confirmed, LeaseEnd, Reclaiming, Release, Revoked, WorkerNews, WorkerState,
};
use mutirao_wire::limits::HOMES_MAX;
use mutirao_wire::local::LeaseChange;
use mutirao_wire::node::Grant;
use mutirao_wire::{AppId, Epoch, Incarnation, LeaseId, NodeId, NodeRef, PluginId, Tick};
use std::collections::{BTreeMap, BTreeSet};

/// Plugins remembered for one application.
const PLUGINS_MAX: usize = 8;
/// Serials in one message.
const SERIALS_A_MESSAGE: usize = 1024;

/// The holding half of a node.
#[derive(Default)]
pub(crate) struct Home {
    apps: BTreeMap<AppId, App>,
    leases: BTreeMap<LeaseId, Held>,
    /// Lenders to be dialled again, and how often that failed.
    redials: BTreeMap<NodeId, u32>,
    /// Lenders that are told in a moment what is held of them.
    unhurried: BTreeMap<NodeId, NodeRef>,
}

#[derive(Default)]
struct App {
    epoch: Epoch,
    /// Where it may go on, if that is not here only.
    homes: Vec<NodeId>,
    /// It shares memory with workers of this node.
    rings: bool,
    plugins: BTreeSet<PluginId>,
    leases: BTreeSet<LeaseId>,
    /// Its program is gone, and until then it may come back or go on elsewhere.
    gone_until: Option<Tick>,
}

struct Held {
    app: AppId,
    lender: NodeRef,
    state: State,
    /// A `Confirm` was sent on the present link.
    asked: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Found, not confirmed yet.
    Fresh { until: Tick },
    /// Confirmed, and the lender is linked or is this node.
    Live,
    /// The lender is out of reach.
    Broken { until: Tick },
    /// Not held any more; the lender is to be told once it can be reached.
    Releasing { until: Tick },
}

impl Home {
    fn with(&self, lender: NodeId) -> impl Iterator<Item = (&LeaseId, &Held)> {
        let first = LeaseId { lender, incarnation: Incarnation(0), serial: 0 };
        let last = LeaseId { lender, incarnation: Incarnation(u64::MAX), serial: u64::MAX };
        self.leases.range(first..=last)
    }

    /// See [`Core::rest`].
    pub(crate) fn rest(&mut self) {
        if self.leases.is_empty() {
            self.leases = BTreeMap::new();
        }
        if self.apps.is_empty() {
            self.apps = BTreeMap::new();
        }
    }

    pub(crate) fn needs(&self, lender: NodeId) -> bool {
        self.with(lender).next().is_some()
    }

    pub(crate) fn held(&self, app: AppId) -> impl Iterator<Item = LeaseId> {
        self.apps.get(&app).into_iter().flat_map(|app| app.leases.iter().copied())
    }

    pub(crate) fn apps(&self) -> impl Iterator<Item = AppId> {
        self.apps.keys().copied()
    }

    fn drop_lease(&mut self, lease: LeaseId) -> Option<Held> {
        let held = self.leases.remove(&lease)?;
        if let Some(app) = self.apps.get_mut(&held.app) {
            app.leases.remove(&lease);
        }
        Some(held)
    }
}

impl Core {
    /// Makes an application known; `false` if there are too many.
    pub(crate) fn know_app(&mut self, app: AppId, plugin: Option<PluginId>, out: &mut Vec<Output>) -> bool {
        if !self.home.apps.contains_key(&app) && self.home.apps.len() >= self.settings.apps_max {
            out.push(Output::Full(Table::Apps));
            return false;
        }
        let known = self.home.apps.entry(app).or_default();
        if let Some(plugin) = plugin
            && known.plugins.len() < PLUGINS_MAX
        {
            known.plugins.insert(plugin);
        }
        true
    }

    /// Leases the home can still take on.
    pub(crate) fn held_room(&self) -> usize {
        self.settings.held_max.saturating_sub(self.home.leases.len())
    }

    /// Takes over what a search found for a local application. Lenders of `bare` slots, where no worker
    /// waits to be started, are told a moment later: the application hears of its slots first.
    pub(crate) fn take_grants(&mut self, app: AppId, grants: &[Grant], bare: bool, out: &mut Vec<Output>) {
        let Some(known) = self.home.apps.get(&app) else { return };
        // A worker that shares memory with a program ends with it.
        let homes = if known.rings { Vec::new() } else { known.homes.clone() };
        let epoch = known.epoch;
        let until = self.now + self.settings.first_life + self.settings.margin;
        let mut lenders = BTreeMap::new();
        for grant in grants {
            let lease = grant.lease();
            let local = grant.lender.id == self.me.id;
            let state = if local { State::Live } else { State::Fresh { until } };
            self.keep(lease, Held { app, lender: grant.lender.clone(), state, asked: false });
            if local {
                if !self.begin_local(grant.serial, epoch, &homes, out) {
                    self.lose(lease, LeaseEnd::Reclaimed, out);
                }
            } else {
                self.arm(until, Timer::Held(lease));
                lenders.insert(grant.lender.id, grant.lender.clone());
            }
        }
        if bare {
            self.home.unhurried.append(&mut lenders);
            self.arm(self.now + self.settings.unhurried, Timer::Confirm);
        }
        self.reach(lenders, out);
    }

    /// Tells the lenders that could wait.
    pub(crate) fn confirm_time(&mut self, out: &mut Vec<Output>) {
        let mut lenders = core::mem::take(&mut self.home.unhurried);
        lenders.retain(|id, _| self.home.needs(*id));
        self.reach(lenders, out);
    }

    fn keep(&mut self, lease: LeaseId, held: Held) {
        if let Some(app) = self.home.apps.get_mut(&held.app) {
            app.leases.insert(lease);
            self.home.leases.insert(lease, held);
        }
    }

    /// Confirms with lenders that are linked, dials the others.
    fn reach(&mut self, lenders: BTreeMap<NodeId, NodeRef>, out: &mut Vec<Output>) {
        for (id, lender) in lenders {
            if self.is_linked(id) {
                self.home_linked(id, out);
            } else {
                out.push(Output::Dial(lender));
            }
        }
    }

    /// Says to a lender which of its leases are held, and which are not any more.
    pub(crate) fn home_linked(&mut self, id: NodeId, out: &mut Vec<Output>) {
        self.home.redials.remove(&id);
        let Some(life) = self.links.get(id).map(|node| node.incarnation) else { return };
        let leases: Vec<LeaseId> = self.home.with(id).map(|(lease, _)| *lease).collect();
        let mut confirm: BTreeMap<AppId, Vec<u64>> = BTreeMap::new();
        let mut release = Vec::new();
        for lease in leases {
            let Some(held) = self.home.leases.get_mut(&lease) else { continue };
            let releasing = matches!(held.state, State::Releasing { .. });
            if lease.incarnation != life {
                if lease.incarnation < life {
                    self.lose(lease, LeaseEnd::LenderLost, out);
                }
            } else if releasing {
                release.push(lease.serial);
                self.home.leases.remove(&lease);
                self.touched.insert(id);
            } else if !held.asked {
                held.asked = true;
                confirm.entry(held.app).or_default().push(lease.serial);
            }
        }
        for (app, serials) in confirm {
            let known = self.home.apps.get(&app);
            let (epoch, homes) = known.map(|app| (app.epoch, app.homes.clone())).unwrap_or_default();
            for serials in serials.chunks(SERIALS_A_MESSAGE) {
                let (homes, serials) = (homes.clone(), serials.to_vec());
                self.send_lease(id, Confirm { app, epoch, homes, serials }, out);
            }
        }
        self.send_release(id, &release, out);
    }

    fn send_release(&self, lender: NodeId, serials: &[u64], out: &mut Vec<Output>) {
        for serials in serials.chunks(SERIALS_A_MESSAGE) {
            self.send_lease(lender, Release { serials: serials.to_vec() }, out);
        }
    }

    pub(crate) fn on_confirmed(&mut self, from: NodeId, m: Confirmed, out: &mut Vec<Output>) {
        let Some(life) = self.links.get(from).map(|node| node.incarnation) else { return };
        let refused: BTreeSet<u64> = m.refused.into_iter().collect();
        let theirs: Vec<LeaseId> = (self.home.with(from))
            .filter(|(lease, held)| held.app == m.app && held.asked && lease.incarnation == life)
            .map(|(lease, _)| *lease)
            .collect();
        for lease in theirs {
            if refused.contains(&lease.serial) {
                self.lose(lease, LeaseEnd::Unknown, out);
            } else if let Some(held) = self.home.leases.get_mut(&lease) {
                let restored = matches!(held.state, State::Broken { .. });
                held.state = State::Live;
                if restored {
                    self.tell_app(m.app, lease, LeaseChange::Restored, out);
                }
            }
        }
    }

    /// Leases lent by a node that the pool denies are over.
    pub(crate) fn home_denies(&mut self, deny: &Deny, out: &mut Vec<Output>) {
        let lenders: BTreeMap<NodeId, String> =
            (self.home.leases.iter()).map(|(lease, held)| (lease.lender, held.lender.name.clone())).collect();
        for (lender, name) in lenders {
            let Some(why) = deny.node(lender, &name).filter(|_| lender != self.me.id) else { continue };
            let leases: Vec<LeaseId> = self.home.with(lender).map(|(lease, _)| *lease).collect();
            let serials: Vec<u64> = leases.iter().map(|lease| lease.serial).collect();
            self.send_release(lender, &serials, out);
            for lease in leases {
                self.lose(lease, LeaseEnd::Killed(why.clone()), out);
            }
        }
    }

    /// What happened to a lease of an application, for its program if that is there.
    fn tell_app(&self, app: AppId, lease: LeaseId, change: LeaseChange, out: &mut Vec<Output>) {
        let is_gone = self.home.apps.get(&app).is_some_and(|app| app.gone_until.is_some());
        if !is_gone {
            out.push(Output::News { app, lease, change });
        }
    }

    /// A lease is no more, and its application hears why.
    fn lose(&mut self, lease: LeaseId, end: LeaseEnd, out: &mut Vec<Output>) {
        let Some(held) = self.home.drop_lease(lease) else { return };
        self.touched.insert(lease.lender);
        if !matches!(held.state, State::Releasing { .. }) {
            self.tell_app(held.app, lease, LeaseChange::Ended(end), out);
        }
    }

    pub(crate) fn on_revoked(&mut self, from: NodeId, m: Revoked, out: &mut Vec<Output>) {
        let Some(life) = self.links.get(from).map(|node| node.incarnation) else { return };
        self.revoked(from, life, &m.serials, &m.end, out);
    }

    pub(crate) fn revoked(
        &mut self,
        lender: NodeId,
        incarnation: Incarnation,
        serials: &[u64],
        end: &LeaseEnd,
        out: &mut Vec<Output>,
    ) {
        for &serial in serials {
            self.lose(LeaseId { lender, incarnation, serial }, end.clone(), out);
        }
    }

    pub(crate) fn on_worker_news(&mut self, from: NodeId, m: WorkerNews, out: &mut Vec<Output>) {
        let Some(life) = self.links.get(from).map(|node| node.incarnation) else { return };
        self.home_worker_news(from, life, m.serial, m.state, out);
    }

    pub(crate) fn home_worker_news(
        &mut self,
        lender: NodeId,
        incarnation: Incarnation,
        serial: u64,
        state: WorkerState,
        out: &mut Vec<Output>,
    ) {
        let lease = LeaseId { lender, incarnation, serial };
        let change = match state {
            WorkerState::Fetching => LeaseChange::Fetching,
            WorkerState::Starting => return,
            WorkerState::Ready => LeaseChange::Ready,
        };
        if let Some(held) = self.home.leases.get(&lease)
            && !matches!(held.state, State::Releasing { .. })
        {
            self.tell_app(held.app, lease, change, out);
        }
    }

    pub(crate) fn on_reclaiming(&mut self, from: NodeId, m: Reclaiming, out: &mut Vec<Output>) {
        let Some(life) = self.links.get(from).map(|node| node.incarnation) else { return };
        self.reclaiming(from, life, &m.serials, m.grace_ms, out);
    }

    /// The lender wants these leases back: their applications are told.
    pub(crate) fn reclaiming(
        &mut self,
        lender: NodeId,
        incarnation: Incarnation,
        serials: &[u64],
        grace_ms: Option<u32>,
        out: &mut Vec<Output>,
    ) {
        for &serial in serials {
            let lease = LeaseId { lender, incarnation, serial };
            if let Some(held) = self.home.leases.get(&lease)
                && !matches!(held.state, State::Releasing { .. })
            {
                self.tell_app(held.app, lease, LeaseChange::Reclaiming { grace_ms }, out);
            }
        }
    }

    pub(crate) fn on_approved(&mut self, plugin: PluginId, out: &mut Vec<Output>) {
        for (app, known) in &self.home.apps {
            if known.plugins.contains(&plugin) {
                out.push(Output::Approved { app: *app, plugin });
            }
        }
    }

    pub(crate) fn hold_again(
        &mut self,
        app: AppId,
        epoch: Epoch,
        homes: Vec<NodeId>,
        plugin: Option<PluginId>,
        leases: Vec<(u64, NodeRef)>,
        out: &mut Vec<Output>,
    ) {
        let known = self.know_app(app, plugin, out);
        let mut forgotten = BTreeSet::new();
        if let Some(known) = self.home.apps.get_mut(&app) {
            known.epoch = known.epoch.max(epoch);
            known.homes = homes;
            known.homes.truncate(HOMES_MAX);
            known.gone_until = None;
            forgotten.clone_from(&known.leases);
        }
        let until = self.now + self.settings.lapse + self.settings.margin;
        let mut lenders = BTreeMap::new();
        for (serial, lender) in leases {
            let lease = LeaseId { lender: lender.id, incarnation: lender.incarnation, serial };
            forgotten.remove(&lease);
            let here = lender.id == self.me.id;
            if let Some(held) = self.home.leases.get_mut(&lease) {
                let change = match held.state {
                    State::Live if held.app == app => LeaseChange::Restored,
                    State::Fresh { .. } | State::Broken { .. } if held.app == app => LeaseChange::Broken,
                    _ => LeaseChange::Ended(LeaseEnd::Unknown),
                };
                // The lender is to hear of the higher epoch, or a home of one in between could take the lease.
                held.asked &= held.app != app;
                out.push(Output::News { app, lease, change });
                if here {
                    self.hold_here(serial, app, epoch, out);
                } else {
                    lenders.insert(lender.id, lender);
                }
                continue;
            }
            let end = if here {
                if lender.incarnation != self.me.incarnation {
                    Some(LeaseEnd::LenderLost)
                } else {
                    (!self.hold_here(serial, app, epoch, out)).then_some(LeaseEnd::Unknown)
                }
            } else if !known || self.held_room() == 0 {
                out.push(Output::Full(Table::Held));
                Some(LeaseEnd::Released)
            } else {
                None
            };
            if let Some(end) = end {
                out.push(Output::News { app, lease, change: LeaseChange::Ended(end) });
                continue;
            }
            let state = if here { State::Live } else { State::Broken { until } };
            self.keep(lease, Held { app, lender: lender.clone(), state, asked: false });
            if here {
                out.push(Output::News { app, lease, change: LeaseChange::Restored });
            } else {
                self.arm(until, Timer::Held(lease));
                lenders.insert(lender.id, lender);
            }
        }
        self.release(forgotten.into_iter().collect(), out);
        self.reach(lenders, out);
    }

    /// Whether an application shares memory with the workers that it gets on this node from now on.
    pub(crate) fn has_rings(&mut self, app: AppId, rings: bool) {
        if let Some(app) = self.home.apps.get_mut(&app) {
            app.rings = rings;
        }
    }

    pub(crate) fn give_back(&mut self, app: AppId, leases: Vec<LeaseId>, out: &mut Vec<Output>) {
        let theirs = leases.into_iter().filter(|lease| {
            self.home
                .leases
                .get(lease)
                .is_some_and(|held| held.app == app && !matches!(held.state, State::Releasing { .. }))
        });
        let theirs: Vec<LeaseId> = theirs.collect();
        self.release(theirs, out);
    }

    fn release(&mut self, leases: Vec<LeaseId>, out: &mut Vec<Output>) {
        let until = self.now + self.settings.lapse + self.settings.margin;
        let mut by_lender: BTreeMap<NodeId, Vec<u64>> = BTreeMap::new();
        for lease in leases {
            let Some(mut held) = self.home.drop_lease(lease) else { continue };
            self.touched.insert(lease.lender);
            if lease.lender == self.me.id {
                self.finish_lease(lease.serial, LeaseEnd::Released, out);
            } else if self.links.get(lease.lender).is_some_and(|n| n.incarnation == lease.incarnation) {
                by_lender.entry(lease.lender).or_default().push(lease.serial);
            } else if !self.is_linked(lease.lender) {
                held.state = State::Releasing { until };
                self.arm(until, Timer::Held(lease));
                self.home.leases.insert(lease, held);
            }
        }
        for (lender, serials) in by_lender {
            self.send_release(lender, &serials, out);
        }
    }

    pub(crate) fn app_gone(&mut self, app: AppId, out: &mut Vec<Output>) {
        self.cancel_requests_of(app, out);
        let goes_on = self.home.apps.get(&app).is_some_and(|app| !app.homes.is_empty());
        let (kept, over): (Vec<LeaseId>, Vec<LeaseId>) =
            self.home.held(app).partition(|lease| goes_on && self.may_go_on(*lease));
        self.release(over, out);
        if kept.is_empty() {
            self.home.apps.remove(&app);
            return;
        }
        let until = self.now + self.settings.lapse;
        if let Some(app) = self.home.apps.get_mut(&app) {
            app.gone_until = Some(until);
        }
        self.arm(until, Timer::Gone(app));
    }

    /// Whether a home of its application could go on with a lease: one elsewhere, or here with a worker that shares
    /// no memory with the program.
    fn may_go_on(&self, lease: LeaseId) -> bool {
        lease.lender != self.me.id || self.may_be_taken(lease.serial)
    }

    /// Nobody has gone on with what an application held.
    pub(crate) fn gone_time(&mut self, app: AppId, out: &mut Vec<Output>) {
        let gone = self.home.apps.get(&app).and_then(|app| app.gone_until);
        if gone.is_some_and(|until| until <= self.now) {
            let leases: Vec<LeaseId> = self.home.held(app).collect();
            self.release(leases, out);
            self.home.apps.remove(&app);
        }
    }

    pub(crate) fn home_lost(&mut self, id: NodeId, out: &mut Vec<Output>) {
        let until = self.now + self.settings.lapse + self.settings.margin;
        let leases: Vec<LeaseId> = self.home.with(id).map(|(lease, _)| *lease).collect();
        for lease in &leases {
            let Some(held) = self.home.leases.get_mut(lease) else { continue };
            held.asked = false;
            if held.state == State::Live {
                held.state = State::Broken { until };
                let app = held.app;
                self.tell_app(app, *lease, LeaseChange::Broken, out);
                self.arm(until, Timer::Held(*lease));
            }
        }
        self.redial(id, out);
    }

    /// Dials a lender of whom leases are held. Leases of an earlier life show its address as well.
    pub(crate) fn redial(&mut self, id: NodeId, out: &mut Vec<Output>) {
        if !self.is_linked(id)
            && !self.leaving
            && let Some((_, held)) = self.home.with(id).last()
        {
            out.push(Output::Dial(held.lender.clone()));
        }
    }

    pub(crate) fn home_unreachable(&mut self, id: NodeId) {
        if !self.home.needs(id) {
            self.home.redials.remove(&id);
            return;
        }
        let failures = self.home.redials.entry(id).or_default();
        let pause = (self.settings.retry * (1 << (*failures).min(16))).min(self.settings.retry_max);
        *failures = failures.saturating_add(1);
        self.arm(self.now + pause, Timer::Redial(id));
    }

    pub(crate) fn held_time(&mut self, lease: LeaseId, out: &mut Vec<Output>) {
        let Some(held) = self.home.leases.get(&lease) else { return };
        let (State::Fresh { until } | State::Broken { until } | State::Releasing { until }) = held.state
        else {
            return;
        };
        if until <= self.now {
            // It may be linked and silent about this one lease: then it is told to end it.
            self.send_release(lease.lender, &[lease.serial], out);
            self.lose(lease, LeaseEnd::LenderLost, out);
        }
    }

    pub(crate) fn home_leaves(&mut self, out: &mut Vec<Output>) {
        let apps: Vec<AppId> = self.home.apps().collect();
        for app in apps {
            self.cancel_requests_of(app, out);
            let mut leases: Vec<LeaseId> = self.home.held(app).collect();
            for &lease in &leases {
                self.tell_app(app, lease, LeaseChange::Ended(LeaseEnd::Leaving), out);
            }
            if self.home.apps.get(&app).is_some_and(|app| !app.homes.is_empty()) {
                // To their lenders this node is merely lost, so that another home may go on.
                for lease in leases.extract_if(.., |lease| lease.lender != self.me.id) {
                    self.home.drop_lease(lease);
                }
            }
            self.release(leases, out);
        }
    }
}
