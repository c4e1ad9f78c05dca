//! Work that may block, on helper threads that exist only while there is some.

use crate::{lender, plugins};
use mio::Waker;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Threads at most.
const THREADS_MAX: usize = 4;
/// A thread without work for this long ends.
const LINGER: Duration = Duration::from_secs(5);

/// What a job brings back to the loop.
#[allow(clippy::large_enum_variant)] // short-lived, and few at a time
pub enum Done {
    /// For the lender.
    Lender(lender::Done),
    /// For the plugins.
    Plugins(plugins::Done),
    /// For the daemon: a version of the charter was written, or why not.
    CharterKept(Result<(), String>),
    /// For the daemon: the process of a member of a bag has ended with this exit code, if it has one, or could not be
    /// started.
    MemberEnded {
        /// Which bag.
        bag: mutirao_wire::BagId,
        /// How.
        how: io::Result<Option<i32>>,
    },
    /// For the daemon: what workers use.
    Measured(lender::usage::Uses),
    /// For the daemon: the process that answered a visit has ended.
    VisitEnded {
        /// Which visit.
        visit: mutirao_wire::VisitId,
    },
    /// For the daemon: what was kept of a bag is removed, or why not.
    BagRemoved(Result<(), String>),
    /// For the daemon: a place to join was looked up.
    Resolved {
        /// The place.
        place: String,
        /// Its addresses, or why there are none.
        addresses: io::Result<Vec<SocketAddr>>,
    },
}

type Job = Box<dyn FnOnce() -> Done + Send>;

struct Queue {
    waiting: VecDeque<Job>,
    threads: usize,
    idle: usize,
}

struct Shared {
    queue: Mutex<Queue>,
    more: Condvar,
    waker: Arc<Waker>,
}

/// The helper threads.
pub struct Jobs {
    shared: Arc<Shared>,
    results: Receiver<Done>,
    sender: Sender<Done>,
}

impl Jobs {
    pub(crate) fn new(waker: Arc<Waker>) -> Jobs {
        let (sender, results) = channel();
        let queue = Queue { waiting: VecDeque::new(), threads: 0, idle: 0 };
        Jobs {
            shared: Arc::new(Shared { queue: Mutex::new(queue), more: Condvar::new(), waker }),
            results,
            sender,
        }
    }

    /// Runs `job` on a helper thread; what it returns reaches the loop in a later turn. A job that
    /// panics brings nothing back.
    pub fn run(&self, job: impl FnOnce() -> Done + Send + 'static) {
        let mut queue = self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.waiting.push_back(Box::new(job));
        if queue.idle > 0 || queue.threads >= THREADS_MAX {
            self.shared.more.notify_one();
            return;
        }
        let (shared, sender) = (self.shared.clone(), self.sender.clone());
        let spawned = std::thread::Builder::new()
            .name("mutirao-job".into())
            .stack_size(512 * 1024)
            .spawn(move || work(&shared, &sender));
        match spawned {
            Ok(_) => queue.threads += 1,
            Err(error) => tracing::error!("no helper thread can be started ({error}); its work waits"),
        }
    }

    /// Runs a job that may take as long as it likes, on a thread of its own.
    pub fn run_alone(&self, name: &str, job: impl FnOnce() -> Done + Send + 'static) {
        let (waker, sender) = (self.shared.waker.clone(), self.sender.clone());
        let run = move || {
            if sender.send(job()).is_ok()
                && let Err(error) = waker.wake()
            {
                tracing::error!("the loop cannot be woken: {error}");
            }
        };
        let spawned = std::thread::Builder::new().name(name.into()).stack_size(256 * 1024).spawn(run);
        if let Err(error) = spawned {
            tracing::error!("no thread can be started for {name}: {error}");
        }
    }

    pub(crate) fn next_done(&self) -> Option<Done> {
        self.results.try_recv().ok()
    }
}

fn work(shared: &Shared, sender: &Sender<Done>) {
    let mut queue = shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        if let Some(job) = queue.waiting.pop_front() {
            drop(queue);
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
            if let Ok(done) = done
                && sender.send(done).is_ok()
                && let Err(error) = shared.waker.wake()
            {
                tracing::error!("the loop cannot be woken: {error}");
            }
            queue = shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
            continue;
        }
        queue.idle += 1;
        let (guard, waited) = shared.more.wait_timeout(queue, LINGER).unwrap_or_else(PoisonError::into_inner);
        queue = guard;
        queue.idle -= 1;
        if waited.timed_out() && queue.waiting.is_empty() {
            queue.threads -= 1;
            return;
        }
    }
}
