//! `mutirao group ls`, `show`, `logs` and `kill`: groups that run anywhere in the pool, and those that ran.

use super::row;
use crate::args::Output;
use crate::list::ask;
use crate::orders;
use crate::output::remark;
use crate::output::{put, span, table};
use crate::sorted::sort;
use anyhow::{Result, bail, ensure};
use clap::Args;
use mutirao::raw::Pool;
use mutirao_wire::query::{GroupRow, ProcessRow, Row, Topic};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Digits of an id that are shown at the least.
const ID_DIGITS: usize = 8;
/// A group that was told to end has done so by then: its node sees to that,
const END_PATIENCE: Duration = Duration::from_secs(8);
/// and is asked so often.
const END_LOOK: Duration = Duration::from_millis(50);

/// Options of `group ls`.
#[derive(Debug, Args)]
#[command(after_help = "\
A group that is over is remembered by the node where it was launched: for a day, until 32 others have
ended after it, or until that node is started again.

Examples:
  mutirao group ls
  mutirao group ls --all --output json")]
pub struct ListArgs {
    /// Those that are over, too
    #[arg(long, short)]
    pub all: bool,
}

/// A group that runs.
#[derive(Debug, Args)]
#[command(after_help = "\
All its processes are killed. How each ended and what it wrote last is told by the launcher, and
remembered, as after every other end; a launcher that does not answer within seconds is ended, too.

Examples:
  mutirao group kill mandel
  mutirao group kill 3fa9c1        the group whose id begins so (`mutirao group ls`)")]
pub struct GroupName {
    /// Its name, or the beginning of its id
    #[arg(value_name = "GROUP")]
    pub group: String,
}

/// Options of `group show`.
#[derive(Debug, Args)]
#[command(after_help = "\
Of each process: where it runs, how it stands, how often it was started again, how long it has run, its
processor time, and the most memory it held; of one that has ended also how. Of several groups of one
name the one that runs is shown, else the one that ended last; where that is not one, their ids are
named, to choose from.

Examples:
  mutirao group show mandel
  mutirao group show 3fa9c1 --output json      the group whose id begins so (`mutirao group ls --all`)")]
pub struct ShowArgs {
    /// The group's name, or the beginning of its id
    #[arg(value_name = "GROUP")]
    pub group: String,
}

/// Options of `group logs`.
#[derive(Debug, Args)]
#[command(after_help = "\
The last lines that processes have written to their standard errors, each with whose it is; of a
process that was started again, those of its present life. A group that is over keeps them as long as
`mutirao group ls --all` lists it.

Examples:
  mutirao group logs mandel
  mutirao group logs mandel gmandel.1")]
pub struct LogsArgs {
    /// The group's name, or the beginning of its id
    #[arg(value_name = "GROUP")]
    pub group: String,
    /// Only of this process, such as `gmandel.1`
    #[arg(value_name = "PROCESS")]
    pub process: Option<String>,
}

/// `mutirao group ls`
pub fn list(pool: &Pool, args: &ListArgs, output: Output) -> Result<()> {
    let groups = groups(pool)?.into_iter().filter(|row| args.all || row.ended.is_none());
    if output == Output::Json {
        let rows: Vec<_> = groups.map(|row| json_of(&row)).collect();
        return put(&format!("{:#}\n", json!(rows)));
    }
    let groups: Vec<GroupRow> = groups.collect();
    let rows: Vec<[String; 7]> = ids(&groups)
        .into_iter()
        .zip(groups)
        .map(|(id, row)| {
            let (ran, processes, state) = (span(row.up_s), row.processes.to_string(), state(&row));
            [id, row.name, row.user, row.home, processes, ran, state]
        })
        .collect();
    put(&table(
        ["GROUP", "NAME", "USER", "HOME", "PROCESSES", "RUNNING", "STATE"],
        [false, false, false, false, true, true, false],
        &rows,
    ))
}

