//! Error objects, and the numbers that programs rely on.

use crate::convert::c_text;
use mutirao::raw::{CallError, CallErrorKind, Error as LibraryError};
use std::any::Any;
use std::ffi::{CString, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// `mutirao_code`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum Code {
    Argument = 1,
    NoNode = 2,
    Refused = 3,
    NodeLost = 4,
    NoSlots = 5,
    Plugin = 6,
    NoOperation = 7,
    TooLarge = 8,
    Operation = 9,
    WorkerEnded = 10,
    OutOfMemory = 11,
    TimeLimit = 12,
    Cancelled = 13,
    OutcomeUnknown = 14,
    Timeout = 15,
    NotPermitted = 16,
    Closed = 17,
    Internal = 18,
    System = 19,
    NoGroup = 20,
    Mode = 21,
    Ended = 22,
    PeerLost = 23,
    Bag = 24,
    Checkpoint = 25,
}

/// `mutirao_error`.
#[derive(Debug)]
pub struct Error {
    pub code: Code,
    pub operation_code: c_int,
    pub text: CString,
    pub node: CString,
}

impl Error {
    pub fn new(code: Code, text: &str) -> Error {
        Error { code, operation_code: 0, text: c_text(text), node: CString::default() }
    }

    pub fn argument(text: &str) -> Error {
        Error::new(Code::Argument, text)
    }

    pub fn null(name: &str) -> Error {
        Error::argument(&format!("`{name}` is NULL"))
    }
}

impl From<LibraryError> for Error {
    fn from(error: LibraryError) -> Error {
        use LibraryError as E;
        let code = match &error {
            E::NoNode { .. }
            | E::NoneRuns { .. }
            | E::NotRunning { .. }
            | E::SeveralNodes { .. }
            | E::Connect { .. }
            | E::Impostor { .. }
            | E::Embedded { .. }
            | E::NoPrivateNode { .. } => Code::NoNode,
            E::Refused(_) => Code::Refused,
            E::PluginRefused(_) | E::PluginFile { .. } | E::PluginFiles(_) => Code::Plugin,
            E::NodeLost { .. } => Code::NodeLost,
            E::Closed => Code::Closed,
            E::NotInitialised => {
                return Error::argument(
                    "the operations are not known: call mutirao_init() as the first statement of main()",
                );
            }
            E::InitialisedTwice => {
                return Error::argument(
                    "mutirao_init() was called twice; call it once, as the first statement of main()",
                );
            }
            E::UnknownOperation(name) => {
                return Error::new(
                    Code::NoOperation,
                    &format!(
                        "`{name}` is not an operation of this program; list it in the table given to mutirao_init()"
                    ),
                );
            }
            E::Setting { .. }
            | E::OperationName { .. }
            | E::TooManyOperations(_)
            | E::ArgumentEncoding { .. } => Code::Argument,
            E::TreeCycle { .. } | E::UnknownNode(_) => Code::Argument,
            E::ArgumentTooLarge { .. } => Code::TooLarge,
            E::NotEnough { .. } | E::WaitedInVain(_) => Code::NoSlots,
            E::OrderRefused { node, .. } => {
                return Error { node: c_text(node), ..Error::new(Code::NotPermitted, &error.to_string()) };
            }
            E::TimedOut { .. } => Code::Timeout,
            E::Bag(_) => Code::Bag,
            E::Checkpoint(_) => Code::Checkpoint,
            E::System { .. } => Code::System,
            _ => Code::Internal,
        };
        Error::new(code, &error.to_string())
    }
}

impl From<CallError> for Error {
    fn from(error: CallError) -> Error {
        use CallErrorKind as K;
        let mut operation_code = 0;
        let code = match error.kind {
            K::NoSuchOperation => Code::NoOperation,
            K::Panicked | K::BadArgument => Code::Operation,
            K::Operation(own) => {
                operation_code = c_int::try_from(own).unwrap_or(c_int::MAX);
                Code::Operation
            }
            K::ResultTooLarge => Code::TooLarge,
            K::WorkerEnded => Code::WorkerEnded,
            K::OutOfMemory => Code::OutOfMemory,
            K::TimeLimit => Code::TimeLimit,
            K::Cancelled => Code::Cancelled,
            K::OutcomeUnknown => Code::OutcomeUnknown,
            K::PoolClosed => Code::Closed,
            K::NoSlots => Code::NoSlots,
            K::Taken => Code::Argument,
            _ => Code::Internal,
        };
        let node = c_text(error.node.as_deref().unwrap_or_default());
        Error { code, operation_code, text: c_text(&error.to_string()), node }
    }
}

/// What a function that can fail gives back to C. No panic leaves it.
pub fn outcome(body: impl FnOnce() -> Result<(), Error>) -> *mut Error {
    let result = catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| Err(internal(&*panic)));
    match result {
        Ok(()) => std::ptr::null_mut(),
        Err(error) => Box::into_raw(Box::new(error)),
    }
}

/// What a function that cannot fail gives back to C; `otherwise` after a panic.
pub fn value<T>(otherwise: T, body: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or(otherwise)
}

fn internal(panic: &(dyn Any + Send)) -> Error {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("(no text)");
    Error::new(Code::Internal, &format!("a fault of the library, please report it: {text}"))
}
