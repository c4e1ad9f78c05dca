//! The life and death of leases.

use core::time::Duration;
use mutirao_sim::{Options, World, want};
use mutirao_tree::{Input, Policy};
use mutirao_wire::lease::{LeaseEnd, WorkerState};
use mutirao_wire::local::LeaseChange;
use mutirao_wire::node::{Bundle, Want};
use mutirao_wire::{AppId, Epoch, LeaseId};

/// Three nodes in a row, of two slots each; an application on the last holds all six.
fn row() -> (World, AppId, Vec<LeaseId>) {
    let mut world = World::new(Options { seed: 5, ..Options::default() });
    world.grow(3, 2, true, |n| n.checked_sub(1));
    world.run(Duration::from_secs(3));
    let app = world.open(2);
    let grants = world.allocate(2, app, 1, 6);
    assert_eq!(grants.len(), 6);
    world.run(Duration::from_millis(50));
    world.check_quiet().unwrap();
    let of_first = grants.iter().filter(|grant| grant.lender.name == "n0").map(|grant| grant.lease());
    let of_first = of_first.collect();
    (world, app, of_first)
}

fn free(world: &World) -> Vec<u16> {
    world.nodes.iter().map(|node| node.core.as_ref().map_or(0, |core| core.slots().0)).collect()
}

#[test]
fn an_application_that_ends_frees_its_slots_at_once() {
    let (mut world, app, _) = row();
    assert_eq!(free(&world), [0, 0, 0]);
    world.close(2, app);
    world.run(Duration::from_millis(5));
    assert_eq!(free(&world), [2, 2, 2]);
    world.run(Duration::from_millis(100));
    world.check_quiet().unwrap();
}

#[test]
fn leases_outlive_their_first_life_by_the_link_alone() {
    let (mut world, app, _) = row();
    let before = world.messages();
    world.run(Duration::from_secs(120));
    assert_eq!(free(&world), [0, 0, 0]);
    assert_eq!(world.nodes[2].apps[&app].leases.len(), 6);
    assert_eq!(world.messages(), before, "there is no renewal message");
}

#[test]
fn leases_of_a_dead_home_lapse_and_are_free_then_only() {
    let (mut world, _, _) = row();
    world.nodes[2].apps.clear();
    world.crash(2, true);
    world.run(Duration::from_secs(11));
    assert_eq!(free(&world), [0, 0, 0], "silence of up to 2 s, then 10 s");
    world.run(Duration::from_secs(2));
    assert_eq!(free(&world)[..2], [2, 2]);
}

#[test]
fn a_home_is_told_of_a_dead_lender() {
    let (mut world, app, of_first) = row();
    world.crash(0, false);
    world.start_after(0, Duration::from_secs(1));
    world.run(Duration::from_secs(3));
    for lease in &of_first {
        let news = world.nodes[2].apps[&app].news_of(*lease);
        assert_eq!(news, [LeaseChange::Broken, LeaseChange::Ended(LeaseEnd::LenderLost)]);
    }
    // One that does not come back is given up after the lapse and a margin.
    let (mut world, app, of_first) = row();
    world.crash(0, true);
    world.run(Duration::from_secs(16));
    assert_eq!(
        world.nodes[2].apps[&app].news_of(of_first[0]),
        [LeaseChange::Broken, LeaseChange::Ended(LeaseEnd::LenderLost)]
    );
}

#[test]
fn a_cut_shorter_than_the_lapse_leaves_the_lease_intact() {
    let (mut world, app, of_first) = row();
    world.cut(0, 2, Duration::from_secs(6));
    world.run(Duration::from_secs(12));
    for lease in &of_first {
        let news = world.nodes[2].apps[&app].news_of(*lease);
        assert_eq!(news, [LeaseChange::Broken, LeaseChange::Restored]);
    }
    assert_eq!(free(&world), [0, 0, 0]);
    assert_eq!(world.nodes[0].workers.len(), 2, "the workers are the same");
    world.check_quiet().unwrap();
}

#[test]
fn a_cut_longer_than_the_lapse_ends_it_on_both_sides() {
    let (mut world, app, of_first) = row();
    world.cut(0, 2, Duration::from_secs(14));
    world.run(Duration::from_secs(20));
    for lease in &of_first {
        let news = world.nodes[2].apps[&app].news_of(*lease);
        assert!(matches!(news[..], [LeaseChange::Broken, LeaseChange::Ended(_)]), "{news:?}");
    }
    assert_eq!(free(&world), [2, 0, 0]);
    world.check_quiet().unwrap();
}

