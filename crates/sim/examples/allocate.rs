//! One slot on each of 205 nodes: messages and virtual time.

use core::time::Duration;
use mutirao_sim::{Options, World};

fn main() {
    let link = Duration::from_micros(50);
    let mut world = World::new(Options { latency: (link, link), ..Options::default() });
    world.grow(205, 1, false, |n| (n > 0).then_some(0));
    world.run(Duration::from_secs(10));
    if let Err(why) = world.check_quiet() {
        eprintln!("the tree did not form: {why}");
        std::process::exit(1);
    }
    let summary = world.nodes[0].core().summary();
    println!("{} nodes, {} deep, links of {link:?}", summary.nodes, summary.depth);
    for sequence in 1..=3 {
        let app = world.open(0);
        world.sent.clear();
        let start = world.now();
        let grants = world.allocate(0, app, sequence, 205);
        println!("round {sequence}: {} slots in {:?}, {}", grants.len(), world.now() - start, world.sent);
        world.run(Duration::from_secs(1));
        world.close(0, app);
        world.run(Duration::from_secs(1));
    }
}
