//! The workers of the leases this node lends.

use crate::context::{Assignment, Context, Readiness};
use crate::error::Error;
use crate::plugins::Plugins;
use mutirao_wire::frame::Header;
use mutirao_wire::lease::LeaseEnd;
use mutirao_wire::query::{Confinement, Row};
use mutirao_wire::{PluginId, Tick};
use std::os::fd::OwnedFd;

/// What the lender's jobs bring back.
#[derive(Debug)]
pub enum Done {}

/// The workers of this node.
#[derive(Debug)]
pub struct Lender {}

impl Lender {
    /// Makes ready; starts no process.
    pub fn new(_ctx: &mut Context) -> Result<Lender, Error> {
        Ok(Lender {})
    }

    /// How strongly workers are confined here.
    pub fn confinement(&self) -> Confinement {
        Confinement { level: "none".into(), detail: String::new() }
    }

    /// A place on the spin board for a program that connects, and a descriptor of the board.
    pub fn take_seat(&mut self) -> Option<(u32, OwnedFd)> {
        None
    }

    /// The program of that place is gone.
    pub fn free_seat(&mut self, _seat: u32) {}

    /// A lease begins. Its worker is made when the plugin is here; news follow as `Action::Worker`.
    /// For one without a plugin nothing is started and nothing reported.
    pub fn begin(&mut self, _ctx: &mut Context, _plugins: &mut Plugins, _assignment: Assignment) {}

    /// A lease is over: end its worker at once, then push `Action::Gone`.
    pub fn finish(&mut self, _ctx: &mut Context, _serial: u64, _end: &LeaseEnd) {}

    /// The stream of a lease stands, for the first time or again.
    pub fn bound(&mut self, _ctx: &mut Context, _serial: u64) {}

    /// The stream of a lease broke.
    pub fn unbound(&mut self, _ctx: &mut Context, _serial: u64) {}

    /// A frame came on the stream of a lease; its handle means nothing here.
    pub fn stream_frame(&mut self, _ctx: &mut Context, _serial: u64, _header: &Header, _body: &[u8]) {}

    /// There is room again on the stream of a lease.
    pub fn stream_writable(&mut self, _ctx: &mut Context, _serial: u64) {}

    /// For a local lease whose worker is ready: the ring's memory, the call bell, the reply bell.
    pub fn local_descriptors(&mut self, _serial: u64) -> Option<Vec<OwnedFd>> {
        None
    }

    /// The program wants the worker of its local lease ended (`code`, see `failure`).
    pub fn kill_worker(&mut self, _ctx: &mut Context, _serial: u64, _code: u32) {}

    /// A plugin that was asked of `Plugins` is here, or cannot be had.
    pub fn plugin_here(
        &mut self,
        _ctx: &mut Context,
        _plugins: &mut Plugins,
        _plugin: PluginId,
        _result: Result<(), String>,
    ) {
    }

    /// A watched descriptor is ready.
    pub fn ready(&mut self, _ctx: &mut Context, _plugins: &mut Plugins, _key: u64, _readiness: Readiness) {}

    /// A job is done.
    pub fn done(&mut self, _ctx: &mut Context, _plugins: &mut Plugins, done: Done) {
        match done {}
    }

    /// When `time` wants to be called next.
    pub fn deadline(&self) -> Option<Tick> {
        None
    }

    /// The deadline has passed.
    pub fn time(&mut self, _ctx: &mut Context, _plugins: &mut Plugins) {}

    /// A `Row::Worker` for each lease.
    pub fn rows(&self, _ctx: &Context) -> Vec<Row> {
        Vec::new()
    }

    /// The node goes down: end every worker and template now.
    pub fn leave(&mut self, _ctx: &mut Context) {}
}
