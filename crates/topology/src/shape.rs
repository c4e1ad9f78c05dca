//! Trees made from lists: by order, and by group.
//!
//! A tree is given as the place of each node's parent; `None` for the root.

use std::collections::BTreeMap;

/// The tree of `count` nodes as shallow as `fan_out` allows, filled level by level in the order of the list.
pub fn by_order(count: usize, fan_out: usize) -> Vec<Option<usize>> {
    let mut parents = vec![None; count];
    let members: Vec<usize> = (1..count).collect();
    fill(0, &members, (fan_out, fan_out), &mut parents);
    parents
}

/// The tree in which each group (a rack, a subnet) hangs together below its head, the first of it in the
/// list. The first node is the root. Heads hang below heads and take up to half of the places of each, so
/// that no node has more than `fan_out` children; a `fan_out` of 1 leaves no room for that, and the groups
/// then follow one another.
pub fn by_group<G: Ord>(groups: &[G], fan_out: usize) -> Vec<Option<usize>> {
    let mut parents = vec![None; groups.len()];
    let mut members: BTreeMap<&G, Vec<usize>> = BTreeMap::new();
    for (i, group) in groups.iter().enumerate() {
        members.entry(group).or_default().push(i);
    }
    let mut members: Vec<Vec<usize>> = members.into_values().collect();
    members.sort(); // by their heads
    if fan_out < 2 {
        let order = members.concat();
        if let Some((root, rest)) = order.split_first() {
            fill(*root, rest, (fan_out, fan_out), &mut parents);
        }
        return parents;
    }
    let for_heads = (fan_out / 2).min(members.len().saturating_sub(1));
    let heads: Vec<usize> = members.iter().map(|group| group[0]).collect();
    if let Some((root, others)) = heads.split_first() {
        fill(*root, others, (for_heads, for_heads), &mut parents);
    }
    for group in &members {
        fill(group[0], &group[1..], (fan_out - for_heads, fan_out), &mut parents);
    }
    parents
}

/// Hangs `members` below `head`, level by level, with so much room below the head and below each of the others.
pub(crate) fn fill(head: usize, members: &[usize], room: (usize, usize), parents: &mut [Option<usize>]) {
    let (first, others) = (room.0.max(1), room.1.max(1));
    for (i, member) in members.iter().enumerate() {
        parents[*member] = Some(if i < first { head } else { members[(i - first) / others] });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Levels of a tree, which it checks to be one.
    pub(crate) fn levels(parents: &[Option<usize>], fan_out: usize) -> usize {
        assert_eq!(parents.iter().filter(|parent| parent.is_none()).count(), 1);
        for i in 0..parents.len() {
            let children = parents.iter().filter(|parent| **parent == Some(i)).count();
            assert!(children <= fan_out, "{i} has {children} children");
        }
        let level = |mut node: usize| {
            let mut level = 1;
            while let Some(parent) = parents[node] {
                (node, level) = (parent, level + 1);
                assert!(level <= parents.len(), "a circle");
            }
            level
        };
        (0..parents.len()).map(level).max().unwrap_or(0)
    }

    #[test]
    fn a_list_becomes_a_full_tree() {
        assert_eq!(by_order(7, 2), [None, Some(0), Some(0), Some(1), Some(1), Some(2), Some(2)]);
        assert_eq!(by_order(1, 16), [None]);
        assert_eq!(levels(&by_order(205, 16), 16), 3);
    }

    #[test]
    fn racks_hang_together() {
        let racks = ["l", "r", "l", "r", "l", "r", "m"];
        let parents = by_group(&racks, 4);
        assert_eq!(parents, [None, Some(0), Some(0), Some(1), Some(0), Some(1), Some(0)]);
        // One edge enters each rack but the root's.
        let entries = |rack: &str| {
            (0..racks.len())
                .filter(|i| racks[*i] == rack)
                .filter(|i| parents[*i].is_none_or(|p| racks[p] != rack))
                .count()
        };
        assert_eq!([entries("l"), entries("m"), entries("r")], [1, 1, 1]);
        assert_eq!(levels(&by_group(&racks, 1), 1), 7);
    }

    proptest! {
        #[test]
        fn every_list_becomes_a_tree(groups in prop::collection::vec(0_u8..6, 1..80), fan_out in 1_usize..9) {
            levels(&by_order(groups.len(), fan_out), fan_out);
            let parents = by_group(&groups, fan_out);
            levels(&parents, fan_out);
            prop_assert_eq!(parents[0], None);
            for (i, parent) in parents.iter().enumerate().filter(|_| fan_out >= 2) {
                let head = !groups[..i].contains(&groups[i]);
                prop_assert!(head || parent.is_some_and(|parent| groups[parent] == groups[i]));
            }
        }
    }
}
