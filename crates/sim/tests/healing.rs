//! Pools heal, also those that were cut in two: how fast, and what is remembered and forgotten.

use core::time::Duration;
use mutirao_sim::{Options, World};
use mutirao_tree::{Input, Settings};
use mutirao_wire::Tick;

const MINUTE: Duration = Duration::from_secs(60);
/// A loss is noticed and healed within this, with the standard beats.
const HEALED: Duration = Duration::from_secs(2);
/// Parts that can reach each other again are one tree within this, however long they were apart: the
/// longest pause, a dial that is lost just before, and the attempt itself.
const MERGED: Duration = Duration::from_secs(2);

fn world(seed: u64, fan_out: usize) -> World {
    let settings = Settings { fan_out, ..Settings::default() };
    World::new(Options { seed, settings, beats: true, ..Options::default() })
}

/// A tree of `count` nodes with two slots each, left to find their places.
fn formed(seed: u64, fan_out: usize, count: usize) -> World {
    let mut world = world(seed, fan_out);
    world.grow(count, 2, false, |n| (n > 0).then_some(0));
    world.run(Duration::from_secs(20));
    world.check_quiet().unwrap();
    world
}

/// Time until all that are up are one tree with right sums.
#[track_caller]
fn time_to_heal(world: &mut World, patience: Duration) -> Duration {
    let start = world.now();
    let healed = world.run_until(patience, |world| world.check_quiet().is_ok());
    assert!(healed, "after {patience:?}: {:?}", world.check_quiet());
    world.now() - start
}

/// The child of the first node with most below it, and all that is there.
fn largest_subtree(world: &World, count: usize) -> (usize, Vec<usize>) {
    let below = |top: usize, n: usize| {
        let mut at = Some(n);
        while let Some(node) = at.filter(|node| *node != top) {
            at = world.parent(node);
        }
        at == Some(top)
    };
    let part = |top: usize| -> Vec<usize> { (0..count).filter(|n| below(top, *n)).collect() };
    let tops = (1..count).filter(|n| world.parent(*n) == Some(0));
    tops.map(|top| (top, part(top))).max_by_key(|(_, part)| part.len()).unwrap()
}

/// Keeps `index` from doing anything for ever.
fn stop(world: &mut World, index: usize) {
    world.crash(index, true);
}

#[test]
fn the_loss_of_any_node_is_healed_within_two_seconds() {
    let mut worst = Duration::ZERO;
    for lost in 0..40 {
        let mut world = formed(lost as u64, 4, 40);
        let phase = world.random.between(Duration::ZERO, Duration::from_millis(500));
        world.run(phase);
        stop(&mut world, lost);
        worst = worst.max(time_to_heal(&mut world, 4 * HEALED));
    }
    assert!(worst < HEALED, "the worst of 40 took {worst:?}");
}

#[test]
fn successors_take_over_in_order_also_when_some_are_lost_with_the_root() {
    for seed in 0..10 {
        let mut world = formed(seed, 5, 30);
        let successors: Vec<usize> =
            world.nodes[29].core().lineage().successors.iter().map(|n| world.number(n.id)).collect();
        assert_eq!(successors.len(), 3);
        stop(&mut world, 0);
        stop(&mut world, successors[0]);
        // The first that is left takes over; nobody has to wait for a dial into the void.
        let took = time_to_heal(&mut world, MERGED);
        assert!(took < 2 * HEALED, "{took:?}");
        assert_eq!(world.parent(successors[1]), None);
    }
}

#[test]
fn work_elsewhere_is_undisturbed_when_a_node_is_lost() {
    let mut world = formed(7, 3, 20);
    let (home, lost) = (19, world.parent(19).unwrap());
    let app = world.open(home);
    let grants = world.allocate(home, app, 1, 40);
    assert_eq!(grants.len(), 40);
    stop(&mut world, lost);
    time_to_heal(&mut world, MINUTE);
    let ended = world.nodes[home].apps[&app].leases.len();
    assert_eq!(ended, 38, "only the two of the lost node are gone");
}

