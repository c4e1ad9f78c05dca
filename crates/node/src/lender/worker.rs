//! A worker: the process that serves one lease, and its ring.

use super::process::Process;
use super::tail::Tail;
use mutirao_ring::{
    Bell, CAPACITY_DEFAULT, CallerEnd, Error as RingError, ProgressReport, RingMemory, Ringer,
};
use mutirao_wire::Tick;
use std::fs::DirBuilder;
use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// Bytes of a ring, each way, whose calls come from elsewhere: the node fills it in bunches, as they arrive, and the
/// worker is to have enough until the next.
const CAPACITY_REMOTE: usize = 2 * CAPACITY_DEFAULT;

/// A worker.
#[derive(Debug)]
pub struct Worker {
    /// The lease it serves.
    pub serial: u64,
    /// The template that forks it.
    pub template: u64,
    /// Its seat on the spin board.
    pub seat: u16,
    /// Its own directory.
    pub directory: PathBuf,
    /// Its standard error.
    pub stderr: PipeReader,
    /// What it wrote there.
    pub tail: Tail,
    /// How its caller reaches it.
    pub ring: Ring,
    /// How far it is.
    pub stage: Stage,
    /// Why the node ends it, when it does.
    pub ordered: Option<u32>,
    /// How it ended, once its template has said so.
    pub wait_status: Option<i32>,
    /// The line to it, until it is needed; see `mutirao_wire::worker::Fork`.
    pub line: Option<UnixStream>,
}

/// How far a worker is.
#[derive(Debug)]
pub enum Stage {
    /// Its template was asked to fork it, then.
    Forking(Tick),
    /// It runs.
    Running(Process),
    /// It has ended, then; how is not yet known.
    Ended {
        /// When that was seen.
        since: Tick,
        /// What its process group was.
        group: Option<u32>,
    },
}

/// How the caller of a worker reaches it.
#[derive(Debug)]
pub enum Ring {
    /// The caller is a program on this machine, to which these descriptors go once.
    Local {
        /// Memory, call bell, reply bell.
        descriptors: Option<Vec<OwnedFd>>,
        /// What the worker says it does.
        progress: ProgressReport,
    },
    /// The node itself is the caller, on behalf of a home elsewhere.
    Remote {
        /// This end of the ring.
        end: Box<CallerEnd>,
        /// Heard when the worker has something to say.
        bell: Bell,
    },
}

impl Ring {
    /// What the worker says it does.
    pub fn progress(&self) -> &ProgressReport {
        match self {
            Ring::Local { progress, .. } => progress,
            Ring::Remote { end, .. } => &end.progress,
        }
    }
}

/// Why a worker could not be equipped. Nothing is left behind but an empty directory.
#[derive(Debug, thiserror::Error)]
pub enum EquipError {
    /// The ring.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// A descriptor or the directory.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// All that a worker needs, before it is forked.
#[derive(Debug)]
pub struct Equipment {
    /// For the node.
    pub ring: Ring,
    /// For the node.
    pub stderr: PipeReader,
    /// For the node.
    pub line: UnixStream,
    /// For the worker, in the order of `mutirao_wire::worker::Fork`.
    pub descriptors: Vec<OwnedFd>,
}

impl Equipment {
    /// Makes ring, bells, pipes and directory: memory and names only, nothing that waits for a disk.
    /// `shared_bell` is the reply bell of the local program the worker is for; none for a remote one.
    pub fn make(
        directory: &Path,
        board: OwnedFd,
        shared_bell: Option<&(Bell, Ringer)>,
    ) -> Result<Equipment, EquipError> {
        DirBuilder::new().mode(0o700).create(directory)?;
        let capacity = if shared_bell.is_some() { CAPACITY_DEFAULT } else { CAPACITY_REMOTE };
        let memory = RingMemory::create(capacity)?;
        let (call_bell, call_ringer) = Bell::pair()?;
        let (stderr, its_stderr): (PipeReader, PipeWriter) = io::pipe()?;
        rustix::io::ioctl_fionbio(&stderr, true).map_err(io::Error::from)?;
        let (line, its_line) = UnixStream::pair()?;
        let (ring, reply_ring) = match shared_bell {
            Some((bell, ringer)) => {
                let for_program = vec![copy(&memory)?, copy(call_ringer.fds().0)?, copy(bell)?];
                let progress = CallerEnd::map(&memory, call_ringer)?.progress;
                (Ring::Local { descriptors: Some(for_program), progress }, copy(ringer.fds().0)?)
            }
            None => {
                let (bell, ringer) = Bell::pair()?;
                let reply_ring = copy(ringer.fds().0)?;
                (Ring::Remote { end: Box::new(CallerEnd::map(&memory, call_ringer)?), bell }, reply_ring)
            }
        };
        let descriptors = vec![
            memory.into_fd(),
            call_bell.into_fd(),
            reply_ring,
            board,
            its_stderr.into(),
            its_line.into(),
        ];
        Ok(Equipment { ring, stderr, line, descriptors })
    }
}

fn copy(fd: impl AsFd) -> io::Result<OwnedFd> {
    fd.as_fd().try_clone_to_owned()
}
