//! What each record of the journal does to the tasks: the same when it is written and when it is read again.

use super::Bag;
use super::adopt::Begun;
use super::state::{Closed, Done, Ending, Family, Standing, State, Task};
use crate::end::{Class, End};
use crate::error::Error;
use crate::limits::{TASKS_MAX, TEMPLATES_MAX};
use crate::record::{NewTask, Record};
use crate::template::Template;

impl Bag {
    pub(super) fn apply(&mut self, record: Record) -> Result<(), Error> {
        match record {
            Record::Bag { settings, at_ms } => (self.settings, self.submitted_ms) = (settings, at_ms),
            Record::Template(template) => self.apply_template(template)?,
            Record::Tasks(tasks) => self.apply_tasks(tasks)?,
            Record::Complete => {
                self.complete = true;
                self.consider_from(0);
            }
            Record::Life { .. } => {
                self.lives += 1;
                self.begun.clear();
                self.lent.clear();
            }
            Record::Started { task, attempt, .. } => {
                self.known_mut(task)?;
                self.used(attempt);
                self.begun.insert(attempt, Begun { task, sent: None });
            }
            Record::Failed { task, evidence } => {
                self.begun.remove(&evidence.attempt);
                if evidence.end == End::NoAgreement {
                    self.strike_votes(task);
                }
                let task = self.known_mut(task)?;
                match evidence.end.class() {
                    Class::Failure => task.failures = task.failures.saturating_add(1),
                    Class::Crash => task.crashes = task.crashes.saturating_add(1),
                    Class::Success | Class::Nothing => {}
                }
                task.evidence = Some(Box::new(evidence));
            }
            Record::Committed { task, attempt, node, cost, stdout, stderr, templates, added } => {
                self.unfinished(task)?;
                self.begun.remove(&attempt);
                let added = self.apply_added(templates, added)?;
                self.used(attempt);
                let voters = Box::default();
                let done = Done { attempt, node: node.into(), cost, stdout, stderr, added, voters };
                self.set_state(task, State::Committing(Box::new(done)));
            }
            Record::Voted { task, vote } => {
                self.known_mut(task)?;
                self.begun.remove(&vote.attempt);
                self.used(vote.attempt);
                self.votes.entry(task).or_default().push(vote);
            }
            Record::Accepted { task, attempt, templates, added } => {
                self.unfinished(task)?;
                self.apply_accepted(task, attempt, templates, added)?;
            }
            Record::Caught { node, name } => {
                self.votes.values_mut().for_each(|votes| votes.retain(|vote| vote.node != node));
                self.votes.retain(|_, votes| !votes.is_empty());
                self.caught.insert(node, name);
            }
            Record::Undone { task } => {
                self.known_mut(task)?;
                self.undo(task);
            }
            Record::Closed { task, closed } => {
                self.known_mut(task)?;
                self.strike_votes(task);
                // What is read counts at once, so the task may be barred by what had not counted yet when it was closed.
                match self.tasks[task as usize].state {
                    State::Barred => self.set_state(task, State::Closed(closed)),
                    _ => self.close(task, State::Closed(closed)),
                }
            }
            Record::Again { task } => {
                self.known_mut(task)?;
                self.reopen(task);
            }
            Record::Over { .. } => self.over = true,
            Record::Standings { first, standings } => {
                for (task, standing) in (first..).zip(standings) {
                    self.apply_standing(task, standing)?;
                }
            }
            Record::Saved { task, saved } => self.apply_saved(task, saved)?,
            Record::Lent { worker, lent } => drop(self.lent.insert(worker, lent)),
            Record::Returned { worker } => drop(self.lent.remove(&worker)),
            Record::Sent { attempt, worker, call } => {
                if let Some(begun) = self.begun.get_mut(&attempt) {
                    begun.sent = Some((worker, call));
                }
            }
            Record::Afresh { task } => {
                self.known_mut(task)?;
                self.forget_state(task);
            }
            Record::NextAttempt(attempt) => self.next_attempt = self.next_attempt.max(attempt),
        }
        Ok(())
    }

    fn apply_template(&mut self, template: Template) -> Result<(), Error> {
        if self.templates.len() >= TEMPLATES_MAX {
            return Err(Error::TooMany { what: "templates", most: TEMPLATES_MAX });
        }
        let number = self.templates.len() as u32;
        // Those it names come before it, or it could wait for itself.
        let before = |earlier: &[u32]| earlier.iter().all(|earlier| *earlier < number);
        if !before(&template.after) || !before(&template.after_each) {
            return Err(Error::Task(format!("`{}` waits for what comes after it", template.name)));
        }
        for earlier in &template.after {
            self.families[*earlier as usize].before.push(number);
        }
        for earlier in &template.after_each {
            self.families[*earlier as usize].before_each.push(number);
        }
        self.families.push(Family::default());
        self.templates.push(template);
        Ok(())
    }

