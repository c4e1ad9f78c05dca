//! The library against a small node of its own: real sockets, rings and workers, no daemon.

#[path = "../../src/socket.rs"]
#[allow(dead_code)]
mod socket;

mod node;

use mutirao::raw::{self, CallOptions, Deliver, Request};
use mutirao::{CallErrorKind, Error, LeaseState, Options, Pool, Slots};
use node::{Node, Plan};
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake};
use std::time::{Duration, Instant};

/// Less than the long calls of these tests last, and more than anything else: it tells a hang from slowness.
const MINUTE: Duration = Duration::from_secs(60);

#[mutirao::operation(repeatable)]
fn square(x: u64) -> u64 {
    x * x
}

#[mutirao::operation(name = "sum")]
fn add(a: u32, b: u32, c: u32) -> u32 {
    a + b + c
}

#[mutirao::operation]
fn pid() -> u32 {
    std::process::id()
}

/// Bytes that are encoded as such, not one by one, which takes long without optimisation.
#[derive(PartialEq)]
struct Bytes(Vec<u8>);

impl serde::Serialize for Bytes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for Bytes {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Bytes(<&[u8]>::deserialize(deserializer)?.to_vec()))
    }
}

#[mutirao::operation]
fn reverse(mut bytes: Bytes) -> Bytes {
    bytes.0.reverse();
    bytes
}

#[mutirao::operation]
fn divide(a: i32, b: i32) -> Result<i32, String> {
    if b == 0 { Err("by zero".into()) } else { Ok(a / b) }
}

#[mutirao::operation]
fn panics(text: String) -> u32 {
    panic!("{text}")
}

#[mutirao::operation]
fn ends(code: i32) {
    std::process::exit(code)
}

#[mutirao::operation]
fn sleep_ms(ms: u64) -> u64 {
    std::thread::sleep(Duration::from_millis(ms));
    ms
}

/// Short for every number but one.
#[mutirao::operation]
fn ends_at(at: u64, x: u64) -> u64 {
    if x == at {
        std::process::abort();
    }
    x
}

/// Says by a file that it runs, then takes a minute.
#[mutirao::operation]
fn lasts(file: String) {
    std::fs::write(file, "").unwrap();
    std::thread::sleep(MINUTE);
}

/// What came of leaving the worker's process group.
#[mutirao::operation]
fn leaves() -> [bool; 2] {
    let group = rustix::process::setpgid(None, None).is_ok();
    let session = std::process::Command::new("setsid").arg("true").status();
    [group, session.is_ok_and(|status| status.success())]
}

/// Ends the worker the first time, told by a file.
#[mutirao::operation(repeatable)]
fn ends_once(file: String) -> String {
    if std::fs::File::create_new(&file).is_ok() {
        std::process::abort();
    }
    file
}

fn not_registered(x: u32) -> u32 {
    x
}

fn open(node: &Node) -> Pool {
    open_with(node, Slots::default())
}

fn open_with(node: &Node, slots: Slots) -> Pool {
    let options = Options { socket: Some(node.socket.clone()), slots, ..Options::default() };
    Pool::open_with(options).unwrap()
}

/// A call that has begun.
fn running(pool: &Pool) -> mutirao::Call<()> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("begun");
    let call = pool.call(lasts, file.to_str().unwrap().to_owned());
    let asked = Instant::now();
    while !file.exists() {
        assert!(asked.elapsed() < MINUTE, "it does not begin");
        std::thread::sleep(Duration::from_millis(5));
    }
    call
}

fn kind_of<T: std::fmt::Debug>(result: Result<T, Error>) -> CallErrorKind {
    match result {
        Err(Error::Call(error)) => error.kind,
        other => panic!("{other:?}"),
    }
}

