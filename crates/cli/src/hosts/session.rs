//! One `ssh` and the program at its other end, line by line.

use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, channel, sync_channel};
use std::time::{Duration, Instant};

/// Longest wait for a line. `ssh` itself notices much sooner that a machine is gone.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest line: a certificate or a node's description is much shorter.
const LINE_BYTES_MAX: u64 = 256 * 1024;
/// What is kept of standard error.
const ERROR_BYTES_MAX: usize = 4096;
/// How long an `ssh` whose output has ended may take to end itself.
const END: Duration = Duration::from_secs(3);

/// Given to `ssh` besides what the user's own configuration says: never ask anything on the terminal, and
/// notice machines that do not answer.
const OPTIONS: [&str; 9] = [
    "-T",
    "-o",
    "BatchMode=yes",
    "-o",
    "ConnectTimeout=10",
    "-o",
    "ServerAliveInterval=5",
    "-o",
    "ServerAliveCountMax=3",
];

/// A running `ssh`. Dropped, it is ended.
pub struct Session {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    errors: Receiver<String>,
}

impl Session {
    /// Runs `script`, which has no single quote in it, in a POSIX shell on `target`.
    pub fn open(ssh: &str, target: &str, script: &str) -> Result<Session> {
        let mut words = ssh.split_whitespace();
        let program = words.next().context("--ssh names no command")?;
        let mut child = Command::new(program)
            .args(words)
            .args(OPTIONS)
            // One word: whatever shell the user has there starts another.
            .args([target, &format!("exec sh -c '{script}'")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start `{program}`"))?;
        let input = child.stdin.take();
        let output = child.stdout.take().context("no standard output")?;
        let error = child.stderr.take().context("no standard error")?;
        let (to_lines, lines) = sync_channel(64);
        std::thread::spawn(move || read_lines(output, &to_lines));
        let (to_errors, errors) = channel();
        std::thread::spawn(move || to_errors.send(last_line(error)));
        Ok(Session { child, input, lines, errors })
    }

    /// The next line of the other side.
    pub fn line(&mut self) -> Result<String> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => Ok(line),
            Err(RecvTimeoutError::Timeout) => bail!("no answer for {} s", PATIENCE.as_secs()),
            Err(RecvTimeoutError::Disconnected) => bail!("{}", self.last_words()),
        }
    }

    /// Writes a line to the other side.
    pub fn send(&mut self, text: &str) -> Result<()> {
        self.write(text.as_bytes())?;
        self.write(b"\n")
    }

    /// Writes to the other side.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let input = self.input.as_mut().context("its standard input is closed")?;
        if input.write_all(bytes).and_then(|()| input.flush()).is_err() {
            // Why it no longer reads, it says on standard error.
            bail!("{}", self.last_words());
        }
        Ok(())
    }

    /// Ends what the other side reads.
    pub fn close_input(&mut self) {
        self.input = None;
    }

    /// Why it ended: the last line of its standard error, or its exit status.
    fn last_words(&mut self) -> String {
        self.input = None;
        let start = Instant::now();
        let status = loop {
            match self.child.try_wait() {
                Ok(Some(status)) => break Some(status),
                Ok(None) if start.elapsed() < END => std::thread::sleep(Duration::from_millis(5)),
                _ => break None,
            }
        };
        // A connection shared with other sessions may keep standard error open for ever.
        let said = self.errors.recv_timeout(END).unwrap_or_default();
        match status {
            _ if !said.is_empty() => said,
            Some(status) => format!("ssh ended without a word ({status})"),
            None => "ssh closed its output and went on".into(),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.input = None;
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_lines(output: impl Read, to: &SyncSender<String>) {
    let mut output = BufReader::new(output);
    loop {
        let mut line = Vec::new();
        match output.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line) {
            Ok(1..) if line.ends_with(b"\n") => {}
            _ => return,
        }
        if to.send(String::from_utf8_lossy(line.trim_ascii_end()).into_owned()).is_err() {
            return;
        }
    }
}

/// The last line that is not blank, without what a terminal might take for an order.
fn last_line(mut error: impl Read) -> String {
    let mut kept = Vec::new();
    let mut chunk = [0; 1024];
    while let Ok(n @ 1..) = error.read(&mut chunk) {
        kept.extend_from_slice(&chunk[..n]);
        kept.drain(..kept.len().saturating_sub(ERROR_BYTES_MAX));
    }
    let text = String::from_utf8_lossy(&kept);
    let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    last.trim().chars().filter(|c| !c.is_control()).take(400).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_what_counts() {
        assert_eq!(last_line(&b"warning\nPermission denied.\r\n\n"[..]), "Permission denied.");
        assert_eq!(last_line(&b"\x1b[31mred\n"[..]), "[31mred");
        let mut long = vec![b'x'; 10_000];
        long.extend_from_slice(b"\nend\n");
        assert_eq!(last_line(&long[..]), "end");
        assert_eq!(last_line(&b""[..]), "");
    }

    #[test]
    fn endless_lines_end_the_reading() {
        let (to, lines) = sync_channel(4);
        let mut text = b"good\n".to_vec();
        text.resize(LINE_BYTES_MAX as usize + 10, b'x');
        read_lines(&text[..], &to);
        drop(to);
        assert_eq!(lines.iter().collect::<Vec<_>>(), ["good"]);
    }
}
