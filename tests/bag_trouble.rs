//! Bags of three members in trouble: machines come back at other addresses, journals are damaged, disks are full.

mod lab;

use lab::{Lab, Said, kill_process};
use mutirao_bag::Record;
use mutirao_replica::Line;
use mutirao_store::{Journal, read_journal};
use serde_json::Value;
use std::path::{Path, PathBuf};

fn run(lab: &Lab, args: &[&str]) -> Said {
    lab.spawn(lab.bag(args)).wait()
}

fn show(lab: &Lab, id: &str) -> Value {
    run(lab, &["show", id, "--output", "json"]).json()
}

fn done(lab: &Lab, id: &str) -> u64 {
    show(lab, id)["counts"]["done"].as_u64().unwrap()
}

/// Submits the bag `m` at `n2`, to be kept by `n2`, `n3` and `n4`.
fn submit(lab: &Lab) -> String {
    let mut command = lab.bag(&["submit", "m.toml", "--members", "n2,n3,n4"]);
    command.env("MUTIRAO_NODE", "n2");
    let said = lab.spawn(command).wait();
    assert!(said.err.contains("kept by `n2`, `n3` and `n4`"), "{}", said.err);
    said.well().trim().to_owned()
}

/// A pool whose nodes `n2` to `n4` keep the bag `m`: so many tasks of it are done, by `n1`, and one runs on.
fn with_tasks_done(count: u64) -> (Lab, String) {
    let lab = Lab::with_pool(4, 1);
    let text = format!(
        "nodes = ['n1']\n[task.a]\ncommand = 'echo {{n}}'\ngrid = {{ n = {{ from = 1, to = {count} }} }}\n\
         [task.long]\ncommand = 'sleep 600'\n"
    );
    lab.file("m.toml", &text);
    let id = submit(&lab);
    lab.until("what can be done is done", || done(&lab, &id) == count);
    (lab, id)
}

/// The node that keeps the bag, as the root knows it.
fn keeper(lab: &Lab) -> Option<String> {
    let apps = lab.rows(["apps"]);
    let app = apps.iter().find(|app| app["name"] == "bag-m")?;
    app["home"].as_str().map(str::to_owned)
}

/// The process of the only bag's member on a node.
fn member(node: &str, home: &Path) -> Option<i32> {
    let is_it = |pid: &i32| {
        let words = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<&str> = words.split('\0').collect();
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let here = format!("MUTIRAO_HOME={}", home.display());
        words.windows(3).any(|words| words == ["--node", node, "keeper"])
            && environment.split(|byte| *byte == 0).any(|variable| variable == here.as_bytes())
    };
    let names = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.file_name());
    names.filter_map(|name| name.to_str()?.parse().ok()).find(is_it)
}

/// Kills a node with its member of the bag, and waits until both are gone.
fn kill(lab: &Lab, node: &str) {
    let process = member(node, lab.home());
    lab.kill(node);
    process.into_iter().for_each(kill_process);
    lab.until("its member is gone", || member(node, lab.home()).is_none());
}

#[test]
fn members_that_come_back_at_other_addresses_find_each_other() {
    let (lab, _id) = with_tasks_done(3);
    // Both below the root, which keeps nothing: neither hears of the other from the tree.
    for node in ["n3", "n4"] {
        kill(&lab, node);
    }
    for node in ["n3", "n4"] {
        lab.run(["up", "--name", node, "--slots", "1", "--join", "n1"]).well();
    }
    lab.until("their members are back", || {
        ["n3", "n4"].iter().all(|node| member(node, lab.home()).is_some())
    });
    // Where it was submitted nobody tells them of each other any more.
    kill(&lab, "n2");
    lab.until("one of them keeps it", || keeper(&lab).is_some_and(|node| node != "n2"));
}

#[test]
fn who_waits_hears_how_the_bag_ended_and_can_remove_it_at_once() {
    let lab = Lab::with_pool(4, 1);
    lab.file(
        "m.toml",
        "[task.a]\ncommand = 'true'\nrepeat = 4\n[task.b]\ncommand = 'exit 3'\nafter = ['a']\n",
    );
    for _ in 0..5 {
        let id = submit(&lab);
        let waited = run(&lab, &["wait", &id]);
        assert_eq!(waited.code, Some(1), "{}", waited.err);
        let shown = show(&lab, &id);
        assert_eq!((&shown["state"], &shown["counts"]["failed"]), (&"failed".into(), &1.into()));
        run(&lab, &["rm", &id]).well();
    }
}

