//! `mutirao map`: with a private node, over pools, and with files, faults and users that do not cooperate.

mod lab;

use lab::{Lab, Said};
use std::ffi::OsStr;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// `mutirao map` in the scratch room, without any daemon.
fn alone<S: AsRef<OsStr>>(lab: &Lab, args: &[S]) -> Command {
    let mut command = lab.command(Lab::binary());
    command.current_dir(room(lab)).arg("map").args(args);
    command
}

/// `mutirao map` in the scratch room, through node `n1`.
fn pooled<S: AsRef<OsStr>>(lab: &Lab, args: &[S]) -> Command {
    let mut command = lab.mutirao(["map"]);
    command.current_dir(room(lab)).args(args);
    command
}

fn room(lab: &Lab) -> std::path::PathBuf {
    let room = lab.path("room");
    std::fs::create_dir_all(&room).unwrap();
    room.canonicalize().unwrap()
}

fn say(lab: &Lab, command: Command) -> Said {
    lab.spawn(command).wait()
}

fn says(lab: &Lab, args: &[&str]) -> String {
    say(lab, alone(lab, args)).well()
}

/// The columns of a job log, by line.
fn rows(path: &Path) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().skip(1).map(|line| line.split('\t').map(|field| field.trim().to_owned()).collect()).collect()
}

/// Whether a process runs whose command line has this in it.
fn runs(mark: &str) -> bool {
    let entries = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let mut lines = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    let of_mark = |line: &Vec<u8>| String::from_utf8_lossy(line).replace('\0', " ").contains(mark);
    lines.any(|line| of_mark(&line) && !String::from_utf8_lossy(&line).contains("map"))
}

#[test]
fn commands_and_arguments_are_put_together_as_in_gnu_parallel() {
    let lab = Lab::new();
    let k = |args: &[&str]| says(&lab, &[&["-k"], args].concat());
    assert_eq!(k(&["echo", ":::", "a b", "it's", "$HOME", ""]), "a b\nit's\n$HOME\n\n");
    assert_eq!(k(&["echo {1}-{2}", ":::", "a", "b", ":::", "1", "2"]), "a-1\na-2\nb-1\nb-2\n");
    assert_eq!(k(&["echo {1}-{2}", ":::", "a", "b", ":::+", "1", "2"]), "a-1\nb-2\n");
    assert_eq!(k(&["-N2", "echo", ":::", "a", "b", "c"]), "a b\nc\n");
    assert_eq!(k(&["-C", ",", "echo {2} {1}", ":::", "a,b"]), "b a\n");
    assert_eq!(k(&["echo {#} {.} {/}", ":::", "d/f.txt"]), "1 d/f f.txt\n");
    assert_eq!(k(&[":::", "echo one", "echo two | tr a-z A-Z"]), "one\nTWO\n");
    assert_eq!(k(&["--tag", "echo x; echo y >&2", ":::", "t"]), "t\tx\n");
    assert_eq!(k(&["--tagstring", "<{#}>", "echo", ":::", "a"]), "<1>\ta\n");
    assert_eq!(k(&["--dry-run", "rm -rf", ":::", "/ x"]), "rm -rf '/ x'\n");
    std::fs::write(room(&lab).join("list"), "1\n2\n").unwrap();
    assert_eq!(k(&["echo", "::::", "list"]), "1\n2\n");
    assert_eq!(k(&["-a", "list", "-j1", "echo {%}"]), "1\n1\n");
    assert_eq!(k(&["--timeout", "0", "sleep 0.2; echo {#}", ":::", "a", "b"]), "1\n2\n");
}

