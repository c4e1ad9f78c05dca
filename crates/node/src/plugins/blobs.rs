//! Blobs that applications offer to the workers of their leases: at the home of an application those that it offers,
//! at a lender those that workers wait for, and those that it may hand on. The other way, a lender keeps what a worker
//! has made until the program has let go of it.
//!
//! Knowing a hash is not the right to read a blob. A home gives sources to lenders of the application's leases only,
//! and with each the ticket that holders ask for.

use super::ingest::{Content, FileKey};
use super::{Arrival, Fetch, Intake, Job, OFFERS_MAX, Plugins, spread};
use crate::context::{Action, ConnId, Context};
use mutirao_store::{BlobStore, Pin};
use mutirao_wire::plugin::{HaveItem, Item, NoSource, PluginMessage, ReleaseBlob, Ticket};
use mutirao_wire::worker::LINE_BLOBS_MAX;
use mutirao_wire::{AppId, BlobHash, NodeId, NodeRef};
use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::time::SystemTime;

/// Blobs that the programs of one node offer, those that nobody uses just now among them.
const OFFERED_MAX: usize = 4096;
/// Tickets that a lender remembers: without one it asks the home again.
const TICKETS_MAX: usize = 16 * 1024;
/// Files that one node keeps for workers.
const KEPT_MAX: usize = 4096;
/// Blobs that are being fetched at a time; others wait for their turn.
const FETCHED_AT_ONCE: usize = 4;

/// A blob of an application.
pub type Key = (AppId, BlobHash);

/// What this node knows of blobs.
#[derive(Debug, Default)]
pub struct Blobs {
    /// As a home.
    offered: HashMap<Key, Offered>,
    /// As a lender: those to which homes have given it the right.
    tickets: HashMap<Key, Ticket>,
    /// As a lender: what workers had it keep until their program lets go of it.
    kept: HashMap<Key, Offered>,
    /// As a home: programs that wait for what such a worker had its node keep.
    fetching: HashMap<Key, Vec<Waits>>,
    /// The lines of workers that wait for each.
    waiting: HashMap<Key, Vec<ConnId>>,
    /// To be fetched, each with the home to ask.
    queue: VecDeque<(Key, NodeId)>,
    /// Leases of each application that have asked for something.
    leases: HashMap<AppId, BTreeSet<u64>>,
}

#[derive(Debug)]
struct Offered {
    ticket: Ticket,
    /// How often it is offered now. When that is never it may be evicted, and who has it is remembered.
    times: u32,
    pin: Option<Pin>,
}

impl Offered {
    fn new(bytes: u64) -> Result<Offered, String> {
        let word = crate::sys::random().map_err(|error| error.to_string())?;
        Ok(Offered { ticket: Ticket { word, bytes }, times: 0, pin: None })
    }
}

impl Blobs {
    /// What a home gives to those who may read one.
    pub fn ticket(&self, key: Key) -> Option<Ticket> {
        self.offered.get(&key).map(|offered| offered.ticket)
    }

    /// Whether this word gives the right to read one; its length then.
    pub fn right(&self, key: Key, word: [u8; 16]) -> Option<u64> {
        let offered = self.offered.get(&key).into_iter().chain(self.kept.get(&key));
        let mut tickets = offered.map(|offered| offered.ticket).chain(self.tickets.get(&key).copied());
        tickets.find(|ticket| ticket.word == word).map(|ticket| ticket.bytes)
    }
}

/// A program that waits for what a lender keeps.
#[derive(Debug, Clone, Copy)]
struct Waits {
    client: ConnId,
    number: u32,
}

/// Who had a file taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Giver {
    /// A program, to offer it.
    Program,
    /// A worker, to have it kept.
    Worker,
}

/// A file that was taken in, or why not.
#[derive(Debug)]
pub struct BlobTaken {
    from: Giver,
    /// The program's connection, or the worker's line.
    conn: ConnId,
    app: AppId,
    number: u32,
    key: FileKey,
    is_settled: bool,
    result: Result<Pin, String>,
}

