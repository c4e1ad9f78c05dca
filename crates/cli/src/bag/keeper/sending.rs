//! Attempts on their way to workers: with their state, their inputs and their limits.

use super::super::inputs::{InputFile, Ready};
use super::super::outputs;
use super::super::work::{self, Outcome};
use super::lacking::LiesElsewhere;
use super::{Keeper, Log, succession};
use anyhow::{Result, bail};
use mutirao::raw::{CallOptions, LeaseKey};
use mutirao_bag::TaskView;
use mutirao_runner::Site;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
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
            if let Ok(found) = self.find_input(&Path::new(&self.bag.settings().directory).join(&path), true) {
                self.bag.know_length(path, found.bytes);
            }
        }
    }

    /// An input file, wherever it is. Who works in place need not be able to read it here.
    pub(super) fn find_input(&self, path: &Path, in_place: bool) -> Result<InputFile> {
        let Log::Shared(shared) = &self.log else { return InputFile::here(path) };
        let lying = shared.find_lying(path);
        if let Some(found) = lying.clone().filter(|_| in_place).or_else(|| shared.find_input(path)) {
            return Ok(found);
        }
        match lying {
            _ if !shared.is_origin() && !self.sites.are_seen() => match self.sites.is_used() {
                true => Err(LiesElsewhere(path.to_owned()).into()),
                false => bail!("input {} did not come along when the bag was submitted", path.display()),
            },
            Some(lying) => {
                if let Some(waiting) = shared.waits_as(path) {
                    outputs::move_there(&waiting, path)?;
                }
                lying.seen()
            }
            None => InputFile::here(path),
        }
    }

    /// Where an attempt works on the node of a lease, if in place.
    fn site(&self, view: &TaskView<'_>, attempt: u64, lease: LeaseKey) -> Option<Site> {
        let mut site = self.sites.site(view.template, attempt, self.leases.lender(lease)?.id)?;
        if let Log::Shared(shared) = &self.log
            && !shared.is_origin()
        {
            // Where the bag was submitted they are put in their places, but perhaps later.
            let outputs = view.template.outputs.iter().map(|file| file.here.fill(&view.named));
            let names = self.bag.inputs(view).into_iter().map(|(here, _)| here).chain(outputs);
            let paths = names.map(|name| Path::new(&self.bag.settings().directory).join(name));
            let bytes = |path: PathBuf| path.into_os_string().into_encoded_bytes();
            let of = |path: PathBuf| Some((bytes(shared.waits_as(&path)?), bytes(path)));
            site.moves = paths.filter_map(of).collect();
        }
        Some(site)
    }

    pub(super) fn start(&mut self, attempt: u64, worker: u64) {
        let state = self.begin_state(attempt, LeaseKey(worker as u32));
        let Some(view) = self.bag.attempt(attempt) else { return };
        let find = |path: &Path, in_place: bool| self.find_input(path, in_place);
        let call = match work::operation(&view) {
            Some((name, argument)) => self.operation_named(name).map(|operation| (operation, argument)),
            None => {
                let common =
                    work::Common { number: self.place.id, bag: &self.bag, environment: &self.environment };
                let site = self.site(&view, attempt, LeaseKey(worker as u32));
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
            Err(error) if error.is::<LiesElsewhere>() => self.lacking.push(attempt, worker, &error),
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

    /// Has the workers begin what was sent.
    pub(super) fn flush_calls(&mut self) {
        if std::mem::take(&mut self.unflushed) {
            self.pool.flush();
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
                self.unflushed = true;
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
