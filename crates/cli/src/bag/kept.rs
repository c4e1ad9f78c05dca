//! Bags that nodes keep: handed over to them, and taken up by the processes that they start.

use super::member::{self, Wanted};
use super::place::Place;
use super::programs;
use super::sites;
use crate::list::ask;
use crate::output::remark;
use crate::sorted::sort;
use anyhow::{Context, Result, bail};
use mutirao::raw::{Options, Pool, Private, Slots};
use mutirao_bag::Bag;
use mutirao_wire::bag::{Keep, MEMBERS};
use mutirao_wire::query::{KeepHow, NodeRow, NodeState, Row, Topic};
use mutirao_wire::{BagId, NodeRef};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// A keeper is up, or its journal has grown, within so long.
const PATIENCE: Duration = Duration::from_secs(60);
/// Input files of a bag that come along to several members, together.
const INPUT_BYTES_MAX: u64 = 256 << 20;
/// What a bag's program consists of, that comes along to several members: the bag begins when all of it is there.
const PROGRAM_BYTES_MAX: u64 = 32 << 20;

/// The pool through a node of this machine, for questions and orders.
pub fn open_pool(node: Option<&str>) -> Result<Pool> {
    let options = Options {
        name: Some("mutirao".into()),
        node: node.map(str::to_owned),
        slots: Slots::ByHand,
        private: Private::Never,
        ..Options::default()
    };
    Ok(Pool::open(options)?)
}

/// Has a bag kept in the background: by this machine's node, or, where none runs, by a process of its own.
pub fn background(place: &Place, node: Option<&str>) -> Result<()> {
    let keep = by_node(place, node)?;
    if keep.is_none() && !place.read()?.0.settings().members.is_empty() {
        bail!("no node runs on this machine, so that none can keep the bag; see `mutirao up --help`");
    }
    remark!("mutirao: {}", super::show::keepers_text(keep.as_ref()));
    match keep {
        Some(_) => wait_for(place),
        None => super::detach(place, node),
    }
}

