use super::{RuleError, Vote, groups};
use mutirao_wire::{BlobHash, NodeId};
use std::collections::BTreeMap;

/// What a submitter knows of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    /// Spot checks it passed.
    pub passed: u32,
    /// Spot checks it failed.
    pub failed: u32,
    /// Votes of it that others overruled.
    pub outvoted: u32,
}

impl Standing {
    /// The two together.
    pub fn plus(self, other: Standing) -> Standing {
        Standing {
            passed: self.passed.saturating_add(other.passed),
            failed: self.failed.saturating_add(other.failed),
            outvoted: self.outvoted.saturating_add(other.outvoted),
        }
    }

    /// Whether it has ever failed a spot check: nothing it says counts any more.
    pub fn is_caught(&self) -> bool {
        self.failed > 0
    }
}

/// What a submitter knows of all nodes; kept from bag to bag.
#[derive(Debug, Clone, PartialEq)]
pub struct Standings {
    /// The part of all nodes assumed to lie.
    bad: f64,
    nodes: BTreeMap<NodeId, Standing>,
}

impl Standings {
    /// Nobody is known. At most the part `bad` of all nodes is assumed to lie.
    pub fn new(bad: f64) -> Result<Standings, RuleError> {
        if bad > 0.0 && bad < 0.5 {
            Ok(Standings { bad, nodes: BTreeMap::new() })
        } else {
            Err(RuleError::Bad(bad))
        }
    }

    /// Adds what was known from earlier.
    pub fn restore(&mut self, node: NodeId, standing: Standing) {
        self.nodes.insert(node, standing);
    }

    /// All that is known.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, Standing)> {
        self.nodes.iter().map(|(node, standing)| (*node, *standing))
    }

    /// What is known of a node.
    pub fn of(&self, node: NodeId) -> Standing {
        self.nodes.get(&node).copied().unwrap_or_default()
    }

    /// The estimated chance that a result of this node is right: of the assumed part of liars, one that
    /// lies with some part of its results passes k checks, and then gives a wrong result, with at most
    /// the chance 1/(k e).
    pub fn credibility(&self, node: NodeId) -> f64 {
        let standing = self.of(node);
        match standing.passed {
            _ if standing.is_caught() => 0.0,
            0 => 1.0 - self.bad,
            passed => 1.0 - self.bad / (1.0 - self.bad) / (f64::from(passed) * core::f64::consts::E),
        }
    }

    /// The result that is right with a chance of `at_least`, if one is.
    ///
    /// Of all the ways in which voters can be right and wrong such that at most one result is right, those
    /// in which this one is: Sarmenta's credibility of a result group.
    pub(super) fn credible(&self, votes: &[Vote], at_least: f64) -> Option<BlobHash> {
        let chances: Vec<(BlobHash, f64, f64)> = groups(votes)
            .map(|(result, nodes)| {
                let right = nodes.iter().map(|node| self.credibility(*node)).product();
                let wrong = nodes.iter().map(|node| 1.0 - self.credibility(*node)).product();
                (result, right, wrong)
            })
            .collect();
        let all_wrong: f64 = chances.iter().map(|(_, _, wrong)| wrong).product();
        let only = |at: usize| -> f64 {
            let others = chances.iter().enumerate().filter(|(other, _)| *other != at);
            chances[at].1 * others.map(|(_, (_, _, wrong))| wrong).product::<f64>()
        };
        let possible = all_wrong + (0..chances.len()).map(only).sum::<f64>();
        (0..chances.len()).find(|at| only(*at) / possible >= at_least).map(|at| chances[at].0)
    }

    pub(super) fn pass(&mut self, node: NodeId) {
        let standing = self.nodes.entry(node).or_default();
        standing.passed = standing.passed.saturating_add(1);
    }

    pub(super) fn catch(&mut self, node: NodeId) {
        let standing = self.nodes.entry(node).or_default();
        standing.failed = standing.failed.saturating_add(1);
    }

    pub(super) fn outvoted(&mut self, node: NodeId) {
        let standing = self.nodes.entry(node).or_default();
        standing.outvoted = standing.outvoted.saturating_add(1);
    }
}
