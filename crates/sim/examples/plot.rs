//! Draws the figures of `mutirao sim --output json` as SVG.
//!
//! ```sh
//! mutirao sim --nodes 1000 --output json > figures.json      # and other sizes, fan-outs and loads
//! cargo run -p mutirao-sim --example plot -- docs < figures.json
//! ```

use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::BufRead;

const COLOURS: [&str; 6] = ["#1b6ca8", "#d1495b", "#2e8b57", "#8a5fbf", "#c98500", "#555555"];
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 400.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 190.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;

/// Lines over a logarithmic height; the width is logarithmic too if `log_x`.
struct Chart {
    title: &'static str,
    x: &'static str,
    y: &'static str,
    log_x: bool,
    lines: BTreeMap<String, Vec<(f64, f64)>>,
}

/// The fan-out of those figures that are drawn by size and slots.
const FAN_OUT: f64 = 16.0;
/// The slots of those that are drawn by fan-out.
const FAN_OUT_SLOTS: f64 = 512.0;

/// Spaces sort the numbers.
fn fan_out_name(fan_out: f64) -> String {
    format!("{:>16}", format!("fan-out {fan_out}"))
}

fn decades(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (least, most) = values.fold((f64::MAX, f64::MIN), |(a, b), v| (a.min(v), b.max(v)));
    (least.log10().floor(), most.log10().ceil().max(least.log10().floor() + 1.0))
}

fn short(value: f64) -> String {
    match value {
        v if v >= 1e6 => format!("{}M", v / 1e6),
        v if v >= 1e3 => format!("{}k", v / 1e3),
        v => format!("{v}"),
    }
}

