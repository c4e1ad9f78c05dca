//! Bags of the same user that other machines of the pool keep.

use super::ask::Ask;
use super::place::{self, Place};
use super::{kept, show, visit};
use crate::args::{Cli, Output as Form};
use crate::list::ask as ask_pool;
use crate::output::remark;
use crate::sorted::sort;
use anyhow::{Context, Result, anyhow, bail};
use mutirao::raw::Pool;
use mutirao_wire::NodeRef;
use mutirao_wire::bag::Keep;
use mutirao_wire::query::{BagRow, Row, Topic};
use serde_json::{Value, json};

/// Rows of bags elsewhere asked for at once.
const AT_ONCE: usize = 8;

/// A bag that was submitted on another machine.
pub struct Distant {
    keep: Keep,
    over: bool,
    /// Names of the nodes that keep it or help to and have answered.
    there: Vec<String>,
}

/// A bag, wherever it is.
pub enum Found {
    Here(Place),
    Elsewhere(Pool, Distant),
}

/// The bag that is meant: one of this machine by its number or name, or else one of the pool by its name, its number,
/// or, `7@lab3`, its number and the node where it was submitted.
pub fn find(cli: &Cli, what: &str) -> Result<Found> {
    let here = match what.split_once('@') {
        None => Place::find(what),
        Some((number, node)) => at(number, node).with_context(|| format!("there is no bag {what} here")),
    };
    let error = match here {
        Ok(place) => return Ok(Found::Here(place)),
        Err(error) => error,
    };
    let Ok(pool) = kept::open_pool(cli.node.as_deref()) else { return Err(error) };
    let mut found = list(&pool)?;
    found.retain(|bag| {
        [bag.called(), bag.keep.number.to_string(), bag.keep.name.clone()].contains(&what.into())
    });
    match found.len() {
        0 => bail!("there is no bag `{what}`, here or kept for you by another node; see `mutirao bag ls`"),
        1 => Ok(Found::Elsewhere(pool, found.remove(0))),
        _ => {
            let names: Vec<String> = found.iter().map(Distant::called).collect();
            bail!("`{what}` names {} bags of the pool: say {}", found.len(), names.join(" or "))
        }
    }
}

/// The same bag, to be asked at others that keep it where the node of this machine that does is down.
pub fn where_it_is_heard(cli: &Cli, found: Found) -> Found {
    let others = |place: &Place| -> Option<(Pool, Distant)> {
        let keep = place.kept().ok()??;
        // The journal, which may be long, is read last.
        let is_heard = keep.members.len() == 1
            || place.connect().is_some()
            || kept::open_pool(Some(&keep.members[0].name)).is_ok()
            || place.read().is_ok_and(|(bag, _)| bag.is_over());
        if is_heard {
            return None;
        }
        Some((kept::open_pool(cli.node.as_deref()).ok()?, Distant { keep, over: false, there: Vec::new() }))
    };
    match &found {
        Found::Here(place) => others(place).map_or(found, |(pool, bag)| Found::Elsewhere(pool, bag)),
        Found::Elsewhere(..) => found,
    }
}

/// The bag of that number if it was submitted here, at that node.
fn at(number: &str, node: &str) -> Option<Place> {
    let place = Place::numbered(number.parse().ok()?).ok()??;
    let keep = place.kept().ok()??;
    keep.members.first().is_some_and(|first| first.name == node).then_some(place)
}

/// All bags of this user that nodes keep and that were not submitted on this machine, by node and number.
pub fn list(pool: &Pool) -> Result<Vec<Distant>> {
    let kept = |place: &Place| Some(place.kept().ok()??.bag);
    let here: Vec<_> = place::list()?.iter().filter_map(kept).collect();
    let mut bags: Vec<Distant> = Vec::new();
    for row in ask_pool(pool, Topic::Bags, None)? {
        let Row::Bag(BagRow { keep, from, over }) = row else { continue };
        let is_whole = keep.members.iter().any(|member| member.name == from);
        if !is_whole || here.contains(&keep.bag) {
            continue;
        }
        match bags.iter_mut().find(|bag| bag.keep.bag == keep.bag) {
            Some(bag) => {
                bag.there.push(from);
                bag.over |= over;
            }
            None => bags.push(Distant { keep, over, there: vec![from] }),
        }
    }
    sort(&mut bags, |a, b| (a.origin(), a.keep.number).cmp(&(b.origin(), b.keep.number)));
    Ok(bags)
}

