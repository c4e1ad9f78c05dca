//! What the owner has decided about plugins, and what waits for a decision.

use mutirao_wire::PluginId;
use mutirao_wire::query::Approval;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// Plugins that may wait for a decision; of more, the longest waiting is dropped.
const PENDING_MAX: usize = 256;
/// Decisions that are kept.
const DECIDED_MAX: usize = 4096;
/// Longest file that is read, bytes.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Shortest beginning of an id that names plugins, digits.
const DIGITS_MIN: usize = 4;

/// One plugin in the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Who asked for it last.
    pub user: String,
    /// Bytes of all its files.
    pub bytes: u64,
    /// When it was first asked for, seconds since 1970.
    pub first_seen_unix_s: u64,
    /// The decision.
    pub decision: Decision,
}

/// Whether a plugin may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// Not decided.
    Pending,
    /// It may.
    Approved,
    /// It may not.
    Denied,
}

impl From<Decision> for Approval {
    fn from(decision: Decision) -> Approval {
        match decision {
            Decision::Pending => Approval::Pending,
            Decision::Approved => Approval::Approved,
            Decision::Denied => Approval::Denied,
        }
    }
}

/// Why decisions could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ApprovalsError {
    /// The file cannot be read.
    #[error(transparent)]
    Store(#[from] mutirao_store::Error),
    /// The file is not one of decisions.
    #[error("the list of approved plugins {path} cannot be understood: {what}; mend it or remove it")]
    Unreadable {
        /// The file.
        path: String,
        /// What is wrong.
        what: String,
    },
}

/// The list, by id in hexadecimal as in its file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approvals {
    #[serde(default)]
    plugins: BTreeMap<String, Entry>,
}

impl Approvals {
    /// Reads the list; a file that is not there is an empty one. One that is damaged is an error,
    /// since what was denied would otherwise be allowed.
    pub fn read(path: &Path) -> Result<Approvals, ApprovalsError> {
        let unreadable = |what: String| ApprovalsError::Unreadable { path: path.display().to_string(), what };
        let bytes = match mutirao_store::read_limited(path, FILE_BYTES_MAX) {
            Err(error) if error.is_missing() => return Ok(Approvals::default()),
            other => other?,
        };
        let text = String::from_utf8(bytes).map_err(|error| unreadable(error.to_string()))?;
        let list: Approvals =
            toml::from_str(&text).map_err(|error| unreadable(error.message().to_owned()))?;
        if let Some(id) = list.plugins.keys().find(|id| id.parse::<PluginId>().is_err()) {
            return Err(unreadable(format!("`{id}` is no plugin's id")));
        }
        Ok(list)
    }

    /// Replaces the file by this list. Blocks until it is on the disk.
    pub fn write(&self, path: &Path) -> Result<(), String> {
        let text = toml::to_string(self).map_err(|error| error.to_string())?;
        mutirao_store::write_atomic(path, text.as_bytes(), 0o600).map_err(|error| error.to_string())
    }

    /// Somebody wants to run a plugin that is not decided. Whether the list has changed.
    pub fn ask(&mut self, plugin: PluginId, name: &str, user: &str, bytes: u64, now_unix_s: u64) -> bool {
        let id = plugin.to_string();
        if let Some(entry) = self.plugins.get_mut(&id) {
            let changed = entry.user != user;
            entry.user = user.to_owned();
            return changed;
        }
        let pending = || self.plugins.iter().filter(|(_, entry)| entry.decision == Decision::Pending);
        if pending().count() >= PENDING_MAX {
            let oldest = pending().min_by_key(|(_, entry)| entry.first_seen_unix_s).map(|(id, _)| id.clone());
            oldest.and_then(|id| self.plugins.remove(&id));
        }
        self.plugins.insert(
            id,
            Entry {
                name: name.to_owned(),
                user: user.to_owned(),
                bytes,
                first_seen_unix_s: now_unix_s,
                decision: Decision::Pending,
            },
        );
        true
    }

