//! Pools of real nodes on loopback.

#[allow(dead_code)] // Made for all tests of this crate.
mod common;

use common::{Pool, Program, Running, run};
use mutirao_node::{Error, Node};
use mutirao_wire::lease::LeaseEnd;
use mutirao_wire::local::{GiveBack, HeldLease, LeaseChange, LocalMessage, OpenLane};
use mutirao_wire::query::{Row, Topic};
use mutirao_wire::stream::{CallExtent, call_header, put_aside};
use mutirao_wire::{CallId, Handle};
use std::collections::BTreeMap;
use std::time::Duration;

#[test]
#[ignore = "run by other tests, as a process of its own"]
fn child_node() {
    common::be_a_node();
}

fn parents(program: &mut Program, count: usize) -> BTreeMap<String, Option<String>> {
    let nodes = program.wait_nodes("all nodes answer", |nodes| nodes.len() == count);
    nodes.into_iter().map(|row| (row.node.name, row.parent)).collect()
}

#[test]
fn four_nodes_form_a_tree_and_lend_their_slots() {
    let pool = Pool::new();
    let a = pool.start("a", 1, &[]);
    let _b = pool.start("b", 1, &["a"]);
    let _c = pool.start("c", 2, &["a"]);
    let d = pool.start("d", 1, &["b"]);
    let mut program = Program::connect(&d.socket, 1);
    assert_eq!(program.welcome.pool, Some(pool.id()));
    assert!(program.welcome.user.ends_with("@d"));
    let tree = parents(&mut program, 4);
    assert_eq!(tree["a"], None);
    assert_eq!(tree["b"].as_deref(), Some("a"));
    assert_eq!(tree["c"].as_deref(), Some("a"));
    assert_eq!(tree["d"].as_deref(), Some("b"));

    // Slots near first: its own, then those over the tree.
    let got = program.allocate(5, 5);
    assert_eq!(got.leases.len(), 5, "{got:?}");
    let own = got.leases.iter().filter(|lease| lease.local).count();
    assert_eq!(own, 1);
    let nodes = program.wait_nodes("all slots are taken", |n| n.iter().all(|n| n.slots_free == 0));
    assert_eq!(nodes.iter().map(|node| node.slots_total).sum::<u16>(), 5);

    // Nothing is left for another, who is told how it stands.
    let mut other = Program::connect(&a.socket, 2);
    let none = other.allocate(1, 1);
    assert!(none.leases.is_empty(), "{none:?}");
    // Fewer than needed: none is kept.
    program.send(GiveBack { handles: vec![got.leases[0].handle] });
    program.wait_nodes("one slot is free", |n| n.iter().map(|n| n.slots_free).sum::<u16>() == 1);
    assert!(other.allocate(2, 2).leases.is_empty());
    other.wait_nodes("it is free again", |n| n.iter().map(|n| n.slots_free).sum::<u16>() == 1);
    assert_eq!(other.allocate(2, 1).leases.len(), 1);

    // The application's connection closes: all its slots are free again at once.
    drop(program);
    other.wait_nodes("the slots are free", |n| n.iter().map(|n| n.slots_free).sum::<u16>() == 4);
}

#[test]
fn a_question_may_be_for_one_node() {
    let pool = Pool::new();
    let a = pool.start("a", 1, &[]);
    let b = pool.start("b", 1, &["a"]);
    let mut program = Program::connect(&a.socket, 1);
    program.wait_nodes("two nodes", |nodes| nodes.len() == 2);
    let (rows, missing) = program.ask(Some("b"), Topic::Nodes);
    assert!(matches!(&rows[..], [Row::Node(row)] if row.node.name == "b"), "{rows:?}");
    assert_eq!(missing, 0);
    let digits = b.node.id.to_string()[..8].to_owned();
    let (rows, _) = program.ask(Some(&digits), Topic::Nodes);
    assert!(matches!(&rows[..], [Row::Node(row)] if row.node.name == "b"), "{rows:?}");
    assert!(program.ask(Some("nobody"), Topic::Nodes).0.is_empty());
}

