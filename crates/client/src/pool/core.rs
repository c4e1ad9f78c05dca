//! What a pool knows and does, behind its one lock. Nothing here waits.

use super::blobs::Blobs;
use super::call::{CallError, CallErrorKind, CallResult, Callback, Deliver, Finished};
use super::elastic::Elastic;
use super::group::Told;
use super::lease::{LeaseEntry, Whole};
use super::link::Link;
use super::pipes::Pipes;
use super::resize::{Handler, Tally};
use super::{Answers, Counts};
use crate::Error;
use mutirao_ring::{Bell, Error as RingError, Spinner};
use mutirao_schedule::hold::{
    Hold, Input, Options as HoldOptions, Outcome, Output, Part, Refused, call_index,
};
use mutirao_wire::frame::{HEADER_BYTES, put_frame};
use mutirao_wire::kind::Kind;
use mutirao_wire::limits::DATA_BODY_MAX;
use mutirao_wire::local::{GiveBack, KillWorker, LocalMessage, Resize};
use mutirao_wire::node::Note;
use mutirao_wire::stream::{Resume, StreamMessage, cancel_header, failure, put_ids, withdraw_header};
use mutirao_wire::wait::WaitEnd;
use mutirao_wire::{CallId, Handle, Tick};
use rustix::time::{ClockId, clock_gettime};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::task::Waker;
use std::thread::ThreadId;
use std::time::Duration;

/// The socket is looked at so often while rings keep the driver busy.
const SOCKET_LOOK: Duration = Duration::from_micros(100);
/// Bytes taken out of one ring before the next gets its turn.
const RING_TURN_BYTES: usize = 4 * (DATA_BODY_MAX + HEADER_BYTES);
/// Parts of arguments from this size on go by the lane; without one they are sent from where they lie.
const ASIDE_MIN: usize = 8 * 1024;
/// Less time than this is not worth waiting for.
const GATHER_MIN: Duration = Duration::from_micros(100);
/// Calls bound to a lease are sent there for so many times as long as results may gather.
const GATHERINGS: u32 = 2;
/// Most bytes of frames that wait for the socket; the driver then stops reading until some are gone.
const SOCKET_BACKLOG_MAX: usize = 64 * 1024 * 1024;

/// A call that is not done.
pub(super) struct Slot {
    id: CallId,
    argument: Argument,
    deliver: Deliver,
    tag: u64,
    repeatable: bool,
    /// Threads to wake.
    wakers: Vec<Waker>,
    /// The task to wake: that which asked last.
    task: Option<Waker>,
    /// Nobody holds its handle.
    dropped: bool,
}

/// The bytes of a call's argument.
enum Argument {
    Own(Vec<u8>),
    /// Some of them may wait to be sent, whatever becomes of the call.
    Shared(Arc<Vec<u8>>),
}

impl Argument {
    fn bytes(&self) -> &[u8] {
        match self {
            Argument::Own(bytes) => bytes,
            Argument::Shared(bytes) => bytes,
        }
    }

    fn share(&mut self) -> Arc<Vec<u8>> {
        let shared = match self {
            Argument::Own(bytes) => Arc::new(std::mem::take(bytes)),
            Argument::Shared(bytes) => return bytes.clone(),
        };
        *self = Argument::Shared(shared.clone());
        shared
    }
}

/// What a request for slots or a question has brought so far.
#[derive(Debug)]
pub(super) struct Pending<T> {
    pub(super) answer: T,
    pub(super) done: bool,
    /// Sent again when the node comes back.
    pub(super) message: LocalMessage,
}

/// What came of a request so far.
#[derive(Debug, Default)]
pub(super) struct Granted {
    pub(super) leases: Vec<Handle>,
    pub(super) notes: Vec<Note>,
    pub(super) found: u32,
    pub(super) free_hint: u32,
    pub(super) waited: Option<WaitEnd>,
}

