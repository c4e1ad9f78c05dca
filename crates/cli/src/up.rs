//! Starting and stopping the nodes of this machine.

use crate::args::{DownArgs, Output, UpArgs};
use crate::membership::{self, home};
use crate::output::put;
use crate::output::remark;
use crate::reading::{self, LIST_BYTES_MAX};
use crate::wanting::LendArgs;
use anyhow::{Context, Result, bail};
use mutirao_node::{JoinTarget, LocalNode, Node, Options, Ready};
use mutirao_topology::Topology;
use mutirao_trust::{Home, Name, Pool, Role, Validity, random_passphrase};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::{Value, json};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Days for which identities made for `--local` are good.
const DAYS: u32 = 3650;
/// How long a node may take to leave.
const LEAVE: Duration = Duration::from_secs(20);

/// The base of the runtime directories: `MUTIRAO_RUNTIME_DIR`, or the usual place.
pub fn runtime() -> PathBuf {
    match std::env::var_os("MUTIRAO_RUNTIME_DIR").filter(|dir| !dir.is_empty()) {
        Some(dir) => dir.into(),
        None => mutirao_node::default_runtime(),
    }
}

/// `mutirao up`
pub fn up(args: &UpArgs, output: Output) -> Result<()> {
    if let Some(count) = args.local {
        return up_local(args, count, output);
    }
    let home = home()?;
    let name = own_name(&home, args.name.as_deref())?;
    home.node(&name)?; // Who has no identity here hears so now, not from a log.
    let (join, here) = match &args.topology {
        Some(path) => (parent_in(path, &name)?, true),
        None if args.parent.is_empty() => (args.join.clone(), false),
        None => (args.parent.clone(), true),
    };
    if args.foreground {
        return serve(args, &home, &name, &join, here, output);
    }
    let plan = Plan {
        name,
        join,
        here,
        slots: args.slots,
        lend: args.lend.clone(),
        listen: args.listen,
        fan_out: args.fan_out,
        spin: !args.no_spin,
        sharers: args.sharers,
    };
    let ready = start(&home, &runtime(), &plan)?.ready()?;
    report(&[ready], output)
}

/// A node to be started in the background.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Its name.
    pub name: Name,
    /// Whom it joins, best first.
    pub join: Vec<String>,
    /// Exactly one of these.
    pub here: bool,
    /// Slots it lends.
    pub slots: Option<u16>,
    /// What else it lends.
    pub lend: LendArgs,
    /// Where it listens.
    pub listen: Option<SocketAddr>,
    /// Children it takes.
    pub fan_out: u16,
    /// Whether waiting processes there may spin.
    pub spin: bool,
    /// Nodes of the machine that share its memory.
    pub sharers: u16,
}

/// A node that is being started.
pub struct Starting {
    child: Child,
    name: Name,
    log: PathBuf,
}

/// Starts a node in the background: this program again, in the foreground of a session of its own.
pub fn start(home: &Home, runtime: &Path, plan: &Plan) -> Result<Starting> {
    let log = home.path().join("nodes").join(plan.name.as_str()).join("log");
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&log)
        .with_context(|| format!("cannot write {}", log.display()))?;
    let mut command = Command::new(std::env::current_exe().context("cannot find this program's own file")?);
    command
        .args(["--output", "json", "up", "--foreground", "--name", plan.name.as_str()])
        .args(["--fan-out", &plan.fan_out.to_string(), "--sharers", &plan.sharers.to_string()])
        .env("MUTIRAO_HOME", home.path())
        .env("MUTIRAO_RUNTIME_DIR", runtime)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(file);
    for parent in &plan.join {
        command.args([if plan.here { "--parent" } else { "--join" }, parent]);
    }
    if !plan.spin {
        command.arg("--no-spin");
    }
    if let Some(slots) = plan.slots {
        command.args(["--slots", &slots.to_string()]);
    }
    command.args(plan.lend.words());
    if let Some(listen) = plan.listen {
        command.args(["--listen", &listen.to_string()]);
    }
    let child = command.spawn().context("cannot start the daemon")?;
    Ok(Starting { child, name: plan.name.clone(), log })
}

