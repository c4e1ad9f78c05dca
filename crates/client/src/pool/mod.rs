//! The pool side: leases, calls and questions, as bytes.

mod admin;
mod blobs;
mod call;
mod control;
mod core;
mod drive;
mod elastic;
mod find;
mod group;
mod inbox;
mod lease;
mod link;
mod offer;
mod options;
mod pipes;
mod private;
mod resize;
mod succession;
mod tree;

pub(crate) use inbox::Inbox;

pub use blobs::OfferedBlob;
pub use call::{Call, CallError, CallErrorKind, CallOptions, CallResult, Deliver, Finished};
pub(crate) use offer::own_library;
pub use options::{
    Allocation, ForeignProgram, Lease, LeaseKey, LeaseState, Options, Private, Request, Slots, note_text,
};
pub use pipes::PipeEnd;
pub use succession::{Adopted, LEFT_MAX, Left, Succession};

pub(crate) use private::program as mutirao_program;

use self::core::{Core, Dead, Pending};
use self::drive::Shared;
use self::elastic::Elastic;
use self::find::{Found, Surroundings};
use self::link::Link;
use self::offer::Offer;
use self::private::PrivateNode;
use crate::socket::Socket;
use crate::{Error, operation, sys};
use mutirao_schedule::hold;
use mutirao_wire::limits::{CALL_BYTES_MAX, NAME_BYTES_MAX};
use mutirao_wire::local::{LocalMessage, Query};
use mutirao_wire::node::{Hindrance, NodeRef, Note};
use mutirao_wire::plugin::Operation;
use mutirao_wire::query::{NodeRow, Question, Row, Topic};
use mutirao_wire::{AppId, CallId, PoolId};
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

/// The node answers a greeting, which includes reading the program's files, in this time.
const GREETING: Duration = Duration::from_secs(10);
/// A search for slots ends long before.
const SEARCH: Duration = Duration::from_secs(10);

/// How often a request is repeated for what comes back to this machine's owner.
const COMES_BACK_MAX: usize = 3;

/// A pool that is open: a connection to this machine's node. Clones are the same pool; it closes with the
/// last of them and of its calls.
#[derive(Debug, Clone)]
pub struct Pool {
    handle: Arc<Handle>,
}

/// What came of a question to the pool.
#[derive(Debug, Clone, Default)]
pub struct Answers {
    /// The answers, one or more a node.
    pub rows: Vec<Row>,
    /// Nodes that did not answer in time.
    pub missing: u32,
}

/// How calls stand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Submitted so far.
    pub submitted: u64,
    /// Done so far, well or badly.
    pub done: u64,
}

/// What pools and calls hold on to; the pool closes with the last.
#[derive(Debug)]
pub(crate) struct Handle {
    shared: Arc<Shared>,
    /// What can be called, by index; `None` when the program has not said.
    operations: Option<Vec<Operation>>,
    next_question: AtomicU32,
    /// A private node, if one was started.
    private: Option<PrivateNode>,
}

impl Handle {
    fn wait_calls(&self, calls: &[CallId], deadline: Option<Instant>) {
        self.shared.wait_calls(calls, deadline);
    }

    fn take_result(&self, call: CallId) -> Option<(CallResult, Option<Arc<str>>)> {
        let mut core = self.shared.lock();
        core.is_done(call).then(|| core.take_result(call).unwrap_or_else(|| (Err(call::taken()), None)))
    }

    fn is_done(&self, call: CallId) -> bool {
        self.shared.lock().is_done(call)
    }

    fn cancel(&self, call: CallId) {
        let mut core = self.shared.lock();
        core.cancel(call);
        self.shared.submitted(&mut core, true);
        drop(self.shared.settle(core));
    }

    fn forget(&self, call: CallId) {
        self.shared.lock().forget(call);
    }

    fn poll_result(&self, call: CallId, waker: &Waker) -> Poll<CallResult> {
        self.shared.poll_result(call, waker).map(|result| result.unwrap_or_else(|| Err(call::taken())))
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.shared.is_copy() {
            return;
        }
        self.shared.close(Dead::Closed);
        // A private node ends when its client does; nobody needs to wait for that, but its end is to be collected.
        if let Some(PrivateNode { mut child, .. }) = self.private.take() {
            let thread = std::thread::Builder::new().name("mutirao-end".into());
            let _ = sys::without_signals(|| thread.spawn(move || child.wait()));
        }
    }
}

