//! What lies behind one lease: home, stream, lender and worker, or a ring and a worker.

use super::{Known, LARGEST, answer, argument, operation};
use mutirao_schedule::hold::{self, Input};
use mutirao_schedule::serve::{self, RETAINED_MAX, Serve};
use mutirao_schedule::{Receipts, serve::Output as ServeOutput};
use mutirao_wire::frame::{Decoder, HEADER_BYTES, Header, flags, put_frame};
use mutirao_wire::kind::Kind;
use mutirao_wire::limits::{DATA_BODY_MAX, LEASE_WINDOW_BYTES};
use mutirao_wire::stream::{self, Resume, StreamMessage, failure};
use mutirao_wire::{CallId, Handle, Tick};
use std::collections::{BTreeMap, VecDeque};

const RING_BYTES: usize = 96 * 1024;

type Calls = BTreeMap<CallId, Known>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Open,
    Broken,
    Ended,
}

/// What the library learns, in order.
pub enum News {
    Input(Input),
    Answer(CallId, Result<Vec<u8>, u32>),
}

enum ToLibrary {
    Frame(Header, Vec<u8>),
    News(Input),
}

pub struct Lease {
    pub handle: Handle,
    pub local: bool,
    pub way: Way,
    pub worker: Option<Worker>,
    serve: Serve,
    /// Workers of which the library has not heard: only at 0 it has the ring of the present one.
    rings_due: usize,
    /// `Restored` told to the library and not yet answered by a `Resume`: the home drops all before.
    resumes_due: usize,
    to_serve: Decoder,
    to_library: VecDeque<ToLibrary>,
    /// Bytes of results under way that the library has not given credit for.
    results_window: u64,
    receipts: Receipts,
    gathered: Option<(CallId, Vec<u8>)>,
}

/// A worker and its ring.
#[derive(Default)]
pub struct Worker {
    calls: VecDeque<(Header, Vec<u8>)>,
    /// For each frame of `calls`, whether its call was withdrawn.
    withdrawn: VecDeque<bool>,
    call_bytes: usize,
    partial: Option<(Header, Vec<u8>)>,
    running: Option<(Header, Vec<u8>)>,
    replies: VecDeque<(Header, Vec<u8>)>,
}

impl Lease {
    pub fn new(handle: Handle, local: bool) -> Lease {
        let mut lease = Lease {
            handle,
            local,
            way: Way::Open,
            worker: None,
            serve: Serve::new(),
            rings_due: 0,
            resumes_due: 0,
            to_serve: Decoder::new(DATA_BODY_MAX),
            to_library: VecDeque::new(),
            results_window: 0,
            receipts: Receipts::default(),
            gathered: None,
        };
        if !local {
            lease.serve(Tick(0), serve::Input::StreamUp(handle));
        }
        lease
    }

    pub fn start_worker(&mut self, now: Tick) {
        self.worker = Some(Worker::default());
        if !self.local {
            self.serve(now, serve::Input::WorkerReady);
        }
        self.rings_due += 1;
        let room = RING_BYTES as u64;
        self.to_library.push_back(ToLibrary::News(Input::LeaseReady { handle: self.handle, room }));
    }

    /// Bytes free in the ring that the library has.
    pub fn room(&self) -> Option<u64> {
        let worker = self.worker.as_ref().filter(|_| self.local && self.rings_due == 0)?;
        Some((RING_BYTES - worker.call_bytes) as u64)
    }

    // --- The library's side.

