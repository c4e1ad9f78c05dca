//! A bag that is not submitted yet.

use crate::limits::TASKS_A_RECORD;
use crate::record::{NewTask, Record};
use crate::template::{Settings, Template};

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
