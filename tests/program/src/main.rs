//! A program whose operations misbehave in every way that the whole-system tests need.
//!
//! `test-program calls OPERATION COUNT ARGUMENT [SLOTS]` makes COUNT calls and prints what came of them as
//! JSON; `flow OPERATION STOP ARGUMENT SLOTS` makes calls until the file STOP is there, and does the same; `one OPERATION ARGUMENT...` makes one and prints its result; `stay` holds slots until standard
//! input closes, `await` too, but asks again until it has them; `insert USER SLOTS` lets
//! somebody in; `storm MILLISECONDS [by-hand]` has many threads use the pool at random;
//! `ledger STOP PORT FIRST` makes calls numbered from FIRST on until the file STOP is there, whose executions
//! `record PORT FILE` writes down; `hold RESOURCE AMOUNT MEMORY_MIB WHAT ON` attempts something in a worker
//! that holds all that; `pipes ...` joins workers, and `bag ...` pushes tasks, see there.

mod bag;
mod ledger;
mod operations;
mod pipes;
mod storm;

use mutirao::{CallErrorKind, Error, Options, Pool, Slots};
use operations::{Done, attempt, echo, end, sleep, sleep_once, spin, talk};
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::io::Read;
use std::path::Path;
use std::time::Duration;

/// Calls that a flow has under way.
const FLOW: usize = 16;

fn main() {
    mutirao::init();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match words[..] {
        ["calls", operation, count, argument] => calls(operation, number(count), number(argument), 0),
        ["calls", operation, count, argument, slots] => {
            calls(operation, number(count), number(argument), number(slots) as u32)
        }
        ["flow", operation, stop, argument, slots] => {
            flow(operation, Path::new(stop), number(argument), number(slots) as u32)
        }
        ["one", "end", how] => one(|pool| pool.call(end, how.to_owned()).wait().map(Value::from)),
        ["one", "attempt", what, on] => one(|pool| {
            let came = pool.call(attempt, (what.to_owned(), on.to_owned())).wait()?;
            Ok(came.map_or_else(|error| json!({"refused": error}), |done| json!({"done": done})))
        }),
        ["one", "echo", size] => one(|pool| {
            let bytes: Vec<u8> = (0..number(size)).map(|i| (i % 251) as u8).collect();
            let same = pool.call(echo, bytes.clone()).wait()? == bytes;
            Ok(json!({"same": same}))
        }),
        ["one", "talk", line, span_ms] => {
            one(|pool| pool.call(talk, (line.to_owned(), number(span_ms))).wait().map(Value::from))
        }
        ["one", "limit", limit_ms] => one(|pool| limited(pool, number(limit_ms))),
        ["storm", span_ms] => storm::storm(Duration::from_millis(number(span_ms)), false),
        ["storm", span_ms, "by-hand"] => storm::storm(Duration::from_millis(number(span_ms)), true),
        ["ledger", stop, port, first] => ledger::keep(stop, number(port), number(first)),
        ["record", port, file] => ledger::record(number(port), file),
        ["hold", resource, amount, memory_mib, what, on] => {
            ledger::hold(resource, number(amount) as u32, number(memory_mib) as u32, what, on)
        }
        ["bag", "roots", count] => bag::roots(number(count)),
        ["bag", "leave", count, file] => bag::leave(number(count), file),
        ["bag", "find", bag] => bag::find(number(bag) as u32),
        ["bag", "hold", count] => bag::hold(number(count)),
        ["pipes", how, from, to, a, b] => pipes::pipes(how, from, to, number(a), number(b)),
        ["stay", slots] => open(number(slots) as u32).map(stay),
        ["insert", who, slots] => Pool::open()
            .and_then(|pool| Ok(json!({"version": pool.raw().insert(who, number(slots) as u32)?}))),
        ["await", slots] => awaited(number(slots) as u32).map(stay),
        _ => {
            eprintln!("unknown arguments: {words:?}");
            std::process::exit(2);
        }
    };
    match result {
        Ok(value) => println!("{value}"),
        Err(error) => {
            eprintln!("test-program: {error}");
            std::process::exit(1);
        }
    }
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or_else(|_| {
        eprintln!("{text} is not a number");
        std::process::exit(2);
    })
}

/// Opens the pool; with `slots`, that many are held for the whole time.
fn open(slots: u32) -> Result<Pool, Error> {
    if slots == 0 {
        return Pool::open();
    }
    let pool = Pool::open_with(Options { slots: Slots::ByHand, ..Options::default() })?;
    pool.allocate(slots)?;
    Ok(pool)
}