fn calls_of_every_shape() {
    let node = Node::start(Plan::default());
    let pool = open(&node);
    assert_eq!(pool.call(square, 12).wait().unwrap(), 144);
    assert_eq!(pool.call(add, (1, 2, 3)).wait().unwrap(), 6);
    assert_ne!(pool.call(pid, ()).wait().unwrap(), std::process::id());
    assert_eq!(pool.call(divide, (7, 2)).wait().unwrap(), Ok(3));
    assert_eq!(pool.call(divide, (7, 0)).wait().unwrap(), Err("by zero".into()));
    assert_eq!(square(3), 9, "an operation stays a function");
    assert_eq!(node.seen.files.load(Ordering::Relaxed), 1, "the program offers itself");
    assert_eq!(pool.raw().operation("sum").unwrap(), pool.raw().operation("sum").unwrap());
    assert!(matches!(pool.raw().operation("none"), Err(Error::UnknownOperation(_))));
    match pool.call(not_registered, 1).wait() {
        Err(error @ Error::UnknownOperation(_)) => {
            assert!(error.to_string().contains("#[mutirao::operation]"))
        }
        other => panic!("{other:?}"),
    }
}

fn large_arguments_and_results() {
    // A ring much smaller than an argument, and the usual one.
    for ring_bytes in [64 * 1024, 256 * 1024] {
        let node = Node::start(Plan { ring_bytes, ..Plan::default() });
        let pool = open(&node);
        for bytes in [0, 1, 65_000, 65_536, 70_000, 1 << 20, 16 << 20] {
            let argument: Vec<u8> = (0..bytes).map(|i: u32| (i % 251) as u8).collect();
            let mut expected = argument.clone();
            expected.reverse();
            assert!(pool.call(reverse, Bytes(argument)).wait().unwrap().0 == expected, "{bytes} bytes");
        }
        let many: Vec<_> = (0..8).map(|i| pool.call(reverse, Bytes(vec![i; 1 << 20]))).collect();
        for (i, call) in many.into_iter().enumerate() {
            assert!(call.wait().unwrap().0 == vec![i as u8; 1 << 20]);
        }
        match pool.call(reverse, Bytes(vec![0; (64 << 20) + 1])).wait() {
            Err(Error::ArgumentTooLarge { bytes }) => assert!(bytes > 64 << 20),
            other => panic!("{:?}", other.map(|_| ())),
        }
    }
}

fn many_tiny_calls() {
    let node = Node::start(Plan::default());
    let pool = open(&node);
    let calls: Vec<_> = (0..50_000u64).map(|x| pool.call(square, x)).collect();
    for (x, call) in calls.into_iter().enumerate() {
        assert_eq!(call.wait().unwrap(), (x * x) as u64);
    }
    let counts = pool.raw().counts();
    assert_eq!((counts.submitted, counts.done), (50_000, 50_000));
    // From several threads at once.
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for x in 0..2_000 {
                    assert_eq!(pool.call(square, x).wait().unwrap(), x * x);
                }
            });
        }
    });
}

