//! Groups that write down what they do: processes that run again alone, and timelines.

mod lab;

use lab::{Lab, Said};
use serde_json::Value;
use std::collections::HashMap;
use std::path::Path;

/// Messages of `talk` in each direction.
const ROUNDS: usize = 20;

/// `first` posts numbers, which `next` looks for until it has them, and sends back what it makes of them.
const TALK: &str = r#"
#include <signal.h>
#include <spd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv)
{
    const int is_first = strcmp(argv[1], "first") == 0, rounds = atoi(argv[2]);
    const int offset = getenv("OFFSET") ? atoi(getenv("OFFSET")) : 0;
    long number = 0, sum = 0;
    msg_type m = {sizeof number, (char *)&number};
    int code = open_spd();
    if (is_first) scanf("%ld", &sum);
    for (int i = 0; i < rounds && code == 0; i++) {
        m.len = sizeof number;
        if (is_first) {
            number = i;
            code = a_sendc(0, &m);
            if (code == 0) code = receivec(0, &m);
            sum += number;
        } else {
            while ((code = a_receivec(0, &m)) == SPD_EMPTY) {}
            number = 2 * number + offset;
            if (code == 0) code = sendc(0, &m);
        }
    }
    if (code == 0 && argc > 3) raise(SIGSEGV);
    if (code == 0) code = close_spd();
    if (code < 0) {
        fprintf(stderr, "talk: %s\n", spd_error());
        return 1;
    }
    printf("%s %ld\n", argv[1], sum);
    return 0;
}
"#;

/// A pool, and in it the file of a group of two that talk.
fn talkers(how_next_ends: &str) -> (Lab, String) {
    let lab = Lab::with_pool(2, 2);
    lab.compile(lab.file("talk.c", TALK).to_str().unwrap());
    let program = |name: &str, node: &str, more: &str| {
        format!(
            "[program.{name}]\nexecutable = \"talk\"\nstations = [\"{node}\"]\n\
             arguments = [\"{name}\", \"{ROUNDS}\"{more}]\n"
        )
    };
    let text = program("first", "n1", "")
        + &program("next", "n2", how_next_ends)
        + "[[channel]]\nfrom = \"first.0:0\"\nto = \"next.0:0\"\n\
           [[channel]]\nfrom = \"next.0:0\"\nto = \"first.0:0\"\n";
    let file = lab.file("talk.toml", text).to_str().unwrap().to_owned();
    (lab, file)
}

fn run(lab: &Lab, file: &str, more: &[&str]) -> Said {
    let mut command = lab.mutirao(["group", "run", file, "--stdin", "first.0"].iter().chain(more));
    command.stdin(std::fs::File::open(lab.file("input", "1000\n")).unwrap());
    let scratch = lab.path("scratch");
    std::fs::create_dir_all(&scratch).unwrap();
    command.env("TMPDIR", scratch);
    lab.spawn(command).wait()
}

fn replay(lab: &Lab, directory: &str, process: &str, offset: &str) -> Said {
    let mut command = lab.mutirao(["group", "replay", directory, "--process", process]);
    command.env("OFFSET", offset);
    lab.spawn(command).wait()
}

#[test]
fn a_process_runs_again_alone_with_what_it_received() {
    let (lab, file) = talkers("");
    let place = lab.path("kept").to_str().unwrap().to_owned();
    let said = run(&lab, &file, &["--record", &place]);
    let sum = 1000 + (0..ROUNDS).map(|i| 2 * i).sum::<usize>();
    assert!(said.out.contains(&format!("first.0: first {sum}\n")), "{} {}", said.out, said.err);
    // Its node is no longer needed, nor is the other process.
    lab.run(["down", "--all"]);
    let as_it_was = "all that it sent is as it was recorded";
    for (process, out) in [("first.0", format!("first {sum}\n")), ("next.0", "next 0\n".into())] {
        let said = replay(&lab, &place, process, "0");
        assert_eq!((said.code, said.out.as_str()), (Some(0), out.as_str()), "{}", said.err);
        assert!(said.err.contains(as_it_was), "{}", said.err);
    }
    let said = replay(&lab, &place, "next.0", "1");
    let text =
        "message 1 over output channel 0 of next.0 is another one: its 8 bytes are not those of the record";
    assert!(said.err.contains(text) && !said.err.contains(as_it_was), "{}", said.err);
    assert!(said.err.contains(&format!("not as they were recorded: {ROUNDS}")), "{}", said.err);
    // Something else in front of it.
    let mut command =
        lab.mutirao(["group", "replay", &place, "--process", "next.0", "--", "env", "OFFSET=3"]);
    command.env("OFFSET", "0");
    assert!(lab.spawn(command).wait().err.contains("is another one"));
    let complaint = replay(&lab, &place, "next.7", "0").complaint();
    assert!(complaint.contains("no record of life 1 of `next.7`; it has `first.0.record`"), "{complaint}");
    let complaint = run(&lab, &file, &["--record", &place]).complaint();
    assert!(complaint.contains("holds the records of another run"), "{complaint}");
}

