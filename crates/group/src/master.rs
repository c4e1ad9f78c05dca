//! The master of a running group: it knows each process, and what follows when one ends.
//!
//! A process runs on a lease that the launcher holds. While a strategy allows, what ended unexpectedly runs again; else
//! the first unexpected end is the end of the group: all others are ended, and when the last is gone the outcome is
//! told. Whoever ends a process by order is not surprised by its end.
//!
//! The pipes of a process that starts again on its lease stay, and what its peers have sent and it has not received
//! comes again. Those of one whose lease is lost are lost: then all start again.

use crate::{Restart, Strategy};
use mutirao_wire::Tick;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

/// Ends all when one fails, and otherwise waits for all.
#[derive(Debug)]
pub struct Master {
    processes: Vec<Process>,
    restart: Restart,
    /// When processes were started again of late.
    restarts: VecDeque<Tick>,
    phase: Phase,
}

/// A process, as the master knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// How often it was started. Later news of an earlier life mean nothing.
    pub life: u32,
    /// How far it is.
    pub state: State,
    /// Whether its lease is there, as far as is known: one that has ended may lose it, too.
    pub lease: bool,
}

/// How far a process is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Its lease is there, and it was told to start.
    Starting,
    /// It runs.
    Running,
    /// It was told to end.
    Ending,
    /// It has no lease; one was asked for.
    Homeless,
    /// It is over.
    Ended(End),
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// With an exit code.
    Code(u8),
    /// By a signal that the master did not order.
    Signal(u8),
    /// The system killed it for want of memory.
    OutOfMemory,
    /// By order of the master.
    Ordered,
    /// Its node is lost, or took the slot back.
    Lost(String),
    /// It was never there.
    NotStarted(String),
}

/// What the master is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A process runs.
    Runs {
        /// Which.
        rank: u32,
        /// In which of its lives.
        life: u32,
    },
    /// A process has ended.
    Ended {
        /// Which.
        rank: u32,
        /// In which of its lives.
        life: u32,
        /// How.
        end: End,
        /// Whether its lease is still there.
        lease: bool,
    },
    /// A process that was [`State::Homeless`] has a lease.
    Leased {
        /// Which.
        rank: u32,
    },
    /// There is none for it.
    NoLease {
        /// Which.
        rank: u32,
        /// Why, for people.
        why: String,
    },
    /// The group is to end.
    Stop {
        /// Why, for people.
        why: String,
    },
}

/// What follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// All are about to start: join them by fresh pipes.
    Join,
    /// Start a process on its lease.
    Start {
        /// Which.
        rank: u32,
        /// Which life this is, from 1.
        life: u32,
    },
    /// End a process.
    End {
        /// Which.
        rank: u32,
    },
    /// Find a lease for a process.
    Lease {
        /// Which.
        rank: u32,
    },
    /// A process ended unexpectedly, and this is not the end of the group.
    Restarts {
        /// Which.
        rank: u32,
        /// How it ended.
        end: End,
    },
    /// The group is over. Nothing follows.
    Over(Outcome),
}

/// How a group ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// All processes ended by themselves, with exit code 0.
    Well,
    /// A process ended unexpectedly.
    Failed {
        /// Which.
        rank: u32,
        /// How.
        end: End,
    },
    /// It was told to.
    Stopped(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    /// Processes run.
    Runs,
    /// All that runs is being ended, to be started again.
    Turns,
    /// All that runs is being ended, for good.
    Ends(Outcome),
    /// Nothing runs any more.
    Over,
}

impl Master {
    /// The master of so many processes, all of which have leases. Appends what starts them.
    pub fn new(size: u32, restart: Restart, out: &mut Vec<Output>) -> Master {
        let process = Process { life: 0, state: State::Starting, lease: true };
        let processes = vec![process; size as usize];
        let mut master = Master { processes, restart, restarts: VecDeque::new(), phase: Phase::Runs };
        master.start_all(out);
        master
    }

