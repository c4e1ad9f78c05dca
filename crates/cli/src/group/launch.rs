//! The launcher of a group: holds its leases, starts its processes and ends them as the master says, and shows what
//! they write.

mod home;
mod terminals;

use super::guests::Guests;
use super::places::{self, Terms};
use super::print::{Begun, Printer};
use super::process::{NOT_STARTED, Start, write_all};
use super::record::Records;
use super::report::Row;
use super::signals::Signals;
use super::stdin::Feed;
use crate::output::remark;
use anyhow::{Context, Result, bail};
use mutirao::raw::{
    Call, CallErrorKind, CallOptions, CallResult, Deliver, LeaseKey, PipeEnd, PipeEvent, PipeStream, Pool,
};
use mutirao_group::console::{Console, INPUT_BYTES_MAX, Report, Saying};
use mutirao_group::master::{End, Input, Master, Outcome, Output};
use mutirao_group::plan::{GroupId, ProcessPlan};
use mutirao_group::record::Origin;
use mutirao_group::wiring::PipePlan;
use mutirao_group::{Application, wiring};
use mutirao_wire::Tick;
use mutirao_wire::pipe::GUEST_PIPES;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// A pipe that failed is that of a lost process if news of the loss comes so soon after.
const NEWS_DELAY: Duration = Duration::from_secs(2);
/// A process with channels that fails may have failed of a loss; news of that comes so soon.
const BLAME_DELAY: Duration = Duration::from_millis(200);
/// A process that is to end has so long to do so and to say what it used; then its worker is ended.
const END_PATIENCE: Duration = Duration::from_secs(1);
/// Says what kind of terminal there is; and the kind, where nothing is known of those who will attach.
const TERM: &str = "TERM";
const TERM_DEFAULT: &str = "xterm";
/// How the library begins to speak of a call that was lost.
const IN_DOUBT: &str = "whether it was done is not known: ";

/// A group that runs.
pub struct Launch<'a> {
    pool: &'a Pool,
    application: &'a Application,
    name: &'a str,
    /// On which further leases are asked for.
    terms: Terms,
    printer: Printer,
    feed: Option<Feed>,
    records: Option<Records>,
    guests: Guests,
    signals: Signals,
    /// Index of the operation that runs a process.
    operation: u32,
    seats: Vec<Seat>,
    /// Whose console each of the pipes is.
    consoles: BTreeMap<u64, u32>,
    plans: Vec<ProcessPlan>,
    /// Pipes between processes, as they were opened last.
    pipes: Vec<PipePlan>,
    /// Processes that came to a good end and do not start again.
    gone: BTreeSet<u32>,
    /// Why two processes are not joined, and when that is to be believed.
    unjoined: Option<(Instant, String)>,
    /// Ends that may follow from a loss, each with when it is to be believed.
    doubtful: VecDeque<(Instant, Input)>,
    /// How often the processes were joined.
    turn: u32,
    master: Master,
    orders: Vec<Output>,
    /// Processes of which the home has not heard all.
    unsaid: BTreeSet<u32>,
    began: Instant,
    outcome: Option<Outcome>,
}

/// A process as the launcher has it.
struct Seat {
    lease: LeaseKey,
    node: String,
    /// The lease's serial there.
    serial: u64,
    /// What runs it there.
    call: Option<Call>,
    /// The life that begins when the call of the one before is over.
    next_life: Option<u32>,
    life: u32,
    console: Console,
    pipe: Option<PipeStream>,
    begun: Begun,
    report: Option<Report>,
    /// It was told to end, and when it has had its time for that.
    due: Option<Instant>,
    /// What it wrote last to its terminal, for those who come later.
    last_shown: VecDeque<u8>,
    /// What it wrote last that its report would have, of one that cannot report.
    last_words: VecDeque<u8>,
    /// Bytes that may be typed at its terminal.
    credit_bytes: u32,
}

