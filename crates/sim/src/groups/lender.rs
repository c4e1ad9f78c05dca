//! Leases, their workers, and the processes in them: what lender and runner do.

use super::launcher::ToLauncher;
use super::net::{Next, Way, Word};
use super::pipes::EndId;
use super::world::{HOME, World};
use core::time::Duration;
use mutirao_group::console::{Console, PIECE_BYTES_MAX, Report, Saying, Stream};
use mutirao_group::master::End;
use mutirao_group::wiring::console_pipe;
use mutirao_tree::pipe::Input;
use mutirao_wire::Tick;

/// A lease that is lent.
#[derive(Debug, Default)]
pub(super) struct Lent {
    pub(super) worker: Option<u64>,
    /// The process that is to run there: rank and life.
    call: Option<(u32, u32)>,
}

/// A worker, which runs one process at most.
#[derive(Debug, Default)]
pub(super) struct Worker {
    runner: Option<Runner>,
    /// News of pipes that came before its call.
    early: Vec<ToWorker>,
}

/// What a node tells a worker.
#[derive(Debug, Clone)]
pub(super) enum ToWorker {
    Call { rank: u32, life: u32 },
    Opened { number: u64, end: EndId },
    Broken { number: u64 },
}

#[derive(Debug)]
struct Runner {
    rank: u32,
    life: u32,
    console: Console,
    pipe: Option<EndId>,
    script: Script,
    wrote: u32,
    took: u32,
    /// When it writes next.
    due: Tick,
    is_over: bool,
}

/// What a process does.
#[derive(Debug, Clone)]
pub(super) struct Script {
    /// Pieces it writes, and how long after each other at most.
    pub(super) pieces: u32,
    pub(super) pause: Duration,
    /// Pieces of input it reads before it ends.
    pub(super) inputs: u32,
    /// How it ends; `None`: it does not.
    pub(super) end: Option<End>,
}

/// A piece of what a process writes or reads: the so manieth of this life.
pub(super) fn piece(rank: u32, life: u32, number: u32, bytes: usize) -> Vec<u8> {
    let mut piece: Vec<u8> = [rank, life, number].into_iter().flat_map(u32::to_le_bytes).collect();
    piece.resize(bytes.max(piece.len()), number as u8);
    piece
}

impl World {
    /// A lease at this node, if it has a slot free.
    pub(super) fn lend(&mut self, at: usize) -> Option<u64> {
        let node = &mut self.nodes[at];
        if !node.alive || node.lent.len() >= node.slots {
            return None;
        }
        node.serial += 1;
        let serial = node.serial;
        node.lent.insert(serial, Lent::default());
        self.fork(at, serial);
        Some(serial)
    }

    fn fork(&mut self, at: usize, serial: u64) {
        let delay = self.random.between(Duration::from_micros(100), Duration::from_millis(30));
        let life = self.nodes[at].life;
        self.at(self.now + delay, Next::Ready { at, life, serial });
    }

    pub(super) fn worker_ready(&mut self, at: usize, serial: u64) {
        let number = self.last_worker + 1;
        let Some(lent) = self.nodes[at].lent.get_mut(&serial).filter(|lent| lent.worker.is_none()) else {
            return;
        };
        lent.worker = Some(number);
        let call = lent.call;
        self.last_worker = number;
        self.workers.insert(number, Worker::default());
        self.tell_pipes(at, Input::Ready { serial });
        if let Some((rank, life)) = call {
            self.along(
                Way::Worker(number),
                Next::ToWorker { worker: number, told: ToWorker::Call { rank, life } },
            );
        }
    }

    /// Home speaks to lender.
    pub(super) fn lender_hears(&mut self, at: usize, word: Word) -> Result<(), String> {
        match word {
            Word::Begin { serial, rank, life } => match self.nodes[at].lent.get_mut(&serial) {
                None => self.say(at, HOME, Word::LeaseOver { serial }),
                Some(lent) => {
                    if let Some(other) = lent.call.replace((rank, life)) {
                        return Err(format!("life {life} of {rank} began on a lease where {other:?} is"));
                    }
                    if let Some(worker) = lent.worker {
                        let told = ToWorker::Call { rank, life };
                        self.along(Way::Worker(worker), Next::ToWorker { worker, told });
                    }
                }
            },
            Word::Cancel { serial, life } => self.end_call(at, serial, Some(life), End::Ordered),
            Word::Release { serial } => self.end_lease(at, serial),
            other => return Err(format!("a home said {other:?}")),
        }
        Ok(())
    }

