//! A process's place in its group, and its channels as bytes.

use super::Error;
use super::ends::Ends;
use super::line::Line;
use super::port::{InPort, OutPort};
use super::recorder::Recorder;
use super::replay::Replay;
use super::shared::Shared;
use mutirao_group::plan::{
    GROUP_ENV, Mode, Peer, PortPlan, ProcessPlan, RECORD_ENV, REPLAY_ENV, SPIN_ENV, Shape,
};
use mutirao_ring::{Seat, SpinBoard};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The group this process belongs to, and its place in it.
///
/// ```no_run
/// # fn main() -> Result<(), mutirao::group::Error> {
/// use mutirao::group::Group;
///
/// let group = Group::open()?;
/// let tasks = group.receiver::<u64>(0)?;
/// let results = group.sender::<u64>(0)?;
/// while let Ok(task) = tasks.receive() {
///     results.post(&(task * task))?;
/// }
/// group.close()
/// # }
/// ```
///
/// It can be used by many threads at once; calls on one channel wait for each other. Messages that are stored leave
/// while the program does something else: a thread of the library sees to that, where it is needed.
#[derive(Debug, Clone)]
pub struct Group {
    pub(super) ends: Ends,
    pub(super) plan: Arc<ProcessPlan>,
}

/// An output channel, as bytes.
#[derive(Debug, Clone)]
pub struct Output {
    ends: Ends,
    index: usize,
    name: String,
}

/// An input channel, as bytes.
#[derive(Debug, Clone)]
pub struct Input {
    ends: Ends,
    pub(super) index: usize,
    name: String,
}

static IS_OPEN: AtomicBool = AtomicBool::new(false);

impl Group {
    /// Takes this process's place in its group. Once in a process, which `mutirao group run` has started.
    pub fn open() -> Result<Group, Error> {
        let replay = std::env::var_os(REPLAY_ENV);
        let value = match &replay {
            Some(_) => String::new(),
            None => std::env::var(GROUP_ENV).map_err(|_| Error::NoGroup)?,
        };
        if IS_OPEN.swap(true, Ordering::Relaxed) {
            return Err(Error::OpenedTwice);
        }
        if let Some(record) = replay {
            let (replay, plan) = Replay::open(record.as_ref())?;
            return Ok(Group { ends: Ends::Replayed(Arc::new(replay)), plan: Arc::new(plan) });
        }
        let fd = value.parse().ok().and_then(|fd| crate::sys::inherited(fd).ok());
        let wrong = || Error::Protocol(format!("{GROUP_ENV} is {value:?}, which is no open descriptor"));
        Group::join_seated(fd.ok_or_else(wrong)?, given_seat())
    }

    /// The same over a socket that is there already, beside processes that are not known to spin. For tests and
    /// benchmarks.
    #[doc(hidden)]
    pub fn join(fd: OwnedFd) -> Result<Group, Error> {
        let cores = std::thread::available_parallelism().map_or(1, Into::into);
        Group::join_seated(fd, SpinBoard::create(cores).ok().and_then(|board| Arc::new(board).seat(0)))
    }

    /// Without a seat it never spins.
    fn join_seated(fd: OwnedFd, seat: Option<Seat>) -> Result<Group, Error> {
        let (line, plan) = Line::begin(fd)?;
        let outputs = plan.outputs.iter().enumerate();
        let mut outs: Vec<OutPort> = outputs
            .map(|(number, port)| {
                OutPort::new(&plan, named(&plan, "output", number), port, plan.stored_bytes_max)
            })
            .collect();
        let inputs = plan.inputs.iter().enumerate();
        let mut ins: Vec<InPort> =
            inputs.map(|(number, port)| InPort::new(&plan, named(&plan, "input", number), port)).collect();
        for (power, step) in plan.collectives.iter().enumerate() {
            let port = |edge: mutirao_group::plan::Edge| PortPlan {
                mode: Some(Mode::Async),
                one: true,
                shape: Shape::OneToOne,
                peers: vec![Peer {
                    pipe: edge.pipe,
                    program: "rank".into(),
                    instance: edge.rank,
                    port: 0,
                    rank: edge.rank,
                }],
            };
            let name = |direction, channels: usize| named(&plan, direction, channels + power);
            outs.push(OutPort::new(&plan, name("output", plan.outputs.len()), &port(step.to), u64::MAX));
            ins.push(InPort::new(&plan, name("input", plan.inputs.len()), &port(step.from)));
        }
        let shared = Shared::new(plan.name.clone(), line, outs, ins, seat)?;
        let recorder = plan.record.and_then(|depth| Some(Recorder::new(given_record()?, depth)));
        Ok(Group { ends: Ends::Live { shared, recorder: recorder.map(Arc::new) }, plan: Arc::new(plan) })
    }

    /// The group's name.
    pub fn name(&self) -> &str {
        &self.plan.name
    }

