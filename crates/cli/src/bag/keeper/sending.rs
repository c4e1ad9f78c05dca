//! Attempts on their way to workers: with their state, their inputs and their limits.

use super::super::inputs::{InputFile, Ready};
use super::super::work::{self, Outcome};
use super::{Keeper, Log, succession};
use anyhow::{Result, bail};
use mutirao::raw::{CallOptions, LeaseKey};
use mutirao_bag::TaskView;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

/// A worker gets so much longer than the task's own limit, which it keeps itself.
const LIMIT_MARGIN: Duration = Duration::from_secs(10);
/// Inputs are brought to a node at this pace at the least, before a worker that is over its time is ended.
const SLOWEST_BYTES_A_SECOND: u64 = 1 << 20;

impl Keeper {
    /// Finds out how long the files are that tasks read, where that matters.
    pub(super) fn learn_lengths(&mut self) {
        if !self.bag.weighs_inputs() {
            return;
        }
        let inputs = |view: TaskView<'_>| -> Vec<String> {
            view.template.inputs.iter().map(|file| file.here.fill(&view.named)).collect()
        };
        let paths: BTreeSet<String> = self.bag.tasks().flat_map(inputs).collect();
        for path in paths {
            // Those that tasks make are not there yet.
            if let Ok(found) = self.find_input(&Path::new(&self.bag.settings().directory).join(&path)) {
                self.bag.know_length(path, found.bytes);
            }
        }
    }

    /// An input file, wherever it is.
    pub(super) fn find_input(&self, path: &Path) -> Result<InputFile> {
        match &self.log {
            Log::Alone { .. } => InputFile::here(path),
            Log::Shared(shared) => match shared.find_input(path) {
                Some(found) => Ok(found),
                None if shared.is_origin() => InputFile::here(path),
                None => bail!("input {} did not come along when the bag was submitted", path.display()),
            },
        }
    }

    pub(super) fn start(&mut self, attempt: u64, worker: u64) {
        let state = self.begin_state(attempt, LeaseKey(worker as u32));
        let Some(view) = self.bag.attempt(attempt) else { return };
        let find = |path: &Path| self.find_input(path);
        let call = match work::operation(&view) {
            Some((name, argument)) => self.operation_named(name).map(|operation| (operation, argument)),
            None => {
                let common =
                    work::Common { number: self.place.id, bag: &self.bag, environment: &self.environment };
                let lender = self.leases.lender(LeaseKey(worker as u32));
                let site = lender.and_then(|node| self.sites.site(view.template, attempt, node.id));
                let made = state.and_then(|state| work::command(common, &view, attempt, state, &find, site));
                match made {
                    Ok((command, large)) if large.is_empty() => Ok((self.operation, command.encode())),
                    Ok((command, large)) => match self.inputs.offer(attempt, worker, command, large) {
                        Ok(()) => return,
                        Err(error) => Err(error),
                    },
                    Err(error) => Err(error),
                }
            }
        };
        match call {
            Err(error) => self.unsent.push((attempt, Outcome::not_started(format!("{error:#}")))),
            Ok((operation, argument)) => self.send(attempt, worker, operation, argument, Duration::ZERO),
        }
    }

    /// Sends an attempt again, with its files, if its node does not see them in place; whether it does that.
    pub(super) fn sends_copies(&mut self, attempt: u64, outcome: &Outcome) -> Result<bool> {
        let Some(unseen) = outcome.unseen.filter(|_| self.bag.is_wanted(attempt)) else { return Ok(false) };
        let Some(lease) = self.lenders.remove(&attempt) else { return Ok(false) };
        self.sites.unseen(attempt, unseen, self.leases.lender(lease), &outcome.end);
        self.start(attempt, lease.0.into());
        self.note_calls()?;
        Ok(true)
    }

    /// Sends an attempt whose inputs are offered.
    pub(super) fn send_with_inputs(&mut self, attempt: u64, ready: Result<Ready>) {
        match ready {
            Ok(Ready { worker, argument, bytes, .. }) => {
                let bringing = Duration::from_secs(bytes / SLOWEST_BYTES_A_SECOND);
                self.send(attempt, worker, self.operation, argument, bringing);
            }
            Err(error) => {
                self.inputs.over(attempt);
                self.unsent.push((attempt, Outcome::not_started(format!("{error:#}"))));
            }
        }
    }

    /// Sends an attempt, whose inputs may take so long to come to its node.
    pub(super) fn send(
        &mut self,
        attempt: u64,
        worker: u64,
        operation: u32,
        argument: Vec<u8>,
        bringing: Duration,
    ) {
        let Some(view) = self.bag.attempt(attempt) else { return self.inputs.over(attempt) };
        let deliver = succession::ended(attempt, &self.sender);
        // A command's runner keeps the limit itself; the end of its worker is for one that does not.
        let margin = if self.bag.settings().program.is_some() { Duration::ZERO } else { LIMIT_MARGIN };
        let limit = view.template.limit_ms.map(|ms| Duration::from_millis(ms) + margin + bringing);
        let options =
            CallOptions { limit, deliver, only: Some(LeaseKey(worker as u32)), ..CallOptions::default() };
        let outcome = match self.pool.submit(operation, argument, options) {
            Ok(call) => {
                if self.is_shared() {
                    self.sent.push((attempt, call.id().0));
                }
                self.lenders.insert(attempt, LeaseKey(worker as u32));
                self.calls.insert(attempt, (call, Instant::now()));
                return;
            }
            // No other lease would take it either.
            Err(error @ mutirao::Error::ArgumentTooLarge { .. }) => Outcome::not_started(error.to_string()),
            Err(error) => Outcome::not_begun(error.to_string()),
        };
        self.inputs.over(attempt);
        self.unsent.push((attempt, outcome));
    }
}
