//! What the summary of a subtree lets one hope for. Hints: a subtree may have less than they say, and
//! then the search goes elsewhere.

use crate::fit::amounts;
use mutirao_wire::node::{Hindrance, Want};
use mutirao_wire::tree::{LabelSum, ResourceSum, Summary};

/// Labels and resources listed in a sentence for people.
const LISTED_MAX: usize = 6;

/// What is there of a label; `None`: not all labels are listed, it may be anywhere.
fn label(summary: &Summary, label: &str) -> Option<LabelSum> {
    let found = || summary.labels.iter().find(|sum| sum.label == label);
    (!summary.other_labels).then(|| found().cloned().unwrap_or_default())
}

/// What is there of a resource; `None`: not all resources are listed, it may be anywhere.
fn resource(summary: &Summary, name: &str) -> Option<ResourceSum> {
    let found = || summary.resources.iter().find(|sum| sum.name == name);
    (!summary.other_resources).then(|| found().cloned().unwrap_or_default())
}

/// Whether some node of the subtree could serve one bundle if nothing were lent.
fn may_have(summary: &Summary, want: &Want) -> bool {
    let bundle = &want.bundle;
    let has = |name: &String| label(summary, name).is_none_or(|sum| sum.total > 0);
    want.arch.is_none_or(|arch| summary.archs.contains(&arch))
        && bundle.slots <= summary.largest
        && bundle.memory_mib <= summary.memory.largest_mib
        && want.labels.iter().all(has)
        && (amounts(bundle).into_iter())
            .all(|(name, amount)| resource(summary, name).is_none_or(|sum| amount <= sum.largest))
}

/// Bundles that are probably free, where of the slots and idle nodes the summary speaks of so many are
/// still free.
pub(crate) fn free(summary: &Summary, want: &Want, slots: u32, idle: u32) -> u32 {
    let (bundle, each) = (&want.bundle, u32::from(want.bundle.slots.max(1)));
    let fits = bundle.exclusive || each <= u32::from(summary.largest_free);
    if !fits || bundle.memory_mib > summary.memory.largest_free_mib || !may_have(summary, want) {
        return 0;
    }
    let mut most = if bundle.exclusive { idle } else { slots / each };
    if let Some(by_memory) = summary.memory.free_mib.checked_div(bundle.memory_mib.into()) {
        most = most.min(by_memory.min(u32::MAX.into()) as u32);
    }
    for (name, amount) in amounts(bundle) {
        if let Some(sum) = resource(summary, name) {
            let free = if amount <= sum.largest_free { sum.free } else { 0 };
            most = most.min(free.checked_div(amount).unwrap_or(u32::MAX));
        }
    }
    let labels = want.labels.iter().filter_map(|name| label(summary, name));
    labels.fold(most, |most, sum| most.min(sum.free / each))
}

/// Bundles there would be if all that is lent came back.
pub(crate) fn in_all(summary: &Summary, want: &Want) -> u32 {
    if !may_have(summary, want) {
        return 0;
    }
    let (bundle, each) = (&want.bundle, u32::from(want.bundle.slots.max(1)));
    let mut most = if bundle.exclusive { summary.nodes } else { summary.slots_total / each };
    for (name, amount) in amounts(bundle) {
        if let Some(sum) = resource(summary, name) {
            most = most.min(sum.total.checked_div(amount).unwrap_or(u32::MAX));
        }
    }
    let labels = want.labels.iter().filter_map(|name| label(summary, name));
    labels.fold(most, |most, sum| most.min(sum.total / each))
}

