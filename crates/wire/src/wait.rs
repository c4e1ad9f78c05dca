//! What is said about requests that wait: on their way up to the arbiter, and about what is kept for
//! them below it.

use crate::id::RequestId;
use crate::node::{Asker, Want};
use serde::{Deserialize, Serialize};

/// How a request waits that cannot be served at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Wait {
    /// Higher ones are served first.
    pub priority: i8,
    /// The longest it waits, milliseconds; `None`: until it is served.
    pub patience_ms: Option<u64>,
}

/// Why a request that may wait ended without slots.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum WaitEnd {
    /// As the pool is now, it could not be served even if everything were free.
    Never {
        /// Leases needed.
        needs: u32,
        /// Leases the pool could grant to this asker at most.
        has: u32,
    },
    /// It has waited as long as it was to.
    Patience,
    /// The named node has as many requests waiting as it can remember.
    Full(String),
}

/// Where a request stands among others, without its id, which settles ties.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Rank {
    /// Higher ones come first.
    pub priority: i8,
    /// What its user was granted lately, on a logarithmic scale; who had less comes first.
    pub share: u16,
    /// When the request was made, by its home's clock, milliseconds since 1970; the oldest comes first.
    /// It is compared, never waited for.
    pub born_unix_ms: u64,
}

impl Ord for Rank {
    /// The lesser is served first.
    fn cmp(&self, other: &Rank) -> core::cmp::Ordering {
        let key = |rank: &Rank| (core::cmp::Reverse(rank.priority), rank.share, rank.born_unix_ms);
        key(self).cmp(&key(other))
    }
}

impl PartialOrd for Rank {
    fn partial_cmp(&self, other: &Rank) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// Child to parent: this request waits, and I cannot serve it alone. Holds as long as the link.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Present {
    /// Which request; its attempt is 0.
    pub request: RequestId,
    /// What is wanted.
    pub want: Want,
    /// Leases needed, all at once.
    pub need: u32,
    /// Who asks.
    pub asker: Asker,
    /// See [`Rank`].
    pub priority: i8,
    /// See [`Rank`].
    pub born_unix_ms: u64,
    /// How long it has waited, as its home attests, milliseconds.
    pub waited_ms: u64,
}

/// What an arbiter has to say to the home of a waiting request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Turn {
    /// Enough is kept for it: search again, now.
    Now,
    /// Enough is no longer kept.
    Later,
    /// It is over.
    Over(WaitEnd),
}

/// Parent to child, back along the way of [`Present`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turned {
    /// Which request.
    pub request: RequestId,
    /// What has changed.
    pub turn: Turn,
}

/// Child to parent: the request that I presented waits no longer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Withdraw {
    /// Which request.
    pub request: RequestId,
    /// What was granted to it, slot-seconds; 0 if it was given up.
    pub slot_s: u64,
}

/// Parent to child: keep free slots for this request. Replaces what was said before; holds as long as
/// the link.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reserve {
    /// Which request.
    pub request: RequestId,
    /// Before whom it is served.
    pub rank: Rank,
    /// What is wanted; the count is the most that is to be kept below.
    pub want: Want,
    /// Who asks.
    pub asker: Asker,
    /// When it is expected to be served, from now, milliseconds, if that is known.
    pub start_ms: Option<u32>,
}

/// Parent to child: nothing is to be kept for this request any longer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unreserve {
    /// Which request.
    pub request: RequestId,
}

/// Child to parent: what is kept below me.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gathered {
    /// Which request.
    pub request: RequestId,
    /// Leases that could be granted to it now.
    pub held: u32,
    /// Leases that could be granted to it if nothing were lent.
    pub able: u32,
    /// Further leases that come free at the latest after so many milliseconds, in order of time.
    pub soon: Vec<(u32, u32)>,
}