    /// The program this process is an instance of.
    pub fn program(&self) -> &str {
        &self.plan.program
    }

    /// Which instance of it.
    pub fn instance(&self) -> u32 {
        self.plan.instance
    }

    /// Its number among all processes of the group.
    pub fn rank(&self) -> u32 {
        self.plan.rank
    }

    /// Processes of the group.
    pub fn size(&self) -> u32 {
        self.plan.size
    }

    /// How many input channels this process has.
    pub fn inputs(&self) -> usize {
        self.plan.inputs.len()
    }

    /// How many output channels this process has.
    pub fn outputs(&self) -> usize {
        self.plan.outputs.len()
    }

    /// An output channel, by its number in the application file.
    pub fn output(&self, number: u32) -> Result<Output, Error> {
        self.check("output", number, self.plan.outputs.len())?;
        Ok(self.output_at(number as usize))
    }

    /// An input channel, by its number in the application file.
    pub fn input(&self, number: u32) -> Result<Input, Error> {
        self.check("input", number, self.plan.inputs.len())?;
        Ok(self.input_at(number as usize))
    }

    pub(super) fn output_at(&self, index: usize) -> Output {
        Output { ends: self.ends.clone(), index, name: named(&self.plan, "output", index) }
    }

    pub(super) fn input_at(&self, index: usize) -> Input {
        Input { ends: self.ends.clone(), index, name: named(&self.plan, "input", index) }
    }

    fn check(&self, direction: &'static str, number: u32, count: usize) -> Result<(), Error> {
        if (number as usize) < count {
            return Ok(());
        }
        let process = self.plan.process();
        Err(Error::NoChannel { process, direction, number, count })
    }

    /// Waits until one of several input channels has a message, at most for `timeout`; its place among them. Where
    /// a channel has several receivers, a message that was asked for meanwhile is this process's.
    pub fn select(&self, inputs: &[&Input], timeout: Option<Duration>) -> Result<Option<usize>, Error> {
        let indexes: Vec<usize> = inputs.iter().map(|input| input.index).collect();
        self.ends.select(&indexes, timeout)
    }

    /// For event loops: a descriptor that is readable when a channel that was [armed](Self::arm) may have something.
    /// It lives as long as the group; nobody is to read from it or close it.
    pub fn event_fd(&self) -> Result<Arc<OwnedFd>, Error> {
        self.ends.event_fd()
    }

    /// Before waiting for [`event_fd`](Self::event_fd), each time: asks that it become readable once one of these
    /// inputs has a message or an error to tell. True if one has already: then look, and do not wait. Leave out those
    /// that have ended; channels that other threads use at this moment are left to them. Where a channel has several
    /// receivers, a message that was asked for so is this process's.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), mutirao::group::Error> {
    /// # let group = mutirao::group::Group::open()?;
    /// # fn wait_for(_: &std::os::fd::OwnedFd) {}
    /// # fn handle(_: Vec<u8>) {}
    /// let (events, input) = (group.event_fd()?, group.input(0)?);
    /// loop {
    ///     while let Some(message) = input.try_receive()? {
    ///         handle(message);
    ///     }
    ///     if !group.arm(&[&input])? {
    ///         wait_for(&events); // and for whatever else the program waits for
    ///     }
    /// }
    /// # }
    /// ```
    pub fn arm(&self, inputs: &[&Input]) -> Result<bool, Error> {
        let indexes: Vec<usize> = inputs.iter().map(|input| input.index).collect();
        self.ends.arm(&indexes)
    }

    /// Leaves the group: waits until all that is stored was received, then tells the other ends that no more comes.
    /// After an error messages may be lost. Whoever does not call it may lose what was stored last.
    pub fn close(self) -> Result<(), Error> {
        self.ends.close()
    }
}

/// A channel, for people. Those of the collectives are numbered after the others.
fn named(plan: &ProcessPlan, direction: &str, index: usize) -> String {
    let process = plan.process();
    let count = if direction == "output" { plan.outputs.len() } else { plan.inputs.len() };
    match index.checked_sub(count) {
        None => format!("{direction} channel {index} of {process}"),
        Some(power) => format!("the collectives of {process}, step {power}"),
    }
}

/// Where the record of this process goes, if somebody takes it.
fn given_record() -> Option<OwnedFd> {
    crate::sys::inherited(std::env::var(RECORD_ENV).ok()?.parse().ok()?).ok()
}

/// The seat on the machine's spin board that whoever started this process has given it.
fn given_seat() -> Option<Seat> {
    let value = std::env::var(SPIN_ENV).ok()?;
    let (board, number) = value.split_once(':')?;
    let board = crate::sys::inherited(board.parse().ok()?).ok()?;
    Arc::new(SpinBoard::map(board).ok()?).seat(number.parse().ok()?)
}

