//! The job log: a line for each job, in the columns of GNU parallel.

use anyhow::{Context, Result, bail, ensure};
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

const HEAD: &str = "Seq\tHost\tStarttime\tJobRuntime\tSend\tReceive\tExitval\tSignal\tCommand\n";

/// The most a line may have, in bytes: no command is as long.
const LINE_BYTES_MAX: u64 = 16 << 20;

/// A job log that is written.
#[derive(Debug)]
pub struct JobLog {
    file: File,
    path: PathBuf,
}

/// One line of it.
#[derive(Debug)]
pub struct Entry<'a> {
    /// The job's number.
    pub sequence: u64,
    /// The node it ran on; `:` for this machine alone.
    pub host: &'a str,
    /// When it began, microseconds since 1970.
    pub started_us: u64,
    /// How long it ran, microseconds.
    pub wall_us: u64,
    /// Bytes of files brought.
    pub sent_bytes: u64,
    /// Bytes of output and files taken back.
    pub received_bytes: u64,
    /// The exit code; -1 if its time limit passed.
    pub code: i32,
    /// The signal it died of, or 0.
    pub signal: i32,
    /// The command.
    pub command: &'a [u8],
}

/// What a job log says: whether each job it lists did well in its last run.
pub type Listed = HashMap<u64, bool>;

impl JobLog {
    /// Begins a log, or goes on with one.
    pub fn open(path: &Path, go_on: bool) -> Result<(JobLog, Listed)> {
        let failed = || format!("cannot write the job log {}", path.display());
        let mut options = OpenOptions::new();
        options.read(go_on).write(true).create(true).truncate(!go_on);
        let mut file = options.open(path).with_context(failed)?;
        // One that begins may be a terminal or a pipe, and is not looked into.
        let listed = if go_on { read(&file, path)? } else { Listed::new() };
        if !go_on || file.seek(SeekFrom::End(0)).with_context(failed)? == 0 {
            file.write_all(HEAD.as_bytes()).with_context(failed)?;
        }
        Ok((JobLog { file, path: path.to_owned() }, listed))
    }

    /// Writes a line.
    pub fn put(&mut self, entry: &Entry<'_>) -> Result<()> {
        let mut line = format!(
            "{}\t{}\t{:.3}\t{:10.3}\t{}\t{}\t{}\t{}\t",
            entry.sequence,
            entry.host,
            entry.started_us as f64 / 1e6,
            entry.wall_us as f64 / 1e6,
            entry.sent_bytes,
            entry.received_bytes,
            entry.code,
            entry.signal,
        )
        .into_bytes();
        // One job, one line.
        line.extend(entry.command.iter().map(|&byte| if byte == b'\n' { b'\0' } else { byte }));
        line.push(b'\n');
        let written = self.file.write_all(&line);
        written.with_context(|| format!("cannot write the job log {}", self.path.display()))
    }
}

/// Reads what there is; a last line that was not written to its end is cut off.
fn read(file: &File, path: &Path) -> Result<Listed> {
    let failed = || format!("cannot read the job log {}", path.display());
    let mut listed = Listed::new();
    let mut lines = BufReader::new(file);
    let (mut line, mut whole_bytes, mut number) = (Vec::new(), 0, 0);
    while (&mut lines).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).with_context(failed)? > 0 {
        if line.last() != Some(&b'\n') {
            ensure!(
                (line.len() as u64) < LINE_BYTES_MAX,
                "{} is no job log: a line has no end",
                path.display()
            );
            file.set_len(whole_bytes).with_context(failed)?;
            break;
        }
        whole_bytes += line.len() as u64;
        number += 1;
        if number > 1 {
            let Some((sequence, well)) = outcome(&line) else {
                bail!("line {number} of {} is none of a job log", path.display());
            };
            listed.insert(sequence, well);
        } else if line != HEAD.as_bytes() {
            bail!("{} is no job log: its first line is another", path.display());
        }
        line.clear();
    }
    Ok(listed)
}

/// The number of the job of a line, and whether it did well.
fn outcome(line: &[u8]) -> Option<(u64, bool)> {
    let fields: Vec<&str> = line
        .split(|&byte| byte == b'\t')
        .take(8)
        .map_while(|field| std::str::from_utf8(field).ok())
        .collect();
    let number = |place: usize| fields.get(place)?.trim().parse::<i64>().ok();
    Some((u64::try_from(number(0)?).ok()?, number(6)? == 0 && number(7)? == 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(sequence: u64, code: i32) -> Entry<'static> {
        Entry {
            sequence,
            host: "n1",
            started_us: 1_500_000,
            wall_us: 25_000,
            sent_bytes: 0,
            received_bytes: 3,
            code,
            signal: 0,
            command: b"echo a\nb",
        }
    }

    #[test]
    fn what_was_written_is_read_again_and_the_last_run_of_a_job_counts() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let (mut log, listed) = JobLog::open(&path, false).unwrap();
        assert!(listed.is_empty());
        for (sequence, code) in [(1, 0), (2, 1), (3, 1), (3, 0)] {
            log.put(&entry(sequence, code)).unwrap();
        }
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().nth(1), Some("1\tn1\t1.500\t     0.025\t0\t3\t0\t0\techo a\0b"));
        let (_, listed) = JobLog::open(&path, true).unwrap();
        assert_eq!(listed, Listed::from([(1, true), (2, false), (3, true)]));
        let (_, listed) = JobLog::open(&path, false).unwrap();
        assert!(listed.is_empty());
    }

    #[test]
    fn wherever_a_log_was_cut_it_is_gone_on_with() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let (mut log, _) = JobLog::open(&path, false).unwrap();
        (1..=3).for_each(|sequence| log.put(&entry(sequence, 0)).unwrap());
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let (mut log, listed) = JobLog::open(&path, true).unwrap();
            log.put(&entry(9, 0)).unwrap();
            let (_, again) = JobLog::open(&path, true).unwrap();
            assert_eq!(again.len(), listed.len() + 1, "cut at {cut}");
        }
        std::fs::write(&path, "something else\n").unwrap();
        assert!(JobLog::open(&path, true).is_err());
    }

    #[test]
    fn a_device_is_not_read_to_an_end_it_does_not_have() {
        let says = |path, go_on| format!("{:#}", JobLog::open(Path::new(path), go_on).unwrap_err());
        assert!(says("/dev/full", false).contains("cannot write the job log /dev/full"));
        assert!(says("/dev/zero", true).contains("a line has no end"));
        assert!(JobLog::open(Path::new("/dev/null"), false).is_ok());
    }
}
