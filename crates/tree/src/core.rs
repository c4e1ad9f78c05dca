//! The machine the daemon and the simulator talk to: hands each input to the part it concerns.

use crate::again::Again;
use crate::ask::Questions;
use crate::attach::Place;
use crate::balance::Balance;
use crate::charter::Charter;
use crate::home::Home;
use crate::io::{Capacity, Input, LeaseRecord, NodeMessage, Output};
use crate::keep::Keeps;
use crate::lend::Lend;
use crate::links::Links;
use crate::policy::{Policy, Verifier};
use crate::queue::Queue;
use crate::reclaim::Lending;
use crate::search::Searches;
use crate::settings::Settings;
use crate::summary::Upward;
use crate::wait::{Asked, Waits};
use mutirao_wire::charter::CharterVersion;
use mutirao_wire::lease::LeaseMessage;
use mutirao_wire::limits::BEAT;
use mutirao_wire::node::Want;
use mutirao_wire::tree::{AskId, Detach, Lineage, Summary, TreeMessage};
use mutirao_wire::{AppId, LeaseId, NodeId, NodeRef, RequestId, Tick};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What a timer is for. One that is no longer meant finds nothing to do; it is taken back where it would often
/// wake the node for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Timer {
    Wish,
    Joins,
    Summary,
    Balance,
    Search(RequestId),
    Again(RequestId),
    Question(AskId),
    Lease(u64),
    Held(LeaseId),
    Gone(AppId),
    Redial(NodeId),
    Queue,
    Wait(RequestId),
    Confirm,
    Lending,
}

/// All that one node decides about the tree and about leases.
pub struct Core {
    pub(crate) me: NodeRef,
    pub(crate) settings: Arc<Settings>,
    pub(crate) now: Tick,
    pub(crate) links: Links,
    pub(crate) timers: BTreeSet<(Tick, Timer)>,
    /// Nodes whose link may have become idle by the input at hand.
    pub(crate) touched: BTreeSet<NodeId>,
    pub(crate) place: Place,
    pub(crate) upward: Upward,
    pub(crate) balance: Balance,
    pub(crate) searches: Searches,
    pub(crate) again: Again,
    pub(crate) questions: Questions,
    pub(crate) lend: Lend,
    pub(crate) home: Home,
    pub(crate) waits: Waits,
    pub(crate) queue: Queue,
    pub(crate) keeps: Keeps,
    pub(crate) charter: Charter,
    pub(crate) leaving: bool,
    left: bool,
}

impl Core {
    /// A node without a parent. Its `me.incarnation` must be higher than in each earlier life. Many
    /// simulated nodes share one copy of their settings.
    pub fn new(
        me: NodeRef,
        settings: impl Into<Arc<Settings>>,
        capacity: Capacity,
        policy: Policy,
        verify: Verifier,
    ) -> Core {
        let settings = settings.into();
        let queue = Queue::new(&settings);
        Core {
            place: Place::new(me.incarnation),
            me,
            settings,
            now: Tick(0),
            links: Links::default(),
            timers: BTreeSet::new(),
            touched: BTreeSet::new(),
            upward: Upward::default(),
            balance: Balance::default(),
            searches: Searches::default(),
            again: Again::default(),
            questions: Questions::default(),
            lend: Lend::new(capacity, policy, verify),
            home: Home::default(),
            waits: Waits::default(),
            queue,
            keeps: Keeps::default(),
            charter: Charter::default(),
            leaving: false,
            left: false,
        }
    }

