//! A place of its own for each test: pools of real daemons that end, and files that go, with it.
#![allow(dead_code)] // Each test binary uses a part of it.

mod disk;
pub mod hosts;
pub mod random;
pub mod screen;

use serde_json::Value;
use std::ffi::OsStr;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Longest wait for something that ought to happen at once. Generous: machines are busy, and it is to tell a
/// hang from slowness only. How long things take is measured by the benchmarks.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// A state directory, a runtime directory and scratch room.
pub struct Lab {
    directory: tempfile::TempDir,
    home: PathBuf,
    runtime: PathBuf,
    /// Homes of further machines, whose daemons end too.
    homes: Vec<PathBuf>,
}

/// What a command said and how it ended.
pub struct Said {
    pub out: String,
    pub err: String,
    pub code: Option<i32>,
}

impl Said {
    fn of(output: Output) -> Said {
        Said {
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
            code: output.status.code(),
        }
    }

    /// What it printed; the test fails if it did not end well.
    #[track_caller]
    pub fn well(self) -> String {
        assert_eq!(self.code, Some(0), "standard output:\n{}\nstandard error:\n{}", self.out, self.err);
        self.out
    }

    /// What it printed, as JSON.
    #[track_caller]
    pub fn json(self) -> Value {
        let out = self.well();
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error} in:\n{out}"))
    }

    /// What it complained of; the test fails if it ended well, or showed the inside of the program.
    #[track_caller]
    pub fn complaint(self) -> String {
        assert_ne!(self.code, Some(0), "it should have failed, but said:\n{}", self.out);
        for inside in ["panicked at", "RUST_BACKTRACE", "Some(", "Err("] {
            assert!(!self.err.contains(inside), "{}", self.err);
        }
        self.err
    }
}

impl Default for Lab {
    fn default() -> Self {
        Lab::new()
    }
}

impl Lab {
    /// An empty place.
    pub fn new() -> Lab {
        let directory = tempfile::Builder::new().prefix("mtr-").tempdir().unwrap();
        let home = directory.path().join("home");
        let runtime = directory.path().join("run");
        Lab { directory, home, runtime, homes: Vec::new() }
    }

    /// A pool of `nodes` on this machine, with so many slots each.
    pub fn with_pool(nodes: u16, slots: u16) -> Lab {
        let lab = Lab::new();
        lab.up_local(nodes, slots, &[]);
        lab
    }

    /// Starts `nodes` nodes, `n1` the root, and waits until they are one tree.
    #[track_caller]
    pub fn up_local(&self, nodes: u16, slots: u16, more: &[&str]) {
        let (nodes_text, slots) = (nodes.to_string(), slots.to_string());
        let mut args = vec!["up", "--local", &nodes_text, "--slots", &slots];
        args.extend(more);
        self.run(args).well();
        self.until("all nodes are in one tree", || self.nodes().len() == usize::from(nodes));
    }

    /// Settings of all nodes that have none of their own, before they start.
    pub fn settings(&self, text: &str) {
        std::fs::create_dir_all(self.home()).unwrap();
        std::fs::write(self.home().join("node.toml"), text).unwrap();
    }

    /// The state directory.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// Room for files.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file into the room and gives its path.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// Compiles a C program of the examples, or one of that path, into this room, with the library where only its own path leads to.
    pub fn compile(&self, name: &str) -> PathBuf {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let built = Path::new(Lab::binary()).with_file_name("libmutirao_c.so");
        assert!(built.exists(), "{} is missing: run `cargo build --workspace` first", built.display());
        let libraries = self.path("lib");
        std::fs::create_dir_all(&libraries).unwrap();
        let library = libraries.join("libmutirao.so.0");
        if !library.exists() {
            std::os::unix::fs::symlink(&built, &library).unwrap();
        }
        let source = root.join("examples/c").join(name).with_extension("c");
        let program = self.path(source.file_stem().unwrap().to_str().unwrap());
        let compiled = Command::new("cc")
            .args(["-O2", "-Wall", "-I"])
            .arg(root.join("crates/capi/include"))
            .arg(&source)
            .arg("-o")
            .arg(&program)
            .arg(&library)
            .arg(format!("-Wl,-rpath,{}", libraries.display()))
            .arg("-lm")
            .output()
            .expect("a C compiler");
        assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
        program
    }

