//! One tree of named nodes, and how it is put together.

use crate::error::{At, Mistake, TopologyError};
use crate::{NODES_MAX, WORD_CHARS_MAX, columns, document, shown};
use mutirao_wire::limits::{CHILDREN_MAX, DEPTH_MAX};
use std::collections::{BTreeMap, BTreeSet};

/// A tree of nodes, by name. At most [`NODES_MAX`] nodes, `CHILDREN_MAX` children a node, `DEPTH_MAX` levels below the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    root: String,
    parents: BTreeMap<String, String>,
    children: BTreeMap<String, Vec<String>>,
    places: BTreeMap<String, String>,
    order: Vec<String>,
}

impl Topology {
    /// Reads a file's text: TOML if its first word begins with `[`, else two columns.
    pub fn parse(text: &str) -> Result<Topology, TopologyError> {
        if document::is_one(text) { document::parse(text) } else { columns::parse(text) }
    }

    /// The tree in which `names[i]` hangs below `names[parents[i]]`, `None` for the root. Mistakes are told
    /// with `i + 1` as the line.
    pub fn of(names: &[String], parents: &[Option<usize>]) -> Result<Topology, TopologyError> {
        let mut draft = Draft::default();
        for (i, (name, parent)) in names.iter().zip(parents).enumerate() {
            let at = At { line: i + 1, column: 1 };
            draft.node(at, name)?;
            if let Some(parent) = parent.and_then(|parent| names.get(parent)) {
                draft.edge(at, parent, name)?;
            }
        }
        draft.finish()
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

    /// The children of `node`, in the order of the file.
    pub fn children(&self, node: &str) -> &[String] {
        self.children.get(node).map(Vec::as_slice).unwrap_or_default()
    }

    /// The address given for `node`, `host:port`.
    pub fn place(&self, node: &str) -> Option<&str> {
        self.places.get(node).map(String::as_str)
    }

    /// All nodes, each after its parent, level by level.
    pub fn nodes(&self) -> impl Iterator<Item = &str> {
        self.order.iter().map(String::as_str)
    }

    /// Levels: 1 for a root alone.
    pub fn levels(&self) -> usize {
        // The last node of the order is on the deepest level.
        let mut levels = 1;
        let mut node = self.order.last().map_or(self.root(), String::as_str);
        while let Some(parent) = self.parent(node) {
            (levels, node) = (levels + 1, parent);
        }
        levels
    }

    /// Most children of any node.
    pub fn fan_out(&self) -> usize {
        self.children.values().map(Vec::len).max().unwrap_or(0)
    }
}

/// A tree that is being put together, in any order.
#[derive(Debug, Default)]
pub struct Draft {
    /// Child to parent, and where that is said.
    parents: BTreeMap<String, (String, At)>,
    children: BTreeMap<String, Vec<String>>,
    /// Each name and its first mention.
    seen: BTreeMap<String, At>,
    places: BTreeMap<String, String>,
    /// The first parent that was named without children.
    alone: Option<(At, String)>,
}

impl Draft {
    /// Adds a node, if it is new.
    pub fn node(&mut self, at: At, name: &str) -> Result<(), TopologyError> {
        if mutirao_trust::Name::new(name).is_err() {
            return Err(Mistake::BadWord { word: shown(name) }.at(at));
        }
        self.seen.entry(name.into()).or_insert(at);
        if self.seen.len() > NODES_MAX { Err(Mistake::TooMany.at(at)) } else { Ok(()) }
    }

    /// Says where a node listens, which is in the draft already.
    pub fn place(&mut self, at: At, name: &str, place: &str) -> Result<(), TopologyError> {
        if !self.seen.contains_key(name) {
            return Err(Mistake::PlaceOnly { node: shown(name) }.at(at));
        }
        if !is_place(place) {
            return Err(Mistake::BadPlace { word: shown(place) }.at(at));
        }
        match self.places.get(name) {
            Some(first) if first != place => {
                Err(Mistake::TwoPlaces { node: name.into(), first: first.clone() }.at(at))
            }
            _ => {
                self.places.insert(name.into(), place.into());
                Ok(())
            }
        }
    }

    /// Hangs `child` below `parent`; both are nodes already.
    pub fn edge(&mut self, at: At, parent: &str, child: &str) -> Result<(), TopologyError> {
        if child == parent {
            return Err(Mistake::OwnParent { node: child.into() }.at(at));
        }
        if let Some((first, first_at)) = self.parents.get(child) {
            let (first, first_at) = (first.clone(), *first_at);
            return Err(Mistake::TwoParents { node: child.into(), first, first_at }.at(at));
        }
        let siblings = self.children.entry(parent.into()).or_default();
        if siblings.len() >= CHILDREN_MAX {
            return Err(Mistake::TooMany.at(at));
        }
        siblings.push(child.into());
        self.parents.insert(child.into(), (parent.into(), at));
        Ok(())
    }

    /// Notes that a parent was named without children, which is right only where it is the only node.
    pub fn alone(&mut self, at: At, parent: &str) {
        self.alone.get_or_insert((at, parent.into()));
    }