    /// Takes one input and appends what follows from it. `now` never goes back.
    pub fn handle(&mut self, now: Tick, input: Input, out: &mut Vec<Output>) {
        self.now = self.now.max(now);
        match input {
            Input::LinkUp(node) => self.link_up(node, out),
            Input::LinkDown(id) => self.link_down(id, out),
            Input::DialFailed(id) => {
                self.wish_failed(id, out);
                self.home_unreachable(id);
                self.lend.unreachable(id);
            }
            Input::Tree { from, message } => self.tree(from, message, out),
            Input::Lease { from, message } => self.lease(from, message, out),
            Input::Join { to, here } => self.join(to, here, out),
            Input::Request { request, want, at_least, asker, budget, wait } => {
                let asker = Arc::new(asker);
                self.request(Asked { request, want, at_least, asker, budget }, wait, out);
            }
            Input::CancelRequest(request) => self.cancel_request(request, out),
            Input::Held { app, epoch, homes, rings, plugin, leases } => {
                self.hold_again(app, epoch, homes, plugin, leases, out);
                self.has_rings(app, rings);
            }
            Input::GiveBack { app, leases } => self.give_back(app, leases, out),
            Input::AppGone(app) => self.app_gone(app, out),
            Input::Gone { serial } => self.worker_gone(serial),
            Input::WorkerNews { serial, state } => self.worker_news(serial, state, out),
            Input::End { serial, end } => self.end_lease(serial, end, out),
            Input::Ask { number, question, budget } => self.ask(number, question, budget, out),
            Input::Answered { id, rows } => self.answered(id, rows, out),
            Input::Policy(policy) => {
                self.set_policy(policy, out);
                self.judge_keeps(out);
            }
            Input::Charter(charter) => self.take_charter(charter, out),
            Input::Settings(settings) => {
                self.settings = settings;
                self.balance_changed(true);
            }
            Input::Capacity(capacity) => {
                self.lend.capacity = capacity;
                self.upward.touched = true;
                self.judge_keeps(out);
            }
            Input::Drain { grace } => self.drain(grace, out),
            Input::Reclaim(order) => self.reclaim(order, out),
            Input::Resume => self.resume_lending(out),
            Input::MayLend { may, grace } => self.may_lend(may, grace, out),
            Input::Leave => self.leave(out),
            Input::Time => self.time(out),
        }
        self.settle(out);
    }

    /// When [`Input::Time`] is due, if ever. It may turn out that nothing was to be done.
    pub fn deadline(&self) -> Option<Tick> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Whether the control link to `node` serves a purpose here.
    pub fn needs(&self, node: NodeId) -> bool {
        self.place.needs(node) || self.home.needs(node) || self.lend.needs(node)
    }

    /// This node.
    pub fn me(&self) -> &NodeRef {
        &self.me
    }

    /// The parent; `None` for a root.
    pub fn parent(&self) -> Option<&NodeRef> {
        self.place.parent.as_deref()
    }

    /// The children, by id.
    pub fn children(&self) -> impl Iterator<Item = &NodeRef> {
        self.place.children.values().map(|child| &*child.node)
    }

    /// Who is above, as the parent told.
    pub fn lineage(&self) -> Lineage {
        self.place.above.lineage()
    }

    /// Whom this node looks for while it has no parent, best first.
    pub fn seeks(&self) -> Vec<NodeRef> {
        self.place.sought(self.me.id)
    }

    /// What is in this node's subtree, as far as known here.
    pub fn summary(&self) -> Summary {
        self.summarise()
    }

    /// How this node lends at present.
    pub fn lending(&self) -> Lending {
        self.lend.lending()
    }

    /// The slots of this node: not lent, and in all. Of those not lent, some may be kept for the owner: see
    /// [`lending`](Core::lending).
    pub fn slots(&self) -> (u16, u16) {
        (self.lend.unlent(), self.lend.capacity.slots)
    }

    /// What this node has.
    pub fn capacity(&self) -> &Capacity {
        &self.lend.capacity
    }

    /// Of its memory what nobody has set aside, MiB.
    pub fn memory_free_mib(&self) -> u32 {
        self.lend.taken.memory_free_mib(&self.lend.capacity)
    }

    /// How many instances of a named resource nobody holds.
    pub fn resource_free(&self, name: &str) -> u32 {
        self.lend.taken.resource_free(&self.lend.capacity, name)
    }

    /// Whether this node, by what it has and where it is, could serve one bundle of what is wanted; with
    /// `free`, whether it could now. The policy is not asked.
    pub fn could_serve(&self, want: &Want, free: bool) -> bool {
        want.check().is_ok()
            && self.is_inside(want)
            && self.is_named(want)
            && self.lend.could_serve(want, free)
    }

    /// The leases granted here and confirmed, until their workers are gone.
    pub fn leases(&self) -> impl Iterator<Item = &LeaseRecord> {
        self.lend.begun()
    }

    /// The lease granted here under `serial`, confirmed or not.
    pub fn lease_record(&self, serial: u64) -> Option<&LeaseRecord> {
        self.lend.record(serial)
    }

