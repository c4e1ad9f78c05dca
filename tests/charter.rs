//! The charter, seen from outside: edited, spread, at work; nodes and users revoked; admission by
//! administrators.

mod lab;

use lab::hosts::Hosts;
use lab::{Lab, Running, busy};
use serde_json::Value;
use std::process::Stdio;
use std::time::{Duration, Instant};

fn shown(lab: &Lab) -> Value {
    lab.run(["--output", "json", "charter", "show"]).json()
}

fn edit(lab: &Lab, text: &str) -> lab::Said {
    let file = lab.file("charter.toml", text);
    lab.run(["charter", "edit", file.to_str().unwrap()])
}

/// The text in force with one part replaced.
fn replace(lab: &Lab, old: &str, new: &str) {
    let text = lab.run(["charter", "show"]).well();
    assert!(text.contains(old), "{text}");
    edit(lab, &text.replace(old, new)).well();
}

fn start(lab: &Lab, node: &str, args: &[&str]) -> Running {
    let mut command = lab.command(Lab::program());
    command.env("MUTIRAO_NODE", node).args(args).stdin(Stdio::piped());
    lab.spawn(command)
}

fn log(lab: &Lab, node: &str) -> String {
    std::fs::read_to_string(lab.home().join("nodes").join(node).join("log")).unwrap_or_default()
}

fn sum(map: &Value) -> u64 {
    map.as_object().unwrap().values().filter_map(Value::as_u64).sum()
}

fn me(lab: &Lab) -> String {
    std::fs::read_dir(lab.home().join("users"))
        .unwrap()
        .flatten()
        .next()
        .unwrap()
        .file_name()
        .into_string()
        .unwrap()
}

#[test]
fn a_charter_is_shown_edited_and_remembered() {
    let lab = Lab::with_pool(4, 1);
    lab.until("all nodes have version 1", || {
        let nodes = shown(&lab)["nodes"].clone();
        nodes.as_array().unwrap().len() == 4
            && nodes.as_array().unwrap().iter().all(|node| node["has_it"] == true)
    });
    let first = shown(&lab);
    assert_eq!((&first["version"], &first["charter"]["admission"]), (&1.into(), &"open".into()), "{first}");
    assert_eq!(first["charter"]["timings"]["lapse_ms"], 10_000);

    for (text, line) in
        [("admission = \"opne\"\n", 1), ("\n[timings]\nbeat_ms = 5\n", 3), ("\n\nmood = 1\n", 3)]
    {
        let complaint = edit(&lab, text).complaint();
        assert!(complaint.contains(&format!("line {line}")), "{complaint}");
    }
    assert_eq!(shown(&lab)["version"], 1);

    let text =
        first["text"].as_str().unwrap().replace("lapse_ms = 10000", "lapse_ms = 4000 # we are impatient");
    let said = edit(&lab, &text);
    assert!(said.err.contains("version 2") && said.err.contains("all 4 nodes"), "{}", said.err);
    said.well();
    assert!(edit(&lab, &text).complaint().contains("nothing was changed"));
    assert!(edit(&lab, " \n").complaint().contains("empty"));
    // With an editor; one that changes nothing leaves nothing, one that makes a mistake keeps the text.
    let mut command = lab.mutirao(["charter", "edit"]);
    command.env_remove("VISUAL").env("EDITOR", "true");
    assert_eq!(lab.spawn(command).wait().well(), "");
    let mut command = lab.mutirao(["charter", "edit"]);
    command.env_remove("VISUAL").env("EDITOR", "sed -i /lapse/s/4000/5000/");
    lab.spawn(command).wait().well();
    let mut command = lab.mutirao(["charter", "edit"]);
    command.env_remove("VISUAL").env("EDITOR", "sed -i /lapse/s/5000/5/");
    let complaint = lab.spawn(command).wait().complaint();
    let draft = complaint.rsplit("charter edit ").next().unwrap().trim();
    assert!(
        complaint.contains("lapse_ms") && std::fs::read_to_string(draft).unwrap().contains("lapse_ms = 5 ")
    );
    std::fs::remove_file(draft).unwrap();

    let history = lab.run(["charter", "history"]).well();
    for line in [
        "version 3",
        "- lapse_ms = 4000 # we are impatient",
        "+ lapse_ms = 5000 # we are impatient",
        "version 1",
    ] {
        assert!(history.contains(line), "{history}");
    }
    let rows = lab.rows(["charter", "history"]);
    assert_eq!(rows.iter().map(|row| row["version"].as_u64().unwrap()).collect::<Vec<_>>(), [3, 2, 1]);
    assert!(rows.iter().all(|row| row["lost"] == false && row["by"] == me(&lab).as_str()));

    // It outlives the daemons, also one whose file is torn: that fetches it again.
    lab.run(["down", "--all"]).well();
    let directory = lab.home().join("nodes/n3/charter");
    let newest = std::fs::read_dir(&directory).unwrap().flatten().map(|entry| entry.path()).max().unwrap();
    let bytes = std::fs::read(&newest).unwrap();
    std::fs::write(&newest, &bytes[..bytes.len() / 2]).unwrap();
    lab.up_local(4, 1, &[]);
    lab.until("n3 has version 3 again", || {
        let nodes = shown(&lab)["nodes"].clone();
        nodes.as_array().unwrap().iter().all(|node| node["version"] == 3)
    });
    assert!(log(&lab, "n3").contains("is set aside"));
    lab.until("and keeps it", || std::fs::read(&newest).is_ok_and(|now| now == bytes));
}