#[test]
fn what_a_process_did_before_it_crashed_is_in_its_record() {
    let (lab, file) = talkers(", \"crash\"");
    let place = lab.path("kept").to_str().unwrap().to_owned();
    assert_eq!(run(&lab, &file, &["--record", &place]).code, Some(139));
    let mut command = lab.mutirao(["group", "replay", &place, "--process", "next.0"]);
    let output = command.output().unwrap();
    use std::os::unix::process::ExitStatusExt;
    assert_eq!(output.status.signal(), Some(11), "{}", String::from_utf8_lossy(&output.stderr));
    // The other one was ended while it went on.
    let said = replay(&lab, &place, "first.0", "0");
    assert!(
        said.code == Some(0) || said.err.contains("the record of first.0 tells nothing more"),
        "{}",
        said.err
    );
}

#[test]
fn a_group_goes_on_when_its_records_cannot_be_written_any_further() {
    let (lab, file) = talkers("");
    let place = lab.path("kept").to_str().unwrap().to_owned();
    let mut command = lab.command("/bin/sh");
    // The kernel refuses to let files grow beyond this, as a full disk would.
    command.args(["-c", "trap '' XFSZ; ulimit -f 2; exec \"$@\"", "sh", Lab::binary(), "group", "run"]);
    command.args([&file, "--stdin", "first.0", "--record", &place]);
    command.stdin(std::fs::File::open(lab.file("input", "1000\n")).unwrap());
    let said = lab.spawn(command).wait();
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(said.err.contains("the record of `next.0` ends here"), "{}", said.err);
    let complaint = replay(&lab, &place, "next.0", "0").complaint();
    assert!(complaint.contains("the record of next.0 tells nothing more of"), "{complaint}");
}

/// Events of a timeline of this phase.
fn phase<'a>(events: &'a [Value], phase: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["ph"] == phase).collect()
}

fn events(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).unwrap();
    let value: Value = serde_json::from_str(&text).unwrap();
    value["traceEvents"].as_array().unwrap().clone()
}

/// Whether an arrow begins or ends within a call of the process it is at.
fn is_in_a_slice(arrow: &Value, slices: &[&Value]) -> bool {
    let at = arrow["ts"].as_f64().unwrap();
    slices.iter().any(|slice| {
        let (from, span) = (slice["ts"].as_f64().unwrap(), slice["dur"].as_f64().unwrap());
        slice["pid"] == arrow["pid"] && slice["tid"] == arrow["tid"] && (from..=from + span).contains(&at)
    })
}

#[test]
fn a_timeline_has_a_row_for_each_process_and_an_arrow_for_each_message() {
    let (lab, file) = talkers("");
    let timeline = lab.path("run.json");
    let said = run(&lab, &file, &["--trace", timeline.to_str().unwrap()]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    let events = events(&timeline);
    let rows = phase(&events, "M");
    let names: Vec<&str> = rows.iter().filter_map(|row| row["args"]["name"].as_str()).collect();
    assert_eq!(names, ["first.0 on n1", "next.0 on n2"]);
    let slices = phase(&events, "X");
    for name in ["post 0", "receive 0", "close", "send 0"] {
        assert!(slices.iter().any(|slice| slice["name"] == name), "no `{name}`");
    }
    let (starts, ends) = (phase(&events, "s"), phase(&events, "f"));
    assert_eq!((starts.len(), ends.len()), (2 * ROUNDS, 2 * ROUNDS));
    let by_id: HashMap<u64, &Value> = ends.iter().map(|end| (end["id"].as_u64().unwrap(), *end)).collect();
    assert_eq!(by_id.len(), ends.len(), "each has a name of its own");
    for start in starts {
        let end = by_id[&start["id"].as_u64().unwrap()];
        assert_ne!(start["pid"], end["pid"]);
        // Both on one machine, by one clock.
        assert!(start["ts"].as_f64() <= end["ts"].as_f64(), "{start} {end}");
        assert!(is_in_a_slice(start, &slices) && is_in_a_slice(end, &slices), "{start} {end}");
    }
    let mut left = std::fs::read_dir(lab.path("scratch")).unwrap();
    assert!(left.next().is_none(), "a timeline alone leaves no records");
}

#[test]
fn collectives_are_replayed_and_drawn() {
    let lab = Lab::with_pool(1, 4);
    lab.compile("group/pi");
    let text = "[group]\ncollectives = true\n[program.pi]\nexecutable = \"pi\"\ninstances = 4\narguments = [\"6\"]\n";
    let file = lab.file("pi.toml", text).to_str().unwrap().to_owned();
    let (place, timeline) = (lab.path("kept").to_str().unwrap().to_owned(), lab.path("run.json"));
    let said = lab.run([
        "group",
        "run",
        &file,
        "--record",
        &place,
        "--trace",
        timeline.to_str().unwrap(),
        "--no-labels",
    ]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    let again = lab.run(["group", "replay", &place, "--process", "pi.0"]);
    assert_eq!((again.code, &again.out), (Some(0), &said.out), "{}", again.err);
    let events = events(&timeline);
    assert!(phase(&events, "X").iter().any(|slice| slice["name"] == "reduce"));
    assert!(!phase(&events, "s").is_empty() && phase(&events, "s").len() == phase(&events, "f").len());
}
