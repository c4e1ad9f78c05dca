use super::Load;
use mutirao_schedule::bag::Input;
use std::sync::Arc;

/// Machines at sites.
#[derive(Debug)]
pub struct Grid {
    /// Each runs one task at a time.
    pub machines: Vec<Machine>,
    /// Bytes a second from where the inputs come from to each site, shared by all that is brought there.
    pub links: Vec<f64>,
}

/// A machine.
#[derive(Debug)]
pub struct Machine {
    /// Its site.
    pub site: u32,
    /// Units of work a second when nothing else runs there.
    pub speed: f64,
    /// What else runs there.
    pub load: Load,
}

impl Machine {
    /// When work that begins at `begin_s` is done.
    pub fn done_s(&self, begin_s: f64, work: f64) -> f64 {
        self.load.done_s(begin_s, work / self.speed)
    }

    /// Units of work a second at `at_s`.
    pub fn rate(&self, at_s: f64) -> f64 {
        self.speed * self.load.level(at_s)
    }

    /// Work done in a span of time.
    pub fn work_between(&self, begin_s: f64, end_s: f64) -> f64 {
        (self.load.given_s(end_s) - self.load.given_s(begin_s)) * self.speed
    }
}

/// A task.
#[derive(Debug, Clone)]
pub struct Work {
    /// Units of work.
    pub size: f64,
    /// What must be at the site before it begins.
    pub inputs: Arc<[Input]>,
}
