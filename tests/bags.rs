//! Bags of tasks over real workers: what fails is named, what is killed goes on, each result counts once.

mod lab;

use lab::{Lab, Running, kill_process, sleepers};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

fn run(lab: &Lab, args: &[&str]) -> lab::Said {
    lab.spawn(lab.bag(args)).wait()
}

fn show(lab: &Lab, id: &str) -> Value {
    run(lab, &["show", id, "--output", "json"]).json()
}

/// The row of a task by its name.
fn task<'a>(shown: &'a Value, name: &str) -> &'a Value {
    let rows = shown["task"].as_array().unwrap();
    rows.iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("no {name} in {shown}"))
}

fn done(lab: &Lab, id: &str) -> u64 {
    show(lab, id)["counts"]["done"].as_u64().unwrap()
}

/// Ends a keeper as with `kill -9` when so many tasks are done.
#[track_caller]
fn kill_at(lab: &Lab, keeper: Running, id: &str, tasks: u64) {
    // Before it is submitted there is nothing to be shown.
    let is_there = || lab.home().join("bags").join(id).join("keeper").exists();
    lab.until("the keeper is there", is_there);
    lab.until("some tasks are done", || done(lab, id) >= tasks);
    keeper.kill();
}

fn lines(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

#[test]
fn a_grid_with_files_and_dependencies_is_done_and_failures_are_named() {
    let lab = Lab::new();
    lab.file(
        "sweep.toml",
        "[task.prepare]\ncommand = 'echo seed > seed.txt'\noutputs = ['seed.txt']\n\
         [task.solve]\ncommand = 'cat seed.txt; test {a} != 2 || exit 3; echo {a}{b} > out'\n\
         grid = { a = [1, 2], b = ['x y', \"it's\"] }\nafter = ['prepare']\ninputs = ['seed.txt']\n\
         outputs = [{ here = 'results/{a}-{b}', there = 'out' }]\nretries = 1\n\
         [task.join]\ncommand = 'true'\nafter = ['solve']\n\
         [task.slow]\ncommand = 'sleep 60'\ntime_limit = '200ms'\n\
         [task.hit]\ncommand = 'kill -SEGV $$'\n[task.none]\ncommand = ['no-such-program']\n\
         [task.lazy]\ncommand = 'true'\noutputs = ['nothing.txt']\n",
    );
    let said = run(&lab, &["run", "sweep.toml"]);
    assert_eq!((said.code, said.out.as_str()), (Some(1), "seed\nseed\n"), "{}", said.err);
    assert_eq!(lines(&lab.path("results/1-x y")), ["1x y"]);
    assert_eq!(lines(&lab.path("results/1-it's")), ["1it's"]);
    assert_eq!(std::fs::read_dir(lab.path("results")).unwrap().count(), 2, "and no attempt's own files");
    let shown = show(&lab, "1");
    let kind = |name: &str| task(&shown, name)["failure"]["kind"].as_str().unwrap_or("").to_owned();
    let kinds = ["solve.2", "slow.0", "hit.0", "none.0", "lazy.0"].map(kind);
    assert_eq!(kinds, ["exit-code", "time-limit", "signal", "not-started", "no-output"]);
    assert_eq!(task(&shown, "solve.2")["failures"], 2);
    assert_eq!(task(&shown, "join.0")["state"], "barred");
    let why = run(&lab, &["explain", "sweep", "join"]).well();
    assert!(why.contains("2 of the 4 tasks of `solve` will not be done"), "{why}");
    assert!(run(&lab, &["export", "1"]).well().contains("solve.2,failed"));
    assert_eq!(run(&lab, &["export", "1", "--output", "json"]).json(), show(&lab, "1")["task"]);
}

#[test]
fn a_bag_file_that_is_wrong_is_refused_with_line_and_column() {
    let lab = Lab::new();
    lab.file("wrong.toml", "[task.a]\ncommand = 'x {y}'\n");
    let complaint = run(&lab, &["run", "wrong.toml"]).complaint();
    assert!(complaint.contains("line 2, column 11") && complaint.contains("`y`"), "{complaint}");
    assert!(run(&lab, &["ls"]).well().lines().count() == 1, "nothing was submitted");
    lab.file("right.toml", "[task.a]\ncommand = 'x {y}'\ngrid = { y = { from = 1, to = 9 } }\n");
    let planned = run(&lab, &["plan", "right.toml", "--output", "json"]).json();
    assert_eq!((&planned[0]["tasks"], &planned[0]["parameters"]), (&9.into(), &"y".into()));
}

#[test]
fn a_keeper_that_is_killed_again_and_again_loses_nothing_and_doubles_nothing() {
    let lab = Lab::new();
    lab.file(
        "many.toml",
        "[task.a]\ncommand = 'sleep 0.05; echo {n} > out; echo {n}'\ngrid = { n = { from = 1, to = 40 } }\n\
         outputs = [{ here = 'many/{n}', there = 'out' }]\n",
    );
    let keeper = lab.spawn(lab.bag(&["run", "many.toml"]));
    kill_at(&lab, keeper, "1", 5);
    for tasks in [12, 20] {
        let keeper = lab.spawn(lab.bag(&["resume", "1"]));
        kill_at(&lab, keeper, "1", tasks);
    }
    run(&lab, &["check", "1"]).well();
    run(&lab, &["resume", "1"]).well();
    assert_eq!(done(&lab, "1"), 40);
    for n in 1..=40 {
        assert_eq!(lines(&lab.path(&format!("many/{n}"))), [n.to_string()]);
    }
    assert_eq!(std::fs::read_dir(lab.path("many")).unwrap().count(), 40);
    let results = run(&lab, &["results", "1"]).well();
    let expected: Vec<String> = (1..=40).map(|n| n.to_string()).collect();
    assert_eq!(results.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn a_full_disk_is_told_and_the_bag_goes_on_when_there_is_room() {
    use std::io::{BufRead, BufReader};
    use std::process::Stdio;
    let lab = Lab::new();
    lab.file(
        "full.toml",
        "[task.a]\ncommand = 'head -c 100000 /dev/zero | tr \"\\\\0\" x; echo; echo {n}'\n\
         grid = { n = { from = 1, to = 40 } }\n",
    );
    // A small disk of its own, which only processes below this one see.
    let script = "mkdir -p $MUTIRAO_HOME/bags && mount -t tmpfs -o size=6m none $MUTIRAO_HOME/bags || exit 99\n\
                  head -c 4000000 /dev/zero > $MUTIRAO_HOME/bags/.filler\n\
                  (read go; rm $MUTIRAO_HOME/bags/.filler) <&3 &\n\
                  $MUTIRAO_BIN bag run full.toml > out && $MUTIRAO_BIN bag check 1 && $MUTIRAO_BIN bag results 1 > results";
    let mut command = lab.command("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", &format!("exec 3<&0; {script}")]);
    command.current_dir(lab.path("")).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let mut heard = Vec::new();
    for line in said.by_ref() {
        let is_told = line.contains("nothing is lost");
        heard.push(line);
        if is_told {
            break;
        }
    }
    // The filler goes.
    drop(child.stdin.take());
    heard.extend(said);
    let ended = child.wait().unwrap();
    if heard.iter().any(|line| line.starts_with("unshare:") || line.starts_with("mount:")) {
        return eprintln!("left out: this user may not mount a file system of its own: {heard:?}");
    }
    assert!(heard.iter().any(|line| line.contains("no room for")), "{heard:?}");
    assert!(ended.success(), "{heard:?}");
    let numbers: Vec<String> =
        lines(&lab.path("results")).into_iter().filter(|line| !line.starts_with('x')).collect();
    let expected: Vec<String> = (1..=40).map(|n| n.to_string()).collect();
    assert_eq!(numbers, expected, "each once");
    assert_eq!(lines(&lab.path("out")).len(), 80, "and printed once");
}

#[test]
fn tasks_add_tasks_from_inside_and_commands_from_outside() {
    let lab = Lab::new();
    lab.file(
        "tree.toml",
        "[task.node]\ncommand = 'if [ {d} -lt 3 ]; then $MUTIRAO bag add d=$(({d}+1)); $MUTIRAO bag add d=$(({d}+1)); fi'\n\
         array = { d = [0] }\n[task.end]\ncommand = 'echo end'\nafter = ['node']\n",
    );
    run(&lab, &["run", "tree.toml"]).well();
    assert_eq!(done(&lab, "1"), 16);
    let complaint = run(&lab, &["add", "--like", "node", "d=1"]).complaint();
    assert!(complaint.contains("--to"), "{complaint}");
    run(&lab, &["add", "--to", "tree", "--like", "node", "d=2"]).well();
    run(&lab, &["add", "--to", "1", "--", "echo", "by hand"]).well();
    let said = run(&lab, &["resume", "1"]);
    assert!(said.out.contains("by hand"), "{} {}", said.out, said.err);
    assert_eq!(done(&lab, "1"), 20);
}

#[test]
fn a_submitted_bag_lives_on_and_takes_orders() {
    let lab = Lab::with_pool(2, 2);
    let gate = lab.path("gate");
    lab.file(
        "b.toml",
        format!(
            "[task.first]\ncommand = 'cat go'\ninputs = [{{ here = '{}', there = 'go' }}]\n\
             [task.then]\ncommand = 'sleep 60'\n[task.quick]\ncommand = 'echo quick'\ngrid = {{ n = [1, 2, 3] }}\n",
            gate.display()
        ),
    );
    let id = run(&lab, &["--node", "n1", "submit", "b.toml"]).well();
    let id = id.trim();
    lab.until("what can be done is done", || done(&lab, id) == 3);
    let shown = show(&lab, id);
    assert_eq!((&shown["state"], &task(&shown, "first.0")["state"]), (&"running".into(), &"failed".into()));
    assert_eq!(task(&shown, "first.0")["failure"]["kind"], "not-started");
    let why = run(&lab, &["explain", id, "first"]).well();
    assert!(why.contains("gate"), "{why}");
    std::fs::write(&gate, "gone\n").unwrap();
    run(&lab, &["retry", id, "failed"]).well();
    lab.until("it was tried again", || done(&lab, id) == 4);
    run(&lab, &["cancel", id, "then"]).well();
    let waited = run(&lab, &["wait", id]);
    assert_eq!(waited.code, Some(1), "one was cancelled: {}", waited.err);
    assert_eq!(run(&lab, &["results", id, "first"]).well(), "gone\n");
    lab.until("its slots are free again", || lab.free_slots() == 4);
}

/// The process that keeps the bag called `name`, as its node knows it.
fn keeper_pid(lab: &Lab, name: &str) -> Option<i32> {
    let apps = lab.rows(["apps"]);
    let app = apps.iter().find(|app| app["name"] == format!("bag-{name}"))?;
    app["pid"].as_i64().map(|pid| pid as i32)
}

#[test]
fn a_submitted_bag_is_kept_by_its_node_whatever_is_killed() {
    let lab = Lab::with_pool(1, 2);
    lab.file("k.toml", "[task.a]\ncommand = 'sleep 0.1; echo {n}'\ngrid = { n = { from = 1, to = 40 } }\n");
    let said = run(&lab, &["submit", "k.toml"]);
    assert!(said.err.contains("kept by `n1` alone"), "{}", said.err);
    let id = said.well();
    let id = id.trim();
    let keeper = || keeper_pid(&lab, "k");
    lab.until("some tasks are done", || done(&lab, id) >= 3);
    let first = keeper().unwrap();
    kill_process(first);
    lab.until("another keeper runs", || keeper().is_some_and(|pid| pid != first));
    let before = done(&lab, id);
    lab.until("tasks are done again", || done(&lab, id) > before);
    let second = keeper().unwrap();
    lab.kill("n1");
    kill_process(second);
    lab.until("nobody keeps it", || show(&lab, id)["state"] == "stopped");
    lab.run(["up", "--name", "n1", "--slots", "2"]).well();
    run(&lab, &["wait", id]);
    lab.until("all is done", || done(&lab, id) == 40);
    let results = run(&lab, &["results", id]).well();
    let expected: Vec<String> = (1..=40).map(|n| n.to_string()).collect();
    assert_eq!(results.lines().collect::<Vec<_>>(), expected, "each once");
}

/// The node that keeps the bag `m` as node `asked` knows it, and the keeper's process.
fn keeper_of_m(lab: &Lab, asked: &str) -> Option<(String, i32)> {
    let apps = lab.run(["--output", "json", "--node", asked, "apps"]).json();
    let app = apps.as_array().unwrap().iter().find(|app| app["name"] == "bag-m").cloned()?;
    Some((app["home"].as_str()?.to_owned(), app["pid"].as_i64()? as i32))
}

#[test]
fn a_bag_of_three_members_moves_on_when_its_keeper_is_lost_and_all_counts_once() {
    let lab = Lab::with_pool(3, 2);
    std::fs::write(lab.path("seed"), "7").unwrap();
    lab.file(
        "m.toml",
        "[task.a]\ncommand = 'sleep 0.3; cat seed > out; echo {n} >> out; echo {n}'\n\
         grid = { n = { from = 1, to = 60 } }\ninputs = ['seed']\n\
         outputs = [{ here = 'made/{n}', there = 'out' }]\n\
         [task.b]\ncommand = 'cat 1 60; echo end'\n\
         inputs = [{ here = 'made/1', there = '1' }, { here = 'made/60', there = '60' }]\nafter = ['a']\n",
    );
    let said = run(&lab, &["--node", "n1", "submit", "m.toml"]);
    assert!(said.err.contains("kept by `n1`, `n2` and `n3`"), "{}", said.err);
    let id = said.well();
    let id = id.trim();
    let home = |asked: &str| keeper_of_m(&lab, asked);
    lab.until("some tasks are done", || done(&lab, id) >= 4);
    let (first, keeper) = home("n2").unwrap();
    assert_eq!(first, "n1", "it was submitted there");
    lab.kill("n1");
    kill_process(keeper);
    // What the tasks need came along, and is needed no more where the bag was submitted.
    std::fs::remove_file(lab.path("seed")).unwrap();
    lab.until("another member keeps it", || home("n2").is_some_and(|(home, _)| home != "n1"));
    let there = home("n2").unwrap().0;
    let before = done(&lab, id);
    lab.run(["up", "--name", "n1", "--slots", "2", "--join", "n2"]).well();
    lab.until("it goes on, and the first hears of it", || done(&lab, id) > before);
    run(&lab, &["--node", "n1", "add", "--to", id, "--", "echo", "added"]).well();
    lab.until("all is done", || done(&lab, id) == 62);
    assert_eq!(home("n2").map_or(there.clone(), |(home, _)| home), there, "it stays where it is");
    for n in 1..=60 {
        lab.until("files are in their places", || {
            lines(&lab.path(&format!("made/{n}"))) == [format!("7{n}")]
        });
    }
    assert_eq!(std::fs::read_dir(lab.path("made")).unwrap().count(), 60, "and no attempt's own");
    let results = run(&lab, &["results", id]).well();
    let expected: Vec<String> = (1..=60).map(|n| n.to_string()).collect();
    let all: Vec<&str> = results.lines().collect();
    assert_eq!(all[..60], expected, "each once");
    assert_eq!(all[60..], ["71", "760", "end", "added"]);
    run(&lab, &["check", id]).well();
}

/// Three tasks run on three nodes when the keeper is lost, with its node or alone; then one of them on its node. They end
/// when the test says so. No worker acts as its user.
fn tasks_outlive_their_keeper(with_its_node: bool) {
    let lab = Lab::new();
    lab.settings("[files]\nown = false\n");
    lab.up_local(4, 1, &[]);
    lab.outlast_elections();
    let seconds = format!("{}{}", 1_000_000 + std::process::id(), u8::from(with_its_node));
    let first = if with_its_node { "n4" } else { "n1" };
    lab.file(
        "m.toml",
        format!(
            "nodes = ['{first}', 'n2', 'n3']\nscheduler = 'workqueue'\n\
             [task.a]\ncommand = 'echo $MUTIRAO_ATTEMPT; sleep {seconds}; echo end > out'\nrepeat = 3\n\
             outputs = [{{ here = 'made/{{repeat}}', there = 'out' }}]\n\
             [task.b]\ncommand = 'true'\nrepeat = 2\nafter = ['a']\n"
        ),
    );
    let id = run(&lab, &["--node", "n1", "submit", "m.toml"]).well();
    let id = id.trim();
    lab.until("all three run", || sleepers(&seconds).len() == 3);
    let began = sleepers(&seconds);
    // What counts comes after all that was said before: the next keeper knows what runs.
    run(&lab, &["cancel", id, "b.0"]).well();
    let (home, keeper) = keeper_of_m(&lab, "n2").unwrap();
    assert_eq!(home, "n1", "it was submitted there");
    if with_its_node {
        lab.kill("n1");
    }
    kill_process(keeper);
    lab.until("there is another keeper", || {
        keeper_of_m(&lab, "n2").is_some_and(|(_, process)| process != keeper)
    });
    if with_its_node {
        lab.run(["up", "--name", "n1", "--slots", "1", "--join", "n2"]).well();
    }
    assert_eq!(sleepers(&seconds), began, "nothing was ended, and nothing begun again");
    began.into_iter().for_each(kill_process);
    lab.until("all is done", || done(&lab, id) == 4);
    assert!(sleepers(&seconds).is_empty());
    let results = run(&lab, &["results", id, "a"]).well();
    let mut attempts: Vec<&str> = results.lines().collect();
    attempts.sort_unstable();
    assert_eq!(attempts, ["1", "2", "3"], "each ran once");
    for n in 1..=3 {
        lab.until("files are in their places", || lines(&lab.path(&format!("made/{n}"))) == ["end"]);
    }
    lab.until("the slots are free again", || lab.free_slots() == 4);
}

#[test]
fn tasks_that_run_go_on_when_the_node_of_their_keeper_is_lost_and_report_to_the_next() {
    tasks_outlive_their_keeper(true);
}

#[test]
fn tasks_that_run_go_on_when_their_keeper_is_killed_and_report_to_the_next() {
    tasks_outlive_their_keeper(false);
}

/// The processes of a bag's members on the second and third node.
fn other_members(lab: &Lab, id: &str) -> Vec<i32> {
    let kept = std::fs::read_to_string(lab.home().join("bags").join(id).join("kept.json")).unwrap();
    // Too large a number for a `Value`.
    let (_, rest) = kept.split_once("\"bag\": ").unwrap();
    let bag = format!("{:032x}", rest.split_once(',').unwrap().0.parse::<u128>().unwrap());
    let member = |entry: std::fs::DirEntry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let line = std::fs::read_to_string(entry.path().join("cmdline")).ok()?;
        let words: Vec<&str> = line.split('\0').collect();
        let is_it = words.contains(&"keeper") && words.contains(&&*bag) && !words.contains(&"n1");
        is_it.then_some(pid)
    };
    std::fs::read_dir("/proc").unwrap().flatten().filter_map(member).collect()
}

#[test]
fn a_result_that_came_and_did_not_count_waits_at_its_lender_for_the_next_keeper() {
    let lab = Lab::with_pool(4, 1);
    lab.outlast_elections();
    let seconds = format!("{}7", 1_000_000 + std::process::id());
    let next = format!("{}8", 1_000_000 + std::process::id());
    lab.file(
        "m.toml",
        format!(
            "nodes = ['n4']\n[task.a]\ncommand = 'echo $MUTIRAO_ATTEMPT; sleep {seconds}; true'\n\
             [task.b]\ncommand = 'true'\nafter = ['a']\n\
             [task.c]\ncommand = 'sleep {next}; true'\nafter = ['a']\n"
        ),
    );
    let said = run(&lab, &["--node", "n1", "submit", "m.toml"]);
    assert!(said.err.contains("kept by `n1`, `n2` and `n3`"), "{}", said.err);
    let id = said.well();
    let id = id.trim();
    lab.until("it runs", || sleepers(&seconds).len() == 1);
    run(&lab, &["cancel", id, "b"]).well();
    let (_, keeper) = keeper_of_m(&lab, "n2").unwrap();
    // Without these two nothing counts, and they never hear of the result from the keeper.
    let others = other_members(&lab, id);
    assert_eq!(others.len(), 2);
    lab.kill("n2");
    lab.kill("n3");
    others.into_iter().for_each(kill_process);
    sleepers(&seconds).into_iter().for_each(kill_process);
    lab.until("it is over", || lab::busy(&lab.rows(["ps"]), "n4") == 0);
    lab.kill("n1");
    kill_process(keeper);
    lab.run(["up", "--name", "n2", "--slots", "1", "--join", "n4"]).well();
    lab.run(["up", "--name", "n3", "--slots", "1", "--join", "n2"]).well();
    lab.until("its result counts, and what waits for it runs", || sleepers(&next).len() == 1);
    lab.run(["up", "--name", "n1", "--slots", "1", "--join", "n2"]).well();
    sleepers(&next).into_iter().for_each(kill_process);
    lab.until("all is done", || done(&lab, id) == 2);
    assert_eq!(run(&lab, &["results", id, "a"]).well(), "1\n", "it ran once");
}

/// The directory where a node that did not submit it keeps its part of the only bag.
fn member_directory(lab: &Lab, node: &str) -> PathBuf {
    let mut places = vec![lab.home().to_owned()];
    while let Some(place) = places.pop() {
        let is_it = place.join("member.json").exists() && place.iter().any(|part| part == node);
        if is_it {
            return place;
        }
        let entries = std::fs::read_dir(&place).into_iter().flatten().flatten();
        places.extend(entries.map(|entry| entry.path()).filter(|path| path.is_dir()));
    }
    panic!("{node} keeps no bag");
}

fn bytes_in(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |facts| facts.len())
}