#[test]
fn a_killed_node_is_missed_and_its_leases_end() {
    let pool = Pool::new();
    let a = pool.start("a", 1, &[]);
    let b = pool.start("b", 1, &["a"]);
    let c = pool.start("c", 1, &["b"]);
    let mut program = Program::connect(&c.socket, 1);
    program.wait_nodes("three nodes", |nodes| nodes.len() == 3);
    let got = program.allocate(3, 3);
    let on_b = got.leases.iter().find(|lease| lease.lender.name == "b").unwrap().handle;
    b.stop();
    // The node in the middle is gone: the lower one finds a parent again and keeps its lease on `a`.
    let nodes =
        program.wait_nodes("healed", |n| n.len() == 2 && n[1].parent.is_some() != n[0].parent.is_some());
    assert!(nodes.iter().all(|node| node.slots_free == 0), "{nodes:?}");
    let news = program.next_news();
    assert_eq!((news.handle, news.change), (on_b, LeaseChange::Ended(LeaseEnd::Leaving)));
    drop(a);
}

/// Nodes `a` and `b`, started at the same time, each told to join the other; if `here`, to be right below it.
fn two_that_join_each_other(pool: &Pool, here: bool) -> (Running, Running) {
    let [first, second] = [("a", "b"), ("b", "a")].map(|(name, other)| {
        let mut options = pool.options(name, 1, &[other]);
        (options.here, options.join_wait) = (here, common::PATIENCE / 2);
        options
    });
    let thread = std::thread::spawn(move || run(first));
    let b = run(second);
    (thread.join().unwrap(), b)
}

#[test]
fn two_nodes_that_join_each_other_become_one_tree() {
    let pool = Pool::new();
    let (a, b) = two_that_join_each_other(&pool, false);
    let mut program = Program::connect(&a.socket, 1);
    let nodes = program.wait_nodes("both", |nodes| nodes.len() == 2);
    assert_eq!(nodes.iter().filter(|node| node.parent.is_none()).count(), 1);
    // The one that became the root did not wait for a parent as well.
    assert!(!a.still_alone && !b.still_alone);
    drop(b);
}

#[test]
fn of_two_that_are_to_be_below_each_other_the_root_says_so() {
    let pool = Pool::new();
    let (a, b) = two_that_join_each_other(&pool, true);
    let mut program = Program::connect(&a.socket, 1);
    let nodes = program.wait_nodes("both", |nodes| nodes.len() == 2);
    let root = nodes.iter().find(|node| node.parent.is_none()).unwrap().node.name.clone();
    let (root, other) = if root == "a" { (&a, &b) } else { (&b, &a) };
    assert_eq!(root.contradicts.as_ref(), Some(&other.node.name));
    assert_eq!(other.contradicts, None);
}

#[test]
fn a_node_of_another_pool_is_refused_and_goes_on_alone() {
    let ours = Pool::new();
    let theirs = Pool::new();
    let a = ours.start("a", 1, &[]);
    let place = a.node.addresses[0].to_string();
    let mut options = theirs.options("x", 1, &[&place]);
    options.join_wait = Duration::from_millis(500);
    let x = run(options);
    let mut there = Program::connect(&x.socket, 1);
    let mut here = Program::connect(&a.socket, 1);
    assert_eq!(there.nodes().len(), 1);
    assert_eq!(here.nodes().len(), 1);
    assert_ne!(there.welcome.pool, here.welcome.pool);
}

#[test]
fn pools_in_one_runtime_directory_do_not_meet() {
    let ours = Pool::new();
    let theirs = Pool::new();
    let a = ours.start("a", 1, &[]);
    // The same name, the same user, the same runtime directory; a join by name finds its own pool only.
    let mut options = theirs.options("b", 1, &["a"]);
    options.runtime = ours.dir.path().join("run");
    options.join_wait = Duration::from_millis(300);
    let b = run(options);
    assert_ne!(a.socket.parent(), b.socket.parent());
    assert_eq!(Program::connect(&b.socket, 1).nodes().len(), 1);
    assert_eq!(mutirao_node::local_nodes(&ours.dir.path().join("run")).len(), 2);
}

#[test]
fn a_name_runs_once() {
    let pool = Pool::new();
    let a = pool.start("a", 1, &[]);
    let error = Node::start(pool.options("a", 1, &[])).err().unwrap();
    assert!(matches!(&error, Error::Running { name, .. } if name == "a"), "{error}");
    a.stop();
    pool.start("a", 1, &[]);
}