#[test]
fn arguments_come_from_standard_input_as_they_are_written() {
    let lab = Lab::new();
    let mut command = alone(&lab, &["-j1", "echo got {} > {}"]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"first\n").unwrap();
    // Done before the next is there.
    lab.until("the first job is done", || room(&lab).join("first").exists());
    stdin.write_all(b"second").unwrap();
    drop(stdin);
    assert!(child.wait().unwrap().success());
    assert_eq!(std::fs::read_to_string(room(&lab).join("second")).unwrap(), "got second\n");
    let mut command = alone(&lab, &["-k", "-0", "echo"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"a\0b").unwrap();
    assert_eq!(child.wait_with_output().unwrap().stdout, b"a\nb\n");
}

#[test]
fn on_its_own_machine_a_command_is_as_in_the_shell() {
    let lab = Lab::new();
    let mut command =
        alone(&lab, &["pwd; echo $MINE; umask; cat there > here; chmod 755 here; : {}", ":::", ""]);
    std::fs::write(room(&lab).join("there"), "x").unwrap();
    command.env("MINE", "yes");
    let said = say(&lab, command).well();
    let mut lines = said.lines();
    assert_eq!(lines.next(), Some(room(&lab).to_str().unwrap()));
    assert_eq!(lines.next(), Some("yes"));
    assert_ne!(lines.next(), Some("0077"), "the mask is the user's, not a worker's");
    assert_eq!(std::fs::read_to_string(room(&lab).join("here")).unwrap(), "x");
    assert_eq!(says(&lab, &["--workdir", "/", "pwd", ":::", ""]), "/\n");
    assert_ne!(says(&lab, &["--workdir", "...", "pwd", ":::", ""]).trim(), room(&lab).to_str().unwrap());
}

#[test]
fn the_exit_code_counts_failures_and_the_log_tells_each() {
    let lab = Lab::new();
    let log = room(&lab).join("log");
    let said = say(&lab, alone(&lab, &["-k", "--joblog", "log", "exit {}", ":::", "0", "1", "2"]));
    assert_eq!(said.code, Some(2), "{}", said.err);
    let codes = |rows: Vec<Vec<String>>| {
        let mut codes: Vec<_> =
            rows.into_iter().map(|row| [row[0].clone(), row[6].clone(), row[7].clone()]).collect();
        codes.sort();
        codes
    };
    assert_eq!(codes(rows(&log)), [["1", "0", "0"], ["2", "1", "0"], ["3", "2", "0"]]);
    assert_eq!(say(&lab, alone(&lab, &["--joblog", "log", "kill -9 $$", ":::", "a"])).code, Some(1));
    assert_eq!(codes(rows(&log)), [["1", "0", "9"]]);
    let said = say(
        &lab,
        alone(&lab, &["--joblog", "log", "--timeout", "0.2", "echo begun; sleep 876501; : {}", ":::", ""]),
    );
    assert!(said.err.contains("time limit") && said.out == "begun\n", "{}{}", said.out, said.err);
    assert_eq!(codes(rows(&log)), [["1", "-1", "15"]]);
    lab.until("what ran too long is gone", || !runs("sleep 876501"));
    let many: Vec<String> = (0..120).map(|i| i.to_string()).collect();
    let mut args = vec!["-j2", "false", ":::"];
    args.extend(many.iter().map(String::as_str));
    assert_eq!(say(&lab, alone(&lab, &args)).code, Some(101));
}

#[test]
fn a_run_is_gone_on_with_where_it_ended() {
    let lab = Lab::new();
    let go = |more: &[&str], command: &str| {
        let args = [&["-k", "--joblog", "log"], more, &[command, ":::", "a", "b", "c"]].concat();
        say(&lab, alone(&lab, &args)).out
    };
    assert_eq!(go(&[], "echo {}; test {} != b"), "a\nb\nc\n");
    assert_eq!(go(&["--resume"], "echo again {}"), "");
    assert_eq!(go(&["--resume-failed"], "echo again {}"), "again b\n");
    assert_eq!(go(&["--resume-failed"], "echo again {}"), "");
    // A job is tried again, and only its last try is printed.
    let tries = "echo {} >> tries; test $(wc -l < tries) -eq 3 && echo third";
    assert_eq!(says(&lab, &["--retries", "5", tries, ":::", "x"]), "third\n");
}

#[test]
fn a_run_stops_when_it_is_told_to() {
    let lab = Lab::new();
    let go = |halt: &str, jobs: &[&str]| {
        let args = [&["-j1", "--halt", halt, "echo {}; exit {}", ":::"], jobs].concat();
        let said = say(&lab, alone(&lab, &args));
        (said.out, said.code)
    };
    assert_eq!(go("now,fail=1", &["0", "3", "4"]), ("0\n3\n".into(), Some(3)));
    assert_eq!(go("soon,fail=1", &["0", "3", "4"]), ("0\n3\n".into(), Some(3)));
    assert_eq!(go("now,success=1", &["3", "0", "4"]), ("3\n0\n".into(), Some(0)));
    assert_eq!(go("soon,fail=100%", &["0", "0"]).1, Some(0));
    let said = say(&lab, alone(&lab, &["-j2", "--halt", "now,fail=1", ":::", "sleep 876502", "false"]));
    assert_eq!(said.code, Some(1), "{}", said.err);
    lab.until("the others are ended", || !runs("sleep 876502"));
}

#[test]
fn outputs_are_whole_and_kept_in_files_when_wanted() {
    let lab = Lab::new();
    let noisy = "i=0; while [ $i -lt 300 ]; do echo {}-$i; i=$((i+1)); done";
    let out = says(&lab, &["-j4", "--results", "res", noisy, ":::", "a/b", "c", "d", "e"]);
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines.len(), 1200);
    for job in lines.chunks(300) {
        let (name, _) = job[0].rsplit_once('-').unwrap();
        assert!(job.iter().enumerate().all(|(i, line)| *line == format!("{name}-{i}")), "{name} is mixed");
    }
    let kept = std::fs::read_to_string(room(&lab).join("res/1/a\\_b/stdout")).unwrap();
    assert_eq!(kept.lines().count(), 300);
    let large = says(&lab, &["head -c 20000000 /dev/zero; : {}", ":::", ""]);
    assert_eq!(large.len(), 20_000_000);
}

