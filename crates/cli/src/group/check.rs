//! `mutirao group check`

use super::file::File;
use crate::args::Output;
use crate::output::put;
use crate::output::remark;
use anyhow::Result;
use clap::{Args, ValueEnum};
use mutirao_group::{Application, Problem, draw};
use serde_json::json;
use std::path::PathBuf;

/// Options of `group check`.
#[derive(Debug, Args)]
#[command(after_help = "\
All that is wrong is told at once, a line each: `FILE:LINE:COLUMN: what`. The exit code is then 1.

Examples:
  mutirao group check mandel.app
  mutirao group check mandel.app --draw text
  mutirao group check mandel.app --draw svg > mandel.svg
  mutirao group check mandel.app --draw dot | dot -Tpdf > mandel.pdf")]
pub struct CheckArgs {
    /// The application file
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Draw the wiring
    #[arg(long, value_enum, value_name = "FORM")]
    pub draw: Option<Drawing>,
}

/// How a wiring is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Drawing {
    /// Lines of text
    Text,
    /// Graphviz
    Dot,
    /// A picture
    Svg,
}

/// Checks a file; the exit code.
pub fn run(args: &CheckArgs, output: Output) -> Result<u8> {
    let file = File::open(&args.file)?;
    let checked = file.application();
    if output == Output::Json {
        put(&format!("{}\n", summary(&checked)))?;
    } else if let Err(problems) = &checked {
        problems.iter().for_each(|problem| remark!("{}", file.line(problem)));
    }
    let Ok(application) = checked else { return Ok(1) };
    match args.draw {
        None if output == Output::Text => {
            let (processes, channels) = (application.processes.len(), application.channels.len());
            remark!("`{}` is in order: {processes} processes, {channels} channels", args.file.display());
        }
        None => {}
        Some(Drawing::Text) => put(&draw::text(&application))?,
        Some(Drawing::Dot) => put(&draw::dot(&application))?,
        Some(Drawing::Svg) => put(&draw::svg(&application))?,
    }
    Ok(0)
}

fn summary(checked: &Result<Application, Vec<Problem>>) -> serde_json::Value {
    let problem = |problem: &Problem| {
        let at = problem.at;
        json!({ "line": at.line, "column": at.column, "text": problem.mistake.to_string() })
    };
    let (problems, processes, channels) = match checked {
        Ok(application) => (Vec::new(), application.processes.len(), application.channels.len()),
        Err(problems) => (problems.iter().map(problem).collect(), 0, 0),
    };
    json!({ "problems": problems, "processes": processes, "channels": channels })
}
