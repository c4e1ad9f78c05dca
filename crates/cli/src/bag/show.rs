//! Bags and their tasks as people and programs see them: read from the journal, whoever keeps the bag.

use super::control;
use super::outputs::Outputs;
use super::place::{self, Place};
use crate::args::Output as Form;
use crate::output::{counted, put, put_bytes, span, table};
use anyhow::Result;
use mutirao_bag::{Bag, TaskView, Work};
use mutirao_wire::bag::Keep;
use serde_json::{Value, json};
use std::fmt::Write;

/// `mutirao bag ls`; `elsewhere` are the rows of bags that were submitted on other machines.
pub fn ls(elsewhere: Vec<Value>, form: Form) -> Result<()> {
    // One that is just being removed, or damaged, is told by `check`.
    let row_here = |place: Place| Some(row(&place, &place.read().ok()?.0));
    let values: Vec<Value> = place::list()?.into_iter().filter_map(row_here).chain(elsewhere).collect();
    if form == Form::Json {
        return put(&format!("{}\n", Value::from(values)));
    }
    let rows: Vec<[String; 8]> = values.iter().map(cells).collect();
    let head = ["BAG", "NAME", "STATE", "TASKS", "DONE", "FAILED", "CANCELLED", "AGE"];
    put(&table(head, [true, false, false, true, true, true, true, false], &rows))
}

/// A bag's row among others.
pub fn row(place: &Place, bag: &Bag) -> Value {
    let mut value = bag_value(place, bag);
    value["state"] = state_word(place, bag).into();
    value
}

/// A row for people; what is not known is a dash.
fn cells(row: &Value) -> [String; 8] {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    };
    let counts = &row["counts"];
    let failed = ["failed", "set_aside", "barred"].map(|what| counts[what].as_u64());
    let failed: Option<u64> = failed.into_iter().sum();
    let age = row["submitted_ms"].as_u64().map(|since| span(place::now_ms().saturating_sub(since) / 1000));
    let called = match &row["at"] {
        Value::String(node) => format!("{}@{node}", row["bag"]),
        _ => row["bag"].to_string(),
    };
    [
        called,
        text(&row["name"]),
        text(&row["state"]),
        text(&row["tasks"]),
        text(&counts["done"]),
        failed.map_or_else(|| "-".into(), |count| count.to_string()),
        text(&counts["cancelled"]),
        age.unwrap_or_else(|| "-".into()),
    ]
}

/// A word for where a bag is.
fn state_word(place: &Place, bag: &Bag) -> &'static str {
    match bag.is_over() {
        true if bag.counts().went_wrong() > 0 => "failed",
        true if bag.counts().cancelled > 0 => "cancelled",
        true => "done",
        false if place.connect().is_some() => "running",
        false if place.is_shared().unwrap_or(false) => "not heard",
        false => "stopped",
    }
}

/// That nobody runs a bag here, and what to do.
pub fn nobody_runs(place: &Place) -> String {
    let bag = place.called();
    match place.kept().ok().flatten().as_ref().map(|keep| &keep.members[..]) {
        Some([here, second, third]) => format!(
            "bag {bag} is not heard here, since `{}` of this machine does not run: `mutirao up` starts it; `{}` and \
             `{}` go on with the bag meanwhile, and can be asked on their machines",
            here.name, second.name, third.name
        ),
        _ => format!("nobody runs bag {bag}: `mutirao bag resume {bag}`"),
    }
}

/// Who keeps a bag, and what becomes of it when they are lost.
pub fn keepers_text(keep: Option<&Keep>) -> String {
    match keep {
        Some(keep) => {
            let name = &keep.members[0].name;
            if let [_, second, third] = &keep.members[..] {
                return format!(
                    "kept by `{name}`, `{}` and `{}`: it goes on while two of them can reach each other; when \
                     another takes over, what runs elsewhere goes on",
                    second.name, third.name
                );
            }
            format!("kept by `{name}` alone: while that node is down the bag waits, and goes on with it")
        }
        None => "kept by no node: when its keeper ends, `mutirao bag resume` goes on with it".into(),
    }
}

/// What a bag is, in short.
pub fn bag_value(place: &Place, bag: &Bag) -> Value {
    let counts = bag.counts();
    json!({
        "bag": place.id, "at": place.origin(), "name": bag.settings().name, "tasks": counts.all(), "counts": counts,
        "submitted_ms": bag.submitted_ms(), "lives": bag.lives(), "scheduler": bag.settings().scheduler,
        "directory": bag.settings().directory,
        "lying_nodes": bag.caught().map(|(_, name)| name).collect::<Vec<_>>(),
    })
}

