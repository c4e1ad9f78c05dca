//! Requests that wait, on real daemons.

mod lab;

use lab::Lab;
use serde_json::Value;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

#[test]
fn a_gang_waits_is_explained_and_runs_although_small_requests_keep_coming() {
    let lab = Lab::with_pool(4, 2);
    let small = lab.spawn(lab.mutirao(["alloc", "-n", "5", "--", "sleep", "600"]));
    lab.until("five are held", || lab.free_slots() == 3);
    let gang = lab.spawn(lab.mutirao(["alloc", "-n", "8", "--wait", "--", "sh", "-c", "echo ran; sleep 1"]));
    lab.until("it waits", || lab.rows(["queue"]).len() == 1);
    let mut row = Value::Null;
    lab.until("three slots are kept for it", || {
        row = lab.rows(["queue"]).pop().unwrap_or_default();
        row["kept"] == 3
    });
    assert_eq!((&row["need"], &row["place"]), (&8.into(), &1.into()), "{row}");
    let name = row["request"].as_str().unwrap();
    let text = lab.run(["queue"]).well();
    assert!(text.contains(name) && text.contains("3/8"), "{text}");
    let text = lab.run(["explain", name]).well();
    assert!(text.contains("it needs 8 leases of 1 slot at once; 3 could be granted now"), "{text}");
    assert!(text.contains("5 slots by ") && text.contains("without a time limit"), "{text}");
    let complaint = lab.run(["explain", "ffffffff.9"]).complaint();
    assert!(complaint.contains("mutirao queue"), "{complaint}");

    // Nobody gets what is kept, however many ask.
    let (stop, granted) = (AtomicBool::new(false), AtomicU32::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let said = lab.run(["alloc", "-n", "1", "--", "true"]);
                granted.fetch_add(u32::from(said.code == Some(0)), Ordering::Relaxed);
            }
        });
        std::thread::sleep(Duration::from_secs(2));
        assert_eq!(granted.load(Ordering::Relaxed), 0, "a small request overtook the gang");
        small.kill();
        let said = gang.wait();
        stop.store(true, Ordering::Relaxed);
        assert_eq!(said.well(), "ran\n");
    });
    lab.until("nothing waits or is held", || lab.rows(["queue"]).is_empty() && lab.free_slots() == 8);
    lab.run(["alloc", "-n", "8", "--", "true"]).well();
}

#[test]
fn who_stops_waiting_leaves_nothing_behind_and_patience_ends() {
    let lab = Lab::with_pool(3, 1);
    let held = lab.spawn(lab.mutirao(["alloc", "-n", "2", "--", "sleep", "600"]));
    lab.until("two are held", || lab.free_slots() == 1);
    let gone = lab.spawn(lab.mutirao(["alloc", "-n", "3", "--wait", "--", "true"]));
    lab.until("a slot is kept", || lab.rows(["queue"]).iter().any(|row| row["kept"] == 1));
    gone.kill();
    lab.until("it waits no longer", || lab.rows(["queue"]).is_empty());
    lab.run(["alloc", "-n", "1", "--", "true"]).well();

    let begun = Instant::now();
    let complaint = lab.run(["alloc", "-n", "3", "--wait=3s", "--", "true"]).complaint();
    assert!(begun.elapsed() >= Duration::from_secs(3), "{complaint}");
    assert!(complaint.contains("not enough came free"), "{complaint}");
    let complaint = lab.run(["alloc", "-n", "4", "--wait", "--", "true"]).complaint();
    assert!(complaint.contains("needs 4 leases at once, and 3 could be had"), "{complaint}");
    lab.run(["alloc", "-n", "1", "--", "true"]).well();
    drop(held);
}

#[test]
fn a_command_ends_with_its_time_limit_and_a_short_one_passes_a_gang() {
    let lab = Lab::with_pool(2, 1);
    let held = lab.spawn(lab.mutirao(["alloc", "--time-limit", "900s", "--", "sleep", "600"]));
    lab.until("one is held", || lab.free_slots() == 1);
    let gang = lab.spawn(lab.mutirao(["alloc", "-n", "2", "--wait", "--", "echo", "ran"]));
    lab.until("its start is known", || {
        lab.rows(["queue"]).iter().any(|row| row["kept"] == 1 && row["start_ms"].is_u64())
    });
    assert_ne!(lab.run(["alloc", "--time-limit", "1h", "--", "true"]).code, Some(0));
    let said = lab.run(["alloc", "--time-limit", "1s", "--", "sleep", "600"]);
    assert_eq!(said.code, Some(143), "{}", said.err);
    held.kill();
    assert_eq!(gang.wait().well(), "ran\n");
}
