//! Drawings of a wiring: text, Graphviz, SVG.

use crate::application::{Application, Channel, End};
use crate::plan::{Mode, Shape};
use std::fmt::Write;

pub use crate::svg::svg;

/// The processes with where each of their output channels leads.
pub fn text(application: &Application) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    for (process, rank) in application.processes.iter().zip(0..) {
        let station = process.station.as_deref().map(|station| format!(" on {station}")).unwrap_or_default();
        let _ = writeln!(out, "{process}{station}");
        let mut rows: Vec<(u32, String)> = Vec::new();
        for channel in &application.channels {
            for output in channel.outputs.iter().filter(|output| output.rank == rank) {
                let to: Vec<String> = channel.inputs.iter().map(|end| end_text(application, *end)).collect();
                rows.push((output.port, format!("{}{}", to.join(" | "), remark(channel))));
            }
        }
        rows.sort_unstable();
        for (i, (port, to)) in rows.iter().enumerate() {
            let joint = if i + 1 == rows.len() { "└─" } else { "├─" };
            let _ = writeln!(out, "{joint} {port} ─▶ {to}");
        }
    }
    out
}

/// A graph in Graphviz's language: processes, by station where those are named, and an edge for each joined pair.
pub fn dot(application: &Application) -> String {
    let mut out = String::from("digraph group {\n  rankdir=LR;\n  node [shape=box, style=rounded];\n");
    let nodes = |station: Option<&str>, indent: &str, out: &mut String| {
        for process in application.processes.iter().filter(|one| one.station.as_deref() == station) {
            let _ = writeln!(out, "{indent}\"{process}\";");
        }
    };
    for station in &application.stations {
        let _ = writeln!(out, "  subgraph \"cluster_{station}\" {{\n    label=\"{station}\";");
        nodes(Some(station), "    ", &mut out);
        out += "  }\n";
    }
    nodes(None, "  ", &mut out);
    for channel in &application.channels {
        for (output, input) in pairs(channel) {
            let [from, to] = [output, input].map(|end| &application.processes[end.rank as usize]);
            let style = match channel.mode {
                Some(Mode::Async) => ", style=dashed",
                _ => "",
            };
            let _ = writeln!(
                out,
                "  \"{from}\" -> \"{to}\" [taillabel=\"{}\", headlabel=\"{}\"{style}];",
                output.port, input.port
            );
        }
    }
    out + "}\n"
}

/// Each output of a channel with each input.
pub(crate) fn pairs(channel: &Channel) -> impl Iterator<Item = (End, End)> {
    channel.outputs.iter().flat_map(|output| channel.inputs.iter().map(|input| (*output, *input)))
}

fn end_text(application: &Application, end: End) -> String {
    format!("{}:{}", application.processes[end.rank as usize], end.port)
}

fn remark(channel: &Channel) -> &'static str {
    match (channel.shape(), channel.mode) {
        (Shape::OneToMany, Some(Mode::Sync)) => "  (whoever asks first; synchronous)",
        (Shape::OneToMany, Some(Mode::Async)) => "  (whoever asks first; asynchronous)",
        (Shape::OneToMany, None) => "  (whoever asks first)",
        (_, Some(Mode::Sync)) => "  (synchronous)",
        (_, Some(Mode::Async)) => "  (asynchronous)",
        (_, None) => "",
    }
}
