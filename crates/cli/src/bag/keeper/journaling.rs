//! The keeper's journal: what was appended is written, by itself or by all members, and the bag told what counts.

use super::super::{credibility, member, shared};
use super::{DISK_RETRY, Keeper, Log};
use crate::output::remark;
use anyhow::Result;
use mutirao_bag::Input;
use std::fmt::Display;
use std::time::{Duration, Instant};

/// So long results of short tasks gather, at their workers and to wait for the disk together.
pub(super) const GATHERING: Duration = Duration::from_millis(10);

impl Keeper {
    /// Whether nothing more is begun until all that was begun counts, so that the journal can be written anew: what
    /// counts and what is known here are the same then.
    pub(super) fn is_held(&self) -> bool {
        match &self.log {
            Log::Alone { .. } => false,
            Log::Shared(shared) => shared.is_long() && self.synced < self.appended,
        }
    }

    /// Whether other members have the journal too.
    pub(super) fn is_shared(&self) -> bool {
        matches!(self.log, Log::Shared(_))
    }

    /// Whether result files are being copied to where the bag was submitted.
    pub(super) fn is_copying(&self) -> bool {
        matches!(&self.log, Log::Shared(shared) if shared.is_copying())
    }

    /// Writes what was appended, and tells the bag what is on the disk, until nothing follows.
    pub(super) fn write(&mut self) -> Result<()> {
        match &self.log {
            Log::Alone { .. } => self.write_here()?,
            Log::Shared(_) => self.write_to_all()?,
        }
        if !self.learnt.is_empty() {
            match credibility::add(&self.learnt) {
                Ok(()) => self.learnt.clear(),
                Err(error) => self.disk_full(error)?,
            }
        }
        self.answer_of_state();
        self.acknowledge()?;
        while let Some((_, back, count)) = self.answers.pop_front_if(|(record, ..)| *record <= self.synced) {
            self.say(back, &Ok(count));
        }
        Ok(())
    }

    /// Has what was appended counted by the members, and tells the bag what is, until nothing follows.
    pub(super) fn write_to_all(&mut self) -> Result<()> {
        loop {
            let is_held = self.is_held();
            let Log::Shared(shared) = &mut self.log else { return Ok(()) };
            if std::mem::take(&mut self.must_sync) || is_held {
                shared.propose()?;
            }
            let counted = shared.pump()?;
            member::place_files(shared, self.place.id, &self.bag)?;
            self.moved = !shared.leads();
            let Some((last, _)) = counted.last().filter(|_| !self.moved) else {
                if !self.moved && self.synced == self.appended && shared.is_long() {
                    shared.compact(&mut self.bag)?;
                }
                return Ok(());
            };
            self.synced += counted.len() as u64;
            let last = *last;
            self.tell(Input::Journaled(self.synced))?;
            if let Log::Shared(shared) = &mut self.log {
                shared.settled(last)?;
            }
        }
    }

    pub(super) fn write_here(&mut self) -> Result<()> {
        while self.synced < self.appended && self.disk_retry.is_none() {
            if !self.must_sync || self.gathers() {
                return self.flush();
            }
            let Log::Alone { journal, outputs } = &mut self.log else { return Ok(()) };
            let synced = outputs.sync().map_err(anyhow::Error::from);
            let written = synced.and_then(|()| journal.commit().map_err(anyhow::Error::from));
            if let Err(error) = written {
                self.disk_full(error)?;
                return Ok(());
            }
            self.must_sync = false;
            self.last_sync = Instant::now();
            self.synced = self.appended;
            self.tell(Input::Journaled(self.synced))?;
        }
        let quiet = self.synced == self.appended && self.disk_retry.is_none();
        if let (true, Log::Alone { journal, .. }) = (quiet && self.bag.is_long(), &mut self.log) {
            match journal.rewrite(self.bag.shrink().map(|record| record.encode())) {
                // It is as good as it was, and there may be room when it is longer.
                Ok(()) | Err(mutirao_store::Error::DiskFull(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Whether more results are awaited before the disk is: others run, nobody waits for an answer, and it was waited
    /// for just now.
    fn gathers(&self) -> bool {
        self.must_sync
            && self.synced < self.appended
            && !self.calls.is_empty()
            && self.answers.is_empty()
            && self.saving.is_empty()
            && self.last_sync.elapsed() < GATHERING
    }

    /// When what was gathered goes to the disk.
    pub(super) fn gathered(&self) -> Option<Instant> {
        (!self.is_shared() && self.gathers()).then(|| self.last_sync + GATHERING)
    }

    pub(super) fn flush(&mut self) -> Result<()> {
        let Log::Alone { journal, .. } = &mut self.log else { return Ok(()) };
        match journal.flush() {
            Ok(()) => Ok(()),
            Err(error) => self.disk_full(error.into()),
        }
    }

    /// What cannot be written now is kept and tried again, if it is for want of room.
    pub(super) fn disk_full(&mut self, error: anyhow::Error) -> Result<()> {
        if !shared::is_full(&error) {
            return Err(error);
        }
        self.awaits_room(&error);
        Ok(())
    }

    /// Tries again later, and says once what is lacking.
    pub(super) fn awaits_room(&mut self, lack: &dyn Display) {
        if !std::mem::replace(&mut self.no_room_said, true) {
            remark!("mutirao: {lack}; nothing is lost, and the bag goes on when there is room");
        }
        self.disk_retry = Some(Instant::now() + DISK_RETRY);
    }
}
