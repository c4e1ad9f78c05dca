//! How a group ended, and each of its processes.

use super::row;
use crate::args::Output;
use crate::output::remark;
use crate::output::{put, table};
use anyhow::Result;
use mutirao_group::master::Outcome;
use mutirao_wire::query::ProcessRow;
use serde_json::json;
use std::time::Duration;

/// Between how a process ended and its last words.
pub const WROTE_LAST: &str = "; it wrote last:";

/// A process of a group that is over.
#[derive(Debug)]
pub struct Row {
    /// How it ended.
    pub process: ProcessRow,
    /// What it wrote last, if it could say.
    pub last_words: Option<String>,
}

/// A group that is over.
#[derive(Debug)]
pub struct Ending {
    /// Its name.
    pub group: String,
    /// How it ended.
    pub outcome: Outcome,
    /// The signal that stopped it, if one did.
    pub signal: Option<i32>,
    /// How long it ran.
    pub wall: Duration,
    /// Its processes, by rank.
    pub rows: Vec<Row>,
}

impl Ending {
    /// Tells people, or programs.
    pub fn tell(&self, output: Output, quiet: bool) -> Result<()> {
        if output == Output::Json {
            return put(&format!("{}\n", self.json()));
        }
        if !quiet {
            remark!("{}", self.table().trim_end());
        }
        if self.outcome != Outcome::Well {
            remark!("mutirao: {}", self.text());
        }
        Ok(())
    }

    /// As a shell would see it: the exit code of the process that failed, or 128 and a signal.
    pub fn code(&self) -> u8 {
        match &self.outcome {
            Outcome::Well => 0,
            Outcome::Failed { end, .. } => end.code(),
            Outcome::Stopped(_) => self.signal.map_or(1, |signal| (128 + signal) as u8),
        }
    }

    /// How it ended, for people.
    pub fn text(&self) -> String {
        match &self.outcome {
            Outcome::Well => format!("the group `{}` has ended", self.group),
            Outcome::Stopped(why) => format!("the group `{}` was ended: {why}", self.group),
            Outcome::Failed { rank, end } => {
                let row = &self.rows[*rank as usize];
                let last = row.last_words.as_ref().filter(|last| !last.is_empty());
                let words = last.map(|last| format!("{WROTE_LAST}\n{last}")).unwrap_or_default();
                format!(
                    "the group `{}` has ended because of `{}` on node {}: {end}{words}",
                    self.group, row.process.process, row.process.node
                )
            }
        }
    }

    fn table(&self) -> String {
        let rows: Vec<[String; 6]> = self
            .rows
            .iter()
            .map(|Row { process, .. }| {
                let [ran, cpu, memory] = row::used(process);
                let end = process.end.as_ref().map(|end| end.text.clone()).unwrap_or_default();
                [process.process.clone(), process.node.clone(), ran, cpu, memory, end]
            })
            .collect();
        table(
            ["PROCESS", "NODE", "RAN s", "CPU s", "MEMORY", "END"],
            [false, false, true, true, true, false],
            &rows,
        )
    }

    fn json(&self) -> serde_json::Value {
        let rows: Vec<serde_json::Value> = self.rows.iter().map(row_json).collect();
        let (outcome, text) = match &self.outcome {
            Outcome::Well => ("well", String::new()),
            Outcome::Failed { .. } => ("failed", self.text()),
            Outcome::Stopped(_) => ("stopped", self.text()),
        };
        let failed = match &self.outcome {
            Outcome::Failed { rank, .. } => Some(self.rows[*rank as usize].process.process.clone()),
            _ => None,
        };
        json!({
            "group": self.group, "outcome": outcome, "text": text, "failed": failed,
            "wall_s": self.wall.as_secs_f64(), "processes": rows,
        })
    }
}

fn row_json(row: &Row) -> serde_json::Value {
    let mut value = row::json(&row.process);
    value["last_words"] = json!(row.last_words);
    value
}
