//! The orders of the programs here, and those of their guests.

use super::io::{Output, Spot};
use core::time::Duration;
use mutirao_wire::node::NodeRef;
use mutirao_wire::pipe::{
    GUEST_PIPES, JoinPipe, LeavePipe, PIPES_A_PROGRAM_MAX, PipeNews, PipeOrder, PipePlace, PipeState,
};
use mutirao_wire::{AppId, Epoch, NodeId, Tick};
use std::collections::{BTreeMap, BTreeSet};

/// A guest that cannot be joined in so long is given up.
const GUEST: Duration = Duration::from_secs(8);

/// Names a pipe.
pub(super) type Key = (AppId, u64);

/// That an end is to be joined to another.
#[derive(Debug, Clone)]
pub(super) struct Joining {
    pub key: Key,
    pub epoch: Epoch,
    pub mine: PipePlace,
    pub node: NodeRef,
    pub other: PipePlace,
}

/// What one part says to the other, which may be on another node.
#[derive(Debug, Clone)]
pub(super) enum Word {
    Join(Joining),
    Leave(LeavePipe),
    News(PipeNews),
}

/// Words, and to which node.
pub(super) type Said = Vec<(NodeId, Word)>;

impl Word {
    /// As it travels.
    pub(super) fn into_message(self) -> PipeOrder {
        match self {
            Word::Join(Joining { key: (app, number), epoch, mine, node, other }) => {
                JoinPipe { app, epoch, number, mine, node, other }.into()
            }
            Word::Leave(leave) => leave.into(),
            Word::News(news) => news.into(),
        }
    }
}

/// A pipe that was ordered.
#[derive(Debug)]
struct Order {
    epoch: Epoch,
    ends: [Spot; 2],
    /// Its ends have it, as far as known here.
    open: bool,
}

impl Order {
    /// Tells the nodes of both ends, or that which has both, once. With `only`, no other node.
    fn join(&self, key: Key, only: Option<NodeId>, said: &mut Said) {
        let [a, b] = &self.ends;
        let mut tell = |mine: &Spot, other: &Spot| {
            if only.is_none_or(|only| only == mine.node.id) {
                let (node, other) = (other.node.clone(), other.place);
                let joining = Joining { key, epoch: self.epoch, mine: mine.place, node, other };
                said.push((mine.node.id, Word::Join(joining)));
            }
        };
        tell(a, b);
        if a.node.id != b.node.id {
            tell(b, a);
        }
    }