pub(super) struct Core {
    pub(super) hold: Hold,
    outputs: Vec<Output>,
    slots: Vec<Option<Slot>>,
    unfinished: usize,
    results: HashMap<CallId, (CallResult, Option<Arc<str>>)>,
    pub(super) leases: BTreeMap<Handle, LeaseEntry>,
    /// How many there are of each sort, while nothing has happened to one.
    pub(super) tally: Option<Tally>,
    /// How often something has happened to one.
    pub(super) lease_news: u64,
    /// Leases whose rings may have calls that are not answered,
    busy: BTreeSet<Handle>,
    /// those whose rings have something that was not shown to the worker,
    dirty: Vec<Handle>,
    /// and those whose lenders are owed receipts: with many leases, not all can be looked at each time.
    pub(super) owing: Vec<Handle>,
    /// How long calls and results may wait for others.
    pub(super) gather: Duration,
    /// Until when results gather that the driver is not woken for.
    gathered: Option<Tick>,
    /// The bells of all rings, each once.
    pub(super) bells: Vec<Arc<Bell>>,
    /// Orders to grow or shrink that the program has not heard of.
    pub(super) orders: VecDeque<Resize>,
    pub(super) resize_handler: Option<Handler>,
    /// Results that are here and that their lenders keep until the program is sure of them, with their leases; `None`
    /// where that is at once.
    pub(super) unsure: Option<HashMap<CallId, Handle>>,
    /// Local leases given back, of which the node may not know yet.
    pub(super) parted: HashSet<Handle>,
    pub(super) link: Link,
    pub(super) elastic: Elastic,
    pub(super) notes: Vec<Note>,
    pub(super) pipes: Pipes,
    pub(super) told: Told,
    pub(super) blobs: Blobs,
    pub(super) requests: HashMap<u32, Pending<Granted>>,
    pub(super) questions: HashMap<u32, Pending<Answers>>,
    pub(super) counts: Counts,
    pub(super) spinner: Spinner,

    /// Finished calls for `next_finished`.
    pub(super) queue: VecDeque<Finished>,
    /// To be done without the lock.
    pub(super) callbacks: Vec<(Callback, Finished)>,
    pub(super) wakers: Vec<Waker>,
    /// Something changed that a sleeping driver may wait for.
    pub(super) news: bool,
    /// Threads that run callbacks, once for each time they do.
    pub(super) callers: Vec<ThreadId>,
    /// Wake these when anything but a call changes.
    pub(super) control_wakers: Vec<Waker>,

    /// Why nothing works any more.
    pub(super) dead: Option<Dead>,
    /// Calls submitted and not yet placed.
    pub(super) unplaced: usize,
    /// When rings were last shown what was written.
    pub(super) shown: Tick,
    pub(super) socket_looked: Tick,
    pub(super) socket_ready: bool,
    /// What ended the worker or lease whose end is being told, and where.
    cause: Option<(String, Arc<str>)>,
    pub(super) last_done: Tick,

    // Who drives; see `drive`.
    pub(super) driver: Option<ThreadId>,
    pub(super) asleep: bool,
    pub(super) sleeps_until: Option<Tick>,
    pub(super) kicked: bool,
    pub(super) parked: Vec<(u64, Waker)>,
    pub(super) park_number: u64,
    pub(super) alarm_at: Option<Tick>,
    pub(super) helper_delay: Duration,
    pub(super) helper_drives: bool,
    /// Somebody counts on the helper, who will not drive himself.
    pub(super) helper_wanted: bool,
    /// How often others than the helper have driven.
    pub(super) driven: u64,
}

/// What the ring of a worker that ended says last.
struct LastWords {
    /// The call that it names as running.
    running: Option<CallId>,
    /// The call that the worker was to be ended for.
    meant: Option<CallId>,
}

/// Whether this is how a worker ends that was to be ended for one of its calls.
fn ended_by_order(code: u32) -> bool {
    matches!(code, failure::CANCELLED | failure::TIME_LIMIT)
}

/// Why a pool no longer works.
#[derive(Debug, Clone)]
pub(super) enum Dead {
    /// The program closed it.
    Closed,
    /// The node is lost.
    Lost { waited_s: u64, reason: String },
    /// The node speaks nonsense.
    Protocol(String),
    /// The node refuses this program.
    Refused(String),
}

impl Dead {
    pub(super) fn error(&self) -> Error {
        match self.clone() {
            Dead::Closed => Error::Closed,
            Dead::Lost { waited_s, reason } => Error::NodeLost { waited_s, reason },
            Dead::Protocol(what) => Error::Protocol(what),
            Dead::Refused(text) => Error::Refused(text),
        }
    }
}

/// Now, on the clock that also counts suspended time.
pub(super) fn now() -> Tick {
    let time = clock_gettime(ClockId::Boottime);
    Tick(time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1000)
}

