//! From text to a [`Charter`] and back.

use super::{
    AdmissionMode, Admitted, Ceiling, Charter, FAN_OUT, ID_DIGITS_MIN, REASON_BYTES_MAX, Timings, app_id,
};
use crate::name::Name;
use mutirao_text::At;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::IpAddr;
use time::{Date, Month, OffsetDateTime, PrimitiveDateTime, Time};
use toml::de::{DeTable, DeValue};
use toml::value::{Datetime, Offset};

/// Longest text of a charter, bytes.
pub const CHARTER_TEXT_BYTES_MAX: usize = 10_000;

/// What is wrong with the text of a charter, or with a change to it. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CharterError {
    /// It is no TOML, or has a setting there is none of, or one of the wrong kind.
    #[error("{at}: {reason}")]
    Text {
        /// Where.
        at: At,
        /// What.
        reason: String,
    },
    /// A setting has a value it cannot have.
    #[error("{}`{setting}` {reason}", .at.map(|at| format!("{at}: ")).unwrap_or_default())]
    Value {
        /// Where, in a text that somebody has just written.
        at: Option<At>,
        /// Which.
        setting: String,
        /// What is wrong with it.
        reason: String,
    },
    /// It does not fit a document.
    #[error(
        "the charter would have {bytes} bytes, but at most {CHARTER_TEXT_BYTES_MAX} are possible; take out what \
         is over, and name identities by {ID_DIGITS_MIN} digits"
    )]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// A change that says nothing: what it is to take away is not there.
    #[error("{0}")]
    NothingToDo(String),
}

impl Charter {
    /// Reads what an administrator wrote. Anything that is not known is refused, with its line.
    pub fn parse(text: &str) -> Result<Charter, CharterError> {
        if text.len() > CHARTER_TEXT_BYTES_MAX {
            return Err(CharterError::TooLong { bytes: text.len() });
        }
        let charter: Charter = toml::from_str(text).map_err(|error| at_place(text, &error))?;
        charter.check().map_err(|(setting, reason)| CharterError::Value {
            at: place_of(text, &setting),
            setting,
            reason,
        })?;
        Ok(charter)
    }

    /// Reads what a newer version may have written: settings that are not known are passed over.
    pub fn parse_known(text: &str) -> Result<Charter, CharterError> {
        if text.len() > CHARTER_TEXT_BYTES_MAX {
            return Err(CharterError::TooLong { bytes: text.len() });
        }
        let mut table: toml::Table = toml::from_str(text).map_err(|error| at_place(text, &error))?;
        forget_unknown(&mut table);
        let charter = Charter::deserialize(table).map_err(|error| CharterError::Text {
            at: At::of(text, 0),
            reason: mutirao_text::in_words(error.message()),
        })?;
        charter.check().map_err(|(setting, reason)| CharterError::Value { at: None, setting, reason })?;
        Ok(charter)
    }

    /// The setting that cannot be so, and why.
    fn check(&self) -> Result<(), (String, String)> {
        self.timings.check()?;
        let fan_out = self.topology.fan_out;
        if fan_out != 0 && !FAN_OUT.contains(&fan_out) {
            let reason = format!("is {fan_out}, but must be {} to {}, or 0", FAN_OUT.start(), FAN_OUT.end());
            return Err(("topology.fan_out".into(), reason));
        }
        for (child, parent) in &self.topology.parents {
            let setting = || format!("topology.parents.{child}");
            Name::new(child).map_err(|error| (setting(), error.to_string()))?;
            Name::new(parent).map_err(|error| (setting(), error.to_string()))?;
            if self.is_below_itself(child) {
                return Err((setting(), "closes a cycle".into()));
            }
        }
        for name in self.trusted.pairs.iter().flatten() {
            Name::new(name).map_err(|error| ("trusted.pairs".to_owned(), error.to_string()))?;
        }
        for subnet in &self.trusted.subnets {
            if !is_subnet(subnet) {
                return Err(("trusted.subnets".into(), format!("{subnet:?} is not like 10.1.0.0/16")));
            }
        }
        check_entries("deny.nodes", &self.deny.nodes, |text| Name::new(text).is_ok() || is_id(text))?;
        check_entries("deny.users", &self.deny.users, |text| is_user(text) || is_id(text))?;
        self.admitted.check()
    }

