//! Pipes between programs and their workers, and between workers, made by real daemons.

mod lab;

use lab::hosts::Hosts;
use lab::{Lab, Running};
use serde_json::Value;
use std::time::Duration;

/// The test program at `n1`.
fn start(lab: &Lab, args: &[&str]) -> Running {
    let mut command = lab.command(Lab::program());
    command.env("MUTIRAO_NODE", "n1").arg("pipes").args(args);
    lab.spawn(command)
}

fn play(lab: &Lab, args: &[&str]) -> Value {
    start(lab, args).wait().json()
}

#[track_caller]
fn both_had(said: &Value, way: &str) {
    for end in ["near", "far"] {
        assert_eq!(said[end]["way"], way, "{said}");
    }
}

/// All that goes between two ends, in the way they are joined.
fn ends_speak(lab: &Lab, from: &str, to: &str, way: &str) {
    for (count, size) in [("300", "8"), ("40", "1"), ("20", "65535"), ("20", "65536"), ("4", "2000001")] {
        both_had(&play(lab, &["echo", from, to, count, size]), way);
    }
    let said = play(lab, &["pour", from, to, "20000000", "0"]);
    both_had(&said, way);
    assert_eq!(said["far"]["bytes"], 20_000_000, "{said}");
}

#[test]
fn ends_of_one_machine_share_memory() {
    let lab = Lab::with_pool(1, 3);
    ends_speak(&lab, "n1", "n1", "ring");
    ends_speak(&lab, "p", "n1", "ring");
    lab.until("all is free again", || lab.free_slots() == 3);
}

#[test]
fn ends_of_two_machines_are_joined_by_their_nodes() {
    let lab = Lab::with_pool(3, 2);
    ends_speak(&lab, "n2", "n3", "socket");
    both_had(&play(&lab, &["echo", "n3", "n2", "50", "1000"]), "socket");
    both_had(&play(&lab, &["echo", "p", "n2", "50", "1000"]), "socket");
    both_had(&play(&lab, &["echo", "n3", "p", "50", "1000"]), "socket");
    both_had(&play(&lab, &["echo", "n2", "n2", "50", "1000"]), "ring");
}

#[test]
fn a_hundred_mebibytes_pass_and_nodes_hold_little_of_them() {
    let lab = Lab::with_pool(3, 1);
    let said = play(&lab, &["pour", "n2", "n3", "104857600", "0"]);
    both_had(&said, "socket");
    assert_eq!(said["far"]["bytes"], 104_857_600, "{said}");
    for node in ["n2", "n3"] {
        let status = std::fs::read_to_string(format!("/proc/{}/status", lab.pid(node))).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let peak_kib: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
        assert!(peak_kib < 64 * 1024, "{node} held {peak_kib} KiB");
    }
}

#[test]
fn a_pipe_that_is_not_read_holds_up_no_other() {
    let lab = Lab::with_pool(3, 2);
    for (from, to) in [("n2", "n3"), ("n2", "n2"), ("p", "n2"), ("n3", "p")] {
        let said = play(&lab, &["beside", from, to, "30000000", "0"]);
        assert_eq!(said["far"]["bytes"], 30_000_000, "{said}");
        let stuffed = said["near"]["stuffed"].as_u64().unwrap();
        // The window, and what the kernel holds at both ends.
        assert!((32_768..8 << 20).contains(&stuffed), "{said}");
    }
}

#[test]
fn the_end_of_a_worker_is_the_end_of_the_stream_and_the_next_worker_gets_a_new_pipe() {
    let lab = Lab::with_pool(3, 2);
    for (from, to) in [("n2", "n3"), ("n3", "n2"), ("n2", "n2"), ("p", "n1"), ("p", "n3")] {
        let said = play(&lab, &["end", from, to, "25", "0"]);
        assert_eq!(said["near"]["answers"], 25, "{said}");
        assert_eq!(said["near"]["breaks"], 1, "{said}");
        let why = said["far"]["failed"].as_str().unwrap_or_default();
        assert!(why.contains("signal 6") || why.contains("SIGABRT"), "{said}");
    }
}

#[test]
fn a_pipe_goes_on_after_a_cut() {
    let Some(hosts) = Hosts::new(3) else { return };
    hosts.up_all(&[1, 1, 1]);
    let mut command = hosts.command(1, Lab::program());
    command.args(["pipes", "numbers", "n2", "n3", "300", "50"]);
    let program = hosts.spawn(command);
    hosts.until("both ends work", || {
        let busy = |row: &&Value| row["operation"].is_string();
        hosts.rows(1, "ps").iter().filter(busy).count() == 2
    });
    // The first cut may come before the pipe is there.
    for _ in 0..2 {
        hosts.cut(3);
        std::thread::sleep(Duration::from_secs(3));
        hosts.heal(3);
        std::thread::sleep(Duration::from_secs(2));
    }
    let said = program.wait().json();
    assert_eq!(said["far"]["taken"], 30_000, "{said}");
    assert!(said["near"]["opened"].as_u64() >= Some(2), "the pipe was opened anew: {said}");
}

#[test]
fn on_links_the_charter_trusts_the_ends_have_a_socket_of_their_own() {
    let lab = Lab::with_pool(3, 1);
    both_had(&play(&lab, &["echo", "n2", "n3", "20", "100"]), "socket");
    let charter = lab.file("charter.toml", "[trusted]\npairs = [[\"n3\", \"n2\"]]\n");
    lab.run(["charter", "edit", charter.to_str().unwrap()]).well();
    lab.until("the pair is trusted", || {
        play(&lab, &["echo", "n2", "n3", "20", "100"])["near"]["way"] == "plain"
    });
    ends_speak(&lab, "n2", "n3", "plain");
    both_had(&play(&lab, &["echo", "p", "n2", "20", "100"]), "socket");
    let said = play(&lab, &["end", "n2", "n3", "25", "0"]);
    assert_eq!((&said["near"]["answers"], &said["near"]["breaks"]), (&25.into(), &1.into()), "{said}");

    let charter = lab.file("charter.toml", "[trusted]\nsubnets = [\"127.0.0.0/8\"]\n");
    lab.run(["charter", "edit", charter.to_str().unwrap()]).well();
    lab.until("all links of this machine are trusted", || {
        play(&lab, &["echo", "p", "n2", "20", "100"])["near"]["way"] == "plain"
    });
}
