//! Channels of groups: round trips and streams between two processes, each beside a floor, and many processes at
//! once.
//!
//! Two are joined directly, as the nodes join them on one machine (a ring) and over a trusted link (a TCP
//! connection of their own); then two run on two real nodes. One is kept on processor 0, the other on processor 1,
//! each with its node; the floors are kept alike.

mod direct;
mod line;
mod many;
mod process;
mod real;

pub use direct::peer;
pub use many::peer as pair_peer;
pub use real::peer as group_peer;

use super::floor::{Carrier, Floor, Measured as Bare};
use super::{Case, cpus, pin, print, quantile, unpin};
use crate::args::Output;
use anyhow::{Context, Result, ensure};
use indicatif::ProgressBar;
use mutirao::group::Over;
use process::{Measured, What, measure, window};
use real::Link;
use std::time::Duration;

const SIZES: [usize; 5] = [8, 1 << 10, 64 << 10, 1 << 20, 16 << 20];
/// The longest messages whose round trips are measured stored, too, bytes.
const STORED_PING_MAX: usize = 1 << 10;
/// As nodes make them.
const RING_BYTES: usize = 256 * 1024;
/// Bytes of messages that are recorded.
const RECORDED: [usize; 2] = [8, 64 << 10];
const LINE: &str = "cache line, there and back";
const RECORDED_PLACE: &str = "one node, recorded";

/// How two processes are joined.
#[derive(Debug, Clone, Copy)]
enum Way {
    Direct(Over),
    Nodes(Link),
}

/// A way with its floor, and the messages that are to be measured.
struct Place {
    name: &'static str,
    way: Way,
    carrier: Carrier,
    /// What the floors of round trips and streams are called.
    floors: [&'static str; 2],
    cases: Vec<(What, usize)>,
}

impl Place {
    fn new(name: &'static str, way: Way, carrier: Carrier, floors: [&'static str; 2], only: &str) -> Place {
        Place { name, way, carrier, floors, cases: cases(&SIZES, name, only) }
    }

    fn run(&self, span: Duration, bar: &ProgressBar) -> Result<Vec<Case>> {
        let directory = tempfile::tempdir()?;
        let two = match self.way {
            Way::Direct(over) => Some(direct::Two::start(over)?),
            Way::Nodes(_) => None,
        };
        pin(None, 0)?;
        let mut floor = Floor::start(self.carrier, directory.path())?;
        let (mut bare, mut measured) = (Vec::new(), Vec::new());
        for (what, size) in self.cases.iter().copied() {
            bare.push(match what {
                What::Ping | What::StoredPing => floor.ping(size, span)?,
                What::Stream => floor.stream(size, window(size), span)?,
            });
            if let Some(two) = &two {
                measured.push(measure(&two.group, what, size, span)?);
                bar.inc(1);
            }
        }
        drop(floor);
        // Daemons inherit where this process is kept.
        unpin(None)?;
        if let Way::Nodes(link) = self.way {
            measured = real::two_nodes(link, self.cases.clone(), span)?;
            bar.inc(self.cases.len() as u64);
        }
        let all = self.cases.iter().zip(bare).zip(measured);
        Ok(all.map(|((case, bare), measured)| self.figure(*case, bare, measured)).collect())
    }

    fn figure(&self, (what, size): (What, usize), bare: Bare, measured: Measured) -> Case {
        let figure = Case {
            nodes: matches!(self.way, Way::Nodes(_)).then_some(2),
            size_bytes: Some(size as u64),
            n: Some(measured.n),
            p50_us: measured.p50_us,
            p99_us: measured.p99_us,
            per_s: Some(measured.per_s),
            pinned: Some("0|1"),
            tls: Some(matches!(self.way, Way::Nodes(Link::Encrypted))),
            ..Case::new(named((what, size), self.name))
        };
        let [ping_floor, stream_floor] = self.floors;
        match measured.p50_us {
            Some(p50_us) => Case {
                floor_kind: Some(ping_floor),
                floor_p50_us: Some(bare.p50_us),
                floor_per_s: Some(bare.per_s),
                ratio: Some(p50_us / bare.p50_us),
                ..figure
            },
            None => {
                let mib = size as f64 / f64::from(1 << 20);
                Case {
                    mib_per_s: Some(measured.per_s * mib),
                    floor_kind: Some(stream_floor),
                    floor_per_s: Some(bare.per_s * mib),
                    ratio: Some(measured.per_s / bare.per_s),
                    ..figure
                }
            }
        }
    }
}

