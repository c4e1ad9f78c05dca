//! A few nodes, what is under way between them, and what can happen next.

use crate::core::Core;
use crate::io::{Capacity, Input, NodeMessage, Output};
use crate::policy::{Policy, Verified};
use crate::settings::Settings;
use core::hash::{Hash, Hasher};
use core::time::Duration;
use mutirao_wire::node::Arch;
use mutirao_wire::tree::{Detach, Summary, TreeMessage, Verdict};
use mutirao_wire::{Incarnation, NodeId, NodeRef, Tick};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::DefaultHasher;
use std::rc::Rc;

/// An owner's word to a node: whom to join, and whether exactly them.
#[derive(Debug, Clone, Hash)]
pub(super) struct Order {
    pub(super) node: usize,
    pub(super) to: Vec<usize>,
    pub(super) here: bool,
}

/// What a stranger has no business to say.
#[derive(Debug, Clone, Copy)]
pub(super) enum Stray {
    Summary,
    Detach,
    /// The verdict that is waited for.
    Verdict,
}

/// What is explored.
#[derive(Debug, Clone, Default)]
pub(super) struct Scenario {
    pub(super) nodes: usize,
    /// What each node is told when it starts.
    pub(super) joins: Vec<Order>,
    /// Whether these joins have been carried out before anything else happens.
    pub(super) formed: bool,
    /// What owners say later, each at any time.
    pub(super) orders: Vec<Order>,
    /// Who says what to whom, at any time when the two are linked and neither is the other's parent.
    pub(super) strays: Vec<(usize, usize, Stray)>,
    /// One of these dies once, at any time. More deaths could leave nodes that have never heard of each other.
    pub(super) crashes: Vec<usize>,
    /// How often at most a timer runs out, a link breaks.
    pub(super) timers: u8,
    pub(super) breaks: u8,
    /// Whether nodes balance their subtrees.
    pub(super) rebalance: bool,
}

/// One thing that can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Deliver {
        from: usize,
        to: usize,
    },
    Connect {
        from: usize,
        to: usize,
    },
    Timer(usize),
    /// The link is no more. What is under way on it still arrives (`keep`), or does not.
    Break {
        a: usize,
        b: usize,
        keep: bool,
    },
    Crash(usize),
    Start(usize),
    Order(usize),
    Stray(usize),
}

#[derive(Clone)]
enum Item {
    Up(NodeRef),
    Down,
    Message(Rc<TreeMessage>),
}

/// One node. The machine under test is shared between worlds until it takes a step.
#[derive(Clone)]
struct Machine {
    core: Option<Rc<Core>>,
    me: NodeRef,
    /// Each node has a clock of its own: any timer may run out before any other.
    now: Tick,
    wish: Option<Order>,
    /// Refusals its owner was told since the last wish.
    told: u8,
    /// Climbs it passed to the parent it has now.
    climbed: BTreeSet<(NodeId, u64)>,
    digest: u64,
}

#[derive(Clone)]
pub(super) struct World {
    machines: Vec<Machine>,
    lines: BTreeMap<(usize, usize), VecDeque<Item>>,
    open: BTreeSet<(usize, usize)>,
    dials: BTreeSet<(usize, usize)>,
    given: u32,
    strayed: u32,
    crashed: bool,
    timers: u8,
    breaks: u8,
    rebalance: bool,
}

fn id_of(node: usize) -> NodeId {
    NodeId([node as u8 + 1; 32])
}

fn number_of(id: NodeId) -> usize {
    usize::from(id.0[0]) - 1
}

fn pair(a: usize, b: usize) -> (usize, usize) {
    (a.min(b), a.max(b))
}

fn born(me: &NodeRef, rebalance: bool) -> Core {
    let rebalance = rebalance.then_some(Settings::REBALANCE);
    let settings = Settings { coalesce: Duration::ZERO, rebalance, ..Settings::default() };
    let capacity = Capacity {
        slots: 1,
        memory_mib: 0,
        resources: Vec::new(),
        arch: Arch::Other,
        libc: None,
        labels: Vec::new(),
    };
    Core::new(me.clone(), settings, capacity, Policy::default(), Box::new(|_| Verified::Local))
}

