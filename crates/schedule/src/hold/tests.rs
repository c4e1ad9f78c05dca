use super::*;
use mutirao_wire::Epoch;
use mutirao_wire::local::Leave;
use mutirao_wire::stream::failure;
use std::collections::{BTreeMap, VecDeque};

fn call() -> Call {
    Call { operation: 0, bytes: 8, repeatable: false, limit_ms: 0, only: None }
}

/// Leases that take `lengths[i]` microseconds for a call each, and results as they come.
struct Bench {
    hold: Hold,
    now: Tick,
    lengths: Vec<u64>,
    queues: Vec<VecDeque<CallId>>,
    /// When the head of each is done.
    done: Vec<Option<Tick>>,
    finished: Vec<usize>,
    deepest: Vec<usize>,
    outcomes: BTreeMap<CallId, Option<Outcome>>,
    out: Vec<Output>,
}

impl Bench {
    fn new(local: bool, lengths: &[u64]) -> Bench {
        let mut bench = Bench {
            hold: Hold::new(Options::default()),
            now: Tick(1),
            lengths: lengths.to_vec(),
            queues: vec![VecDeque::new(); lengths.len()],
            done: vec![None; lengths.len()],
            finished: vec![0; lengths.len()],
            deepest: vec![0; lengths.len()],
            outcomes: BTreeMap::new(),
            out: Vec::new(),
        };
        for lease in 0..lengths.len() {
            let handle = Handle(lease as u32);
            bench.tell(Input::LeaseAdded { handle, local });
            bench.tell(Input::LeaseReady { handle, room: 1 << 20 });
        }
        bench
    }

    fn tell(&mut self, input: Input) {
        self.hold.handle(self.now, input, &mut self.out);
        self.drain();
    }

    fn submit(&mut self, call: Call) -> CallId {
        self.hold.submit(call).expect("there is room")
    }

    fn submit_many(&mut self, count: usize, call: &Call) {
        for _ in 0..count {
            self.submit(call.clone());
        }
    }

    fn place(&mut self) {
        self.hold.place(self.now, &mut self.out);
        self.drain();
    }

    fn drain(&mut self) {
        for output in std::mem::take(&mut self.out) {
            match output {
                Output::Send(part) if !part.more => {
                    let lease = part.handle.0 as usize;
                    self.queues[lease].push_back(part.call);
                    self.deepest[lease] = self.deepest[lease].max(self.queues[lease].len());
                    if self.done[lease].is_none() {
                        self.done[lease] = Some(Tick(self.now.0 + self.lengths[lease]));
                    }
                }
                Output::Finished { call, outcome } => {
                    assert_eq!(self.outcomes.insert(call, Some(outcome)), None, "finished twice");
                }
                _ => {}
            }
        }
    }

    /// Until `until` or until nothing happens any more.
    fn run(&mut self, until: Tick) {
        loop {
            self.place();
            let event = self.done.iter().flatten().copied().chain(self.hold.deadline()).min();
            let Some(at) = event.filter(|at| *at <= until) else { break };
            self.now = at.max(self.now);
            for lease in 0..self.queues.len() {
                if self.done[lease].is_some_and(|done| done <= self.now) {
                    let call = self.queues[lease].pop_front().expect("the head is done");
                    let next = Tick(self.now.0 + self.lengths[lease]);
                    self.done[lease] = (!self.queues[lease].is_empty()).then_some(next);
                    let handle = Handle(lease as u32);
                    if self.hold.result(self.now, handle, call, None, &mut self.out) {
                        self.finished[lease] += 1;
                        assert_eq!(self.outcomes.insert(call, None), None, "finished twice");
                    }
                    self.drain();
                    self.tell(Input::Room { handle, bytes: 1 << 20 });
                }
            }
            self.tell(Input::Time);
        }
    }
}

const FOR_EVER: Tick = Tick(u64::MAX);