#[test]
fn results_that_cannot_be_put_in_their_places_are_told_of_and_stay() {
    let lab = Lab::with_pool(4, 1);
    let outputs = "outputs = [{ here = 'made/{n}', there = 'out' }]";
    lab.file(
        "m.toml",
        format!("[task.a]\ncommand = 'echo {{n}} > out'\n{outputs}\ngrid = {{ n = [1, 2, 3] }}\n"),
    );
    lab.file("made", "a file where the directory is to be");
    let id = submit(&lab);
    let told = "the files of 3 results are not in their places";
    let waited = run(&lab, &["wait", &id]);
    assert_eq!(waited.code, Some(1));
    assert!(waited.err.contains(told), "{}", waited.err);
    assert!(run(&lab, &["show", &id]).well().contains(told));
    assert_eq!(show(&lab, &id)["unplaced"]["results"], 3);
    let complaint = run(&lab, &["rm", &id]).complaint();
    assert!(complaint.contains(told) && complaint.contains("--unfinished"), "{complaint}");

    std::fs::remove_file(lab.path("made")).unwrap();
    lab.until("they are placed", || show(&lab, &id)["unplaced"].is_null());
    let made = [1, 2, 3].map(|n| std::fs::read_to_string(lab.path(&format!("made/{n}"))).unwrap());
    assert_eq!(made, ["1\n", "2\n", "3\n"]);
    run(&lab, &["wait", &id]).well();
    run(&lab, &["rm", &id]).well();
}

#[test]
fn where_the_node_is_down_a_bag_was_submitted_at_the_others_are_asked() {
    let (lab, id) = with_tasks_done(2);
    let waits = lab.spawn(lab.bag(&["--node", "n3", "wait", &id]));
    kill(&lab, "n2");
    lab.until("another keeps it", || {
        let said = run(&lab, &["--node", "n3", "cancel", &id, "long"]);
        said.code == Some(0) && said.err.contains("1 task cancelled")
    });
    assert_eq!(waits.wait().code, Some(1), "one was cancelled");
    lab.until("it is over there", || run(&lab, &["--node", "n3", "show", &id]).out.contains("is cancelled"));
    // Nobody of whom could be asked.
    let waited = run(&lab, &["--node", "n2", "wait", &id]);
    assert_eq!(waited.code, Some(3));
    assert!(waited.err.contains("`n2` of this machine does not run"), "{}", waited.err);
}

/// Where a node keeps its part of the only bag.
fn directory(lab: &Lab, node: &str) -> PathBuf {
    let bags = lab.home().join("nodes").join(node).join("bags");
    std::fs::read_dir(bags).unwrap().flatten().next().expect("it keeps a bag").path()
}

/// What each member says of its journal.
fn check(lab: &Lab, id: &str) -> (Option<i32>, Vec<Value>) {
    let said = run(lab, &["check", id, "--output", "json"]);
    let value: Value =
        serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}: {}", said.err));
    (said.code, value["members"].as_array().unwrap().clone())
}

