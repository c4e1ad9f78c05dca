//! Searching for slots.

use core::time::Duration;
use mutirao_sim::{Options, World, plugin, want};
use mutirao_tree::{Accept, Input, Settings};
use mutirao_wire::node::{Arch, Bundle, Hindrance, Layout, Want};
use mutirao_wire::{LeaseId, RequestId};
use std::collections::BTreeSet;

/// A tree of three children each.
fn tree(seed: u64, count: usize, slots: u16) -> World {
    let mut world = World::new(Options { seed, ..Options::default() });
    world.grow(count, slots, true, |n| (n > 0).then(|| (n - 1) / 3));
    world.run(Duration::from_secs(3));
    world.check_quiet().unwrap();
    world
}

#[test]
fn any_number_of_slots_is_found_from_anywhere() {
    let mut world = tree(1, 22, 2);
    for home in 0..22 {
        for count in [1, 2, 3, 10, 43, 44, 50] {
            let app = world.open(home);
            let grants = world.allocate(home, app, count, count);
            assert_eq!(grants.len(), count.min(44) as usize, "{count} from n{home}");
            let names: BTreeSet<LeaseId> = grants.iter().map(|grant| grant.lease()).collect();
            assert_eq!(names.len(), grants.len());
            world.run(Duration::from_millis(5));
            world.close(home, app);
            world.run(Duration::from_millis(150));
            world.check_quiet().unwrap();
        }
    }
}

#[test]
fn a_search_takes_one_message_down_and_one_up_an_edge() {
    let mut world = tree(2, 40, 1);
    world.sent.clear();
    let app = world.open(0);
    assert_eq!(world.allocate(0, app, 1, 40).len(), 40);
    assert_eq!((world.sent["Search"], world.sent["SearchReply"]), (39, 39));
}

#[test]
fn near_slots_come_first() {
    let mut world = tree(3, 13, 2);
    // n1 has the children n4, n5, n6; n0 is its parent.
    let app = world.open(1);
    world.sent.clear();
    let here = world.allocate(1, app, 1, 2);
    assert!(here.iter().all(|grant| grant.lender.name == "n1"));
    assert!(!world.sent.contains_key("Search"), "nobody was disturbed");
    let below = world.allocate(1, app, 2, 6);
    let names: BTreeSet<&str> = below.iter().map(|grant| grant.lender.name.as_str()).collect();
    assert_eq!(names, BTreeSet::from(["n4", "n5", "n6"]));
    assert_eq!(world.sent["Search"], 3);
    // Until the summaries settle, the children would be asked whether something came free.
    world.run(Duration::from_millis(300));
    let above = world.allocate(1, app, 3, 2);
    assert!(above.iter().all(|grant| grant.lender.name == "n0"));
    assert_eq!(world.sent["Search"], 4);
}

#[test]
fn bundles_are_spread_or_exclusive_if_wanted() {
    let mut world = tree(4, 13, 4);
    let app = world.open(5);
    let asker = world.asker(5, app, None);
    let spread = Want { count: 10, layout: Layout::Spread, ..want() };
    let request = world.request(5, asker.clone(), 1, spread, 0);
    let grants = world.answer(5, request);
    let lenders: BTreeSet<_> = grants.iter().map(|grant| grant.lender.id).collect();
    assert_eq!((grants.len(), lenders.len()), (10, 10));
    let exclusive = Want { count: 9, bundle: Bundle { exclusive: true, ..Bundle::default() }, ..want() };
    let request = world.request(5, asker, 2, exclusive, 0);
    let grants = world.answer(5, request);
    assert_eq!(grants.len(), 3, "three nodes are idle");
    assert!(grants.iter().all(|grant| grant.slots == 4 && !lenders.contains(&grant.lender.id)));
    world.close(5, app);
    world.run(Duration::from_secs(1));
    world.check_quiet().unwrap();
}

#[test]
fn memory_and_named_resources_run_out_too() {
    let mut world = tree(5, 1, 8);
    let mut capacity = world.nodes[0].capacity.clone();
    capacity.memory_mib = 1000;
    capacity.resources = vec![mutirao_wire::node::Resource { name: "gpu".into(), amount: 2 }];
    let gpu = capacity.resources[0].clone();
    world.input(0, Input::Capacity(capacity));
    let app = world.open(0);
    let asker = world.asker(0, app, None);
    let bundle = Bundle { memory_mib: 300, ..Bundle::default() };
    let request = world.request(0, asker.clone(), 1, Want { count: 8, bundle, ..want() }, 0);
    assert_eq!(world.answer(0, request).len(), 3);
    let resources = vec![mutirao_wire::node::Resource { amount: 1, ..gpu }];
    let bundle = Bundle { resources, ..Bundle::default() };
    let request = world.request(0, asker, 2, Want { count: 8, bundle, ..want() }, 0);
    assert_eq!(world.answer(0, request).len(), 2);
}