    /// The program under test.
    pub fn binary() -> &'static str {
        env!("CARGO_BIN_EXE_mutirao")
    }

    /// The program whose operations misbehave; built with the workspace.
    pub fn program() -> PathBuf {
        let path = Path::new(Lab::binary()).with_file_name("mutirao-test-program");
        assert!(path.exists(), "{} is missing: run `cargo build --workspace` first", path.display());
        path
    }

    /// A command in this place, with no other daemon in reach.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        self.command_at(&self.home, &self.runtime, program)
    }

    fn command_at(&self, home: &Path, runtime: &Path, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        self.settle(&mut command, home, runtime);
        command
    }

    /// Leaves no daemon in reach of a command but those of `runtime`.
    fn settle(&self, command: &mut Command, home: &Path, runtime: &Path) {
        for name in ["MUTIRAO_SOCKET", "MUTIRAO_NODE", "MUTIRAO_POOL", "MUTIRAO_PASSPHRASE_FILE"] {
            command.env_remove(name);
        }
        command
            .env("MUTIRAO_HOME", home)
            .env("MUTIRAO_RUNTIME_DIR", runtime)
            .env("MUTIRAO_BIN", Lab::binary())
            .stdin(Stdio::null());
    }

    /// Runs `mutirao` with these arguments, through node `n1` of the pool, if there is one.
    pub fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Said {
        Said::of(self.mutirao(args).output().unwrap())
    }

    /// `mutirao` with these arguments, to be run.
    pub fn mutirao<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = self.command(Lab::binary());
        // Where no pool was ever brought up no node is meant.
        if std::fs::read_dir(&self.runtime).is_ok_and(|mut pools| pools.next().is_some()) {
            command.env("MUTIRAO_NODE", "n1");
        }
        command.args(args);
        command
    }

    /// `mutirao bag`, in the lab's own room.
    pub fn bag(&self, args: &[&str]) -> Command {
        let mut command = self.mutirao(["bag"].iter().chain(args));
        command.env_remove("MUTIRAO_NODE").current_dir(self.path(""));
        command
    }

    /// Starts a command in the background.
    pub fn spawn(&self, mut command: Command) -> Running {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let start = Instant::now();
        loop {
            match command.spawn() {
                // A test beside this one forked while the program was written, and its child has not let go of it.
                Err(error) if error.kind() == ErrorKind::ExecutableFileBusy && start.elapsed() < PATIENCE => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                child => return Running { child: Some(child.unwrap()) },
            }
        }
    }

    /// Has calls made at a node until the test has seen enough of them; with `slots`, that many are held for the
    /// whole time.
    pub fn flow(&self, node: &str, operation: &str, span_ms: u64, slots: u32) -> Flow {
        let mut command = self.command(Lab::program());
        command.env("MUTIRAO_NODE", node);
        self.flow_by(command, operation, span_ms, slots)
    }

    fn flow_by(&self, mut command: Command, operation: &str, span_ms: u64, slots: u32) -> Flow {
        static FLOWS: AtomicU32 = AtomicU32::new(0);
        let stop = self.path(&format!("stop{}", FLOWS.fetch_add(1, Ordering::Relaxed)));
        command.args(["flow", operation]).arg(&stop).args([span_ms.to_string(), slots.to_string()]);
        Flow { calls: self.spawn(command), stop }
    }

    /// Another machine: a home and a runtime directory of its own.
    pub fn machine(&mut self, name: &str) -> Machine {
        let base = self.directory.path().join(name);
        let machine = Machine { home: base.join("home"), runtime: base.join("run") };
        self.homes.push(base);
        machine
    }

    /// A pool of this machine's node `n1` with so many slots and another machine's node `b` below it, whose directory
    /// has no key of the pool's administrator and this file of settings.
    #[track_caller]
    pub fn with_another_machine(slots: u16, settings: &str) -> (Lab, Machine) {
        let mut lab = Lab::new();
        let passphrase = lab.file("passphrase", "correct horse battery\n");
        let passphrase = passphrase.to_str().unwrap();
        lab.run(["init", "--node-name", "n1", "--admin", "ana", "--passphrase-file", passphrase]).well();
        lab.run(["up", "--slots", &slots.to_string(), "--listen", "127.0.0.1:0"]).well();
        let address = lab.node("n1")["addresses"][0].as_str().unwrap().to_owned();
        let other = lab.machine("b");
        let request = lab.path("b.request");
        let request = request.to_str().unwrap();
        lab.run_at(&other, ["join", "--name", "b", "--request", request]).well();
        let answer = lab.run(["invite", request, "--passphrase-file", passphrase]).well();
        let answer = lab.file("b.answer", answer);
        lab.run_at(&other, ["join", answer.to_str().unwrap()]).well();
        std::fs::write(other.home.join("node.toml"), settings).unwrap();
        lab.run_at(&other, ["up", "--slots", "1", "--listen", "127.0.0.1:0", "--parent", &address]).well();
        lab.until("b has joined", || lab.nodes().len() == 2);
        (lab, other)
    }

    /// A command on another machine.
    pub fn command_on(&self, machine: &Machine, program: impl AsRef<OsStr>) -> Command {
        self.command_at(&machine.home, &machine.runtime, program)
    }

    /// Runs `mutirao` on another machine.
    pub fn run_at<S: AsRef<OsStr>>(&self, machine: &Machine, args: impl IntoIterator<Item = S>) -> Said {
        Said::of(self.command_on(machine, Lab::binary()).args(args).output().unwrap())
    }

    /// The rows of `mutirao nodes`.
    #[track_caller]
    pub fn nodes(&self) -> Vec<Value> {
        self.rows(["nodes"])
    }

    /// The rows of any listing.
    #[track_caller]
    pub fn rows<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Vec<Value> {
        match self.run(["--output", "json"].into_iter().chain(args)).json() {
            Value::Array(rows) => rows,
            other => panic!("a list was expected: {other}"),
        }
    }

    /// The row of one node.
    #[track_caller]
    pub fn node(&self, name: &str) -> Value {
        let rows = self.nodes();
        rows.iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("no {name} in {rows:?}")).clone()
    }

    /// Free slots of the pool.
    #[track_caller]
    pub fn free_slots(&self) -> u64 {
        self.nodes().iter().filter_map(|row| row["slots_free"].as_u64()).sum()
    }

    /// The process of a daemon of this place.
    #[track_caller]
    pub fn pid(&self, node: &str) -> i32 {
        pid_in(&self.runtime, node)
    }

    /// Kills a daemon of this place, as with `kill -9`, and waits until it has let go of all it held.
    #[track_caller]
    pub fn kill(&self, node: &str) {
        use rustix::event::{PollFd, PollFlags, poll};
        use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
        let pid = Pid::from_raw(self.pid(node)).unwrap();
        let process = pidfd_open(pid, PidfdFlags::empty()).unwrap();
        pidfd_send_signal(&process, Signal::KILL).unwrap();
        poll(&mut [PollFd::new(&process, PollFlags::IN)], None).unwrap();
    }

    /// However busy this machine is, another keeper of a bag is there before leases lapse.
    pub fn outlast_elections(&self) {
        let charter = self.run(["charter", "show"]).well().replace("lapse_ms = 10000", "lapse_ms = 120000");
        let draft = self.file("charter.toml", charter);
        self.run(["charter", "edit", draft.to_str().unwrap()]).well();
    }

    /// Bytes that a daemon has written so far, to files and sockets.
    pub fn written(&self, node: &str) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/io", self.pid(node))).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("wchar: ")).unwrap();
        line.parse().unwrap()
    }

    /// The local socket of a daemon of this place.
    #[track_caller]
    pub fn socket(&self, node: &str) -> PathBuf {
        described(&self.runtime, node)["socket"].as_str().unwrap().into()
    }

    /// Waits until `what` holds.
    #[track_caller]
    pub fn until(&self, what: &str, holds: impl FnMut() -> bool) {
        self.until_within(PATIENCE, what, holds);
    }

    /// Waits for so long until `what` holds.
    #[track_caller]
    pub fn until_within(&self, patience: Duration, what: &str, mut holds: impl FnMut() -> bool) {
        let start = Instant::now();
        while !holds() {
            assert!(start.elapsed() < patience, "{what}: not after {patience:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            print_logs(&self.home);
        }
        let _ = self.command(Lab::binary()).args(["down", "--all"]).output();
        for base in &self.homes {
            let _ = self
                .command_at(&base.join("home"), &base.join("run"), Lab::binary())
                .args(["down", "--all"])
                .output();
        }
    }
}

