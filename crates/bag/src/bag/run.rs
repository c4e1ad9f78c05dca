//! What runs: between the scheduler, who says where, and the keeper, who does it.

use super::ahead::Pace;
use super::check::vote_of;
use super::state::{Attempt, Closed, State, Task, Worker};
use super::{Bag, IDLE, Output};
use crate::end::{Cost, End, Evidence};
use crate::ipar;
use crate::record::{NewTask, Record, Span};
use crate::report::Report;
use crate::template::{Template, Work};
use mutirao_schedule::bag::{Event, Needs, Order, Outcome, Task as Offer};
use mutirao_wire::{BlobHash, NodeId, Tick};

/// How an attempt ended, and what it left.
pub(super) struct Ending {
    pub(super) end: End,
    pub(super) cost: Cost,
    pub(super) last_words: String,
    pub(super) outputs: (Span, Span),
    pub(super) result: Option<BlobHash>,
    pub(super) report: Report,
}

impl Bag {
    pub(super) fn worker_up(&mut self, now: Tick, worker: u64, id: NodeId, node: String, offers: Needs) {
        if self.workers.contains_key(&worker) {
            return;
        }
        let slots = offers.slots.max(1);
        let site = self.site_of(id, &node);
        let (leaves, unwanted, down) = (false, false, false);
        let pace = Pace::default();
        let entry = Worker { id, node, slots, running: 0, idle_since: None, leaves, unwanted, down, pace };
        self.workers.insert(worker, entry);
        self.tell(now, Event::WorkerUp { worker, site, offers, ahead: 0 });
        match self.is_caught(id) {
            true => self.turn_away(now, worker),
            false => self.look_idle(now, worker),
        }
    }

    /// A worker takes nothing new; if `down`, it is no more, and forgotten when its attempts have ended.
    pub(super) fn worker_leaves(&mut self, now: Tick, worker: u64, down: bool) {
        let Some(entry) = self.workers.get_mut(&worker) else { return };
        entry.leaves = true;
        entry.down |= down;
        self.tell(now, Event::WorkerLeaves(worker));
        self.look_idle(now, worker);
    }

    /// An attempt is over.
    pub(super) fn ended(&mut self, now: Tick, attempt: u64, ending: Ending, out: &mut Vec<Output>) {
        let Some(Attempt { task, worker, node, killed, check, .. }) = self.attempts.remove(&attempt) else {
            return;
        };
        self.begun.remove(&attempt);
        self.tasks[task as usize].running -= 1;
        let wanted = !killed && self.tasks[task as usize].state == State::Open;
        let id = self.workers.get(&worker).map(|entry| entry.id);
        let site = id.and_then(|id| self.sites.get(&id)).map(|(site, _)| *site).filter(|_| check.is_none());
        let brought_bytes = site.map_or(0, |site| self.weigh(now, task, site, &ending.end));
        let outcome = match (wanted, check, id) {
            (true, None, Some(id)) => self.judge(now, task, attempt, (id, node), ending, out),
            (true, Some(known), Some(id)) => self.checked(now, task, known, (id, node), &ending, out),
            _ => {
                out.push(Output::Drop { task, attempt });
                Outcome::Again
            }
        };
        // Before, or the scheduler would start it again.
        self.tell_gone(now);
        self.tell(now, Event::Ended { attempt, outcome, brought_bytes });
        self.pace_ended(now, worker, attempt, outcome == Outcome::Done);
        if let Some(entry) = self.workers.get_mut(&worker) {
            entry.running -= 1;
        }
        self.look_idle(now, worker);
    }

    fn judge(
        &mut self,
        now: Tick,
        task: u32,
        attempt: u64,
        (id, node): (NodeId, String),
        ending: Ending,
        out: &mut Vec<Output>,
    ) -> Outcome {
        let vote = if self.judge.is_some() { vote_of(attempt, id, node.clone(), &ending) } else { None };
        let Ending { end, cost, last_words, outputs, report, .. } = ending;
        match (self.result(task, end, report), vote) {
            (Ok(_), Some(vote)) => self.vote(now, task, vote, last_words, out),
            (Ok((templates, added)), None) => {
                let (stdout, stderr) = outputs;
                let record =
                    Record::Committed { task, attempt, node, cost, stdout, stderr, templates, added };
                self.enter(record.clone());
                self.append(record, out);
                self.committing.push_back((self.appended, task, attempt));
                Outcome::Done
            }
            (Err(end), _) => {
                out.push(Output::Drop { task, attempt });
                self.fail(task, Evidence { attempt, node, end, cost, last_words }, out);
                Outcome::Again
            }
        }
    }

