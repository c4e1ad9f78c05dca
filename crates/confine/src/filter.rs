//! The system-call filter.
//!
//! A list of what is denied, not of what is allowed: plugins are other people's programs in any
//! language, and an allow-list that fits them all would be long, would break with each libc, and
//! would be widened in despair. What is denied is what reaches outside the worker or what enlarges
//! the kernel's surface without use to a computation; files are Landlock's. Calls newer than this
//! list answer as on an older kernel, so that nothing slips in unseen.
//!
//! An error is returned rather than the process killed: programs probe, and a probe that fails is
//! answered by another way of doing the same. Only a call through another architecture's entry
//! (32-bit on a 64-bit kernel) kills, since its numbers mean other calls.
//!
//! Signals: from Landlock 6 on the kernel keeps them inside the worker. Before, the filter denies
//! `kill` to any process but the worker's first and its group, and thread signals to the node, which leaves
//! `raise` and `abort` working, in forked children too. What is reached then: the node is safe, the
//! plugin cannot signal children by `kill`, other processes of the same user can be reached by
//! `tgkill`.

mod denied;

use crate::error::Error;
use crate::level::Report;
use crate::plan::Plan;
use denied::{Entry, When};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, SeccompRule, TargetArch, sock_filter};
use std::collections::BTreeMap;

#[cfg(target_arch = "x86_64")]
const ARCH: Option<TargetArch> = Some(TargetArch::x86_64);
#[cfg(target_arch = "aarch64")]
const ARCH: Option<TargetArch> = Some(TargetArch::aarch64);
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const ARCH: Option<TargetArch> = None;

/// Whether there is a filter for this architecture.
pub(crate) const SUPPORTED: bool = ARCH.is_some();

/// The newest call that was looked at for the list (`file_setattr`, Linux 6.17). New calls have had
/// the same number on every architecture since 2019.
const NEWEST_CALL: u32 = 469;

/// Installs the filter on this thread, for it and all it starts. Call with no new privileges set.
pub(crate) fn install(plan: &Plan, report: &Report) -> Result<(), Error> {
    let facts = When {
        network: plan.network,
        old_signals: !report.signals(),
        // Where Landlock is there but cannot hold truncation yet.
        old_truncate: report.files() && report.landlock_abi < 3,
        own_pid: std::process::id(),
        node_pid: plan.node_pid,
    };
    let mut entries = denied::entries(&facts);
    if plan.lock_group {
        entries.extend(denied::group_lock());
    }
    install_entries(entries)?;
    Ok(seccompiler::apply_filter(&unknown_calls())?)
}

/// Installs the filter behind [`crate::lock_group`].
pub(crate) fn install_group_lock() -> Result<(), Error> {
    install_entries(denied::group_lock())
}

/// One program for each error number, since a program answers all its matches alike.
fn install_entries(entries: Vec<Entry>) -> Result<(), Error> {
    for program in compile(entries)? {
        seccompiler::apply_filter(&program)?;
    }
    Ok(())
}

fn compile(entries: Vec<Entry>) -> Result<Vec<BpfProgram>, Error> {
    let Some(arch) = ARCH else { return Ok(Vec::new()) };
    let mut by_error: BTreeMap<i32, BTreeMap<i64, Vec<SeccompRule>>> = BTreeMap::new();
    for Entry { call, error, rules } in entries {
        by_error.entry(error).or_default().entry(call).or_default().extend(rules);
    }
    let program = |(error, rules): (i32, _)| {
        let deny = SeccompAction::Errno(error.unsigned_abs());
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, deny, arch);
        filter.and_then(BpfProgram::try_from).map_err(|error| Error::Filter(error.into()))
    };
    by_error.into_iter().map(program).collect()
}

/// Answers `ENOSYS` to calls above [`NEWEST_CALL`], among them the x32 entry, whose numbers begin at
/// 2^30 under the architecture of x86-64.
fn unknown_calls() -> BpfProgram {
    const NUMBER_OFFSET: u32 = 0;
    let load = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    let jump_greater = (libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K) as u16;
    let answer = (libc::BPF_RET | libc::BPF_K) as u16;
    vec![
        sock_filter { code: load, jt: 0, jf: 0, k: NUMBER_OFFSET },
        sock_filter { code: jump_greater, jt: 0, jf: 1, k: NEWEST_CALL },
        sock_filter { code: answer, jt: 0, jf: 0, k: libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs() },
        sock_filter { code: answer, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variant_compiles() {
        for bits in 0..8u8 {
            let facts = When {
                network: bits & 1 != 0,
                old_signals: bits & 2 != 0,
                old_truncate: bits & 4 != 0,
                own_pid: 7,
                node_pid: 6,
            };
            let programs = compile(denied::entries(&facts)).expect("compiles");
            assert!(programs.len() >= 3, "an error number each: {}", programs.len());
        }
    }

    /// An entry with no rules denies the call always; mixed with one that has rules, the rules of the
    /// second would silently narrow it.
    #[test]
    fn no_call_is_listed_both_with_and_without_conditions() {
        let facts = When { network: true, old_signals: true, old_truncate: true, own_pid: 7, node_pid: 6 };
        let mut seen: BTreeMap<i64, bool> = BTreeMap::new();
        for entry in denied::entries(&facts).into_iter().chain(denied::group_lock()) {
            let always = entry.rules.is_empty();
            assert_eq!(*seen.entry(entry.call).or_insert(always), always, "call {}", entry.call);
        }
    }
}
