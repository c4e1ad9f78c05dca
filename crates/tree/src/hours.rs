//! When an owner's machine may lend: at which hours, and only while the owner leaves it alone.

use core::time::Duration;
use mutirao_wire::Tick;

const DAY: u16 = 24 * 60;
const WEEK: u16 = 7 * DAY;
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// A load that has gone down is trusted after so long.
const CALM: Duration = Duration::from_secs(30);

/// When a node may lend. The default is always.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rules {
    /// At these hours only; at any if empty.
    pub hours: Vec<Hours>,
    /// Only after nobody has typed for so long.
    pub idle: Option<Duration>,
    /// Only while the machine has no more than so much to do beside what it lends, hundredths of a processor.
    pub load_max_centi: Option<u32>,
}

/// What is known of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// Minutes since Monday, midnight, local time.
    pub minute_of_week: u16,
    /// Since when nobody has typed; `None`: nobody can.
    pub untouched: Option<Duration>,
    /// What keeps its processors busy, hundredths of a processor.
    pub load_centi: u32,
    /// Slots lent, each of which may keep one busy.
    pub lent: u16,
}

/// Watches whether the rules let a node lend.
#[derive(Debug, Default)]
pub struct Watch {
    busy_until: Tick,
}

impl Rules {
    /// Whether they ever forbid anything.
    pub fn is_empty(&self) -> bool {
        *self == Rules::default()
    }
}

impl Watch {
    /// Whether the node may lend, by what is known now.
    pub fn judge(&mut self, now: Tick, rules: &Rules, facts: &Facts) -> bool {
        let in_time =
            rules.hours.is_empty() || rules.hours.iter().any(|hours| hours.contains(facts.minute_of_week));
        let left_alone = match (rules.idle, facts.untouched) {
            (Some(idle), Some(untouched)) => untouched >= idle,
            _ => true,
        };
        // Work that is lent is no reason not to lend.
        let own = facts.load_centi.saturating_sub(u32::from(facts.lent) * 100);
        if rules.load_max_centi.is_some_and(|max| own > max) {
            self.busy_until = now + CALM;
        }
        in_time && left_alone && self.busy_until <= now
    }
}

/// A span of the week, such as `Mon-Fri 18:00-08:00`, `Sat,Sun` or `22:00-06:00` (every day). One that ends
/// before it begins goes on into the next day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hours {
    /// A bit for each day on which it begins, Monday the lowest.
    days: u8,
    /// Minutes of the day.
    from: u16,
    minutes: u16,
}

/// Why a text is no [`Hours`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` are no hours; write for example `18:00-08:00`, `Mon-Fri 18:00-08:00` or `Sat,Sun`")]
pub struct HoursError(String);

impl Hours {
    /// Whether this minute of the week is among them.
    pub fn contains(&self, minute_of_week: u16) -> bool {
        let starts = (0..7u16).filter(|day| self.days & 1 << day != 0).map(|day| day * DAY + self.from);
        let mut since = starts.map(|start| (minute_of_week % WEEK + WEEK - start) % WEEK);
        since.any(|since| since < self.minutes)
    }
}

impl core::str::FromStr for Hours {
    type Err = HoursError;

    fn from_str(text: &str) -> Result<Hours, HoursError> {
        let parse = || {
            let mut words = text.split_whitespace();
            let (first, second) = (words.next()?, words.next());
            if words.next().is_some() {
                return None;
            }
            let is_clock = first.starts_with(|c: char| c.is_ascii_digit());
            let (days, clock) = match second {
                None if is_clock => (None, Some(first)),
                None => (Some(first), None),
                Some(clock) => (Some(first), Some(clock)),
            };
            let days = days.map_or(Some(0x7f), read_days)?;
            let (from, to) = clock.map_or(Some((0, DAY)), read_clock)?;
            let minutes = if to > from { to - from } else { to + DAY - from };
            Some(Hours { days, from, minutes })
        };
        parse().ok_or_else(|| HoursError(text.to_owned()))
    }
}

