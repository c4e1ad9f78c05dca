//! Requests that wait for slots.

use core::time::Duration;
use mutirao_sim::{Options, World, want};
use mutirao_tree::{Input, Settings};
use mutirao_wire::node::{Asker, Bundle, Grant, Want};
use mutirao_wire::wait::Wait;
use mutirao_wire::{AppId, LeaseId, RequestId};

const MS: fn(u64) -> Duration = Duration::from_millis;

/// A tree of three children each.
fn tree(seed: u64, count: usize, slots: u16) -> World {
    let settings = Settings { climb: MS(100), ..Settings::default() };
    let mut world = World::new(Options { seed, settings, ..Options::default() });
    world.grow(count, slots, true, |n| (n > 0).then(|| (n - 1) / 3));
    world.run(Duration::from_secs(3));
    world.check_quiet().unwrap();
    world
}

/// Asks for all of `count` single slots, and waits for them.
fn queue(world: &mut World, home: usize, asker: Asker, count: u32, priority: i8) -> RequestId {
    let wait = Wait { priority, patience_ms: None };
    ask(world, home, asker, 1, Want { count, ..want() }, count, wait)
}

fn ask(
    world: &mut World,
    home: usize,
    asker: Asker,
    sequence: u32,
    want: Want,
    at_least: u32,
    wait: Wait,
) -> RequestId {
    let request = RequestId { app: asker.app, sequence, attempt: 0 };
    let wait = Some((wait, world.now().0 / 1000));
    let budget = Duration::from_secs(2);
    world.input(home, Input::Request { request, want, at_least, asker, budget, wait });
    request
}

fn limited(count: u32, limit_s: u32) -> Want {
    Want { count, bundle: Bundle { limit_s: Some(limit_s), ..Bundle::default() }, ..want() }
}

fn app(world: &mut World, home: usize) -> (AppId, Asker) {
    let app = world.open(home);
    (app, world.asker(home, app, None))
}

/// The answer to a request, if there is one.
fn answer(world: &World, home: usize, request: RequestId) -> Option<Vec<Grant>> {
    let found = world.nodes[home].apps.get(&request.app)?.found.get(&request)?;
    Some(found.1.clone())
}

/// Takes every slot; one application each `share` slots, whose leases are returned.
fn fill(world: &mut World, home: usize, slots: u32, share: u32) -> Vec<(AppId, Vec<LeaseId>)> {
    let mut all = Vec::new();
    for _ in 0..slots / share {
        let app = world.open(home);
        let grants = world.allocate(home, app, 1, share);
        assert_eq!(grants.len(), share as usize);
        all.push((app, grants.iter().map(Grant::lease).collect()));
    }
    world.run(MS(200));
    all
}

fn kept(world: &World) -> u32 {
    world.up().into_iter().map(|n| u32::from(world.nodes[n].core().kept())).sum()
}

#[test]
fn a_request_that_waits_is_served_when_enough_is_given_back() {
    let mut world = tree(1, 13, 2);
    let held = fill(&mut world, 3, 26, 2);
    let (_, asker) = app(&mut world, 7);
    let gang = queue(&mut world, 7, asker, 8, 0);
    for (n, (app, leases)) in held.into_iter().enumerate() {
        world.run(MS(700));
        assert_eq!(answer(&world, 7, gang).is_some(), n >= 4, "after {n}");
        if n < 4 {
            world.give_back(3, app, leases);
        }
    }
    assert_eq!(answer(&world, 7, gang).unwrap().len(), 8);
    world.run(MS(500));
    assert_eq!(kept(&world), 0);
    world.check_quiet().unwrap();
}