impl Chart {
    fn svg(&self) -> String {
        let points = || self.lines.values().flatten();
        let (low, high) = decades(points().map(|p| p.1));
        let (left, right) = if self.log_x {
            decades(points().map(|p| p.0))
        } else {
            points().fold((f64::MAX, f64::MIN), |(a, b), p| (a.min(p.0), b.max(p.0)))
        };
        let x = |v: f64| {
            let v = if self.log_x { v.log10() } else { v };
            LEFT + (v - left) / (right - left) * (WIDTH - LEFT - RIGHT)
        };
        let y = |v: f64| HEIGHT - BOTTOM - (v.log10() - low) / (high - low) * (HEIGHT - TOP - BOTTOM);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
             <text x=\"{LEFT}\" y=\"22\" font-size=\"14\">{}</text>\n",
            self.title
        );
        for step in 0..=(high - low) as i32 {
            let value = 10f64.powf(low + f64::from(step));
            let at = y(value);
            let _ = writeln!(
                svg,
                "<path d=\"M{LEFT} {at:.1}H{:.1}\" stroke=\"#ddd\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 6.0,
                at + 4.0,
                short(value)
            );
        }
        let mut marks: Vec<f64> = points().map(|p| p.0).collect();
        marks.sort_by(f64::total_cmp);
        marks.dedup();
        for mark in marks {
            let at = x(mark);
            let _ = writeln!(
                svg,
                "<path d=\"M{at:.1} {TOP}V{:.1}\" stroke=\"#eee\"/><text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                HEIGHT - BOTTOM,
                HEIGHT - BOTTOM + 16.0,
                short(mark)
            );
        }
        let middle = LEFT + (WIDTH - LEFT - RIGHT) / 2.0;
        let _ = writeln!(
            svg,
            "<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n\
             <text transform=\"translate(16 {}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            HEIGHT - 12.0,
            self.x,
            HEIGHT / 2.0,
            self.y
        );
        for (number, (name, line)) in self.lines.iter().enumerate() {
            let colour = COLOURS[number % COLOURS.len()];
            let mut line = line.clone();
            line.sort_by(|a, b| a.0.total_cmp(&b.0));
            let path: Vec<String> = line.iter().map(|(a, b)| format!("{:.1} {:.1}", x(*a), y(*b))).collect();
            let _ = writeln!(
                svg,
                "<path d=\"M{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
                path.join("L")
            );
            for (a, b) in &line {
                let _ = writeln!(
                    svg,
                    "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{colour}\"/>",
                    x(*a),
                    y(*b)
                );
            }
            let label = TOP + 14.0 + 18.0 * number as f64;
            let at = WIDTH - RIGHT + 12.0;
            let _ = writeln!(
                svg,
                "<path d=\"M{at} {:.1}h16\" stroke=\"{colour}\" stroke-width=\"2\"/><text x=\"{}\" y=\"{label}\">{}</text>",
                label - 4.0,
                at + 22.0,
                name.trim_start_matches(' ')
            );
        }
        svg + "</svg>\n"
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let place = std::env::args().nth(1).ok_or("usage: plot DIRECTORY < figures.json")?;
    let chart = |title, x, y, log_x| Chart { title, x, y, log_x, lines: BTreeMap::new() };
    let mut time = chart("Time to allocate k slots, links of 50 us", "nodes", "microseconds (median)", true);
    let mut messages = chart("Messages to allocate k slots", "nodes", "messages", true);
    let mut wide_time =
        chart("Time to allocate 512 slots, links of 50 us", "nodes", "microseconds (median)", true);
    let mut wide_messages = chart("Messages to allocate 512 slots", "nodes", "messages", true);
    let mut memory = chart("Memory of the simulation, a node", "nodes", "bytes", true);
    let mut waits = chart("Time to get 8 slots, 99th percentile", "load, per cent", "milliseconds", false);
    for line in std::io::stdin().lock().lines() {
        let row: Value = serde_json::from_str(&line?)?;
        let number = |name: &str| row[name].as_f64().filter(|value| *value > 0.0);
        match row["name"].as_str() {
            Some("allocate") => {
                let (Some(nodes), Some(slots)) = (number("nodes"), number("slots")) else { continue };
                if let (Some(fan_out), true) = (number("fan_out"), slots == FAN_OUT_SLOTS) {
                    let name = fan_out_name(fan_out);
                    for (chart, value) in [(&mut wide_time, "p50_us"), (&mut wide_messages, "messages")] {
                        chart
                            .lines
                            .entry(name.clone())
                            .or_default()
                            .extend(number(value).map(|y| (nodes, y)));
                    }
                }
                if number("fan_out").is_some_and(|fan_out| fan_out != FAN_OUT) {
                    continue;
                }
                // Spaces sort the sizes.
                let name = format!("{:>12}", format!("k = {slots}"));
                if let Some(us) = number("p50_us") {
                    time.lines.entry(name.clone()).or_default().push((nodes, us));
                }
                if let Some(count) = number("messages") {
                    messages.lines.entry(name).or_default().push((nodes, count));
                }
            }
            Some("formation") => {
                if let (Some(nodes), Some(fan_out)) = (number("nodes"), number("fan_out")) {
                    let bytes = number("resident_bytes_per_node").map(|bytes| (nodes, bytes));
                    memory.lines.entry(fan_out_name(fan_out)).or_default().extend(bytes);
                }
            }
            Some("load") => {
                let name = row["served_by"].as_str().unwrap_or_default().to_owned();
                if let (Some(load), Some(ms)) = (number("load_percent"), number("p99_ms")) {
                    waits.lines.entry(name).or_default().push((load, ms));
                }
            }
            _ => {}
        }
    }
    for (name, chart) in [
        ("sim-time", time),
        ("sim-messages", messages),
        ("sim-fan-out-time", wide_time),
        ("sim-fan-out-messages", wide_messages),
        ("sim-memory", memory),
        ("sim-load", waits),
    ] {
        if !chart.lines.is_empty() {
            std::fs::write(format!("{place}/{name}.svg"), chart.svg())?;
        }
    }
    Ok(())
}
