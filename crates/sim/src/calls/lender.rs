//! A lender: between the streams of leases and the rings of their workers.

use super::Happening;
use super::data::LENDER;
use super::ring::{Ring, Step};
use crate::world::World;
use core::time::Duration;
use mutirao_schedule::serve::{self, Output, Serve};
use mutirao_tree::{Input, LeaseRecord};
use mutirao_wire::frame::Header;
use mutirao_wire::kind::Kind;
use mutirao_wire::lease::WorkerState;
use mutirao_wire::stream::{Bind, StreamMessage, Unbound, failure};
use mutirao_wire::{AppId, CallId, Handle, Tick};

/// A `Bind` may overtake the confirmation of its lease, which takes the control connection.
const EARLY: Duration = Duration::from_secs(2);

/// A lease with workers.
pub(super) struct Lent {
    pub(super) app: AppId,
    /// That of its worker, if it has one.
    pub(super) ring: Option<u64>,
    /// If its home is another node.
    serve: Option<Serve>,
    bound: Option<(u64, Handle)>,
    ending: bool,
    /// Why the node ended the worker, if it did.
    ordered: Option<u32>,
    due: Option<Tick>,
}

impl World {
    /// A lease with workers has begun.
    pub(crate) fn lease_begins(&mut self, node: usize, record: &LeaseRecord) {
        let serve = (record.asker.home.id != self.nodes[node].me.id).then(Serve::new);
        let lent = Lent {
            app: record.asker.app,
            ring: None,
            serve,
            bound: None,
            ending: false,
            ordered: None,
            due: None,
        };
        self.nodes[node].streams.lent.insert(record.serial, lent);
        self.staff(node, record.serial);
        let streams = &mut self.nodes[node].streams;
        let early: Vec<_> = streams.early.extract_if(.., |(.., bind)| bind.serial == record.serial).collect();
        early.into_iter().for_each(|(_, number, bind)| self.bound(node, number, bind));
    }

    /// Starts a worker.
    fn staff(&mut self, node: usize, serial: u64) {
        let delay = self.random.between(Duration::from_micros(300), Duration::from_millis(15));
        let life = self.nodes[node].me.incarnation;
        self.happens(delay, Happening::WorkerStarts(node, life, serial));
    }

    pub(super) fn worker_starts(&mut self, node: usize, serial: u64) {
        let now = self.local(node);
        self.calls.last += 1;
        let number = self.calls.last;
        let lent = self.nodes[node].streams.lent.get_mut(&serial);
        let Some(lent) = lent.filter(|lent| !lent.ending && lent.ring.is_none()) else { return };
        self.calls.rings.insert(number, Ring::new(lent.app, node, serial, lent.serve.is_none()));
        (lent.ring, lent.ordered) = (Some(number), None);
        if let Some(serve) = &mut lent.serve {
            let (mut home, mut out) = (Vec::new(), Vec::new());
            serve.handle(now, serve::Input::WorkerReady, &mut home, &mut out);
            self.obey_serve(node, serial, home, out);
        }
        self.input(node, Input::WorkerNews { serial, state: WorkerState::Ready });
        self.pump(node, serial);
    }

    /// The lease is to end: its worker is ended.
    pub(crate) fn lease_ends(&mut self, node: usize, serial: u64) {
        let (least, most) = self.options.worker_end;
        let delay = self.random.between(least, most);
        let life = self.nodes[node].me.incarnation;
        let Some(lent) = self.nodes[node].streams.lent.get_mut(&serial) else { return };
        lent.ending = true;
        let over = match lent.ring {
            Some(ring) => Happening::WorkerOver { ring, code: failure::WORKER_ENDED },
            None => Happening::LeaseOver(node, life, serial),
        };
        self.happens(delay, over);
    }

    /// Ends the worker that runs this call.
    pub(super) fn order_end(&mut self, node: usize, serial: u64, call: Option<CallId>, code: u32) {
        let delay = self.random.between(Duration::ZERO, Duration::from_micros(200));
        let Some(lent) = self.nodes[node].streams.lent.get_mut(&serial) else { return };
        let Some((number, ring)) = lent.ring.and_then(|ring| Some((ring, self.calls.rings.get(&ring)?)))
        else {
            return;
        };
        if (call.is_none() || ring.running() == call) && lent.ordered.is_none() {
            lent.ordered = Some(code);
            self.happens(delay, Happening::WorkerOver { ring: number, code });
        }
    }

