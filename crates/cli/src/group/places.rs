//! Where the processes of a group run: the leases they hold.

use anyhow::{Context, Result, ensure};
use mutirao::raw::{Error, LeaseKey, Pool, Request};
use mutirao_group::Application;
use mutirao_wire::wait::Wait;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// After so long a station is asked again: what a group held that has just ended comes free in a moment.
const COMES_FREE: [Duration; 3] =
    [Duration::from_millis(100), Duration::from_millis(300), Duration::from_millis(1000)];

/// What processes have in common that are asked for together: station, slots, memory.
type Kind<'a> = (Option<&'a str>, u16, u32);

/// Fails unless every station is a node that answers: all that are not are named.
pub fn reach(pool: &Pool, application: &Application) -> Result<()> {
    if application.stations.is_empty() {
        return Ok(());
    }
    let nodes: BTreeSet<String> = pool.nodes()?.into_iter().map(|row| row.node.name).collect();
    let lost: Vec<String> = application
        .stations
        .iter()
        .filter(|station| !nodes.contains(*station))
        .map(|station| format!("`{station}`"))
        .collect();
    ensure!(
        lost.is_empty(),
        "cannot reach {}: stations are nodes of the pool that answer (`mutirao nodes`); nothing was started",
        lost.join(", ")
    );
    Ok(())
}

/// How leases are asked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Terms {
    /// How the request waits, if it does.
    pub wait: Option<Wait>,
    /// When they end at the latest.
    pub limit_s: Option<u32>,
}

/// A lease for each process, or for none: by rank.
pub fn lease_all(pool: &Pool, application: &Application, terms: Terms) -> Result<Vec<LeaseKey>> {
    let ranks: Vec<u32> = (0..application.processes.len() as u32).collect();
    lease(pool, application, &ranks, terms)
}

/// A lease for one process, if there is one now.
pub fn lease_one(pool: &Pool, application: &Application, rank: u32, terms: Terms) -> Result<LeaseKey> {
    let terms = Terms { wait: None, ..terms };
    lease(pool, application, &[rank], terms)?.pop().context("there is no such process")
}

fn lease(pool: &Pool, application: &Application, ranks: &[u32], terms: Terms) -> Result<Vec<LeaseKey>> {
    let mut kinds: BTreeMap<Kind<'_>, Vec<u32>> = BTreeMap::new();
    for rank in ranks {
        let process = &application.processes[*rank as usize];
        let kind = (process.station.as_deref(), process.slots, process.memory_mib);
        kinds.entry(kind).or_default().push(*rank);
    }
    // Two groups that each hold what the other waits for would wait for ever.
    ensure!(
        terms.wait.is_none() || kinds.len() == 1,
        "only a group whose processes all ask for the same can wait: same station or none, same slots and memory"
    );
    let mut leases = BTreeMap::new();
    // Stations first: what has a place of its own leaves the others the choice of what remains.
    for (kind, ranks) in kinds.into_iter().rev() {
        match lease_kind(pool, kind, ranks.len() as u32, terms) {
            Ok(keys) => leases.extend(ranks.into_iter().zip(keys)),
            Err(error) => {
                let held: Vec<LeaseKey> = leases.into_values().collect();
                // The pool may be gone, which is then what the error is about.
                let _ = pool.release(&held);
                return Err(error);
            }
        }
    }
    Ok(ranks.iter().filter_map(|rank| leases.get(rank).copied()).collect())
}

fn lease_kind(
    pool: &Pool,
    (station, slots, memory_mib): Kind<'_>,
    count: u32,
    terms: Terms,
) -> Result<Vec<LeaseKey>> {
    let mut request = Request::slots(count).cores(slots).memory_mib(memory_mib).all_or_none();
    request.below = station.map(str::to_owned);
    // Nodes below the station lend too, and here may be one.
    request.among = station.map(str::to_owned).into_iter().collect();
    request.wait = terms.wait;
    request.bundle.limit_s = terms.limit_s;
    let wanted = || match station {
        Some(station) => format!("station `{station}` has no room for {count} of the processes"),
        None => format!("the pool has no room for {count} of the processes"),
    };
    let mut pauses = COMES_FREE.iter().filter(|_| station.is_some() && terms.wait.is_none());
    loop {
        let answer = pool.allocate(&request);
        match pauses.next().filter(|_| matches!(answer, Err(Error::NotEnough { .. }))) {
            Some(pause) => std::thread::sleep(*pause),
            None => return Ok(answer.with_context(wanted)?.leases),
        }
    }
}
