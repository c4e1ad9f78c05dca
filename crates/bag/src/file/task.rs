//! One table of tasks.

use super::Load;
use super::amounts::{memory_mib, time_ms};
use super::axes::Axes;
use super::node::{NameAt, Node, Table, Wrong};
use crate::template::{FileName, Template, Work, name_there};
use crate::words::Words;
use mutirao_wire::limits::{NAME_BYTES_MAX, RESOURCE_AMOUNT_MAX};
use mutirao_wire::node::Resource;

/// What every table of tasks may say, and `defaults` too.
const SETTINGS: [&str; 10] = [
    "cores",
    "memory",
    "resources",
    "time_limit",
    "priority",
    "retries",
    "crash_limit",
    "checkpoint",
    "in_place",
    "environment",
];

/// A table of tasks that was read, except that the names of others are names still.
pub(super) struct TaskText {
    pub(super) template: Template,
    pub(super) axes: Axes,
    pub(super) after: Vec<Named>,
    pub(super) after_each: Vec<Named>,
    /// Those whose outputs are its inputs.
    pub(super) gathers: Vec<Named>,
    /// Where it stands.
    pub(super) at: usize,
}

/// The name of another table, and where it stands.
#[derive(Clone)]
pub(super) struct Named {
    pub(super) at: usize,
    pub(super) name: String,
}

impl TaskText {
    pub(super) fn read<'a>(
        name: NameAt<'a>,
        mut table: Table<'a>,
        defaults: Option<&Table<'a>>,
        load: Load<'_>,
    ) -> Result<TaskText, Wrong> {
        let NameAt { text: name, at } = name;
        table.at = at;
        let odd = |c: char| !(c.is_ascii_alphanumeric() || "_-".contains(c));
        if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains(odd) {
            return Err(Wrong {
                at,
                reason: format!("`{name}` is no name of a task: letters, digits, - and _"),
            });
        }
        if name.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(Wrong {
                at,
                reason: "the name of a task begins with a letter: numbers are tasks' own".into(),
            });
        }
        let axes = Axes::read(&mut table, load)?;
        let parameters = axes.names();
        let work = match table.take("operation") {
            Some(operation) => called(&operation, table.take("argument"), &parameters)?,
            None => {
                work(&table.require("command", &format!("task `{name}` has no `command`"))?, &parameters)?
            }
        };
        let mut template = Template::new(name, work);
        template.parameters = parameters;

        let mut defaults = defaults.cloned();
        for setting in SETTINGS {
            let default = defaults.as_mut().and_then(|defaults| defaults.take(setting));
            if let Some(node) = table.take(setting).or(default) {
                set(&mut template, setting, node)?;
            }
        }
        if let Some(defaults) = &defaults {
            defaults.finish("`defaults`")?;
        }
        if let Some(stdin) = table.take("stdin") {
            template.stdin = words(&stdin, &template.parameters)?;
        }
        let inputs = table.take("inputs");
        let listed = inputs.as_ref().map_or(Ok(&[][..]), Node::list)?;
        let gathers: Vec<Named> = listed.iter().filter_map(gathered).collect();
        let plain = listed.iter().filter(|input| gathered(input).is_none());
        template.inputs = files(plain, &template.parameters)?;
        let outputs = table.take("outputs");
        template.outputs =
            files(outputs.as_ref().map_or(Ok(&[][..]), Node::list)?.iter(), &template.parameters)?;
        template.known = super::checks::known(table.take("known"), &template, load)?;
        let (mut after, after_each) = (names(table.take("after"))?, names(table.take("after_each"))?);
        table.finish("a task")?;
        // Whoever wants what others bring comes after them.
        let is_named = |known: &[Named], one: &Named| known.iter().any(|named| named.name == one.name);
        for one in &gathers {
            if !is_named(&after, one) && !is_named(&after_each, one) {
                after.push(one.clone());
            }
        }
        Ok(TaskText { template, axes, after, after_each, gathers, at })
    }

    /// Whether it is what the bag is of: operations of a program, or commands.
    pub(super) fn fits(&self, has_program: bool) -> Result<(), Wrong> {
        let template = &self.template;
        let wrong =
            |reason: &str| Err(Wrong { at: self.at, reason: format!("task `{}` {reason}", template.name) });
        let is_operation = matches!(template.work, Work::Operation { .. });
        let has_surroundings =
            template.brings_files() || template.stdin != Words::default() || !template.environment.is_empty();
        match (is_operation, has_program) {
            (true, false) => wrong("calls an operation: say at the top of the file of which `program`"),
            (false, true) => wrong("has a command, but the file names a `program`: its tasks are operations"),
            (true, true) if has_surroundings => {
                wrong("calls an operation, which has no `inputs`, `outputs`, `stdin` and `environment`")
            }
            _ => Ok(()),
        }
    }

    /// Those that it waits for.
    pub(super) fn before(&self) -> impl Iterator<Item = &Named> {
        self.after.iter().chain(&self.after_each)
    }
}

