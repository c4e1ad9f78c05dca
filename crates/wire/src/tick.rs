//! Time as the state machines see it: a number that is handed in.

use core::ops::{Add, Sub};
use core::time::Duration;

/// Microseconds since an arbitrary origin, on a clock that also counts suspended time.
/// Never travels: messages carry durations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Tick(pub u64);

impl Add<Duration> for Tick {
    type Output = Tick;
    fn add(self, span: Duration) -> Tick {
        Tick(self.0.saturating_add(span.as_micros().min(u128::from(u64::MAX)) as u64))
    }
}

impl Sub for Tick {
    type Output = Duration;
    /// The time from `earlier` to `self`; zero if `earlier` is later.
    fn sub(self, earlier: Tick) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}
