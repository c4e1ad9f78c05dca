//! A wiring as a picture: processes on a circle, an arrow for each joined pair of ends.

use crate::application::Application;
use crate::draw::pairs;
use crate::plan::Mode;
use core::f64::consts::TAU;
use std::fmt::Write;

const BOX: f64 = 26.0;
/// Width of a character and of the space beside a label, at the size of the text below.
const CHAR: f64 = 7.3;
const PAD: f64 = 18.0;
const MARGIN: f64 = 30.0;
/// Space between two processes on the circle.
const GAP: f64 = 34.0;

/// The picture.
pub fn svg(application: &Application) -> String {
    let labels: Vec<String> = application.processes.iter().map(ToString::to_string).collect();
    let widths: Vec<f64> = labels.iter().map(|label| label.chars().count() as f64 * CHAR + PAD).collect();
    let widest = widths.iter().copied().fold(BOX, f64::max);
    let count = labels.len() as f64;
    let radius = (count * (widest + GAP) / TAU).max(widest * 1.2);
    let (width, height) = (2.0 * (radius + MARGIN) + widest, 2.0 * (radius + MARGIN) + BOX);
    let spot = |rank: usize| {
        let angle = TAU * rank as f64 / count - TAU / 4.0;
        (width / 2.0 + radius * angle.cos(), height / 2.0 + radius * angle.sin())
    };
    let mut edges = String::new();
    let mut nodes = String::new();
    // Writing to a string does not fail.
    for channel in &application.channels {
        let class = if channel.mode == Some(Mode::Async) { " class=\"async\"" } else { "" };
        for (output, input) in pairs(channel) {
            let (from, to) = (output.rank as usize, input.rank as usize);
            let (start, end) = (spot(from), spot(to));
            // To one side, so that the way back is another line.
            let (dx, dy) = (end.0 - start.0, end.1 - start.1);
            let bend = ((start.0 + end.0) / 2.0 - dy * 0.12, (start.1 + end.1) / 2.0 + dx * 0.12);
            let (x, y) = rim(start, bend, widths[from]);
            let (tx, ty) = rim(end, bend, widths[to]);
            let _ = writeln!(
                edges,
                "<path{class} d=\"M{x:.1} {y:.1}Q{:.1} {:.1} {tx:.1} {ty:.1}\"><title>{}:{} to {}:{}</title></path>",
                bend.0, bend.1, labels[from], output.port, labels[to], input.port
            );
        }
    }
    for (rank, label) in labels.iter().enumerate() {
        let ((x, y), w) = (spot(rank), widths[rank]);
        let station = application.processes[rank].station.as_deref();
        let title = station.map(|station| format!("<title>{station}</title>")).unwrap_or_default();
        let _ = writeln!(
            nodes,
            "<g>{title}<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{w:.1}\" height=\"{BOX}\" rx=\"5\"/>\
             <text x=\"{x:.1}\" y=\"{:.1}\">{label}</text></g>",
            x - w / 2.0,
            y - BOX / 2.0,
            y + 4.3,
        );
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
         viewBox=\"0 0 {width:.0} {height:.0}\">\n<style>\n\
         path {{ fill: none; stroke: #4a6076; stroke-width: 1.3; marker-end: url(#tip) }}\n\
         .async {{ stroke-dasharray: 5 3 }}\n\
         rect {{ fill: #f4f7fb; stroke: #4a6076; stroke-width: 1.2 }}\n\
         text {{ font: 12px 'DejaVu Sans Mono', monospace; text-anchor: middle; fill: #1c2733 }}\n\
         </style>\n<defs><marker id=\"tip\" markerWidth=\"8\" markerHeight=\"8\" refX=\"7\" refY=\"3\" orient=\"auto\">\
         <path d=\"M0 0L7 3L0 6z\" style=\"fill: #4a6076; stroke: none; marker-end: none\"/></marker></defs>\n\
         <rect width=\"100%\" height=\"100%\" style=\"fill: #fff; stroke: none\"/>\n{edges}{nodes}</svg>\n"
    )
}

/// Where the line from the middle of a box towards `to` leaves the box.
fn rim(middle: (f64, f64), to: (f64, f64), width: f64) -> (f64, f64) {
    let (dx, dy) = (to.0 - middle.0, to.1 - middle.1);
    let across = if dx == 0.0 { f64::INFINITY } else { width / 2.0 / dx.abs() };
    let up = if dy == 0.0 { f64::INFINITY } else { BOX / 2.0 / dy.abs() };
    let part = across.min(up).min(1.0);
    (middle.0 + dx * part, middle.1 + dy * part)
}
