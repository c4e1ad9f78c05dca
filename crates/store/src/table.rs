//! The accounts of a store: what is there, what is in use, what goes first. No files here.

use mutirao_wire::id::BlobHash;
use std::collections::{BTreeMap, HashMap};

/// Blobs are charged in whole blocks, as most file systems do, so that the limit bounds their number
/// too.
const BLOCK_BYTES: u64 = 4096;

/// What a blob of `bytes` counts against the limit.
pub(crate) fn charge(bytes: u64) -> u64 {
    bytes.div_ceil(BLOCK_BYTES).max(1).saturating_mul(BLOCK_BYTES)
}

/// What is to be done to make room.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// Nothing: the bytes are reserved.
    Made,
    /// Remove this one, then ask again.
    Evict(BlobHash),
    /// There is not enough, whatever is removed.
    Never,
}

#[derive(Debug)]
struct Entry {
    charged: u64,
    pins: u32,
    /// When it was entered; tells this life of the blob from an earlier one.
    born: u64,
    /// The key in `order`; meaningless while pinned.
    used: u64,
}

/// The accounts.
#[derive(Debug)]
pub(crate) struct Table {
    limit: u64,
    blobs: HashMap<BlobHash, Entry>,
    /// What may be evicted, least recently used first.
    order: BTreeMap<u64, BlobHash>,
    clock: u64,
    stored: u64,
    pinned: u64,
    reserved: u64,
}

impl Table {
    pub fn new(limit: u64) -> Table {
        Table {
            limit,
            blobs: HashMap::new(),
            order: BTreeMap::new(),
            clock: 0,
            stored: 0,
            pinned: 0,
            reserved: 0,
        }
    }

    /// Reserves `bytes` for an unfinished blob, or says what must go first.
    pub fn reserve(&mut self, bytes: u64) -> Room {
        if self.held().saturating_add(bytes) > self.limit {
            return Room::Never;
        }
        if (self.stored + self.reserved).saturating_add(bytes) <= self.limit {
            self.reserved += bytes;
            return Room::Made;
        }
        self.oldest().map_or(Room::Never, Room::Evict)
    }

    /// Gives back what was reserved.
    pub fn release(&mut self, bytes: u64) {
        self.reserved -= bytes;
    }

    /// Enters a blob as the one used last. Its room is not checked.
    pub fn insert(&mut self, hash: BlobHash, charged: u64) {
        let used = self.next_use();
        if self.blobs.insert(hash, Entry { charged, pins: 0, born: used, used }).is_none() {
            self.stored += charged;
            self.order.insert(used, hash);
        }
    }

    /// Strikes out a blob, pinned or not.
    pub fn remove(&mut self, hash: &BlobHash) {
        if let Some(entry) = self.blobs.remove(hash) {
            self.stored -= entry.charged;
            match entry.pins {
                0 => drop(self.order.remove(&entry.used)),
                _ => self.pinned -= entry.charged,
            }
        }
    }

    /// Notes a use; whether the blob is there.
    pub fn touch(&mut self, hash: &BlobHash) -> bool {
        let used = self.next_use();
        let Some(entry) = self.blobs.get_mut(hash) else { return false };
        if entry.pins == 0 {
            self.order.remove(&entry.used);
            self.order.insert(used, *hash);
            entry.used = used;
        }
        true
    }

    /// Keeps a blob from eviction, if it is there. The answer goes to [`Table::unpin`].
    pub fn pin(&mut self, hash: &BlobHash) -> Option<u64> {
        let entry = self.blobs.get_mut(hash)?;
        if entry.pins == 0 {
            self.order.remove(&entry.used);
            self.pinned += entry.charged;
        }
        entry.pins += 1;
        Some(entry.born)
    }

    /// Undoes one pin. Nothing if the blob it held was removed as damaged, even if it is here again.
    pub fn unpin(&mut self, hash: &BlobHash, born: u64) {
        let used = self.next_use();
        let Some(entry) = self.blobs.get_mut(hash).filter(|entry| entry.born == born) else { return };
        entry.pins -= 1;
        if entry.pins == 0 {
            self.pinned -= entry.charged;
            self.order.insert(used, *hash);
            entry.used = used;
        }
    }

