//! Bags that this node keeps, and the members of them here and elsewhere.

use super::Daemon;
use crate::clients::{self, Speaker};
use crate::conn::ConnId;
use mutirao_wire::bag::{Keep, MemberBytes, MemberHello, MemberMessage, VisitHello};
use mutirao_wire::frame::FrameError;
use mutirao_wire::limits::PROTOCOL;
use mutirao_wire::query::{KeepHow, Question, Row};
use mutirao_wire::tree::AskId;
use mutirao_wire::{BagId, NodeId, NodeRef, VisitId};

impl Daemon {
    /// Keeps a bag, if whoever asks may have things done here as if the owner had asked: its keeper asks for slots
    /// in the name of the node's user.
    pub(super) fn keep_bag(&mut self, id: &AskId, question: &Question, keep: &Keep, how: KeepHow) -> Row {
        if question.to.is_none() || self.pool.is_none() || self.leaving.is_some() {
            return self.failed("it keeps no bags, or is asked in the wrong way".into());
        }
        let users: Vec<String> = self.ctx.config.users.iter().cloned().collect();
        let users: Vec<&str> = users.iter().map(String::as_str).collect();
        let kept = self
            .rights
            .check(question, id.origin, &users)
            .and_then(|()| self.rights.sender(question, id.origin))
            .and_then(|sender| self.members.keep(&mut self.ctx, keep.clone(), how, &sender));
        match kept {
            Ok(()) => self.done("keeps it".into()),
            Err(text) => self.failed(text),
        }
    }

    /// The bags of whoever asks.
    pub(super) fn bag_rows(&self, id: &AskId, question: &Question) -> Vec<Row> {
        match self.rights.sender(question, id.origin) {
            Ok((user, _)) => self.members.rows(&user, &self.ctx.me.name),
            // Nobody in particular has none.
            Err(_) => Vec::new(),
        }
    }

    /// Has a process answer for a bag to somebody at `home`, if it is his.
    pub(super) fn visit_bag(
        &mut self,
        id: &AskId,
        question: &Question,
        bag: BagId,
        visit: VisitId,
        home: &NodeRef,
    ) -> Row {
        if question.to.is_none() || self.leaving.is_some() {
            return self.failed("it answers for no bags, or is asked in the wrong way".into());
        }
        let begun = self
            .rights
            .sender(question, id.origin)
            .and_then(|sender| self.members.may_visit(bag, &sender))
            .and_then(|()| self.visits.begin(self.ctx.now, visit, home.clone()));
        if let Err(text) = begun {
            return self.failed(text);
        }
        self.members.visit(&self.ctx, bag, visit, home.id);
        self.done("answers".into())
    }

    /// A process of this machine speaks as a member, or as one of a visit.
    pub(super) fn member_here(&mut self, conn: ConnId, message: MemberMessage) -> Result<(), FrameError> {
        let kind = message.kind();
        let is_new = self.clients.get(conn).is_none();
        match (message, self.clients.speaker(conn)) {
            (MemberMessage::MemberHello(hello), None) if is_new => self.member_hello(conn, &hello),
            (MemberMessage::VisitHello(hello), None) if is_new => self.visit_hello(conn, hello),
            (MemberMessage::VisitBytes(message), Some(Speaker::Visit(visit))) if message.visit == visit => {
                if !self.visits.say(&mut self.ctx, conn, message) {
                    clients::refuse(&mut self.ctx, conn, "the visit is over, or too much is said at once");
                }
            }
            (MemberMessage::MemberBytes(message), Some(Speaker::Member(bag))) => {
                if let Some(node) = self.members.say(&mut self.ctx, bag, message)
                    && let Some(links) = &mut self.links
                {
                    links.dial(&mut self.ctx, &node);
                }
            }
            _ => return Err(FrameError::OutOfPlace { kind }),
        }
        Ok(())
    }

    fn visit_hello(&mut self, conn: ConnId, hello: VisitHello) {
        if !is_spoken(hello.protocol) {
            return clients::refuse(
                &mut self.ctx,
                conn,
                "who visits a bag is of another version than its node",
            );
        }
        if let Err(why) = self.visits.came(hello.visit, conn, hello.with.clone()) {
            return clients::refuse(&mut self.ctx, conn, why);
        }
        self.clients.insert_speaker(conn, Speaker::Visit(hello.visit));
        // Who visits has its node dial; who answers knows no address.
        let is_linked = self.ctx.peers.get(&hello.with.id).is_some_and(|peer| peer.control.is_some());
        if let Some(links) = self.links.as_mut().filter(|_| !is_linked && !hello.with.addresses.is_empty()) {
            links.dial(&mut self.ctx, &hello.with);
        }
    }

    /// The link to a node is lost: its visits are over.
    pub(super) fn visits_lost(&mut self, node: &NodeRef) {
        for conn in self.visits.lost(node.id) {
            clients::refuse(&mut self.ctx, conn, format!("the link to `{}` is lost", node.name));
        }
    }

    fn member_hello(&mut self, conn: ConnId, hello: &MemberHello) {
        if !is_spoken(hello.protocol) {
            return clients::refuse(
                &mut self.ctx,
                conn,
                "the keeper of a bag is of another version than its node",
            );
        }
        if !self.members.came(hello.bag, conn) {
            return clients::refuse(
                &mut self.ctx,
                conn,
                format!("this node does not keep bag {}", hello.bag),
            );
        }
        self.clients.insert_speaker(conn, Speaker::Member(hello.bag));
    }

    /// A member, or one of a visit, elsewhere speaks to the one here.
    pub(super) fn member_of(&mut self, from: NodeId, message: MemberMessage) -> Result<(), FrameError> {
        let message = match message {
            MemberMessage::MemberBytes(message) => message,
            MemberMessage::VisitBytes(message) => {
                match self.visits.hear(&mut self.ctx, from, message) {
                    None => {}
                    Some((conn, message)) => {
                        self.ctx.conns.put_with(conn, |out| MemberMessage::from(message).put(out));
                    }
                }
                return Ok(());
            }
            other => return Err(FrameError::OutOfPlace { kind: other.kind() }),
        };
        if let Some((conn, message)) = self.members.hear(&mut self.ctx, from, message) {
            let message: MemberMessage = MemberBytes::into(message);
            self.ctx.conns.put_with(conn, |out| message.put(out));
        }
        Ok(())
    }
}

fn is_spoken(protocol: (u16, u16)) -> bool {
    protocol.0 <= PROTOCOL.1 && protocol.1 >= PROTOCOL.0
}
