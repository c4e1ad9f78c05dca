//! Who is parent and who is child: the one attach rule.
//!
//! A node that wants a parent, or another one, asks a candidate. The question climbs to the candidate's
//! root, which alone commits. Why no cycle can come of it: a node with an attempt of its own under way
//! lets no other pass and commits nobody, and it takes the answer to exactly that attempt only. So
//! while it waits nobody new comes under it, and a climb from below itself meets it and is refused. What
//! waits for a verdict while the way up changes asks again, so that no verdict holds for another way.

use crate::above::Above;
use crate::core::{Core, Timer};
use crate::io::{Output, Table};
use crate::summary::Child;
use core::time::Duration;
use mutirao_wire::limits::DEPTH_MAX;
use mutirao_wire::tree::{
    Attach, AttachRefused, Attached, Climb, Detach, Lineage, Redirect, Refusal, Seek, Verdict,
};
use mutirao_wire::{Incarnation, NodeId, NodeRef, Tick};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Candidates dialled at once.
const DIALS_MAX: usize = 3;
/// Candidates waiting to be tried, and lost relatives remembered.
const CANDIDATES_MAX: usize = 32;
/// Joins that pass through a node at once.
const JOINS_MAX: usize = 1024;
/// Children a joiner is passed down to.
const REDIRECTS_MAX: usize = 4;
/// Ancestors told to a child, so that a lineage fits a frame. Beyond, the root alone is named.
const ANCESTORS_MAX: usize = 40;
/// Successors of a root.
const SUCCESSORS_MAX: usize = 3;
/// The pause while all that are sought are below this node: should one be cut off, it seeks this node.
const BELOW: Duration = Duration::from_secs(5);
/// Nodes the root seeks that it tells those below of.
const SOUGHT_MAX: usize = 8;

/// Where this node is in the tree.
#[derive(Clone, Hash)]
pub(crate) struct Place {
    pub(crate) parent: Option<Arc<NodeRef>>,
    pub(crate) above: Above,
    pub(crate) children: BTreeMap<NodeId, Child>,
    children_so_far: u64,
    /// Attempts that wait for the root's verdict, by joiner and nonce.
    joins: BTreeMap<(NodeId, u64), Passing>,
    wish: Wish,
    told: Above,
    lineage_touched: bool,
}

/// An attempt to join that passed through this node.
#[derive(Clone, Hash)]
struct Passing {
    /// The child it came from; `None`: this node is to be the parent.
    below: Option<NodeId>,
    until: Tick,
    climb: Climb,
}

/// The wish for a parent.
#[derive(Clone, Hash, Default)]
struct Wish {
    configured: Vec<Arc<NodeRef>>,
    here: bool,
    /// The parent is to be left as soon as one of `configured` takes this node.
    moving: bool,
    /// The parent asked this node to go elsewhere, which it tries once.
    shifting: bool,
    /// Relatives of the time before the parent was lost, best first, and since when they are sought.
    remembered: Vec<(Arc<NodeRef>, Tick)>,
    queue: VecDeque<Arc<NodeRef>>,
    dialling: Vec<(Arc<NodeRef>, Tick)>,
    asked: Option<Asked>,
    nonce: u64,
    redirects: usize,
    failures: u32,
    /// Some candidate may be elsewhere: not all of them have said that they are below this node.
    away: bool,
    /// When the candidates are tried anew.
    again: Option<Tick>,
    /// The refusal last told to the owner.
    told: Option<(NodeId, Refusal)>,
}

#[derive(Clone, Hash)]
struct Asked {
    to: Arc<NodeRef>,
    nonce: u64,
    until: Tick,
}

impl Place {
    /// A place without neighbours. Attempts are numbered on from a number that no earlier life of this
    /// node, which made fewer than a million a millisecond, can have reached: an answer to one of its
    /// attempts is none to ours.
    pub(crate) fn new(life: Incarnation) -> Place {
        Place {
            parent: None,
            above: Above::default(),
            children: BTreeMap::new(),
            children_so_far: 0,
            joins: BTreeMap::new(),
            wish: Wish { nonce: life.0 << 20, ..Wish::default() },
            told: Above::default(),
            lineage_touched: false,
        }
    }

    pub(crate) fn is_parent(&self, id: NodeId) -> bool {
        self.parent.as_ref().is_some_and(|parent| parent.id == id)
    }