impl Distant {
    /// The node where it was submitted.
    pub fn origin(&self) -> &str {
        self.keep.members.first().map_or("?", |first| first.name.as_str())
    }

    /// What it is called on this machine.
    pub fn called(&self) -> String {
        format!("{}@{}", self.keep.number, self.origin())
    }

    pub fn keep(&self) -> &Keep {
        &self.keep
    }

    /// Asks one of its members; the exit code. What it prints comes out here.
    pub fn ask(&self, pool: &Pool, ask: &Ask, form: Form) -> Result<u8> {
        if let Some(place) = self.member_here(pool).filter(|_| !ask.is_for_origin()) {
            return ask.carry_out(&place, Some(&pool.node().name), form);
        }
        self.ask_there(pool, ask, form, &mut visit::print)
    }

    /// What this machine keeps of it as a member.
    fn member_here(&self, pool: &Pool) -> Option<Place> {
        let node = pool.node();
        self.keep.members.iter().find(|member| member.id == node.id)?;
        let (place, _) = kept::taken_up(self.keep.bag, &node.name).ok()??;
        Some(place.visited(self.origin(), &node.name))
    }

    /// The members that may answer, those first that have just been heard of.
    fn members(&self, ask: &Ask) -> Vec<&NodeRef> {
        if ask.is_for_origin() {
            return self.keep.members.iter().take(1).collect();
        }
        let mut members: Vec<&NodeRef> = self.keep.members.iter().collect();
        members.sort_by_key(|member| !self.there.contains(&member.name));
        members
    }

    fn ask_there(
        &self,
        pool: &Pool,
        ask: &Ask,
        form: Form,
        out: &mut dyn FnMut(bool, &[u8]) -> Result<()>,
    ) -> Result<u8> {
        let follows = matches!(ask, Ask::Watch | Ask::Wait);
        let mut printed = false;
        let mut reasons = Vec::new();
        for member in self.members(ask) {
            let mut out = |error: bool, bytes: &[u8]| {
                printed = true;
                out(error, bytes)
            };
            let lost = match visit::ask(pool, member, self.keep.bag, ask, form, &mut out) {
                Ok(code) => return Ok(code),
                Err(lost) => lost,
            };
            if lost
                .why
                .downcast_ref::<std::io::Error>()
                .is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
            {
                return Err(lost.why);
            }
            reasons.push(format!("`{}`: {:#}", member.name, lost.why));
            // Another would say again what was said.
            if lost.was_asked && !follows && (printed || !ask.is_repeatable()) {
                break;
            }
        }
        Err(anyhow!(
            "bag {} is kept elsewhere, and is not to be asked there: {}",
            self.called(),
            reasons.join("; ")
        ))
    }

    /// Its row among others.
    pub fn row(&self, pool: &Pool) -> Value {
        if let Some((place, (bag, _))) =
            self.member_here(pool).and_then(|p| Some((p.clone(), p.read().ok()?)))
        {
            return show::row(&place, &bag);
        }
        let mut said = Vec::new();
        let mut keep_it = |error: bool, bytes: &[u8]| {
            if !error {
                said.extend_from_slice(bytes);
            }
            Ok(())
        };
        let asked = self.ask_there(pool, &Ask::Row, Form::Json, &mut keep_it);
        match asked.ok().and_then(|_| serde_json::from_slice(&said).ok()) {
            Some(row) => row,
            None => json!({
                "bag": self.keep.number, "at": self.origin(), "name": self.keep.name,
                "state": if self.over { "over" } else { "not heard" },
            }),
        }
    }
}

/// The rows of bags elsewhere, in their order; nothing where no node runs.
pub fn rows(cli: &Cli) -> Vec<Value> {
    let listed = kept::open_pool(cli.node.as_deref()).and_then(|pool| {
        let bags = list(&pool)?;
        let mut rows = Vec::new();
        for some in bags.chunks(AT_ONCE) {
            rows.extend(std::thread::scope(|scope| {
                let asked: Vec<_> = some.iter().map(|bag| scope.spawn(|| bag.row(&pool))).collect();
                asked.into_iter().filter_map(|row| row.join().ok()).collect::<Vec<_>>()
            }));
        }
        Ok(rows)
    });
    listed.unwrap_or_else(|error| {
        if !matches!(
            error.downcast_ref(),
            Some(mutirao::Error::NoneRuns { .. } | mutirao::Error::NotRunning { .. })
        ) {
            remark!("mutirao: bags of other machines are not listed: {error:#}");
        }
        Vec::new()
    })
}
