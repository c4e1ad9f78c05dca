//! Nodes, time, and what goes wrong.

use super::launcher::{Launcher, Lease};
use super::ledger::{Account, Ledger};
use super::lender::{Lent, Script, Worker};
use super::net::{Kept, Next, Way};
use super::pipes::{Conn, Data, End as PipeEnd, EndId};
use crate::random::Random;
use core::time::Duration;
use mutirao_group::master::End;
use mutirao_group::{Restart, Strategy};
use mutirao_tree::pipe::{Input, Pipes};
use mutirao_wire::node::NodeRef;
use mutirao_wire::pipe::{JoinPipe, PipeOrder, PipePlace};
use mutirao_wire::{AppId, Handle, Incarnation, NodeId, Tick};
use std::collections::{BTreeMap, BTreeSet};

/// The launcher's node.
pub(super) const HOME: usize = 0;
/// The launcher.
pub(super) const APP: AppId = AppId(7);
/// By how much longer a home waits than a lender.
const MARGIN: Duration = Duration::from_secs(3);
/// By when all must be over, once nothing goes wrong any more and the group was told to end.
const OVER_BY: Duration = Duration::from_secs(120);
/// What one run may take, events.
const EVENTS_MAX: u64 = 2_000_000;

/// What happens in one run; follows from the seed.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// Nodes, the launcher's included.
    pub nodes: usize,
    /// Slots of each.
    pub slots: usize,
    /// Processes.
    pub size: u32,
    /// What follows when one fails.
    pub restart: Restart,
    /// Pieces that each process writes, and reads, in a life.
    pub pieces: u32,
    /// See `pieces`.
    pub inputs: u32,
    /// The longest pause between two pieces.
    pub pause: Duration,
    /// Lives that do not end well, per cent.
    pub failures: usize,
    /// Faults, and the longest pause between two.
    pub faults: usize,
    /// See `faults`.
    pub faults_pause: Duration,
    /// How long a message takes.
    pub latency: (Duration, Duration),
    /// Bytes under way in a pipe.
    pub window_bytes: usize,
    /// After so long a silence a lender ends its leases.
    pub lapse: Duration,
}

impl Plan {
    /// The plan that follows from a seed.
    pub fn new(seed: u64) -> Plan {
        let mut random = Random::new(seed.wrapping_mul(37));
        let (us, ms) = (Duration::from_micros, Duration::from_millis);
        let mut any = |of: &[u64]| of[random.below(of.len())];
        let strategy =
            [Strategy::None, Strategy::OneForOne, Strategy::OneForAll][any(&[0, 1, 1, 2, 2]) as usize];
        let most = any(&[0, 1, 3, 20]) as u32;
        let nodes = any(&[1, 2, 3, 4, 6]) as usize;
        let slots = any(&[2, 3, 5]) as usize;
        Plan {
            seed,
            nodes,
            slots,
            size: any(&[1, 2, 3, 5, 8, 12]).min((nodes * slots) as u64) as u32,
            restart: Restart { strategy, most, within_s: any(&[2, 60]) as u32 },
            pieces: any(&[0, 1, 10, 40]) as u32,
            inputs: any(&[0, 0, 5, 20]) as u32,
            pause: ms(any(&[0, 50, 500])),
            failures: any(&[0, 5, 30]) as usize,
            faults: any(&[0, 3, 10, 25]) as usize,
            faults_pause: ms(any(&[50, 500, 3000])),
            latency: (us(30), us(any(&[60, 2000, 30_000]))),
            window_bytes: any(&[1000, 10_000, 512 * 1024]) as usize,
            lapse: ms(any(&[10_000, 2000])),
        }
    }

    /// The one command that runs this plan again.
    pub fn replay(&self) -> String {
        format!("MUTIRAO_SEED={} cargo test -p mutirao-sim --test groups", self.seed)
    }
}

/// A node.
pub(super) struct Node {
    pub(super) me: NodeRef,
    pub(super) alive: bool,
    /// How often it has begun.
    pub(super) life: u64,
    pub(super) pipes: Pipes<Conn>,
    pub(super) slots: usize,
    pub(super) lent: BTreeMap<u64, Lent>,
    pub(super) serial: u64,
}

/// How two nodes are joined.
#[derive(Debug, Default, Clone, Copy)]
struct Link {
    is_up: bool,
    cuts: u64,
}

