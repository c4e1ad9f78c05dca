//! The keeper of a bag: drives it, between its journal, its workers and those who give it orders.

mod programs;
mod showing;

use super::control::{self, Asked, Back, Order};
use super::credibility;
use super::leases::{Change, Granted, Leases};
use super::member::{self, Led, order_of};
use super::outputs::{self, NotKept, Outputs};
use super::place::{Place, now_ms};
use super::session::{self, Sessions};
use super::shared::{Heard, Shared};
use super::work::{self, Outcome};
use anyhow::{Context, Result, bail};
use mutirao::raw::{Call, CallOptions, Deliver, Finished, LeaseKey, Options, Pool, Slots};
use mutirao_bag::{Bag, Counts, End, Input, NodeStanding, Output, Record, Trust};
use mutirao_schedule::bag::Needs;
use mutirao_store::Journal;
use mutirao_wire::{BlobHash, NodeId, Tick};
use std::collections::{BTreeMap, VecDeque};
use std::io::Write;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// When the disk is full, it is tried again after so long.
const DISK_RETRY: Duration = Duration::from_secs(2);
/// A worker gets so much longer than the task's own limit, which it keeps itself.
const LIMIT_MARGIN: Duration = Duration::from_secs(10);
/// Events taken before the journal is written: many results share one wait for the disk.
pub const BATCH: usize = 512;

/// What reaches the keeper.
pub enum Event {
    Ended {
        attempt: u64,
        finished: Finished,
    },
    Leases,
    Granted(Granted),
    /// No slot is free for what was asked.
    Short {
        needs: Needs,
        why: String,
    },
    /// No node can start a worker; why.
    Nowhere(String),
    PoolLost(mutirao::Error),
    Order(Asked),
    /// Another member of the bag says something.
    Said {
        from: NodeId,
        bytes: Vec<u8>,
    },
    /// The node of this member is gone.
    NodeLost(String),
    /// A program that has the bag open says something.
    Program(session::Said),
    /// Somebody wants the keeper to stop. The bag stays.
    Stop,
}

/// How the keeping ended.
pub enum Kept {
    /// Nothing is left to do.
    Over(Counts),
    /// It was told to stop.
    Stopped,
    /// Another member keeps the bag now.
    Moved,
}

/// How a keeper goes about it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Manner {
    /// Standard output of tasks is printed as their results come to count.
    pub prints: bool,
    /// Progress is shown.
    pub shows: bool,
    /// A byte on standard output says that orders are heard, and then nothing more is written there.
    pub tells_ready: bool,
    /// Standard input is a program that has the bag open; whether the bag is its alone.
    pub session: Option<bool>,
}

/// Where records and what tasks have written go.
enum Log {
    /// Into files of this machine.
    Alone { journal: Journal, outputs: Outputs },
    /// To all members.
    Shared(Box<Shared>),
}

struct Keeper {
    place: Place,
    bag: Bag,
    log: Log,
    pool: Pool,
    /// The operation that runs commands.
    operation: u32,
    /// Programs that have the bag open.
    sessions: Sessions,
    /// It ended with the program whose it was: nothing of it is to stay.
    abandoned: bool,
    leases: Leases,
    sender: Sender<Event>,
    born: Instant,
    /// Attempts under way, each with its call.
    calls: BTreeMap<u64, (Call, Instant)>,
    /// Attempts that could not be sent.
    unsent: Vec<(u64, Outcome)>,
    /// Results that wait for room on the disk.
    held: VecDeque<(u64, Outcome)>,
    /// What happened while the journal was to be written anew.
    later: VecDeque<Event>,
    /// Records appended in this life, and of these on the disk.
    appended: u64,
    synced: u64,
    must_sync: bool,
    disk_retry: Option<Instant>,
    /// It was said that there is no room, and there has been none since.
    no_room_said: bool,
    over: bool,
    manner: Manner,
    bar: Option<indicatif::ProgressBar>,
    list_due: Option<Instant>,
    /// How many were where when it was written last.
    listed: Counts,
    watchers: Vec<control::Watcher>,
    /// Answers that wait until so many records count.
    answers: VecDeque<(u64, Back, usize)>,
    /// Orders from other members of which more is to come.
    parts: BTreeMap<(usize, u64), Vec<u8>>,
    moved: bool,
    /// What was learnt of nodes, to be kept for other bags.
    learnt: Vec<(NodeId, String, NodeStanding)>,
}

