//! How mistakes are told in texts that people write: where, and in which words. The charter, topology,
//! application and bag files share it.
#![forbid(unsafe_code)]

mod reader;

pub use reader::in_words;

use core::fmt;

/// A place in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct At {
    /// The line, counted from 1.
    pub line: usize,
    /// The column, in characters, counted from 1.
    pub column: usize,
}

impl At {
    /// Line and column of the byte `offset` of `text`.
    pub fn of(text: &str, offset: usize) -> At {
        let before = &text[..text.floor_char_boundary(offset)];
        let line = before.matches('\n').count() + 1;
        let start = before.rfind('\n').map_or(0, |at| at + 1);
        At { line, column: before[start..].chars().count() + 1 }
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// The one of `known` that is closest to `word`, if it is close.
pub fn alike<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    let near = known.map(|name| (distance(word, name), name)).min()?;
    (near.0 <= 1 + word.chars().count() / 4).then(|| near.1.to_owned())
}

/// Letters to be changed, added or left out to make one word of the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, one) in a.chars().enumerate() {
        let mut corner = std::mem::replace(&mut row[0], i + 1);
        for (j, other) in b.iter().enumerate() {
            let change = corner + usize::from(one != *other);
            corner = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(corner + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_characters_and_the_end_is_a_place() {
        let text = "ab\nç d\n";
        let at = |line, column| At { line, column };
        assert_eq!(At::of(text, 0), at(1, 1));
        assert_eq!(At::of(text, 2), at(1, 3));
        assert_eq!(At::of(text, 3), at(2, 1));
        assert_eq!(At::of(text, 4), at(2, 1), "the middle of a character is that character");
        assert_eq!(At::of(text, 5), at(2, 2));
        assert_eq!(At::of(text, 1000), at(3, 1));
        assert_eq!(at(2, 3).to_string(), "line 2, column 3");
    }

    #[test]
    fn what_looks_alike_is_suggested() {
        assert_eq!(distance("rubi", "ruby"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(alike("ruby", ["topazio", "rubi"].into_iter()), Some("rubi".into()));
        assert_eq!(alike("x", ["topazio", "rubi"].into_iter()), None);
    }
}
