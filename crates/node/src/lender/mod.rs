//! The workers of the leases this node lends.
//!
//! A lease whose plugin is here gets a worker from the *template* of its plugin and application: a
//! process that was started once, confined itself, executed the plugin, and forks on demand. A worker
//! that ends is replaced; a template that ends takes its workers with it and is started again.
//!
//! | module | does |
//! | --- | --- |
//! | [`starter`] | starts the processes of templates, on a thread of its own |
//! | [`template`] | talks to one |
//! | [`worker`] | equips one worker: ring, bells, pipes, directory |
//! | [`lease`] | what a lease has of all this |
//! | [`leases`], [`templates`], [`workers`] | what the lender does with each of them |
//! | [`served`] | moves calls between the stream of a lease and the ring of its worker |
//! | [`process`] | names and ends processes that are not this one's children |
//! | [`ending`], [`tail`] | say why a worker ended, with its last lines |
//! | [`seats`] | gives out places on the spin board |
//! | [`usage`] | says what workers use |

mod ending;
mod lease;
mod leases;
mod process;
mod seats;
mod served;
mod starter;
mod tail;
mod template;
mod templates;
pub(crate) mod usage;
mod worker;
mod workers;

use crate::context::{Action, Assignment, Context, Done as JobDone, Owner, Readiness};
use crate::error::Error;
use crate::plugins::Plugins;
use core::time::Duration;
use ending::OomWatch;
use lease::Lease;
use mio::Interest;
use mutirao_confine::{Level, Report};
use mutirao_ring::{Bell, Ringer};
use mutirao_schedule::serve::Output as Order;
use mutirao_tree::Held;
use mutirao_wire::frame::Header;
use mutirao_wire::lease::{LeaseEnd, WorkerState};
use mutirao_wire::query::{Confinement, Row, WorkerRow};
use mutirao_wire::stream::failure;
use mutirao_wire::{AppId, CallId, PluginId, Tick};
use seats::Seats;
use starter::{Host, Starter};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use template::{Key, Stage, Template};
use usage::Uses;
use worker::{Ring, Worker};

/// A template that has said nothing for so long is none.
const HELLO: Duration = Duration::from_secs(10);
/// A template that does not fork for so long is stuck.
const FORK: Duration = Duration::from_secs(5);
/// How long the template may take to say how a worker ended.
const HOW: Duration = Duration::from_secs(1);
/// How long a template without leases is kept.
const IDLE: Duration = Duration::from_secs(60);
/// Templates without leases that are kept.
const IDLE_MAX: usize = 16;
/// Bytes of one standard error read at once; a flood has to wait
const STDERR_A_TURN: usize = 64 * 1024;
/// for so long.
const STDERR_PAUSE: Duration = Duration::from_millis(10);

/// What a watched descriptor is: the upper bits of its key, above the number.
const KIND_SHIFT: u32 = 48;
const STARTER: u64 = 1;
const TEMPLATE_CHANNEL: u64 = 2;
const TEMPLATE_STDERR: u64 = 3;
const TEMPLATE_PROCESS: u64 = 4;
const WORKER_PROCESS: u64 = 5;
const WORKER_STDERR: u64 = 6;
const WORKER_BELL: u64 = 7;

/// What the lender's jobs bring back: nothing but that they are done.
#[derive(Debug)]
pub struct Done(());

/// The workers of this node.
#[derive(Debug)]
pub struct Lender {
    starter: Starter,
    seats: Seats,
    report: Report,
    minimum: Level,
    oom: OomWatch,
    /// Where all workers may read and write.
    shared: Vec<PathBuf>,
    /// Whether workers may act as the node's own user.
    own: bool,
    /// Where templates have their directories.
    directory: PathBuf,
    leases: HashMap<u64, Lease>,
    templates: HashMap<u64, Template>,
    by_key: HashMap<Key, u64>,
    workers: HashMap<u64, Worker>,
    /// The reply bell of each local application that has leases here.
    bells: HashMap<AppId, (Bell, Ringer)>,
    /// Numbers templates and workers; none is used twice.
    next: u64,
    /// Leases whose stream or ring has something to move.
    dirty: BTreeSet<u64>,
    /// Standard errors that were not read to their end, and when they are read on.
    unread: BTreeSet<u64>,
    unread_until: Option<Tick>,
    /// Plugins that leases no longer use.
    released: Vec<PluginId>,
    /// Local applications that are gone, of which leases are still ending.
    gone: HashSet<AppId>,
}

