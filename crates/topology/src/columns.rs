//! Two columns: one line a parent, its children after it; `#` begins a comment.
//!
//! ```text
//! no1 no2 no3
//! no2 no4 no5     # no2 has its own children
//! ```
//!
//! A parent may have several lines. A name may carry the address where the node listens, on any of
//! its mentions: `no1=host:7700`. A file describes exactly one tree: a second root would be a pool
//! cut in two, which is never what is meant. A file of one name is a tree of one node.

use crate::error::{At, Mistake, TopologyError};
use crate::{Draft, Topology, shown, words};
use std::fmt::Write;

/// Reads a file's text.
pub fn parse(text: &str) -> Result<Topology, TopologyError> {
    let mut draft = Draft::default();
    for (i, text) in text.lines().enumerate() {
        let mut words = words(text).map(|(column, word)| (At { line: i + 1, column }, word));
        let Some((first, word)) = words.next() else { continue };
        let parent = node(&mut draft, first, word)?;
        let mut children = words.peekable();
        if children.peek().is_none() {
            draft.alone(first, parent);
        }
        for (at, word) in children {
            let child = node(&mut draft, at, word)?;
            draft.edge(at, parent, child)?;
        }
    }
    draft.finish()
}

/// The name in `word`, which may be `name=host:port`.
fn node<'a>(draft: &mut Draft, at: At, word: &'a str) -> Result<&'a str, TopologyError> {
    let Some((name, place)) = word.split_once('=') else {
        draft.node(at, word)?;
        return Ok(word);
    };
    let bad = |_| Mistake::BadWord { word: shown(word) }.at(at);
    draft.node(at, name).map_err(bad)?;
    if !crate::tree::is_place(place) {
        return Err(bad(TopologyError::Empty));
    }
    draft.place(at, name, place)?;
    Ok(name)
}

/// Writes a tree: a line for each node with children, level by level; addresses on first mentions.
pub fn write(topology: &Topology) -> String {
    let mut text = String::new();
    let word = |node: &str| match topology.place(node) {
        Some(place) => format!("{node}={place}"),
        None => node.to_owned(),
    };
    for node in topology.nodes() {
        let children = topology.children(node);
        let is_root = node == topology.root();
        if children.is_empty() && !is_root {
            continue;
        }
        text += &if is_root { word(node) } else { node.to_owned() };
        for child in children {
            let _ = write!(text, " {}", word(child)); // a string takes all
        }
        text.push('\n');
    }
    text
}
