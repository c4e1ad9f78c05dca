//! Requests that wait, on their way to the node that decides about them, and the decision.
//!
//! A request climbs from its home, holding nothing, to the lowest node whose subtree could serve it if
//! nothing were lent: its arbiter. That has slots kept for the first of its queue (see `keep`) and says
//! when enough are. A request not served there for a while climbs on: what comes free elsewhere is then
//! found too. All of it lasts as long as the edges it came over; nothing is repeated, nothing is polled.

use crate::core::{Core, Timer};
use crate::io::{Output, Table};
use crate::policy::user_of;
use crate::rank::Shares;
use crate::settings::Settings;
use core::time::Duration;
use mutirao_wire::limits::WANT_MAX;
use mutirao_wire::node::{Asker, Want};
use mutirao_wire::wait::{Present, Rank, Turn, Turned, WaitEnd, Withdraw};
use mutirao_wire::{NodeId, RequestId, Tick};
use std::collections::BTreeMap;

/// After so many requests of this node have ended in one go, others get their turn.
const TURNS_MAX: usize = 16;
/// A request for which enough is kept and that is not served for so long climbs on all the same.
const TURN: Duration = Duration::from_secs(5);
/// A request that another queue was too full for tries that one again after so long.
const REFUSED: Duration = Duration::from_secs(30);

/// The requests that wait here or have passed through here.
pub(crate) struct Queue {
    pub(crate) waiting: BTreeMap<RequestId, Waiting>,
    pub(crate) shares: Shares,
    /// Something may have changed.
    pub(crate) touched: bool,
    /// To whom requests were handed up.
    parent: Option<NodeId>,
}

/// A request that waits, as seen from one node on its way.
#[derive(Clone)]
pub(crate) struct Waiting {
    /// The child it came from; `None`: it is at home here.
    pub(crate) from: Option<NodeId>,
    /// Children it came from before and that have not withdrawn it. Where its home has moved in the tree, an
    /// old way may present it after the new one, and withdraw it again.
    before: Vec<NodeId>,
    pub(crate) want: Want,
    pub(crate) need: u32,
    pub(crate) asker: Asker,
    pub(crate) user: String,
    pub(crate) priority: i8,
    pub(crate) born_unix_ms: u64,
    /// Since when, as its home attests.
    pub(crate) since: Tick,
    role: Role,
}

#[derive(Clone)]
enum Role {
    /// Decided about here.
    Arbiter {
        /// If not served by then, it climbs on.
        climbs: Tick,
        /// Since when this subtree is too small for it.
        short: Option<Tick>,
        /// The parent's queue was too full for it: that of this node.
        refused: Option<String>,
        /// Enough is kept for it, and its home knows.
        now: bool,
    },
    /// Decided about above.
    Above,
}

impl Waiting {
    /// The children it came from, the last one last.
    fn ways(&self) -> Vec<NodeId> {
        self.before.iter().copied().chain(self.from).collect()
    }
}

impl Queue {
    pub(crate) fn new(settings: &Settings) -> Queue {
        let shares = Shares::new(settings.share_half_life);
        Queue { waiting: BTreeMap::new(), shares, touched: false, parent: None }
    }

    /// The requests decided about here.
    fn mine(&self) -> Vec<RequestId> {
        let mine = |(_, waiting): &(&RequestId, &Waiting)| matches!(waiting.role, Role::Arbiter { .. });
        self.waiting.iter().filter(mine).map(|(request, _)| *request).collect()
    }
}

impl Core {
    /// The requests decided about here, first ones first.
    pub(crate) fn ranking(&self) -> Vec<(Rank, RequestId)> {
        let rank = |request: RequestId| {
            let waiting = &self.queue.waiting[&request];
            let share = self.queue.shares.level(self.now, &waiting.user);
            let (priority, born_unix_ms) = (waiting.priority, waiting.born_unix_ms);
            (Rank { priority, share, born_unix_ms }, request)
        };
        let mut order: Vec<_> = self.queue.mine().into_iter().map(rank).collect();
        order.sort_unstable();
        order
    }

    /// Bundles that this subtree could serve if nothing were lent, by the summaries.
    fn subtree_in_all(&self, want: &Want) -> u32 {
        let below = self.place.children.values().map(|child| child.in_all(want));
        below.fold(self.here_in_all(want), u32::saturating_add)
    }

    fn arbiter(&self) -> Role {
        Role::Arbiter { climbs: self.now + self.settings.climb, short: None, refused: None, now: false }
    }

