//! A process of a group as it is listed, while it runs and afterwards.

use crate::output::bytes;
use mutirao_group::console::Report;
use mutirao_group::master::{End, State};
use mutirao_wire::query::{ProcessEnd, ProcessRow, ProcessUse};
use serde_json::{Value, json};

/// A state in words.
pub fn state_word(state: &State) -> &'static str {
    match state {
        State::Starting => "starting",
        State::Running => "running",
        State::Ending => "ending",
        State::Homeless => "waiting for a slot",
        State::Ended(_) => "ended",
    }
}

/// An end, as others are told of it. Of one that was ordered the report says what came of the order.
pub fn end_of(end: &End, report: Option<&Report>) -> ProcessEnd {
    let how = match end {
        End::Code(_) => "exited",
        End::Signal(_) => "killed",
        End::OutOfMemory => "out of memory",
        End::Ordered => "ended with its group",
        End::Lost(_) => "lost",
        End::NotStarted(_) => "not started",
    };
    let (code, signal) =
        match report.map(|report| &report.end).filter(|_| *end == End::Ordered).unwrap_or(end) {
            End::Code(code) => (Some(*code), None),
            End::Signal(signal) => (None, Some(*signal)),
            _ => (None, None),
        };
    ProcessEnd { how: how.into(), code, signal, text: end.to_string() }
}

/// What it used, as others are told of it.
pub fn use_of(report: &Report) -> ProcessUse {
    ProcessUse { wall_us: report.wall_us, cpu_us: report.cpu_us, peak_kib: report.peak_kib }
}

/// How long it ran, its processor time and its memory, in cells.
pub fn used(row: &ProcessRow) -> [String; 3] {
    let cell = |show: fn(&ProcessUse) -> String| row.used.as_ref().map_or_else(|| "-".into(), show);
    [
        cell(|used| seconds(used.wall_us)),
        cell(|used| seconds(used.cpu_us)),
        cell(|used| bytes(used.peak_kib * 1024)),
    ]
}

/// For programs.
pub fn json(row: &ProcessRow) -> Value {
    let (end, used) = (row.end.as_ref(), row.used.as_ref());
    json!({
        "process": row.process, "node": row.node, "worker": worker(row), "state": row.state,
        "how": end.map(|end| end.how.as_str()), "code": end.and_then(|end| end.code),
        "signal": end.and_then(|end| end.signal), "text": end.map(|end| end.text.as_str()),
        "starts": row.starts, "restarts": restarts(row),
        "wall_s": used.map(|used| used.wall_us as f64 / 1e6),
        "cpu_s": used.map(|used| used.cpu_us as f64 / 1e6),
        "peak_kib": used.map(|used| used.peak_kib),
    })
}

/// How often it was started again.
pub fn restarts(row: &ProcessRow) -> u32 {
    row.starts.saturating_sub(1)
}

/// Its worker, as `mutirao ps` calls it.
pub fn worker(row: &ProcessRow) -> String {
    format!("{}/{}", row.node, row.serial)
}

fn seconds(us: u64) -> String {
    format!("{:.2}", us as f64 / 1e6)
}
