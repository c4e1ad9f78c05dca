//! Listings: what is in the pool.

use crate::args::{NodesArgs, Output};
use crate::output::remark;
use crate::output::{bytes, put, span, table};
use crate::sorted::sort;
use crate::units::memory_text;
use anyhow::Result;
use mutirao::raw::{Answers, Pool};
use mutirao_wire::query::{AppRow, Approval, NodeRow, NodeState, PluginRow, Row, Topic, WorkerRow};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long nodes may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// Asks every node, or the one called `to`, and says on standard error how many kept silent.
pub fn ask(pool: &Pool, topic: Topic, to: Option<String>) -> Result<Vec<Row>> {
    let Answers { rows, missing } = pool.query(topic, to, Vec::new(), PATIENCE)?;
    if missing > 0 {
        remark!("mutirao: {missing} node(s) did not answer in time");
    }
    Ok(rows)
}

/// The nodes, by name.
pub fn node_rows(pool: &Pool) -> Result<Vec<NodeRow>> {
    Ok(rows_of_nodes(ask(pool, Topic::Nodes, None)?))
}

fn rows_of_nodes(rows: Vec<Row>) -> Vec<NodeRow> {
    let node = |row| match row {
        Row::Node(row) => Some(row),
        _ => None,
    };
    let mut rows: Vec<NodeRow> = rows.into_iter().filter_map(node).collect();
    sort(&mut rows, |a, b| natural(&a.node.name).cmp(&natural(&b.node.name)));
    rows
}

/// What a node has beside slots, in one cell.
fn has(row: &NodeRow) -> String {
    let resources = row.resources.iter().map(|r| format!("{}={}/{}", r.name, r.free, r.total));
    let all: Vec<String> = resources.chain(row.labels.iter().cloned()).collect();
    if all.is_empty() { "-".into() } else { all.join(",") }
}

/// A key under which `n2` comes before `n10`.
fn natural(name: &str) -> Vec<(String, u64)> {
    let mut parts = Vec::new();
    let mut rest = name;
    while !rest.is_empty() {
        let (text, tail) = rest.split_at(rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len()));
        let (number, tail) = tail.split_at(tail.find(|c: char| !c.is_ascii_digit()).unwrap_or(tail.len()));
        parts.push((text.to_owned(), number.parse().unwrap_or(0)));
        rest = tail;
    }
    parts
}

fn state_word(state: NodeState) -> &'static str {
    match state {
        NodeState::Up => "up",
        NodeState::Draining => "draining",
        NodeState::Drained => "drained",
        NodeState::Leaving => "leaving",
    }
}

fn print_json(value: Value) -> Result<()> {
    put(&format!("{value:#}\n"))
}

/// `mutirao nodes`
pub fn nodes(pool: &Pool, output: Output, args: &NodesArgs) -> Result<()> {
    let topic = if args.free || !args.want.is_empty() {
        Topic::Find { want: Box::new(args.want.want()), free: args.free }
    } else {
        Topic::Nodes
    };
    let rows = rows_of_nodes(ask(pool, topic, None)?);
    if let (Some(above), true) = (&args.want.below, rows.is_empty())
        && !node_rows(pool)?.iter().any(|row| row.node.name == *above)
    {
        return Err(mutirao::Error::UnknownNode(above.clone()).into());
    }
    if output == Output::Json {
        return print_json(rows.iter().map(node_json).collect());
    }
    let cells: Vec<[String; 11]> = rows
        .iter()
        .map(|row| {
            [
                row.node.name.clone(),
                row.parent.clone().unwrap_or_else(|| "-".into()),
                format!("{}/{}", row.slots_free, row.slots_total),
                memory_text(row.memory_free_mib),
                match row.slots_reclaimed {
                    0 => state_word(row.state).into(),
                    kept => format!("{}, {kept} reclaimed", state_word(row.state)),
                },
                format!("{:.2}", f64::from(row.load_centi) / 100.0),
                span(row.up_s),
                row.confinement.level.clone(),
                row.arch.to_string(),
                has(row),
                row.node.addresses.first().map_or_else(|| "-".into(), ToString::to_string),
            ]
        })
        .collect();
    let head = [
        "NODE",
        "PARENT",
        "FREE/SLOTS",
        "MEMORY",
        "STATE",
        "LOAD",
        "SINCE",
        "CONFINES",
        "ARCH",
        "HAS",
        "ADDRESS",
    ];
    let right = [false, false, true, true, false, true, true, false, false, false, false];
    put(&table(head, right, &cells))
}

