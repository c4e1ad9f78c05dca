//! A directory that machines share, in which a command works instead of in its playpen: nothing of its files travels.

use crate::place::Place;
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Where a command works, if it is to work where its files lie.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Site {
    /// The directory of its files.
    pub directory: Vec<u8>,
    /// A file in it whose name nobody can guess: whoever finds it sees the same directory.
    pub mark: String,
    /// The directory that is made in it for this command, and removed after it.
    pub room: String,
    /// Its user's file mode creation mask.
    pub umask: Option<u32>,
    /// Who sends it there, by a number that comes back with what is [placed](Placed).
    pub sender: u64,
    /// Files that may still lie under the first of these paths, and belong under the second: they are moved.
    pub moves: Vec<(Vec<u8>, Vec<u8>)>,
    /// Its files, which lie somewhere already: it finds links to them.
    pub links: Vec<Lying>,
    /// The files that are to be taken out, and the paths that they get.
    pub places: Vec<(String, Vec<u8>)>,
}

/// A file that lies where a command can reach it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lying {
    /// Its name in the directory of the command. It leads downwards only.
    pub name: String,
    /// Its path.
    pub path: Vec<u8>,
    /// Its length.
    pub bytes: u64,
    /// When it was last changed, seconds since 1970.
    pub modified_s: i64,
}

/// A file that a command has left in its place at a site.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed {
    /// Its name in the directory of the command.
    pub name: String,
    /// Who sent the command there.
    pub sender: u64,
    /// Its length.
    pub bytes: u64,
    /// When it was last changed, seconds since 1970.
    pub modified_s: i64,
}

/// What is not as it should be where a command was to work at its site.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unseen {
    /// The directory cannot be reached, or is another one of the same path.
    Site,
    /// One of its files.
    File,
}

impl Site {
    /// The directory of the command.
    pub fn path(&self) -> PathBuf {
        Path::new(OsStr::from_bytes(&self.directory)).join(&self.room)
    }

    /// Where a file goes that is taken out.
    pub(crate) fn place_of(&self, name: &str) -> Option<&Path> {
        let (_, path) = self.places.iter().find(|(known, _)| known == name)?;
        Some(Path::new(OsStr::from_bytes(path)))
    }

    /// Makes the directory of the command, once it is sure that all is what it should be.
    pub(crate) fn enter(&self, place: &Place) -> Result<PathBuf, (Unseen, String)> {
        let directory = Path::new(OsStr::from_bytes(&self.directory));
        let unseen = |why: &str| Err((Unseen::Site, format!("{}: {why}", directory.display())));
        if !place.reaches(directory) {
            return unseen("it cannot be reached from here");
        }
        if look(&directory.join(&self.mark)).is_err() {
            return unseen("it is not the one that is meant");
        }
        for (from, to) in &self.moves {
            let (from, to) = (Path::new(OsStr::from_bytes(from)), Path::new(OsStr::from_bytes(to)));
            if let Err(error) = move_on(from, to) {
                return Err((Unseen::File, format!("{}: {error}", to.display())));
            }
        }
        for file in &self.links {
            let path = Path::new(OsStr::from_bytes(&file.path));
            let is_it = |facts: &Metadata| {
                facts.is_file() && facts.len() == file.bytes && facts.mtime() == file.modified_s
            };
            match look(path).and_then(|facts| File::open(path).map(|_| facts)) {
                Ok(facts) if is_it(&facts) => {}
                Ok(_) => return Err((Unseen::File, format!("{} looks otherwise from here", path.display()))),
                Err(error) => return Err((Unseen::File, format!("{}: {error}", path.display()))),
            }
        }
        let room = self.path();
        // Of an attempt of the same number that was lost.
        let _ = fs::remove_dir_all(&room);
        match fs::create_dir(&room) {
            Ok(()) => Ok(room),
            Err(error) => unseen(&format!("no directory can be made in it: {error}")),
        }
    }
}

/// What there is to know about a file now. Where a directory is shared, what is known of it may be old until it is
/// opened.
pub fn look(path: &Path) -> io::Result<Metadata> {
    let _opened = path.parent().map(File::open);
    fs::metadata(path)
}

/// Moves a file to the name where it belongs, if that was not done before.
pub fn move_on(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        moved => moved,
    }
}

/// Moves a file to its place, and onto the disk; what there is to know about it then.
pub(crate) fn put_in_place(file: &Path, place: &Path) -> io::Result<Metadata> {
    let opened = File::open(file)?;
    opened.sync_data()?;
    if let Some(above) = place.parent() {
        fs::create_dir_all(above)?;
    }
    fs::rename(file, place)?;
    opened.metadata()
}