#[track_caller]
fn pid_in(runtime: &Path, node: &str) -> i32 {
    described(runtime, node)["pid"].as_i64().unwrap() as i32
}

/// What a daemon says about itself in the runtime directory.
#[track_caller]
fn described(runtime: &Path, node: &str) -> Value {
    for entry in std::fs::read_dir(runtime).unwrap().flatten() {
        if let Ok(text) = std::fs::read_to_string(entry.path().join(format!("{node}.json"))) {
            return serde_json::from_str(&text).unwrap();
        }
    }
    panic!("{node} is not described in {}", runtime.display());
}

fn print_logs(home: &Path) {
    let nodes = std::fs::read_dir(home.join("nodes")).into_iter().flatten().flatten();
    for log in nodes.map(|node| node.path().join("log")).filter(|log| log.exists()) {
        eprintln!("--- {}\n{}", log.display(), std::fs::read_to_string(&log).unwrap_or_default());
    }
}

/// The processes that sleep for so many seconds.
pub fn sleepers(seconds: &str) -> Vec<i32> {
    let sleeps = |pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line == format!("sleep\0{seconds}\0").into_bytes()
    };
    let names = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.file_name());
    let mut pids: Vec<i32> = names.filter_map(|name| name.to_str()?.parse().ok()).filter(sleeps).collect();
    pids.sort_unstable();
    pids
}