#[test]
fn too_few_are_as_good_as_none() {
    let mut world = tree(6, 5, 1);
    let app = world.open(2);
    let asker = world.asker(2, app, None);
    let request = world.request(2, asker, 1, Want { count: 8, ..want() }, 6);
    assert!(world.answer(2, request).is_empty());
    world.run(Duration::from_millis(100));
    world.check_quiet().unwrap();
    let free: u16 = world.nodes.iter().map(|node| node.core().slots().0).sum();
    assert_eq!(free, 5);
}

#[test]
fn requests_that_compete_for_the_last_slots_share_them() {
    for seed in 0..40 {
        let mut world = tree(seed, 13, 1);
        let homes = [3, 7, 12, 0];
        let apps = homes.map(|home| world.open(home));
        let mut requests = Vec::new();
        for (home, app) in homes.into_iter().zip(apps) {
            let asker = world.asker(home, app, None);
            requests.push((home, world.request(home, asker, 1, Want { count: 5, ..want() }, 0)));
        }
        let got: usize = requests.iter().map(|(home, request)| world.answer(*home, *request).len()).sum();
        assert!(got <= 13);
        world.run(Duration::from_secs(1));
        world.check_quiet().unwrap();
        // What one left for another is there for the asking.
        let app = world.open(5);
        assert_eq!(world.allocate(5, app, 1, 13).len(), 13 - got, "seed {seed}");
    }
}

#[test]
fn the_same_request_gets_the_same_answer() {
    let mut world = tree(7, 13, 1);
    let app = world.open(4);
    let asker = world.asker(4, app, None);
    let wanted = Want { count: 7, ..want() };
    let request = world.request(4, asker.clone(), 1, wanted.clone(), 0);
    let first = world.answer(4, request);
    let sent = world.messages();
    let again = world.request(4, asker, 1, wanted, 0);
    assert_eq!(world.answer(4, again), first);
    assert_eq!(world.messages(), sent);
    assert_eq!(first.len(), 7);
}

#[test]
fn grants_that_come_too_late_are_handed_back() {
    let latency = (Duration::from_millis(30), Duration::from_millis(31));
    let mut world = World::new(Options { seed: 8, latency, ..Options::default() });
    world.grow(4, 1, true, |n| n.checked_sub(1));
    world.run(Duration::from_secs(5));
    world.check_quiet().unwrap();
    let app = world.open(0);
    let asker = world.asker(0, app, None);
    let request = RequestId { app, sequence: 1, attempt: 0 };
    let budget = Duration::from_millis(50);
    let wanted = Want { count: 4, ..want() };
    world.input(0, Input::Request { request, want: wanted, at_least: 0, asker, budget, wait: None });
    world.run(Duration::from_millis(51));
    assert_eq!(world.nodes[0].apps[&app].found[&request].1.len(), 1);
    assert_eq!(world.nodes[1].core().slots().0, 0, "granted, and on its way");
    world.run(Duration::from_millis(800));
    assert!((1..4).all(|n| world.nodes[n].core().slots().0 == 1));
    assert!(world.sent["SearchCancel"] > 0);
    world.check_quiet().unwrap();
}

#[test]
fn a_cancelled_request_leaves_nothing_behind() {
    for wait_us in [0, 60, 120, 200, 400, 1000, 5000] {
        let mut world = tree(9, 13, 1);
        let app = world.open(0);
        let asker = world.asker(0, app, None);
        let request = world.request(0, asker, 1, Want { count: 13, ..want() }, 0);
        world.run(Duration::from_micros(wait_us));
        let leases: Vec<LeaseId> = world.nodes[0].apps[&app].leases.keys().copied().collect();
        if leases.is_empty() {
            world.input(0, Input::CancelRequest(request));
        } else {
            world.give_back(0, app, leases);
        }
        world.run(Duration::from_millis(200));
        world.check_quiet().unwrap();
        assert!(world.nodes.iter().all(|node| node.core().slots().0 == 1));
    }
}

