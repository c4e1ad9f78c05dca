//! Which tasks may run: those before which nothing has to be done any more.

use super::Bag;
use super::state::State;

/// What those before a task let it do.
enum Before {
    Done,
    Open,
    Bad,
}

impl Bag {
    /// A task is over, in this state: others may follow, or never will.
    pub(super) fn close(&mut self, number: u32, state: State) {
        let mut over = vec![(number, state)];
        while let Some((number, state)) = over.pop() {
            if self.tasks[number as usize].is_over() {
                continue;
            }
            let bad = !matches!(state, State::Done(_));
            self.set_state(number, state);
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