impl Pool {
    /// Connects to this machine's node, or starts a private one, and offers this program as a plugin.
    pub fn open(options: Options) -> Result<Pool, Error> {
        Pool::open_as(options, None, |_| {})
    }

    /// Connects; what `adopt` puts there the node hears of with the greeting.
    fn open_as(
        options: Options,
        succession: Option<Succession>,
        adopt: impl FnOnce(&mut Core),
    ) -> Result<Pool, Error> {
        let name = options.name.unwrap_or_else(program_name);
        let (program, operations) = match options.foreign {
            Some(foreign) => (Some(foreign.path), Some(foreign.operations)),
            None => (None, own_operations()),
        };
        let offer = match &operations {
            Some(some) if !some.is_empty() => {
                let program = program.as_deref();
                Some(Offer::new(&name, &options.version, program, &options.libraries, some.clone())?)
            }
            _ => None,
        };
        let mut around = Surroundings::of_process();
        around.socket = options.socket.or(around.socket);
        around.node = options.node.or(around.node);
        let found = if options.private == Private::Always { None } else { find::find(&around)? };
        let (fd, path, private) = match found {
            Some(Found { path, fd }) => (fd, Some(path), None),
            None if options.private != Private::Always && around.names_one() => {
                return Err(Error::NotRunning { looked: around.described() });
            }
            None if options.private == Private::Never => {
                return Err(Error::NoneRuns { looked: around.described() });
            }
            None => {
                let (fd, node) = private::start(&around.described(), options.private_slots)?;
                (fd, None, Some(node))
            }
        };
        let slots = options.slots.limited_by(|name| std::env::var(name).ok())?;
        let app = match &succession {
            Some(succession) => succession.app,
            None => random_app()?,
        };
        let mut link = Link::new(Socket::new(fd), path, app, name, offer, options.as_user);
        if let Some(Succession { epoch, homes, .. }) = succession {
            link = link.one_of(epoch, homes);
        }
        let mut core = Core::new(link, Elastic::new(slots), options.gather);
        adopt(&mut core);
        let leases = core.held();
        core.link.greet(leases)?;
        let shared = Shared::new(core)?;
        // From here on dropping the handle closes everything.
        let handle = Arc::new(Handle { shared, operations, next_question: AtomicU32::new(1), private });
        let answered = |core: &mut Core| {
            core.link.welcome.is_some() && (core.link.plugin.is_some() || !core.link.offers())
        };
        handle.shared.wait_control(Instant::now().checked_add(GREETING), answered);
        let mut core = handle.shared.lock();
        if let Some(dead) = &core.dead {
            return Err(match (&handle.private, dead) {
                (Some(PrivateNode { program, .. }), Dead::Lost { reason, .. } | Dead::Protocol(reason))
                    if core.link.welcome.is_none() =>
                {
                    Error::NoPrivateNode { program: program.clone(), reason: reason.clone() }
                }
                _ => dead.error(),
            });
        }
        if !answered(&mut core) {
            let waited_ms = GREETING.as_millis() as u64;
            return Err(Error::TimedOut { what: "the greeting of the node", waited_ms });
        }
        if let Some(Err(why)) = &core.link.plugin {
            return Err(Error::PluginRefused(why.clone()));
        }
        drop(core);
        Ok(Pool { handle })
    }

    /// Gives back every lease and disconnects. Calls under way end with [`CallErrorKind::PoolClosed`]. When this
    /// returns every callback has been called and has returned, except one that this is called from.
    pub fn close(&self) {
        self.handle.shared.close(Dead::Closed);
    }

    /// Asks for slots by hand, and waits for what the pool answers: about 2 s at most, unless the request
    /// [may wait](Request::wait). From now on the library asks for none by itself.
    ///
    /// Where this machine's node takes slots back for its owner, whose program this is, and there are too few
    /// without them, it is asked again when they have come.
    pub fn allocate(&self, request: &Request) -> Result<Allocation, Error> {
        for _ in 0..COMES_BACK_MAX {
            let result = self.allocate_once(request);
            match self.comes_back().filter(|_| matches!(result, Err(Error::NotEnough { .. }))) {
                Some(after) => std::thread::sleep(after),
                None => return result,
            }
        }
        self.allocate_once(request)
    }