impl Core {
    pub(super) fn new(link: Link, elastic: Elastic, gather: Duration) -> Core {
        Core {
            hold: Hold::new(HoldOptions {
                epoch: link.epoch(),
                bound_work: gather * GATHERINGS,
                ..HoldOptions::default()
            }),
            outputs: Vec::new(),
            slots: Vec::new(),
            unfinished: 0,
            results: HashMap::new(),
            leases: BTreeMap::new(),
            tally: None,
            lease_news: 0,
            busy: BTreeSet::new(),
            dirty: Vec::new(),
            owing: Vec::new(),
            gather,
            gathered: None,
            bells: Vec::new(),
            orders: VecDeque::new(),
            resize_handler: None,
            unsure: link.has_homes().then(HashMap::new),
            parted: HashSet::new(),
            link,
            elastic,
            notes: Vec::new(),
            pipes: Pipes::default(),
            told: Told::default(),
            blobs: Blobs::default(),
            requests: HashMap::new(),
            questions: HashMap::new(),
            counts: Counts::default(),
            spinner: Spinner::asleep(),
            queue: VecDeque::new(),
            callbacks: Vec::new(),
            wakers: Vec::new(),
            news: false,
            callers: Vec::new(),
            control_wakers: Vec::new(),
            dead: None,
            unplaced: 0,
            shown: Tick(0),
            socket_looked: Tick(0),
            socket_ready: true,
            cause: None,
            last_done: now(),
            driver: None,
            asleep: false,
            sleeps_until: None,
            kicked: false,
            parked: Vec::new(),
            park_number: 0,
            alarm_at: None,
            helper_delay: Duration::from_micros(100),
            helper_drives: false,
            helper_wanted: false,
            driven: 0,
        }
    }

    // ---- calls ----

    pub(super) fn submit(
        &mut self,
        call: mutirao_schedule::hold::Call,
        argument: Vec<u8>,
        deliver: Deliver,
        tag: u64,
    ) -> Result<CallId, Error> {
        if let Some(dead) = &self.dead {
            return Err(dead.error());
        }
        let refused = |refused| match refused {
            Refused::NoSuchLease(_) => Error::NoSuchLease,
            _ => Error::TooManyCalls(self.unfinished),
        };
        let repeatable = call.repeatable;
        let id = self.hold.submit(call).map_err(refused)?;
        self.enter(id, argument, deliver, tag, repeatable);
        self.unplaced += 1;
        Ok(id)
    }

    /// A call is under way.
    pub(super) fn enter(
        &mut self,
        id: CallId,
        argument: Vec<u8>,
        deliver: Deliver,
        tag: u64,
        repeatable: bool,
    ) {
        let index = call_index(id);
        if index >= self.slots.len() {
            self.slots.resize_with(index + 1, || None);
        }
        let argument = Argument::Own(argument);
        let (wakers, task, dropped) = (Vec::new(), None, false);
        self.slots[index] = Some(Slot { id, argument, deliver, tag, repeatable, wakers, task, dropped });
        self.unfinished += 1;
        self.counts.submitted += 1;
    }

    pub(super) fn unfinished(&self) -> usize {
        self.unfinished
    }

    fn slot(&mut self, call: CallId) -> Option<&mut Slot> {
        self.slots.get_mut(call_index(call))?.as_mut().filter(|slot| slot.id == call)
    }

    /// Whether the call's result is there, or was taken.
    pub(super) fn is_done(&self, call: CallId) -> bool {
        !matches!(self.slots.get(call_index(call)), Some(Some(slot)) if slot.id == call)
    }

    pub(super) fn take_result(&mut self, call: CallId) -> Option<(CallResult, Option<Arc<str>>)> {
        self.results.remove(&call)
    }

    /// Wakes this thread when the call is done; not if it is already.
    pub(super) fn watch(&mut self, call: CallId, waker: &Waker) {
        if let Some(slot) = self.slot(call)
            && !slot.wakers.iter().any(|known| known.will_wake(waker))
        {
            slot.wakers.push(waker.clone());
        }
    }

    /// Wakes this task instead of the one before, which is given back to be dropped without the lock.
    pub(super) fn watch_by_task(&mut self, call: CallId, waker: &Waker) -> Option<Waker> {
        self.slot(call)?.task.replace(waker.clone())
    }

