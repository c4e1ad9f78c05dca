//! The command line, as a new user meets it: good input and bad.

mod lab;

use lab::Lab;
use std::process::Stdio;

#[test]
fn a_pool_is_made_used_and_taken_down() {
    let lab = Lab::new();
    let passphrase = lab.file("passphrase", "correct horse battery\n");
    let passphrase = passphrase.to_str().unwrap();
    let init =
        ["init", "--name", "lab", "--node-name", "n1", "--admin", "ana", "--passphrase-file", passphrase];
    let said = lab.run(init);
    assert!(said.err.contains("mutirao join --request"), "{}", said.err);
    said.well();
    assert!(lab.run(init).complaint().contains("already holds pool `lab`"));

    lab.run(["up", "--slots", "3", "--listen", "127.0.0.1:0"]).well();
    let row = lab.node("n1");
    assert_eq!(row["slots_total"], 3);
    assert_eq!(row["slots_free"], 3);
    assert_eq!(row["state"], "up");
    assert!(lab.run(["up"]).complaint().contains("n1"));
    let table = lab.run(["nodes"]).well();
    assert!(table.starts_with("NODE") && table.contains("3/3"), "{table}");
    lab.run(["down"]).well();
    assert!(lab.run(["down"]).complaint().contains("no node"));
    assert!(lab.run(["nodes"]).complaint().contains("mutirao up"));
}

#[test]
fn four_nodes_form_the_tree_that_a_file_draws() {
    let lab = Lab::new();
    let file = lab.file("tree", "# two levels\nn1 n2 n3\nn2 n4\n");
    lab.up_local(4, 1, &["--topology", file.to_str().unwrap()]);
    let parent = |name: &str| lab.node(name)["parent"].clone();
    assert_eq!(parent("n1"), serde_json::Value::Null);
    assert_eq!(parent("n2"), "n1");
    assert_eq!(parent("n3"), "n1");
    assert_eq!(parent("n4"), "n2");
    let drawn = lab.run(["tree"]).well();
    let free = "  1/1 slots free\n";
    assert_eq!(drawn, format!("n1{free}├─ n2{free}│  └─ n4{free}└─ n3{free}"));
    let rows = lab.rows(["topology", "draw"]);
    let parents: Vec<_> = rows.iter().map(|row| (&row["node"], &row["parent"])).collect();
    let (n1, n2) = (serde_json::json!("n1"), serde_json::json!("n2"));
    assert!(
        parents.contains(&(&n1, &serde_json::Value::Null)) && parents.contains(&(&n2, &n1)),
        "{parents:?}"
    );
}

#[test]
fn a_pool_on_this_machine_that_is_started_again_is_left_alone_and_completed() {
    let lab = Lab::with_pool(2, 1);
    let pid = lab.pid("n1");
    let said = lab.run(["up", "--local", "2", "--slots", "3"]);
    assert!(said.err.contains("`n2` runs already") && said.err.contains("down --all"), "{}", said.err);
    said.well();
    assert_eq!(lab.free_slots(), 2, "they are as they were started");
    lab.kill("n2");
    let said = lab.run(["up", "--local", "2", "--slots", "3"]);
    assert!(said.err.contains("`n1` runs already") && said.err.contains("`n2` is up"), "{}", said.err);
    said.well();
    lab.until("the other is there again", || lab.nodes().len() == 2 && lab.free_slots() == 4);
    assert_eq!(lab.pid("n1"), pid);
}

#[test]
fn a_bad_topology_file_is_refused_with_its_line() {
    let lab = Lab::new();
    for (text, line) in
        [("n1 n2\nn2 n1\n", "2"), ("n1 n2\nn3 n2\n", "2"), ("n1 n1\n", "1"), ("n1 n2\nn1 n/2\n", "2")]
    {
        let file = lab.file("tree", text);
        let complaint = lab.run(["up", "--local", "2", "--topology", file.to_str().unwrap()]).complaint();
        assert!(complaint.contains(&format!("line {line}")), "{text:?}: {complaint}");
    }
    let complaint = lab.run(["up", "--local", "2", "--topology", "/nowhere"]).complaint();
    assert!(complaint.contains("/nowhere"), "{complaint}");
}

#[test]
fn a_crowd_is_passed_down_by_fan_out() {
    let lab = Lab::new();
    lab.up_local(9, 1, &["--fan-out", "2"]);
    let nodes = lab.nodes();
    for node in &nodes {
        let children = nodes.iter().filter(|row| row["parent"] == node["name"]).count();
        assert!(children <= 2, "{} has {children} children", node["name"]);
    }
    assert_eq!(nodes.iter().filter(|row| row["parent"].is_null()).count(), 1);
}

