//! What is kept free for requests that wait, on this node and below it.
//!
//! A reservation comes from the arbiter (this node or one above) and goes down to every child that could
//! serve it; it lives as long as the edge it came over. A node keeps what is free on it for the first of
//! the reservations it knows, then for the second, and so on, and tells upwards how much that is. What is
//! kept is no lease: a reservation that comes first takes it over at once.

use crate::core::Core;
use crate::fit::{self, Taken, amounts};
use crate::io::{Output, Table};
use crate::search::Scope;
use core::time::Duration;
use mutirao_wire::node::{Asker, Bundle, Hindrance, Layout, Resource, Want};
use mutirao_wire::wait::{Gathered, Rank, Reserve, Unreserve};
use mutirao_wire::{NodeId, RequestId, Tick};
use std::collections::{BTreeMap, BTreeSet};

/// Points in time told of one reservation.
const SOON_MAX: usize = 8;
/// Reservations, first ones first, for which a node works out what comes free when.
const FORESEEN_MAX: usize = 8;
/// Reservations over again only because of a new expected start: so often at most, and only if it moved
/// by as much.
const START_AGAIN: Duration = Duration::from_secs(1);
const START_MOVED: Duration = Duration::from_millis(100);

/// The reservations known to this node.
#[derive(Default)]
pub(crate) struct Keeps {
    all: BTreeMap<RequestId, Keep>,
    order: BTreeSet<(Rank, RequestId)>,
}

/// One reservation.
pub(crate) struct Keep {
    pub(crate) rank: Rank,
    /// What is wanted; the count is the most that is to be kept.
    pub(crate) want: Want,
    pub(crate) asker: Asker,
    /// When the request is expected to be served.
    pub(crate) start: Option<Tick>,
    /// It came from the parent; otherwise this node is the arbiter.
    pub(crate) above: bool,
    edges: BTreeMap<NodeId, Edge>,
    pub(crate) here: Here,
    told: Option<Kept>,
}

/// How much is kept for one request.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Kept {
    /// Bundles that could be granted now.
    pub(crate) held: u32,
    /// Bundles that could be granted if nothing were lent.
    pub(crate) able: u32,
    /// Bundles that come free by then at the latest, in order of time.
    pub(crate) soon: Vec<(Tick, u32)>,
}

/// A child that was told.
struct Edge {
    kept: Kept,
    /// It has answered.
    reported: bool,
    /// What it was told last, and when.
    rank: Rank,
    count: u32,
    start: Option<Tick>,
    sent: Tick,
}

/// This node itself.
#[derive(Default)]
pub(crate) struct Here {
    pub(crate) kept: Kept,
    /// What is set aside: whole bundles, and what gathers until it is one.
    pub(crate) aside: Option<Bundle>,
    /// Why nothing is ever granted here.
    pub(crate) hindrance: Option<String>,
}

impl Kept {
    fn add(&mut self, other: &Kept) {
        self.held = self.held.saturating_add(other.held);
        self.able = self.able.saturating_add(other.able);
        self.soon.extend_from_slice(&other.soon);
    }

    /// No more than `most`, in few words.
    fn cut(&mut self, most: u32) {
        self.held = self.held.min(most);
        self.able = self.able.min(most);
        self.soon.sort_unstable();
        let mut left = most - self.held;
        self.soon.retain_mut(|(_, count)| {
            *count = left.min(*count);
            left -= *count;
            *count > 0
        });
        // Later than it will be is safe to believe, earlier is not.
        while self.soon.len() > SOON_MAX {
            let nearest = (0..self.soon.len() - 1).min_by_key(|at| self.soon[at + 1].0 - self.soon[*at].0);
            let Some(at) = nearest else { return };
            let (_, count) = self.soon.remove(at);
            self.soon[at].1 += count;
        }
    }

    /// When `need` bundles are there at the latest.
    pub(crate) fn start(&self, now: Tick, need: u32) -> Option<Tick> {
        let mut held = self.held;
        if held >= need {
            return Some(now);
        }
        self.soon.iter().find_map(|(at, count)| {
            held = held.saturating_add(*count);
            (held >= need).then_some(*at)
        })
    }
}

