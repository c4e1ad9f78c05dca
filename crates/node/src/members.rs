//! The bags that this node keeps or helps to keep: a process each, started by the node and again whenever it ends
//! before its bag is over, and what these processes say to those of other nodes, which is carried unread.
//!
//! A file for each, `bags/ID/member.json` in the node's directory, says so over restarts.

use crate::clients;
use crate::conn::ConnId;
use crate::context::{Context, ControlMessage, Done};
use crate::error::Error;
use core::time::Duration;
use mutirao_store::{read_limited, write_atomic};
use mutirao_wire::bag::{BAGS_A_NODE_MAX, Keep, LEADS_NO_MORE, MEMBERS, MemberBytes};
use mutirao_wire::query::{BagRow, KeepHow, Row};
use mutirao_wire::{BagId, NodeId, NodeRef, Tick, VisitId};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A member that ended is started again after so long at first, doubling up to the second.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// A member that ran for so long has not failed at once.
const RAN_WELL: Duration = Duration::from_secs(60);
/// A node that could not be reached is dialled again after so long.
const DIAL_AGAIN: Duration = Duration::from_millis(500);
/// Bytes that may wait on a connection before what members say is dropped: they say it again. Entries of one bag that
/// are under way to one member fill it by two thirds.
const QUEUED_MAX: usize = 1024 * 1024;
/// Messages that wait until a node is linked; the others are dropped: they are said again.
const FIRST_MAX: usize = 16;
/// What a member is told whose bag was removed.
const REMOVED: &str = "the bag was removed where it was submitted";
/// The file in a bag's directory that says who keeps it.
const FILE: &str = "member.json";
/// Longest file that is read.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// What is kept of a member over restarts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Kept {
    keep: Keep,
    /// Whose it is: a user of the pool, or `name@node`.
    owner: String,
    /// The bag is over: the member is started only when another says something.
    rests: bool,
    /// It was removed where it was submitted: nothing of it stays here either once its process has ended.
    forgotten: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Rests,
    Runs(Tick),
    /// It is to be started then.
    Waits(Tick),
}

struct Member {
    kept: Kept,
    state: State,
    failures: u32,
    /// Where it is heard.
    conn: Option<ConnId>,
}

impl Member {
    fn may_be_told(&self, (user, is_admin): &Sender) -> Result<(), String> {
        match *user == self.kept.owner || *is_admin {
            true => Ok(()),
            false => Err(format!("the bag is `{}`'s, not `{user}`'s", self.kept.owner)),
        }
    }
}

/// Who says something, and whether an administrator.
pub(crate) type Sender = (String, bool);

/// All members on this node.
pub(crate) struct Members {
    me: NodeId,
    /// The node's part of the state directory, and the whole of it.
    own: PathBuf,
    home: PathBuf,
    /// The base of the runtime directories.
    runtime: PathBuf,
    members: HashMap<BagId, Member>,
    /// Nodes that are being dialled: since when, and what is to be said to them first.
    dialled: HashMap<NodeId, (Tick, Vec<MemberBytes>)>,
}

impl Members {
    /// Reads which there are; they are started in the first turn.
    pub(crate) fn load(me: NodeId, own: &Path, home: &Path, runtime: &Path, now: Tick) -> Members {
        let (own, home, runtime) = (own.to_owned(), home.to_owned(), runtime.to_owned());
        let (members, dialled) = (HashMap::new(), HashMap::new());
        let mut all = Members { me, own, home, runtime, members, dialled };
        let entries = fs::read_dir(all.own.join("bags")).into_iter().flatten().flatten();
        for entry in entries.take(BAGS_A_NODE_MAX) {
            match all.read(&entry.path()) {
                Ok(kept) => {
                    let state = if kept.rests { State::Rests } else { State::Waits(now) };
                    all.members.insert(kept.keep.bag, Member { kept, state, failures: 0, conn: None });
                }
                Err(why) => tracing::warn!("{} is left alone: {why}", entry.path().display()),
            }
        }
        all
    }

    fn read(&self, directory: &Path) -> Result<Kept, String> {
        let kept = read(directory).map_err(|error| error.to_string())?;
        self.check(&kept.keep)?;
        if self.directory(kept.keep.bag) != directory {
            return Err("it is in the place of another bag".into());
        }
        Ok(kept)
    }

