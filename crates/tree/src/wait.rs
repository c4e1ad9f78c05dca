//! Requests of this node's applications that may wait, from the first search to the answer.

use crate::core::{Core, Timer};
use crate::io::{Output, Table};
use crate::keep::waiting_name;
use core::time::Duration;
use mutirao_wire::limits::WANT_MAX;
use mutirao_wire::node::{Asker, Grant, Note, Want};
use mutirao_wire::wait::{Present, Turn, Wait, WaitEnd};
use mutirao_wire::{AppId, RequestId, Tick};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Slot-seconds that a slot counts for if its lease has no limit.
const UNLIMITED_S: u32 = 600;
/// First and longest pause after a search in vain although enough was kept.
const AGAIN: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(2));
/// Attempts of one request are told apart above the bits that its application uses.
pub(crate) const ATTEMPT_SHIFT: u32 = 16;

/// The requests that wait and are at home here.
#[derive(Default)]
pub(crate) struct Waits {
    of: BTreeMap<RequestId, Patient>,
}

/// What an application asked for.
#[derive(Clone)]
pub(crate) struct Asked {
    pub(crate) request: RequestId,
    pub(crate) want: Want,
    pub(crate) at_least: u32,
    pub(crate) asker: Arc<Asker>,
    pub(crate) budget: Duration,
}

/// One of them.
struct Patient {
    asked: Asked,
    wait: Wait,
    born_unix_ms: u64,
    since: Tick,
    until: Option<Tick>,
    /// The search under way.
    searching: Option<RequestId>,
    /// Enough is kept for it, says the arbiter.
    now: bool,
    /// Searches in vain since then, and when the next one may begin.
    failures: u32,
    not_before: Tick,
    attempts: u32,
    /// What stood in the way at the last search.
    notes: Vec<Note>,
    found: u32,
}

impl Core {
    /// The requests at home here that wait for their turn, by the names under which they wait.
    pub fn waiting(&self) -> impl Iterator<Item = RequestId> {
        self.waits.of.iter().filter(|(_, patient)| patient.attempts > 0).map(|(name, _)| *name)
    }

    /// Remembers a request before it is searched for; `false` if too many wait.
    pub(crate) fn wait_begin(
        &mut self,
        asked: &Asked,
        (wait, born_unix_ms): (Wait, u64),
        out: &mut Vec<Output>,
    ) -> bool {
        let request = asked.request;
        if self.waits.of.len() >= self.settings.waits_max {
            out.push(Output::Full(Table::Queue));
            return false;
        }
        let until = wait.patience_ms.map(|ms| self.now + Duration::from_millis(ms));
        if let Some(until) = until {
            self.arm(until, Timer::Wait(waiting_name(request)));
        }
        self.waits.of.insert(
            waiting_name(request),
            Patient {
                asked: asked.clone(),
                wait,
                born_unix_ms,
                since: self.now,
                until,
                searching: Some(request),
                now: false,
                failures: 0,
                not_before: self.now,
                attempts: 0,
                notes: Vec::new(),
                found: 0,
            },
        );
        true
    }

    /// Whether that request waits here.
    pub(crate) fn waits_for(&self, request: RequestId) -> bool {
        self.waits.of.contains_key(&waiting_name(request))
    }

    /// The name its application gave to the request that this search is an attempt of, if it waits.
    pub(crate) fn waits_by(&self, search: RequestId) -> Option<RequestId> {
        let patient = self.waits.of.get(&waiting_name(search))?;
        (patient.searching == Some(search)).then_some(patient.asked.request)
    }

