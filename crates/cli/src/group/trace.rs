//! The timeline of a group in Chrome's trace format: a row for each process, a slice for each call on a channel, and an
//! arrow for each message.

use super::record::records_in;
use anyhow::{Context, Result};
use mutirao::group::RecordReader;
use mutirao_group::plan::{Peer, ProcessPlan};
use mutirao_group::record::{Call, Entry, Message, Outcome, Preamble};
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::io::Write;
use std::path::Path;

/// Messages that get an arrow: each is kept in memory until it was received.
const ARROWS_MAX: usize = 1 << 20;
/// A receiver that began anew may have left out so many that were sent to the one before.
const PASSED_OVER_MAX: usize = 1024;

/// Where one message left.
#[derive(Debug)]
struct Sent {
    message: Message,
    at_ns: u64,
    thread: u32,
}

/// Writes the timeline of a group.
struct Timeline<'a, W> {
    out: &'a mut W,
    /// Of all times this is 0.
    began_ns: u64,
    /// What each process was told, by rank.
    plans: BTreeMap<u32, ProcessPlan>,
    /// What was sent and not received yet, by rank and output channel.
    sent: BTreeMap<(u32, u32), VecDeque<Sent>>,
    kept: usize,
    left_out: usize,
    arrows: u64,
    is_first: bool,
}

/// Writes the timeline of the records in a directory; how many messages have no arrow, because there were too many.
pub fn write(directory: &Path, out: &mut impl Write) -> Result<usize> {
    let records = records_in(directory)?;
    let mut plans = BTreeMap::new();
    let mut began_ns = u64::MAX;
    for path in &records {
        let (mut reader, Preamble { plan, .. }) = RecordReader::open(path)?;
        let first = reader.next_entry()?.map_or(u64::MAX, |(_, entry)| entry.at_ns);
        began_ns = began_ns.min(first);
        plans.insert(plan.rank, plan);
    }
    let mut timeline = Timeline {
        out,
        began_ns,
        plans,
        sent: BTreeMap::new(),
        kept: 0,
        left_out: 0,
        arrows: 0,
        is_first: true,
    };
    timeline.out.write_all(b"{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n")?;
    for path in &records {
        timeline
            .slices(path)
            .with_context(|| format!("cannot write down what `{}` tells", path.display()))?;
    }
    for path in &records {
        timeline.arrows(path)?;
    }
    timeline.out.write_all(b"\n]}\n")?;
    timeline.out.flush()?;
    Ok(timeline.left_out)
}