    /// Wakes this thread when anything but a call changes.
    pub(super) fn watch_control(&mut self, waker: &Waker) {
        if !self.control_wakers.iter().any(|known| known.will_wake(waker)) {
            self.control_wakers.push(waker.clone());
        }
    }

    /// Whether somebody has yet to hear of what is done.
    pub(super) fn owes_news(&self) -> bool {
        self.news || !self.wakers.is_empty() || !self.callbacks.is_empty() || !self.orders.is_empty()
    }

    pub(super) fn forget(&mut self, call: CallId) {
        match self.slot(call) {
            Some(slot) => slot.dropped = true,
            None => drop(self.results.remove(&call)),
        }
    }

    pub(super) fn cancel(&mut self, call: CallId) {
        if !self.is_done(call) {
            self.tell(now(), Input::Cancel(call));
        }
    }

    fn finish(&mut self, call: CallId, mut result: CallResult, node: Option<Arc<str>>) {
        if self.is_done(call) {
            return;
        }
        let Some(slot) = self.slots[call_index(call)].take() else { return };
        if let (Err(error), Some(node)) = (&mut result, &node) {
            error.node.get_or_insert_with(|| node.to_string());
        }
        self.unfinished -= 1;
        self.counts.done += 1;
        self.last_done = now();
        self.news = true;
        self.wakers.extend(slot.wakers);
        self.wakers.extend(slot.task);
        let finished = |result, node| Finished { id: call, tag: slot.tag, result, node };
        match slot.deliver {
            Deliver::Handle if slot.dropped => {}
            Deliver::Handle => drop(self.results.insert(call, (result, node))),
            Deliver::Callback(function) => self.callbacks.push((function, finished(result, node))),
            Deliver::Queue => self.queue.push_back(finished(result, node)),
        }
    }

    /// Ends everything: no call stays unanswered.
    pub(super) fn die(&mut self, dead: Dead) {
        if self.dead.is_some() {
            return;
        }
        let text = dead.error().to_string();
        self.dead = Some(dead);
        let calls: Vec<CallId> = self.slots.iter().flatten().map(|slot| slot.id).collect();
        for call in calls {
            self.finish(call, Err(CallError::new(CallErrorKind::PoolClosed, text.clone())), None);
        }
        self.leases.clear();
        self.leases_changed();
        self.orders.clear();
        self.pipes = Pipes::default();
        self.requests.clear();
        self.questions.clear();
        self.link.shut();
        self.control_changed();
    }

    // ---- the work of the driver ----

    /// Does all there is to do now.
    pub(super) fn pump(&mut self) {
        if self.dead.is_some() {
            return;
        }
        let now = now();
        self.take_replies(now);
        if self.socket_ready || now - self.socket_looked >= SOCKET_LOOK {
            self.socket_looked = now;
            self.look_at_socket(now);
        }
        if self.hold.deadline().is_some_and(|due| due <= now) {
            self.tell(now, Input::Time);
        }
        self.mind_link(now);
        self.mind_slots(now);
        self.place(now);
        self.send(now);
    }

    /// Sends what waits to be sent, as far as there is room.
    pub(super) fn place(&mut self, now: Tick) {
        if self.dead.is_some() {
            return;
        }
        self.unplaced = 0;
        let mut outputs = std::mem::take(&mut self.outputs);
        self.hold.place(now, &mut outputs);
        self.carry_out(now, outputs);
    }

    /// Shows the workers and the node what was written for them.
    pub(super) fn send(&mut self, now: Tick) {
        self.shown = now;
        let mut broken = Vec::new();
        let mut owed = Vec::new();
        let sends = self.link.socket.unsent() > 0;
        for handle in self.dirty.drain(..) {
            let Some(ring) = self.leases.get_mut(&handle).and_then(|lease| lease.ring.as_mut()) else {
                continue;
            };
            ring.dirty = false;
            if let Err(error) = ring.end.calls.flush() {
                broken.push((handle, error));
            }
        }
        self.owing.retain(|handle| {
            let Some(lease) = self.leases.get_mut(handle) else { return false };
            // Less than enough travels with whatever is sent next: it makes no lender wait.
            lease.receipts.due(*handle, sends, &mut owed);
            lease.receipts.owes()
        });
        for (handle, error) in broken {
            self.ring_broken(now, handle, &error);
        }
        if self.link.is_up() {
            self.link.socket.out().extend_from_slice(&owed);
        }
        self.flush_socket(now);
    }

