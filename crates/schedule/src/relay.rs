//! A remote lease at its home: between the program and the data connection to the lender.
//!
//! What the program is told of its lease is one story made of two: the core's (control link and worker) and
//! that of the data connection. Frames are passed on by the node; [`Relay::passes`] says which.

use core::time::Duration;
use mutirao_wire::Tick;
use mutirao_wire::lease::LeaseEnd;
use mutirao_wire::local::LeaseChange;

/// A binding that was refused, or a data connection that could not be had, is tried again after this.
const AGAIN: Duration = Duration::from_millis(500);
/// How long the end of a lease is held back for what its lender still has to say on the stream. A
/// worker that does not say how it ended takes a second of this.
pub const LAST_WORDS: Duration = Duration::from_millis(1500);

/// One remote lease with workers, at its home.
#[derive(Debug)]
pub struct Relay {
    /// It is bound on a data connection.
    bound: bool,
    /// The control link stands.
    linked: bool,
    /// The worker is ready.
    ready: bool,
    /// The program knows that it may send.
    told: bool,
    /// The program knows that the way is broken.
    broken: bool,
    /// It was bound before: the lender then waits for `Resume`.
    bound_before: bool,
    /// It is bound anew and the program was not yet told `Restored`.
    owes_restored: bool,
    /// `Restored` told and not yet answered by `Resume`. All that comes before the last of these
    /// `Resume`s was meant for a stream that is no more.
    resumes_due: u32,
    /// It has ended; the program is told when the lender closes the stream, or then.
    ending: Option<(LeaseEnd, Tick)>,
    retry: Option<Tick>,
}

/// What the node has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Tell the program.
    Tell(LeaseChange),
    /// Bind the lease on the data connection to its lender, which may have to be dialled.
    Bind,
    /// The program was told of the end: nothing more is passed on.
    Over,
}

impl Relay {
    /// A lease just granted or, if `held`, one that a program which came back says it holds: that waits for
    /// `Restored`.
    pub fn new(held: bool) -> Relay {
        Relay {
            bound: false,
            linked: !held,
            ready: held,
            told: held,
            broken: held,
            bound_before: held,
            owes_restored: false,
            resumes_due: 0,
            ending: None,
            retry: None,
        }
    }

    /// `Bind` was sent.
    pub fn bound(&mut self, out: &mut Vec<Output>) {
        self.bound = true;
        self.retry = None;
        self.owes_restored = core::mem::replace(&mut self.bound_before, true);
        self.tell(out);
    }

    /// The data connection is lost, or the lender does not (yet, or any more) know the lease.
    pub fn unbound(&mut self, now: Tick, out: &mut Vec<Output>) {
        self.bound = false;
        if self.ending.is_some() {
            return self.end(out);
        }
        self.owes_restored = false;
        self.retry = Some(now + AGAIN);
        self.tell(out);
    }

    /// A data connection could not be had.
    pub fn no_connection(&mut self, now: Tick) {
        if !self.bound {
            self.retry = Some(now + AGAIN);
        }
    }

    /// What the core says of the lease. `hurry`: there is no time for last words.
    pub fn news(&mut self, now: Tick, change: LeaseChange, hurry: bool, out: &mut Vec<Output>) {
        if self.ending.is_some() {
            return;
        }
        match change {
            LeaseChange::Ready if self.told => out.push(Output::Tell(LeaseChange::Ready)),
            LeaseChange::Ready => self.ready = true,
            LeaseChange::Broken => self.linked = false,
            LeaseChange::Restored => self.linked = true,
            LeaseChange::Ended(end) => {
                // Results that were ready, and which calls did not start, may still be on their way.
                let unheard = matches!(
                    end,
                    LeaseEnd::LenderLost
                        | LeaseEnd::Unknown
                        | LeaseEnd::Unconfirmed
                        | LeaseEnd::Released
                        | LeaseEnd::TakenOver
                );
                let last_words = self.bound && self.told && !unheard && !hurry;
                self.ending = Some((end, now + LAST_WORDS));
                if !last_words {
                    return self.end(out);
                }
                if !core::mem::replace(&mut self.broken, true) {
                    out.push(Output::Tell(LeaseChange::Broken));
                }
                return;
            }
            other => out.push(Output::Tell(other)),
        }
        self.tell(out);
    }

    /// Whether a frame of the program may go on. One that was written before the program knew of the
    /// present stream goes nowhere: the program will resume. `resume`: it is a `Resume`.
    pub fn passes(&mut self, resume: bool) -> bool {
        if resume {
            self.resumes_due = self.resumes_due.saturating_sub(1);
        }
        self.bound && self.resumes_due == 0 && !self.owes_restored
    }

    /// When to call [`Relay::time`].
    pub fn deadline(&self) -> Option<Tick> {
        match &self.ending {
            Some((_, until)) => Some(*until),
            None => self.retry,
        }
    }

