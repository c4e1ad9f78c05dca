//! The plugins this node keeps, takes in from local programs, fetches and hands on; and blobs that applications offer
//! to their workers, which travel in the same way.
//!
//! | module | does |
//! | --- | --- |
//! | [`elf`] | reads what a program needs to run |
//! | [`ingest`] | turns what a local program offers into a plugin |
//! | [`shelf`] | keeps plugins, and the directories to execute them from |
//! | [`approvals`] | remembers the owner's decisions |
//! | [`blobs`] | knows who offers which blob, and who waits for it |
//! | [`spread`] | as a home: deals out from whom each lender fetches |
//! | [`fetch`], [`intake`] | as a lender: gets a plugin or a blob it lacks, and stores it |
//! | [`hand_on`] | as a holder: sends files to others |

mod approvals;
mod blobs;
mod elf;
mod fetch;
mod hand_on;
mod ingest;
mod intake;
mod shelf;
mod spread;

use crate::context::{Action, ConnId, Context, Done as JobDone, Readiness};
use crate::error::Error;
use approvals::{Approvals, Decision, Entry, is_meant};
use blobs::{BlobTaken, Blobs};
use fetch::{Fetch, Step};
use hand_on::{HandOn, Piece};
use ingest::{Known, Offer, TakenIn};
use intake::{Intake, Outcome, PART_BYTES, Stored};
use mutirao_store::Pin;
use mutirao_wire::frame::{Header, flags};
use mutirao_wire::kind::Kind;
use mutirao_wire::local::OfferPlugin;
use mutirao_wire::node::{Asker, PluginRef};
use mutirao_wire::plugin::{
    BlobGet, HaveItem, Item, Manifest, NeedPlugin, NeedSource, NoSource, PluginManifest, PluginMessage,
    ReleaseBlob, Source, Ticket,
};
use mutirao_wire::query::{Approval, PluginRow, Question, Row, Topic};
use mutirao_wire::{NodeId, NodeRef, PluginId, Tick};
use shelf::{Place, Shelf, identity};
use spread::Spread;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

/// Offers that are being taken in at a time.
const OFFERS_MAX: usize = 32;
/// Plugins that are being fetched at a time.
const FETCHES_MAX: usize = 64;

/// What the plugins' jobs bring back.
#[derive(Debug)]
pub struct Done(Job);

#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // Short-lived, one at a time.
enum Job {
    /// A program's offer was taken in.
    TakenIn { client: ConnId, result: Result<TakenIn, String> },
    /// A file was taken in as a blob.
    BlobTaken(BlobTaken),
    /// The directory of a plugin kept from earlier was made.
    Prepared { plugin: PluginId, result: Result<(), String> },
    /// A fetched plugin was put on its shelf.
    Settled { plugin: PluginId, manifest: Manifest, homes: Vec<NodeId>, result: Result<Vec<Pin>, String> },
    /// Bytes of a fetched file were written.
    Stored(Stored),
    /// A piece of a file to hand on was read.
    Piece(Piece),
    /// Decisions were saved.
    Saved(Result<(), String>),
    /// Nothing to tell.
    Removed,
}

impl From<Job> for JobDone {
    fn from(job: Job) -> JobDone {
        JobDone::Plugins(Done(job))
    }
}

/// A plugin that can be executed.
#[derive(Debug, Clone)]
pub struct Program {
    /// What it is.
    pub manifest: Arc<Manifest>,
    /// Where its files lie under their names.
    pub directory: PathBuf,
}

impl Program {
    /// What is to be executed.
    pub fn executable(&self) -> PathBuf {
        // A manifest without files is refused where it is read or made.
        self.directory.join(self.manifest.files.first().map_or("", |file| file.name.as_str()))
    }
}

/// One plugin or blob on its way here.
#[derive(Debug)]
struct Arrival {
    fetch: Fetch,
    intake: Intake,
    /// Of a blob, once its home has given it.
    ticket: Option<Ticket>,
}

/// The plugins of this node.
#[derive(Debug)]
pub struct Plugins {
    host: elf::Host,
    shelf: Shelf,
    known: Known,
    offers: usize,
    preparing: HashSet<PluginId>,
    /// Leases that use or await each plugin, and for whom.
    wanted: HashMap<PluginId, Wanted>,
    arrivals: HashMap<Item, Arrival>,
    blobs: Blobs,
    next_transfer: u32,
    spread: Spread,
    hand_on: HandOn,
    links: HashMap<NodeId, NodeRef>,
    /// Connections this node dialled, as far as told.
    data: HashMap<NodeId, ConnId>,
    approvals: Approvals,
    approvals_path: PathBuf,
    saving: bool,
    save_again: bool,
}