#[test]
fn owners_decide() {
    let mut world = tree(10, 7, 1);
    for n in 1..7 {
        let mut policy = world.nodes[n].policy.clone();
        policy.accept = if n < 4 { Accept::Own } else { Accept::Ask };
        world.input(n, Input::Policy(policy));
    }
    let app = world.open(0);
    let asker = world.asker(0, app, Some(plugin(1)));
    let request = world.request(0, asker.clone(), 1, Want { count: 7, ..want() }, 0);
    assert_eq!(world.answer(0, request).len(), 1, "its own");
    let notes = world.nodes[0].apps[&app].found[&request].2.clone();
    let waiting = notes.iter().filter(|note| note.hindrance == Hindrance::AwaitsApproval).count();
    assert_eq!((waiting, notes.len()), (3, 6));
    assert_eq!(world.nodes[4].awaits, ["user@n0"]);
    // The owner of n4 approves; the application hears of it and asks again.
    let mut policy = world.nodes[4].policy.clone();
    policy.accept = Accept::Ask;
    policy.approved.insert(plugin(1).id);
    world.input(4, Input::Policy(policy));
    world.run(Duration::from_millis(50));
    assert_eq!(world.nodes[0].apps[&app].approved, [plugin(1).id]);
    let request = world.request(0, asker, 2, Want { count: 7, ..want() }, 0);
    let grants = world.answer(0, request);
    assert_eq!(grants.iter().map(|grant| grant.lender.name.as_str()).collect::<Vec<_>>(), ["n4"]);
    // Bare slots need no plugin, hence cannot be approved.
    let bare = world.open(6);
    assert_eq!(world.allocate(6, bare, 1, 3).len(), 1, "its own, by its own user");
}

#[test]
fn a_pool_wide_owner_needs_a_token() {
    let mut world = tree(11, 2, 1);
    let mut policy = world.nodes[1].policy.clone();
    (policy.accept, policy.owner) = (Accept::Own, "ana".into());
    world.input(1, Input::Policy(policy));
    let app = world.open(0);
    let mut asker = world.asker(0, app, None);
    asker.local_user = "ana@n0".into();
    let request = world.request(0, asker.clone(), 1, Want { count: 2, ..want() }, 0);
    assert_eq!(world.answer(0, request).len(), 1);
    asker.token = b"ana".to_vec();
    let request = world.request(0, asker.clone(), 2, Want { count: 2, ..want() }, 0);
    assert_eq!(world.answer(0, request).len(), 1, "n1's; n0's is taken");
    // A home speaks for its own users only.
    let other = world.open(0);
    let forged = mutirao_wire::node::Asker {
        local_user: "owner@n1".into(),
        token: Vec::new(),
        ..world.asker(0, other, None)
    };
    world.close(0, app);
    world.run(Duration::from_millis(100));
    let request = world.request(0, forged, 1, Want { count: 2, ..want() }, 0);
    assert!(world.answer(0, request).is_empty());
}

#[test]
fn a_plugin_that_cannot_run_is_refused_by_name() {
    let mut world = tree(12, 3, 1);
    let app = world.open(0);
    let old = mutirao_wire::node::PluginRef { libc: Some((2, 38)), ..plugin(2) };
    let foreign = mutirao_wire::node::PluginRef { arch: Arch::Aarch64, ..plugin(3) };
    for (sequence, plugin, word) in [(1, old, "libc 2.38"), (2, foreign, "aarch64")] {
        let asker = world.asker(0, app, Some(plugin));
        let request = world.request(0, asker, sequence, Want { count: 3, ..want() }, 0);
        assert!(world.answer(0, request).is_empty());
        let notes = &world.nodes[0].apps[&app].found[&request].2;
        assert_eq!(notes.len(), 3);
        assert!(notes.iter().all(|n| matches!(&n.hindrance, Hindrance::Unfit(text) if text.contains(word))));
    }
}

#[test]
fn the_largest_replies_fit_a_frame() {
    // The world's decoder refuses what is longer than a control frame allows.
    let settings = Settings { fan_out: 400, ..Settings::default() };
    let mut world = World::new(Options { seed: 13, settings, ..Options::default() });
    for index in 0..302 {
        world.add(3);
        let node = &mut world.nodes[index].me;
        node.name = format!("{index:063}");
        node.incarnation = mutirao_wire::Incarnation(u64::MAX - 5);
        node.addresses =
            (0..8).map(|port| format!("[fe80::ffff:ffff:ffff:{port}]:65535").parse().unwrap()).collect();
    }
    for index in 0..302 {
        if let Some(parent) = [None, Some(0)].get(index).copied().unwrap_or(Some(1)) {
            world.nodes[index].join = Some((vec![world.nodes[parent].me.clone()], true));
        }
        world.start(index);
    }
    world.run(Duration::from_secs(10));
    let app = world.open(0);
    assert_eq!(world.allocate(0, app, 1, 906).len(), 906);
    let number = world.ask(0, Duration::from_secs(2));
    world.run(Duration::from_secs(1));
    assert_eq!(world.nodes[0].rows[&number].0.len(), 302);
}