    fn is_below_itself(&self, child: &str) -> bool {
        let mut at = child;
        for _ in 0..=self.topology.parents.len() {
            match self.topology.parents.get(at) {
                None => return false,
                Some(parent) if parent == child => return true,
                Some(parent) => at = parent,
            }
        }
        true
    }

    /// The text that says this, with comments that explain it.
    pub fn to_text(&self) -> String {
        let Charter { timings, topology, trusted, deny, admitted, .. } = self;
        let mut text = String::new();
        let mut line = |line: std::fmt::Arguments<'_>| {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{line}");
        };
        line(format_args!("# The charter of the pool. Change it with `mutirao charter edit`.\n"));
        line(format_args!(
            "# Who may allocate by itself: \"open\" (whom the owners accept), or \"admin\" (of those,"
        ));
        line(format_args!("# whom an administrator has let in; see [admitted])."));
        line(format_args!(
            "admission = {}\n",
            match self.admission {
                AdmissionMode::Open => "\"open\"",
                AdmissionMode::Admin => "\"admin\"",
            }
        ));
        line(format_args!("# How long things are waited for, milliseconds."));
        line(format_args!("[timings]\nbeat_ms = {}\nsilence_ms = {}", timings.beat_ms, timings.silence_ms));
        line(format_args!("handshake_ms = {}\ncommit_ms = {}", timings.handshake_ms, timings.commit_ms));
        line(format_args!("first_life_ms = {}\nlapse_ms = {}\n", timings.first_life_ms, timings.lapse_ms));
        line(format_args!("[topology]"));
        line(format_args!(
            "# Children of a node before newcomers are passed down; 0: as each node was started."
        ));
        line(format_args!("fan_out = {}", topology.fan_out));
        line(format_args!("# Whether a tree that has grown crooked is straightened by itself."));
        line(format_args!("rebalance = {}\n", topology.rebalance));
        line(format_args!("# Who is to be whose parent: child = \"parent\"."));
        line(format_args!("[topology.parents]"));
        topology
            .parents
            .iter()
            .for_each(|(child, parent)| line(format_args!("{} = {}", key(child), quoted(parent))));
        line(format_args!("\n# Links on which encryption may be left out."));
        line(format_args!("[trusted]"));
        let pairs: Vec<String> =
            trusted.pairs.iter().map(|[a, b]| format!("[{}, {}]", quoted(a), quoted(b))).collect();
        line(format_args!("pairs = [{}]", pairs.join(", ")));
        let subnets: Vec<String> = trusted.subnets.iter().map(|subnet| quoted(subnet)).collect();
        line(format_args!("subnets = [{}]", subnets.join(", ")));
        line(format_args!(
            "\n# Who is let in no longer, by name or by 16 digits of the id, each with the reason told."
        ));
        line(format_args!("[deny.nodes]"));
        deny.nodes.iter().for_each(|(who, why)| line(format_args!("{} = {}", key(who), quoted(why))));
        line(format_args!("\n[deny.users]"));
        deny.users.iter().for_each(|(who, why)| line(format_args!("{} = {}", key(who), quoted(why))));
        line(format_args!("\n# Who may allocate where admission = \"admin\"."));
        line(format_args!("[admitted.users]"));
        admitted
            .users
            .iter()
            .for_each(|(who, right)| line(format_args!("{} = {}", key(who), ceiling(right))));
        line(format_args!("\n[admitted.applications]"));
        let applications = admitted.applications.iter();
        applications.for_each(|(who, right)| line(format_args!("{} = {}", key(who), ceiling(right))));
        text
    }
}