#[test]
fn a_part_that_is_cut_off_works_on_and_merges() {
    for seed in 0..8 {
        let mut world = formed(seed, 3, 24);
        // A subtree, and a node from elsewhere.
        let (first, mut part) = largest_subtree(&world, 24);
        part.extend((1..24).rev().find(|n| !part.contains(n)));
        let both = [first, 0];
        let apps = both.map(|node| world.open(node));
        for (node, app) in both.into_iter().zip(apps) {
            assert_eq!(world.allocate(node, app, 1, 4).len(), 4);
        }
        world.cut_off(&part, Duration::from_secs(60));
        world.run(Duration::from_secs(20));
        // Each side serves its own from what it has.
        for (node, app) in both.into_iter().zip(apps) {
            let before = world.nodes[node].apps[&app].leases.len();
            let grants = world.allocate(node, app, 2, 2);
            assert_eq!(grants.len(), 2, "seed {seed}: n{node} gets nothing while it is cut off");
            assert_eq!(world.nodes[node].apps[&app].leases.len(), before + 2);
            let there = grants.iter().map(|grant| world.number(grant.lender.id));
            assert!(there.into_iter().all(|lender| part.contains(&lender) == part.contains(&node)));
        }
        world.run(Duration::from_secs(40));
        time_to_heal(&mut world, MERGED);
    }
}

#[test]
fn parts_that_were_apart_for_an_hour_merge_soon_also_when_their_roots_are_lost_meanwhile() {
    for seed in 0..4 {
        let mut world = formed(seed, 3, 13);
        let (first, part) = largest_subtree(&world, 13);
        assert!(part.len() > 2);
        let hour = 60 * MINUTE;
        world.cut_off(&part, hour);
        world.run(MINUTE);
        // Nothing but what the others were told is left of the way to the other part. Who dies forgets
        // what it was told to join.
        world.nodes[first].join = None;
        for n in &part {
            world.nodes[*n].join = None;
        }
        stop(&mut world, first);
        world.run(hour - MINUTE);
        time_to_heal(&mut world, MERGED);
    }
}

#[test]
fn parts_that_can_reach_each_other_again_are_one_tree_within_two_seconds() {
    for (count, fan_out) in [(13, 3), (40, 4), (60, 2)] {
        for seed in 0..20 {
            let mut world = formed(seed, fan_out, count);
            let (_, part) = largest_subtree(&world, count);
            let long = world.random.between(Duration::from_secs(3), 2 * MINUTE);
            world.cut_off(&part, long);
            world.run(long);
            time_to_heal(&mut world, MERGED);
        }
    }
}

#[test]
fn a_link_from_the_other_side_ends_a_long_pause() {
    let settings = Settings { retry_max: 100 * MINUTE, lapse: 60 * MINUTE, ..Settings::default() };
    let mut world = World::new(Options { seed: 21, settings, beats: true, ..Options::default() });
    world.grow(4, 1, true, |n| n.checked_sub(1));
    world.run(Duration::from_secs(5));
    let app = world.open(0);
    assert_eq!(world.allocate(0, app, 1, 4).len(), 4);
    world.run(Duration::from_secs(1));
    world.cut_off(&[2, 3], 10 * MINUTE);
    world.run(10 * MINUTE);
    // For its program's lease there, a restarted node dials the root of the part.
    world.nodes[0].returning = true;
    world.crash(0, false);
    world.start_after(0, Duration::ZERO);
    time_to_heal(&mut world, MERGED);
}

#[test]
fn the_dead_are_forgotten() {
    let settings = Settings { forget: 10 * MINUTE, ..Settings::default() };
    let mut world = World::new(Options { seed: 3, settings, ..Options::default() });
    world.grow(6, 1, false, |n| n.checked_sub(1));
    world.run(Duration::from_secs(10));
    for lost in 0..4 {
        stop(&mut world, lost);
        world.run(MINUTE);
    }
    for n in 4..6 {
        // What was configured is sought for ever, and nothing is.
        world.nodes[n].join = None;
        world.input(n, Input::Join { to: Vec::new(), here: false });
    }
    world.run(10 * MINUTE);
    world.check_quiet().unwrap();
    world.trace.clear();
    let root = (4..6).find(|n| world.parent(*n).is_none()).unwrap();
    assert!(world.nodes[root].core().seeks().is_empty(), "{:?}", world.nodes[root].core().seeks());
    assert!(world.nodes[9 - root].core().lineage().sought.is_empty());
}

