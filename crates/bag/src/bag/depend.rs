//! Which tasks may run: those before which nothing has to be done any more.

use super::Bag;
use super::state::{Closed, State};

/// What those before a task let it do.
enum Before {
    Done,
    Open,
    Bad,
}

/// Whether what waits for a task in this state, in which it is over, waits in vain.
fn is_bad(state: &State) -> bool {
    !matches!(state, State::Done(_) | State::Closed(Closed::Withdrawn))
}

impl Bag {
    /// A task is over, in this state: others may follow, or never will.
    pub(super) fn close(&mut self, number: u32, state: State) {
        let mut over = vec![(number, state)];
        while let Some((number, state)) = over.pop() {
            if self.tasks[number as usize].is_over() {
                continue;
            }
            let bad = is_bad(&state);
            self.set_state(number, state);
            self.finished.push(number);
            let task = &self.tasks[number as usize];
            let (template, place) = (task.template as usize, task.place as usize);
            let family = &mut self.families[template];
            family.open -= 1;
            family.bad += u32::from(bad);
            let mut follow: Vec<u32> = Vec::new();
            let family = &self.families[template];
            let same_place = |later: &u32| self.families[*later as usize].tasks.get(place).copied();
            follow.extend(family.before_each.iter().filter_map(same_place));
            if family.open == 0 {
                // Those at places where there is nothing wait in vain.
                let beyond =
                    |later: &u32| self.families[*later as usize].tasks.iter().skip(family.tasks.len());
                follow.extend(family.before_each.iter().flat_map(beyond));
                follow.extend(family.before.iter().flat_map(|later| &self.families[*later as usize].tasks));
            }
            for later in follow {
                if self.tasks[later as usize].state != State::Waiting {
                    continue;
                }
                match self.before(later) {
                    Before::Done => self.open(later),
                    Before::Bad => over.push((later, State::Barred)),
                    Before::Open => {}
                }
            }
        }
    }

    /// The result of a task counts no longer, nor what it has added, nor what was done after it.
    pub(super) fn undo(&mut self, number: u32) {
        let mut todo = vec![(number, false)];
        let mut undone = Vec::new();
        while let Some((number, withdrawn)) = todo.pop() {
            let task = &self.tasks[number as usize];
            let is_over = task.is_over();
            let (was_bad, template) = (is_over && is_bad(&task.state), task.template as usize);
            match &task.state {
                State::Done(done) | State::Committing(done) => {
                    let (first, count) = done.added;
                    todo.extend((first..first + count).map(|added| (added, true)));
                }
                State::Open => self.gone.push(number),
                // What did not run rests on nothing.
                _ if !withdrawn => continue,
                State::Closed(Closed::Withdrawn) => continue,
                _ => {}
            }
            self.strike_votes(number);
            let family = &mut self.families[template];
            match (withdrawn, is_over) {
                (true, true) => family.bad -= u32::from(was_bad),
                (true, false) => family.open -= 1,
                (false, true) => family.open += 1,
                (false, false) => {}
            }
            todo.extend(self.after(number).into_iter().map(|later| (later, false)));
            match withdrawn {
                true => self.set_state(number, State::Closed(Closed::Withdrawn)),
                false => {
                    self.set_state(number, State::Waiting);
                    undone.push(number);
                }
            }
        }
        self.over = false;
        for number in undone {
            // One that was added by what came after it has been withdrawn since.
            if self.tasks[number as usize].state == State::Waiting {
                self.consider(number);
            }
        }
        self.unbar();
    }

    /// Tasks that wait for this one.
    fn after(&self, number: u32) -> Vec<u32> {
        let task = &self.tasks[number as usize];
        let family = &self.families[task.template as usize];
        let place = task.place as usize;
        let same_place = |later: &u32| self.families[*later as usize].tasks.get(place).copied();
        let each = family.before_each.iter().filter_map(same_place);
        each.chain(
            family.before.iter().flat_map(|later| self.families[*later as usize].tasks.iter().copied()),
        )
        .collect()
    }

    /// A task that is new, or new again, may be free to run.
    pub(super) fn consider(&mut self, number: u32) {
        match self.before(number) {
            Before::Done => self.open(number),
            Before::Bad => self.close(number, State::Barred),
            Before::Open => {}
        }
    }

    /// Fewer tasks are bad than were: those that waited for them may wait again.
    pub(super) fn unbar(&mut self) {
        // Templates come after those they wait for, so one turn is enough.
        for template in 0..self.templates.len() {
            if self.templates[template].after.is_empty() && self.templates[template].after_each.is_empty() {
                continue;
            }
            for index in 0..self.families[template].tasks.len() {
                let number = self.families[template].tasks[index];
                let barred = self.tasks[number as usize].state == State::Barred;
                if barred && !matches!(self.before(number), Before::Bad) {
                    let family = &mut self.families[template];
                    family.open += 1;
                    family.bad -= 1;
                    self.set_state(number, State::Waiting);
                    self.consider(number);
                }
            }
        }
    }

    fn open(&mut self, number: u32) {
        self.set_state(number, State::Open);
        self.opened.push(number);
    }

    fn before(&self, number: u32) -> Before {
        let task = &self.tasks[number as usize];
        let template = &self.templates[task.template as usize];
        let mut all = Before::Done;
        for earlier in &template.after {
            let family = &self.families[*earlier as usize];
            if family.open > 0 {
                all = Before::Open;
            } else if family.bad > 0 {
                return Before::Bad;
            }
        }
        for earlier in &template.after_each {
            let family = &self.families[*earlier as usize];
            let same_place = family.tasks.get(task.place as usize);
            match same_place.map(|number| &self.tasks[*number as usize].state) {
                Some(State::Done(_)) => {}
                Some(State::Closed(_) | State::Barred) => return Before::Bad,
                // One that is not there may yet be added.
                Some(_) => all = Before::Open,
                None if family.open > 0 => all = Before::Open,
                None => return Before::Bad,
            }
        }
        all
    }
}
