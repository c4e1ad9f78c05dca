//! State that tasks save: what is lost goes on where it was.

mod lab;

use lab::{Lab, Said, busy, kill_process};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;

/// Saves a line more at a time, up to five, and is then not over; the next attempt says how far it had come.
const COUNTS: &str =
    "if [ -e \"$MUTIRAO_CHECKPOINT\" ]; then echo goes on at $(wc -l < \"$MUTIRAO_CHECKPOINT\"); exit; fi
for n in 1 2 3 4 5; do echo $n >> s; \"$MUTIRAO\" bag checkpoint s || exit 9; done
sleep 600";

fn run(lab: &Lab, args: &[&str]) -> Said {
    lab.spawn(lab.bag(args)).wait()
}

/// The bag's only task.
fn task(lab: &Lab, id: &str) -> Value {
    let mut shown = run(lab, &["show", id, "--output", "json"]).json();
    shown["task"][0].take()
}

/// The bag file of one task, of which there are no copies: one that began before anything was saved would do all again.
fn file_of(lab: &Lab, settings: &str, command: &str, of_task: &str) {
    let text = format!(
        "replicas = 1\n{settings}\n[task.a]\ncheckpoint = 'state'\n{of_task}\ncommand = '''\n{command}\n'''\n"
    );
    lab.file("c.toml", text);
}

/// All five lines are kept.
fn is_saved(lab: &Lab, id: &str) -> bool {
    task(lab, id)["saved"]["bytes"] == 10
}

/// The process that keeps the bag `c`.
fn keeper(lab: &Lab, asked: &str) -> Option<(String, i32)> {
    let apps = lab.run(["--output", "json", "--node", asked, "apps"]).json();
    let app = apps.as_array().unwrap().iter().find(|app| app["name"] == "bag-c").cloned()?;
    Some((app["home"].as_str()?.to_owned(), app["pid"].as_i64()? as i32))
}

#[test]
fn a_command_that_fails_goes_on_with_the_file_that_it_has_left() {
    for write in [
        "echo $n > \"$MUTIRAO_CHECKPOINT\"",
        "echo $n > new; mv new state",
        "echo $n > new; $MUTIRAO bag checkpoint new",
    ] {
        for fails in ["exit 3", "sleep 600"] {
            let lab = Lab::new();
            let command = format!(
                "n=$(cat state 2>/dev/null || echo 0)\n[ $n -lt 3 ] || {{ echo $n; exit; }}\nn=$((n+1))\n{write}\n{fails}"
            );
            file_of(&lab, "", &command, "retries = 100\ntime_limit = '1s'");
            let said = run(&lab, &["run", "c.toml"]);
            assert_eq!(said.out, "3\n", "{write}; {fails}: {}", said.err);
            assert!(task(&lab, "1")["saved"].is_null(), "a task that is done needs no state");
        }
    }
}

#[test]
fn a_task_that_was_given_up_is_tried_again_with_its_state_or_without() {
    let lab = Lab::new();
    file_of(&lab, "", "cat state\necho more >> state\n[ $(wc -l < state) -ge 3 ]", "");
    assert_eq!(run(&lab, &["run", "c.toml"]).code, Some(1));
    let again = |how: &[&str]| {
        run(&lab, how).well();
        run(&lab, &["resume", "1"]).code
    };
    assert_eq!(again(&["retry", "1", "failed"]), Some(1), "it has two lines of three");
    assert_eq!(again(&["retry", "--afresh", "1", "a"]), Some(1), "and now one");
    assert_eq!(again(&["retry", "1", "all"]), Some(1));
    assert_eq!(again(&["retry", "1", "all"]), Some(0));
    assert_eq!(run(&lab, &["results", "1"]).well(), "more\nmore\n");
}

