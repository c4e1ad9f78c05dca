//! Whether what is wanted fits on this node, by what it has and what is taken of it.

use crate::io::Capacity;
use mutirao_wire::limits::RESOURCE_AMOUNT_MAX;
use mutirao_wire::node::{Asker, Bundle, Hindrance, Instances, Want};
use std::collections::{BTreeMap, BTreeSet};

/// What leases hold of a node's capacity. They may hold more than there is, when it shrank since.
#[derive(Debug, Clone, Default)]
pub(crate) struct Taken {
    slots: u32,
    memory_mib: u64,
    /// The instances of each named resource.
    resources: BTreeMap<String, BTreeSet<u32>>,
}

impl Taken {
    /// Slots in all leases.
    pub(crate) fn slots(&self) -> u32 {
        self.slots
    }

    pub(crate) fn slots_free(&self, capacity: &Capacity) -> u16 {
        u32::from(capacity.slots).saturating_sub(self.slots) as u16
    }

    pub(crate) fn memory_free_mib(&self, capacity: &Capacity) -> u32 {
        u64::from(capacity.memory_mib).saturating_sub(self.memory_mib) as u32
    }

    /// Instances of the resource that nobody holds.
    pub(crate) fn resource_free(&self, capacity: &Capacity, name: &str) -> u32 {
        let all = amount_of(capacity, name);
        let taken = self.resources.get(name).map_or(0, |taken| taken.range(..all).count());
        all - taken as u32
    }

    /// How many more of `bundle` fit, and the slots of one. `idle`: no lease is on this node.
    pub(crate) fn room(&self, capacity: &Capacity, bundle: &Bundle, idle: bool) -> (u32, u16) {
        let mut most = self.memory_free_mib(capacity).checked_div(bundle.memory_mib).unwrap_or(u32::MAX);
        for (name, amount) in amounts(bundle) {
            let free = self.resource_free(capacity, name);
            most = most.min(free.checked_div(amount).unwrap_or(u32::MAX));
        }
        if bundle.exclusive {
            let fits = idle && bundle.slots <= capacity.slots && capacity.slots > 0;
            return (most.min(fits.into()), capacity.slots);
        }
        let slots = bundle.slots.max(1);
        (most.min(u32::from(self.slots_free(capacity) / slots)), slots)
    }

    /// Takes slots without a lease.
    pub(crate) fn withhold(&mut self, slots: u16) {
        self.slots += u32::from(slots);
    }

    /// Takes what one lease of `bundle` holds; which instances it gets. There must be room for it.
    pub(crate) fn take(&mut self, capacity: &Capacity, bundle: &Bundle) -> Vec<Instances> {
        self.slots += u32::from(bundle.slots);
        self.memory_mib += u64::from(bundle.memory_mib);
        let mut given = Vec::new();
        for (name, amount) in amounts(bundle).into_iter().filter(|(_, amount)| *amount > 0) {
            let taken = self.resources.entry(name.to_owned()).or_default();
            let free = (0..amount_of(capacity, name)).filter(|number| !taken.contains(number));
            let numbers: Vec<u32> = free.take(amount as usize).collect();
            taken.extend(&numbers);
            given.push(Instances { name: name.to_owned(), numbers });
        }
        given
    }

    /// Gives back what [`take`](Taken::take) took.
    pub(crate) fn give_back(&mut self, bundle: &Bundle, given: &[Instances]) {
        self.slots -= u32::from(bundle.slots);
        self.memory_mib -= u64::from(bundle.memory_mib);
        for Instances { name, numbers } in given {
            if let Some(taken) = self.resources.get_mut(name) {
                taken.retain(|number| !numbers.contains(number));
                if taken.is_empty() {
                    self.resources.remove(name);
                }
            }
        }
    }
}

/// What a bundle asks of each named resource. One that is named twice is wanted twice.
pub(crate) fn amounts(bundle: &Bundle) -> BTreeMap<&str, u32> {
    let mut amounts = BTreeMap::new();
    for resource in &bundle.resources {
        let amount: &mut u32 = amounts.entry(resource.name.as_str()).or_default();
        *amount = amount.saturating_add(resource.amount);
    }
    amounts
}

fn amount_of(capacity: &Capacity, name: &str) -> u32 {
    let found = capacity.resources.iter().find(|resource| resource.name == name);
    found.map_or(0, |resource| resource.amount.min(RESOURCE_AMOUNT_MAX))
}

/// Whether a node with this capacity will do, apart from how much of it is free.
pub(crate) fn admits(capacity: &Capacity, want: &Want) -> bool {
    want.arch.is_none_or(|arch| arch == capacity.arch)
        && want.labels.iter().all(|label| capacity.labels.contains(label))
        && !want.without.iter().any(|label| capacity.labels.contains(label))
}

