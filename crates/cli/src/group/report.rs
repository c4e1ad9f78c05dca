//! How a group ended, and each of its processes.

use crate::args::Output;
use crate::output::{put, table};
use anyhow::Result;
use mutirao_group::console::Report;
use mutirao_group::master::{End, Outcome};
use serde_json::json;
use std::time::Duration;

/// A process of a group that is over.
#[derive(Debug)]
pub struct Row {
    /// Its name.
    pub process: String,
    /// Where it ran last.
    pub node: String,
    /// How it ended.
    pub end: End,
    /// How often it was started.
    pub starts: u32,
    /// What it used, and its last words, if it could say.
    pub report: Option<Report>,
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
            eprint!("{}", self.table());
        }
        match &self.outcome {
            Outcome::Well => {}
            outcome => eprintln!("mutirao: {}", self.text(outcome)),
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

    fn text(&self, outcome: &Outcome) -> String {
        match outcome {
            Outcome::Well => format!("the group `{}` has ended", self.group),
            Outcome::Stopped(why) => format!("the group `{}` was ended: {why}", self.group),
            Outcome::Failed { rank, end } => {
                let row = &self.rows[*rank as usize];
                let last = row.report.as_ref().map(|report| report.last_words.as_str());
                let last = last.filter(|last| !last.is_empty());
                let words = last.map(|last| format!("; it wrote last:\n{last}")).unwrap_or_default();
                format!(
                    "the group `{}` has ended because of `{}` on node {}: {end}{words}",
                    self.group, row.process, row.node
                )
            }
        }
    }

    fn table(&self) -> String {
        let rows: Vec<[String; 6]> = self
            .rows
            .iter()
            .map(|row| {
                let used = |show: fn(&Report) -> String| row.report.as_ref().map_or_else(|| "-".into(), show);
                [
                    row.process.clone(),
                    row.node.clone(),
                    used(|report| seconds(report.wall_us)),
                    used(|report| seconds(report.cpu_us)),
                    used(|report| crate::output::bytes(report.peak_kib * 1024)),
                    row.end.to_string(),
                ]
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
            outcome @ Outcome::Failed { .. } => ("failed", self.text(outcome)),
            outcome @ Outcome::Stopped(_) => ("stopped", self.text(outcome)),
        };
        let failed = match &self.outcome {
            Outcome::Failed { rank, .. } => Some(self.rows[*rank as usize].process.clone()),
            _ => None,
        };
        json!({
            "group": self.group, "outcome": outcome, "text": text, "failed": failed,
            "wall_s": self.wall.as_secs_f64(), "processes": rows,
        })
    }
}

fn row_json(row: &Row) -> serde_json::Value {
    let (how, code, signal) = match &row.end {
        End::Code(code) => ("exited", Some(*code), None),
        End::Signal(signal) => ("killed", None, Some(*signal)),
        End::OutOfMemory => ("out of memory", None, None),
        End::Ordered => ("ended with its group", None, None),
        End::Lost(_) => ("lost", None, None),
        End::NotStarted(_) => ("not started", None, None),
    };
    let report = row.report.as_ref();
    json!({
        "process": row.process, "node": row.node, "how": how, "code": code, "signal": signal,
        "text": row.end.to_string(), "starts": row.starts,
        "wall_s": report.map(|report| report.wall_us as f64 / 1e6),
        "cpu_s": report.map(|report| report.cpu_us as f64 / 1e6),
        "peak_kib": report.map(|report| report.peak_kib),
        "last_words": report.map(|report| report.last_words.as_str()),
    })
}

fn seconds(us: u64) -> String {
    format!("{:.2}", us as f64 / 1e6)
}