    /// All leases granted here, also those not yet confirmed.
    pub fn granted(&self) -> impl Iterator<Item = &LeaseRecord> {
        self.lend.all()
    }

    /// The leases `app` holds through this node.
    pub fn held(&self, app: AppId) -> impl Iterator<Item = LeaseId> {
        self.home.held(app)
    }

    /// The version of the charter in force here; zeros for none.
    pub fn charter(&self) -> CharterVersion {
        self.charter.version()
    }

    /// The applications at home here.
    pub fn apps(&self) -> impl Iterator<Item = AppId> {
        self.home.apps()
    }

    fn link_up(&mut self, node: NodeRef, out: &mut Vec<Output>) {
        if node.id == self.me.id {
            return;
        }
        if self.links.contains(node.id) {
            self.link_down(node.id, out);
        }
        let id = node.id;
        let node = Arc::new(node);
        self.place.link_up(&node);
        self.links.insert(node);
        self.tell_charter(id, out);
        self.home_linked(id, out);
        self.lend_linked(id, out);
        self.wish_heard(out);
    }

    fn link_down(&mut self, id: NodeId, out: &mut Vec<Output>) {
        if !self.links.remove(id) {
            return;
        }
        self.charter.link_lost(id);
        self.lend_lost(id);
        self.home_lost(id, out);
        self.neighbour_lost(id, out);
    }

    /// The edge to `id` is no more: everything under way on it is over.
    pub(crate) fn neighbour_lost(&mut self, id: NodeId, out: &mut Vec<Output>) {
        self.questions_lost(id, out);
        self.edge_lost(id, out);
        self.searches_lost(id, out);
    }

    fn tree(&mut self, from: NodeId, message: TreeMessage, out: &mut Vec<Output>) {
        if !self.links.contains(from) {
            return;
        }
        match message {
            TreeMessage::Attach(m) => self.on_attach(from, m, out),
            TreeMessage::Redirect(m) => self.on_redirect(from, m, out),
            TreeMessage::AttachRefused(m) => self.on_refused(from, m, out),
            TreeMessage::Climb(m) => self.on_climb(from, m, out),
            TreeMessage::Verdict(m) => self.on_verdict(from, m, out),
            TreeMessage::Attached(m) => self.on_attached(from, m, out),
            TreeMessage::Detach(_) => self.neighbour_lost(from, out),
            TreeMessage::Shift(m) => self.on_shift(from, m, out),
            TreeMessage::Seek(m) => self.on_seek(from, m, out),
            TreeMessage::Lineage(m) => self.on_lineage(from, m, out),
            TreeMessage::Summary(m) => self.on_summary(from, m, out),
            TreeMessage::Search(m) => self.on_search(from, m, out),
            TreeMessage::SearchReply(m) => self.on_search_reply(from, m, out),
            TreeMessage::SearchCancel(m) => self.on_search_cancel(from, m.request, out),
            TreeMessage::Ask(m) => self.on_ask(from, m, out),
            TreeMessage::Answer(m) => self.on_answer(from, m, out),
            TreeMessage::Present(m) => self.on_present(from, m, out),
            TreeMessage::Turned(m) => self.on_turned(from, m, out),
            TreeMessage::Withdraw(m) => self.on_withdraw(from, m, out),
            TreeMessage::Reserve(m) => self.on_reserve(from, m, out),
            TreeMessage::Unreserve(m) => self.on_unreserve(from, m, out),
            TreeMessage::Gathered(m) => self.on_gathered(from, m),
            TreeMessage::CharterVersion(m) => self.on_charter_version(from, m, out),
            TreeMessage::CharterDocument(m) => self.on_charter_document(from, m, out),
        }
    }

    fn lease(&mut self, from: NodeId, message: LeaseMessage, out: &mut Vec<Output>) {
        if !self.links.contains(from) {
            return;
        }
        match message {
            LeaseMessage::Confirm(m) => self.on_confirm(from, m, out),
            LeaseMessage::Confirmed(m) => self.on_confirmed(from, m, out),
            LeaseMessage::Release(m) => self.on_release(from, m, out),
            LeaseMessage::Revoked(m) => self.on_revoked(from, m, out),
            LeaseMessage::WorkerNews(m) => self.on_worker_news(from, m, out),
            LeaseMessage::PluginApproved(m) => self.on_approved(m.plugin, out),
            LeaseMessage::Reclaiming(m) => self.on_reclaiming(from, m, out),
        }
    }