    /// Decides about one plugin.
    pub fn decide(
        &mut self,
        plugin: PluginId,
        approve: bool,
        about: impl FnOnce() -> Entry,
    ) -> Result<(), String> {
        let decision = if approve { Decision::Approved } else { Decision::Denied };
        let decided = self.plugins.values().filter(|entry| entry.decision != Decision::Pending).count();
        if decided >= DECIDED_MAX {
            return Err(format!(
                "{decided} plugins are decided already; remove some with `mutirao plugin rm`"
            ));
        }
        self.plugins.entry(plugin.to_string()).or_insert_with(about).decision = decision;
        Ok(())
    }

    /// Forgets a plugin; whether it was in the list.
    pub fn forget(&mut self, plugin: PluginId) -> bool {
        self.plugins.remove(&plugin.to_string()).is_some()
    }

    /// The entry of a plugin.
    pub fn find(&self, plugin: PluginId) -> Option<&Entry> {
        self.plugins.get(&plugin.to_string())
    }

    /// The whole list.
    pub fn all(&self) -> impl Iterator<Item = (PluginId, &Entry)> {
        // What is in the list has been parsed or made from an id.
        self.plugins.iter().filter_map(|(id, entry)| Some((id.parse().ok()?, entry)))
    }

    /// Those with one decision.
    pub fn with(&self, decision: Decision) -> Vec<PluginId> {
        self.all().filter(|(_, entry)| entry.decision == decision).map(|(id, _)| id).collect()
    }
}

/// Whether a plugin is meant by `what`: its name, or the beginning of its id.
pub fn is_meant(what: &str, id: PluginId, name: &str) -> bool {
    what == name || (what.len() >= DIGITS_MIN && id.to_string().starts_with(&what.to_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(number: u16) -> PluginId {
        let mut bytes = [0; 32];
        bytes[..2].copy_from_slice(&number.to_be_bytes());
        PluginId(bytes)
    }

    fn nobody() -> Entry {
        unreachable!("the plugin is in the list")
    }

    #[test]
    fn decisions_outlive_the_node() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("approvals.toml");
        let mut list = Approvals::read(&path).unwrap();
        assert!(list.ask(id(1), "one", "ana@n1", 10, 100));
        assert!(!list.ask(id(1), "one", "ana@n1", 10, 200), "nothing new");
        assert!(list.ask(id(2), "two", "bob@n2", 20, 200));
        list.decide(id(2), true, nobody).unwrap();
        list.write(&path).unwrap();
        let again = Approvals::read(&path).unwrap();
        assert_eq!(again, list);
        assert_eq!(again.with(Decision::Approved), [id(2)]);
        assert_eq!(again.find(id(1)).unwrap().first_seen_unix_s, 100);
    }

    #[test]
    fn a_damaged_list_is_an_error_and_not_an_empty_one() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("approvals.toml");
        for text in ["plugins = 3", "[plugins.xyz]\nname = 'a'", "\u{0}"] {
            std::fs::write(&path, text).unwrap();
            assert!(Approvals::read(&path).unwrap_err().to_string().contains("approvals.toml"));
        }
    }

    #[test]
    fn those_who_wait_are_bounded_and_the_decided_stay() {
        let mut list = Approvals::default();
        list.ask(id(9999), "denied", "u", 1, 0);
        list.decide(id(9999), false, nobody).unwrap();
        for number in 0..PENDING_MAX as u16 + 10 {
            list.ask(id(number), "p", "u", 1, u64::from(number) + 1);
        }
        assert_eq!(list.with(Decision::Pending).len(), PENDING_MAX);
        assert!(list.find(id(9)).is_none() && list.find(id(10)).is_some());
        assert_eq!(list.with(Decision::Denied), [id(9999)]);
    }

    #[test]
    fn a_plugin_is_meant_by_its_name_or_the_beginning_of_its_id() {
        assert!(is_meant("tool", id(0xabcd), "tool"));
        assert!(is_meant("ABCD", id(0xabcd), "tool"));
        assert!(!is_meant("ab", id(0xabcd), "tool"), "too short to be sure");
        assert!(!is_meant("", id(0xabcd), "tool"));
    }

    proptest! {
        #[test]
        fn any_file_is_a_list_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let place = tempfile::tempdir().unwrap();
            let path = place.path().join("list");
            std::fs::write(&path, bytes).unwrap();
            let _ = Approvals::read(&path);
        }
    }
}
