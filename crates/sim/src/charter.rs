//! What a daemon does about the charter, and an administrator.

use crate::world::World;
use mutirao_tree::Input;
use mutirao_wire::charter::{CharterDocument, CharterVersion};

/// A simulated charter: a number and some text, its signature their hash.
pub fn signed_charter(number: u64, text: u64) -> CharterDocument {
    let mut hash = [0; 32];
    let mut x = number ^ 0x6a09_e667_f3bc_c908;
    for chunk in hash.chunks_mut(8) {
        x = (x ^ text).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        x ^= x >> 31;
        chunk.copy_from_slice(&x.to_le_bytes());
    }
    let document = [number.to_le_bytes(), text.to_le_bytes()].concat();
    CharterDocument { version: CharterVersion { number, hash }, document }
}

impl World {
    /// An administrator at a node makes the next version of the charter; which it is.
    pub fn edit_charter(&mut self, index: usize) -> CharterVersion {
        let before = self.nodes[index].charter.as_ref().map_or(0, |charter| charter.version.number);
        let charter = signed_charter(before + 1, self.random.draw());
        let version = charter.version;
        self.keep_charter(index, charter);
        version
    }

    /// A version that came is kept if its signature is in order.
    pub(crate) fn charter_came(&mut self, index: usize, charter: CharterDocument) {
        let signed = |bytes: &[u8]| {
            let (number, text) = bytes.split_first_chunk()?;
            let (text, []) = text.split_first_chunk()? else { return None };
            Some(signed_charter(u64::from_le_bytes(*number), u64::from_le_bytes(*text)).version)
        };
        match signed(&charter.document) {
            Some(version) if version == charter.version => self.keep_charter(index, charter),
            _ => self.nodes[index].bad_charters += 1,
        }
    }

    fn keep_charter(&mut self, index: usize, charter: CharterDocument) {
        if self.nodes[index].charter.as_ref().is_none_or(|kept| kept.version < charter.version) {
            self.nodes[index].charter = Some(charter.clone());
        }
        self.input(index, Input::Charter(charter));
    }
}
