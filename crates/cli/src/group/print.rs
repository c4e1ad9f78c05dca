//! What the processes of a group write, a line at a time, with whose it is.

use anyhow::Result;
use mutirao_group::console::Stream;
use std::io::Write;

/// A line is shown in parts beyond so many bytes.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// Shows what processes write.
#[derive(Debug)]
pub struct Printer {
    /// Whether it is said whose a line is.
    pub labels: bool,
    /// Whether all goes to standard error, because standard output is for something else.
    pub aside: bool,
}

/// What a process has begun to write and not yet ended, of both its streams.
#[derive(Debug, Default)]
pub struct Begun {
    out: Vec<u8>,
    error: Vec<u8>,
}

impl Printer {
    /// Shows what `process` wrote, as far as it is whole lines; all of it without labels.
    pub fn show(&self, process: &str, begun: &mut Begun, stream: Stream, bytes: &[u8]) -> Result<()> {
        if !self.labels {
            return self.put(stream, bytes);
        }
        let line = match stream {
            Stream::Out => &mut begun.out,
            Stream::Error => &mut begun.error,
        };
        line.extend_from_slice(bytes);
        let whole = match line.iter().rposition(|byte| *byte == b'\n') {
            Some(end) => end + 1,
            None if line.len() > LINE_BYTES_MAX => line.len(),
            None => return Ok(()),
        };
        let rest = line.split_off(whole);
        let lines = std::mem::replace(line, rest);
        self.put(stream, &labelled(process, &lines))
    }

    /// Shows what `process` has left unended.
    pub fn finish(&self, process: &str, begun: &mut Begun) -> Result<()> {
        for (stream, line) in [(Stream::Out, &mut begun.out), (Stream::Error, &mut begun.error)] {
            let line = std::mem::take(line);
            if !line.is_empty() {
                self.put(stream, &labelled(process, &line))?;
            }
        }
        Ok(())
    }

    fn put(&self, stream: Stream, bytes: &[u8]) -> Result<()> {
        if stream == Stream::Out && !self.aside {
            return crate::output::put_bytes(bytes);
        }
        Ok(std::io::stderr().lock().write_all(bytes)?)
    }
}

fn labelled(process: &str, lines: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    for line in lines.split_inclusive(|byte| *byte == b'\n') {
        text.extend_from_slice(process.as_bytes());
        text.extend_from_slice(b": ");
        text.extend_from_slice(line);
        if !line.ends_with(b"\n") {
            text.push(b'\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_says_whose_it_is() {
        assert_eq!(labelled("a.0", b"x\n\ny"), b"a.0: x\na.0: \na.0: y\n");
        assert_eq!(labelled("a.0", b""), b"");
    }
}
