use crate::Mean;
use mutirao_wire::Tick;
use mutirao_wire::limits::{LEASE_CALLS_MAX, OPERATIONS_MAX};

/// Work under way that a lease may have beyond the call it runs, microseconds.
pub(super) const PIPELINE_US: f64 = 2_000.0;
/// Neither calls longer than this nor those behind them are worth a reserve: the way to the lender is short
/// beside them.
const RESERVE_US: f64 = 200_000.0;
/// How much of what was measured stays when the next measurement comes.
const LEASE_MEMORY: f64 = 7.0 / 8.0;
const OPERATION_MEMORY: f64 = 31.0 / 32.0;
/// Calls a lease may have before any has shown that they are short.
const FIRST_DEPTH: u32 = 2;

/// How long operations usually take, over all leases.
#[derive(Debug)]
pub(super) struct Usual {
    operations: Box<[Mean]>,
}

/// How many times longer than usual calls take on one lease, and how much it has to do.
#[derive(Debug)]
pub(super) struct Speed {
    /// What calls took, for each microsecond that they usually take.
    slowness: Mean,
    /// Work of the calls outstanding, but of those of which nobody knew how long they take.
    load_us: f64,
    /// How many these are.
    unknown: u32,
    /// Since when the head may have been running.
    pub(super) mark: Tick,
    /// Calls that may be outstanding: grows by one with each short call, so it doubles in a round trip.
    depth: u32,
}

/// What more a lease can take, whatever the operation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Room {
    pub(super) depth: Depth,
    /// Whether one more call, behind a longer one, would keep it from waiting for the next.
    reserve: bool,
    /// In how many microseconds what it has is expected to be over.
    pub(super) ahead_us: f64,
    slowness: f64,
}

/// How much that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// It has nothing to do: it takes any call.
    Idle,
    /// It has a little to do: short ones.
    Pipeline,
    /// It runs a longer call: one in reserve.
    Reserve,
    /// None.
    Full,
}

/// How a lease stands for one more call.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Fit {
    /// Expected to be over in so many microseconds.
    Now(f64),
    /// Behind a longer call: only when nothing is idle and much waits.
    Reserve(f64),
    /// Not now.
    No,
}

impl Room {
    pub(super) const NONE: Room = Room { depth: Depth::Full, reserve: false, ahead_us: 0.0, slowness: 1.0 };

    /// For a call that usually takes `usual_us`. One of which nobody knows how long it takes may be long.
    pub(super) fn fit(self, usual_us: Option<f64>) -> Fit {
        let Some(usual_us) = usual_us else {
            return if self.depth == Depth::Idle { Fit::Now(self.slowness) } else { Fit::No };
        };
        let call_us = usual_us * self.slowness;
        let done_us = self.ahead_us + call_us;
        match self.depth {
            Depth::Idle => Fit::Now(done_us),
            Depth::Pipeline if done_us <= PIPELINE_US => Fit::Now(done_us),
            Depth::Pipeline | Depth::Reserve if self.reserve && call_us <= RESERVE_US => {
                Fit::Reserve(done_us)
            }
            _ => Fit::No,
        }
    }
}

impl Default for Usual {
    fn default() -> Usual {
        Usual { operations: vec![Mean::default(); OPERATIONS_MAX].into() }
    }
}

impl Usual {
    pub(super) fn index(operation: u32) -> usize {
        (operation as usize).min(OPERATIONS_MAX - 1)
    }

    /// Microseconds, once one call has been measured.
    pub(super) fn time_us(&self, operation: u32) -> Option<f64> {
        self.operations[Usual::index(operation)].time_us()
    }

    fn note(&mut self, operation: u32, took_us: f64) {
        self.operations[Usual::index(operation)].note(took_us, 1.0, OPERATION_MEMORY);
    }
}

impl Default for Speed {
    fn default() -> Speed {
        Speed { slowness: Mean::default(), load_us: 0.0, unknown: 0, mark: Tick(0), depth: FIRST_DEPTH }
    }
}

impl Speed {
    /// A call was sent that is expected to take so long.
    pub(super) fn added(&mut self, work_us: Option<f64>) {
        match work_us {
            Some(work_us) => self.load_us += work_us,
            None => self.unknown += 1,
        }
    }

    /// A call is no longer outstanding.
    pub(super) fn removed(&mut self, work_us: Option<f64>) {
        match work_us {
            Some(work_us) => self.load_us = (self.load_us - work_us).max(0.0),
            None => self.unknown -= 1,
        }
    }

    pub(super) fn emptied(&mut self) {
        self.load_us = 0.0;
        self.unknown = 0;
    }

    /// The head was answered: measures it.
    pub(super) fn answered(&mut self, now: Tick, operation: u32, usual: &mut Usual) {
        let took_us = (now - self.mark).as_micros() as f64;
        self.mark = now;
        usual.note(operation, took_us);
        let usual_us = usual.time_us(operation).unwrap_or(took_us);
        self.slowness.note(took_us, usual_us, LEASE_MEMORY);
        self.depth = if took_us > PIPELINE_US {
            (self.depth / 2).max(FIRST_DEPTH)
        } else {
            (self.depth + 1).min(LEASE_CALLS_MAX)
        };
    }

    /// How much of what is outstanding is left to do, as far as can be told.
    pub(super) fn left_us(&self, now: Tick) -> f64 {
        if self.unknown > 0 {
            return 0.0;
        }
        (self.load_us * self.slowness() - (now - self.mark).as_micros() as f64).max(0.0)
    }

    /// How much there would be to do with one more call, microseconds; without end, while nobody knows.
    pub(super) fn with(&self, usual_us: f64) -> f64 {
        if self.unknown > 0 { f64::INFINITY } else { (self.load_us + usual_us) * self.slowness() }
    }

    /// How many times longer than usual calls take here.
    pub(super) fn slowness(&self) -> f64 {
        // A microsecond on each side keeps the quotient finite while nothing was measurable.
        (self.slowness.time_us + 1.0) / (self.slowness.count + 1.0)
    }

    /// What more can be sent to this lease, on which `outstanding` calls are, of which the first was expected
    /// to take `head_us` where leases are of usual speed.
    pub(super) fn room(&self, now: Tick, outstanding: u32, head_us: f64, local: bool) -> Room {
        let slowness = self.slowness();
        if outstanding == 0 {
            return Room { depth: Depth::Idle, reserve: false, ahead_us: 0.0, slowness };
        }
        // A call that runs for longer than expected is taken to run for as long again.
        let running_us = (now - self.mark).as_micros() as f64;
        let head_us = head_us * slowness;
        let overrun_us = (running_us - head_us).max(0.0);
        let ahead_us = self.load_us * slowness + overrun_us;
        let overruns = overrun_us > head_us.max(PIPELINE_US);
        let reserve = !local && outstanding == 1 && ahead_us <= RESERVE_US && !overruns;
        let depth = if self.unknown > 0 {
            Depth::Full
        } else if ahead_us <= PIPELINE_US && outstanding < self.depth {
            Depth::Pipeline
        } else if reserve {
            Depth::Reserve
        } else {
            Depth::Full
        };
        Room { depth, reserve, ahead_us, slowness }
    }
}
