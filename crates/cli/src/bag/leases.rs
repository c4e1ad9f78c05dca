//! The slots of a bag: asked for as its tasks need them, and known by number.

use super::keeper::Event;
use crate::threads;
use mutirao::raw::{Allocation, Lease, LeaseKey, LeaseState, Pool, Request, note_text};
use mutirao_bag::Settings;
use mutirao_schedule::bag::Needs;
use mutirao_wire::NodeId;
use mutirao_wire::limits::NODES_NAMED_MAX;
use mutirao_wire::node::{Hindrance, NodeRef, Note};
use mutirao_wire::query::{NodeRow, NodeState};
use mutirao_wire::wait::Wait;
use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, SyncSender, sync_channel};
use std::time::Duration;

/// A request waits in the pool's queue for so long, and then is made anew, as things are by then.
const PATIENCE: Duration = Duration::from_secs(20);

/// A node on which workers could not be started so often in a row is asked for no more.
const FAILURES_MAX: u32 = 3;
/// Reasons told of those why workers can be started nowhere.
const REASONS_SHOWN: usize = 3;

/// What is asked for.
pub struct Ask {
    needs: Needs,
    count: u32,
    avoid: Vec<NodeId>,
    /// Nodes on which workers cannot be started, and why.
    unfit: BTreeMap<String, String>,
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
    /// Why tasks that need so much have no slot, since when they were last asked for.
    waits: Vec<(Needs, String)>,
    /// What was last asked for in vain: others have their turn first.
    in_vain: Vec<Needs>,
    /// Nodes on which a worker could not be started, since one last was.
    unfit: BTreeMap<NodeId, Unfit>,
}

struct Held {
    leaving: bool,
    lender: NodeRef,
}

struct Unfit {
    name: String,
    failures: u32,
    why: String,
}

/// What has become of leases.
pub enum Change {
    Leaves(u64),
    Down(u64),
}

impl Leases {
    /// Starts the threads that ask for slots and hear of leases.
    pub fn start(pool: &Pool, settings: &Settings, events: &Sender<Event>) -> anyhow::Result<Leases> {
        let (asker, asks) = sync_channel(1);
        let (asking, settings, out) = (pool.clone(), settings.clone(), events.clone());
        threads::start("slots", move || ask(&asking, &settings, &asks, &out))?;
        let (watching, out) = (pool.clone(), events.clone());
        threads::start("leases", move || watch(&watching, &out))?;
        let (waits, in_vain, unfit) = (Vec::new(), Vec::new(), BTreeMap::new());
        Ok(Leases { held: BTreeMap::new(), asker, asking: false, waits, in_vain, unfit })
    }

    /// Asks for what is wanted most, unless a request is under way.
    pub fn want(&mut self, wanted: Vec<(Needs, u32)>, avoid: impl FnOnce(&Needs) -> Vec<NodeId>) {
        self.waits.retain(|(needs, _)| wanted.iter().any(|(wanted, _)| wanted == needs));
        self.in_vain.retain(|needs| wanted.iter().any(|(wanted, _)| wanted == needs));
        if self.asking {
            return;
        }
        if self.in_vain.len() == wanted.len() {
            self.in_vain.clear();
        }
        let fresh = wanted.into_iter().filter(|(needs, _)| !self.in_vain.contains(needs));
        if let Some((needs, count)) = fresh.max_by_key(|(_, count)| *count) {
            let given_up = self.unfit.iter().filter(|(_, unfit)| unfit.failures >= FAILURES_MAX);
            let (mut avoid, mut unfit) = (avoid(&needs), BTreeMap::new());
            for (node, known) in given_up {
                avoid.push(*node);
                unfit.insert(known.name.clone(), known.why.clone());
            }
            // It has room for one, and holds none while nothing is asked.
            self.asking = self.asker.try_send(Ask { needs, count, avoid, unfit }).is_ok();
        }
    }

    /// Takes the answer: the leases.
    pub fn granted(&mut self, pool: &Pool, needs: &Needs, allocation: &Allocation) -> Vec<Lease> {
        self.asking = false;
        if !allocation.leases.is_empty() {
            self.waits.retain(|(waiting, _)| waiting != needs);
        }
        let mut granted = Vec::new();
        let leases = pool.leases();
        for key in &allocation.leases {
            // One that is gone by now is of no interest.
            let Some(lease) = leases.iter().find(|lease| lease.key == *key) else { continue };
            self.held.insert(*key, Held { leaving: false, lender: lease.lender.clone() });
            granted.push(lease.clone());
        }
        granted
    }

    /// Takes in a lease of the keeper before.
    pub fn adopt(&mut self, worker: u64, lender: &NodeRef) {
        self.held.insert(LeaseKey(worker as u32), Held { leaving: false, lender: lender.clone() });
    }

    /// The node of a lease.
    pub fn lender(&self, lease: LeaseKey) -> Option<&NodeRef> {
        self.held.get(&lease).map(|held| &held.lender)
    }

    pub fn asked_in_vain(&mut self, needs: &Needs) {
        self.asking = false;
        if !self.in_vain.contains(needs) {
            self.in_vain.push(needs.clone());
        }
    }

    /// No slot is free for tasks that need so much; whether that is news.
    pub fn short(&mut self, needs: &Needs, why: &str) -> bool {
        match self.waits.iter_mut().find(|(waiting, _)| waiting == needs) {
            Some((_, known)) if known == why => false,
            Some((_, known)) => {
                why.clone_into(known);
                true
            }
            None => {
                self.waits.push((needs.clone(), why.to_owned()));
                true
            }
        }
    }

    /// Why tasks that need so much have no slot.
    pub fn waits(&self) -> &[(Needs, String)] {
        &self.waits
    }

