//! Trees with short ways, from measured round trips.
//!
//! 1. The root is the node nearest to all others on average, unless one is named.
//! 2. The nodes are joined by their minimum spanning tree. Where the lengths of its edges, in order,
//!    jump by [`GAP`] or more, the longer ones are cut: what remains connected is a group, such as a
//!    rack or a site. (The largest jump that leaves groups of two nodes or more on average.)
//! 3. Each group gets its most central node as head. Heads hang below heads, with up to three quarters
//!    of the places of each, since ways between groups are the long ones; then every group is looked at
//!    by itself, for groups within it.
//! 4. Where there are no groups, nodes are placed one after another: always the one that then has the
//!    shortest way to the head, below whichever placed node with room gives it that way (the compact
//!    tree heuristic for trees of bounded degree).
//!
//! No step is random: the same matrix gives the same tree. Time grows with the square of the nodes for
//! each level of groups.

use crate::matrix::Matrix;
use crate::shape::fill;
use mutirao_wire::limits::DEPTH_MAX;

/// How much longer the shortest cut edge is than the longest kept one.
pub const GAP: f64 = 3.0;
/// Round trips below this, microseconds, are taken for this long: the difference is noise.
const FLOOR_US: f64 = 20.0;
/// Fewest places of a node that are worth dividing between other heads and its own group.
const ROOM_MIN: usize = 4;

/// The tree over all nodes of a matrix that is [complete](Matrix::complete), none with more than
/// `fan_out` children: the place of each node's parent, `None` for the root.
pub fn by_latency(matrix: &Matrix, root: Option<usize>, fan_out: usize) -> Vec<Option<usize>> {
    let mut parents = vec![None; matrix.names().len()];
    let all: Vec<usize> = (0..parents.len()).collect();
    let Some(root) = root.or_else(|| central(matrix, &all)) else { return parents };
    let fan_out = fan_out.max(1);
    Grower { matrix, fan_out, parents: &mut parents }.grow(root, all, fan_out);
    parents
}

struct Grower<'a> {
    matrix: &'a Matrix,
    fan_out: usize,
    parents: &'a mut [Option<usize>],
}

impl Grower<'_> {
    /// Hangs all of `nodes`, `head` among them, below `head`, which has `room` for children.
    fn grow(&mut self, head: usize, nodes: Vec<usize>, room: usize) {
        let groups = if room >= ROOM_MIN { groups(self.matrix, &nodes) } else { Vec::new() };
        if groups.len() < 2 {
            return place(self.matrix, head, nodes, (room, self.fan_out), self.parents);
        }
        let for_heads = |room: usize| (room - room / 4).min(groups.len() - 1);
        let (own, others) = (for_heads(room), for_heads(self.fan_out));
        let mut heads = vec![head];
        for group in groups {
            if group.contains(&head) {
                self.grow(head, group, room - own);
            } else if let Some(other) = central(self.matrix, &group) {
                heads.push(other);
                self.grow(other, group, self.fan_out - others);
            }
        }
        place(self.matrix, head, heads, (own, others), self.parents);
    }
}

/// The node with the least sum of round trips to the others.
fn central(matrix: &Matrix, nodes: &[usize]) -> Option<usize> {
    let sum = |a: usize| nodes.iter().map(|b| matrix.between(a, *b)).sum::<f64>();
    nodes.iter().copied().min_by(|a, b| sum(*a).total_cmp(&sum(*b)))
}

