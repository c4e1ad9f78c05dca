//! Where the results of many calls meet one thread that takes them as they come.

use super::call::Finished;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

/// Finished calls, in the order they finished.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    finished: VecDeque<Finished>,
    waker: Option<Waker>,
}

impl Inbox {
    pub(super) fn put(&self, finished: Finished) {
        let waker = {
            let mut state = self.lock();
            state.finished.push_back(finished);
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(crate) fn take(&self) -> Option<Finished> {
        self.lock().finished.pop_front()
    }

    pub(super) fn has_some(&self) -> bool {
        !self.lock().finished.is_empty()
    }

    /// Wakes `waker` when something is there, at once if it is already.
    pub(super) fn watch(&self, waker: &Waker) {
        let mut state = self.lock();
        if state.finished.is_empty() {
            state.waker = Some(waker.clone());
        } else {
            waker.wake_by_ref();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
