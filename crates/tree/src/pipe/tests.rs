//! Pipes in every order of what may come, with what carries them pretended.

use super::{Input, Output, Pipes, Spot};
use core::time::Duration;
use mutirao_wire::node::NodeRef;
use mutirao_wire::pipe::{
    GUEST_PIPES, PipeBinding, PipeBound, PipeOrder, PipePlace, PipeState, PlainSocket, TOKEN_BYTES,
};
use mutirao_wire::{AppId, Epoch, Incarnation, NodeId, Tick};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

const APP: AppId = AppId(7);

fn node(number: u8) -> NodeRef {
    let id = NodeId([number; 32]);
    NodeRef { id, incarnation: Incarnation(1), name: format!("n{number}"), addresses: Vec::new() }
}

fn worker(at: u8, serial: u64) -> Spot {
    Spot { node: node(at), place: PipePlace::Lease(serial) }
}

fn program(at: u8) -> Spot {
    Spot { node: node(at), place: PipePlace::Program }
}

/// A data connection: who dialled, whom, the so manieth.
type Conn = (u8, u8, u32);

/// What is on its way.
#[derive(Debug, Clone)]
enum Parcel {
    Order(PipeOrder),
    Binding(Conn, PipeBinding),
}

/// Some nodes, and what joins them.
struct World {
    now: Tick,
    nodes: BTreeMap<u8, Pipes<Conn>>,
    /// What is on its way from one to another: control, and each data connection. Each keeps its order.
    control: BTreeMap<(u8, u8), VecDeque<Parcel>>,
    data: BTreeMap<(Conn, u8), VecDeque<Parcel>>,
    linked: BTreeSet<(u8, u8)>,
    open: BTreeSet<Conn>,
    next: u32,
    /// Whether plain sockets are wanted, and can be had.
    plain: Option<bool>,
    /// What each end has: `None` while broken.
    has: BTreeMap<(u8, u64, PipePlace), Option<&'static str>>,
    failed: BTreeSet<(u8, u64)>,
    /// What the program at each node was told.
    told: Vec<(u64, PipeState)>,
    /// Leases lent by each node.
    leases: BTreeSet<(u8, u64)>,
    /// Programs that have asked at each node.
    guests: BTreeSet<(u8, AppId)>,
}

impl World {
    fn new(count: u8) -> World {
        let nodes = (1..=count).map(|n| (n, Pipes::new(node(n).id))).collect();
        let mut world = World {
            now: Tick(1_000_000),
            nodes,
            control: BTreeMap::new(),
            data: BTreeMap::new(),
            linked: BTreeSet::new(),
            open: BTreeSet::new(),
            next: 0,
            plain: None,
            has: BTreeMap::new(),
            failed: BTreeSet::new(),
            told: Vec::new(),
            leases: BTreeSet::new(),
            guests: BTreeSet::new(),
        };
        for a in 1..=count {
            for b in a + 1..=count {
                world.link(a, b);
            }
        }
        world
    }

    fn link(&mut self, a: u8, b: u8) {
        self.linked.insert((a.min(b), a.max(b)));
        self.tell(a, Input::LinkUp(node(b).id));
        self.tell(b, Input::LinkUp(node(a).id));
    }

    /// The link between two nodes and all its connections are lost, with what was on its way.
    fn cut(&mut self, a: u8, b: u8) {
        self.linked.remove(&(a.min(b), a.max(b)));
        self.control.retain(|(from, to), _| (*from, *to) != (a, b) && (*from, *to) != (b, a));
        let conns: Vec<Conn> =
            self.open.iter().filter(|(x, y, _)| (*x, *y) == (a, b) || (*x, *y) == (b, a)).copied().collect();
        for conn in conns {
            self.cut_data(conn);
        }
    }

    fn cut_data(&mut self, conn: Conn) {
        self.open.remove(&conn);
        self.data.retain(|(one, _), _| *one != conn);
        for end in [conn.0, conn.1] {
            self.tell(end, Input::DataDown { conn });
        }
    }

    fn lease(&mut self, at: u8, serial: u64) {
        self.leases.insert((at, serial));
        self.tell(at, Input::Ready { serial });
    }

    fn tell(&mut self, at: u8, input: Input<Conn>) {
        let mut out = Vec::new();
        if let Some(pipes) = self.nodes.get_mut(&at) {
            pipes.handle(self.now, input, &mut out);
        }
        for output in out {
            self.act(at, output);
        }
    }

