//! The world: a library with its leases, and what lies behind each.

mod lease;

use lease::{Lease, Way};
use mutirao_schedule::hold::{self, Call, Hold, Input, Options, Outcome, Output};
use mutirao_wire::local::Leave;
use mutirao_wire::stream::failure;
use mutirao_wire::{CallId, Handle, Tick};
use std::collections::{BTreeMap, BTreeSet};

/// Operations of the program.
pub mod operation {
    pub const ECHO: u32 = 0;
    pub const FAIL: u32 = 1;
    pub const LARGE: u32 = 2;
    pub const STALL: u32 = 3;
}
/// The code with which `FAIL` fails.
pub const OWN_CODE: u32 = failure::OPERATION + 5;
/// Largest argument and largest result.
pub const LARGEST: usize = 1_500_000;
/// Largest argument.
const LARGEST_ARGUMENT: u32 = 1_200_000;

/// What is known of a call from outside.
#[derive(Debug)]
pub struct Known {
    pub call: Call,
    pub starts: u32,
    pub crashed: bool,
    pub cancelled: bool,
    pub killed: bool,
    pub over: Option<Over>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Over {
    Answered(Result<Vec<u8>, u32>),
    Otherwise(Outcome),
}

pub struct World {
    pub now: Tick,
    hold: Hold,
    leases: Vec<Lease>,
    next_handle: u32,
    pub calls: BTreeMap<CallId, Known>,
    lost_some: bool,
    pub retired: usize,
}

pub fn argument(call: CallId, bytes: u32) -> Vec<u8> {
    // 251 is prime to the lengths of parts, so a part out of place shows. Copying is quick, unoptimised too.
    let pattern: Vec<u8> = (0..251).map(|i| (call.0 as u8).wrapping_mul(31).wrapping_add(i)).collect();
    let mut whole = pattern.repeat(bytes as usize / 251 + 1);
    whole.truncate(bytes as usize);
    whole
}

/// What the operation returns for an argument.
pub fn answer(operation: u32, argument: &[u8]) -> Result<Vec<u8>, u32> {
    match operation {
        operation::ECHO => Ok(argument.to_vec()),
        operation::LARGE => Ok([argument, &[7; 300_000]].concat()),
        _ => Err(OWN_CODE),
    }
}

impl World {
    pub fn new(copies: bool) -> World {
        World {
            now: Tick(1_000_000),
            hold: Hold::new(Options { copies, ..Options::default() }),
            leases: Vec::new(),
            next_handle: 1,
            calls: BTreeMap::new(),
            lost_some: false,
            retired: 0,
        }
    }

    pub fn add_lease(&mut self, local: bool) {
        let handle = Handle(self.next_handle);
        self.next_handle += 1;
        self.tell(Input::LeaseAdded { handle, local });
        let mut lease = Lease::new(handle, local);
        lease.start_worker(self.now);
        self.leases.push(lease);
    }

    pub fn results(&self) -> usize {
        self.calls.values().filter(|known| matches!(known.over, Some(Over::Answered(Ok(_))))).count()
    }

    /// Does one thing.
    pub fn step(&mut self, what: u8, which: usize) {
        let lease = if self.leases.is_empty() { None } else { Some(which % self.leases.len()) };
        match (what, lease) {
            (0..25, _) => self.submit(which),
            (25..29, _) => {
                let ids: Vec<CallId> = self.calls.keys().copied().collect();
                if let Some(call) = ids.get(which % ids.len().max(1)) {
                    self.calls.get_mut(call).unwrap().cancelled = true;
                    self.tell(Input::Cancel(*call));
                }
            }
            (29..32, _) if self.leases.len() < 6 => self.add_lease(which.is_multiple_of(2)),
            (32..50, Some(lease)) => {
                self.leases[lease].frames_to_serve(self.now, 1 + which % 7);
            }
            (50..65, Some(lease)) => self.news_to_library(lease, 1 + which % 7),
            (65..83, Some(lease)) => {
                for _ in 0..1 + which % 5 {
                    self.leases[lease].work(self.now, &mut self.calls);
                }
            }
            (83..86, Some(lease)) => {
                self.leases[lease].crash(self.now, failure::WORKER_ENDED, &mut self.calls);
            }
            (86..90, Some(lease)) => self.leases[lease].break_stream(self.now),
            (90..94, Some(lease)) => self.leases[lease].restore_stream(self.now),
            (94..95, Some(lease)) => {
                self.leases[lease].end(self.now, which.is_multiple_of(3));
                self.lost_some = true;
            }
            (95..97, Some(lease)) => {
                let leave = [Leave::Finish, Leave::Rerun, Leave::Abandon][which % 3];
                self.lost_some |= leave == Leave::Abandon;
                self.tell(Input::Retire { handle: self.leases[lease].handle, leave });
            }
            _ => self.pass(which as u64 * 20),
        }
        self.place();
    }

    fn submit(&mut self, which: usize) {
        let operation = [operation::ECHO, operation::ECHO, operation::FAIL, operation::LARGE][which % 4];
        let bytes = [0, 8, 46, 47, 5_000, 70_000, 200_000, LARGEST_ARGUMENT][which / 4 % 8];
        let limit_ms = [0, 0, 0, 5][which / 32 % 4];
        let (operation, limit_ms) =
            if which % 23 == 7 { (operation::STALL, 20) } else { (operation, limit_ms) };
        let only = (which % 29 == 3).then(|| self.leases.first().map(|lease| lease.handle)).flatten();
        let call = Call { operation, bytes, repeatable: (which / 128).is_multiple_of(2), limit_ms, only };
        if let Ok(id) = self.hold.submit(call.clone()) {
            let known =
                Known { call, starts: 0, crashed: false, cancelled: false, killed: false, over: None };
            assert!(self.calls.insert(id, known).is_none(), "a name was used twice");
        }
    }

