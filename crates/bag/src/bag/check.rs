//! Results that are compared, and nodes that are checked.

use super::run::Ending;
use super::state::{Done, State};
use super::{Bag, Output};
use crate::end::{Class, Cost, End, Evidence};
use crate::error::Error;
use crate::limits::LAST_WORDS_BYTES_MAX;
use crate::record::{NewTask, Record, Vote};
use crate::report::Report;
use crate::template::Template;
use mutirao_schedule::bag::check::{Judge, RuleError, Standings, Verdict, Vote as Ballot};
use mutirao_schedule::bag::{Event, Outcome};
use mutirao_wire::{NodeId, Tick};

pub use mutirao_schedule::bag::check::Standing as NodeStanding;

/// What a keeper knows of nodes from earlier bags.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    /// What it knows of each.
    pub standings: Vec<(NodeId, NodeStanding)>,
    /// Keeps nodes from knowing which attempts are spot checks. Drawn.
    pub secret: u64,
}

impl Bag {
    /// Whether results are compared: then each is told with what it is compared by.
    pub fn compares(&self) -> bool {
        !self.settings.checks.are_none()
    }

    pub(super) fn begin_checks(&mut self, trust: Trust) -> Result<(), Error> {
        let checks = self.settings.checks;
        if checks.are_none() {
            return Ok(());
        }
        let wrong = |error: RuleError| Error::Task(error.to_string());
        let mut standings = Standings::new(checks.liars_part()).map_err(wrong)?;
        trust.standings.into_iter().for_each(|(node, standing)| standings.restore(node, standing));
        for node in self.caught.keys() {
            // It may not have come to where it is kept.
            let known = standings.of(*node);
            standings.restore(*node, NodeStanding { failed: known.failed.max(1), ..known });
        }
        let mut judge =
            Judge::new(checks.rule(), checks.spot_part(), standings, trust.secret).map_err(wrong)?;
        for (task, vote) in
            self.votes.iter().flat_map(|(task, votes)| votes.iter().map(move |vote| (task, vote)))
        {
            judge.restore_vote(u64::from(*task), ballot(vote));
        }
        for (number, task) in self.tasks.iter().enumerate() {
            if let State::Done(done) = &task.state {
                judge.restore_accepted(number as u64, &done.voters);
            }
        }
        self.judge = Some(judge);
        Ok(())
    }

    /// Results of an earlier life may suffice.
    pub(super) fn take_restored(&mut self, out: &mut Vec<Output>) {
        let Some(judge) = &mut self.judge else { return };
        for (task, verdict) in judge.restored() {
            match verdict {
                Verdict::Accept { attempt } => drop(self.accept(task as u32, attempt, out)),
                _ => self.strike_votes(task as u32),
            }
        }
        self.learn(out);
    }

    /// The scheduler's number for a node.
    pub(super) fn site_of(&mut self, node: NodeId, name: &str) -> u32 {
        let next = self.sites.len() as u32;
        self.sites.entry(node).or_insert_with(|| (next, name.to_owned())).0
    }

    /// Whether nothing that this node says counts.
    pub(super) fn is_caught(&self, node: NodeId) -> bool {
        self.judge.as_ref().is_some_and(|judge| judge.standings().of(node).is_caught())
    }

    /// Which of the template's known answers the next attempt on this node is to give, instead of its task's.
    pub(super) fn next_check(&mut self, template: u32, node: NodeId) -> Option<u32> {
        let known = self.templates[template as usize].known.len() as u32;
        if known == 0 || !self.judge.as_mut()?.wants_check(node) {
            return None;
        }
        let next = self.next_known.entry(template).or_default();
        let which = *next % known;
        *next = which + 1;
        Some(which)
    }

