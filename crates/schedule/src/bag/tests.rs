use super::*;
use mutirao_wire::{BlobHash, Tick};

/// A scheduler with a clock and the orders it gave.
struct Stage {
    scheduler: Scheduler,
    now: Tick,
}

impl Stage {
    fn new(name: &str, copies: u32) -> Stage {
        let policy = by_name(name, copies).expect("a known name");
        Stage { scheduler: Scheduler::new(policy, 1), now: Tick(0) }
    }

    fn tell(&mut self, event: Event) -> Vec<Order> {
        self.now.0 += 1_000_000;
        let mut orders = Vec::new();
        self.scheduler.handle(self.now, event, &mut orders);
        self.scheduler.place(self.now, &mut orders);
        orders
    }

    fn ready(&mut self, task: u64) -> Vec<Order> {
        self.tell(Event::TaskReady(Task::new(task)))
    }

    /// A worker of one slot, alone at its site.
    fn up(&mut self, worker: u64) -> Vec<Order> {
        self.tell(Event::WorkerUp { worker, site: worker as u32, offers: Needs::default(), ahead: 0 })
    }

    fn ended(&mut self, attempt: u64, outcome: Outcome) -> Vec<Order> {
        self.tell(Event::Ended { attempt, outcome, brought_bytes: 0 })
    }
}

fn start(task: u64, attempt: u64, worker: u64) -> Order {
    Order::Start { task, attempt, worker }
}

#[test]
fn tasks_go_in_order_of_priority_and_number() {
    let mut stage = Stage::new("workqueue", 1);
    stage.ready(5);
    stage.ready(3);
    stage.tell(Event::TaskReady(Task { priority: 1, ..Task::new(9) }));
    assert_eq!(stage.up(1), [start(9, 1, 1)]);
    assert_eq!(stage.ended(1, Outcome::Done), [start(3, 2, 1)]);
    assert_eq!(stage.ended(2, Outcome::Again), [start(3, 3, 1)], "what failed runs again");
    assert_eq!(stage.ended(3, Outcome::Done), [start(5, 4, 1)]);
    assert_eq!(stage.ended(4, Outcome::Done), []);
    assert_eq!(stage.scheduler.counts().useful_slot_us, 3_000_000);
    assert_eq!(stage.scheduler.counts().lost_slot_us, 1_000_000);
}

#[test]
fn a_free_worker_copies_what_runs_and_losers_are_killed() {
    let mut stage = Stage::new("wqr", 2);
    stage.ready(1);
    stage.ready(2);
    stage.up(1);
    stage.up(2);
    assert_eq!(stage.up(3), [start(1, 3, 3)], "the one that has run longest");
    assert_eq!(stage.up(4), [start(2, 4, 4)], "the one with fewest copies");
    assert_eq!(stage.up(5), [], "two at once are enough");
    assert_eq!(stage.ended(3, Outcome::Done), [Order::Kill { attempt: 1 }]);
    assert_eq!(stage.ended(1, Outcome::Again), [], "what was killed does not wait again");
    let counts = stage.scheduler.counts();
    assert_eq!((counts.attempts, counts.copies), (4, 2));
    assert_eq!((counts.useful_slot_us, counts.copies_slot_us), (3_000_000, 6_000_000));
    assert_eq!(counts.wasted_time(), 2.0);
}

#[test]
fn a_lost_worker_costs_what_ran_there_and_nothing_else() {
    let mut stage = Stage::new("wqr", 2);
    stage.ready(1);
    stage.up(1);
    assert_eq!(stage.up(2), [start(1, 2, 2)]);
    assert_eq!(stage.tell(Event::WorkerDown(1)), [], "its copy goes on");
    assert_eq!(stage.tell(Event::WorkerLeaves(2)), []);
    assert_eq!(stage.up(3), [start(1, 3, 3)]);
    assert_eq!(stage.tell(Event::WorkerDown(3)), []);
    assert_eq!(stage.tell(Event::WorkerDown(2)), []);
    assert_eq!(stage.up(4), [start(1, 4, 4)]);
}

#[test]
fn a_task_goes_only_where_its_needs_are_met() {
    let mut stage = Stage::new("wqr", 2);
    let needs = Needs { slots: 3, memory_mib: 100, resources: Vec::new() };
    stage.tell(Event::TaskReady(Task { needs, ..Task::new(1) }));
    stage.ready(2);
    assert_eq!(stage.up(1), [start(2, 1, 1)]);
    let offers = Needs { slots: 4, memory_mib: 50, resources: Vec::new() };
    assert_eq!(
        stage.tell(Event::WorkerUp { worker: 2, site: 2, offers, ahead: 0 }),
        [start(2, 2, 2)],
        "too little memory for the large one, which can wait for ever"
    );
    let offers = Needs { slots: 4, memory_mib: 100, resources: Vec::new() };
    assert_eq!(stage.tell(Event::WorkerUp { worker: 3, site: 3, offers, ahead: 0 }), [start(1, 3, 3)]);
    let demand: Vec<_> = stage.scheduler.demand().collect();
    assert!(demand.is_empty());
}