/// As the home of programs.
impl Plugins {
    /// A program offers a file to its workers; `Action::BlobOffered` follows.
    pub fn offer_blob(&mut self, ctx: &mut Context, client: ConnId, app: AppId, number: u32, file: OwnedFd) {
        self.take_blob(ctx, Giver::Program, (client, app, number), file);
    }

    /// Takes a file in, unless it is known.
    fn take_blob(
        &mut self,
        ctx: &mut Context,
        from: Giver,
        (conn, app, number): (ConnId, AppId, u32),
        file: OwnedFd,
    ) {
        let file = File::from(file);
        let cache_mib = ctx.config.cache_mib;
        let refusal = match FileKey::of(&file) {
            Err(error) => Err(error.to_string()),
            Ok(key) if key.bytes() > cache_mib.saturating_mul(1024 * 1024) => Err(format!(
                "it is larger than the cache of node `{}` (`cache_mib = {cache_mib}`)",
                ctx.me.name
            )),
            Ok(_) if self.offers >= OFFERS_MAX => {
                Err(format!("{OFFERS_MAX} files are being taken in already; try again"))
            }
            Ok(key) => Ok(key),
        };
        let key = match refusal {
            Ok(key) => key,
            Err(why) => return self.blob_answer(ctx, from, (conn, number), Err(why)),
        };
        let store = self.shelf.place().store.clone();
        if let Some(pin) = self.known.hash(&key).and_then(|hash| store.pin(hash).ok()) {
            return self.blob_pinned(ctx, from, (conn, app, number), pin, key.bytes());
        }
        self.make_room(ctx, key.bytes());
        self.offers += 1;
        ctx.jobs.run(move || {
            let is_settled = key.is_settled(SystemTime::now());
            let result = take_in(&store, &file, key);
            Job::BlobTaken(BlobTaken { from, conn, app, number, key, is_settled, result }).into()
        });
    }

    /// A file was taken in.
    pub(super) fn blob_taken(&mut self, ctx: &mut Context, taken: BlobTaken) {
        self.offers -= 1;
        let BlobTaken { from, conn, app, number, key, is_settled, result } = taken;
        // What a worker has kept goes with its playpen.
        if let Ok(pin) = &result
            && is_settled
            && from == Giver::Program
        {
            self.known.learn(vec![(key, Content { hash: pin.hash(), facts: None })]);
        }
        // One that went meanwhile wants nothing.
        if !ctx.conns.exists(conn) {
            return;
        }
        match result {
            Ok(pin) => self.blob_pinned(ctx, from, (conn, app, number), pin, key.bytes()),
            Err(why) => self.blob_answer(ctx, from, (conn, number), Err(why)),
        }
    }

    fn blob_pinned(
        &mut self,
        ctx: &mut Context,
        from: Giver,
        (conn, app, number): (ConnId, AppId, u32),
        pin: Pin,
        bytes: u64,
    ) {
        let blob = match from {
            Giver::Program => self.offered_blob(ctx, app, pin, bytes),
            Giver::Worker => self.kept_blob(app, pin, bytes),
        };
        self.blob_answer(ctx, from, (conn, number), blob);
    }

    fn blob_answer(
        &mut self,
        ctx: &mut Context,
        from: Giver,
        (conn, number): (ConnId, u32),
        blob: Result<(BlobHash, Ticket), String>,
    ) {
        ctx.actions.push(match from {
            Giver::Program => {
                let blob = blob.map(|(hash, ticket)| (hash, ticket.bytes));
                Action::BlobOffered { client: conn, number, blob }
            }
            Giver::Worker => Action::BlobKept { line: conn, number, blob },
        });
    }

