//! A keeper, its journal and its workers in a small world where everything fails at times.

mod ahead;
mod replaying;
mod saving;
mod weighing;

use super::*;
use crate::checks::{Accept, Checks, content_hash};
use crate::template::Known;
use crate::template::Work;
use crate::words::Words;
use mutirao_wire::node::NodeRef;
use mutirao_wire::{Incarnation, LeaseId};
use proptest::prelude::*;
use std::collections::BTreeMap;

fn shell(name: &str) -> Template {
    Template::new(name, Work::Shell(Words::plain("true")))
}

/// What is added to the number of an attempt to have that of its call.
const CALL: u64 = 1000;

/// The node of a worker: there are three.
fn node_of(worker: u64) -> NodeId {
    NodeId([(worker % 3) as u8; 32])
}

/// A keeper: the bag, what of its journal is on the disk, and what it has been told to do.
struct World {
    bag: Bag,
    now: Tick,
    /// Records that survive the keeper.
    disk: Vec<Record>,
    /// Records appended and not on the disk.
    unwritten: Vec<Record>,
    acked: u64,
    running: BTreeMap<u64, (u32, u64)>,
    killed: Vec<u64>,
    /// How often each task's result was put where it belongs, by attempt.
    settled: BTreeMap<u32, Vec<u64>>,
    given_back: Vec<u64>,
    dropped: Vec<u64>,
    /// Bytes in the file of outputs, and what of it is of no use any more.
    outputs: u64,
    freed: Vec<Span>,
    over: bool,
    next_worker: u64,
    trust: Trust,
}

impl World {
    fn new(draft: Draft) -> World {
        let disk: Vec<Record> = draft.into_records(5).collect();
        World {
            bag: Bag::new(),
            now: Tick(1),
            disk,
            unwritten: Vec::new(),
            acked: 0,
            running: BTreeMap::new(),
            killed: Vec::new(),
            settled: BTreeMap::new(),
            given_back: Vec::new(),
            dropped: Vec::new(),
            outputs: 0,
            freed: Vec::new(),
            over: false,
            next_worker: 1,
            trust: Trust::default(),
        }
        .born()
    }

    /// A keeper begins with what is on the disk.
    fn born(self) -> World {
        self.begins(None::<fn(u64) -> bool>)
    }

    /// Another goes on with the leases, and with attempts that run there.
    fn born_of(self, goes_on: impl Fn(u64) -> bool) -> World {
        self.begins(Some(goes_on))
    }

    fn begins(mut self, goes_on: Option<impl Fn(u64) -> bool>) -> World {
        let ran = std::mem::take(&mut self.running);
        self.bag = Bag::new();
        for (number, record) in (1..).zip(&self.disk) {
            let read = Record::decode(&record.encode(), number).unwrap();
            self.bag.replay(read).unwrap();
        }
        (self.unwritten, self.acked) = (Vec::new(), 0);
        self.killed = Vec::new();
        let mut out = Vec::new();
        let trust = Trust { secret: 3, ..self.trust.clone() };
        let mut left = if goes_on.is_some() { self.bag.left() } else { Vec::new() };
        for left in &mut left {
            // Its node is told by its number.
            while node_of(self.next_worker) != left.lent.lender.id {
                self.next_worker += 1;
            }
            left.worker = self.next_worker;
            self.next_worker += 1;
            left.attempts.retain(|(attempt, call)| {
                assert_eq!(*call, attempt + CALL, "it is another's");
                // One that has ended is no more, and its lender knows nothing of it.
                goes_on.as_ref().is_some_and(|goes_on| goes_on(*attempt)) && ran.contains_key(attempt)
            });
            let now = left.attempts.iter().map(|(attempt, _)| (*attempt, (ran[attempt].0, left.worker)));
            self.running.extend(now);
        }
        self.bag.go_on(self.now, 7, trust, left, &mut out).unwrap();
        self.carry_out(out);
        self
    }

    fn tell(&mut self, input: Input) {
        self.now = Tick(self.now.0 + 1000);
        let mut out = Vec::new();
        self.bag.handle(self.now, 7, input, &mut out);
        self.carry_out(out);
    }

    fn carry_out(&mut self, out: Vec<Output>) {
        let mut sent = Vec::new();
        for output in out {
            match output {
                Output::Append(record) => self.unwritten.push(*record),
                Output::Start { attempt, task, worker } => {
                    assert!(
                        self.running.insert(attempt, (task, worker)).is_none(),
                        "attempt {attempt} twice"
                    );
                    sent.push(attempt);
                }
                Output::Kill { attempt } => self.killed.push(attempt),
                Output::Settle { task, attempt } => self.settled.entry(task).or_default().push(attempt),
                Output::GiveBack(worker) => self.given_back.push(worker),
                Output::Drop { attempt, .. } => self.dropped.push(attempt),
                Output::Free(span) => self.freed.push(span),
                Output::Learnt { node, standing, .. } => self.learn(node, standing),
                Output::Over => self.over = true,
            }
        }
        for attempt in sent {
            self.tell(Input::Sent { attempt, call: attempt + CALL });
        }
    }

