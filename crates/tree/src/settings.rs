//! Numbers that an owner or a pool may choose.

use core::time::Duration;
use mutirao_wire::limits;

/// Limits and timings of one [`Core`](crate::Core).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Children taken before joiners are passed down.
    pub fan_out: usize,
    /// Children taken at all.
    pub children_max: usize,
    /// How long changes of the summary are gathered before they go up.
    pub coalesce: Duration,
    /// A summary younger than this, or one that slots were granted from since, is not believed when it
    /// says that nothing is free: releases travel up as late as by `coalesce` a level.
    pub settle: Duration,
    /// How often one node asks its children for the rest of one search.
    pub rounds_max: u8,
    /// An attach that is not completed for this long is void.
    pub commit: Duration,
    /// A dial that is not answered for this long is given up.
    pub dial: Duration,
    /// The first pause after all candidates failed; doubles up to `retry_max`.
    pub retry: Duration,
    /// The longest such pause.
    pub retry_max: Duration,
    /// A node that could balance its subtree better does so once its shape has not changed for this long,
    /// by one move at a time, with such a pause between any two. `None`: never.
    pub rebalance: Option<Duration>,
    /// A relative that was lost is sought for this long, then forgotten. Nodes named by
    /// [`Input::Join`](crate::Input::Join) are sought for ever.
    pub forget: Duration,
    /// How long the confirmation of slots on which no worker is to start may wait.
    pub unhurried: Duration,
    /// A grant nobody confirms for this long is taken back; searches are remembered as long.
    pub first_life: Duration,
    /// A lease whose home is out of reach for this long lapses.
    pub lapse: Duration,
    /// How much longer than `lapse` a home waits before it believes a lease lost.
    pub margin: Duration,
    /// Searches remembered.
    pub searches_max: usize,
    /// Questions under way.
    pub questions_max: usize,
    /// Applications at home here.
    pub apps_max: usize,
    /// Leases held through this node.
    pub held_max: usize,
    /// A waiting request that its arbiter could not serve for this long climbs on to the parent's queue.
    pub climb: Duration,
    /// A waiting request that the whole pool is too small for is told so after this long: the pool may be
    /// about to heal.
    pub short: Duration,
    /// Requests, first ones first, that an arbiter has slots kept for.
    pub keep_first: usize,
    /// Waiting requests remembered that are decided about here or passed through here.
    pub queue_max: usize,
    /// Waiting requests at home here.
    pub waits_max: usize,
    /// Reservations remembered.
    pub keeps_max: usize,
    /// What a user was granted counts for half after this long.
    pub share_half_life: Duration,
}

impl Settings {
    /// The usual pause for `rebalance`.
    pub const REBALANCE: Duration = Duration::from_secs(10);
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            fan_out: limits::FAN_OUT,
            children_max: limits::CHILDREN_MAX,
            coalesce: Duration::from_millis(20),
            settle: Duration::from_millis(100),
            rounds_max: 16,
            commit: limits::COMMIT,
            dial: limits::HANDSHAKE,
            retry: Duration::from_millis(50),
            retry_max: Duration::from_millis(800),
            rebalance: None,
            forget: Duration::from_secs(24 * 60 * 60),
            unhurried: Duration::from_millis(10),
            first_life: limits::FIRST_LIFE,
            lapse: limits::LAPSE,
            margin: Duration::from_secs(3),
            searches_max: 4096,
            questions_max: 256,
            apps_max: 4096,
            held_max: 2 * limits::WANT_MAX as usize,
            climb: Duration::from_millis(500),
            short: Duration::from_secs(3),
            keep_first: 32,
            queue_max: 4096,
            waits_max: 1024,
            keeps_max: 4096,
            share_half_life: Duration::from_secs(3600),
        }
    }
}