    /// Does what `hold` wants of this lease.
    pub fn obey(&mut self, now: Tick, output: hold::Output, calls: &mut Calls) {
        if self.way == Way::Ended {
            return;
        }
        let mut frame = Vec::new();
        match output {
            hold::Output::Send(part) => {
                let whole = argument(part.call, part.extent.bytes);
                put_frame(&mut frame, part.header(), &whole[part.range()]);
            }
            hold::Output::Cancel { handle, call } => {
                put_frame(&mut frame, stream::cancel_header(handle, call), &[]);
            }
            hold::Output::Resume { handle, outstanding } => {
                self.receipts = Receipts::default();
                self.gathered = None;
                StreamMessage::from(Resume { handle, outstanding }).put(&mut frame);
            }
            hold::Output::Withdraw { handle, calls } => {
                if self.local {
                    let ring = self.worker.as_mut().filter(|_| self.rings_due == 0);
                    let calls = ring.map_or_else(Vec::new, |ring| ring.withdraw(&calls));
                    self.to_library.push_back(ToLibrary::News(Input::Withdrawn { handle, calls }));
                    return;
                }
                let mut ids = Vec::new();
                let header = stream::withdraw_header(Kind::WithdrawCalls, handle, calls.len());
                stream::put_ids(calls, &mut ids);
                put_frame(&mut frame, header, &ids);
            }
            hold::Output::KillWorker { call, code, .. } => {
                if self.rings_due == 0 {
                    self.kill(now, Some(call), code, calls);
                }
                return;
            }
            other => panic!("{other:?}"),
        }
        self.write(&frame);
    }

    fn write(&mut self, frame: &[u8]) {
        let header = Header::from_bytes(frame.first_chunk().unwrap());
        if self.local {
            let body = frame[HEADER_BYTES..].to_vec();
            // Before the library has heard that the worker is gone it writes into a dead ring.
            if self.rings_due > 0 {
                return;
            }
            if let Some(worker) = &mut self.worker {
                assert!(worker.put(header, body), "hold overran the ring");
            }
            return;
        }
        if header.kind.get() == Kind::Resume as u16 {
            self.resumes_due -= 1;
        }
        if self.way == Way::Open && self.resumes_due == 0 {
            self.to_serve.push(frame);
        }
    }

    pub fn send_receipts(&mut self) {
        let mut frame = Vec::new();
        self.receipts.due(self.handle, false, &mut frame);
        if !frame.is_empty() && !self.local && self.way != Way::Ended {
            self.write(&frame);
        }
    }

    pub fn next_news(&mut self) -> Option<News> {
        loop {
            if self.local && self.to_library.is_empty() {
                let worker = self.worker.as_mut()?;
                let (header, body) = worker.replies.pop_front()?;
                self.to_library.push_back(ToLibrary::Frame(header, body));
            }
            match self.to_library.pop_front()? {
                ToLibrary::News(input) => {
                    self.rings_due -= usize::from(matches!(input, Input::LeaseReady { .. }));
                    return Some(News::Input(input));
                }
                ToLibrary::Frame(header, body) if header.kind.get() == Kind::Result as u16 => {
                    if let Some((call, answer)) = self.gather(header, body) {
                        return Some(News::Answer(call, answer));
                    }
                }
                ToLibrary::Frame(header, body) if header.kind.get() == Kind::Credit as u16 => {
                    let bytes = header.extent.get();
                    assert!(body.is_empty());
                    return Some(News::Input(Input::Credit { handle: self.handle, bytes }));
                }
                ToLibrary::Frame(header, body) if header.kind.get() == Kind::CallsWithdrawn as u16 => {
                    let calls = stream::read_ids(&header, &body).unwrap();
                    return Some(News::Input(Input::Withdrawn { handle: self.handle, calls }));
                }
                ToLibrary::Frame(header, body) => {
                    let handle = self.handle;
                    return Some(News::Input(match StreamMessage::read(&header, &body).unwrap() {
                        StreamMessage::Resumed(resumed) => {
                            Input::Resumed { handle, unknown: resumed.unknown }
                        }
                        StreamMessage::WorkerEnded(ended) => {
                            Input::WorkerEnded { handle, not_started: ended.not_started }
                        }
                        other => panic!("{other:?}"),
                    }));
                }
            }
        }
    }

    fn gather(&mut self, header: Header, body: Vec<u8>) -> Option<(CallId, Result<Vec<u8>, u32>)> {
        self.receipts.received(body.len());
        let call = CallId(header.sequence.get());
        let (of, mut whole) = self.gathered.take().unwrap_or((call, Vec::new()));
        assert_eq!(of, call, "parts of two results are mixed");
        whole.extend(body);
        if header.has(flags::MORE) {
            self.gathered = Some((call, whole));
            return None;
        }
        self.receipts.delivered(call);
        if header.has(flags::FAILED) {
            return Some((call, Err(header.aux.get())));
        }
        assert_eq!(whole.len() as u64, header.extent.get());
        Some((call, Ok(whole)))
    }

