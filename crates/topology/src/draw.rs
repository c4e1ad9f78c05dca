//! Drawings of a tree: text, Graphviz, SVG, and a page on which it can be changed.

use crate::Topology;
use std::fmt::Write;

pub use crate::page::page;
pub use crate::svg::svg;

/// Branches of text, one node a line.
pub fn text(topology: &Topology) -> String {
    let mut out = format!("{}\n", label(topology, topology.root()));
    branches(topology, topology.root(), "", &mut out);
    out
}

/// At most as deep as a tree is, `DEPTH_MAX`.
fn branches(topology: &Topology, node: &str, indent: &str, out: &mut String) {
    let children = topology.children(node);
    for (i, child) in children.iter().enumerate() {
        let (joint, below) = if i + 1 == children.len() { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        let _ = writeln!(out, "{indent}{joint}{}", label(topology, child)); // a string takes all
        branches(topology, child, &format!("{indent}{below}"), out);
    }
}

fn label(topology: &Topology, node: &str) -> String {
    match topology.place(node) {
        Some(place) => format!("{node}  {place}"),
        None => node.to_owned(),
    }
}

/// A graph in Graphviz's language.
pub fn dot(topology: &Topology) -> String {
    let mut out = String::from("digraph pool {\n  rankdir=LR;\n  node [shape=box, style=rounded];\n");
    for node in topology.nodes() {
        let _ = match topology.place(node) {
            Some(place) => writeln!(out, "  \"{node}\" [label=\"{node}\\n{place}\"];"),
            None => writeln!(out, "  \"{node}\";"),
        };
        for child in topology.children(node) {
            let _ = writeln!(out, "  \"{node}\" -> \"{child}\";");
        }
    }
    out + "}\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches_and_graph_show_the_tree() {
        let topology = Topology::parse("a=h:1 b c\nb d\n").unwrap();
        assert_eq!(text(&topology), "a  h:1\n├─ b\n│  └─ d\n└─ c\n");
        let dot = dot(&topology);
        for part in ["\"a\" [label=\"a\\nh:1\"];", "\"a\" -> \"b\";", "\"a\" -> \"c\";", "\"b\" -> \"d\";"] {
            assert!(dot.contains(part), "{dot}");
        }
    }
}
