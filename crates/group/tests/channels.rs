//! Channels beside what they must be: a queue for each sender, whatever is cut, delayed or broken on the way.

use mutirao_group::channel::{Body, Fault, Inlet, Outlet, PipeId, Reading, Want};
use mutirao_group::plan::{GroupId, Mode};
use proptest::prelude::*;
use std::collections::VecDeque;

/// Choices out of a seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }

    fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }
}

/// The bytes between two ends; each end has the one that was opened last for it.
#[derive(Default)]
struct Life {
    there: VecDeque<u8>,
    back: VecDeque<u8>,
}

/// A pipe between one sender and one receiver.
struct Pipe {
    lives: Vec<Life>,
    /// Which life each end has, if any.
    sender: Option<usize>,
    receiver: Option<usize>,
    is_whole: bool,
}

struct Sender {
    outlet: Outlet<Vec<u8>>,
    sent: u32,
    /// The synchronous message it waits for.
    waits: Option<(u64, u32)>,
}

struct Receiver {
    inlet: Inlet,
    /// What arrives, by lane.
    bodies: Vec<Vec<u8>>,
    /// Whether the program is in a call, and whether that waits.
    call: Option<bool>,
    log: Vec<(u32, u32)>,
    empties: u32,
}

struct World {
    chance: Chance,
    mode: Mode,
    capacity: usize,
    messages: u32,
    sizes: u64,
    senders: Vec<Sender>,
    receivers: Vec<Receiver>,
    /// By sender, then receiver.
    pipes: Vec<Vec<Pipe>>,
}

impl World {
    fn new(seed: u64) -> World {
        let mut chance = Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let (senders, receivers) = match chance.below(3) {
            0 => (1, 1),
            1 => (2 + chance.below(3) as usize, 1),
            _ => (1, 2 + chance.below(3) as usize),
        };
        let mode = if chance.one_in(2) { Mode::Sync } else { Mode::Async };
        let id = |s: usize, r: usize| PipeId { group: GroupId(5), number: (s * receivers + r) as u64 };
        let stored_bytes_max = 200 + chance.below(2000);
        let sender = |s| Sender {
            outlet: Outlet::new(
                &(0..receivers).map(|r| id(s, r)).collect::<Vec<_>>(),
                receivers > 1,
                None,
                stored_bytes_max,
            ),
            sent: 0,
            waits: None,
        };
        let receiver = |r| Receiver {
            inlet: Inlet::new(&(0..senders).map(|s| id(s, r)).collect::<Vec<_>>(), receivers > 1, None),
            bodies: vec![Vec::new(); senders],
            call: None,
            log: Vec::new(),
            empties: 0,
        };
        let pipe = || Pipe { lives: Vec::new(), sender: None, receiver: None, is_whole: false };
        World {
            mode,
            capacity: 1 + chance.below(120) as usize,
            messages: 1 + chance.below(20) as u32,
            sizes: 1 + chance.below(300),
            senders: (0..senders).map(sender).collect(),
            receivers: (0..receivers).map(receiver).collect(),
            pipes: (0..senders).map(|_| (0..receivers).map(|_| pipe()).collect()).collect(),
            chance,
        }
    }

    /// A message that says who sent it as the how manieth.
    fn message(&mut self, sender: usize, number: u32) -> Vec<u8> {
        let mut body = vec![0; 8 + self.chance.below(self.sizes) as usize];
        let sum = (sender as u32).wrapping_mul(31).wrapping_add(number) as u8;
        body.fill(sum);
        body[..4].copy_from_slice(&(sender as u32).to_le_bytes());
        body[4..8].copy_from_slice(&number.to_le_bytes());
        body
    }

    fn send(&mut self, s: usize) {
        let number = self.senders[s].sent;
        if let Some((ticket, number)) = self.senders[s].waits {
            if self.senders[s].outlet.is_taken(ticket) {
                let has = |receiver: &Receiver| receiver.log.contains(&(s as u32, number));
                assert!(self.receivers.iter().any(has), "a send returned before its message was received");
                self.senders[s].waits = None;
            }
            return;
        }
        if number == self.messages {
            self.senders[s].outlet.close();
            return;
        }
        let body = self.message(s, number);
        let mode = self.mode;
        let sender = &mut self.senders[s];
        sender.outlet.use_mode(mode).unwrap();
        if !sender.outlet.has_room(body.length()) {
            return;
        }
        let ticket = sender.outlet.send(body);
        sender.sent += 1;
        if mode == Mode::Sync {
            sender.waits = Some((ticket, number));
        }
    }

