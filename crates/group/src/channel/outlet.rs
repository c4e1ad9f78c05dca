//! The sending end of a channel.

use super::frame::{Frame, Greeting, Writing};
use super::lane::Lane;
use super::{Fault, Nonsense, PipeId};
use crate::plan::Mode;
use std::collections::VecDeque;

/// What a stored message is counted with beside its bytes.
const OVERHEAD_BYTES: u64 = 64;

/// So many messages that were taken are kept for their memory.
const SPARES_MAX: usize = 8;

/// A message's bytes, wherever they are.
pub trait Body {
    /// How many.
    fn length(&self) -> u64;

    /// How many of them take memory here.
    fn stored(&self) -> u64 {
        self.length()
    }

    /// Bytes of its memory that can serve another message once it is taken.
    fn room(&self) -> u64 {
        0
    }
}

impl Body for Vec<u8> {
    fn length(&self) -> u64 {
        self.len() as u64
    }

    fn room(&self) -> u64 {
        self.capacity() as u64
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
struct Sending<M> {
    lane: Lane,
    /// The messages after the last that was taken, in order.
    kept: VecDeque<Kept<M>>,
    /// Of these so many are written.
    written: usize,
    ask: Option<Ask>,
    /// The last ask that was answered.
    answered: u64,
    owes_empty: Option<u64>,
}

/// The sending end of a channel: keeps what is not taken, and decides what is written where.
#[derive(Debug)]
pub struct Outlet<M> {
    mode: Option<Mode>,
    /// Messages wait here until somebody asks (1:n).
    is_asked: bool,
    lanes: Vec<Sending<M>>,
    /// Given to no lane yet.
    waiting: VecDeque<Kept<M>>,
    /// Lanes that have asked, in order.
    asks: VecDeque<usize>,
    tickets: u64,
    stored_bytes: u64,
    stored_bytes_max: u64,
    /// Taken messages whose memory is kept; with what is stored it is never more than may be stored.
    spares: Vec<M>,
    spare_bytes: u64,
    /// Somebody has asked for such memory.
    keeps_spares: bool,
    is_closing: bool,
    fault: Option<Fault>,
}

impl<M: Body> Outlet<M> {
    /// An output channel with a lane for each pipe. `is_asked` where it has several receivers.
    pub fn new(pipes: &[PipeId], is_asked: bool, mode: Option<Mode>, stored_bytes_max: u64) -> Outlet<M> {
        let lane = |pipe: &PipeId| Sending {
            lane: Lane::new(*pipe),
            kept: VecDeque::new(),
            written: 0,
            ask: None,
            answered: 0,
            owes_empty: None,
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
            spares: Vec::new(),
            spare_bytes: 0,
            keeps_spares: false,
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
        self.shed();
        let kept = Kept { ticket: self.tickets, body };
        if self.is_asked {
            self.waiting.push_back(kept);
            self.give();
        } else if let Some(to) = self.lanes.first_mut() {
            to.kept.push_back(kept);
        }
        self.tickets
    }

    /// Whether a receiver has this message.
    pub fn is_taken(&self, ticket: u64) -> bool {
        let has = |kept: &VecDeque<Kept<M>>| kept.iter().any(|kept| kept.ticket == ticket);
        !has(&self.waiting) && !self.lanes.iter().any(|to| has(&to.kept))
    }

    /// A message that is not taken yet, to be kept elsewhere. Its lengths must stay.
    pub fn body_mut(&mut self, ticket: u64) -> Option<&mut M> {
        let lanes = self.lanes.iter_mut().flat_map(|to| &mut to.kept);
        self.waiting.iter_mut().chain(lanes).find(|kept| kept.ticket == ticket).map(|kept| &mut kept.body)
    }

    /// A message that was taken, whose memory has room for so many bytes; from the first question on such are kept.
    pub fn spare(&mut self, length: u64) -> Option<M> {
        self.keeps_spares = true;
        // The last one may still be in the caches.
        let at = self.spares.iter().rposition(|spare| spare.room() >= length)?;
        let spare = self.spares.remove(at);
        self.spare_bytes -= spare.room();
        Some(spare)
    }

    fn keep_spare(&mut self, body: M) {
        let room = body.room();
        if self.keeps_spares && room > 0 {
            self.spare_bytes += room;
            self.spares.push(body);
            self.shed();
        }
    }

    /// Lets spare memory go that is too much beside what is stored.
    fn shed(&mut self) {
        let is_too_much = |of: &Self| {
            of.spares.len() > SPARES_MAX
                || of.stored_bytes.saturating_add(of.spare_bytes) > of.stored_bytes_max
        };
        while !self.spares.is_empty() && is_too_much(self) {
            self.spare_bytes -= self.spares.remove(0).room();
        }
    }

    /// The pipe of a lane is there, for the first time or anew.
    pub fn opened(&mut self, lane: usize) {
        self.broken(lane);
        let is_mixed = matches!(self.fault, Some(Fault::Mixed { .. }));
        self.lanes[lane].lane.opened(is_mixed);
    }

    /// The pipe of a lane is no longer of use.
    pub fn broken(&mut self, lane: usize) {
        self.asks.retain(|asker| *asker != lane);
        let to = &mut self.lanes[lane];
        to.lane.broken();
        to.written = 0;
        to.ask = None;
        to.owes_empty = None;
    }

    /// The pipe of a lane will not be there again.
    pub fn failed(&mut self, lane: usize, text: String) {
        self.broken(lane);
        if !self.lanes[lane].lane.is_closed {
            self.fault.get_or_insert(Fault::Failed { lane, text });
        }
    }

    /// Where to put what is read of a lane.
    #[inline]
    pub fn head_room(&mut self, lane: usize) -> &mut [u8] {
        self.lanes[lane].lane.head_room()
    }

    /// So many bytes were put there.
    #[inline]
    pub fn head_filled(&mut self, lane: usize, count: usize) -> Result<(), Fault> {
        let frame = self.lanes[lane].lane.head_filled(count);
        let result = frame.and_then(|frame| frame.map_or(Ok(()), |frame| self.frame(lane, frame)));
        if let Err(why) = result {
            self.fault = Some(Fault::Nonsense { lane, why });
        }
        self.check()
    }

    fn frame(&mut self, at: usize, frame: Frame) -> Result<(), Nonsense> {
        let to = &mut self.lanes[at];
        match frame {
            Frame::Greeting(greeting) => self.meet(at, &greeting),
            Frame::Taken(sequence) => {
                let last = to.lane.taken + to.written as u64;
                if sequence < to.lane.taken || sequence > last {
                    return Err(Nonsense("messages are said to be taken that were not sent"));
                }
                self.taken(at, sequence);
                Ok(())
            }
            Frame::Ask { number, now, mode } if self.is_asked => {
                if number <= to.answered {
                    return Ok(());
                }
                if to.ask.replace(Ask { number, now, mode }).is_none() {
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
                to.lane.is_closed = true;
                if self.is_asked {
                    // What it was given and has not taken is for somebody else.
                    self.asks.retain(|asker| *asker != at);
                    to.ask = None;
                    to.written = 0;
                    to.lane.abandon_message();
                    while let Some(kept) = to.kept.pop_back() {
                        self.waiting.push_front(kept);
                    }
                    self.give();
                }
                let is_done = self.is_closing && self.is_settled();
                if self.lanes.iter().all(|to| to.lane.is_closed) && !is_done {
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
        let to = &mut self.lanes[at];
        // Whoever is new knows nothing of what was taken; all that is kept goes to a new receiver.
        if to.lane.meet(greeting)? {
            if greeting.taken < to.lane.taken || greeting.taken > to.lane.taken + to.kept.len() as u64 {
                return Err(Nonsense("messages are said to be taken that were not sent"));
            }
            self.taken(at, greeting.taken);
            self.lanes[at].written = 0;
        }
        Ok(())
    }

    /// The program there has received messages up to this one.
    fn taken(&mut self, at: usize, sequence: u64) {
        while self.lanes[at].lane.taken < sequence {
            let to = &mut self.lanes[at];
            let Some(kept) = to.kept.pop_front() else { return };
            to.written = to.written.saturating_sub(1);
            to.lane.taken += 1;
            self.stored_bytes -= kept.body.stored() + OVERHEAD_BYTES;
            self.keep_spare(kept.body);
        }
    }

    /// Gives what waits to whoever has asked.
    fn give(&mut self) {
        while let Some(&at) = self.asks.front() {
            let to = &mut self.lanes[at];
            let Some(ask) = to.ask else { return };
            if let (Some(here), Some(there)) = (self.mode, ask.mode)
                && here != there
            {
                to.lane.owes_refusal = true;
                self.fault.get_or_insert(Fault::Mixed { lane: at, here });
                return;
            }
            let Some(kept) = self.waiting.pop_front() else { break };
            to.kept.push_back(kept);
            to.answered = ask.number;
            to.ask = None;
            self.asks.pop_front();
        }
        // There is nothing for those left.
        let lanes = &mut self.lanes;
        self.asks.retain(|&at| {
            let to = &mut lanes[at];
            let Some(ask) = to.ask.take_if(|ask| ask.now) else { return true };
            to.answered = ask.number;
            to.owes_empty = Some(ask.number);
            false
        });
    }

    /// What to write to a lane now.
    #[inline]
    pub fn next(&mut self, lane: usize) -> Option<Out<'_, M>> {
        if self.lanes[lane].lane.writing.is_none() {
            let frame = self.choose(lane)?;
            self.lanes[lane].lane.writing = Some(Writing::new(frame));
        }
        let to = &self.lanes[lane];
        let writing = to.lane.writing.as_ref()?;
        let message = if writing.is_message() { to.kept.get(to.written) } else { None };
        Some(Out { head: writing.head(), body: message.map(|kept| (&kept.body, writing.body_from())) })
    }

    /// So many bytes of what [`next`](Self::next) gave were written.
    #[inline]
    pub fn wrote(&mut self, lane: usize, bytes: u64) {
        let to = &mut self.lanes[lane];
        if to.lane.wrote(bytes).is_some_and(|writing| writing.is_message()) {
            to.written += 1;
        }
    }

    fn choose(&mut self, at: usize) -> Option<Frame> {
        let to = &mut self.lanes[at];
        if !to.lane.is_open {
            return None;
        }
        if let Some(greeting) = to.lane.greeting(to.lane.taken + to.kept.len() as u64) {
            return Some(greeting);
        }
        if let Some(refusal) = to.lane.refusal() {
            return Some(refusal);
        }
        if to.lane.is_closed {
            return to.lane.farewell();
        }
        if self.fault.is_some() {
            return None;
        }
        let is_over = self.is_closing && self.waiting.is_empty() && to.written == to.kept.len();
        let may_go_on = to.lane.has_met || is_over && to.kept.is_empty();
        if !may_go_on {
            return None;
        }
        if let Some(number) = to.owes_empty.take() {
            return Some(Frame::Empty(number));
        }
        if let (Some(kept), Some(mode)) = (to.kept.get(to.written), self.mode) {
            let sequence = to.lane.taken + to.written as u64 + 1;
            return Some(Frame::Message { sequence, mode, length: kept.body.length() });
        }
        if is_over { to.lane.farewell() } else { None }
    }

    /// Nothing more will be sent. The lanes are told when all was taken that waits for nobody in particular.
    pub fn close(&mut self) {
        self.is_closing = true;
    }

    /// The messages that are not known to be taken.
    pub fn unsettled(&self) -> impl Iterator<Item = &M> {
        self.waiting.iter().chain(self.lanes.iter().flat_map(|to| &to.kept)).map(|kept| &kept.body)
    }

    /// Whether every message was taken.
    pub fn is_settled(&self) -> bool {
        self.unsettled().next().is_none()
    }

    /// After [`close`](Self::close): whether every lane was told, or has closed itself.
    pub fn is_over(&self) -> bool {
        let knows = |to: &Sending<M>| to.lane.is_closed || to.lane.has_parted();
        self.fault.is_some() || self.lanes.iter().all(knows)
    }

    /// After [`close`](Self::close): whether every lane is known to know, since it has closed, too.
    pub fn is_confirmed(&self) -> bool {
        self.fault.is_some() || self.lanes.iter().all(|to| to.lane.is_closed)
    }

    /// Whether somebody must look after it while the program does something else: messages have not left yet, or
    /// receivers may ask.
    pub fn has_duties(&self) -> bool {
        let unwritten = |to: &Sending<M>| !to.lane.is_closed && to.written < to.kept.len();
        self.fault.is_none() && (self.is_asked || self.lanes.iter().any(unwritten))
    }

    /// Messages and their bytes that are not taken.
    pub fn stored(&self) -> (usize, u64) {
        let count = self.waiting.len() + self.lanes.iter().map(|to| to.kept.len()).sum::<usize>();
        (count, self.stored_bytes)
    }

    /// Whether a lane's other side has closed.
    pub fn is_closed(&self, lane: usize) -> bool {
        self.lanes[lane].lane.is_closed
    }

    /// Why it can no longer be used, if it cannot.
    #[inline]
    pub fn check(&self) -> Result<(), Fault> {
        self.fault.as_ref().map_or(Ok(()), |fault| Err(fault.clone()))
    }
}
