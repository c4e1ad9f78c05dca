//! The log as the `raft` crate looks at it.

use crate::line::{Kept, Known};
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{Error, GetEntriesContext, RaftState, Storage, StorageError};
use std::collections::VecDeque;

/// What entries say is kept in memory up to so many bytes, the latest first; the rest is read from the disk when
/// somebody lags so far behind.
const WARM_BYTES_MAX: usize = 16 << 20;

/// Reads what the entry says whose line lies at this place; `None` if that fails.
pub type Cold = Box<dyn Fn(u64) -> Option<Vec<u8>> + Send>;

pub(crate) struct Store {
    entries: VecDeque<Known>,
    state: HardState,
    voters: Vec<u64>,
    cold: Cold,
    /// Entries below this one are not in memory, and how many bytes of the others are.
    warm_from: usize,
    warm_bytes: usize,
}

impl Store {
    pub(crate) fn new(kept: Kept, voters: Vec<u64>, cold: Cold) -> Store {
        let state =
            HardState { term: kept.term, vote: kept.vote, commit: kept.commit(), ..HardState::default() };
        let warm_from = kept.entries.len();
        Store { entries: kept.entries, state, voters, cold, warm_from, warm_bytes: 0 }
    }

    pub(crate) fn last(&self) -> u64 {
        self.entries.len() as u64
    }

    /// Appends an entry whose line lies there, in place of all that are there from its index on.
    pub(crate) fn append(&mut self, entry: &Entry, at: u64) {
        while self.last() >= entry.index {
            let gone = self.entries.pop_back().and_then(|known| known.data);
            self.warm_bytes -= gone.map_or(0, |data| data.len());
        }
        self.warm_from = self.warm_from.min(self.entries.len());
        self.warm_bytes += entry.data.len();
        self.entries.push_back(Known { term: entry.term, at, data: Some(entry.data.to_vec()) });
        while self.warm_bytes > WARM_BYTES_MAX {
            let oldest = self.entries[self.warm_from].data.take();
            self.warm_bytes -= oldest.map_or(0, |data| data.len());
            self.warm_from += 1;
        }
    }

    pub(crate) fn state(&self) -> &HardState {
        &self.state
    }

    pub(crate) fn set_state(&mut self, state: HardState) {
        self.state = state;
    }

    fn entry(&self, index: u64) -> Result<Entry, Error> {
        let known = &self.entries[(index - 1) as usize];
        let data = match &known.data {
            Some(data) => data.clone(),
            None => (self.cold)(known.at).ok_or(Error::Store(StorageError::Unavailable))?,
        };
        Ok(Entry { term: known.term, index, data: data.into(), ..Entry::default() })
    }
}

impl Storage for Store {
    fn initial_state(&self) -> raft::Result<RaftState> {
        let conf_state = ConfState { voters: self.voters.clone(), ..ConfState::default() };
        Ok(RaftState { hard_state: self.state.clone(), conf_state })
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low == 0 || high > self.last() + 1 {
            return Err(Error::Store(StorageError::Unavailable));
        }
        let max = max_size.into().unwrap_or(u64::MAX);
        let (mut entries, mut bytes) = (Vec::new(), 0);
        for index in low..high {
            let entry = self.entry(index)?;
            bytes += entry.data.len() as u64;
            if bytes > max && !entries.is_empty() {
                break;
            }
            entries.push(entry);
        }
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == 0 {
            return Ok(0);
        }
        let known = self.entries.get((index - 1) as usize);
        known.map(|known| known.term).ok_or(Error::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, _: u64, _: u64) -> raft::Result<Snapshot> {
        // The log is kept from its beginning: nobody needs one.
        Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable))
    }
}
