//! What the ends of a pipe are given, and the line over which a worker hears of it.

use crate::Error;
use crate::socket::{Received, Socket};
use mutirao_ring::{Bell, CallerEnd, Consumer, Producer, Ringer, WorkerEnd};
use mutirao_wire::BlobHash;
use mutirao_wire::frame::{HEADER_BYTES, Header, put_frame};
use mutirao_wire::kind::Kind;
use mutirao_wire::pipe::{PipeBroken, PipeFailed, PipeMessage, PipeOpened, PipeWay, RingSide};
use mutirao_wire::plugin::Ticket;
use mutirao_wire::worker::{BlobHere, BlobKept, KeepBlob, LineMessage, NeedBlob, TerminalMade};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Descriptors of a terminal.
const TERMINAL_SIDES: usize = 2;

/// Others have so long to take the descriptors that are on their way to them,
const CROWD_PATIENCE: Duration = Duration::from_secs(30);
/// and it is looked so often whether they have.
const CROWD_PAUSE: Duration = Duration::from_millis(2);

/// How a pipe is reached.
#[derive(Debug)]
pub enum Way {
    /// The other end is on the same machine: a ring in memory.
    Ring(RingWay),
    /// The other end is elsewhere: a stream socket, which may be set not to block. Its end is the end of what
    /// the other side wrote, or a break, of which a message tells too.
    Socket {
        /// The socket.
        fd: OwnedFd,
        /// Its bytes are not encrypted: the pool trusts the link.
        trusted: bool,
    },
}

/// A ring between two ends, before it is mapped; as such it can be handed on to another process.
#[derive(Debug)]
pub struct RingWay {
    /// Its memory.
    pub memory: OwnedFd,
    /// The bell to hear.
    pub bell: OwnedFd,
    /// Rings the other end's bell.
    pub ringer: OwnedFd,
    /// The other end's bell, kept open so that ringing for an end that is gone raises no signal.
    pub keeper: OwnedFd,
    /// Which side this is.
    pub side: RingSide,
}

/// This end of a ring. When the other end is gone, and nothing is left, [`ring::wait`](mutirao_ring::wait) says so.
#[derive(Debug)]
pub struct RingEnds {
    /// Brings bytes.
    pub reader: Consumer,
    /// Takes bytes.
    pub writer: Producer,
    /// Heard when there are bytes, or room.
    pub bell: Bell,
}

impl RingWay {
    /// Checks and maps it; once in its life.
    pub fn map(self) -> Result<RingEnds, Error> {
        let ringer = Ringer::from_fds(self.ringer, Some(self.keeper));
        let bell = Bell::from(self.bell);
        let failed = |error: mutirao_ring::Error| Error::Protocol(error.to_string());
        Ok(match self.side {
            RingSide::Caller => {
                let end = CallerEnd::map(&self.memory, ringer).map_err(failed)?;
                RingEnds { reader: end.replies, writer: end.calls, bell }
            }
            RingSide::Worker => {
                let end = WorkerEnd::map(&self.memory, ringer).map_err(failed)?;
                RingEnds { reader: end.calls, writer: end.replies, bell }
            }
        })
    }
}

impl Way {
    /// Out of a message and the descriptors beside it.
    pub(crate) fn new(way: PipeWay, fds: Vec<OwnedFd>) -> Option<Way> {
        let mut fds = fds.into_iter();
        Some(match way {
            PipeWay::Ring(side) => Way::Ring(RingWay {
                memory: fds.next()?,
                bell: fds.next()?,
                ringer: fds.next()?,
                keeper: fds.next()?,
                side,
            }),
            PipeWay::Socket { trusted } => Way::Socket { fd: fds.next()?, trusted },
        })
    }

    fn into_parts(self) -> (PipeWay, Vec<OwnedFd>) {
        match self {
            Way::Ring(ring) => {
                (PipeWay::Ring(ring.side), vec![ring.memory, ring.bell, ring.ringer, ring.keeper])
            }
            Way::Socket { fd, trusted } => (PipeWay::Socket { trusted }, vec![fd]),
        }
    }
}