#[derive(Debug)]
struct Wanted {
    leases: u32,
    user: String,
}

impl Plugins {
    /// Opens the store and reads the owner's decisions.
    pub fn new(ctx: &mut Context) -> Result<Plugins, Error> {
        // A directory of its own: a store belongs to one process.
        let cache = ctx.paths.cache.join(&ctx.me.name);
        let unusable = |what| {
            let cache = cache.clone();
            move |error: shelf::PlaceError| Error::file(what, cache)(std::io::Error::other(error))
        };
        let limit = ctx.config.cache_mib.saturating_mul(1024 * 1024);
        let place = Place::open(&cache, limit).map_err(unusable("cannot use the cache"))?;
        let approvals_path = ctx.paths.state.join("approvals.toml");
        let approvals = Approvals::read(&approvals_path)
            .map_err(|error| Error::file("cannot use", &approvals_path)(std::io::Error::other(error)))?;
        Ok(Plugins {
            host: elf::Host::here(),
            shelf: Shelf::new(place),
            known: Known::default(),
            offers: 0,
            preparing: HashSet::new(),
            wanted: HashMap::new(),
            arrivals: HashMap::new(),
            blobs: Blobs::default(),
            next_transfer: 1,
            spread: Spread::new(),
            hand_on: HandOn::default(),
            links: HashMap::new(),
            data: HashMap::new(),
            approvals,
            approvals_path,
            saving: false,
            save_again: false,
        })
    }

    /// A program offers its plugin; `Action::PluginOffered` follows. `files` as many as it names.
    pub fn offer(&mut self, ctx: &mut Context, client: ConnId, offer: OfferPlugin, files: Vec<OwnedFd>) {
        let answer = |plugin| Action::PluginOffered { client, plugin };
        if self.offers >= OFFERS_MAX {
            let busy = format!("{OFFERS_MAX} programs are being taken in already; try again");
            return ctx.actions.push(answer(Err(busy)));
        }
        let offer = match Offer::new(offer, files.into_iter().map(File::from).collect()) {
            Ok(offer) => offer,
            Err(why) => return ctx.actions.push(answer(Err(why))),
        };
        let cache_mib = ctx.config.cache_mib;
        if offer.bytes() > cache_mib.saturating_mul(1024 * 1024) {
            let name = &offer.said.name;
            let why = format!("plugin `{name}` is larger than this node's cache (`cache_mib = {cache_mib}`)");
            return ctx.actions.push(answer(Err(why)));
        }
        if let Some(contents) = self.known.all(&offer.keys)
            && let Ok((id, _)) = offer.manifest(&contents)
            && let Some(kept) = self.shelf.find_mut(id).filter(|kept| kept.ready)
        {
            kept.used = ctx.now;
            let reference = kept.manifest.summary(id);
            self.offered(ctx, id);
            return ctx.actions.push(answer(Ok(reference)));
        }
        self.make_room(ctx, offer.bytes());
        self.offers += 1;
        let place = self.shelf.place().clone();
        ctx.jobs.run(move || Job::TakenIn { client, result: offer.take_in(&place) }.into());
    }

    /// What a lender has to know of a plugin, if its manifest is kept here.
    pub fn reference(&self, plugin: PluginId) -> Option<PluginRef> {
        self.shelf.find(plugin).map(|kept| kept.manifest.summary(plugin))
    }

