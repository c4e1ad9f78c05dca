//! Machines that can be cut off: each a network namespace of its own, joined to the others by a bridge.
//!
//! All of it lies in namespaces that only processes of the test keep alive, so nothing of it outlives the test
//! and nothing is seen outside. An ordinary user needs user namespaces for it.

use super::{Flow, Lab, Running, Said};
use serde_json::Value;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// Joins all machines, unless some are cut off.
const BRIDGE: &str = "bridge";
/// Joins the machines of a part that is cut off.
const APART: &str = "apart";

/// Machines `n1`, `n2`, ..., of one pool.
pub struct Hosts {
    /// Keeps the namespace of the bridge alive.
    hub: Running,
    hosts: Vec<Host>,
    // Last: its directory is removed when all that uses it has ended.
    lab: Lab,
}

struct Host {
    /// Keeps the namespace alive.
    keeper: Running,
    home: PathBuf,
    runtime: PathBuf,
}

impl Hosts {
    /// `count` machines with nothing running; `None`, having said why, where this machine does not allow it.
    pub fn new(count: usize) -> Option<Hosts> {
        let lab = Lab::new();
        if let Err(why) = namespaces_are_allowed() {
            eprintln!("SKIPPED: network namespaces cannot be made here: {why}");
            return None;
        }
        // Identities of all nodes, made once and given to each machine.
        lab.up_local(count as u16, 1, &[]);
        lab.run(["down", "--all"]).well();

        let hub = keeper(&lab, None);
        let mut hosts = Hosts { hub, hosts: Vec::new(), lab };
        for bridge in [BRIDGE, APART] {
            hosts.in_hub(&["ip", "link", "add", bridge, "type", "bridge"]);
            hosts.in_hub(&["ip", "link", "set", bridge, "up"]);
        }
        for i in 1..=count {
            hosts.add(i);
        }
        Some(hosts)
    }

    fn add(&mut self, i: usize) {
        let keeper = keeper(&self.lab, Some(self.hub.pid()));
        let base = self.lab.path(&format!("machine{i}"));
        let host = Host { home: base.join("home"), runtime: base.join("run"), keeper };
        std::fs::create_dir(&base).unwrap();
        copy(self.lab.home(), &host.home);
        let (port, pid) = (port(i), host.keeper.pid().to_string());
        self.hosts.push(host);
        self.in_hub(&["ip", "link", "add", &port, "type", "veth", "peer", "name", "net", "netns", &pid]);
        self.in_hub(&["ip", "link", "set", &port, "master", BRIDGE]);
        self.in_hub(&["ip", "link", "set", &port, "up"]);
        let address = format!("{}/24", address(i));
        for args in [
            &["ip", "link", "set", "lo", "up"][..],
            &["ip", "address", "add", &address, "dev", "net"],
            &["ip", "link", "set", "net", "up"],
        ] {
            let mut command = self.command(i, args[0]);
            command.args(&args[1..]);
            self.lab.spawn(command).wait().well();
        }
    }

    fn in_hub(&self, args: &[&str]) {
        let mut command = entering(self.hub.pid());
        command.args(args);
        self.lab.spawn(command).wait().well();
    }

    /// The state directory of machine `i`.
    pub fn home(&self, i: usize) -> &Path {
        &self.hosts[i - 1].home
    }

    /// Room for files, which all machines share.
    pub fn path(&self, name: &str) -> PathBuf {
        self.lab.path(name)
    }

    /// Starts node `i`, below `parent` if one is named.
    #[track_caller]
    pub fn up(&self, i: usize, slots: u16, parent: Option<usize>) {
        let (name, slots, listen) = (format!("n{i}"), slots.to_string(), place(i));
        let mut args = vec!["up", "--name", &name, "--slots", &slots, "--listen", &listen];
        let parent = parent.map(place);
        if let Some(parent) = &parent {
            args.extend(["--parent", parent]);
        }
        self.run(i, args).well();
    }

    /// Starts all nodes, the others below the first, and waits until they are one tree.
    #[track_caller]
    pub fn up_all(&self, slots: &[u16]) {
        for (i, slots) in slots.iter().enumerate() {
            self.up(i + 1, *slots, (i > 0).then_some(1));
        }
        self.until("all nodes are in one tree", || self.nodes(1).len() == slots.len());
    }

    /// Cuts machine `i` off: not a packet gets through, and nobody is told.
    pub fn cut(&self, i: usize) {
        self.in_hub(&["ip", "link", "set", &port(i), "down"]);
    }

    /// Joins machine `i` to the others again.
    pub fn heal(&self, i: usize) {
        self.in_hub(&["ip", "link", "set", &port(i), "up"]);
    }

    /// Cuts these machines off from all others, but not from one another; nobody is told.
    pub fn cut_part(&self, part: &[usize]) {
        self.plug(part, APART);
    }

    /// Joins these machines to the others again.
    pub fn heal_part(&self, part: &[usize]) {
        self.plug(part, BRIDGE);
    }

