//! How a bag stands, for those who look on.

use super::Keeper;
use crate::bag::control;
use anyhow::Result;
use std::time::{Duration, Instant};

/// The list of tasks is written so often, if things change.
const LIST_EVERY: Duration = Duration::from_secs(2);

/// A line on the terminal.
pub(super) fn bar() -> indicatif::ProgressBar {
    let style =
        indicatif::ProgressStyle::with_template("{bar:30} {pos}/{len} tasks, {msg}, {per_sec}, {eta} left");
    let bar = indicatif::ProgressBar::new(0);
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

impl Keeper {
    /// Shows those who look on how things stand.
    pub(super) fn show(&mut self) -> Result<()> {
        let counts = self.bag.counts();
        if let Some(bar) = &self.bar {
            bar.set_length(counts.all());
            bar.set_position(counts.all() - counts.open());
            let failed = if counts.bad() > 0 { format!(", {} failed", counts.bad()) } else { String::new() };
            bar.set_message(format!(
                "{} running on {} slots{failed}",
                self.bag.running(),
                self.bag.workers()
            ));
        }
        if !self.watchers.is_empty() {
            let line = control::progress(&self.bag);
            self.watchers.retain_mut(|watcher| watcher.tell(&line));
        }
        if self.list_due.is_none() && self.bag.settings().list.is_some() && counts != self.listed {
            self.list_due = Some(Instant::now() + LIST_EVERY);
        }
        Ok(())
    }

    pub(super) fn end_showing(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let line = control::progress(&self.bag);
        self.watchers.retain_mut(|watcher| watcher.tell(&line));
    }

    /// Writes the list of tasks for people, where the bag wants one.
    pub(super) fn write_list(&mut self) -> Result<()> {
        self.list_due = None;
        self.listed = self.bag.counts();
        let Some(list) = &self.bag.settings().list else { return Ok(()) };
        let path = std::path::Path::new(&self.bag.settings().directory).join(list);
        let text = crate::bag::show::list_text(&self.bag);
        mutirao_store::write_atomic(&path, text.as_bytes(), 0o644)?;
        Ok(())
    }
}
