//! Large files of bags: inputs are brought by their content, each once to a node, from whichever node has them; outputs
//! are kept where they were made until they are fetched.

mod lab;

use lab::{Lab, sum};
use std::path::PathBuf;

fn run(lab: &Lab, args: &[&str]) -> lab::Said {
    lab.spawn(lab.bag(args)).wait()
}

/// Bytes that do not repeat.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 1u64;
    let mut noise = Vec::with_capacity(bytes + 8);
    while noise.len() < bytes {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        noise.extend_from_slice(&state.to_le_bytes());
    }
    noise.truncate(bytes);
    noise
}

#[test]
fn an_input_that_many_tasks_share_comes_once_to_each_node_and_seldom_from_its_origin() {
    const NODES: usize = 9;
    const TASKS: usize = 40;
    const BYTES: usize = 24 << 20;
    let lab = Lab::with_pool(NODES as u16, 1);
    lab.file("big", noise(BYTES));
    // Each node has the program before anything is counted, and the origin lends nothing: what its workers write would
    // be counted too.
    let nodes: Vec<String> = (2..=NODES).map(|node| format!("'n{node}'")).collect();
    let head = format!("name = 'shared'\nnodes = [{}]\n[task.a]\n", nodes.join(", "));
    lab.file("before.toml", format!("{head}command = 'sleep 1'\nrepeat = {}\n", NODES - 1));
    run(&lab, &["--node", "n1", "run", "before.toml"]).well();
    let everywhere = || lab.rows(["plugin", "ls"]).iter().filter(|row| row["kept"] == true).count() == NODES;
    lab.until("each node has the program", everywhere);
    lab.file(
        "shared.toml",
        format!(
            "{head}command = 'sha256sum big | cut -d\" \" -f1; sleep 0.2'\nrepeat = {TASKS}\ninputs = ['big']\n"
        ),
    );
    let before = lab.written("n1");
    let said = run(&lab, &["--node", "n1", "run", "shared.toml"]).well();
    let sums: Vec<&str> = said.lines().collect();
    assert_eq!(sums, vec![sum(&lab.path("big")); TASKS]);
    // The first time to keep it.
    let copies = (lab.written("n1") - before) as f64 / BYTES as f64;
    assert!(copies < 6.0, "the origin wrote it {copies:.1} times");
}

#[test]
fn an_input_larger_than_a_call_is_read_and_what_a_task_does_to_it_concerns_no_other() {
    let lab = Lab::with_pool(2, 1);
    lab.file("big", noise(100 << 20));
    lab.file(
        "large.toml",
        "[task.a]\ncommand = 'sha256sum < data/in | cut -d\" \" -f1; chmod u+w data/in; echo x >> data/in; \
         : > data/in; mv data/in gone; rm gone'\nrepeat = 6\ninputs = [{ here = 'big', there = 'data/in' }]\n",
    );
    let said = run(&lab, &["--node", "n1", "run", "large.toml"]).well();
    assert_eq!(said.lines().collect::<Vec<_>>(), vec![sum(&lab.path("big")); 6]);
}

#[test]
fn an_input_that_is_changed_or_goes_away_meanwhile_is_named() {
    let lab = Lab::new();
    lab.file("big", noise(1 << 20));
    let first = sum(&lab.path("big"));
    let reads = "command = 'sha256sum < big | cut -d\" \" -f1'\ninputs = ['big']";
    lab.file(
        "changes.toml",
        format!(
            "[task.a]\n{reads}\n\
             [task.change]\ncommand = 'echo more >> big'\nafter = ['a']\n\
             [task.b]\n{reads}\nafter = ['change']\n\
             [task.remove]\ncommand = 'mv big kept'\nafter = ['b']\n\
             [task.c]\n{reads}\nafter = ['remove']\n"
        ),
    );
    let said = run(&lab, &["run", "changes.toml"]);
    assert_eq!(said.code, Some(1), "{}", said.err);
    assert_eq!(said.out.lines().collect::<Vec<_>>(), [first, sum(&lab.path("kept"))]);
    assert!(said.err.contains("big was changed meanwhile"), "{}", said.err);
    let why = run(&lab, &["explain", "changes", "c"]).well();
    assert!(why.contains("big") && why.contains("No such file"), "{why}");
}

