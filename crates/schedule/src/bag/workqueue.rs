use super::{Choice, Floor, Policy};
use mutirao_wire::Tick;

/// Tasks in their order to whoever is free; when none waits, copies of those that run: first of those
/// with the fewest attempts, then of those that run longest. It needs to know nothing about tasks or
/// machines (Paranhos, Cirne, Brasileiro 2003).
#[derive(Debug)]
pub struct Workqueue {
    /// Attempts of a task at once.
    at_once: usize,
}

impl Workqueue {
    /// Without copies: each task runs once, if nothing goes wrong.
    pub fn plain() -> Workqueue {
        Workqueue::with_copies(1)
    }

    /// At most so many attempts of a task at once, the first one counted.
    pub fn with_copies(at_once: u32) -> Workqueue {
        Workqueue { at_once: at_once.max(1) as usize }
    }
}

impl Policy for Workqueue {
    fn name(&self) -> &'static str {
        if self.at_once == 1 { "workqueue" } else { "wqr" }
    }

    fn next(&mut self, _now: Tick, floor: &Floor) -> Option<Choice> {
        floor.first_in_turn().or_else(|| floor.least_copied(self.at_once))
    }
}
