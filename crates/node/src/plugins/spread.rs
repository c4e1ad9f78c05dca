//! Deals out, at the home, from whom each lender fetches a plugin or a blob.
//!
//! A pure machine: every holder, the home among them, serves at most [`AT_ONCE`] lenders at a time;
//! whoever has finished becomes a holder. So the origin sends a program a few times, and the number
//! of holders doubles from round to round. Of several things at a time each serves [`AT_ONCE_IN_ALL`].

use core::time::Duration;
use mutirao_wire::plugin::Item;
use mutirao_wire::{NodeId, NodeRef, Tick};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Lenders that one holder serves at once.
pub const AT_ONCE: u32 = 2;
/// A lender that has not reported for this long is no longer counted against its source.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Copies that one node sends at once in all, while they are of several plugins and blobs.
pub const AT_ONCE_IN_ALL: u32 = 16;
/// Lenders that can wait for one plugin or blob. A lender turned away asks again by itself.
pub const WAITING_MAX: usize = 16 * 1024;
/// Holders that are remembered for one plugin or blob.
pub const HOLDERS_MAX: usize = 4096;

/// What the machine is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// This home holds what applications here use.
    Keep {
        /// What.
        item: Item,
        /// This node.
        origin: NodeRef,
    },
    /// No application here uses it any more.
    Forget(Item),
    /// A lender needs a source.
    Need {
        /// What.
        item: Item,
        /// Who.
        lender: NodeRef,
        /// A source that was dealt before and did not deliver.
        failed: Option<NodeId>,
    },
    /// A lender has it all.
    Have {
        /// What.
        item: Item,
        /// Who.
        lender: NodeId,
    },
    /// The link to a node is lost.
    Lost(NodeId),
    /// Nothing but time has passed.
    Time,
}

/// What the machine says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Tell `to` to fetch from `source`.
    Source {
        /// The lender whose turn it is.
        to: NodeId,
        /// What.
        item: Item,
        /// From whom.
        source: NodeRef,
    },
    /// More than [`WAITING_MAX`] wait: this one was not queued.
    TurnedAway {
        /// The lender.
        lender: NodeId,
        /// What.
        item: Item,
    },
}

/// The sources of every plugin and blob that applications of this home use.
#[derive(Debug, Default)]
pub struct Spread {
    items: BTreeMap<Item, Known>,
    /// Those for which a lender waits.
    awaited: BTreeSet<Item>,
    sending: Sending,
}

/// Copies that each node sends now.
type Sending = BTreeMap<NodeId, u32>;

#[derive(Debug)]
struct Known {
    origin: NodeId,
    holders: BTreeMap<NodeId, Holder>,
    /// By lender.
    fetching: BTreeMap<NodeId, Fetch>,
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Holder {
    node: NodeRef,
    serving: u32,
    /// Served in all: the less used one is asked first.
    served: u64,
}

#[derive(Debug)]
struct Fetch {
    lender: NodeRef,
    source: NodeId,
    since: Tick,
}

#[derive(Debug)]
struct Waiting {
    lender: NodeRef,
    /// The source that failed it last; another is preferred.
    failed: Option<NodeId>,
}

impl Spread {
    /// A machine that knows of nothing.
    pub fn new() -> Spread {
        Spread::default()
    }

    /// Takes one input; appends what follows from it to `out`.
    pub fn handle(&mut self, now: Tick, input: Input, out: &mut Vec<Output>) {
        let sending = &mut self.sending;
        match input {
            Input::Keep { item, origin } => {
                self.items.entry(item).or_insert_with(|| Known::new(origin));
            }
            Input::Forget(item) => {
                if let Some(mut known) = self.items.remove(&item) {
                    known.stop_all(sending);
                }
                self.awaited.remove(&item);
            }
            Input::Need { item, lender, failed } => {
                let Some(known) = self.items.get_mut(&item) else { return };
                known.need(item, lender, failed, sending, out);
                if !known.waiting.is_empty() {
                    self.awaited.insert(item);
                }
            }
            Input::Have { item, lender } => {
                let Some(known) = self.items.get_mut(&item) else { return };
                known.have(lender, sending);
            }
            Input::Lost(node) => self.items.values_mut().for_each(|known| known.lost(node, sending)),
            Input::Time => self.items.values_mut().for_each(|known| known.expire(now, sending)),
        }
        // Whoever sends less now may send something else.
        let (items, sending) = (&mut self.items, &mut self.sending);
        self.awaited.retain(|item| {
            let Some(known) = items.get_mut(item) else { return false };
            known.deal(now, *item, sending, out);
            !known.waiting.is_empty()
        });
    }