/// What is left connected of the minimum spanning tree when its long edges are cut; nothing if there is
/// no clear difference between long and short.
fn groups(matrix: &Matrix, nodes: &[usize]) -> Vec<Vec<usize>> {
    let mut edges = spanning(matrix, nodes);
    edges.sort_by(|a, b| a.0.total_cmp(&b.0));
    let jump = |kept: &usize| edges[*kept].0 / edges[*kept - 1].0;
    // With `kept` of the edges, the groups number `nodes.len() - kept`.
    let least_kept = nodes.len().div_ceil(2).max(1);
    let best = (least_kept..edges.len()).max_by(|a, b| jump(a).total_cmp(&jump(b)));
    let Some(kept) = best.filter(|kept| jump(kept) >= GAP) else { return Vec::new() };
    let mut group_of: Vec<usize> = (0..nodes.len()).collect();
    for (_, a, b) in &edges[..kept] {
        let (from, to) = (group_of[*b], group_of[*a]);
        group_of.iter_mut().filter(|group| **group == from).for_each(|group| *group = to);
    }
    let mut groups: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
    for (i, group) in group_of.iter().enumerate() {
        groups[*group].push(nodes[i]);
    }
    groups.retain(|group| !group.is_empty());
    groups
}

/// The edges of the minimum spanning tree: length and both ends, as places in `nodes`.
fn spanning(matrix: &Matrix, nodes: &[usize]) -> Vec<(f64, usize, usize)> {
    let mut edges = Vec::with_capacity(nodes.len());
    // For each node outside, the shortest edge to the tree.
    let mut outside: Vec<(f64, usize, usize)> = Vec::new();
    let length = |a: usize, b: usize| matrix.between(nodes[a], nodes[b]).max(FLOOR_US);
    outside.extend((1..nodes.len()).map(|i| (length(0, i), 0, i)));
    while let Some(nearest) = (0..outside.len()).min_by(|a, b| outside[*a].0.total_cmp(&outside[*b].0)) {
        let edge = outside.swap_remove(nearest);
        edges.push(edge);
        for other in &mut outside {
            let us = length(edge.2, other.2);
            if us < other.0 {
                (other.0, other.1) = (us, edge.2);
            }
        }
    }
    edges
}

