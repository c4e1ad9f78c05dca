use mutirao_wire::node::Resource;

/// What a task takes while it runs, or what a worker offers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Needs {
    /// Slots; a task takes at least one.
    pub slots: u16,
    /// Memory set aside, MiB.
    pub memory_mib: u32,
    /// Named resources, each once, in the order of their names.
    pub resources: Vec<Resource>,
}

impl Default for Needs {
    fn default() -> Needs {
        Needs { slots: 1, memory_mib: 0, resources: Vec::new() }
    }
}

impl Needs {
    /// In the form that makes equal needs compare equal: at least one slot, each resource once, none of
    /// amount 0.
    pub fn normal(mut self) -> Needs {
        self.slots = self.slots.max(1);
        self.resources.retain(|resource| resource.amount > 0);
        self.resources.sort();
        self.resources.dedup_by(|later, kept| {
            let same = later.name == kept.name;
            if same {
                kept.amount = kept.amount.saturating_add(later.amount);
            }
            same
        });
        self
    }

    /// Whether a task with `needs` fits here.
    pub fn cover(&self, needs: &Needs) -> bool {
        self.slots >= needs.slots
            && self.memory_mib >= needs.memory_mib
            && needs.resources.iter().all(|wanted| self.amount(&wanted.name) >= wanted.amount)
    }

    /// Takes `needs` away; they must be covered.
    pub(super) fn take(&mut self, needs: &Needs) {
        debug_assert!(self.cover(needs));
        self.slots -= needs.slots;
        self.memory_mib -= needs.memory_mib;
        for wanted in &needs.resources {
            if let Some(resource) = self.resources.iter_mut().find(|one| one.name == wanted.name) {
                resource.amount -= wanted.amount;
            }
        }
    }

    /// Gives back what was taken.
    pub(super) fn give(&mut self, needs: &Needs) {
        self.slots += needs.slots;
        self.memory_mib += needs.memory_mib;
        for wanted in &needs.resources {
            if let Some(resource) = self.resources.iter_mut().find(|one| one.name == wanted.name) {
                resource.amount += wanted.amount;
            }
        }
    }

    fn amount(&self, name: &str) -> u32 {
        self.resources.iter().find(|resource| resource.name == name).map_or(0, |resource| resource.amount)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpu(amount: u32) -> Resource {
        Resource { name: "gpu".into(), amount }
    }

    #[test]
    fn what_is_taken_comes_back() {
        let mut room = Needs { slots: 4, memory_mib: 1000, resources: vec![gpu(2)] };
        let whole = room.clone();
        let task = Needs { slots: 2, memory_mib: 600, resources: vec![gpu(1)] };
        assert!(room.cover(&task));
        room.take(&task);
        assert!(!room.cover(&task), "no second time: the memory does not suffice");
        room.give(&task);
        assert_eq!(room, whole);
        assert!(!Needs::default().cover(&Needs { resources: vec![gpu(1)], ..Needs::default() }));
    }

    #[test]
    fn equal_needs_have_one_form() {
        let odd = Needs { slots: 0, memory_mib: 0, resources: vec![gpu(1), gpu(0), gpu(1)] };
        assert_eq!(odd.normal(), Needs { slots: 1, memory_mib: 0, resources: vec![gpu(2)] });
    }
}
