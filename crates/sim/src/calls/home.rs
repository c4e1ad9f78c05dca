//! A home: between its programs and the data connections.

use super::data::HOME;
use super::program::{FromProgram, ToProgram};
use super::{Happening, Streams};
use crate::world::World;
use core::time::Duration;
use mutirao_schedule::relay::{Output, Relay};
use mutirao_tree::Input;
use mutirao_wire::frame::{HEADER_BYTES, Header, put_frame};
use mutirao_wire::kind::Kind;
use mutirao_wire::lease::LeaseEnd;
use mutirao_wire::local::LeaseChange;
use mutirao_wire::node::Grant;
use mutirao_wire::stream::{Bind, Resume, StreamMessage, Unbound};
use mutirao_wire::{AppId, Handle, Incarnation, LeaseId, NodeId, NodeRef};
use zerocopy::byteorder::little_endian::U32;

/// A lease elsewhere of a program here.
pub(super) struct Passed {
    app: AppId,
    handle: Handle,
    lender: NodeRef,
    relay: Relay,
    /// Where it is bound.
    wire: Option<(u64, Handle)>,
}

impl World {
    /// A program is given leases.
    pub(crate) fn program_found(&mut self, node: usize, app: AppId, grants: &[Grant]) {
        let me = self.nodes[node].me.id;
        for grant in grants {
            let Some(known) = self.nodes[node].apps.get_mut(&app).filter(|app| app.has_calls()) else {
                return;
            };
            let handle = known.handle();
            let (lease, lender) = (grant.lease(), grant.lender.clone());
            known.handles.insert(lease, handle);
            let local = lender.id == me;
            let granted = ToProgram::Granted { handle, lease, lender: lender.clone(), local };
            self.say_to_program(node, app, granted);
            if !local {
                self.pass(node, app, handle, lease, lender, false);
            }
        }
    }

    /// A remote lease is held from now on.
    pub(super) fn pass(
        &mut self,
        node: usize,
        app: AppId,
        handle: Handle,
        lease: LeaseId,
        lender: NodeRef,
        held: bool,
    ) {
        let passed = Passed { app, handle, lender, relay: Relay::new(held), wire: None };
        self.nodes[node].streams.passed.insert(lease, passed);
        self.relay_says(node, lease, vec![Output::Bind]);
    }

    /// What the core says of a lease of a program with calls.
    pub(crate) fn program_news(&mut self, node: usize, app: AppId, lease: LeaseId, change: LeaseChange) {
        let Some(known) = self.nodes[node].apps.get_mut(&app).filter(|app| app.has_calls()) else { return };
        let Some(handle) = known.handles.get(&lease).copied() else { return };
        if matches!(change, LeaseChange::Ended(_)) {
            known.handles.remove(&lease);
        }
        let now = self.local(node);
        let streams = &mut self.nodes[node].streams;
        if let Some(passed) = streams.passed.get_mut(&lease) {
            let mut out = Vec::new();
            passed.relay.news(now, change, false, &mut out);
            return self.relay_says(node, lease, out);
        }
        let ring = streams.lent.get(&lease.serial).and_then(|lent| lent.ring);
        let ring = ring.filter(|_| change == LeaseChange::Ready);
        self.say_to_program(node, app, ToProgram::News { handle, change, ring });
    }

    /// The worker of a local lease is gone.
    pub(super) fn local_worker_ended(&mut self, node: usize, serial: u64, code: u32) {
        let me = &self.nodes[node].me;
        let lease = LeaseId { lender: me.id, incarnation: me.incarnation, serial };
        let app = self.nodes[node].streams.lent.get(&serial).map(|lent| lent.app);
        let Some(app) = app else { return };
        self.program_news(node, app, lease, LeaseChange::WorkerEnded { code, cause: "it ended".into() });
    }

    fn relay_says(&mut self, node: usize, lease: LeaseId, outputs: Vec<Output>) {
        for output in outputs {
            let Some(passed) = self.nodes[node].streams.passed.get(&lease) else { return };
            match output {
                Output::Tell(change) => {
                    let (app, handle) = (passed.app, passed.handle);
                    self.say_to_program(node, app, ToProgram::News { handle, change, ring: None });
                }
                Output::Bind => {
                    let (lender, life) = (self.number(passed.lender.id), passed.lender.incarnation);
                    match self.data_to(node, lender) {
                        None => self.dial_data(node, lender),
                        Some(data) if self.has_life(data, life) => self.bind(node, lease, data),
                        // The core will know of that other life in a moment.
                        Some(_) => self.no_data(node, lender),
                    }
                }
                Output::Over => self.stop_passing(node, lease),
            }
        }
        self.arm_home(node);
    }

    fn has_life(&self, data: u64, life: Incarnation) -> bool {
        self.calls.data.get(&data).is_some_and(|data| data.life == life)
    }