fn read_days(text: &str) -> Option<u8> {
    let day = |word: &str| DAYS.iter().position(|day| word.eq_ignore_ascii_case(day));
    text.split(',').try_fold(0, |days, part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (day(first)?, day(last)?);
        let count = (last + 7 - first) % 7;
        Some((0..=count).fold(days, |days, n| days | 1 << ((first + n) % 7)))
    })
}

fn read_clock(text: &str) -> Option<(u16, u16)> {
    let minutes = |word: &str| {
        let (hour, minute) = word.split_once(':')?;
        let (hour, minute) = (hour.parse::<u16>().ok()?, minute.parse::<u16>().ok()?);
        let all = hour.checked_mul(60)?.checked_add(minute)?;
        (minute < 60 && all <= DAY).then_some(all)
    };
    let (from, to) = text.split_once('-')?;
    let (from, to) = (minutes(from)?, minutes(to)?);
    (from < DAY && from != to).then_some((from, to))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(day: u16, hour: u16) -> u16 {
        day * DAY + hour * 60
    }

    #[test]
    fn hours_read_as_people_write_them() {
        let hours = |text: &str| text.parse::<Hours>().unwrap();
        let nights = hours("Mon-Fri 18:00-08:00");
        assert!(nights.contains(at(0, 18)) && nights.contains(at(0, 23)) && nights.contains(at(1, 7)));
        assert!(!nights.contains(at(1, 8)) && !nights.contains(at(0, 7)), "Monday begins after Sunday");
        assert!(nights.contains(at(5, 7)) && !nights.contains(at(5, 8)), "Friday's night ends on Saturday");
        let weekend = hours("sat,SUN");
        assert!(weekend.contains(at(5, 0)) && weekend.contains(at(6, 23)) && !weekend.contains(at(0, 0)));
        let around = hours("Sun-Mon 00:00-24:00");
        assert!(around.contains(at(6, 5)) && around.contains(at(0, 5)) && !around.contains(at(1, 5)));
        assert!(hours("22:00-06:00").contains(at(3, 2)));
        for bad in
            ["", "18:00", "18-20", "Mon-Xyz", "25:00-26:00", "08:00-08:00", "Mon 1:00-2:00 x", "07:61-08:00"]
        {
            assert!(bad.parse::<Hours>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,30}", minute in 0..WEEK) {
            if let Ok(hours) = text.parse::<Hours>() {
                hours.contains(minute);
            }
        }
    }

    #[test]
    fn a_machine_lends_while_its_owner_leaves_it_alone() {
        let rules =
            Rules { hours: Vec::new(), idle: Some(Duration::from_secs(60)), load_max_centi: Some(50) };
        let calm =
            Facts { minute_of_week: 0, untouched: Some(Duration::from_secs(100)), load_centi: 230, lent: 2 };
        let mut watch = Watch::default();
        let second = |n: u64| Tick(n * 1_000_000);
        assert!(watch.judge(second(1), &rules, &calm), "the load is what it lends");
        let typing = Facts { untouched: Some(Duration::from_secs(3)), ..calm };
        assert!(!watch.judge(second(2), &rules, &typing));
        assert!(watch.judge(second(3), &rules, &calm));
        let busy = Facts { load_centi: 280, ..calm };
        assert!(!watch.judge(second(4), &rules, &busy));
        assert!(!watch.judge(second(5), &rules, &calm), "it may come back at once");
        assert!(watch.judge(second(34), &rules, &calm));
        assert!(watch.judge(second(35), &rules, &Facts { untouched: None, ..calm }), "nobody can type");
        let evenings = Rules { hours: vec!["18:00-20:00".parse().unwrap()], ..Rules::default() };
        assert!(!watch.judge(second(36), &evenings, &calm));
        assert!(watch.judge(second(37), &evenings, &Facts { minute_of_week: at(2, 19), ..calm }));
        assert!(Rules::default().is_empty() && !evenings.is_empty());
    }
}