    fn act(&mut self, at: u8, output: Output<Conn>) {
        let number_of = |id: NodeId| id.0[0];
        match output {
            Output::Send { to, message } => {
                let to = number_of(to);
                if self.linked.contains(&(at.min(to), at.max(to))) {
                    self.control.entry((at, to)).or_default().push_back(Parcel::Order(message));
                }
            }
            Output::Want(wanted) => {
                let to = number_of(wanted.id);
                if !self.linked.contains(&(at.min(to), at.max(to))) {
                    return self.tell(at, Input::DataFailed(wanted.id));
                }
                if let Some(conn) = self.open.iter().find(|(a, b, _)| (*a, *b) == (at, to)).copied() {
                    return self.tell(at, Input::DataUp { peer: wanted.id, conn });
                }
                self.next += 1;
                let conn = (at, to, self.next);
                self.open.insert(conn);
                self.tell(at, Input::DataUp { peer: wanted.id, conn });
            }
            Output::Bind { conn, mut bind } => {
                bind.plain &= self.plain.is_some();
                self.say(at, conn, bind.into());
            }
            Output::Bound { conn, handle } => self.say(at, conn, PipeBound { handle, plain: None }.into()),
            Output::Offer { conn, handle } => {
                let plain = PlainSocket { port: 1, token: [0; TOKEN_BYTES] };
                self.say(at, conn, PipeBound { handle, plain: Some(plain) }.into());
                let stands = self.plain == Some(true);
                self.tell(at, Input::Plain { conn, handle, stands });
            }
            Output::Connect { conn, handle, .. } => {
                let stands = self.plain == Some(true);
                self.tell(at, Input::Plain { conn, handle, stands });
            }
            Output::Unbind { conn, unbound } => self.say(at, conn, unbound.into()),
            Output::Ring { number, a, b, .. } => {
                self.give(at, number, a, "ring");
                self.give(at, number, b, "ring");
            }
            Output::Socket { number, at: place, plain, .. } => {
                self.give(at, number, place, if plain { "plain" } else { "socket" });
            }
            Output::Break { number, at: place, .. } => {
                let had = self.has.insert((at, number, place), None);
                assert!(matches!(had, Some(Some(_))), "only what was given is taken back");
            }
            Output::Fail { number, at: place, .. } => {
                assert!(!matches!(self.has.get(&(at, number, place)), Some(Some(_))), "taken back first");
                self.failed.insert((at, number));
            }
            Output::Tell { number, state, .. } => self.told.push((number, state)),
        }
    }

    fn give(&mut self, at: u8, number: u64, place: PipePlace, what: &'static str) {
        let had = self.has.insert((at, number, place), Some(what));
        assert!(!matches!(had, Some(Some(_))), "an end is told of the break before it is given another");
    }

    fn say(&mut self, at: u8, conn: Conn, message: PipeBinding) {
        let to = if conn.0 == at { conn.1 } else { conn.0 };
        if self.open.contains(&conn) {
            self.data.entry((conn, to)).or_default().push_back(Parcel::Binding(conn, message));
        }
    }

    /// Delivers the first parcel of the `pick`th way that has one; false if nothing is on its way.
    fn deliver(&mut self, pick: usize) -> bool {
        self.control.retain(|_, parcels| !parcels.is_empty());
        self.data.retain(|_, parcels| !parcels.is_empty());
        let ways = self.control.len() + self.data.len();
        if ways == 0 {
            return false;
        }
        let pick = pick % ways;
        if pick < self.control.len() {
            let ((from, to), parcels) = self.control.iter_mut().nth(pick).unwrap();
            let (from, to) = (*from, *to);
            let Some(Parcel::Order(order)) = parcels.pop_front() else { unreachable!() };
            let from = node(from).id;
            let input = match order {
                PipeOrder::JoinPipe(join) => {
                    let is_its = match join.mine {
                        PipePlace::Lease(serial) => self.leases.contains(&(to, serial)),
                        PipePlace::Guest(guest) => self.guests.contains(&(to, guest)),
                        PipePlace::Program => false,
                    };
                    Input::Join { from, join, is_its }
                }
                PipeOrder::LeavePipe(leave) => Input::Leave { from, leave },
                PipeOrder::PipeNews(news) => Input::News { from, news },
            };
            self.tell(to, input);
        } else {
            let ((_, to), parcels) = self.data.iter_mut().nth(pick - self.control.len()).unwrap();
            let to = *to;
            let Some(Parcel::Binding(conn, binding)) = parcels.pop_front() else { unreachable!() };
            let peer = node(if conn.0 == to { conn.1 } else { conn.0 }).id;
            let input = match binding {
                PipeBinding::BindPipe(mut bind) => {
                    bind.plain &= self.plain.is_some();
                    Input::Bind { peer, conn, bind }
                }
                PipeBinding::PipeBound(bound) => Input::Bound { conn, bound },
                PipeBinding::PipeUnbound(unbound) => Input::Unbound { conn, unbound },
            };
            self.tell(to, input);
        }
        true
    }