    /// What an attempt that ended so has added, or how it failed.
    pub(super) fn result(
        &self,
        task: u32,
        end: End,
        report: Report,
    ) -> Result<(Vec<Template>, Vec<NewTask>), End> {
        let known = &self.tasks[task as usize];
        if let Work::Ipar { method, .. } = self.templates[known.template as usize].work {
            let (end, tasks) = ipar::judge(method, known.place, end, &report);
            return match end {
                End::Done => self.listed(tasks).map_err(|error| End::NoReport(error.to_string())),
                end => Err(end),
            };
        }
        match end {
            End::Done => self
                .resolve(&report.added, Some(known.template))
                .map_err(|error| End::NoReport(error.to_string())),
            end => Err(end),
        }
    }

    pub(super) fn journaled(&mut self, now: Tick, records: u64, out: &mut Vec<Output>) {
        while let Some((_, task, attempt)) = self.committing.pop_front_if(|(record, ..)| *record <= records) {
            // It may have been undone since, and done again.
            match &self.tasks[task as usize].state {
                State::Committing(done) if done.attempt == attempt => {}
                _ => continue,
            }
            out.push(Output::Settle { task, attempt });
            self.settle(task);
        }
        while let Some((_, span)) = self.freeing.pop_front_if(|(record, _)| *record <= records) {
            self.freed.push(span);
        }
        if self.over_at.is_some_and(|record| record <= records) {
            self.over_at = None;
            out.push(Output::Over);
        }
        self.offer_opened(now);
    }

    pub(super) fn add(
        &mut self,
        now: Tick,
        templates: Vec<Template>,
        tasks: Vec<NewTask>,
        out: &mut Vec<Output>,
    ) {
        for template in templates {
            self.enter_and_append(Record::Template(template), out);
        }
        for some in tasks.chunks(crate::limits::TASKS_A_RECORD) {
            self.enter_and_append(Record::Tasks(some.to_vec()), out);
        }
        self.offer_opened(now);
    }

    pub(super) fn cancel(&mut self, now: Tick, task: u32, out: &mut Vec<Output>) {
        let open = self
            .tasks
            .get(task as usize)
            .is_some_and(|task| matches!(task.state, State::Waiting | State::Open));
        if open {
            self.close_by(task, Closed::Cancelled, out);
            self.offer_opened(now);
        }
    }

    pub(super) fn again(&mut self, now: Tick, task: u32, out: &mut Vec<Output>) {
        let closed = self.tasks.get(task as usize).is_some_and(|task| matches!(task.state, State::Closed(_)));
        if closed {
            self.enter_and_append(Record::Again { task }, out);
            self.offer_opened(now);
        }
    }

    /// No worker can be started anywhere: what is to run fails, although it was not tried.
    pub(super) fn nowhere(&mut self, why: &str, out: &mut Vec<Output>) {
        let is_open = |(number, task): (usize, &Task)| {
            (task.state == State::Open && task.running == 0).then_some(number as u32)
        };
        let open: Vec<u32> = self.tasks.iter().enumerate().filter_map(is_open).collect();
        for task in open {
            let end = End::NotStarted(why.to_owned());
            let (cost, last_words) = (Cost::default(), String::new());
            let evidence = Evidence { attempt: 0, node: String::new(), end, cost, last_words };
            self.enter_and_append(Record::Failed { task, evidence }, out);
            self.close_by(task, Closed::Failed, out);
        }
    }

    /// A task will not be done, and what runs of it is ended.
    pub(super) fn close_by(&mut self, task: u32, closed: Closed, out: &mut Vec<Output>) {
        self.enter_and_append(Record::Closed { task, closed }, out);
        self.gone.push(task);
    }

    pub(super) fn give_back_idle(&mut self, now: Tick, out: &mut Vec<Output>) {
        while let Some((_, worker)) = self.idle.first().copied().filter(|(since, _)| *since + IDLE <= now) {
            self.idle.pop_first();
            if let Some(entry) = self.workers.get_mut(&worker) {
                entry.idle_since = None;
                entry.leaves = true;
            }
            self.tell(now, Event::WorkerLeaves(worker));
            out.push(Output::GiveBack(worker));
        }
    }

    /// Carries out what has followed so far.
    pub(super) fn follow(&mut self, now: Tick, at_ms: u64, out: &mut Vec<Output>) {
        self.tell_gone(now);
        self.offer_opened(now);
        out.extend(self.dropped.drain(..).map(|(task, attempt)| Output::Drop { task, attempt }));
        out.extend(self.freed.drain(..).map(Output::Free));
        out.extend(self.turned_away.drain(..).map(Output::GiveBack));
        for worker in std::mem::take(&mut self.returned) {
            self.enter_and_append(Record::Returned { worker }, out);
        }
        if let Some(scheduler) = &mut self.scheduler {
            scheduler.place(now, &mut self.orders);
        }
        for order in std::mem::take(&mut self.orders) {
            self.obey(now, order, out);
        }
        if self.counts.open() == 0
            && self.attempts.is_empty()
            && self.complete
            && !self.over
            && !self.held
            && self.scheduler.is_some()
        {
            self.enter_and_append(Record::Over { at_ms }, out);
            self.over_at = Some(self.appended);
        }
    }

