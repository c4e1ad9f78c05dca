//! A local program becomes a plugin: its open files are stored, described and kept.

use super::elf::{self, Facts};
use super::shelf::{Place, identity};
use mutirao_store::Pin;
use mutirao_wire::limits::PLUGIN_FILES_MAX;
use mutirao_wire::local::OfferPlugin;
use mutirao_wire::plugin::{Manifest, PluginFile};
use mutirao_wire::{BlobHash, PluginId};
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime};

/// Files that are remembered.
const KNOWN_MAX: usize = 4096;
/// A file changed less than this before it was read may be changed again within the same tick of
/// the file system's clock, so it is not remembered.
const SETTLED: Duration = Duration::from_millis(50);

/// Which content a file has, as long as nobody changes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileKey {
    device: u64,
    inode: u64,
    bytes: u64,
    modified_ns: i128,
    changed_ns: i128,
}

impl FileKey {
    /// Of an open file, which must be a regular one.
    pub fn of(file: &File) -> io::Result<FileKey> {
        let facts = file.metadata()?;
        if !facts.is_file() {
            return Err(io::Error::other("it is no regular file"));
        }
        let nanoseconds = |seconds: i64, rest: i64| i128::from(seconds) * 1_000_000_000 + i128::from(rest);
        Ok(FileKey {
            device: facts.dev(),
            inode: facts.ino(),
            bytes: facts.size(),
            modified_ns: nanoseconds(facts.mtime(), facts.mtime_nsec()),
            changed_ns: nanoseconds(facts.ctime(), facts.ctime_nsec()),
        })
    }

    /// Its length.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether a change from now on would show in its times.
    pub fn is_settled(&self, now: SystemTime) -> bool {
        let since_1970 = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let age_ns = i128::try_from(since_1970.as_nanos()).unwrap_or(i128::MAX) - self.changed_ns;
        age_ns >= SETTLED.as_nanos() as i128
    }
}

/// What is known about the content of a file.
#[derive(Debug, Clone)]
pub struct Content {
    /// Its hash.
    pub hash: BlobHash,
    /// What it says about itself, if it was read as a program.
    pub facts: Option<Facts>,
}

/// Files whose contents are known.
#[derive(Debug, Default)]
pub struct Known {
    files: HashMap<FileKey, Content>,
}

impl Known {
    /// What is known of these files, if it is known of each and of the first as a program.
    pub fn all(&self, keys: &[FileKey]) -> Option<Vec<Content>> {
        let found: Vec<Content> =
            keys.iter().map(|key| self.files.get(key).cloned()).collect::<Option<_>>()?;
        found.first()?.facts.is_some().then_some(found)
    }

    /// The content of a file, if it is known.
    pub fn hash(&self, key: &FileKey) -> Option<BlobHash> {
        self.files.get(key).map(|content| content.hash)
    }

    /// Remembers.
    pub fn learn(&mut self, learnt: Vec<(FileKey, Content)>) {
        if self.files.len() + learnt.len() > KNOWN_MAX {
            // Relearning costs a hash each; no order of use is worth keeping for that.
            self.files.clear();
        }
        self.files.extend(learnt);
    }
}

/// What a program offers, checked as far as it can be without reading its files.
#[derive(Debug)]
pub struct Offer {
    /// What it says of itself.
    pub said: OfferPlugin,
    /// Its files, as many as it names.
    pub files: Vec<File>,
    /// Which files these are.
    pub keys: Vec<FileKey>,
}

impl Offer {
    /// Looks at what a program offers.
    pub fn new(said: OfferPlugin, files: Vec<File>) -> Result<Offer, String> {
        let name = &said.name;
        if files.len() != said.files.len() || files.is_empty() || files.len() > PLUGIN_FILES_MAX {
            return Err(format!(
                "plugin `{name}` names {} files and sends {}; 1 to {PLUGIN_FILES_MAX} are allowed",
                said.files.len(),
                files.len()
            ));
        }
        let key = |(file, name): (&File, &String)| {
            FileKey::of(file).map_err(|error| format!("file `{name}` cannot be used: {error}"))
        };
        let keys = files.iter().zip(&said.files).map(key).collect::<Result<_, _>>()?;
        Ok(Offer { said, files, keys })
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.keys.iter().map(FileKey::bytes).fold(0, u64::saturating_add)
    }