impl Keep {
    /// What is kept here and below.
    pub(crate) fn kept(&self) -> Kept {
        let mut sum = self.here.kept.clone();
        self.edges.values().for_each(|edge| sum.add(&edge.kept));
        sum.cut(self.want.count);
        sum
    }

    /// All that were told have answered.
    pub(crate) fn is_known(&self) -> bool {
        self.edges.values().all(|edge| edge.reported)
    }

    pub(crate) fn held_below(&self, child: NodeId) -> u32 {
        self.edges.get(&child).map_or(0, |edge| edge.kept.held)
    }

    /// Whether a lease of this limit, begun now, is over before this request is expected to be served.
    fn lets_pass(&self, now: Tick, limit_s: Option<u32>) -> bool {
        let (Some(start), Some(limit_s)) = (self.start, limit_s) else { return false };
        now + Duration::from_secs(limit_s.into()) <= start
    }
}

impl Keeps {
    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(crate) fn get(&self, request: RequestId) -> Option<&Keep> {
        self.all.get(&request)
    }

    pub(crate) fn ids(&self) -> Vec<RequestId> {
        self.order.iter().map(|(_, request)| *request).collect()
    }

    fn insert(&mut self, request: RequestId, keep: Keep) {
        self.remove(request);
        self.order.insert((keep.rank, request));
        self.all.insert(request, keep);
    }

    fn remove(&mut self, request: RequestId) -> Option<Keep> {
        let keep = self.all.remove(&request)?;
        self.order.remove(&(keep.rank, request));
        Some(keep)
    }

    fn set_rank(&mut self, request: RequestId, rank: Rank) {
        if let Some(keep) = self.all.get_mut(&request) {
            self.order.remove(&(keep.rank, request));
            keep.rank = rank;
            self.order.insert((rank, request));
        }
    }

    pub(crate) fn set_start(&mut self, request: RequestId, start: Option<Tick>) {
        if let Some(keep) = self.all.get_mut(&request) {
            keep.start = start;
        }
    }

    /// Children that are none any more have nothing for anybody.
    pub(crate) fn forget_children(&mut self, lost: impl Fn(&NodeId) -> bool) -> bool {
        let mut any = false;
        for keep in self.all.values_mut() {
            let before = keep.edges.len();
            keep.edges.retain(|child, _| !lost(child));
            any |= keep.edges.len() != before;
        }
        any
    }
}

/// The name under which a request waits, whichever attempt of it searches.
pub(crate) fn waiting_name(request: RequestId) -> RequestId {
    RequestId { attempt: 0, ..request }
}

impl Core {
    /// Slots of this node that are free and kept for requests that wait.
    pub fn kept(&self) -> u16 {
        let aside = self.keeps.all.values().filter_map(|keep| keep.here.aside.as_ref());
        let kept = aside.map(|bundle| u32::from(bundle.slots)).fold(0, u32::saturating_add);
        // Two may wait for the same slots, one of them only for as long as the other lets it.
        kept.min(self.lend.free().into()) as u16
    }

    /// Slots of this node that are free and kept for those that come before.
    pub(crate) fn kept_before(&self, rank: Rank, request: RequestId) -> u16 {
        let before = self.keeps.order.range(..(rank, request));
        let aside = before.filter_map(|(_, request)| self.keeps.all.get(request)?.here.aside.as_ref());
        let kept = aside.map(|bundle| u32::from(bundle.slots)).fold(0, u32::saturating_add);
        kept.min(self.lend.free().into()) as u16
    }

    /// How many bundles this request may be granted here now, and the slots of one: what is free less
    /// what is kept for those before it. Who does not wait comes after all who do.
    /// `own`: it is the owner's, at home here, who may have what is withheld from others.
    pub(crate) fn room_for(&self, request: RequestId, asker: &Asker, want: &Want, own: bool) -> (u32, u16) {
        if self.keeps.is_empty() {
            return self.lend.room(&want.bundle, own);
        }
        let request = waiting_name(request);
        let keep = self.keeps.get(request).filter(|keep| keep.asker.home.id == asker.home.id);
        let before = keep.map(|keep| (keep.rank, request));
        let (taken, idle) = self.taken_before(before, want.bundle.limit_s, own);
        taken.room(&self.lend.capacity, &want.bundle, idle)
    }

