//! Host files: one machine a line, as `ssh` knows it, with labels; `#` begins a comment.
//!
//! ```text
//! ana@ruby   slots=4 rack=left
//! topaz      name=t1 port=7117
//! 10.0.2.7   parent=t1
//! ```

use crate::error::At;
use crate::{NODES_MAX, WORD_CHARS_MAX, shown, words};
use core::fmt;
use mutirao_trust::Name;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// The machines of a file, in its order; no two of them have one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostFile {
    /// At least one.
    pub hosts: Vec<Host>,
}

/// One machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// The line it stands on.
    pub line: usize,
    /// `host` or `user@host`, as `ssh` takes it. Does not begin with `-`.
    pub target: String,
    /// The name of its node.
    pub name: Name,
    /// Slots to lend.
    pub slots: Option<u16>,
    /// TCP port to listen on.
    pub port: Option<u16>,
    /// What its node hangs below.
    pub parent: Option<Parent>,
    /// Which group of near machines it belongs to.
    pub rack: Option<String>,
    /// Host name or address by which the other machines reach it.
    pub address: Option<String>,
}

/// What a host's node hangs below.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parent {
    /// Another host of the file, by its place in the list.
    Host(usize),
    /// A node elsewhere: `host:port`.
    Place(String),
}

/// Where names come from that no label gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NameFrom {
    /// The host up to the first dot; of an address all digits, with `-` between them.
    #[default]
    Host,
    /// The whole host, dots and all.
    Full,
    /// `n1`, `n2` and so on, in the order of the file.
    Number,
}

/// What is wrong with a host file, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostsError {
    /// A mistake with a place.
    #[error("{at}: {mistake}")]
    Wrong {
        /// Where.
        at: At,
        /// What.
        mistake: HostMistake,
    },
    /// Nothing but comments.
    #[error("the file names no host")]
    Empty,
}

/// What can be wrong in one place of a host file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostMistake {
    /// Not `host` or `user@host`.
    #[error("`{word}` is not a host: write `host` or `user@host`")]
    BadHost {
        /// The word.
        word: String,
    },
    /// A second word that is no label.
    #[error("`{word}` is not a label: {LABELS} are known; each host has a line of its own")]
    BadLabel {
        /// The word.
        word: String,
    },
    /// A label with a value it cannot have.
    #[error("`{word}`: {label} is {expected}")]
    BadValue {
        /// The word.
        word: String,
        /// The label.
        label: &'static str,
        /// What was expected.
        expected: &'static str,
    },
    /// A label given twice to one host.
    #[error("`{label}` is given twice")]
    Twice {
        /// The label.
        label: &'static str,
    },
    /// A host from which no name can be made.
    #[error("no name can be made of `{host}`; give one by `name=`")]
    NoName {
        /// The host.
        host: String,
    },
    /// Two hosts of one name.
    #[error("`{name}` is the name of the host on line {first_line} too; tell them apart by `name=`")]
    TwoHosts {
        /// The name.
        name: Name,
        /// The line of the first.
        first_line: usize,
    },
    /// A parent that is not there.
    #[error("`{word}` is neither a host of this file nor `host:port`")]
    UnknownParent {
        /// The word.
        word: String,
    },
    /// Hosts that hang below one another.
    #[error("`{name}` would hang below itself")]
    Cycle {
        /// One of them.
        name: Name,
    },
    /// More than a file can have.
    #[error("too many: a file names at most {NODES_MAX} hosts")]
    TooMany,
}

const LABELS: &str = "`slots=`, `name=`, `parent=`, `port=`, `rack=` and `address=`";

impl HostMistake {
    fn at(self, line: usize, column: usize) -> HostsError {
        HostsError::Wrong { at: At { line, column }, mistake: self }
    }
}