    fn bind(&mut self, node: usize, lease: LeaseId, number: u64) {
        let crate::Node { streams, apps, .. } = &mut self.nodes[node];
        let (Some(passed), Some(data)) = (streams.passed.get_mut(&lease), self.calls.data.get_mut(&number))
        else {
            return;
        };
        data.next_handle += 1;
        let handle = Handle(data.next_handle);
        data.programs.insert(handle.0, (passed.app, passed.handle, lease));
        passed.wire = Some((number, handle));
        let epoch = apps.get(&passed.app).map(|app| app.epoch).unwrap_or_default();
        let bind = Bind { handle, serial: lease.serial, app: passed.app, epoch };
        let mut out = Vec::new();
        passed.relay.bound(&mut out);
        let mut bytes = Vec::new();
        StreamMessage::from(bind).put(&mut bytes);
        self.put_data(number, HOME, bytes);
        self.relay_says(node, lease, out);
    }

    fn unbind(&mut self, node: usize, lease: LeaseId) {
        let now = self.local(node);
        let Some(passed) = self.nodes[node].streams.passed.get_mut(&lease) else { return };
        if let Some((number, handle)) = passed.wire.take()
            && let Some(data) = self.calls.data.get_mut(&number)
        {
            data.programs.remove(&handle.0);
        }
        let mut out = Vec::new();
        passed.relay.unbound(now, &mut out);
        self.relay_says(node, lease, out);
    }

    fn stop_passing(&mut self, node: usize, lease: LeaseId) {
        if let Some(passed) = self.nodes[node].streams.passed.remove(&lease)
            && let Some((number, handle)) = passed.wire
            && let Some(data) = self.calls.data.get_mut(&number)
        {
            data.programs.remove(&handle.0);
        }
    }

    /// Nothing is passed on for a program any more.
    pub(super) fn forget_passed(&mut self, node: usize, app: AppId) {
        let of_app = |(lease, passed): (&LeaseId, &Passed)| (passed.app == app).then_some(*lease);
        let leases: Vec<LeaseId> = self.nodes[node].streams.passed.iter().filter_map(of_app).collect();
        leases.into_iter().for_each(|lease| self.stop_passing(node, lease));
    }

    fn passed_to(&self, node: usize, lender: NodeId, matches: impl Fn(&Passed) -> bool) -> Vec<LeaseId> {
        let passed = self.nodes[node].streams.passed.iter();
        let with = passed.filter(|(_, passed)| passed.lender.id == lender && matches(passed));
        with.map(|(lease, _)| *lease).collect()
    }

    /// The data connection that was dialled stands.
    pub(super) fn data_up(&mut self, node: usize, lender: usize, number: u64) {
        let unbound =
            |passed: &Passed| passed.wire.is_none() && self.has_life(number, passed.lender.incarnation);
        for lease in self.passed_to(node, self.nodes[lender].me.id, unbound) {
            self.bind(node, lease, number);
        }
    }

    /// It could not be had.
    pub(super) fn no_data(&mut self, node: usize, lender: usize) {
        let now = self.local(node);
        for lease in self.passed_to(node, self.nodes[lender].me.id, |_| true) {
            if let Some(passed) = self.nodes[node].streams.passed.get_mut(&lease) {
                passed.relay.no_connection(now);
            }
        }
        self.arm_home(node);
    }

    /// It is lost.
    pub(super) fn data_gone(&mut self, node: usize, number: u64) {
        let bound = |passed: &Passed| passed.wire.is_some_and(|(wire, _)| wire == number);
        let Some(data) = self.calls.data.get(&number) else { return };
        for lease in self.passed_to(node, self.nodes[data.nodes[1]].me.id, bound) {
            self.unbind(node, lease);
        }
    }

    /// A frame of a lender.
    pub(super) fn lender_frame(&mut self, node: usize, number: u64, header: &Header, body: &[u8]) {
        let mut message = is_message(header).then(|| StreamMessage::read(header, body).expect("a message"));
        let handle = match &message {
            None => Handle(header.handle.get()),
            Some(StreamMessage::Resumed(m)) => m.handle,
            Some(StreamMessage::WorkerEnded(m)) => m.handle,
            Some(StreamMessage::Unbound(m)) => m.handle,
            Some(other) => panic!("a lender said {other:?}"),
        };
        let programs = self.calls.data.get(&number).and_then(|data| data.programs.get(&handle.0));
        let Some((app, to, lease)) = programs.copied() else { return };
        match &mut message {
            Some(StreamMessage::Unbound(Unbound { .. })) => return self.unbind(node, lease),
            Some(StreamMessage::Resumed(m)) => m.handle = to,
            Some(StreamMessage::WorkerEnded(m)) => m.handle = to,
            _ => {}
        }
        let mut bytes = Vec::new();
        match message {
            Some(message) => message.put(&mut bytes),
            None => put_frame(&mut bytes, Header { handle: U32::new(to.0), ..*header }, body),
        }
        self.say_to_program(node, app, ToProgram::Frame(bytes));
    }

