//! Channels of groups: round trips and streams between two processes, each beside a floor, and many processes at
//! once.
//!
//! Two are joined directly, as the nodes join them on one machine (a ring) and over a trusted link (a TCP
//! connection of their own); then two run on two real nodes. One is kept on processor 0, the other on processor 1,
//! each with its node; the floors are kept alike.

mod direct;
mod process;
mod real;

pub use direct::peer;
pub use real::peer as group_peer;

use super::floor::{Carrier, Floor, Measured as Bare};
use super::{Case, pin, print, unpin};
use crate::args::Output;
use anyhow::{Context, Result, ensure};
use indicatif::ProgressBar;
use mutirao::group::Over;
use process::{Measured, What, measure};
use real::Link;
use std::time::Duration;

const SIZES: [usize; 5] = [8, 1 << 10, 64 << 10, 1 << 20, 16 << 20];
/// As nodes make them.
const RING_BYTES: usize = 256 * 1024;
/// Processes of one node that use channels at once, and bytes of their messages.
const MANY: [u16; 2] = [8, 64];
const MANY_BYTES: usize = 8;

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
        let sizes = |what| SIZES.map(|size| (what, size));
        let mut place = Place { name, way, carrier, floors, cases: Vec::new() };
        let all = [sizes(What::Ping), sizes(What::Stream)].concat();
        place.cases = all.into_iter().filter(|case| place.named(*case).contains(only)).collect();
        place
    }

    fn named(&self, (what, size): (What, usize)) -> String {
        let what = if what == What::Ping { "ping" } else { "stream" };
        format!("{what} {}, {}", crate::output::bytes(size as u64), self.name)
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
            bare.push(if what == What::Ping { floor.ping(size, span)? } else { floor.stream(size, span)? });
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
            ..Case::new(self.named((what, size)))
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

/// Many processes on one node; the floor of more is the figure of fewer.
fn many(only: &str, span: Duration, bar: &ProgressBar) -> Result<Vec<Case>> {
    let (few, more) = (MANY[0], MANY[1]);
    if !named_many(few).contains(only) && !named_many(more).contains(only) {
        return Ok(Vec::new());
    }
    unpin(None)?;
    let mut cases = Vec::new();
    let mut floor = None;
    for processes in MANY {
        let measured = real::pairs(processes, MANY_BYTES, span)?;
        cases.push(Case {
            nodes: Some(1),
            size_bytes: Some(MANY_BYTES as u64),
            n: Some(measured.n),
            per_s: Some(measured.per_s),
            floor_kind: floor.map(|_| "8 processes"),
            floor_per_s: floor,
            ratio: floor.map(|floor| measured.per_s / floor),
            tls: Some(false),
            ..Case::new(named_many(processes))
        });
        floor.get_or_insert(measured.per_s);
        bar.inc(1);
    }
    Ok(cases)
}

fn named_many(processes: u16) -> String {
    format!("ping {}, {processes} processes of a node", crate::output::bytes(MANY_BYTES as u64))
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
    let many_count = MANY.iter().filter(|processes| named_many(**processes).contains(only)).count();
    let count = places.iter().map(|place| place.cases.len()).sum::<usize>() + many_count;
    ensure!(count > 0, "no case has `{only}` in its name");
    let bar = match output {
        Output::Json => ProgressBar::hidden(),
        Output::Text => ProgressBar::new(count as u64),
    };
    let mut cases = Vec::new();
    for place in places {
        cases.extend(place.run(span, &bar)?);
    }
    cases.extend(many(only, span, &bar)?);
    bar.finish_and_clear();
    print(output, &cases)
}