    /// The call on a lease ends (that of this life, if one is named), and its worker with it; another follows.
    pub(super) fn end_call(&mut self, at: usize, serial: u64, of: Option<u32>, end: End) {
        let Some(lent) = self.nodes[at].lent.get_mut(&serial) else { return };
        let Some((rank, life)) = lent.call.filter(|(_, life)| of.is_none_or(|of| of == *life)) else {
            return;
        };
        lent.call = None;
        if end.is_unexpected() {
            self.ledger.lost(rank, life);
        }
        let had_worker = self.end_worker(at, serial);
        self.say(at, HOME, Word::Over { serial, rank, life, end });
        if had_worker {
            self.fork(at, serial);
        }
    }

    /// Whether there was one.
    fn end_worker(&mut self, at: usize, serial: u64) -> bool {
        let Some(worker) = self.nodes[at].lent.get_mut(&serial).and_then(|lent| lent.worker.take()) else {
            return false;
        };
        self.kill(worker);
        self.tell_pipes(at, Input::WorkerGone { serial });
        true
    }

    pub(super) fn kill(&mut self, worker: u64) {
        if let Some(Worker { runner: Some(runner), .. }) = self.workers.remove(&worker) {
            self.ledger.killed(runner.rank, runner.life);
        }
        self.hang_up_all(worker);
    }

    /// A lease is over: by its home's word, or because that was silent for too long.
    pub(super) fn end_lease(&mut self, at: usize, serial: u64) {
        if let Some((rank, life)) = self.nodes[at].lent.get(&serial).and_then(|lent| lent.call) {
            self.ledger.lost(rank, life);
        }
        self.end_worker(at, serial);
        if self.nodes[at].lent.remove(&serial).is_some() {
            self.tell_pipes(at, Input::LeaseGone { serial });
        }
    }

    pub(super) fn lender_lapses(&mut self, at: usize) {
        let serials: Vec<u64> = self.nodes[at].lent.keys().copied().collect();
        for serial in serials {
            self.end_lease(at, serial);
            self.say(at, HOME, Word::LeaseOver { serial });
        }
    }

    /// Lender speaks to home.
    pub(super) fn home_hears(&mut self, from: usize, word: Word) -> Result<(), String> {
        match word {
            Word::Over { serial, rank, life, end } => {
                if self.held.contains(&(from, serial)) {
                    self.along(Way::Launcher, Next::ToLauncher(ToLauncher::Over { rank, life, end }));
                }
                Ok(())
            }
            Word::LeaseOver { serial } => {
                self.home_loses(from, serial);
                Ok(())
            }
            other => Err(format!("a lender said {other:?}")),
        }
    }

    /// The home learns that a lease is over.
    pub(super) fn home_loses(&mut self, lender: usize, serial: u64) {
        if self.held.remove(&(lender, serial)) {
            let (app, id) = (super::world::APP, self.nodes[lender].me.id);
            self.tell_pipes(HOME, Input::LeaseOver { app, lender: id, serial });
            let lost = ToLauncher::LeaseLost { lender, serial };
            self.along(Way::Launcher, Next::ToLauncher(lost));
        }
    }

    // ---- runner ----

    pub(super) fn worker_hears(&mut self, number: u64, told: ToWorker) -> Result<(), String> {
        let Some(mut worker) = self.workers.remove(&number) else { return Ok(()) };
        match told {
            ToWorker::Call { rank, life } => {
                self.ledger.begins(rank, life)?;
                let script = self.script();
                let mut console = Console::default();
                console.say(Saying::Runs { pid: number as u32 });
                let runner = Runner {
                    rank,
                    life,
                    console,
                    pipe: None,
                    script,
                    wrote: 0,
                    took: 0,
                    due: self.now,
                    is_over: false,
                };
                worker.runner = Some(runner);
                let early = std::mem::take(&mut worker.early);
                self.workers.insert(number, worker);
                for told in early {
                    self.worker_hears(number, told)?;
                }
                return self.worker_turn(number);
            }
            other => match &mut worker.runner {
                Some(runner) => self.runner_hears(runner, &other),
                None => worker.early.push(other),
            },
        }
        self.workers.insert(number, worker);
        self.worker_turn(number)
    }

