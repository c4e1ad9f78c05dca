//! What commands are given to read: whole files, up to a limit.

use anyhow::{Context, Result, ensure};
use std::fs::File;
use std::io::{Read, stdin};
use std::path::Path;

/// The most a list of anything may have (of hosts, of tasks), in bytes: room for millions of lines.
pub const LIST_BYTES_MAX: u64 = 256 << 20;

/// What is in a file, or comes on standard input where the path is `-`; refused from `bytes_max` on.
pub fn bytes(path: &Path, bytes_max: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = match path.as_os_str() == "-" {
        true => stdin().take(bytes_max + 1).read_to_end(&mut bytes),
        false => File::open(path).and_then(|file| file.take(bytes_max + 1).read_to_end(&mut bytes)),
    };
    read.with_context(|| format!("cannot read {}", path.display()))?;
    ensure!(
        bytes.len() as u64 <= bytes_max,
        "{} is too long; at most {bytes_max} bytes are possible",
        path.display()
    );
    Ok(bytes)
}

/// The same, as text.
pub fn text(path: &Path, bytes_max: u64) -> Result<String> {
    let text = String::from_utf8(bytes(path, bytes_max)?);
    text.with_context(|| format!("{} is no text in UTF-8", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_end_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, [b'x'; 100]).unwrap();
        assert_eq!(text(&file, 100).unwrap(), "x".repeat(100));
        let says = |result: Result<String>| format!("{:#}", result.unwrap_err());
        assert!(says(text(&file, 99)).ends_with("file is too long; at most 99 bytes are possible"));
        assert_eq!(
            says(text(Path::new("/dev/zero"), 1000)),
            "/dev/zero is too long; at most 1000 bytes are possible"
        );
        std::fs::write(&file, [b'x', 0xff]).unwrap();
        assert!(says(text(&file, 100)).contains("is no text in UTF-8"));
        assert!(says(text(directory.path(), 100)).starts_with("cannot read "));
    }
}
