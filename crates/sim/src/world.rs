//! Time, events, and what the nodes say.

use crate::app::App;
use crate::net::Net;
use crate::node::Node;
use crate::random::Random;
use core::time::Duration;
use mutirao_tree::{Core, Input, NodeMessage, Output, Settings, Verified};
use mutirao_wire::frame::Decoder;
use mutirao_wire::lease::LeaseMessage;
use mutirao_wire::limits::{CONTROL_BODY_MAX, HANDSHAKE, SILENCE};
use mutirao_wire::local::LeaseChange;
use mutirao_wire::node::{Asker, Grant, NodeRef, PluginRef, Want};
use mutirao_wire::query::{Question, Row, Topic};
use mutirao_wire::tree::TreeMessage;
use mutirao_wire::{AppId, Incarnation, LeaseId, NodeId, PluginId, RequestId, Tick};
use std::collections::{BTreeMap, BTreeSet};

/// What a world is like.
#[derive(Debug, Clone)]
pub struct Options {
    /// From which all chance follows.
    pub seed: u64,
    /// Time of a message on a link, least and most.
    pub latency: (Duration, Duration),
    /// Time a worker takes to end, least and most.
    pub worker_end: (Duration, Duration),
    /// Settings of the nodes.
    pub settings: Settings,
    /// Whether the trace is kept as text, or only its hash.
    pub keep_trace: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            seed: 1,
            latency: (Duration::from_micros(50), Duration::from_micros(80)),
            worker_end: (Duration::from_micros(200), Duration::from_millis(3)),
            settings: Settings::default(),
            keep_trace: false,
        }
    }
}

/// Something that is to happen.
pub(crate) enum Event {
    Input(usize, Incarnation, Box<Input>),
    Deliver { link: u64, from: usize, to: usize, bytes: Vec<u8> },
    Connect { from: usize, to: usize },
    DialFailed { from: usize, to: usize },
    Down { at: usize, to: usize, link: u64 },
    Wake(usize, Incarnation, Tick),
    Start(usize),
    Resume(usize),
    Idle { at: usize, to: usize, link: u64 },
}

/// Many nodes on a virtual network.
pub struct World {
    /// The nodes, by number.
    pub nodes: Vec<Node>,
    /// Messages sent between nodes so far, by kind.
    pub sent: BTreeMap<String, u64>,
    /// The trace, if it is kept.
    pub trace: Vec<String>,
    /// Chance, for scenarios too.
    pub random: Random,
    pub(crate) net: Net,
    /// Which application was ever given which lease.
    pub(crate) given: BTreeMap<LeaseId, AppId>,
    index: BTreeMap<NodeId, usize>,
    options: Options,
    now: Tick,
    queue: BTreeMap<(Tick, u64), Event>,
    events: u64,
    hash: u64,
    questions: u64,
}

impl World {
    /// A world without nodes.
    pub fn new(options: Options) -> World {
        World {
            nodes: Vec::new(),
            sent: BTreeMap::new(),
            trace: Vec::new(),
            random: Random::new(options.seed),
            net: Net::default(),
            given: BTreeMap::new(),
            index: BTreeMap::new(),
            options,
            now: Tick(1_000_000),
            queue: BTreeMap::new(),
            events: 0,
            hash: 0xcbf2_9ce4_8422_2325,
            questions: 0,
        }
    }

    /// Adds a machine, still down.
    pub fn add(&mut self, slots: u16) -> usize {
        let index = self.nodes.len();
        let node = Node::new(index, slots, self.options.settings.clone());
        self.index.insert(node.me.id, index);
        self.nodes.push(node);
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

    /// Starts a node that is down.
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
        if let Some((to, here)) = node.join.clone() {
            self.input(index, Input::Join { to, here });
        }
    }

