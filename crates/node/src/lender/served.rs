//! Between the stream of a lease and the ring of its worker: drives `schedule::serve`.

use crate::context::Context;
use mutirao_ring::{CallerEnd, Error as RingError};
use mutirao_schedule::serve::{Input, Output, Serve};
use mutirao_wire::frame::{Decoder, FrameError, HEADER_BYTES, Header, flags};
use mutirao_wire::kind::Kind;
use mutirao_wire::limits::DATA_BODY_MAX;
use mutirao_wire::{CallId, Handle, Tick};
use std::collections::VecDeque;

/// Room in a ring that any frame fits into.
const FRAME_MAX: usize = HEADER_BYTES + DATA_BODY_MAX;
/// Rounds through a ring in one turn, of at most [`FRAME_MAX`] bytes each; the rest has to wait for
/// the other leases.
const ROUNDS: usize = 16;

/// No call is called so.
const WITHDRAWN: u64 = 0;

/// The calls of a lease whose home is another node.
#[derive(Debug)]
pub struct Served {
    serve: Serve,
    /// Frames for the home, not yet on its connection.
    home: Vec<u8>,
    /// Calls in the ring, oldest first; [`WITHDRAWN`] stands for those given back.
    inside: VecDeque<u64>,
    /// Calls answered through this ring.
    answered: u64,
    decoder: Decoder,
    out: Vec<Output>,
}

/// Why a worker has to be ended.
#[derive(Debug, thiserror::Error)]
pub enum RingFault {
    /// The ring is damaged.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// What it wrote is no frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

impl Served {
    /// Without stream, worker or calls.
    pub fn new() -> Served {
        Served {
            serve: Serve::new(),
            home: Vec::new(),
            inside: VecDeque::new(),
            answered: 0,
            decoder: Decoder::new(DATA_BODY_MAX),
            out: Vec::new(),
        }
    }

    /// The stream stands.
    pub fn stream_up(&mut self, now: Tick, handle: Handle) {
        self.handle(now, Input::StreamUp(handle));
    }

    /// The stream broke.
    pub fn stream_down(&mut self, now: Tick) {
        self.home.clear();
        self.handle(now, Input::StreamDown);
    }

    /// A frame from the home. With the ring of a worker that serves, a call may go in at once; what is damaged
    /// there shows at the next [`pump`](Served::pump), which has to follow in any case.
    pub fn home_says(&mut self, now: Tick, header: &Header, body: &[u8], ring: Option<&mut CallerEnd>) {
        let Some(ring) = ring else {
            return self.handle(now, Input::FromHome { header, body });
        };
        let write = |head: &[u8], body: &[u8]| put(ring, &mut self.inside, head, body).unwrap_or(false);
        self.serve.pass_on(now, header, body, write, &mut self.home, &mut self.out);
    }

    /// A worker serves, through a new ring.
    pub fn worker_ready(&mut self, now: Tick) {
        self.decoder = Decoder::new(DATA_BODY_MAX);
        self.inside.clear();
        self.answered = 0;
        self.handle(now, Input::WorkerReady);
    }

    /// The worker is gone; what it left in the ring is taken first.
    pub fn worker_gone(&mut self, now: Tick, ring: &mut CallerEnd, code: u32, cause: &str) {
        self.drain(now, ring);
        let running = self.last_begun(ring);
        self.handle(now, Input::WorkerGone { running, code, cause });
        self.inside.clear();
    }

    /// The lease ends; its worker, if there was one, is gone.
    pub fn lease_ends(&mut self, now: Tick, ring: Option<&mut CallerEnd>, cause: &str) {
        let mut running = None;
        if let Some(ring) = ring {
            self.drain(now, ring);
            running = self.last_begun(ring);
        }
        self.handle(now, Input::LeaseEnds { running, cause });
    }

    /// The deadline has passed.
    pub fn time(&mut self, now: Tick) {
        if self.serve.deadline().is_some_and(|deadline| deadline <= now) {
            self.handle(now, Input::Time);
        }
    }

    /// When to call [`Served::time`].
    pub fn deadline(&self) -> Option<Tick> {
        self.serve.deadline()
    }

    /// What is to be done.
    pub fn take_orders(&mut self) -> Vec<Output> {
        core::mem::take(&mut self.out)
    }

