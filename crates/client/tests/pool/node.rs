//! A small node: one program, workers of its own program here, and leases elsewhere that it plays itself.

use crate::socket::{Received, Socket};
use mutirao::raw::wire::frame::{HEADER_BYTES, Header, flags, put_frame};
use mutirao::raw::wire::kind::Kind;
use mutirao::raw::wire::local::*;
use mutirao::raw::wire::node::{Arch, Hindrance, Note};
use mutirao::raw::wire::stream::{
    CallExtent, Resumed, StreamMessage, credit_header, failure, failure_header, read_aside, result_header,
};
use mutirao::raw::wire::worker::{Fork, WORKER_ENV, WorkerMessage};
use mutirao::raw::wire::{CallId, Handle, Incarnation, LeaseId, NodeId, NodeRef, PluginId};
use mutirao_ring::{Bell, Consumer, RingMemory, Ringer, SpinBoard, lane_reader};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, Signal, kill_process_group};
use std::collections::{HashMap, HashSet, VecDeque};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;

/// How the node is to behave.
#[derive(Clone, Copy)]
pub struct Plan {
    /// Slots it lends itself.
    pub here: u32,
    /// Leases elsewhere it plays: they answer a call with its argument.
    pub elsewhere: u32,
    /// Capacity of each pipe of a ring, bytes.
    pub ring_bytes: usize,
    /// Refuse every request, as somebody whose policy says no.
    pub refuses: bool,
}

impl Default for Plan {
    fn default() -> Plan {
        Plan { here: 2, elsewhere: 0, ring_bytes: 256 * 1024, refuses: false }
    }
}

/// What the tests may know of it.
#[derive(Default)]
pub struct Seen {
    pub hellos: AtomicU32,
    pub epoch: AtomicU32,
    pub files: AtomicU32,
    pub given_back: AtomicU32,
    pub resumes: AtomicU32,
    /// Parts that came by the lane.
    pub asides: AtomicU32,
}

/// A node that runs until dropped.
pub struct Node {
    pub socket: PathBuf,
    pub seen: Arc<Seen>,
    orders: UnixStream,
    thread: Option<JoinHandle<()>>,
    _directory: tempfile::TempDir,
}

impl Node {
    pub fn start(plan: Plan) -> Node {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("node.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let (orders, theirs) = UnixStream::pair().unwrap();
        let seen = Arc::new(Seen::default());
        let state = State {
            plan,
            seen: seen.clone(),
            client: None,
            template: None,
            leases: HashMap::new(),
            next: 1,
            kept: HashMap::new(),
            hung: HashSet::new(),
        };
        let thread = std::thread::spawn(move || state.run(&listener, theirs));
        Node { socket, seen, orders, thread: Some(thread), _directory: directory }
    }

    /// Breaks the connection and ends the workers, as a restart does.
    pub fn restart(&self) {
        (&self.orders).write_all(b"r").unwrap();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        (&self.orders).write_all(b"q").unwrap();
        let result = self.thread.take().unwrap().join();
        if !std::thread::panicking() {
            result.unwrap();
        }
    }
}

struct Lease {
    serial: u64,
    local: Option<LocalWorker>,
    /// For one elsewhere: the argument that is arriving.
    arriving: Vec<u8>,
    /// Why its worker is being killed.
    code: u32,
}

#[derive(Default)]
struct LocalWorker {
    pid: u32,
    for_program: VecDeque<OwnedFd>,
    life: Option<OwnedFd>,
}

struct Template {
    socket: Socket,
    process: Child,
    ready: bool,
}

struct Client {
    socket: Socket,
    reply_bell: Bell,
    reply_ringer: Ringer,
    board: SpinBoard,
    lane: Option<Consumer>,
}

struct State {
    plan: Plan,
    seen: Arc<Seen>,
    client: Option<Client>,
    template: Option<Template>,
    leases: HashMap<u32, Lease>,
    next: u32,
    /// Results of leases elsewhere, kept over a restart.
    kept: HashMap<CallId, Vec<u8>>,
    /// Calls elsewhere that were never answered.
    hung: HashSet<CallId>,
}

fn node_ref() -> NodeRef {
    NodeRef { id: NodeId([1; 32]), incarnation: Incarnation(1), name: "here".into(), addresses: vec![] }
}

impl State {
    fn run(mut self, listener: &UnixListener, mut orders: UnixStream) {
        loop {
            let mut fds = vec![PollFd::new(&orders, PollFlags::IN), PollFd::new(listener, PollFlags::IN)];
            let sockets = self.client.iter().map(|client| &client.socket);
            for socket in sockets.chain(self.template.iter().map(|template| &template.socket)) {
                let out = if socket.unsent() > 0 { PollFlags::OUT } else { PollFlags::empty() };
                fds.push(PollFd::new(socket, PollFlags::IN | out));
            }
            poll(&mut fds, None).unwrap();
            let [ordered, came] = [0, 1].map(|i| !fds[i].revents().is_empty());
            drop(fds);
            if ordered {
                let mut order = [0];
                orders.read_exact(&mut order).unwrap();
                self.end_client();
                if order == *b"q" {
                    return;
                }
            }
            if came {
                let (socket, _) = listener.accept().unwrap();
                self.greet(socket.into());
            }
            self.hear_template();
            self.hear_client();
            if let Some(client) = &mut self.client {
                let _ = client.socket.flush();
            }
            if let Some(template) = &mut self.template {
                let _ = template.socket.flush();
            }
        }
    }

