//! Small files, written whole or not at all and read with a limit.

use crate::error::{Error, at};
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// Replaces the file at `path`: whoever reads it, also after a crash or a loss of power, finds all of
/// the old or all of the new content. When this returns, the new content is on the disk.
///
/// `mode` is set as given, whatever the umask. One process writes a path; its threads may at once.
/// On an error the old file is still there.
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Error> {
    // One name for the unfinished file, so that a crash leaves at most one behind, to be reused; hence
    // one writer at a time.
    static ONE_WRITER: Mutex<()> = Mutex::new(());
    let _one = ONE_WRITER.lock().unwrap_or_else(PoisonError::into_inner);

    let (Some(name), Some(directory)) = (path.file_name(), path.parent()) else {
        return Err(at("write", path)(std::io::Error::from(std::io::ErrorKind::InvalidInput)));
    };
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    let mut unfinished = OsString::from(".");
    unfinished.push(name);
    unfinished.push(".new");
    let unfinished = directory.join(unfinished);

    let written = write_and_sync(&unfinished, bytes, mode).and_then(|()| fs::rename(&unfinished, path));
    if let Err(error) = written {
        // The error to tell is the first one.
        let _ = fs::remove_file(&unfinished);
        return Err(at("write", path)(error));
    }
    sync_directory(directory)
}

/// Has the disk know by which names the files of a directory go.
pub(crate) fn sync_directory(directory: &Path) -> Result<(), Error> {
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(at("write", directory))
}

fn write_and_sync(path: &Path, bytes: &[u8], mode: u32) -> std::io::Result<()> {
    // Never through a link that somebody else left there, and never readable for others meanwhile.
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    file.sync_all()
}

/// The content of a file of at most `max_bytes`; longer ones are refused unread.
pub fn read_limited(path: &Path, max_bytes: u64) -> Result<Vec<u8>, Error> {
    let file = File::open(path).map_err(at("open", path))?;
    let mut bytes = Vec::new();
    // One more than allowed tells a file that is too long, also one that grows meanwhile.
    file.take(max_bytes.saturating_add(1)).read_to_end(&mut bytes).map_err(at("read", path))?;
    if bytes.len() as u64 > max_bytes {
        return Err(Error::TooLong { path: path.to_owned(), max_bytes });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn replaces_content_and_mode_and_leaves_nothing_else() {
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("file");
        write_atomic(&path, b"first", 0o600).expect("written");
        write_atomic(&path, b"second", 0o640).expect("written");
        assert_eq!(read_limited(&path, 6).expect("read"), b"second");
        assert_eq!(fs::metadata(&path).expect("there").mode() & 0o777, 0o640);
        assert_eq!(fs::read_dir(place.path()).expect("listed").count(), 1);
    }

    #[test]
    fn what_a_crash_left_behind_is_no_obstacle_and_no_trap() {
        let place = tempfile::tempdir().expect("a directory");
        let (path, victim) = (place.path().join("file"), place.path().join("victim"));
        fs::write(&victim, "untouched").expect("written");
        std::os::unix::fs::symlink(&victim, place.path().join(".file.new")).expect("linked");
        write_atomic(&path, b"new", 0o600).expect("written");
        assert_eq!(fs::read_to_string(&victim).expect("read"), "untouched");
        assert_eq!(read_limited(&path, 100).expect("read"), b"new");
    }

    #[test]
    fn a_write_that_fails_keeps_the_old_file() {
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("directory");
        fs::create_dir(&path).expect("made");
        assert!(matches!(write_atomic(&path, b"x", 0o600), Err(Error::Io { .. })));
        assert!(path.is_dir());
        assert_eq!(fs::read_dir(place.path()).expect("listed").count(), 1);
        assert!(
            write_atomic(&place.path().join("none/file"), b"x", 0o600)
                .expect_err("no directory")
                .is_missing()
        );
    }

    #[test]
    fn a_file_over_the_limit_is_refused() {
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("file");
        write_atomic(&path, b"12345", 0o600).expect("written");
        assert!(matches!(read_limited(&path, 4), Err(Error::TooLong { max_bytes: 4, .. })));
        assert_eq!(read_limited(&path, 5).expect("read"), b"12345");
        assert!(matches!(read_limited(Path::new("/dev/zero"), 9), Err(Error::TooLong { .. })));
        assert!(read_limited(&place.path().join("none"), 4).expect_err("none").is_missing());
    }
}