/// A group, and what it runs on.
pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) random: Random,
    pub(super) now: Tick,
    queue: BTreeMap<(Tick, u64), Next>,
    queued: u64,
    pub(super) spoken: BTreeMap<Way, Tick>,
    pub(super) nodes: Vec<Node>,
    links: BTreeMap<(usize, usize), Link>,
    pub(super) kept: BTreeMap<(usize, usize), Kept>,
    pub(super) data: BTreeMap<Conn, Data>,
    pub(super) last_conn: u64,
    pub(super) ends: BTreeMap<EndId, PipeEnd>,
    pub(super) last_end: EndId,
    pub(super) given: BTreeMap<(usize, u64, PipePlace), EndId>,
    pub(super) wires: BTreeMap<(Conn, Handle, usize), EndId>,
    pub(super) workers: BTreeMap<u64, Worker>,
    pub(super) last_worker: u64,
    /// Leases of the launcher, as its node knows them.
    pub(super) held: BTreeSet<Lease>,
    pub(super) launcher: Option<Launcher>,
    pub(super) ledger: Ledger,
    faults: usize,
    is_calm: bool,
}

/// Runs a plan to its end; `Err` says what does not hold.
pub fn run(plan: &Plan) -> Result<Account, String> {
    let mut world = World::new(plan.clone());
    let leases = (0..plan.size).map(|rank| {
        let at = rank as usize % plan.nodes;
        (at, world.lend(at).expect("there are slots for all"))
    });
    let leases: Vec<Lease> = leases.collect();
    world.held = leases.iter().copied().collect();
    world.launch(leases);
    let first = world.random.between(Duration::ZERO, plan.faults_pause);
    world.at(world.now + first, if plan.faults > 0 { Next::Fault } else { Next::Calm });
    world.run_until(|world| world.is_calm)?;
    // Long enough for most to come to their own end.
    let until = world.now + Duration::from_secs(40);
    world.run_until(|world| world.launcher.is_none() || world.now >= until)?;
    world.stop();
    let until = world.now + OVER_BY;
    world.run_until(|world| world.now >= until)?;
    world.check()?;
    Ok(world.ledger.account())
}

impl World {
    fn new(plan: Plan) -> World {
        let node = |at: usize| {
            let id = NodeId([at as u8 + 1; 32]);
            let me =
                NodeRef { id, incarnation: Incarnation(1), name: format!("n{at}"), addresses: Vec::new() };
            let (lent, slots) = (BTreeMap::new(), plan.slots);
            Node { me, alive: true, life: 1, pipes: Pipes::new(id), slots, lent, serial: 0 }
        };
        let mut world = World {
            random: Random::new(plan.seed),
            now: Tick(1_000_000),
            queue: BTreeMap::new(),
            queued: 0,
            spoken: BTreeMap::new(),
            nodes: (0..plan.nodes).map(node).collect(),
            links: BTreeMap::new(),
            kept: BTreeMap::new(),
            data: BTreeMap::new(),
            last_conn: 0,
            ends: BTreeMap::new(),
            last_end: 0,
            given: BTreeMap::new(),
            wires: BTreeMap::new(),
            workers: BTreeMap::new(),
            last_worker: 0,
            held: BTreeSet::new(),
            launcher: None,
            ledger: Ledger::default(),
            faults: plan.faults,
            is_calm: false,
            plan,
        };
        // Which of two nodes binds depends on their ids: the home is any of them.
        let home = world.random.below(world.nodes.len());
        let (a, b) = (world.nodes[HOME].me.id, world.nodes[home].me.id);
        (world.nodes[HOME].me.id, world.nodes[home].me.id) = (b, a);
        for node in [HOME, home] {
            world.nodes[node].pipes = Pipes::new(world.nodes[node].me.id);
        }
        for b in 1..world.nodes.len() {
            world.link(HOME, b);
        }
        world
    }

    pub(super) fn at(&mut self, at: Tick, next: Next) {
        self.queued += 1;
        self.queue.insert((at, self.queued), next);
    }

    pub(super) fn index(&self, id: NodeId) -> usize {
        self.nodes.iter().position(|node| node.me.id == id).expect("it is one of the nodes")
    }

    fn run_until(&mut self, done: impl Fn(&World) -> bool) -> Result<(), String> {
        while !done(self) {
            // All that lives may wait for an order.
            let Some(((at, _), next)) = self.queue.pop_first() else { return Ok(()) };
            if self.queued > EVENTS_MAX {
                return Err("it never comes to rest".into());
            }
            self.now = at;
            self.happens(next).map_err(|why| format!("at {:.6} s: {why}", at.0 as f64 / 1e6))?;
        }
        Ok(())
    }