#[test]
fn a_restarted_home_takes_its_leases_up_again() {
    let (mut world, app, of_first) = row();
    world.crash(2, false);
    world.run(Duration::from_secs(2));
    world.start(2);
    let program = &world.nodes[2].apps[&app];
    let leases = program.leases.iter().map(|(lease, lender)| (lease.serial, lender.clone())).collect();
    world
        .input(2, Input::Held { app, epoch: Epoch(2), homes: Vec::new(), rings: true, plugin: None, leases });
    world.run(Duration::from_secs(5));
    let program = &world.nodes[2].apps[&app];
    assert_eq!(program.news_of(of_first[0]), [LeaseChange::Restored]);
    assert_eq!(program.leases.len(), 4, "the two on the restarted node itself are lost");
    assert_eq!(free(&world), [0, 0, 2]);
    let epochs: Vec<Epoch> = world.nodes[0].core().leases().map(|record| record.epoch).collect();
    assert_eq!(epochs, [Epoch(2), Epoch(2)]);
    world.check_quiet().unwrap();
}

#[test]
fn limits_reclaims_and_kills_are_told() {
    let mut world = World::new(Options { seed: 6, ..Options::default() });
    world.grow(2, 4, true, |n| n.checked_sub(1));
    world.run(Duration::from_secs(3));
    let policy = Policy { keep_max_s: Some(9), ..world.nodes[0].policy.clone() };
    world.input(0, Input::Policy(policy));
    let app = world.open(1);
    let asker = world.asker(1, app, None);
    let filler = world.allocate(1, app, 1, 4);
    assert!(filler.iter().all(|grant| grant.lender.name == "n1"));
    let mut leases = Vec::new();
    for (sequence, limit_s, reclaimable) in
        [(2, Some(3), true), (3, None, true), (4, Some(9), false), (5, Some(9), false)]
    {
        let bundle = Bundle { limit_s, reclaimable, ..Bundle::default() };
        let request = world.request(1, asker.clone(), sequence, Want { bundle, ..want() }, 0);
        leases.push(world.answer(1, request)[0].lease());
    }
    for lease in &leases {
        world.input(0, Input::End { serial: lease.serial, end: LeaseEnd::Reclaimed });
    }
    world.run(Duration::from_millis(100));
    let news = |world: &World, at: usize| world.nodes[1].apps[&app].news_of(leases[at]);
    assert_eq!(news(&world, 1), [LeaseChange::Ended(LeaseEnd::Reclaimed)]);
    assert_eq!(news(&world, 2), []);
    world.input(0, Input::End { serial: leases[2].serial, end: LeaseEnd::Killed("test".into()) });
    world.run(Duration::from_secs(4));
    assert_eq!(news(&world, 2), [LeaseChange::Ended(LeaseEnd::Killed("test".into()))]);
    assert_eq!(news(&world, 0), [LeaseChange::Ended(LeaseEnd::Reclaimed)]);
    assert_eq!(free(&world), [3, 0]);
    let bundle = Bundle { limit_s: Some(3), ..Bundle::default() };
    let request = world.request(1, asker, 6, Want { bundle, ..want() }, 0);
    let lease = world.answer(1, request)[0].lease();
    world.run(Duration::from_secs(4));
    assert_eq!(world.nodes[1].apps[&app].news_of(lease), [LeaseChange::Ended(LeaseEnd::LimitReached)]);
    world.check_quiet().unwrap();
}

#[test]
fn a_grant_nobody_confirms_is_taken_back() {
    let mut world = World::new(Options { seed: 7, ..Options::default() });
    world.grow(3, 1, true, |n| n.checked_sub(1));
    world.run(Duration::from_secs(3));
    // The home cannot reach the lender directly; through the tree it can.
    world.cut(0, 2, Duration::from_secs(20));
    let app = world.open(2);
    assert_eq!(world.allocate(2, app, 1, 3).len(), 3);
    world.run(Duration::from_secs(9));
    assert_eq!(free(&world), [1, 0, 0]);
    assert_eq!(world.nodes[2].apps[&app].leases.len(), 2);
    world.check_quiet().unwrap();
}

#[test]
fn a_draining_node_lends_no_more() {
    let (mut world, app, _) = row();
    world.input(0, Input::Drain { grace: None });
    world.run(Duration::from_millis(100));
    assert_eq!(world.nodes[0].core().leases().count(), 2);
    world.close(2, app);
    world.run(Duration::from_millis(100));
    let other = world.open(1);
    assert_eq!(world.allocate(1, other, 1, 6).len(), 4);
}

