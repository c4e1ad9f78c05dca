//! What both ends of a lane do alike: greet, take frames out of what is read, write them out.

use super::frame::{Frame, Greeting, Heads, Writing};
use super::{Nonsense, PipeId};

/// One end of a lane, of either kind.
#[derive(Debug)]
pub(super) struct Lane {
    pipe: PipeId,
    pub(super) is_open: bool,
    /// The other side has greeted since it opened.
    pub(super) has_met: bool,
    /// The other side has never greeted.
    is_fresh: bool,
    /// Number of the last message that the program at the inlet has taken, as far as this side knows.
    pub(super) taken: u64,
    heads: Heads,
    pub(super) writing: Option<Writing>,
    owes_greeting: bool,
    pub(super) owes_refusal: bool,
    has_said_closed: bool,
    /// The other side has said that it is closed.
    pub(super) is_closed: bool,
}

impl Lane {
    pub(super) fn new(pipe: PipeId) -> Lane {
        Lane {
            pipe,
            is_open: false,
            has_met: false,
            is_fresh: true,
            taken: 0,
            heads: Heads::new(),
            writing: None,
            owes_greeting: false,
            owes_refusal: false,
            has_said_closed: false,
            is_closed: false,
        }
    }

    /// The pipe is there. `is_mixed`: the other side is to hear once more that it uses the wrong mode.
    pub(super) fn opened(&mut self, is_mixed: bool) {
        self.is_open = true;
        self.owes_greeting = true;
        self.owes_refusal = is_mixed;
    }

    /// The pipe is no longer of use.
    pub(super) fn broken(&mut self) {
        self.is_open = false;
        self.has_met = false;
        self.heads.clear();
        self.writing = None;
        self.owes_greeting = false;
        self.owes_refusal = false;
        self.has_said_closed = false;
    }

    #[inline]
    pub(super) fn head_room(&mut self) -> &mut [u8] {
        self.heads.room()
    }

    /// So many bytes were put there; the frame, if it is whole now and may come now.
    #[inline]
    pub(super) fn head_filled(&mut self, count: usize) -> Result<Option<Frame>, Nonsense> {
        let frame = self.heads.filled(count)?;
        if frame.is_some_and(|frame| self.has_met == matches!(frame, Frame::Greeting(_))) {
            return Err(Nonsense("a greeting is missing, or came twice"));
        }
        Ok(frame)
    }

    /// The other side has greeted; whether both have met before, and so know what was taken.
    pub(super) fn meet(&mut self, greeting: &Greeting) -> Result<bool, Nonsense> {
        if greeting.pipe != self.pipe {
            return Err(Nonsense("the greeting is meant for another pipe"));
        }
        self.has_met = true;
        let is_one_new = std::mem::replace(&mut self.is_fresh, false) || greeting.fresh;
        Ok(!is_one_new)
    }

    /// The greeting, once after the pipe has opened. `given` is of interest to inlets only.
    #[inline]
    pub(super) fn greeting(&mut self, given: u64) -> Option<Frame> {
        std::mem::take(&mut self.owes_greeting).then_some(Frame::Greeting(Greeting {
            pipe: self.pipe,
            taken: self.taken,
            given,
            fresh: self.is_fresh,
        }))
    }

    #[inline]
    pub(super) fn refusal(&mut self) -> Option<Frame> {
        std::mem::take(&mut self.owes_refusal).then_some(Frame::Refused)
    }

    /// The last frame, once.
    #[inline]
    pub(super) fn farewell(&mut self) -> Option<Frame> {
        (!std::mem::replace(&mut self.has_said_closed, true)).then_some(Frame::Closed)
    }

    /// So many bytes were written; what was written, if that was all of it.
    #[inline]
    pub(super) fn wrote(&mut self, bytes: u64) -> Option<Writing> {
        self.writing.take_if(|writing| writing.wrote(bytes))
    }

    /// The message that is being written goes to somebody else. If part of it is written, nothing can follow.
    pub(super) fn abandon_message(&mut self) {
        if let Some(message) = self.writing.take_if(|writing| writing.is_message()) {
            self.has_said_closed |= message.has_begun();
        }
    }

    /// Whether the last frame was written.
    pub(super) fn has_parted(&self) -> bool {
        self.has_said_closed && self.writing.is_none()
    }
}
