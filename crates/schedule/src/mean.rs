//! Means of what comes in bunches.

/// A quotient of sums, each faded by time, not a mean of quotients: results come in bunches, with nothing between most of
/// them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Mean {
    pub(crate) time_us: f64,
    pub(crate) count: f64,
}

impl Mean {
    /// So many took so long together; of what was noted before, `memory` stays if time has passed since.
    pub fn note(&mut self, time_us: f64, count: f64, memory: f64) {
        if time_us > 0.0 {
            self.time_us *= memory;
            self.count *= memory;
        }
        self.time_us += time_us;
        self.count += count;
    }

    /// What one takes, microseconds, once that is known.
    pub fn time_us(&self) -> Option<f64> {
        (self.count > 0.0).then(|| self.time_us / self.count)
    }
}
