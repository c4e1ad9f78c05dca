//! Processes of a group, as threads of this one, over real rings and sockets.

use super::direct::{Direct, Over};
use super::{Error, Group};
use mutirao_group::plan::{Edge, GroupId, Mode, Peer, PortPlan, ProcessPlan, Shape, Step};
use std::sync::Barrier;
use std::time::Duration;

mod late;

const WAYS: [Over; 3] = [Over::Rings(64 * 1024), Over::Sockets, Over::Tcp];
/// Nothing here takes so long, on however busy a machine.
const LONG: Duration = Duration::from_secs(60);

/// Plans of processes of which nothing is joined yet.
fn plans(size: u32) -> Vec<ProcessPlan> {
    let plan = |rank| ProcessPlan {
        group: GroupId(77),
        name: "test".into(),
        program: "p".into(),
        instance: rank,
        rank,
        size,
        inputs: Vec::new(),
        outputs: Vec::new(),
        collectives: Vec::new(),
        stored_bytes_max: 1 << 20,
        spill: false,
        record: None,
    };
    (0..size).map(plan).collect()
}

/// Joins the next output of some ranks to the next input of others.
fn join(plans: &mut [ProcessPlan], from: &[u32], to: &[u32], mode: Option<Mode>) {
    let shape = match (from.len(), to.len()) {
        (1, 1) => Shape::OneToOne,
        (1, _) => Shape::OneToMany,
        _ => Shape::ManyToOne,
    };
    let pipe = |f: u32, t: u32, port: usize| u64::from(f) << 32 | u64::from(t) << 16 | port as u64;
    let places = |ranks: &[u32], count: &dyn Fn(&ProcessPlan) -> usize, plans: &[ProcessPlan]| {
        ranks.iter().map(|rank| count(&plans[*rank as usize])).collect::<Vec<_>>()
    };
    let outs = places(from, &|plan| plan.outputs.len(), plans);
    let ins = places(to, &|plan| plan.inputs.len(), plans);
    let peer = |pipe, rank: u32, port: usize| Peer {
        pipe,
        program: "p".into(),
        instance: rank,
        port: port as u32,
        rank,
    };
    for (f, out) in from.iter().zip(&outs) {
        let peers = to.iter().zip(&ins).map(|(t, into)| peer(pipe(*f, *t, *out), *t, *into)).collect();
        plans[*f as usize].outputs.push(PortPlan { mode, one: from.len() == 1, shape, peers });
    }
    for (t, into) in to.iter().zip(&ins) {
        let peers = from.iter().zip(&outs).map(|(f, out)| peer(pipe(*f, *t, *out), *f, *out)).collect();
        let _ = into;
        plans[*t as usize].inputs.push(PortPlan { mode, one: to.len() == 1, shape, peers });
    }
}

/// Pipes for collectives.
fn with_collectives(plans: &mut [ProcessPlan]) {
    let size = plans.len() as u32;
    for plan in plans {
        let pipe = |from: u32, power: u32| 1 << 60 | u64::from(from) << 8 | u64::from(power);
        let powers = (0..).take_while(|power| 1 << power < size);
        plan.collectives = powers
            .map(|power| {
                let back = (plan.rank + size - (1 << power) % size) % size;
                Step {
                    to: Edge { pipe: pipe(plan.rank, power), rank: (plan.rank + (1 << power)) % size },
                    from: Edge { pipe: pipe(back, power), rank: back },
                }
            })
            .collect();
    }
}

/// Runs the processes of a group; `work` is told which it is by its rank.
fn run(plans: &[ProcessPlan], over: Over, work: impl Fn(Group) + Sync) {
    let (direct, ends) = Direct::new(plans, over).unwrap();
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            ends.into_iter().map(|end| scope.spawn(|| work(Group::join(end).unwrap()))).collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
    drop(direct);
}

