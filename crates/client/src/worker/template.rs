//! The template: a process of the program that forks a worker for each lease, and reports its end.

use super::serve::Worker;
use crate::operation::OperationEntry;
use crate::socket::{Received, Socket};
use crate::sys::{self, Side};
use mutirao_ring::{Bell, Ringer, SpinBoard, Spinner, WorkerEnd};
use mutirao_wire::limits::PROTOCOL;
use mutirao_wire::worker::{Exited, Fork, Forked, PLACE_ENV, PLACE_OWN, WorkerHello, WorkerMessage};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, getpid, getppid, pidfd_open, set_parent_process_death_signal,
};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// How the template's loop ended, and in which process.
pub(super) enum Outcome {
    /// The node has closed the socket.
    Ended,
    /// It cannot go on.
    Failed(String),
    /// This is a forked worker now.
    Worker(Box<Worker>),
}

/// Descriptors beside a `Fork`.
const FORK_FDS: usize = 6;

struct Child {
    worker: u64,
    pid: u32,
    /// Readable once it has ended.
    ended: OwnedFd,
}

struct Template {
    socket: Socket,
    children: Vec<Child>,
}

/// Serves the node until it closes the socket. Returns in a forked child too.
pub(super) fn run(fd: OwnedFd, table: &[OperationEntry]) -> Outcome {
    silence_standard_streams();
    let mut template = Template { socket: Socket::new(fd), children: Vec::new() };
    template.say(WorkerHello {
        protocol: PROTOCOL,
        operations: table.iter().map(|operation| operation.name.clone()).collect(),
    });
    loop {
        match template.step() {
            Ok(None) => {}
            Ok(Some(outcome)) => return outcome,
            Err(why) => return Outcome::Failed(why),
        }
    }
}

impl Template {
    fn say(&mut self, message: impl Into<WorkerMessage>) {
        message.into().put(self.socket.out());
    }

    /// Waits for one thing to happen and answers it.
    fn step(&mut self) -> Result<Option<Outcome>, String> {
        let all_sent = match self.socket.flush() {
            Ok(all_sent) => all_sent,
            Err(Errno::PIPE | Errno::CONNRESET) => return Ok(Some(Outcome::Ended)),
            Err(errno) => return Err(format!("cannot write to the node: {errno}")),
        };
        let interest = if all_sent { PollFlags::IN } else { PollFlags::IN | PollFlags::OUT };
        let mut fds = vec![PollFd::new(&self.socket, interest)];
        fds.extend(self.children.iter().map(|child| PollFd::new(&child.ended, PollFlags::IN)));
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(format!("cannot wait for the node: {errno}")),
        }
        let socket_ready = !fds[0].revents().is_empty();
        let ended: Vec<bool> = fds[1..].iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(fds);
        self.collect(&ended);
        if !socket_ready {
            return Ok(None);
        }
        match self.socket.receive() {
            Ok(Received::Closed) => return Ok(Some(Outcome::Ended)),
            Ok(_) => {}
            Err(errno) => return Err(format!("cannot read from the node: {errno}")),
        }
        self.take_forks()
    }

    fn collect(&mut self, ended: &[bool]) {
        let children = std::mem::take(&mut self.children);
        for (child, ended) in children.into_iter().zip(ended) {
            match if *ended { sys::collect(child.pid) } else { Ok(None) } {
                Ok(None) => self.children.push(child),
                Ok(Some(end)) => self.say(Exited {
                    worker: child.worker,
                    wait_status: end.wait_status,
                    max_resident_kib: end.max_resident_kib,
                }),
                // The program has set SIGCHLD to be ignored: how it ended is not to be known.
                Err(_) => self.say(Exited { worker: child.worker, wait_status: 0, max_resident_kib: 0 }),
            }
        }
    }

    fn take_forks(&mut self) -> Result<Option<Outcome>, String> {
        loop {
            let message = match self.socket.next_frame() {
                Ok(Some((header, body))) => WorkerMessage::read(&header, body),
                Ok(None) => return Ok(None),
                Err(error) => Err(error),
            };
            let fork = match message {
                Ok(WorkerMessage::Fork(fork)) => fork,
                Ok(other) => return Err(format!("the node sent {:?} to a template", other.kind())),
                Err(error) => return Err(format!("the node sent what is no message: {error}")),
            };
            let Some(fds) = self.socket.take_fds(FORK_FDS) else {
                return Err("the node asked for a worker without giving it a ring".into());
            };
            if let Some(outcome) = self.fork(fork, fds)? {
                return Ok(Some(outcome));
            }
        }
    }

    fn fork(&mut self, fork: Fork, fds: Vec<OwnedFd>) -> Result<Option<Outcome>, String> {
        let template = getpid();
        let forked = match sys::fork_single_threaded() {
            Ok(Side::Child) => {
                // The template's socket and what it knows of other workers go when `run` returns.
                return Ok(Some(become_worker(&fork, fds, template).unwrap_or_else(Outcome::Failed)));
            }
            Ok(Side::Parent(pid)) => {
                let handle = Pid::from_raw(pid.cast_signed()).ok_or(Errno::SRCH);
                match handle.and_then(|handle| pidfd_open(handle, PidfdFlags::empty())) {
                    Ok(ended) => self.children.push(Child { worker: fork.worker, pid, ended }),
                    Err(errno) => return Err(format!("cannot watch a worker: {errno}")),
                }
                Ok(pid)
            }
            Err(errno) => Err(errno.raw_os_error()),
        };
        self.say(Forked { worker: fork.worker, pid: forked });
        Ok(None)
    }
}

