//! The values that make many tasks of one template.

use super::Load;
use super::node::{Node, Table, Wrong};
use crate::limits::{TASKS_MAX, VALUE_BYTES_MAX};
use crate::words::is_name;

/// Each axis has rows of the values of its parameters; a task is one row of each.
#[derive(Debug, Default)]
pub(super) struct Axes {
    axes: Vec<Axis>,
    at: usize,
}

#[derive(Debug)]
struct Axis {
    names: Vec<String>,
    rows: Vec<Vec<Box<str>>>,
}

impl Axes {
    pub(super) fn read(task: &mut Table<'_>, load: Load<'_>) -> Result<Axes, Wrong> {
        let mut axes = Axes { axes: Vec::new(), at: task.at };
        if let Some(grid) = task.take("grid") {
            for (name, node) in grid.table("`grid`")?.entries() {
                let rows = values(&node)?.into_iter().map(|value| vec![value]).collect();
                axes.push(name.at, vec![name.text.into_owned()], rows)?;
            }
        }
        if let Some(array) = task.take("array") {
            axes.push_array(&array)?;
        }
        if let Some(lines) = task.take("lines") {
            let bytes = load(lines.text()?).map_err(|why| lines.wrong(why))?;
            let text = String::from_utf8(bytes).map_err(|_| lines.wrong("this file is no text"))?;
            let rows = text.lines().filter(|line| !line.is_empty()).map(|line| vec![line.into()]).collect();
            axes.push(task.at, vec!["line".into()], rows)?;
        }
        if let Some(repeat) = task.take("repeat") {
            let count = repeat.number(1, TASKS_MAX as i64)?;
            let rows = (1..=count).map(|number| vec![number.to_string().into()]).collect();
            axes.push(task.at, vec!["repeat".into()], rows)?;
        }
        Ok(axes)
    }

    fn push_array(&mut self, array: &Node<'_>) -> Result<(), Wrong> {
        let columns: Vec<_> = array.clone().table("`array`")?.entries().collect();
        let mut names = Vec::new();
        let mut rows: Vec<Vec<Box<str>>> = Vec::new();
        let Some((first, _)) = columns.first() else { return Err(array.wrong("it names no parameter")) };
        let at = first.at;
        for (index, (name, node)) in columns.into_iter().enumerate() {
            let column = values(&node)?;
            if index == 0 {
                rows.resize_with(column.len(), Vec::new);
            }
            if column.len() != rows.len() {
                let (name, here, others) = (&name.text, column.len(), rows.len());
                return Err(node.wrong(format!(
                    "all lists of an array are of one length: `{name}` has {here}, those before have {others}"
                )));
            }
            names.push(name.text.into_owned());
            rows.iter_mut().zip(column).for_each(|(row, value)| row.push(value));
        }
        self.push(at, names, rows)
    }

    fn push(&mut self, at: usize, names: Vec<String>, rows: Vec<Vec<Box<str>>>) -> Result<(), Wrong> {
        for name in &names {
            if !is_name(name) {
                return Err(Wrong {
                    at,
                    reason: format!("`{name}` is no name of a parameter: letters, digits and _"),
                });
            }
            if self.axes.iter().any(|axis| axis.names.contains(name)) || name == "task" {
                return Err(Wrong { at, reason: format!("there are two parameters `{name}`") });
            }
        }
        if rows.is_empty() {
            return Err(Wrong {
                at,
                reason: format!("`{}` has no value, so there would be no task", names.join(", ")),
            });
        }
        self.axes.push(Axis { names, rows });
        Ok(())
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.axes.iter().flat_map(|axis| axis.names.iter().cloned()).collect()
    }

    /// All combinations, the last axis turning fastest.
    pub(super) fn rows(&self, mut each: impl FnMut(Vec<Box<str>>)) -> Result<(), Wrong> {
        let count = self.axes.iter().try_fold(1usize, |count, axis| count.checked_mul(axis.rows.len()));
        let Some(count) = count.filter(|count| *count <= TASKS_MAX) else {
            return Err(Wrong { at: self.at, reason: format!("these are more than {TASKS_MAX} tasks") });
        };
        for number in 0..count {
            let mut rest = number;
            let mut chosen: Vec<&[Box<str>]> = Vec::with_capacity(self.axes.len());
            for axis in self.axes.iter().rev() {
                chosen.push(&axis.rows[rest % axis.rows.len()]);
                rest /= axis.rows.len();
            }
            let values: Vec<Box<str>> = chosen.into_iter().rev().flatten().cloned().collect();
            let bytes: usize = values.iter().map(|value| value.len()).sum();
            if bytes > VALUE_BYTES_MAX {
                let reason = format!(
                    "the values of a task have {bytes} bytes, at most {VALUE_BYTES_MAX} are possible"
                );
                return Err(Wrong { at: self.at, reason });
            }
            each(values);
        }
        Ok(())
    }
}

/// A list of values, or `{from, to, step}`, both ends included.
fn values(node: &Node<'_>) -> Result<Vec<Box<str>>, Wrong> {
    if let Some(list) = node.as_list() {
        return list.iter().map(|value| Ok(value.scalar()?.into())).collect();
    }
    let Some(mut span) = node.as_table() else {
        return Err(node.wrong("this must be a list of values, or { from = 1, to = 9, step = 2 }"));
    };
    let from = span.require("from", "a range needs `from`")?;
    let to = span.require("to", "a range needs `to`")?;
    let step = span.take("step");
    span.finish("a range")?;
    let written = [Some(&from), Some(&to), step.as_ref()];
    let fraction =
        |node: &Node<'_>| node.as_number().map_or(0, |text| text.split_once('.').map_or(0, |(_, f)| f.len()));
    let digits = written.iter().flatten().map(|node| fraction(node)).max().unwrap_or(0).min(9);
    // Whole multiples of the last digit, so that 0.1 three times is 0.3.
    let scale = 10f64.powi(digits as i32);
    let whole = |node: &Node<'_>| {
        let number = node.as_number().and_then(|text| text.replace('_', "").parse::<f64>().ok());
        let number = number.map(|number| (number * scale).round()).filter(|number| number.abs() < 9e15);
        number.map(|number| number as i64).ok_or_else(|| node.wrong("this must be a number"))
    };
    let (from_whole, to_whole) = (whole(&from)?, whole(&to)?);
    let step_whole = step.as_ref().map_or(Ok(scale as i64), whole)?;
    if step_whole <= 0 {
        return Err(step.unwrap_or(from).wrong("a step is greater than 0"));
    }
    if from_whole > to_whole {
        return Err(from.wrong("`from` is greater than `to`"));
    }
    let count = (to_whole - from_whole) / step_whole + 1;
    if count > TASKS_MAX as i64 {
        return Err(from.wrong(format!("these are more than {TASKS_MAX} values")));
    }
    let value = |index: i64| {
        let number = (from_whole + index * step_whole) as f64 / scale;
        format!("{number:.digits$}").into()
    };
    Ok((0..count).map(value).collect())
}
