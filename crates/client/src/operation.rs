//! The table of a program's operations, as bytes in and bytes out.

use crate::Error;
use mutirao_wire::limits::OPERATIONS_MAX;
use mutirao_wire::plugin::is_plain_name;
use mutirao_wire::stream::failure;
use std::sync::OnceLock;

/// How an operation failed: the result of a call that has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// One of [`failure`]; from [`failure::OPERATION`] on the operation's own.
    pub code: u32,
    /// For people; cut to 4 KiB.
    pub text: String,
}

impl Failure {
    /// A failure of the operation's own, with a code of its own below 2³¹ (higher bits are cut off).
    pub fn own(code: u32, text: impl Into<String>) -> Failure {
        Failure { code: failure::OPERATION | code, text: text.into() }
    }
}

/// What an operation does: reads its argument, appends its result to the vector, which is empty.
/// On failure what it appended is discarded.
pub type Run = Box<dyn Fn(&[u8], &mut Vec<u8>) -> Result<(), Failure> + Send + Sync>;

/// One operation of a program.
pub struct OperationEntry {
    /// Its name, 1 to 63 bytes without `/` and control characters.
    pub name: String,
    /// Whether it may run more than once for one call without harm. A call may say so for itself too.
    pub repeatable: bool,
    /// What it does.
    pub run: Run,
}

impl std::fmt::Debug for OperationEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OperationEntry")
            .field("name", &self.name)
            .field("repeatable", &self.repeatable)
            .finish_non_exhaustive()
    }
}

static TABLE: OnceLock<Vec<OperationEntry>> = OnceLock::new();

/// Checks the table and keeps it for the life of the program.
pub(crate) fn register(operations: Vec<OperationEntry>) -> Result<&'static [OperationEntry], Error> {
    check(&operations)?;
    let mut fresh = false;
    let table = TABLE.get_or_init(|| {
        fresh = true;
        operations
    });
    if fresh { Ok(table) } else { Err(Error::InitialisedTwice) }
}

/// The table given to `init`; `None` before.
pub(crate) fn table() -> Option<&'static [OperationEntry]> {
    TABLE.get().map(Vec::as_slice)
}

fn check(operations: &[OperationEntry]) -> Result<(), Error> {
    if operations.len() > OPERATIONS_MAX {
        return Err(Error::TooManyOperations(operations.len()));
    }
    for (i, operation) in operations.iter().enumerate() {
        let bad = |why| Error::OperationName { name: operation.name.clone(), why };
        if !is_plain_name(&operation.name) {
            return Err(bad("it is empty, too long or has a forbidden character"));
        }
        if operations[..i].iter().any(|other| other.name == operation.name) {
            return Err(bad("another operation has the same name"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str) -> OperationEntry {
        OperationEntry { name: name.into(), repeatable: false, run: Box::new(|_, _| Ok(())) }
    }

    #[test]
    fn names_are_checked() {
        assert!(check(&[entry("a::b"), entry("c")]).is_ok());
        assert!(matches!(check(&[entry("a"), entry("a")]), Err(Error::OperationName { .. })));
        assert!(matches!(check(&[entry("a/b")]), Err(Error::OperationName { .. })));
        assert!(matches!(check(&[entry(&"x".repeat(64))]), Err(Error::OperationName { .. })));
        let many: Vec<_> = (0..=OPERATIONS_MAX).map(|i| entry(&i.to_string())).collect();
        assert!(matches!(check(&many), Err(Error::TooManyOperations(_))));
    }
}