#[test]
fn a_moved_node_keeps_its_parent_until_it_has_another_and_goes_back_to_it() {
    let mut world = world(5, 16);
    world.grow(5, 1, true, |n| n.checked_sub(1));
    world.run(Duration::from_secs(5));
    let to = world.nodes[1].me.clone();
    world.input(4, Input::Join { to: vec![to.clone()], here: true });
    let alone = core::cell::Cell::new(false);
    world.run_until(Duration::from_secs(2), |world| {
        alone.set(alone.get() || world.parent(4).is_none());
        world.parent(4) == Some(1)
    });
    assert!(!alone.get(), "it was nowhere in between");
    assert_eq!(world.parent(4), Some(1));
    // Its new parent is lost for a while: it waits elsewhere, and goes back.
    stop(&mut world, 1);
    world.run(Duration::from_secs(5));
    assert!(world.parent(4).is_some_and(|parent| parent != 1));
    world.start(1);
    world.run(Duration::from_secs(20));
    world.check_quiet().unwrap();
    assert_eq!(world.parent(4), Some(1));
    // A move below itself is refused and changes nothing.
    let below = world.nodes[4].me.clone();
    world.input(1, Input::Join { to: vec![below.clone()], here: true });
    world.run(Duration::from_secs(5));
    assert_eq!(world.nodes[1].refusals.last().map(|(by, _)| *by), Some(below.id));
    assert_eq!(world.parent(1), Some(0));
}

#[test]
fn a_restarted_node_is_a_new_one_and_late_words_of_the_old_change_nothing() {
    for seed in 0..20 {
        let mut world = formed(seed, 3, 12);
        let node = 1 + world.random.below(11);
        let parent = world.parent(node).unwrap();
        // What it sent last is still on its way when it dies and returns.
        world.stall(parent, Duration::from_millis(800));
        let app = world.open(node);
        let asker = world.asker(node, app, None);
        world.request(node, asker, 1, mutirao_sim::want(), 0);
        world.run(Duration::from_millis(100));
        world.nodes[node].apps.clear();
        world.crash(node, false);
        world.start_after(node, Duration::from_millis(300));
        time_to_heal(&mut world, MINUTE);
        let up = world.nodes[node].core().me().incarnation;
        let parent = world.parent(node).map(|parent| world.nodes[parent].core());
        let known = parent.and_then(|parent| parent.children().find(|c| c.name == format!("n{node}")));
        if let Some(known) = known {
            assert_eq!(known.incarnation, up);
        }
    }
}

#[test]
fn growing_again_right_after_a_shrink_harms_nobody() {
    let mut world = formed(11, 4, 12);
    for round in 0..5 {
        let now: Tick = world.now();
        for n in [3, 7, 9] {
            world.input(n, Input::Leave);
            world.crash(n, false);
            world.start(n);
        }
        time_to_heal(&mut world, MINUTE);
        assert!(world.now() - now < Duration::from_secs(30), "round {round}");
    }
}

#[test]
fn a_shrink_during_a_grow_comes_to_an_end() {
    let mut world = formed(12, 4, 12);
    world.grow(8, 2, false, |_| Some(0));
    for n in [2, 5, 13, 17] {
        let pause = world.random.between(Duration::ZERO, Duration::from_millis(2));
        world.run(pause);
        world.input(n, Input::Leave);
    }
    world.run(Duration::from_secs(1));
    for n in [2, 5, 13, 17] {
        world.crash(n, false);
    }
    time_to_heal(&mut world, MINUTE);
    assert_eq!(world.up().len(), 16);
}

#[test]
fn adding_nodes_while_the_root_is_lost_does_not_hang() {
    let mut world = formed(13, 4, 12);
    stop(&mut world, 0);
    let other = world.nodes[5].me.clone();
    let first = world.nodes.len();
    world.grow(4, 2, false, |_| Some(5));
    time_to_heal(&mut world, Duration::from_secs(5));
    assert!((first..first + 4).all(|n| world.parent(n).is_some()), "{}", other.name);
}