#[test]
fn a_journal_of_three_is_cut_short_and_who_was_away_meanwhile_gets_the_whole_bag() {
    const WRITTEN: u64 = 150_000;
    let lab = Lab::with_pool(3, 2);
    lab.file(
        "m.toml",
        format!(
            "[task.a]\ncommand = 'head -c {WRITTEN} /dev/zero | tr \"\\\\0\" x; echo {{n}} > out'\n\
             grid = {{ n = {{ from = 1, to = 120 }} }}\noutputs = [{{ here = 'made/{{n}}', there = 'out' }}]\n\
             [task.b]\ncommand = 'sleep 600'\n"
        ),
    );
    let said = run(&lab, &["--node", "n1", "submit", "m.toml"]);
    assert!(said.err.contains("kept by `n1`, `n2` and `n3`"), "{}", said.err);
    let id = said.well();
    let id = id.trim();
    lab.until("some tasks are done", || done(&lab, id) >= 3);
    let (_, keeper) = keeper_of_m(&lab, "n2").unwrap();
    lab.kill("n1");
    kill_process(keeper);
    let there = member_directory(&lab, "n2");
    lab.until("the others do all the rest", || bytes_in(&there.join("outputs")) >= 120 * WRITTEN);
    // Of what tasks have written the latest 2 MiB at most stay in the log when it is cut, at 8 MiB.
    lab.until("their journals are cut", || bytes_in(&there.join("shared")) < 9 << 20);
    lab.until("the others are asked", || done(&lab, id) == 120);

    lab.run(["up", "--name", "n1", "--slots", "2", "--join", "n2"]).well();
    lab.until("the first has it all again", || done(&lab, id) == 120);
    let own = lab.home().join("bags").join(id);
    assert!(bytes_in(&own.join("shared")) < 9 << 20, "and not by every entry");
    for n in 1..=120 {
        lab.until("files are in their places", || lines(&lab.path(&format!("made/{n}"))) == [n.to_string()]);
    }
    let results = run(&lab, &["results", id, "a"]).well();
    assert_eq!(results.len() as u64, 120 * WRITTEN, "each once");

    // With one of the two others it goes on: it counts as a member.
    let (home, _) = keeper_of_m(&lab, "n1").unwrap();
    lab.kill(if home == "n2" { "n3" } else { "n2" });
    run(&lab, &["--node", "n1", "add", "--to", id, "--", "echo", "added"]).well();
    lab.until("what was added is done", || done(&lab, id) == 121);
    run(&lab, &["check", id]).well();
    run(&lab, &["--node", "n1", "cancel", id, "b"]).well();
    run(&lab, &["wait", id]);
    assert!(run(&lab, &["results", id]).well().ends_with("added\n"));
}

