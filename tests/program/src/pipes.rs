//! Pipes between this program and its workers, and between workers.
//!
//! `pipes HOW FROM TO A B` prints what came of it, at both ends, as JSON:
//!
//! - `echo A B`: so many messages of so many bytes go from one end to the other and back.
//! - `pour A 0`: so many bytes go one way.
//! - `beside A 0`: the same, beside a pipe between the same two of which nobody reads.
//! - `numbers A B`: so many batches of numbers go one way, a pause of so many milliseconds after each, over all
//!   breaks: what was not acknowledged is sent again.
//! - `end A 0`: the worker at the far end is killed after so many messages; the near end tells what it heard.
//!
//! FROM and TO are `p`, this program, or names of nodes; the same name twice means two workers there.

use mutirao::raw::{
    CallOptions, LeaseKey, Line, LineEvent, PipeEnd, PipeEvent, Pool, Request, RingEnds, Way, line, ring,
};
use mutirao::{Error, Options, Slots};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{SendFlags, send};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// How long anything may take here: machines are busy.
const PATIENCE: Duration = Duration::from_secs(120);

/// This end of a pipe, as bytes. `Ok(0)` is the end, and so is an error.
enum Stream {
    Ring(Box<RingEnds>),
    Socket(File),
}

impl Stream {
    fn new(way: Way) -> (Stream, &'static str) {
        match way {
            Way::Ring(ring) => (Stream::Ring(Box::new(ring.map().expect("the node made it"))), "ring"),
            Way::Socket { fd, trusted } => {
                (Stream::Socket(blocking(fd)), if trusted { "plain" } else { "socket" })
            }
        }
    }

    fn read(&mut self, bytes: &mut [u8]) -> Result<usize, String> {
        match self {
            Stream::Ring(ends) => loop {
                let count = ends.reader.read(bytes).map_err(|error| error.to_string())?;
                if count > 0 {
                    return Ok(count);
                }
                let woken = ring::wait(&mut ends.reader, &mut ring::Spinner::asleep(), &ends.bell, &[], None);
                if woken.map_err(|error| error.to_string())? == ring::Wake::Gone {
                    return Ok(0);
                }
            },
            Stream::Socket(file) => file.read(bytes).map_err(|error| error.to_string()),
        }
    }

    fn read_whole(&mut self, bytes: &mut [u8]) -> Result<(), String> {
        let mut have = 0;
        while have < bytes.len() {
            match self.read(&mut bytes[have..])? {
                0 => return Err("the end came early".into()),
                count => have += count,
            }
        }
        Ok(())
    }

    fn write_whole(&mut self, bytes: &[u8]) -> Result<(), String> {
        match self {
            Stream::Ring(ends) => {
                let mut rest = bytes;
                while !rest.is_empty() {
                    let count = ends.writer.write(rest).map_err(|error| error.to_string())?;
                    rest = &rest[count..];
                    if count == 0 {
                        let mut room = ends.writer.until_room(1);
                        let woken =
                            ring::wait(&mut room, &mut ring::Spinner::asleep(), &ends.bell, &[], None);
                        if woken.map_err(|error| error.to_string())? == ring::Wake::Gone {
                            return Err("the other end is gone".into());
                        }
                    }
                }
                ends.writer.flush().map_err(|error| error.to_string())
            }
            Stream::Socket(file) => file.write_all(bytes).map_err(|error| error.to_string()),
        }
    }
}

impl Stream {
    /// Writes until nothing more is taken for a while; how much that was.
    fn stuff(&mut self) -> Result<usize, String> {
        let chunk = [5; 4096];
        let mut stuffed = 0;
        loop {
            let count = match self {
                Stream::Ring(ends) => ends.writer.write(&chunk).map_err(|error| error.to_string())?,
                Stream::Socket(file) => {
                    let pause = Timespec { tv_sec: 0, tv_nsec: 300_000_000 };
                    let mut fds = [PollFd::new(file, PollFlags::OUT)];
                    match poll(&mut fds, Some(&pause)).map_err(|error| error.to_string())? {
                        0 => 0,
                        _ => send(file, &chunk, SendFlags::DONTWAIT).unwrap_or(0),
                    }
                }
            };
            stuffed += count;
            if count == 0 {
                return Ok(stuffed);
            }
        }
    }
}

fn blocking(fd: OwnedFd) -> File {
    rustix::io::ioctl_fionbio(&fd, false).expect("a socket can be made to block");
    File::from(fd)
}

/// Where an end hears of its pipes.
enum Source<'a> {
    Line(Line),
    Pool(&'a Pool),
}

/// What an end has heard.
struct Ear<'a> {
    source: Source<'a>,
    /// Pipes that nobody has asked for yet.
    kept: BTreeMap<u64, Way>,
    /// Breaks, of all pipes.
    breaks: u64,
}

