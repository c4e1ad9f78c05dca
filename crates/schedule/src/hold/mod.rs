//! An application's calls and where they go.

mod types;

pub use types::*;

use mutirao_wire::{CallId, Handle, Tick};

/// The calls and leases of one application.
#[derive(Debug)]
pub struct Hold {}

impl Hold {
    /// Without leases or calls.
    pub fn new(options: Options) -> Hold {
        unimplemented!("{options:?}")
    }

    /// Takes a call, to be sent by a later [`place`](Hold::place), and gives it its name.
    pub fn submit(&mut self, now: Tick, call: Call) -> Result<CallId, Refused> {
        unimplemented!("{now:?} {call:?}")
    }

    /// The last frame of a result came on `handle`: of success, or of failure with a code. True when it is
    /// the call's outcome, to be delivered; false when nobody waits for it (any more): drop it. Either
    /// way a remote lender is owed the acknowledgement.
    #[must_use]
    pub fn result(
        &mut self,
        now: Tick,
        handle: Handle,
        call: CallId,
        failed: Option<u32>,
        out: &mut Vec<Output>,
    ) -> bool {
        unimplemented!("{now:?} {handle:?} {call:?} {failed:?} {out:?}")
    }

    /// Takes in what happened.
    pub fn handle(&mut self, now: Tick, input: Input, out: &mut Vec<Output>) {
        unimplemented!("{now:?} {input:?} {out:?}")
    }

    /// Sends what can be sent. To be called after each batch of inputs, results and submissions: the larger
    /// the batch, the better calls are grouped by lease.
    pub fn place(&mut self, now: Tick, out: &mut Vec<Output>) {
        unimplemented!("{now:?} {out:?}")
    }

    /// When to say [`Input::Time`] (and then `place`), if nothing else happens.
    pub fn deadline(&self) -> Option<Tick> {
        unimplemented!()
    }

    /// Whether `submit` takes a call.
    pub fn can_submit(&self) -> bool {
        unimplemented!()
    }

    /// Whether the call is unfinished: the library may drop parts of a result that nobody wants.
    pub fn wants(&self, call: CallId) -> bool {
        unimplemented!("{call:?}")
    }

    /// Whether something stands ready to be sent to this local lease as soon as its ring has more room.
    pub fn waits_for_room(&self, handle: Handle) -> bool {
        unimplemented!("{handle:?}")
    }

    /// How much there is to do.
    pub fn backlog(&self) -> Backlog {
        unimplemented!()
    }
}
