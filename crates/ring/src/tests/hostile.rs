//! A peer that writes whatever it likes, and files that are no rings.
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering::Relaxed;

use proptest::prelude::*;
use rustix::fs::{MemfdFlags, SealFlags};

use super::{Dice, Pair, pair};
use crate::memory::{CALL_WORDS, HEADER_BYTES, REPLY_WORDS};
use crate::shm::Shared;
use crate::{Bell, CAPACITY_MAX, CAPACITY_MIN, CallerEnd, Error, RingMemory, SpinBoard};

fn scribbler(pair: &Pair) -> Shared {
    Shared::map(&pair.memory, HEADER_BYTES + 2 * CAPACITY_MIN).unwrap()
}

fn is_corrupt<T>(result: Result<T, Error>) -> bool {
    matches!(result, Err(Error::Corrupt { .. }))
}

#[test]
fn an_impossible_tail_ends_the_consumer_for_good() {
    for garbage in [CAPACITY_MIN as u64 + 1, u64::MAX, 1 << 63] {
        let mut pair = pair(CAPACITY_MIN);
        let tail = scribbler(&pair);
        let tail = tail.word(REPLY_WORDS.tail);
        tail.store(garbage, Relaxed);
        let replies = &mut pair.caller.replies;
        assert!(is_corrupt(replies.read(&mut [0; 8])));
        tail.store(0, Relaxed);
        assert!(is_corrupt(replies.read(&mut [0; 8])));
        assert!(is_corrupt(replies.read_to(&mut Vec::new(), 8)));
        assert!(is_corrupt(replies.peek(&mut [])));
        assert!(is_corrupt(replies.skip(0)));
        assert!(is_corrupt(replies.available()));
        assert!(is_corrupt(replies.arm(1)));
        assert!(pair.caller.calls.write(b"the other pipe lives").is_ok());
    }
}

#[test]
fn an_impossible_head_ends_the_producer_for_good() {
    for garbage in [1, u64::MAX, 1 << 63] {
        let mut pair = pair(CAPACITY_MIN);
        let head = scribbler(&pair);
        let head = head.word(CALL_WORDS.head);
        head.store(garbage, Relaxed);
        let calls = &mut pair.caller.calls;
        assert!(is_corrupt(calls.room()));
        head.store(0, Relaxed);
        assert!(is_corrupt(calls.write(b"x")));
        assert!(is_corrupt(calls.write_parts(&[])));
        assert!(is_corrupt(calls.arm_for_room(0)));
    }
}

#[test]
fn a_scribbled_own_index_does_not_matter() {
    let mut pair = pair(CAPACITY_MIN);
    let words = scribbler(&pair);
    words.word(CALL_WORDS.tail).store(999_999, Relaxed);
    words.word(REPLY_WORDS.head).store(999_999, Relaxed);
    words.word(REPLY_WORDS.head + 8).store(u64::MAX, Relaxed); // "the producer waits for ever so much"
    assert_eq!(pair.caller.calls.write(b"call").unwrap(), 4);
    pair.caller.calls.flush().unwrap();
    pair.worker.replies.write(b"reply").unwrap();
    pair.worker.replies.flush().unwrap();
    let mut out = Vec::new();
    pair.caller.replies.read_to(&mut out, 99).unwrap();
    assert_eq!(out, b"reply");
    out.clear();
    pair.worker.calls.read_to(&mut out, 99).unwrap();
    assert_eq!(out, b"call");
}

#[test]
fn a_position_that_goes_back_ends_its_end_for_good() {
    let mut pair = pair(CAPACITY_MIN);
    let words = scribbler(&pair);
    let tail = words.word(REPLY_WORDS.tail);
    tail.store(500, Relaxed);
    assert_eq!(pair.caller.replies.available().unwrap(), 500);
    tail.store(300, Relaxed);
    assert!(is_corrupt(pair.caller.replies.available()));

    pair.caller.calls.write(&[0; 500]).unwrap();
    let head = words.word(CALL_WORDS.head);
    head.store(400, Relaxed);
    assert_eq!(pair.caller.calls.room().unwrap(), CAPACITY_MIN - 100);
    head.store(300, Relaxed);
    assert!(is_corrupt(pair.caller.calls.room()));
}

#[test]
fn bytes_taken_back_during_a_read_are_not_read() {
    let mut pair = pair(CAPACITY_MIN);
    let words = scribbler(&pair);
    words.word(REPLY_WORDS.tail).store(CAPACITY_MIN as u64, Relaxed);
    let replies = &mut pair.caller.replies;
    assert_eq!(replies.available().unwrap(), CAPACITY_MIN);
    // The first piece that is given back makes the reader look again, for a producer that waits for all.
    words.word(REPLY_WORDS.producer_waiting()).store(u64::MAX, Relaxed);
    words.word(REPLY_WORDS.tail).store(CAPACITY_MIN as u64 / 8, Relaxed);
    assert!(is_corrupt(replies.read(&mut [0; CAPACITY_MIN])));
}

