//! The TOML form: who has which children, and where nodes listen.
//!
//! ```toml
//! [children]
//! no1 = ["no2", "no3"]
//! no2 = ["no4", "no5"]
//!
//! [addresses]          # may be left out
//! no1 = "ruby:7117"
//! ```
//!
//! The same tree as in two columns, and the same rules: one root, one parent each. A tree of one node
//! is `no1 = []`. A name with a dot is written in quotes.

use crate::error::{At, Mistake, TopologyError};
use crate::{Draft, Topology, words};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt::Write;
use toml::Spanned;

type Table<T> = BTreeMap<Spanned<String>, T>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    children: Table<Vec<Spanned<String>>>,
    #[serde(default)]
    addresses: Table<Spanned<String>>,
}

/// Whether a text is meant to be of this form: its first word begins with `[`.
pub fn is_one(text: &str) -> bool {
    text.lines().find_map(|line| words(line).next()).is_some_and(|(_, word)| word.starts_with('['))
}

/// Reads a file's text.
pub fn parse(text: &str) -> Result<Topology, TopologyError> {
    let document: Document = toml::from_str(text).map_err(|error| {
        let at = At::of(text, error.span().map_or(0, |span| span.start));
        Mistake::Document { reason: mutirao_text::in_words(error.message()) }.at(at)
    })?;
    let at = |word: &Spanned<String>| At::of(text, word.span().start);
    // As they stand in the file, so that the first mistake is the one that is told.
    let mut rows: Vec<_> = document.children.iter().collect();
    rows.sort_by_key(|(parent, _)| parent.span().start);
    let mut draft = Draft::default();
    for (parent, children) in rows {
        draft.node(at(parent), parent.get_ref())?;
        if children.is_empty() {
            draft.alone(at(parent), parent.get_ref());
        }
        for child in children {
            draft.node(at(child), child.get_ref())?;
            draft.edge(at(child), parent.get_ref(), child.get_ref())?;
        }
    }
    for (node, place) in &document.addresses {
        draft.place(at(place), node.get_ref(), place.get_ref())?;
    }
    draft.finish()
}

/// Writes a tree, parents level by level.
pub fn write(topology: &Topology) -> String {
    let mut text = String::from("[children]\n");
    let quoted = |name: &String| format!("\"{name}\"");
    for node in topology.nodes() {
        let children: Vec<String> = topology.children(node).iter().map(quoted).collect();
        if !children.is_empty() || node == topology.root() {
            let _ = writeln!(text, "{} = [{}]", key(node), children.join(", ")); // a string takes all
        }
    }
    let places: Vec<(&str, &str)> =
        topology.nodes().filter_map(|node| Some((node, topology.place(node)?))).collect();
    if !places.is_empty() {
        text += "\n[addresses]\n";
    }
    for (node, place) in places {
        let _ = writeln!(text, "{} = \"{place}\"", key(node));
    }
    text
}

fn key(name: &str) -> String {
    if name.contains('.') { format!("\"{name}\"") } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        Topology::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn both_forms_say_the_same() {
        let text = "# the lab\n[children]\nno2 = [\"no4\", \"no.5\"]\nno1 = [\"no2\", \"no3\"]\n\
                    [addresses]\nno1 = \"ruby:7117\"\n\"no.5\" = \"[::1]:9\"\n";
        let topology = Topology::parse(text).unwrap();
        let columns = crate::columns::write(&topology);
        assert_eq!(columns, "no1=ruby:7117 no2 no3\nno2 no4 no.5=[::1]:9\n");
        assert_eq!(Topology::parse(&columns).unwrap(), topology);
        assert_eq!(Topology::parse(&write(&topology)).unwrap(), topology);
        let alone = Topology::parse("[children]\na = []\n").unwrap();
        assert_eq!(crate::columns::write(&alone), "a\n");
        assert_eq!(write(&alone), "[children]\na = []\n");
    }

    #[test]
    fn mistakes_are_named_with_line_and_column() {
        let begins = |text: &str, expected: &str| {
            let error = error(text);
            assert!(error.starts_with(expected), "{text:?}: {error}");
        };
        begins("[children]\na = [\"b\", \"b\"]\n", "line 2, column 11: `b` is a child of `a` already");
        begins("[children]\na = [\"b\"]\nb = [\"a\"]\n", "line 3, column 6: `a` is above `b`");
        begins("[children]\na = [\"b\"]\nc = [\"d\"]\n", "line 3, column 1: `c` has no parent");
        begins("[children]\na = [\"b c\"]\n", "line 2, column 6: `b c` is not a node");
        begins("[children]\na = [\"b\"]\n[addresses]\nx = \"h:1\"\n", "line 4, column 5: `x` has an address");
        begins(
            "[children]\na = [\"b\"]\n[addresses]\na = \"h\"\n",
            "line 4, column 5: `h` is not an address",
        );
        begins("[children]\na = [\"b\"]\na = [\"c\"]\n", "line 3, column 1: ");
        begins("[children]\na = \"b\"\n", "line 2, column 5: ");
        begins("[child]\na = [\"b\"]\n", "line 1, column 2: ");
        begins("[children\n", "line 1, column ");
    }
}
