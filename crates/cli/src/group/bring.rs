//! The files that travel with a group: its executables, and what they were said to find beside them.

use super::file::File;
use super::needs;
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
    /// All that an application names, and libraries that its executables need and other machines may lack. Each needs
    /// a name of its own, without its directory.
    pub fn of(file: &File, application: &Application) -> Result<Luggage> {
        let mut luggage = Luggage { files: BTreeMap::new() };
        for process in &application.processes {
            for path in std::iter::once(&process.executable).chain(&process.files) {
                // By the name in the file: links are followed, their names kept.
                luggage.take(name_of(Path::new(path)), &file.place(path))?;
            }
        }
        for executable in luggage.paths() {
            for (name, place) in needs::libraries(&executable) {
                luggage.take(name, &place)?;
            }
        }
        let files = &luggage.files;
        ensure!(
            files.len() <= FILES_MAX,
            "the group brings {} files along, but {FILES_MAX} is the most: put some into an archive",
            files.len()
        );
        Ok(luggage)
    }

    fn take(&mut self, name: String, place: &Path) -> Result<()> {
        let is_there = || format!("cannot find `{}`", place.display());
        let place = std::path::absolute(place).with_context(is_there)?;
        let real = place.canonicalize().with_context(is_there)?;
        if std::env::current_exe().is_ok_and(|own| name_of(&own) == name) {
            bail!("`{}` is called like this program: give it another name", place.display());
        }
        match self.files.get(&name) {
            Some(other) if other.canonicalize().ok() != Some(real) => bail!(
                "two files are called `{name}`: `{}` and `{}`; they travel together, so give one another name",
                other.display(),
                place.display()
            ),
            Some(_) => {}
            None => drop(self.files.insert(name, place)),
        }
        Ok(())
    }

    /// Where they are here, by the names under which they travel.
    pub fn files(&self) -> &BTreeMap<String, PathBuf> {
        &self.files
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