    /// So many of the records that wait come to the disk.
    fn write(&mut self, count: usize) {
        let written: Vec<Record> = self.unwritten.drain(..count.min(self.unwritten.len())).collect();
        self.acked += written.len() as u64;
        self.disk.extend(written);
        self.tell(Input::Journaled(self.acked));
    }

    fn write_all(&mut self) {
        while !self.unwritten.is_empty() {
            self.write(usize::MAX);
        }
    }

    fn worker(&mut self) -> u64 {
        self.worker_with(Needs { slots: 1, memory_mib: 0, resources: Vec::new() })
    }

    fn worker_with(&mut self, offers: Needs) -> u64 {
        let worker = self.next_worker;
        self.next_worker += 1;
        let (id, node) = (node_of(worker), format!("n{}", worker % 3));
        let lent = Lent {
            lease: LeaseId { lender: id, incarnation: Incarnation(1), serial: worker },
            lender: NodeRef { id, incarnation: Incarnation(1), name: node.clone(), addresses: Vec::new() },
            slots: offers.slots,
            memory_mib: offers.memory_mib,
            resources: offers.resources.clone(),
        };
        self.tell(Input::Lent { worker, lent });
        self.tell(Input::WorkerUp { worker, id, node, offers });
        worker
    }

    fn end(&mut self, attempt: u64, end: End) {
        self.end_with(attempt, end, Report::default());
    }

    fn end_with(&mut self, attempt: u64, end: End, report: Report) {
        self.end_as(attempt, end, report, b"right");
    }

    /// An attempt ends with this result.
    fn end_as(&mut self, attempt: u64, end: End, report: Report, result: &[u8]) {
        self.running.remove(&attempt);
        let end = if self.killed.contains(&attempt) && end == End::Done { End::Killed } else { end };
        let outputs = (Span::default(), Span::default());
        let last_words = "last words".into();
        let result = Some(content_hash(result, [], &report.text()));
        self.tell(Input::Ended { attempt, end, cost: Cost::default(), last_words, outputs, result, report });
    }

    fn learn(&mut self, node: NodeId, news: NodeStanding) {
        match self.trust.standings.iter_mut().find(|(known, _)| *known == node) {
            Some((_, known)) => *known = known.plus(news),
            None => self.trust.standings.push((node, news)),
        }
    }

    /// The attempt of a task that runs.
    fn attempt_of(&self, task: u32) -> u64 {
        let found =
            self.running.iter().find(|(attempt, (of, _))| *of == task && !self.killed.contains(attempt));
        *found.unwrap_or_else(|| panic!("task {task} does not run")).0
    }

    fn verdict(&self, task: u32) -> Verdict {
        self.bag.task(task).unwrap().verdict
    }
}

fn draft(templates: Vec<Template>, counts: &[usize]) -> Draft {
    let mut draft = Draft::new(Settings::default());
    draft.templates = templates;
    for (template, count) in counts.iter().enumerate() {
        (0..*count).for_each(|_| draft.push(template as u32, Vec::new()));
    }
    draft
}

#[test]
fn a_result_counts_when_it_is_on_the_disk() {
    let mut world = World::new(draft(vec![shell("a"), Template { after: vec![0], ..shell("b") }], &[1, 1]));
    world.worker();
    let attempt = world.attempt_of(0);
    world.end(attempt, End::Done);
    assert!(world.settled.is_empty() && world.running.is_empty(), "nothing follows before that");
    world.write_all();
    assert_eq!(world.settled[&0], [attempt]);
    let second = world.attempt_of(1);
    world.end(second, End::Done);
    world.write_all();
    assert!(world.over && world.bag.is_over());
}