#[test]
fn a_member_whose_journal_is_damaged_takes_what_it_lacks_from_the_others() {
    let (lab, id) = with_tasks_done(30);
    let there = directory(&lab, "n3");
    let (journal, damaged, mended) =
        (there.join("shared"), there.join("shared.damaged"), there.join("shared.mended"));
    let origin = lab.home().join("bags").join(&id);
    type Harm = fn(&mut Vec<u8>);
    let harms: [(&str, Harm); 5] = [
        ("a bit in the middle", |bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        }),
        ("its head", |bytes| bytes[3] ^= 0xff),
        ("all of it is gone", Vec::clear),
        ("the length of its first line", |bytes| bytes[18] ^= 0x20),
        // As if an earlier copy of the disk had been brought back.
        ("the latter half is gone", |bytes| bytes.truncate(bytes.len() / 2)),
    ];
    for (what, harm) in harms {
        kill(&lab, "n3");
        let mut bytes = std::fs::read(&journal).unwrap();
        harm(&mut bytes);
        std::fs::write(&journal, bytes).unwrap();
        let (code, members) = check(&lab, &id);
        assert_eq!(code, Some(0), "{what}: nothing is known of it: {members:?}");
        assert!(members[1]["silent"].is_string(), "{what}: {members:?}");
        lab.run(["up", "--name", "n3", "--slots", "1", "--join", "n1"]).well();
        lab.until(&format!("{what}: it has all again"), || mended.exists() && !damaged.exists());
        lab.until("all have the same", || {
            let (code, members) = check(&lab, &id);
            code == Some(0)
                && members[1]["was_damaged"] == true
                && members[1]["counts"] == members[0]["counts"]
        });
        let outputs = |place: &Path| std::fs::read(place.join("outputs")).unwrap();
        assert!(outputs(&there) == outputs(&origin), "{what}: what tasks have written is another");
        let log = std::fs::read_to_string(there.join("log")).unwrap();
        assert!(log.contains("was damaged") && log.contains("has all again"), "{what}: {log}");
        std::fs::remove_file(&mended).unwrap();
    }

    // It counts as a member: with it and one other the bag goes on.
    kill(&lab, "n2");
    lab.until("one of the others keeps it", || keeper(&lab).is_some_and(|node| node != "n2"));
}

#[test]
fn a_damaged_member_waits_for_both_others_and_check_says_so() {
    let (lab, id) = with_tasks_done(1);
    kill(&lab, "n3");
    kill(&lab, "n4");
    let there = directory(&lab, "n3");
    let bytes = std::fs::read(there.join("shared")).unwrap();
    std::fs::write(there.join("shared"), &bytes[..0]).unwrap();
    lab.run(["up", "--name", "n3", "--slots", "1", "--join", "n1"]).well();
    lab.until("it is said", || {
        let (code, members) = check(&lab, &id);
        let says = |row: &Value| row["lacks"].as_str().is_some_and(|text| text.contains("shared.damaged"));
        code == Some(1) && says(&members[1]) && members[0]["whole"] == true
    });
    let text = run(&lab, &["check", &id]).out;
    assert!(text.contains("on `n3`") && text.contains("has no vote until then"), "{text}");
    lab.run(["up", "--name", "n4", "--slots", "1", "--join", "n1"]).well();
    lab.until("it has all again", || check(&lab, &id).0 == Some(0));
    lab.until("the bag goes on", || keeper(&lab).is_some());
}

#[test]
fn a_bag_that_has_begun_on_one_machine_stays_there_with_its_results() {
    let lab = Lab::with_pool(3, 1);
    lab.file("b.toml", "[task.a]\ncommand = 'echo {n}'\ngrid = { n = { from = 1, to = 5 } }\n");
    run(&lab, &["--node", "n1", "run", "b.toml"]).well();
    run(&lab, &["add", "--to", "1", "--", "echo", "added"]).well();
    let said = run(&lab, &["--node", "n1", "resume", "--detach", "1"]);
    assert!(
        said.err.contains("has begun on this machine") && said.err.contains("kept by `n1` alone"),
        "{}",
        said.err
    );
    lab.until("what was added is done", || done(&lab, "1") == 6);
    assert_eq!(run(&lab, &["results", "1"]).well(), "1\n2\n3\n4\n5\nadded\n");
}

fn lines(journal: &Path) -> Vec<Line> {
    let mut lines = Vec::new();
    let each = |bytes: &[u8]| {
        lines.push(postcard::from_bytes(bytes).unwrap());
        Ok::<(), mutirao_store::Error>(())
    };
    read_journal(journal, each).unwrap();
    lines
}

fn write(journal: &Path, lines: &[Line]) {
    let (mut journal, _) = Journal::open(journal, |_| Ok::<(), mutirao_store::Error>(())).unwrap();
    journal.rewrite(lines.iter().map(|line| postcard::to_stdvec(line).unwrap())).unwrap();
}

/// What an entry says that holds a record which cannot be taken in: of a task that there is not.
fn senseless() -> Vec<u8> {
    // A record, and the last piece of it.
    postcard::to_stdvec(&(0u8, true, Record::Again { task: 99_999 }.encode())).unwrap()
}

/// The last entry of a journal, and the term, the vote and what counts there.
fn end_of(lines: &[Line]) -> (u64, u64, u64) {
    let last = lines.iter().rev().find_map(|line| match line {
        Line::Entry { index, .. } => Some(*index),
        _ => None,
    });
    let state = lines.iter().rev().find_map(|line| match line {
        Line::State { term, vote, .. } => Some((*term, *vote)),
        _ => None,
    });
    let (term, vote) = state.unwrap();
    (last.unwrap(), term, vote)
}