    fn receive(&mut self, r: usize) {
        let begins = self.chance.one_in(3);
        let waits = self.chance.one_in(2);
        let is_pushed = self.receivers.len() == 1;
        let receiver = &mut self.receivers[r];
        let waits = match receiver.call {
            Some(waits) => waits,
            None if begins => {
                receiver.call = Some(waits);
                waits
            }
            None => return,
        };
        match receiver.inlet.front() {
            Ok(Some(lane)) => {
                let body = std::mem::take(&mut receiver.bodies[lane]);
                receiver.inlet.take(lane);
                let word = |at: usize| u32::from_le_bytes(body[at..at + 4].try_into().unwrap());
                let (sender, number) = (word(0), word(4));
                let sum = sender.wrapping_mul(31).wrapping_add(number) as u8;
                assert!(body[8..].iter().all(|byte| *byte == sum), "a message was mixed up");
                receiver.log.push((sender, number));
                receiver.call = None;
            }
            Ok(None) => {
                // A wait may be given up at any time.
                let now = !waits || self.chance.one_in(20);
                receiver.call = Some(!now);
                let is_empty = match receiver.inlet.want(now) {
                    Want::Nothing => true,
                    Want::Wait => now && is_pushed,
                };
                if is_empty {
                    receiver.empties += 1;
                    receiver.call = None;
                }
            }
            Err(Fault::Ended) => receiver.call = None,
            Err(fault) => panic!("a receiver met {fault:?}"),
        }
    }

    /// Moves some bytes from an outlet into its pipe, and reads some of what came back.
    fn pump_sender(&mut self, s: usize, r: usize) {
        let pipe = &mut self.pipes[s][r];
        let outlet = &mut self.senders[s].outlet;
        let Some(life) = pipe.sender else { return };
        // What is written into a broken pipe goes nowhere.
        let is_current = pipe.is_whole && life + 1 == pipe.lives.len();
        let life = &mut pipe.lives[life];
        while let Some(out) = outlet.next(r) {
            let room = if is_current { self.capacity.saturating_sub(life.there.len()) } else { usize::MAX };
            let room = room.min(1 + self.chance.below(80) as usize);
            let mut bytes = out.head.to_vec();
            if let Some((body, from)) = out.body {
                bytes.extend_from_slice(&body[from as usize..]);
            }
            bytes.truncate(room);
            if is_current {
                life.there.extend(&bytes);
            }
            outlet.wrote(r, bytes.len() as u64);
            if bytes.is_empty() || self.chance.one_in(3) {
                break;
            }
        }
        while !life.back.is_empty() && !self.chance.one_in(6) {
            let room = outlet.head_room(r);
            let count = room.len().min(life.back.len()).min(1 + self.chance.below(20) as usize);
            for (place, byte) in room.iter_mut().zip(life.back.drain(..count)) {
                *place = byte;
            }
            outlet.head_filled(r, count).expect("an outlet understands its inlet");
        }
    }

    fn pump_receiver(&mut self, s: usize, r: usize) {
        let pipe = &mut self.pipes[s][r];
        let receiver = &mut self.receivers[r];
        let Some(life) = pipe.receiver else { return };
        let is_current = pipe.is_whole && life + 1 == pipe.lives.len();
        let life = &mut pipe.lives[life];
        while !self.chance.one_in(6) {
            let most = life.there.len().min(1 + self.chance.below(80) as usize);
            match receiver.inlet.reading(s) {
                Reading::Head => {
                    let room = receiver.inlet.head_room(s);
                    let count = room.len().min(most);
                    for (place, byte) in room.iter_mut().zip(life.there.drain(..count)) {
                        *place = byte;
                    }
                    receiver.inlet.head_filled(s, count).expect("an inlet understands its outlet");
                    if matches!(receiver.inlet.reading(s), Reading::Body { got: 0, .. }) {
                        receiver.bodies[s].clear();
                    }
                }
                Reading::Body { got, length } => {
                    let count = ((length - got) as usize).min(most);
                    receiver.bodies[s].extend(life.there.drain(..count));
                    receiver.inlet.body_came(s, count as u64);
                }
                Reading::Whole { .. } | Reading::Nothing => break,
            }
            if life.there.is_empty() {
                receiver.inlet.settle(s);
                break;
            }
        }
        while let Some(bytes) = receiver.inlet.next(s) {
            let room = if is_current { self.capacity.saturating_sub(life.back.len()) } else { usize::MAX };
            let count = bytes.len().min(room).min(1 + self.chance.below(30) as usize);
            if is_current {
                life.back.extend(&bytes[..count]);
            }
            receiver.inlet.wrote(s, count);
            if count == 0 {
                break;
            }
        }
    }