#[test]
fn a_node_without_identity_says_what_to_do() {
    let pool = Pool::new();
    let mut options = pool.options("a", 1, &[]);
    options.name = "b".into();
    let error = Node::start(options).err().unwrap().to_string();
    assert!(error.contains("no node named b here"), "{error}");
}

#[test]
fn the_port_must_be_free() {
    let pool = Pool::new();
    let a = pool.start("a", 1, &[]);
    let mut options = pool.options("b", 1, &[]);
    options.listen = a.node.addresses.clone();
    let error = Node::start(options).err().unwrap().to_string();
    assert!(error.contains(&a.node.addresses[0].to_string()) && error.contains("port"), "{error}");
}

#[test]
fn a_program_that_breaks_the_protocol_is_cut_off_and_others_are_not() {
    let pool = Pool::new();
    let a = pool.start("a", 1, &[]);
    let mut good = Program::connect(&a.socket, 1);
    let mut bad = Program::connect(&a.socket, 2);
    assert_eq!(bad.allocate(1, 1).leases.len(), 1);
    bad.send_bytes(&[0xff; 64]);
    match bad.next() {
        Some(LocalMessage::ClientRefused(refused)) => assert!(refused.text.contains("0xffff"), "{refused:?}"),
        other => panic!("unexpected {other:?}"),
    }
    assert!(bad.next().is_none());
    good.wait_nodes("the slot is free", |nodes| nodes[0].slots_free == 1);
    let twice = Program::return_to(&a.socket, 1, 0, Vec::new()).err().unwrap();
    assert!(twice.contains("connected already"), "{twice}");
}

#[test]
fn a_program_that_announces_what_is_not_in_its_lane_is_cut_off() {
    let pool = Pool::new();
    let a = pool.start("a", 1, &[]);
    let extent = CallExtent { bytes: 20_000, limit_ms: 0 };
    let header = call_header(Handle(1), CallId(1), 0, extent, true, 20_000, false);
    let mut frame = Vec::new();
    put_aside(&mut frame, header);
    for (app, has_lane) in [(1, false), (2, true)] {
        let mut program = Program::connect(&a.socket, app);
        if has_lane {
            program.send(OpenLane {});
            assert!(matches!(program.next(), Some(LocalMessage::LaneOpened(_))));
        }
        program.send_bytes(&frame);
        match program.next() {
            Some(LocalMessage::ClientRefused(refused)) => {
                assert!(refused.text.contains("malformed"), "{refused:?}");
            }
            other => panic!("unexpected {other:?}"),
        }
        assert!(program.next().is_none());
    }
}

#[test]
fn a_program_returns_to_its_restarted_node_and_keeps_its_remote_leases() {
    let pool = Pool::new();
    let a = pool.start("a", 1, &[]);
    let b = pool.spawn("b", "a");
    let mut program = Program::connect(&b.socket, 7);
    program.wait_nodes("two nodes", |nodes| nodes.len() == 2);
    let got = program.allocate(2, 2);
    assert_eq!(got.leases.len(), 2);
    let held: Vec<HeldLease> = got
        .leases
        .iter()
        .map(|lease| HeldLease {
            handle: lease.handle,
            serial: lease.lease.serial,
            lender: lease.lender.clone(),
            slots: lease.slots,
            works: false,
        })
        .collect();
    b.kill();
    let b = pool.spawn("b", "a");
    let mut program = Program::return_to(&b.socket, 7, 1, held).unwrap();
    let mut changes = BTreeMap::new();
    while changes.len() < 2 {
        let news = program.next_news();
        changes.insert(news.handle, news.change);
    }
    for lease in &got.leases {
        let change = &changes[&lease.handle];
        if lease.local {
            assert!(matches!(change, LeaseChange::Ended(_)), "{change:?}");
        } else {
            assert_eq!(*change, LeaseChange::Restored);
        }
    }
    let mut other = Program::connect(&a.socket, 8);
    let nodes = other.wait_nodes("two nodes", |nodes| nodes.len() == 2);
    assert_eq!((nodes[0].slots_free, nodes[1].slots_free), (0, 1), "{nodes:?}");
}