impl Output {
    /// Sends a message and waits until it is received.
    pub fn send(&self, message: &[u8]) -> Result<(), Error> {
        self.ends.send(self.index, &self.name, message, None).map(drop)
    }

    /// The same, but at most for `timeout`. After [`Error::TimedOut`] the message is on its way all the same and
    /// will be received in its turn.
    pub fn send_timeout(&self, message: &[u8], timeout: Duration) -> Result<(), Error> {
        self.in_time(self.ends.send(self.index, &self.name, message, Some(timeout))?)
    }

    /// Stores a message until it is received, and returns. Waits only when as much is stored as may be.
    pub fn post(&self, message: impl Into<Vec<u8>>) -> Result<(), Error> {
        self.ends.post(self.index, &self.name, &mut message.into(), None).map(drop)
    }

    /// The same without waiting: [`Error::Full`] when as much is stored as may be.
    pub fn try_post(&self, message: impl Into<Vec<u8>>) -> Result<(), Error> {
        if self.ends.post(self.index, &self.name, &mut message.into(), Some(Duration::ZERO))? {
            return Ok(());
        }
        let (messages, bytes) = self.stored();
        Err(Error::Full { channel: self.name.clone(), messages, bytes })
    }

    /// The same, waiting for room at most for `timeout`. After [`Error::TimedOut`] nothing was stored.
    pub fn post_timeout(&self, message: impl Into<Vec<u8>>, timeout: Duration) -> Result<(), Error> {
        self.post_from(&mut message.into(), Some(timeout))
    }

    /// The same for a message that is still wanted if it cannot be stored: after an error it is as it was, otherwise
    /// an empty one is left. Waits without limit if there is no `timeout`.
    pub fn post_from(&self, message: &mut Vec<u8>, timeout: Option<Duration>) -> Result<(), Error> {
        self.in_time(self.ends.post(self.index, &self.name, message, timeout)?)
    }

    /// An empty message with room for so many bytes: that of one which was received, if there is such a one, for new
    /// memory takes the system's time. For messages that are stored and large.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), mutirao::group::Error> {
    /// # let group = mutirao::group::Group::open()?;
    /// # let picture = [0; 1 << 20];
    /// let output = group.output(0)?;
    /// let mut message = output.buffer(picture.len());
    /// message.extend_from_slice(&picture);
    /// output.post(message)
    /// # }
    /// ```
    pub fn buffer(&self, length: usize) -> Vec<u8> {
        self.ends.buffer(self.index, length)
    }

    /// Messages that were sent and not received as far as is known here, and what storing them takes, bytes.
    pub fn stored(&self) -> (usize, u64) {
        self.ends.stored(self.index, &self.name)
    }

    fn in_time(&self, is_done: bool) -> Result<(), Error> {
        if is_done { Ok(()) } else { Err(Error::TimedOut { channel: self.name.clone() }) }
    }
}

impl Input {
    /// Receives the next message, waiting for it. [`Error::Ended`] when none can come any more.
    pub fn receive(&self) -> Result<Vec<u8>, Error> {
        let received = self.ends.receive(self.index, &self.name, None, None)?;
        received.ok_or_else(|| self.timed_out())
    }

    /// The same, waiting at most for `timeout`.
    pub fn receive_timeout(&self, timeout: Duration) -> Result<Vec<u8>, Error> {
        let received = self.ends.receive(self.index, &self.name, None, Some(timeout))?;
        received.ok_or_else(|| self.timed_out())
    }

    /// The next message, if one is there.
    pub fn try_receive(&self) -> Result<Option<Vec<u8>>, Error> {
        self.ends.receive(self.index, &self.name, None, Some(Duration::ZERO))
    }

    /// Receives the next message into `room`; its length. [`Error::TooLong`] if it does not fit: then it stays.
    /// A message is copied once at most on this side.
    pub fn receive_into(&self, room: &mut [u8]) -> Result<usize, Error> {
        let received = self.ends.receive_into(self.index, &self.name, None, room, None)?;
        received.ok_or_else(|| self.timed_out())
    }

    /// For bindings to other languages: in this mode only, `None` if there is nothing in time, into `room` if that
    /// is given.
    #[doc(hidden)]
    pub fn receive_as(
        &self,
        mode: Option<Mode>,
        timeout: Option<Duration>,
    ) -> Result<Option<Vec<u8>>, Error> {
        self.ends.receive(self.index, &self.name, mode, timeout)
    }

    /// See [`receive_as`](Self::receive_as).
    #[doc(hidden)]
    pub fn receive_into_as(
        &self,
        room: &mut [u8],
        mode: Option<Mode>,
        timeout: Option<Duration>,
    ) -> Result<Option<usize>, Error> {
        self.ends.receive_into(self.index, &self.name, mode, room, timeout)
    }

    fn timed_out(&self) -> Error {
        Error::TimedOut { channel: self.name.clone() }
    }
}
