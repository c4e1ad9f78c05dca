//! Draws what `study_bags` printed as SVG, and prints the means as a table.
//!
//! ```sh
//! target/release/examples/plot_bags docs < figures.json
//! ```

use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::BufRead;

const COLOURS: [&str; 6] = ["#1b6ca8", "#d1495b", "#2e8b57", "#8a5fbf", "#c98500", "#555555"];
const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 380.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 270.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 56.0;

/// What is drawn of bags.
struct Figure {
    /// How the file's name ends.
    file: &'static str,
    title: &'static str,
    least: f64,
    of: fn(&Bag) -> f64,
    percent: bool,
}

const FIGURES: [Figure; 4] = [
    Figure {
        file: "time",
        title: "Time until the last task is done: times that of the best of these",
        least: 1.0,
        of: |bag| bag.to_best,
        percent: false,
    },
    Figure {
        file: "work",
        title: "Work that copies wasted, as a part of the bag's work",
        least: 0.0,
        of: |bag| bag.wasted_work,
        percent: true,
    },
    Figure {
        file: "slots",
        title: "Time of machines that copies wasted, as a part of the time that brought results",
        least: 0.0,
        of: |bag| bag.wasted_time,
        percent: true,
    },
    Figure {
        file: "bytes",
        title: "Megabytes brought",
        least: 0.0,
        of: |bag| bag.brought_mb,
        percent: false,
    },
];

/// What one scheduler made of one bag.
struct Bag {
    seed: u64,
    scheduler: String,
    /// Machine spread, task size, task spread.
    of: [f64; 3],
    makespan_s: f64,
    to_best: f64,
    wasted_work: f64,
    wasted_time: f64,
    wasted_bytes: f64,
    brought_mb: f64,
}

/// What bags are drawn apart by: (member of a line, place in `Bag::of`, what the axis says).
const BY: [(&str, usize, &str); 3] = [
    ("machine spread", 0, "times that the fastest machine may be faster than the slowest"),
    ("task size", 1, "size of the average task"),
    ("task spread", 2, "spread of task sizes, of the average"),
];

fn name(scheduler: &str) -> String {
    let (name, detail) = scheduler.split_once(':').unwrap_or((scheduler, ""));
    let long = match name {
        "workqueue" => "workqueue",
        "wqr" => "WQR",
        "storage-affinity" => "storage affinity",
        "fpltf" => "Dynamic FPLTF",
        "sufferage" => "Sufferage",
        "xsufferage" => "XSufferage",
        other => other,
    };
    match (name, detail) {
        ("fpltf" | "sufferage" | "xsufferage", "now") => format!("{long}, told the present"),
        ("fpltf" | "sufferage" | "xsufferage", _) => format!("{long}, told the future"),
        (_, "100") => format!("{long}, no limit"),
        (_, "") => long.into(),
        _ => format!("{long}, {detail} at once"),
    }
}

fn thousands(value: f64) -> String {
    match value {
        v if v >= 1000.0 => format!("{},{:03}", v as u64 / 1000, v as u64 % 1000),
        v => format!("{v}"),
    }
}

/// A line for each scheduler over the groups, which stand at equal distances.
struct Chart<'a> {
    title: &'a str,
    x: &'a str,
    groups: Vec<f64>,
    lines: Vec<(String, Vec<f64>)>,
    least: f64,
    percent: bool,
}

impl Chart<'_> {
    fn svg(&self) -> String {
        let most = self.lines.iter().flat_map(|(_, values)| values).copied().fold(self.least, f64::max);
        let steps = (-2..4).flat_map(|power| [1.0, 2.0, 5.0].map(|step| step * 10_f64.powi(power)));
        let step = steps.into_iter().find(|step| (most - self.least) / step <= 6.0).unwrap_or(1e4);
        let steps = ((most - self.least) / step).ceil().max(1.0);
        let width = (WIDTH - LEFT - RIGHT) / (self.groups.len() as f64 - 1.0).max(1.0);
        let x = |at: usize| LEFT + width * at as f64;
        let y =
            |value: f64| HEIGHT - BOTTOM - (value - self.least) / (steps * step) * (HEIGHT - TOP - BOTTOM);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             font-family=\"sans-serif\" font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
             <text x=\"16\" y=\"24\" font-size=\"15\">{}</text>\n",
            self.title
        );
        for line in 0..=steps as usize {
            let value = self.least + step * line as f64;
            let text = match self.percent {
                true => format!("{:.0} %", value * 100.0),
                false if step < 1.0 => format!("{value:.1}"),
                false => thousands(value),
            };
            let (right, y) = (WIDTH - RIGHT, y(value));
            let _ = writeln!(
                svg,
                "<path d=\"M{LEFT} {y:.1}H{right}\" stroke=\"#ddd\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>",
                LEFT - 8.0,
                y + 4.0
            );
        }
        for (at, group) in self.groups.iter().enumerate() {
            let (x, y, text) = (x(at), HEIGHT - BOTTOM + 20.0, thousands(*group));
            let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">{text}</text>");
        }
        let middle = (LEFT + WIDTH - RIGHT) / 2.0;
        let y_text = HEIGHT - 12.0;
        let _ = writeln!(svg, "<text x=\"{middle}\" y=\"{y_text}\" text-anchor=\"middle\">{}</text>", self.x);
        for (number, (name, values)) in self.lines.iter().enumerate() {
            let colour = COLOURS[number % COLOURS.len()];
            let dash = if number >= COLOURS.len() { " stroke-dasharray=\"5 3\"" } else { "" };
            let points = values.iter().enumerate().map(|(at, value)| (x(at), y(*value)));
            let points: Vec<String> = points.map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
            let _ = writeln!(
                svg,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"{dash}/>",
                points.join(" ")
            );
            for (x, y) in points.iter().filter_map(|point| point.split_once(',')) {
                let _ = writeln!(svg, "<circle cx=\"{x}\" cy=\"{y}\" r=\"3\" fill=\"{colour}\"/>");
            }
            let (left, top) = (WIDTH - RIGHT + 24.0, TOP + 8.0 + 22.0 * number as f64);
            let _ = writeln!(
                svg,
                "<path d=\"M{left} {top}h24\" stroke=\"{colour}\" stroke-width=\"2\"{dash}/>\
                 <text x=\"{}\" y=\"{}\">{name}</text>",
                left + 32.0,
                top + 4.0
            );
        }
        svg + "</svg>\n"
    }
}

