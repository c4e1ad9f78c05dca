//! What a program does with its channels: send, receive, choose.

use super::Error;
use super::port::{InPort, SPARE_BYTES_MIN, Sink, Stored};
use super::shared::{Inner, Port, Shared, Step};
use mutirao_group::channel::{Fault, MESSAGE_BYTES_MAX, Reading, Want};
use mutirao_group::plan::Mode;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// At its end a process waits so long for its lanes to hear of it,
const FAREWELL: Duration = Duration::from_secs(5);
/// and, once all is said, so long for the answers: they come when the other programs use their channels.
const ANSWER: Duration = Duration::from_secs(1);

/// When a call gives up.
pub(super) fn deadline(timeout: Option<Duration>) -> Option<Instant> {
    // A time too long for the clock is as good as none.
    timeout.and_then(|timeout| Instant::now().checked_add(timeout))
}

fn check_length(length: u64) -> Result<(), Error> {
    if length > MESSAGE_BYTES_MAX { Err(Error::Huge { length }) } else { Ok(()) }
}

/// Sends a message and waits until it is received; false if the time is over first. It is then on its way all the
/// same.
pub(super) fn send(
    shared: &Arc<Shared>,
    index: usize,
    bytes: &[u8],
    timeout: Option<Duration>,
) -> Result<bool, Error> {
    check_length(bytes.len() as u64)?;
    let mut ticket = None;
    let sent = shared.drive(&[Port::Out(index)], deadline(timeout), |inner, is_late| {
        let port = &mut inner.outs[index];
        let ticket = match ticket {
            Some(ticket) => ticket,
            None => {
                port.outlet.use_mode(Mode::Sync).map_err(|fault| port.common.named(fault))?;
                *ticket.insert(port.outlet.send(Stored::Lent(bytes.len() as u64)))
            }
        };
        port.pump(Some(bytes));
        if port.outlet.is_taken(ticket) {
            return Ok(Step::Done(()));
        }
        port.outlet.check().map_err(|fault| port.common.named(fault))?;
        if !is_late {
            return Ok(Step::Wait);
        }
        if let Some(body) = port.outlet.body_mut(ticket) {
            *body = Stored::Kept(bytes.to_vec());
        }
        Ok(Step::GiveUp)
    })?;
    Ok(sent.is_some())
}

/// Stores a message until it is received, and leaves an empty one; waits for room. False if there is none in time.
pub(super) fn post(
    shared: &Arc<Shared>,
    index: usize,
    bytes: &mut Vec<u8>,
    timeout: Option<Duration>,
) -> Result<bool, Error> {
    check_length(bytes.len() as u64)?;
    let until = deadline(timeout);
    let posted = shared.drive(&[Port::Out(index)], until, |inner, is_late| {
        let is_costly = inner.outs[index].has_sockets();
        let is_burst = is_costly && inner.late.posts(index);
        let port = &mut inner.outs[index];
        // Whether the other side has closed is heard before anything is stored for it; in a burst, before its first.
        if !is_burst {
            port.hear();
        }
        port.outlet.use_mode(Mode::Async).map_err(|fault| port.common.named(fault))?;
        if !port.outlet.has_room(bytes.len() as u64) {
            port.tell(None);
            port.outlet.check().map_err(|fault| port.common.named(fault))?;
        }
        let body = match &mut port.spill {
            _ if port.outlet.has_room(bytes.len() as u64) => Some(Stored::Kept(std::mem::take(bytes))),
            Some(spill) => Some(Stored::Spilled(spill.put(bytes)?)),
            None => None,
        };
        if let Some(body) = body {
            port.outlet.send(body);
            if !is_burst {
                port.tell(None);
                if is_costly {
                    inner.late.posted(index);
                }
            } else if port.gather() {
                inner.late.holds(index);
            }
            return Ok(Step::Done(()));
        }
        Ok(if is_late { Step::GiveUp } else { Step::Wait })
    })?;
    Ok(posted.is_some())
}

/// An empty message, if possible with the memory of one that was received.
pub(super) fn buffer(shared: &Arc<Shared>, index: usize, length: usize) -> Vec<u8> {
    if length < SPARE_BYTES_MIN {
        return Vec::with_capacity(length);
    }
    match shared.lock().outs[index].outlet.spare(length as u64) {
        Some(Stored::Kept(mut bytes)) => {
            bytes.clear();
            bytes
        }
        _ => Vec::with_capacity(length),
    }
}