#[test]
fn timings_and_fan_out_change_while_the_pool_runs() {
    let lab = Lab::with_pool(4, 1);
    replace(&lab, "lapse_ms = 10000", "lapse_ms = 600000");
    replace(&lab, "beat_ms = 500\nsilence_ms = 1500", "beat_ms = 250\nsilence_ms = 3000");
    replace(&lab, "fan_out = 0", "fan_out = 2");
    // Longer than the silence that was allowed before.
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(lab.nodes().len(), 4);
    for node in ["n1", "n2", "n3", "n4"] {
        let lost = log(&lab, node).matches("link lost").count();
        assert!(lost <= 1, "{node} lost links when the timings changed:\n{}", log(&lab, node));
    }
    // The third to join finds the root full.
    lab.run(["down", "--all"]).well();
    lab.up_local(4, 1, &[]);
    assert_eq!(lab.nodes().iter().filter(|row| row["parent"] == "n1").count(), 2);
    // A holder that stops answering loses its lease after the new lapse, not the old one, which nobody awaits.
    replace(&lab, "lapse_ms = 600000", "lapse_ms = 3000");
    let held = start(&lab, "n4", &["stay", "4"]);
    // Whoever still fetches the program when its home falls silent ends the lease at once.
    lab.until("all is held, and all workers are there", || {
        lab.rows(["ps"]).iter().filter(|row| row["state"] == "idle").count() == 4
    });
    let pid = rustix::process::Pid::from_raw(lab.pid("n4")).unwrap();
    let stopped = Instant::now();
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    lab.until("the others' slots are free", || lab.free_slots() == 3);
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
    assert!(stopped.elapsed() >= Duration::from_secs(3), "{:?}", stopped.elapsed());
    drop(held);
}

#[test]
fn the_charter_says_who_is_whose_parent() {
    let lab = Lab::with_pool(4, 1);
    let parent = |of: &str| lab.nodes().iter().find(|row| row["name"] == of).map(|row| row["parent"].clone());
    let below = |of: &str, parent_wanted: &str| parent(of) == Some(parent_wanted.into());
    assert!(below("n3", "n1") && below("n4", "n1"));
    let calls = lab.flow("n1", "sleep_once", 20, 4);
    replace(&lab, "[topology.parents]\n", "[topology.parents]\nn4 = \"n3\"\n");
    lab.until("n4 has moved below n3", || below("n4", "n3"));
    let complaint = lab.run(["tree", "move", "n4", "n2"]).complaint();
    assert!(complaint.contains("the charter says that `n4` is below `n3`"), "{complaint}");
    replace(&lab, "n4 = \"n3\"\n", "n4 = \"n2\"\nn3 = \"n2\"\n");
    lab.until("both have moved below n2", || below("n4", "n2") && below("n3", "n2"));
    let said = calls.end_well();
    assert_eq!(sum(&said["nodes"]), said["calls"], "the moves disturbed nothing: {said}");

    // Its parent is lost: it waits elsewhere, and goes back to the new life of it.
    lab.kill("n2");
    lab.until("n4 is elsewhere", || parent("n4").is_some_and(|at| at != "n2" && !at.is_null()));
    lab.run(["up", "--name", "n2", "--slots", "1", "--join", "n1"]).well();
    lab.until("both are back", || below("n4", "n2") && below("n3", "n2"));

    let text = lab.run(["charter", "show"]).well();
    let line = text.lines().position(|line| line == "n4 = \"n2\"").unwrap() + 1;
    let cycle = text.replace("n4 = \"n2\"\n", "n2 = \"n4\"\nn4 = \"n2\"\n");
    let complaint = edit(&lab, &cycle).complaint();
    assert!(
        complaint.contains("closes a cycle") && complaint.contains(&format!("line {line}")),
        "{complaint}"
    );

    // A parent that is not there yet is sought; who is named no longer may be moved by hand.
    lab.run(["--node", "n2", "down"]).well();
    lab.until("n2 is gone", || lab.nodes().len() == 3);
    lab.run(["up", "--name", "n2", "--slots", "1", "--join", "n1"]).well();
    lab.until("n4 is below n2 again", || below("n4", "n2"));
    replace(&lab, "n4 = \"n2\"\n", "");
    lab.run(["tree", "move", "n4", "n1"]).well();
    assert!(below("n4", "n1"));
}