fn node_json(row: &NodeRow) -> Value {
    json!({
        "name": row.node.name,
        "id": row.node.id.to_string(),
        "incarnation": row.node.incarnation.0,
        "parent": row.parent,
        "slots_free": row.slots_free,
        "slots_total": row.slots_total,
        "slots_reclaimed": row.slots_reclaimed,
        "state": state_word(row.state),
        "load": f64::from(row.load_centi) / 100.0,
        "up_s": row.up_s,
        "arch": row.arch.to_string(),
        "memory_mib": row.memory_mib,
        "memory_free_mib": row.memory_free_mib,
        "resources": row.resources.iter().map(|r| json!({"name": r.name, "total": r.total, "free": r.free})).collect::<Vec<_>>(),
        "labels": row.labels,
        "confinement": row.confinement.level,
        "confinement_detail": row.confinement.detail,
        "addresses": row.node.addresses,
        "version": row.version,
        "resident_kib": row.resident_kib,
    })
}

/// `mutirao tree`
pub fn tree(pool: &Pool, output: Output) -> Result<()> {
    let rows = node_rows(pool)?;
    let mut children: BTreeMap<Option<&str>, Vec<&NodeRow>> = BTreeMap::new();
    for row in &rows {
        // A parent that did not answer leaves its children as roots of what can be drawn.
        let parent = row.parent.as_deref().filter(|parent| rows.iter().any(|row| row.node.name == *parent));
        children.entry(parent).or_default().push(row);
    }
    if output == Output::Json {
        let roots = children.get(&None).map(Vec::as_slice).unwrap_or_default();
        return print_json(roots.iter().map(|root| branch_json(root, &children, 0)).collect());
    }
    let mut text = String::new();
    for root in children.get(&None).map(Vec::as_slice).unwrap_or_default() {
        text += &format!("{}\n", leaf_text(root));
        draw(root, &children, "", 0, &mut text);
    }
    put(&text)
}

/// Deeper than any tree can be: what is drawn ends here even if the answers disagree.
const DRAWN_DEPTH_MAX: usize = mutirao_wire::limits::DEPTH_MAX + 1;

type Children<'a> = BTreeMap<Option<&'a str>, Vec<&'a NodeRow>>;

fn leaf_text(row: &NodeRow) -> String {
    format!("{}  {}/{} slots free", row.node.name, row.slots_free, row.slots_total)
}

fn draw(row: &NodeRow, children: &Children<'_>, indent: &str, depth: usize, text: &mut String) {
    let below = children.get(&Some(row.node.name.as_str())).map(Vec::as_slice).unwrap_or_default();
    if depth == DRAWN_DEPTH_MAX {
        return;
    }
    for (i, child) in below.iter().enumerate() {
        let last = i + 1 == below.len();
        *text += &format!("{indent}{}{}\n", if last { "└─ " } else { "├─ " }, leaf_text(child));
        draw(child, children, &format!("{indent}{}", if last { "   " } else { "│  " }), depth + 1, text);
    }
}

fn branch_json(row: &NodeRow, children: &Children<'_>, depth: usize) -> Value {
    let below = children.get(&Some(row.node.name.as_str())).map(Vec::as_slice).unwrap_or_default();
    let below: Vec<Value> = match depth {
        DRAWN_DEPTH_MAX => Vec::new(),
        _ => below.iter().map(|child| branch_json(child, children, depth + 1)).collect(),
    };
    json!({
        "name": row.node.name,
        "slots_free": row.slots_free,
        "slots_total": row.slots_total,
        "children": below,
    })
}

/// `mutirao apps`
pub fn apps(pool: &Pool, output: Output) -> Result<()> {
    let me = pool.app();
    let mut rows: Vec<AppRow> = ask(pool, Topic::Apps, None)?
        .into_iter()
        .filter_map(|row| match row {
            Row::App(row) if row.app != me => Some(row),
            _ => None,
        })
        .collect();
    sort(&mut rows, |a, b| (b.up_s, a.app).cmp(&(a.up_s, b.app)));
    if output == Output::Json {
        let rows = rows.iter().map(|row| {
            json!({
                "id": row.app.to_string(), "name": row.name, "user": row.user, "home": row.home,
                "pid": row.pid, "leases": row.leases, "slots": row.slots, "up_s": row.up_s,
            })
        });
        return print_json(rows.collect());
    }
    let cells: Vec<[String; 7]> = rows
        .into_iter()
        .map(|row| {
            let id = row.app.to_string()[..8].to_owned();
            [id, row.name, row.user, row.home, row.pid.to_string(), row.slots.to_string(), span(row.up_s)]
        })
        .collect();
    let head = ["APPLICATION", "NAME", "USER", "HOME", "PID", "SLOTS", "SINCE"];
    put(&table(head, [false, false, false, false, true, true, true], &cells))
}

