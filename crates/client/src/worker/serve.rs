//! A worker at work: calls out of the ring, results into it.

use crate::operation::{Failure, OperationEntry};
use mutirao_ring::{Error as RingError, SoleBell, Spinner, Wake, WorkerEnd, wait_solely};
use mutirao_wire::frame::{Decoder, HEADER_BYTES, Header, flags};
use mutirao_wire::kind::Kind;
use mutirao_wire::limits::{CALL_BYTES_MAX, DATA_BODY_MAX, TEXT_BYTES_MAX};
use mutirao_wire::stream::{CallExtent, failure, failure_header, result_header};
use mutirao_wire::{CallId, Handle};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Results are shown to the caller at the latest when so many are ready,
const RESULTS_HELD_MAX: u32 = 16;
/// or the oldest of them is so old,
const HELD_MAX: Duration = Duration::from_micros(50);
/// or the next call may take so long.
const SHORT: Duration = Duration::from_micros(20);
/// Bytes taken out of the ring at once.
const READ_BYTES: usize = DATA_BODY_MAX + HEADER_BYTES;
/// Bodies from this size on are read straight into the argument.
const DIRECT_MIN: usize = 8 * 1024;
/// Memory of an argument that is kept for the next.
const KEPT_MAX: usize = 1024 * 1024;

/// Set by an operation: this call is the worker's last.
pub(super) static RETIRES: AtomicBool = AtomicBool::new(false);

/// What a worker is given.
pub(super) struct Worker {
    pub(super) end: WorkerEnd,
    pub(super) bell: SoleBell,
    pub(super) spinner: Spinner,
}

/// A call whose argument is arriving in parts.
struct Partial {
    call: CallId,
    argument: Vec<u8>,
}

struct Server<'a> {
    worker: Worker,
    table: &'a [OperationEntry],
    /// The longest that calls of each operation took of late.
    usual: Vec<Duration>,
    result: Vec<u8>,
    /// The memory of the last large argument.
    spare: Vec<u8>,
    /// Results written and not yet shown to the caller.
    held: u32,
    /// When the oldest of them was ready.
    held_since: Instant,
}

/// Why the loop ends.
enum Stop {
    /// The caller is gone, or an operation has retired the worker.
    Gone,
    /// The caller breaks the protocol, or the system fails.
    Broken(String),
}

impl From<RingError> for Stop {
    fn from(error: RingError) -> Stop {
        Stop::Broken(error.to_string())
    }
}

impl From<mutirao_wire::frame::FrameError> for Stop {
    fn from(error: mutirao_wire::frame::FrameError) -> Stop {
        Stop::Broken(error.to_string())
    }
}

/// Serves calls until the caller's end is closed.
pub(super) fn serve(worker: Worker, table: &[OperationEntry]) -> Result<(), String> {
    let mut server = Server {
        worker,
        table,
        usual: vec![Duration::MAX; table.len()],
        result: Vec::new(),
        spare: Vec::new(),
        held: 0,
        held_since: Instant::now(),
    };
    match server.run() {
        Stop::Gone => Ok(()),
        Stop::Broken(why) => Err(why),
    }
}

