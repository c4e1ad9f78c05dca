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
//! | [`served`] | moves calls between the stream of a lease and the ring of its worker |
//! | [`process`] | names and ends processes that are not this one's children |
//! | [`ending`], [`tail`] | say why a worker ended, with its last lines |
//! | [`seats`] | gives out places on the spin board |

mod ending;
mod lease;
mod process;
mod seats;
mod served;
mod starter;
mod tail;
mod template;
mod worker;

use crate::context::{Action, Assignment, Context, Done as JobDone, Owner, Readiness};
use crate::error::Error;
use crate::options::WorkerConfig;
use crate::plugins::{Plugins, Program};
use core::time::Duration;
use ending::{Evidence, OomWatch};
use lease::Lease;
use mio::Interest;
use mutirao_confine::{Level, Plan, Report};
use mutirao_ring::{Bell, Ringer};
use mutirao_schedule::serve::Output as Order;
use mutirao_tree::Held;
use mutirao_wire::frame::Header;
use mutirao_wire::lease::{LeaseEnd, WorkerState};
use mutirao_wire::limits::TEXT_BYTES_MAX;
use mutirao_wire::query::{Confinement, Row, WorkerRow};
use mutirao_wire::stream::failure;
use mutirao_wire::worker::{Exited, Fork, Forked, PLACE_ENV, PLACE_OWN, WorkerMessage};
use mutirao_wire::{AppId, CallId, PluginId, Tick};
use process::{Claim, Process};
use seats::Seats;
use starter::{Host, Started, Starter};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use tail::Tail;
use template::{ChannelError, Key, Running, Stage, Template};
use worker::{Equipment, Ring, Worker};

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
/// A part of a call of so many bytes goes into the ring at once, so that the worker reads while the next comes.
const LARGE: usize = 16 * 1024;
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
        if body.len() >= LARGE {
            self.pump(ctx, serial);
        } else {
            self.dirty.insert(serial);
        }
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

    /// A `Row::Worker` for each lease.
    pub fn rows(&self, ctx: &Context) -> Vec<Row> {
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
            })
        };
        let mut leases: Vec<_> = self.leases.iter().collect();
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

/// Leases and their calls.
impl Lender {
    /// The plugin of a lease is here: gives it a worker.
    fn provide(&mut self, ctx: &mut Context, serial: u64, program: Option<Program>) {
        let Some(program) = program else {
            return self.give_up(ctx, serial, "its plugin was removed from this node's cache".into());
        };
        if let Some(lease) = self.leases.get_mut(&serial) {
            lease.program = Some(program);
        }
        self.staff(ctx, serial);
    }

    /// Forks a worker for a lease that lacks one, or starts the template that will.
    fn staff(&mut self, ctx: &mut Context, serial: u64) {
        let Some(lease) = self.leases.get(&serial).filter(|lease| lease.lacks_worker()) else { return };
        let (Some(key), Some(program)) = (lease.key(), lease.program.clone()) else { return };
        let known = self.by_key.get(&key).copied();
        let template = match known {
            Some(template) => template,
            None => match self.start_template(&ctx.config.worker, key, program) {
                Ok(template) => template,
                Err(error) => {
                    return self.give_up(ctx, serial, format!("no process can be started: {error}"));
                }
            },
        };
        let Some(found) = self.templates.get_mut(&template) else { return };
        found.idle_since = None;
        if found.stage == Stage::Up {
            self.fork(ctx, serial, template);
        } else {
            ctx.actions.push(Action::Worker { serial, state: WorkerState::Starting });
        }
    }

