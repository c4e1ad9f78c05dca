//! Operations over pools of real daemons, with workers, nodes and owners that do not cooperate.

mod lab;

use lab::{Lab, PATIENCE, Said, busy};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// The program whose operations misbehave; built with the workspace.
fn program() -> PathBuf {
    let path = Path::new(Lab::binary()).with_file_name("mutirao-test-program");
    assert!(path.exists(), "{} is missing: run `cargo build --workspace` first", path.display());
    path
}

fn command(lab: &Lab, args: &[&str]) -> Command {
    let mut command = lab.command(program());
    command.env("MUTIRAO_NODE", "n1").args(args);
    command
}

fn run(lab: &Lab, args: &[&str]) -> Said {
    lab.spawn(command(lab, args)).wait()
}

fn sum(map: &Value) -> u64 {
    map.as_object().unwrap().values().filter_map(Value::as_u64).sum()
}

#[test]
fn a_program_that_nobody_copied_runs_on_every_node() {
    let lab = Lab::with_pool(4, 1);
    let calls = lab.flow("n1", "sleep", 20, 4);
    for node in ["n1", "n2", "n3", "n4"] {
        lab.until(&format!("{node} works"), || busy(&lab.rows(["ps"]), node) == 1);
    }
    let said = calls.end_well();
    let nodes = said["nodes"].as_object().unwrap();
    assert!(nodes.len() == 4 && nodes.values().all(|share| share.as_u64().unwrap() > 0), "{said}");
    lab.until("all is free again", || lab.free_slots() == 4);
    let plugins = lab.rows(["plugin", "ls"]);
    assert_eq!(plugins.iter().filter(|row| row["kept"] == true).count(), 4, "{plugins:?}");
    assert!(plugins[0]["operations"].as_array().unwrap().contains(&"echo".into()));
    let shown = lab.run(["plugin", "show", "mutirao-test-program"]).well();
    assert!(shown.contains("operations: ") && shown.contains("n4: kept"), "{shown}");
    lab.run(["plugin", "rm", "mutirao-test-program"]).well();
    assert!(lab.rows(["plugin", "ls"]).iter().all(|row| row["kept"] == false));
}

#[test]
fn without_a_daemon_the_same_program_works() {
    let lab = Lab::new();
    let mut command = lab.command(program());
    command.args(["calls", "sleep", "20", "5"]);
    let said = lab.spawn(command).wait().json();
    assert_eq!(said["results"], 20, "{said}");
    // One that means a certain node does not work alone without a word.
    let complaint = run(&lab, &["calls", "sleep", "1", "5"]).complaint();
    assert!(complaint.contains("for node n1") && complaint.contains("MUTIRAO_NODE"), "{complaint}");
    // Nor does one whose private node cannot be one.
    for (bin, words) in [("/no/such/mutirao", "cannot start"), ("/bin/true", "is none")] {
        let mut command = lab.command(program());
        command.env("MUTIRAO_BIN", bin).args(["calls", "sleep", "1", "5"]);
        let complaint = lab.spawn(command).wait().complaint();
        for word in [bin, words, "MUTIRAO_BIN"] {
            assert!(complaint.contains(word), "{complaint}");
        }
    }
}

#[test]
fn large_arguments_and_results_cross_nodes_unharmed() {
    let lab = Lab::with_pool(2, 1);
    // The only local slot is taken, so the call goes to the other node.
    let held = lab.spawn(lab.mutirao(["alloc", "-n", "1", "--near", "--", "sleep", "600"]));
    lab.until("the local slot is held", || lab.node("n1")["slots_free"] == 0);
    for size in ["0", "1", "65535", "65536", "1048577", "16777216"] {
        assert_eq!(run(&lab, &["one", "echo", size]).json()["same"], true, "{size}");
    }
    drop(held);
    lab.until("the local slot is free", || lab.node("n1")["slots_free"] == 1);
    for size in ["0", "65536", "16777216"] {
        assert_eq!(run(&lab, &["one", "echo", size]).json()["same"], true, "{size}");
    }
    let complaint = run(&lab, &["one", "echo", "70000000"]).complaint();
    assert!(complaint.contains("at most"), "{complaint}");
}

#[test]
fn the_end_of_a_worker_is_the_error_of_its_call_with_the_cause_named() {
    let lab = Lab::with_pool(1, 1);
    for (how, words) in [
        ("exit", vec!["exit", "3", "about to end by exit"]),
        ("abort", vec!["signal 6", "about to end by abort"]),
        ("kill", vec!["signal 9"]),
        ("panic", vec!["as asked"]),
    ] {
        let said = run(&lab, &["one", "end", how]).json();
        let text = said["failed"].as_str().unwrap_or_else(|| panic!("{said}"));
        for word in words {
            assert!(text.contains(word), "{how}: {text}");
        }
        assert_eq!(said["node"], "n1", "{said}");
    }
    let said = run(&lab, &["calls", "sleep", "3", "1"]).json();
    assert_eq!(said["results"], 3, "the node goes on: {said}");
}