impl<'a> Launch<'a> {
    /// Ready to run on these leases, by rank.
    pub fn new(
        pool: &'a Pool,
        application: &'a Application,
        name: &'a str,
        leases: Vec<LeaseKey>,
        terms: Terms,
        printer: Printer,
        feed: Option<Feed>,
    ) -> Result<Launch<'a>> {
        let mut orders = Vec::new();
        let size = application.processes.len() as u32;
        let seat = |lease| {
            let (node, serial) = place_of(pool, lease);
            Seat {
                lease,
                node,
                serial,
                call: None,
                next_life: None,
                life: 0,
                console: Console::default(),
                pipe: None,
                begun: Begun::default(),
                report: None,
                due: None,
                last_shown: VecDeque::new(),
                last_words: VecDeque::new(),
                credit_bytes: 0,
            }
        };
        Ok(Launch {
            pool,
            application,
            name,
            terms,
            printer,
            feed,
            records: None,
            guests: Guests::default(),
            signals: Signals::listen()?,
            operation: pool.operation(super::process::NAME)?,
            seats: leases.into_iter().map(seat).collect(),
            consoles: BTreeMap::new(),
            gone: BTreeSet::new(),
            plans: Vec::new(),
            pipes: Vec::new(),
            unjoined: None,
            doubtful: VecDeque::new(),
            turn: 0,
            master: Master::new(size, application.settings.restart, &mut orders),
            orders,
            unsaid: BTreeSet::new(),
            began: Instant::now(),
            outcome: None,
        })
    }

    /// What its processes do is written down.
    pub fn record(&mut self, records: Records) {
        self.records = Some(records);
    }

    /// The records, which are whole when the group has ended.
    pub fn take_records(&mut self) -> Option<Records> {
        self.records.take()
    }

    /// Runs it to its end.
    pub fn run(&mut self) -> Result<Outcome> {
        self.tell_name()?;
        loop {
            self.obey()?;
            if let Some(outcome) = self.outcome.take() {
                self.guests.see_off();
                return Ok(outcome);
            }
            self.sleep()?;
            self.stop_on_signal()?;
            self.stop_by_order();
            self.hear_of_pipes()?;
            // First what was lost: whoever waited for that may have failed of it by now.
            self.take_ends()?;
            for rank in 0..self.seats.len() as u32 {
                self.talk(rank)?;
            }
            self.feed()?;
            self.receive_guests()?;
            self.judge_pipes();
            self.judge_ends();
            self.judge_patience();
        }
    }

    /// How long it has run, and the signal that stopped it.
    pub fn spent(&self) -> (Duration, Option<i32>) {
        (self.began.elapsed(), self.signals.first())
    }

    /// Its processes, by rank.
    pub fn rows(&self) -> Vec<Row> {
        let seats = self.seats.iter().zip(0..);
        seats.map(|(seat, rank)| Row { process: self.row(rank), last_words: seat.last_words() }).collect()
    }

    fn tell(&mut self, input: Input) {
        let now = Tick(self.began.elapsed().as_micros() as u64);
        self.unsaid.extend(input.rank());
        self.master.handle(now, input, &mut self.orders);
    }

    // ---- orders of the master ----

    fn obey(&mut self) -> Result<()> {
        while !self.orders.is_empty() {
            for order in std::mem::take(&mut self.orders) {
                self.unsaid.extend(order.rank());
                match order {
                    Output::Join => self.join()?,
                    Output::Start { rank, life } => self.start(rank, life)?,
                    Output::End { rank } => self.end(rank),
                    Output::Lease { rank } => self.lease(rank),
                    Output::Restarts { rank, end } => {
                        let process = &self.application.processes[rank as usize];
                        remark!("mutirao: `{process}` on node {}: {end}; it starts again", self.node(rank));
                    }
                    Output::Over(outcome) => self.outcome = Some(outcome),
                }
            }
        }
        self.tell_home()
    }

    /// Joins all processes by fresh pipes.
    fn join(&mut self) -> Result<()> {
        for pipe in std::mem::take(&mut self.pipes) {
            self.pool.close_pipe(pipe.pipe)?;
        }
        self.unjoined = None;
        let group = GroupId(self.pool.app().0);
        let depth = self.records.as_ref().map(Records::depth);
        let (plans, pipes) = wiring::plan(self.application, group, self.name, depth, self.turn);
        self.turn += 1;
        self.plans = plans;
        for pipe in pipes {
            let end = |rank: u32| PipeEnd::Worker(self.seats[rank as usize].lease);
            self.pool.open_pipe(pipe.pipe, end(pipe.a), end(pipe.b))?;
            self.pipes.push(pipe);
        }
        Ok(())
    }

    /// Ends the pipes of processes that are gone: whoever waits at the other end is to know, once it is there to
    /// be told. What the process has written is read first.
    fn part(&mut self) -> Result<()> {
        let (gone, seats) = (&self.gone, &self.seats);
        let is_told = |rank: u32| gone.contains(&rank) || seats[rank as usize].pipe.is_some();
        let ends = |pipe: &mut PipePlan| {
            (gone.contains(&pipe.a) || gone.contains(&pipe.b)) && is_told(pipe.a) && is_told(pipe.b)
        };
        for pipe in self.pipes.extract_if(.., ends) {
            self.pool.close_pipe(pipe.pipe)?;
        }
        Ok(())
    }

    fn start(&mut self, rank: u32, life: u32) -> Result<()> {
        let seat = &mut self.seats[rank as usize];
        seat.next_life = Some(life);
        match &seat.call {
            Some(call) => call.cancel(),
            None => self.begin(rank)?,
        }
        Ok(())
    }

    fn begin(&mut self, rank: u32) -> Result<()> {
        self.gone.remove(&rank);
        self.unsaid.insert(rank);
        let seat = &mut self.seats[rank as usize];
        let Some(life) = seat.next_life.take() else { return Ok(()) };
        if seat.life > 0 {
            let before = wiring::console_pipe(rank, seat.life);
            self.consoles.remove(&before);
            self.pool.close_pipe(before)?;
        }
        let console = wiring::console_pipe(rank, life);
        seat.life = life;
        seat.console = Console::default();
        seat.pipe = None;
        seat.report = None;
        seat.due = None;
        seat.begun = Begun::default();
        seat.last_shown.clear();
        seat.last_words.clear();
        seat.credit_bytes = INPUT_BYTES_MAX;
        let feeds = self.feed.as_mut().filter(|feed| feed.rank() == rank);
        let stdin = feeds.is_some();
        feeds.into_iter().for_each(Feed::begin);
        let process = &self.application.processes[rank as usize];
        let mut environment = process.environment.clone();
        if process.terminal && !environment.iter().any(|(name, _)| name == TERM) {
            let kind = std::env::var(TERM).unwrap_or_else(|_| TERM_DEFAULT.into());
            environment.push((TERM.into(), kind));
        }
        if let Some(records) = &mut self.records {
            let origin = Origin {
                life,
                node: seat.node.clone(),
                executable: process.executable.clone(),
                hash: String::new(),
                arguments: process.arguments.clone(),
                environment: environment.clone(),
                directory: process.directory.clone(),
                files: process.files.clone(),
            };
            records.begin(&self.plans[rank as usize], origin);
        }
        let names = process.files.iter().map(|file| super::bring::name_of(file.as_ref()));
        let start = Start {
            executable: super::bring::name_of(process.executable.as_ref()),
            arguments: process.arguments.clone(),
            environment,
            directory: process.directory.clone(),
            files: names.collect(),
            stdin,
            terminal: process.terminal,
            console,
            plan: self.plans[rank as usize].clone(),
        };
        let argument = postcard::to_stdvec(&start).context("cannot write down what is to be run")?;
        let options = CallOptions {
            deliver: Deliver::Queue,
            tag: tag(rank, life),
            only: Some(seat.lease),
            ..CallOptions::default()
        };
        match self.pool.submit(self.operation, argument, options) {
            Ok(call) => {
                seat.call = Some(call);
                self.consoles.insert(console, rank);
                self.pool.open_pipe(console, PipeEnd::Program, PipeEnd::Worker(seat.lease))?;
            }
            // Its lease has ended just now.
            Err(error) => {
                let end = End::Lost(error.to_string());
                self.tell(Input::Ended { rank, life, end, lease: false });
            }
        }
        Ok(())
    }

    fn end(&mut self, rank: u32) {
        let seat = &mut self.seats[rank as usize];
        if let Some(life) = seat.next_life.take() {
            self.tell(Input::Ended { rank, life, end: End::Ordered, lease: true });
        } else if seat.is_told_to_end() {
            seat.due = Some(Instant::now() + END_PATIENCE);
        } else if let Some(call) = &seat.call {
            call.cancel();
        }
    }

    fn lease(&mut self, rank: u32) {
        match places::lease_one(self.pool, self.application, rank, self.terms) {
            Ok(lease) => {
                let seat = &mut self.seats[rank as usize];
                seat.lease = lease;
                (seat.node, seat.serial) = place_of(self.pool, lease);
                self.tell(Input::Leased { rank });
            }
            Err(error) => self.tell(Input::NoLease { rank, why: format!("{error:#}") }),
        }
    }

    // ---- news ----

    fn stop_by_order(&mut self) {
        if let Some(by) = self.pool.take_group_end() {
            self.tell(Input::Stop { why: format!("by order of {by}") });
        }
    }

    fn stop_on_signal(&mut self) -> Result<()> {
        let Some(signal) = self.signals.take() else { return Ok(()) };
        if self.signals.are_repeated() {
            bail!("told twice, the launcher did not wait for it");
        }
        self.tell(Input::Stop { why: format!("signal {signal} came") });
        Ok(())
    }

    fn hear_of_pipes(&mut self) -> Result<()> {
        while let Some(event) = self.pool.next_pipe_event(Some(Duration::ZERO))? {
            if event.number() >= GUEST_PIPES {
                self.guest_pipe(event)?;
                continue;
            }
            let Some(rank) = self.consoles.get(&event.number()).copied() else {
                self.pipe_failed(event);
                continue;
            };
            match event {
                PipeEvent::Opened { way, .. } => {
                    let seat = &mut self.seats[rank as usize];
                    seat.pipe = Some(PipeStream::open(way)?);
                    seat.console.opened();
                    self.part()?;
                }
                PipeEvent::Broken { .. } | PipeEvent::Failed { .. } => {
                    self.talk(rank)?;
                    self.seats[rank as usize].hang_up();
                }
            }
        }
        Ok(())
    }

    /// A pipe between processes is no more. If that is because a process is lost, news of it is on its way, and is
    /// the better reason.
    fn pipe_failed(&mut self, event: PipeEvent) {
        if let PipeEvent::Failed { number, text } = event
            && self.pipes.iter().any(|pipe| pipe.pipe == number)
        {
            self.unjoined.get_or_insert((Instant::now() + NEWS_DELAY, text));
        }
    }

    /// Ends the group if two processes that live cannot be joined: nothing they do would come to an end.
    fn judge_pipes(&mut self) {
        let Some((_, text)) = self.unjoined.take_if(|(due, _)| *due <= Instant::now()) else { return };
        if self.is_whole() {
            self.tell(Input::Stop { why: format!("two of its processes cannot be joined: {text}") });
        }
    }

    /// Believes that processes failed of themselves, once news of a loss would have come.
    fn judge_ends(&mut self) {
        while let Some((_, ended)) = self.doubtful.pop_front_if(|(due, _)| *due <= Instant::now()) {
            self.tell(ended);
        }
    }

    /// Ends the workers of processes that do not end.
    fn judge_patience(&mut self) {
        let now = Instant::now();
        for seat in &mut self.seats {
            if seat.due.take_if(|due| *due <= now).is_some()
                && let Some(call) = &seat.call
            {
                call.cancel();
            }
        }
    }

    fn has_channels(&self, rank: u32) -> bool {
        let ProcessPlan { inputs, outputs, collectives, .. } = &self.plans[rank as usize];
        !(inputs.is_empty() && outputs.is_empty() && collectives.is_empty())
    }

    /// Whether all leases are there: else what follows is about the one that is lost.
    fn is_whole(&self) -> bool {
        let held = self.pool.leases();
        self.seats.iter().all(|seat| held.iter().any(|lease| lease.key == seat.lease))
    }

    /// Moves what the console of a process has to say and to hear.
    fn talk(&mut self, rank: u32) -> Result<()> {
        let is_held = self.guests.is_full(rank);
        let seat = &mut self.seats[rank as usize];
        let Some(pipe) = &mut seat.pipe else { return Ok(()) };
        let (mut bytes, mut heard) = (Vec::new(), Vec::new());
        let read = if is_held { Ok(()) } else { pipe.read(&mut bytes) };
        let made_sense = seat.console.hear(&bytes, &mut heard);
        let written = write_all(&mut seat.console, pipe);
        if read.is_err() || written.is_err() || made_sense.is_err() {
            seat.hang_up();
        }
        let life = seat.life;
        let name = self.application.processes[rank as usize].to_string();
        for saying in heard {
            match saying {
                Saying::Runs { .. } => self.tell(Input::Runs { rank, life }),
                Saying::Wrote { stream, bytes } => self.show(rank, &name, stream, &bytes)?,
                Saying::Recorded(bytes) => {
                    self.records.iter_mut().for_each(|records| records.take(rank, &bytes));
                }
                Saying::Took(bytes) => {
                    let credit = &mut self.seats[rank as usize].credit_bytes;
                    *credit = credit.saturating_add(bytes).min(INPUT_BYTES_MAX);
                    self.feed.iter_mut().filter(|feed| feed.rank() == rank).for_each(|feed| feed.took(bytes));
                }
                Saying::Ended(report) => {
                    let end = report.end.clone();
                    let seat = &mut self.seats[rank as usize];
                    let was_told = seat.due.take().is_some();
                    seat.report = Some(report);
                    self.printer.finish(&name, &mut seat.begun)?;
                    // By what signal is our own affair.
                    let told = if was_told { &End::Ordered } else { &end };
                    self.guests.end(rank, told.to_string(), told.code());
                    if !end.is_unexpected() {
                        self.gone.insert(rank);
                        self.part()?;
                    }
                    let is_doubtful = end.is_unexpected() && !was_told && self.has_channels(rank);
                    let ended = Input::Ended { rank, life, end, lease: true };
                    if is_doubtful {
                        self.doubtful.push_back((Instant::now() + BLAME_DELAY, ended));
                    } else {
                        self.tell(ended);
                    }
                }
                Saying::Input(_) | Saying::InputEnds | Saying::Size(_) | Saying::End => {}
            }
        }
        // One that makes no sense has done so on purpose: it is no process of ours any more.
        if let Err(error) = made_sense {
            let end = End::Lost(error.to_string());
            self.tell(Input::Ended { rank, life, end, lease: true });
        }
        Ok(())
    }

    /// Takes calls that are over: their workers are gone, or never were.
    fn take_ends(&mut self) -> Result<()> {
        while let Some(finished) = self.pool.next_finished() {
            let (rank, life) = untag(finished.tag);
            // What it said last may still lie in the pipe.
            self.talk(rank)?;
            let seat = &mut self.seats[rank as usize];
            if seat.life != life {
                continue;
            }
            (seat.call, seat.due) = (None, None);
            seat.hang_up();
            let process = self.application.processes[rank as usize].to_string();
            self.printer.finish(&process, &mut seat.begun)?;
            if seat.next_life.is_some() {
                self.begin(rank)?;
            } else {
                let lease = self.pool.leases().iter().any(|lease| lease.key == seat.lease);
                let end = end_of(finished.result);
                self.guests.end(rank, end.to_string(), end.code());
                self.tell(Input::Ended { rank, life, end, lease });
            }
        }
        Ok(())
    }

    fn feed(&mut self) -> Result<()> {
        let Some(feed) = &mut self.feed else { return Ok(()) };
        let rank = feed.rank();
        let seat = &mut self.seats[rank as usize];
        if let Some(saying) = feed.next(&seat.console)? {
            if let (Some(records), Saying::Input(bytes)) = (&mut self.records, &saying) {
                records.input(rank, bytes);
            }
            seat.console.say(saying);
            self.talk(rank)?;
        }
        Ok(())
    }

    /// Waits until there is something to do.
    fn sleep(&mut self) -> Result<()> {
        let seats = &self.seats;
        let mut at_once = self.guests.arm(|rank, bytes| seats[rank as usize].may_type(bytes));
        for (seat, rank) in self.seats.iter_mut().zip(0..) {
            if self.guests.is_full(rank) {
                continue;
            }
            let wants_room = !seat.console.unwritten().is_empty();
            at_once |= seat.pipe.as_mut().is_some_and(|pipe| pipe.arm(true, wants_room));
        }
        if !at_once {
            let (calls, pipes) = (self.pool.event_fd(), self.pool.pipe_event_fd());
            let feed = self.feed.as_ref();
            let wants_input = feed.filter(|feed| feed.wants(&self.seats[feed.rank() as usize].console));
            let stdin = std::io::stdin();
            let mut fds = vec![
                PollFd::new(&self.signals, PollFlags::IN),
                PollFd::new(&calls, PollFlags::IN),
                PollFd::new(&pipes, PollFlags::IN),
            ];
            let stdin = stdin.as_fd();
            fds.extend(wants_input.map(|_| PollFd::new(&stdin, PollFlags::IN)));
            self.guests.interests(|rank, bytes| self.seats[rank as usize].may_type(bytes), &mut fds);
            for (seat, _) in self.seats.iter().zip(0..).filter(|(_, rank)| !self.guests.is_full(*rank)) {
                let wants_room = !seat.console.unwritten().is_empty();
                fds.extend(seat.pipe.iter().map(|pipe| PollFd::new(pipe, pipe.interest(true, wants_room))));
            }
            let unjoined = self.unjoined.iter().map(|(due, _)| *due);
            let doubtful = self.doubtful.front().map(|(due, _)| *due);
            let due = unjoined.chain(doubtful).chain(self.seats.iter().filter_map(|seat| seat.due));
            let left = due.min().map(|due| due.saturating_duration_since(Instant::now()));
            let left = left.and_then(|left| Timespec::try_from(left).ok());
            match poll(&mut fds, left.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno).context("cannot wait for the processes"),
            }
        }
        self.guests.disarm();
        self.seats.iter_mut().filter_map(|seat| seat.pipe.as_mut()).for_each(PipeStream::disarm);
        Ok(())
    }

    fn node(&self, rank: u32) -> &str {
        &self.seats[rank as usize].node
    }
}