impl<'a> Ear<'a> {
    fn new(source: Source<'a>) -> Ear<'a> {
        Ear { source, kept: BTreeMap::new(), breaks: 0 }
    }

    fn hear(&mut self) -> Result<(), String> {
        let late = || "nothing is heard of the pipe".to_owned();
        let event = match &self.source {
            Source::Line(line) => {
                match line.next(Some(PATIENCE)).map_err(|error| error.to_string())?.ok_or_else(late)? {
                    LineEvent::Pipe(event) => event,
                    LineEvent::Terminal(_) | LineEvent::Blob { .. } | LineEvent::Kept(_) => {
                        return Err("something came that nobody asked for".into());
                    }
                    LineEvent::Message { kind, .. } => {
                        return Err(format!("a {kind:#06x} came over the line"));
                    }
                }
            }
            Source::Pool(pool) => {
                let event = pool.next_pipe_event(Some(PATIENCE)).map_err(|error| error.to_string())?;
                event.ok_or_else(late)?
            }
        };
        match event {
            PipeEvent::Opened { number, way } => drop(self.kept.insert(number, way)),
            PipeEvent::Broken { number } => {
                self.breaks += 1;
                self.kept.remove(&number);
            }
            PipeEvent::Failed { text, .. } => return Err(text),
        }
        Ok(())
    }

    /// Waits for a pipe, whatever happens to others.
    fn pipe(&mut self, number: u64) -> Result<(Stream, &'static str), String> {
        loop {
            if let Some(way) = self.kept.remove(&number) {
                return Ok(Stream::new(way));
            }
            self.hear()?;
        }
    }
}

/// What the so manieth byte of a stream is.
fn byte(at: usize) -> u8 {
    (at % 251) as u8
}

/// Plays one side.
fn play(ear: &mut Ear<'_>, role: &str, a: u64, b: u64) -> Result<Value, String> {
    match role {
        "ask" => {
            let (mut stream, way) = ear.pipe(1)?;
            let said: Vec<u8> = (0..b as usize).map(byte).collect();
            let mut heard = vec![0; said.len()];
            let began = Instant::now();
            for _ in 0..a {
                stream.write_whole(&said)?;
                stream.read_whole(&mut heard)?;
                if heard != said {
                    return Err("something else came back".into());
                }
            }
            Ok(json!({"way": way, "ns_each": began.elapsed().as_nanos() as u64 / a.max(1)}))
        }
        "answer" => {
            let (mut stream, way) = ear.pipe(1)?;
            let mut bytes = vec![0; b as usize];
            for _ in 0..a {
                stream.read_whole(&mut bytes)?;
                stream.write_whole(&bytes)?;
            }
            Ok(json!({"way": way}))
        }
        "pour" => {
            let (mut stream, way) = ear.pipe(1)?;
            let bytes: Vec<u8> = (0..251 * 261).map(byte).collect();
            let mut left = a as usize;
            let began = Instant::now();
            while left > 0 {
                let part = left.min(bytes.len());
                stream.write_whole(&bytes[..part])?;
                left -= part;
            }
            // The other side has it all when it says so.
            stream.read_whole(&mut [0])?;
            Ok(json!({"way": way, "took_us": began.elapsed().as_micros() as u64}))
        }
        "drink" => {
            let (mut stream, way) = ear.pipe(1)?;
            let mut bytes = vec![0; 65_536];
            let mut have = 0;
            while have < a as usize {
                let count = stream.read(&mut bytes)?;
                if count == 0 {
                    return Err(format!("the end came after {have} bytes"));
                }
                if bytes[..count].iter().enumerate().any(|(i, one)| *one != byte(have + i)) {
                    return Err("something else came".into());
                }
                have += count;
            }
            stream.write_whole(&[1])?;
            Ok(json!({"way": way, "bytes": have}))
        }
        "pour beside" => {
            let (mut stuck, _) = ear.pipe(2)?;
            let stuffed = stuck.stuff()?;
            let mut value = play(ear, "pour", a, b)?;
            value["stuffed"] = json!(stuffed);
            Ok(value)
        }
        "drink beside" => {
            let stuck = ear.pipe(2)?;
            let value = play(ear, "drink", a, b);
            drop(stuck);
            value
        }
        "send numbers" => send_numbers(ear, a, b),
        "take numbers" => take_numbers(ear, a),
        "ask until the end" => {
            let (mut stream, way) = ear.pipe(1)?;
            let mut answers = 0;
            while stream.write_whole(&[7; 64]).and_then(|()| stream.read_whole(&mut [0; 64])).is_ok() {
                answers += 1;
            }
            while ear.breaks == 0 {
                ear.hear()?;
            }
            let (mut stream, _) = ear.pipe(1)?;
            stream.write_whole(&[7; 64])?;
            Ok(json!({"way": way, "answers": answers, "breaks": ear.breaks}))
        }
        "answer and end" => {
            play(ear, "answer", a, 64)?;
            std::process::abort();
        }
        other => Err(format!("{other} is no role")),
    }
}

/// Numbers in a batch.
const BATCH: u64 = 100;

/// Sends all batches, whatever breaks meanwhile: each time from where the other side says.
fn send_numbers(ear: &mut Ear<'_>, batches: u64, pause_ms: u64) -> Result<Value, String> {
    let mut opened = 0;
    loop {
        let (mut stream, way) = ear.pipe(1)?;
        opened += 1;
        let mut word = [0; 8];
        while stream.read_whole(&mut word).is_ok() {
            let next = u64::from_le_bytes(word);
            if next == batches * BATCH {
                return Ok(json!({"way": way, "opened": opened, "sent": next}));
            }
            let batch: Vec<u8> = (next..next + BATCH).flat_map(u64::to_le_bytes).collect();
            if stream.write_whole(&batch).is_err() {
                break;
            }
            std::thread::sleep(Duration::from_millis(pause_ms));
        }
    }
}

/// Says which number is wanted next, and takes a batch; each in its order.
fn take_numbers(ear: &mut Ear<'_>, batches: u64) -> Result<Value, String> {
    let mut next = 0;
    loop {
        let (mut stream, way) = ear.pipe(1)?;
        while stream.write_whole(&u64::to_le_bytes(next)).is_ok() {
            if next == batches * BATCH {
                return Ok(json!({"way": way, "taken": next}));
            }
            let mut batch = vec![0; BATCH as usize * 8];
            if stream.read_whole(&mut batch).is_err() {
                break;
            }
            for word in batch.as_chunks().0 {
                if u64::from_le_bytes(*word) != next {
                    return Err(format!("{} came instead of {next}", u64::from_le_bytes(*word)));
                }
                next += 1;
            }
        }
    }
}

/// A worker plays a side.
#[mutirao::operation(name = "pipe")]
pub fn pipe(role: String, a: u64, b: u64) -> Result<String, String> {
    let line = line().ok_or("this is no worker")?;
    play(&mut Ear::new(Source::Line(line)), &role, a, b).map(|value| value.to_string())
}

/// Gets workers, joins them, and has both sides played.
pub fn pipes(how: &str, from: &str, to: &str, a: u64, b: u64) -> Result<Value, Error> {
    let (near, far) = match how {
        "echo" => ("ask", "answer"),
        "pour" => ("pour", "drink"),
        "beside" => ("pour beside", "drink beside"),
        "numbers" => ("send numbers", "take numbers"),
        "end" => ("ask until the end", "answer and end"),
        other => {
            eprintln!("{other} is not known");
            std::process::exit(2);
        }
    };
    let pool = mutirao::Pool::open_with(Options { slots: Slots::ByHand, ..Options::default() })?;
    let raw = pool.raw();
    let [one, other] = workers_on(raw, [from, to])?;
    let end = |lease: Option<LeaseKey>| lease.map_or(PipeEnd::Program, PipeEnd::Worker);
    raw.open_pipe(1, end(one), end(other))?;
    if how == "beside" {
        raw.open_pipe(2, end(one), end(other))?;
    }
    eprintln!("open");
    let start = |role: &'static str, lease: LeaseKey| {
        let options = CallOptions { only: Some(lease), ..CallOptions::default() };
        pool.call_with(pipe, (role.to_owned(), a, b), options)
    };
    let calls = [one.map(|lease| start(near, lease)), other.map(|lease| start(far, lease))];
    // This program plays while the workers do.
    let here = if one.is_none() { near } else { far };
    let mut played =
        (one.is_none() || other.is_none()).then(|| play(&mut Ear::new(Source::Pool(raw)), here, a, b));
    let said = calls.map(|call| {
        let came = match call {
            Some(call) => match call.wait() {
                Ok(came) => came.map(|text| serde_json::from_str(&text).unwrap_or(Value::Null)),
                Err(error) => Err(error.to_string()),
            },
            None => played.take().unwrap_or_else(|| Err("both ends are this program".into())),
        };
        came.unwrap_or_else(|why| json!({"failed": why}))
    });
    Ok(json!({"near": said[0], "far": said[1]}))
}

/// A lease on each node named, none twice; `None` for the program itself. Slots that others are about to give
/// back are waited for.
fn workers_on(pool: &Pool, names: [&str; 2]) -> Result<[Option<LeaseKey>; 2], Error> {
    let began = Instant::now();
    loop {
        pool.allocate(&Request::slots(64))?;
        let mut held = pool.leases();
        let mut find = |name: &str| {
            let place = held.iter().position(|lease| lease.lender.name == name)?;
            Some(held.remove(place).key)
        };
        let found = names.map(|name| if name == "p" { Some(None) } else { find(name).map(Some) });
        let [Some(one), Some(other)] = found else {
            if began.elapsed() > PATIENCE {
                eprintln!("no slot of {} or {} is free", names[0], names[1]);
                std::process::exit(2);
            }
            let all: Vec<LeaseKey> = pool.leases().iter().map(|lease| lease.key).collect();
            pool.release(&all)?;
            std::thread::sleep(Duration::from_millis(50));
            continue;
        };
        let rest: Vec<LeaseKey> = held.iter().map(|lease| lease.key).collect();
        pool.release(&rest)?;
        return Ok([one, other]);
    }
}
