//! What `mutirao group run` does between the master, the consoles and its node.

use super::lender::piece;
use super::net::{Next, ToHome, Way, Word};
use super::pipes::EndId;
use super::world::{HOME, World};
use mutirao_group::console::{Console, INPUT_BYTES_MAX, Saying};
use mutirao_group::master::{End, Input, Master, Output};
use mutirao_group::wiring::console_pipe;
use mutirao_wire::Tick;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A lease: its lender, and its serial there.
pub(super) type Lease = (usize, u64);

/// What its node tells the launcher.
#[derive(Debug)]
pub(super) enum ToLauncher {
    Opened {
        number: u64,
        end: EndId,
    },
    Broken {
        number: u64,
    },
    /// A call is over.
    Over {
        rank: u32,
        life: u32,
        end: End,
    },
    LeaseLost {
        lender: usize,
        serial: u64,
    },
    Leased {
        rank: u32,
        lease: Lease,
    },
    NoLease {
        rank: u32,
    },
}

/// The launcher of the group.
#[derive(Debug)]
pub(super) struct Launcher {
    master: Master,
    orders: Vec<Output>,
    seats: Vec<Seat>,
    /// Whose console each of the pipes is.
    consoles: BTreeMap<u64, u32>,
    leases: BTreeSet<Lease>,
    /// News of pipes and of calls that nobody has looked at yet.
    pipes: VecDeque<(u64, Option<EndId>)>,
    finished: VecDeque<(u32, u32, End)>,
    began: Tick,
}

/// A process as the launcher has it.
#[derive(Debug)]
struct Seat {
    lease: Lease,
    /// A call runs it there.
    call: bool,
    /// The life that begins when the call of the one before is over.
    next_life: Option<u32>,
    life: u32,
    console: Console,
    pipe: Option<EndId>,
    credit_bytes: u32,
    /// Pieces of input that were said in this life.
    fed: u32,
    /// The master knows that its lease is gone.
    is_homeless: bool,
}

impl World {
    /// Launches the group on these leases, by rank.
    pub(super) fn launch(&mut self, leases: Vec<Lease>) {
        let mut orders = Vec::new();
        let master = Master::new(leases.len() as u32, self.plan.restart, &mut orders);
        let seat = |lease| Seat {
            lease,
            call: false,
            next_life: None,
            life: 0,
            console: Console::default(),
            pipe: None,
            credit_bytes: 0,
            fed: 0,
            is_homeless: false,
        };
        self.launcher = Some(Launcher {
            master,
            orders,
            leases: leases.iter().copied().collect(),
            seats: leases.into_iter().map(seat).collect(),
            consoles: BTreeMap::new(),
            pipes: VecDeque::new(),
            finished: VecDeque::new(),
            began: self.now,
        });
        self.at(self.now, Next::Launcher);
    }

    pub(super) fn launcher_hears(&mut self, told: ToLauncher) {
        let Some(launcher) = &mut self.launcher else { return };
        match told {
            ToLauncher::Opened { number, end } => launcher.news(number, Some(end)),
            ToLauncher::Broken { number } => launcher.news(number, None),
            ToLauncher::Over { rank, life, end } => launcher.finished.push_back((rank, life, end)),
            ToLauncher::LeaseLost { lender, serial } => {
                launcher.leases.remove(&(lender, serial));
                for (seat, rank) in launcher.seats.iter().zip(0..) {
                    if seat.lease == (lender, serial) && seat.call {
                        let end = End::Lost(format!("the lease of n{lender} is over"));
                        self.ledger.lost(rank, seat.life);
                        launcher.finished.push_back((rank, seat.life, end));
                    }
                }
            }
            ToLauncher::Leased { rank, lease } => {
                launcher.leases.insert(lease);
                launcher.seats[rank as usize].lease = lease;
                self.tell_master(Input::Leased { rank });
            }
            ToLauncher::NoLease { rank } => {
                self.ledger.no_lease(rank);
                self.tell_master(Input::NoLease { rank, why: "all are taken".into() });
            }
        }
        self.at(self.now, Next::Launcher);
    }