#[test]
fn a_lease_slowed_to_a_quarter_gets_about_a_quarter_of_the_work() {
    for (local, length, count) in
        [(true, 10, 40_000), (false, 10, 40_000), (false, 50_000, 2_000), (true, 10_000_000, 400)]
    {
        let mut bench = Bench::new(local, &[length, length, length, 4 * length]);
        for _ in 0..count {
            bench.submit(call());
        }
        bench.run(FOR_EVER);
        assert_eq!(bench.outcomes.len(), count);
        let quick = (bench.finished[0] + bench.finished[1] + bench.finished[2]) as f64 / 3.0;
        let share = bench.finished[3] as f64 / quick;
        assert!((0.2..0.3).contains(&share), "{length} us: {share}");
        // And all are done at about the same time: nothing is left lying at the slow one.
        let ideal = count as f64 * length as f64 / 3.25;
        assert!((bench.now.0 as f64) < ideal * 1.1, "{} {ideal}", bench.now.0);
    }
}

#[test]
fn short_calls_are_pipelined_and_long_ones_are_not() {
    let mut bench = Bench::new(true, &[10, 10]);
    bench.submit_many(10_000, &call());
    bench.run(FOR_EVER);
    assert!(bench.deepest.iter().all(|deepest| (100..=210).contains(deepest)), "{:?}", bench.deepest);

    let mut bench = Bench::new(true, &[5_000_000, 5_000_000]);
    bench.submit_many(20, &call());
    bench.run(FOR_EVER);
    assert_eq!(bench.deepest, [1, 1]);

    // A remote lease has one more in reserve, if that hides anything.
    let mut bench = Bench::new(false, &[20_000, 20_000]);
    bench.submit_many(20, &call());
    bench.run(FOR_EVER);
    assert_eq!(bench.deepest, [2, 2]);
}

#[test]
fn calls_bound_to_a_lease_go_there_for_as_long_as_was_said() {
    let bound = Call { only: Some(Handle(0)), ..call() };
    let deepest = |bound_work: Duration| {
        let mut bench = Bench::new(true, &[1000]);
        bench.hold.options.bound_work = bound_work;
        bench.submit_many(200, &bound);
        bench.run(FOR_EVER);
        assert_eq!(bench.outcomes.len(), 200);
        bench.deepest[0]
    };
    assert!(deepest(Duration::ZERO) <= 3);
    assert!((18..=21).contains(&deepest(Duration::from_millis(20))));
}

#[test]
fn how_long_a_worker_is_busy_is_known_once_calls_are() {
    let mut bench = Bench::new(true, &[1000]);
    bench.hold.options.bound_work = Duration::from_millis(20);
    let bound = Call { only: Some(Handle(0)), ..call() };
    bench.submit(bound.clone());
    bench.place();
    assert_eq!(bench.hold.busy_for(bench.now, Handle(0)), Duration::ZERO, "nobody knows");
    bench.run(FOR_EVER);
    bench.submit_many(10, &bound);
    bench.place();
    let busy_ms = |after_ms: u64| {
        bench.hold.busy_for(bench.now + Duration::from_millis(after_ms), Handle(0)).as_micros().div_ceil(1000)
    };
    assert_eq!([0, 4, 10, 100].map(busy_ms), [10, 6, 0, 0]);
    assert_eq!(bench.hold.busy_for(bench.now, Handle(7)), Duration::ZERO, "an unknown lease");
}

#[test]
fn one_drain_is_grouped_by_lease() {
    let mut bench = Bench::new(true, &[10, 10, 10, 10]);
    bench.submit_many(4_000, &call());
    bench.run(FOR_EVER);
    bench.submit_many(400, &call());
    bench.hold.place(bench.now, &mut bench.out);
    let handles: Vec<Handle> = bench
        .out
        .iter()
        .filter_map(|output| match output {
            Output::Send(part) => Some(part.handle),
            _ => None,
        })
        .collect();
    assert_eq!(handles.len(), 400);
    let changes = handles.windows(2).filter(|pair| pair[0] != pair[1]).count();
    assert!(changes < 60, "{changes}");
}