    /// Breaks a pipe or makes it anew; the ends notice one after the other.
    fn change(&mut self, s: usize, r: usize, breaks: bool) {
        let Pipe { lives, sender, receiver, is_whole } = &mut self.pipes[s][r];
        if *is_whole && breaks {
            *is_whole = false;
            let life = lives.last_mut().unwrap();
            life.there.truncate(self.chance.below(life.there.len() as u64 + 1) as usize);
            life.back.truncate(self.chance.below(life.back.len() as u64 + 1) as usize);
        } else if !*is_whole {
            *is_whole = true;
            lives.push(Life::default());
        }
        let last = lives.len().checked_sub(1).filter(|_| *is_whole);
        if *sender != last && self.chance.one_in(2) {
            *sender = last;
            let outlet = &mut self.senders[s].outlet;
            if last.is_some() { outlet.opened(r) } else { outlet.broken(r) }
        }
        if *receiver != last && self.chance.one_in(2) {
            *receiver = last;
            let inlet = &mut self.receivers[r].inlet;
            if last.is_some() { inlet.opened(s) } else { inlet.broken(s) }
        }
    }

    fn step(&mut self, breaks: bool) {
        let s = self.chance.below(self.senders.len() as u64) as usize;
        let r = self.chance.below(self.receivers.len() as u64) as usize;
        match self.chance.below(8) {
            0 => self.send(s),
            1 | 2 => self.receive(r),
            3 | 4 => self.pump_sender(s, r),
            5 | 6 => self.pump_receiver(s, r),
            _ if breaks && self.chance.one_in(6) => self.change(s, r, true),
            _ => {
                let pipe = &self.pipes[s][r];
                let last = pipe.lives.len().checked_sub(1);
                if !pipe.is_whole || pipe.sender != last || pipe.receiver != last {
                    self.change(s, r, false);
                }
            }
        }
    }

    fn is_done(&self) -> bool {
        let sent = |sender: &Sender| sender.sent == self.messages && sender.outlet.is_settled();
        self.senders.iter().all(sent)
    }

    fn run(&mut self) {
        for _ in 0..600 {
            self.step(true);
        }
        let mut steps = 0;
        while !self.is_done() {
            self.step(false);
            steps += 1;
            assert!(steps < 4_000_000, "messages are stuck");
        }
        self.check();
        // Whoever waits for it hears that all others know of its end.
        while !self.is_confirmed() {
            self.step(false);
            steps += 1;
            assert!(steps < 8_000_000, "an end is not heard");
        }
    }

    fn is_confirmed(&self) -> bool {
        let outlets = self.senders.iter().all(|sender| sender.outlet.is_confirmed());
        outlets && self.receivers.iter().all(|receiver| receiver.inlet.is_confirmed())
    }

    fn check(&self) {
        let mut all: Vec<(u32, u32)> = Vec::new();
        for receiver in &self.receivers {
            for s in 0..self.senders.len() as u32 {
                let numbers: Vec<u32> = receiver
                    .log
                    .iter()
                    .filter(|(sender, _)| *sender == s)
                    .map(|(_, number)| *number)
                    .collect();
                assert!(numbers.is_sorted(), "messages of one sender were reordered: {numbers:?}");
            }
            all.extend(&receiver.log);
        }
        all.sort_unstable();
        let senders = 0..self.senders.len() as u32;
        let expected: Vec<(u32, u32)> =
            senders.flat_map(|s| (0..self.messages).map(move |number| (s, number))).collect();
        assert_eq!(all, expected, "messages were lost or doubled");
    }
}