    /// A request waits: one of this node's, or one that a child could not serve.
    pub(crate) fn present(&mut self, from: Option<NodeId>, m: Present, out: &mut Vec<Output>) {
        let known = self.queue.waiting.contains_key(&m.request);
        if !known && self.queue.waiting.len() >= self.settings.queue_max {
            out.push(Output::Full(Table::Queue));
            let turn = Turn::Over(WaitEnd::Full(self.me.name.clone()));
            return self.tell_turn(from, m.request, turn, out);
        }
        // It may come another way than before: the tree has changed below.
        let mut before = self.queue.waiting.get(&m.request).map(Waiting::ways).unwrap_or_default();
        before.retain(|child| Some(*child) != from);
        self.forget_waiting(m.request, 0, out);
        let user = user_of(&m.asker, self.lend.verified(&m.asker));
        let waiting = Waiting {
            from,
            before,
            want: m.want,
            need: m.need.clamp(1, WANT_MAX),
            user: user.unwrap_or_else(|_| m.asker.local_user.clone()),
            asker: m.asker,
            priority: m.priority,
            born_unix_ms: m.born_unix_ms,
            since: Tick(self.now.0.saturating_sub(m.waited_ms.saturating_mul(1000))),
            role: self.arbiter(),
        };
        self.queue.waiting.insert(m.request, waiting);
        self.queue.touched = true;
    }

    pub(crate) fn on_present(&mut self, from: NodeId, m: Present, out: &mut Vec<Output>) {
        if !self.place.children.contains_key(&from) {
            return self.not_my_neighbour(from, out);
        }
        // What concerns this node's own applications never comes from outside.
        if m.asker.home.id != self.me.id && m.asker.app == m.request.app && m.want.check().is_ok() {
            self.present(Some(from), m, out);
        }
    }

    /// The request waits no longer: it was served, with so many slot-seconds, or given up.
    pub(crate) fn forget_waiting(&mut self, request: RequestId, slot_s: u64, out: &mut Vec<Output>) {
        let Some(waiting) = self.queue.waiting.remove(&request) else { return };
        self.queue.touched = true;
        match waiting.role {
            Role::Arbiter { .. } => {
                self.queue.shares.charge(self.now, &waiting.user, slot_s);
                self.drop_own_keep(request, out);
            }
            Role::Above => {
                if let Some(parent) = self.queue.parent {
                    self.send_tree(parent, Withdraw { request, slot_s }, out);
                }
            }
        }
    }

    fn drop_own_keep(&mut self, request: RequestId, out: &mut Vec<Output>) {
        if self.keeps.get(request).is_some_and(|keep| !keep.above) {
            self.drop_keep(request, out);
        }
    }

    fn wake_queue(&mut self, at: Tick) {
        if at > self.now {
            self.arm(at, Timer::Queue);
        }
    }

    pub(crate) fn on_withdraw(&mut self, from: NodeId, m: Withdraw, out: &mut Vec<Output>) {
        let Some(waiting) = self.queue.waiting.get_mut(&m.request) else { return };
        waiting.before.retain(|child| *child != from);
        if waiting.from == Some(from) {
            self.way_lost(m.request, m.slot_s, out);
        }
    }

    /// The child that a request came from does not present it any more. Unless it was served, it waits on if it
    /// came from another one, too.
    fn way_lost(&mut self, request: RequestId, slot_s: u64, out: &mut Vec<Output>) {
        let role = self.arbiter();
        let other = self.queue.waiting.get_mut(&request).filter(|_| slot_s == 0).and_then(|waiting| {
            let from = Some(waiting.before.pop()?);
            Some(Waiting { from, role, ..waiting.clone() })
        });
        self.forget_waiting(request, slot_s, out);
        if let Some(other) = other {
            self.queue.waiting.insert(request, other);
        }
    }

    fn tell_turn(&mut self, to: Option<NodeId>, request: RequestId, turn: Turn, out: &mut Vec<Output>) {
        match to {
            Some(child) => self.send_tree(child, Turned { request, turn }, out),
            None => self.my_turn(request, turn, out),
        }
    }

    pub(crate) fn on_turned(&mut self, from: NodeId, m: Turned, out: &mut Vec<Output>) {
        let above = |waiting: &&mut Waiting| matches!(waiting.role, Role::Above);
        let Some(waiting) = self.queue.waiting.get_mut(&m.request).filter(above) else { return };
        if !self.place.is_parent(from) {
            return;
        }
        let child = waiting.from;
        match &m.turn {
            Turn::Now | Turn::Later => {}
            // Then it goes on waiting here, if this subtree is large enough.
            Turn::Over(WaitEnd::Full(node)) => {
                let climbs = self.now + REFUSED;
                let refused = Some(node.clone());
                waiting.role = Role::Arbiter { climbs, short: None, refused, now: false };
                self.queue.touched = true;
                return;
            }
            Turn::Over(_) => {
                self.queue.waiting.remove(&m.request);
            }
        }
        self.tell_turn(child, m.request, m.turn, out);
    }

