//! What the two processes of a benchmark do with their channels: one measures, the other answers.

use super::super::quantile;
use anyhow::{Result, ensure};
use mutirao::group::Group;
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// Channels by their number: synchronous ones, and those whose messages are stored.
pub const SYNC: u32 = 0;
pub const STORED: u32 = 1;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum What {
    /// Round trips of synchronous messages.
    Ping,
    /// Round trips of stored messages.
    StoredPing,
    /// Stored messages one way, [so many](window) at a time answered.
    Stream,
}

impl What {
    /// Its name.
    pub fn word(self) -> &'static str {
        match self {
            What::Ping => "ping",
            What::StoredPing => "stored ping",
            What::Stream => "stream",
        }
    }
}

/// Messages of a stream between two answers: as many as the programs send that measure other systems.
pub fn window(size: usize) -> usize {
    if size <= 64 << 10 {
        64
    } else if size <= 1 << 20 {
        8
    } else {
        4
    }
}

/// What was measured.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Measured {
    /// Messages, or round trips.
    pub n: u64,
    /// So many a second.
    pub per_s: f64,
    /// Of a round trip, microseconds.
    pub p50_us: Option<f64>,
    /// The same.
    pub p99_us: Option<f64>,
}

impl Measured {
    /// What several have measured at the same time.
    pub fn together(all: &[Measured]) -> Measured {
        let n = all.iter().map(|one| one.n).sum();
        let per_s = all.iter().map(|one| one.per_s).sum();
        Measured { n, per_s, p50_us: None, p99_us: None }
    }
}

/// Measures messages of `size` bytes for `span`, with the help of a process that [answers](answer).
pub fn measure(group: &Group, what: What, size: usize, span: Duration) -> Result<Measured> {
    let order = serde_json::to_vec(&(what, size))?;
    group.output(SYNC)?.send(&order)?;
    match what {
        What::Ping | What::StoredPing => ping(group, what, size, span),
        What::Stream => stream(group, size, span),
    }
}

fn ping(group: &Group, what: What, size: usize, span: Duration) -> Result<Measured> {
    let is_stored = what == What::StoredPing;
    let number = if is_stored { STORED } else { SYNC };
    let (out, back) = (group.output(number)?, group.input(number)?);
    let mut buffer = vec![1; size];
    let mut times_us = Vec::new();
    let warm = Instant::now() + span / 10;
    loop {
        let start = Instant::now();
        let is_last = start >= warm + span && times_us.len() >= 10;
        buffer[0] = u8::from(!is_last);
        if is_stored {
            out.post(buffer.as_slice())?;
        } else {
            out.send(&buffer)?;
        }
        back.receive_into(&mut buffer)?;
        if is_last {
            break;
        }
        if start >= warm {
            times_us.push(start.elapsed().as_secs_f64() * 1e6);
        }
    }
    let per_s = 1e6 * times_us.len() as f64 / times_us.iter().sum::<f64>();
    times_us.sort_by(f64::total_cmp);
    let (p50_us, p99_us) = (quantile(&times_us, 0.5), quantile(&times_us, 0.99));
    Ok(Measured { n: times_us.len() as u64, per_s, p50_us: Some(p50_us), p99_us: Some(p99_us) })
}

fn stream(group: &Group, size: usize, span: Duration) -> Result<Measured> {
    let (out, back) = (group.output(STORED)?, group.input(STORED)?);
    let (window, mut count) = (window(size), 0u64);
    let warm = Instant::now() + span / 10;
    let mut begin = Instant::now();
    loop {
        let start = Instant::now();
        let is_last = start >= begin + span && count >= 10;
        for _ in 0..window {
            let mut message = out.buffer(size);
            message.resize(size, 1);
            message[0] = u8::from(!is_last);
            out.post(message)?;
        }
        back.receive_into(&mut [0])?;
        count += window as u64;
        if is_last {
            let per_s = count as f64 / begin.elapsed().as_secs_f64();
            return Ok(Measured { n: count, per_s, p50_us: None, p99_us: None });
        }
        if start < warm {
            count = 0;
            begin = Instant::now();
        }
    }
}

/// Answers one who measures, until that leaves.
pub fn answer(group: &Group) -> Result<()> {
    let (orders, out) = (group.input(SYNC)?, group.output(SYNC)?);
    let (stored, answers) = (group.input(STORED)?, group.output(STORED)?);
    let mut room = Vec::new();
    loop {
        let order = match orders.receive() {
            Ok(order) => order,
            Err(mutirao::group::Error::Ended { .. }) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let (what, size): (What, usize) = serde_json::from_slice(&order)?;
        ensure!(size > 0, "messages of a benchmark have a first byte");
        room.resize(size, 0);
        let mut goes_on = true;
        while goes_on {
            match what {
                What::Ping => {
                    orders.receive_into(&mut room)?;
                    goes_on = room[0] != 0;
                    out.send(&room)?;
                }
                What::StoredPing => {
                    stored.receive_into(&mut room)?;
                    goes_on = room[0] != 0;
                    answers.post(room.as_slice())?;
                }
                What::Stream => {
                    for _ in 0..window(size) {
                        stored.receive_into(&mut room)?;
                        goes_on = room[0] != 0;
                    }
                    answers.post(vec![1])?;
                }
            }
        }
    }
}