    fn tell_master(&mut self, input: Input) {
        let now = self.now;
        if let Some(launcher) = &mut self.launcher {
            match &input {
                // Of an earlier life: the next one was ordered before.
                Input::Ended { rank, life, lease, .. } => {
                    let is_now = launcher.master.processes()[*rank as usize].life == *life;
                    launcher.seats[*rank as usize].is_homeless |= !lease && is_now;
                }
                Input::Leased { rank } => launcher.seats[*rank as usize].is_homeless = false,
                _ => {}
            }
            let since = Tick(now.0 - launcher.began.0);
            launcher.master.handle(since, input, &mut launcher.orders);
        }
    }

    /// The launcher is told to end its group.
    pub(super) fn stop(&mut self) {
        if self.launcher.is_some() {
            self.ledger.stopped();
            self.tell_master(Input::Stop { why: "told to".into() });
            self.at(self.now, Next::Launcher);
        }
    }

    /// A turn of its loop.
    pub(super) fn launcher_turn(&mut self) -> Result<(), String> {
        self.obey()?;
        self.hear_of_pipes()?;
        self.take_ends()?;
        let size = self.launcher.as_ref().map_or(0, |launcher| launcher.seats.len());
        for rank in 0..size as u32 {
            self.feed(rank);
            self.talk(rank)?;
        }
        self.obey()
    }