/// Says what stands in the way of even one bundle, and what there is at best; `None` when nothing but
/// slots is wanted, of which the asker is told anyway.
pub(crate) fn lack(summary: &Summary, want: &Want) -> Option<Hindrance> {
    if let Some(text) = never(summary, want) {
        return Some(Hindrance::Lacking(text));
    }
    let constraints = want.labels.len()
        + want.without.len()
        + want.bundle.resources.len()
        + usize::from(want.bundle.memory_mib > 0)
        + usize::from(want.bundle.exclusive)
        + usize::from(want.bundle.slots > 1)
        + usize::from(want.arch.is_some());
    let together = || "no node that has all that is asked for has more of it free".to_owned();
    not_now(summary, want).or_else(|| (constraints > 0).then(together)).map(Hindrance::Busy)
}

/// What no node has, lent or not.
fn never(summary: &Summary, want: &Want) -> Option<String> {
    let bundle = &want.bundle;
    if let Some(arch) = want.arch.filter(|arch| !summary.archs.contains(arch)) {
        let there = list(summary.archs.iter().map(|arch| arch.to_string()));
        return Some(format!("no node is {arch}; there is {there}"));
    }
    for name in &want.labels {
        if label(summary, name).is_some_and(|sum| sum.total == 0) {
            let there = list(summary.labels.iter().map(|sum| format!("`{}`", sum.label)));
            return Some(format!("no node has the label `{name}`; labels there are: {there}"));
        }
    }
    if bundle.slots > summary.largest {
        let (each, largest) = (bundle.slots, summary.largest);
        return Some(format!("no node has {each} slots; the largest has {largest}"));
    }
    if bundle.memory_mib > summary.memory.largest_mib {
        let (each, largest) = (memory(bundle.memory_mib), memory(summary.memory.largest_mib));
        return Some(format!("no node has {each} of memory to lend; the largest has {largest}"));
    }
    for (name, amount) in amounts(bundle) {
        match resource(summary, name).map(|sum| sum.largest) {
            Some(0) if amount > 0 => {
                let there = list(summary.resources.iter().map(|sum| format!("`{}`", sum.name)));
                return Some(format!("no node has the resource `{name}`; resources there are: {there}"));
            }
            Some(largest) if amount > largest => {
                return Some(format!("no node has {amount} of `{name}`; the one with most has {largest}"));
            }
            _ => {}
        }
    }
    None
}

/// What no node has free.
fn not_now(summary: &Summary, want: &Want) -> Option<String> {
    let bundle = &want.bundle;
    if bundle.exclusive && summary.idle_nodes == 0 {
        return Some("on every node somebody is at work, and an exclusive lease needs one without".into());
    }
    if bundle.slots > summary.largest_free.max(1) {
        let (each, most) = (bundle.slots, summary.largest_free);
        return Some(format!("no node has {each} slots free; the one with most free has {most}"));
    }
    if bundle.memory_mib > summary.memory.largest_free_mib {
        let (each, most) = (memory(bundle.memory_mib), memory(summary.memory.largest_free_mib));
        return Some(format!("no node has {each} of memory free; the one with most free has {most}"));
    }
    for (name, amount) in amounts(bundle) {
        if let Some(sum) = resource(summary, name).filter(|sum| amount > sum.largest_free) {
            let (total, most) = (sum.total, sum.largest_free);
            let text = match sum.free {
                0 => format!("all {total} of `{name}` are in use"),
                _ => format!("no node has {amount} of `{name}` free; the one with most free has {most}"),
            };
            return Some(text);
        }
    }
    None
}

/// An amount of memory, for people.
fn memory(mib: u32) -> String {
    match mib {
        0..1024 => format!("{mib} MiB"),
        _ if mib.is_multiple_of(1024) => format!("{} GiB", mib / 1024),
        _ => format!("{:.1} GiB", f64::from(mib) / 1024.0),
    }
}

fn list(items: impl Iterator<Item = String>) -> String {
    let mut items: Vec<String> = items.collect();
    let more = items.len() > LISTED_MAX;
    items.truncate(LISTED_MAX);
    match (items.is_empty(), more) {
        (true, _) => "none".into(),
        (false, false) => items.join(", "),
        (false, true) => format!("{} and others", items.join(", ")),
    }
}
