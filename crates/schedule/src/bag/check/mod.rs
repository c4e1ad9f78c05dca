//! Whether a result is believed.
//!
//! A [`Judge`] is told the results of attempts by their content hash, and says whether one of them stands
//! or how many more are wanted, each from another node. It also decides when a node is given a task whose
//! answer is known (a *spot check*). A node that fails one is caught: its votes are struck out, and what
//! was accepted because of it is named, to be done again.

mod credibility;

#[cfg(test)]
mod tests;

pub use credibility::{Standing, Standings};

use mutirao_wire::{BlobHash, NodeId};
use std::collections::BTreeMap;

/// Votes on one task, at most.
pub const VOTES_MAX: u8 = 15;

/// When a result is accepted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rule {
    /// The first one is.
    First,
    /// When more than half of so many agree. Only as many are asked for as it takes: two, of three.
    Majority {
        /// How many.
        of: u8,
    },
    /// When the estimated chance that it is right is large enough (Sarmenta 2002). The estimate grows with
    /// the spot checks that a node has passed and with those who agree.
    Credible {
        /// That chance, between 0 and 1.
        at_least: f64,
    },
}

/// What is wrong with a rule.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum RuleError {
    /// A majority of that many cannot be had.
    #[error("a majority of {0} is no majority; say 2 to {VOTES_MAX}")]
    Majority(u8),
    /// No chance.
    #[error("{0} is no chance; say one above 0.5 and below 1, such as 0.999")]
    Chance(f64),
    /// Every task would be a spot check, or the part is no part.
    #[error("a part of {0} cannot be spot checks; say 0 or more, and less than 1, such as 0.05")]
    Checks(f64),
    /// The assumed part of bad nodes.
    #[error(
        "a part of {0} of the nodes cannot be assumed to lie; say one above 0 and below 0.5, such as 0.1"
    )]
    Bad(f64),
}

/// What a vote leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The result of this attempt stands.
    Accept {
        /// The attempt.
        attempt: u64,
    },
    /// So many votes are wanted on the task, those there are included.
    More {
        /// How many.
        votes: u8,
    },
    /// There will be no agreement: as many votes as there may be differ too much.
    Undecided,
    /// It was accepted because of a node that has been caught since: do the task again.
    Redo,
}

/// A result that an attempt brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vote {
    /// Who ran it.
    pub node: NodeId,
    /// Its number.
    pub attempt: u64,
    /// The hash of what it brought.
    pub result: BlobHash,
}

/// Judges the results of one bag.
#[derive(Debug)]
pub struct Judge {
    rule: Rule,
    /// The part of all tasks that are spot checks.
    checks: f64,
    chance: u64,
    standings: Standings,
    /// Tasks on which votes are not enough yet.
    open: BTreeMap<u64, Vec<Vote>>,
    /// What was learnt of nodes since it was asked for last.
    news: BTreeMap<NodeId, Standing>,
    /// What was accepted because of a node; kept only where nodes can be caught.
    relied: BTreeMap<NodeId, Vec<u64>>,
}

impl Judge {
    /// By `rule`, with a part of spot checks among the tasks, and what is known of the nodes. The `secret`
    /// keeps nodes from knowing which tasks those are.
    pub fn new(rule: Rule, checks: f64, standings: Standings, secret: u64) -> Result<Judge, RuleError> {
        match rule {
            Rule::Majority { of } if !(2..=VOTES_MAX).contains(&of) => return Err(RuleError::Majority(of)),
            Rule::Credible { at_least } if !(at_least > 0.5 && at_least < 1.0) => {
                return Err(RuleError::Chance(at_least));
            }
            _ if !(0.0..1.0).contains(&checks) => return Err(RuleError::Checks(checks)),
            _ => {}
        }
        let (open, news, relied) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Ok(Judge { rule, checks, chance: secret, standings, open, news, relied })
    }

    /// How many votes a task wants at first.
    pub fn votes(&self) -> u8 {
        match self.rule {
            Rule::First | Rule::Credible { .. } => 1,
            Rule::Majority { of } => of / 2 + 1,
        }
    }

    /// How many votes a task wants now, those there are included.
    pub fn wanted(&self, task: u64) -> u8 {
        self.open.get(&task).map_or(self.votes(), |votes| self.wants(votes).max(self.votes()))
    }

    /// A vote of an earlier life. What such votes lead to says [`restored`](Judge::restored).
    pub fn restore_vote(&mut self, task: u64, vote: Vote) {
        if !self.standings.of(vote.node).is_caught() {
            self.open.entry(task).or_default().push(vote);
        }
    }

    /// Tasks for which the votes of an earlier life suffice, which ended before that was written down.
    pub fn restored(&mut self) -> Vec<(u64, Verdict)> {
        let open: Vec<u64> = self.open.keys().copied().collect();
        let decided = open.into_iter().map(|task| (task, self.decide(task)));
        decided.filter(|(_, verdict)| !matches!(verdict, Verdict::More { .. })).collect()
    }

