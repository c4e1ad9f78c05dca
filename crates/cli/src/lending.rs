//! `drain`, `resume`, `reclaim`: what a node lends; `grow`, `shrink`: what an application holds.

use crate::args::{DrainArgs, GrowArgs, ReclaimArgs, ShrinkArgs};
use crate::list::node_rows;
use crate::orders::give;
use anyhow::{Result, bail};
use mutirao::raw::Pool;
use mutirao_wire::local::{Leave, Resize, Size};
use mutirao_wire::query::{NodeState, Topic};
use std::time::Duration;

/// How often it is looked whether a node has drained.
const LOOK: Duration = Duration::from_millis(200);
/// Looks at which a node may be missing before it is given up.
const MISSING_MAX: u32 = 25;

/// `mutirao drain`
pub fn drain(pool: &Pool, args: &DrainArgs) -> Result<()> {
    let grace_ms = args.now.then(|| milliseconds(args.grace));
    give(pool, Topic::Drain { grace_ms }, Some(args.lender.clone()))?;
    if !args.wait {
        return Ok(());
    }
    let mut missing = 0;
    loop {
        let is_it = |name: &str, id: &str| name == args.lender || id.starts_with(&args.lender);
        let rows = node_rows(pool)?;
        match rows.iter().find(|row| is_it(&row.node.name, &row.node.id.to_string())) {
            Some(row) if row.state == NodeState::Drained => return Ok(()),
            Some(row) if row.state == NodeState::Up => bail!("node `{}` was told to lend again", args.lender),
            Some(_) => missing = 0,
            None if missing == MISSING_MAX => bail!("node `{}` does not answer any more", args.lender),
            None => missing += 1,
        }
        std::thread::sleep(LOOK);
    }
}

/// `mutirao resume`
pub fn resume(pool: &Pool, node: Option<&str>) -> Result<()> {
    give(pool, Topic::Resume, Some(node.map_or_else(|| pool.node().name, str::to_owned)))
}

/// `mutirao reclaim`
pub fn reclaim(pool: &Pool, args: &ReclaimArgs) -> Result<()> {
    let (node, slots) = match &args.what[..] {
        [] => (None, None),
        [one] => match one.parse() {
            Ok(slots) => (None, Some(slots)),
            Err(_) => (Some(one), None),
        },
        [node, slots, ..] => match slots.parse() {
            Ok(slots) => (Some(node), Some(slots)),
            Err(_) => bail!("`{slots}` is no number of slots; see `mutirao reclaim --help`"),
        },
    };
    if args.all && slots.is_some() {
        bail!("either a number of slots or --all");
    }
    let node = node.cloned().unwrap_or_else(|| pool.node().name);
    let for_s = args.span.map(|span| u32::try_from(span.as_secs().max(1)).unwrap_or(u32::MAX));
    give(pool, Topic::Reclaim { slots, grace_ms: milliseconds(args.grace), for_s }, Some(node))
}

/// `mutirao grow`
pub fn grow(pool: &Pool, args: &GrowArgs) -> Result<()> {
    let size = match (args.by, args.to, args.own) {
        (Some(by), None, false) => Size::More(by),
        (None, Some(to), false) => Size::Exactly(to),
        (None, None, true) => Size::Own,
        _ => bail!("say by how many slots to grow, or --to how many, or --own"),
    };
    resize(pool, &args.app, Resize { size, leave: Leave::Finish })
}

/// `mutirao shrink`
pub fn shrink(pool: &Pool, args: &ShrinkArgs) -> Result<()> {
    let size = match (args.by, args.to) {
        (Some(by), None) => Size::Fewer(by),
        (None, Some(to)) => Size::Exactly(to),
        _ => bail!("say by how many slots to shrink, or --to how many"),
    };
    let leave = match (args.now, args.abandon) {
        (_, true) => Leave::Abandon,
        (true, false) => Leave::Rerun,
        (false, false) => Leave::Finish,
    };
    resize(pool, &args.app, Resize { size, leave })
}

fn resize(pool: &Pool, app: &str, order: Resize) -> Result<()> {
    give(pool, Topic::Resize { app: app.to_owned(), order }, None)
}

fn milliseconds(span: Duration) -> u32 {
    u32::try_from(span.as_millis()).unwrap_or(u32::MAX)
}

/// Reads a span of time, such as `500ms`, `30s`, `10min`, `2h`; a bare number counts seconds.
pub fn read_span(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let ms = match unit.trim() {
        "ms" => 1,
        "" | "s" => 1000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(format!("`{text}` is no span of time; write for example 500ms, 30s, 10min or 2h")),
    };
    let number = number.parse::<u64>().ok().and_then(|number| number.checked_mul(ms));
    number.map(Duration::from_millis).ok_or_else(|| format!("`{text}` is no span of time"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_as_people_write_them() {
        for (text, ms) in
            [("500ms", 500), ("2", 2_000), ("30s", 30_000), ("10min", 600_000), ("2h", 7_200_000)]
        {
            assert_eq!(read_span(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "ms", "-1s", "1.5s", "3 weeks", "99999999999999999999s", "18446744073709551615h"] {
            assert!(read_span(text).is_err(), "{text}");
        }
    }
}