/// What a fresh child does before it serves.
fn become_worker(fork: &Fork, fds: Vec<OwnedFd>, template: Pid) -> Result<Outcome, String> {
    let failed = |what: &'static str| move |errno: Errno| format!("cannot {what}: {errno}");
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(failed("ask to die with the template"))?;
    if getppid() != Some(template) {
        return Ok(Outcome::Ended);
    }
    // A group, by which the node ends it, and a session, which may have a terminal of its own.
    rustix::process::setsid().map_err(failed("make a session"))?;
    // So that the node's kill reaches all that operations start. What acts as its user may do what the user's
    // shell may. Where the kernel knows no filters this fails;
    // whether programs run at all there was for the node's owner to say before the template began.
    if !fork.environment.iter().any(|(name, value)| name == PLACE_ENV && value == PLACE_OWN) {
        let _ = mutirao_confine::lock_group();
    }
    let [memory, call_bell, reply_bell, board, stderr, line] =
        <[OwnedFd; FORK_FDS]>::try_from(fds).map_err(|_| "a descriptor is missing".to_owned())?;
    rustix::stdio::dup2_stderr(&stderr).map_err(failed("redirect standard error"))?;
    for (name, value) in &fork.environment {
        sys::set_variable(name, value)?;
    }
    rustix::process::chdir(&fork.directory).map_err(failed("enter the worker's directory"))?;
    super::line::install(line);
    let end = WorkerEnd::map(memory.as_fd(), Ringer::from_fds(reply_bell, None))
        .map_err(|error| error.to_string())?;
    let seat = u16::try_from(fork.spinner).ok().and_then(|number| {
        let board = Arc::new(SpinBoard::map(board).ok()?);
        let seat = board.seat(number)?;
        super::seat::install(board, number);
        Some(seat)
    });
    Ok(Outcome::Worker(Box::new(Worker {
        end,
        bell: Bell::from(call_bell).into_sole().map_err(|error| error.to_string())?,
        spinner: seat.map_or_else(Spinner::asleep, Spinner::new),
    })))
}

/// Operations find nothing to read and nowhere to print. Where confinement forbids even that, the streams stay
/// as the node has left them.
fn silence_standard_streams() {
    use rustix::fs::{Mode, OFlags};
    if let Ok(null) = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
        let _ = rustix::stdio::dup2_stdin(&null);
        let _ = rustix::stdio::dup2_stdout(&null);
    }
}