#[test]
fn a_revoked_node_is_cut_off_at_once_and_refused_until_it_is_restored() {
    let lab = Lab::with_pool(3, 1);
    // It lends to a program at n1, and one of its own programs holds a slot elsewhere.
    let ours = lab.flow("n1", "sleep", 250, 3);
    lab.until("n3 works", || busy(&lab.rows(["ps"]), "n3") == 1);
    let said = lab.run(["charter", "revoke", "--as", "node", "n3", "--because", "stolen in May"]);
    said.well();
    lab.until("n3 is out", || lab.nodes().len() == 2);
    ours.end_well();
    assert!(log(&lab, "n3").contains("stolen in May"), "{}", log(&lab, "n3"));

    // Restarted, it is refused, and its owner is told by whom and why.
    lab.kill("n3");
    let said = lab.run(["up", "--name", "n3", "--slots", "1", "--listen", "127.0.0.1:0", "--join", "n1"]);
    assert!(said.err.contains("`n1`") && said.err.contains("stolen in May"), "{}", said.err);
    assert_eq!(lab.nodes().len(), 2);
    let said = lab.run(["--node", "n3", "nodes"]);
    assert!(!said.well().contains("n1"));

    // Restored, it is let in; but it still believes what it knew, until it is told.
    lab.run(["charter", "restore", "n3"]).well();
    lab.until("n3 is back", || lab.nodes().len() == 3);
    lab.until("and has the charter", || {
        shown(&lab)["nodes"].as_array().unwrap().iter().all(|node| node["has_it"] == true)
    });
    assert!(lab.run(["charter", "restore", "n3"]).complaint().contains("not on the deny list"));
}

#[test]
fn leases_of_a_revoked_node_and_user_end_and_their_calls_fail_by_name() {
    let lab = Lab::with_pool(3, 2);
    lab.run(["alloc", "--", "true"]).well();
    // A program at n2 computes everywhere; then n2 is revoked.
    let theirs = lab.flow("n2", "sleep_once", 500, 6);
    lab.until("all work", || ["n1", "n2", "n3"].iter().all(|node| busy(&lab.rows(["ps"]), node) == 2));
    lab.run(["charter", "revoke", "--as", "node", "n2"]).well();
    lab.until("their leases end", || lab.nodes().len() == 2 && lab.free_slots() == 4);
    let said = theirs.end();
    let failed: u64 = said["failures"].as_object().unwrap().values().filter_map(|count| count.as_u64()).sum();
    assert!((1..=8).contains(&failed), "what ran on its own node is its own business: {said}");
    assert_eq!(said["results"].as_u64().map(|results| results + failed), said["calls"].as_u64(), "{said}");
    lab.run(["charter", "restore", "n2"]).well();
    lab.until("n2 is back", || lab.nodes().len() == 3);

    // Then the user who runs all this: nobody lends to them any more.
    let user = me(&lab);
    let ours = lab.flow("n1", "sleep", 300, 6);
    lab.until("all work", || ["n1", "n2", "n3"].iter().all(|node| busy(&lab.rows(["ps"]), node) == 2));
    let said = lab.run(["charter", "revoke", "--as", "user", &user, "--because", "left"]);
    assert!(said.err.contains("all 3 nodes"), "{}", said.err);
    lab.until("all leases end", || lab.free_slots() == 6);
    let said = ours.end();
    let failures = said["failures"].to_string();
    assert!(
        failures.contains(&format!("user `{user}` is denied")) || failures.contains("no slots"),
        "{said}"
    );
    let complaint = lab.run(["alloc", "--", "true"]).complaint();
    assert!(
        complaint.contains(&format!("user `{user}` is denied")) && complaint.contains("left"),
        "{complaint}"
    );
    // Nor is what it signs taken: it cannot restore itself.
    assert!(lab.run(["charter", "restore", &user]).complaint().contains("denied"));
}

