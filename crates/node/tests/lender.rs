//! Workers end to end: real nodes in threads, whose workers are this very program.
//!
//! Without the usual harness, because the program is worker host and plugin too. Arguments name the
//! tests to run; `--list` and other options of the harness are accepted and mean nothing.

#[allow(dead_code)] // Made for the tests of the tree as well.
mod common;

use common::{PATIENCE, Pool as Lab, Program, Running};
use mutirao::raw::{self, CallOptions, Failure, OperationEntry, Options, PipeEnd, Pool, Request, Slots};
use mutirao_wire::lease::LeaseEnd;
use mutirao_wire::local::{Allocate, LeaseChange, LeaseNews, LocalMessage, OfferPlugin};
use mutirao_wire::node::Want;
use mutirao_wire::plugin::Operation;
use mutirao_wire::query::{Row, Topic};
use mutirao_wire::stream::failure;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const ECHO: u32 = 0;
const END: u32 = 1;
const NODE: u32 = 2;
const LEAVE_CHILD: u32 = 3;
const LOOK: u32 = 4;
const FLOOD: u32 = 5;
const LIMITS: u32 = 6;
const SLEEP: u32 = 7;
const BABBLE: u32 = 8;

fn main() {
    let mut args = std::env::args().skip(1).peekable();
    if args.peek().is_some_and(|word| word == "worker") {
        mutirao_confine::worker_main();
    }
    raw::init(operations()).unwrap();
    let wanted: Vec<String> = args.filter(|word| !word.starts_with('-')).collect();
    let tests: [(&str, fn()); 15] = [
        ("a_worker_that_ends_is_an_error_of_its_call_and_is_replaced", ends_are_errors_here),
        ("a_worker_on_another_node_ends_the_same_way", ends_are_errors_elsewhere),
        ("a_program_reaches_every_node_and_is_kept_there", the_program_spreads),
        ("a_time_limit_ends_the_worker_and_says_so", limits),
        ("whom_a_worker_leaves_behind_ends_with_it", nobody_is_left),
        ("each_worker_has_an_empty_directory_of_its_own", directories),
        ("programs_that_are_no_workers_are_told_why", no_workers),
        ("a_program_may_have_a_worker_replaced", replaced),
        ("who_holds_a_lease_hears_why_its_worker_cannot_be_talked_to", babbles),
        ("a_worker_that_does_not_listen_on_its_line_loses_its_lease", does_not_listen),
        ("a_flood_on_standard_error_holds_up_its_worker_only", floods),
        ("each_worker_has_the_limits_of_the_settings", settings),
        ("calls_that_had_not_started_when_their_lease_ended_run_elsewhere", ended_leases),
        ("a_node_without_room_for_a_plugin_says_so", no_room),
        ("a_warm_template_makes_a_worker_at_once", warm),
    ];
    for (name, test) in tests {
        if wanted.is_empty() || wanted.iter().any(|word| name.contains(word.as_str())) {
            let start = Instant::now();
            test();
            println!("test {name} ... ok ({} ms)", start.elapsed().as_millis());
        }
    }
}

