//! Pools under faults: nodes crash and return, links are cut, nodes stall, while programs come, ask,
//! give back and go. Then the faults stop, and everything must settle by a deadline.

use crate::clock::Clock;
use crate::random::Random;
use crate::world::{Options, World};
use crate::{calls, load, nemesis};
use core::time::Duration;
use mutirao_tree::{Accept, Input, Settings};
use mutirao_wire::Tick;
use mutirao_wire::limits::SEARCH;

/// By when a pool must have settled after the last fault. A lease lapses after at most ten seconds and the
/// margin of three.
const QUIET_BY: Duration = Duration::from_secs(90);

/// How much longer at most a message to a slow node takes.
const SLOW: Duration = Duration::from_millis(80);

/// What happens in one run; follows from the seed.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// Machines.
    pub nodes: usize,
    /// Steps of trouble and work.
    pub steps: usize,
    /// How often a step is a fault, per cent.
    pub faults: usize,
    /// The longest pause between two steps.
    pub pause: Duration,
    /// The network, and the nodes' settings.
    pub options: Options,
    /// How much faster or slower than the world clocks run at most, parts in a million.
    pub drift_ppm: i32,
    /// Nodes that are slow, per cent.
    pub slow: usize,
    /// Nodes that run an older version, per cent.
    pub older: usize,
    /// Nodes that lend to their own users only, per cent.
    pub private: usize,
    /// Whether there are applications that go on at other nodes.
    pub moving: bool,
}

impl Plan {
    /// The plan that follows from a seed.
    pub fn new(seed: u64) -> Plan {
        let mut random = Random::new(seed.wrapping_mul(31));
        let us = Duration::from_micros;
        let ms = Duration::from_millis;
        let mut any = |of: &[u64]| of[random.below(of.len())];
        let settings = Settings {
            fan_out: 2 + any(&[0, 1, 2, 4, 14]) as usize,
            // When messages take about as long, each answer may come too late.
            commit: ms(any(&[2000, 2000, 300, 70])),
            coalesce: ms(any(&[20, 20, 2, 60])),
            lapse: ms(any(&[10_000, 10_000, 4000])),
            rounds_max: any(&[16, 16, 2, 1]) as u8,
            rebalance: seed.is_multiple_of(2).then_some(ms(500)),
            ..Settings::default()
        };
        let options = Options {
            seed,
            latency: (us(30), us(any(&[60, 2000, 2000, 30_000]))),
            rack: any(&[0, 0, 4, 8]) as usize,
            loss_permille: any(&[0, 0, 2, 20]) as usize,
            beats: any(&[0, 0, 1]) == 1,
            settings,
            ..Options::default()
        };
        let slow = any(&[0, 0, 10]) as usize;
        let nodes = any(&[7, 7, 12, 12, 20, 20, 33, 50]) as usize;
        let mut plan = Plan {
            seed,
            nodes: nodes + if nodes < 50 { any(&[0, 1, 2, 3]) as usize } else { 0 },
            steps: any(&[40, 60, 80, 120]) as usize,
            faults: any(&[0, 5, 15, 30]) as usize,
            pause: ms(any(&[20, 200, 400])),
            options,
            drift_ppm: any(&[0, 0, 100, 50_000]) as i32,
            slow,
            older: any(&[0, 0, 50]) as usize,
            private: any(&[0, 0, 0, 30]) as usize,
            moving: false,
        };
        plan.options.calls = any(&[0, 0, 1]) == 1;
        plan.moving = !plan.options.calls && any(&[0, 1]) == 1;
        // What can never be completed in time need not be.
        let least = plan.slowest_message() * 12;
        plan.options.settings.commit = plan.options.settings.commit.max(least);
        plan
    }

    /// The longest that a message takes that is not lost.
    fn slowest_message(&self) -> Duration {
        let mut levels = 1;
        let mut racks = self.nodes;
        while self.options.rack > 1 && racks > self.options.rack {
            racks = racks.div_ceil(self.options.rack);
            levels += 1;
        }
        self.options.latency.1 * levels + if self.slow > 0 { SLOW } else { Duration::ZERO }
    }

