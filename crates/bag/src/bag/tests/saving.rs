//! State that attempts save.

use super::*;
use std::time::Duration;

impl World {
    /// The attempt saves state; whether it is kept.
    pub(super) fn save(&mut self, attempt: u64) -> bool {
        // The time at which it will be told.
        if self.bag.takes_state(Tick(self.now.0 + 1000), attempt) != Taking::Keeps {
            return false;
        }
        let content = Span { offset: self.outputs, bytes: 10 };
        self.outputs += 10;
        self.tell(Input::Saved { attempt, content });
        true
    }

    fn saved(&self, task: u32) -> Option<(u64, u64)> {
        self.bag.saved(task).map(|saved| (saved.attempt, saved.content.offset))
    }

    fn runs_for(&mut self, time: Duration) {
        self.now = self.now + time;
    }
}

/// What the next attempt of a task begins with is there.
pub(super) fn check(world: &World) {
    for task in world.bag.tasks() {
        let Some(saved) = task.saved else { continue };
        assert!(!world.freed.contains(&saved.content), "the state of task {} is gone", task.number);
        assert!(task.verdict != Verdict::Done, "task {} is done, and keeps state", task.number);
    }
}

fn one_task() -> Draft {
    draft(vec![Template { retries: 9, checkpoint: Some("state".into()), ..shell("a") }], &[1])
}

#[test]
fn the_next_attempt_begins_with_what_was_saved_last_and_the_state_goes_when_the_task_is_done() {
    let mut world = World::new(one_task());
    world.worker();
    let first = world.attempt_of(0);
    assert!(world.save(first) && world.save(first));
    assert!(world.freed.is_empty(), "until the second is on the disk, the first is the truth");
    world.write_all();
    assert_eq!((world.saved(0), world.freed.len()), (Some((first, 10)), 1));
    world.end(first, End::Code(1));
    let second = world.attempt_of(0);
    assert_eq!(world.saved(0), Some((first, 10)), "it begins with that");
    world.end(second, End::Done);
    assert!(!world.save(second), "it is over");
    world.write_all();
    assert_eq!((world.saved(0), world.freed.len()), (None, 2));
}

#[test]
fn state_outlives_the_keeper_once_it_is_on_the_disk_and_the_journal_written_anew() {
    let mut world = World::new(one_task());
    world.worker();
    let first = world.attempt_of(0);
    world.save(first);
    world.write_all();
    world.save(first);
    let mut world = world.born();
    assert_eq!(world.saved(0), Some((first, 0)), "the second was not on the disk");
    assert!(world.freed.is_empty());
    world.disk = world.bag.shrink().collect();
    let before = world.bag.saved(0).copied();
    let mut world = world.born();
    assert_eq!(world.bag.saved(0).copied(), before);
    world.worker();
    assert!(world.attempt_of(0) > first, "numbers of attempts are not used again");
}

#[test]
fn a_task_that_is_given_up_keeps_its_state_for_when_it_is_tried_again() {
    let mut world = World::new(draft(vec![shell("a")], &[1]));
    world.worker();
    let first = world.attempt_of(0);
    world.save(first);
    world.end(first, End::TimeLimit);
    world.write_all();
    assert_eq!((world.verdict(0), world.saved(0)), (Verdict::Failed, Some((first, 0))));
    world.tell(Input::Again(0));
    assert_eq!(world.verdict(0), Verdict::Running);
    assert_eq!(world.saved(0), Some((first, 0)));
    world.end(world.attempt_of(0), End::Code(1));
    world.write_all();
    world.tell(Input::Afresh(0));
    assert_eq!((world.verdict(0), world.saved(0)), (Verdict::Running, None));
    assert!(world.freed.is_empty(), "it is not on the disk");
    world.write_all();
    assert_eq!(world.freed.len(), 1);
    assert_eq!(world.born().saved(0), None);
}

#[test]
fn of_two_attempts_at_once_the_state_counts_for_which_the_task_has_run_longest() {
    let mut world = World::new(one_task());
    world.worker();
    let first = world.attempt_of(0);
    world.runs_for(Duration::from_secs(10));
    // A copy, which begins afresh since nothing was saved.
    world.worker();
    let copy = *world.running.keys().find(|attempt| **attempt != first).unwrap();
    world.runs_for(Duration::from_secs(5));
    assert!(world.save(copy), "there is nothing better");
    world.runs_for(Duration::from_secs(1));
    assert!(world.save(first));
    assert_eq!(world.saved(0).unwrap().0, first);
    world.runs_for(Duration::from_secs(3));
    assert_eq!(world.bag.takes_state(world.now, copy), Taking::HasBetter, "9 s against 16 s");
    // The first is lost; a third begins with its state, and is ahead of the copy.
    world.end(first, End::NodeLost("gone".into()));
    world.worker();
    let third = *world.running.keys().find(|attempt| **attempt != copy).unwrap();
    world.runs_for(Duration::from_secs(2));
    assert!(world.save(third));
    let worked_ms = world.bag.saved(0).unwrap().worked_ms;
    assert!((18_000..19_000).contains(&worked_ms), "{worked_ms} ms");
    assert_eq!(world.bag.takes_state(world.now, copy), Taking::HasBetter);
}

#[test]
fn votes_begin_afresh_and_spot_checks_save_nothing() {
    let mut draft = checked(one_task(), Accept::Majority { of: 3 }, 0);
    draft.settings.checks.spot_millionths = 0;
    let mut world = World::new(draft);
    world.worker();
    let first = world.attempt_of(0);
    assert!(!world.bag.keeps_state());
    let Taking::Refuses(why) = world.bag.takes_state(world.now, first) else { panic!("it is not kept") };
    assert!(why.contains("begins afresh"), "{why}");
    world.tell(Input::Saved { attempt: first, content: Span { offset: 0, bytes: 10 } });
    assert_eq!((world.saved(0), world.freed.len()), (None, 1));
    world.end(first, End::Code(1));
    world.write_all();
    assert_eq!(world.born().saved(0), None);
}
