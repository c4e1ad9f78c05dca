//! Joins the processes of a group on this machine to each other without any node: for tests and benchmarks.

use super::Error;
use crate::pipe::{PipeEvent, RingWay, Way};
use crate::socket::Socket;
use mutirao_group::plan::{PLAN_BYTES_MAX, ProcessPlan};
use mutirao_ring::{Bell, RingMemory};
use mutirao_wire::pipe::RingSide;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// What pipes are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// Rings whose two directions hold so many bytes.
    Rings(usize),
    /// Unix sockets.
    Sockets,
    /// TCP connections over loopback.
    Tcp,
}

/// The side of whoever started the processes. The group ends when it is dropped.
#[derive(Debug)]
pub struct Direct {
    sides: Arc<Mutex<Sides>>,
    watch: Option<JoinHandle<()>>,
    /// The watch ends when this is dropped.
    ends_watch: Option<OwnedFd>,
}

#[derive(Debug)]
struct Sides {
    /// By rank, as long as there is such a process.
    lines: Vec<Option<Socket>>,
    /// The ranks at the two ends of each pipe.
    pipes: BTreeMap<u64, (usize, usize)>,
    over: Over,
}

impl Direct {
    /// Starts to join processes, of which `plans` has one for each rank; the sockets that they find their places
    /// on, and the side to be kept.
    pub fn new(plans: &[ProcessPlan], over: Over) -> Result<(Direct, Vec<OwnedFd>), Error> {
        let mut sides = Sides { lines: Vec::new(), pipes: BTreeMap::new(), over };
        let (mut ends, mut heard) = (Vec::new(), Vec::new());
        for (rank, plan) in plans.iter().enumerate() {
            let (ours, theirs) = pair()?;
            let mut line = Socket::with_bodies(ours, PLAN_BYTES_MAX);
            plan.put(line.out());
            line.flush().map_err(Error::system("tell a process its plan"))?;
            heard.push(line.shared_fd());
            sides.lines.push(Some(line));
            ends.push(theirs);
            let peers = plan.outputs.iter().flat_map(|port| &port.peers);
            let channels = peers.map(|peer| (peer.pipe, peer.rank));
            let steps = plan.collectives.iter().map(|step| (step.to.pipe, step.to.rank));
            sides.pipes.extend(channels.chain(steps).map(|(pipe, to)| (pipe, (rank, to as usize))));
        }
        let numbers: Vec<u64> = sides.pipes.keys().copied().collect();
        numbers.into_iter().try_for_each(|number| sides.open(number))?;
        let sides = Arc::new(Mutex::new(sides));
        let (ends_watch, end) = pair()?;
        let watched = sides.clone();
        let watch = std::thread::Builder::new()
            .name("mutirao-direct".into())
            .spawn(move || watch(&watched, heard, &end))
            .map_err(|source| Error::System { what: "start a thread", source })?;
        Ok((Direct { sides, watch: Some(watch), ends_watch: Some(ends_watch) }, ends))
    }

    /// Makes a pipe, for the first time or anew.
    pub fn open(&mut self, number: u64) -> Result<(), Error> {
        lock(&self.sides).open(number)
    }

    /// Breaks a pipe.
    pub fn break_off(&mut self, number: u64) -> Result<(), Error> {
        let mut sides = lock(&self.sides);
        let Some((from, to)) = sides.pipes.get(&number).copied() else { return Ok(()) };
        sides.say(from, PipeEvent::Broken { number })?;
        sides.say(to, PipeEvent::Broken { number })
    }
}

impl Drop for Direct {
    fn drop(&mut self) {
        self.ends_watch = None;
        // It does not panic.
        let _ = self.watch.take().map(JoinHandle::join);
    }
}

fn lock(sides: &Mutex<Sides>) -> MutexGuard<'_, Sides> {
    sides.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tells the others of each process that is no more, until the other end of `end` is closed.
