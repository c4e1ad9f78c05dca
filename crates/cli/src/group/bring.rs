//! The files that travel with a group: its executables, and what they were said to find beside them.

use super::file::File;
use anyhow::{Context, Result, bail, ensure};
use mutirao_group::Application;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Files of a plugin but for the program itself.
const FILES_MAX: usize = mutirao_wire::limits::PLUGIN_FILES_MAX - 1;

/// Files by the name they have on other machines.
#[derive(Debug)]
pub struct Luggage {
    files: BTreeMap<String, PathBuf>,
}

impl Luggage {
    /// All that an application names. Each needs a name of its own, without its directory.
    pub fn of(file: &File, application: &Application) -> Result<Luggage> {
        let mut files: BTreeMap<String, PathBuf> = BTreeMap::new();
        let own = std::env::current_exe().ok().as_deref().map(name_of);
        for process in &application.processes {
            for path in std::iter::once(&process.executable).chain(&process.files) {
                let place = file.place(path);
                let place =
                    place.canonicalize().with_context(|| format!("cannot find `{}`", place.display()))?;
                // By the name in the file: links are followed, their names kept.
                let name = name_of(Path::new(path));
                if own.as_ref() == Some(&name) {
                    bail!("`{path}` cannot be called `{name}`: that is this program; give it another name");
                }
                match files.get(&name) {
                    Some(other) if *other != place => bail!(
                        "two files are called `{name}`: `{}` and `{}`; they travel together, so give one another name",
                        other.display(),
                        place.display()
                    ),
                    Some(_) => {}
                    None => drop(files.insert(name, place)),
                }
            }
        }
        ensure!(
            files.len() <= FILES_MAX,
            "the group brings {} files along, but {FILES_MAX} is the most: put some into an archive",
            files.len()
        );
        Ok(Luggage { files })
    }

    /// Where they are here.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.files.values().cloned().collect()
    }
}

/// What a file is called on other machines.
pub fn name_of(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
