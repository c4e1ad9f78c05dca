//! Visits to bags: somebody on one node asks something of a bag on another. The process that answers and the one that
//! asks talk through their nodes, which carry it unread over the control link between them.

use crate::conn::ConnId;
use crate::context::{Context, ControlMessage};
use core::time::Duration;
use mutirao_wire::bag::{MemberMessage, VISITS_A_NODE_MAX, VisitBytes};
use mutirao_wire::{NodeId, NodeRef, Tick, VisitId};
use std::collections::{HashMap, VecDeque};

/// Bytes that may wait on a connection: more than all visits let be under way, so that who exceeds it breaks the rule.
const QUEUED_MAX: usize = 16 << 20;
/// Messages that wait until the other node is linked.
const FIRST_MAX: usize = 16;
/// An order to begin a visit is good for minutes, and each is to begin one visit only: they are remembered for longer.
const REMEMBERED: Duration = Duration::from_secs(15 * 60);
/// Visits remembered. With more in that time, further ones are refused.
const REMEMBERED_MAX: usize = 16 * 1024;

struct Visit {
    /// The node of the other.
    with: NodeRef,
    /// Where the one here is heard; `None` until the process that answers has come.
    conn: Option<ConnId>,
    /// What is said first, once the other node is linked.
    first: Vec<VisitBytes>,
}

/// All visits of and to this node.
#[derive(Default)]
pub(crate) struct Visits {
    visits: HashMap<VisitId, Visit>,
    begun: VecDeque<(Tick, VisitId)>,
}

impl Visits {
    /// Somebody at `with` visits a bag here; `Err` says why that cannot be.
    pub(crate) fn begin(&mut self, now: Tick, visit: VisitId, with: NodeRef) -> Result<(), String> {
        while self.begun.pop_front_if(|(then, _)| now - *then > REMEMBERED).is_some() {}
        if self.visits.len() >= VISITS_A_NODE_MAX || self.begun.len() >= REMEMBERED_MAX {
            return Err("too many bags are being visited here; try again".into());
        }
        if self.begun.iter().any(|(_, begun)| *begun == visit) || self.visits.contains_key(&visit) {
            return Err("this visit was made already".into());
        }
        self.begun.push_back((now, visit));
        self.visits.insert(visit, Visit { with, conn: None, first: Vec::new() });
        Ok(())
    }

    /// Somebody here visits, or answers a visit from the node `with`; `Err` says why not.
    pub(crate) fn came(&mut self, visit: VisitId, conn: ConnId, with: NodeRef) -> Result<(), &'static str> {
        let is_full = self.visits.len() >= VISITS_A_NODE_MAX;
        match self.visits.get_mut(&visit) {
            Some(known) if known.conn.is_none() && known.with.id == with.id => known.conn = Some(conn),
            Some(_) => return Err("another makes this visit"),
            None if is_full => return Err("too many bags are visited from here; try again"),
            None => drop(self.visits.insert(visit, Visit { with, conn: Some(conn), first: Vec::new() })),
        }
        Ok(())
    }

    /// One here says something to the other; false if it may not.
    pub(crate) fn say(&mut self, ctx: &mut Context, conn: ConnId, message: VisitBytes) -> bool {
        let Some(visit) = self.visits.get_mut(&message.visit).filter(|visit| visit.conn == Some(conn)) else {
            return false;
        };
        match control(ctx, visit.with.id) {
            None if visit.first.len() < FIRST_MAX => visit.first.push(message),
            None => return false,
            Some(control) if ctx.conns.queued(control) > QUEUED_MAX => return false,
            Some(_) => send(ctx, visit.with.id, message),
        }
        true
    }

    /// One elsewhere says something to the one here: where that is to be heard. After the end it closes by itself,
    /// when it has read all that came before.
    pub(crate) fn hear(
        &mut self,
        ctx: &mut Context,
        from: NodeId,
        message: VisitBytes,
    ) -> Option<(ConnId, VisitBytes)> {
        let is_end = message.bytes.is_empty();
        let Some(visit) = self.visits.get(&message.visit).filter(|visit| visit.with.id == from) else {
            if !is_end {
                send(ctx, from, VisitBytes { visit: message.visit, bytes: Vec::new() });
            }
            return None;
        };
        let conn = visit.conn;
        if is_end {
            self.visits.remove(&message.visit);
        }
        Some((conn?, message))
    }

    /// Whoever was heard here is gone, or never came.
    pub(crate) fn went(&mut self, ctx: &mut Context, visit: VisitId, conn: Option<ConnId>) {
        if self.visits.get(&visit).is_none_or(|known| known.conn != conn) {
            return;
        }
        if let Some(known) = self.visits.remove(&visit) {
            let end = VisitBytes { visit, bytes: Vec::new() };
            known.first.into_iter().chain([end]).for_each(|message| send(ctx, known.with.id, message));
        }
    }

    /// Another node is linked.
    pub(crate) fn met(&mut self, ctx: &mut Context, node: NodeId) {
        for visit in self.visits.values_mut().filter(|visit| visit.with.id == node) {
            core::mem::take(&mut visit.first).into_iter().for_each(|message| send(ctx, node, message));
        }
    }

    /// The link to another is lost, and with it what was under way: who is to hear that here.
    pub(crate) fn lost(&mut self, node: NodeId) -> Vec<ConnId> {
        let over = self.visits.extract_if(|_, visit| visit.with.id == node && visit.conn.is_some());
        over.filter_map(|(_, visit)| visit.conn).collect()
    }

    /// Whether one here talks to one there.
    pub(crate) fn uses(&self, peer: NodeId) -> bool {
        self.visits.values().any(|visit| visit.with.id == peer)
    }
}