    // --- The network and the lender.

    pub fn break_stream(&mut self, now: Tick) {
        if self.local || self.way != Way::Open {
            return;
        }
        self.way = Way::Broken;
        self.to_serve = Decoder::new(DATA_BODY_MAX);
        self.serve(now, serve::Input::StreamDown);
        self.to_library.push_back(ToLibrary::News(Input::LeaseBroken(self.handle)));
    }

    pub fn restore_stream(&mut self, now: Tick) {
        if self.way != Way::Broken {
            return;
        }
        self.way = Way::Open;
        self.results_window = 0;
        self.resumes_due += 1;
        self.serve(now, serve::Input::StreamUp(self.handle));
        self.to_library.push_back(ToLibrary::News(Input::LeaseRestored(self.handle)));
    }

    /// The lease ends; its lender says what it can, or is lost.
    pub fn end(&mut self, now: Tick, lost: bool) {
        if self.way == Way::Ended {
            return;
        }
        let running = self.drain_ring(now);
        if !lost && !self.local {
            self.serve(now, serve::Input::LeaseEnds { running, cause: "the owner needs the machine" });
        }
        self.way = Way::Ended;
        self.worker = None;
        let ended = Input::LeaseEnded { handle: self.handle, running, lost };
        self.to_library.push_back(ToLibrary::News(ended));
    }

    pub fn frames_to_serve(&mut self, now: Tick, count: usize) {
        if self.local || self.way != Way::Open {
            return;
        }
        let mut decoder = std::mem::replace(&mut self.to_serve, Decoder::new(DATA_BODY_MAX));
        for _ in 0..count {
            let Some((header, body)) = decoder.next_frame().unwrap() else { break };
            if header.kind.get() == Kind::Credit as u16 {
                self.results_window -= header.extent.get();
            } else if header.kind.get() == Kind::Resume as u16 {
                self.results_window = 0;
            }
            // With the ring at hand, or without.
            if header.sequence.get() % 2 == 0 {
                self.pass_on(now, &header, body);
            } else {
                self.serve(now, serve::Input::FromHome { header: &header, body });
            }
        }
        self.to_serve = decoder;
        self.give_back();
        self.fill_ring(now);
    }

    pub fn time(&mut self, now: Tick, calls: &mut Calls) {
        if self.local || self.worker.is_none() {
            return;
        }
        self.read_ring(now);
        if self.serve.deadline().is_some_and(|at| at <= now) {
            for (call, code) in self.serve(now, serve::Input::Time) {
                self.kill(now, call, code, calls);
            }
        }
    }

    /// Tells `serve` and passes on what it writes; returns the kills it wants.
    fn serve(&mut self, now: Tick, input: serve::Input<'_>) -> Vec<(Option<CallId>, u32)> {
        let (mut home, mut out) = (Vec::new(), Vec::new());
        self.serve.handle(now, input, &mut home, &mut out);
        self.arrive_home(&home);
        let kill = |output| match output {
            ServeOutput::KillWorker { call, code } => (call, code),
            ServeOutput::Violation(violation) => panic!("{violation}"),
        };
        let kills: Vec<_> = out.into_iter().map(kill).collect();
        // A cancellation comes as a kill at once; it is asked for again, by time.
        if matches!(input, serve::Input::Time) { kills } else { Vec::new() }
    }

    fn pass_on(&mut self, now: Tick, header: &Header, body: &[u8]) {
        let (mut home, mut out) = (Vec::new(), Vec::new());
        let worker = &mut self.worker;
        let write = |header: &[u8], body: &[u8]| {
            let worker = worker.as_mut().expect("serve knows that there is none");
            worker.put(Header::from_bytes(header.first_chunk().unwrap()), body.to_vec())
        };
        self.serve.pass_on(now, header, body, write, &mut home, &mut out);
        self.arrive_home(&home);
        for output in out {
            assert!(matches!(output, ServeOutput::KillWorker { .. }), "{output:?}");
        }
    }