    /// A lease of an application at `home` uses this plugin until [`Plugins::release`]. Whether it can
    /// be executed at once; otherwise `Action::PluginHere` follows.
    pub fn need(&mut self, ctx: &mut Context, plugin: &PluginRef, user: &str, home: &NodeRef) -> bool {
        let wanted = self.wanted.entry(plugin.id).or_insert(Wanted { leases: 0, user: String::new() });
        wanted.leases += 1;
        wanted.user = user.to_owned();
        if let Some(kept) = self.shelf.find_mut(plugin.id) {
            kept.used = ctx.now;
            if kept.ready {
                return true;
            }
            self.prepare(ctx, plugin.id);
            return false;
        }
        if let Some(arrival) = self.arrivals.get_mut(&plugin.id.into()) {
            arrival.fetch.also_for(home.id);
            return false;
        }
        let refusal = if home.id == ctx.me.id {
            Some("is no longer in this node's cache; start the program again".to_owned())
        } else if self.arrivals.len() >= FETCHES_MAX {
            Some(format!("cannot be fetched: {FETCHES_MAX} others are on their way"))
        } else {
            None
        };
        if let Some(why) = refusal {
            let result = Err(format!("plugin `{}` {why}", plugin.name));
            ctx.actions.push(Action::PluginHere { plugin: plugin.id, result });
            return false;
        }
        let mut steps = Vec::new();
        let fetch = Fetch::new(ctx.now, &plugin.name, home.id, &mut steps);
        self.arrivals.insert(plugin.id.into(), Arrival { fetch, intake: Intake::default(), ticket: None });
        self.carry_out(ctx, plugin.id.into(), steps);
        false
    }

    /// A lease no longer uses this plugin.
    pub fn release(&mut self, plugin: PluginId) {
        let Some(wanted) = self.wanted.get_mut(&plugin) else { return };
        wanted.leases -= 1;
        if wanted.leases == 0 {
            self.wanted.remove(&plugin);
            self.arrivals.remove(&plugin.into());
        }
    }

    /// A plugin that is ready to be executed.
    pub fn program(&self, plugin: PluginId) -> Option<Program> {
        let kept = self.shelf.find(plugin).filter(|kept| kept.ready)?;
        Some(Program { manifest: kept.manifest.clone(), directory: self.shelf.place().directory(plugin) })
    }

    /// A request waits for the owner's approval of its plugin: list it.
    pub fn awaits(&mut self, ctx: &mut Context, asker: &Asker) {
        let Some(plugin) = &asker.plugin else { return };
        let now_unix_s = crate::sys::unix_ms() / 1000;
        if self.approvals.ask(plugin.id, &plugin.name, &asker.local_user, plugin.bytes, now_unix_s) {
            self.save(ctx);
        }
    }

    /// Plugins the owner approved and denied, for the core's policy.
    pub fn decisions(&self) -> (Vec<PluginId>, Vec<PluginId>) {
        (self.approvals.with(Decision::Approved), self.approvals.with(Decision::Denied))
    }

    /// A message came on the control connection from a node.
    pub fn message(&mut self, ctx: &mut Context, from: NodeId, message: PluginMessage) {
        match message {
            PluginMessage::NeedPlugin(NeedPlugin { plugin }) => {
                let manifest = self.shelf.find(plugin).map(|kept| kept.manifest.canonical_bytes());
                ctx.send_control(from, PluginMessage::from(PluginManifest { plugin, manifest }));
            }
            PluginMessage::PluginManifest(PluginManifest { plugin, manifest }) => {
                self.manifest_came(ctx, from, plugin, manifest);
            }
            PluginMessage::NeedSource(NeedSource { item, failed }) => {
                let Some(lender) = self.links.get(&from).cloned() else { return };
                self.deal(ctx, spread::Input::Need { item, lender, failed });
            }
            PluginMessage::HaveItem(HaveItem { item }) => {
                self.deal(ctx, spread::Input::Have { item, lender: from });
            }
            PluginMessage::Source(Source { item, node, ticket }) => {
                if let Item::Blob { hash, .. } = item
                    && !self.ticket_came(ctx, from, item, hash, ticket)
                {
                    return;
                }
                self.with_fetch(ctx, item, |fetch, now, steps| fetch.source(now, from, node, steps));
            }
            PluginMessage::NoSource(NoSource { item, why }) => {
                self.with_fetch(ctx, item, |fetch, _, steps| {
                    if fetch.awaits_source(from) {
                        fetch.fail(why, steps);
                    }
                });
            }
            // The daemon has seen to it that it comes from the home.
            PluginMessage::ReleaseBlob(ReleaseBlob { app, hash }) => self.release_kept((app, hash)),
            // These two belong on data connections.
            PluginMessage::BlobGet(_) | PluginMessage::BlobMissing(_) => {}
        }
    }

