//! The parent that the charter names for this node: found by its name, and sought until it is the parent.

use super::Daemon;
use super::joining::Before;
use mutirao_tree::Input;
use mutirao_wire::query::{Question, Row, Topic};
use mutirao_wire::{NodeRef, Tick};
use std::time::Duration;

const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// A node that nobody has may be started at any time, and nobody would tell.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long the node of that name is looked for in the tree.
const BUDGET: Duration = Duration::from_secs(2);

/// What the charter wants, and how far that has come.
#[derive(Default)]
pub(super) struct Placing {
    wanted: Option<String>,
    /// What this node was to join before the charter named a parent.
    before: Option<Before>,
    /// The question under way.
    asked: Option<u64>,
    found: Option<NodeRef>,
    due: Option<Tick>,
    failures: u32,
}

impl Placing {
    /// The parent that the charter names.
    pub(super) fn wanted(&self) -> Option<&str> {
        self.wanted.as_deref()
    }

    pub(super) fn deadline(&self) -> Option<Tick> {
        self.due
    }

    fn look_later(&mut self, now: Tick) {
        let pause = (FIRST_PAUSE * (1 << self.failures.min(16))).min(LONGEST_PAUSE);
        self.failures = self.failures.saturating_add(1);
        self.due = Some(now + pause);
    }
}

impl Daemon {
    /// The charter in force may name another parent than before.
    pub(super) fn place_by_charter(&mut self) {
        let wanted = self.rules.charter().topology.parents.remove(&self.ctx.me.name);
        if wanted == self.placing.wanted {
            return;
        }
        self.placing.failures = 0;
        self.placing.due = wanted.as_ref().map(|_| self.ctx.now);
        if let Some(parent) = &wanted {
            tracing::info!(parent, "the charter names this node's parent");
        } else if let Some(before) = self.placing.before.take() {
            tracing::info!("the charter names no parent of this node any more");
            let join = self.joining.restore(before);
            self.tell_core(join);
        }
        self.placing.wanted = wanted;
    }

    /// Looks for the node that is to be the parent.
    pub(super) fn look_for_parent(&mut self) {
        self.placing.due = None;
        let Some(name) = self.placing.wanted.clone() else { return };
        if let Some(parent) = self.core.parent().filter(|parent| parent.name == name).cloned() {
            return self.come_under(&parent);
        }
        let number = self.clients.own_question();
        (self.placing.asked, self.placing.found) = (Some(number), None);
        let question =
            Question { to: Some(name), user: String::new(), order: Vec::new(), topic: Topic::Nodes };
        self.tell_core(Input::Ask { number, question, budget: BUDGET });
    }

    /// Takes an answer to the question who has that name; whether it was one.
    pub(super) fn parent_found(&mut self, number: u64, rows: &[Row], more: bool) -> bool {
        if self.placing.asked != Some(number) {
            return false;
        }
        let named = |row: &Row| match row {
            Row::Node(row) if Some(&row.node.name) == self.placing.wanted.as_ref() => Some(row.node.clone()),
            _ => None,
        };
        if let Some(node) = rows.iter().find_map(named) {
            self.placing.found = Some(node);
        }
        if more {
            return true;
        }
        self.placing.asked = None;
        match self.placing.found.take() {
            Some(node) => self.come_under(&node),
            None => self.placing.look_later(self.ctx.now),
        }
        true
    }

    fn come_under(&mut self, parent: &NodeRef) {
        let before = self.joining.only(parent);
        self.placing.before.get_or_insert(before);
        self.tell_core(Input::Join { to: vec![parent.clone()], here: true });
        if self.core.parent().is_some_and(|now| now.id == parent.id) {
            self.placing.failures = 0;
        } else {
            self.placing.look_later(self.ctx.now);
        }
    }

    /// This node has another parent, or none: if that is not the one it is to have, that may be elsewhere now.
    pub(super) fn placed(&mut self) {
        let Some(wanted) = &self.placing.wanted else { return };
        if self.core.parent().is_some_and(|parent| parent.name == *wanted) {
            (self.placing.due, self.placing.failures) = (None, 0);
        } else {
            self.placing.failures = 0;
            self.placing.look_later(self.ctx.now);
        }
    }
}
