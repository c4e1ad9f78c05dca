//! The worker side: what the library does in a program that a node has started.

mod line;
mod seat;
mod serve;
pub(crate) mod state;
mod template;

pub use line::line;
pub use seat::{clear_spin_seat, spin_seat};
pub use state::current_call;

use crate::Error;
use crate::operation::{OperationEntry, register};
use crate::sys;
use mutirao_wire::worker::WORKER_ENV;
use std::sync::atomic::Ordering;

/// Makes the operations of this program known. Call it once, as the first statement of `main`, before any
/// thread is started.
///
/// In a process that a node has started to run these operations it never returns: there the program serves
/// calls until the node ends it.
pub fn init(operations: Vec<OperationEntry>) -> Result<(), Error> {
    let table = register(operations)?;
    let Some(value) = std::env::var_os(WORKER_ENV) else { return Ok(()) };
    sys::remove_variable(WORKER_ENV);
    let fd = value.to_str().and_then(|text| text.parse().ok()).and_then(|fd| sys::inherited(fd).ok());
    let Some(fd) = fd else {
        give_up(&format!("{WORKER_ENV} is {value:?}, which is no open descriptor; only a node sets it"));
    };
    match template::run(fd, table) {
        template::Outcome::Ended => sys::exit_now(0),
        template::Outcome::Failed(why) => give_up(&why),
        template::Outcome::Worker(worker) => match serve::serve(*worker, table) {
            Ok(()) => sys::exit_now(0),
            Err(why) => give_up(&why),
        },
    }
}

/// Lets this worker end when the call that runs now has been answered: another takes its place, and whatever
/// its calls have left running is ended with it. Without effect outside a worker.
pub fn retire() {
    serve::RETIRES.store(true, Ordering::Relaxed);
}

/// Ends a worker or template with a text that its node shows to the caller.
fn give_up(why: &str) -> ! {
    eprintln!("mutirao worker: {why}");
    sys::exit_now(125)
}
