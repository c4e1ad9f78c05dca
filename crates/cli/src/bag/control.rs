//! Orders to a bag: to its keeper if one runs, else into its journal. A line of JSON each way.

use super::keeper::Event;
use super::place::{Place, now_ms};
use super::shared::Shared;
use crate::output::remark;
use anyhow::{Context, Result, bail};
use mutirao_bag::{Added, Bag, Input, Output};
use mutirao_schedule::bag::Needs;
use mutirao_wire::Tick;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::Sender;
use std::time::Duration;

/// Longest order, bytes.
pub const ORDER_BYTES_MAX: u64 = 64 << 20;
/// Whoever is to hear something and does not listen for so long is left alone.
const PATIENCE: Duration = Duration::from_secs(5);

/// What may be ordered.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// Add these tasks.
    Add(Vec<Added>),
    /// These need not be done.
    Cancel(String),
    /// Try these again.
    Retry(String),
    /// Try these again, from the beginning.
    RetryAfresh(String),
    /// Tell how things stand whenever that changes.
    Watch,
    /// What follows is from a program that has the bag open. It says nothing before it was answered.
    Session,
    /// Give the bag to the member where it was submitted, where a program wants to open it.
    GiveBack,
}

/// An order, and who waits for the answer.
pub struct Asked {
    pub order: Order,
    pub back: Back,
}

/// Who waits for an answer.
pub enum Back {
    /// A command on this machine.
    Stream(UnixStream),
    /// Another member of the bag.
    Member { member: usize, number: u64 },
}

impl Back {
    /// Tells the answer.
    pub fn say(self, shared: &mut Shared, line: &str) {
        match self {
            Back::Stream(stream) => write(stream, line),
            Back::Member { member, number } => shared.answer(member, number, line.to_owned()),
        }
    }
}

fn write(mut stream: UnixStream, line: &str) {
    // Whoever asked may have gone.
    let _ = writeln!(stream, "{line}");
}

/// What an order comes to.
pub struct Inputs {
    pub inputs: Vec<Input>,
    /// Tasks concerned.
    pub tasks: usize,
}

/// Hears orders from now on.
pub fn listen(place: &Place, sender: &Sender<Event>) -> Result<()> {
    let listener = place.listen()?;
    let sender = sender.clone();
    let hear = move || {
        for stream in listener.incoming().flatten() {
            let sender = sender.clone();
            // Whoever says nothing holds up nobody but himself.
            let _ = crate::threads::start("order", move || match read(&stream) {
                Ok(order) => drop(sender.send(Event::Order(Asked { order, back: Back::Stream(stream) }))),
                Err(error) => write(stream, &answer_line(&Err(error))),
            });
        }
    };
    crate::threads::start("orders", hear)
}

fn read(stream: &UnixStream) -> Result<Order> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = String::new();
    BufReader::new(stream.take(ORDER_BYTES_MAX)).read_line(&mut line).context("the order did not come")?;
    serde_json::from_str(&line).context("the order cannot be understood; is this program of another version?")
}

/// What came of an order: how many tasks it concerned.
pub fn answer_line(answer: &Result<usize>) -> String {
    let line = match answer {
        Ok(tasks) => json!({ "tasks": tasks }),
        Err(error) => json!({ "error": format!("{error:#}") }),
    };
    line.to_string()
}

/// The answer to an order of which nobody knows what came of it.
pub fn keeper_changed() -> anyhow::Error {
    anyhow::anyhow!("the keeper changed meanwhile; look with `mutirao bag show` what holds")
}

/// Tells an answer where no other members are.
pub fn answer_here(back: Back, line: &str) {
    if let Back::Stream(stream) = back {
        write(stream, line);
    }
}

/// Somebody who looks on.
pub struct Watcher {
    stream: UnixStream,
    last: String,
}

impl Watcher {
    pub fn new(stream: UnixStream) -> Watcher {
        Watcher { stream, last: String::new() }
    }

    /// Whether somebody listens still.
    fn is_there(&self) -> bool {
        let mut polled = [PollFd::new(&self.stream, PollFlags::RDHUP)];
        // An error is nobody's going away.
        poll(&mut polled, Some(&Timespec::default())).is_err() || polled[0].revents().is_empty()
    }

    /// Says how things stand, if that is news; false when nobody listens any more.
    pub fn tell(&mut self, line: &str) -> bool {
        if self.last == line {
            return self.is_there();
        }
        self.last = line.to_owned();
        writeln!(self.stream, "{line}").is_ok()
    }
}

/// Results whose files were tried in vain to be put in their places: how many, and why.
pub type Unplaced<'a> = Option<(usize, &'a str)>;

/// How things stand, as a line of JSON; `waits` says why tasks that need so much have no slot. A bag that is over is
/// told to be so when it `is_settled`: all that it says counts, and its files are in their places or were tried.
pub fn progress(bag: &Bag, waits: &[(Needs, String)], is_settled: bool, unplaced: Unplaced) -> String {
    let mut value = serde_json::to_value(bag.counts()).unwrap_or_default();
    value["running"] = bag.running().into();
    value["workers"] = bag.workers().into();
    value["over"] = (bag.is_over() && is_settled).into();
    value["unplaced"] = unplaced.map(|(count, why)| json!({ "results": count, "why": why })).into();
    let wait = |(needs, why): &(Needs, String)| json!({ "needs": Bag::needs_text(needs), "why": why });
    value["waits"] = waits.iter().map(wait).collect();
    value.to_string()
}

