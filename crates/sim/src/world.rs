//! Time, events, and what the nodes are told.

use crate::calls::Calls;
use crate::clock::Clock;
use crate::event::{Event, Queue};
use crate::net::Net;
use crate::node::{Node, index_of};
use crate::random::Random;
use crate::trace::{Digest, Sent};
use core::time::Duration;
use mutirao_tree::{Core, Input, Settings, Verified};
use mutirao_wire::link::{Me, Pace};
use mutirao_wire::node::Asker;
use mutirao_wire::{AppId, Incarnation, LeaseId, NodeId, PoolId, Tick};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

/// What a world is like.
#[derive(Debug, Clone)]
pub struct Options {
    /// From which all chance follows.
    pub seed: u64,
    /// Time of a message on a link, least and most.
    pub latency: (Duration, Duration),
    /// Nodes of one rack follow one another; between racks of this size a message takes as long again
    /// for each power of the size that separates them. 0: distance does not matter.
    pub rack: usize,
    /// Messages lost on the way, of a thousand. The transport sends such a message again, so that it and
    /// those behind it arrive late.
    pub loss_permille: usize,
    /// Time a worker takes to end, least and most.
    pub worker_end: (Duration, Duration),
    /// Settings of the nodes.
    pub settings: Settings,
    /// Whether each end of a connection runs the link machine, with handshakes and beats. Otherwise
    /// connections stand at once and their loss is told after the time that silence would take.
    pub beats: bool,
    /// Whether leases for plugins have workers, so that programs can make calls.
    pub calls: bool,
    /// Whether what must always hold is checked after each step.
    pub check: bool,
    /// Whether the trace is kept as text, or only its fingerprint.
    pub keep_trace: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            seed: 1,
            latency: (Duration::from_micros(50), Duration::from_micros(80)),
            rack: 0,
            loss_permille: 0,
            worker_end: (Duration::from_micros(200), Duration::from_millis(3)),
            settings: Settings::default(),
            beats: false,
            calls: false,
            check: true,
            keep_trace: false,
        }
    }
}

/// Many nodes on a virtual network.
pub struct World {
    /// The nodes, by number.
    pub nodes: Vec<Node>,
    /// Messages sent between nodes so far.
    pub sent: Sent,
    /// The trace, if it is kept.
    pub trace: Vec<String>,
    /// Chance, for scenarios too.
    pub random: Random,
    pub(crate) net: Net,
    pub(crate) calls: Calls,
    /// Which application was ever given which lease.
    pub(crate) given: BTreeMap<LeaseId, AppId>,
    pub(crate) options: Options,
    pub(crate) now: Tick,
    pub(crate) digest: Digest,
    pub(crate) questions: u64,
    pub(crate) buffer: Vec<u8>,
    settings: Arc<Settings>,
    queue: Queue,
}

impl World {
    /// A world without nodes.
    pub fn new(options: Options) -> World {
        World {
            nodes: Vec::new(),
            sent: Sent::default(),
            trace: Vec::new(),
            random: Random::new(options.seed),
            net: Net::default(),
            calls: Calls::default(),
            settings: Arc::new(options.settings.clone()),
            given: BTreeMap::new(),
            options,
            now: Tick(1_000_000),
            digest: Digest::default(),
            questions: 0,
            buffer: Vec::new(),
            queue: Queue::default(),
        }
    }

    /// Adds a machine, still down.
    pub fn add(&mut self, slots: u16) -> usize {
        let index = self.nodes.len();
        self.nodes.push(Node::new(index, slots, self.settings.clone()));
        self.net.add_node();
        index
    }

    /// Adds machines and starts them, each told to join what `parent` names, if anything.
    pub fn grow(&mut self, count: usize, slots: u16, here: bool, parent: impl Fn(usize) -> Option<usize>) {
        let first = self.nodes.len();
        for _ in 0..count {
            self.add(slots);
        }
        for index in first..first + count {
            if let Some(parent) = parent(index) {
                self.nodes[index].join = Some((vec![self.nodes[parent].me.clone()], here));
            }
            self.start(index);
        }
    }