/// Bytes that tell one message from another, and one part of it from the next.
fn pattern(length: usize, seed: usize) -> Vec<u8> {
    let mut bytes = vec![seed as u8; length];
    bytes.iter_mut().step_by(61).enumerate().for_each(|(place, byte)| *byte = (place * 7 + seed) as u8);
    bytes
}

#[test]
fn messages_of_every_size_around_every_limit_arrive_whole() {
    let sizes =
        [0, 1, 8, 65_535, 65_536, 65_537, 64 * 1024 - 16, 64 * 1024 - 15, 8191, 8192, 1 << 20, 16 << 20];
    for over in WAYS {
        let mut plans = plans(2);
        join(&mut plans, &[0], &[1], None);
        join(&mut plans, &[0], &[1], None);
        run(&plans, over, |group| {
            if group.rank() == 0 {
                let (sync, stored) = (group.output(0).unwrap(), group.output(1).unwrap());
                for (seed, size) in sizes.into_iter().enumerate() {
                    sync.send(&pattern(size, seed)).unwrap();
                    stored.post(pattern(size, seed)).unwrap();
                }
            } else {
                let (sync, stored) = (group.input(0).unwrap(), group.input(1).unwrap());
                let mut room = vec![0; 16 << 20];
                for (seed, size) in sizes.into_iter().enumerate() {
                    assert_eq!(sync.receive_into(&mut room).unwrap(), size);
                    assert!(room[..size] == pattern(size, seed), "{size} bytes over {over:?}");
                    assert!(stored.receive().unwrap() == pattern(size, seed), "{size} bytes over {over:?}");
                }
                assert!(matches!(sync.receive(), Err(Error::Ended { .. })));
            }
            group.close().unwrap();
        });
    }
}

#[test]
fn stored_messages_leave_while_the_program_computes() {
    for over in WAYS {
        let mut plans = plans(2);
        plans[0].stored_bytes_max = 64 << 20;
        join(&mut plans, &[0], &[1], None);
        let received = Barrier::new(2);
        run(&plans, over, |group| {
            if group.rank() == 0 {
                let output = group.output(0).unwrap();
                // More than a pipe takes.
                (0..200).for_each(|seed| output.post(pattern(40_000, seed)).unwrap());
                // This thread does not come back to the library before all has been received.
                received.wait();
            } else {
                let input = group.input(0).unwrap();
                (0..200).for_each(|seed| assert!(input.receive().unwrap() == pattern(40_000, seed)));
                received.wait();
            }
            group.close().unwrap();
        });
    }
}

/// A helper that sleeps on a socket for what comes does not see that it must now wait for room, too.
#[test]
fn the_helper_that_waits_for_asks_hears_of_room_too() {
    for over in WAYS {
        let mut plans = plans(3);
        join(&mut plans, &[0], &[1, 2], None);
        let received = Barrier::new(2);
        run(&plans, over, |group| {
            match group.rank() {
                0 => {
                    let output = group.output(0).unwrap();
                    // Most likely the helper has heard the first ask by now, and sleeps until the next.
                    std::thread::sleep(Duration::from_millis(50));
                    output.post(pattern(16 << 20, 3)).unwrap();
                    // This thread does not come back to the library before it has been received.
                    received.wait();
                }
                1 => {
                    let message = group.input(0).unwrap().receive_timeout(LONG);
                    received.wait();
                    assert!(message.unwrap() == pattern(16 << 20, 3), "over {over:?}");
                }
                _ => {}
            }
            group.close().unwrap();
        });
    }
}

