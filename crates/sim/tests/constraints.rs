//! Searching for slots with constraints: nothing is granted where it does not fit, and what is there is found.

use core::time::Duration;
use mutirao_sim::{Options, Random, World, want};
use mutirao_tree::Capacity;
use mutirao_wire::node::{Arch, Bundle, Grant, Hindrance, Layout, Note, Resource, Want};
use mutirao_wire::{AppId, RequestId};
use std::collections::{BTreeMap, BTreeSet};

const LABELS: [&str; 4] = ["ssd", "big", "old", "rack=1"];
const RESOURCES: [&str; 2] = ["gpu", "fpga"];

/// What this test knows of a node, apart from the machine under test.
#[derive(Default, Clone)]
struct Used {
    slots: u32,
    memory_mib: u32,
    resources: BTreeMap<String, u32>,
    leases: u32,
}

/// A program: its home, its id, what it holds.
type Holding = (usize, AppId, Vec<(Grant, Bundle)>);

fn some<'a>(random: &mut Random, of: &[&'a str], percent: usize) -> Vec<&'a str> {
    of.iter().copied().filter(|_| random.chance(percent)).collect()
}

fn capacity(random: &mut Random) -> Capacity {
    let slots = 1 + random.below(8) as u16;
    let resources = some(random, &RESOURCES, 30).into_iter().map(str::to_owned).collect::<Vec<_>>();
    Capacity {
        slots,
        memory_mib: 512 * (1 + random.below(16) as u32),
        resources: resources
            .into_iter()
            .map(|name| Resource { name, amount: 1 + random.below(4) as u32 })
            .collect(),
        arch: if random.chance(80) { Arch::X86_64 } else { Arch::Aarch64 },
        libc: None,
        labels: some(random, &LABELS, 30).into_iter().map(str::to_owned).collect(),
    }
}

fn constrained(random: &mut Random, nodes: usize) -> Want {
    let strings = |of: Vec<&str>| of.into_iter().map(str::to_owned).collect::<Vec<String>>();
    let resources = some(random, &RESOURCES, 25);
    Want {
        bundle: Bundle {
            slots: 1 + random.below(4) as u16,
            memory_mib: if random.chance(40) { 256 * (1 + random.below(20) as u32) } else { 0 },
            resources: resources
                .into_iter()
                .map(|name| Resource { name: name.into(), amount: 1 + random.below(3) as u32 })
                .collect(),
            exclusive: random.chance(15),
            ..Bundle::default()
        },
        count: 1 + random.below(12) as u32,
        layout: if random.chance(30) { Layout::Spread } else { Layout::Near },
        arch: random.chance(20).then_some(Arch::Aarch64),
        labels: strings(some(random, &LABELS, 12)),
        without: strings(some(random, &LABELS, 8)),
        among: Vec::new(),
        avoid: Vec::new(),
        below: random.chance(30).then(|| format!("n{}", random.below(nodes))),
        hops: random.chance(25).then(|| random.below(5) as u8),
    }
}

/// Leases of this want that one node could still grant.
fn room(capacity: &Capacity, used: &Used, want: &Want) -> u32 {
    let bundle = &want.bundle;
    let has = |label: &String| capacity.labels.contains(label);
    if want.arch.is_some_and(|arch| arch != capacity.arch)
        || !want.labels.iter().all(has)
        || want.without.iter().any(has)
    {
        return 0;
    }
    let mut most = (u32::from(capacity.slots) - used.slots) / u32::from(bundle.slots);
    if bundle.exclusive {
        most = u32::from(used.leases == 0 && bundle.slots <= capacity.slots);
    }
    let memory_free_mib = capacity.memory_mib - used.memory_mib;
    most = most.min(memory_free_mib.checked_div(bundle.memory_mib).unwrap_or(u32::MAX));
    for wanted in &bundle.resources {
        let all = capacity.resources.iter().find(|r| r.name == wanted.name).map_or(0, |r| r.amount);
        let taken = used.resources.get(&wanted.name).copied().unwrap_or(0);
        most = most.min((all - taken) / wanted.amount);
    }
    if want.layout == Layout::Spread { most.min(1) } else { most }
}

fn add(used: &mut Used, grant: &Grant, bundle: &Bundle) {
    used.slots += u32::from(grant.slots);
    used.memory_mib += bundle.memory_mib;
    used.leases += 1;
    for resource in &bundle.resources {
        *used.resources.entry(resource.name.clone()).or_default() += resource.amount;
    }
}

/// The way up from a node to its root, itself first.
fn way_up(world: &World, index: usize) -> Vec<usize> {
    std::iter::successors(Some(index), |at| world.parent(*at)).collect()
}

/// Edges between two nodes.
fn distance(world: &World, a: usize, b: usize) -> usize {
    let (up_a, up_b) = (way_up(world, a), way_up(world, b));
    let shared = up_a.iter().rev().zip(up_b.iter().rev()).take_while(|(a, b)| a == b).count();
    up_a.len() + up_b.len() - 2 * shared
}

