//! The charter reaches every node that can be reached, and the newest wins everywhere.

use core::time::Duration;
use mutirao_sim::{Options, Random, World, signed_charter};
use mutirao_tree::Input;
use mutirao_wire::charter::{CHARTER_BYTES_MAX, CharterDocument, CharterVersion};
use mutirao_wire::tree::TreeMessage;

fn world(seed: u64, nodes: usize) -> World {
    let mut world = World::new(Options { seed, ..Options::default() });
    world.grow(nodes, 1, false, |index| (index > 0).then_some(0));
    world.run(Duration::from_secs(10));
    world.check_quiet().expect("one tree");
    world
}

fn have(world: &World, version: CharterVersion) -> usize {
    world.nodes.iter().filter(|node| node.core.as_ref().is_some_and(|core| core.charter() == version)).count()
}

#[test]
fn a_new_version_reaches_every_node_over_the_tree_once() {
    let mut world = world(1, 200);
    let before = world.sent.get("CharterDocument").copied().unwrap_or(0);
    assert_eq!(
        (before, world.sent.get("CharterVersion")),
        (0, None),
        "without a charter nothing is said of it"
    );
    for number in 1..4 {
        let sent = world.sent.get("CharterDocument").copied().unwrap_or(0);
        let version = world.edit_charter(7 * number);
        assert_eq!(version.number, number as u64);
        world.run(Duration::from_millis(20));
        assert_eq!(have(&world, version), 200);
        let documents = world.sent["CharterDocument"] - sent;
        assert!((199..=199 + 20).contains(&documents), "{documents} documents for 199 nodes");
    }
}

#[test]
fn a_node_that_was_down_learns_of_the_change_from_the_first_it_meets() {
    let mut world = world(2, 12);
    world.edit_charter(0);
    world.run(Duration::from_secs(1));
    world.crash(5, false);
    world.run(Duration::from_secs(1));
    let version = world.edit_charter(3);
    world.run(Duration::from_secs(1));
    assert_eq!(have(&world, version), 11);
    world.start(5);
    assert_ne!(world.nodes[5].core().charter(), version);
    world.run(Duration::from_millis(100));
    assert_eq!(have(&world, version), 12);
    // One without any charter is told as well.
    let new = world.add(1);
    world.nodes[new].join = Some((vec![world.nodes[4].me.clone()], false));
    world.start(new);
    world.run(Duration::from_secs(1));
    assert_eq!(have(&world, version), 13);
}

#[test]
fn of_two_edits_at_once_one_wins_everywhere() {
    for seed in 0..20 {
        let mut world = world(seed, 15);
        let one = world.edit_charter(3);
        let two = world.edit_charter(11);
        assert_eq!((one.number, two.number), (1, 1));
        world.run(Duration::from_secs(1));
        assert_eq!(have(&world, one.max(two)), 15);
    }
}

#[test]
fn a_forged_document_is_looked_at_once_and_passed_on_by_nobody() {
    let mut world = world(4, 6);
    let good = world.edit_charter(0);
    world.run(Duration::from_secs(1));
    let CharterDocument { version, mut document } = signed_charter(9, 1);
    document[15] ^= 1;
    let from = world.nodes[1].me.id;
    let to = (0..6).find(|node| world.is_linked(1, *node)).expect("a link");
    for _ in 0..5 {
        let message = TreeMessage::from(CharterDocument { version, document: document.clone() });
        world.input(to, Input::Tree { from, message });
    }
    let long = vec![0; CHARTER_BYTES_MAX + 1];
    let message = TreeMessage::from(CharterDocument {
        version: CharterVersion { number: 10, ..version },
        document: long,
    });
    world.input(to, Input::Tree { from, message });
    world.run(Duration::from_secs(1));
    assert_eq!(have(&world, good), 6);
    assert_eq!(world.nodes.iter().map(|node| node.bad_charters).sum::<u32>(), 1);
}

/// Edits while nodes crash and return, links are cut and parts are alone; then quiet.
#[test]
fn after_faults_the_newest_is_in_force_everywhere() {
    for seed in 0..150 {
        let mut random = Random::new(seed);
        let nodes = 3 + random.below(12);
        let mut world = world(seed, nodes);
        let mut newest = CharterVersion::default();
        for _ in 0..25 {
            let pause = random.between(Duration::ZERO, Duration::from_millis(900));
            world.run(pause);
            let (a, b) = (random.below(nodes), random.below(nodes));
            let long = random.between(Duration::from_millis(10), Duration::from_secs(8));
            match random.below(6) {
                0 | 1 if world.nodes[a].core.is_some() => newest = newest.max(world.edit_charter(a)),
                2 if world.nodes[a].core.is_some() => {
                    world.crash(a, random.chance(50));
                    world.start_after(a, long);
                }
                3 if a != b => world.cut(a, b, long),
                4 => {
                    let within: Vec<bool> = (0..nodes).map(|_| random.chance(40)).collect();
                    for a in 0..nodes {
                        for b in a + 1..nodes {
                            if within[a] != within[b] {
                                world.cut(a, b, long);
                            }
                        }
                    }
                }
                _ => world.stall(a, long.min(Duration::from_secs(1))),
            }
        }
        world.run(Duration::from_secs(60));
        world.check_quiet().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert_eq!(have(&world, newest), nodes, "seed {seed}: {newest:?}");
    }
}