#[test]
fn files_that_nodes_agree_on_come_to_where_the_bag_was_submitted_though_another_keeps_it() {
    let lab = Lab::with_pool(3, 2);
    lab.file(
        "m.toml",
        "[results]\naccept = 'majority of 2'\n\
         [task.a]\ncommand = 'sleep 1; echo {n} > out'\ngrid = { n = { from = 1, to = 20 } }\n\
         outputs = [{ here = 'made/{n}', there = 'out' }]\n",
    );
    let said = run(&lab, &["--node", "n1", "submit", "m.toml"]);
    assert!(said.err.contains("kept by `n1`, `n2` and `n3`"), "{}", said.err);
    let id = said.well();
    let id = id.trim();
    let keeper = |asked: &str| keeper_of_m(&lab, asked);
    lab.until("some tasks are done", || done(&lab, id) >= 2);
    let (_, process) = keeper("n2").unwrap();
    lab.kill("n1");
    kill_process(process);
    lab.until("another member keeps it", || keeper("n2").is_some_and(|(home, _)| home != "n1"));
    lab.run(["up", "--name", "n1", "--slots", "2", "--join", "n2"]).well();
    lab.until("all is done", || done(&lab, id) == 20);
    for n in 1..=20 {
        lab.until("files are in their places", || lines(&lab.path(&format!("made/{n}"))) == [n.to_string()]);
    }
    // Its members stay for a while, and then nobody runs it.
    lab.until("it is removed", || {
        let removed = run(&lab, &["rm", id]);
        removed.code == Some(0) || {
            eprintln!("{}", removed.err);
            false
        }
    });
    assert_ne!(run(&lab, &["show", id]).code, Some(0));
}

