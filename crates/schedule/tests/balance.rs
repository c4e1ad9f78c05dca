//! Who gets how much of the work, and who has to wait for whom, in a small simulation: leases whose calls
//! and results take their time on the way.

use mutirao_schedule::hold::{Call, Hold, Input, Options, Output};
use mutirao_wire::frame::HEADER_BYTES;
use mutirao_wire::{CallId, Handle, Tick};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};

/// A lease: how long its calls and results are under way together.
#[derive(Debug, Clone, Copy)]
struct Way {
    local: bool,
    round_us: u64,
}

const LOCAL: Way = Way { local: true, round_us: 10 };
const REMOTE: Way = Way { local: false, round_us: 300 };

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrives(usize, CallId),
    Done(usize, CallId),
    Answer(usize, CallId),
    AskedBack(usize),
    GivenBack(usize),
}

struct Simulation {
    hold: Hold,
    now: u64,
    ways: Vec<Way>,
    /// How long an operation's calls run.
    lengths: Vec<u64>,
    operations: BTreeMap<CallId, u32>,
    queues: Vec<VecDeque<CallId>>,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    order: u64,
    finished: Vec<usize>,
    /// When each call was answered.
    answered: BTreeMap<CallId, u64>,
    out: Vec<Output>,
    /// Calls that the library would have back from each lease, or has.
    back: BTreeMap<usize, Vec<CallId>>,
}

impl Simulation {
    fn new(ways: &[Way], lengths: &[u64]) -> Simulation {
        let mut simulation = Simulation {
            hold: Hold::new(Options { copies: false, ..Options::default() }),
            now: 1_000_000,
            ways: Vec::new(),
            lengths: lengths.to_vec(),
            operations: BTreeMap::new(),
            queues: Vec::new(),
            events: BinaryHeap::new(),
            order: 0,
            finished: Vec::new(),
            answered: BTreeMap::new(),
            out: Vec::new(),
            back: BTreeMap::new(),
        };
        ways.iter().for_each(|way| simulation.add_lease(*way));
        simulation
    }

    fn add_lease(&mut self, way: Way) {
        let handle = Handle(self.ways.len() as u32);
        self.ways.push(way);
        self.queues.push(VecDeque::new());
        self.finished.push(0);
        self.tell(Input::LeaseAdded { handle, local: way.local });
        self.tell(Input::LeaseReady { handle, room: 1 << 20 });
    }

    fn tell(&mut self, input: Input) {
        self.hold.handle(Tick(self.now), input, &mut self.out);
    }

    fn submit(&mut self, operation: u32) -> CallId {
        let call = Call { operation, bytes: 8, repeatable: false, limit_ms: 0, only: None };
        let id = self.hold.submit(call).expect("there is room");
        self.operations.insert(id, operation);
        id
    }

    fn submit_many(&mut self, count: usize, operation: u32) -> Vec<CallId> {
        (0..count).map(|_| self.submit(operation)).collect()
    }

    fn after(&mut self, us: u64, event: Event) {
        self.order += 1;
        self.events.push(Reverse((self.now + us, self.order, event)));
    }

    fn place(&mut self) {
        self.hold.place(Tick(self.now), &mut self.out);
        for output in std::mem::take(&mut self.out) {
            let (handle, event) = match output {
                Output::Send(part) => (part.handle, Event::Arrives(part.handle.0 as usize, part.call)),
                Output::Withdraw { handle, calls } => {
                    assert!(self.back.insert(handle.0 as usize, calls).is_none(), "one at a time");
                    (handle, Event::AskedBack(handle.0 as usize))
                }
                other => panic!("{other:?}"),
            };
            self.after(self.ways[handle.0 as usize].round_us / 2, event);
        }
    }

    fn begin(&mut self, lease: usize) {
        if let Some(call) = self.queues[lease].front().copied() {
            let length = self.lengths[self.operations[&call] as usize];
            self.after(length, Event::Done(lease, call));
        }
    }