/// A terminal that the node has made.
#[derive(Debug)]
pub struct Terminal {
    /// The side from which it is driven: reads what programs write, writes what they read, sets its size.
    pub driver: OwnedFd,
    /// The side that programs use.
    pub user: OwnedFd,
}

/// What happened to a pipe.
#[derive(Debug)]
pub enum PipeEvent {
    /// It is there, for the first time or anew: what was given before is of no further use.
    Opened {
        /// Its number.
        number: u64,
        /// How it is reached.
        way: Way,
    },
    /// It is broken, and is opened anew when that can be done.
    Broken {
        /// Its number.
        number: u64,
    },
    /// It is no more.
    Failed {
        /// Its number.
        number: u64,
        /// Why.
        text: String,
    },
}

impl PipeEvent {
    /// Which pipe.
    pub fn number(&self) -> u64 {
        match self {
            PipeEvent::Opened { number, .. }
            | PipeEvent::Broken { number }
            | PipeEvent::Failed { number, .. } => *number,
        }
    }

    /// Out of a message that came over `socket`, with the descriptors beside it.
    pub(crate) fn take(message: PipeMessage, socket: &mut Socket) -> Result<PipeEvent, String> {
        Ok(match message {
            PipeMessage::PipeOpened(PipeOpened { number, way }) => {
                let way = socket.take_fds(way.descriptors()).and_then(|fds| Way::new(way, fds));
                let way = way.ok_or_else(|| format!("pipe {number} came without its descriptors"))?;
                PipeEvent::Opened { number, way }
            }
            PipeMessage::PipeBroken(PipeBroken { number }) => PipeEvent::Broken { number },
            PipeMessage::PipeFailed(PipeFailed { number, text }) => PipeEvent::Failed { number, text },
            other => return Err(format!("a {:?} frame, which says nothing of a pipe", other.kind())),
        })
    }

    /// Puts it on its way over `socket`.
    pub(crate) fn put(self, socket: &mut Socket) {
        let message: PipeMessage = match self {
            PipeEvent::Opened { number, way } => {
                let (way, fds) = way.into_parts();
                socket.attach(fds);
                PipeOpened { number, way }.into()
            }
            PipeEvent::Broken { number } => PipeBroken { number }.into(),
            PipeEvent::Failed { number, text } => PipeFailed { number, text }.into(),
        };
        message.put(socket.out());
    }
}

/// What a worker has had its node keep; its program [fetches](crate::raw::Pool::fetch_blob) it with that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeptBlob {
    /// The content.
    pub hash: BlobHash,
    /// Its length, and the right to it.
    pub ticket: Ticket,
}

/// What comes over a line.
#[derive(Debug)]
pub enum LineEvent {
    /// News of a pipe.
    Pipe(PipeEvent),
    /// A blob that was [asked for](Line::ask_blob), opened for reading, or why it is not to be had.
    Blob {
        /// Which.
        hash: BlobHash,
        /// The file.
        file: Result<OwnedFd, String>,
    },
    /// The file that was [to be kept](Line::keep_blob) is, or why not.
    Kept(Result<KeptBlob, String>),
    /// The terminal that was [asked for](Line::ask_terminal), or why there is none.
    Terminal(Result<Terminal, String>),
    /// A frame that is about none of these; nodes send none.
    Message {
        /// Its kind, as a number.
        kind: u16,
        /// Its body.
        body: Vec<u8>,
    },
}

/// The line on which a process hears of its pipes. Clones are the same line.
#[derive(Debug, Clone)]
pub struct Line {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    fd: Arc<OwnedFd>,
    reader: Mutex<Socket>,
    writer: Mutex<Option<Socket>>,
}

impl Line {
    /// A line over a connected stream socket, whose other side uses [`pass_on`](Line::pass_on).
    pub fn over(fd: OwnedFd) -> Line {
        let reader = Socket::new(fd);
        let fd = reader.shared_fd();
        Line { inner: Arc::new(Inner { fd, reader: Mutex::new(reader), writer: Mutex::new(None) }) }
    }