    /// Takes one input and appends what follows.
    pub fn handle(&mut self, now: Tick, input: Input, out: &mut Vec<Output>) {
        match input {
            Input::Runs { rank, life } => {
                if let Some(process) = self.alive(rank, life).filter(|one| one.state == State::Starting) {
                    process.state = State::Running;
                }
            }
            Input::Ended { rank, life, end, lease } => {
                self.note_lease(rank, life, lease, out);
                let Some(process) = self.alive(rank, life) else { return };
                let ordered = process.state == State::Ending;
                // What it had ended of before the order came is what it ended of.
                let end = if ordered && end.is_unexpected() { End::Ordered } else { end };
                process.state = State::Ended(end.clone());
                if !lease && self.phase == Phase::Turns {
                    self.lease(rank, out);
                }
                if end.is_unexpected() {
                    self.unexpected(now, rank, end, out);
                }
            }
            Input::Leased { rank } => {
                if let Some(process) = self.homeless(rank) {
                    process.lease = true;
                    process.state = State::Ended(End::Ordered);
                }
            }
            Input::NoLease { rank, why } => {
                if let Some(process) = self.homeless(rank) {
                    let end = End::NotStarted(why);
                    process.state = State::Ended(end.clone());
                    self.end_all(Outcome::Failed { rank, end }, out);
                }
            }
            Input::Stop { why } => self.end_all(Outcome::Stopped(why), out),
        }
        self.go_on(out);
    }

    /// The processes, by rank.
    pub fn processes(&self) -> &[Process] {
        &self.processes
    }

    fn alive(&mut self, rank: u32, life: u32) -> Option<&mut Process> {
        let process = self.processes.get_mut(rank as usize)?;
        let lives = matches!(process.state, State::Starting | State::Running | State::Ending);
        (lives && process.life == life).then_some(process)
    }

    /// A process may have ended before its lease did.
    fn note_lease(&mut self, rank: u32, life: u32, lease: bool, out: &mut Vec<Output>) {
        let Some(process) = self.processes.get_mut(rank as usize).filter(|process| process.life == life)
        else {
            return;
        };
        process.lease &= lease;
        if !lease && self.phase == Phase::Turns && matches!(process.state, State::Ended(_)) {
            self.lease(rank, out);
        }
    }

    fn homeless(&mut self, rank: u32) -> Option<&mut Process> {
        self.processes.get_mut(rank as usize).filter(|process| process.state == State::Homeless)
    }

    fn start_all(&mut self, out: &mut Vec<Output>) {
        out.push(Output::Join);
        (0..self.processes.len() as u32).for_each(|rank| self.start(rank, out));
    }

    fn start(&mut self, rank: u32, out: &mut Vec<Output>) {
        let process = &mut self.processes[rank as usize];
        process.life += 1;
        process.state = State::Starting;
        out.push(Output::Start { rank, life: process.life });
    }

    fn lease(&mut self, rank: u32, out: &mut Vec<Output>) {
        self.processes[rank as usize].state = State::Homeless;
        out.push(Output::Lease { rank });
    }

    fn unexpected(&mut self, now: Tick, rank: u32, end: End, out: &mut Vec<Output>) {
        if self.phase != Phase::Runs {
            return;
        }
        if !self.may_restart(now) {
            return self.end_all(Outcome::Failed { rank, end }, out);
        }
        out.push(Output::Restarts { rank, end });
        if self.processes[rank as usize].lease && self.restart.strategy == Strategy::OneForOne {
            return self.start(rank, out);
        }
        self.phase = Phase::Turns;
        self.end_living(out);
        let lacks = |process: &Process| !process.lease && matches!(process.state, State::Ended(_));
        for rank in (0..self.processes.len()).filter(|rank| lacks(&self.processes[*rank])).collect::<Vec<_>>()
        {
            self.lease(rank as u32, out);
        }
    }