    /// The manifest, given the contents.
    pub fn manifest(&self, contents: &[Content]) -> Result<(PluginId, Manifest), String> {
        let Some(facts) = contents.first().and_then(|content| content.facts.clone()) else {
            return Err(format!("plugin `{}` has no program", self.said.name));
        };
        let files = self.said.files.iter().zip(&self.keys).zip(contents);
        let manifest = Manifest {
            layout: 1,
            name: self.said.name.clone(),
            version: self.said.version.clone(),
            arch: facts.arch,
            interpreter: facts.interpreter,
            libc: facts.libc,
            operations: self.said.operations.clone(),
            files: files
                .map(|((name, key), content)| PluginFile {
                    name: name.clone(),
                    hash: content.hash,
                    bytes: key.bytes,
                })
                .collect(),
        };
        manifest.check().map_err(|error| error.to_string())?;
        Ok((identity(&manifest.canonical_bytes()), manifest))
    }

    /// Stores what is not known, then keeps the plugin. Blocks; on an error what was stored may be
    /// evicted again.
    pub fn take_in(&self, place: &Place) -> Result<TakenIn, String> {
        let mut contents = Vec::new();
        let mut learnt = Vec::new();
        for (index, ((file, key), name)) in
            self.files.iter().zip(&self.keys).zip(&self.said.files).enumerate()
        {
            let settled = key.is_settled(SystemTime::now());
            let hash = place.store.import_file(file, true).map_err(|error| error.to_string())?;
            if FileKey::of(file).ok() != Some(*key) {
                return Err(format!("file `{name}` was changed while it was read; start the program again"));
            }
            // Read from the store: there nobody changes it.
            let facts = match index {
                0 => {
                    let blob = place.store.open_blob(hash).map_err(|error| error.to_string())?;
                    Some(elf::read_file(name, blob).map_err(|error| error.to_string())?)
                }
                _ => None,
            };
            let content = Content { hash, facts };
            if settled {
                learnt.push((*key, content.clone()));
            }
            contents.push(content);
        }
        let (id, manifest) = self.manifest(&contents)?;
        let pins = place.settle(&manifest).map_err(|error| error.to_string())?;
        Ok(TakenIn { id, manifest, pins, learnt })
    }
}

/// A plugin that was taken in.
#[derive(Debug)]
pub struct TakenIn {
    /// Its identity.
    pub id: PluginId,
    /// What it is.
    pub manifest: Manifest,
    /// Its files.
    pub pins: Vec<Pin>,
    /// To be remembered.
    pub learnt: Vec<(FileKey, Content)>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use mutirao_wire::plugin::Operation;
    use std::path::Path;

    fn said(files: &[&str]) -> OfferPlugin {
        OfferPlugin {
            name: "tool".into(),
            version: "1".into(),
            operations: vec![Operation { name: "frame".into(), repeatable: true }],
            files: files.iter().map(|name| (*name).into()).collect(),
        }
    }

    fn open(path: impl AsRef<Path>) -> File {
        File::open(path).unwrap()
    }

    #[test]
    fn a_program_and_its_library_become_a_plugin_that_is_known_next_time() {
        let cache = tempfile::tempdir().unwrap();
        let place = Place::open(cache.path(), 64 << 20).unwrap();
        let library = cache.path().join("libx.so");
        std::fs::write(&library, b"library").unwrap();
        std::thread::sleep(2 * SETTLED);
        let offer =
            || Offer::new(said(&["tool", "libx.so"]), vec![open("/bin/true"), open(&library)]).unwrap();
        let taken = offer().take_in(&place).unwrap();
        assert_eq!(std::fs::read(place.directory(taken.id).join("libx.so")).unwrap(), b"library");

        let mut known = Known::default();
        assert!(known.all(&offer().keys).is_none());
        known.learn(taken.learnt);
        let contents = known.all(&offer().keys).unwrap();
        assert_eq!(offer().manifest(&contents).unwrap().0, taken.id);

        std::fs::write(&library, b"changed").unwrap();
        assert!(known.all(&offer().keys).is_none());
    }

    #[test]
    fn what_cannot_be_a_plugin_is_refused_by_name() {
        let cache = tempfile::tempdir().unwrap();
        let place = Place::open(cache.path(), 64 << 20).unwrap();
        let script = cache.path().join("script");
        std::fs::write(&script, "#!/bin/sh\n").unwrap();
        let offer = Offer::new(said(&["script"]), vec![open(&script)]).unwrap();
        assert!(offer.take_in(&place).unwrap_err().contains("`script` is a script"));
        let offer = Offer::new(said(&["a/b"]), vec![open("/bin/true")]).unwrap();
        assert!(offer.take_in(&place).unwrap_err().contains("a/b"));
        assert!(
            Offer::new(said(&["a", "b"]), vec![open("/bin/true")]).unwrap_err().contains("names 2 files")
        );
        assert!(Offer::new(said(&["a"]), vec![open("/")]).unwrap_err().contains("regular file"));
        let small = Place::open(&cache.path().join("small"), 8 << 10).unwrap();
        let offer = Offer::new(said(&["true"]), vec![open("/bin/true")]).unwrap();
        assert!(offer.take_in(&small).unwrap_err().contains("raise the cache limit"));
    }
}
