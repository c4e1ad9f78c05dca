//! Terminals attached to processes of groups: real daemons, real terminals.

mod lab;

use lab::Lab;
use lab::screen::{ASK, Screen};
use rustix::process::{Pid, Signal, kill_process};
use std::os::unix::fs::PermissionsExt;

/// Attaches to a process of the group `lake`, at this node.
fn attach_at(lab: &Lab, node: &str, process: &str) -> Screen {
    let mut command = lab.command("setsid");
    command.arg("-c").arg(Lab::binary()).args(["--node", node, "group", "attach", "lake", process]);
    Screen::of(command)
}

fn attach(lab: &Lab, process: &str) -> Screen {
    attach_at(lab, "n1", process)
}

/// A group `lake` of a process with a terminal on `station`, and one without.
fn lake(lab: &Lab, station: &str) -> String {
    for (name, text) in [("ask", ASK), ("plain", "#!/bin/sh\nexec sleep 600\n")] {
        let path = lab.file(name, text);
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let text = format!(
        "[group]\nname = \"lake\"\n[program.ask]\nexecutable = \"ask\"\nterminal = true\nstations = [\"{station}\"]\n\
         environment = {{ TERM = \"vt100\" }}\n[program.plain]\nexecutable = \"plain\"\nstations = [\"n1\"]\n"
    );
    lab.file("lake.toml", text).to_str().unwrap().to_owned()
}

fn until_all_run(lab: &Lab) {
    lab.until("both run", || {
        lab.rows(["ps"]).iter().filter(|row| row["operation"] == "group_process").count() == 2
    });
}

#[test]
fn a_terminal_is_that_of_a_process_here_and_on_another_node_from_every_node() {
    let lab = Lab::with_pool(3, 2);
    for (station, node) in [("n1", "n1"), ("n2", "n1"), ("n1", "n2"), ("n2", "n3")] {
        let launcher = lab.spawn(lab.mutirao(["group", "run", &lake(&lab, station)]));
        until_all_run(&lab);
        let mut screen = attach_at(&lab, node, "ask.0");
        screen.shows("a terminal, vt100");
        assert!(screen.is_raw());
        screen.type_in("size\r");
        screen.shows("30 100");
        screen.resize(40, 120);
        screen.type_in("size\r");
        screen.shows("40 120");
        screen.type_in("hello\r");
        // What is typed is shown by the terminal of the process, once.
        screen.shows("hello\r\ngot hello\r\n");
        screen.type_in("\x03");
        screen.shows("interrupted");
        screen.type_in("again\r");
        screen.shows("got again");
        screen.type_in("much\r");
        screen.shows("20000\r\nmuch is over");
        screen.type_in("end\r");
        screen.shows("`ask.0` of the group `lake` has ended: exit code 3");
        assert!(!screen.is_raw(), "the terminal is as it was");
        assert_eq!(screen.ends(), Some(3));
        let said = launcher.wait();
        assert_eq!(said.code, Some(3), "{}", said.err);
        assert!(said.err.contains("because of `ask.0`"), "{}", said.err);
        assert!(!said.out.contains("got hello"), "it was seen elsewhere: {}", said.out);
        lab.until("nothing is left", || lab.free_slots() == 6);
    }
}

#[test]
fn a_shell_that_would_lead_a_group_of_its_own_reads_from_its_terminal() {
    let lab = Lab::with_pool(1, 1);
    let text = "[group]\nname = \"lake\"\n[program.sh]\nexecutable = \"/bin/sh\"\nterminal = true\n";
    let file = lab.file("shell.toml", text);
    let launcher = lab.spawn(lab.mutirao(["group", "run", file.to_str().unwrap()]));
    lab.until("it runs", || lab.rows(["ps"]).iter().any(|row| row["operation"] == "group_process"));
    let mut screen = attach(&lab, "sh.0");
    screen.type_in("echo $((6 * 7)) read\r");
    screen.shows("42 read");
    screen.type_in("exec /bin/sh\r");
    screen.type_in("(exit 3); echo again $?\r");
    screen.shows("again 3");
    screen.type_in("exit 5\r");
    screen.shows("has ended: exit code 5");
    assert_eq!(screen.ends(), Some(5));
    assert_eq!(launcher.wait().code, Some(5));
}

#[test]
fn one_leaves_a_process_and_another_comes_and_nobody_comes_twice() {
    let lab = Lab::with_pool(2, 2);
    let launcher = lab.spawn(lab.mutirao(["group", "run", &lake(&lab, "n1")]));
    until_all_run(&lab);
    let refused = |process: &str, why: &str| {
        let mut screen = attach(&lab, process);
        screen.shows(why);
        assert_eq!(screen.ends(), Some(1));
    };
    refused("plain.0", "cannot attach to `plain.0` of the group `lake`: it has no terminal");
    refused("ask.7", "there is no process of that name");
    let mut first = attach_at(&lab, "n2", "ask.0");
    first.shows("a terminal");
    refused("ask.0", &format!("it is attached already, to process {} on node n2", first.pid()));
    first.type_in("unseen\x1d");
    first.shows("`ask.0` of the group `lake` runs on without this terminal");
    assert!(!first.is_raw());
    assert_eq!(first.ends(), Some(0));
    let mut second = attach(&lab, "ask.0");
    // What was shown last, and that the process goes on with what was typed before.
    second.shows("a terminal");
    second.shows("unseen");
    second.type_in("\rhello\r");
    second.shows("got unseen");
    second.shows("got hello");
    kill_process(Pid::from_raw(launcher.pid()).unwrap(), Signal::TERM).unwrap();
    second.shows("ended with its group");
    assert_eq!(second.ends(), Some(1));
    assert_eq!(launcher.wait().code, Some(143));
    lab.until("nothing is left", || lab.free_slots() == 4);
}

#[test]
fn nobody_attaches_to_the_group_of_another_user() {
    let (lab, other) = Lab::with_another_machine(2, "");
    let launcher = lab.spawn(lab.mutirao(["group", "run", &lake(&lab, "n1")]));
    until_all_run(&lab);
    let mut command = lab.command_on(&other, "setsid");
    command.arg("-c").arg(Lab::binary()).args(["group", "attach", "lake", "ask.0"]);
    let mut stranger = Screen::of(command);
    stranger.shows("@b` may not do this: it takes `");
    assert_eq!(stranger.ends(), Some(1));
    let mut screen = attach(&lab, "ask.0");
    screen.shows("a terminal");
    screen.type_in("end\r");
    screen.shows("has ended: exit code 3");
    assert_eq!(launcher.wait().code, Some(3));
}

#[test]
fn the_loss_of_the_way_to_a_process_is_told_and_does_not_end_it() {
    let lab = Lab::with_pool(2, 2);
    let launcher = lab.spawn(lab.mutirao(["group", "run", &lake(&lab, "n1")]));
    until_all_run(&lab);
    let mut first = attach_at(&lab, "n2", "ask.0");
    first.shows("a terminal");
    lab.kill("n2");
    first.shows("the way to `ask.0` of the group `lake` broke");
    assert!(!first.is_raw());
    assert_eq!(first.ends(), Some(1));
    // Until the launcher has noticed, too, it says who is attached.
    let mut second = attach(&lab, "ask.0");
    lab.until("another can attach", || {
        if second.has_shown("attached already") {
            second = attach(&lab, "ask.0");
        }
        second.is_raw()
    });
    second.type_in("hello\r");
    second.shows("got hello");
    second.type_in("end\r");
    second.shows("exit code 3");
    assert_eq!(launcher.wait().code, Some(3));
}

#[test]
fn what_is_no_terminal_is_refused_and_so_is_a_second_input() {
    let lab = Lab::with_pool(1, 2);
    let file = lake(&lab, "n1");
    let complaint = lab.run(["group", "attach", "lake", "ask.0"]).complaint();
    assert!(complaint.contains("`group attach` needs a terminal"), "{complaint}");
    let complaint = lab.run(["group", "run", &file, "--stdin", "ask.0"]).complaint();
    assert!(complaint.contains("`ask.0` has a terminal"), "{complaint}");
    let complaint = lab.run(["group", "run", &file, "--terminal", "asks.0"]).complaint();
    assert!(complaint.contains("there is no process `asks.0` to have a terminal"), "{complaint}");
    let launcher = lab.spawn(lab.mutirao(["group", "run", &file, "--terminal", "plain.0"]));
    until_all_run(&lab);
    let mut screen = attach(&lab, "plain.0");
    // It does not listen, and the kernel ends it.
    lab.until("it is attached", || screen.is_raw());
    screen.type_in("\x03");
    screen.shows("has ended: signal 2");
    assert_eq!(screen.ends(), Some(130));
    assert_eq!(launcher.wait().code, Some(130));
}
