//! A hundred thousand nodes, and what an allocation costs there.

use mutirao_sim::{Trial, allocate_once};

/// A pool of 100,000 nodes forms; what allocating costs follows from how much is wanted, not from how much
/// there is.
#[test]
fn the_cost_of_an_allocation_grows_with_what_is_wanted_not_with_the_pool() {
    let costs = [1_000, 100_000].map(|nodes| {
        let trial = Trial { wave: 1000, ..Trial::regular(nodes, 16) };
        let (mut world, formed) = trial.form().unwrap();
        assert_eq!(world.nodes[0].core().summary().nodes as usize, nodes);
        let costs = [8, 64, 512].map(|slots| {
            // A leaf asks: what it wants is above it and beside it.
            let cost = allocate_once(&mut world, nodes - 1, slots);
            assert_eq!(cost.found, slots);
            // Down an edge and up again for each node asked, and not many more nodes than slots.
            assert!(cost.messages <= 3 * u64::from(slots) + 2 * u64::from(formed.depth), "{cost:?}");
            cost
        });
        (formed.depth, costs)
    });
    let [(low, small), (high, large)] = costs;
    for (small, large) in small.iter().zip(&large) {
        // A hundred times the nodes.
        assert!(large.messages <= small.messages + 8 * u64::from(high - low), "{small:?} {large:?}");
        assert!(large.time <= small.time * 2, "{small:?} {large:?}");
    }
}
