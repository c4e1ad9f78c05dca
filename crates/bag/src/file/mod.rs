//! The bag file.

mod amounts;
mod axes;
mod checks;
mod node;
mod task;
#[cfg(test)]
mod tests;

use crate::bag::Draft;
use crate::error::Error;
use crate::limits::{BAG_NAME_BYTES_MAX, GATHERED_MAX, TASKS_MAX};
use crate::template::{Program, Settings};
use mutirao_text::At;
use mutirao_wire::bag::MEMBERS;
use node::{Node, Table, Wrong};
use task::{Named, TaskText};

/// Reads another file that the bag file names: its bytes. The text of a failure is for people.
pub type Load<'a> = &'a dyn Fn(&str) -> Result<Vec<u8>, String>;

/// Reads a bag file. `settings` is what holds where the file says nothing; `load` reads the files of lines that it
/// names.
pub fn read(text: &str, settings: Settings, load: Load<'_>) -> Result<Draft, Error> {
    read_document(text, settings, load)
        .map_err(|wrong| Error::File { at: At::of(text, wrong.at), reason: wrong.reason })
}

fn read_document(text: &str, settings: Settings, load: Load<'_>) -> Result<Draft, Wrong> {
    let root = node::parse(text)?;
    let mut root = root.table("a bag file")?;
    let mut draft = Draft::new(read_settings(&mut root, settings)?);
    let defaults = root.take("defaults").map(|node| node.table("`defaults`")).transpose()?;
    let tasks = root.require("task", "there is no task; write a table [task.NAME] with its `command`")?;
    let tasks = tasks.table("`task`")?;
    root.finish("a bag file")?;

    let mut texts: Vec<TaskText> = Vec::new();
    for (name, node) in tasks.entries() {
        texts.push(TaskText::read(name, node.table("a task")?, defaults.as_ref(), load)?);
    }
    if texts.is_empty() {
        return Err(Wrong {
            at: 0,
            reason: "there is no task; write a table [task.NAME] with its `command`".into(),
        });
    }
    for text in &texts {
        text.fits(draft.settings.program.is_some())?;
    }
    let order = in_order(&texts)?;
    let place =
        |name: &str| order.iter().position(|index| texts[*index].template.name == name).unwrap_or(0) as u32;
    for (number, index) in order.iter().enumerate() {
        let text = &texts[*index];
        let mut template = text.template.clone();
        template.after = text.after.iter().map(|named| place(&named.name)).collect();
        template.after_each = text.after_each.iter().map(|named| place(&named.name)).collect();
        template.gathers = text.gathers.iter().map(|named| place(&named.name)).collect();
        draft.templates.push(template);
        text.axes.rows(|values| draft.push(number as u32, values))?;
    }
    if draft.tasks.len() > TASKS_MAX {
        return Err(Wrong { at: 0, reason: format!("these are more than {TASKS_MAX} tasks") });
    }
    for (number, index) in order.iter().enumerate() {
        let text = &texts[*index];
        for (named, earlier) in text.gathers.iter().zip(&draft.templates[number].gathers) {
            fits_gathered(&draft, named, *earlier)?;
        }
    }
    if let Err((template, reason)) = draft.check_outputs() {
        return Err(Wrong { at: texts[order[template as usize]].at, reason });
    }
    Ok(draft)
}

/// Whether what a task brings can be inputs of another.
fn fits_gathered(draft: &Draft, named: &Named, template: u32) -> Result<(), Wrong> {
    let tasks = draft.tasks.iter().filter(|task| task.template == template).count();
    let name = &named.name;
    let reason = match tasks * draft.templates[template as usize].outputs.len() {
        0 => format!("task `{name}` has no `outputs` that `@{name}` could be"),
        files if files > GATHERED_MAX => format!(
            "`@{name}` would be {files} files, at most {GATHERED_MAX} are possible; join them in several steps"
        ),
        _ => return Ok(()),
    };
    Err(Wrong { at: named.at, reason })
}

fn read_settings(root: &mut Table<'_>, settings: Settings) -> Result<Settings, Wrong> {
    let mut settings = settings;
    if let Some(name) = root.take("name") {
        settings.name = name.text()?.to_owned();
        if settings.name.is_empty() || settings.name.contains(['/', '\n', '\0']) {
            return Err(name.wrong("a name has no `/` and at least one letter"));
        }
        let bytes = settings.name.len();
        if bytes > BAG_NAME_BYTES_MAX {
            return Err(
                name.wrong(format!("this name has {bytes} bytes, at most {BAG_NAME_BYTES_MAX} are possible"))
            );
        }
    }
    if let Some(scheduler) = root.take("scheduler") {
        settings.scheduler = scheduler.text()?.to_owned();
        if let Err(unknown) = mutirao_schedule::bag::by_name(&settings.scheduler, 2) {
            return Err(scheduler.wrong(unknown.to_string()));
        }
    }
    if let Some(replicas) = root.take("replicas") {
        settings.replicas = replicas.number(1, 100)? as u32;
    }
    if let Some(most) = root.take("slots_max") {
        settings.slots_max = most.number(1, 100_000)? as u32;
    }
    if let Some(nodes) = root.take("nodes") {
        settings.nodes = nodes.texts()?;
    }
    if let Some(labels) = root.take("labels") {
        settings.labels = labels.texts()?;
    }
    if let Some(members) = root.take("members") {
        settings.members = members.texts()?;
        if let Err(reason) = check_members(&settings.members) {
            return Err(members.wrong(reason));
        }
    }
    if let Some(list) = root.take("list") {
        settings.list = Some(list.text()?.to_owned());
    }
    if let Some(program) = root.take("program") {
        settings.program = Some(Program::new(program.text()?));
    }
    if let Some(results) = root.take("results") {
        checks::read(&mut settings.checks, results)?;
    }
    Ok(settings)
}

/// Whether a bag can be kept by nodes of these names; or else why not.
pub fn check_members(names: &[String]) -> Result<(), String> {
    if ![1, MEMBERS].contains(&names.len()) {
        return Err(format!("a bag is kept by 1 or {MEMBERS} nodes, not by {}", names.len()));
    }
    match (1..names.len()).find(|place| names[..*place].contains(&names[*place])) {
        Some(twice) => Err(format!("`{}` is named twice", names[twice])),
        None => Ok(()),
    }
}

/// The tasks in an order in which each comes after those it waits for: that of the file, where it is one.
fn in_order(texts: &[TaskText]) -> Result<Vec<usize>, Wrong> {
    let mut order: Vec<usize> = Vec::new();
    let is = |index: &usize, name: &str| texts[*index].template.name == name;
    while order.len() < texts.len() {
        let mut waits = None;
        let next = (0..texts.len()).filter(|index| !order.contains(index)).find(|index| {
            let open = texts[*index].before().find(|named| !order.iter().any(|done| is(done, &named.name)));
            waits = waits.or(open);
            open.is_none()
        });
        match (next, waits) {
            (Some(next), _) => order.push(next),
            (None, Some(named)) => {
                let known = (0..texts.len()).any(|index| is(&index, &named.name));
                let reason = match known {
                    true => format!("`{}` waits for this task too, itself or through others", named.name),
                    false => format!("there is no task `{}`", named.name),
                };
                return Err(Wrong { at: named.at, reason });
            }
            (None, None) => unreachable!("what is not in order waits for something"),
        }
    }
    Ok(order)
}

impl Node<'_> {
    fn texts(&self) -> Result<Vec<String>, Wrong> {
        self.list()?.iter().map(|node| node.text().map(str::to_owned)).collect()
    }
}