/// Hangs `nodes` below `head` one after another, each by the shortest way there is when its turn comes; with
/// so much room below the head and below each of the others.
fn place(
    matrix: &Matrix,
    head: usize,
    nodes: Vec<usize>,
    room: (usize, usize),
    parents: &mut [Option<usize>],
) {
    struct Placed {
        node: usize,
        way_us: f64,
        level: usize,
        room: usize,
    }
    let mut placed = vec![Placed { node: head, way_us: 0.0, level: 1, room: room.0 }];
    let mut waiting: Vec<usize> = nodes.into_iter().filter(|node| *node != head).collect();
    let members = waiting.clone();
    // Where a node would go now: of equal ways, the one with fewer hops.
    let best = |placed: &[Placed], node: usize| {
        let mut best = (f64::INFINITY, usize::MAX, 0);
        for (i, above) in placed.iter().enumerate().filter(|(_, above)| above.room > 0) {
            let way_us = above.way_us + matrix.between(above.node, node).max(FLOOR_US);
            if (way_us, above.level) < (best.0, best.1) {
                best = (way_us, above.level, i);
            }
        }
        best
    };
    let mut ways: Vec<(f64, usize, usize)> = waiting.iter().map(|node| best(&placed, *node)).collect();
    let mut deepest = 1;
    while let Some(next) = (0..waiting.len()).min_by(|a, b| ways[*a].0.total_cmp(&ways[*b].0)) {
        let node = waiting.swap_remove(next);
        let (way_us, level, above) = ways.swap_remove(next);
        parents[node] = Some(placed[above].node);
        placed[above].room -= 1;
        placed.push(Placed { node, way_us, level: level + 1, room: room.1 });
        deepest = deepest.max(level + 1);
        let full = placed[above].room == 0;
        for (way, node) in ways.iter_mut().zip(&waiting) {
            if full && way.2 == above {
                *way = best(&placed, *node);
                continue;
            }
            let through = way_us + matrix.between(placed[placed.len() - 1].node, *node).max(FLOOR_US);
            if (through, level + 1) < (way.0, way.1) {
                *way = (through, level + 1, placed.len() - 1);
            }
        }
    }
    if deepest > DEPTH_MAX / 4 {
        // Nodes on a line would make a chain. Level by level, from near to far, is shallow at least.
        let mut members = members;
        members.sort_by(|a, b| matrix.between(head, *a).total_cmp(&matrix.between(head, *b)));
        fill(head, &members, room, parents);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matrix(n: usize, us: impl Fn(usize, usize) -> f64) -> Matrix {
        let mut matrix = Matrix::new((0..n).map(|i| format!("n{i}")).collect()).unwrap();
        for a in 0..n {
            for b in 0..n {
                matrix.set(a, b, us(a, b));
            }
        }
        matrix
    }

    fn is_tree(parents: &[Option<usize>], fan_out: usize) {
        let names: Vec<String> = (0..parents.len()).map(|i| format!("n{i}")).collect();
        let tree = crate::Topology::of(&names, parents).unwrap();
        assert!(tree.fan_out() <= fan_out);
    }

    #[test]
    fn sites_and_racks_are_found_and_entered_once() {
        // 2 sites of 3 racks of 4 nodes, in an order that says nothing.
        let place = |i: usize| ((i * 7 % 24) / 12, (i * 7 % 24) / 4);
        let us = |a: usize, b: usize| match (place(a), place(b)) {
            ((s, _), (t, _)) if s != t => 20_000.0,
            ((_, r), (_, q)) if r != q => 500.0,
            _ => 60.0 + ((a + b) % 5) as f64,
        };
        let parents = by_latency(&matrix(24, us), None, 16);
        is_tree(&parents, 16);
        let crossing = |level: fn((usize, usize)) -> usize| {
            (0..24).filter(|i| parents[*i].is_some_and(|p| level(place(p)) != level(place(*i)))).count()
        };
        assert_eq!(crossing(|(site, _)| site), 1);
        assert_eq!(crossing(|(_, rack)| rack), 5);
    }

    #[test]
    fn one_room_of_machines_is_a_star_while_there_is_room() {
        let us = |a: usize, b: usize| 100.0 + ((a * b) % 7) as f64;
        let parents = by_latency(&matrix(17, us), Some(3), 16);
        assert_eq!(parents[3], None);
        assert_eq!(parents.iter().filter(|parent| **parent == Some(3)).count(), 16);
    }

    #[test]
    fn the_longest_way_is_shorter_than_in_the_order_of_the_list() {
        let place = |i: usize| (i * 5 % 32) / 8;
        let us = |a: usize, b: usize| if place(a) == place(b) { 100.0 } else { 5_000.0 };
        let matrix = matrix(32, us);
        let longest = |parents: &[Option<usize>]| {
            let way = |mut node: usize| {
                let mut way = 0.0;
                while let Some(parent) = parents[node] {
                    way += matrix.between(node, parent);
                    node = parent;
                }
                way
            };
            (0..32).map(way).fold(0.0, f64::max)
        };
        let (near, order) = (by_latency(&matrix, None, 4), crate::shape::by_order(32, 4));
        assert!(longest(&near) * 1.2 < longest(&order), "{} against {}", longest(&near), longest(&order));
    }

    #[test]
    fn nodes_on_a_line_make_no_chain() {
        let us = |a: usize, b: usize| 1000.0 * (a.abs_diff(b)) as f64;
        is_tree(&by_latency(&matrix(500, us), Some(0), 3), 3);
    }

    proptest! {
        #[test]
        fn any_matrix_gives_a_tree(
            n in 1_usize..30, cells in prop::collection::vec(0_u32..100_000, 900), fan_out in 1_usize..20,
        ) {
            let matrix = matrix(n, |a, b| f64::from(cells[a * 30 + b]));
            let parents = by_latency(&matrix, None, fan_out);
            is_tree(&parents, fan_out);
            prop_assert_eq!(parents, by_latency(&matrix, None, fan_out));
        }
    }
}