impl HostFile {
    /// Reads a file's text.
    pub fn parse(text: &str, name_from: NameFrom) -> Result<HostFile, HostsError> {
        let mut hosts: Vec<Host> = Vec::new();
        let mut by_name: BTreeMap<Name, usize> = BTreeMap::new();
        let mut parents = Vec::new();
        for (i, text) in text.lines().enumerate() {
            let line = i + 1;
            let mut words = words(text);
            let Some((column, word)) = words.next() else { continue };
            if hosts.len() == NODES_MAX {
                return Err(HostMistake::TooMany.at(line, column));
            }
            let labels = Labels::read(line, words)?;
            let host =
                host_of(word).ok_or_else(|| HostMistake::BadHost { word: shown(word) }.at(line, column))?;
            let name = match labels.name {
                Some(name) => name,
                None => made_name(host, name_from, hosts.len() + 1)
                    .ok_or_else(|| HostMistake::NoName { host: shown(host) }.at(line, column))?,
            };
            if let Some(first) = by_name.insert(name.clone(), hosts.len()) {
                let first_line = hosts[first].line;
                return Err(HostMistake::TwoHosts { name, first_line }.at(line, column));
            }
            parents.extend(labels.parent.map(|(column, word)| (hosts.len(), line, column, word)));
            hosts.push(Host {
                line,
                target: word.into(),
                name,
                slots: labels.slots,
                port: labels.port,
                parent: None,
                rack: labels.rack,
                address: labels.address,
            });
        }
        for (host, line, column, word) in &parents {
            let named = Name::new(word).ok().and_then(|name| by_name.get(&name).copied());
            hosts[*host].parent = Some(match named {
                Some(parent) => Parent::Host(parent),
                None if crate::tree::is_place(word) => Parent::Place((*word).into()),
                None => {
                    return Err(HostMistake::UnknownParent { word: shown(word) }.at(*line, *column));
                }
            });
        }
        let file = HostFile { hosts };
        if let Some((host, line, column, _)) = parents.iter().find(|(host, ..)| file.level(*host).is_none()) {
            return Err(HostMistake::Cycle { name: file.hosts[*host].name.clone() }.at(*line, *column));
        }
        if file.hosts.is_empty() { Err(HostsError::Empty) } else { Ok(file) }
    }

    /// How many hosts of the file are above this one; `None` if it is below itself.
    fn level(&self, mut host: usize) -> Option<usize> {
        for level in 0..self.hosts.len() {
            match self.hosts[host].parent {
                Some(Parent::Host(parent)) => host = parent,
                _ => return Some(level),
            }
        }
        None
    }
}

impl Host {
    /// The target without the user.
    pub fn host(&self) -> &str {
        self.target.split_once('@').map_or(&self.target, |(_, host)| host)
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.target)
    }
}

/// The host in `host` or `user@host`; `None` if `ssh` or a shell might take the word for something else.
fn host_of(word: &str) -> Option<&str> {
    let (user, host) = match word.split_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, word),
    };
    let good = |text: &str, more: &str| {
        text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':')
            && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
    };
    let fine =
        word.len() <= WORD_CHARS_MAX && good(host, "._-:%") && user.is_none_or(|user| good(user, "._-"));
    fine.then_some(host)
}

fn made_name(host: &str, from: NameFrom, number: usize) -> Option<Name> {
    let text = match from {
        NameFrom::Number => format!("n{number}"),
        NameFrom::Host if host.parse::<IpAddr>().is_err() => host.split('.').next()?.to_owned(),
        NameFrom::Host => host.replace(['.', ':'], "-").trim_start_matches('-').to_owned(),
        NameFrom::Full => host.replace(':', "-").trim_start_matches('-').to_owned(),
    };
    Name::new(&text).ok()
}

/// The labels of one host.
#[derive(Default)]
struct Labels<'a> {
    slots: Option<u16>,
    name: Option<Name>,
    parent: Option<(usize, &'a str)>,
    port: Option<u16>,
    rack: Option<String>,
    address: Option<String>,
}

