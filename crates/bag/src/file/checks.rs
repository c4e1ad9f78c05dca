//! How results are checked: the table `results`, and known answers of a task.

use super::Load;
use super::node::{Node, Wrong};
use crate::checks::{Checks, content_hash, millionths};
use crate::template::{Known, Template};
use crate::words::Named;

/// Known answers of one task.
const KNOWN_MAX: usize = 1000;

pub(super) fn read(checks: &mut Checks, node: Node<'_>) -> Result<(), Wrong> {
    let mut table = node.table("`results`")?;
    if let Some(accept) = table.take("accept") {
        checks.accept = accept.text()?.parse().map_err(|reason: String| accept.wrong(reason))?;
    }
    if let Some(part) = table.take("spot_checks") {
        let read = part.as_number().and_then(millionths).filter(|part| *part < 1_000_000);
        checks.spot_millionths =
            read.ok_or_else(|| part.wrong("this must be a part from 0 to less than 1, such as 0.05"))?;
    }
    if let Some(part) = table.take("liars") {
        let read = part.as_number().and_then(millionths).filter(|part| (1..500_000).contains(part));
        checks.liars_millionths =
            read.ok_or_else(|| part.wrong("this must be a part above 0 and below 0.5, such as 0.1"))?;
    }
    table.finish("`results`")
}

/// Values whose result is known: `{ values = { n = 7 }, stdout = "49\n", outputs = { "out.txt" = "right.txt" } }`.
pub(super) fn known(
    node: Option<Node<'_>>,
    template: &Template,
    load: Load<'_>,
) -> Result<Vec<Known>, Wrong> {
    let Some(node) = node else { return Ok(Vec::new()) };
    let list = node.list()?;
    if list.len() > KNOWN_MAX {
        return Err(node.wrong(format!("these are more than {KNOWN_MAX} known answers")));
    }
    list.iter().map(|node| one(node, template, load)).collect()
}

fn one(node: &Node<'_>, template: &Template, load: Load<'_>) -> Result<Known, Wrong> {
    let mut table = node.clone().table("a known answer")?;
    let values: Vec<Box<str>> = match table.take("values") {
        None => Vec::new(),
        Some(values) => {
            let mut values = values.table("`values`")?;
            let value = |name: &String| {
                let value = values.require(name, &format!("a value of `{name}` is missing"))?;
                Ok(value.scalar()?.into())
            };
            let read = template.parameters.iter().map(value).collect::<Result<_, _>>()?;
            values.finish("this task")?;
            read
        }
    };
    if values.len() != template.parameters.len() {
        let names = template.parameters.join(", ");
        return Err(node.wrong(format!("a known answer has `values` of the task's parameters: {names}")));
    }
    let stdout = table.take("stdout").map(|text| text.text().map(str::to_owned)).transpose()?;
    let mut outputs = table.take("outputs").map(|node| node.table("`outputs`")).transpose()?;
    table.finish("a known answer")?;
    let named = Named { task: 0, values: &values };
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    for output in &template.outputs {
        let name = output.there.fill(&named);
        let file = outputs.as_mut().and_then(|outputs| outputs.take(&name));
        let Some(file) = file else {
            return Err(node.wrong(format!("`outputs` names no file that is as `{name}` must be")));
        };
        files.push((name, load(file.text()?).map_err(|why| file.wrong(why))?));
    }
    if let Some(outputs) = &outputs {
        outputs.finish("`outputs` of this task")?;
    }
    if stdout.is_none() && files.is_empty() {
        return Err(node.wrong("a known answer says what the task writes: `stdout`, `outputs` or both"));
    }
    let parts = files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice()));
    let result = content_hash(stdout.unwrap_or_default().as_bytes(), parts, "");
    Ok(Known { values, result })
}
