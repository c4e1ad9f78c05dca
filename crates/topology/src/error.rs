//! Where a file is wrong, and how.

use crate::NODES_MAX;
pub use mutirao_text::At;
use mutirao_wire::limits::{CHILDREN_MAX, DEPTH_MAX};

/// What is wrong with a topology file, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopologyError {
    /// A mistake with a place.
    #[error("{at}: {mistake}")]
    Wrong {
        /// Where.
        at: At,
        /// What.
        mistake: Mistake,
    },
    /// Nothing but comments.
    #[error("the file names no node")]
    Empty,
}

impl TopologyError {
    /// Where the mistake is, if it is in one place.
    pub fn at(&self) -> Option<At> {
        match self {
            TopologyError::Wrong { at, .. } => Some(*at),
            TopologyError::Empty => None,
        }
    }
}

/// What can be wrong in one place of a topology file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Mistake {
    /// A word that names no node.
    #[error(
        "`{word}` is not a node: a name of letters, digits, `-`, `_` and `.`, with `=host:port` behind it if need be"
    )]
    BadWord {
        /// The word.
        word: String,
    },
    /// An address that is none.
    #[error("`{word}` is not an address: it is written `host:port`")]
    BadPlace {
        /// The word.
        word: String,
    },
    /// A parent without children, in a file with other nodes.
    #[error("`{parent}` stands alone: its children belong on the same line")]
    NoChildren {
        /// The parent.
        parent: String,
    },
    /// A node that is its own parent.
    #[error("`{node}` cannot be its own child")]
    OwnParent {
        /// The node.
        node: String,
    },
    /// A node with two parents, or named twice under one.
    #[error("`{node}` is a child of `{first}` already, on line {}; a node has one parent", .first_at.line)]
    TwoParents {
        /// The node.
        node: String,
        /// The first parent.
        first: String,
        /// The first mention as a child.
        first_at: At,
    },
    /// A node below itself.
    #[error("`{node}` is above `{parent}` already; this would close a circle")]
    Cycle {
        /// The child that closes it.
        node: String,
        /// The parent it was to have.
        parent: String,
    },
    /// Two nodes without parent.
    #[error("`{second}` has no parent, and neither has `{first}` (line {}); put one below the other", .first_at.line)]
    TwoRoots {
        /// The first root.
        first: String,
        /// Its first mention.
        first_at: At,
        /// The second root.
        second: String,
    },
    /// Two addresses for one node.
    #[error("`{node}` was given the address `{first}` before")]
    TwoPlaces {
        /// The node.
        node: String,
        /// Its first address.
        first: String,
    },
    /// An address for a node that is in no tree.
    #[error("`{node}` has an address, but is nobody's parent or child")]
    PlaceOnly {
        /// The node.
        node: String,
    },
    /// More than a node or a file can have.
    #[error("too many: a node has at most {CHILDREN_MAX} children, a file at most {NODES_MAX} nodes")]
    TooMany,
    /// Deeper than a tree can be.
    #[error("`{node}` is too deep: a tree has at most {DEPTH_MAX} levels below its root")]
    TooDeep {
        /// The node.
        node: String,
    },
    /// Not TOML, or not the settings of a topology.
    #[error("{reason}")]
    Document {
        /// In the words of the reader of TOML.
        reason: String,
    },
}

impl Mistake {
    pub(crate) fn at(self, at: At) -> TopologyError {
        TopologyError::Wrong { at, mistake: self }
    }
}
