//! Bags that nodes keep: handed over to them, and taken up by the processes that they start.

use super::member;
use super::place::Place;
use super::programs;
use crate::args::Cli;
use crate::list::ask;
use anyhow::{Context, Result, bail};
use mutirao::raw::{Options, Pool, Private, Slots};
use mutirao_bag::Bag;
use mutirao_wire::bag::{Keep, MEMBERS};
use mutirao_wire::query::{KeepHow, NodeRow, NodeState, Row, Topic};
use mutirao_wire::{BagId, NodeRef};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// A keeper is up, or has said why not, within so long.
const PATIENCE: Duration = Duration::from_secs(60);
/// Input files of a bag that come along to several members, together.
const INPUT_BYTES_MAX: u64 = 256 << 20;
/// What a bag's program consists of, that comes along to several members: the bag begins when all of it is there.
const PROGRAM_BYTES_MAX: u64 = 32 << 20;

/// Hands a bag over to this machine's node and others; nothing where none runs.
pub fn by_node(cli: &Cli, place: &Place) -> Result<Option<Keep>> {
    match crate::open(cli) {
        Ok(pool) => {
            let keep = hand_over(place, &pool)?;
            pool.close();
            Ok(Some(keep))
        }
        Err(error) if matches!(error.downcast_ref(), Some(mutirao::Error::NoneRuns { .. })) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Hands a bag over to nodes, which keep it over restarts until it is over, or has them go on.
pub fn hand_over(place: &Place, pool: &Pool) -> Result<Keep> {
    let node = pool.node();
    let known = place.kept()?;
    // Before the member here has a journal nothing can have been promised of it: whoever handed the bag over first
    // may have ended over that.
    let is_begun = known.is_some() && super::shared::journal_path(place.directory()).exists();
    let submitted = || {
        let (bag, _) = place.read()?;
        place.check_submitted(&bag).map(|()| bag)
    };
    let (how, keep) = match known {
        Some(keep) if is_begun => (KeepHow::GoOn, keep),
        Some(keep) => submitted().map(|_| (KeepHow::Begin, keep))?,
        None => {
            let members = members(&submitted()?, pool)?;
            let bag = BagId(u128::from_le_bytes(mutirao_trust::random()?));
            (KeepHow::Begin, Keep { bag, number: place.id, members })
        }
    };
    let Some(first) = keep.members.first().filter(|first| first.id == node.id) else {
        let first = keep.members.first().map_or("?", |first| first.name.as_str());
        bail!("bag {} was submitted at `{first}`, not at `{}`: say --node {first}", place.id, node.name);
    };
    place.write_kept(&keep)?;
    // Where it was submitted last, so that those who are to hear it are there.
    for other in &keep.members[1..] {
        match order(pool, &keep, other, how) {
            Err(error) if how == KeepHow::Begin => return Err(error),
            Err(error) => eprintln!("mutirao: {error:#}"),
            Ok(()) => {}
        }
    }
    order(pool, &keep, first, how)?;
    Ok(keep)
}

/// Has the nodes of a bag that is over go on, since there is an order for it; false if no node keeps it together
/// with others.
pub fn wake(place: &Place) -> Result<bool> {
    let Some(keep) = place.kept()?.filter(|keep| keep.members.len() > 1) else { return Ok(false) };
    let options = Options {
        name: Some("mutirao".into()),
        node: Some(keep.members[0].name.clone()),
        slots: Slots::ByHand,
        private: Private::Never,
        ..Options::default()
    };
    let pool = Pool::open(options)?;
    hand_over(place, &pool)?;
    pool.close();
    until_begun(place, || Ok(place.connect().is_some()))?;
    Ok(true)
}

/// The nodes that are to keep a bag: this one, and two more if there are that take it and its files are not too many.
fn members(bag: &Bag, pool: &Pool) -> Result<Vec<NodeRef>> {
    let me = pool.node();
    let alone = |why: &str| {
        eprintln!("mutirao: {why}");
        Ok(vec![me.clone()])
    };
    let size = |path: String| std::fs::metadata(path).map_or(0, |facts| facts.len());
    let program = programs::files(bag.settings()).map(str::to_owned);
    if program.map(size).sum::<u64>() > PROGRAM_BYTES_MAX {
        let most = PROGRAM_BYTES_MAX >> 20;
        return alone(&format!("its program has more than {most} MiB with its libraries and stays here"));
    }
    if member::inputs(bag).into_iter().map(size).sum::<u64>() > INPUT_BYTES_MAX {
        let most = INPUT_BYTES_MAX >> 20;
        return alone(&format!("its input files have more than {most} MiB together and stay here"));
    }
    let mut others = pool.nodes()?;
    others.retain(|row| row.node.id != me.id && row.node.name != me.name && row.state == NodeState::Up);
    others.sort_by(|a, b| a.node.name.cmp(&b.node.name));
    others.dedup_by(|a, b| a.node.name == b.node.name);
    let host = |node: &NodeRef| node.addresses.first().map(std::net::SocketAddr::ip);
    let mut chosen = vec![me.clone()];
    let mut refusals = Vec::new();
    while chosen.len() < MEMBERS {
        let hosts: Vec<Option<IpAddr>> = chosen.iter().map(host).collect();
        // Rather one on a machine of its own.
        let place = others.iter().position(|row: &NodeRow| !hosts.contains(&host(&row.node)));
        let Some(place) = place.or((!others.is_empty()).then_some(0)) else { break };
        let node = others.remove(place).node;
        let keep = Keep { bag: BagId(0), number: 0, members: vec![node.clone()] };
        match order(pool, &keep, &node, KeepHow::Would) {
            Ok(()) => chosen.push(node),
            Err(error) => refusals.push(format!("{error:#}")),
        }
    }
    if chosen.len() == MEMBERS {
        return Ok(chosen);
    }
    refusals.iter().for_each(|refusal| eprintln!("mutirao: {refusal}"));
    alone("there are fewer than three nodes that would keep it")
}

/// Orders one node to keep a bag.
fn order(pool: &Pool, keep: &Keep, node: &NodeRef, how: KeepHow) -> Result<()> {
    let topic = Topic::Keep { keep: Box::new(keep.clone()), how };
    for row in ask(pool, topic, Some(node.id.to_string()))? {
        match row {
            Row::Done { .. } => return Ok(()),
            Row::Failed { node, text } => bail!("node `{node}` does not keep the bag: {text}"),
            _ => {}
        }
    }
    bail!("node `{}` did not say whether it keeps the bag", node.name)
}

/// Waits until the keeper of a bag that was handed over hears orders, or the bag is over.
pub fn wait_for(place: &Place) -> Result<()> {
    // With several members it counts as submitted once they have it.
    let is_shared = place.is_shared()?;
    until_begun(place, || {
        let is_there = !is_shared || place.is_with_members()?;
        Ok(is_there && (place.connect().is_some() || place.read()?.0.is_over()))
    })
}

/// Waits until the process that keeps a bag has come so far: it is started by a node, maybe another, which tells
/// nobody, but it shows in the bag's directory.
fn until_begun(place: &Place, is_so: impl Fn() -> Result<bool>) -> Result<()> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::fs::inotify::{CreateFlags, Reader, WatchFlags, add_watch, init};
    let failed = || format!("cannot watch {}", place.directory().display());
    let watched = init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).with_context(failed)?;
    let changes = WatchFlags::MODIFY | WatchFlags::MOVED_TO | WatchFlags::CREATE;
    add_watch(&watched, place.directory(), changes).with_context(failed)?;
    let begun = Instant::now();
    while !is_so()? {
        let left = PATIENCE.saturating_sub(begun.elapsed());
        let left = Timespec::try_from(left).context("a time to wait is too long")?;
        let changed = poll(&mut [PollFd::new(&watched, PollFlags::IN)], Some(&left));
        if changed.is_ok_and(|count| count == 0) {
            bail!("the keeper of bag {} does not begin; see the log of its node", place.id);
        }
        // Looked at once for all that has changed.
        let mut room = [std::mem::MaybeUninit::uninit(); 4096];
        let mut news = Reader::new(&watched, &mut room);
        while news.next().is_ok() {}
    }
    Ok(())
}

/// Where a bag is, and which of its members a process is, where there are several.
pub type TakenUp = (Place, Option<(Keep, usize)>);

/// The bag that a process was started for by its node, and which of several members it is. `None` if it was removed
/// where it was submitted.
pub fn taken_up(id: BagId, node: &str) -> Result<Option<TakenUp>> {
    let (own, keep) = mutirao_node::kept_bag(crate::membership::home()?.path(), node, id)?;
    let me = keep.members.iter().position(|member| member.name == node);
    let me = me.with_context(|| format!("{} is of a bag without a member `{node}`", own.display()))?;
    if me > 0 {
        let place = Place::of_member(keep.number, own);
        place.write_kept(&keep)?;
        return Ok(Some((place, Some((keep, me)))));
    }
    let place = match Place::numbered(keep.number)? {
        // Once the latest bag is removed, the next one gets its number.
        Some(place) if place.kept()?.is_some_and(|kept| kept.bag == id) => Some(place),
        _ => None,
    };
    Ok(place.map(|place| (place, Some((keep, me)).filter(|(keep, _)| keep.members.len() > 1))))
}
