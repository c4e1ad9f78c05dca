use super::calls::Calls;
use super::speed::Usual;
use mutirao_wire::limits::OPERATIONS_MAX;
use mutirao_wire::{CallId, Tick};
use std::collections::VecDeque;

/// Beyond so many more than those that wait, a queue gets rid of calls that are over.
const OVER_MAX: usize = 64;

/// Calls to be placed: in order within an operation, so that one operation's calls need not hold back
/// another's.
#[derive(Debug)]
pub(super) struct Waiting {
    queues: Box<[Queue]>,
    /// Queues in which calls wait.
    active: Vec<usize>,
    count: usize,
}

#[derive(Debug, Default)]
struct Queue {
    /// Some may be over already.
    calls: VecDeque<Entry>,
    /// How many are not.
    count: usize,
    /// How many at the back have come since [`Waiting::stamp`].
    new: usize,
}

#[derive(Debug)]
struct Entry {
    call: CallId,
    since: Tick,
}

impl Default for Waiting {
    fn default() -> Waiting {
        let queues = (0..OPERATIONS_MAX).map(|_| Queue::default()).collect();
        Waiting { queues, active: Vec::new(), count: 0 }
    }
}

impl Waiting {
    pub(super) fn push_back(&mut self, operation: u32, call: CallId) {
        let queue = self.one_more(operation);
        // Its time is not known before `stamp`.
        queue.calls.push_back(Entry { call, since: Tick(u64::MAX) });
        queue.new += 1;
    }

    /// Takes back a call that was placed.
    pub(super) fn push_front(&mut self, now: Tick, operation: u32, call: CallId) {
        self.one_more(operation).calls.push_front(Entry { call, since: now });
    }

    fn one_more(&mut self, operation: u32) -> &mut Queue {
        let index = Usual::index(operation);
        let queue = &mut self.queues[index];
        if queue.count == 0 {
            self.active.push(index);
        }
        queue.count += 1;
        self.count += 1;
        queue
    }

    /// One of the operation's calls is no longer to be placed.
    fn one_less(&mut self, index: usize) {
        let queue = &mut self.queues[index];
        queue.count -= 1;
        self.count -= 1;
        if queue.count == 0 {
            queue.calls.clear();
            queue.new = 0;
            self.active.retain(|active| *active != index);
        }
    }

    /// A call that waited is over, and `calls` does not know it any more.
    pub(super) fn over(&mut self, operation: u32, calls: &Calls) {
        let index = Usual::index(operation);
        self.one_less(index);
        let queue = &mut self.queues[index];
        if queue.calls.len() > 2 * queue.count + OVER_MAX {
            let old = queue.calls.len() - queue.new;
            let mut at = 0;
            let mut new = 0;
            queue.calls.retain(|entry| {
                let stays = calls.get(entry.call).is_some();
                new += usize::from(stays && at >= old);
                at += 1;
                stays
            });
            queue.new = new;
        }
    }

    /// Takes out everything, oldest first.
    pub(super) fn drain(&mut self, calls: &Calls) -> Vec<CallId> {
        let all = self.active.drain(..).flat_map(|index| core::mem::take(&mut self.queues[index]).calls);
        let mut aged: Vec<(u64, CallId)> =
            all.filter_map(|entry| Some((calls.get(entry.call)?.number, entry.call))).collect();
        self.count = 0;
        aged.sort_unstable();
        aged.into_iter().map(|(_, call)| call).collect()
    }

    /// Calls that have come since the last time begin to wait now.
    pub(super) fn stamp(&mut self, now: Tick) {
        for index in &self.active {
            let queue = &mut self.queues[*index];
            let new = core::mem::take(&mut queue.new);
            queue.calls.iter_mut().rev().take(new).for_each(|entry| entry.since = now);
        }
    }

    /// The queue whose first call is the oldest, `but` for some; and the number of the next oldest of these
    /// first calls.
    pub(super) fn oldest(&mut self, calls: &Calls, but: &[usize]) -> Option<(usize, Option<u64>)> {
        let mut first: Option<(u64, usize)> = None;
        let mut next = None;
        for n in 0..self.active.len() {
            let index = self.active[n];
            if but.contains(&index) {
                continue;
            }
            let Some((_, number)) = self.first(index, calls) else { continue };
            let this = (number, index);
            if first.is_none_or(|first| this < first) {
                next = first.replace(this);
            } else if next.is_none_or(|next| this < next) {
                next = Some(this);
            }
        }
        first.map(|(_, index)| (index, next.map(|(number, _)| number)))
    }

    /// The first call of a queue, and its number.
    pub(super) fn first(&mut self, index: usize, calls: &Calls) -> Option<(CallId, u64)> {
        let queue = &mut self.queues[index];
        loop {
            let call = queue.calls.front()?.call;
            if let Some(known) = calls.get(call) {
                return Some((call, known.number));
            }
            queue.calls.pop_front();
            queue.new = queue.new.min(queue.calls.len());
        }
    }

    /// Takes out the first call of a queue, which [`first`](Waiting::first) has found.
    pub(super) fn pop(&mut self, index: usize) {
        let queue = &mut self.queues[index];
        if queue.calls.pop_front().is_some() {
            queue.new = queue.new.min(queue.calls.len());
            self.one_less(index);
        }
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    pub(super) fn count_of(&self, index: usize) -> usize {
        self.queues[index].count
    }

    /// How long one lease of usual speed would be busy with it all, as far as known, microseconds.
    pub(super) fn work_us(&self, usual: &Usual) -> f64 {
        let work_us = |index: &usize| {
            usual.time_us(*index as u32).map_or(0.0, |usual_us| usual_us * self.queues[*index].count as f64)
        };
        self.active.iter().map(work_us).sum()
    }

    /// How long the shortest usually takes, microseconds; infinitely long if nobody knows.
    pub(super) fn shortest_us(&self, usual: &Usual) -> f64 {
        let times = self.active.iter().filter_map(|index| usual.time_us(*index as u32));
        times.fold(f64::INFINITY, f64::min)
    }

    /// Since when the oldest waits.
    pub(super) fn since(&self, calls: &Calls) -> Option<Tick> {
        let since = |index: &usize| {
            let mut entries = self.queues[*index].calls.iter();
            entries.find(|entry| calls.get(entry.call).is_some()).map(|entry| entry.since)
        };
        self.active.iter().filter_map(since).min().filter(|since| *since < Tick(u64::MAX))
    }
}
