//! What helps to set up a pool: other machines over ssh, topology files, the service.
//!
//! The `ssh` of these tests is a script that runs what it is given on this machine, with a home and a
//! runtime directory that belong to the host's name.

mod lab;

use lab::{Lab, Said};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const PASSPHRASE: &str = "correct horse battery";

/// A pool of one node, `n1`, and an ssh.
struct Room {
    lab: Lab,
    ssh: PathBuf,
    passphrase: PathBuf,
}

impl Room {
    fn new(hosts: &[&str]) -> Room {
        let mut lab = Lab::new();
        for host in hosts {
            let _ = lab.machine(host);
        }
        let passphrase = lab.file("passphrase", format!("{PASSPHRASE}\n"));
        let ssh = script(
            &lab,
            "ssh",
            "echo \"$*\" >> \"$base/ssh.log\"\n\
             while [ $# -gt 2 ]; do shift; done\n\
             host=${1#*@}\n\
             case $host in\n\
             dead) echo 'some warning' >&2; echo 'ssh: connect to host dead: No route to host' >&2; exit 255;;\n\
             arm) PATH=$base/arm:$PATH;;\n\
             chatty) echo 'Welcome to chatty! mutirao-host is not for you';;\n\
             esac\n\
             export HOME=$base/$host MUTIRAO_HOME=$base/$host/home MUTIRAO_RUNTIME_DIR=$base/$host/run\n\
             mkdir -p \"$HOME\"\n\
             exec sh -c \"$2\"\n",
        );
        std::fs::create_dir(lab.path("arm")).unwrap();
        script(&lab, "arm/uname", "case $1 in -m) echo aarch64;; *) echo Linux;; esac\n");
        let room = Room { lab, ssh, passphrase };
        let init = ["init", "--name", "lab", "--node-name", "n1", "--admin", "ana"];
        room.lab.run(init.into_iter().chain(["--passphrase-file", room.passphrase.to_str().unwrap()])).well();
        room
    }

    fn with_node(hosts: &[&str]) -> Room {
        let room = Room::new(hosts);
        room.lab.run(["up", "--slots", "1", "--listen", "127.0.0.1:0"]).well();
        room
    }

    /// `mutirao` with this ssh, the passphrase at hand.
    fn run(&self, args: &[&str]) -> Said {
        let mut command = self.lab.mutirao(args);
        command.env("MUTIRAO_SSH", &self.ssh).env("MUTIRAO_PASSPHRASE_FILE", &self.passphrase);
        said(command)
    }

    fn rows(&self, args: &[&str]) -> Vec<Value> {
        let said = self.run(&[&["--output", "json"], args].concat());
        serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}: {}{}", said.out, said.err))
    }

    /// What the ssh was given so far.
    fn log(&self) -> String {
        std::fs::read_to_string(self.lab.path("ssh.log")).unwrap_or_default()
    }
}

fn said(mut command: Command) -> Said {
    let output = command.output().unwrap();
    Said {
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
        code: output.status.code(),
    }
}

/// A program that knows the lab's room as `$base`.
fn script(lab: &Lab, name: &str, text: &str) -> PathBuf {
    let base = lab.path("");
    let path = lab.file(name, format!("#!/bin/sh\nbase={}\n{text}", base.display()));
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    path
}

