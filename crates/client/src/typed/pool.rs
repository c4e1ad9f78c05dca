//! A pool that runs functions.

use super::function::Function;
use super::map::Map;
use super::registry::index_of;
use crate::Error;
use crate::raw::{
    self, Allocation, CallError, CallErrorKind, CallOptions, Lease, LeaseKey, Options, Request,
};
use mutirao_wire::query::NodeRow;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::any::type_name;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

/// A pool that is open. Clones are the same pool; it closes with the last of them and of its calls.
///
/// ```standalone_crate
/// #[mutirao::operation]
/// fn square(x: u64) -> u64 {
///     x * x
/// }
///
/// fn main() -> Result<(), mutirao::Error> {
///     mutirao::init();
///     let pool = mutirao::Pool::open()?;
///     assert_eq!(pool.call(square, 12).wait()?, 144);
///     Ok(())
/// }
/// ```
#[derive(Debug, Clone)]
pub struct Pool {
    raw: raw::Pool,
}

impl Pool {
    /// Connects to this machine's node; where none runs, starts a private one with this machine's cores.
    pub fn open() -> Result<Pool, Error> {
        Pool::open_with(Options::default())
    }

    /// The same, with options.
    pub fn open_with(options: Options) -> Result<Pool, Error> {
        Ok(Pool { raw: raw::Pool::open(options)? })
    }

    /// Calls a function with the attribute [`operation`](macro@crate::operation) somewhere in the pool.
    ///
    /// What comes back is a future for any runtime, and can be waited for without one. A call that could not
    /// even be submitted says so when it is waited for. Dropping it leaves the call to run for nothing;
    /// [`cancel`](Call::cancel) ends it.
    pub fn call<M, F: Function<M>>(&self, function: F, argument: F::Argument) -> Call<F::Output> {
        self.call_with(function, argument, CallOptions::default())
    }

    /// The same, with options; where the result goes ([`CallOptions::deliver`]) is not among them.
    pub fn call_with<M, F: Function<M>>(
        &self,
        function: F,
        argument: F::Argument,
        options: CallOptions,
    ) -> Call<F::Output> {
        let options = CallOptions { deliver: raw::Deliver::Handle, ..options };
        let submit = || {
            let operation = index_of(&function)?;
            self.raw.submit(operation, encode::<F, _>(&argument)?, options)
        };
        Call { state: submit().map_err(Some), output: PhantomData }
    }

    /// Calls a function once for each argument, on all slots at once, and gives the results as they finish;
    /// [`Map::in_order`] gives them in the order of the arguments.
    ///
    /// Arguments are taken from the iterator as results are taken from the map, so that it may be endless.
    ///
    /// ```standalone_crate
    /// #[mutirao::operation(repeatable)]
    /// fn square(x: u64) -> u64 {
    ///     x * x
    /// }
    ///
    /// fn main() -> Result<(), mutirao::Error> {
    ///     mutirao::init();
    ///     let pool = mutirao::Pool::open()?;
    ///     let mut sum = 0;
    ///     for result in pool.map(square, 0..100) {
    ///         sum += result?;
    ///     }
    ///     assert_eq!(sum, 328350);
    ///     let first: Result<Vec<u64>, _> = pool.map(square, 0..).in_order().take(4).collect();
    ///     assert_eq!(first?, [0, 1, 4, 9]);
    ///     Ok(())
    /// }
    /// ```
    pub fn map<M, F, I>(&self, function: F, arguments: I) -> Map<M, F, I::IntoIter>
    where
        F: Function<M>,
        I: IntoIterator<Item = F::Argument>,
    {
        Map::new(self.raw.clone(), index_of(&function), arguments.into_iter())
    }

    /// Asks for `count` slots, and takes what there is. From now on the pool asks for none by itself.
    pub fn allocate(&self, count: u32) -> Result<Allocation, Error> {
        self.raw.allocate(&Request::slots(count))
    }

    /// Asks for what `request` says: cores, memory, resources, labels, a place. From now on the pool asks for no
    /// slots by itself.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), mutirao::Error> {
    /// # let pool = mutirao::Pool::open()?;
    /// use mutirao::Request;
    /// let request = Request::slots(4).cores(2).memory_mib(4096).resource("gpu", 1).label("ssd").below("rack2");
    /// let granted = pool.allocate_with(&request.all_or_none())?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn allocate_with(&self, request: &Request) -> Result<Allocation, Error> {
        self.raw.allocate(request)
    }

    /// Gives leases back; see [`raw::Pool::release`].
    pub fn release(&self, leases: &[LeaseKey]) -> Result<(), Error> {
        self.raw.release(leases)
    }

    /// The leases held now.
    pub fn leases(&self) -> Vec<Lease> {
        self.raw.leases()
    }

    /// The nodes of the pool.
    pub fn nodes(&self) -> Result<Vec<NodeRow>, Error> {
        self.raw.nodes()
    }

    /// Everything else.
    pub fn raw(&self) -> &raw::Pool {
        &self.raw
    }
}

/// A call under way, and the future of its result.
#[derive(Debug)]
#[must_use = "a call does nothing for you until it is waited for"]
pub struct Call<R> {
    /// The call, or why there is none; then `None` once that was told.
    state: Result<raw::Call, Option<Error>>,
    output: PhantomData<fn() -> R>,
}

impl<R: DeserializeOwned> Call<R> {
    /// Waits for the result. Meanwhile this thread does the pool's work.
    pub fn wait(self) -> Result<R, Error> {
        match self.state {
            Ok(mut call) => decode(call.wait()),
            Err(error) => Err(error.unwrap_or(Error::Closed)),
        }
    }

    /// Gives the call up: it ends with [`CallErrorKind::Cancelled`], and its worker is ended if it has begun.
    pub fn cancel(&self) {
        if let Ok(call) = &self.state {
            call.cancel();
        }
    }
}

impl<R: DeserializeOwned> Future for Call<R> {
    type Output = Result<R, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<R, Error>> {
        match &mut self.state {
            Ok(call) => call.poll_result(context).map(decode),
            Err(error) => Poll::Ready(Err(error.take().unwrap_or(Error::Closed))),
        }
    }
}

/// Encodes the argument of function `F`.
pub(crate) fn encode<F, A: Serialize>(argument: &A) -> Result<Vec<u8>, Error> {
    postcard::to_stdvec(argument).map_err(|error| Error::ArgumentEncoding {
        operation: type_name::<F>().to_owned(),
        reason: error.to_string(),
    })
}

pub(crate) fn decode<R: DeserializeOwned>(result: raw::CallResult) -> Result<R, Error> {
    let bytes = result?;
    match postcard::take_from_bytes(&bytes) {
        Ok((value, [])) => Ok(value),
        _ => {
            let text = format!("its result is no {}", type_name::<R>());
            Err(Error::Call(CallError { kind: CallErrorKind::BadResult, text, node: None }))
        }
    }
}
