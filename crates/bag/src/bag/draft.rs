//! A bag that is not submitted yet.

use crate::limits::TASKS_A_RECORD;
use crate::record::{NewTask, Record};
use crate::template::{Settings, Template};
use crate::words::Named;
use std::collections::{BTreeMap, BTreeSet};

/// A bag as it is to be submitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// What holds for the whole bag.
    pub settings: Settings,
    /// Templates, those that others wait for first.
    pub templates: Vec<Template>,
    /// Tasks.
    pub tasks: Vec<NewTask>,
}

impl Draft {
    /// An empty one.
    pub fn new(settings: Settings) -> Draft {
        Draft { settings, templates: Vec::new(), tasks: Vec::new() }
    }

    /// Adds a task.
    pub fn push(&mut self, template: u32, values: Vec<Box<str>>) {
        self.tasks.push(NewTask { template, values });
    }

    /// The first input that is not there and that no task is to bring, and the name of the task that wants it.
    pub fn missing_input(&self, is_there: impl Fn(&str) -> bool) -> Option<(String, String)> {
        let mut places = vec![0; self.templates.len()];
        let mut brought = BTreeSet::new();
        let mut wanted: BTreeMap<String, String> = BTreeMap::new();
        for (number, task) in self.tasks.iter().enumerate() {
            let template = &self.templates[task.template as usize];
            let next = &mut places[task.template as usize];
            let place = *next;
            *next += 1;
            let named = Named { task: number as u64, values: &task.values };
            brought.extend(template.outputs.iter().map(|file| file.here.fill(&named)));
            for input in &template.inputs {
                let name = input.here.fill(&named);
                // What those before it leave otherwise, nobody knows.
                if template.after.is_empty() && template.after_each.is_empty() && !wanted.contains_key(&name)
                {
                    wanted.insert(name, format!("{}.{place}", template.name));
                }
            }
        }
        let missing = wanted.into_iter().find(|(name, _)| !brought.contains(name) && !is_there(name));
        missing.map(|(name, task)| (task, name))
    }

    /// The first records of the bag's journal. Without the last of them nothing was submitted.
    pub fn into_records(self, at_ms: u64) -> impl Iterator<Item = Record> {
        let mut tasks = self.tasks.into_iter();
        let chunks = std::iter::from_fn(move || {
            let some: Vec<NewTask> = tasks.by_ref().take(TASKS_A_RECORD).collect();
            (!some.is_empty()).then_some(Record::Tasks(some))
        });
        std::iter::once(Record::Bag { settings: self.settings, at_ms })
            .chain(self.templates.into_iter().map(Record::Template))
            .chain(chunks)
            .chain(std::iter::once(Record::Complete))
    }
}
