//! Slots with conditions, asked of pools of real daemons that have different things.

mod lab;

use lab::{Lab, Said};
use serde_json::Value;

/// Lists the last machine, once the root knows that nobody holds anything there.
const IDLE: [&str; 6] = ["nodes", "--resource", "gpu=3", "--cores", "2", "--free"];

/// A root and two racks of two machines each; the last has GPUs, labels and much memory.
fn racks() -> Lab {
    let lab = Lab::new();
    let topology = lab.file("racks", "n1 rack1 rack2\nrack1 a b\nrack2 c d\n");
    let common = "accept = \"own\"\n";
    for (node, config) in [
        ("n1", "memory_mib = 2048\n"),
        ("rack1", "memory_mib = 2048\n"),
        ("rack2", "memory_mib = 2048\n"),
        ("a", "memory_mib = 4096\nlabels = [\"ssd\"]\n"),
        ("b", "memory_mib = 4096\nlabels = [\"ssd\", \"old\"]\n[resources]\nfpga = 1\n"),
        ("c", "memory_mib = 4096\n"),
        ("d", "memory_mib = 24576\nlabels = [\"ssd\", \"rack=2\"]\n[resources]\ngpu = 3\n"),
    ] {
        let directory = lab.home().join("nodes").join(node);
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("node.toml"), format!("{common}{config}")).unwrap();
    }
    lab.up_local(7, 2, &["--topology", topology.to_str().unwrap()]);
    lab.until("the root knows of all", || lab.rows(IDLE).len() == 1);
    lab
}

/// Holds what is asked for while the names of the nodes are printed.
fn alloc(lab: &Lab, args: &[&str]) -> Said {
    let command = ["--", "sh", "-c", "echo $MUTIRAO_NODES"];
    lab.run(["alloc"].iter().chain(args).chain(&command))
}

#[track_caller]
fn found(lab: &Lab, args: &[&str], nodes: &str) {
    lab.until("all is free", || lab.free_slots() == 14);
    assert_eq!(alloc(lab, args).well().trim_end(), nodes, "{args:?}");
}

#[track_caller]
fn refused(lab: &Lab, args: &[&str], words: &str) {
    let complaint = alloc(lab, args).complaint();
    assert!(complaint.contains(words), "{args:?}: {complaint}");
}

fn names(rows: &[Value]) -> Vec<&str> {
    rows.iter().map(|row| row["name"].as_str().unwrap()).collect()
}

#[test]
fn slots_are_found_by_what_their_nodes_have_and_where_they_are() {
    let lab = racks();
    found(&lab, &["-n", "1", "--resource", "gpu=1"], "d");
    found(&lab, &["-n", "1", "--memory", "16GiB"], "d");
    found(&lab, &["-n", "3", "--spread", "--label", "ssd"], "a,b,d");
    found(&lab, &["-n", "2", "--spread", "--label", "ssd", "--without", "old"], "a,d");
    found(&lab, &["-n", "6", "--below", "rack2"], "c,d,rack2");
    found(&lab, &["-n", "2", "--below", "b"], "b");
    found(&lab, &["-n", "3", "--cores", "2", "--below", "rack1"], "a,b,rack1");
    found(&lab, &["-n", "3", "--exclusive", "--hops", "1"], "n1,rack1,rack2");
    found(&lab, &["-n", "2", "--hops", "0"], "n1");

    refused(
        &lab,
        &["-n", "1", "--memory", "64GiB"],
        "no node has 64 GiB of memory to lend; the largest has 24 GiB",
    );
    refused(&lab, &["-n", "1", "--resource", "gpu=4"], "no node has 4 of `gpu`; the one with most has 3");
    refused(&lab, &["-n", "1", "--resource", "tpu=1"], "no node has the resource `tpu`");
    refused(&lab, &["-n", "1", "--label", "hdd"], "no node has the label `hdd`; labels there are: ");
    refused(&lab, &["-n", "1", "--arch", "riscv64"], "no node is riscv64");
    refused(&lab, &["-n", "1", "--below", "rack9"], "no node called `rack9` was found");
    refused(
        &lab,
        &["-n", "1", "--below", "rack1", "--resource", "gpu=1"],
        "below rack1, no node has the resource",
    );
    refused(
        &lab,
        &["-n", "1", "--resource", "gpu=1", "--hops", "1"],
        "within 1 hops of n1 no more was found",
    );
    refused(&lab, &["-n", "1", "--memory", "8"], "no unit");
    refused(&lab, &["-n", "1", "--arch", "arm"], "x86_64, aarch64");
    refused(&lab, &["-n", "1", "--resource", "gpu=none"], "no amount");
}