    fn offered_blob(
        &mut self,
        ctx: &mut Context,
        app: AppId,
        pin: Pin,
        bytes: u64,
    ) -> Result<(BlobHash, Ticket), String> {
        let hash = pin.hash();
        if !self.blobs.offered.contains_key(&(app, hash)) {
            if self.blobs.offered.len() >= OFFERED_MAX {
                self.forget_offered(ctx, |_, offered| offered.times == 0);
            }
            if self.blobs.offered.len() >= OFFERED_MAX {
                return Err(format!(
                    "the programs of node `{}` offer {OFFERED_MAX} files already",
                    ctx.me.name
                ));
            }
            self.blobs.offered.insert((app, hash), Offered::new(bytes)?);
        }
        let offered = self.blobs.offered.get_mut(&(app, hash)).ok_or("it is gone")?;
        offered.times += 1;
        offered.pin = Some(pin);
        let ticket = offered.ticket;
        let origin = ctx.me.clone();
        self.deal(ctx, spread::Input::Keep { item: Item::Blob { app, hash }, origin });
        Ok((hash, ticket))
    }

    /// The program no longer needs a blob that it has offered.
    pub fn withdraw_blob(&mut self, app: AppId, hash: BlobHash) {
        let Some(offered) = self.blobs.offered.get_mut(&(app, hash)) else { return };
        offered.times = offered.times.saturating_sub(1);
        if offered.times == 0 {
            offered.pin = None;
        }
    }

    /// A program is gone, and what it offered with it.
    pub fn app_gone(&mut self, ctx: &mut Context, app: AppId) {
        self.forget_offered(ctx, |(whose, _), _| *whose == app);
        self.blobs.fetching.retain(|(whose, _), _| *whose != app);
        self.drop_arrivals(app);
    }

    /// A program wants what the worker of its lease at `lender` had kept there; `Action::BlobFetched` follows.
    pub fn fetch_kept(
        &mut self,
        ctx: &mut Context,
        (client, app, number): (ConnId, AppId, u32),
        lender: &NodeRef,
        hash: BlobHash,
        ticket: Ticket,
    ) {
        let (key, item) = ((app, hash), Item::Blob { app, hash });
        let answer = |result| Action::BlobFetched { client, number, result };
        if lender.id == ctx.me.id {
            let is_right = self.blobs.right(key, ticket.word).is_some();
            let missing = || Err("its node does not keep it any more".to_owned());
            let result = if is_right { self.opened(hash) } else { missing() };
            return ctx.actions.push(answer(result));
        }
        let cache_mib = ctx.config.cache_mib;
        if ticket.bytes > cache_mib.saturating_mul(1024 * 1024) {
            let why =
                format!("it is larger than the cache of node `{}` (`cache_mib = {cache_mib}`)", ctx.me.name);
            return ctx.actions.push(answer(Err(why)));
        }
        self.blobs.fetching.entry(key).or_default().push(Waits { client, number });
        if self.arrivals.contains_key(&item) {
            return;
        }
        self.make_room(ctx, ticket.bytes);
        let mut steps = Vec::new();
        let fetch = Fetch::of_kept(ctx.now, lender.clone(), hash, &mut steps);
        self.arrivals.insert(item, Arrival { fetch, intake: Intake::default(), ticket: Some(ticket) });
        self.carry_out(ctx, item, steps);
    }

    /// A program does not need any more what the worker of its lease at `lender` had kept there.
    pub fn drop_kept(&mut self, ctx: &mut Context, app: AppId, lender: NodeId, hash: BlobHash) {
        if lender == ctx.me.id {
            self.release_kept((app, hash));
        } else {
            ctx.send_control(lender, PluginMessage::from(ReleaseBlob { app, hash }));
        }
    }

    fn forget_offered(&mut self, ctx: &mut Context, is_to_go: impl Fn(&Key, &Offered) -> bool) {
        let going = self.blobs.offered.iter().filter(|(key, offered)| is_to_go(key, offered));
        let going: Vec<Key> = going.map(|(key, _)| *key).collect();
        for (app, hash) in going {
            self.blobs.offered.remove(&(app, hash));
            self.deal(ctx, spread::Input::Forget(Item::Blob { app, hash }));
        }
    }