/// `mutirao ps`
pub fn workers(pool: &Pool, output: Output) -> Result<()> {
    let mut rows: Vec<WorkerRow> = ask(pool, Topic::Workers { app: None }, None)?
        .into_iter()
        .filter_map(|row| match row {
            Row::Worker(row) => Some(row),
            _ => None,
        })
        .collect();
    sort(&mut rows, |a, b| (&a.node, a.serial).cmp(&(&b.node, b.serial)));
    if output == Output::Json {
        let rows = rows.iter().map(|row| {
            json!({
                "node": row.node, "worker": row.serial, "app": row.app.to_string(), "name": row.app_name,
                "user": row.user, "pid": row.pid, "slots": row.slots, "operation": row.operation,
                "held_ms": row.held_ms, "state": row.state,
                "cpu_s": row.used.map(|used| used.cpu_us as f64 / 1e6),
                "resident_kib": row.used.map(|used| used.resident_kib),
            })
        });
        return print_json(rows.collect());
    }
    let cells: Vec<[String; 10]> = rows
        .into_iter()
        .map(|row| {
            [
                format!("{}/{}", row.node, row.serial),
                row.app.to_string()[..8].to_owned(),
                row.app_name,
                row.user,
                if row.pid == 0 { "-".into() } else { row.pid.to_string() },
                row.operation.unwrap_or_else(|| "-".into()),
                row.state,
                span(row.held_ms / 1000),
                row.used.map_or_else(|| "-".into(), |used| format!("{:.2}", used.cpu_us as f64 / 1e6)),
                row.used.map_or_else(|| "-".into(), |used| bytes(used.resident_kib * 1024)),
            ]
        })
        .collect();
    let head =
        ["WORKER", "APPLICATION", "NAME", "USER", "PID", "OPERATION", "STATE", "HELD FOR", "CPU s", "MEMORY"];
    put(&table(head, [false, false, false, false, true, false, false, true, true, true], &cells))
}

/// Which plugins to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which<'a> {
    /// Those kept.
    Kept,
    /// Those waiting for approval.
    Pending,
    /// The one so named, or whose id begins so.
    One(&'a str),
}

fn approval_word(approval: Approval) -> &'static str {
    match approval {
        Approval::None => "by policy",
        Approval::Pending => "pending",
        Approval::Approved => "approved",
        Approval::Denied => "denied",
    }
}

/// `mutirao plugin ls | pending | show`
pub fn plugins(pool: &Pool, output: Output, which: Which<'_>) -> Result<()> {
    let mut rows: Vec<PluginRow> = ask(pool, Topic::Plugins, None)?
        .into_iter()
        .filter_map(|row| match row {
            Row::Plugin(row) => Some(row),
            _ => None,
        })
        .filter(|row| match which {
            Which::Kept => true,
            Which::Pending => row.approval == Approval::Pending,
            Which::One(name) => row.name == name || row.plugin.to_string().starts_with(name),
        })
        .collect();
    sort(&mut rows, |a, b| (&a.name, a.plugin, &a.node).cmp(&(&b.name, b.plugin, &b.node)));
    if output == Output::Json {
        return print_json(rows.iter().map(plugin_json).collect());
    }
    if let Which::One(name) = which {
        if rows.is_empty() {
            anyhow::bail!(
                "no node keeps a plugin called `{name}` or whose id begins so; see `mutirao plugin ls`"
            );
        }
        let mut text = String::new();
        let mut shown = None;
        for row in &rows {
            if shown != Some(row.plugin) {
                text += &format!("plugin {}  {}  {}\n", row.plugin, row.name, bytes(row.bytes));
                shown = Some(row.plugin);
                if !row.operations.is_empty() {
                    text += &format!("  operations: {}\n", row.operations.join(", "));
                }
            }
            let kept = if row.kept { "kept" } else { "not kept" };
            let (accepted, user) = (approval_word(row.approval), &row.user);
            text += &format!(
                "  {}: {kept}, {accepted}, {} lease(s), asked for by {user}\n",
                row.node, row.leases
            );
        }
        return put(&text);
    }
    let cells: Vec<[String; 8]> = rows
        .into_iter()
        .map(|row| {
            [
                row.plugin.short(),
                row.name,
                row.node,
                row.user,
                bytes(row.bytes),
                if row.kept { "yes" } else { "no" }.into(),
                approval_word(row.approval).into(),
                row.leases.to_string(),
            ]
        })
        .collect();
    let head = ["PLUGIN", "NAME", "NODE", "USER", "SIZE", "KEPT", "ACCEPTED", "LEASES"];
    put(&table(head, [false, false, false, false, true, false, false, true], &cells))
}

fn plugin_json(row: &PluginRow) -> Value {
    json!({
        "id": row.plugin.to_string(), "name": row.name, "node": row.node, "user": row.user,
        "size_bytes": row.bytes, "program": row.program.map(|hash| hash.to_string()),
        "operations": row.operations, "kept": row.kept, "approval": approval_word(row.approval),
        "leases": row.leases,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_names_count_as_numbers() {
        let mut names = ["n10", "n2", "lab", "n1"];
        names.sort_by_key(|name| natural(name));
        assert_eq!(names, ["lab", "n1", "n2", "n10"]);
    }
}
