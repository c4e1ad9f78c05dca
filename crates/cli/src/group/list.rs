//! `mutirao group ls`, `show`, `logs` and `kill`: groups that run anywhere in the pool.

use super::run::APP_PREFIX;
use crate::args::Output;
use crate::list::ask;
use crate::orders;
use crate::output::{put, span, table};
use anyhow::{Result, bail};
use clap::Args;
use mutirao::raw::Pool;
use mutirao_wire::query::{AppRow, Row, Topic, WorkerRow};
use serde_json::json;

/// A group that runs.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mutirao group show mandel
  mutirao group kill 3fa9c1        the group whose id begins so (`mutirao group ls`)")]
pub struct GroupName {
    /// Its name, or the beginning of its id
    #[arg(value_name = "GROUP")]
    pub group: String,
}

/// `mutirao group ls`
pub fn list(pool: &Pool, output: Output) -> Result<()> {
    let groups = groups(pool)?;
    if output == Output::Json {
        let rows: Vec<_> = groups.iter().map(json_of).collect();
        return put(&format!("{:#}\n", json!(rows)));
    }
    let rows: Vec<[String; 6]> = groups
        .iter()
        .map(|row| {
            let id = row.app.to_string()[..8].to_owned();
            let processes = row.leases.to_string();
            [id, name(row).into(), row.user.clone(), row.home.clone(), processes, span(row.up_s)]
        })
        .collect();
    put(&table(
        ["GROUP", "NAME", "USER", "HOME", "PROCESSES", "SINCE"],
        [false, false, false, false, true, true],
        &rows,
    ))
}

/// `mutirao group show`
pub fn show(pool: &Pool, args: &GroupName, output: Output) -> Result<()> {
    let group = find(pool, &args.group)?;
    let workers = workers(pool, &group)?;
    if output == Output::Json {
        let mut value = json_of(&group);
        let rows = workers.iter().map(|row| {
            json!({
                "worker": worker_name(row), "node": row.node, "pid": row.pid,
                "slots": row.slots, "state": row.state, "held_ms": row.held_ms,
            })
        });
        value["workers"] = rows.collect();
        return put(&format!("{value:#}\n"));
    }
    let rows: Vec<[String; 4]> = workers
        .iter()
        .map(|row| [worker_name(row), row.pid.to_string(), row.state.clone(), span(row.held_ms / 1000)])
        .collect();
    put(&table(["WORKER", "PID", "STATE", "SINCE"], [false, true, false, true], &rows))
}

/// `mutirao group logs`
pub fn logs(pool: &Pool, args: &GroupName) -> Result<()> {
    let group = find(pool, &args.group)?;
    for row in workers(pool, &group)? {
        let worker = worker_name(&row);
        for said in ask(pool, Topic::Stderr { worker: worker.clone() }, Some(row.node))? {
            if let Row::Done { text, .. } = said {
                put(&text.lines().map(|line| format!("{worker}: {line}\n")).collect::<String>())?;
            }
        }
    }
    Ok(())
}

/// `mutirao group kill`
pub fn kill(pool: &Pool, args: &GroupName) -> Result<()> {
    let group = find(pool, &args.group)?;
    orders::give(pool, Topic::Kill { what: group.app.to_string() }, None)
}

fn groups(pool: &Pool) -> Result<Vec<AppRow>> {
    let rows = ask(pool, Topic::Apps, None)?.into_iter();
    let mut groups: Vec<AppRow> = rows
        .filter_map(|row| if let Row::App(row) = row { Some(row) } else { None })
        .filter(|row| row.name.starts_with(APP_PREFIX))
        .collect();
    groups.sort_by(|a, b| (b.up_s, a.app).cmp(&(a.up_s, b.app)));
    Ok(groups)
}

/// The only group that runs by this name, or the beginning of this id.
pub fn find(pool: &Pool, wanted: &str) -> Result<AppRow> {
    let is_it = |row: &AppRow| name(row) == wanted || row.app.to_string().starts_with(wanted);
    let mut found: Vec<AppRow> = groups(pool)?.into_iter().filter(is_it).collect();
    match (found.pop(), found.len()) {
        (Some(group), 0) => Ok(group),
        (Some(_), others) => {
            bail!("{} groups are called `{wanted}`: say which by its id (`mutirao group ls`)", others + 1)
        }
        (None, _) => bail!("no group `{wanted}` runs in the pool; see `mutirao group ls`"),
    }
}

fn workers(pool: &Pool, group: &AppRow) -> Result<Vec<WorkerRow>> {
    let rows = ask(pool, Topic::Workers, None)?.into_iter();
    let mut workers: Vec<WorkerRow> = rows
        .filter_map(|row| if let Row::Worker(row) = row { Some(row) } else { None })
        .filter(|row| row.app == group.app)
        .collect();
    workers.sort_by(|a, b| (&a.node, a.serial).cmp(&(&b.node, b.serial)));
    Ok(workers)
}

fn worker_name(row: &WorkerRow) -> String {
    format!("{}/{}", row.node, row.serial)
}

/// What people call it.
pub fn name(row: &AppRow) -> &str {
    row.name.strip_prefix(APP_PREFIX).unwrap_or(&row.name)
}

fn json_of(row: &AppRow) -> serde_json::Value {
    json!({
        "id": row.app.to_string(), "name": name(row), "user": row.user, "home": row.home, "pid": row.pid,
        "processes": row.leases, "slots": row.slots, "up_s": row.up_s,
    })
}