#[test]
fn a_large_input_comes_along_to_other_members_who_offer_it_when_they_keep_the_bag() {
    let lab = Lab::with_pool(3, 1);
    lab.file("big", noise(2 << 20));
    let right = sum(&lab.path("big"));
    lab.file(
        "m.toml",
        "[task.a]\ncommand = 'sleep 0.2; sha256sum < big | cut -d\" \" -f1'\ninputs = ['big']\nrepeat = 60\n",
    );
    let said = run(&lab, &["--node", "n1", "submit", "m.toml"]);
    assert!(said.err.contains("kept by `n1`, `n2` and `n3`"), "{}", said.err);
    let id = said.well();
    let id = id.trim();
    let shown = |what: &str| {
        let shown = run(&lab, &["show", id, "--output", "json"]).json();
        shown["counts"][what].as_u64().unwrap()
    };
    lab.until("some tasks are done", || shown("done") >= 3);
    let apps = lab.run(["--output", "json", "--node", "n2", "apps"]).json();
    let keeper = apps.as_array().unwrap().iter().find(|app| app["name"] == "bag-m").unwrap().clone();
    assert_eq!(keeper["home"], "n1", "it was submitted there");
    lab.kill("n1");
    lab::kill_process(keeper["pid"].as_i64().unwrap() as i32);
    std::fs::remove_file(lab.path("big")).unwrap();
    lab.run(["up", "--name", "n1", "--slots", "1", "--join", "n2"]).well();
    lab.until("all is done", || shown("done") == 60);
    let results = run(&lab, &["results", id]).well();
    assert_eq!(results.lines().collect::<Vec<_>>(), vec![right; 60]);
}

#[test]
fn outputs_larger_than_a_result_come_back_and_are_inputs_of_what_follows() {
    let lab = Lab::with_pool(2, 1);
    lab.file("big", noise(80 << 20));
    let right = sum(&lab.path("big"));
    lab.file(
        "out.toml",
        "[task.make]\ncommand = 'cat big > out; echo {n} > small'\ngrid = { n = [1, 2, 3] }\n\
         inputs = ['big']\n\
         outputs = [{ here = 'made/{n}', there = 'out' }, { here = 'made/{n}.small', there = 'small' }]\n\
         [task.read]\ncommand = 'sha256sum < in | cut -d\" \" -f1'\nafter = ['make']\n\
         inputs = [{ here = 'made/{n}', there = 'in' }]\ngrid = { n = [1, 2, 3] }\n",
    );
    let said = run(&lab, &["--node", "n1", "run", "out.toml"]).well();
    assert_eq!(said.lines().collect::<Vec<_>>(), vec![right.clone(); 3]);
    for n in 1..=3 {
        let made = lab.path(&format!("made/{n}"));
        assert_eq!(sum(&made), right);
        let small = std::fs::read_to_string(lab.path(&format!("made/{n}.small"))).unwrap();
        assert_eq!(small, format!("{n}\n"));
    }
    assert_eq!(std::fs::read_dir(lab.path("made")).unwrap().count(), 6, "and no attempt's own");
}

#[test]
fn large_outputs_are_compared_where_nodes_are_to_agree() {
    let lab = Lab::with_pool(3, 1);
    lab.file("big", noise(3 << 20));
    // The second attempt of a task is a liar's.
    lab.file(
        "votes.toml",
        "[results]\naccept = 'majority of 3'\n\
         [task.a]\ncommand = 'cat big > out; test $MUTIRAO_ATTEMPT != 2 || echo x >> out'\nrepeat = 4\n\
         inputs = ['big']\noutputs = [{ here = 'made/{repeat}', there = 'out' }]\n",
    );
    run(&lab, &["--node", "n1", "run", "votes.toml"]).well();
    for n in 1..=4 {
        assert_eq!(sum(&lab.path(&format!("made/{n}"))), sum(&lab.path("big")));
    }
}