    /// A node is linked (control connection), `up`, or no longer.
    pub fn link(&mut self, ctx: &mut Context, peer: &NodeRef, up: bool) {
        if up {
            self.links.insert(peer.id, peer.clone());
            for item in self.under_way() {
                self.with_fetch(ctx, item, |fetch, now, steps| fetch.home_back(now, peer.id, steps));
            }
            return;
        }
        self.links.remove(&peer.id);
        self.deal(ctx, spread::Input::Lost(peer.id));
        for item in self.under_way() {
            self.with_fetch(ctx, item, |fetch, now, steps| fetch.home_lost(now, peer.id, steps));
        }
    }

    /// The data connection asked for by `open_data` stands.
    pub fn data_up(&mut self, ctx: &mut Context, peer: NodeId, conn: ConnId) {
        self.data.insert(peer, conn);
        for item in self.under_way() {
            self.with_fetch(ctx, item, |fetch, now, steps| fetch.connected(now, peer, steps));
        }
    }

    /// The data connection dialled to a node closed, or could not be opened.
    pub fn data_down(&mut self, ctx: &mut Context, peer: NodeId) {
        self.data.remove(&peer);
        for item in self.under_way() {
            self.with_fetch(ctx, item, |fetch, now, steps| fetch.disconnected(now, peer, steps));
        }
    }

    /// A frame about blobs came on a data connection: `BlobGet` to a holder, on a connection the
    /// asker dialled; `BlobChunk` and `BlobMissing` back on the same.
    pub fn data_frame(
        &mut self,
        ctx: &mut Context,
        conn: ConnId,
        peer: NodeId,
        header: &Header,
        body: &[u8],
    ) {
        if header.kind.get() == Kind::BlobChunk as u16 {
            return self.chunk(ctx, peer, header, body);
        }
        match PluginMessage::read(header, body) {
            Ok(PluginMessage::BlobGet(get)) => self.get(ctx, conn, peer, &get),
            Ok(PluginMessage::BlobMissing(missing)) => {
                if let Some(item) = self.receiving(peer, missing.transfer) {
                    self.with_fetch(ctx, item, |fetch, now, steps| fetch.source_failed(now, steps));
                }
            }
            _ => tracing::warn!("node {} sent a frame about plugins that is none", peer.short()),
        }
    }

    /// There is room again on a data connection that had none; also told when it closed, after which
    /// `ctx.conns.exists(conn)` is false.
    pub fn data_writable(&mut self, ctx: &mut Context, conn: ConnId) {
        self.hand_on.writable(ctx, conn);
    }

    /// Whether a data connection to or from `peer` is in use for blobs.
    pub fn uses_data(&self, peer: NodeId) -> bool {
        self.hand_on.uses(peer) || self.arrivals.values().any(|arrival| arrival.fetch.uses(peer))
    }

    /// A watched descriptor is ready: none is watched.
    pub fn ready(&mut self, _ctx: &mut Context, _key: u64, _readiness: Readiness) {}

    /// A job is done.
    pub fn done(&mut self, ctx: &mut Context, done: Done) {
        match done.0 {
            Job::TakenIn { client, result } => {
                self.offers -= 1;
                let plugin = result.map(|taken| {
                    let TakenIn { id, manifest, pins, learnt } = taken;
                    self.known.learn(learnt);
                    let reference = manifest.summary(id);
                    self.shelf.insert(id, manifest, pins, true, ctx.now);
                    self.offered(ctx, id);
                    reference
                });
                ctx.actions.push(Action::PluginOffered { client, plugin });
            }
            Job::BlobTaken(taken) => self.blob_taken(ctx, taken),
            Job::Prepared { plugin, result } => self.prepared(ctx, plugin, result),
            Job::Settled { plugin, manifest, homes, result } => {
                if let Ok(pins) = result {
                    self.shelf.insert(plugin, manifest, pins, true, ctx.now);
                    for home in homes {
                        ctx.send_control(home, PluginMessage::from(HaveItem { item: plugin.into() }));
                    }
                    self.arrivals.remove(&plugin.into());
                    ctx.actions.push(Action::PluginHere { plugin, result: Ok(()) });
                } else if let Err(why) = result
                    && self.arrivals.remove(&plugin.into()).is_some()
                {
                    ctx.actions.push(Action::PluginHere { plugin, result: Err(why) });
                }
            }
            Job::Stored(stored) => {
                let (item, store) = (stored.item, self.shelf.place().store.clone());
                let Some(arrival) = self.arrivals.get_mut(&item) else { return };
                let outcome = arrival.intake.stored(ctx, &store, stored);
                self.intake_says(ctx, item, outcome);
            }
            Job::Piece(piece) => self.hand_on.piece(ctx, piece),
            Job::Saved(result) => {
                self.saving = false;
                if let Err(why) = result {
                    tracing::error!("the list of approved plugins was not saved: {why}");
                }
                if core::mem::take(&mut self.save_again) {
                    self.save(ctx);
                }
            }
            Job::Removed => {}
        }
    }

