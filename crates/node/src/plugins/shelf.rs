//! The plugins kept here: manifests, pinned files, and a directory of each to execute from.
//!
//! ```text
//! CACHE/blobs/…           contents, in a `BlobStore`
//! CACHE/manifests/ID      canonical bytes of the manifest; a plugin is kept if it and all its blobs are here
//! CACHE/plugins/ID/NAME   the files under their names: links to blobs, made anew in each life of the node
//! ```

use mutirao_store::{BlobStore, Pin};
use mutirao_wire::plugin::Manifest;
use mutirao_wire::{PluginId, Tick};
use std::collections::HashMap;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Plugins kept at most; the least recently used one goes first.
const PLUGINS_MAX: usize = 256;
/// Longest manifest that is read, bytes; it must fit into a control frame anyway.
const MANIFEST_BYTES_MAX: u64 = mutirao_wire::limits::CONTROL_BODY_MAX as u64;

/// The identity of the plugin that `bytes` describe.
pub fn identity(bytes: &[u8]) -> PluginId {
    PluginId(*blake3::hash(bytes).as_bytes())
}

/// Where plugins lie. Clones are the same place; methods block and are for helper threads.
#[derive(Debug, Clone)]
pub struct Place {
    /// The contents.
    pub store: BlobStore,
    cache: Arc<Path>,
}

impl Place {
    /// Opens the cache, made if need be, whose contents may have `limit_bytes`.
    pub fn open(cache: &Path, limit_bytes: u64) -> Result<Place, PlaceError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| PlaceError::File { path, source }
        };
        let store = BlobStore::open(&cache.join("blobs"), limit_bytes)?;
        let place = Place { store, cache: cache.into() };
        // Links only; what they link to is in the store.
        match fs::remove_dir_all(place.directories()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed(&place.directories())(error));
            }
            _ => {}
        }
        for directory in [place.directories(), place.manifests()] {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(&directory);
            made.map_err(failed(&directory))?;
        }
        Ok(place)
    }

    /// The directory that a plugin is executed from.
    pub fn directory(&self, plugin: PluginId) -> PathBuf {
        self.directories().join(plugin.to_string())
    }

    /// Keeps a plugin whose contents have just been stored: pins them, makes the directory, writes
    /// the manifest.
    pub fn settle(&self, manifest: &Manifest) -> Result<Vec<Pin>, PlaceError> {
        let bytes = manifest.canonical_bytes();
        let id = identity(&bytes);
        let pins = self.pins(manifest)?;
        self.make_directory(id, manifest)?;
        // Not forced to the disk: what a loss of power damages is found by its identity.
        let path = self.manifests().join(id.to_string());
        let unfinished = path.with_extension("new");
        let written = fs::write(&unfinished, &bytes).and_then(|()| fs::rename(&unfinished, &path));
        written.map_err(|source| PlaceError::File { path, source })?;
        Ok(pins)
    }

    /// Makes the directory of a plugin kept since an earlier life of the node. Reads and compares
    /// all its contents, because the machine may have lost power since.
    pub fn prepare(&self, manifest: &Manifest) -> Result<(), PlaceError> {
        for file in &manifest.files {
            self.store.verified_open(file.hash)?;
        }
        self.make_directory(identity(&manifest.canonical_bytes()), manifest)
    }

    fn pins(&self, manifest: &Manifest) -> Result<Vec<Pin>, PlaceError> {
        manifest.files.iter().map(|file| Ok(self.store.pin(file.hash)?)).collect()
    }

    fn make_directory(&self, id: PluginId, manifest: &Manifest) -> Result<(), PlaceError> {
        let directory = self.directory(id);
        if directory.exists() {
            return Ok(());
        }
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| PlaceError::File { path, source }
        };
        // Made under another name, so that it is there whole or not at all. Of two that make the
        // same one the second finds it there.
        let unfinished = self.spare_name();
        DirBuilder::new().mode(0o700).create(&unfinished).map_err(at(&unfinished))?;
        for file in &manifest.files {
            self.store.place(file.hash, &unfinished.join(&file.name))?;
        }
        match fs::rename(&unfinished, &directory) {
            Err(_) if directory.exists() => fs::remove_dir_all(&unfinished).map_err(at(&unfinished)),
            other => other.map_err(at(&directory)),
        }
    }

    /// Takes a plugin's directory and manifest away; fast. Returns what is still to be removed.
    fn take_away(&self, id: PluginId) -> Option<PathBuf> {
        let _ = fs::remove_file(self.manifests().join(id.to_string()));
        let gone = self.spare_name();
        fs::rename(self.directory(id), &gone).is_ok().then_some(gone)
    }

    /// A name in the directory of directories that nothing else has.
    fn spare_name(&self) -> PathBuf {
        use std::sync::atomic::{AtomicU64, Ordering};
        static NEXT: AtomicU64 = AtomicU64::new(0);
        self.directories().join(format!(".{}", NEXT.fetch_add(1, Ordering::Relaxed)))
    }

    fn directories(&self) -> PathBuf {
        self.cache.join("plugins")
    }

    fn manifests(&self) -> PathBuf {
        self.cache.join("manifests")
    }

    /// Every manifest that can be read and is what its name says; others are removed.
    fn stored_manifests(&self) -> Vec<(PluginId, Manifest)> {
        let Ok(entries) = fs::read_dir(self.manifests()) else { return Vec::new() };
        let mut found = Vec::new();
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            let read = || {
                let id = path.file_name()?.to_str()?.parse::<PluginId>().ok()?;
                let bytes = mutirao_store::read_limited(&path, MANIFEST_BYTES_MAX).ok()?;
                Some((id, Manifest::read(&bytes).ok().filter(|_| identity(&bytes) == id)?))
            };
            match read() {
                Some(entry) => found.push(entry),
                None => {
                    tracing::warn!("{} is no manifest and is removed", path.display());
                    let _ = fs::remove_file(&path);
                }
            }
        }
        found
    }
}