fn failures_of_operations() {
    let node = Node::start(Plan { here: 1, ..Plan::default() });
    let pool = open(&node);
    match pool.call(panics, "ouch".into()).wait() {
        Err(Error::Call(error)) => {
            assert_eq!(error.kind, CallErrorKind::Panicked);
            assert!(error.text.contains("ouch"), "{error}");
            assert_eq!(error.node.as_deref(), Some("here"));
        }
        other => panic!("{other:?}"),
    }
    let before = pool.call(pid, ()).wait().unwrap();
    assert_eq!(pool.call(pid, ()).wait().unwrap(), before, "a panic leaves its worker alone");
    assert_eq!(kind_of(pool.call(ends, 3).wait()), CallErrorKind::WorkerEnded);
    assert_ne!(pool.call(pid, ()).wait().unwrap(), before, "a worker that ended is replaced");
    assert_eq!(pool.call(leaves, ()).wait().unwrap(), [false, false]);
    // The others that were in its ring are none the worse.
    let calls: Vec<_> = (0..200).map(|x| pool.call(square, x)).collect();
    let end = pool.call(ends, 1);
    let later: Vec<_> = (0..200).map(|x| pool.call(square, x)).collect();
    assert_eq!(kind_of(end.wait()), CallErrorKind::WorkerEnded);
    for (x, call) in calls.into_iter().chain(later).enumerate() {
        let x = x as u64 % 200;
        assert_eq!(call.wait().unwrap(), x * x);
    }
    // Nor those of the same operation, usually short, that were over a moment before.
    let calls: Vec<_> = (0..300).map(|x| pool.call(ends_at, (150, x))).collect();
    for (x, call) in calls.into_iter().enumerate() {
        match call.wait() {
            Ok(result) => assert_eq!(result, x as u64),
            failed => assert_eq!((x, kind_of(failed)), (150, CallErrorKind::WorkerEnded)),
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("once").to_str().unwrap().to_owned();
    // Even one that may be repeated: its own worker's end is its answer.
    assert_eq!(kind_of(pool.call(ends_once, file.clone()).wait()), CallErrorKind::WorkerEnded);
    assert_eq!(pool.call(ends_once, file.clone()).wait().unwrap(), file);
    let bad = pool.raw().submit(pool.raw().operation("sum").unwrap(), vec![1], CallOptions::default());
    assert_eq!(bad.unwrap().wait().unwrap_err().kind, CallErrorKind::BadArgument);
}

fn limits_and_cancels() {
    let node = Node::start(Plan { here: 1, ..Plan::default() });
    let pool = open(&node);
    assert_eq!(pool.call(square, 2).wait().unwrap(), 4);
    let began = Instant::now();
    let limit = Some(Duration::from_millis(100));
    let call = pool.call_with(sleep_ms, 60_000, CallOptions { limit, ..CallOptions::default() });
    assert_eq!(kind_of(call.wait()), CallErrorKind::TimeLimit);
    let call = pool.call(sleep_ms, 60_000);
    let queued = pool.call(square, 5);
    let operation = pool.raw().operation("pool::sleep_ms").unwrap();
    let mut raw = pool.raw().submit(operation, vec![0xe0, 0xd4, 0x03], CallOptions::default()).unwrap();
    assert!(raw.wait_timeout(Duration::from_millis(50)).is_none());
    call.cancel();
    raw.cancel();
    assert_eq!(kind_of(call.wait()), CallErrorKind::Cancelled);
    assert_eq!(raw.wait().unwrap_err().kind, CallErrorKind::Cancelled);
    assert_eq!(raw.wait().unwrap_err().kind, CallErrorKind::Taken);
    assert_eq!(queued.wait().unwrap(), 25);
    assert!(began.elapsed() < MINUTE, "nobody waited for a call that is over");
}

/// A call whose argument is in the ring in part only is cancelled without harm to its worker.
fn cancelled_on_its_way() {
    let node = Node::start(Plan { here: 1, ring_bytes: 64 * 1024, ..Plan::default() });
    let pool = open_with(&node, Slots::ByHand);
    pool.allocate(1).unwrap();
    // Known as short, so that the next is sent while one runs.
    for _ in 0..20 {
        assert_eq!(pool.call(sleep_ms, 0).wait().unwrap(), 0);
        assert!(pool.call(reverse, Bytes(vec![1, 2])).wait().unwrap().0 == [2, 1]);
    }
    let worker = pool.call(pid, ()).wait().unwrap();
    let running = pool.call(sleep_ms, 2000);
    let large = pool.call(reverse, Bytes(vec![7; 1 << 20]));
    std::thread::sleep(Duration::from_millis(100));
    large.cancel();
    let later = pool.call(square, 6);
    assert_eq!(kind_of(large.wait().map(|_| ())), CallErrorKind::Cancelled);
    assert_eq!(running.wait().unwrap(), 2000);
    assert_eq!(later.wait().unwrap(), 36);
    assert_eq!(pool.call(pid, ()).wait().unwrap(), worker, "it went on");
}

/// One who begins to listen hears of what has happened before: nothing falls between a look and the listening.
fn what_happened_to_leases_before_is_news() {
    let node = Node::start(Plan { here: 1, ..Plan::default() });
    let pool = open_with(&node, Slots::ByHand);
    assert_eq!(
        pool.raw().wait_leases(0, Some(Duration::from_millis(20))).unwrap(),
        0,
        "nothing has happened"
    );
    let lease = pool.allocate(1).unwrap().leases[0];
    pool.raw().release(&[lease]).unwrap();
    let seen = pool.raw().wait_leases(0, Some(MINUTE)).unwrap();
    assert_ne!(seen, 0);
    assert_eq!(pool.raw().wait_leases(seen, Some(Duration::from_millis(20))).unwrap(), seen);
    pool.allocate(1).unwrap();
    assert_ne!(pool.raw().wait_leases(seen, Some(MINUTE)).unwrap(), seen);
}

/// A short call does not stay behind a long one while a slot is free.
fn short_calls_behind_a_long_one() {
    let node = Node::start(Plan { here: 2, ..Plan::default() });
    let pool = open(&node);
    for x in 0..100 {
        assert_eq!(pool.call(square, x).wait().unwrap(), x * x);
    }
    assert_eq!(pool.leases().len(), 1, "short calls need no second slot");
    let long = pool.call(sleep_ms, 60_000);
    std::thread::sleep(Duration::from_millis(50));
    let began = Instant::now();
    assert_eq!(pool.call(square, 9).wait().unwrap(), 81);
    assert!(began.elapsed() < MINUTE);
    long.cancel();
}

/// Calls wait until they are sent together, and results until their worker has little left to do.
fn calls_and_results_gather() {
    let node = Node::start(Plan { here: 1, ..Plan::default() });
    let gather = Duration::from_millis(200);
    let socket = Some(node.socket.clone());
    let pool =
        Pool::open_with(Options { socket, gather, slots: Slots::ByHand, ..Options::default() }).unwrap();
    let pool = pool.raw();
    let lease = pool.allocate(&Request::slots(1)).unwrap().leases[0];
    let sleep = pool.operation("pool::sleep_ms").unwrap();
    let (sender, receiver) = mpsc::channel();
    let submit = |ms: u8| {
        let sender = sender.clone();
        let deliver = Deliver::Callback(Box::new(move |_| sender.send(Instant::now()).unwrap()));
        let options = CallOptions { deliver, only: Some(lease), ..CallOptions::default() };
        drop(pool.submit(sleep, vec![ms], options).unwrap());
    };
    // Nobody flushes: they go all the same.
    submit(1);
    receiver.recv_timeout(MINUTE).unwrap();
    (0..100).for_each(|_| submit(2));
    pool.flush();
    let mut came: Vec<Instant> = (0..100).map(|_| receiver.recv_timeout(MINUTE).unwrap()).collect();
    came.dedup_by(|next, before| next.duration_since(*before) < Duration::from_millis(1));
    assert!(came.len() < 50, "{} bunches", came.len());
    // With as much as nothing to do, a worker is heard at once.
    let began = Instant::now();
    for _ in 0..10 {
        submit(0);
        pool.flush();
        receiver.recv_timeout(MINUTE).unwrap();
    }
    assert!(began.elapsed() < 5 * gather, "{:?}", began.elapsed());
}

/// Whoever waits hears at once of what other threads do, and callbacks are called once.
fn other_threads_are_heard_of() {
    let node = Node::start(Plan { here: 1, ..Plan::default() });
    let pool = open(&node);
    let raw = pool.raw();
    assert_eq!(pool.call(square, 2).wait().unwrap(), 4);
    let sleep = raw.operation("pool::sleep_ms").unwrap();
    let minute = vec![0xe0, 0xd4, 0x03];
    let called = Arc::new(AtomicU32::new(0));
    let submit = || {
        let called = called.clone();
        let deliver = Deliver::Callback(Box::new(move |_| {
            std::thread::sleep(Duration::from_millis(20));
            called.fetch_add(1, Ordering::SeqCst);
        }));
        raw.submit(sleep, minute.clone(), CallOptions { deliver, ..CallOptions::default() }).unwrap()
    };

    // Two threads wait for a call, one of them drives; a third cancels it.
    let call = submit();
    let heard = std::thread::scope(|scope| {
        let wait = || {
            raw.wait_any(&[&call], Some(MINUTE)).unwrap();
            Instant::now()
        };
        let waiters = [scope.spawn(wait), scope.spawn(wait)];
        std::thread::sleep(Duration::from_millis(50));
        let began = Instant::now();
        call.cancel();
        waiters.map(|waiter| waiter.join().unwrap() - began)
    });
    assert!(heard.iter().all(|heard| *heard < MINUTE / 2), "{heard:?}");
    assert_eq!(called.load(Ordering::SeqCst), 1, "called before `cancel` returned");

    // Nobody waits, and closing ends what there is.
    let calls: Vec<_> = (0..5).map(|_| submit()).collect();
    let (sender, receiver) = mpsc::channel();
    let late = pool.clone();
    let deliver = Deliver::Callback(Box::new(move |finished| {
        // Closing from within a callback waits for no callback.
        late.raw().close();
        sender.send(finished.result.unwrap_err().kind).unwrap();
    }));
    let options = CallOptions { deliver, ..CallOptions::default() };
    drop(raw.submit(sleep, minute.clone(), options).unwrap());
    raw.close();
    assert_eq!(called.load(Ordering::SeqCst), 6);
    assert_eq!(receiver.try_recv().unwrap(), CallErrorKind::PoolClosed);
    assert!(calls.iter().all(raw::Call::is_done));
}

/// A map goes on, and ends, whatever other threads do meanwhile.
fn maps_hear_of_closing() {
    let node = Node::start(Plan::default());
    let pool = open(&node);
    let other = pool.clone();
    let closer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        other.raw().close();
    });
    let results: Vec<_> = pool.map(sleep_ms, [60_000; 4]).collect();
    assert!(results.into_iter().all(|result| kind_of(result) == CallErrorKind::PoolClosed));
    closer.join().unwrap();
}