    /// Starts a node that is down. Programs at home there come back to it and name what they held.
    pub fn start(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        assert!(node.core.is_none(), "{} is up already", node.me.name);
        let verify = Box::new(|asker: &Asker| match core::str::from_utf8(&asker.token) {
            Ok("") => Verified::Local,
            Ok(name) => Verified::User(name.into()),
            Err(_) => Verified::Invalid("it is garbled".into()),
        });
        node.core = Some(Core::new(
            node.me.clone(),
            node.settings.clone(),
            node.capacity.clone(),
            node.policy.clone(),
            verify,
        ));
        node.left = false;
        node.woken_for = None;
        if self.options.beats {
            node.identity = Some(Rc::new(Me {
                node: node.me.clone(),
                pool: PoolId([7; 32]),
                machine: [index as u8; 16],
                protocol: mutirao_wire::limits::PROTOCOL,
                pace: Pace::default(),
            }));
        }
        let (join, charter) = (node.join.clone(), node.charter.clone());
        if let Some(charter) = charter {
            self.input(index, Input::Charter(charter));
        }
        if let Some((to, here)) = join {
            self.input(index, Input::Join { to, here });
        }
    }

    /// Starts a node that is down, later.
    pub fn start_after(&mut self, index: usize, delay: Duration) {
        self.at(delay, Event::Start(index as u32));
    }

    /// Tells a node something now; one that stalls, once it goes on.
    pub fn tell(&mut self, index: usize, input: Input) {
        let life = self.nodes[index].me.incarnation;
        self.happen(Event::Input(index as u32, life, Box::new(input)));
    }

    /// Tells a node something now, whether it stalls or not.
    pub fn input(&mut self, index: usize, input: Input) {
        let now = self.local(index);
        match &input {
            Input::Gone { serial } => {
                self.nodes[index].workers.remove(serial);
            }
            Input::Request { request, .. } => {
                if let Some(app) = self.nodes[index].apps.get_mut(&request.app) {
                    *app.open.entry(*request).or_default() += 1;
                }
            }
            _ => {}
        }
        let Some(core) = self.nodes[index].core.as_mut() else { return };
        let mut out = Vec::new();
        core.handle(now, input, &mut out);
        for output in out {
            self.output(index, output);
        }
        if self.options.check {
            self.check_step(index);
        }
        self.arm(index);
    }

    /// The node's clock jumps ahead.
    pub fn step_clock(&mut self, index: usize, by: Duration) {
        self.note(|| format!("n{index}'s clock jumps by {by:?}"));
        self.nodes[index].clock.step(self.now, by);
        self.arm(index);
        self.arm_links_of(index);
        self.arm_calls_of(index);
    }

    /// Gives the node another clock. Its node must be down, since no clock goes back.
    pub fn set_clock(&mut self, index: usize, clock: Clock) {
        assert!(self.nodes[index].core.is_none(), "n{index} is up");
        self.nodes[index].clock = clock;
    }

    /// Virtual time.
    pub fn now(&self) -> Tick {
        self.now
    }

    /// The time as a node sees it.
    pub(crate) fn local(&self, index: usize) -> Tick {
        self.nodes[index].clock.read(self.now)
    }

    /// Messages sent between nodes so far.
    pub fn messages(&self) -> u64 {
        self.sent.messages()
    }

    /// A fingerprint of all that has happened.
    pub fn fingerprint(&self) -> u64 {
        self.digest.value()
    }

    /// Lets time pass.
    pub fn run(&mut self, time: Duration) {
        self.run_until(time, |_| false);
    }

    /// Lets time pass until `done`, at most for `time`. Says whether it was done.
    pub fn run_until(&mut self, time: Duration, done: impl Fn(&World) -> bool) -> bool {
        let end = self.now + time;
        while !done(self) {
            if self.queue.next_at().is_none_or(|at| at > end) {
                self.now = end;
                return done(self);
            }
            if let Some((at, event)) = self.queue.pop() {
                self.now = at;
                self.happen(event);
            }
        }
        true
    }

    /// Like [`World::run_until`], but looks once a millisecond only: for what is costly to look at.
    pub fn run_until_sometimes(&mut self, time: Duration, done: impl Fn(&World) -> bool) -> bool {
        let end = self.now + time;
        while !done(self) {
            if self.now >= end {
                return false;
            }
            self.run(Duration::from_millis(1));
        }
        true
    }

    /// The number of the node with this id.
    ///
    /// # Panics
    /// If there is none.
    pub fn number(&self, id: NodeId) -> usize {
        self.find(id).unwrap_or_else(|| panic!("{id:?} is no node of this world"))
    }

