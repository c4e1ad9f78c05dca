//! Machines that are cut off, stopped and lost, while programs use them.

mod lab;

use lab::hosts::Hosts;
use lab::screen::{ASK, Screen};
use lab::{Lab, busy};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

/// A lease whose home is out of reach lapses after so long.
const LAPSE: Duration = Duration::from_secs(10);

fn signal(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

fn sum(map: &Value) -> u64 {
    map.as_object().unwrap().values().filter_map(Value::as_u64).sum()
}

#[test]
fn machines_form_a_tree_and_work_for_one_another() {
    let Some(hosts) = Hosts::new(3) else { return };
    hosts.up_all(&[1, 1, 1]);
    let parents: Vec<Value> = hosts.nodes(3).iter().map(|row| row["parent"].clone()).collect();
    assert_eq!(parents, [Value::Null, "n1".into(), "n1".into()]);
    let calls = hosts.flow(2, "sleep", 40, 3);
    let names = ["n1", "n2", "n3"];
    for node in names {
        hosts.until(&format!("{node} works"), || busy(&hosts.rows(1, "ps"), node) == 1);
    }
    let said = calls.end_well();
    assert!(names.iter().all(|node| said["nodes"][node].as_u64().is_some_and(|share| share > 0)), "{said}");
    hosts.until("all is free again", || (1..=3).all(|i| hosts.free_slots(i) == Some(1)));
}

#[test]
fn calls_go_on_where_they_were_when_a_link_is_cut_and_healed() {
    let Some(hosts) = Hosts::new(2) else { return };
    hosts.up_all(&[1, 3]);
    let once = hosts.flow(1, "sleep_once", 100, 3);
    hosts.until("both machines work", || busy(&hosts.rows(1, "ps"), "n2") == 2);
    let repeatable = hosts.flow(1, "sleep", 100, 1);
    hosts.until("all slots work", || busy(&hosts.rows(1, "ps"), "n2") == 3);
    hosts.cut(2);
    hosts.until("the other has noticed", || hosts.nodes(1).len() == 1);
    hosts.heal(2);
    hosts.until("all slots work again", || busy(&hosts.rows(1, "ps"), "n2") == 3);
    let said = once.end_well();
    assert!(said["nodes"]["n2"].as_u64().is_some_and(|share| share >= 2), "{said}");
    assert_eq!(sum(&said["nodes"]), said["calls"], "no call was finished twice: {said}");
    let said = repeatable.end_well();
    assert_eq!(said["nodes"]["n2"], said["calls"], "it kept its lease: {said}");
}

#[test]
fn a_cut_longer_than_the_lapse_frees_the_slots_and_leaves_no_call_in_doubt() {
    let Some(hosts) = Hosts::new(2) else { return };
    hosts.up_all(&[1, 3]);
    let repeatable = hosts.flow(1, "sleep", 100, 3);
    hosts.until("both machines work", || busy(&hosts.rows(1, "ps"), "n2") == 2);
    let once = hosts.flow(1, "sleep_once", 100, 0);
    hosts.until("all slots work", || busy(&hosts.rows(1, "ps"), "n2") == 3);
    let cut = Instant::now();
    hosts.cut(2);
    hosts.until("the lender has its slots back", || hosts.free_slots(2) == Some(3));
    assert!(cut.elapsed() >= LAPSE, "after {:?}", cut.elapsed());

    repeatable.end_well();
    // What had been sent to the lost lender may have run; the rest found a slot elsewhere.
    let said = once.end();
    let unknown = said["failures"]["outcome unknown"].as_u64().unwrap_or(0);
    assert!((1..=2).contains(&unknown), "{said}");
    assert_eq!(sum(&said["failures"]), unknown, "{said}");
    assert_eq!(said["results"].as_u64().map(|results| results + unknown), said["calls"].as_u64(), "{said}");
    assert_eq!(said["wrong"], 0, "{said}");

    hosts.heal(2);
    hosts.until("the machines are one tree again", || hosts.nodes(1).len() == 2);
    let calls = hosts.flow(1, "sleep", 30, 4);
    hosts.until("both machines work again", || busy(&hosts.rows(1, "ps"), "n2") == 3);
    calls.end_well();
}

#[test]
fn slots_are_free_after_the_lapse_when_the_applications_machine_is_gone() {
    let Some(hosts) = Hosts::new(3) else { return };
    hosts.up_all(&[1, 1, 1]);
    let program = hosts.flow(3, "sleep", 100, 3);
    hosts.until("the other machines work", || {
        let workers = hosts.rows(1, "ps");
        busy(&workers, "n1") == 1 && busy(&workers, "n2") == 1
    });
    // Off without a word, as when its power fails.
    let gone = Instant::now();
    hosts.cut(3);
    signal(hosts.pid(3), Signal::KILL);
    program.kill();
    hosts.until("the slots are free", || (1..=2).all(|i| hosts.free_slots(i) == Some(1)));
    assert!(gone.elapsed() >= LAPSE, "after {:?}", gone.elapsed());
    assert!(hosts.rows(1, "ps").is_empty(), "no worker is left");
    let calls = hosts.flow(1, "sleep", 20, 2);
    hosts.until("n2 works again", || busy(&hosts.rows(1, "ps"), "n2") == 1);
    calls.end_well();
}

#[test]
fn a_lender_that_stood_still_for_a_while_loses_nothing() {
    let lab = Lab::with_pool(2, 2);
    let once = lab.flow("n1", "sleep_once", 100, 3);
    lab.until("both nodes work", || busy(&lab.rows(["ps"]), "n2") == 1);
    let repeatable = lab.flow("n1", "sleep", 100, 1);
    lab.until("all slots work", || busy(&lab.rows(["ps"]), "n2") == 2);
    let lender = lab.pid("n2");
    signal(lender, Signal::STOP);
    lab.until("it is given up", || lab.nodes().len() == 1);
    signal(lender, Signal::CONT);
    lab.until("all slots work again", || busy(&lab.rows(["ps"]), "n2") == 2);
    let said = once.end_well();
    assert_eq!(sum(&said["nodes"]), said["calls"], "no call was finished twice: {said}");
    let said = repeatable.end_well();
    assert_eq!(said["nodes"]["n2"], said["calls"], "it kept its lease: {said}");
}

#[test]
fn a_node_whose_parent_died_finds_its_way_back() {
    let Some(hosts) = Hosts::new(3) else { return };
    hosts.up(1, 1, None);
    hosts.up(2, 1, Some(1));
    hosts.up(3, 1, Some(2));
    let parent = |i: usize, of: &str| {
        hosts.nodes(i).iter().find(|row| row["name"] == of).map(|row| row["parent"].clone())
    };
    hosts.until("they are a chain", || {
        parent(1, "n2") == Some("n1".into()) && parent(1, "n3") == Some("n2".into())
    });
    signal(hosts.pid(2), Signal::KILL);
    hosts.until("n3 has n1 as its parent", || parent(1, "n3") == Some("n1".into()));
    let calls = hosts.flow(1, "sleep", 40, 2);
    hosts.until("n3 works", || busy(&hosts.rows(1, "ps"), "n3") == 1);
    calls.end_well();
    hosts.up(2, 1, Some(1));
    hosts.until("n2 is back, and n3 below it, where it was told to be", || {
        parent(1, "n2") == Some("n1".into()) && parent(1, "n3") == Some("n2".into())
    });
}

/// Whether machine `i` sees one tree of exactly these nodes.
fn sees_one_tree(hosts: &Hosts, i: usize, of: &[usize]) -> bool {
    let rows = hosts.nodes(i);
    let mut names: Vec<&str> = rows.iter().filter_map(|row| row["name"].as_str()).collect();
    names.sort_unstable();
    let expected: Vec<String> = of.iter().map(|i| format!("n{i}")).collect();
    names == expected && rows.iter().filter(|row| row["parent"].is_null()).count() == 1
}

/// Demands that the slots of each node, as these machines list them, are those it has, and that no more
/// workers than that are there.
#[track_caller]
fn no_slot_is_held_twice(hosts: &Hosts, seen_from: usize, slots: u64) {
    for row in hosts.nodes(seen_from) {
        assert_eq!(row["slots_total"], slots, "{row}");
        assert!(row["slots_free"].as_u64().is_some_and(|free| free <= slots), "{row}");
    }
    let workers = hosts.rows(seen_from, "ps");
    for node in workers.iter().map(|row| &row["node"]) {
        let held: u64 =
            workers.iter().filter(|row| row["node"] == *node).filter_map(|row| row["slots"].as_u64()).sum();
        assert!(held <= slots, "{node} has {slots} slots, and leases of {held}: {workers:?}");
    }
}

#[test]
fn a_part_that_is_cut_off_works_on_and_is_one_tree_with_the_others_again() {
    const SLOTS: u64 = 2;
    let Some(hosts) = Hosts::new(4) else { return };
    for (i, parent) in [(1, None), (2, Some(1)), (3, Some(1)), (4, Some(3))] {
        hosts.up(i, SLOTS as u16, parent);
    }
    let (all, rest, part) = ([1, 2, 3, 4], [1, 2], [3, 4]);
    hosts.until("all are one tree", || sees_one_tree(&hosts, 1, &all));
    let works = |at: usize, node: &str| busy(&hosts.rows(at, "ps"), node);
    // While n1 is full, a program on n2 is given slots of n3, which will be on the other side.
    let first = hosts.flow(1, "sleep", 60, 2);
    hosts.until("n1 is full", || works(1, "n1") == 2);
    let across = hosts.flow(2, "sleep_once", 60, 4);
    hosts.until("n3 works for n2", || works(1, "n3") + works(1, "n4") == 2);
    first.end_well();
    hosts.until("n1 is free", || hosts.free_slots(1) == Some(SLOTS));
    let lent = if hosts.free_slots(3) == Some(0) { 3 } else { 4 };

    hosts.cut_part(&part);
    hosts.until("each part is a tree of its own", || {
        let one = |part: &[usize]| part.iter().all(|i| sees_one_tree(&hosts, *i, part));
        one(&rest) && one(&part)
    });
    // Both allocate over their edge, since n2 and the lent node are full, and compute.
    let here = hosts.flow(2, "sleep_once", 60, 1);
    let there = hosts.flow(lent, "sleep_once", 60, 1);
    hosts.until("n1 works for n2", || works(1, "n1") == 1);
    let other = format!("n{}", 7 - lent);
    hosts.until("the other node of the part works for the full one", || works(lent, &other) == 1);
    no_slot_is_held_twice(&hosts, 1, SLOTS);
    no_slot_is_held_twice(&hosts, 3, SLOTS);
    hosts.until("what was lent to the other side lapses", || hosts.free_slots(lent) == Some(SLOTS));

    hosts.heal_part(&part);
    hosts.until("all are one tree again", || all.iter().all(|i| sees_one_tree(&hosts, *i, &all)));
    let root = |i: &usize| {
        let rows = hosts.nodes(*i);
        rows.iter().find(|row| row["parent"].is_null()).map(|row| row["name"].clone())
    };
    let roots: Vec<_> = all.iter().map(root).collect();
    assert!(roots.iter().all(|root| *root == roots[0]), "all see the same root: {roots:?}");
    no_slot_is_held_twice(&hosts, 2, SLOTS);
    for calls in [here, there] {
        let said = calls.end_well();
        assert_eq!(sum(&said["nodes"]), said["calls"], "no call was finished twice: {said}");
    }
    // Of what had been sent to the other side nobody knows whether it ran; all else has its result.
    let said = across.end();
    let unknown = said["failures"]["outcome unknown"].as_u64().unwrap_or(0);
    assert_eq!((sum(&said["failures"]), &said["wrong"]), (unknown, &0.into()), "{said}");
    assert_eq!(said["results"].as_u64().map(|results| results + unknown), said["calls"].as_u64(), "{said}");

    hosts.until("all slots are free", || all.iter().all(|i| hosts.free_slots(*i) == Some(SLOTS)));
    assert!(hosts.rows(1, "ps").is_empty(), "no worker is left");
    let calls = hosts.flow(4, "sleep", 60, 8);
    hosts.until("all slots are had from the part that was cut off", || {
        let workers = hosts.rows(1, "ps");
        all.iter().all(|i| busy(&workers, &format!("n{i}")) == SLOTS as usize)
    });
    calls.end_well();
}

/// A `mutirao bag` command on machine `i`, in the room that all share.
fn bag(hosts: &Hosts, i: usize, args: &[&str]) -> lab::Said {
    let mut command = hosts.command(i, Lab::binary());
    command.arg("bag").args(args).current_dir(hosts.path(""));
    hosts.spawn(command).wait()
}

/// The node that keeps the bag, as machine `i` knows it.
fn keeper(hosts: &Hosts, i: usize) -> Option<usize> {
    let apps = hosts.rows(i, "apps");
    let app = apps.iter().find(|app| app["name"].as_str().is_some_and(|name| name.starts_with("bag-")))?;
    app["home"].as_str()?.strip_prefix('n')?.parse().ok()
}

#[test]
fn a_bag_whose_keeper_is_cut_off_again_and_again_counts_each_result_once() {
    let Some(hosts) = Hosts::new(3) else { return };
    hosts.up_all(&[1, 1, 1]);
    let file = "[task.a]\ncommand = 'sleep 0.4; echo {n}'\ngrid = { n = { from = 1, to = 100 } }\n";
    std::fs::write(hosts.path("cut.toml"), file).unwrap();
    let said = bag(&hosts, 1, &["submit", "cut.toml"]);
    assert!(said.err.contains("kept by `n1`, `n2` and `n3`"), "{}", said.err);
    let id = said.well();
    let id = id.trim();
    let done =
        || bag(&hosts, 1, &["show", id, "--output", "json"]).json()["counts"]["done"].as_u64().unwrap();
    hosts.until("some tasks are done", || done() >= 3);
    for round in 0..2 {
        let others = |i: usize| if i == 1 { 2 } else { 1 };
        let mut first = None;
        hosts.until("somebody keeps it", || {
            first = keeper(&hosts, 1);
            first.is_some()
        });
        let first = first.unwrap();
        hosts.cut(first);
        let next = || keeper(&hosts, others(first)).filter(|next| *next != first);
        hosts.until("another keeps it", || next().is_some());
        hosts.until("the one that is cut off does not", || keeper(&hosts, first).is_none());
        hosts.heal(first);
        let before = done();
        hosts.until(&format!("it goes on after cut {round}"), || done() > before || done() == 100);
    }
    hosts.until("all is done", || done() == 100);
    let results = bag(&hosts, 1, &["results", id]).well();
    let expected: Vec<String> = (1..=100).map(|n| n.to_string()).collect();
    assert_eq!(results.lines().collect::<Vec<_>>(), expected, "each once");
}

#[test]
fn state_that_a_task_saves_comes_whole_and_in_order_however_often_its_link_is_cut() {
    let Some(hosts) = Hosts::new(2) else { return };
    hosts.up_all(&[1, 1]);
    let file = "nodes = ['n2']\nreplicas = 1\n[task.a]\ncheckpoint = 'state'\nretries = 20\ncrash_limit = 20\ncommand = '''\n\
        touch state\nn=$(wc -l < state)\nwhile [ $n -lt 60 ]; do\nn=$((n+1))\ncp state s\necho $n >> s\n\
        $MUTIRAO bag checkpoint s || exit 9\nsleep 0.1\ndone\ncat state\n'''\n";
    std::fs::write(hosts.path("cut.toml"), file).unwrap();
    let mut command = hosts.command(1, Lab::binary());
    command.args(["bag", "run", "cut.toml"]).current_dir(hosts.path(""));
    let keeper = hosts.spawn(command);
    let task = || {
        let said = bag(&hosts, 1, &["show", "1", "--output", "json"]);
        // Before the bag is submitted there is nothing to be shown.
        let shown: Value = serde_json::from_str(&said.out).unwrap_or_default();
        shown["task"][0].clone()
    };
    let bytes = || task()["saved"]["bytes"].as_u64().unwrap_or(0);
    for cut in 0..3 {
        let before = bytes();
        hosts.until("more is saved", || bytes() > before || task()["state"] == "done");
        hosts.cut(2);
        let others = || hosts.nodes(1).len();
        hosts.until(&format!("cut {cut} is noticed"), || others() == 1);
        hosts.heal(2);
        hosts.until("it is healed", || others() == 2);
    }
    let said = keeper.wait();
    let expected: Vec<String> = (1..=60).map(|n| n.to_string()).collect();
    assert_eq!(said.out.lines().collect::<Vec<_>>(), expected, "{}", said.err);
}

#[test]
fn a_terminal_hears_later_what_was_typed_while_its_machine_was_cut_off_and_who_was_cut_off_comes_again() {
    let Some(hosts) = Hosts::new(3) else { return };
    hosts.up_all(&[1, 1, 1]);
    let ask = hosts.path("ask");
    std::fs::write(&ask, ASK).unwrap();
    std::fs::set_permissions(&ask, std::fs::Permissions::from_mode(0o755)).unwrap();
    let file =
        "[group]\nname = 'lake'\n[program.ask]\nexecutable = 'ask'\nterminal = true\nstations = ['n2']\n";
    std::fs::write(hosts.path("lake.toml"), file).unwrap();
    let mut command = hosts.command(1, Lab::binary());
    command.args(["group", "run", "lake.toml"]).current_dir(hosts.path(""));
    let launcher = hosts.spawn(command);
    hosts.until("it runs", || busy(&hosts.rows(1, "ps"), "n2") == 1);
    let attach = || {
        let mut command = hosts.command(3, "setsid");
        command.arg("-c").arg(Lab::binary()).args(["group", "attach", "lake", "ask.0"]);
        Screen::of(command)
    };
    let mut screen = attach();
    screen.shows("a terminal");
    let others = || hosts.nodes(1).len();
    let cut_and_heal = |machine| {
        hosts.cut(machine);
        hosts.until(&format!("the cut of {machine} is noticed"), || others() == 2);
        hosts.heal(machine);
        hosts.until("it is healed", || others() == 3);
    };
    // The process is cut off, and hears then what was typed meanwhile, once.
    hosts.cut(2);
    screen.type_in("hello\r");
    cut_and_heal(2);
    screen.shows("got hello");
    // Who is attached is cut off, and comes again.
    cut_and_heal(3);
    screen.shows("the way to `ask.0` of the group `lake` broke");
    assert_eq!(screen.count("got hello"), 1);
    assert_eq!(screen.ends(), Some(1));
    let mut again = attach();
    hosts.until("another can attach", || {
        if again.has_shown("attached already") {
            again = attach();
        }
        again.is_raw()
    });
    again.type_in("end\r");
    again.shows("`ask.0` of the group `lake` has ended: exit code 3");
    assert_eq!(again.ends(), Some(3));
    assert_eq!(launcher.wait().code, Some(3));
}