/// Keeps a bag until it is over.
pub fn keep(place: Place, node: Option<String>, manner: Manner) -> Result<Kept> {
    let (bag, journal, found) = place.open()?;
    if found.damaged_bytes > 0 && !found.torn {
        eprintln!(
            "mutirao: the journal of bag {} was damaged; {} bytes were cut off and kept as journal.damaged in {}",
            place.id,
            found.damaged_bytes,
            place.directory().display()
        );
    }
    let (sender, events) = channel();
    control::listen(&place, &sender)?;
    signals(&sender)?;
    if manner.tells_ready {
        tell_ready().context("whoever started the keeper is gone")?;
    }
    mutirao::raw::init(crate::operations())?;
    let log = Log::Alone { journal, outputs: Outputs::open(&place.outputs())? };
    let mut keeper = Keeper::new(place, bag, log, node, manner, &sender)?;
    keeper.settle_again()?;
    if let Some(owns) = manner.session {
        keeper.open_session(super::programs::stdin()?, owns)?;
    } else if keeper.bag.is_over() {
        return Ok(Kept::Over(keeper.bag.counts()));
    }
    let kept = keeper.run(&events);
    keeper.end();
    if keeper.abandoned && matches!(kept, Ok(Kept::Over(_))) {
        keeper.place.remove_all()?;
    }
    kept
}

/// Says that the bag is in good hands.
fn tell_ready() -> std::io::Result<()> {
    std::io::stdout().write_all(b"\n")?;
    std::io::stdout().flush()?;
    let null = std::fs::OpenOptions::new().write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdout(null)?;
    Ok(())
}

/// Keeps a bag as the leading one of its members.
pub fn lead(
    place: Place,
    bag: Bag,
    shared: Shared,
    watchers: Vec<control::Watcher>,
    node: &str,
    sender: &Sender<Event>,
    events: &Receiver<Event>,
) -> Result<Led> {
    let log = Log::Shared(Box::new(shared));
    let mut keeper = Keeper::new(place, bag, log, Some(node.to_owned()), Manner::default(), sender)?;
    keeper.watchers = watchers;
    let kept = keeper.run(events);
    keeper.end();
    let kept = kept?;
    let back = match (&kept, keeper.log) {
        (Kept::Over(_), Log::Shared(shared)) => Some((keeper.place, keeper.bag, *shared)),
        _ => None,
    };
    Ok(Led { kept, back })
}

impl Keeper {
    fn new(
        place: Place,
        bag: Bag,
        log: Log,
        node: Option<String>,
        manner: Manner,
        sender: &Sender<Event>,
    ) -> Result<Keeper> {
        let mut options = Options {
            name: Some(format!("bag-{}", bag.settings().name)),
            node,
            slots: Slots::ByHand,
            // Elsewhere its user's files are not, or are those of another.
            as_user: match &log {
                Log::Alone { .. } => true,
                Log::Shared(shared) => shared.is_origin(),
            },
            ..Options::default()
        };
        if let Some(program) = &bag.settings().program {
            programs::offer(program, &place, &log, &mut options)?;
        }
        let is_program = options.foreign.is_some();
        let pool = Pool::open(options)?;
        let leases = Leases::start(&pool, bag.settings(), sender).context("cannot start a thread")?;
        Ok(Keeper {
            operation: if is_program { 0 } else { pool.operation(work::OPERATION)? },
            sessions: Sessions::default(),
            abandoned: false,
            bar: manner.shows.then(showing::bar),
            place,
            bag,
            log,
            pool,
            leases,
            sender: sender.clone(),
            born: Instant::now(),
            calls: BTreeMap::new(),
            unsent: Vec::new(),
            held: VecDeque::new(),
            later: VecDeque::new(),
            appended: 0,
            synced: 0,
            must_sync: false,
            disk_retry: None,
            no_room_said: false,
            over: false,
            manner,
            list_due: Some(Instant::now()),
            listed: Counts::default(),
            watchers: Vec::new(),
            learnt: Vec::new(),
            answers: VecDeque::new(),
            parts: BTreeMap::new(),
            moved: false,
        })
    }
}

