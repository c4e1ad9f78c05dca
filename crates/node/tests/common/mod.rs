//! Nodes in threads, and a program that talks to them over the raw local socket.

use mutirao_node::{JoinTarget, Node, Options, Stop};
use mutirao_trust::{Authority, Home, Name, Role, Validity};
use mutirao_wire::frame::Decoder;
use mutirao_wire::local::{Allocate, Allocated, ClientHello, ClientWelcome, HeldLease, LocalMessage, Query};
use mutirao_wire::node::Want;
use mutirao_wire::query::{NodeRow, Question, Row, Topic};
use mutirao_wire::{AppId, Epoch, NodeRef, PoolId};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Longest that anything in these tests may take. Generous: machines are busy, and it is to tell a hang from
/// slowness only.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A pool whose identities all lie in one directory.
pub struct Pool {
    pub dir: tempfile::TempDir,
    authority: Authority,
}

/// A node that runs in a thread.
pub struct Running {
    pub node: NodeRef,
    pub socket: PathBuf,
    /// It waited in vain for those it was to join.
    pub still_alone: bool,
    /// Who was to be its parent and came below it.
    pub contradicts: Option<String>,
    stop: Stop,
    thread: Option<JoinHandle<()>>,
}

impl Pool {
    /// With an administrator, as `mutirao init` makes it: who runs the nodes, and so owns them.
    pub fn new() -> Pool {
        let pool = Pool::without_users();
        pool.enrol(Role::Admin, "ana");
        pool
    }

    pub fn without_users() -> Pool {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path().join("state"));
        let authority = home.create_pool(&Name::new("lab").unwrap(), "correct horse battery").unwrap();
        Pool { dir, authority }
    }

    pub fn id(&self) -> PoolId {
        self.authority.pool().id()
    }

    pub fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub fn enrol(&self, role: Role, name: &str) {
        let home = Home::at(self.state());
        home.enrol(&self.authority, role, &Name::new(name).unwrap(), Validity::days(1)).unwrap();
    }

    /// Options for a node on loopback with `slots`, which joins the nodes named.
    pub fn options(&self, name: &str, slots: u16, join: &[&str]) -> Options {
        if !self.state().join("nodes").join(name).exists() {
            self.enrol(Role::Node, name);
        }
        Options {
            runtime: self.dir.path().join("run"),
            listen: vec!["127.0.0.1:0".parse().unwrap()],
            slots: Some(slots),
            join: join.iter().map(|target| JoinTarget::parse(target)).collect(),
            ..Options::new(self.state(), name)
        }
    }

    pub fn start(&self, name: &str, slots: u16, join: &[&str]) -> Running {
        run(self.options(name, slots, join))
    }
}

/// A node in a process of its own, which can be killed by force.
pub struct Process {
    child: std::process::Child,
    pub socket: PathBuf,
}

/// The environment variable that makes `child_node` a node.
const CHILD: &str = "MUTIRAO_TEST_NODE";