/// Handlers of the program run in its own threads.
fn threads_of_the_library_take_no_signals() {
    let node = Node::start(Plan::default());
    let _pool = open(&node);
    let end = Instant::now() + Duration::from_secs(60);
    // A thread has its name only once it runs.
    while named_helpers() == 0 {
        assert!(Instant::now() < end, "no thread of the library is to be seen");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// How many threads of the library there are; each takes no signals.
fn named_helpers() -> usize {
    let mut helpers = 0;
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        let task = task.unwrap().file_name().into_string().unwrap();
        let status = std::fs::read_to_string(format!("/proc/self/task/{task}/status"));
        let Ok(status) = status else { continue };
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim();
        let blocked = u64::from_str_radix(field("SigBlk:"), 16).unwrap();
        // All but those that cannot be, and two that the C library keeps for itself.
        let all = !(1 << 8 | 1 << 18 | 1 << 31 | 1 << 32);
        if field("Name:") == "mutirao" {
            helpers += 1;
            assert_eq!(blocked & all, all, "{blocked:x}");
        } else if task == std::process::id().to_string() {
            assert_ne!(blocked & all, all, "the program keeps its own");
        }
    }
    helpers
}

/// A forked copy of the program may drop and close what it has of a pool, which does nothing.
fn forked_copies_leave_the_pool_alone() {
    let node = Node::start(Plan::default());
    let pool = open(&node);
    assert_eq!(pool.call(square, 2).wait().unwrap(), 4);
    // SAFETY: the copy drops a pool, which only frees memory there, and leaves.
    let copy = unsafe { libc::fork() };
    if copy == 0 {
        pool.raw().close();
        drop(pool);
        // SAFETY: no preconditions.
        unsafe { libc::_exit(0) }
    }
    let mut status = 1;
    // SAFETY: `status` is a live variable.
    assert_eq!(unsafe { libc::waitpid(copy, &mut status, 0) }, copy);
    assert_eq!(status, 0);
    assert_eq!(pool.call(square, 3).wait().unwrap(), 9);
    assert_eq!(node.seen.hellos.load(Ordering::Relaxed), 1, "over the same connection");
}

/// Another program's operations are called by their place in its table.
fn another_program_is_offered() {
    let node = Node::start(Plan::default());
    let operations =
        ["first", "second"].map(|name| raw::wire::plugin::Operation { name: name.into(), repeatable: false });
    let foreign =
        raw::ForeignProgram { path: std::env::current_exe().unwrap(), operations: operations.into() };
    let options = Options { socket: Some(node.socket.clone()), foreign: Some(foreign), ..Options::default() };
    let pool = raw::Pool::open(options).unwrap();
    assert_eq!(pool.operation("second").unwrap(), 1);
    assert!(matches!(pool.operation("sum"), Err(Error::UnknownOperation(_))));
    let beyond = pool.submit(2, vec![], CallOptions::default());
    assert!(matches!(beyond, Err(Error::UnknownOperation(_))));
    // The small node starts this program whatever was offered; its first operation by name divides.
    let divided = pool.submit(0, vec![14, 4], CallOptions::default()).unwrap().wait();
    assert_eq!(divided.unwrap(), [0, 6]);
}

struct Flag(AtomicBool, std::thread::Thread);
impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
        self.1.unpark();
    }
}

