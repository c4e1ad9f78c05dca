//! Groups of processes at home here, as their launchers tell of them: those that run, and those that ran.

use crate::sys::shortened;
use mutirao_wire::limits::{GROUP_PROCESSES_MAX, NAME_BYTES_MAX, TEXT_BYTES_MAX};
use mutirao_wire::local::{GroupNews, ProcessNews};
use mutirao_wire::query::{GroupRow, ProcessEnd, Row};
use mutirao_wire::{AppId, Tick};
use std::collections::BTreeMap;
use std::time::Duration;

/// A group that is over is remembered for so long,
const REMEMBERED: Duration = Duration::from_secs(24 * 60 * 60);
/// as long as there are not more that ended later,
const REMEMBERED_MAX: usize = 32;
/// nor what is known of all of them is more, bytes.
const REMEMBERED_BYTES_MAX: usize = 8 * 1024 * 1024;
/// A launcher that was told to end its group has so long: then it is turned away.
const GRACE: Duration = Duration::from_secs(5);
/// What one process is counted with beside its texts, bytes.
const PROCESS_BYTES: usize = 256;

/// Whose a group is: what its home knows of the program that launches it.
#[derive(Debug, Clone)]
pub(crate) struct Launcher {
    pub app: AppId,
    pub user: String,
    pub pid: u32,
    pub since: Tick,
}

/// All groups that are known.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    groups: BTreeMap<AppId, Group>,
}

#[derive(Debug)]
struct Group {
    launcher: Launcher,
    name: String,
    processes: BTreeMap<u32, ProcessNews>,
    outcome: Option<String>,
    /// Its launcher was told to end it: when it has had its time, and by whose order.
    due: Option<(Tick, String)>,
    /// When its launcher had ended.
    ended: Option<Tick>,
}

impl Groups {
    /// A launcher tells of its group.
    pub(crate) fn group(&mut self, launcher: Launcher, news: GroupNews) {
        let group = self.groups.entry(launcher.app).or_insert_with(|| Group {
            launcher,
            name: shortened(news.name, NAME_BYTES_MAX),
            processes: BTreeMap::new(),
            outcome: None,
            due: None,
            ended: None,
        });
        group.outcome = news.outcome.map(|text| shortened(text, TEXT_BYTES_MAX));
    }

    /// It tells of a process. One beyond the limit, or of no group, is passed over.
    pub(crate) fn process(&mut self, app: AppId, mut news: ProcessNews) {
        let Some(group) = self.groups.get_mut(&app) else { return };
        if news.row.rank >= GROUP_PROCESSES_MAX {
            return;
        }
        let row = &mut news.row;
        for text in [&mut row.process, &mut row.node, &mut row.state] {
            *text = shortened(std::mem::take(text), 2 * NAME_BYTES_MAX);
        }
        if let Some(end) = &mut row.end {
            end.how = shortened(std::mem::take(&mut end.how), NAME_BYTES_MAX);
            end.text = shortened(std::mem::take(&mut end.text), TEXT_BYTES_MAX);
        }
        news.last_lines = shortened(news.last_lines, TEXT_BYTES_MAX);
        group.processes.insert(news.row.rank, news);
    }

    /// Somebody wants an application to end: whether it is a group whose launcher is to be told, and is given time. One
    /// that was told before is given no more.
    pub(crate) fn ends(&mut self, now: Tick, app: AppId, by: &str) -> bool {
        let group = self.groups.get_mut(&app).filter(|group| group.ended.is_none() && group.due.is_none());
        group.map(|group| group.due = Some((now + GRACE, by.to_owned()))).is_some()
    }

    /// When a launcher has had its time.
    pub(crate) fn deadline(&self) -> Option<Tick> {
        self.groups.values().filter_map(|group| Some(group.due.as_ref()?.0)).min()
    }

    /// Those that have had it, each with by whose order they end.
    pub(crate) fn overdue(&mut self, now: Tick) -> Vec<(AppId, String)> {
        let overdue = |(app, group): (&AppId, &mut Group)| {
            let (_, by) = group.due.take_if(|(due, _)| *due <= now)?;
            Some((*app, by))
        };
        self.groups.iter_mut().filter_map(overdue).collect()
    }

    /// An application has ended; if it was a group, it is remembered for a while. Whatever of it has not ended ends
    /// with its leases.
    pub(crate) fn gone(&mut self, now: Tick, app: AppId, why: &str) {
        if let Some(group) = self.groups.get_mut(&app) {
            (group.ended, group.due) = (Some(now), None);
            group.outcome.get_or_insert_with(|| format!("its launcher is gone: {why}"));
            for ProcessNews { row, .. } in group.processes.values_mut().filter(|news| news.row.end.is_none())
            {
                let how = "ended with its group".to_owned();
                row.end = Some(ProcessEnd { text: how.clone(), how, code: None, signal: None });
                row.state = "ended".into();
            }
        }
        self.forget(now);
    }

    /// Forgets what is not to be remembered any longer.
    fn forget(&mut self, now: Tick) {
        let is_over = |(app, group): (&AppId, &Group)| Some((group.ended?, *app, group.bytes()));
        let mut over: Vec<(Tick, AppId, usize)> = self.groups.iter().filter_map(is_over).collect();
        over.sort_by_key(|(ended, ..)| std::cmp::Reverse(*ended));
        let mut bytes = 0;
        for (place, (ended, app, its_bytes)) in over.into_iter().enumerate() {
            bytes += its_bytes;
            if now - ended > REMEMBERED || place >= REMEMBERED_MAX || bytes > REMEMBERED_BYTES_MAX {
                self.groups.remove(&app);
            }
        }
    }