#[test]
fn a_full_store_makes_the_sender_wait_or_says_so() {
    let mut plans = plans(2);
    plans[0].stored_bytes_max = 1000;
    join(&mut plans, &[0], &[1], None);
    let is_full = Barrier::new(2);
    run(&plans, Over::Rings(4096), |group| {
        if group.rank() == 0 {
            let output = group.output(0).unwrap();
            let mut stored = 0;
            let error = loop {
                match output.try_post(vec![1; 400]) {
                    Ok(()) => stored += 1,
                    Err(error) => break error,
                }
            };
            assert!(matches!(error, Error::Full { messages: 2, .. }), "{error}");
            assert_eq!(stored, 2);
            let late = output.post_timeout(vec![1; 400], Duration::from_millis(1));
            assert!(matches!(late, Err(Error::TimedOut { .. })));
            is_full.wait();
            // Goes when the others are received.
            output.post(vec![2; 400]).unwrap();
        } else {
            is_full.wait();
            let input = group.input(0).unwrap();
            let kinds: Vec<u8> = (0..3).map(|_| input.receive().unwrap()[0]).collect();
            assert_eq!(kinds, [1, 1, 2]);
        }
        group.close().unwrap();
    });
}

#[test]
fn what_is_beyond_the_store_goes_to_disk_if_the_file_says_so() {
    let mut plans = plans(2);
    plans[0].stored_bytes_max = 1000;
    plans[0].spill = true;
    join(&mut plans, &[0], &[1], None);
    let is_stored = Barrier::new(2);
    run(&plans, Over::Rings(4096), |group| {
        if group.rank() == 0 {
            let output = group.output(0).unwrap();
            (0..60).for_each(|seed| output.try_post(pattern(seed * 3000, seed)).unwrap());
            assert!(output.stored().1 < 20_000, "{:?}", output.stored());
            is_stored.wait();
        } else {
            is_stored.wait();
            let input = group.input(0).unwrap();
            (0..60).for_each(|seed| assert!(input.receive().unwrap() == pattern(seed * 3000, seed)));
        }
        group.close().unwrap();
    });
}

#[test]
fn each_message_of_a_farm_reaches_one_worker_and_each_result_comes_back() {
    const TASKS: u64 = 300;
    for over in WAYS {
        let mut plans = plans(4);
        join(&mut plans, &[0], &[1, 2, 3], None);
        join(&mut plans, &[1, 2, 3], &[0], None);
        run(&plans, over, |group| {
            if group.rank() == 0 {
                let (tasks, results) = (group.sender::<u64>(0).unwrap(), group.receiver::<u64>(0).unwrap());
                (0..TASKS).for_each(|task| tasks.post(&task).unwrap());
                let sum: u64 = (0..TASKS).map(|_| results.receive().unwrap()).sum();
                assert_eq!(sum, (0..TASKS).map(|task| task * task).sum());
            } else {
                let (tasks, results) = (group.receiver::<u64>(0).unwrap(), group.sender::<u64>(0).unwrap());
                loop {
                    match tasks.receive() {
                        Ok(task) => results.post(&(task * task)).unwrap(),
                        Err(Error::Ended { .. }) => break,
                        Err(error) => panic!("{error}"),
                    }
                }
            }
            group.close().unwrap();
        });
    }
}

#[test]
fn whoever_sleeps_on_few_or_many_pipes_is_woken_by_each() {
    // With line and alarm as many as need no memory, one more, and many more.
    for senders in [1, 6, 7, 20] {
        for over in WAYS {
            let mut plans = plans(senders + 1);
            let all: Vec<u32> = (1..=senders).collect();
            join(&mut plans, &all, &[0], None);
            run(&plans, over, |group| {
                if group.rank() == 0 {
                    let input = group.receiver::<u32>(0).unwrap();
                    let mut came: Vec<u32> =
                        all.iter().map(|_| input.receive_timeout(LONG).unwrap()).collect();
                    came.sort_unstable();
                    assert_eq!(came, all);
                } else {
                    std::thread::sleep(Duration::from_millis(5) * (senders - group.rank() + 1));
                    group.sender::<u32>(0).unwrap().send(&group.rank()).unwrap();
                }
                group.close().unwrap();
            });
        }
    }
}