    pub(crate) fn needs(&self, id: NodeId) -> bool {
        self.is_parent(id)
            || self.children.contains_key(&id)
            || self.wish.asked.as_ref().is_some_and(|asked| asked.to.id == id)
            || self.wish.dialling.iter().any(|(node, _)| node.id == id)
            || self.joins.iter().any(|((joiner, _), passing)| *joiner == id && passing.below.is_none())
    }

    /// See [`Core::rest`].
    pub(crate) fn rest(&mut self) {
        if self.joins.is_empty() {
            self.joins = BTreeMap::new();
        }
        self.wish.queue.shrink_to_fit();
        self.wish.dialling.shrink_to_fit();
    }

    /// All candidates in the order in which they are tried.
    pub(crate) fn sought(&self, me: NodeId) -> Vec<NodeRef> {
        self.wish.candidates(me).iter().map(|node| (**node).clone()).collect()
    }

    /// Whatever is known of a node under this very reference is kept once.
    pub(crate) fn link_up(&mut self, node: &Arc<NodeRef>) {
        for known in self.wish.configured.iter_mut().filter(|known| *known == node) {
            *known = node.clone();
        }
    }

    /// Whether an attempt of its own, or of others that passed through it, is under way.
    pub(crate) fn is_changing(&self) -> bool {
        let wish = &self.wish;
        wish.asked.is_some() || wish.moving || wish.shifting || !self.joins.is_empty()
    }

    /// Children, and joiners that are about to be.
    pub(crate) fn taken(&self) -> usize {
        self.children.len() + self.joins.values().filter(|passing| passing.below.is_none()).count()
    }
}

impl Wish {
    /// All candidates in the order in which they are tried.
    fn candidates(&self, me: NodeId) -> VecDeque<Arc<NodeRef>> {
        let mut queue: VecDeque<Arc<NodeRef>> = VecDeque::new();
        let remembered = self.remembered.iter().map(|(node, _)| node).filter(|_| !self.moving);
        for node in remembered.chain(&self.configured) {
            if node.id != me && !queue.iter().any(|known| known.id == node.id) {
                queue.push_back(node.clone());
            }
        }
        queue
    }
}

impl Core {
    pub(crate) fn join(&mut self, mut to: Vec<NodeRef>, here: bool, out: &mut Vec<Output>) {
        to.truncate(CANDIDATES_MAX);
        let wish = &mut self.place.wish;
        wish.configured = to.into_iter().map(|node| self.links.shared(node)).collect();
        wish.here = here;
        wish.shifting = false;
        wish.failures = 0;
        wish.told = None;
        self.place.lineage_touched = true;
        let named = |id| wish.configured.iter().any(|node| node.id == id);
        wish.moving = here && self.place.parent.as_ref().is_some_and(|parent| !named(parent.id));
        if let Some(asked) = wish.asked.take_if(|asked| here && !named(asked.to.id)) {
            self.touched.insert(asked.to.id);
        }
        if self.seeks_parent() && self.place.wish.asked.is_none() {
            self.restart_wish(out);
        }
    }

    /// Whether this node wants a parent that it does not have.
    fn seeks_parent(&self) -> bool {
        !self.leaving && (self.place.parent.is_none() || self.place.wish.moving || self.place.wish.shifting)
    }

    /// Goes below `to`, or where that passes it on to, if it is taken at once; but not if it was told where
    /// to be, or if its place is changing already.
    pub(crate) fn shift(&mut self, to: NodeRef, out: &mut Vec<Output>) {
        let stays = self.place.wish.here || self.leaving || self.place.parent.is_none();
        if stays || self.place.is_changing() {
            return;
        }
        let wish = &mut self.place.wish;
        wish.shifting = true;
        wish.again = None;
        wish.redirects = 0;
        wish.queue = VecDeque::from([Arc::new(to)]);
        self.advance_wish(out);
    }

    /// Begins with the first candidate again.
    fn restart_wish(&mut self, out: &mut Vec<Output>) {
        let wish = &mut self.place.wish;
        for (node, _) in wish.dialling.drain(..) {
            self.touched.insert(node.id);
        }
        let known = wish.remembered.len();
        wish.remembered.retain(|(_, since)| self.now - *since < self.settings.forget);
        self.place.lineage_touched |= wish.remembered.len() < known;
        wish.queue = wish.candidates(self.me.id);
        wish.again = None;
        wish.redirects = 0;
        wish.away = false;
        self.advance_wish(out);
    }