    /// Workers can be started nowhere, which was told; they are tried anew for what comes after.
    pub fn nowhere(&mut self) {
        self.asking = false;
        self.unfit.clear();
    }

    /// What has changed among the leases held; `notes` say of nodes that workers cannot be started there.
    pub fn changes(&mut self, leases: &[Lease], notes: &[Note]) -> Vec<Change> {
        let mut changes = Vec::new();
        self.held.retain(|key, held| {
            let lease = leases.iter().find(|lease| lease.key == *key);
            let leaving = lease.is_some_and(|lease| lease.state == LeaseState::Leaving);
            if lease.is_some_and(|lease| lease.state == LeaseState::Ready) {
                self.unfit.remove(&held.lender.id);
            }
            if lease.is_none() {
                if let Some(why) = notes.iter().find_map(|note| unfit_for(note, &held.lender.name)) {
                    let (name, failures) = (held.lender.name.clone(), 0);
                    let fresh = || Unfit { name, failures, why: String::new() };
                    let unfit = self.unfit.entry(held.lender.id).or_insert_with(fresh);
                    unfit.failures += 1;
                    why.clone_into(&mut unfit.why);
                }
                changes.push(Change::Down(key.0.into()));
            } else if leaving && !std::mem::replace(&mut held.leaving, leaving) {
                changes.push(Change::Leaves(key.0.into()));
            }
            lease.is_some()
        });
        changes
    }
}

/// Why workers cannot be started on the node, if the note says so.
fn unfit_for<'a>(note: &'a Note, node: &str) -> Option<&'a str> {
    match &note.hindrance {
        Hindrance::Unfit(why) if note.node == node => Some(why),
        _ => None,
    }
}

/// Why workers can be started nowhere, if all nodes that might lend are known to be unfit.
fn why_nowhere(
    pool: &Pool,
    settings: &Settings,
    unfit: &BTreeMap<String, String>,
    notes: &[Note],
) -> Option<String> {
    let why_unfit = |node: &str| {
        let said = notes.iter().find_map(|note| unfit_for(note, node));
        unfit.get(node).map(String::as_str).or(said)
    };
    if unfit.is_empty() && !notes.iter().any(|note| matches!(note.hindrance, Hindrance::Unfit(_))) {
        return None;
    }
    let might_lend = |row: &NodeRow| {
        let named = settings.nodes.is_empty() || settings.nodes.contains(&row.node.name);
        let labelled = settings.labels.iter().all(|label| row.labels.contains(label));
        row.state == NodeState::Up && row.slots_total > row.slots_reclaimed && named && labelled
    };
    let rows = pool.nodes().ok()?;
    let reasons = rows.iter().filter(|row| might_lend(row)).map(|row| {
        let name = &row.node.name;
        Some(format!("on `{name}`: {}", why_unfit(name)?))
    });
    let reasons: Vec<String> = reasons.collect::<Option<_>>()?;
    let shown = reasons.iter().take(REASONS_SHOWN).cloned().collect::<Vec<_>>().join("; ");
    (!reasons.is_empty()).then(|| format!("workers can be started nowhere; {shown}"))
}

/// Asks for slots: what is free at once, and else in the pool's queue.
fn ask(pool: &Pool, settings: &Settings, asks: &Receiver<Ask>, out: &Sender<Event>) {
    while let Ok(Ask { needs, count, mut avoid, unfit }) = asks.recv() {
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
        if let Ok(allocation) = &result
            && allocation.leases.is_empty()
        {
            if let Some(why) = why_nowhere(pool, settings, &unfit, &allocation.notes) {
                if out.send(Event::Nowhere(why)).is_err() {
                    return;
                }
                continue;
            }
            let why = match unknown(pool, &settings.nodes) {
                Some((unknown, true)) => unknown,
                Some((unknown, false)) => format!("{unknown}; {}", why_none(pool, &allocation.notes)),
                None => why_none(pool, &allocation.notes),
            };
            let event = Event::Short { needs: needs.clone(), why };
            if out.send(event).is_err() {
                return;
            }
            request.at_least = 1;
            request.wait = Some(Wait { priority: 0, patience_ms: Some(PATIENCE.as_millis() as u64) });
            result = pool.allocate(&request);
        }
        if out.send(Event::Granted(Granted { needs, result })).is_err() {
            return;
        }
    }
}

/// Says which of these names no node of the pool has, and whether that are all.
fn unknown(pool: &Pool, nodes: &[String]) -> Option<(String, bool)> {
    if nodes.is_empty() {
        return None;
    }
    let rows = pool.nodes().ok()?;
    let is_unknown = |name: &&String| !rows.iter().any(|row| row.node.name == **name);
    let names: Vec<String> = nodes.iter().filter(is_unknown).map(|name| format!("`{name}`")).collect();
    let shown = names[..names.len().min(REASONS_SHOWN)].join(" or ");
    (!names.is_empty())
        .then(|| (format!("no node of the pool is called {shown}"), names.len() == nodes.len()))
}

/// Why no slot is to be had now.
pub fn why_none(pool: &Pool, notes: &[Note]) -> String {
    if !notes.is_empty() {
        let texts: Vec<String> = notes.iter().take(3).map(note_text).collect();
        return texts.join("; ");
    }
    let rows = pool.nodes().unwrap_or_default();
    let lends = |row: &NodeRow| row.state == NodeState::Up && row.slots_total > row.slots_reclaimed;
    match rows.iter().any(lends) {
        true => "all slots that could be had are taken".into(),
        false => "no node lends slots now: each is drained or kept for its owner (`mutirao nodes`)".into(),
    }
}

/// Tells of whatever happens to leases.
fn watch(pool: &Pool, out: &Sender<Event>) {
    // What happened before counts too: a lease that a keeper before this one had may have ended already.
    let mut seen = 0;
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