#[test]
fn the_slots_that_come_free_reach_who_waits_in_a_few_round_trips() {
    let mut world = tree(2, 40, 1);
    let held = fill(&mut world, 0, 40, 1);
    let (_, asker) = app(&mut world, 39);
    let one = queue(&mut world, 39, asker, 1, 0);
    world.run(Duration::from_secs(3));
    let (app, leases) = held[20].clone();
    let freed = world.now();
    world.give_back(0, app, leases);
    world.run(MS(100));
    let (at, grants, _) = world.nodes[39].apps[&one.app].found[&one].clone();
    assert_eq!(grants.len(), 1);
    // The worker takes up to 3 ms to end.
    assert!(at - freed < MS(6), "{:?}", at - freed);
}

#[test]
fn a_stream_of_small_requests_does_not_starve_a_gang() {
    let mut world = tree(3, 13, 2);
    let mut small: Vec<(usize, AppId, u64)> = Vec::new();
    let (_, asker) = app(&mut world, 6);
    let mut gang = None;
    let mut refused = 0;
    for tick in 0..1200u64 {
        // Each lives for 200 ms; there are always more than fit.
        for home in [1, 5, 12] {
            let (app, asker) = app(&mut world, home);
            world.request(home, asker, 1, want(), 1);
            small.push((home, app, tick + 20));
        }
        if tick == 100 {
            gang = Some(queue(&mut world, 6, asker.clone(), 20, 0));
        }
        world.run(MS(10));
        small.retain(|(home, app, ends)| {
            let over = *ends <= tick;
            if over {
                refused += usize::from(world.nodes[*home].apps[app].leases.is_empty());
                world.close(*home, *app);
            }
            !over
        });
        if gang.is_some_and(|gang| answer(&world, 6, gang).is_some()) {
            assert!(refused > 100, "the pool was not even full");
            return;
        }
    }
    panic!("the gang was starved");
}

#[test]
fn two_gangs_that_need_more_than_half_each_are_served_one_after_the_other() {
    for seed in 0..20 {
        let mut world = tree(seed, 13, 2);
        let held = fill(&mut world, 0, 26, 1);
        let (a, asker_a) = app(&mut world, 5);
        let (b, asker_b) = app(&mut world, 11);
        let one = queue(&mut world, 5, asker_a, 16, 0);
        let other = queue(&mut world, 11, asker_b, 16, 0);
        for (app, _) in held {
            let pause = world.random.between(Duration::ZERO, MS(60));
            world.run(pause);
            world.close(0, app);
        }
        world.run(MS(800));
        let first = [answer(&world, 5, one).is_some(), answer(&world, 11, other).is_some()];
        assert_eq!(first.iter().filter(|served| **served).count(), 1, "seed {seed}: {first:?}");
        if first[0] {
            world.close(5, a)
        } else {
            world.close(11, b)
        }
        world.run(MS(800));
        let (left, home) = if first[0] { (other, 11) } else { (one, 5) };
        assert_eq!(answer(&world, home, left).map(|grants| grants.len()), Some(16), "seed {seed}");
    }
}

#[test]
fn priority_comes_first_then_age() {
    let mut world = tree(5, 13, 1);
    let held = fill(&mut world, 0, 13, 1);
    let mut asked = Vec::new();
    for (home, priority) in [(4, 0), (9, 0), (12, 5), (7, -1), (2, 5)] {
        let (_, asker) = app(&mut world, home);
        asked.push((home, queue(&mut world, home, asker, 1, priority)));
        world.run(MS(20));
    }
    world.run(Duration::from_secs(2));
    let mut order = Vec::new();
    for (app, leases) in held.into_iter().take(5) {
        world.give_back(0, app, leases);
        world.run(MS(100));
        let served = asked.iter().position(|(home, request)| answer(&world, *home, *request).is_some());
        order.push(asked.remove(served.expect("somebody is served")).0);
    }
    assert_eq!(order, [12, 2, 4, 9, 7]);
}

