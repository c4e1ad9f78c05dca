//! The keeper of a bag: drives it, between its journal, its workers and those who give it orders.

mod journaling;
mod lacking;
mod orders;
mod programs;
mod results;
mod sending;
mod showing;
mod state;
mod succession;

use super::DISK_RETRY;
use super::control::{self, Asked, Back};
use super::credibility;
use super::inputs::{Inputs, Ready};
use super::kept_files::{KeptFiles, NotBrought};
use super::leases::{Change, Granted, Leases};
use super::member::Led;
use super::outputs::{self, Outputs};
use super::place::{Place, now_ms};
use super::session::{self, Sessions};
use super::shared::Shared;
use super::sites::Sites;
use super::states::States;
use super::work::{self, Outcome};
use crate::output::remark;
use anyhow::{Context, Result, bail};
use lacking::Lacking;
use mutirao::raw::{Call, Finished, LeaseKey, Options, Pool, Slots};
use mutirao_bag::{Bag, Counts, Input, Left, NodeStanding, Output, Span, Trust};
use mutirao_runner::Environment;
use mutirao_schedule::bag::Needs;
use mutirao_store::Journal;
use mutirao_wire::checkpoint::Asked as Saying;
use mutirao_wire::{CallId, NodeId, Tick};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};
use succession::{Inherited, Receipt};

/// Events taken before the journal is written: many results share one wait for the disk.
pub const BATCH: usize = 512;

/// What reaches the keeper.
pub enum Event {
    Ended {
        attempt: u64,
        finished: Finished,
    },
    /// The inputs of an attempt are offered, or why not.
    Inputs {
        attempt: u64,
        ready: Result<Ready>,
    },
    /// Large files of an attempt are here, under these names or all in one file, or why not.
    Fetched {
        attempt: u64,
        result: Result<Option<File>, NotBrought>,
        put: Vec<PathBuf>,
    },
    /// Files of a result are copied to where it was submitted, or why not.
    Copied {
        attempt: u64,
        result: Result<()>,
    },
    /// There is no room for this file, which is tried again.
    NoRoom(PathBuf),
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
    /// A worker speaks of state that an attempt saves.
    State {
        pipe: u64,
        asked: Saying,
    },
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
    /// The environment of commands that run as their user.
    environment: Environment,
    /// Programs that have the bag open.
    sessions: Sessions,
    /// It ended with the program whose it was: nothing of it is to stay.
    abandoned: bool,
    leases: Leases,
    inputs: Inputs,
    kept_files: KeptFiles,
    /// Where tasks work in place.
    sites: Sites,
    lacking: Lacking,
    sender: Sender<Event>,
    born: Instant,
    /// Attempts under way, each with its call.
    calls: BTreeMap<u64, (Call, Instant)>,
    /// Leases and attempts of the keeper before, to go on with.
    left: Vec<Left>,
    /// Attempts under way that a keeper before this one began.
    adopted: BTreeSet<u64>,
    /// Those whose worker was not reached yet, by its lease.
    unreached: BTreeMap<LeaseKey, Vec<u64>>,
    /// Calls of attempts whose results are not recorded yet.
    owed: BTreeMap<u64, CallId>,
    /// Of results that are, in the order of their records.
    receipts: VecDeque<Receipt>,
    /// Leases that are given back when so many records count: their lenders may have results that do not yet.
    returning: VecDeque<(u64, LeaseKey)>,
    /// Attempts that went to their workers, each with the number of its call, to be written down.
    sent: Vec<(u64, u64)>,
    /// Where each attempt runs whose files may be kept there.
    lenders: BTreeMap<u64, LeaseKey>,
    /// Some of their calls wait to go together.
    unflushed: bool,
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
    last_sync: Instant,
    disk_retry: Option<Instant>,
    /// It was said that tasks run on other nodes.
    elsewhere_said: bool,
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
    /// Where attempts save state, once one that might has begun.
    states: Option<States>,
    /// State that counts with so many records: pipe, number and call of who waits for that.
    saving: VecDeque<(u64, [u64; 3])>,
    /// State that members have not all there yet, until so many records count.
    uncounted: VecDeque<(u64, Span, Vec<u8>)>,
    /// What was learnt of nodes, to be kept for other bags.
    learnt: Vec<(NodeId, String, NodeStanding)>,
}