#[test]
fn a_node_that_was_down_learns_of_a_revocation_from_the_first_it_meets() {
    let lab = Lab::new();
    let file = lab.file("tree", "n1 n2\nn2 n3\n");
    lab.up_local(3, 1, &["--topology", file.to_str().unwrap()]);
    lab.kill("n3");
    lab.run(["charter", "revoke", "--as", "user", "eve@n9", "--because", "test"]).well();
    let version = shown(&lab)["version"].clone();
    // Only n2 is there to tell it.
    lab.kill("n1");
    lab.run(["up", "--name", "n3", "--slots", "1", "--listen", "127.0.0.1:0", "--parent", "n2"]).well();
    let at = |node: &str| lab.run(["--node", node, "--output", "json", "charter", "show"]).json();
    lab.until("n3 knows", || at("n3")["version"] == version);
    assert_eq!(at("n3")["charter"]["deny"]["users"]["eve@n9"], "test");
}

#[test]
fn of_two_edits_in_separated_parts_one_wins_and_the_loser_is_told() {
    let Some(hosts) = Hosts::new(2) else { return };
    hosts.up_all(&[1, 1]);
    let show = |i: usize| hosts.run(i, ["--output", "json", "charter", "show"]).json();
    hosts.until("both have version 1", || show(2)["version"] == 1);
    hosts.cut(2);
    hosts.until("they are apart", || hosts.nodes(1).len() == 1 && hosts.nodes(2).len() == 1);
    hosts.run(1, ["charter", "revoke", "--as", "user", "one@n1"]).well();
    hosts.run(2, ["charter", "revoke", "--as", "user", "two@n2"]).well();
    let (one, two) = (show(1)["hash"].clone(), show(2)["hash"].clone());
    assert_ne!(one, two);
    hosts.heal(2);
    hosts.until("both have the same", || show(1)["hash"] == show(2)["hash"]);
    let (winner, loser) = if one.as_str() > two.as_str() { (&one, 2) } else { (&two, 1) };
    assert_eq!(show(1)["hash"], *winner);
    let rows = hosts.run(loser, ["--output", "json", "charter", "history"]).json();
    let rows = rows.as_array().unwrap();
    let lost: Vec<u64> =
        rows.iter().filter(|row| row["lost"] == true).filter_map(|row| row["version"].as_u64()).collect();
    assert_eq!(lost, [2], "{rows:?}");
    assert!(hosts.log(loser).contains("lost to another version 2"), "{}", hosts.log(loser));
    // Nothing was merged: it has to be said again, and is then in force with the other.
    let again = if loser == 2 { "two@n2" } else { "one@n1" };
    hosts.run(loser, ["charter", "revoke", "--as", "user", again]).well();
    let users = show(1)["charter"]["deny"]["users"].clone();
    assert_eq!(users.as_object().unwrap().len(), 2, "{users}");
}

#[test]
fn an_edit_of_a_version_that_is_no_longer_in_force_is_refused() {
    let lab = Lab::with_pool(2, 1);
    // While this editor is open another administrator makes a change, at another node.
    let other =
        format!("MUTIRAO_NODE=n2 {} charter revoke --as user x@y && sed -i s/1500/1600/", Lab::binary());
    let script = lab.file("editor", format!("#!/bin/sh\n{other} \"$1\"\n"));
    let mut command = lab.mutirao(["charter", "edit"]);
    command.env_remove("VISUAL").env("EDITOR", format!("sh {}", script.display()));
    let complaint = lab.spawn(command).wait().complaint();
    assert!(complaint.contains("version 2") && complaint.contains("you edited version 1"), "{complaint}");
    assert!(complaint.contains("your text is kept"), "{complaint}");
    assert_eq!(shown(&lab)["charter"]["timings"]["silence_ms"], 1500);
}