#[test]
fn a_channel_that_is_empty_says_so_and_a_wait_ends_in_time() {
    let mut plans = plans(3);
    join(&mut plans, &[0], &[1, 2], None);
    join(&mut plans, &[0], &[1], None);
    let (asked, posted) = (Barrier::new(2), Barrier::new(2));
    run(&plans, Over::Rings(4096), |group| {
        match group.rank() {
            0 => {
                asked.wait();
                let output = group.output(0).unwrap();
                output.post(vec![5]).unwrap();
                posted.wait();
            }
            1 => {
                for number in 0..2 {
                    let input = group.input(number).unwrap();
                    assert_eq!(input.try_receive().unwrap(), None);
                    let late = input.receive_timeout(Duration::from_millis(20));
                    assert!(matches!(late, Err(Error::TimedOut { .. })));
                }
                asked.wait();
                assert_eq!(group.input(0).unwrap().receive_timeout(LONG).unwrap(), [5]);
                posted.wait();
            }
            _ => {}
        }
        group.close().unwrap();
    });
}

#[test]
fn a_message_that_does_not_fit_stays() {
    for over in WAYS {
        let mut plans = plans(3);
        join(&mut plans, &[1, 2], &[0], None);
        run(&plans, over, |group| {
            if group.rank() > 0 {
                let output = group.output(0).unwrap();
                output.post(pattern(100_000, group.rank() as usize)).unwrap();
            } else {
                let input = group.input(0).unwrap();
                let error = input.receive_into(&mut [0; 10]).unwrap_err();
                assert!(matches!(error, Error::TooLong { length: 100_000, room: 10, .. }), "{error}");
                let mut room = vec![0; 100_000];
                let mut seen = Vec::new();
                for _ in 0..2 {
                    assert_eq!(input.receive_into(&mut room).unwrap(), 100_000);
                    let who = [1, 2].into_iter().find(|rank| room == pattern(100_000, *rank));
                    seen.push(who.expect("one of the two sent this"));
                }
                seen.sort_unstable();
                assert_eq!(seen, [1, 2]);
            }
            group.close().unwrap();
        });
    }
}

#[test]
fn whoever_selects_gets_the_channel_that_has_something() {
    let mut plans = plans(4);
    join(&mut plans, &[1], &[0], None);
    join(&mut plans, &[2], &[0, 3], None);
    let (first, second) = (Barrier::new(2), Barrier::new(2));
    run(&plans, Over::Rings(4096), |group| {
        match group.rank() {
            0 => {
                let inputs = [group.input(0).unwrap(), group.input(1).unwrap()];
                let refs: Vec<_> = inputs.iter().collect();
                assert_eq!(group.select(&refs, Some(Duration::from_millis(10))).unwrap(), None);
                first.wait();
                assert_eq!(group.select(&refs, Some(LONG)).unwrap(), Some(1));
                assert_eq!(inputs[1].receive().unwrap(), [9]);
                second.wait();
                assert_eq!(group.select(&refs, Some(LONG)).unwrap(), Some(0));
                assert_eq!(inputs[0].receive().unwrap(), [8]);
            }
            1 => {
                second.wait();
                group.output(0).unwrap().send(&[8]).unwrap();
            }
            2 => {
                first.wait();
                group.output(0).unwrap().post(vec![9]).unwrap();
            }
            _ => {}
        }
        group.close().unwrap();
    });
}

/// Whether a descriptor becomes readable in time.
fn is_readable(fd: &std::os::fd::OwnedFd, within: Duration) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let within = Timespec::try_from(within).unwrap();
    poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&within)).unwrap() == 1
}

/// Sleeps until a descriptor is readable.
fn wait_for(fd: &std::os::fd::OwnedFd) {
    assert!(is_readable(fd, LONG), "nothing happens in {LONG:?}");
}

#[test]
fn an_event_loop_waits_for_several_channels_on_one_descriptor() {
    let mut plans = plans(3);
    join(&mut plans, &[1], &[0], Some(Mode::Async));
    join(&mut plans, &[2], &[0], Some(Mode::Async));
    event_loops(&plans, 100);
}

