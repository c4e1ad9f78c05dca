//! The channels of this process, each with the pipes of its lanes.

use super::Error;
use super::conduit::{Conduit, Gone};
use super::error::{other_word, word};
use super::spill::{Spill, Spilled};
use mutirao_group::channel::{Body, Fault, Inlet, Outlet, PipeId, Reading};
use mutirao_group::plan::{Peer, PortPlan, ProcessPlan, Shape};

/// Memory for a message is set aside as it comes, at first so much: its announced length is the sender's word.
const RESERVE_BYTES: usize = 1024 * 1024;

/// Memory of so many bytes and more is kept for another message: the system hands it out page by page.
pub(super) const SPARE_BYTES_MIN: usize = 128 * 1024;

/// Bytes read at once of a message on disk.
const SCRATCH_BYTES: usize = 64 * 1024;

/// The bytes of a message on its way out.
#[derive(Debug)]
pub(super) enum Stored {
    /// Whoever waits for it to be received has them.
    Lent(u64),
    /// They are here.
    Kept(Vec<u8>),
    /// They are on disk.
    Spilled(Spilled),
}

impl Body for Stored {
    fn length(&self) -> u64 {
        match self {
            Stored::Lent(length) => *length,
            Stored::Kept(bytes) => bytes.len() as u64,
            Stored::Spilled(spilled) => spilled.length,
        }
    }

    fn stored(&self) -> u64 {
        if let Stored::Spilled(_) = self { 0 } else { self.length() }
    }

    fn room(&self) -> u64 {
        match self {
            Stored::Kept(bytes) if bytes.capacity() >= SPARE_BYTES_MIN => bytes.capacity() as u64,
            _ => 0,
        }
    }
}

/// What wakes the helper of a pipe.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Watch {
    /// Nothing: it does not sleep on it.
    #[default]
    No,
    /// Bytes to read.
    Bytes,
    /// The same, and room to write.
    Room,
}

/// What one lane goes over.
#[derive(Debug, Default)]
pub(super) struct Way {
    pub(super) conduit: Option<Conduit>,
    /// Its end was announced: what it still holds is read, nothing more is written.
    pub(super) is_dying: bool,
    /// It will not be there again once what it holds is read, and why.
    pub(super) fails: Option<String>,
    /// There was no room for all that was to be written or sent.
    pub(super) is_full: bool,
    /// What wakes the helper, which sleeps on it.
    pub(super) watch: Watch,
}

impl Way {
    /// Puts a new pipe in its place.
    pub(super) fn open(&mut self, conduit: Conduit) {
        *self = Way { conduit: Some(conduit), ..Way::default() };
    }

    fn is_socket(&self) -> bool {
        self.conduit.as_ref().is_some_and(Conduit::is_socket)
    }

    /// Whether the helper, where it sleeps, is woken by all that is to be waited for, once the pipe is armed.
    pub(super) fn is_watched(&self) -> bool {
        match &self.conduit {
            None => true,
            // The two flags in a ring are raised and lowered while somebody sleeps on its bell.
            Some(Conduit::Ring(_)) => self.watch >= Watch::Bytes,
            // A sleep on a socket is for what it began with.
            Some(Conduit::Plain(_)) => self.watch >= if self.is_full { Watch::Room } else { Watch::Bytes },
        }
    }
}

/// An output channel.
#[derive(Debug)]
pub(super) struct OutPort {
    pub(super) outlet: Outlet<Stored>,
    pub(super) ways: Vec<Way>,
    /// Where messages go that are beyond what may be stored, if they may.
    pub(super) spill: Option<Spill>,
    /// Bytes of such a message on their way.
    scratch: Vec<u8>,
    pub(super) common: Common,
}

/// An input channel.
#[derive(Debug)]
pub(super) struct InPort {
    pub(super) inlet: Inlet,
    pub(super) ways: Vec<Way>,
    /// The messages that are arriving, by lane.
    pub(super) bodies: Vec<Vec<u8>>,
    pub(super) common: Common,
}