    /// When `time` wants to be called next.
    pub fn deadline(&self) -> Option<Tick> {
        let fetches = self.arrivals.values().filter_map(|arrival| arrival.fetch.deadline());
        fetches.chain(self.spread.deadline()).min()
    }

    /// The deadline has passed.
    pub fn time(&mut self, ctx: &mut Context) {
        self.deal(ctx, spread::Input::Time);
        for item in self.under_way() {
            self.with_fetch(ctx, item, |fetch, now, steps| fetch.time(now, steps));
        }
    }

    /// Answers `Topic::Plugins` with a row each; carries out `Approve` and `RemovePlugin` (the
    /// daemon has checked the right to it) and answers `Row::Done` or `Row::Failed`.
    pub fn answer(&mut self, ctx: &mut Context, question: &Question) -> Vec<Row> {
        let node = ctx.me.name.clone();
        let result = match &question.topic {
            Topic::Plugins => return self.rows(&node),
            Topic::Approve { plugin, approve } => self.decide(ctx, plugin, *approve),
            Topic::RemovePlugin { plugin } => self.remove(ctx, plugin),
            _ => return Vec::new(),
        };
        vec![match result {
            Ok(text) => Row::Done { node, text },
            Err(text) => Row::Failed { node, text },
        }]
    }
}

/// Offers and what is kept.
impl Plugins {
    /// A local program has this plugin: lenders may ask for it.
    fn offered(&mut self, ctx: &mut Context, id: PluginId) {
        let origin = ctx.me.clone();
        self.deal(ctx, spread::Input::Keep { item: id.into(), origin });
    }

    fn prepare(&mut self, ctx: &mut Context, plugin: PluginId) {
        let Some(kept) = self.shelf.find(plugin) else { return };
        if !self.preparing.insert(plugin) {
            return;
        }
        let (place, manifest) = (self.shelf.place().clone(), kept.manifest.clone());
        ctx.jobs.run(move || {
            let result = place.prepare(&manifest).map_err(|error| error.to_string());
            Job::Prepared { plugin, result }.into()
        });
    }

    fn prepared(&mut self, ctx: &mut Context, plugin: PluginId, result: Result<(), String>) {
        self.preparing.remove(&plugin);
        match &result {
            Ok(()) => {
                if let Some(kept) = self.shelf.find_mut(plugin) {
                    kept.ready = true;
                }
            }
            // The next lease fetches it anew.
            Err(_) => self.forget(ctx, plugin),
        }
        ctx.actions.push(Action::PluginHere { plugin, result });
    }

    /// Removes plugins not in use until `bytes` more can come.
    fn make_room(&mut self, ctx: &mut Context, bytes: u64) {
        let in_use = |id| self.wanted.contains_key(&id) || self.preparing.contains(&id);
        for plugin in self.shelf.surplus(bytes, in_use) {
            self.forget(ctx, plugin);
        }
    }

    fn forget(&mut self, ctx: &mut Context, plugin: PluginId) {
        self.deal(ctx, spread::Input::Forget(plugin.into()));
        if let Some(directory) = self.shelf.remove(plugin) {
            ctx.jobs.run(move || {
                if let Err(error) = std::fs::remove_dir_all(&directory) {
                    tracing::warn!("{} cannot be removed: {error}", directory.display());
                }
                Job::Removed.into()
            });
        }
    }
}

/// Fetching, dealing out and handing on.
impl Plugins {
    fn under_way(&self) -> Vec<Item> {
        self.arrivals.keys().copied().collect()
    }

    fn with_fetch(
        &mut self,
        ctx: &mut Context,
        item: Item,
        act: impl FnOnce(&mut Fetch, Tick, &mut Vec<Step>),
    ) {
        let Some(arrival) = self.arrivals.get_mut(&item) else { return };
        let mut steps = Vec::new();
        act(&mut arrival.fetch, ctx.now, &mut steps);
        self.carry_out(ctx, item, steps);
    }

