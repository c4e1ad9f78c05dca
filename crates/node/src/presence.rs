//! Whether the owner is at the machine, as far as the machine can tell.

use crate::sys;
use core::time::Duration;
use mutirao_tree::{Facts, Rules, Watch};
use mutirao_wire::Tick;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::SystemTime;

/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// Watches the machine for the owner's rules; does nothing where there are none.
#[derive(Debug)]
pub(crate) struct Presence {
    rules: Rules,
    /// How long what runs here may go on when the owner comes.
    pub grace: Duration,
    watch: Watch,
    /// What was found last.
    may: bool,
    next: Option<Tick>,
    /// Busy and total time of the processors, when last looked at.
    spent: Option<(u64, u64)>,
}

impl Presence {
    pub(crate) fn new(rules: Rules, grace: Duration) -> Presence {
        let next = (!rules.is_empty()).then_some(Tick(0));
        Presence { rules, grace, watch: Watch::default(), may: true, next, spent: None }
    }

    /// When to look next.
    pub(crate) fn deadline(&self) -> Option<Tick> {
        self.next
    }

    /// Looks; whether the node may lend, if that has changed. At the terminals of these devices others type.
    pub(crate) fn look(&mut self, now: Tick, lent: u16, foreign: &[u64]) -> Option<bool> {
        self.next = Some(now + LOOK);
        let facts = Facts {
            minute_of_week: sys::minute_of_week(),
            untouched: untouched(foreign),
            load_centi: self.load_centi(),
            lent,
        };
        let may = self.watch.judge(now, &self.rules, &facts);
        (core::mem::replace(&mut self.may, may) != may).then_some(may)
    }

    /// Processors kept busy since the last look, hundredths.
    fn load_centi(&mut self) -> u32 {
        let text = fs::read_to_string("/proc/stat").unwrap_or_default();
        let Some(spent) = spent(&text) else { return 0 };
        let Some(before) = self.spent.replace(spent) else { return 0 };
        let (busy, all) = (spent.0.saturating_sub(before.0), spent.1.saturating_sub(before.1));
        let processors = text.lines().filter(|line| line.starts_with("cpu")).count().saturating_sub(1) as u64;
        u32::try_from((busy * processors * 100).checked_div(all).unwrap_or(0)).unwrap_or(u32::MAX)
    }
}

/// Time that all processors were busy, and all time, in the system's ticks.
fn spent(stat: &str) -> Option<(u64, u64)> {
    let words = stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace();
    // Time of guests, at the end, is counted under their host's as well.
    let times: Vec<u64> = words.take(8).map_while(|word| word.parse().ok()).collect();
    let all: u64 = times.iter().sum();
    let idle = times.get(3)? + times.get(4)?;
    Some((all - idle, all))
}

/// Since when nobody has typed at any terminal but the foreign ones: the kernel notes when one is read.
fn untouched(foreign: &[u64]) -> Option<Duration> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs();
    let terminals = ["/dev", "/dev/pts"].into_iter().flat_map(|dir| fs::read_dir(dir).into_iter().flatten());
    let read = terminals.flatten().filter_map(|entry| {
        let name = entry.file_name();
        let name = name.to_str()?;
        let number = name.strip_prefix("tty").unwrap_or(name);
        let is_terminal = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        let facts = is_terminal.then(|| entry.metadata().ok())??;
        (!foreign.contains(&facts.rdev())).then(|| facts.atime())
    });
    let last = read.max()?;
    Some(Duration::from_secs(now.saturating_sub(u64::try_from(last).unwrap_or(0))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_time_is_all_but_idle_and_waiting() {
        let stat = "cpu  10 2 3 80 5 1 1 0 7 7\ncpu0 1 1 1 1\n";
        assert_eq!(spent(stat), Some((17, 102)));
        assert_eq!(spent("cpu 1 2"), None);
        assert_eq!(spent(""), None);
    }

    #[test]
    fn a_foreign_terminal_is_none_of_the_owners() {
        let Ok(([_driver, user], device)) = crate::pipes::terminal::make() else { return };
        assert_eq!(rustix::fs::fstat(&user).unwrap().st_rdev, device);
        let all = || {
            let entries =
                ["/dev", "/dev/pts"].into_iter().flat_map(|dir| fs::read_dir(dir).unwrap().flatten());
            entries.filter_map(|entry| Some(entry.metadata().ok()?.rdev())).collect::<Vec<u64>>()
        };
        let others: Vec<u64> = all().into_iter().filter(|other| *other != device).collect();
        assert!(untouched(&others).is_some(), "it counts as read when it was made");
        // Terminals of others may be made at any time.
        assert!((0..50).any(|_| untouched(&all()).is_none()));
    }

    #[test]
    fn without_rules_nothing_is_looked_at() {
        assert_eq!(Presence::new(Rules::default(), Duration::ZERO).deadline(), None);
        let rules = Rules { idle: Some(Duration::from_secs(u64::MAX / 2)), ..Rules::default() };
        let mut presence = Presence::new(rules, Duration::ZERO);
        assert_eq!(presence.deadline(), Some(Tick(0)));
        let found = presence.look(Tick(1), 0, &[]);
        assert_eq!(found, untouched(&[]).map(|_| false));
        assert_eq!(presence.look(Tick(2), 0, &[]), None, "only changes are told");
    }
}