    /// Asks the next candidate that can be asked, dials those that cannot yet.
    pub(crate) fn advance_wish(&mut self, out: &mut Vec<Output>) {
        if !self.seeks_parent() || self.place.wish.asked.is_some() {
            return;
        }
        if let Some(at) = self.place.wish.dialling.iter().position(|(node, _)| self.is_linked(node.id)) {
            let (node, _) = self.place.wish.dialling.remove(at);
            return self.ask_candidate(node, out);
        }
        while self.place.wish.dialling.len() < DIALS_MAX {
            let Some(node) = self.place.wish.queue.pop_front() else { break };
            if node.id == self.me.id || self.place.children.contains_key(&node.id) {
                self.refused_by(node, Refusal::Cycle, out);
            } else if self.is_linked(node.id) {
                return self.ask_candidate(node, out);
            } else {
                let until = self.now + self.settings.dial;
                self.arm(until, Timer::Wish);
                out.push(Output::Dial((*node).clone()));
                self.place.wish.dialling.push((node, until));
            }
        }
        let pause = if self.place.wish.away { self.pause() } else { BELOW };
        let wish = &mut self.place.wish;
        if wish.dialling.is_empty() && core::mem::take(&mut wish.shifting) {
            return;
        }
        if wish.moving && wish.dialling.is_empty() && wish.told.is_some() {
            // Refused for good: this node stays where it is.
            wish.moving = false;
            return;
        }
        if wish.dialling.is_empty() && wish.again.is_none() && !wish.candidates(self.me.id).is_empty() {
            wish.failures = wish.failures.saturating_add(1);
            let again = self.now + pause;
            wish.again = Some(again);
            self.arm(again, Timer::Wish);
        }
    }

    /// The pause before all candidates are tried again: doubles, and differs from node to node and
    /// from attempt to attempt, so that no two nodes stay in step.
    fn pause(&self) -> Duration {
        let doublings = self.place.wish.failures.min(16);
        let base = (self.settings.retry * (1 << doublings)).min(self.settings.retry_max);
        let seed = self.me.id.0.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let mut x = seed
            ^ u64::from(self.place.wish.failures).wrapping_add(self.place.wish.nonce.wrapping_mul(0x10001));
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        base.mul_f64(0.5 + 0.5 * ((x >> 40) as f64) / f64::from(1u32 << 24))
    }

    fn ask_candidate(&mut self, to: Arc<NodeRef>, out: &mut Vec<Output>) {
        let size = self.summarise().nodes;
        let until = self.now + self.settings.commit;
        self.arm(until, Timer::Wish);
        let wish = &mut self.place.wish;
        wish.nonce += 1;
        wish.again = None;
        let nonce = wish.nonce;
        let here = wish.here && wish.configured.iter().any(|node| node.id == to.id);
        let id = to.id;
        wish.asked = Some(Asked { to, nonce, until });
        self.send_tree(id, Attach { nonce, size, here }, out);
        self.climb_again(out);
    }

    /// Takes the attempt under way if it is this one.
    fn take_asked(&mut self, from: NodeId, nonce: u64) -> Option<Arc<NodeRef>> {
        let asked = &mut self.place.wish.asked;
        let asked = asked.take_if(|asked| asked.to.id == from && asked.nonce == nonce)?;
        self.touched.insert(from);
        Some(asked.to)
    }

    /// Somebody can be reached, and so perhaps those whom this node seeks: a long pause ends.
    pub(crate) fn wish_heard(&mut self, out: &mut Vec<Output>) {
        let short = self.now + self.settings.retry * 4;
        if self.seeks_parent() && self.place.wish.again.is_some_and(|at| at > short) {
            self.restart_wish(out);
        } else {
            self.advance_wish(out);
        }
    }

    pub(crate) fn wish_failed(&mut self, id: NodeId, out: &mut Vec<Output>) {
        let dialling = &mut self.place.wish.dialling;
        let before = dialling.len();
        dialling.retain(|(node, _)| node.id != id);
        if dialling.len() < before {
            self.place.wish.away = true;
            self.advance_wish(out);
        }
    }

