//! Growing, shrinking, taking back and draining, over pools of real daemons: no call is lost.

mod lab;

use lab::{Flow, Lab, busy};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

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

/// Has calls made on four slots and waits until so many workers of `n2` are in the middle of one.
#[track_caller]
fn start(lab: &Lab, operation: &str, span_ms: u64, count: usize) -> Flow {
    let calls = lab.flow("n1", operation, span_ms, 4);
    lab.until("the calls run", || busy(&lab.rows(["ps"]), "n2") == count);
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
fn a_lent_slot_comes_back_after_the_grace_and_no_call_is_lost() {
    let lab = Lab::with_pool(2, 2);
    let calls = start(&lab, "sleep", 200, 2);
    lab.run(["reclaim", "n2", "--grace", "300ms"]).well();
    lab.until("the workers are gone", || workers(&lab, "n2") == 0);
    let row = lab.node("n2");
    assert_eq!(
        (&row["slots_reclaimed"], &row["slots_free"], &row["state"]),
        (&2.into(), &0.into(), &"up".into())
    );
    assert!(lab.run(["nodes"]).well().contains("up, 2 reclaimed"));
    calls.end_well();
    // Nobody else has them until they are lent again.
    lab.until("the others are free", || lab.free_slots() == 2);
    let refused = lab.run(["alloc", "-n", "4", "--", "true"]).complaint();
    assert!(refused.contains("only 2 of at least 4"), "{refused}");
    lab.run(["resume", "n2"]).well();
    lab.until("it lends again", || lab.free_slots() == 4);
    lab.run(["alloc", "-n", "4", "--", "true"]).well();
}

#[test]
fn calls_that_must_not_run_twice_are_accounted_for_when_a_slot_is_taken_back() {
    let lab = Lab::with_pool(2, 2);
    let calls = start(&lab, "sleep_once", 400, 2);
    lab.run(["reclaim", "n2", "1", "--grace", "0ms", "--for", "1s"]).well();
    lab.until("one is gone", || workers(&lab, "n2") == 1);
    lab.until("it is lent again", || lab.node("n2")["slots_reclaimed"] == 0);
    let said = calls.end();
    let failed = sum(&said["failures"]);
    assert_eq!(said["results"].as_u64().unwrap() + failed, said["calls"].as_u64().unwrap(), "{said}");
    assert!(failed <= 1, "only what ran there is lost: {said}");
    assert_eq!(said["wrong"], 0, "{said}");
    assert!(said["failures"].as_object().unwrap().keys().all(|how| how == "outcome unknown"), "{said}");
}

#[test]
fn a_drained_node_stays_so_over_a_restart_until_it_is_told_otherwise() {
    let lab = Lab::with_pool(2, 2);
    let calls = start(&lab, "sleep_once", 150, 2);
    lab.run(["drain", "n2", "--wait"]).well();
    assert_eq!((workers(&lab, "n2"), &lab.node("n2")["state"]), (0, &"drained".into()));
    calls.end_well();
    lab.kill("n2");
    let root = lab.node("n1")["addresses"][0].as_str().unwrap().to_owned();
    let again = ["up", "--name", "n2", "--slots", "2", "--listen", "127.0.0.1:0", "--parent", &root];
    lab.run(again).well();
    lab.until("it is back", || lab.nodes().len() == 2);
    assert_eq!(lab.node("n2")["state"], "drained");
    lab.until("only n1 lends", || lab.free_slots() == 2);
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
    let calls = start(&lab, "sleep", 1000, 2);
    lab.run(["drain", "n2", "--now", "--grace", "100ms", "--wait"]).well();
    assert_eq!(workers(&lab, "n2"), 0);
    calls.end_well();
    lab.run(["resume", "n2"]).well();
    lab.until("all is free", || lab.free_slots() == 4);
    // It does not wait for the calls: these last longer than anybody does.
    let calls = start(&lab, "sleep", 3_600_000, 2);
    lab.run(["drain", "n2", "--now", "--grace", "100ms", "--wait"]).well();
    assert_eq!(workers(&lab, "n2"), 0);
    calls.kill();
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
    assert!(bad.contains("no node of the pool knows `0123`"), "{bad}");
    stays.kill();
}

#[test]
fn an_elastic_program_keeps_to_its_orders_and_finishes_every_call() {
    let lab = Lab::with_pool(2, 3);
    let calls = lab.flow("n1", "sleep_once", 100, 0);
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
    calls.end_well();
}

/// Two nodes of two slots, of which `n2` has these rules.
fn with_rules(rules: &str) -> Lab {
    let lab = Lab::new();
    let place = lab.home().join("nodes/n2");
    std::fs::create_dir_all(&place).unwrap();
    std::fs::write(place.join("node.toml"), format!("[lend]\n{rules}")).unwrap();
    lab.up_local(2, 2, &[]);
    lab
}

#[test]
fn an_owner_who_comes_first_has_the_slots_back_and_nobody_loses_a_call() {
    let lab = with_rules("own_first = true\ngrace_ms = 200\n");
    let calls = start(&lab, "sleep", 100, 2);
    // The owner's own program, at the owner's own node: it is the others who make room.
    let script = "test $MUTIRAO_NODES = n2 && test $MUTIRAO_SLOTS = 2";
    lab.run(["--node", "n2", "alloc", "-n", "2", "--hops", "0", "--", "sh", "-c", script]).well();
    calls.end_well();
    // At another node the same user waits for nobody's slots.
    let calls = start_on_two(&lab);
    let complaint = lab.run(["--node", "n1", "alloc", "-n", "3", "--", "true"]).complaint();
    assert!(complaint.contains("of at least 3"), "{complaint}");
    calls.end_well();
}

/// Has calls made on the two slots of `n2`.
fn start_on_two(lab: &Lab) -> Flow {
    lab.until("all is free", || lab.free_slots() == 4);
    let held = lab.spawn(lab.mutirao(["alloc", "-n", "2", "--hops", "0", "--", "sleep", "3600"]));
    lab.until("the others are held", || lab.free_slots() == 2);
    let calls = lab.flow("n1", "sleep", 100, 2);
    lab.until("the calls run", || busy(&lab.rows(["ps"]), "n2") == 2);
    held.kill();
    calls
}

#[test]
fn a_node_lends_at_its_hours_only_and_to_its_owner_always() {
    // A day of the week that is neither today nor tomorrow.
    let today = Command::new("date").arg("+%u").output().unwrap().stdout;
    let today = usize::from(today[0] - b'1');
    let day = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"][(today + 3) % 7];
    let lab = with_rules(&format!("hours = [\"{day}\"]\n"));
    lab.until("n2 keeps its slots", || lab.node("n2")["slots_reclaimed"] == 2);
    assert_eq!(lab.node("n2")["slots_free"], 0);
    let refused = lab.run(["alloc", "-n", "3", "--", "true"]).complaint();
    assert!(refused.contains("only 2 of at least 3"), "{refused}");
    lab.run(["--node", "n2", "alloc", "-n", "2", "--hops", "0", "--", "true"]).well();
    // Without the rule it lends again.
    lab.run(["--node", "n2", "down"]).well();
    std::fs::remove_file(lab.home().join("nodes/n2/node.toml")).unwrap();
    lab.run(["up", "--name", "n2", "--slots", "2", "--listen", "127.0.0.1:0", "--parent", "n1"]).well();
    lab.until("n2 lends", || lab.free_slots() == 4);
    lab.run(["alloc", "-n", "4", "--", "true"]).well();
}

#[test]
fn a_rule_that_makes_no_sense_is_named_before_the_node_starts() {
    let lab = Lab::with_pool(1, 1);
    lab.run(["down"]).well();
    std::fs::write(lab.home().join("nodes/n1/node.toml"), "[lend]\nhours = [\"Someday\"]\n").unwrap();
    let complaint = lab.run(["up", "--name", "n1"]).complaint();
    assert!(complaint.contains("Someday"), "{complaint}");
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
