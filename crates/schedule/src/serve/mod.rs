//! The calls of one lease at its lender.

mod types;

pub use types::*;

use mutirao_wire::Tick;

/// The calls of one lease whose home is another node, between its stream and its worker.
#[derive(Debug, Default)]
pub struct Serve {}

impl Serve {
    /// Without stream, worker or calls.
    pub fn new() -> Serve {
        Serve::default()
    }

    /// Takes in what happened; appends frames for the home to `home` (never more than it gave credit for).
    pub fn handle(&mut self, now: Tick, input: Input<'_>, home: &mut Vec<u8>, out: &mut Vec<Output>) {
        unimplemented!("{now:?} {input:?} {home:?} {out:?}")
    }

    /// Writes queued calls into the worker's ring: `write` takes a frame's header and body, both or nothing,
    /// and says whether it had room. To be called after each batch of frames from the home and when the
    /// ring has room again; not without a worker.
    pub fn write_worker(&mut self, now: Tick, write: impl FnMut(&[u8], &[u8]) -> bool, home: &mut Vec<u8>) {
        let _ = (now, write, home);
        unimplemented!()
    }

    /// Whether calls stand ready for the ring.
    pub fn has_worker_output(&self) -> bool {
        unimplemented!()
    }

    /// Whether frames may be taken out of the ring. When false, too many results await acknowledgement:
    /// leave them in the ring, so that the worker waits.
    pub fn wants_worker_input(&self) -> bool {
        unimplemented!()
    }

    /// When to say [`Input::Time`], if nothing else happens.
    pub fn deadline(&self) -> Option<Tick> {
        unimplemented!()
    }

    /// Bytes of arguments and results held.
    pub fn held_bytes(&self) -> u64 {
        unimplemented!()
    }
}