#[test]
fn a_straggler_gets_a_copy_and_the_first_result_wins() {
    let mut bench = Bench::new(false, &[10_000, 10_000]);
    let repeatable = Call { repeatable: true, ..call() };
    bench.submit_many(10, &repeatable);
    bench.run(FOR_EVER);
    bench.lengths[0] = 100_000_000;
    bench.lengths[1] = 100_000_000;
    let began = bench.now.0;
    let slow = bench.submit(repeatable);
    bench.run(Tick(began + 29_000));
    assert_eq!(bench.queues.iter().filter(|queue| queue.contains(&slow)).count(), 1);
    bench.run(Tick(began + 60_000));
    assert_eq!(bench.queues.iter().filter(|queue| queue.contains(&slow)).count(), 2);
    let mut out = Vec::new();
    assert!(bench.hold.result(bench.now, Handle(1), slow, None, &mut out));
    assert_eq!(out, [Output::Cancel { handle: Handle(0), call: slow }]);
    assert!(!bench.hold.result(bench.now, Handle(0), slow, None, &mut out));
}

#[test]
fn repeatable_calls_stuck_behind_another_run_elsewhere() {
    let mut bench = Bench::new(false, &[10, 10]);
    let repeatable = Call { repeatable: true, ..call() };
    bench.submit_many(1_000, &repeatable);
    bench.run(FOR_EVER);
    bench.lengths[0] = 100_000_000;
    let began = bench.now.0;
    bench.submit_many(200, &repeatable);
    bench.run(Tick(began + 5_000));
    let stuck = 1_200 - bench.outcomes.len();
    assert!(stuck > 80, "{stuck}");
    bench.run(Tick(began + 60_000));
    assert_eq!(bench.outcomes.len(), 1_200);
}

#[test]
fn a_call_not_repeatable_gets_no_copy() {
    let mut bench = Bench::new(false, &[10_000, 10_000]);
    bench.submit_many(10, &call());
    bench.run(FOR_EVER);
    bench.lengths = vec![100_000_000; 2];
    let began = bench.now.0;
    bench.submit(call());
    bench.run(Tick(began + 1_000_000));
    assert_eq!(bench.queues.iter().map(VecDeque::len).sum::<usize>(), 1);
}

#[test]
fn a_time_limit_at_a_local_worker_ends_that_call_only() {
    let mut bench = Bench::new(true, &[1_000_000]);
    let limited = bench.submit(Call { limit_ms: 50, ..call() });
    bench.place();
    let mut out = Vec::new();
    assert_eq!(bench.hold.deadline(), Some(Tick(bench.now.0 + 50_000)));
    let due = bench.hold.deadline().unwrap();
    bench.hold.handle(due, Input::Time, &mut out);
    let kill = Output::KillWorker { handle: Handle(0), call: limited, code: failure::TIME_LIMIT };
    assert_eq!(out, std::slice::from_ref(&kill));
    // It is asked for again until it has happened.
    let again = bench.hold.deadline().unwrap();
    bench.hold.handle(again, Input::Time, &mut out);
    assert_eq!(out, [kill.clone(), kill]);
    bench.tell(Input::LocalWorkerEnded {
        handle: Handle(0),
        running: Some(limited),
        code: failure::WORKER_ENDED,
    });
    assert_eq!(bench.outcomes[&limited], Some(Outcome::Failed(failure::TIME_LIMIT)));
}