    /// A task was accepted in an earlier life because of these nodes.
    pub fn restore_accepted(&mut self, task: u64, nodes: &[NodeId]) {
        if self.checks > 0.0 {
            nodes.iter().for_each(|node| self.relied.entry(*node).or_default().push(task));
        }
    }

    /// Counts a vote. One of a caught node counts nothing, nor does a second one of the same node.
    pub fn vote(&mut self, task: u64, vote: Vote) -> Verdict {
        let votes = self.open.entry(task).or_default();
        if !self.standings.of(vote.node).is_caught() && votes.iter().all(|one| one.node != vote.node) {
            votes.push(vote);
        }
        self.decide(task)
    }

    /// Nobody waits for a verdict on this task any longer.
    pub fn forget(&mut self, task: u64) {
        self.open.remove(&task);
    }

    /// Whether the next task for this node should be one whose answer is known.
    pub fn wants_check(&mut self, node: NodeId) -> bool {
        if self.checks == 0.0 || self.standings.of(node).is_caught() {
            return false;
        }
        // "splitmix64": all that is wanted of it is that a node cannot tell without the secret.
        self.chance = self.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut drawn = self.chance;
        drawn = (drawn ^ (drawn >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        drawn = (drawn ^ (drawn >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        drawn ^= drawn >> 31;
        (drawn as f64 / u64::MAX as f64) < self.checks
    }

    /// How a node did in a spot check. If it is caught by that, the tasks whose verdict changes are
    /// returned.
    pub fn checked(&mut self, node: NodeId, right: bool) -> Vec<(u64, Verdict)> {
        if right {
            self.standings.pass(node);
            self.news(node).passed += 1;
            return Vec::new();
        }
        self.caught(node)
    }

    /// What is known of the nodes now.
    pub fn standings(&self) -> &Standings {
        &self.standings
    }

    /// What was learnt of each node since this was asked last, to be added to what is kept of it.
    pub fn take_news(&mut self) -> BTreeMap<NodeId, Standing> {
        std::mem::take(&mut self.news)
    }

    fn news(&mut self, node: NodeId) -> &mut Standing {
        self.news.entry(node).or_default()
    }

    fn caught(&mut self, node: NodeId) -> Vec<(u64, Verdict)> {
        self.standings.catch(node);
        self.news(node).failed += 1;
        let mut changed: Vec<_> = self.relied.remove(&node).unwrap_or_default().into_iter().collect();
        changed.sort_unstable();
        changed.dedup();
        let mut changed: Vec<_> = changed.into_iter().map(|task| (task, Verdict::Redo)).collect();
        let voted = self.open.iter().filter(|(_, votes)| votes.iter().any(|vote| vote.node == node));
        let voted: Vec<u64> = voted.map(|(task, _)| *task).collect();
        for task in voted {
            if let Some(votes) = self.open.get_mut(&task) {
                votes.retain(|vote| vote.node != node);
            }
            changed.push((task, self.decide(task)));
        }
        changed
    }

    fn decide(&mut self, task: u64) -> Verdict {
        let votes = self.open.get(&task).map(Vec::as_slice).unwrap_or_default();
        let stands = match self.rule {
            Rule::First => votes.first().map(|vote| vote.result),
            Rule::Majority { of } => {
                groups(votes).find(|(_, group)| group.len() > usize::from(of / 2)).map(|(result, _)| result)
            }
            Rule::Credible { at_least } => self.standings.credible(votes, at_least),
        };
        if let Some(result) = stands {
            return self.accept(task, result);
        }
        if votes.len() >= usize::from(VOTES_MAX) {
            self.open.remove(&task);
            return Verdict::Undecided;
        }
        Verdict::More { votes: self.wants(votes) }
    }

    /// How many votes are wanted where these do not suffice.
    fn wants(&self, votes: &[Vote]) -> u8 {
        let most = groups(votes).map(|(_, group)| group.len() as u8).max().unwrap_or(0);
        let more = match self.rule {
            Rule::First | Rule::Credible { .. } => 1,
            Rule::Majority { of } => of / 2 + 1 - most,
        };
        (votes.len() as u8 + more).min(VOTES_MAX)
    }

    fn accept(&mut self, task: u64, result: BlobHash) -> Verdict {
        let votes = self.open.remove(&task).unwrap_or_default();
        let agreed = votes.iter().filter(|vote| vote.result == result);
        let attempt = agreed.clone().map(|vote| vote.attempt).min().unwrap_or_default();
        if self.checks > 0.0 {
            for vote in agreed {
                self.relied.entry(vote.node).or_default().push(task);
            }
        }
        for vote in votes.iter().filter(|vote| vote.result != result) {
            self.standings.outvoted(vote.node);
            self.news(vote.node).outvoted += 1;
        }
        Verdict::Accept { attempt }
    }
}

/// Votes that agree, for each result; in the order of the results' hashes.
fn groups(votes: &[Vote]) -> impl Iterator<Item = (BlobHash, Vec<NodeId>)> {
    let mut groups: BTreeMap<BlobHash, Vec<NodeId>> = BTreeMap::new();
    for vote in votes {
        groups.entry(vote.result).or_default().push(vote.node);
    }
    groups.into_iter()
}
