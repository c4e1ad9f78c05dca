//! The versions of the charter that this node keeps: one file each, signed as they came.

use crate::error::Error;
use mutirao_store::{read_limited, write_atomic};
use mutirao_tree::{Admission, Deny, Settings};
use mutirao_trust::{
    AdmissionMode, Admit, Charter, CharterEdition, Identity, Name, Pool, Refusal, SignedCharter, app_id,
};
use mutirao_wire::charter::{CHARTER_BYTES_MAX, CharterDocument, CharterRow, CharterVersion};
use mutirao_wire::link::Pace;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

/// Versions kept.
pub(crate) const KEPT_MAX: usize = 32;
const SUFFIX: &str = "charter";

/// The charters of a node, newest first; the newest is in force.
pub(crate) struct Charters {
    pool: Pool,
    directory: PathBuf,
    kept: Vec<Kept>,
}

struct Kept {
    edition: CharterEdition,
    document: Vec<u8>,
}

/// A file to be written, and what is to go for it.
pub(crate) struct Writing {
    path: PathBuf,
    document: Vec<u8>,
    surplus: Vec<PathBuf>,
}

impl Writing {
    /// Writes it; blocks.
    pub(crate) fn run(self) -> Result<(), mutirao_store::Error> {
        if let Some(directory) = self.path.parent() {
            make(directory);
        }
        write_atomic(&self.path, &self.document, 0o600)?;
        for path in self.surplus {
            if let Err(error) = fs::remove_file(&path) {
                tracing::debug!("{} stays: {error}", path.display());
            }
        }
        Ok(())
    }
}

fn make(directory: &Path) {
    use std::os::unix::fs::DirBuilderExt;
    // If it cannot be made, writing into it says so.
    let _ = fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
}

impl Charters {
    /// Reads what is kept below `state`, the node's own directory. A file that is not a charter of `pool`,
    /// torn or forged, is set aside as `.bad` and named in the log.
    pub(crate) fn load(state: &Path, pool: &Pool) -> Charters {
        let directory = state.join("charter");
        let mut charters = Charters { pool: pool.clone(), directory, kept: Vec::new() };
        let entries = fs::read_dir(&charters.directory).into_iter().flatten().flatten();
        let files = entries.map(|entry| entry.path()).filter(|p| p.extension().is_some_and(|e| e == SUFFIX));
        let mut files: Vec<PathBuf> = files.collect();
        files.sort();
        for path in files {
            let document = read_limited(&path, CHARTER_BYTES_MAX as u64);
            let read = document.map_err(|error| error.to_string()).and_then(|document| {
                let edition = charters.verify(&document).map_err(|refusal| refusal.to_string())?;
                Ok(Kept { edition, document })
            });
            match read {
                Ok(kept) => charters.kept.push(kept),
                Err(why) => {
                    let aside = path.with_extension("bad");
                    tracing::warn!("{} is no charter of this pool, and is set aside: {why}", path.display());
                    if let Err(error) = fs::rename(&path, &aside) {
                        tracing::warn!("{} cannot be renamed: {error}", path.display());
                    }
                }
            }
        }
        charters.kept.sort_by_key(|kept| std::cmp::Reverse(kept.edition.version));
        charters.kept.truncate(KEPT_MAX);
        charters
    }

    fn verify(&self, document: &[u8]) -> Result<CharterEdition, Refusal> {
        SignedCharter::from_bytes(document)?.verify(&self.pool)
    }

    /// The version in force, if there is any.
    pub(crate) fn edition(&self) -> Option<&CharterEdition> {
        self.kept.first().map(|kept| &kept.edition)
    }

    /// Its number and hash; zeros for none.
    pub(crate) fn version(&self) -> CharterVersion {
        self.edition().map_or_else(CharterVersion::default, |edition| edition.version)
    }

    /// What it says; the default where there is none.
    pub(crate) fn rules(&self) -> Charter {
        self.edition().map(|edition| edition.charter.clone()).unwrap_or_default()
    }

    /// What it says, as it is written.
    pub(crate) fn text(&self) -> String {
        self.edition().map_or_else(|| Charter::default().to_text(), |edition| edition.text.clone())
    }

    /// The document in force, for the overlay.
    pub(crate) fn document(&self) -> Option<CharterDocument> {
        let kept = self.kept.first()?;
        Some(CharterDocument { version: kept.edition.version, document: kept.document.clone() })
    }

    /// Takes a document that came or was made here, if it is in order and newer than that in force; what is
    /// then to be written. `Ok(None)` and an error change nothing.
    pub(crate) fn take(&mut self, document: Vec<u8>) -> Result<Option<Writing>, Refusal> {
        let edition = self.verify(&document)?;
        if edition.version <= self.version() {
            return Ok(None);
        }
        let path = self.path(&edition.version);
        self.kept.insert(0, Kept { edition, document: document.clone() });
        let surplus = self.kept.split_off(self.kept.len().min(KEPT_MAX));
        let surplus = surplus.iter().map(|kept| self.path(&kept.edition.version)).collect();
        Ok(Some(Writing { path, document, surplus }))
    }