    /// Another parent: what it was handed is handed up anew, what it had kept is kept no longer.
    fn mind_parent(&mut self, out: &mut Vec<Output>) {
        let parent = self.place.parent.as_ref().map(|parent| parent.id);
        if parent == self.queue.parent {
            return;
        }
        self.queue.parent = parent;
        self.queue.touched = true;
        let role = || self.arbiter();
        let roles: Vec<Role> = self.queue.waiting.values().map(|_| role()).collect();
        for (waiting, role) in self.queue.waiting.values_mut().zip(roles) {
            if matches!(waiting.role, Role::Above) {
                waiting.role = role;
            }
        }
        for request in self.keeps.ids() {
            if self.keeps.get(request).is_some_and(|keep| keep.above) {
                self.drop_keep(request, out);
            }
        }
    }

    /// Children that are none any more take back what they presented: it comes again another way.
    fn mind_children(&mut self, out: &mut Vec<Output>) {
        let children = &self.place.children;
        let lost = |child: &NodeId| !children.contains_key(child);
        let orphans: Vec<RequestId> = (self.queue.waiting.iter())
            .filter(|(_, waiting)| waiting.from.as_ref().is_some_and(lost))
            .map(|(request, _)| *request)
            .collect();
        self.keeps.forget_children(lost);
        for waiting in self.queue.waiting.values_mut() {
            waiting.before.retain(|child| !lost(child));
        }
        for request in orphans {
            self.way_lost(request, 0, out);
        }
    }

    /// What follows for those who wait, after each input.
    pub(crate) fn mind_queue(&mut self, out: &mut Vec<Output>) {
        if self.queue.waiting.is_empty() && self.keeps.is_empty() {
            self.queue.touched = false;
            self.queue.parent = self.place.parent.as_ref().map(|parent| parent.id);
            return;
        }
        self.mind_parent(out);
        // Whatever changes what is free here or below has to be told upwards, too.
        if !core::mem::take(&mut self.queue.touched) && !self.upward.touched {
            return;
        }
        self.mind_children(out);
        for _ in 0..TURNS_MAX {
            self.hand_up(out);
            self.place_first(out);
            self.deal_out();
            self.queue.touched = false;
            self.tell_turns(out);
            if !self.queue.touched {
                break;
            }
        }
        if self.queue.touched {
            self.arm(self.now, Timer::Queue);
        }
        if let Some(again) = self.spread_keeps(out) {
            self.arm(again, Timer::Queue);
        }
        self.tell_gathered(out);
    }

    /// Sends up what this subtree is too small for, or did not serve for long; ends what the whole pool
    /// is too small for.
    fn hand_up(&mut self, out: &mut Vec<Output>) {
        let now = self.now;
        for request in self.queue.mine() {
            let Some(waiting) = self.queue.waiting.get(&request) else { continue };
            let known = self.keeps.get(request).filter(|keep| !keep.above && keep.is_known());
            let has = match known {
                Some(keep) => keep.kept().able,
                None => self.subtree_in_all(&waiting.want),
            };
            let (from, needs) = (waiting.from, waiting.need);
            let Some(Waiting { role: Role::Arbiter { climbs, short, refused, .. }, .. }) =
                self.queue.waiting.get_mut(&request)
            else {
                continue;
            };
            let since = if has < needs { Some(*short.get_or_insert(now)) } else { None };
            *short = since;
            let mut again = None;
            let over = match (since, refused.clone()) {
                (Some(_), Some(node)) => Some(WaitEnd::Full(node)),
                (Some(since), None) if self.queue.parent.is_none() => {
                    again = Some(since + self.settings.short);
                    (since + self.settings.short <= now).then_some(WaitEnd::Never { needs, has })
                }
                _ => None,
            };
            let climbs = self.queue.parent.is_some() && (since.is_some() || *climbs <= now);
            if let Some(again) = again {
                self.wake_queue(again);
            }
            if let Some(end) = over {
                self.forget_waiting(request, 0, out);
                self.tell_turn(from, request, Turn::Over(end), out);
            } else if climbs {
                self.hand_up_one(request, out);
            }
        }
    }

    fn hand_up_one(&mut self, request: RequestId, out: &mut Vec<Output>) {
        self.drop_own_keep(request, out);
        let Some(parent) = self.queue.parent else { return };
        let Some(waiting) = self.queue.waiting.get_mut(&request) else { return };
        waiting.role = Role::Above;
        let present = Present {
            request,
            want: waiting.want.clone(),
            need: waiting.need,
            asker: waiting.asker.clone(),
            priority: waiting.priority,
            born_unix_ms: waiting.born_unix_ms,
            waited_ms: (self.now - waiting.since).as_millis() as u64,
        };
        self.send_tree(parent, present, out);
    }