/// What every channel has.
#[derive(Debug)]
pub(super) struct Common {
    /// For people.
    pub(super) name: String,
    peers: Vec<String>,
    pub(super) pipes: Vec<u64>,
    /// A call uses it.
    pub(super) is_busy: bool,
    /// Senders may hear a little later of messages taken that nobody waits for.
    pub(super) puts_off: bool,
    /// What a ring's other side did to it.
    damaged: Option<(usize, String)>,
}

/// A place for the bytes of one message, given by whoever receives.
#[derive(Debug)]
pub(super) struct Sink<'a> {
    pub(super) out: &'a mut [u8],
    /// The lane whose message goes there.
    pub(super) lane: Option<usize>,
}

fn pipe_ids(plan: &ProcessPlan, peers: &[Peer]) -> Vec<PipeId> {
    peers.iter().map(|peer| PipeId { group: plan.group, number: peer.pipe }).collect()
}

impl Common {
    fn new(name: String, peers: &[Peer]) -> Common {
        Common {
            name,
            peers: peers.iter().map(Peer::process).collect(),
            pipes: peers.iter().map(|peer| peer.pipe).collect(),
            is_busy: false,
            puts_off: false,
            damaged: None,
        }
    }

    fn peer(&self, lane: usize) -> String {
        self.peers.get(lane).cloned().unwrap_or_default()
    }

    /// A fault with names in it.
    #[cold]
    pub(super) fn named(&self, fault: Fault) -> Error {
        let channel = self.name.clone();
        match fault {
            Fault::Mixed { lane, here } => {
                Error::Mixed { channel, here: word(here), there: other_word(here), peer: self.peer(lane) }
            }
            Fault::MixedHere { here } => Error::MixedHere { channel, here: word(here) },
            Fault::Nonsense { lane, why } => Error::Nonsense { channel, peer: self.peer(lane), why },
            Fault::Ended => Error::Ended { channel },
            Fault::Failed { lane, text } => match &self.damaged {
                Some((at, text)) if *at == lane => {
                    Error::Damaged { channel, peer: self.peer(lane), text: text.clone() }
                }
                _ => Error::PeerLost { channel, peer: self.peer(lane), text },
            },
        }
    }
}

impl OutPort {
    pub(super) fn new(plan: &ProcessPlan, name: String, port: &PortPlan, stored_bytes_max: u64) -> OutPort {
        let is_asked = port.shape == Shape::OneToMany;
        OutPort {
            outlet: Outlet::new(&pipe_ids(plan, &port.peers), is_asked, port.mode, stored_bytes_max),
            ways: port.peers.iter().map(|_| Way::default()).collect(),
            spill: plan.spill.then(Spill::default),
            scratch: Vec::new(),
            common: Common::new(name, &port.peers),
        }
    }

    /// Reads and writes what can be read and written now. `lent` is the message of the caller, if it has one.
    pub(super) fn pump(&mut self, lent: Option<&[u8]>) {
        self.hear();
        self.tell(lent);
    }

    /// Reads what can be read now, such as that the other side has closed.
    pub(super) fn hear(&mut self) {
        self.each(OutPort::read_lane);
    }

    /// Writes what can be written now.
    pub(super) fn tell(&mut self, lent: Option<&[u8]>) {
        self.each(|port, lane| {
            port.write_lane(lane, lent)?;
            port.flush_lane(lane)
        });
    }

    /// The same, and keeps back what can be sent together with more; whether something was.
    pub(super) fn gather(&mut self) -> bool {
        self.each(|port, lane| {
            port.write_lane(lane, None)?;
            if port.ways[lane].is_socket() { Ok(()) } else { port.flush_lane(lane) }
        });
        self.ways.iter().any(|way| way.conduit.as_ref().is_some_and(Conduit::has_gathered))
    }

    /// Whether each flush takes a system call.
    #[inline]
    pub(super) fn has_sockets(&self) -> bool {
        self.ways.iter().any(Way::is_socket)
    }

    /// Sends what was kept back.
    pub(super) fn flush(&mut self) {
        self.each(OutPort::flush_lane);
    }

    /// Whether somebody must look after it while the program does something else.
    pub(super) fn has_duties(&self) -> bool {
        self.outlet.has_duties() || self.ways.iter().any(|way| way.is_full)
    }

