//! Requests that wait: how to make them, list them, and hear why they wait.

use crate::args::Output;
use crate::list::ask;
use crate::output::{put, span, table};
use crate::sorted::sort;
use anyhow::{Result, bail};
use clap::Args;
use mutirao::raw::Pool;
use mutirao_wire::node::{Bundle, Layout};
use mutirao_wire::query::{Row, StandRow, Topic, WaitingRow, request_name};
use mutirao_wire::wait::Wait;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// Nodes named as not lending, and lenders named.
const NAMED_MAX: usize = 5;

/// How a request waits, and for how long what it gets is held.
#[derive(Debug, Args)]
pub struct WaitArgs {
    /// Wait in the pool's queue until all can be had at once, or for DURATION at most (such as 90s,
    /// 10m, 2h)
    #[arg(long, value_name = "DURATION", num_args = 0..=1, require_equals = true, value_parser = read_span)]
    pub wait: Option<Option<Duration>>,
    /// Go before those who wait with a lower one (-128 to 127)
    #[arg(long, value_name = "P", default_value_t = 0, requires = "wait", allow_negative_numbers = true)]
    pub priority: i8,
    /// Give everything back after DURATION at the latest, the command with it. Short requests may run
    /// while slots gather for a larger one
    #[arg(long, value_name = "DURATION", value_parser = read_span)]
    pub time_limit: Option<Duration>,
}

impl WaitArgs {
    /// How it waits, if it does.
    pub fn wait(&self) -> Option<Wait> {
        let patience = self.wait?;
        let patience_ms = patience.map(|patience| patience.as_millis().min(u64::MAX.into()) as u64);
        Some(Wait { priority: self.priority, patience_ms })
    }

    /// The limit of the leases, seconds.
    pub fn limit_s(&self) -> Option<u32> {
        self.time_limit.map(|limit| limit.as_secs().clamp(1, u32::MAX.into()) as u32)
    }
}

/// A span of time as people write it: `90`, `90s`, `10m`, `2h`, `1d`.
fn read_span(text: &str) -> Result<Duration, String> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let unit_s = match unit {
        "" | "s" => 1,
        "m" | "min" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(format!("`{unit}` is no unit of time: s, m, h or d")),
    };
    let seconds = number.parse().ok().and_then(|number: u64| number.checked_mul(unit_s));
    match seconds {
        Some(seconds) if seconds > 0 => Ok(Duration::from_secs(seconds)),
        _ => Err(format!("`{text}` is no span of time; write 90s, 10m or 2h")),
    }
}

/// `mutirao queue`
pub fn list(pool: &Pool, output: Output) -> Result<()> {
    let mut rows: Vec<WaitingRow> = waiting(ask(pool, Topic::Queue, None)?);
    sort(&mut rows, |a, b| (&a.arbiter, a.place).cmp(&(&b.arbiter, b.place)));
    if output == Output::Json {
        return put(&format!("{:#}\n", rows.iter().map(waiting_json).collect::<Value>()));
    }
    let cells: Vec<[String; 9]> = rows
        .iter()
        .map(|row| {
            [
                request_name(row.request),
                row.app_name.clone(),
                row.user.clone(),
                format!("{}/{}", row.held, row.need),
                bundle_text(&row.want.bundle),
                row.priority.to_string(),
                span(row.waited_ms / 1000),
                format!("{} at {}", row.place, row.arbiter),
                row.start_ms.map_or_else(|| "-".into(), |ms| format!("in {}", span(ms.div_ceil(1000)))),
            ]
        })
        .collect();
    let head = ["REQUEST", "NAME", "USER", "KEPT/NEEDED", "EACH", "PRIORITY", "WAITS", "PLACE", "STARTS"];
    put(&table(head, [false, false, false, true, false, true, true, false, false], &cells))
}

fn waiting(rows: Vec<Row>) -> Vec<WaitingRow> {
    let waiting = |row| match row {
        Row::Waiting(row) => Some(row),
        _ => None,
    };
    rows.into_iter().filter_map(waiting).collect()
}

