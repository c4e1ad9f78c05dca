//! What calls put off while they follow each other closely: over a socket each write costs more than the rest of a
//! call, and what passes through a ring has to get from one processor to another.
//!
//! Receivers then tell later of messages that were taken and for which nobody waits, and messages that are stored in a
//! burst leave together. Nothing is put off for longer than a moment: whoever goes to sleep does it first, and while a
//! program computes, the helper does it, which wakes at intervals for that as long as calls are close to each other.
//! Messages of a burst also leave before the program uses another channel, so that it can say there that they are sent.

use super::{Inner, Port, Shared};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

/// What is put off is done at the latest after twice this.
const LOOK: Duration = Duration::from_millis(1);
/// Calls are close to each other when less than this is between them,
const CLOSE: Duration = Duration::from_micros(200);
/// so many times in a row.
const CLOSE_MIN: u32 = 64;
/// Messages are stored in a burst when less than this is between two calls, about what a write takes: were each sent by
/// itself, the next would have to wait.
const BURST_GAP: Duration = Duration::from_micros(3);
/// So many of a burst are sent one by one.
const BURST_MIN: u32 = 4;

/// What is put off, and whether it may be.
#[derive(Debug, Default)]
pub(in crate::group) struct Late {
    /// While something may be put off: when the helper looks next.
    next_look: Option<Instant>,
    /// Something could be put off since it looked.
    was_used: bool,
    /// When something could be, and how often in a row one was close to the one before.
    last: Option<Instant>,
    close: u32,
    /// Input channels whose senders are to hear what was taken.
    owing: Vec<usize>,
    /// The output channel that was posted to by the last call, and when that ended.
    posted: Option<(usize, Instant)>,
    /// Posts to it in a burst.
    posts: u32,
    /// The output channel that keeps messages of a burst back.
    held: Option<usize>,
}

impl Late {
    /// Something can be put off now.
    #[inline]
    fn note(&mut self) {
        self.was_used = true;
        if self.next_look.is_none() {
            let now = Instant::now();
            let is_close = self.last.is_some_and(|last| now.saturating_duration_since(last) < CLOSE);
            self.close = if is_close { self.close + 1 } else { 0 };
            self.last = Some(now);
        }
    }

    /// Whether calls are so close to each other that they should begin to put things off.
    #[inline]
    pub(super) fn pays(&self) -> bool {
        self.next_look.is_none() && self.close >= CLOSE_MIN
    }

    /// A message is about to be stored for this output channel, which goes over sockets; whether it belongs to a burst
    /// and need not leave at once.
    pub(in crate::group) fn posts(&mut self, index: usize) -> bool {
        let now = Instant::now();
        let is_next =
            |(last, at): (usize, Instant)| last == index && now.saturating_duration_since(at) < BURST_GAP;
        self.posts = if self.posted.is_some_and(is_next) { self.posts.saturating_add(1) } else { 0 };
        self.posted = Some((index, now));
        if self.posts > 0 {
            self.note();
        }
        self.next_look.is_some() && self.posts >= BURST_MIN
    }

    /// It was sent.
    pub(in crate::group) fn posted(&mut self, index: usize) {
        self.posted = Some((index, Instant::now()));
    }

    /// It is kept back.
    pub(in crate::group) fn holds(&mut self, index: usize) {
        self.held = Some(index);
    }
}

impl Inner {
    /// The program takes the message of a lane.
    #[inline]
    pub(in crate::group) fn take(&mut self, index: usize, lane: usize) {
        let port = &mut self.ins[index];
        if !port.take(lane) {
            return;
        }
        self.late.note();
        if port.common.puts_off && !self.late.owing.contains(&index) {
            self.late.owing.push(index);
        }
    }

    /// Before a call does anything else: messages of another channel's burst leave.
    #[inline]
    pub(super) fn send_held(&mut self, ports: &[Port]) {
        if let Some((index, _)) = self.late.posted
            && ports != [Port::Out(index)]
        {
            self.late.posted = None;
            self.flush_held();
        }
    }

    fn flush_held(&mut self) {
        if let Some(index) = self.late.held.take() {
            self.outs[index].flush();
        }
    }

    /// Does what was put off.
    pub(super) fn catch_up(&mut self) {
        self.flush_held();
        for index in self.late.owing.drain(..) {
            self.ins[index].settle();
        }
    }

    /// For the helper: does what was put off, if it is time; when to look again.
    pub(super) fn look_after_late(&mut self) -> Option<Instant> {
        let next = self.late.next_look?;
        let now = Instant::now();
        if now < next {
            return Some(next);
        }
        self.catch_up();
        if std::mem::take(&mut self.late.was_used) {
            self.late.next_look = Some(now + LOOK);
        } else {
            self.put_off(false);
        }
        self.late.next_look
    }

    /// Whether things are put off from now on.
    pub(super) fn put_off(&mut self, is_on: bool) {
        self.late.next_look = is_on.then(|| Instant::now() + LOOK);
        self.late.close = 0;
        self.ins.iter_mut().for_each(|port| port.common.puts_off = is_on);
    }
}

impl Shared {
    /// Begins to put things off, if the helper can look after them.
    #[cold]
    pub(super) fn put_off(self: &Arc<Self>, inner: &mut Inner) {
        if !inner.has_helper {
            self.start_helper(inner);
        }
        inner.put_off(inner.has_helper && !inner.is_over && self.is_flushed_at_exit());
        if let Some(alarm) = &inner.helper_alarm {
            alarm.ring();
        }
    }

    /// A program may end without closing its group; what it has sent leaves all the same.
    fn is_flushed_at_exit(self: &Arc<Self>) -> bool {
        let mut known = EXITING.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_none() && !crate::sys::at_exit(flush_at_exit) {
            return false;
        }
        let known = known.get_or_insert_default();
        if !known.iter().any(|one| std::ptr::eq(one.as_ptr(), Arc::as_ptr(self))) {
            known.retain(|one| one.strong_count() > 0);
            known.push(Arc::downgrade(self));
        }
        true
    }
}

/// Who has put things off, once the system is asked to call at the end of the process.
static EXITING: Mutex<Option<Vec<Weak<Shared>>>> = Mutex::new(None);

extern "C" fn flush_at_exit() {
    // A thread that is in a call at that moment keeps nothing back, or holds the lock for ever.
    let Ok(known) = EXITING.try_lock() else { return };
    for shared in known.iter().flatten().filter_map(Weak::upgrade) {
        if let Ok(mut inner) = shared.inner.try_lock() {
            inner.flush_held();
        }
    }
}