    #[inline]
    fn each(&mut self, mut step: impl FnMut(&mut OutPort, usize) -> Result<(), Gone>) {
        for lane in 0..self.ways.len() {
            if self.ways[lane].conduit.is_some()
                && let Err(gone) = step(self, lane)
            {
                self.lose(lane, gone);
            }
        }
    }

    #[cold]
    fn lose(&mut self, lane: usize, gone: Gone) {
        self.ways[lane].conduit = None;
        match gone {
            Gone::Ended => match self.ways[lane].fails.take() {
                None => self.outlet.broken(lane),
                Some(text) => self.outlet.failed(lane, text),
            },
            Gone::Corrupt(text) => {
                self.common.damaged = Some((lane, text.clone()));
                self.outlet.failed(lane, text);
            }
            Gone::Unreadable(text) => self.outlet.failed(lane, text),
        }
    }

    #[inline]
    fn read_lane(&mut self, lane: usize) -> Result<(), Gone> {
        let way = &mut self.ways[lane];
        let Some(conduit) = &mut way.conduit else { return Ok(()) };
        loop {
            let count = conduit.read(self.outlet.head_room(lane))?;
            if count == 0 {
                break;
            }
            if self.outlet.head_filled(lane, count).is_err() {
                break;
            }
        }
        if way.is_dying { Err(Gone::Ended) } else { Ok(()) }
    }

    #[inline]
    fn write_lane(&mut self, lane: usize, lent: Option<&[u8]>) -> Result<(), Gone> {
        let way = &mut self.ways[lane];
        let Some(conduit) = &mut way.conduit else { return Ok(()) };
        way.is_full = false;
        while let Some(out) = self.outlet.next(lane) {
            let body = match out.body {
                None => &[],
                Some((Stored::Spilled(spilled), from)) => {
                    self.scratch.resize(SCRATCH_BYTES, 0);
                    let read = spilled.read(from, &mut self.scratch);
                    let unread = |error: std::io::Error| {
                        Gone::Unreadable(format!("a message stored on disk cannot be read: {error}"))
                    };
                    &self.scratch[..read.map_err(unread)?]
                }
                Some((Stored::Kept(bytes), from)) => &bytes[from as usize..],
                Some((Stored::Lent(_), from)) => match lent {
                    Some(bytes) => &bytes[from as usize..],
                    // Its sender will come for it.
                    None => break,
                },
            };
            let offered = out.head.len() + body.len();
            let count = conduit.write(out.head, body)?;
            self.outlet.wrote(lane, count as u64);
            if count < offered {
                way.is_full = true;
                break;
            }
        }
        Ok(())
    }

    #[inline]
    fn flush_lane(&mut self, lane: usize) -> Result<(), Gone> {
        let way = &mut self.ways[lane];
        if let Some(conduit) = &mut way.conduit {
            way.is_full |= !conduit.flush()?;
        }
        Ok(())
    }
}

impl InPort {
    pub(super) fn new(plan: &ProcessPlan, name: String, port: &PortPlan) -> InPort {
        let must_ask = port.shape == Shape::OneToMany;
        InPort {
            inlet: Inlet::new(&pipe_ids(plan, &port.peers), must_ask, port.mode),
            ways: port.peers.iter().map(|_| Way::default()).collect(),
            bodies: port.peers.iter().map(|_| Vec::new()).collect(),
            common: Common::new(name, &port.peers),
        }
    }

    /// Reads and writes what can be read and written now. A message that fits goes to `sink` as it comes.
    pub(super) fn pump(&mut self, sink: &mut Option<Sink<'_>>) {
        for lane in 0..self.ways.len() {
            if self.ways[lane].conduit.is_none() {
                continue;
            }
            let result = self.read_lane(lane, sink).and_then(|()| self.write_lane(lane));
            if let Err(gone) = result {
                self.lose(lane, gone);
                if let Some(sink) = sink {
                    sink.lane.take_if(|taken| *taken == lane);
                }
            }
        }
    }

