//! Collectives: what all processes of a group do together, in log2 of their number rounds.
//!
//! In round `k` a process sends to the rank `2^k` further, round the circle, and receives from the one `2^k` back:
//! other ways there are none. So trees grow in the direction of the ranks from their root, and shrink to it the
//! same way.

use super::typed::{decode, encode};
use super::{Error, Group, Input, Output};
use mutirao_group::record::Collective;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;

const NAME: &str = "the collectives";

/// Blocks by the rank they belong to.
type Blocks = BTreeMap<u32, Vec<u8>>;

impl Group {
    /// Rounds there are, each with its two ways.
    fn rounds(&self) -> Result<Vec<(u32, Output, Input)>, Error> {
        let count = self.size().next_power_of_two().trailing_zeros() as usize;
        if self.plan.collectives.len() < count {
            return Err(Error::NoCollectives);
        }
        let round = |power: usize| {
            let to = self.output_at(self.plan.outputs.len() + power);
            let from = self.input_at(self.plan.inputs.len() + power);
            (1 << power, to, from)
        };
        Ok((0..count).map(round).collect())
    }

    /// How far this process is behind `root`, in the direction of the ranks.
    fn after(&self, root: u32) -> Result<u32, Error> {
        if root >= self.size() {
            return Err(Error::Collective(format!("there is no rank {root} among {}", self.size())));
        }
        Ok((self.rank() + self.size() - root) % self.size())
    }

    /// Returns when all processes have come here.
    pub fn barrier(&self) -> Result<(), Error> {
        self.ends.collective(Collective::Barrier, || {
            for (_, to, from) in self.rounds()? {
                to.post(Vec::new())?;
                from.receive()?;
            }
            Ok(())
        })
    }

    /// Gives the bytes of the rank `root` to all; only that one's are looked at.
    pub fn broadcast_bytes(&self, root: u32, mut bytes: Vec<u8>) -> Result<Vec<u8>, Error> {
        self.ends.collective(Collective::Broadcast, || {
            let after = self.after(root)?;
            for (distance, to, from) in self.rounds()? {
                if after < distance {
                    if after + distance < self.size() {
                        to.post(bytes.clone())?;
                    }
                } else if after < 2 * distance {
                    bytes = from.receive()?;
                }
            }
            Ok(bytes)
        })
    }

    /// Gives the value of the rank `root` to all; only that one's is looked at.
    pub fn broadcast<T: Serialize + DeserializeOwned>(
        &self,
        root: u32,
        value: Option<&T>,
    ) -> Result<T, Error> {
        let is_root = self.rank() == root;
        let bytes = match value {
            Some(value) if is_root => encode(value, NAME)?,
            None if is_root => {
                return Err(Error::Collective("the root of a broadcast gives no value".into()));
            }
            _ => Vec::new(),
        };
        decode(&self.broadcast_bytes(root, bytes)?, NAME)
    }

    /// Gives each rank its block of those of the rank `root`, which has one for each.
    pub fn scatter_bytes(&self, root: u32, blocks: Vec<Vec<u8>>) -> Result<Vec<u8>, Error> {
        self.ends.collective(Collective::Scatter, || {
            let (after, size) = (self.after(root)?, self.size());
            if after == 0 && blocks.len() != size as usize {
                let text =
                    format!("the root of a scatter gives {} blocks for {size} processes", blocks.len());
                return Err(Error::Collective(text));
            }
            // By how far behind the root they belong.
            let mut held: Blocks = Blocks::new();
            if after == 0 {
                held =
                    (0..size).zip(blocks).map(|(rank, block)| ((rank + size - root) % size, block)).collect();
            }
            // The farthest first: a process holds those of the ranks up to the next power of two behind it.
            for (distance, to, from) in self.rounds()?.into_iter().rev() {
                let place = after % (2 * distance);
                if place == 0 && after + distance < size {
                    let far = held.split_off(&(after + distance));
                    to.post(encode(&far, NAME)?)?;
                } else if place == distance {
                    held = decode(&from.receive()?, NAME)?;
                }
            }
            held.remove(&after).ok_or_else(|| Error::Collective("a block is missing".into()))
        })
    }

