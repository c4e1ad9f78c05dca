//! A program: what the library does with `hold`.

use super::Happening;
use super::home::is_loss;
use super::ledger::Over;
use crate::world::World;
use core::time::Duration;
use mutirao_schedule::Receipts;
use mutirao_schedule::hold::{self, Hold, Input, Options, Output};
use mutirao_wire::frame::{HEADER_BYTES, Header, flags, put_frame};
use mutirao_wire::kind::Kind;
use mutirao_wire::local::{LeaseChange, Leave};
use mutirao_wire::stream::{self, Resume, StreamMessage, failure};
use mutirao_wire::{AppId, CallId, Handle, LeaseId, NodeRef, Tick};
use std::collections::{BTreeMap, VecDeque};

/// Stands for a call that was withdrawn: no call is called so.
const WITHDRAWN: CallId = CallId(0);

/// A program with calls.
#[derive(Debug)]
pub(crate) struct Program {
    pub(super) node: usize,
    pub(super) app: AppId,
    pub(super) hold: Hold,
    leases: BTreeMap<Handle, Lease>,
    /// Its node can be reached.
    connected: bool,
    /// When its messages arrive at the node, at the earliest.
    spoken: Tick,
    /// When it is told the time next.
    due: Option<Tick>,
}

/// A lease, as the program knows it.
#[derive(Debug)]
struct Lease {
    lease: LeaseId,
    lender: NodeRef,
    local: bool,
    broken: bool,
    ring: Option<u64>,
    /// Calls written into the ring and not answered.
    sent: VecDeque<CallId>,
    killed_for: Option<CallId>,
    receipts: Receipts,
    gathered: Option<(CallId, Vec<u8>)>,
}

/// What a node tells a program.
pub(crate) enum ToProgram {
    Granted {
        handle: Handle,
        lease: LeaseId,
        lender: NodeRef,
        local: bool,
    },
    /// The ring travels beside the news of a local worker that is ready.
    News {
        handle: Handle,
        change: LeaseChange,
        ring: Option<u64>,
    },
    Frame(Vec<u8>),
}

/// What a program tells its node.
pub(crate) enum FromProgram {
    Frame(Vec<u8>),
    GiveBack(Vec<LeaseId>),
    KillWorker { lease: LeaseId, call: CallId, code: u32 },
}

impl Program {
    pub(crate) fn new(node: usize, app: AppId, copies: bool) -> Program {
        Program {
            node,
            app,
            hold: Hold::new(Options { copies, ..Options::default() }),
            leases: BTreeMap::new(),
            connected: true,
            spoken: Tick(0),
            due: None,
        }
    }

    /// Its leases.
    pub(super) fn handles(&self) -> Vec<Handle> {
        self.leases.keys().copied().collect()
    }

    /// How it stands, for people.
    pub(super) fn describe(&self) -> String {
        let lease = |(handle, lease): (&Handle, &Lease)| {
            let Lease { lender, local, broken, ring, .. } = lease;
            let name = &lender.name;
            format!("{} of {name} (local {local}, broken {broken}, ring {ring:?})", handle.0)
        };
        let leases: Vec<String> = self.leases.iter().map(lease).collect();
        format!("{:?}, leases {leases:?}", self.hold.backlog())
    }

    /// It is connected again, and says what it holds.
    pub(super) fn returns(&mut self) -> Vec<(Handle, LeaseId, NodeRef)> {
        self.connected = true;
        self.leases.iter().map(|(handle, lease)| (*handle, lease.lease, lease.lender.clone())).collect()
    }
}

impl World {
    pub(super) fn program_hears(&mut self, program: &mut Program, message: ToProgram) {
        match message {
            ToProgram::Granted { handle, lease, lender, local } => {
                let known = Lease {
                    lease,
                    lender,
                    local,
                    broken: false,
                    ring: None,
                    sent: VecDeque::new(),
                    killed_for: None,
                    receipts: Receipts::default(),
                    gathered: None,
                };
                program.leases.insert(handle, known);
                self.tell_hold(program, Input::LeaseAdded { handle, local });
            }
            ToProgram::News { handle, change, ring } => self.lease_news(program, handle, change, ring),
            ToProgram::Frame(bytes) => {
                let (head, body) = bytes.split_first_chunk::<HEADER_BYTES>().expect("a frame has a header");
                self.stream_says(program, Header::from_bytes(head), body);
            }
        }
        self.turn_ends(program);
    }