#[test]
fn two_users_share_over_time_whoever_asks_more_often() {
    let mut world = tree(6, 13, 1);
    let held = fill(&mut world, 0, 13, 1);
    // One user asks for twenty before the other asks for five.
    let mut asked = Vec::new();
    for n in 0..25 {
        let (home, user) = if n < 20 { (4, "many") } else { (8, "few") };
        let app = world.open(home);
        let asker = Asker { token: user.into(), ..world.asker(home, app, None) };
        asked.push((user, home, queue(&mut world, home, asker, 1, 0)));
        world.run(MS(5));
    }
    world.run(Duration::from_secs(2));
    let mut order = Vec::new();
    for (app, leases) in held.into_iter().take(10) {
        world.give_back(0, app, leases);
        world.run(MS(100));
        let served = asked.iter().position(|(_, home, request)| answer(&world, *home, *request).is_some());
        order.push(asked.remove(served.expect("somebody is served")).0);
    }
    assert_eq!(order.iter().filter(|user| **user == "few").count(), 5, "{order:?}");
}

#[test]
fn a_short_job_runs_in_the_hole_before_a_gang_and_a_long_one_does_not() {
    let mut world = tree(7, 4, 2);
    // Six slots are lent for ten seconds, two are free; a gang waits for all eight.
    let (_, asker) = app(&mut world, 0);
    let begun = world.now();
    let request = world.request(0, asker, 1, limited(6, 10), 6);
    assert_eq!(world.answer(0, request).len(), 6);
    let (_, asker) = app(&mut world, 1);
    let gang = queue(&mut world, 1, asker, 8, 0);
    world.run(Duration::from_secs(3));
    assert_eq!(kept(&world), 2);
    for (limit_s, count) in [(None, 0), (Some(20), 0), (Some(4), 1)] {
        let (_, asker) = app(&mut world, 2);
        let bundle = Bundle { limit_s, ..Bundle::default() };
        let request = world.request(2, asker, 1, Want { bundle, ..want() }, 1);
        assert_eq!(world.answer(2, request).len(), count, "{limit_s:?}");
    }
    // One that waits passes, too, and its slot is back in time.
    let (_, asker) = app(&mut world, 3);
    let short = ask(&mut world, 3, asker, 1, limited(1, 1), 1, Wait::default());
    world.run(Duration::from_secs(1));
    assert_eq!(answer(&world, 3, short).map(|grants| grants.len()), Some(1));
    world.run(Duration::from_secs(8));
    let (at, grants, _) = world.nodes[1].apps[&gang.app].found[&gang].clone();
    assert_eq!(grants.len(), 8);
    assert!(at - begun < MS(10_050), "{:?}", at - begun);
}

#[test]
fn the_arbiter_dies_and_who_waits_is_served_all_the_same() {
    for seed in 0..10 {
        let mut world = tree(seed, 13, 2);
        let held = fill(&mut world, 12, 26, 2);
        let (_, asker) = app(&mut world, 7);
        let gang = queue(&mut world, 7, asker, 10, 0);
        world.run(Duration::from_secs(2));
        // The root decides by now. Its children join one another.
        for n in 2..4 {
            world.nodes[n].join = Some((vec![world.nodes[1].me.clone()], true));
            let (to, here) = world.nodes[n].join.clone().unwrap();
            world.input(n, Input::Join { to, here });
        }
        world.crash(0, seed % 2 == 0);
        world.run(Duration::from_secs(4));
        for (app, _) in held.into_iter().take(6) {
            world.close(12, app);
            world.run(MS(100));
        }
        world.run(Duration::from_secs(3));
        assert_eq!(answer(&world, 7, gang).map(|grants| grants.len()), Some(10), "seed {seed}");
        assert_eq!(kept(&world), 0, "seed {seed}");
    }
}