    /// Brings the bytes of all ranks to the rank `root`, in order of their ranks; elsewhere there is nothing.
    pub fn gather_bytes(&self, root: u32, bytes: Vec<u8>) -> Result<Vec<Vec<u8>>, Error> {
        self.ends.collective(Collective::Gather, || {
            let (before, size) = (self.before(root)?, self.size());
            let mut held = Blocks::from([(self.rank(), bytes)]);
            for (distance, to, from) in self.rounds()? {
                match before % (2 * distance) {
                    0 if before + distance < size => {
                        let more: Blocks = decode(&from.receive()?, NAME)?;
                        held.extend(more);
                    }
                    place if place == distance => to.post(encode(&held, NAME)?)?,
                    _ => {}
                }
                if before % (2 * distance) == distance {
                    return Ok(Vec::new());
                }
            }
            self.in_order(held)
        })
    }

    /// How far `root` is behind this process, in the direction of the ranks.
    fn before(&self, root: u32) -> Result<u32, Error> {
        Ok((self.size() - self.after(root)?) % self.size())
    }

    fn in_order(&self, held: Blocks) -> Result<Vec<Vec<u8>>, Error> {
        if held.len() != self.size() as usize {
            let text = format!("{} blocks came instead of {}", held.len(), self.size());
            return Err(Error::Collective(text));
        }
        Ok(held.into_values().collect())
    }

    /// Joins the values of all ranks to one at the rank `root`; elsewhere there is `None`. `join` must not mind in
    /// which order it is applied, nor to which of two first.
    pub fn reduce<T: Serialize + DeserializeOwned>(
        &self,
        root: u32,
        value: T,
        mut join: impl FnMut(T, T) -> T,
    ) -> Result<Option<T>, Error> {
        let send = |value| encode(&value, NAME);
        self.reduce_by(root, value, send, |value, came| Ok(join(value, decode(&came, NAME)?)))
    }

    /// Joins the bytes of all ranks to those of one at the rank `root`; elsewhere there is `None`. `join` adds the
    /// second to the first; as for [`reduce`](Self::reduce) in whatever order.
    pub fn reduce_bytes(
        &self,
        root: u32,
        bytes: Vec<u8>,
        mut join: impl FnMut(&mut Vec<u8>, &[u8]),
    ) -> Result<Option<Vec<u8>>, Error> {
        self.reduce_by(root, bytes, Ok, |mut bytes, came| {
            join(&mut bytes, &came);
            Ok(bytes)
        })
    }

    /// The tree of a reduction: `send` makes the bytes that go on, `join` adds those that came.
    fn reduce_by<T>(
        &self,
        root: u32,
        mut value: T,
        send: impl FnOnce(T) -> Result<Vec<u8>, Error>,
        mut join: impl FnMut(T, Vec<u8>) -> Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        self.ends.collective(Collective::Reduce, || {
            let (before, size) = (self.before(root)?, self.size());
            for (distance, to, from) in self.rounds()? {
                if before % (2 * distance) == distance {
                    to.post(send(value)?)?;
                    return Ok(None);
                }
                if before + distance < size {
                    value = join(value, from.receive()?)?;
                }
            }
            Ok(Some(value))
        })
    }

    /// Joins the values of all ranks to one, which all get. `join` as for [`reduce`](Self::reduce).
    pub fn reduce_all<T: Serialize + DeserializeOwned>(
        &self,
        value: T,
        join: impl FnMut(T, T) -> T,
    ) -> Result<T, Error> {
        let joined = self.reduce(0, value, join)?;
        self.broadcast(0, joined.as_ref())
    }

    /// Gives each rank its block of those of every rank: the block at place `r` of the result comes from rank `r`.
    pub fn all_to_all_bytes(&self, blocks: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>, Error> {
        self.ends.collective(Collective::AllToAll, || {
            let (rank, size) = (self.rank(), self.size());
            if blocks.len() != size as usize {
                let text = format!("{} blocks are given for {size} processes", blocks.len());
                return Err(Error::Collective(text));
            }
            // By how far they have to go, and who sent them.
            let far = |to: u32| (to + size - rank) % size;
            let mut held: BTreeMap<(u32, u32), Vec<u8>> =
                (0..size).zip(blocks).map(|(to, block)| ((far(to), rank), block)).collect();
            for (distance, to, from) in self.rounds()? {
                let (going, staying): (BTreeMap<_, _>, BTreeMap<_, _>) =
                    held.into_iter().partition(|((far, _), _)| far & distance != 0);
                let nearer = going.into_iter().map(|((far, by), block)| ((far - distance, by), block));
                to.post(encode(&nearer.collect::<BTreeMap<_, _>>(), NAME)?)?;
                held = staying;
                let more: BTreeMap<(u32, u32), Vec<u8>> = decode(&from.receive()?, NAME)?;
                held.extend(more);
            }
            self.in_order(held.into_iter().map(|((_, by), block)| (by, block)).collect())
        })
    }
}