#[test]
fn a_task_starts_when_what_those_before_it_bring_is_in_its_place() {
    const TASKS: usize = 60;
    let lab = Lab::with_pool(3, 1);
    let solve = format!(
        "[task.solve]\ncommand = 'echo {{repeat}} > out'\nrepeat = {TASKS}\n\
         outputs = [{{ here = 'results/{{repeat}}', there = 'out' }}]\n[task.join]\ncommand = 'cat results/* > all'\n"
    );
    let mut expected: Vec<String> = (1..=TASKS).map(|number| number.to_string()).collect();
    expected.sort();
    // Where the bag was submitted it sees the directory; elsewhere what is brought to it.
    let sees = format!("nodes = ['n1']\n{solve}after = ['solve']\n");
    let gets = format!("nodes = ['n2']\n{solve}inputs = ['@solve']\noutputs = ['all']\n");
    for (file, remarks, rounds) in [(sees, true, 5), (gets, false, 1)] {
        for round in 0..rounds {
            lab.file("join.toml", &file);
            let said = run(&lab, &["--node", "n1", "submit", "join.toml"]);
            assert_eq!(said.err.contains("inputs = [\"@solve\"]"), remarks, "{}", said.err);
            let id = said.well();
            lab.until("all is done", || done(&lab, id.trim()) == TASKS as u64 + 1);
            lab.until("what it brings is there", || lab.path("all").exists());
            let mut found = lines(&lab.path("all"));
            found.sort();
            assert_eq!(found, expected, "round {round}");
            std::fs::remove_dir_all(lab.path("results")).unwrap();
            std::fs::remove_file(lab.path("all")).unwrap();
        }
    }
}