#[test]
fn a_crash_fails_the_call_that_ran_and_the_others_run_again() {
    let mut bench = Bench::new(true, &[10]);
    bench.submit_many(100, &call());
    bench.run(FOR_EVER);
    let calls: Vec<CallId> = (0..10).map(|_| bench.submit(call())).collect();
    bench.place();
    assert_eq!(bench.queues[0].len(), 10);
    let (handle, code) = (Handle(0), failure::OUT_OF_MEMORY);
    bench.queues[0].clear();
    bench.done[0] = None;
    bench.tell(Input::LocalWorkerEnded { handle, running: Some(calls[0]), code });
    bench.place();
    assert!(bench.queues[0].is_empty(), "nothing is sent before the next worker is ready");
    bench.tell(Input::LeaseReady { handle, room: 1 << 20 });
    bench.place();
    assert_eq!(bench.queues[0].make_contiguous(), &calls[1..], "in their order");
    bench.run(FOR_EVER);
    assert_eq!(bench.outcomes[&calls[0]], Some(Outcome::Failed(code)));
    assert!(calls[1..].iter().all(|call| bench.outcomes[call].is_none()));
}

#[test]
fn what_a_lost_lease_had_runs_again_only_if_it_may() {
    let mut bench = Bench::new(false, &[10_000_000; 2]);
    let once = bench.submit(call());
    let twice = bench.submit(Call { repeatable: true, ..call() });
    bench.place();
    for handle in [Handle(0), Handle(1)] {
        bench.tell(Input::LeaseEnded { handle, running: None, lost: true });
    }
    assert_eq!(bench.outcomes.get(&once), Some(&Some(Outcome::Unknown)));
    assert!(bench.hold.wants(twice));
    assert_eq!(bench.hold.backlog().waiting, 1);
    // A call that takes its lender with it is not tried for ever.
    for _ in 0..2 {
        bench.tell(Input::LeaseAdded { handle: Handle(0), local: false });
        bench.tell(Input::LeaseReady { handle: Handle(0), room: 0 });
        bench.place();
        bench.tell(Input::LeaseEnded { handle: Handle(0), running: None, lost: true });
    }
    assert_eq!(bench.outcomes.get(&twice), Some(&Some(Outcome::Unknown)));
}

#[test]
fn only_what_was_at_work_when_its_lender_was_lost_is_suspected() {
    // Known as short, so that one is queued behind the other.
    let mut bench = Bench::new(false, &[100]);
    bench.submit_many(50, &call());
    bench.run(FOR_EVER);
    let short = Call { repeatable: true, ..call() };
    let (first, behind) = (bench.submit(short.clone()), bench.submit(short));
    let mut end = |lost: bool| {
        bench.place();
        assert!(bench.hold.wants(first) && bench.hold.wants(behind));
        assert_eq!(bench.hold.backlog().waiting, 0, "both were sent");
        bench.tell(Input::LeaseEnded { handle: Handle(0), running: None, lost });
        bench.tell(Input::LeaseAdded { handle: Handle(0), local: false });
        bench.tell(Input::LeaseReady { handle: Handle(0), room: 0 });
    };
    // A lease that merely ends makes nothing suspicious.
    (0..5).for_each(|_| end(false));
    (0..3).for_each(|_| end(true));
    assert_eq!(bench.outcomes.get(&first), Some(&Some(Outcome::Unknown)));
    assert!(bench.hold.wants(behind));
}

#[test]
fn a_large_argument_is_cut_to_the_window() {
    let mut bench = Bench::new(false, &[10]);
    let large = bench.submit(Call { bytes: 3 << 20, ..call() });
    let mut argument = 0;
    let mut window = LEASE_WINDOW_BYTES;
    for _ in 0..10 {
        bench.hold.place(bench.now, &mut bench.out);
        let mut used = 0;
        for output in bench.out.drain(..) {
            let Output::Send(part) = output else { panic!("{output:?}") };
            assert_eq!((part.call, part.offset), (large, argument));
            argument += part.bytes;
            assert_eq!(part.more, argument < 3 << 20);
            used += 32 + u64::from(part.bytes);
        }
        assert!(used <= window);
        window -= used;
        bench.hold.handle(bench.now, Input::Credit { handle: Handle(0), bytes: 400_000 }, &mut bench.out);
        window += 400_000;
    }
    assert_eq!(argument, 3 << 20);
}