fn operations() -> Vec<OperationEntry> {
    let entry = |name: &str, run: raw::Run| OperationEntry { name: name.into(), repeatable: false, run };
    vec![
        entry(
            "echo",
            Box::new(|argument, out| {
                out.extend_from_slice(argument);
                Ok(())
            }),
        ),
        entry(
            "end",
            Box::new(|argument, _| {
                eprintln!("about to end");
                match argument {
                    b"exit" => std::process::exit(3),
                    b"abort" => std::process::abort(),
                    b"memory" => {
                        eprintln!("memory allocation of 9 bytes failed");
                        std::process::abort()
                    }
                    b"for ever" => loop {
                        std::thread::sleep(Duration::from_secs(1));
                    },
                    _ => Err(Failure::own(1, "no such end")),
                }
            }),
        ),
        entry(
            "parent",
            Box::new(|_, out| {
                let parent = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
                out.extend_from_slice(&parent.to_le_bytes());
                Ok(())
            }),
        ),
        entry(
            "leave child",
            Box::new(|_, out| {
                let child = std::process::Command::new("sleep").arg("600").spawn();
                let child = child.map_err(|error| Failure::own(2, error.to_string()))?;
                out.extend_from_slice(&child.id().to_le_bytes());
                Ok(())
            }),
        ),
        entry(
            "look",
            Box::new(|argument, out| {
                let failed = |error: std::io::Error| Failure::own(3, error.to_string());
                let here = std::env::current_dir().map_err(failed)?;
                let files = std::fs::read_dir(&here).map_err(failed)?.count();
                std::fs::write(here.join("mine"), argument).map_err(failed)?;
                out.extend_from_slice(format!("{files} {}", here.display()).as_bytes());
                Ok(())
            }),
        ),
        entry(
            "flood",
            Box::new(|_, _| {
                let line = [b'x'; 65536];
                for _ in 0..64 {
                    let written = std::io::Write::write_all(&mut std::io::stderr(), &line);
                    written.map_err(|error| Failure::own(4, error.to_string()))?;
                }
                Ok(())
            }),
        ),
        entry(
            "limits",
            Box::new(|_, out| {
                use rustix::process::{Resource, getrlimit};
                for resource in [Resource::Data, Resource::Nofile, Resource::Nproc] {
                    let most = getrlimit(resource).maximum.unwrap_or(u64::MAX);
                    out.extend_from_slice(&most.to_le_bytes());
                }
                Ok(())
            }),
        ),
        entry(
            "sleep",
            Box::new(|_, _| {
                std::thread::sleep(Duration::from_secs(6));
                Ok(())
            }),
        ),
        entry(
            "babble",
            Box::new(|_, _| {
                let line = raw::line().ok_or_else(|| Failure::own(5, "it has no line"))?;
                rustix::io::write(line.fd(), &[0xff; 64])
                    .map_err(|errno| Failure::own(6, errno.to_string()))?;
                // For its node to end.
                std::thread::sleep(3 * PATIENCE);
                Ok(())
            }),
        ),
    ]
}

fn open(node: &Running) -> Pool {
    let options = Options { socket: Some(node.socket.clone()), slots: Slots::ByHand, ..Options::default() };
    Pool::open(options).unwrap()
}

fn slots(pool: &Pool, count: u32) {
    let got = pool.allocate(&Request { at_least: count, ..Request::slots(count) }).unwrap();
    assert_eq!(got.leases.len(), count as usize, "{got:?}");
}

fn call(pool: &Pool, operation: u32, argument: &[u8]) -> raw::CallResult {
    let mut call = pool.submit(operation, argument.to_vec(), CallOptions::default()).unwrap();
    call.wait_timeout(3 * PATIENCE).expect("an answer")
}

