use super::{Fate, Output, Serve, Stream, Worker, has_more};
use crate::body::Body;
use crate::watch::Watch;
use mutirao_wire::frame::{Header, flags};
use mutirao_wire::kind::Kind;
use mutirao_wire::limits::{CALL_BYTES_MAX, DATA_BODY_MAX, TEXT_BYTES_MAX};
use mutirao_wire::stream::{StreamMessage, WorkerEnded, failure};
use mutirao_wire::{CallId, Tick};

/// Why a call failed whose worker was ended for the sake of another.
const HIT_INSTEAD: &str = "its worker was ended because of the call before, which was over when that came";

/// The worker does not keep to the protocol.
struct Breach;

impl Serve {
    pub(super) fn hear_worker(&mut self, now: Tick, header: &Header, body: &[u8], out: &mut Vec<Output>) {
        if self.worker == Worker::Serving && self.result(now, header, body).is_err() {
            self.worker = Worker::Condemned;
            self.gather = None;
            out.push(Output::KillWorker { call: None, code: failure::WORKER_ENDED });
        }
    }

    fn result(&mut self, now: Tick, header: &Header, body: &[u8]) -> Result<(), Breach> {
        let call = CallId(header.sequence.get());
        let head = *self.inside.front().ok_or(Breach)?;
        if header.kind.get() != Kind::Result as u16 || call != head.call || body.len() > DATA_BODY_MAX {
            return Err(Breach);
        }
        let total = header.extent.get();
        let (body, failed) = match self.gather.take() {
            None if header.has(flags::FAILED) => {
                if has_more(header) {
                    return Err(Breach);
                }
                (Body::from(body), Some(header.aux.get()))
            }
            None if total > CALL_BYTES_MAX => return Err(Breach),
            None if has_more(header) => {
                let mut gathered = Body::expecting(total as usize);
                gathered.append(body);
                (gathered, None)
            }
            None => (Body::from(body), None),
            Some(_) if header.has(flags::FAILED) => return Err(Breach),
            Some((_, _, mut gathered)) => {
                gathered.append(body);
                (gathered, None)
            }
        };
        if has_more(header) {
            if body.len() as u64 >= total {
                return Err(Breach);
            }
            self.gather = Some((call, total, body));
            return Ok(());
        }
        if failed.is_none() && body.len() as u64 != total {
            return Err(Breach);
        }
        self.inside.pop_front();
        self.new_head(now);
        self.answer(call, head.fate, failed, body);
        Ok(())
    }

    pub(super) fn worker_gone(
        &mut self,
        running: Option<CallId>,
        code: u32,
        cause: &str,
        home: &mut Vec<u8>,
    ) {
        let mut not_started = Vec::new();
        for _ in 0..self.started(running) {
            let Some(ran) = self.inside.pop_front() else { break };
            let mut code = Watch::reason(self.watch, ran.call, code);
            let mut cause = cause;
            if Watch::is_order(code) && !Watch::has_asked(self.watch, ran.call) {
                // The call that was to be ended was over just before, and this one was hit instead.
                if ran.repeatable && ran.fate == Fate::Wanted {
                    not_started.push(ran.call);
                    continue;
                }
                (code, cause) = (failure::WORKER_ENDED, HIT_INSTEAD);
            }
            self.answer(ran.call, ran.fate, Some(code), Body::from(shortened(cause).as_bytes()));
        }
        let rest = self.inside.drain(..).filter(|inside| inside.fate != Fate::Forgotten);
        not_started.extend(rest.map(|inside| inside.call));
        self.without_worker();
        // What is in the ring in part is lost with it, and the home sends it again.
        if let Some(begun) = self.queue.pop_front_if(|begun| begun.passed > 0 || begun.fate != Fate::Wanted) {
            self.left_queue(&begun);
            match begun.fate {
                Fate::Wanted => not_started.push(begun.call),
                fate => self.answer(begun.call, fate, None, Body::from(&[][..])),
            }
        }
        if let Some(partial) = self.partial.as_mut().filter(|partial| partial.passed > 0) {
            partial.lose();
        }
        self.tell_worker_ended(not_started, cause, home);
    }

    pub(super) fn lease_ends(&mut self, running: Option<CallId>, cause: &str, home: &mut Vec<u8>) {
        self.inside.drain(..self.started(running));
        let inside = self.inside.drain(..).filter(|inside| inside.fate != Fate::Forgotten);
        let inside = inside.map(|inside| inside.call);
        let queued = self.queue.drain(..).map(|queued| queued.call);
        let partial = self.partial.take().map(|partial| partial.call);
        let not_started = inside.chain(queued).chain(partial).collect();
        (self.queue_bytes, self.advanced) = (0, false);
        self.without_worker();
        self.tell_worker_ended(not_started, cause, home);
    }

    /// How many of the calls inside have started: a worker that runs a call has taken all before it.
    fn started(&self, running: Option<CallId>) -> usize {
        // One that was aborted or given back never runs; the same call may be behind it.
        let place = |running| {
            let place = self.inside.iter().position(|inside| inside.call == running && inside.is_live());
            // One that was forgotten over a break may be what runs.
            let forgotten =
                || self.inside.iter().rposition(|inside| inside.call == running && !inside.aborted);
            place.or_else(forgotten)
        };
        running.and_then(place).map_or(0, |place| place + 1)
    }

    fn without_worker(&mut self) {
        self.worker = Worker::Gone;
        self.gather = None;
        self.watch = None;
        self.abort = None;
    }

    pub(super) fn tell_worker_ended(&self, not_started: Vec<CallId>, cause: &str, home: &mut Vec<u8>) {
        // While the stream is not open, `Resumed` will name them.
        if let Stream::Open(handle) = self.stream {
            let cause = shortened(cause).to_owned();
            StreamMessage::from(WorkerEnded { handle, not_started, cause }).put(home);
        }
    }
}

fn shortened(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_BYTES_MAX)]
}
