//! A tree as a picture: the root at the left, a column a level, a row a leaf; parents stand halfway
//! between their first and their last child.

use crate::Topology;
use std::collections::BTreeMap;
use std::fmt::Write;

const ROW: f64 = 30.0;
const BOX: f64 = 22.0;
const GAP: f64 = 56.0;
const MARGIN: f64 = 16.0;
/// Width of a character and of the space beside a label, at the size of the text below.
const CHAR: f64 = 7.3;
const PAD: f64 = 18.0;

struct Spot<'a> {
    node: &'a str,
    level: usize,
    y: f64,
}

/// The picture.
pub fn svg(topology: &Topology) -> String {
    let mut spots = Vec::new();
    let mut row = 0.0;
    lay(topology, topology.root(), 0, &mut row, &mut spots);
    let width_of = |node: &str| node.chars().count() as f64 * CHAR + PAD;
    let mut widths = vec![0.0_f64; topology.levels()];
    for spot in &spots {
        widths[spot.level] = widths[spot.level].max(width_of(spot.node));
    }
    let lefts: Vec<f64> = widths
        .iter()
        .scan(MARGIN, |x, width| {
            let left = *x;
            *x += width + GAP;
            Some(left)
        })
        .collect();
    let width = MARGIN * 2.0 + widths.iter().sum::<f64>() + GAP * (widths.len() - 1) as f64;
    let height = MARGIN * 2.0 + row * ROW;
    let at: BTreeMap<&str, &Spot<'_>> = spots.iter().map(|spot| (spot.node, spot)).collect();
    let mut edges = String::new();
    let mut nodes = String::new();
    // Writing to a string does not fail.
    for spot in &spots {
        let (x, y, w) = (lefts[spot.level], spot.y + MARGIN, width_of(spot.node));
        for child in topology.children(spot.node).iter().filter_map(|child| at.get(child.as_str())) {
            let (from, to, cy) = (x + w, lefts[child.level], child.y + MARGIN);
            let middle = lefts[child.level] - GAP / 2.0;
            let _ = writeln!(
                edges,
                "<path d=\"M{from:.1} {y:.1}H{:.1}C{middle:.1} {y:.1} {middle:.1} {cy:.1} {to:.1} {cy:.1}\"/>",
                to - GAP
            );
        }
        let class = if spot.node == topology.root() { " class=\"root\"" } else { "" };
        let title = topology.place(spot.node).map(|place| format!("<title>{}</title>", escaped(place)));
        let _ = writeln!(
            nodes,
            "<g{class}>{}<rect x=\"{x:.1}\" y=\"{:.1}\" width=\"{w:.1}\" height=\"{BOX}\" rx=\"5\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\">{}</text></g>",
            title.unwrap_or_default(),
            y - BOX / 2.0,
            x + w / 2.0,
            y + 4.3,
            escaped(spot.node),
        );
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
         viewBox=\"0 0 {width:.0} {height:.0}\">\n<style>\n\
         path {{ fill: none; stroke: #8a94a3; stroke-width: 1.3 }}\n\
         rect {{ fill: #f4f7fb; stroke: #4a6076; stroke-width: 1.2 }}\n\
         .root rect {{ fill: #2f5d7c }}\n.root text {{ fill: #fff }}\n\
         text {{ font: 12px 'DejaVu Sans Mono', monospace; text-anchor: middle; fill: #1c2733 }}\n\
         </style>\n<rect width=\"100%\" height=\"100%\" style=\"fill: #fff; stroke: none\"/>\n{edges}{nodes}</svg>\n"
    )
}

/// Gives each node below `node` its spot, leaves first; at most as deep as a tree is. Returns the
/// node's own height.
fn lay<'a>(
    topology: &'a Topology,
    node: &'a str,
    level: usize,
    row: &mut f64,
    spots: &mut Vec<Spot<'a>>,
) -> f64 {
    let mut ends: Option<(f64, f64)> = None;
    for child in topology.children(node) {
        let y = lay(topology, child, level + 1, row, spots);
        ends = Some((ends.map_or(y, |(first, _)| first), y));
    }
    let y = match ends {
        Some((first, last)) => (first + last) / 2.0,
        None => {
            *row += 1.0;
            (*row - 0.5) * ROW
        }
    };
    spots.push(Spot { node, level, y });
    y
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_stand_apart_and_parents_between_their_children() {
        let topology = Topology::parse("a b c d\nb e f\n").unwrap();
        let mut spots = Vec::new();
        lay(&topology, "a", 0, &mut 0.0, &mut spots);
        let y = |node: &str| spots.iter().find(|spot| spot.node == node).unwrap().y;
        assert_eq!(y("b"), (y("e") + y("f")) / 2.0);
        assert_eq!(y("a"), (y("b") + y("d")) / 2.0);
        for one in &spots {
            for other in spots.iter().filter(|other| other.level == one.level && other.node != one.node) {
                assert!((one.y - other.y).abs() >= ROW, "{} and {} overlap", one.node, other.node);
            }
        }
        let picture = svg(&topology);
        assert_eq!(picture.matches("<text").count(), 6);
        assert_eq!(picture.matches("<path").count(), 5);
        assert!(svg(&Topology::parse("a=h&<:1 b\n").unwrap()).contains("<title>h&amp;&lt;:1</title>"));
    }
}