    pub fn contains(&self, hash: &BlobHash) -> bool {
        self.blobs.contains_key(hash)
    }

    pub fn is_pinned(&self, hash: &BlobHash) -> bool {
        self.blobs.get(hash).is_some_and(|entry| entry.pins > 0)
    }

    /// What goes first.
    pub fn oldest(&self) -> Option<BlobHash> {
        self.order.first_key_value().map(|(_, hash)| *hash)
    }

    /// Whether more is stored than the limit allows.
    pub fn is_over(&self) -> bool {
        self.stored + self.reserved > self.limit
    }

    /// Bytes that no eviction frees.
    pub fn held(&self) -> u64 {
        self.pinned + self.reserved
    }

    pub fn limit(&self) -> u64 {
        self.limit
    }

    pub fn stored(&self) -> u64 {
        self.stored
    }

    pub fn len(&self) -> usize {
        self.blobs.len()
    }

    fn next_use(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hash(n: u8) -> BlobHash {
        BlobHash([n; 32])
    }

    #[test]
    fn the_least_recently_used_goes_first_and_the_pinned_never() {
        let mut table = Table::new(charge(1) * 3);
        (1..=3).for_each(|n| table.insert(hash(n), charge(1)));
        assert!(table.touch(&hash(1)));
        let born = table.pin(&hash(2)).expect("there");
        assert_eq!(table.reserve(charge(1)), Room::Evict(hash(3)));
        table.remove(&hash(3));
        assert_eq!(table.reserve(charge(1)), Room::Made);
        assert_eq!(table.reserve(charge(1)), Room::Evict(hash(1)));
        assert_eq!(table.reserve(charge(1) * 2), Room::Never, "one block is pinned, one reserved");
        table.unpin(&hash(2), born);
        assert_eq!(table.reserve(charge(1) * 2), Room::Evict(hash(1)));
        table.remove(&hash(1));
        assert_eq!(table.reserve(charge(1) * 2), Room::Evict(hash(2)));
    }

    #[test]
    fn even_an_empty_blob_has_its_price() {
        assert_eq!([charge(0), charge(1), charge(4096), charge(4097)], [4096, 4096, 4096, 8192]);
        assert!(charge(u64::MAX) >= u64::MAX - 4096);
    }

    proptest! {
        /// Whatever is done, the sums are those of the entries, and only free blobs are in the order.
        #[test]
        fn accounts_add_up(steps in proptest::collection::vec((0u8..6, 0u8..8, 1u64..4), 0..200)) {
            let mut table = Table::new(charge(1) * 8);
            let mut reserved = Vec::new();
            let mut pins = Vec::new();
            for (step, which, blocks) in steps {
                let (which, bytes) = (hash(which), charge(1) * blocks);
                match step {
                    0 if !table.contains(&which) => table.insert(which, bytes),
                    1 => table.remove(&which),
                    2 => prop_assert_eq!(table.touch(&which), table.contains(&which)),
                    3 => pins.extend(table.pin(&which).map(|born| (which, born))),
                    4 => if let Some((which, born)) = pins.pop() { table.unpin(&which, born) },
                    _ => match table.reserve(bytes) {
                        Room::Made => reserved.push(bytes),
                        Room::Evict(oldest) => prop_assert!(!table.is_pinned(&oldest)),
                        Room::Never => if let Some(bytes) = reserved.pop() { table.release(bytes) },
                    },
                }
                let sum = |pinned_only: bool| -> u64 {
                    table.blobs.values().filter(|e| !pinned_only || e.pins > 0).map(|e| e.charged).sum()
                };
                prop_assert_eq!(table.stored, sum(false));
                prop_assert_eq!(table.pinned, sum(true));
                prop_assert_eq!(table.reserved, reserved.iter().sum::<u64>());
                let free = table.blobs.values().filter(|e| e.pins == 0).count();
                prop_assert_eq!(table.order.len(), free);
                for (used, hash) in &table.order {
                    prop_assert_eq!(table.blobs[hash].used, *used);
                }
            }
        }
    }
}