    /// Moves what can be moved between the stream of a lease and its worker.
    fn pump(&mut self, ctx: &mut Context, serial: u64) {
        let Some(lease) = self.leases.get_mut(&serial) else { return };
        let Some(served) = lease.served.as_mut() else { return };
        let worker = lease.worker.and_then(|worker| self.workers.get_mut(&worker));
        let fault = match worker {
            Some(Worker { ring: Ring::Remote { end, .. }, stage: worker::Stage::Running(_), .. }) => {
                match served.pump(ctx, serial, end) {
                    Ok(true) => {
                        self.dirty.insert(serial);
                        None
                    }
                    Ok(false) => None,
                    Err(fault) => Some(fault),
                }
            }
            _ => None,
        };
        served.flush(ctx, serial);
        let orders = served.take_orders();
        if let (Some(fault), Some(number)) = (fault, lease.worker) {
            if let Some(worker) = self.workers.get_mut(&number) {
                worker.tail.push(format!("\nits node: {fault}\n").as_bytes());
            }
            self.order_end(number, failure::WORKER_ENDED);
        }
        for order in orders {
            self.obey(ctx, serial, order);
        }
    }

    fn obey(&mut self, ctx: &mut Context, serial: u64, order: Order) {
        match order {
            Order::KillWorker { call, code } => {
                let Some(number) = self.leases.get(&serial).and_then(|lease| lease.worker) else { return };
                let Some(worker) = self.workers.get(&number) else { return };
                let running = worker.ring.progress().running();
                if call.is_none_or(|call| running == Some(call.0)) {
                    self.order_end(number, code);
                }
            }
            Order::Violation(violation) => {
                let end = LeaseEnd::Killed(format!("its home broke the protocol: {violation}"));
                ctx.actions.push(Action::End { serial, end });
            }
        }
    }

    fn calls_in_time(&mut self, ctx: &mut Context) {
        let now = ctx.now;
        let due = |lease: &Lease| {
            lease.served.as_ref().and_then(|served| served.deadline()).is_some_and(|deadline| deadline <= now)
        };
        let due: Vec<u64> =
            self.leases.iter().filter(|(_, lease)| due(lease)).map(|(serial, _)| *serial).collect();
        for serial in due {
            // What the worker has answered by now counts.
            self.pump(ctx, serial);
            if let Some(served) = self.leases.get_mut(&serial).and_then(|lease| lease.served.as_mut()) {
                served.time(now);
            }
            self.pump(ctx, serial);
        }
    }

    /// Nothing serves the lease any more, and nothing will.
    fn lease_over(&mut self, ctx: &mut Context, serial: u64) {
        let Some(mut lease) = self.leases.remove(&serial) else { return };
        if let Some(served) = &mut lease.served {
            served.lease_ends(ctx.now, None, lease.ending.as_deref().unwrap_or("the lease ended"));
            served.flush(ctx, serial);
        }
        self.dirty.remove(&serial);
        self.released.extend(lease.given.plugin.as_ref().map(|plugin| plugin.id));
        let app = lease.given.app;
        if !self.leases.values().any(|other| other.given.app == app) {
            self.bells.remove(&app);
            if self.gone.remove(&app) {
                self.end_templates_of(app);
            }
        }
        if let Some(key) = lease.key()
            && !self.leases.values().any(|other| other.key() == Some(key))
        {
            self.rest(ctx.now, key);
        }
        ctx.actions.push(Action::Gone { serial });
    }

    /// Ends a lease that cannot be served.
    fn give_up(&mut self, ctx: &mut Context, serial: u64, why: String) {
        let Some(lease) = self.leases.get_mut(&serial).filter(|lease| !lease.given_up) else { return };
        lease.given_up = true;
        // It has to fit into a frame on a control connection.
        let why = crate::sys::shortened(why, TEXT_BYTES_MAX);
        ctx.actions.push(Action::End { serial, end: LeaseEnd::CannotRun(why) });
    }
}

