//! Large files of bags on their way, when whoever sends, fetches or keeps them goes, or has no room.

mod lab;

use lab::{Lab, Running, Said, kill_process, sum};

const MIB: u64 = 1 << 20;
/// What is on its way: so much that it takes a while.
const LARGE: u64 = 80 * MIB;
/// So much of it has come when something happens.
const SOME: u64 = 4 * MIB;

fn run(lab: &Lab, args: &[&str]) -> Said {
    lab.spawn(lab.bag(args)).wait()
}

/// A command that writes so many bytes, of which no two MiB are the same.
fn lines(bytes: u64) -> String {
    format!("seq 100000000 | head -c {bytes}")
}

/// Such a file in the lab; its sum.
fn large(lab: &Lab, name: &str, bytes: u64) -> String {
    let script = format!("{} > {name}", lines(bytes));
    let mut command = lab.command("sh");
    command.args(["-c", &script]).current_dir(lab.path(""));
    lab.spawn(command).wait().well();
    sum(&lab.path(name))
}

/// A pool of so many nodes with a slot each, in which those behind the first have the program.
fn pool(nodes: u16) -> Lab {
    let lab = Lab::with_pool(nodes, 1);
    let names: Vec<String> = (2..=nodes).map(|node| format!("'n{node}'")).collect();
    let repeat = names.len();
    let text = format!("nodes = [{}]\n[task.a]\ncommand = 'sleep 1'\nrepeat = {repeat}\n", names.join(", "));
    lab.file("before.toml", text);
    let everywhere = || lab.rows(["plugin", "ls"]).iter().filter(|row| row["kept"] == true).count() > repeat;
    lab.until("each node has the program", || {
        run(&lab, &["--node", "n1", "run", "before.toml"]).well();
        everywhere()
    });
    lab
}

/// Submits the bag `m` at `n1`, to be kept by `n1`, `n2` and `n3`; its number, and the process of its keeper.
fn submit(lab: &Lab) -> (String, i32) {
    let said = run(lab, &["--node", "n1", "submit", "m.toml", "--members", "n1,n2,n3"]);
    assert!(said.err.contains("kept by `n1`, `n2` and `n3`"), "{}", said.err);
    let id = said.well().trim().to_owned();
    let mut keeper = None;
    lab.until("it has a keeper", || {
        let apps = lab.rows(["apps"]);
        let app = apps.iter().find(|app| app["name"] == "bag-m" && app["home"] == "n1");
        keeper = app.and_then(|app| app["pid"].as_i64());
        keeper.is_some()
    });
    (id, keeper.unwrap() as i32)
}

fn done(lab: &Lab, id: &str) -> u64 {
    let shown = run(lab, &["show", id, "--output", "json"]).json();
    shown["counts"]["done"].as_u64().unwrap()
}

/// Waits until a node has taken in some of what is on its way.
fn until_some_came(lab: &Lab, node: &str, before: u64) {
    lab.until("some has come", || lab.written(node) > before + SOME);
}

/// The one of these nodes on which a task runs.
fn busy<'a>(lab: &Lab, nodes: &[&'a str]) -> &'a str {
    let rows = lab.nodes();
    let is_busy = |name: &&&str| rows.iter().any(|row| row["name"] == **name && row["slots_free"] == 0);
    nodes.iter().find(is_busy).expect("a task runs")
}

fn has_leftovers(lab: &Lab) -> bool {
    let names = std::fs::read_dir(lab.path("")).unwrap().map(|entry| entry.unwrap().file_name());
    names.into_iter().any(|name| name.to_string_lossy().contains(".bag-"))
}

#[test]
fn a_large_output_comes_through_three_nodes_and_is_made_once_though_the_keeper_is_lost_meanwhile() {
    let lab = pool(4);
    lab.outlast_elections();
    let right = large(&lab, "right", LARGE);
    lab.file(
        "m.toml",
        format!(
            "nodes = ['n4']\n[task.make]\ncommand = '{} > out; echo $MUTIRAO_ATTEMPT'\n\
             outputs = [{{ here = 'made/out', there = 'out' }}]\n\
             [task.read]\ncommand = 'sha256sum < made/out | cut -d\" \" -f1'\ninputs = ['made/out']\nafter = ['make']\n",
            lines(LARGE)
        ),
    );
    let (id, keeper) = submit(&lab);
    let journal = lab.home().join("bags").join(&id).join("shared");
    lab.until("some of it is in the journal", || {
        std::fs::metadata(&journal).is_ok_and(|facts| facts.len() > SOME)
    });
    assert_eq!(done(&lab, &id), 0);
    lab.kill("n1");
    kill_process(keeper);
    lab.until("others go on", || done(&lab, &id) == 2);
    lab.run(["up", "--name", "n1", "--slots", "1", "--join", "n2"]).well();
    let made = lab.path("made/out");
    lab.until("it is where it belongs", || made.exists());
    assert_eq!(sum(&made), right);
    lab.until("all is known there", || done(&lab, &id) == 2);
    assert_eq!(run(&lab, &["results", &id]).well(), format!("1\n{right}\n"));
    assert_eq!(std::fs::read_dir(lab.path("made")).unwrap().count(), 1, "and no attempt's own");
}