    /// A worker is gone.
    pub(super) fn worker_over(&mut self, number: u64, code: u32) {
        let Some(ring) = self.calls.rings.get_mut(&number).filter(|ring| ring.alive) else { return };
        ring.alive = false;
        let (node, serial, local) = (ring.node, ring.serial, ring.local);
        if let Some(call) = ring.running() {
            self.calls.ledger.crashed(ring.app, call);
        }
        if ring.parted || !local {
            let ring = self.calls.rings.remove(&number);
            let lent =
                self.nodes[node].streams.lent.get_mut(&serial).filter(|lent| lent.ring == Some(number));
            if let (Some(ring), Some(lent)) = (ring, lent) {
                lent.ring = None;
                let (ending, ordered) = (lent.ending, lent.ordered);
                if !local {
                    self.last_words(node, serial, ring, ordered.unwrap_or(code), ending);
                }
                self.after_worker(node, serial, ending);
            }
            return;
        }
        let lent = self.nodes[node].streams.lent.get_mut(&serial).filter(|lent| lent.ring == Some(number));
        let Some(lent) = lent else { return };
        lent.ring = None;
        let (ending, code) = (lent.ending, lent.ordered.unwrap_or(code));
        if !ending {
            self.local_worker_ended(node, serial, code);
        }
        self.after_worker(node, serial, ending);
    }

    fn after_worker(&mut self, node: usize, serial: u64, ending: bool) {
        if ending { self.lease_over(node, serial) } else { self.staff(node, serial) }
    }

    /// `serve` hears what a worker that is gone has left in its ring.
    fn last_words(&mut self, node: usize, serial: u64, mut ring: Ring, code: u32, ending: bool) {
        let now = self.local(node);
        let lent = self.nodes[node].streams.lent.get_mut(&serial);
        let Some(serve) = lent.and_then(|lent| lent.serve.as_mut()) else { return };
        let (mut home, mut out) = (Vec::new(), Vec::new());
        for (header, body) in ring.replies.drain(..) {
            let input = serve::Input::FromWorker { header: &header, body: &body };
            serve.handle(now, input, &mut home, &mut out);
        }
        let (running, cause) = (ring.running(), "signal 9");
        let input = match ending {
            true => serve::Input::LeaseEnds { running, cause },
            false => serve::Input::WorkerGone { running, code, cause },
        };
        serve.handle(now, input, &mut home, &mut out);
        self.obey_serve(node, serial, home, out);
    }

    /// The lease is no more.
    pub(super) fn lease_over(&mut self, node: usize, serial: u64) {
        let now = self.local(node);
        let Some(lent) = self.nodes[node].streams.lent.get_mut(&serial) else { return };
        if let Some(serve) = &mut lent.serve {
            let (mut home, mut out) = (Vec::new(), Vec::new());
            let cause = "the lease ended";
            serve.handle(now, serve::Input::LeaseEnds { running: None, cause }, &mut home, &mut out);
            self.obey_serve(node, serial, home, out);
        }
        if let Some((number, handle)) =
            self.nodes[node].streams.lent.remove(&serial).and_then(|lent| lent.bound)
        {
            self.refuse(number, handle);
        }
        self.input(node, Input::Gone { serial });
    }

    // --- The stream.

    /// The home knows no such lease here, or not any more.
    fn refuse(&mut self, number: u64, handle: Handle) {
        if let Some(data) = self.calls.data.get_mut(&number) {
            data.lent.remove(&handle.0);
        }
        let mut bytes = Vec::new();
        StreamMessage::from(Unbound { handle }).put(&mut bytes);
        self.put_data(number, LENDER, bytes);
    }

    pub(super) fn refuse_late(&mut self, node: usize, now: Tick) {
        let early = &mut self.nodes[node].streams.early;
        let late: Vec<_> = early.extract_if(.., |(until, ..)| *until <= now).collect();
        late.into_iter().for_each(|(_, number, bind)| self.refuse(number, bind.handle));
    }