impl<'a> Labels<'a> {
    fn read(line: usize, words: impl Iterator<Item = (usize, &'a str)>) -> Result<Labels<'a>, HostsError> {
        let mut labels = Labels::default();
        for (column, word) in words {
            labels.set(column, word).map_err(|mistake| mistake.at(line, column))?;
        }
        Ok(labels)
    }

    fn set(&mut self, column: usize, word: &'a str) -> Result<(), HostMistake> {
        let unknown = || HostMistake::BadLabel { word: shown(word) };
        let (label, value) = word.split_once('=').ok_or_else(unknown)?;
        let bad = |label, expected| HostMistake::BadValue { word: shown(word), label, expected };
        match label {
            "slots" => {
                let slots = value.parse().ok().filter(|n| (1..=4096).contains(n));
                once(&mut self.slots, "slots", slots.ok_or_else(|| bad("slots", "a number from 1 to 4096"))?)
            }
            "name" => {
                let name = Name::new(value).map_err(|_| bad("name", NAME))?;
                once(&mut self.name, "name", name)
            }
            "parent" => once(&mut self.parent, "parent", (column, value)),
            "port" => {
                let port = value.parse().ok().filter(|port| *port != 0);
                once(&mut self.port, "port", port.ok_or_else(|| bad("port", "a number from 1 to 65535"))?)
            }
            "rack" => {
                let rack = Name::new(value).map_err(|_| bad("rack", NAME))?;
                once(&mut self.rack, "rack", rack.into())
            }
            "address" => {
                let address = host_of(value).filter(|_| !value.contains('@'));
                let address = address.ok_or_else(|| bad("address", "a host name or an address"))?;
                once(&mut self.address, "address", address.to_owned())
            }
            _ => Err(unknown()),
        }
    }
}

const NAME: &str = "a name of letters, digits, `-`, `_` and `.`";

fn once<T>(slot: &mut Option<T>, label: &'static str, value: T) -> Result<(), HostMistake> {
    if slot.is_some() {
        return Err(HostMistake::Twice { label });
    }
    *slot = Some(value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<HostFile, HostsError> {
        HostFile::parse(text, NameFrom::Host)
    }

    #[test]
    fn hosts_and_labels_are_read() {
        let text = "# lab\nana@ruby.lab.org slots=4 rack=left\n\ntopaz name=t1 port=7117 # fast\n\
                    10.0.2.7 parent=t1 address=opal\nfe80::1%eth0 parent=gw:7 name=six\n";
        let hosts = parse(text).unwrap().hosts;
        assert_eq!(
            hosts.iter().map(|host| host.name.as_str()).collect::<Vec<_>>(),
            ["ruby", "t1", "10-0-2-7", "six"]
        );
        assert_eq!(
            (hosts[0].target.as_str(), hosts[0].host(), hosts[0].slots),
            ("ana@ruby.lab.org", "ruby.lab.org", Some(4))
        );
        assert_eq!((hosts[0].rack.as_deref(), hosts[1].port, hosts[2].line), (Some("left"), Some(7117), 5));
        assert_eq!((&hosts[2].parent, hosts[2].address.as_deref()), (&Some(Parent::Host(1)), Some("opal")));
        assert_eq!(hosts[3].parent, Some(Parent::Place("gw:7".into())));
        let names = |from| {
            let file = HostFile::parse("a.x\n10.0.0.1\n", from).unwrap();
            file.hosts.into_iter().map(|host| String::from(host.name)).collect::<Vec<_>>()
        };
        assert_eq!(names(NameFrom::Full), ["a.x", "10.0.0.1"]);
        assert_eq!(names(NameFrom::Number), ["n1", "n2"]);
    }

    #[test]
    fn mistakes_are_named_with_line_and_column() {
        let begins = |text: &str, expected: &str| {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{text:?}: {error}");
        };
        begins("# x\n -oProxyCommand=x\n", "line 2, column 2: `-oProxyCommand=x` is not a host");
        begins("a@-b\n", "line 1, column 1: `a@-b` is not a host");
        begins("a;b\n", "line 1, column 1: `a;b` is not a host");
        begins("a b\n", "line 1, column 3: `b` is not a label");
        begins("a cores=2\n", "line 1, column 3: `cores=2` is not a label");
        begins("a slots=0\n", "line 1, column 3: `slots=0`: slots is a number from 1");
        begins("a port=70000\n", "line 1, column 3: `port=70000`: port is a number");
        begins("a name=b/c\n", "line 1, column 3: `name=b/c`: name is a name of");
        begins("a slots=1 slots=2\n", "line 1, column 11: `slots` is given twice");
        begins("a\nb\na.org\n", "line 3, column 1: `a` is the name of the host on line 1");
        begins("a parent=b\n", "line 1, column 3: `b` is neither a host");
        begins("a parent=b\nb parent=a\n", "line 1, column 3: `a` would hang below itself");
        begins("a parent=a\n", "line 1, column 3: `a` would hang below itself");
        begins("_\n", "line 1, column 1: no name can be made of `_`");
        assert_eq!(parse("# none\n"), Err(HostsError::Empty));
    }

    proptest! {
        #[test]
        fn any_text_is_hosts_or_an_error(text in "([a-c@. :=-]|slots=|parent=|name=|#|\n|[0-9]){0,60}") {
            match parse(&text) {
                Ok(file) => {
                    for host in &file.hosts {
                        prop_assert!(!host.target.starts_with('-') && !host.host().starts_with('-'));
                        prop_assert!(!host.target.contains([' ', ';', '\'', '"', '$']));
                    }
                    let mut names: Vec<&Name> = file.hosts.iter().map(|host| &host.name).collect();
                    names.sort();
                    names.dedup();
                    prop_assert_eq!(names.len(), file.hosts.len());
                }
                Err(HostsError::Wrong { at, .. }) => prop_assert!(at.line <= text.lines().count()),
                Err(HostsError::Empty) => {}
            }
        }
    }
}
