//! Growing and shrinking: by the program, by order, and when lenders want slots back.

use super::core::{Core, now};
use super::options::{LeaseKey, Request, Slots};
use super::{Lease, Pool};
use crate::Error;
use mutirao_schedule::hold::Input;
use mutirao_wire::local::{Leave, Resize, Size};
use mutirao_wire::{Handle, Tick};
use std::sync::Arc;

/// Orders that wait to be looked at; of more the oldest is dropped.
const ORDERS_MAX: usize = 64;

/// What a program does about orders to grow or to shrink, instead of the library.
pub(super) type Handler = Arc<dyn Fn(Resize) + Send + Sync>;

/// Leases by what they are good for. Counted anew when something has happened to one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Held, with or without workers, but for those that are about to be given back.
    pub(super) held: u32,
    /// Those among them whose workers serve this program's calls, or will.
    pub(super) working: u32,
    /// Those among these whose workers are being started.
    pub(super) starting: u32,
}

impl Core {
    /// The leases, counted.
    pub(super) fn tally(&mut self) -> Tally {
        if let Some(tally) = self.tally {
            return tally;
        }
        let mut tally = Tally::default();
        for lease in self.leases.values().filter(|lease| !lease.leaving) {
            tally.held += 1;
            tally.working += u32::from(lease.works);
            tally.starting += u32::from(lease.works && lease.is_starting());
        }
        *self.tally.insert(tally)
    }

    /// Somebody who may order it wants this program to grow or to shrink.
    pub(super) fn ordered(&mut self, now: Tick, order: Resize) {
        if self.resize_handler.is_none() {
            return self.resize(now, order);
        }
        if self.orders.len() == ORDERS_MAX {
            self.orders.pop_front();
        }
        self.orders.push_back(order);
        self.news = true;
    }

    /// Grows or shrinks. What is missing is asked for, and comes when it comes.
    pub(super) fn resize(&mut self, now: Tick, Resize { size, leave }: Resize) {
        let held = self.tally().held;
        let target = match size {
            Size::More(more) => held.saturating_add(more),
            Size::Fewer(fewer) => held.saturating_sub(fewer),
            Size::Exactly(target) => target,
            Size::Own => return self.elastic.unbind(now),
        };
        let by_hand = self.elastic.bind(now, size, target);
        if target > held && by_hand {
            let request = Request { workers: self.link.offers(), ..Request::slots(target - held) };
            let sequence = self.ask_for(&request);
            self.elastic.asked_unwatched.insert(sequence);
        } else if target < held {
            self.retire_most(now, held - target, leave);
        }
    }

    /// Gives so many leases back, as `leave` says: those with nothing to do first, then the youngest.
    fn retire_most(&mut self, now: Tick, count: u32, leave: Leave) {
        let staying = self.leases.iter().filter(|(_, lease)| !lease.leaving);
        let mut staying: Vec<(bool, Handle)> =
            staying.map(|(handle, _)| (self.hold.is_idle(*handle), *handle)).collect();
        staying.sort_unstable();
        let chosen: Vec<Handle> =
            staying.into_iter().rev().take(count as usize).map(|(_, handle)| handle).collect();
        self.retire(now, &chosen, leave);
    }

    /// Places nothing more on these leases and gives them back, as `leave` says.
    pub(super) fn retire(&mut self, now: Tick, handles: &[Handle], leave: Leave) {
        for handle in handles {
            let Some(lease) = self.leases.get_mut(handle) else { continue };
            lease.leaving = true;
            if lease.works {
                self.tell(now, Input::Retire { handle: *handle, leave });
                // It takes a look to find out that there is nothing to wait for.
                self.unplaced += 1;
            } else {
                self.give_back(now, &[*handle]);
            }
        }
        self.leases_changed();
    }

    /// The lender wants a lease back. Bare slots stay as long as they can: what runs on them is not known.
    pub(super) fn wanted_back(&mut self, now: Tick, handle: Handle) {
        if self.leases.get(&handle).is_some_and(|lease| lease.works) {
            self.retire(now, &[handle], Leave::Finish);
        }
    }
}

impl Pool {
    /// Grows or shrinks, as an order to this program does when it has no [handler](Pool::on_resize).
    ///
    /// Slots that are missing are asked for, and come when they are to be had; this returns at once.
    /// Of a program whose slots the library minds ([`Slots::Auto`]), the size becomes a limit: it grows and
    /// shrinks no more beyond it, until it is told otherwise or [`Size::Own`].
    pub fn resize(&self, order: Resize) -> Result<(), Error> {
        let mut core = self.alive()?;
        core.resize(now(), order);
        core.send(now());
        self.handle.shared.submitted(&mut core, true);
        drop(self.handle.shared.settle(core));
        Ok(())
    }

    /// Asks for so many more slots; see [`resize`](Pool::resize).
    pub fn grow(&self, slots: u32) -> Result<(), Error> {
        self.resize(Resize { size: Size::More(slots), leave: Leave::Finish })
    }

    /// Gives so many slots back; see [`resize`](Pool::resize). No call is lost: what becomes of those that run
    /// there `leave` says.
    pub fn shrink(&self, slots: u32, leave: Leave) -> Result<(), Error> {
        self.resize(Resize { size: Size::Fewer(slots), leave })
    }

    /// Gives these leases back, each as soon as what runs on it allows: calls that have not begun go elsewhere,
    /// and what becomes of the others `leave` says. Meanwhile they are listed as
    /// [`Leaving`](crate::LeaseState::Leaving). Keys of leases that are no more are skipped. A program whose slots
    /// the library minds may take others in their place.
    pub fn retire(&self, leases: &[LeaseKey], leave: Leave) -> Result<(), Error> {
        let mut core = self.alive()?;
        let handles: Vec<Handle> = leases.iter().map(|lease| lease.handle()).collect();
        core.retire(now(), &handles, leave);
        core.send(now());
        self.handle.shared.submitted(&mut core, true);
        drop(self.handle.shared.settle(core));
        Ok(())
    }

    /// Gives all leases of the node of that name back, as [`retire`](Pool::retire) does; how many there were.
    pub fn retire_node(&self, node: &str, leave: Leave) -> Result<usize, Error> {
        let of_node = |lease: &Lease| lease.lender.name == node;
        let leases: Vec<LeaseKey> =
            self.leases().iter().filter(|lease| of_node(lease)).map(|l| l.key).collect();
        self.retire(&leases, leave)?;
        Ok(leases.len())
    }

    /// From now on orders to grow or to shrink (`mutirao grow`, `mutirao shrink`) are not carried out by the
    /// library: `handler` is called with each instead, by a thread of the library or one that waits for calls.
    /// It may use the pool, and best returns soon.
    pub fn on_resize(&self, handler: impl Fn(Resize) + Send + Sync + 'static) {
        let old = self.handle.shared.lock().resize_handler.replace(Arc::new(handler));
        // With it may go whatever it owns, such as pools.
        drop(old);
    }

    /// Who asks for slots now, with the limits that hold.
    pub fn slots(&self) -> Slots {
        self.handle.shared.lock().elastic.slots()
    }
}