impl Lender {
    /// Makes ready; starts no process.
    pub fn new(ctx: &mut Context) -> Result<Lender, Error> {
        Lender::with_host(ctx, Host::default())
    }

    fn with_host(ctx: &mut Context, host: Host) -> Result<Lender, Error> {
        let starter = Starter::new(host).map_err(Error::kernel("an event counter"))?;
        let watched = ctx.watch(starter.fd(), Owner::Lender, key(STARTER, 0), Interest::READABLE);
        watched.map_err(Error::kernel("to watch an event counter"))?;
        let seats =
            Seats::new(ctx.spin).map_err(|error| Error::kernel("a spin board")(io::Error::other(error)))?;
        let minimum = match ctx.config.confinement.as_deref() {
            None | Some("none") => Level::None,
            Some("basic") => Level::Basic,
            Some("files") => Level::Files,
            Some("full") => Level::Full,
            Some(other) => {
                let reason =
                    format!("`confinement` is `{other}`; it can be `full`, `files`, `basic` or `none`");
                return Err(Error::Config { path: ctx.paths.state.join("node.toml"), reason });
            }
        };
        let state = &ctx.paths.state;
        // The keys of the pool's other nodes and users on this machine lie two directories above.
        let state =
            state.ancestors().nth(2).filter(|base| state.starts_with(base.join("nodes"))).unwrap_or(state);
        let private = [state, &ctx.paths.cache, &ctx.paths.spool, &ctx.paths.runtime];
        let shared = ctx
            .config
            .files
            .shared_directories(&private)
            .map_err(|reason| Error::Config { path: ctx.paths.state.join("node.toml"), reason })?;
        // An owner who demands some confinement means all workers.
        let own = ctx.config.files.own && minimum == Level::None;
        Ok(Lender {
            starter,
            seats,
            report: mutirao_confine::probe(),
            minimum,
            oom: OomWatch::new(),
            shared,
            own,
            directory: ctx.paths.spool.join("work"),
            leases: HashMap::new(),
            templates: HashMap::new(),
            by_key: HashMap::new(),
            workers: HashMap::new(),
            bells: HashMap::new(),
            next: 1,
            dirty: BTreeSet::new(),
            unread: BTreeSet::new(),
            unread_until: None,
            released: Vec::new(),
            gone: HashSet::new(),
        })
    }

    /// How strongly workers are confined here.
    pub fn confinement(&self) -> Confinement {
        Confinement { level: self.report.level().word().into(), detail: self.report.words() }
    }

    /// How well workers are held here, as the policy has to know it.
    pub fn held(&self) -> Held {
        held(self.report.level(), self.minimum)
    }

    /// A place on the spin board for a program that connects, and a descriptor of the board.
    pub fn take_seat(&mut self) -> Option<(u32, OwnedFd)> {
        let board = self.seats.board().ok()?;
        Some((u32::from(self.seats.take()), board))
    }

    /// The program of that place is gone.
    pub fn free_seat(&mut self, seat: u32) {
        if let Ok(seat) = u16::try_from(seat) {
            self.seats.give_back(seat);
        }
    }

    /// Whether workers may act as the node's own user, for programs of that user.
    pub fn lets_act_as_user(&self) -> bool {
        self.own
    }

    /// A lease begins. Its worker is made when the plugin is here; news follow as `Action::Worker`.
    /// For one without a plugin nothing is started and nothing reported.
    pub fn begin(&mut self, ctx: &mut Context, plugins: &mut Plugins, mut assignment: Assignment) {
        let serial = assignment.serial;
        assignment.as_user &= self.own;
        self.gone.remove(&assignment.app);
        let (plugin, user, home) =
            (assignment.plugin.clone(), assignment.user.clone(), assignment.home.clone());
        self.leases.insert(serial, Lease::new(ctx.now, assignment));
        let Some(plugin) = plugin else { return };
        if plugins.need(ctx, &plugin, &user, &home) {
            self.provide(ctx, serial, plugins.program(plugin.id));
        } else {
            ctx.actions.push(Action::Worker { serial, state: WorkerState::Fetching });
        }
    }