    /// Whether the strategy allows one more start, which is counted.
    fn may_restart(&mut self, now: Tick) -> bool {
        let within = Duration::from_secs(self.restart.within_s.into());
        self.restarts.retain(|at| now - *at < within);
        let may = self.restart.strategy != Strategy::None && self.restarts.len() < self.restart.most as usize;
        if may {
            self.restarts.push_back(now);
        }
        may
    }

    fn end_living(&mut self, out: &mut Vec<Output>) {
        for (process, rank) in self.processes.iter_mut().zip(0..) {
            if matches!(process.state, State::Starting | State::Running) {
                process.state = State::Ending;
                out.push(Output::End { rank });
            }
        }
    }

    fn end_all(&mut self, outcome: Outcome, out: &mut Vec<Output>) {
        if matches!(self.phase, Phase::Ends(_) | Phase::Over) {
            return;
        }
        self.phase = Phase::Ends(outcome);
        for process in &mut self.processes {
            if process.state == State::Homeless {
                process.state = State::Ended(End::Ordered);
            }
        }
        self.end_living(out);
    }

    /// When nothing runs any more: the next turn, or the end.
    fn go_on(&mut self, out: &mut Vec<Output>) {
        if self.phase == Phase::Over || !self.processes.iter().all(|one| matches!(one.state, State::Ended(_)))
        {
            return;
        }
        let outcome = match std::mem::replace(&mut self.phase, Phase::Over) {
            Phase::Turns => {
                self.phase = Phase::Runs;
                return self.start_all(out);
            }
            Phase::Ends(outcome) => outcome,
            Phase::Runs | Phase::Over => Outcome::Well,
        };
        out.push(Output::Over(outcome));
    }
}

impl Input {
    /// The process it is about, if it is about one.
    pub fn rank(&self) -> Option<u32> {
        match self {
            Input::Runs { rank, .. }
            | Input::Ended { rank, .. }
            | Input::Leased { rank }
            | Input::NoLease { rank, .. } => Some(*rank),
            Input::Stop { .. } => None,
        }
    }
}

impl Output {
    /// The process it is about, if it is about one.
    pub fn rank(&self) -> Option<u32> {
        match self {
            Output::Start { rank, .. }
            | Output::End { rank }
            | Output::Lease { rank }
            | Output::Restarts { rank, .. } => Some(*rank),
            Output::Join | Output::Over(_) => None,
        }
    }
}

impl End {
    /// Whether it is not how a process ends that has done its work.
    pub fn is_unexpected(&self) -> bool {
        !matches!(self, End::Code(0) | End::Ordered)
    }