#[test]
fn channels_are_queues_whatever_happens_to_their_pipes() {
    for seed in 0..1500 {
        let outcome = std::panic::catch_unwind(|| World::new(seed).run());
        assert!(outcome.is_ok(), "seed {seed}");
    }
}

/// An outlet and an inlet joined without any trouble.
struct Pair {
    outlet: Outlet<Vec<u8>>,
    inlet: Inlet,
    body: Vec<u8>,
    there: VecDeque<u8>,
}

impl Pair {
    fn new(is_asked: bool) -> Pair {
        let id = [PipeId { group: GroupId(1), number: 0 }];
        let outlet = Outlet::new(&id, is_asked, None, 1000);
        let inlet = Inlet::new(&id, is_asked, None);
        let mut pair = Pair { outlet, inlet, body: Vec::new(), there: VecDeque::new() };
        pair.open();
        pair
    }

    /// A new pipe between the two.
    fn open(&mut self) {
        self.there.clear();
        self.outlet.opened(0);
        self.inlet.opened(0);
        self.settle().unwrap();
    }

    /// Carries everything both ways until nothing moves.
    fn settle(&mut self) -> Result<(), Fault> {
        loop {
            let there = &mut self.there;
            let before = there.len();
            while let Some(out) = self.outlet.next(0) {
                let mut bytes = out.head.to_vec();
                bytes.extend(out.body.map_or(&[][..], |(body, from)| &body[from as usize..]));
                there.extend(&bytes);
                self.outlet.wrote(0, bytes.len() as u64);
                if there.len() > 4096 {
                    break;
                }
            }
            let mut moved = there.len() > before;
            while !there.is_empty() {
                match self.inlet.reading(0) {
                    Reading::Head => {
                        let room = self.inlet.head_room(0);
                        let count = room.len().min(there.len());
                        room.iter_mut().zip(there.drain(..count)).for_each(|(place, byte)| *place = byte);
                        self.inlet.head_filled(0, count)?;
                    }
                    Reading::Body { length, .. } => {
                        self.body = there.drain(..length as usize).collect();
                        self.inlet.body_came(0, length);
                    }
                    Reading::Whole { .. } | Reading::Nothing => break,
                }
            }
            self.inlet.settle(0);
            while let Some(bytes) = self.inlet.next(0) {
                moved = true;
                let bytes = bytes.to_vec();
                self.inlet.wrote(0, bytes.len());
                let mut rest = &bytes[..];
                while !rest.is_empty() {
                    let room = self.outlet.head_room(0);
                    let count = room.len().min(rest.len());
                    room[..count].copy_from_slice(&rest[..count]);
                    rest = &rest[count..];
                    self.outlet.head_filled(0, count)?;
                }
            }
            if !moved {
                return Ok(());
            }
        }
    }
}

#[test]
fn a_synchronous_message_is_taken_only_when_the_program_takes_it() {
    let mut pair = Pair::new(false);
    pair.outlet.use_mode(Mode::Sync).unwrap();
    let ticket = pair.outlet.send(vec![7; 3]);
    pair.settle().unwrap();
    assert_eq!(pair.inlet.front(), Ok(Some(0)));
    assert!(!pair.outlet.is_taken(ticket));
    pair.inlet.take(0);
    pair.settle().unwrap();
    assert!(pair.outlet.is_taken(ticket) && pair.outlet.is_settled());
    assert_eq!(pair.body, [7; 3]);
}