    /// A lease is over: end its worker at once, then push `Action::Gone`.
    pub fn finish(&mut self, ctx: &mut Context, serial: u64, end: &LeaseEnd) {
        // Unknown ones have never begun: nothing has to go.
        let Some(lease) = self.leases.get_mut(&serial) else {
            return ctx.actions.push(Action::Gone { serial });
        };
        lease.ending = Some(end_words(end));
        match lease.worker {
            Some(worker) => self.order_end(worker, failure::WORKER_ENDED),
            None => self.lease_over(ctx, serial),
        }
    }

    /// A local application is gone: its templates go too, as soon as its leases have ended.
    pub fn app_gone(&mut self, app: AppId) {
        if self.leases.values().any(|lease| lease.given.app == app) {
            self.gone.insert(app);
        } else {
            self.end_templates_of(app);
        }
    }

    /// The stream of a lease stands, for the first time or again.
    pub fn bound(&mut self, ctx: &mut Context, serial: u64) {
        let Some(&(_, handle)) = ctx.bound.get(&serial) else { return };
        let Some(served) = self.leases.get_mut(&serial).and_then(|lease| lease.served.as_mut()) else {
            return;
        };
        served.stream_up(ctx.now, handle);
        self.pump(ctx, serial);
    }

    /// The stream of a lease broke.
    pub fn unbound(&mut self, ctx: &mut Context, serial: u64) {
        if let Some(served) = self.leases.get_mut(&serial).and_then(|lease| lease.served.as_mut()) {
            served.stream_down(ctx.now);
        }
    }

    /// A frame came on the stream of a lease; its handle means nothing here.
    pub fn stream_frame(&mut self, ctx: &mut Context, serial: u64, header: &Header, body: &[u8]) {
        let Some(lease) = self.leases.get_mut(&serial) else { return };
        let Some(served) = lease.served.as_mut() else { return };
        let ring = match lease.worker.and_then(|worker| self.workers.get_mut(&worker)) {
            Some(Worker { ring: Ring::Remote { end, .. }, stage: worker::Stage::Running(_), .. }) => {
                Some(&mut **end)
            }
            _ => None,
        };
        served.home_says(ctx.now, header, body, ring);
        self.dirty.insert(serial);
    }

    /// There is room again on the stream of a lease.
    pub fn stream_writable(&mut self, ctx: &mut Context, serial: u64) {
        self.pump(ctx, serial);
    }

    /// For a local lease whose worker is ready: the ring's memory, the call bell, the reply bell. The
    /// reply bell is the same for all leases of one application. Given once for each worker.
    pub fn local_descriptors(&mut self, serial: u64) -> Option<Vec<OwnedFd>> {
        let worker = self.leases.get(&serial)?.worker?;
        match &mut self.workers.get_mut(&worker)?.ring {
            Ring::Local { descriptors, .. } => descriptors.take(),
            Ring::Remote { .. } => None,
        }
    }

    /// The line to the worker of a lease, given once for each worker.
    pub fn take_line(&mut self, serial: u64) -> Option<UnixStream> {
        let worker = self.leases.get(&serial)?.worker?;
        self.workers.get_mut(&worker)?.line.take()
    }

    /// The program wants the worker of its local lease ended (`code`, see `failure`).
    pub fn kill_worker(&mut self, ctx: &mut Context, serial: u64, call: Option<CallId>, code: u32) {
        self.obey(ctx, serial, Order::KillWorker { call, code });
    }

    /// A plugin that was asked of `Plugins` is here, or cannot be had.
    pub fn plugin_here(
        &mut self,
        ctx: &mut Context,
        plugins: &mut Plugins,
        plugin: PluginId,
        result: Result<(), String>,
    ) {
        let waits = |lease: &Lease| {
            lease.program.is_none() && lease.given.plugin.as_ref().is_some_and(|wanted| wanted.id == plugin)
        };
        let waiting: Vec<u64> =
            self.leases.iter().filter(|(_, lease)| waits(lease)).map(|(serial, _)| *serial).collect();
        for serial in waiting {
            match &result {
                Ok(()) => self.provide(ctx, serial, plugins.program(plugin)),
                Err(why) => self.give_up(ctx, serial, why.clone()),
            }
        }
    }