/// Interrupts stop the keeper; the bag stays.
pub fn signals(sender: &Sender<Event>) -> Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let mut signals =
        signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot hear signals")?;
    let sender = sender.clone();
    let heard = move || signals.forever().take(1).for_each(|_| drop(sender.send(Event::Stop)));
    std::thread::Builder::new().name("signals".into()).spawn(heard).context("cannot start a thread")?;
    Ok(())
}

impl Keeper {
    fn now(&self) -> Tick {
        Tick(self.born.elapsed().as_micros() as u64 + 1)
    }

    fn run(&mut self, events: &Receiver<Event>) -> Result<Kept> {
        self.await_program();
        let mut out = Vec::new();
        let trust = if self.bag.compares() { credibility::trust()? } else { Trust::default() };
        self.bag.begin(self.now(), now_ms(), trust, &mut out)?;
        self.carry_out(out)?;
        loop {
            self.write()?;
            if self.moved {
                return Ok(Kept::Moved);
            }
            // One that was over and to which nothing was added is over still.
            let is_quiet = self.synced == self.appended && self.answers.is_empty();
            if self.over || (self.bag.is_over() && is_quiet && self.sessions.is_empty()) {
                self.write_list()?;
                return Ok(Kept::Over(self.bag.counts()));
            }
            self.sessions.tell(&self.bag);
            self.leases.want(self.bag.wanted(), || self.bag.avoided());
            self.show()?;
            let later = if self.is_held() { VecDeque::new() } else { std::mem::take(&mut self.later) };
            let first = match self.due() {
                _ if !later.is_empty() => None,
                None => Some(events.recv().context("all who tell the keeper something are gone")?),
                Some(due) => match events.recv_timeout(due.saturating_duration_since(Instant::now())) {
                    Ok(event) => Some(event),
                    Err(RecvTimeoutError::Timeout) => None,
                    Err(RecvTimeoutError::Disconnected) => {
                        bail!("all who tell the keeper something are gone")
                    }
                },
            };
            for event in later.into_iter().chain(first).chain(events.try_iter().take(BATCH)) {
                if self.is_held() && !matches!(event, Event::Said { .. } | Event::NodeLost(_) | Event::Stop) {
                    self.later.push_back(event);
                    continue;
                }
                if let Some(kept) = self.take(event)? {
                    self.write()?;
                    return Ok(kept);
                }
            }
            self.take_time()?;
        }
    }

    /// Whether nothing more is begun until all that was begun counts, so that the journal can be written anew: what
    /// counts and what is known here are the same then.
    fn is_held(&self) -> bool {
        match &self.log {
            Log::Alone { .. } => false,
            Log::Shared(shared) => shared.is_long() && self.synced < self.appended,
        }
    }

    /// When something is to be done although nothing happens.
    fn due(&self) -> Option<Instant> {
        let idle = self.bag.deadline().map(|due| self.born + Duration::from_micros(due.0));
        let at_once = (!self.unsent.is_empty()).then(Instant::now);
        let tick = match &self.log {
            Log::Alone { .. } => None,
            Log::Shared(shared) if self.is_held() => return Some(shared.next_tick()),
            Log::Shared(shared) => Some(shared.next_tick()),
        };
        [idle, self.disk_retry, at_once, self.list_due, tick].into_iter().flatten().min()
    }

    fn take(&mut self, event: Event) -> Result<Option<Kept>> {
        match event {
            Event::Ended { attempt, finished } => {
                if let Some((_, since)) = self.calls.remove(&attempt) {
                    let outcome = match self.bag.settings().program.is_some() {
                        true => Outcome::of_operation(finished.result, since.elapsed()),
                        false => Outcome::of(finished.result),
                    };
                    self.ended(attempt, outcome)?;
                }
            }
            Event::Leases => {
                let (leases, notes) = (self.pool.leases(), self.pool.notes());
                for change in self.leases.changes(&leases, &notes) {
                    self.tell(match change {
                        Change::Leaves(worker) => Input::WorkerLeaves(worker),
                        Change::Down(worker) => Input::WorkerDown(worker),
                    })?;
                }
            }
            Event::Granted(granted) => self.granted(granted)?,
            Event::Short { needs, why } => self.short(&needs, why),
            Event::Nowhere(why) => {
                self.leases.nowhere();
                self.tell(Input::Nowhere(why))?;
            }
            Event::PoolLost(error) => {
                return Err(error).with_context(|| {
                    format!("the bag stays as it is; `mutirao bag resume {}` goes on with it", self.place.id)
                });
            }
            Event::Order(asked) => self.obey(asked)?,
            Event::Said { from, bytes } => self.hear(from, &bytes)?,
            Event::NodeLost(why) => bail!("its node went away: {why}"),
            Event::Program(said) => self.said(said)?,
            Event::Stop => return Ok(Some(Kept::Stopped)),
        }
        Ok(None)
    }

