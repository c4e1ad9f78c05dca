//! Administrators' orders about the tree: move, adopt, remove.

use super::Daemon;
use super::joining::Before;
use crate::options::JoinTarget;
use mutirao_tree::Input;
use mutirao_wire::NodeId;
use mutirao_wire::NodeRef;
use mutirao_wire::query::{AdminMessage, Question, Row, Summon, Topic};
use mutirao_wire::tree::{AskId, Refusal};

/// Nodes that are being asked to come here at a time.
const SUMMONS_MAX: usize = 64;

/// Orders under way.
#[derive(Default)]
pub(super) struct Administration {
    moving: Option<Moving>,
    summons: Vec<Summoning>,
    /// To leave for good, once nothing is lent any more if so wanted.
    removed: Option<bool>,
}

struct Moving {
    to: NodeRef,
    /// Who waits for the outcome, if anybody.
    asked: Option<AskId>,
    before: Before,
}

struct Summoning {
    place: String,
    asked: AskId,
    question: Question,
}

/// Why a node may not come under another, in words.
pub(super) fn refusal_text(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::Cycle => "it is itself below this node",
        Refusal::Busy => "it is joining another tree itself",
        Refusal::Full => "it has as many children as it may have, or is going down",
        Refusal::Deep => "the tree would be deeper than it may be",
    }
}

impl Daemon {
    /// Carries out an administrator's order, or begins to.
    pub(super) fn order(&mut self, id: &AskId, question: &Question) -> Vec<Row> {
        if question.to.is_none() {
            return vec![self.failed("such an order is to one node".into())];
        }
        if let Err(text) = self.rights.check_admin(question) {
            return vec![self.failed(text)];
        }
        match &question.topic {
            Topic::Move { to } if to.id == self.ctx.me.id => {
                vec![self.failed("a node cannot be its own parent".into())]
            }
            Topic::Move { to } if self.placing.wanted().is_some_and(|wanted| wanted != to.name) => {
                let wanted = self.placing.wanted().unwrap_or_default();
                vec![self.failed(format!(
                    "the charter says that `{}` is below `{wanted}`; change that first: `mutirao charter edit`",
                    self.ctx.me.name
                ))]
            }
            Topic::Move { to } => {
                if self.core.parent().is_some_and(|parent| parent.id == to.id) {
                    self.joining.only(to);
                    self.tell_core(Input::Join { to: vec![to.clone()], here: true });
                    return vec![self.done(format!("is below `{}`", to.name))];
                }
                self.move_to(to, Some(*id));
                Vec::new()
            }
            Topic::Adopt { place } => {
                if self.administration.summons.len() >= SUMMONS_MAX {
                    return vec![self.failed("too many nodes are being asked to come here".into())];
                }
                let (place, question) = (place.clone(), question.clone());
                self.administration.summons.push(Summoning { place: place.clone(), asked: *id, question });
                self.look_for(JoinTarget::parse(&place));
                Vec::new()
            }
            Topic::Remove { drain } => {
                self.administration.removed = Some(*drain);
                if *drain {
                    self.tell_core(Input::Drain { grace: None });
                }
                let leases = self.core.granted().count();
                vec![self.done(match (leases, drain) {
                    (0, _) => "leaves".into(),
                    (n, true) => format!("leaves when its {n} leases have ended"),
                    (n, false) => format!("leaves; its {n} leases end"),
                })]
            }
            _ => Vec::new(),
        }
    }

    /// Whether an order was begun that is answered when it is done.
    pub(super) fn answers_later(&self, id: &AskId) -> bool {
        let administration = &self.administration;
        administration.moving.as_ref().is_some_and(|moving| moving.asked.as_ref() == Some(id))
            || administration.summons.iter().any(|summoning| summoning.asked == *id)
            || self.measuring.awaits(id)
    }