impl Seat {
    /// Whether so much can be typed at its terminal.
    fn may_type(&self, bytes: u32) -> bool {
        self.credit_bytes >= bytes && self.console.has_room()
    }

    /// Tells what runs it to end it, if it hears that.
    fn is_told_to_end(&mut self) -> bool {
        let is_there = self.call.is_some() && self.report.is_none();
        let Some(pipe) = self.pipe.as_mut().filter(|_| is_there) else { return false };
        self.console.say(Saying::End);
        write_all(&mut self.console, pipe).is_ok()
    }

    /// What it wrote last, if that is known.
    fn last_words(&self) -> Option<String> {
        let words: Vec<u8> = self.last_words.iter().copied().collect();
        let heard = || String::from_utf8_lossy(&words).trim_end().to_owned();
        match &self.report {
            Some(report) => Some(report.last_words.clone()),
            None => Some(heard()).filter(|words| !words.is_empty()),
        }
    }

    fn hang_up(&mut self) {
        self.pipe = None;
        self.console.broken();
    }
}

/// How a process ended that did not say so itself.
fn end_of(result: CallResult) -> End {
    match result {
        // The runner stays for as long as its worker lives.
        Ok(_) => End::Lost("its node has let go of it".into()),
        Err(error) => match error.kind {
            CallErrorKind::Cancelled => End::Ordered,
            CallErrorKind::OutOfMemory => End::OutOfMemory,
            CallErrorKind::Operation(NOT_STARTED) => End::NotStarted(error.text),
            // A call may have been done all the same; a process has not.
            _ => End::Lost(error.text.trim_start_matches(IN_DOUBT).to_owned()),
        },
    }
}

/// The node that lends, and the lease's serial there.
fn place_of(pool: &Pool, lease: LeaseKey) -> (String, u64) {
    let leases = pool.leases();
    let held = leases.iter().find(|held| held.key == lease);
    held.map(|held| (held.lender.name.clone(), held.id.serial)).unwrap_or_default()
}

fn tag(rank: u32, life: u32) -> u64 {
    u64::from(life) << 32 | u64::from(rank)
}

fn untag(tag: u64) -> (u32, u32) {
    (tag as u32, (tag >> 32) as u32)
}
