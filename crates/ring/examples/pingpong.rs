//! Measures a ring against a bare Unix socket, between two processes pinned to different cores.
//!
//! `cargo run --release -p mutirao-ring --example pingpong`
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mutirao_ring::{
    Bell, CAPACITY_DEFAULT, CallerEnd, Consumer, Error, Producer, RingMemory, Ringer, SpinBoard, Spinner,
    Wake, WorkerEnd, wait,
};
use rustix::thread::{CpuSet, sched_setaffinity};

#[path = "../tests/handover/mod.rs"]
mod handover;
use handover::{hand_over, take_over};

/// A frame header and eight bytes.
const FRAME: usize = 40;
const PINGS: usize = 500;
const ROUNDS: usize = 100;
const FRAMES: usize = 10_000_000;
const BLOCK: usize = 1 << 20;
const BULK_BYTES: usize = 2 << 30;
const PEER: &str = "the other process should live";

/// What the caller asks the worker to do next, as one byte on their socket.
const SOCKET_PINGS: u8 = b's';
const PINGS_ASLEEP: u8 = b'a';
const PINGS_SPINNING: u8 = b'p';
const TAKE_FRAMES: u8 = b'f';
const TAKE_BULK: u8 = b'b';
const SOCKET_BULK: u8 = b'S';

fn main() -> Result<(), Error> {
    if std::env::args().nth(1).as_deref() == Some("worker") { worker() } else { caller() }
}

fn caller() -> Result<(), Error> {
    let (socket, theirs) = UnixStream::pair().expect("a socket pair");
    let mut child = Command::new(std::env::current_exe().expect("the path of this program"))
        .arg("worker")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .spawn()
        .expect("a second process");
    let measured = measure_all(socket);
    child.wait().expect(PEER);
    measured
}

/// The caller's side of all measurements; the worker ends when `socket` is closed.
fn measure_all(mut socket: UnixStream) -> Result<(), Error> {
    let pinned = pin(0);
    println!("pinned: {pinned}, frames of {FRAME} bytes, {} pings of each kind", ROUNDS * PINGS);

    let board = Arc::new(SpinBoard::create(2)?);
    let memory = RingMemory::create(CAPACITY_DEFAULT)?;
    let (call_bell, call_ringer) = Bell::pair()?;
    let (bell, reply_ringer) = Bell::pair()?;
    hand_over(&socket, &[memory.as_fd(), call_bell.as_fd(), reply_ringer.fds().0, board.as_fd()]);
    drop((call_bell, reply_ringer));
    let mut end = CallerEnd::map(memory, call_ringer)?;
    let mut spinning = Spinner::new(board.seat(0).expect("a seat"));
    let mut asleep = Spinner::asleep();

    // In turns, so that whatever else the machine does meets all of them alike.
    let [mut floor, mut slept, mut spun] = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        ask(&mut socket, SOCKET_PINGS);
        measure(&mut floor, || {
            let mut frame = [0; FRAME];
            socket.write_all(&frame).expect(PEER);
            socket.read_exact(&mut frame).expect(PEER);
            Ok(())
        })?;
        ask(&mut socket, PINGS_ASLEEP);
        measure(&mut slept, || ping(&mut end, &bell, &mut asleep))?;
        ask(&mut socket, PINGS_SPINNING);
        measure(&mut spun, || ping(&mut end, &bell, &mut spinning))?;
    }
    let floor_p50 = report("unix socket", &mut floor, None);
    report("ring asleep", &mut slept, Some(floor_p50));
    report("ring spinning", &mut spun, Some(floor_p50));

    ask(&mut socket, TAKE_FRAMES);
    let began = Instant::now();
    for _ in 0..FRAMES {
        while !end.calls.write_parts(&[&[1; 32], &[2; 8]])? {
            let _ = wait(&mut end.calls.until_room(FRAME), &mut spinning, &bell, &[], None)?;
        }
    }
    end.calls.flush()?;
    take(&mut end.replies, &bell, &mut spinning, FRAME)?;
    println!("one way: {:.1} million frames/s", FRAMES as f64 / began.elapsed().as_secs_f64() / 1e6);

    let block = vec![3; BLOCK];
    ask(&mut socket, TAKE_BULK);
    let began = Instant::now();
    for _ in 0..BULK_BYTES / BLOCK {
        let mut rest = &block[..];
        while !rest.is_empty() {
            let _ = wait(&mut end.calls.until_room(1), &mut spinning, &bell, &[], None)?;
            rest = &rest[end.calls.write(rest)?..];
        }
    }
    end.calls.flush()?;
    take(&mut end.replies, &bell, &mut spinning, FRAME)?;
    println!("bulk, ring: {:.0} MiB/s", mib_per_s(began));

    ask(&mut socket, SOCKET_BULK);
    let began = Instant::now();
    for _ in 0..BULK_BYTES / BLOCK {
        socket.write_all(&block).expect(PEER);
    }
    socket.read_exact(&mut [0]).expect(PEER);
    println!("bulk, unix socket: {:.0} MiB/s", mib_per_s(began));

    Ok(())
}

