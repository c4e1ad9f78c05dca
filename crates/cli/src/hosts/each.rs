//! The same for many machines at a time, with what goes on shown on a terminal.

use anyhow::{Result, anyhow};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use mutirao_topology::hosts::HostFile;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// How often a line on the terminal moves.
const TICK: Duration = Duration::from_millis(120);

/// What is done with one host, by its place in the file; the second argument hears each step of it.
type Work<'a, T> = &'a (dyn Fn(usize, &dyn Fn(&str)) -> Result<T> + Sync);

/// Does `work` for each of `hosts`, at most `parallel` at a time; results in the order of `hosts`.
pub fn each<T: Send>(file: &HostFile, hosts: &[usize], parallel: u16, work: Work<'_, T>) -> Vec<Result<T>> {
    // Neither draws anything where standard error is no terminal.
    let bars = MultiProgress::new();
    let all = bars.add(ProgressBar::new(hosts.len() as u64));
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed}") {
        all.set_style(style);
    }
    let results: Vec<Mutex<Option<Result<T>>>> = hosts.iter().map(|_| Mutex::new(None)).collect();
    let next = AtomicUsize::new(0);
    let worker = || {
        while let Some(at) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|at| *at < hosts.len()) {
            let bar = bars.add(ProgressBar::new_spinner());
            bar.set_prefix(file.hosts[hosts[at]].target.clone());
            if let Ok(style) = ProgressStyle::with_template("  {spinner} {prefix}: {msg}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(TICK);
            let result = work(hosts[at], &|step| bar.set_message(step.to_owned()));
            bar.finish_and_clear();
            all.inc(1);
            if let Ok(mut slot) = results[at].lock() {
                *slot = Some(result);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..hosts.len().min(parallel.into()) {
            scope.spawn(worker);
        }
    });
    all.finish_and_clear();
    let taken = |slot: Mutex<Option<Result<T>>>| slot.into_inner().ok().flatten();
    results.into_iter().map(|slot| taken(slot).unwrap_or_else(|| Err(anyhow!("not done")))).collect()
}