    /// The tree, if it is one.
    pub fn finish(mut self) -> Result<Topology, TopologyError> {
        if let Some((at, parent)) = self.alone.take().filter(|_| self.seen.len() > 1) {
            return Err(Mistake::NoChildren { parent }.at(at));
        }
        let mut roots: Vec<(At, &String)> = self
            .seen
            .iter()
            .filter(|(name, _)| !self.parents.contains_key(*name))
            .map(|(name, at)| (*at, name))
            .collect();
        roots.sort();
        let root = match roots[..] {
            [] if self.seen.is_empty() => return Err(TopologyError::Empty),
            [(_, root)] => Some(root.clone()),
            [] => None,
            [(first_at, first), (at, second), ..] => {
                let (first, second) = (first.clone(), second.clone());
                return Err(Mistake::TwoRoots { first, first_at, second }.at(at));
            }
        };
        let order = self.order(root.iter().cloned().collect())?;
        match root {
            Some(root) if order.len() == self.seen.len() => {
                let parents = self.parents.into_iter().map(|(child, (parent, _))| (child, parent)).collect();
                Ok(Topology { root, parents, children: self.children, places: self.places, order })
            }
            // What the root does not reach goes round in circles.
            _ => Err(self.cycle(&order)),
        }
    }

    /// The nodes that `level`, the first one, reaches, level by level.
    fn order(&self, mut level: Vec<String>) -> Result<Vec<String>, TopologyError> {
        let mut order = Vec::new();
        for depth in 0.. {
            let Some(first) = level.first() else { break };
            if depth > DEPTH_MAX {
                let at = self.parents.get(first).map_or(At { line: 1, column: 1 }, |(_, at)| *at);
                return Err(Mistake::TooDeep { node: first.clone() }.at(at));
            }
            let next = level.iter().filter_map(|node| self.children.get(node)).flatten().cloned().collect();
            order.append(&mut level);
            level = next;
        }
        Ok(order)
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
        let (node, (parent, at)) = last;
        Mistake::Cycle { node: node.clone(), parent: parent.clone() }.at(*at)
    }
}

/// Whether `text` is `host:port`.
pub(crate) fn is_place(text: &str) -> bool {
    let plain = |c: char| !c.is_whitespace() && !c.is_control() && !"#=\"'\\".contains(c);
    text.chars().count() <= WORD_CHARS_MAX
        && text.chars().all(plain)
        && text
            .rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0))
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
    fn limits_hold() {
        let chain: String = (1..65).map(|i| format!("n{i} n{}\n", i + 1)).collect();
        assert_eq!(Topology::parse(&chain).unwrap().levels(), 65);
        assert!(error(&format!("{chain}n65 n66\n")).starts_with("line 65, column 5: `n66` is too deep"));
        let wide = |children: usize| (0..children).fold("r".to_owned(), |line, i| format!("{line} c{i}"));
        assert_eq!(Topology::parse(&wide(CHILDREN_MAX)).unwrap().fan_out(), CHILDREN_MAX);
        assert!(error(&wide(CHILDREN_MAX + 1)).contains("too many"));
        assert_eq!(Topology::parse("a\n").unwrap().nodes().collect::<Vec<_>>(), ["a"]);
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        assert!(error("a b\nb a/c\n").starts_with("line 2, column 3: `a/c` is not a node"));
        assert!(error("a b=ruby\n").starts_with("line 1, column 3: `b=ruby` is not a node"));
        assert!(error("a b\n\nc\n").starts_with("line 3, column 1: `c` stands alone"));
        assert!(error("a a\n").starts_with("line 1, column 3: `a` cannot be its own child"));
        assert!(
            error("a b c\nc b\n").starts_with("line 2, column 3: `b` is a child of `a` already, on line 1")
        );
        assert!(error("a b b\n").starts_with("line 1, column 5: `b` is a child of `a` already"));
        assert!(error("a b\nb c\nc a\n").starts_with("line 3, column 3: `a` is above `c` already"));
        assert!(error("r s\na b\nb c\nc a\n").starts_with("line 4, column 3: `a` is above `c` already"));
        assert!(
            error("a b\nc d\n")
                .starts_with("line 2, column 1: `c` has no parent, and neither has `a` (line 1)")
        );
        assert!(error("a=x:1 b\na=y:1 c\n").starts_with("line 2, column 1: `a` was given the address `x:1`"));
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
            prop_assert_eq!(&Topology::parse(&columns::write(&topology)).unwrap(), &topology);
            prop_assert_eq!(&Topology::parse(&document::write(&topology)).unwrap(), &topology);
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
                prop_assert_eq!(&Topology::parse(&columns::write(&topology)).unwrap(), &topology);
                prop_assert_eq!(&Topology::parse(&document::write(&topology)).unwrap(), &topology);
            }
        }

        #[test]
        fn any_document_is_a_tree_or_an_error(
            rows in prop::collection::vec(("[a-e.]", prop::collection::vec("[a-e/ ]", 0..4)), 0..5),
            places in prop::collection::vec(("[a-e]", "[a-e]{0,2}:?[0-9]{0,2}"), 0..3),
        ) {
            let mut text = String::from("[children]\n");
            for (parent, children) in &rows {
                text += &format!("\"{parent}\" = {children:?}\n");
            }
            text += "[addresses]\n";
            for (node, place) in &places {
                text += &format!("{node} = \"{place}\"\n");
            }
            match Topology::parse(&text) {
                Ok(topology) => {
                    prop_assert_eq!(&Topology::parse(&document::write(&topology)).unwrap(), &topology);
                    prop_assert_eq!(&Topology::parse(&columns::write(&topology)).unwrap(), &topology);
                }
                Err(error) => {
                    let lines = text.lines().count();
                    prop_assert!(error.at().is_none_or(|at| at.line <= lines + 1 && at.column > 0));
                }
            }
        }
    }
}