    fn path(&self, version: &CharterVersion) -> PathBuf {
        let hash: String = version.hash[..4].iter().map(|b| format!("{b:02x}")).collect();
        self.directory.join(format!("{:010}-{hash}.{SUFFIX}", version.number))
    }

    /// All versions kept, newest first.
    pub(crate) fn rows(&self, node: &str) -> Vec<CharterRow> {
        self.kept.iter().map(|kept| row(node, &kept.edition, kept.edition.text.clone())).collect()
    }

    /// The version in force, without its text.
    pub(crate) fn row(&self, node: &str) -> CharterRow {
        let none = CharterRow {
            node: node.into(),
            version: CharterVersion::default(),
            previous: [0; 32],
            by: String::new(),
            signed_unix_ms: 0,
            text: String::new(),
        };
        self.edition().map_or(none, |edition| row(node, edition, String::new()))
    }
}

fn row(node: &str, edition: &CharterEdition, text: String) -> CharterRow {
    CharterRow {
        node: node.into(),
        version: edition.version,
        previous: edition.previous,
        by: edition.by.name.as_str().into(),
        signed_unix_ms: edition.signed_unix_ms,
        text,
    }
}

/// Makes version 1 of the charter of a new pool, kept by its first node. Nothing changes if that has one.
pub fn found_charter(state: &Path, node: &Name, admin: &Identity) -> Result<(), Error> {
    let own = state.join("nodes").join(node.as_str());
    let mut charters = Charters::load(&own, admin.pool());
    if charters.edition().is_some() {
        return Ok(());
    }
    let text = Charter::default().to_text();
    let refused = |refusal| Error::Identity { name: admin.me().name.as_str().into(), refusal };
    let signed = SignedCharter::sign(admin, CharterVersion::default(), crate::sys::unix_ms(), &text)
        .map_err(refused)?;
    match charters.take(signed.to_bytes()).map_err(refused)? {
        Some(writing) => {
            let path = writing.path.clone();
            writing.run().map_err(|error| Error::file("cannot write", &path)(std::io::Error::other(error)))
        }
        None => Ok(()),
    }
}

/// Whom the pool denies, where tokens and orders are judged.
#[derive(Clone, Default)]
pub(crate) struct Denied(Arc<RwLock<Deny>>);

impl Denied {
    pub(crate) fn set(&self, deny: Deny) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = deny;
    }

    /// Why a user is denied, if so.
    pub(crate) fn user(&self, id: Option<mutirao_wire::NodeId>, name: &str) -> Option<String> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).user(id, name)
    }

    /// Lets in those who sign and are not denied.
    pub(crate) fn admit(&self) -> Admit {
        let denied = self.clone();
        Admit::when(move |peer| match denied.user(Some(peer.node), peer.name.as_str()) {
            Some(why) => Err(why),
            None => Ok(()),
        })
    }
}

/// Whom the charter denies.
pub(crate) fn deny(charter: &Charter) -> Deny {
    Deny { nodes: charter.deny.nodes.clone(), users: charter.deny.users.clone() }
}

/// Whom the charter lets allocate at `now_unix_s`; `None`: whom the owners accept.
pub(crate) fn admission(charter: &Charter, now_unix_s: u64) -> Option<Admission> {
    if charter.admission == AdmissionMode::Open {
        return None;
    }
    let holds = |right: &&mutirao_trust::Ceiling| right.holds_at(now_unix_s);
    let admitted = &charter.admitted;
    let apps = admitted.applications.iter();
    let apps = apps.filter_map(|(id, right)| Some((app_id(id)?, Some(right).filter(holds)?.slots)));
    let users = admitted.users.iter();
    let users = users.filter_map(|(name, right)| Some((name.clone(), Some(right).filter(holds)?.slots)));
    Some(Admission { apps: apps.collect(), users: users.collect() })
}

/// When the first of the rights that hold at `now_unix_s` ends, seconds from then.
pub(crate) fn next_end(charter: &Charter, now_unix_s: u64) -> Option<Duration> {
    let admitted = &charter.admitted;
    let rights = admitted.users.values().chain(admitted.applications.values());
    let ends = rights.filter_map(|right| right.until_unix_s()).filter(|until| *until > now_unix_s);
    ends.min().map(|until| Duration::from_secs(until - now_unix_s))
}

/// How links keep time.
pub(crate) fn pace(charter: &Charter) -> Pace {
    let timings = &charter.timings;
    Pace { beat: ms(timings.beat_ms), silence: ms(timings.silence_ms), handshake: ms(timings.handshake_ms) }
}

