//! `mutirao bag check`: whether the journal of a bag is whole, on each node that keeps it.

use super::ask::Ask;
use super::elsewhere::{self, Found};
use super::place::Place;
use super::shared::Damage;
use super::{kept, show, visit};
use crate::args::{Cli, Output as Form};
use crate::output::put;
use anyhow::{Context, Result, bail};
use mutirao::raw::Pool;
use mutirao_wire::NodeRef;
use mutirao_wire::bag::Keep;
use serde_json::{Value, json};
use std::fmt::Write;

/// Checks a bag wherever it is kept; the exit code.
pub fn check(cli: &Cli, what: &str) -> Result<u8> {
    let (own, keep, pool) = match elsewhere::find(cli, what)? {
        Found::Here(place) => {
            let keep = place.kept()?.filter(|keep| keep.members.len() > 1);
            let Some(keep) = keep else { return here(&place, cli.output) };
            let own = of_member(&keep.members[0], Ok(value(&place)));
            let pool = kept::open_pool(Some(&keep.members[0].name));
            (Some(own), keep, pool)
        }
        Found::Elsewhere(pool, bag) => (None, bag.keep().clone(), Ok(pool)),
    };
    let others = &keep.members[usize::from(own.is_some())..];
    let asked = others.iter().map(|member| {
        let said = match &pool {
            Ok(pool) => ask(pool, &keep, member),
            Err(error) => Err(anyhow::anyhow!("{error:#}")),
        };
        of_member(member, said)
    });
    let members: Vec<Value> = own.into_iter().chain(asked).collect();
    let is_whole = members.iter().all(|row| row["whole"] != false);
    if cli.output == Form::Json {
        let said = members.iter().find(|row| row["records"].is_number());
        let mut all = said.cloned().unwrap_or_else(|| json!({ "bag": keep.number, "name": keep.name }));
        (all["whole"], all["members"]) = (is_whole.into(), members.into());
        put(&format!("{all}\n"))?;
    } else {
        let line = |row: &Value| format!("on `{}`: {}", row["node"].as_str().unwrap_or("?"), text(row));
        put(&members.iter().map(line).collect::<String>())?;
    }
    Ok(u8::from(!is_whole))
}

/// Checks the journal in one place.
pub fn here(place: &Place, form: Form) -> Result<u8> {
    let value = value(place);
    put(&match form {
        Form::Json => format!("{value}\n"),
        Form::Text => text(&value),
    })?;
    Ok(u8::from(value["whole"] == false))
}

fn of_member(member: &NodeRef, said: Result<Value>) -> Value {
    let mut value = said.unwrap_or_else(|error| json!({ "silent": format!("{error:#}") }));
    value["node"] = member.name.clone().into();
    value
}

/// What a member says of its journal.
fn ask(pool: &Pool, keep: &Keep, member: &NodeRef) -> Result<Value> {
    if member.id == pool.node().id {
        let (place, _) = kept::taken_up(keep.bag, &member.name)?.context("it was removed")?;
        return Ok(value(&place));
    }
    let (mut said, mut complaint) = (Vec::new(), Vec::new());
    let mut take = |error: bool, bytes: &[u8]| {
        (if error { &mut complaint } else { &mut said }).extend_from_slice(bytes);
        Ok(())
    };
    visit::ask(pool, member, keep.bag, &Ask::Check, Form::Json, &mut take).map_err(|lost| lost.why)?;
    match serde_json::from_slice(&said) {
        Ok(value) => Ok(value),
        Err(_) => bail!("{}", String::from_utf8_lossy(&complaint).trim()),
    }
}

/// How the journal in one place stands.
fn value(place: &Place) -> Value {
    let damage = Damage::of(place.directory());
    let (bag, found) = match place.read() {
        Ok(read) => read,
        Err(error) => {
            let why = format!("{error:#}");
            return json!({ "bag": place.id, "at": place.origin(), "whole": false, "unreadable": why });
        }
    };
    let mut value = show::bag_value(place, &bag);
    value["records"] = found.records.into();
    value["bytes"] = found.bytes.into();
    value["damaged_bytes"] = found.damaged_bytes.into();
    value["torn"] = found.torn.into();
    value["lacks"] = damage.is_there().then(|| damage.text()).into();
    value["was_damaged"] = damage.was_there().into();
    let stands_still = place.stands_still();
    let is_whole = (found.damaged_bytes == 0 || found.torn) && !damage.is_there() && stands_still.is_none();
    (value["stands_still"], value["whole"]) = (stands_still.into(), is_whole.into());
    value
}

/// The same in words, a line.
fn text(row: &Value) -> String {
    if let Some(why) = row["silent"].as_str() {
        return format!("not known: {why}\n");
    }
    let called = match row["at"].as_str() {
        Some(node) => format!("{}@{node}", row["bag"]),
        None => row["bag"].to_string(),
    };
    if let Some(why) = row["unreadable"].as_str() {
        return format!("bag {called} cannot be read: {why}\n");
    }
    let mut text = format!("bag {called}: {} records in {} bytes", row["records"], row["bytes"]);
    if row["torn"] == true {
        text += "; behind them one that was being written, which does not count";
    } else if row["damaged_bytes"] != 0 {
        let _ = write!(text, "; {} bytes behind them are damaged", row["damaged_bytes"]);
        text += " and will be put aside, beside the journal; what they said comes from other nodes that keep the bag, \
                 or happens again";
    }
    if let Some(lacks) = row["lacks"].as_str() {
        let _ = write!(text, "; {lacks}");
    } else if row["was_damaged"] == true {
        text += "; it was damaged once, of which shared.mended beside it is left, and lacks nothing";
    }
    if let Some(why) = row["stands_still"].as_str() {
        let _ = write!(text, "; {why}");
    }
    text + "\n"
}
