//! Calls: programs that run `schedule::hold`, homes with a `relay` for each lease elsewhere, lenders with a
//! `serve` for each lease of a home elsewhere, workers, and the data connections between the nodes. Every
//! frame passes through the real codec, as in the daemon, whose part between these machines this plays.

mod data;
mod home;
mod ledger;
mod lender;
mod load;
mod program;
mod ring;

pub use ledger::Account;
pub(crate) use load::{finish, work};
pub(crate) use program::Program;

use crate::event::Event;
use crate::world::World;
use core::time::Duration;
use data::Data;
use home::Passed;
use ledger::Ledger;
use lender::Lent;
use mutirao_wire::stream::Bind;
use mutirao_wire::{AppId, Incarnation, LeaseId, Tick};
use program::{FromProgram, ToProgram};
use ring::Ring;
use std::collections::{BTreeMap, BTreeSet};

/// What the calls of a world are made of.
#[derive(Default)]
pub(crate) struct Calls {
    ledger: Ledger,
    rings: BTreeMap<u64, Ring>,
    data: BTreeMap<u64, Data>,
    /// Data connections being dialled.
    dials: BTreeSet<(usize, usize)>,
    /// The last ring, the last data connection.
    last: u64,
}

/// What one node knows of calls.
#[derive(Default)]
pub(crate) struct Streams {
    /// Leases elsewhere of programs at home here.
    passed: BTreeMap<LeaseId, Passed>,
    /// Leases here with workers.
    lent: BTreeMap<u64, Lent>,
    /// Bindings that came before their leases, and until when they are kept.
    early: Vec<(Tick, u64, Bind)>,
    /// When a relay or an early binding is looked at next.
    due: Option<Tick>,
}

impl Streams {
    pub(crate) fn has_lent(&self, serial: u64) -> bool {
        self.lent.contains_key(&serial)
    }
}

/// Something that is to happen to calls.
pub(crate) enum Happening {
    /// A node's message reaches a program.
    ToProgram(usize, Incarnation, AppId, ToProgram),
    /// A program's message reaches its node.
    FromProgram(usize, Incarnation, AppId, FromProgram),
    /// A program is told the time.
    ProgramTime(usize, AppId, Tick),
    /// A data connection is dialled successfully, or in vain.
    Connect {
        from: usize,
        to: usize,
    },
    Unreachable {
        from: usize,
        to: usize,
    },
    /// Frames arrive at an end of a data connection.
    Frames {
        data: u64,
        side: usize,
        bytes: Vec<u8>,
    },
    /// This end of a data connection learns that it is no more.
    Closed {
        data: u64,
        side: usize,
    },
    /// A relay, or a binding that came early, is due.
    HomeTime(usize, Incarnation, Tick),
    /// A worker is ready.
    WorkerStarts(usize, Incarnation, u64),
    /// The worker of this ring is gone; what it ran ends with this code.
    WorkerOver {
        ring: u64,
        code: u32,
    },
    /// The lease has no worker any more, or never had one.
    LeaseOver(usize, Incarnation, u64),
    /// The worker of a ring goes on.
    Work(u64),
    /// The caller of a ring sees what has changed in it.
    Bell(u64),
    /// A `serve` is due.
    ServeTime(usize, Incarnation, u64, Tick),
}

impl World {
    pub(crate) fn happens(&mut self, delay: Duration, what: Happening) {
        self.at(delay, Event::Call(Box::new(what)));
    }

    /// Which node has to be awake for it.
    fn needs_awake(&self, what: &Happening) -> Option<usize> {
        match what {
            Happening::FromProgram(node, ..)
            | Happening::HomeTime(node, ..)
            | Happening::WorkerStarts(node, ..)
            | Happening::LeaseOver(node, ..)
            | Happening::ServeTime(node, ..) => Some(*node),
            Happening::Connect { from, .. } | Happening::Unreachable { from, .. } => Some(*from),
            Happening::Frames { data, side, .. } | Happening::Closed { data, side } => {
                self.calls.data.get(data).map(|data| data.nodes[*side])
            }
            Happening::WorkerOver { ring, .. } => self.calls.rings.get(ring).map(|ring| ring.node),
            Happening::Bell(ring) => {
                self.calls.rings.get(ring).filter(|ring| !ring.local).map(|ring| ring.node)
            }
            Happening::ToProgram(..) | Happening::ProgramTime(..) | Happening::Work(_) => None,
        }
    }

