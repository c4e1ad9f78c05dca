//! Whatever happens, in whatever order: no task is lost, none runs where it does not fit or twice on one
//! worker, none is started when it is over, and no attempt has the number of another.

use mutirao_schedule::bag::{Event, Input, NAMES, Needs, Order, Outcome, Scheduler, Task, by_name};
use mutirao_wire::node::Resource;
use mutirao_wire::{BlobHash, Tick};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// What the world does; numbers choose among what is there.
#[derive(Debug, Clone)]
enum Step {
    Ready { needs: u8, priority: i8, votes: u8, inputs: u8 },
    Gone(u16),
    Up { site: u8, offers: u8, ahead: u8 },
    Leaves(u16),
    Down(u16),
    Ended { which: u16, outcome: u8 },
    Blob { site: u8, blob: u8, there: bool },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (any::<u8>(), any::<i8>(), any::<u8>(), any::<u8>())
            .prop_map(|(needs, priority, votes, inputs)| Step::Ready { needs, priority, votes, inputs }),
        1 => any::<u16>().prop_map(Step::Gone),
        3 => (0_u8..5, any::<u8>(), 0_u8..3).prop_map(|(site, offers, ahead)| Step::Up { site, offers, ahead }),
        1 => any::<u16>().prop_map(Step::Leaves),
        1 => any::<u16>().prop_map(Step::Down),
        8 => (any::<u16>(), any::<u8>()).prop_map(|(which, outcome)| Step::Ended { which, outcome }),
        2 => (0_u8..5, 0_u8..4, any::<bool>()).prop_map(|(site, blob, there)| Step::Blob { site, blob, there }),
    ]
}

fn needs(drawn: u8) -> Needs {
    let gpus = u32::from(drawn >> 4 & 1);
    let resources = vec![Resource { name: "gpu".into(), amount: gpus }];
    Needs { slots: u16::from(drawn % 3 + 1), memory_mib: u32::from(drawn >> 2 & 3) * 100, resources }.normal()
}

#[derive(Debug, Clone)]
struct Attempt {
    task: u64,
    worker: u64,
    killed: bool,
}

/// The other side of the scheduler, with books of its own.
struct Engine {
    scheduler: Scheduler,
    now: u64,
    at_once: usize,
    tasks: BTreeMap<u64, (Needs, u8)>,
    voted: BTreeMap<u64, BTreeSet<u32>>,
    workers: BTreeMap<u64, (u32, Needs, u16)>,
    leaving: BTreeSet<u64>,
    attempts: BTreeMap<u64, Attempt>,
    committed: BTreeSet<u64>,
    next: u64,
    last_attempt: u64,
}

impl Engine {
    fn new(name: &str, at_once: u32) -> Engine {
        Engine {
            scheduler: Scheduler::new(by_name(name, at_once).expect("a known name"), 1),
            now: 0,
            at_once: at_once as usize,
            tasks: BTreeMap::new(),
            voted: BTreeMap::new(),
            workers: BTreeMap::new(),
            leaving: BTreeSet::new(),
            attempts: BTreeMap::new(),
            committed: BTreeSet::new(),
            next: 0,
            last_attempt: 0,
        }
    }