    /// Bundles below a child that are kept for this request, or that others who wait let it have.
    pub(crate) fn kept_below(&self, request: RequestId, want: &Want, child: NodeId) -> u32 {
        if self.keeps.is_empty() {
            return 0;
        }
        if let Some(keep) = self.keeps.get(waiting_name(request)) {
            return keep.held_below(child);
        }
        let lets_pass = |keep: &&Keep| keep.lets_pass(self.now, want.bundle.limit_s);
        self.keeps.all.values().filter(lets_pass).map(|keep| keep.held_below(child)).max().unwrap_or(0)
    }

    /// What is lent or kept for those that come before; `None`: for all that wait. And whether there is
    /// nothing of the kind.
    fn taken_before(
        &self,
        before: Option<(Rank, RequestId)>,
        limit_s: Option<u32>,
        own: bool,
    ) -> (Taken, bool) {
        let (mut taken, mut idle) = self.lend.taken(own);
        for (rank, request) in &self.keeps.order {
            if before.is_some_and(|before| before <= (*rank, *request)) {
                break;
            }
            let Some(keep) = self.keeps.all.get(request) else { continue };
            if let Some(aside) = &keep.here.aside
                && !keep.lets_pass(self.now, limit_s)
            {
                taken.take(&self.lend.capacity, aside);
                idle = false;
            }
        }
        (taken, idle)
    }

    /// Deals what is free here out to the reservations, in their order.
    pub(crate) fn deal_out(&mut self) {
        let mut changed = false;
        for (place, request) in self.keeps.ids().into_iter().enumerate() {
            let Some(keep) = self.keeps.all.get(&request) else { continue };
            let mut here = Here { hindrance: keep.here.hindrance.clone(), ..Here::default() };
            here.kept.able = keep.here.kept.able;
            let most = here.kept.able.min(keep.want.count);
            if most > 0 {
                let limit_s = keep.want.bundle.limit_s;
                let (taken, idle) = self.taken_before(Some((keep.rank, request)), limit_s, false);
                let bundle = &keep.want.bundle;
                here.kept.held = taken.room(&self.lend.capacity, bundle, idle).0.min(most);
                here.aside = self.set_aside(&taken, bundle, most);
                if here.kept.held < most && place < FORESEEN_MAX {
                    here.kept.soon = self.foresee(taken, &keep.want, here.kept.held, most);
                }
            }
            changed |= here.aside != keep.here.aside;
            if let Some(keep) = self.keeps.all.get_mut(&request) {
                keep.here = here;
            }
        }
        self.upward.touched |= changed;
    }

    /// What of the free amounts is kept for `most` bundles, also where it does not make a whole one yet.
    fn set_aside(&self, taken: &Taken, bundle: &Bundle, most: u32) -> Option<Bundle> {
        let capacity = &self.lend.capacity;
        let free = taken.slots_free(capacity);
        let wanted = |each: u32| each.saturating_mul(most);
        let slots = if bundle.exclusive { u32::MAX } else { wanted(bundle.slots.max(1).into()) };
        let resources = amounts(bundle).into_iter().map(|(name, amount)| Resource {
            name: name.to_owned(),
            amount: wanted(amount).min(taken.resource_free(capacity, name)),
        });
        let aside = Bundle {
            slots: slots.min(free.into()) as u16,
            memory_mib: wanted(bundle.memory_mib).min(taken.memory_free_mib(capacity)),
            resources: resources.filter(|resource| resource.amount > 0).collect(),
            ..Bundle::default()
        };
        (aside.slots > 0).then_some(aside)
    }

    /// When further bundles come free here at the latest, by the limits of the leases.
    fn foresee(&self, mut taken: Taken, want: &Want, held: u32, most: u32) -> Vec<(Tick, u32)> {
        let mut ends: Vec<(Tick, u64)> = self.lend.ends().collect();
        ends.sort_unstable();
        let (mut soon, mut had, mut left) = (Vec::new(), held, self.lend.len());
        for (at, serial) in ends {
            let Some(record) = self.lend.record(serial) else { continue };
            taken.give_back(&record.bundle, &record.instances);
            left -= 1;
            let room = taken.room(&self.lend.capacity, &want.bundle, left == 0).0.min(most);
            if room > had {
                soon.push((at, room - had));
                had = room;
            }
        }
        soon
    }