    fn check(&self, keep: &Keep) -> Result<(), String> {
        let count = keep.members.len();
        if ![1, MEMBERS].contains(&count) {
            return Err(format!("a bag has 1 or {MEMBERS} members, not {count}"));
        }
        let other = |i: usize| keep.members[..i].iter().any(|before| before.id == keep.members[i].id);
        if (0..count).any(other) || !keep.members.iter().any(|member| member.id == self.me) {
            return Err("this node is not one of the members, or one is named twice".into());
        }
        Ok(())
    }

    fn directory(&self, bag: BagId) -> PathBuf {
        directory_of(&self.own, bag)
    }

    /// Keeps a bag from now on, or wakes its member; `Err` says why not, and nothing was changed.
    pub(crate) fn keep(
        &mut self,
        ctx: &mut Context,
        keep: Keep,
        how: KeepHow,
        sender: &Sender,
    ) -> Result<(), String> {
        self.check(&keep)?;
        if how == KeepHow::Forget {
            return self.forget(ctx, keep.bag, sender);
        }
        if let Some(member) = self.members.get(&keep.bag) {
            if member.state == State::Rests && how != KeepHow::Would {
                self.wake(ctx, keep.bag);
            }
            return Ok(());
        }
        if how == KeepHow::GoOn {
            return Err("it does not know this bag; if its disk was lost, the bag has one member less".into());
        }
        if self.members.len() >= BAGS_A_NODE_MAX {
            return Err(format!("it has a part in {BAGS_A_NODE_MAX} bags already, as many as it may"));
        }
        if how == KeepHow::Would {
            return Ok(());
        }
        let bag = keep.bag;
        let kept = Kept { keep, owner: sender.0.clone(), rests: false, forgotten: false };
        self.write(&kept).map_err(|error| error.to_string())?;
        self.members.insert(bag, Member { kept, state: State::Rests, failures: 0, conn: None });
        self.start(ctx, bag);
        Ok(())
    }

    /// The bag is to be kept no longer.
    fn forget(&mut self, ctx: &mut Context, bag: BagId, sender: &Sender) -> Result<(), String> {
        let Some(member) = self.members.get_mut(&bag) else { return Ok(()) };
        member.may_be_told(sender)?;
        member.kept.forgotten = true;
        let (kept, conn) = (member.kept.clone(), member.conn);
        if member.state == State::Rests {
            self.remove(ctx, bag);
            return Ok(());
        }
        if let Some(conn) = conn {
            // It ends of that, and what is kept goes with it.
            clients::refuse(ctx, conn, REMOVED);
        }
        self.write(&kept).map_err(|error| error.to_string())
    }

    fn remove(&mut self, ctx: &Context, bag: BagId) {
        self.members.remove(&bag);
        let directory = self.directory(bag);
        ctx.jobs.run(move || {
            let removed = fs::remove_dir_all(&directory);
            Done::BagRemoved(removed.map_err(|error| format!("{}: {error}", directory.display())))
        });
    }

    /// A [`Row::Bag`] of each bag of a user, from this node called `from`.
    pub(crate) fn rows(&self, user: &str, from: &str) -> Vec<Row> {
        let own = self.members.values().filter(|member| member.kept.owner == user);
        let row = |member: &Member| BagRow {
            keep: member.kept.keep.clone(),
            from: from.to_owned(),
            over: member.state == State::Rests,
        };
        own.filter(|member| !member.kept.forgotten).map(|member| Row::Bag(row(member))).collect()
    }

    /// Whether somebody may ask something of a bag, or give it orders.
    pub(crate) fn may_visit(&self, bag: BagId, sender: &Sender) -> Result<(), String> {
        let member = self.members.get(&bag).ok_or("it does not keep this bag")?;
        member.may_be_told(sender)
    }

    /// Starts the process that answers for a bag to somebody at the node `home`.
    pub(crate) fn visit(&self, ctx: &Context, bag: BagId, visit: VisitId, home: NodeId) {
        let (bag_text, visit_text) = (bag.to_string(), BagId(visit.0).to_string());
        let command = self.command(ctx, &["visited", &bag_text, &visit_text, &home.to_string()]);
        let directory = self.directory(bag);
        ctx.jobs.run_alone("mutirao-visit", move || {
            if let Err(error) = run(command, &directory) {
                tracing::warn!(%bag, "nothing can be started that answers for a bag: {error}");
            }
            Done::VisitEnded { visit }
        });
    }