#[test]
fn where_admission_is_by_administrators_nobody_allocates_without_a_right() {
    let lab = Lab::with_pool(3, 2);
    let user = me(&lab);
    let running = start(&lab, "n2", &["stay", "2"]);
    lab.until("two are held", || lab.free_slots() == 4);
    replace(&lab, "admission = \"open\"", "admission = \"admin\"");
    assert_eq!(lab.free_slots(), 4, "what was held before stays");
    let complaint = lab.run(["alloc", "--", "true"]).complaint();
    for part in ["mutirao admin grant", "mutirao admin insert", &user] {
        assert!(complaint.contains(part), "{complaint}");
    }
    let said = start(&lab, "n1", &["calls", "sleep", "2", "1"]).wait().json();
    assert!(said["failures"].to_string().contains("mutirao admin grant"), "{said}");
    drop(running);
    lab.until("it is given back", || lab.free_slots() == 6);

    // A user may hold so many at a time, in all their programs together at a node.
    let said = start(&lab, "n1", &["insert", &user, "3"]).wait().json();
    assert_eq!(said["version"], 3);
    assert!(lab.run(["alloc", "-n", "4", "--", "true"]).complaint().contains("3 slots at most"));
    let held = start(&lab, "n1", &["stay", "2"]);
    lab.until("two are held", || lab.free_slots() == 4);
    assert!(lab.run(["alloc", "-n", "2", "--", "true"]).complaint().contains("3 slots at most"));
    lab.run(["alloc", "-n", "1", "--", "true"]).well();
    let rows = lab.rows(["admin", "ls"]);
    assert_eq!(
        (&rows[0]["kind"], &rows[0]["who"], &rows[0]["slots"]),
        (&"user".into(), &user.as_str().into(), &3.into())
    );

    // Taken away: what is held under it ends.
    lab.run(["admin", "remove", &user]).well();
    lab.until("its leases end", || lab.free_slots() == 6);
    drop(held);
    assert!(lab.run(["admin", "remove", &user]).complaint().contains("no right"));
}

#[test]
fn names_that_nobody_has_seen_are_taken_and_told() {
    let lab = Lab::with_pool(2, 1);
    let said = |args: &[&str]| {
        let said = lab.run(args);
        let err = said.err.clone();
        said.well();
        err
    };
    let user = me(&lab);
    assert!(!said(&["admin", "grant", &user, "-n", "2"]).contains("no program"));
    assert!(said(&["admin", "grant", "3fa9c1", "-n", "2"]).contains("no application's id begins so"));
    assert!(said(&["admin", "insert", "ben@n9", "-n", "2"]).contains("no node `n9` is in the pool now"));
    assert!(said(&["charter", "revoke", "--as", "node", "n9"]).contains("no node `n9` is in the pool now"));
    assert!(said(&["charter", "revoke", "eva"]).contains("neither a node nor a user `eva`"));
    let complaint = lab.run(["charter", "revoke", "n1"]).complaint();
    assert!(complaint.contains("`n1` is the node through which this is said"), "{complaint}");
    assert!(!said(&["charter", "revoke", "n2"]).contains("neither"));
    lab.until("n2 is out", || lab.nodes().len() == 1);
}

#[test]
fn an_application_is_let_in_while_it_runs() {
    let lab = Lab::with_pool(3, 1);
    replace(&lab, "admission = \"open\"", "admission = \"admin\"");
    let waits = start(&lab, "n2", &["await", "2"]);
    let id = || {
        let apps = lab.rows(["apps"]);
        apps.iter().find(|app| app["home"] == "n2").map(|app| app["id"].as_str().unwrap().to_owned())
    };
    lab.until("it runs", || id().is_some());
    let id = id().unwrap();
    assert_eq!(lab.free_slots(), 3);
    let said = lab.run(["admin", "grant", &id[..12], "-n", "2", "--hours", "1"]);
    assert!(said.err.contains("2 slots"), "{}", said.err);
    said.well();
    lab.until("it holds what it was given", || lab.free_slots() == 1);
    let rows = lab.rows(["admin", "ls"]);
    assert_eq!((&rows[0]["kind"], &rows[0]["held"]), (&"application".into(), &2.into()), "{rows:?}");
    assert!(rows[0]["until_unix_s"].is_u64());
    // The right is the application's alone.
    assert!(lab.run(["alloc", "--", "true"]).complaint().contains("mutirao admin grant"));
    lab.run(["admin", "remove", &id[..12]]).well();
    lab.until("its leases end", || lab.free_slots() == 3);
    drop(waits);
}
