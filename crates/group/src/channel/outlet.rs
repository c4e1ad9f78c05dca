//! The sending end of a channel.

use super::frame::{Frame, Greeting, Heads, Writing};
use super::{Fault, Nonsense, PipeId};
use crate::plan::Mode;
use std::collections::VecDeque;

/// What a stored message is counted with beside its bytes.
const OVERHEAD_BYTES: u64 = 64;

/// A message's bytes, wherever they are.
pub trait Body {
    /// How many.
    fn length(&self) -> u64;

    /// How many of them take memory here.
    fn stored(&self) -> u64 {
        self.length()
    }
}

impl Body for Vec<u8> {
    fn length(&self) -> u64 {
        self.len() as u64
    }
}

/// What is to be written next: all of `head`, then the body from a place on.
#[derive(Debug, PartialEq, Eq)]
pub struct Out<'a, M> {
    /// Bytes.
    pub head: &'a [u8],
    /// The message, and from which byte.
    pub body: Option<(&'a M, u64)>,
}

/// A message that is not known to be taken.
#[derive(Debug)]
struct Kept<M> {
    ticket: u64,
    body: M,
}

#[derive(Clone, Copy, Debug)]
struct Ask {
    number: u64,
    now: bool,
    mode: Option<Mode>,
}

#[derive(Debug)]
struct Lane<M> {
    pipe: PipeId,
    is_open: bool,
    /// The other side has greeted since it opened.
    has_met: bool,
    /// The other side has never greeted.
    is_fresh: bool,
    /// Number of the last message that was taken.
    taken: u64,
    /// Those after it, in order.
    kept: VecDeque<Kept<M>>,
    /// Of these so many are written.
    written: usize,
    ask: Option<Ask>,
    /// The last ask that was answered.
    answered: u64,
    heads: Heads,
    writing: Option<Writing>,
    owes_greeting: bool,
    owes_empty: Option<u64>,
    owes_refusal: bool,
    has_said_closed: bool,
    /// The other side wants nothing more.
    is_closed: bool,
}

/// The sending end of a channel: keeps what is not taken, and decides what is written where.
#[derive(Debug)]
pub struct Outlet<M> {
    mode: Option<Mode>,
    /// Messages wait here until somebody asks (1:n).
    is_asked: bool,
    lanes: Vec<Lane<M>>,
    /// Given to no lane yet.
    waiting: VecDeque<Kept<M>>,
    /// Lanes that have asked, in order.
    asks: VecDeque<usize>,
    tickets: u64,
    stored_bytes: u64,
    stored_bytes_max: u64,
    is_closing: bool,
    fault: Option<Fault>,
}

impl<M: Body> Outlet<M> {
    /// An output channel with a lane for each pipe. `is_asked` where it has several receivers.
    pub fn new(pipes: &[PipeId], is_asked: bool, mode: Option<Mode>, stored_bytes_max: u64) -> Outlet<M> {
        let lane = |pipe: &PipeId| Lane {
            pipe: *pipe,
            is_open: false,
            has_met: false,
            is_fresh: true,
            taken: 0,
            kept: VecDeque::new(),
            written: 0,
            ask: None,
            answered: 0,
            heads: Heads::new(),
            writing: None,
            owes_greeting: false,
            owes_empty: None,
            owes_refusal: false,
            has_said_closed: false,
            is_closed: false,
        };
        Outlet {
            mode,
            is_asked,
            lanes: pipes.iter().map(lane).collect(),
            waiting: VecDeque::new(),
            asks: VecDeque::new(),
            tickets: 0,
            stored_bytes: 0,
            stored_bytes_max,
            is_closing: false,
            fault: None,
        }
    }

    /// The program sends in this mode from now on; refused if it has sent in the other.
    pub fn use_mode(&mut self, mode: Mode) -> Result<(), Fault> {
        self.check()?;
        let here = *self.mode.get_or_insert(mode);
        if here == mode { Ok(()) } else { Err(Fault::MixedHere { here }) }
    }

    /// Whether so long a message may be stored now. One may always be.
    pub fn has_room(&self, length: u64) -> bool {
        let with = self.stored_bytes.saturating_add(length).saturating_add(OVERHEAD_BYTES);
        self.stored_bytes == 0 || with <= self.stored_bytes_max
    }

    /// Takes a message on its way, in the mode in use; the name by which to ask after it.
    pub fn send(&mut self, body: M) -> u64 {
        debug_assert!(self.mode.is_some(), "a mode is chosen first");
        self.tickets += 1;
        self.stored_bytes += body.stored() + OVERHEAD_BYTES;
        let kept = Kept { ticket: self.tickets, body };
        if self.is_asked {
            self.waiting.push_back(kept);
            self.give();
        } else if let Some(lane) = self.lanes.first_mut() {
            lane.kept.push_back(kept);
        }
        self.tickets
    }

    /// Whether a receiver has this message.
    pub fn is_taken(&self, ticket: u64) -> bool {
        let has = |kept: &VecDeque<Kept<M>>| kept.iter().any(|kept| kept.ticket == ticket);
        !has(&self.waiting) && !self.lanes.iter().any(|lane| has(&lane.kept))
    }