#[test]
fn an_event_loop_waits_for_a_channel_that_receivers_share() {
    let mut plans = plans(4);
    join(&mut plans, &[1], &[0], Some(Mode::Async));
    join(&mut plans, &[2], &[0], Some(Mode::Async));
    join(&mut plans, &[1], &[0, 3], Some(Mode::Async));
    event_loops(&plans, 150);
}

/// Processes 1 and 2 send on all their channels, the others receive in an event loop: so many messages in all.
fn event_loops(plans: &[ProcessPlan], messages: usize) {
    for over in WAYS {
        let received = std::sync::atomic::AtomicUsize::new(0);
        run(plans, over, |group| {
            match group.rank() {
                1 | 2 => {
                    for i in 0..50_u8 {
                        for output in 0..group.outputs() as u32 {
                            group.output(output).unwrap().post(pattern(1 + usize::from(i) * 300, 1)).unwrap();
                        }
                        if i % 16 == 0 {
                            std::thread::sleep(Duration::from_millis(3));
                        }
                    }
                }
                _ => {
                    let events = group.event_fd().unwrap();
                    let inputs: Vec<_> =
                        (0..group.inputs() as u32).map(|i| group.input(i).unwrap()).collect();
                    let mut open: Vec<_> = inputs.iter().collect();
                    while !open.is_empty() {
                        open.retain(|input| {
                            loop {
                                match input.try_receive() {
                                    Ok(Some(message)) => {
                                        assert_eq!(message, pattern(message.len(), 1));
                                        received.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                                    }
                                    Ok(None) => return true,
                                    Err(Error::Ended { .. }) => return false,
                                    Err(error) => panic!("{error}"),
                                }
                            }
                        });
                        if !open.is_empty() && !group.arm(&open).unwrap() {
                            wait_for(&events);
                        }
                    }
                }
            }
            group.close().unwrap();
        });
        assert_eq!(received.into_inner(), messages);
    }
}

#[test]
fn an_event_loop_is_not_woken_for_ever_by_an_input_that_has_ended() {
    for over in WAYS {
        let mut plans = plans(3);
        join(&mut plans, &[1], &[0], None);
        join(&mut plans, &[2], &[0], None);
        let (armed, over_with) = (Barrier::new(2), Barrier::new(2));
        run(&plans, over, |group| {
            match group.rank() {
                0 => {
                    let events = group.event_fd().unwrap();
                    let (ends, lives) = (group.input(0).unwrap(), group.input(1).unwrap());
                    let is_ready = group.arm(&[&ends, &lives]);
                    armed.wait();
                    assert!(!is_ready.unwrap());
                    while !matches!(ends.try_receive(), Err(Error::Ended { .. })) {
                        if !group.arm(&[&ends, &lives]).unwrap() {
                            wait_for(&events);
                        }
                    }
                    // It wakes the loop until the other process is known to be gone.
                    let is_quiet = (0..1000).any(|_| {
                        std::thread::sleep(Duration::from_millis(5));
                        let is_ready = group.arm(&[&lives]).unwrap_or(true);
                        !is_ready && !is_readable(&events, Duration::from_millis(50))
                    });
                    over_with.wait();
                    assert!(is_quiet, "the descriptor stays readable over {over:?}");
                }
                1 => _ = armed.wait(),
                _ => _ = over_with.wait(),
            }
            group.close().unwrap();
        });
    }
}

#[test]
fn mixed_modes_are_refused_by_name() {
    let mut plans = plans(2);
    join(&mut plans, &[0], &[1], None);
    join(&mut plans, &[0], &[1], Some(Mode::Sync));
    run(&plans, Over::Sockets, |group| {
        if group.rank() == 0 {
            let error = group.output(1).unwrap().post(vec![1]).unwrap_err();
            assert!(matches!(error, Error::MixedHere { .. }), "{error}");
            let error = group.output(0).unwrap().send(&[1]).unwrap_err();
            assert_eq!(
                error.to_string(),
                "output channel 0 of p.0 is used in both modes: synchronous here, asynchronous by p.1; a channel is \
                 synchronous at both ends or asynchronous at both"
            );
        } else {
            let input = group.input(0).unwrap();
            let error = input.receive_as(Some(Mode::Async), Some(LONG)).unwrap_err();
            assert!(matches!(error, Error::Mixed { .. }), "{error}");
            // Until the other side has heard.
            let _ = group.close();
        }
    });
}