fn word(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn machines_come_up_over_ssh_and_each_failure_is_told() {
    let room = Room::with_node(&["ruby", "topaz", "chatty", "opal"]);
    let file = room.lab.file(
        "hosts",
        "# the lab\nana@ruby slots=2\ntopaz slots=1 parent=ruby name=t1\nchatty slots=1\ndead\narm\nopal parent=dead\n",
    );
    let up = ["up", "--hosts", word(&file)];
    let said = room.run(&up);
    assert_eq!(said.code, Some(1), "{}", said.err);
    for line in [
        "ana@ruby: node `ruby` is up below `n1`",
        "topaz: node `t1` is up below `ruby`",
        "chatty: node `chatty` is up below `n1`",
        "dead: failed: ssh: connect to host dead: No route to host",
        "arm: failed: it is of the architecture aarch64",
        "opal: failed: not tried, since its parent `dead` is not up",
        "6 hosts: 3 up (0 of them already), 0 alone, 3 failed",
    ] {
        assert!(said.err.contains(line), "{line} in\n{}", said.err);
    }
    room.lab.until("all are in one tree", || room.lab.nodes().len() == 4);
    assert_eq!(room.lab.node("ruby")["slots_total"], 2);
    assert_eq!(room.lab.node("t1")["parent"], "ruby");

    // Two connections to look and to start, one to copy; nothing is secret in any of their commands.
    let log = room.log();
    assert_eq!(log.lines().filter(|line| line.contains("ana@ruby")).count(), 3, "{log}");
    assert!(!log.contains(PASSPHRASE) && !log.contains("BEGIN") && !log.contains("CERTIFICATE"), "{log}");

    // Again: nothing happens, and nothing is copied.
    let file = room.lab.file("up", "ruby\ntopaz name=t1\nchatty\n");
    let before = room.log().lines().count();
    let rows = room.rows(&["up", "--hosts", word(&file), "--parallel", "2"]);
    assert!(rows.iter().all(|row| row["state"] == "already up"), "{rows:?}");
    assert_eq!(room.log().lines().count(), before + 3);
    let key = room.lab.path("ruby").join("home/nodes/ruby/node.key");
    assert!(key.exists() && !room.lab.home().join("nodes/ruby").exists(), "the key was made there");
    let settings = std::fs::read_to_string(room.lab.path("ruby").join("home/node.toml")).unwrap();
    assert!(settings.contains("owner = \"ana\""), "{settings}");

    let said = room.run(&["down", "--hosts", word(&file)]);
    assert!(said.err.contains("topaz: node `t1` is down"), "{}", said.err);
    said.well();
    room.lab.until("they have left", || room.lab.nodes().len() == 1);
    assert!(room.rows(&["down", "--hosts", word(&file)]).iter().all(|row| row["state"] == "already down"));
}

#[test]
fn a_topology_file_places_the_machines_and_their_ways_can_be_measured() {
    let room = Room::with_node(&["a", "b", "c"]);
    let hosts = room.lab.file("hosts", "a slots=1\nb slots=1\nc slots=1\n");
    let topology = room.lab.file("t.toml", "[children]\nb = [\"a\"]\nc = [\"b\"]\nn1 = [\"c\"]\n");
    let rows = room.rows(&["up", "--hosts", word(&hosts), "--topology", word(&topology)]);
    assert!(rows.iter().all(|row| row["state"] == "up"), "{rows:?}");
    room.lab.until("all are in one tree", || room.lab.nodes().len() == 4);
    for (node, parent) in [("a", "b"), ("b", "c"), ("c", "n1")] {
        assert_eq!(room.lab.node(node)["parent"], parent);
    }
    let drawn = room.run(&["topology", "draw"]).well();
    let names: Vec<&str> = drawn.lines().filter_map(|line| line.split_whitespace().nth_back(1)).collect();
    assert_eq!(names, ["n1", "c", "b", "a"], "{drawn}");

    let matrix = room.lab.path("matrix");
    let made = room
        .run(&["topology", "make", word(&hosts), "--latency", "--save", word(&matrix), "--root", "b"])
        .well();
    assert!(made.starts_with("b "), "{made}");
    let again =
        room.run(&["topology", "make", word(&hosts), "--matrix", word(&matrix), "--root", "b"]).well();
    assert_eq!(again, made);
}

#[test]
fn what_cannot_work_is_refused_before_anything_is_started() {
    let room = Room::new(&["a"]);
    let hosts = room.lab.file("hosts", "a\n-oProxyCommand=touch\n");
    let up = |more: &[&str]| room.run(&[&["up", "--hosts", word(&hosts)], more].concat()).complaint();
    assert!(up(&[]).contains("line 2, column 1: `-oProxyCommand=touch` is not a host"));
    room.lab.file("hosts", "a\nb\n");
    assert!(up(&[]).contains("no node of the pool runs here"));
    let topology = room.lab.file("t", "a c\n");
    assert!(up(&["--topology", word(&topology)]).contains("does not name `b` (line 2"));
    room.lab.file("t", "x a b\n");
    assert!(up(&["--topology", word(&topology)]).contains("`x`, the parent of `a`, is not in the host file"));
    assert_eq!(room.log(), "");

    // Without the authority's passphrase a new machine has no identity to start with.
    room.lab.file("hosts", "a\n");
    let mut command = room.lab.mutirao(["up", "--hosts", word(&hosts), "--join", "127.0.0.1:1"]);
    let complaint = said({
        command.env("MUTIRAO_SSH", &room.ssh);
        command
    })
    .complaint();
    assert!(
        complaint.contains("a: failed: it has no identity in this pool yet; give --passphrase-file"),
        "{complaint}"
    );
    let missing = room.run(&["up", "--hosts", word(&hosts), "--join", "127.0.0.1:1", "--ssh", "/no/ssh"]);
    assert!(missing.complaint().contains("cannot start `/no/ssh`"));
}

#[test]
fn topologies_are_made_checked_drawn_and_converted() {
    let lab = Lab::new();
    let hosts = lab.file(
        "hosts",
        "ana@a rack=l address=10.0.1.1\nb rack=r address=10.0.2.1\nc rack=l address=10.0.2.2\nd rack=r address=10.0.1.2\n",
    );
    let run = |args: &[&str]| lab.run([&["topology"], args].concat());
    let make = |more: &[&str]| run(&[&["make", word(&hosts), "--fan-out", "2"], more].concat()).well();
    assert_eq!(make(&[]), "a b c\nb d\n");
    assert_eq!(make(&["--by", "rack"]), "a b c\nb d\n");
    assert_eq!(make(&["--by", "subnet"]), "a b d\nb c\n");
    assert_eq!(make(&["--by", "subnet", "--prefix", "16", "--root", "d"]), "d a b\na c\n");
    let toml = make(&["--form", "toml"]);
    assert_eq!(toml, "[children]\na = [\"b\", \"c\"]\nb = [\"d\"]\n");
    let matrix = lab.file("m", "a b c d\na 0 900 900 90\nb 900 0 80 900\nc 900 80 0 900\nd 90 900 900 0\n");
    let near =
        run(&["make", word(&hosts), "--matrix", word(&matrix), "--root", "a", "--fan-out", "4"]).well();
    assert_eq!(near, "a b d\nb c\n");

    let file = lab.file("t.toml", &toml);
    assert_eq!(run(&["convert", word(&file), "--to", "columns"]).well(), "a b c\nb d\n");
    assert_eq!(run(&["check", word(&file)]).well(), "4 nodes below root a, 3 levels, at most 2 children\n");
    let facts =
        lab.run(["--output", "json", "topology", "check", word(&file), "--hosts", word(&hosts)]).json();
    assert_eq!((&facts["nodes"], &facts["levels"]), (&4.into(), &3.into()));
    assert_eq!(run(&["draw", word(&file)]).well(), "a\n├─ b\n│  └─ d\n└─ c\n");
    assert!(run(&["draw", word(&file), "--dot"]).well().contains("\"b\" -> \"d\""));
    assert!(run(&["draw", word(&file), "--svg"]).well().starts_with("<svg"));
    assert!(run(&["draw", word(&file), "--html"]).well().contains("[\"d\",\"b\",null]"));

    assert!(lab.run(["man"]).well().contains("topology make"));

    for (text, expected) in [
        ("a b\nb a\n", "line 2, column 3: `a` is above `b` already"),
        ("a b\nc b\n", "line 2, column 3: `b` is a child of `a` already"),
        ("a b\nc d\n", "line 2, column 1: `c` has no parent, and neither has `a`"),
        ("[children]\na = [\"b\"]\na = [\"c\"]\n", "line 3, column 1"),
        ("", "the file names no node"),
    ] {
        let complaint = run(&["check", word(&lab.file("bad", text))]).complaint();
        assert!(complaint.contains(expected), "{text:?}: {complaint}");
    }
    let other = lab.file("other", "a b c\nb x\n");
    let complaint = run(&["check", word(&other), "--hosts", word(&hosts)]).complaint();
    assert!(complaint.contains("`x` is no host of"), "{complaint}");
    let complaint = run(&["make", word(&hosts), "--root", "z"]).complaint();
    assert!(complaint.contains("--root z"), "{complaint}");
}

#[test]
fn the_service_is_installed_watched_and_removed_by_systemctl() {
    let lab = Lab::new();
    let passphrase = lab.file("passphrase", format!("{PASSPHRASE}\n"));
    lab.run(["init", "--node-name", "n1", "--passphrase-file", word(&passphrase)]).well();
    let bin = lab.path("bin");
    std::fs::create_dir(&bin).unwrap();
    script(
        &lab,
        "bin/systemctl",
        "[ -e \"$base/no-systemd\" ] && { echo 'Failed to connect to bus' >&2; exit 1; }\n\
         echo \"$*\" >> \"$base/systemctl.log\"\n\
         case \"$*\" in *ActiveState*) printf 'LoadState=loaded\\nActiveState=active\\nSubState=running\\n\
         MainPID=42\\nNRestarts=1\\nUnitFileState=enabled\\n';; esac\n",
    );
    let run = |args: &[&str]| {
        let mut command = lab.mutirao(args);
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
        command.env("PATH", path).env("XDG_CONFIG_HOME", lab.path("config"));
        said(command)
    };
    let unit = lab.path("config/systemd/user/mutirao.service");
    let shown = run(&["service", "install", "--dry-run"]).well();
    assert!(!unit.exists() && shown.contains("up --foreground --name n1"), "{shown}");

    run(&["service", "install"]).well();
    assert_eq!(std::fs::read_to_string(&unit).unwrap(), shown);
    let status = run(&["--output", "json", "service", "status"]).json();
    assert_eq!(
        (&status["active"], &status["pid"], &status["at_boot"]),
        (&true.into(), &42.into(), &true.into())
    );
    run(&["service", "uninstall"]).well();
    assert!(!unit.exists());
    assert!(run(&["service", "uninstall"]).complaint().contains("nothing is installed"));
    let log = std::fs::read_to_string(lab.path("systemctl.log")).unwrap();
    for order in ["enable mutirao", "restart mutirao", "disable --now mutirao", "daemon-reload"] {
        assert!(log.contains(&format!("--user {order}")), "{order} in\n{log}");
    }

    lab.file("no-systemd", "");
    let complaint = run(&["service", "install"]).complaint();
    assert!(complaint.contains("systemd does not answer") && complaint.contains("@reboot"), "{complaint}");
    assert!(complaint.contains("Failed to connect to bus") && !unit.exists(), "{complaint}");
}

#[test]
fn units_are_right_in_the_eyes_of_systemd() {
    let lab = Lab::new();
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        eprintln!("SKIPPED: systemd-analyze is not there");
        return;
    }
    let passphrase = lab.file("passphrase", format!("{PASSPHRASE}\n"));
    lab.run(["init", "--node-name", "n1", "--passphrase-file", word(&passphrase)]).well();
    for kind in [vec![], vec!["--system", "--user", "root"]] {
        let args = [vec!["service", "install", "--dry-run"], kind].concat();
        let file = lab.file("mutirao.service", lab.run(args).well());
        let output =
            Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&file).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let about: Vec<&str> = said.lines().filter(|line| line.contains("mutirao")).collect();
        assert!(output.status.success() && about.is_empty(), "{said}");
    }
}