    /// Time has passed.
    pub fn time(&mut self, now: Tick, out: &mut Vec<Output>) {
        if self.ending.as_ref().is_some_and(|(_, until)| *until <= now) {
            return self.end(out);
        }
        if self.retry.take_if(|at| *at <= now).is_some() && !self.bound {
            out.push(Output::Bind);
        }
    }

    /// Tells the program what has changed for it, if anything.
    fn tell(&mut self, out: &mut Vec<Output>) {
        let open = self.linked && self.bound;
        if self.told && open == self.broken {
            self.broken = !open;
            if open {
                self.owes_restored = true;
            } else {
                out.push(Output::Tell(LeaseChange::Broken));
            }
        }
        // Also to a program that was never told `Ready`: without its `Resume` the lender stays silent.
        if open && core::mem::take(&mut self.owes_restored) {
            self.resumes_due = self.resumes_due.saturating_add(1);
            out.push(Output::Tell(LeaseChange::Restored));
        }
        if open && self.ready && !core::mem::replace(&mut self.told, true) {
            out.push(Output::Tell(LeaseChange::Ready));
        }
    }

    /// The program is told of the end, now that nothing more comes of the lease.
    fn end(&mut self, out: &mut Vec<Output>) {
        if let Some((end, _)) = self.ending.take() {
            out.push(Output::Tell(LeaseChange::Ended(end)));
        }
        out.push(Output::Over);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use LeaseChange::{Broken, Ended, Ready, Restored};

    fn done(act: impl FnOnce(&mut Vec<Output>)) -> Vec<Output> {
        let mut out = Vec::new();
        act(&mut out);
        out
    }

    fn told(changes: impl IntoIterator<Item = LeaseChange>) -> Vec<Output> {
        changes.into_iter().map(Output::Tell).collect()
    }

    #[test]
    fn a_program_sends_once_worker_and_stream_are_ready_whichever_comes_first() {
        let mut relay = Relay::new(false);
        assert_eq!(done(|out| relay.news(Tick(0), Ready, false, out)), []);
        assert_eq!(done(|out| relay.bound(out)), told([Ready]));
        let mut relay = Relay::new(false);
        assert_eq!(done(|out| relay.bound(out)), []);
        assert_eq!(done(|out| relay.news(Tick(0), Ready, false, out)), told([Ready]));
    }

    #[test]
    fn what_was_written_before_the_last_break_goes_nowhere() {
        let mut relay = Relay::new(false);
        done(|out| relay.news(Tick(0), Ready, false, out));
        done(|out| relay.bound(out));
        assert!(relay.passes(false));
        for _ in 0..2 {
            assert_eq!(done(|out| relay.unbound(Tick(0), out)), told([Broken]));
            assert!(!relay.passes(false));
            assert_eq!(done(|out| relay.bound(out)), told([Restored]));
        }
        // The first answers the first `Restored`.
        assert!(!relay.passes(true) && !relay.passes(false));
        assert!(relay.passes(true) && relay.passes(false));
    }

    #[test]
    fn a_lost_control_link_breaks_the_way_too() {
        let mut relay = Relay::new(false);
        done(|out| relay.bound(out));
        done(|out| relay.news(Tick(0), Ready, false, out));
        assert_eq!(done(|out| relay.news(Tick(0), Broken, false, out)), told([Broken]));
        assert_eq!(done(|out| relay.unbound(Tick(0), out)), []);
        assert_eq!(done(|out| relay.news(Tick(0), Restored, false, out)), []);
        assert_eq!(done(|out| relay.time(Tick(0) + AGAIN, out)), [Output::Bind]);
        assert_eq!(done(|out| relay.bound(out)), told([Restored]));
    }

    #[test]
    fn an_end_waits_for_last_words_that_can_come_and_not_for_others() {
        let mut relay = Relay::new(false);
        done(|out| relay.bound(out));
        done(|out| relay.news(Tick(0), Ready, false, out));
        let reclaimed = Ended(LeaseEnd::Reclaimed);
        assert_eq!(done(|out| relay.news(Tick(0), reclaimed.clone(), false, out)), told([Broken]));
        assert_eq!(relay.deadline(), Some(Tick(0) + LAST_WORDS));
        let over = [Output::Tell(reclaimed), Output::Over];
        assert_eq!(done(|out| relay.time(Tick(0) + LAST_WORDS, out)), over);

        let mut relay = Relay::new(false);
        done(|out| relay.bound(out));
        done(|out| relay.news(Tick(0), Ready, false, out));
        let lost = Ended(LeaseEnd::LenderLost);
        let over = [Output::Tell(lost.clone()), Output::Over];
        assert_eq!(done(|out| relay.news(Tick(0), lost, false, out)), over);
    }
}