    /// This program, as a process for a bag.
    fn command(&self, ctx: &Context, args: &[&str]) -> Command {
        let mut command = Command::new("/proc/self/exe");
        command
            .args(["--node", &ctx.me.name])
            .args(args)
            .env("MUTIRAO_HOME", &self.home)
            .env("MUTIRAO_RUNTIME_DIR", &self.runtime)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            // What ends the node by a signal to its group leaves it to say its last words.
            .process_group(0);
        command
    }

    fn write(&self, kept: &Kept) -> Result<(), Error> {
        let directory = self.directory(kept.keep.bag);
        let mut made = DirBuilder::new();
        made.recursive(true).mode(0o700);
        made.create(&directory).map_err(Error::file("cannot make", &directory))?;
        let text = serde_json::to_vec_pretty(kept).unwrap_or_default();
        let path = directory.join(FILE);
        write_atomic(&path, &text, 0o600)
            .map_err(|error| Error::file("cannot write", &path)(io::Error::other(error)))
    }

    /// Starts the member of a bag that was over.
    fn wake(&mut self, ctx: &mut Context, bag: BagId) {
        let Some(member) = self.members.get_mut(&bag) else { return };
        member.kept.rests = false;
        let kept = member.kept.clone();
        if let Err(error) = self.write(&kept) {
            tracing::warn!("bag {bag} is not kept over the next restart of this node: {error}");
        }
        self.start(ctx, bag);
    }

    fn start(&mut self, ctx: &mut Context, bag: BagId) {
        let directory = self.directory(bag);
        let command = self.command(ctx, &["keeper", &bag.to_string()]);
        let Some(member) = self.members.get_mut(&bag) else { return };
        member.state = State::Runs(ctx.now);
        ctx.jobs
            .run_alone("mutirao-member", move || Done::MemberEnded { bag, how: run(command, &directory) });
    }

    /// The process of a member has ended.
    pub(crate) fn ended(&mut self, ctx: &Context, bag: BagId, how: io::Result<Option<i32>>) {
        let now = ctx.now;
        let Some(member) = self.members.get_mut(&bag) else { return };
        let State::Runs(since) = member.state else { return };
        if member.kept.forgotten {
            return self.remove(ctx, bag);
        }
        match how {
            Ok(Some(0)) => {
                tracing::debug!(%bag, "a bag is over");
                (member.state, member.failures, member.kept.rests) = (State::Rests, 0, true);
                let kept = member.kept.clone();
                if let Err(error) = self.write(&kept) {
                    tracing::warn!("that bag {bag} is over is not kept: {error}");
                }
                return;
            }
            Ok(Some(code)) if code == i32::from(LEADS_NO_MORE) => {
                member.state = State::Waits(now);
                return;
            }
            Ok(code) => {
                let code = code.map_or_else(|| "by a signal".to_owned(), |code| format!("with code {code}"));
                tracing::warn!(%bag, "the keeper of a bag ended {code}; its log says why");
            }
            Err(error) => tracing::warn!(%bag, "the keeper of a bag cannot be started: {error}"),
        }
        member.failures = if now - since >= RAN_WELL { 0 } else { member.failures.saturating_add(1) };
        let wait = AGAIN.0.saturating_mul(1 << member.failures.min(16)) / 2;
        member.state = State::Waits(now + wait.min(AGAIN.1));
    }

    pub(crate) fn deadline(&self) -> Option<Tick> {
        let due = |member: &Member| if let State::Waits(due) = member.state { Some(due) } else { None };
        self.members.values().filter_map(due).min()
    }

    pub(crate) fn time(&mut self, ctx: &mut Context) {
        let due = |(bag, member): (&BagId, &Member)| {
            matches!(member.state, State::Waits(due) if due <= ctx.now).then_some(*bag)
        };
        let due: Vec<BagId> = self.members.iter().filter_map(due).collect();
        due.into_iter().for_each(|bag| self.start(ctx, bag));
    }

    /// A member speaks from now on; false if this node has no such bag.
    pub(crate) fn came(&mut self, bag: BagId, conn: ConnId) -> bool {
        let kept = self.members.get_mut(&bag).filter(|member| !member.kept.forgotten);
        let Some(member) = kept else { return false };
        member.conn = Some(conn);
        true
    }

    /// It speaks no more.
    pub(crate) fn went(&mut self, bag: BagId, conn: ConnId) {
        if let Some(member) = self.members.get_mut(&bag).filter(|member| member.conn == Some(conn)) {
            member.conn = None;
        }
    }