#[test]
fn the_memory_of_messages_that_were_taken_is_kept_for_others_within_what_may_be_stored() {
    let mut pair = Pair::new(false);
    pair.outlet.use_mode(Mode::Async).unwrap();
    let pass = |pair: &mut Pair, length: usize| {
        pair.outlet.send(vec![5; length]);
        pair.settle().unwrap();
        assert_eq!(pair.inlet.front(), Ok(Some(0)));
        pair.inlet.take(0);
        pair.settle().unwrap();
        assert!(pair.outlet.is_settled());
    };
    // Of no use to anybody who does not ask.
    pass(&mut pair, 100);
    assert_eq!(pair.outlet.spare(1), None);
    pass(&mut pair, 100);
    pass(&mut pair, 300);
    assert_eq!(pair.outlet.spare(301), None);
    assert_eq!(pair.outlet.spare(200).map(|spare| spare.len()), Some(300));
    assert_eq!(pair.outlet.spare(200), None);
    // 1000 bytes may be stored: 100 can be spare beside 500, not beside 900.
    pass(&mut pair, 500);
    assert_eq!(pair.outlet.spare(1).map(|spare| spare.len()), Some(500));
    pair.outlet.send(vec![6; 900]);
    assert_eq!(pair.outlet.spare(1), None);
}

#[test]
fn mixed_modes_are_refused_at_the_first_crossing_on_both_sides() {
    let mut pair = Pair::new(false);
    pair.inlet.use_mode(Mode::Sync).unwrap();
    pair.outlet.use_mode(Mode::Async).unwrap();
    assert_eq!(pair.outlet.use_mode(Mode::Sync), Err(Fault::MixedHere { here: Mode::Async }));
    pair.outlet.send(vec![1]);
    let there = Fault::Mixed { lane: 0, here: Mode::Sync };
    assert_eq!(pair.settle(), Err(there.clone()));
    assert_eq!(pair.inlet.front(), Err(there));
    assert_eq!(pair.settle(), Err(Fault::Mixed { lane: 0, here: Mode::Async }));
    assert!(pair.outlet.use_mode(Mode::Async).is_err());

    let mut pair = Pair::new(true);
    pair.inlet.use_mode(Mode::Async).unwrap();
    assert_eq!(pair.inlet.want(false), Want::Wait);
    pair.settle().unwrap();
    pair.outlet.use_mode(Mode::Sync).unwrap();
    pair.outlet.send(vec![1]);
    assert_eq!(pair.settle(), Err(Fault::Mixed { lane: 0, here: Mode::Async }));
    assert_eq!(pair.outlet.check(), Err(Fault::Mixed { lane: 0, here: Mode::Sync }));
}

#[test]
fn whoever_asks_now_hears_that_nothing_is_there() {
    let mut pair = Pair::new(true);
    assert_eq!(pair.inlet.want(true), Want::Wait);
    pair.settle().unwrap();
    assert_eq!(pair.inlet.want(true), Want::Nothing);
    // A wait that is given up.
    assert_eq!(pair.inlet.want(false), Want::Wait);
    pair.settle().unwrap();
    assert_eq!(pair.inlet.want(true), Want::Wait);
    pair.settle().unwrap();
    assert_eq!(pair.inlet.want(true), Want::Nothing);
    pair.outlet.use_mode(Mode::Async).unwrap();
    pair.outlet.send(vec![1]);
    pair.settle().unwrap();
    assert_eq!(pair.inlet.front(), Ok(None), "nobody has asked");
    assert_eq!(pair.inlet.want(true), Want::Wait);
    pair.settle().unwrap();
    assert_eq!(pair.inlet.front(), Ok(Some(0)));
}

#[test]
fn what_is_stored_has_a_limit_but_one_message_always_goes() {
    let mut pair = Pair::new(false);
    pair.outlet.use_mode(Mode::Async).unwrap();
    assert!(pair.outlet.has_room(1 << 30));
    pair.outlet.send(vec![0; 900]);
    assert!(!pair.outlet.has_room(100));
    assert_eq!(pair.outlet.stored().0, 1);
}

#[test]
fn the_end_of_each_side_is_heard_on_the_other() {
    let mut pair = Pair::new(false);
    pair.outlet.use_mode(Mode::Async).unwrap();
    pair.outlet.send(vec![0; 9]);
    pair.outlet.close();
    pair.settle().unwrap();
    assert_eq!(pair.inlet.front(), Ok(Some(0)));
    pair.inlet.take(0);
    pair.settle().unwrap();
    assert_eq!(pair.inlet.front(), Err(Fault::Ended));

    let mut pair = Pair::new(false);
    pair.inlet.close();
    assert_eq!(pair.settle(), Err(Fault::Ended));
}

