//! Where requests that wait stand, for people.

use crate::core::Core;
use crate::keep::Keep;
use mutirao_wire::query::{Row, StandRow, Taken, WaitingRow};
use mutirao_wire::wait::Rank;
use mutirao_wire::{RequestId, Tick};
use std::collections::BTreeMap;

/// Requests named that come just before another.
const BEFORE_MAX: usize = 3;
/// Users and times named to whom slots of one node are lent.
const TAKEN_MAX: usize = 16;

/// Whether people mean this request by `name`: the first digits of its application's id and, after a
/// dot, its number there, if it is not the application's only one.
fn is_called(request: RequestId, name: &str) -> bool {
    let (app, sequence) = name.split_once('.').map_or((name, None), |(app, sequence)| (app, Some(sequence)));
    !app.is_empty()
        && request.app.to_string().starts_with(app)
        && sequence.is_none_or(|sequence| sequence.parse() == Ok(request.sequence))
}

impl Core {
    /// The requests this node decides about, first ones first.
    pub fn queue_rows(&self) -> Vec<Row> {
        let ranking = self.ranking();
        let row = |place| self.waiting_row(&ranking, place).map(Row::Waiting);
        (0..ranking.len()).filter_map(row).collect()
    }

    /// What this node has to say about the request that people call `name`: as its arbiter, and as one
    /// that could lend to it.
    pub fn explain_rows(&self, name: &str) -> Vec<Row> {
        let ranking = self.ranking();
        let mine = (0..ranking.len()).filter(|place| is_called(ranking[*place].1, name));
        let mut rows: Vec<Row> =
            mine.filter_map(|place| self.waiting_row(&ranking, place).map(Row::Waiting)).collect();
        let named = self.keeps.ids().into_iter().filter(|request| is_called(*request, name));
        rows.extend(
            named.filter_map(|request| Some(Row::Stand(self.stand_row(request, self.keeps.get(request)?)))),
        );
        rows
    }

    fn waiting_row(&self, ranking: &[(Rank, RequestId)], place: usize) -> Option<WaitingRow> {
        let (rank, request) = ranking[place];
        let waiting = self.queue.waiting.get(&request)?;
        let keep = self.keeps.get(request);
        let kept = keep.map(Keep::kept).unwrap_or_default();
        let start = kept.start(self.now, waiting.need);
        let before = ranking[..place].iter().rev().take(BEFORE_MAX);
        Some(WaitingRow {
            request,
            app_name: waiting.asker.app_name.clone(),
            user: waiting.user.clone(),
            home: waiting.asker.home.name.clone(),
            want: waiting.want.clone(),
            need: waiting.need,
            priority: rank.priority,
            share: rank.share,
            waited_ms: (self.now - waiting.since).as_millis() as u64,
            place: place as u32 + 1,
            before: before.map(|(_, request)| *request).collect(),
            arbiter: self.me.name.clone(),
            held: kept.held,
            able: kept.able,
            start_ms: start.map(|start| (start - self.now).as_millis() as u64),
        })
    }

    fn stand_row(&self, request: RequestId, keep: &Keep) -> StandRow {
        let mut taken: BTreeMap<(&str, Option<Tick>), u32> = BTreeMap::new();
        let ends: BTreeMap<u64, Tick> = self.lend.ends().map(|(at, serial)| (serial, at)).collect();
        for record in self.lend.all() {
            let slots = taken.entry((&record.user, ends.get(&record.serial).copied())).or_default();
            *slots += u32::from(record.bundle.slots);
        }
        let taken = taken.into_iter().take(TAKEN_MAX).map(|((user, until), slots)| Taken {
            user: user.to_owned(),
            slots,
            for_ms: until.map(|until| (until - self.now).as_millis() as u64),
        });
        StandRow {
            node: self.me.name.clone(),
            request,
            held: keep.here.kept.held,
            able: keep.here.kept.able,
            slots_free: self.lend.free(),
            slots_kept: self.kept_before(keep.rank, request),
            hindrance: keep.here.hindrance.clone(),
            taken: taken.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mutirao_wire::AppId;
    use mutirao_wire::query::request_name;

    #[test]
    fn a_request_is_known_by_the_name_people_see_and_by_less() {
        let request = RequestId { app: AppId(0x3fa9_c1d2 << 96), sequence: 7, attempt: 0 };
        assert_eq!(request_name(request), "3fa9c1d2.7");
        for name in ["3fa9c1d2.7", "3fa9c1d2", "3fa.7", "3"] {
            assert!(is_called(request, name), "{name}");
        }
        for name in ["", ".7", "3fa9c1d2.8", "3fa9c1d2.", "4", "3fa9c1d2.7.7"] {
            assert!(!is_called(request, name), "{name}");
        }
    }
}