    /// Writes what can be written now, such as a question. What came meanwhile stays unread, where it wakes a sleeper:
    /// a message or an answer that was read after it was looked for would not. An end is met when that is read.
    pub(super) fn tell(&mut self) {
        for lane in 0..self.ways.len() {
            let _ = self.write_lane(lane);
        }
    }

    fn lose(&mut self, lane: usize, gone: Gone) {
        self.ways[lane].conduit = None;
        match gone {
            Gone::Ended => match self.ways[lane].fails.take() {
                None => self.inlet.broken(lane),
                Some(text) => self.inlet.failed(lane, text),
            },
            Gone::Corrupt(text) => {
                self.common.damaged = Some((lane, text.clone()));
                self.inlet.failed(lane, text);
            }
            Gone::Unreadable(text) => self.inlet.failed(lane, text),
        }
    }

    #[inline]
    fn read_lane(&mut self, lane: usize, sink: &mut Option<Sink<'_>>) -> Result<(), Gone> {
        if let Err(Fault::Nonsense { .. }) = self.inlet.check() {
            return Ok(());
        }
        let way = &mut self.ways[lane];
        let Some(conduit) = &mut way.conduit else { return Ok(()) };
        loop {
            match self.inlet.reading(lane) {
                Reading::Head => {
                    let count = conduit.read(self.inlet.head_room(lane))?;
                    if count == 0 {
                        if !self.common.puts_off {
                            self.inlet.settle(lane);
                        }
                        return if way.is_dying { Err(Gone::Ended) } else { Ok(()) };
                    }
                    if self.inlet.head_filled(lane, count).is_err() {
                        return Ok(());
                    }
                }
                Reading::Body { got, length } => {
                    if got == 0
                        && let Some(sink) = sink
                        && sink.lane.is_none_or(|taken| taken == lane)
                    {
                        sink.lane = (length <= sink.out.len() as u64).then_some(lane);
                    }
                    let count = match sink {
                        Some(sink) if sink.lane == Some(lane) => {
                            conduit.read(&mut sink.out[got as usize..length as usize])?
                        }
                        _ => {
                            let body = &mut self.bodies[lane];
                            let left = usize::try_from(length - got).unwrap_or(usize::MAX);
                            if got == 0 {
                                body.clear();
                                body.reserve_exact(left.min(RESERVE_BYTES));
                            }
                            conduit.read_to(body, left)?
                        }
                    };
                    if count == 0 {
                        return if way.is_dying { Err(Gone::Ended) } else { Ok(()) };
                    }
                    self.inlet.body_came(lane, count as u64);
                }
                Reading::Whole { length } => {
                    if length == 0 {
                        self.bodies[lane].clear();
                    }
                    return Ok(());
                }
                Reading::Nothing => return Ok(()),
            }
        }
    }

    #[inline]
    fn write_lane(&mut self, lane: usize) -> Result<(), Gone> {
        let way = &mut self.ways[lane];
        let Some(conduit) = &mut way.conduit else { return Ok(()) };
        if way.is_dying {
            return Ok(());
        }
        way.is_full = false;
        while let Some(bytes) = self.inlet.next(lane) {
            let all = bytes.len();
            let count = conduit.write(bytes, &[])?;
            self.inlet.wrote(lane, count);
            if count < all {
                way.is_full = true;
                break;
            }
        }
        way.is_full |= !conduit.flush()?;
        Ok(())
    }

    /// The program takes the message of a lane; its sender hears of it unless more has come already, or that is put
    /// off. Whether it could be.
    #[inline]
    pub(super) fn take(&mut self, lane: usize) -> bool {
        self.inlet.take(lane);
        let is_last = self.ways[lane].conduit.as_mut().is_none_or(Conduit::is_drained);
        let can_wait = self.inlet.can_settle_later(lane);
        if is_last && !self.common.puts_off {
            self.inlet.settle(lane);
        }
        if let Err(gone) = self.write_lane(lane) {
            self.lose(lane, gone);
        }
        can_wait
    }

    /// Tells senders what was put off.
    pub(super) fn settle(&mut self) {
        for lane in 0..self.ways.len() {
            self.inlet.settle(lane);
            if let Err(gone) = self.write_lane(lane) {
                self.lose(lane, gone);
            }
        }
    }
}