    /// Readable when more may have come. Before waiting for that, take all there is with
    /// [`next`](Line::next) and a timeout of zero.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.inner.fd.as_fd()
    }

    /// What comes next; `None` when the time is up first. [`Error::Closed`] when nothing can come any more.
    pub fn next(&self, timeout: Option<Duration>) -> Result<Option<LineEvent>, Error> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut socket = lock(&self.inner.reader);
        loop {
            if let Some(event) = take(&mut socket)? {
                return Ok(Some(event));
            }
            match socket.receive().map_err(Error::system("read from the line"))? {
                Received::Some => continue,
                Received::Closed => return Err(Error::Closed),
                Received::Nothing => {}
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(None);
            }
            let timespec = left.and_then(|left| Timespec::try_from(left).ok());
            match poll(&mut [PollFd::new(&socket.shared_fd(), PollFlags::IN)], timespec.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(Error::system("wait for the line")(errno)),
            }
        }
    }

    /// In a worker: asks its node for a terminal, once in the worker's life. [`LineEvent::Terminal`] answers.
    pub fn ask_terminal(&self) -> Result<(), Error> {
        // The message has no fields.
        self.pass_on(LineEvent::Message { kind: Kind::NeedTerminal as u16, body: Vec::new() })
    }

    /// In a worker: asks its node for a blob that the application has offered. [`LineEvent::Blob`] answers. At most
    /// [`LINE_BLOBS_MAX`](mutirao_wire::worker::LINE_BLOBS_MAX) may be awaited at a time.
    pub fn ask_blob(&self, hash: BlobHash) -> Result<(), Error> {
        let mut frame = Vec::new();
        LineMessage::from(NeedBlob { hash }).put(&mut frame);
        let body = frame.split_off(HEADER_BYTES);
        self.pass_on(LineEvent::Message { kind: Kind::NeedBlob as u16, body })
    }

    /// In a worker: has its node keep a copy of a regular file until the program has fetched it. [`LineEvent::Kept`]
    /// answers; one at a time.
    pub fn keep_blob(&self, file: OwnedFd) -> Result<(), Error> {
        self.say(|socket| {
            socket.attach(vec![file]);
            LineMessage::from(KeepBlob { number: 0 }).put(socket.out());
        })
    }

    /// Says something to the other side of a line, descriptors included; waits while it does not read.
    pub fn pass_on(&self, event: LineEvent) -> Result<(), Error> {
        self.say(|socket| match event {
            LineEvent::Pipe(event) => event.put(socket),
            LineEvent::Terminal(made) => {
                let (refused, fds) = match made {
                    Ok(terminal) => (None, vec![terminal.driver, terminal.user]),
                    Err(why) => (Some(why), Vec::new()),
                };
                socket.attach(fds);
                LineMessage::from(TerminalMade { refused }).put(socket.out());
            }
            LineEvent::Blob { hash, file } => {
                let (refused, fds) = match file {
                    Ok(file) => (None, vec![file]),
                    Err(why) => (Some(why), Vec::new()),
                };
                socket.attach(fds);
                LineMessage::from(BlobHere { hash, refused }).put(socket.out());
            }
            LineEvent::Kept(kept) => {
                let blob = kept.map(|kept| (kept.hash, kept.ticket));
                LineMessage::from(BlobKept { number: 0, blob }).put(socket.out());
            }
            LineEvent::Message { kind, body } => {
                let mut header = Header::default();
                header.kind.set(kind);
                header.length.set(body.len() as u32);
                put_frame(socket.out(), header, &body);
            }
        })
    }

    fn say(&self, put: impl FnOnce(&mut Socket)) -> Result<(), Error> {
        let mut writer = lock(&self.inner.writer);
        if writer.is_none() {
            let failed = |source| Error::System { what: "duplicate a descriptor", source };
            *writer = Some(Socket::new(self.inner.fd.as_fd().try_clone_to_owned().map_err(failed)?));
        }
        let Some(socket) = writer.as_mut() else { return Err(Error::Closed) };
        put(socket);
        let began = Instant::now();
        loop {
            match socket.flush() {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                // The kernel bounds how many descriptors of a user are on their way, and says nothing when they
                // have arrived.
                Err(Errno::TOOMANYREFS) if began.elapsed() < CROWD_PATIENCE => {
                    std::thread::sleep(CROWD_PAUSE);
                    continue;
                }
                Err(Errno::PIPE | Errno::CONNRESET) => return Err(Error::Closed),
                Err(errno) => return Err(Error::system("write to the line")(errno)),
            }
            match poll(&mut [PollFd::new(&socket.shared_fd(), PollFlags::OUT)], None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(Error::system("wait for the line")(errno)),
            }
        }
    }
}

