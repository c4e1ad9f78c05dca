//! What programs do in a run under faults.

use crate::programs::{plugin, want};
use crate::world::World;
use core::time::Duration;
use mutirao_tree::{Accept, Input};
use mutirao_wire::AppId;
use mutirao_wire::node::{Bundle, Layout, Want};
use mutirao_wire::wait::Wait;

/// Some program does something: it comes, asks, gives back, cancels or goes.
pub(crate) fn work(world: &mut World, sequence: u32) {
    let count = world.nodes.len();
    let index = world.random.below(count);
    if world.nodes[index].core.is_none() || world.stalled(index) {
        return;
    }
    let apps: Vec<AppId> = world.nodes[index].apps.keys().copied().collect();
    let some = apps.get(world.random.below(apps.len().max(1))).copied();
    match (world.random.below(10), some) {
        (0, Some(app)) => world.close(index, app),
        (1 | 2, Some(app)) => {
            let mut leases: Vec<_> = world.nodes[index].apps[&app].leases.keys().copied().collect();
            leases.truncate(1 + world.random.below(3));
            world.give_back(index, app, leases);
        }
        (3, Some(app)) => cancel_last(world, index, app),
        (_, app) => {
            let app = app.filter(|_| world.random.chance(60)).unwrap_or_else(|| come(world, index));
            ask(world, index, app, sequence);
        }
    }
}

/// Applications that may go on elsewhere do, or new ones come.
pub(crate) fn go_on(world: &mut World) {
    let count = world.nodes.len();
    let is_there = |world: &World, index: usize| world.nodes[index].core.is_some() && !world.stalled(index);
    let (from, chance) = (world.random.below(count), world.random.chance(50));
    if !chance || !is_there(world, from) {
        return;
    }
    let wanders = |app: &&crate::app::App| !app.homes.is_empty();
    let Some(app) = world.nodes[from].apps.values().find(wanders).map(|app| app.id) else {
        let homes = [from, world.random.below(count), world.random.below(count)];
        world.open_with_homes(&homes);
        return;
    };
    let homes: Vec<usize> =
        world.nodes[from].apps[&app].homes.iter().map(|home| world.number(*home)).collect();
    let to = homes[world.random.below(homes.len())];
    let Some(next) = world.successor(from, to, app) else { return };
    // The first has ended, dies with its node, or lives on.
    match world.random.below(3) {
        0 => world.close(from, app),
        1 => {
            world.programs_gone(from);
            let silently = world.random.chance(50);
            world.crash(from, silently);
            let long = world.random.between(Duration::ZERO, Duration::from_secs(15));
            world.nodes[from].returning = false;
            world.start_after(from, long);
        }
        _ => {}
    }
    let pause = world.random.between(Duration::ZERO, Duration::from_secs(5));
    world.run(pause);
    if is_there(world, to) {
        world.succeed(to, next);
    }
}

fn come(world: &mut World, index: usize) -> AppId {
    if world.options.calls { world.open_program(index) } else { world.open(index) }
}

fn ask(world: &mut World, index: usize, app: AppId, sequence: u32) {
    let asker = world.asker(index, app, world.options.calls.then(|| plugin(1)));
    let layout = if world.random.chance(30) { Layout::Spread } else { Layout::Near };
    let bundle = Bundle {
        slots: 1 + world.random.below(2) as u16,
        exclusive: world.random.chance(10),
        limit_s: world.random.chance(20).then_some(2),
        ..Bundle::default()
    };
    let most = [8, 8, 64][world.random.below(3)];
    let count = 1 + world.random.below(most) as u32;
    let at_least = if world.random.chance(20) { count } else { 0 };
    let want = Want { bundle, count, layout, ..want() };
    let wait = world.random.chance(25).then(|| Wait {
        priority: world.random.below(3) as i8 - 1,
        patience_ms: world.random.chance(50).then_some(5000),
    });
    world.request_waiting(index, asker.clone(), sequence, want.clone(), at_least, wait);
    if world.random.chance(10) {
        // A program that lost patience asks again.
        let pause = world.random.between(Duration::ZERO, Duration::from_millis(5));
        world.run(pause);
        if world.nodes[index].core.is_some() && world.nodes[index].apps.contains_key(&app) {
            world.request_waiting(index, asker, sequence, want, at_least, wait);
        }
    }
}

fn cancel_last(world: &mut World, index: usize, app: AppId) {
    let last = world.nodes[index].apps[&app].open.keys().next_back().copied();
    let Some(request) = last else { return };
    world.input(index, Input::CancelRequest(request));
    let known = world.nodes[index].apps.get(&app);
    let grants = known.and_then(|app| app.found.get(&request)).map(|found| found.1.clone());
    let leases: Vec<_> = grants.unwrap_or_default().iter().map(|grant| grant.lease()).collect();
    world.give_back(index, app, leases);
}

/// Nobody waits for slots any longer.
pub(crate) fn lose_patience(world: &mut World) {
    for index in world.up() {
        // One by one: where one waits no longer, the next may be served by that.
        loop {
            let next = world.nodes[index].core().waiting().next();
            let Some(request) = next else { break };
            world.input(index, Input::CancelRequest(request));
        }
    }
}

/// Once a pool has settled: whatever is free and lent to strangers is found from any node.
pub(crate) fn all_slots_can_be_had(world: &mut World) -> Result<(), String> {
    let lends = |world: &World, index: usize, home: usize| {
        index == home || world.nodes[index].policy.accept == Accept::All
    };
    let home = world.random.below(world.nodes.len());
    let expected: u32 = (0..world.nodes.len())
        .filter(|index| lends(world, *index, home))
        .map(|index| world.nodes[index].core())
        .map(|core| u32::from(core.slots().0 - core.kept()))
        .sum();
    if expected == 0 {
        return Ok(());
    }
    let app = world.open(home);
    let got = world.allocate(home, app, 1, expected + 1).len() as u32;
    if got != expected {
        return Err(format!("of {expected} free slots n{home} found {got}"));
    }
    world.close(home, app);
    world.run(Duration::from_secs(8));
    world.check_quiet()
}
