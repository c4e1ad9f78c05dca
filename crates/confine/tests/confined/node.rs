//! The node's part: starts confined workers and reads what they report.

use mutirao_confine::{Level, Plan};
use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use tempfile::TempDir;

/// A machine in small: keys, a plugin and a working directory.
pub struct Node {
    place: TempDir,
}

/// How a plugin ended.
pub struct End {
    pub status: ExitStatus,
    pub stderr: String,
    /// What came back on descriptor 3.
    pub channel: String,
}

impl Node {
    pub fn new() -> Node {
        let place = tempfile::Builder::new().prefix("node-").tempdir().expect("a temporary directory");
        let node = Node { place };
        for directory in ["state", "plugin", "work", "work/own"] {
            fs::create_dir(node.path(directory)).expect("created");
        }
        fs::write(node.path("state/key"), "the node's key").expect("written");
        fs::copy(std::env::current_exe().expect("this binary"), node.path("plugin/program")).expect("copied");
        fs::set_permissions(node.path("plugin/program"), PermissionsExt::from_mode(0o755))
            .expect("executable");
        fs::write(node.path("plugin/data"), "data").expect("written");
        node
    }

    pub fn path(&self, inside: &str) -> PathBuf {
        self.place.path().join(inside)
    }

    /// A plan that asks for all this kernel has and attempts `what`.
    pub fn plan(&self, what: &[&str]) -> Plan {
        let mut plan = Plan::new(self.path("plugin/program"), self.path("plugin"), self.path("work/own"));
        plan.minimum = Level::Files;
        plan.arguments = ["attempt"].iter().chain(what).map(|word| (*word).to_owned()).collect();
        plan
    }

    /// A plan for another program.
    pub fn program(&self, path: &Path, arguments: &[&str]) -> Plan {
        let mut plan = self.plan(&[]);
        plan.executable = path.to_owned();
        plan.arguments = arguments.iter().map(|word| (*word).to_owned()).collect();
        plan
    }

    /// Starts a worker with `plan` and waits for its end.
    pub fn run(&self, plan: &Plan) -> End {
        let (mut mine, its) = UnixStream::pair().expect("a pair");
        let mut child = Command::new(self.path("plugin/program"))
            .arg("worker")
            .env("SECRET", "of the node")
            .stdin(OwnedFd::from(its))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the worker starts");
        plan.send(&mut mine).expect("the plan is sent");
        let (mut stderr, mut channel) = (String::new(), String::new());
        child.stderr.take().expect("piped").read_to_string(&mut stderr).expect("text");
        mine.read_to_string(&mut channel).expect("text");
        End { status: child.wait().expect("it ends"), stderr, channel }
    }

    /// Attempts one thing at each version of Landlock that is to be had here.
    pub fn attempt(&self, what: &[&str]) -> Vec<(u8, End)> {
        let newest = mutirao_confine::probe().landlock_abi;
        let attempt = |abi| {
            let mut plan = self.plan(what);
            plan.landlock_abi_max = Some(abi);
            (abi, self.run(&plan))
        };
        (1..=newest).map(attempt).collect()
    }

    /// Makes the attempt with nothing confined.
    pub fn unconfined(&self, what: &[&str]) -> String {
        let (mut mine, its) = UnixStream::pair().expect("a pair");
        let mut command = Command::new(self.path("plugin/program"));
        command
            .arg("attempt-unconfined")
            .args(what)
            .stdin(OwnedFd::from(its))
            .current_dir(self.path("work/own"));
        let status = command.status().expect("it starts");
        drop(command);
        let mut channel = String::new();
        mine.read_to_string(&mut channel).expect("text");
        assert!(status.success(), "{what:?}: {status}");
        channel
    }

    /// The attempt must be refused with an error of the system, whatever the version.
    pub fn refused(&self, what: &[&str]) {
        for (abi, end) in self.attempt(what) {
            assert!(end.channel.starts_with("refused"), "{what:?}, Landlock {abi}: {}", end.words());
        }
    }

    /// The attempt must succeed, whatever the version.
    pub fn allowed(&self, what: &[&str]) {
        for (abi, end) in self.attempt(what) {
            assert!(
                end.channel.starts_with("done") && end.status.success(),
                "{what:?}, Landlock {abi}: {}",
                end.words()
            );
        }
    }
}

impl End {
    pub fn words(&self) -> String {
        format!("{}, said {:?}, standard error {:?}", self.status, self.channel, self.stderr)
    }
}
