//! Trying out a pool: how it forms, and what allocating costs in it.

use crate::world::{Options, World};
use core::time::Duration;
use mutirao_tree::Settings;

/// How long a pool may take to form.
const FORMATION_MAX: Duration = Duration::from_secs(600);
/// After which time nothing of what happened before is under way any more.
const REST: Duration = Duration::from_secs(7);

/// A pool to be tried out.
#[derive(Debug, Clone)]
pub struct Trial {
    /// For each node the number of its parent; `None` for the first, which is the root.
    pub parents: Vec<Option<usize>>,
    /// Slots of each node.
    pub slots: u16,
    /// From which all chance follows.
    pub seed: u64,
    /// Time of a message on a link, least and most.
    pub latency: (Duration, Duration),
    /// Nodes started at once; the next ones follow 20 ms later. 0: all at once.
    pub wave: usize,
}

impl Trial {
    /// `nodes` nodes with one slot, `fan_out` children each as far as there are any, links of 50 us.
    pub fn regular(nodes: usize, fan_out: usize) -> Trial {
        let link = Duration::from_micros(50);
        let parent = |n: usize| (n > 0).then(|| (n - 1) / fan_out.max(1));
        Trial { parents: (0..nodes).map(parent).collect(), slots: 1, seed: 1, latency: (link, link), wave: 0 }
    }

    /// Starts all nodes and waits until they are one tree.
    ///
    /// # Errors
    /// Says what is missing if that takes more than ten minutes of virtual time.
    pub fn form(&self) -> Result<(World, Formed), String> {
        let count = self.parents.len();
        let settings = Settings { children_max: self.widest().max(1024), ..Settings::default() };
        let no_end = (Duration::ZERO, Duration::ZERO);
        let mut world = World::new(Options {
            seed: self.seed,
            latency: self.latency,
            worker_end: no_end,
            settings,
            check: false,
            ..Options::default()
        });
        for (index, parent) in self.parents.iter().enumerate() {
            world.add(self.slots);
            if let Some(parent) = parent {
                world.nodes[index].join = Some((vec![world.nodes[*parent].me.clone()], true));
            }
        }
        let began = world.now();
        for index in 0..count {
            world.start(index);
            world.nodes[index].join = None;
            if self.wave > 0 && index % self.wave == self.wave - 1 {
                world.run(Duration::from_millis(20));
            }
        }
        let whole = |world: &World| world.nodes[0].core().summary().nodes as usize == count;
        if !world.run_until_sometimes(FORMATION_MAX, whole) {
            let found = world.nodes[0].core().summary().nodes;
            return Err(format!(
                "after {FORMATION_MAX:?} only {found} of {count} nodes were below the first"
            ));
        }
        let (messages, bytes) = (world.sent.messages(), world.sent.bytes());
        let time = world.now() - began;
        let depth = world.nodes[0].core().summary().depth;
        world.run(REST);
        Ok((world, Formed { time, messages, bytes, depth }))
    }

    fn widest(&self) -> usize {
        let mut children = vec![0; self.parents.len()];
        self.parents.iter().flatten().for_each(|parent| children[*parent] += 1);
        children.into_iter().max().unwrap_or_default()
    }
}

/// How a pool formed.
#[derive(Debug, Clone, Copy)]
pub struct Formed {
    /// From the start of the first node until the root knew of all, to the millisecond.
    pub time: Duration,
    /// Messages sent meanwhile.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Edges from the root down to the deepest node.
    pub depth: u8,
}

/// What one allocation took.
#[derive(Debug, Clone, Copy)]
pub struct Allocated {
    /// Slots found.
    pub found: u32,
    /// From the request to the answer.
    pub time: Duration,
    /// Messages sent meanwhile.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// A program on node `home` asks for `count` single slots, and gives them back after the answer. Then the
/// pool comes to rest.
pub fn allocate_once(world: &mut World, home: usize, count: u32) -> Allocated {
    let app = world.open(home);
    world.sent.clear();
    let start = world.now();
    let found = world.allocate(home, app, 1, count).len() as u32;
    let allocated = Allocated {
        found,
        time: world.now() - start,
        messages: world.sent.messages(),
        bytes: world.sent.bytes(),
    };
    // Summaries settle, and so do the links to the lenders.
    world.run(Duration::from_millis(300));
    world.close(home, app);
    world.run(REST);
    allocated
}