#[test]
fn alloc_holds_slots_exactly_as_long_as_the_command_runs() {
    let lab = Lab::with_pool(3, 2);
    let script = "cat $MUTIRAO_HOSTFILE; echo $MUTIRAO_NODES $MUTIRAO_SLOTS; exit 5";
    let said = lab.run(["alloc", "-n", "3", "--spread", "--", "sh", "-c", script]);
    assert_eq!(said.code, Some(5), "{}", said.err);
    assert_eq!(said.out, "n1 slots=1\nn2 slots=1\nn3 slots=1\nn1,n2,n3 3\n");
    lab.until("all is free again", || lab.free_slots() == 6);

    let held = lab.spawn(lab.mutirao(["alloc", "-n", "4", "--", "sleep", "600"]));
    lab.until("four are held", || lab.free_slots() == 2);
    let apps = lab.rows(["apps"]);
    assert!(apps.iter().any(|app| app["name"] == "sleep" && app["slots"] == 4), "{apps:?}");
    held.kill();
    lab.until("a killed holder's slots are free at once", || lab.free_slots() == 6);

    let held = lab.spawn(lab.mutirao(["alloc", "-n", "1", "--exclusive", "--", "sleep", "600"]));
    lab.until("a whole node is held", || lab.free_slots() == 4);
    let app = lab.rows(["apps"])[0]["id"].as_str().unwrap().to_owned();
    lab.run(["kill", &app[..10]]).well();
    lab.until("a killed application's slots are free", || lab.free_slots() == 6);
    let said = held.wait();
    assert_eq!(said.code, Some(143), "{}", said.err);
    assert!(said.err.contains("the command is told to end") && said.err.contains("ended by"), "{}", said.err);

    // Its own children are told too, and so is a command that would end well.
    let script = "trap 'wait; exit 0' TERM; sh -c 'sleep 876505; :' & wait; echo done";
    let held = lab.spawn(lab.mutirao(["alloc", "-n", "1", "--below", "n2", "--", "sh", "-c", script]));
    lab.until("one is held", || lab.node("n2")["slots_free"] == 1);
    lab.run(["reclaim", "n2"]).well();
    let said = held.wait();
    assert_eq!(said.code, Some(1), "{}", said.err);
    assert!(
        said.err.contains("its slots were taken back") && said.out.is_empty(),
        "{}{}",
        said.err,
        said.out
    );

    let complaint = lab.run(["kill", "nosuch"]).complaint();
    assert!(complaint.contains("no node of the pool knows `nosuch`"), "{complaint}");
}

#[test]
fn too_few_slots_are_refused_or_accepted_as_asked() {
    let lab = Lab::with_pool(2, 1);
    let complaint = lab.run(["alloc", "-n", "3", "--", "true"]).complaint();
    assert!(complaint.contains("2 of at least 3") && complaint.contains("has 2 slots in all"), "{complaint}");
    lab.until("nothing is kept", || lab.free_slots() == 2);
    let said = lab.run(["alloc", "-n", "3", "--at-least", "2", "--", "sh", "-c", "echo $MUTIRAO_SLOTS"]);
    assert_eq!(said.well(), "2\n");
    for (program, code) in [("/no/such/program", 127), ("/etc/passwd", 126)] {
        let said = lab.run(["alloc", "--", program]);
        assert_eq!(said.code, Some(code));
        assert!(said.complaint().contains(program));
    }
    lab.until("nothing is kept", || lab.free_slots() == 2);
}