fn worker() -> Result<(), Error> {
    let socket = std::io::stdin().as_fd().try_clone_to_owned().expect("a duplicate");
    let mut fds = take_over(socket.as_fd()).into_iter();
    let mut fd = || fds.next().expect("four descriptors");
    let (memory, bell, caller) = (fd(), Bell::from(fd()), Ringer::from_fds(fd(), None));
    let board = Arc::new(SpinBoard::map(fd())?);
    let mut socket = UnixStream::from(socket);
    pin(1);
    let mut end = WorkerEnd::map(memory, caller)?;
    let mut spinning = Spinner::new(board.seat(1).expect("a seat"));
    let mut asleep = Spinner::asleep();

    let mut wish = [0];
    while socket.read(&mut wish).expect(PEER) == 1 {
        match wish[0] {
            SOCKET_PINGS => {
                let mut frame = [0; FRAME];
                for _ in 0..PINGS {
                    socket.read_exact(&mut frame).expect(PEER);
                    socket.write_all(&frame).expect(PEER);
                }
            }
            PINGS_ASLEEP => (0..PINGS).try_for_each(|_| pong(&mut end, &bell, &mut asleep))?,
            PINGS_SPINNING => (0..PINGS).try_for_each(|_| pong(&mut end, &bell, &mut spinning))?,
            TAKE_FRAMES => {
                take(&mut end.calls, &bell, &mut spinning, FRAMES * FRAME)?;
                send(&mut end.replies)?;
            }
            TAKE_BULK => {
                take(&mut end.calls, &bell, &mut spinning, BULK_BYTES)?;
                send(&mut end.replies)?;
            }
            _ => {
                let mut block = vec![0; BLOCK];
                for _ in 0..BULK_BYTES / BLOCK {
                    socket.read_exact(&mut block).expect(PEER);
                }
                socket.write_all(&[0]).expect(PEER);
            }
        }
    }
    Ok(())
}

fn ping(end: &mut CallerEnd, bell: &Bell, spinner: &mut Spinner) -> Result<(), Error> {
    send(&mut end.calls)?;
    take(&mut end.replies, bell, spinner, FRAME)
}

fn pong(end: &mut WorkerEnd, bell: &Bell, spinner: &mut Spinner) -> Result<(), Error> {
    take(&mut end.calls, bell, spinner, FRAME)?;
    send(&mut end.replies)
}

fn send(to: &mut Producer) -> Result<(), Error> {
    assert!(to.write_parts(&[&[1; 32], &[2; 8]])?);
    to.flush()
}

/// Reads so many bytes in pieces of at most 64 KiB.
fn take(from: &mut Consumer, bell: &Bell, spinner: &mut Spinner, bytes: usize) -> Result<(), Error> {
    let mut piece = Vec::new();
    let mut left = bytes;
    while left > 0 {
        assert_eq!(wait(from, spinner, bell, &[], None)?, Wake::Ready, "{PEER}");
        piece.clear();
        left -= from.read_to(&mut piece, left.min(64 * 1024))?;
    }
    Ok(())
}

fn ask(socket: &mut UnixStream, wish: u8) {
    socket.write_all(&[wish]).expect(PEER);
}

/// Pins this process to one core; false where there is no such core.
fn pin(core: usize) -> bool {
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set).is_ok()
}

fn measure(times: &mut Vec<Duration>, mut once: impl FnMut() -> Result<(), Error>) -> Result<(), Error> {
    for _ in 0..PINGS {
        let began = Instant::now();
        once()?;
        times.push(began.elapsed());
    }
    Ok(())
}

/// Prints the figures and returns the median.
fn report(name: &str, times: &mut [Duration], floor_p50: Option<Duration>) -> Duration {
    times.sort_unstable();
    let at = |percent: usize| times[times.len() * percent / 100];
    let us = |time: Duration| time.as_secs_f64() * 1e6;
    let ratio = us(at(50)) / us(floor_p50.unwrap_or(at(50)));
    println!(
        "{name:14} p10 {:7.2}  p50 {:7.2}  p99 {:7.2} us  {ratio:.2} of the socket",
        us(at(10)),
        us(at(50)),
        us(at(99))
    );
    at(50)
}

fn mib_per_s(began: Instant) -> f64 {
    (BULK_BYTES >> 20) as f64 / began.elapsed().as_secs_f64()
}
