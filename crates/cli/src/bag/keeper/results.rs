//! What attempts leave: fetched, compared, put on the disk before anything is said of it, put in place once it counts.

use super::super::kept_files::{Goal, NotBrought};
use super::super::member;
use super::super::outputs::{self, NotKept};
use super::super::shared::Lying;
use super::super::work::{self, Outcome};
use super::succession::Receipt;
use super::{Keeper, Log};
use anyhow::{Context, Result};
use mutirao_bag::{End, Input, Span, Taking, TaskView};
use mutirao_runner::{Kept, Placed, look};
use mutirao_wire::BlobHash;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

impl Keeper {
    /// An attempt is over: what it left is put on the disk before anything is said about it.
    pub(super) fn ended(&mut self, attempt: u64, mut outcome: Outcome) -> Result<()> {
        if !outcome.kept.is_empty() {
            match self.fetch_kept(attempt, outcome)? {
                Some(left) => outcome = left,
                None => return Ok(()),
            }
        }
        self.sites.over(attempt);
        let mut spans = Default::default();
        let compares = outcome.end == End::Done && self.bag.compares();
        let result = compares.then(|| self.content_hash(attempt, &outcome)).flatten();
        if outcome.end == End::Done && self.bag.is_wanted(attempt) && !self.bag.is_check(attempt) {
            match self.put_outputs(attempt, &outcome)? {
                Ok(put) => (spans, self.no_room_said) = (put, false),
                Err(NotKept::Full(path)) => {
                    self.no_room(&path);
                    self.held.push_back((attempt, outcome));
                    return Ok(());
                }
                Err(NotKept::Missing(name)) => outcome.end = End::NoOutput(name),
                Err(NotKept::Refused(path, error)) => {
                    outcome.end =
                        End::NoOutput(format!("{} (it cannot be written here: {error})", path.display()));
                }
            }
        }
        // What it leaves to the next attempt.
        if let Some(state) = outcome.state.take_if(|_| self.takes_state(attempt) == Taking::Keeps) {
            match self.put_state(attempt, state)? {
                Ok(()) => {}
                Err(state) => {
                    outcome.state = Some(state);
                    self.no_room(&self.place.outputs());
                    self.held.push_back((attempt, outcome));
                    return Ok(());
                }
            }
        }
        if outcome.end == End::Done && self.bag.weighs_inputs() {
            self.learn_lengths_of(attempt, &outcome);
        }
        let (last_words, kept) = (outcome.last_words(), outcome.kept_hashes());
        let Outcome { end, cost, report, .. } = outcome;
        self.tell(Input::Ended { attempt, end, cost, last_words, outputs: spans, result, report })?;
        let (call, lease) = (self.owed.remove(&attempt), self.lenders.remove(&attempt));
        if self.is_shared() {
            self.receipts.push_back(Receipt { record: self.appended, call, lease, kept });
        } else if let Some(lease) = lease {
            self.kept_files.forget(lease, kept);
        }
        Ok(())
    }

    /// Others may read what an attempt has made.
    pub(super) fn learn_lengths_of(&mut self, attempt: u64, outcome: &Outcome) {
        let Some(view) = self.bag.attempt(attempt) else { return };
        let bytes_of = |name: &str| {
            let file =
                outcome.files.iter().find(|file| file.name == name).map(|file| file.bytes.len() as u64);
            let kept = outcome.fetched.iter().find(|kept| kept.name == name).map(|kept| kept.content.bytes);
            let placed = outcome.placed.iter().find(|placed| placed.name == name).map(|placed| placed.bytes);
            file.or(kept).or(placed)
        };
        let made =
            view.template.outputs.iter().filter_map(|file| {
                Some((file.here.fill(&view.named), bytes_of(&file.there.fill(&view.named))?))
            });
        let made: Vec<(String, u64)> = made.collect();
        made.into_iter().for_each(|(path, bytes)| self.bag.know_length(path, bytes));
    }

