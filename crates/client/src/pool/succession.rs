//! An application that goes on at another of its homes.

use super::Pool;
use super::call::{Call, Deliver};
use super::core::Core;
use super::lease::LeaseEntry;
use super::options::{LeaseKey, LeaseState, Options};
use crate::Error;
use mutirao_schedule::hold::{self, Input};
use mutirao_wire::local::LeaseInfo;
use mutirao_wire::node::{Arch, NodeRef};
use mutirao_wire::{AppId, CallId, Epoch, LeaseId, NodeId, Tick};
use std::collections::BTreeSet;

/// Leases that can be gone on with at most.
pub const LEFT_MAX: usize = 256;
/// They have to fit into one greeting with all that is known of their lenders, bytes.
const LEFT_BYTES_MAX: usize = 48 * 1024;

/// An application that lives on when its program, or the node of its machine, is lost: a program at another of its
/// homes goes on in its place, with its leases on other nodes and the calls there.
///
/// A program of such an application gives its leases back itself before it ends for good: those on other nodes outlive
/// it, by ten seconds unless the pool's charter says otherwise. Results are kept by their lenders until they are
/// [acknowledged](Pool::acknowledge).
#[derive(Debug, Clone)]
pub struct Succession {
    /// The application.
    pub app: AppId,
    /// Higher than that of each program that was the application before: where two say that they are, the higher counts.
    /// It grows by one each time the node of this machine is lost and comes back.
    pub epoch: Epoch,
    /// The nodes at which it is at home, at most three, that of this machine among them.
    pub homes: Vec<NodeId>,
}

/// A lease that a program before this one has left.
#[derive(Debug)]
pub struct Left {
    /// Its name in the pool.
    pub lease: LeaseId,
    /// The node that lends.
    pub lender: NodeRef,
    /// Slots it holds.
    pub slots: u16,
    /// The calls there that have no result yet, by the names that they had, each with its operation and where the
    /// result goes.
    pub calls: Vec<(CallId, u32, Deliver)>,
}

/// What became of one lease that was left.
#[derive(Debug)]
pub struct Adopted {
    /// Its key in this pool.
    pub lease: LeaseKey,
    /// Its calls, in the order they were named; `None` for one whose name is taken.
    pub calls: Vec<Option<Call>>,
}

impl Pool {
    /// Opens a pool as [`open`](Pool::open) does, and goes on with what a program of this application has left, in its
    /// place. At most [`LEFT_MAX`] leases are gone on with; what is adopted is told for each, in their order. A call that
    /// its lender does not have any more ends with [`CallErrorKind::NoSlots`](super::CallErrorKind::NoSlots), one whose
    /// lease is lost with [`CallErrorKind::OutcomeUnknown`](super::CallErrorKind::OutcomeUnknown).
    pub fn succeed(
        options: Options,
        succession: Succession,
        left: Vec<Left>,
    ) -> Result<(Pool, Vec<Adopted>), Error> {
        let mut ids = Vec::new();
        let adopt = |core: &mut Core| {
            let mut room = LEFT_BYTES_MAX;
            let fits = |left: &Left| {
                // An id, numbers, addresses with scope and port.
                let bytes = 64 + left.lender.name.len() + 32 * left.lender.addresses.len();
                room = room.saturating_sub(bytes);
                room > 0
            };
            let some = left.into_iter().take(LEFT_MAX).take_while(fits);
            ids = some.map(|left| core.adopt(left)).collect();
        };
        let pool = Pool::open_as(options, Some(succession), adopt)?;
        let call = |id| Call { shared: pool.handle.clone(), id };
        let adopted = ids.into_iter().map(|(lease, ids): (LeaseKey, Vec<Option<CallId>>)| Adopted {
            lease,
            calls: ids.into_iter().map(|id| id.map(call)).collect(),
        });
        let adopted = adopted.collect();
        Ok((pool, adopted))
    }

    /// In which order of the application's homes this is; 0 where there is one only.
    pub fn epoch(&self) -> Epoch {
        self.handle.shared.lock().link.epoch()
    }

    /// Says that results are where they cannot be lost any more. Until then their lenders keep them for whoever goes on
    /// in this program's place, and stop a worker of whose results they keep too many.
    pub fn acknowledge(&self, calls: &[CallId]) -> Result<(), Error> {
        let mut guard = self.alive()?;
        let core = &mut *guard;
        let mut owing = BTreeSet::new();
        for call in calls {
            let handle = core.unsure.as_mut().and_then(|unsure| unsure.remove(call));
            if let Some(handle) = handle
                && let Some(lease) = core.leases.get_mut(&handle)
            {
                lease.receipts.delivered(*call);
                owing.insert(handle);
            }
        }
        // At once: a lender that keeps many may wait for just that.
        for handle in owing {
            if let Some(lease) = core.leases.get_mut(&handle).filter(|_| core.link.is_up()) {
                lease.receipts.due(handle, true, core.link.socket.out());
            }
        }
        core.send(super::core::now());
        self.handle.shared.submitted(core, true);
        drop(self.handle.shared.settle(guard));
        Ok(())
    }

    /// Gives all leases back, also those that others would go on with.
    pub fn release_all(&self) -> Result<(), Error> {
        let leases: Vec<LeaseKey> = self.leases().iter().map(|lease| lease.key).collect();
        self.release(&leases)
    }
}

impl Core {
    /// Takes in a lease that was left, before the node hears of it.
    fn adopt(&mut self, left: Left) -> (LeaseKey, Vec<Option<CallId>>) {
        let now = super::core::now();
        let handle = mutirao_wire::Handle(self.leases.len() as u32 + 1);
        let Left { lease, lender, slots, calls } = left;
        // As one of which this node does not know how its lender is.
        let info = LeaseInfo { handle, lease, lender, slots, local: false, arch: Arch::Other };
        let entry = LeaseEntry { state: LeaseState::Broken, began: true, ..LeaseEntry::new(now, info, true) };
        self.leases.insert(handle, entry);
        self.leases_changed();
        self.tell(now, Input::LeaseAdded { handle, local: false });
        self.tell(now, Input::LeaseReady { handle, room: 0 });
        self.tell(now, Input::LeaseBroken(handle));
        let adopt = |(id, operation, deliver)| self.adopt_call(now, handle, id, operation, deliver);
        (LeaseKey(handle.0), calls.into_iter().map(adopt).collect())
    }

    fn adopt_call(
        &mut self,
        now: Tick,
        handle: mutirao_wire::Handle,
        id: CallId,
        operation: u32,
        deliver: Deliver,
    ) -> Option<CallId> {
        let call = hold::Call { operation, bytes: 0, repeatable: false, limit_ms: 0, only: Some(handle) };
        if !self.hold.adopt(now, id, call) {
            return None;
        }
        self.enter(id, Vec::new(), deliver, 0, false);
        Some(id)
    }
}
