//! Tasks that are added to a bag that is there.

use super::Bag;
use crate::error::Error;
use crate::ipar;
use crate::limits::{TASKS_MAX, TEMPLATES_MAX, VALUE_BYTES_MAX};
use crate::record::NewTask;
use crate::report::{Added, AddedCommand};
use crate::template::{Template, Work};
use crate::words::Words;

impl Bag {
    /// Finds what is meant by tasks that are to be added: templates that they need, and themselves. `own` is the
    /// template of the task that adds them.
    pub fn resolve(&self, added: &[Added], own: Option<u32>) -> Result<(Vec<Template>, Vec<NewTask>), Error> {
        let mut templates: Vec<Template> = Vec::new();
        let mut tasks = Vec::with_capacity(added.len());
        for one in added {
            let like = match &one.like {
                Some(name) => Some(self.template(name).ok_or_else(|| self.no_template(name))?),
                None => own.or((self.templates.len() == 1).then_some(0)),
            };
            let (template, values) = match (&one.command, like) {
                (Some(command), like) => {
                    let template = self.derived(command, like, &one.values)?;
                    let known =
                        self.templates.iter().chain(&templates).position(|known| same(known, &template));
                    let place = known.unwrap_or_else(|| {
                        let name = self.free_name(&template.name, &templates);
                        templates.push(Template { name, ..template });
                        self.templates.len() + templates.len() - 1
                    });
                    (place, Vec::new())
                }
                (None, Some(like)) => (like as usize, values_of(&self.templates[like as usize], one)?),
                (None, None) => {
                    let names = self.names();
                    return Err(Error::Task(format!("say which of the bag's templates it is like: {names}")));
                }
            };
            tasks.push(NewTask { template: template as u32, values });
        }
        self.within_limits(templates, tasks)
    }

    /// Tasks that an ipar application has listed.
    pub(super) fn listed(&self, tasks: Vec<String>) -> Result<(Vec<Template>, Vec<NewTask>), Error> {
        tasks.iter().try_for_each(|task| fits(task.len()))?;
        let added = |value: String| NewTask { template: ipar::TASKS, values: vec![value.into()] };
        self.within_limits(Vec::new(), tasks.into_iter().map(added).collect())
    }

    fn within_limits(
        &self,
        templates: Vec<Template>,
        tasks: Vec<NewTask>,
    ) -> Result<(Vec<Template>, Vec<NewTask>), Error> {
        self.check_room(templates.len(), tasks.len())?;
        Ok((templates, tasks))
    }

    /// Whether so many more are possible.
    pub fn check_room(&self, templates: usize, tasks: usize) -> Result<(), Error> {
        if self.templates.len() + templates > TEMPLATES_MAX {
            return Err(Error::TooMany { what: "templates", most: TEMPLATES_MAX });
        }
        if self.tasks.len() + tasks > TASKS_MAX {
            return Err(Error::TooMany { what: "tasks", most: TASKS_MAX });
        }
        Ok(())
    }

    /// A template's place, by its name.
    fn template(&self, name: &str) -> Option<u32> {
        self.templates.iter().position(|template| template.name == name).map(|place| place as u32)
    }

    /// A name like this one that no template has: a task is told from others by that of its template.
    fn free_name(&self, name: &str, more: &[Template]) -> String {
        let is_taken = |name: &str| self.templates.iter().chain(more).any(|template| template.name == name);
        let numbered = (self.templates.len() + more.len()..).map(|number| format!("{name}-{number}"));
        std::iter::once(name.to_owned()).chain(numbered).find(|name| !is_taken(name)).unwrap_or_default()
    }

    fn no_template(&self, name: &str) -> Error {
        Error::Task(format!("the bag has no template `{name}`; it has {}", self.names()))
    }

    fn names(&self) -> String {
        let names: Vec<&str> =
            self.templates.iter().take(20).map(|template| template.name.as_str()).collect();
        names.join(", ")
    }

    /// A template like another, which does this instead, and waits for nothing.
    fn derived(
        &self,
        command: &AddedCommand,
        like: Option<u32>,
        values: &std::collections::BTreeMap<String, String>,
    ) -> Result<Template, Error> {
        if !values.is_empty() {
            return Err(Error::Task("a task with a command of its own has no values".into()));
        }
        if self.settings.program.is_some() {
            return Err(Error::Task("the bag is one of a program's operations; add one with --like".into()));
        }
        let work = match command {
            AddedCommand::Shell(text) => Work::Shell(Words::plain(text.as_str())),
            AddedCommand::Program(words) if words.is_empty() => {
                return Err(Error::Task("its command is empty".into()));
            }
            AddedCommand::Program(words) => {
                Work::Program(words.iter().map(|word| Words::plain(word.as_str())).collect())
            }
        };
        let base = match like {
            Some(like) => self.templates[like as usize].clone(),
            None => Template::new("added", work.clone()),
        };
        // What names parameters goes: there are none.
        let bare = Template {
            work,
            parameters: Vec::new(),
            environment: Vec::new(),
            stdin: Words::default(),
            ..base
        };
        Ok(Template {
            inputs: Vec::new(),
            outputs: Vec::new(),
            after: Vec::new(),
            after_each: Vec::new(),
            ..bare
        })
    }
}

/// Whether two templates differ in their names alone.
fn same(known: &Template, other: &Template) -> bool {
    *known == Template { name: known.name.clone(), ..other.clone() }
}

/// The values of an added task in the order of its template's parameters.
fn values_of(template: &Template, added: &Added) -> Result<Vec<Box<str>>, Error> {
    if let Some(odd) = added.values.keys().find(|name| !template.parameters.contains(name)) {
        let known = template.parameters.join(", ");
        let known = if known.is_empty() { "none".to_owned() } else { known };
        return Err(Error::Task(format!("`{}` has no parameter `{odd}`; it has {known}", template.name)));
    }
    fits(added.values.values().map(String::len).sum())?;
    let value = |name: &String| {
        let missing = || Error::Task(format!("`{}` needs a value of `{name}`", template.name));
        added.values.get(name).map(|value| value.as_str().into()).ok_or_else(missing)
    };
    template.parameters.iter().map(value).collect()
}

/// Whether values of so many bytes may be those of one task.
fn fits(bytes: usize) -> Result<(), Error> {
    if bytes > VALUE_BYTES_MAX {
        return Err(Error::Task(format!(
            "its values have {bytes} bytes, at most {VALUE_BYTES_MAX} are possible"
        )));
    }
    Ok(())
}