impl Starting {
    /// Waits until the node serves; what it says about itself.
    pub fn ready(mut self) -> Result<Value> {
        let stdout = self.child.stdout.take().context("the daemon's standard output is not there")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        if let Ok(ready) = serde_json::from_str(&line) {
            return Ok(ready);
        }
        let status = self.child.wait()?;
        let said = tail(&self.log).unwrap_or_default();
        // What else stands there may be of a node of this name that runs.
        if let Some((_, why)) = said.rsplit_once("mutirao: ").filter(|_| status.code() == Some(1)) {
            bail!("node `{}` did not start: {}", self.name, why.trim_end());
        }
        bail!("node `{}` did not start ({status})\n{}", self.name, said.trim_end());
    }
}

/// The last lines of a log.
fn tail(path: &Path) -> Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(2000)))?;
    let mut bytes = Vec::new();
    file.take(2000).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    Ok(lines[lines.len().saturating_sub(5)..].join("\n"))
}

fn report(ready: &[Value], output: Output) -> Result<()> {
    if output == Output::Json {
        return put(&format!("{:#}\n", Value::Array(ready.to_vec())));
    }
    for node in ready {
        let word = |key: &str| node[key].as_str().unwrap_or_default().to_owned();
        let addresses = node["addresses"].as_array().map(Vec::as_slice).unwrap_or_default();
        let listens = addresses.first().and_then(Value::as_str).unwrap_or("nowhere");
        let place = match (node["parent"].as_str(), node["still_alone"].as_bool()) {
            (Some(parent), _) => format!("below `{parent}`"),
            _ if node["turned_away"].is_string() => format!("is turned away by {}", word("turned_away")),
            _ if node["contradicts"].is_string() => {
                let other = word("contradicts");
                format!(
                    "root of its tree: `{other}`, which was to be its parent, was told to come below it; such orders \
                     may leave a pool in parts"
                )
            }
            (None, Some(true)) => "has not found whom to join yet and goes on trying; see its log".into(),
            (None, _) => "root of its tree".into(),
        };
        remark!("node `{}` is up, listens on {listens}, {place}", word("name"));
    }
    Ok(())
}

/// Serves in this process until it is told to stop.
fn serve(
    args: &UpArgs,
    home: &Home,
    name: &Name,
    parents: &[String],
    here: bool,
    output: Output,
) -> Result<()> {
    log_to_stderr();
    // Alone in a session: what the terminal of whoever started it sends does not reach it. Refused to a
    // leader of a process group, such as a command typed in a shell, which is then in the foreground.
    let _ = rustix::process::setsid();
    let targets = if parents.is_empty() { &args.join } else { parents };
    let mut options = Options::new(home.path(), name.as_str());
    options.runtime = runtime();
    options.listen = args.listen.into_iter().collect();
    options.slots = args.slots;
    options.memory_mib = args.lend.memory;
    options.sharers = args.sharers;
    options.resources = args.lend.resource.clone();
    options.labels = args.lend.label.clone();
    options.join = targets.iter().map(|target| JoinTarget::parse(target)).collect();
    options.here = here;
    options.fan_out = Some(args.fan_out.into());
    options.spin = !args.no_spin;
    options.signals = true;
    options.ready = Some(Box::new(move |ready: Ready| {
        let line = ready_json(&ready).to_string();
        // Whoever started the daemon may have gone; it serves all the same.
        let _ = if output == Output::Json {
            put(&format!("{line}\n"))
        } else {
            report(&[ready_json(&ready)], Output::Text)
        };
    }));
    Ok(Node::start(options)?.run()?)
}

fn ready_json(ready: &Ready) -> Value {
    json!({
        "name": ready.node.name,
        "id": ready.node.id.to_string(),
        "addresses": ready.node.addresses,
        "socket": ready.socket,
        "parent": ready.parent,
        "still_alone": ready.still_alone,
        "contradicts": ready.contradicts,
        "turned_away": ready.turned_away,
        "pid": std::process::id(),
    })
}

fn log_to_stderr() {
    let wanted = std::env::var("MUTIRAO_LOG").ok().filter(|text| !text.is_empty());
    let filter = wanted
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| Targets::new().with_default(LevelFilter::INFO));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    tracing_subscriber::registry().with(lines).with(filter).init();
}

/// The node's name: as given, or the only one that has an identity here.
pub fn own_name(home: &Home, given: Option<&str>) -> Result<Name> {
    if let Some(name) = given {
        return Ok(Name::new(name)?);
    }
    let names = home.load_pool().map(|_| home.nodes())??;
    match &names[..] {
        [] => bail!("this machine has no node of the pool yet; `mutirao join --request FILE` asks for one"),
        [name] => Ok(name.clone()),
        several => {
            let host = membership::host_name()?;
            let list: Vec<&str> = several.iter().map(Name::as_str).collect();
            several.iter().find(|name| **name == host).cloned().with_context(|| {
                format!("several nodes have identities here ({}); choose one by --name", list.join(", "))
            })
        }
    }
}