    /// When to call with [`Input::Time`] next.
    pub fn deadline(&self) -> Option<Tick> {
        self.items
            .values()
            .flat_map(|known| known.fetching.values())
            .map(|fetch| fetch.since + PATIENCE)
            .min()
    }
}

impl Known {
    fn new(origin: NodeRef) -> Known {
        let id = origin.id;
        let holder = Holder { node: origin, serving: 0, served: 0 };
        Known {
            origin: id,
            holders: BTreeMap::from([(id, holder)]),
            fetching: BTreeMap::new(),
            waiting: VecDeque::new(),
        }
    }

    fn need(
        &mut self,
        item: Item,
        lender: NodeRef,
        failed: Option<NodeId>,
        sending: &mut Sending,
        out: &mut Vec<Output>,
    ) {
        // Whoever asks is neither fetching any more nor a holder.
        self.stop_fetching(lender.id, sending);
        if lender.id == self.origin {
            return;
        }
        self.holders.remove(&lender.id);
        // The origin is never given up: it has the files for certain, and may only have been slow.
        if let Some(failed) = failed.filter(|failed| *failed != self.origin) {
            self.holders.remove(&failed);
        }
        if let Some(known) = self.waiting.iter_mut().find(|waiting| waiting.lender.id == lender.id) {
            *known = Waiting { lender, failed };
        } else if self.waiting.len() < WAITING_MAX {
            self.waiting.push_back(Waiting { lender, failed });
        } else {
            out.push(Output::TurnedAway { lender: lender.id, item });
        }
    }

    fn have(&mut self, lender: NodeId, sending: &mut Sending) {
        // Only one that was told to fetch is believed: others are not known by address anyway.
        if let Some(node) = self.stop_fetching(lender, sending)
            && self.holders.len() < HOLDERS_MAX
        {
            // Some may still fetch from an earlier life of it as a holder.
            let serving = self.fetching.values().filter(|fetch| fetch.source == lender).count() as u32;
            self.holders.insert(lender, Holder { node, serving, served: 0 });
        }
    }

    fn lost(&mut self, node: NodeId, sending: &mut Sending) {
        self.stop_fetching(node, sending);
        self.waiting.retain(|waiting| waiting.lender.id != node);
        if node != self.origin {
            self.holders.remove(&node);
        }
    }

    fn expire(&mut self, now: Tick, sending: &mut Sending) {
        let late: Vec<NodeId> = self
            .fetching
            .iter()
            .filter(|(_, fetch)| now - fetch.since >= PATIENCE)
            .map(|(id, _)| *id)
            .collect();
        for lender in late {
            self.stop_fetching(lender, sending);
        }
    }

    fn stop_all(&mut self, sending: &mut Sending) {
        let lenders: Vec<NodeId> = self.fetching.keys().copied().collect();
        for lender in lenders {
            self.stop_fetching(lender, sending);
        }
    }

    fn stop_fetching(&mut self, lender: NodeId, sending: &mut Sending) -> Option<NodeRef> {
        let fetch = self.fetching.remove(&lender)?;
        if let Some(holder) = self.holders.get_mut(&fetch.source) {
            holder.serving = holder.serving.saturating_sub(1);
        }
        if let Some(count) = sending.get_mut(&fetch.source) {
            *count -= 1;
            if *count == 0 {
                sending.remove(&fetch.source);
            }
        }
        Some(fetch.lender)
    }

    /// Gives sources to those who wait, first come first served.
    fn deal(&mut self, now: Tick, item: Item, sending: &mut Sending, out: &mut Vec<Output>) {
        while let Some(next) = self.waiting.front() {
            let Some(source) = self.pick(next.failed, sending) else { return };
            let Some(Waiting { lender, .. }) = self.waiting.pop_front() else { return };
            let Some(holder) = self.holders.get_mut(&source) else { return };
            holder.serving += 1;
            holder.served += 1;
            *sending.entry(source).or_default() += 1;
            out.push(Output::Source { to: lender.id, item, source: holder.node.clone() });
            self.fetching.insert(lender.id, Fetch { lender, source, since: now });
        }
    }

