//! Draws the figures of `mutirao sim bags --by ... --output json` as SVG.
//!
//! ```sh
//! mutirao sim bags --by task-size --output json > figures.json
//! cargo run -p mutirao-sim --example plot_bags -- docs < figures.json
//! ```

use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::BufRead;

const COLOURS: [&str; 6] = ["#1b6ca8", "#d1495b", "#2e8b57", "#8a5fbf", "#c98500", "#555555"];
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 180.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;

/// A line for each scheduler over the groups, which stand at equal distances.
struct Chart {
    title: String,
    x: String,
    groups: Vec<f64>,
    /// In the order in which they were told.
    lines: Vec<(String, Vec<f64>)>,
    least: f64,
    percent: bool,
}

impl Chart {
    fn svg(&self) -> String {
        let most = self.lines.iter().flat_map(|(_, values)| values).copied().fold(self.least, f64::max);
        let step = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];
        let step = step.into_iter().find(|step| (most - self.least) / step <= 6.0).unwrap_or(20.0);
        let steps = ((most - self.least) / step).ceil().max(1.0);
        let width = (WIDTH - LEFT - RIGHT) / (self.groups.len() as f64 - 1.0).max(1.0);
        let x = |at: usize| LEFT + width * at as f64;
        let y =
            |value: f64| HEIGHT - BOTTOM - (value - self.least) / (steps * step) * (HEIGHT - TOP - BOTTOM);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
             <text x=\"{LEFT}\" y=\"22\" font-size=\"14\">{}</text>\n",
            self.title
        );
        for line in 0..=steps as usize {
            let value = self.least + step * line as f64;
            let text = if self.percent { format!("{:.0} %", value * 100.0) } else { format!("{value:.2}") };
            let (right, y) = (WIDTH - RIGHT, y(value));
            let _ = writeln!(
                svg,
                "<path d=\"M{LEFT} {y:.1}H{right}\" stroke=\"#ddd\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>",
                LEFT - 6.0,
                y + 4.0
            );
        }
        for (at, group) in self.groups.iter().enumerate() {
            let y = HEIGHT - BOTTOM + 18.0;
            let _ = writeln!(svg, "<text x=\"{:.1}\" y=\"{y}\" text-anchor=\"middle\">{group}</text>", x(at));
        }
        let _ = writeln!(svg, "<text x=\"{LEFT}\" y=\"{}\">{}</text>", HEIGHT - 12.0, self.x);
        for (number, (name, values)) in self.lines.iter().enumerate() {
            let colour = COLOURS[number % COLOURS.len()];
            let dash = if number >= COLOURS.len() { " stroke-dasharray=\"4 3\"" } else { "" };
            let points: Vec<String> = values
                .iter()
                .enumerate()
                .map(|(at, value)| format!("{:.1},{:.1}", x(at), y(*value)))
                .collect();
            let _ = writeln!(
                svg,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"{dash}/>",
                points.join(" ")
            );
            for point in points.iter().filter_map(|point| point.split_once(',')) {
                let _ = writeln!(
                    svg,
                    "<circle cx=\"{}\" cy=\"{}\" r=\"3\" fill=\"{colour}\"/>",
                    point.0, point.1
                );
            }
            let (left, top) = (WIDTH - RIGHT + 20.0, TOP + 20.0 * number as f64);
            let _ = writeln!(
                svg,
                "<path d=\"M{left} {top}h20\" stroke=\"{colour}\" stroke-width=\"2\"{dash}/>\
                 <text x=\"{}\" y=\"{}\">{name}</text>",
                left + 26.0,
                top + 4.0
            );
        }
        svg + "</svg>\n"
    }
}

fn main() {
    let directory = std::env::args().nth(1).unwrap_or_else(|| ".".into());
    let mut figures: BTreeMap<(String, String), Vec<Value>> = BTreeMap::new();
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let Ok(row) = serde_json::from_str::<Value>(&line) else { continue };
        if let (Some("bags"), Some(study), Some(by)) =
            (row["name"].as_str(), row["study"].as_str(), row["by"].as_str())
        {
            figures.entry((study.into(), by.into())).or_default().push(row);
        }
    }
    for ((study, by), rows) in figures {
        let figures = [
            ("time", "to_best", "Makespan against the best scheduler of each bag", 1.0, false),
            ("cpu", "wasted_work", "Work wasted on copies", 0.0, true),
            ("bytes", "wasted_bytes", "Bytes brought in vain for copies", 0.0, true),
        ];
        for (file, member, title, least, percent) in figures {
            let mut groups: Vec<f64> = rows.iter().filter_map(|row| row["group"].as_f64()).collect();
            groups.dedup();
            let mut lines: Vec<(String, Vec<f64>)> = Vec::new();
            for row in &rows {
                let name = row["scheduler"].as_str().unwrap_or_default();
                let value = row[member].as_f64().unwrap_or_default();
                match lines.iter_mut().find(|(one, _)| one == name) {
                    Some((_, values)) => values.push(value),
                    None => lines.push((name.into(), vec![value])),
                }
            }
            if member != "to_best" {
                // Who makes no copies wastes nothing.
                lines.retain(|(_, values)| values.iter().any(|value| *value > 0.0));
            }
            if lines.is_empty() {
                continue;
            }
            let chart =
                Chart { title: format!("{title} ({study})"), x: by.clone(), groups, lines, least, percent };
            let path = format!("{directory}/bags-{study}-{}-{file}.svg", by.replace(' ', "-"));
            std::fs::write(&path, chart.svg()).unwrap_or_else(|why| panic!("{path}: {why}"));
        }
    }
}