/// Templates.
impl Lender {
    fn templates_that(&self, are: impl Fn(&Template) -> bool) -> Vec<u64> {
        self.templates.iter().filter(|(_, template)| are(template)).map(|(number, _)| *number).collect()
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn start_template(&mut self, limits: &WorkerConfig, key: Key, program: Program) -> io::Result<u64> {
        let number = self.number();
        let directory = self.directory.join(number.to_string());
        let mut plan = Plan::new(program.executable(), &program.directory, &directory);
        if program.manifest.files.len() > 1 {
            plan.library_dirs.push(program.directory.clone());
        }
        plan.minimum = self.minimum;
        // Each worker gets a process group of its own.
        plan.lock_group = false;
        plan.network = limits.network;
        let memory_mib = Some(key.memory_mib).filter(|memory_mib| *memory_mib > 0).or(limits.memory_mib);
        plan.limits.memory_bytes = memory_mib.map(|memory_mib| u64::from(memory_mib) << 20);
        plan.limits.open_files = limits.files.or(plan.limits.open_files);
        plan.limits.processes = limits.processes.or(plan.limits.processes);
        plan.writable = self.shared.clone();
        if key.as_user {
            plan.confined = false;
            // Those that protect an owner from others are not for the owner's own commands.
            plan.limits.file_bytes = None;
            plan.limits.open_files = limits.files;
            plan.limits.processes = limits.processes;
        }
        self.starter.start(number, plan)?;
        let template = Template {
            key,
            program,
            directory,
            stage: Stage::Starting,
            tail: Tail::default(),
            idle_since: None,
            running: None,
        };
        self.templates.insert(number, template);
        self.by_key.insert(key, number);
        Ok(number)
    }

    fn started(&mut self, ctx: &mut Context, number: u64, result: io::Result<Started>) {
        let Some(template) = self.templates.get_mut(&number) else { return };
        let running = match result {
            Ok(started) => template.running.insert(Running::from(started)),
            Err(error) => {
                let why = format!("`{}` cannot be started: {error}", template.program.manifest.name);
                return self.template_gone(ctx, number, Some(why));
            }
        };
        let watched = ctx
            .watch(running.channel().as_fd(), Owner::Lender, key(TEMPLATE_CHANNEL, number), BOTH)
            .and_then(|()| {
                ctx.watch(running.stderr.as_fd(), Owner::Lender, key(TEMPLATE_STDERR, number), READ)
            })
            .and_then(|()| {
                ctx.watch(running.process.as_fd(), Owner::Lender, key(TEMPLATE_PROCESS, number), READ)
            });
        if template.stage == Stage::Starting {
            template.stage = Stage::Silent(ctx.now);
        } else {
            running.process.kill();
        }
        if let Err(error) = watched {
            self.template_failed(ctx, number, &format!("cannot be watched ({error})"));
        }
    }

    fn template_speaks(&mut self, ctx: &mut Context, number: u64, readiness: Readiness) {
        let Some(running) = self.templates.get_mut(&number).and_then(|template| template.running.as_mut())
        else {
            return;
        };
        let mut messages = Vec::new();
        let mut result = if readiness.readable { running.receive(&mut messages) } else { Ok(()) };
        if result.is_ok() && readiness.writable {
            result = running.flush();
        }
        for message in messages {
            self.template_says(ctx, number, message);
        }
        match result {
            // Its end follows, with the reason.
            Ok(()) | Err(ChannelError::Closed | ChannelError::System(_)) => {}
            Err(error) => {
                tracing::warn!("a template is ended: {error}");
                self.end_template(number);
            }
        }
    }

    fn template_says(&mut self, ctx: &mut Context, number: u64, message: WorkerMessage) {
        let Some(template) = self.templates.get_mut(&number) else { return };
        match (template.stage, message) {
            (Stage::Silent(_), WorkerMessage::WorkerHello(hello)) => match template.check(&hello) {
                Ok(()) => {
                    template.stage = Stage::Up;
                    let key = template.key;
                    let waiting: Vec<u64> = self
                        .leases
                        .iter()
                        .filter(|(_, lease)| lease.key() == Some(key))
                        .map(|(s, _)| *s)
                        .collect();
                    for serial in &waiting {
                        self.staff(ctx, *serial);
                    }
                    if waiting.is_empty() {
                        self.rest(ctx.now, key);
                    }
                }
                Err(why) => self.refuse_template(ctx, number, &why),
            },
            (Stage::Up, WorkerMessage::Forked(forked)) => self.forked(ctx, number, forked),
            (Stage::Up | Stage::Ending, WorkerMessage::Exited(exited)) => self.exited(ctx, number, exited),
            (Stage::Ending, _) => {}
            (_, other) => {
                tracing::warn!("a template says {:?} out of turn and is ended", other.kind());
                self.end_template(number);
            }
        }
    }

    /// Nobody needs the templates of this key now. Too many that nobody needs: the longest idle goes.
    fn rest(&mut self, now: Tick, key: Key) {
        let Some(template) = self.by_key.get(&key).and_then(|number| self.templates.get_mut(number)) else {
            return;
        };
        template.idle_since = Some(now);
        let idle =
            self.templates_that(|template| template.idle_since.is_some() && template.stage != Stage::Ending);
        if idle.len() > IDLE_MAX
            && let Some(oldest) = idle.into_iter().min_by_key(|number| self.templates[number].idle_since)
        {
            self.end_template(oldest);
        }
    }

    fn end_templates_of(&mut self, app: AppId) {
        for template in self.templates_that(|template| template.key.app == app) {
            self.end_template(template);
        }
    }

    /// A template did not become one: tells every lease that waits for it.
    fn template_failed(&mut self, ctx: &mut Context, number: u64, how: &str) {
        if let Some(template) = self.templates.get(&number) {
            let why = template.silent_end(how);
            self.refuse_template(ctx, number, &why);
        }
    }

    fn refuse_template(&mut self, ctx: &mut Context, number: u64, why: &str) {
        let Some(key) = self.templates.get(&number).map(|template| template.key) else { return };
        let concerned: Vec<u64> = self
            .leases
            .iter()
            .filter(|(_, lease)| lease.key() == Some(key))
            .map(|(serial, _)| *serial)
            .collect();
        for serial in concerned {
            self.give_up(ctx, serial, why.to_owned());
        }
        self.end_template(number);
    }

    /// Ends a template; what follows comes with the end of its process.
    fn end_template(&mut self, number: u64) {
        let Some(template) = self.templates.get_mut(&number) else { return };
        template.stage = Stage::Ending;
        if self.by_key.get(&template.key) == Some(&number) {
            self.by_key.remove(&template.key);
        }
        if let Some(running) = &template.running {
            running.process.kill();
        }
    }

    /// The process of a template has ended.
    fn template_over(&mut self, ctx: &mut Context, number: u64) {
        // What it said and wrote last is still to be read.
        self.template_speaks(ctx, number, Readiness { readable: true, writable: false, closed: true });
        self.read_stderr(ctx.now, key(TEMPLATE_STDERR, number));
        self.unread.remove(&key(TEMPLATE_STDERR, number));
        let Some(template) = self.templates.get_mut(&number) else { return };
        let status = template.running.as_mut().and_then(Running::wait);
        let session = template.running.as_ref().map(|running| running.process.pid());
        let was_silent = matches!(template.stage, Stage::Silent(_));
        let evidence = Evidence {
            operation: None,
            wait_status: status,
            system_out_of_memory: false,
            ordered: None,
            tail: &Tail::default(),
        };
        let how = evidence.judge().cause;
        let how = how.strip_prefix("worker ").unwrap_or(&how);
        let why = was_silent.then(|| template.silent_end(how));
        if template.stage == Stage::Up {
            tracing::warn!("the template of `{}` {how}", template.program.manifest.name);
        }
        if let Some(session) = session {
            ctx.jobs.run(move || {
                process::kill_session(session);
                JobDone::Lender(Done(()))
            });
        }
        self.template_gone(ctx, number, why);
    }

    /// A template is no more. Its leases get another one, or, with a reason, are given up.
    fn template_gone(&mut self, ctx: &mut Context, number: u64, why: Option<String>) {
        self.end_template(number);
        let Some(template) = self.templates.remove(&number) else { return };
        let its = self.workers.iter().filter(|(_, worker)| worker.template == number);
        for worker in its.map(|(number, _)| *number).collect::<Vec<_>>() {
            match self.workers.get(&worker).map(|worker| &worker.stage) {
                // Its own end follows.
                Some(worker::Stage::Running(process)) => process.kill(),
                _ => self.worker_over(ctx, worker),
            }
        }
        remove_directory(ctx, template.directory);
        let concerned: Vec<u64> = self
            .leases
            .iter()
            .filter(|(_, lease)| lease.key() == Some(template.key) && lease.lacks_worker())
            .map(|(serial, _)| *serial)
            .collect();
        for serial in concerned {
            match &why {
                Some(why) => self.give_up(ctx, serial, why.clone()),
                None => self.replace(ctx, serial, false, "its template ended"),
            }
        }
    }
}

/// Workers.
impl Lender {
    fn fork(&mut self, ctx: &mut Context, serial: u64, template: u64) {
        let number = self.number();
        let Some(lease) = self.leases.get(&serial) else { return };
        let Some(of) = self.templates.get(&template) else { return };
        let (directory, app, slots, local) =
            (of.directory.join(number.to_string()), lease.given.app, lease.given.slots, lease.given.local);
        let mut environment = lease.environment();
        environment.extend(self.place(lease.given.as_user));
        let equipped = self.equip(&directory, local.then_some(app));
        let Equipment { ring, stderr, line, descriptors } = match equipped {
            Ok(equipment) => equipment,
            Err(why) => return self.give_up(ctx, serial, format!("no worker can be equipped: {why}")),
        };
        let mut watched = ctx.watch(stderr.as_fd(), Owner::Lender, key(WORKER_STDERR, number), READ);
        if let Ring::Remote { bell, .. } = &ring {
            watched = watched.and(ctx.watch(bell.as_fd(), Owner::Lender, key(WORKER_BELL, number), READ));
        }
        if let Err(error) = watched {
            return self.give_up(ctx, serial, format!("no worker can be watched: {error}"));
        }
        let seat = self.seats.take();
        let fork = Fork {
            worker: number,
            spinner: u32::from(seat),
            slots,
            directory: directory.to_string_lossy().into_owned(),
            environment,
        };
        let worker = Worker {
            serial,
            template,
            seat,
            directory,
            stderr,
            tail: Tail::default(),
            ring,
            stage: worker::Stage::Forking(ctx.now),
            ordered: None,
            wait_status: None,
            line: Some(line),
        };
        self.workers.insert(number, worker);
        if let Some(lease) = self.leases.get_mut(&serial) {
            lease.worker = Some(number);
        }
        let running = self.templates.get_mut(&template).and_then(|template| template.running.as_mut());
        if let Some(Err(error)) = running.map(|running| running.send(&fork.into(), descriptors)) {
            tracing::warn!("a template cannot be reached and is ended: {error}");
            self.end_template(template);
        }
    }