/// The SHA-256 of a file.
pub fn sum(path: &Path) -> String {
    let said = Command::new("sha256sum").arg(path).output().unwrap();
    String::from_utf8(said.stdout).unwrap().split(' ').next().unwrap().to_owned()
}

/// Kills a process that is no child of the test.
pub fn kill_process(pid: i32) {
    use rustix::process::{Pid, Signal};
    // It may have ended by itself.
    let _ = rustix::process::kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
}

/// Another machine of a test.
pub struct Machine {
    pub home: PathBuf,
    pub runtime: PathBuf,
}

/// Calls that go on and on.
pub struct Flow {
    calls: Running,
    stop: PathBuf,
}

impl Flow {
    /// Makes no more, waits for those under way, and says what came of all.
    #[track_caller]
    pub fn end(self) -> Value {
        std::fs::write(&self.stop, "").unwrap();
        self.calls.wait().json()
    }

    /// The same, where each call has to give its result.
    #[track_caller]
    pub fn end_well(self) -> Value {
        let said = self.end();
        assert_eq!(said["results"], said["calls"], "{said}");
        assert_eq!((&said["wrong"], &said["failures"]), (&0.into(), &serde_json::json!({})), "{said}");
        said
    }

    /// Kills the program that makes them.
    pub fn kill(self) {
        self.calls.kill();
    }
}

/// Workers of `node` that are in the middle of a call.
pub fn busy(workers: &[Value], node: &str) -> usize {
    workers.iter().filter(|row| row["node"] == node && row["operation"].is_string()).count()
}

/// A process in the background; killed when dropped.
pub struct Running {
    child: Option<Child>,
}

impl Running {
    /// Its process.
    pub fn pid(&self) -> i32 {
        self.child.as_ref().unwrap().id() as i32
    }

    /// Waits for its end.
    pub fn wait(mut self) -> Said {
        Said::of(self.child.take().unwrap().wait_with_output().unwrap())
    }

    /// Kills it, as with `kill -9`.
    pub fn kill(mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
