//! Joins the processes of a group on this machine to each other without any node: for tests and benchmarks.

use super::Error;
use crate::socket::Socket;
use mutirao_group::plan::{PLAN_BYTES_MAX, ProcessPlan};
use mutirao_ring::{Bell, RingMemory};
use mutirao_wire::pipe::{PipeBroken, PipeMessage, PipeOpened, PipeWay, RingSide};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};

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
    /// By rank.
    lines: Vec<Socket>,
    /// The ranks at the two ends of each pipe.
    pipes: BTreeMap<u64, (usize, usize)>,
    over: Over,
}

impl Direct {
    /// Starts to join processes, of which `plans` has one for each rank; the sockets that they find their places
    /// on, and the side to be kept.
    pub fn new(plans: &[ProcessPlan], over: Over) -> Result<(Direct, Vec<OwnedFd>), Error> {
        let mut direct = Direct { lines: Vec::new(), pipes: BTreeMap::new(), over };
        let mut ends = Vec::new();
        for (rank, plan) in plans.iter().enumerate() {
            let (ours, theirs) = pair()?;
            let mut line = Socket::with_bodies(ours, PLAN_BYTES_MAX);
            plan.put(line.out());
            line.flush().map_err(Error::system("tell a process its plan"))?;
            direct.lines.push(line);
            ends.push(theirs);
            let peers = plan.outputs.iter().flat_map(|port| &port.peers);
            let channels = peers.map(|peer| (peer.pipe, peer.rank));
            let steps = plan.collectives.iter().map(|step| (step.to.pipe, step.to.rank));
            direct.pipes.extend(channels.chain(steps).map(|(pipe, to)| (pipe, (rank, to as usize))));
        }
        let numbers: Vec<u64> = direct.pipes.keys().copied().collect();
        numbers.into_iter().try_for_each(|number| direct.open(number))?;
        Ok((direct, ends))
    }

    /// Makes a pipe, for the first time or anew.
    pub fn open(&mut self, number: u64) -> Result<(), Error> {
        let Some((from, to)) = self.pipes.get(&number).copied() else { return Ok(()) };
        let ((way, fds), (other_way, other_fds)) = match self.over {
            Over::Rings(capacity_bytes) => ring(capacity_bytes)?,
            Over::Sockets => {
                let (one, other) = pair()?;
                let way = PipeWay::Socket { trusted: false };
                ((way, vec![one]), (way, vec![other]))
            }
            Over::Tcp => {
                let (one, other) = tcp()?;
                let way = PipeWay::Socket { trusted: true };
                ((way, vec![one]), (way, vec![other]))
            }
        };
        self.say(from, PipeOpened { number, way }.into(), fds)?;
        self.say(to, PipeOpened { number, way: other_way }.into(), other_fds)
    }

    /// Breaks a pipe.
    pub fn break_off(&mut self, number: u64) -> Result<(), Error> {
        let Some((from, to)) = self.pipes.get(&number).copied() else { return Ok(()) };
        self.say(from, PipeBroken { number }.into(), Vec::new())?;
        self.say(to, PipeBroken { number }.into(), Vec::new())
    }

    fn say(&mut self, rank: usize, message: PipeMessage, fds: Vec<OwnedFd>) -> Result<(), Error> {
        let Some(line) = self.lines.get_mut(rank) else { return Ok(()) };
        if !fds.is_empty() {
            line.attach(fds);
        }
        message.put(line.out());
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

type End = (PipeWay, Vec<OwnedFd>);

fn ring(capacity_bytes: usize) -> Result<(End, End), Error> {
    let failed = |error: mutirao_ring::Error| Error::System {
        what: "make a ring",
        source: std::io::Error::other(error.to_string()),
    };
    let copy = |fd: std::os::fd::BorrowedFd<'_>| {
        fd.try_clone_to_owned().map_err(|source| Error::System { what: "duplicate a descriptor", source })
    };
    let memory = RingMemory::create(capacity_bytes).map_err(failed)?;
    let (bell, ringer) = Bell::pair().map_err(failed)?;
    let (other_bell, other_ringer) = Bell::pair().map_err(failed)?;
    // Each side hears its own bell, rings the other's, and keeps that open.
    let caller = vec![
        copy(memory.as_fd())?,
        copy(bell.as_fd())?,
        copy(other_ringer.fds().0)?,
        copy(other_bell.as_fd())?,
    ];
    let worker =
        vec![copy(memory.as_fd())?, copy(other_bell.as_fd())?, copy(ringer.fds().0)?, copy(bell.as_fd())?];
    Ok(((PipeWay::Ring(RingSide::Caller), caller), (PipeWay::Ring(RingSide::Worker), worker)))
}
