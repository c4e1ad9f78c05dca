//! `mutirao admin`: whom the pool's administrators let allocate by itself.

use crate::args::Output;
use crate::charter;
use crate::known::Known;
use crate::list::ask;
use crate::output::remark;
use crate::output::{put, table, utc};
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use mutirao::raw::Pool;
use mutirao_trust::{AdmissionMode, Charter, app_id};
use mutirao_wire::charter::{CharterChange, Who};
use mutirao_wire::query::{AppRow, Row, Topic};
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

/// What to do about who may allocate.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Where the charter says admission = \"admin\", an application allocates and releases by itself only once an
administrator has let it, or its user, in. Elsewhere these rights are kept and not asked for.")]
pub enum AdminCommand {
    /// Give applications or users slots for a time
    #[command(after_help = "\
Examples:
  mutirao admin grant 3fa9c1 -n 8              an application that runs (`mutirao apps`)
  mutirao admin grant ana -n 64 --hours 2      all applications of a user together")]
    Grant(GrantArgs),
    /// Let applications or users in until they are removed
    #[command(after_help = "Example: mutirao admin insert ana ben@lab3 -n 64")]
    Insert(InsertArgs),
    /// Take the right away; the leases held under it end
    #[command(after_help = "Example: mutirao admin remove 3fa9c1 ben@lab3")]
    Remove(RemoveArgs),
    /// List who may allocate, and what they hold
    #[command(after_help = "Example: mutirao admin ls --output json")]
    Ls,
}

/// Options of `admin grant`.
#[derive(Debug, Args)]
pub struct GrantArgs {
    /// Beginning of an application's id, a user, or NAME@NODE
    #[arg(required = true)]
    pub who: Vec<String>,
    /// Most slots each may hold at a time
    #[arg(short = 'n', long = "slots", value_parser = clap::value_parser!(u32).range(1..))]
    pub slots: u32,
    /// How long the right lasts
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=87_600))]
    pub hours: u32,
}

/// Options of `admin insert`.
#[derive(Debug, Args)]
pub struct InsertArgs {
    /// Beginning of an application's id, a user, or NAME@NODE
    #[arg(required = true)]
    pub who: Vec<String>,
    /// Most slots each may hold at a time
    #[arg(short = 'n', long = "slots", value_parser = clap::value_parser!(u32).range(1..))]
    pub slots: u32,
}

/// Options of `admin remove`.
#[derive(Debug, Args)]
pub struct RemoveArgs {
    /// As `mutirao admin ls` shows them
    #[arg(required = true)]
    pub who: Vec<String>,
}

/// `mutirao admin`
pub fn run(pool: &Pool, command: &AdminCommand, output: Output) -> Result<()> {
    match command {
        AdminCommand::Grant(args) => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
            admit(pool, &args.who, args.slots, Some(now.as_secs() + u64::from(args.hours) * 3600))
        }
        AdminCommand::Insert(args) => admit(pool, &args.who, args.slots, None),
        AdminCommand::Remove(args) => remove(pool, &args.who),
        AdminCommand::Ls => list(pool, output),
    }
}

fn admit(pool: &Pool, who: &[String], slots: u32, until_unix_s: Option<u64>) -> Result<()> {
    let known = Known::look(pool, &Charter::parse_known(&charter::in_force(pool)?.text)?)?;
    let mut changes = Vec::new();
    for text in who {
        let who = pool.who(text)?;
        match &who {
            Who::App(app) => remark!("application {}: {slots} slots", &app.to_string()[..8]),
            Who::User(name) | Who::Node(name) => {
                remark!("user {name}: {slots} slots");
                known.user(name).into_iter().for_each(|note| remark!("mutirao: {note}"));
            }
        }
        changes.push(CharterChange::Admit { who, slots, until_unix_s });
    }
    charter::change(pool, &changes)?;
    if Charter::parse_known(&charter::in_force(pool)?.text)?.admission == AdmissionMode::Open {
        remark!(
            "The pool's admission is open: whomever the owners accept may allocate. `mutirao charter edit` makes it \
             \"admin\"."
        );
    }
    Ok(())
}

fn remove(pool: &Pool, who: &[String]) -> Result<()> {
    let admitted = Charter::parse_known(&charter::in_force(pool)?.text)?.admitted;
    let mut changes = Vec::new();
    for text in who {
        let begins = |id: &&String| text.len() >= 4 && id.starts_with(text.as_str());
        let apps: Vec<&String> = admitted.applications.keys().filter(begins).collect();
        let who = match apps[..] {
            _ if admitted.users.contains_key(text) => Who::User(text.clone()),
            [one] => Who::App(app_id(one).context("the charter names an application in a way that is none")?),
            [] => bail!("`{text}` has no right to allocate; see `mutirao admin ls`"),
            _ => bail!("`{text}` names {} applications; give more digits", apps.len()),
        };
        changes.push(CharterChange::Dismiss(who));
    }
    charter::change(pool, &changes)
}

fn app_rows(pool: &Pool) -> Result<Vec<AppRow>> {
    let app = |row| match row {
        Row::App(row) => Some(row),
        _ => None,
    };
    Ok(ask(pool, Topic::Apps, None)?.into_iter().filter_map(app).collect())
}

fn list(pool: &Pool, output: Output) -> Result<()> {
    let charter = Charter::parse_known(&charter::in_force(pool)?.text)?;
    let apps = app_rows(pool)?;
    let held =
        |of: &dyn Fn(&AppRow) -> bool| apps.iter().filter(|app| of(app)).map(|app| app.slots).sum::<u32>();
    let mut rows = Vec::new();
    for (name, right) in &charter.admitted.users {
        let others = |app: &AppRow| {
            app.user == *name && !charter.admitted.applications.contains_key(&app.app.to_string())
        };
        // A user of the whole pool is listed by the node as one of its own.
        let slots = name.contains('@').then(|| held(&others));
        rows.push(("user", name.clone(), name.clone(), right, slots));
    }
    for (id, right) in &charter.admitted.applications {
        let app = apps.iter().find(|app| app.app.to_string() == *id);
        let name = app.map_or_else(|| "(not running)".into(), |app| format!("{} of {}", app.name, app.user));
        rows.push(("application", id.clone(), name, right, Some(app.map_or(0, |app| app.slots))));
    }
    if output == Output::Json {
        let rows = rows.iter().map(|(kind, who, name, right, held)| {
            json!({
                "kind": kind, "who": who, "name": name, "slots": right.slots, "held": held,
                "until_unix_s": right.until_unix_s(),
            })
        });
        return put(&format!("{:#}\n", Value::Array(rows.collect())));
    }
    if charter.admission == AdmissionMode::Open {
        remark!("The pool's admission is open: whomever the owners accept may allocate.");
    }
    let cells: Vec<[String; 6]> = rows
        .into_iter()
        .map(|(kind, who, name, right, held)| {
            let short = if kind == "application" { who[..8].to_owned() } else { who };
            let until = right.until_unix_s().map_or_else(|| "-".into(), utc);
            let held = held.map_or_else(|| "?".into(), |held| held.to_string());
            [kind.into(), short, name, held, right.slots.to_string(), until]
        })
        .collect();
    put(&table(
        ["KIND", "WHO", "NAME", "HELD", "SLOTS", "UNTIL"],
        [false, false, false, true, true, false],
        &cells,
    ))
}
