//! Bags of a program's operations: pushed by the program itself, or named in a bag file.

mod lab;

use lab::{Lab, kill_process};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// `mutirao bag`, in the lab's own room, at the node `n1`.
fn run(lab: &Lab, args: &[&str]) -> lab::Said {
    let mut command = lab.mutirao(["bag"].iter().chain(args));
    command.current_dir(lab.path(""));
    lab.spawn(command).wait()
}

fn done(lab: &Lab, id: &str) -> u64 {
    run(lab, &["show", id, "--output", "json"]).json()["counts"]["done"].as_u64().unwrap()
}

/// A program of that path, at the node `n1`.
fn at_n1(lab: &Lab, path: PathBuf) -> Command {
    let mut command = lab.command(path);
    command.env("MUTIRAO_NODE", "n1").current_dir(lab.path(""));
    command
}

/// The test program with a bag.
fn program(lab: &Lab, args: &[&str]) -> Command {
    let mut command = at_n1(lab, Lab::program());
    command.arg("bag").args(args);
    command
}

/// A C program from its source.
fn compiled(lab: &Lab, name: &str, source: &str) -> PathBuf {
    lab.compile(lab.file(&format!("{name}.c"), source).to_str().unwrap())
}

#[test]
fn a_program_pushes_calls_into_a_bag_of_its_own_and_nothing_is_left_of_it() {
    let lab = Lab::with_pool(2, 2);
    let came = lab.spawn(program(&lab, &["roots", "200"])).wait().json();
    assert_eq!(came["right"], 200, "{came}");
    let failures = came["failures"].as_array().unwrap();
    assert_eq!(failures.len(), 2, "{came}");
    assert!(failures.iter().any(|text| text.as_str().unwrap().contains("it is no square")), "{came}");
    assert!(failures.iter().any(|text| text.as_str().unwrap().contains("its worker ended")), "{came}");
    lab.until("nothing is left of the bag", || run(&lab, &["ls"]).well().lines().count() == 1);
    lab.until("its slots are free again", || lab.free_slots() == 4);
}

#[test]
fn a_program_pushes_calls_into_a_bag_where_no_node_runs() {
    let lab = Lab::new();
    let mut command = lab.command(Lab::program());
    command.args(["bag", "roots", "20"]);
    assert_eq!(lab.spawn(command).wait().json()["right"], 20);
}

#[test]
fn a_bag_lives_on_without_its_program_or_ends_with_it() {
    let lab = Lab::with_pool(1, 2);
    // What its workers can see without being let: whether a directory of the system is there.
    let left = lab.spawn(program(&lab, &["leave", "3", "/usr"])).wait().json();
    let id = left["bag"].to_string();
    run(&lab, &["wait", &id]).well();
    assert_eq!(done(&lab, &id), 4);
    assert_eq!(run(&lab, &["show", &id, "--output", "json"]).json()["kept_by"], serde_json::json!(["n1"]));
    let find = || lab.spawn(program(&lab, &["find", &id])).wait().json();
    assert_eq!(find()["results"], serde_json::json!([0, 1, 2, 3]));
    assert_eq!(find()["results"], serde_json::json!([0, 1, 2, 3]), "as often as it is asked");
    let mut held = program(&lab, &["hold", "5"]);
    held.stdin(Stdio::piped());
    let held = lab.spawn(held);
    lab.until("its tasks run", || lab.free_slots() == 0);
    held.kill();
    lab.until("they have ended with it", || lab.free_slots() == 2);
    lab.until("and so has the bag", || run(&lab, &["ls"]).well().lines().count() == 2);
}

#[test]
fn a_bag_that_lives_on_has_three_members_where_there_are_three_nodes() {
    let lab = Lab::with_pool(3, 1);
    let left = lab.spawn(program(&lab, &["leave", "2", "/usr"])).wait().json();
    let id = left["bag"].to_string();
    run(&lab, &["wait", &id]).well();
    let kept_by = || run(&lab, &["show", &id, "--output", "json"]).json()["kept_by"].clone();
    assert_eq!(kept_by(), serde_json::json!(["n1", "n2", "n3"]));
    let find = lab.spawn(program(&lab, &["find", &id])).wait().json();
    assert_eq!(find["results"], serde_json::json!([0, 1, 2]));
}