#[test]
fn what_can_be_started_nowhere_fails_with_the_cause_and_may_be_tried_again() {
    let templates = vec![shell("a"), Template { after: vec![0], ..shell("b") }];
    let mut world = World::new(draft(templates, &[2, 1]));
    world.worker();
    assert_eq!(world.running.len(), 1);
    let runs = world.running.values().next().unwrap().0;
    let waits = 1 - runs;
    world.tell(Input::Nowhere("no loader there".into()));
    assert_eq!((world.verdict(runs), world.verdict(waits)), (Verdict::Running, Verdict::Failed));
    let why = world.bag.explain(waits).unwrap();
    assert!(why.contains("no loader there") && !why.contains("attempt 0"), "{why}");
    world.end(world.attempt_of(runs), End::Done);
    world.write_all();
    assert_eq!(world.verdict(2), Verdict::Barred);
    assert!(world.over);
    world.tell(Input::Again(waits));
    world.end(world.attempt_of(waits), End::Done);
    world.write_all();
    world.end(world.attempt_of(2), End::Done);
    world.write_all();
    assert_eq!(world.bag.counts().done, 3);
}

#[test]
fn a_bag_that_is_held_is_over_only_when_it_is_let_go() {
    let mut world = World::new(draft(vec![shell("a")], &[1]));
    world.bag.hold(true);
    world.worker();
    world.end(world.attempt_of(0), End::Done);
    world.write_all();
    assert!(!world.over, "more may come");
    world
        .tell(Input::Add { templates: Vec::new(), tasks: vec![NewTask { template: 0, values: Vec::new() }] });
    world.end(world.attempt_of(1), End::Done);
    world.write_all();
    assert_eq!(world.bag.finished(), [0, 1]);
    world.bag.hold(false);
    world.tell(Input::Time);
    world.write_all();
    assert!(world.over);
}

#[test]
fn a_task_that_fails_is_tried_as_often_as_it_may_and_bars_what_waits_for_it() {
    let templates = vec![Template { retries: 1, ..shell("a") }, Template { after: vec![0], ..shell("b") }];
    let mut world = World::new(draft(templates, &[1, 1]));
    world.worker();
    world.end(world.attempt_of(0), End::Code(3));
    assert_eq!(world.verdict(0), Verdict::Running);
    world.end(world.attempt_of(0), End::TimeLimit);
    assert_eq!((world.verdict(0), world.verdict(1)), (Verdict::Failed, Verdict::Barred));
    assert!(world.running.is_empty());
    let why = world.bag.explain(0).unwrap();
    assert!(why.contains("time limit"), "{why}");
    let why = world.bag.explain(1).unwrap();
    assert!(why.contains("1 of the 1 task of `a` will not be done"), "{why}");
    world.write_all();
    assert!(world.over);
    // Once more, by hand.
    world.tell(Input::Again(0));
    assert_eq!((world.verdict(0), world.verdict(1)), (Verdict::Running, Verdict::Waiting));
    world.end(world.attempt_of(0), End::Done);
    world.write_all();
    world.end(world.attempt_of(1), End::Done);
    world.write_all();
    assert_eq!(world.bag.counts().done, 2);
}

#[test]
fn a_task_that_takes_its_workers_with_it_is_set_aside_and_the_others_go_on() {
    let mut settings = draft(vec![Template { crash_limit: 2, ..shell("a") }], &[2]);
    settings.settings.replicas = 1;
    let mut world = World::new(settings);
    for _ in 0..2 {
        let worker = world.worker();
        let attempt = world.attempt_of(0);
        world.tell(Input::WorkerDown(worker));
        world.end(attempt, End::WorkerEnded("signal 11".into()));
    }
    assert_eq!(world.verdict(0), Verdict::SetAside);
    let evidence = world.bag.task(0).unwrap().evidence.unwrap().clone();
    assert_eq!((evidence.end, &*evidence.last_words), (End::WorkerEnded("signal 11".into()), "last words"));
    world.worker();
    world.end(world.attempt_of(1), End::Done);
    world.write_all();
    assert!(world.over);
}

#[test]
fn what_did_not_begin_costs_no_try() {
    let mut world = World::new(draft(vec![shell("a")], &[1]));
    for _ in 0..10 {
        let worker = world.worker();
        let attempt = world.attempt_of(0);
        world.end(attempt, End::NotBegun("the lease ended".into()));
        world.tell(Input::WorkerDown(worker));
        let ids: Vec<u64> = world.running.keys().copied().collect();
        ids.into_iter().for_each(|attempt| world.end(attempt, End::NotBegun("no lease".into())));
    }
    assert_eq!(world.verdict(0), Verdict::Ready);
    assert!(world.bag.task(0).unwrap().evidence.is_none());
}

