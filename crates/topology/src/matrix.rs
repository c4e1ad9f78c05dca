//! Round trips between nodes, microseconds.
//!
//! ```text
//! ruby topaz opal          # the names
//! ruby     0   120   900   # a line for each of them, in any order, columns as in the first line
//! topaz  130     0   880
//! opal   910   890     -   # `-`: not measured
//! ```
//!
//! Of the two directions the shorter counts: what disturbs a measurement only makes it longer.

use crate::error::At;
use crate::{shown, words};
use std::fmt::Write;

/// Most nodes of a matrix: time and memory grow with their square.
pub const MATRIX_NODES_MAX: usize = 1024;

/// Round trips between any two of some nodes.
#[derive(Debug, Clone, PartialEq)]
pub struct Matrix {
    names: Vec<String>,
    /// Row by row; infinite where nothing is known.
    cells: Vec<f64>,
}

/// What is wrong with a matrix, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MatrixError {
    /// A word that is no name.
    #[error("{at}: `{word}` is not a name of a node")]
    BadName {
        /// Where.
        at: At,
        /// The word.
        word: String,
    },
    /// A name twice in the first line, or with two lines.
    #[error("{at}: `{name}` was there before")]
    Twice {
        /// Where.
        at: At,
        /// The name.
        name: String,
    },
    /// A line of a node that the first line does not name.
    #[error("{at}: `{word}` is not among the names of the first line")]
    Unknown {
        /// Where.
        at: At,
        /// The word.
        word: String,
    },
    /// A word that is no time.
    #[error("{at}: `{word}` is not a round trip: a number of microseconds, or `-`")]
    BadTime {
        /// Where.
        at: At,
        /// The word.
        word: String,
    },
    /// A line that is too short or too long.
    #[error("{at}: the line of `{name}` has {found} round trips, the first line {expected} names")]
    Columns {
        /// Where.
        at: At,
        /// Whose line.
        name: String,
        /// How many there are.
        found: usize,
        /// How many there should be.
        expected: usize,
    },
    /// Two nodes between which neither direction is given.
    #[error("no round trip is given between `{a}` and `{b}`")]
    Gap {
        /// One.
        a: String,
        /// The other.
        b: String,
    },
    /// More than a matrix can have.
    #[error("more than {MATRIX_NODES_MAX} nodes")]
    TooMany,
    /// Nothing but comments.
    #[error("the file names no node")]
    Empty,
}

impl Matrix {
    /// A matrix about `names` in which nothing is known yet. Refused beyond [`MATRIX_NODES_MAX`].
    pub fn new(names: Vec<String>) -> Result<Matrix, MatrixError> {
        if names.len() > MATRIX_NODES_MAX {
            return Err(MatrixError::TooMany);
        }
        let cells = vec![f64::INFINITY; names.len() * names.len()];
        Ok(Matrix { names, cells })
    }

    /// Reads a file's text.
    pub fn parse(text: &str) -> Result<Matrix, MatrixError> {
        let mut lines = text.lines().enumerate().map(|(i, line)| (i + 1, line));
        let head = lines.by_ref().find(|(_, line)| words(line).next().is_some()).ok_or(MatrixError::Empty)?;
        let mut matrix = Matrix::new(names(head.0, head.1)?)?;
        let mut done = vec![false; matrix.names.len()];
        for (line, text) in lines {
            let mut words = words(text).map(|(column, word)| (At { line, column }, word));
            let Some((first, name)) = words.next() else { continue };
            let row =
                matrix.place_of(name).ok_or_else(|| MatrixError::Unknown { at: first, word: shown(name) })?;
            if std::mem::replace(&mut done[row], true) {
                return Err(MatrixError::Twice { at: first, name: shown(name) });
            }
            let expected = matrix.names.len();
            let mut found = 0;
            for (at, word) in words {
                let time = if word == "-" { Some(f64::INFINITY) } else { word.parse().ok() };
                let time = time.filter(|us: &f64| *us >= 0.0 && (us.is_finite() || word == "-"));
                let time = time.ok_or_else(|| MatrixError::BadTime { at, word: shown(word) })?;
                if found < expected {
                    matrix.set(row, found, time);
                }
                found += 1;
            }
            if found != expected {
                return Err(MatrixError::Columns { at: first, name: shown(name), found, expected });
            }
        }
        matrix.complete()?;
        Ok(matrix)
    }