    fn greet(&mut self, socket: OwnedFd) {
        let (reply_bell, reply_ringer) = Bell::pair().unwrap();
        let board = SpinBoard::create(2).unwrap();
        self.client =
            Some(Client { socket: Socket::new(socket), reply_bell, reply_ringer, board, lane: None });
    }

    fn end_client(&mut self) {
        self.client = None;
        if let Some(mut template) = self.template.take() {
            drop(template.socket);
            template.process.wait().unwrap();
        }
        self.leases.retain(|_, lease| lease.local.is_none());
    }

    fn say(&mut self, message: impl Into<LocalMessage>) {
        if let Some(client) = &mut self.client {
            message.into().put(client.socket.out());
        }
    }

    fn hear_client(&mut self) {
        loop {
            let Some(client) = &mut self.client else { return };
            match client.socket.receive() {
                Ok(Received::Some) => {}
                Ok(Received::Nothing) => return,
                _ => return self.end_client(),
            }
            loop {
                let Some(client) = &mut self.client else { return };
                let Some((header, body)) = client.socket.next_frame().unwrap() else { break };
                let body = body.to_vec();
                self.frame(&header, &body);
            }
        }
    }

    fn frame(&mut self, header: &Header, body: &[u8]) {
        if header.has(flags::ASIDE) {
            let header = read_aside(header, body).unwrap();
            let lane = self.client.as_mut().unwrap().lane.as_mut().unwrap();
            let mut aside = Vec::new();
            assert_eq!(lane.read_to(&mut aside, header.body_len()).unwrap(), header.body_len());
            self.seen.asides.fetch_add(1, Ordering::Relaxed);
            return self.call_elsewhere(&header, &aside);
        }
        if header.kind.get() == Kind::Call as u16 {
            return self.call_elsewhere(header, body);
        }
        if StreamMessage::has_kind(header.kind.get()) {
            let StreamMessage::Resume(resume) = StreamMessage::read(header, body).unwrap() else { panic!() };
            return self.resume(resume.handle, resume.outstanding);
        }
        if header.kind.get() == Kind::Credit as u16 || header.kind.get() == Kind::Cancel as u16 {
            return;
        }
        match LocalMessage::read(header, body).unwrap() {
            LocalMessage::ClientHello(hello) => self.hello(hello),
            LocalMessage::OfferPlugin(offer) => {
                let fds = self.client.as_mut().unwrap().socket.take_fds(offer.files.len()).unwrap();
                self.seen.files.store(fds.len() as u32, Ordering::Relaxed);
                self.say(PluginOffered { plugin: Ok(PluginId([2; 32])) });
            }
            LocalMessage::Allocate(allocate) => self.allocate(&allocate),
            LocalMessage::GiveBack(back) => {
                for handle in back.handles {
                    self.seen.given_back.fetch_add(1, Ordering::Relaxed);
                    if let Some(Lease { local: Some(worker), .. }) = self.leases.remove(&handle.0) {
                        kill(worker.pid);
                    }
                }
            }
            LocalMessage::KillWorker(order) => {
                if let Some(lease) = self.leases.get_mut(&order.handle.0) {
                    lease.code = order.code;
                    kill(lease.local.as_ref().unwrap().pid);
                }
            }
            LocalMessage::Query(query) => {
                self.say(Rows { number: query.number, rows: vec![], more: true, missing: 0 });
                self.say(Rows { number: query.number, rows: vec![], more: false, missing: 3 });
            }
            LocalMessage::OpenLane(_) => {
                // So small that it is full at times.
                let memory = RingMemory::create(128 * 1024).unwrap();
                let (bell, ringer) = Bell::pair().unwrap();
                let client = self.client.as_mut().unwrap();
                assert!(client.lane.is_none(), "one lane is enough");
                client.lane = Some(lane_reader(&memory, ringer).unwrap());
                client.socket.attach(vec![memory.into_fd(), bell.into_fd()]);
                self.say(LaneOpened {});
            }
            other => panic!("{other:?}"),
        }
    }

