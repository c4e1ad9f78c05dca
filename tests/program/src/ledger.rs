//! Numbered calls for as long as faults are injected, and an account of every one.
//!
//! The operations write down each execution, through a recorder that runs on each machine beside the node:
//! a worker is confined and cannot write files itself.

use mutirao::raw::{CallErrorKind, CallOptions, Deliver, Finished, Pool};
use mutirao::{Error, Options, Request, Slots};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

/// Calls under way at a time.
const WINDOW: usize = 12;
/// A call that has not ended so long after the last was submitted is lost.
const PATIENCE: Duration = Duration::from_secs(90);

/// Writes down that it runs, takes its time, and gives its number back; may run again.
#[mutirao::operation(name = "noted", repeatable)]
pub fn noted(number: u64, span_ms: u64, port: u64) -> u64 {
    note("again", number, span_ms, port)
}

/// The same, but must not run twice.
#[mutirao::operation(name = "noted_once")]
pub fn noted_once(number: u64, span_ms: u64, port: u64) -> u64 {
    note("once", number, span_ms, port)
}

fn note(kind: &str, number: u64, span_ms: u64, port: u64) -> u64 {
    let port = u16::try_from(port).expect("the test gives a port");
    let mut recorder = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("the recorder listens");
    writeln!(recorder, "{kind} {number} {}", std::process::id()).expect("the recorder reads");
    recorder.read_exact(&mut [0]).expect("the recorder has written it down");
    std::thread::sleep(Duration::from_millis(span_ms));
    number
}

/// Appends each line that comes to a file before it answers, until it is killed.
pub fn record(port: u64, file: &str) -> Result<Value, Error> {
    let failed = |what: &'static str| move |source| Error::System { what, source };
    let mut file =
        OpenOptions::new().create(true).append(true).open(file).map_err(failed("open the record"))?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port as u16)).map_err(failed("listen"))?;
    println!("ready");
    for stream in listener.incoming().flatten() {
        let mut stream = stream;
        let mut line = Vec::new();
        let mut byte = [0];
        while line.last() != Some(&b'\n') && stream.read_exact(&mut byte).is_ok() {
            line.push(byte[0]);
        }
        // A worker that was killed in the middle of a line has not begun.
        if line.last() == Some(&b'\n') {
            file.write_all(&line).map_err(failed("write the record"))?;
            let _ = stream.write_all(b"k");
        }
    }
    Ok(Value::Null)
}

/// Calls until the file `stop` is there; then waits for what is under way and gives the account.
pub fn keep(stop: &str, port: u64, first: u64) -> Result<Value, Error> {
    let pool = Pool::open(Options {
        slots: Slots::Auto { min: 0, max: 6, idle: Duration::from_secs(3) },
        ..Options::default()
    })?;
    let operations = [pool.operation("noted")?, pool.operation("noted_once")?];
    let mut ledger = Ledger { first, ..Ledger::default() };
    while !Path::new(stop).exists() {
        while ledger.open < WINDOW {
            let number = ledger.ends.len() as u64;
            let argument =
                [first + number, 5 + number * 37 % 90, port].into_iter().flat_map(varint).collect();
            let options = CallOptions { deliver: Deliver::Queue, tag: number, ..CallOptions::default() };
            pool.submit(operations[(number % 2) as usize], argument, options)?;
            ledger.ends.push(Vec::new());
            ledger.open += 1;
        }
        ledger.take(&pool, Duration::from_millis(20));
    }
    let until = Instant::now() + PATIENCE;
    while ledger.open > 0 && Instant::now() < until {
        ledger.take(&pool, Duration::from_millis(20));
    }
    // What comes now would have come twice.
    ledger.take(&pool, Duration::from_millis(300));
    pool.close();
    Ok(ledger.account())
}

/// Slots by hand: what a worker of a lease with `amount` of `resource` and so much memory says to `what`.
pub fn hold(resource: &str, amount: u32, memory_mib: u32, what: &str, on: &str) -> Result<Value, Error> {
    let pool = mutirao::Pool::open_with(Options { slots: Slots::ByHand, ..Options::default() })?;
    pool.allocate_with(
        &Request::slots(1).cores(2).resource(resource, amount).memory_mib(memory_mib).all_or_none(),
    )?;
    let said = if what == "end" {
        pool.call(crate::operations::end, on.to_owned()).wait()
    } else {
        pool.call(crate::operations::attempt, (what.to_owned(), on.to_owned()))
            .wait()
            .map(|came| came.unwrap_or_else(|error| error))
    };
    match said {
        Ok(text) => Ok(json!({"said": text})),
        Err(Error::Call(error)) => Ok(json!({"failed": error.text})),
        Err(error) => Err(error),
    }
}

#[derive(Default)]
struct Ledger {
    /// The number of the first call.
    first: u64,
    /// What came of each call: once each, if all is well.
    ends: Vec<Vec<End>>,
    open: usize,
}

enum End {
    Result,
    Wrong,
    Unknown,
    Failed(String),
}

impl Ledger {
    fn take(&mut self, pool: &Pool, wait: Duration) {
        let event = pool.event_fd();
        let timeout = Timespec { tv_sec: 0, tv_nsec: wait.as_nanos() as i64 };
        // An interrupted wait is a short one.
        let _ = poll(&mut [PollFd::new(&event, PollFlags::IN)], Some(&timeout));
        while let Some(finished) = pool.next_finished() {
            self.enter(&finished);
        }
    }

    fn enter(&mut self, finished: &Finished) {
        let end = match &finished.result {
            Ok(bytes) if *bytes == varint(self.first + finished.tag) => End::Result,
            Ok(_) => End::Wrong,
            Err(error) if error.kind == CallErrorKind::OutcomeUnknown => End::Unknown,
            Err(error) => End::Failed(format!("{:?}: {}", error.kind, error.text)),
        };
        if let Some(ends) = self.ends.get_mut(finished.tag as usize) {
            ends.push(end);
            self.open -= usize::from(ends.len() == 1);
        }
    }

    fn account(&self) -> Value {
        let numbered = || self.ends.iter().enumerate();
        let with = |is: fn(&End) -> bool, parity: usize| -> Vec<usize> {
            let mine = numbered().filter(|(number, _)| number % 2 == parity);
            mine.filter(|(_, ends)| ends.iter().any(is)).map(|(number, _)| number).collect()
        };
        let mut failures: BTreeMap<&str, u64> = BTreeMap::new();
        for end in self.ends.iter().flatten() {
            if let End::Failed(text) = end {
                *failures.entry(text).or_default() += 1;
            }
        }
        json!({
            "submitted": self.ends.len(),
            "lost": numbered().filter(|(_, ends)| ends.is_empty()).map(|(number, _)| number).collect::<Vec<_>>(),
            "twice": numbered().filter(|(_, ends)| ends.len() > 1).map(|(number, _)| number).collect::<Vec<_>>(),
            "wrong": self.ends.iter().flatten().filter(|end| matches!(end, End::Wrong)).count(),
            "again_results": with(|end| matches!(end, End::Result), 0),
            "again_unknown": with(|end| matches!(end, End::Unknown), 0),
            "once_results": with(|end| matches!(end, End::Result), 1),
            "once_unknown": with(|end| matches!(end, End::Unknown), 1),
            "failures": failures,
        })
    }
}

/// A number as the typed operations encode it.
fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}
