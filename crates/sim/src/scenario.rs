//! Pools under faults: nodes crash and return, links are cut, nodes stall, while programs come, ask,
//! give back and go. Then the faults stop, and everything must settle.

use crate::random::Random;
use crate::world::{Options, World, want};
use core::time::Duration;
use mutirao_tree::{Input, Settings};
use mutirao_wire::AppId;
use mutirao_wire::node::{Bundle, Layout, Want};

/// What happens in one run; follows from the seed.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// Machines.
    pub nodes: usize,
    /// Children before joiners are passed down.
    pub fan_out: usize,
    /// Steps of trouble.
    pub steps: usize,
    /// How often a step is a fault, per cent.
    pub faults: usize,
    /// The longest time of a message on a link.
    pub latency: Duration,
    /// An attach not completed for this long is void. When messages take about as long, each answer
    /// may come too late.
    pub commit: Duration,
    /// Whether the trace is kept as text.
    pub keep_trace: bool,
}

impl Plan {
    /// The plan that follows from a seed.
    pub fn new(seed: u64) -> Plan {
        let mut random = Random::new(seed.wrapping_mul(31));
        Plan {
            seed,
            nodes: 2 + random.below(14),
            fan_out: 2 + random.below(5),
            steps: 40 + random.below(80),
            faults: [0, 5, 15, 30][random.below(4)],
            latency: Duration::from_millis([2, 2, 30][random.below(3)]),
            commit: Duration::from_millis([2000, 150, 70][random.below(3)]),
            keep_trace: false,
        }
    }
}

/// Runs a plan; the world at its end, or what did not hold then.
///
/// # Panics
/// When something that must always hold does not.
pub fn run_faults(plan: &Plan) -> Result<World, String> {
    let settings = Settings { fan_out: plan.fan_out, commit: plan.commit, ..Settings::default() };
    let mut world = World::new(Options {
        seed: plan.seed,
        latency: (Duration::from_micros(30), plan.latency),
        settings,
        keep_trace: plan.keep_trace,
        ..Options::default()
    });
    for index in 0..plan.nodes {
        let slots = 1 + world.random.below(4) as u16;
        world.add(slots);
        if index > 0 {
            let first = world.nodes[0].me.clone();
            let other = world.random.below(index);
            let other = world.nodes[other].me.clone();
            world.nodes[index].join = Some((vec![other, first], false));
        }
    }
    for index in 0..plan.nodes {
        world.start(index);
    }
    let mut sequence = 0;
    for _ in 0..plan.steps {
        let pause = world.random.between(Duration::ZERO, Duration::from_millis(400));
        world.run(pause);
        if world.random.chance(plan.faults) {
            fault(&mut world);
        } else {
            sequence += 1;
            work(&mut world, sequence);
        }
    }
    // All shall find one another in the end, whatever they were told to join meanwhile.
    let first = world.nodes[0].me.clone();
    for index in 0..plan.nodes {
        let to = if index > 0 { vec![first.clone()] } else { Vec::new() };
        world.nodes[index].join = Some((to.clone(), false));
        world.input(index, Input::Join { to, here: false });
        if world.nodes[index].core.is_none() {
            world.start_after(index, Duration::ZERO);
        }
    }
    world.run(Duration::from_secs(60));
    world.check_quiet().map(|()| world)
}

fn fault(world: &mut World) {
    let count = world.nodes.len();
    let (a, b) = (world.random.below(count), world.random.below(count));
    let long = world.random.between(Duration::from_millis(10), Duration::from_secs(15));
    match world.random.below(8) {
        6 | 7 => {
            // Owners change their minds, several at a time.
            for _ in 0..1 + world.random.below(4) {
                let (a, b) = (world.random.below(count), world.random.below(count));
                let to = vec![world.nodes[b].me.clone()];
                let here = world.random.chance(70);
                world.nodes[a].join = Some((to.clone(), here));
                world.input(a, Input::Join { to, here });
                let pause = world.random.between(Duration::ZERO, Duration::from_millis(60));
                world.run(pause);
            }
        }
        0 | 1 if world.nodes[a].core.is_some() => {
            let silently = world.random.chance(50);
            // A node that dies takes its programs' connection with it; some come back, some do not.
            if world.random.chance(50) {
                world.nodes[a].apps.clear();
            }
            world.crash(a, silently);
            world.start_after(a, long);
            if !world.nodes[a].apps.is_empty() {
                return_apps(world, a, long);
            }
        }
        2 => {
            // A part is cut off.
            let within: Vec<bool> = (0..count).map(|_| world.random.chance(40)).collect();
            for a in 0..count {
                for b in a + 1..count {
                    if within[a] != within[b] {
                        world.cut(a, b, long);
                    }
                }
            }
        }
        3 => world.stall(a, long.min(Duration::from_millis(1200))),
        4 | 5 if a != b => world.cut(a, b, long),
        _ => {}
    }
}

/// The programs of a node that was restarted come back to it and name what they held.
fn return_apps(world: &mut World, index: usize, after: Duration) {
    world.run(after + Duration::from_millis(1));
    if world.nodes[index].core.is_none() {
        return;
    }
    let ids: Vec<AppId> = world.nodes[index].apps.keys().copied().collect();
    for id in ids {
        let Some(app) = world.nodes[index].apps.get_mut(&id) else { continue };
        app.epoch.0 += 1;
        let epoch = app.epoch;
        let leases = app.leases.iter().map(|(lease, lender)| (lease.serial, lender.clone())).collect();
        world.input(index, Input::Held { app: id, epoch, plugin: None, leases });
    }
}

fn work(world: &mut World, sequence: u32) {
    let count = world.nodes.len();
    let index = world.random.below(count);
    if world.nodes[index].core.is_none() {
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
        (3, Some(app)) => {
            let last = world.nodes[index].apps[&app].found.keys().next_back().copied();
            if let Some(request) = last {
                if let Some(app) = world.nodes[index].apps.get_mut(&app) {
                    for grant in app.found.get(&request).map(|f| f.1.clone()).unwrap_or_default() {
                        app.leases.remove(&grant.lease());
                    }
                }
                world.input(index, Input::CancelRequest(request));
                if let Some((_, grants, _)) =
                    world.nodes[index].apps.get_mut(&app).and_then(|app| app.found.get(&request).cloned())
                {
                    let leases = grants.iter().map(|grant| grant.lease()).collect();
                    world.give_back(index, app, leases);
                }
            }
        }
        (_, app) => {
            let app = app.filter(|_| world.random.chance(60)).unwrap_or_else(|| world.open(index));
            let asker = world.asker(index, app, None);
            let layout = if world.random.chance(30) { Layout::Spread } else { Layout::Near };
            let bundle = Bundle {
                slots: 1 + world.random.below(2) as u16,
                exclusive: world.random.chance(10),
                limit_s: world.random.chance(20).then_some(2),
                ..Bundle::default()
            };
            let count = 1 + world.random.below(8) as u32;
            let at_least = if world.random.chance(20) { count } else { 0 };
            world.request(index, asker, sequence, Want { bundle, count, layout, ..want() }, at_least);
        }
    }
}
