//! Names of pools, nodes and users, and the roles they are certified for.

use core::fmt;
use core::str::FromStr;
use serde::{Deserialize, Serialize};

/// The most characters of a [`Name`]: what one label of a host name holds.
pub const NAME_CHARS_MAX: usize = 63;

/// The name of a pool, a node or a user.
///
/// 1 to 63 characters, ASCII letters, digits, `.`, `_` and `-`, the first a letter or a digit: it can be a
/// directory's name and be printed anywhere without quoting.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// A text that is not a [`Name`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a name: use 1 to 63 letters, digits, `.`, `_` and `-`, the first a letter or digit")]
pub struct BadName(String);

impl Name {
    /// Checks `text` and makes a name of it.
    pub fn new(text: &str) -> Result<Name, BadName> {
        let letter = |b: u8| b.is_ascii_alphanumeric();
        let allowed = |b: u8| letter(b) || matches!(b, b'.' | b'_' | b'-');
        let bytes = text.as_bytes();
        let good = bytes.len() <= NAME_CHARS_MAX
            && bytes.first().is_some_and(|&b| letter(b))
            && bytes.iter().all(|&b| allowed(b));
        if good { Ok(Name(text.to_owned())) } else { Err(BadName(text.chars().take(80).collect())) }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = BadName;
    fn from_str(text: &str) -> Result<Name, BadName> {
        Name::new(text)
    }
}

impl TryFrom<String> for Name {
    type Error = BadName;
    fn try_from(text: String) -> Result<Name, BadName> {
        Name::new(&text)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> String {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name({})", self.0)
    }
}

/// What an identity is certified for. It is the organisational unit in the certificate's subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Role {
    /// Uses the pool: signs tokens for its applications.
    User,
    /// Is a machine's node: holds links with other nodes.
    Node,
    /// Administers the pool: signs orders, and may do what a user may.
    Admin,
}

impl Role {
    /// The word that stands in certificates and texts.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::User => "user",
            Role::Node => "node",
            Role::Admin => "admin",
        }
    }

    /// The role that `word` stands for.
    pub fn from_word(word: &str) -> Option<Role> {
        [Role::User, Role::Node, Role::Admin].into_iter().find(|role| role.as_str() == word)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe_as_file_names() {
        for good in ["a", "node-1", "lab.example_2", "9", &"x".repeat(63)] {
            assert_eq!(Name::new(good).unwrap().as_str(), good);
        }
        for bad in ["", ".", "..", "-a", "_a", "a/b", "a b", "é", "a\0", "a\n", &"x".repeat(64)] {
            assert!(Name::new(bad).is_err(), "{bad:?}");
        }
    }
}
