//! The slots of a bag: asked for as its tasks need them, and known by number.

use super::keeper::Event;
use mutirao::raw::{Allocation, Lease, LeaseKey, LeaseState, Pool, Request};
use mutirao_bag::Settings;
use mutirao_schedule::bag::Needs;
use mutirao_wire::NodeId;
use mutirao_wire::limits::NODES_NAMED_MAX;
use mutirao_wire::node::NodeRef;
use mutirao_wire::wait::Wait;
use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

/// A request waits in the pool's queue for so long, and then is made anew, as things are by then.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is asked for.
pub struct Ask {
    needs: Needs,
    count: u32,
    avoid: Vec<NodeId>,
}

/// What came of it.
pub struct Granted {
    pub needs: Needs,
    pub result: Result<Allocation, mutirao::Error>,
}

/// The leases held, and the request under way.
pub struct Leases {
    held: BTreeMap<LeaseKey, Held>,
    asker: SyncSender<Ask>,
    asking: bool,
}

struct Held {
    leaving: bool,
}

/// What has become of leases.
pub enum Change {
    Leaves(u64),
    Down(u64),
}

impl Leases {
    /// Starts the threads that ask for slots and hear of leases.
    pub fn start(pool: &Pool, settings: &Settings, events: &Sender<Event>) -> std::io::Result<Leases> {
        let (asker, asks) = sync_channel(1);
        let (asking, settings, out) = (pool.clone(), settings.clone(), events.clone());
        thread::Builder::new().name("slots".into()).spawn(move || ask(&asking, &settings, &asks, &out))?;
        let (watching, out) = (pool.clone(), events.clone());
        thread::Builder::new().name("leases".into()).spawn(move || watch(&watching, &out))?;
        Ok(Leases { held: BTreeMap::new(), asker, asking: false })
    }

    /// Asks for what is wanted most, unless a request is under way.
    pub fn want(&mut self, wanted: Vec<(Needs, u32)>, avoid: impl FnOnce() -> Vec<NodeId>) {
        let most = wanted.into_iter().max_by_key(|(_, count)| *count);
        if let Some((needs, count)) = most.filter(|_| !self.asking) {
            // It has room for one, and holds none while nothing is asked.
            self.asking = self.asker.try_send(Ask { needs, count, avoid: avoid() }).is_ok();
        }
    }

    /// Takes the answer: the leases, each with its node.
    pub fn granted(&mut self, pool: &Pool, allocation: &Allocation) -> Vec<(u64, NodeRef)> {
        self.asking = false;
        let mut granted = Vec::new();
        let leases = pool.leases();
        for key in &allocation.leases {
            // One that is gone by now is of no interest.
            let Some(lease) = leases.iter().find(|lease| lease.key == *key) else { continue };
            self.held.insert(*key, Held { leaving: false });
            granted.push((u64::from(key.0), lease.lender.clone()));
        }
        granted
    }

    pub fn asked_in_vain(&mut self) {
        self.asking = false;
    }

    /// What has changed among the leases held.
    pub fn changes(&mut self, leases: &[Lease]) -> Vec<Change> {
        let mut changes = Vec::new();
        self.held.retain(|key, held| {
            let lease = leases.iter().find(|lease| lease.key == *key);
            let leaving = lease.is_some_and(|lease| lease.state == LeaseState::Leaving);
            if lease.is_none() {
                changes.push(Change::Down(key.0.into()));
            } else if leaving && !std::mem::replace(&mut held.leaving, leaving) {
                changes.push(Change::Leaves(key.0.into()));
            }
            lease.is_some()
        });
        changes
    }
}

/// Asks for slots: what is free at once, and else in the pool's queue.
fn ask(pool: &Pool, settings: &Settings, asks: &Receiver<Ask>, out: &Sender<Event>) {
    while let Ok(Ask { needs, count, mut avoid }) = asks.recv() {
        let mut request = Request::slots(count).cores(needs.slots).memory_mib(needs.memory_mib);
        request.labels = settings.labels.clone();
        request.among = settings.nodes.clone();
        // Leases of more than these are given back when they come.
        avoid.truncate(NODES_NAMED_MAX);
        request.avoid = avoid;
        for resource in &needs.resources {
            request = request.resource(resource.name.clone(), resource.amount);
        }
        let mut result = pool.allocate(&request);
        if result.as_ref().is_ok_and(|allocation| allocation.leases.is_empty()) {
            request.at_least = 1;
            request.wait = Some(Wait { priority: 0, patience_ms: Some(PATIENCE.as_millis() as u64) });
            result = pool.allocate(&request);
        }
        if out.send(Event::Granted(Granted { needs, result })).is_err() {
            return;
        }
    }
}

/// Tells of whatever happens to leases.
fn watch(pool: &Pool, out: &Sender<Event>) {
    let mut seen = pool.lease_news();
    loop {
        match pool.wait_leases(seen, None) {
            Ok(news) => seen = news,
            Err(error) => {
                let _ = out.send(Event::PoolLost(error));
                return;
            }
        }
        if out.send(Event::Leases).is_err() {
            return;
        }
    }
}