/// Why a plugin cannot be kept. What was done so far is undone or does no harm.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// A blob.
    #[error(transparent)]
    Store(#[from] mutirao_store::Error),
    /// A file or directory beside the store.
    #[error("cannot use {path}: {source}", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A plugin kept here.
#[derive(Debug)]
pub struct Kept {
    /// What it is.
    pub manifest: Arc<Manifest>,
    /// Its directory is made.
    pub ready: bool,
    /// When it was last needed.
    pub used: Tick,
    /// Bytes of its files.
    pub bytes: u64,
    _pins: Vec<Pin>,
}

/// The plugins kept here.
#[derive(Debug)]
pub struct Shelf {
    place: Place,
    plugins: HashMap<PluginId, Kept>,
}

impl Shelf {
    /// Everything that `place` has whole from earlier lives.
    pub fn new(place: Place) -> Shelf {
        let mut shelf = Shelf { place, plugins: HashMap::new() };
        for (id, manifest) in shelf.place.stored_manifests() {
            match shelf.place.pins(&manifest) {
                Ok(pins) => shelf.insert(id, manifest, pins, false, Tick(0)),
                // Evicted in the meantime.
                Err(_) => drop(shelf.place.take_away(id)),
            }
        }
        shelf
    }

    /// Where they lie.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// One of them.
    pub fn find(&self, plugin: PluginId) -> Option<&Kept> {
        self.plugins.get(&plugin)
    }

    /// One of them, to note its use.
    pub fn find_mut(&mut self, plugin: PluginId) -> Option<&mut Kept> {
        self.plugins.get_mut(&plugin)
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = (PluginId, &Kept)> {
        self.plugins.iter().map(|(id, kept)| (*id, kept))
    }

    /// Adds one that was settled, or is still to be prepared.
    pub fn insert(&mut self, id: PluginId, manifest: Manifest, pins: Vec<Pin>, ready: bool, now: Tick) {
        let bytes = manifest.files.iter().map(|file| file.bytes).sum();
        let kept = Kept { manifest: Arc::new(manifest), ready, used: now, bytes, _pins: pins };
        self.plugins.insert(id, kept);
    }

    /// Forgets one; returns a directory that a helper thread is to remove.
    pub fn remove(&mut self, plugin: PluginId) -> Option<PathBuf> {
        self.plugins.remove(&plugin);
        self.place.take_away(plugin)
    }

    /// Which ones have to go, the least recently used first, before `bytes` more can come. Those in
    /// `in_use` stay, also if that is not enough: the store then says so.
    pub fn surplus(&self, bytes: u64, in_use: impl Fn(PluginId) -> bool) -> Vec<PluginId> {
        let usage = self.place.store.usage();
        let mut excess = (usage.held_bytes.saturating_add(bytes)).saturating_sub(usage.limit_bytes);
        let mut count = (self.plugins.len() + 1).saturating_sub(PLUGINS_MAX);
        let mut idle: Vec<(Tick, PluginId, u64)> =
            self.all().map(|(id, kept)| (kept.used, id, kept.bytes)).collect();
        idle.retain(|(_, id, _)| !in_use(*id));
        idle.sort();
        let mut surplus = Vec::new();
        for (_, id, held) in idle {
            if excess == 0 && count == 0 {
                break;
            }
            excess = excess.saturating_sub(held);
            count = count.saturating_sub(1);
            surplus.push(id);
        }
        surplus
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use mutirao_wire::node::Arch;
    use mutirao_wire::plugin::PluginFile;
    use std::os::unix::fs::PermissionsExt;

    /// Stores a plugin called `name` of one file with these contents, without keeping it.
    pub(crate) fn stored(place: &Place, name: &str, content: &[u8]) -> Manifest {
        let mut writer = place.store.writer(None).unwrap();
        writer.set_executable(true);
        writer.write(content).unwrap();
        let hash = writer.commit().unwrap();
        Manifest {
            layout: 1,
            name: name.into(),
            version: String::new(),
            arch: Arch::HERE,
            interpreter: None,
            libc: None,
            operations: Vec::new(),
            files: vec![PluginFile { name: name.into(), hash, bytes: content.len() as u64 }],
        }
    }

    fn keep(shelf: &mut Shelf, name: &str, content: &[u8], now: Tick) -> PluginId {
        let manifest = stored(shelf.place(), name, content);
        let id = identity(&manifest.canonical_bytes());
        let pins = shelf.place().settle(&manifest).unwrap();
        shelf.insert(id, manifest, pins, true, now);
        id
    }

    #[test]
    fn a_plugin_is_kept_over_a_restart_and_prepared_again() {
        let cache = tempfile::tempdir().unwrap();
        let mut shelf = Shelf::new(Place::open(cache.path(), 1 << 20).unwrap());
        let id = keep(&mut shelf, "tool", b"content", Tick(1));
        let program = shelf.place().directory(id).join("tool");
        assert_eq!(fs::metadata(&program).unwrap().permissions().mode() & 0o777, 0o555);
        fs::write(cache.path().join("manifests").join("0".repeat(64)), b"nonsense").unwrap();
        drop(shelf);

        let shelf = Shelf::new(Place::open(cache.path(), 1 << 20).unwrap());
        assert_eq!(shelf.all().count(), 1);
        let kept = shelf.find(id).unwrap();
        assert!(!kept.ready && !program.exists());
        shelf.place().prepare(&kept.manifest).unwrap();
        assert_eq!(fs::read(&program).unwrap(), b"content");
        assert_eq!(fs::read_dir(cache.path().join("manifests")).unwrap().count(), 1);
    }

    #[test]
    fn damage_is_found_before_anything_runs() {
        let cache = tempfile::tempdir().unwrap();
        let mut shelf = Shelf::new(Place::open(cache.path(), 1 << 20).unwrap());
        let id = keep(&mut shelf, "tool", b"content", Tick(1));
        let hash = shelf.find(id).unwrap().manifest.files[0].hash.to_string();
        drop(shelf);
        let blob = cache.path().join("blobs").join(&hash[..2]).join(&hash);
        fs::set_permissions(&blob, fs::Permissions::from_mode(0o644)).unwrap();
        fs::write(&blob, b"conTent").unwrap();
        let shelf = Shelf::new(Place::open(cache.path(), 1 << 20).unwrap());
        let manifest = shelf.find(id).unwrap().manifest.clone();
        assert!(shelf.place().prepare(&manifest).unwrap_err().to_string().contains("damaged"));
    }

    #[test]
    fn the_least_recently_used_goes_first_and_what_is_in_use_stays() {
        let cache = tempfile::tempdir().unwrap();
        let mut shelf = Shelf::new(Place::open(cache.path(), 24 << 10).unwrap());
        let old = keep(&mut shelf, "old", &[1; 8 << 10], Tick(1));
        let newer = keep(&mut shelf, "newer", &[2; 8 << 10], Tick(2));
        assert!(shelf.surplus(8 << 10, |_| false).is_empty());
        assert_eq!(shelf.surplus(12 << 10, |_| false), [old]);
        assert_eq!(shelf.surplus(12 << 10, |id| id == old), [newer]);
        assert!(shelf.place().store.writer(None).unwrap().write(&[3; 12 << 10]).is_err());
        let gone = shelf.remove(old).unwrap();
        assert!(!shelf.place().directory(old).exists());
        fs::remove_dir_all(gone).unwrap();
        shelf.place().store.writer(None).unwrap().write(&[3; 12 << 10]).unwrap();
    }
}