#[test]
fn a_bag_that_another_machine_keeps_comes_back_for_the_program_that_opens_it() {
    let lab = Lab::with_pool(3, 1);
    let left = lab.spawn(program(&lab, &["leave", "2", "/never"])).wait().json();
    let id = left["bag"].to_string();
    let keeper = || {
        let apps = lab.run(["--output", "json", "--node", "n2", "apps"]).json();
        let app = apps.as_array().unwrap().iter().find(|app| app["name"] == "bag-left").cloned()?;
        Some((app["home"].as_str()?.to_owned(), app["pid"].as_i64()? as i32))
    };
    lab.until("it is kept", || keeper().is_some());
    let (_, process) = keeper().unwrap();
    lab.kill("n1");
    kill_process(process);
    lab.until("another member keeps it", || keeper().is_some_and(|(home, _)| home != "n1"));
    lab.run(["up", "--name", "n1", "--slots", "1", "--join", "n2"]).well();
    lab.until("the first has heard of it", || done(&lab, &id) == 1);
    let mut found = lab.spawn(program(&lab, &["find", &id]));
    let came = || keeper().is_some_and(|(home, _)| home == "n1");
    lab.until("it comes back", || {
        if came() {
            return true;
        }
        // An order waits for a member for some time only.
        if !std::path::Path::new(&format!("/proc/{}/exe", found.pid())).exists() {
            found = lab.spawn(program(&lab, &["find", &id]));
        }
        false
    });
    run(&lab, &["cancel", &id, "all"]).well();
    let said = found.wait();
    assert!(said.err.contains("cancel") || said.out.contains("cancel"), "{} {}", said.out, said.err);
}

#[test]
fn a_bag_file_names_operations_of_a_program() {
    let lab = Lab::with_pool(1, 2);
    let said = lab.spawn(at_n1(&lab, lab.compile("bag"))).wait().well();
    assert_eq!(said, "task 7: the call failed on node n1: 7 is not squared here\n328301, 1 failed\n");
    lab.file(
        "ops.toml",
        "program = './bag'\n[task.a]\noperation = 'square'\nargument = '{n}'\narray = { n = ['12345678', 'short'] }\n",
    );
    let said = run(&lab, &["run", "ops.toml"]);
    assert_eq!(said.code, Some(1), "{}", said.err);
    let squared = u64::from_le_bytes(*b"12345678").wrapping_mul(u64::from_le_bytes(*b"12345678"));
    let id = run(&lab, &["show", "ops", "--output", "json"]).json()["bag"].to_string();
    let lines = std::fs::read(lab.home().join("bags").join(id).join("outputs")).unwrap();
    assert_eq!(lines, squared.to_le_bytes());
    let why = run(&lab, &["explain", "ops", "a.1"]).well();
    assert!(why.contains("a number of 64 bits is expected"), "{why}");
    lab.file("wrong.toml", "program = './bag'\n[task.a]\noperation = 'root'\n");
    assert!(run(&lab, &["run", "wrong.toml"]).complaint().contains("it has: square"));
}

