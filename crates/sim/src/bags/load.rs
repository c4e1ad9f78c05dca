use crate::Random;

/// Seconds for which the load of a machine stays the same.
const STEP_S: f64 = 60.0;
/// Steps until a drawn load begins again from its start.
const STEPS: usize = 2000;

/// Which part of a machine is free for the bag at any time.
#[derive(Debug, Clone)]
pub struct Load {
    free: Vec<f64>,
    /// Seconds of the whole machine that were free before each step, and before the end.
    sums: Vec<f64>,
}

impl Load {
    /// All of it, always.
    pub fn none() -> Load {
        Load::of(vec![1.0])
    }

    /// A level between a tenth and all of the machine, which another one takes over every ten minutes on
    /// average.
    pub fn drawn(random: &mut Random) -> Load {
        let mut level = 0.0;
        let mut free = Vec::with_capacity(STEPS);
        for step in 0..STEPS {
            if step == 0 || random.chance(10) {
                level = 0.1 + 0.9 * random.part();
            }
            free.push(level);
        }
        Load::of(free)
    }

    pub(super) fn of(free: Vec<f64>) -> Load {
        let mut sums = vec![0.0];
        let mut sum = 0.0;
        for level in &free {
            sum += level * STEP_S;
            sums.push(sum);
        }
        Load { free, sums }
    }

    /// When work that takes the whole machine `alone_s` seconds is done, if it begins at `begin_s`.
    pub fn done_s(&self, begin_s: f64, alone_s: f64) -> f64 {
        let (period_s, whole_s) = (STEP_S * self.free.len() as f64, self.sums[self.free.len()]);
        let end = self.given_s(begin_s) + alone_s;
        let rounds = (end / whole_s).floor();
        let rest = end - rounds * whole_s;
        // Most work is done a few steps later.
        let begin = ((begin_s % period_s) / STEP_S) as usize;
        let near = begin..(begin + 8).min(self.free.len());
        let near = near.clone().find(|&step| self.sums[step] <= rest && rest < self.sums[step + 1]);
        let step = near
            .unwrap_or_else(|| self.sums.partition_point(|sum| *sum <= rest).clamp(1, self.free.len()) - 1);
        rounds * period_s + step as f64 * STEP_S + (rest - self.sums[step]) / self.free[step]
    }

    /// The part of the machine that is free at `at_s`.
    pub fn level(&self, at_s: f64) -> f64 {
        self.free[(at_s / STEP_S) as usize % self.free.len()]
    }

    /// Seconds of the whole machine that were free until `at_s`.
    pub fn given_s(&self, at_s: f64) -> f64 {
        let (period_s, whole_s) = (STEP_S * self.free.len() as f64, self.sums[self.free.len()]);
        let rounds = (at_s / period_s).floor();
        let rest = at_s - rounds * period_s;
        let step = ((rest / STEP_S) as usize).min(self.free.len() - 1);
        rounds * whole_s + self.sums[step] + (rest - step as f64 * STEP_S) * self.free[step]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_takes_as_long_as_is_free() {
        assert_eq!(Load::none().done_s(30.0, 100.0), 130.0);
        let halves = Load::of(vec![1.0, 0.5]);
        assert_eq!(halves.done_s(0.0, 60.0), 60.0);
        assert_eq!(halves.done_s(0.0, 75.0), 90.0);
        assert_eq!(halves.done_s(90.0, 15.0 + 60.0), 180.0, "around the end");
        assert_eq!([59.0, 60.0, 119.0, 120.0].map(|at_s| halves.level(at_s)), [1.0, 0.5, 0.5, 1.0]);
        let load = Load::drawn(&mut Random::new(1));
        for begin in [0.0, 59.0, 1234.5, 130_000.0] {
            for alone in [0.5, 77.0, 5000.0, 100_000.0] {
                let done = load.done_s(begin, alone);
                let given = load.given_s(done) - load.given_s(begin);
                assert!((given - alone).abs() < 1e-6, "{begin} {alone}: {given}");
            }
        }
    }
}