fn waiting_json(row: &WaitingRow) -> Value {
    json!({
        "request": request_name(row.request),
        "app": row.request.app.to_string(),
        "name": row.app_name,
        "user": row.user,
        "home": row.home,
        "need": row.need,
        "count": row.want.count,
        "slots_each": row.want.bundle.slots,
        "memory_mib_each": row.want.bundle.memory_mib,
        "exclusive": row.want.bundle.exclusive,
        "limit_s": row.want.bundle.limit_s,
        "priority": row.priority,
        "share_level": row.share,
        "waited_ms": row.waited_ms,
        "place": row.place,
        "before": row.before.iter().map(|request| request_name(*request)).collect::<Vec<_>>(),
        "arbiter": row.arbiter,
        "kept": row.held,
        "able": row.able,
        "start_ms": row.start_ms,
    })
}

fn stand_json(row: &StandRow) -> Value {
    json!({
        "node": row.node,
        "kept": row.held,
        "able": row.able,
        "slots_free": row.slots_free,
        "slots_kept_for_others": row.slots_kept,
        "hindrance": row.hindrance,
        "lent": row.taken.iter().map(|taken| {
            json!({ "user": taken.user, "slots": taken.slots, "for_ms": taken.for_ms })
        }).collect::<Vec<_>>(),
    })
}

/// `mutirao explain`
pub fn explain(pool: &Pool, request: &str, output: Output) -> Result<()> {
    let rows = ask(pool, Topic::Explain { request: request.to_owned() }, None)?;
    let stand = |row: &Row| match row {
        Row::Stand(row) => Some(row.clone()),
        _ => None,
    };
    let stands: Vec<StandRow> = rows.iter().filter_map(stand).collect();
    let waiting = waiting(rows);
    if waiting.is_empty() {
        bail!("no request called `{request}` waits; see `mutirao queue`");
    }
    let reports = waiting.iter().map(|row| {
        let mut nodes: Vec<&StandRow> = stands.iter().filter(|stand| stand.request == row.request).collect();
        sort(&mut nodes, |a, b| a.node.cmp(&b.node));
        (row, nodes)
    });
    if output == Output::Json {
        let report = reports.map(|(row, nodes)| {
            json!({
                "request": waiting_json(row),
                "nodes": nodes.iter().map(|row| stand_json(row)).collect::<Vec<_>>(),
                "reasons": reasons(row, &nodes),
            })
        });
        return put(&format!("{:#}\n", report.collect::<Value>()));
    }
    let text = reports.map(|(row, nodes)| {
        let name = format!("{} ({} of {})", request_name(row.request), row.app_name, row.user);
        format!(
            "{name} has waited {}:\n  {}\n",
            span(row.waited_ms / 1000),
            reasons(row, &nodes).join("\n  ")
        )
    });
    put(&text.collect::<Vec<_>>().join("\n"))
}

/// What one lease holds, for people.
fn bundle_text(bundle: &Bundle) -> String {
    let mut parts = match (bundle.exclusive, bundle.slots) {
        (true, _) => vec!["a whole node".to_owned()],
        (false, 1) => vec!["1 slot".to_owned()],
        (false, slots) => vec![format!("{slots} slots")],
    };
    if bundle.memory_mib > 0 {
        parts.push(crate::output::bytes(u64::from(bundle.memory_mib) << 20));
    }
    parts.extend(bundle.resources.iter().map(|resource| format!("{}={}", resource.name, resource.amount)));
    parts.join(" + ")
}

