//! An application file, and the files that it names.

use crate::reading;
use anyhow::Result;
use mutirao_group::limits::FILE_BYTES_MAX;
use mutirao_group::{Application, Problem};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// An application file that could be read.
#[derive(Debug)]
pub struct File {
    path: PathBuf,
    text: String,
}

impl File {
    /// Reads the text of a file.
    pub fn open(path: &Path) -> Result<File> {
        let text = reading::text(path, FILE_BYTES_MAX as u64)?;
        Ok(File { path: path.to_owned(), text })
    }

    /// The application, or all that is wrong with it.
    pub fn application(&self) -> Result<Application, Vec<Problem>> {
        Application::read(&self.text, |path, executable| what_is_wrong(&self.place(path), executable))
    }

    /// Where a path of the file leads.
    pub fn place(&self, path: &str) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("")).join(path)
    }

    /// What a group is called whose file gives it no name.
    pub fn name(&self) -> String {
        self.path.file_stem().map_or_else(|| "group".into(), |name| name.to_string_lossy().into_owned())
    }

    /// A problem as a line that editors understand.
    pub fn line(&self, problem: &Problem) -> String {
        let at = problem.at;
        format!("{}:{}:{}: {}", self.path.display(), at.line, at.column, problem.mistake)
    }
}

/// What is wrong with a file that a group is to bring along, and what to do about it.
fn what_is_wrong(path: &Path, executable: bool) -> Option<String> {
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Some("is not there: build it, or correct where it is".into());
        }
        Err(error) => return Some(format!("cannot be looked at: {error}")),
    };
    if !metadata.is_file() {
        return Some("is not a file".into());
    }
    let may_run = metadata.permissions().mode() & 0o111 != 0;
    (executable && !may_run).then(|| "is not executable: `chmod +x` it, or name the program itself".into())
}
