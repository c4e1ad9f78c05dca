use super::oracle::{Knows, World};
use super::run::Run;
use super::{Grid, Work};
use core::fmt;
use core::str::FromStr;
use mutirao_schedule::bag::{Fpltf, NAMES, Policy, Sufferage, by_name};
use mutirao_wire::Tick;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

/// Policies that know what only a simulation can tell them.
const INFORMED: [&str; 3] = ["fpltf", "sufferage", "xsufferage"];

/// A policy that runs bags: as in a bag file, or an informed one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contender {
    name: String,
    /// Attempts of a task at once, where the policy makes copies.
    copies: u32,
    /// What it knows, where it is informed.
    knows: Knows,
}

/// There is no such contender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownContender(String);

impl fmt::Display for UnknownContender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known: Vec<&str> = NAMES.into_iter().chain(INFORMED).collect();
        write!(f, "there is no scheduler {:?}; there are {}", self.0, known.join(", "))?;
        write!(f, "; after a colon follows how many attempts of a task may run at once, as in wqr:2; ")?;
        write!(f, "or, as in fpltf:now, that only the present load is told, not the future")
    }
}

impl core::error::Error for UnknownContender {}

impl FromStr for Contender {
    type Err = UnknownContender;

    fn from_str(text: &str) -> Result<Contender, UnknownContender> {
        let unknown = || UnknownContender(text.into());
        let (name, detail) = text.split_once(':').map_or((text, None), |(name, detail)| (name, Some(detail)));
        let mut contender = Contender { name: name.into(), copies: 2, knows: Knows::Future };
        match detail {
            _ if NAMES.contains(&name) => {
                let copies = detail.map_or(Ok(2), str::parse).ok();
                contender.copies = copies.filter(|copies| *copies > 0).ok_or_else(unknown)?;
            }
            None if INFORMED.contains(&name) => {}
            Some("now") if INFORMED.contains(&name) => contender.knows = Knows::Present,
            _ => return Err(unknown()),
        }
        Ok(contender)
    }
}

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name.as_str() {
            "wqr" | "storage-affinity" => write!(f, "{}:{}", self.name, self.copies),
            name if self.knows == Knows::Present => write!(f, "{name}:now"),
            name => f.write_str(name),
        }
    }
}

impl Contender {
    fn policy(&self, world: &World) -> Box<dyn Policy> {
        match self.name.as_str() {
            "fpltf" => Box::new(Fpltf::new(world.clone())),
            "sufferage" => Box::new(Sufferage::new(world.clone())),
            "xsufferage" => Box::new(Sufferage::by_site(world.clone())),
            name => by_name(name, self.copies).expect("names are checked when they are read"),
        }
    }
}

/// What a contender made of a bag.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Ran {
    /// Seconds until the last task was done; of several runs of the bag, on average.
    pub makespan_s: f64,
    /// Work done for needless copies, as a part of the bag's.
    pub wasted_work: f64,
    /// Time that machines were taken by needless copies, as a part of the time that brought results.
    pub wasted_time: f64,
    /// Bytes brought for needless copies, as a part of all that were brought.
    pub wasted_bytes: f64,
    /// All bytes brought.
    pub brought_bytes: u64,
    /// Attempts.
    pub attempts: u64,
}

/// Runs a bag `runs` times, one after the other: what was brought to a site for one run is there for the
/// next. `Err` says what should not have happened.
pub fn run_bag(grid: &Rc<Grid>, tasks: &Rc<[Work]>, runs: u32, contender: &Contender) -> Result<Ran, String> {
    let mut ran = Ran::default();
    let (mut now, mut blobs) = (Tick(0), BTreeSet::new());
    let (mut useful_work, mut wasted_work, mut copies_bytes) = (0.0, 0.0, 0);
    let (mut useful_us, mut wasted_us) = (0, 0);
    for _ in 0..runs {
        let doing = Rc::new(RefCell::new(vec![None; grid.machines.len()]));
        let knows = contender.knows;
        let world = World { grid: Rc::clone(grid), tasks: Rc::clone(tasks), doing, knows };
        let policy = contender.policy(&world);
        let outcomes = Run::new(world, policy, now, &blobs).finish(blobs)?;
        blobs = outcomes.blobs;
        now = Tick(now.0 + (outcomes.makespan_s * 1e6) as u64);
        useful_work += outcomes.useful_work;
        wasted_work += outcomes.wasted_work;
        useful_us += outcomes.counts.useful_slot_us;
        wasted_us += outcomes.counts.copies_slot_us;
        copies_bytes += outcomes.counts.copies_bytes;
        ran.makespan_s += outcomes.makespan_s / f64::from(runs);
        ran.brought_bytes += outcomes.counts.brought_bytes;
        ran.attempts += outcomes.counts.attempts;
    }
    ran.wasted_work = wasted_work / useful_work;
    ran.wasted_time = wasted_us as f64 / useful_us as f64;
    ran.wasted_bytes = copies_bytes as f64 / (ran.brought_bytes as f64).max(1.0);
    Ok(ran)
}