    pub(crate) fn call_event(&mut self, what: Box<Happening>) {
        if let Some(node) = self.needs_awake(&what).filter(|node| self.stalled(*node)) {
            return self.nodes[node].inbox.push(Event::Call(what));
        }
        match *what {
            Happening::ToProgram(node, life, app, message) => {
                if self.alive(node, life) {
                    self.with_program(node, app, |world, program| world.program_hears(program, message));
                }
            }
            Happening::FromProgram(node, life, app, message) => {
                if self.alive(node, life) {
                    self.program_says(node, app, message);
                }
            }
            Happening::ProgramTime(node, app, at) => {
                self.with_program(node, app, |world, program| world.program_time(program, at));
            }
            Happening::Connect { from, to } => self.data_connects(from, to),
            Happening::Unreachable { from, to } => self.data_failed(from, to),
            Happening::Frames { data, side, bytes } => self.frames(data, side, &bytes),
            Happening::Closed { data, side } => self.close_data(data, side),
            Happening::HomeTime(node, life, at) => {
                if self.alive(node, life) && self.nodes[node].streams.due == Some(at) {
                    self.nodes[node].streams.due = None;
                    self.home_time(node);
                }
            }
            Happening::WorkerStarts(node, life, serial) => {
                if self.alive(node, life) {
                    self.worker_starts(node, serial);
                }
            }
            Happening::WorkerOver { ring, code } => self.worker_over(ring, code),
            Happening::LeaseOver(node, life, serial) => {
                if self.alive(node, life) {
                    self.lease_over(node, serial);
                }
            }
            Happening::Work(ring) => self.worker_steps(ring),
            Happening::Bell(ring) => self.bell(ring),
            Happening::ServeTime(node, life, serial, at) => {
                if self.alive(node, life) {
                    self.serve_time(node, serial, at);
                }
            }
        }
    }

    /// The clock of a node has jumped: what waited for it is due earlier.
    pub(crate) fn arm_calls_of(&mut self, node: usize) {
        self.arm_home(node);
        let serials: Vec<u64> = self.nodes[node].streams.lent.keys().copied().collect();
        serials.into_iter().for_each(|serial| self.arm_serve(node, serial));
        let ids: Vec<AppId> = self.nodes[node].apps.keys().copied().collect();
        for app in ids {
            self.with_program(node, app, |world, program| world.turn_ends(program));
        }
    }

    /// How the calls made so far ended.
    pub fn account(&self) -> Account {
        self.calls.ledger.account()
    }

    /// Does something with a program, if it is (still) there.
    fn with_program(&mut self, node: usize, app: AppId, act: impl FnOnce(&mut World, &mut Program)) {
        let of = |world: &mut World| world.nodes[node].apps.get_mut(&app).and_then(|app| app.program.take());
        let Some(mut program) = of(self) else { return };
        act(self, &mut program);
        if let Some(app) = self.nodes[node].apps.get_mut(&app) {
            app.program = Some(program);
        }
    }

    /// A program is gone, with what it knew.
    pub(crate) fn program_gone(&mut self, node: usize, app: AppId) {
        if self.nodes[node].apps.remove(&app).is_none_or(|app| app.program.is_none()) {
            return;
        }
        self.calls.ledger.abandoned(app);
        self.forget_passed(node, app);
        self.calls.rings.retain(|_, ring| {
            ring.parted |= ring.local && ring.app == app;
            !ring.parted || ring.alive
        });
    }

    /// All programs at home on a node are gone.
    pub(crate) fn programs_gone(&mut self, node: usize) {
        let ids: Vec<AppId> = self.nodes[node].apps.keys().copied().collect();
        ids.into_iter().for_each(|app| self.program_gone(node, app));
    }

    /// A node has died: its workers die with it, a moment later; its programs see their connections end.
    pub(crate) fn streams_lost(&mut self, node: usize, silently: bool) {
        self.nodes[node].streams = Streams::default();
        let rings: Vec<u64> = self
            .calls
            .rings
            .iter()
            .filter(|(_, ring)| ring.node == node)
            .map(|(number, _)| *number)
            .collect();
        for ring in rings {
            let delay = self.random.between(Duration::ZERO, Duration::from_millis(1));
            self.happens(delay, Happening::WorkerOver { ring, code: 0 });
        }
        self.data_lost(node, silently);
        let ids: Vec<AppId> = self.nodes[node].apps.keys().copied().collect();
        for app in ids {
            self.with_program(node, app, |world, program| world.program_alone(program));
        }
    }

    /// What is left of calls, if anything.
    pub(crate) fn check_no_calls_left(&self) -> Result<(), String> {
        for (index, node) in self.nodes.iter().enumerate() {
            let (passed, lent) = (node.streams.passed.len(), node.streams.lent.len());
            if passed + lent > 0 {
                return Err(format!("n{index} still passes {passed} leases on and serves {lent}"));
            }
        }
        match self.calls.rings.iter().find(|(_, ring)| ring.alive || !ring.local) {
            Some((number, ring)) => Err(format!("ring {number} of n{} is left over", ring.node)),
            None => Ok(()),
        }
    }
}
