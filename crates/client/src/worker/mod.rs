//! The worker side: what the library does in a program that a node has started.
use crate::operation::{OperationEntry, register};
use crate::Error;

/// Makes the operations known. In a program that a node has started this never returns: it serves calls and exits.
/// Must be the first statement of `main`, before any thread is started.
pub fn init(operations: Vec<OperationEntry>) -> Result<(), Error> {
    register(operations)?;
    Ok(())
}