impl Server<'_> {
    fn run(&mut self) -> Stop {
        let mut decoder = Decoder::new(DATA_BODY_MAX);
        let mut partial = None;
        loop {
            loop {
                match decoder.next_frame() {
                    Ok(None) => break,
                    Ok(Some((header, body))) => {
                        if let Err(stop) = self.frame(&header, body, &mut partial) {
                            return stop;
                        }
                    }
                    Err(error) => return error.into(),
                }
            }
            if let Err(stop) = self.more(&mut decoder, &mut partial) {
                return stop;
            }
        }
    }

    /// Moves bytes from the ring to the decoder; waits if there are none. A large body goes straight to its
    /// argument.
    fn more(&mut self, decoder: &mut Decoder, partial: &mut Option<Partial>) -> Result<(), Stop> {
        if self.take(decoder, partial)? {
            return Ok(());
        }
        self.show()?;
        self.wait()?;
        self.take(decoder, partial).map(drop)
    }

    /// What there is in the ring; false if there is nothing.
    fn take(&mut self, decoder: &mut Decoder, partial: &mut Option<Partial>) -> Result<bool, Stop> {
        let calls = &mut self.worker.end.calls;
        if decoder.pending() == 0 {
            let mut head = [0; HEADER_BYTES];
            if calls.peek(&mut head)? == HEADER_BYTES {
                let header = Header::from_bytes(&head);
                if header.kind.get() == Kind::Call as u16 && header.body_len() >= DIRECT_MIN {
                    header.check(DATA_BODY_MAX)?;
                    calls.skip(HEADER_BYTES)?;
                    self.large(&header, partial)?;
                    return Ok(true);
                }
            }
        }
        // Not beyond a frame that is there in part: the next may be a large one.
        let wanted = if decoder.pending() < HEADER_BYTES { READ_BYTES } else { decoder.missing() };
        let calls = &mut self.worker.end.calls;
        Ok(decoder.fill_with(|buffer| calls.read_to(buffer, wanted))? > 0)
    }

    /// Sleeps until something is in the ring.
    fn wait(&mut self) -> Result<(), Stop> {
        let Worker { end, bell, spinner, .. } = &mut self.worker;
        match wait_solely(&mut end.calls, spinner, bell)? {
            Wake::Gone => Err(Stop::Gone),
            _ => Ok(()),
        }
    }

    /// A part of a call whose body is still in the ring.
    fn large(&mut self, header: &Header, partial: &mut Option<Partial>) -> Result<(), Stop> {
        let length = header.body_len();
        check_part(header, length, partial.as_ref())?;
        let mut whole = match partial.take() {
            Some(begun) => begun,
            None => self.begin(header),
        };
        let mut left = length;
        loop {
            left -= self.worker.end.calls.read_to(&mut whole.argument, left)?;
            if left == 0 {
                break;
            }
            self.show()?;
            self.wait()?;
        }
        self.part_came(header, whole, partial)
    }

    /// The first part of a call comes.
    fn begin(&mut self, header: &Header) -> Partial {
        let mut argument = std::mem::take(&mut self.spare);
        argument.clear();
        argument.reserve_exact(CallExtent::unpack(header.extent.get()).bytes as usize);
        Partial { call: CallId(header.sequence.get()), argument }
    }

    /// Runs the call if this was its last part.
    fn part_came(
        &mut self,
        header: &Header,
        whole: Partial,
        partial: &mut Option<Partial>,
    ) -> Result<(), Stop> {
        if header.has(flags::MORE) {
            *partial = Some(whole);
            return Ok(());
        }
        self.call(whole.call, header.aux.get(), &whole.argument)?;
        // One huge argument is no reason to keep its memory.
        if whole.argument.capacity() <= KEPT_MAX {
            self.spare = whole.argument;
        }
        Ok(())
    }

    fn frame(&mut self, header: &Header, body: &[u8], partial: &mut Option<Partial>) -> Result<(), Stop> {
        if header.kind.get() == Kind::Cancel as u16 {
            // One that came whole has been answered; the caller ends the worker of one that runs.
            let call = CallId(header.sequence.get());
            if partial.take_if(|partial| partial.call == call).is_some() {
                // It has its place among the calls of the ring all the same.
                self.worker.end.progress.claim();
                let text = "it was cancelled before it had arrived";
                self.write(call, Err(Failure { code: failure::CANCELLED, text: text.into() }))?;
                self.answered(Instant::now());
            }
            return Ok(());
        }
        if header.kind.get() != Kind::Call as u16 {
            if header.has(flags::OPTIONAL) {
                return Ok(());
            }
            return Err(Stop::Broken(format!(
                "a frame of kind {:#06x} came over the ring",
                header.kind.get()
            )));
        }
        check_part(header, body.len(), partial.as_ref())?;
        match partial.take() {
            None if !header.has(flags::MORE) => {
                self.call(CallId(header.sequence.get()), header.aux.get(), body)
            }
            begun => {
                let mut whole = match begun {
                    Some(begun) => begun,
                    None => self.begin(header),
                };
                whole.argument.extend_from_slice(body);
                self.part_came(header, whole, partial)
            }
        }
    }

    fn call(&mut self, call: CallId, operation: u32, argument: &[u8]) -> Result<(), Stop> {
        if !self.worker.end.progress.claim() {
            // Nobody waits for this answer.
            self.write(call, Err(Failure { code: failure::CANCELLED, text: String::new() }))?;
            self.answered(Instant::now());
            return Ok(());
        }
        let began = Instant::now();
        let index = operation as usize;
        let usual = self.usual.get(index).copied().unwrap_or(Duration::ZERO);
        if self.held >= RESULTS_HELD_MAX
            || (self.held > 0 && (usual > SHORT || began - self.held_since > HELD_MAX))
        {
            self.show()?;
        }
        self.worker.end.progress.begin(call.0, operation);
        super::state::begins(call.0);
        let mut result = std::mem::take(&mut self.result);
        result.clear();
        let outcome = match self.table.get(index) {
            Some(entry) => run(entry, argument, &mut result),
            None => Err(Failure {
                code: failure::NO_SUCH_OPERATION,
                text: format!("this program has no operation number {operation}; is it another version?"),
            }),
        };
        let ended = Instant::now();
        if let Some(usual) = self.usual.get_mut(index) {
            let before = if *usual == Duration::MAX { Duration::ZERO } else { *usual };
            *usual = (ended - began).max(before * 7 / 8);
        }
        self.write(call, outcome.map(|()| result.as_slice()))?;
        // One huge result is no reason to keep its memory.
        result.shrink_to(DATA_BODY_MAX);
        self.result = result;
        self.answered(ended);
        if RETIRES.load(Ordering::Relaxed) {
            self.show()?;
            return Err(Stop::Gone);
        }
        Ok(())
    }

    /// A whole result was written.
    fn answered(&mut self, at: Instant) {
        // Should the next call end this process, those before it have their results.
        self.worker.end.replies.publish();
        self.worker.end.progress.end();
        if self.held == 0 {
            self.held_since = at;
        }
        self.held += 1;
    }

    fn write(&mut self, call: CallId, outcome: Result<&[u8], Failure>) -> Result<(), Stop> {
        let none = Handle(0);
        match outcome {
            Ok(result) => {
                let total = result.len() as u64;
                let mut rest = result;
                loop {
                    let (part, after) = rest.split_at(rest.len().min(DATA_BODY_MAX));
                    let header = result_header(none, call, total, part.len(), !after.is_empty());
                    self.put(&header, part)?;
                    rest = after;
                    if rest.is_empty() {
                        return Ok(());
                    }
                }
            }
            Err(Failure { code, text }) => {
                let text = cut(&text, TEXT_BYTES_MAX);
                self.put(&failure_header(none, call, code, text.len()), text.as_bytes())
            }
        }
    }

    /// Writes one frame, waiting for room.
    fn put(&mut self, header: &Header, body: &[u8]) -> Result<(), Stop> {
        let Worker { end, bell, spinner, .. } = &mut self.worker;
        // A small ring takes a large frame in pieces.
        if HEADER_BYTES + body.len() > end.replies.capacity() / 2 {
            for mut rest in [&header.bytes()[..], body] {
                while !rest.is_empty() {
                    let written = end.replies.write(rest)?;
                    rest = &rest[written..];
                    if written == 0
                        && wait_solely(&mut end.replies.until_room(1), spinner, bell)? == Wake::Gone
                    {
                        return Err(Stop::Gone);
                    }
                }
            }
            return Ok(());
        }
        while !end.replies.write_parts(&[header.bytes(), body])? {
            let bytes = HEADER_BYTES + body.len();
            if wait_solely(&mut end.replies.until_room(bytes), spinner, bell)? == Wake::Gone {
                return Err(Stop::Gone);
            }
        }
        Ok(())
    }

    fn show(&mut self) -> Result<(), Stop> {
        self.held = 0;
        Ok(self.worker.end.replies.flush()?)
    }
}