    fn arrive_home(&mut self, home: &[u8]) {
        let mut decoder = Decoder::new(DATA_BODY_MAX);
        decoder.push(home);
        while let Some((header, body)) = decoder.next_frame().unwrap() {
            assert_eq!(header.kind.get() >> 8, 4);
            if header.kind.get() == Kind::Result as u16 {
                self.results_window += (HEADER_BYTES + body.len()) as u64;
                assert!(self.results_window <= LEASE_WINDOW_BYTES, "serve overran the window");
            }
            self.to_library.push_back(ToLibrary::Frame(header, body.to_vec()));
        }
        assert_eq!(decoder.pending(), 0);
    }

    /// Gives the home what it would have back.
    fn give_back(&mut self) {
        let mut home = Vec::new();
        let worker = &mut self.worker;
        self.serve.withdraw(|place| worker.as_mut().is_some_and(|worker| worker.claim(place)), &mut home);
        self.arrive_home(&home);
    }

    fn fill_ring(&mut self, now: Tick) {
        let Some(worker) = &mut self.worker else { return };
        let mut home = Vec::new();
        let write = |header: &[u8], body: &[u8]| {
            worker.put(Header::from_bytes(header.first_chunk().unwrap()), body.to_vec())
        };
        self.serve.write_worker(now, write, &mut home);
        self.arrive_home(&home);
    }

    fn read_ring(&mut self, now: Tick) {
        while self.serve.wants_worker_input() {
            let reply = self.worker.as_mut().and_then(|worker| worker.replies.pop_front());
            let Some((header, body)) = reply else { break };
            self.serve(now, serve::Input::FromWorker { header: &header, body: &body });
        }
    }

    pub fn check(&self) {
        let bound = LEASE_WINDOW_BYTES + RETAINED_MAX + 2 * LARGEST as u64 + DATA_BODY_MAX as u64;
        assert!(self.serve.held_bytes() <= bound, "{}", self.serve.held_bytes());
    }

    // --- The worker.

    /// The worker does one thing: it takes a frame, begins a call, or ends one.
    pub fn work(&mut self, now: Tick, calls: &mut Calls) {
        if !self.local {
            self.fill_ring(now);
        }
        if let Some(worker) = &mut self.worker {
            worker.step(calls, self.local);
        }
        if !self.local {
            self.read_ring(now);
        }
    }

    fn kill(&mut self, now: Tick, call: Option<CallId>, code: u32, calls: &mut Calls) {
        let running = self.worker.as_ref().and_then(Worker::running);
        if call.is_some() && running != call {
            return;
        }
        if let Some(known) = call.and_then(|call| calls.get_mut(&call)) {
            known.killed = true;
        }
        self.crash(now, code, calls);
    }

    /// The worker ends, and another one is started.
    pub fn crash(&mut self, now: Tick, code: u32, calls: &mut Calls) {
        if self.worker.is_none() {
            return;
        }
        let running = self.drain_ring(now);
        if let Some(known) = running.and_then(|call| calls.get_mut(&call)) {
            known.crashed |= code == failure::WORKER_ENDED;
        }
        // What became of it is for `hold` and `serve` to say: they asked for the kill.
        let code = failure::WORKER_ENDED;
        if self.local {
            let ended = Input::LocalWorkerEnded { handle: self.handle, running, code };
            self.to_library.push_back(ToLibrary::News(ended));
        } else {
            self.serve(now, serve::Input::WorkerGone { running, code, cause: "signal 11" });
        }
        self.start_worker(now);
    }

    /// Takes whole replies out of the ring of a worker that is gone; what it ran at the end.
    fn drain_ring(&mut self, now: Tick) -> Option<CallId> {
        let mut worker = self.worker.take()?;
        let running = worker.running();
        for (header, body) in worker.replies.drain(..) {
            if self.local {
                self.to_library.push_back(ToLibrary::Frame(header, body));
            } else {
                self.serve(now, serve::Input::FromWorker { header: &header, body: &body });
            }
        }
        running
    }
}