    /// What tells a worker which files it may touch beside its own.
    fn place(&self, as_user: bool) -> Option<(String, String)> {
        let shared: Vec<String> = self.shared.iter().map(|path| path.display().to_string()).collect();
        let place = match (as_user, shared.is_empty()) {
            (true, _) => PLACE_OWN.to_owned(),
            (false, false) => format!("shared={}", shared.join(":")),
            (false, true) => return None,
        };
        Some((PLACE_ENV.to_owned(), place))
    }

    fn equip(
        &mut self,
        directory: &std::path::Path,
        local: Option<AppId>,
    ) -> Result<Equipment, worker::EquipError> {
        let board = self.seats.board()?;
        let Some(app) = local else { return Equipment::make(directory, board, None) };
        let bell = match self.bells.entry(app) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => entry.insert(Bell::pair()?),
        };
        Equipment::make(directory, board, Some(bell))
    }

    fn forked(&mut self, ctx: &mut Context, template: u64, forked: Forked) {
        let parent = self.templates.get(&template).and_then(|template| template.running.as_ref());
        let Some(parent) = parent.map(|running| running.process.pid()) else { return };
        let Some(worker) = self.workers.get_mut(&forked.worker).filter(|worker| worker.template == template)
        else {
            return self.end_template(template);
        };
        let worker::Stage::Forking(asked) = worker.stage else { return self.end_template(template) };
        let pid = match forked.pid {
            Ok(pid) => pid,
            Err(errno) => {
                let error = io::Error::from_raw_os_error(errno);
                worker.tail.push(format!("its template could not fork: {error}\n").as_bytes());
                worker.stage = worker::Stage::Ended { since: ctx.now, group: None };
                return self.worker_over(ctx, forked.worker);
            }
        };
        match Process::claimed_by(parent, pid) {
            Claim::True(process) => {
                let watched =
                    ctx.watch(process.as_fd(), Owner::Lender, key(WORKER_PROCESS, forked.worker), READ);
                let serial = worker.serial;
                let unwanted = worker.ordered.is_some() || watched.is_err();
                if unwanted {
                    process.kill();
                }
                // One that cannot be watched is over without its end being seen.
                worker.stage = match watched {
                    Ok(()) => worker::Stage::Running(process),
                    Err(_) => worker::Stage::Ended { since: ctx.now, group: Some(pid) },
                };
                if !unwanted {
                    tracing::debug!(
                        serial,
                        took_us = (ctx.now - asked).as_micros() as u64,
                        "a worker is ready"
                    );
                    self.worker_ready(ctx, serial);
                }
            }
            Claim::Ended => {
                worker.stage = worker::Stage::Ended { since: ctx.now, group: Some(pid) };
            }
            Claim::False => {
                tracing::warn!("a template names a process that is not its own, and is ended");
                self.end_template(template);
            }
        }
    }

