//! Pipes against a plain queue, and what single operations promise.
use std::collections::VecDeque;

use proptest::prelude::*;

use super::pair;
use crate::{CAPACITY_MIN, Error};

#[derive(Clone, Debug)]
enum Step {
    Write(usize),
    WriteParts(usize, usize),
    Flush,
    Read(usize),
    ReadTo(usize),
    Peek(usize),
    Skip(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let size = || prop_oneof![0..64usize, 0..2 * CAPACITY_MIN];
    prop_oneof![
        3 => size().prop_map(Step::Write),
        3 => (0..64usize, size()).prop_map(|(a, b)| Step::WriteParts(a, b)),
        2 => Just(Step::Flush),
        2 => size().prop_map(Step::Read),
        2 => size().prop_map(Step::ReadTo),
        1 => size().prop_map(Step::Peek),
        1 => (0..512usize).prop_map(Step::Skip),
    ]
}

proptest! {
    #[test]
    fn a_pipe_is_a_bounded_queue(steps in prop::collection::vec(step(), 1..200)) {
        let mut pair = pair(CAPACITY_MIN);
        let (to, from) = (&mut pair.caller.calls, &mut pair.worker.calls);
        let mut model = VecDeque::new();
        let mut next = 0u32;
        let mut fresh = |count: usize| -> Vec<u8> {
            (0..count).map(|_| { next = next.wrapping_mul(1664525).wrapping_add(1013904223); (next >> 24) as u8 }).collect()
        };
        for step in steps {
            let room = CAPACITY_MIN - model.len();
            match step {
                Step::Write(count) => {
                    let bytes = fresh(count);
                    let accepted = to.write(&bytes).unwrap();
                    prop_assert_eq!(accepted, count.min(room));
                    model.extend(&bytes[..accepted]);
                }
                Step::WriteParts(a, b) => {
                    let (a, b) = (fresh(a), fresh(b));
                    let whole = a.len() + b.len();
                    match to.write_parts(&[&a, &b]) {
                        Ok(accepted) => {
                            prop_assert_eq!(accepted, whole <= room);
                            if accepted { model.extend(a.iter().chain(&b)); }
                        }
                        Err(Error::TooLarge { .. }) => prop_assert!(whole > CAPACITY_MIN),
                        Err(error) => panic!("{error}"),
                    }
                }
                Step::Flush => to.flush().unwrap(),
                Step::Read(count) => {
                    to.flush().unwrap();
                    let mut out = vec![0; count];
                    let read = from.read(&mut out).unwrap();
                    prop_assert_eq!(read, count.min(model.len()));
                    prop_assert_eq!(&out[..read], model.drain(..read).collect::<Vec<_>>());
                }
                Step::ReadTo(count) => {
                    to.flush().unwrap();
                    let mut out = b"before".to_vec();
                    let read = from.read_to(&mut out, count).unwrap();
                    prop_assert_eq!(read, count.min(model.len()));
                    prop_assert_eq!(&out[..6], b"before");
                    prop_assert_eq!(&out[6..], model.drain(..read).collect::<Vec<_>>());
                }
                Step::Peek(count) => {
                    to.flush().unwrap();
                    let mut out = vec![0; count];
                    let read = from.peek(&mut out).unwrap();
                    prop_assert_eq!(read, count.min(model.len()));
                    prop_assert!(out[..read].iter().eq(model.iter().take(read)));
                }
                Step::Skip(count) => {
                    to.flush().unwrap();
                    let skipped = from.skip(count).unwrap();
                    prop_assert_eq!(skipped, count.min(model.len()));
                    model.drain(..skipped);
                }
            }
            prop_assert_eq!(to.room().unwrap(), CAPACITY_MIN - model.len());
        }
    }
}

#[test]
fn unflushed_bytes_are_not_seen() {
    let mut pair = pair(CAPACITY_MIN);
    assert!(pair.caller.calls.write_parts(&[b"head", b"body"]).unwrap());
    assert_eq!(pair.worker.calls.available().unwrap(), 0);
    pair.caller.calls.flush().unwrap();
    assert_eq!(pair.worker.calls.available().unwrap(), 8);
}

#[test]
fn only_a_sleeper_is_rung_for_and_only_once() {
    let mut pair = pair(CAPACITY_MIN);
    let soon = Some(std::time::Duration::ZERO);
    pair.caller.calls.write(b"a").unwrap();
    pair.caller.calls.flush().unwrap();
    assert!(!pair.call_bell.wait(soon).unwrap(), "nobody sleeps");

    assert!(pair.worker.calls.arm(1).unwrap(), "a byte is there");
    assert!(!pair.worker.calls.arm(2).unwrap());
    for _ in 0..2 {
        pair.caller.calls.write(b"b").unwrap();
        pair.caller.calls.flush().unwrap();
    }
    let mut rings = [0; 8];
    assert_eq!(rustix::io::read(&pair.call_bell, &mut rings).unwrap(), 1);

    // What is only published wakes nobody yet.
    assert_eq!(pair.worker.calls.available().unwrap(), 3);
    assert!(!pair.worker.calls.arm(4).unwrap());
    pair.caller.calls.write(b"c").unwrap();
    pair.caller.calls.publish();
    assert_eq!(pair.worker.calls.available().unwrap(), 4);
    assert!(!pair.call_bell.wait(soon).unwrap());
    pair.caller.calls.flush().unwrap();
    assert!(pair.call_bell.wait(soon).unwrap());
    assert!(pair.call_bell.drain().unwrap());

    assert!(!pair.worker.calls.arm(5).unwrap());
    pair.worker.calls.disarm();
    pair.caller.calls.write(b"c").unwrap();
    pair.caller.calls.flush().unwrap();
    assert!(!pair.call_bell.wait(soon).unwrap(), "it no longer sleeps");
}

#[test]
fn a_waiting_producer_is_woken_when_a_quarter_is_free() {
    let mut pair = pair(CAPACITY_MIN);
    let soon = Some(std::time::Duration::ZERO);
    assert_eq!(pair.caller.calls.write(&[7; 2 * CAPACITY_MIN]).unwrap(), CAPACITY_MIN);
    assert!(!pair.caller.calls.arm_for_room(1).unwrap());
    let eighth = CAPACITY_MIN / 8;
    pair.worker.calls.skip(eighth).unwrap();
    assert!(!pair.reply_bell.wait(soon).unwrap(), "not for an eighth");
    pair.worker.calls.skip(eighth).unwrap();
    assert!(pair.reply_bell.wait(soon).unwrap());
    assert!(pair.caller.calls.arm_for_room(2 * eighth).unwrap());
    assert!(!pair.caller.calls.arm_for_room(3 * eighth).unwrap());
    assert!(pair.reply_bell.drain().unwrap());
    // Small reads, and the rest of them before going to sleep, count as well.
    for _ in 0..eighth - 1 {
        pair.worker.calls.skip(1).unwrap();
    }
    assert!(!pair.reply_bell.wait(soon).unwrap());
    pair.worker.calls.skip(1).unwrap();
    assert!(pair.reply_bell.wait(soon).unwrap());
}

#[test]
fn a_drained_pipe_wakes_a_producer_that_needs_all_of_it() {
    let mut pair = pair(CAPACITY_MIN);
    pair.caller.calls.write(b"x").unwrap();
    assert!(!pair.caller.calls.arm_for_room(CAPACITY_MIN).unwrap());
    // The consumer only looks, as one that spins does, and never arms.
    pair.worker.calls.skip(1).unwrap();
    assert!(pair.reply_bell.wait(Some(std::time::Duration::ZERO)).unwrap());
    assert!(pair.caller.calls.write_parts(&[&[0; CAPACITY_MIN]]).unwrap());
}

#[test]
fn progress_is_told() {
    let mut pair = pair(CAPACITY_MIN);
    assert_eq!((pair.caller.progress.running(), pair.caller.progress.finished()), (None, 0));
    pair.worker.progress.begin(77, 5);
    assert_eq!((pair.caller.progress.running(), pair.caller.progress.operation()), (Some(77), Some(5)));
    pair.worker.progress.end();
    assert_eq!(pair.caller.progress.operation(), None);
    assert_eq!((pair.caller.progress.running(), pair.caller.progress.finished()), (None, 1));
}