#[test]
fn pipes_that_break_lose_nothing() {
    const MESSAGES: usize = 400;
    for over in WAYS {
        let mut plans = plans(2);
        join(&mut plans, &[0], &[1], None);
        let pipe = plans[0].outputs[0].peers[0].pipe;
        let (mut direct, ends) = Direct::new(&plans, over).unwrap();
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let mut ends = ends.into_iter();
            let (sender, receiver) = (ends.next().unwrap(), ends.next().unwrap());
            let writer = scope.spawn(|| {
                let group = Group::join(sender).unwrap();
                let output = group.output(0).unwrap();
                (0..MESSAGES).for_each(|seed| output.post(pattern(seed * 37, seed)).unwrap());
                group.close().unwrap();
            });
            let reader = scope.spawn(|| {
                let group = Group::join(receiver).unwrap();
                let input = group.input(0).unwrap();
                for seed in 0..MESSAGES {
                    assert!(input.receive().unwrap() == pattern(seed * 37, seed), "message {seed}");
                }
                done.store(true, std::sync::atomic::Ordering::Release);
                assert!(matches!(input.receive(), Err(Error::Ended { .. })));
                group.close().unwrap();
            });
            let mut pause_ms = 3;
            while !writer.is_finished() || !reader.is_finished() {
                std::thread::sleep(Duration::from_millis(pause_ms));
                // The end takes a few ways there and back, which the processes do not try for ever.
                if done.load(std::sync::atomic::Ordering::Acquire) {
                    pause_ms *= 2;
                }
                // One of them may be gone.
                let _ = direct.break_off(pipe).and_then(|()| direct.open(pipe));
            }
        });
    }
}

#[test]
fn a_receiver_that_leaves_while_its_pipe_is_cut_has_told_what_it_took() {
    for over in WAYS {
        let mut plans = plans(2);
        join(&mut plans, &[0], &[1], None);
        let pipe = plans[0].outputs[0].peers[0].pipe;
        let (mut direct, ends) = Direct::new(&plans, over).unwrap();
        let [sender, receiver] = <[_; 2]>::try_from(ends).unwrap();
        let leaves = Barrier::new(2);
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let group = Group::join(sender).unwrap();
                group.output(0).unwrap().send(&[1; 100]).unwrap();
                group.output(0).unwrap().send_timeout(&[2; 100], LONG).unwrap();
                assert!(matches!(group.output(0).unwrap().send(&[3]), Err(Error::Ended { .. })));
                group.close().unwrap();
            });
            let leaves = &leaves;
            scope.spawn(move || {
                let group = Group::join(receiver).unwrap();
                let input = group.input(0).unwrap();
                assert_eq!(input.receive().unwrap(), [1; 100]);
                leaves.wait();
                assert_eq!(input.receive().unwrap(), [2; 100]);
                group.close().unwrap();
            });
            leaves.wait();
            let mut pause_ms = 5;
            while !writer.is_finished() {
                let _ = direct.break_off(pipe).and_then(|()| direct.open(pipe));
                std::thread::sleep(Duration::from_millis(pause_ms));
                pause_ms *= 2;
            }
        });
    }
}

