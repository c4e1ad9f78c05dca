//! Topology files: who is whose parent, as an administrator writes it.
//!
//! One line a parent, its children after it; `#` begins a comment:
//!
//! ```text
//! no1 no2 no3
//! no2 no4 no5     # no2 has its own children
//! ```
//!
//! A parent may have several lines. A name may carry the address where the node listens, on any of
//! its mentions: `no1=host:7700`. A file describes exactly one tree: a second root would be a pool
//! cut in two, which is never what is meant.

use mutirao_wire::limits::CHILDREN_MAX;
use std::collections::{BTreeMap, BTreeSet};

/// Most nodes a file may name.
pub const NODES_MAX: usize = 100_000;

/// A tree of nodes, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    root: String,
    parents: BTreeMap<String, String>,
    places: BTreeMap<String, String>,
    order: Vec<String>,
}

/// What is wrong with a topology file, and on which line (counted from 1).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopologyError {
    /// A word that names no node.
    #[error(
        "line {line}: `{word}` is not a node: a name of letters, digits, `-`, `_` and `.`, with `=host:port` behind it if need be"
    )]
    BadWord {
        /// The line.
        line: usize,
        /// The word.
        word: String,
    },
    /// A parent without children.
    #[error("line {line}: `{parent}` stands alone: its children belong on the same line")]
    NoChildren {
        /// The line.
        line: usize,
        /// The parent.
        parent: String,
    },
    /// A node that is its own parent.
    #[error("line {line}: `{node}` cannot be its own child")]
    OwnParent {
        /// The line.
        line: usize,
        /// The node.
        node: String,
    },
    /// A node with two parents, or named twice under one.
    #[error(
        "line {line}: `{node}` is a child of `{first}` already, on line {first_line}; a node has one parent"
    )]
    TwoParents {
        /// The line of the second mention.
        line: usize,
        /// The node.
        node: String,
        /// The first parent.
        first: String,
        /// The line of the first mention.
        first_line: usize,
    },
    /// A node below itself.
    #[error("line {line}: `{node}` is above `{parent}` already; this line would close a circle")]
    Cycle {
        /// The line that closes it.
        line: usize,
        /// The child on that line.
        node: String,
        /// The parent on that line.
        parent: String,
    },
    /// Two nodes without parent.
    #[error(
        "line {line}: `{second}` has no parent, and neither has `{first}` (line {first_line}); put one below the other"
    )]
    TwoRoots {
        /// The line of the second root.
        line: usize,
        /// The first root.
        first: String,
        /// Its line.
        first_line: usize,
        /// The second root.
        second: String,
    },
    /// Two addresses for one node.
    #[error("line {line}: `{node}` was given the address `{first}` before")]
    TwoPlaces {
        /// The line.
        line: usize,
        /// The node.
        node: String,
        /// Its first address.
        first: String,
    },
    /// More than a node or a file can have.
    #[error(
        "line {line}: too many: a node has at most {CHILDREN_MAX} children, a file at most {NODES_MAX} nodes"
    )]
    TooMany {
        /// The line.
        line: usize,
    },
    /// Nothing but comments.
    #[error("the file names no node")]
    Empty,
}

impl Topology {
    /// Reads a file's text.
    pub fn parse(text: &str) -> Result<Topology, TopologyError> {
        let mut reader = Reader::default();
        for (at, line) in text.lines().enumerate() {
            reader.line(at + 1, line)?;
        }
        reader.finish()
    }

    /// The node without parent.
    pub fn root(&self) -> &str {
        &self.root
    }

    /// Whether the file names `node`.
    pub fn contains(&self, node: &str) -> bool {
        node == self.root || self.parents.contains_key(node)
    }

    /// The parent of `node`; `None` for the root and for nodes the file does not name.
    pub fn parent(&self, node: &str) -> Option<&str> {
        self.parents.get(node).map(String::as_str)
    }

    /// The address given for `node`, `host:port`.
    pub fn place(&self, node: &str) -> Option<&str> {
        self.places.get(node).map(String::as_str)
    }

    /// All nodes, each after its parent.
    pub fn nodes(&self) -> impl Iterator<Item = &str> {
        self.order.iter().map(String::as_str)
    }
}