    /// Whether a search has the time and the rounds to ask everybody.
    fn searches_everywhere(&self) -> bool {
        self.options.settings.rounds_max >= 16
            && self.options.loss_permille == 0
            && self.slowest_message() <= Duration::from_millis(6)
    }

    /// Whether a search that has to cross the whole pool, up and down, can be over in its time. Where not, a
    /// gang as large as the pool may wait for ever.
    fn searches_in_time(&self) -> bool {
        self.slowest_message() * 24 <= SEARCH
    }

    /// The one command that runs this plan again.
    pub fn replay(&self) -> String {
        format!("MUTIRAO_SEED={} cargo test -p mutirao-sim --test faults", self.seed)
    }
}

/// Runs a plan; the world at its end, or what did not hold then.
///
/// # Panics
/// When something that must always hold does not.
pub fn run_faults(plan: &Plan) -> Result<World, String> {
    let mut world = World::new(plan.options.clone());
    found(plan, &mut world);
    let mut sequence = 0;
    for _ in 0..plan.steps {
        let pause = world.random.between(Duration::ZERO, plan.pause);
        world.run(pause);
        if world.random.chance(plan.faults) {
            nemesis::fault(&mut world);
        } else {
            sequence += 1;
            load::work(&mut world, sequence);
        }
        if plan.options.calls {
            calls::work(&mut world);
        }
        if plan.moving {
            load::go_on(&mut world);
        }
    }
    quiet(plan, &mut world)?;
    if plan.options.calls {
        calls::finish(plan, &mut world)?;
    }
    if plan.searches_everywhere() {
        load::all_slots_can_be_had(&mut world)?;
    }
    Ok(world)
}

/// Makes the machines and starts most of them; each knows the first and some other.
fn found(plan: &Plan, world: &mut World) {
    for index in 0..plan.nodes {
        let slots = 1 + world.random.below(4) as u16;
        world.add(slots);
        let drift = world.random.below(2 * plan.drift_ppm as usize + 1) as i32 - plan.drift_ppm;
        let origin = Tick(world.random.below(1 << 40) as u64);
        world.set_clock(index, Clock::new(world.now(), origin, drift));
        if world.random.chance(plan.slow) {
            world.nodes[index].lag = world.random.between(Duration::from_millis(1), SLOW);
        }
        world.nodes[index].older = world.random.chance(plan.older);
        if world.random.chance(plan.private) {
            world.nodes[index].policy.accept = Accept::Own;
        }
        if index > 0 {
            let first = world.nodes[0].me.clone();
            let other = world.random.below(index);
            let other = world.nodes[other].me.clone();
            world.nodes[index].join = Some((vec![other, first], false));
        }
    }
    // The others come together, later.
    let late = [0, 0, plan.nodes / 2][world.random.below(3)];
    for index in 0..plan.nodes {
        if index < plan.nodes - late {
            world.start(index);
        } else {
            world.start_after(index, Duration::from_secs(2));
        }
    }
}

/// The faults stop. All shall find one another, whatever they were told to join meanwhile, and settle.
fn quiet(plan: &Plan, world: &mut World) -> Result<(), String> {
    world.mend();
    let first = world.nodes[0].me.clone();
    for index in 0..world.nodes.len() {
        let to = if index > 0 { vec![first.clone()] } else { Vec::new() };
        world.nodes[index].join = Some((to.clone(), false));
        if world.nodes[index].core.is_none() {
            world.start_after(index, Duration::ZERO);
        } else {
            world.tell(index, Input::Join { to, here: false });
        }
    }
    settle(plan, world)
}

/// Waits until all that must hold at rest holds for a while.
pub(crate) fn settle(plan: &Plan, world: &mut World) -> Result<(), String> {
    let by = world.now() + QUIET_BY;
    let mut settled = Duration::ZERO;
    while world.now() < by {
        if !plan.searches_in_time() {
            load::lose_patience(world);
        }
        world.run(Duration::from_secs(1));
        settled = match world.check_quiet() {
            Ok(()) => settled + Duration::from_secs(1),
            Err(_) => Duration::ZERO,
        };
        if settled > Duration::from_secs(3) {
            return Ok(());
        }
    }
    world.check_quiet()
}