#[test]
fn what_a_worker_does_and_writes_can_be_looked_at() {
    for nodes in [1, 2] {
        let lab = Lab::with_pool(nodes, 1);
        // With two nodes the local slot is taken, and the worker is on the other.
        let local = (nodes == 2).then(|| lab.spawn(lab.mutirao(["alloc", "-n", "1", "--", "sleep", "600"])));
        lab.until("one slot is left", || lab.free_slots() == 1);
        let talking = lab.spawn(command(&lab, &["one", "talk", "boa tarde", "600000"]));
        let mut worker = String::new();
        lab.until("the worker runs the operation", || {
            let rows = lab.rows(["ps"]);
            let busy = rows.iter().find(|row| row["operation"] == "talk" && row["state"] == "running");
            worker = busy
                .map(|row| format!("{}/{}", row["node"].as_str().unwrap(), row["worker"]))
                .unwrap_or_default();
            busy.is_some()
        });
        assert!(worker.starts_with(&format!("n{nodes}/")), "{worker}");
        lab.until("its words are there", || lab.run(["logs", &worker]).well() == "boa tarde\n");
        lab.run(["kill", &worker]).well();
        drop((talking, local));
    }
}

#[test]
fn a_time_limit_ends_the_call_and_nothing_else() {
    let lab = Lab::with_pool(1, 1);
    let said = run(&lab, &["one", "limit", "200"]).json();
    assert!(said["failed"].as_str().is_some_and(|text| text.contains("limit")), "{said}");
    assert_eq!(run(&lab, &["calls", "sleep", "3", "1"]).json()["results"], 3);
}

#[test]
fn a_worker_reaches_nothing_of_its_owners() {
    let lab = Lab::with_pool(1, 1);
    refuse_all(&lab, &|args| run(&lab, args));
}

/// Tries everything through `run`; all must be refused.
fn refuse_all(lab: &Lab, run: &dyn Fn(&[&str]) -> Said) {
    let home = lab.home().to_str().unwrap().to_owned();
    let daemon = lab.pid("n1").to_string();
    let key = format!("{home}/nodes/n1/node.key");
    let memory = format!("/proc/{daemon}/mem");
    let socket = lab.rows(["doctor"]).len().to_string();
    assert_ne!(socket, "0");
    for (what, on) in [
        ("read", key.as_str()),
        ("list", home.as_str()),
        ("list", "/root"),
        ("list", "/home"),
        ("read", memory.as_str()),
        ("write", "/tmp/mutirao-test-escaped"),
        ("write", key.as_str()),
        ("connect", "127.0.0.1:22"),
        ("socket", "/run/any.sock"),
        ("signal", daemon.as_str()),
    ] {
        let said = run(&["one", "attempt", what, on]).json();
        let refused = said["refused"].as_str().unwrap_or_else(|| panic!("{what} {on} was possible: {said}"));
        let denied = ["denied", "not permitted", "not implemented", "No such file"];
        assert!(denied.iter().any(|word| refused.contains(word)), "{what} {on}: {refused}");
    }
    assert!(!Path::new("/tmp/mutirao-test-escaped").exists());
    let said = run(&["one", "attempt", "write", "own-file"]).json();
    assert_eq!(said["done"], "written", "its own directory is its own: {said}");
    let said = run(&["one", "attempt", "environment", ""]).json();
    let mut variables: Vec<&str> = said["done"].as_str().unwrap().split(',').collect();
    variables.sort_unstable();
    assert_eq!(variables, ["HOME", "LANG", "MUTIRAO_SLOTS", "PATH", "TMPDIR"]);
}

#[test]
fn a_lender_killed_in_the_middle_of_calls_loses_nothing_that_may_run_again() {
    let lab = Lab::with_pool(3, 1);
    let calls = lab.flow("n1", "sleep", 100, 3);
    lab.until("the far node works", || busy(&lab.rows(["ps"]), "n3") == 1);
    lab.kill("n3");
    lab.until("it is lost", || lab.nodes().len() == 2);
    calls.end_well();
}