    /// A program's message.
    pub(super) fn program_says(&mut self, node: usize, app: AppId, message: FromProgram) {
        match message {
            FromProgram::Frame(bytes) => self.program_frame(node, app, &bytes),
            FromProgram::GiveBack(leases) => {
                for lease in &leases {
                    self.stop_passing(node, *lease);
                    if let Some(app) = self.nodes[node].apps.get_mut(&app) {
                        app.handles.remove(lease);
                        app.leases.remove(lease);
                    }
                }
                self.input(node, Input::GiveBack { app, leases });
            }
            FromProgram::KillWorker { lease, call, code } => {
                let me = &self.nodes[node].me;
                if (lease.lender, lease.incarnation) == (me.id, me.incarnation) {
                    self.order_end(node, lease.serial, Some(call), code);
                }
            }
        }
    }

    fn program_frame(&mut self, node: usize, app: AppId, bytes: &[u8]) {
        let (head, body) = bytes.split_first_chunk::<HEADER_BYTES>().expect("a frame has a header");
        let header = Header::from_bytes(head);
        let resume = (header.kind.get() == Kind::Resume as u16).then(|| StreamMessage::read(&header, body));
        let resume = resume.map(|read| match read {
            Ok(StreamMessage::Resume(resume)) => resume,
            other => panic!("{other:?} is no `Resume`"),
        });
        let handle = resume.as_ref().map_or(Handle(header.handle.get()), |resume| resume.handle);
        let mut passed = self.nodes[node].streams.passed.values_mut();
        let Some(passed) = passed.find(|passed| passed.app == app && passed.handle == handle) else { return };
        let goes = passed.relay.passes(resume.is_some());
        let Some((number, to)) = passed.wire.filter(|_| goes) else { return };
        let mut frame = Vec::new();
        match resume {
            Some(resume) => StreamMessage::from(Resume { handle: to, ..resume }).put(&mut frame),
            None => put_frame(&mut frame, Header { handle: U32::new(to.0), ..header }, body),
        }
        self.put_data(number, HOME, frame);
    }

    pub(super) fn home_time(&mut self, node: usize) {
        let now = self.local(node);
        self.refuse_late(node, now);
        let passed = self.nodes[node].streams.passed.iter();
        let due = passed.filter(|(_, passed)| passed.relay.deadline().is_some_and(|at| at <= now));
        for lease in due.map(|(lease, _)| *lease).collect::<Vec<_>>() {
            let Some(passed) = self.nodes[node].streams.passed.get_mut(&lease) else { continue };
            let mut out = Vec::new();
            passed.relay.time(now, &mut out);
            self.relay_says(node, lease, out);
        }
        self.arm_home(node);
    }

    pub(super) fn arm_home(&mut self, node: usize) {
        let Streams { passed, early, due, .. } = &self.nodes[node].streams;
        let relays = passed.values().filter_map(|passed| passed.relay.deadline());
        let Some(at) = relays.chain(early.iter().map(|(until, ..)| *until)).min() else { return };
        let when = self.nodes[node].clock.when(at).max(self.now);
        if due.is_none_or(|due| due > when) {
            self.nodes[node].streams.due = Some(when);
            let life = self.nodes[node].me.incarnation;
            self.happens(when - self.now, Happening::HomeTime(node, life, when));
        }
    }

    /// Something goes to a program over its socket, behind what is there already.
    pub(super) fn say_to_program(&mut self, node: usize, app: AppId, message: ToProgram) {
        let delay = self.random.between(Duration::from_micros(1), Duration::from_micros(30));
        let life = self.nodes[node].me.incarnation;
        let when = self.now + delay;
        let Some(known) = self.nodes[node].apps.get_mut(&app) else { return };
        known.spoken = known.spoken.max(when);
        let delay = known.spoken - self.now;
        self.happens(delay, Happening::ToProgram(node, life, app, message));
    }

    /// The programs on a node that was restarted come back with what they hold.
    pub(crate) fn program_returns(&mut self, node: usize, app: AppId) {
        self.with_program(node, app, |world, program| {
            let held = program.returns();
            let Some(known) = world.nodes[node].apps.get_mut(&app) else { return };
            known.leases = held.iter().map(|(_, lease, lender)| (*lease, lender.clone())).collect();
            known.handles = held.iter().map(|(handle, lease, _)| (*lease, *handle)).collect();
            for (handle, lease, lender) in held {
                world.pass(node, app, handle, lease, lender, true);
            }
        });
    }
}

/// Whether a frame of a stream has a struct.
fn is_message(header: &Header) -> bool {
    const RAW: [u16; 3] = [Kind::Result as u16, Kind::Credit as u16, Kind::CallsWithdrawn as u16];
    !RAW.contains(&header.kind.get())
}

/// Whether the lender or the way to it was lost, rather than the lease given or taken back.
pub(super) fn is_loss(end: &LeaseEnd) -> bool {
    !matches!(end, LeaseEnd::Released | LeaseEnd::LimitReached | LeaseEnd::Reclaimed | LeaseEnd::Leaving)
}
