//! Two threads, each with a map of its own, that would hang if a wake-up were lost.
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Dice, Pair, pair};
use crate::{Bell, CAPACITY_MIN, CallerEnd, Consumer, Producer, SpinBoard, Spinner, Wake, wait};

fn deadline() -> Option<Instant> {
    Some(Instant::now() + Duration::from_secs(60))
}

fn fold(sum: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(sum, |sum, &byte| sum.wrapping_mul(0x100_0000_01b3).wrapping_add(u64::from(byte)))
}

/// Writes `total` bytes in random pieces and returns their checksum.
fn pour(to: &mut Producer, bell: &Bell, spinner: &mut Spinner, total: usize, seed: u64) -> u64 {
    let mut dice = Dice(seed);
    let (mut sum, mut left) = (0, total);
    while left > 0 {
        let count = (1 + dice.roll(3 * CAPACITY_MIN as u64) as usize).min(left);
        let piece: Vec<u8> = (0..count).map(|_| dice.roll(256) as u8).collect();
        let mut rest = &piece[..];
        while !rest.is_empty() {
            let accepted = to.write(rest).unwrap();
            rest = &rest[accepted..];
            if !rest.is_empty() {
                let min_bytes = rest.len().min(1 + dice.roll(CAPACITY_MIN as u64) as usize);
                assert_eq!(
                    wait(&mut to.until_room(min_bytes), spinner, bell, &[], deadline()).unwrap(),
                    Wake::Ready
                );
            }
        }
        if dice.roll(3) == 0 {
            to.flush().unwrap();
        }
        sum = fold(sum, &piece);
        left -= count;
    }
    to.flush().unwrap();
    sum
}

/// Reads `total` bytes in random pieces and returns their checksum.
fn drink(from: &mut Consumer, bell: &Bell, spinner: &mut Spinner, total: usize, seed: u64) -> u64 {
    let mut dice = Dice(seed);
    let (mut sum, mut left) = (0, total);
    let mut piece = Vec::new();
    while left > 0 {
        assert_eq!(wait(from, spinner, bell, &[], deadline()).unwrap(), Wake::Ready);
        piece.clear();
        left -= from.read_to(&mut piece, 1 + dice.roll(2 * CAPACITY_MIN as u64) as usize).unwrap();
        sum = fold(sum, &piece);
    }
    sum
}

fn spinners(spin: bool) -> [Spinner; 2] {
    if !spin {
        return [Spinner::asleep(), Spinner::asleep()];
    }
    let board = Arc::new(SpinBoard::create(2).unwrap());
    [0, 1].map(|seat| Spinner::new(board.seat(seat).unwrap()))
}

fn stream(spin: bool, total: usize) {
    let Pair { mut caller, mut worker, call_bell, reply_bell, .. } = pair(CAPACITY_MIN);
    let [mut here, mut there] = spinners(spin);
    std::thread::scope(|scope| {
        let drunk = scope.spawn(move || drink(&mut worker.calls, &call_bell, &mut there, total, 5));
        let poured = pour(&mut caller.calls, &reply_bell, &mut here, total, 3);
        assert_eq!(drunk.join().unwrap(), poured);
    });
}

#[test]
fn a_stream_arrives_whole_asleep() {
    stream(false, 8 << 20);
}

#[test]
fn a_stream_arrives_whole_spinning() {
    stream(true, 8 << 20);
}

/// A call of 8 bytes and its reply, over and over, with pauses on both sides now and then.
fn ping_pong(spin: bool, rounds: u64) {
    let Pair { mut caller, mut worker, call_bell, reply_bell, .. } = pair(CAPACITY_MIN);
    let [mut here, mut there] = spinners(spin);
    let exchange = |number: u64,
                    to: &mut Producer,
                    from: &mut Consumer,
                    bell: &Bell,
                    spinner: &mut Spinner,
                    starts: bool| {
        let send = |to: &mut Producer| {
            assert!(to.write_parts(&[&number.to_le_bytes()]).unwrap());
            to.flush().unwrap();
        };
        if starts {
            send(to);
        }
        assert_eq!(wait(from, spinner, bell, &[], deadline()).unwrap(), Wake::Ready);
        let mut bytes = [0; 8];
        assert_eq!(from.read(&mut bytes).unwrap(), 8);
        assert_eq!(u64::from_le_bytes(bytes), number);
        if !starts {
            send(to);
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut dice = Dice(11);
            for number in 0..rounds {
                exchange(number, &mut worker.replies, &mut worker.calls, &call_bell, &mut there, false);
                pause(&mut dice);
            }
        });
        let mut dice = Dice(7);
        for number in 0..rounds {
            exchange(number, &mut caller.calls, &mut caller.replies, &reply_bell, &mut here, true);
            pause(&mut dice);
        }
    });
}

/// Mostly nothing, sometimes a little work, rarely a short sleep: so that arming meets writing in every order.
fn pause(dice: &mut Dice) {
    match dice.roll(4000) {
        0 => std::thread::sleep(Duration::from_micros(dice.roll(100))),
        1..400 => (0..dice.roll(400)).for_each(|_| std::hint::spin_loop()),
        _ => {}
    }
}

#[test]
fn no_wake_up_is_lost_asleep() {
    ping_pong(false, 300_000);
}

#[test]
fn no_wake_up_is_lost_mixing_spins_and_sleeps() {
    ping_pong(true, 1_000_000);
}

#[test]
fn a_wait_ends_for_other_reasons_too() {
    let Pair { caller, mut worker, call_bell, .. } = pair(CAPACITY_MIN);
    let mut spinner = Spinner::asleep();
    let soon = || Some(Instant::now() + Duration::from_millis(20));
    let before = Instant::now();
    assert_eq!(wait(&mut worker.calls, &mut spinner, &call_bell, &[], soon()).unwrap(), Wake::TimedOut);
    assert!(before.elapsed() >= Duration::from_millis(20));

    use std::os::fd::AsFd;
    let (socket, mut node) = std::os::unix::net::UnixStream::pair().unwrap();
    std::io::Write::write_all(&mut node, b"stop").unwrap();
    let others = [socket.as_fd()];
    assert_eq!(wait(&mut worker.calls, &mut spinner, &call_bell, &others, soon()).unwrap(), Wake::Other);

    let CallerEnd { mut calls, replies, progress } = caller;
    calls.write(b"last words").unwrap();
    calls.flush().unwrap();
    drop((calls, replies, progress));
    assert_eq!(wait(&mut worker.calls, &mut spinner, &call_bell, &[], None).unwrap(), Wake::Ready);
    worker.calls.skip(10).unwrap();
    assert_eq!(wait(&mut worker.calls, &mut spinner, &call_bell, &[], None).unwrap(), Wake::Gone);
}