fn one(call: impl FnOnce(&Pool) -> Result<Value, Error>) -> Result<Value, Error> {
    match call(&Pool::open()?) {
        Err(Error::Call(error)) => {
            Ok(json!({"failed": error.text, "code": error.kind.code(), "node": error.node}))
        }
        other => other,
    }
}

fn limited(pool: &Pool, limit_ms: u64) -> Result<Value, Error> {
    let options = mutirao::CallOptions { limit: Some(Duration::from_millis(limit_ms)), ..Default::default() };
    let done = pool.call_with(sleep_once, (1, 600_000), options).wait()?;
    Ok(json!({"number": done.number}))
}

/// Makes so many calls at once; tells what came of them.
fn calls(operation: &str, count: u64, argument: u64, slots: u32) -> Result<Value, Error> {
    let pool = open(slots)?;
    eprintln!("open");
    let handles: Vec<_> = (0..count).map(|i| submit(&pool, operation, i, argument)).collect();
    let mut came = Came::default();
    for (i, call) in handles.into_iter().enumerate() {
        came.note(i as u64, call)?;
    }
    Ok(came.told(&pool))
}

/// Has some calls under way until the file `stop` is there; tells what came of all.
fn flow(operation: &str, stop: &Path, argument: u64, slots: u32) -> Result<Value, Error> {
    let pool = open(slots)?;
    let mut handles = VecDeque::new();
    let (mut came, mut next) = (Came::default(), 0);
    loop {
        while handles.len() < FLOW && !stop.exists() {
            handles.push_back((next, submit(&pool, operation, next, argument)));
            next += 1;
        }
        let Some((number, call)) = handles.pop_front() else { break };
        came.note(number, call)?;
    }
    Ok(came.told(&pool))
}

fn submit(pool: &Pool, operation: &str, number: u64, argument: u64) -> mutirao::Call<Done> {
    match operation {
        "sleep" => pool.call(sleep, (number, argument)),
        "sleep_once" => pool.call(sleep_once, (number, argument)),
        "spin" => pool.call(spin, (number, argument)),
        other => {
            eprintln!("{other} is not an operation with a number");
            std::process::exit(2);
        }
    }
}

/// How many results came, from how many workers, and which went wrong how.
#[derive(Default)]
struct Came {
    calls: u64,
    results: u64,
    wrong: u64,
    workers: BTreeMap<u32, u64>,
    failures: BTreeMap<String, u64>,
}

impl Came {
    fn note(&mut self, number: u64, call: mutirao::Call<Done>) -> Result<(), Error> {
        self.calls += 1;
        match call.wait() {
            Ok(done) => {
                self.results += 1;
                self.wrong += u64::from(done.number != number);
                *self.workers.entry(done.pid).or_default() += 1;
            }
            Err(Error::Call(error)) => {
                let kind = match error.kind {
                    CallErrorKind::OutcomeUnknown => "outcome unknown".to_owned(),
                    kind => format!("{kind:?}: {}", error.text),
                };
                *self.failures.entry(kind).or_default() += 1;
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn told(self, pool: &Pool) -> Value {
        let nodes: BTreeMap<String, u64> = pool.leases().iter().fold(BTreeMap::new(), |mut nodes, lease| {
            *nodes.entry(lease.lender.name.clone()).or_default() += lease.finished;
            nodes
        });
        let notes: Vec<String> = pool.raw().notes().iter().map(mutirao::raw::note_text).collect();
        json!({
            "calls": self.calls, "results": self.results, "wrong": self.wrong,
            "workers": self.workers.values().collect::<Vec<_>>(),
            "nodes": nodes, "failures": self.failures, "notes": notes,
        })
    }
}

/// Holds slots until standard input closes.
fn stay(pool: Pool) -> Value {
    println!("held");
    let mut rest = Vec::new();
    // However it ends, the slots are given back.
    let _ = std::io::stdin().read_to_end(&mut rest);
    drop(pool);
    Value::Null
}

/// Asks for slots until it is given them.
fn awaited(slots: u32) -> Result<Pool, Error> {
    let pool = Pool::open_with(Options { slots: Slots::ByHand, ..Options::default() })?;
    while pool.allocate(slots)?.leases.is_empty() {
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(pool)
}
