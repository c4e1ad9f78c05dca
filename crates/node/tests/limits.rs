//! What programs cannot do to their node, and what a node does when there is nothing to do.

#[allow(dead_code)] // Made for all tests of this crate.
mod common;

use common::{PATIENCE, Pool, Program};
use mutirao_wire::frame::HEADER_BYTES;
use mutirao_wire::local::{ClientHello, HeldLease, LeaseChange, LocalMessage, Query};
use mutirao_wire::query::{Question, Topic};
use mutirao_wire::{AppId, Epoch, Handle, Incarnation, NodeId, NodeRef};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use std::io::{ErrorKind, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// What this test, as a process of its own, is told to be: a node.
#[test]
#[ignore = "run by other tests, as a process of its own"]
fn child_node() {
    common::be_a_node();
}

/// A number of a file under `/proc`, by its label.
fn number(path: &str, label: &str) -> u64 {
    let text = std::fs::read_to_string(path).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(label)).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn a_program_that_never_reads_is_made_to_wait_and_takes_no_more_memory() {
    let pool = Pool::new();
    let a = pool.start("a", 1, &[]);
    let node = pool.spawn("b", "a");
    let status = format!("/proc/{}/status", node.pid());
    let mut good = Program::connect(&node.socket, 1);
    good.wait_nodes("two nodes", |nodes| nodes.len() == 2);
    let before_kib = number(&status, "VmRSS:");

    let bad = Program::connect(&node.socket, 2);
    let mut stream = bad.stream();
    stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let question = Question { to: None, user: String::new(), order: Vec::new(), topic: Topic::Nodes };
    let (mut sent, start) = (0u32, Instant::now());
    let waits = loop {
        let mut bytes = Vec::new();
        for _ in 0..64 {
            LocalMessage::from(Query { number: sent, question: question.clone() }).put(&mut bytes);
            sent += 1;
        }
        match stream.write_all(&bytes) {
            Ok(()) if start.elapsed() > 3 * PATIENCE => break false,
            Ok(()) => {}
            Err(error) => break error.kind() == ErrorKind::WouldBlock,
        }
    };
    assert!(waits, "after {sent} questions nobody has held it up");
    good.wait_nodes("two nodes answer", |nodes| nodes.len() == 2);
    assert_eq!(good.allocate(1, 1).leases.len(), 1);
    let grown_kib = number(&status, "VmRSS:").saturating_sub(before_kib);
    assert!(grown_kib < 32 * 1024, "{grown_kib} KiB more after {sent} questions");
    drop(a);
}

#[test]
fn too_many_programs_and_too_many_descriptors_are_turned_away() {
    let pool = Pool::new();
    let a = pool.start("a", 1, &[]);
    let mut good = Program::connect(&a.socket, 1);

    let flood = Program::connect(&a.socket, 2);
    let file = std::fs::File::open("/dev/null").unwrap();
    let fds = [file.as_fd(); 60];
    // Bytes of a frame that never becomes whole, each with descriptors that no message speaks of.
    for _ in 0..HEADER_BYTES - 1 {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(60))];
        let mut beside = SendAncillaryBuffer::new(&mut space);
        beside.push(SendAncillaryMessage::ScmRights(&fds));
        if sendmsg(flood.stream(), &[IoSlice::new(&[0])], &mut beside, SendFlags::NOSIGNAL).is_err() {
            break;
        }
    }
    assert!(has_ended(flood.stream()));

    let many: Vec<UnixStream> = (0..1100).map(|_| UnixStream::connect(&a.socket).unwrap()).collect();
    assert!(many.last().is_some_and(has_ended));
    assert_eq!(good.nodes().len(), 1);
    drop(many);
    let start = Instant::now();
    loop {
        let mut stream = UnixStream::connect(&a.socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        // Nobody speaks to a program that has not spoken: what comes is the end.
        if stream.read(&mut [0]).is_err() {
            break assert!(Program::over(stream, 3, 0, Vec::new()).is_ok());
        }
        assert!(start.elapsed() < PATIENCE, "there is no room again");
    }
}

