use core::time::Duration;
use mutirao_wire::stream::failure;
use mutirao_wire::{CallId, Tick};

/// A cancelled call that comes to its turn in the worker may be over sooner than a worker is replaced.
const GRACE: Duration = Duration::from_millis(20);
/// A worker that was to be killed and still runs the call is to be killed again.
const AGAIN: Duration = Duration::from_millis(100);

/// When the call at the head of a worker's queue must be over.
///
/// A worker takes its calls in order, so the head runs, or will in a moment. Its time counts from when it
/// became the head, which is never before it began.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Watch {
    call: CallId,
    code: u32,
    at: Tick,
    /// A kill was asked for.
    asked: bool,
}

impl Watch {
    /// For a call that becomes the head.
    pub(crate) fn over(call: CallId, limit_ms: u32, cancelled: bool, now: Tick) -> Option<Watch> {
        if cancelled {
            Some(Watch { call, code: failure::CANCELLED, at: now + GRACE, asked: false })
        } else if limit_ms > 0 {
            let at = now + Duration::from_millis(u64::from(limit_ms));
            Some(Watch { call, code: failure::TIME_LIMIT, at, asked: false })
        } else {
            None
        }
    }

    /// For a head that is cancelled.
    pub(crate) fn cancelled(call: CallId, now: Tick) -> Watch {
        Watch { call, code: failure::CANCELLED, at: now, asked: false }
    }

    pub(crate) fn at(&self) -> Tick {
        self.at
    }

    /// The call to kill and why, if it is time; from then on again and again.
    pub(crate) fn due(&mut self, now: Tick) -> Option<(CallId, u32)> {
        (self.at <= now).then(|| {
            self.at = now + AGAIN;
            self.asked = true;
            (self.call, self.code)
        })
    }

    /// Whether a worker that ends so was ended because of one of its calls.
    pub(crate) fn is_order(code: u32) -> bool {
        matches!(code, failure::CANCELLED | failure::TIME_LIMIT)
    }

    /// Whether the kill of `call` was asked for.
    pub(crate) fn has_asked(watch: Option<Watch>, call: CallId) -> bool {
        watch.is_some_and(|watch| watch.call == call && watch.asked)
    }

    /// What the end of the worker means for `call` that it ran: our own kill, or else `code`.
    pub(crate) fn reason(watch: Option<Watch>, call: CallId, code: u32) -> u32 {
        match watch {
            Some(watch) if Watch::has_asked(Some(watch), call) => watch.code,
            _ => code,
        }
    }
}