    /// A home binds a lease.
    fn bound(&mut self, node: usize, number: u64, bind: Bind) {
        let now = self.local(node);
        let Some(home) = self.calls.data.get(&number).map(|data| self.nodes[data.nodes[0]].me.id) else {
            return;
        };
        let lease = self.nodes[node].core().leases().find(|record| record.serial == bind.serial);
        let is_its = lease.map(|record| {
            let asker = &record.asker;
            record.home().id == home && asker.app == bind.app && bind.epoch >= record.epoch
        });
        match is_its {
            Some(true) => {}
            Some(false) => return self.refuse(number, bind.handle),
            None => {
                self.nodes[node].streams.early.push((now + EARLY, number, bind));
                return self.arm_home(node);
            }
        }
        let Some(lent) = self.nodes[node].streams.lent.get_mut(&bind.serial) else { return };
        let old = lent.bound.replace((number, bind.handle));
        let Some(serve) = &mut lent.serve else { panic!("n{node} is its own home") };
        let (mut home, mut out) = (Vec::new(), Vec::new());
        serve.handle(now, serve::Input::StreamUp(bind.handle), &mut home, &mut out);
        if let Some((old, handle)) = old
            && let Some(data) = self.calls.data.get_mut(&old)
        {
            data.lent.remove(&handle.0);
        }
        if let Some(data) = self.calls.data.get_mut(&number) {
            data.lent.insert(bind.handle.0, bind.serial);
        }
        self.obey_serve(node, bind.serial, home, out);
        self.pump(node, bind.serial);
    }

    /// The data connection to a home is lost.
    pub(super) fn home_gone(&mut self, node: usize, number: u64) {
        let now = self.local(node);
        let streams = &mut self.nodes[node].streams;
        streams.early.retain(|(_, early, _)| *early != number);
        for lent in streams.lent.values_mut() {
            if lent.bound.take_if(|(bound, _)| *bound == number).is_some()
                && let Some(serve) = &mut lent.serve
            {
                let (mut home, mut out) = (Vec::new(), Vec::new());
                serve.handle(now, serve::Input::StreamDown, &mut home, &mut out);
                assert!(home.is_empty() && out.is_empty(), "nobody hears it");
            }
        }
    }

    /// A frame of a home.
    pub(super) fn home_frame(&mut self, node: usize, number: u64, header: &Header, body: &[u8]) {
        let kind = header.kind.get();
        let mut handle = header.handle.get();
        if kind == Kind::Bind as u16 || kind == Kind::Resume as u16 {
            match StreamMessage::read(header, body).expect("a message of a stream") {
                StreamMessage::Bind(bind) => return self.bound(node, number, bind),
                StreamMessage::Resume(resume) => handle = resume.handle.0,
                other => panic!("{other:?} is another message"),
            }
        }
        let serial = self.calls.data.get(&number).and_then(|data| data.lent.get(&handle)).copied();
        let now = self.local(node);
        let Some(serial) = serial else { return };
        let Some(lent) = self.nodes[node].streams.lent.get_mut(&serial) else { return };
        let Some(serve) = &mut lent.serve else { return };
        let (mut home, mut out) = (Vec::new(), Vec::new());
        match lent.ring.and_then(|ring| self.calls.rings.get_mut(&ring)) {
            Some(ring) => {
                let write = |head: &[u8], body: &[u8]| put(ring, head, body);
                serve.pass_on(now, header, body, write, &mut home, &mut out);
            }
            None => serve.handle(now, serve::Input::FromHome { header, body }, &mut home, &mut out),
        }
        self.obey_serve(node, serial, home, out);
        self.pump(node, serial);
    }

    /// Moves what can be moved between stream and ring.
    fn pump(&mut self, node: usize, serial: u64) {
        let now = self.local(node);
        let Some(lent) = self.nodes[node].streams.lent.get_mut(&serial) else { return };
        let Some(serve) = &mut lent.serve else { return };
        let (mut home, mut out) = (Vec::new(), Vec::new());
        let mut number = lent.ring;
        match number.and_then(|ring| self.calls.rings.get_mut(&ring)) {
            Some(ring) => {
                serve.withdraw(|place| ring.claim(place), &mut home);
                serve.write_worker(now, |head, body| put(ring, head, body), &mut home);
                while serve.wants_worker_input()
                    && let Some((header, body)) = ring.replies.pop_front()
                {
                    let input = serve::Input::FromWorker { header: &header, body: &body };
                    serve.handle(now, input, &mut home, &mut out);
                }
            }
            None => number = None,
        }
        serve.withdraw(|_| false, &mut home);
        self.obey_serve(node, serial, home, out);
        number.into_iter().for_each(|ring| self.wake_worker(ring));
    }