/// Why tasks that need so much have no slot, in a line of progress.
pub fn waits(progress: &serde_json::Value) -> impl Iterator<Item = (&str, &str)> {
    let rows = progress["waits"].as_array().into_iter().flatten();
    rows.filter_map(|row| Some((row["needs"].as_str()?, row["why"].as_str()?)))
}

/// That files of results are not in their places, and why, in a line of progress.
pub fn unplaced(progress: &serde_json::Value) -> Option<String> {
    let unplaced = &progress["unplaced"];
    let results = crate::output::counted(unplaced["results"].as_u64()?, "result");
    Some(format!("the files of {results} are not in their places: {}", unplaced["why"].as_str()?))
}

/// How things stand, from the keeper; nothing where there is none.
pub fn standing(place: &Place) -> Option<serde_json::Value> {
    let mut stream = place.connect()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    writeln!(stream, "{}", serde_json::to_string(&Order::Watch).ok()?).ok()?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).ok()?;
    serde_json::from_str(&line).ok()
}

/// What an order means to a bag.
pub fn inputs(bag: &Bag, order: &Order) -> Result<Inputs> {
    let each = |what: &str,
                input: fn(u32) -> Input,
                may: fn(&mutirao_bag::TaskView<'_>) -> bool|
     -> Result<Inputs> {
        let tasks: Vec<u32> = bag
            .select(what)?
            .into_iter()
            .filter(|task| bag.task(*task).is_some_and(|view| may(&view)))
            .collect();
        Ok(Inputs { tasks: tasks.len(), inputs: tasks.into_iter().map(input).collect() })
    };
    use mutirao_bag::Verdict::{Cancelled, Failed, Ready, Running, SetAside, Waiting};
    match order {
        Order::Add(added) => {
            let (templates, tasks) = bag.resolve(added, None)?;
            Ok(Inputs { tasks: tasks.len(), inputs: vec![Input::Add { templates, tasks }] })
        }
        Order::Cancel(what) => {
            each(what, Input::Cancel, |view| matches!(view.verdict, Waiting | Ready | Running))
        }
        Order::Retry(what) => {
            each(what, Input::Again, |view| matches!(view.verdict, Failed | SetAside | Cancelled))
        }
        Order::RetryAfresh(what) => {
            each(what, Input::Afresh, |view| matches!(view.verdict, Failed | SetAside | Cancelled))
        }
        Order::Watch | Order::Session | Order::GiveBack => Ok(Inputs { inputs: Vec::new(), tasks: 0 }),
    }
}

/// Gives an order to whoever has the bag; how many tasks it concerned, and whether a keeper runs.
pub fn give(place: &Place, order: &Order) -> Result<(u64, bool)> {
    let connected = match place.connect() {
        None if super::kept::wake(place)? => place.connect(),
        connected => connected,
    };
    let Some(mut stream) = connected else { return Ok((enter(place, order)?, false)) };
    writeln!(stream, "{}", serde_json::to_string(order)?).context("the keeper has gone")?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).context("the keeper did not answer")?;
    let answer: serde_json::Value =
        serde_json::from_str(&line).context("the keeper ended before it answered")?;
    match answer["error"].as_str() {
        Some(error) => bail!("{error}"),
        None => Ok((answer["tasks"].as_u64().unwrap_or(0), true)),
    }
}

/// Enters an order into the journal of a bag that nobody keeps.
fn enter(place: &Place, order: &Order) -> Result<u64> {
    let (mut bag, mut journal, _) = place.open()?;
    let Inputs { inputs, tasks } = inputs(&bag, order)?;
    let mut out = Vec::new();
    for input in inputs {
        bag.handle(Tick(0), now_ms(), input, &mut out);
    }
    for output in out {
        if let Output::Append(record) = output {
            journal.append(&record.encode());
        }
    }
    journal.commit()?;
    Ok(tasks as u64)
}

/// Calls `each` with every line of progress until the bag is over, which the last line says, or nobody is left who
/// would go on with it.
pub fn watch(
    place: &Place,
    mut each: impl FnMut(&serde_json::Value) -> Result<()>,
) -> Result<serde_json::Value> {
    loop {
        // A keeper that is just going takes no order any more.
        let order = serde_json::to_string(&Order::Watch)?;
        let watched =
            place.connect().and_then(|mut stream| writeln!(stream, "{order}").ok().map(|()| stream));
        if let Some(stream) = watched {
            for line in BufReader::new(stream).lines() {
                let Ok(line) = line else { break };
                let value: serde_json::Value = serde_json::from_str(&line)?;
                each(&value)?;
                if value["over"] == true {
                    return Ok(value);
                }
            }
        }
        // It may have come to its end and said no more.
        let (bag, _) = place.read()?;
        let goes_on = !bag.is_over()
            && super::kept::wake(place).unwrap_or_else(|error| {
                remark!("mutirao: {error:#}");
                false
            });
        if !goes_on {
            let value = serde_json::from_str(&progress(&bag, &[], true, None))?;
            each(&value)?;
            return Ok(value);
        }
    }
}
