//! How much there may be of everything.

/// Longest application file, bytes.
pub const FILE_BYTES_MAX: usize = 1024 * 1024;
/// Most processes in a group.
pub const PROCESSES_MAX: u32 = 1024;
/// Most channels of a process, inputs and outputs each.
pub const PORTS_MAX: u32 = 1024;
/// Most joined pairs of channel ends in a group, which is one pipe each.
pub const ENDS_MAX: usize = 16 * 1024;
/// Bytes of messages that a channel end stores, unless the file says otherwise.
pub const STORED_BYTES: u64 = 64 * 1024 * 1024;
/// Restarts of a group that asks for them, unless the file says otherwise: so many
pub const RESTARTS: u32 = 3;
/// within so many seconds.
pub const RESTARTS_WITHIN_S: u32 = 60;
