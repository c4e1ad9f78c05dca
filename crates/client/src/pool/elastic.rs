//! Asks for slots when calls wait, and gives them back when there is nothing to do.

use super::core::{Core, Granted, Pending, now};
use super::options::{Request, Slots, note_text};
use super::resize::Tally;
use mutirao_schedule::hold::{Backlog, Input};
use mutirao_wire::lease::LeaseEnd;
use mutirao_wire::local::{Allocate, LocalMessage, Size};
use mutirao_wire::node::{Hindrance, Note};
use mutirao_wire::{Handle, Tick};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Work that waits for less than this, shared among the leases held, is no reason to ask for more.
const WORTH_ASKING: Duration = Duration::from_millis(2);
/// A call that waits longer is one, however short it may be: what it waits for may run for ever.
const PATIENCE: Duration = Duration::from_millis(5);
/// First and longest wait before asking again when not all was granted.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(2));
/// Work that is worth a slot of its own, where it is known how long calls take.
const WORTH_A_SLOT: Duration = Duration::from_millis(10);
/// Leases that are idle are not looked for more often.
const IDLE_LOOK: Duration = Duration::from_millis(50);
/// After so many leases that could not run the program, with none that could, it is given up.
const FAILURES_MAX: u32 = 8;
/// Nodes remembered that granted a lease and then could not run the program.
const UNFIT_MAX: usize = 64;

/// How slots come without the program's asking.
#[derive(Debug)]
pub(super) struct Elastic {
    slots: Slots,
    /// As it was before it was told its size.
    own: Slots,
    /// The request under way.
    asking: Option<u32>,
    /// Requests whose leases nobody waits for.
    pub(super) asked_unwatched: BTreeSet<u32>,
    /// When to look for idle leases next.
    idle_look: Tick,
    not_before: Tick,
    delay: Duration,
    /// Leases that ended because the program cannot run there, since one last could.
    failures: u32,
    /// Why the last of them could not, for people.
    reason: Option<String>,
    /// What stood in the way at each node that granted a lease in vain, by name.
    unfit: BTreeMap<String, Note>,
    next_sequence: u32,
    hopeless: bool,
}

impl Elastic {
    pub(super) fn new(slots: Slots) -> Elastic {
        Elastic {
            slots,
            own: slots,
            asking: None,
            asked_unwatched: BTreeSet::new(),
            idle_look: Tick(0),
            not_before: Tick(0),
            delay: RETRY.0,
            failures: 0,
            reason: None,
            unfit: BTreeMap::new(),
            next_sequence: 1,
            hopeless: false,
        }
    }

    /// From now on the program asks for itself.
    pub(super) fn by_hand(&mut self) {
        self.slots = Slots::ByHand;
        self.own = Slots::ByHand;
        self.hopeless = false;
    }

    pub(super) fn slots(&self) -> Slots {
        self.slots
    }

    /// The program is to have this size. Whether it asks for its slots by itself.
    pub(super) fn bind(&mut self, now: Tick, size: Size, target: u32) -> bool {
        let Slots::Auto { min, max, .. } = &mut self.slots else { return true };
        match size {
            Size::More(_) => (*min, *max) = (target, target.max(*max)),
            Size::Fewer(_) => (*min, *max) = (target.min(*min), target),
            Size::Exactly(_) | Size::Own => (*min, *max) = (target, target),
        }
        self.ask_again(now);
        false
    }

    /// It may have any size again that it was opened with.
    pub(super) fn unbind(&mut self, now: Tick) {
        self.slots = self.own;
        self.ask_again(now);
    }

    /// Something has changed for the better.
    pub(super) fn ask_again(&mut self, now: Tick) {
        self.not_before = now;
        self.delay = RETRY.0;
        self.hopeless = false;
    }

    /// A call was answered: the program runs somewhere.
    pub(super) fn works(&mut self) {
        self.failures = 0;
    }

    /// The program runs on `node`.
    pub(super) fn lease_works(&mut self, node: &str) {
        self.unfit.remove(node);
    }

    pub(super) fn lease_failed(&mut self, now: Tick, node: &str, end: &LeaseEnd, text: &str) {
        if let LeaseEnd::CannotRun(why) = end {
            if self.unfit.len() < UNFIT_MAX || self.unfit.contains_key(node) {
                let note = Note { node: node.to_owned(), hindrance: Hindrance::Unfit(why.clone()) };
                self.unfit.insert(node.to_owned(), note);
            }
            self.failures += 1;
            self.reason = Some(text.to_owned());
            self.put_off(now);
        }
    }

    fn put_off(&mut self, now: Tick) {
        self.not_before = now + self.delay;
        self.delay = (self.delay * 2).min(RETRY.1);
    }
}