    /// Until nothing happens any more, timers aside.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            if !self.deliver(0) {
                return;
            }
        }
        panic!("it never comes to rest");
    }

    /// Until nothing happens any more for some seconds.
    fn rest(&mut self) {
        for _ in 0..200 {
            self.settle();
            let Some(due) = self.nodes.values().filter_map(Pipes::deadline).min() else { return };
            self.now = self.now.max(due);
            for at in self.nodes.keys().copied().collect::<Vec<_>>() {
                self.tell(at, Input::Time);
            }
        }
    }

    fn order(&mut self, home: u8, number: u64, a: Spot, b: Spot) {
        self.tell(home, Input::Open { app: APP, epoch: Epoch(0), number, a, b });
    }

    #[track_caller]
    fn both_have(&self, number: u64, a: &Spot, b: &Spot, what: &str) {
        for end in [a, b] {
            let has = self.has.get(&(end.node.id.0[0], number, end.place));
            assert_eq!(has, Some(&Some(what)), "pipe {number} at {end:?}");
        }
    }
}

#[test]
fn two_workers_of_one_node_get_a_ring_also_elsewhere() {
    let mut world = World::new(2);
    world.lease(2, 1);
    world.lease(2, 2);
    world.order(1, 5, worker(2, 1), worker(2, 2));
    world.settle();
    world.both_have(5, &worker(2, 1), &worker(2, 2), "ring");
    world.order(2, 6, program(2), worker(2, 2));
    world.settle();
    world.both_have(6, &program(2), &worker(2, 2), "ring");
}

#[test]
fn two_nodes_are_joined_whoever_has_the_smaller_id_and_the_program_too() {
    let mut world = World::new(3);
    world.lease(2, 1);
    world.lease(3, 1);
    world.lease(1, 1);
    world.order(1, 1, worker(2, 1), worker(3, 1));
    world.order(1, 2, worker(3, 1), worker(2, 1));
    world.order(1, 3, program(1), worker(3, 1));
    world.order(3, 4, program(3), worker(1, 1));
    world.settle();
    world.both_have(1, &worker(2, 1), &worker(3, 1), "socket");
    world.both_have(2, &worker(2, 1), &worker(3, 1), "socket");
    world.both_have(3, &program(1), &worker(3, 1), "socket");
    world.both_have(4, &program(3), &worker(1, 1), "socket");
}

#[test]
fn a_pipe_waits_for_its_workers_and_is_opened_anew_for_those_that_follow() {
    let mut world = World::new(2);
    world.leases.extend([(1, 1), (2, 1)]);
    world.order(2, 1, worker(1, 1), worker(2, 1));
    world.settle();
    assert!(world.has.is_empty());
    world.tell(1, Input::Ready { serial: 1 });
    world.settle();
    assert!(world.has.is_empty(), "the acceptor's end is not there");
    world.tell(2, Input::Ready { serial: 1 });
    world.settle();
    world.both_have(1, &worker(1, 1), &worker(2, 1), "socket");
    for gone in [1, 2] {
        world.tell(gone, Input::WorkerGone { serial: 1 });
        world.rest();
        assert!(world.has.values().all(Option::is_none), "{:?}", world.has);
        world.tell(gone, Input::Ready { serial: 1 });
        world.rest();
        world.both_have(1, &worker(1, 1), &worker(2, 1), "socket");
    }
    assert_eq!(world.told, [(1, PipeState::Broken), (1, PipeState::Broken)]);
}