    /// Has fetched what the node of an attempt keeps, if it is wanted.
    pub(super) fn fetch_kept(&mut self, attempt: u64, mut outcome: Outcome) -> Result<Option<Outcome>> {
        let Some(lease) = self.lenders.get(&attempt).copied() else { return Ok(Some(outcome)) };
        let is_wanted =
            outcome.end == End::Done && self.bag.is_wanted(attempt) && !self.bag.is_check(attempt);
        let task = self.bag.task_of(attempt).and_then(|task| self.bag.task(task)).filter(|_| is_wanted);
        let Some(task) = task else {
            // What it is compared by is known all the same.
            outcome.fetched.append(&mut outcome.kept);
            return Ok(Some(outcome));
        };
        let goal = if self.is_shared() {
            let is_long = |kept: &&Kept| u32::try_from(kept.content.bytes).is_err();
            if let Some(Kept { name, .. }) = outcome.kept.iter().find(is_long) {
                outcome.end =
                    End::NoOutput(format!("{name} (it has 4 GiB or more, which one node can keep alone)"));
                outcome.fetched.append(&mut outcome.kept);
                return Ok(Some(outcome));
            }
            let path = self.place.directory().join("came").join(format!("attempt-{attempt}"));
            Goal::Together(outcome.kept.clone(), path)
        } else {
            let paths = work::output_paths(self.place.id, self.bag.settings(), &task, (attempt, 0));
            let file = |kept: &Kept| {
                let (.., waiting) = paths.iter().find(|(there, ..)| *there == kept.name)?;
                Some((kept.clone(), waiting.clone()))
            };
            Goal::Places(outcome.kept.iter().filter_map(file).collect())
        };
        self.kept_files.fetch(attempt, lease, outcome, goal)?;
        Ok(None)
    }

    /// What the node of an attempt has kept is here, or is not to be had.
    pub(super) fn fetched(
        &mut self,
        attempt: u64,
        result: Result<Option<File>, NotBrought>,
        put: &[PathBuf],
    ) -> Result<()> {
        let Some(mut outcome) = self.kept_files.came(attempt) else {
            // It was called off meanwhile.
            put.iter().for_each(|path| drop(std::fs::remove_file(path)));
            return Ok(());
        };
        outcome.fetched = std::mem::take(&mut outcome.kept);
        match result {
            Ok(together) => outcome.together = together.map(Arc::new),
            Err(NotBrought::Lost(why)) => {
                outcome.end = End::NodeLost(format!("its output was not fetched: {why}"))
            }
            Err(NotBrought::Refused(path, error)) => {
                outcome.end =
                    End::NoOutput(format!("{} (it cannot be written here: {error})", path.display()));
            }
        }
        self.ended(attempt, outcome)
    }

    /// What has come is held until there is room.
    pub(super) fn no_room(&mut self, path: &Path) {
        self.awaits_room(&format_args!("no room for {}", path.display()));
    }

    /// What the result of an attempt is compared by.
    pub(super) fn content_hash(&self, attempt: u64, outcome: &Outcome) -> Option<BlobHash> {
        let view = self.bag.attempt(attempt)?;
        let names = view.template.outputs.iter().map(|file| file.there.fill(&view.named));
        let names: Vec<String> = names.collect();
        let file = |name: &String| {
            if let Some(file) = outcome.files.iter().find(|file| file.name == *name) {
                return Some((name.clone(), file.bytes.as_slice()));
            }
            // By its hash; and no small file can be taken for it.
            let kept = outcome.kept.iter().chain(&outcome.fetched).find(|kept| kept.name == *name)?;
            Some((format!("{name}\0"), kept.content.hash.as_slice()))
        };
        let files: Vec<(String, &[u8])> = names.iter().filter_map(file).collect();
        let files = files.iter().map(|(name, bytes)| (name.as_str(), *bytes));
        Some(mutirao_bag::content_hash(&outcome.stdout, files, &outcome.report.text()))
    }