#[test]
fn applications_are_listed_and_killed_by_those_who_may() {
    let pool = Pool::without_users();
    let a = pool.start("a", 1, &[]);
    let b = pool.start("b", 1, &["a"]);
    let mut victim = Program::connect(&a.socket, 0xabcd << 112);
    assert_eq!(victim.allocate(1, 1).leases.len(), 1);
    let mut there = Program::connect(&b.socket, 2);
    there.wait_nodes("two nodes", |nodes| nodes.len() == 2);
    let (apps, _) = there.ask(None, Topic::Apps);
    assert_eq!(apps.len(), 2, "{apps:?}");
    // From another node a bare word is not enough.
    let kill = || Topic::Kill { what: "abcd".into() };
    let (rows, _) = there.ask(None, kill());
    assert!(matches!(&rows[..], [Row::Failed { node, .. }] if node == "a"), "{rows:?}");
    // At its own node it is.
    let mut here = Program::connect(&a.socket, 3);
    let (rows, _) = here.ask(None, kill());
    assert!(matches!(&rows[..], [Row::Done { node, .. }] if node == "a"), "{rows:?}");
    assert!(matches!(victim.next(), Some(LocalMessage::ClientRefused(_))));
    assert!(victim.next().is_none());
    here.wait_nodes("the slot is free", |nodes| nodes[0].slots_free == 1);
}

#[test]
fn an_administrators_order_is_obeyed_everywhere() {
    let pool = Pool::new();
    let a = pool.start("a", 1, &[]);
    let b = pool.start("b", 1, &["a"]);
    let mut victim = Program::connect(&a.socket, 0xabcd << 112);
    let mut there = Program::connect(&b.socket, 2);
    there.wait_nodes("two nodes", |nodes| nodes.len() == 2);
    let (rows, _) = there.ask(None, Topic::Kill { what: "abcd".into() });
    assert!(matches!(&rows[..], [Row::Done { node, .. }] if node == "a"), "{rows:?}");
    assert!(matches!(victim.next(), Some(LocalMessage::ClientRefused(_))));
}

#[test]
fn a_node_stops_and_leaves_no_files() {
    let pool = Pool::new();
    let a = pool.start("a", 1, &[]);
    let socket = a.socket.clone();
    assert!(socket.exists() && socket.with_extension("json").exists());
    a.stop();
    assert!(!socket.exists() && !socket.with_extension("json").exists());
}

#[test]
fn a_terminated_node_leaves_properly() {
    let pool = Pool::new();
    let a = pool.start("a", 1, &[]);
    let b = pool.spawn("b", "a");
    let mut program = Program::connect(&a.socket, 1);
    program.wait_nodes("two nodes", |nodes| nodes.len() == 2);
    assert_eq!(program.allocate(2, 2).leases.len(), 2);
    assert!(b.terminate());
    let news = program.next_news();
    assert_eq!(news.change, LeaseChange::Ended(LeaseEnd::Leaving));
    assert_eq!(program.nodes().len(), 1);
}

#[test]
fn a_node_finds_one_that_comes_later() {
    let pool = Pool::new();
    let mut options = pool.options("b", 1, &["a"]);
    options.join_wait = Duration::from_millis(200);
    let b = run(options);
    let _a = pool.start("a", 1, &[]);
    let mut program = Program::connect(&b.socket, 1);
    program.wait_nodes("two nodes", |nodes| nodes.len() == 2);
}

#[test]
fn a_private_node_serves_its_program_and_ends_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let state = dir.path().join("private");
    let mut options = mutirao_node::Options::embedded(&state, theirs);
    options.slots = Some(2);
    let node = Node::start(options).unwrap();
    let thread = std::thread::spawn(move || node.run().unwrap());
    let mut program = Program::over(ours, 1, 0, Vec::new()).unwrap();
    assert_eq!(program.welcome.pool, None);
    let got = program.allocate(5, 1);
    assert!(got.leases.len() == 2 && got.leases.iter().all(|lease| lease.local), "{got:?}");
    drop(program);
    thread.join().unwrap();
    assert!(!state.exists());
}