    /// An attempt that checked its node has ended. One that failed says nothing.
    pub(super) fn checked(
        &mut self,
        now: Tick,
        task: u32,
        known: u32,
        (node, name): (NodeId, String),
        ending: &Ending,
        out: &mut Vec<Output>,
    ) -> Outcome {
        let template = self.tasks[task as usize].template as usize;
        let right = self.templates[template].known.get(known as usize).map(|known| known.result);
        if let (End::Done, Some(judge)) = (&ending.end, &mut self.judge) {
            let changed = judge.checked(node, ending.result == right);
            self.learn(out);
            if ending.result != right {
                self.catch(now, node, name, changed, out);
            }
        }
        Outcome::Again
    }

    /// A node has given a wrong answer: what rests on its word is done again, by others.
    fn catch(
        &mut self,
        now: Tick,
        node: NodeId,
        name: String,
        changed: Vec<(u64, Verdict)>,
        out: &mut Vec<Output>,
    ) {
        let struck = self.votes.iter().flat_map(|(task, votes)| votes.iter().map(|vote| (*task, vote)));
        let struck = struck.filter(|(_, vote)| vote.node == node);
        self.dropped.extend(struck.map(|(task, vote)| (task, vote.attempt)));
        self.enter_and_append(Record::Caught { node, name }, out);
        for (task, verdict) in changed {
            let number = task as u32;
            match verdict {
                Verdict::Redo => {
                    let rests = match &self.tasks[number as usize].state {
                        State::Done(done) | State::Committing(done) => done.voters.contains(&node),
                        _ => false,
                    };
                    if rests {
                        self.enter_and_append(Record::Undone { task: number }, out);
                    }
                }
                Verdict::More { .. } | Verdict::Undecided => self.offer_again(number),
                Verdict::Accept { attempt } => {
                    self.accept(number, attempt, out);
                    self.gone.push(number);
                }
            }
        }
        let workers: Vec<u64> = self.workers_of(node).collect();
        for worker in workers {
            for (attempt, running) in self.attempts.iter_mut().filter(|(_, running)| running.worker == worker)
            {
                running.killed = true;
                out.push(Output::Kill { attempt: *attempt });
            }
            self.turn_away(now, worker);
        }
    }

    fn workers_of(&self, node: NodeId) -> impl Iterator<Item = u64> {
        self.workers.iter().filter(move |(_, worker)| worker.id == node).map(|(number, _)| *number)
    }

    /// A worker is of no use: it is given back as soon as nothing runs there.
    pub(super) fn turn_away(&mut self, now: Tick, worker: u64) {
        let Some(entry) = self.workers.get_mut(&worker) else { return };
        entry.unwanted = true;
        entry.leaves = true;
        self.tell(now, Event::WorkerLeaves(worker));
        self.look_idle(now, worker);
    }

    /// A task is offered to the scheduler once more, since what it knows of it is no longer true.
    fn offer_again(&mut self, task: u32) {
        if self.tasks[task as usize].state == State::Open {
            self.gone.push(task);
            self.opened.push(task);
        }
    }

    /// An attempt brought a result that is to be compared.
    pub(super) fn vote(
        &mut self,
        now: Tick,
        task: u32,
        vote: Vote,
        last_words: String,
        out: &mut Vec<Output>,
    ) -> Outcome {
        let (attempt, name, cost) = (vote.attempt, vote.name.to_string(), vote.cost);
        let ballot = ballot(&vote);
        self.enter_and_append(Record::Voted { task, vote }, out);
        let Some(judge) = &mut self.judge else { return Outcome::Again };
        let verdict = judge.vote(task.into(), ballot);
        self.learn(out);
        match verdict {
            Verdict::Accept { attempt } => self.accept(task, attempt, out),
            Verdict::More { votes } => {
                self.tell(now, Event::Votes { task: task.into(), votes });
                Outcome::Counted
            }
            Verdict::Undecided | Verdict::Redo => {
                let evidence = Evidence { attempt, node: name, end: End::NoAgreement, cost, last_words };
                self.fail(task, evidence, out);
                self.offer_again(task);
                Outcome::Again
            }
        }
    }