#[test]
fn a_link_nobody_needs_is_closed() {
    let (mut world, app, _) = row();
    let (first, last) = (world.nodes[0].me.id, world.nodes[2].me.id);
    assert!(world.nodes[0].core().needs(last) && world.nodes[2].core().needs(first));
    world.run(Duration::from_secs(5));
    assert!(world.is_linked(0, 2));
    world.close(2, app);
    world.run(Duration::from_secs(5));
    assert!(!world.nodes[0].core().needs(last) && !world.nodes[2].core().needs(first));
    assert!(!world.is_linked(0, 2));
    assert!(world.is_linked(0, 1) && world.is_linked(1, 2), "the tree keeps its edges");
    world.check_quiet().unwrap();
}

/// Found by the seeds 289, 1444 and 1972 with calls: such a lease was never used.
#[test]
fn what_was_said_of_a_lease_while_its_home_was_out_of_reach_is_said_again() {
    let (mut world, app, of_first) = row();
    let lease = of_first[0];
    world.cut(0, 2, Duration::from_secs(4));
    world.run(Duration::from_secs(3));
    assert_eq!(world.nodes[2].apps[&app].news_of(lease), [LeaseChange::Broken]);
    world.input(0, Input::WorkerNews { serial: lease.serial, state: WorkerState::Ready });
    world.input(0, Input::Drain { grace: None });
    world.run(Duration::from_secs(9));
    let news = world.nodes[2].apps[&app].news_of(lease);
    let again = LeaseChange::Reclaiming { grace_ms: None };
    assert_eq!(news, [LeaseChange::Broken, LeaseChange::Restored, LeaseChange::Ready, again]);
}

/// Five nodes in a row, of two slots each; an application whose homes are the last three holds all ten through the
/// last. Also its two leases on each node, by number.
fn with_homes() -> (World, AppId, Vec<Vec<LeaseId>>) {
    let mut world = World::new(Options { seed: 8, ..Options::default() });
    world.grow(5, 2, true, |n| n.checked_sub(1));
    world.run(Duration::from_secs(3));
    let app = world.open_with_homes(&[4, 3, 2]);
    let grants = world.allocate(4, app, 1, 10);
    assert_eq!(grants.len(), 10);
    world.run(Duration::from_millis(300));
    world.check_quiet().unwrap();
    let of = |node: usize| {
        let name = format!("n{node}");
        grants.iter().filter(|grant| grant.lender.name == name).map(|grant| grant.lease()).collect()
    };
    let leases = (0..5).map(of).collect();
    (world, app, leases)
}

/// The home, epoch and state of each lease on a node.
fn homes(world: &World, node: usize) -> Vec<(String, Epoch)> {
    let record = |record: &mutirao_tree::LeaseRecord| (record.home().name.clone(), record.epoch);
    world.nodes[node].core().leases().map(record).collect()
}

#[test]
fn another_home_goes_on_with_the_leases_of_one_that_died_and_their_workers_never_notice() {
    for silently in [false, true] {
        let (mut world, app, leases) = with_homes();
        let workers: Vec<_> = world.nodes[..4].iter().map(|node| node.workers.clone()).collect();
        world.crash(4, silently);
        world.run(Duration::from_secs(4));
        world.go_on(4, 3, app);
        world.nodes[4].apps.clear();
        world.run(Duration::from_secs(20));
        for (node, its) in leases.iter().enumerate().take(3) {
            assert_eq!(homes(&world, node), vec![("n3".to_owned(), Epoch(16)); 2]);
            assert_eq!(world.nodes[3].apps[&app].news_of(its[0]), [LeaseChange::Restored]);
        }
        assert_eq!(homes(&world, 3), vec![("n3".to_owned(), Epoch(16)); 2], "its own, lent to the first");
        let now: Vec<_> = world.nodes[..4].iter().map(|node| node.workers.clone()).collect();
        assert_eq!(now, workers);
        // And a third time, with what the second had.
        world.crash(3, silently);
        world.run(Duration::from_secs(3));
        world.go_on(3, 2, app);
        world.nodes[3].apps.clear();
        world.run(Duration::from_secs(20));
        assert_eq!(homes(&world, 0), vec![("n2".to_owned(), Epoch(24)); 2]);
        world.close(2, app);
        world.run(Duration::from_secs(11));
        assert_eq!(free(&world)[..3], [2, 2, 2], "nobody went on");
    }
}