#[test]
fn what_must_not_run_twice_ends_as_unknown_when_its_lender_is_killed() {
    let lab = Lab::with_pool(3, 1);
    let calls = lab.flow("n1", "sleep_once", 100, 3);
    lab.until("the far node works", || busy(&lab.rows(["ps"]), "n3") == 1);
    lab.kill("n3");
    lab.until("it is lost", || lab.nodes().len() == 2);
    let said = calls.end();
    let unknown = said["failures"]["outcome unknown"].as_u64().unwrap_or(0);
    assert_eq!(said["results"].as_u64().map(|results| results + unknown), said["calls"].as_u64(), "{said}");
    assert!((1..=3).contains(&unknown), "only what may have run is unknown: {said}");
    assert_eq!(sum(&said["failures"]), unknown, "{said}");
}

#[test]
fn the_local_daemon_is_restarted_under_a_running_program() {
    let lab = Lab::with_pool(3, 1);
    let calls = lab.flow("n1", "sleep", 60, 3);
    lab.until("the far node works", || busy(&lab.rows(["ps"]), "n3") == 1);
    lab.kill("n1");
    lab.run(["up", "--name", "n1", "--slots", "1", "--listen", "127.0.0.1:0"]).well();
    lab.until("the far node works again", || busy(&lab.rows(["ps"]), "n3") == 1);
    calls.end_well();
}

#[test]
fn a_slowed_node_gets_less_of_the_work() {
    let lab = Lab::with_pool(2, 1);
    let calls = lab.spawn(command(&lab, &["calls", "spin", "400", "10000", "2"]));
    let mut slowed = 0;
    lab.until("both work", || {
        let rows = lab.rows(["ps"]);
        let far =
            rows.iter().find(|row| row["node"] == "n2").and_then(|row| row["pid"].as_i64()).unwrap_or(0);
        slowed = far as i32;
        slowed != 0
    });
    // A quarter of the time running, three quarters stopped; what spins by the clock gets the less done. How much
    // less is judged where time is simulated: here machines are busy.
    let stop = std::sync::atomic::AtomicBool::new(false);
    let said = std::thread::scope(|scope| {
        scope.spawn(|| {
            let pid = rustix::process::Pid::from_raw(slowed).unwrap();
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let stopped = rustix::process::kill_process(pid, rustix::process::Signal::STOP);
                std::thread::sleep(Duration::from_millis(45));
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::CONT);
                std::thread::sleep(Duration::from_millis(15));
                if stopped.is_err() {
                    break;
                }
            }
        });
        let said = calls.wait();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        said.json()
    });
    assert_eq!(said["results"], 400, "{said}");
    let share = said["nodes"]["n2"].as_u64().unwrap() as f64 / 400.0;
    assert!(share > 0.0 && share < 0.5, "the slow node did {share} of the work: {said}");
}

#[test]
fn an_owner_is_asked_while_calls_go_elsewhere() {
    let (lab, other) = Lab::with_another_machine(1, "accept = \"ask\"\nowner = \"bob\"\n");

    let said = run(&lab, &["calls", "sleep", "10", "5", "2"]).json();
    assert_eq!(said["results"], 10, "{said}");
    assert!(said["notes"].to_string().contains("b awaits"), "{said}");
    assert!(said["nodes"].get("b").is_none(), "{said}");
    let pending = lab.rows(["plugin", "pending"]);
    assert_eq!(pending.len(), 1, "{pending:?}");
    assert_eq!(pending[0]["node"], "b");

    // The owner decides, on the owner's own machine.
    let id = pending[0]["id"].as_str().unwrap()[..12].to_owned();
    lab.run_at(&other, ["plugin", "deny", &id, "--on", "b"]).well();
    let said = run(&lab, &["calls", "sleep", "4", "5", "2"]).json();
    assert!(said["notes"].to_string().contains("b refuses"), "{said}");
    lab.run_at(&other, ["plugin", "approve", &id, "--on", "b"]).well();
    let calls = lab.flow("n1", "sleep", 20, 2);
    lab.until("b works", || busy(&lab.rows(["ps"]), "b") == 1);
    calls.end_well();
    assert!(lab.rows(["plugin", "pending"]).is_empty());
}

#[test]
fn a_program_of_fifty_megabytes_is_sent_by_its_origin_only_a_few_times() {
    let lab = Lab::with_pool(17, 1);
    let large = lab.path("large");
    let mut bytes = std::fs::read(program()).unwrap();
    // What follows the last section of an executable is not loaded, but travels.
    let mut state = 1u64;
    while bytes.len() < 50 << 20 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    std::fs::write(&large, &bytes).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&large, mode).unwrap();
    let sent_before = written_to_network(lab.pid("n1"));
    let mut command = lab.command(&large);
    // It holds a slot on every node until all have it: what is given back is no longer fetched for.
    command.env("MUTIRAO_NODE", "n1").args(["stay", "17"]).stdin(Stdio::piped());
    let holder = lab.spawn(command);
    lab.until_within(4 * PATIENCE, "every node has it", || {
        lab.rows(["plugin", "ls"]).iter().filter(|row| row["kept"] == true).count() == 17
    });
    let sent = written_to_network(lab.pid("n1")) - sent_before;
    let copies = sent as f64 / bytes.len() as f64;
    assert!(copies < 9.0, "the origin wrote the program {copies:.1} times");
    drop(holder);
}