    fn happens(&mut self, next: Next) -> Result<(), String> {
        match next {
            Next::Order { from, to, cut, order } => {
                if self.reaches(from, to, cut) {
                    self.order(from, to, order);
                }
            }
            Next::Word { from, to, cut, number, word } => {
                if self.reaches(from, to, cut) && self.is_new(from, to, number) {
                    return match word.is_of_home() {
                        true => self.lender_hears(to, word),
                        false => self.home_hears(from, word),
                    };
                }
            }
            Next::Dialled { from, to, cut } => self.dialled(from, to, cut),
            Next::Frame { conn, to, frame } => self.frame(conn, to, frame),
            Next::DataDown { conn, at } => self.data_down(conn, at),
            Next::RingBytes { end, bytes } => self.bytes_come(end, bytes),
            Next::RingRoom { end, bytes } => self.room_comes(end, bytes),
            Next::ToLauncher(told) => self.launcher_hears(told),
            Next::ToHome(said) => return self.home_obeys(said),
            Next::ToWorker { worker, told } => return self.worker_hears(worker, told),
            Next::Launcher => return self.launcher_turn(),
            Next::Worker(worker) => return self.worker_turn(worker),
            Next::PipesTime { at, life } => {
                let node = &self.nodes[at];
                if node.life == life && node.pipes.deadline().is_some_and(|due| due <= self.now) {
                    self.tell_pipes(at, Input::Time);
                }
            }
            Next::Ready { at, life, serial } => {
                if self.nodes[at].alive && self.nodes[at].life == life {
                    self.worker_ready(at, serial);
                }
            }
            Next::LenderLapse { at, cut } => {
                if !self.linked(HOME, at) && self.cuts_of(HOME, at) == cut && self.nodes[at].alive {
                    self.lender_lapses(at);
                }
            }
            Next::HomeLapse { at, cut } => {
                if !self.linked(HOME, at) && self.cuts_of(HOME, at) == cut {
                    self.home_gives_up(at);
                }
            }
            Next::Heal { at, other } => self.link(at, other),
            Next::Returns(at) => self.returns(at),
            Next::Fault => self.fault(),
            Next::Calm => self.calm(),
        }
        Ok(())
    }

    // ---- links ----

    pub(super) fn linked(&self, a: usize, b: usize) -> bool {
        let alive = self.nodes[a].alive && self.nodes[b].alive;
        alive && (a == b || self.links.get(&(a.min(b), a.max(b))).is_some_and(|link| link.is_up))
    }

    pub(super) fn cuts_of(&self, a: usize, b: usize) -> u64 {
        self.links.get(&(a.min(b), a.max(b))).map_or(0, |link| link.cuts)
    }

    fn reaches(&self, from: usize, to: usize, cut: u64) -> bool {
        self.linked(from, to) && self.cuts_of(from, to) == cut
    }

    fn link(&mut self, a: usize, b: usize) {
        let link = self.links.entry((a.min(b), a.max(b))).or_default();
        if link.is_up || !(self.nodes[a].alive && self.nodes[b].alive) {
            return;
        }
        link.is_up = true;
        for (at, other) in [(a, b), (b, a)] {
            let peer = self.nodes[other].me.id;
            self.tell_pipes(at, Input::LinkUp(peer));
            self.say_again(at, other);
        }
    }

    /// What is under way between two nodes is lost.
    fn cut(&mut self, a: usize, b: usize) {
        let link = self.links.entry((a.min(b), a.max(b))).or_default();
        if !link.is_up {
            return;
        }
        (link.is_up, link.cuts) = (false, link.cuts + 1);
        let cut = link.cuts;
        self.cut_data(a, b);
        let at = a.max(b);
        let lapse = self.now + self.plan.lapse;
        self.at(lapse, Next::LenderLapse { at, cut });
        self.at(lapse + MARGIN, Next::HomeLapse { at, cut });
    }

    fn home_gives_up(&mut self, lender: usize) {
        let lost: Vec<u64> =
            self.held.iter().filter(|(at, _)| *at == lender).map(|(_, serial)| *serial).collect();
        lost.into_iter().for_each(|serial| self.home_loses(lender, serial));
        self.kept.remove(&(HOME, lender));
        self.kept.remove(&(lender, HOME));
    }

    fn order(&mut self, from: usize, to: usize, order: PipeOrder) {
        let peer = self.nodes[from].me.id;
        let input = match order {
            PipeOrder::JoinPipe(join) => {
                let is_its = from == HOME && self.may_join(to, &join);
                Input::Join { from: peer, join, is_its }
            }
            PipeOrder::LeavePipe(leave) => Input::Leave { from: peer, leave },
            PipeOrder::PipeNews(news) => Input::News { from: peer, news },
        };
        self.tell_pipes(to, input);
    }