fn workers(pool: &Pool) -> Vec<mutirao_wire::query::WorkerRow> {
    let rows = pool.query(Topic::Workers { app: None }, None, Vec::new(), PATIENCE).unwrap().rows;
    rows.into_iter().filter_map(|row| if let Row::Worker(row) = row { Some(row) } else { None }).collect()
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Each way to end is told by its call, and the next call finds another worker.
fn every_end(pool: &Pool, names_operation: bool) {
    for (how, code, words) in [
        ("exit", failure::WORKER_ENDED, "exit code 3"),
        ("abort", failure::WORKER_ENDED, "signal 6 (aborted)"),
        ("memory", failure::OUT_OF_MEMORY, "out of memory"),
    ] {
        let error = call(pool, END, how.as_bytes()).unwrap_err();
        assert_eq!(error.kind.code(), code, "{error:?}");
        assert!(error.text.contains(words) && error.text.contains("about to end"), "{}", error.text);
        assert!(!names_operation || error.text.contains("`end`"), "{}", error.text);
        assert_eq!(call(pool, ECHO, b"on we go").unwrap(), b"on we go");
    }
}

fn ends_are_errors_here() {
    let lab = Lab::new();
    let node = lab.start("a", 1, &[]);
    let pool = open(&node);
    slots(&pool, 1);
    every_end(&pool, false);
    // More crashes in a row than starts that are forgiven: these workers do work.
    for _ in 0..8 {
        call(&pool, END, b"abort").unwrap_err();
    }
    assert_eq!(call(&pool, ECHO, b"still").unwrap(), b"still");
    until(
        "one idle worker is listed",
        || matches!(&workers(&pool)[..], [row] if row.state == "idle" && row.pid > 1 && row.node == "a"),
    );
}

/// A node, and another one on whose only slot the program's only lease lies.
fn elsewhere(lab: &Lab) -> (Running, Running, Pool, Pool) {
    let (a, b) = (lab.start("a", 1, &[]), lab.start("b", 1, &["a"]));
    let holder = open(&a);
    until("both nodes answer", || holder.nodes().unwrap().len() == 2);
    slots(&holder, 1);
    let pool = open(&a);
    slots(&pool, 1);
    assert_eq!(pool.leases()[0].lender.name, "b");
    (a, b, holder, pool)
}

fn ends_are_errors_elsewhere() {
    let lab = Lab::new();
    let (_a, _b, _holder, pool) = elsewhere(&lab);
    every_end(&pool, true);
    let large = vec![7; 3_000_000];
    assert!(call(&pool, ECHO, &large).unwrap() == large);
}

fn the_program_spreads() {
    let lab = Lab::new();
    let first = lab.start("n0", 1, &[]);
    let others: Vec<Running> = (1..6).map(|number| lab.start(&format!("n{number}"), 1, &["n0"])).collect();
    let pool = open(&first);
    until("all nodes answer", || pool.nodes().unwrap().len() == others.len() + 1);
    slots(&pool, 6);
    let calls: Vec<_> =
        (0..60u8).map(|number| pool.submit(ECHO, vec![number], CallOptions::default()).unwrap()).collect();
    assert!(pool.wait_all(&calls.iter().collect::<Vec<_>>(), Some(3 * PATIENCE)), "{:?}", workers(&pool));
    until("every node has its worker", || workers(&pool).iter().all(|row| row.pid > 1));
    let kept = || {
        let rows = pool.query(Topic::Plugins, None, Vec::new(), PATIENCE).unwrap().rows;
        rows.iter().filter(|row| matches!(row, Row::Plugin(row) if row.kept && row.leases == 1)).count()
    };
    assert_eq!(kept(), 6);
}

fn limits() {
    let lab = Lab::new();
    let (_a, _b, holder, pool) = elsewhere(&lab);
    for pool in [holder, pool] {
        let limit = Some(Duration::from_millis(300));
        let mut endless =
            pool.submit(END, b"for ever".to_vec(), CallOptions { limit, ..Default::default() }).unwrap();
        let error = endless.wait_timeout(PATIENCE).expect("it is ended").unwrap_err();
        assert_eq!(error.kind.code(), failure::TIME_LIMIT, "{error:?}");
        assert_eq!(call(&pool, ECHO, b"next").unwrap(), b"next");
    }
}

fn exists(pid: u32) -> bool {
    // An ended process that nobody has waited for is not there any more.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

fn number(bytes: Vec<u8>) -> u32 {
    u32::from_le_bytes(bytes.try_into().unwrap())
}

fn nobody_is_left() {
    let lab = Lab::new();
    let node = lab.start("a", 1, &[]);
    let pool = open(&node);
    slots(&pool, 1);
    let left = number(call(&pool, LEAVE_CHILD, b"").unwrap());
    assert!(exists(left));
    call(&pool, END, b"exit").unwrap_err();
    until("the child of the crashed worker is gone", || !exists(left));

    let left = number(call(&pool, LEAVE_CHILD, b"").unwrap());
    let template = number(call(&pool, NODE, b"").unwrap());
    let worker = workers(&pool)[0].pid;
    drop(pool);
    until("the worker of the program that left is gone", || !exists(worker) && !exists(left));
    until("nobody can use its template again", || !exists(template));
    let pool = open(&node);
    slots(&pool, 1);
    let template = number(call(&pool, NODE, b"").unwrap());
    pool.release(&pool.leases().iter().map(|lease| lease.key).collect::<Vec<_>>()).unwrap();
    until("the slot is free", || pool.nodes().unwrap()[0].slots_free == 1);
    assert!(exists(template), "its template waits for the next lease");
    drop(node);
    until("the template ends with its node", || !exists(template));
}

fn directories() {
    let lab = Lab::new();
    let node = lab.start("a", 1, &[]);
    let pool = open(&node);
    slots(&pool, 1);
    let look = || String::from_utf8(call(&pool, LOOK, b"x").unwrap()).unwrap();
    let (first, second) = (look(), look());
    assert!(first.starts_with("0 ") && second.starts_with("1 "), "{first}, {second}");
    call(&pool, END, b"abort").unwrap_err();
    let third = look();
    assert!(third.starts_with("0 ") && third[2..] != first[2..]);
    until("the first directory is removed", || !PathBuf::from(&first[2..]).exists());
}

/// Offers the file at `path` with these operations.
fn offering(node: &Running, app: u128, path: &Path, operations: Vec<Operation>) -> Program {
    let stream = UnixStream::connect(&node.socket).unwrap();
    let program = Program::over(stream.try_clone().unwrap(), app, 0, Vec::new()).unwrap();
    let offer = LocalMessage::from(OfferPlugin {
        name: "stranger".into(),
        version: String::new(),
        operations,
        files: vec!["stranger".into()],
    });
    let mut bytes = Vec::new();
    offer.put(&mut bytes);
    let file = std::fs::File::open(path).unwrap();
    let fds = [file.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    beside.push(SendAncillaryMessage::ScmRights(&fds));
    let sent = sendmsg(&stream, &[IoSlice::new(&bytes)], &mut beside, SendFlags::empty());
    assert_eq!(sent, Ok(bytes.len()));
    program
}

/// Asks for a slot with a worker.
fn one_worker() -> Allocate {
    let want = Want::default();
    Allocate { sequence: 1, want, at_least: 1, workers: true, wait: None }
}

/// Offers the file at `path` with one operation, asks for a slot with a worker, and returns what the
/// node says of it: the refusal of the offer, or the end of the lease.
fn offered(node: &Running, app: u128, path: &Path) -> String {
    let unheard_of = Operation { name: "unheard of".into(), repeatable: false };
    let mut program = offering(node, app, path, vec![unheard_of]);
    loop {
        match program.next().unwrap() {
            LocalMessage::PluginOffered(offered) => match offered.plugin {
                Ok(_) => program.send(one_worker()),
                Err(why) => return why,
            },
            LocalMessage::LeaseNews(LeaseNews { change: LeaseChange::Ended(end), .. }) => match end {
                LeaseEnd::CannotRun(why) => return why,
                other => panic!("unexpected {other:?}"),
            },
            LocalMessage::LeaseNews(_) | LocalMessage::Allocated(_) => {}
            other => panic!("unexpected {other:?}"),
        }
    }
}

/// A program that finds the ring of its worker broken has the worker ended and gets another one.
fn replaced() {
    let lab = Lab::new();
    let node = lab.start("a", 1, &[]);
    let operations = operations().into_iter();
    let operations =
        operations.map(|entry| Operation { name: entry.name, repeatable: entry.repeatable }).collect();
    let mut program = offering(&node, 1, &std::env::current_exe().unwrap(), operations);
    program.send(one_worker());
    let mut seen = Vec::new();
    while seen.len() < 3 {
        let LocalMessage::LeaseNews(news) = program.next().unwrap() else { continue };
        match news.change {
            LeaseChange::Ready => {
                seen.push("ready");
                let code = failure::WORKER_ENDED;
                program.send(mutirao_wire::local::KillWorker { handle: news.handle, call: None, code });
            }
            LeaseChange::WorkerEnded { code, .. } => {
                assert_eq!(code, failure::WORKER_ENDED);
                seen.push("ended");
            }
            _ => {}
        }
    }
    assert_eq!(seen, ["ready", "ended", "ready"]);
}

fn babbles() {
    let lab = Lab::new();
    let (_a, _b, here, there) = elsewhere(&lab);
    for pool in [here, there] {
        let error = call(&pool, BABBLE, b"").unwrap_err();
        assert!(error.text.contains("its worker has said what it may not"), "{error:?}");
    }
}

fn does_not_listen() {
    let lab = Lab::new();
    let node = lab.start("a", 1, &[]);
    let pool = open(&node);
    slots(&pool, 1);
    let mut deaf = pool.submit(END, b"for ever".to_vec(), CallOptions::default()).unwrap();
    until("it runs", || workers(&pool).iter().any(|row| row.state == "running"));
    let worker = PipeEnd::Worker(pool.leases()[0].key);
    let mut numbers = 0..20_000;
    let error = loop {
        if let Some(result) = deaf.wait_timeout(Duration::ZERO) {
            break result.unwrap_err();
        }
        let number = numbers.next().expect("news of pipes pile up");
        pool.open_pipe(number, PipeEnd::Program, worker).unwrap();
        pool.next_pipe_event(Some(PATIENCE)).unwrap();
        pool.close_pipe(number).unwrap();
    };
    assert!(error.text.contains("its worker does not listen to its node"), "{error:?}");
    slots(&pool, 1);
    assert_eq!(call(&pool, ECHO, b"on we go").unwrap(), b"on we go");
}

fn floods() {
    let lab = Lab::new();
    let node = lab.start("a", 1, &[]);
    let pool = open(&node);
    slots(&pool, 1);
    let mut flood = pool.submit(FLOOD, Vec::new(), CallOptions::default()).unwrap();
    let mut other = Program::connect(&node.socket, 77);
    assert_eq!(other.nodes().len(), 1);
    flood.wait_timeout(PATIENCE).expect("an answer").unwrap();
}

fn settings() {
    let lab = Lab::new();
    std::fs::write(
        lab.state().join("node.toml"),
        "[worker]\nmemory_mib = 256\nfiles = 99\nprocesses = 1234\n",
    )
    .unwrap();
    let node = lab.start("a", 1, &[]);
    let pool = open(&node);
    slots(&pool, 1);
    let limits = call(&pool, LIMITS, b"").unwrap();
    let limits: Vec<u64> = limits.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect();
    assert_eq!(limits, [256 << 20, 99, 1234]);
}

/// None of these operations may run twice, so the lender has to say which calls it never began.
fn ended_leases() {
    let lab = Lab::new();
    let (a, b) = (lab.start("a", 1, &[]), lab.start("b", 1, &["a"]));
    let pool = open(&a);
    until("both nodes answer", || pool.nodes().unwrap().len() == 2);
    slots(&pool, 2);
    let submit = |operation| pool.submit(operation, Vec::new(), CallOptions::default()).unwrap();
    // Warm, so that both begin at once.
    call(&pool, ECHO, b"").unwrap();
    let mut long = [submit(SLEEP), submit(SLEEP)];
    let running = || workers(&pool).iter().filter(|row| row.state == "running").count();
    until("both run", || running() == 2);
    let mut short: Vec<_> = (0..4).map(|_| submit(ECHO)).collect();
    std::thread::sleep(Duration::from_millis(300));
    let lease = workers(&pool).into_iter().find(|row| row.node == "b").unwrap();
    let what = format!("b/{}", lease.serial);
    let rows = pool.query(Topic::Kill { what }, None, Vec::new(), PATIENCE).unwrap().rows;
    assert!(matches!(&rows[..], [Row::Done { .. }]), "{rows:?}");
    for call in &mut short {
        call.wait_timeout(PATIENCE).expect("an answer").unwrap();
    }
    let ends: Vec<_> = long.iter_mut().map(|call| call.wait_timeout(PATIENCE).expect("an answer")).collect();
    assert_eq!(ends.iter().filter(|end| end.is_err()).count(), 1, "{ends:?}");
    drop(b);
}

fn no_room() {
    let lab = Lab::new();
    let place = lab.state().join("nodes/b");
    drop(lab.options("b", 1, &[])); // enrols it
    std::fs::write(place.join("node.toml"), "cache_mib = 1\n").unwrap();
    let (_a, _b, _holder, pool) = elsewhere(&lab);
    let error = call(&pool, ECHO, b"").unwrap_err();
    assert!(error.text.contains("cannot run there") && error.text.contains("cache"), "{error:?}");
}

fn no_workers() {
    let lab = Lab::new();
    let node = lab.start("a", 1, &[]);
    let script = lab.state().join("script");
    std::fs::write(&script, "#!/bin/sh\n").unwrap();
    let why = offered(&node, 1, &script);
    assert!(why.contains("`stranger` is a script"), "{why}");
    let huge = lab.state().join("huge");
    std::fs::File::create(&huge).unwrap().set_len(1 << 40).unwrap();
    let why = offered(&node, 5, &huge);
    assert!(why.contains("larger than this node's cache"), "{why}");
    let why = offered(&node, 2, Path::new("/bin/true"));
    assert!(why.contains("exit code 0") && why.contains("call mutirao_init first"), "{why}");
    let why = offered(&node, 3, Path::new("/bin/ls"));
    assert!(why.contains("before it was a worker"), "{why}");
    let why = offered(&node, 4, &std::env::current_exe().unwrap());
    assert!(why.contains("registers other operations"), "{why}");
}

fn warm() {
    let lab = Lab::new();
    let node = lab.start("a", 1, &[]);
    let pool = open(&node);
    let lease_and_call = || {
        let start = Instant::now();
        slots(&pool, 1);
        call(&pool, ECHO, b"x").unwrap();
        let took = start.elapsed();
        pool.release(&pool.leases().iter().map(|lease| lease.key).collect::<Vec<_>>()).unwrap();
        until("the slot is free", || pool.nodes().unwrap()[0].slots_free == 1);
        took
    };
    let cold = lease_and_call();
    let mut times: Vec<Duration> = (0..20).map(|_| lease_and_call()).collect();
    times.sort();
    // That a template which is there is used is held by `mutirao bench grow`.
    println!("lease, worker, first result: cold {cold:?}, warm {:?} (median of 20)", times[10]);
}