#[test]
fn a_worker_without_work_is_given_back() {
    let mut world = World::new(draft(vec![shell("a")], &[1]));
    let (first, second, third) = (world.worker(), world.worker(), world.worker());
    assert_eq!(world.running.len(), 2, "a copy, and no third");
    assert!(world.bag.deadline().is_some());
    world.now = world.bag.deadline().unwrap();
    world.tell(Input::Time);
    assert_eq!(world.given_back, [third]);
    world.end(world.attempt_of(0), End::Done);
    assert_eq!(world.killed.len(), 1, "the loser is ended at once");
    let loser = world.killed[0];
    world.end(loser, End::Done);
    assert_eq!(world.dropped, [loser]);
    world.tell(Input::WorkerDown(third));
    world.now = Tick(world.now.0 + 10_000_000);
    world.tell(Input::Time);
    world.given_back.sort_unstable();
    assert_eq!(world.given_back, [first, second, third]);
}

#[test]
fn tasks_add_tasks_and_only_with_their_result() {
    let added = |n: &str| crate::Added { like: None, values: [("n".into(), n.into())].into(), command: None };
    let mut draft = Draft::new(Settings::default());
    draft.settings.replicas = 1;
    draft.templates.push(Template { parameters: vec!["n".into()], retries: 1, ..shell("a") });
    draft.templates.push(Template { after: vec![0], ..shell("join") });
    draft.push(0, vec!["0".into()]);
    draft.push(1, Vec::new());
    let mut world = World::new(draft);
    world.worker();
    let report = Report { added: vec![added("1"), added("2")], ..Report::default() };
    world.end_with(world.attempt_of(0), End::Code(1), report.clone());
    assert_eq!(world.bag.counts().all(), 2, "an attempt that failed has added nothing");
    world.end_with(world.attempt_of(0), End::Done, report);
    world.write_all();
    assert_eq!(world.bag.counts().all(), 4);
    assert_eq!(world.verdict(1), Verdict::Waiting, "those added belong to what it waits for");
    let odd =
        Report { added: vec![crate::Added { like: Some("none".into()), ..added("1") }], ..Report::default() };
    world.end_with(world.attempt_of(2), End::Done, odd);
    let why = world.bag.task(2).unwrap().evidence.unwrap().end.to_string();
    assert!(why.contains("no template `none`"), "{why}");
}

#[test]
fn a_task_runs_where_its_needs_are_met_and_slots_are_asked_for_within_the_limit() {
    let mut draft = draft(vec![Template { slots: 2, ..shell("a") }, shell("b")], &[3, 10]);
    draft.settings.slots_max = 8;
    let mut world = World::new(draft);
    let wanted: u32 = world.bag.wanted().iter().map(|(needs, count)| u32::from(needs.slots) * count).sum();
    assert!(wanted <= 8 && wanted > 6, "{wanted}");
    world.worker();
    assert_eq!(world.bag.task(world.running.values().next().unwrap().0).unwrap().template.name, "b");
    world.worker_with(Needs { slots: 2, memory_mib: 0, resources: Vec::new() });
    assert_eq!(world.running.len(), 2);
}

#[test]
fn tasks_have_a_worker_as_long_as_one_could_run_them() {
    let large = Template { slots: 4, ..shell("large") };
    let mut world = World::new(draft(vec![shell("a"), large], &[3, 1]));
    let (one, four) = (shell("a").needs(), Needs { slots: 4, ..shell("a").needs() });
    assert!(!world.bag.is_served(&one));
    let worker = world.worker();
    assert!(world.bag.is_served(&one) && !world.bag.is_served(&four));
    world.tell(Input::WorkerLeaves(worker));
    assert!(!world.bag.is_served(&one));
}

#[test]
fn tasks_at_the_same_place_follow_one_another() {
    let templates = vec![shell("a"), Template { after_each: vec![0], ..shell("b") }];
    let mut draft = draft(templates, &[2, 2]);
    draft.settings.replicas = 1;
    let mut world = World::new(draft);
    world.worker();
    world.end(world.attempt_of(0), End::Done);
    world.write_all();
    assert_ne!(world.verdict(2), Verdict::Waiting);
    assert_eq!(world.verdict(3), Verdict::Waiting);
    world.end(world.attempt_of(1), End::Code(1));
    assert_eq!(world.verdict(3), Verdict::Barred);
}

#[test]
fn a_shrunk_journal_says_the_same() {
    let templates = vec![shell("a"), Template { after: vec![0], ..shell("b") }];
    let mut world = World::new(draft(templates, &[3, 1]));
    world.worker();
    world.end(world.attempt_of(0), End::Done);
    world.end(world.attempt_of(1), End::Code(4));
    world.tell(Input::Cancel(2));
    world.write_all();
    let before: Vec<_> = world.bag.tasks().map(|task| (task.verdict, task.tries)).collect();
    let records: Vec<Record> = world.bag.shrink().collect();
    world.disk = records;
    let world = world.born();
    let after: Vec<_> = world.bag.tasks().map(|task| (task.verdict, task.tries)).collect();
    assert_eq!(before, after);
    assert_eq!(world.bag.task(1).unwrap().evidence.unwrap().end, End::Code(4));
}

