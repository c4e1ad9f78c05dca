//! The last lines that a process wrote to its standard error.

use std::collections::VecDeque;

/// Lines that are kept.
const LINES_MAX: usize = 32;
/// Bytes that are kept, newlines not counted.
const BYTES_MAX: usize = 8 * 1024;

/// The last lines that a process wrote to its standard error: at most 32, of 8 KiB together.
#[derive(Debug, Default)]
pub struct Tail {
    lines: VecDeque<Vec<u8>>,
    /// The line that is being written; the last one of the tail.
    open: Vec<u8>,
    bytes: usize,
}

impl Tail {
    /// Adds what was written.
    pub fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (line, rest) = match bytes.iter().position(|&byte| byte == b'\n') {
                Some(end) => (&bytes[..end], Some(&bytes[end + 1..])),
                None => (bytes, None),
            };
            // Of a line that is too long the end is kept.
            let line = &line[line.len().saturating_sub(BYTES_MAX)..];
            self.open.extend_from_slice(line);
            self.bytes += line.len();
            if rest.is_some() {
                self.lines.push_back(core::mem::take(&mut self.open));
            }
            self.shorten();
            bytes = rest.unwrap_or_default();
        }
    }

    /// The last `count` lines, readable: what is no text is replaced, control characters are dropped.
    pub fn last(&self, count: usize) -> String {
        let open = (!self.open.is_empty()).then_some(&self.open);
        let all: Vec<&Vec<u8>> = self.lines.iter().chain(open).filter(|line| !line.is_empty()).collect();
        let lines = all[all.len().saturating_sub(count)..].iter().map(|line| {
            let text = String::from_utf8_lossy(line).into_owned();
            text.chars().filter(|c| *c == '\t' || !c.is_control()).collect::<String>()
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    fn shorten(&mut self) {
        while self.lines.len() > LINES_MAX || (self.bytes > BYTES_MAX && !self.lines.is_empty()) {
            self.bytes -= self.lines.pop_front().map_or(0, |line| line.len());
        }
        if self.bytes > BYTES_MAX {
            let surplus = self.open.len() - BYTES_MAX;
            self.open.drain(..surplus);
            self.bytes = self.open.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_last_lines_are_kept_and_made_readable() {
        let mut tail = Tail::default();
        tail.push(b"one\ntw");
        tail.push(b"o\n\x1b[31mthree\xff");
        assert_eq!(tail.last(8), "one\ntwo\n[31mthree\u{fffd}");
        assert_eq!(tail.last(1), "[31mthree\u{fffd}");
        for i in 0..100 {
            tail.push(format!("line {i}\n").as_bytes());
        }
        assert!(tail.last(100).starts_with("line 68\n"));
        assert!(tail.last(100).ends_with("\nline 99"));
    }

    proptest! {
        #[test]
        fn a_flood_takes_no_more_than_the_limit(
            pieces in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..64), 1usize..400), 0..40),
        ) {
            let mut tail = Tail::default();
            for (piece, times) in pieces {
                tail.push(&piece.repeat(times));
                let held: usize = tail.lines.iter().map(Vec::len).sum::<usize>() + tail.open.len();
                prop_assert_eq!(held, tail.bytes);
                prop_assert!(held <= BYTES_MAX && tail.lines.len() <= LINES_MAX);
            }
        }
    }
}