/// The parent that a topology file gives the node; none for the root.
fn parent_in(path: &Path, name: &Name) -> Result<Vec<String>> {
    let topology = read_topology(path)?;
    if !topology.contains(name.as_str()) {
        bail!("{} does not name node `{name}`", path.display());
    }
    let target = |parent: &str| topology.place(parent).unwrap_or(parent).to_owned();
    Ok(topology.parent(name.as_str()).map(target).into_iter().collect())
}

/// Reads a topology file of either form.
pub fn read_topology(path: &Path) -> Result<Topology> {
    let text = reading::text(path, LIST_BYTES_MAX)?;
    Topology::parse(&text).with_context(|| path.display().to_string())
}

/// `mutirao up --local N`
fn up_local(args: &UpArgs, count: u16, output: Output) -> Result<()> {
    let home = home()?;
    let plans = match &args.topology {
        Some(path) => plans_of(&read_topology(path)?, count, args)?,
        None => (1..=count).map(|i| local_plan(i, args)).collect::<Result<Vec<Plan>>>()?,
    };
    let names: Vec<Name> = plans.iter().map(|plan| plan.name.clone()).collect();
    ensure_identities(&home, &names, args.passphrase_file.as_deref())?;
    let mut running = alive_nodes(&home.load_pool()?);
    running.retain(|node| names.iter().any(|name| name.as_str() == node.name));
    let (there, missing): (Vec<Plan>, Vec<Plan>) =
        plans.into_iter().partition(|plan| running.iter().any(|node| node.name == plan.name.as_str()));
    for plan in &there {
        remark!("node `{}` runs already, as it was started", plan.name);
    }
    if missing.is_empty() {
        remark!("To start all of them anew: `mutirao down --all` first.");
    }
    report(&start_all(&home, &runtime(), &missing)?, output)
}

/// Node `i` of a pool on this machine: the first is the root, the others are passed down from it.
fn local_plan(i: u16, args: &UpArgs) -> Result<Plan> {
    let join = if i > 1 { vec!["n1".to_owned()] } else { args.parent.clone() };
    Ok(Plan {
        name: Name::new(&format!("n{i}"))?,
        here: i == 1 && !join.is_empty(),
        join,
        slots: args.slots,
        lend: args.lend.clone(),
        listen: Some(args.listen.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0)))),
        fan_out: args.fan_out,
        spin: !args.no_spin,
        sharers: args.local.unwrap_or(1),
    })
}

/// The nodes of a topology file, parents before their children.
fn plans_of(topology: &Topology, count: u16, args: &UpArgs) -> Result<Vec<Plan>> {
    let names: Vec<&str> = topology.nodes().collect();
    if names.len() != usize::from(count) {
        bail!("the topology file has {} nodes, but --local says {count}", names.len());
    }
    names
        .iter()
        .map(|name| {
            let join: Vec<String> = topology.parent(name).map(str::to_owned).into_iter().collect();
            Ok(Plan { name: Name::new(name)?, here: !join.is_empty(), join, ..local_plan(1, args)? })
        })
        .collect()
}