    fn leave(&self, (app, number): Key, text: &str, said: &mut Said) {
        let nodes: BTreeSet<NodeId> = self.ends.iter().map(|end| end.node.id).collect();
        said.extend(
            nodes.into_iter().map(|to| (to, Word::Leave(LeavePipe { app, number, text: text.into() }))),
        );
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Orders {
    orders: BTreeMap<Key, Order>,
    counts: BTreeMap<AppId, usize>,
    /// Guests that are still to be joined, and until when that is tried: nobody else would give it up.
    awaited: BTreeMap<Key, Tick>,
}

impl Orders {
    #[allow(clippy::too_many_arguments)] // what is ordered, and where the answer goes
    pub(super) fn open<C>(
        &mut self,
        now: Tick,
        me: NodeId,
        key: Key,
        epoch: Epoch,
        ends: [Spot; 2],
        said: &mut Said,
        out: &mut Vec<Output<C>>,
    ) {
        if self.orders.contains_key(&key) {
            // A program says so once. What there is stays as it is.
            return;
        }
        let count = self.counts.entry(key.0).or_default();
        let programs = || ends.iter().filter(|end| end.place == PipePlace::Program);
        let why = if programs().count() == 2 || ends[0] == ends[1] {
            "its two ends are the same"
        } else if programs().any(|end| end.node.id != me) {
            "the program is not at this node"
        } else if *count >= PIPES_A_PROGRAM_MAX {
            "the program has as many pipes as it may have"
        } else {
            *count += 1;
            let guests = ends.iter().filter(|end| matches!(end.place, PipePlace::Guest(_)));
            for guest in guests {
                self.awaited.insert(key, now + GUEST);
                // No lease joins the two nodes; and if that one binds, it has to hear of it first.
                if guest.node.id < me {
                    out.push(Output::Want(guest.node.clone()));
                }
            }
            let order = Order { epoch, ends, open: false };
            order.join(key, None, said);
            self.orders.insert(key, order);
            return;
        };
        let (app, number) = key;
        out.push(Output::Tell { app, number, state: PipeState::Failed(why.into()) });
    }

    pub(super) fn close(&mut self, key: Key, text: &str, said: &mut Said) {
        if let Some(order) = self.forget(key) {
            order.leave(key, text, said);
        }
    }

    fn forget(&mut self, key: Key) -> Option<Order> {
        self.awaited.remove(&key);
        let order = self.orders.remove(&key)?;
        if let Some(count) = self.counts.get_mut(&key.0) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&key.0);
            }
        }
        Some(order)
    }

    /// Its lenders learn so by the end of its leases; the nodes of guests have to be told.
    pub(super) fn app_gone(&mut self, app: AppId, said: &mut Said) {
        for (key, order) in self.orders.extract_if((app, 0)..=(app, u64::MAX), |_, _| true) {
            self.awaited.remove(&key);
            if key.1 >= GUEST_PIPES {
                order.leave(key, "the program it leads to is gone", said);
            }
        }
        self.counts.remove(&app);
    }

    pub(super) fn deadline(&self) -> Option<Tick> {
        self.awaited.values().min().copied()
    }

    /// Gives up guests that could not be joined in time.
    pub(super) fn time<C>(&mut self, now: Tick, said: &mut Said, out: &mut Vec<Output<C>>) {
        let late: Vec<Key> =
            self.awaited.iter().filter(|(_, until)| **until <= now).map(|(key, _)| *key).collect();
        for key in late {
            self.fail(key, "no way was found between its two nodes", said, out);
        }
    }

    pub(super) fn lease_over<C>(
        &mut self,
        app: AppId,
        lender: NodeId,
        serial: u64,
        said: &mut Said,
        out: &mut Vec<Output<C>>,
    ) {
        let at = |end: &Spot| end.node.id == lender && end.place == PipePlace::Lease(serial);
        let concerned: Vec<Key> = (self.orders.range((app, 0)..=(app, u64::MAX)))
            .filter(|(_, order)| order.ends.iter().any(at))
            .map(|(key, _)| *key)
            .collect();
        for key in concerned {
            self.fail(key, "the lease of one of its ends is over", said, out);
        }
    }

    fn fail<C>(&mut self, key: Key, text: &str, said: &mut Said, out: &mut Vec<Output<C>>) {
        let Some(order) = self.forget(key) else { return };
        order.leave(key, text, said);
        let (app, number) = key;
        out.push(Output::Tell { app, number, state: PipeState::Failed(text.into()) });
    }

    /// What is said while there is no link is said when there is one.
    pub(super) fn link_up(&self, peer: NodeId, said: &mut Said) {
        for (key, order) in &self.orders {
            if order.ends.iter().any(|end| end.node.id == peer) {
                order.join(*key, Some(peer), said);
            }
        }
    }

    pub(super) fn news<C>(
        &mut self,
        from: NodeId,
        news: PipeNews,
        said: &mut Said,
        out: &mut Vec<Output<C>>,
    ) {
        let PipeNews { app, number, state } = news;
        let key = (app, number);
        let Some(order) = self.orders.get_mut(&key) else {
            // A lender that missed the end of the pipe.
            let text = "it is no more".into();
            if state != PipeState::Broken {
                said.push((from, Word::Leave(LeavePipe { app, number, text })));
            }
            return;
        };
        if order.ends.iter().all(|end| end.node.id != from) {
            return;
        }
        match state {
            PipeState::Failed(text) => self.fail(key, &text, said, out),
            PipeState::Open => {
                order.open = true;
                self.awaited.remove(&key);
            }
            PipeState::Broken => {
                let was_open = core::mem::replace(&mut order.open, false);
                // A program that is an end hears of it as an end.
                if was_open && order.ends.iter().all(|end| end.place != PipePlace::Program) {
                    out.push(Output::Tell { app, number, state: PipeState::Broken });
                }
            }
        }
    }
}