    fn time(&mut self, out: &mut Vec<Output>) {
        while let Some(&(at, timer)) = self.timers.first() {
            if at > self.now {
                break;
            }
            self.timers.pop_first();
            match timer {
                Timer::Wish => self.wish_time(out),
                Timer::Joins => self.joins_time(),
                Timer::Balance => self.balance_time(out),
                Timer::Summary => self.upward.touched = true,
                Timer::Search(request) => self.search_time(request, out),
                Timer::Again(request) => self.again_time(request, out),
                Timer::Question(id) => self.question_time(id, out),
                Timer::Lease(serial) => self.lease_time(serial, out),
                Timer::Held(lease) => self.held_time(lease, out),
                Timer::Gone(app) => self.gone_time(app, out),
                Timer::Redial(node) => self.redial(node, out),
                Timer::Queue => self.queue.touched = true,
                Timer::Wait(request) => self.wait_time(request, out),
                Timer::Confirm => self.confirm_time(out),
                Timer::Lending => self.lending_time(out),
            }
        }
        if self.timers.is_empty() {
            self.rest();
        }
    }

    /// Nothing is under way: tables that have run empty give back the room they keep for some entries.
    fn rest(&mut self) {
        self.timers = BTreeSet::new();
        self.touched = BTreeSet::new();
        self.place.rest();
        self.searches.rest();
        self.again.rest();
        self.questions.rest();
        self.lend.rest();
        self.home.rest();
    }

    fn leave(&mut self, out: &mut Vec<Output>) {
        if self.leaving {
            return;
        }
        self.leaving = true;
        self.lend.draining = true;
        self.judge_keeps(out);
        self.home_leaves(out);
        self.lend_leaves(out);
        self.place_leaves(out);
        self.upward.touched = true;
    }

    /// What follows from the state as a whole, after each input.
    fn settle(&mut self, out: &mut Vec<Output>) {
        self.mind_queue(out);
        self.tell_lineage(out);
        self.tell_summary(false, out);
        for id in core::mem::take(&mut self.touched) {
            if self.links.contains(id) && !self.needs(id) {
                out.push(Output::Idle(id));
            }
        }
        if self.leaving && !self.left && self.lend.is_empty() {
            self.left = true;
            out.push(Output::Left);
        }
    }

    pub(crate) fn arm(&mut self, at: Tick, timer: Timer) {
        self.timers.insert((at, timer));
    }

    /// As [`arm`](Core::arm), for what may happen a little later: on the grid on which links have their beats, and
    /// the node wakes in any case.
    pub(crate) fn arm_loosely(&mut self, at: Tick, timer: Timer) {
        let grid = BEAT.as_micros() as u64;
        self.arm(Tick(at.0.div_ceil(grid) * grid), timer);
    }

    /// Takes back a timer that was armed for this very time.
    pub(crate) fn disarm(&mut self, at: Tick, timer: Timer) {
        self.timers.remove(&(at, timer));
    }

    pub(crate) fn is_linked(&self, id: NodeId) -> bool {
        self.links.contains(id)
    }

    /// Whether `id` is the parent or a child.
    pub(crate) fn is_neighbour(&self, id: NodeId) -> bool {
        self.place.is_parent(id) || self.place.children.contains_key(&id)
    }

    /// A message that only neighbours send came from somebody who thinks to be one: mend that.
    pub(crate) fn not_my_neighbour(&self, id: NodeId, out: &mut Vec<Output>) {
        self.send_tree(id, Detach {}, out);
    }

    pub(crate) fn send_tree(&self, to: NodeId, message: impl Into<TreeMessage>, out: &mut Vec<Output>) {
        if self.links.contains(to) {
            out.push(Output::Send { to, message: NodeMessage::Tree(message.into()) });
        }
    }

    pub(crate) fn send_lease(&self, to: NodeId, message: impl Into<LeaseMessage>, out: &mut Vec<Output>) {
        if self.links.contains(to) {
            out.push(Output::Send { to, message: NodeMessage::Lease(message.into()) });
        }
    }
}
