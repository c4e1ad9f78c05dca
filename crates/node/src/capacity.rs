//! What this machine lends: what the owner wrote down, what the command line says over it, and what the
//! machine has.

use crate::error::Error;
use crate::options::{Config, Options};
use crate::sys;
use mutirao_tree::Capacity;
use mutirao_wire::limits::{LABELS_MAX, NAME_BYTES_MAX, RESOURCE_AMOUNT_MAX, RESOURCES_MAX};
use mutirao_wire::node::{Arch, Resource};
use mutirao_wire::worker::resource_variable;
use std::collections::{BTreeMap, BTreeSet};

/// What the node has to lend, or what is wrong with what it was told.
pub(crate) fn capacity(config: &Config, options: &Options) -> Result<Capacity, Error> {
    let cores =
        std::thread::available_parallelism().map_or(1, |cores| cores.get().min(u16::MAX.into()) as u16);
    let mut resources: BTreeMap<String, u32> = config.resources.clone();
    resources.extend(options.resources.iter().map(|resource| (resource.name.clone(), resource.amount)));
    let labels: BTreeSet<String> = config.labels.iter().chain(&options.labels).cloned().collect();
    check(&resources, &labels).map_err(|reason| Error::Capacity { reason })?;
    let resources = resources.into_iter().map(|(name, amount)| Resource { name, amount });
    let memory_mib = || sys::memory_mib() / 4 * 3 / u32::from(options.sharers.max(1));
    Ok(Capacity {
        slots: options.slots.or(config.slots).unwrap_or(cores),
        memory_mib: options.memory_mib.or(config.memory_mib).unwrap_or_else(memory_mib),
        resources: resources.collect(),
        arch: Arch::HERE,
        libc: sys::libc_version(),
        labels: labels.into_iter().collect(),
    })
}

fn check(resources: &BTreeMap<String, u32>, labels: &BTreeSet<String>) -> Result<(), String> {
    if resources.len() > RESOURCES_MAX {
        return Err(format!("it has {} resources; {RESOURCES_MAX} can be named", resources.len()));
    }
    if labels.len() > LABELS_MAX {
        return Err(format!("it has {} labels; there can be {LABELS_MAX}", labels.len()));
    }
    let too_long = |name: &str| name.is_empty() || name.len() > NAME_BYTES_MAX;
    for label in labels {
        if too_long(label) || label.contains(|c: char| c.is_whitespace() || c.is_control() || c == ',') {
            return Err(format!(
                "`{label}` is no label: one has 1 to {NAME_BYTES_MAX} bytes, without spaces and commas"
            ));
        }
    }
    let mut variables = BTreeMap::new();
    for (name, amount) in resources {
        let odd = |c: char| !(c.is_ascii_alphanumeric() || "_-.".contains(c));
        if too_long(name) || name.contains(odd) {
            return Err(format!(
                "`{name}` is no name of a resource: one has 1 to {NAME_BYTES_MAX} letters, digits, `_`, `-` or `.`"
            ));
        }
        if !(1..=RESOURCE_AMOUNT_MAX).contains(amount) {
            return Err(format!("it has {amount} of `{name}`; 1 to {RESOURCE_AMOUNT_MAX} can be lent"));
        }
        if let Some(other) = variables.insert(resource_variable(name), name) {
            return Err(format!("workers could not tell `{other}` and `{name}` apart; rename one of them"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(change: impl FnOnce(&mut Config)) -> String {
        let mut config = Config::default();
        change(&mut config);
        capacity(&config, &Options::new("/nowhere", "n")).unwrap_err().to_string()
    }

    #[test]
    fn the_command_line_adds_labels_and_overrides_amounts() {
        let mut config = Config { memory_mib: Some(100), labels: vec!["ssd".into()], ..Config::default() };
        config.resources = BTreeMap::from([("gpu".into(), 1), ("fpga".into(), 2)]);
        let options = Options {
            memory_mib: Some(8192),
            resources: vec![Resource { name: "gpu".into(), amount: 4 }],
            labels: vec!["rack=2".into(), "ssd".into()],
            ..Options::new("/nowhere", "n")
        };
        let capacity = capacity(&config, &options).unwrap();
        assert_eq!(capacity.memory_mib, 8192);
        assert_eq!(capacity.labels, ["rack=2", "ssd"]);
        let amounts: Vec<(&str, u32)> =
            capacity.resources.iter().map(|resource| (resource.name.as_str(), resource.amount)).collect();
        assert_eq!(amounts, [("fpga", 2), ("gpu", 4)]);
    }

    #[test]
    fn without_a_word_the_machine_decides() {
        let capacity = capacity(&Config::default(), &Options::new("/nowhere", "n")).unwrap();
        assert!(capacity.slots > 0 && capacity.memory_mib > 0);
        assert!(capacity.memory_mib <= sys::memory_mib());
        let four = Options { sharers: 4, ..Options::new("/nowhere", "n") };
        let shared = super::capacity(&Config::default(), &four).unwrap();
        assert_eq!(shared.memory_mib, capacity.memory_mib / 4);
    }

    #[test]
    fn what_cannot_be_lent_is_refused_in_words() {
        let resource =
            |name: &str, amount| refusal(|config| config.resources.extend([(name.to_owned(), amount)]));
        assert!(resource("gpu", 0).contains("0 of `gpu`"));
        assert!(resource("gpu", 513).contains("1 to 512"));
        assert!(resource("a b", 1).contains("`a b` is no name of a resource"));
        let alike = refusal(|config| config.resources.extend([("GPU".into(), 1), ("gpu".into(), 1)]));
        assert!(alike.contains("`GPU` and `gpu` apart"), "{alike}");
        assert!(refusal(|config| config.labels.push("a,b".into())).contains("`a,b` is no label"));
        let many = refusal(|config| config.labels.extend((0..33).map(|n| n.to_string())));
        assert!(many.contains("33 labels"), "{many}");
    }
}
