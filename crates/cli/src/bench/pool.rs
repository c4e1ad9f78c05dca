//! A pool of real daemons on this machine, for as long as a benchmark lasts.

use crate::up::{Plan, ensure_identities, start_all};
use crate::wanting::LendArgs;
use anyhow::{Context, Result};
use mutirao::raw::{Options, Pool, Slots};
use mutirao_trust::{Home, Name};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The pool; its daemons end and its files go when it is dropped.
pub struct TestPool {
    directory: tempfile::TempDir,
    shape: Shape,
    nodes: Vec<Value>,
}

/// How the nodes of a pool are made.
#[derive(Clone)]
pub struct Shape {
    /// Nodes; the first is the root.
    pub nodes: u16,
    /// Slots of each.
    pub slots: u16,
    /// Children of each before newcomers are passed down.
    pub fan_out: u16,
    /// Whether waiting processes may spin.
    pub spin: bool,
}

impl Shape {
    fn plan(&self, name: &str, join: Option<String>) -> Result<Plan> {
        Ok(Plan {
            name: Name::new(name)?,
            join: join.into_iter().collect(),
            here: false,
            slots: Some(self.slots),
            lend: LendArgs::default(),
            listen: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
            fan_out: self.fan_out,
            spin: self.spin,
            sharers: 1,
        })
    }
}

impl TestPool {
    /// Starts the daemons and waits until all are in one tree.
    pub fn start(shape: &Shape) -> Result<TestPool> {
        let directory = tempfile::Builder::new().prefix("mutirao-bench-").tempdir()?;
        let home = Home::at(home_below(&directory));
        let plans = (1..=shape.nodes)
            .map(|i| shape.plan(&format!("n{i}"), (i > 1).then(|| "n1".into())))
            .collect::<Result<Vec<Plan>>>()?;
        let names: Vec<Name> = plans.iter().map(|plan| plan.name.clone()).collect();
        ensure_identities(&home, &names, None)?;
        let mut pool = TestPool { directory, shape: shape.clone(), nodes: Vec::new() };
        pool.nodes = start_all(&home, &pool.runtime(), &plans)?;
        pool.settle(shape.nodes)?;
        Ok(pool)
    }

    /// Waits until the first node knows them all.
    fn settle(&self, nodes: u16) -> Result<()> {
        let pool = self.open("n1", "settle", Slots::ByHand)?;
        let patience = Instant::now() + Duration::from_secs(60);
        while pool.nodes()?.len() < usize::from(nodes) {
            anyhow::ensure!(Instant::now() < patience, "the nodes have not become one tree in a minute");
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Starts a node again whose process was killed; it joins the one called `join`.
    pub fn restart(&mut self, name: &str, join: &str) -> Result<()> {
        rustix::process::waitpid(Some(self.pid(name)?), rustix::process::WaitOptions::empty())?;
        let home = Home::at(self.home());
        let plan = self.shape.plan(name, Some(join.to_owned()))?;
        let started = start_all(&home, &self.runtime(), &[plan])?;
        self.nodes.retain(|node| node["name"] != name);
        self.nodes.extend(started);
        Ok(())
    }

    fn runtime(&self) -> PathBuf {
        self.directory.path().join("run")
    }

    /// Where the pool's identities, settings and bags lie.
    pub fn home(&self) -> PathBuf {
        home_below(&self.directory)
    }

    /// A directory for further files.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The pool through the node called `name`.
    pub fn open(&self, name: &str, application: &str, slots: Slots) -> Result<Pool> {
        let socket = self.node(name)?["socket"].as_str().context("the node has no socket")?;
        let options = Options {
            name: Some(application.into()),
            socket: Some(socket.into()),
            slots,
            ..Options::default()
        };
        Ok(Pool::open(options)?)
    }

    /// `mutirao`, to be run by way of the node called `name`.
    pub fn command(&self, name: &str) -> Result<Command> {
        let socket = self.node(name)?["socket"].as_str().context("the node has no socket")?;
        let mut command = Command::new(std::env::current_exe()?);
        command
            .env("MUTIRAO_HOME", self.home())
            .env("MUTIRAO_RUNTIME_DIR", self.runtime())
            .env("MUTIRAO_SOCKET", socket)
            .env_remove("MUTIRAO_NODE")
            .env_remove("MUTIRAO_POOL")
            .stdin(Stdio::null());
        Ok(command)
    }

    /// The process of the node called `name`.
    pub fn pid(&self, name: &str) -> Result<Pid> {
        let pid = self.node(name)?["pid"].as_i64().context("the node has no process")?;
        Pid::from_raw(i32::try_from(pid)?).context("the node has no process")
    }

    fn node(&self, name: &str) -> Result<&Value> {
        self.nodes
            .iter()
            .find(|node| node["name"] == name)
            .with_context(|| format!("there is no node `{name}`"))
    }
}

fn home_below(directory: &tempfile::TempDir) -> PathBuf {
    directory.path().join("home")
}

impl Drop for TestPool {
    fn drop(&mut self) {
        let pids = self.nodes.iter().filter_map(|node| node["pid"].as_i64());
        let pids: Vec<Pid> = pids.filter_map(|pid| Pid::from_raw(i32::try_from(pid).ok()?)).collect();
        for pid in &pids {
            // They are our children and not waited for, so the numbers are still theirs.
            let _ = kill_process(*pid, Signal::TERM);
            // One that stands still hears of it only when it goes on.
            let _ = kill_process(*pid, Signal::CONT);
        }
        for pid in pids {
            let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
        }
    }
}