    /// Whether a program here offers it now.
    pub fn offers_blob(&self, app: AppId, hash: BlobHash) -> bool {
        self.blobs.offered.get(&(app, hash)).is_some_and(|offered| offered.times > 0)
    }

    /// Tells a lender that it cannot have a blob.
    pub fn refuse_blob(&mut self, ctx: &mut Context, lender: NodeId, item: Item, why: &str) {
        ctx.send_control(lender, PluginMessage::from(NoSource { item, why: why.to_owned() }));
    }
}

/// As a lender.
impl Plugins {
    /// The worker of a lease of an application at `home` asks, on its line, for a blob; `Action::BlobHere` follows.
    /// False if it asks for too many at a time.
    pub fn need_blob(
        &mut self,
        ctx: &mut Context,
        line: ConnId,
        (serial, app, home): (u64, AppId, &NodeRef),
        hash: BlobHash,
    ) -> bool {
        let key = (app, hash);
        self.blobs.leases.entry(app).or_default().insert(serial);
        if home.id == ctx.me.id {
            let result = match self.offers_blob(app, hash) {
                true => self.opened(hash),
                false => Err("its program does not offer it".to_owned()),
            };
            ctx.actions.push(Action::BlobHere { line, hash, result });
            return true;
        }
        if self.blobs.tickets.contains_key(&key)
            && let Ok(file) = self.opened(hash)
        {
            ctx.actions.push(Action::BlobHere { line, hash, result: Ok(file) });
            return true;
        }
        if self.blobs.waiting.values().flatten().filter(|other| **other == line).count() >= LINE_BLOBS_MAX {
            return false;
        }
        self.blobs.waiting.entry(key).or_default().push(line);
        if let Some(arrival) = self.arrivals.get_mut(&Item::Blob { app, hash }) {
            arrival.fetch.also_for(home.id);
        } else if !self.blobs.queue.iter().any(|(waiting, _)| *waiting == key) {
            self.blobs.queue.push_back((key, home.id));
            self.fetch_blobs(ctx);
        }
        true
    }

    /// The leases of an application are held through this home from now on: what is on its way is asked for there.
    pub fn home_moved(&mut self, ctx: &mut Context, app: AppId, home: NodeId) {
        if home == ctx.me.id {
            let awaited = self.blobs.waiting.keys().copied().filter(|(whose, _)| *whose == app);
            for key in awaited.collect::<Vec<_>>() {
                self.arrivals.remove(&Item::Blob { app, hash: key.1 });
                self.blob_failed(ctx, key, "its program goes on here, and does not offer it");
            }
            return;
        }
        let queued = self.blobs.queue.iter_mut().filter(|((whose, _), _)| *whose == app);
        queued.for_each(|(_, asked)| *asked = home);
        for item in self.under_way() {
            if matches!(item, Item::Blob { app: whose, .. } if whose == app) {
                self.with_fetch(ctx, item, |fetch, now, steps| fetch.moved(now, home, steps));
            }
        }
    }

    /// Begins to fetch what waits, as far as that may be.
    fn fetch_blobs(&mut self, ctx: &mut Context) {
        let is_blob = |item: &&Item| matches!(item, Item::Blob { .. });
        while self.arrivals.keys().filter(is_blob).count() < FETCHED_AT_ONCE {
            let Some(((app, hash), home)) = self.blobs.queue.pop_front() else { return };
            if !self.blobs.waiting.contains_key(&(app, hash)) {
                continue;
            }
            let (item, mut steps) = (Item::Blob { app, hash }, Vec::new());
            let fetch = Fetch::of_blob(ctx.now, home, hash, &mut steps);
            self.arrivals.insert(item, Arrival { fetch, intake: Intake::default(), ticket: None });
            self.carry_out(ctx, item, steps);
        }
    }

