//! Channels of groups: round trips and streams between two processes, each beside a floor.
//!
//! The two are joined directly, as the nodes join them on one machine (a ring) and over a trusted link (a TCP
//! connection of their own). One is kept on processor 0, the other on processor 1; the floors are kept alike.

use super::floor::{Carrier, Floor, WINDOW};
use super::{Case, pin, print, quantile, unpin};
use crate::args::Output;
use anyhow::{Context, Result, ensure};
use mutirao::group::plan::{GroupId, Peer, PortPlan, ProcessPlan, Shape};
use mutirao::group::{Direct, Group, Over};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const SIZES: [usize; 5] = [8, 1 << 10, 64 << 10, 1 << 20, 16 << 20];
/// As nodes make them.
const RING_BYTES: usize = 256 * 1024;

/// Channels by their number: synchronous ones, and those whose messages are stored.
const SYNC: u32 = 0;
const STORED: u32 = 1;

const PING: u8 = 1;
const STREAM: u8 = 2;

fn plan(rank: u32) -> ProcessPlan {
    let port = |out: bool, number: u32| PortPlan {
        mode: None,
        one: true,
        shape: Shape::OneToOne,
        peers: vec![Peer {
            pipe: u64::from(if out { rank } else { 1 - rank }) * 2 + u64::from(number),
            program: "bench".into(),
            instance: 1 - rank,
            port: number,
            rank: 1 - rank,
        }],
    };
    ProcessPlan {
        group: GroupId(0),
        name: "bench".into(),
        program: "bench".into(),
        instance: rank,
        rank,
        size: 2,
        inputs: vec![port(false, SYNC), port(false, STORED)],
        outputs: vec![port(true, SYNC), port(true, STORED)],
        collectives: Vec::new(),
        stored_bytes_max: 64 << 20,
        spill: false,
        record: None,
    }
}

/// The two processes.
struct Two {
    group: Group,
    _direct: Direct,
    child: Child,
}

impl Two {
    fn start(over: Over) -> Result<Two> {
        let (direct, places) = Direct::new(&[plan(0), plan(1)], over)?;
        let [ours, theirs] = <[_; 2]>::try_from(places).ok().context("two processes have two places")?;
        let child = Command::new(std::env::current_exe()?)
            .args(["floor-peer", "channel", "-", "-"])
            .stdin(Stdio::from(theirs))
            .spawn()
            .context("cannot start the other process")?;
        let group = Group::join(ours)?;
        // Not before it has joined: a process that may use one processor never spins.
        pin(None, 0)?;
        Ok(Two { group, _direct: direct, child })
    }

    fn order(&self, order: u8, size: usize) -> Result<()> {
        let mut message = vec![order];
        message.extend_from_slice(&(size as u64).to_le_bytes());
        Ok(self.group.output(SYNC)?.send(&message)?)
    }

    /// Round trips; the microseconds of each.
    fn ping(&self, size: usize, span: Duration) -> Result<Vec<f64>> {
        self.order(PING, size)?;
        let (out, back) = (self.group.output(SYNC)?, self.group.input(SYNC)?);
        let mut buffer = vec![1; size];
        let mut times_us = Vec::new();
        let warm = Instant::now() + span / 10;
        loop {
            let start = Instant::now();
            let is_last = start >= warm + span && times_us.len() >= 10;
            buffer.fill(1);
            buffer[0] = u8::from(!is_last);
            out.send(&buffer)?;
            back.receive_into(&mut buffer)?;
            if is_last {
                return Ok(times_us);
            }
            if start >= warm {
                times_us.push(start.elapsed().as_secs_f64() * 1e6);
            }
        }
    }

    /// Messages one way, every eighth answered; how many a second.
    fn stream(&self, size: usize, span: Duration) -> Result<(u64, f64)> {
        self.order(STREAM, size)?;
        let (out, back) = (self.group.output(STORED)?, self.group.input(STORED)?);
        let mut count = 0u64;
        let warm = Instant::now() + span / 10;
        let mut begin = Instant::now();
        loop {
            let start = Instant::now();
            let is_last = start >= begin + span && count >= 10;
            for _ in 0..WINDOW {
                let mut message = vec![1; size];
                message[0] = u8::from(!is_last);
                out.post(message)?;
            }
            back.receive_into(&mut [0])?;
            count += WINDOW as u64;
            if is_last {
                return Ok((count, count as f64 / begin.elapsed().as_secs_f64()));
            }
            if start < warm {
                count = 0;
                begin = Instant::now();
            }
        }
    }
}

