//! What really happened to a group, and whether what is told agrees with it.

use mutirao_group::master::{End, Outcome};
use mutirao_group::{Restart, Strategy};
use mutirao_wire::Tick;
use std::collections::{BTreeMap, BTreeSet};

/// A process in one of its lives.
type Life = (u32, u32);

/// How many groups of a study came to which end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Account {
    /// All processes ended by themselves.
    pub well: u32,
    /// One failed.
    pub failed: u32,
    /// It was told to end.
    pub stopped: u32,
    /// Its launcher was lost.
    pub launcher_lost: u32,
    /// Processes that were started again.
    pub restarts: u32,
    /// Pieces of output that came.
    pub pieces: u32,
}

/// All that happened to one group.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    began: BTreeSet<Life>,
    alive: BTreeSet<Life>,
    /// Pieces written, and heard.
    wrote: BTreeMap<Life, u32>,
    heard: BTreeMap<Life, u32>,
    exited: BTreeMap<Life, End>,
    reported: BTreeMap<Life, End>,
    /// Whose lease or worker was lost.
    lost: BTreeSet<Life>,
    no_lease: BTreeSet<u32>,
    was_stopped: bool,
    /// When processes were started again.
    restarts: Vec<Tick>,
    outcome: Option<Outcome>,
}

impl Ledger {
    pub(super) fn begins(&mut self, rank: u32, life: u32) -> Result<(), String> {
        if let Some((_, other)) = self.alive.iter().find(|(other, _)| *other == rank) {
            return Err(format!("{rank} begins life {life} while life {other} goes on"));
        }
        if !self.began.insert((rank, life)) {
            return Err(format!("{rank} begins life {life} twice"));
        }
        self.alive.insert((rank, life));
        Ok(())
    }

    pub(super) fn wrote(&mut self, rank: u32, life: u32) {
        *self.wrote.entry((rank, life)).or_default() += 1;
    }

    pub(super) fn exited(&mut self, rank: u32, life: u32, end: End) {
        self.alive.remove(&(rank, life));
        self.exited.insert((rank, life), end);
    }

    pub(super) fn killed(&mut self, rank: u32, life: u32) {
        self.alive.remove(&(rank, life));
    }

    pub(super) fn lost(&mut self, rank: u32, life: u32) {
        self.lost.insert((rank, life));
    }

    pub(super) fn no_lease(&mut self, rank: u32) {
        self.no_lease.insert(rank);
    }

    pub(super) fn stopped(&mut self) {
        self.was_stopped = true;
    }

    /// A piece of output came.
    pub(super) fn heard(&mut self, rank: u32, life: u32, bytes: &[u8]) -> Result<(), String> {
        let number = self.heard.entry((rank, life)).or_default();
        let expected = super::lender::piece(rank, life, *number, bytes.len());
        if bytes != expected {
            return Err(format!("of {rank} in life {life} piece {number} does not come in its turn"));
        }
        if self.reported.contains_key(&(rank, life)) {
            return Err(format!("{rank} in life {life} writes after its end"));
        }
        *number += 1;
        Ok(())
    }

    /// A process is said to have ended.
    pub(super) fn reported(&mut self, rank: u32, life: u32, end: &End) -> Result<(), String> {
        let of = |pieces: &BTreeMap<Life, u32>| pieces.get(&(rank, life)).copied().unwrap_or_default();
        let (wrote, heard) = (of(&self.wrote), of(&self.heard));
        if wrote != heard {
            return Err(format!("{rank} in life {life} wrote {wrote} pieces, of which {heard} came"));
        }
        if self.reported.insert((rank, life), end.clone()).is_some() {
            return Err(format!("the end of {rank} in life {life} is told twice"));
        }
        self.is_true(rank, life, end)
    }

    /// Whether a process ended so.
    fn is_true(&self, rank: u32, life: u32, end: &End) -> Result<(), String> {
        let is_true = match end {
            End::Lost(_) => self.lost.contains(&(rank, life)),
            End::NotStarted(_) => self.no_lease.contains(&rank),
            End::Ordered => true,
            other => self.exited.get(&(rank, life)) == Some(other),
        };
        let truth = || format!("{rank} in life {life} is said to have ended with {end:?}, which is not so");
        if is_true { Ok(()) } else { Err(truth()) }
    }

    pub(super) fn restarts(
        &mut self,
        now: Tick,
        rank: u32,
        life: u32,
        end: &End,
        restart: &Restart,
    ) -> Result<(), String> {
        // The life that ended may have been followed already.
        if (1..=life).all(|life| self.is_true(rank, life, end).is_err()) {
            return self.is_true(rank, life, end);
        }
        self.restarts.push(now);
        let within_us = u64::from(restart.within_s) * 1_000_000;
        let of_late = self.restarts.iter().filter(|at| now.0 - at.0 < within_us).count();
        if restart.strategy == Strategy::None || of_late > restart.most as usize {
            return Err(format!("the {of_late}th restart of late is one too many for {restart:?}"));
        }
        Ok(())
    }

    /// The end of the group is told.
    pub(super) fn over(&mut self, outcome: Outcome, lives: &[u32]) -> Result<(), String> {
        if let Some(before) = self.outcome.replace(outcome.clone()) {
            return Err(format!("the end is told twice: {before:?}, {outcome:?}"));
        }
        match &outcome {
            Outcome::Well => lives.iter().zip(0..).try_for_each(|(life, rank)| {
                let is_reported = self.reported.get(&(rank, *life)) == Some(&End::Code(0));
                if is_reported { Ok(()) } else { Err(format!("all is well, but {rank} did not end")) }
            }),
            Outcome::Failed { rank, end } => self.is_true(*rank, lives[*rank as usize], end),
            Outcome::Stopped(_) if self.was_stopped => Ok(()),
            Outcome::Stopped(why) => Err(format!("nobody stopped it: {why}")),
        }
    }

    /// Processes that live.
    pub(super) fn alive(&self) -> &BTreeSet<Life> {
        &self.alive
    }

    pub(super) fn account(&self) -> Account {
        Account {
            well: u32::from(self.outcome == Some(Outcome::Well)),
            failed: u32::from(matches!(self.outcome, Some(Outcome::Failed { .. }))),
            stopped: u32::from(matches!(self.outcome, Some(Outcome::Stopped(_)))),
            launcher_lost: u32::from(self.outcome.is_none()),
            restarts: self.restarts.len() as u32,
            pieces: self.heard.values().sum(),
        }
    }
}

impl Account {
    /// Of both.
    pub fn add(&mut self, other: Account) {
        self.well += other.well;
        self.failed += other.failed;
        self.stopped += other.stopped;
        self.launcher_lost += other.launcher_lost;
        self.restarts += other.restarts;
        self.pieces += other.pieces;
    }
}
