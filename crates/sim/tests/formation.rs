//! How pools form.

use core::time::Duration;
use mutirao_sim::{Options, World};
use mutirao_tree::{Input, Settings};
use mutirao_wire::tree::Refusal;

fn world(seed: u64, fan_out: usize) -> World {
    let settings = Settings { fan_out, ..Settings::default() };
    World::new(Options { seed, settings, ..Options::default() })
}

#[test]
fn a_topology_is_built_exactly() {
    for count in 1..=60 {
        let mut world = world(count as u64, 2);
        // Each has three children, more than the fan-out: what is written down counts.
        world.grow(count, 1, true, |n| (n > 0).then(|| (n - 1) / 3));
        world.run(Duration::from_secs(10));
        world.check_quiet().unwrap();
        for n in 1..count {
            assert_eq!(world.parent(n), Some((n - 1) / 3), "n{n} of {count}");
        }
    }
}

#[test]
fn a_chain_of_parents_is_built_whatever_the_order() {
    for seed in 0..20 {
        let mut world = world(seed, 16);
        for _ in 0..30 {
            world.add(1);
        }
        let mut order: Vec<usize> = (0..30).collect();
        for at in (1..30).rev() {
            let other = world.random.below(at + 1);
            order.swap(at, other);
        }
        for n in 1..30 {
            world.nodes[n].join = Some((vec![world.nodes[n - 1].me.clone()], true));
        }
        for n in order {
            world.start(n);
            let pause = world.random.between(Duration::ZERO, Duration::from_millis(300));
            world.run(pause);
        }
        world.run(Duration::from_secs(20));
        world.check_quiet().unwrap();
        assert_eq!(world.nodes[29].core().lineage().ancestors.len(), 29);
        assert_eq!(world.nodes[0].core().summary().depth, 29);
    }
}

#[test]
fn left_to_themselves_nodes_respect_the_fan_out_and_stay_shallow() {
    for count in [2, 5, 17, 18, 40, 60, 205] {
        let mut world = world(count as u64, 4);
        world.grow(count, 1, false, |n| (n > 0).then_some(0));
        world.run(Duration::from_secs(20));
        world.check_quiet().unwrap();
        for node in &world.nodes {
            assert!(node.core().children().count() <= 4);
        }
        let shallowest = (count as f64 * 3.0 + 1.0).log(4.0).ceil() as u8 - 1;
        let depth = world.nodes[0].core().summary().depth;
        assert!(depth <= 2 * shallowest + 1, "{count} nodes are {depth} deep, {shallowest} would do");
    }
}

#[test]
fn of_two_roots_that_want_each_other_one_becomes_the_parent() {
    for seed in 0..50 {
        let mut world = world(seed, 16);
        world.grow(2, 1, false, |n| Some(1 - n));
        world.run(Duration::from_secs(15));
        world.check_quiet().unwrap();
    }
}

#[test]
fn rings_of_wishes_become_trees() {
    for seed in 0..30 {
        let mut world = world(seed, 16);
        let count = 3 + seed as usize % 7;
        world.grow(count, 1, false, |n| Some((n + 1) % count));
        world.run(Duration::from_secs(30));
        world.check_quiet().unwrap();
    }
}

#[test]
fn a_cyclic_wish_is_refused_and_said() {
    let mut world = world(1, 16);
    world.grow(4, 1, true, |n| n.checked_sub(1));
    world.run(Duration::from_secs(5));
    let last = world.nodes[3].me.clone();
    world.input(0, Input::Join { to: vec![last.clone()], here: true });
    world.run(Duration::from_secs(5));
    world.check_quiet().unwrap();
    assert_eq!(world.nodes[0].refusals, [(last.id, Refusal::Cycle)]);
}

#[test]
fn a_subtree_moves_to_another_parent() {
    let mut world = world(1, 16);
    world.grow(6, 1, true, |n| n.checked_sub(1));
    world.run(Duration::from_secs(5));
    let first = world.nodes[0].me.clone();
    world.input(3, Input::Join { to: vec![first], here: true });
    world.run(Duration::from_secs(5));
    world.check_quiet().unwrap();
    assert_eq!(world.parent(3), Some(0));
    assert_eq!(world.parent(4), Some(3));
    assert_eq!(world.nodes[5].core().lineage().ancestors.len(), 3);
}

#[test]
fn orphans_find_a_new_parent_and_successors_replace_a_root() {
    for lost in [0, 1, 4] {
        let mut world = world(lost as u64, 3);
        world.grow(30, 1, true, |n| (n > 0).then(|| (n - 1) / 3));
        world.run(Duration::from_secs(5));
        world.crash(lost, true);
        world.run(Duration::from_secs(10));
        world.check_quiet().unwrap();
        world.start(lost);
        world.run(Duration::from_secs(20));
        world.check_quiet().unwrap();
    }
}

#[test]
fn who_leaves_is_not_missed() {
    let mut world = world(3, 3);
    world.grow(13, 2, true, |n| (n > 0).then(|| (n - 1) / 3));
    world.run(Duration::from_secs(5));
    let app = world.open(5);
    let grants = world.allocate(5, app, 1, 26);
    assert_eq!(grants.len(), 26);
    world.input(1, Input::Leave);
    world.run(Duration::from_millis(100));
    assert!(world.nodes[1].left);
    assert_eq!(world.nodes[5].apps[&app].leases.len(), 24);
    world.crash(1, false);
    world.run(Duration::from_secs(10));
    world.check_quiet().unwrap();
}
