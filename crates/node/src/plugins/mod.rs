//! The plugins this node keeps, takes in from local programs, fetches and hands on.

use crate::context::{ConnId, Context, Readiness};
use crate::error::Error;
use mutirao_wire::frame::Header;
use mutirao_wire::local::OfferPlugin;
use mutirao_wire::node::{Asker, PluginRef};
use mutirao_wire::plugin::PluginMessage;
use mutirao_wire::query::{Question, Row};
use mutirao_wire::{NodeId, NodeRef, PluginId, Tick};
use std::os::fd::OwnedFd;

/// What the plugins' jobs bring back.
#[derive(Debug)]
pub enum Done {}

/// The plugins of this node.
#[derive(Debug)]
pub struct Plugins {}

impl Plugins {
    /// Opens the store and reads the owner's decisions.
    pub fn new(_ctx: &mut Context) -> Result<Plugins, Error> {
        Ok(Plugins {})
    }

    /// A program offers its plugin; `Action::PluginOffered` follows. `files` as many as it names.
    pub fn offer(&mut self, _ctx: &mut Context, _client: ConnId, _offer: OfferPlugin, _files: Vec<OwnedFd>) {}

    /// What a lender has to know of a plugin, if its manifest is kept here.
    pub fn reference(&self, _plugin: PluginId) -> Option<PluginRef> {
        None
    }

    /// A request waits for the owner's approval of its plugin: list it.
    pub fn awaits(&mut self, _ctx: &mut Context, _asker: &Asker) {}

    /// Plugins the owner approved and denied, for the core's policy.
    pub fn decisions(&self) -> (Vec<PluginId>, Vec<PluginId>) {
        (Vec::new(), Vec::new())
    }

    /// A message came on the control connection from a node.
    pub fn message(&mut self, _ctx: &mut Context, _from: NodeId, _message: PluginMessage) {}

    /// A node is linked (control connection), `up`, or no longer.
    pub fn link(&mut self, _ctx: &mut Context, _peer: &NodeRef, _up: bool) {}

    /// The data connection asked for by `open_data` stands.
    pub fn data_up(&mut self, _ctx: &mut Context, _peer: NodeId, _conn: ConnId) {}

    /// The data connection dialled to a node closed, or could not be opened.
    pub fn data_down(&mut self, _ctx: &mut Context, _peer: NodeId) {}

    /// A frame about blobs came on a data connection: `BlobGet` to a holder, on a connection the
    /// asker dialled; `BlobChunk` and `BlobMissing` back on the same.
    pub fn data_frame(
        &mut self,
        _ctx: &mut Context,
        _conn: ConnId,
        _peer: NodeId,
        _header: &Header,
        _body: &[u8],
    ) {
    }

    /// There is room again on a data connection that had none; also told when it closed, after which
    /// `ctx.conns.exists(conn)` is false.
    pub fn data_writable(&mut self, _ctx: &mut Context, _conn: ConnId) {}

    /// Whether a data connection to or from `peer` is in use for blobs.
    pub fn uses_data(&self, _peer: NodeId) -> bool {
        false
    }

    /// A watched descriptor is ready.
    pub fn ready(&mut self, _ctx: &mut Context, _key: u64, _readiness: Readiness) {}

    /// A job is done.
    pub fn done(&mut self, _ctx: &mut Context, done: Done) {
        match done {}
    }

    /// When `time` wants to be called next.
    pub fn deadline(&self) -> Option<Tick> {
        None
    }

    /// The deadline has passed.
    pub fn time(&mut self, _ctx: &mut Context) {}

    /// Answers `Topic::Plugins` with a row each; carries out `Approve` and `RemovePlugin` (the
    /// daemon has checked the right to it) and answers `Row::Done` or `Row::Failed`.
    pub fn answer(&mut self, _ctx: &mut Context, _question: &Question) -> Vec<Row> {
        Vec::new()
    }
}