    /// Time goes by; first everything that has arrived is told.
    fn pass(&mut self, us: u64) {
        self.now.0 += us;
        for lease in 0..self.leases.len() {
            self.news_to_library(lease, usize::MAX);
        }
        if self.hold.deadline().is_some_and(|at| at <= self.now) {
            self.tell(Input::Time);
        }
        for lease in &mut self.leases {
            lease.time(self.now, &mut self.calls);
        }
    }

    fn news_to_library(&mut self, lease: usize, count: usize) {
        for _ in 0..count {
            match self.leases[lease].next_news() {
                None => break,
                Some(lease::News::Input(input)) => self.tell(input),
                Some(lease::News::Answer(call, answer)) => {
                    let handle = self.leases[lease].handle;
                    let failed = answer.as_ref().err().copied();
                    let mut out = Vec::new();
                    if self.hold.result(self.now, handle, call, failed, &mut out) {
                        self.over(call, Over::Answered(answer));
                    }
                    self.obey(out);
                }
            }
        }
        let lease = &mut self.leases[lease];
        lease.send_receipts();
        if let Some(bytes) = lease.room() {
            let input = Input::Room { handle: lease.handle, bytes };
            self.tell(input);
        }
    }

    fn tell(&mut self, input: Input) {
        let mut out = Vec::new();
        self.hold.handle(self.now, input, &mut out);
        self.obey(out);
    }

    fn place(&mut self) {
        let mut out = Vec::new();
        self.hold.place(self.now, &mut out);
        self.obey(out);
    }

    fn obey(&mut self, out: Vec<Output>) {
        for output in out {
            match output {
                Output::Finished { call, outcome } => self.over(call, Over::Otherwise(outcome)),
                Output::Send(hold::Part { handle, .. })
                | Output::Cancel { handle, .. }
                | Output::Resume { handle, .. }
                | Output::Withdraw { handle, .. }
                | Output::KillWorker { handle, .. } => {
                    // A lease that has ended may still be spoken to until the library has heard of it.
                    if let Some(lease) = self.leases.iter_mut().find(|lease| lease.handle == handle) {
                        lease.obey(self.now, output, &mut self.calls);
                    }
                }
                Output::Retired(handle) => {
                    self.retired += 1;
                    let lease = self.leases.iter_mut().find(|lease| lease.handle == handle);
                    lease.expect("a retired lease has not ended").end(self.now, false);
                }
                Output::TooManyLeases(handle) => panic!("{handle:?}"),
            }
        }
    }

    fn over(&mut self, call: CallId, over: Over) {
        let known = self.calls.get_mut(&call).expect("it was submitted");
        assert_eq!(known.over, None, "{call:?} is over twice, now as {over:?}");
        match &over {
            Over::Answered(Ok(bytes)) => {
                let expected = answer(known.call.operation, &argument(call, known.call.bytes));
                assert_eq!(expected.as_ref(), Ok(bytes));
                assert!(known.starts > 0);
            }
            Over::Answered(Err(code)) | Over::Otherwise(Outcome::Failed(code)) => match *code {
                OWN_CODE => assert_eq!(known.call.operation, operation::FAIL),
                failure::WORKER_ENDED => assert!(known.crashed, "{call:?} {known:?}"),
                // It may also have crashed by itself when its time was over already.
                failure::TIME_LIMIT => {
                    assert!((known.killed || known.crashed) && known.call.limit_ms > 0, "{known:?}");
                }
                failure::CANCELLED => assert!(known.cancelled, "{known:?}"),
                code => panic!("{code}"),
            },
            Over::Otherwise(Outcome::Unknown) => assert!(self.lost_some),
            Over::Otherwise(Outcome::LeaseEnded) => {
                assert!(known.call.only.is_some() && known.starts == 0);
            }
            Over::Otherwise(Outcome::NoSlots) => panic!("nobody said so"),
        }
        known.over = Some(over);
    }

    /// What must hold at any time.
    pub fn check(&self) {
        for (call, known) in &self.calls {
            assert!(known.call.repeatable || known.starts <= 1, "{call:?} started twice");
            assert_eq!(self.hold.wants(*call), known.over.is_none());
        }
        for lease in &self.leases {
            lease.check();
        }
    }

    /// Faults stop, there is a lease, and all goes on until nothing is left to do.
    pub fn finish(&mut self) {
        self.add_lease(false);
        for lease in &mut self.leases {
            if lease.way != Way::Ended {
                lease.restore_stream(self.now);
            }
        }
        for _ in 0..20_000 {
            if self.calls.values().all(|known| known.over.is_some()) {
                break;
            }
            for lease in 0..self.leases.len() {
                self.leases[lease].frames_to_serve(self.now, usize::MAX);
                self.leases[lease].work(self.now, &mut self.calls);
                self.news_to_library(lease, usize::MAX);
            }
            self.pass(1_000);
            self.place();
            self.check();
        }
        let left: BTreeSet<_> =
            self.calls.iter().filter(|(_, known)| known.over.is_none()).map(|(call, _)| call).collect();
        assert!(left.is_empty(), "never over: {left:?}; {:?}", self.hold.backlog());
    }
}