    /// Takes results out of all rings.
    fn take_replies(&mut self, now: Tick) {
        let handles: Vec<Handle> = self.busy.iter().copied().collect();
        for handle in handles {
            let ring = self.leases.get(&handle).and_then(|lease| lease.ring.as_ref());
            if ring.is_none_or(|ring| ring.sent.is_empty()) {
                self.busy.remove(&handle);
                continue;
            }
            match self.drain_ring(now, handle, RING_TURN_BYTES) {
                Ok(0) => {}
                Ok(_) => self.tell_room(now, handle),
                Err(why) => self.ring_broken(now, handle, &why),
            }
        }
    }

    /// Takes results out of one ring; how many bytes there were.
    fn drain_ring(&mut self, now: Tick, handle: Handle, max_bytes: usize) -> Result<usize, String> {
        let mut taken = 0;
        loop {
            let Some(lease) = self.leases.get_mut(&handle) else { return Ok(taken) };
            let Some(ring) = &mut lease.ring else { return Ok(taken) };
            let count = ring
                .decoder
                .fill_with(|buffer| ring.end.replies.read_to(buffer, DATA_BODY_MAX))
                .map_err(|error: RingError| error.to_string())?;
            taken += count;
            let node = lease.node.clone();
            // Results are handled after the borrow of the lease ends.
            let mut whole = Vec::new();
            while let Some((header, body)) = ring.decoder.next_frame().map_err(|error| error.to_string())? {
                if header.kind.get() != Kind::Result as u16 {
                    return Err(format!("a frame of kind {:#06x} came from a worker", header.kind.get()));
                }
                if let Some(result) = lease.partial.take(&header, body)?
                    && ring.is_awaited(result.call)
                {
                    lease.finished += 1;
                    lease.used = now;
                    whole.push(result);
                }
            }
            if !whole.is_empty() {
                self.elastic.works();
            }
            for result in whole {
                self.result(now, handle, result, node.clone());
            }
            if count == 0 || taken >= max_bytes {
                return Ok(taken);
            }
        }
    }

    /// A whole result came.
    pub(super) fn result(&mut self, now: Tick, handle: Handle, whole: Whole, node: Arc<str>) {
        let Whole { call, failed, bytes } = whole;
        let mut outputs = std::mem::take(&mut self.outputs);
        if self.hold.result(now, handle, call, failed, &mut outputs) {
            let result = match failed {
                None => Ok(bytes),
                Some(code) => Err(CallError::new(
                    CallErrorKind::from_code(code),
                    String::from_utf8_lossy(&bytes).into_owned(),
                )),
            };
            self.finish(call, result, Some(node));
        }
        self.carry_out(now, outputs);
    }

    fn tell_room(&mut self, now: Tick, handle: Handle) {
        let room = self
            .leases
            .get_mut(&handle)
            .and_then(|lease| lease.ring.as_mut())
            .map(|ring| ring.end.calls.room());
        match room {
            Some(Ok(bytes)) => self.tell(now, Input::Room { handle, bytes: bytes as u64 }),
            Some(Err(error)) => self.ring_broken(now, handle, &error),
            None => {}
        }
    }

    /// A ring cannot be used any more: its worker is ended, and the node gives the lease another.
    fn ring_broken(&mut self, now: Tick, handle: Handle, why: &dyn std::fmt::Display) {
        // A program may give no other reason, and nobody will hear this one: the ring is gone by then.
        self.say(KillWorker { handle, call: None, code: failure::CANCELLED });
        self.local_worker_ended(
            now,
            handle,
            failure::WORKER_ENDED,
            format!("its ring cannot be used: {why}"),
        );
    }

    /// The worker of a local lease is gone.
    pub(super) fn local_worker_ended(&mut self, now: Tick, handle: Handle, code: u32, cause: String) {
        let Some(LastWords { mut running, meant }) = self.last_words(now, handle, code, &cause) else {
            return;
        };
        let mut code = code;
        if let Some(other) = running.filter(|running| ended_by_order(code) && meant != Some(*running)) {
            // The call that was to be ended was over just before, and this one hit instead.
            if self.slot(other).is_some_and(|slot| slot.repeatable) {
                running = None;
            } else {
                code = failure::WORKER_ENDED;
                let cause = "its worker was ended because of the call before, which was over when that came";
                self.cause = self.cause.take().map(|(_, node)| (cause.to_owned(), node));
            }
        }
        self.tell(now, Input::LocalWorkerEnded { handle, running, code });
        self.cause = None;
    }

