//! Questions to every node, and the answers on their way back.

use crate::core::{Core, Timer};
use crate::io::{Output, Table};
use core::time::Duration;
use mutirao_wire::NodeId;
use mutirao_wire::Tick;
use mutirao_wire::query::{Question, Row, Topic};
use mutirao_wire::tree::{Answer, Ask, AskId, TreeMessage};
use std::collections::{BTreeMap, BTreeSet};

/// Rows in one message, bytes.
const ROW_BYTES_A_MESSAGE: usize = 12 * 1024;
/// The longest a question may take.
const BUDGET_MAX: Duration = Duration::from_secs(60);
/// How long a question that is over is remembered, so that it is not answered twice.
const REMEMBERED: Duration = Duration::from_secs(5);

/// The questions that pass through this node.
#[derive(Default)]
pub(crate) struct Questions {
    asked: BTreeMap<AskId, Asked>,
}

impl Questions {
    /// See [`Core::rest`].
    pub(crate) fn rest(&mut self) {
        if self.asked.is_empty() {
            self.asked = BTreeMap::new();
        }
    }
}

struct Asked {
    /// Who asked; `None`: a local user.
    from: Option<NodeId>,
    deadline: Tick,
    waiting: BTreeSet<NodeId>,
    /// This node's own answer is not there yet.
    own: bool,
    rows: Vec<Row>,
    bytes: usize,
    missing: u32,
    done: bool,
}

impl Core {
    pub(crate) fn ask(&mut self, number: u64, question: Question, budget: Duration, out: &mut Vec<Output>) {
        let id = AskId { origin: self.me.id, number };
        let known = self.questions.asked.contains_key(&id);
        if known || !self.begin_question(None, id, question, budget.min(BUDGET_MAX), out) {
            out.push(Output::Rows { number, rows: Vec::new(), more: false, missing: self.summarise().nodes });
        }
    }

    pub(crate) fn on_ask(&mut self, from: NodeId, m: Ask, out: &mut Vec<Output>) {
        let budget = Duration::from_millis(m.budget_ms.into()).min(BUDGET_MAX);
        let known = self.questions.asked.contains_key(&m.id) || m.id.origin == self.me.id;
        let neighbour = self.is_neighbour(from);
        if !neighbour {
            self.not_my_neighbour(from, out);
        }
        if known || !neighbour || !self.begin_question(Some(from), m.id, m.question, budget, out) {
            let missing = if known { 0 } else { 1 };
            self.send_tree(from, Answer { id: m.id, rows: Vec::new(), more: false, missing }, out);
        }
    }

    fn begin_question(
        &mut self,
        from: Option<NodeId>,
        id: AskId,
        mut question: Question,
        budget: Duration,
        out: &mut Vec<Output>,
    ) -> bool {
        if self.questions.asked.len() >= self.settings.questions_max {
            out.push(Output::Full(Table::Questions));
            return false;
        }
        let neighbours = self.place.parent.iter().map(|n| n.id).chain(self.place.children.keys().copied());
        let mut waiting: BTreeSet<NodeId> = neighbours.filter(|id| from != Some(*id)).collect();
        let own = question.clone();
        if let Topic::Find { want, free } = &mut question.topic {
            waiting.retain(|id| self.leads_to(*id, want, *free));
            want.hops = want.hops.map(|hops| hops.saturating_sub(1));
        }
        let theirs = (budget * 9 / 10).saturating_sub(Duration::from_millis(1));
        let budget_ms = theirs.as_millis() as u32;
        for to in &waiting {
            self.send_tree(*to, Ask { id, question: question.clone(), budget_ms }, out);
        }
        let deadline = self.now + budget;
        self.arm(deadline, Timer::Question(id));
        self.questions.asked.insert(
            id,
            Asked { from, deadline, waiting, own: true, rows: Vec::new(), bytes: 0, missing: 0, done: false },
        );
        out.push(Output::Answer { id, question: own });
        true
    }

    pub(crate) fn answered(&mut self, id: AskId, rows: Vec<Row>, out: &mut Vec<Output>) {
        let name = &self.me.name;
        let Some(asked) = self.questions.asked.get_mut(&id).filter(|asked| !asked.done && asked.own) else {
            return;
        };
        asked.own = false;
        let rows = rows.into_iter().map(|row| {
            if size_of_row(id, &row) <= ROW_BYTES_A_MESSAGE {
                return row;
            }
            Row::Failed { node: name.clone(), text: "an answer was too long to be sent".into() }
        });
        let rows = rows.collect();
        self.add_rows(id, rows, out);
        self.finish_question(id, false, out);
    }