/// Keeps a bag until it is over.
pub fn keep(place: Place, node: Option<String>, manner: Manner) -> Result<Kept> {
    let (bag, journal, found) = place.open()?;
    if found.damaged_bytes > 0 && !found.torn {
        remark!(
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
    if let Ok(Kept::Over(_)) = kept {
        keeper.sites.remove();
    }
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
    if let Ok(Kept::Over(_)) = kept {
        // They would wait for another keeper. A pool that is lost has none.
        let _ = keeper.pool.release_all();
    }
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
        mut log: Log,
        node: Option<String>,
        manner: Manner,
        sender: &Sender<Event>,
    ) -> Result<Keeper> {
        let mut options = Options {
            name: Some(format!("bag-{}", bag.settings().name)),
            node,
            slots: Slots::ByHand,
            gather: journaling::GATHERING,
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
        let Inherited { pool, left, calls } = match &mut log {
            Log::Alone { .. } => Inherited::nothing(Pool::open(options)?),
            Log::Shared(shared) => Inherited::from(options, shared, &bag, sender)?,
        };
        let inputs = Inputs::new(&pool, place.directory(), sender);
        let kept_files = KeptFiles::new(&pool, sender);
        let sites = match &log {
            Log::Alone { .. } => Sites::open(&place, &bag)?,
            Log::Shared(shared) => shared
                .mark()
                .map_or_else(Sites::none, |mark| Sites::marked(&bag, mark.clone(), pool.epoch().0.into())),
        };
        let mut leases = Leases::start(&pool, bag.settings(), sender)?;
        left.iter().for_each(|left| leases.adopt(left.worker, &left.lent.lender));
        let unreached = succession::attempts_of(&left);
        let of = |(lease, attempts): (&LeaseKey, &Vec<u64>)| {
            attempts.iter().map(|attempt| (*attempt, *lease)).collect::<Vec<_>>()
        };
        let lenders = unreached.iter().flat_map(of).collect();
        Ok(Keeper {
            environment: bag.settings().environment.iter().map(|(name, value)| (name, value)).collect(),
            operation: if is_program { 0 } else { pool.operation(work::OPERATION)? },
            sessions: Sessions::default(),
            abandoned: false,
            bar: manner.shows.then(showing::bar),
            place,
            bag,
            log,
            pool,
            leases,
            inputs,
            kept_files,
            sites,
            lacking: Lacking::default(),
            sender: sender.clone(),
            born: Instant::now(),
            adopted: calls.keys().copied().collect(),
            unreached,
            left,
            calls,
            lenders,
            owed: BTreeMap::new(),
            receipts: VecDeque::new(),
            returning: VecDeque::new(),
            sent: Vec::new(),
            unflushed: false,
            unsent: Vec::new(),
            held: VecDeque::new(),
            later: VecDeque::new(),
            appended: 0,
            synced: 0,
            must_sync: false,
            last_sync: Instant::now(),
            disk_retry: None,
            elsewhere_said: false,
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
            states: None,
            saving: VecDeque::new(),
            uncounted: VecDeque::new(),
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
    crate::threads::start("signals", heard)
}

impl Keeper {
    fn now(&self) -> Tick {
        Tick(self.born.elapsed().as_micros() as u64 + 1)
    }

    fn run(&mut self, events: &Receiver<Event>) -> Result<Kept> {
        self.await_program();
        self.learn_lengths();
        let mut out = Vec::new();
        let trust = if self.bag.compares() { credibility::trust()? } else { Trust::default() };
        let left = std::mem::take(&mut self.left);
        self.bag.go_on(self.now(), now_ms(), trust, left, &mut out)?;
        self.carry_out(out)?;
        loop {
            self.flush_calls();
            self.write()?;
            self.flush_calls();
            if self.moved {
                return Ok(Kept::Moved);
            }
            // One that was over and to which nothing was added is over still.
            let is_quiet = self.synced == self.appended && self.answers.is_empty();
            let is_over = self.over || (self.bag.is_over() && is_quiet && self.sessions.is_empty());
            if is_over && !self.is_copying() {
                self.write_list()?;
                return Ok(Kept::Over(self.bag.counts()));
            }
            self.sessions.tell(&self.bag);
            self.leases.want(self.bag.wanted(), |needs| self.bag.avoided(needs));
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

    /// When something is to be done although nothing happens.
    fn due(&self) -> Option<Instant> {
        let idle = self.bag.deadline().map(|due| self.born + Duration::from_micros(due.0));
        let at_once = (!self.unsent.is_empty()).then(Instant::now);
        let tick = match &self.log {
            Log::Alone { .. } => None,
            Log::Shared(shared) if self.is_held() => return Some(shared.next_tick()),
            Log::Shared(shared) => Some(shared.next_tick()),
        };
        let others = [self.list_due, tick, self.gathered(), self.lacking.due()];
        [idle, self.disk_retry, at_once].into_iter().chain(others).flatten().min()
    }

    fn take(&mut self, event: Event) -> Result<Option<Kept>> {
        match event {
            Event::Ended { attempt, finished } => {
                self.inputs.over(attempt);
                let call = finished.id;
                if let Some((_, since)) = self.calls.remove(&attempt) {
                    if self.is_shared() {
                        self.owed.insert(attempt, call);
                    }
                    if let Some(states) = &self.states {
                        states.over(call.0);
                    }
                    let outcome = match self.bag.settings().program.is_some() {
                        true => Outcome::of_operation(finished.result, since.elapsed()),
                        false => Outcome::of(finished.result),
                    };
                    let outcome = self.of_adopted(attempt, outcome);
                    if !self.sends_copies(attempt, &outcome)? {
                        self.ended(attempt, outcome)?;
                    }
                }
            }
            Event::Fetched { attempt, result, put } => self.fetched(attempt, result, &put)?,
            Event::NoRoom(path) => self.no_room(&path),
            Event::Copied { attempt, result } => {
                if let Log::Shared(shared) = &mut self.log {
                    shared.placing().is_copied(attempt, result);
                }
            }
            Event::Inputs { attempt, ready } => {
                if let Some(ready) = self.inputs.offered(attempt, ready) {
                    self.send_with_inputs(attempt, ready);
                    self.note_calls()?;
                }
            }
            Event::Leases => {
                let (leases, notes) = (self.pool.leases(), self.pool.notes());
                self.reach_adopted(&leases)?;
                for change in self.leases.changes(&leases, &notes) {
                    if let (Change::Down(worker), Some(states)) = (&change, &mut self.states) {
                        states.gone(LeaseKey(*worker as u32));
                    }
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
            Event::State { pipe, asked } => self.asked_of_state(pipe, asked)?,
            Event::Stop => return Ok(Some(Kept::Stopped)),
        }
        Ok(None)
    }

    fn take_time(&mut self) -> Result<()> {
        let now = Instant::now();
        if self.is_held() {
            if let Log::Shared(shared) = &mut self.log {
                shared.tick(true)?;
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
        if self.lacking.due().is_some_and(|due| due <= now) {
            self.send_lacking()?;
        }
        if self.bag.deadline().is_some_and(|due| due <= self.now()) {
            self.tell(Input::Time)?;
        }
        if self.list_due.is_some_and(|due| due <= now) {
            self.write_list()?;
        }
        if let Log::Shared(shared) = &mut self.log {
            shared.tick(true)?;
        }
        Ok(())
    }

    /// Lets go of everything but the bag.
    fn end(&mut self) {
        self.pool.close();
        self.end_showing();
        for (_, back, _) in std::mem::take(&mut self.answers) {
            self.say(back, &Err(control::keeper_changed()));
        }
    }

    fn granted(&mut self, granted: Granted) -> Result<()> {
        match granted.result {
            Ok(allocation) => {
                for lease in self.leases.granted(&self.pool, &granted.needs, &allocation) {
                    let (worker, offers) = (lease.key.0.into(), granted.needs.clone());
                    self.note_lease(&lease, &offers)?;
                    let node = lease.lender;
                    self.say_elsewhere(&node);
                    self.tell(Input::WorkerUp { worker, id: node.id, node: node.name, offers })?;
                }
            }
            // Nothing came in all the time that the request has waited; it is made anew.
            Err(error @ (mutirao::Error::WaitedInVain(_) | mutirao::Error::NotEnough { .. })) => {
                self.leases.asked_in_vain(&granted.needs);
                // What was said before that names what is lacking.
                if !self.leases.waits().iter().any(|(needs, _)| *needs == granted.needs) {
                    self.short(&granted.needs, error.to_string());
                }
            }
            Err(mutirao::Error::TimedOut { .. }) => self.leases.asked_in_vain(&granted.needs),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Tasks that need so much get no slot.
    fn short(&mut self, needs: &Needs, why: String) {
        let (why, is_lacking) = match self.bag.lacks_nodes(needs) {
            Some(lacking) => (format!("{lacking}; {why}"), true),
            None => (why, !self.bag.is_served(needs)),
        };
        // More tasks than slots are nothing to speak of.
        if self.leases.short(needs, &why) && is_lacking {
            self.say_why(needs, &why);
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
                    self.must_sync |= record.is_to_be_synced();
                    match &mut self.log {
                        Log::Alone { journal, .. } => drop(journal.append(&record.encode())),
                        Log::Shared(shared) => shared.append(&record.encode()),
                    }
                    self.appended += 1;
                }
                Output::Start { attempt, task, worker } => {
                    self.place_before(task)?;
                    self.start(attempt, worker);
                }
                Output::Kill { attempt } => {
                    if let Some((call, _)) = self.calls.get(&attempt) {
                        call.cancel();
                    } else if self.kept_files.call_off(attempt, self.lenders.get(&attempt))
                        || self.inputs.call_off(attempt)
                        || self.lacking.call_off(attempt)
                    {
                        self.unsent.push((attempt, Outcome::called_off()));
                    }
                }
                Output::Settle { task, attempt } => self.settled(task, attempt)?,
                Output::Drop { task, attempt } => {
                    let is_here = !self.is_shared() || self.sites.are_seen();
                    if let Some(view) = self.bag.task(task).filter(|_| is_here) {
                        let by = (attempt, self.sites.sender());
                        outputs::drop_files(self.place.id, &self.bag, &view, by);
                        self.sites.drop_room(attempt);
                    }
                }
                Output::Free(span) => match &self.log {
                    Log::Alone { outputs, .. } => outputs.free(span.offset, span.bytes.into()),
                    Log::Shared(shared) => shared.free(span),
                },
                Output::GiveBack(worker) => idle.push(LeaseKey(worker as u32)),
                Output::Learnt { node, name, standing } => {
                    if standing.is_caught() {
                        remark!(
                            "mutirao: {name} gave a wrong answer to a question whose answer is known; \
                             it is given nothing more, and what rests on its word is done again"
                        );
                    }
                    self.learnt.push((node, name, standing));
                }
                Output::Over => self.over = true,
            }
        }
        self.give_back(idle)?;
        self.note_calls()
    }
}