#[test]
fn no_copy_takes_the_room_that_a_waiting_task_needs() {
    let mut stage = Stage::new("wqr", 2);
    let two = Needs { slots: 2, ..Needs::default() };
    stage.ready(1);
    stage.up(1);
    stage.ready(2);
    let large = Event::WorkerUp { worker: 2, site: 2, offers: two.clone(), ahead: 0 };
    assert_eq!(stage.tell(large)[0], start(2, 2, 2));
    stage.tell(Event::TaskReady(Task { needs: two, ..Task::new(3) }));
    assert_eq!(stage.ended(3, Outcome::Again), [], "one slot is free there, but not for a copy again");
    assert_eq!(stage.up(3), [start(1, 4, 3)], "too small for what waits: may copy");
    let demand: Vec<_> = stage.scheduler.demand().map(|(needs, tasks)| (needs.slots, tasks)).collect();
    assert_eq!(demand, [(2, 1)]);
}

#[test]
fn votes_come_from_different_sites() {
    let mut stage = Stage::new("wqr", 2);
    stage.tell(Event::TaskReady(Task { votes: 2, ..Task::new(1) }));
    let up = |worker, site| Event::WorkerUp { worker, site, offers: Needs::default(), ahead: 0 };
    assert_eq!(stage.tell(up(1, 1)), [start(1, 1, 1)]);
    assert_eq!(stage.tell(up(2, 1)), [], "the same site");
    assert_eq!(stage.ended(1, Outcome::Counted), []);
    assert_eq!(stage.tell(up(3, 2)), [start(1, 2, 3)]);
    assert_eq!(stage.scheduler.counts().copies, 0);
    assert_eq!(stage.ended(2, Outcome::Counted), []);
    assert_eq!(stage.tell(up(4, 3)), [], "the votes are in");
    assert_eq!(stage.tell(Event::Votes { task: 1, votes: 3 }), [start(1, 3, 4)]);
    assert_eq!(stage.ended(3, Outcome::Done), []);
}

#[test]
fn short_tasks_wait_at_the_worker() {
    let mut stage = Stage::new("wqr", 2);
    for task in 1..=4 {
        stage.ready(task);
    }
    let up = |worker| Event::WorkerUp { worker, site: 1, offers: Needs::default(), ahead: 1 };
    assert_eq!(stage.tell(up(1)), [start(1, 1, 1), start(2, 2, 1)]);
    assert_eq!(stage.tell(up(2)), [start(3, 3, 2), start(4, 4, 2)]);
    assert_eq!(stage.ended(1, Outcome::Done), [], "nothing waits, and no copy waits behind");
    assert_eq!(stage.ended(2, Outcome::Done), [start(3, 5, 1)]);
    assert_eq!(stage.scheduler.counts().useful_slot_us, 2_000_000 + 1_000_000);
}

#[test]
fn a_new_engine_adopts_what_runs() {
    let mut stage = Stage::new("wqr", 2);
    let mut orders = Vec::new();
    let up = Event::WorkerUp { worker: 1, site: 1, offers: Needs::default(), ahead: 0 };
    for event in [up, Event::TaskReady(Task::new(1)), Event::Adopted { task: 1, attempt: 41, worker: 1 }] {
        stage.scheduler.handle(stage.now, event, &mut orders);
    }
    stage.scheduler.place(stage.now, &mut orders);
    assert_eq!(orders, []);
    assert_eq!(stage.up(2), [start(1, 42, 2)]);
    assert_eq!(stage.ended(41, Outcome::Done), [Order::Kill { attempt: 42 }]);
    assert_eq!(stage.scheduler.unfinished(), 1);
}

#[test]
fn unknown_names_are_told_the_known_ones() {
    let Err(why) = by_name("best", 2) else { panic!("there is none") };
    assert_eq!(why.to_string(), "there is no scheduler \"best\"; there are wqr, storage-affinity, workqueue");
}

#[test]
fn affinity_is_what_lies_there() {
    let mut stage = Stage::new("wqr", 2);
    let blob = |byte| BlobHash([byte; 32]);
    let inputs = [Input { blob: blob(1), bytes: 10 }, Input { blob: blob(2), bytes: 5 }];
    stage.tell(Event::TaskReady(Task { inputs: Some(inputs.into()), ..Task::new(1) }));
    stage.tell(Event::BlobAt { site: 7, blob: blob(1) });
    stage.tell(Event::BlobAt { site: 7, blob: blob(3) });
    stage.tell(Event::BlobAt { site: 8, blob: blob(2) });
    stage.tell(Event::BlobGone { site: 8, blob: blob(2) });
    let floor = stage.scheduler.floor();
    assert_eq!([7, 8, 9].map(|site| floor.affinity_bytes(1, site)), [10, 0, 0]);
}