    /// After how long this machine's node has slots that it takes back for this program, as said last.
    fn comes_back(&self) -> Option<Duration> {
        let core = self.handle.shared.lock();
        core.notes.iter().find_map(|note| match note.hindrance {
            Hindrance::ComesBack { after_ms } => Some(Duration::from_millis(after_ms.into())),
            _ => None,
        })
    }

    fn allocate_once(&self, request: &Request) -> Result<Allocation, Error> {
        let sequence = {
            let mut core = self.alive()?;
            core.elastic.by_hand();
            core.ask_for(request)
        };
        let answered = |core: &mut Core| core.requests.get(&sequence).is_none_or(|request| request.done);
        let patience = match request.wait {
            None => Some(SEARCH),
            Some(wait) => wait.patience_ms.map(|ms| SEARCH.saturating_add(Duration::from_millis(ms))),
        };
        let until = patience.and_then(|patience| Instant::now().checked_add(patience));
        self.handle.shared.wait_control(until, answered);
        let mut core = self.alive()?;
        let pending = core.requests.remove(&sequence).filter(|request| request.done);
        let Some(Pending { answer, .. }) = pending else {
            return Err(Error::TimedOut {
                what: "the search for slots",
                waited_ms: patience.unwrap_or_default().as_millis() as u64,
            });
        };
        if let Some(end) = answer.waited {
            return Err(Error::WaitedInVain(options::wait_end_text(&end)));
        }
        let granted = answer.leases.len() as u32;
        if granted < request.at_least {
            core.give_back(core::now(), &answer.leases);
            let notes: Vec<String> = answer.notes.iter().take(5).map(note_text).collect();
            drop(core);
            let needed = u64::from(request.at_least) * u64::from(request.bundle.slots);
            let in_all =
                || Some(self.nodes().ok()?.iter().map(|node| u64::from(node.slots_total)).sum::<u64>());
            let notes_text = match notes.is_empty().then(in_all).flatten() {
                _ if !notes.is_empty() => format!(": {}", notes.join("; ")),
                Some(all) if all < needed => {
                    format!("; the pool has {all} slots in all, and {needed} are needed: ask for fewer")
                }
                _ => "; no more are free: ask for fewer, or wait for them".to_owned(),
            };
            return Err(Error::NotEnough {
                granted: answer.found.max(granted),
                at_least: request.at_least,
                notes_text,
            });
        }
        Ok(Allocation {
            leases: answer.leases.iter().map(|handle| LeaseKey(handle.0)).collect(),
            notes: answer.notes,
            free_hint: answer.free_hint,
        })
    }

    /// Gives leases back. Calls on them that may be repeated or have not begun go elsewhere, the others end with
    /// [`CallErrorKind::OutcomeUnknown`]. Keys of leases that are no more are skipped.
    pub fn release(&self, leases: &[LeaseKey]) -> Result<(), Error> {
        let mut core = self.alive()?;
        let handles: Vec<_> = leases.iter().map(|lease| lease.handle()).collect();
        core.give_back(core::now(), &handles);
        core.send(core::now());
        self.handle.shared.submitted(&mut core, true);
        drop(self.handle.shared.settle(core));
        Ok(())
    }

    /// The leases held now.
    pub fn leases(&self) -> Vec<Lease> {
        let core = self.handle.shared.lock();
        let lease = |(handle, entry): (&mutirao_wire::Handle, &lease::LeaseEntry)| Lease {
            key: LeaseKey(handle.0),
            id: entry.info.lease,
            lender: entry.info.lender.clone(),
            slots: entry.info.slots,
            local: entry.info.local,
            arch: entry.info.arch,
            state: if entry.leaving { LeaseState::Leaving } else { entry.state },
            finished: entry.finished,
        };
        core.leases.iter().map(lease).collect()
    }