#[test]
fn a_node_that_no_node_is_called_is_said() {
    let lab = Lab::with_pool(1, 1);
    lab.file("a.toml", "nodes = ['nosuch']\n[task.a]\ncommand = 'true'\n");
    let id = run(&lab, &["submit", "a.toml"]).well();
    let why = "no node of the pool is called `nosuch`";
    lab.until("it is said", || show(&lab, id.trim())["waits"][0]["why"] == why);
    run(&lab, &["cancel", id.trim(), "all"]).well();
}

#[test]
fn a_node_that_is_killed_costs_only_what_ran_there() {
    let lab = Lab::with_pool(3, 2);
    lab.file(
        "n.toml",
        "slots_max = 6\n[task.a]\ncommand = 'sleep 0.2; echo {n}'\ngrid = { n = { from = 1, to = 60 } }\n",
    );
    let id = run(&lab, &["--node", "n1", "submit", "n.toml"]).well();
    let id = id.trim();
    lab.until("some tasks are done", || done(&lab, id) >= 6);
    lab.kill("n3");
    run(&lab, &["wait", id]).well();
    let results = run(&lab, &["results", id]).well();
    let expected: Vec<String> = (1..=60).map(|n| n.to_string()).collect();
    assert_eq!(results.lines().collect::<Vec<_>>(), expected, "each once");
}