    fn lease_news(&mut self, program: &mut Program, handle: Handle, change: LeaseChange, ring: Option<u64>) {
        let Some(lease) = program.leases.get_mut(&handle) else {
            // Given back meanwhile.
            return ring.into_iter().for_each(|ring| self.part_from(ring));
        };
        match change {
            LeaseChange::Ready => {
                lease.ring = ring;
                let room = ring.and_then(|ring| self.calls.rings.get(&ring)).map_or(0, |ring| ring.room());
                self.tell_hold(program, Input::LeaseReady { handle, room });
            }
            LeaseChange::Broken => self.lease_breaks(program, handle),
            LeaseChange::Restored => {
                lease.broken = false;
                self.tell_hold(program, Input::LeaseRestored(handle));
            }
            LeaseChange::WorkerEnded { code, .. } => self.worker_ended(program, handle, code),
            LeaseChange::Ended(end) => self.lease_ended(program, handle, is_loss(&end)),
            LeaseChange::Reclaiming { .. } => {
                self.tell_hold(program, Input::Retire { handle, leave: Leave::Finish });
            }
            LeaseChange::Fetching | LeaseChange::Approved => {}
        }
    }

    fn stream_says(&mut self, program: &mut Program, header: Header, body: &[u8]) {
        let kind = header.kind.get();
        let handle = Handle(header.handle.get());
        let input = if kind == Kind::Result as u16 {
            return self.result_part(program, handle, header, body.to_vec());
        } else if kind == Kind::Credit as u16 {
            Input::Credit { handle, bytes: header.extent.get() }
        } else if kind == Kind::CallsWithdrawn as u16 {
            Input::Withdrawn { handle, calls: stream::read_ids(&header, body).expect("a list that adds up") }
        } else {
            match StreamMessage::read(&header, body).expect("a message of a stream") {
                StreamMessage::Resumed(m) => Input::Resumed { handle: m.handle, unknown: m.unknown },
                StreamMessage::WorkerEnded(m) => {
                    Input::WorkerEnded { handle: m.handle, not_started: m.not_started }
                }
                other => panic!("a node said {other:?}"),
            }
        };
        self.tell_hold(program, input);
    }

    /// A part of a result came, out of a ring or a stream.
    fn result_part(&mut self, program: &mut Program, handle: Handle, header: Header, body: Vec<u8>) {
        let Some(lease) = program.leases.get_mut(&handle) else { return };
        let call = CallId(header.sequence.get());
        if !lease.local {
            lease.receipts.received(body.len());
        }
        let (of, mut whole) = lease.gathered.take().unwrap_or((call, Vec::new()));
        assert_eq!(of, call, "parts of two results are mixed");
        whole.extend(body);
        if header.has(flags::MORE) {
            lease.gathered = Some((call, whole));
            return;
        }
        if lease.local {
            if lease.sent.front() == Some(&WITHDRAWN) {
                lease.sent.pop_front();
                return;
            }
            lease.sent.retain(|sent| *sent != call);
        } else {
            lease.receipts.delivered(call);
        }
        let failed = header.has(flags::FAILED).then(|| header.aux.get());
        assert!(failed.is_some() || whole.len() as u64 == header.extent.get(), "a result does not add up");
        let (now, mut out) = (self.local(program.node), Vec::new());
        if program.hold.result(now, handle, call, failed, &mut out) {
            let answer = failed.map_or(Ok(whole), Err);
            self.calls.ledger.over(program.app, call, Over::Answered(answer));
        }
        self.obey(program, out);
    }

    /// The program looks into a ring.
    pub(super) fn ring_changed(&mut self, program: &mut Program, number: u64) {
        let mut leases = program.leases.iter();
        let Some(handle) = leases.find(|(_, lease)| lease.ring == Some(number)).map(|(handle, _)| *handle)
        else {
            return;
        };
        self.read_ring(program, handle);
        if let Some(ring) = self.calls.rings.get(&number) {
            let bytes = ring.room();
            self.tell_hold(program, Input::Room { handle, bytes });
        }
        self.turn_ends(program);
    }

    fn read_ring(&mut self, program: &mut Program, handle: Handle) {
        while let Some(number) = program.leases.get(&handle).and_then(|lease| lease.ring)
            && let Some((header, body)) =
                self.calls.rings.get_mut(&number).and_then(|ring| ring.replies.pop_front())
        {
            self.result_part(program, handle, header, body);
        }
    }