/// What happens next, drawn.
#[derive(Debug, Clone)]
enum Chance {
    Worker,
    Ends(prop::sample::Index, u8),
    Saves(prop::sample::Index),
    Down(prop::sample::Index),
    Write(usize),
    KeeperDies,
    /// Another goes on with some of what runs.
    KeeperMoves(u8),
    Time,
    Cancel(prop::sample::Index),
    Again(prop::sample::Index),
}

fn chance() -> impl Strategy<Value = Chance> {
    use prop::sample::Index;
    prop_oneof![
        3 => Just(Chance::Worker),
        12 => (any::<Index>(), any::<u8>()).prop_map(|(which, how)| Chance::Ends(which, how)),
        4 => any::<Index>().prop_map(Chance::Saves),
        2 => any::<Index>().prop_map(Chance::Down),
        6 => (0usize..6).prop_map(Chance::Write),
        1 => Just(Chance::KeeperDies),
        2 => any::<u8>().prop_map(Chance::KeeperMoves),
        1 => Just(Chance::Time),
        1 => any::<Index>().prop_map(Chance::Cancel),
        1 => any::<Index>().prop_map(Chance::Again),
    ]
}

fn happen(mut world: World, chance: Chance) -> World {
    let tasks = world.bag.counts().all() as usize;
    match chance {
        Chance::Worker if world.bag.workers() < 6 => drop(world.worker()),
        Chance::Worker => {}
        Chance::Ends(which, how) => {
            let ids: Vec<u64> = world.running.keys().copied().collect();
            if ids.is_empty() {
                return world;
            }
            let end = match how {
                0..160 => End::Done,
                160..200 => End::Code(how),
                200..220 => End::NotBegun("no lease".into()),
                _ => End::NodeLost("gone".into()),
            };
            world.end(ids[which.index(ids.len())], end);
        }
        Chance::Saves(which) => {
            let ids: Vec<u64> = world.running.keys().copied().collect();
            if !ids.is_empty() {
                world.save(ids[which.index(ids.len())]);
            }
        }
        Chance::Down(which) => {
            let workers: Vec<u64> = world.running.values().map(|(_, worker)| *worker).collect();
            if workers.is_empty() {
                return world;
            }
            let worker = workers[which.index(workers.len())];
            let of = |(attempt, (_, at)): (&u64, &(u32, u64))| (*at == worker).then_some(*attempt);
            let attempts: Vec<u64> = world.running.iter().filter_map(of).collect();
            world.tell(Input::WorkerDown(worker));
            attempts.into_iter().for_each(|attempt| world.end(attempt, End::NodeLost("gone".into())));
        }
        Chance::Write(count) => world.write(count),
        Chance::KeeperDies => return world.born(),
        Chance::KeeperMoves(which) => return world.born_of(|attempt| which >> (attempt % 8) & 1 == 0),
        Chance::Time => {
            world.now = world.bag.deadline().unwrap_or(world.now);
            world.tell(Input::Time);
            for worker in std::mem::take(&mut world.given_back) {
                world.tell(Input::WorkerDown(worker));
            }
        }
        Chance::Cancel(which) => world.tell(Input::Cancel(which.index(tasks) as u32)),
        Chance::Again(which) => world.tell(Input::Again(which.index(tasks) as u32)),
    }
    world
}