    pub(crate) fn find(&self, id: NodeId) -> Option<usize> {
        index_of(id).filter(|index| *index < self.nodes.len())
    }

    /// The number of a node's parent.
    pub fn parent(&self, index: usize) -> Option<usize> {
        self.nodes[index].core.as_ref()?.parent().map(|parent| self.number(parent.id))
    }

    /// Whether a control link between the two stands.
    pub fn is_linked(&self, a: usize, b: usize) -> bool {
        self.net.stands(a, b)
    }

    /// Nodes that are up.
    pub fn up(&self) -> BTreeSet<usize> {
        (0..self.nodes.len()).filter(|index| self.nodes[*index].core.is_some()).collect()
    }

    pub(crate) fn happen(&mut self, event: Event) {
        match event {
            Event::Input(index, life, input) => {
                let index = index as usize;
                if !self.alive(index, life) {
                    return;
                }
                if self.stalled(index) {
                    return self.nodes[index].inbox.push(Event::Input(index as u32, life, input));
                }
                self.input(index, *input);
            }
            Event::Wake(index, life, at) => self.wake(index as usize, life, at),
            Event::LinkTime { link, side, due } => self.link_time(link, side, due),
            Event::Deliver { link, from, to, bytes } => {
                if self.stalled(to as usize) {
                    return self.nodes[to as usize].inbox.push(Event::Deliver { link, from, to, bytes });
                }
                self.deliver(link, from as usize, to as usize, &bytes);
            }
            Event::Closed { link, at, to } => {
                if self.stalled(at as usize) {
                    return self.nodes[at as usize].inbox.push(Event::Closed { link, at, to });
                }
                self.closed(link, at as usize, to as usize);
            }
            Event::Resume(index) => {
                let index = index as usize;
                if self.nodes[index].stalled <= self.now {
                    for event in core::mem::take(&mut self.nodes[index].inbox) {
                        self.happen(event);
                    }
                }
            }
            Event::Idle { at, to, link } => self.close_idle(at as usize, to as usize, link),
            Event::Connect { from, to } => self.connect(from as usize, to as usize),
            Event::DialFailed { from, to } => {
                self.net.dials.remove(&(from, to));
                if !self.net.stands(from as usize, to as usize) {
                    self.tell(from as usize, Input::DialFailed(self.nodes[to as usize].me.id));
                }
            }
            Event::Start(index) => self.start_again(index as usize),
            Event::Call(what) => self.call_event(what),
        }
    }

    fn wake(&mut self, index: usize, life: Incarnation, at: Tick) {
        if !self.alive(index, life) || self.nodes[index].woken_for != Some(at) {
            return;
        }
        if self.stalled(index) {
            // After a pause what arrived meanwhile comes first.
            let delay = (self.nodes[index].stalled - self.now) + Duration::from_micros(1);
            return self.at(delay, Event::Wake(index as u32, life, at));
        }
        self.nodes[index].woken_for = None;
        self.input(index, Input::Time);
    }

    /// Plans the next time at which the node is to be told the time.
    pub(crate) fn arm(&mut self, index: usize) {
        let now = self.now;
        let node = &mut self.nodes[index];
        let Some(at) = node.core.as_ref().and_then(Core::deadline) else { return };
        let at = node.clock.when(at).max(now);
        if node.woken_for.is_none_or(|planned| planned > at) {
            node.woken_for = Some(at);
            let life = node.me.incarnation;
            self.at(at - now, Event::Wake(index as u32, life, at));
        }
    }

    pub(crate) fn at(&mut self, delay: Duration, event: Event) {
        self.queue.add(self.now + delay, event);
    }

    pub(crate) fn alive(&self, index: usize, life: Incarnation) -> bool {
        self.nodes[index].core.is_some() && self.nodes[index].me.incarnation == life
    }

    /// Whether what comes for a node has to wait.
    pub(crate) fn stalled(&self, index: usize) -> bool {
        self.nodes[index].stalled > self.now
    }

    /// Adds to the fingerprint, and to the trace if it is kept.
    pub(crate) fn note(&mut self, text: impl Fn() -> String) {
        if self.options.keep_trace {
            self.trace.push(format!("{} {}", self.now.0, text()));
        }
        self.digest.word(self.now.0);
    }
}