    fn worker_ready(&mut self, ctx: &mut Context, serial: u64) {
        let Some(lease) = self.leases.get_mut(&serial) else { return };
        if let Some(served) = &mut lease.served {
            served.worker_ready(ctx.now);
        }
        ctx.actions.push(Action::Worker { serial, state: WorkerState::Ready });
        self.pump(ctx, serial);
    }

    /// Ends a worker; `code` says why, for its calls.
    fn order_end(&mut self, number: u64, code: u32) {
        let Some(worker) = self.workers.get_mut(&number) else { return };
        worker.ordered.get_or_insert(code);
        if let worker::Stage::Running(process) = &worker.stage {
            process.kill();
        }
    }

    /// The process of a worker has ended; its template says how.
    fn worker_ended(&mut self, ctx: &mut Context, number: u64) {
        let Some(worker) = self.workers.get_mut(&number) else { return };
        let worker::Stage::Running(process) = &worker.stage else { return };
        worker.stage = worker::Stage::Ended { since: ctx.now, group: Some(process.pid()) };
        ctx.actions.push(Action::WorkerGone { serial: worker.serial });
        let known = worker.wait_status.is_some() || !self.templates.contains_key(&worker.template);
        // How it ended matters to nobody if the node ended it.
        if known || worker.ordered.is_some() {
            self.worker_over(ctx, number);
        }
    }

