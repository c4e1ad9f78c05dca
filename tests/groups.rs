//! Groups of processes joined by channels.

mod lab;

use lab::Lab;
use lab::hosts::Hosts;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

const MANDEL: &str = "\
P n1
T xmandel 1 1 1
T gmandel 2 1 1
L xmandel 0 . n1 -2.5
L gmandel 0 . n1
L gmandel 1 . n1
C xmandel 0 0 = gmandel 0 0 , gmandel 1 0
C gmandel 0 0 , gmandel 1 0 = xmandel 0 0
";

/// Writes an executable into the room.
fn script(lab: &Lab, name: &str, text: &str) {
    let path = lab.file(name, format!("#!/bin/sh\n{text}\n"));
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_file_is_checked_and_drawn_without_a_pool() {
    let lab = Lab::new();
    let file = lab.file("mandel.app", MANDEL);
    let file = file.to_str().unwrap();
    let check = |more: &[&str]| lab.run(["group", "check", file].iter().chain(more));
    let complaint = check(&[]).complaint();
    assert_eq!(complaint.lines().count(), 2, "each file once: {complaint}");
    assert!(complaint.contains("mandel.app:4:13: `./xmandel` is not there: build it"), "{complaint}");
    script(&lab, "xmandel", "");
    lab.file("gmandel", "");
    let said = check(&["--output", "json"]);
    assert_eq!(said.code, Some(1));
    let rows: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((&rows["problems"][0]["line"], &rows["problems"][0]["column"]), (&5.into(), &13.into()));
    assert!(rows["problems"][0]["text"].as_str().unwrap().contains("chmod +x"), "{rows}");
    script(&lab, "gmandel", "");
    assert_eq!(check(&[]).well(), "");
    assert_eq!(check(&["--output", "json"]).json()["processes"], 3);
    assert!(
        check(&["--draw", "text"]).well().starts_with("xmandel.0 on n1\n└─ 0 ─▶ gmandel.0:0 | gmandel.1:0")
    );
    assert!(check(&["--draw", "dot"]).well().starts_with("digraph"));
    assert!(check(&["--draw", "svg"]).well().ends_with("</svg>\n"));
}

/// A TOML file of programs, each with so many instances and without channels.
fn plain(lab: &Lab, name: &str, head: &str, programs: &[(&str, u32)]) -> String {
    let mut text = head.to_owned();
    for (program, instances) in programs {
        text += &format!("[program.{program}]\nexecutable = \"{program}\"\ninstances = {instances}\n");
    }
    lab.file(name, text).to_str().unwrap().to_owned()
}

/// Workers that there are.
fn workers(lab: &Lab) -> Vec<serde_json::Value> {
    lab.rows(["ps"]).into_iter().filter(|row| row["pid"] != 0).collect()
}

#[track_caller]
fn until_nothing_is_left(lab: &Lab, slots: u64) {
    lab.until("nothing is left", || workers(lab).is_empty() && lab.free_slots() == slots);
}

#[test]
fn what_processes_write_comes_out_with_whose_it_is_and_in_order() {
    let lab = Lab::with_pool(2, 2);
    script(&lab, "count", "for i in $(seq 1 500); do echo line $i; done; echo done >&2; printf unended");
    let file = plain(&lab, "count.toml", "", &[("count", 4)]);
    let said = lab.run(["group", "run", &file]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    for instance in 0..4 {
        let label = format!("count.{instance}: ");
        let lines: Vec<&str> = said.out.lines().filter_map(|line| line.strip_prefix(&label)).collect();
        assert_eq!(lines.len(), 501);
        assert!(lines[..500].iter().zip(1..).all(|(line, i)| *line == format!("line {i}")));
        assert_eq!(lines[500], "unended");
        assert!(said.err.contains(&format!("{label}done\n")), "{}", said.err);
    }
    assert!(said.err.contains("exit code 0"), "the table: {}", said.err);
    until_nothing_is_left(&lab, 4);
}

#[test]
fn arguments_environment_files_and_input_reach_the_process() {
    let lab = Lab::with_pool(1, 2);
    let who = "$MUTIRAO_GROUP $MUTIRAO_PROGRAM.$MUTIRAO_INSTANCE $MUTIRAO_RANK of $MUTIRAO_PROCESSES";
    script(&lab, "tell", &format!("echo $1 $2 $WORD; echo {who}; cat note; cat; exit 0"));
    lab.file("note", "a note\n");
    let text = "[program.tell]\nexecutable = \"tell\"\narguments = [\"one\"]\nfiles = [\"note\"]\n\
                environment = { WORD = \"three\" }\nstations = [\"n1\"]\n";
    let file = lab.file("tell.toml", text);
    let mut input = "x".repeat(99);
    input.push('\n');
    let input = input.repeat(5000);
    let stdin = lab.file("input", &input);
    let mut command = lab.mutirao([
        "group",
        "run",
        file.to_str().unwrap(),
        "--stdin",
        "tell.0",
        "--no-labels",
        "--",
        "two",
    ]);
    command.stdin(std::fs::File::open(stdin).unwrap());
    let out = lab.spawn(command).wait().well();
    let begins = "one two three\ntell tell.0 0 of 1\na note\n";
    assert!(out.starts_with(begins), "{}", &out[..100.min(out.len())]);
    assert!(out.ends_with(&input) && out.len() == begins.len() + input.len(), "{} bytes", out.len());
    let unknown = lab.run(["group", "run", file.to_str().unwrap(), "--stdin", "tell.7"]).complaint();
    assert!(unknown.contains("there is no process `tell.7`"), "{unknown}");
}

#[test]
fn one_that_fails_ends_its_group_everywhere_and_no_other() {
    let lab = Lab::with_pool(2, 3);
    script(&lab, "stay", "exec sleep 600");
    script(&lab, "fail", "echo so it goes >&2; exit 7");
    script(&lab, "die", "kill -SEGV $$");
    let other = lab.spawn(lab.mutirao(["group", "run", &plain(&lab, "other.toml", "", &[("stay", 1)])]));
    lab.until("the other group runs", || workers(&lab).iter().any(|row| row["operation"] == "group_process"));
    let file = plain(&lab, "fail.toml", "", &[("stay", 3), ("fail", 1)]);
    let said = lab.run(["--output", "json", "group", "run", &file]);
    assert_eq!(said.code, Some(7), "{}", said.err);
    let rows: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((&rows["outcome"], &rows["failed"]), (&"failed".into(), &"fail.0".into()));
    assert_eq!(rows["processes"][3]["last_words"], "so it goes");
    assert_eq!(rows["processes"][0]["how"], "ended with its group");
    let text = rows["text"].as_str().unwrap();
    assert!(text.contains("because of `fail.0` on node n") && text.contains("exit code 7"), "{text}");
    let said = lab.run(["group", "run", &plain(&lab, "die.toml", "", &[("die", 1), ("stay", 1)])]);
    assert_eq!(said.code, Some(139), "{}", said.err);
    lab.until("only the other group is left", || workers(&lab).len() == 1);
    drop(other);
    until_nothing_is_left(&lab, 6);
}

#[test]
fn what_cannot_be_started_is_told() {
    let lab = Lab::with_pool(1, 2);
    script(&lab, "stay", "exec sleep 600");
    let file = lab.file("bad.app", "P n1\nP n7\nP n8\nT stay 1 0 0\nL stay 0 . n1\n");
    let complaint = lab.run(["group", "run", file.to_str().unwrap()]).complaint();
    assert!(complaint.contains("cannot reach `n7`, `n8`"), "{complaint}");
    let file = plain(&lab, "many.toml", "", &[("stay", 3)]);
    let complaint = lab.run(["group", "run", &file]).complaint();
    assert!(complaint.contains("no room for 3 of the processes"), "{complaint}");
    let file = lab.file("dir.toml", "[program.stay]\nexecutable = \"stay\"\ndirectory = \"/nowhere\"\n");
    let complaint = lab.run(["group", "run", file.to_str().unwrap()]).complaint();
    assert!(complaint.contains("`/nowhere`, which is no directory there"), "{complaint}");
    let file = lab.file("elf", b"\x7fELF nonsense");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    let complaint = lab.run(["group", "run", &plain(&lab, "elf.toml", "", &[("elf", 1)])]).complaint();
    assert!(complaint.contains("`elf` cannot be executed"), "{complaint}");
    until_nothing_is_left(&lab, 2);
}

#[test]
fn processes_start_again_when_the_file_asks_for_it() {
    let lab = Lab::with_pool(2, 2);
    script(&lab, "flaky", "echo life; ls; touch left; exit 3");
    script(&lab, "other", "echo begins; exec sleep 600");
    for (strategy, others) in [("one-for-one", 1), ("one-for-all", 3)] {
        let head = format!("[group]\nrestart = \"{strategy}\"\nrestarts = 2\n");
        let file = plain(&lab, "again.toml", &head, &[("flaky", 1), ("other", 1)]);
        let said = lab.run(["group", "run", &file]);
        assert_eq!(said.code, Some(3), "{}", said.err);
        assert_eq!(said.out.matches("flaky.0: life").count(), 3, "{}", said.out);
        assert!(!said.out.contains("left"), "each has a directory of its own: {}", said.out);
        let began = said.out.matches("other.0: begins").count();
        // The last may have been ended before it wrote anything.
        assert!(began <= others, "{strategy}: {}", said.out);
        assert_eq!(said.err.matches("it starts again").count(), 2, "{}", said.err);
    }
    until_nothing_is_left(&lab, 4);
}

#[test]
fn nothing_is_left_when_the_launcher_is_killed_or_told_to_end() {
    use rustix::process::{Pid, Signal, kill_process};
    let lab = Lab::with_pool(2, 2);
    script(&lab, "stay", "sleep 600 & sleep 601 & echo a note >&2; wait");
    let file = plain(&lab, "stay.toml", "", &[("stay", 4)]);
    let run = || lab.spawn(lab.mutirao(["group", "run", &file]));
    let running =
        |count| workers(&lab).iter().filter(|row| row["operation"] == "group_process").count() == count;
    let launcher = run();
    lab.until("all run", || running(4));
    launcher.kill();
    until_nothing_is_left(&lab, 4);
    let launcher = lab.spawn(lab.mutirao(["group", "run", &file, "--name", "again"]));
    let notes = (0..4).map(|i| format!("stay.{i}: a note\n")).collect::<String>();
    let logs = || lab.run(["group", "logs", "again"]).out;
    lab.until("all have written", || logs() == notes);
    kill_process(Pid::from_raw(launcher.pid()).unwrap(), Signal::TERM).unwrap();
    let said = launcher.wait();
    assert_eq!(said.code, Some(143), "{}", said.err);
    assert!(said.err.contains("was ended: signal 15 came"), "{}", said.err);
    until_nothing_is_left(&lab, 4);
    assert_eq!(logs(), notes, "those that were ended have written something, too");
}

#[test]
fn the_loss_of_a_node_ends_the_group_and_is_named() {
    let lab = Lab::with_pool(2, 1);
    script(&lab, "stay", "exec sleep 600");
    let file = lab.file("two.app", "P n1\nP n2\nT stay 2 0 0\nL stay 0 . n1\nL stay 1 . n2\n");
    let launcher = lab.spawn(lab.mutirao(["group", "run", file.to_str().unwrap()]));
    let all_run = || workers(&lab).iter().filter(|row| row["operation"] == "group_process").count() == 2;
    lab.until("both run", all_run);
    lab.kill("n2");
    let said = launcher.wait();
    assert_eq!(said.code, Some(1), "{}", said.err);
    assert!(said.err.contains("because of `stay.1` on node n2: lost: "), "{}", said.err);
    assert!(!said.err.contains("not known"), "a process that is lost has not gone on: {}", said.err);
    lab.until("nothing is left", || workers(&lab).is_empty());
}

#[test]
fn groups_are_listed_and_ended_by_name_from_any_node() {
    let lab = Lab::with_pool(2, 2);
    script(&lab, "stay", "echo here >&2; exec sleep 600");
    script(&lab, "go", "echo went >&2; exit 0");
    let head = "[group]\nname = \"lake\"\n";
    let file = plain(&lab, "stay.toml", head, &[("stay", 2), ("go", 1)]);
    let launcher = lab.spawn(lab.mutirao(["group", "run", &file]));
    let from_n2 = |args: &[&str]| lab.run(["--node", "n2"].iter().chain(args));
    let logs = || from_n2(&["group", "logs", "lake"]).out;
    lab.until("all have written", || logs() == "stay.0: here\nstay.1: here\ngo.0: went\n");
    assert_eq!(from_n2(&["group", "logs", "lake", "stay.1"]).well(), "stay.1: here\n");
    assert!(from_n2(&["group", "logs", "lake", "stay.7"]).complaint().contains("has no process `stay.7`"));
    let row = &lab.rows(["group", "ls"])[0];
    assert_eq!((&row["name"], &row["processes"], &row["home"]), (&"lake".into(), &3.into(), &"n1".into()));
    let show = || from_n2(&["--output", "json", "group", "show", row["id"].as_str().unwrap()]).json();
    lab.until("all states are known", || {
        let shown = show();
        let states = shown["processes"].as_array().unwrap().iter().map(|row| row["state"].clone());
        states.eq(["running", "running", "ended"].map(serde_json::Value::from))
    });
    let shown = show();
    let (stay, go) = (&shown["processes"][0], &shown["processes"][2]);
    assert_eq!((&stay["process"], &stay["code"]), (&"stay.0".into(), &serde_json::Value::Null));
    assert_eq!((&go["process"], &go["code"], &go["restarts"]), (&"go.0".into(), &0.into(), &0.into()));
    assert!(go["peak_kib"].as_u64().is_some_and(|kib| kib > 0), "{go}");
    assert!(from_n2(&["ps"]).well().contains(stay["worker"].as_str().unwrap()));
    assert!(from_n2(&["group", "kill", "sea"]).complaint().contains("no group `sea` runs"));
    from_n2(&["group", "kill", "lake"]).well();
    let said = launcher.wait();
    assert_eq!(said.code, Some(1), "{}", said.err);
    assert!(
        said.err.contains("the group `lake` was ended: by order of ") && said.err.contains("with its group"),
        "{}",
        said.err
    );
    until_nothing_is_left(&lab, 4);
    // It is remembered, and does not run.
    assert_eq!(lab.rows(["group", "ls"]).len(), 0);
    let row = &lab.rows(["group", "ls", "--all"])[0];
    assert_eq!((&row["name"], &row["runs"]), (&"lake".into(), &false.into()));
    assert!(row["outcome"].as_str().unwrap().contains("by order of"), "{row}");
    let shown = show();
    let stay = &shown["processes"][0];
    assert_eq!((&stay["how"], &stay["signal"]), (&"ended with its group".into(), &9.into()));
    assert!(stay["peak_kib"].as_u64().is_some_and(|kib| kib > 0) && stay["cpu_s"].is_number(), "{stay}");
    assert_eq!(logs(), "stay.0: here\nstay.1: here\ngo.0: went\n", "what they wrote last is remembered");
    assert!(from_n2(&["group", "show", "lake"]).well().contains("exit code 0"));
    assert_eq!(from_n2(&["group", "logs", "lake", "go.0"]).well(), "go.0: went\n");
    assert!(from_n2(&["group", "kill", "lake"]).complaint().contains("no group `lake` runs"));
}

#[test]
fn groups_of_one_name_are_told_apart_by_their_ids() {
    let lab = Lab::with_pool(2, 1);
    script(&lab, "stay", "exec sleep 600");
    let file = plain(&lab, "stay.toml", "[group]\nname = \"lake\"\n", &[("stay", 1)]);
    let launchers = [1, 2].map(|_| lab.spawn(lab.mutirao(["group", "run", &file])));
    let rows = || lab.rows(["group", "ls"]);
    lab.until("both run", || rows().iter().filter(|row| row["processes"] == 1).count() == 2);
    let ids: Vec<String> = rows().iter().map(|row| row["id"].as_str().unwrap()[..8].to_owned()).collect();
    let table = lab.run(["group", "ls"]).well();
    for order in ["show", "logs", "kill"] {
        let complaint = lab.run(["group", order, "lake"]).complaint();
        assert!(ids.iter().all(|id| complaint.contains(id) && table.contains(id)), "{complaint}\n{table}");
    }
    lab.run(["group", "kill", &ids[0]]).well();
    let left = rows();
    assert_eq!((left.len(), &left[0]["id"].as_str().unwrap()[..8]), (1, &ids[1][..]));
    let shown = |wanted: &str| lab.run(["--output", "json", "group", "show", wanted]).json()["runs"].clone();
    assert_eq!((shown("lake"), shown(&ids[0]), shown(&ids[1])), (true.into(), false.into(), true.into()));
    lab.run(["group", "kill", "lake"]).well();
    launchers.into_iter().for_each(|launcher| drop(launcher.wait()));
    until_nothing_is_left(&lab, 2);
}

#[test]
fn a_group_ends_by_order_though_a_worker_or_the_launcher_stands_still() {
    use rustix::process::{Pid, Signal, kill_process};
    let lab = Lab::with_pool(2, 1);
    script(&lab, "stay", "echo here >&2; exec sleep 600");
    let file = plain(&lab, "stay.toml", "", &[("stay", 2)]);
    let start = |name: &str| {
        let launcher = lab.spawn(lab.mutirao(["group", "run", &file, "--name", name]));
        let logs = || lab.run(["group", "logs", name]).out;
        lab.until("both have written", || logs() == "stay.0: here\nstay.1: here\n");
        launcher
    };
    let stop = |pid: u64| kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::STOP).unwrap();
    let kill = |name: &str| lab.run(["--node", "n2", "group", "kill", name]).well();
    let ended = |name: &str| lab.run(["--output", "json", "group", "show", name]).json();

    let launcher = start("lake");
    let on_n2 = workers(&lab).into_iter().find(|row| row["node"] == "n2").unwrap();
    stop(on_n2["pid"].as_u64().unwrap());
    kill("lake");
    assert!(launcher.wait().err.contains("by order of "));
    let processes = ended("lake")["processes"].as_array().unwrap().clone();
    assert_eq!(processes.len(), 2);
    for process in processes {
        assert_eq!(process["how"], "ended with its group", "{process}");
        // Of what ran in the worker that was stopped nobody could say more.
        assert_eq!(process["peak_kib"].is_number(), process["node"] == "n1", "{process}");
    }
    until_nothing_is_left(&lab, 2);
    assert_eq!(lab.run(["group", "logs", "lake"]).out, "stay.0: here\nstay.1: here\n");

    let launcher = start("sea");
    stop(u64::from(launcher.pid().unsigned_abs()));
    kill("sea");
    assert!(ended("sea")["outcome"].as_str().unwrap().contains("its launcher is gone: ended by "));
    until_nothing_is_left(&lab, 2);
    launcher.kill();
}

#[test]
fn what_a_process_uses_is_shown_while_it_runs() {
    let lab = Lab::with_pool(2, 1);
    script(&lab, "work", "x=$(head -c 20000000 /dev/zero | tr '\\0' x); while :; do :; done");
    let text = "[group]\nname = \"lake\"\n[program.work]\nexecutable = \"work\"\ninstances = 2\nstations = [\"n1\", \"n2\"]\n";
    // Launched below one of its stations: what is nearer does not count.
    let file = lab.file("work.toml", text);
    let launcher = lab.spawn(lab.mutirao(["--node", "n2", "group", "run", file.to_str().unwrap()]));
    let shown = || {
        let said = lab.run(["--output", "json", "group", "show", "lake"]);
        (said.code == Some(0)).then(|| said.json()["processes"].as_array().unwrap().clone())
    };
    let works = |row: &serde_json::Value| {
        row["cpu_s"].as_f64() > Some(0.1) && row["peak_kib"].as_u64() > Some(20_000) && row["code"].is_null()
    };
    lab.until("both are seen to work", || {
        shown().is_some_and(|rows| rows.len() == 2 && rows.iter().all(works))
    });
    let before = shown().unwrap();
    let grows = |row: &serde_json::Value, before: &serde_json::Value| {
        let more = |what| row[what].as_f64() > before[what].as_f64();
        more("cpu_s") && more("wall_s")
    };
    lab.until("they go on working", || {
        shown().unwrap().iter().zip(&before).all(|(row, before)| grows(row, before))
    });
    let used = |row: &serde_json::Value| {
        row["cpu_s"].as_f64() > Some(0.1) && row["resident_kib"].as_u64() > Some(20_000)
    };
    assert!(workers(&lab).iter().all(used), "{:?}", workers(&lab));
    lab.run(["group", "kill", "lake"]).well();
    launcher.wait();
    until_nothing_is_left(&lab, 2);
}

#[test]
fn without_a_daemon_a_group_runs_on_this_machine() {
    let lab = Lab::new();
    script(&lab, "hello", "echo hello");
    let file = plain(&lab, "hello.toml", "", &[("hello", 1)]);
    assert_eq!(lab.run(["group", "run", &file]).well(), "hello.0: hello\n");
}

#[test]
fn output_and_input_go_on_where_they_were_after_a_cut() {
    let Some(hosts) = Hosts::new(2) else { return };
    hosts.up_all(&[1, 1]);
    let path = |name: &str| hosts.path(name).to_str().unwrap().to_owned();
    std::fs::write(path("numbers"), "#!/bin/sh\nfor i in $(seq 1 300); do echo $i; sleep 0.02; done; cat\n")
        .unwrap();
    std::fs::set_permissions(path("numbers"), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::write(path("file"), "P n2\nT numbers 1 0 0\nL numbers 0 . n2\n").unwrap();
    std::fs::write(path("input"), "and more\n".repeat(20_000)).unwrap();
    let mut command = hosts.command(1, Lab::binary());
    command.args(["group", "run", &path("file"), "--stdin", "numbers.0", "--no-labels"]);
    command.stdin(std::fs::File::open(path("input")).unwrap());
    let launcher = hosts.spawn(command);
    hosts.until("it runs", || hosts.rows(1, "ps").iter().any(|row| row["operation"] == "group_process"));
    hosts.cut(2);
    std::thread::sleep(Duration::from_secs(3));
    hosts.heal(2);
    let numbers: String = (1..=300).map(|i| format!("{i}\n")).collect();
    let out = launcher.wait().well();
    assert!(out.starts_with(&numbers), "{}", &out[..out.len().min(2000)]);
    assert_eq!(&out[numbers.len()..], "and more\n".repeat(20_000));
    hosts.until("all is free again", || (1..=2).all(|i| hosts.free_slots(i) == Some(1)));
}

#[test]
fn a_ring_of_c_programs_passes_a_number_round_on_several_nodes() {
    let lab = Lab::with_pool(3, 2);
    lab.compile("group/ring");
    let mut text = String::from(
        "[program.first]\nexecutable = \"ring\"\narguments = [\"first\"]\n\
         [program.next]\nexecutable = \"ring\"\ninstances = 5\n",
    );
    let ends = ["first.0:0", "next.0:0", "next.1:0", "next.2:0", "next.3:0", "next.4:0"];
    for (i, from) in ends.iter().enumerate() {
        text += &format!("[[channel]]\nfrom = \"{from}\"\nto = \"{}\"\n", ends[(i + 1) % ends.len()]);
    }
    let file = lab.file("ring.toml", text);
    let said = lab.run(["group", "run", file.to_str().unwrap()]);
    assert_eq!((said.code, said.out.as_str()), (Some(0), "first.0: 6 processes\n"), "{}", said.err);
    until_nothing_is_left(&lab, 6);
}

#[test]
fn the_application_of_the_sources_draws_its_picture() {
    let lab = Lab::with_pool(2, 2);
    lab.compile("group/xmandel");
    lab.compile("group/gmandel");
    let text = "P n1\nP n2\nT xmandel 1 1 1\nT gmandel 2 1 1\nL xmandel 0 . n1 -2.5 0.5 -1.5 1.5 150\n\
                L gmandel 0 . n1\nL gmandel 1 . n2\nC xmandel 0 0 = gmandel 0 0 , gmandel 1 0\n\
                C gmandel 0 0 , gmandel 1 0 = xmandel 0 0\n";
    let file = lab.file("mandel.app", text);
    let mut command = lab.mutirao(["group", "run", file.to_str().unwrap(), "--no-labels"]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stdout.starts_with(b"P5 150 150 "), "{} bytes", output.stdout.len());
    assert!(output.stdout.len() > 150 * 150, "{} bytes", output.stdout.len());
    until_nothing_is_left(&lab, 4);
}

#[test]
fn whoever_waits_for_a_process_that_left_without_a_word_is_told() {
    let lab = Lab::with_pool(2, 2);
    let leaves = lab.file("leaves.c", "#include <spd.h>\nint main(void) { return open_spd() < 0; }\n");
    lab.compile(leaves.to_str().unwrap());
    let waits = "#include <spd.h>\n#include <stdio.h>\nint main(void) {\n  msg_type m = {0, 0};\n  \
                 if (open_spd() < 0) return 1;\n  printf(\"%s\\n\", receivec(0, &m) == SPD_ELOST ? \"lost\" : \"?\");\n  \
                 return close_spd() < 0;\n}\n";
    lab.compile(lab.file("waits.c", waits).to_str().unwrap());
    for stations in [["n1", "n1"], ["n1", "n2"]] {
        let text = format!(
            "P n1\nP n2\nT leaves 1 0 1\nT waits 1 1 0\nL leaves 0 . {}\nL waits 0 . {}\nC waits 0 0 = leaves 0 0\n",
            stations[0], stations[1]
        );
        let file = lab.file("left.app", text);
        let said = lab.run(["group", "run", file.to_str().unwrap()]);
        assert_eq!(said.out, "waits.0: lost\n", "{}", said.err);
        until_nothing_is_left(&lab, 4);
    }
}

#[test]
fn a_further_data_connection_takes_the_place_of_one_that_is_not_used() {
    let lab = Lab::new();
    let place = lab.home().join("nodes/n1");
    std::fs::create_dir_all(&place).unwrap();
    std::fs::write(place.join("node.toml"), "max_data_connections = 1\n").unwrap();
    lab.up_local(3, 1, &[]);
    script(&lab, "once", "echo there");
    script(&lab, "stay", "exec sleep 600");
    let file = |program: &str, node: &str| {
        let text = format!("[program.{program}]\nexecutable = \"{program}\"\nstations = [\"{node}\"]\n");
        lab.file(&format!("{program}-{node}.toml"), text).to_str().unwrap().to_owned()
    };
    // Neither waits until the connection of the one before is closed for not being used.
    for node in ["n2", "n3", "n2"] {
        assert!(lab.run(["group", "run", &file("once", node)]).well().contains("there"));
    }
    let first = lab.spawn(lab.mutirao(["group", "run", "--name", "first", &file("stay", "n2")]));
    // Workers of those before may not be gone yet.
    let is_first =
        |row: &serde_json::Value| row["name"] == "group:first" && row["operation"] == "group_process";
    lab.until("the first runs", || workers(&lab).iter().any(is_first));
    let second = lab.spawn(lab.mutirao(["group", "run", &file("once", "n3")]));
    let log = place.join("log");
    let is_told = || std::fs::read_to_string(&log).is_ok_and(|log| log.contains("max_data_connections"));
    lab.until("the limit is told", is_told);
    // It is in use, and stays.
    assert!(workers(&lab).iter().any(|row| row["node"] == "n2" && row["operation"] == "group_process"));
    lab.run(["group", "kill", "first"]).well();
    first.wait();
    assert!(second.wait().well().contains("there"));
    until_nothing_is_left(&lab, 3);
}

/// A source sends 100 numbers, each of which it waits for; a sink fails when it meets the 10th. Both say what they did.
const FLOW: &str = r#"
#include <spd.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
    const int is_source = strcmp(argv[1], "source") == 0;
    int number = 0, first = 0, last = 0, code;
    msg_type m = {sizeof number, (char *)&number};
    if ((code = open_spd()) < 0) return 1;
    if (is_source) {
        for (number = 1; number <= 100 && code == 0; number++) code = sendc(0, &m);
        last = number - 1;
    }
    while (!is_source && (code = receivec(0, &m)) == 0) {
        if (first == 0) first = number;
        if (number != first && number != last + 1) printf("%d after %d\n", number, last);
        last = number;
        if (number == 10 || number == 100) break;
    }
    printf("%d to %d\n", first, last);
    fflush(stdout);
    if (last == 10) return 3;
    return code < 0 || close_spd() < 0;
}
"#;

#[test]
fn what_was_not_received_waits_for_a_process_that_starts_again() {
    let lab = Lab::with_pool(2, 2);
    lab.compile(lab.file("flow.c", FLOW).to_str().unwrap());
    for (sink, strategy) in [("n1", "one-for-one"), ("n2", "one-for-one"), ("n2", "one-for-all")] {
        let program = |name: &str, node: &str| {
            format!(
                "[program.{name}]\nexecutable = \"flow\"\narguments = [\"{name}\"]\nstations = [\"{node}\"]\n"
            )
        };
        let text = format!("[group]\nrestart = \"{strategy}\"\nrestarts = 2\n")
            + &program("source", "n1")
            + &program("sink", sink)
            + "[[channel]]\nfrom = \"source.0:0\"\nto = \"sink.0:0\"\n";
        let said = lab.run(["group", "run", lab.file("flow.toml", text).to_str().unwrap()]);
        let of = |process: &str| -> Vec<&str> {
            said.out.lines().filter_map(|line| line.strip_prefix(process)).collect()
        };
        if strategy == "one-for-one" {
            assert_eq!(said.code, Some(0), "{}", said.err);
            assert_eq!(of("sink.0: "), ["1 to 10", "11 to 100"]);
            assert_eq!(of("source.0: "), ["0 to 100"]);
        } else {
            // Each time with empty channels.
            assert_eq!(said.code, Some(3), "{}", said.err);
            assert_eq!(of("sink.0: "), ["1 to 10"; 3]);
        }
        until_nothing_is_left(&lab, 4);
    }
}

#[test]
fn a_lost_node_is_named_and_not_whoever_waits_for_its_process() {
    let lab = Lab::with_pool(2, 1);
    let waits = "#include <spd.h>\nint main(void) {\n  msg_type m = {0, 0};\n  \
                 return open_spd() < 0 || receivec(0, &m) < 0;\n}\n";
    lab.compile(lab.file("waits.c", waits).to_str().unwrap());
    let text = "P n1\nP n2\nT waits 2 1 1\nL waits 0 . n1\nL waits 1 . n2\n\
                C waits 0 0 = waits 1 0\nC waits 1 0 = waits 0 0\n";
    let file = lab.file("two.app", text);
    let launcher = lab.spawn(lab.mutirao(["group", "run", file.to_str().unwrap()]));
    let all_run = || workers(&lab).iter().filter(|row| row["operation"] == "group_process").count() == 2;
    lab.until("both run", all_run);
    lab.kill("n2");
    let said = launcher.wait();
    assert!(said.err.contains("because of `waits.1` on node n2: lost"), "{}", said.err);
}
