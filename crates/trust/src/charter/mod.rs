//! The charter: what a pool has agreed on, as text in TOML that administrators write and sign.
//!
//! [`Charter`] is what the text says, [`SignedCharter`] the document that every node keeps, and
//! [`change`] makes the small changes that commands offer.

mod change;
mod signed;
mod text;

pub use change::change;
pub use signed::{CharterEdition, SignedCharter};
pub use text::{CHARTER_TEXT_BYTES_MAX, CharterError};

use mutirao_wire::AppId;
use mutirao_wire::limits;
use serde::{Deserialize, Serialize, Serializer};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use toml::value::Datetime;

/// Digits of an identity that suffice to name it.
pub const ID_DIGITS_MIN: usize = 16;
/// Children of a node that may be set.
pub const FAN_OUT: RangeInclusive<u32> = 1..=limits::CHILDREN_MAX as u32;
/// Longest reason of an entry of the deny list, bytes.
pub const REASON_BYTES_MAX: usize = 200;

/// What the pool's administrators have set. The default is what holds where there is no charter.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Charter {
    /// Who may allocate by itself.
    pub admission: AdmissionMode,
    /// How long things are waited for.
    pub timings: Timings,
    /// How the tree is formed.
    pub topology: TopologyRules,
    /// Links on which encryption may be left out.
    pub trusted: Trusted,
    /// Who is let in no longer.
    pub deny: DenyLists,
    /// Who may allocate where admission is by administrators.
    pub admitted: Admitted,
}

/// Who may allocate by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AdmissionMode {
    /// Whomever the owners of the nodes accept.
    #[default]
    Open,
    /// Of those, whom an administrator has let in.
    Admin,
}

/// How long things are waited for. All in milliseconds; each has its bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timings {
    /// A beat is sent on a link when nothing else was for so long. 100 to 10,000.
    pub beat_ms: u32,
    /// A link silent for so long is lost. Three beats at least, 300 to 60,000.
    pub silence_ms: u32,
    /// A handshake that takes longer is given up. 500 to 60,000.
    pub handshake_ms: u32,
    /// An attach not completed for so long is void. 200 to 60,000.
    pub commit_ms: u32,
    /// A grant nobody confirms for so long is taken back. 1,000 to 60,000.
    pub first_life_ms: u32,
    /// A lease whose home is out of reach for so long lapses. 1,000 to 3,600,000, and no less than the silence.
    pub lapse_ms: u32,
}

impl Default for Timings {
    fn default() -> Self {
        let ms = |duration: core::time::Duration| duration.as_millis() as u32;
        Timings {
            beat_ms: ms(limits::BEAT),
            silence_ms: ms(limits::SILENCE),
            handshake_ms: ms(limits::HANDSHAKE),
            commit_ms: ms(limits::COMMIT),
            first_life_ms: ms(limits::FIRST_LIFE),
            lapse_ms: ms(limits::LAPSE),
        }
    }
}

/// How the tree is formed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TopologyRules {
    /// Children of a node before newcomers are passed down; 0 leaves it to how each node is started.
    pub fan_out: u32,
    /// Whether a tree that has grown crooked is straightened by itself.
    pub rebalance: bool,
    /// Who is to be whose parent: child to parent, by name.
    pub parents: BTreeMap<String, String>,
}

impl Default for TopologyRules {
    fn default() -> Self {
        TopologyRules { fan_out: 0, rebalance: true, parents: BTreeMap::new() }
    }
}

/// Links on which encryption may be left out.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Trusted {
    /// Pairs of nodes, by name.
    pub pairs: Vec<[String; 2]>,
    /// Networks both ends must be in, such as `10.1.0.0/16`.
    pub subnets: Vec<String>,
}

impl Trusted {
    /// Whether encryption may be left out between two nodes of these names, whose connection has these
    /// addresses.
    pub fn covers(&self, names: [&str; 2], addresses: [IpAddr; 2]) -> bool {
        let [a, b] = names;
        let pair = |pair: &[String; 2]| {
            let [one, other] = pair;
            (one == a && other == b) || (one == b && other == a)
        };
        let subnet = |subnet: &String| addresses.iter().all(|address| text::is_in(*address, subnet));
        self.pairs.iter().any(pair) || self.subnets.iter().any(subnet)
    }
}

/// Who is let in no longer: each with the reason they are told, which may be empty.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DenyLists {
    /// Nodes, by name or by [`ID_DIGITS_MIN`] or more digits of the id.
    pub nodes: BTreeMap<String, String>,
    /// Users, by name or id likewise, or as `name@node`.
    pub users: BTreeMap<String, String>,
}

/// Who may allocate where admission is by administrators.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Admitted {
    /// Users, by name, or as `name@node`: all their applications together.
    pub users: BTreeMap<String, Ceiling>,
    /// Applications, by id.
    pub applications: BTreeMap<String, Ceiling>,
}

/// How much may be held, and until when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ceiling {
    /// Most slots at a time.
    pub slots: u32,
    /// When the right ends, in UTC; none: when it is taken away.
    #[serde(serialize_with = "as_text")]
    pub until: Option<Datetime>,
}

impl Ceiling {
    /// When the right ends, seconds since 1970.
    pub fn until_unix_s(&self) -> Option<u64> {
        self.until.as_ref().and_then(text::unix_s)
    }

    /// Whether it has not ended by then.
    pub fn holds_at(&self, now_unix_s: u64) -> bool {
        self.until.is_none() || self.until_unix_s().is_some_and(|until| now_unix_s < until)
    }
}

fn as_text<S: Serializer>(until: &Option<Datetime>, serializer: S) -> Result<S::Ok, S::Error> {
    until.as_ref().map(Datetime::to_string).serialize(serializer)
}

/// Reads the id of an application: 32 hexadecimal digits.
pub fn app_id(text: &str) -> Option<AppId> {
    let hex = text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    u128::from_str_radix(text, 16).ok().filter(|_| hex).map(AppId)
}
