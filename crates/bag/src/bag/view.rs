//! A bag as people and programs see it.

use super::Bag;
use super::state::{Closed, Done, State};
use crate::checks::Accept;
use crate::end::{Cost, Evidence};
use crate::error::Error;
use crate::record::{Saved, Span, Vote};
use crate::template::{Settings, Template};
use crate::words::Named;
use mutirao_schedule::bag::Needs;
use mutirao_wire::{BlobHash, NodeId, Tick};
use serde::Serialize;

/// How many tasks are where.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// That wait for others.
    pub waiting: u64,
    /// That may run, or do.
    pub open: u64,
    /// With a result.
    pub done: u64,
    /// That failed.
    pub failed: u64,
    /// Set aside, since they took their workers with them.
    pub set_aside: u64,
    /// Cancelled.
    pub cancelled: u64,
    /// That cannot run, since what they wait for will not be done.
    pub barred: u64,
    /// That are no longer there: the result that had added them counts no longer.
    pub withdrawn: u64,
}

impl Counts {
    /// Tasks that are not over.
    pub fn open(&self) -> u64 {
        self.waiting + self.open
    }

    /// All tasks but those withdrawn.
    pub fn all(&self) -> u64 {
        self.open() + self.done + self.bad()
    }

    /// Tasks that went wrong, or cannot run for one that did.
    pub fn went_wrong(&self) -> u64 {
        self.failed + self.set_aside + self.barred
    }

    /// Tasks that are over without a result.
    pub fn bad(&self) -> u64 {
        self.failed + self.set_aside + self.cancelled + self.barred
    }

    fn of(&mut self, state: &State) -> &mut u64 {
        match state {
            State::Waiting => &mut self.waiting,
            // Until it is on the disk, it is not done.
            State::Open | State::Committing(_) => &mut self.open,
            State::Done(_) => &mut self.done,
            State::Closed(Closed::Failed) => &mut self.failed,
            State::Closed(Closed::SetAside) => &mut self.set_aside,
            State::Closed(Closed::Cancelled) => &mut self.cancelled,
            State::Closed(Closed::Withdrawn) => &mut self.withdrawn,
            State::Barred => &mut self.barred,
        }
    }

    pub(super) fn enter(&mut self, state: &State) {
        *self.of(state) += 1;
    }

    pub(super) fn leave(&mut self, state: &State) {
        *self.of(state) -= 1;
    }
}

/// Where a task is, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It waits for others.
    Waiting,
    /// It may run.
    Ready,
    /// It runs.
    Running,
    /// It has a result.
    Done,
    /// It failed.
    Failed,
    /// It took its workers with it.
    SetAside,
    /// Somebody said so.
    Cancelled,
    /// What it waits for will not be done.
    Barred,
    /// The result that had added it counts no longer.
    Withdrawn,
}

impl Verdict {
    const ALL: [Verdict; 9] = [
        Verdict::Waiting,
        Verdict::Ready,
        Verdict::Running,
        Verdict::Done,
        Verdict::Failed,
        Verdict::SetAside,
        Verdict::Cancelled,
        Verdict::Barred,
        Verdict::Withdrawn,
    ];

    /// The word.
    pub fn word(self) -> &'static str {
        match self {
            Verdict::Waiting => "waiting",
            Verdict::Ready => "ready",
            Verdict::Running => "running",
            Verdict::Done => "done",
            Verdict::Failed => "failed",
            Verdict::SetAside => "set-aside",
            Verdict::Cancelled => "cancelled",
            Verdict::Barred => "barred",
            Verdict::Withdrawn => "withdrawn",
        }
    }
}

/// All about one task.
#[derive(Debug, Clone, Copy)]
pub struct TaskView<'a> {
    /// Its number.
    pub number: u32,
    /// Which one of its template.
    pub place: u32,
    /// Its template.
    pub template: &'a Template,
    /// Its values.
    pub named: Named<'a>,
    /// Where it is.
    pub verdict: Verdict,
    /// Attempts that run.
    pub running: u16,
    /// Failures, and ends that took the worker along.
    pub tries: (u16, u16),
    /// The last attempt that failed.
    pub evidence: Option<&'a Evidence>,
    /// The state with which its next attempt begins.
    pub saved: Option<&'a Saved>,
    done: Option<&'a Done>,
}