    /// The result of an attempt that voted is taken for the task's.
    fn accept(&mut self, task: u32, attempt: u64, out: &mut Vec<Output>) -> Outcome {
        let votes = self.votes(task);
        let Some(vote) = votes.iter().find(|vote| vote.attempt == attempt).cloned() else {
            return Outcome::Again;
        };
        let others = votes.iter().filter(|vote| vote.attempt != attempt).map(|vote| vote.attempt);
        out.extend(others.map(|attempt| Output::Drop { task, attempt }));
        let report = Report::read(vote.said.as_bytes()).unwrap_or_default();
        match self.result(task, End::Done, report) {
            Ok((templates, added)) => {
                self.enter_and_append(Record::Accepted { task, attempt, templates, added }, out);
                self.committing.push_back((self.appended, task, attempt));
                Outcome::Done
            }
            Err(end) => {
                out.push(Output::Drop { task, attempt });
                let (node, last_words) = (vote.name.into(), String::new());
                self.fail(task, Evidence { attempt, node, end, cost: vote.cost, last_words }, out);
                self.strike_votes(task);
                self.offer_again(task);
                Outcome::Again
            }
        }
    }

    pub(super) fn apply_accepted(
        &mut self,
        task: u32,
        attempt: u64,
        templates: Vec<Template>,
        added: Vec<NewTask>,
    ) -> Result<(), Error> {
        let added = self.apply_added(templates, added)?;
        let votes = self.votes(task);
        let Some(vote) = votes.iter().find(|vote| vote.attempt == attempt) else {
            return Err(Error::Task(format!("attempt {attempt} of task {task} has brought no result")));
        };
        let voters =
            votes.iter().filter(|other| other.result == vote.result).map(|other| other.node).collect();
        let (node, cost, stdout, stderr) = (vote.name.clone(), vote.cost, vote.stdout, vote.stderr);
        let done = Done { attempt, node, cost, stdout, stderr, added, voters };
        self.set_state(task, State::Committing(Box::new(done)));
        Ok(())
    }

    /// An attempt has failed, which may be the end of its task.
    pub(super) fn fail(&mut self, task: u32, mut evidence: Evidence, out: &mut Vec<Output>) {
        let class = evidence.end.class();
        if class == Class::Nothing {
            return;
        }
        evidence.last_words.truncate(evidence.last_words.floor_char_boundary(LAST_WORDS_BYTES_MAX));
        self.enter_and_append(Record::Failed { task, evidence }, out);
        if let Some(closed) = self.verdict(task, class) {
            self.close_by(task, closed, out);
        }
    }

    /// What was compared of a task is of no interest any more.
    pub(super) fn strike_votes(&mut self, task: u32) {
        let votes = self.votes.remove(&task).unwrap_or_default();
        self.dropped.extend(votes.iter().map(|vote| (task, vote.attempt)));
        if let Some(judge) = &mut self.judge {
            judge.forget(task.into());
        }
    }

    /// Passes on what was learnt of nodes.
    fn learn(&mut self, out: &mut Vec<Output>) {
        let Some(judge) = &mut self.judge else { return };
        for (node, standing) in judge.take_news() {
            let name = self.sites.get(&node).map(|(_, name)| name.clone()).unwrap_or_default();
            out.push(Output::Learnt { node, name, standing });
        }
    }
}

fn ballot(vote: &Vote) -> Ballot {
    Ballot { node: vote.node, attempt: vote.attempt, result: vote.result }
}

/// What an attempt that voted leaves in the journal.
pub(super) fn vote_of(attempt: u64, node: NodeId, name: String, ending: &Ending) -> Option<Vote> {
    let cost: Cost = ending.cost;
    Some(Vote {
        attempt,
        node,
        name: name.into(),
        cost,
        stdout: ending.outputs.0,
        stderr: ending.outputs.1,
        result: ending.result?,
        said: ending.report.text().into(),
    })
}