#[test]
fn a_retired_lease_finishes_its_work_and_a_bound_call_stays_on_its_lease() {
    let mut bench = Bench::new(false, &[1_000, 1_000]);
    let only = Some(Handle(1));
    let bound: Vec<CallId> = (0..5).map(|_| bench.submit(Call { only, ..call() })).collect();
    bench.run(FOR_EVER);
    assert_eq!(bench.finished, [0, 5]);
    assert!(bound.iter().all(|call| bench.outcomes[call].is_none()));
    let last = bench.submit(Call { only, ..call() });
    bench.place();
    let left = bench.submit(Call { only, ..call() });
    bench.tell(Input::Retire { handle: Handle(1), leave: Leave::Finish });
    assert_eq!(bench.outcomes[&left], Some(Outcome::LeaseEnded));
    assert!(bench.hold.submit(Call { only, ..call() }).is_err());
    let mut out = Vec::new();
    bench.hold.place(bench.now, &mut out);
    assert_eq!(out, []);
    assert!(bench.hold.result(bench.now, Handle(1), last, None, &mut out));
    bench.hold.place(bench.now, &mut out);
    assert_eq!(out, [Output::Retired(Handle(1))]);
}

/// Two calls on a remote lease, one of them running; it retires. What is asked back, and what comes of all
/// once the lender has said that the second has not begun.
fn retire(repeatable: bool, leave: Leave) -> (Hold, [CallId; 2], Vec<Output>) {
    let mut bench = Bench::new(false, &[100_000]);
    let usual = Call { repeatable, ..call() };
    bench.submit_many(3, &usual);
    bench.run(FOR_EVER);
    bench.lengths[0] = u64::MAX / 4;
    let calls = [bench.submit(usual.clone()), bench.submit(usual.clone())];
    bench.submit_many(5, &Call { operation: 1, ..usual });
    bench.place();
    bench.tell(Input::Retire { handle: Handle(0), leave });
    let mut out = Vec::new();
    bench.hold.place(bench.now, &mut out);
    assert_eq!(out, [Output::Withdraw { handle: Handle(0), calls: calls.to_vec() }]);
    out.clear();
    let input = Input::Withdrawn { handle: Handle(0), calls: vec![calls[1]] };
    bench.hold.handle(bench.now, input, &mut out);
    bench.hold.place(bench.now, &mut out);
    (bench.hold, calls, out)
}

#[test]
fn what_runs_on_a_lease_that_retires_ends_as_was_said() {
    let retired = Output::Retired(Handle(0));
    let unknown = |call| Output::Finished { call, outcome: Outcome::Unknown };
    for repeatable in [true, false] {
        let (mut hold, [runs, _], out) = retire(repeatable, Leave::Finish);
        assert_eq!(out, [], "it waits for what runs");
        let mut out = Vec::new();
        assert!(hold.result(FOR_EVER, Handle(0), runs, None, &mut out));
        hold.place(FOR_EVER, &mut out);
        assert_eq!(out, vec![retired.clone()]);
    }
    let (hold, _, out) = retire(true, Leave::Rerun);
    assert_eq!((out, hold.backlog().waiting), (vec![retired.clone()], 7));
    let (hold, _, out) = retire(false, Leave::Rerun);
    assert_eq!((out, hold.backlog().waiting), (vec![], 6), "what may not run twice is waited for");
    let (hold, _, out) = retire(true, Leave::Abandon);
    assert_eq!((out, hold.backlog().waiting), (vec![retired.clone()], 7));
    let (hold, [runs, _], out) = retire(false, Leave::Abandon);
    assert_eq!((out, hold.backlog().waiting), (vec![unknown(runs), retired], 6));
}