#[test]
fn what_is_saved_outlives_the_node_on_which_it_was() {
    let lab = Lab::with_pool(3, 1);
    file_of(&lab, "nodes = ['n2', 'n3']", COUNTS, "");
    let running = lab.spawn(lab.bag(&["--node", "n1", "run", "c.toml"]));
    lab.until("the bag is there", || lab.home().join("bags/1/keeper").exists());
    lab.until("state is saved", || is_saved(&lab, "1"));
    let workers = lab.rows(["--node", "n1", "ps"]);
    lab.kill(if busy(&workers, "n2") > 0 { "n2" } else { "n3" });
    let said = running.wait();
    assert_eq!((said.code, said.out.as_str()), (Some(0), "goes on at 5\n"), "{}", said.err);
    let shown = task(&lab, "1");
    assert_eq!((&shown["failure"]["kind"], &shown["crashes"]), (&"node-lost".into(), &1.into()));
}

#[test]
fn what_is_saved_outlives_the_keeper() {
    let lab = Lab::with_pool(1, 1);
    file_of(&lab, "", COUNTS, "");
    let id = run(&lab, &["submit", "c.toml"]).well();
    let id = id.trim();
    lab.until("state is saved", || is_saved(&lab, id));
    let shown = run(&lab, &["show", id]).well();
    assert!(shown.contains("a.0 saved 10 bytes in attempt 1"), "{shown}");
    let why = run(&lab, &["explain", id]).well();
    assert!(why.contains("begins with the 10 bytes that attempt 1 saved"), "{why}");
    kill_process(keeper(&lab, "n1").unwrap().1);
    run(&lab, &["wait", id]);
    lab.until("it is done", || task(&lab, id)["state"] == "done");
    assert_eq!(run(&lab, &["results", id]).well(), "goes on at 5\n");
}

#[test]
fn what_three_members_keep_outlives_the_node_of_the_keeper_and_that_of_the_task() {
    let lab = Lab::with_pool(3, 1);
    // It is the node of the task, too, which runs there again once it is back.
    file_of(&lab, "nodes = ['n1']", COUNTS, "");
    let said = run(&lab, &["--node", "n1", "submit", "c.toml"]);
    assert!(said.err.contains("kept by `n1`, `n2` and `n3`"), "{}", said.err);
    let id = said.well();
    let id = id.trim();
    lab.until("state is saved", || is_saved(&lab, id));
    let (home, process) = keeper(&lab, "n2").unwrap();
    assert_eq!(home, "n1");
    lab.kill("n1");
    kill_process(process);
    lab.until("another keeps it", || keeper(&lab, "n2").is_some_and(|(home, _)| home != "n1"));
    lab.run(["up", "--name", "n1", "--slots", "1", "--join", "n2"]).well();
    lab.until("it is done", || task(&lab, id)["state"] == "done");
    assert_eq!(run(&lab, &["results", id]).well(), "goes on at 5\n");
}

#[test]
fn state_that_is_too_large_is_refused_and_the_task_goes_on() {
    let lab = Lab::new();
    let command = "head -c 63000000 /dev/zero > s\n\
        $MUTIRAO bag checkpoint s && exit 8\nmv s state\n$MUTIRAO bag checkpoint 2> why && exit 9\n\
        cat why\necho small > s\n$MUTIRAO bag checkpoint s || exit 10\nrm state\n$MUTIRAO bag checkpoint && exit 11\necho on";
    file_of(&lab, "", command, "");
    let said = run(&lab, &["run", "c.toml"]);
    assert_eq!(said.code, Some(0), "{} {}", said.out, said.err);
    assert!(said.out.contains("63000000 bytes") && said.out.ends_with("on\n"), "{}", said.out);
    let said = run(&lab, &["checkpoint"]).complaint();
    assert!(said.contains("MUTIRAO_CHECKPOINT is not set"), "{said}");
}