/// As small an executor as there is.
fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let flag = Arc::new(Flag(AtomicBool::new(false), std::thread::current()));
    let waker = flag.clone().into();
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        while !flag.0.swap(false, Ordering::SeqCst) {
            std::thread::park_timeout(Duration::from_secs(20));
        }
    }
}

fn futures_callbacks_and_events() {
    let node = Node::start(Plan::default());
    let pool = open(&node);
    // The helper thread alone does the work.
    let sum = block_on(async {
        let calls: Vec<_> = (0..100).map(|x| pool.call(square, x)).collect();
        let mut sum = 0;
        for call in calls {
            sum += call.await.unwrap();
        }
        sum
    });
    assert_eq!(sum, 328_350);

    let (sender, receiver) = mpsc::channel();
    let operation = pool.raw().operation("pool::square").unwrap();
    let again = pool.clone();
    let deliver = Deliver::Callback(Box::new(move |finished| {
        // A callback may even call and wait.
        sender.send((finished.tag, finished.result, again.call(square, 3).wait())).unwrap();
    }));
    let options = CallOptions { deliver, tag: 7, ..CallOptions::default() };
    drop(pool.raw().submit(operation, vec![5], options).unwrap());
    let (tag, result, inner) = receiver.recv_timeout(MINUTE).unwrap();
    assert_eq!((tag, result.unwrap(), inner.unwrap()), (7, vec![25], 9));

    let readable = |timeout_ms: i64| {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let event = pool.raw().event_fd();
        let timeout = Timespec { tv_sec: timeout_ms / 1000, tv_nsec: timeout_ms % 1000 * 1_000_000 };
        poll(&mut [PollFd::new(&event, PollFlags::IN)], Some(&timeout)).unwrap() > 0
    };
    assert!(!readable(0));
    for tag in 0..10 {
        let options = CallOptions { deliver: Deliver::Queue, tag, ..CallOptions::default() };
        drop(pool.raw().submit(operation, vec![tag as u8], options).unwrap());
    }
    let mut tags = 0;
    while tags != 0x3ff {
        assert!(readable(60_000));
        while let Some(finished) = pool.raw().next_finished() {
            assert_eq!(raw_square(finished.tag), finished.result.unwrap());
            tags |= 1 << finished.tag;
        }
    }
    assert!(!readable(0));
}