    /// The home has named a source, and given the right. Whether the blob is still to be fetched from there.
    pub(super) fn ticket_came(
        &mut self,
        ctx: &mut Context,
        home: NodeId,
        item: Item,
        hash: BlobHash,
        ticket: Option<Ticket>,
    ) -> bool {
        let Some(arrival) = self.arrivals.get_mut(&item).filter(|arrival| arrival.fetch.awaits_source(home))
        else {
            return false;
        };
        let Some(ticket) = ticket else { return false };
        arrival.ticket = Some(ticket);
        let is_missing = !arrival.intake.pin_known(&self.shelf.place().store, [hash].into_iter()).is_empty();
        let cache_mib = ctx.config.cache_mib;
        if !is_missing {
            self.with_fetch(ctx, item, |fetch, _, steps| fetch.here_already(steps));
            return false;
        }
        if ticket.bytes > cache_mib.saturating_mul(1024 * 1024) {
            let why =
                format!("it is larger than the cache of node `{}` (`cache_mib = {cache_mib}`)", ctx.me.name);
            self.with_fetch(ctx, item, |fetch, _, steps| fetch.fail(why, steps));
            return false;
        }
        self.make_room(ctx, ticket.bytes);
        true
    }

    /// A blob is here, and those who gave the right to it are told.
    pub(super) fn blob_came(&mut self, ctx: &mut Context, key: Key, homes: Vec<NodeId>) {
        let item = Item::Blob { app: key.0, hash: key.1 };
        // Pinned until those who wait have opened it.
        let arrival = self.arrivals.remove(&item);
        for Waits { client, number } in self.blobs.fetching.remove(&key).unwrap_or_default() {
            let result = self.opened(key.1);
            ctx.actions.push(Action::BlobFetched { client, number, result });
        }
        if let Some(ticket) = arrival.as_ref().and_then(|arrival| arrival.ticket)
            && !homes.is_empty()
        {
            if self.blobs.tickets.len() >= TICKETS_MAX {
                self.blobs.tickets.clear();
            }
            self.blobs.tickets.insert(key, ticket);
        }
        for home in homes {
            ctx.send_control(home, PluginMessage::from(HaveItem { item }));
        }
        for line in self.blobs.waiting.remove(&key).unwrap_or_default() {
            let result = self.opened(key.1);
            ctx.actions.push(Action::BlobHere { line, hash: key.1, result });
        }
        self.fetch_blobs(ctx);
    }

    /// A blob cannot be had.
    pub(super) fn blob_failed(&mut self, ctx: &mut Context, key: Key, why: &str) {
        for Waits { client, number } in self.blobs.fetching.remove(&key).unwrap_or_default() {
            ctx.actions.push(Action::BlobFetched { client, number, result: Err(why.to_owned()) });
        }
        for line in self.blobs.waiting.remove(&key).unwrap_or_default() {
            ctx.actions.push(Action::BlobHere { line, hash: key.1, result: Err(why.to_owned()) });
        }
        self.fetch_blobs(ctx);
    }

    /// The worker of a lease wants a file kept until its program lets go of it; `Action::BlobKept` follows.
    pub fn keep_blob(
        &mut self,
        ctx: &mut Context,
        line: ConnId,
        (serial, app): (u64, AppId),
        number: u32,
        file: OwnedFd,
    ) {
        self.blobs.leases.entry(app).or_default().insert(serial);
        self.take_blob(ctx, Giver::Worker, (line, app, number), file);
    }