    /// Moves frames both ways until there is nothing to move, and asks the worker to ring for what
    /// comes next. Returns whether there is more to do at once.
    pub fn pump(&mut self, ctx: &mut Context, serial: u64, ring: &mut CallerEnd) -> Result<bool, RingFault> {
        ring.replies.disarm();
        ring.calls.disarm();
        for _ in 0..ROUNDS {
            self.withdraw(ring);
            self.write(ctx.now, ring)?;
            let open = self.takes_input(ctx, serial);
            if open {
                self.read(ctx.now, ring)?;
            }
            self.flush(ctx, serial);
            ring.calls.flush()?;
            let readable = open && self.takes_input(ctx, serial) && ring.replies.arm(1)?;
            let writable = self.serve.has_worker_output() && ring.calls.arm_for_room(FRAME_MAX)?;
            if !readable && !writable {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Gives calls back to the home that have not begun.
    fn withdraw(&mut self, ring: &CallerEnd) {
        if !self.serve.has_withdrawal() {
            return;
        }
        let written = self.answered + self.inside.len() as u64;
        let (answered, inside) = (self.answered, &mut self.inside);
        let claim = |place: usize| {
            let withdrawn = ring.progress.withdraw(answered + place as u64, written);
            if let Some(call) = inside.get_mut(place).filter(|_| withdrawn) {
                *call = WITHDRAWN;
            }
            withdrawn
        };
        self.serve.withdraw(claim, &mut self.home);
    }

    /// Puts the frames for the home on its connection, if there is one.
    pub fn flush(&mut self, ctx: &mut Context, serial: u64) {
        // Without a ring that could be asked, none that the worker has is given back.
        self.serve.withdraw(|_| false, &mut self.home);
        if self.home.is_empty() {
            return;
        }
        if let Some(&(conn, _)) = ctx.bound.get(&serial) {
            ctx.conns.put_with(conn, |out| out.extend_from_slice(&self.home));
        }
        self.home.clear();
        if self.home.capacity() > 4 * FRAME_MAX {
            self.home.shrink_to(FRAME_MAX);
        }
    }

    /// Results are left in the ring while nobody takes them further.
    fn takes_input(&self, ctx: &Context, serial: u64) -> bool {
        self.serve.wants_worker_input() && (!ctx.bound.contains_key(&serial) || ctx.stream_room(serial) > 0)
    }

    fn write(&mut self, now: Tick, ring: &mut CallerEnd) -> Result<(), RingFault> {
        if !self.serve.has_worker_output() {
            return Ok(());
        }
        let (mut fault, inside) = (None, &mut self.inside);
        let write = |head: &[u8], body: &[u8]| match put(ring, inside, head, body) {
            Ok(written) => written,
            Err(error) => {
                fault = Some(error);
                false
            }
        };
        self.serve.write_worker(now, write, &mut self.home);
        fault.map_or(Ok(()), |error| Err(error.into()))
    }

    fn read(&mut self, now: Tick, ring: &mut CallerEnd) -> Result<usize, RingFault> {
        let count = self.decoder.fill_with(|buffer| ring.replies.read_to(buffer, FRAME_MAX))?;
        while let Some((header, body)) = self.decoder.next_frame()? {
            let is_last_part = header.kind.get() == Kind::Result as u16 && !header.has(flags::MORE);
            let front = self.inside.front().copied();
            if is_last_part && (front == Some(header.sequence.get()) || front == Some(WITHDRAWN)) {
                self.inside.pop_front();
                self.answered += 1;
            }
            self.serve.handle(
                now,
                Input::FromWorker { header: &header, body },
                &mut self.home,
                &mut self.out,
            );
        }
        Ok(count)
    }

    /// Takes all whole frames that a worker that is gone has left. What is damaged is left alone.
    fn drain(&mut self, now: Tick, ring: &mut CallerEnd) {
        while self.read(now, ring).is_ok_and(|count| count > 0) {}
    }

    /// The last call that a worker which is gone has begun: the one it ran, or one that it finished and
    /// whose result it had not shown yet, since it shows several at once. Those must not run again.
    fn last_begun(&self, ring: &CallerEnd) -> Option<CallId> {
        let running = ring.progress.running();
        // A call that was taken back in part and sent again is there twice, and only the second time runs.
        let place = self.inside.iter().rposition(|call| Some(*call) == running);
        let begun = place.map_or(0, |place| place + 1);
        let unseen = ring.progress.finished().saturating_sub(self.answered);
        let unseen = usize::try_from(unseen).unwrap_or(usize::MAX).min(self.inside.len());
        let begun = self.inside.iter().take(begun.max(unseen));
        begun.rev().find(|call| **call != WITHDRAWN).copied().map(CallId)
    }

    fn handle(&mut self, now: Tick, input: Input<'_>) {
        self.serve.handle(now, input, &mut self.home, &mut self.out);
    }
}

/// Writes a frame into the ring, if it has room; with its last part a call is `inside`.
fn put(
    ring: &mut CallerEnd,
    inside: &mut VecDeque<u64>,
    head: &[u8],
    body: &[u8],
) -> Result<bool, RingError> {
    let written = ring.calls.write_parts(&[head, body])?;
    if written && let Some(head) = head.first_chunk::<HEADER_BYTES>() {
        let header = Header::from_bytes(head);
        if !header.has(flags::MORE) {
            inside.push_back(header.sequence.get());
        }
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mutirao_ring::{Bell, CAPACITY_DEFAULT, RingMemory, WorkerEnd};
    use mutirao_wire::stream::{CallExtent, StreamMessage, call_header, failure, result_header};

    /// A worker that began to answer `shown` of five calls before the caller's eyes, finished
    /// `finished` of them in all, and perhaps `runs` another. Which calls are failed, which not started?
    fn after_its_end(shown: u64, finished: u64, runs: Option<u64>) -> (Vec<u64>, Vec<u64>) {
        let memory = RingMemory::create(CAPACITY_DEFAULT).unwrap();
        let (_call_bell, call_ringer) = Bell::pair().unwrap();
        let (_reply_bell, reply_ringer) = Bell::pair().unwrap();
        let mut ring = CallerEnd::map(&memory, call_ringer).unwrap();
        let mut worker = WorkerEnd::map(&memory, reply_ringer).unwrap();
        let mut served = Served::new();
        served.stream_up(Tick(0), Handle(1));
        served.worker_ready(Tick(0));
        let extent = CallExtent { bytes: 0, limit_ms: 0 };
        for call in 1..=5 {
            let header = call_header(Handle(1), CallId(call), 0, extent, false, 0, false);
            served.home_says(Tick(0), &header, &[], None);
        }
        served.write(Tick(0), &mut ring).unwrap();
        for call in 1..=finished {
            worker.progress.begin(call, 0);
            let header = result_header(Handle(0), CallId(call), 0, 0, false);
            worker.replies.write_parts(&[header.bytes()]).unwrap();
            worker.progress.end();
            if call == shown {
                worker.replies.flush().unwrap();
            }
        }
        if let Some(call) = runs {
            worker.progress.begin(call, 0);
        }
        served.worker_gone(Tick(1), &mut ring, failure::WORKER_ENDED, "it ended");
        let mut decoder = Decoder::new(DATA_BODY_MAX);
        decoder.push(&served.home);
        let (mut failed, mut not_started) = (Vec::new(), Vec::new());
        while let Some((header, body)) = decoder.next_frame().unwrap() {
            if header.has(flags::FAILED) {
                failed.push(header.sequence.get());
            } else if let Ok(StreamMessage::WorkerEnded(ended)) = StreamMessage::read(&header, body) {
                not_started = ended.not_started.iter().map(|call| call.0).collect();
            }
        }
        (failed, not_started)
    }

    #[test]
    fn what_a_worker_finished_and_did_not_show_counts_as_begun() {
        assert_eq!(after_its_end(1, 3, None), (vec![2, 3], vec![4, 5]));
        assert_eq!(after_its_end(1, 3, Some(4)), (vec![2, 3, 4], vec![5]));
        assert_eq!(after_its_end(2, 2, None), (vec![], vec![3, 4, 5]));
        assert_eq!(after_its_end(0, 0, Some(1)), (vec![1], vec![2, 3, 4, 5]));
    }

    #[test]
    fn what_a_worker_writes_that_is_no_result_condemns_it() {
        let memory = RingMemory::create(CAPACITY_DEFAULT).unwrap();
        let (_call_bell, call_ringer) = Bell::pair().unwrap();
        let (_reply_bell, reply_ringer) = Bell::pair().unwrap();
        let mut ring = CallerEnd::map(&memory, call_ringer).unwrap();
        let mut worker = WorkerEnd::map(&memory, reply_ringer).unwrap();
        let mut served = Served::new();
        served.worker_ready(Tick(0));
        // A result of a call that it was never given.
        worker.replies.write(result_header(Handle(0), CallId(9), 0, 0, false).bytes()).unwrap();
        worker.replies.flush().unwrap();
        served.read(Tick(0), &mut ring).unwrap();
        assert!(matches!(served.take_orders()[..], [Output::KillWorker { call: None, .. }]));
        worker.replies.write(&[0xff; 64]).unwrap();
        worker.replies.flush().unwrap();
        assert!(matches!(served.read(Tick(0), &mut ring), Err(RingFault::Frame(_))));
    }

    #[test]
    fn a_worker_that_claims_to_have_finished_more_than_it_was_given_harms_nobody_else() {
        assert_eq!(after_its_end(1, 1, Some(77)), (vec![], vec![2, 3, 4, 5]));
    }
}
