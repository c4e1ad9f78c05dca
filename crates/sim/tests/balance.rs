//! Crooked trees are straightened, gently, and come to rest.

use core::time::Duration;
use mutirao_sim::{Options, Random, World};
use mutirao_tree::{Input, Settings};

const MINUTE: Duration = Duration::from_secs(60);
/// Trees of up to 60 nodes, however crooked, are balanced within this.
const BALANCED: Duration = Duration::from_secs(15 * 60);

fn world(seed: u64, fan_out: usize, rebalance: Option<Duration>) -> World {
    let settings = Settings { fan_out, rebalance, ..Settings::default() };
    World::new(Options { seed, settings, ..Options::default() })
}

/// A tree of nodes with two slots each, built as told; from then on they may go where they are asked to.
fn crooked(mut world: World, count: usize, parent: impl Fn(usize) -> usize) -> World {
    world.grow(count, 2, true, |n| (n > 0).then(|| parent(n)));
    world.run(Duration::from_secs(6));
    for n in 1..count {
        assert_eq!(world.parent(n), Some(parent(n)));
        let to = vec![world.nodes[0].me.clone()];
        world.nodes[n].join = Some((to.clone(), false));
        world.input(n, Input::Join { to, here: false });
    }
    world
}

fn on() -> Option<Duration> {
    Some(Settings::REBALANCE)
}

fn parents(world: &World) -> Vec<Option<usize>> {
    let up = world.up();
    (0..world.nodes.len()).map(|n| world.parent(n).filter(|_| up.contains(&n))).collect()
}

fn moves(world: &World) -> u64 {
    world.sent.get("Attached").copied().unwrap_or(0)
}

/// Edges from `top` down to the deepest node, or what is crooked there.
fn straight(world: &World, fan_out: usize, top: usize) -> Result<usize, String> {
    let children = world.up().into_iter().filter(|n| world.parent(*n) == Some(top));
    let depths = children.map(|n| straight(world, fan_out, n)).collect::<Result<Vec<_>, _>>()?;
    let (Some(least), Some(most)) = (depths.iter().min(), depths.iter().max()) else { return Ok(0) };
    let allowed = if depths.len() < fan_out { 0 } else { least + 1 };
    if depths.len() > fan_out || *most > allowed {
        return Err(format!("n{top} has subtrees of the depths {depths:?}"));
    }
    Ok(most + 1)
}

/// Lets the tree become straight, and makes sure that nothing moves any more. Gives its depth.
#[track_caller]
fn straighten(world: &mut World, fan_out: usize) -> usize {
    world.run(BALANCED);
    world.check_quiet().unwrap();
    let root = world.up().into_iter().find(|n| world.parent(*n).is_none()).unwrap();
    let depth = straight(world, fan_out, root).unwrap();
    let (at, count) = (parents(world), moves(world));
    world.run(120 * MINUTE);
    assert_eq!((parents(world), moves(world)), (at, count), "it does not come to rest");
    depth
}

#[test]
fn a_chain_becomes_straight() {
    let mut chain = crooked(world(1, 4, on()), 60, |n| n - 1);
    assert!(straighten(&mut chain, 4) <= 4);
    let mut pair = crooked(world(2, 2, on()), 20, |n| n - 1);
    assert!(straighten(&mut pair, 2) <= 6);
}

#[test]
fn a_star_beyond_the_fan_out_becomes_straight_by_six_moves_a_minute_at_most() {
    let mut star = crooked(world(2, 4, on()), 60, |_| 0);
    for _ in 0..3 {
        let before = moves(&star);
        star.run(MINUTE);
        // Only the root has anything to do.
        let made = moves(&star) - before;
        assert!((1..=6).contains(&made), "{made} in a minute");
    }
    assert!(straighten(&mut star, 4) <= 4);
}

#[test]
fn random_trees_become_straight() {
    let mut worst = 0;
    for seed in 0..12 {
        let mut random = Random::new(seed);
        let count = 20 + random.below(41);
        let parents: Vec<usize> =
            (0..count).map(|n: usize| n.saturating_sub(1 + random.below(n.clamp(1, 5)))).collect();
        let mut world = crooked(world(seed, 3, on()), count, |n| parents[n]);
        worst = worst.max(straighten(&mut world, 3));
    }
    assert!(worst <= 6, "{worst} deep");
}

#[test]
fn what_healing_made_crooked_becomes_straight() {
    for seed in 0..4 {
        let mut world = world(seed, 3, on());
        world.grow(40, 2, false, |n| (n > 0).then_some(0));
        world.run(MINUTE);
        for _ in 0..4 {
            let inner = world.up().into_iter().filter_map(|n| world.parent(n)).collect::<Vec<_>>();
            let lost = inner[world.random.below(inner.len())];
            world.crash(lost, true);
            world.run(Duration::from_secs(5));
        }
        assert!(straighten(&mut world, 3) <= 5);
    }
}

#[test]
fn it_becomes_straight_also_when_nodes_die_and_return_meanwhile() {
    for seed in 0..4 {
        let mut world = crooked(world(seed, 3, on()), 30, |n| n - 1);
        for _ in 0..20 {
            world.run(Duration::from_secs(7));
            let n = 1 + world.random.below(29);
            if world.up().contains(&n) {
                world.crash(n, true);
                world.start_after(n, Duration::from_secs(9));
            }
            let part = [1 + world.random.below(29), 1 + world.random.below(29)];
            world.cut_off(&part, Duration::from_secs(4));
        }
        world.run(MINUTE);
        assert!(straighten(&mut world, 3) <= 5);
    }
}

#[test]
fn leases_are_undisturbed_by_moves() {
    let mut world = crooked(world(5, 4, on()), 24, |n| n - 1);
    let app = world.open(23);
    assert_eq!(world.allocate(23, app, 1, 48).len(), 48);
    straighten(&mut world, 4);
    assert_eq!(world.nodes[23].apps[&app].leases.len(), 48);
}

#[test]
fn switched_off_nothing_moves_and_switched_on_it_does() {
    let mut world = crooked(world(6, 4, None), 16, |n| n - 1);
    let (at, sent) = (parents(&world), moves(&world));
    world.run(120 * MINUTE);
    assert_eq!((parents(&world), moves(&world)), (at, sent));
    assert!(!world.sent.contains_key("Shift"));
    for n in 0..16 {
        let settings = Settings { fan_out: 4, rebalance: on(), ..Settings::default() };
        world.input(n, Input::Settings(settings.into()));
    }
    straighten(&mut world, 4);
}

#[test]
fn who_was_told_to_have_one_parent_stays_there() {
    let mut world = world(4, 4, on());
    world.grow(10, 1, true, |n| n.checked_sub(1));
    world.run(BALANCED);
    world.check_quiet().unwrap();
    assert!((1..10).all(|n| world.parent(n) == Some(n - 1)));
    // Nobody asks for ever.
    world.run(600 * MINUTE);
    let asked = world.sent.get("Shift").copied();
    world.run(600 * MINUTE);
    assert_eq!(world.sent.get("Shift").copied(), asked);
}