/// A copy of a node that takes no part in any search, question or lease.
fn twin(core: &Core) -> Core {
    let mut twin = born(&core.me, core.settings.rebalance.is_some());
    twin.now = core.now;
    twin.links = core.links.clone();
    twin.timers = core.timers.clone();
    twin.place = core.place.clone();
    twin.upward = core.upward.clone();
    twin.balance = core.balance.clone();
    twin.leaving = core.leaving;
    twin
}

impl Machine {
    fn summarise(&mut self) {
        let mut hasher = DefaultHasher::new();
        (self.now, self.me.incarnation, self.told, &self.climbed).hash(&mut hasher);
        if let Some(core) = &self.core {
            (core.now, &core.links, &core.timers, &core.place, &core.upward, &core.balance).hash(&mut hasher);
        }
        self.digest = hasher.finish();
    }
}

impl World {
    pub(super) fn new(scenario: &Scenario) -> Result<World, String> {
        let machine = |node| {
            let me = NodeRef {
                id: id_of(node),
                incarnation: Incarnation(1),
                name: format!("n{node}"),
                addresses: Vec::new(),
            };
            Machine {
                core: None,
                me,
                now: Tick(1_000_000),
                wish: scenario.joins.iter().find(|join| join.node == node).cloned(),
                told: 0,
                climbed: BTreeSet::new(),
                digest: 0,
            }
        };
        let mut world = World {
            machines: (0..scenario.nodes).map(machine).collect(),
            lines: BTreeMap::new(),
            open: BTreeSet::new(),
            dials: BTreeSet::new(),
            given: 0,
            strayed: 0,
            crashed: false,
            timers: scenario.timers,
            breaks: scenario.breaks,
            rebalance: scenario.rebalance,
        };
        for node in 0..scenario.nodes {
            world.start(node)?;
        }
        if scenario.formed {
            // Those that no order is to join remain apart.
            let given = world.given;
            world.given = u32::MAX;
            let _ = world.settle(scenario);
            world.given = given;
        }
        Ok(world)
    }