    pub(crate) fn on_answer(&mut self, from: NodeId, m: Answer, out: &mut Vec<Output>) {
        let Some(asked) = self.questions.asked.get_mut(&m.id) else { return };
        if asked.done || !asked.waiting.contains(&from) {
            return;
        }
        if !m.more {
            asked.waiting.remove(&from);
            asked.missing = asked.missing.saturating_add(m.missing);
        }
        self.add_rows(m.id, m.rows, out);
        self.finish_question(m.id, false, out);
    }

    /// Gathers rows; whenever a message is full, it goes.
    fn add_rows(&mut self, id: AskId, rows: Vec<Row>, out: &mut Vec<Output>) {
        for row in rows {
            let size = size_of_row(id, &row);
            let Some(asked) = self.questions.asked.get_mut(&id) else { return };
            let full = asked.bytes + size > ROW_BYTES_A_MESSAGE && !asked.rows.is_empty();
            asked.bytes += size;
            if full {
                asked.bytes = size;
                let rows = core::mem::take(&mut asked.rows);
                asked.rows.push(row);
                self.send_rows(id, rows, true, 0, out);
            } else {
                asked.rows.push(row);
            }
        }
    }

    fn send_rows(&mut self, id: AskId, rows: Vec<Row>, more: bool, missing: u32, out: &mut Vec<Output>) {
        match self.questions.asked.get(&id).map(|asked| asked.from) {
            Some(Some(to)) => {
                if self.place.is_parent(to) {
                    // Whoever reads the answer may ask for what it shows: let the way there know of it first.
                    self.tell_summary(true, out);
                }
                self.send_tree(to, Answer { id, rows, more, missing }, out);
            }
            Some(None) => out.push(Output::Rows { number: id.number, rows, more, missing }),
            None => {}
        }
    }

    /// Ends a question that waits for nobody, or, `now`, in any case.
    fn finish_question(&mut self, id: AskId, now: bool, out: &mut Vec<Output>) {
        let Some(asked) = self.questions.asked.get_mut(&id).filter(|asked| !asked.done) else { return };
        if !now && (asked.own || !asked.waiting.is_empty()) {
            return;
        }
        let silent = core::mem::take(&mut asked.waiting);
        let own = asked.from.is_none();
        let answer_due = asked.deadline;
        let mut missing = asked.missing.saturating_add(u32::from(asked.own));
        let rows = core::mem::take(&mut asked.rows);
        asked.done = true;
        asked.bytes = 0;
        asked.deadline = self.now + REMEMBERED;
        let deadline = asked.deadline;
        self.disarm(answer_due, Timer::Question(id));
        for neighbour in silent {
            missing = missing.saturating_add(self.nodes_beyond(neighbour));
        }
        self.send_rows(id, rows, false, missing, out);
        if own {
            // One that comes back is known by its origin.
            self.questions.asked.remove(&id);
        } else {
            self.arm_loosely(deadline, Timer::Question(id));
        }
    }

    /// Nodes on the other side of an edge, so far as is known.
    fn nodes_beyond(&self, id: NodeId) -> u32 {
        self.place.children.get(&id).map_or(1, |child| child.nodes())
    }

    pub(crate) fn questions_lost(&mut self, id: NodeId, out: &mut Vec<Output>) {
        let concerned: Vec<AskId> = (self.questions.asked.iter())
            .filter(|(_, asked)| asked.waiting.contains(&id))
            .map(|(id, _)| *id)
            .collect();
        let beyond = self.nodes_beyond(id);
        for question in concerned {
            if let Some(asked) = self.questions.asked.get_mut(&question) {
                asked.waiting.remove(&id);
                asked.missing = asked.missing.saturating_add(beyond);
            }
            self.finish_question(question, false, out);
        }
    }

    pub(crate) fn question_time(&mut self, id: AskId, out: &mut Vec<Output>) {
        let Some(asked) = self.questions.asked.get(&id).filter(|asked| asked.deadline <= self.now) else {
            return;
        };
        if asked.done {
            self.questions.asked.remove(&id);
        } else {
            self.finish_question(id, true, out);
        }
    }
}

/// Bytes of a message with this row alone: what it adds, and a little more.
fn size_of_row(id: AskId, row: &Row) -> usize {
    let mut bytes = Vec::new();
    let rows = vec![row.clone()];
    TreeMessage::from(Answer { id, rows, more: false, missing: 0 }).put(&mut bytes);
    bytes.len() - mutirao_wire::frame::HEADER_BYTES
}
