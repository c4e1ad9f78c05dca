use super::{Contender, Grid, Load, Machine, Ran, Work, run_bag};
use crate::Random;
use mutirao_schedule::bag::Input;
use mutirao_wire::BlobHash;
use std::rc::Rc;
use std::sync::Arc;

/// Speed of the average machine: of units of work a second.
const SPEED: f64 = 10.0;
/// Seconds that the bag of a [`Study::Compute`] would take all machines of the grid, were they free.
const IDEAL_S: f64 = 3600.0;
/// Bytes that the tasks of a [`Study::Data`] read, for each machine of the grid.
const BYTES_A_MACHINE: f64 = 20e6;

/// Which published study a scenario is drawn after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Study {
    /// Tasks that read nothing, as in Paranhos, Cirne, Brasileiro 2003.
    Compute,
    /// Tasks that read much, in a bag that is run several times, as in Santos-Neto and others 2004.
    Data,
}

/// A bag and a grid to be drawn. Public fields may be set before [`run`](Scenario::run).
#[derive(Debug, Clone)]
pub struct Scenario {
    /// The kind of bag.
    pub study: Study,
    /// Machines, about.
    pub machines: u32,
    /// How many times faster than the slowest machine the fastest is, at most.
    pub machine_spread: f64,
    /// Work of the average task: so many seconds on a machine of speed 1, a tenth of the average.
    /// Of a task that reads much: MB it reads.
    pub task_size: f64,
    /// How far sizes of tasks lie apart, as a part of the average: 0 to 1.
    pub task_spread: f64,
    /// Whether the machines have other things to do.
    pub loaded: bool,
    /// Work for each MB that is read.
    pub work_a_mb: f64,
    /// Whether all tasks read a common blob too.
    pub common: bool,
    /// How often the bag is run.
    pub runs: u32,
    /// From which all follows.
    pub seed: u64,
}

impl Scenario {
    /// One of the study's, drawn.
    pub fn new(study: Study, seed: u64) -> Scenario {
        let mut random = Random::new(seed);
        let pick = |random: &mut Random, of: &[f64]| of[random.below(of.len())];
        let machine_spread = pick(&mut random, &[1.0, 2.0, 4.0, 8.0, 16.0]);
        let task_spread = pick(&mut random, &[0.0, 0.25, 0.5, 0.75, 1.0]);
        let (sizes, runs) = match study {
            Study::Compute => ([1000.0, 5000.0, 25_000.0, 125_000.0], 1),
            Study::Data => ([3.0, 3.0, 15.0, 75.0], 5),
        };
        let work_a_mb = 10.0 * 10_f64.powf(random.part() * 2.0 - 1.0);
        let (task_size, common) = (pick(&mut random, &sizes), random.chance(50));
        let (machines, loaded) = (20, true);
        Scenario {
            study,
            machines,
            machine_spread,
            task_size,
            task_spread,
            loaded,
            work_a_mb,
            common,
            runs,
            seed,
        }
    }

    /// Lets each contender run the same bag on the same grid.
    pub fn run(&self, contenders: &[Contender]) -> Result<Vec<Ran>, String> {
        let mut random = Random::new(self.seed ^ 0x5eed);
        let grid = Rc::new(self.draw_grid(&mut random));
        let tasks: Rc<[Work]> = self.draw_tasks(&mut random).into();
        contenders.iter().map(|contender| run_bag(&grid, &tasks, self.runs, contender)).collect()
    }

    fn draw_grid(&self, random: &mut Random) -> Grid {
        let power = f64::from(self.machines) * SPEED;
        let slowest = 2.0 * SPEED / (1.0 + self.machine_spread);
        let mut grid = Grid { machines: Vec::new(), links: Vec::new() };
        let (mut sum, mut room) = (0.0, 0);
        while sum < power {
            if room == 0 {
                room = 1 + random.below(9);
                // About a megabit a second.
                grid.links.push(125e3 * (0.5 + random.part()));
            }
            room -= 1;
            let speed = slowest * (1.0 + (self.machine_spread - 1.0) * random.part());
            let load = if self.loaded { Load::drawn(random) } else { Load::none() };
            grid.machines.push(Machine { site: grid.links.len() as u32 - 1, speed, load });
            sum += speed;
        }
        grid
    }

    fn draw_tasks(&self, random: &mut Random) -> Vec<Work> {
        let common = Input { blob: blob(0), bytes: (self.task_size * 1e6) as u64 };
        let (mut tasks, mut sum) = (Vec::new(), 0.0);
        let whole = match self.study {
            Study::Compute => f64::from(self.machines) * SPEED * IDEAL_S,
            Study::Data => f64::from(self.machines) * BYTES_A_MACHINE / 1e6,
        };
        while sum < whole {
            let drawn = self.task_size * (1.0 + self.task_spread * (random.part() - 0.5));
            sum += drawn;
            tasks.push(match self.study {
                Study::Compute => Work { size: drawn, inputs: Arc::new([]) },
                Study::Data => {
                    let own = Input { blob: blob(tasks.len() as u64 + 1), bytes: (drawn * 1e6) as u64 };
                    let inputs = if self.common { vec![own, common] } else { vec![own] };
                    Work { size: drawn * self.work_a_mb, inputs: inputs.into() }
                }
            });
        }
        tasks
    }
}

fn blob(number: u64) -> BlobHash {
    let mut hash = [0; 32];
    hash[..8].copy_from_slice(&number.to_le_bytes());
    BlobHash(hash)
}