    /// Takes the last results out of the ring of a worker that ended, and the ring away; `None` if there was none.
    fn last_words(&mut self, now: Tick, handle: Handle, code: u32, cause: &str) -> Option<LastWords> {
        // No more than is in it, should the worker be alive after all. If what is left is no result, those before
        // it still count.
        let all = self.leases.get(&handle)?.ring.as_ref()?.end.replies.capacity();
        let _ = self.drain_ring(now, handle, all);
        let lease = self.leases.get_mut(&handle)?;
        let mut ring = lease.ring.take()?;
        // A worker that is still alive begins nothing more.
        let running = ring.close();
        lease.partial = Default::default();
        lease.state = super::LeaseState::Granted;
        self.tally = None;
        let node = lease.node.clone();
        self.cause = Some((cause.to_owned(), node.clone()));
        let meant = ring.killed_for;
        for call in ring.ended_unseen() {
            let text = format!("its result was lost with its worker: {cause}");
            let code = if ended_by_order(code) && meant != Some(call) { failure::WORKER_ENDED } else { code };
            let whole = Whole { call, failed: Some(code), bytes: text.into_bytes() };
            self.result(now, handle, whole, node.clone());
        }
        Some(LastWords { running, meant })
    }

    /// A lease is no more.
    pub(super) fn lease_ended(&mut self, now: Tick, handle: Handle, lost: bool, cause: String) {
        let running =
            self.last_words(now, handle, failure::WORKER_ENDED, &cause).and_then(|words| words.running);
        let Some(lease) = self.leases.remove(&handle) else { return };
        self.unsure.iter_mut().for_each(|unsure| unsure.retain(|_, lease| *lease != handle));
        self.leases_changed();
        if lease.works {
            self.cause = Some((cause, lease.node));
            self.tell(now, Input::LeaseEnded { handle, running, lost });
        }
        self.cause = None;
        self.control_changed();
    }

    /// Gives leases back.
    pub(super) fn give_back(&mut self, now: Tick, handles: &[Handle]) {
        let handles: Vec<Handle> =
            handles.iter().copied().filter(|handle| self.leases.contains_key(handle)).collect();
        for handle in &handles {
            self.part_from(*handle);
            self.lease_ended(now, *handle, false, "its lease was given back".into());
        }
        for some in handles.chunks(1024) {
            self.say(GiveBack { handles: some.to_vec() });
        }
    }

    /// Remembers a local lease whose ring may still be on its way.
    fn part_from(&mut self, handle: Handle) {
        if self.leases.get(&handle).is_some_and(|lease| lease.info.local && lease.works) {
            self.parted.insert(handle);
        }
    }

    /// Tells `Hold` and does what follows.
    pub(super) fn tell(&mut self, now: Tick, input: Input) {
        let mut outputs = std::mem::take(&mut self.outputs);
        self.hold.handle(now, input, &mut outputs);
        self.carry_out(now, outputs);
    }

    fn carry_out(&mut self, now: Tick, mut outputs: Vec<Output>) {
        for output in outputs.drain(..) {
            match output {
                Output::Send(part) => self.send_part(now, &part),
                Output::Cancel { handle, call } => self.send_cancel(now, handle, call),
                Output::Withdraw { handle, calls } => self.withdraw(now, handle, calls),
                Output::KillWorker { handle, call, code } => {
                    let ring = self.leases.get_mut(&handle).and_then(|lease| lease.ring.as_mut());
                    if let Some(ring) = ring.filter(|ring| ring.running() == Some(call)) {
                        ring.killed_for = Some(call);
                        self.say(KillWorker { handle, call: Some(call), code });
                    }
                }
                Output::Resume { handle, outstanding } => {
                    // What is not asked for is forgotten there.
                    self.unsure.iter_mut().for_each(|unsure| unsure.retain(|_, lease| *lease != handle));
                    if let Some(lease) = self.leases.get_mut(&handle) {
                        lease.receipts = Default::default();
                        lease.partial = Default::default();
                    }
                    if self.link.is_up() {
                        StreamMessage::from(Resume { handle, outstanding }).put(self.link.socket.out());
                    }
                }
                Output::Finished { call, outcome } => self.finish_without_frame(call, outcome),
                Output::Retired(handle) | Output::TooManyLeases(handle) => {
                    self.part_from(handle);
                    self.leases.remove(&handle);
                    self.leases_changed();
                    self.control_changed();
                    self.say(GiveBack { handles: vec![handle] });
                }
            }
        }
        // The vector is kept for its memory; what was told meanwhile has used another.
        if self.outputs.capacity() < outputs.capacity() {
            self.outputs = outputs;
        }
    }

