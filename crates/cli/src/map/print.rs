//! What jobs have written, whole and one after the other.

use anyhow::{Context, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// What one job has written.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Before each line.
    pub tag: Option<Vec<u8>>,
    /// To standard output.
    pub stdout: Vec<u8>,
    /// To standard error.
    pub stderr: Vec<u8>,
}

impl Written {
    fn bytes(&self) -> usize {
        self.stdout.len() + self.stderr.len()
    }

    /// Prints it.
    pub fn print(&self) -> Result<()> {
        let tag = self.tag.as_deref();
        let mut stdout = std::io::stdout().lock();
        put(&mut stdout, tag, &self.stdout)?;
        stdout.flush()?;
        put(&mut std::io::stderr().lock(), tag, &self.stderr)
    }
}

fn put(to: &mut impl Write, tag: Option<&[u8]>, bytes: &[u8]) -> Result<()> {
    let Some(tag) = tag else { return Ok(to.write_all(bytes)?) };
    let mut tagged = Vec::with_capacity(bytes.len() * 2);
    for line in bytes.split_inclusive(|&byte| byte == b'\n') {
        tagged.extend_from_slice(tag);
        tagged.push(b'\t');
        tagged.extend_from_slice(line);
    }
    Ok(to.write_all(&tagged)?)
}

/// Puts jobs into the order of their numbers.
#[derive(Debug, Default)]
pub struct Order {
    /// The number of the next to be printed.
    next: u64,
    waiting: BTreeMap<u64, Written>,
    /// Numbers of jobs that print nothing.
    silent: BTreeSet<u64>,
    waiting_bytes: usize,
}

impl Order {
    /// Numbers begin at 1.
    pub fn new() -> Order {
        Order { next: 1, ..Order::default() }
    }

    /// A job has ended; gives out what can be printed now.
    pub fn add(&mut self, sequence: u64, written: Written) -> Vec<Written> {
        self.waiting_bytes += written.bytes();
        self.waiting.insert(sequence, written);
        self.ready()
    }

    /// A job will not print anything.
    pub fn skip(&mut self, sequence: u64) -> Vec<Written> {
        self.silent.insert(sequence);
        self.ready()
    }

    /// Bytes that wait for an earlier job.
    pub fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// All that waits, when those before it will not come.
    pub fn rest(&mut self) -> Vec<Written> {
        std::mem::take(&mut self.waiting).into_values().collect()
    }

    fn ready(&mut self) -> Vec<Written> {
        let mut ready = Vec::new();
        loop {
            if let Some(written) = self.waiting.remove(&self.next) {
                self.waiting_bytes -= written.bytes();
                ready.push(written);
            } else if !self.silent.remove(&self.next) {
                return ready;
            }
            self.next += 1;
        }
    }
}

/// Puts the outputs of a job into files below `directory`, which is named after its arguments: `1/ARG/2/ARG`.
pub fn save(directory: &Path, arguments: &[Vec<u8>], sequence: u64, written: &Written) -> Result<()> {
    let mut path = directory.to_owned();
    for (index, argument) in arguments.iter().enumerate() {
        path.push((index + 1).to_string());
        path.push(file_name(argument));
    }
    let failed = || format!("cannot put results into {}", path.display());
    fs::create_dir_all(&path).with_context(failed)?;
    let number = sequence.to_string();
    for (name, bytes) in
        [("stdout", &written.stdout[..]), ("stderr", &written.stderr[..]), ("seq", number.as_bytes())]
    {
        fs::write(path.join(name), bytes).with_context(failed)?;
    }
    Ok(())
}

/// An argument as the name of a directory.
fn file_name(argument: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    /// Longest name of a directory, bytes.
    const MAX: usize = 240;
    let mut name = Vec::new();
    for &byte in argument {
        match byte {
            b'/' => name.extend_from_slice(b"\\_"),
            b'\\' => name.extend_from_slice(b"\\\\"),
            b'\t' => name.extend_from_slice(b"\\t"),
            b'\0' => name.extend_from_slice(b"\\0"),
            byte => name.push(byte),
        }
    }
    if name.len() > MAX {
        let hash = blake3::hash(argument).to_hex();
        name.truncate(MAX - 17);
        name.push(b'-');
        name.extend_from_slice(&hash.as_bytes()[..16]);
    }
    match name.as_slice() {
        b"" => "\\e".into(),
        b"." => "\\.".into(),
        b".." => "\\..".into(),
        _ => std::ffi::OsString::from_vec(name).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> Written {
        Written { stdout: text.as_bytes().to_vec(), ..Written::default() }
    }

    #[test]
    fn jobs_are_printed_in_the_order_of_their_numbers() {
        let mut order = Order::new();
        assert!(order.add(2, written("b")).is_empty());
        assert_eq!(order.waiting_bytes(), 1);
        assert!(order.skip(3).is_empty());
        assert_eq!(order.add(1, written("a")), [written("a"), written("b")]);
        assert_eq!(order.add(4, written("d")), [written("d")]);
        assert_eq!(order.waiting_bytes(), 0);
        order.add(6, written("f"));
        assert_eq!(order.rest(), [written("f")]);
    }

    #[test]
    fn each_line_has_its_tag() {
        let mut out = Vec::new();
        put(&mut out, Some(b"t"), b"a\nb").unwrap();
        assert_eq!(out, b"t\ta\nt\tb");
    }

    #[test]
    fn results_lie_in_directories_named_after_the_arguments() {
        let directory = tempfile::tempdir().unwrap();
        let arguments = [b"a/b".to_vec(), b"..".to_vec()];
        save(directory.path(), &arguments, 3, &written("x")).unwrap();
        let path = directory.path().join("1/a\\_b/2/\\..");
        assert_eq!(fs::read(path.join("stdout")).unwrap(), b"x");
        assert_eq!(fs::read(path.join("seq")).unwrap(), b"3");
        save(directory.path(), &[vec![b'x'; 5000]], 4, &written("")).unwrap();
    }
}
