//! The receiving end of a channel.

use super::frame::{Frame, Greeting, Writing};
use super::lane::Lane;
use super::{Fault, Nonsense, PipeId};
use crate::plan::Mode;

/// The sender is told of taken messages at the latest after so many,
const UNTOLD_MAX: u64 = 64;
/// or so many bytes.
const UNTOLD_BYTES_MAX: u64 = 16 * 1024;

/// What a lane can be read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Nothing: the pipe is not there.
    Nothing,
    /// A head.
    Head,
    /// The bytes of a message, of which so many were read.
    Body {
        /// Read.
        got: u64,
        /// All.
        length: u64,
    },
    /// Nothing: a message of this length is there and waits to be taken.
    Whole {
        /// Its length.
        length: u64,
    },
}

/// What a receiver that has to ask can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// Wait: an answer or a message is on its way, or will be.
    Wait,
    /// Give up: nothing is there.
    Nothing,
}

#[derive(Clone, Copy, Debug)]
struct Arriving {
    mode: Mode,
    length: u64,
    got: u64,
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    number: u64,
    now: bool,
    is_empty: bool,
    is_written: bool,
}

#[derive(Debug)]
struct Receiving {
    lane: Lane,
    /// The sender had given this lane messages up to this one when the pipe opened.
    given: u64,
    arriving: Option<Arriving>,
    /// Messages taken that the sender was not told of, and their bytes.
    untold: u64,
    untold_bytes: u64,
    /// The sender is to be told now.
    tells: bool,
    asked: Option<Asked>,
    asks: u64,
}

/// The receiving end of a channel: decides what is read, and which message is next.
#[derive(Debug)]
pub struct Inlet {
    mode: Option<Mode>,
    /// Messages come only when asked for (1:n).
    must_ask: bool,
    lanes: Vec<Receiving>,
    /// The lane that is looked at first, so that none is passed over for ever.
    turn: usize,
    is_closing: bool,
    fault: Option<Fault>,
}

impl Inlet {
    /// An input channel with a lane for each pipe. `must_ask` where the channel has several receivers.
    pub fn new(pipes: &[PipeId], must_ask: bool, mode: Option<Mode>) -> Inlet {
        let lane = |pipe: &PipeId| Receiving {
            lane: Lane::new(*pipe),
            given: 0,
            arriving: None,
            untold: 0,
            untold_bytes: 0,
            tells: false,
            asked: None,
            asks: 0,
        };
        Inlet {
            mode,
            must_ask,
            lanes: pipes.iter().map(lane).collect(),
            turn: 0,
            is_closing: false,
            fault: None,
        }
    }

    /// The program receives in this mode from now on; refused if it has received in the other.
    pub fn use_mode(&mut self, mode: Mode) -> Result<(), Fault> {
        self.check()?;
        let here = *self.mode.get_or_insert(mode);
        if here != mode {
            return Err(Fault::MixedHere { here });
        }
        self.judge();
        self.check()
    }

    /// Refuses what arrives in the other mode.
    fn judge(&mut self) {
        let Some(here) = self.mode else { return };
        let is_other = |at: &Receiving| at.arriving.is_some_and(|arriving| arriving.mode != here);
        if let Some(at) = self.lanes.iter().position(is_other)
            && self.fault.is_none()
        {
            self.lanes[at].lane.owes_refusal = true;
            self.fault = Some(Fault::Mixed { lane: at, here });
        }
    }

    /// The pipe of a lane is there, for the first time or anew.
    pub fn opened(&mut self, lane: usize) {
        self.broken(lane);
        let is_mixed = matches!(self.fault, Some(Fault::Mixed { lane: at, .. }) if at == lane);
        self.lanes[lane].lane.opened(is_mixed);
    }

    /// The pipe of a lane is no longer of use. A message that was not taken comes again from its beginning.
    pub fn broken(&mut self, lane: usize) {
        let here = &mut self.lanes[lane];
        here.lane.broken();
        here.arriving = None;
        here.untold = 0;
        here.untold_bytes = 0;
        here.tells = false;
        here.asked = None;
    }

    /// The pipe of a lane will not be there again.
    pub fn failed(&mut self, lane: usize, text: String) {
        self.broken(lane);
        if !self.lanes[lane].lane.is_closed {
            self.fault.get_or_insert(Fault::Failed { lane, text });
        }
    }

