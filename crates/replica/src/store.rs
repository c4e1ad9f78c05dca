//! The log as the `raft` crate looks at it.

use crate::line::{Kept, Known, Point};
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{Error, GetEntriesContext, RaftState, Storage, StorageError};
use std::collections::VecDeque;

/// What entries say is kept in memory up to so many bytes, the latest first; the rest is read from the disk when
/// somebody lags so far behind.
const WARM_BYTES_MAX: usize = 16 << 20;

/// Reads what the entry says whose line lies at this place; `None` if that fails.
pub type Cold = Box<dyn Fn(u64) -> Option<Vec<u8>> + Send>;

pub(crate) struct Store {
    /// What all entries up to it have come to is kept by the owner, who offers it to members that lack some of them.
    base: Point,
    offer: Vec<u8>,
    /// The entries behind this one.
    before: Point,
    entries: VecDeque<Known>,
    state: HardState,
    voters: Vec<u64>,
    cold: Cold,
    /// So many of the first entries are not in memory, and how many bytes of the others are.
    cold_count: usize,
    warm_bytes: usize,
}

impl Store {
    pub(crate) fn new(kept: Kept, offer: Vec<u8>, voters: Vec<u64>, cold: Cold) -> Store {
        let state =
            HardState { term: kept.term, vote: kept.vote, commit: kept.commit(), ..HardState::default() };
        Store {
            base: kept.base,
            offer,
            before: kept.before,
            cold_count: kept.entries.len(),
            entries: kept.entries,
            state,
            voters,
            cold,
            warm_bytes: 0,
        }
    }

    pub(crate) fn last(&self) -> u64 {
        self.before.index + self.entries.len() as u64
    }

    /// Appends an entry whose line lies there, in place of all that are there from its index on.
    pub(crate) fn append(&mut self, entry: &Entry, at: u64) {
        while self.last() >= entry.index {
            let gone = self.entries.pop_back().and_then(|known| known.data);
            self.warm_bytes -= gone.map_or(0, |data| data.len());
        }
        self.cold_count = self.cold_count.min(self.entries.len());
        self.warm_bytes += entry.data.len();
        let (bytes, data) = (entry.data.len() as u32, Some(entry.data.to_vec()));
        self.entries.push_back(Known { term: entry.term, at, bytes, data });
        while self.warm_bytes > WARM_BYTES_MAX {
            let oldest = self.entries[self.cold_count].data.take();
            self.warm_bytes -= oldest.map_or(0, |data| data.len());
            self.cold_count += 1;
        }
    }

    pub(crate) fn state(&self) -> &HardState {
        &self.state
    }

    pub(crate) fn set_state(&mut self, state: HardState) {
        self.state = state;
    }

    /// Where the log may begin, with what entries up to `index` have come to kept by the owner: so that of those
    /// behind it the ones up to there have no more than `spare` bytes.
    pub(crate) fn beginning(&self, index: u64, spare: u64) -> Option<Point> {
        let count = usize::try_from(index.checked_sub(self.before.index)?).ok()?;
        let mut bytes = 0;
        let fits = |known: &&Known| {
            bytes += u64::from(known.bytes);
            bytes <= spare
        };
        let kept = self.entries.range(..count).rev().take_while(fits).count();
        self.point(index - kept as u64)
    }

    /// An entry, if its term is known.
    pub(crate) fn point(&self, index: u64) -> Option<Point> {
        let place = index.checked_sub(self.before.index)?;
        let term = match place.checked_sub(1) {
            None => self.before.term,
            Some(place) => self.entries.get(place as usize)?.term,
        };
        Some(Point { index, term })
    }

    /// The log begins behind `before` from now on, and the lines of its entries lie at these places.
    pub(crate) fn compact(&mut self, base: Point, before: Point, offer: Vec<u8>, places: &[u64]) {
        let gone = (before.index - self.before.index) as usize;
        let bytes = self.entries.drain(..gone).filter_map(|known| known.data).map(|data| data.len());
        self.warm_bytes -= bytes.sum::<usize>();
        self.cold_count = self.cold_count.saturating_sub(gone);
        for (known, at) in self.entries.iter_mut().zip(places) {
            known.at = *at;
        }
        (self.base, self.before, self.offer) = (base, before, offer);
    }

    /// All up to `base` is kept by the owner, and nothing follows.
    pub(crate) fn restore(&mut self, base: Point, offer: Vec<u8>) {
        self.entries.clear();
        (self.cold_count, self.warm_bytes) = (0, 0);
        (self.base, self.before, self.offer) = (base, base, offer);
    }

    pub(crate) fn entry(&self, index: u64) -> Result<Entry, Error> {
        let known = &self.entries[(index - self.before.index - 1) as usize];
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
        if low <= self.before.index {
            return Err(Error::Store(StorageError::Compacted));
        }
        if high > self.last() + 1 {
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
        if index < self.before.index {
            return Err(Error::Store(StorageError::Compacted));
        }
        self.point(index).map(|point| point.term).ok_or(Error::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.before.index + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, index: u64, _: u64) -> raft::Result<Snapshot> {
        if self.base.index == 0 || self.base.index < index {
            return Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        }
        Ok(snapshot(self.base, self.offer.clone(), self.voters.clone()))
    }
}

/// What entries up to `base` have come to, as the `raft` crate passes it on.
pub(crate) fn snapshot(base: Point, offer: Vec<u8>, voters: Vec<u64>) -> Snapshot {
    let mut snapshot = Snapshot { data: offer.into(), ..Snapshot::default() };
    let metadata = snapshot.mut_metadata();
    (metadata.index, metadata.term) = (base.index, base.term);
    metadata.set_conf_state(ConfState { voters, ..ConfState::default() });
    snapshot
}