fn watch(sides: &Mutex<Sides>, heard: Vec<Arc<OwnedFd>>, end: &OwnedFd) {
    let mut heard: Vec<(usize, Arc<OwnedFd>)> = heard.into_iter().enumerate().collect();
    loop {
        let mut fds = vec![PollFd::new(end, PollFlags::IN)];
        fds.extend(heard.iter().map(|(_, fd)| PollFd::new(fd, PollFlags::IN)));
        if !matches!(poll(&mut fds, None), Ok(_) | Err(Errno::INTR)) || !fds[0].revents().is_empty() {
            return;
        }
        // Processes say nothing over their lines.
        let gone: Vec<bool> = fds[1..].iter().map(|fd| !fd.revents().is_empty()).collect();
        let mut gone = gone.into_iter();
        heard.retain(|(rank, _)| {
            let is_gone = gone.next().unwrap_or(false);
            if is_gone {
                lock(sides).lost(*rank);
            }
            !is_gone
        });
    }
}

impl Sides {
    fn open(&mut self, number: u64) -> Result<(), Error> {
        let Some((from, to)) = self.pipes.get(&number).copied() else { return Ok(()) };
        let (one, other) = match self.over {
            Over::Rings(capacity_bytes) => ring(capacity_bytes)?,
            Over::Sockets => {
                let (one, other) = pair()?;
                (Way::Socket { fd: one, trusted: false }, Way::Socket { fd: other, trusted: false })
            }
            Over::Tcp => {
                let (one, other) = tcp()?;
                (Way::Socket { fd: one, trusted: true }, Way::Socket { fd: other, trusted: true })
            }
        };
        self.say(from, PipeEvent::Opened { number, way: one })?;
        self.say(to, PipeEvent::Opened { number, way: other })
    }

    /// A process is no more, and no pipe to it.
    fn lost(&mut self, rank: usize) {
        self.lines[rank] = None;
        let text = format!("the process of rank {rank} has ended");
        for (number, (from, to)) in std::mem::take(&mut self.pipes) {
            if from != rank && to != rank {
                self.pipes.insert(number, (from, to));
                continue;
            }
            let other = if from == rank { to } else { from };
            // It may have ended, too.
            let _ = self.say(other, PipeEvent::Failed { number, text: text.clone() });
        }
    }

    fn say(&mut self, rank: usize, event: PipeEvent) -> Result<(), Error> {
        let Some(Some(line)) = self.lines.get_mut(rank) else { return Ok(()) };
        event.put(line);
        line.flush().map(drop).map_err(Error::system("tell a process of a pipe"))
    }
}

fn pair() -> Result<(OwnedFd, OwnedFd), Error> {
    socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .map_err(Error::system("make a pair of sockets"))
}

fn tcp() -> Result<(OwnedFd, OwnedFd), Error> {
    let connect = || {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        let one = std::net::TcpStream::connect(listener.local_addr()?)?;
        let other = listener.accept()?.0;
        one.set_nodelay(true)?;
        other.set_nodelay(true)?;
        Ok((one.into(), other.into()))
    };
    connect().map_err(|source| Error::System { what: "make a TCP connection", source })
}

fn ring(capacity_bytes: usize) -> Result<(Way, Way), Error> {
    let failed = |error: mutirao_ring::Error| Error::System {
        what: "make a ring",
        source: std::io::Error::other(error.to_string()),
    };
    let copy = |fd: BorrowedFd<'_>| {
        fd.try_clone_to_owned().map_err(|source| Error::System { what: "duplicate a descriptor", source })
    };
    let memory = RingMemory::create(capacity_bytes).map_err(failed)?;
    let (bell, ringer) = Bell::pair().map_err(failed)?;
    let (other_bell, other_ringer) = Bell::pair().map_err(failed)?;
    // Each side hears its own bell, rings the other's, and keeps that open.
    let caller = RingWay {
        memory: copy(memory.as_fd())?,
        bell: copy(bell.as_fd())?,
        ringer: copy(other_ringer.fds().0)?,
        keeper: copy(other_bell.as_fd())?,
        side: RingSide::Caller,
    };
    let worker = RingWay {
        memory: copy(memory.as_fd())?,
        bell: other_bell.into_fd(),
        ringer: copy(ringer.fds().0)?,
        keeper: bell.into_fd(),
        side: RingSide::Worker,
    };
    Ok((Way::Ring(caller), Way::Ring(worker)))
}
