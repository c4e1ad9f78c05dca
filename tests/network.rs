//! Machines that are cut off, stopped and lost, while programs use them.

mod lab;

use lab::hosts::Hosts;
use lab::{Lab, busy};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
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