impl Pool {
    /// Starts a node with one slot as a process: this very test program, told to be a node.
    pub fn spawn(&self, name: &str, join: &str) -> Process {
        drop(self.options(name, 1, &[join])); // enrols it
        let base = self.dir.path().join("run");
        let place = [self.state().to_str().unwrap(), base.to_str().unwrap(), name, join].join("|");
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_node", "--ignored"])
            .env(CHILD, place)
            .spawn()
            .unwrap();
        let directory = mutirao_node::pool_directory(&base, self.id());
        let socket = directory.join(format!("{name}.sock"));
        let start = Instant::now();
        while UnixStream::connect(&socket).is_err() {
            assert!(start.elapsed() < PATIENCE, "the child does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Process { child, socket }
    }
}

/// What the test `child_node` does in the child.
pub fn be_a_node() {
    let Ok(place) = std::env::var(CHILD) else { return };
    let [state, runtime, name, join] = place.split('|').collect::<Vec<_>>()[..] else { panic!("{place}") };
    let options = Options {
        runtime: runtime.into(),
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        slots: Some(1),
        join: vec![JoinTarget::parse(join)],
        signals: true,
        ..Options::new(state, name)
    };
    Node::start(options).unwrap().run().unwrap();
}

impl Process {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ends it by SIGTERM; whether it ended as it should.
    pub fn terminate(mut self) -> bool {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap().success()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail if it has ended, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a node and waits until it says it is ready.
pub fn run(mut options: Options) -> Running {
    let (sender, receiver) = std::sync::mpsc::channel();
    options.ready = Some(Box::new(move |ready| drop(sender.send(ready))));
    let node = Node::start(options).unwrap();
    let stop = node.stopper();
    let thread = std::thread::spawn(move || node.run().unwrap());
    let ready = receiver.recv_timeout(PATIENCE).unwrap();
    Running {
        node: ready.node,
        socket: ready.socket.unwrap(),
        still_alone: ready.still_alone,
        contradicts: ready.contradicts,
        stop,
        thread: Some(thread),
    }
}

impl Running {
    /// Stops it and waits for its end.
    pub fn stop(mut self) {
        self.stop.stop();
        self.thread.take().unwrap().join().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.stop();
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            if !std::thread::panicking() {
                ended.unwrap();
            }
        }
    }
}

/// A program on the local socket of a node.
pub struct Program {
    stream: UnixStream,
    decoder: Decoder,
    pub welcome: ClientWelcome,
    sequence: u32,
    /// News that came while something else was waited for.
    pub news: Vec<mutirao_wire::local::LeaseNews>,
}

impl Program {
    pub fn connect(socket: &Path, app: u128) -> Program {
        Program::return_to(socket, app, 0, Vec::new()).unwrap()
    }

    /// Comes (back) to a node; the text of a refusal if it is turned away.
    pub fn return_to(
        socket: &Path,
        app: u128,
        epoch: u32,
        leases: Vec<HeldLease>,
    ) -> Result<Program, String> {
        Program::over(UnixStream::connect(socket).unwrap(), app, epoch, leases)
    }

    pub fn over(
        stream: UnixStream,
        app: u128,
        epoch: u32,
        leases: Vec<HeldLease>,
    ) -> Result<Program, String> {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let hello = ClientHello {
            protocol: (1, 1),
            app: AppId(app),
            name: "test".into(),
            epoch: Epoch(epoch),
            homes: Vec::new(),
            leases,
            plugin: None,
            as_user: false,
        };
        let node = NodeRef {
            id: mutirao_wire::NodeId([0; 32]),
            incarnation: mutirao_wire::Incarnation(0),
            name: String::new(),
            addresses: Vec::new(),
        };
        let welcome = ClientWelcome { protocol: 0, node, pool: None, user: String::new(), spinner: 0 };
        let decoder = Decoder::new(64 * 1024);
        let mut program = Program { stream, decoder, welcome, sequence: 0, news: Vec::new() };
        program.send(hello);
        match program.next().unwrap() {
            LocalMessage::ClientWelcome(welcome) => program.welcome = welcome,
            LocalMessage::ClientRefused(refused) => return Err(refused.text),
            other => panic!("unexpected {other:?}"),
        }
        Ok(program)
    }

    pub fn send(&mut self, message: impl Into<LocalMessage>) {
        let mut bytes = Vec::new();
        message.into().put(&mut bytes);
        self.stream.write_all(&bytes).unwrap();
    }

    pub fn stream(&self) -> &UnixStream {
        &self.stream
    }

    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// The next message; `None` at the end of the connection.
    pub fn next(&mut self) -> Option<LocalMessage> {
        loop {
            if let Some((header, body)) = self.decoder.next_frame().unwrap() {
                return Some(LocalMessage::read(&header, body).unwrap());
            }
            let mut bytes = [0; 4096];
            match self.stream.read(&mut bytes).unwrap() {
                0 => return None,
                count => self.decoder.push(&bytes[..count]),
            }
        }
    }

    /// Asks for `count` leases of one slot, slots only; all messages about it, merged.
    pub fn allocate(&mut self, count: u32, at_least: u32) -> Allocated {
        self.sequence += 1;
        let want = Want { count, ..Want::default() };
        self.send(Allocate { sequence: self.sequence, want, at_least, workers: false, wait: None });
        let mut all: Option<Allocated> = None;
        loop {
            match self.next().unwrap() {
                LocalMessage::Allocated(part) => {
                    assert_eq!(part.sequence, self.sequence);
                    let more = part.more;
                    match &mut all {
                        None => all = Some(part),
                        Some(all) => all.leases.extend(part.leases),
                    }
                    if !more {
                        return all.unwrap();
                    }
                }
                LocalMessage::LeaseNews(news) => self.news.push(news),
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    pub fn ask(&mut self, to: Option<&str>, topic: Topic) -> (Vec<Row>, u32) {
        self.sequence += 1;
        let number = self.sequence;
        let question = Question { to: to.map(str::to_owned), user: String::new(), order: Vec::new(), topic };
        self.send(Query { number, question });
        let mut rows = Vec::new();
        loop {
            match self.next().unwrap() {
                LocalMessage::Rows(part) => {
                    assert_eq!(part.number, number);
                    rows.extend(part.rows);
                    if !part.more {
                        return (rows, part.missing);
                    }
                }
                LocalMessage::LeaseNews(news) => self.news.push(news),
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    /// All nodes, by name.
    pub fn nodes(&mut self) -> Vec<NodeRow> {
        let (rows, _) = self.ask(None, Topic::Nodes);
        let mut nodes: Vec<NodeRow> = rows
            .into_iter()
            .map(|row| match row {
                Row::Node(node) => node,
                other => panic!("unexpected {other:?}"),
            })
            .collect();
        nodes.sort_by(|a, b| a.node.name.cmp(&b.node.name));
        nodes
    }

    /// Waits until the nodes are as `want` says.
    pub fn wait_nodes(&mut self, what: &str, want: impl Fn(&[NodeRow]) -> bool) -> Vec<NodeRow> {
        let start = Instant::now();
        loop {
            let nodes = self.nodes();
            if want(&nodes) {
                return nodes;
            }
            assert!(start.elapsed() < PATIENCE, "{what} did not come true; last seen: {nodes:#?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The next news of a lease.
    pub fn next_news(&mut self) -> mutirao_wire::local::LeaseNews {
        if !self.news.is_empty() {
            return self.news.remove(0);
        }
        match self.next().unwrap() {
            LocalMessage::LeaseNews(news) => news,
            other => panic!("unexpected {other:?}"),
        }
    }
}