    fn runner_hears(&mut self, runner: &mut Runner, told: &ToWorker) {
        let mine = console_pipe(runner.rank, runner.life);
        match *told {
            ToWorker::Opened { number, end } if number == mine => {
                runner.pipe = Some(end);
                runner.console.opened();
            }
            ToWorker::Broken { number } if number == mine => {
                runner.pipe = None;
                runner.console.broken();
            }
            _ => {}
        }
    }

    /// A worker does what it can.
    pub(super) fn worker_turn(&mut self, number: u64) -> Result<(), String> {
        let Some(mut worker) = self.workers.remove(&number) else { return Ok(()) };
        if let Some(runner) = &mut worker.runner {
            self.runner_talks(runner)?;
            self.process_goes_on(number, runner);
            self.runner_writes(runner);
        }
        self.workers.insert(number, worker);
        Ok(())
    }

    fn runner_talks(&mut self, runner: &mut Runner) -> Result<(), String> {
        let Some(end) = runner.pipe else { return Ok(()) };
        let most = 1 + self.random.below(64 * 1024);
        let mut heard = Vec::new();
        let read = self.read(end, most);
        let bytes = read.as_deref().unwrap_or_default();
        let made_sense = runner.console.hear(bytes, &mut heard);
        made_sense.map_err(|error| format!("to {} in life {}: {error}", runner.rank, runner.life))?;
        for saying in heard {
            let Saying::Input(bytes) = saying else { return Err(format!("a launcher said {saying:?}")) };
            if bytes != piece(runner.rank, runner.life, runner.took, bytes.len()) {
                return Err(format!("the input of {} in life {} is out of order", runner.rank, runner.life));
            }
            runner.took += 1;
            runner.console.say(Saying::Took(bytes.len() as u32));
        }
        if read.is_err() {
            self.runner_hangs_up(runner);
        }
        Ok(())
    }

    fn process_goes_on(&mut self, number: u64, runner: &mut Runner) {
        while !runner.is_over && runner.console.has_room() && runner.due <= self.now {
            if runner.wrote < runner.script.pieces {
                let bytes = 1 + self.random.below(PIECE_BYTES_MAX);
                let bytes = if self.random.chance(70) { bytes / 1000 } else { bytes };
                let bytes = piece(runner.rank, runner.life, runner.wrote, bytes);
                runner.console.say(Saying::Wrote { stream: Stream::Out, bytes });
                runner.wrote += 1;
                self.ledger.wrote(runner.rank, runner.life);
                runner.due = self.now + self.random.between(Duration::ZERO, runner.script.pause);
            } else if let Some(end) = runner.script.end.clone()
                && runner.took >= runner.script.inputs
            {
                runner.is_over = true;
                self.ledger.exited(runner.rank, runner.life, end.clone());
                let (cpu_us, peak_kib, wall_us, last_words) = (0, 0, 0, String::new());
                runner.console.say(Saying::Ended(Report { end, cpu_us, peak_kib, wall_us, last_words }));
            } else {
                return;
            }
        }
        if !runner.is_over && runner.due > self.now {
            self.at(runner.due, Next::Worker(number));
        }
    }

    fn runner_writes(&mut self, runner: &mut Runner) {
        while let Some(end) = runner.pipe
            && !runner.console.unwritten().is_empty()
        {
            match self.write(end, runner.console.unwritten()) {
                Ok(0) => return,
                Ok(count) => runner.console.written(count),
                Err(_) => self.runner_hangs_up(runner),
            }
        }
    }

    fn runner_hangs_up(&mut self, runner: &mut Runner) {
        if let Some(end) = runner.pipe.take() {
            self.hang_up(end);
        }
        runner.console.broken();
    }
}