/// Whether the request may be served by this node at all, by its place in the tree.
fn in_place(world: &World, home: usize, index: usize, want: &Want) -> bool {
    let near = want.hops.is_none_or(|hops| distance(world, home, index) <= usize::from(hops));
    let below = |top: &String| way_up(world, index).iter().any(|n| world.nodes[*n].me.name == *top);
    let me = &world.nodes[index].me;
    let named = want.among.is_empty() || want.among.contains(&me.name);
    near && named && !want.avoid.contains(&me.id) && want.below.as_ref().is_none_or(below)
}

fn notes(world: &World, home: usize, request: RequestId) -> Vec<Note> {
    world.nodes[home].apps[&request.app].found[&request].2.clone()
}

fn pool(seed: u64) -> World {
    let mut world = World::new(Options { seed, ..Options::default() });
    let count = 2 + world.random.below(39);
    let fan_out = 1 + world.random.below(6);
    for index in 0..count {
        world.add(1);
        let mut random = world.random.clone();
        world.nodes[index].capacity = capacity(&mut random);
        world.random = random;
        if index > 0 {
            let parent = (index - 1) / fan_out;
            world.nodes[index].join = Some((vec![world.nodes[parent].me.clone()], true));
        }
        world.start(index);
    }
    world.run(Duration::from_secs(4));
    world.check_quiet().unwrap();
    world
}

fn one_pool(seed: u64) {
    let mut world = pool(seed);
    let count = world.nodes.len();
    let mut used = vec![Used::default(); count];
    let mut open: Vec<Holding> = Vec::new();
    for step in 0..25 {
        if !open.is_empty() && world.random.chance(30) {
            let at = world.random.below(open.len());
            let (home, app, held) = open.swap_remove(at);
            world.close(home, app);
            // Workers end, and the summaries of what came free go up.
            world.run(Duration::from_millis(400));
            for (grant, bundle) in held {
                let used = &mut used[world.number(grant.lender.id)];
                used.slots -= u32::from(grant.slots);
                used.memory_mib -= bundle.memory_mib;
                used.leases -= 1;
                for resource in &bundle.resources {
                    *used.resources.get_mut(&resource.name).unwrap() -= resource.amount;
                }
            }
            continue;
        }
        let home = world.random.below(count);
        let mut random = world.random.clone();
        let mut want = constrained(&mut random, count);
        if random.chance(25) {
            want.among = (0..1 + random.below(4)).map(|_| format!("n{}", random.below(count))).collect();
        }
        if random.chance(25) {
            let avoided = (0..random.below(4)).map(|_| world.nodes[random.below(count)].me.id);
            want.avoid = avoided.collect();
        }
        world.random = random;
        let there: u32 = (0..count)
            .filter(|n| in_place(&world, home, *n, &want))
            .map(|n| room(&world.nodes[n].capacity, &used[n], &want))
            .sum();
        let app = world.open(home);
        let asker = world.asker(home, app, None);
        let request = world.request(home, asker, 1, want.clone(), 0);
        let grants = world.answer(home, request);
        let context = || format!("seed {seed}, step {step}, from n{home}: {want:?}");
        let mut lenders = BTreeSet::new();
        for grant in &grants {
            let lender = world.number(grant.lender.id);
            assert!(in_place(&world, home, lender, &want), "n{lender} is out of place; {}", context());
            assert!(
                room(&world.nodes[lender].capacity, &used[lender], &want) > 0,
                "it does not fit n{lender}; {}",
                context()
            );
            assert!(lenders.insert(lender) || want.layout == Layout::Near, "not spread; {}", context());
            add(&mut used[lender], grant, &want.bundle);
        }
        assert_eq!(grants.len() as u32, there.min(want.count), "{}", context());
        let held = grants.into_iter().map(|grant| (grant, want.bundle.clone())).collect();
        open.push((home, app, held));
        world.run(Duration::from_millis(200));
    }
}

#[test]
fn what_is_granted_fits_and_what_is_there_is_found() {
    (0..150).for_each(one_pool);
}

/// A root, two racks below it, four machines below each; one of them has a gpu and much memory.
fn racks() -> World {
    let mut world = World::new(Options::default());
    for index in 0..11 {
        world.add(2);
        let node = &mut world.nodes[index];
        if (1..3).contains(&index) {
            node.me.name = format!("rack{index}");
            node.policy.local_user = format!("user@rack{index}");
        }
        if index == 9 {
            node.capacity.resources = vec![Resource { name: "gpu".into(), amount: 2 }];
            node.capacity.memory_mib = 24 * 1024;
            node.capacity.labels = vec!["ssd".into()];
        }
        if index > 0 {
            let parent = if index < 3 { 0 } else { 1 + (index - 3) / 4 };
            world.nodes[index].join = Some((vec![world.nodes[parent].me.clone()], true));
        }
        world.start(index);
    }
    world.run(Duration::from_secs(3));
    world.check_quiet().unwrap();
    world
}