/// Whether a name in the directory is one that bags use for themselves.
fn has_leftovers(lab: &Lab) -> bool {
    let names = std::fs::read_dir(lab.path("shared")).unwrap().map(|entry| entry.unwrap().file_name());
    names.into_iter().any(|name| {
        let name = name.to_string_lossy();
        name.starts_with(".mutirao-") || name.contains(".bag-")
    })
}

/// A place whose nodes share the directory `shared`.
fn lab_that_shares() -> Lab {
    let lab = Lab::new();
    std::fs::create_dir(lab.path("shared")).unwrap();
    lab.settings(&format!("[files]\nown = false\nshared = ['{}']\n", lab.path("shared").display()));
    lab
}

/// A pool whose nodes `n1` and `n2` see the directory `shared` of the lab, and `n3` does not.
fn pool_that_shares() -> Lab {
    let lab = lab_that_shares();
    let alone = lab.home().join("nodes/n3");
    std::fs::create_dir_all(&alone).unwrap();
    std::fs::write(alone.join("node.toml"), "[files]\nown = false\n").unwrap();
    lab.up_local(3, 1, &[]);
    lab
}

/// A command about bags, given in the shared directory at `n1`.
fn run_shared(lab: &Lab, args: &[&str]) -> lab::Said {
    let mut command = lab.bag(&[&["--node", "n1"], args].concat());
    command.current_dir(lab.path("shared"));
    lab.spawn(command).wait()
}

#[test]
fn where_nodes_share_the_directory_tasks_work_in_place_and_nothing_travels() {
    const BYTES: usize = 24 << 20;
    let lab = pool_that_shares();
    lab.file("shared/big", noise(BYTES));
    lab.file(
        "shared/place.toml",
        "nodes = ['n2']\n[defaults]\nin_place = true\n\
         [task.copy]\ncommand = 'test -L in && cat in > out && echo {n} >> out'\narray = { n = [1, 2, 3, 4] }\n\
         inputs = [{ here = 'big', there = 'in' }]\noutputs = [{ here = 'made/{n}', there = 'out' }]\n\
         [task.read]\ncommand = 'tail -c 2 made/{n}'\narray = { n = [1, 2, 3, 4] }\ninputs = ['made/{n}']\n\
         after_each = ['copy']\n",
    );
    let written = || lab.written("n1") + lab.written("n2");
    // The program travels at first, and is kept.
    lab.until("no file goes through the nodes", || {
        let before = written();
        let said = run_shared(&lab, &["run", "place.toml"]).well();
        let mut lines: Vec<&str> = said.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, ["1", "2", "3", "4"]);
        written() - before < BYTES as u64
    });
    for n in 1..=4 {
        let made = std::fs::read(lab.path(&format!("shared/made/{n}"))).unwrap();
        assert_eq!((made.len(), made[BYTES]), (BYTES + 2, b'0' + n));
    }
    assert!(!has_leftovers(&lab) && std::fs::read_dir(lab.path("shared/made")).unwrap().count() == 4);
}