    /// The node dies, its workers with it; its programs are told nothing. The others notice at once
    /// (its machine still answers) or, `silently`, by its silence.
    pub fn crash(&mut self, index: usize, silently: bool) {
        self.note(|| format!("crash n{index}"));
        let node = &mut self.nodes[index];
        node.core = None;
        node.workers.clear();
        node.inbox.clear();
        node.me.incarnation = Incarnation(node.me.incarnation.0 + 1);
        for (to, link) in self.net.links_of(index) {
            self.net.forget(index, to, link);
            self.net.kill(link);
            let delay = if silently { self.silence() } else { self.latency() };
            self.at(delay, Event::Down { at: to, to: index, link });
        }
    }

    /// Starts a node that is down, later.
    pub fn start_after(&mut self, index: usize, delay: Duration) {
        self.at(delay, Event::Start(index));
    }

    /// Nothing passes between the two for a while. A cut shorter than the silence a link bears only
    /// delays what is under way.
    pub fn cut(&mut self, a: usize, b: usize, time: Duration) {
        self.note(|| format!("cut n{a} n{b} {time:?}"));
        self.net.cut(a, b, self.now + time);
        if time < SILENCE {
            return;
        }
        for (at, to) in [(a, b), (b, a)] {
            if let Some(link) = self.net.link(at, to) {
                self.net.kill(link);
                let delay = self.silence();
                self.at(delay, Event::Down { at, to, link });
            }
        }
    }

    /// The node does nothing for a while; what comes meanwhile waits.
    pub fn stall(&mut self, index: usize, time: Duration) {
        self.nodes[index].stalled = self.now + time;
        self.at(time, Event::Resume(index));
    }

    /// Tells a node something now.
    pub fn input(&mut self, index: usize, input: Input) {
        let now = self.now;
        if let Input::Gone { serial } = &input {
            self.nodes[index].workers.remove(serial);
        }
        let Some(core) = self.nodes[index].core.as_mut() else { return };
        let mut out = Vec::new();
        core.handle(now, input, &mut out);
        for output in out {
            self.output(index, output);
        }
        self.check_step(index);
        self.arm(index);
    }

    /// Adds a program to a node.
    pub fn open(&mut self, index: usize) -> AppId {
        let id = AppId(u128::from(self.random.draw()) << 64 | u128::from(self.random.draw()));
        self.nodes[index].apps.insert(id, App::new(id));
        id
    }

    /// The program ends.
    pub fn close(&mut self, index: usize, app: AppId) {
        self.note(|| format!("close {app:?} on n{index}"));
        self.nodes[index].apps.remove(&app);
        self.input(index, Input::AppGone(app));
    }

    /// Who asks, for a program on a node.
    pub fn asker(&self, index: usize, app: AppId, plugin: Option<PluginRef>) -> Asker {
        let home = self.nodes[index].me.clone();
        let local_user = format!("user@{}", home.name);
        Asker { app, app_name: "app".into(), local_user, token: Vec::new(), home, plugin }
    }

    /// The program asks for slots.
    pub fn request(
        &mut self,
        index: usize,
        asker: Asker,
        sequence: u32,
        want: Want,
        at_least: u32,
    ) -> RequestId {
        let request = RequestId { app: asker.app, sequence, attempt: 0 };
        let budget = Duration::from_secs(2);
        self.input(index, Input::Request { request, want, at_least, asker, budget, wait: None });
        request
    }

    /// The program asks for `count` single slots and waits for the answer, at most three seconds.
    pub fn allocate(&mut self, index: usize, app: AppId, sequence: u32, count: u32) -> Vec<Grant> {
        let asker = self.asker(index, app, None);
        let request = self.request(index, asker, sequence, Want { count, ..want() }, 0);
        self.answer(index, request)
    }

    /// Waits for the answer to a request, at most three seconds.
    pub fn answer(&mut self, index: usize, request: RequestId) -> Vec<Grant> {
        self.run_until(Duration::from_secs(3), |world| {
            world.nodes[index].apps.get(&request.app).is_none_or(|app| app.found.contains_key(&request))
        });
        let app = self.nodes[index].apps.get(&request.app);
        app.and_then(|app| app.found.get(&request)).map(|found| found.1.clone()).unwrap_or_default()
    }

