//! A second search, for whoever does not wait and would be refused.
//!
//! News travels: a node that has just joined, or a slot that has just come free, is not known yet where a search
//! turns. So a search that found too little hands back what it found, and after the time that news takes to climb
//! another one begins. Only what that one finds is told.

use crate::core::{Core, Timer};
use crate::io::Output;
use crate::wait::{ATTEMPT_SHIFT, Asked};
use core::time::Duration;
use mutirao_wire::{AppId, RequestId};
use std::collections::BTreeMap;

/// The requests at home here that are searched for, or soon will be, a second time; by their names.
#[derive(Default)]
pub(crate) struct Again {
    of: BTreeMap<RequestId, Second>,
}

struct Second {
    asked: Asked,
    searching: bool,
}

impl Again {
    /// See [`Core::rest`].
    pub(crate) fn rest(&mut self) {
        if self.of.is_empty() {
            self.of = BTreeMap::new();
        }
    }
}

/// The name of the second search.
fn second(request: RequestId) -> RequestId {
    RequestId { attempt: request.attempt.wrapping_add(1 << ATTEMPT_SHIFT), ..request }
}

/// The name of the request that a second search is for.
fn first(search: RequestId) -> RequestId {
    RequestId { attempt: search.attempt.wrapping_sub(1 << ATTEMPT_SHIFT), ..search }
}

impl Core {
    /// Plans a second search; `false` if this was the second, or no time is left for one.
    pub(crate) fn search_again(&mut self, asked: Asked) -> bool {
        let request = asked.request;
        let pause = self.news_takes();
        let known = self.again.of.contains_key(&request) || self.again.of.contains_key(&first(request));
        if known || asked.budget < pause * 2 || self.again.of.len() >= self.settings.searches_max {
            return false;
        }
        let asked = Asked { budget: asked.budget - pause, ..asked };
        self.again.of.insert(request, Second { asked, searching: false });
        self.arm(self.now + pause, Timer::Again(request));
        true
    }

    /// By when what has changed in the tree is known along the way of a search.
    fn news_takes(&self) -> Duration {
        let levels = self.place.above.levels() + u32::from(self.summarise().depth);
        self.settings.settle + self.settings.coalesce * 2 * levels
    }

    pub(crate) fn again_time(&mut self, request: RequestId, out: &mut Vec<Output>) {
        let Some(planned) = self.again.of.get_mut(&request).filter(|planned| !planned.searching) else {
            return;
        };
        planned.searching = true;
        let asked = Asked { request: second(request), ..planned.asked.clone() };
        if !self.search(asked, out) {
            self.again.of.remove(&request);
            self.found(request, Vec::new(), Vec::new(), out);
        }
    }

    /// Whether that request is searched for a second time, now or soon.
    pub(crate) fn is_sought_again(&self, request: RequestId) -> bool {
        self.again.of.contains_key(&request)
    }

    /// A second search is over: the name of its request.
    pub(crate) fn again_over(&mut self, search: RequestId) -> Option<RequestId> {
        let request = first(search);
        self.again.of.remove(&request).map(|_| request)
    }

    /// The application does not want it any more; `false` if that request is not sought again.
    pub(crate) fn again_cancelled(&mut self, request: RequestId, out: &mut Vec<Output>) -> bool {
        let Some(planned) = self.again.of.remove(&request) else { return false };
        if planned.searching {
            self.cancel_search(second(request), out);
        }
        true
    }

    pub(crate) fn agains_of_cancelled(&mut self, app: AppId, out: &mut Vec<Output>) {
        let theirs: Vec<RequestId> = self.again.of.keys().filter(|name| name.app == app).copied().collect();
        for name in theirs {
            self.again_cancelled(name, out);
        }
    }
}
