//! A program that has a bag open: what it pushes is added, and what ends is told, as fast as it reads.
//!
//! Two threads serve each program, so that one which does not read holds up neither the keeper nor what it pushes.

use super::keeper::Event;
use super::outputs::Outputs;
use super::place::Place;
use anyhow::{Context, Result, bail};
use mutirao_bag::{Bag, Input, NewTask, Program, Span, Template, Verdict, Words, Work};
use mutirao_wire::session::{ARGUMENT_BYTES_MAX, FromKeeper, TaskEnd, ToKeeper, decode, encode, length};
use std::convert::Infallible;
use std::io::{BufReader, BufWriter, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Sender, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

/// Ends that are told at a time.
const ENDS: usize = 256;
/// Calls that are pushed at a time.
const CALLS: usize = 4096;
/// Bytes read at a time.
const READ_BYTES: usize = 256 << 10;

/// What a program's threads tell the keeper.
pub enum Said {
    /// Tasks, each an operation and its argument. Answered when they are taken, so that no more wait than the threads
    /// hold.
    Push { session: u64, calls: Vec<(String, Vec<u8>)>, reply: SyncSender<Result<()>> },
    /// Nothing of what is not over is wanted.
    Cancel { session: u64 },
    /// The next ends, from this one on, when there are some.
    Ends { session: u64, from: usize, reply: SyncSender<Batch> },
    /// The program has gone, or has closed its bag.
    Gone(u64),
}

/// Some ends.
pub struct Batch {
    ends: Vec<End>,
    next: usize,
}

/// A task that came to its end.
struct End {
    task: u32,
    how: How,
}

enum How {
    /// What it returned lies there.
    Done(Span),
    Failed(TaskEnd),
}

/// The program that has a bag open: one at a time, since it numbers what it pushes.
#[derive(Default)]
pub struct Sessions {
    /// Its number, and whether the bag is its alone.
    open: Option<(u64, bool)>,
    opened: u64,
    /// Its thread that waits for ends, from that one on.
    waiting: Option<(usize, SyncSender<Batch>)>,
}

impl Sessions {
    /// A program has opened the bag, in place of one that had before; its number.
    pub fn open(&mut self, owns: bool) -> Result<u64> {
        if let Some((_, true)) = self.open {
            bail!("the bag ends with the program that has opened it, and nobody else can open it");
        }
        self.opened += 1;
        (self.open, self.waiting) = (Some((self.opened, owns)), None);
        Ok(self.opened)
    }

    /// Whether that program has it open.
    pub fn has(&self, session: u64) -> bool {
        self.open.is_some_and(|(open, _)| open == session)
    }

    pub fn is_empty(&self) -> bool {
        self.open.is_none()
    }

    /// The program that had it open has gone; whether the bag was its alone.
    pub fn gone(&mut self) -> bool {
        self.waiting = None;
        self.open.take().is_some_and(|(_, owns)| owns)
    }

    /// A thread wants the ends from here on.
    pub fn want(&mut self, from: usize, reply: SyncSender<Batch>) {
        self.waiting = Some((from, reply));
    }

    /// Gives what has ended to the thread that waits for it.
    pub fn tell(&mut self, bag: &Bag) {
        let finished = bag.finished();
        let Some((from, reply)) = self.waiting.take_if(|(from, _)| *from < finished.len()) else { return };
        let next = finished.len().min(from + ENDS);
        let ends = finished[from..next].iter().filter_map(|task| end(bag, *task)).collect();
        // Nobody waits where the program has gone.
        let _ = reply.send(Batch { ends, next });
    }
}

/// How a task has ended. One that is open again is told when it ends anew.
fn end(bag: &Bag, task: u32) -> Option<End> {
    let view = bag.task(task)?;
    let how = match (view.verdict, view.outputs()) {
        (Verdict::Done, Some((stdout, _))) => How::Done(stdout),
        (Verdict::Waiting | Verdict::Ready | Verdict::Running | Verdict::Done | Verdict::Withdrawn, _) => {
            return None;
        }
        (verdict, _) => {
            let evidence = view.evidence.filter(|_| matches!(verdict, Verdict::Failed | Verdict::SetAside));
            let (code, text) = match evidence.map(|evidence| &evidence.end) {
                // In its own words.
                Some(mutirao_bag::End::Operation(code, text)) => (*code, text.clone()),
                Some(end) => (0, end.to_string()),
                None => (0, verdict.word().to_owned()),
            };
            let kind = evidence.map_or(verdict.word(), |evidence| evidence.end.word()).to_owned();
            let node = evidence.map(|evidence| evidence.node.clone()).unwrap_or_default();
            How::Failed(TaskEnd::Failed { kind, code, text, node })
        }
    };
    Some(End { task, how })
}

/// What pushes add to a bag.
pub fn pushed(bag: &Bag, calls: &[(String, Vec<u8>)]) -> Result<Input> {
    let Some(program) = &bag.settings().program else { bail!("this bag is none of a program's operations") };
    let (mut templates, mut tasks) = (Vec::<Template>::new(), Vec::new());
    for (operation, argument) in calls {
        let is_of = |template: &Template| matches!(&template.work, Work::Operation { name, as_bytes: true, .. } if name == operation);
        let known = bag.templates().iter().chain(&templates).position(is_of);
        let template = known.unwrap_or_else(|| {
            templates.push(template_of(program, operation));
            bag.templates().len() + templates.len() - 1
        });
        tasks.push(NewTask { template: template as u32, values: vec![value_of(argument)?] });
    }
    bag.check_room(templates.len(), tasks.len())?;
    Ok(Input::Add { templates, tasks })
}

/// An argument as the value of a parameter: each byte a letter.
fn value_of(argument: &[u8]) -> Result<Box<str>> {
    let value: Box<str> = argument.iter().map(|byte| char::from(*byte)).collect::<String>().into();
    if value.len() > ARGUMENT_BYTES_MAX {
        bail!("an argument of {} bytes; at most {ARGUMENT_BYTES_MAX} are possible", argument.len());
    }
    Ok(value)
}

/// The tasks of one operation.
fn template_of(program: &Program, operation: &str) -> Template {
    let parameters = vec!["argument".to_owned()];
    let argument = Words::read("{argument}", &parameters).unwrap_or_default();
    let work = Work::Operation { name: operation.to_owned(), argument, as_bytes: true };
    Template {
        parameters,
        retries: program.retries,
        limit_ms: program.limit_ms,
        checkpoint: program.saves_state.then(String::new),
        ..Template::new(operation, work)
    }
}

/// Serves a program over its stream, from now on, as the session of that number. `tasks` are those that the bag has by now.
pub fn serve(
    place: &Place,
    stream: UnixStream,
    (session, tasks): (u64, u64),
    sender: &Sender<Event>,
) -> Result<()> {
    stream.set_read_timeout(None)?;
    stream.set_write_timeout(None)?;
    let outputs = Outputs::open(&place.outputs())?;
    let begun = FromKeeper::Begun { bag: place.id, tasks };
    let writer = stream.try_clone().context("cannot serve a program")?;
    let events = sender.clone();
    // Why the one that hears has stopped. Only the other writes.
    let wrong = Arc::new(Mutex::new(None));
    let heard_wrong = wrong.clone();
    let write = move || {
        let Err(error) = tell(&writer, &begun, session, &outputs, &events);
        let wrong = heard_wrong.lock().unwrap_or_else(PoisonError::into_inner).take();
        refuse(&writer, &wrong.unwrap_or(error));
    };
    crate::threads::start("ends", write)?;
    let events = sender.clone();
    let read = move || {
        let heard = hear(&stream, session, &events);
        *wrong.lock().unwrap_or_else(PoisonError::into_inner) = heard.err();
        // Without a keeper nobody wants to know.
        let _ = events.send(Event::Program(Said::Gone(session)));
    };
    crate::threads::start("pushes", read)
}

/// Tells a program that it is not served, and why.
pub fn refuse(mut stream: &UnixStream, error: &anyhow::Error) {
    // It may have gone.
    let _ = stream.write_all(&encode(&FromKeeper::Failed(format!("{error:#}"))));
    let _ = stream.shutdown(Shutdown::Both);
}

/// Reads what a program says until it has gone.
fn hear(stream: &UnixStream, session: u64, events: &Sender<Event>) -> Result<()> {
    let mut from = BufReader::with_capacity(READ_BYTES, stream);
    let mut calls = Vec::new();
    while let Some(message) = read_message(&mut from)? {
        let said = match message {
            ToKeeper::Cancel => Said::Cancel { session },
            ToKeeper::Push { operation, argument } => {
                calls.push((operation, argument));
                // All that is there already shares one wait for the disk.
                if has_message(from.buffer()) && calls.len() < CALLS {
                    continue;
                }
                let (reply, taken) = sync_channel(1);
                let push = Said::Push { session, calls: std::mem::take(&mut calls), reply };
                events.send(Event::Program(push)).ok().context("the keeper has gone")?;
                taken.recv().context("the keeper has gone")??;
                continue;
            }
        };
        events.send(Event::Program(said)).ok().context("the keeper has gone")?;
    }
    Ok(())
}

/// Whether a whole message lies in what was read. One that ends what was pushed stands behind all of it, so a message
/// that is not whole, or of another kind, may wait.
fn has_message(read: &[u8]) -> bool {
    let Some((head, rest)) = read.split_first_chunk::<4>() else { return false };
    length(*head).is_ok_and(|length| rest.len() >= length) && rest.first() == Some(&0)
}

/// The next message; nothing at the end.
fn read_message(from: &mut impl Read) -> Result<Option<ToKeeper>> {
    let mut head = [0; 4];
    match from.read(&mut head[..1]) {
        Ok(0) => return Ok(None),
        Ok(_) => {}
        // A program that was killed leaves what was on its way behind.
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Ok(None),
        Err(error) => return Err(error).context("what the program says cannot be read"),
    }
    from.read_exact(&mut head[1..]).context("a message broke off")?;
    let mut body = vec![0; length(head)?];
    from.read_exact(&mut body).context("a message broke off")?;
    Ok(Some(decode(&body)?))
}

/// Tells a program of each end, for as long as it is served.
fn tell(
    stream: &UnixStream,
    begun: &FromKeeper,
    session: u64,
    outputs: &Outputs,
    events: &Sender<Event>,
) -> Result<Infallible> {
    let mut stream = BufWriter::new(stream);
    stream.write_all(&encode(begun))?;
    stream.flush()?;
    let mut from = 0;
    loop {
        let (reply, batches) = sync_channel(1);
        let ends = Said::Ends { session, from, reply };
        events.send(Event::Program(ends)).ok().context("the keeper has gone")?;
        let Batch { ends, next } = batches.recv().context("another program has opened the bag")?;
        for End { task, how } in ends {
            let end = match how {
                How::Done(span) => TaskEnd::Done(outputs.read(span)?),
                How::Failed(end) => end,
            };
            stream.write_all(&encode(&FromKeeper::Ended { task: task.into(), end }))?;
        }
        stream.flush()?;
        from = next;
    }
}