    /// Whose round trips these are.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The place of a name.
    pub fn place_of(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|known| known == name)
    }

    /// Notes a measurement, microseconds, of the way from `a` to `b`.
    pub fn set(&mut self, a: usize, b: usize, us: f64) {
        self.cells[a * self.names.len() + b] = us;
    }

    /// The round trip between two nodes, microseconds; infinite where it is not known.
    pub fn between(&self, a: usize, b: usize) -> f64 {
        let n = self.names.len();
        if a == b { 0.0 } else { self.cells[a * n + b].min(self.cells[b * n + a]) }
    }

    /// Checks that something is known about any two nodes.
    pub fn complete(&self) -> Result<(), MatrixError> {
        for a in 0..self.names.len() {
            if let Some(b) = (0..a).find(|b| self.between(a, *b).is_infinite()) {
                return Err(MatrixError::Gap { a: self.names[b].clone(), b: self.names[a].clone() });
            }
        }
        Ok(())
    }

    /// Writes the matrix as [`parse`](Matrix::parse) reads it, in whole microseconds.
    pub fn write(&self) -> String {
        let mut text = self.names.join(" ");
        text.push('\n');
        let wide = self.names.iter().map(String::len).max().unwrap_or(0);
        for (row, name) in self.names.iter().enumerate() {
            let _ = write!(text, "{name:<wide$}"); // a string takes all
            for us in &self.cells[row * self.names.len()..][..self.names.len()] {
                let _ = if us.is_finite() { write!(text, " {us:>6.0}") } else { write!(text, "      -") };
            }
            text.push('\n');
        }
        text
    }
}

fn names(line: usize, text: &str) -> Result<Vec<String>, MatrixError> {
    let mut seen = std::collections::BTreeSet::new();
    let mut names = Vec::new();
    for (column, word) in words(text) {
        let at = At { line, column };
        if mutirao_trust::Name::new(word).is_err() {
            return Err(MatrixError::BadName { at, word: shown(word) });
        }
        if !seen.insert(word) {
            return Err(MatrixError::Twice { at, name: word.into() });
        }
        if names.len() == MATRIX_NODES_MAX {
            return Err(MatrixError::TooMany);
        }
        names.push(word.to_owned());
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_matrix_is_read_and_the_shorter_way_counts() {
        let matrix = Matrix::parse("# us\na b c\nb 130 0 7\na 0 120 9.5\nc - 8 -\n").unwrap();
        assert_eq!(matrix.names(), ["a", "b", "c"]);
        assert_eq!((matrix.between(0, 1), matrix.between(1, 0)), (120.0, 120.0));
        assert_eq!((matrix.between(2, 0), matrix.between(2, 1), matrix.between(2, 2)), (9.5, 7.0, 0.0));
    }

    #[test]
    fn mistakes_are_named() {
        let begins = |text: &str, expected: &str| {
            let error = Matrix::parse(text).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{text:?}: {error}");
        };
        begins("a b a\n", "line 1, column 5: `a` was there before");
        begins("a b/\n", "line 1, column 3: `b/` is not a name");
        begins("a b\nc 1 2\n", "line 2, column 1: `c` is not among");
        begins("a b\na 0 1\na 0 1\n", "line 3, column 1: `a` was there before");
        begins("a b\na 0 x\n", "line 2, column 5: `x` is not a round trip");
        begins("a b\na 0 -1\n", "line 2, column 5: `-1` is not");
        begins("a b\na 0 inf\n", "line 2, column 5: `inf` is not");
        begins("a b\na 0\n", "line 2, column 1: the line of `a` has 1 round trips");
        begins("a b\na 0 1 2\n", "line 2, column 1: the line of `a` has 3 round trips");
        begins("a b\na 0 -\n", "no round trip is given between `a` and `b`");
        begins("\n", "the file names no node");
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(n in 1_usize..12, cells in prop::collection::vec(0_u32..100_000, 144)) {
            let mut matrix = Matrix::new((0..n).map(|i| format!("n{i}")).collect()).unwrap();
            for a in 0..n {
                for b in 0..n {
                    matrix.set(a, b, f64::from(cells[a * n + b]));
                }
            }
            prop_assert_eq!(Matrix::parse(&matrix.write()).unwrap(), matrix);
        }

        #[test]
        fn any_text_is_a_matrix_or_an_error(text in "([ab0-9 .\n-]|inf|nan){0,40}") {
            if let Ok(matrix) = Matrix::parse(&text) {
                prop_assert!(matrix.complete().is_ok());
                let again = Matrix::parse(&matrix.write()).unwrap();
                prop_assert_eq!(again.names(), matrix.names());
            }
        }
    }
}