#[test]
fn where_two_homes_live_the_higher_epoch_has_the_lease_and_the_other_is_told() {
    let (mut world, app, leases) = with_homes();
    // The first cannot be reached by the others, but by those who lend to it.
    world.cut(3, 4, Duration::from_secs(30));
    world.cut(2, 4, Duration::from_secs(30));
    world.run(Duration::from_secs(4));
    world.go_on(4, 3, app);
    world.run(Duration::from_secs(2));
    for node in [0, 1] {
        assert_eq!(homes(&world, node), vec![("n3".to_owned(), Epoch(16)); 2]);
        let news = world.nodes[4].apps[&app].news_of(leases[node][0]);
        assert_eq!(news, [LeaseChange::Ended(LeaseEnd::TakenOver)]);
    }
    // What the first says now, or a node that is no home, is refused.
    for (node, epoch) in [(4, 9), (1, 99)] {
        let lender = world.nodes[0].me.clone();
        let leases: Vec<_> = leases[0].iter().map(|lease| (lease.serial, lender.clone())).collect();
        let mut intruder = mutirao_sim::App::new(app);
        intruder.leases = leases
            .iter()
            .map(|(serial, lender)| {
                (
                    LeaseId { lender: lender.id, incarnation: lender.incarnation, serial: *serial },
                    lender.clone(),
                )
            })
            .collect();
        world.nodes[node].apps.insert(app, intruder);
        world.input(
            node,
            Input::Held { app, epoch: Epoch(epoch), homes: Vec::new(), rings: true, plugin: None, leases },
        );
        world.run(Duration::from_secs(2));
        assert!(world.nodes[node].apps[&app].leases.is_empty(), "n{node}");
    }
    assert_eq!(homes(&world, 0), vec![("n3".to_owned(), Epoch(16)); 2]);
    world.close(4, app);
    world.close(1, app);
    world.run(Duration::from_secs(60));
    world.check_quiet().unwrap();
    assert_eq!(homes(&world, 0), vec![("n3".to_owned(), Epoch(16)); 2]);
}

#[test]
fn a_program_that_is_gone_leaves_its_leases_elsewhere_for_a_while_to_its_other_homes() {
    let (mut world, app, leases) = with_homes();
    world.close(4, app);
    world.run(Duration::from_millis(100));
    assert_eq!(free(&world), [0, 0, 0, 0, 2], "only its own memory went with it");
    world.run(Duration::from_secs(9));
    assert_eq!(free(&world)[..4], [0, 0, 0, 0]);
    world.run(Duration::from_secs(2));
    assert_eq!(free(&world), [2; 5]);
    world.check_quiet().unwrap();

    // It comes back to its node, and names some of them.
    let (mut world, app, again) = with_homes();
    assert_eq!(again, leases);
    world.close(4, app);
    world.run(Duration::from_secs(5));
    let lender = world.nodes[0].me.clone();
    let mut back = mutirao_sim::App::new(app);
    back.leases.insert(again[0][0], lender.clone());
    world.nodes[4].apps.insert(app, back);
    let held = vec![(again[0][0].serial, lender)];
    let homes = vec![world.nodes[3].me.id, world.nodes[4].me.id];
    world.input(4, Input::Held { app, epoch: Epoch(16), homes, rings: true, plugin: None, leases: held });
    world.run(Duration::from_secs(12));
    assert_eq!(world.nodes[4].apps[&app].news_of(again[0][0]), [LeaseChange::Restored]);
    assert_eq!(free(&world), [1, 2, 2, 2, 2]);
    assert_eq!(world.nodes[0].core().leases().next().map(|record| record.epoch), Some(Epoch(16)));
    world.check_quiet().unwrap();
}

#[test]
fn a_home_that_goes_down_in_order_leaves_leases_elsewhere_to_the_others() {
    let (mut world, app, _) = with_homes();
    let workers = world.nodes[0].workers.clone();
    let before = world.nodes[4].apps[&app].leases.clone();
    world.input(4, Input::Leave);
    world.run(Duration::from_millis(100));
    let mut program = mutirao_sim::App::new(app);
    (program.epoch, program.leases) = (Epoch(8), before);
    program.homes = [2, 3, 4].map(|node| world.nodes[node].me.id).to_vec();
    world.nodes[4].apps.insert(app, program);
    world.crash(4, false);
    world.run(Duration::from_secs(4));
    world.go_on(4, 3, app);
    world.nodes[4].apps.clear();
    world.run(Duration::from_secs(15));
    assert_eq!(world.nodes[0].workers, workers);
    assert_eq!(homes(&world, 0), vec![("n3".to_owned(), Epoch(16)); 2]);
    world.check_quiet().unwrap();
}
