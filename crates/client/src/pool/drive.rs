//! Who does the pool's work, and how it sleeps.
//!
//! At any time at most one thread *drives*: it moves results and calls, and sleeps on the bells and the socket
//! while there is nothing to do. A thread that waits for something drives if nobody does; otherwise it parks, and
//! takes over when the driver has what it waited for. When nobody waits, the helper thread drives; an alarm wakes
//! it a little after there is work, so that a program which submits and waits in turn never pays for it.

use super::call::{CallResult, thread_waker};
use super::core::{Core, Dead, now};
use crate::{Error, sys};
use mutirao_wire::{CallId, Tick};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

/// Calls submitted in quick succession are sent together, at the latest after so long
const GATHER: Duration = Duration::from_micros(50);
/// or when there are so many.
const GATHER_CALLS: usize = 32;
/// The helper's first and longest wait before it looks whether somebody drives.
const HELPER_DELAY: (Duration, Duration) = (Duration::from_micros(100), Duration::from_millis(2));
/// With nothing to do and nobody waiting the helper takes over after so long, to hear what the node says.
const QUIET: Duration = Duration::from_millis(200);

/// A pool as all its threads share it.
pub(crate) struct Shared {
    core: Mutex<Core>,
    /// Threads that want the lock; a spinning driver makes way.
    contenders: AtomicU32,
    /// Wakes a sleeping driver.
    kick: OwnedFd,
    /// Wakes the helper.
    alarm: OwnedFd,
    /// Readable while there are finished calls to be fetched.
    pub(super) event: OwnedFd,
    /// Readable while there is news of pipes to be fetched.
    pipe_event: OwnedFd,
    /// The process that opened the pool.
    process: u32,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

type Guard<'a> = MutexGuard<'a, Core>;

impl Shared {
    pub(super) fn new(core: Core) -> Result<Arc<Shared>, Error> {
        let failed = Error::system("make an event descriptor");
        let make_event = || eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let timer = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK);
        let shared = Arc::new(Shared {
            core: Mutex::new(core),
            contenders: AtomicU32::new(0),
            kick: make_event().map_err(failed)?,
            alarm: timer.map_err(Error::system("make a timer"))?,
            event: make_event().map_err(Error::system("make an event descriptor"))?,
            pipe_event: make_event().map_err(Error::system("make an event descriptor"))?,
            process: std::process::id(),
        });
        let helper = shared.clone();
        let helper_thread = thread::Builder::new().name("mutirao".into());
        sys::without_signals(|| helper_thread.spawn(move || helper.help()))
            .map_err(|source| Error::System { what: "start the helper thread", source })?;
        Ok(shared)
    }