    /// Takes the last results out of a ring and lets go of it. Nothing in it begins any more; returns the last
    /// call that has begun and is not answered.
    fn last_look(&mut self, program: &mut Program, handle: Handle) -> Option<CallId> {
        self.read_ring(program, handle);
        let lease = program.leases.get_mut(&handle)?;
        let number = lease.ring.take()?;
        lease.gathered = None;
        lease.sent.clear();
        let ring = self.calls.rings.get_mut(&number)?;
        ring.withdraw(|_| true);
        let running = ring.running();
        self.part_from(number);
        running
    }

    /// The program is done with a ring.
    fn part_from(&mut self, number: u64) {
        let Some(ring) = self.calls.rings.get_mut(&number) else { return };
        ring.parted = true;
        if !ring.alive {
            self.calls.rings.remove(&number);
        }
    }

    /// The worker of a local lease is gone.
    fn worker_ended(&mut self, program: &mut Program, handle: Handle, code: u32) {
        let Some(meant) = program.leases.get_mut(&handle).map(|lease| lease.killed_for.take()) else {
            return;
        };
        let (mut running, mut code) = (self.last_look(program, handle), code);
        let by_order = matches!(code, failure::CANCELLED | failure::TIME_LIMIT);
        if let Some(other) = running.filter(|running| by_order && meant != Some(*running)) {
            // The call that was to be ended was over just before, and this one was hit instead.
            if self.calls.ledger.is_repeatable(program.app, other) {
                running = None;
            } else {
                code = failure::WORKER_ENDED;
            }
        }
        self.tell_hold(program, Input::LocalWorkerEnded { handle, running, code });
    }

    fn lease_ended(&mut self, program: &mut Program, handle: Handle, lost: bool) {
        let running = self.last_look(program, handle);
        if program.leases.remove(&handle).is_some() {
            self.calls.ledger.lease_ended(program.app, handle, lost);
            self.tell_hold(program, Input::LeaseEnded { handle, running, lost });
        }
    }

    fn lease_breaks(&mut self, program: &mut Program, handle: Handle) {
        if let Some(lease) = program.leases.get_mut(&handle)
            && !core::mem::replace(&mut lease.broken, true)
        {
            self.tell_hold(program, Input::LeaseBroken(handle));
        }
    }

    /// The node is gone: workers here die with it, lenders elsewhere keep what they have.
    pub(super) fn program_alone(&mut self, program: &mut Program) {
        program.connected = false;
        for handle in program.handles() {
            if program.leases.get(&handle).is_some_and(|lease| lease.local) {
                self.lease_ended(program, handle, true);
            } else {
                self.lease_breaks(program, handle);
            }
        }
        self.turn_ends(program);
    }

    /// The program gives leases back, whatever runs there.
    pub(crate) fn program_gives_back(&mut self, node: usize, app: AppId, leases: &[LeaseId]) {
        self.with_program(node, app, |world, program| {
            for handle in program.handles() {
                let lease = program.leases.get(&handle).map(|lease| lease.lease);
                if let Some(lease) = lease.filter(|lease| leases.contains(lease)) {
                    world.lease_ended(program, handle, false);
                    world.say(program, FromProgram::GiveBack(vec![lease]));
                }
            }
            world.turn_ends(program);
        });
    }

    pub(super) fn program_time(&mut self, program: &mut Program, at: Tick) {
        if program.due != Some(at) {
            return;
        }
        program.due = None;
        if program.hold.deadline().is_some_and(|due| due <= self.local(program.node)) {
            // What has arrived comes first.
            for handle in program.handles() {
                self.read_ring(program, handle);
            }
            self.tell_hold(program, Input::Time);
        }
        self.turn_ends(program);
    }

    pub(super) fn tell_hold(&mut self, program: &mut Program, input: Input) {
        let (now, mut out) = (self.local(program.node), Vec::new());
        program.hold.handle(now, input, &mut out);
        self.obey(program, out);
    }

    /// After each batch of news: calls are placed, receipts sent.
    pub(super) fn turn_ends(&mut self, program: &mut Program) {
        let (now, mut out) = (self.local(program.node), Vec::new());
        program.hold.place(now, &mut out);
        self.obey(program, out);
        for handle in program.handles() {
            let Some(lease) = program.leases.get_mut(&handle) else { continue };
            let mut frame = Vec::new();
            lease.receipts.due(handle, false, &mut frame);
            if !frame.is_empty() {
                self.say(program, FromProgram::Frame(frame));
            }
        }
        let Some(at) = program.hold.deadline() else { return };
        let when = self.nodes[program.node].clock.when(at).max(self.now);
        if program.due.is_none_or(|due| due > when) {
            program.due = Some(when);
            self.happens(when - self.now, Happening::ProgramTime(program.node, program.app, when));
        }
    }

