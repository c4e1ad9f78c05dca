//! A template: the process of a plugin that forks the workers of one application.

use super::process::Process;
use super::starter::Started;
use super::tail::Tail;
use crate::plugins::Program;
use mutirao_wire::frame::{Decoder, FrameError};
use mutirao_wire::limits::{CONTROL_BODY_MAX, PROTOCOL};
use mutirao_wire::worker::{WorkerHello, WorkerMessage};
use mutirao_wire::{AppId, PluginId, Tick};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use std::collections::VecDeque;
use std::io::{IoSlice, PipeReader};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Child;

/// Descriptors beside one message.
const FDS_MAX: usize = 6;

/// What templates are shared by: leases that differ in any of it have different ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    /// The plugin.
    pub plugin: PluginId,
    /// The application: workers of two never come from one process.
    pub app: AppId,
    /// The memory limit, MiB; 0 for none.
    pub memory_mib: u32,
    /// Whether they act as the node's own user, and are not confined.
    pub as_user: bool,
}

/// How far a template is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Its process is being started.
    Starting,
    /// Its process runs and has not said anything, since then.
    Silent(Tick),
    /// It forks workers.
    Up,
    /// Its process is being ended.
    Ending,
}

/// A template.
#[derive(Debug)]
pub struct Template {
    /// Whose.
    pub key: Key,
    /// What it executes.
    pub program: Program,
    /// Where its workers have their directories.
    pub directory: PathBuf,
    /// How far it is.
    pub stage: Stage,
    /// What it wrote to its standard error before any worker was forked.
    pub tail: Tail,
    /// Since when no lease needs it.
    pub idle_since: Option<Tick>,
    /// Its process, once started.
    pub running: Option<Running>,
}

/// The process of a template.
#[derive(Debug)]
pub struct Running {
    child: Child,
    /// To be watched and ended.
    pub process: Process,
    /// Its standard error.
    pub stderr: PipeReader,
    channel: UnixStream,
    decoder: Decoder,
    unsent: VecDeque<Unsent>,
}

#[derive(Debug)]
struct Unsent {
    bytes: Vec<u8>,
    fds: Vec<OwnedFd>,
}

/// Why a template cannot be talked to any more.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// It closed its end.
    #[error("it closed its connection to the node")]
    Closed,
    /// It said something else than it may.
    #[error("it broke the protocol: {0}")]
    Frame(#[from] FrameError),
    /// The system refused.
    #[error("its connection failed: {0}")]
    System(#[from] Errno),
}

impl From<Started> for Running {
    fn from(started: Started) -> Running {
        Running {
            child: started.child,
            process: started.process,
            stderr: started.stderr,
            channel: started.channel,
            decoder: Decoder::new(CONTROL_BODY_MAX),
            unsent: VecDeque::new(),
        }
    }
}

impl Running {
    /// The connection to it.
    pub fn channel(&self) -> &UnixStream {
        &self.channel
    }

    /// Sends a message with descriptors, now or when the connection takes it.
    pub fn send(&mut self, message: &WorkerMessage, fds: Vec<OwnedFd>) -> Result<(), ChannelError> {
        debug_assert!(fds.len() <= FDS_MAX);
        let mut bytes = Vec::new();
        message.put(&mut bytes);
        self.unsent.push_back(Unsent { bytes, fds });
        self.flush()
    }

    /// Sends what could not be sent before.
    pub fn flush(&mut self) -> Result<(), ChannelError> {
        while let Some(next) = self.unsent.front_mut() {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            let fds: Vec<_> = next.fds.iter().map(AsFd::as_fd).collect();
            if !fds.is_empty() {
                ancillary.push(SendAncillaryMessage::ScmRights(&fds));
            }
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            match rustix::net::sendmsg(&self.channel, &[IoSlice::new(&next.bytes)], &mut ancillary, flags) {
                Ok(sent) if sent >= next.bytes.len() => drop(self.unsent.pop_front()),
                // The descriptors went with the first byte.
                Ok(sent) => {
                    next.bytes.drain(..sent);
                    next.fds.clear();
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// Takes in what it has said. Messages that were whole before an error come first.
    pub fn receive(&mut self, messages: &mut Vec<WorkerMessage>) -> Result<(), ChannelError> {
        loop {
            let mut bytes = [0; 4096];
            let came = match rustix::net::recv(&self.channel, &mut bytes[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => return Err(ChannelError::Closed),
                Ok((_, came)) => came,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return Ok(()),
                Err(errno) => return Err(errno.into()),
            };
            self.decoder.push(&bytes[..came]);
            while let Some((header, body)) = self.decoder.next_frame()? {
                messages.push(WorkerMessage::read(&header, body)?);
            }
        }
    }

    /// How it ended, as `waitpid` gives it, if it has.
    pub fn wait(&mut self) -> Option<i32> {
        use std::os::unix::process::ExitStatusExt;
        self.child.try_wait().ok().flatten().map(|status| status.into_raw())
    }
}

impl Template {
    /// Whether what it says of itself is what its manifest says.
    pub fn check(&self, hello: &WorkerHello) -> Result<(), String> {
        let name = &self.program.manifest.name;
        if hello.protocol.0 > PROTOCOL.1 || hello.protocol.1 < PROTOCOL.0 {
            return Err(format!(
                "`{name}` is linked with a library that speaks worker protocol {}-{}, this node speaks {}-{}; build it \
                 with a matching library",
                hello.protocol.0, hello.protocol.1, PROTOCOL.0, PROTOCOL.1
            ));
        }
        let declared = self.program.manifest.operations.iter().map(|operation| &operation.name);
        if !declared.eq(hello.operations.iter()) {
            return Err(format!(
                "`{name}` registers other operations as a worker than it offered: operations must not depend on \
                 arguments or environment"
            ));
        }
        Ok(())
    }

    /// What to tell of one that ended before it said anything.
    pub fn silent_end(&self, how: &str) -> String {
        let name = &self.program.manifest.name;
        let last = self.tail.last(8);
        let wrote = if last.is_empty() { String::new() } else { format!("; it wrote last:\n{last}") };
        format!("`{name}` {how} before it was a worker; call mutirao_init first in its main{wrote}")
    }
}