    /// A watched descriptor is ready.
    pub fn ready(&mut self, ctx: &mut Context, _plugins: &mut Plugins, key: u64, readiness: Readiness) {
        let number = key & ((1 << KIND_SHIFT) - 1);
        match key >> KIND_SHIFT {
            STARTER => {
                while let Some((template, result)) = self.starter.next() {
                    self.started(ctx, template, result);
                }
            }
            TEMPLATE_CHANNEL => self.template_speaks(ctx, number, readiness),
            TEMPLATE_PROCESS => self.template_over(ctx, number),
            WORKER_PROCESS => self.worker_ended(ctx, number),
            WORKER_BELL => {
                if let Some(worker) = self.workers.get(&number) {
                    if let Ring::Remote { bell, .. } = &worker.ring
                        && let Err(error) = bell.drain()
                    {
                        tracing::warn!("the bell of a worker cannot be heard: {error}");
                    }
                    self.dirty.insert(worker.serial);
                }
            }
            // A flood is read on in its time, however often it makes itself heard.
            TEMPLATE_STDERR | WORKER_STDERR if self.unread.contains(&key) => {}
            TEMPLATE_STDERR | WORKER_STDERR => self.read_stderr(ctx.now, key),
            _ => {}
        }
    }

    /// A job is done.
    pub fn done(&mut self, _ctx: &mut Context, _plugins: &mut Plugins, done: Done) {
        let Done(()) = done;
    }

    /// When `time` wants to be called next.
    pub fn deadline(&self) -> Option<Tick> {
        if !self.dirty.is_empty() || !self.released.is_empty() {
            return Some(Tick(0));
        }
        let templates =
            self.templates.values().filter_map(|template| match (template.stage, template.idle_since) {
                (Stage::Silent(since), _) => Some(since + HELLO),
                (Stage::Up, Some(since)) => Some(since + IDLE),
                _ => None,
            });
        let workers = self.workers.values().filter_map(|worker| match worker.stage {
            // A template that is being ended takes its time, of which the end of its process tells.
            worker::Stage::Forking(since) => {
                let template = self.templates.get(&worker.template);
                template.filter(|template| template.stage != Stage::Ending).map(|_| since + FORK)
            }
            worker::Stage::Ended { since, .. } => Some(since + HOW),
            worker::Stage::Running(_) => None,
        });
        let calls = self.leases.values().filter_map(|lease| lease.served.as_ref()?.deadline());
        templates.chain(workers).chain(calls).chain(self.unread_until).min()
    }

    /// The deadline has passed.
    pub fn time(&mut self, ctx: &mut Context, plugins: &mut Plugins) {
        let now = ctx.now;
        if self.unread_until.is_some_and(|until| until <= now) {
            self.unread_until = None;
            for key in core::mem::take(&mut self.unread) {
                self.read_stderr(now, key);
            }
        }
        for serial in core::mem::take(&mut self.dirty) {
            self.pump(ctx, serial);
        }
        self.calls_in_time(ctx);
        for plugin in self.released.drain(..) {
            plugins.release(plugin);
        }

        let silent =
            |template: &Template| matches!(template.stage, Stage::Silent(since) if now - since >= HELLO);
        for template in self.templates_that(silent) {
            let how = format!("said nothing for {} s", HELLO.as_secs());
            self.template_failed(ctx, template, &how);
        }
        let idle = |template: &Template| template.idle_since.is_some_and(|since| now - since >= IDLE);
        for template in self.templates_that(idle) {
            self.end_template(template);
        }
        let stuck = self
            .workers
            .values()
            .filter(|worker| matches!(worker.stage, worker::Stage::Forking(since) if now - since >= FORK));
        for template in stuck.map(|worker| worker.template).collect::<BTreeSet<_>>() {
            tracing::warn!("a template does not fork; it is ended");
            self.end_template(template);
        }
        let settled = self.workers.iter().filter(
            |(_, worker)| matches!(worker.stage, worker::Stage::Ended { since, .. } if now - since >= HOW),
        );
        for worker in settled.map(|(number, _)| *number).collect::<Vec<_>>() {
            self.worker_over(ctx, worker);
        }
    }

    /// The last lines that the worker of a lease has written to its standard error.
    pub fn stderr(&self, serial: u64) -> String {
        let worker = self.leases.get(&serial).and_then(|lease| self.workers.get(&lease.worker?));
        worker.map(|worker| worker.tail.last(usize::MAX)).unwrap_or_default()
    }

    /// The processes of all workers.
    pub fn processes(&self) -> impl Iterator<Item = u32> {
        self.workers.values().filter_map(|worker| match &worker.stage {
            worker::Stage::Running(process) => Some(process.pid()),
            _ => None,
        })
    }