    fn carry_out(&mut self, ctx: &mut Context, item: Item, steps: Vec<Step>) {
        for step in steps {
            match step {
                Step::AskManifest(home) => {
                    if let Item::Plugin(plugin) = item {
                        self.ask(ctx, home, item, NeedPlugin { plugin });
                    }
                }
                Step::AskSource { home, failed } => self.ask(ctx, home, item, NeedSource { item, failed }),
                Step::Open(node) => match self.data.get(&node.id).filter(|conn| ctx.conns.exists(**conn)) {
                    Some(_) => {
                        self.with_fetch(ctx, item, |fetch, now, steps| fetch.connected(now, node.id, steps));
                    }
                    None => ctx.open_data(node),
                },
                Step::Get { hash } => self.ask_file(ctx, item, hash, 0),
                Step::Drop => {
                    if let Some(arrival) = self.arrivals.get_mut(&item) {
                        arrival.intake.drop_current();
                    }
                }
                Step::Keep(homes) => match item {
                    Item::Plugin(plugin) => self.settle(ctx, plugin, homes),
                    Item::Blob { app, hash } => self.blob_came(ctx, (app, hash), homes),
                },
                Step::Fail(why) => {
                    self.arrivals.remove(&item);
                    match item {
                        Item::Plugin(plugin) => {
                            ctx.actions.push(Action::PluginHere { plugin, result: Err(why) });
                        }
                        Item::Blob { app, hash } => self.blob_failed(ctx, (app, hash), &why),
                    }
                }
            }
        }
    }

    fn ask(&mut self, ctx: &mut Context, home: NodeId, item: Item, message: impl Into<PluginMessage>) {
        if !ctx.send_control(home, message.into()) {
            self.with_fetch(ctx, item, |fetch, now, steps| fetch.home_lost(now, home, steps));
        }
    }

    fn ask_file(&mut self, ctx: &mut Context, item: Item, hash: mutirao_wire::BlobHash, offset: u64) {
        let Some(arrival) = self.arrivals.get_mut(&item) else { return };
        let Some(source) = arrival.fetch.receives_from() else { return };
        let files = arrival.fetch.manifest().map(|manifest| manifest.files.as_slice()).unwrap_or_default();
        let of_file = files.iter().find(|file| file.hash == hash).map_or(0, |file| file.bytes);
        let bytes = arrival.ticket.map_or(of_file, |ticket| ticket.bytes);
        let word = arrival.ticket.map(|ticket| ticket.word);
        let transfer = match arrival.intake.transfer().filter(|_| offset > 0) {
            Some(transfer) => transfer,
            None => {
                let fresh = self.next_transfer;
                self.next_transfer = fresh.wrapping_add(1).max(1);
                arrival.intake.begin(fresh, hash, bytes);
                fresh
            }
        };
        let get = PluginMessage::from(BlobGet { transfer, item, hash, word, offset, bytes: PART_BYTES });
        let sent = self.data.get(&source).is_some_and(|conn| ctx.conns.put_with(*conn, |out| get.put(out)));
        if !sent {
            self.with_fetch(ctx, item, |fetch, now, steps| fetch.disconnected(now, source, steps));
        }
    }

    fn manifest_came(&mut self, ctx: &mut Context, from: NodeId, plugin: PluginId, bytes: Option<Vec<u8>>) {
        let item = Item::Plugin(plugin);
        if !self.arrivals.get(&item).is_some_and(|arrival| arrival.fetch.awaits_manifest(from)) {
            return;
        }
        let Some(bytes) = bytes else {
            return self.with_fetch(ctx, item, |fetch, now, steps| fetch.no_manifest(now, from, steps));
        };
        let judged = if identity(&bytes) != plugin {
            Err("the home of the application sent another manifest than the plugin's".to_owned())
        } else {
            Manifest::read(&bytes).map_err(|error| error.to_string()).and_then(|manifest| {
                let loader = manifest.interpreter.as_deref();
                let fits = self.host.fits(&manifest.name, manifest.arch, loader, manifest.libc);
                fits.map(|()| manifest).map_err(|error| error.to_string())
            })
        };
        let manifest = match judged {
            Ok(manifest) => manifest,
            Err(why) => return self.with_fetch(ctx, item, |fetch, _, steps| fetch.fail(why, steps)),
        };
        let Some(arrival) = self.arrivals.get_mut(&item) else { return };
        let store = &self.shelf.place().store;
        let missing = arrival.intake.pin_known(store, manifest.files.iter().map(|file| file.hash));
        let bytes = manifest.files.iter().filter(|file| missing.contains(&file.hash)).map(|file| file.bytes);
        let bytes = bytes.fold(0, u64::saturating_add);
        self.make_room(ctx, bytes);
        self.with_fetch(ctx, item, |fetch, now, steps| fetch.accept(now, manifest, missing, steps));
    }