    /// The program gives leases back.
    pub fn give_back(&mut self, index: usize, app: AppId, leases: Vec<LeaseId>) {
        if let Some(app) = self.nodes[index].apps.get_mut(&app) {
            for lease in &leases {
                app.leases.remove(lease);
            }
        }
        self.input(index, Input::GiveBack { app, leases });
    }

    /// A user of the node asks every node for its row; the number of the question is returned.
    pub fn ask(&mut self, index: usize, budget: Duration) -> u64 {
        self.questions += 1;
        let number = self.questions;
        self.nodes[index].rows.insert(number, (Vec::new(), None));
        let question = Question { to: None, user: "user".into(), order: Vec::new(), topic: Topic::Nodes };
        self.input(index, Input::Ask { number, question, budget });
        number
    }

    /// Virtual time.
    pub fn now(&self) -> Tick {
        self.now
    }

    /// Messages sent between nodes so far.
    pub fn messages(&self) -> u64 {
        self.sent.values().sum()
    }

    /// A fingerprint of all that has happened.
    pub fn fingerprint(&self) -> u64 {
        self.hash
    }

    /// Lets time pass.
    pub fn run(&mut self, time: Duration) {
        self.run_until(time, |_| false);
    }

    /// Lets time pass until `done`, at most for `time`. Says whether it was done.
    pub fn run_until(&mut self, time: Duration, done: impl Fn(&World) -> bool) -> bool {
        let end = self.now + time;
        while !done(self) {
            match self.queue.first_key_value() {
                Some((&(at, _), _)) if at <= end => {
                    let Some(((at, _), event)) = self.queue.pop_first() else { break };
                    self.now = at;
                    self.happen(event);
                }
                _ => {
                    self.now = end;
                    return done(self);
                }
            }
        }
        true
    }

    /// The number of the node with this id.
    pub fn number(&self, id: NodeId) -> usize {
        self.index[&id]
    }

    /// The number of a node's parent.
    pub fn parent(&self, index: usize) -> Option<usize> {
        self.nodes[index].core.as_ref()?.parent().map(|parent| self.number(parent.id))
    }