    /// A `Row::Worker` for each lease, or each of one application.
    pub fn rows(&self, ctx: &Context, app: Option<AppId>, uses: &Uses) -> Vec<Row> {
        let row = |(serial, lease): (&u64, &Lease)| {
            let worker = lease.worker.and_then(|worker| self.workers.get(&worker));
            let process = worker.and_then(|worker| match &worker.stage {
                worker::Stage::Running(process) => Some(process.pid()),
                _ => None,
            });
            let progress = worker.filter(|_| process.is_some()).map(|worker| worker.ring.progress());
            let call = progress.and_then(|progress| progress.running());
            let operation = progress.and_then(|progress| progress.operation());
            let state = match (&lease.given.plugin, &lease.program, process) {
                (None, ..) => "slots only",
                (Some(_), None, _) => "waiting for plugin",
                (Some(_), Some(_), None) => "starting",
                (Some(_), Some(_), Some(_)) if call.is_some() => "running",
                (Some(_), Some(_), Some(_)) => "idle",
            };
            Row::Worker(WorkerRow {
                node: ctx.me.name.clone(),
                serial: *serial,
                app: lease.given.app,
                app_name: lease.given.app_name.clone(),
                user: lease.given.user.clone(),
                pid: process.unwrap_or(0),
                slots: lease.given.slots,
                operation: operation.and_then(|operation| lease.operation_name(operation)).map(str::to_owned),
                held_ms: (ctx.now - lease.begun).as_millis() as u64,
                state: state.to_owned(),
                used: process.and_then(|process| uses.get(&process).copied()),
            })
        };
        let is_meant = |lease: &Lease| app.is_none_or(|app| lease.given.app == app);
        let mut leases: Vec<_> = self.leases.iter().filter(|(_, lease)| is_meant(lease)).collect();
        leases.sort_by_key(|(serial, _)| **serial);
        leases.into_iter().map(row).collect()
    }

    /// The node goes down: end every worker and template now.
    pub fn leave(&mut self, _ctx: &mut Context) {
        for worker in self.workers.values() {
            if let worker::Stage::Running(process) = &worker.stage {
                process.kill();
            }
        }
        for running in self.templates.values().filter_map(|template| template.running.as_ref()) {
            running.process.kill();
            process::kill_session(running.process.pid());
        }
    }
}

const READ: Interest = Interest::READABLE;
const BOTH: Interest = Interest::READABLE.add(Interest::WRITABLE);

fn key(kind: u64, number: u64) -> u64 {
    debug_assert!(number >> KIND_SHIFT == 0);
    kind << KIND_SHIFT | number
}

fn held(level: Level, minimum: Level) -> Held {
    if level < minimum {
        let why = format!("this machine confines workers to level `{level}`; its owner demands `{minimum}`");
        Held::TooLittle(why)
    } else if level < Level::Files {
        let why = format!(
            "this machine confines workers to level `{level}` only, so it runs nothing but its owner's own plugins"
        );
        Held::OwnOnly(why)
    } else {
        Held::Well
    }
}

/// Removes a directory that a worker could write to.
fn remove_directory(ctx: &Context, directory: PathBuf) {
    ctx.jobs.run(move || {
        match std::fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!("{} cannot be removed: {error}", directory.display());
            }
            _ => {}
        }
        JobDone::Lender(Done(()))
    });
}

/// What the calls of a lease are told about its end.
fn end_words(end: &LeaseEnd) -> String {
    match end {
        LeaseEnd::Killed(why) => format!("the lease was ended: {why}"),
        LeaseEnd::CannotRun(why) => format!("the plugin cannot run there: {why}"),
        LeaseEnd::LimitReached => "the longest life of the lease is over".into(),
        LeaseEnd::Reclaimed => "the owner needs the machine".into(),
        LeaseEnd::Leaving => "the lender is going down".into(),
        _ => "the lease ended".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn below_files_only_own_plugins_run_and_below_the_demand_none() {
        assert_eq!(held(Level::Full, Level::None), Held::Well);
        assert_eq!(held(Level::Files, Level::Files), Held::Well);
        assert!(matches!(held(Level::Basic, Level::None), Held::OwnOnly(why) if why.contains("`basic`")));
        assert!(matches!(held(Level::None, Level::None), Held::OwnOnly(_)));
        let weak = held(Level::Files, Level::Full);
        assert!(matches!(weak, Held::TooLittle(why) if why.contains("`files`") && why.contains("`full`")));
    }
}