#[test]
fn large_state_of_several_tasks_is_kept_and_found_again() {
    let lab = Lab::with_pool(2, 2);
    let command = "[ ! -e state ] || { cksum < state; exit 0; }\nyes $MUTIRAO_TASK | head -c 20000000 > s\n\
        $MUTIRAO bag checkpoint s || exit 9\nexit 1";
    file_of(&lab, "", command, "retries = 1\nrepeat = 8");
    let said = run(&lab, &["--node", "n1", "run", "c.toml"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    let sums: std::collections::BTreeSet<&str> = said.out.lines().collect();
    assert!(sums.len() == 8 && sums.iter().all(|sum| sum.ends_with(" 20000000")), "{}", said.out);
    // What was freed takes no room.
    use std::os::unix::fs::MetadataExt;
    let facts = std::fs::metadata(lab.home().join("bags/1/outputs")).unwrap();
    assert!(facts.len() > 160_000_000, "{}", facts.len());
    if facts.blocks() * 512 > 20_000_000 {
        eprintln!("this file system gives no room back: {} KiB are left", facts.blocks() / 2);
    }
}

#[test]
fn where_results_are_compared_each_attempt_begins_afresh() {
    let lab = Lab::with_pool(3, 1);
    let command = "[ ! -e state ] || exit 7\necho x > s\n$MUTIRAO bag checkpoint s 2> why && exit 8\n\
        grep -o 'begins afresh' why";
    file_of(&lab, "", command, "retries = 2");
    let said = run(&lab, &["--node", "n1", "run", "--accept", "majority of 3", "c.toml"]);
    assert_eq!((said.code, said.out.as_str()), (Some(0), "begins afresh\n"), "{}", said.err);
}

#[test]
fn without_room_state_is_refused_and_the_task_goes_on() {
    use std::process::Stdio;
    let lab = Lab::new();
    let command = format!(
        "head -c 3000000 /dev/urandom > s\nuntil $MUTIRAO bag checkpoint s 2> why; do\n\
         grep -q 'no room' why || exit 8\ntouch '{}'\nsleep 0.2\ndone",
        lab.path("full").display()
    );
    file_of(&lab, "", &command, "");
    // A small disk of its own, which only processes below this one see.
    let script = "mkdir -p $MUTIRAO_HOME/bags && mount -t tmpfs -o size=6m none $MUTIRAO_HOME/bags || exit 99\n\
                  head -c 4000000 /dev/zero > $MUTIRAO_HOME/bags/.filler\n\
                  (while [ ! -e full ]; do sleep 0.1; done; rm $MUTIRAO_HOME/bags/.filler) &\n\
                  $MUTIRAO_BIN bag run c.toml";
    let mut command = lab.command("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script]);
    command.current_dir(lab.path("")).stdout(Stdio::piped()).stderr(Stdio::piped());
    let said = lab.spawn(command).wait();
    if said.err.starts_with("unshare:") || said.err.starts_with("mount:") {
        return eprintln!("left out: this user may not mount a file system of its own: {}", said.err);
    }
    assert_eq!((said.code, said.out.as_str()), (Some(0), ""), "{}", said.err);
}

#[test]
fn the_example_in_c_comes_to_its_end_although_no_attempt_has_the_time() {
    let lab = Lab::new();
    let program = lab.compile("checkpoint");
    // Three seconds, of which an attempt has one.
    let command = format!("'{}' 300", program.display());
    file_of(&lab, "", &command, "retries = 200\ntime_limit = '1s'");
    let said = run(&lab, &["run", "c.toml"]);
    assert_eq!(said.out, "45150\n", "{}", said.err);
    assert!(task(&lab, "1")["failures"].as_u64().unwrap() >= 2);
    let complaint = lab.spawn(lab.command(program)).wait();
    assert!(
        complaint.err.contains("error 25: the state is not kept: MUTIRAO_CHECKPOINT is not set"),
        "{}",
        complaint.err
    );
}

/// A program with an operation that saves its state in steps, then takes its worker with it, and returns in its next
/// attempt what it has found; and what it says where no bag keeps state.
const OPERATION: &str = r#"
#include <mutirao.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
static int count(const void *arg, size_t size, mutirao_result *result)
{
    mutirao_bytes state;
    int there;
    mutirao_error *error = mutirao_checkpoint_saved(&state, &there);
    if (error) return mutirao_result_fail(result, 1, mutirao_error_text(error));
    if (there) return mutirao_result_set(result, state.data, state.size);
    char text[3000000];
    for (size_t n = 1; n <= 3; n++) {
        memset(text, '0' + (int)n, sizeof text);
        memcpy(text, arg, size);
        error = mutirao_checkpoint_save(text, n * 1000000);
        if (error) return mutirao_result_fail(result, 2, mutirao_error_text(error));
    }
    abort();
}
static const mutirao_operation operations[] = {{"count", count, 0}};
int main(int argc, char **argv)
{
    mutirao_bag_options options = MUTIRAO_BAG_OPTIONS_INIT;
    mutirao_bag *bag;
    int more;
    options.saves_state = argc > 1;
    options.slots_max = 1; /* no copies, which would begin with less */
    if (mutirao_init(&argc, &argv, operations, 1) || mutirao_bag_open(&options, &bag)) return 1;
    for (int n = 0; n < 4; n++) {
        char arg = (char)('a' + n);
        if (mutirao_bag_push(bag, "count", &arg, 1, NULL)) return 2;
    }
    for (;;) {
        mutirao_bag_end end;
        if (mutirao_bag_next(bag, &end, &more)) return 3;
        if (!more) break;
        if (end.error) printf("%s\n", mutirao_error_text(end.error));
        else printf("%d %.2s %zu\n", (int)end.task, (char *)end.result.data, end.result.size);
    }
    mutirao_bag_close(bag);
    return 0;
}
"#;

#[test]
fn an_operation_whose_worker_dies_begins_with_what_it_has_saved() {
    let lab = Lab::with_pool(2, 2);
    let program = lab.compile(lab.file("count.c", OPERATION).to_str().unwrap());
    let start = |args: &[&str]| {
        let mut command = lab.command(&program);
        command.args(args).env("MUTIRAO_NODE", "n1").current_dir(lab.path(""));
        lab.spawn(command).wait()
    };
    let said = start(&["saves"]);
    let mut lines: Vec<&str> = said.out.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["0 a3 3000000", "1 b3 3000000", "2 c3 3000000", "3 d3 3000000"], "{}", said.err);
    let said = start(&[]);
    let told = said.out.lines().filter(|line| line.contains("whose tasks save state?")).count();
    assert_eq!(told, 4, "{} {}", said.out, said.err);
}

#[test]
fn runs_of_an_ipar_application_save_state_beside_their_files_and_elsewhere() {
    let lab = Lab::with_pool(2, 1);
    let app = lab.file(
        "counts",
        "#!/bin/sh
case $2 in
inicia) \"$MUTIRAO\" bag report \"$1\" lista a b ;;
executa)
    n=$(cat \"$MUTIRAO_CHECKPOINT\" 2>/dev/null || echo 0)
    [ $n -lt 2 ] || { echo $n | tee done.$3; exec \"$MUTIRAO\" bag report \"$1\" tarefa $3 ok; }
    echo $((n+1)) > \"$MUTIRAO_CHECKPOINT.new\"
    \"$MUTIRAO\" bag checkpoint \"$MUTIRAO_CHECKPOINT.new\" && kill -9 $$ ;;
finaliza) \"$MUTIRAO\" bag report \"$1\" finaliza ok ;;
esac
",
    );
    std::fs::set_permissions(&app, std::fs::Permissions::from_mode(0o755)).unwrap();
    for (node, is_beside) in [("n2", false), ("n1", true)] {
        lab.file("nodes", node);
        let ipar = ["ipar", "--app", "./counts", "--nodes", "nodes", "--saves-state", "--retries", "9"];
        let said = run(&lab, &[&["--node", "n1"], &ipar[..]].concat());
        assert_eq!(said.out, "2\n2\n", "{node}: {}", said.err);
        assert_eq!(lab.path("done.1").exists(), is_beside, "{node}");
    }
    let names = std::fs::read_dir(lab.path("")).unwrap().map(|entry| entry.unwrap().file_name());
    let left: Vec<_> = names.filter(|name| name.to_string_lossy().contains("state")).collect();
    assert!(left.is_empty(), "{left:?}");
}
