//! What is known of each call from outside, and what must be true of it.

use mutirao_schedule::hold::{Call, Outcome};
use mutirao_wire::stream::failure;
use mutirao_wire::{AppId, CallId, Handle};
use std::collections::{BTreeMap, BTreeSet};

/// Operations of the programs.
pub(super) mod operation {
    use crate::random::Random;
    use core::time::Duration;

    /// Takes a moment.
    pub(in crate::calls) const ECHO: u32 = 0;
    /// Takes some milliseconds.
    pub(in crate::calls) const SLOW: u32 = 1;
    /// Takes up to seconds.
    pub(in crate::calls) const LONG: u32 = 2;
    /// Fails.
    pub(in crate::calls) const FAIL: u32 = 3;
    /// Never ends by itself.
    pub(in crate::calls) const STALL: u32 = 4;
    /// Returns much.
    pub(in crate::calls) const LARGE: u32 = 5;
    /// Ends its worker.
    pub(in crate::calls) const CRASH: u32 = 6;

    /// How long a call takes.
    pub(in crate::calls) fn time(operation: u32, random: &mut Random) -> Duration {
        let (least, most) = match operation {
            SLOW => (1_000, 40_000),
            LONG => (100_000, 3_000_000),
            STALL => return Duration::from_secs(1_000_000),
            _ => (20, 300),
        };
        random.between(Duration::from_micros(least), Duration::from_micros(most))
    }
}

/// The code with which `FAIL` fails.
const OWN_CODE: u32 = failure::OPERATION + 5;

/// What a call carries: a pattern in which a part out of place shows, 251 being prime to the lengths of parts.
pub(super) fn argument(call: CallId, bytes: usize) -> Vec<u8> {
    let pattern: Vec<u8> = (0..251).map(|i| (call.0 as u8).wrapping_mul(31).wrapping_add(i)).collect();
    let mut whole = pattern.repeat(bytes / 251 + 1);
    whole.truncate(bytes);
    whole
}

/// What the operation returns for an argument.
pub(super) fn answer(operation: u32, argument: &[u8]) -> Result<Vec<u8>, u32> {
    match operation {
        operation::FAIL => Err(OWN_CODE),
        operation::LARGE => Ok([argument, &[7; 150_000]].concat()),
        _ => Ok(argument.to_vec()),
    }
}

/// How a call was over.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Over {
    Answered(Result<Vec<u8>, u32>),
    Otherwise(Outcome),
}

/// How many calls ended how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Account {
    /// Calls made.
    pub made: usize,
    /// Those answered.
    pub answered: usize,
    /// Those that failed, by themselves or with their workers, or were cancelled.
    pub failed: usize,
    /// Those of which nobody can know whether they ran.
    pub unknown: usize,
    /// Those that did not run, as their only lease ended.
    pub unrun: usize,
    /// Those whose programs went before they were over.
    pub abandoned: usize,
    /// Times that any of them began.
    pub starts: usize,
}

struct Known {
    call: Call,
    starts: u32,
    /// Its worker ended by itself while it ran.
    crashed: bool,
    cancelled: bool,
    /// Where it was sent, and how many of these leases were lost.
    sent: BTreeSet<Handle>,
    losses: u32,
    /// One of these leases ended.
    ended: bool,
    /// Its program is gone.
    abandoned: bool,
    over: Option<Over>,
}

/// All calls ever made.
#[derive(Default)]
pub(super) struct Ledger {
    calls: BTreeMap<(AppId, CallId), Known>,
}

impl Ledger {
    pub(super) fn made(&mut self, app: AppId, id: CallId, call: Call) {
        let known = Known {
            call,
            starts: 0,
            crashed: false,
            cancelled: false,
            sent: BTreeSet::new(),
            losses: 0,
            ended: false,
            abandoned: false,
            over: None,
        };
        assert!(self.calls.insert((app, id), known).is_none(), "{id:?} was used twice as a name");
    }

    fn known(&mut self, app: AppId, call: CallId) -> &mut Known {
        self.calls.get_mut(&(app, call)).expect("the call was made")
    }

    pub(super) fn sent(&mut self, app: AppId, call: CallId, to: Handle) {
        self.known(app, call).sent.insert(to);
    }

    pub(super) fn cancelled(&mut self, app: AppId, call: CallId) {
        self.known(app, call).cancelled = true;
    }