    /// Bundles that this node has room for if nothing is lent.
    pub(crate) fn here_in_all(&self, want: &Want) -> u32 {
        let outside = self.scope(want) == Scope::Outside || !self.is_named(want);
        if outside || self.lend.draining || !fit::admits(&self.lend.capacity, want) {
            return 0;
        }
        let (taken, idle) = self.lend.never_lent();
        let able = taken.room(&self.lend.capacity, &want.bundle, idle).0;
        if want.layout == Layout::Spread { able.min(1) } else { able }
    }

    /// Whether this node could ever serve the request, and how many bundles of it.
    fn judge_keep(&mut self, want: &Want, asker: &Asker, out: &mut Vec<Output>) -> (u32, Option<String>) {
        let able = self.here_in_all(want);
        if able == 0 {
            return (0, None);
        }
        let judged = fit::unfit(&self.lend.capacity, asker).map_or(Ok(()), Err);
        let hindrance = match judged.and_then(|()| self.judge(asker, out).map(drop)) {
            Ok(()) => return (able, None),
            Err(Hindrance::AwaitsApproval) => "its owner has not approved this program yet".into(),
            Err(Hindrance::ComesBack { .. }) => return (able, None),
            Err(
                Hindrance::Refused(text)
                | Hindrance::Unfit(text)
                | Hindrance::Lacking(text)
                | Hindrance::Busy(text),
            ) => text,
        };
        (0, Some(hindrance))
    }

    /// What this node is or whom it lends to has changed.
    pub(crate) fn judge_keeps(&mut self, out: &mut Vec<Output>) {
        for request in self.keeps.ids() {
            let Some(keep) = self.keeps.all.get(&request) else { continue };
            let (want, asker) = (keep.want.clone(), keep.asker.clone());
            let (able, hindrance) = self.judge_keep(&want, &asker, out);
            if let Some(keep) = self.keeps.all.get_mut(&request) {
                keep.here.kept.able = able;
                keep.here.hindrance = hindrance;
            }
        }
        self.queue.touched = true;
    }

    pub(crate) fn on_reserve(&mut self, from: NodeId, m: Reserve, out: &mut Vec<Output>) {
        if !self.place.is_parent(from) {
            return self.not_my_neighbour(from, out);
        }
        let sound = m.want.check().is_ok() && m.want.count > 0 && m.asker.app == m.request.app;
        let start = m.start_ms.map(|start_ms| self.now + Duration::from_millis(start_ms.into()));
        if !sound || !self.keep_for(m.request, m.rank, m.want, m.asker, true, out) {
            let nothing = Gathered { request: m.request, held: 0, able: 0, soon: Vec::new() };
            return self.send_tree(from, nothing, out);
        }
        self.keeps.set_start(m.request, start);
    }

    /// Keeps what is free for a request, here and below; `false` if too many reservations are known.
    pub(crate) fn keep_for(
        &mut self,
        request: RequestId,
        rank: Rank,
        want: Want,
        asker: Asker,
        above: bool,
        out: &mut Vec<Output>,
    ) -> bool {
        if let Some(keep) = self.keeps.all.get_mut(&request)
            && keep.want == want
            && keep.asker == asker
            && keep.above == above
        {
            if keep.rank != rank {
                self.keeps.set_rank(request, rank);
                self.queue.touched = true;
            }
            return true;
        }
        self.queue.touched = true;
        self.drop_keep(request, out);
        if self.keeps.all.len() >= self.settings.keeps_max {
            out.push(Output::Full(Table::Keeps));
            return false;
        }
        let (able, hindrance) = self.judge_keep(&want, &asker, out);
        let here = Here { kept: Kept { able, ..Kept::default() }, aside: None, hindrance };
        let edges = BTreeMap::new();
        self.keeps.insert(request, Keep { rank, want, asker, start: None, above, edges, here, told: None });
        true
    }