impl<W: Write> Timeline<'_, W> {
    /// The row of a process, and a slice for each of its calls. What it sends is kept.
    fn slices(&mut self, path: &Path) -> Result<()> {
        let (mut reader, Preamble { plan, origin, .. }) = RecordReader::open(path)?;
        let row = json!({ "name": format!("{} on {}", plan.process(), origin.node) });
        self.put(&json!({ "ph": "M", "pid": plan.rank, "tid": 0, "name": "process_name", "args": row }))?;
        let order = json!({ "sort_index": plan.rank });
        self.put(
            &json!({ "ph": "M", "pid": plan.rank, "tid": 0, "name": "process_sort_index", "args": order }),
        )?;
        while let Some((_, entry)) = reader.next_entry()? {
            if let Some((name, args)) = described(&plan, &entry) {
                self.put(&json!({
                    "ph": "X", "cat": "channel", "name": name, "pid": plan.rank, "tid": entry.thread,
                    "ts": self.us(entry.at_ns), "dur": entry.took_ns as f64 / 1e3, "args": args,
                }))?;
            }
            let (Call::Send(port) | Call::Post(port)) = entry.call else { continue };
            let (Some(message), Outcome::Done | Outcome::Late) = (entry.message, &entry.outcome) else {
                continue;
            };
            if self.kept >= ARROWS_MAX {
                self.left_out += 1;
                continue;
            }
            self.kept += 1;
            let sent = Sent { message, at_ns: entry.at_ns, thread: entry.thread };
            self.sent.entry((plan.rank, port)).or_default().push_back(sent);
        }
        Ok(())
    }

    /// An arrow for each message that a process received.
    fn arrows(&mut self, path: &Path) -> Result<()> {
        let (mut reader, Preamble { plan, .. }) = RecordReader::open(path)?;
        while let Some((_, entry)) = reader.next_entry()? {
            let (Call::Receive(port), Outcome::Received(lane)) = (entry.call, &entry.outcome) else {
                continue;
            };
            let Some(from) = self.sender(&plan, port, *lane) else { continue };
            let Some(queue) = self.sent.get_mut(&from) else { continue };
            let is_it = |sent: &Sent| Some(sent.message) == entry.message;
            let Some(place) = queue.iter().take(PASSED_OVER_MAX).position(is_it) else { continue };
            let Some(sent) = queue.remove(place) else { continue };
            let id = self.arrows;
            self.arrows += 1;
            self.put(&json!({
                "ph": "s", "cat": "message", "name": "message", "id": id, "pid": from.0, "tid": sent.thread,
                "ts": self.us(sent.at_ns),
            }))?;
            // At the end of a slice, not after it.
            let at_ns = entry.at_ns + entry.took_ns.saturating_sub(1);
            self.put(&json!({
                "ph": "f", "bp": "e", "cat": "message", "name": "message", "id": id, "pid": plan.rank,
                "tid": entry.thread, "ts": self.us(at_ns),
            }))?;
        }
        Ok(())
    }

    /// The rank and the output channel at the other end of a lane.
    fn sender(&self, plan: &ProcessPlan, port: u32, lane: u32) -> Option<(u32, u32)> {
        match plan.inputs.get(port as usize) {
            Some(input) => input.peers.get(lane as usize).map(|peer| (peer.rank, peer.port)),
            None => {
                let power = port as usize - plan.inputs.len();
                let from = plan.collectives.get(power)?.from.rank;
                let outputs = self.plans.get(&from)?.outputs.len();
                Some((from, (outputs + power) as u32))
            }
        }
    }

    /// Microseconds since the beginning.
    fn us(&self, at_ns: u64) -> f64 {
        at_ns.saturating_sub(self.began_ns) as f64 / 1e3
    }

    fn put(&mut self, event: &Value) -> Result<()> {
        if !std::mem::take(&mut self.is_first) {
            self.out.write_all(b",\n")?;
        }
        serde_json::to_writer(&mut self.out, event)?;
        Ok(())
    }
}

/// The name of a slice and what is told of it; `None` for calls that only ask.
fn described(plan: &ProcessPlan, entry: &Entry) -> Option<(String, Value)> {
    let name = match entry.call {
        Call::Send(port) => format!("send {}", channel(plan.outputs.len(), port)),
        Call::Post(port) => format!("post {}", channel(plan.outputs.len(), port)),
        Call::Receive(port) => format!("receive {}", channel(plan.inputs.len(), port)),
        Call::Select => "select".into(),
        Call::Close => "close".into(),
        Call::Collective(which) => which.word().into(),
        Call::Stored(_) | Call::Arm => return None,
    };
    let outcome = match &entry.outcome {
        Outcome::Done | Outcome::Received(_) | Outcome::Stored(..) => "done".into(),
        Outcome::Chosen(place) => format!("place {place}"),
        Outcome::Nothing(1) => "nothing".into(),
        Outcome::Nothing(times) => format!("nothing, {times} times"),
        Outcome::Late => "not received in time".into(),
        Outcome::Failed(failure) => format!("failed: {failure}"),
    };
    let peers = peers(plan, entry);
    Some((
        name,
        json!({ "outcome": outcome, "bytes": entry.message.map(|message| message.length), "peers": peers }),
    ))
}

fn channel(count: usize, port: u32) -> String {
    match (port as usize).checked_sub(count) {
        None => port.to_string(),
        Some(power) => format!("of collectives, step {power}"),
    }
}

/// Who is at the other end.
fn peers(plan: &ProcessPlan, entry: &Entry) -> Vec<String> {
    match (entry.call, &entry.outcome) {
        (Call::Receive(port), Outcome::Received(lane)) => {
            let input = plan.inputs.get(port as usize);
            input.and_then(|input| input.peers.get(*lane as usize)).map(Peer::process).into_iter().collect()
        }
        (Call::Send(port) | Call::Post(port), _) => plan
            .outputs
            .get(port as usize)
            .into_iter()
            .flat_map(|output| &output.peers)
            .map(Peer::process)
            .collect(),
        _ => Vec::new(),
    }
}
