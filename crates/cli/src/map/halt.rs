//! When a run stops before its end.

use std::str::FromStr;

/// When to stop before the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Halt(Option<Rule>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rule {
    now: bool,
    what: What,
    many: Many,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Fail,
    Success,
    Done,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Many {
    Jobs(u64),
    Percent(u64),
}

/// What to do after a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Go on.
    GoOn,
    /// Start no more jobs, but let those that run finish.
    Soon,
    /// End those that run.
    Now,
}

/// How many jobs have ended, and how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Well.
    pub succeeded: u64,
    /// Badly.
    pub failed: u64,
}

impl Halt {
    /// What to do after a job that did well or not, with which `tally` was reached. `total` is the number of
    /// jobs there are.
    pub fn after(&self, success: bool, tally: Tally, total: u64) -> Then {
        let Some(rule) = self.0 else { return Then::GoOn };
        let (concerns, count) = match rule.what {
            What::Fail => (!success, tally.failed),
            What::Success => (success, tally.succeeded),
            What::Done => (true, tally.failed + tally.succeeded),
        };
        let reached = match rule.many {
            Many::Jobs(jobs) => count >= jobs,
            Many::Percent(percent) => count * 100 >= percent * total,
        };
        match (concerns && reached, rule.now) {
            (false, _) => Then::GoOn,
            (true, false) => Then::Soon,
            (true, true) => Then::Now,
        }
    }

    /// Whether it stops a run at all.
    pub fn may_stop(&self) -> bool {
        self.0.is_some()
    }

    /// Whether it depends on how many jobs there are.
    pub fn needs_total(&self) -> bool {
        self.0.is_some_and(|rule| matches!(rule.many, Many::Percent(_)))
    }
}

impl FromStr for Halt {
    type Err = String;

    fn from_str(text: &str) -> Result<Halt, String> {
        if text == "never" {
            return Ok(Halt(None));
        }
        let wrong = || {
            format!(
                "`{text}` does not say when: it is `never`, or `now` or `soon`, a comma, and `fail`, `success` or `done` with `=N` or `=N%`"
            )
        };
        let (when, rest) = text.split_once(',').ok_or_else(wrong)?;
        let now = match when {
            "now" => true,
            "soon" => false,
            _ => return Err(wrong()),
        };
        let (what, many) = rest.split_once('=').ok_or_else(wrong)?;
        let what = match what {
            "fail" => What::Fail,
            "success" => What::Success,
            "done" => What::Done,
            _ => return Err(wrong()),
        };
        let number = |text: &str| text.parse::<u64>().ok().filter(|&number| number > 0).ok_or_else(wrong);
        let many = match many.strip_suffix('%') {
            Some(percent) => Many::Percent(number(percent)?),
            None => Many::Jobs(number(many)?),
        };
        Ok(Halt(Some(Rule { now, what, many })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(halt: &str, success: bool, succeeded: u64, failed: u64) -> Then {
        halt.parse::<Halt>().unwrap().after(success, Tally { succeeded, failed }, 10)
    }

    #[test]
    fn a_run_stops_when_so_many_jobs_have_ended_so() {
        assert_eq!(after("never", false, 0, 9), Then::GoOn);
        assert_eq!(after("now,fail=1", false, 3, 1), Then::Now);
        assert_eq!(after("now,fail=1", true, 3, 1), Then::GoOn);
        assert_eq!(after("soon,fail=2", false, 0, 1), Then::GoOn);
        assert_eq!(after("soon,fail=2", false, 0, 2), Then::Soon);
        assert_eq!(after("now,success=2", true, 2, 5), Then::Now);
        assert_eq!(after("soon,done=50%", true, 2, 2), Then::GoOn);
        assert_eq!(after("soon,done=50%", false, 2, 3), Then::Soon);
        assert!("now,fail=10%".parse::<Halt>().unwrap().needs_total());
    }

    #[test]
    fn what_says_nothing_is_refused() {
        for text in
            ["", "now", "now,fail", "now,fail=0", "later,fail=1", "now,lost=1", "soon,done=x", "now,fail=%"]
        {
            assert!(text.parse::<Halt>().is_err(), "{text}");
        }
    }
}
