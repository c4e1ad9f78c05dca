//! What the threads of a process share, and how they wait.
//!
//! A call claims its channels, moves their bytes itself, and waits for more: spinning while that pays, then asleep.
//! While the program does something else, one helper thread looks after the output channels that need it:
//! messages that have not left yet, and receivers that ask. While calls follow each other closely, it also sees to
//! what they put off.

mod events;
mod late;

use super::Error;
use super::conduit::{Conduit, Handle};
use super::line::Line;
use super::port::{InPort, OutPort, Watch, Way};
use crate::pipe::PipeEvent;
use late::Late;
use mutirao_group::channel::Reading;
use mutirao_ring::{Bell, Ringer, Seat, Spinner};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// One channel of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Port {
    Out(usize),
    In(usize),
}

/// What a step of a call has come to.
#[derive(Debug)]
pub(super) enum Step<R> {
    Done(R),
    /// Look again when something has changed.
    Wait,
    /// There is nothing, and the time is over.
    GiveUp,
}

impl<R> Step<R> {
    pub(super) fn wait_unless(is_late: bool) -> Step<R> {
        if is_late { Step::GiveUp } else { Step::Wait }
    }
}

/// Wakes one sleeping thread.
#[derive(Debug)]
struct Alarm {
    bell: Bell,
    ringer: Ringer,
}

impl Alarm {
    fn new() -> Result<Arc<Alarm>, Error> {
        let failed = |error: mutirao_ring::Error| Error::System {
            what: "make something to be woken by",
            source: std::io::Error::other(error.to_string()),
        };
        let (bell, ringer) = Bell::pair().map_err(failed)?;
        Ok(Arc::new(Alarm { bell, ringer }))
    }

    fn ring(&self) {
        // It fails only if nobody can hear it, and this side holds the end that hears.
        let _ = self.ringer.ring();
    }
}

/// Where a thread sleeps. It is used again: what many processes touch in a turn is cold each time, and what sets memory
/// aside lies apart from the rest.
#[derive(Debug)]
struct Bed {
    alarm: Arc<Alarm>,
    watched: Vec<Watched>,
    /// What had something to say, by the places below.
    rang: Vec<bool>,
}

/// A pipe that is slept on.
#[derive(Debug)]
struct Watched {
    port: Port,
    handle: Handle,
    wants_room: bool,
}

impl Watched {
    fn poll_fd(&self) -> PollFd<'_> {
        let room = matches!(self.handle, Handle::Socket(_)) && self.wants_room;
        let flags = if room { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
        PollFd::from_borrowed_fd(self.handle.as_fd(), flags)
    }
}

/// What spinning is worth: in the middle of a message, whose other side is at it, waits are of another kind than those
/// for the next one.
#[derive(Debug)]
struct Waits {
    next: Spinner,
    rest: Spinner,
}

impl Waits {
    fn new(seat: Option<Seat>) -> Waits {
        let spinner = || seat.clone().map_or_else(Spinner::asleep, Spinner::working);
        Waits { next: spinner(), rest: spinner() }
    }

    fn of(&mut self, is_midway: bool) -> &mut Spinner {
        if is_midway { &mut self.rest } else { &mut self.next }
    }
}

#[derive(Debug)]
pub(super) struct Inner {
    group: String,
    line: Line,
    pub(super) outs: Vec<OutPort>,
    pub(super) ins: Vec<InPort>,
    /// Where each pipe belongs: the channel and its lane.
    routes: HashMap<u64, (Port, usize)>,
    waits: Waits,
    sleepers: Vec<Arc<Alarm>>,
    spare_beds: Vec<Bed>,
    /// Threads that wait for a channel that another uses.
    queued: usize,
    has_helper: bool,
    helper_alarm: Option<Arc<Alarm>>,
    pub(super) late: Late,
    /// Once the program has an event loop of its own.
    events: Option<events::Events>,
    is_over: bool,
}

#[derive(Debug)]
pub(super) struct Shared {
    inner: Mutex<Inner>,
    freed: Condvar,
}

type Guard<'a> = MutexGuard<'a, Inner>;