    fn send_part(&mut self, now: Tick, part: &Part) {
        let header = part.header();
        let place = call_index(part.call);
        // `Hold` sends nothing of a call that is over.
        let slot = self.slots.get_mut(place).and_then(Option::as_mut).filter(|slot| slot.id == part.call);
        let Some(slot) = slot else { return };
        let body = slot.argument.bytes().get(part.range()).unwrap_or_default();
        let Some(lease) = self.leases.get_mut(&part.handle) else { return };
        let Some(ring) = &mut lease.ring else {
            // A ring that broke a moment ago takes nothing: its calls wait again.
            if self.link.is_up() && !lease.info.local {
                if body.len() < ASIDE_MIN {
                    put_frame(self.link.socket.out(), header, body);
                } else if !self.link.socket.put_aside(header, body) {
                    if !self.link.socket.has_lane() {
                        self.link.ask_for_lane();
                    }
                    self.link.socket.append_aside(header, slot.argument.share(), part.range());
                }
            }
            return;
        };
        let written = ring.end.calls.write_parts(&[header.bytes(), body]);
        if !core::mem::replace(&mut ring.dirty, true) {
            self.dirty.push(part.handle);
        }
        if part.offset == 0 {
            ring.sent.push_back(part.call);
        }
        if self.busy.insert(part.handle) && self.asleep {
            // The driver, who has armed those that were busy, is to hear of this one too.
            let _ = ring.end.replies.arm(1);
        }
        match written {
            Ok(true) => {}
            Ok(false) => self.ring_broken(now, part.handle, &"it had less room than it said"),
            Err(error) => self.ring_broken(now, part.handle, &error),
        }
    }

    fn send_cancel(&mut self, now: Tick, handle: Handle, call: CallId) {
        let header = cancel_header(handle, call);
        let Some(lease) = self.leases.get_mut(&handle) else { return };
        match &mut lease.ring {
            // The worker has it in part only, and is to forget that part.
            Some(ring) => {
                if !core::mem::replace(&mut ring.dirty, true) {
                    self.dirty.push(handle);
                }
                match ring.end.calls.write_parts(&[header.bytes()]) {
                    Ok(true) => {}
                    Ok(false) => self.ring_broken(now, handle, &"it had less room than it said"),
                    Err(error) => self.ring_broken(now, handle, &error),
                }
            }
            None if self.link.is_up() && !lease.info.local => {
                put_frame(self.link.socket.out(), header, &[]);
            }
            None => {}
        }
    }

    /// Gets calls back that have not begun.
    fn withdraw(&mut self, now: Tick, handle: Handle, calls: Vec<CallId>) {
        let Some(lease) = self.leases.get_mut(&handle) else { return };
        if lease.info.local {
            let calls = lease.ring.as_mut().map_or_else(Vec::new, |ring| ring.withdraw(&calls));
            self.unplaced += calls.len();
            self.tell(now, Input::Withdrawn { handle, calls });
        } else if self.link.is_up() {
            let header = withdraw_header(Kind::WithdrawCalls, handle, calls.len());
            let mut ids = Vec::with_capacity(8 * calls.len());
            put_ids(calls, &mut ids);
            put_frame(self.link.socket.out(), header, &ids);
        }
    }

    fn finish_without_frame(&mut self, call: CallId, outcome: Outcome) {
        let (cause, node) = match &self.cause {
            Some((cause, node)) => (cause.as_str(), Some(node.clone())),
            None => ("", None),
        };
        let error = match outcome {
            Outcome::Failed(code) => {
                let text = match code {
                    failure::CANCELLED => "it was cancelled",
                    failure::TIME_LIMIT => "its time limit passed",
                    failure::OUT_OF_MEMORY if cause.is_empty() => "its worker was killed for want of memory",
                    _ if cause.is_empty() => "its worker ended",
                    _ => cause,
                };
                CallError::new(CallErrorKind::from_code(code), text)
            }
            Outcome::Unknown => CallError::new(
                CallErrorKind::OutcomeUnknown,
                format!(
                    "whether it was done is not known: {}",
                    if cause.is_empty() { "its lender was lost" } else { cause }
                ),
            ),
            Outcome::LeaseEnded => CallError::new(CallErrorKind::NoSlots, "the lease it was bound to ended"),
            Outcome::NoSlots => CallError::new(CallErrorKind::NoSlots, self.why_no_slots()),
        };
        self.finish(call, Err(error), node);
    }