    fn hello(&mut self, hello: ClientHello) {
        self.seen.hellos.fetch_add(1, Ordering::Relaxed);
        self.seen.epoch.store(hello.epoch.0, Ordering::Relaxed);
        let client = self.client.as_mut().unwrap();
        client.socket.attach(vec![client.board.as_fd().try_clone_to_owned().unwrap()]);
        self.say(ClientWelcome {
            protocol: 1,
            node: node_ref(),
            pool: None,
            user: "me@here".into(),
            spinner: 0,
        });
        for held in hello.leases {
            assert!(self.leases.contains_key(&held.handle.0));
            self.say(LeaseNews { handle: held.handle, change: LeaseChange::Restored });
        }
    }

    fn allocate(&mut self, allocate: &Allocate) {
        let mut granted = Vec::new();
        let local = self.leases.values().filter(|lease| lease.local.is_some()).count() as u32;
        let elsewhere = self.leases.len() as u32 - local;
        let mut here_free = self.plan.here.saturating_sub(local);
        let mut away_free = self.plan.elsewhere.saturating_sub(elsewhere);
        while (granted.len() as u32) < allocate.want.count && here_free + away_free > 0 && !self.plan.refuses
        {
            let is_here = here_free > 0;
            *(if is_here { &mut here_free } else { &mut away_free }) -= 1;
            let handle = self.next;
            self.next += 1;
            let serial = u64::from(handle);
            let worker = is_here.then(LocalWorker::default);
            self.leases.insert(handle, Lease { serial, local: worker, arriving: vec![], code: 0 });
            granted.push((handle, is_here));
        }
        let info = |&(handle, local): &(u32, bool)| LeaseInfo {
            handle: Handle(handle),
            lease: LeaseId { lender: NodeId([1; 32]), incarnation: Incarnation(1), serial: handle.into() },
            lender: node_ref(),
            slots: 1,
            local,
            arch: Arch::HERE,
        };
        let note = Note { node: "there".into(), hindrance: Hindrance::Refused("not yours".into()) };
        self.say(Allocated {
            sequence: allocate.sequence,
            leases: granted.iter().map(info).collect(),
            notes: if self.plan.refuses { vec![note] } else { vec![] },
            more: false,
            found: granted.len() as u32,
            free_hint: if self.plan.refuses { 8 } else { 0 },
            waited: None,
        });
        for (handle, local) in granted {
            if !allocate.workers {
                continue;
            }
            if local {
                self.start_worker(handle);
            } else {
                self.say(LeaseNews { handle: Handle(handle), change: LeaseChange::Fetching });
                self.say(LeaseNews { handle: Handle(handle), change: LeaseChange::Ready });
            }
        }
    }

    // ---- leases elsewhere ----

    /// Echoes; `hang` is answered only after a restart.
    fn call_elsewhere(&mut self, header: &Header, body: &[u8]) {
        let call = CallId(header.sequence.get());
        let handle = Handle(header.handle.get());
        let credit = credit_header(handle, (HEADER_BYTES + body.len()) as u64, 0);
        put_frame(self.client.as_mut().unwrap().socket.out(), credit, &[]);
        let lease = self.leases.get_mut(&handle.0).unwrap();
        lease.arriving.extend_from_slice(body);
        if header.has(flags::MORE) {
            return;
        }
        let argument = std::mem::take(&mut lease.arriving);
        assert_eq!(argument.len(), CallExtent::unpack(header.extent.get()).bytes as usize);
        self.kept.insert(call, argument.clone());
        if argument == b"hang" {
            self.hung.insert(call);
            return;
        }
        self.answer(handle, call, &argument);
    }

    fn answer(&mut self, handle: Handle, call: CallId, result: &[u8]) {
        let Some(client) = &mut self.client else { return };
        if result == b"fail" {
            put_frame(client.socket.out(), failure_header(handle, call, failure::OPERATION + 5, 4), b"fail");
            return;
        }
        let total = result.len() as u64;
        let mut parts = result.chunks(50_000).peekable();
        if result.is_empty() {
            put_frame(client.socket.out(), result_header(handle, call, 0, 0, false), &[]);
        }
        while let Some(part) = parts.next() {
            let header = result_header(handle, call, total, part.len(), parts.peek().is_some());
            put_frame(client.socket.out(), header, part);
        }
    }