#[test]
fn an_entry_that_makes_no_sense_stops_the_bag_with_words_and_ends_no_process_for_ever() {
    let (lab, id) = with_tasks_done(3);
    let nodes = ["n2", "n3", "n4"];
    let journals = [lab.home().join("bags").join(&id), directory(&lab, "n3"), directory(&lab, "n4")]
        .map(|place| place.join("shared"));
    nodes.iter().for_each(|node| kill(&lab, node));
    let mut log = lines(&journals[0]);
    let (last, term, vote) = end_of(&log);
    log.push(Line::Entry { index: last + 1, term, data: senseless() });
    log.push(Line::State { term, vote, commit: last + 1 });
    journals.iter().for_each(|journal| write(journal, &log));
    for node in nodes {
        lab.run(["up", "--name", node, "--slots", "1", "--join", "n1"]).well();
    }
    lab.until("all say so", || {
        let (code, members) = check(&lab, &id);
        let says = |row: &Value| row["stands_still"].as_str().is_some_and(|why| why.contains("task 99999"));
        code == Some(1) && members.iter().all(says)
    });
    lab.until("their processes are there", || nodes.iter().all(|node| member(node, lab.home()).is_some()));
    let processes = nodes.map(|node| member(node, lab.home()));
    lab.until("orders are answered", || {
        let said = run(&lab, &["add", "--to", &id, "--", "true"]);
        said.code != Some(0) && said.err.contains("stands still")
    });
    assert!(run(&lab, &["show", &id]).well().contains("stands still on this node: entry"));
    assert_eq!(run(&lab, &["results", &id, "a"]).well(), "1\n2\n3\n", "what counted before can be read");
    assert_eq!(nodes.map(|node| member(node, lab.home())), processes, "none has ended");
}

#[test]
fn a_member_that_cannot_read_an_entry_helps_the_others_to_go_on() {
    let (lab, id) = with_tasks_done(3);
    kill(&lab, "n3");
    let journal = directory(&lab, "n3").join("shared");
    let mut log = lines(&journal);
    let is_last = |line: &Line| matches!(line, Line::Entry { data, .. } if data.first() == Some(&0));
    let last = log.iter().rposition(is_last).unwrap();
    let Line::Entry { data, .. } = &mut log[last] else { unreachable!() };
    *data = senseless();
    write(&journal, &log);
    lab.run(["up", "--name", "n3", "--slots", "1", "--join", "n1"]).well();
    lab.until("it says so", || check(&lab, &id).1[1]["stands_still"].is_string());
    // With its vote and its disk the other one goes on.
    kill(&lab, "n4");
    lab.until("an order is taken", || run(&lab, &["cancel", &id, "long"]).code == Some(0));
    lab.until("all is over", || show(&lab, &id)["counts"]["cancelled"] == 1);
}

/// Starts a node again that has small disks of its own, in the place of these directories: each of so many bytes, of
/// which so many are taken by the file `.filler`. False, having said why, where that is not allowed.
fn up_with_small_disks(lab: &Lab, node: &str, disks: &[(&Path, &str, &str)]) -> bool {
    lab.kill(node);
    let mut script = String::new();
    for (place, size, taken) in disks {
        std::fs::create_dir_all(place).unwrap();
        let place = place.display();
        script += &format!("mount -t tmpfs -o size={size} none {place} || exit 99\n");
        script += &format!("head -c {taken} /dev/zero > {place}/.filler\n");
    }
    script += &format!("exec $MUTIRAO_BIN up --name {node} --slots 1 --join n1");
    let mut command = lab.command("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", &script]).current_dir(lab.path(""));
    let said = lab.spawn(command).wait();
    if said.err.contains("unshare:") || said.err.contains("mount:") {
        eprintln!("left out: this user may not mount a file system of its own: {}", said.err);
        return false;
    }
    said.well();
    lab.until("it is in the tree", || lab.nodes().iter().any(|row| row["name"] == node));
    true
}