fn raw_square(x: u64) -> Vec<u8> {
    vec![(x * x) as u8]
}

fn waiting_for_any_and_all() {
    let node = Node::start(Plan::default());
    let pool = open(&node);
    let raw = pool.raw();
    let sleep = raw.operation("pool::sleep_ms").unwrap();
    let submit = |argument: Vec<u8>| raw.submit(sleep, argument, CallOptions::default()).unwrap();
    // Four seconds, and a millisecond.
    let (slow, fast) = (submit(vec![0xa0, 0x1f]), submit(vec![1]));
    assert_eq!(raw.wait_any(&[&slow, &fast], None), Some(1));
    assert_eq!(raw.wait_any(&[&slow], Some(Duration::from_millis(1))), None);
    assert!(!raw.wait_all(&[&slow, &fast], Some(Duration::from_millis(1))));
    assert!(raw.wait_all(&[&slow, &fast], Some(MINUTE)));
    assert_eq!(raw.wait_any(&[], None), None);
}

fn maps() {
    let node = Node::start(Plan::default());
    let pool = open(&node);
    let mut results: Vec<u64> = pool.map(square, 0..5000).map(Result::unwrap).collect();
    results.sort_unstable();
    assert!(results.iter().enumerate().all(|(x, result)| *result == (x * x) as u64));
    assert_eq!(results.len(), 5000);

    let taken = AtomicU32::new(0);
    let endless = (0..).inspect(|_| {
        taken.fetch_add(1, Ordering::Relaxed);
    });
    let results: Vec<u64> = pool.map(square, endless).in_order().take(3000).map(Result::unwrap).collect();
    assert!(results.iter().enumerate().all(|(x, result)| *result == (x * x) as u64));
    assert!(taken.into_inner() <= 3000 + 1024);

    assert_eq!(pool.map(square, []).count(), 0);
    let errors: Vec<_> = pool.map(not_registered, [1, 2]).collect();
    assert!(matches!(&errors[..], [Err(Error::UnknownOperation(_))]));
    let mixed: Vec<_> = pool.map(divide, [(1, 1), (1, 0)]).in_order().map(Result::unwrap).collect();
    assert_eq!(mixed, [Ok(1), Err("by zero".into())]);
}