    fn tell(&mut self, event: Event) {
        self.now += 1;
        let mut orders = Vec::new();
        self.scheduler.handle(Tick(self.now), event, &mut orders);
        self.scheduler.place(Tick(self.now), &mut orders);
        orders.into_iter().for_each(|order| self.obey(order));
        assert_eq!(self.scheduler.unfinished(), self.attempts.len());
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Start { task, attempt, worker } => {
                assert!(attempt > self.last_attempt, "attempt {attempt} had its number before");
                self.last_attempt = attempt;
                let (needs, votes) = self.tasks.get(&task).expect("only tasks that are not over run");
                let (site, offers, ahead) =
                    self.workers.get(&worker).expect("only on workers that are there");
                assert!(!self.leaving.contains(&worker), "nothing more where a lease is given back");
                assert!(offers.cover(needs), "only where it fits");
                let of_task: Vec<_> = self.running().filter(|(_, one)| one.task == task).collect();
                assert!(of_task.iter().all(|(_, one)| one.worker != worker), "twice on one worker");
                let voted = self.voted.get(&task);
                assert!(voted.is_none_or(|sites| !sites.contains(site)), "a second vote of one site");
                if *votes > 1 {
                    assert!(of_task.iter().all(|(_, one)| self.workers[&one.worker].0 != *site));
                }
                let wanted = usize::from(*votes) - voted.map_or(0, BTreeSet::len).min(usize::from(*votes));
                assert!(of_task.len() < wanted.max(1) + self.at_once - 1, "more copies than may be");
                self.attempts.insert(attempt, Attempt { task, worker, killed: false });
                let there = self.attempts.values().filter(|one| one.worker == worker);
                let slots: u32 = there.clone().map(|one| u32::from(self.slots(one))).sum();
                let most = u32::from(offers.slots) + u32::from(*ahead) * 3;
                assert!(slots <= most, "{slots} slots on a worker of {offers:?} and {ahead} ahead");
            }
            Order::Kill { attempt } => {
                let attempt = self.attempts.get_mut(&attempt).expect("only what runs is killed");
                assert!(!attempt.killed, "once");
                attempt.killed = true;
            }
        }
    }

    /// Tasks that are over have left no trace of their needs here: they count one slot.
    fn slots(&self, attempt: &Attempt) -> u16 {
        self.tasks.get(&attempt.task).map_or(1, |(needs, _)| needs.slots)
    }

    fn running(&self) -> impl Iterator<Item = (&u64, &Attempt)> {
        self.attempts.iter().filter(|(_, attempt)| !attempt.killed)
    }

    fn ready(&mut self, what: u8, priority: i8, votes: u8, inputs: u8) {
        let (task, needs, votes) = (self.next, needs(what), if votes > 200 { 2 } else { 1 });
        self.next += 1;
        self.tasks.insert(task, (needs.clone(), votes));
        let reads = (0..4).filter(|bit| inputs >> bit & 1 == 1);
        let inputs = reads.map(|bit| Input { blob: BlobHash([bit; 32]), bytes: 1 << bit }).collect();
        let priority = i32::from(priority / 64);
        self.tell(Event::TaskReady(Task { task, needs, priority, votes, inputs: Some(inputs) }));
    }

    fn up(&mut self, site: u8, offers: u8, ahead: u8) {
        let worker = self.next;
        self.next += 1;
        let (offers, ahead) = (needs(offers), u16::from(ahead));
        self.workers.insert(worker, (site.into(), offers.clone(), ahead));
        self.tell(Event::WorkerUp { worker, site: site.into(), offers, ahead });
    }

    fn down(&mut self, worker: u64) {
        self.workers.remove(&worker);
        self.attempts.retain(|_, attempt| attempt.worker != worker);
        self.tell(Event::WorkerDown(worker));
    }

    fn ended(&mut self, number: u64, outcome: u8) {
        let attempt = self.attempts.remove(&number).expect("it was chosen among those that run");
        let (site, ..) = self.workers[&attempt.worker];
        let outcome = match outcome {
            _ if attempt.killed => Outcome::Done,
            0..100 => Outcome::Again,
            100..150 if self.tasks[&attempt.task].1 > 1 => {
                self.voted.entry(attempt.task).or_default().insert(site);
                Outcome::Counted
            }
            _ => {
                assert!(self.committed.insert(attempt.task), "committed twice");
                self.tasks.remove(&attempt.task);
                Outcome::Done
            }
        };
        self.tell(Event::Ended { attempt: number, outcome, brought_bytes: 1 });
    }

    fn act(&mut self, step: &Step) {
        fn choose<K: Copy, V>(of: &BTreeMap<K, V>, which: u16) -> Option<K> {
            of.keys().nth(usize::from(which) % of.len().max(1)).copied()
        }
        match *step {
            Step::Ready { needs, priority, votes, inputs } => self.ready(needs, priority, votes, inputs),
            Step::Gone(which) => {
                if let Some(task) = choose(&self.tasks, which) {
                    self.tasks.remove(&task);
                    self.tell(Event::TaskGone(task));
                }
            }
            Step::Up { site, offers, ahead } => self.up(site, offers, ahead),
            Step::Leaves(which) => {
                if let Some(worker) = choose(&self.workers, which) {
                    self.leaving.insert(worker);
                    self.tell(Event::WorkerLeaves(worker));
                }
            }
            Step::Down(which) => {
                if let Some(worker) = choose(&self.workers, which) {
                    self.down(worker);
                }
            }
            Step::Ended { which, outcome } => {
                if let Some(attempt) = choose(&self.attempts, which) {
                    self.ended(attempt, outcome);
                }
            }
            Step::Blob { site, blob, there } => {
                let (site, blob) = (site.into(), BlobHash([blob; 32]));
                let event = if there { Event::BlobAt { site, blob } } else { Event::BlobGone { site, blob } };
                self.tell(event);
            }
        }
    }

    /// From now on nothing goes wrong and there is room for all: every task comes to its end.
    fn settle(&mut self) {
        for site in 10..13 {
            let resources = vec![Resource { name: "gpu".into(), amount: 4 }];
            let offers = Needs { slots: 4, memory_mib: 1000, resources };
            let worker = self.next;
            self.next += 1;
            self.workers.insert(worker, (site, offers.clone(), 0));
            self.tell(Event::WorkerUp { worker, site, offers, ahead: 0 });
        }
        for _ in 0..10_000 {
            let Some(attempt) = self.attempts.keys().next().copied() else { break };
            self.ended(attempt, 255);
        }
        // Those whose votes are in wait for the engine's word.
        let settled: Vec<u64> = self
            .tasks
            .iter()
            .filter(|(task, (_, votes))| self.votes(**task) >= *votes)
            .map(|(task, _)| *task)
            .collect();
        for task in settled {
            self.tasks.remove(&task);
            self.tell(Event::TaskGone(task));
        }
        assert!(self.tasks.is_empty(), "never run: {:?}", self.tasks);
        assert_eq!(self.scheduler.demand().count(), 0);
    }

    fn votes(&self, task: u64) -> u8 {
        self.voted.get(&task).map_or(0, |sites| sites.len() as u8)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn no_task_is_lost_or_runs_where_it_must_not(
        steps in proptest::collection::vec(step(), 1..200),
        name in 0..NAMES.len(),
        at_once in 1_u32..4,
    ) {
        let at_once = if NAMES[name] == "workqueue" { 1 } else { at_once };
        let mut engine = Engine::new(NAMES[name], at_once);
        steps.iter().for_each(|step| engine.act(step));
        engine.settle();
    }
}