#[test]
fn an_ipar_application_prepares_splits_and_joins() {
    use std::os::unix::fs::PermissionsExt;
    let lab = Lab::new();
    let app = lab.file(
        "soma",
        "#!/bin/sh\ncase \"$2\" in\n\
         inicia) \"$MUTIRAO\" bag report \"$1\" lista 1 split 3 flaky;;\n\
         executa)\n  case \"$4\" in\n\
           split) \"$MUTIRAO\" bag report \"$1\" lista 20 21;;\n\
           flaky) [ \"$MUTIRAO_ATTEMPT\" -gt 8 ] && \"$MUTIRAO\" bag report \"$1\" tarefa \"$3\" ok || exit 0;;\n\
           *) echo \"task $3 is $4\"; \"$MUTIRAO\" bag report \"$1\" tarefa \"$3\" ok;;\n  esac;;\n\
         finaliza) echo joined; \"$MUTIRAO\" bag report \"$1\" finaliza ok;;\nesac\n",
    );
    std::fs::set_permissions(&app, std::fs::Permissions::from_mode(0o755)).unwrap();
    let nowhere = run(&lab, &["report", "x", "tarefa", "1", "ok"]);
    assert!(nowhere.complaint().contains("x is no place to report to"));
    assert!(!lab.path("x").exists());
    let said = run(&lab, &["ipar", "--app", "./soma", "--retries", "9"]);
    assert!(!said.err.contains("tasks run on"), "{}", said.err);
    let out = said.well();
    let mut printed: Vec<&str> = out.lines().collect();
    assert_eq!(printed.pop(), Some("joined"));
    printed.sort_unstable();
    assert_eq!(printed, ["task 0 is 1", "task 2 is 3", "task 4 is 20", "task 5 is 21"]);
    let list = lines(&lab.path("soma.tasks"));
    assert!(list[0].contains("8 tasks, 8 done"), "{list:?}");
    assert!(list.contains(&"1\tdone\tsplit".to_owned()), "{list:?}");
}