fn set(template: &mut Template, setting: &str, node: Node<'_>) -> Result<(), Wrong> {
    match setting {
        "cores" => template.slots = node.number(1, 4096)? as u16,
        "memory" => template.memory_mib = memory_mib(&node)?,
        "resources" => {
            for (name, amount) in node.table("`resources`")?.entries() {
                let amount = amount.number(1, RESOURCE_AMOUNT_MAX.into())? as u32;
                template.resources.push(Resource { name: name.text.into_owned(), amount });
            }
        }
        "time_limit" => template.limit_ms = Some(time_ms(&node)?),
        "priority" => template.priority = node.number(-1_000_000, 1_000_000)? as i32,
        "retries" => template.retries = node.number(0, 10_000)? as u32,
        "crash_limit" => template.crash_limit = node.number(1, 10_000)? as u32,
        "checkpoint" if matches!(template.work, Work::Operation { .. }) => {
            template.checkpoint = node.switch()?.then(String::new);
        }
        "checkpoint" => {
            let name = node.text()?;
            if name.is_empty() || name.starts_with('.') || name.contains(['/', '\0']) {
                return Err(node.wrong("a checkpoint is the name of a file in the directory of the task"));
            }
            template.checkpoint = Some(name.to_owned());
        }
        "in_place" => template.in_place = node.switch()?,
        _ => {
            for (name, value) in node.table("`environment`")?.entries() {
                if name.text.is_empty() || name.text.contains(['=', '\0']) {
                    return Err(Wrong { at: name.at, reason: "no variable can have this name".into() });
                }
                let value = match value.as_number() {
                    Some(number) => Words::plain(number),
                    None => words(&value, &template.parameters)?,
                };
                template.environment.push((name.text.into_owned(), value));
            }
        }
    }
    Ok(())
}

fn called(operation: &Node<'_>, argument: Option<Node<'_>>, parameters: &[String]) -> Result<Work, Wrong> {
    let argument = argument.map(|argument| words(&argument, parameters)).transpose()?.unwrap_or_default();
    Ok(Work::Operation { name: operation.text()?.to_owned(), argument, as_bytes: false })
}

fn work(command: &Node<'_>, parameters: &[String]) -> Result<Work, Wrong> {
    let is_empty = |text: &Node<'_>| text.text().is_ok_and(|text| text.trim().is_empty());
    if is_empty(command) || command.as_list().is_some_and(|list| list.first().is_none_or(is_empty)) {
        return Err(command.wrong("the command is empty"));
    }
    if command.as_number().is_some() {
        return Err(command.wrong("a command is a text in quotes, or a list of a program and its arguments"));
    }
    let Some(list) = command.as_list() else { return Ok(Work::Shell(words(command, parameters)?)) };
    let words = list.iter().map(|node| words(node, parameters)).collect::<Result<_, _>>()?;
    Ok(Work::Program(words))
}

fn words(node: &Node<'_>, parameters: &[String]) -> Result<Words, Wrong> {
    Words::read(node.text()?, parameters).map_err(|unknown| {
        let known = match parameters.is_empty() {
            true => "there is none but {task}".to_owned(),
            false => format!("there are {} and task", parameters.join(", ")),
        };
        node.wrong(format!("there is no parameter `{}`; {known}; a plain {{ is written {{{{", unknown.0))
    })
}

fn names(node: Option<Node<'_>>) -> Result<Vec<Named>, Wrong> {
    let Some(node) = node else { return Ok(Vec::new()) };
    let name = |node: &Node<'_>| Ok(Named { at: node.at(), name: node.text()?.to_owned() });
    node.list()?.iter().map(name).collect()
}

/// `@solve`: all that the tasks of this table bring.
fn gathered(node: &Node<'_>) -> Option<Named> {
    let name = node.text().ok()?.strip_prefix('@')?;
    Some(Named { at: node.at(), name: name.to_owned() })
}

/// Files: a name, which is the same here and there, or `{ here = "...", there = "..." }`.
fn files<'a, 'b: 'a>(
    nodes: impl Iterator<Item = &'a Node<'b>>,
    parameters: &[String],
) -> Result<Vec<FileName>, Wrong> {
    nodes.map(|node| file(node, parameters)).collect()
}

fn file(node: &Node<'_>, parameters: &[String]) -> Result<FileName, Wrong> {
    let (here, there) = match node.as_table() {
        None => {
            let there = name_there(node.text()?);
            (words(node, parameters)?, Words::read(there, parameters).map_err(|_| node.wrong(""))?)
        }
        Some(mut table) => {
            let here = table.require("here", "a file needs `here`, its name where the bag is submitted")?;
            let there =
                table.require("there", "a file needs `there`, its name in the directory of the task")?;
            table.finish("a file")?;
            inside(&there)?;
            return Ok(FileName { here: words(&here, parameters)?, there: words(&there, parameters)? });
        }
    };
    if !node.text()?.starts_with('/') {
        inside(node)?;
    }
    Ok(FileName { here, there })
}

/// A name in the directory of a task leads downwards.
fn inside(node: &Node<'_>) -> Result<(), Wrong> {
    let path = node.text()?;
    let names_a_file = !matches!(path.rsplit('/').next(), None | Some("" | "."));
    if path.starts_with('/') || !names_a_file || path.split('/').any(|part| part == "..") {
        let reason =
            "a name in the directory of a task leads downwards; write { here = \"../a\", there = \"a\" }";
        return Err(node.wrong(reason));
    }
    Ok(())
}