    /// A `Row::Group` each. `home` is this node's name.
    pub(crate) fn rows(&mut self, now: Tick, home: &str) -> Vec<Row> {
        self.forget(now);
        let row = |group: &Group| {
            let outcome = || group.outcome.clone().unwrap_or_default();
            Row::Group(GroupRow {
                app: group.launcher.app,
                name: group.name.clone(),
                user: group.launcher.user.clone(),
                home: home.to_owned(),
                pid: group.launcher.pid,
                processes: group.processes.len() as u32,
                up_s: (group.ended.unwrap_or(now) - group.launcher.since).as_secs(),
                ended: group.ended.map(|at| ((now - at).as_secs(), outcome())),
            })
        };
        self.groups.values().map(row).collect()
    }

    /// A `Row::Process` each.
    pub(crate) fn process_rows(&self, app: AppId) -> Vec<Row> {
        let group = self.groups.get(&app).into_iter();
        group.flat_map(|group| group.processes.values()).map(|news| Row::Process(news.row.clone())).collect()
    }

    /// Whose the group is, if it is known.
    pub(crate) fn user(&self, app: AppId) -> Option<&str> {
        self.groups.get(&app).map(|group| group.launcher.user.as_str())
    }

    /// A `Row::LastLines` of each process that has ended.
    pub(crate) fn last_lines(&self, app: AppId) -> Vec<Row> {
        let group = self.groups.get(&app).into_iter();
        let ended = group.flat_map(|group| group.processes.values()).filter(|news| news.row.end.is_some());
        ended.map(|news| Row::LastLines { rank: news.row.rank, text: news.last_lines.clone() }).collect()
    }
}

impl Group {
    fn bytes(&self) -> usize {
        let bytes = |news: &ProcessNews| {
            let end = news.row.end.as_ref().map_or(0, |end| end.text.len());
            PROCESS_BYTES + news.last_lines.len() + end
        };
        self.processes.values().map(bytes).sum::<usize>()
            + self.outcome.as_ref().map_or(0, String::len)
            + PROCESS_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mutirao_wire::query::ProcessRow;

    fn launcher(app: u128) -> Launcher {
        Launcher { app: AppId(app), user: "ana@n1".into(), pid: 7, since: Tick(0) }
    }

    fn process(rank: u32, last_lines: &str) -> ProcessNews {
        let text = "exit code 0".into();
        let row = ProcessRow {
            rank,
            process: format!("demo.{rank}"),
            node: "n1".into(),
            serial: 1,
            starts: 1,
            state: "ended".into(),
            end: Some(ProcessEnd { how: "exited".into(), code: Some(0), signal: None, text }),
            used: None,
        };
        ProcessNews { row, last_lines: last_lines.into() }
    }

    fn at(seconds: u64) -> Tick {
        Tick(0) + Duration::from_secs(seconds)
    }

    fn news() -> GroupNews {
        GroupNews { name: "demo".into(), outcome: None }
    }

    #[test]
    fn a_group_is_remembered_for_a_day_and_the_last_word_on_a_process_counts() {
        let mut groups = Groups::default();
        groups.process(AppId(1), process(0, "of no group"));
        groups.group(launcher(1), news());
        groups.process(AppId(1), process(0, "first"));
        groups.process(AppId(1), process(0, "last"));
        groups.process(AppId(1), process(GROUP_PROCESSES_MAX, "one too many"));
        groups.gone(at(10), AppId(1), "killed");
        let Row::Group(row) = &groups.rows(at(70), "n1")[0] else { panic!("no group") };
        assert_eq!((row.processes, row.up_s), (1, 10));
        assert_eq!(row.ended, Some((60, "its launcher is gone: killed".into())));
        assert_eq!(groups.last_lines(AppId(1)), [Row::LastLines { rank: 0, text: "last".into() }]);
        assert_eq!(groups.rows(at(10) + REMEMBERED + Duration::from_secs(1), "n1"), []);
    }

    #[test]
    fn a_launcher_that_is_to_end_its_group_has_time_for_it_once() {
        let mut groups = Groups::default();
        assert!(!groups.ends(at(0), AppId(1), "ben"), "no group");
        groups.group(launcher(1), news());
        groups.group(launcher(2), news());
        assert!(groups.ends(at(0), AppId(1), "ben") && groups.ends(at(1), AppId(2), "ben"));
        assert!(!groups.ends(at(2), AppId(1), "ben"), "it was told");
        groups.gone(at(3), AppId(2), "it has ended");
        assert_eq!(groups.deadline(), Some(at(0) + GRACE));
        assert_eq!(groups.overdue(at(3)), []);
        assert_eq!(groups.overdue(at(0) + GRACE), [(AppId(1), "ben".to_owned())]);
        assert_eq!((groups.deadline(), groups.overdue(at(99))), (None, Vec::new()));
    }

    #[test]
    fn those_that_ended_first_make_room() {
        let mut groups = Groups::default();
        for app in 0..40 {
            groups.group(launcher(app), news());
            groups.gone(at(app as u64), AppId(app), "");
        }
        assert_eq!(groups.rows(at(40), "n1").len(), REMEMBERED_MAX);
        assert!(groups.user(AppId(7)).is_none() && groups.user(AppId(8)).is_some());
        let long = "x".repeat(TEXT_BYTES_MAX);
        for app in [98, 99] {
            groups.group(launcher(app), news());
            (0..GROUP_PROCESSES_MAX).for_each(|rank| groups.process(AppId(app), process(rank, &long)));
            groups.gone(at(app as u64), AppId(app), "");
        }
        assert!(groups.rows(at(99), "n1").len() == 1 && groups.user(AppId(99)).is_some());
    }
}
