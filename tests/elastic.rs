//! Growing, shrinking, taking back and draining, over pools of real daemons: no call is lost.

mod lab;

use lab::{Lab, Running, Said};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn command(lab: &Lab, args: &[&str]) -> Command {
    let mut command = lab.command(Lab::program());
    command.env("MUTIRAO_NODE", "n1").args(args);
    command
}

fn sum(map: &Value) -> u64 {
    map.as_object().unwrap().values().filter_map(Value::as_u64).sum()
}

/// Workers that run calls on a node.
fn workers(lab: &Lab, node: &str) -> usize {
    let is_there = |row: &&Value| row["node"] == node && row["pid"] != 0;
    lab.rows(["ps"]).iter().filter(is_there).count()
}

/// Starts calls and waits until so many workers of `node` run them.
#[track_caller]
fn start(lab: &Lab, args: &[&str], node: &str, count: usize) -> Running {
    let calls = lab.spawn(command(lab, args));
    lab.until("the calls run", || workers(lab, node) == count);
    calls
}

/// The id of the only application that holds slots, and how many.
fn holder(lab: &Lab) -> Option<(String, u64)> {
    let rows = lab.rows(["apps"]);
    let held = rows.iter().find(|row| row["slots"] != 0)?;
    Some((held["id"].as_str()?.to_owned(), held["slots"].as_u64()?))
}

#[track_caller]
fn until_it_holds(lab: &Lab, slots: u64) -> String {
    let mut id = String::new();
    lab.until(&format!("it holds {slots} slots"), || {
        holder(lab).is_some_and(|(app, held)| {
            id = app;
            held == slots
        })
    });
    id
}

#[test]
fn a_lent_slot_comes_back_within_a_second_of_the_grace_and_no_call_is_lost() {
    let lab = Lab::with_pool(2, 2);
    let calls = start(&lab, &["calls", "sleep", "60", "200", "4"], "n2", 2);
    let ordered = Instant::now();
    lab.run(["reclaim", "n2", "--grace", "300ms"]).well();
    lab.until("the workers are gone", || workers(&lab, "n2") == 0);
    let took = ordered.elapsed();
    assert!(took < Duration::from_millis(300 + 1000), "{took:?}");
    let row = lab.node("n2");
    assert_eq!(
        (&row["slots_reclaimed"], &row["slots_free"], &row["state"]),
        (&2.into(), &0.into(), &"up".into())
    );
    assert!(lab.run(["nodes"]).well().contains("up, 2 reclaimed"));
    let said = calls.wait().json();
    assert_eq!((said["results"].as_u64(), said["wrong"].as_u64()), (Some(60), Some(0)), "{said}");
    // Nobody else has them until they are lent again.
    let refused = lab.run(["alloc", "-n", "4", "--", "true"]).complaint();
    assert!(refused.contains("only 2 of at least 4"), "{refused}");
    lab.run(["resume", "n2"]).well();
    lab.until("it lends again", || lab.free_slots() == 4);
    lab.run(["alloc", "-n", "4", "--", "true"]).well();
}

#[test]
fn calls_that_must_not_run_twice_are_accounted_for_when_a_slot_is_taken_back() {
    let lab = Lab::with_pool(2, 2);
    let calls = start(&lab, &["calls", "sleep_once", "24", "400", "4"], "n2", 2);
    lab.run(["reclaim", "n2", "1", "--grace", "0ms", "--for", "1s"]).well();
    lab.until("one is gone", || workers(&lab, "n2") == 1);
    lab.until("it is lent again", || lab.node("n2")["slots_reclaimed"] == 0);
    let said = calls.wait().json();
    let failed = sum(&said["failures"]);
    assert_eq!(said["results"].as_u64().unwrap() + failed, 24, "{said}");
    assert!(failed <= 1, "only what ran there is lost: {said}");
    assert_eq!(said["wrong"], 0, "{said}");
    assert!(said["failures"].as_object().unwrap().keys().all(|how| how == "outcome unknown"), "{said}");
}