    /// A message that is not taken yet, to be kept elsewhere. Its lengths must stay.
    pub fn body_mut(&mut self, ticket: u64) -> Option<&mut M> {
        let lanes = self.lanes.iter_mut().flat_map(|lane| &mut lane.kept);
        self.waiting.iter_mut().chain(lanes).find(|kept| kept.ticket == ticket).map(|kept| &mut kept.body)
    }

    /// The pipe of a lane is there, for the first time or anew.
    pub fn opened(&mut self, lane: usize) {
        self.broken(lane);
        let is_mixed = matches!(self.fault, Some(Fault::Mixed { .. }));
        let lane = &mut self.lanes[lane];
        lane.is_open = true;
        lane.owes_greeting = true;
        lane.owes_refusal = is_mixed;
    }

    /// The pipe of a lane is no longer of use.
    pub fn broken(&mut self, lane: usize) {
        self.asks.retain(|asker| *asker != lane);
        let lane = &mut self.lanes[lane];
        lane.is_open = false;
        lane.has_met = false;
        lane.written = 0;
        lane.ask = None;
        lane.heads.clear();
        lane.writing = None;
        lane.owes_greeting = false;
        lane.owes_empty = None;
        lane.owes_refusal = false;
        lane.has_said_closed = false;
    }

    /// The pipe of a lane will not be there again.
    pub fn failed(&mut self, lane: usize, text: String) {
        self.broken(lane);
        if !self.lanes[lane].is_closed {
            self.fault.get_or_insert(Fault::Failed { lane, text });
        }
    }

    /// Where to put what is read of a lane.
    #[inline]
    pub fn head_room(&mut self, lane: usize) -> &mut [u8] {
        self.lanes[lane].heads.room()
    }

    /// So many bytes were put there.
    #[inline]
    pub fn head_filled(&mut self, lane: usize, count: usize) -> Result<(), Fault> {
        let frame = self.lanes[lane].heads.filled(count);
        let result = frame.and_then(|frame| frame.map_or(Ok(()), |frame| self.frame(lane, frame)));
        if let Err(why) = result {
            self.fault = Some(Fault::Nonsense { lane, why });
        }
        self.check()
    }

    fn frame(&mut self, at: usize, frame: Frame) -> Result<(), Nonsense> {
        let lane = &mut self.lanes[at];
        if lane.has_met == matches!(frame, Frame::Greeting(_)) {
            return Err(Nonsense("a greeting is missing, or came twice"));
        }
        match frame {
            Frame::Greeting(greeting) => self.meet(at, &greeting),
            Frame::Taken(sequence) => {
                let last = lane.taken + lane.written as u64;
                if sequence < lane.taken || sequence > last {
                    return Err(Nonsense("messages are said to be taken that were not sent"));
                }
                self.taken(at, sequence);
                Ok(())
            }
            Frame::Ask { number, now, mode } if self.is_asked => {
                if number <= lane.answered {
                    return Ok(());
                }
                if lane.ask.replace(Ask { number, now, mode }).is_none() {
                    self.asks.push_back(at);
                }
                self.give();
                Ok(())
            }
            Frame::Refused => {
                let here = self.mode.ok_or(Nonsense("it refuses what was never sent"))?;
                self.fault.get_or_insert(Fault::Mixed { lane: at, here });
                Ok(())
            }
            Frame::Closed => {
                lane.is_closed = true;
                if self.is_asked {
                    // What it was given and has not taken is for somebody else.
                    self.asks.retain(|asker| *asker != at);
                    lane.ask = None;
                    lane.written = 0;
                    lane.writing = lane.writing.take().filter(|writing| !writing.is_message());
                    while let Some(kept) = lane.kept.pop_back() {
                        self.waiting.push_front(kept);
                    }
                    self.give();
                }
                if self.lanes.iter().all(|lane| lane.is_closed) {
                    self.fault.get_or_insert(Fault::Ended);
                }
                Ok(())
            }
            Frame::Message { .. } | Frame::Empty(_) | Frame::Ask { .. } => {
                Err(Nonsense("a frame came that only a sender may send"))
            }
        }
    }

    fn meet(&mut self, at: usize, greeting: &Greeting) -> Result<(), Nonsense> {
        let lane = &mut self.lanes[at];
        if greeting.pipe != lane.pipe {
            return Err(Nonsense("the greeting is meant for another pipe"));
        }
        lane.has_met = true;
        // Whoever is new knows nothing of what was taken; all that is kept goes to a new receiver.
        let both_know = !lane.is_fresh && !greeting.fresh;
        lane.is_fresh = false;
        if both_know {
            if greeting.taken < lane.taken || greeting.taken > lane.taken + lane.kept.len() as u64 {
                return Err(Nonsense("messages are said to be taken that were not sent"));
            }
            self.taken(at, greeting.taken);
            self.lanes[at].written = 0;
        }
        Ok(())
    }

