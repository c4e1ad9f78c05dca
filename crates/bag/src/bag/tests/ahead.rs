//! Short tasks that wait at their worker.

use super::*;
use crate::template::Program;
use std::time::Duration;

impl World {
    fn waits(&mut self, time: Duration) {
        self.now = self.now + time;
        self.tell(Input::Time);
    }

    /// Attempts that have begun and are not to be ended.
    fn wanted(&self) -> usize {
        self.running.keys().filter(|attempt| !self.killed.contains(attempt)).count()
    }

    /// The first of those that run ends well; a world's step takes a millisecond.
    fn first_ends(&mut self) {
        let first = *self.running.keys().next().unwrap();
        self.end(first, End::Done);
    }
}

/// So many tasks, each an operation of a program.
fn operations(count: usize) -> Draft {
    let work = Work::Operation { name: "f".into(), argument: Words::default(), as_bytes: false };
    let mut draft = draft(vec![Template::new("f", work)], &[count]);
    draft.settings.program = Some(Program::new("p"));
    draft
}

#[test]
fn short_tasks_wait_at_their_worker_and_go_elsewhere_when_one_is_long() {
    for draft in [operations(100), draft(vec![shell("a")], &[100])] {
        wait_and_go_elsewhere(World::new(draft));
    }
}

fn wait_and_go_elsewhere(mut world: World) {
    world.worker();
    assert_eq!(world.wanted(), 1, "nothing is known of it yet");
    world.first_ends();
    assert!((2..=21).contains(&world.wanted()), "{}: some milliseconds of work", world.wanted());
    let due = world.bag.deadline().unwrap();
    world.now = due;
    world.killed.clear();
    let (first, behind) = (*world.running.keys().next().unwrap(), world.wanted() - 1);
    world.tell(Input::Time);
    assert_eq!(world.killed.len(), behind, "all but the one that runs");
    assert!(!world.killed.contains(&first));
    for attempt in world.killed.clone() {
        world.end(attempt, End::Killed);
    }
    assert_eq!(world.running.len(), 1, "none waits behind a long one");
    world.waits(Duration::from_secs(5));
    world.worker();
    assert_eq!(world.running.len(), 2, "another worker takes one of them");
    // The long one tells how long a task takes.
    world.end(first, End::Done);
    assert_eq!(world.running.len(), 2);
    while !world.running.is_empty() {
        world.first_ends();
        world.write_all();
    }
    assert!((0..100).all(|task| world.settled[&task].len() == 1), "each once");
}

#[test]
fn tasks_whose_results_are_compared_do_not_wait_at_a_worker() {
    let mut draft = operations(10);
    draft.settings.checks = Checks { accept: Accept::Majority { of: 3 }, ..Checks::default() };
    let mut world = World::new(draft);
    world.worker();
    for _ in 0..5 {
        assert_eq!(world.running.len(), 1);
        world.first_ends();
    }
}

#[test]
fn a_worker_whose_results_come_in_bunches_has_as_much_to_do_as_any() {
    let mut world = World::new(operations(1000));
    world.worker();
    world.first_ends();
    let (mut began, mut depths) = (world.now, Vec::new());
    for bunch in 0..20 {
        if bunch == 10 {
            (began, depths) = (world.now, Vec::new());
        }
        // Some milliseconds, and what was done in them at a time.
        world.now = Tick(world.now.0 + 4000);
        let done: Vec<u64> = world.running.keys().copied().take(5).collect();
        for attempt in done {
            world.now = Tick(world.now.0 - 1000);
            world.end(attempt, End::Done);
        }
        depths.push(world.wanted() as f64);
    }
    let wanted = 20_000.0 / ((world.now - began).as_micros() as f64 / 50.0);
    assert!(
        depths.iter().all(|depth| (0.8..1.25).contains(&(depth / wanted))),
        "{depths:?}, {wanted} wanted"
    );
}

#[test]
fn a_journal_is_written_anew_after_as_many_records_as_there_are_tasks() {
    let mut world = World::new(operations(30_000));
    let mut anew = 0;
    world.worker();
    for _ in 0..30_000 {
        world.first_ends();
        world.write_all();
        if world.bag.is_long() {
            let _ = world.bag.shrink().count();
            anew += 1;
        }
    }
    assert!((1..=4).contains(&anew), "{anew} times");
}