impl Shared {
    pub(super) fn new(
        group: String,
        line: Line,
        outs: Vec<OutPort>,
        ins: Vec<InPort>,
        seat: Option<Seat>,
    ) -> Result<Arc<Shared>, Error> {
        let mut routes = HashMap::new();
        for (index, port) in outs.iter().enumerate() {
            let lanes = port.common.pipes.iter().enumerate();
            routes.extend(lanes.map(|(lane, pipe)| (*pipe, (Port::Out(index), lane))));
        }
        for (index, port) in ins.iter().enumerate() {
            let lanes = port.common.pipes.iter().enumerate();
            routes.extend(lanes.map(|(lane, pipe)| (*pipe, (Port::In(index), lane))));
        }
        let inner = Inner {
            group,
            line,
            outs,
            ins,
            routes,
            waits: Waits::new(seat),
            sleepers: Vec::new(),
            spare_beds: Vec::new(),
            queued: 0,
            has_helper: false,
            helper_alarm: None,
            late: Late::default(),
            events: None,
            is_over: false,
        };
        let shared = Arc::new(Shared { inner: Mutex::new(inner), freed: Condvar::new() });
        // Receivers may ask before the program has done anything.
        let mut inner = shared.lock();
        // What came with the plan rings no more.
        inner.hear()?;
        if inner.outs.iter().any(OutPort::has_duties) {
            shared.start_helper(&mut inner);
        }
        drop(inner);
        Ok(shared)
    }

    /// A panic elsewhere leaves nothing half done that matters: each step is whole.
    pub(super) fn lock(&self) -> Guard<'_> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Claims channels, and repeats `step` whenever something may have changed until it is done. `step` is told
    /// whether the time is over; it may then still wait for an answer that is sure to come.
    pub(super) fn drive<R>(
        self: &Arc<Self>,
        ports: &[Port],
        deadline: Option<Instant>,
        mut step: impl FnMut(&mut Inner, bool) -> Result<Step<R>, Error>,
    ) -> Result<Option<R>, Error> {
        let mut inner = self.lock();
        while inner.is_any_busy(ports) {
            inner.queued += 1;
            inner = match deadline {
                None => self.freed.wait(inner).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    self.freed.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
            inner.queued -= 1;
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) && inner.is_any_busy(ports) {
                return Ok(None);
            }
        }
        inner.set_busy(ports, true);
        inner.send_held(ports);
        let mut is_late = false;
        let result = loop {
            match step(&mut inner, is_late) {
                Ok(Step::Done(result)) => break Ok(Some(result)),
                Ok(Step::GiveUp) => break Ok(None),
                Ok(Step::Wait) => {}
                Err(error) => break Err(error),
            }
            if !is_late && deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                is_late = true;
                continue;
            }
            let is_midway = inner.is_midway(ports);
            if inner.spin(ports, is_midway) {
                continue;
            }
            inner.catch_up();
            let began = Instant::now();
            let until = deadline.filter(|_| !is_late);
            inner.waits.of(is_midway).dozes();
            let (guard, slept) = self.sleep(inner, ports, until, false);
            inner = guard;
            inner.waits.of(is_midway).wakes(began.elapsed());
            if let Err(error) = slept {
                break Err(error);
            }
        };
        inner.set_busy(ports, false);
        self.leave(&mut inner, ports);
        result
    }

    /// Sees to it that nothing is left lying while the program does something else.
    #[inline]
    fn leave(self: &Arc<Self>, inner: &mut Inner, ports: &[Port]) {
        if inner.queued > 0 {
            self.freed.notify_all();
        }
        if inner.late.pays() {
            self.put_off(inner);
        }
        for port in ports {
            let Port::Out(index) = *port else { continue };
            let port = &mut inner.outs[index];
            if !port.has_duties() || inner.is_over {
                continue;
            }
            if !inner.has_helper {
                self.start_helper(inner);
                continue;
            }
            // The helper that sleeps on the same pipes is to be woken by them again.
            while port.ways.iter().all(Way::is_watched) && arm(&mut port.ways) {
                port.pump(None);
            }
            if !port.ways.iter().all(Way::is_watched)
                && let Some(alarm) = &inner.helper_alarm
            {
                alarm.ring();
            }
        }
    }

    fn start_helper(self: &Arc<Self>, inner: &mut Inner) {
        let shared = self.clone();
        let start = || std::thread::Builder::new().name("mutirao-group".into()).spawn(move || shared.help());
        // Without it messages leave whenever the program calls.
        inner.has_helper = crate::sys::without_signals(start).is_ok();
    }

    fn help(self: Arc<Self>) {
        let mut inner = self.lock();
        while !inner.is_over && !inner.line.is_lost() {
            let until = inner.look_after_late();
            let is_due = |port: &OutPort| port.has_duties() && !port.common.is_busy;
            let due: Vec<Port> =
                (0..inner.outs.len()).filter(|index| is_due(&inner.outs[*index])).map(Port::Out).collect();
            for port in &due {
                if let Port::Out(index) = port {
                    let port = &mut inner.outs[*index];
                    port.pump(None);
                    for way in &mut port.ways {
                        way.watch = if way.is_full { Watch::Room } else { Watch::Bytes };
                    }
                }
            }
            let (guard, slept) = self.sleep(inner, &due, until, true);
            inner = guard;
            inner.outs.iter_mut().flat_map(|port| &mut port.ways).for_each(|way| way.watch = Watch::No);
            if slept.is_err() {
                break;
            }
        }
        inner.has_helper = false;
        inner.catch_up();
        inner.put_off(false);
    }

    /// Sleeps until something comes over the pipes of these channels or the line, somebody rings, or it is time.
    fn sleep<'a>(
        &'a self,
        mut inner: Guard<'a>,
        ports: &[Port],
        until: Option<Instant>,
        is_helper: bool,
    ) -> (Guard<'a>, Result<(), Error>) {
        if let Err(error) = inner.check_line() {
            return (inner, Err(error));
        }
        if ports.iter().any(|port| arm(inner.ways(*port))) {
            return (inner, Ok(()));
        }
        let mut bed = match inner.bed() {
            Ok(bed) => bed,
            Err(error) => return (inner, Err(error)),
        };
        let line = inner.line.shared_fd();
        for port in ports {
            for way in inner.ways(*port) {
                let watched = |handle| Watched { port: *port, handle, wants_room: way.is_full };
                bed.watched.extend(way.conduit.as_ref().map(Conduit::handle).map(watched));
            }
        }
        inner.sleepers.push(bed.alarm.clone());
        if is_helper {
            inner.helper_alarm = Some(bed.alarm.clone());
        }
        drop(inner);
        let polled = poll_all(&line, &mut bed, until);
        let mut inner = self.lock();
        if is_helper {
            inner.helper_alarm = None;
        }
        inner.sleepers.retain(|sleeper| !Arc::ptr_eq(sleeper, &bed.alarm));
        for (Watched { port, handle, .. }, rang) in bed.watched.drain(..).zip(&bed.rang[PIPES..]) {
            // What a call of the program waits for is not the helper's to hear.
            if let Handle::Bell(bell) = handle
                && *rang
                && !(is_helper && inner.is_busy(port))
            {
                let _ = bell.drain();
            }
        }
        if bed.rang[ALARM] {
            let _ = bed.alarm.bell.drain();
        }
        let line_rang = bed.rang[LINE];
        inner.spare_beds.push(bed);
        for port in ports {
            if !(is_helper && inner.is_busy(*port)) {
                inner.ways(*port).iter_mut().filter_map(|way| way.conduit.as_mut()).for_each(|c| c.disarm());
            }
        }
        let heard = match polled {
            Ok(()) if line_rang => inner.hear(),
            polled => polled,
        };
        (inner, heard)
    }

    /// The program is done with its group.
    pub(super) fn end(&self) {
        let mut inner = self.lock();
        inner.is_over = true;
        inner.ring_all();
    }
}