/// The next event among what was received.
fn take(socket: &mut Socket) -> Result<Option<LineEvent>, Error> {
    let nonsense = |what: String| Error::Protocol(what);
    let Some((header, body)) = socket.next_frame().map_err(|error| nonsense(error.to_string()))? else {
        return Ok(None);
    };
    let kind = header.kind.get();
    if kind == Kind::TerminalMade as u16 {
        let message = LineMessage::read(&header, body).map_err(|error| nonsense(error.to_string()))?;
        let made = match message {
            LineMessage::TerminalMade(TerminalMade { refused: Some(why) }) => Err(why),
            _ => {
                let sides =
                    socket.take_fds(TERMINAL_SIDES).and_then(|fds| <[OwnedFd; 2]>::try_from(fds).ok());
                let missing = || nonsense("a terminal came without its descriptors".into());
                let [driver, user] = sides.ok_or_else(missing)?;
                Ok(Terminal { driver, user })
            }
        };
        return Ok(Some(LineEvent::Terminal(made)));
    }
    if kind == Kind::BlobKept as u16 {
        let message = LineMessage::read(&header, body).map_err(|error| nonsense(error.to_string()))?;
        if let LineMessage::BlobKept(BlobKept { blob, .. }) = message {
            return Ok(Some(LineEvent::Kept(blob.map(|(hash, ticket)| KeptBlob { hash, ticket }))));
        }
    }
    if kind == Kind::BlobHere as u16 {
        let message = LineMessage::read(&header, body).map_err(|error| nonsense(error.to_string()))?;
        if let LineMessage::BlobHere(BlobHere { hash, refused }) = message {
            let file = match refused {
                Some(why) => Err(why),
                None => {
                    let file = socket.take_fds(1).and_then(|mut files| files.pop());
                    Ok(file.ok_or_else(|| nonsense("a blob came without its descriptor".into()))?)
                }
            };
            return Ok(Some(LineEvent::Blob { hash, file }));
        }
    }
    if !PipeMessage::has_kind(kind) {
        return Ok(Some(LineEvent::Message { kind, body: body.to_vec() }));
    }
    let message = PipeMessage::read(&header, body).map_err(|error| nonsense(error.to_string()))?;
    PipeEvent::take(message, socket).map(|event| Some(LineEvent::Pipe(event))).map_err(nonsense)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mutirao_ring::{Spinner, Wake, wait};
    use std::os::unix::net::UnixStream;

    fn pair() -> (Line, Line) {
        let (a, b) = UnixStream::pair().unwrap();
        (Line::over(a.into()), Line::over(b.into()))
    }

    #[test]
    fn what_is_passed_on_arrives_in_order_with_its_descriptors() {
        let (here, there) = pair();
        assert!(there.next(Some(Duration::ZERO)).unwrap().is_none());
        let (mine, theirs) = UnixStream::pair().unwrap();
        here.pass_on(LineEvent::Message { kind: 0x7f01, body: vec![1, 2] }).unwrap();
        let way = Way::Socket { fd: theirs.into(), trusted: true };
        here.pass_on(LineEvent::Pipe(PipeEvent::Opened { number: 7, way })).unwrap();
        here.pass_on(LineEvent::Pipe(PipeEvent::Broken { number: 7 })).unwrap();
        here.pass_on(LineEvent::Pipe(PipeEvent::Failed { number: 7, text: "no".into() })).unwrap();
        let next = || there.next(None).unwrap().unwrap();
        assert!(matches!(next(), LineEvent::Message { kind: 0x7f01, body } if body == [1, 2]));
        let LineEvent::Pipe(PipeEvent::Opened { number: 7, way: Way::Socket { fd, trusted: true } }) = next()
        else {
            panic!("a socket was passed on")
        };
        use std::io::{Read, Write};
        (&mine).write_all(b"hello").unwrap();
        let mut bytes = [0; 5];
        UnixStream::from(fd).read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"hello");
        assert!(matches!(next(), LineEvent::Pipe(PipeEvent::Broken { number: 7 })));
        assert!(matches!(next(), LineEvent::Pipe(PipeEvent::Failed { number: 7, text }) if text == "no"));
        drop(here);
        assert!(matches!(there.next(None), Err(Error::Closed)));
    }

    #[test]
    fn a_terminal_comes_when_it_was_asked_for_or_the_reason_why_not() {
        let (node, worker) = pair();
        worker.ask_terminal().unwrap();
        let asked = node.next(None).unwrap().unwrap();
        assert!(
            matches!(asked, LineEvent::Message { kind, body } if kind == Kind::NeedTerminal as u16 && body.is_empty())
        );
        node.pass_on(LineEvent::Terminal(Err("none".into()))).unwrap();
        let (driver, user) = UnixStream::pair().unwrap();
        let terminal = Terminal { driver: driver.into(), user: user.into() };
        node.pass_on(LineEvent::Terminal(Ok(terminal))).unwrap();
        let next = || worker.next(None).unwrap().unwrap();
        assert!(matches!(next(), LineEvent::Terminal(Err(why)) if why == "none"));
        assert!(matches!(next(), LineEvent::Terminal(Ok(_))));
    }

    #[test]
    fn a_ring_that_is_passed_on_joins_two_ends_and_tells_that_one_is_gone() {
        let memory = mutirao_ring::RingMemory::create(64 * 1024).unwrap();
        let ((bell_a, ringer_b), (bell_b, ringer_a)) = (Bell::pair().unwrap(), Bell::pair().unwrap());
        let copy = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().unwrap();
        let ring = |bell: &Bell, ringer: &Ringer, far: &Bell, side| RingWay {
            memory: copy(memory.as_fd()),
            bell: copy(bell.as_fd()),
            ringer: copy(ringer.fds().0),
            keeper: copy(far.as_fd()),
            side,
        };
        let a = ring(&bell_a, &ringer_a, &bell_b, RingSide::Caller);
        let b = ring(&bell_b, &ringer_b, &bell_a, RingSide::Worker);
        drop((bell_a, bell_b, ringer_a, ringer_b));
        let (here, there) = pair();
        here.pass_on(LineEvent::Pipe(PipeEvent::Opened { number: 1, way: Way::Ring(b) })).unwrap();
        let Some(LineEvent::Pipe(PipeEvent::Opened { way: Way::Ring(b), .. })) = there.next(None).unwrap()
        else {
            panic!("a ring was passed on")
        };
        let (mut a, mut b) = (a.map().unwrap(), b.map().unwrap());
        for (from, to) in [(0, 1), (1, 0)] {
            let ends = [&mut a, &mut b];
            let [one, other] = ends;
            let (from, to) = if from < to { (one, other) } else { (other, one) };
            from.writer.write(b"over").unwrap();
            from.writer.flush().unwrap();
            let mut bytes = [0; 8];
            assert_eq!(to.reader.read(&mut bytes).unwrap(), 4);
            assert_eq!(&bytes[..4], b"over");
        }
        drop(b);
        let wake = wait(&mut a.reader, &mut Spinner::asleep(), &a.bell, &[], None).unwrap();
        assert_eq!(wake, Wake::Gone);
        a.writer.write(b"nobody").unwrap();
        a.writer.flush().unwrap();
    }
}