    /// Until `until_us` after the beginning of time or until all is quiet.
    fn run(&mut self, until_us: u64) {
        self.place();
        while let Some(Reverse((at, _, event))) = self.events.peek().copied() {
            if at > until_us {
                break;
            }
            self.events.pop();
            self.now = at;
            match event {
                Event::Arrives(lease, call) => {
                    self.queues[lease].push_back(call);
                    if self.queues[lease].len() == 1 {
                        self.begin(lease);
                    }
                }
                Event::AskedBack(lease) => {
                    let back = self.back.get_mut(&lease).unwrap();
                    let queue = &mut self.queues[lease];
                    back.retain(|call| {
                        queue.iter().position(|queued| queued == call).is_some_and(|at| at > 0)
                    });
                    queue.retain(|call| !back.contains(call));
                    self.after(self.ways[lease].round_us / 2, Event::GivenBack(lease));
                }
                Event::GivenBack(lease) => {
                    let calls = self.back.remove(&lease).unwrap();
                    self.tell(Input::Withdrawn { handle: Handle(lease as u32), calls });
                }
                Event::Done(lease, call) => {
                    self.queues[lease].pop_front();
                    self.after(self.ways[lease].round_us / 2, Event::Answer(lease, call));
                    self.begin(lease);
                }
                Event::Answer(lease, call) => {
                    let handle = Handle(lease as u32);
                    let wanted = self.hold.result(Tick(at), handle, call, None, &mut self.out);
                    assert!(wanted && self.answered.insert(call, at).is_none());
                    self.finished[lease] += 1;
                    match self.ways[lease].local {
                        true => self.tell(Input::Room { handle, bytes: 1 << 20 }),
                        false => self.tell(Input::Credit { handle, bytes: HEADER_BYTES as u64 + 8 }),
                    }
                }
            }
            self.place();
        }
        self.now = self.now.max(until_us.min(u64::MAX - 1).min(self.now + 1_000_000_000));
    }

    fn run_for(&mut self, us: u64) {
        self.run(self.now + us);
    }

    /// Runs to the end; how long it took.
    fn finish(&mut self) -> u64 {
        let began = self.now;
        self.run(u64::MAX);
        assert_eq!(self.answered.len(), self.operations.len(), "{:?}", self.hold.backlog());
        self.answered.values().max().map_or(0, |last| last - began)
    }
}

#[test]
fn remote_leases_get_as_much_of_short_calls_as_the_local_one() {
    for length in [100, 500, 1_000, 1_500, 2_500, 5_000] {
        for count in [400, 4_000] {
            let mut simulation = Simulation::new(&[LOCAL, REMOTE, REMOTE, REMOTE], &[length]);
            simulation.submit_many(count, 0);
            let took = simulation.finish();
            for finished in &simulation.finished {
                let share = *finished as f64 / count as f64;
                assert!((0.2..=0.3).contains(&share), "{length} us: {:?}", simulation.finished);
            }
            let of_ideal = count as f64 * length as f64 / 4.0 / took as f64;
            let least = if count * length as usize >= 200_000 { 0.9 } else { 0.8 };
            assert!(of_ideal > least, "{count} of {length} us: {of_ideal}");
        }
    }
}

#[test]
fn nothing_is_queued_behind_a_call_of_unknown_length() {
    let mut simulation = Simulation::new(&[LOCAL, REMOTE], &[10, u64::MAX / 4]);
    simulation.submit_many(100, 0);
    simulation.run_for(100_000);
    assert_eq!(simulation.answered.len(), 100);
    // Two that never end, one on each lease; then short ones.
    simulation.submit_many(2, 1);
    simulation.run_for(1_000);
    let since = simulation.now;
    let short = simulation.submit_many(50, 0);
    simulation.run_for(20_000);
    let backlog = simulation.hold.backlog();
    assert_eq!((backlog.waiting, backlog.bound), (50, 0));
    assert_eq!(backlog.waiting_since, Some(Tick(since)));
    // Another lease is all they need.
    simulation.add_lease(REMOTE);
    simulation.run_for(20_000);
    assert!(short.iter().all(|call| simulation.answered.contains_key(call)));
    assert_eq!(simulation.hold.backlog().waiting_since, None);
}

#[test]
fn nothing_is_queued_behind_a_call_that_overruns() {
    // It used to take 100 us, and suddenly takes very long.
    let mut simulation = Simulation::new(&[REMOTE, REMOTE], &[100]);
    simulation.submit_many(200, 0);
    simulation.run_for(100_000);
    simulation.lengths[0] = 10_000_000;
    simulation.submit_many(2, 0);
    simulation.run_for(5_000);
    simulation.lengths[0] = 100;
    let later = simulation.submit_many(20, 0);
    simulation.run_for(5_000);
    assert_eq!(simulation.hold.backlog().waiting, 20);
    simulation.add_lease(REMOTE);
    simulation.run_for(20_000);
    assert!(later.iter().all(|call| simulation.answered.contains_key(call)));
}