#[test]
fn an_input_on_its_way_when_the_keeper_is_lost_comes_from_the_next() {
    let lab = pool(4);
    lab.outlast_elections();
    let right = large(&lab, "big", 24 * MIB);
    lab.file(
        "m.toml",
        "nodes = ['n4']\n[task.a]\ncommand = 'sha256sum < big | cut -d\" \" -f1'\ninputs = ['big']\n\
         [task.long]\ncommand = 'sleep 600'\nafter = ['a']\n",
    );
    let before = lab.written("n4");
    let (id, keeper) = submit(&lab);
    until_some_came(&lab, "n4", before);
    lab.kill("n1");
    kill_process(keeper);
    lab.until("it is done", || done(&lab, &id) == 1);
    assert_eq!(run(&lab, &["results", &id]).well(), format!("{right}\n"));
}

#[test]
fn a_node_that_is_lost_with_a_file_on_its_way_costs_an_attempt_and_leaves_nothing() {
    let lab = pool(4);
    let right = large(&lab, "big", LARGE);
    let bag = |text: String| -> Running {
        lab.file(
            "m.toml",
            format!("nodes = ['n2', 'n3', 'n4']\nscheduler = 'workqueue'\n[task.a]\n{text}\n"),
        );
        lab.spawn(lab.bag(&["--node", "n1", "run", "m.toml"]))
    };
    let before = ["n2", "n3", "n4"].map(|node| (node, lab.written(node)));
    let running = bag("command = 'sha256sum < big | cut -d\" \" -f1'\ninputs = ['big']".into());
    let mut lost = None;
    lab.until("an input is on its way", || {
        lost = before.iter().find(|(node, before)| lab.written(node) > before + SOME).map(|(node, _)| *node);
        lost.is_some()
    });
    let lost = lost.unwrap();
    lab.kill(lost);
    assert_eq!(running.wait().well(), format!("{right}\n"));

    let others: Vec<&str> = before.iter().map(|(node, _)| *node).filter(|node| *node != lost).collect();
    let before = lab.written("n1");
    let running = bag(format!("command = '{} > out'\noutputs = ['out']", lines(LARGE)));
    until_some_came(&lab, "n1", before);
    lab.kill(busy(&lab, &others));
    running.wait().well();
    assert_eq!(sum(&lab.path("out")), right);
    assert!(!has_leftovers(&lab));
}

#[test]
fn a_lender_without_room_for_an_input_says_so_and_the_task_can_be_tried_again() {
    let Some(lab) = Lab::with_small_cache("900m") else { return };
    let beside = |script: &str| lab.beside_small_cache(script);
    let right = large(&lab, "big", LARGE);
    let head = "nodes = ['n2']\n[task.a]\n";
    lab.file("before.toml", format!("{head}command = 'true'\n"));
    run(&lab, &["--node", "n1", "run", "before.toml"]).well();
    beside("cd $0 && head -c $(($(df -B1 --output=avail . | tail -1) - 50000000)) /dev/zero > .filler");
    let before: u64 = beside("df -B1 --output=avail $0 | tail -1").trim().parse().unwrap();
    lab.file("m.toml", format!("{head}command = 'sha256sum < big | cut -d\" \" -f1'\ninputs = ['big']\n"));
    assert_eq!(run(&lab, &["--node", "n1", "run", "m.toml"]).code, Some(1));
    let why = run(&lab, &["explain", "m", "a"]).well();
    assert!(why.contains("big") && why.contains("is full"), "{why}");
    let left: u64 = beside("df -B1 --output=avail $0 | tail -1").trim().parse().unwrap();
    assert!(left + MIB > before, "{left} bytes of {before} are left");
    beside("rm $0/.filler");
    run(&lab, &["retry", "m", "failed"]).well();
    assert_eq!(run(&lab, &["--node", "n1", "resume", "m"]).well(), format!("{right}\n"));
}