    fn take_time(&mut self) -> Result<()> {
        let now = Instant::now();
        if self.is_held() {
            if let Log::Shared(shared) = &mut self.log {
                shared.tick(true);
            }
            return Ok(());
        }
        // Each may begin another in vain: what has happened to its lease is heard before that is tried again.
        for (attempt, outcome) in std::mem::take(&mut self.unsent) {
            self.ended(attempt, outcome)?;
        }
        if self.disk_retry.is_some_and(|due| due <= now) {
            self.disk_retry = None;
            for (attempt, outcome) in std::mem::take(&mut self.held) {
                self.ended(attempt, outcome)?;
            }
        }
        if self.bag.deadline().is_some_and(|due| due <= self.now()) {
            self.tell(Input::Time)?;
        }
        if self.list_due.is_some_and(|due| due <= now) {
            self.write_list()?;
        }
        if let Log::Shared(shared) = &mut self.log {
            shared.tick(true);
        }
        Ok(())
    }

    /// Another member says something.
    fn hear(&mut self, from: NodeId, bytes: &[u8]) -> Result<()> {
        let Log::Shared(shared) = &mut self.log else { return Ok(()) };
        let Heard::Order { from: member, number, last, bytes } = shared.hear(from, bytes) else {
            return Ok(());
        };
        let size: usize = self.parts.values().map(Vec::len).sum();
        let mut order = self.parts.remove(&(member, number)).unwrap_or_default();
        if size + bytes.len() > control::ORDER_BYTES_MAX as usize {
            return Ok(());
        }
        order.extend(bytes);
        if !last {
            self.parts.insert((member, number), order);
            return Ok(());
        }
        let back = Back::Member { member, number };
        match order_of(&order) {
            Ok(order) => self.obey(Asked { order, back }),
            Err(error) => {
                self.say(back, &Err(error));
                Ok(())
            }
        }
    }

    /// Tells what came of an order.
    fn say(&mut self, back: Back, answer: &Result<usize>) {
        let line = control::answer_line(answer);
        match &mut self.log {
            Log::Alone { .. } => control::answer_here(back, &line),
            Log::Shared(shared) => back.say(shared, &line),
        }
    }

    /// Lets go of everything but the bag.
    fn end(&mut self) {
        self.pool.close();
        self.end_showing();
        for (_, back, _) in std::mem::take(&mut self.answers) {
            let gone =
                anyhow::anyhow!("the keeper changed meanwhile; look with `mutirao bag show` what holds");
            self.say(back, &Err(gone));
        }
    }