    fn obey(&mut self, now: Tick, order: Order, out: &mut Vec<Output>) {
        match order {
            Order::Start { task, attempt, worker } => {
                let number = task as u32;
                let Some(entry) = self.workers.get_mut(&worker) else { return };
                entry.running += 1;
                let node = entry.node.clone();
                if let Some(since) = entry.idle_since.take() {
                    self.idle.remove(&(since, worker));
                }
                self.tasks[number as usize].running += 1;
                let (id, template) = (entry.id, self.tasks[number as usize].template);
                let check = self.next_check(template, id);
                let (node_name, killed) = (node.clone(), false);
                let worked_ms = check.map_or_else(|| self.worked_ms(number), |_| 0);
                let running =
                    Attempt { task: number, worker, node: node_name, since: now, worked_ms, killed, check };
                self.attempts.insert(attempt, running);
                self.pace_began(now, worker, attempt);
                self.enter_and_append(Record::Started { task: number, attempt, node }, out);
                out.push(Output::Start { attempt, task: number, worker });
            }
            Order::Kill { attempt } => {
                if let Some(running) = self.attempts.get_mut(&attempt) {
                    running.killed = true;
                    out.push(Output::Kill { attempt });
                }
            }
        }
    }

    /// Tells the scheduler what may run now.
    pub(super) fn offer_opened(&mut self, now: Tick) {
        if self.scheduler.is_none() {
            return;
        }
        for number in std::mem::take(&mut self.opened) {
            let task = &self.tasks[number as usize];
            // It may have been closed since, or be done, in the journal that was read.
            if task.state != State::Open {
                continue;
            }
            let template = &self.templates[task.template as usize];
            let (needs, priority) = (template.needs(), template.priority);
            let votes = self.judge.as_ref().map_or(1, |judge| judge.wanted(number.into()));
            let inputs = self.inputs_of(number);
            let offer = Offer { needs, priority, votes, inputs, ..Offer::new(number.into()) };
            self.tell(now, Event::TaskReady(offer));
            // Votes of nodes that were caught count nothing, though that need not be in the journal that was read.
            let votes = self.votes(number).iter().filter(|vote| !self.is_caught(vote.node));
            let voters: Vec<(NodeId, Box<str>)> = votes.map(|vote| (vote.node, vote.name.clone())).collect();
            for (node, name) in voters {
                let site = self.site_of(node, &name);
                self.tell(now, Event::Counted { task: number.into(), site });
            }
        }
    }

    fn tell_gone(&mut self, now: Tick) {
        for task in std::mem::take(&mut self.gone) {
            self.tell(now, Event::TaskGone(task.into()));
        }
    }

    pub(super) fn tell(&mut self, now: Tick, event: Event) {
        if let Some(scheduler) = &mut self.scheduler {
            scheduler.handle(now, event, &mut self.orders);
        }
    }

    /// A worker may have nothing to do, or be gone with the last that it had.
    pub(super) fn look_idle(&mut self, now: Tick, worker: u64) {
        let Some(entry) = self.workers.get_mut(&worker).filter(|entry| entry.running == 0) else { return };
        if entry.down {
            if let Some(since) = entry.idle_since {
                self.idle.remove(&(since, worker));
            }
            self.workers.remove(&worker);
            if self.lent.contains_key(&worker) {
                self.returned.push(worker);
            }
            return self.tell(now, Event::WorkerDown(worker));
        }
        if entry.unwanted {
            self.turned_away.push(worker);
        } else if !entry.leaves && entry.idle_since.is_none() {
            entry.idle_since = Some(now);
            self.idle.insert((now, worker));
        }
    }

    /// A record of this keeper's own making.
    fn enter(&mut self, record: Record) {
        self.apply(record).expect("it is about tasks and templates that are there, within the limits");
    }

    pub(super) fn enter_and_append(&mut self, record: Record, out: &mut Vec<Output>) {
        self.enter(record.clone());
        self.append(record, out);
    }

    /// What a task needs, in words.
    pub fn needs_text(needs: &Needs) -> String {
        let mut text = format!("{} slot{}", needs.slots, if needs.slots == 1 { "" } else { "s" });
        if needs.memory_mib > 0 {
            text += &format!(", {} MiB", needs.memory_mib);
        }
        for resource in &needs.resources {
            text += &format!(", {} {}", resource.amount, resource.name);
        }
        text
    }
}