/// A command where the node with the small disks is.
fn beside(lab: &Lab, node: &str, args: &[&str]) -> Said {
    let mut command = lab.command("nsenter");
    command.args(["--target", &lab.pid(node).to_string(), "--user", "--mount", "--preserve-credentials"]);
    command.arg(format!("--wd={}", lab.path("").display())).arg("--").args(args).env("MUTIRAO_NODE", node);
    lab.spawn(command).wait()
}

const LARGE_TASKS: &str = "nodes = ['n1']\n[task.a]\n\
    command = 'head -c 100000 /dev/zero | tr \"\\0\" x > out; echo {n} >> out'\n\
    grid = { n = { from = 1, to = 40 } }\noutputs = [{ here = 'made/{n}', there = 'out' }]\n";

/// What a bag's members say of it to who asks at `n4`, once all say the same.
fn all_have_it(lab: &Lab, id: &str) -> bool {
    let mut command = lab.bag(&["check", &format!("{id}@n2"), "--output", "json"]);
    command.env("MUTIRAO_NODE", "n4");
    let said = lab.spawn(command).wait();
    let value: Value = serde_json::from_str(&said.out).unwrap_or_default();
    let is_whole = |row: &Value| row["whole"] == true && row["counts"]["done"] == 40;
    said.code == Some(0) && value["members"].as_array().is_some_and(|rows| rows.iter().all(is_whole))
}

#[test]
fn the_disk_of_a_member_is_full_and_the_bag_goes_on_and_it_follows_when_there_is_room() {
    let lab = Lab::with_pool(4, 1);
    let place = lab.home().join("nodes/n3/bags");
    if !up_with_small_disks(&lab, "n3", &[(&place, "3m", "2000000")]) {
        return;
    }
    lab.file("m.toml", LARGE_TASKS);
    let id = submit(&lab);
    lab.until("all is done without it", || done(&lab, &id) == 40);
    let process = member("n3", lab.home());
    assert!(process.is_some(), "its member waits for room");
    beside(&lab, "n3", &["rm", place.join(".filler").to_str().unwrap()]).well();
    beside(&lab, "n3", &["mount", "-o", "remount,size=40m", place.to_str().unwrap()]).well();
    lab.until("it has all", || all_have_it(&lab, &id));
}

#[test]
fn the_disk_of_the_keeper_is_full_and_another_goes_on_and_files_come_to_their_places_when_there_is_room() {
    let lab = Lab::with_pool(4, 1);
    let (bags, made) = (lab.home().join("bags"), lab.path("made"));
    if !up_with_small_disks(&lab, "n2", &[(&bags, "6m", "4000000"), (&made, "1m", "10")]) {
        return;
    }
    lab.file("m.toml", LARGE_TASKS);
    let program = Lab::binary();
    let said = beside(&lab, "n2", &[program, "bag", "submit", "m.toml", "--members", "n2,n3,n4"]);
    assert!(said.err.contains("kept by `n2`, `n3` and `n4`"), "{}", said.err);
    let id = said.well().trim().to_owned();
    let shown = || {
        let mut command = lab.bag(&["show", &format!("{id}@n2"), "--output", "json"]);
        command.env("MUTIRAO_NODE", "n4");
        serde_json::from_str::<Value>(&lab.spawn(command).wait().out).unwrap_or_default()
    };
    lab.until("all is done by others", || shown()["counts"]["done"] == 40);
    let log = directory(&lab, "n2").join("log");
    lab.until("it says so", || std::fs::read_to_string(&log).unwrap().contains("nothing is lost"));
    beside(&lab, "n2", &["rm", bags.join(".filler").to_str().unwrap()]).well();
    beside(&lab, "n2", &["mount", "-o", "remount,size=40m", bags.to_str().unwrap()]).well();
    beside(&lab, "n2", &["mount", "-o", "remount,size=40m", made.to_str().unwrap()]).well();
    lab.until("it has all", || all_have_it(&lab, &id));
    let are_placed = || {
        let script = "cd $0; for n in $(seq 40); do tail -c 3 $n | tr -d 'x\n'; wc -c < $n; done; ls | wc -l";
        let said = beside(&lab, "n2", &["sh", "-c", script, made.to_str().unwrap()]);
        let line = |n: u32| format!("{n}{}\n", 100_001 + n.to_string().len());
        said.out == (1..=40).map(line).collect::<String>() + "40\n"
    };
    lab.until("files are in their places", are_placed);
}