/// Where a name was first seen in a role.
#[derive(Default)]
struct Reader {
    /// Child to parent, and the line that says so.
    parents: BTreeMap<String, (String, usize)>,
    children: BTreeMap<String, Vec<String>>,
    /// Each name and the line of its first mention.
    seen: BTreeMap<String, usize>,
    places: BTreeMap<String, String>,
}

impl Reader {
    fn line(&mut self, line: usize, text: &str) -> Result<(), TopologyError> {
        let text = text.split('#').next().unwrap_or_default();
        let mut words = text.split_whitespace();
        let Some(parent) = words.next() else { return Ok(()) };
        let parent = self.word(line, parent)?;
        let mut alone = true;
        for word in words {
            alone = false;
            let child = self.word(line, word)?;
            self.edge(line, &parent, child)?;
        }
        if alone { Err(TopologyError::NoChildren { line, parent }) } else { Ok(()) }
    }

    fn word(&mut self, line: usize, word: &str) -> Result<String, TopologyError> {
        let bad = || TopologyError::BadWord { line, word: word.chars().take(80).collect() };
        let (name, place) = match word.split_once('=') {
            Some((name, place)) => (name, Some(place)),
            None => (word, None),
        };
        if mutirao_trust::Name::new(name).is_err() {
            return Err(bad());
        }
        if let Some(place) = place {
            match place.rsplit_once(':') {
                Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0) => {
                }
                _ => return Err(bad()),
            }
            match self.places.get(name) {
                Some(first) if first != place => {
                    return Err(TopologyError::TwoPlaces { line, node: name.into(), first: first.clone() });
                }
                _ => self.places.insert(name.into(), place.into()),
            };
        }
        self.seen.entry(name.into()).or_insert(line);
        if self.seen.len() > NODES_MAX {
            return Err(TopologyError::TooMany { line });
        }
        Ok(name.into())
    }

    fn edge(&mut self, line: usize, parent: &str, child: String) -> Result<(), TopologyError> {
        if child == parent {
            return Err(TopologyError::OwnParent { line, node: child });
        }
        if let Some((first, first_line)) = self.parents.get(&child) {
            let (first, first_line) = (first.clone(), *first_line);
            return Err(TopologyError::TwoParents { line, node: child, first, first_line });
        }
        let siblings = self.children.entry(parent.into()).or_default();
        if siblings.len() >= CHILDREN_MAX {
            return Err(TopologyError::TooMany { line });
        }
        siblings.push(child.clone());
        self.parents.insert(child, (parent.into(), line));
        Ok(())
    }

    fn finish(mut self) -> Result<Topology, TopologyError> {
        let mut roots: Vec<(usize, &String)> = self
            .seen
            .iter()
            .filter(|(name, _)| !self.parents.contains_key(*name))
            .map(|(name, line)| (*line, name))
            .collect();
        roots.sort();
        let root = match roots[..] {
            [] if self.seen.is_empty() => return Err(TopologyError::Empty),
            [(_, root)] => Some(root.clone()),
            [] => None,
            [(first_line, first), (line, second), ..] => {
                let (first, second) = (first.clone(), second.clone());
                return Err(TopologyError::TwoRoots { line, first, first_line, second });
            }
        };
        let mut order: Vec<String> = root.iter().cloned().collect();
        let mut at = 0;
        while let Some(name) = order.get(at) {
            let children = self.children.remove(name).unwrap_or_default();
            order.extend(children);
            at += 1;
        }
        match root {
            Some(root) if order.len() == self.seen.len() => {
                let parents = self.parents.into_iter().map(|(child, (parent, _))| (child, parent)).collect();
                Ok(Topology { root, parents, places: self.places, order })
            }
            // What the root does not reach goes round in circles.
            _ => Err(self.cycle(&order)),
        }
    }

    /// The edge, of those in a circle, that stands last in the file: the one that closed it.
    fn cycle(&self, reached: &[String]) -> TopologyError {
        let reached: BTreeSet<&String> = reached.iter().collect();
        let in_circle = |start: &String| {
            let mut name = start;
            for _ in 0..self.parents.len() {
                match self.parents.get(name) {
                    Some((parent, _)) if parent == start => return true,
                    Some((parent, _)) => name = parent,
                    None => return false,
                }
            }
            false
        };
        // One circle is enough to tell of: that of the first name that cannot be reached.
        let mut name = self.parents.keys().find(|name| !reached.contains(name));
        while let Some(start) = name.filter(|name| !in_circle(name)) {
            name = self.parents.get(start).map(|(parent, _)| parent);
        }
        let Some(start) = name else { return TopologyError::Empty };
        let mut last = (start, &self.parents[start]);
        let mut at = &self.parents[start].0;
        while at != start {
            let edge = &self.parents[at];
            if edge.1 >= last.1.1 {
                last = (at, edge);
            }
            at = &edge.0;
        }
        let (node, (parent, line)) = last;
        TopologyError::Cycle { line: *line, node: node.clone(), parent: parent.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn error(text: &str) -> String {
        Topology::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn the_file_of_the_source_is_read() {
        let topology = Topology::parse("no1 no2 no3\nno2 no4 no5\n").unwrap();
        assert_eq!(topology.root(), "no1");
        assert_eq!(topology.parent("no5"), Some("no2"));
        assert_eq!(topology.parent("no1"), None);
        assert_eq!(topology.nodes().collect::<Vec<_>>(), ["no1", "no2", "no3", "no4", "no5"]);
        assert!(topology.contains("no4") && !topology.contains("no6"));
    }

    #[test]
    fn comments_blank_lines_addresses_and_any_order_are_fine() {
        let text = "# the lab\n\nb c=ruby:7700 # below b\na b\na=10.0.0.1:7 d\n";
        let topology = Topology::parse(text).unwrap();
        assert_eq!(topology.root(), "a");
        assert_eq!(topology.place("c"), Some("ruby:7700"));
        assert_eq!(topology.place("a"), Some("10.0.0.1:7"));
        assert_eq!(topology.place("b"), None);
        assert_eq!(topology.parent("d"), Some("a"));
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        assert!(error("a b\nb a/c\n").starts_with("line 2: `a/c` is not a node"));
        assert!(error("a b=ruby\n").starts_with("line 1: `b=ruby` is not a node"));
        assert!(error("a b\n\nc\n").starts_with("line 3: `c` stands alone"));
        assert!(error("a a\n").starts_with("line 1: `a` cannot be its own child"));
        assert!(error("a b c\nc b\n").starts_with("line 2: `b` is a child of `a` already, on line 1"));
        assert!(error("a b b\n").starts_with("line 1: `b` is a child of `a` already"));
        assert!(error("a b\nb c\nc a\n").starts_with("line 3: `a` is above `c` already"));
        assert!(error("r s\na b\nb c\nc a\n").starts_with("line 4: `a` is above `c` already"));
        assert!(error("a b\nc d\n").starts_with("line 2: `c` has no parent, and neither has `a` (line 1)"));
        assert!(error("a=x:1 b\na=y:1 c\n").starts_with("line 2: `a` was given the address `x:1`"));
        assert_eq!(error("# nothing\n"), "the file names no node");
    }

    proptest! {
        #[test]
        fn any_tree_reads_back(choices in prop::collection::vec(any::<prop::sample::Index>(), 1..60)) {
            // Node i + 1 hangs below one of the nodes 0 to i.
            let parents: Vec<usize> =
                choices.iter().enumerate().map(|(i, choice)| choice.index(i + 1)).collect();
            let mut lines: Vec<String> =
                parents.iter().enumerate().map(|(i, parent)| format!("n{parent} n{}", i + 1)).collect();
            lines.reverse();
            let topology = Topology::parse(&lines.join("\n")).unwrap();
            prop_assert_eq!(topology.root(), "n0");
            for (i, parent) in parents.iter().enumerate() {
                prop_assert_eq!(topology.parent(&format!("n{}", i + 1)), Some(&*format!("n{parent}")));
            }
            let order: Vec<&str> = topology.nodes().collect();
            for name in &order[1..] {
                let place = |name: &str| order.iter().position(|other| *other == name);
                prop_assert!(place(topology.parent(name).unwrap()) < place(name));
            }
        }

        #[test]
        fn any_text_is_a_tree_or_an_error(text in "([a-d]=?:?[0-9]? ?#?\n?){0,40}") {
            if let Ok(topology) = Topology::parse(&text) {
                prop_assert_eq!(topology.nodes().count(), topology.parents.len() + 1);
            }
        }
    }
}
