//! Runs jobs until there are no more: a window of them is under way, the rest waits where it comes from.

use super::args::MapArgs;
use super::halt::{Tally, Then};
use super::job::{Job, Maker};
use super::joblog::{Entry, JobLog, Listed};
use super::print::{self, Order, Written};
use super::source::{Arguments, Values};
use crate::commands::RUN_COMMAND;
use anyhow::{Context, Result, anyhow, bail};
use indicatif::{ProgressBar, ProgressStyle};
use mutirao::raw::{Call, CallErrorKind, CallOptions, Deliver, Finished, Pool};
use mutirao_runner::{Ended, File, How};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// Arguments read before they are needed.
const AHEAD: u64 = 256;
/// Bytes of input read before they are needed.
const AHEAD_BYTES: u64 = 64 << 20;
/// Where no job has been given a slot for so long, it is said why.
const LOOK: Duration = Duration::from_secs(2);
/// How often a job is run again because the machine it ran on was lost.
const LOSSES_MAX: u32 = 3;
/// Bytes under way, and of results that wait for an earlier job, beyond which no job is started.
const BYTES_MAX: usize = 256 << 20;
/// What is told as the exit code when more jobs than 100 failed.
const MANY_FAILED: u64 = 101;

enum Event {
    Arguments(Arguments),
    NoMore(Result<()>),
    Finished(Finished),
}

/// A job under way.
struct Running {
    job: Job,
    call: Call,
    bytes: usize,
}

/// A run of many jobs.
pub struct Run<'a> {
    args: &'a MapArgs,
    maker: Maker,
    pool: Pool,
    operation: u32,
    /// Jobs under way at most.
    window: usize,
    sender: Sender<Event>,
    events: Receiver<Event>,
    /// One for each argument that may be read.
    credits: Sender<()>,
    read_all: bool,
    /// Arguments read so far.
    sequence: u64,
    waiting: VecDeque<Job>,
    running: HashMap<u64, Running>,
    running_bytes: usize,
    free_places: BTreeSet<u32>,
    not_before: Option<Instant>,
    /// When it is looked whether jobs have a slot.
    look: Option<Instant>,
    order: Option<Order>,
    log: Option<JobLog>,
    listed: Listed,
    total: Option<u64>,
    tally: Tally,
    stop: Then,
    /// The exit code that an early stop has fixed.
    exit: Option<u8>,
    has_hinted: bool,
    bar: ProgressBar,
}