    fn may_join(&self, at: usize, join: &JoinPipe) -> bool {
        matches!(join.mine, PipePlace::Lease(serial) if self.nodes[at].lent.contains_key(&serial))
    }

    // ---- what goes wrong ----

    /// What a process does in the life that begins.
    pub(super) fn script(&mut self) -> Script {
        let Plan { pieces, inputs, pause, failures, .. } = self.plan;
        let pieces = self.random.below(pieces as usize + 1) as u32;
        let inputs = self.random.below(inputs as usize + 1) as u32;
        let fails = !self.is_calm && self.random.chance(failures);
        let end = match (fails, self.random.below(4)) {
            (false, _) => Some(End::Code(0)),
            (true, 0) => None,
            (true, 1) => Some(End::Signal(11)),
            (true, 2) => Some(End::OutOfMemory),
            (true, _) => Some(End::Code(3)),
        };
        Script { pieces, pause, inputs, end }
    }

    fn fault(&mut self) {
        self.faults -= 1;
        let pause = self.random.between(Duration::ZERO, self.plan.faults_pause);
        self.at(self.now + pause, if self.faults > 0 { Next::Fault } else { Next::Calm });
        let other = 1 + self.random.below(self.nodes.len().max(2) - 1);
        let is_there = other < self.nodes.len();
        let (short, long) = (Duration::from_millis(800), self.plan.lapse + MARGIN * 2);
        let most = if self.random.chance(70) { short } else { long };
        let pause = self.random.between(Duration::ZERO, most);
        match self.random.below(40) {
            0 => self.launcher_gone(),
            1 => self.die(HOME),
            2 => self.stop(),
            3..=6 if is_there => {
                self.die(other);
                self.at(self.now + pause, Next::Returns(other));
            }
            7..=10 => self.crash_a_worker(),
            11..=20 if is_there => self.cut_data(HOME, other),
            _ if is_there => {
                self.cut(HOME, other);
                self.at(self.now + pause, Next::Heal { at: HOME, other });
            }
            _ => self.crash_a_worker(),
        }
    }

    fn crash_a_worker(&mut self) {
        let at = self.random.below(self.nodes.len());
        let serials: Vec<u64> = self.nodes[at].lent.keys().copied().collect();
        if let Some(serial) = serials.get(self.random.below(serials.len())) {
            self.end_call(at, *serial, None, End::Lost("its worker crashed".into()));
        }
    }

    fn die(&mut self, at: usize) {
        if !self.nodes[at].alive {
            return;
        }
        for other in 0..self.nodes.len() {
            self.cut(at, other);
        }
        let node = &mut self.nodes[at];
        node.alive = false;
        node.life += 1;
        node.pipes = Pipes::new(node.me.id);
        let workers: Vec<u64> = node.lent.values().filter_map(|lent| lent.worker).collect();
        node.lent.clear();
        workers.into_iter().for_each(|worker| self.kill(worker));
        self.kept.retain(|(from, to), _| *from != at && *to != at);
        if at == HOME {
            self.launcher = None;
            self.held.clear();
        }
    }

    fn returns(&mut self, at: usize) {
        if self.nodes[at].alive || !self.nodes[HOME].alive {
            return;
        }
        self.nodes[at].alive = true;
        // It is not the one that granted those leases.
        self.home_gives_up(at);
        self.link(HOME, at);
    }

    /// Nothing goes wrong any more, but what has.
    fn calm(&mut self) {
        self.is_calm = true;
        for other in 1..self.nodes.len() {
            self.returns(other);
            self.link(HOME, other);
        }
    }

    /// What must hold in the end.
    fn check(&self) -> Result<(), String> {
        if self.launcher.is_some() {
            return Err(format!("the group is not over: {:?}", self.launcher));
        }
        if let Some((rank, life)) = self.ledger.alive().first() {
            return Err(format!("{rank} is left behind in life {life}"));
        }
        for node in self.nodes.iter().filter(|node| node.alive) {
            if !node.lent.is_empty() || node.pipes.count() > 0 {
                let (leases, pipes) = (node.lent.len(), node.pipes.count());
                return Err(format!("{leases} leases and {pipes} pipes are left on {}", node.me.name));
            }
        }
        if !self.held.is_empty() {
            return Err(format!("{:?} are still held", self.held));
        }
        Ok(())
    }
}