#[test]
fn bad_input_is_told_and_starts_nothing() {
    let lab = Lab::new();
    for (args, hint) in [
        (&["echo", "::::", "absent"][..], "absent"),
        (&["--halt", "later", "echo", ":::", "a"], "never"),
        (&["-j", "many", "echo", ":::", "a"], "number of jobs"),
        (&["--timeout", "soon", "echo", ":::", "a"], "time"),
        (&["--resume", "echo", ":::", "a"], "joblog"),
        (&["--env", "NO_SUCH_VARIABLE", "echo", ":::", "a"], "NO_SUCH_VARIABLE"),
        (&["echo", "::::", "-", "::::", "-"], "standard input"),
        (&["--workdir", "/no/such/place", "true", ":::", "a"], "/no/such/place"),
    ] {
        let complaint = say(&lab, alone(&lab, args)).complaint();
        assert!(complaint.contains(hint), "{args:?}: {complaint}");
    }
    std::fs::write(room(&lab).join("notes"), "not a log\n").unwrap();
    let complaint =
        say(&lab, alone(&lab, &["--joblog", "notes", "--resume", "echo", ":::", "a"])).complaint();
    assert!(complaint.contains("no job log"), "{complaint}");
}

#[test]
fn whoever_interrupts_a_run_leaves_nothing_behind() {
    let lab = Lab::new();
    let running =
        lab.spawn(alone(&lab, &["-j2", "touch begun; sleep 876503 & sleep 876503; : {}", ":::", "a", "b"]));
    lab.until("jobs run", || room(&lab).join("begun").exists() && runs("sleep 876503"));
    let pid = rustix::process::Pid::from_raw(running.pid()).unwrap();
    // Not the interrupt of a terminal: whoever runs the tests may have it ignored.
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_ne!(running.wait().code, Some(0));
    lab.until("the jobs are gone", || !runs("sleep 876503"));
}

