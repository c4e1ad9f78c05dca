//! A keeper goes on with the leases of the one before, and with what runs there.

use super::{Event, Keeper};
use crate::bag::shared::Shared;
use crate::bag::work::Outcome;
use anyhow::Result;
use mutirao::raw::{self, Call, Deliver, Lease, LeaseKey, Options, Pool};
use mutirao_bag::{Bag, End, Input, Left, Lent};
use mutirao_schedule::bag::Needs;
use mutirao_wire::{BlobHash, CallId};
use std::collections::BTreeMap;
use std::sync::mpsc::Sender;
use std::time::Instant;

/// Of a result: once so many records count, its lender may forget it, and what it keeps of it.
pub(super) struct Receipt {
    pub record: u64,
    pub call: Option<CallId>,
    pub lease: Option<LeaseKey>,
    pub kept: Vec<BlobHash>,
}

/// What a keeper begins with.
pub(super) struct Inherited {
    pub pool: Pool,
    /// Leases of the keeper before, by this one's numbers for them, and their attempts.
    pub left: Vec<Left>,
    /// These attempts, each with its call.
    pub calls: BTreeMap<u64, (Call, Instant)>,
}

impl Inherited {
    /// Of a bag that has no keeper but this one.
    pub fn nothing(pool: Pool) -> Inherited {
        Inherited { pool, left: Vec::new(), calls: BTreeMap::new() }
    }

    /// Opens the pool in the place of the keeper before, as its journal says.
    pub fn from(
        options: Options,
        shared: &mut Shared,
        bag: &Bag,
        sender: &Sender<Event>,
    ) -> Result<Inherited> {
        let mut left = bag.left();
        let call = |&(attempt, call): &(u64, u64)| (CallId(call), 0, ended(attempt, sender));
        let lease = |left: &Left| raw::Left {
            lease: left.lent.lease,
            lender: left.lent.lender.clone(),
            slots: left.lent.slots,
            calls: left.attempts.iter().map(call).collect(),
        };
        let leases = left.iter().map(lease).collect();
        let (pool, adopted) = Pool::succeed(options, shared.succession(), leases)?;
        let mut calls = BTreeMap::new();
        left.truncate(adopted.len());
        for (left, adopted) in left.iter_mut().zip(adopted) {
            left.worker = adopted.lease.0.into();
            let mut its = adopted.calls.into_iter();
            left.attempts.retain(|(attempt, _)| {
                let call = its.next().flatten();
                call.map(|call| calls.insert(*attempt, (call, Instant::now()))).is_some()
            });
        }
        Ok(Inherited { pool, left, calls })
    }
}

/// The attempts of leases.
pub(super) fn attempts_of(left: &[Left]) -> BTreeMap<LeaseKey, Vec<u64>> {
    let attempts = |left: &Left| left.attempts.iter().map(|(attempt, _)| *attempt).collect();
    left.iter().map(|left| (LeaseKey(left.worker as u32), attempts(left))).collect()
}

/// Tells the keeper how an attempt ended.
pub(super) fn ended(attempt: u64, sender: &Sender<Event>) -> Deliver {
    let sender = sender.clone();
    Deliver::Callback(Box::new(move |finished| {
        // Without a keeper nobody wants to know.
        let _ = sender.send(Event::Ended { attempt, finished });
    }))
}

impl Keeper {
    /// Writes down of a lease what the next keeper has to know.
    pub(super) fn note_lease(&mut self, lease: &Lease, offers: &Needs) -> Result<()> {
        // What shares memory with this very process ends with it.
        if lease.local || !self.is_shared() {
            return Ok(());
        }
        let lent = Lent {
            lease: lease.id,
            lender: lease.lender.clone(),
            slots: lease.slots,
            memory_mib: offers.memory_mib,
            resources: offers.resources.clone(),
        };
        self.tell(Input::Lent { worker: lease.key.0.into(), lent })
    }

    /// Writes down which calls attempts became.
    pub(super) fn note_calls(&mut self) -> Result<()> {
        for (attempt, call) in std::mem::take(&mut self.sent) {
            self.tell(Input::Sent { attempt, call })?;
        }
        Ok(())
    }

    /// Lets lenders forget results that count, and have their leases back.
    pub(super) fn acknowledge(&mut self) -> Result<()> {
        let mut calls = Vec::new();
        while let Some(receipt) = self.receipts.pop_front_if(|receipt| receipt.record <= self.synced) {
            calls.extend(receipt.call);
            if let Some(lease) = receipt.lease {
                self.kept_files.forget(lease, receipt.kept);
            }
        }
        if !calls.is_empty() {
            self.pool.acknowledge(&calls)?;
        }
        let back = self.returning.iter().take_while(|(record, _)| *record <= self.synced).count();
        let back: Vec<LeaseKey> = self.returning.drain(..back).map(|(_, lease)| lease).collect();
        if !back.is_empty() {
            self.pool.release(&back)?;
        }
        Ok(())
    }

    /// Gives leases back that have nothing to do.
    pub(super) fn give_back(&mut self, leases: Vec<LeaseKey>) -> Result<()> {
        if self.is_shared() {
            self.returning.extend(leases.into_iter().map(|lease| (self.appended, lease)));
        } else if !leases.is_empty() {
            self.pool.release(&leases)?;
        }
        Ok(())
    }

    /// How an attempt ended that an earlier keeper began: if it was lost on the way from one keeper to the next, or its
    /// inputs were still to come from the first, that is nothing that its task has done.
    pub(super) fn of_adopted(&mut self, attempt: u64, mut outcome: Outcome) -> Outcome {
        if self.adopted.remove(&attempt)
            && let End::NodeLost(why) | End::NotStarted(why) = outcome.end
        {
            outcome.end = End::NotBegun(format!("another keeper could not go on with it: {why}"));
        }
        outcome
    }
}
