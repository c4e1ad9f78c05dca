//! Slots that the owner takes back, and nodes that lend no more.

use core::time::Duration;
use mutirao_sim::{Options, World, want};
use mutirao_tree::{Input, Policy, Reclaim};
use mutirao_wire::lease::LeaseEnd;
use mutirao_wire::local::LeaseChange;
use mutirao_wire::node::{Bundle, Grant, Hindrance, Want};
use mutirao_wire::{AppId, LeaseId};

const GRACE: Duration = Duration::from_millis(500);

/// Three nodes of four slots, of which one has programs and lends none of its own.
fn world(seed: u64) -> World {
    let mut world = World::new(Options { seed, ..Options::default() });
    world.grow(3, 4, true, |n| n.checked_sub(1));
    world.run(Duration::from_secs(3));
    world
}

/// Takes slots, confirmed by their lenders.
fn take(world: &mut World, at: usize, app: AppId, count: u32) -> Vec<Grant> {
    let grants = world.allocate(at, app, 1, count);
    world.run(Duration::from_millis(100));
    grants
}

fn order(slots: Option<u16>, span: Option<Duration>) -> Input {
    Input::Reclaim(Reclaim { slots, grace: GRACE, span })
}

fn free(world: &World) -> Vec<u16> {
    world.nodes.iter().map(|node| node.core().lending().free).collect()
}

fn names(grants: &[Grant]) -> Vec<&str> {
    grants.iter().map(|grant| grant.lender.name.as_str()).collect()
}

fn on(grants: &[Grant], node: &str) -> Vec<LeaseId> {
    grants.iter().filter(|grant| grant.lender.name == node).map(Grant::lease).collect()
}

fn news(world: &World, at: usize, app: AppId, lease: LeaseId) -> Vec<LeaseChange> {
    world.nodes[at].apps[&app].news_of(lease)
}

#[test]
fn lent_slots_come_back_after_the_grace_and_are_lent_again_after_their_time() {
    let mut world = world(1);
    let app = world.open(0);
    let grants = take(&mut world, 0, app, 12);
    assert_eq!(grants.len(), 12);
    world.input(1, order(Some(3), Some(Duration::from_secs(10))));
    world.run(Duration::from_millis(100));
    let lent = on(&grants, "n1");
    let asked: Vec<LeaseId> =
        lent.iter().copied().filter(|lease| !news(&world, 0, app, *lease).is_empty()).collect();
    assert_eq!(asked, lent[1..], "the youngest, and no more than needed");
    let told = LeaseChange::Reclaiming { grace_ms: Some(500) };
    assert_eq!(news(&world, 0, app, asked[0]), vec![told.clone()]);
    world.run(Duration::from_millis(500));
    assert_eq!(news(&world, 0, app, asked[0]), [told, LeaseChange::Ended(LeaseEnd::Reclaimed)]);
    assert_eq!(free(&world), [0, 0, 0], "they are the owner's");
    let lending = world.nodes[1].core().lending();
    assert_eq!((lending.reclaimed, world.nodes[1].core().slots().0), (3, 3));
    world.check_quiet().unwrap();
    assert!(world.allocate(0, app, 2, 3).is_empty(), "nobody else has them");
    world.run(Duration::from_secs(10));
    assert_eq!(free(&world), [0, 3, 0]);
    assert_eq!(names(&world.allocate(0, app, 3, 3)), ["n1"; 3]);
    world.check_quiet().unwrap();
}

