//! A bag is seen, and takes orders, on every machine of the pool: by its user, and by nobody else.

mod lab;

use lab::hosts::Hosts;
use lab::{Lab, Running, Said};
use serde_json::Value;

/// `mutirao bag` on machine `i`, in the room of all.
fn bag(hosts: &Hosts, i: usize, args: &[&str]) -> Said {
    start(hosts, i, args).wait()
}

fn start(hosts: &Hosts, i: usize, args: &[&str]) -> Running {
    let mut command = hosts.command(i, Lab::binary());
    command.arg("bag").args(args).current_dir(hosts.path(""));
    hosts.spawn(command)
}

fn show(hosts: &Hosts, i: usize, id: &str) -> Value {
    bag(hosts, i, &["show", id, "--output", "json"]).json()
}

fn done(hosts: &Hosts, i: usize, id: &str) -> u64 {
    show(hosts, i, id)["counts"]["done"].as_u64().unwrap()
}

/// Machines that keep a part of the only bag.
fn members(hosts: &Hosts, count: usize) -> Vec<usize> {
    let has_some = |i: &usize| {
        let bags = hosts.home(*i).join(format!("nodes/n{i}/bags"));
        std::fs::read_dir(bags).is_ok_and(|mut bags| bags.next().is_some())
    };
    (1..=count).filter(has_some).collect()
}

#[test]
fn a_bag_is_seen_and_takes_orders_on_every_machine_also_when_the_one_it_came_from_is_lost() {
    let Some(hosts) = Hosts::new(5) else { return };
    // On the fifth machine acts somebody whom the pool has given no certificate.
    std::fs::remove_dir_all(hosts.home(5).join("users")).unwrap();
    hosts.up_all(&[1, 1, 1, 1, 1]);
    std::fs::write(
        hosts.path("far.toml"),
        "[task.a]\ncommand = 'echo {n} | tee out'\ngrid = { n = { from = 1, to = 5 } }\n\
         outputs = [{ here = 'made/{n}', there = 'out' }]\n\
         [task.long]\ncommand = 'head -c 3000000 /dev/zero | tr \"\\0\" x'\n[task.slow]\ncommand = 'sleep 600'\n",
    )
    .unwrap();
    let said = bag(&hosts, 1, &["submit", "far.toml"]);
    assert!(said.err.contains("kept by `n1`"), "{}", said.err);
    assert_eq!(said.well().trim(), "1");
    let kept_by = members(&hosts, 5);
    assert_eq!(kept_by.len(), 3, "{kept_by:?}");
    let away = (2..=4).find(|i| !kept_by.contains(i)).unwrap();

    // From a machine that has no part in it.
    hosts.until("what can be done is done", || done(&hosts, away, "1") == 6);
    let rows = bag(&hosts, away, &["ls", "--output", "json"]).json();
    assert_eq!((&rows[0]["bag"], &rows[0]["at"], &rows[0]["name"]), (&1.into(), &"n1".into(), &"far".into()));
    assert_eq!(
        (&rows[0]["state"], &rows[0]["tasks"], rows.as_array().unwrap().len()),
        (&"running".into(), &7.into(), 1)
    );
    let listed = bag(&hosts, away, &["ls"]).well();
    assert!(listed.contains("1@n1") && listed.contains("far"), "{listed}");
    assert!(bag(&hosts, away, &["explain", "far", "slow"]).well().contains("slow.0"));
    assert!(bag(&hosts, away, &["show", "far"]).well().contains("are put in their places on `n1`"));
    let results = bag(&hosts, away, &["results", "1@n1"]).well();
    assert_eq!(results.len(), 10 + 3_000_000, "much is brought too, and all of it");
    assert!(results.starts_with("1\n2\n3\n4\n5\nxxx"));
    assert!(bag(&hosts, away, &["export", "far"]).well().contains("slow.0,"));
    bag(&hosts, away, &["add", "--to", "far", "--", "echo", "added from afar"]).well();
    hosts.until("what was added is done", || done(&hosts, 1, "1") == 7);

    // By whom it is not.
    assert_eq!(bag(&hosts, 5, &["ls", "--output", "json"]).json(), Value::Array(Vec::new()));
    let complaint = bag(&hosts, 5, &["show", "1@n1"]).complaint();
    assert!(complaint.contains("there is no bag `1@n1`"), "{complaint}");

    // Whoever waits goes on waiting when the machine that answers is lost, and orders are taken.
    let waits = start(&hosts, away, &["wait", "far"]);
    hosts.cut(1);
    hosts.until("another keeps it", || {
        let said = bag(&hosts, away, &["cancel", "far", "slow"]);
        said.code == Some(0) && said.err.contains("1 task cancelled")
    });
    let waited = waits.wait();
    assert_eq!(waited.code, Some(1), "one was cancelled: {}", waited.err);
    assert_eq!(bag(&hosts, away, &["results", "far", "a.2"]).well(), "3\n");
    hosts.heal(1);

    // It is over, and wakes for an order.
    hosts.until("the machine is back", || hosts.nodes(away).len() == 5);
    hosts.until("it is tried again", || bag(&hosts, away, &["retry", "far", "slow"]).code == Some(0));
    hosts.until("it runs", || show(&hosts, away, "far")["state"] == "running");
    bag(&hosts, away, &["cancel", "far", "all"]).well();
    assert_eq!(bag(&hosts, away, &["wait", "far"]).code, Some(1));
    hosts.until("it is removed", || bag(&hosts, away, &["rm", "1@n1"]).code == Some(0));
    hosts.until("nothing of it is left", || members(&hosts, 5).is_empty());
    assert_eq!(bag(&hosts, away, &["ls", "--output", "json"]).json(), Value::Array(Vec::new()));
}

