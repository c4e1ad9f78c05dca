//! `mutirao charter`: what the pool's administrators have set.

use crate::args::Output;
use crate::diff::diff;
use crate::known::{Known, is_id};
use crate::list::ask;
use crate::output::remark;
use crate::output::{put, utc};
use crate::reading;
use crate::sorted::sort;
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use mutirao::raw::Pool;
use mutirao_trust::{CHARTER_TEXT_BYTES_MAX, Charter};
use mutirao_wire::charter::{CharterChange, CharterRow, CharterVersion, Who};
use mutirao_wire::query::{Row, Topic};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command as Process;
use std::time::{Duration, Instant};

/// How long a change may take to reach all nodes before those that lack it are named.
const SPREAD: Duration = Duration::from_secs(15);
/// How often a small change is made again when another administrator's came in between.
const TRIES: u32 = 3;

/// What to do with the charter.
#[derive(Debug, Subcommand)]
pub enum CharterCommand {
    /// Print the charter that is in force, and say which nodes have it
    #[command(after_help = "Example: mutirao charter show > charter.toml")]
    Show,
    /// Change it: with $VISUAL or $EDITOR, or to the content of a file
    #[command(after_help = "\
An administrator's key must lie on this machine. The text is checked, and a mistake named with its line,
before anything changes; then every node that can be reached has it within seconds, and the others when
they are met again.

Examples:
  mutirao charter edit
  mutirao charter edit charter.toml")]
    Edit(EditArgs),
    /// Print who changed what when: the last 32 versions
    #[command(after_help = "Example: mutirao charter history --output json")]
    History,
    /// Let a node or a user in no longer: links to it are closed, its leases end
    #[command(after_help = "\
Examples:
  mutirao charter revoke lab7 --because stolen         the node lab7 (and a user of that name)
  mutirao charter revoke --as user eve                 a user of the pool
  mutirao charter revoke ben@lab3                      a user of one node
  mutirao charter revoke 3fa9c1d27e5b8a60              one key, by 16 or more digits of its id")]
    Revoke(RevokeArgs),
    /// Let a node or a user in again
    #[command(after_help = "Example: mutirao charter restore lab7")]
    Restore(RestoreArgs),
}

/// Options of `charter edit`.
#[derive(Debug, Args)]
pub struct EditArgs {
    /// File with the whole new text (`-`: standard input)
    pub file: Option<PathBuf>,
}

/// What a name means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum As {
    /// A node
    Node,
    /// A user
    User,
}

/// Options of `charter revoke`.
#[derive(Debug, Args)]
pub struct RevokeArgs {
    /// A name, NAME@NODE, or 16 or more digits of an id
    pub who: String,
    /// Only the node, or only the user, of that name; both unless said
    #[arg(long = "as", value_enum)]
    pub only: Option<As>,
    /// What they are told
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub because: String,
}

/// Options of `charter restore`.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// As it stands in the charter
    pub who: String,
}

/// `mutirao charter`
pub fn run(pool: &Pool, command: &CharterCommand, output: Output) -> Result<()> {
    match command {
        CharterCommand::Show => show(pool, output),
        CharterCommand::Edit(args) => edit(pool, args),
        CharterCommand::History => history(pool, output),
        CharterCommand::Revoke(args) => revoke(pool, args),
        CharterCommand::Restore(args) => restore(pool, &args.who),
    }
}

/// The versions this node keeps, newest first.
fn kept(pool: &Pool) -> Result<Vec<CharterRow>> {
    let rows = ask(pool, Topic::CharterHistory, None)?;
    let charter = |row| match row {
        Row::Charter(row) => Some(Ok(row)),
        Row::Failed { node, text } => Some(Err(anyhow::anyhow!("{node}: {text}"))),
        _ => None,
    };
    rows.into_iter().filter_map(charter).collect()
}

/// The version in force: the default text, under number 0, where there is none yet.
pub fn in_force(pool: &Pool) -> Result<CharterRow> {
    let none = || CharterRow {
        node: String::new(),
        version: CharterVersion::default(),
        previous: [0; 32],
        by: String::new(),
        signed_unix_ms: 0,
        text: Charter::default().to_text(),
    };
    Ok(kept(pool)?.into_iter().next().unwrap_or_else(none))
}

