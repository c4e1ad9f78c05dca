//! Programs by their names.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Finds programs in a `PATH`. It remembers where it found the last one: most commands of a worker are the same program.
#[derive(Debug, Default)]
pub(crate) struct Search {
    path: OsString,
    name: OsString,
    found: Option<PathBuf>,
}

impl Search {
    /// The first file of this name in the directories of `path` that can be executed.
    pub fn find(&mut self, path: &OsStr, name: &OsStr) -> Option<PathBuf> {
        let is_known =
            self.path == path && self.name == name && self.found.as_deref().is_some_and(is_program);
        if !is_known {
            self.found = std::env::split_paths(path)
                .map(|directory| directory.join(name))
                .find(|file| is_program(file));
            (self.path, self.name) = (path.to_owned(), name.to_owned());
        }
        self.found.clone()
    }
}

fn is_program(file: &Path) -> bool {
    let facts = fs::metadata(file);
    facts.is_ok_and(|facts| facts.is_file() && facts.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;

    #[test]
    fn a_program_is_found_where_it_is_and_again_when_it_has_moved() {
        let room = tempfile::tempdir().unwrap();
        let directories = ["a", "b", "c"].map(|name| room.path().join(name));
        for directory in &directories {
            fs::create_dir(directory).unwrap();
        }
        let place = |directory: &Path, mode: u32| {
            let file = directory.join("program");
            fs::write(&file, "").unwrap();
            fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
            file
        };
        let (path, name) = (std::env::join_paths(&directories).unwrap(), OsStr::new("program"));
        let mut search = Search::default();
        assert_eq!(search.find(&path, name), None);
        place(&directories[0], 0o600);
        let last = place(&directories[2], 0o700);
        assert_eq!(search.find(&path, name), Some(last.clone()));
        let middle = place(&directories[1], 0o700);
        fs::remove_file(last).unwrap();
        assert_eq!(search.find(&path, name), Some(middle));
        assert_eq!(search.find(&path, OsStr::new("other")), None);
        assert_eq!(search.find(OsStr::new(""), name), None);
    }
}