    pub(super) fn lock(&self) -> Guard<'_> {
        self.contenders.fetch_add(1, Ordering::Relaxed);
        // A panic in a callback never happens under the lock, and `Core` has no half-done states to fear.
        let core = self.core.lock().unwrap_or_else(PoisonError::into_inner);
        self.contenders.fetch_sub(1, Ordering::Relaxed);
        core
    }

    // ---- waiting ----

    /// Waits until `done`. When another thread drives, `watch` makes sure that the waker is woken for it.
    pub(super) fn wait_until(
        &self,
        deadline: Option<Instant>,
        mut done: impl FnMut(&mut Core) -> bool,
        watch: impl Fn(&mut Core, &Waker),
    ) {
        let mut core = self.lock();
        while !done(&mut core) && !is_past(deadline) {
            let me = thread::current().id();
            // A callback that waits drives on behalf of the driver that it holds up.
            if core.driver.is_none_or(|driver| driver == me) {
                core = self.drive(core, false, deadline, &mut done);
                self.hand_over(&mut core);
                return;
            }
            let waker = thread_waker();
            watch(&mut core, &waker);
            core.park_number += 1;
            let number = core.park_number;
            core.parked.push((number, waker));
            // A driver that sleeps does not see what was just put there to be sent.
            if core.helper_drives || core.link.socket.unsent() > 0 {
                self.kick_driver(&mut core);
            }
            drop(core);
            match deadline {
                None => thread::park(),
                Some(deadline) => thread::park_timeout(deadline.saturating_duration_since(Instant::now())),
            }
            core = self.lock();
            core.parked.retain(|(parked, _)| *parked != number);
        }
        // A wake-up may have been meant to make this thread drive.
        if core.driver.is_none() {
            self.hand_over(&mut core);
        }
    }

    /// Waits until one of the calls is done.
    pub(super) fn wait_calls(&self, calls: &[CallId], deadline: Option<Instant>) {
        self.wait_until(
            deadline,
            |core| calls.iter().any(|call| core.is_done(*call)),
            |core, waker| calls.iter().for_each(|call| core.watch(*call, waker)),
        );
    }

    /// Waits for something the node says.
    pub(super) fn wait_control(&self, deadline: Option<Instant>, mut done: impl FnMut(&mut Core) -> bool) {
        self.wait_until(
            deadline,
            |core| core.dead.is_some() || done(core),
            |core, waker| core.watch_control(waker),
        );
    }

    // ---- calls ----

    /// After something was given to `Hold`: has it sent soon. Runs no callbacks, so that a program may submit
    /// with locks held that its callbacks take.
    pub(super) fn submitted(&self, core: &mut Core, wants_helper: bool) {
        if core.driver.is_some() && !core.asleep {
            return; // It looks again before it sleeps.
        }
        let now = now();
        if !core.gather.is_zero() {
            return self.set_alarm(core, now + core.gather);
        }
        // Nothing is gained by keeping the only call there is.
        let at_once = core.unfinished() == 1 || now - core.shown >= GATHER || core.unplaced >= GATHER_CALLS;
        self.pass_on(core, now, at_once, wants_helper);
    }

    /// Has all that was submitted sent.
    pub(super) fn flush(&self) {
        let mut core = self.lock();
        if core.unplaced > 0 {
            self.pass_on(&mut core, now(), true, false);
        }
    }

    /// Sends what was submitted, `at_once` or soon, and sees to it that somebody drives.
    fn pass_on(&self, core: &mut Core, now: Tick, at_once: bool, wants_helper: bool) {
        if at_once {
            core.place(now);
            core.send(now);
        } else if core.asleep {
            self.set_alarm(core, now + GATHER);
        }
        if core.asleep {
            let sooner = core.deadline().is_some_and(|due| core.sleeps_until.is_none_or(|until| due < until));
            let unsent = core.link.socket.unsent() > 0;
            // Those bound to a lease wait behind others there, of which is heard anyhow.
            let backlog = core.hold.backlog();
            let lacks_room = backlog.waiting - backlog.bound > core.unplaced;
            if sooner || unsent || core.owes_news() || lacks_room {
                self.kick_driver(core);
            }
        } else if core.driver.is_none() {
            let at_once = wants_helper || core.owes_news();
            core.helper_wanted |= at_once;
            let delay = if at_once { Duration::ZERO } else { core.helper_delay };
            self.set_alarm(core, now + delay);
        }
    }

    pub(super) fn poll_result(&self, call: CallId, waker: &Waker) -> Poll<Option<CallResult>> {
        let mut core = self.lock();
        if core.is_done(call) {
            return Poll::Ready(core.take_result(call).map(|(result, _)| result));
        }
        let before = core.watch_by_task(call, waker);
        if core.driver.is_none() {
            core.helper_wanted = true;
            self.set_alarm(&mut core, now());
        }
        drop(core);
        // With a task may go whatever it owns, such as calls.
        drop(before);
        Poll::Pending
    }

    /// Ends everything. Afterwards no callback runs any more, except one that this is called from.
    pub(super) fn close(&self, dead: Dead) {
        if self.is_copy() {
            return;
        }
        let mut core = self.lock();
        core.die(dead);
        self.kick_driver(&mut core);
        self.set_alarm(&mut core, now());
        core = self.settle(core);
        let waits = !core.callers.contains(&thread::current().id());
        drop(core);
        if waits {
            let quiet = |core: &mut Core| core.callers.is_empty();
            self.wait_until(None, quiet, |core, waker| core.watch_control(waker));
        }
    }

    /// Whether this is a forked copy of the program that opened the pool, whose connection it must not touch.
    pub(super) fn is_copy(&self) -> bool {
        std::process::id() != self.process
    }

    // ---- driving ----

    /// Does the pool's work until `done` or the deadline.
    fn drive<'a>(
        &'a self,
        mut core: Guard<'a>,
        is_helper: bool,
        deadline: Option<Instant>,
        done: &mut dyn FnMut(&mut Core) -> bool,
    ) -> Guard<'a> {
        let before = core.driver.replace(thread::current().id());
        let helper_before = std::mem::replace(&mut core.helper_drives, is_helper);
        core.driven += u64::from(!is_helper);
        loop {
            core.pump();
            core = self.settle(core);
            if done(&mut core) || is_past(deadline) {
                break;
            }
            if core.unplaced > 0 && core.dead.is_none() && core.gather.is_zero() {
                continue;
            }
            core = self.rest(core, is_helper, deadline);
        }
        core.driver = before;
        core.helper_drives = helper_before;
        core
    }

    /// Spins, then sleeps, until there may be something to do.
    fn rest<'a>(&'a self, mut core: Guard<'a>, is_helper: bool, deadline: Option<Instant>) -> Guard<'a> {
        // The spinner is taken out for the while, since looking needs the rest of the core.
        let mut spinner = std::mem::replace(&mut core.spinner, mutirao_ring::Spinner::asleep());
        let has_ring = core.ring_is_busy();
        let mut called_away = false;
        let spun = has_ring
            && spinner
                .spin(|| {
                    called_away = self.contenders.load(Ordering::Relaxed) > 0;
                    Ok(called_away || core.ring_has_reply())
                })
                .unwrap_or(true);
        core.spinner = spinner;
        if spun {
            if called_away {
                drop(core);
                thread::yield_now();
                core = self.lock();
            }
            return core;
        }
        let began = Instant::now();
        let now = now();
        if core.arm(now) {
            core.disarm();
            return core;
        }
        core.sleeps_until = core.deadline();
        let left = [
            core.sleeps_until.map(|until| until - now),
            deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())),
        ];
        let left = left.into_iter().flatten().min();
        let bells = core.bells();
        let socket = core.link.is_up().then(|| core.link.socket.shared_fd());
        let wants_to_write = core.link.socket.awaits_reader();
        let wants_to_read = !core.socket_is_full();
        core.asleep = true;
        drop(core);

        let mut fds = vec![PollFd::new(&self.kick, PollFlags::IN)];
        if is_helper {
            fds.push(PollFd::new(&self.alarm, PollFlags::IN));
        }
        fds.extend(bells.iter().map(|bell| PollFd::new(&**bell, PollFlags::IN)));
        if let Some(socket) = &socket {
            let write = if wants_to_write { PollFlags::OUT } else { PollFlags::empty() };
            let read = if wants_to_read { PollFlags::IN } else { PollFlags::empty() };
            fds.push(PollFd::new(&**socket, read | write));
        }
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        // An interrupted sleep is a short one.
        let _ = poll(&mut fds, timeout.as_ref());
        let socket_ready = socket.is_some() && fds.last().is_some_and(|fd| !fd.revents().is_empty());
        if !fds[0].revents().is_empty() {
            clear(&self.kick);
        }
        drop(fds);

        let mut core = self.lock();
        core.asleep = false;
        core.kicked = false;
        core.socket_ready |= socket_ready;
        if socket.is_some() {
            // What `poll` has not seen need not be looked for.
            core.socket_looked = super::core::now();
        }
        if is_helper {
            clear(&self.alarm);
            core.alarm_at = None;
        }
        for bell in &bells {
            // A bell that nobody can ring any more belongs to workers whose end the node is about to tell.
            let _ = bell.drain();
        }
        core.disarm();
        if has_ring {
            core.spinner.note(began.elapsed());
        }
        core
    }

    /// Wakes those whose calls are done and runs callbacks, without the lock. Whoever does not drive must end
    /// with this (or leave it to the helper), for the driver may sleep, and wait for just that.
    pub(super) fn settle<'a>(&'a self, mut core: Guard<'a>) -> Guard<'a> {
        if !core.owes_news() && core.queue.is_empty() && !core.has_pipe_news() {
            return core;
        }
        let me = thread::current().id();
        loop {
            if std::mem::take(&mut core.news) && core.driver != Some(me) {
                self.kick_driver(&mut core);
            }
            if !core.queue.is_empty() {
                set(&self.event);
            }
            if core.has_pipe_news() {
                set(&self.pipe_event);
            }
            let wakers = std::mem::take(&mut core.wakers);
            let callbacks = std::mem::take(&mut core.callbacks);
            let orders = std::mem::take(&mut core.orders);
            if wakers.is_empty() && callbacks.is_empty() && orders.is_empty() {
                return core;
            }
            let handler = core.resize_handler.clone();
            let calls_back = !callbacks.is_empty() || !orders.is_empty();
            if calls_back {
                core.callers.push(me);
            }
            drop(core);
            wakers.into_iter().for_each(Waker::wake);
            for (function, finished) in callbacks {
                // A callback's panic is told by the panic hook, and must not end the pool's work for others.
                let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| function(finished)));
            }
            for (order, handler) in orders.into_iter().filter_map(|order| Some((order, handler.as_ref()?))) {
                let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| handler(order)));
            }
            core = self.lock();
            if calls_back {
                let place = core.callers.iter().rposition(|caller| *caller == me);
                place.map(|place| core.callers.swap_remove(place));
                // The driver may wait for what a callback did.
                core.news = true;
                if core.dead.is_some() {
                    core.control_changed();
                }
            }
        }
    }

    /// This thread no longer drives: another that waits does, or the helper before long.
    fn hand_over(&self, core: &mut Core) {
        if core.driver.is_some() {
            return;
        }
        if let Some((_, waker)) = core.parked.first() {
            return waker.wake_by_ref();
        }
        let due = quiet_until(core, now()).unwrap_or_else(|| now() + core.helper_delay);
        self.set_alarm(core, due);
    }

    fn kick_driver(&self, core: &mut Core) {
        if core.asleep && !core.kicked {
            core.kicked = true;
            set(&self.kick);
        }
    }

    /// Wakes the helper at `due`, unless it is woken sooner anyhow.
    fn set_alarm(&self, core: &mut Core, due: Tick) {
        if core.alarm_at.is_some_and(|at| at <= due) {
            return;
        }
        core.alarm_at = Some(due);
        // Zero would switch it off.
        let left = (due - now()).max(Duration::from_nanos(1));
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let value = Timespec::try_from(left).unwrap_or(zero);
        let time = Itimerspec { it_interval: zero, it_value: value };
        // Setting a valid time on a timer of one's own cannot fail.
        let _ = timerfd_settime(&self.alarm, TimerfdTimerFlags::empty(), &time);
    }

    /// The helper thread.
    fn help(&self) {
        let mut driven = 0;
        loop {
            // An interrupted sleep is a short one.
            let _ = poll(&mut [PollFd::new(&self.alarm, PollFlags::IN)], None);
            clear(&self.alarm);
            let mut core = self.lock();
            core.alarm_at = None;
            core = self.settle(core);
            if core.dead.is_some() {
                return;
            }
            if core.driver.is_some() {
                if core.asleep {
                    let now = now();
                    core.place(now);
                    core.send(now);
                    core = self.settle(core);
                }
                core.helper_delay = (core.helper_delay * 2).min(HELPER_DELAY.1);
                continue;
            }
            // A program that has driven since the last look is likely to do so again.
            let wanted = std::mem::take(&mut core.helper_wanted);
            if std::mem::replace(&mut driven, core.driven) != core.driven && !wanted && core.unfinished() > 0
            {
                core.helper_delay = (core.helper_delay * 2).min(HELPER_DELAY.1);
                let due = now() + core.helper_delay;
                self.set_alarm(&mut core, due);
                continue;
            }
            let last_done = core.last_done;
            if let Some(quiet_at) = quiet_until(&mut core, last_done).filter(|at| now() < *at) {
                self.set_alarm(&mut core, quiet_at);
                continue;
            }
            core.helper_delay = HELPER_DELAY.0;
            let mut stop = |core: &mut Core| !core.parked.is_empty() || core.dead.is_some();
            core = self.drive(core, true, None, &mut stop);
            self.hand_over(&mut core);
        }
    }
}

/// Until when nobody needs to drive, if nothing has happened since; `None` when somebody should soon.
fn quiet_until(core: &mut Core, since: Tick) -> Option<Tick> {
    let idle = core.unfinished() == 0 && core.link.socket.unsent() == 0 && core.pipes.is_empty();
    let quiet_at = since + QUIET;
    idle.then(|| core.deadline().map_or(quiet_at, |due| due.min(quiet_at)))
}

fn is_past(deadline: Option<Instant>) -> bool {
    deadline.is_some_and(|deadline| Instant::now() >= deadline)
}

/// Makes an event descriptor readable.
fn set(event: impl AsFd) {
    // It fails only when it is readable already.
    let _ = rustix::io::write(event, &1u64.to_ne_bytes());
}

/// Makes an event descriptor unreadable.
pub(super) fn clear(event: impl AsFd) {
    // It fails only when it is not readable.
    let _ = rustix::io::read(event, &mut [0u8; 8]);
}

impl Shared {
    pub(super) fn event(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }

    pub(super) fn pipe_event(&self) -> BorrowedFd<'_> {
        self.pipe_event.as_fd()
    }
}