fn ask(world: &mut World, home: usize, want: Want) -> (Vec<String>, Vec<String>) {
    let app = world.open(home);
    let asker = world.asker(home, app, None);
    let request = world.request(home, asker, 1, want, 0);
    let lenders = world.answer(home, request).into_iter().map(|grant| grant.lender.name).collect();
    let notes = notes(world, home, request).into_iter().map(|note| match note.hindrance {
        Hindrance::Lacking(text) | Hindrance::Busy(text) => text,
        other => panic!("{other:?}"),
    });
    (lenders, notes.collect())
}

fn memory(gib: u32) -> Want {
    Want { bundle: Bundle { memory_mib: gib * 1024, ..Bundle::default() }, ..want() }
}

fn gpus(amount: u32) -> Want {
    let resources = vec![Resource { name: "gpu".into(), amount }];
    Want { bundle: Bundle { resources, ..Bundle::default() }, ..want() }
}

#[test]
fn a_rare_thing_is_found_without_asking_everybody() {
    let mut world = racks();
    world.sent.clear();
    assert_eq!(ask(&mut world, 3, gpus(1)).0, ["n9"]);
    // Up to the rack and the root, down to the other rack and to the one machine that has it.
    assert_eq!(world.sent["Search"], 4);
    world.sent.clear();
    assert_eq!(ask(&mut world, 3, memory(20)).0, ["n9"]);
    assert_eq!(world.sent["Search"], 4);
    world.sent.clear();
    assert!(ask(&mut world, 0, Want { labels: vec!["hdd".into()], ..want() }).0.is_empty());
    assert!(!world.sent.contains_key("Search"), "the root knows that there is none");
}

#[test]
fn a_subtree_is_found_by_its_name_from_anywhere() {
    let below = |top: &str, count| Want { below: Some(top.into()), count, ..want() };
    for home in 0..11 {
        let mut world = racks();
        let (lenders, _) = ask(&mut world, home, below("rack2", 20));
        let names: BTreeSet<&str> = lenders.iter().map(String::as_str).collect();
        assert_eq!(names, BTreeSet::from(["n10", "n7", "n8", "n9", "rack2"]), "from n{home}");
        assert_eq!(lenders.len(), 10);
        let (lenders, _) = ask(&mut world, home, below("n5", 3));
        assert_eq!(lenders, ["n5", "n5"], "a leaf is a subtree too");
        let (lenders, notes) = ask(&mut world, home, below("rack3", 1));
        assert_eq!((lenders.len(), &notes[..]), (0, &["no node called `rack3` was found".to_owned()][..]));
        let (_, notes) = ask(&mut world, home, Want { below: Some("rack1".into()), ..gpus(1) });
        assert_eq!(notes, ["below rack1, no node has the resource `gpu`; resources there are: none"]);
    }
}

#[test]
fn hops_bound_how_far_a_search_goes() {
    let within = |hops| Want { count: 22, hops: Some(hops), ..want() };
    for (hops, found) in [(0, 2), (1, 4), (2, 12), (3, 14), (4, 22)] {
        let mut world = racks();
        assert_eq!(ask(&mut world, 3, within(hops)).0.len(), found, "{hops} hops");
    }
    let mut world = racks();
    let (_, notes) = ask(&mut world, 3, Want { hops: Some(2), ..gpus(1) });
    assert_eq!(notes, ["within 2 hops of n3 no more was found"]);
}

#[test]
fn a_refusal_says_what_there_is_at_best() {
    let mut world = racks();
    let mut said = |want| ask(&mut world, 4, want).1.join("; ");
    assert_eq!(said(memory(64)), "no node has 64 GiB of memory to lend; the largest has 24 GiB");
    assert_eq!(said(gpus(3)), "no node has 3 of `gpu`; the one with most has 2");
    let labelled = Want { labels: vec!["hdd".into()], ..want() };
    assert_eq!(said(labelled), "no node has the label `hdd`; labels there are: `ssd`");
    let wide = Want { bundle: Bundle { slots: 16, ..Bundle::default() }, ..want() };
    assert_eq!(said(wide), "no node has 16 slots; the largest has 2");
    let other = Want { arch: Some(Arch::Aarch64), ..want() };
    assert_eq!(said(other), "no node is aarch64; there is x86_64");
    // From here on one of the two is held, then both.
    assert_eq!(said(gpus(1)), "");
    world.run(Duration::from_millis(300));
    let mut said = |want| ask(&mut world, 4, want).1.join("; ");
    assert_eq!(said(gpus(2)), "no node has 2 of `gpu` free; the one with most free has 1");
    assert_eq!(said(gpus(1)), "");
    world.run(Duration::from_millis(300));
    let mut said = |want| ask(&mut world, 4, want).1.join("; ");
    assert_eq!(said(gpus(1)), "all 2 of `gpu` are in use");
}

#[test]
fn a_request_beyond_the_limits_is_refused_in_words() {
    let mut world = racks();
    let labels = (0..17).map(|n| format!("label{n}")).collect();
    let (lenders, notes) = ask(&mut world, 3, Want { labels, ..want() });
    assert_eq!((lenders.len(), notes.join("")), (0, "a request may name 16 labels at most".to_owned()));
}