/// How much an output channel stores: messages, and their bytes.
pub(super) fn stored(shared: &Arc<Shared>, index: usize) -> (usize, u64) {
    shared.lock().outs[index].outlet.stored()
}

/// One look at an input channel: the lane of the message that is there; else what to do.
fn look(
    inner: &mut Inner,
    index: usize,
    is_late: bool,
    sink: &mut Option<Sink<'_>>,
) -> Result<Result<usize, Step<usize>>, Error> {
    let port = &mut inner.ins[index];
    port.pump(sink);
    if let Some(lane) = port.inlet.front().map_err(|fault| port.common.named(fault))? {
        return Ok(Ok(lane));
    }
    if port.inlet.must_ask() {
        let want = port.inlet.want(is_late);
        port.tell();
        if want == Want::Wait {
            return Ok(Err(Step::Wait));
        }
    }
    if !is_late {
        return Ok(Err(Step::Wait));
    }
    // Whoever never waits hears of pipes here.
    if port.ways.iter().any(|way| way.conduit.is_none()) {
        inner.hear()?;
        let port = &mut inner.ins[index];
        port.pump(sink);
        if let Some(lane) = port.inlet.front().map_err(|fault| port.common.named(fault))? {
            return Ok(Ok(lane));
        }
    }
    Ok(Err(Step::GiveUp))
}

fn use_mode(port: &mut InPort, mode: Option<Mode>) -> Result<(), Error> {
    match mode {
        Some(mode) => port.inlet.use_mode(mode).map_err(|fault| port.common.named(fault)),
        None => Ok(()),
    }
}

/// Receives the next message, and its lane; `None` if there is none in time. With a mode, only in that.
pub(super) fn receive(
    shared: &Arc<Shared>,
    index: usize,
    mode: Option<Mode>,
    timeout: Option<Duration>,
) -> Result<Option<(usize, Vec<u8>)>, Error> {
    shared.drive(&[Port::In(index)], deadline(timeout), |inner, is_late| {
        use_mode(&mut inner.ins[index], mode)?;
        match look(inner, index, is_late, &mut None)? {
            Ok(lane) => {
                let port = &mut inner.ins[index];
                let body = std::mem::take(&mut port.bodies[lane]);
                inner.take(index, lane);
                Ok(Step::Done((lane, body)))
            }
            Err(Step::GiveUp) => Ok(Step::GiveUp),
            Err(_) => Ok(Step::Wait),
        }
    })
}

/// The same, into the room given; its lane, and how many bytes it has. One that does not fit is an error and stays.
pub(super) fn receive_into(
    shared: &Arc<Shared>,
    index: usize,
    mode: Option<Mode>,
    out: &mut [u8],
    timeout: Option<Duration>,
) -> Result<Option<(usize, usize)>, Error> {
    let room = out.len() as u64;
    let mut sink = Some(Sink { out, lane: None });
    shared.drive(&[Port::In(index)], deadline(timeout), |inner, is_late| {
        use_mode(&mut inner.ins[index], mode)?;
        let found = look(inner, index, is_late, &mut sink);
        let port = &mut inner.ins[index];
        let Some(sink) = &mut sink else { return Ok(Step::GiveUp) };
        match found {
            Ok(Ok(lane)) => {
                let Reading::Whole { length } = port.inlet.reading(lane) else { return Ok(Step::Wait) };
                if length > room {
                    keep(port, sink);
                    return Err(Error::TooLong { channel: port.common.name.clone(), length, room });
                }
                let length = length as usize;
                if sink.lane != Some(lane) {
                    keep(port, sink);
                    sink.out[..length].copy_from_slice(&port.bodies[lane]);
                }
                inner.take(index, lane);
                Ok(Step::Done((lane, length)))
            }
            Ok(Err(Step::Wait)) => Ok(Step::Wait),
            Ok(Err(_)) => {
                keep(port, sink);
                Ok(Step::GiveUp)
            }
            Err(error) => {
                keep(port, sink);
                Err(error)
            }
        }
    })
}