impl Worker {
    fn put(&mut self, header: Header, body: Vec<u8>) -> bool {
        let cost = HEADER_BYTES + body.len();
        let fits = self.call_bytes + cost <= RING_BYTES;
        if fits {
            self.call_bytes += cost;
            self.calls.push_back((header, body));
            self.withdrawn.push_back(false);
        }
        fits
    }

    /// Withdraws, as the caller of a ring, those of the calls that are there whole and have not begun.
    fn withdraw(&mut self, calls: &[CallId]) -> Vec<CallId> {
        let whole = |(header, _): &(Header, Vec<u8>)| !header.has(flags::MORE);
        let mut taken = Vec::new();
        for place in 0..self.calls.len() {
            let call = CallId(self.calls[place].0.sequence.get());
            if whole(&self.calls[place]) && !self.withdrawn[place] && calls.contains(&call) {
                self.withdrawn[place] = true;
                taken.push(call);
            }
        }
        taken
    }

    /// Withdraws, as the lender, the call at this place among those it wrote and has no answer of.
    fn claim(&mut self, place: usize) -> bool {
        let ends = |(header, _): &&(Header, Vec<u8>)| !header.has(flags::MORE);
        let answered = self.replies.iter().filter(ends).count() + usize::from(self.running.is_some());
        let Some(place) = place.checked_sub(answered) else { return false };
        let whole = self.calls.iter().enumerate().filter(|(_, frame)| !frame.0.has(flags::MORE));
        let Some(place) = whole.map(|(at, _)| at).nth(place) else { return false };
        !core::mem::replace(&mut self.withdrawn[place], true)
    }

    fn running(&self) -> Option<CallId> {
        self.running.as_ref().map(|(header, _)| CallId(header.sequence.get()))
    }

    fn step(&mut self, calls: &mut Calls, local: bool) {
        if let Some((header, whole)) = self.running.take() {
            if header.aux.get() == operation::STALL {
                self.running = Some((header, whole));
            } else {
                self.reply(header, answer(header.aux.get(), &whole));
            }
            return;
        }
        let Some((header, body)) = self.calls.pop_front() else { return };
        let withdrawn = self.withdrawn.pop_front().unwrap();
        self.call_bytes -= HEADER_BYTES + body.len();
        if header.kind.get() == Kind::Cancel as u16 {
            let (partial, _) = self.partial.take().expect("a cancelled call was sent in part");
            assert_eq!(partial.sequence, header.sequence);
            self.reply(partial, Err(failure::CANCELLED));
            return;
        }
        let (_, mut whole) = self.partial.take().unwrap_or((header, Vec::new()));
        whole.extend(body);
        if header.has(flags::MORE) {
            self.partial = Some((header, whole));
            return;
        }
        if withdrawn {
            // A library drops the answer out of its ring, as a lender does.
            if !local {
                self.reply(header, Err(failure::CANCELLED));
            }
            return;
        }
        let call = CallId(header.sequence.get());
        let known = calls.get_mut(&call).expect("it was submitted");
        assert_eq!(whole, argument(call, known.call.bytes), "the argument arrived as it was");
        known.starts += 1;
        self.running = Some((header, whole));
    }

    fn reply(&mut self, call: Header, answer: Result<Vec<u8>, u32>) {
        let id = CallId(call.sequence.get());
        match answer {
            Err(code) => self.replies.push_back((stream::failure_header(Handle(0), id, code, 0), vec![])),
            Ok(bytes) => {
                let mut parts = bytes.chunks(DATA_BODY_MAX).peekable();
                if parts.peek().is_none() {
                    self.replies.push_back((stream::result_header(Handle(0), id, 0, 0, false), vec![]));
                }
                while let Some(part) = parts.next() {
                    let more = parts.peek().is_some();
                    let total = bytes.len() as u64;
                    let header = stream::result_header(Handle(0), id, total, part.len(), more);
                    self.replies.push_back((header, part.to_vec()));
                }
            }
        }
    }
}