#[test]
fn a_node_that_does_not_see_the_directory_gets_copies_and_a_failed_task_leaves_nothing() {
    let lab = pool_that_shares();
    lab.file("shared/in", "input\n");
    let bag = |node: &str, command: &str| {
        format!(
            "nodes = ['{node}']\n[task.a]\ncommand = '{command}'\nin_place = true\ninputs = ['in']\noutputs = ['out']\n"
        )
    };
    lab.file("shared/copies.toml", bag("n3", "test -f in && ! test -L in && cp in out"));
    let said = run_shared(&lab, &["run", "copies.toml"]);
    assert!(said.err.contains("`n3` gets copies"), "{}", said.err);
    said.well();
    assert_eq!(std::fs::read_to_string(lab.path("shared/out")).unwrap(), "input\n");
    std::fs::remove_file(lab.path("shared/out")).unwrap();

    for (command, why) in [("echo half > out; exit 3", "exit code 3"), ("true", "out")] {
        lab.file("shared/fails.toml", bag("n2", command));
        assert_eq!(run_shared(&lab, &["run", "fails.toml"]).code, Some(1));
        let explained = run_shared(&lab, &["explain", "fails"]).well();
        assert!(explained.contains(why), "{explained}");
        assert!(!lab.path("shared/out").exists() && !has_leftovers(&lab));
    }
}

/// Whether a task has a directory beside the files of its bag.
fn works_in_place(lab: &Lab) -> bool {
    let mut entries = std::fs::read_dir(lab.path("shared")).unwrap().map(|entry| entry.unwrap());
    entries.any(|entry| entry.path().is_dir() && entry.file_name().to_string_lossy().starts_with(".mutirao-"))
}

/// Directories of the bag's members, that of the first where it was submitted.
fn member_directories(lab: &Lab, id: &str) -> Vec<PathBuf> {
    let mut directories = vec![lab.home().join("bags").join(id)];
    let mut places = vec![lab.home().join("nodes")];
    while let Some(place) = places.pop() {
        let entries = std::fs::read_dir(&place).into_iter().flatten().flatten().map(|entry| entry.path());
        let (own, others): (Vec<PathBuf>, Vec<PathBuf>) =
            entries.filter(|path| path.is_dir()).partition(|path| path.join("member.json").exists());
        // That of the first is empty, but for this file.
        directories.extend(own.into_iter().filter(|path| path.join("shared").exists()));
        places.extend(others);
    }
    directories
}

/// What members have on their disks of a bag whose files are large.
fn bytes_of_members(lab: &Lab, id: &str) -> Vec<u64> {
    let bytes = |path: PathBuf| std::fs::metadata(path).map_or(0, |facts| facts.len());
    let of = |place: PathBuf| bytes(place.join("shared")) + bytes(place.join("outputs"));
    member_directories(lab, id).into_iter().map(of).collect()
}

fn done(lab: &Lab, id: &str) -> u64 {
    run(lab, &["show", id, "--output", "json"]).json()["counts"]["done"].as_u64().unwrap()
}

/// The node that keeps a bag, and the keeper's process.
fn keeper(lab: &Lab, asked: &str, name: &str) -> Option<(String, i32)> {
    let apps = lab.run(["--output", "json", "--node", asked, "apps"]).json();
    let app = apps.as_array().unwrap().iter().find(|app| app["name"] == format!("bag-{name}")).cloned()?;
    Some((app["home"].as_str()?.to_owned(), app["pid"].as_i64()? as i32))
}

/// Kills the node where a bag was submitted with its keeper, and waits for another.
fn lose_origin(lab: &Lab, names: &[&str]) {
    let keepers: Vec<i32> = names
        .iter()
        .map(|name| {
            let (home, process) = keeper(lab, "n2", name).unwrap();
            assert_eq!(home, "n1", "it was submitted there");
            process
        })
        .collect();
    lab.kill("n1");
    keepers.into_iter().for_each(lab::kill_process);
    for name in names {
        lab.until("another member keeps it", || {
            keeper(lab, "n2", name).is_some_and(|(home, _)| home != "n1")
        });
    }
}