#[test]
fn what_a_job_leaves_running_ends_with_it_and_the_next_runs_all_the_same() {
    let lab = Lab::new();
    let leaving = "sleep 876504 > /dev/null & echo {}";
    assert_eq!(says(&lab, &["-k", "-j1", leaving, ":::", "1", "2", "3"]), "1\n2\n3\n");
    lab.until("nothing is left", || !runs("sleep 876504"));
}

/// On its own node a user's command touches the user's files; for any other home the same node keeps it in.
#[test]
fn only_on_their_own_node_commands_touch_their_users_files() {
    let lab = Lab::with_pool(2, 1);
    // Whoever can write here waits until the other node has tried to.
    let log = room(&lab).join("log");
    let job = format!("touch {{}} || exit 9; until grep -q n2 {}; do sleep 0.05; done", log.display());
    let names: Vec<String> = (0..6).map(|i| room(&lab).join(format!("f{i}")).display().to_string()).collect();
    let args: Vec<&str> =
        ["--joblog", "log", &job, ":::"].into_iter().chain(names.iter().map(String::as_str)).collect();
    say(&lab, pooled(&lab, &args));
    let rows = rows(&log);
    assert_eq!(rows.len(), 6);
    for row in &rows {
        let expected = match row[1].as_str() {
            "n1" => "0",
            "n2" => "9",
            other => panic!("no node {other}"),
        };
        assert_eq!(row[6], expected, "{row:?}");
    }
    lab.until("all is free again", || lab.free_slots() == 2);
}

#[test]
fn an_owner_can_keep_even_the_own_commands_in() {
    for setting in ["[files]\nown = false\n", "confinement = \"files\"\n"] {
        let lab = Lab::new();
        lab.settings(setting);
        lab.up_local(1, 1, &[]);
        let outside = room(&lab).join("outside");
        let said = say(&lab, pooled(&lab, &["touch", ":::", outside.to_str().unwrap()]));
        assert_eq!(said.code, Some(1), "{setting}: {}", said.err);
        assert!(!outside.exists());
        let said = say(&lab, pooled(&lab, &["touch inside; ls; echo {}", ":::", "x"])).well();
        assert_eq!(said, "inside\nx\n");
    }
}

#[test]
fn in_a_shared_directory_jobs_run_where_the_run_was_started() {
    let lab = Lab::new();
    let shared = room(&lab);
    lab.settings(&format!("[files]\nown = false\nshared = [\"{}\"]\n", shared.display()));
    lab.up_local(2, 1, &[]);
    let job = "echo {} > out.{}; until test -e out.1 -a -e out.2; do sleep 0.05; done";
    say(&lab, pooled(&lab, &["--joblog", "log", job, ":::", "1", "2"])).well();
    let hosts: std::collections::BTreeSet<String> =
        rows(&shared.join("log")).into_iter().map(|row| row[1].clone()).collect();
    assert_eq!(hosts.len(), 2, "both nodes wrote to one directory: {hosts:?}");
    let said = say(&lab, pooled(&lab, &["cat", ":::", "/etc/shadow", lab.home().to_str().unwrap()]));
    assert_eq!(said.code, Some(2), "{}", said.out);

    lab.run(["down", "--all"]).well();
    lab.settings(&format!("[files]\nshared = [\"{}\"]\n", lab.home().parent().unwrap().display()));
    let complaint = lab.run(["up", "--local", "2"]).complaint();
    assert!(complaint.contains("files of this node"), "{complaint}");
}

