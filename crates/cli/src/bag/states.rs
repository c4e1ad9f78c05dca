//! State that attempts save, as it comes to the keeper over pipes from the workers.

use super::keeper::Event;
use anyhow::{Context, Result};
use mutirao::raw::{LeaseKey, PipeEnd, PipeEvent, PipeStream, Pool};
use mutirao_wire::Epoch;
use mutirao_wire::checkpoint::{Answer, Asked, Taker};
use rustix::event::{PollFd, PollFlags, poll};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, PipeReader, PipeWriter, Read, Write, pipe};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

/// While so much of it is here, in part or not yet kept, no further state is taken: workers wait.
const BYTES_MAX: usize = 128 << 20;

/// The ways to the workers, and the thread that looks after them.
pub struct States {
    pool: Pool,
    opened: BTreeSet<LeaseKey>,
    /// What is added to the number of a lease to have that of its pipe.
    first: u64,
    orders: Sender<Order>,
    bell: PipeWriter,
}

enum Order {
    Answer {
        pipe: u64,
        number: u64,
        call: u64,
        answer: Answer,
    },
    /// What still comes of this call is not wanted any more.
    Over(u64),
}

impl States {
    /// Starts the thread. Pipes of keepers with another `epoch` have other numbers.
    pub fn start(pool: &Pool, epoch: Epoch, events: &Sender<Event>) -> Result<States> {
        let failed = "cannot start a thread";
        let (orders, taken) = channel();
        let (hears, bell) = pipe().context(failed)?;
        rustix::io::ioctl_fionbio(&hears, true).context(failed)?;
        rustix::io::ioctl_fionbio(&bell, true).context(failed)?;
        let desk = Desk {
            pool: pool.clone(),
            events: events.clone(),
            orders: taken,
            bell: hears,
            links: BTreeMap::new(),
        };
        crate::threads::start("states", move || desk.run())?;
        let first = u64::from(epoch.0) << 32;
        Ok(States { pool: pool.clone(), opened: BTreeSet::new(), first, orders, bell })
    }

    /// Makes the way to the worker of a lease, unless it is made already.
    pub fn open(&mut self, lease: LeaseKey) -> Result<(), mutirao::Error> {
        if !self.opened.contains(&lease) {
            let number = self.first | u64::from(lease.0);
            self.pool.open_pipe(number, PipeEnd::Program, PipeEnd::Worker(lease))?;
            self.opened.insert(lease);
        }
        Ok(())
    }

    /// Answers what came over a pipe.
    pub fn answer(&self, pipe: u64, number: u64, call: u64, answer: Answer) {
        self.order(Order::Answer { pipe, number, call, answer });
    }

    /// A call is over.
    pub fn over(&self, call: u64) {
        self.order(Order::Over(call));
    }

    /// The lease is no more, and with it the pipe.
    pub fn gone(&mut self, lease: LeaseKey) {
        self.opened.remove(&lease);
    }

    fn order(&self, order: Order) {
        if self.orders.send(order).is_ok() {
            // One that is full has rung already.
            let _ = (&self.bell).write(&[0]);
        }
    }
}

struct Desk {
    pool: Pool,
    events: Sender<Event>,
    orders: Receiver<Order>,
    bell: PipeReader,
    links: BTreeMap<u64, Link>,
}

#[derive(Default)]
struct Link {
    stream: Option<PipeStream>,
    taker: Taker,
    /// Bytes of state that the keeper has, and has not answered.
    handed: usize,
}

impl Link {
    fn holds(&self) -> usize {
        self.taker.coming() + self.handed
    }

    fn hang_up(&mut self) {
        self.stream = None;
        self.taker.broken();
    }
}