#[test]
fn a_long_call_does_not_hold_back_short_ones_and_they_do_not_starve_it() {
    let mut simulation = Simulation::new(&[LOCAL, REMOTE, REMOTE], &[50, 20_000]);
    simulation.submit_many(300, 0);
    simulation.submit(1);
    simulation.run_for(200_000);
    // All leases are busy with short calls when the long one comes, and there are always more of these.
    simulation.submit_many(2_000, 0);
    simulation.run_for(1_000);
    let began = simulation.now;
    let long = simulation.submit(1);
    let mut young = Vec::new();
    for _ in 0..200 {
        young.extend(simulation.submit_many(60, 0));
        simulation.run_for(500);
    }
    let ended = simulation.answered[&long];
    // 2,000 short ones were before it; then one lease ran empty for it.
    assert!(ended - began < 2_000 * 50 / 3 + 2_000 + 20_000 + 3_000, "{}", ended - began);
    // Meanwhile the other two leases worked on.
    let meanwhile = young.iter().filter(|call| simulation.answered.get(call) < Some(&ended)).count();
    assert!(meanwhile > 500, "{meanwhile}");
}

#[test]
fn one_lease_serves_long_and_short_calls_in_turn() {
    let mut simulation = Simulation::new(&[REMOTE], &[50, 5_000]);
    simulation.submit_many(20, 0);
    simulation.submit(1);
    simulation.run_for(100_000);
    simulation.submit_many(500, 0);
    let long = simulation.submit_many(3, 1);
    let young = simulation.submit_many(500, 0);
    simulation.finish();
    let last_long = simulation.answered[&long[2]];
    let before = young.iter().filter(|call| simulation.answered[call] < last_long).count();
    assert!(before < 250, "{before} younger calls went before the long ones");
}

#[test]
fn calls_of_one_operation_are_sent_in_their_order() {
    let mut simulation = Simulation::new(&[REMOTE], &[30, 700, 3_000]);
    let mut calls = vec![Vec::new(); 3];
    for n in 0..600u32 {
        let operation = n * n % 7 % 3;
        calls[operation as usize].push(simulation.submit(operation));
        simulation.run_for(u64::from(n % 5) * 100);
    }
    simulation.finish();
    for calls in calls {
        let times: Vec<u64> = calls.iter().map(|call| simulation.answered[call]).collect();
        assert!(times.len() > 50 && times.is_sorted());
    }
}

#[test]
fn calls_that_must_not_run_twice_leave_the_lease_where_one_takes_for_ever() {
    for way in [LOCAL, REMOTE] {
        let mut simulation = Simulation::new(&[way], &[50, u64::MAX / 4]);
        simulation.submit_many(500, 0);
        simulation.run_for(100_000);
        assert_eq!(simulation.answered.len(), 500);
        // The next is not what it seems: it never ends, and others wait behind it when another lease comes.
        simulation.lengths[0] = u64::MAX / 4;
        simulation.submit(0);
        simulation.submit_many(20, 0);
        simulation.run_for(200);
        simulation.lengths[0] = 50;
        let began = simulation.now;
        simulation.add_lease(way);
        simulation.run_for(15_000);
        // Nothing else happens: the deadline has to lead there.
        let deadline = simulation.hold.deadline().expect("it is to be looked at");
        simulation.run(deadline.0.max(simulation.now));
        simulation.run_for(20_000);
        assert_eq!(simulation.answered.len(), 520, "{way:?}: all but the one");
        let last = simulation.answered.values().max().unwrap() - began;
        assert!(last < 60_000, "{way:?}: after {last} us");
    }
}

#[test]
fn many_leases_share_many_calls() {
    let mut simulation = Simulation::new(&[REMOTE; 2_000], &[5_000, 400]);
    for _ in 0..20_000 {
        simulation.submit(0);
        simulation.submit(1);
    }
    let took = simulation.finish();
    let of_ideal = 20_000.0 * 5_400.0 / 2_000.0 / took as f64;
    assert!(of_ideal > 0.8, "{of_ideal}");
    let used: BTreeSet<usize> = simulation.finished.iter().map(|finished| *finished.min(&1)).collect();
    assert_eq!(used, BTreeSet::from([1]), "no lease is left out");
}
