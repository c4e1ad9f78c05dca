//! How far a machine can confine a plugin.

use crate::{filter, raw};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// How well a plugin is held, from not at all to as well as this version can. Ordered.
///
/// Below [`Level::Files`] a plugin reads whatever the node's user may read, keys included: only the
/// owner's own plugins should run there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Limits and an empty environment, nothing else.
    None,
    /// No new privileges and a system-call filter: no tracing, no sockets, no signals to the node.
    Basic,
    /// And only the listed files.
    Files,
    /// And no signal leaves the worker; TCP and abstract sockets are held a second time.
    Full,
}

impl Level {
    /// The word for configuration files and listings.
    pub fn word(self) -> &'static str {
        match self {
            Level::None => "none",
            Level::Basic => "basic",
            Level::Files => "files",
            Level::Full => "full",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// What the kernel of this machine offers to hold a plugin with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The Landlock version used; 0 where there is none.
    pub landlock_abi: u8,
    /// System calls can be filtered on this kernel and architecture.
    pub seccomp: bool,
    /// An ordinary user may make user namespaces. Not needed yet.
    pub user_namespaces: bool,
    /// This process's cgroup, where it is of version 2 and can be written: memory can then be limited
    /// for a worker as a whole.
    pub cgroup: Option<PathBuf>,
}

impl Report {
    /// Only listed files can be opened.
    pub fn files(&self) -> bool {
        self.landlock_abi >= 1
    }

    /// Landlock holds TCP, besides the filter.
    pub fn network(&self) -> bool {
        self.landlock_abi >= 4
    }

    /// No signal leaves a worker.
    pub fn signals(&self) -> bool {
        self.landlock_abi >= 6
    }

    /// The level that a worker reaches here.
    pub fn level(&self) -> Level {
        match self {
            report if !report.seccomp => Level::None,
            report if !report.files() => Level::Basic,
            report if !report.signals() => Level::Files,
            _ => Level::Full,
        }
    }

    /// The same machine with no Landlock version above `abi`.
    pub fn capped(mut self, abi: Option<u8>) -> Report {
        self.landlock_abi = self.landlock_abi.min(abi.unwrap_or(u8::MAX));
        self
    }

    /// One line: the level and what it rests on.
    pub fn words(&self) -> String {
        let landlock = match self.landlock_abi {
            0 => "no Landlock".to_owned(),
            abi => format!("Landlock {abi}"),
        };
        let mut words = vec![landlock];
        words.push(if self.seccomp { "system-call filter" } else { "no system-call filter" }.to_owned());
        if self.files() && !self.signals() {
            words.push("signals kept from the node only".to_owned());
        }
        if self.cgroup.is_some() {
            words.push("cgroup writable".to_owned());
        }
        format!("{}: {}", self.level(), words.join(", "))
    }
}

/// Looks at this machine; changes nothing.
pub fn probe() -> Report {
    Report {
        landlock_abi: raw::landlock_abi(),
        seccomp: filter::SUPPORTED && raw::seccomp_errno_available(),
        user_namespaces: user_namespaces(),
        cgroup: writable_cgroup(),
    }
}

fn user_namespaces() -> bool {
    let number = |path: &str| fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<u64>().ok());
    number("/proc/sys/user/max_user_namespaces").is_some_and(|most| most > 0)
        && number("/proc/sys/kernel/unprivileged_userns_clone") != Some(0)
        && number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") != Some(1)
}

fn writable_cgroup() -> Option<PathBuf> {
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let inside = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let path = Path::new("/sys/fs/cgroup").join(inside);
    let controllers = fs::read_to_string(path.join("cgroup.controllers")).ok()?;
    let writable = rustix::fs::access(path.join("cgroup.procs"), rustix::fs::Access::WRITE_OK).is_ok();
    (writable && controllers.split_whitespace().any(|one| one == "memory")).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(landlock_abi: u8, seccomp: bool) -> Report {
        Report { landlock_abi, seccomp, user_namespaces: false, cgroup: None }
    }

    #[test]
    fn levels_are_ordered_and_follow_the_kernel() {
        assert!(Level::None < Level::Basic && Level::Basic < Level::Files && Level::Files < Level::Full);
        let level = |abi, seccomp| report(abi, seccomp).level();
        assert_eq!(level(7, false), Level::None);
        assert_eq!(level(0, true), Level::Basic);
        assert_eq!([level(1, true), level(5, true)], [Level::Files; 2]);
        assert_eq!([level(6, true), level(9, true)], [Level::Full; 2]);
        assert_eq!(report(7, true).capped(Some(2)).level(), Level::Files);
        assert_eq!(report(1, true).capped(Some(7)).landlock_abi, 1);
    }

    #[test]
    fn words_name_what_is_missing() {
        assert_eq!(report(0, true).words(), "basic: no Landlock, system-call filter");
        let words = report(3, true).words();
        assert_eq!(words, "files: Landlock 3, system-call filter, signals kept from the node only");
    }
}