    /// A worker begins it.
    pub(super) fn begun(&mut self, app: AppId, call: CallId) {
        let known = self.known(app, call);
        known.starts += 1;
        assert!(
            known.call.repeatable || known.starts == 1,
            "{call:?} of {app:?} may run once, and ran twice"
        );
    }

    /// A worker ended by itself in the middle of it.
    pub(super) fn crashed(&mut self, app: AppId, call: CallId) {
        self.known(app, call).crashed = true;
    }

    pub(super) fn is_repeatable(&self, app: AppId, call: CallId) -> bool {
        self.calls.get(&(app, call)).is_some_and(|known| known.call.repeatable)
    }

    /// The program is told that the lease ended.
    pub(super) fn lease_ended(&mut self, app: AppId, handle: Handle, lost: bool) {
        for (_, known) in self.calls_of(app) {
            if known.over.is_none() && known.sent.contains(&handle) {
                known.ended = true;
                known.losses += u32::from(lost);
            }
        }
    }

    fn calls_of(&mut self, app: AppId) -> impl Iterator<Item = (&(AppId, CallId), &mut Known)> {
        self.calls.range_mut((app, CallId(0))..=(app, CallId(u64::MAX)))
    }

    /// The program is gone.
    pub(super) fn abandoned(&mut self, app: AppId) {
        self.calls_of(app).for_each(|(_, known)| known.abandoned = true);
    }

    /// Calls of a program that are not over.
    pub(super) fn unfinished(&mut self, app: AppId) -> Vec<CallId> {
        self.calls_of(app).filter(|(_, known)| known.over.is_none()).map(|((_, call), _)| *call).collect()
    }

    /// The program is told how it ended: once, and the truth.
    pub(super) fn over(&mut self, app: AppId, call: CallId, over: Over) {
        let known = self.known(app, call);
        assert_eq!(known.over, None, "{call:?} of {app:?} is over twice, now as {over:?}");
        let Known { call: made, starts, .. } = &*known;
        let who = || format!("{call:?} of {app:?}, a call of {made:?} begun {starts} times");
        match &over {
            Over::Answered(Ok(bytes)) => {
                let expected = answer(made.operation, &argument(call, made.bytes as usize));
                assert!(expected.as_ref() == Ok(bytes), "{} got another result", who());
                assert!(*starts > 0, "{} has a result", who());
            }
            Over::Answered(Err(code)) | Over::Otherwise(Outcome::Failed(code)) => match *code {
                OWN_CODE => assert!(made.operation == operation::FAIL && *starts > 0, "{} failed", who()),
                failure::WORKER_ENDED => assert!(known.crashed, "{} had no worker that ended", who()),
                failure::TIME_LIMIT => {
                    assert!(made.limit_ms > 0 && *starts > 0, "{} had no limit", who());
                }
                failure::CANCELLED => assert!(known.cancelled, "{} was not cancelled", who()),
                code => panic!("{} failed with {code}", who()),
            },
            Over::Otherwise(Outcome::Unknown) => {
                assert!(known.ended, "{} is unknown, but no lease ended", who());
                let again = made.repeatable && made.only.is_none();
                assert!(!again || known.losses >= 3, "{} was not tried again", who());
            }
            Over::Otherwise(Outcome::LeaseEnded) => {
                assert!(made.only.is_some() && (made.repeatable || *starts == 0), "{} did not run", who());
            }
            Over::Otherwise(Outcome::NoSlots) => panic!("{}: nobody said that there are none", who()),
        }
        known.over = Some(over);
    }

    /// What became of them all.
    pub(super) fn account(&self) -> Account {
        let mut account = Account { made: self.calls.len(), ..Account::default() };
        for known in self.calls.values() {
            account.starts += known.starts as usize;
            let counted = match &known.over {
                Some(Over::Answered(Ok(_))) => &mut account.answered,
                Some(Over::Answered(Err(_)) | Over::Otherwise(Outcome::Failed(_))) => &mut account.failed,
                Some(Over::Otherwise(Outcome::Unknown)) => &mut account.unknown,
                Some(Over::Otherwise(_)) => &mut account.unrun,
                None if known.abandoned => &mut account.abandoned,
                None => continue,
            };
            *counted += 1;
        }
        account
    }
}
