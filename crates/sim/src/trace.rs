//! What happened: counted, fingerprinted and, if wanted, kept as text.

use mutirao_wire::kind::Kind;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Index;

/// Messages sent between nodes, by kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sent {
    kinds: BTreeMap<Kind, (u64, u64)>,
}

impl Sent {
    pub(crate) fn count(&mut self, kind: Kind, bytes: usize) {
        let entry = self.kinds.entry(kind).or_default();
        entry.0 += 1;
        entry.1 += bytes as u64;
    }

    /// Messages of the kind with this name, if any were sent.
    pub fn get(&self, kind: &str) -> Option<&u64> {
        self.kinds.iter().find(|(known, _)| format!("{known:?}") == kind).map(|(_, (count, _))| count)
    }

    /// Whether any message of the kind with this name was sent.
    pub fn contains_key(&self, kind: &str) -> bool {
        self.get(kind).is_some()
    }

    /// Messages of all kinds.
    pub fn messages(&self) -> u64 {
        self.kinds.values().map(|(count, _)| count).sum()
    }

    /// Their bytes, headers included.
    pub fn bytes(&self) -> u64 {
        self.kinds.values().map(|(_, bytes)| bytes).sum()
    }

    /// Counts from zero again.
    pub fn clear(&mut self) {
        self.kinds.clear();
    }

    /// Each kind with its messages and bytes.
    pub fn iter(&self) -> impl Iterator<Item = (Kind, u64, u64)> + '_ {
        self.kinds.iter().map(|(kind, (count, bytes))| (*kind, *count, *bytes))
    }
}

impl Index<&str> for Sent {
    type Output = u64;
    fn index(&self, kind: &str) -> &u64 {
        self.get(kind).unwrap_or(&0)
    }
}

impl fmt::Display for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for (kind, count, _) in self.iter() {
            write!(f, "{}{count} {kind:?}", if first { "" } else { ", " })?;
            first = false;
        }
        Ok(())
    }
}

/// A fingerprint of all that went into it, in order.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Digest(u64);

impl Default for Digest {
    fn default() -> Digest {
        Digest(0xcbf2_9ce4_8422_2325)
    }
}

impl Digest {
    pub(crate) fn word(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        let mut chunks = bytes.chunks_exact(8);
        for chunk in &mut chunks {
            self.word(chunk.try_into().map_or(0, u64::from_le_bytes));
        }
        for byte in chunks.remainder() {
            self.word((*byte).into());
        }
        self.word(bytes.len() as u64);
    }

    pub(crate) fn value(self) -> u64 {
        self.0
    }
}