/// The settings of the core: those the node was started with, and above them what the charter says.
pub(crate) fn settings(started: &Settings, charter: &Charter) -> Settings {
    let timings = &charter.timings;
    Settings {
        fan_out: match charter.topology.fan_out {
            0 => started.fan_out,
            fan_out => fan_out as usize,
        },
        rebalance: charter.topology.rebalance.then_some(Settings::REBALANCE),
        commit: ms(timings.commit_ms),
        dial: ms(timings.handshake_ms),
        first_life: ms(timings.first_life_ms),
        lapse: ms(timings.lapse_ms),
        ..started.clone()
    }
}

fn ms(ms: u32) -> Duration {
    Duration::from_millis(ms.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use mutirao_trust::{Authority, Home, Role, Validity};

    #[test]
    fn the_charter_switches_balancing() {
        let mut charter = Charter::default();
        let started = Settings::default();
        assert_eq!(settings(&started, &charter).rebalance, Some(Settings::REBALANCE));
        charter.topology.rebalance = false;
        assert_eq!(settings(&started, &charter).rebalance, None);
    }

    fn pool() -> (tempfile::TempDir, Authority, Identity) {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::at(directory.path().join("home"));
        let authority = home.create_pool(&Name::new("lab").unwrap(), "correct horse battery").unwrap();
        let admin =
            home.enrol(&authority, Role::Admin, &Name::new("ana").unwrap(), Validity::days(1)).unwrap();
        (directory, authority, admin)
    }

    fn next(charters: &mut Charters, admin: &Identity, text: &str) -> PathBuf {
        let signed =
            SignedCharter::sign(admin, charters.version(), 1_000 + crate::sys::unix_ms(), text).unwrap();
        let writing = charters.take(signed.to_bytes()).unwrap().expect("newer");
        let path = writing.path.clone();
        writing.run().unwrap();
        path
    }

    #[test]
    fn the_newest_is_in_force_and_the_last_32_are_kept() {
        let (directory, authority, admin) = pool();
        let mut charters = Charters::load(directory.path(), authority.pool());
        assert_eq!(charters.version(), CharterVersion::default());
        for beat in 0..40 {
            next(&mut charters, &admin, &format!("[timings]\nbeat_ms = {}\n", 200 + beat));
        }
        let again = Charters::load(directory.path(), authority.pool());
        assert_eq!((again.version(), again.version().number), (charters.version(), 40));
        assert_eq!(again.rules().timings.beat_ms, 239);
        let rows = again.rows("n1");
        assert_eq!((rows.len(), rows[31].version.number), (KEPT_MAX, 9));
        // What is older, or the same, changes nothing.
        let old = again.kept[3].document.clone();
        assert!(charters.take(old).unwrap().is_none());
        assert_eq!(charters.version().number, 40);
    }

    #[test]
    fn a_file_torn_at_any_byte_or_forged_is_set_aside_and_the_one_before_is_in_force() {
        let (directory, authority, admin) = pool();
        let mut charters = Charters::load(directory.path(), authority.pool());
        next(&mut charters, &admin, "admission = \"admin\"\n");
        let first = charters.version();
        let path = next(&mut charters, &admin, "admission = \"open\"\n");
        let second = charters.version();
        let whole = fs::read(&path).unwrap();
        for length in (0..whole.len()).step_by(7).chain([whole.len() - 1]) {
            fs::write(&path, &whole[..length]).unwrap();
            let mut again = Charters::load(directory.path(), authority.pool());
            assert_eq!(again.version(), first, "{length}");
            assert!(path.with_extension("bad").exists() && !path.exists());
            // It comes again from a neighbour.
            again.take(whole.clone()).unwrap().expect("newer").run().unwrap();
            assert_eq!(again.version(), second);
        }
        let mut forged = whole.clone();
        *forged.last_mut().unwrap() ^= 1;
        fs::write(&path, &forged).unwrap();
        fs::write(path.with_file_name(".0000000009-aa.charter.new"), b"half").unwrap();
        let mut again = Charters::load(directory.path(), authority.pool());
        assert_eq!(again.version(), first);
        assert!(again.take(forged).is_err());
    }

    #[test]
    fn rights_end_at_their_time() {
        let text = "admission = \"admin\"\n[admitted.users]\nana = { slots = 2 }\n\
                    ben = { slots = 3, until = 2001-09-09T01:46:40Z }\n";
        let charter = Charter::parse(text).unwrap();
        let at = |now| admission(&charter, now).unwrap().users.into_keys().collect::<Vec<_>>();
        assert_eq!(at(999_999_999), ["ana", "ben"]);
        assert_eq!(at(1_000_000_000), ["ana"]);
        assert_eq!(next_end(&charter, 999_999_990), Some(Duration::from_secs(10)));
        assert_eq!(next_end(&charter, 1_000_000_000), None);
        assert_eq!(admission(&Charter::default(), 0), None);
    }
}