    /// What to read of a lane now.
    #[inline]
    pub fn reading(&self, lane: usize) -> Reading {
        let here = &self.lanes[lane];
        match here.arriving {
            _ if !here.lane.is_open => Reading::Nothing,
            Some(Arriving { got, length, .. }) if got == length => Reading::Whole { length },
            Some(Arriving { got, length, .. }) => Reading::Body { got, length },
            None => Reading::Head,
        }
    }

    /// Where to put what is read of a head.
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

    /// So many bytes of the message were read.
    #[inline]
    pub fn body_came(&mut self, lane: usize, bytes: u64) {
        if let Some(arriving) = &mut self.lanes[lane].arriving {
            arriving.got += bytes;
            debug_assert!(arriving.got <= arriving.length, "more was read than the message has");
        }
    }

    fn frame(&mut self, at: usize, frame: Frame) -> Result<(), Nonsense> {
        let here = &mut self.lanes[at];
        match frame {
            Frame::Greeting(greeting) => meet(here, &greeting),
            Frame::Message { sequence, mode, length } => {
                if sequence != here.lane.taken + 1 {
                    return Err(Nonsense("a message came out of order"));
                }
                if self.must_ask && here.given < sequence && here.asked.is_none_or(|asked| asked.is_empty) {
                    return Err(Nonsense("a message came that nobody has asked for"));
                }
                here.arriving = Some(Arriving { mode, length, got: 0 });
                self.judge();
                Ok(())
            }
            Frame::Empty(number) => match &mut here.asked {
                Some(asked) if asked.number == number && asked.now => {
                    asked.is_empty = true;
                    Ok(())
                }
                _ => Err(Nonsense("an answer came to what was not asked")),
            },
            Frame::Refused => {
                let here = self.mode.ok_or(Nonsense("it refuses what was never said"))?;
                self.fault.get_or_insert(Fault::Mixed { lane: at, here });
                Ok(())
            }
            Frame::Closed => {
                here.lane.is_closed = true;
                // The answer is this side's own `Closed`, and comes after this.
                self.settle(at);
                Ok(())
            }
            Frame::Taken(_) | Frame::Ask { .. } => {
                Err(Nonsense("a frame came that only a receiver may send"))
            }
        }
    }

    /// The lane whose message is next, if one is whole. [`Fault::Ended`] if none can come any more.
    #[inline]
    pub fn front(&mut self) -> Result<Option<usize>, Fault> {
        self.check()?;
        let count = self.lanes.len();
        let is_whole = |at: &usize| matches!(self.reading(*at), Reading::Whole { .. });
        let found = (self.turn..count).chain(0..self.turn).find(is_whole);
        if found.is_none() && self.lanes.iter().all(|at| at.lane.is_closed) {
            return Err(Fault::Ended);
        }
        Ok(found)
    }

    /// The program takes the whole message of a lane.
    #[inline]
    pub fn take(&mut self, at: usize) {
        let count = self.lanes.len();
        let here = &mut self.lanes[at];
        let Some(arriving) = here.arriving.take() else { return };
        debug_assert_eq!(arriving.got, arriving.length, "the message is not whole");
        self.mode.get_or_insert(arriving.mode);
        here.lane.taken += 1;
        here.asked = None;
        here.untold += 1;
        here.untold_bytes += arriving.length;
        here.tells |=
            arriving.mode == Mode::Sync || here.untold >= UNTOLD_MAX || here.untold_bytes >= UNTOLD_BYTES_MAX;
        self.turn = if at + 1 < count { at + 1 } else { 0 };
    }

    /// Whether the sender of this lane would hear something if it were [settled](Self::settle) that it does not wait for.
    #[inline]
    pub fn can_settle_later(&self, lane: usize) -> bool {
        let here = &self.lanes[lane];
        here.untold > 0 && !here.tells
    }

    /// There is nothing more to read of this lane for now: its sender hears what was taken.
    #[inline]
    pub fn settle(&mut self, lane: usize) {
        let here = &mut self.lanes[lane];
        here.tells |= here.untold > 0;
    }