#[test]
fn a_binding_may_come_before_its_announcement_but_not_without() {
    let mut world = World::new(3);
    world.lease(1, 1);
    world.lease(2, 1);
    world.order(3, 9, worker(1, 1), worker(2, 1));
    // The announcement to the acceptor is kept back.
    let late = world.control.remove(&(3, 2)).unwrap();
    world.settle();
    assert!(world.has.is_empty());
    world.control.insert((3, 2), late);
    world.settle();
    world.both_have(9, &worker(1, 1), &worker(2, 1), "socket");

    // Nobody has announced this one to the acceptor, nor ever does: it is refused by name.
    let forged = super::JoinPipe {
        app: APP,
        epoch: Epoch(0),
        number: 10,
        mine: PipePlace::Lease(1),
        node: node(2),
        other: PipePlace::Lease(1),
    };
    world.tell(1, Input::Join { from: node(3).id, join: forged, is_its: true });
    world.settle();
    world.now = world.now + Duration::from_secs(3);
    world.tell(2, Input::Time);
    let refusals = world.data.values().flatten().filter(
        |parcel| matches!(parcel, Parcel::Binding(_, PipeBinding::PipeUnbound(unbound)) if unbound.unknown),
    );
    assert_eq!(refusals.count(), 1);
    assert!(!world.has.contains_key(&(2, 10, PipePlace::Lease(1))));
}

#[test]
fn a_lease_that_is_not_the_homes_fails_the_pipe_and_one_that_ends_too() {
    let mut world = World::new(2);
    world.lease(1, 1);
    world.order(1, 1, worker(1, 1), worker(2, 8));
    world.rest();
    assert!(matches!(&world.told[..], [(1, PipeState::Failed(_))]), "{:?}", world.told);
    assert!(world.nodes.values().all(|pipes| pipes.count() == 0));

    world.lease(2, 1);
    world.order(1, 2, worker(1, 1), worker(2, 1));
    world.settle();
    world.tell(2, Input::LeaseGone { serial: 1 });
    world.tell(1, Input::LeaseOver { app: APP, lender: node(2).id, serial: 1 });
    world.rest();
    assert!(world.told.iter().any(|(number, state)| *number == 2 && matches!(state, PipeState::Failed(_))));
    assert!(world.failed.contains(&(1, 2)) && world.failed.contains(&(2, 2)));
    assert!(world.nodes.values().all(|pipes| pipes.count() == 0));
}

/// Another program at a node.
const GUEST: AppId = AppId(8);

fn guest(at: u8) -> Spot {
    Spot { node: node(at), place: PipePlace::Guest(GUEST) }
}

#[test]
fn a_guest_is_joined_on_any_node_until_either_program_goes() {
    for (at, what) in [(1, "socket"), (2, "ring"), (3, "socket")] {
        for gone in [GUEST, APP] {
            let mut world = World::new(3);
            world.guests.insert((at, GUEST));
            world.order(2, GUEST_PIPES, program(2), guest(at));
            world.settle();
            world.both_have(GUEST_PIPES, &program(2), &guest(at), what);
            if what == "socket" {
                world.cut(2, at);
                world.rest();
                world.link(2, at);
                world.rest();
                world.both_have(GUEST_PIPES, &program(2), &guest(at), what);
            }
            world.tell(if gone == APP { 2 } else { at }, Input::AppGone(gone));
            world.settle();
            assert!(world.has.values().all(Option::is_none), "{:?}", world.has);
            assert!(world.nodes.values().all(|pipes| pipes.count() == 0 && pipes.deadline().is_none()));
            let failed = world.told.iter().filter(|(_, state)| matches!(state, PipeState::Failed(_))).count();
            assert_eq!(
                failed,
                usize::from(gone == GUEST),
                "the program that stays is told: {:?}",
                world.told
            );
        }
    }
}

#[test]
fn a_guest_that_did_not_ask_is_not_joined_and_one_that_cannot_be_reached_is_given_up() {
    for home in [1, 3] {
        let mut world = World::new(3);
        world.order(home, GUEST_PIPES, program(home), guest(2));
        world.settle();
        assert!(matches!(&world.told[..], [(GUEST_PIPES, PipeState::Failed(_))]), "{:?}", world.told);

        world.guests.insert((2, GUEST));
        world.cut(home, 2);
        world.order(home, GUEST_PIPES + 1, program(home), guest(2));
        world.rest();
        assert!(matches!(&world.told[1..], [(_, PipeState::Failed(_))]), "{:?}", world.told);
        assert!(world.has.is_empty());
        assert!(world.nodes.values().all(|pipes| pipes.count() == 0 && pipes.deadline().is_none()));
    }
}