    fn exited(&mut self, ctx: &mut Context, template: u64, exited: Exited) {
        let Some(worker) = self.workers.get_mut(&exited.worker).filter(|worker| worker.template == template)
        else {
            return;
        };
        worker.wait_status = Some(exited.wait_status);
        if matches!(worker.stage, worker::Stage::Ended { .. }) {
            self.worker_over(ctx, exited.worker);
        }
    }

    /// A worker is gone and all that can be known about its end is known.
    fn worker_over(&mut self, ctx: &mut Context, number: u64) {
        self.read_stderr(ctx.now, key(WORKER_STDERR, number));
        self.unread.remove(&key(WORKER_STDERR, number));
        let Some(mut worker) = self.workers.remove(&number) else { return };
        self.seats.give_back(worker.seat);
        // A worker leads a session of its own, of the same number.
        if let worker::Stage::Ended { group: Some(group), .. } = worker.stage
            && process::group_exists(group)
        {
            ctx.jobs.run(move || {
                process::kill_session(group);
                JobDone::Lender(Done(()))
            });
        }
        remove_directory(ctx, worker.directory.clone());

        let serial = worker.serial;
        ctx.actions.push(Action::WorkerGone { serial });
        let Some(lease) = self.leases.get_mut(&serial).filter(|lease| lease.worker == Some(number)) else {
            return;
        };
        lease.worker = None;
        let call = worker.ring.progress().running();
        let operation = worker.ring.progress().operation();
        let ending = Evidence {
            operation: operation.and_then(|operation| lease.operation_name(operation)),
            wait_status: worker.wait_status,
            system_out_of_memory: self.oom.has_struck(),
            ordered: worker.ordered,
            tail: &worker.tail,
        }
        .judge();
        let served_calls = call.is_some() || worker.ring.progress().finished() > 0;
        if let Some(why) = &lease.ending {
            if let (Some(served), Ring::Remote { end, .. }) = (&mut lease.served, &mut worker.ring) {
                served.lease_ends(ctx.now, Some(end), why);
                served.flush(ctx, serial);
            }
            return self.lease_over(ctx, serial);
        }
        match (&mut lease.served, &mut worker.ring) {
            (Some(served), Ring::Remote { end, .. }) => {
                served.worker_gone(ctx.now, end, ending.code, &ending.cause);
                served.flush(ctx, serial);
            }
            _ => {
                let (code, cause) = (ending.code, ending.cause.clone());
                ctx.actions.push(Action::WorkerEnded { serial, code, cause });
            }
        }
        self.replace(ctx, serial, served_calls || worker.ordered.is_some(), &ending.cause);
    }

