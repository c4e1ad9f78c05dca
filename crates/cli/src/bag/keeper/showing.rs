//! How a bag stands, for those who look on.

use super::{DISK_RETRY, Keeper, Log};
use crate::bag::control;
use crate::output::remark;
use anyhow::Result;
use mutirao_bag::{Bag, Template, Work};
use mutirao_schedule::bag::Needs;
use mutirao_wire::node::NodeRef;
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
            let failed = match counts.went_wrong() {
                0 => String::new(),
                count => format!(", {count} failed"),
            };
            let waits = self.leases.waits().first().map(|(_, why)| format!("; {why}")).unwrap_or_default();
            let workers = crate::output::counted(self.bag.workers() as u64, "worker");
            bar.set_message(format!("{} running on {workers}{failed}{waits}", self.bag.running()));
        }
        if !self.watchers.is_empty() {
            let line = self.progress(self.leases.waits());
            self.watchers.retain_mut(|watcher| watcher.tell(&line));
        }
        if self.list_due.is_none() && self.bag.settings().list.is_some() && counts != self.listed {
            self.list_due = Some(Instant::now() + LIST_EVERY);
        }
        Ok(())
    }

    fn progress(&self, waits: &[(Needs, String)]) -> String {
        let (is_tried, unplaced) = match &self.log {
            Log::Alone { .. } => (true, None),
            Log::Shared(shared) => (shared.is_placed_or_tried(), shared.unplaced()),
        };
        control::progress(&self.bag, waits, is_tried && self.synced == self.appended, unplaced)
    }

    /// Says once why tasks have no slot.
    pub(super) fn say_why(&self, needs: &Needs, why: &str) {
        self.say_beside_bar(&format!("tasks that need {} wait: {why}", Bag::needs_text(needs)));
    }

    /// Says once of an ipar application, whose runs share files, that some are elsewhere.
    pub(super) fn say_elsewhere(&mut self, node: &NodeRef) {
        let is_ipar = |template: &Template| matches!(template.work, Work::Ipar { .. });
        if node.id == self.pool.node().id || !self.bag.templates().first().is_some_and(is_ipar) {
            return;
        }
        if !std::mem::replace(&mut self.elsewhere_said, true) {
            self.say_beside_bar(&format!(
                "tasks run on `{}` too, and what they write there stays there unless that node shares this directory; \
                 --nodes says where they may run",
                node.name
            ));
        }
    }

    fn say_beside_bar(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| remark!("mutirao: {text}")),
            None => remark!("mutirao: {text}"),
        }
    }

    pub(super) fn end_showing(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let line = self.progress(&[]);
        self.watchers.retain_mut(|watcher| watcher.tell(&line));
    }

    /// Writes the list of tasks for people, where the bag wants one.
    pub(super) fn write_list(&mut self) -> Result<()> {
        self.list_due = None;
        self.listed = self.bag.counts();
        let Some(list) = &self.bag.settings().list else { return Ok(()) };
        let path = std::path::Path::new(&self.bag.settings().directory).join(list);
        let text = crate::bag::show::list_text(&self.bag);
        match mutirao_store::write_atomic(&path, text.as_bytes(), 0o644) {
            // It is for people to read, and nothing waits for it.
            Err(mutirao_store::Error::DiskFull(_)) => self.list_due = Some(Instant::now() + DISK_RETRY),
            written => written?,
        }
        Ok(())
    }
}