    fn obey_serve(&mut self, node: usize, serial: u64, home: Vec<u8>, out: Vec<Output>) {
        let Some(lent) = self.nodes[node].streams.lent.get(&serial) else { return };
        if let Some((number, _)) = lent.bound.filter(|_| !home.is_empty()) {
            self.put_data(number, LENDER, home);
        }
        for output in out {
            match output {
                Output::KillWorker { call, code } => self.order_end(node, serial, call, code),
                Output::Violation(violation) => panic!("n{node}, lease {serial}: {violation}"),
            }
        }
        self.arm_serve(node, serial);
    }

    pub(super) fn arm_serve(&mut self, node: usize, serial: u64) {
        let lent = self.nodes[node].streams.lent.get(&serial);
        let Some((serve, due)) = lent.and_then(|lent| Some((lent.serve.as_ref()?, lent.due))) else { return };
        let Some(at) = serve.deadline() else { return };
        let when = self.nodes[node].clock.when(at).max(self.now);
        if due.is_none_or(|due| due > when) {
            if let Some(lent) = self.nodes[node].streams.lent.get_mut(&serial) {
                lent.due = Some(when);
            }
            let life = self.nodes[node].me.incarnation;
            self.happens(when - self.now, Happening::ServeTime(node, life, serial, when));
        }
    }

    pub(super) fn serve_time(&mut self, node: usize, serial: u64, at: Tick) {
        let lent = self.nodes[node].streams.lent.get_mut(&serial);
        if lent.and_then(|lent| lent.due.take_if(|due| *due == at)).is_none() {
            return;
        }
        // The ring is read first.
        self.pump(node, serial);
        let now = self.local(node);
        let lent = self.nodes[node].streams.lent.get_mut(&serial);
        let Some(serve) = lent.and_then(|lent| lent.serve.as_mut()) else { return };
        let (mut home, mut out) = (Vec::new(), Vec::new());
        if serve.deadline().is_some_and(|due| due <= now) {
            serve.handle(now, serve::Input::Time, &mut home, &mut out);
        }
        self.obey_serve(node, serial, home, out);
    }

    // --- The worker.

    /// Something was written into a ring.
    pub(super) fn wake_worker(&mut self, number: u64) {
        let Some(ring) = self.calls.rings.get_mut(&number) else { return };
        if ring.alive && ring.has_calls() && !core::mem::replace(&mut ring.busy, true) {
            self.happens(Duration::from_micros(5), Happening::Work(number));
        }
    }

    pub(super) fn worker_steps(&mut self, number: u64) {
        let Some(ring) = self.calls.rings.get_mut(&number).filter(|ring| ring.alive) else { return };
        let app = ring.app;
        let step = ring.step(&mut self.random);
        ring.busy = !matches!(step, Step::Rests);
        let ring_bell = !core::mem::replace(&mut ring.rung, true);
        match step {
            Step::Runs(call, time) => {
                self.calls.ledger.begun(app, call);
                self.happens(time, Happening::Work(number));
            }
            Step::Crashes(call) => {
                self.calls.ledger.begun(app, call);
                let over = Happening::WorkerOver { ring: number, code: failure::WORKER_ENDED };
                self.happens(Duration::from_micros(50), over);
            }
            Step::Rests => {}
        }
        if ring_bell {
            let delay = self.random.between(Duration::from_micros(2), Duration::from_micros(20));
            self.happens(delay, Happening::Bell(number));
        }
    }

    /// The caller of a ring sees what has changed there.
    pub(super) fn bell(&mut self, number: u64) {
        let Some(ring) = self.calls.rings.get_mut(&number) else { return };
        ring.rung = false;
        let (node, serial, app, local) = (ring.node, ring.serial, ring.app, ring.local);
        if local {
            self.with_program(node, app, |world, program| world.ring_changed(program, number));
        } else if self.nodes[node].streams.lent.get(&serial).is_some_and(|lent| lent.ring == Some(number)) {
            self.pump(node, serial);
        }
    }

    /// Some worker ends by itself.
    pub(super) fn crash_worker(&mut self) {
        let some = self.random.below(self.calls.rings.len());
        if let Some(ring) = self.calls.rings.keys().nth(some).copied() {
            self.happens(Duration::ZERO, Happening::WorkerOver { ring, code: failure::WORKER_ENDED });
        }
    }
}

/// Writes a frame into a ring.
fn put(ring: &mut Ring, head: &[u8], body: &[u8]) -> bool {
    ring.put(Header::from_bytes(head.first_chunk().expect("a frame has a header")), body)
}