#[test]
fn plain_sockets_are_used_where_they_can_be_had_and_given_up_with_trust() {
    let mut world = World::new(2);
    let (a, b) = (worker(1, 1), worker(2, 1));
    world.lease(1, 1);
    world.lease(2, 1);
    world.plain = Some(true);
    world.order(1, 1, a.clone(), b.clone());
    world.rest();
    world.both_have(1, &a, &b, "plain");
    world.plain = None;
    world.tell(1, Input::Distrust(node(2).id));
    world.rest();
    world.both_have(1, &a, &b, "socket");
    world.plain = Some(false);
    world.order(1, 2, a.clone(), b.clone());
    world.rest();
    world.both_have(2, &a, &b, "socket");
}

#[test]
fn nonsense_is_refused() {
    let mut world = World::new(2);
    world.lease(1, 1);
    world.order(1, 1, program(1), program(1));
    world.order(1, 2, worker(1, 1), worker(1, 1));
    world.order(1, 3, program(2), worker(1, 1));
    world.rest();
    assert_eq!(world.told.len(), 3);
    assert!(world.told.iter().all(|(_, state)| matches!(state, PipeState::Failed(_))));
    assert!(world.has.is_empty());
}

/// Chance, the same for the same seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}

/// Faults and reordering, then quiet: all pipes stand at both their ends, in the same way.
#[test]
fn whatever_breaks_in_whatever_order_all_pipes_stand_in_the_end() {
    for seed in 1..400 {
        let mut chance = Chance(u64::wrapping_mul(seed, 0x9e37_79b9_7f4a_7c15));
        let mut world = World::new(3);
        let mut pipes = Vec::new();
        world.plain = [None, Some(true), Some(false)][chance.below(3)];
        for at in 1..=3 {
            world.lease(at, 1);
            world.lease(at, 2);
        }
        for number in 0..6 {
            let mut end = || worker(1 + chance.below(3) as u8, 1 + chance.below(2) as u64);
            let (a, b) = (if number == 0 { program(1) } else { end() }, end());
            if a != b {
                pipes.push((number, a, b));
            }
        }
        let mut cuts: Vec<(u8, u8)> = Vec::new();
        let mut dead: Vec<(u8, u64)> = Vec::new();
        let mut waiting = pipes.clone();
        for _ in 0..120 {
            match chance.below(12) {
                0 if !waiting.is_empty() => {
                    let (number, a, b) = waiting.remove(0);
                    world.order(1, number, a, b);
                }
                1 => {
                    let (a, b) = [(1, 2), (1, 3), (2, 3)][chance.below(3)];
                    world.cut(a, b);
                    cuts.push((a, b));
                }
                2 => {
                    let place = (1 + chance.below(3) as u8, 1 + chance.below(2) as u64);
                    world.tell(place.0, Input::WorkerGone { serial: place.1 });
                    dead.push(place);
                }
                3 => {
                    if let Some(conn) = world.open.iter().next().copied() {
                        world.cut_data(conn);
                    }
                }
                4 => cuts.drain(..).for_each(|(a, b)| world.link(a, b)),
                5 => dead.drain(..).for_each(|(at, serial)| world.tell(at, Input::Ready { serial })),
                6 => {
                    world.now = world.now + Duration::from_millis(chance.below(800) as u64);
                    for at in 1..=3 {
                        world.tell(at, Input::Time);
                    }
                }
                pick => {
                    world.deliver(pick);
                }
            }
        }
        for (number, a, b) in waiting {
            world.order(1, number, a, b);
        }
        cuts.drain(..).for_each(|(a, b)| world.link(a, b));
        dead.drain(..).for_each(|(at, serial)| world.tell(at, Input::Ready { serial }));
        world.rest();
        for (number, a, b) in &pipes {
            let of = |end: &Spot| world.has.get(&(end.node.id.0[0], *number, end.place)).copied().flatten();
            let ways = (of(a), of(b));
            assert!(ways.0.is_some() && ways.0 == ways.1, "seed {seed}, pipe {number}: {ways:?}");
        }
        assert!(!world.told.iter().any(|(_, state)| matches!(state, PipeState::Failed(_))), "seed {seed}");
        // All end with their leases, and nothing is left.
        for (at, serial) in world.leases.clone() {
            world.tell(at, Input::LeaseGone { serial });
            world.tell(1, Input::LeaseOver { app: APP, lender: node(at).id, serial });
        }
        world.rest();
        assert!(world.nodes.values().all(|pipes| pipes.count() == 0), "seed {seed}");
    }
}
