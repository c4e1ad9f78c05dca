//! A caller and a worker in two processes, set up as the node does it: descriptors over a Unix socket.
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mutirao_ring::{Bell, CallerEnd, RingMemory, Ringer, Spinner, Wake, WorkerEnd, wait};
mod handover;
use handover::{hand_over, take_over};

const AS_WORKER: &str = "MUTIRAO_RING_TEST_WORKER";

/// Ended with the test, however that ends.
struct Worker(Child);

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts this test program again as a worker, which runs only `worker` below.
fn start() -> (CallerEnd, Bell, Worker) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "worker", "--nocapture"])
        .env(AS_WORKER, "1")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let memory = RingMemory::create(16 * 1024).unwrap();
    let (call_bell, call_ringer) = Bell::pair().unwrap();
    let (reply_bell, reply_ringer) = Bell::pair().unwrap();
    hand_over(&ours, &[memory.as_fd(), call_bell.as_fd(), reply_ringer.fds().0]);
    (CallerEnd::map(&memory, call_ringer).unwrap(), reply_bell, Worker(child))
}

/// The body of the other process: sends back what it gets; a call that begins with "die" ends it.
#[test]
fn worker() {
    if std::env::var_os(AS_WORKER).is_none() {
        return; // as a test of its own there is nothing to do
    }
    let mut fds = take_over(std::io::stdin().as_fd()).into_iter();
    let mut next = || fds.next().unwrap();
    let memory = next();
    let bell = Bell::from(next());
    let WorkerEnd { mut calls, mut replies, mut progress } =
        WorkerEnd::map(memory, Ringer::from_fds(next(), None)).unwrap();
    let mut spinner = Spinner::asleep();
    let mut bytes = Vec::new();
    for call in 1.. {
        if wait(&mut calls, &mut spinner, &bell, &[], None).unwrap() == Wake::Gone {
            return;
        }
        bytes.clear();
        calls.read_to(&mut bytes, 5000).unwrap();
        progress.begin(call, 0);
        if bytes.starts_with(b"die") {
            std::process::abort();
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let wake = wait(&mut replies.until_room(1), &mut spinner, &bell, &[], None).unwrap();
            if wake == Wake::Gone {
                return;
            }
            let accepted = replies.write(rest).unwrap();
            rest = &rest[accepted..];
        }
        replies.flush().unwrap();
        progress.end();
    }
}

fn deadline() -> Option<Instant> {
    Some(Instant::now() + Duration::from_secs(30))
}

#[test]
fn bytes_come_back_from_another_process() {
    let (mut caller, bell, mut worker) = start();
    let sent: Vec<u8> = (0..1_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let (mut rest, mut back) = (&sent[..], Vec::new());
    while back.len() < sent.len() {
        let accepted = caller.calls.write(rest).unwrap();
        rest = &rest[accepted..];
        caller.calls.flush().unwrap();
        let wake = wait(&mut caller.replies, &mut Spinner::asleep(), &bell, &[], deadline()).unwrap();
        assert_eq!(wake, Wake::Ready);
        caller.replies.read_to(&mut back, usize::MAX).unwrap();
    }
    assert!(back == sent);
    assert!(caller.progress.finished() > 0);

    // Without a caller the worker ends by itself.
    drop(caller);
    assert!(worker.0.wait().unwrap().success());
}

#[test]
fn the_death_of_a_worker_is_seen_and_its_call_known() {
    let (mut caller, bell, mut worker) = start();
    for text in ["one", "two"] {
        caller.calls.write(text.as_bytes()).unwrap();
        caller.calls.flush().unwrap();
        let wake = wait(&mut caller.replies, &mut Spinner::asleep(), &bell, &[], deadline()).unwrap();
        assert_eq!(wake, Wake::Ready);
        caller.replies.skip(3).unwrap();
    }
    caller.calls.write(b"die").unwrap();
    caller.calls.flush().unwrap();
    let wake = wait(&mut caller.replies, &mut Spinner::asleep(), &bell, &[], deadline()).unwrap();
    assert_eq!(wake, Wake::Gone);
    assert!(!worker.0.wait().unwrap().success());
    assert_eq!((caller.progress.running(), caller.progress.finished()), (Some(3), 2));
    // Writing to the dead harms nobody.
    caller.calls.write(b"hello?").unwrap();
    caller.calls.flush().unwrap();
}
