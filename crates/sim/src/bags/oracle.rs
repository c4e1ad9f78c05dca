use super::{Grid, Work};
use mutirao_schedule::bag::{Floor, Oracle};
use mutirao_wire::Tick;
use std::cell::RefCell;
use std::rc::Rc;

/// Knows sizes, speeds, all future load, and when what runs will be done. That others use a link at the
/// same time it does not foresee.
#[derive(Debug, Clone)]
pub(super) struct Foresight {
    pub(super) grid: Rc<Grid>,
    pub(super) tasks: Rc<[Work]>,
    /// When each machine will be free.
    pub(super) free_at_s: Rc<RefCell<Vec<f64>>>,
}

impl Oracle for Foresight {
    fn work(&self, task: u64) -> f64 {
        self.tasks[task as usize].size
    }

    fn free_s(&self, now: Tick, worker: u64) -> f64 {
        (self.free_at_s.borrow()[worker as usize] - seconds(now)).max(0.0)
    }

    fn done_s(
        &self,
        now: Tick,
        floor: &Floor,
        task: u64,
        worker: u64,
        begin_s: f64,
        with_inputs: bool,
    ) -> f64 {
        let (machine, work) = (&self.grid.machines[worker as usize], &self.tasks[task as usize]);
        let mut bring_s = 0.0;
        if with_inputs {
            let missing = work.inputs.iter().filter(|input| !floor.has_blob(machine.site, &input.blob));
            let bytes: u64 = missing.map(|input| input.bytes).sum();
            bring_s = bytes as f64 / self.grid.links[machine.site as usize];
        }
        machine.done_s(seconds(now) + begin_s + bring_s, work.size) - seconds(now)
    }
}

pub(super) fn seconds(at: Tick) -> f64 {
    at.0 as f64 / 1e6
}