    pub(crate) fn on_unreserve(&mut self, from: NodeId, m: Unreserve, out: &mut Vec<Output>) {
        if self.place.is_parent(from) && self.keeps.get(m.request).is_some_and(|keep| keep.above) {
            self.drop_keep(m.request, out);
        }
    }

    /// Keeps nothing for the request any longer.
    pub(crate) fn drop_keep(&mut self, request: RequestId, out: &mut Vec<Output>) {
        let Some(keep) = self.keeps.remove(request) else { return };
        for child in keep.edges.keys() {
            self.send_tree(*child, Unreserve { request }, out);
        }
        self.queue.touched = true;
        self.upward.touched = true;
    }

    pub(crate) fn on_gathered(&mut self, from: NodeId, m: Gathered) {
        let now = self.now;
        let edge = self.keeps.all.get_mut(&m.request).and_then(|keep| keep.edges.get_mut(&from));
        let Some(edge) = edge else { return };
        let soon = m.soon.into_iter().take(SOON_MAX);
        let soon = soon.map(|(after_ms, count)| (now + Duration::from_millis(after_ms.into()), count));
        edge.kept = Kept { held: m.held, able: m.able, soon: soon.collect() };
        edge.reported = true;
        self.queue.touched = true;
    }

    /// Tells the children of reservations they do not know, or know otherwise. Says when it is to be done
    /// again.
    pub(crate) fn spread_keeps(&mut self, out: &mut Vec<Output>) -> Option<Tick> {
        let (now, mut again) = (self.now, None);
        for request in self.keeps.ids() {
            let Some(keep) = self.keeps.all.get(&request) else { continue };
            let mut told = Vec::new();
            for (id, child) in &self.place.children {
                let moved = |edge: &Edge| match (edge.start, keep.start) {
                    (Some(then), Some(start)) => (then - start).max(start - then) >= START_MOVED,
                    (then, start) => then != start,
                };
                match keep.edges.get(id) {
                    None if child.in_all(&keep.want) == 0 => {}
                    Some(edge) if edge.rank == keep.rank && edge.count == keep.want.count => {
                        let due = if edge.start.is_none() { now } else { edge.sent + START_AGAIN };
                        if moved(edge) && due <= now {
                            told.push(*id);
                        } else if moved(edge) {
                            again = Some(again.map_or(due, |again: Tick| again.min(due)));
                        }
                    }
                    _ => told.push(*id),
                }
            }
            if told.is_empty() {
                continue;
            }
            let mut want = keep.want.clone();
            if self.scope(&want) != Scope::Outside {
                want.below = None;
            }
            let start_ms = keep.start.map(|start| (start - now).as_millis().min(u32::MAX.into()) as u32);
            let (rank, start, asker) = (keep.rank, keep.start, keep.asker.clone());
            for id in &told {
                let reserve = Reserve { request, rank, want: want.clone(), asker: asker.clone(), start_ms };
                self.send_tree(*id, reserve, out);
            }
            let Some(keep) = self.keeps.all.get_mut(&request) else { continue };
            let count = keep.want.count;
            for id in told {
                let edge = keep.edges.entry(id).or_insert_with(|| Edge {
                    kept: Kept::default(),
                    reported: false,
                    rank,
                    count,
                    start,
                    sent: now,
                });
                (edge.rank, edge.count, edge.start, edge.sent) = (rank, count, start, now);
            }
        }
        again
    }

    /// Tells the parent what is kept for its reservations, where that has changed.
    pub(crate) fn tell_gathered(&mut self, out: &mut Vec<Output>) {
        let Some(parent) = self.place.parent.as_ref().map(|parent| parent.id) else { return };
        for request in self.keeps.ids() {
            let Some(keep) = self.keeps.all.get_mut(&request).filter(|keep| keep.above) else { continue };
            let kept = keep.kept();
            if !keep.is_known() || keep.told.as_ref() == Some(&kept) {
                continue;
            }
            let now = self.now;
            let after_ms = |at: Tick| (at - now).as_millis().min(u32::MAX.into()) as u32;
            let soon = kept.soon.iter().map(|(at, count)| (after_ms(*at), *count)).collect();
            let gathered = Gathered { request, held: kept.held, able: kept.able, soon };
            keep.told = Some(kept);
            self.send_tree(parent, gathered, out);
        }
    }
}