/// Refuses a part of a call, with a body of `length` bytes, that does not fit to those before it.
fn check_part(header: &Header, length: usize, partial: Option<&Partial>) -> Result<(), Stop> {
    let call = CallId(header.sequence.get());
    let total = u64::from(CallExtent::unpack(header.extent.get()).bytes);
    let have = partial.map_or(0, |partial| partial.argument.len());
    let so_far = (have + length) as u64;
    let more = header.has(flags::MORE);
    let fits = if more { so_far < total && length > 0 } else { so_far == total };
    let same = partial.is_none_or(|partial| partial.call == call);
    if total > CALL_BYTES_MAX || !fits || !same || call.0 == 0 {
        return Err(Stop::Broken(format!("call {} came in parts that do not fit together", call.0)));
    }
    Ok(())
}

/// Runs an operation; a panic becomes a failure.
fn run(entry: &OperationEntry, argument: &[u8], result: &mut Vec<u8>) -> Result<(), Failure> {
    // What the operation leaves half-done is its own: the worker keeps nothing that it could have touched.
    match catch_unwind(AssertUnwindSafe(|| (entry.run)(argument, result))) {
        Ok(Ok(())) if result.len() as u64 > CALL_BYTES_MAX => Err(Failure {
            code: failure::RESULT_TOO_LARGE,
            text: format!(
                "the result of `{}` has {} bytes, but a call returns at most {CALL_BYTES_MAX}; split the work",
                entry.name,
                result.len()
            ),
        }),
        Ok(outcome) => outcome,
        Err(panic) => Err(Failure {
            code: failure::PANICKED,
            text: format!("`{}` panicked: {}", entry.name, panic_text(&*panic)),
        }),
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("(no text)")
}

/// The longest beginning of `text` of at most `max` bytes.
fn cut(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}