    /// Appends a message to what is sent to the node; dropped while there is none.
    pub(super) fn say(&mut self, message: impl Into<LocalMessage>) {
        if self.link.is_up() {
            message.into().put(self.link.socket.out());
        }
    }

    pub(super) fn control_changed(&mut self) {
        self.news = true;
        self.wakers.append(&mut self.control_wakers);
    }

    // ---- before and after sleep ----

    /// Whether a ring has something, looked at very often while spinning.
    pub(super) fn ring_has_reply(&mut self) -> bool {
        self.busy.iter().any(|handle| {
            let Some(ring) = self.leases.get_mut(handle).and_then(|lease| lease.ring.as_mut()) else {
                return false;
            };
            // An error is something to do as well.
            !ring.sent.is_empty() && ring.end.replies.available().map_or(true, |bytes| bytes > 0)
        })
    }

    /// Whether a worker here is about to answer, and its answer is waited for.
    pub(super) fn ring_is_busy(&self) -> bool {
        let is_busy = |handle: &&Handle| {
            let ring = self.leases.get(handle).and_then(|lease| lease.ring.as_ref());
            ring.is_some_and(|ring| !ring.sent.is_empty())
        };
        let is_awaited = |handle: &Handle| self.gather.is_zero() || self.gathers(now(), *handle).is_none();
        self.busy.iter().filter(is_busy).any(is_awaited)
    }

    /// How long results of a local lease may wait for more of them, if its worker has enough to do.
    fn gathers(&self, now: Tick, handle: Handle) -> Option<Duration> {
        if self.gather.is_zero() {
            return None;
        }
        let half = self.hold.busy_for(now, handle) / 2;
        (half >= GATHER_MIN).then(|| half.min(self.gather))
    }

    /// The bells of all rings, each once, and that of the lane.
    pub(super) fn bells(&mut self) -> Vec<Arc<Bell>> {
        self.bells.retain(|bell| Arc::strong_count(bell) > 1);
        self.bells.iter().cloned().chain(self.link.socket.lane_bell()).collect()
    }

    /// Something has happened to a lease that may make it count otherwise.
    pub(super) fn leases_changed(&mut self) {
        self.tally = None;
        self.lease_news += 1;
        self.control_changed();
    }

    /// Asks all rings to ring the bell but those whose results gather; whether there is something to do already.
    pub(super) fn arm(&mut self, now: Tick) -> bool {
        let mut ready = false;
        let mut roomy = Vec::new();
        self.gathered = None;
        for handle in &self.busy {
            if let Some(wait) = self.gathers(now, *handle) {
                let until = now + wait;
                self.gathered = Some(self.gathered.map_or(until, |gathered| gathered.min(until)));
                continue;
            }
            let Some(ring) = self.leases.get_mut(handle).and_then(|lease| lease.ring.as_mut()) else {
                continue;
            };
            ready |= ring.end.replies.arm(1).unwrap_or(true);
            if self.hold.waits_for_room(*handle)
                && ring.end.calls.arm_for_room(DATA_BODY_MAX + HEADER_BYTES).unwrap_or(true)
            {
                roomy.push(*handle);
            }
        }
        for handle in roomy {
            self.tell_room(now, handle);
            ready = true;
        }
        ready
    }

    pub(super) fn disarm(&mut self) {
        self.gathered = None;
        for handle in &self.busy {
            let Some(ring) = self.leases.get_mut(handle).and_then(|lease| lease.ring.as_mut()) else {
                continue;
            };
            ring.end.replies.disarm();
            ring.end.calls.disarm();
        }
    }

    pub(super) fn socket_is_full(&self) -> bool {
        self.link.socket.unsent() > SOCKET_BACKLOG_MAX
    }

    /// When the driver has to look again although nothing has happened.
    pub(super) fn deadline(&mut self) -> Option<Tick> {
        let times = [self.hold.deadline(), self.link.deadline(), self.slots_deadline(), self.gathered];
        times.into_iter().flatten().min()
    }
}