impl Core {
    /// Sends a request; its number.
    pub(super) fn ask_for(&mut self, request: &Request) -> u32 {
        let sequence = self.elastic.next_sequence;
        self.elastic.next_sequence += 1;
        let message = LocalMessage::from(Allocate {
            sequence,
            want: request.want(),
            at_least: request.at_least,
            workers: request.workers,
            wait: request.wait,
        });
        if self.link.is_up() {
            message.put(self.link.socket.out());
        }
        self.requests.insert(sequence, Pending { answer: Granted::default(), done: false, message });
        sequence
    }

    /// The last part of an answer is here.
    pub(super) fn request_answered(&mut self, now: Tick, sequence: u32) {
        let Some(request) = self.requests.get(&sequence) else { return };
        self.notes = request.answer.notes.clone();
        if self.elastic.asked_unwatched.remove(&sequence) {
            self.requests.remove(&sequence);
            return;
        }
        if self.elastic.asking != Some(sequence) {
            return; // Whoever waits for it takes it.
        }
        let Some(Pending { answer, .. }) = self.requests.remove(&sequence) else { return };
        self.elastic.asking = None;
        if answer.leases.is_empty() {
            // Free slots that nobody grants, and nobody who might yet: asking again brings nothing.
            let refused = |note: &Note| {
                !matches!(
                    note.hindrance,
                    Hindrance::AwaitsApproval | Hindrance::Busy(_) | Hindrance::ComesBack { .. }
                )
            };
            self.elastic.hopeless =
                answer.free_hint > 0 && !answer.notes.is_empty() && answer.notes.iter().all(refused);
            self.elastic.put_off(now);
        } else {
            self.elastic.not_before = now + RETRY.0;
            self.elastic.delay = RETRY.0;
        }
    }

    /// Asks, gives back or gives up, as things are.
    pub(super) fn mind_slots(&mut self, now: Tick) {
        if !self.link.is_up() || self.link.welcome.is_none() {
            return;
        }
        let backlog = self.hold.backlog();
        let Tally { working, starting, .. } = self.tally();
        let Slots::Auto { min, max, idle } = self.elastic.slots else {
            let asking = self.requests.values().any(|request| !request.done);
            if backlog.waiting > 0 && working == 0 && !asking {
                self.tell(now, Input::NoMoreLeases);
            }
            return;
        };
        if backlog.waiting == 0 && working > min && self.elastic.idle_look <= now {
            self.give_back_idle(now, working - min, idle);
        }
        if working == 0
            && backlog.waiting > 0
            && (self.elastic.hopeless || self.elastic.failures >= FAILURES_MAX)
        {
            return self.tell(now, Input::NoMoreLeases);
        }
        if self.elastic.asking.is_some() || now < self.elastic.not_before {
            return;
        }
        let wanted = min.saturating_sub(working).max(wanted_for(&backlog, working, starting, now));
        let count = wanted.min(max.saturating_sub(working));
        if count > 0 && self.link.offers() {
            let sequence = self.ask_for(&Request::slots(count));
            self.elastic.asking = Some(sequence);
        }
    }

    /// Gives back at most so many leases that have had nothing to do for a while, the longest idle first; finds
    /// out when to look next.
    fn give_back_idle(&mut self, now: Tick, most: u32, idle: Duration) {
        let staying = self.leases.iter().filter(|(_, lease)| lease.works && !lease.leaving);
        let mut resting: Vec<(Tick, Handle)> = staying
            .filter(|(handle, lease)| !lease.is_starting() && self.hold.is_idle(**handle))
            .map(|(handle, lease)| (lease.used + idle, *handle))
            .collect();
        resting.sort_unstable();
        let due = resting.iter().take(most as usize).take_while(|(due, _)| *due <= now).count();
        let next = resting.get(due).map_or(now + idle, |(due, _)| *due);
        self.elastic.idle_look = next.max(now + IDLE_LOOK);
        let handles: Vec<Handle> = resting.into_iter().take(due).map(|(_, handle)| handle).collect();
        if !handles.is_empty() {
            self.give_back(now, &handles);
        }
    }

    /// When [`mind_slots`](Self::mind_slots) has something to do although nothing has happened.
    pub(super) fn slots_deadline(&mut self) -> Option<Tick> {
        let Slots::Auto { min, max, .. } = self.elastic.slots else { return None };
        if !self.link.is_up() {
            return None;
        }
        let Tally { working, .. } = self.tally();
        let backlog = self.hold.backlog();
        let looks = (backlog.waiting == 0 && working > min).then_some(self.elastic.idle_look);
        let may_ask = self.elastic.asking.is_none() && working < max;
        let again = Some(self.elastic.not_before).filter(|_| backlog.waiting > 0 || working < min);
        let late = backlog.waiting_since.map(|since| since + PATIENCE);
        let asks = [again, late].into_iter().flatten().filter(|at| may_ask && *at > now()).min();
        looks.into_iter().chain(asks).min()
    }