#[test]
fn another_machine_joins_and_a_stranger_does_not() {
    let mut lab = Lab::new();
    let passphrase = lab.file("passphrase", "correct horse battery\n");
    let passphrase = passphrase.to_str().unwrap();
    lab.run(["init", "--node-name", "n1", "--admin", "ana", "--passphrase-file", passphrase]).well();
    lab.run(["up", "--slots", "1", "--listen", "127.0.0.1:0"]).well();
    let address = lab.node("n1")["addresses"][0].as_str().unwrap().to_owned();

    let other = lab.machine("b");
    let request = lab.path("b.request");
    lab.run_at(&other, ["join", "--name", "b", "--request", request.to_str().unwrap()]).well();
    let wrong = lab.file("wrong", "wrong horse\n");
    let invite = |file: &str| lab.run(["invite", request.to_str().unwrap(), "--passphrase-file", file]);
    assert!(invite(wrong.to_str().unwrap()).complaint().contains("passphrase"));
    let answer = lab.file("b.answer", invite(passphrase).well());
    lab.run_at(&other, ["join", answer.to_str().unwrap()]).well();
    lab.run_at(&other, ["up", "--slots", "1", "--listen", "127.0.0.1:0", "--parent", &address]).well();
    lab.until("b is a child of n1", || {
        lab.nodes().iter().any(|row| row["name"] == "b" && row["parent"] == "n1")
    });

    // Whoever has no administrator's key changes nothing of the tree, not even as an owner of one of its nodes.
    let complaint = lab.run_at(&other, ["tree", "remove", "n1"]).complaint();
    assert!(complaint.contains("signed by an administrator"), "{complaint}");
    assert_eq!(lab.nodes().len(), 2);

    let stranger = lab.machine("c");
    lab.run_at(&stranger, ["init", "--name", "theirs", "--node-name", "c", "--passphrase-file", passphrase])
        .well();
    lab.run_at(&stranger, ["up", "--listen", "127.0.0.1:0", "--parent", &address]).well();
    let log = stranger.home.join("nodes/c/log");
    lab.until("the stranger is told why", || {
        std::fs::read_to_string(&log).is_ok_and(|text| text.contains("pool"))
    });
    assert_eq!(lab.nodes().len(), 2);
}

#[test]
fn bad_arguments_are_explained() {
    let lab = Lab::with_pool(1, 1);
    assert!(lab.run(["frobnicate"]).complaint().contains("frobnicate"));
    assert!(lab.run(["up", "--slots", "0"]).complaint().contains("--slots"));
    assert!(lab.run(["kill", "ffffffff"]).complaint().contains("knows `ffffffff`"));
    assert!(lab.run(["plugin", "show", "nothing"]).complaint().contains("nothing"));
    assert!(lab.run(["plugin", "approve", "x", "--on", "n9"]).complaint().contains("n9"));
    let complaint = lab.run(["call", "/bin/true", "op"]).complaint();
    assert!(complaint.contains("mutirao_init"), "{complaint}");
    assert!(lab.run(["--node", "n9", "nodes"]).complaint().contains("n9"));
    assert!(lab.run(["up", "--name", "n9"]).complaint().contains("no node named n9 here"));
    assert!(Lab::new().run(["up", "--name", "n9"]).complaint().contains("mutirao init"));
    assert!(Lab::new().run(["init", "--node", "n9"]).complaint().contains("--node-name"));
    assert!(Lab::new().run(["--node", "n9", "up"]).complaint().contains("--name"));
}

#[test]
fn completions_and_the_manual_are_printed() {
    let lab = Lab::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = lab.run(["completions", shell]).well();
        assert!(script.contains("alloc") && script.contains("doctor"), "{shell}");
    }
    for command in ["completions bash", "man"] {
        let shell = |line: String| {
            let mut shell = lab.command("sh");
            shell.arg("-c").arg(line);
            lab.spawn(shell).wait()
        };
        let said = shell(format!("$MUTIRAO_BIN {command} | head -1"));
        assert!(said.err.is_empty(), "{}", said.err);
        said.well();
        let complaint = shell(format!("$MUTIRAO_BIN {command} > /dev/full")).complaint();
        assert!(complaint.contains("No space left"), "{complaint}");
    }
    let page = lab.run(["man"]).well();
    assert!(page.contains(".TH") && page.contains("topology"), "{page}");
}

#[test]
fn the_doctor_names_what_is_missing_and_how_to_mend_it() {
    let lab = Lab::new();
    let said = lab.run(["doctor"]);
    assert_eq!(said.code, Some(1));
    assert!(said.out.contains("mutirao init"), "{}", said.out);
    let lab = Lab::with_pool(1, 1);
    let rows = lab.rows(["doctor"]);
    let verdict =
        |subject: &str| rows.iter().find(|row| row["subject"] == subject).unwrap()["verdict"].clone();
    assert_eq!(verdict("node"), "good");
    assert_eq!(verdict("certificate"), "good");
    assert_eq!(verdict("clock"), "good");
}

