//! The functions with the attribute, found at link time.

use crate::operation::{Failure, OperationEntry};
use crate::{Error, worker};
use linkme::distributed_slice;
use std::any::{TypeId, type_name};
use std::collections::HashMap;
use std::sync::OnceLock;

/// One function with the attribute.
pub struct Registered {
    /// Its name for other machines.
    pub name: &'static str,
    /// Whether it may run more than once for one call.
    pub repeatable: bool,
    /// What the function's type is.
    pub key: fn() -> TypeId,
    /// Decodes the argument, runs it, encodes the result.
    pub run: fn(&[u8], &mut Vec<u8>) -> Result<(), Failure>,
}

/// All of them.
#[distributed_slice]
pub static OPERATIONS: [Registered];

/// The type of a function, which is its own.
pub fn key_of<F: 'static>(_: &F) -> TypeId {
    TypeId::of::<F>()
}

static INDEX: OnceLock<HashMap<TypeId, u32>> = OnceLock::new();

/// Makes the functions with the attribute [`operation`](macro@crate::operation) known. The first statement of
/// `main`, before any thread is started.
///
/// In a process that a node has started to run these functions it never returns: there the program serves calls
/// until the node ends it. Should the program have operations that cannot be (two of one name, or too many), it
/// ends with a text that says so: see [`raw::init`](crate::raw::init) for the form that returns an error.
pub fn init() {
    if let Err(error) = try_init() {
        eprintln!("mutirao: {error}");
        std::process::exit(2);
    }
}

fn try_init() -> Result<(), Error> {
    // The linker's order may be any; by name it is the same wherever the same program runs.
    let mut registered: Vec<&Registered> = OPERATIONS.iter().collect();
    registered.sort_by_key(|operation| operation.name);
    let index = registered.iter().enumerate().map(|(place, operation)| ((operation.key)(), place as u32));
    let index = index.collect();
    if INDEX.set(index).is_err() {
        return Err(Error::InitialisedTwice);
    }
    let entry = |operation: &&Registered| OperationEntry {
        name: operation.name.to_owned(),
        repeatable: operation.repeatable,
        run: Box::new(operation.run),
    };
    worker::init(registered.iter().map(entry).collect())
}

/// The index of a function in the table.
pub(crate) fn index_of<F: 'static>(_: &F) -> Result<u32, Error> {
    let index = INDEX.get().ok_or(Error::NotInitialised)?;
    let place = index.get(&TypeId::of::<F>()).copied();
    place.ok_or_else(|| Error::UnknownOperation(type_name::<F>().to_owned()))
}