#[test]
fn an_ipar_application_in_c_reports_with_the_calls_of_its_header() {
    // One node, that of the files: the application shares its parts through them.
    let lab = Lab::with_pool(1, 2);
    let app = lab.compile("ipar_sum");
    let said = run(&lab, &["--node", "n1", "ipar", "--app", app.to_str().unwrap()]);
    assert_eq!(said.well(), "500000500000 in 8 parts\n");
    let list = lines(&lab.path("ipar_sum.tasks"));
    assert!(list[0].contains("14 tasks, 14 done"), "{list:?}");
}

/// Compiles the Java example, its sources as `edit` makes them; `false`, with a word, where there is no Java.
fn compile_java(lab: &Lab, into: &str, edit: impl Fn(String) -> String) -> bool {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let sources = ["examples/java/Soma.java", "contrib/ipar-java/InterfaceGerente.java"].map(|source| {
        let text = edit(std::fs::read_to_string(root.join(source)).unwrap());
        lab.file(source.rsplit('/').next().unwrap(), text)
    });
    match Command::new("javac").arg("-d").arg(lab.path(into)).args(sources).output() {
        Err(error) => eprintln!("skipped: there is no Java here ({error})"),
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            return true;
        }
    }
    false
}

#[test]
fn an_ipar_application_in_java_runs_as_it_is() {
    let lab = Lab::new();
    let classes = compile_java(&lab, "classes", |source| source);
    let packed = compile_java(&lab, "packed", |source| format!("package ufsc.soma; {source}"));
    if !(classes && packed) {
        return;
    }
    let jar = ["--create", "--file", "soma.jar", "--main-class", "ufsc.soma.Soma", "-C", "packed", "."];
    assert!(Command::new("jar").args(jar).current_dir(lab.path("")).status().unwrap().success());
    for app in ["classes/Soma.class", "soma.jar"] {
        let out = run(&lab, &["ipar", "--app", app]).well();
        let mut printed: Vec<&str> = out.lines().collect();
        assert_eq!(printed.pop(), Some("joined"));
        printed.sort_unstable();
        assert_eq!(printed, ["task 0 is 1", "task 2 is 5", "task 3 is 2", "task 4 is 3", "task 5 is 4"]);
    }
}

