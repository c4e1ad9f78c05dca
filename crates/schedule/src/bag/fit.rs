use std::collections::BTreeSet;

/// The workers that could take a task now: first those where it would run at once, of these those at the
/// site with the fewest attempts, so that what runs is spread over machines and the ways to them.
#[derive(Debug, Default)]
pub(super) struct Fit {
    /// (attempts that wait there, site, worker).
    workers: BTreeSet<(u16, u32, u64)>,
    /// (attempts that wait there, attempts at the site, site), wherever there is such a worker.
    sites: BTreeSet<(u16, usize, u32)>,
}

impl Fit {
    pub(super) fn insert(&mut self, level: u16, crowd: usize, site: u32, worker: u64) {
        self.workers.insert((level, site, worker));
        self.sites.insert((level, crowd, site));
    }

    pub(super) fn remove(&mut self, level: u16, crowd: usize, site: u32, worker: u64) {
        self.workers.remove(&(level, site, worker));
        if self.at(level, site).next().is_none() {
            self.sites.remove(&(level, crowd, site));
        }
    }

    /// There were `from` attempts at a site, and are `to`.
    pub(super) fn move_site(&mut self, site: u32, from: usize, to: usize) {
        let mut least = self.level();
        while let Some(level) = least {
            if self.sites.remove(&(level, from, site)) {
                self.sites.insert((level, to, site));
            }
            let above = level.checked_add(1).and_then(|above| self.sites.range((above, 0, 0)..).next());
            least = above.map(|(level, _, _)| *level);
        }
    }

    /// The fewest attempts that wait at any.
    pub(super) fn level(&self) -> Option<u16> {
        self.workers.first().map(|(level, _, _)| *level)
    }

    /// (attempts that wait there, site, worker), in their order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u16, u32, u64)> {
        self.sites.iter().flat_map(|&(level, _, site)| self.at(level, site).map(move |at| (level, site, at)))
    }

    /// The workers at a site with so many attempts waiting.
    pub(super) fn at(&self, level: u16, site: u32) -> impl Iterator<Item = u64> {
        self.workers.range((level, site, 0)..=(level, site, u64::MAX)).map(|(_, _, worker)| *worker)
    }

    /// (attempts there, site) of all sites that have a worker with so many attempts waiting.
    pub(super) fn sites(&self, level: u16) -> impl Iterator<Item = (usize, u32)> {
        let all = self.sites.range((level, 0, 0)..=(level, usize::MAX, u32::MAX));
        all.map(|&(_, crowd, site)| (crowd, site))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_crowded_site_comes_first() {
        let mut fit = Fit::default();
        for (level, crowd, site, worker) in [(0, 2, 1, 11), (0, 2, 1, 12), (0, 1, 2, 21), (1, 0, 3, 31)] {
            fit.insert(level, crowd, site, worker);
        }
        fit.insert(1, 1, 2, 22);
        let order = |fit: &Fit| fit.iter().map(|(_, _, worker)| worker).collect::<Vec<_>>();
        assert_eq!(order(&fit), [21, 11, 12, 31, 22]);
        fit.move_site(2, 1, 3);
        assert_eq!(order(&fit), [11, 12, 21, 31, 22]);
        fit.remove(0, 2, 1, 11);
        assert_eq!(fit.sites(0).collect::<Vec<_>>(), [(2, 1), (3, 2)]);
        fit.remove(0, 2, 1, 12);
        fit.remove(0, 3, 2, 21);
        assert_eq!(order(&fit), [31, 22]);
        assert_eq!(fit.level(), Some(1));
    }
}