    fn resume(&mut self, handle: Handle, outstanding: Vec<CallId>) {
        self.seen.resumes.fetch_add(1, Ordering::Relaxed);
        let unknown = outstanding.iter().copied().filter(|call| !self.kept.contains_key(call)).collect();
        let client = self.client.as_mut().unwrap();
        StreamMessage::from(Resumed { handle, unknown }).put(client.socket.out());
        for call in outstanding {
            if let Some(result) = self.kept.get(&call).cloned() {
                self.hung.remove(&call);
                self.answer(handle, call, &result);
            }
        }
    }

    // ---- workers here ----

    fn start_worker(&mut self, handle: u32) {
        if self.template.is_none() {
            let (mine, its) =
                socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::empty(), None).unwrap();
            rustix::io::fcntl_setfd(&mine, rustix::io::FdFlags::CLOEXEC).unwrap();
            let process = Command::new(std::env::current_exe().unwrap())
                .env(WORKER_ENV, its.as_raw_fd().to_string())
                .spawn()
                .unwrap();
            self.template = Some(Template { socket: Socket::new(mine), process, ready: false });
        }
        let (Some(client), Some(template)) = (&self.client, &mut self.template) else { return };
        let memory = RingMemory::create(self.plan.ring_bytes).unwrap().into_fd();
        let (call_bell, call_ringer) = Bell::pair().unwrap();
        let (life, its_life) = UnixStream::pair().unwrap();
        let copy = |fd: &dyn AsFd| fd.as_fd().try_clone_to_owned().unwrap();
        let for_program =
            VecDeque::from([copy(&memory), copy(&call_ringer.fds().0), copy(&client.reply_bell)]);
        template.socket.attach(vec![
            memory,
            call_bell.into_fd(),
            copy(&client.reply_ringer.fds().0),
            copy(&client.board),
            copy(&std::io::stderr()),
            its_life.into(),
        ]);
        let fork = Fork {
            worker: handle.into(),
            spinner: handle,
            slots: 1,
            directory: "/tmp".into(),
            environment: vec![("MUTIRAO_RESOURCE_GPU".into(), "0,3".into())],
        };
        WorkerMessage::from(fork).put(template.socket.out());
        let lease = self.leases.get_mut(&handle).unwrap();
        lease.code = failure::WORKER_ENDED;
        lease.local = Some(LocalWorker { pid: 0, for_program, life: Some(life.into()) });
    }

    fn hear_template(&mut self) {
        loop {
            let Some(template) = &mut self.template else { return };
            match template.socket.receive() {
                Ok(Received::Some) => {}
                Ok(Received::Nothing) => return,
                _ => panic!("the template ended: {:?}", template.process.wait()),
            }
            while let Some(message) = self.next_of_template() {
                self.template_says(message);
            }
        }
    }

    fn next_of_template(&mut self) -> Option<WorkerMessage> {
        let (header, body) = self.template.as_mut()?.socket.next_frame().unwrap()?;
        Some(WorkerMessage::read(&header, body).unwrap())
    }

    fn template_says(&mut self, message: WorkerMessage) {
        match message {
            WorkerMessage::WorkerHello(hello) => {
                assert!(!hello.operations.is_empty());
                self.template.as_mut().unwrap().ready = true;
            }
            WorkerMessage::Forked(forked) => {
                assert!(self.template.as_ref().unwrap().ready);
                let handle = forked.worker as u32;
                let pid = forked.pid.unwrap();
                let Some(lease) = self.leases.get_mut(&handle) else { return kill(pid) };
                let worker = lease.local.as_mut().unwrap();
                worker.pid = pid;
                let fds = worker.for_program.drain(..).collect();
                let Some(client) = &mut self.client else { return };
                client.socket.attach(fds);
                self.say(LeaseNews { handle: Handle(handle), change: LeaseChange::Ready });
            }
            WorkerMessage::Exited(exited) => {
                let handle = exited.worker as u32;
                let Some(lease) = self.leases.get_mut(&handle) else { return };
                assert!(exited.max_resident_kib > 0);
                let code = lease.code;
                assert_eq!(lease.serial, u64::from(handle));
                drop(lease.local.as_mut().and_then(|worker| worker.life.take()));
                let cause = format!("wait status {}", exited.wait_status);
                let change = LeaseChange::WorkerEnded { code, cause };
                self.say(LeaseNews { handle: Handle(handle), change });
                self.start_worker(handle);
            }
            other => panic!("{other:?}"),
        }
    }
}

fn kill(pid: u32) {
    if let Some(pid) = Pid::from_raw(pid as i32) {
        let _ = kill_process_group(pid, Signal::KILL);
    }
}