    pub(crate) fn wish_time(&mut self, out: &mut Vec<Output>) {
        let now = self.now;
        let wish = &mut self.place.wish;
        if let Some(asked) = wish.asked.take_if(|asked| asked.until <= now) {
            wish.away = true;
            self.touched.insert(asked.to.id);
        }
        let dialled = wish.dialling.len();
        wish.dialling.retain(|(_, until)| *until > now);
        wish.away |= wish.dialling.len() < dialled;
        if wish.again.is_some_and(|at| at <= now) && self.seeks_parent() {
            return self.restart_wish(out);
        }
        self.advance_wish(out);
    }

    pub(crate) fn on_redirect(&mut self, from: NodeId, m: Redirect, out: &mut Vec<Output>) {
        if self.take_asked(from, m.nonce).is_none() {
            return;
        }
        // An ancestor that is full already has nothing better further down.
        let place = &mut self.place;
        let above = || place.above.lineage().ancestors.iter().any(|node| node.id == from);
        let wish = &mut place.wish;
        wish.redirects += 1;
        if wish.redirects <= DEPTH_MAX && !(wish.shifting && above()) {
            for node in m.to.into_iter().take(REDIRECTS_MAX).rev() {
                wish.queue.retain(|known| known.id != node.id);
                wish.queue.push_front(Arc::new(node));
            }
            wish.queue.truncate(2 * CANDIDATES_MAX);
        }
        self.advance_wish(out);
    }

    pub(crate) fn on_refused(&mut self, from: NodeId, m: AttachRefused, out: &mut Vec<Output>) {
        if let Some(by) = self.take_asked(from, m.nonce) {
            self.place.wish.away |= m.refusal != Refusal::Cycle;
            self.refused_by(by, m.refusal, out);
            self.advance_wish(out);
        }
    }

    /// Tells the owner of a refusal that will not go away by itself, once.
    fn refused_by(&mut self, by: Arc<NodeRef>, refusal: Refusal, out: &mut Vec<Output>) {
        let wish = &mut self.place.wish;
        if refusal == Refusal::Cycle {
            // It is one of ours again. Should it be cut off once more, it will seek us.
            wish.remembered.retain(|(node, _)| node.id != by.id);
            self.place.lineage_touched = true;
        }
        let asked_for = wish.configured.iter().any(|node| node.id == by.id);
        if refusal != Refusal::Busy && asked_for && wish.told != Some((by.id, refusal)) {
            wish.told = Some((by.id, refusal));
            out.push(Output::JoinRefused { by: (*by).clone(), refusal });
        }
    }

    pub(crate) fn on_attached(&mut self, from: NodeId, m: Attached, out: &mut Vec<Output>) {
        if self.take_asked(from, m.nonce).is_none() {
            if self.place.is_parent(from) {
                self.on_lineage(from, m.lineage, out);
            } else if self.place.wish.asked.as_ref().is_none_or(|asked| asked.to.id != from) {
                // Else it is about to read that it is asked again, and lets go by itself.
                self.send_tree(from, Detach {}, out);
            }
            return;
        }
        let Some(parent) = self.links.get(from).cloned() else { return };
        // Two roots wanted each other, and the other gave up its own attempt.
        if self.place.children.contains_key(&from) {
            self.drop_child(from);
        }
        let wish = &mut self.place.wish;
        wish.shifting = false;
        wish.queue.clear();
        for (node, _) in wish.dialling.drain(..) {
            self.touched.insert(node.id);
        }
        wish.again = None;
        wish.failures = 0;
        wish.told = None;
        // Who was told to have one parent only goes back to it as soon as it can.
        wish.moving = wish.here && !wish.configured.iter().any(|node| node.id == from);
        let old = self.place.parent.replace(parent.clone());
        let old_root = self.place.above.lineage().ancestors.pop();
        let root = m.lineage.ancestors.last().cloned();
        self.learn_lineage(m.lineage);
        self.upward.begin();
        if let Some(old) = old.filter(|old| old.id != from) {
            if let Some(root) = root.filter(|root| old_root.is_some_and(|old| old.id != root.id)) {
                self.send_tree(old.id, Seek { root }, out);
            }
            self.send_tree(old.id, Detach {}, out);
            self.searches_lost(old.id, out);
            self.questions_lost(old.id, out);
            self.touched.insert(old.id);
        }
        out.push(Output::Joined((*parent).clone()));
        self.climb_again(out);
        self.advance_wish(out);
    }

