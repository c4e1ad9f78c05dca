//! One server that knows which slots are free. Requests wait in one queue, first come first served; one
//! that cannot be served holds up those behind it, or a large one would never have its turn.

use super::Setting;
use crate::random::Random;
use core::time::Duration;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A request reaches the server.
    Request(usize),
    /// The server is done with the request at hand.
    Done,
    /// Slots come back.
    Release,
}

/// How long the requests that count and were served took, and the messages of all.
pub(super) fn serve(setting: &Setting<'_>, service: Duration) -> (Vec<Duration>, u64) {
    let mut random = Random::new(setting.seed);
    let each = setting.traffic.each as usize;
    let mut free = setting.nodes * usize::from(setting.slots);
    let mut queue: VecDeque<usize> = VecDeque::new();
    let mut busy = false;
    let (mut times, mut messages) = (Vec::new(), 0);
    let mut events = BinaryHeap::new();
    for (number, arrival) in setting.arrivals.iter().enumerate() {
        events.push(Reverse((arrival.at + setting.latency(&mut random), Event::Request(number))));
        messages += 1;
    }
    while let Some(Reverse((now, event))) = events.pop() {
        match event {
            Event::Request(number) => queue.push_back(number),
            Event::Release => free += each,
            Event::Done => busy = false,
        }
        // Those that ran out of patience took themselves back.
        while queue.front().is_some_and(|n| setting.arrivals[*n].at + setting.traffic.patience < now) {
            queue.pop_front();
            messages += 1;
        }
        if busy || free < each {
            continue;
        }
        let Some(number) = queue.pop_front() else { continue };
        let arrival = setting.arrivals[number];
        free -= each;
        busy = true;
        events.push(Reverse((now + service, Event::Done)));
        let answered = now + service + setting.latency(&mut random);
        // The answer, and a word to the server when the slots are given back.
        messages += 2;
        let served = answered <= arrival.at + setting.traffic.patience;
        if served && setting.counts(number) {
            times.push(answered - arrival.at);
        }
        let until = if served { answered + arrival.hold } else { answered };
        events.push(Reverse((until + setting.latency(&mut random), Event::Release)));
    }
    (times, messages)
}