#[test]
fn a_bag_of_three_members_works_in_place_and_each_result_is_there_once_though_its_keeper_is_lost() {
    const BYTES: usize = 24 << 20;
    let lab = pool_that_shares();
    lab.outlast_elections();
    lab.file("shared/big", noise(BYTES));
    let go = lab.path("shared/go");
    lab.file(
        "shared/place.toml",
        format!(
            "name = 'place'\nnodes = ['n2']\n[defaults]\nin_place = true\n\
             [task.copy]\ncommand = 'test -L in && cat in > out && echo {{n}} >> out; while ! test -e {}; do sleep 0.1; done'\n\
             array = {{ n = [1, 2, 3, 4] }}\n\
             inputs = [{{ here = 'big', there = 'in' }}]\noutputs = [{{ here = 'made/{{n}}', there = 'out' }}]\n\
             [task.read]\ncommand = 'test -L made/{{n}} && tail -c 2 made/{{n}}'\narray = {{ n = [1, 2, 3, 4] }}\n\
             inputs = ['made/{{n}}']\nafter_each = ['copy']\n",
            go.display()
        ),
    );
    let said = run_shared(&lab, &["submit", "place.toml"]);
    assert!(said.err.contains("kept by `n1`, `n2` and `n3`"), "{}", said.err);
    let id = said.well();
    let id = id.trim();
    lab.until("one works in place", || works_in_place(&lab));
    lose_origin(&lab, &["place"]);
    std::fs::write(&go, "").unwrap();
    // What follows needs what is not in its place yet, since nobody is there who looks after that.
    lab.until("all is done", || {
        let shown = lab.run(["--output", "json", "--node", "n2", "bag", "show", "place"]);
        shown.json()["counts"]["done"] == 8
    });
    lab.run(["up", "--name", "n1", "--slots", "1", "--join", "n2"]).well();
    lab.until("the first has heard of it", || done(&lab, id) == 8);
    let results = run(&lab, &["results", id]).well();
    assert_eq!(results.lines().collect::<Vec<_>>(), ["1", "2", "3", "4"], "each once");
    std::fs::remove_file(&go).unwrap();
    lab.until("nothing else is left there", || !has_leftovers(&lab));
    for n in 1..=4 {
        let made = std::fs::read(lab.path(&format!("shared/made/{n}"))).unwrap();
        assert_eq!((made.len(), made[BYTES]), (BYTES + 2, b'0' + n));
    }
    assert_eq!(std::fs::read_dir(lab.path("shared/made")).unwrap().count(), 4);
    let bytes = bytes_of_members(&lab, id);
    assert!(bytes.len() == 3 && bytes.iter().all(|bytes| *bytes < 100_000), "nothing is copied: {bytes:?}");
}

