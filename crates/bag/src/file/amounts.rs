//! Amounts of memory and time as people write them.

use super::node::{Node, Wrong};

const MEMORY: [(&str, f64); 8] = [
    ("MiB", 1.0),
    ("M", 1.0),
    ("GiB", 1024.0),
    ("G", 1024.0),
    ("TiB", 1048576.0),
    ("T", 1048576.0),
    ("MB", 1e6 / 1048576.0),
    ("GB", 1e9 / 1048576.0),
];
const TIME_MS: [(&str, f64); 5] = [("ms", 1.0), ("s", 1e3), ("m", 6e4), ("h", 3.6e6), ("d", 8.64e7)];

/// Memory, such as `"2GiB"`: whole MiB, rounded up.
pub(super) fn memory_mib(node: &Node<'_>) -> Result<u32, Wrong> {
    let amount = amount(node.text()?, &MEMORY).map(f64::ceil);
    let amount = amount.filter(|amount| (1.0..=f64::from(u32::MAX)).contains(amount));
    amount.map(|mib| mib as u32).ok_or_else(|| node.wrong("write memory like \"512MiB\" or \"2GiB\""))
}

/// A time, such as `"10m"`: ms.
pub(super) fn time_ms(node: &Node<'_>) -> Result<u64, Wrong> {
    let amount = amount(node.text()?, &TIME_MS).map(f64::ceil);
    let amount = amount.filter(|amount| (1.0..=f64::from(u32::MAX)).contains(amount));
    amount
        .map(|ms| ms as u64)
        .ok_or_else(|| node.wrong("write a time like \"90s\", \"10m\" or \"2h\", at most 49 days"))
}

fn amount(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit() && c != '.')?);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim())?;
    Some(number.parse::<f64>().ok()? * factor)
}