/// Which version each node has.
fn versions(pool: &Pool) -> Result<Vec<(String, CharterVersion)>> {
    let rows = ask(pool, Topic::CharterVersions, None)?;
    let version = |row| match row {
        Row::Charter(row) => Some((row.node, row.version)),
        _ => None,
    };
    let mut versions: Vec<_> = rows.into_iter().filter_map(version).collect();
    sort(&mut versions, Ord::cmp);
    Ok(versions)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn show(pool: &Pool, output: Output) -> Result<()> {
    let row = in_force(pool)?;
    let nodes = versions(pool)?;
    if output == Output::Json {
        let charter = Charter::parse_known(&row.text)?;
        let nodes = nodes.iter().map(|(node, version)| {
            json!({"node": node, "version": version.number, "has_it": *version == row.version})
        });
        let value = json!({
            "version": row.version.number, "hash": hex(&row.version.hash), "by": row.by,
            "signed_unix_ms": row.signed_unix_ms, "text": row.text,
            "charter": serde_json::to_value(charter)?, "nodes": nodes.collect::<Vec<Value>>(),
        });
        return put(&format!("{value:#}\n"));
    }
    put(&row.text)?;
    let have = nodes.iter().filter(|(_, version)| *version == row.version).count();
    match row.version.number {
        0 => remark!("This pool has no charter yet; these are the defaults."),
        number => remark!(
            "version {number}, by {}, {}; on {have} of {} nodes",
            row.by,
            utc(row.signed_unix_ms / 1000),
            nodes.len()
        ),
    }
    Ok(())
}

fn edit(pool: &Pool, args: &EditArgs) -> Result<()> {
    let before = in_force(pool)?;
    let (text, draft) = match &args.file {
        Some(path) => (reading::text(path, CHARTER_TEXT_BYTES_MAX as u64)?, None),
        None => {
            let (text, draft) = edited(&before.text)?;
            (text, Some(draft))
        }
    };
    if draft.is_some() && text == before.text {
        remark!("nothing was changed");
        return Ok(());
    }
    if text.trim().is_empty() {
        bail!("the text is empty; to go back to what is set from the start, write `admission = \"open\"`");
    }
    let rows = Charter::parse(&text)
        .map_err(anyhow::Error::from)
        .and_then(|_| made(ask(pool, Topic::EditCharter { text, base: before.version }, None)?));
    let version = match (rows, draft) {
        (Ok(version), _) => version,
        (Err(error), None) => return Err(error),
        (Err(error), Some(draft)) => {
            let path = draft.keep().context("your text could not be kept")?;
            bail!("{error:#}\nyour text is kept: mutirao charter edit {}", path.display());
        }
    };
    if !report(pool, version)? {
        bail!(
            "another administrator's version {} won; see `mutirao charter history`, and edit again",
            version.number
        );
    }
    Ok(())
}

/// What the user's editor makes of `text`, and the file it was made in.
fn edited(text: &str) -> Result<(String, tempfile::TempPath)> {
    let editor = ["VISUAL", "EDITOR"].iter().filter_map(std::env::var_os).find(|value| !value.is_empty());
    let editor = editor.context("set EDITOR to an editor, or give a file: mutirao charter edit FILE")?;
    let mut file = tempfile::Builder::new().prefix("charter-").suffix(".toml").tempfile()?;
    file.write_all(text.as_bytes())?;
    let draft = file.into_temp_path();
    // As others do: the value may carry arguments.
    let line = format!("{} \"$1\"", editor.to_string_lossy());
    let status = Process::new("sh").args(["-c", &line, "sh"]).arg(&*draft).status();
    let status = status.with_context(|| format!("cannot start {}", editor.to_string_lossy()))?;
    if !status.success() {
        bail!("the editor failed ({status}); nothing was changed");
    }
    Ok((reading::text(&draft, CHARTER_TEXT_BYTES_MAX as u64)?, draft))
}

/// Which version was made, or why none.
fn made(rows: Vec<Row>) -> Result<CharterVersion> {
    for row in rows {
        match row {
            Row::Charter(row) => return Ok(row.version),
            Row::Failed { node, text } => bail!("{node}: {text}"),
            _ => {}
        }
    }
    bail!("the node did not say what became of the change")
}

/// Makes small changes, again if another administrator's came in between, and says who has them.
pub fn change(pool: &Pool, changes: &[CharterChange]) -> Result<()> {
    for _ in 0..TRIES {
        let version = made(ask(pool, Topic::ChangeCharter(changes.to_vec()), None)?)?;
        if report(pool, version)? {
            return Ok(());
        }
    }
    bail!(
        "other administrators change the charter at the same time; see `mutirao charter history`, and try again"
    )
}

/// Waits until all nodes have `version`, and says who has it and who not yet. `false` if another one won.
fn report(pool: &Pool, version: CharterVersion) -> Result<bool> {
    let start = Instant::now();
    loop {
        let nodes = versions(pool)?;
        if nodes.iter().any(|(_, other)| *other > version && other.number == version.number) {
            return Ok(false);
        }
        let behind: Vec<&str> =
            nodes.iter().filter(|(_, has)| *has < version).map(|(node, _)| node.as_str()).collect();
        if behind.is_empty() {
            remark!("version {} of the charter is in force on all {} nodes", version.number, nodes.len());
            return Ok(true);
        }
        if start.elapsed() >= SPREAD {
            remark!(
                "version {} of the charter is in force on {} of {} nodes; not yet on {}",
                version.number,
                nodes.len() - behind.len(),
                nodes.len(),
                behind.join(", ")
            );
            return Ok(true);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn revoke(pool: &Pool, args: &RevokeArgs) -> Result<()> {
    let reason = args.because.clone();
    let revoke = |who: Who| CharterChange::Revoke { who, reason: reason.clone() };
    let (node, user) = (Who::Node(args.who.clone()), Who::User(args.who.clone()));
    let changes = match args.only {
        Some(As::Node) => vec![revoke(node)],
        Some(As::User) => vec![revoke(user)],
        None if args.who.contains('@') => vec![revoke(user)],
        None => vec![revoke(node), revoke(user)],
    };
    let here = pool.node();
    let names_here =
        if is_id(&args.who) { here.id.to_string().starts_with(&args.who) } else { here.name == args.who };
    if names_here && args.only != Some(As::User) {
        bail!(
            "`{}` is the node through which this is said, and would cut itself off from the pool: revoke it from \
             another (`--node NAME`, or on another machine), or with `--as user` the user of that name",
            here.name
        );
    }
    if !is_id(&args.who) {
        let known = Known::look(pool, &Charter::parse_known(&in_force(pool)?.text)?)?;
        let (node, user) = (known.node(&args.who), known.user(&args.who));
        let note = match args.only {
            Some(As::Node) => node,
            Some(As::User) => user,
            None if args.who.contains('@') => user,
            None => node.zip(user).map(|_| {
                format!(
                    "neither a node nor a user `{}` is seen in the pool now; the name is denied all the same",
                    args.who
                )
            }),
        };
        note.into_iter().for_each(|note| remark!("mutirao: {note}"));
    }
    change(pool, &changes)
}

fn restore(pool: &Pool, who: &str) -> Result<()> {
    let deny = Charter::parse_known(&in_force(pool)?.text)?.deny;
    let mut changes = Vec::new();
    if deny.nodes.contains_key(who) {
        changes.push(CharterChange::Restore(Who::Node(who.to_owned())));
    }
    if deny.users.contains_key(who) {
        changes.push(CharterChange::Restore(Who::User(who.to_owned())));
    }
    if changes.is_empty() {
        bail!("`{who}` is not on the deny list; see `mutirao charter show`");
    }
    change(pool, &changes)
}

fn history(pool: &Pool, output: Output) -> Result<()> {
    let kept = kept(pool)?;
    // What is in force, and what that was made from; the rest lost to another version of its number.
    let mut line = BTreeSet::new();
    let mut at = kept.first().map(|row| row.version.hash);
    while let Some(row) = at.and_then(|hash| kept.iter().find(|row| row.version.hash == hash)) {
        at = line.insert(row.version.hash).then_some(row.previous);
    }
    let mut text = String::new();
    let mut values = Vec::new();
    for row in &kept {
        let lost = !line.contains(&row.version.hash);
        let before = kept.iter().find(|before| before.version.hash == row.previous);
        let changes = diff(before.map_or("", |before| &before.text), &row.text);
        let at = utc(row.signed_unix_ms / 1000);
        let note = if lost { "  (lost to another one)" } else { "" };
        text += &format!("version {}  {at}  by {}{note}\n", row.version.number, row.by);
        match before {
            None if row.version.number > 1 => text += "  (what it was made from is not kept here)\n",
            _ => changes.lines().for_each(|line| text += &format!("  {line}\n")),
        }
        values.push(json!({
            "version": row.version.number, "hash": hex(&row.version.hash), "previous": hex(&row.previous),
            "by": row.by, "signed_unix_ms": row.signed_unix_ms, "lost": lost, "diff": changes,
        }));
    }
    match output {
        Output::Json => put(&format!("{:#}\n", Value::Array(values))),
        Output::Text => put(&text),
    }
}
