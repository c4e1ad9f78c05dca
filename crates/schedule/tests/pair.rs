//! `hold` and `serve` against each other over a network that breaks, with workers that crash and stall.
//! Every frame passes through the real codec. Whatever happens, every call must be over exactly once, with
//! an outcome that is true.

mod world;

use proptest::prelude::*;
use world::World;

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_call_is_over_exactly_once(
        locals in 0usize..3,
        remotes in 0usize..3,
        copies in any::<bool>(),
        steps in prop::collection::vec((0u8..100, any::<u16>()), 20..400),
    ) {
        let mut world = World::new(copies);
        for _ in 0..locals {
            world.add_lease(true);
        }
        for _ in 0..remotes {
            world.add_lease(false);
        }
        for (what, which) in steps {
            world.step(what, usize::from(which));
            world.check();
        }
        world.finish();
    }
}

#[test]
fn a_quiet_world_answers_everything() {
    let mut world = World::new(true);
    world.add_lease(true);
    world.add_lease(false);
    for which in 0..200 {
        world.step(0, which * 37);
    }
    world.finish();
    assert!(world.results() > 100);
}