impl Desk {
    /// Goes on until the keeper or the pool is gone.
    fn run(mut self) {
        loop {
            match self.bell.read(&mut [0; 64]) {
                Ok(0) => return,
                Err(error) if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                    return;
                }
                _ => {}
            }
            while let Ok(order) = self.orders.try_recv() {
                self.obey(order);
            }
            loop {
                match self.pool.next_pipe_event(Some(Duration::ZERO)) {
                    Ok(Some(event)) => self.hear(event),
                    Ok(None) => break,
                    Err(_) => return,
                }
            }
            let pipes: Vec<u64> = self.links.keys().copied().collect();
            for pipe in pipes {
                if self.serve(pipe).is_err() {
                    return;
                }
            }
            self.sleep();
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Answer { pipe, number, call, answer } => {
                let Some(link) = self.links.get_mut(&pipe) else { return };
                link.handed = 0;
                link.taker.answer(number, call, answer);
            }
            Order::Over(call) => {
                self.links.values_mut().for_each(|link| link.taker.forget(call));
            }
        }
    }

    fn hear(&mut self, event: PipeEvent) {
        let link = self.links.entry(event.number()).or_default();
        match event {
            PipeEvent::Opened { way, .. } => match PipeStream::open(way) {
                Ok(stream) => {
                    link.stream = Some(stream);
                    link.taker.opened();
                }
                // The node opens it anew when the other end finds it broken.
                Err(_) => link.hang_up(),
            },
            PipeEvent::Broken { .. } => link.hang_up(),
            PipeEvent::Failed { number, .. } => drop(self.links.remove(&number)),
        }
    }

    /// Whether more is taken from a pipe: of state that has begun to come, or while there is room for more.
    fn takes(&self, link: &Link) -> bool {
        link.taker.coming() > 0 || self.links.values().map(Link::holds).sum::<usize>() < BYTES_MAX
    }

    /// Moves what there is; an error when the keeper is gone.
    fn serve(&mut self, pipe: u64) -> Result<(), ()> {
        let takes = self.links.get(&pipe).is_some_and(|link| self.takes(link));
        let Some(link) = self.links.get_mut(&pipe) else { return Ok(()) };
        let Some(stream) = &mut link.stream else { return Ok(()) };
        let (mut bytes, mut asked) = (Vec::new(), Vec::new());
        let read = if takes { stream.read(&mut bytes) } else { Ok(()) };
        let heard = link.taker.hear(&bytes, &mut asked);
        let mut written = Ok(1);
        while written != Ok(0) && written.is_ok() && !link.taker.unwritten().is_empty() {
            written = stream.write(link.taker.unwritten());
            link.taker.written(written.unwrap_or(0));
        }
        if read.is_err() || heard.is_err() || written.is_err() {
            link.hang_up();
        }
        for asked in asked {
            if let Asked::Save { state, .. } = &asked {
                link.handed += state.len();
            }
            self.events.send(Event::State { pipe, asked }).map_err(drop)?;
        }
        Ok(())
    }

    /// Sleeps until there is something to do.
    fn sleep(&mut self) {
        let taken: BTreeSet<u64> =
            self.links.iter().filter(|(_, link)| self.takes(link)).map(|(pipe, _)| *pipe).collect();
        let mut is_ready = false;
        for (pipe, link) in &mut self.links {
            let has_news = !link.taker.unwritten().is_empty();
            if let Some(stream) = &mut link.stream
                && (taken.contains(pipe) || has_news)
            {
                is_ready |= stream.arm(taken.contains(pipe), has_news);
            }
        }
        if !is_ready {
            let pipe_events = self.pool.pipe_event_fd();
            let mut fds =
                vec![PollFd::new(&self.bell, PollFlags::IN), PollFd::new(&pipe_events, PollFlags::IN)];
            for (pipe, link) in &mut self.links {
                let has_news = !link.taker.unwritten().is_empty();
                if let Some(stream) = &link.stream
                    && (taken.contains(pipe) || has_news)
                {
                    fds.push(PollFd::new(stream, stream.interest(taken.contains(pipe), has_news)));
                }
            }
            // A failure shows as such when it is looked.
            let _ = poll(&mut fds, None);
        }
        self.links.values_mut().filter_map(|link| link.stream.as_mut()).for_each(PipeStream::disarm);
    }
}