    /// One of this tree has gone to another. This node, if it is the root, seeks the other.
    pub(crate) fn on_seek(&mut self, from: NodeId, m: Seek, out: &mut Vec<Output>) {
        if !self.place.children.contains_key(&from) {
            return self.not_my_neighbour(from, out);
        }
        if let Some(parent) = &self.place.parent {
            return self.send_tree(parent.id, m, out);
        }
        let is_known = |id| id == self.me.id || self.place.children.contains_key(&id);
        if self.leaving || is_known(m.root.id) {
            return;
        }
        let wish = &mut self.place.wish;
        wish.remembered.retain(|(node, _)| node.id != m.root.id);
        wish.remembered.insert(0, (Arc::new(m.root), self.now));
        wish.remembered.truncate(CANDIDATES_MAX);
        self.place.lineage_touched = true;
        if self.place.wish.asked.is_none() {
            self.restart_wish(out);
        }
    }

    pub(crate) fn on_lineage(&mut self, from: NodeId, lineage: Lineage, out: &mut Vec<Output>) {
        if self.place.is_parent(from) {
            self.learn_lineage(lineage);
        } else if self.place.wish.asked.as_ref().is_none_or(|asked| asked.to.id != from) {
            self.not_my_neighbour(from, out);
        }
    }

    fn learn_lineage(&mut self, mut lineage: Lineage) {
        lineage.ancestors.truncate(ANCESTORS_MAX + 2);
        lineage.successors.truncate(SUCCESSORS_MAX);
        lineage.sought.truncate(SOUGHT_MAX);
        self.place.above = Above::of(&lineage);
        self.place.lineage_touched = true;
    }

    /// The parent is lost: its relatives are tried first.
    fn lose_parent(&mut self, out: &mut Vec<Output>) {
        let lineage = core::mem::take(&mut self.place.above).lineage();
        self.place.parent = None;
        self.place.lineage_touched = true;
        let me = self.me.id;
        let wish = &mut self.place.wish;
        // Successors wait for those before them, so that they do not all chase one another.
        let before_me = lineage.successors.iter().take_while(|node| node.id != me);
        let above = lineage.ancestors.iter().skip(1).take(CANDIDATES_MAX / 2);
        let lost = lineage.ancestors.first();
        let old = core::mem::take(&mut wish.remembered);
        let new = above.chain(before_me).chain(lost).chain(&lineage.sought);
        for (node, since) in new.map(|node| (Arc::new(node.clone()), self.now)).chain(old) {
            if node.id != me && !wish.remembered.iter().any(|(known, _)| known.id == node.id) {
                wish.remembered.push((node, since));
            }
        }
        wish.remembered.truncate(CANDIDATES_MAX);
        wish.moving = false;
        wish.shifting = false;
        wish.failures = 0;
        out.push(Output::Root);
        if !self.leaving {
            self.restart_wish(out);
        }
        self.climb_again(out);
    }

    /// The way up has changed, or is closed: what waits for a verdict that was asked for on the old way
    /// asks anew.
    fn climb_again(&mut self, out: &mut Vec<Output>) {
        for passing in core::mem::take(&mut self.place.joins).into_values() {
            self.climb(passing.below, passing.until, passing.climb, out);
        }
    }

    fn drop_child(&mut self, id: NodeId) {
        self.place.children.remove(&id);
        self.place.lineage_touched = true;
        self.upward.touched = true;
        self.touched.insert(id);
        self.balance_changed(true);
    }

    pub(crate) fn edge_lost(&mut self, id: NodeId, out: &mut Vec<Output>) {
        self.place.joins.retain(|(joiner, _), passing| *joiner != id && passing.below != Some(id));
        if self.place.children.contains_key(&id) {
            self.drop_child(id);
        }
        if self.place.is_parent(id) {
            self.touched.insert(id);
            self.lose_parent(out);
        }
        if !self.is_linked(id) && self.place.wish.asked.take_if(|asked| asked.to.id == id).is_some() {
            self.place.wish.away = true;
            self.advance_wish(out);
        }
    }