#[test]
fn the_owner_keeps_what_its_own_programs_hold_and_may_use_what_was_taken_back() {
    let mut world = world(2);
    let (own, other) = (world.open(1), world.open(0));
    let held = on(&take(&mut world, 1, own, 1), "n1");
    let lent = on(&take(&mut world, 0, other, 7), "n1");
    assert_eq!((held.len(), lent.len()), (1, 3));
    world.input(1, order(None, None));
    world.run(Duration::from_secs(1));
    assert_eq!(news(&world, 1, own, held[0]), []);
    assert!(lent.iter().all(|lease| !world.nodes[0].apps[&other].leases.contains_key(lease)));
    assert_eq!(names(&world.allocate(1, own, 2, 3)), ["n1"; 3]);
    assert!(!names(&world.allocate(0, other, 2, 12)).contains(&"n1"));
    world.input(1, Input::Resume);
    world.nodes[1].apps.get_mut(&own).unwrap();
    world.run(Duration::from_millis(200));
    world.check_quiet().unwrap();
}

#[test]
fn a_lease_given_back_within_the_grace_does_not_end_by_force() {
    let mut world = world(3);
    let app = world.open(0);
    let lent = on(&take(&mut world, 0, app, 8), "n1");
    world.input(1, order(None, None));
    world.run(Duration::from_millis(100));
    let leases = lent.clone();
    for lease in &leases {
        world.nodes[0].apps.get_mut(&app).unwrap().leases.remove(lease);
    }
    world.input(0, Input::GiveBack { app, leases });
    world.run(Duration::from_millis(100));
    assert_eq!(world.nodes[1].core().slots(), (4, 4), "long before the grace is over");
    world.run(Duration::from_secs(1));
    for lease in lent {
        assert_eq!(news(&world, 0, app, lease), [LeaseChange::Reclaiming { grace_ms: Some(500) }]);
    }
    world.check_quiet().unwrap();
}

#[test]
fn own_demand_takes_lent_slots_back_where_the_owner_wants_so() {
    let mut world = world(4);
    world.input(1, Input::Policy(Policy { own_first: Some(GRACE), ..world.nodes[1].policy.clone() }));
    let (own, other) = (world.open(1), world.open(0));
    assert_eq!(take(&mut world, 0, other, 12).len(), 12);
    let asker = world.asker(1, own, None);
    let request = world.request(1, asker.clone(), 1, Want { count: 2, ..want() }, 2);
    assert!(world.answer(1, request).is_empty());
    let notes = &world.nodes[1].apps[&own].found[&request].2;
    let comes =
        |hindrance: &Hindrance| matches!(hindrance, Hindrance::ComesBack { after_ms } if *after_ms >= 500);
    assert!(notes.iter().any(|note| note.node == "n1" && comes(&note.hindrance)), "{notes:?}");
    world.run(Duration::from_millis(700));
    assert_eq!(names(&world.allocate(1, own, 2, 2)), ["n1"; 2], "and nobody was quicker");
    assert_eq!(world.nodes[0].apps[&other].leases.len(), 10);
    // Another user's request, or the owner's from elsewhere, takes nothing back.
    let elsewhere = world.open(2);
    assert!(world.allocate(2, elsewhere, 1, 2).is_empty());
    world.run(Duration::from_secs(10));
    assert_eq!(world.nodes[0].apps[&other].leases.len(), 10);
    world.check_quiet().unwrap();
}

#[test]
fn what_cannot_be_taken_back_is_lent_only_where_allowed_and_for_a_time() {
    let mut world = world(5);
    let app = world.open(0);
    assert_eq!(world.allocate(0, app, 1, 4).len(), 4, "what is here is full");
    let asker = world.asker(0, app, None);
    let ask = |world: &mut World, sequence, limit_s| {
        let bundle = Bundle { reclaimable: false, limit_s, ..Bundle::default() };
        let request = world.request(0, asker.clone(), sequence, Want { bundle, ..want() }, 0);
        let grants = world.answer(0, request);
        let notes = world.nodes[0].apps[&app].found[&request].2.clone();
        (grants, notes.iter().map(|note| format!("{}: {:?}", note.node, note.hindrance)).collect::<String>())
    };
    let (grants, notes) = ask(&mut world, 2, Some(5));
    assert!(grants.is_empty() && notes.contains("n1") && notes.contains("can be taken back"), "{notes}");
    for node in [1, 2] {
        let policy = Policy { keep_max_s: Some(60), ..world.nodes[node].policy.clone() };
        world.input(node, Input::Policy(policy));
    }
    let (grants, notes) = ask(&mut world, 3, None);
    assert!(grants.is_empty() && notes.contains("at most 60 s"), "{notes}");
    assert!(ask(&mut world, 4, Some(61)).0.is_empty());
    let (grants, _) = ask(&mut world, 5, Some(60));
    let lease = grants[0].lease();
    world.input(1, order(None, None));
    world.run(Duration::from_secs(2));
    assert_eq!(news(&world, 0, app, lease), [], "it stays to its end");
    world.run(Duration::from_secs(60));
    assert_eq!(news(&world, 0, app, lease), [LeaseChange::Ended(LeaseEnd::LimitReached)]);
}