/// `mutirao bag show`
pub fn show(place: &Place, what: Option<&str>, form: Form) -> Result<()> {
    let (bag, _) = place.read()?;
    let tasks: Vec<u32> = bag.select(what.unwrap_or("all"))?;
    let views = || tasks.iter().filter_map(|task| bag.task(*task));
    if form == Form::Json {
        let mut value = bag_value(place, &bag);
        value["state"] = state_word(place, &bag).into();
        let keep = place.kept()?;
        let members = keep.iter().flat_map(|keep| keep.members.iter().map(|member| member.name.clone()));
        value["kept_by"] = members.collect();
        let standing = control::standing(place).unwrap_or_default();
        value["waits"] =
            control::waits(&standing).map(|(needs, why)| json!({ "needs": needs, "why": why })).collect();
        value["unplaced"] = standing["unplaced"].clone();
        value["task"] = views().map(|view| task_value(&view)).collect();
        return put(&format!("{value}\n"));
    }
    let counts = bag.counts();
    let mut text = format!(
        "bag {} `{}` is {}: {}, {} done, {} to do, {} failed, {} set aside, {} cancelled, {} barred\n",
        place.called(),
        bag.settings().name,
        state_word(place, &bag),
        counted(counts.all(), "task"),
        counts.done,
        counts.open(),
        counts.failed,
        counts.set_aside,
        counts.cancelled,
        counts.barred,
    );
    for (_, name) in bag.caught() {
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "{name} gave a wrong answer to a question whose answer is known: what rests on its word is done again"
        );
    }
    if !bag.is_over() {
        text += &format!("{}\n", keepers_text(place.kept()?.as_ref()));
    }
    if let Some(why) = place.stands_still() {
        let _ = writeln!(text, "{why}");
    }
    if let Some(origin) = place.origin().filter(|_| bag.templates().iter().any(|t| !t.outputs.is_empty())) {
        let _ = writeln!(
            text,
            "result files are put in their places on `{origin}`, in {}",
            bag.settings().directory
        );
    }
    let standing = control::standing(place).unwrap_or_default();
    for (needs, why) in control::waits(&standing) {
        let _ = writeln!(text, "tasks that need {needs} wait: {why}");
    }
    if let Some(why) = control::unplaced(&standing) {
        let _ = writeln!(text, "{why}; it is tried again");
    }
    text += &task_table(views());
    for view in views() {
        let Some(saved) = view.saved else { continue };
        let age = place::now_ms().saturating_sub(saved.at_ms) / 1000;
        let _ = writeln!(
            text,
            "{}.{} saved {} in attempt {}, {} ago",
            view.template.name,
            view.place,
            counted(saved.content.bytes.into(), "byte"),
            saved.attempt,
            span(age)
        );
    }
    put(&text)
}

fn task_table<'a>(views: impl Iterator<Item = TaskView<'a>>) -> String {
    let row = |view: TaskView<'_>| {
        let (node, wall) = match (view.result(), view.evidence) {
            (Some((_, node, cost)), _) => (node.to_owned(), format!("{} ms", cost.wall_ms)),
            (None, Some(evidence)) => (evidence.node.clone(), format!("{} ms", evidence.cost.wall_ms)),
            (None, None) => ("-".into(), "-".into()),
        };
        let why = match view.result() {
            Some(_) => String::new(),
            None => view.evidence.map(|evidence| evidence.end.to_string()).unwrap_or_default(),
        };
        let name = format!("{}.{}", view.template.name, view.place);
        [view.number.to_string(), name, view.verdict.word().into(), node, wall, values_text(&view), why]
    };
    let rows: Vec<[String; 7]> = views.map(row).collect();
    let head = ["TASK", "NAME", "STATE", "NODE", "RAN", "VALUES", "LAST FAILURE"];
    table(head, [true, false, false, false, true, false, false], &rows)
}