/// `mutirao group show`
pub fn show(pool: &Pool, args: &ShowArgs, output: Output) -> Result<()> {
    let group = find_any(pool, &args.group)?;
    let mut processes = processes(pool, &group)?;
    if processes.iter().any(|process| process.end.is_none()) {
        add_uses(pool, &group, &mut processes)?;
    }
    if output == Output::Json {
        let mut value = json_of(&group);
        value["processes"] = processes.iter().map(row::json).collect();
        return put(&format!("{value:#}\n"));
    }
    if let Some((ago_s, text)) = &group.ended {
        remark!("mutirao: {} ago: {text}", span(*ago_s));
    }
    let rows: Vec<[String; 9]> = processes
        .iter()
        .map(|process| {
            let [ran, cpu, memory] = row::used(process);
            let end = process.end.as_ref().map_or_else(|| "-".into(), |end| end.text.clone());
            let restarts = row::restarts(process).to_string();
            let (name, state) = (process.process.clone(), process.state.clone());
            [name, process.node.clone(), row::worker(process), state, restarts, ran, cpu, memory, end]
        })
        .collect();
    put(&table(
        ["PROCESS", "NODE", "WORKER", "STATE", "RESTARTS", "RAN s", "CPU s", "MEMORY", "END"],
        [false, false, false, false, true, true, true, true, false],
        &rows,
    ))
}

/// `mutirao group logs`
pub fn logs(pool: &Pool, args: &LogsArgs, output: Output) -> Result<()> {
    let group = find_any(pool, &args.group)?;
    let mut wanted = processes(pool, &group)?;
    if let Some(name) = &args.process {
        wanted.retain(|process| process.process == *name);
        ensure!(
            !wanted.is_empty(),
            "the group `{}` has no process `{name}`; see `mutirao group show`",
            group.name
        );
    }
    let ended = last_lines(pool, &group)?;
    let mut rows = Vec::new();
    for process in wanted {
        let text = match ended.get(&process.rank) {
            Some(text) => text.clone(),
            None => lines_now(pool, &process)?,
        };
        rows.push((process.process, text));
    }
    if output == Output::Json {
        let rows: Vec<_> = rows
            .iter()
            .map(|(process, text)| json!({ "process": process, "lines": text.lines().collect::<Vec<_>>() }))
            .collect();
        return put(&format!("{:#}\n", json!(rows)));
    }
    let labelled = |(process, text): &(String, String)| {
        text.lines().map(|line| format!("{process}: {line}\n")).collect::<String>()
    };
    put(&rows.iter().map(labelled).collect::<String>())
}

/// What the processes of a group that have ended wrote last, by rank.
fn last_lines(pool: &Pool, group: &GroupRow) -> Result<BTreeMap<u32, String>> {
    let mut lines = BTreeMap::new();
    for row in ask(pool, Topic::LastLines { group: group.app }, Some(group.home.clone()))? {
        match row {
            Row::LastLines { rank, text } => drop(lines.insert(rank, text)),
            Row::Failed { node, text } => bail!("{node}: {text}"),
            _ => {}
        }
    }
    Ok(lines)
}

/// Adds what those that run use: their lenders know.
fn add_uses(pool: &Pool, group: &GroupRow, processes: &mut [ProcessRow]) -> Result<()> {
    let mut uses = BTreeMap::new();
    for row in ask(pool, Topic::Workers { app: Some(group.app) }, None)? {
        if let Row::Worker(row) = row
            && let Some(used) = row.used.and_then(|used| used.started)
        {
            uses.insert((row.node, row.serial), used);
        }
    }
    for process in processes.iter_mut().filter(|process| process.end.is_none()) {
        process.used = uses.get(&(process.node.clone(), process.serial)).copied().or(process.used);
    }
    Ok(())
}

/// What a process that runs wrote last, from its node.
fn lines_now(pool: &Pool, process: &ProcessRow) -> Result<String> {
    let worker = row::worker(process);
    for said in ask(pool, Topic::Stderr { worker }, Some(process.node.clone()))? {
        match said {
            Row::Done { text, .. } => return Ok(text),
            Row::Failed { node, text } => remark!("{node}: {text}"),
            _ => {}
        }
    }
    Ok(String::new())
}