    /// That whose current file comes from `peer` in this transfer.
    fn receiving(&self, peer: NodeId, transfer: u32) -> Option<Item> {
        let concerns = |arrival: &Arrival| {
            arrival.intake.transfer() == Some(transfer) && arrival.fetch.receives_from() == Some(peer)
        };
        self.arrivals.iter().find(|(_, arrival)| concerns(arrival)).map(|(item, _)| *item)
    }

    fn chunk(&mut self, ctx: &mut Context, peer: NodeId, header: &Header, body: &[u8]) {
        let Some(item) = self.receiving(peer, header.handle.get()) else { return };
        let store = self.shelf.place().store.clone();
        let Some(arrival) = self.arrivals.get_mut(&item) else { return };
        let last = !header.has(flags::MORE);
        let outcome = arrival.intake.chunk(ctx, &store, item, body, last);
        if matches!(outcome, Outcome::GoesOn | Outcome::Next(_)) {
            // The disk may need a while for what has come.
            arrival.fetch.heard(ctx.now, last);
        }
        self.intake_says(ctx, item, outcome);
    }

    fn intake_says(&mut self, ctx: &mut Context, item: Item, outcome: Outcome) {
        if let Outcome::Next(offset) = outcome {
            let Some(arrival) = self.arrivals.get_mut(&item) else { return };
            let Some(hash) = arrival.fetch.goes_on(ctx.now) else { return };
            return self.ask_file(ctx, item, hash, offset);
        }
        self.with_fetch(ctx, item, |fetch, now, steps| match outcome {
            Outcome::GoesOn | Outcome::Next(_) => {}
            Outcome::Whole => fetch.stored(now, steps),
            Outcome::WrongContent => fetch.source_failed(now, steps),
            Outcome::CannotStore(why) => fetch.fail(why, steps),
        });
    }

    fn settle(&mut self, ctx: &mut Context, plugin: PluginId, homes: Vec<NodeId>) {
        let Some(manifest) = self.arrivals.get(&plugin.into()).and_then(|arrival| arrival.fetch.manifest())
        else {
            return;
        };
        let (place, manifest) = (self.shelf.place().clone(), manifest.clone());
        ctx.jobs.run(move || {
            let result = place.settle(&manifest).map_err(|error| error.to_string());
            Job::Settled { plugin, manifest, homes, result }.into()
        });
    }

    /// Sends a file, if it belongs to a plugin kept here, or is a blob to which the asker has the right.
    fn get(&mut self, ctx: &mut Context, conn: ConnId, peer: NodeId, get: &BlobGet) {
        let key = (conn, get.transfer);
        let bytes = match get.item {
            Item::Plugin(plugin) => self.shelf.find(plugin).and_then(|kept| {
                let file = kept.manifest.files.iter().find(|file| file.hash == get.hash)?;
                Some(file.bytes)
            }),
            Item::Blob { app, hash } => {
                let word = get.word.filter(|_| hash == get.hash);
                word.and_then(|word| self.blobs.right((app, hash), word))
            }
        };
        let file = bytes.and_then(|bytes| Some((self.shelf.place().store.open_blob(get.hash).ok()?, bytes)));
        match file {
            Some((file, bytes)) => self.hand_on.start(ctx, key, peer, file, (get.offset, get.bytes), bytes),
            None => hand_on::refuse(ctx, key),
        }
    }

    fn deal(&mut self, ctx: &mut Context, input: spread::Input) {
        let mut out = Vec::new();
        self.spread.handle(ctx.now, input, &mut out);
        for output in out {
            match output {
                spread::Output::Source { to, item, source } => {
                    let ticket = match item {
                        Item::Plugin(_) => None,
                        Item::Blob { app, hash } => self.blobs.ticket((app, hash)),
                    };
                    ctx.send_control(to, PluginMessage::from(Source { item, node: source, ticket }));
                }
                spread::Output::TurnedAway { lender, item } => {
                    tracing::warn!("too many wait for {item:?}: node {} is turned away", lender.short());
                }
            }
        }
    }
}

