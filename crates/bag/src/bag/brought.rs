//! What the tasks of a draft bring: no file twice, and each to those that want it.

use super::Draft;
use crate::words::Named;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

/// How tasks of one template come after those of another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum After {
    No,
    /// Each after the one at the same place.
    Each,
    All,
}

/// A task, and its place among those of its template.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Owner {
    hash: u64,
    task: u32,
    place: u32,
    output: u32,
}

fn hash(name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}

impl Draft {
    /// All output files, by the hashes of their names and then by tasks.
    fn owners(&self) -> Vec<Owner> {
        let (mut owners, mut places) = (Vec::new(), vec![0; self.templates.len()]);
        for (task, entry) in (0..).zip(&self.tasks) {
            let place = places[entry.template as usize];
            places[entry.template as usize] += 1;
            for output in 0..self.templates[entry.template as usize].outputs.len() as u32 {
                owners.push(Owner { hash: hash(&self.output(task, output)), task, place, output });
            }
        }
        owners.sort_unstable();
        owners
    }

    fn output(&self, task: u32, output: u32) -> String {
        let entry = &self.tasks[task as usize];
        let named = Named { task: task.into(), values: &entry.values };
        self.templates[entry.template as usize].outputs[output as usize].here.fill(&named)
    }

    /// Refuses two tasks that bring the same file and may run at once: the later one's template, and what is wrong.
    pub(crate) fn check_outputs(&self) -> Result<(), (u32, String)> {
        let mut known = BTreeMap::new();
        // Tasks come after those they wait for, so two that follow each other here do so in time or not at all.
        for pair in self.owners().windows(2).filter(|pair| pair[0].hash == pair[1].hash) {
            let [first, second] = [pair[0], pair[1]];
            let file = self.output(second.task, second.output);
            let [before, template] = [first, second].map(|owner| self.tasks[owner.task as usize].template);
            let after = *known.entry((before, template)).or_insert_with(|| self.after(template, before));
            let in_turn = after == After::All || (after == After::Each && first.place == second.place);
            if !in_turn && self.output(first.task, first.output) == file {
                let name = |template: u32, owner: Owner| {
                    format!("`{}.{}`", self.templates[template as usize].name, owner.place)
                };
                let (one, other) = (name(before, first), name(template, second));
                return Err((
                    template,
                    format!(
                        "tasks {one} and {other} bring the same file `{file}`, and neither comes after the other; have a \
                         parameter in its name, such as {{task}}"
                    ),
                ));
            }
        }
        Ok(())
    }

    /// How tasks of a template come after those of an earlier one.
    fn after(&self, template: u32, earlier: u32) -> After {
        // What those between come after, the latest first.
        let mut ways = BTreeMap::from([(template, After::Each)]);
        while let Some((between, way)) = ways.pop_last() {
            if between == earlier && between != template {
                return way;
            }
            let between = &self.templates[between as usize];
            let all = between.after.iter().map(|before| (*before, After::All));
            for (before, step) in all.chain(between.after_each.iter().map(|before| (*before, way))) {
                let known = ways.entry(before).or_insert(step);
                *known = step.max(*known);
            }
        }
        After::No
    }

    /// A task that comes after one which brings files, and has none of these among its inputs: the names of both.
    pub fn unwanted_output(&self) -> Option<(&str, &str)> {
        let suspects = |(number, template): (usize, &crate::template::Template)| {
            let before = template.after.iter().chain(&template.after_each).copied();
            let brings = |before: &u32| !self.templates[*before as usize].outputs.is_empty();
            let wanted = |before: &u32| template.in_place || template.gathers.contains(before);
            before
                .filter(|before| brings(before) && !wanted(before))
                .map(move |before| (number as u32, before))
                .collect::<Vec<_>>()
        };
        let mut suspects: Vec<(u32, u32)> = self.templates.iter().enumerate().flat_map(suspects).collect();
        if suspects.is_empty() {
            return None;
        }
        let owners = self.owners();
        for (number, task) in self.tasks.iter().enumerate() {
            if !suspects.iter().any(|(template, _)| *template == task.template) {
                continue;
            }
            let named = Named { task: number as u64, values: &task.values };
            for input in &self.templates[task.template as usize].inputs {
                let wanted = hash(&input.here.fill(&named));
                let from = owners.partition_point(|owner| owner.hash < wanted);
                let owners = owners[from..].iter().take_while(|owner| owner.hash == wanted);
                for owner in owners {
                    let known = (task.template, self.tasks[owner.task as usize].template);
                    suspects.retain(|suspect| *suspect != known);
                }
            }
        }
        let name = |template: u32| self.templates[template as usize].name.as_str();
        suspects.first().map(|(template, before)| (name(*template), name(*before)))
    }
}