    fn say(&mut self, program: &mut Program, message: FromProgram) {
        if !program.connected {
            return;
        }
        let delay = self.random.between(Duration::from_micros(1), Duration::from_micros(30));
        program.spoken = program.spoken.max(self.now + delay);
        let life = self.nodes[program.node].me.incarnation;
        let message = Happening::FromProgram(program.node, life, program.app, message);
        self.happens(program.spoken - self.now, message);
    }

    fn obey(&mut self, program: &mut Program, out: Vec<Output>) {
        for output in out {
            match output {
                Output::Send(part) => self.send_call(program, part),
                Output::Cancel { handle, call } => {
                    self.write(program, handle, stream::cancel_header(handle, call), &[]);
                }
                Output::Withdraw { handle, calls } => self.withdraw(program, handle, calls),
                Output::KillWorker { handle, call, code } => {
                    let Some(lease) = program.leases.get_mut(&handle) else { continue };
                    let ring = lease.ring.and_then(|ring| self.calls.rings.get(&ring));
                    if ring.is_some_and(|ring| ring.running() == Some(call)) {
                        lease.killed_for = Some(call);
                        let lease = lease.lease;
                        self.say(program, FromProgram::KillWorker { lease, call, code });
                    }
                }
                Output::Resume { handle, outstanding } => {
                    let Some(lease) = program.leases.get_mut(&handle) else { continue };
                    (lease.receipts, lease.gathered) = (Receipts::default(), None);
                    let mut frame = Vec::new();
                    StreamMessage::from(Resume { handle, outstanding }).put(&mut frame);
                    self.say(program, FromProgram::Frame(frame));
                }
                Output::Finished { call, outcome } => {
                    self.calls.ledger.over(program.app, call, Over::Otherwise(outcome));
                }
                Output::Retired(handle) => {
                    self.last_look(program, handle);
                    if let Some(lease) = program.leases.remove(&handle) {
                        self.say(program, FromProgram::GiveBack(vec![lease.lease]));
                    }
                }
                Output::TooManyLeases(handle) => panic!("{handle:?} is one lease too many"),
            }
        }
    }

    fn send_call(&mut self, program: &mut Program, part: hold::Part) {
        let argument = super::ledger::argument(part.call, part.extent.bytes as usize);
        if part.offset == 0 {
            self.calls.ledger.sent(program.app, part.call, part.handle);
            if let Some(lease) = program.leases.get_mut(&part.handle).filter(|lease| lease.ring.is_some()) {
                lease.sent.push_back(part.call);
            }
        }
        self.write(program, part.handle, part.header(), &argument[part.range()]);
    }

    /// Writes a frame into the ring of a local lease, or to the node for another.
    fn write(&mut self, program: &mut Program, handle: Handle, header: Header, body: &[u8]) {
        let Some(lease) = program.leases.get(&handle) else { return };
        if let Some(number) = lease.ring {
            if let Some(ring) = self.calls.rings.get_mut(&number) {
                assert!(ring.put(header, body), "hold overran a ring");
                self.wake_worker(number);
            }
        } else if !lease.local {
            let mut frame = Vec::new();
            put_frame(&mut frame, header, body);
            self.say(program, FromProgram::Frame(frame));
        }
    }

    fn withdraw(&mut self, program: &mut Program, handle: Handle, calls: Vec<CallId>) {
        let Some(lease) = program.leases.get_mut(&handle) else { return };
        if lease.local {
            let ring = lease.ring.and_then(|ring| self.calls.rings.get_mut(&ring));
            let back = ring.map_or_else(Vec::new, |ring| ring.withdraw(|call| calls.contains(&call)));
            for sent in lease.sent.iter_mut().filter(|sent| back.contains(sent)) {
                *sent = WITHDRAWN;
            }
            return self.tell_hold(program, Input::Withdrawn { handle, calls: back });
        }
        let header = stream::withdraw_header(Kind::WithdrawCalls, handle, calls.len());
        let mut ids = Vec::new();
        stream::put_ids(calls, &mut ids);
        self.write(program, handle, header, &ids);
    }

    /// The program makes a call.
    pub(super) fn submit(&mut self, program: &mut Program, call: hold::Call) {
        if let Ok(id) = program.hold.submit(call.clone()) {
            self.calls.ledger.made(program.app, id, call);
        }
    }

    /// The program no longer wants a call.
    pub(super) fn cancel_call(&mut self, program: &mut Program, call: CallId) {
        self.calls.ledger.cancelled(program.app, call);
        self.tell_hold(program, Input::Cancel(call));
    }
}