proptest! {
    /// The worker keeps writing rubbish into every word while the caller works: no panic, no read or write out
    /// of bounds (the copies assert it), and an error only of the announced kind.
    #[test]
    fn rubbish_is_survived(seed in 1u64.., near in any::<bool>()) {
        let mut pair = pair(CAPACITY_MIN);
        let words = scribbler(&pair);
        let mut dice = Dice(seed);
        let mut out = vec![0; 3000];
        for _ in 0..200 {
            let offset = 8 * dice.roll(HEADER_BYTES as u64 / 8) as usize;
            let hot = [CALL_WORDS.tail, CALL_WORDS.head, REPLY_WORDS.tail, REPLY_WORDS.head];
            let hot = hot[dice.roll(4) as usize] + 8 * dice.roll(2) as usize;
            let value = if near { dice.roll(2 * CAPACITY_MIN as u64) } else { dice.roll(u64::MAX) };
            words.word(offset).store(value, Relaxed);
            words.word(hot).store(value, Relaxed);
            let count = dice.roll(3000) as usize;
            let results = [
                pair.caller.calls.write(&out[..count]).map(drop),
                pair.caller.calls.write_parts(&[&out[..count / 2], &out[..count]]).map(drop),
                pair.caller.calls.flush(),
                pair.caller.calls.arm_for_room(count).map(drop),
                pair.caller.replies.read(&mut out[..count]).map(drop),
                pair.caller.replies.read_to(&mut Vec::new(), count).map(drop),
                pair.caller.replies.arm(count).map(drop),
            ];
            for result in results {
                prop_assert!(matches!(result, Ok(()) | Err(Error::Corrupt { .. } | Error::TooLarge { .. })), "{result:?}");
            }
        }
    }
}

fn memory_file(len: usize, seals: SealFlags) -> OwnedFd {
    let file = rustix::fs::memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    rustix::fs::ftruncate(&file, len as u64).unwrap();
    rustix::fs::fcntl_add_seals(&file, seals).unwrap();
    file
}

fn map_error(file: impl AsFd) -> Error {
    CallerEnd::map(file, Bell::pair().unwrap().1).unwrap_err()
}

#[test]
fn files_that_are_no_rings_are_refused() {
    let len = HEADER_BYTES + 2 * CAPACITY_MIN;
    let sealed = SealFlags::SHRINK | SealFlags::GROW;
    for seals in [SealFlags::empty(), SealFlags::SHRINK, SealFlags::GROW, SealFlags::SEAL] {
        assert!(matches!(map_error(memory_file(len, seals)), Error::NotSealed { .. }), "{seals:?}");
    }
    assert!(matches!(map_error(std::fs::File::open("/dev/zero").unwrap()), Error::NotSealed { .. }));
    assert!(matches!(map_error(Bell::pair().unwrap().0), Error::NotSealed { .. }));
    for len in [0, 1, HEADER_BYTES, len - 1, len + 1, len + 4096, HEADER_BYTES + 4 * CAPACITY_MAX] {
        assert!(matches!(map_error(memory_file(len, sealed)), Error::Size { .. }), "{len}");
    }
    assert!(matches!(map_error(memory_file(len, sealed)), Error::Format { found: 0, .. }));
}

#[test]
fn boards_that_are_none_are_refused() {
    let sealed = SealFlags::SHRINK | SealFlags::GROW;
    let refused = |file| SpinBoard::map(file).unwrap_err();
    assert!(matches!(refused(memory_file(4096, SealFlags::empty())), Error::NotSealed { .. }));
    assert!(matches!(refused(memory_file(8192, sealed)), Error::Size { .. }));
    assert!(matches!(refused(memory_file(4096, sealed)), Error::Format { .. }));
}

#[test]
fn a_ring_cannot_be_resized() {
    let memory = RingMemory::create(CAPACITY_MIN).unwrap();
    for len in [0, 4096, 1 << 20] {
        assert_eq!(rustix::fs::ftruncate(&memory, len), Err(rustix::io::Errno::PERM));
    }
}

#[test]
fn impossible_capacities_are_refused() {
    for bytes in [0, 1, CAPACITY_MIN / 2, CAPACITY_MIN + 1, 3 * CAPACITY_MIN, 2 * CAPACITY_MAX, usize::MAX] {
        assert!(matches!(RingMemory::create(bytes), Err(Error::Capacity { .. })), "{bytes}");
    }
    assert!(RingMemory::create(CAPACITY_MAX).is_ok());
}

#[test]
fn a_bell_is_neither_blocked_nor_emptied_nor_deadly() {
    let (bell, ringer) = Bell::pair().unwrap();
    // The hearing side makes its own end blocking and never reads: ringing still returns.
    rustix::io::ioctl_fionbio(&bell, false).unwrap();
    for _ in 0..100_000 {
        ringer.ring().unwrap();
    }
    drop(bell);
    // The hearer has died: no signal (the test would end), no error, thanks to the keeper.
    ringer.ring().unwrap();

    let (bell, ringer) = Bell::pair().unwrap();
    // The ringing side makes its end blocking: hearing an empty bell still returns.
    rustix::io::ioctl_fionbio(ringer.fds().0, false).unwrap();
    assert!(bell.drain().unwrap());
    ringer.ring().unwrap();
    // What a worker gets cannot take a ring away.
    assert_eq!(rustix::io::read(ringer.fds().0, &mut [0; 8]), Err(rustix::io::Errno::BADF));
    assert!(bell.wait(Some(std::time::Duration::ZERO)).unwrap());
    assert!(bell.drain().unwrap());
    drop(ringer);
    assert!(!bell.drain().unwrap(), "nobody can ring");
}