/// `mutirao group kill`
pub fn kill(pool: &Pool, args: &GroupName) -> Result<()> {
    let group = find(pool, &args.group)?;
    orders::give(pool, Topic::Kill { what: group.app.to_string() }, None)?;
    let until = Instant::now() + END_PATIENCE;
    while runs(pool, &group)? {
        ensure!(
            Instant::now() < until,
            "the group `{}` has not ended so far; see `mutirao group ls`",
            group.name
        );
        std::thread::sleep(END_LOOK);
    }
    Ok(())
}

/// Whether its home says so.
fn runs(pool: &Pool, group: &GroupRow) -> Result<bool> {
    let rows = ask(pool, Topic::Groups, Some(group.home.clone()))?;
    Ok(rows.iter().any(|row| matches!(row, Row::Group(row) if row.app == group.app && row.ended.is_none())))
}

/// All groups that are known in the pool: those that run first, the oldest first.
fn groups(pool: &Pool) -> Result<Vec<GroupRow>> {
    let rows = ask(pool, Topic::Groups, None)?.into_iter();
    let mut groups: Vec<GroupRow> =
        rows.filter_map(|row| if let Row::Group(row) = row { Some(row) } else { None }).collect();
    let place = |row: &GroupRow| {
        let ago_s = row.ended.as_ref().map(|(ago_s, _)| *ago_s);
        (ago_s, std::cmp::Reverse(row.up_s), row.app)
    };
    sort(&mut groups, |a, b| place(a).cmp(&place(b)));
    Ok(groups)
}

/// The only group that runs by this name, or the beginning of this id.
pub fn find(pool: &Pool, wanted: &str) -> Result<GroupRow> {
    let mut groups = groups(pool)?;
    groups.retain(|row| row.ended.is_none());
    only(&groups, wanted)?
        .ok_or_else(|| anyhow::anyhow!("no group `{wanted}` runs in the pool; see `mutirao group ls`"))
}

/// The same, or if none runs the one that ended last.
fn find_any(pool: &Pool, wanted: &str) -> Result<GroupRow> {
    let (running, over): (Vec<GroupRow>, Vec<GroupRow>) =
        groups(pool)?.into_iter().partition(|row| row.ended.is_none());
    if let Some(group) = only(&running, wanted)? {
        return Ok(group);
    }
    only(&last(&over, wanted), wanted)?.ok_or_else(|| {
        anyhow::anyhow!(
            "no group `{wanted}` runs in the pool, and none is remembered; see `mutirao group ls --all`"
        )
    })
}

fn only(groups: &[GroupRow], wanted: &str) -> Result<Option<GroupRow>> {
    let found: Vec<GroupRow> = groups.iter().filter(|row| is_called(row, wanted)).cloned().collect();
    match &found[..] {
        [] => Ok(None),
        [group] => Ok(Some(group.clone())),
        _ => {
            let named = |(id, row): (String, &GroupRow)| format!("{id} (`{}`, {})", row.name, state(row));
            let ids: Vec<String> = ids(&found).into_iter().zip(&found).map(named).collect();
            bail!("`{wanted}` is {} groups, say which by its id: {}", found.len(), ids.join(", "))
        }
    }
}

/// Of those that are over, the last first: which of this name or id ended last. Several, if the seconds since then do not
/// tell: those of two homes may be off by one, as the two do not answer at the same moment.
fn last(over: &[GroupRow], wanted: &str) -> Vec<GroupRow> {
    let mut called = over.iter().filter(|row| is_called(row, wanted));
    let Some(first) = called.next() else { return Vec::new() };
    let ago_s = |row: &GroupRow| row.ended.as_ref().map_or(0, |(ago_s, _)| *ago_s);
    let may_be_later =
        |row: &&GroupRow| ago_s(row).saturating_sub(ago_s(first)) <= u64::from(row.home != first.home);
    std::iter::once(first).chain(called.filter(may_be_later)).cloned().collect()
}

fn is_called(row: &GroupRow, wanted: &str) -> bool {
    row.name == wanted || row.app.to_string().starts_with(wanted)
}