    /// Of an inlet that must ask: asks if that is to be done. With `now`, [`Want::Nothing`] is the answer when
    /// nothing is there; a question that was to wait becomes one that is not.
    pub fn want(&mut self, now: bool) -> Want {
        if !self.must_ask {
            return Want::Wait;
        }
        let Some(here) = self.lanes.first_mut() else { return Want::Nothing };
        if here.arriving.is_some() {
            return Want::Wait;
        }
        if !here.lane.has_met {
            return if now { Want::Nothing } else { Want::Wait };
        }
        if here.lane.taken < here.given {
            return Want::Wait;
        }
        match &mut here.asked {
            Some(asked) if asked.is_empty && now => {
                here.asked = None;
                return Want::Nothing;
            }
            Some(asked) if !asked.is_empty => {
                if now && !asked.now {
                    asked.now = true;
                    asked.is_written = false;
                }
            }
            _ => {
                here.asks += 1;
                here.asked = Some(Asked { number: here.asks, now, is_empty: false, is_written: false });
            }
        }
        Want::Wait
    }

    /// What to write to a lane now.
    #[inline]
    pub fn next(&mut self, lane: usize) -> Option<&[u8]> {
        if self.lanes[lane].lane.writing.is_none() {
            let frame = self.choose(lane)?;
            self.lanes[lane].lane.writing = Some(Writing::new(frame));
        }
        self.lanes[lane].lane.writing.as_ref().map(Writing::head)
    }

    /// So many bytes of what [`next`](Self::next) gave were written.
    #[inline]
    pub fn wrote(&mut self, lane: usize, bytes: usize) {
        self.lanes[lane].lane.wrote(bytes as u64);
    }

    #[inline]
    fn choose(&mut self, at: usize) -> Option<Frame> {
        let here = &mut self.lanes[at];
        if !here.lane.is_open {
            return None;
        }
        if let Some(greeting) = here.lane.greeting(0) {
            return Some(greeting);
        }
        if std::mem::take(&mut here.tells) {
            here.untold = 0;
            here.untold_bytes = 0;
            return Some(Frame::Taken(here.lane.taken));
        }
        if let Some(refusal) = here.lane.refusal() {
            return Some(refusal);
        }
        if let Some(asked) = here.asked.as_mut().filter(|asked| !asked.is_written && !here.lane.is_closed) {
            asked.is_written = true;
            return Some(Frame::Ask { number: asked.number, now: asked.now, mode: self.mode });
        }
        if self.is_closing || here.lane.is_closed { here.lane.farewell() } else { None }
    }

    /// Nothing more will be taken.
    pub fn close(&mut self) {
        self.is_closing = true;
        (0..self.lanes.len()).for_each(|lane| self.settle(lane));
    }

    /// After [`close`](Self::close): whether every lane was told, or has closed itself.
    pub fn is_over(&self) -> bool {
        self.fault.is_some() || self.lanes.iter().all(|at| at.lane.is_closed || at.lane.has_parted())
    }

    /// After [`close`](Self::close): whether every lane is known to know, since it has closed, too.
    pub fn is_confirmed(&self) -> bool {
        self.fault.is_some() || self.lanes.iter().all(|at| at.lane.is_closed)
    }

    /// Whether messages come only when asked for.
    pub fn must_ask(&self) -> bool {
        self.must_ask
    }

    /// Whether an answer is on its way to what was asked.
    pub fn has_asked(&self) -> bool {
        self.lanes.iter().any(|at| at.asked.is_some_and(|asked| !asked.is_empty))
    }

    /// Whether a lane has closed.
    pub fn is_closed(&self, lane: usize) -> bool {
        self.lanes[lane].lane.is_closed
    }

    /// Why it can no longer be used, if it cannot.
    #[inline]
    pub fn check(&self) -> Result<(), Fault> {
        self.fault.as_ref().map_or(Ok(()), |fault| Err(fault.clone()))
    }
}

fn meet(here: &mut Receiving, greeting: &Greeting) -> Result<(), Nonsense> {
    if greeting.given < greeting.taken {
        return Err(Nonsense("messages are said to be taken that were not sent"));
    }
    let both_know = here.lane.meet(greeting)?;
    here.given = greeting.given;
    if !both_know {
        here.lane.taken = greeting.taken;
    } else if here.lane.taken < greeting.taken || here.lane.taken > greeting.given {
        return Err(Nonsense("it has forgotten messages that were not taken"));
    }
    Ok(())
}