    /// Whether a control link between the two stands.
    pub fn is_linked(&self, a: usize, b: usize) -> bool {
        self.net.stands(a, b)
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Input(index, life, input) => {
                if !self.alive(index, life) {
                    return;
                }
                if self.stalled(index) {
                    return self.nodes[index].inbox.push(Event::Input(index, life, input));
                }
                self.input(index, *input);
            }
            Event::Wake(index, life, at) => {
                if !self.alive(index, life) || self.nodes[index].woken_for != Some(at) {
                    return;
                }
                if self.stalled(index) {
                    // After a pause what arrived meanwhile comes first.
                    let delay = (self.nodes[index].stalled - self.now) + Duration::from_micros(1);
                    return self.at(delay, Event::Wake(index, life, at));
                }
                self.nodes[index].woken_for = None;
                self.input(index, Input::Time);
            }
            Event::Deliver { link, from, to, bytes } => {
                if self.net.link(to, from) != Some(link) || self.net.is_dead(link) {
                    return;
                }
                if self.stalled(to) {
                    return self.nodes[to].inbox.push(Event::Deliver { link, from, to, bytes });
                }
                self.deliver(from, to, &bytes);
            }
            Event::Resume(index) => {
                if self.nodes[index].stalled <= self.now {
                    for event in core::mem::take(&mut self.nodes[index].inbox) {
                        self.happen(event);
                    }
                }
            }
            Event::Idle { at, to, link } => {
                let needed =
                    self.nodes[at].core.as_ref().is_some_and(|core| core.needs(self.nodes[to].me.id));
                if !needed && self.net.forget(at, to, link) {
                    self.note(|| format!("idle n{at} n{to}"));
                    self.net.kill(link);
                    let delay = self.latency();
                    self.at(delay, Event::Down { at: to, to: at, link });
                    self.input(at, Input::LinkDown(self.nodes[to].me.id));
                }
            }
            Event::Connect { from, to } => self.connect(from, to),
            Event::DialFailed { from, to } => {
                self.net.dials.remove(&(from, to));
                if !self.net.stands(from, to) {
                    self.input(from, Input::DialFailed(self.nodes[to].me.id));
                }
            }
            Event::Down { at, to, link } => {
                if self.net.forget(at, to, link) {
                    self.note(|| format!("down n{at} to n{to}"));
                    self.input(at, Input::LinkDown(self.nodes[to].me.id));
                }
            }
            Event::Start(index) => {
                if self.nodes[index].core.is_none() {
                    self.note(|| format!("start n{index}"));
                    self.start(index);
                }
            }
        }
    }

    fn connect(&mut self, from: usize, to: usize) {
        self.net.dials.remove(&(from, to));
        if self.nodes[from].core.is_none() || self.net.stands(from, to) {
            return;
        }
        if self.nodes[to].core.is_none() {
            return self.input(from, Input::DialFailed(self.nodes[to].me.id));
        }
        self.note(|| format!("link n{from} n{to}"));
        self.net.connect(from, to);
        let (a, b) = (self.nodes[from].me.clone(), self.nodes[to].me.clone());
        self.input(to, Input::LinkUp(a));
        self.input(from, Input::LinkUp(b));
    }

    fn deliver(&mut self, from: usize, to: usize, bytes: &[u8]) {
        let mut decoder = Decoder::new(CONTROL_BODY_MAX);
        decoder.push(bytes);
        let id = self.nodes[from].me.id;
        let (header, body) = decoder.next_frame().expect("a sound frame").expect("a whole frame");
        let input = if TreeMessage::has_kind(header.kind.get()) {
            Input::Tree { from: id, message: TreeMessage::read(&header, body).expect("a tree message") }
        } else {
            Input::Lease { from: id, message: LeaseMessage::read(&header, body).expect("a lease message") }
        };
        self.input(to, input);
    }

    fn output(&mut self, index: usize, output: Output) {
        self.note(|| format!("n{index} {output:?}"));
        let me = self.nodes[index].me.clone();
        match output {
            Output::Send { to, message } => self.send(index, self.index[&to], &message),
            Output::Dial(node) => self.dial(index, node),
            Output::Found { request, grants, notes, .. } => self.found(index, request, grants, notes),
            Output::News { app, lease, change } => {
                let now = self.now;
                let Some(app) = self.nodes[index].apps.get_mut(&app) else {
                    panic!("n{index} has news of {lease:?} for an application that is gone");
                };
                app.news.push((now, lease, change.clone()));
                assert!(app.leases.contains_key(&lease), "news {change:?} of a lease not held: {lease:?}");
                if matches!(change, LeaseChange::Ended(_)) {
                    app.leases.remove(&lease);
                }
            }
            Output::Approved { app, plugin } => {
                if let Some(app) = self.nodes[index].apps.get_mut(&app) {
                    app.approved.push(plugin);
                }
            }
            Output::Begin(record) => {
                let before = self.nodes[index].workers.insert(record.serial, record.bundle.slots);
                assert!(before.is_none(), "n{index} began lease {} twice", record.serial);
            }
            Output::Finish { serial, .. } => {
                assert!(self.nodes[index].workers.contains_key(&serial), "n{index} ended {serial} unbegun");
                let (least, most) = self.options.worker_end;
                let delay = self.random.between(least, most);
                self.at(delay, Event::Input(index, me.incarnation, Box::new(Input::Gone { serial })));
            }
            Output::Answer { id, .. } => {
                let text = "here".into();
                let rows = vec![Row::Done { node: me.name, text }];
                self.at(
                    Duration::ZERO,
                    Event::Input(index, me.incarnation, Box::new(Input::Answered { id, rows })),
                );
            }
            Output::Rows { number, rows, more, missing } => {
                if let Some((all, end)) = self.nodes[index].rows.get_mut(&number) {
                    assert!(end.is_none(), "rows after the last");
                    all.extend(rows);
                    *end = (!more).then_some(missing);
                }
            }
            Output::Awaits { user, .. } => self.nodes[index].awaits.push(user),
            Output::JoinRefused { by, refusal } => self.nodes[index].refusals.push((by.id, refusal)),
            Output::Left => self.nodes[index].left = true,
            Output::Idle(id) => {
                let to = self.index[&id];
                if let Some(link) = self.net.link(index, to) {
                    self.at(Duration::from_millis(500), Event::Idle { at: index, to, link });
                }
            }
            Output::Joined(_) | Output::Root | Output::Full(_) => {}
        }
    }

    fn found(
        &mut self,
        index: usize,
        request: RequestId,
        grants: Vec<Grant>,
        notes: Vec<mutirao_wire::node::Note>,
    ) {
        let now = self.now;
        let Some(app) = self.nodes[index].apps.get_mut(&request.app) else {
            panic!("n{index} found something for an application that is gone");
        };
        let again = app.found.contains_key(&request);
        for grant in &grants {
            let lease = grant.lease();
            if !again {
                app.leases.insert(lease, grant.lender.clone());
                let other = self.given.insert(lease, request.app);
                assert!(other.is_none(), "{lease:?} was given twice");
            }
        }
        app.found.insert(request, (now, grants, notes));
    }

    fn send(&mut self, from: usize, to: usize, message: &NodeMessage) {
        let kind = match message {
            NodeMessage::Tree(message) => message.kind(),
            NodeMessage::Lease(message) => message.kind(),
        };
        *self.sent.entry(format!("{kind:?}")).or_default() += 1;
        let link = self.net.link(from, to).expect("a node sends over links that it has only");
        let mut bytes = Vec::new();
        message.put(&mut bytes);
        let start = self.net.is_cut(from, to, self.now).unwrap_or(self.now);
        let at = start + self.latency();
        let at = self.net.in_order(from, to, at);
        self.at(at - self.now, Event::Deliver { link, from, to, bytes });
    }

    fn dial(&mut self, from: usize, node: NodeRef) {
        let Some(&to) = self.index.get(&node.id) else { return };
        if self.net.stands(from, to) || !self.net.dials.insert((from, to)) {
            return;
        }
        if self.net.is_cut(from, to, self.now).is_some() {
            return self.at(HANDSHAKE, Event::DialFailed { from, to });
        }
        let delay = self.latency() * 3;
        self.at(delay, Event::Connect { from, to });
    }

    fn arm(&mut self, index: usize) {
        let now = self.now;
        let node = &mut self.nodes[index];
        let Some(at) = node.core.as_ref().and_then(Core::deadline) else { return };
        let at = at.max(now);
        if node.woken_for.is_none_or(|planned| planned > at) {
            node.woken_for = Some(at);
            let life = node.me.incarnation;
            self.at(at - now, Event::Wake(index, life, at));
        }
    }

    fn at(&mut self, delay: Duration, event: Event) {
        self.events += 1;
        self.queue.insert((self.now + delay, self.events), event);
    }

    fn alive(&self, index: usize, life: Incarnation) -> bool {
        self.nodes[index].core.is_some() && self.nodes[index].me.incarnation == life
    }

    /// Whether what comes for a node has to wait.
    fn stalled(&self, index: usize) -> bool {
        self.nodes[index].stalled > self.now
    }

    fn latency(&mut self) -> Duration {
        let (least, most) = self.options.latency;
        self.random.between(least, most)
    }

    fn silence(&mut self) -> Duration {
        self.random.between(SILENCE, SILENCE + Duration::from_millis(500))
    }

    fn note(&mut self, text: impl Fn() -> String) {
        let text = format!("{} {}", self.now.0, text());
        for byte in text.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if self.options.keep_trace {
            self.trace.push(text);
        }
    }

    /// Nodes that are up.
    pub fn up(&self) -> BTreeSet<usize> {
        (0..self.nodes.len()).filter(|index| self.nodes[*index].core.is_some()).collect()
    }
}

/// One single slot, as near as there is one.
pub fn want() -> Want {
    Want::default()
}

/// A plugin without needs, told apart by a number.
pub fn plugin(number: u8) -> PluginRef {
    PluginRef {
        id: PluginId([number; 32]),
        name: format!("plugin{number}"),
        bytes: 1000,
        arch: mutirao_wire::node::Arch::X86_64,
        libc: None,
    }
}
