//! The clocks of the nodes: each has an origin and a speed of its own, and may jump ahead.

use core::time::Duration;
use mutirao_wire::Tick;

const MILLION: u64 = 1_000_000;

/// How one node's clock follows the world's.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// The world's time from which on this holds, and the node's then.
    since: Tick,
    local: Tick,
    /// Microseconds of the node for each second of the world.
    rate: u64,
}

impl Default for Clock {
    /// The world's own time.
    fn default() -> Clock {
        Clock { since: Tick(0), local: Tick(0), rate: MILLION }
    }
}

impl Clock {
    /// A clock that shows `local` at the world's time `now` and runs `drift_ppm` parts in a million
    /// too fast (too slow if negative).
    pub fn new(now: Tick, local: Tick, drift_ppm: i32) -> Clock {
        Clock { since: now, local, rate: MILLION.saturating_add_signed(drift_ppm.into()).max(1) }
    }

    /// What it shows at the world's time `now`.
    pub fn read(&self, now: Tick) -> Tick {
        Tick(self.local.0 + now.0.saturating_sub(self.since.0) * self.rate / MILLION)
    }

    /// The world's time at which it shows `local`, or more for the first time.
    pub(crate) fn when(&self, local: Tick) -> Tick {
        let ahead = local.0.saturating_sub(self.local.0);
        Tick(self.since.0 + (ahead * MILLION).div_ceil(self.rate))
    }

    /// Jumps ahead, as after a suspension that the other clocks did not see.
    pub(crate) fn step(&mut self, now: Tick, by: Duration) {
        *self = Clock { since: now, local: self.read(now) + by, rate: self.rate };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_read_back_has_come() {
        for drift in [-200_000, -7, 0, 3, 50_000] {
            let clock = Clock::new(Tick(1_000_003), Tick(77), drift);
            for local in [77, 78, 100, 99_999, 123_456_789] {
                let at = clock.when(Tick(local));
                assert!(clock.read(at).0 >= local, "{drift} {local}");
                assert!(at == Tick(1_000_003) || clock.read(Tick(at.0 - 1)).0 < local, "{drift} {local}");
            }
        }
        let mut clock = Clock::default();
        clock.step(Tick(10), Duration::from_micros(5));
        assert_eq!(clock.read(Tick(20)), Tick(25));
    }
}