    fn kept_blob(&mut self, app: AppId, pin: Pin, bytes: u64) -> Result<(BlobHash, Ticket), String> {
        let hash = pin.hash();
        if self.blobs.kept.len() >= KEPT_MAX {
            return Err(format!("its node keeps {KEPT_MAX} files for programs already"));
        }
        let kept = match self.blobs.kept.entry((app, hash)) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(fresh) => fresh.insert(Offered::new(bytes)?),
        };
        kept.times += 1;
        kept.pin = Some(pin);
        Ok((hash, kept.ticket))
    }

    /// What a worker had kept is not needed any more.
    pub fn release_kept(&mut self, key: Key) {
        if let Some(kept) = self.blobs.kept.get_mut(&key) {
            kept.times = kept.times.saturating_sub(1);
            if kept.times == 0 {
                self.blobs.kept.remove(&key);
            }
        }
    }

    fn opened(&self, hash: BlobHash) -> Result<File, String> {
        self.shelf.place().store.open_blob(hash).map_err(|error| error.to_string())
    }

    /// A worker is no more: nobody waits on its line.
    pub fn line_gone(&mut self, line: ConnId) {
        self.blobs.waiting.retain(|_, lines| {
            lines.retain(|other| *other != line);
            !lines.is_empty()
        });
    }

    /// A lease is over. With the last one of its application all rights that came with it are.
    pub fn lease_gone(&mut self, ctx: &mut Context, serial: u64) {
        let Some((&app, leases)) = self.blobs.leases.iter_mut().find(|(_, leases)| leases.contains(&serial))
        else {
            return;
        };
        leases.remove(&serial);
        if !leases.is_empty() {
            return;
        }
        self.blobs.leases.remove(&app);
        self.blobs.tickets.retain(|(whose, _), _| *whose != app);
        self.blobs.waiting.retain(|(whose, _), _| *whose != app);
        self.blobs.queue.retain(|((whose, _), _)| *whose != app);
        self.blobs.kept.retain(|(whose, _), _| *whose != app);
        self.drop_arrivals(app);
        self.fetch_blobs(ctx);
    }

    /// Gives up what is on its way for an application and nobody waits for.
    fn drop_arrivals(&mut self, app: AppId) {
        let blobs = &self.blobs;
        let is_awaited = |key: &Key| blobs.waiting.contains_key(key) || blobs.fetching.contains_key(key);
        self.arrivals.retain(|item, _| match item {
            Item::Blob { app: whose, hash } => *whose != app || is_awaited(&(app, *hash)),
            Item::Plugin(_) => true,
        });
    }
}