#[test]
fn limits_are_told() {
    let mut hold = Hold::new(Options { calls_max: 2, copies: false, ..Options::default() });
    assert!(hold.submit(call()).is_ok());
    let second = hold.submit(call()).unwrap();
    assert!(!hold.can_submit());
    assert_eq!(hold.submit(call()), Err(Refused::Full(2)));
    let mut out = Vec::new();
    hold.handle(Tick(0), Input::Cancel(second), &mut out);
    let outcome = Outcome::Failed(failure::CANCELLED);
    assert_eq!(out, [Output::Finished { call: second, outcome }]);
    let third = hold.submit(call()).unwrap();
    assert_ne!(third, second, "a name is not used twice");
    out.clear();
    hold.handle(Tick(0), Input::NoMoreLeases, &mut out);
    assert_eq!(out.len(), 2);
    assert_eq!(hold.backlog(), Backlog::default());
}

#[test]
fn a_call_that_another_home_has_sent_is_asked_for_and_never_sent() {
    let handle = Handle(3);
    let id = |number: u64| CallId(number << 20 | 2);
    let adopted = |number: u64| {
        let mut hold = Hold::new(Options { epoch: Epoch(16), ..Options::default() });
        let mut out = Vec::new();
        hold.handle(Tick(1), Input::LeaseAdded { handle, local: false }, &mut out);
        hold.handle(Tick(1), Input::LeaseReady { handle, room: 0 }, &mut out);
        hold.handle(Tick(1), Input::LeaseBroken(handle), &mut out);
        assert!(!hold.adopt(Tick(1), id(number), call()), "it is bound to its lease");
        assert!(hold.adopt(Tick(1), id(number), Call { only: Some(handle), ..call() }));
        assert!(
            !hold.adopt(Tick(1), id(number + 1), Call { only: Some(handle), ..call() }),
            "its place is taken"
        );
        hold.place(Tick(2), &mut out);
        hold.handle(Tick(3), Input::LeaseRestored(handle), &mut out);
        hold.place(Tick(3), &mut out);
        assert_eq!(out, [Output::Resume { handle, outstanding: vec![id(number)] }]);
        hold
    };
    // It runs, and its result comes once; what comes after it has a name of its own.
    let mut hold = adopted(1);
    let mut out = Vec::new();
    hold.handle(Tick(4), Input::Resumed { handle, unknown: Vec::new() }, &mut out);
    assert!(hold.result(Tick(5), handle, id(1), None, &mut out));
    assert!(!hold.result(Tick(5), handle, id(1), None, &mut out));
    let next: Vec<u64> = (0..4).map(|_| hold.submit(call()).unwrap().0).collect();
    assert!(next.iter().all(|id| id >> 20 > 16 << 12), "{next:x?}");
    // The lender does not have it, or its worker ended before it began: it is over, and did not run.
    for gone in [
        Input::Resumed { handle, unknown: vec![id(7)] },
        Input::WorkerEnded { handle, not_started: vec![id(7)] },
    ] {
        let (mut hold, mut out) = (adopted(7), Vec::new());
        hold.handle(Tick(4), gone, &mut out);
        hold.place(Tick(4), &mut out);
        assert_eq!(out, [Output::Finished { call: id(7), outcome: Outcome::LeaseEnded }]);
    }
    // Nothing more is heard of it.
    let (mut hold, mut out) = (adopted(7), Vec::new());
    hold.handle(Tick(4), Input::LeaseEnded { handle, running: None, lost: true }, &mut out);
    assert_eq!(out, [Output::Finished { call: id(7), outcome: Outcome::Unknown }]);
    // Nobody wants it any more: the lender is told as soon as it can be.
    let (mut hold, mut out) = (adopted(7), Vec::new());
    hold.handle(Tick(4), Input::Cancel(id(7)), &mut out);
    hold.handle(Tick(4), Input::Resumed { handle, unknown: Vec::new() }, &mut out);
    let cancelled = Output::Finished { call: id(7), outcome: Outcome::Failed(failure::CANCELLED) };
    assert_eq!(out, [cancelled, Output::Cancel { handle, call: id(7) }]);
}