impl Drop for Two {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The other process: its place in the group is its standard input.
pub(super) fn peer() -> Result<()> {
    let group = Group::join(std::io::stdin().as_fd().try_clone_to_owned()?)?;
    pin(None, 1)?;
    let (orders, out) = (group.input(SYNC)?, group.output(SYNC)?);
    let (stored, answers) = (group.input(STORED)?, group.output(STORED)?);
    let mut room = Vec::new();
    loop {
        let order = orders.receive()?;
        ensure!(order.len() == 9, "an order has nine bytes");
        let size = u64::from_le_bytes(order[1..].try_into().expect("eight bytes of nine")) as usize;
        room.resize(size, 0);
        let mut goes_on = true;
        while goes_on {
            if order[0] == PING {
                orders.receive_into(&mut room)?;
                goes_on = room[0] != 0;
                out.send(&room)?;
            } else {
                for _ in 0..WINDOW {
                    stored.receive_into(&mut room)?;
                    goes_on = room[0] != 0;
                }
                answers.post(vec![1])?;
            }
        }
    }
}

/// Measures the cases whose names contain `only`, for about so many seconds each.
pub fn channel(output: Output, seconds: f64, only: &str) -> Result<()> {
    let span = Duration::try_from_secs_f64(seconds).context("--seconds cannot be waited for")?;
    let ways = [
        ("same node", Over::Rings(RING_BYTES), Carrier::Unix, ["unix ping", "unix stream"]),
        ("trusted link", Over::Tcp, Carrier::Tcp, ["tcp ping", "tcp stream"]),
    ];
    let named = |what: &str, size: usize, place: &str| {
        format!("{what} {}, {place}", crate::output::bytes(size as u64))
    };
    let wanted = |what: &str, place: &str| {
        SIZES.into_iter().filter(|size| named(what, *size, place).contains(only)).collect::<Vec<_>>()
    };
    let count: usize =
        ways.iter().map(|(place, ..)| wanted("ping", place).len() + wanted("stream", place).len()).sum();
    ensure!(count > 0, "no case has `{only}` in its name");
    let bar = match output {
        Output::Json => indicatif::ProgressBar::hidden(),
        Output::Text => indicatif::ProgressBar::new(count as u64),
    };
    let mut cases = Vec::new();
    for (place, over, carrier, [ping_floor, stream_floor]) in ways {
        let (pings, streams) = (wanted("ping", place), wanted("stream", place));
        if pings.is_empty() && streams.is_empty() {
            continue;
        }
        unpin(None)?;
        let directory = tempfile::tempdir()?;
        let two = Two::start(over)?;
        let mut floor = Floor::start(carrier, directory.path())?;
        for size in pings {
            let bare = floor.ping(size, span)?;
            let mut times_us = two.ping(size, span)?;
            let per_s = 1e6 * times_us.len() as f64 / times_us.iter().sum::<f64>();
            times_us.sort_by(f64::total_cmp);
            let p50_us = quantile(&times_us, 0.5);
            cases.push(Case {
                size_bytes: Some(size as u64),
                n: Some(times_us.len() as u64),
                p50_us: Some(p50_us),
                p99_us: Some(quantile(&times_us, 0.99)),
                per_s: Some(per_s),
                floor_kind: Some(ping_floor),
                floor_p50_us: Some(bare.p50_us),
                floor_per_s: Some(bare.per_s),
                ratio: Some(p50_us / bare.p50_us),
                pinned: Some("0|1"),
                tls: Some(false),
                ..Case::new(named("ping", size, place))
            });
            bar.inc(1);
        }
        for size in streams {
            let bare = floor.stream(size, span)?;
            let (n, per_s) = two.stream(size, span)?;
            let mib = size as f64 / f64::from(1 << 20);
            cases.push(Case {
                size_bytes: Some(size as u64),
                n: Some(n),
                per_s: Some(per_s),
                mib_per_s: Some(per_s * mib),
                floor_kind: Some(stream_floor),
                floor_per_s: Some(bare.per_s * mib),
                ratio: Some(per_s / bare.per_s),
                pinned: Some("0|1"),
                tls: Some(false),
                ..Case::new(named("stream", size, place))
            });
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    print(output, &cases)
}