fn slots_by_hand() {
    let node = Node::start(Plan { here: 2, ..Plan::default() });
    let pool = open_with(&node, Slots::ByHand);
    assert_eq!(kind_of(pool.call(square, 1).wait()), CallErrorKind::NoSlots);
    let allocation = pool.allocate(5).unwrap();
    assert_eq!(allocation.leases.len(), 2);
    assert_eq!(pool.call(square, 3).wait().unwrap(), 9);
    let leases = pool.leases();
    assert_eq!(leases.len(), 2);
    assert!(leases.iter().any(|lease| lease.state == LeaseState::Ready && lease.finished == 1));
    pool.release(&allocation.leases[..1]).unwrap();
    assert_eq!(pool.leases().len(), 1);
    assert_eq!(pool.call(square, 3).wait().unwrap(), 9);
    let many = Request { at_least: 3, ..Request::slots(3) };
    assert!(matches!(pool.raw().allocate(&many), Err(Error::NotEnough { granted: 1, at_least: 3, .. })));
    let slots_only = Request { workers: false, ..Request::slots(1) };
    assert_eq!(pool.raw().allocate(&slots_only).unwrap().leases.len(), 1);
    let answers =
        pool.raw().query(raw::wire::query::Topic::Nodes, None, vec![], Duration::from_secs(5)).unwrap();
    assert_eq!(answers.missing, 3);
    let left: Vec<_> = pool.leases().iter().map(|lease| lease.key).collect();
    let pending = running(&pool);
    pool.release(&left).unwrap();
    assert_eq!(kind_of(pending.wait()), CallErrorKind::OutcomeUnknown);
}

