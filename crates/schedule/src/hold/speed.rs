use core::time::Duration;
use mutirao_wire::Tick;
use mutirao_wire::limits::{LEASE_CALLS_MAX, OPERATIONS_MAX};

/// Work under way that a lease may have beyond the call it runs, microseconds.
pub(super) const PIPELINE_US: f64 = 2_000.0;
/// Calls longer than this are not worth a reserve: the way to the lender is short beside them.
const RESERVE_US: f64 = 200_000.0;
/// How much of what was measured stays when the next measurement comes.
const LEASE_MEMORY: f64 = 7.0 / 8.0;
const OPERATION_MEMORY: f64 = 31.0 / 32.0;
/// Calls a lease may have before any has shown that they are short.
const FIRST_DEPTH: u32 = 2;

/// How long operations usually take, over all leases. Both this and [`Speed`] are quotients of sums, each
/// faded by time, not means of quotients: results come in bunches, with nothing between most of them.
#[derive(Debug)]
pub(super) struct Usual {
    operations: Box<[(f64, f64)]>,
}

/// How many times longer than usual calls take on one lease, and how much it has to do.
#[derive(Debug)]
pub(super) struct Speed {
    time_us: f64,
    work_us: f64,
    /// Work of the calls outstanding.
    load_us: f64,
    /// Since when the head may have been running.
    pub(super) mark: Tick,
    /// Calls that may be outstanding: grows by one with each short call, so it doubles in a round trip.
    depth: u32,
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

impl Default for Usual {
    fn default() -> Usual {
        Usual { operations: vec![(0.0, 0.0); OPERATIONS_MAX].into() }
    }
}

impl Usual {
    fn index(operation: u32) -> usize {
        (operation as usize).min(OPERATIONS_MAX - 1)
    }

    /// Microseconds, once one call has been measured.
    pub(super) fn time_us(&self, operation: u32) -> Option<f64> {
        let (time_us, calls) = self.operations[Usual::index(operation)];
        (calls > 0.0).then(|| time_us / calls)
    }

    fn note(&mut self, operation: u32, took_us: f64) {
        let (time_us, calls) = &mut self.operations[Usual::index(operation)];
        if took_us > 0.0 {
            *time_us *= OPERATION_MEMORY;
            *calls *= OPERATION_MEMORY;
        }
        *time_us += took_us;
        *calls += 1.0;
    }
}

impl Default for Speed {
    fn default() -> Speed {
        Speed { time_us: 0.0, work_us: 0.0, load_us: 0.0, mark: Tick(0), depth: FIRST_DEPTH }
    }
}

impl Speed {
    /// A call was sent; true when there was nothing before it.
    pub(super) fn added(&mut self, work_us: f64) {
        self.load_us += work_us;
    }

    /// A call is no longer outstanding.
    pub(super) fn removed(&mut self, work_us: f64) {
        self.load_us = (self.load_us - work_us).max(0.0);
    }

    pub(super) fn emptied(&mut self) {
        self.load_us = 0.0;
    }

    /// The head was answered: measures it.
    pub(super) fn answered(&mut self, now: Tick, operation: u32, usual: &mut Usual) {
        let took_us = (now - self.mark).as_micros() as f64;
        self.mark = now;
        usual.note(operation, took_us);
        if took_us > 0.0 {
            self.time_us *= LEASE_MEMORY;
            self.work_us *= LEASE_MEMORY;
        }
        self.time_us += took_us;
        self.work_us += usual.time_us(operation).unwrap_or(took_us);
        self.depth = if took_us > PIPELINE_US {
            (self.depth / 2).max(FIRST_DEPTH)
        } else {
            (self.depth + 1).min(LEASE_CALLS_MAX)
        };
    }

    /// How many times longer than usual calls take here.
    pub(super) fn slowness(&self) -> f64 {
        // A microsecond on each side keeps the quotient finite while nothing was measurable.
        (self.time_us + 1.0) / (self.work_us + 1.0)
    }

    /// Whether a call of an operation that usually takes `usual_us` can go to this lease, on which
    /// `outstanding` calls are.
    pub(super) fn fit(&self, now: Tick, usual_us: Option<f64>, outstanding: u32, local: bool) -> Fit {
        let slowness = self.slowness();
        let Some(usual_us) = usual_us else {
            return if outstanding == 0 { Fit::Now(slowness) } else { Fit::No };
        };
        let call_us = usual_us * slowness;
        if outstanding == 0 {
            return Fit::Now(call_us);
        }
        let total_us = (self.load_us + usual_us) * slowness;
        let overdue = now - self.mark > Duration::from_micros((PIPELINE_US + 4.0 * call_us) as u64);
        if !overdue && total_us <= PIPELINE_US && outstanding < self.depth {
            Fit::Now(total_us)
        } else if !local && outstanding == 1 && call_us <= RESERVE_US {
            Fit::Reserve(total_us)
        } else {
            Fit::No
        }
    }
}