fn plural(count: u32, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn listed(mut names: Vec<String>) -> String {
    let rest = names.len().saturating_sub(NAMED_MAX);
    names.truncate(NAMED_MAX);
    if rest > 0 {
        names.push(format!("{rest} more"));
    }
    names.join(", ")
}

/// Why a request waits, a sentence each.
fn reasons(row: &WaitingRow, nodes: &[&StandRow]) -> Vec<String> {
    let spread = if row.want.layout == Layout::Spread { ", each on another node" } else { "" };
    let mut reasons = vec![format!(
        "it needs {} of {} at once{spread}; {} could be granted now",
        plural(row.need, "lease"),
        bundle_text(&row.want.bundle),
        row.held,
    )];
    match row.before.len() {
        0 => reasons.push(format!("it is the first in the queue of node {}", row.arbiter)),
        _ => {
            let before = row.before.iter().map(|request| request_name(*request)).collect();
            let text = format!("it is number {} in the queue of node {}, after", row.place, row.arbiter);
            let more = if row.place as usize > row.before.len() + 1 { " and others" } else { "" };
            reasons.push(format!("{text} {}{more}", listed(before)));
        }
    }
    let mut lent: BTreeMap<&str, (u32, Option<u64>)> = BTreeMap::new();
    for taken in nodes.iter().filter(|node| node.able > 0).flat_map(|node| &node.taken) {
        let (slots, longest) = lent.entry(&taken.user).or_insert((0, Some(0)));
        *slots += taken.slots;
        *longest = longest.zip(taken.for_ms).map(|(a, b)| a.max(b));
    }
    let lent: Vec<String> = lent
        .into_iter()
        .map(|(user, (slots, longest))| {
            let until = match longest {
                Some(ms) => format!("for at most {} more", span(ms.div_ceil(1000))),
                None => "without a time limit".into(),
            };
            format!("{} by {user} {until}", plural(slots, "slot"))
        })
        .collect();
    if !lent.is_empty() {
        reasons.push(format!("where it may run, slots are held: {}", listed(lent)));
    }
    let kept: u32 = nodes.iter().filter(|node| node.able > 0).map(|node| u32::from(node.slots_kept)).sum();
    if kept > 0 {
        reasons.push(format!("{} free, but kept for requests before it", plural(kept, "slot")));
    }
    let mut refusals: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for node in nodes {
        if let Some(why) = &node.hindrance {
            refusals.entry(why).or_default().push(node.node.clone());
        }
    }
    for (why, nodes) in refusals {
        let count = plural(nodes.len() as u32, "node");
        reasons.push(format!("{count} will not serve it: {} ({why})", listed(nodes)));
    }
    reasons.push(match row.start_ms {
        Some(0) => "it is being served".into(),
        Some(ms) => format!(
            "by the time limits of what is held it starts in {} at the latest",
            span(ms.div_ceil(1000))
        ),
        None => {
            "when it starts is not known: too much of what it waits for is held without a time limit".into()
        }
    });
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;
    use mutirao_wire::node::Want;
    use mutirao_wire::query::Taken;
    use mutirao_wire::{AppId, RequestId};

    #[test]
    fn spans_are_read_as_people_write_them() {
        for (text, seconds) in
            [("90", 90), ("90s", 90), ("10m", 600), ("10min", 600), ("2h", 7200), ("1d", 86_400)]
        {
            assert_eq!(read_span(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "0", "m", "5x", "-3s", "99999999999999999999s", "1h30m"] {
            assert!(read_span(text).is_err(), "{text}");
        }
    }

    fn row() -> WaitingRow {
        let request = |sequence| RequestId { app: AppId(0x3fa9_c1d2 << 96), sequence, attempt: 0 };
        WaitingRow {
            request: request(3),
            app_name: "sim".into(),
            user: "ana@lab1".into(),
            home: "lab1".into(),
            want: Want {
                bundle: Bundle { memory_mib: 4096, ..Bundle::default() },
                count: 8,
                ..Want::default()
            },
            need: 8,
            priority: 0,
            share: 0,
            waited_ms: 200_000,
            place: 2,
            before: vec![request(1)],
            arbiter: "lab0".into(),
            held: 5,
            able: 9,
            start_ms: Some(65_000),
        }
    }

    fn node(name: &str, able: u32) -> StandRow {
        StandRow {
            node: name.into(),
            request: row().request,
            held: 0,
            able,
            slots_free: 2,
            slots_kept: 0,
            hindrance: None,
            taken: Vec::new(),
        }
    }

    #[test]
    fn an_explanation_names_what_is_missing_who_holds_it_and_who_refuses() {
        let taken = |user: &str, for_ms| Taken { user: user.into(), slots: 1, for_ms };
        let mut here = node("lab1", 4);
        here.taken = vec![taken("ben@lab2", Some(60_000)), taken("eve@lab3", None)];
        let mut there = node("lab2", 5);
        there.taken = vec![taken("ben@lab2", Some(65_000))];
        there.slots_kept = 1;
        let mut closed = node("lab3", 0);
        closed.hindrance = Some("the owner lends to `eve` only".into());
        closed.taken = vec![taken("eve@lab3", None)];
        let text = reasons(&row(), &[&here, &there, &closed]).join("\n");
        assert_eq!(
            text,
            "it needs 8 leases of 1 slot + 4.0 GiB at once; 5 could be granted now\n\
             it is number 2 in the queue of node lab0, after 3fa9c1d2.1\n\
             where it may run, slots are held: 2 slots by ben@lab2 for at most 1 min 5 s more, 1 slot by eve@lab3 without a time limit\n\
             1 slot free, but kept for requests before it\n\
             1 node will not serve it: lab3 (the owner lends to `eve` only)\n\
             by the time limits of what is held it starts in 1 min 5 s at the latest"
        );
    }
}