#[test]
fn who_leaves_after_the_answer_leaves_nothing_untold() {
    for is_asked in [false, true] {
        let mut pair = Pair::new(is_asked);
        pair.outlet.use_mode(Mode::Async).unwrap();
        pair.outlet.send(vec![0; 9]);
        pair.inlet.want(false);
        pair.settle().unwrap();
        pair.inlet.take(0);
        pair.inlet.close();
        // Both are cut when the inlet has written all it has to say.
        while let Some(bytes) = pair.inlet.next(0) {
            let count = bytes.len();
            pair.inlet.wrote(0, count);
        }
        assert!(pair.inlet.is_over() && !pair.inlet.is_confirmed());
        pair.inlet.broken(0);
        pair.outlet.broken(0);
        assert!(!pair.inlet.is_over() && !pair.outlet.is_settled());
        pair.there.clear();
        pair.outlet.opened(0);
        pair.inlet.opened(0);
        assert_eq!(pair.settle(), Err(Fault::Ended));
        let _ = pair.settle();
        assert!(pair.inlet.is_confirmed() && pair.outlet.is_settled());
        pair.outlet.failed(0, "its process has ended".into());
        assert_eq!(pair.outlet.check(), Err(Fault::Ended));
    }
}

#[test]
fn who_has_sent_all_leaves_after_the_answer() {
    let mut pair = Pair::new(false);
    pair.outlet.use_mode(Mode::Async).unwrap();
    pair.outlet.send(vec![0; 9]);
    pair.settle().unwrap();
    pair.inlet.take(0);
    pair.settle().unwrap();
    pair.outlet.close();
    assert!(!pair.outlet.is_confirmed());
    pair.settle().unwrap();
    assert!(pair.outlet.is_confirmed() && pair.outlet.check().is_ok());
    pair.inlet.failed(0, "its process has ended".into());
    assert_eq!(pair.inlet.front(), Err(Fault::Ended));
}

#[test]
fn a_process_that_begins_anew_gets_what_was_not_taken() {
    let id = [PipeId { group: GroupId(1), number: 0 }];
    let mut pair = Pair::new(false);
    pair.outlet.use_mode(Mode::Async).unwrap();
    for byte in 0..3 {
        pair.outlet.send(vec![byte]);
    }
    pair.settle().unwrap();
    pair.inlet.take(0);
    pair.inlet.settle(0);
    pair.settle().unwrap();
    pair.inlet = Inlet::new(&id, false, None);
    pair.open();
    assert_eq!((pair.inlet.front(), &pair.body), (Ok(Some(0)), &vec![1]));
    pair.outlet = Outlet::new(&id, false, None, 1000);
    pair.outlet.use_mode(Mode::Async).unwrap();
    pair.outlet.send(vec![9]);
    pair.open();
    assert_eq!((pair.inlet.front(), &pair.body), (Ok(Some(0)), &vec![9]));
}

proptest! {
    #[test]
    fn nonsense_is_an_error_and_no_more(bytes in prop::collection::vec(any::<u8>(), 0..400), asks: bool) {
        let mut pair = Pair::new(asks);
        pair.inlet.want(false);
        pair.outlet.use_mode(Mode::Async).unwrap();
        pair.outlet.send(vec![1; 10]);
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let room = pair.outlet.head_room(0);
            let count = room.len().min(rest.len());
            room[..count].copy_from_slice(&rest[..count]);
            rest = &rest[count..];
            if pair.outlet.head_filled(0, count).is_err() {
                break;
            }
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let taken = match pair.inlet.reading(0) {
                Reading::Head => {
                    let room = pair.inlet.head_room(0);
                    let count = room.len().min(rest.len());
                    room[..count].copy_from_slice(&rest[..count]);
                    if pair.inlet.head_filled(0, count).is_err() {
                        break;
                    }
                    count
                }
                Reading::Body { got, length } => {
                    let count = (length - got).min(rest.len() as u64);
                    pair.inlet.body_came(0, count);
                    count as usize
                }
                Reading::Whole { .. } => {
                    pair.inlet.take(0);
                    0
                }
                Reading::Nothing => break,
            };
            rest = &rest[taken..];
        }
    }
}
