//! What a task says while it runs: lines of JSON that travel with its result, and count only with it.
//!
//! ```text
//! {"add": {"like": "solve", "values": {"alpha": "0.3"}}}     a task of template `solve`
//! {"add": {"command": "gzip x"}}                             a task like this one, with another command
//! {"tasks": ["a", "b"]}   {"task": 3, "ok": true}   {"end": true}      reports of an ipar application
//! ```

use crate::error::Error;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A task that is to be added, in the words of whoever adds it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Added {
    /// The template whose it is; that of the task which adds it unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub like: Option<String>,
    /// Its values, by the names of the parameters.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub values: BTreeMap<String, String>,
    /// What it does, if not what the template says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<AddedCommand>,
}

/// What an added task does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum AddedCommand {
    /// A text for the shell, taken as it is.
    Shell(String),
    /// A program and its arguments, taken as they are.
    Program(Vec<String>),
}

/// A report to the manager of an ipar application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// `listaTarefas`: these are the tasks, or what this task was split into.
    Tasks(Vec<String>),
    /// `tarefa`: this task was done, or could not be.
    Task {
        /// Its place in the list.
        id: i64,
        /// Whether it was done.
        ok: bool,
    },
    /// `finaliza`: all is joined, or could not be.
    End(bool),
}

impl Said {
    /// The report's name in the original.
    pub fn word(&self) -> &'static str {
        match self {
            Said::Tasks(_) => "listaTarefas",
            Said::Task { .. } => "tarefa",
            Said::End(_) => "finaliza",
        }
    }

    /// The line that says it.
    pub fn line(&self) -> String {
        let value = match self {
            Said::Tasks(tasks) => serde_json::json!({ "tasks": tasks }),
            Said::Task { id, ok } => serde_json::json!({ "task": id, "ok": ok }),
            Said::End(ok) => serde_json::json!({ "end": ok }),
        };
        format!("{value}\n")
    }
}

impl Added {
    /// The line that says it.
    pub fn line(&self) -> String {
        format!("{}\n", serde_json::json!({ "add": self }))
    }
}

/// All that a task has said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Tasks to add, in order.
    pub added: Vec<Added>,
    /// Reports to the manager.
    pub said: Vec<Said>,
}

/// A line as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    add: Option<Added>,
    tasks: Option<Vec<String>>,
    task: Option<i64>,
    ok: Option<bool>,
    end: Option<bool>,
}

impl Report {
    /// The lines that say it, the same for the same report.
    pub fn text(&self) -> String {
        let added = self.added.iter().map(Added::line);
        added.chain(self.said.iter().map(Said::line)).collect()
    }

    /// Reads what a task wrote. A last line without its end is one that the task did not come to write.
    pub fn read(bytes: &[u8]) -> Result<Report, Error> {
        let mut report = Report::default();
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |place| place + 1);
        for (index, line) in bytes[..whole].split(|byte| *byte == b'\n').enumerate() {
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let wrong = |reason: String| Error::Report { line: index + 1, reason };
            let read: Line = serde_json::from_slice(line).map_err(|error| wrong(error.to_string()))?;
            match read {
                Line { add: Some(added), tasks: None, task: None, ok: None, end: None } => {
                    report.added.push(added)
                }
                Line { add: None, tasks: Some(tasks), task: None, ok: None, end: None } => {
                    report.said.push(Said::Tasks(tasks));
                }
                Line { add: None, tasks: None, task: Some(id), ok: Some(ok), end: None } => {
                    report.said.push(Said::Task { id, ok });
                }
                Line { add: None, tasks: None, task: None, ok: None, end: Some(ok) } => {
                    report.said.push(Said::End(ok))
                }
                _ => return Err(wrong("it must be one of `add`, `tasks`, `task` with `ok`, `end`".into())),
            }
        }
        Ok(report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines_say_what_they_were_written_for() {
        let added =
            Added { like: Some("solve".into()), values: [("a".into(), "1".into())].into(), command: None };
        let other = Added { command: Some(AddedCommand::Shell("gzip x".into())), ..Added::default() };
        let said = [Said::Tasks(vec!["x\ny".into()]), Said::Task { id: 3, ok: false }, Said::End(true)];
        let mut text = added.line() + &other.line() + "\n";
        said.iter().for_each(|said| text += &said.line());
        let report = Report::read(text.as_bytes()).unwrap();
        assert_eq!(Report::read(report.text().as_bytes()).unwrap(), report);
        assert_eq!(report.added, [added, other]);
        assert_eq!(report.said, said);
    }

    #[test]
    fn a_line_that_was_not_finished_was_not_said() {
        let text = Said::End(true).line();
        assert_eq!(Report::read(&text.as_bytes()[..text.len() - 1]).unwrap(), Report::default());
    }

    #[test]
    fn nonsense_is_told_with_its_line() {
        for text in
            ["\n{\"end\": 1}\n", "\nx\n", "\n{\"task\": 1}\n", "\n{\"end\": true, \"ok\": true}\n", "\n{}\n"]
        {
            let Err(Error::Report { line, .. }) = Report::read(text.as_bytes()) else { panic!("{text}") };
            assert_eq!(line, 2, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Report::read(&bytes);
        }
    }
}
