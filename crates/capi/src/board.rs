//! Calls that C holds by a pointer, and the board on which their ends are written.
//!
//! The library below delivers each call once, on whatever thread finds its result. Here the result is kept with the
//! call, the call is noted for `mutirao_next` or handed to the thread that runs `done`, and waiters are told.

use crate::convert::c_text;
use crate::error::{Code, Error};
use mutirao::raw::{self, CallError, CallErrorKind, CallResult, Finished};
use rustix::event::{EventfdFlags, eventfd};
use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_void};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// The finished calls of a pool.
#[derive(Debug)]
pub struct Board {
    state: Mutex<State>,
    /// A call has finished.
    changed: Condvar,
    /// Readable while `State::finished` has something.
    event: OwnedFd,
}

#[derive(Debug, Default)]
struct State {
    /// Finished and not reported yet, oldest first.
    finished: BTreeMap<u64, Arc<Call>>,
    last: u64,
    closed: bool,
}

/// `mutirao_done`.
pub type Done = unsafe extern "C-unwind" fn(*const Call, *mut c_void);

/// `mutirao_call`.
#[derive(Debug)]
pub struct Call {
    board: Arc<Board>,
    /// Set right after it was submitted.
    submitted: OnceLock<raw::Call>,
    /// Set when it has finished.
    outcome: OnceLock<Outcome>,
    place: Mutex<Place>,
    /// The program's own; only handed back.
    context: AtomicPtr<c_void>,
    done: Option<Done>,
}

#[derive(Debug)]
struct Outcome {
    node: CString,
    result: Mutex<CallResult>,
}

/// Where a call stands; changed only under the board's lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Not to be reported, or not yet.
    Nowhere,
    /// Among the finished.
    Noted(u64),
    /// The program has no use for it any more.
    Deleted,
}

impl Board {
    pub fn new() -> Result<Arc<Board>, Error> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|errno| {
            Error::new(Code::System, &format!("could not make an event descriptor: {errno}"))
        })?;
        Ok(Arc::new(Board { state: Mutex::default(), changed: Condvar::new(), event }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No change of the state is left half-done by a panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn event(&self) -> RawFd {
        self.event.as_raw_fd()
    }

    /// The oldest call that is finished and was not reported.
    pub fn next(&self) -> Option<Arc<Call>> {
        let mut state = self.lock();
        let (_, call) = state.finished.pop_first()?;
        *call.place() = Place::Nowhere;
        self.calm(&state);
        Some(call)
    }

    /// From now on nothing is noted.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let finished = std::mem::take(&mut state.finished);
        self.calm(&state);
        drop(state);
        drop(finished);
    }

    /// Waits until some call finishes, or a little while.
    pub fn wait_a_while(&self, at_most: Duration) {
        drop(self.changed.wait_timeout(self.lock(), at_most).unwrap_or_else(PoisonError::into_inner));
    }

    /// Makes the event unreadable when nothing is left.
    fn calm(&self, state: &State) {
        if state.finished.is_empty() {
            // It fails only when it is unreadable already.
            let _ = rustix::io::read(&self.event, &mut [0u8; 8]);
        }
    }
}

impl Call {
    pub fn new(board: Arc<Board>, context: *mut c_void, done: Option<Done>) -> Arc<Call> {
        Arc::new(Call {
            board,
            submitted: OnceLock::new(),
            outcome: OnceLock::new(),
            place: Mutex::new(Place::Nowhere),
            context: AtomicPtr::new(context),
            done,
        })
    }

    pub fn board(&self) -> &Arc<Board> {
        &self.board
    }

    /// Notes what the library below calls it. It may have finished by then.
    pub fn submitted(&self, call: raw::Call) {
        // It is submitted once.
        let _ = self.submitted.set(call);
    }

    /// The call below, for waiting; `None` if it need not be waited for.
    pub fn unfinished(&self) -> Option<&raw::Call> {
        if self.is_finished() { None } else { self.submitted.get() }
    }

    pub fn is_finished(&self) -> bool {
        self.outcome.get().is_some()
    }

    pub fn context(&self) -> *mut c_void {
        self.context.load(Ordering::Relaxed)
    }

    /// What the program wants to have run when it has finished.
    pub fn done(&self) -> Option<Done> {
        self.done
    }

    /// The node that computed it; empty before it is finished.
    pub fn node(&self) -> &CStr {
        self.outcome.get().map_or(c"", |outcome| &outcome.node)
    }

    /// Notes the end. Whether `done` is to be run for it.
    pub fn finish(self: &Arc<Self>, finished: Finished) -> bool {
        let Finished { result, node, .. } = finished;
        let node = node.as_deref().or(result.as_ref().err().and_then(|error| error.node.as_deref()));
        let outcome = Outcome { node: c_text(node.unwrap_or_default()), result: Mutex::new(result) };
        // It is delivered once.
        let _ = self.outcome.set(outcome);
        let mut state = self.board.lock();
        let alive = *self.place() != Place::Deleted;
        if alive && self.done.is_none() && !state.closed {
            state.last += 1;
            let number = state.last;
            if state.finished.is_empty() {
                // It fails only when it is readable already.
                let _ = rustix::io::write(&self.board.event, &1u64.to_ne_bytes());
            }
            state.finished.insert(number, self.clone());
            *self.place() = Place::Noted(number);
        }
        self.board.changed.notify_all();
        alive && self.done.is_some()
    }

    /// Waits for an end that the library below has found and another thread is about to note.
    pub fn wait_for_note(&self) {
        if self.is_finished() {
            return;
        }
        let state = self.board.lock();
        let waited = self.board.changed.wait_while(state, |_| !self.is_finished());
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// The result, once; its error as often as asked for.
    pub fn take(&self) -> Result<Vec<u8>, Error> {
        let Some(outcome) = self.outcome.get() else {
            return Err(Error::argument("the call is not finished; wait for it first"));
        };
        let mut result = outcome.result.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = &*result {
            return Err(error.clone().into());
        }
        let text = "its result was taken before".to_owned();
        let taken = Err(CallError { kind: CallErrorKind::Taken, text, node: None });
        Ok(std::mem::replace(&mut *result, taken)?)
    }

    pub fn cancel(&self) {
        if let Some(call) = self.unfinished() {
            call.cancel();
        }
    }

    /// The program has no use for it any more.
    pub fn delete(&self) {
        let mut state = self.board.lock();
        let before = std::mem::replace(&mut *self.place(), Place::Deleted);
        let noted = match before {
            Place::Noted(number) => state.finished.remove(&number),
            _ => None,
        };
        self.board.calm(&state);
        drop(state);
        drop(noted);
        self.cancel();
    }

    pub fn is_deleted(&self) -> bool {
        *self.place() == Place::Deleted
    }

    fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
