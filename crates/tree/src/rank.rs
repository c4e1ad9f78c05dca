//! What each user was granted lately, as far as it matters for who is served first.

use core::time::Duration;
use mutirao_wire::Tick;
use std::collections::BTreeMap;

/// Users remembered; who was granted least is forgotten first.
const USERS_MAX: usize = 1024;

/// Slot-seconds granted through this node while it was the arbiter, by user. They count for half after
/// each half-life.
pub(crate) struct Shares {
    half_life: Duration,
    of: BTreeMap<String, Share>,
}

#[derive(Clone, Copy)]
struct Share {
    slot_s: u64,
    at: Tick,
}

impl Shares {
    pub(crate) fn new(half_life: Duration) -> Shares {
        Shares { half_life: half_life.max(Duration::from_secs(1)), of: BTreeMap::new() }
    }

    /// The user was granted so much more.
    pub(crate) fn charge(&mut self, now: Tick, user: &str, slot_s: u64) {
        if slot_s == 0 {
            return;
        }
        let before = self.now(now, user);
        if self.of.len() >= USERS_MAX && !self.of.contains_key(user) {
            let least = self.of.keys().min_by_key(|user| self.now(now, user)).cloned();
            least.and_then(|user| self.of.remove(&user));
        }
        self.of.insert(user.to_owned(), Share { slot_s: before.saturating_add(slot_s), at: now });
    }

    /// What counts of it now, four steps for each doubling: small differences do not decide.
    pub(crate) fn level(&self, now: Tick, user: &str) -> u16 {
        let parts = self.now(now, user).saturating_add(1);
        let octave = parts.ilog2();
        let quarter = if octave >= 2 { parts >> (octave - 2) } else { parts << (2 - octave) } & 3;
        (4 * u64::from(octave) + quarter) as u16
    }

    fn now(&self, now: Tick, user: &str) -> u64 {
        let Some(share) = self.of.get(user) else { return 0 };
        let (age, half) = ((now - share.at).as_micros(), self.half_life.as_micros());
        let Some(left) = u32::try_from(age / half).ok().and_then(|halves| share.slot_s.checked_shr(halves))
        else {
            return 0;
        };
        // A straight line from one half to the next.
        left - (u128::from(left) * (age % half) / (2 * half)) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000_000;

    #[test]
    fn what_was_granted_counts_for_half_after_a_half_life() {
        let mut shares = Shares::new(Duration::from_secs(3600));
        shares.charge(Tick(0), "ana", 1000);
        assert_eq!(shares.now(Tick(HOUR), "ana"), 500);
        assert_eq!(shares.now(Tick(HOUR / 2), "ana"), 750);
        shares.charge(Tick(HOUR), "ana", 1000);
        assert_eq!(shares.now(Tick(2 * HOUR), "ana"), 750);
        assert_eq!(shares.now(Tick(100 * HOUR), "ana"), 0);
        assert_eq!(shares.now(Tick(0), "ben"), 0);
    }

    #[test]
    fn levels_grow_with_what_was_granted_and_small_differences_do_not_count() {
        let mut shares = Shares::new(Duration::from_secs(3600));
        let mut levels = Vec::new();
        for slot_s in [0, 1, 10, 600, 1200, 1_000_000, u64::MAX] {
            let user = slot_s.to_string();
            shares.charge(Tick(0), &user, slot_s);
            levels.push(shares.level(Tick(0), &user));
        }
        assert!(levels.is_sorted_by(|a, b| a < b), "{levels:?}");
        shares.charge(Tick(0), "610", 610);
        assert_eq!(shares.level(Tick(0), "600"), shares.level(Tick(0), "610"));
    }

    #[test]
    fn no_more_users_are_remembered_than_there_is_room_for() {
        let mut shares = Shares::new(Duration::from_secs(3600));
        for user in 0..2 * USERS_MAX as u64 {
            shares.charge(Tick(0), &user.to_string(), user + 1);
        }
        assert_eq!(shares.of.len(), USERS_MAX);
        assert_eq!(shares.now(Tick(0), "0"), 0);
        assert!(shares.now(Tick(0), &(2 * USERS_MAX as u64 - 1).to_string()) > 0);
    }
}