fn a_pool_that_refuses_says_so() {
    let node = Node::start(Plan { refuses: true, ..Plan::default() });
    let pool = open(&node);
    match pool.call(square, 1).wait() {
        Err(Error::Call(error)) => {
            assert_eq!(error.kind, CallErrorKind::NoSlots);
            assert!(error.text.contains("not yours"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(pool.raw().notes().len(), 1);
}

fn idle_slots_go_back() {
    let node = Node::start(Plan::default());
    let pool = open(&node);
    assert_eq!(pool.call(square, 1).wait().unwrap(), 1);
    assert!(!pool.leases().is_empty());
    let began = Instant::now();
    while !pool.leases().is_empty() {
        assert!(began.elapsed() < MINUTE);
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(pool.call(square, 2).wait().unwrap(), 4, "they are had again");
}

fn leases_elsewhere_survive_a_restart() {
    let node = Node::start(Plan { here: 0, elsewhere: 2, ..Plan::default() });
    let pool = open(&node);
    let raw = pool.raw();
    let echo = |argument: &[u8]| raw.submit(0, argument.to_vec(), CallOptions::default()).unwrap();
    assert_eq!(echo(b"abc").wait().unwrap(), b"abc");
    assert_eq!(echo(b"").wait().unwrap(), b"");
    let large = vec![9; 3 << 20];
    assert!(echo(&large).wait().unwrap() == large);
    assert!(node.seen.asides.load(Ordering::Relaxed) > 0, "what goes elsewhere and is large takes the lane");
    let failed = echo(b"fail").wait().unwrap_err();
    assert_eq!((failed.kind, failed.text.as_str()), (CallErrorKind::Operation(5), "fail"));
    let mut hanging = echo(b"hang");
    assert!(hanging.wait_timeout(Duration::from_millis(100)).is_none());
    node.restart();
    assert_eq!(hanging.wait().unwrap(), b"hang", "kept by the lender and sent after `Resume`");
    assert_eq!(echo(b"again").wait().unwrap(), b"again");
    assert!(echo(&large).wait().unwrap() == large, "by a new lane");
    assert_eq!(node.seen.epoch.load(Ordering::Relaxed), 1);
    assert!(node.seen.resumes.load(Ordering::Relaxed) >= 1);
}

fn local_calls_after_a_restart() {
    let node = Node::start(Plan::default());
    let pool = open(&node);
    assert_eq!(pool.call(square, 2).wait().unwrap(), 4);
    let running = running(&pool);
    node.restart();
    assert_eq!(kind_of(running.wait()), CallErrorKind::OutcomeUnknown);
    assert_eq!(pool.call(square, 3).wait().unwrap(), 9);
    assert_eq!(node.seen.hellos.load(Ordering::Relaxed), 2);
}

fn closing_answers_every_call() {
    let node = Node::start(Plan::default());
    let pool = open(&node);
    let call = pool.call(sleep_ms, 60_000);
    let other = pool.clone();
    let closer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(200));
        other.raw().close();
    });
    assert_eq!(kind_of(call.wait()), CallErrorKind::PoolClosed);
    closer.join().unwrap();
    assert!(matches!(pool.call(square, 1).wait(), Err(Error::Closed)));
    assert!(matches!(pool.nodes(), Err(Error::Closed)));
}

fn a_node_that_stays_away() {
    let node = Node::start(Plan::default());
    let pool = open(&node);
    let call = running(&pool);
    drop(node);
    assert!(matches!(kind_of(call.wait()), CallErrorKind::OutcomeUnknown | CallErrorKind::PoolClosed));
    let next = pool.call(square, 1).wait();
    assert!(matches!(&next, Err(Error::NodeLost { .. })) || kind_of(next) == CallErrorKind::PoolClosed);
}

fn main() {
    mutirao::init();
    let only = std::env::args().nth(1).filter(|argument| !argument.starts_with('-'));
    let stories: &[(&str, fn())] = &[
        ("calls_of_every_shape", calls_of_every_shape),
        ("large_arguments_and_results", large_arguments_and_results),
        ("many_tiny_calls", many_tiny_calls),
        ("failures_of_operations", failures_of_operations),
        ("limits_and_cancels", limits_and_cancels),
        ("cancelled_on_its_way", cancelled_on_its_way),
        ("what_happened_to_leases_before_is_news", what_happened_to_leases_before_is_news),
        ("short_calls_behind_a_long_one", short_calls_behind_a_long_one),
        ("other_threads_are_heard_of", other_threads_are_heard_of),
        ("maps_hear_of_closing", maps_hear_of_closing),
        ("threads_of_the_library_take_no_signals", threads_of_the_library_take_no_signals),
        ("forked_copies_leave_the_pool_alone", forked_copies_leave_the_pool_alone),
        ("another_program_is_offered", another_program_is_offered),
        ("calls_and_results_gather", calls_and_results_gather),
        ("futures_callbacks_and_events", futures_callbacks_and_events),
        ("waiting_for_any_and_all", waiting_for_any_and_all),
        ("maps", maps),
        ("slots_by_hand", slots_by_hand),
        ("a_pool_that_refuses_says_so", a_pool_that_refuses_says_so),
        ("idle_slots_go_back", idle_slots_go_back),
        ("leases_elsewhere_survive_a_restart", leases_elsewhere_survive_a_restart),
        ("local_calls_after_a_restart", local_calls_after_a_restart),
        ("closing_answers_every_call", closing_answers_every_call),
        ("a_node_that_stays_away", a_node_that_stays_away),
    ];
    for (name, story) in stories {
        if only.as_ref().is_none_or(|only| name.contains(only)) {
            let began = Instant::now();
            story();
            println!("{name}: ok, {} ms", began.elapsed().as_millis());
        }
    }
}