impl<'a> TaskView<'a> {
    /// The attempt whose result it is, where it ran, and what it has taken.
    pub fn result(&self) -> Option<(u64, &'a str, Cost)> {
        self.done.map(|done| (done.attempt, &*done.node, done.cost))
    }

    /// How many nodes have brought its result; 0 where results are not checked.
    pub fn voters(&self) -> usize {
        self.done.map_or(0, |done| done.voters.len())
    }

    /// Where its standard output is, and its standard error.
    pub fn outputs(&self) -> Option<(Span, Span)> {
        self.done.map(|done| (done.stdout, done.stderr))
    }
}

/// A number and what it counts.
fn counted(count: u64, one: &str, more: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { more })
}

impl Bag {
    /// What holds for the whole bag.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// When it was submitted, ms since 1970.
    pub fn submitted_ms(&self) -> u64 {
        self.submitted_ms
    }

    /// Whether all of what was submitted is there.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Whether nothing is left to do.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// How often a keeper has begun to run it.
    pub fn lives(&self) -> u64 {
        self.lives
    }

    /// How many tasks are where.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// What tasks have in common.
    pub fn templates(&self) -> &[Template] {
        &self.templates
    }

    /// Tasks that came to an end, in that order. One that was opened again comes again.
    pub fn finished(&self) -> &[u32] {
        &self.finished
    }

    /// Tasks there are, those withdrawn too.
    pub fn tasks_in_all(&self) -> u64 {
        self.tasks.len() as u64
    }

    /// Attempts that run.
    pub fn running(&self) -> usize {
        self.attempts.len()
    }

    /// Workers there are.
    pub fn workers(&self) -> usize {
        self.workers.len()
    }

    /// The task that an attempt which runs is of.
    pub fn task_of(&self, attempt: u64) -> Option<u32> {
        self.attempts.get(&attempt).map(|running| running.task)
    }