/// No result counts that is not on the disk, and none twice; state that was saved is there.
fn check(world: &World) {
    saving::check(world);
    let mut committed: BTreeMap<u32, u64> = BTreeMap::new();
    for record in &world.disk {
        if let Record::Committed { task, attempt, .. } = record {
            assert!(committed.insert(*task, *attempt).is_none(), "task {task} has two results");
        }
    }
    for (task, attempts) in &world.settled {
        assert_eq!(attempts.as_slice(), [committed[task]], "task {task}");
    }
    let counted = world.bag.counts();
    assert_eq!(counted.all() as usize, world.bag.tasks().count());
    for task in world.bag.tasks() {
        let before_done = task.template.after.iter().all(|earlier| {
            let mut before = world
                .bag
                .tasks()
                .filter(|other| other.template.name == world.bag.templates[*earlier as usize].name);
            before.all(|other| other.verdict == Verdict::Done)
        });
        assert!(task.verdict != Verdict::Running || before_done, "task {} is too early", task.number);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn whatever_fails_each_task_is_committed_once_and_the_bag_comes_to_its_end(
        counts in prop::collection::vec(0usize..6, 3),
        chances in prop::collection::vec(chance(), 0..120),
    ) {
        let templates = vec![
            Template { retries: 1, checkpoint: Some("state".into()), ..shell("a") },
            Template { after: vec![0], ..shell("b") },
            Template { after: vec![0], after_each: vec![1], crash_limit: 2, ..shell("c") },
        ];
        let mut draft = draft(templates, &counts);
        draft.push(0, Vec::new());
        let mut world = World::new(draft);
        for chance in chances {
            world = happen(world, chance);
            check(&world);
        }
        // Then nothing fails any more.
        for _ in 0..400 {
            world.write_all();
            if world.bag.is_over() {
                break;
            }
            if world.bag.workers() < 4 {
                world.worker();
            }
            let ids: Vec<u64> = world.running.keys().copied().collect();
            ids.into_iter().for_each(|attempt| world.end(attempt, End::Done));
        }
        check(&world);
        prop_assert!(world.bag.is_over(), "{:?}", world.bag.counts());
        prop_assert_eq!(world.bag.counts().open(), 0);
    }
}

#[test]
fn an_ipar_application_that_lists_a_task_too_long_has_failed() {
    let mut world =
        World::new(crate::ipar::bag(Settings::default(), vec!["app".into()], Vec::new(), 0, false));
    world.worker();
    let said = vec![crate::report::Said::Tasks(vec!["x".repeat(crate::VALUE_BYTES_MAX + 1)])];
    world.end_with(world.attempt_of(0), End::Done, Report { said, ..Report::default() });
    let why = world.bag.task(0).unwrap().evidence.unwrap().end.to_string();
    assert!(why.contains("at most 65536"), "{why}");
    assert_eq!(world.bag.counts().all(), 2, "and nothing was added");
}

fn checked(mut draft: Draft, accept: Accept, spot_millionths: u32) -> Draft {
    draft.settings.replicas = 1;
    draft.settings.checks = Checks { accept, spot_millionths, ..Checks::default() };
    draft
}

#[test]
fn a_majority_compares_results_of_different_nodes_and_forgets_none_when_the_keeper_dies() {
    let mut world = World::new(checked(draft(vec![shell("a")], &[1]), Accept::Majority { of: 3 }, 0));
    let worker = world.worker();
    let first = world.attempt_of(0);
    world.end_as(first, End::Done, Report::default(), b"a lie");
    assert!(world.running.is_empty(), "one node has one vote");
    let why = world.bag.explain(0).unwrap();
    assert!(why.contains("waits for that of another node"), "{why}");
    world.write_all();
    let mut world = world.born();
    assert!(world.dropped.is_empty(), "what it brought is still of use");
    world.next_worker = worker;
    world.worker();
    assert!(world.running.is_empty(), "it has voted, although in an earlier life");
    let needs = shell("a").needs();
    assert_eq!(world.bag.avoided(&needs), [node_of(worker)], "no more of its slots are asked for");
    let why = world.bag.lacks_nodes(&needs).unwrap();
    assert!(why.contains("2 different nodes") && why.contains(&format!("`n{worker}`")), "{why}");
    for _ in 0..2 {
        world.worker();
        world.end(world.attempt_of(0), End::Done);
    }
    world.write_all();
    let (attempt, node, _) = world.bag.task(0).unwrap().result().unwrap();
    assert_eq!((world.verdict(0), world.dropped.as_slice()), (Verdict::Done, &[first, attempt + 1][..]));
    assert_eq!((node, world.settled[&0].as_slice()), ("n2", &[attempt][..]));
    assert!(world.over);
    let outvoted: Vec<_> =
        world.trust.standings.iter().map(|(node, known)| (*node, known.outvoted)).collect();
    assert_eq!(outvoted, [(node_of(worker), 1)]);
}

/// A bag of `a` with a known answer, which adds a task, and `b` after it; as many spot checks as there can be.
fn with_spot_checks() -> Draft {
    let known = |name: &str| Template {
        known: vec![Known { values: Vec::new(), result: content_hash(b"known", [], "") }],
        ..shell(name)
    };
    let templates = vec![known("a"), Template { after: vec![0], ..shell("b") }];
    checked(draft(templates, &[2, 1]), Accept::First, 500_000)
}

#[test]
fn what_rests_on_the_word_of_a_node_that_is_caught_is_done_again() {
    let mut world = World::new(with_spot_checks());
    world.worker();
    // The liar knows the right answers of tasks, but not that of the question.
    let added = crate::Added {
        command: Some(crate::AddedCommand::Shell("true".into())),
        like: Some("a".into()),
        ..crate::Added::default()
    };
    for _ in 0..100 {
        let Some((&attempt, _)) = world.running.first_key_value() else { break };
        if world.bag.is_check(attempt) && world.bag.counts().done > 0 {
            break;
        }
        let (result, report) = match world.bag.is_check(attempt) {
            true => (&b"known"[..], Report::default()),
            false => (&b"right"[..], Report { added: vec![added.clone()], ..Report::default() }),
        };
        world.end_as(attempt, End::Done, report, result);
        world.write_all();
        // One task at most is done.
        if world.bag.counts().done > 0 {
            while let Some((&attempt, _)) = world.running.first_key_value()
                && !world.bag.is_check(attempt)
            {
                world.end(attempt, End::NotBegun("no lease".into()));
            }
        }
    }
    assert_eq!((world.bag.counts().done, world.bag.counts().all()), (1, 4), "one was added");
    let check = *world.running.first_key_value().unwrap().0;
    assert!(world.bag.is_check(check));
    world.end_as(check, End::Done, Report::default(), b"anything");
    world.write_all();
    assert_eq!(world.bag.caught().map(|(_, name)| name).collect::<Vec<_>>(), ["n1"]);
    assert_eq!((world.bag.counts().done, world.bag.counts().all(), world.bag.counts().withdrawn), (0, 3, 1));
    assert_eq!(world.given_back, [1], "it is given nothing any more");
    assert_eq!(world.bag.avoided(&shell("a").needs()), [node_of(1)]);
    // A keeper that goes on knows it too, from the journal or from what it keeps of nodes.
    let mut world = world.born();
    world.next_worker = 4;
    let liar = world.worker();
    assert!(world.running.is_empty() && world.given_back.contains(&liar));
    world.worker();
    for _ in 0..100 {
        let Some((&attempt, _)) = world.running.first_key_value() else { break };
        let result = if world.bag.is_check(attempt) { &b"known"[..] } else { &b"right"[..] };
        world.end_as(attempt, End::Done, Report::default(), result);
        world.write_all();
    }
    assert!(world.over && world.bag.counts().done == 3, "{:?}", world.bag.counts());
    assert!(world.bag.tasks().all(|task| task.result().is_none_or(|(_, node, _)| node == "n2")));
}

#[test]
fn a_shrunk_journal_keeps_votes_voters_and_liars() {
    let mut world = World::new(checked(draft(vec![shell("a")], &[2]), Accept::Majority { of: 3 }, 0));
    world.worker();
    world.worker();
    for task in [0, 0, 1] {
        world.end(world.attempt_of(task), End::Done);
    }
    world.write_all();
    world.bag.caught.insert(node_of(0), "n0".into());
    let before = (world.bag.votes.clone(), world.bag.caught.clone(), world.bag.explain(0));
    world.disk = world.bag.shrink().collect();
    let world = world.born();
    assert_eq!(before, (world.bag.votes.clone(), world.bag.caught.clone(), world.bag.explain(0)));
    assert!(before.2.unwrap().contains("2 nodes have brought the same"));
}

#[test]
fn a_task_that_was_cancelled_before_a_result_counted_stays_cancelled() {
    let (a, b) = (shell("a"), Template { after: vec![0], ..shell("b") });
    let mut world = World::new(draft(vec![a, b], &[2, 1]));
    world.tell(Input::Cancel(0));
    world.worker();
    world.end(world.attempt_of(1), End::Done);
    // Task 1 is not done before its record is on the disk, so 2 still waits, and is cancelled.
    world.tell(Input::Cancel(2));
    world.write_all();
    let mut world = world.born();
    assert_eq!(world.verdict(2), Verdict::Cancelled);
    world.tell(Input::Again(0));
    assert_eq!(world.verdict(2), Verdict::Cancelled);
}

#[test]
fn a_vote_of_a_node_that_was_caught_since_is_not_waited_for() {
    let mut world = World::new(checked(draft(vec![shell("a")], &[1]), Accept::Majority { of: 3 }, 0));
    for _ in 0..3 {
        world.worker();
    }
    for (attempt, result) in [(1, b"right"), (2, b"a lie")] {
        world.end_as(attempt, End::Done, Report::default(), result);
    }
    world.write_all();
    // That it was caught has come to where it is kept, and not into the journal.
    world.learn(node_of(2), NodeStanding { passed: 0, failed: 1, outvoted: 0 });
    let mut world = world.born();
    world.next_worker = 3;
    world.worker();
    world.end(world.attempt_of(0), End::Done);
    world.write_all();
    assert_eq!(world.verdict(0), Verdict::Done);
}

#[test]
fn a_vote_counts_once_for_a_task_that_was_open_twice_before_the_keeper_ended() {
    let mut world = World::new(checked(draft(vec![shell("a")], &[1]), Accept::Majority { of: 3 }, 0));
    world.tell(Input::Cancel(0));
    world.tell(Input::Again(0));
    world.worker();
    world.end(world.attempt_of(0), End::Done);
    world.write_all();
    let mut world = world.born();
    world.worker();
    world.end(world.attempt_of(0), End::Done);
    world.write_all();
    assert_eq!(world.verdict(0), Verdict::Done);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn a_bag_whose_results_are_checked_comes_to_its_end_whatever_fails_and_lies(
        majority in any::<bool>(),
        chances in prop::collection::vec((chance(), any::<u8>()), 0..100),
    ) {
        let mut draft = with_spot_checks();
        if majority {
            draft.settings.checks.accept = Accept::Majority { of: 3 };
        }
        let mut world = World::new(draft);
        for (chance, lie) in chances {
            match (chance, world.running.first_key_value().map(|(attempt, _)| *attempt)) {
                // Node 0 lies, sometimes also when it is checked.
                (Chance::Ends(..), Some(attempt)) if lie < 100 => {
                    let lies = node_of(world.running[&attempt].1) == node_of(0) && lie < 50;
                    let right = if world.bag.is_check(attempt) { &b"known"[..] } else { &b"right"[..] };
                    let result = if lies { &b"a lie"[..] } else { right };
                    world.end_as(attempt, End::Done, Report::default(), result);
                }
                (Chance::Ends(..), _) => {}
                (chance, _) => world = happen(world, chance),
            }
        }
        for _ in 0..600 {
            world.write_all();
            if world.bag.is_over() {
                break;
            }
            // Workers that have nothing to do make room for those of other nodes.
            if world.running.is_empty() {
                world = happen(world, Chance::Time);
            }
            if world.bag.workers() < 6 {
                world.worker();
            }
            for worker in std::mem::take(&mut world.given_back) {
                world.tell(Input::WorkerDown(worker));
            }
            let ids: Vec<u64> = world.running.keys().copied().collect();
            for attempt in ids.into_iter().filter(|attempt| world.running.contains_key(attempt)).collect::<Vec<_>>() {
                let right = if world.bag.is_check(attempt) { &b"known"[..] } else { &b"right"[..] };
                world.end_as(attempt, End::Done, Report::default(), right);
            }
        }
        prop_assert!(world.bag.is_over(), "{:?} {:?}", world.bag.counts(), world.bag.votes);
        for (task, attempts) in &world.settled {
            if let Some((attempt, ..)) = world.bag.task(*task).and_then(|task| task.result()) {
                prop_assert_eq!(attempts.last(), Some(&attempt));
            }
        }
    }
}

#[test]
fn another_keeper_goes_on_with_what_runs_and_begins_nothing_of_it_again() {
    let mut draft = draft(vec![shell("a")], &[3]);
    draft.settings.replicas = 1;
    let mut world = World::new(draft);
    for _ in 0..3 {
        world.worker();
    }
    world.end(world.attempt_of(0), End::Done);
    world.write_all();
    let attempts = [world.attempt_of(1), world.attempt_of(2)];
    assert_eq!(world.bag.left().len(), 3, "also where nothing runs");
    let kept = attempts[0];
    let mut world = world.born_of(|attempt| attempt == kept);
    assert_eq!(world.running.keys().copied().collect::<Vec<_>>()[0], kept);
    assert_eq!(world.attempt_of(1), kept);
    assert_ne!(world.attempt_of(2), attempts[1], "what was not found began again, on a lease that was left");
    assert_eq!(world.dropped, [attempts[1]]);
    // The journal says so too: it can be read, and written anew, and a third keeper goes on with the same.
    world.write_all();
    world.disk = world.bag.shrink().collect();
    let before = world.bag.left();
    let mut world = world.born_of(|_| true);
    assert_eq!(before.iter().map(|left| left.attempts.len()).collect::<Vec<_>>(), [1, 1, 0]);
    assert_eq!((world.attempt_of(1), world.running.len()), (kept, 2));
    world.end(kept, End::Done);
    world.end(world.attempt_of(2), End::Done);
    world.write_all();
    assert!(world.over && world.settled[&1] == [kept]);
}

#[test]
fn a_question_whose_answer_is_known_is_asked_anew_by_the_next_keeper() {
    let mut world = World::new(with_spot_checks());
    world.worker();
    while let Some((&attempt, _)) = world.running.first_key_value()
        && !world.bag.is_check(attempt)
    {
        world.end(attempt, End::NotBegun("no lease".into()));
    }
    world.write_all();
    assert!(world.bag.left().iter().all(|left| left.attempts.is_empty()));
}