    fn obey(&mut self) -> Result<(), String> {
        while let Some(launcher) = &mut self.launcher
            && !launcher.orders.is_empty()
        {
            for order in std::mem::take(&mut launcher.orders) {
                match order {
                    // Here processes have no pipes but their consoles.
                    Output::Join => {}
                    Output::Start { rank, .. } if self.seat(rank).is_homeless => {
                        return Err(format!("{rank} is to start without a lease"));
                    }
                    Output::Start { rank, life } => self.start(rank, life),
                    Output::End { rank } => self.end(rank),
                    Output::Lease { rank } => self.tell_home(ToHome::Lease { rank }),
                    Output::Restarts { rank, end } => {
                        let life = self.life_of(rank);
                        self.ledger.restarts(self.now, rank, life, &end, &self.plan.restart)?;
                    }
                    Output::Over(outcome) => {
                        let lives = self.lives();
                        self.ledger.over(outcome, &lives)?;
                        self.launcher_gone();
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    fn lives(&self) -> Vec<u32> {
        let processes = self.launcher.iter().flat_map(|launcher| launcher.master.processes());
        processes.map(|process| process.life).collect()
    }

    fn life_of(&self, rank: u32) -> u32 {
        self.lives()[rank as usize]
    }

    /// It has ended, or was killed: its node gives back what it held.
    pub(super) fn launcher_gone(&mut self) {
        if let Some(launcher) = self.launcher.take() {
            launcher.seats.iter().filter_map(|seat| seat.pipe).for_each(|end| self.hang_up(end));
            self.tell_home(ToHome::Gone);
        }
    }

    fn tell_home(&mut self, said: ToHome) {
        self.along(Way::Home, Next::ToHome(said));
    }

    fn seat(&mut self, rank: u32) -> &mut Seat {
        &mut self.launcher.as_mut().expect("the launcher lives").seats[rank as usize]
    }

    fn start(&mut self, rank: u32, life: u32) {
        let seat = self.seat(rank);
        seat.next_life = Some(life);
        if seat.call {
            self.cancel(rank);
        } else {
            self.begin(rank);
        }
    }

    fn cancel(&mut self, rank: u32) {
        let seat = self.seat(rank);
        let (lender, serial) = seat.lease;
        let word = Word::Cancel { serial, life: seat.life };
        self.tell_home(ToHome::Say { lender, word });
    }

    fn begin(&mut self, rank: u32) {
        let seat = self.seat(rank);
        let Some(life) = seat.next_life.take() else { return };
        let before = (seat.life > 0).then(|| console_pipe(rank, seat.life));
        let pipe = seat.pipe.take();
        let lease = seat.lease;
        *seat = Seat {
            lease,
            call: false,
            next_life: None,
            life,
            console: Console::default(),
            pipe: None,
            credit_bytes: INPUT_BYTES_MAX,
            fed: 0,
            is_homeless: false,
        };
        pipe.into_iter().for_each(|end| self.hang_up(end));
        let number = console_pipe(rank, life);
        let Some(launcher) = &mut self.launcher else { return };
        let holds = launcher.leases.contains(&lease);
        if let Some(before) = before {
            launcher.consoles.remove(&before);
            launcher.pipes.retain(|(number, _)| *number != before);
            self.tell_home(ToHome::Close { number: before });
        }
        if !holds {
            self.ledger.lost(rank, life);
            let end = End::Lost("the lease is not held".into());
            return self.tell_master(Input::Ended { rank, life, end, lease: false });
        }
        self.seat(rank).call = true;
        let (lender, serial) = lease;
        self.tell_home(ToHome::Say { lender, word: Word::Begin { serial, rank, life } });
        if let Some(launcher) = &mut self.launcher {
            launcher.consoles.insert(number, rank);
        }
        self.tell_home(ToHome::Open { number, lender, serial });
    }

    fn end(&mut self, rank: u32) {
        let seat = self.seat(rank);
        if let Some(life) = seat.next_life.take() {
            self.tell_master(Input::Ended { rank, life, end: End::Ordered, lease: true });
        } else if seat.call {
            self.cancel(rank);
        }
    }

    fn hear_of_pipes(&mut self) -> Result<(), String> {
        while let Some(launcher) = &mut self.launcher
            && let Some((number, end)) = launcher.pipes.pop_front()
        {
            let Some(rank) = launcher.consoles.get(&number).copied() else { continue };
            if end.is_none() {
                self.talk(rank)?;
            }
            let Some(launcher) = &mut self.launcher else { continue };
            let seat = &mut launcher.seats[rank as usize];
            let before = std::mem::replace(&mut seat.pipe, end);
            match end {
                Some(_) => seat.console.opened(),
                None => seat.console.broken(),
            }
            before.into_iter().for_each(|end| self.hang_up(end));
        }
        Ok(())
    }

    fn take_ends(&mut self) -> Result<(), String> {
        while let Some(launcher) = &mut self.launcher
            && let Some((rank, life, end)) = launcher.finished.pop_front()
        {
            // What it said last may still lie in the pipe.
            self.talk(rank)?;
            if self.seat(rank).life != life {
                continue;
            }
            self.seat(rank).call = false;
            self.launcher_hangs_up(rank);
            if self.seat(rank).next_life.is_some() {
                self.begin(rank);
            } else {
                let lease = self.seat(rank).lease;
                let lease = self.launcher.as_ref().is_some_and(|launcher| launcher.leases.contains(&lease));
                self.tell_master(Input::Ended { rank, life, end, lease });
            }
        }
        Ok(())
    }

    fn launcher_hangs_up(&mut self, rank: u32) {
        let seat = self.seat(rank);
        seat.console.broken();
        seat.pipe.take().into_iter().for_each(|end| self.hang_up(end));
    }

    /// Input for the process, as far as it takes it.
    fn feed(&mut self, rank: u32) {
        let inputs = self.plan.inputs;
        let bytes = 1 + self.random.below(20_000);
        let seat = self.seat(rank);
        while seat.call && seat.fed < inputs && seat.credit_bytes >= 20_000 && seat.console.has_room() {
            let bytes = piece(rank, seat.life, seat.fed, bytes);
            seat.credit_bytes -= bytes.len() as u32;
            seat.fed += 1;
            seat.console.say(Saying::Input(bytes));
        }
    }

    fn talk(&mut self, rank: u32) -> Result<(), String> {
        let Some(end) = self.seat(rank).pipe else { return Ok(()) };
        let most = 1 + self.random.below(64 * 1024);
        let read = self.read(end, most);
        let bytes = read.as_deref().unwrap_or_default();
        let mut heard = Vec::new();
        let seat = self.seat(rank);
        let life = seat.life;
        let made_sense = seat.console.hear(bytes, &mut heard);
        made_sense.map_err(|error| format!("from {rank} in life {life}: {error}"))?;
        let unwritten = |world: &mut World| world.seat(rank).console.unwritten().to_vec();
        let mut is_gone = read.is_err();
        while !is_gone {
            let bytes = unwritten(self);
            if bytes.is_empty() {
                break;
            }
            match self.write(end, &bytes) {
                Ok(0) => break,
                Ok(count) => self.seat(rank).console.written(count),
                Err(_) => is_gone = true,
            }
        }
        if is_gone {
            self.launcher_hangs_up(rank);
        }
        for saying in heard {
            match saying {
                Saying::Runs { .. } => self.tell_master(Input::Runs { rank, life }),
                Saying::Wrote { bytes, .. } => self.ledger.heard(rank, life, &bytes)?,
                Saying::Took(bytes) => {
                    let seat = self.seat(rank);
                    seat.credit_bytes = seat.credit_bytes.saturating_add(bytes).min(INPUT_BYTES_MAX);
                }
                Saying::Ended(report) => {
                    self.ledger.reported(rank, life, &report.end)?;
                    self.tell_master(Input::Ended { rank, life, end: report.end, lease: true });
                }
                other => return Err(format!("a runner said {other:?}")),
            }
        }
        Ok(())
    }

    /// The launcher's node does what it says.
    pub(super) fn home_obeys(&mut self, said: ToHome) -> Result<(), String> {
        use mutirao_tree::pipe::{Input, Spot};
        use mutirao_wire::Epoch;
        use mutirao_wire::pipe::PipePlace;
        if !self.nodes[HOME].alive {
            return Ok(());
        }
        match said {
            ToHome::Say { lender, word } => {
                let serial = match word {
                    Word::Begin { serial, .. } | Word::Cancel { serial, .. } => serial,
                    _ => 0,
                };
                if self.held.contains(&(lender, serial)) {
                    self.say(HOME, lender, word);
                }
            }
            ToHome::Open { number, lender, serial } => {
                if !self.held.contains(&(lender, serial)) {
                    return Ok(());
                }
                let spot = |at: usize, place| Spot { node: self.nodes[at].me.clone(), place };
                let (a, b) = (spot(HOME, PipePlace::Program), spot(lender, PipePlace::Lease(serial)));
                self.tell_pipes(HOME, Input::Open { app: super::world::APP, epoch: Epoch(0), number, a, b });
            }
            ToHome::Close { number } => {
                self.tell_pipes(HOME, Input::Close { app: super::world::APP, number })
            }
            ToHome::Lease { rank } => {
                let nodes: Vec<usize> =
                    (0..self.nodes.len()).filter(|at| *at == HOME || self.linked(HOME, *at)).collect();
                let first = self.random.below(nodes.len());
                let order = nodes.iter().cycle().skip(first).take(nodes.len());
                let lease = order.copied().find_map(|at| Some((at, self.lend(at)?)));
                let told = match lease {
                    Some(lease) => {
                        self.held.insert(lease);
                        ToLauncher::Leased { rank, lease }
                    }
                    None => ToLauncher::NoLease { rank },
                };
                if self.launcher.is_some() {
                    self.along(Way::Launcher, Next::ToLauncher(told));
                } else if let Some(lease) = lease {
                    self.give_back(lease);
                }
            }
            ToHome::Gone => {
                self.app_gone();
                for lease in self.held.clone() {
                    self.give_back(lease);
                }
            }
        }
        Ok(())
    }

    fn give_back(&mut self, (lender, serial): Lease) {
        self.held.remove(&(lender, serial));
        self.say(HOME, lender, Word::Release { serial });
    }
}

impl Launcher {
    /// Of several events of a pipe the last one counts.
    fn news(&mut self, number: u64, end: Option<EndId>) {
        match self.pipes.iter_mut().find(|(known, _)| *known == number) {
            Some((_, news)) => *news = end,
            None => self.pipes.push_back((number, end)),
        }
    }
}