/// Three sites of one slot each; what task 1 reads is at site 1, most of what task 2 reads at site 2.
fn data_at_sites() -> Stage {
    let mut stage = Stage::new("storage-affinity", 2);
    let input = |byte, bytes| Input { blob: BlobHash([byte; 32]), bytes };
    let tasks = [(1, vec![input(1, 10)]), (2, vec![input(1, 10), input(2, 90)]), (3, vec![])];
    let mut orders = Vec::new();
    for (task, inputs) in tasks {
        let task = Task { inputs: Some(inputs.into()), ..Task::new(task) };
        stage.scheduler.handle(stage.now, Event::TaskReady(task), &mut orders);
    }
    for site in [1, 2] {
        let blob = BlobHash([site as u8; 32]);
        stage.scheduler.handle(stage.now, Event::BlobAt { site, blob }, &mut orders);
    }
    assert_eq!(orders, []);
    stage
}

#[test]
fn tasks_go_where_their_inputs_are() {
    let mut stage = data_at_sites();
    let mut orders = Vec::new();
    for worker in [3, 2, 1] {
        let up = Event::WorkerUp { worker, site: worker as u32, offers: Needs::default(), ahead: 0 };
        stage.scheduler.handle(stage.now, up, &mut orders);
    }
    stage.scheduler.place(stage.now, &mut orders);
    assert_eq!(orders, [start(2, 1, 2), start(1, 2, 1), start(3, 3, 3)], "the greatest affinity first");
}

#[test]
fn where_nothing_lies_goes_what_loses_least() {
    let mut stage = data_at_sites();
    assert_eq!(stage.up(3), [start(3, 1, 3)]);
    assert_eq!(stage.ended(1, Outcome::Done), [start(1, 2, 3)]);
    stage.tell(Event::TaskReady(Task { priority: 1, ..Task::new(4) }));
    assert_eq!(stage.up(2), [start(4, 3, 2)], "more urgent than what has its inputs there");
    assert_eq!(stage.up(1), [start(2, 4, 1)]);
}

#[test]
fn copies_are_made_only_where_inputs_are() {
    let mut stage = data_at_sites();
    for worker in [3, 4, 5] {
        stage.up(worker);
    }
    assert_eq!(stage.up(6), [], "nothing is there that anybody reads");
    assert_eq!(stage.up(1), [start(1, 4, 1)], "as much of both is there: any");
    assert_eq!(
        stage.tell(Event::BlobAt { site: 6, blob: BlobHash([1; 32]) }),
        [start(2, 5, 6)],
        "it has fewer copies"
    );
    assert_eq!(stage.up(2), [], "two at once are enough");
    assert_eq!(stage.ended(4, Outcome::Done), [Order::Kill { attempt: 2 }]);
}

#[test]
fn what_lies_beyond_the_window_moves_up() {
    let mut stage = Stage::new("storage-affinity", 1);
    let mut orders = Vec::new();
    for task in 0..5000 {
        let inputs = [Input { blob: BlobHash([1; 32]), bytes: 10 }];
        let task = Task { inputs: Some(inputs.into()), priority: i32::from(task == 4999), ..Task::new(task) };
        stage.scheduler.handle(stage.now, Event::TaskReady(task), &mut orders);
    }
    stage.scheduler.handle(stage.now, Event::BlobAt { site: 1, blob: BlobHash([1; 32]) }, &mut orders);
    let mut last = stage.up(1);
    let mut order = Vec::new();
    while let Some(Order::Start { task, attempt, .. }) = last.pop() {
        order.push(task);
        last = stage.ended(attempt, Outcome::Done);
    }
    assert_eq!(order.len(), 5000);
    assert_eq!(order[0], 4999, "the urgent one came into the window");
    assert!(order[1..].is_sorted());
}

#[test]
fn tasks_are_spread_over_sites() {
    for name in ["workqueue", "wqr", "storage-affinity"] {
        let mut stage = Stage::new(name, 1);
        let mut orders = Vec::new();
        // Three slots at site 0, then three at site 1.
        for worker in 0..6 {
            let up = Event::WorkerUp { worker, site: worker as u32 / 3, offers: Needs::default(), ahead: 0 };
            stage.scheduler.handle(stage.now, up, &mut orders);
        }
        let inputs = |task| Some(vec![Input { blob: BlobHash([task as u8; 32]), bytes: 10 }].into());
        for task in 1..=4 {
            let task = Task { inputs: inputs(task), ..Task::new(task) };
            stage.scheduler.handle(stage.now, Event::TaskReady(task), &mut orders);
        }
        stage.scheduler.place(stage.now, &mut orders);
        assert_eq!(orders, [start(1, 1, 0), start(2, 2, 3), start(3, 3, 1), start(4, 4, 4)], "{name}");
        stage.ended(2, Outcome::Done);
        stage.ended(4, Outcome::Done);
        assert_eq!(stage.ready(5), [start(5, 5, 3)], "{name}: nothing is there any more");
        stage.tell(Event::WorkerDown(0));
        assert_eq!(stage.ready(6).last(), Some(&start(6, 7, 4)), "{name}: task 1 began again at site 0");
    }
}