#[test]
fn who_waits_while_descriptors_are_short_is_let_in_when_there_are_some() {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};
    let pool = Pool::new();
    let _a = pool.start("a", 1, &[]);
    let node = pool.spawn("b", "a");
    let mut good = Program::connect(&node.socket, 1);
    good.wait_nodes("two nodes", |nodes| nodes.len() == 2);
    let pid = Pid::from_raw(node.pid() as i32);
    let few = Rlimit { current: Some(64), maximum: Some(64) };
    prlimit(pid, Resource::Nofile, few).unwrap();

    let many: Vec<UnixStream> = (0..100).map(|_| UnixStream::connect(&node.socket).unwrap()).collect();
    let mut waiting = UnixStream::connect(&node.socket).unwrap();
    let hello = ClientHello {
        protocol: (1, 1),
        app: AppId(9),
        name: "patient".into(),
        epoch: Epoch(0),
        homes: Vec::new(),
        leases: Vec::new(),
        plugin: None,
        as_user: false,
    };
    let mut bytes = Vec::new();
    LocalMessage::from(hello).put(&mut bytes);
    waiting.write_all(&bytes).unwrap();
    waiting.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert!(waiting.read(&mut [0]).is_err(), "there were descriptors enough");
    assert_eq!(good.nodes().len(), 2, "those who are in do not suffer");
    drop(many);
    waiting.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(waiting.read(&mut [0]).unwrap(), 1, "the welcome");
}

fn has_ended(stream: &UnixStream) -> bool {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut bytes = [0; 4096];
    let mut stream = stream;
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() == ErrorKind::ConnectionReset,
        }
    }
}

#[test]
fn a_program_that_returns_under_the_last_handle_there_is_gets_new_ones_all_the_same() {
    let pool = Pool::new();
    let a = pool.start("a", 1, &[]);
    let lender =
        NodeRef { id: NodeId([9; 32]), incarnation: Incarnation(1), name: "z".into(), addresses: Vec::new() };
    let held = vec![HeldLease { handle: Handle(u32::MAX), serial: 1, lender, slots: 1, works: false }];
    let mut program = Program::return_to(&a.socket, 1, 1, held).unwrap();
    assert!(matches!(program.next_news().change, LeaseChange::Ended(_)));
    assert_eq!(program.allocate(1, 1).leases.len(), 1);
}

#[test]
fn a_node_cannot_be_looked_into_and_leaves_no_core() {
    let pool = Pool::new();
    let _a = pool.start("a", 1, &[]);
    let dumpable = rustix::process::dumpable_behavior().unwrap();
    assert_eq!(dumpable, rustix::process::DumpableBehavior::NotDumpable);
    let core = rustix::process::getrlimit(rustix::process::Resource::Core);
    assert_eq!(core.current, Some(0));
}

#[test]
fn a_node_with_nothing_to_do_sleeps() {
    let pool = Pool::new();
    let _a = pool.start("a", 1, &[]);
    let node = pool.spawn("b", "a");
    let mut program = Program::connect(&node.socket, 1);
    program.wait_nodes("two nodes", |nodes| nodes.len() == 2);
    let wakes = || -> u64 {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", node.pid())).unwrap();
        let of = |task: std::fs::DirEntry| {
            number(task.path().join("status").to_str().unwrap(), "voluntary_ctxt_switches:")
        };
        tasks.map(|task| of(task.unwrap())).sum()
    };
    // What came with the beginning is over.
    std::thread::sleep(Duration::from_secs(1));
    let before = wakes();
    std::thread::sleep(Duration::from_secs(4));
    let woken = wakes() - before;
    // Two beats a second each way, and a summary or two: some twenty.
    // Links that a busy machine loses and mends are more; one that polls would wake thousands of times.
    assert!(woken < 400, "it woke {woken} times in 4 s");
}