/// The mean, and how far off it may be: half of the interval that holds it with 95 %.
fn mean(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (mean, 1.96 * (squares / (n - 1.0).max(1.0) / n).sqrt())
}

fn main() {
    let directory = std::env::args().nth(1).unwrap_or_else(|| ".".into());
    let mut studies: BTreeMap<String, Vec<Bag>> = BTreeMap::new();
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let Ok(row) = serde_json::from_str::<Value>(&line) else { continue };
        let number = |member: &str| row[member].as_f64().unwrap_or_default();
        if row["name"] == "bag" {
            studies.entry(row["study"].as_str().unwrap_or_default().into()).or_default().push(Bag {
                seed: number("seed") as u64,
                scheduler: row["scheduler"].as_str().unwrap_or_default().into(),
                of: BY.map(|(member, _, _)| number(member)),
                makespan_s: number("makespan_s"),
                to_best: 1.0,
                wasted_work: number("wasted_work"),
                wasted_time: number("wasted_time"),
                wasted_bytes: number("wasted_bytes"),
                brought_mb: number("brought_mb"),
            });
        }
    }
    for (study, mut bags) in studies {
        let mut best_s: BTreeMap<u64, f64> = BTreeMap::new();
        for bag in &bags {
            let best_s = best_s.entry(bag.seed).or_insert(f64::INFINITY);
            *best_s = best_s.min(bag.makespan_s);
        }
        for bag in &mut bags {
            bag.to_best = bag.makespan_s / best_s[&bag.seed];
        }
        let mut schedulers: Vec<&str> = Vec::new();
        for bag in &bags {
            if !schedulers.contains(&&*bag.scheduler) {
                schedulers.push(&bag.scheduler);
            }
        }
        println!("\n{study}: {} scenarios", best_s.len());
        table("", &bags, &schedulers, |_| true);
        for (by, at, x) in BY {
            let mut groups: Vec<f64> = bags.iter().map(|bag| bag.of[at]).collect();
            groups.sort_by(f64::total_cmp);
            groups.dedup();
            for group in &groups {
                table(&format!("{by} {group}"), &bags, &schedulers, |bag| bag.of[at] == *group);
            }
            for Figure { file, title, least, of: value, percent } in FIGURES {
                let line = |scheduler: &&str| {
                    let of = |group: &f64| {
                        let bags =
                            bags.iter().filter(|bag| bag.scheduler == *scheduler && bag.of[at] == *group);
                        mean(&bags.map(value).collect::<Vec<_>>()).0
                    };
                    (name(scheduler), groups.iter().map(of).collect::<Vec<_>>())
                };
                let mut lines: Vec<_> = schedulers.iter().map(line).collect();
                // Who makes no copies wastes nothing; tasks that compute bring nothing.
                lines.retain(|(_, values)| values.iter().any(|value| *value > 0.0));
                if lines.is_empty() {
                    continue;
                }
                let x = if study == "data" && by == "task size" {
                    "megabytes that the average task reads"
                } else {
                    x
                };
                let chart = Chart { title, x, groups: groups.clone(), lines, least, percent };
                let path = format!("{directory}/bags-{study}-{}-{file}.svg", by.replace(' ', "-"));
                std::fs::write(&path, chart.svg()).unwrap_or_else(|why| panic!("{path}: {why}"));
            }
        }
    }
}

/// Prints the means of some bags, a row a scheduler.
fn table(of: &str, bags: &[Bag], schedulers: &[&str], among: impl Fn(&Bag) -> bool) {
    for scheduler in schedulers {
        let bags: Vec<&Bag> = bags.iter().filter(|bag| bag.scheduler == *scheduler && among(bag)).collect();
        let all = |value: fn(&Bag) -> f64| mean(&bags.iter().map(|bag| value(bag)).collect::<Vec<_>>());
        let most = bags.iter().map(|bag| bag.wasted_work).fold(0.0, f64::max);
        let (makespan_s, off_s) = all(|bag| bag.makespan_s);
        println!(
            "| {of} | {scheduler} | {} | {makespan_s:.0} ± {off_s:.0} s | {:.3} | {:.1} % (most {:.1} %) | {:.1} % | {:.1} % | {:.0} MB |",
            bags.len(),
            all(|bag| bag.to_best).0,
            all(|bag| bag.wasted_work).0 * 100.0,
            most * 100.0,
            all(|bag| bag.wasted_time).0 * 100.0,
            all(|bag| bag.wasted_bytes).0 * 100.0,
            all(|bag| bag.brought_mb).0,
        );
    }
}
