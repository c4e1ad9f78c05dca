use super::{Fate, Output, Queued, Serve, Stream, Violation, Worker, has_more};
use crate::body::Body;
use crate::watch::Watch;
use mutirao_wire::frame::{HEADER_BYTES, Header, flags};
use mutirao_wire::kind::Kind;
use mutirao_wire::limits::{CALL_BYTES_MAX, LEASE_CALLS_MAX, LEASE_WINDOW_BYTES};
use mutirao_wire::stream::{self, CallExtent, Resume, Resumed, StreamMessage};
use mutirao_wire::{CallId, Handle, Tick};

impl Serve {
    pub(super) fn hear_home(
        &mut self,
        now: Tick,
        header: &Header,
        body: &[u8],
        write: &mut dyn FnMut(&[u8], &[u8]) -> bool,
        home: &mut Vec<u8>,
        out: &mut Vec<Output>,
    ) -> Result<(), Violation> {
        let kind = header.kind.get();
        match self.stream {
            Stream::Open(_) if kind == Kind::Call as u16 => self.call(now, header, body, write, home),
            Stream::Open(_) if kind == Kind::Credit as u16 => self.credit(header, body),
            Stream::Open(_) if kind == Kind::Cancel as u16 => {
                self.cancel(now, CallId(header.sequence.get()), out);
                Ok(())
            }
            Stream::Open(_) if kind == Kind::WithdrawCalls as u16 => self.wants_back(header, body),
            Stream::Open(handle) | Stream::Quiet(handle) if kind == Kind::Resume as u16 => {
                let Ok(StreamMessage::Resume(resume)) = StreamMessage::read(header, body) else {
                    return Err(Violation::Frame { kind });
                };
                self.resume(now, handle, resume, home)
            }
            Stream::Open(_) if !header.has(flags::OPTIONAL) => Err(Violation::Frame { kind }),
            // Before `Resume`, whatever comes was sent on the stream before.
            _ => Ok(()),
        }
    }

    fn call(
        &mut self,
        now: Tick,
        header: &Header,
        body: &[u8],
        write: &mut dyn FnMut(&[u8], &[u8]) -> bool,
        home: &mut Vec<u8>,
    ) -> Result<(), Violation> {
        let cost = (HEADER_BYTES + body.len()) as u64;
        let excess = cost.saturating_sub(self.granted);
        if excess > 0 {
            return Err(Violation::Window { excess });
        }
        self.granted -= cost;
        let (call, more) = (CallId(header.sequence.get()), has_more(header));
        let mut arrives = match self.partial.take() {
            None => self.first_part(header, body, call, cost, more)?,
            Some(partial) if partial.call != call => return Err(Violation::Interleaved(call)),
            Some(mut partial) => {
                let announced = partial.extent.bytes;
                if !adds_up(partial.come() + body.len(), announced, more) {
                    return Err(Violation::ArgumentSize { call, announced });
                }
                self.charge(&mut partial, cost);
                partial
            }
        };
        if arrives.lost {
            arrives.passed += body.len();
        } else if self.passes(&arrives) && write(arrives.header(body.len(), more).bytes(), body) {
            arrives.passed += body.len();
            if !more {
                self.owed += arrives.charged;
                self.went_in(now, &arrives);
                return Ok(());
            }
        } else {
            arrives.keep(body);
        }
        self.arrived(arrives, more, home);
        Ok(())
    }

    /// Whether a part that comes may go into the ring at once: nothing is before it.
    fn passes(&self, call: &Queued) -> bool {
        let is_first = self.queue.is_empty() && self.abort.is_none() && call.rest().is_empty();
        is_first && self.worker == Worker::Serving
    }

    /// The call with its first part, whose bytes are not kept yet.
    fn first_part(
        &mut self,
        header: &Header,
        body: &[u8],
        call: CallId,
        cost: u64,
        more: bool,
    ) -> Result<Queued, Violation> {
        const MAX: usize = LEASE_CALLS_MAX as usize;
        // It is counted exactly only where that matters.
        if self.places_taken() >= MAX && self.calls() >= MAX {
            return Err(Violation::TooManyCalls);
        }
        let extent = CallExtent::unpack(header.extent.get());
        if !adds_up(body.len(), extent.bytes, more) || u64::from(extent.bytes) > CALL_BYTES_MAX {
            return Err(Violation::ArgumentSize { call, announced: extent.bytes });
        }
        let mut first = Queued {
            call,
            operation: header.aux.get(),
            extent,
            repeatable: header.has(flags::REPEATABLE),
            fate: Fate::Wanted,
            charged: 0,
            advanced: false,
            argument: Body::from(&[][..]),
            taken: 0,
            passed: 0,
            lost: false,
        };
        if more {
            self.charge(&mut first, cost);
        } else {
            first.charged = cost;
        }
        Ok(first)
    }

    /// Part of a large call arrived: its bytes are credited at once if it is the only such call here.
    fn charge(&mut self, partial: &mut Queued, cost: u64) {
        if self.advanced {
            partial.charged += cost;
        } else {
            partial.advanced = true;
            self.owed += cost;
        }
    }