    pub(super) fn put_outputs(
        &mut self,
        attempt: u64,
        outcome: &Outcome,
    ) -> Result<Result<(Span, Span), NotKept>> {
        let Some(task) = self.bag.task_of(attempt).and_then(|task| self.bag.task(task)) else {
            return Ok(Ok(Default::default()));
        };
        let put = match &mut self.log {
            Log::Alone { outputs, .. } => {
                if let Err(why) = outputs::keep(self.place.id, &self.bag, &task, attempt, outcome) {
                    return Ok(Err(why));
                }
                let put = outputs.append(&outcome.stdout);
                put.and_then(|stdout| Ok((stdout, outputs.append(&outcome.stderr)?)))
            }
            Log::Shared(shared) => {
                let are_seen = !outcome.placed.is_empty() && self.sites.are_seen();
                for file in &task.template.outputs {
                    let there = file.there.fill(&task.named);
                    let (content, executable) = if let (Some(together), Some((begin, kept))) =
                        (&outcome.together, outcome.place_together(&there))
                    {
                        let content = shared.put_content(together, begin, kept.content.bytes as u32);
                        (content, kept.executable)
                    } else if let Some(file) = outcome.files.iter().find(|file| file.name == there) {
                        (shared.put_output(&file.bytes), file.executable)
                    } else if let Some(placed) = outcome.placed.iter().find(|placed| placed.name == there) {
                        let by = (attempt, placed.sender);
                        let paths = work::output_paths(self.place.id, self.bag.settings(), &task, by);
                        let waiting = paths.into_iter().find(|(name, ..)| *name == there);
                        let Some((.., waiting)) = waiting else { return Ok(Err(NotKept::Missing(there))) };
                        // From where it is not seen, its node is believed.
                        if are_seen && !look(&waiting).is_ok_and(|facts| facts.is_file()) {
                            return Ok(Err(NotKept::Missing(there)));
                        }
                        let waiting = waiting.file_name().unwrap_or_default().to_string_lossy().into_owned();
                        let Placed { bytes, modified_s, .. } = *placed;
                        shared.put_lying(attempt, Lying { name: there, bytes, modified_s, waiting });
                        continue;
                    } else {
                        return Ok(Err(NotKept::Missing(there)));
                    };
                    shared.put_file(attempt, there, executable, content);
                }
                Ok((shared.put_output(&outcome.stdout), shared.put_output(&outcome.stderr)))
            }
        };
        match put {
            Ok(spans) => Ok(Ok(spans)),
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => {
                Ok(Err(NotKept::Full(self.place.outputs())))
            }
            Err(error) => Err(error).context("cannot keep what a task has written"),
        }
    }

    /// A result counts: its files go where they belong, and what it wrote is printed.
    pub(super) fn settled(&mut self, task: u32, attempt: u64) -> Result<()> {
        let Some(view) = self.bag.task(task) else { return Ok(()) };
        let outputs = match &mut self.log {
            Log::Alone { outputs, .. } => outputs,
            Log::Shared(shared) => {
                let here = shared.is_origin();
                member::settle(shared, self.place.id, &self.bag, &view, attempt, here);
                return Ok(());
            }
        };
        outputs::settle(self.place.id, &self.bag, &view, attempt)?;
        let Some((stdout, stderr)) = view.outputs().filter(|_| self.manner.prints) else { return Ok(()) };
        let failed = "cannot read what a task has written";
        let (stdout, stderr) = (outputs.read(stdout).context(failed)?, outputs.read(stderr).context(failed)?);
        let print = || -> std::io::Result<()> {
            std::io::stderr().write_all(&stderr)?;
            let mut out = std::io::stdout().lock();
            out.write_all(&stdout)?;
            out.flush()
        };
        match &self.bar {
            Some(bar) => bar.suspend(print)?,
            None => print()?,
        }
        Ok(())
    }

    /// The files of those before a task are in their places when it starts.
    pub(super) fn place_before(&mut self, task: u32) -> Result<()> {
        let waits =
            |view: TaskView<'_>| !view.template.after.is_empty() || !view.template.after_each.is_empty();
        match &mut self.log {
            Log::Shared(shared) if self.bag.task(task).is_some_and(waits) => {
                member::place_files(shared, self.place.id, &self.bag)
            }
            _ => Ok(()),
        }
    }

    /// Puts files in place whose results count already, after a keeper that did not come to it.
    pub(super) fn settle_again(&mut self) -> Result<()> {
        for view in self.bag.tasks() {
            if let Some((attempt, ..)) = view.result() {
                outputs::settle(self.place.id, &self.bag, &view, attempt)?;
            }
        }
        Ok(())
    }
}
