//! Bags that this node keeps, and the members of them here and elsewhere.

use super::Daemon;
use crate::clients;
use crate::conn::ConnId;
use mutirao_wire::NodeId;
use mutirao_wire::bag::{Keep, MemberBytes, MemberHello, MemberMessage};
use mutirao_wire::frame::FrameError;
use mutirao_wire::limits::PROTOCOL;
use mutirao_wire::query::{KeepHow, Question, Row};
use mutirao_wire::tree::AskId;

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
            .and_then(|()| self.members.keep(&mut self.ctx, keep.clone(), how));
        match kept {
            Ok(()) => self.done("keeps it".into()),
            Err(text) => self.failed(text),
        }
    }

    /// A process of this machine speaks as a member.
    pub(super) fn member_here(&mut self, conn: ConnId, message: MemberMessage) -> Result<(), FrameError> {
        let kind = message.kind();
        match (message, self.clients.member(conn)) {
            (MemberMessage::MemberHello(hello), None) if self.clients.get(conn).is_none() => {
                self.member_hello(conn, &hello);
            }
            (MemberMessage::MemberBytes(message), Some(bag)) => {
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

    fn member_hello(&mut self, conn: ConnId, hello: &MemberHello) {
        if hello.protocol.0 > PROTOCOL.1 || hello.protocol.1 < PROTOCOL.0 {
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
        self.clients.insert_member(conn, hello.bag);
    }

    /// A member elsewhere speaks to the one here.
    pub(super) fn member_of(&mut self, from: NodeId, message: MemberMessage) -> Result<(), FrameError> {
        let MemberMessage::MemberBytes(message) = message else {
            return Err(FrameError::OutOfPlace { kind: message.kind() });
        };
        if let Some((conn, message)) = self.members.hear(&mut self.ctx, from, message) {
            let message: MemberMessage = MemberBytes::into(message);
            self.ctx.conns.put_with(conn, |out| message.put(out));
        }
        Ok(())
    }
}