    /// The program there has received messages up to this one.
    fn taken(&mut self, at: usize, sequence: u64) {
        let lane = &mut self.lanes[at];
        while lane.taken < sequence {
            let Some(kept) = lane.kept.pop_front() else { return };
            self.stored_bytes -= kept.body.stored() + OVERHEAD_BYTES;
            lane.written = lane.written.saturating_sub(1);
            lane.taken += 1;
        }
    }

    /// Gives what waits to whoever has asked.
    fn give(&mut self) {
        while let Some(&at) = self.asks.front() {
            let lane = &mut self.lanes[at];
            let Some(ask) = lane.ask else { return };
            if let (Some(here), Some(there)) = (self.mode, ask.mode)
                && here != there
            {
                lane.owes_refusal = true;
                self.fault.get_or_insert(Fault::Mixed { lane: at, here });
                return;
            }
            let Some(kept) = self.waiting.pop_front() else { break };
            lane.kept.push_back(kept);
            lane.answered = ask.number;
            lane.ask = None;
            self.asks.pop_front();
        }
        // There is nothing for those left.
        let lanes = &mut self.lanes;
        self.asks.retain(|&at| {
            let lane = &mut lanes[at];
            let Some(ask) = lane.ask.take_if(|ask| ask.now) else { return true };
            lane.answered = ask.number;
            lane.owes_empty = Some(ask.number);
            false
        });
    }

    /// What to write to a lane now.
    #[inline]
    pub fn next(&mut self, lane: usize) -> Option<Out<'_, M>> {
        if self.lanes[lane].writing.is_none() {
            let frame = self.choose(lane)?;
            self.lanes[lane].writing = Some(Writing::new(frame));
        }
        let lane = &self.lanes[lane];
        let writing = lane.writing.as_ref()?;
        let message = if writing.is_message() { lane.kept.get(lane.written) } else { None };
        Some(Out { head: writing.head(), body: message.map(|kept| (&kept.body, writing.body_from())) })
    }

    /// So many bytes of what [`next`](Self::next) gave were written.
    #[inline]
    pub fn wrote(&mut self, lane: usize, bytes: u64) {
        let lane = &mut self.lanes[lane];
        if let Some(writing) = &mut lane.writing
            && writing.wrote(bytes)
        {
            lane.written += usize::from(writing.is_message());
            lane.writing = None;
        }
    }

    fn choose(&mut self, at: usize) -> Option<Frame> {
        let lane = &mut self.lanes[at];
        if !lane.is_open {
            return None;
        }
        if std::mem::take(&mut lane.owes_greeting) {
            let given = lane.taken + lane.kept.len() as u64;
            return Some(Frame::Greeting(Greeting {
                pipe: lane.pipe,
                taken: lane.taken,
                given,
                fresh: lane.is_fresh,
            }));
        }
        if std::mem::take(&mut lane.owes_refusal) {
            return Some(Frame::Refused);
        }
        if self.fault.is_some() || lane.is_closed {
            return None;
        }
        let is_over = self.is_closing && self.waiting.is_empty() && lane.written == lane.kept.len();
        let may_go_on = lane.has_met || is_over && lane.kept.is_empty();
        if !may_go_on {
            return None;
        }
        if let Some(number) = lane.owes_empty.take() {
            return Some(Frame::Empty(number));
        }
        if let (Some(kept), Some(mode)) = (lane.kept.get(lane.written), self.mode) {
            let sequence = lane.taken + lane.written as u64 + 1;
            return Some(Frame::Message { sequence, mode, length: kept.body.length() });
        }
        if is_over && !std::mem::replace(&mut lane.has_said_closed, true) {
            return Some(Frame::Closed);
        }
        None
    }

    /// Nothing more will be sent. The lanes are told when all was taken that waits for nobody in particular.
    pub fn close(&mut self) {
        self.is_closing = true;
    }

    /// Whether every message was taken.
    pub fn is_settled(&self) -> bool {
        self.waiting.is_empty() && self.lanes.iter().all(|lane| lane.kept.is_empty())
    }

    /// After [`close`](Self::close): whether every lane knows.
    pub fn is_over(&self) -> bool {
        let knows = |lane: &Lane<M>| lane.is_closed || lane.has_said_closed && lane.writing.is_none();
        self.fault.is_some() || self.lanes.iter().all(knows)
    }

    /// Whether somebody must look after it while the program does something else: messages have not left yet, or
    /// receivers may ask.
    pub fn has_duties(&self) -> bool {
        let unwritten = |lane: &Lane<M>| !lane.is_closed && lane.written < lane.kept.len();
        self.fault.is_none() && (self.is_asked || self.lanes.iter().any(unwritten))
    }

    /// Messages and their bytes that are not taken.
    pub fn stored(&self) -> (usize, u64) {
        let count = self.waiting.len() + self.lanes.iter().map(|lane| lane.kept.len()).sum::<usize>();
        (count, self.stored_bytes)
    }

    /// Whether a lane's other side has closed.
    pub fn is_closed(&self, lane: usize) -> bool {
        self.lanes[lane].is_closed
    }

    /// Why it can no longer be used, if it cannot.
    #[inline]
    pub fn check(&self) -> Result<(), Fault> {
        self.fault.as_ref().map_or(Ok(()), |fault| Err(fault.clone()))
    }
}