#[test]
fn a_keeper_that_does_not_see_the_directory_sends_tasks_there_and_leaves_others_to_who_does() {
    if !rustix::process::getuid().is_root() {
        eprintln!("left out: only root can hide a directory");
        return;
    }
    let lab = lab_that_shares();
    lab.up_local(4, 1, &[]);
    lab.outlast_elections();
    for node in ["n2", "n3"] {
        lab.run(["--node", node, "down"]).well();
        lab.up_with_disk(node, &lab.path("shared"), "1m");
    }
    lab.until("all are one tree", || lab.nodes().len() == 4);
    lab.file("shared/in", "input\n");
    let seconds = 1_000_000 + std::process::id();
    let submit = |name: &str, node: &str| {
        // The second begins when the test ends the first.
        let text = format!(
            "name = '{name}'\nmembers = ['n1', 'n2', 'n3']\nnodes = ['{node}']\n[defaults]\nin_place = true\n\
             [task.a]\ncommand = 'cat in > out; sleep {seconds}; true'\ninputs = ['in']\n\
             outputs = [{{ here = '{name}/a', there = 'out' }}]\n\
             [task.b]\ncommand = 'cat {name}/a in > out; cat out'\ninputs = ['in', '{name}/a']\nafter = ['a']\n\
             outputs = [{{ here = '{name}/b', there = 'out' }}]\n\
             [task.c]\ncommand = 'true'\nafter = ['b']\n"
        );
        lab.file(&format!("shared/{name}.toml"), text);
        run_shared(&lab, &["submit", &format!("{name}.toml")]).well().trim().to_owned()
    };
    let shown = |name: &str| lab.run(["--output", "json", "--node", "n2", "bag", "show", name]).json();
    let (seen, unseen) = (submit("seen", "n4"), submit("unseen", "n3"));
    lab.until("the first tasks run", || lab::sleepers(&seconds.to_string()).len() == 2);
    // What counts comes after all that was said before: the next keepers know what runs.
    for id in [&seen, &unseen] {
        run_shared(&lab, &["cancel", id, "c"]).well();
    }
    lose_origin(&lab, &["seen", "unseen"]);
    lab::sleepers(&seconds.to_string()).into_iter().for_each(lab::kill_process);
    lab.until("all is done by who sees it", || shown("seen")["counts"]["done"] == 2);
    let read = |name: &str| std::fs::read_to_string(lab.path(&format!("shared/{name}"))).unwrap();
    assert_eq!(read("seen/a"), "input\n", "it was put in its place by who needed it");
    assert!(!lab.path("shared/seen/b").exists(), "and nobody needs this one");
    lab.until("the other goes on", || shown("unseen")["counts"]["done"] == 1);
    lab.until("what needs copies waits for them", || {
        let logs = member_directories(&lab, &unseen).into_iter().map(|place| place.join("log"));
        let mut said = logs.map(|log| std::fs::read_to_string(log).unwrap_or_default());
        said.any(|said| said.contains("waits for the node where the bag was submitted"))
    });
    assert_eq!(shown("unseen")["counts"]["done"], 1);
    lab.run(["up", "--name", "n1", "--slots", "1", "--join", "n2"]).well();
    for (name, id) in [("seen", seen), ("unseen", unseen)] {
        lab.until("all is done", || done(&lab, &id) == 2);
        lab.until("files are in their places", || lab.path(&format!("shared/{name}/b")).exists());
        assert_eq!(
            (read(&format!("{name}/a")).as_str(), read(&format!("{name}/b")).as_str()),
            ("input\n", "input\ninput\n")
        );
        assert_eq!(run(&lab, &["results", &id]).well(), "input\ninput\n", "once");
    }
    lab.until("nothing else is left there", || !has_leftovers(&lab));
}

#[test]
fn an_input_that_is_changed_after_it_was_submitted_to_three_is_refused_by_its_name() {
    let lab = pool_that_shares();
    lab.file("shared/in", "input\n");
    let go = lab.path("shared/go");
    lab.file(
        "shared/changes.toml",
        format!(
            "nodes = ['n1', 'n2']\n[defaults]\nin_place = true\n\
             [task.a]\ncommand = 'while ! test -e {}; do sleep 0.1; done; cat in'\ninputs = ['in']\n\
             [task.b]\ncommand = 'cat in'\ninputs = ['in']\nafter = ['a']\n",
            go.display()
        ),
    );
    // What is not submitted after all leaves nothing.
    run_shared(&lab, &["submit", "changes.toml", "--members", "n1,n2,n9"]).complaint();
    assert!(!has_leftovers(&lab));
    let said = run_shared(&lab, &["submit", "changes.toml"]);
    assert!(said.err.contains("kept by `n1`, `n2` and `n3`"), "{}", said.err);
    let id = said.well();
    let id = id.trim();
    lab.until("one works in place", || works_in_place(&lab));
    lab.file("shared/in", "another input\n");
    std::fs::write(&go, "").unwrap();
    assert_eq!(run(&lab, &["wait", id]).code, Some(1));
    let why = run(&lab, &["explain", id, "b"]).well();
    assert!(why.contains("shared/in was changed"), "{why}");
    // What ran by then saw the file itself.
    assert!(run(&lab, &["results", id]).well().contains("input"));
}
