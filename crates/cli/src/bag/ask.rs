//! What can be asked of a bag, and ordered, wherever that is: where it lies, a process does it there.

use super::control::{self, Order};
use super::place::Place;
use super::{check, kept, show};
use crate::args::Output as Form;
use crate::output::remark;
use crate::output::{counted, put};
use anyhow::{Result, bail};
use mutirao_bag::Added;
use serde::{Deserialize, Serialize};

/// Exit code when a bag that is not over is followed and nobody runs it.
pub const NOT_OVER: u8 = 3;

/// One question or order; its answer is what the command of that name prints.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ask {
    /// The bag's row among others, as JSON.
    Row,
    Show {
        tasks: Option<String>,
    },
    Explain {
        tasks: Option<String>,
    },
    Results {
        tasks: Option<String>,
        stderr: bool,
    },
    Export,
    Watch,
    Wait,
    Check,
    Add(Added),
    Cancel {
        tasks: String,
    },
    Retry {
        tasks: String,
        /// Without the state that their attempts saved.
        afresh: bool,
    },
    /// Have its nodes go on with it.
    Resume,
    /// Remove it where it was submitted.
    Remove {
        unfinished: bool,
    },
}

impl Ask {
    /// Whether it may be asked a second time where it is not known what came of the first.
    pub fn is_repeatable(&self) -> bool {
        !matches!(self, Ask::Add(_))
    }

    /// Whether only the node can do it where the bag was submitted.
    pub fn is_for_origin(&self) -> bool {
        matches!(self, Ask::Resume | Ask::Remove { .. })
    }

    /// Does it, where the bag lies; the exit code. `node` is the one of this machine to go through.
    pub fn carry_out(&self, place: &Place, node: Option<&str>, form: Form) -> Result<u8> {
        match self {
            Ask::Row => put(&format!("{}\n", show::row(place, &place.read()?.0)))?,
            Ask::Show { tasks } => show::show(place, tasks.as_deref(), form)?,
            Ask::Explain { tasks } => show::explain(place, tasks.as_deref().unwrap_or("all"), form)?,
            Ask::Results { tasks, stderr } => show::results(place, tasks.as_deref(), *stderr, form)?,
            Ask::Export => show::export(place, form)?,
            Ask::Watch => return follow(place, true, form),
            Ask::Wait => return follow(place, false, form),
            Ask::Check => return check::here(place, form),
            Ask::Add(added) => drop(order(place, &Order::Add(vec![added.clone()]))?),
            Ask::Cancel { tasks } => {
                let count = order(place, &Order::Cancel(tasks.clone()))?;
                remark!("mutirao: {} cancelled", counted(count, "task"));
            }
            Ask::Retry { tasks, afresh } => {
                let retry = if *afresh { Order::RetryAfresh } else { Order::Retry };
                let count = order(place, &retry(tasks.clone()))?;
                remark!("mutirao: {} will be tried again", counted(count, "task"));
            }
            Ask::Resume => kept::background(place, node)?,
            Ask::Remove { unfinished } => place.remove(*unfinished)?,
        }
        Ok(0)
    }
}

/// Gives an order; how many tasks it concerned.
fn order(place: &Place, order: &Order) -> Result<u64> {
    let (count, kept) = control::give(place, order)?;
    if !kept {
        remark!("mutirao: {}", show::nobody_runs(place));
    }
    Ok(count)
}

/// Follows a bag to its end.
fn follow(place: &Place, shows: bool, form: Form) -> Result<u8> {
    let last = control::watch(place, |value| {
        if !shows {
            return Ok(());
        }
        let number = |name: &str| value[name].as_u64().unwrap_or(0);
        let bad = number("failed") + number("set_aside") + number("barred");
        let line = match form {
            Form::Json => format!("{value}\n"),
            Form::Text => {
                let cancelled = match number("cancelled") {
                    0 => String::new(),
                    count => format!(", {count} cancelled"),
                };
                let mut waits: String = control::waits(value).map(|(_, why)| format!("; {why}")).collect();
                waits.extend(control::unplaced(value).map(|why| format!("; {why}")));
                format!(
                    "{} done, {} to do, {} running on {}, {bad} failed{cancelled}{waits}\n",
                    number("done"),
                    number("waiting") + number("open"),
                    number("running"),
                    counted(number("workers"), "worker"),
                )
            }
        };
        put(&line)
    })?;
    if let Some(why) = control::unplaced(&last) {
        remark!("mutirao: {why}; nothing is lost, and it is tried again while a node keeps the bag");
        return Ok(1);
    }
    if last["over"] != true {
        remark!("mutirao: it is not over, and {}", show::nobody_runs(place));
        return Ok(NOT_OVER);
    }
    let went_wrong = ["failed", "set_aside", "cancelled", "barred"].iter().any(|what| last[what] != 0);
    Ok(u8::from(went_wrong))
}

/// The tasks of an order, which names them.
pub fn named(tasks: Option<&String>) -> Result<String> {
    match tasks {
        Some(tasks) => Ok(tasks.clone()),
        None => bail!("say which tasks; `all` are all of them"),
    }
}