impl Timings {
    fn check(&self) -> Result<(), (String, String)> {
        let least_silence = self.beat_ms.saturating_mul(3).max(300);
        let bounds = [
            ("beat_ms", self.beat_ms, 100, 10_000),
            ("silence_ms", self.silence_ms, least_silence, 60_000),
            ("handshake_ms", self.handshake_ms, 500, 60_000),
            ("commit_ms", self.commit_ms, 200, 60_000),
            ("first_life_ms", self.first_life_ms, 1_000, 60_000),
            ("lapse_ms", self.lapse_ms, self.silence_ms.max(1_000), 3_600_000),
        ];
        match bounds.iter().find(|(_, value, least, most)| value < least || value > most) {
            Some((name, value, least, most)) => {
                Err((format!("timings.{name}"), format!("is {value}, but must be {least} to {most}")))
            }
            None => Ok(()),
        }
    }
}

impl Admitted {
    fn check(&self) -> Result<(), (String, String)> {
        let bad =
            |list: &str, who: &str, what: &str| Err((format!("admitted.{list}.{who}"), what.to_owned()));
        for (list, entries, good) in [
            ("users", &self.users, is_user as fn(&str) -> bool),
            ("applications", &self.applications, |text| app_id(text).is_some()),
        ] {
            for (who, right) in entries {
                if !good(who) {
                    return bad(list, who, "is no name of a user, or no id of an application (32 digits)");
                }
                if right.slots == 0 {
                    return bad(list, who, "may hold no slot; take the entry out instead");
                }
                if right.until.is_some() && right.until_unix_s().is_none() {
                    return bad(list, who, "`until` is not like 2027-01-31T12:00:00Z");
                }
            }
        }
        Ok(())
    }
}

fn check_entries(
    list: &str,
    entries: &BTreeMap<String, String>,
    good: impl Fn(&str) -> bool,
) -> Result<(), (String, String)> {
    for (who, reason) in entries {
        if !good(who) {
            let what = format!("is neither a name nor {ID_DIGITS_MIN} to 64 digits of an id");
            return Err((format!("{list}.{who}"), what));
        }
        if reason.len() > REASON_BYTES_MAX || reason.chars().any(char::is_control) {
            return Err((
                format!("{list}.{who}"),
                format!("has a reason that is not a line of {REASON_BYTES_MAX} bytes"),
            ));
        }
    }
    Ok(())
}

/// A user of the pool, or one of a node.
pub(super) fn is_user(text: &str) -> bool {
    match text.rsplit_once('@') {
        // A local name is what the operating system lets it be.
        Some((user, node)) => {
            !user.is_empty()
                && user.len() <= 63
                && !user.chars().any(char::is_control)
                && Name::new(node).is_ok()
        }
        None => Name::new(text).is_ok(),
    }
}