    /// As a shell would see it: an exit code, or 128 and a signal.
    pub fn code(&self) -> u8 {
        match self {
            End::Code(code) => *code,
            End::Signal(signal) => 128_u8.saturating_add(*signal),
            End::OutOfMemory => 137,
            End::Ordered | End::Lost(_) | End::NotStarted(_) => 1,
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Code(code) => write!(f, "exit code {code}"),
            End::Signal(signal) => write!(f, "signal {signal}"),
            End::OutOfMemory => f.write_str("killed for want of memory"),
            End::Ordered => f.write_str("ended with its group"),
            End::Lost(why) => write!(f, "lost: {why}"),
            End::NotStarted(why) => write!(f, "could not be started: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};

    fn restart(strategy: Strategy, most: u32) -> Restart {
        Restart { strategy, most, within_s: 60 }
    }

    /// A master and all it has said.
    struct World {
        master: Master,
        said: Vec<Output>,
        now: Tick,
    }

    impl World {
        fn new(size: u32, restart: Restart) -> World {
            let mut said = Vec::new();
            let master = Master::new(size, restart, &mut said);
            World { master, said, now: Tick(1) }
        }

        /// What follows an input.
        fn tell(&mut self, input: Input) -> Vec<Output> {
            let mut out = Vec::new();
            self.master.handle(self.now, input, &mut out);
            self.said.extend(out.iter().cloned());
            out
        }

        fn ended(&mut self, rank: u32, end: End) -> Vec<Output> {
            self.ended_with(rank, end, true)
        }

        fn ended_with(&mut self, rank: u32, end: End, lease: bool) -> Vec<Output> {
            let life = self.master.processes()[rank as usize].life;
            self.tell(Input::Ended { rank, life, end, lease })
        }
    }

    #[test]
    fn a_group_is_over_when_all_have_ended_well() {
        let mut world = World::new(2, restart(Strategy::None, 3));
        let start = |rank| Output::Start { rank, life: 1 };
        assert_eq!(world.said, [Output::Join, start(0), start(1)]);
        world.tell(Input::Runs { rank: 0, life: 1 });
        assert_eq!(world.ended(1, End::Code(0)), []);
        assert_eq!(world.ended(0, End::Code(0)), [Output::Over(Outcome::Well)]);
        assert_eq!(world.tell(Input::Stop { why: "late".into() }), []);
    }

    #[test]
    fn the_first_unexpected_end_is_the_end_of_all() {
        let mut world = World::new(3, restart(Strategy::None, 3));
        assert_eq!(world.ended(1, End::Signal(11)), [Output::End { rank: 0 }, Output::End { rank: 2 }]);
        // Killed by order, or too quick for it.
        assert_eq!(world.ended(0, End::Signal(9)), []);
        let outcome = Outcome::Failed { rank: 1, end: End::Signal(11) };
        assert_eq!(world.ended(2, End::Code(0)), [Output::Over(outcome)]);
        assert_eq!(world.master.processes()[0].state, State::Ended(End::Ordered));
        assert_eq!(world.master.processes()[2].state, State::Ended(End::Code(0)));
    }

    #[test]
    fn one_for_one_starts_the_one_again_until_it_was_too_often() {
        let mut world = World::new(2, restart(Strategy::OneForOne, 2));
        let again = |life| Output::Start { rank: 0, life };
        let restarts = |end| Output::Restarts { rank: 0, end };
        assert_eq!(world.ended(0, End::Code(1)), [restarts(End::Code(1)), again(2)]);
        // Late news of its first life.
        let late = Input::Ended { rank: 0, life: 1, end: End::Code(3), lease: true };
        assert_eq!(world.tell(late), []);
        assert_eq!(world.ended(0, End::Code(2)), [restarts(End::Code(2)), again(3)]);
        assert_eq!(world.ended(0, End::Code(1)), [Output::End { rank: 1 }]);
        let mut world = World::new(2, restart(Strategy::OneForOne, 1));
        world.ended(0, End::Code(1));
        world.now = world.now + Duration::from_secs(61);
        assert_eq!(world.ended(0, End::Code(1))[1], again(3), "a while ago counts no more");
    }

    #[test]
    fn all_start_again_when_all_have_ended_and_have_leases() {
        for strategy in [Strategy::OneForAll, Strategy::OneForOne] {
            all_start_again(strategy);
        }
    }

    /// Of three processes, one has ended well and the lease of another is lost.
    fn all_start_again(strategy: Strategy) {
        let mut world = World::new(3, restart(strategy, 1));
        world.ended(2, End::Code(0));
        let lost = End::Lost("n2".into());
        let said = world.ended_with(1, lost.clone(), false);
        assert_eq!(
            said,
            [Output::Restarts { rank: 1, end: lost }, Output::End { rank: 0 }, Output::Lease { rank: 1 }]
        );
        assert_eq!(world.ended(0, End::Signal(9)), []);
        let start = |rank| Output::Start { rank, life: 2 };
        assert_eq!(world.tell(Input::Leased { rank: 1 }), [Output::Join, start(0), start(1), start(2)]);
    }

    /// One that has ended well may lose its slot before all start again.
    #[test]
    fn nothing_starts_where_no_lease_is() {
        let lost = |rank| Input::Ended { rank, life: 1, end: End::Lost("n2".into()), lease: false };
        for is_lost_before in [true, false] {
            let mut world = World::new(3, restart(Strategy::OneForAll, 1));
            world.ended(2, End::Code(0));
            if is_lost_before {
                assert_eq!(world.tell(lost(2)), []);
            }
            let said = world.ended(1, End::Code(3));
            assert_eq!(said.contains(&Output::Lease { rank: 2 }), is_lost_before, "{said:?}");
            if !is_lost_before {
                assert_eq!(world.tell(lost(2)), [Output::Lease { rank: 2 }]);
            }
            assert_eq!(world.ended(0, End::Signal(9)), []);
            let start = |rank| Output::Start { rank, life: 2 };
            assert_eq!(world.tell(Input::Leased { rank: 2 }), [Output::Join, start(0), start(1), start(2)]);
        }
    }

    #[test]
    fn no_lease_anywhere_is_the_end() {
        let mut world = World::new(2, restart(Strategy::OneForAll, 5));
        world.ended_with(0, End::Lost("gone".into()), false);
        world.tell(Input::NoLease { rank: 0, why: "full".into() });
        let outcome = Outcome::Failed { rank: 0, end: End::NotStarted("full".into()) };
        assert_eq!(world.ended(1, End::Signal(9)), [Output::Over(outcome)]);
    }

    fn any_end() -> impl proptest::strategy::Strategy<Value = End> {
        prop::sample::select(vec![
            End::Code(0),
            End::Code(1),
            End::Signal(9),
            End::Lost("x".into()),
            End::NotStarted("y".into()),
        ])
    }

    proptest! {
        /// Whatever happens: nothing is started twice, every order to end goes to what lives, and once all that was
        /// asked for has come the group is over or runs.
        #[test]
        fn nothing_is_left_behind(
            size in 1_u32..6,
            strategy in prop::sample::select(vec![Strategy::None, Strategy::OneForOne, Strategy::OneForAll]),
            most in 0_u32..4,
            events in prop::collection::vec((0_u32..6, any_end(), any::<bool>(), 0_u8..10), 0..60),
        ) {
            let mut world = World::new(size, restart(strategy, most));
            let mut lives = vec![true; size as usize];
            let mut over = false;
            let mut wanted: Vec<u32> = Vec::new();
            let stop = (0, End::Code(0), true, 9);
            // At last it is told to end, and all that must come comes.
            let ends = (0..size).cycle().take(3 * size as usize).map(|rank| (rank, End::Signal(9), true, 0));
            for (rank, end, lease, what) in events.into_iter().chain([stop]).chain(ends) {
                let rank = rank % size;
                let out = match what {
                    9 => world.tell(Input::Stop { why: "told".into() }),
                    7 | 8 => match wanted.pop() {
                        Some(rank) if lease => world.tell(Input::Leased { rank }),
                        Some(rank) => world.tell(Input::NoLease { rank, why: "none".into() }),
                        None => Vec::new(),
                    },
                    _ if !lives[rank as usize] => Vec::new(),
                    _ => {
                        lives[rank as usize] = false;
                        world.ended_with(rank, end, lease)
                    }
                };
                prop_assert!(!over || out.is_empty());
                for one in out {
                    match one {
                        Output::Start { rank, .. } => {
                            prop_assert!(!std::mem::replace(&mut lives[rank as usize], true));
                        }
                        Output::End { rank } => prop_assert!(lives[rank as usize]),
                        Output::Lease { rank } => {
                            prop_assert!(!wanted.contains(&rank) && !lives[rank as usize]);
                            wanted.push(rank);
                        }
                        Output::Over(_) => {
                            prop_assert!(lives.iter().all(|lives| !lives));
                            over = true;
                        }
                        Output::Join => prop_assert!(lives.iter().all(|lives| !lives)),
                        Output::Restarts { .. } => {}
                    }
                }
            }
            prop_assert_eq!(over, true);
        }
    }
}
