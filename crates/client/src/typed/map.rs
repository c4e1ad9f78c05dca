//! One function, many arguments.

use super::function::Function;
use super::pool::{decode, encode};
use crate::Error;
use crate::pool::{CallOptions, CallResult, Inbox};
use crate::raw::{self, Finished};
use std::collections::{BTreeMap, HashMap};
use std::marker::PhantomData;
use std::sync::Arc;

/// Calls under way and results not yet taken, at most;
const CALLS_MAX: usize = 1024;
/// and bytes of arguments under way.
const BYTES_MAX: usize = 64 * 1024 * 1024;

/// The results of a [`Pool::map`](crate::Pool::map), as they finish. Dropping it cancels what is under way.
#[must_use = "a map calls nothing until its results are asked for"]
pub struct Map<M, F: Function<M>, I> {
    work: Work<M, F, I>,
}

/// The results of a map in the order of its arguments.
#[must_use = "a map calls nothing until its results are asked for"]
pub struct InOrder<M, F: Function<M>, I> {
    work: Work<M, F, I>,
    /// The number of the next result to give.
    next: u64,
    /// Results of later ones.
    early: BTreeMap<u64, Result<F::Output, Error>>,
}

struct Work<M, F, I> {
    pool: raw::Pool,
    operation: Result<u32, Option<Error>>,
    /// `None` when it has come to its end.
    arguments: Option<I>,
    inbox: Arc<Inbox>,
    /// By number: the call, and the bytes of its argument.
    under_way: HashMap<u64, (raw::Call, usize)>,
    bytes: usize,
    submitted: u64,
    function: PhantomData<fn() -> (M, F)>,
}

impl<M, F: Function<M>, I: Iterator<Item = F::Argument>> Map<M, F, I> {
    pub(super) fn new(pool: raw::Pool, operation: Result<u32, Error>, arguments: I) -> Self {
        Map {
            work: Work {
                pool,
                operation: operation.map_err(Some),
                arguments: Some(arguments),
                inbox: Arc::default(),
                under_way: HashMap::new(),
                bytes: 0,
                submitted: 0,
                function: PhantomData,
            },
        }
    }

    /// The same results in the order of the arguments. Up to a thousand of them may wait for an earlier one.
    pub fn in_order(self) -> InOrder<M, F, I> {
        InOrder { work: self.work, next: 0, early: BTreeMap::new() }
    }
}

impl<M, F: Function<M>, I: Iterator<Item = F::Argument>> Work<M, F, I> {
    /// The next result to finish, with its number; no more than `calls_max` calls are under way meanwhile.
    fn next(&mut self, calls_max: usize) -> Option<(u64, Result<F::Output, Error>)> {
        let operation = match &mut self.operation {
            Ok(operation) => *operation,
            // Told once; then the map is at its end.
            Err(error) => return error.take().map(|error| (0, Err(error))),
        };
        while self.under_way.len() < calls_max && self.bytes < BYTES_MAX {
            let Some(argument) = self.arguments.as_mut().and_then(Iterator::next) else {
                self.arguments = None;
                break;
            };
            let number = self.submitted;
            self.submitted += 1;
            if let Err(error) = self.submit(operation, number, &argument) {
                return Some((number, Err(error)));
            }
        }
        if self.under_way.is_empty() {
            return None;
        }
        let Finished { tag, result, .. } = self.pool.next_of(&self.inbox);
        Some((tag, self.finished(tag, result)))
    }

    fn submit(&mut self, operation: u32, number: u64, argument: &F::Argument) -> Result<(), Error> {
        let argument = encode::<F, _>(argument)?;
        let bytes = argument.len();
        let options = CallOptions { tag: number, ..CallOptions::default() };
        let call = self.pool.submit_to(&self.inbox, operation, argument, options)?;
        self.under_way.insert(number, (call, bytes));
        self.bytes += bytes;
        Ok(())
    }

    fn finished(&mut self, number: u64, result: CallResult) -> Result<F::Output, Error> {
        if let Some((_, bytes)) = self.under_way.remove(&number) {
            self.bytes -= bytes;
        }
        decode(result)
    }
}

impl<M, F, I> Drop for Work<M, F, I> {
    fn drop(&mut self) {
        self.under_way.values().for_each(|(call, _)| call.cancel());
    }
}

impl<M, F: Function<M>, I: Iterator<Item = F::Argument>> Iterator for Map<M, F, I> {
    type Item = Result<F::Output, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.work.next(CALLS_MAX).map(|(_, result)| result)
    }
}

impl<M, F: Function<M>, I: Iterator<Item = F::Argument>> Iterator for InOrder<M, F, I> {
    type Item = Result<F::Output, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(result) = self.early.remove(&self.next) {
                self.next += 1;
                return Some(result);
            }
            // What is early counts too, or a slow first call would let the rest pile up.
            let (number, result) = self.work.next(CALLS_MAX.saturating_sub(self.early.len()).max(1))?;
            self.early.insert(number, result);
        }
    }
}

impl<M, F: Function<M>, I> std::fmt::Debug for Map<M, F, I> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Map").field("submitted", &self.work.submitted).finish_non_exhaustive()
    }
}

impl<M, F: Function<M>, I> std::fmt::Debug for InOrder<M, F, I> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InOrder").field("next", &self.next).finish_non_exhaustive()
    }
}
