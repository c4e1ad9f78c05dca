//! Other programs that start commands, side by side with ours.

use crate::bench::cpus;
use anyhow::{Context, Result, bail, ensure};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What makes them start `CPUS` at a time, with an argument for each.
const FEEDS: [(&str, &[&str]); 2] = [
    ("xargs", &["xargs", "-P", "CPUS", "-n", "1", "true"]),
    ("parallel", &["parallel", "-j", "CPUS", "true"]),
];
/// HyperQueue's program.
const HYPERQUEUE: &str = "hq";
/// Longer than its server and its workers take to start.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at whether they have.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Seconds that each of them takes for so many commands, as far as they are there.
pub fn seconds(tasks: u64) -> Result<Vec<(&'static str, f64)>> {
    let mut all = Vec::new();
    for (name, words) in FEEDS {
        if let Some(seconds) = fed(words, tasks).with_context(|| name.to_owned())? {
            all.push((name, seconds));
        }
    }
    if let Some(hq) = found(HYPERQUEUE) {
        all.push(("hyperqueue", HyperQueue::start(hq)?.seconds(tasks)?));
    }
    Ok(all)
}

/// Those that read a line for each command.
fn fed(words: &[&str], tasks: u64) -> Result<Option<f64>> {
    let Some(program) = found(words[0]) else { return Ok(None) };
    let count = cpus().to_string();
    let begin = Instant::now();
    let mut command = Command::new(program);
    command.args(words[1..].iter().map(|word| if *word == "CPUS" { &count } else { *word }));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let mut stdin = child.stdin.take().context("no pipe")?;
    let lines: String = (0..tasks).map(|task| format!("{task}\n")).collect();
    // One that ends early is told by its exit code.
    let _ = stdin.write_all(lines.as_bytes());
    drop(stdin);
    let well = child.wait()?.success();
    Ok(well.then(|| begin.elapsed().as_secs_f64()))
}

/// A server of HyperQueue, and a worker of one processor for each there is: two such were faster than one of two.
struct HyperQueue {
    hq: PathBuf,
    directory: tempfile::TempDir,
    children: Vec<Child>,
}

impl HyperQueue {
    fn start(hq: PathBuf) -> Result<HyperQueue> {
        let directory = tempfile::Builder::new().prefix("mutirao-bench-hq-").tempdir()?;
        let mut started = HyperQueue { hq, directory, children: Vec::new() };
        started.spawn(&["server", "start", "--host", "127.0.0.1"])?;
        started.until("its server", |hq| Ok(hq.command(&["server", "info"]).status()?.success()))?;
        for _ in 0..cpus() {
            started.spawn(&["worker", "start", "--cpus", "1", "--detect-resources", "none"])?;
        }
        started.until("its workers", |hq| {
            let listed =
                hq.command(&["worker", "list", "--output-mode", "quiet"]).stdout(Stdio::piped()).output()?;
            Ok(listed.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count() >= cpus())
        })?;
        Ok(started)
    }

    /// From the submission to the end of all.
    fn seconds(&self, tasks: u64) -> Result<f64> {
        let array = format!("1-{tasks}");
        let words = ["submit", "--wait", "--stdout", "none", "--stderr", "none", "--array", &array, "true"];
        let begin = Instant::now();
        ensure!(self.command(&words).status()?.success(), "HyperQueue did not do all of {tasks} tasks");
        Ok(begin.elapsed().as_secs_f64())
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.hq);
        command.args(words).env("HQ_SERVER_DIR", self.directory.path()).current_dir(self.directory.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    fn spawn(&mut self, words: &[&str]) -> Result<()> {
        let child = self.command(words).spawn().context("HyperQueue cannot be started")?;
        self.children.push(child);
        Ok(())
    }

    fn until(&self, what: &str, is_there: impl Fn(&HyperQueue) -> Result<bool>) -> Result<()> {
        let begin = Instant::now();
        while !is_there(self)? {
            if begin.elapsed() > PATIENCE {
                bail!("HyperQueue is there, but {what} did not start in {} s", PATIENCE.as_secs());
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        Ok(())
    }
}

impl Drop for HyperQueue {
    fn drop(&mut self) {
        for child in &mut self.children {
            // It may have ended.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A program in the search path.
pub fn found(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(program)).find(|file| file.is_file())
}