#[test]
fn channels_are_measured_beside_their_floors() {
    let lab = Lab::new();
    let measured =
        lab.run(["bench", "channel", "--seconds", "0.01", "--only", "8 B", "--output", "json"]).well();
    let cases: Vec<serde_json::Value> =
        measured.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names: Vec<_> = cases.iter().map(|case| case["name"].as_str().unwrap()).collect();
    let expected = [
        "ping 8 B, same node",
        "stored ping 8 B, same node",
        "stream 8 B, same node",
        "ping 8 B, trusted link",
        "stored ping 8 B, trusted link",
        "stream 8 B, trusted link",
        "ping 8 B, two nodes, trusted",
        "stored ping 8 B, two nodes, trusted",
        "stream 8 B, two nodes, trusted",
        "ping 8 B, two nodes, encrypted",
        "stored ping 8 B, two nodes, encrypted",
        "stream 8 B, two nodes, encrypted",
        "ping 8 B, 8 processes of a node",
        "ping 8 B, 64 processes of a node",
        "bare ping 8 B, 8 processes",
        "bare ping 8 B, 64 processes",
        "stream 8 B, 8 processes of a node",
        "stream 8 B, 64 processes of a node",
        "bare stream 8 B, 8 processes",
        "bare stream 8 B, 64 processes",
        "ping 8 B, one node, recorded",
        "stream 8 B, one node, recorded",
    ];
    assert_eq!(names, expected);
    for (case, name) in cases.iter().zip(expected) {
        assert_eq!(case["size_bytes"], 8, "{case}");
        assert_eq!(case["tls"], name.ends_with("encrypted"), "{case}");
        assert!(case["n"].as_u64().unwrap() >= 10, "{case}");
        if name.contains("processes") {
            assert!(case["per_s"].as_f64().unwrap() > 0.0, "{case}");
            let floor = match (name.contains("64"), name.starts_with("bare"), name.contains("ping")) {
                (true, _, _) => Some("8 processes"),
                (false, true, _) => None,
                (false, false, true) => Some("unix ping"),
                (false, false, false) => Some("unix stream"),
            };
            assert_eq!(case["floor_kind"].as_str(), floor, "{case}");
            assert_eq!(case["ratio"].is_number(), floor.is_some(), "{case}");
            if floor.is_some() {
                let [ours, bare, ratio] =
                    ["per_s", "floor_per_s", "ratio"].map(|rate| case[rate].as_f64().unwrap());
                assert!((ours / bare / ratio - 1.0).abs() < 1e-6, "{case}");
            }
            continue;
        }
        for rate in ["per_s", "floor_per_s", "ratio"] {
            assert!(case[rate].as_f64().unwrap() > 0.0, "{rate}: {case}");
        }
        let is_ping = case["name"].as_str().unwrap().contains("ping");
        assert_eq!(case["p50_us"].is_number(), is_ping, "{case}");
        assert_eq!(case["mib_per_s"].is_number(), !is_ping, "{case}");
    }
    let complaint = lab.run(["bench", "channel", "--only", "carrier pigeon"]).complaint();
    assert!(complaint.contains("carrier pigeon"), "{complaint}");
}

#[test]
fn an_option_of_gnu_parallel_that_map_has_not_is_answered_by_what_there_is_instead() {
    let lab = Lab::new();
    let complaint = lab.run(["map", "-X", "echo", ":::", "a"]).complaint();
    assert!(
        complaint.contains("unexpected argument '-X'") && complaint.contains("`-n N` gives"),
        "{complaint}"
    );
    let complaint = lab.run(["nodes", "-X"]).complaint();
    assert!(!complaint.contains("`-n N` gives"), "{complaint}");
}

#[test]
fn whoever_stops_reading_is_no_failure() {
    let lab = Lab::new();
    let file = lab.file("talk.toml", "[task.a]\ncommand = 'echo out; echo err >&2; exit 3'\nretries = 0\n");
    let unread = |args: &[&str], both: bool| {
        let mut command = lab.mutirao(args);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        drop(child.stdout.take());
        if both {
            drop(child.stderr.take());
        }
        let said = child.wait_with_output().unwrap();
        (said.status.code(), String::from_utf8(said.stderr).unwrap())
    };
    let whole = lab.run(["bag", "run", file.to_str().unwrap()]).code;
    assert_eq!(
        unread(&["bag", "run", file.to_str().unwrap()], true).0,
        whole,
        "the bag is done all the same"
    );
    for args in [&["sim", "--nodes", "20"][..], &["nodes", "--help"], &["map", "echo", ":::", "1", "2"]] {
        let (code, err) = unread(args, false);
        assert_ne!(code, Some(101), "{args:?}: {err}");
        assert!(!err.contains("panicked"), "{args:?}: {err}");
        unread(args, true);
    }
}
