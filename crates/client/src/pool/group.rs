//! What the launcher of a group of processes tells its home, which shows it to the pool.

use super::Pool;
use super::core::{Core, now};
use crate::Error;
use mutirao_wire::local::{GroupNews, LocalMessage, ProcessNews};
use std::collections::BTreeMap;

/// What was told, for a node that comes back.
#[derive(Debug, Default)]
pub(super) struct Told {
    group: Option<GroupNews>,
    processes: BTreeMap<u32, ProcessNews>,
}

impl Told {
    /// Tells all of it again.
    pub(super) fn tell_again(&self, out: &mut Vec<u8>) {
        self.group.iter().for_each(|news| LocalMessage::from(news.clone()).put(out));
        self.processes.values().for_each(|news| LocalMessage::from(news.clone()).put(out));
    }
}

impl Pool {
    /// Tells this machine's node that this program is the launcher of a group of processes, or how that ended: first
    /// of all, and last.
    pub fn tell_group(&self, news: GroupNews) -> Result<(), Error> {
        self.tell_home(news, |core, news| core.told.group = Some(news))
    }

    /// Tells it how one of the processes stands.
    pub fn tell_process(&self, news: ProcessNews) -> Result<(), Error> {
        self.tell_home(news, |core, news| drop(core.told.processes.insert(news.row.rank, news)))
    }

    fn tell_home<N>(&self, news: N, keep: impl FnOnce(&mut Core, N)) -> Result<(), Error>
    where
        N: Clone + Into<LocalMessage>,
    {
        let mut core = self.alive()?;
        core.say(news.clone());
        keep(&mut core, news);
        core.send(now());
        self.handle.shared.submitted(&mut core, true);
        drop(self.handle.shared.settle(core));
        Ok(())
    }
}