impl<'a> Run<'a> {
    /// Makes ready; `total` is the number of jobs, if that is known.
    pub fn new(
        args: &'a MapArgs,
        maker: Maker,
        pool: Pool,
        window: usize,
        values: Values,
        total: Option<u64>,
    ) -> Result<Run<'a>> {
        let (sender, events) = channel();
        let (credits, granted) = channel();
        let resume = args.resume || args.resume_failed;
        let (log, listed) = match args.joblog.as_deref().map(|path| JobLog::open(path, resume)).transpose()? {
            Some((log, listed)) => (Some(log), listed),
            None => (None, Listed::new()),
        };
        let reader = sender.clone();
        crate::threads::start("arguments", move || read(values, &granted, &reader))?;
        let ahead = match args.pipe {
            true => (AHEAD_BYTES / args.block.max(1)).clamp(2, AHEAD),
            false => AHEAD,
        };
        for _ in 0..ahead {
            // A reader that has read all by now has ended.
            let _ = credits.send(());
        }
        Ok(Run {
            operation: pool.operation(RUN_COMMAND)?,
            order: args.keep_order.then(Order::new),
            free_places: (1..=window as u32).collect(),
            bar: bar(args, total),
            args,
            maker,
            pool,
            window,
            sender,
            events,
            credits,
            read_all: false,
            sequence: 0,
            waiting: VecDeque::new(),
            running: HashMap::new(),
            running_bytes: 0,
            not_before: None,
            look: Some(Instant::now() + LOOK),
            log,
            listed,
            total,
            tally: Tally::default(),
            stop: Then::GoOn,
            exit: None,
            has_hinted: false,
        })
    }

    /// Runs all; gives the exit code.
    pub fn run(mut self) -> Result<u8> {
        let result = self.go();
        self.bar.finish_and_clear();
        if result.is_err() || self.stop == Then::Now {
            self.running.values().for_each(|running| running.call.cancel());
        }
        let rest = self.order.as_mut().map(Order::rest).unwrap_or_default();
        rest.iter().try_for_each(Written::print)?;
        self.pool.close();
        result?;
        Ok(self.exit.unwrap_or_else(|| self.tally.failed.min(MANY_FAILED) as u8))
    }

    fn go(&mut self) -> Result<()> {
        loop {
            self.start_some()?;
            let nothing_more = self.stop != Then::GoOn || (self.read_all && self.waiting.is_empty());
            if self.stop == Then::Now || (self.running.is_empty() && nothing_more) {
                return Ok(());
            }
            let not_before = self.not_before.filter(|_| !self.waiting.is_empty());
            let pause = not_before.into_iter().chain(self.look).min();
            let event = match pause.map(|until| until.saturating_duration_since(Instant::now())) {
                Some(pause) => match self.events.recv_timeout(pause) {
                    Ok(event) => Some(event),
                    Err(RecvTimeoutError::Timeout) => None,
                    Err(RecvTimeoutError::Disconnected) => bail!("no more events come"),
                },
                None => Some(self.events.recv().context("no more events come")?),
            };
            if self.look.is_some_and(|look| look <= Instant::now()) {
                self.look = None;
                self.say_why_none();
            }
            let mut event = event;
            while let Some(happened) = event {
                self.handle(happened)?;
                event = self.events.try_recv().ok();
            }
        }
    }

    /// Where jobs wait and no slot is there, says why.
    fn say_why_none(&self) {
        if !self.running.is_empty() && self.pool.id().is_some() && self.pool.leases().is_empty() {
            let why = crate::bag::why_none(&self.pool, &self.pool.notes());
            let text = format!("the jobs wait for a slot: {why}");
            if self.bar.is_hidden() { ended_line(&text) } else { self.bar.suspend(|| ended_line(&text)) }
        }
    }

    fn handle(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Arguments(arguments) => {
                self.sequence += 1;
                self.arguments(self.sequence, arguments)
            }
            Event::NoMore(result) => {
                self.read_all = true;
                result
            }
            Event::Finished(finished) => self.finished(finished),
        }
    }

    fn arguments(&mut self, sequence: u64, arguments: Arguments) -> Result<()> {
        let left_out = match self.listed.get(&sequence) {
            Some(well) => self.args.resume || (self.args.resume_failed && *well),
            None => false,
        };
        if !left_out {
            self.waiting.push_back(self.maker.job(sequence, arguments));
            return Ok(());
        }
        let _ = self.credits.send(());
        self.bar.inc(1);
        match self.order.as_mut() {
            Some(order) => order.skip(sequence).iter().try_for_each(Written::print),
            None => Ok(()),
        }
    }

    fn start_some(&mut self) -> Result<()> {
        while self.stop == Then::GoOn && self.running.len() < self.window {
            let held = self.running_bytes + self.order.as_ref().map_or(0, Order::waiting_bytes);
            if held > BYTES_MAX && !self.running.is_empty() {
                return Ok(());
            }
            if self.not_before.is_some_and(|until| until > Instant::now()) {
                return Ok(());
            }
            let Some(job) = self.waiting.pop_front() else { return Ok(()) };
            if job.is_fresh() {
                // The reader has ended once it has read all.
                let _ = self.credits.send(());
            }
            self.start(job)?;
            self.not_before = self.args.delay.map(|delay| Instant::now() + delay);
        }
        Ok(())
    }

    fn start(&mut self, mut job: Job) -> Result<()> {
        let place = self.free_places.pop_first().unwrap_or(1);
        let command = self.maker.command(&mut job, place)?;
        let argument = command.encode();
        let bytes = argument.len();
        let sender = self.sender.clone();
        // Nobody listens any more once the run is over.
        let deliver = Deliver::Callback(Box::new(move |finished| {
            let _ = sender.send(Event::Finished(finished));
        }));
        let options = CallOptions { deliver, tag: job.sequence, ..CallOptions::default() };
        let call = self.pool.submit(self.operation, argument, options)?;
        self.running_bytes += bytes;
        self.running.insert(job.sequence, Running { job, call, bytes });
        Ok(())
    }

    fn finished(&mut self, finished: Finished) -> Result<()> {
        let Some(Running { mut job, bytes, .. }) = self.running.remove(&finished.tag) else { return Ok(()) };
        self.running_bytes -= bytes;
        self.free_places.insert(job.place);
        let ended = match finished.result {
            Ok(bytes) => Ended::decode(&bytes).map_err(|error| anyhow!("a result is none: {error}"))?,
            Err(error) => match error.kind {
                CallErrorKind::OutcomeUnknown if job.losses < LOSSES_MAX => {
                    job.losses += 1;
                    self.waiting.push_front(job);
                    return Ok(());
                }
                CallErrorKind::NoSlots | CallErrorKind::PoolClosed => bail!("{error}"),
                CallErrorKind::OutOfMemory => Ended { how: How::OutOfMemory, ..Ended::default() },
                // It took its worker along.
                CallErrorKind::WorkerEnded => Ended { how: How::Signal(libc_kill()), ..Ended::default() },
                _ => Ended::not_started(error.text),
            },
        };
        let brought =
            |name: &String| ended.files.iter().any(|file| file.name == *name) || Path::new(name).exists();
        let well = ended.how.is_success() && ended.lost_bytes == 0 && job.takes.iter().all(brought);
        job.tries += 1;
        if !well && job.tries < self.args.retries.max(1) && self.stop == Then::GoOn {
            self.waiting.push_front(job);
            return Ok(());
        }
        let host = finished.node.filter(|_| self.pool.id().is_some());
        self.done(&job, ended, host.as_deref().unwrap_or(":"), well)
    }

    /// A job has come to its last end.
    fn done(&mut self, job: &Job, mut ended: Ended, host: &str, well: bool) -> Result<()> {
        complain(job, &mut ended);
        self.hint_at_files(job, host, well);
        if let Some(log) = &mut self.log {
            let (code, signal) = match ended.how {
                How::TimeLimit => (-1, ended.how.code_and_signal().1),
                _ if ended.how.is_success() && !well => (255, 0),
                _ => ended.how.code_and_signal(),
            };
            let files = ended.files.iter().map(|file| file.bytes.len()).sum::<usize>();
            log.put(&Entry {
                sequence: job.sequence,
                host,
                started_us: ended.started_us,
                wall_us: ended.wall_us,
                sent_bytes: job.sent_bytes,
                received_bytes: (ended.stdout.len() + files) as u64,
                code,
                signal,
                command: &job.line,
            })?;
        }
        bring_home(job, &ended, &mut |complaint| {
            ended_line(&complaint);
        })?;
        let written = Written { tag: self.maker.tag(job), stdout: ended.stdout, stderr: ended.stderr };
        if let Some(directory) = &self.args.results {
            let number = [job.sequence.to_string().into_bytes()];
            let named = if self.args.pipe { &number[..] } else { &job.arguments };
            print::save(directory, named, job.sequence, &written)?;
        }
        let ready = match self.order.as_mut() {
            Some(order) => order.add(job.sequence, written),
            None => vec![written],
        };
        let print = || ready.iter().try_for_each(Written::print);
        if self.bar.is_hidden() { print() } else { self.bar.suspend(print) }?;
        self.count(job, &ended.how, well)
    }

    /// Of a job that failed elsewhere, and whose file was not brought there, says so, once.
    fn hint_at_files(&mut self, job: &Job, host: &str, well: bool) {
        let args = self.args;
        let brings = !(args.transferfile.is_empty() && args.trc.is_empty() && args.basefile.is_empty());
        if well
            || self.has_hinted
            || brings
            || args.workdir.is_some()
            || [":", self.pool.node().name.as_str()].contains(&host)
        {
            return;
        }
        let file = |argument: &&Vec<u8>| Path::new(OsStr::from_bytes(argument)).is_file();
        if let Some(name) = job.arguments.iter().find(file) {
            self.has_hinted = true;
            let name = String::from_utf8_lossy(name);
            ended_line(&format!(
                "this job failed on {host}: if it lacks `{name}` of here, `--transferfile {{}}` brings it"
            ));
        }
    }

    fn count(&mut self, job: &Job, how: &How, well: bool) -> Result<()> {
        match well {
            true => self.tally.succeeded += 1,
            false => self.tally.failed += 1,
        }
        self.bar.inc(1);
        if !well {
            self.bar.set_message(format!("{} failed", self.tally.failed));
        }
        if self.stop != Then::GoOn {
            return Ok(());
        }
        self.stop = self.args.halt.after(well, self.tally, self.total.unwrap_or(u64::MAX));
        if self.stop != Then::GoOn {
            let (code, signal) = how.code_and_signal();
            let failing = if code == 0 { 128 + signal } else { code };
            self.exit = Some(if well { 0 } else { failing as u8 });
            let did = if well { "succeeded" } else { "failed" };
            let line = shown(&job.line);
            let then = if self.stop == Then::Now { "the others are ended" } else { "no more are started" };
            ended_line(&format!("this job {did}, {then}: {line}"));
        }
        Ok(())
    }
}

