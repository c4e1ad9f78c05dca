//! Random probes with late binding, as in Sparrow (Ousterhout, Wendell, Zaharia, Stoica: "Sparrow:
//! Distributed, Low Latency Scheduling", SOSP 2013): a program sends more probes than it wants slots to
//! nodes drawn at random. Each node queues them. When it has a slot free it asks the program of the first
//! one, and the slot is kept until the program has answered that it takes it or no longer wants it.
//!
//! The slots of one request are used one by one as they are found: to hold some idle until there are all
//! would make it look worse than it is.

use super::Setting;
use crate::random::Random;
use core::time::Duration;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A program asks.
    Arrive(usize),
    /// A probe of a request reaches a node.
    Probe(usize, usize),
    /// A node offers a slot to the program of a request.
    Offer(usize, usize),
    /// The program does not want the slot, or gave it back.
    Free(usize),
    /// A program takes no more slots for a request.
    Tired(usize),
}

#[derive(Clone, Default)]
struct Request {
    taken: usize,
    over: bool,
}

/// How long the requests that count and were served took, and the messages of all.
pub(super) fn serve(setting: &Setting<'_>, probes: u32) -> (Vec<Duration>, u64) {
    let mut random = Random::new(setting.seed);
    let each = setting.traffic.each as usize;
    let mut free = vec![setting.slots; setting.nodes];
    let mut queues: Vec<VecDeque<usize>> = vec![VecDeque::new(); setting.nodes];
    let mut requests = vec![Request::default(); setting.arrivals.len()];
    let (mut times, mut messages) = (Vec::new(), 0);
    let mut events = BinaryHeap::new();
    for (number, arrival) in setting.arrivals.iter().enumerate() {
        events.push(Reverse((arrival.at, Event::Arrive(number))));
        events.push(Reverse((arrival.at + setting.traffic.patience, Event::Tired(number))));
    }
    while let Some(Reverse((now, event))) = events.pop() {
        let mut later = |delay: Duration, event| events.push(Reverse((now + delay, event)));
        let mut look = None;
        match event {
            Event::Arrive(number) => {
                for _ in 0..each * probes as usize {
                    let node = random.below(setting.nodes);
                    later(setting.latency(&mut random), Event::Probe(number, node));
                    messages += 1;
                }
            }
            Event::Probe(number, node) => {
                queues[node].push_back(number);
                look = Some(node);
            }
            Event::Offer(number, node) => {
                let request = &mut requests[number];
                messages += 1;
                if request.over {
                    later(setting.latency(&mut random), Event::Free(node));
                } else {
                    let arrival = setting.arrivals[number];
                    request.taken += 1;
                    request.over = request.taken == each;
                    if request.over && setting.counts(number) {
                        times.push(now - arrival.at);
                    }
                    messages += 1;
                    later(arrival.hold + setting.latency(&mut random), Event::Free(node));
                }
            }
            Event::Free(node) => {
                free[node] += 1;
                look = Some(node);
            }
            Event::Tired(number) => requests[number].over = true,
        }
        let Some(node) = look else { continue };
        while free[node] > 0
            && let Some(number) = queues[node].pop_front()
        {
            free[node] -= 1;
            messages += 1;
            later(setting.latency(&mut random), Event::Offer(number, node));
        }
    }
    (times, messages)
}