#[test]
fn a_drained_node_is_empty_once_all_is_given_back_and_lends_again_when_told() {
    let mut world = world(6);
    let app = world.open(0);
    let grants = take(&mut world, 0, app, 12);
    let lent = on(&grants, "n1");
    world.input(1, Input::Drain { grace: None });
    world.run(Duration::from_secs(30));
    assert_eq!(news(&world, 0, app, lent[0]), [LeaseChange::Reclaiming { grace_ms: None }]);
    let lending = world.nodes[1].core().lending();
    assert!(lending.draining && !lending.empty);
    // Now it is done by force.
    world.input(1, Input::Drain { grace: Some(GRACE) });
    world.run(Duration::from_millis(600));
    let ended = LeaseChange::Ended(LeaseEnd::Reclaimed);
    assert_eq!(news(&world, 0, app, lent[0]).last(), Some(&ended));
    let lending = world.nodes[1].core().lending();
    assert!(lending.draining && lending.empty && lending.free == 0);
    assert!(world.allocate(0, app, 2, 4).is_empty());
    world.input(1, Input::Resume);
    world.run(Duration::from_millis(200));
    assert_eq!(names(&world.allocate(0, app, 3, 4)), ["n1"; 4]);
    world.check_quiet().unwrap();
}

#[test]
fn the_owners_rules_keep_all_slots_as_long_as_they_say() {
    let mut world = world(7);
    let app = world.open(0);
    assert_eq!(take(&mut world, 0, app, 12).len(), 12);
    world.input(2, Input::MayLend { may: false, grace: GRACE });
    world.run(Duration::from_secs(1));
    assert_eq!(world.nodes[2].core().slots(), (4, 4));
    assert_eq!(world.nodes[2].core().lending().reclaimed, 4);
    assert!(world.allocate(0, app, 2, 4).is_empty());
    world.input(2, Input::MayLend { may: true, grace: GRACE });
    world.run(Duration::from_millis(200));
    assert_eq!(names(&world.allocate(0, app, 3, 4)), ["n2"; 4]);
    world.check_quiet().unwrap();
}

#[test]
fn what_is_taken_back_while_a_search_goes_on_is_not_held_for_ever() {
    // Found by the nemesis: the answer of a search names leases of this very node that are no more.
    let mut world = world(8);
    let app = world.open(1);
    let asker = world.asker(1, app, None);
    let request = world.request(1, asker, 1, Want { count: 12, ..want() }, 1);
    // Four are granted here by now, and the others are being looked for.
    world.input(1, Input::Drain { grace: Some(Duration::ZERO) });
    let grants = world.answer(1, request);
    world.run(Duration::from_millis(100));
    let here = on(&grants, "n1");
    assert_eq!((grants.len(), here.len()), (12, 4));
    for lease in here {
        assert_eq!(news(&world, 1, app, lease), [LeaseChange::Ended(LeaseEnd::Reclaimed)]);
    }
    world.input(1, Input::Resume);
    world.run(Duration::from_millis(100));
    world.check_quiet().unwrap();
}