#[test]
fn who_no_longer_waits_leaves_nothing_behind() {
    let mut world = tree(9, 13, 1);
    let held = fill(&mut world, 0, 13, 1);
    let (gone, asker) = app(&mut world, 10);
    queue(&mut world, 10, asker, 5, 0);
    let (_, asker) = app(&mut world, 6);
    let cancelled = queue(&mut world, 6, asker, 5, 0);
    let (_, asker) = app(&mut world, 3);
    let wait = Wait { priority: 0, patience_ms: Some(2500) };
    let patient = ask(&mut world, 3, asker, 1, Want { count: 5, ..want() }, 5, wait);
    world.run(Duration::from_secs(2));
    for (app, _) in held.into_iter().take(3) {
        world.close(0, app);
    }
    world.run(MS(300));
    assert_eq!(kept(&world), 3);
    world.close(10, gone);
    world.input(6, Input::CancelRequest(cancelled));
    world.run(MS(100));
    assert_eq!(kept(&world), 3, "for the one that still waits");
    world.run(MS(300));
    assert_eq!(answer(&world, 3, patient).map(|grants| grants.len()), Some(0));
    assert_eq!(kept(&world), 0);
    assert_eq!(answer(&world, 6, cancelled), None);
    world.check_quiet().unwrap();
}

#[test]
fn what_the_pool_is_too_small_for_is_refused() {
    let mut world = tree(10, 13, 2);
    let (_, asker) = app(&mut world, 8);
    let request = queue(&mut world, 8, asker, 27, 0);
    world.run(Duration::from_secs(4));
    assert_eq!(answer(&world, 8, request).map(|grants| grants.len()), Some(0));
    // Also if it is only the owners who will not lend.
    for n in 0..10 {
        let mut policy = world.nodes[n].policy.clone();
        policy.accept = mutirao_tree::Accept::Own;
        world.nodes[n].policy = policy.clone();
        world.input(n, Input::Policy(policy));
    }
    let (_, asker) = app(&mut world, 11);
    let request = queue(&mut world, 11, asker, 9, 0);
    world.run(Duration::from_secs(5));
    assert_eq!(answer(&world, 11, request).map(|grants| grants.len()), Some(0));
    assert_eq!(kept(&world), 0);
}

#[test]
fn a_part_cut_off_keeps_nothing_for_ever() {
    let mut world = tree(11, 13, 2);
    let held = fill(&mut world, 0, 26, 2);
    let (_, asker) = app(&mut world, 12);
    let gang = queue(&mut world, 12, asker, 12, 0);
    world.run(Duration::from_secs(2));
    for (app, _) in held.iter().take(4) {
        world.close(0, *app);
    }
    world.run(MS(300));
    assert_eq!(kept(&world), 8);
    // n3 and what is below it: n10, n11, n12.
    let part = [3, 10, 11, 12];
    for a in part {
        for b in (0..13).filter(|b| !part.contains(b)) {
            world.cut(a, b, Duration::from_secs(30));
        }
    }
    world.run(Duration::from_secs(8));
    // The part is too small for it.
    assert_eq!(answer(&world, 12, gang).map(|grants| grants.len()), Some(0));
    assert_eq!(kept(&world), 0);
}

#[test]
fn nodes_whole_are_kept_until_they_are_idle() {
    let mut world = tree(12, 4, 4);
    let mut small = Vec::new();
    for _ in 0..16 {
        let (app, asker) = app(&mut world, 0);
        world.request(0, asker, 1, want(), 1);
        small.push(app);
    }
    world.run(MS(300));
    let (_, asker) = app(&mut world, 2);
    let bundle = Bundle { exclusive: true, ..Bundle::default() };
    let whole = ask(&mut world, 2, asker, 1, Want { bundle, ..want() }, 1, Wait::default());
    world.run(Duration::from_secs(1));
    // One slot of each node comes free, and nobody else gets it.
    let mut freed = 0;
    for app in small {
        let lender = world.nodes[0].apps[&app].leases.keys().next().map(|lease| lease.lender);
        if freed < 4 && lender == Some(world.nodes[1].me.id) {
            freed += 1;
            world.close(0, app);
            world.run(MS(100));
            let (_, asker) = self::app(&mut world, 3);
            let request = world.request(3, asker, 1, want(), 1);
            assert_eq!(world.answer(3, request).len(), 0, "after {freed}");
        }
    }
    assert_eq!(freed, 4);
    assert_eq!(answer(&world, 2, whole).map(|grants| grants[0].slots), Some(4));
}
