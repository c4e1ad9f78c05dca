//! Bags of tasks: calls that finish whatever happens.
//!
//! A bag has a keeper, a process of its own that leases slots, runs the tasks there and writes everything into a
//! journal: a node that is lost, or a worker that dies, costs no more than what ran there.
//!
//! ```standalone_crate
//! #[mutirao::operation]
//! fn square(x: u64) -> u64 {
//!     x * x
//! }
//!
//! fn main() -> Result<(), mutirao::Error> {
//!     mutirao::init();
//!     let mut bag = mutirao::bag::Bag::of(square)?;
//!     for x in 0..100 {
//!         bag.push(x)?;
//!     }
//!     let mut sum = 0;
//!     while let Some(ended) = bag.next_end()? {
//!         sum += ended.result?;
//!     }
//!     assert_eq!(sum, 328350);
//!     Ok(())
//! }
//! ```
//!
//! A bag is its program's: it ends, and nothing is left of it, when the program lets go of it or dies. With
//! [`Options::lives_on`] it goes on without the program, which can open it again by its [number](Bag::number), and
//! `mutirao bag show`, `wait` and `cancel` know it.
//!
//! Results that nobody asks for lie on the keeper's disk: memory stays bounded however many tasks there are.

mod raw;

pub use raw::{Bag as RawBag, Ended as RawEnded};

use crate::Error;
use crate::operation;
use crate::typed::{Function, decode_result, encode_argument, index_of};
use std::marker::PhantomData;
use std::path::PathBuf;
use std::time::Duration;

/// How a bag is made.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Its name, for people.
    pub name: Option<String>,
    /// It goes on when the program ends, and stays when it is over.
    pub lives_on: bool,
    /// Most slots held at once; 1024 unless said.
    pub slots_max: Option<u32>,
    /// How often a task that failed is tried again.
    pub retries: u32,
    /// Longest run of an attempt.
    pub limit: Option<Duration>,
    /// Tasks may [save state](crate::checkpoint) for their next attempt.
    pub saves_state: bool,
    /// Shared objects that travel with the program, as in [`crate::Options`].
    pub libraries: Vec<PathBuf>,
}

/// A bag of calls of one function.
pub struct Bag<M, F: Function<M>> {
    raw: RawBag,
    operation: &'static str,
    function: PhantomData<fn() -> (M, F)>,
}

/// A task that has come to its end.
#[derive(Debug)]
pub struct Ended<R> {
    /// Its number, as [`Bag::push`] has given it.
    pub task: u64,
    /// What the function returned, or why there is no result.
    pub result: Result<R, Error>,
}

impl<M, F: Function<M>> Bag<M, F> {
    /// Makes a bag of calls of this function, which has the attribute [`operation`](macro@crate::operation).
    pub fn of(function: F) -> Result<Bag<M, F>, Error> {
        Bag::with(function, &Options::default())
    }

    /// The same, with options.
    pub fn with(function: F, options: &Options) -> Result<Bag<M, F>, Error> {
        let operation = name_of(&function)?;
        Ok(Bag { raw: RawBag::open(options)?, operation, function: PhantomData })
    }

    /// Opens a bag of this function that lives on, on the machine where it was made. All that has ended is told again,
    /// and more can be pushed. Whoever had it open before has it no more.
    pub fn attach(function: F, number: u32) -> Result<Bag<M, F>, Error> {
        let operation = name_of(&function)?;
        Ok(Bag { raw: RawBag::attach(number)?, operation, function: PhantomData })
    }

    /// The bag's number, by which `mutirao bag` knows it.
    pub fn number(&self) -> u32 {
        self.raw.number()
    }

    /// Pushes a call; its number. Arguments are small: encoded, at most 32 KiB in any case.
    pub fn push(&mut self, argument: F::Argument) -> Result<u64, Error> {
        let argument = encode_argument::<F, _>(&argument)?;
        self.raw.push(self.operation, &argument)
    }

    /// Waits for the next end; nothing when all that was pushed has ended. More may be pushed meanwhile, and after.
    pub fn next_end(&mut self) -> Result<Option<Ended<F::Output>>, Error> {
        let ended = self.raw.next_end()?;
        Ok(ended.map(|RawEnded { task, result }| Ended { task, result: decode_result(result) }))
    }

    /// The ends of all that was pushed, as a stream.
    pub fn results(&mut self) -> Results<'_, M, F> {
        Results { bag: Some(self) }
    }

    /// Lets what has not ended not be done: it ends as cancelled.
    pub fn cancel(&mut self) -> Result<(), Error> {
        self.raw.cancel()
    }
}

impl<M, F: Function<M>> std::fmt::Debug for Bag<M, F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bag").field("raw", &self.raw).field("operation", &self.operation).finish()
    }
}

/// The ends of a bag's tasks. At its end when all that was pushed has ended, or the keeper has.
#[derive(Debug)]
pub struct Results<'a, M, F: Function<M>> {
    bag: Option<&'a mut Bag<M, F>>,
}

impl<M, F: Function<M>> Iterator for Results<'_, M, F> {
    type Item = Result<Ended<F::Output>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.bag.as_mut()?.next_end().transpose();
        if matches!(next, Some(Err(_))) {
            self.bag = None;
        }
        next
    }
}

fn name_of<F: 'static>(function: &F) -> Result<&'static str, Error> {
    let index = index_of(function)? as usize;
    let entry = operation::table().and_then(|table| table.get(index)).ok_or(Error::NotInitialised)?;
    Ok(&entry.name)
}
