use super::{Grid, Work};
use mutirao_schedule::bag::{Floor, Oracle};
use mutirao_wire::Tick;
use std::cell::RefCell;
use std::rc::Rc;

/// The world of a run, as informed policies are told it. That others use a link at the same time is not
/// foreseen.
#[derive(Debug, Clone)]
pub(super) struct World {
    pub(super) grid: Rc<Grid>,
    pub(super) tasks: Rc<[Work]>,
    /// What each machine does.
    pub(super) doing: Rc<RefCell<Vec<Option<Doing>>>>,
    pub(super) knows: Knows,
}

/// What is known of the load of machines; sizes and speeds are known anyway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Knows {
    /// All of it, the future too.
    Future,
    /// How it is now, and no more: it may stay so.
    Present,
}

/// An attempt on a machine.
#[derive(Debug, Clone, Copy)]
pub(super) struct Doing {
    /// Units of work.
    pub(super) work: f64,
    /// When it began to compute, or will.
    pub(super) begin_s: f64,
    /// When it will be done.
    pub(super) done_s: f64,
}

impl Oracle for World {
    fn work(&self, task: u64) -> f64 {
        self.tasks[task as usize].size
    }

    fn free_s(&self, now: Tick, worker: u64) -> f64 {
        let (machine, now_s) = (&self.grid.machines[worker as usize], seconds(now));
        let Some(doing) = self.doing.borrow()[worker as usize] else { return 0.0 };
        let left_s = match self.knows {
            Knows::Future => doing.done_s - now_s,
            Knows::Present if doing.begin_s > now_s => {
                doing.begin_s - now_s + doing.work / machine.rate(now_s)
            }
            Knows::Present => (doing.work - machine.work_between(doing.begin_s, now_s)) / machine.rate(now_s),
        };
        left_s.max(0.0)
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
        let (now_s, begin_s) = (seconds(now), begin_s + bring_s);
        match self.knows {
            Knows::Future => machine.done_s(now_s + begin_s, work.size) - now_s,
            Knows::Present => begin_s + work.size / machine.rate(now_s),
        }
    }
}

pub(super) fn seconds(at: Tick) -> f64 {
    at.0 as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::super::{Load, Machine};
    use super::*;

    #[test]
    fn who_knows_the_present_takes_it_to_last() {
        let load = Load::of(vec![1.0, 0.5]);
        let machines = vec![Machine { site: 0, speed: 10.0, load }];
        let doing = Some(Doing { work: 700.0, begin_s: 0.0, done_s: 80.0 });
        let world = |knows| World {
            grid: Rc::new(Grid { machines, links: vec![1.0] }),
            tasks: vec![Work { size: 700.0, inputs: [].into() }].into(),
            doing: Rc::new(RefCell::new(vec![doing])),
            knows,
        };
        let mut world = world(Knows::Future);
        let (floor, at) = (Floor::default(), Tick(30_000_000));
        assert_eq!(world.free_s(at, 0), 50.0);
        assert_eq!(world.done_s(at, &floor, 0, 0, 0.0, false), 100.0, "30 s, 60 at half, 10");
        world.knows = Knows::Present;
        assert_eq!(world.free_s(at, 0), 40.0);
        assert_eq!(world.done_s(at, &floor, 0, 0, 0.0, false), 70.0);
    }
}
