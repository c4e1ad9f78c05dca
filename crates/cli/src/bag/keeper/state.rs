//! State that attempts save: kept with the bag, and given to the next attempt.

use super::{Keeper, Log};
use crate::bag::states::States;
use anyhow::{Context, Result};
use mutirao::raw::{Lease, LeaseKey, LeaseState};
use mutirao_bag::{Input, Span, Taking};
use mutirao_wire::checkpoint::{Answer, Asked};
use std::io::{self, ErrorKind};

impl Keeper {
    /// The state with which the command of an attempt begins; where it may save state, the way for that is made.
    pub(super) fn begin_state(&mut self, attempt: u64, lease: LeaseKey) -> Result<Option<Vec<u8>>> {
        if self.bag.attempt(attempt).is_none_or(|view| view.template.checkpoint.is_none()) {
            return Ok(None);
        }
        self.make_way(lease)?;
        // An operation asks for it.
        if self.bag.settings().program.is_some() { Ok(None) } else { self.state_of(attempt) }
    }

    /// Makes the ways to workers that run attempts of an earlier keeper, once they can be reached.
    pub(super) fn reach_adopted(&mut self, leases: &[Lease]) -> Result<()> {
        let is_there =
            |lease: &&Lease| lease.state == LeaseState::Ready && self.unreached.contains_key(&lease.key);
        for key in leases.iter().filter(is_there).map(|lease| lease.key).collect::<Vec<_>>() {
            let attempts = self.unreached.remove(&key).unwrap_or_default();
            let saves =
                |attempt| self.bag.attempt(attempt).is_some_and(|view| view.template.checkpoint.is_some());
            if attempts.into_iter().any(saves) {
                self.make_way(key)?;
            }
        }
        Ok(())
    }

    /// Makes the way for state from the worker of a lease.
    fn make_way(&mut self, lease: LeaseKey) -> Result<()> {
        if self.states.is_none() {
            self.states = Some(States::start(&self.pool, self.pool.epoch(), &self.sender)?);
        }
        if let Some(states) = &mut self.states {
            states.open(lease)?;
        }
        Ok(())
    }

    /// What was saved of the task of an attempt.
    fn state_of(&self, attempt: u64) -> Result<Option<Vec<u8>>> {
        if !self.bag.keeps_state() || self.bag.is_check(attempt) {
            return Ok(None);
        }
        let saved = self.bag.attempt(attempt).and_then(|view| view.saved);
        saved.map(|saved| self.read_state(saved.content).context("cannot read saved state")).transpose()
    }

    fn read_state(&self, content: Span) -> io::Result<Vec<u8>> {
        if let Some((.., state)) = self.uncounted.iter().find(|(_, span, _)| *span == content) {
            return Ok(state.clone());
        }
        match &self.log {
            Log::Alone { outputs, .. } => outputs.read(content),
            Log::Shared(shared) => shared.read_output(content),
        }
    }

    pub(super) fn takes_state(&self, attempt: u64) -> Taking {
        self.bag.takes_state(self.now(), attempt)
    }

    /// Keeps state that is to be kept; without room it comes back.
    pub(super) fn put_state(&mut self, attempt: u64, state: Vec<u8>) -> Result<Result<(), Vec<u8>>> {
        let content = match &mut self.log {
            Log::Alone { outputs, .. } => match outputs.append(&state) {
                Ok(content) => content,
                Err(error) if is_full(&error) => return Ok(Err(state)),
                Err(error) => return Err(error).context("cannot keep what a task has saved"),
            },
            Log::Shared(shared) => shared.put_output(&state),
        };
        self.tell(Input::Saved { attempt, content })?;
        if let Log::Shared(_) = self.log {
            self.uncounted.push_back((self.appended, content, state));
        }
        Ok(Ok(()))
    }

    /// A worker speaks of state.
    pub(super) fn asked_of_state(&mut self, pipe: u64, asked: Asked) -> Result<()> {
        let (Asked::Save { number, call, .. } | Asked::Want { number, call }) = asked;
        let refused = |why: &str| Some(Answer::Refused(why.to_owned()));
        let attempt = self.calls.iter().find(|(_, (known, _))| known.id().0 == call);
        let answer = match (attempt.map(|(attempt, _)| *attempt), asked) {
            (None, _) => refused("the attempt is over"),
            (Some(attempt), Asked::Save { state, .. }) => match self.takes_state(attempt) {
                Taking::Refuses(why) => refused(why),
                Taking::HasBetter => None,
                Taking::Keeps => match self.put_state(attempt, state)? {
                    Ok(()) => None,
                    Err(_) => refused("there is no room where the bag is kept"),
                },
            },
            (Some(attempt), Asked::Want { .. }) => Some(match self.state_of(attempt) {
                Ok(state) => Answer::State(state),
                Err(error) => Answer::Refused(format!("{error:#}")),
            }),
        };
        match (answer, &self.states) {
            (Some(answer), Some(states)) => states.answer(pipe, number, call, answer),
            // That it is kept is said when it counts.
            _ => self.saving.push_back((self.appended, [pipe, number, call])),
        }
        Ok(())
    }

    /// Tells those whose state counts by now.
    pub(super) fn answer_of_state(&mut self) {
        let synced = self.synced;
        while self.uncounted.pop_front_if(|(record, ..)| *record <= synced).is_some() {}
        while let Some((_, [pipe, number, call])) = self.saving.pop_front_if(|(record, _)| *record <= synced)
        {
            if let Some(states) = &self.states {
                states.answer(pipe, number, call, Answer::Kept);
            }
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}