    fn move_to(&mut self, to: &NodeRef, asked: Option<AskId>) {
        tracing::info!(parent = to.name, "an administrator moves this node");
        if let Some(earlier) = self.administration.moving.take() {
            self.answer_move(earlier.asked, Err("a later order moved it elsewhere".into()));
        }
        let before = self.joining.only(to);
        self.administration.moving = Some(Moving { to: to.clone(), asked, before });
        self.tell_core(Input::Join { to: vec![to.clone()], here: true });
    }

    fn answer_move(&mut self, asked: Option<AskId>, outcome: Result<String, String>) {
        let Some(id) = asked else { return };
        let row = match outcome {
            Ok(text) => self.done(text),
            Err(text) => self.failed(text),
        };
        self.tell_core(Input::Answered { id, rows: vec![row] });
    }

    /// This node has this parent now.
    pub(super) fn moved(&mut self, parent: &NodeRef) {
        if let Some(moving) = self.administration.moving.take_if(|moving| moving.to.id == parent.id) {
            self.answer_move(moving.asked, Ok(format!("is below `{}`", parent.name)));
        }
    }

    /// A candidate refused for good.
    pub(super) fn move_refused(&mut self, by: &NodeRef, refusal: Refusal) {
        if let Some(moving) = self.administration.moving.take_if(|moving| moving.to.id == by.id) {
            let me = &self.ctx.me.name;
            let text = format!("`{me}` cannot come under `{}`: {}", by.name, refusal_text(refusal));
            self.answer_move(moving.asked, Err(text));
            let join = self.joining.restore(moving.before);
            self.tell_core(join);
        }
    }

    /// Asks the node at a place to come here, if that was ordered. Says whether it was.
    pub(super) fn summon(&mut self, place: &str, node: &NodeRef) -> bool {
        let summons = &mut self.administration.summons;
        let ordered: Vec<Summoning> = summons.extract_if(.., |summoning| summoning.place == place).collect();
        for summoning in &ordered {
            let message = AdminMessage::from(Summon { question: summoning.question.clone() });
            if let Some(control) = self.ctx.peers.get(&node.id).and_then(|peer| peer.control) {
                self.ctx.conns.put_with(control, |bytes| message.put(bytes));
            }
            let row = self.done(format!("asked `{}` to come under it", node.name));
            self.tell_core(Input::Answered { id: summoning.asked, rows: vec![row] });
        }
        !ordered.is_empty()
    }

    /// Nobody answers at a place.
    pub(super) fn place_failed(&mut self, place: &str, why: &str) {
        let summons = &mut self.administration.summons;
        let ordered: Vec<Summoning> = summons.extract_if(.., |summoning| summoning.place == place).collect();
        for summoning in ordered {
            let row = self.failed(format!("nobody answers at {place}: {why}"));
            self.tell_core(Input::Answered { id: summoning.asked, rows: vec![row] });
        }
    }

    /// Another node shows an order to come under it.
    pub(super) fn summoned(&mut self, from: NodeId, question: &Question) {
        let Some(node) = self.links.as_ref().and_then(|links| links.node(from)).cloned() else { return };
        let to_sender = question
            .to
            .as_ref()
            .is_some_and(|to| *to == node.name || to.len() >= 4 && from.to_string().starts_with(to.as_str()));
        let order = matches!(question.topic, Topic::Adopt { .. }) && to_sender;
        match self.rights.check_admin(question) {
            Ok(()) if order => self.move_to(&node, None),
            Ok(()) => tracing::warn!(node = node.name, "it showed an order that is not for it"),
            Err(text) => tracing::warn!(node = node.name, "it wants this node below it, but {text}"),
        }
    }

    /// Goes down if that was ordered and nothing stands in the way any more.
    pub(super) fn leave_if_removed(&mut self) {
        let Some(drain) = self.administration.removed else { return };
        if !drain || self.core.granted().next().is_none() {
            self.administration.removed = None;
            self.leave("an administrator removed it from the pool");
        }
    }
}
