//! Asks for slots when calls wait, and gives them back when there is nothing to do.

use super::core::{Core, Granted, Pending, now};
use super::options::{LeaseState, Request, Slots, note_text};
use mutirao_schedule::hold::Input;
use mutirao_wire::lease::LeaseEnd;
use mutirao_wire::local::{Allocate, LocalMessage};
use mutirao_wire::node::{Hindrance, Note};
use mutirao_wire::{Handle, Tick};
use std::collections::BTreeMap;
use std::time::Duration;

/// Work that waits for less than this, shared among the leases held, is no reason to ask for more.
const WORTH_ASKING: Duration = Duration::from_millis(2);
/// A call that waits longer is one, however short it may be: what it waits for may run for ever.
const PATIENCE: Duration = Duration::from_millis(5);
/// First and longest wait before asking again when not all was granted.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(2));
/// Leases without work are kept for so long.
const IDLE: Duration = Duration::from_secs(3);
/// After so many leases that could not run the program, with none that could, it is given up.
const FAILURES_MAX: u32 = 8;
/// Nodes remembered that granted a lease and then could not run the program.
const UNFIT_MAX: usize = 64;

/// How slots come without the program's asking.
#[derive(Debug)]
pub(super) struct Elastic {
    slots: Slots,
    /// The request under way.
    asking: Option<u32>,
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
            asking: None,
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
        self.hopeless = false;
    }

    /// Something has changed for the better.
    pub(super) fn ask_again(&mut self, now: Tick) {
        self.not_before = now;
        self.delay = RETRY.0;
        self.hopeless = false;
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
        if self.elastic.asking != Some(sequence) {
            return; // Whoever waits for it takes it.
        }
        let Some(Pending { answer, .. }) = self.requests.remove(&sequence) else { return };
        self.elastic.asking = None;
        if answer.leases.is_empty() {
            // Free slots that nobody grants, and nobody who might yet: asking again brings nothing.
            let refused =
                |note: &Note| !matches!(note.hindrance, Hindrance::AwaitsApproval | Hindrance::Busy(_));
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
        let workers = || self.leases.values().filter(|lease| lease.works);
        let held = workers().count();
        match self.elastic.slots {
            Slots::ByHand => {
                let asking = self.requests.values().any(|request| !request.done);
                if backlog.waiting > 0 && held == 0 && !asking {
                    self.tell(now, Input::NoMoreLeases);
                }
            }
            Slots::Auto { max } => {
                if backlog.waiting == 0 {
                    if held > 0 && self.unfinished() == 0 && now >= self.last_done + IDLE {
                        let handles: Vec<Handle> = self.leases.keys().copied().collect();
                        self.give_back(now, &handles);
                    }
                    return;
                }
                if workers().any(|lease| lease.finished > 0) {
                    self.elastic.failures = 0;
                }
                if held == 0 && (self.elastic.hopeless || self.elastic.failures >= FAILURES_MAX) {
                    return self.tell(now, Input::NoMoreLeases);
                }
                let starting =
                    workers().any(|lease| matches!(lease.state, LeaseState::Granted | LeaseState::Fetching));
                let each_us = backlog.waiting_us / (held.max(1) as u64);
                let short = each_us < WORTH_ASKING.as_micros() as u64;
                let late = backlog.waiting_since.is_some_and(|since| since + PATIENCE <= now);
                let enough = held > 0 && (starting || (short && !late));
                if enough || self.elastic.asking.is_some() || now < self.elastic.not_before {
                    return;
                }
                // One more is enough for short ones, if that is known of them.
                let few = short && backlog.waiting_us > 0 && held > 0;
                // No other slot would help those bound to one.
                let free = u32::try_from(backlog.waiting - backlog.bound).unwrap_or(u32::MAX);
                let count = if few { free.min(1) } else { free };
                let count = count.min(max.saturating_sub(held as u32));
                if count > 0 {
                    let sequence = self.ask_for(&Request::slots(count));
                    self.elastic.asking = Some(sequence);
                }
            }
        }
    }

    /// When [`mind_slots`](Self::mind_slots) has something to do although nothing has happened.
    pub(super) fn slots_deadline(&self) -> Option<Tick> {
        let Slots::Auto { .. } = self.elastic.slots else { return None };
        if !self.link.is_up() {
            return None;
        }
        if self.unfinished() == 0 {
            return (!self.leases.is_empty()).then_some(self.last_done + IDLE);
        }
        let backlog = self.hold.backlog();
        if self.elastic.asking.is_some() || backlog.waiting == 0 {
            return None;
        }
        let times = [Some(self.elastic.not_before), backlog.waiting_since.map(|since| since + PATIENCE)];
        times.into_iter().flatten().filter(|at| *at > now()).min()
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