#[test]
fn a_node_that_lies_is_found_and_its_results_are_done_again() {
    let lab = Lab::with_pool(3, 1);
    // What the task runs is not the same everywhere: on one machine it is wrong.
    lab.file(
        "liar.toml",
        "slots_max = 3\n[results]\nspot_checks = 0.9\n\
         [task.square]\ncommand = 'sleep 0.05; case $PWD in */n3/*) echo 7;; *) echo $(({n} * {n}));; esac'\n\
         grid = { n = { from = 1, to = 20 } }\nknown = [{ values = { n = 12 }, stdout = \"144\\n\" }]\n",
    );
    let said = run(&lab, &["--node", "n1", "run", "liar.toml"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(said.err.contains("n3 gave a wrong answer"), "{}", said.err);
    let results = run(&lab, &["results", "1"]).well();
    let squares: Vec<String> = (1..=20).map(|n| (n * n).to_string()).collect();
    assert_eq!(results.lines().collect::<Vec<_>>(), squares);
    let shown = show(&lab, "1");
    assert_eq!(shown["lying_nodes"], serde_json::json!(["n3"]));
    // What was learnt holds for the next bag, until it is forgotten.
    let known = run(&lab, &["nodes", "--output", "json"]).json();
    let of = |name: &str| known.as_array().unwrap().iter().find(|row| row["node"] == name).unwrap().clone();
    assert_eq!((&of("n3")["state"], &of("n3")["failed"]), (&"lies".into(), &1.into()));
    run(&lab, &["--node", "n1", "run", "liar.toml", "--accept", "majority of 3", "--spot-checks", "0"])
        .well();
    let shown = show(&lab, "2");
    let rows = shown["task"].as_array().unwrap();
    assert!(rows.iter().all(|row| row["result"]["node"] != "n3" && row["agreed"] == 2), "{shown}");
    run(&lab, &["nodes", "--forget", "n3"]).well();
    assert!(!run(&lab, &["nodes"]).well().contains("n3"));
}

#[test]
fn tasks_for_which_there_is_no_slot_say_why_and_do_not_keep_others_from_theirs() {
    let lab = Lab::with_pool(2, 1);
    lab.file(
        "big.toml",
        "[task.big]\ncommand = 'true'\ncores = 8\nrepeat = 5\n[task.small]\ncommand = 'echo small'\n\
         [task.odd]\ncommand = ['./odd']\n",
    );
    let odd = lab.file("odd", "#!/no/interpreter\n");
    std::fs::set_permissions(&odd, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let id = run(&lab, &["--node", "n1", "submit", "big.toml"]).well();
    let id = id.trim();
    lab.until("the small one is done", || done(&lab, id) == 1);
    lab.until("the large ones say why", || {
        run(&lab, &["explain", id, "big.0"]).well().contains("no node has 8 slots")
    });
    let shown = show(&lab, id);
    assert_eq!(shown["waits"][0]["needs"], "8 slots");
    lab.until("it is known why the odd one failed", || {
        let why = run(&lab, &["explain", id, "odd"]).well();
        why.contains("first line wants `/no/interpreter`")
    });
    assert!(run(&lab, &["rm", id]).complaint().contains("is run by another process"));
    assert!(
        run(&lab, &["retry", id, "set-aside"]).err.contains("0 tasks"),
        "there is none, which is no mistake"
    );
    run(&lab, &["cancel", id, "big"]).well();
    assert_eq!(run(&lab, &["wait", id]).code, Some(1));
    let rows = run(&lab, &["ls"]).well();
    let row: Vec<&str> = rows.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row[2..7], ["failed", "7", "1", "1", "5"], "{rows}");
    lab.until("its keeper has ended", || run(&lab, &["rm", id]).code == Some(0));
    assert_eq!(run(&lab, &["ls"]).well().lines().count(), 1);
}

#[test]
fn commands_added_from_outside_have_names_of_their_own_and_a_damaged_beginning_is_told() {
    let lab = Lab::new();
    lab.file("a.toml", "[task.a]\ncommand = 'true'\n[task.b]\ncommand = 'cat x'\ninputs = ['x']\n");
    let said = run(&lab, &["run", "a.toml"]);
    assert!(said.err.contains("task b.0 wants `x`, which is not there"), "{}", said.err);
    for word in ["one", "two", "one"] {
        run(&lab, &["add", "--to", "1", "--", "echo", word]).well();
    }
    let shown = show(&lab, "1");
    let names: Vec<&str> =
        shown["task"].as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["a.0", "b.0", "added.0", "added-3.0", "added.1"]);
    assert!(run(&lab, &["rm", "1"]).complaint().contains("is not over"));
    let journal = lab.home().join("bags/1/journal");
    let mut bytes = std::fs::read(&journal).unwrap();
    bytes[20] ^= 0xff;
    std::fs::write(&journal, bytes).unwrap();
    let complaint = run(&lab, &["resume", "1"]).complaint();
    assert!(complaint.contains("journal.damaged") && complaint.contains("bag rm"), "{complaint}");
    run(&lab, &["rm", "1", "--unfinished"]).well();
}

#[test]
fn a_number_stays_that_of_one_bag_though_it_is_removed() {
    let lab = Lab::with_pool(1, 1);
    lab.file("t.toml", "[task.a]\ncommand = 'true'\n");
    let removed = || {
        let id = run(&lab, &["submit", "t.toml"]).well().trim().to_owned();
        lab.until("it is over and gone", || run(&lab, &["rm", &id]).code == Some(0));
        id
    };
    assert_eq!([removed(), removed()], ["1", "2"]);
    run(&lab, &["run", "t.toml"]).well();
    assert!(lab.home().join("bags/3").exists() && !lab.home().join("bags/2").exists());
}
