//! How much of each there may be.

/// Tasks of one bag.
pub const TASKS_MAX: usize = 10_000_000;
/// Templates of one bag, those added while it runs among them.
pub const TEMPLATES_MAX: usize = 100_000;
/// Values of one task, together, bytes.
pub const VALUE_BYTES_MAX: usize = 64 * 1024;
/// What one attempt may report, bytes.
pub const REPORT_BYTES_MAX: usize = 16 << 20;
/// Bytes of a failed attempt's last words that are kept.
pub const LAST_WORDS_BYTES_MAX: usize = 2000;
/// Tasks in one record of the journal.
pub const TASKS_A_RECORD: usize = 4096;
/// Input files of a task that are outputs of others.
pub const GATHERED_MAX: usize = 4096;
/// Bytes of a bag's name: with `bag-` before it, it names the keeper among the programs of a pool.
pub const BAG_NAME_BYTES_MAX: usize = mutirao_wire::limits::NAME_BYTES_MAX - "bag-".len();