/// Keeps what has arrived of a message in room that is needed for something else.
fn keep(port: &mut InPort, sink: &mut Sink<'_>) {
    let Some(lane) = sink.lane.take() else { return };
    let got = match port.inlet.reading(lane) {
        Reading::Body { got, .. } => got,
        Reading::Whole { length } => length,
        Reading::Head | Reading::Nothing => return,
    };
    let body = &mut port.bodies[lane];
    body.clear();
    body.extend_from_slice(&sink.out[..got as usize]);
}

/// Waits until one of several input channels has a message; which.
pub(super) fn select(
    shared: &Arc<Shared>,
    indexes: &[usize],
    timeout: Option<Duration>,
) -> Result<Option<usize>, Error> {
    let ports: Vec<Port> = indexes.iter().map(|index| Port::In(*index)).collect();
    let mut found = None;
    shared.drive(&ports, deadline(timeout), |inner, is_late| {
        let mut ended = 0;
        for (place, index) in indexes.iter().enumerate() {
            let port = &mut inner.ins[*index];
            port.pump(&mut None);
            match port.inlet.front() {
                Ok(Some(_)) => found = found.or(Some(place)),
                Ok(None) => {}
                Err(Fault::Ended) if ended + 1 < indexes.len() => ended += 1,
                Err(fault) => return Err(port.common.named(fault)),
            }
        }
        // An answer that is on its way is waited for, so that no message is left between the two sides.
        let mut is_waiting = false;
        for index in indexes {
            let port = &mut inner.ins[*index];
            if !port.inlet.must_ask() || port.inlet.front() != Ok(None) {
                continue;
            }
            if found.is_none() && !is_late {
                let _ = port.inlet.want(false);
            } else if port.inlet.has_asked() {
                is_waiting |= port.inlet.want(true) == Want::Wait;
            }
            port.tell();
        }
        Ok(match found {
            _ if is_waiting => Step::Wait,
            Some(place) => Step::Done(place),
            None if is_late => Step::GiveUp,
            None => Step::Wait,
        })
    })
}

/// Waits until every stored message is received, then tells the other ends that no more comes.
pub(super) fn close(shared: &Arc<Shared>) -> Result<(), Error> {
    let (outs, ins) = {
        let inner = shared.lock();
        (inner.outs.len(), inner.ins.len())
    };
    let mut result = Ok(());
    for index in 0..outs {
        let settled = shared.drive(&[Port::Out(index)], None, |inner, _| {
            let port = &mut inner.outs[index];
            port.pump(None);
            // Of a message that is still lent here, its sender has heard.
            if port.outlet.unsettled().all(|body| matches!(body, Stored::Lent(_))) {
                return Ok(Step::Done(()));
            }
            port.outlet.check().map_err(|fault| port.common.named(fault))?;
            Ok(Step::Wait)
        });
        result = result.and(settled.map(drop));
    }
    let ports: Vec<Port> = (0..outs).map(Port::Out).chain((0..ins).map(Port::In)).collect();
    let told = tell_of_end(shared, &ports);
    shared.end();
    result.and(told)
}

/// Tells the other ends that no more comes, and waits for their answers, as far as they come in time.
fn tell_of_end(shared: &Arc<Shared>, ports: &[Port]) -> Result<(), Error> {
    let until = deadline(Some(FAREWELL));
    loop {
        let told = shared.drive(ports, until, |inner, is_late| {
            Ok(if part(inner).0 { Step::Done(()) } else { Step::wait_unless(is_late) })
        })?;
        if told.is_none() {
            return Ok(());
        }
        let answered = shared.drive(ports, deadline(Some(ANSWER)).min(until), |inner, is_late| {
            Ok(match part(inner) {
                (_, true) => Step::Done(true),
                // A pipe broke: it is to be said again.
                (false, false) => Step::Done(false),
                (true, false) => Step::wait_unless(is_late),
            })
        })?;
        if answered != Some(false) {
            return Ok(());
        }
    }
}

/// Closes what is open; whether all others were told, and whether all have answered.
fn part(inner: &mut Inner) -> (bool, bool) {
    let (mut are_told, mut have_answered) = (true, true);
    for port in &mut inner.outs {
        port.outlet.close();
        port.pump(None);
        are_told &= port.outlet.is_over();
        have_answered &= port.outlet.is_confirmed();
    }
    for port in &mut inner.ins {
        port.inlet.close();
        port.pump(&mut None);
        are_told &= port.inlet.is_over();
        have_answered &= port.inlet.is_confirmed();
    }
    (are_told, have_answered)
}