    pub(super) fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for machine in &self.machines {
            machine.digest.hash(&mut hasher);
        }
        let mut bytes = Vec::new();
        for (line, items) in &self.lines {
            line.hash(&mut hasher);
            for item in items {
                match item {
                    Item::Up(node) => node.incarnation.hash(&mut hasher),
                    Item::Down => 0.hash(&mut hasher),
                    Item::Message(message) => {
                        bytes.clear();
                        message.put(&mut bytes);
                        bytes.hash(&mut hasher);
                    }
                }
            }
        }
        (&self.open, &self.dials, self.given, self.strayed, self.crashed, self.timers, self.breaks)
            .hash(&mut hasher);
        hasher.finish()
    }

    /// Nothing is under way.
    pub(super) fn is_quiet(&self) -> bool {
        self.lines.is_empty() && self.dials.is_empty()
    }

    /// All that can happen next.
    pub(super) fn actions(&self, scenario: &Scenario) -> Vec<Action> {
        let mut actions: Vec<Action> =
            self.lines.keys().map(|&(from, to)| Action::Deliver { from, to }).collect();
        actions.extend(self.connectable().map(|(from, to)| Action::Connect { from, to }));
        for (k, _) in scenario.orders.iter().enumerate() {
            if self.given & (1 << k) == 0 {
                actions.push(Action::Order(k));
            }
        }
        for (k, (from, to, _)) in scenario.strays.iter().enumerate() {
            let strangers = self.parent(*from) != Some(*to) && self.parent(*to) != Some(*from);
            if self.strayed & (1 << k) == 0 && strangers && self.hears(*to, *from) {
                actions.push(Action::Stray(k));
            }
        }
        for (node, machine) in self.machines.iter().enumerate() {
            match &machine.core {
                None => actions.push(Action::Start(node)),
                Some(core) => {
                    if self.timers > 0 && core.deadline().is_some() {
                        actions.push(Action::Timer(node));
                    }
                    if !self.crashed && scenario.crashes.contains(&node) {
                        actions.push(Action::Crash(node));
                    }
                }
            }
        }
        if self.breaks > 0 {
            for &(a, b) in &self.open {
                actions.push(Action::Break { a, b, keep: true });
                let busy = self.lines.contains_key(&(a, b)) || self.lines.contains_key(&(b, a));
                if busy {
                    actions.push(Action::Break { a, b, keep: false });
                }
            }
        }
        actions
    }

    /// Whether `node` believes in a link to `other`.
    fn hears(&self, node: usize, other: usize) -> bool {
        self.machines[node].core.as_ref().is_some_and(|core| core.links.contains(id_of(other)))
    }

    /// Dials that can be answered: both ends know what became of an earlier link.
    fn connectable(&self) -> impl Iterator<Item = (usize, usize)> {
        let knows = |from, to| {
            let items = self.lines.get(&(from, to)).into_iter().flatten();
            !items.into_iter().any(|item| matches!(item, Item::Down))
        };
        self.dials.iter().copied().filter(move |&(from, to)| knows(from, to) && knows(to, from))
    }

    pub(super) fn act(&mut self, scenario: &Scenario, action: Action) -> Result<(), String> {
        match action {
            Action::Deliver { from, to } => self.deliver(from, to),
            Action::Connect { from, to } => self.connect(from, to),
            Action::Timer(node) => {
                self.timers -= 1;
                let deadline = self.machines[node].core.as_ref().and_then(|core| core.deadline());
                let machine = &mut self.machines[node];
                machine.now = machine.now.max(deadline.unwrap_or_default());
                self.step(node, Input::Time)
            }
            Action::Break { a, b, keep } => {
                self.breaks -= 1;
                self.cut(a, b, keep);
                Ok(())
            }
            Action::Crash(node) => {
                self.crashed = true;
                self.crash(node);
                Ok(())
            }
            Action::Start(node) => self.start(node),
            Action::Order(k) => {
                self.given |= 1 << k;
                let order = scenario.orders[k].clone();
                self.machines[order.node].wish = Some(order.clone());
                self.wish(order.node)
            }
            Action::Stray(k) => {
                self.strayed |= 1 << k;
                let (from, to, stray) = scenario.strays[k];
                let message = match stray {
                    Stray::Summary => Summary { nodes: 9, ..Summary::default() }.into(),
                    Stray::Detach => Detach {}.into(),
                    Stray::Verdict => {
                        let waiting =
                            self.machines[to].core.as_ref().and_then(|core| core.joins_that_wait().next());
                        let Some((joiner, nonce)) = waiting else { return Ok(()) };
                        Verdict { joiner, nonce, acceptor: id_of(to), refusal: None }.into()
                    }
                };
                self.step(to, Input::Tree { from: id_of(from), message })
            }
        }
    }

    fn start(&mut self, node: usize) -> Result<(), String> {
        let machine = &mut self.machines[node];
        machine.core = Some(Rc::new(born(&machine.me, self.rebalance)));
        machine.summarise();
        self.wish(node)
    }

    fn wish(&mut self, node: usize) -> Result<(), String> {
        let Some(wish) = self.machines[node].wish.clone() else { return Ok(()) };
        self.machines[node].told = 0;
        let to = wish.to.iter().map(|to| self.machines[*to].me.clone()).collect();
        self.step(node, Input::Join { to, here: wish.here })
    }

    fn crash(&mut self, node: usize) {
        let others: Vec<usize> = (0..self.machines.len()).filter(|other| *other != node).collect();
        for other in others {
            self.cut(node, other, true);
            self.lines.remove(&(other, node));
            self.dials.remove(&(node, other));
        }
        let machine = &mut self.machines[node];
        machine.core = None;
        machine.climbed.clear();
        machine.me.incarnation.0 += 1;
        machine.summarise();
    }

    fn cut(&mut self, a: usize, b: usize, keep: bool) {
        if !self.open.remove(&pair(a, b)) {
            return;
        }
        for ends in [(a, b), (b, a)] {
            let line = self.lines.entry(ends).or_default();
            if !keep {
                line.clear();
            }
            line.push_back(Item::Down);
        }
    }

    fn connect(&mut self, from: usize, to: usize) -> Result<(), String> {
        self.dials.remove(&(from, to));
        if self.open.contains(&pair(from, to)) {
            return Ok(());
        }
        if self.machines[to].core.is_none() {
            return self.step(from, Input::DialFailed(id_of(to)));
        }
        self.open.insert(pair(from, to));
        let (there, here) = (self.machines[to].me.clone(), self.machines[from].me.clone());
        self.lines.entry((to, from)).or_default().push_back(Item::Up(there));
        self.step(to, Input::LinkUp(here))
    }

    fn deliver(&mut self, from: usize, to: usize) -> Result<(), String> {
        let Some(line) = self.lines.get_mut(&(from, to)) else { return Ok(()) };
        let item = line.pop_front();
        if line.is_empty() {
            self.lines.remove(&(from, to));
        }
        let from = id_of(from);
        self.step(
            to,
            match item {
                None => return Ok(()),
                Some(Item::Up(node)) => Input::LinkUp(node),
                Some(Item::Down) => Input::LinkDown(from),
                Some(Item::Message(message)) => Input::Tree { from, message: (*message).clone() },
            },
        )
    }

    /// One node takes one input; what must always hold is checked.
    fn step(&mut self, node: usize, input: Input) -> Result<(), String> {
        let machine = &mut self.machines[node];
        let Some(core) = &machine.core else { return Ok(()) };
        let mut core = twin(core);
        let before = core.parent().map(|parent| parent.id);
        let may_lose = match &input {
            Input::LinkDown(id) => before == Some(*id),
            Input::LinkUp(node) => before == Some(node.id),
            Input::Tree { from, message: TreeMessage::Detach(_) } => before == Some(*from),
            _ => false,
        };
        let children: BTreeSet<NodeId> = core.children().map(|child| child.id).collect();
        let mut out = Vec::new();
        core.handle(machine.now, input.clone(), &mut out);
        let from_parent =
            matches!(&input, Input::Tree { from, message: TreeMessage::Verdict(_) } if before == Some(*from));
        let grown = core.children().any(|child| !children.contains(&child.id));
        if grown && core.parent().is_some() && !from_parent {
            return Err(format!("n{node} took a child that the root was not asked for, on {input:?}"));
        }
        if before.is_some() && core.parent().is_none() && !may_lose {
            return Err(format!("n{node} gave up its parent on {input:?}"));
        }
        for output in out {
            match output {
                Output::Joined(_) | Output::Root => machine.climbed.clear(),
                Output::Send { to, message: NodeMessage::Tree(message) } => {
                    if let TreeMessage::Climb(climb) = &message {
                        machine.climbed.insert((climb.joiner, climb.nonce));
                    }
                    let to = number_of(to);
                    if self.open.contains(&pair(node, to)) {
                        self.lines.entry((node, to)).or_default().push_back(Item::Message(message.into()));
                    }
                }
                Output::Dial(to) => {
                    let to = number_of(to.id);
                    if !self.open.contains(&pair(node, to)) {
                        self.dials.insert((node, to));
                    }
                }
                Output::JoinRefused { .. } => machine.told = machine.told.saturating_add(1),
                _ => {}
            }
        }
        let waiting: Vec<_> = core.joins_that_wait().collect();
        if let Some(stale) = waiting.iter().find(|climb| !machine.climbed.contains(climb)) {
            return Err(format!(
                "n{node} waits for a verdict on {stale:?} that its parent was not asked for"
            ));
        }
        machine.climbed.retain(|climb| waiting.contains(climb));
        if core.is_asking() && !waiting.is_empty() {
            return Err(format!("n{node} lets others pass while it is asking itself"));
        }
        machine.core = Some(Rc::new(core));
        machine.summarise();
        self.check_no_cycle(node)
    }

    fn parent(&self, node: usize) -> Option<usize> {
        self.machines[node].core.as_ref()?.parent().map(|parent| number_of(parent.id))
    }

    /// Whether the way up from any node ends, also over links that are lost and not yet missed.
    fn check_no_cycle(&self, start: usize) -> Result<(), String> {
        let mut at = start;
        for _ in 0..self.machines.len() {
            match self.parent(at) {
                Some(parent) => at = parent,
                None => return Ok(()),
            }
        }
        Err(format!("n{start} is in or below a cycle"))
    }

    /// Lets everything happen in turn, without further faults, until there is one tree: what is under
    /// way arrives, the nodes that are down start, all orders are given, time passes alike for all. Says
    /// what does not come to hold within two minutes.
    pub(super) fn settle(&mut self, scenario: &Scenario) -> Result<(), String> {
        for node in 0..self.machines.len() {
            if self.machines[node].core.is_none() {
                self.start(node)?;
            }
        }
        for order in 0..scenario.orders.len() {
            if self.given & (1 << order) == 0 {
                self.act(scenario, Action::Order(order))?;
            }
        }
        let mut spent = Duration::ZERO;
        let mut why = String::new();
        while spent < Duration::from_secs(120) {
            while !self.is_quiet() {
                for (from, to) in self.lines.keys().copied().collect::<Vec<_>>() {
                    self.deliver(from, to)?;
                }
                for (from, to) in self.connectable().collect::<Vec<_>>() {
                    self.connect(from, to)?;
                }
            }
            match self.check_whole() {
                Ok(()) => return Ok(()),
                Err(what) => why = what,
            }
            let wait = self.machines.iter().filter_map(|m| Some(m.core.as_ref()?.deadline()? - m.now)).min();
            let Some(wait) = wait else { break };
            spent += wait;
            for node in 0..self.machines.len() {
                let machine = &mut self.machines[node];
                machine.now = machine.now + wait;
                let due = machine.core.as_ref().and_then(|core| core.deadline());
                if due.is_some_and(|due| due <= self.machines[node].now) {
                    self.step(node, Input::Time)?;
                }
            }
        }
        Err(why)
    }

    /// One tree, whose edges both ends agree on, whose root counts everybody; who wished for one place
    /// only is there or knows why not.
    fn check_whole(&self) -> Result<(), String> {
        let roots: Vec<usize> =
            (0..self.machines.len()).filter(|node| self.parent(*node).is_none()).collect();
        let [root] = roots[..] else { return Err(format!("the roots are {roots:?}")) };
        for (node, machine) in self.machines.iter().enumerate() {
            let Some(core) = &machine.core else { continue };
            let listed: Vec<usize> = core.children().map(|child| number_of(child.id)).collect();
            let real: Vec<usize> =
                (0..self.machines.len()).filter(|child| self.parent(*child) == Some(node)).collect();
            if listed != real {
                return Err(format!("n{node} lists the children {listed:?}, but they are {real:?}"));
            }
            let Some(wish) = machine.wish.as_ref().filter(|wish| wish.here) else { continue };
            let there = self.parent(node).is_some_and(|parent| wish.to.contains(&parent));
            if !there && machine.told == 0 {
                return Err(format!("n{node} is not where it was told to be, and does not know why"));
            }
        }
        let counted = self.machines[root].core.as_ref().map_or(0, |core| core.summary().nodes);
        if counted as usize != self.machines.len() {
            return Err(format!("the root counts {counted} nodes"));
        }
        Ok(())
    }

    pub(super) fn describe(&self) -> String {
        let parents: Vec<_> = (0..self.machines.len()).map(|node| self.parent(node)).collect();
        format!("parents {parents:?}, {} lines, dials {:?}", self.lines.len(), self.dials)
    }
}