/// Copies a file into the store. Blocks.
fn take_in(store: &BlobStore, file: &File, key: FileKey) -> Result<Pin, String> {
    let hash = store.import_file(file, false).map_err(|error| error.to_string())?;
    if FileKey::of(file).ok() != Some(key) {
        return Err("it was changed while it was read".into());
    }
    store.pin(hash).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::tests::{Other, context, node};
    use mio::Poll;
    use mutirao_wire::frame::Header;
    use mutirao_wire::kind::Kind;
    use mutirao_wire::plugin::{BlobGet, Source};
    use std::time::{Duration, Instant};

    const APP: AppId = AppId(1);

    fn wait(ctx: &mut Context, plugins: &mut Plugins, mut is_there: impl FnMut(&mut Context) -> bool) {
        let begun = Instant::now();
        while !is_there(ctx) {
            assert!(begun.elapsed() < Duration::from_secs(20), "it did not happen");
            match ctx.jobs.next_done() {
                Some(crate::context::Done::Plugins(done)) => plugins.done(ctx, done),
                _ => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    /// A node whose program offers a blob of 100,000 bytes.
    fn offered(ctx: &mut Context, directory: &std::path::Path) -> (Plugins, ConnId, BlobHash) {
        let mut plugins = Plugins::new(ctx).unwrap();
        let (client, _program) = Other::connect(ctx);
        let path = directory.join("file");
        std::fs::write(&path, vec![7; 100_000]).unwrap();
        plugins.offer_blob(ctx, client, APP, 1, File::open(&path).unwrap().into());
        wait(ctx, &mut plugins, |ctx| !ctx.actions.is_empty());
        match ctx.actions.pop() {
            Some(Action::BlobOffered { number: 1, blob: Ok((hash, 100_000)), .. }) => (plugins, client, hash),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_hash_alone_gives_no_right_to_a_blob() {
        let (directory, poll) = (tempfile::tempdir().unwrap(), Poll::new().unwrap());
        let mut ctx = context(&poll, directory.path());
        let (mut plugins, _, hash) = offered(&mut ctx, directory.path());
        let ticket = plugins.blobs.ticket((APP, hash)).unwrap();
        let mut wrong = ticket.word;
        wrong[0] ^= 1;
        let (conn, mut asker) = Other::connect(&mut ctx);
        let attempts =
            [(APP, None), (APP, Some(wrong)), (AppId(2), Some(ticket.word)), (APP, Some(ticket.word))];
        for (place, (app, word)) in attempts.into_iter().enumerate() {
            let item = Item::Blob { app, hash };
            let get = PluginMessage::from(BlobGet {
                transfer: place as u32,
                item,
                hash,
                word,
                offset: 0,
                bytes: u64::MAX,
            });
            let mut frame = Vec::new();
            get.put(&mut frame);
            let (head, body) = frame.split_first_chunk().unwrap();
            plugins.data_frame(&mut ctx, conn, node(2).id, &Header::from_bytes(head), body);
            let mut frames = Vec::new();
            wait(&mut ctx, &mut plugins, |ctx| {
                frames.extend(asker.frames(ctx));
                !frames.is_empty()
            });
            let kind = if place == 3 { Kind::BlobChunk } else { Kind::BlobMissing };
            assert_eq!(frames[0].0.kind.get(), kind as u16, "attempt {place}");
        }
    }

    #[test]
    fn what_is_withdrawn_or_of_another_program_is_not_handed_to_a_worker() {
        let (directory, poll) = (tempfile::tempdir().unwrap(), Poll::new().unwrap());
        let mut ctx = context(&poll, directory.path());
        let (mut plugins, client, hash) = offered(&mut ctx, directory.path());
        let (me, (line, _worker)) = (ctx.me.clone(), Other::connect(&mut ctx));
        let ask = |plugins: &mut Plugins, ctx: &mut Context, app| {
            assert!(plugins.need_blob(ctx, line, (1, app, &me), hash));
            match ctx.actions.pop() {
                Some(Action::BlobHere { result, .. }) => result.is_ok(),
                other => panic!("{other:?}"),
            }
        };
        assert!(ask(&mut plugins, &mut ctx, APP));
        assert!(!ask(&mut plugins, &mut ctx, AppId(2)));
        // Offered twice, it is to be withdrawn twice. It is known, and not read again, once its file has settled.
        let again = File::open(directory.path().join("file")).unwrap();
        plugins.offer_blob(&mut ctx, client, APP, 2, again.into());
        wait(&mut ctx, &mut plugins, |ctx| ctx.actions.pop().is_some());
        plugins.withdraw_blob(APP, hash);
        assert!(ask(&mut plugins, &mut ctx, APP));
        plugins.withdraw_blob(APP, hash);
        assert!(!ask(&mut plugins, &mut ctx, APP));
        plugins.app_gone(&mut ctx, APP);
        assert!(plugins.blobs.offered.is_empty());
    }

    #[test]
    fn a_lender_asks_once_for_all_its_workers_and_has_no_right_left_when_its_leases_are_over() {
        let (directory, poll) = (tempfile::tempdir().unwrap(), Poll::new().unwrap());
        let mut ctx = context(&poll, directory.path());
        let mut plugins = Plugins::new(&mut ctx).unwrap();
        let (home, hash) = (node(1), BlobHash([5; 32]));
        let (line, _worker) = Other::connect(&mut ctx);
        for serial in 1..=3 {
            assert!(plugins.need_blob(&mut ctx, line, (serial, APP, &home), hash));
        }
        let item = Item::Blob { app: APP, hash };
        assert_eq!(plugins.arrivals.keys().collect::<Vec<_>>(), [&item]);
        // A blob larger than the cache is refused to all.
        let ticket = Some(Ticket { word: [1; 16], bytes: u64::MAX });
        plugins.message(&mut ctx, home.id, Source { item, node: node(3), ticket }.into());
        assert_eq!(ctx.actions.len(), 3);
        for action in ctx.actions.drain(..) {
            let Action::BlobHere { result: Err(why), .. } = action else { panic!("{action:?}") };
            assert!(why.contains("cache"), "{why}");
        }
        // A worker awaits no more than it may.
        for number in 0..LINE_BLOBS_MAX as u8 {
            assert!(plugins.need_blob(&mut ctx, line, (1, APP, &home), BlobHash([number; 32])));
        }
        assert!(!plugins.need_blob(&mut ctx, line, (1, APP, &home), BlobHash([99; 32])));
        assert_eq!(plugins.arrivals.len(), FETCHED_AT_ONCE);
        for serial in 1..=3 {
            plugins.lease_gone(&mut ctx, serial);
        }
        assert!(
            plugins.arrivals.is_empty() && plugins.blobs.waiting.is_empty() && plugins.blobs.queue.is_empty()
        );
        assert!(plugins.blobs.leases.is_empty() && plugins.blobs.tickets.is_empty());
    }

    #[test]
    fn what_a_worker_has_kept_is_fetched_by_its_program_alone_until_that_lets_go() {
        let (directory, poll) = (tempfile::tempdir().unwrap(), Poll::new().unwrap());
        let mut ctx = context(&poll, directory.path());
        let (mut plugins, client, hash) = offered(&mut ctx, directory.path());
        let (line, _worker) = Other::connect(&mut ctx);
        // The same content as one that its program offers, with a ticket of its own.
        let keep = |plugins: &mut Plugins, ctx: &mut Context, serial| {
            let file = File::open(directory.path().join("file")).unwrap();
            plugins.keep_blob(ctx, line, (serial, APP), 0, file.into());
            let mut kept = None;
            wait(ctx, plugins, |ctx| {
                kept = ctx.actions.pop();
                kept.is_some()
            });
            match kept {
                Some(Action::BlobKept { blob: Ok((its, ticket)), .. }) if its == hash => ticket,
                other => panic!("{other:?}"),
            }
        };
        let ticket = keep(&mut plugins, &mut ctx, 1);
        assert_ne!(Some(ticket), plugins.blobs.ticket((APP, hash)));
        let me = ctx.me.clone();
        let fetch = |plugins: &mut Plugins, ctx: &mut Context, app, ticket| {
            plugins.fetch_kept(ctx, (client, app, 1), &me, hash, ticket);
            match ctx.actions.pop() {
                Some(Action::BlobFetched { result, .. }) => result.is_ok(),
                other => panic!("{other:?}"),
            }
        };
        assert!(!fetch(&mut plugins, &mut ctx, AppId(2), ticket));
        assert!(fetch(&mut plugins, &mut ctx, APP, ticket) && fetch(&mut plugins, &mut ctx, APP, ticket));
        plugins.drop_kept(&mut ctx, APP, me.id, hash);
        assert!(!fetch(&mut plugins, &mut ctx, APP, ticket));
        keep(&mut plugins, &mut ctx, 1);
        keep(&mut plugins, &mut ctx, 2);
        plugins.release_kept((APP, hash));
        assert_eq!(plugins.blobs.kept.len(), 1, "it was kept twice");
        plugins.lease_gone(&mut ctx, 1);
        assert_eq!(plugins.blobs.kept.len(), 1, "another lease of the application is left");
        plugins.lease_gone(&mut ctx, 2);
        assert!(plugins.blobs.kept.is_empty());
    }
}