#[test]
fn the_program_of_a_bag_file_comes_along_to_the_members_that_may_keep_the_bag() {
    let lab = Lab::with_pool(3, 2);
    // What comes along is to be small.
    let built = PathBuf::from(Lab::binary()).with_file_name("libmutirao_c.so");
    std::fs::create_dir(lab.path("lib")).unwrap();
    let stripped = Command::new("strip").arg(built).arg("-o").arg(lab.path("lib/libmutirao.so.0")).status();
    assert!(stripped.unwrap().success());
    compiled(
        &lab,
        "nap",
        "#include <mutirao.h>\n#include <unistd.h>\n\
         static int nap(const void *text, size_t size, mutirao_result *result)\n\
         { usleep(300000); return mutirao_result_set(result, text, size); }\n\
         static const mutirao_operation operations[] = {{\"nap\", nap, 0}};\n\
         int main(int argc, char **argv) { return mutirao_init(&argc, &argv, operations, 1) != 0; }\n",
    );
    lab.file(
        "naps.toml",
        "program = './nap'\n[task.a]\noperation = 'nap'\nargument = '{n}.'\ngrid = { n = { from = 1, to = 200 } }\n",
    );
    let said = run(&lab, &["submit", "naps.toml"]);
    assert!(said.err.contains("kept by `n1`, `n2` and `n3`"), "{}", said.err);
    let id = said.well();
    let id = id.trim();
    let keeper = |asked: &str| {
        let apps = lab.run(["--output", "json", "--node", asked, "apps"]).json();
        let app = apps.as_array().unwrap().iter().find(|app| app["name"] == "bag-naps").cloned()?;
        Some((app["home"].as_str()?.to_owned(), app["pid"].as_i64()? as i32))
    };
    lab.until("some tasks are done", || done(&lab, id) >= 4);
    let mut seen = None;
    // On a busy machine not every node answers in time.
    lab.until("its keeper is seen from another node", || {
        seen = keeper("n2");
        seen.is_some()
    });
    let (home, process) = seen.unwrap();
    assert_eq!(home, "n1", "it was submitted there");
    lab.kill("n1");
    kill_process(process);
    std::fs::remove_file(lab.home().join("bags").join(id).join("program")).unwrap();
    lab.until("another member keeps it", || keeper("n2").is_some_and(|(home, _)| home != "n1"));
    lab.run(["up", "--name", "n1", "--slots", "2", "--join", "n2"]).well();
    lab.until("all is done", || done(&lab, id) == 200);
    let expected: String = (1..=200).map(|n| format!("{n}.")).collect();
    assert_eq!(run(&lab, &["results", id]).well(), expected, "each once");
}

#[test]
fn a_program_that_can_be_started_nowhere_ends_its_tasks_with_the_cause() {
    let lab = Lab::with_pool(2, 1);
    let program = compiled(
        &lab,
        "homely",
        "#include <mutirao.h>\n#include <stdio.h>\n#include <stdlib.h>\n\
         static int nothing(const void *text, size_t size, mutirao_result *result)\n\
         { (void)text; (void)size; (void)result; return 0; }\n\
         static const mutirao_operation operations[] = {{\"nothing\", nothing, 0}};\n\
         int main(int argc, char **argv)\n\
         {\n\
             if (!getenv(\"AT_HOME\")) { fputs(\"I stay at home\\n\", stderr); return 3; }\n\
             mutirao_bag *bag; mutirao_bag_end end; int more;\n\
             if (mutirao_init(&argc, &argv, operations, 1) || mutirao_bag_open(NULL, &bag)) return 4;\n\
             if (mutirao_bag_push(bag, \"nothing\", NULL, 0, NULL) || mutirao_bag_next(bag, &end, &more)) return 5;\n\
             puts(end.error ? mutirao_error_text(end.error) : \"done\");\n\
             mutirao_bag_close(bag);\n\
             return 0;\n\
         }\n",
    );
    let mut command = at_n1(&lab, program);
    command.env("AT_HOME", "1");
    let said = lab.spawn(command).wait().well();
    assert!(said.contains("workers can be started nowhere; on `n"), "{said}");
    assert!(said.contains("on `n1`: ") && said.contains("on `n2`: "), "{said}");
    lab.file(
        "homely.toml",
        "program = './homely'\n[task.a]\noperation = 'nothing'\narray = { n = [1, 2, 3] }\n",
    );
    let mut submitted = lab.mutirao(["bag", "run", "homely.toml"]);
    submitted.env("AT_HOME", "1").current_dir(lab.path(""));
    let said = lab.spawn(submitted).wait();
    assert_eq!(said.code, Some(1), "{}", said.err);
    let why = run(&lab, &["explain", "homely"]).well();
    assert_eq!(why.matches("workers can be started nowhere").count(), 3, "{why}");
}

#[test]
fn the_rust_example_counts_primes() {
    let lab = Lab::with_pool(1, 2);
    let example = PathBuf::from(Lab::binary()).with_file_name("primes");
    assert!(example.exists(), "{} is missing: run `cargo build --workspace` first", example.display());
    let mut command = at_n1(&lab, example);
    command.arg("20000");
    assert_eq!(lab.spawn(command).wait().well(), "2262 primes below 20000\n");
}
