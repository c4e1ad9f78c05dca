//! Bags that a node keeps: handed over to it, and taken up by the process that it starts.

use super::place::Place;
use crate::list::ask;
use anyhow::{Context, Result, bail};
use mutirao::raw::Pool;
use mutirao_wire::BagId;
use mutirao_wire::bag::Keep;
use mutirao_wire::query::{KeepHow, Row, Topic};
use std::time::{Duration, Instant};

/// A keeper is up, or has said why not, within so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// Hands a bag to this machine's node: to be kept by it over restarts, until it is over.
pub fn hand_over(place: &Place, pool: &Pool) -> Result<Keep> {
    let node = pool.node();
    let known = place.kept()?;
    let begin = known.is_none();
    let keep = match known {
        Some(keep) => keep,
        None => Keep { bag: new_id()?, number: place.id, members: vec![node.clone()] },
    };
    if keep.members.iter().all(|member| member.id != node.id) {
        let own: Vec<&str> = keep.members.iter().map(|member| member.name.as_str()).collect();
        bail!(
            "bag {} is kept by {}, not by `{}`: say --node {}",
            place.id,
            own.join(", "),
            node.name,
            own[0]
        );
    }
    place.write_kept(&keep)?;
    let to = Some(node.id.to_string());
    let topic =
        Topic::Keep { keep: Box::new(keep.clone()), how: if begin { KeepHow::Begin } else { KeepHow::GoOn } };
    for row in ask(pool, topic, to)? {
        match row {
            Row::Done { .. } => return Ok(keep),
            Row::Failed { node, text } => bail!("node `{node}` does not keep bag {}: {text}", place.id),
            _ => {}
        }
    }
    bail!("node `{}` did not say whether it keeps bag {}", node.name, place.id)
}

/// Waits until the keeper of a bag that was handed over hears orders, or the bag is over.
pub fn wait_for(place: &Place) -> Result<()> {
    let begun = Instant::now();
    while place.connect().is_none() && !place.read()?.0.is_over() {
        if begun.elapsed() > PATIENCE {
            bail!("the keeper of bag {} does not begin; see the log of its node", place.id);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// The bag that a keeper was started for by its node.
pub fn taken_up(id: BagId, node: &str) -> Result<Place> {
    let path = crate::membership::home()?.path().join("nodes").join(node).join("bags").join(id.to_string());
    let path = path.join("member.json");
    let text = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    #[derive(serde::Deserialize)]
    struct Member {
        keep: Keep,
    }
    let member: Member =
        serde_json::from_slice(&text).with_context(|| format!("cannot understand {}", path.display()))?;
    Place::find(&member.keep.number.to_string())
}

fn new_id() -> Result<BagId> {
    let mut bytes = [0; 16];
    let mut filled = 0;
    while filled < bytes.len() {
        let flags = rustix::rand::GetRandomFlags::empty();
        filled += rustix::rand::getrandom(&mut bytes[filled..], flags).context("no random numbers")?;
    }
    Ok(BagId(u128::from_le_bytes(bytes)))
}