    fn granted(&mut self, granted: Granted) -> Result<()> {
        match granted.result {
            Ok(allocation) => {
                for (worker, node) in self.leases.granted(&self.pool, &granted.needs, &allocation) {
                    let offers = granted.needs.clone();
                    self.tell(Input::WorkerUp { worker, id: node.id, node: node.name, offers })?;
                }
            }
            // Nothing came in all the time that the request has waited; it is made anew.
            Err(error @ (mutirao::Error::WaitedInVain(_) | mutirao::Error::NotEnough { .. })) => {
                self.leases.asked_in_vain(&granted.needs);
                self.short(&granted.needs, error.to_string());
            }
            Err(mutirao::Error::TimedOut { .. }) => self.leases.asked_in_vain(&granted.needs),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Tasks that need so much get no slot.
    fn short(&mut self, needs: &Needs, why: String) {
        if self.leases.short(needs, &why) {
            self.say_why(needs, &why);
        }
    }

    /// An attempt is over: what it left is put on the disk before anything is said about it.
    fn ended(&mut self, attempt: u64, mut outcome: Outcome) -> Result<()> {
        let mut spans = Default::default();
        let compares = outcome.end == End::Done && self.bag.compares();
        let result = compares.then(|| self.content_hash(attempt, &outcome)).flatten();
        if outcome.end == End::Done && self.bag.is_wanted(attempt) && !self.bag.is_check(attempt) {
            match self.put_outputs(attempt, &outcome)? {
                Ok(put) => (spans, self.no_room_said) = (put, false),
                Err(NotKept::Full(path)) => {
                    if !std::mem::replace(&mut self.no_room_said, true) {
                        eprintln!(
                            "mutirao: no room for {}; nothing is lost, and the bag goes on when there is room",
                            path.display()
                        );
                    }
                    self.disk_retry = Some(Instant::now() + DISK_RETRY);
                    self.held.push_back((attempt, outcome));
                    return Ok(());
                }
                Err(NotKept::Missing(name)) => outcome.end = End::NoOutput(name),
                Err(NotKept::Refused(path, error)) => {
                    outcome.end =
                        End::NoOutput(format!("{} (it cannot be written here: {error})", path.display()));
                }
            }
        }
        let last_words = outcome.last_words();
        let Outcome { end, cost, report, .. } = outcome;
        self.tell(Input::Ended { attempt, end, cost, last_words, outputs: spans, result, report })
    }

    /// What the result of an attempt is compared by.
    fn content_hash(&self, attempt: u64, outcome: &Outcome) -> Option<BlobHash> {
        let view = self.bag.attempt(attempt)?;
        let names = view.template.outputs.iter().map(|file| file.there.fill(&view.named));
        let names: Vec<String> = names.collect();
        let file = |name: &String| outcome.files.iter().find(|file| file.name == *name);
        let files = names.iter().filter_map(file).map(|file| (file.name.as_str(), file.bytes.as_slice()));
        Some(mutirao_bag::content_hash(&outcome.stdout, files, &outcome.report.text()))
    }

    fn put_outputs(
        &mut self,
        attempt: u64,
        outcome: &Outcome,
    ) -> Result<Result<(mutirao_bag::Span, mutirao_bag::Span), NotKept>> {
        let Some(task) = self.bag.task_of(attempt).and_then(|task| self.bag.task(task)) else {
            return Ok(Ok(Default::default()));
        };
        let put = match &mut self.log {
            Log::Alone { outputs, .. } => {
                if let Err(why) = outputs::keep(self.place.id, &self.bag, &task, attempt, &outcome.files) {
                    return Ok(Err(why));
                }
                let put = outputs.append(&outcome.stdout);
                put.and_then(|stdout| Ok((stdout, outputs.append(&outcome.stderr)?)))
            }
            Log::Shared(shared) => {
                for file in &task.template.outputs {
                    let there = file.there.fill(&task.named);
                    let Some(file) = outcome.files.iter().find(|file| file.name == there) else {
                        return Ok(Err(NotKept::Missing(there)));
                    };
                    shared.put_file(attempt, &there, file.executable, &file.bytes);
                }
                Ok((shared.put_output(&outcome.stdout), shared.put_output(&outcome.stderr)))
            }
        };
        match put {
            Ok(spans) => Ok(Ok(spans)),
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => {
                Ok(Err(NotKept::Full(self.place.outputs())))
            }
            Err(error) => Err(error).context("cannot keep what a task has written"),
        }
    }

    fn tell(&mut self, input: Input) -> Result<()> {
        let mut out = Vec::new();
        let now = self.now();
        self.bag.handle(now, now_ms(), input, &mut out);
        self.carry_out(out)
    }

    fn carry_out(&mut self, out: Vec<Output>) -> Result<()> {
        let mut idle = Vec::new();
        for output in out {
            match output {
                Output::Append(record) => {
                    // That an attempt began need not outlive a loss of power.
                    self.must_sync |= !matches!(*record, Record::Started { .. } | Record::Life { .. });
                    match &mut self.log {
                        Log::Alone { journal, .. } => drop(journal.append(&record.encode())),
                        Log::Shared(shared) => shared.append(&record.encode()),
                    }
                    self.appended += 1;
                }
                Output::Start { attempt, worker, .. } => self.start(attempt, worker),
                Output::Kill { attempt } => {
                    if let Some((call, _)) = self.calls.get(&attempt) {
                        call.cancel();
                    }
                }
                Output::Settle { task, attempt } => self.settled(task, attempt)?,
                Output::Drop { task, attempt } => {
                    if let (Some(view), Log::Alone { .. }) = (self.bag.task(task), &self.log) {
                        outputs::drop_files(self.place.id, &self.bag, &view, attempt);
                    }
                }
                Output::GiveBack(worker) => idle.push(LeaseKey(worker as u32)),
                Output::Learnt { node, name, standing } => {
                    if standing.is_caught() {
                        eprintln!(
                            "mutirao: {name} gave a wrong answer to a question whose answer is known; \
                             it is given nothing more, and what rests on its word is done again"
                        );
                    }
                    self.learnt.push((node, name, standing));
                }
                Output::Over => self.over = true,
            }
        }
        if !idle.is_empty() {
            self.pool.release(&idle)?;
        }
        Ok(())
    }

    fn start(&mut self, attempt: u64, worker: u64) {
        let Some(view) = self.bag.attempt(attempt) else { return };
        let sender = self.sender.clone();
        let deliver = Deliver::Callback(Box::new(move |finished| {
            // Without a keeper nobody wants to know.
            let _ = sender.send(Event::Ended { attempt, finished });
        }));
        // A command's runner keeps the limit itself; the end of its worker is for one that does not.
        let margin = if self.bag.settings().program.is_some() { Duration::ZERO } else { LIMIT_MARGIN };
        let limit = view.template.limit_ms.map(|ms| Duration::from_millis(ms) + margin);
        let options =
            CallOptions { limit, deliver, only: Some(LeaseKey(worker as u32)), ..CallOptions::default() };
        let fetch = |path: &Path| match &self.log {
            Log::Alone { .. } => work::fetch_here(path),
            Log::Shared(shared) => match shared.input(path) {
                Some(file) => Ok(file),
                None if shared.is_origin() => work::fetch_here(path),
                None => bail!("input {} did not come along when the bag was submitted", path.display()),
            },
        };
        let call = match work::operation(&view) {
            Some((name, argument)) => self.operation_named(name).map(|operation| (operation, argument)),
            None => work::command(self.place.id, self.bag.settings(), &view, attempt, &fetch)
                .map(|argument| (self.operation, argument)),
        };
        let outcome = match call {
            Err(error) => Outcome::not_started(format!("{error:#}")),
            Ok((operation, argument)) => match self.pool.submit(operation, argument, options) {
                Ok(call) => {
                    self.calls.insert(attempt, (call, Instant::now()));
                    return;
                }
                // No other lease would take it either.
                Err(error @ mutirao::Error::ArgumentTooLarge { .. }) => {
                    Outcome::not_started(error.to_string())
                }
                Err(error) => Outcome::not_begun(error.to_string()),
            },
        };
        self.unsent.push((attempt, outcome));
    }

    /// A result counts: its files go where they belong, and what it wrote is printed.
    fn settled(&mut self, task: u32, attempt: u64) -> Result<()> {
        let Some(view) = self.bag.task(task) else { return Ok(()) };
        let outputs = match &mut self.log {
            Log::Alone { outputs, .. } => outputs,
            Log::Shared(shared) => {
                let here = shared.is_origin();
                return member::settle(shared, self.place.id, &self.bag, &view, attempt, here);
            }
        };
        outputs::settle(self.place.id, &self.bag, &view, attempt)?;
        let Some((stdout, stderr)) = view.outputs().filter(|_| self.manner.prints) else { return Ok(()) };
        let failed = "cannot read what a task has written";
        let (stdout, stderr) = (outputs.read(stdout).context(failed)?, outputs.read(stderr).context(failed)?);
        let print = || -> std::io::Result<()> {
            std::io::stderr().write_all(&stderr)?;
            let mut out = std::io::stdout().lock();
            out.write_all(&stdout)?;
            out.flush()
        };
        match &self.bar {
            Some(bar) => bar.suspend(print)?,
            None => print()?,
        }
        Ok(())
    }

    /// Puts files in place whose results count already, after a keeper that did not come to it.
    fn settle_again(&mut self) -> Result<()> {
        for view in self.bag.tasks() {
            if let Some((attempt, ..)) = view.result() {
                outputs::settle(self.place.id, &self.bag, &view, attempt)?;
            }
        }
        Ok(())
    }

    /// Writes what was appended, and tells the bag what is on the disk, until nothing follows.
    fn write(&mut self) -> Result<()> {
        match &self.log {
            Log::Alone { .. } => self.write_here()?,
            Log::Shared(_) => self.write_to_all()?,
        }
        if !self.learnt.is_empty() {
            credibility::add(&std::mem::take(&mut self.learnt))?;
        }
        while let Some((_, back, count)) = self.answers.pop_front_if(|(record, ..)| *record <= self.synced) {
            self.say(back, &Ok(count));
        }
        Ok(())
    }

    /// Has what was appended counted by the members, and tells the bag what is, until nothing follows.
    fn write_to_all(&mut self) -> Result<()> {
        loop {
            let is_held = self.is_held();
            let Log::Shared(shared) = &mut self.log else { return Ok(()) };
            if std::mem::take(&mut self.must_sync) || is_held {
                shared.propose();
            }
            let counted = shared.pump()?;
            self.moved = !shared.leads();
            let Some((last, _)) = counted.last().filter(|_| !self.moved) else {
                if !self.moved && self.synced == self.appended && shared.is_long() {
                    shared.compact(&mut self.bag)?;
                }
                return Ok(());
            };
            self.synced += counted.len() as u64;
            let last = *last;
            self.tell(Input::Journaled(self.synced))?;
            if let Log::Shared(shared) = &mut self.log {
                shared.settled(last)?;
            }
        }
    }

    fn write_here(&mut self) -> Result<()> {
        while self.synced < self.appended && self.disk_retry.is_none() {
            if !self.must_sync {
                return self.flush();
            }
            let Log::Alone { journal, outputs } = &mut self.log else { return Ok(()) };
            let synced = outputs.sync().map_err(anyhow::Error::from);
            let written = synced.and_then(|()| journal.commit().map_err(anyhow::Error::from));
            if let Err(error) = written {
                self.disk_full(error)?;
                return Ok(());
            }
            self.must_sync = false;
            self.synced = self.appended;
            self.tell(Input::Journaled(self.synced))?;
        }
        let quiet = self.synced == self.appended && self.disk_retry.is_none();
        if let (true, Log::Alone { journal, .. }) = (quiet && self.bag.is_long(), &mut self.log) {
            match journal.rewrite(self.bag.shrink().map(|record| record.encode())) {
                // It is as good as it was, and there may be room when it is longer.
                Ok(()) | Err(mutirao_store::Error::DiskFull(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        let Log::Alone { journal, .. } = &mut self.log else { return Ok(()) };
        match journal.flush() {
            Ok(()) => Ok(()),
            Err(error) => self.disk_full(error.into()),
        }
    }

    /// What cannot be written now is kept and tried again, if it is for want of room.
    fn disk_full(&mut self, error: anyhow::Error) -> Result<()> {
        let is_full = match error.downcast_ref::<mutirao_store::Error>() {
            Some(mutirao_store::Error::DiskFull(_)) => true,
            _ => error
                .downcast_ref::<std::io::Error>()
                .is_some_and(|e| e.kind() == std::io::ErrorKind::StorageFull),
        };
        if !is_full {
            return Err(error);
        }
        if !std::mem::replace(&mut self.no_room_said, true) {
            eprintln!("mutirao: {error}; nothing is lost, and the bag goes on when there is room");
        }
        self.disk_retry = Some(Instant::now() + DISK_RETRY);
        Ok(())
    }

    fn obey(&mut self, asked: Asked) -> Result<()> {
        if let (Order::Watch, Back::Stream(stream)) = (&asked.order, &asked.back) {
            let watcher = control::Watcher::new(stream.try_clone().context("cannot tell anybody anything")?);
            self.watchers.push(watcher);
            return self.show();
        }
        if let (Order::Session, Back::Stream(stream)) = (&asked.order, &asked.back) {
            let stream = stream.try_clone().context("cannot serve a program")?;
            return self.open_session(stream, false);
        }
        if let Order::Add(_) = asked.order
            && !self.sessions.is_empty()
        {
            // It numbers what it pushes.
            self.say(asked.back, &Err(anyhow::anyhow!("a program has the bag open, which alone adds tasks")));
            return Ok(());
        }
        match control::inputs(&self.bag, &asked.order) {
            Ok(inputs) => {
                let count = inputs.tasks;
                for input in inputs.inputs {
                    self.tell(input)?;
                }
                self.must_sync = true;
                self.answers.push_back((self.appended, asked.back, count));
            }
            Err(error) => self.say(asked.back, &Err(error)),
        }
        Ok(())
    }
}
