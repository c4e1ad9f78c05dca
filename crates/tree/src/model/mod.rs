//! A bounded model check of the attach rule over the very machine of the daemon: every order in which
//! messages arrive, links break, timers run out and nodes die, up to a bound. What must always hold is
//! checked after each step; from each state in which nothing is under way, and from each in which
//! nothing more can happen, the nodes must become one tree once the faults stop.

mod world;

use std::collections::BTreeSet;
use world::{Action, Order, Scenario, Stray, World};

/// A state reached, and how.
struct Reached {
    before: usize,
    by: Option<Action>,
}

/// What an exploration came to.
struct Explored {
    states: usize,
    settled: usize,
    /// All states within the scenario's bounds were seen.
    complete: bool,
}

/// Explores at most `most` states, the nearest first.
///
/// # Panics
/// When something does not hold; with the shortest way there.
fn explore(scenario: &Scenario, most: usize) -> Explored {
    let first = World::new(scenario).unwrap_or_else(|why| panic!("{why}, at the start of {scenario:?}"));
    let mut seen = BTreeSet::from([first.digest()]);
    let mut reached = vec![Reached { before: 0, by: None }];
    let mut settled = 0;
    let mut layer = vec![(0, first)];
    while !layer.is_empty() && reached.len() < most {
        let mut next = Vec::new();
        for (number, world) in layer {
            let actions = world.actions(scenario);
            if world.is_quiet() || actions.is_empty() {
                settled += 1;
                if let Err(why) = world.clone().settle(scenario) {
                    let trace = trace(scenario, &reached, number, None);
                    panic!("once the faults stop, it stays so: {why}\n{trace}");
                }
            }
            for action in actions {
                let mut after = world.clone();
                if let Err(why) = after.act(scenario, action) {
                    panic!("{why}\n{}", trace(scenario, &reached, number, Some(action)));
                }
                if seen.insert(after.digest()) {
                    reached.push(Reached { before: number, by: Some(action) });
                    next.push((reached.len() - 1, after));
                }
            }
        }
        layer = next;
    }
    Explored { states: reached.len(), settled, complete: layer.is_empty() }
}

/// The way to a state, step by step.
fn trace(scenario: &Scenario, reached: &[Reached], mut at: usize, last: Option<Action>) -> String {
    let mut actions: Vec<Action> = last.into_iter().collect();
    while let Some(by) = reached[at].by {
        actions.push(by);
        at = reached[at].before;
    }
    let mut text = format!("{scenario:?}\n");
    let Ok(mut world) = World::new(scenario) else { return text };
    for action in actions.into_iter().rev() {
        let done = world.act(scenario, action);
        text += &format!("{action:?}: {}\n", done.err().unwrap_or_else(|| world.describe()));
    }
    text
}

fn join(node: usize, to: usize) -> Order {
    Order { node, to: vec![to], here: false }
}

fn exactly(node: usize, to: usize) -> Order {
    Order { here: true, ..join(node, to) }
}