    /// Gives a lease whose worker is gone another one, unless that is of no use.
    fn replace(&mut self, ctx: &mut Context, serial: u64, worked: bool, cause: &str) {
        let now = ctx.now;
        let Some(lease) = self.leases.get_mut(&serial) else { return };
        if worked {
            lease.forgive();
        } else if lease.strike(now) {
            return self.give_up(
                ctx,
                serial,
                format!("its workers end again and again before any call; the last: {cause}"),
            );
        }
        self.staff(ctx, serial);
    }

    /// Reads the standard error of a template or a worker; what is left is read in the next turn.
    fn read_stderr(&mut self, now: Tick, key: u64) {
        let number = key & ((1 << KIND_SHIFT) - 1);
        let (pipe, tail) = if key >> KIND_SHIFT == TEMPLATE_STDERR {
            let Some(template) = self.templates.get_mut(&number) else { return };
            let Some(running) = &template.running else { return };
            (running.stderr.as_fd(), &mut template.tail)
        } else {
            let Some(worker) = self.workers.get_mut(&number) else { return };
            (worker.stderr.as_fd(), &mut worker.tail)
        };
        let mut bytes = [0; 4096];
        let mut read = 0;
        while read < STDERR_A_TURN {
            match rustix::io::read(pipe, &mut bytes) {
                Ok(0) => return,
                Ok(count) => {
                    tail.push(&bytes[..count]);
                    read += count;
                }
                Err(rustix::io::Errno::INTR) => {}
                // Nothing more for now, or never again.
                Err(_) => return,
            }
        }
        self.unread.insert(key);
        self.unread_until.get_or_insert(now + STDERR_PAUSE);
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
