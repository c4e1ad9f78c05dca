//! Messages that follow each other closely: what calls then put off is done all the same.

use super::super::direct::Direct;
use super::super::{Error, Group, Input, Over};
use super::{LONG, WAYS, join, pattern, plans, run};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Enough for calls to be known as close to each other.
const MANY: usize = 20_000;

/// Small, with some around what gathers at a time and together.
fn size(seed: usize) -> usize {
    match seed % 1000 {
        400 => 4080,
        401 => 4081,
        402 => 20_000,
        small => small % 23,
    }
}

fn post_many(group: &Group) {
    let output = group.output(0).unwrap();
    (0..MANY).for_each(|seed| output.post(pattern(size(seed), seed)).unwrap());
}

/// Takes what the other side has posted so.
fn take_many(input: &Input, over: Over) {
    for seed in 0..MANY {
        assert!(input.receive().unwrap() == pattern(size(seed), seed), "{seed} over {over:?}");
    }
}

#[test]
fn a_burst_of_messages_arrives_whole_and_in_order() {
    for over in WAYS {
        let mut plans = plans(2);
        join(&mut plans, &[0], &[1], None);
        run(&plans, over, |group| {
            if group.rank() == 0 {
                post_many(&group);
            } else {
                let input = group.input(0).unwrap();
                take_many(&input, over);
                assert!(matches!(input.receive(), Err(Error::Ended { .. })));
            }
            group.close().unwrap();
        });
    }
}

/// What is fetched from a socket without being taken is read once, also when it is slept on.
#[test]
fn stored_messages_go_back_and_forth_however_small() {
    for over in WAYS {
        let mut plans = plans(2);
        join(&mut plans, &[0], &[1], None);
        join(&mut plans, &[1], &[0], None);
        run(&plans, over, |group| {
            let (output, input) = (group.output(0).unwrap(), group.input(0).unwrap());
            for round in 0..4000 {
                let length = if round % 500 == 499 { 10_000 } else { round % 300 };
                if group.rank() == 0 {
                    output.post(pattern(length, round)).unwrap();
                }
                assert!(input.receive().unwrap() == pattern(length, round), "{round} over {over:?}");
                if round % 100 == 0 {
                    std::thread::sleep(Duration::from_millis(1));
                }
                if group.rank() == 1 {
                    output.post(pattern(length, round)).unwrap();
                }
            }
            group.close().unwrap();
        });
    }
}

#[test]
fn the_end_of_a_burst_leaves_while_the_program_computes() {
    for over in WAYS {
        let mut plans = plans(2);
        join(&mut plans, &[0], &[1], None);
        let received = Barrier::new(2);
        run(&plans, over, |group| {
            for round in [MANY, MANY + 1, MANY + 2] {
                if group.rank() == 0 {
                    let output = group.output(0).unwrap();
                    (0..round).for_each(|seed| output.post(vec![seed as u8; 8]).unwrap());
                } else {
                    let input = group.input(0).unwrap();
                    for seed in 0..round {
                        assert_eq!(input.receive_timeout(LONG).unwrap(), [seed as u8; 8], "over {over:?}");
                    }
                }
                // The sender does not come back to the library before all has been received.
                received.wait();
            }
            group.close().unwrap();
        });
    }
}

/// A message of another channel says that those of a burst are there. Over TCP the system may still be about to bring
/// them.
#[test]
fn a_burst_has_left_when_another_channel_is_used() {
    for over in [Over::Rings(64 * 1024), Over::Sockets] {
        let mut plans = plans(2);
        join(&mut plans, &[0], &[1], None);
        join(&mut plans, &[0], &[1], None);
        run(&plans, over, |group| {
            // Before the two have met, nothing leaves.
            if group.rank() == 0 {
                group.output(0).unwrap().post([1]).unwrap();
            } else {
                group.input(0).unwrap().receive().unwrap();
            }
            for round in (0..MANY).step_by(100) {
                if group.rank() == 0 {
                    let (burst, says) = (group.output(0).unwrap(), group.output(1).unwrap());
                    (0..100).for_each(|place| burst.post(pattern(8, round + place)).unwrap());
                    says.send(&[1]).unwrap();
                } else {
                    let (burst, says) = (group.input(0).unwrap(), group.input(1).unwrap());
                    says.receive().unwrap();
                    for place in 0..100 {
                        let message = burst.try_receive().unwrap();
                        assert_eq!(message, Some(pattern(8, round + place)), "{round} {place} over {over:?}");
                    }
                }
            }
            group.close().unwrap();
        });
    }
}

#[test]
fn a_sender_hears_what_was_taken_while_its_receiver_computes() {
    for over in WAYS {
        let mut plans = plans(2);
        plans[0].stored_bytes_max = 4 << 20;
        join(&mut plans, &[0], &[1], None);
        let heard = Barrier::new(2);
        run(&plans, over, |group| {
            if group.rank() == 0 {
                let output = group.output(0).unwrap();
                (0..MANY).for_each(|seed| output.post(vec![seed as u8; 8]).unwrap());
                // For this there is room once nothing else is stored.
                output.post_timeout(vec![1; (4 << 20) - 64], LONG).unwrap();
                heard.wait();
            } else {
                let input = group.input(0).unwrap();
                (0..MANY).for_each(|seed| assert_eq!(input.receive().unwrap(), [seed as u8; 8]));
                // This side does not come back to the library before the other has heard.
                heard.wait();
                assert!(input.receive().unwrap() == vec![1; (4 << 20) - 64]);
            }
            group.close().unwrap();
        });
    }
}

#[test]
fn a_burst_over_pipes_that_break_loses_nothing() {
    for over in WAYS {
        let mut plans = plans(2);
        join(&mut plans, &[0], &[1], None);
        let pipe = plans[0].outputs[0].peers[0].pipe;
        let (mut direct, ends) = Direct::new(&plans, over).unwrap();
        let [sender, receiver] = <[_; 2]>::try_from(ends).unwrap();
        let all_is_received = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let group = Group::join(sender).unwrap();
                post_many(&group);
                group.close().unwrap();
            });
            let reader = scope.spawn(|| {
                let group = Group::join(receiver).unwrap();
                let input = group.input(0).unwrap();
                take_many(&input, over);
                all_is_received.store(true, Ordering::Release);
                group.close().unwrap();
            });
            let mut pause_ms = 2;
            while !writer.is_finished() || !reader.is_finished() {
                std::thread::sleep(Duration::from_millis(pause_ms));
                // The end takes a few ways there and back, which the processes do not try for ever.
                if all_is_received.load(Ordering::Acquire) {
                    pause_ms *= 2;
                }
                // One of them may be gone.
                let _ = direct.break_off(pipe).and_then(|()| direct.open(pipe));
            }
        });
    }
}