/// The cases of these sizes, as far as their names contain `only`.
fn cases(sizes: &[usize], place: &str, only: &str) -> Vec<(What, usize)> {
    let kinds = [What::Ping, What::StoredPing, What::Stream].into_iter();
    let all = kinds.flat_map(|what| sizes.iter().map(move |size| (what, *size)));
    // What it saves that nobody waits for a message to be taken shows in small ones.
    all.filter(|(what, size)| {
        *what != What::StoredPing || *size <= STORED_PING_MAX && place != RECORDED_PLACE
    })
    .filter(|case| named(*case, place).contains(only))
    .collect()
}

fn named((what, size): (What, usize), place: &str) -> String {
    format!("{} {}, {place}", what.word(), crate::output::bytes(size as u64))
}

/// What passes between two processors at the least. On one there is no way.
fn cache_line(span: Duration, bar: &ProgressBar) -> Result<Option<Case>> {
    if cpus() < 2 {
        return Ok(None);
    }
    unpin(None)?;
    let times_us = line::round_trips_us(span)?;
    bar.inc(1);
    Ok(Some(Case {
        n: Some(times_us.len() as u64),
        p50_us: Some(quantile(&times_us, 0.5)),
        p99_us: Some(quantile(&times_us, 0.99)),
        pinned: Some("0|1"),
        ..Case::new(LINE)
    }))
}

/// Two processes on one node whose group is recorded; the floor is the same while it is not.
fn recorded(cases: &[(What, usize)], span: Duration, bar: &ProgressBar) -> Result<Vec<Case>> {
    if cases.is_empty() {
        return Ok(Vec::new());
    }
    unpin(None)?;
    let [bare, measured] = real::unrecorded_and_recorded(cases, span)?;
    bar.inc(cases.len() as u64);
    let all = cases.iter().zip(bare).zip(measured);
    Ok(all
        .map(|(((what, size), bare), measured)| {
            let mib = *size as f64 / f64::from(1 << 20);
            let is_stream = *what == What::Stream;
            let times = measured.p50_us.zip(bare.p50_us);
            Case {
                nodes: Some(1),
                size_bytes: Some(*size as u64),
                n: Some(measured.n),
                p50_us: measured.p50_us,
                p99_us: measured.p99_us,
                per_s: Some(measured.per_s),
                mib_per_s: is_stream.then_some(measured.per_s * mib),
                floor_kind: Some("unrecorded"),
                floor_p50_us: bare.p50_us,
                floor_per_s: Some(if is_stream { bare.per_s * mib } else { bare.per_s }),
                ratio: Some(times.map_or(measured.per_s / bare.per_s, |(ours, bare)| ours / bare)),
                pinned: Some("0|1"),
                tls: Some(false),
                ..Case::new(named((*what, *size), RECORDED_PLACE))
            }
        })
        .collect())
}

/// Measures the cases whose names contain `only`, for about so many seconds each.
pub fn channel(output: Output, seconds: f64, only: &str) -> Result<()> {
    let span = Duration::try_from_secs_f64(seconds).context("--seconds cannot be waited for")?;
    let (unix, tcp) = (["unix ping", "unix stream"], ["tcp ping", "tcp stream"]);
    let (trusted, encrypted) = (Way::Nodes(Link::Trusted), Way::Nodes(Link::Encrypted));
    let mut places = vec![
        Place::new("same node", Way::Direct(Over::Rings(RING_BYTES)), Carrier::Unix, unix, only),
        Place::new("trusted link", Way::Direct(Over::Tcp), Carrier::Tcp, tcp, only),
        Place::new("two nodes, trusted", trusted, Carrier::Tcp, tcp, only),
        Place::new("two nodes, encrypted", encrypted, Carrier::Tls, ["tls ping", "tls stream"], only),
    ];
    places.retain(|place| !place.cases.is_empty());
    let many = many::kinds(only);
    let to_record = cases(&RECORDED, RECORDED_PLACE, only);
    let has_line = LINE.contains(only);
    let count = places.iter().map(|place| place.cases.len()).sum::<usize>()
        + many::count(&many)
        + to_record.len()
        + usize::from(has_line);
    ensure!(count > 0, "no case has `{only}` in its name");
    let bar = match output {
        Output::Json => ProgressBar::hidden(),
        Output::Text => ProgressBar::new(count as u64),
    };
    let mut figures = Vec::new();
    if has_line {
        figures.extend(cache_line(span, &bar)?);
    }
    for place in places {
        figures.extend(place.run(span, &bar)?);
    }
    figures.extend(many::cases(&many, span, &bar)?);
    figures.extend(recorded(&to_record, span, &bar)?);
    bar.finish_and_clear();
    print(output, &figures)
}