fn values_text(view: &TaskView<'_>) -> String {
    let each = view.template.parameters.iter().zip(view.named.values);
    let text: Vec<String> = each.map(|(name, value)| format!("{name}={value}")).collect();
    text.join(" ").chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn task_value(view: &TaskView<'_>) -> Value {
    let each = view.template.parameters.iter().zip(view.named.values);
    let values: serde_json::Map<String, Value> =
        each.map(|(name, value)| (name.clone(), Value::from(&**value))).collect();
    let mut value = json!({
        "task": view.number, "name": format!("{}.{}", view.template.name, view.place),
        "template": view.template.name, "place": view.place, "state": view.verdict.word(), "values": values,
        "failures": view.tries.0, "crashes": view.tries.1, "result": null, "failure": null, "saved": null,
        "agreed": view.voters(),
    });
    if let Some((attempt, node, cost)) = view.result() {
        value["result"] = json!({
            "attempt": attempt, "node": node, "wall_ms": cost.wall_ms, "cpu_ms": cost.cpu_ms, "peak_mib": cost.peak_mib,
        });
    }
    if let Some(saved) = view.saved {
        value["saved"] = json!({
            "attempt": saved.attempt, "bytes": saved.content.bytes, "at_ms": saved.at_ms,
            "worked_ms": saved.worked_ms,
        });
    }
    if let Some(evidence) = view.evidence {
        value["failure"] = json!({
            "attempt": evidence.attempt, "node": evidence.node, "kind": evidence.end.word(),
            "text": evidence.end.to_string(), "wall_ms": evidence.cost.wall_ms, "last_words": evidence.last_words,
        });
    }
    value
}

/// `mutirao bag explain`
pub fn explain(place: &Place, what: &str, form: Form) -> Result<()> {
    let (bag, _) = place.read()?;
    let mut text = String::new();
    let mut values = Vec::new();
    let standing = control::standing(place).unwrap_or_default();
    for task in bag.select(what)? {
        let (Some(view), Some(mut why)) = (bag.task(task), bag.explain(task)) else { continue };
        if view.verdict == mutirao_bag::Verdict::Ready && place.connect().is_none() {
            why = nobody_runs(place);
        }
        let needs = Bag::needs_text(&view.template.needs());
        if view.verdict == mutirao_bag::Verdict::Ready
            && let Some((_, reason)) = control::waits(&standing).find(|(waiting, _)| *waiting == needs)
        {
            why = format!("{why}: {reason}");
        }
        let name = format!("{}.{}", view.template.name, view.place);
        // Writing to a string does not fail.
        let _ = writeln!(text, "{task} ({name}) {}: {why}", view.verdict.word());
        if let Some(evidence) = view.evidence.filter(|evidence| !evidence.last_words.is_empty()) {
            evidence.last_words.lines().for_each(|line| {
                let _ = writeln!(text, "    {line}");
            });
        }
        values.push(json!({ "task": task, "name": name, "state": view.verdict.word(), "why": why }));
    }
    match form {
        Form::Json => put(&format!("{}\n", Value::from(values))),
        Form::Text => put(&text),
    }
}

/// `mutirao bag results`
pub fn results(place: &Place, what: Option<&str>, stderr: bool, form: Form) -> Result<()> {
    let (bag, _) = place.read()?;
    let outputs = Outputs::open(&place.outputs())?;
    for task in bag.select(what.unwrap_or("all"))? {
        let Some(view) = bag.task(task) else { continue };
        let Some((out, err)) = view.outputs() else { continue };
        let bytes = outputs.read(if stderr { err } else { out })?;
        match form {
            Form::Text => put_bytes(&bytes)?,
            Form::Json => {
                let mut value = task_value(&view);
                value["output"] = String::from_utf8_lossy(&bytes).into();
                put(&format!("{value}\n"))?;
            }
        }
    }
    Ok(())
}

/// `mutirao bag export`: the bag's tasks as lines of comma-separated values.
pub fn export(place: &Place, form: Form) -> Result<()> {
    let (bag, _) = place.read()?;
    if form == Form::Json {
        return put(&format!("{}\n", bag.tasks().map(|view| task_value(&view)).collect::<Value>()));
    }
    let mut text =
        "task,name,state,node,attempt,wall_ms,cpu_ms,peak_mib,failures,crashes,failure,values\n".to_owned();
    for view in bag.tasks() {
        let (attempt, node, cost) = match (view.result(), view.evidence) {
            (Some(result), _) => result,
            (None, Some(evidence)) => (evidence.attempt, evidence.node.as_str(), evidence.cost),
            (None, None) => (0, "", Default::default()),
        };
        let failure = view.evidence.map(|evidence| evidence.end.to_string()).unwrap_or_default();
        let name = format!("{}.{}", view.template.name, view.place);
        let _ = writeln!(
            text,
            "{},{},{},{},{attempt},{},{},{},{},{},{},{}",
            view.number,
            csv(&name),
            view.verdict.word(),
            csv(node),
            cost.wall_ms,
            cost.cpu_ms,
            cost.peak_mib,
            view.tries.0,
            view.tries.1,
            csv(&failure),
            csv(&values_text(&view)),
        );
    }
    put(&text)
}

fn csv(text: &str) -> String {
    match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    }
}

/// The list of tasks for people.
pub fn list_text(bag: &Bag) -> String {
    let counts = bag.counts();
    let mut text = format!(
        "# {}: {}, {} done, {} to do, {} failed\n",
        bag.settings().name,
        counted(counts.all(), "task"),
        counts.done,
        counts.open(),
        counts.bad()
    );
    for view in bag.tasks() {
        // Of an ipar application, its own tasks by their own numbers.
        let name = match &view.template.work {
            Work::Ipar { method: mutirao_bag::ipar::Method::Executa, .. } => view.place.to_string(),
            Work::Ipar { method, .. } => method.word().to_owned(),
            _ => format!("{}.{}", view.template.name, view.place),
        };
        let values: Vec<&str> = view.named.values.iter().map(|value| &**value).collect();
        let values: String = values.join(" ").chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let _ = writeln!(text, "{name}\t{}\t{values}", view.verdict.word());
    }
    text
}
