//! Large files of bags: inputs are brought by their content, each once to a node, from whichever node has them; outputs
//! are kept where they were made until they are fetched.

mod lab;

use lab::{Lab, sum};

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

/// A pool whose nodes `n1` and `n2` see the directory `shared` of the lab, and `n3` does not.
fn pool_that_shares() -> Lab {
    let lab = Lab::new();
    std::fs::create_dir(lab.path("shared")).unwrap();
    let alone = lab.home().join("nodes/n3");
    std::fs::create_dir_all(&alone).unwrap();
    std::fs::write(alone.join("node.toml"), "[files]\nown = false\n").unwrap();
    let shared = format!("[files]\nown = false\nshared = ['{}']\n", lab.path("shared").display());
    std::fs::write(lab.home().join("node.toml"), shared).unwrap();
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

    let said = run_shared(&lab, &["submit", "copies.toml"]);
    assert!(said.err.contains("in place, beside the files of this machine"), "{}", said.err);
}