    /// A holder that can serve one more: not the one that failed if there is another, rather not the
    /// origin, then the one used least.
    fn pick(&self, failed: Option<NodeId>, sending: &Sending) -> Option<NodeId> {
        let has_room = |id: &NodeId| sending.get(id).is_none_or(|count| *count < AT_ONCE_IN_ALL);
        let open = self.holders.iter().filter(|(id, holder)| holder.serving < AT_ONCE && has_room(id));
        open.min_by_key(|(id, holder)| {
            (Some(**id) == failed, **id == self.origin, holder.serving, holder.served)
        })
        .map(|(id, _)| *id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mutirao_wire::{AppId, BlobHash, Incarnation, PluginId};
    use proptest::prelude::*;
    use std::collections::HashMap;

    const ITEM: Item = Item::Plugin(PluginId([7; 32]));
    const ORIGIN: u8 = 0;

    fn id(number: u8) -> NodeId {
        NodeId([number; 32])
    }

    fn node(number: u8) -> NodeRef {
        NodeRef {
            id: id(number),
            incarnation: Incarnation(1),
            name: format!("n{number}"),
            addresses: vec!["127.0.0.1:1".parse().unwrap()],
        }
    }

    fn machine() -> Spread {
        let mut spread = Spread::new();
        spread.handle(Tick(0), Input::Keep { item: ITEM, origin: node(ORIGIN) }, &mut Vec::new());
        spread
    }

    fn need(number: u8, failed: Option<u8>) -> Input {
        Input::Need { item: ITEM, lender: node(number), failed: failed.map(id) }
    }

    fn have(number: u8) -> Input {
        Input::Have { item: ITEM, lender: id(number) }
    }

    fn sources(out: &[Output]) -> Vec<(NodeId, NodeId)> {
        let pair = |output: &Output| match output {
            Output::Source { to, source, .. } => Some((*to, source.id)),
            Output::TurnedAway { .. } => None,
        };
        out.iter().filter_map(pair).collect()
    }

    #[test]
    fn a_holder_serves_two_at_once_and_the_third_waits_for_its_turn() {
        let (mut spread, mut out) = (machine(), Vec::new());
        for lender in 1..=3 {
            spread.handle(Tick(0), need(lender, None), &mut out);
        }
        assert_eq!(sources(&out), [(id(1), id(ORIGIN)), (id(2), id(ORIGIN))]);
        out.clear();
        spread.handle(Tick(1), have(1), &mut out);
        assert_eq!(sources(&out), [(id(3), id(1))], "the new holder comes before the origin");
    }

    #[test]
    fn a_failed_source_is_not_dealt_again_but_the_origin_stays() {
        let (mut spread, mut out) = (machine(), Vec::new());
        spread.handle(Tick(0), need(1, None), &mut out);
        spread.handle(Tick(0), have(1), &mut out);
        out.clear();
        spread.handle(Tick(1), need(2, None), &mut out);
        assert_eq!(sources(&out), [(id(2), id(1))]);
        out.clear();
        spread.handle(Tick(2), need(2, Some(1)), &mut out);
        assert_eq!(sources(&out), [(id(2), id(ORIGIN))]);
        assert_eq!(spread.items[&ITEM].holders.len(), 1);
        out.clear();
        spread.handle(Tick(3), need(2, Some(ORIGIN)), &mut out);
        assert_eq!(sources(&out), [(id(2), id(ORIGIN))], "there is no other, so it is tried again");
    }

    #[test]
    fn one_who_never_reports_frees_the_source() {
        let (mut spread, mut out) = (machine(), Vec::new());
        for lender in 1..=3 {
            spread.handle(Tick(0), need(lender, None), &mut out);
        }
        out.clear();
        let late = spread.deadline().unwrap();
        assert_eq!(late, Tick(0) + PATIENCE);
        spread.handle(late, Input::Time, &mut out);
        assert_eq!(sources(&out), [(id(3), id(ORIGIN))]);
    }

    #[test]
    fn a_node_sends_no_more_in_all_than_it_should_however_many_things_are_wanted() {
        let (mut spread, mut out) = (Spread::new(), Vec::new());
        let blob = |number: u8| Item::Blob { app: AppId(1), hash: BlobHash([number; 32]) };
        for number in 0..40 {
            let origin = node(ORIGIN);
            spread.handle(Tick(0), Input::Keep { item: blob(number), origin }, &mut out);
            let lender = node(1 + number % 4);
            spread.handle(Tick(0), Input::Need { item: blob(number), lender, failed: None }, &mut out);
        }
        assert_eq!(sources(&out).len(), AT_ONCE_IN_ALL as usize);
        // Whatever ends, whatever else waits goes on.
        spread.handle(Tick(1), Input::Forget(blob(0)), &mut out);
        spread.handle(Tick(1), Input::Have { item: blob(1), lender: id(2) }, &mut out);
        assert_eq!(sources(&out).len(), AT_ONCE_IN_ALL as usize + 2);
        for number in 2..40 {
            spread.handle(Tick(2), Input::Have { item: blob(number), lender: id(1 + number % 4) }, &mut out);
        }
        assert_eq!(sources(&out).len(), 40);
        for number in 0..40 {
            spread.handle(Tick(3), Input::Forget(blob(number)), &mut out);
        }
        assert!(spread.sending.is_empty() && spread.awaited.is_empty());
    }

    #[test]
    fn a_claim_by_one_who_was_given_no_source_makes_no_holder() {
        let mut spread = machine();
        spread.handle(Tick(0), have(9), &mut Vec::new());
        assert_eq!(spread.items[&ITEM].holders.len(), 1);
    }

    /// Plays `lenders` fetching at 100 ms a copy and a stream; `dies` fail the first fetch from them.
    /// Returns how many copies each holder sent, and when the last one was done.
    fn play(lenders: u8, dies: &BTreeSet<u8>) -> (HashMap<NodeId, u32>, Tick) {
        let (mut spread, mut out) = (machine(), Vec::new());
        let mut under_way: Vec<(Tick, NodeId, NodeId)> = Vec::new();
        let mut sent: HashMap<NodeId, u32> = HashMap::new();
        let mut done = BTreeSet::new();
        let mut now = Tick(0);
        let mut inputs: VecDeque<Input> = (1..=lenders).map(|lender| need(lender, None)).collect();
        while done.len() < usize::from(lenders) {
            for input in inputs.drain(..) {
                spread.handle(now, input, &mut out);
            }
            for (to, source) in sources(&out) {
                under_way.push((now + Duration::from_millis(100), to, source));
            }
            out.clear();
            for holder in under_way.iter().map(|(_, _, source)| source) {
                assert!(under_way.iter().filter(|(_, _, other)| other == holder).count() <= AT_ONCE as usize);
            }
            let Some(next) = under_way.iter().map(|fetch| fetch.0).min() else {
                panic!("{} of {lenders} wait for ever", usize::from(lenders) - done.len());
            };
            now = next;
            under_way.retain(|&(when, to, source)| {
                if when > now {
                    return true;
                }
                if source != id(ORIGIN) && dies.contains(&source.0[0]) {
                    inputs.push_back(need(to.0[0], Some(source.0[0])));
                } else {
                    *sent.entry(source).or_default() += 1;
                    done.insert(to);
                    inputs.push_back(have(to.0[0]));
                }
                false
            });
        }
        (sent, now)
    }

    #[test]
    fn the_origin_sends_to_few_of_sixteen() {
        let (sent, end) = play(16, &BTreeSet::new());
        assert_eq!(sent.values().sum::<u32>(), 16);
        assert!(sent[&id(ORIGIN)] <= 6, "the origin sent it {} times", sent[&id(ORIGIN)]);
        assert!(end <= Tick(0) + Duration::from_millis(400), "three rounds or four, not {end:?}");
    }

    proptest! {
        #[test]
        fn everybody_gets_it_whoever_fails(lenders in 1u8..60, dies in prop::collection::btree_set(1u8..60, 0..30)) {
            let (sent, _) = play(lenders, &dies);
            prop_assert_eq!(sent.values().sum::<u32>(), u32::from(lenders));
        }

        #[test]
        fn nobody_waits_while_a_holder_is_open(
            steps in prop::collection::vec((0u8..5, 0u8..12, prop::option::of(0u8..12)), 1..200),
        ) {
            let (mut spread, mut out) = (machine(), Vec::new());
            let mut now = Tick(0);
            for (what, number, failed) in steps {
                now = now + Duration::from_secs(7);
                let input = match what {
                    0 | 1 => need(number, failed),
                    2 => have(number),
                    3 => Input::Lost(id(number)),
                    _ => Input::Time,
                };
                spread.handle(now, input, &mut out);
                let known = &spread.items[&ITEM];
                prop_assert!(known.waiting.is_empty() || known.holders.values().all(|holder| holder.serving >= AT_ONCE));
                prop_assert!(known.holders.contains_key(&id(ORIGIN)));
                for (holder_id, holder) in &known.holders {
                    let fetching = known.fetching.values().filter(|fetch| fetch.source == *holder_id).count();
                    prop_assert!(holder.serving as usize >= fetching && holder.serving <= AT_ONCE);
                }
            }
        }
    }
}