    pub(crate) fn on_attach(&mut self, from: NodeId, m: Attach, out: &mut Vec<Output>) {
        let refuse = |refusal| AttachRefused { nonce: m.nonce, refusal };
        if self.leaving {
            return self.send_tree(from, refuse(Refusal::Full), out);
        }
        if self.place.is_parent(from) {
            return self.send_tree(from, refuse(Refusal::Cycle), out);
        }
        if self.place.children.contains_key(&from) {
            self.drop_child(from);
            self.searches_lost(from, out);
            self.questions_lost(from, out);
        }
        self.place.joins.retain(|(joiner, _), passing| *joiner != from || passing.below.is_some());
        let taken = self.place.taken();
        if taken >= self.settings.children_max {
            out.push(Output::Full(Table::Children));
            return self.send_tree(from, refuse(Refusal::Full), out);
        }
        if !m.here && taken >= self.settings.fan_out {
            let to = self.lighter_children(m.size);
            return if to.is_empty() {
                self.send_tree(from, refuse(Refusal::Busy), out);
            } else {
                self.send_tree(from, Redirect { nonce: m.nonce, to }, out);
            };
        }
        let climb = Climb { joiner: from, nonce: m.nonce, size: m.size, acceptor: self.me.id, height: 0 };
        self.climb(None, self.now + self.settings.commit, climb, out);
    }

    /// The children with the smallest subtrees, to pass a joiner with `size` nodes down to.
    fn lighter_children(&mut self, size: u32) -> Vec<NodeRef> {
        let mut order: Vec<(u32, u64, NodeId)> = (self.place.children.values())
            .map(|child| (child.weight(), child.since, child.node.id))
            .collect();
        order.sort_unstable();
        order.truncate(REDIRECTS_MAX);
        if let Some(child) = order.first().and_then(|(_, _, id)| self.place.children.get_mut(id)) {
            child.expected = child.expected.saturating_add(size.max(1));
        }
        order.iter().map(|(_, _, id)| (*self.place.children[id].node).clone()).collect()
    }

    pub(crate) fn on_climb(&mut self, from: NodeId, m: Climb, out: &mut Vec<Output>) {
        if self.place.children.contains_key(&from) {
            self.climb(Some(from), self.now + self.settings.commit, m, out);
        } else {
            self.not_my_neighbour(from, out);
        }
    }

    /// Passes an attempt up, or decides it. `below`: the child it came from.
    fn climb(&mut self, below: Option<NodeId>, until: Tick, mut m: Climb, out: &mut Vec<Output>) {
        let verdict = if m.joiner == self.me.id {
            Some(Refusal::Cycle)
        } else if self.leaving || self.place.parent.is_some() && self.place.wish.asked.is_some() {
            Some(Refusal::Busy)
        } else if usize::from(m.height) >= DEPTH_MAX {
            Some(Refusal::Deep)
        } else if self.place.joins.len() >= JOINS_MAX {
            out.push(Output::Full(Table::Joins));
            Some(Refusal::Busy)
        } else if let Some(parent) = &self.place.parent {
            let parent = parent.id;
            self.arm(until, Timer::Joins);
            self.place.joins.insert((m.joiner, m.nonce), Passing { below, until, climb: m.clone() });
            m.height += 1;
            return self.send_tree(parent, m, out);
        } else {
            self.decide(m.joiner, m.size)
        };
        let verdict = Verdict { joiner: m.joiner, nonce: m.nonce, acceptor: m.acceptor, refusal: verdict };
        self.pass_verdict(below, verdict, out);
    }

    /// The root's verdict on a joiner.
    fn decide(&mut self, joiner: NodeId, size: u32) -> Option<Refusal> {
        let asked = self.place.wish.asked.as_ref().map(|asked| asked.to.id)?;
        let larger = (self.summarise().nodes, self.me.id) > (size, joiner);
        if asked != joiner || !larger {
            return Some(Refusal::Busy);
        }
        self.place.wish.asked = None;
        self.touched.insert(joiner);
        let again = self.now + self.settings.commit;
        self.place.wish.again = Some(again);
        self.arm(again, Timer::Wish);
        None
    }