/// The scenarios, each with bounds that the daily tests can afford.
fn scenarios() -> Vec<(&'static str, Scenario)> {
    let formed = |nodes: usize, joins: Vec<Order>, orders: Vec<Order>| Scenario {
        nodes,
        joins,
        formed: true,
        orders,
        ..Scenario::default()
    };
    let two = Scenario { nodes: 2, joins: vec![join(0, 1), join(1, 0)], ..Scenario::default() };
    let ring = Scenario { nodes: 3, joins: vec![join(0, 1), join(1, 2), join(2, 0)], ..Scenario::default() };
    let answer = formed(3, vec![join(1, 2)], vec![join(0, 1), join(2, 0)]);
    let leaf = formed(4, vec![join(1, 0), join(3, 2)], vec![join(0, 3), join(2, 1)]);
    let crossing = formed(3, vec![join(1, 0), join(2, 0)], vec![exactly(1, 2), exactly(2, 1)]);
    let below = formed(3, vec![exactly(1, 0), exactly(2, 1)], vec![exactly(0, 2)]);
    let chain = formed(4, vec![exactly(1, 0), exactly(2, 1), exactly(3, 2)], Vec::new());
    let moved = formed(3, vec![join(1, 0), join(2, 1)], vec![exactly(2, 0)]);
    let straightened = Scenario { rebalance: true, ..formed(3, vec![join(1, 0), join(2, 1)], Vec::new()) };
    let restarted = formed(3, vec![join(1, 0)], vec![join(2, 1), join(0, 2)]);
    let stranger = Scenario {
        strays: vec![(2, 1, Stray::Summary), (2, 1, Stray::Detach), (2, 1, Stray::Verdict)],
        ..formed(3, vec![join(1, 0)], vec![join(2, 1)])
    };
    vec![
        ("two roots that want each other", Scenario { timers: 1, breaks: 1, ..two }),
        ("a ring of wishes", Scenario { timers: 1, ..ring }),
        ("an answer to an earlier attempt", Scenario { timers: 2, ..answer }),
        ("two roots that want a leaf of each other", Scenario { timers: 1, ..leaf }),
        ("crossing moves", Scenario { timers: 1, ..crossing }),
        ("a move below oneself", Scenario { timers: 2, ..below }),
        ("a lost parent", Scenario { timers: 1, breaks: 1, ..chain }),
        ("a parent lost during a move", Scenario { breaks: 1, ..moved }),
        ("a tree being balanced", Scenario { timers: 2, breaks: 1, ..straightened }),
        ("a node restarted while it joins", Scenario { crashes: vec![2], ..restarted }),
        ("a stranger speaks", Scenario { timers: 1, ..stranger }),
    ]
}

#[test]
fn nodes_become_one_tree_whatever_the_order() {
    for (name, scenario) in scenarios() {
        let explored = explore(&scenario, 100_000);
        assert!(explored.complete, "`{name}` is too large: {} states", explored.states);
        assert!(explored.settled > 0, "`{name}` never comes to rest");
    }
}

/// Five nodes: what takes that many, within bounds so tight that all orders can be seen.
fn scenarios_of_five() -> Vec<(&'static str, Scenario)> {
    let formed = |joins: Vec<Order>, orders: Vec<Order>| Scenario {
        nodes: 5,
        joins,
        formed: true,
        orders,
        ..Scenario::default()
    };
    let chain = |orders| formed((1..5).map(|node| exactly(node, node - 1)).collect(), orders);
    let star = |orders| formed((1..5).map(|node| join(node, 0)).collect(), orders);
    let branches = vec![exactly(1, 0), exactly(2, 0), exactly(3, 1), exactly(4, 2)];
    let apart = vec![exactly(1, 0), exactly(2, 1), exactly(4, 3)];
    let ring = (0..5).map(|node| join(node, (node + 1) % 5)).collect();
    vec![
        ("a ring of five wishes", Scenario { nodes: 5, joins: ring, ..Scenario::default() }),
        ("branches that cross", formed(branches.clone(), vec![exactly(1, 4), exactly(2, 3)])),
        ("trees that want a leaf of each other", formed(apart, vec![join(0, 4), join(3, 2)])),
        ("a chain that loses a link", Scenario { breaks: 1, ..chain(Vec::new()) }),
        ("a chain that is turned over", chain(vec![exactly(0, 4), exactly(1, 3)])),
        ("a star that loses its root", Scenario { crashes: vec![0], ..star(Vec::new()) }),
        ("a branch that loses its head", Scenario { crashes: vec![1], ..formed(branches, Vec::new()) }),
    ]
}

/// The same with wider bounds, and five nodes; `make model` runs it.
#[test]
#[ignore = "takes minutes and gigabytes; `make model` runs it"]
fn nodes_become_one_tree_within_wider_bounds() {
    let wider = scenarios().into_iter().map(|(name, scenario)| {
        let timers = scenario.timers + 1;
        let breaks = scenario.breaks.max(1);
        (name, Scenario { timers, breaks, crashes: (0..scenario.nodes).collect(), ..scenario })
    });
    for (name, scenario) in scenarios_of_five().into_iter().chain(wider) {
        assert!(explore(&scenario, 1_000_000).settled > 0, "`{name}` never comes to rest");
    }
}
