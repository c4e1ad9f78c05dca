//! Who is whose parent, as an administrator writes it: files, the trees made from them, drawings.
//!
//! Nothing here does I/O. A [`Topology`] is one tree of named nodes and is read from and written to two
//! forms: [`columns`] (a line a parent) and [`document`] (TOML). A [`hosts::HostFile`] lists machines;
//! [`shape`] and [`near`] make trees out of such lists, by order, by group or by measured [`matrix`];
//! [`draw`] shows a tree as text, Graphviz, SVG or as a page on which it can be changed.
#![forbid(unsafe_code)]

pub mod columns;
pub mod document;
pub mod draw;
mod error;
pub mod hosts;
pub mod matrix;
pub mod near;
mod page;
pub mod shape;
mod svg;
mod tree;

pub use error::{At, Mistake, TopologyError};
pub use tree::{Draft, Topology};

/// Most nodes a file may name.
pub const NODES_MAX: usize = 100_000;

/// Longest word of a file, characters: a user, a host name and what separates them fit.
pub const WORD_CHARS_MAX: usize = 320;

/// The words of a line, each with its column counted in characters from 1. A comment, which begins with
/// `#`, is left out.
pub fn words(line: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut rest = line.split('#').next().unwrap_or_default();
    let mut column = 1;
    std::iter::from_fn(move || {
        let word = rest.trim_start();
        column += rest[..rest.len() - word.len()].chars().count();
        if word.is_empty() {
            return None;
        }
        let (word, tail) = word.split_at(word.find(char::is_whitespace).unwrap_or(word.len()));
        let start = column;
        column += word.chars().count();
        rest = tail;
        Some((start, word))
    })
}

/// A word of a file, short enough to be shown in a message.
pub(crate) fn shown(word: &str) -> String {
    word.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_know_their_columns() {
        assert_eq!(words("  ab  çd\te # x").collect::<Vec<_>>(), [(3, "ab"), (7, "çd"), (10, "e")]);
        assert_eq!(words("# nothing").count(), 0);
    }
}
