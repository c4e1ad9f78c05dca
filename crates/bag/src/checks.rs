//! How results are checked, and what a result is when it is compared.

use mutirao_schedule::bag::check::{Rule, RuleError, VOTES_MAX};
use mutirao_wire::BlobHash;
use serde::{Deserialize, Serialize};

/// Millionths, for parts of one.
const MILLION: f64 = 1_000_000.0;

/// When a result is accepted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Accept {
    /// The first one is.
    #[default]
    First,
    /// When more than half of so many agree, each from another node.
    Majority {
        /// How many.
        of: u8,
    },
    /// When the estimated chance that it is right is so large.
    Credible {
        /// That chance, in millionths.
        at_least_millionths: u32,
    },
}

/// How the results of a bag are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checks {
    /// When a result is accepted.
    pub accept: Accept,
    /// The part of all attempts that are spot checks, in millionths.
    pub spot_millionths: u32,
    /// The part of all nodes that is assumed to lie, in millionths.
    pub liars_millionths: u32,
}

impl Default for Checks {
    fn default() -> Checks {
        Checks { accept: Accept::First, spot_millionths: 0, liars_millionths: 100_000 }
    }
}

impl Checks {
    /// Whether the first result of each task is taken as it is.
    pub fn are_none(&self) -> bool {
        self.accept == Accept::First && self.spot_millionths == 0
    }

    /// The rule for the judge.
    pub(crate) fn rule(&self) -> Rule {
        match self.accept {
            Accept::First => Rule::First,
            Accept::Majority { of } => Rule::Majority { of },
            Accept::Credible { at_least_millionths } => {
                Rule::Credible { at_least: f64::from(at_least_millionths) / MILLION }
            }
        }
    }

    pub(crate) fn spot_part(&self) -> f64 {
        f64::from(self.spot_millionths) / MILLION
    }

    pub(crate) fn liars_part(&self) -> f64 {
        f64::from(self.liars_millionths) / MILLION
    }
}

/// A part of one as it is written, such as `0.05`, in millionths.
pub fn millionths(text: &str) -> Option<u32> {
    let part: f64 = text.parse().ok()?;
    ((0.0..=1.0).contains(&part)).then(|| (part * MILLION).round() as u32)
}

impl std::str::FromStr for Accept {
    type Err = String;

    /// Reads `first`, `majority of 3` or `credible 0.999`.
    fn from_str(text: &str) -> Result<Accept, String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        match words[..] {
            ["first"] => Ok(Accept::First),
            ["majority", "of", count] => match count.parse() {
                Ok(of) if (2..=VOTES_MAX).contains(&of) => Ok(Accept::Majority { of }),
                Ok(of) => Err(RuleError::Majority(of).to_string()),
                Err(_) => Err(format!("`{count}` is no number from 2 to {VOTES_MAX}")),
            },
            ["credible", chance] => match millionths(chance) {
                Some(at_least_millionths) if (500_001..1_000_000).contains(&at_least_millionths) => {
                    Ok(Accept::Credible { at_least_millionths })
                }
                _ => Err(format!("`{chance}` is no chance above 0.5 and below 1, such as 0.999")),
            },
            _ => Err(format!(
                "`{text}` is no way to accept results; it is `first`, `majority of 3` or `credible 0.999`"
            )),
        }
    }
}

/// What a result is when it is compared with another: what the task wrote to its standard output, the files it was
/// to bring, by name, in their order, and what it has said. Not its standard error.
pub fn content_hash<'a>(
    stdout: &[u8],
    files: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    said: &str,
) -> BlobHash {
    let mut hasher = blake3::Hasher::new();
    // The length before each part, so that none can be taken for another.
    let mut part = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    part(stdout);
    part(said.as_bytes());
    for (name, bytes) in files {
        part(name.as_bytes());
        part(bytes);
    }
    BlobHash(*hasher.finalize().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_to_accept_are_read_or_refused() {
        assert_eq!("first".parse(), Ok(Accept::First));
        assert_eq!("majority of 3".parse(), Ok(Accept::Majority { of: 3 }));
        assert_eq!("credible 0.999".parse(), Ok(Accept::Credible { at_least_millionths: 999_000 }));
        for text in ["", "majority", "majority of 1", "majority of 99", "majority of x", "credible 1", "all"]
        {
            let wrong = text.parse::<Accept>().unwrap_err();
            assert!(!wrong.is_empty(), "{text}");
        }
    }

    #[test]
    fn results_are_the_same_only_if_all_of_them_is() {
        let plain = content_hash(b"a", [("f", &b"x"[..])], "");
        assert_eq!(plain, content_hash(b"a", [("f", &b"x"[..])], ""));
        let others = [
            content_hash(b"b", [("f", &b"x"[..])], ""),
            content_hash(b"a", [("f", &b"y"[..])], ""),
            content_hash(b"a", [("fx", &b""[..])], ""),
            content_hash(b"a", [], ""),
            content_hash(b"", [("f", &b"x"[..])], "a"),
        ];
        others.iter().for_each(|other| assert_ne!(plain, *other));
    }
}