/// Reads arguments as far as it is let.
fn read(values: Values, granted: &Receiver<()>, events: &Sender<Event>) {
    for value in values {
        let event = match value {
            Ok(arguments) if granted.recv().is_ok() => Event::Arguments(arguments),
            Ok(_) => return,
            Err(error) => {
                let _ = events.send(Event::NoMore(Err(error)));
                return;
            }
        };
        if events.send(event).is_err() {
            return;
        }
    }
    let _ = events.send(Event::NoMore(Ok(())));
}

/// Tells on the job's standard error what its exit code alone does not say.
fn complain(job: &Job, ended: &mut Ended) {
    let line = || shown(&job.line);
    let text = match &ended.how {
        How::TimeLimit => format!("its time limit passed, so it was ended: {}", line()),
        How::OutOfMemory => format!("out of memory: {}", line()),
        How::NotStarted(why) => format!("it did not run: {why}: {}", line()),
        _ if ended.lost_bytes > 0 => {
            format!(
                "it wrote {} more than a job can return: {}",
                crate::output::bytes(ended.lost_bytes),
                line()
            )
        }
        _ => return,
    };
    ended.stderr.extend_from_slice(format!("mutirao: {text}\n").as_bytes());
}

/// A command line, if it is not long; else how it begins.
fn shown(line: &[u8]) -> String {
    /// Characters that are shown.
    const SHOWN_MAX: usize = 200;
    let text = String::from_utf8_lossy(line);
    match text.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}... ({} bytes in all)", &text[..end], line.len()),
        None => text.into_owned(),
    }
}

