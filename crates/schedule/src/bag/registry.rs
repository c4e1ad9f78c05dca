use super::{Policy, StorageAffinity, Workqueue};

/// The names a bag file may give.
pub const NAMES: [&str; 3] = ["wqr", "storage-affinity", "workqueue"];

/// No scheduler has this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no scheduler {0:?}; there are {known}", known = NAMES.join(", "))]
pub struct UnknownScheduler(pub String);

/// The policy of this name. At most `copies` attempts of a task run at once, where the policy makes
/// copies at all.
pub fn by_name(name: &str, copies: u32) -> Result<Box<dyn Policy + Send>, UnknownScheduler> {
    match name {
        "wqr" => Ok(Box::new(Workqueue::with_copies(copies))),
        "storage-affinity" => Ok(Box::new(StorageAffinity::with_copies(copies))),
        "workqueue" => Ok(Box::new(Workqueue::plain())),
        _ => Err(UnknownScheduler(name.into())),
    }
}