fn control(ctx: &Context, node: NodeId) -> Option<ConnId> {
    ctx.peers.get(&node)?.control
}

fn send(ctx: &mut Context, node: NodeId, message: VisitBytes) {
    ctx.send_control(node, ControlMessage::Member(MemberMessage::from(message)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::Peer;
    use crate::context::tests::{Other, context, node};
    use mio::Poll;

    const VISIT: VisitId = VisitId(7);

    fn said(other: &mut Other, ctx: &mut Context) -> Vec<Vec<u8>> {
        let read = |(header, body): (_, Vec<u8>)| match MemberMessage::read(&header, &body).unwrap() {
            MemberMessage::VisitBytes(said) => said.bytes,
            other => panic!("{other:?}"),
        };
        other.frames(ctx).into_iter().map(read).collect()
    }

    fn bytes(text: &str) -> VisitBytes {
        VisitBytes { visit: VISIT, bytes: text.into() }
    }

    #[test]
    fn a_node_carries_so_many_visits_and_begins_each_once() {
        let (with, mut visits, mut now) = (node(2), Visits::default(), Tick(1));
        assert_eq!(visits.begin(now, VISIT, with.clone()), Ok(()));
        assert_eq!(visits.begin(now, VISIT, with.clone()), Err("this visit was made already".into()));
        for more in 1..VISITS_A_NODE_MAX as u128 {
            assert_eq!(visits.begin(now, VisitId(100 + more), with.clone()), Ok(()));
        }
        let too_many = visits.begin(now, VisitId(1), with.clone());
        assert_eq!(too_many, Err("too many bags are being visited here; try again".into()));
        visits.visits.clear();
        // Its order may come again as long as it is good.
        assert!(visits.begin(now, VISIT, with.clone()).is_err());
        now.0 += REMEMBERED.as_micros() as u64 + 1;
        assert_eq!(visits.begin(now, VISIT, with), Ok(()));
    }

    #[test]
    fn what_is_said_before_the_link_is_there_is_said_then_and_the_end_is_told() {
        let (poll, room) = (Poll::new().unwrap(), tempfile::tempdir().unwrap());
        let mut ctx = context(&poll, room.path());
        let (program, _heard) = Other::connect(&mut ctx);
        let (control, mut peer) = Other::connect(&mut ctx);
        let mut visits = Visits::default();
        visits.begin(ctx.now, VISIT, node(2)).unwrap();
        visits.came(VISIT, program, node(2)).unwrap();
        assert!(visits.came(VISIT, control, node(2)).is_err(), "it is another's");
        assert!(visits.say(&mut ctx, program, bytes("early")));
        ctx.peers.insert(node(2).id, Peer { control: Some(control), ..Peer::default() });
        visits.met(&mut ctx, node(2).id);
        assert!(visits.say(&mut ctx, program, bytes("late")));
        assert!(!visits.say(&mut ctx, control, bytes("forged")));
        assert_eq!(visits.hear(&mut ctx, node(3).id, bytes("a stranger")), None);
        assert_eq!(visits.hear(&mut ctx, node(2).id, bytes("answer")), Some((program, bytes("answer"))));
        visits.went(&mut ctx, VISIT, Some(program));
        assert_eq!(said(&mut peer, &mut ctx), [&b"early"[..], b"late", b""]);
        assert!(visits.begin(ctx.now, VISIT, node(2)).is_err(), "an order begins one visit only");
        let later = ctx.now + REMEMBERED + Duration::from_secs(1);
        assert!(visits.begin(later, VISIT, node(2)).is_ok());
    }

    #[test]
    fn a_lost_link_ends_the_visits_over_it() {
        let (poll, room) = (Poll::new().unwrap(), tempfile::tempdir().unwrap());
        let mut ctx = context(&poll, room.path());
        let (program, _heard) = Other::connect(&mut ctx);
        let mut visits = Visits::default();
        visits.came(VISIT, program, node(2)).unwrap();
        assert!(visits.uses(node(2).id) && !visits.uses(node(3).id));
        assert_eq!(visits.lost(node(3).id), []);
        assert_eq!(visits.lost(node(2).id), [program]);
        assert!(!visits.uses(node(2).id));
    }
}