#[test]
fn nodes_are_listed_by_what_they_have() {
    let lab = racks();
    let listed = |args: &[&str]| {
        let rows = lab.rows(["nodes"].iter().chain(args).copied());
        names(&rows).join(",")
    };
    assert_eq!(listed(&["--label", "ssd"]), "a,b,d");
    assert_eq!(listed(&["--label", "ssd", "--below", "rack1", "--without", "old"]), "a");
    assert_eq!(listed(&["--resource", "gpu=2", "--memory", "20GiB"]), "d");
    assert_eq!(listed(&["--hops", "1"]), "n1,rack1,rack2");
    let held = lab.spawn(lab.mutirao(["alloc", "-n", "1", "--resource", "gpu=2", "--", "sleep", "600"]));
    lab.until("two GPUs are held", || listed(&["--resource", "gpu=2", "--free"]).is_empty());
    assert_eq!(listed(&["--resource", "gpu=2"]), "d");
    let row = lab.node("d");
    assert_eq!(row["resources"][0], serde_json::json!({"name": "gpu", "total": 3, "free": 1}));
    assert_eq!(
        (row["memory_mib"].as_u64(), &row["labels"]),
        (Some(24576), &serde_json::json!(["rack=2", "ssd"]))
    );
    let words = "no node has 2 of `gpu` free; the one with most free has 1";
    lab.until("the root says so", || alloc(&lab, &["-n", "1", "--resource", "gpu=2"]).err.contains(words));
    drop(held);
}

#[test]
fn a_worker_is_told_what_it_holds_and_can_fill_no_more_memory() {
    let lab = racks();
    let hold = |args: [&str; 4]| {
        // The worker before is dead before its slots are free, which takes a moment.
        lab.until("all is free", || lab.rows(IDLE).len() == 1);
        let mut command = lab.command(Lab::program());
        command.env("MUTIRAO_NODE", "n1").args(["hold", "gpu"]).args(args);
        lab.spawn(command).wait().json()
    };
    assert_eq!(hold(["2", "64", "variable", "MUTIRAO_RESOURCE_GPU"])["said"], "0,1");
    assert_eq!(hold(["1", "64", "variable", "MUTIRAO_SLOTS"])["said"], "2");
    let said = hold(["1", "300", "end", "memory"]);
    assert!(said["failed"].as_str().is_some_and(|text| text.contains("out of memory")), "{said}");
    lab.until("all is free again", || lab.node("d")["resources"][0]["free"] == 3);
    assert_eq!(lab.node("d")["memory_free_mib"], 24576);
}

#[test]
fn the_command_line_says_what_a_node_lends() {
    let lab = Lab::new();
    lab.up_local(2, 1, &["--label", "lab", "--label", "rack=7", "--resource", "gpu=2", "--memory", "3GiB"]);
    for name in ["n1", "n2"] {
        let row = lab.node(name);
        assert_eq!(row["labels"], serde_json::json!(["lab", "rack=7"]));
        assert_eq!(
            (row["memory_mib"].as_u64(), row["resources"][0]["total"].as_u64()),
            (Some(3072), Some(2))
        );
    }
    let complaint = lab.run(["up", "--name", "n9", "--resource", "gpu=9999"]).complaint();
    assert!(complaint.contains("1 to 512"), "{complaint}");
}