/// The beginnings of their ids: as short as tells each from the others, and not shorter than 8 digits.
fn ids(groups: &[GroupRow]) -> Vec<String> {
    let ids: Vec<String> = groups.iter().map(|row| row.app.to_string()).collect();
    let digits_max = ids.iter().map(String::len).max().unwrap_or_default();
    let are_apart =
        |digits: &usize| ids.iter().map(|id| &id[..*digits]).collect::<BTreeSet<_>>().len() == ids.len();
    let digits = (ID_DIGITS..digits_max).find(are_apart).unwrap_or(digits_max);
    ids.iter().map(|id| id[..digits].to_owned()).collect()
}

/// Whether it runs, or how it ended, in a cell.
fn state(row: &GroupRow) -> String {
    match &row.ended {
        None => "runs".into(),
        Some((ago_s, text)) => format!("{} ago: {}", span(*ago_s), first_line(text)),
    }
}

/// The processes of a group, by rank.
fn processes(pool: &Pool, group: &GroupRow) -> Result<Vec<ProcessRow>> {
    let rows = ask(pool, Topic::Processes { group: group.app }, Some(group.home.clone()))?.into_iter();
    let mut processes: Vec<ProcessRow> =
        rows.filter_map(|row| if let Row::Process(row) = row { Some(row) } else { None }).collect();
    sort(&mut processes, |a, b| a.rank.cmp(&b.rank));
    Ok(processes)
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default().trim_end_matches(super::report::WROTE_LAST)
}

fn json_of(row: &GroupRow) -> serde_json::Value {
    json!({
        "id": row.app.to_string(), "name": row.name, "user": row.user, "home": row.home, "pid": row.pid,
        "processes": row.processes, "up_s": row.up_s, "runs": row.ended.is_none(),
        "ended_ago_s": row.ended.as_ref().map(|(ago_s, _)| ago_s),
        "outcome": row.ended.as_ref().map(|(_, text)| text),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use mutirao_wire::AppId;

    const LAKE: u128 = 0x3fa9c1d2_000000000000000000000000;

    fn group(app: u128, home: &str, ended_ago_s: u64) -> GroupRow {
        GroupRow {
            app: AppId(app),
            name: "lake".into(),
            user: "ana@n1".into(),
            home: home.into(),
            pid: 7,
            processes: 1,
            up_s: 5,
            ended: Some((ended_ago_s, "it has ended".into())),
        }
    }

    fn chosen(over: &[GroupRow], wanted: &str) -> Result<Option<u128>, String> {
        let group = only(&last(over, wanted), wanted).map_err(|error| error.to_string())?;
        Ok(group.map(|group| group.app.0))
    }

    #[test]
    fn of_groups_of_one_name_the_last_is_meant_if_there_is_one_and_else_their_ids_are_named() {
        let (later, other) = (group(LAKE, "n1", 3), group(LAKE + 1, "n1", 4));
        assert_eq!(chosen(&[later.clone(), other.clone()], "lake"), Ok(Some(LAKE)));
        assert_eq!(chosen(std::slice::from_ref(&later), "sea"), Ok(None));
        for other in [group(LAKE + 1, "n1", 3), group(LAKE + 1, "n2", 4)] {
            let both = [later.clone(), other.clone()];
            let words = chosen(&both, "lake").unwrap_err();
            for row in &both {
                let id = row.app.to_string();
                assert!(words.contains(&id) && chosen(&both, &id) == Ok(Some(row.app.0)), "{words}");
            }
        }
        assert_eq!(chosen(&[later, group(LAKE + 1, "n2", 5)], "lake"), Ok(Some(LAKE)));
    }

    #[test]
    fn ids_are_shown_as_long_as_it_takes_to_tell_them_apart() {
        assert_eq!(ids(&[group(LAKE, "n1", 1), group(LAKE << 4, "n1", 1)]), ["3fa9c1d2", "fa9c1d20"]);
        let all = ids(&[group(LAKE, "n1", 1), group(LAKE + (1 << 92), "n1", 1)]);
        assert_eq!(all, ["3fa9c1d20", "3fa9c1d21"]);
        assert!(ids(&[]).is_empty());
    }
}
