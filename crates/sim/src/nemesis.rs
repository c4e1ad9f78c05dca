//! What goes wrong in a run under faults.

use crate::world::World;
use core::time::Duration;
use mutirao_tree::{Input, Reclaim};
use mutirao_wire::lease::LeaseEnd;

/// Something goes wrong somewhere, for a while.
pub(crate) fn fault(world: &mut World) {
    let count = world.nodes.len();
    let (a, b) = (world.random.below(count), world.random.below(count));
    let long = world.random.between(Duration::from_millis(10), Duration::from_secs(15));
    match world.random.below(16) {
        0..=2 => crash(world, a, long),
        3 => {
            // Many at once.
            for _ in 0..1 + count / 3 {
                let other = world.random.below(count);
                crash(world, other, long);
            }
        }
        4 => leave(world, a, long),
        5 => {
            for _ in 0..1 + count / 4 {
                let other = world.random.below(count);
                leave(world, other, long);
            }
        }
        6 | 7 => {
            let part = part(world, a);
            world.cut_off(&part, long);
        }
        8 if a != b => world.cut(a, b, long),
        9 if a != b => flap(world, a, b),
        10 | 11 => {
            // Only the link machine notices a longer one.
            let most = if world.options.beats { long } else { Duration::from_millis(1200) };
            world.stall(a, long.min(most));
        }
        12 => {
            let by = world.random.between(Duration::ZERO, Duration::from_secs(20));
            world.step_clock(a, by);
        }
        13 => change_minds(world),
        14 => {
            let leases = world.nodes[a].core.as_ref().and_then(|core| core.leases().next()).cloned();
            if let Some(lease) = leases {
                let end =
                    if world.random.chance(50) { LeaseEnd::Reclaimed } else { LeaseEnd::Killed("x".into()) };
                world.tell(a, Input::End { serial: lease.serial, end });
            }
        }
        _ => {
            let grace = world.random.between(Duration::ZERO, Duration::from_millis(800));
            let order = match world.random.between(Duration::ZERO, Duration::from_micros(3)).as_micros() {
                0 => Input::Drain { grace: None },
                1 => Input::Drain { grace: Some(grace) },
                slots => Input::Reclaim(Reclaim { slots: Some(slots as u16), grace, span: None }),
            };
            world.tell(a, order);
            let pause = world.random.between(Duration::ZERO, Duration::from_secs(1));
            world.run(pause);
            world.tell(a, Input::Resume);
        }
    }
}

fn crash(world: &mut World, index: usize, long: Duration) {
    if world.nodes[index].core.is_none() {
        return;
    }
    let silently = world.random.chance(50);
    // A node that dies takes its programs' connection with it; some come back, some do not.
    world.nodes[index].returning = world.random.chance(50);
    if !world.nodes[index].returning {
        world.programs_gone(index);
    }
    world.crash(index, silently);
    world.start_after(index, long);
}

/// The node goes down in good order, and comes back.
fn leave(world: &mut World, index: usize, long: Duration) {
    if world.nodes[index].core.is_none() || world.stalled(index) {
        return;
    }
    world.input(index, Input::Leave);
    let pause = world.random.between(Duration::ZERO, Duration::from_millis(20));
    world.run(pause);
    if world.nodes[index].core.is_some() {
        world.programs_gone(index);
        world.crash(index, false);
        world.start_after(index, long);
    }
}

/// Some of the nodes: one, a rack, a subtree, every second, any.
fn part(world: &mut World, one: usize) -> Vec<usize> {
    let count = world.nodes.len();
    match world.random.below(5) {
        0 => vec![one],
        1 => (one..count.min(one + 5)).collect(),
        2 => (0..count).filter(|index| is_below(world, *index, one)).collect(),
        3 => (0..count).step_by(2).collect(),
        _ => (0..count).filter(|_| world.random.chance(40)).collect(),
    }
}

fn is_below(world: &World, index: usize, top: usize) -> bool {
    let mut at = Some(index);
    for _ in 0..world.nodes.len() {
        match at {
            Some(here) if here == top => return true,
            Some(here) => at = world.parent(here),
            None => return false,
        }
    }
    false
}

/// A link that fails again and again.
fn flap(world: &mut World, a: usize, b: usize) {
    for _ in 0..3 {
        let down = world.random.between(Duration::from_millis(100), Duration::from_secs(3));
        world.cut(a, b, down);
        let up = world.random.between(Duration::ZERO, Duration::from_secs(1));
        world.run(down + up);
    }
}

/// Owners change their minds about parents, several at a time.
fn change_minds(world: &mut World) {
    let count = world.nodes.len();
    for _ in 0..1 + world.random.below(4) {
        let (a, b) = (world.random.below(count), world.random.below(count));
        let to = vec![world.nodes[b].me.clone()];
        let here = world.random.chance(70);
        world.nodes[a].join = Some((to.clone(), here));
        world.tell(a, Input::Join { to, here });
        let pause = world.random.between(Duration::ZERO, Duration::from_millis(60));
        world.run(pause);
    }
}