/// Hands a bag over to this machine's node and others; nothing where none runs.
pub fn by_node(place: &Place, node: Option<&str>) -> Result<Option<Keep>> {
    match open_pool(node) {
        Ok(pool) => {
            let keep = hand_over(place, &pool)?;
            pool.close();
            Ok(Some(keep))
        }
        Err(error)
            if matches!(
                error.downcast_ref(),
                Some(mutirao::Error::NoneRuns { .. } | mutirao::Error::NotRunning { .. })
            ) =>
        {
            Ok(None)
        }
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
            let submitted = submitted()?;
            let (name, members) = (submitted.settings().name.clone(), members(place, &submitted, pool)?);
            let bag = BagId(u128::from_le_bytes(mutirao_trust::random()?));
            (KeepHow::Begin, Keep { bag, number: place.id, name, members })
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
            Err(error) => remark!("mutirao: {error:#}"),
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
    let pool = open_pool(Some(place.member().unwrap_or(&keep.members[0].name)))?;
    let node = pool.node().id;
    match keep.members.iter().find(|member| member.id == node) {
        // The others hear of it from this one.
        Some(member) if member.id != keep.members[0].id => order(&pool, &keep, member, KeepHow::GoOn)?,
        _ => drop(hand_over(place, &pool)?),
    }
    pool.close();
    until_begun(place, || Ok(place.connect().is_some()))?;
    Ok(true)
}

/// Has all nodes that keep a bag, which was removed, forget it.
pub fn forget(pool: &Pool, keep: &Keep) {
    for member in &keep.members {
        if let Err(error) = order(pool, keep, member, KeepHow::Forget) {
            remark!("mutirao: what `{}` keeps of it stays there: {error:#}", member.name);
        }
    }
}

/// The nodes that are to keep a bag: this one, and two more if there are that take it and its files are not too many.
fn members(place: &Place, bag: &Bag, pool: &Pool) -> Result<Vec<NodeRef>> {
    let me = pool.node();
    let names = &bag.settings().members;
    // What came of it lies in the files of this machine, and would not come along.
    if bag.lives() > 0 {
        if names.len() != 1 {
            eprintln!("mutirao: the bag has begun on this machine and stays here");
        }
        return Ok(vec![me]);
    }
    if names.len() == 1 {
        return named(pool, names);
    }
    let alone = |why: &str| {
        if !names.is_empty() {
            bail!("{why}: several nodes cannot keep it");
        }
        remark!("mutirao: {why}");
        Ok(vec![me.clone()])
    };
    let size = |path: String| std::fs::metadata(path).map_or(0, |facts| facts.len());
    let program = programs::files(bag.settings()).map(str::to_owned);
    if program.map(size).sum::<u64>() > PROGRAM_BYTES_MAX {
        let most = PROGRAM_BYTES_MAX >> 20;
        return alone(&format!("its program has more than {most} MiB with its libraries and stays here"));
    }
    // Files that tasks find in place stay where they are.
    let wanted = if sites::mark(place, bag)?.is_some() { Wanted::Content } else { Wanted::All };
    if member::inputs(bag, wanted).into_iter().map(size).sum::<u64>() > INPUT_BYTES_MAX {
        let most = INPUT_BYTES_MAX >> 20;
        return alone(&format!("its input files have more than {most} MiB together and stay here"));
    }
    if !names.is_empty() {
        return named(pool, names);
    }
    let mut others = pool.nodes()?;
    others.retain(|row| row.node.id != me.id && row.node.name != me.name && row.state == NodeState::Up);
    sort(&mut others, |a, b| a.node.name.cmp(&b.node.name));
    others.dedup_by(|a, b| a.node.name == b.node.name);
    let host = |node: &NodeRef| node.addresses.first().map(std::net::SocketAddr::ip);
    let mut chosen = vec![me.clone()];
    let mut refusals = Vec::new();
    while chosen.len() < MEMBERS {
        let hosts: Vec<Option<IpAddr>> = chosen.iter().map(host).collect();
        // Rather one on a machine of its own.
        let next = others.iter().position(|row: &NodeRow| !hosts.contains(&host(&row.node)));
        let Some(next) = next.or((!others.is_empty()).then_some(0)) else { break };
        let node = others.remove(next).node;
        match would_keep(pool, &node) {
            Ok(()) => chosen.push(node),
            Err(error) => refusals.push(format!("{error:#}")),
        }
    }
    if chosen.len() == MEMBERS {
        return Ok(chosen);
    }
    refusals.iter().for_each(|refusal| remark!("mutirao: {refusal}"));
    alone("there are fewer than three nodes that would keep it")
}

/// The nodes of these names, this machine's first.
fn named(pool: &Pool, names: &[String]) -> Result<Vec<NodeRef>> {
    let me = pool.node();
    if !names.contains(&me.name) {
        bail!(
            "`{}` is not among the nodes that are to keep the bag, and a bag begins where it is submitted: name it \
             too, or submit the bag on one of them",
            me.name
        );
    }
    let rows = pool.nodes()?;
    let mut chosen = vec![me.clone()];
    for name in names.iter().filter(|name| **name != me.name) {
        let row = rows.iter().find(|row| row.node.name == *name && row.state == NodeState::Up);
        let row =
            row.with_context(|| format!("there is no node `{name}` that is up; see `mutirao nodes`"))?;
        would_keep(pool, &row.node)?;
        chosen.push(row.node.clone());
    }
    Ok(chosen)
}

/// Whether a node would keep a bag; an error that says why not.
fn would_keep(pool: &Pool, node: &NodeRef) -> Result<()> {
    let keep = Keep { bag: BagId(0), number: 0, name: String::new(), members: vec![node.clone()] };
    order(pool, &keep, node, KeepHow::Would)
}

/// Orders one node to keep a bag.
fn order(pool: &Pool, keep: &Keep, node: &NodeRef, how: KeepHow) -> Result<()> {
    let topic = Topic::Keep { keep: Box::new(keep.clone()), how };
    for row in ask(pool, topic, Some(node.id.to_string()))? {
        match row {
            Row::Done { .. } => return Ok(()),
            Row::Failed { text, .. } if how == KeepHow::Forget => bail!(text),
            Row::Failed { node, text } => bail!("node `{node}` does not keep the bag: {text}"),
            _ => {}
        }
    }
    bail!("node `{}` did not answer", node.name)
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
    let (mut bytes, mut since) = (0, Instant::now());
    loop {
        let looks = Instant::now();
        if is_so()? {
            return Ok(());
        }
        // That may have read a journal which grows long: no more than a fifth of the time goes into it.
        std::thread::sleep(looks.elapsed() * 4);
        let journal = std::fs::metadata(super::shared::journal_path(place.directory()));
        let there = journal.map_or(0, |facts| facts.len());
        if there != bytes {
            (bytes, since) = (there, Instant::now());
        }
        let left = PATIENCE.saturating_sub(since.elapsed());
        let left = Timespec::try_from(left).context("a time to wait is too long")?;
        let changed = poll(&mut [PollFd::new(&watched, PollFlags::IN)], Some(&left));
        if since.elapsed() >= PATIENCE && changed.is_ok() {
            bail!(
                "the keeper of bag {} has not come on for {} s; see the log of its node",
                place.id,
                PATIENCE.as_secs()
            );
        }
        // Looked at once for all that has changed.
        let mut room = [std::mem::MaybeUninit::uninit(); 4096];
        let mut news = Reader::new(&watched, &mut room);
        while news.next().is_ok() {}
    }
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
        // Mostly it says so already, and then no disk need have room for it.
        if place.kept().ok().flatten().as_ref() != Some(&keep) {
            place.write_kept(&keep)?;
        }
        return Ok(Some((place, Some((keep, me)))));
    }
    let place = match Place::numbered(keep.number)? {
        // Where an earlier day's directory was brought back, numbers are given once more.
        Some(place) if place.kept()?.is_some_and(|kept| kept.bag == id) => Some(place),
        _ => None,
    };
    Ok(place.map(|place| (place, Some((keep, me)).filter(|(keep, _)| keep.members.len() > 1))))
}