    fn arrived(&mut self, call: Queued, more: bool, home: &mut Vec<u8>) {
        if more {
            self.partial = Some(call);
        } else if call.lost {
            self.owed += call.charged;
            self.tell_worker_ended(vec![call.call], "it ended while the argument came", home);
        } else {
            self.advanced |= call.advanced;
            self.queue_bytes += call.rest().len() as u64;
            self.queue.push_back(call);
        }
    }

    fn credit(&mut self, header: &Header, body: &[u8]) -> Result<(), Violation> {
        let Some(ids) = stream::read_ids(header, body) else {
            return Err(Violation::Frame { kind: header.kind.get() });
        };
        let bytes = header.extent.get();
        if bytes > LEASE_WINDOW_BYTES - self.window {
            return Err(Violation::Credit);
        }
        self.window += bytes;
        for call in ids {
            let place = self.results.iter().take(self.next).position(|kept| kept.call == call);
            let kept = place.and_then(|place| self.results.remove(place));
            let Some(kept) = kept else { return Err(Violation::NothingToAcknowledge(call)) };
            self.results_bytes -= kept.cost();
            self.next -= 1;
        }
        Ok(())
    }

    /// The home would have calls back. Those that wait here it has at once; of those in the worker's ring
    /// [`withdraw`](Serve::withdraw) finds out.
    fn wants_back(&mut self, header: &Header, body: &[u8]) -> Result<(), Violation> {
        let kind = header.kind.get();
        let wanted = stream::read_ids(header, body).filter(|_| self.withdrawal.is_none());
        let mut wanted = wanted.ok_or(Violation::Frame { kind })?;
        if wanted.len() > LEASE_CALLS_MAX as usize {
            return Err(Violation::TooManyCalls);
        }
        let mut back = Vec::new();
        wanted.retain(|call| {
            let place = self.queue.iter().position(|queued| queued.call == *call);
            // What began to be written into the ring goes on.
            let waits = place.filter(|place| self.queue[*place].passed == 0);
            let Some(queued) = waits.and_then(|place| self.queue.remove(place)) else { return true };
            self.left_queue(&queued);
            back.push(*call);
            false
        });
        self.withdrawal = Some((wanted, back));
        Ok(())
    }

    fn cancel(&mut self, now: Tick, call: CallId, out: &mut Vec<Output>) {
        if self.partial.as_ref().is_some_and(|partial| partial.call == call) {
            if self.drop_partial(Fate::Cancelled).is_some() {
                self.answer(call, Fate::Cancelled, None, Body::from(&[][..]));
            }
        } else if let Some(place) =
            self.inside.iter().position(|inside| inside.call == call && inside.is_live())
        {
            self.inside[place].fate = Fate::Cancelled;
            if place == 0 {
                self.watch = Some(Watch::cancelled(call, now));
                self.kill_if_due(now, out);
            }
        } else if let Some(place) = self.queue.iter().position(|queued| queued.call == call) {
            if self.queue[place].passed > 0 {
                self.queue[place].fate = Fate::Cancelled;
            } else if let Some(queued) = self.queue.remove(place) {
                self.left_queue(&queued);
                self.answer(call, Fate::Cancelled, None, Body::from(&[][..]));
            }
        }
    }

    /// Only what is in the ring and results are kept over a break. What merely queued counts as unknown: it
    /// did not start, and the windows, full again, leave no room for it.
    fn resume(
        &mut self,
        now: Tick,
        handle: Handle,
        resume: Resume,
        home: &mut Vec<u8>,
    ) -> Result<(), Violation> {
        let mut listed = resume.outstanding;
        if listed.len() > LEASE_CALLS_MAX as usize {
            return Err(Violation::TooManyCalls);
        }
        listed.sort_unstable();
        self.drop_partial(Fate::Forgotten);
        let is_listed = |call: CallId| listed.binary_search(&call).is_ok();
        self.results.retain(|kept| is_listed(kept.call));
        self.results_bytes = self.results.iter().map(|kept| kept.cost()).sum();
        for inside in self.inside.iter_mut().filter(|inside| !is_listed(inside.call)) {
            inside.fate = Fate::Forgotten;
        }
        self.queue.retain(|queued| queued.passed > 0);
        for begun in &mut self.queue {
            begun.charged = 0;
            if !is_listed(begun.call) {
                begun.fate = Fate::Forgotten;
            }
        }
        self.queue_bytes = self.queue.iter().map(|queued| queued.rest().len() as u64).sum();
        self.advanced = self.queue.iter().any(|queued| queued.advanced);
        self.withdrawal = None;
        if self.watch.is_none() {
            self.new_head(now);
        }
        let mut known: Vec<CallId> = self.results.iter().map(|kept| kept.call).collect();
        let inside = self.inside.iter().filter(|inside| inside.fate != Fate::Forgotten);
        known.extend(inside.map(|inside| inside.call));
        known.extend(self.queue.iter().map(|queued| queued.call));
        known.sort_unstable();
        listed.retain(|call| known.binary_search(call).is_err());
        self.stream = Stream::Open(handle);
        self.full_windows();
        StreamMessage::from(Resumed { handle, unknown: listed }).put(home);
        Ok(())
    }
}

/// Whether `whole` bytes can be what has come so far of an argument: the last part alone makes it complete.
fn adds_up(whole: usize, announced: u32, more: bool) -> bool {
    if more { whole < announced as usize } else { whole == announced as usize }
}