    pub(crate) fn on_verdict(&mut self, from: NodeId, m: Verdict, out: &mut Vec<Output>) {
        // An entry exists only while the parent it was sent to is the parent.
        if !self.place.is_parent(from) {
            return;
        }
        if let Some(passing) = self.place.joins.remove(&(m.joiner, m.nonce))
            && passing.until > self.now
        {
            self.pass_verdict(passing.below, m, out);
        }
    }

    fn pass_verdict(&mut self, below: Option<NodeId>, m: Verdict, out: &mut Vec<Output>) {
        match (below, m.refusal) {
            (Some(child), _) => self.send_tree(child, m, out),
            (None, Some(refusal)) => {
                self.touched.insert(m.joiner);
                self.send_tree(m.joiner, AttachRefused { nonce: m.nonce, refusal }, out);
            }
            (None, None) => self.adopt(m.joiner, m.nonce, out),
        }
    }

    fn adopt(&mut self, id: NodeId, nonce: u64, out: &mut Vec<Output>) {
        let Some(node) = self.links.get(id).cloned() else { return };
        if self.place.parent.is_none() {
            // It comes by itself: if this node sought it, it need not go on.
            self.refused_by(node.clone(), Refusal::Cycle, out);
        }
        self.place.children_so_far += 1;
        let child = Child::new(node, self.place.children_so_far, self.now);
        self.place.children.insert(id, child);
        self.place.lineage_touched = true;
        self.upward.touched = true;
        self.balance_changed(true);
        let lineage = self.lineage_below();
        if self.place.children.len() == 1 {
            self.place.told = Above::of(&lineage);
        }
        self.send_tree(id, Attached { nonce, lineage }, out);
    }

    pub(crate) fn joins_time(&mut self) {
        let now = self.now;
        let touched = &mut self.touched;
        self.place.joins.retain(|(joiner, _), passing| {
            let keep = passing.until > now;
            if !keep {
                touched.insert(*joiner);
            }
            keep
        });
    }

    /// What the children are told about who is above.
    fn lineage_below(&self) -> Lineage {
        if self.place.parent.is_none() {
            let mut children: Vec<&Child> = self.place.children.values().collect();
            children.sort_unstable_by_key(|child| child.since);
            let successors =
                children.iter().take(SUCCESSORS_MAX).map(|child| (*child.node).clone()).collect();
            let sought = self.place.wish.candidates(self.me.id);
            let sought = sought.iter().take(SOUGHT_MAX).map(|node| (**node).clone()).collect();
            return Lineage { ancestors: vec![self.me.clone()], successors, sought };
        }
        let mut lineage = self.place.above.lineage();
        let root = lineage.ancestors.last().cloned();
        lineage.ancestors.insert(0, self.me.clone());
        if lineage.ancestors.len() > ANCESTORS_MAX + 1 {
            lineage.ancestors.truncate(ANCESTORS_MAX + 1);
            lineage.ancestors.extend(root);
        }
        lineage
    }

    pub(crate) fn tell_lineage(&mut self, out: &mut Vec<Output>) {
        if !core::mem::take(&mut self.place.lineage_touched) {
            return;
        }
        if self.place.children.is_empty() {
            self.place.told = Above::default();
            return;
        }
        let lineage = self.lineage_below();
        let below = Above::of(&lineage);
        if below != self.place.told {
            for id in self.place.children.keys() {
                self.send_tree(*id, lineage.clone(), out);
            }
            self.place.told = below;
        }
    }

    pub(crate) fn place_leaves(&mut self, out: &mut Vec<Output>) {
        let wish = &mut self.place.wish;
        *wish = Wish { nonce: wish.nonce, ..Wish::default() };
        let neighbours: Vec<NodeId> =
            self.place.parent.iter().map(|n| n.id).chain(self.place.children.keys().copied()).collect();
        for id in neighbours {
            self.send_tree(id, Detach {}, out);
            self.neighbour_lost(id, out);
        }
    }
}

#[cfg(test)]
impl Core {
    /// Attempts of others that wait for a verdict here.
    pub(crate) fn joins_that_wait(&self) -> impl Iterator<Item = (NodeId, u64)> {
        self.place.joins.keys().copied()
    }

    /// Whether an attempt of this node's own is under way.
    pub(crate) fn is_asking(&self) -> bool {
        self.place.wish.asked.is_some()
    }
}