    /// A search brought too little; what it brought is handed back. The request goes on waiting.
    pub(crate) fn wait_goes_on(
        &mut self,
        search: RequestId,
        found: u32,
        notes: Vec<Note>,
        out: &mut Vec<Output>,
    ) {
        let (name, now) = (waiting_name(search), self.now);
        let Some(patient) = self.waits.of.get_mut(&name) else { return };
        patient.searching = None;
        patient.notes = notes;
        patient.found = found;
        if patient.attempts > 0 {
            let pause = (AGAIN.0 * (1 << patient.failures.min(10))).min(AGAIN.1);
            patient.failures += 1;
            patient.not_before = now + pause;
            self.arm(now + pause, Timer::Wait(name));
            return;
        }
        let present = Present {
            request: name,
            want: patient.asked.want.clone(),
            need: patient.asked.at_least.clamp(1, WANT_MAX),
            asker: (*patient.asked.asker).clone(),
            priority: patient.wait.priority,
            born_unix_ms: patient.born_unix_ms,
            waited_ms: (now - patient.since).as_millis() as u64,
        };
        patient.attempts = 1;
        self.present(None, present, out);
    }

    /// The request is served.
    pub(crate) fn wait_served(&mut self, search: RequestId, grants: &[Grant], out: &mut Vec<Output>) {
        let name = waiting_name(search);
        let Some(patient) = self.waits.of.remove(&name) else { return };
        let each_s = patient.asked.want.bundle.limit_s.unwrap_or(UNLIMITED_S);
        let slots: u64 = grants.iter().map(|grant| u64::from(grant.slots)).sum();
        self.forget_waiting(name, slots * u64::from(each_s), out);
    }

    /// The arbiter has spoken.
    pub(crate) fn my_turn(&mut self, name: RequestId, turn: Turn, out: &mut Vec<Output>) {
        let Some(patient) = self.waits.of.get_mut(&name) else { return };
        match turn {
            Turn::Now => {
                patient.now = true;
                patient.failures = 0;
                self.wait_search(name, out);
            }
            Turn::Later => patient.now = false,
            Turn::Over(end) => self.wait_over(name, Some(end), out),
        }
    }

    /// Searches again, if it is time to.
    fn wait_search(&mut self, name: RequestId, out: &mut Vec<Output>) {
        let now = self.now;
        let Some(patient) = self.waits.of.get_mut(&name) else { return };
        if !patient.now || patient.searching.is_some() || patient.not_before > now {
            return;
        }
        let first = patient.asked.request;
        let attempt = first.attempt.wrapping_add(patient.attempts << ATTEMPT_SHIFT);
        let search = RequestId { attempt, ..first };
        patient.attempts += 1;
        patient.searching = Some(search);
        let asked = Asked { request: search, ..patient.asked.clone() };
        if !self.search(asked, out) {
            self.wait_goes_on(search, 0, Vec::new(), out);
        }
    }

    /// The request ends without slots; `None`: nobody wants to know.
    fn wait_over(&mut self, name: RequestId, end: Option<WaitEnd>, out: &mut Vec<Output>) {
        let Some(patient) = self.waits.of.remove(&name) else { return };
        self.forget_waiting(name, 0, out);
        if let Some(search) = patient.searching {
            self.cancel_search(search, out);
        }
        if end.is_some() {
            let (request, grants, free_hint) =
                (patient.asked.request, Vec::new(), self.summarise().slots_free);
            let (notes, found) = (patient.notes, patient.found);
            out.push(Output::Found { request, grants, notes, found, free_hint, waited: end });
        }
    }

    /// The application waits no longer; `false` if that request does not wait here.
    pub(crate) fn wait_cancelled(&mut self, request: RequestId, out: &mut Vec<Output>) -> bool {
        let waits = self.waits_for(request);
        self.wait_over(waiting_name(request), None, out);
        waits
    }

    pub(crate) fn waits_of_cancelled(&mut self, app: AppId, out: &mut Vec<Output>) {
        let theirs: Vec<RequestId> = self.waits.of.keys().filter(|name| name.app == app).copied().collect();
        for name in theirs {
            self.wait_over(name, None, out);
        }
    }

    pub(crate) fn wait_time(&mut self, name: RequestId, out: &mut Vec<Output>) {
        let over = |patient: &Patient| patient.until.is_some_and(|until| until <= self.now);
        if self.waits.of.get(&name).is_some_and(over) {
            self.wait_over(name, Some(WaitEnd::Patience), out);
        } else {
            self.wait_search(name, out);
        }
    }
}
