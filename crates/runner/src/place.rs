//! What of a machine's files a worker may touch.

use std::fmt;
use std::path::{Component, Path, PathBuf};

/// Where the commands of a worker run. Said by the lender, in the worker's environment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Place {
    /// In the empty directory of the worker: nothing else can be written.
    #[default]
    Playpen,
    /// Where a command belongs below one of these directories, there; else as in a playpen.
    Shared(Vec<PathBuf>),
    /// As the command's user: anywhere, with the user's own environment. Only on the machine of that user.
    Own,
}

/// Between directories in the text form of a place, so none can contain it.
const SEPARATOR: char = ':';

impl Place {
    /// Reads what [`Display`](fmt::Display) wrote; whatever else is a playpen.
    pub fn parse(text: &str) -> Place {
        match text.split_once('=') {
            None if text == "own" => Place::Own,
            Some(("shared", directories)) => {
                Place::Shared(directories.split(SEPARATOR).map(PathBuf::from).collect())
            }
            _ => Place::Playpen,
        }
    }

    /// Whether commands that belong to `directory` run in it.
    pub fn reaches(&self, directory: &Path) -> bool {
        let plain =
            directory.is_absolute() && directory.components().all(|part| part != Component::ParentDir);
        match self {
            Place::Playpen => false,
            Place::Shared(shared) => plain && shared.iter().any(|shared| directory.starts_with(shared)),
            Place::Own => true,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Playpen => f.write_str("playpen"),
            Place::Own => f.write_str("own"),
            Place::Shared(directories) => {
                f.write_str("shared=")?;
                for (index, directory) in directories.iter().enumerate() {
                    if index > 0 {
                        write!(f, "{SEPARATOR}")?;
                    }
                    write!(f, "{}", directory.display())?;
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_as_it_was_written() {
        let shared = Place::Shared(vec!["/data".into(), "/home/lab".into()]);
        for place in [Place::Playpen, Place::Own, shared] {
            assert_eq!(Place::parse(&place.to_string()), place);
        }
        for text in ["", "own=", "OWN", "shared"] {
            assert_eq!(Place::parse(text), Place::Playpen, "{text}");
        }
    }

    #[test]
    fn a_shared_directory_is_reached_by_what_lies_below_it_only() {
        let place = Place::Shared(vec!["/data".into()]);
        assert!(place.reaches(Path::new("/data")) && place.reaches(Path::new("/data/a/b")));
        for outside in ["/", "/database", "/data/../etc", "data", ""] {
            assert!(!place.reaches(Path::new(outside)), "{outside}");
        }
        assert!(Place::Own.reaches(Path::new("/")) && !Place::Playpen.reaches(Path::new("/data")));
    }
}
