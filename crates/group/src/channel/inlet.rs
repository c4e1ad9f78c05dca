//! The receiving end of a channel.

use super::frame::{Frame, Greeting, Heads, Writing};
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
struct Lane {
    pipe: PipeId,
    is_open: bool,
    has_met: bool,
    is_fresh: bool,
    /// Number of the last message that the program took.
    taken: u64,
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
    heads: Heads,
    writing: Option<Writing>,
    owes_greeting: bool,
    owes_refusal: bool,
    has_said_closed: bool,
    /// Nothing more comes from there.
    is_closed: bool,
}

/// The receiving end of a channel: decides what is read, and which message is next.
#[derive(Debug)]
pub struct Inlet {
    mode: Option<Mode>,
    /// Messages come only when asked for (1:n).
    must_ask: bool,
    lanes: Vec<Lane>,
    /// The lane that is looked at first, so that none is passed over for ever.
    turn: usize,
    is_closing: bool,
    fault: Option<Fault>,
}

impl Inlet {
    /// An input channel with a lane for each pipe. `must_ask` where the channel has several receivers.
    pub fn new(pipes: &[PipeId], must_ask: bool, mode: Option<Mode>) -> Inlet {
        let lane = |pipe: &PipeId| Lane {
            pipe: *pipe,
            is_open: false,
            has_met: false,
            is_fresh: true,
            taken: 0,
            given: 0,
            arriving: None,
            untold: 0,
            untold_bytes: 0,
            tells: false,
            asked: None,
            asks: 0,
            heads: Heads::new(),
            writing: None,
            owes_greeting: false,
            owes_refusal: false,
            has_said_closed: false,
            is_closed: false,
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
        let is_other = |lane: &Lane| lane.arriving.is_some_and(|arriving| arriving.mode != here);
        if let Some(at) = self.lanes.iter().position(is_other)
            && self.fault.is_none()
        {
            self.lanes[at].owes_refusal = true;
            self.fault = Some(Fault::Mixed { lane: at, here });
        }
    }

    /// The pipe of a lane is there, for the first time or anew.
    pub fn opened(&mut self, lane: usize) {
        self.broken(lane);
        let is_mixed = matches!(self.fault, Some(Fault::Mixed { lane: at, .. }) if at == lane);
        let lane = &mut self.lanes[lane];
        lane.is_open = true;
        lane.owes_greeting = true;
        lane.owes_refusal = is_mixed;
    }

    /// The pipe of a lane is no longer of use. A message that was not taken comes again from its beginning.
    pub fn broken(&mut self, lane: usize) {
        let lane = &mut self.lanes[lane];
        lane.is_open = false;
        lane.has_met = false;
        lane.arriving = None;
        lane.untold = 0;
        lane.untold_bytes = 0;
        lane.tells = false;
        lane.asked = None;
        lane.heads.clear();
        lane.writing = None;
        lane.owes_greeting = false;
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

    /// What to read of a lane now.
    #[inline]
    pub fn reading(&self, lane: usize) -> Reading {
        let lane = &self.lanes[lane];
        match lane.arriving {
            _ if !lane.is_open => Reading::Nothing,
            Some(Arriving { got, length, .. }) if got == length => Reading::Whole { length },
            Some(Arriving { got, length, .. }) => Reading::Body { got, length },
            None => Reading::Head,
        }
    }

    /// Where to put what is read of a head.
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

    /// So many bytes of the message were read.
    #[inline]
    pub fn body_came(&mut self, lane: usize, bytes: u64) {
        if let Some(arriving) = &mut self.lanes[lane].arriving {
            arriving.got += bytes;
            debug_assert!(arriving.got <= arriving.length, "more was read than the message has");
        }
    }

    fn frame(&mut self, at: usize, frame: Frame) -> Result<(), Nonsense> {
        let lane = &mut self.lanes[at];
        if lane.has_met == matches!(frame, Frame::Greeting(_)) {
            return Err(Nonsense("a greeting is missing, or came twice"));
        }
        match frame {
            Frame::Greeting(greeting) => meet(lane, &greeting),
            Frame::Message { sequence, mode, length } => {
                if sequence != lane.taken + 1 {
                    return Err(Nonsense("a message came out of order"));
                }
                if self.must_ask && lane.given < sequence && lane.asked.is_none_or(|asked| asked.is_empty) {
                    return Err(Nonsense("a message came that nobody has asked for"));
                }
                lane.arriving = Some(Arriving { mode, length, got: 0 });
                self.judge();
                Ok(())
            }
            Frame::Empty(number) => match &mut lane.asked {
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
                lane.is_closed = true;
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
        if found.is_none() && self.lanes.iter().all(|lane| lane.is_closed) {
            return Err(Fault::Ended);
        }
        Ok(found)
    }

    /// The program takes the whole message of a lane.
    #[inline]
    pub fn take(&mut self, at: usize) {
        let count = self.lanes.len();
        let lane = &mut self.lanes[at];
        let Some(arriving) = lane.arriving.take() else { return };
        debug_assert_eq!(arriving.got, arriving.length, "the message is not whole");
        self.mode.get_or_insert(arriving.mode);
        lane.taken += 1;
        lane.asked = None;
        lane.untold += 1;
        lane.untold_bytes += arriving.length;
        lane.tells |=
            arriving.mode == Mode::Sync || lane.untold >= UNTOLD_MAX || lane.untold_bytes >= UNTOLD_BYTES_MAX;
        self.turn = if at + 1 < count { at + 1 } else { 0 };
    }

    /// There is nothing more to read of this lane for now: its sender hears what was taken.
    #[inline]
    pub fn settle(&mut self, lane: usize) {
        let lane = &mut self.lanes[lane];
        lane.tells |= lane.untold > 0;
    }

    /// Of an inlet that must ask: asks if that is to be done. With `now`, [`Want::Nothing`] is the answer when
    /// nothing is there; a question that was to wait becomes one that is not.
    pub fn want(&mut self, now: bool) -> Want {
        if !self.must_ask {
            return Want::Wait;
        }
        let Some(lane) = self.lanes.first_mut() else { return Want::Nothing };
        if lane.arriving.is_some() {
            return Want::Wait;
        }
        if !lane.has_met {
            return if now { Want::Nothing } else { Want::Wait };
        }
        if lane.taken < lane.given {
            return Want::Wait;
        }
        match &mut lane.asked {
            Some(asked) if asked.is_empty && now => {
                lane.asked = None;
                return Want::Nothing;
            }
            Some(asked) if !asked.is_empty => {
                if now && !asked.now {
                    asked.now = true;
                    asked.is_written = false;
                }
            }
            _ => {
                lane.asks += 1;
                lane.asked = Some(Asked { number: lane.asks, now, is_empty: false, is_written: false });
            }
        }
        Want::Wait
    }

    /// What to write to a lane now.
    #[inline]
    pub fn next(&mut self, lane: usize) -> Option<&[u8]> {
        if self.lanes[lane].writing.is_none() {
            let frame = self.choose(lane)?;
            self.lanes[lane].writing = Some(Writing::new(frame));
        }
        self.lanes[lane].writing.as_ref().map(Writing::head)
    }

    /// So many bytes of what [`next`](Self::next) gave were written.
    #[inline]
    pub fn wrote(&mut self, lane: usize, bytes: usize) {
        let lane = &mut self.lanes[lane];
        lane.writing.take_if(|writing| writing.wrote(bytes as u64));
    }

    #[inline]
    fn choose(&mut self, at: usize) -> Option<Frame> {
        let (mode, is_closing) = (self.mode, self.is_closing);
        let lane = &mut self.lanes[at];
        if !lane.is_open {
            return None;
        }
        if std::mem::take(&mut lane.owes_greeting) {
            let (pipe, taken, fresh) = (lane.pipe, lane.taken, lane.is_fresh);
            return Some(Frame::Greeting(Greeting { pipe, taken, given: 0, fresh }));
        }
        if std::mem::take(&mut lane.tells) {
            lane.untold = 0;
            lane.untold_bytes = 0;
            return Some(Frame::Taken(lane.taken));
        }
        if std::mem::take(&mut lane.owes_refusal) {
            return Some(Frame::Refused);
        }
        if let Some(asked) = lane.asked.as_mut().filter(|asked| !asked.is_written) {
            asked.is_written = true;
            return Some(Frame::Ask { number: asked.number, now: asked.now, mode });
        }
        if is_closing && !std::mem::replace(&mut lane.has_said_closed, true) {
            return Some(Frame::Closed);
        }
        None
    }

    /// Nothing more will be taken.
    pub fn close(&mut self) {
        self.is_closing = true;
        (0..self.lanes.len()).for_each(|lane| self.settle(lane));
    }

    /// After [`close`](Self::close): whether every lane knows.
    pub fn is_over(&self) -> bool {
        let knows = |lane: &Lane| lane.is_closed || lane.has_said_closed && lane.writing.is_none();
        self.fault.is_some() || self.lanes.iter().all(knows)
    }

    /// Whether messages come only when asked for.
    pub fn must_ask(&self) -> bool {
        self.must_ask
    }

    /// Whether an answer is on its way to what was asked.
    pub fn has_asked(&self) -> bool {
        self.lanes.iter().any(|lane| lane.asked.is_some_and(|asked| !asked.is_empty))
    }

    /// Whether a lane has closed.
    pub fn is_closed(&self, lane: usize) -> bool {
        self.lanes[lane].is_closed
    }

    /// Why it can no longer be used, if it cannot.
    #[inline]
    pub fn check(&self) -> Result<(), Fault> {
        self.fault.as_ref().map_or(Ok(()), |fault| Err(fault.clone()))
    }
}

fn meet(lane: &mut Lane, greeting: &Greeting) -> Result<(), Nonsense> {
    if greeting.pipe != lane.pipe {
        return Err(Nonsense("the greeting is meant for another pipe"));
    }
    if greeting.given < greeting.taken {
        return Err(Nonsense("messages are said to be taken that were not sent"));
    }
    lane.has_met = true;
    let is_one_new = lane.is_fresh || greeting.fresh;
    lane.is_fresh = false;
    lane.given = greeting.given;
    if is_one_new {
        lane.taken = greeting.taken;
    } else if lane.taken < greeting.taken || lane.taken > greeting.given {
        return Err(Nonsense("it has forgotten messages that were not taken"));
    }
    Ok(())
}
