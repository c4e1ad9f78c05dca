//! Programs that go in steps: compute, exchange, meet.

use super::{Error, Group};
use std::time::{Duration, Instant};

/// Where the time of a process went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Times {
    /// Supersteps that were finished.
    pub steps: u32,
    /// Spent by the program itself.
    pub computing: Duration,
    /// Spent on exchanging messages.
    pub exchanging: Duration,
    /// Spent on waiting for the others at the end of steps.
    pub waiting: Duration,
}

/// Runs supersteps and says where their time goes.
///
/// ```no_run
/// # fn main() -> Result<(), mutirao::group::Error> {
/// # let group = mutirao::group::Group::open()?;
/// let mut steps = mutirao::group::Superstep::new(&group);
/// let mut sum = 0u64;
/// for round in 0..10u64 {
///     let part = steps.compute(|| round * u64::from(group.rank()));
///     sum += steps.exchange(|group| group.reduce_all(part, |a, b| a + b))?;
///     steps.meet()?;
/// }
/// eprintln!("{sum}: {:?}", steps.times());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Superstep<'a> {
    group: &'a Group,
    times: Times,
}

impl<'a> Superstep<'a> {
    /// For a group that has collectives.
    pub fn new(group: &'a Group) -> Superstep<'a> {
        Superstep { group, times: Times::default() }
    }

    /// Computes.
    pub fn compute<R>(&mut self, work: impl FnOnce() -> R) -> R {
        let began = Instant::now();
        let result = work();
        self.times.computing += began.elapsed();
        result
    }

    /// Exchanges messages.
    pub fn exchange<R>(&mut self, work: impl FnOnce(&Group) -> Result<R, Error>) -> Result<R, Error> {
        let began = Instant::now();
        let result = work(self.group);
        self.times.exchanging += began.elapsed();
        result
    }

    /// Ends the step: waits for all others to end theirs.
    pub fn meet(&mut self) -> Result<(), Error> {
        let began = Instant::now();
        let result = self.group.barrier();
        self.times.waiting += began.elapsed();
        self.times.steps += u32::from(result.is_ok());
        result
    }

    /// Where the time went so far.
    pub fn times(&self) -> Times {
        self.times
    }
}