/// Asks all pipes to wake whoever sleeps; true if something is to be done already.
fn arm(ways: &mut [Way]) -> bool {
    let mut is_ready = false;
    for way in ways {
        let (wants_room, is_dying) = (way.is_full, way.is_dying);
        is_ready |= way.conduit.as_mut().is_some_and(|conduit| conduit.arm(wants_room) || is_dying);
    }
    is_ready
}

/// Places of what is slept on: the line, the alarm, and from the last on the pipes.
const LINE: usize = 0;
const ALARM: usize = 1;
const PIPES: usize = 2;
/// For so many no memory is set aside.
const FEW: usize = 8;

/// Sleeps, and notes what has something to say.
fn poll_all(line: &OwnedFd, bed: &mut Bed, until: Option<Instant>) -> Result<(), Error> {
    let Bed { alarm, watched, rang } = bed;
    let count = PIPES + watched.len();
    let fd = |at: usize| match at {
        ALARM => PollFd::new(&alarm.bell, PollFlags::IN),
        PIPES.. if at < count => watched[at - PIPES].poll_fd(),
        _ => PollFd::new(line, PollFlags::IN),
    };
    let (mut few, mut many): ([PollFd<'_>; FEW], Vec<PollFd<'_>>);
    let fds = if count <= FEW {
        few = std::array::from_fn(fd);
        &mut few[..count]
    } else {
        many = (0..count).map(fd).collect();
        &mut many[..]
    };
    rang.clear();
    rang.resize(count, false);
    let left = until.map(|until| until.saturating_duration_since(Instant::now()));
    // A time too long for the kernel's clock is as good as none.
    let timeout = left.and_then(|left| Timespec::try_from(left).ok());
    match poll(fds, timeout.as_ref()) {
        Ok(_) => rang.iter_mut().zip(fds).for_each(|(rang, fd)| *rang = !fd.revents().is_empty()),
        Err(rustix::io::Errno::INTR) => {}
        Err(errno) => return Err(Error::system("wait for channels")(errno)),
    }
    Ok(())
}

impl Inner {
    fn ways(&mut self, port: Port) -> &mut [Way] {
        match port {
            Port::Out(index) => &mut self.outs[index].ways,
            Port::In(index) => &mut self.ins[index].ways,
        }
    }

    fn is_busy(&self, port: Port) -> bool {
        match port {
            Port::Out(index) => self.outs[index].common.is_busy,
            Port::In(index) => self.ins[index].common.is_busy,
        }
    }

    #[inline]
    fn is_any_busy(&self, ports: &[Port]) -> bool {
        ports.iter().any(|port| self.is_busy(*port))
    }

    #[inline]
    fn set_busy(&mut self, ports: &[Port], is_busy: bool) {
        for port in ports {
            match *port {
                Port::Out(index) => self.outs[index].common.is_busy = is_busy,
                Port::In(index) => self.ins[index].common.is_busy = is_busy,
            }
        }
    }

    /// Whether what is waited for is the rest of a message: bytes of it, or room for them.
    #[inline]
    fn is_midway(&self, ports: &[Port]) -> bool {
        ports.iter().any(|port| match *port {
            Port::Out(index) => self.outs[index].ways.iter().any(|way| way.is_full),
            Port::In(index) => {
                let port = &self.ins[index];
                let mut lanes = 0..port.ways.len();
                lanes.any(|lane| matches!(port.inlet.reading(lane), Reading::Body { .. }))
            }
        })
    }

    /// Spins if that pays; whether something is to be done.
    #[inline]
    fn spin(&mut self, ports: &[Port], is_midway: bool) -> bool {
        let mut spinner = std::mem::replace(self.waits.of(is_midway), Spinner::asleep());
        let is_ready = spinner.spin(|| {
            Ok(ports.iter().any(|port| {
                self.ways(*port).iter_mut().any(|way| {
                    let wants_room = way.is_full;
                    way.conduit.as_mut().is_some_and(|conduit| conduit.is_ready(wants_room))
                })
            }))
        });
        *self.waits.of(is_midway) = spinner;
        is_ready.unwrap_or(false)
    }

    fn bed(&mut self) -> Result<Bed, Error> {
        match self.spare_beds.pop() {
            Some(bed) => Ok(bed),
            None => Ok(Bed { alarm: Alarm::new()?, watched: Vec::new(), rang: Vec::new() }),
        }
    }

    fn ring_all(&self) {
        self.sleepers.iter().for_each(|sleeper| sleeper.ring());
    }

    fn check_line(&self) -> Result<(), Error> {
        if self.line.is_lost() { Err(Error::GroupLost { group: self.group.clone() }) } else { Ok(()) }
    }

    /// Takes in what has happened to pipes.
    pub(super) fn hear(&mut self) -> Result<(), Error> {
        let was_lost = self.line.is_lost();
        let events = self.line.hear()?;
        if events.is_empty() && self.line.is_lost() == was_lost {
            return Ok(());
        }
        for event in events {
            match event {
                PipeEvent::Opened { number, way } => self.opened(number, way),
                PipeEvent::Broken { number } => {
                    if let Some((port, lane)) = self.routes.get(&number).copied() {
                        self.ways(port)[lane].is_dying = true;
                    }
                }
                PipeEvent::Failed { number, text } => self.failed(number, text),
            }
        }
        self.ring_all();
        Ok(())
    }

    fn opened(&mut self, pipe: u64, way: crate::pipe::Way) {
        let Some((port, lane)) = self.routes.get(&pipe).copied() else { return };
        let conduit = match Conduit::open(way) {
            Ok(conduit) => conduit,
            Err(error) => return self.failed(pipe, error.to_string()),
        };
        let conduit = if matches!(port, Port::In(_)) { conduit.receives() } else { conduit };
        self.ways(port)[lane].open(conduit);
        match port {
            Port::Out(index) => self.outs[index].outlet.opened(lane),
            Port::In(index) => self.ins[index].inlet.opened(lane),
        }
    }

    fn failed(&mut self, pipe: u64, text: String) {
        let Some((port, lane)) = self.routes.get(&pipe).copied() else { return };
        let way = &mut self.ways(port)[lane];
        if way.conduit.is_some() {
            // The other side may have said that it ends, and more before.
            (way.is_dying, way.fails) = (true, Some(text));
            return;
        }
        *way = Way::default();
        match port {
            Port::Out(index) => self.outs[index].outlet.failed(lane, text),
            Port::In(index) => self.ins[index].inlet.failed(lane, text),
        }
    }
}