#[test]
fn nothing_is_stored_for_a_receiver_that_has_left() {
    for over in [Over::Rings(64 * 1024), Over::Sockets] {
        let mut plans = plans(2);
        join(&mut plans, &[0], &[1], None);
        let has_left = Barrier::new(2);
        run(&plans, over, |group| {
            if group.rank() == 1 {
                group.close().unwrap();
                has_left.wait();
                return;
            }
            let output = group.output(0).unwrap();
            has_left.wait();
            let mut message = vec![7; 100];
            let refused = output.post_from(&mut message, None);
            assert!(matches!(refused, Err(Error::Ended { .. })), "{refused:?} over {over:?}");
            assert_eq!((message.len(), output.stored().0), (100, 0));
        });
    }
}

#[test]
fn a_process_that_is_lost_is_named_to_whoever_waits_for_it() {
    for over in WAYS {
        let mut plans = plans(2);
        join(&mut plans, &[0], &[1], None);
        join(&mut plans, &[1], &[0], None);
        run(&plans, over, |group| {
            if group.rank() == 0 {
                let input = group.input(0).unwrap();
                assert_eq!(input.receive().unwrap(), [7]);
                let error = input.receive().unwrap_err();
                assert!(matches!(&error, Error::PeerLost { .. }), "{error}");
                let error = group.output(0).unwrap().send(&[1]).unwrap_err();
                assert!(matches!(&error, Error::PeerLost { .. }), "{error}");
            } else {
                // It leaves without a word.
                group.output(0).unwrap().send(&[7]).unwrap();
            }
        });
    }
}

#[test]
fn collectives_of_every_small_group_are_right() {
    for size in 1..=6 {
        let mut plans = plans(size);
        with_collectives(&mut plans);
        run(&plans, Over::Rings(4096), |group| {
            let rank = group.rank();
            for root in 0..size {
                group.barrier().unwrap();
                let told = group.broadcast(root, (rank == root).then_some(&(root * 3))).unwrap();
                assert_eq!(told, root * 3);
                let blocks =
                    if rank == root { (0..size as u8).map(|to| vec![to; 9]).collect() } else { Vec::new() };
                assert_eq!(group.scatter_bytes(root, blocks).unwrap(), vec![rank as u8; 9]);
                let gathered = group.gather_bytes(root, vec![rank as u8]).unwrap();
                let all: Vec<Vec<u8>> = (0..size as u8).map(|by| vec![by]).collect();
                assert_eq!(gathered, if rank == root { all } else { Vec::new() });
                let sum = group.reduce(root, u64::from(rank), |a, b| a + b).unwrap();
                assert_eq!(sum, (rank == root).then(|| (0..u64::from(size)).sum()));
                let most = |all: &mut Vec<u8>, came: &[u8]| all[0] = all[0].max(came[0]);
                let joined = group.reduce_bytes(root, vec![rank as u8], most).unwrap();
                assert_eq!(joined, (rank == root).then(|| vec![size as u8 - 1]));
            }
            let blocks = (0..size as u8).map(|to| vec![rank as u8, to]).collect();
            let came = group.all_to_all_bytes(blocks).unwrap();
            assert_eq!(came, (0..size as u8).map(|by| vec![by, rank as u8]).collect::<Vec<_>>());
            assert_eq!(group.reduce_all(rank, u32::max).unwrap(), size - 1);
            let mut steps = super::Superstep::new(&group);
            steps.compute(|| ());
            steps.meet().unwrap();
            assert_eq!(steps.times().steps, 1);
            group.close().unwrap();
        });
    }
}

#[test]
fn a_group_that_loses_its_node_ends_with_an_error() {
    let mut plans = plans(2);
    join(&mut plans, &[0], &[1], None);
    let (direct, mut ends) = Direct::new(&plans, Over::Sockets).unwrap();
    let group = Group::join(ends.remove(1)).unwrap();
    drop(direct);
    let error = group.input(0).unwrap().receive().unwrap_err();
    assert!(matches!(error, Error::GroupLost { .. }), "{error}");
    assert!(matches!(group.input(1), Err(Error::NoChannel { number: 1, count: 1, .. })));
    assert!(matches!(group.barrier(), Err(Error::NoCollectives)));
}