/// Bytes a process has written, to files and sockets: an upper bound of what it sent.
fn written_to_network(pid: i32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/io")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("wchar: ")).unwrap();
    line.parse().unwrap()
}

#[test]
fn a_program_for_another_architecture_is_refused_by_name() {
    let lab = Lab::with_pool(1, 1);
    let mut bytes = std::fs::read(program()).unwrap();
    bytes[18..20].copy_from_slice(&183u16.to_le_bytes());
    let foreign = lab.file("foreign", bytes);
    std::fs::set_permissions(&foreign, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let complaint = lab.run(["call", foreign.to_str().unwrap(), "echo"]).complaint();
    assert!(complaint.contains("foreign"), "{complaint}");
}

#[test]
fn a_call_from_the_command_line() {
    let lab = Lab::with_pool(1, 1);
    // A vector of three bytes, as postcard writes it.
    let input = lab.file("input", [3, b'a', b'b', b'c']);
    let program = program();
    let call = |operation: &str| {
        lab.run(["call", program.to_str().unwrap(), operation, "--input", input.to_str().unwrap()])
    };
    assert_eq!(call("echo").well(), "\u{3}abc");
    let complaint = call("nothing").complaint();
    assert!(complaint.contains("echo, "), "{complaint}");
    let said = call("end");
    assert_eq!(said.code, Some(0), "{}", said.err);
}

#[test]
fn every_call_of_many_threads_ends_once() {
    let lab = Lab::new();
    let check = |lab: &Lab, args: &[&str]| {
        let mut command = lab.command(program());
        command.args(args);
        let said = lab.spawn(command).wait().json();
        assert_eq!(said["submitted"], said["done"], "{said}");
        assert_eq!((&said["told"], &said["told_twice"]), (&said["to_be_told"], &0.into()), "{said}");
        assert!(said["outcomes"]["right"].as_u64().unwrap() > 0, "{said}");
        for never in ["hung", "wrong", "given twice", "cancelled by nobody"] {
            assert!(said["outcomes"][never].is_null(), "{said}");
        }
    };
    // On a private node, then on a pool.
    for pool in [false, true] {
        if pool {
            lab.up_local(3, 2, &[]);
        }
        check(&lab, &["storm", "2000"]);
        check(&lab, &["storm", "2000", "by-hand"]);
    }
    lab.until("all is free again", || lab.free_slots() == 6);
}

#[test]
fn everything_works_as_an_ordinary_user() {
    if !rustix::process::getuid().is_root() {
        eprintln!("the other tests have run as an ordinary user");
        return;
    }
    let lab = Lab::new();
    // Copies that the user may run; what is below root's directories may not be.
    let base = tempfile::Builder::new().prefix("mtr-user-").tempdir_in("/tmp").unwrap();
    let everybody = || std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(base.path(), everybody()).unwrap();
    for source in [Path::new(Lab::binary()), &program()] {
        std::fs::copy(source, base.path().join(source.file_name().unwrap())).unwrap();
    }
    let as_user = |args: &[&str]| {
        let mut command = lab.command("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]);
        command.arg(base.path().join(args[0])).args(&args[1..]);
        command
            .env("MUTIRAO_HOME", base.path().join("home"))
            .env("MUTIRAO_RUNTIME_DIR", base.path().join("run"));
        command
            .env("MUTIRAO_NODE", "n1")
            .env("MUTIRAO_BIN", base.path().join("mutirao"))
            .current_dir(base.path());
        lab.spawn(command).wait()
    };
    as_user(&["mutirao", "up", "--local", "3", "--slots", "1"]).well();
    let said = as_user(&["mutirao-test-program", "calls", "sleep", "30", "10", "3"]);
    let attempts = ["read", "write"].map(|what| {
        let key = base.path().join("home/nodes/n1/node.key");
        as_user(&["mutirao-test-program", "one", "attempt", what, key.to_str().unwrap()])
    });
    as_user(&["mutirao", "down", "--all"]).well();
    assert_eq!(said.json()["results"], 30);
    for attempt in attempts {
        assert!(attempt.json()["refused"].is_string());
    }
}
