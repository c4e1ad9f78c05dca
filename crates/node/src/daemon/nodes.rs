//! What comes from other nodes.

use super::Daemon;
use crate::conn::ConnId;
use crate::links::LinkEvent;
use mutirao_tree::{Input, pipe};
use mutirao_wire::bag::MemberMessage;
use mutirao_wire::frame::{FrameError, Header};
use mutirao_wire::kind::Kind;
use mutirao_wire::lease::LeaseMessage;
use mutirao_wire::pipe::PipeOrder;
use mutirao_wire::plugin::{Item, NeedSource, PluginMessage, ReleaseBlob};
use mutirao_wire::query::AdminMessage;
use mutirao_wire::stream::StreamMessage;
use mutirao_wire::tree::TreeMessage;
use mutirao_wire::{NodeId, NodeRef};
use std::collections::HashSet;
use std::time::Duration;

/// A link nobody needed for so long is closed.
const IDLE: Duration = Duration::from_secs(30);

impl Daemon {
    pub(super) fn link_events(&mut self) {
        while let Some(links) = self.links.as_mut().filter(|links| !links.events.is_empty()) {
            for event in core::mem::take(&mut links.events) {
                self.link_event(event);
            }
        }
    }

    fn link_event(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Up(node) => {
                self.plugins.link(&mut self.ctx, &node, true);
                self.members.met(&mut self.ctx, &node);
                let peer = node.id;
                self.seeking.found(peer);
                self.visits.met(&mut self.ctx, peer);
                self.tell_core(Input::LinkUp(node));
                self.tell_pipes(pipe::Input::LinkUp(peer));
            }
            LinkEvent::Down(node) => {
                self.plugins.link(&mut self.ctx, &node, false);
                self.visits_lost(&node);
                self.tell_core(Input::LinkDown(node.id));
            }
            LinkEvent::DialFailed(peer) => {
                self.members.missed(peer);
                self.seek(peer);
                self.tell_core(Input::DialFailed(peer));
                self.tell_pipes(pipe::Input::DataFailed(peer));
            }
            LinkEvent::PlaceUp { place, node } => self.place_up(&place, node),
            LinkEvent::PlaceFailed { place, why } => self.place_failed(&place, &why),
            LinkEvent::DataUp { peer, conn, dialled: true } => {
                self.streams.data_up(&mut self.ctx, peer, conn);
                self.plugins.data_up(&mut self.ctx, peer, conn);
                self.tell_pipes(pipe::Input::DataUp { peer, conn });
            }
            LinkEvent::DataUp { dialled: false, .. } => {}
            LinkEvent::DataDown { peer, conn, dialled } => {
                for serial in self.streams.data_down(&mut self.ctx, peer, conn) {
                    self.lender.unbound(&mut self.ctx, serial);
                }
                if dialled {
                    self.plugins.data_down(&mut self.ctx, peer);
                }
                self.plugins.data_writable(&mut self.ctx, conn);
                self.pipes_cut(conn);
            }
            LinkEvent::Denied { by, why } => self.turned_away(by, why),
            LinkEvent::DataFailed(peer) => {
                self.streams.data_failed(self.ctx.now, peer);
                self.plugins.data_down(&mut self.ctx, peer);
                self.tell_pipes(pipe::Input::DataFailed(peer));
            }
        }
    }

    pub(super) fn want_data(&mut self, node: &NodeRef) {
        let Some(links) = &self.links else { return self.plugins.data_down(&mut self.ctx, node.id) };
        let must_close = links.has_most_data(&self.ctx, node.id);
        let unused = if must_close { self.unused_data() } else { Vec::new() };
        let Some(links) = &mut self.links else { return };
        if must_close && !links.close_data(&mut self.ctx, &unused) {
            links.refuse_data(node);
        } else {
            links.dial_data(&mut self.ctx, node);
        }
    }

    /// To whom there is a data connection that carries nothing.
    fn unused_data(&self) -> Vec<NodeId> {
        let open = self.ctx.peers.iter().filter(|(_, peer)| peer.data.is_some()).map(|(peer, _)| *peer);
        open.filter(|peer| !self.uses(*peer)).collect()
    }

    pub(super) fn control_frame(
        &mut self,
        peer: NodeId,
        header: &Header,
        body: &[u8],
    ) -> Result<(), FrameError> {
        let kind = header.kind.get();
        if TreeMessage::has_kind(kind) {
            let message = TreeMessage::read(header, body)?;
            self.tell_core(Input::Tree { from: peer, message });
        } else if LeaseMessage::has_kind(kind) {
            let message = LeaseMessage::read(header, body)?;
            self.tell_core(Input::Lease { from: peer, message });
        } else if AdminMessage::has_kind(kind) {
            let AdminMessage::Summon(summon) = AdminMessage::read(header, body)?;
            self.summoned(peer, &summon.question);
        } else if MemberMessage::has_kind(kind) {
            self.member_of(peer, MemberMessage::read(header, body)?)?;
        } else if PipeOrder::has_kind(kind) {
            let message = PipeOrder::read(header, body)?;
            self.pipe_order(peer, message);
        } else {
            let message = PluginMessage::read(header, body)?;
            if let PluginMessage::NeedSource(NeedSource { item: item @ Item::Blob { app, hash }, .. }) =
                message
                && let Err(why) = self.may_have_blob(peer, app, hash)
            {
                // Without an answer it asks again.
                if let Some(why) = why {
                    self.plugins.refuse_blob(&mut self.ctx, peer, item, why);
                }
                return Ok(());
            }
            if let PluginMessage::ReleaseBlob(ReleaseBlob { app, .. }) = message
                && !self.core.leases().any(|it| it.asker.app == app && it.home().id == peer)
            {
                return Ok(());
            }
            self.plugins.message(&mut self.ctx, peer, message);
        }
        // A lease must begin before its stream speaks of it, in this very turn.
        self.carry_out();
        Ok(())
    }

    pub(super) fn data_frame(
        &mut self,
        conn: ConnId,
        peer: NodeId,
        dialled: bool,
        header: &Header,
        body: &[u8],
    ) -> Result<(), FrameError> {
        const BLOBS: [u16; 3] = [Kind::BlobGet as u16, Kind::BlobChunk as u16, Kind::BlobMissing as u16];
        let kind = header.kind.get();
        if BLOBS.contains(&kind) {
            self.plugins.data_frame(&mut self.ctx, conn, peer, header, body);
            return Ok(());
        }
        if Daemon::is_pipe_frame(kind) {
            return self.pipe_frame(conn, peer, dialled, header, body);
        }
        if dialled {
            return self.streams.lender_frame(&mut self.ctx, conn, header, body);
        }
        if kind == Kind::Bind as u16 {
            if let StreamMessage::Bind(bind) = StreamMessage::read(header, body)? {
                self.bind(conn, peer, bind);
            }
            return Ok(());
        }
        let handle = if kind == Kind::Resume as u16 {
            let StreamMessage::Resume(resume) = StreamMessage::read(header, body)? else { return Ok(()) };
            resume.handle.0
        } else {
            header.handle.get()
        };
        // A lease that has just ended: its home learns so on the control connection.
        let Some(serial) = self.streams.lent(conn, handle) else { return Ok(()) };
        self.lender.stream_frame(&mut self.ctx, serial, header, body);
        Ok(())
    }

    /// Whether a data connection to `peer` carries or awaits something.
    fn uses(&self, peer: NodeId) -> bool {
        self.streams.uses(peer) || self.plugins.uses_data(peer) || self.pipes.uses(peer)
    }

    /// Closes what nobody has used for a while.
    pub(super) fn tidy(&mut self) {
        let Some(idle) = self.links.as_ref().map(|links| links.idle_for(self.ctx.now, IDLE)) else { return };
        let (needed, idle): (Vec<NodeId>, Vec<NodeId>) = idle.into_iter().partition(|p| self.core.needs(*p));
        let is_idle =
            |peer: &NodeId| !self.uses(*peer) && !self.members.uses(*peer) && !self.visits.uses(*peer);
        let idle: Vec<NodeId> = idle.into_iter().filter(is_idle).collect();
        let unused: HashSet<NodeId> = self.unused_data().into_iter().collect();
        let Some(links) = &mut self.links else { return };
        needed.into_iter().for_each(|peer| links.needed(peer));
        idle.into_iter().for_each(|peer| links.close_link(&mut self.ctx, peer));
        for peer in unused.intersection(&self.unused) {
            if let Some(data) = self.ctx.peers.get(peer).and_then(|peer| peer.data) {
                links.lost(&mut self.ctx, data, "not used");
            }
        }
        self.unused = unused;
    }
}
