//! Pipes between the ends of applications, as far as they touch this node.
//!
//! What is to be done is decided by [`mutirao_tree::pipe`]. Here lie the descriptors and the bytes.
//!
//! | module | does |
//! | --- | --- |
//! | [`pump`] | moves bytes between the socket of an end here and a data connection |
//! | [`plain`] | brings and awaits sockets of their own on links the pool trusts |
//! | [`ring`] | makes the ring between two ends of this machine |
//! | [`terminal`] | makes a terminal for a worker |

pub(crate) mod plain;
pub(crate) mod pump;
pub(crate) mod ring;
pub(crate) mod terminal;

use crate::conn::ConnId;
use crate::context::{Context, Readiness};
use mutirao_tree::pipe::{Input, Output};
use mutirao_wire::{NodeId, Tick};
use plain::Plains;
use pump::Pumps;
use std::collections::HashMap;

/// What a watched descriptor is: the upper bits of its key, above the number.
const KIND_SHIFT: u32 = 48;
const PUMP: u64 = 1;
const OFFER: u64 = 2;
const ARRIVAL: u64 = 3;
const DIAL: u64 = 4;

/// All that this node has of pipes.
pub(crate) struct Pipes {
    machine: mutirao_tree::pipe::Pipes<ConnId>,
    /// What the machine has said and nobody has done yet.
    pub(crate) outputs: Vec<Output<ConnId>>,
    pub(crate) pumps: Pumps,
    pub(crate) plains: Plains,
    /// The lines to workers here, by lease.
    pub(crate) lines: HashMap<u64, WorkerLine>,
}

/// The line to a worker here.
pub(crate) struct WorkerLine {
    pub(crate) conn: ConnId,
    /// The device of the terminal that the worker was given, once in its life.
    pub(crate) terminal: Option<u64>,
}

impl Pipes {
    pub(crate) fn new(me: NodeId) -> Pipes {
        Pipes {
            machine: mutirao_tree::pipe::Pipes::new(me),
            outputs: Vec::new(),
            pumps: Pumps::default(),
            plains: Plains::default(),
            lines: HashMap::new(),
        }
    }

    /// Tells the machine; what it says is among `outputs`.
    pub(crate) fn tell(&mut self, now: Tick, input: Input<ConnId>) {
        self.machine.handle(now, input, &mut self.outputs);
    }

    /// The lease whose worker's line this connection is.
    pub(crate) fn line_of(&self, conn: ConnId) -> Option<u64> {
        self.lines.iter().find(|(_, line)| line.conn == conn).map(|(serial, _)| *serial)
    }

    /// The devices of the terminals that workers have.
    pub(crate) fn terminals(&self) -> Vec<u64> {
        self.lines.values().filter_map(|line| line.terminal).collect()
    }

    /// Whether connections to `peer` are in use.
    pub(crate) fn uses(&self, peer: NodeId) -> bool {
        self.machine.uses(peer)
    }

    /// A watched descriptor is ready.
    pub(crate) fn ready(&mut self, ctx: &mut Context, key: u64, readiness: Readiness) {
        let number = key & ((1 << KIND_SHIFT) - 1);
        match key >> KIND_SHIFT {
            PUMP => self.pumps.ready(ctx, number, readiness),
            OFFER => self.plains.asked(ctx, number),
            ARRIVAL => self.plains.arrived(ctx, number),
            DIAL => self.plains.connected(ctx, number),
            _ => {}
        }
        self.hear_plain(ctx.now);
    }

    /// Lets the machine know what became of plain sockets.
    fn hear_plain(&mut self, now: Tick) {
        for (conn, handle, stands) in self.plains.take_results() {
            self.tell(now, Input::Plain { conn, handle, stands });
        }
    }

    pub(crate) fn deadline(&self) -> Option<Tick> {
        let pumps = self.pumps.has_more().then_some(Tick(0));
        [pumps, self.machine.deadline(), self.plains.deadline()].into_iter().flatten().min()
    }

    pub(crate) fn time(&mut self, ctx: &mut Context) {
        self.pumps.go_on(ctx);
        self.plains.time(ctx.now);
        self.hear_plain(ctx.now);
        if self.machine.deadline().is_some_and(|at| at <= ctx.now) {
            self.tell(ctx.now, Input::Time);
        }
    }
}