#[test]
fn a_question_reaches_everybody_and_counts_the_silent() {
    let mut world = tree(14, 40, 1);
    let number = world.ask(17, Duration::from_secs(2));
    world.run(Duration::from_millis(50));
    let (rows, missing) = &world.nodes[17].rows[&number];
    assert_eq!((rows.len(), *missing), (40, Some(0)));
    // n1 with its subtree of 13 answers too late.
    world.stall(1, Duration::from_millis(900));
    let number = world.ask(3, Duration::from_millis(500));
    world.run(Duration::from_millis(600));
    let (rows, missing) = &world.nodes[3].rows[&number];
    assert_eq!((rows.len(), *missing), (27, Some(13)));
}

/// What n`home` finds of `count` slots it needs all of, and how long the answer took.
fn need(world: &mut World, home: usize, count: u32) -> (usize, Duration) {
    let app = world.open(home);
    let asker = world.asker(home, app, None);
    let asked = world.now();
    let request = world.request(home, asker, 1, Want { count, ..want() }, count);
    let found = world.answer(home, request).len();
    let took = world.now() - asked;
    world.close(home, app);
    (found, took)
}

#[test]
fn what_has_just_joined_is_found_by_whoever_needs_it() {
    for seed in 0..40 {
        // A chain grows by one node deep below; nobody above knows of its slots yet.
        let mut world = World::new(Options { seed, ..Options::default() });
        world.grow(5, 1, true, |n| n.checked_sub(1));
        world.run(Duration::from_secs(3));
        let last = world.add(2);
        world.nodes[last].join = Some((vec![world.nodes[4].me.clone()], true));
        world.start(last);
        assert!(world.run_until(Duration::from_secs(1), |world| world.parent(last).is_some()));
        let known = world.nodes[0].core().summary().slots_free;
        assert_eq!((known, need(&mut world, 0, 7).0), (5, 7), "seed {seed}");
        world.run(Duration::from_secs(1));
        world.check_quiet().unwrap();
    }
}

#[test]
fn what_has_just_come_free_is_found_by_whoever_needs_it() {
    for seed in 0..40 {
        let mut world = tree(seed, 22, 2);
        let app = world.open(17);
        assert_eq!(world.allocate(17, app, 1, 44).len(), 44);
        world.run(Duration::from_secs(1));
        world.close(17, app);
        // The releases are still on their way.
        assert_eq!(need(&mut world, 5, 44).0, 44, "seed {seed}");
        world.run(Duration::from_secs(1));
        world.check_quiet().unwrap();
    }
}

#[test]
fn slots_that_an_answer_shows_are_found_at_once() {
    for seed in 0..40 {
        let mut world = World::new(Options { seed, ..Options::default() });
        world.grow(6, 1, true, |n| n.checked_sub(1));
        let asked = |world: &mut World| {
            let number = world.ask(0, Duration::from_secs(2));
            world.run_until(Duration::from_secs(3), |world| world.nodes[0].rows[&number].1.is_some());
            world.nodes[0].rows[&number].0.len()
        };
        while asked(&mut world) < 6 {
            world.run(Duration::from_millis(1));
        }
        let (found, took) = need(&mut world, 0, 6);
        assert_eq!(found, 6, "seed {seed}");
        assert!(took < Duration::from_millis(2), "seed {seed}: it was searched for twice: {took:?}");
    }
}

#[test]
fn whoever_is_refused_was_sought_for_twice_and_holds_nothing_meanwhile() {
    let mut world = tree(15, 13, 1);
    let app = world.open(4);
    let asker = world.asker(4, app, None);
    let request = world.request(4, asker.clone(), 1, Want { count: 14, ..want() }, 14);
    world.run(Duration::from_millis(50));
    assert!(!world.nodes[4].apps[&app].found.contains_key(&request), "it is to be sought again");
    let free = |world: &World| world.nodes.iter().map(|node| node.core().slots().0).sum::<u16>();
    assert_eq!(free(&world), 13);
    // Asked again by a program that lost patience, it is still answered once.
    world.request(4, asker.clone(), 1, Want { count: 14, ..want() }, 14);
    assert!(world.answer(4, request).is_empty());
    world.run(Duration::from_secs(1));
    let sent = world.messages();
    world.request(4, asker.clone(), 1, Want { count: 14, ..want() }, 14);
    assert_eq!((world.messages(), free(&world)), (sent, 13));
    // One that is cancelled meanwhile is not searched for again.
    for wait_ms in [0, 50, 150, 151] {
        let request = world.request(4, asker.clone(), 2 + wait_ms, Want { count: 14, ..want() }, 14);
        world.run(Duration::from_millis(wait_ms.into()));
        world.input(4, Input::CancelRequest(request));
        world.run(Duration::from_secs(6));
        assert_eq!(free(&world), 13);
        world.check_quiet().unwrap();
    }
    world.close(4, app);
}