fn ended_line(text: &str) {
    // Where standard error is closed there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "mutirao: {text}");
}

/// Puts files taken back to where they belong, below this directory.
fn bring_home(job: &Job, ended: &Ended, complain: &mut dyn FnMut(String)) -> Result<()> {
    for File { name, executable, bytes } in &ended.files {
        if !job.takes.contains(name) {
            bail!("a node returned `{name}`, which was not asked for");
        }
        let path = Path::new(name);
        let failed = || format!("cannot write {name}, which a job returned");
        if let Some(above) = path.parent().filter(|above| !above.as_os_str().is_empty()) {
            fs::create_dir_all(above).with_context(failed)?;
        }
        let mode = if *executable { 0o777 } else { 0o666 };
        let mut options = fs::OpenOptions::new();
        let opened = options.write(true).create(true).truncate(true).mode(mode).open(path);
        opened.and_then(|mut file| file.write_all(bytes)).with_context(failed)?;
    }
    let missing = |name: &&String| {
        !ended.files.iter().any(|file| file.name == **name) && !Path::new(name.as_str()).exists()
    };
    if ended.how.is_success() {
        job.takes
            .iter()
            .filter(missing)
            .for_each(|name| complain(format!("job {} left no {name}", job.sequence)));
    }
    Ok(())
}

fn libc_kill() -> u8 {
    rustix::process::Signal::KILL.as_raw() as u8
}

fn bar(args: &MapArgs, total: Option<u64>) -> ProgressBar {
    if !args.eta {
        return ProgressBar::hidden();
    }
    const TEMPLATE: &str = "{wide_bar} {pos}/{len} {per_sec} {eta} left {msg}";
    let bar = ProgressBar::new(total.unwrap_or_default());
    if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(500));
    bar
}