    fn plug(&self, machines: &[usize], bridge: &str) {
        for i in machines {
            self.in_hub(&["ip", "link", "set", &port(*i), "master", bridge]);
        }
    }

    /// A command on machine `i`.
    pub fn command(&self, i: usize, program: impl AsRef<OsStr>) -> Command {
        let host = &self.hosts[i - 1];
        let mut command = entering(host.keeper.pid());
        command.arg(program);
        self.lab.settle(&mut command, &host.home, &host.runtime);
        command
    }

    /// Starts a command in the background.
    pub fn spawn(&self, command: Command) -> Running {
        self.lab.spawn(command)
    }

    /// Has calls made on machine `i`, as [`Lab::flow`] does.
    pub fn flow(&self, i: usize, operation: &str, span_ms: u64, slots: u32) -> Flow {
        self.lab.flow_by(self.command(i, Lab::program()), operation, span_ms, slots)
    }

    /// Runs `mutirao` on machine `i`.
    pub fn run<S: AsRef<OsStr>>(&self, i: usize, args: impl IntoIterator<Item = S>) -> Said {
        Said::of(self.command(i, Lab::binary()).args(args).output().unwrap())
    }

    /// The rows of a listing on machine `i`.
    #[track_caller]
    pub fn rows(&self, i: usize, listing: &str) -> Vec<Value> {
        match self.run(i, ["--output", "json", listing]).json() {
            Value::Array(rows) => rows,
            other => panic!("a list was expected: {other}"),
        }
    }

    /// The nodes that machine `i` knows of.
    #[track_caller]
    pub fn nodes(&self, i: usize) -> Vec<Value> {
        self.rows(i, "nodes")
    }

    /// Free slots of node `i`, as it says itself; `None` while it does not answer.
    #[track_caller]
    pub fn free_slots(&self, i: usize) -> Option<u64> {
        let name = format!("n{i}");
        self.nodes(i).iter().find(|row| row["name"] == name)?["slots_free"].as_u64()
    }

    /// What the daemon of machine `i` has logged.
    pub fn log(&self, i: usize) -> String {
        let log = self.hosts[i - 1].home.join(format!("nodes/n{i}/log"));
        std::fs::read_to_string(log).unwrap_or_default()
    }

    /// The daemon of machine `i`.
    #[track_caller]
    pub fn pid(&self, i: usize) -> i32 {
        super::pid_in(&self.hosts[i - 1].runtime, &format!("n{i}"))
    }

    /// Waits until `what` holds.
    #[track_caller]
    pub fn until(&self, what: &str, holds: impl FnMut() -> bool) {
        self.lab.until(what, holds);
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for (i, host) in self.hosts.iter().enumerate() {
            if std::thread::panicking() {
                super::print_logs(&host.home);
            }
            let _ = self.run(i + 1, ["down", "--all"]);
        }
    }
}

fn port(i: usize) -> String {
    format!("port{i}")
}

fn address(i: usize) -> String {
    format!("10.77.0.{i}")
}

fn place(i: usize) -> String {
    format!("{}:7117", address(i))
}

/// Why a namespace cannot be made here.
fn namespaces_are_allowed() -> Result<(), String> {
    let tried = making().args(["ip", "link", "add", "tried", "type", "bridge"]).output();
    let tried = tried.map_err(|error| format!("unshare: {error}"))?;
    if !tried.status.success() {
        return Err(String::from_utf8_lossy(&tried.stderr).trim().to_owned());
    }
    Ok(())
}

/// What runs a command in a network namespace of its own.
fn making() -> Command {
    let mut command = Command::new("unshare");
    if !rustix::process::getuid().is_root() {
        command.arg("--map-root-user");
    }
    command.args(["--net", "--"]);
    command
}

/// What runs a command where the process `pid` is.
fn entering(pid: i32) -> Command {
    let mut command = Command::new("nsenter");
    command.args(["--target", &pid.to_string(), "--net"]);
    if !rustix::process::getuid().is_root() {
        command.args(["--user", "--preserve-credentials"]);
    }
    command.arg("--");
    command
}

/// A process that keeps a new network namespace alive, within the user namespace of `beside`.
fn keeper(lab: &Lab, beside: Option<i32>) -> Running {
    static KEEPERS: AtomicU32 = AtomicU32::new(0);
    let ready = lab.path(&format!("keeper{}", KEEPERS.fetch_add(1, Ordering::Relaxed)));
    let mut command = match beside {
        None => making(),
        Some(pid) => {
            let mut command = entering(pid);
            command.args(["unshare", "--net", "--"]);
            command
        }
    };
    // Each program here becomes the next, so the child's process is the one in the namespace.
    command.args(["sh", "-c", "touch \"$1\" && exec sleep 1800", "sh"]).arg(&ready);
    command.stdin(Stdio::null());
    let keeper = lab.spawn(command);
    lab.until("a namespace is made", || ready.exists());
    keeper
}

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").args(["-a", "--"]).args([from, to]).status().unwrap();
    assert!(status.success(), "cannot copy {}", from.display());
}
