//! Machines that are cut off, stopped and lost, while programs use them.

mod lab;

use lab::hosts::Hosts;
use lab::{Lab, Running};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::time::{Duration, Instant};

/// A lease whose home is out of reach lapses after so long.
const LAPSE: Duration = Duration::from_secs(10);

/// The test program on machine `i`.
fn start(hosts: &Hosts, i: usize, args: &[&str]) -> Running {
    let mut command = hosts.command(i, Lab::program());
    command.args(args);
    hosts.spawn(command)
}

fn signal(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

/// Whether so many workers of `node` are in the middle of a call.
fn busy(workers: &[Value], node: &str, count: usize) -> bool {
    workers.iter().filter(|row| row["node"] == node && row["operation"].is_string()).count() == count
}

fn sum(map: &Value) -> u64 {
    map.as_object().unwrap().values().filter_map(Value::as_u64).sum()
}

/// All calls gave their results, each once.
#[track_caller]
fn all_came(said: &Value, count: u64) {
    assert_eq!(said["results"], count, "{said}");
    assert_eq!(said["wrong"], 0, "{said}");
    assert_eq!(sum(&said["failures"]), 0, "{said}");
}

#[test]
fn machines_form_a_tree_and_work_for_one_another() {
    let Some(hosts) = Hosts::new(3) else { return };
    hosts.up_all(&[1, 1, 1]);
    let parents: Vec<Value> = hosts.nodes(3).iter().map(|row| row["parent"].clone()).collect();
    assert_eq!(parents, [Value::Null, "n1".into(), "n1".into()]);
    let said = start(&hosts, 2, &["calls", "sleep", "120", "40", "3"]).wait().json();
    all_came(&said, 120);
    for node in ["n1", "n2", "n3"] {
        assert!(said["nodes"][node].as_u64().is_some_and(|share| share >= 5), "{said}");
    }
    hosts.until("all is free again", || (1..=3).all(|i| hosts.free_slots(i) == Some(1)));
}

#[test]
fn calls_go_on_where_they_were_when_a_link_is_cut_and_healed() {
    let Some(hosts) = Hosts::new(2) else { return };
    hosts.up_all(&[1, 3]);
    let once = start(&hosts, 1, &["calls", "sleep_once", "90", "100", "3"]);
    hosts.until("both machines work", || busy(&hosts.rows(1, "ps"), "n2", 2));
    let repeatable = start(&hosts, 1, &["calls", "sleep", "60", "100", "1"]);
    hosts.until("all slots work", || busy(&hosts.rows(1, "ps"), "n2", 3));
    hosts.cut(2);
    std::thread::sleep(Duration::from_secs(3));
    hosts.heal(2);
    let said = once.wait().json();
    all_came(&said, 90);
    assert!(said["nodes"]["n2"].as_u64().is_some_and(|share| share >= 2), "{said}");
    assert_eq!(sum(&said["nodes"]), 90, "no call was finished twice: {said}");
    let said = repeatable.wait().json();
    all_came(&said, 60);
    assert_eq!(said["nodes"]["n2"], 60, "it kept its lease: {said}");
}

#[test]
fn a_cut_longer_than_the_lapse_frees_the_slots_and_leaves_no_call_in_doubt() {
    let Some(hosts) = Hosts::new(2) else { return };
    hosts.up_all(&[1, 3]);
    let repeatable = start(&hosts, 1, &["calls", "sleep", "150", "100", "3"]);
    hosts.until("both machines work", || busy(&hosts.rows(1, "ps"), "n2", 2));
    let once = start(&hosts, 1, &["calls", "sleep_once", "20", "100"]);
    hosts.until("all slots work", || busy(&hosts.rows(1, "ps"), "n2", 3));
    hosts.cut(2);
    let cut = Instant::now();
    hosts.until("the lender has its slots back", || hosts.free_slots(2) == Some(3));
    assert!(cut.elapsed() >= LAPSE, "after {:?}", cut.elapsed());

    let said = repeatable.wait().json();
    all_came(&said, 150);
    // What had been sent to the lost lender may have run; the rest found a slot elsewhere.
    let said = once.wait().json();
    let unknown = said["failures"]["outcome unknown"].as_u64().unwrap_or(0);
    assert!((1..=2).contains(&unknown), "{said}");
    assert_eq!(sum(&said["failures"]), unknown, "{said}");
    assert_eq!(said["results"], 20 - unknown, "{said}");
    assert_eq!(said["wrong"], 0, "{said}");

    hosts.heal(2);
    hosts.until("the machines are one tree again", || hosts.nodes(1).len() == 2);
    let said = start(&hosts, 1, &["calls", "sleep", "100", "30", "4"]).wait().json();
    all_came(&said, 100);
    assert!(said["nodes"]["n2"].as_u64().is_some_and(|share| share > 0), "{said}");
}

#[test]
fn slots_are_free_after_the_lapse_when_the_applications_machine_is_gone() {
    let Some(hosts) = Hosts::new(3) else { return };
    hosts.up_all(&[1, 1, 1]);
    let program = start(&hosts, 3, &["calls", "sleep", "3000", "100", "3"]);
    hosts.until("the other machines work", || {
        let workers = hosts.rows(1, "ps");
        busy(&workers, "n1", 1) && busy(&workers, "n2", 1)
    });
    // Off without a word, as when its power fails.
    hosts.cut(3);
    let gone = Instant::now();
    signal(hosts.pid(3), Signal::KILL);
    program.kill();
    hosts.until("the slots are free", || (1..=2).all(|i| hosts.free_slots(i) == Some(1)));
    assert!(gone.elapsed() >= LAPSE, "after {:?}", gone.elapsed());
    assert!(hosts.rows(1, "ps").is_empty(), "no worker is left");
    let said = start(&hosts, 1, &["calls", "sleep", "20", "20", "2"]).wait().json();
    all_came(&said, 20);
}

#[test]
fn a_lender_that_stood_still_for_a_while_loses_nothing() {
    let lab = Lab::with_pool(2, 2);
    let start = |args: &[&str]| {
        let mut command = lab.command(Lab::program());
        command.env("MUTIRAO_NODE", "n1").args(args);
        lab.spawn(command)
    };
    let once = start(&["calls", "sleep_once", "120", "100", "3"]);
    lab.until("both nodes work", || busy(&lab.rows(["ps"]), "n2", 1));
    let repeatable = start(&["calls", "sleep", "50", "100", "1"]);
    lab.until("all slots work", || busy(&lab.rows(["ps"]), "n2", 2));
    let lender = lab.pid("n2");
    signal(lender, Signal::STOP);
    std::thread::sleep(Duration::from_secs(3));
    signal(lender, Signal::CONT);
    let said = once.wait().json();
    all_came(&said, 120);
    assert_eq!(sum(&said["nodes"]), 120, "no call was finished twice: {said}");
    let said = repeatable.wait().json();
    all_came(&said, 50);
    assert_eq!(said["nodes"]["n2"], 50, "it kept its lease: {said}");
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
    let died = Instant::now();
    hosts.until("n3 has n1 as its parent", || parent(1, "n3") == Some("n1".into()));
    assert!(died.elapsed() < Duration::from_secs(15), "after {:?}", died.elapsed());
    let said = start(&hosts, 1, &["calls", "sleep", "80", "40", "2"]).wait().json();
    all_came(&said, 80);
    assert!(said["nodes"]["n3"].as_u64().is_some_and(|share| share > 0), "{said}");
    hosts.up(2, 1, Some(3));
    hosts.until("n2 is back, elsewhere", || parent(1, "n2") == Some("n3".into()));
}