#[test]
fn a_drained_node_stays_so_over_a_restart_until_it_is_told_otherwise() {
    let lab = Lab::with_pool(2, 2);
    let calls = start(&lab, &["calls", "sleep_once", "30", "150", "4"], "n2", 2);
    lab.run(["drain", "n2", "--wait"]).well();
    assert_eq!((workers(&lab, "n2"), &lab.node("n2")["state"]), (0, &"drained".into()));
    let said = calls.wait().json();
    assert_eq!(
        (said["results"].as_u64(), said["wrong"].as_u64()),
        (Some(30), Some(0)),
        "nothing was lost: {said}"
    );
    lab.kill("n2");
    let root = lab.node("n1")["addresses"][0].as_str().unwrap().to_owned();
    let again = ["up", "--name", "n2", "--slots", "2", "--listen", "127.0.0.1:0", "--parent", &root];
    lab.run(again).well();
    lab.until("it is back", || lab.nodes().len() == 2);
    assert_eq!(lab.node("n2")["state"], "drained");
    assert_eq!(lab.free_slots(), 2);
    lab.run(["resume", "n2"]).well();
    lab.until("it lends again", || lab.free_slots() == 4);
    lab.kill("n2");
    lab.run(again).well();
    lab.until("it lends after a further restart", || lab.nodes().len() == 2 && lab.free_slots() == 4);
    let unknown = lab.run(["drain", "n7"]).complaint();
    assert!(unknown.contains("node `n7` is not in the pool"), "{unknown}");
}

#[test]
fn a_drain_in_a_hurry_moves_what_can_be_moved() {
    let lab = Lab::with_pool(2, 2);
    let calls = start(&lab, &["calls", "sleep", "16", "1000", "4"], "n2", 2);
    let ordered = Instant::now();
    lab.run(["drain", "n2", "--now", "--grace", "100ms", "--wait"]).well();
    assert!(ordered.elapsed() < Duration::from_secs(3), "{:?}", ordered.elapsed());
    let said = calls.wait().json();
    assert_eq!((said["results"].as_u64(), said["wrong"].as_u64()), (Some(16), Some(0)), "{said}");
}

#[test]
fn a_program_that_minds_its_slots_grows_and_shrinks_by_order() {
    let lab = Lab::with_pool(2, 3);
    let mut command = command(&lab, &["stay", "2"]);
    command.stdin(Stdio::piped());
    let stays = lab.spawn(command);
    let app = until_it_holds(&lab, 2);
    lab.run(["grow", &app[..8], "3"]).well();
    until_it_holds(&lab, 5);
    lab.run(["shrink", &app[..8], "1"]).well();
    until_it_holds(&lab, 4);
    lab.run(["shrink", &app[..8], "--to", "1"]).well();
    until_it_holds(&lab, 1);
    let bad = lab.run(["shrink", "0123", "--to", "1"]).complaint();
    assert!(bad.contains("no node of the pool knows it"), "{bad}");
    stays.kill();
}

#[test]
fn an_elastic_program_keeps_to_its_orders_and_finishes_every_call() {
    let lab = Lab::with_pool(2, 3);
    let calls = lab.spawn(command(&lab, &["calls", "sleep_once", "150", "100"]));
    let app = until_it_holds(&lab, 6);
    lab.run(["shrink", &app, "--to", "2"]).well();
    until_it_holds(&lab, 2);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(holder(&lab).map(|(_, held)| held), Some(2), "it keeps to that");
    // Growing while it shrinks, and the other way round.
    lab.run(["grow", &app, "--to", "5"]).well();
    lab.run(["shrink", &app, "--to", "1", "--now"]).well();
    lab.run(["grow", &app, "--to", "4"]).well();
    until_it_holds(&lab, 4);
    lab.run(["grow", &app, "--own"]).well();
    until_it_holds(&lab, 6);
    let said: Value = Said::json(calls.wait());
    assert_eq!((said["results"].as_u64(), said["wrong"].as_u64()), (Some(150), Some(0)), "{said}");
}

#[test]
fn the_rust_example_doubles_its_slots_halves_them_and_draws_it() {
    let lab = Lab::with_pool(2, 2);
    let example = Path::new(Lab::binary()).with_file_name("examples").join("resize");
    assert!(
        example.exists(),
        "{} is missing: run `cargo build --workspace --examples` first",
        example.display()
    );
    let room = tempfile::tempdir().unwrap();
    let mut command = lab.command(example);
    command.env("MUTIRAO_NODE", "n1").arg("6").current_dir(room.path());
    let told = lab.spawn(command).wait().well();
    assert!(told.contains("at most 4 of 4 slots"), "{told}");
    let picture = std::fs::read_to_string(room.path().join("resize.svg")).unwrap();
    assert_eq!(picture.matches("<polyline").count(), 2, "{picture}");
    lab.until("its slots are free again", || lab.free_slots() == 4);
}