/// Why the asker's plugin cannot run on a machine like this one, if it cannot.
pub(crate) fn unfit(capacity: &Capacity, asker: &Asker) -> Option<Hindrance> {
    let plugin = asker.plugin.as_ref()?;
    if plugin.arch != capacity.arch {
        let text = format!("it is built for {}, this is {}", plugin.arch, capacity.arch);
        return Some(Hindrance::Unfit(text));
    }
    let (major, minor) = plugin.libc?;
    match capacity.libc {
        Some(libc) if libc >= (major, minor) => None,
        Some((a, b)) => Some(Hindrance::Unfit(format!(
            "it needs libc {major}.{minor}, here is {a}.{b}; build it on an older system or statically"
        ))),
        None => Some(Hindrance::Unfit(format!("it needs libc {major}.{minor}, here is none"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mutirao_wire::node::{Arch, Resource};

    fn gpu(amount: u32) -> Resource {
        Resource { name: "gpu".into(), amount }
    }

    fn capacity() -> Capacity {
        Capacity {
            slots: 8,
            memory_mib: 1024,
            resources: vec![gpu(3)],
            arch: Arch::X86_64,
            libc: None,
            labels: vec!["rack=2".into(), "ssd".into()],
        }
    }

    fn bundle(resources: Vec<Resource>) -> Bundle {
        Bundle { resources, ..Bundle::default() }
    }

    #[test]
    fn a_resource_named_twice_is_counted_twice() {
        let (capacity, mut taken) = (capacity(), Taken::default());
        let room = |taken: &Taken, resources| taken.room(&capacity, &bundle(resources), true).0;
        assert_eq!(room(&taken, vec![gpu(1)]), 3);
        assert_eq!(room(&taken, vec![gpu(2), gpu(2)]), 0);
        assert_eq!(room(&taken, vec![gpu(u32::MAX), gpu(u32::MAX)]), 0);
        taken.take(&capacity, &bundle(vec![gpu(1), gpu(1)]));
        assert_eq!(room(&taken, vec![gpu(1)]), 1);
    }

    #[test]
    fn no_instance_is_held_twice_and_those_given_back_are_given_again() {
        let (capacity, mut taken) = (capacity(), Taken::default());
        let one = bundle(vec![gpu(1)]);
        let numbers = |given: &[Instances]| given.iter().flat_map(|i| i.numbers.clone()).collect::<Vec<_>>();
        let first = taken.take(&capacity, &one);
        let rest = taken.take(&capacity, &bundle(vec![gpu(2)]));
        assert_eq!((numbers(&first), numbers(&rest)), (vec![0], vec![1, 2]));
        assert_eq!(taken.resource_free(&capacity, "gpu"), 0);
        taken.give_back(&one, &first);
        assert_eq!(numbers(&taken.take(&capacity, &one)), [0]);
        assert!(taken.take(&capacity, &Bundle::default()).is_empty());
    }

    #[test]
    fn a_shrunk_capacity_lends_nothing_until_enough_came_back() {
        let (all, mut taken) = (capacity(), Taken::default());
        let two = bundle(vec![gpu(2)]);
        let given = taken.take(&all, &two);
        let less = Capacity { slots: 1, memory_mib: 0, resources: vec![gpu(1)], ..capacity() };
        assert_eq!(taken.room(&less, &bundle(vec![gpu(1)]), false).0, 0);
        assert_eq!(taken.slots_free(&less), 0);
        taken.give_back(&two, &given);
        assert_eq!(taken.room(&less, &bundle(vec![gpu(1)]), true), (1, 1));
    }

    #[test]
    fn memory_and_exclusive_leases_bound_the_room() {
        let (capacity, mut taken) = (capacity(), Taken::default());
        let hungry = Bundle { memory_mib: 300, ..Bundle::default() };
        assert_eq!(taken.room(&capacity, &hungry, true), (3, 1));
        let exclusive = Bundle { exclusive: true, ..Bundle::default() };
        assert_eq!(taken.room(&capacity, &exclusive, true), (1, 8));
        taken.take(&capacity, &hungry);
        assert_eq!(taken.room(&capacity, &exclusive, false).0, 0);
        assert_eq!(taken.memory_free_mib(&capacity), 724);
    }

    #[test]
    fn labels_and_architecture_decide_whether_a_node_will_do() {
        let want = |labels: &[&str], without: &[&str], arch| Want {
            labels: labels.iter().map(|label| (*label).to_owned()).collect(),
            without: without.iter().map(|label| (*label).to_owned()).collect(),
            arch,
            ..Want::default()
        };
        let will_do = |want| admits(&capacity(), &want);
        assert!(will_do(want(&[], &[], None)));
        assert!(will_do(want(&["ssd", "rack=2"], &["rack=3"], Some(Arch::X86_64))));
        assert!(!will_do(want(&["ssd", "rack=3"], &[], None)));
        assert!(!will_do(want(&["ssd"], &["rack=2"], None)));
        assert!(!will_do(want(&[], &[], Some(Arch::Aarch64))));
    }
}
