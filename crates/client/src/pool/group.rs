//! What the launcher of a group of processes and its home tell each other. The home shows it to the pool.

use super::core::{Core, now};
use super::{Pool, drive};
use crate::Error;
use mutirao_wire::local::{GroupNews, LocalMessage, ProcessNews};
use std::collections::BTreeMap;

/// What was told, for a node that comes back.
#[derive(Debug, Default)]
pub(super) struct Told {
    group: Option<GroupNews>,
    processes: BTreeMap<u32, ProcessNews>,
    /// Who wants the group to end, until the program has heard it.
    end: Option<String>,
}

impl Told {
    /// Tells all of it again.
    pub(super) fn tell_again(&self, out: &mut Vec<u8>) {
        self.group.iter().for_each(|news| LocalMessage::from(news.clone()).put(out));
        self.processes.values().for_each(|news| LocalMessage::from(news.clone()).put(out));
    }
}

impl Core {
    /// Somebody wants the group to end.
    pub(super) fn group_end(&mut self, by: String) {
        self.told.end = Some(by);
    }

    /// Whether there is something for who waits on [`Pool::pipe_event_fd`].
    pub(super) fn has_pipe_news(&self) -> bool {
        self.pipes.has_news() || self.told.end.is_some()
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

    /// Who wants the group to end that this program launched, and may order that (`mutirao group kill`); `None` if
    /// nobody does, or that was said. It is told by [`pipe_event_fd`](Pool::pipe_event_fd). The node ends a program
    /// that does not end within seconds.
    pub fn take_group_end(&self) -> Option<String> {
        let mut core = self.handle.shared.lock();
        let by = core.told.end.take();
        if !core.has_pipe_news() {
            drive::clear(self.handle.shared.pipe_event());
        }
        by
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