    /// What stood in the way at the last request, and of leases granted since.
    pub(super) fn all_notes(&self) -> Vec<Note> {
        let known = |node: &str| self.notes.iter().any(|note| note.node == node);
        let unfit = self.elastic.unfit.values().filter(|note| !known(&note.node));
        self.notes.iter().chain(unfit).cloned().collect()
    }

    /// Why a call finds nothing to run on, for people.
    pub(super) fn why_no_slots(&self) -> String {
        let mut text = match self.elastic.slots {
            Slots::ByHand => "no slots are held; allocate some before you call".to_owned(),
            Slots::Auto { .. } => "no node of the pool can run it".to_owned(),
        };
        let notes: Vec<String> = self.notes.iter().take(5).map(note_text).collect();
        for reason in self.elastic.reason.iter().chain(&notes) {
            text += "; ";
            text += reason;
        }
        text
    }
}

/// How many more slots the calls that wait are worth, with so many at work, some of which are starting.
fn wanted_for(backlog: &Backlog, working: u32, starting: u32, now: Tick) -> u32 {
    // No other slot would help those bound to one.
    let free = u32::try_from(backlog.waiting - backlog.bound).unwrap_or(u32::MAX);
    if free == 0 {
        return 0;
    }
    let each_us = backlog.waiting_us / u64::from(working.max(1));
    let short = each_us < WORTH_ASKING.as_micros() as u64;
    let late = backlog.waiting_since.is_some_and(|since| since + PATIENCE <= now);
    if working > 0 && short && !late {
        return 0;
    }
    // Slots that are being started take calls as well.
    let unserved = free.saturating_sub(starting);
    if backlog.waiting_us == 0 {
        // Nobody knows how long they take: as long as they like.
        return unserved;
    }
    let worth = backlog.waiting_us.div_ceil(WORTH_A_SLOT.as_micros() as u64);
    let worth = u32::try_from(worth).unwrap_or(u32::MAX).saturating_sub(starting);
    // One more is enough for short ones that a longer one holds up.
    unserved.min(worth.max(u32::from(late && starting == 0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backlog(waiting: usize, waiting_us: u64) -> Backlog {
        Backlog { waiting, waiting_us, waiting_since: Some(Tick(1_000_000)), ..Backlog::default() }
    }

    #[test]
    fn slots_are_asked_for_by_how_much_waits() {
        let at_once = Tick(1_000_000);
        let later = at_once + 2 * PATIENCE;
        let wanted = |backlog, working, starting, now| wanted_for(&backlog, working, starting, now);
        assert_eq!(wanted(backlog(0, 0), 0, 0, later), 0);
        assert_eq!(wanted(backlog(7, 0), 0, 0, at_once), 7, "of unknown length: a slot each");
        assert_eq!(wanted(backlog(7, 0), 3, 0, at_once), 0, "they may be short");
        assert_eq!(wanted(backlog(7, 0), 3, 0, later), 7);
        assert_eq!(wanted(backlog(7, 0), 5, 2, later), 5, "two are on their way");
        assert_eq!(wanted(backlog(100, 1_000), 1, 0, at_once), 0, "a millisecond of work");
        assert_eq!(wanted(backlog(100, 1_000), 1, 0, later), 1, "which something longer holds up");
        assert_eq!(wanted(backlog(100, 1_000), 2, 1, later), 0, "and the next slot will do");
        assert_eq!(wanted(backlog(10, 10_000_000), 1, 0, at_once), 10, "a second each");
        assert_eq!(wanted(backlog(1_000, 1_000_000), 1, 0, at_once), 100, "a millisecond each");
        assert_eq!(wanted(backlog(1_000, 1_000_000), 60, 60, at_once), 40);
        assert_eq!(wanted(Backlog { bound: 7, ..backlog(7, 0) }, 1, 0, later), 0);
    }

    #[test]
    fn orders_become_limits_until_they_are_taken_back() {
        let own = Slots::Auto { min: 1, max: 8, idle: Duration::from_secs(3) };
        let mut elastic = Elastic::new(own);
        let limits = |elastic: &Elastic| match elastic.slots() {
            Slots::Auto { min, max, .. } => (min, max),
            Slots::ByHand => panic!("it minds its slots itself"),
        };
        let now = Tick(5);
        assert!(!elastic.bind(now, Size::More(4), 10));
        assert_eq!(limits(&elastic), (10, 10));
        elastic.bind(now, Size::Fewer(7), 3);
        assert_eq!(limits(&elastic), (3, 3));
        elastic.unbind(now);
        elastic.bind(now, Size::Fewer(1), 5);
        assert_eq!(limits(&elastic), (1, 5));
        elastic.bind(now, Size::Exactly(2), 2);
        assert_eq!(limits(&elastic), (2, 2));
        elastic.unbind(now);
        assert_eq!(elastic.slots(), own);
        elastic.by_hand();
        assert!(elastic.bind(now, Size::More(1), 1), "then somebody else has to ask");
    }
}