    /// Has slots kept for the first of the queue, and for no others.
    fn place_first(&mut self, out: &mut Vec<Output>) {
        for (place, (rank, request)) in self.ranking().into_iter().enumerate() {
            if place >= self.settings.keep_first {
                self.drop_own_keep(request, out);
                continue;
            }
            if self.keeps.get(request).is_some_and(|keep| keep.above) {
                continue;
            }
            let Some(waiting) = self.queue.waiting.get(&request) else { continue };
            let want = Want { count: waiting.need, ..waiting.want.clone() };
            let asker = waiting.asker.clone();
            if let Role::Arbiter { climbs, .. } = waiting.role {
                self.wake_queue(climbs);
            }
            self.keep_for(request, rank, want, asker, false, out);
        }
    }

    /// Tells the homes of requests for which enough is kept, or no longer.
    fn tell_turns(&mut self, out: &mut Vec<Output>) {
        for request in self.queue.mine() {
            let Some(keep) = self.keeps.get(request).filter(|keep| !keep.above) else { continue };
            let kept = keep.kept();
            let Some(waiting) = self.queue.waiting.get_mut(&request) else { continue };
            let (need, from) = (waiting.need, waiting.from);
            let start = kept.start(self.now, need);
            let ready = kept.held >= need;
            let Role::Arbiter { now, climbs, .. } = &mut waiting.role else { continue };
            let told = core::mem::replace(now, ready);
            self.keeps.set_start(request, start);
            if told != ready {
                // Time to be served, and then to find out elsewhere why it is not.
                *climbs = self.now + if ready { TURN } else { self.settings.climb };
                self.tell_turn(from, request, if ready { Turn::Now } else { Turn::Later }, out);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::core::Core;
    use crate::io::{Capacity, Input};
    use crate::policy::{Policy, Verified};
    use crate::settings::Settings;
    use mutirao_wire::node::{Arch, Asker, NodeRef, Want};
    use mutirao_wire::tree::{Attach, TreeMessage};
    use mutirao_wire::wait::{Present, Withdraw};
    use mutirao_wire::{AppId, Incarnation, NodeId, RequestId, Tick};

    fn node(number: u8) -> NodeRef {
        NodeRef {
            id: NodeId([number; 32]),
            incarnation: Incarnation(1),
            name: format!("n{number}"),
            addresses: Vec::new(),
        }
    }

    /// Found by the seed 1508 with calls: a home that had moved waited for ever.
    #[test]
    fn an_old_way_that_presents_after_the_new_one_and_withdraws_takes_nothing_along() {
        let capacity = Capacity {
            slots: 1,
            memory_mib: 0,
            resources: Vec::new(),
            arch: Arch::Other,
            libc: None,
            labels: Vec::new(),
        };
        let verify = Box::new(|_: &Asker| Verified::Local);
        let mut root = Core::new(node(1), Settings::default(), capacity, Policy::default(), verify);
        for child in [2, 3] {
            root.handle(Tick(1), Input::LinkUp(node(child)), &mut Vec::new());
            let from = node(child).id;
            let message = Attach { nonce: 1, size: 1, here: true }.into();
            root.handle(Tick(1), Input::Tree { from, message }, &mut Vec::new());
        }
        let asker = Asker {
            app: AppId(7),
            app_name: "app".into(),
            local_user: "user@n9".into(),
            token: Vec::new(),
            home: node(9),
            plugin: None,
        };
        let request = RequestId { app: asker.app, sequence: 1, attempt: 0 };
        let present = Present {
            request,
            want: Want::default(),
            need: 1,
            asker,
            priority: 0,
            born_unix_ms: 1,
            waited_ms: 0,
        };
        let mut hear = |from: u8, message: TreeMessage| {
            let from = node(from).id;
            root.handle(Tick(1), Input::Tree { from, message }, &mut Vec::new());
            root.queue.waiting.get(&request).map(|waiting| waiting.from)
        };
        let (old, new) = (2, 3);
        assert_eq!(hear(new, present.clone().into()), Some(Some(node(new).id)));
        assert_eq!(hear(old, present.clone().into()), Some(Some(node(old).id)));
        assert_eq!(hear(old, Withdraw { request, slot_s: 0 }.into()), Some(Some(node(new).id)));
        assert_eq!(hear(new, Withdraw { request, slot_s: 0 }.into()), None);
        // The usual order of a move.
        assert_eq!(hear(old, present.clone().into()), Some(Some(node(old).id)));
        assert_eq!(hear(new, present.clone().into()), Some(Some(node(new).id)));
        assert_eq!(hear(old, Withdraw { request, slot_s: 0 }.into()), Some(Some(node(new).id)));
        // Served: over, whoever else presents it.
        assert_eq!(hear(old, present.into()), Some(Some(node(old).id)));
        assert_eq!(hear(old, Withdraw { request, slot_s: 9 }.into()), None);
    }
}