    /// A member here speaks to another. The node to dial, if it is not linked.
    pub(crate) fn say(&mut self, ctx: &mut Context, bag: BagId, message: MemberBytes) -> Option<NodeRef> {
        let member = self.members.get(&bag)?;
        let to = member.kept.keep.members.iter().find(|node| node.id == message.member)?;
        if message.bag != bag || to.id == self.me {
            return None;
        }
        let Some(conn) = ctx.peers.get(&to.id).and_then(|peer| peer.control) else {
            let (since, first) = self.dialled.entry(to.id).or_insert((Tick(0), Vec::new()));
            if first.len() < FIRST_MAX {
                first.push(message);
            }
            if ctx.now - *since < DIAL_AGAIN {
                return None;
            }
            *since = ctx.now;
            return Some(to.clone());
        };
        if ctx.conns.queued(conn) <= QUEUED_MAX {
            ctx.send_control(to.id, ControlMessage::Member(message.into()));
        }
        None
    }

    /// A member elsewhere speaks to the one here: where it is to be heard, and what it hears.
    pub(crate) fn hear(
        &mut self,
        ctx: &mut Context,
        from: NodeId,
        message: MemberBytes,
    ) -> Option<(ConnId, MemberBytes)> {
        let member = self.members.get(&message.bag)?;
        if !member.kept.keep.members.iter().any(|node| node.id == from) {
            return None;
        }
        if member.state == State::Rests {
            // Somebody has not heard yet that it is over.
            self.wake(ctx, message.bag);
            return None;
        }
        let conn = member.conn.filter(|conn| ctx.conns.queued(*conn) <= QUEUED_MAX)?;
        Some((conn, MemberBytes { member: from, ..message }))
    }

    /// The node could not be reached.
    pub(crate) fn missed(&mut self, node: NodeId) {
        if let Some((_, first)) = self.dialled.get_mut(&node) {
            first.clear();
        }
    }

    /// Whether a member here has something to say to that node, which is not linked.
    pub(crate) fn misses(&self, node: NodeId) -> bool {
        self.dialled.contains_key(&node)
    }

    /// Another node is met: where it is now, its bags' members find it later.
    pub(crate) fn met(&mut self, ctx: &mut Context, node: &NodeRef) {
        for message in self.dialled.remove(&node.id).map(|(_, first)| first).unwrap_or_default() {
            ctx.send_control(node.id, ControlMessage::Member(message.into()));
        }
        let mut moved = Vec::new();
        for member in self.members.values_mut() {
            let known = member.kept.keep.members.iter_mut().find(|known| known.id == node.id);
            if let Some(known) = known.filter(|known| known.addresses != node.addresses) {
                *known = node.clone();
                moved.push(member.kept.clone());
            }
        }
        for kept in moved {
            if let Err(error) = self.write(&kept) {
                tracing::warn!("where {} is now is not kept: {error}", node.name);
            }
        }
    }

    /// Whether a member here talks to one there.
    pub(crate) fn uses(&self, peer: NodeId) -> bool {
        let talks = |member: &Member| {
            member.conn.is_some() && member.kept.keep.members.iter().any(|node| node.id == peer)
        };
        self.members.values().any(talks)
    }
}

/// The directory of a bag below that of its node.
fn directory_of(node: &Path, bag: BagId) -> PathBuf {
    node.join("bags").join(bag.to_string())
}

fn read(directory: &Path) -> Result<Kept, Error> {
    let path = directory.join(FILE);
    let read = || -> io::Result<Kept> {
        let bytes = read_limited(&path, FILE_BYTES_MAX).map_err(io::Error::other)?;
        Ok(serde_json::from_slice(&bytes)?)
    };
    read().map_err(Error::file("cannot read", &path))
}

/// For the process that the node `name` has started to keep a bag, with the state of nodes in `home`: the directory
/// it has there, and who keeps the bag.
pub fn kept_bag(home: &Path, name: &str, bag: BagId) -> Result<(PathBuf, Keep), Error> {
    let directory = directory_of(&home.join("nodes").join(name), bag);
    let keep = read(&directory)?.keep;
    Ok((directory, keep))
}

/// Runs a member to its end; its exit code, if it has one.
fn run(mut command: Command, directory: &Path) -> io::Result<Option<i32>> {
    let log = OpenOptions::new().create(true).append(true).mode(0o600).open(directory.join("log"))?;
    Ok(command.stderr(log).spawn()?.wait()?.code())
}
