//! Channels in a program's own event loop: one descriptor for all of them.

use super::{Alarm, Inner, Port, Shared, arm};
use crate::group::Error;
use crate::group::conduit::Handle;
use crate::group::port::Way;
use mutirao_group::channel::Fault;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// What an event loop waits on.
#[derive(Debug)]
pub(in crate::group) struct Events {
    /// Of the line, the pipes that were armed, and the alarm. The kernel takes out what is closed.
    set: Arc<OwnedFd>,
    /// Rings when another thread has heard of pipes.
    alarm: Arc<Alarm>,
}

impl Events {
    fn new(inner: &mut Inner) -> Result<Events, Error> {
        let failed = Error::system("make a descriptor for an event loop");
        let set = epoll::create(CreateFlags::CLOEXEC).map_err(failed)?;
        let alarm = Alarm::new()?;
        let events = Events { set: Arc::new(set), alarm };
        events.add(events.alarm.bell.as_fd())?;
        events.add(inner.line.as_fd())?;
        inner.sleepers.push(events.alarm.clone());
        Ok(events)
    }

    fn add(&self, fd: BorrowedFd<'_>) -> Result<(), Error> {
        match epoll::add(&*self.set, fd, EventData::new_u64(0), EventFlags::IN) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(errno) => Err(Error::system("wait for channels")(errno)),
        }
    }
}

impl Shared {
    /// The descriptor, which lives as long as this.
    pub(in crate::group) fn event_fd(&self) -> Result<Arc<OwnedFd>, Error> {
        let mut inner = self.lock();
        Ok(inner.events()?.set.clone())
    }

    /// Asks that the descriptor become readable once one of these inputs has a message or is over; true if one has or
    /// is. Those that another thread uses are left to it.
    pub(in crate::group) fn arm(&self, inputs: &[usize]) -> Result<bool, Error> {
        let mut inner = self.lock();
        // Before anything is looked at: what rings later is then not missed.
        let _ = inner.events()?.alarm.bell.drain();
        inner.hear()?;
        inner.check_line()?;
        // The end of a pipe would wake the event loop for ever.
        for port in &mut inner.ins {
            if port.inlet.front() == Err(Fault::Ended) {
                drain(&port.ways);
                port.pump(&mut None);
            }
        }
        for &index in inputs {
            if inner.is_busy(Port::In(index)) {
                continue;
            }
            loop {
                let port = &mut inner.ins[index];
                drain(&port.ways);
                port.pump(&mut None);
                if port.inlet.front() != Ok(None) {
                    return Ok(true);
                }
                if port.inlet.must_ask() {
                    let _ = port.inlet.want(false);
                    port.tell();
                }
                if !arm(&mut port.ways) {
                    break;
                }
            }
            let handles: Vec<Handle> =
                inner.ins[index].ways.iter().filter_map(|way| Some(way.conduit.as_ref()?.handle())).collect();
            let events = inner.events()?;
            handles.iter().try_for_each(|handle| events.add(handle.as_fd()))?;
        }
        inner.catch_up();
        Ok(false)
    }
}

/// Lets the bells of rings fall silent.
fn drain(ways: &[Way]) {
    for way in ways {
        if let Some(Handle::Bell(bell)) = way.conduit.as_ref().map(|conduit| conduit.handle()) {
            let _ = bell.drain();
        }
    }
}

impl Inner {
    fn events(&mut self) -> Result<&Events, Error> {
        let events = match self.events.take() {
            Some(events) => events,
            None => Events::new(self)?,
        };
        Ok(self.events.insert(events))
    }
}