fn is_id(text: &str) -> bool {
    (ID_DIGITS_MIN..=64).contains(&text.len()) && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_subnet(text: &str) -> bool {
    subnet(text).is_some()
}

fn subnet(text: &str) -> Option<(IpAddr, u32)> {
    let (address, bits) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let bits = bits.parse().ok().filter(|bits| *bits <= most)?;
    Some((address, bits))
}

/// Whether `address` is in the network that is written so.
pub(super) fn is_in(address: IpAddr, network: &str) -> bool {
    let Some((network, bits)) = subnet(network) else { return false };
    let same = |a: u128, b: u128, width: u32| bits == 0 || (a ^ b) >> (width - bits) == 0;
    match (address.to_canonical(), network) {
        (IpAddr::V4(a), IpAddr::V4(b)) => same(a.to_bits().into(), b.to_bits().into(), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => same(a.to_bits(), b.to_bits(), 128),
        _ => false,
    }
}

/// Takes out whatever this version does not know.
fn forget_unknown(table: &mut toml::Table) {
    let keep = |table: &mut toml::Table, known: &[&str]| table.retain(|key, _| known.contains(&key));
    keep(table, &["admission", "timings", "topology", "trusted", "deny", "admitted"]);
    let sections: [(&str, &[&str]); 5] = [
        ("timings", &["beat_ms", "silence_ms", "handshake_ms", "commit_ms", "first_life_ms", "lapse_ms"]),
        ("topology", &["fan_out", "rebalance", "parents"]),
        ("trusted", &["pairs", "subnets"]),
        ("deny", &["nodes", "users"]),
        ("admitted", &["users", "applications"]),
    ];
    for (section, known) in sections {
        if let Some(toml::Value::Table(section)) = table.get_mut(section) {
            keep(section, known);
        }
    }
    if let Some(toml::Value::Table(admitted)) = table.get_mut("admitted") {
        let rights = admitted.iter_mut().filter_map(|(_, list)| list.as_table_mut());
        for (_, right) in rights.flatten() {
            if let Some(right) = right.as_table_mut() {
                keep(right, &["slots", "until"]);
            }
        }
    }
}

fn at_place(text: &str, error: &toml::de::Error) -> CharterError {
    let at = At::of(text, error.span().map_or(0, |span| span.start));
    CharterError::Text { at, reason: mutirao_text::in_words(error.message()) }
}

/// Where `setting` is set: a setting of a section, such as `timings.beat_ms`, or an entry of a list in one,
/// such as `deny.nodes.lab7`, whose name may have points itself.
fn place_of(text: &str, setting: &str) -> Option<At> {
    let document = DeTable::parse(text).ok()?;
    let mut table = document.get_ref();
    let mut place = None;
    for name in setting.splitn(3, '.') {
        let (key, value) = table.iter().find(|(key, _)| key.get_ref() == name)?;
        place = Some(At::of(text, key.span().start));
        match value.get_ref() {
            DeValue::Table(inner) => table = inner,
            _ => break,
        }
    }
    place
}

/// What a key on a line says.
pub(super) fn unquoted(key: &str) -> &str {
    key.trim().trim_matches(['"', '\''])
}

/// A key as it is written.
pub(super) fn key(text: &str) -> String {
    let bare = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    if text.bytes().all(bare) { text.into() } else { quoted(text) }
}

/// A string as it is written.
pub(super) fn quoted(text: &str) -> String {
    toml::Value::String(text.into()).to_string()
}

/// A right as it is written.
pub(super) fn ceiling(right: &Ceiling) -> String {
    match &right.until {
        Some(until) => format!("{{ slots = {}, until = {until} }}", right.slots),
        None => format!("{{ slots = {} }}", right.slots),
    }
}

/// Seconds since 1970, of a time in UTC.
pub(super) fn unix_s(datetime: &Datetime) -> Option<u64> {
    let utc = matches!(datetime.offset, Some(Offset::Z | Offset::Custom { minutes: 0 }));
    let (date, at) = (datetime.date.filter(|_| utc)?, datetime.time?);
    let date =
        Date::from_calendar_date(date.year.into(), Month::try_from(date.month).ok()?, date.day).ok()?;
    let at = Time::from_hms(at.hour, at.minute, at.second.unwrap_or(0)).ok()?;
    PrimitiveDateTime::new(date, at).assume_utc().unix_timestamp().try_into().ok()
}

/// That time, as it is written.
pub(super) fn datetime(unix_s: u64) -> Option<Datetime> {
    let at = OffsetDateTime::from_unix_timestamp(unix_s.try_into().ok()?).ok()?;
    let (year, month, day) = at.to_calendar_date();
    format!(
        "{year:04}-{:02}-{day:02}T{:02}:{:02}:{:02}Z",
        u8::from(month),
        at.hour(),
        at.minute(),
        at.second()
    )
    .parse()
    .ok()
}