#[test]
fn files_travel_to_other_nodes_and_back() {
    let lab = Lab::new();
    lab.settings("[files]\nown = false\n");
    lab.up_local(2, 1, &[]);
    let room = room(&lab);
    std::fs::create_dir(room.join("in")).unwrap();
    for name in ["a", "b", "c", "d"] {
        std::fs::write(room.join(format!("in/{name}.txt")), name).unwrap();
    }
    std::fs::write(room.join("base"), "+").unwrap();
    let job = "test ! -e left; touch left; cat base {} > {.}.out";
    let args = ["--bf", "base", "--tf", "{}", "--return", "{.}.out", job, ":::"];
    let inputs = ["in/a.txt", "in/b.txt", "in/c.txt", "in/d.txt"];
    say(&lab, pooled(&lab, &[&args[..], &inputs].concat())).well();
    for name in ["a", "b", "c", "d"] {
        assert_eq!(std::fs::read_to_string(room.join(format!("in/{name}.out"))).unwrap(), format!("+{name}"));
    }
    let said = say(&lab, pooled(&lab, &["--return", "absent", "true", ":::", ""]));
    assert!(said.err.contains("left no absent") && said.code == Some(1), "{}", said.err);
    let complaint = say(&lab, pooled(&lab, &["--return", "../x", "true", ":::", ""])).complaint();
    assert!(complaint.contains("below this directory"), "{complaint}");
    let complaint = say(&lab, pooled(&lab, &["--tf", "{}", "cat", ":::", "/etc/hosts"])).complaint();
    assert!(complaint.contains("below this directory"), "{complaint}");
}

#[test]
fn jobs_of_a_node_that_is_lost_run_again_elsewhere() {
    let lab = Lab::with_pool(3, 1);
    let log = room(&lab).join("log");
    // On its own node a job can read the log (whether it may is no question a worker gets a true answer to), and
    // does not end before the third node has done one.
    let path = log.display();
    let job = format!(
        "if cat {path} > /dev/null; then until grep -q n3 {path}; do sleep 0.05; done; fi; sleep 0.2; echo {{}}"
    );
    let numbers: Vec<String> = (1..=40).map(|i| i.to_string()).collect();
    let args = ["-k", "--joblog", "log", &job, ":::"].into_iter().chain(numbers.iter().map(String::as_str));
    let running = lab.spawn(pooled(&lab, &args.collect::<Vec<_>>()));
    lab.until("n3 has done a job", || rows(&log).iter().any(|row| row[1] == "n3"));
    lab.kill("n3");
    let said = running.wait();
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert_eq!(said.out.lines().collect::<Vec<_>>(), numbers);
    assert_eq!(rows(&log).len(), 40);
}

#[test]
fn killing_a_run_over_a_pool_ends_its_jobs_on_every_node() {
    let lab = Lab::with_pool(2, 1);
    let running = lab.spawn(pooled(&lab, &["-j2", "sleep 876505; : {}", ":::", "a", "b"]));
    lab.until("both nodes run a job", || lab.free_slots() == 0 && runs("sleep 876505"));
    running.kill();
    lab.until("all is free again", || lab.free_slots() == 2);
    lab.until("the jobs are gone", || !runs("sleep 876505"));
}

#[test]
fn an_input_is_cut_into_parts_at_line_ends() {
    let lab = Lab::new();
    let text: String = (0..2000).map(|number| format!("line {number}\n")).collect();
    std::fs::write(room(&lab).join("input"), &text).unwrap();
    assert_eq!(says(&lab, &["-k", "--pipe", "--block", "1k", "-a", "input", "cat"]), text);
    let counts = says(&lab, &["-k", "--pipe", "-N", "300", "-a", "input", "wc -l"]);
    assert_eq!(
        counts.split_whitespace().collect::<Vec<_>>(),
        ["300", "300", "300", "300", "300", "300", "200"]
    );
    let complaint = say(&lab, alone(&lab, &["--pipe", "cat", ":::", "a"])).complaint();
    assert!(complaint.contains("takes no arguments"), "{complaint}");
}

#[test]
fn jobs_for_which_there_is_no_slot_say_why() {
    let lab = Lab::with_pool(1, 1);
    lab.run(["drain", "n1"]).well();
    let said = lab.path("said");
    let mut command = pooled(&lab, &["echo", ":::", "done"]);
    let running =
        command.stdout(Stdio::piped()).stderr(std::fs::File::create(&said).unwrap()).spawn().unwrap();
    let says_why = || std::fs::read_to_string(&said).unwrap().contains("no node lends slots now");
    lab.until("it says why", says_why);
    lab.run(["resume", "n1"]).well();
    assert_eq!(running.wait_with_output().unwrap().stdout, b"done\n");
}
