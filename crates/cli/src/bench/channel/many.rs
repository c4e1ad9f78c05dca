//! Many processes of one node that use their channels at once, in pairs, and as many bare ones beside them: how much
//! is lost from few to many, and how much of that by the machine itself.

use super::super::floor::{Carrier, Floor};
use super::super::{Case, unpin};
use super::process::{Measured, What, window};
use super::real;
use anyhow::{Context, Result, ensure};
use indicatif::ProgressBar;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

/// How many; the figure of the first is the floor of the others.
const MANY: [u16; 2] = [8, 64];
const FEW: &str = "8 processes";
/// Bytes of their messages.
const SIZE: usize = 8;

/// What they do, as far as a name of its cases contains `only`.
pub fn kinds(only: &str) -> Vec<What> {
    let is_wanted = |what: &What| {
        MANY.iter().any(|processes| {
            [true, false].iter().any(|is_bare| named(*what, *processes, *is_bare).contains(only))
        })
    };
    [What::Ping, What::Stream].into_iter().filter(is_wanted).collect()
}

/// Cases of so many kinds.
pub fn count(kinds: &[What]) -> usize {
    kinds.len() * MANY.len() * 2
}

/// Measures kind by kind. Those of one kind have each other as floors, so all are measured.
pub fn cases(kinds: &[What], span: Duration, bar: &ProgressBar) -> Result<Vec<Case>> {
    if kinds.is_empty() {
        return Ok(Vec::new());
    }
    unpin(None)?;
    let mut cases = Vec::new();
    for what in kinds.iter().copied() {
        let (mut ours, mut bare) = (Vec::new(), Vec::new());
        for processes in MANY {
            bare.push(bare_pairs(processes, what, span)?);
            bar.inc(1);
            ours.push(real::pairs(processes, what, SIZE, span)?);
            bar.inc(1);
        }
        let kind = if what == What::Stream { "unix stream" } else { "unix ping" };
        let floors = [Some((kind, bare[0])), Some((FEW, ours[0]))];
        for ((processes, measured), floor) in MANY.into_iter().zip(&ours).zip(floors) {
            let nodes = Some(1);
            cases.push(Case { nodes, ..figure(named(what, processes, false), *measured, floor) });
        }
        for ((processes, measured), floor) in MANY.into_iter().zip(&bare).zip([None, Some((FEW, bare[0]))]) {
            cases.push(figure(named(what, processes, true), *measured, floor));
        }
    }
    Ok(cases)
}

fn named(what: What, processes: u16, is_bare: bool) -> String {
    let size = crate::output::bytes(SIZE as u64);
    if is_bare {
        format!("bare {} {size}, {processes} processes", what.word())
    } else {
        format!("{} {size}, {processes} processes of a node", what.word())
    }
}

fn figure(name: String, measured: Measured, floor: Option<(&'static str, Measured)>) -> Case {
    Case {
        size_bytes: Some(SIZE as u64),
        n: Some(measured.n),
        per_s: Some(measured.per_s),
        floor_kind: floor.map(|(kind, _)| kind),
        floor_per_s: floor.map(|(_, floor)| floor.per_s),
        ratio: floor.map(|(_, floor)| measured.per_s / floor.per_s),
        tls: Some(false),
        ..Case::new(name)
    }
}

/// What so many bare processes do, joined in pairs by Unix sockets.
fn bare_pairs(processes: u16, what: What, span: Duration) -> Result<Measured> {
    let task = serde_json::to_string(&(what, SIZE, span))?;
    let mut pairs: Vec<Pair> = (0..processes / 2).map(|_| Pair::start(&task)).collect::<Result<_>>()?;
    pairs.iter_mut().try_for_each(Pair::until_ready)?;
    pairs.iter_mut().for_each(Pair::begin);
    let measured: Vec<Measured> = pairs.iter_mut().map(Pair::end).collect::<Result<_>>()?;
    Ok(Measured::together(&measured))
}

/// A pair's process that measures. It starts the other one.
struct Pair {
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Pair {
    fn start(task: &str) -> Result<Pair> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["floor-peer", "pair", task, "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start a process of a floor")?;
        let said = BufReader::new(child.stdout.take().context("its output is a pipe")?);
        Ok(Pair { child, said })
    }

    /// Waits until it has started the other.
    fn until_ready(&mut self) -> Result<()> {
        ensure!(self.said.read_line(&mut String::new())? > 0, "a process of a floor has failed");
        Ok(())
    }

    fn begin(&mut self) {
        drop(self.child.stdin.take());
    }

    fn end(&mut self) -> Result<Measured> {
        let mut text = String::new();
        self.said.read_to_string(&mut text)?;
        serde_json::from_str(&text).context("a process of a floor has failed")
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The process that measures; `task` as it was written. It says that it is ready, and begins when its input ends.
pub fn peer(task: &str) -> Result<()> {
    let (what, size, span): (What, usize, Duration) = serde_json::from_str(task)?;
    let directory = tempfile::tempdir()?;
    let mut floor = Floor::start(Carrier::Unix, directory.path())?;
    floor.roam()?;
    let mut out = std::io::stdout();
    writeln!(out)?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    let bare = match what {
        What::Ping | What::StoredPing => floor.ping(size, span)?,
        What::Stream => floor.stream(size, window(size), span)?,
    };
    let measured = Measured { n: bare.n, per_s: bare.per_s, p50_us: None, p99_us: None };
    Ok(writeln!(out, "{}", serde_json::to_string(&measured)?)?)
}