    /// Tasks that a result has added, and templates they need: the first task, and how many.
    pub(super) fn apply_added(
        &mut self,
        templates: Vec<Template>,
        added: Vec<NewTask>,
    ) -> Result<(u32, u32), Error> {
        for template in templates {
            self.apply_template(template)?;
        }
        let place = (self.tasks.len() as u32, added.len() as u32);
        self.apply_tasks(added)?;
        Ok(place)
    }

    fn apply_tasks(&mut self, tasks: Vec<NewTask>) -> Result<(), Error> {
        if self.tasks.len() + tasks.len() > TASKS_MAX {
            return Err(Error::TooMany { what: "tasks", most: TASKS_MAX });
        }
        let first = self.tasks.len() as u32;
        for NewTask { template, values } in tasks {
            let Some(family) = self.families.get_mut(template as usize) else {
                return Err(Error::Task(format!("there is no template {template}")));
            };
            let number = self.tasks.len() as u32;
            let place = family.tasks.len() as u32;
            family.tasks.push(number);
            family.open += 1;
            self.tasks.push(Task {
                template,
                place,
                failures: 0,
                crashes: 0,
                running: 0,
                values: values.into(),
                state: State::Waiting,
                evidence: None,
            });
            self.counts.enter(&State::Waiting);
            self.over = false;
        }
        // Before all of what was submitted is there, nobody knows what a task has to wait for.
        if self.complete {
            self.consider_from(first);
        }
        Ok(())
    }

    fn consider_from(&mut self, first: u32) {
        for number in first..self.tasks.len() as u32 {
            if self.tasks[number as usize].state == State::Waiting {
                self.consider(number);
            }
        }
    }

    fn apply_standing(&mut self, number: u32, standing: Standing) -> Result<(), Error> {
        let Standing { failures, crashes, result, evidence, votes } = standing;
        if !votes.is_empty() {
            self.votes.insert(number, votes);
        }
        if !matches!(result, Ending::None) {
            self.unfinished(number)?;
        }
        let task = self.known_mut(number)?;
        (task.failures, task.crashes, task.evidence) = (failures, crashes, evidence);
        match result {
            Ending::None => {}
            Ending::Closed(closed) => self.close(number, State::Closed(closed)),
            Ending::Done(done) => {
                let (first, count) = done.added;
                if first.checked_add(count).is_none_or(|end| end as usize > self.tasks.len()) {
                    return Err(Error::Task(format!("task {number} has added tasks that are not there")));
                }
                self.set_state(number, State::Committing(done));
                self.settle(number);
            }
        }
        Ok(())
    }

    /// The result of a task counts.
    pub(super) fn settle(&mut self, number: u32) {
        if let State::Committing(done) = &self.tasks[number as usize].state {
            let done = done.clone();
            self.votes.remove(&number);
            self.forget_state(number);
            self.close(number, State::Done(done));
        }
    }

    /// A task that was closed may be tried again, and what waited for it may wait again.
    fn reopen(&mut self, number: u32) {
        let task = &mut self.tasks[number as usize];
        if !matches!(task.state, State::Closed(closed) if closed != Closed::Withdrawn) {
            return;
        }
        (task.failures, task.crashes) = (0, 0);
        let family = &mut self.families[task.template as usize];
        family.open += 1;
        family.bad -= 1;
        self.over = false;
        self.set_state(number, State::Waiting);
        self.consider(number);
        self.unbar();
    }

    pub(super) fn known_mut(&mut self, number: u32) -> Result<&mut Task, Error> {
        let tasks = self.tasks.len();
        self.tasks
            .get_mut(number as usize)
            .ok_or_else(|| Error::Task(format!("there is no task {number}; there are {tasks}")))
    }

    /// Refuses what would end a task that has ended: no keeper writes that.
    fn unfinished(&mut self, number: u32) -> Result<(), Error> {
        let task = self.known_mut(number)?;
        if task.is_over() || matches!(task.state, State::Committing(_)) {
            return Err(Error::Task(format!("task {number} ends a second time")));
        }
        Ok(())
    }

    /// The number of an attempt is given to no other.
    fn used(&mut self, attempt: u64) {
        self.next_attempt = self.next_attempt.max(attempt.saturating_add(1));
    }

    pub(super) fn set_state(&mut self, number: u32, state: State) {
        let task = &mut self.tasks[number as usize];
        self.counts.leave(&task.state);
        self.counts.enter(&state);
        task.state = state;
    }

    /// A task that fails for good, or is not wanted.
    pub(super) fn verdict(&self, number: u32, class: Class) -> Option<Closed> {
        let task = &self.tasks[number as usize];
        let template = &self.templates[task.template as usize];
        let gives_up = template.gives_up(class, task.failures.into(), task.crashes.into());
        gives_up.then_some(if class == Class::Crash { Closed::SetAside } else { Closed::Failed })
    }
}