#[test]
fn nodes_that_keep_a_bag_can_be_named_and_what_cannot_be_is_said() {
    let lab = Lab::with_pool(4, 1);
    let here = |args: &[&str]| {
        let mut command = lab.mutirao(["bag"].iter().chain(args));
        command.current_dir(lab.path(""));
        lab.spawn(command).wait()
    };
    lab.file("m.toml", "members = ['n4', 'n1', 'n3']\n[task.a]\ncommand = 'true'\n");
    let said = here(&["submit", "m.toml"]);
    assert!(said.err.contains("kept by `n1`, `n4` and `n3`"), "{}", said.err);
    here(&["wait", said.well().trim()]).well();
    let said = here(&["submit", "m.toml", "--members", "n1"]);
    assert!(said.err.contains("kept by `n1` alone"), "{}", said.err);
    said.well();
    for (members, why) in [
        ("n1,n2", "by 1 or 3 nodes"),
        ("n1,n2,n2", "`n2` is named twice"),
        ("n1,n2,n9", "no node `n9` that is up"),
        ("n2,n3,n4", "begins where it is submitted"),
    ] {
        let complaint = here(&["submit", "m.toml", "--members", members]).complaint();
        assert!(complaint.contains(why), "{members}: {complaint}");
    }
    assert_eq!(
        here(&["ls", "--output", "json"]).json().as_array().unwrap().len(),
        2,
        "nothing else was submitted"
    );
}

#[test]
fn a_majority_of_too_few_nodes_waits_quietly_and_says_for_what() {
    let lab = Lab::with_pool(1, 2);
    let here = |args: &[&str]| {
        let mut command = lab.mutirao(["bag"].iter().chain(args));
        command.current_dir(lab.path(""));
        lab.spawn(command).wait()
    };
    lab.file("v.toml", "[results]\naccept = 'majority of 3'\n[task.a]\ncommand = 'true'\nrepeat = 4\n");
    here(&["submit", "v.toml"]).well();
    lab.until("it says what it waits for", || {
        let said = here(&["explain", "1", "a"]).well();
        said.contains("2 different nodes")
            && said.contains("`n1` has given its own, and another node is needed")
    });
    assert!(here(&["show", "1"]).well().contains("2 different nodes"));
    // The serial numbers of leases tell how many there were.
    let serial = || {
        let rows = lab.run(["alloc", "--", "sh", "-c", "\"$MUTIRAO_BIN\" --output json ps"]).json();
        rows.as_array().unwrap().iter().filter_map(|row| row["worker"].as_u64()).max()
    };
    lab.until("its slots are free", || lab.free_slots() == 2);
    let before = serial();
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert_eq!(serial().unwrap(), before.unwrap() + 1, "nothing was leased meanwhile");
}