/// What the owner sees and decides.
impl Plugins {
    fn rows(&self, node: &str) -> Vec<Row> {
        let listed = self.approvals.all().map(|(id, _)| id);
        let mut ids: Vec<PluginId> = self.shelf.all().map(|(id, _)| id).chain(listed).collect();
        ids.sort();
        ids.dedup();
        let row = |plugin| {
            let (kept, entry, wanted) =
                (self.shelf.find(plugin), self.approvals.find(plugin), self.wanted.get(&plugin));
            let user = wanted.map(|wanted| &wanted.user).or(entry.map(|entry| &entry.user));
            Row::Plugin(PluginRow {
                node: node.to_owned(),
                plugin,
                name: kept
                    .map(|kept| &kept.manifest.name)
                    .or(entry.map(|entry| &entry.name))
                    .cloned()
                    .unwrap_or_default(),
                user: user.cloned().unwrap_or_default(),
                bytes: kept.map(|kept| kept.bytes).or(entry.map(|entry| entry.bytes)).unwrap_or(0),
                program: kept.and_then(|kept| Some(kept.manifest.files.first()?.hash)),
                operations: kept.map_or(Vec::new(), |kept| {
                    kept.manifest.operations.iter().map(|operation| operation.name.clone()).collect()
                }),
                kept: kept.is_some(),
                approval: entry.map_or(Approval::None, |entry| entry.decision.into()),
                leases: wanted.map_or(0, |wanted| wanted.leases),
            })
        };
        ids.into_iter().map(row).collect()
    }

    /// Plugins kept or listed that are meant by `what`, with their names.
    fn meant(&self, what: &str) -> Vec<(PluginId, String)> {
        let kept = self.shelf.all().map(|(id, kept)| (id, kept.manifest.name.clone()));
        let listed = self.approvals.all().map(|(id, entry)| (id, entry.name.clone()));
        let mut meant: Vec<_> = kept.chain(listed).filter(|(id, name)| is_meant(what, *id, name)).collect();
        meant.sort();
        meant.dedup();
        meant
    }

    fn decide(&mut self, ctx: &mut Context, what: &str, approve: bool) -> Result<String, String> {
        let meant = self.meant(what);
        if meant.is_empty() {
            return Err(format!(
                "no plugin here is named `{what}` or has an id that begins so; see `mutirao plugin ls`"
            ));
        }
        let done = if approve { "approved" } else { "denied" };
        let mut texts = Vec::new();
        for (id, name) in meant {
            let kept = self.shelf.find(id);
            self.approvals.decide(id, approve, || Entry {
                name: name.clone(),
                user: String::new(),
                bytes: kept.map_or(0, |kept| kept.bytes),
                first_seen_unix_s: crate::sys::unix_ms() / 1000,
                decision: Decision::Pending,
            })?;
            texts.push(format!("{done} `{name}` ({})", id.short()));
        }
        self.save(ctx);
        ctx.actions.push(Action::PolicyChanged);
        Ok(texts.join(", "))
    }

    fn remove(&mut self, ctx: &mut Context, what: &str) -> Result<String, String> {
        let meant = self.meant(what);
        if meant.is_empty() {
            return Err(format!(
                "no plugin here is named `{what}` or has an id that begins so; see `mutirao plugin ls`"
            ));
        }
        let in_use = |id: &PluginId| self.wanted.contains_key(id) || self.preparing.contains(id);
        if let Some((id, name)) = meant.iter().find(|(id, _)| in_use(id)) {
            return Err(format!("`{name}` ({}) is in use; nothing was removed", id.short()));
        }
        let mut texts = Vec::new();
        let mut decided = false;
        for (id, name) in meant {
            self.forget(ctx, id);
            decided |= self.approvals.forget(id);
            texts.push(format!("removed `{name}` ({})", id.short()));
        }
        if decided {
            self.save(ctx);
            ctx.actions.push(Action::PolicyChanged);
        }
        Ok(texts.join(", "))
    }

    fn save(&mut self, ctx: &mut Context) {
        if self.saving {
            self.save_again = true;
            return;
        }
        self.saving = true;
        let (list, path) = (self.approvals.clone(), self.approvals_path.clone());
        ctx.jobs.run(move || Job::Saved(list.write(&path)).into());
    }
}