    /// Waits until more has happened to leases than when this last returned `seen` (0 at first: whatever has happened
    /// counts), or the time is up. A lease comes, its state is another, it ends: each is news. Meanwhile this thread does
    /// the pool's work.
    pub fn wait_leases(&self, seen: u64, timeout: Option<Duration>) -> Result<u64, Error> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        self.handle.shared.wait_control(deadline, |core| core.lease_news != seen);
        Ok(self.alive()?.lease_news)
    }

    /// What stood in the way of the last request elsewhere; see [`note_text`].
    pub fn notes(&self) -> Vec<Note> {
        self.handle.shared.lock().all_notes()
    }

    /// The nodes of the pool.
    pub fn nodes(&self) -> Result<Vec<NodeRow>, Error> {
        let answers = self.query(Topic::Nodes, None, Vec::new(), Duration::from_secs(5))?;
        let node = |row| if let Row::Node(node) = row { Some(node) } else { None };
        Ok(answers.rows.into_iter().filter_map(node).collect())
    }

    /// Asks every node, or the one whose name or id begins with `to`, about `topic`. `order` is a signed order
    /// where the topic needs a role, else empty.
    pub fn query(
        &self,
        topic: Topic,
        to: Option<String>,
        order: Vec<u8>,
        timeout: Duration,
    ) -> Result<Answers, Error> {
        let number = self.handle.next_question.fetch_add(1, Ordering::Relaxed);
        let question = Question { to, user: String::new(), order, topic };
        let message = LocalMessage::from(Query { number, question });
        {
            let mut core = self.alive()?;
            core.say(message.clone());
            core.questions.insert(number, Pending { answer: Answers::default(), done: false, message });
        }
        let answered = |core: &mut Core| core.questions.get(&number).is_none_or(|question| question.done);
        self.handle.shared.wait_control(Instant::now().checked_add(timeout), answered);
        match self.alive()?.questions.remove(&number) {
            Some(question) if question.done => Ok(question.answer),
            _ => {
                Err(Error::TimedOut { what: "the answer of the pool", waited_ms: timeout.as_millis() as u64 })
            }
        }
    }

    /// Submits a call of the operation with this index in the table given to [`init`](crate::raw::init), or in
    /// that of the [foreign program](Options::foreign).
    pub fn submit(&self, operation: u32, argument: Vec<u8>, options: CallOptions) -> Result<Call, Error> {
        let call = self.checked_call(operation, &argument, &options)?;
        let wants_helper = !matches!(options.deliver, Deliver::Handle);
        self.submit_call(call, argument, options, wants_helper)
    }

    fn submit_call(
        &self,
        call: hold::Call,
        argument: Vec<u8>,
        options: CallOptions,
        wants_helper: bool,
    ) -> Result<Call, Error> {
        let mut core = self.handle.shared.lock();
        let id = core.submit(call, argument, options.deliver, options.tag)?;
        self.handle.shared.submitted(&mut core, wants_helper);
        drop(core);
        Ok(Call { shared: self.handle.clone(), id })
    }

    /// Has calls sent that were submitted and may [wait](Options::gather) for others.
    pub fn flush(&self) {
        self.handle.shared.flush();
    }

    /// Submits a call whose caller is about to wait for `inbox`: the helper is left asleep.
    pub(crate) fn submit_to(
        &self,
        inbox: &Arc<Inbox>,
        operation: u32,
        argument: Vec<u8>,
        mut options: CallOptions,
    ) -> Result<Call, Error> {
        let inbox = inbox.clone();
        options.deliver = Deliver::Callback(Box::new(move |finished| inbox.put(finished)));
        let call = self.checked_call(operation, &argument, &options)?;
        self.submit_call(call, argument, options, false)
    }

    /// The next finished call of an inbox. There must be one under way.
    pub(crate) fn next_of(&self, inbox: &Inbox) -> Finished {
        loop {
            if let Some(finished) = inbox.take() {
                return finished;
            }
            self.handle.shared.wait_until(None, |_| inbox.has_some(), |_, waker| inbox.watch(waker));
        }
    }

    /// The index of an operation by its name.
    pub fn operation(&self, name: &str) -> Result<u32, Error> {
        let place = self.operations()?.iter().position(|operation| operation.name == name);
        place.map(|index| index as u32).ok_or_else(|| Error::UnknownOperation(name.to_owned()))
    }

    fn operations(&self) -> Result<&[Operation], Error> {
        self.handle.operations.as_deref().ok_or(Error::NotInitialised)
    }

    fn checked_call(
        &self,
        operation: u32,
        argument: &[u8],
        options: &CallOptions,
    ) -> Result<hold::Call, Error> {
        let Some(known) = self.operations()?.get(operation as usize) else {
            return Err(Error::UnknownOperation(format!("number {operation}")));
        };
        let bytes = match u32::try_from(argument.len()) {
            Ok(bytes) if u64::from(bytes) <= CALL_BYTES_MAX => bytes,
            _ => return Err(Error::ArgumentTooLarge { bytes: argument.len() as u64 }),
        };
        let limit_ms = options.limit.map_or(0, |limit| {
            u32::try_from(limit.as_nanos().div_ceil(1_000_000)).unwrap_or(u32::MAX).max(1)
        });
        let repeatable = options.repeatable || known.repeatable;
        let only = options.only.map(LeaseKey::handle);
        Ok(hold::Call { operation, bytes, repeatable, limit_ms, only })
    }

    /// Waits until one of the calls is done; its place in `calls`, or `None` when the time is up first (or
    /// `calls` is empty).
    pub fn wait_any(&self, calls: &[&Call], timeout: Option<Duration>) -> Option<usize> {
        let ids: Vec<CallId> = calls.iter().map(|call| call.id).collect();
        if ids.is_empty() {
            return None;
        }
        self.handle.wait_calls(&ids, timeout.and_then(|timeout| Instant::now().checked_add(timeout)));
        let core = self.handle.shared.lock();
        ids.iter().position(|call| core.is_done(*call))
    }

    /// Waits until all of the calls are done; whether they are when the time is up.
    pub fn wait_all(&self, calls: &[&Call], timeout: Option<Duration>) -> bool {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        calls.iter().all(|call| {
            self.handle.wait_calls(&[call.id], deadline);
            call.is_done()
        })
    }

    /// A descriptor that is readable while [`next_finished`](Self::next_finished) has something.
    /// Do not read from it; poll it.
    pub fn event_fd(&self) -> BorrowedFd<'_> {
        self.handle.shared.event()
    }

    /// The next finished call of those submitted with [`Deliver::Queue`]; `None` if there is none now.
    pub fn next_finished(&self) -> Option<Finished> {
        let mut core = self.handle.shared.lock();
        let next = core.queue.pop_front();
        if core.queue.is_empty() {
            drive::clear(self.handle.shared.event());
        }
        next
    }

    /// How calls stand.
    pub fn counts(&self) -> Counts {
        self.handle.shared.lock().counts
    }

    /// This machine's node.
    pub fn node(&self) -> NodeRef {
        self.welcome(|welcome| welcome.node.clone())
    }

    /// The pool's identity; `None` for a private node.
    pub fn id(&self) -> Option<PoolId> {
        self.welcome(|welcome| welcome.pool)
    }

    /// The user as the pool knows it.
    pub fn user(&self) -> String {
        self.welcome(|welcome| welcome.user.clone())
    }

    /// This application's identity.
    pub fn app(&self) -> AppId {
        self.handle.shared.lock().link.app
    }

    fn welcome<R>(&self, read: impl FnOnce(&mutirao_wire::local::ClientWelcome) -> R) -> R {
        let core = self.handle.shared.lock();
        read(core.link.welcome.as_ref().expect("`open` returns only after the welcome"))
    }

    fn alive(&self) -> Result<std::sync::MutexGuard<'_, Core>, Error> {
        let core = self.handle.shared.lock();
        match &core.dead {
            Some(dead) => Err(dead.error()),
            None => Ok(core),
        }
    }
}

/// The operations of this program; `None` before `init`.
fn own_operations() -> Option<Vec<Operation>> {
    let table = operation::table()?.iter();
    Some(table.map(|entry| Operation { name: entry.name.clone(), repeatable: entry.repeatable }).collect())
}

fn program_name() -> String {
    let program: Option<PathBuf> = std::env::current_exe().ok();
    let name =
        program.as_deref().and_then(|path| path.file_name()).map(|name| name.to_string_lossy().into_owned());
    let name = name.unwrap_or_else(|| "program".into());
    name[..name.floor_char_boundary(NAME_BYTES_MAX)].to_owned()
}

fn random_app() -> Result<AppId, Error> {
    let mut bytes = [0; 16];
    let mut have = 0;
    while have < bytes.len() {
        have += rustix::rand::getrandom(&mut bytes[have..], rustix::rand::GetRandomFlags::empty())
            .map_err(Error::system("draw random numbers"))?;
    }
    Ok(AppId(u128::from_le_bytes(bytes)))
}