/// Makes the pool, if there is none, and the identities that are missing.
pub fn ensure_identities(home: &Home, names: &[Name], passphrase_file: Option<&Path>) -> Result<()> {
    let (authority, present) = if home.load_pool().is_err() && !home.has_authority() {
        let authority = home.create_pool(&Name::new("local")?, &random_passphrase()?)?;
        let admin = membership::name_like(&membership::user_name())?;
        let admin = home.enrol(&authority, Role::Admin, &admin, Validity::days(DAYS))?;
        if let Some(first) = names.first() {
            mutirao_node::found_charter(home.path(), first, &admin)?;
        }
        remark!("A pool for this machine alone is made in {}.", home.path().display());
        (Some(authority), Vec::new())
    } else {
        (None, home.nodes()?)
    };
    let missing: Vec<&Name> = names.iter().filter(|name| !present.contains(name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let authority = match authority {
        Some(authority) => authority,
        None => home.open_authority(&membership::needed_passphrase(passphrase_file)?)?,
    };
    for name in missing {
        home.enrol(&authority, Role::Node, name, Validity::days(DAYS))?;
    }
    Ok(())
}

/// Starts the nodes, each once its parent serves; children of one parent at the same time.
pub fn start_all(home: &Home, runtime: &Path, plans: &[Plan]) -> Result<Vec<Value>> {
    /// Nodes that start at the same time.
    const BATCH: usize = 16;
    let mut ready: Vec<Value> = Vec::new();
    let up = |ready: &[Value], plan: &Plan| {
        let is_up = |target: &String| ready.iter().any(|node| node["name"] == target.as_str());
        let planned = |target: &String| plans.iter().any(|plan| plan.name.as_str() == target.as_str());
        plan.join.iter().all(|target| is_up(target) || !planned(target))
    };
    let mut waiting: Vec<&Plan> = plans.iter().collect();
    while !waiting.is_empty() {
        let (mut now, later): (Vec<&Plan>, Vec<&Plan>) =
            waiting.into_iter().partition(|plan| up(&ready, plan));
        let rest = now.split_off(now.len().min(BATCH));
        let starting: Vec<Starting> =
            now.into_iter().map(|plan| start(home, runtime, plan)).collect::<Result<_>>()?;
        for node in starting {
            ready.push(node.ready()?);
        }
        waiting = rest.into_iter().chain(later).collect();
    }
    Ok(ready)
}

/// The nodes of the pool that run on this machine, by name.
pub fn alive_nodes(pool: &Pool) -> Vec<LocalNode> {
    let mut nodes = mutirao_node::local_nodes(&runtime());
    nodes.retain(|node| node.pool == pool.id().to_string() && is_alive(node));
    nodes
}

/// `mutirao down`
pub fn down(args: &DownArgs, name: Option<&str>) -> Result<()> {
    let pool = home()?.load_pool()?;
    let mut nodes = alive_nodes(&pool);
    nodes.retain(|node| args.all || name.is_none_or(|name| node.name == name));
    if nodes.is_empty() {
        bail!("no node of pool `{}` runs on this machine", pool.name());
    }
    if nodes.len() > 1 && !args.all {
        let names: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
        bail!("several nodes run here ({}); choose one by --node, or take --all", names.join(", "));
    }
    // Children before parents would be kinder to the tree, but all are about to go.
    nodes.reverse();
    stop(&nodes)?;
    for node in &nodes {
        remark!("node `{}` is down", node.name);
    }
    Ok(())
}

/// Makes nodes of this machine leave, and waits until they have.
pub fn stop(nodes: &[LocalNode]) -> Result<()> {
    let mut leaving = Vec::new();
    for node in nodes {
        let pid = Pid::from_raw(node.pid.cast_signed()).context("a node's description names no process")?;
        let process = pidfd_open(pid, PidfdFlags::empty())
            .with_context(|| format!("cannot reach node `{}`", node.name))?;
        pidfd_send_signal(&process, Signal::TERM)
            .with_context(|| format!("cannot stop node `{}`", node.name))?;
        leaving.push((node, process));
    }
    for (node, process) in leaving {
        if !has_ended(&process)? {
            bail!("node `{}` (process {}) did not leave in {} s", node.name, node.pid, LEAVE.as_secs());
        }
    }
    Ok(())
}

/// Whether the process that is described listens on the socket that is described.
fn is_alive(node: &LocalNode) -> bool {
    UnixStream::connect(&node.socket)
        .ok()
        .and_then(|stream| rustix::net::sockopt::socket_peercred(&stream).ok())
        .is_some_and(|peer| peer.pid.as_raw_nonzero().get() == node.pid.cast_signed())
}

fn has_ended(process: &impl AsFd) -> Result<bool> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let timeout = Timespec { tv_sec: LEAVE.as_secs() as i64, tv_nsec: 0 };
    let mut fds = [PollFd::new(process, PollFlags::IN)];
    Ok(poll(&mut fds, Some(&timeout))? > 0)
}

/// `mutirao embedded`: a private node for the one program at the other end of standard input.
pub fn embedded(slots: Option<u16>) -> Result<()> {
    let socket = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let directory = tempfile::Builder::new()
        .prefix("mutirao-private-")
        .tempdir()
        .context("cannot make a directory for the private node among the temporary files")?;
    let mut options = Options::embedded(directory.path(), socket);
    options.signals = true;
    options.slots = slots;
    Ok(Node::start(options)?.run()?)
}
