//! Starts processes, on a thread that lives as long as the node.
//!
//! The kernel ends a worker together with the *thread* that started it, so the helper threads, which
//! end when there is nothing to do, cannot start any.

use super::process::Process;
use mutirao_confine::Plan;
use rustix::event::{EventfdFlags, eventfd};
use std::fs::DirBuilder;
use std::io::{self, PipeReader};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

/// A program that confines itself as its plan says: this very binary, unless told otherwise.
#[derive(Debug, Clone)]
pub struct Host {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
}

impl Default for Host {
    fn default() -> Host {
        Host { program: "/proc/self/exe".into(), arguments: vec!["worker".into()] }
    }
}

/// A process that was started.
#[derive(Debug)]
pub struct Started {
    /// To be waited for.
    pub child: Child,
    /// The same, to be watched.
    pub process: Process,
    /// What the plugin finds as its descriptor 3.
    pub channel: UnixStream,
    /// Its standard error.
    pub stderr: PipeReader,
}

/// Starts processes.
#[derive(Debug)]
pub struct Starter {
    orders: Sender<Order>,
    results: Receiver<Outcome>,
    done: Arc<OwnedFd>,
    host: Host,
    /// Until the first order.
    thread_ends: Option<(Receiver<Order>, Sender<Outcome>)>,
}

/// Numbers are the orderer's own.
type Order = (u64, Plan);
type Outcome = (u64, io::Result<Started>);

impl Starter {
    /// Makes ready; the thread is there from the first order on.
    pub fn new(host: Host) -> io::Result<Starter> {
        let (orders, waiting) = channel();
        let (sender, results) = channel();
        let done = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        Ok(Starter { orders, results, done, host, thread_ends: Some((waiting, sender)) })
    }

    /// Readable when something was started, or could not be.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.done.as_fd()
    }

    /// Starts a process; `number` comes back with the result.
    pub fn start(&mut self, number: u64, plan: Plan) -> io::Result<()> {
        if let Some((waiting, sender)) = self.thread_ends.take() {
            let (host, done) = (self.host.clone(), self.done.clone());
            let builder = std::thread::Builder::new().name("mutirao-start".into()).stack_size(256 * 1024);
            builder.spawn(move || {
                for (number, plan) in waiting {
                    if sender.send((number, start(&host, &plan))).is_err() {
                        return;
                    }
                    // Fails only when the counter is about to overflow; it is readable then anyway.
                    let _ = rustix::io::write(&*done, &1u64.to_ne_bytes());
                }
            })?;
        }
        let gone = |_| io::Error::other("the thread that starts processes is gone");
        self.orders.send((number, plan)).map_err(gone)
    }

    /// What came of the next order.
    pub fn next(&self) -> Option<(u64, io::Result<Started>)> {
        let _ = rustix::io::read(&*self.done, &mut [0; 8]);
        self.results.try_recv().ok()
    }
}

fn start(host: &Host, plan: &Plan) -> io::Result<Started> {
    DirBuilder::new().recursive(true).mode(0o700).create(&plan.work_dir)?;
    let (mut channel, its) = UnixStream::pair()?;
    let (stderr, its_stderr) = io::pipe()?;
    let mut command = Command::new(&host.program);
    command.args(&host.arguments).env_clear();
    command.stdin(OwnedFd::from(its)).stdout(Stdio::null()).stderr(its_stderr);
    let mut child = command.spawn()?;
    drop(command);
    let mut ready = || -> io::Result<Process> {
        plan.send(&mut channel).map_err(io::Error::other)?;
        channel.set_nonblocking(true)?;
        rustix::io::ioctl_fionbio(&stderr, true)?;
        Process::open(child.id()).ok_or_else(|| io::Error::other("it ended at once"))
    };
    match ready() {
        Ok(process) => Ok(Started { child, process, channel, stderr }),
        Err(error) => {
            let _ = child.kill();
            let _ = child.wait();
            Err(error)
        }
    }
}