    /// A task as an attempt of it runs: with values for which the result is known, where it checks its node.
    pub fn attempt(&self, attempt: u64) -> Option<TaskView<'_>> {
        let running = self.attempts.get(&attempt)?;
        let mut view = self.task(running.task)?;
        if let Some(known) = running.check.and_then(|known| view.template.known.get(known as usize)) {
            view.named.values = &known.values;
        }
        Some(view)
    }

    /// Records of the journal so far.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Whether an attempt runs that checks its node: only what its result is compared by is wanted.
    pub fn is_check(&self, attempt: u64) -> bool {
        self.attempts.get(&attempt).is_some_and(|running| running.check.is_some())
    }

    /// Nodes no lease of which is of use to tasks that need so much: their word counts nothing in this bag, or each of
    /// these tasks waits for results of others.
    pub fn avoided(&self, needs: &Needs) -> Vec<NodeId> {
        let Some(judge) = &self.judge else { return Vec::new() };
        let caught = judge.standings().iter().filter(|(_, standing)| standing.is_caught());
        let mut avoided: Vec<NodeId> = caught.map(|(node, _)| node).collect();
        avoided.extend(self.heard_out(needs).into_iter().map(|(node, _)| node));
        avoided
    }

    /// Nodes that have given, or are about to give, their result of each task that waits and needs so much.
    fn heard_out(&self, needs: &Needs) -> Vec<(NodeId, &str)> {
        let scheduler = self.scheduler.as_ref().filter(|_| self.judge.is_some());
        let barred = scheduler.map(|scheduler| scheduler.floor().barred_sites(needs)).unwrap_or_default();
        if barred.is_empty() {
            return Vec::new();
        }
        let sites = self.sites.iter().filter(|(_, (site, _))| barred.contains(site));
        sites.map(|(node, (_, name))| (*node, name.as_str())).collect()
    }

    /// Whether tasks that need so much have a worker, although they may wait for their turn there.
    pub fn is_served(&self, needs: &Needs) -> bool {
        self.scheduler.as_ref().is_some_and(|scheduler| scheduler.floor().is_served(needs))
    }

    /// Where results are compared: of how many different nodes they are wanted, if tasks that need so much wait because
    /// those that lend slots have given theirs.
    pub fn lacks_nodes(&self, needs: &Needs) -> Option<String> {
        let mut names: Vec<String> =
            self.heard_out(needs).iter().map(|(_, name)| format!("`{name}`")).collect();
        names.sort();
        let (last, others) = names.split_last()?;
        let heard =
            if others.is_empty() { last.clone() } else { format!("{} and {last}", others.join(", ")) };
        let wanted = match self.settings.checks.accept {
            Accept::Majority { of } => {
                format!(
                    "results are wanted of {} different nodes, of up to {of} where they differ",
                    of / 2 + 1
                )
            }
            _ => "further results are wanted of different nodes".to_owned(),
        };
        let (given, more) = match names.len() {
            1 => ("has given its own", "another node is"),
            _ => ("have given theirs", "other nodes are"),
        };
        Some(format!("{wanted}; {heard} {given}, and {more} needed"))
    }

    /// Nodes that gave wrong answers in this bag, by name.
    pub fn caught(&self) -> impl Iterator<Item = (NodeId, &str)> {
        self.caught.iter().map(|(node, name)| (*node, name.as_str()))
    }

    /// Results of a task that others are compared with, by node.
    pub fn votes(&self, number: u32) -> &[Vote] {
        self.votes.get(&number).map(Vec::as_slice).unwrap_or_default()
    }

    /// Whether an attempt runs of which a result is wanted.
    pub fn is_wanted(&self, attempt: u64) -> bool {
        self.attempts.get(&attempt).is_some_and(|running| !running.killed)
    }

    /// All about one task.
    pub fn task(&self, number: u32) -> Option<TaskView<'_>> {
        let task = self.tasks.get(number as usize)?;
        let verdict = match &task.state {
            State::Waiting => Verdict::Waiting,
            State::Open | State::Committing(_) if task.running > 0 => Verdict::Running,
            State::Open | State::Committing(_) => Verdict::Ready,
            State::Done(_) => Verdict::Done,
            State::Closed(Closed::Failed) => Verdict::Failed,
            State::Closed(Closed::SetAside) => Verdict::SetAside,
            State::Closed(Closed::Cancelled) => Verdict::Cancelled,
            State::Closed(Closed::Withdrawn) => Verdict::Withdrawn,
            State::Barred => Verdict::Barred,
        };
        let done = match &task.state {
            State::Done(done) => Some(&**done),
            _ => None,
        };
        Some(TaskView {
            number,
            place: task.place,
            template: &self.templates[task.template as usize],
            named: Named { task: number.into(), values: &task.values },
            verdict,
            running: task.running,
            tries: (task.failures, task.crashes),
            evidence: task.evidence.as_deref(),
            saved: self.states.get(&number),
            done,
        })
    }

    /// All tasks.
    pub fn tasks(&self) -> impl Iterator<Item = TaskView<'_>> {
        (0..self.tasks.len() as u32).filter_map(|number| self.task(number))
    }

    /// The tasks that are meant by `7`, `solve`, `solve.3` or `failed`: a number, a template, one of its tasks by
    /// its place, or where they are.
    pub fn select(&self, what: &str) -> Result<Vec<u32>, Error> {
        let no_task = || Error::NoTask(what.to_owned());
        if let Ok(number) = what.parse::<u32>() {
            return self.task(number).map(|task| vec![task.number]).ok_or_else(no_task);
        }
        let of_word = |task: &TaskView<'_>| task.verdict.word() == what || what == "all";
        let found: Vec<u32> = self.tasks().filter(of_word).map(|task| task.number).collect();
        if !found.is_empty() || what == "all" || Verdict::ALL.iter().any(|verdict| verdict.word() == what) {
            return Ok(found);
        }
        let (name, place) = match what.rsplit_once('.') {
            Some((name, place)) => (name, Some(place.parse::<u32>().map_err(|_| no_task())?)),
            None => (what, None),
        };
        let meant =
            |task: &TaskView<'_>| task.template.name == name && place.is_none_or(|place| task.place == place);
        let found: Vec<u32> = self.tasks().filter(meant).map(|task| task.number).collect();
        if found.is_empty() { Err(no_task()) } else { Ok(found) }
    }

    /// Why a task is where it is, for people.
    pub fn explain(&self, number: u32) -> Option<String> {
        let task = self.task(number)?;
        let mut text = match task.verdict {
            Verdict::Waiting => self.waits_for(number),
            Verdict::Ready => match self.attempts.is_empty() && self.workers.is_empty() {
                true => format!("it needs {} and waits for a slot", Bag::needs_text(&task.template.needs())),
                false => format!(
                    "it needs {} and waits for its turn: {} ready or running on {}",
                    Bag::needs_text(&task.template.needs()),
                    counted(self.counts.open, "task is", "tasks are"),
                    counted(self.workers.len() as u64, "worker", "workers")
                ),
            },
            Verdict::Running => "it runs".to_owned(),
            Verdict::Done => match task.result() {
                Some((attempt, node, cost)) => {
                    format!("attempt {attempt} on {node} has done it in {} ms", cost.wall_ms)
                }
                None => "it is done".to_owned(),
            },
            Verdict::Failed => format!("it failed as often as it may ({})", 1 + task.template.retries),
            Verdict::SetAside => {
                format!("{} of its attempts took their worker with them; it is set aside", task.tries.1)
            }
            Verdict::Cancelled => "it was cancelled".to_owned(),
            Verdict::Barred => format!("it will not run: {}", self.waits_for(number)),
            Verdict::Withdrawn => {
                "what had added it was undone, so it is no longer part of the bag".to_owned()
            }
        };
        text += &self.votes_text(number);
        if let Some(saved) = task.saved {
            text += &format!(
                "; its next attempt begins with the {} ",
                counted(saved.content.bytes.into(), "byte", "bytes")
            );
            text += &format!("that attempt {} saved", saved.attempt);
        }
        if let Some(evidence) = task.evidence {
            text += &match evidence.node.as_str() {
                "" => format!("; {}", evidence.end),
                node => {
                    format!("; attempt {} on {node}, which failed last: {}", evidence.attempt, evidence.end)
                }
            };
        }
        Some(text)
    }

    /// Where the attempts of a task run, and since when.
    pub fn runs(&self, number: u32) -> impl Iterator<Item = (u64, &str, Tick)> {
        let of = self.attempts.iter().filter(move |(_, attempt)| attempt.task == number && !attempt.killed);
        of.map(|(attempt, running)| (*attempt, running.node.as_str(), running.since))
    }

    /// How far the comparing of a task's results is.
    fn votes_text(&self, number: u32) -> String {
        let task = &self.tasks[number as usize];
        match &task.state {
            State::Done(done) if done.voters.len() > 1 => {
                return format!("; {} nodes have brought the same", done.voters.len());
            }
            State::Open => {}
            _ => return String::new(),
        }
        let votes = self.votes(number);
        let mut results: Vec<&BlobHash> = votes.iter().map(|vote| &vote.result).collect();
        results.sort_unstable();
        results.dedup();
        match (votes.len(), results.len()) {
            (0, _) => String::new(),
            (1, _) => "; it has one result, and waits for that of another node to compare it with".into(),
            (count, 1) => format!("; it has {count} results that agree, and waits for more of other nodes"),
            (count, differ) => format!(
                "; it has {count} results, of which {differ} differ, and waits for more of other nodes"
            ),
        }
    }

    fn waits_for(&self, number: u32) -> String {
        let task = &self.tasks[number as usize];
        let template = &self.templates[task.template as usize];
        let mut reasons = Vec::new();
        for earlier in &template.after {
            let family = &self.families[*earlier as usize];
            let name = &self.templates[*earlier as usize].name;
            if family.open > 0 {
                reasons.push(format!(
                    "{} of the {} of `{name}` {} not done",
                    family.open,
                    counted(family.tasks.len() as u64, "task", "tasks"),
                    if family.open == 1 { "is" } else { "are" }
                ));
            } else if family.bad > 0 {
                reasons.push(format!(
                    "{} of the {} of `{name}` will not be done",
                    family.bad,
                    counted(family.tasks.len() as u64, "task", "tasks")
                ));
            }
        }
        for earlier in &template.after_each {
            let name = &self.templates[*earlier as usize].name;
            let other = self.families[*earlier as usize].tasks.get(task.place as usize);
            match other.and_then(|other| self.task(*other)) {
                Some(other) if other.verdict == Verdict::Done => {}
                Some(other) => reasons.push(format!("`{name}.{}` is {}", task.place, other.verdict.word())),
                None => reasons.push(format!("there is no `{name}.{}`", task.place)),
            }
        }
        match reasons.is_empty() {
            true => "nothing stands before it".to_owned(),
            false => reasons.join("; "),
        }
    }
}
